//! Why a journal cannot be opened, read or written.

use std::path::{Path, PathBuf};

use piecework_core::{Unwritable, printable_path};
use piecework_database::{Cause, Fault, OpenError};

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// SQLite or the system returned an error.
    #[error("the journal `{}` cannot be used: {source}", printable_path(.path))]
    Sqlite { path: PathBuf, source: Cause },
    /// The disk is full or read-only.
    #[error("the journal `{}` cannot be written: {why}", printable_path(.path))]
    Unwritable { path: PathBuf, why: Unwritable },
    /// The system has no descriptor or memory left at the moment.
    #[error("the journal `{}` cannot be written at the moment: {source}", printable_path(.path))]
    Scarce { path: PathBuf, source: Cause },
    /// The file is damaged.
    #[error("the journal `{}` is damaged: {source}", printable_path(.path))]
    Damaged {
        path: PathBuf,
        /// The error by which the damage was found.
        source: Cause,
    },
    /// The file does not exist.
    #[error("there is no journal `{}`", printable_path(.path))]
    Missing { path: PathBuf },
    /// The file belongs to another program.
    #[error("`{}` is not a journal, but another program's database or file", printable_path(.path))]
    Foreign { path: PathBuf },
    /// The version of the tables is unknown.
    #[error("the journal `{}` has version `{found}`, which this program does not know", printable_path(.path))]
    Version { path: PathBuf, found: i64 },
}

impl JournalError {
    pub(super) fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        let (path, source) = (path.to_owned(), cause.into());
        match source.fault(&path) {
            Fault::Unwritable(why) => Self::Unwritable { path, why },
            Fault::Damaged => Self::Damaged { path, source },
            Fault::Scarce => Self::Scarce { path, source },
            // Unexpected rows in a sound file are no reason to discard the file.
            Fault::Busy | Fault::Mismatched | Fault::Other => Self::Sqlite { path, source },
        }
    }

    pub(super) fn open(path: &Path, error: OpenError) -> Self {
        match error {
            OpenError::Foreign => Self::Foreign { path: path.to_owned() },
            OpenError::Version { found } => Self::Version { path: path.to_owned(), found },
            OpenError::Unwritable(why) => Self::Unwritable { path: path.to_owned(), why },
            OpenError::Failed(cause) => Self::new(path, cause),
        }
    }

    /// Returns whether it may work later without any change to the journal.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unwritable { .. } | Self::Scarce { .. })
    }

    /// Returns whether a journal that was sound when it was opened is now damaged or missing.
    pub(super) fn tells_of_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Foreign { .. } | Self::Missing { .. })
    }
}
