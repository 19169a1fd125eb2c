//! Finds out which pieces of a torrent are on disk.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use piecework_core::metainfo::TorrentBytes;
use piecework_core::{Bitfield, PieceIndex};

use super::error::StorageError;
use super::files::Files;
use super::hash::{self, Digest20};
use super::store::Store;
use super::sweep::{Sink, Sweep, all_cores};

/// The progress of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// Pieces checked, right or not.
    pub pieces_done: u32,
    /// Pieces to check.
    pub pieces_total: u32,
    /// Bytes of the pieces checked.
    pub bytes_done: u64,
}

/// What a check has found so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The pieces that were checked.
    pub looked: Bitfield,
    /// Those of them that are right.
    pub right: Bitfield,
}

/// Hashes the content of `store` on all cores and returns which pieces are right.
///
/// If `pieces` are given, only these are checked; the others are not in the result. Pieces whose
/// files are missing or too short are not read. `progress` is called at every step, never by two
/// threads at once and never backwards. Unless `cancel` was set, the last call has all pieces done.
/// After a cancel, the result has what was found right so far.
///
/// # Errors
/// [`StorageError::TooLong`], before anything is read, if a file is longer than in the torrent: it
/// is another file, or has grown, and only truncation would make it fit. Other errors if an
/// existing file cannot be accessed or read.
pub fn check(
    store: &Store,
    pieces: Option<&Bitfield>,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Bitfield, StorageError> {
    let lengths = store.files().lengths()?;
    refuse_long(store, &lengths)?;
    let progress = |at, _: &CheckResult| progress(at);
    Ok(check_present(store, &lengths, pieces, &progress, cancel)?.right)
}

/// The same, but with `any_length` files may be longer than in the torrent; what lies after the end
/// is not read. `progress` also gets what was found so far. After a cancel, the result says which
/// pieces were checked.
///
/// # Errors
/// As [`check()`], except for files that are too long if `any_length`.
pub fn check_step_by_step(
    store: &Store,
    pieces: Option<&Bitfield>,
    any_length: bool,
    progress: impl Fn(CheckProgress, &CheckResult) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<CheckResult, StorageError> {
    let lengths = store.files().lengths()?;
    if !any_length {
        refuse_long(store, &lengths)?;
    }
    check_present(store, &lengths, pieces, &progress, cancel)
}

fn refuse_long(store: &Store, lengths: &[Option<u64>]) -> Result<(), StorageError> {
    let files = store.files();
    for (file, (entry, len)) in files.map.entries().iter().zip(lengths).enumerate() {
        if let Some(len) = len.filter(|len| *len > entry.len) {
            let (path, wanted) = (files.path_of(file), entry.len);
            return Err(StorageError::TooLong { path, len, wanted });
        }
    }
    Ok(())
}

/// The same with files of the given `lengths`. Files may be too long.
pub(super) fn check_present(
    store: &Store,
    lengths: &[Option<u64>],
    pieces: Option<&Bitfield>,
    progress: &(impl Fn(CheckProgress, &CheckResult) + Send + Sync),
    cancel: &AtomicBool,
) -> Result<CheckResult, StorageError> {
    let geometry = store.geometry();
    let files = store.files();
    let mut wanted = pieces.map_or_else(|| Bitfield::full(geometry.pieces()), Bitfield::clone);
    let mut start = CheckProgress { pieces_done: 0, pieces_total: wanted.count(), bytes_done: 0 };
    let nothing = Bitfield::empty(geometry.pieces());
    let mut checked = CheckResult { looked: nothing.clone(), right: nothing };
    for piece in absent(&files, store, lengths).iter() {
        if wanted.remove(piece) {
            checked.looked.insert(piece);
            start.pieces_done += 1;
            start.bytes_done += u64::from(geometry.piece_size(piece));
        }
    }
    progress(start, &checked);
    let state = Mutex::new(CheckState { checked, progress: start });
    let torrent = store.torrent()?;
    let sink = CheckSink { store, torrent, wanted, state: &state, progress };
    Sweep { files, geometry, threads: all_cores(), level: hash::level(), cancel }.run(&sink)?;
    Ok(state.into_inner().checked)
}

/// Returns the pieces that cannot be complete, because one of their files ends too early.
fn absent(files: &Files<'_>, store: &Store, lengths: &[Option<u64>]) -> Bitfield {
    let geometry = store.geometry();
    let mut absent = Bitfield::empty(geometry.pieces());
    for (entry, len) in files.map.entries().iter().zip(lengths) {
        let len = len.unwrap_or(0).min(entry.len);
        let lacking = entry.offset + len..entry.offset + entry.len;
        for piece in geometry.pieces_of(lacking) {
            absent.insert(PieceIndex(piece));
        }
    }
    absent
}

struct CheckSink<'a, P> {
    store: &'a Store,
    torrent: TorrentBytes,
    wanted: Bitfield,
    state: &'a Mutex<CheckState>,
    progress: &'a P,
}

struct CheckState {
    checked: CheckResult,
    progress: CheckProgress,
}

impl<P: Fn(CheckProgress, &CheckResult) + Send + Sync> CheckSink<'_, P> {
    fn tell(&self, pieces: impl IntoIterator<Item = (PieceIndex, bool)>) {
        let geometry = self.store.geometry();
        let mut state = self.state.lock();
        for (piece, right) in pieces {
            state.checked.looked.insert(piece);
            if right {
                state.checked.right.insert(piece);
            }
            state.progress.pieces_done += 1;
            state.progress.bytes_done += u64::from(geometry.piece_size(piece));
        }
        // Called under the lock, so that progress never goes backwards.
        (self.progress)(state.progress, &state.checked);
    }
}

impl<P: Fn(CheckProgress, &CheckResult) + Send + Sync> Sink for CheckSink<'_, P> {
    fn wants(&self, piece: PieceIndex) -> bool {
        self.wanted.contains(piece)
    }

    fn hashed(&self, digests: &[(PieceIndex, Digest20)]) {
        let hash = |piece| self.torrent.piece_hash(piece);
        let is_right = |piece, digest| hash(piece).is_some_and(|hash| hash.0 == digest);
        self.tell(digests.iter().map(|(piece, digest)| (*piece, is_right(*piece, *digest))));
    }

    fn unreadable(&self, piece: PieceIndex, error: StorageError) -> Result<(), StorageError> {
        match error {
            // Removed or shortened since its length was read: missing like any other.
            StorageError::Missing { .. } | StorageError::Changed { .. } => {
                self.tell([(piece, false)]);
                Ok(())
            }
            error => Err(error),
        }
    }
}
