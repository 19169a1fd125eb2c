//! Why a journal cannot be opened, read or written.

use std::path::{Path, PathBuf};

use piecework_core::{Unwritable, printable_path};
use piecework_database::{Cause, Fault, OpenError};

/// A journal could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// SQLite or the disk said no.
    #[error("the journal `{}` cannot be used: {source}", printable_path(.path))]
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// Its disk is full or read-only.
    #[error("the journal `{}` cannot be written: {why}", printable_path(.path))]
    Unwritable {
        /// Its file.
        path: PathBuf,
        /// What its disk lacks.
        why: Unwritable,
    },
    /// The system has no descriptor or memory left just now.
    #[error("the journal `{}` cannot be written just now: {source}", printable_path(.path))]
    Scarce {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The file is not what was written into it.
    #[error("the journal `{}` is damaged: {source}", printable_path(.path))]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// How SQLite found out.
        source: Cause,
    },
    /// There is no such file.
    #[error("there is no journal `{}`", printable_path(.path))]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is something else.
    #[error("`{}` is not a journal, but another program's database or file", printable_path(.path))]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// It has tables that this program does not know.
    #[error("the journal `{}` has version `{found}`, which this program does not know", printable_path(.path))]
    Version {
        /// The path.
        path: PathBuf,
        /// The version.
        found: i64,
    },
}

impl JournalError {
    pub(super) fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        let (path, source) = (path.to_owned(), cause.into());
        match source.fault(&path) {
            Fault::Unwritable(why) => Self::Unwritable { path, why },
            Fault::Damaged => Self::Damaged { path, source },
            Fault::Scarce => Self::Scarce { path, source },
            // Rows of a sound file that make no sense are no reason to give the file up.
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

    /// Whether it may work later, without anybody doing anything about the journal.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unwritable { .. } | Self::Scarce { .. })
    }

    /// Whether a journal that was sound when it was opened no longer is, or no longer is there.
    pub(super) fn tells_of_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Foreign { .. } | Self::Missing { .. })
    }
}
