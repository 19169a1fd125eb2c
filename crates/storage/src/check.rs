//! Which pieces of a torrent are on disk already.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use piecework_core::metainfo::TorrentBytes;
use piecework_core::{Bitfield, PieceIndex};

use super::error::StorageError;
use super::files::Files;
use super::hash::{self, Digest20};
use super::store::Store;
use super::sweep::{Sink, Sweep, all_cores};

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// Pieces looked at, right or not.
    pub pieces_done: u32,
    /// Pieces to look at.
    pub pieces_total: u32,
    /// Bytes of the pieces looked at.
    pub bytes_done: u64,
}

/// What a check has state so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Pieces looked at.
    pub looked: Bitfield,
    /// Those of them that are right.
    pub right: Bitfield,
}

/// Hashes the content of `store` on all cores and says which pieces are right.
///
/// Only `pieces` are looked at, if given; the others are not in the answer. Pieces whose files
/// are missing or too short are not read at all. `progress` is told at every step, never by two
/// threads at once and never backwards, a last time with all pieces done unless `cancel` was set:
/// then the answer holds what was state right so far, and the rest is not known.
///
/// # Errors
/// [`StorageError::TooLong`] before anything is read if a file goes on behind the end the torrent
/// gives it: it is another file than the torrent's, or one that has grown, and to make it fit
/// would take truncating it. Other errors if a file cannot be looked at or read though it is
/// there.
pub fn check(
    store: &Store,
    pieces: Option<&Bitfield>,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Bitfield, StorageError> {
    let lengths = store.files().lengths()?;
    refuse_long(store, &lengths)?;
    let progress = |at, _: &Checked| progress(at);
    Ok(check_present(store, &lengths, pieces, &progress, cancel)?.right)
}

/// The same, but files may be longer than the torrent says if `any_length`: what lies behind its end
/// is not read. `progress` is also given what was state so far, and after a `cancel` the answer says
/// what was looked at.
///
/// # Errors
/// As [`check()`], but for files that are too long if `any_length`.
pub fn check_step_by_step(
    store: &Store,
    pieces: Option<&Bitfield>,
    any_length: bool,
    progress: impl Fn(CheckProgress, &Checked) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Checked, StorageError> {
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

/// The same, with files as long as `lengths` says; those that are too long may be so.
pub(super) fn check_present(
    store: &Store,
    lengths: &[Option<u64>],
    pieces: Option<&Bitfield>,
    progress: &(impl Fn(CheckProgress, &Checked) + Send + Sync),
    cancel: &AtomicBool,
) -> Result<Checked, StorageError> {
    let geometry = store.geometry();
    let files = store.files();
    let mut wanted = pieces.map_or_else(|| Bitfield::full(geometry.pieces()), Bitfield::clone);
    let mut start = CheckProgress { pieces_done: 0, pieces_total: wanted.count(), bytes_done: 0 };
    let nothing = Bitfield::empty(geometry.pieces());
    let mut checked = Checked { looked: nothing.clone(), right: nothing };
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

/// The pieces that cannot be whole, because one of their files ends too early.
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
    checked: Checked,
    progress: CheckProgress,
}

impl<P: Fn(CheckProgress, &Checked) + Send + Sync> CheckSink<'_, P> {
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
        // Under the lock, so that what is told never goes backwards.
        (self.progress)(state.progress, &state.checked);
    }
}

impl<P: Fn(CheckProgress, &Checked) + Send + Sync> Sink for CheckSink<'_, P> {
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
            // Removed or shortened since its length was looked at: missing like any other.
            StorageError::Missing { .. } | StorageError::Changed { .. } => {
                self.tell([(piece, false)]);
                Ok(())
            }
            error => Err(error),
        }
    }
}
