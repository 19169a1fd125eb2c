//! How a journal is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Its file. Several programs may write into one.
    pub path: PathBuf,
    /// Rows older than this are taken out.
    pub age: Duration,
    /// Bytes that the file may have; the oldest rows make room.
    pub size: u64,
    /// Which program writes, for people.
    pub program: String,
}

impl JournalOptions {
    /// Where a journal is that is configured as `journal`: a bare name lies in `folder`. `None` if
    /// there is to be none: it is empty.
    pub fn place(journal: &Path, folder: &Path) -> Option<PathBuf> {
        let is_bare = journal.components().count() == 1 && !journal.is_absolute();
        match journal.as_os_str().is_empty() {
            true => None,
            false if is_bare => Some(folder.join(journal)),
            false => Some(journal.to_owned()),
        }
    }
}
