//! How a journal is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// The path of the file. Several programs may write to one file.
    pub path: PathBuf,
    /// Older rows are removed.
    pub age: Duration,
    /// The size limit of the file in bytes. The oldest rows are removed first.
    pub size: u64,
    /// The name of the program that writes, for people.
    pub program: String,
}

impl JournalOptions {
    /// Returns the path of the journal configured as `journal`. A bare file name is in `folder`.
    /// Returns `None` if it is empty, which means no journal.
    pub fn place(journal: &Path, folder: &Path) -> Option<PathBuf> {
        let is_bare = journal.components().count() == 1 && !journal.is_absolute();
        match journal.as_os_str().is_empty() {
            true => None,
            false if is_bare => Some(folder.join(journal)),
            false => Some(journal.to_owned()),
        }
    }
}
