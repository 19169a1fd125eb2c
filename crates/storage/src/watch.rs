//! Whether files that are served are still as they were left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bitvec::vec::BitVec;
use parking_lot::Mutex;
use rustix::fs::Stat;

use piecework_core::Fingerprint;

use super::file_state::fingerprint;

/// What the files of a store were like when they were left, for [`Store::serve`](super::Store::serve).
///
/// A file is looked at before it is read if that was not done within the last second: by its name,
/// which costs a few system calls, and never while nobody reads. Of a file that is still being
/// written only the identity is held against what was seen before.
#[derive(Debug)]
pub struct Watch {
    start: Instant,
    /// When each file was looked at, in milliseconds from `start` on, plus one; 0 for never.
    looked: Box<[AtomicU32]>,
    state: Mutex<WatchState>,
}

#[derive(Debug)]
struct WatchState {
    /// Files we write to.
    unfinished: BitVec,
    /// What the files were like, as far as that is known.
    kept: Box<[Option<Fingerprint>]>,
    /// Device and inode of each file that was looked at.
    seen: BTreeMap<usize, (u64, u64)>,
}

impl Watch {
    /// Of as many files as `unfinished` has bits, of which those that are set are being written.
    /// `kept` says what the others were like when their content was known; nothing, or nothing of
    /// a file, has the first look believed.
    pub fn new(unfinished: BitVec, kept: &[Option<Fingerprint>]) -> Self {
        let looked = unfinished.iter().map(|_| AtomicU32::new(0)).collect();
        let state = WatchState { unfinished, kept: kept.into(), seen: BTreeMap::new() };
        Self { start: Instant::now(), looked, state: Mutex::new(state) }
    }

    /// Whether the file is to be looked at before it is read.
    pub(super) fn is_due(&self, file: usize) -> bool {
        let Some(looked) = self.looked.get(file) else { return false };
        let looked = looked.load(Ordering::Relaxed);
        looked == 0 || self.now().wrapping_sub(looked) >= EVERY_MS
    }

    /// Returns whether the file, which `stat` was just read of, is as it was left. Then it is not due
    /// for a while.
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

    /// The last of the file has been written: from now on nobody is to change it.
    pub fn finished(&self, file: usize) {
        let mut state = self.state.lock();
        if let Some(mut bit) = state.unfinished.get_mut(file) {
            *bit = false;
        }
        // Not before it is on the disk: what the system says of it may change until then.
        if let Some(kept) = state.kept.get_mut(file) {
            *kept = None;
        }
    }

    /// Whether we are still writing to the file.
    pub fn is_unfinished(&self, file: usize) -> bool {
        self.state.lock().unfinished.get(file).is_some_and(|bit| *bit)
    }

    /// What all files are like now that all of them is on the disk.
    pub fn keep(&self, files: &[Option<Fingerprint>]) {
        self.state.lock().kept = files.into();
    }

    fn now(&self) -> u32 {
        // Wraps after 49 days: a file that nobody read for just that long is looked at once less.
        (self.start.elapsed().as_millis() as u32).wrapping_add(1).max(1)
    }
}

/// How long a look holds.
const EVERY_MS: u32 = 1_000;
