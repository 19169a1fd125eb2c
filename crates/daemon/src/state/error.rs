//! Errors of the state's file.

use std::path::{Path, PathBuf};

use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_database::{Cause, Fault, OpenError};

/// The state could not be opened or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another program has the file open.
    #[error(
        "`{}` is in use by another program: stop that program, or configure another file",
        printable_path(path)
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A newer version of the program wrote the file.
    #[error(
        "`{}` is of version `{found}`, written by a newer version; this program knows versions up to \
         `{known}`: install the newer version again, or move the file away",
        printable_path(path)
    )]
    Later {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version this program knows.
        known: i64,
    },
    /// It is the database of another program.
    #[error("`{}` is the database of some other program: name another file", printable_path(path))]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Its disk is full or read-only.
    #[error("`{}` cannot be written: {why}", printable_path(path))]
    Unwritable {
        /// The database.
        path: PathBuf,
        /// What its disk lacks.
        why: Unwritable,
    },
    /// The contents of the file are invalid. When it is opened next, it is set aside.
    #[error("`{}` is damaged ({source}): restart the program to rebuild it", printable_path(path))]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        source: Cause,
    },
    /// Anything else: no permission, no such folder, a failing disk.
    #[error("`{}` cannot be used: {source}", printable_path(path))]
    Failed {
        /// The database, or the lock beside it.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The torrent is not in the state.
    #[error("the torrent `{info_hash}` is not in the state")]
    Unknown {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A text or path is too long to be kept.
    #[error("{what} of `{len}` bytes is longer than the limit of `{limit}`")]
    TooLong {
        /// What is too long, with its article.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// Too many changes wait for the disk.
    #[error("`{waiting}` changes are waiting for the disk, which is too slow")]
    Busy {
        /// Number of changes that wait.
        waiting: usize,
    },
    /// The state was closed, or its thread has ended.
    #[error("the state is closed")]
    Closed,
}

impl StateError {
    /// Classifies an error of the database at `path` by what can be done about it.
    pub(super) fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        let (path, source) = (path.to_owned(), cause.into());
        match source.fault(&path) {
            Fault::Unwritable(why) => Self::Unwritable { path, why },
            Fault::Busy => Self::InUse { path },
            Fault::Damaged | Fault::Mismatched => Self::Damaged { path, source },
            Fault::Scarce | Fault::Other => Self::Failed { path, source },
        }
    }

    /// Classifies an error of opening the database.
    pub(super) fn open(path: &Path, error: OpenError, known: i64) -> Self {
        match error {
            OpenError::Foreign => Self::Foreign { path: path.to_owned() },
            OpenError::Version { found } => Self::Later { path: path.to_owned(), found, known },
            OpenError::Unwritable(why) => Self::Unwritable { path: path.to_owned(), why },
            OpenError::Failed(cause) => Self::new(path, cause),
        }
    }

    /// Returns whether its disk is full or read-only. Then it may work later without any change to
    /// the file.
    pub fn is_unwritable(&self) -> bool {
        matches!(self, Self::Unwritable { .. })
    }
}
