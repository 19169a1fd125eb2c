//! Reports which files of a torrent are complete, and where the others are damaged.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use piecework_core::{Bitfield, PieceIndex};

use super::check::{CheckProgress, CheckResult, check_present};
use super::error::StorageError;
use super::store::Store;

/// The state of one file of a torrent on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The path below the root. Show it through [`printable`](piecework_core::printable).
    pub path: PathBuf,
    /// The length in the torrent, in bytes.
    pub len: u64,
    /// The length on disk, in bytes; `None` if the file is missing.
    pub found_len: Option<u64>,
    /// The pieces of the file that are not right, in order. A wrong piece that spans several files
    /// is counted for each of them: a hash does not tell which is damaged.
    pub bad_pieces: Vec<PieceIndex>,
}

/// Checks all of `store`. Returns the pieces that are right, and a report for every file except
/// padding, in the order of the torrent. Unlike [`check`](super::check()), it accepts files that
/// are longer than in the torrent. `progress` and `cancel` work as there. What was not checked
/// before a cancel counts as bad.
pub fn verify(
    store: &Store,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<(Bitfield, Vec<FileReport>), StorageError> {
    let lengths = store.files().lengths()?;
    let progress = |at, _: &CheckResult| progress(at);
    let right = check_present(store, &lengths, None, &progress, cancel)?.right;
    let reports = report(store, &lengths, &right);
    Ok((right, reports))
}

/// Returns the reports that follow from `right`, the pieces known to be right, and from the lengths
/// of the files.
pub fn file_reports(store: &Store, right: &Bitfield) -> Result<Vec<FileReport>, StorageError> {
    Ok(report(store, &store.files().lengths()?, right))
}

impl FileReport {
    /// Returns whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        self.found_len.is_none()
    }

    /// Returns whether the file has the right length and only right pieces.
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
