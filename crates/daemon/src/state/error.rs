//! What can go wrong with the file the state lies in.

use std::path::{Path, PathBuf};

use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_database::{Cause, Fault, OpenError};

/// The state could not be opened or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another program has the file open.
    #[error(
        "`{}` is in use by another program: end that one, or give this one a file of its own",
        printable_path(path)
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A later program wrote the file.
    #[error(
        "`{}` is of version `{found}`, written by a later program; this one knows versions up to \
         `{known}`: install the later program again, or move the file away",
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
    /// A database, but none of ours.
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
    /// What is in the file makes no sense. When it is opened next it will be set aside.
    #[error(
        "`{}` is damaged ({source}): start the program anew to have it rebuilt",
        printable_path(path)
    )]
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
    /// There is no such torrent in the state.
    #[error("the torrent `{info_hash}` is not in the state")]
    Unknown {
        /// Which.
        info_hash: InfoHash,
    },
    /// A text or path that is longer than what is kept.
    #[error("{what} of `{len}` bytes is longer than the `{limit}` that are kept")]
    TooLong {
        /// What it is, with its article.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest kept, in bytes.
        limit: usize,
    },
    /// More changes wait for the disk than may.
    #[error("`{waiting}` changes wait for the disk already: it does not keep up")]
    Busy {
        /// How many.
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

    /// The same for an error that came when it was opened.
    pub(super) fn open(path: &Path, error: OpenError, known: i64) -> Self {
        match error {
            OpenError::Foreign => Self::Foreign { path: path.to_owned() },
            OpenError::Version { found } => Self::Later { path: path.to_owned(), found, known },
            OpenError::Unwritable(why) => Self::Unwritable { path: path.to_owned(), why },
            OpenError::Failed(cause) => Self::new(path, cause),
        }
    }

    /// Whether its disk is full or read-only: it may work later, without anybody doing anything
    /// about the file.
    pub fn is_unwritable(&self) -> bool {
        matches!(self, Self::Unwritable { .. })
    }
}
