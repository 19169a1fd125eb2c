//! Checks whether files that are served are still as they were left.

use piecework_core::{SaturatingFrom, low_half};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bitvec::vec::BitVec;
use parking_lot::Mutex;
use rustix::fs::Stat;

use piecework_core::Fingerprint;

use super::file_state::fingerprint;

/// The state of the files of a store when they were left, for
/// [`Store::serve`](super::Store::serve).
///
/// A file is checked before it is read, unless it was checked within the last second. The check is
/// by name and costs a few system calls; files that nobody reads are not checked. For a file that
/// is still being written, only its identity is compared.
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    /// When each file was checked, in milliseconds since `start`, plus one; 0 for never.
    looked: Box<[AtomicU32]>,
    state: Mutex<WatchState>,
}

#[derive(Debug)]
struct WatchState {
    /// Files that we write to.
    unfinished: BitVec,
    /// The last known state of the files.
    kept: Box<[Option<Fingerprint>]>,
    /// Device and inode of each file that was checked.
    seen: BTreeMap<usize, (u64, u64)>,
}

impl Watch {
    /// Creates a watch for as many files as `unfinished` has bits; those set are being written.
    /// `kept` has the state of the others when their content was known. If it has none for a file,
    /// the first check is believed.
    pub fn new(unfinished: BitVec, kept: &[Option<Fingerprint>]) -> Self {
        let looked = unfinished.iter().map(|_| AtomicU32::new(0)).collect();
        let state = WatchState { unfinished, kept: kept.into(), seen: BTreeMap::new() };
        Self { start: Instant::now(), looked, state: Mutex::new(state) }
    }

    /// Returns whether the file has to be checked before it is read.
    pub(super) fn is_due(&self, file: usize) -> bool {
        let Some(looked) = self.looked.get(file) else { return false };
        let looked = looked.load(Ordering::Relaxed);
        looked == 0 || self.now().wrapping_sub(looked) >= EVERY_MS
    }

    /// Returns whether the file with the current metadata `stat` is as it was left. If so, it is
    /// not due for a while.
    pub(super) fn is_unchanged(&self, file: usize, stat: &Stat) -> bool {
        let (id, print) = ((stat.st_dev, stat.st_ino), fingerprint(stat));
        let mut state = self.state.lock();
        if *state.seen.entry(file).or_insert(id) != id {
            return false;
        }
        let is_ours = state.unfinished.get(file).is_some_and(|bit| *bit);
        if !is_ours && let Some(kept) = state.kept.get_mut(file) {
            match kept {
                Some(kept) if !kept.is_unsure() && *kept != print => return false,
                kept => *kept = Some(print),
            }
        }
        drop(state);
        if let Some(looked) = self.looked.get(file) {
            looked.store(self.now(), Ordering::Relaxed);
        }
        true
    }

    /// Records that the file was written for the last time. From now on it must not change.
    pub fn finished(&self, file: usize) {
        let mut state = self.state.lock();
        if let Some(mut bit) = state.unfinished.get_mut(file) {
            *bit = false;
        }
        // Not before it is on the disk: until then its metadata may change.
        if let Some(kept) = state.kept.get_mut(file) {
            *kept = None;
        }
    }

    /// Returns whether we still write to the file.
    pub fn is_unfinished(&self, file: usize) -> bool {
        self.state.lock().unfinished.get(file).is_some_and(|bit| *bit)
    }

    /// Records the state of all files, now that they are completely on the disk.
    pub fn keep(&self, files: &[Option<Fingerprint>]) {
        self.state.lock().kept = files.into();
    }

    fn now(&self) -> u32 {
        // Wraps after 49 days: a file that nobody read for exactly that long skips one check.
        low_half(u64::saturating_from(self.start.elapsed().as_millis())).wrapping_add(1).max(1)
    }
}

/// How long a check is valid.
const EVERY_MS: u32 = 1_000;
