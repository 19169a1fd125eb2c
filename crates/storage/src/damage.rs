//! Which files of a torrent are whole, and where those that are not are damaged.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use piecework_core::{Bitfield, PieceIndex};

use super::check::{CheckProgress, Checked, check_present};
use super::error::StorageError;
use super::store::Store;

/// What is on disk of one file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Where it should lie, below the root. Show it through `base::printable`.
    pub path: PathBuf,
    /// Its length as the torrent says, in bytes.
    pub len: u64,
    /// Its length on disk, in bytes; `None` if it is missing.
    pub found_len: Option<u64>,
    /// The pieces it has a part in that are not right, in order. A wrong piece that lies over
    /// several files is counted against each: a hash does not tell which of them is damaged.
    pub bad_pieces: Vec<PieceIndex>,
}

/// Checks all of `store` and reports on every file but padding, in the torrent's order, together
/// with the pieces that are right. Unlike [`check`](super::check()) it goes on when files are
/// longer than the torrent says. `progress` and `cancel` as there; what was not looked at before
/// a cancel counts as bad.
pub fn verify(
    store: &Store,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<(Bitfield, Vec<FileReport>), StorageError> {
    let lengths = store.files().lengths()?;
    let progress = |at, _: &Checked| progress(at);
    let right = check_present(store, &lengths, None, &progress, cancel)?.right;
    let reports = report(store, &lengths, &right);
    Ok((right, reports))
}

/// The reports that follow from `right`, the pieces known to be right, and the files' lengths.
pub fn file_reports(store: &Store, right: &Bitfield) -> Result<Vec<FileReport>, StorageError> {
    Ok(report(store, &store.files().lengths()?, right))
}

impl FileReport {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        self.found_len.is_none()
    }

    /// Whether the file is there, as long as it should be, with only right pieces.
    pub fn is_whole(&self) -> bool {
        self.found_len == Some(self.len) && self.bad_pieces.is_empty()
    }
}

fn report(store: &Store, lengths: &[Option<u64>], right: &Bitfield) -> Vec<FileReport> {
    let geometry = store.geometry();
    let files = store.metainfo().info().files();
    let report =
        |(entry, found_len): (&piecework_core::metainfo::FileEntry, &Option<u64>)| FileReport {
            path: entry.relative_path(),
            len: entry.len,
            found_len: *found_len,
            bad_pieces: geometry
                .pieces_of(entry.span())
                .map(PieceIndex)
                .filter(|piece| !right.contains(*piece))
                .collect(),
        };
    let real = files.entries().iter().zip(lengths).filter(|(entry, _)| !entry.padding);
    real.map(report).collect()
}
