//! What can go wrong with the file the state lies in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::base::{InfoHash, printable, printable_bytes};

/// The state could not be opened or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another program has the file open.
    #[error(
        "`{}` is in use by another program: end that one, or give this one a file of its own",
        shown(path)
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A later program wrote the file.
    #[error(
        "`{}` is of version `{found}`, written by a later program; this one knows versions up to \
         `{known}`: install the later program again, or move the file away",
        shown(path)
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
    #[error("`{}` is the database of some other program: name another file", shown(path))]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// No room on the disk, or none left of a quota.
    #[error("`{}` cannot be written: there is no room left on its disk", shown(path))]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// What is in the file makes no sense. When it is opened next it will be set aside.
    #[error("`{}` is damaged ({reason}): start the program anew to have it rebuilt", shown(path))]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found, safe to show.
        reason: String,
    },
    /// Anything else: no permission, no such folder, a failing disk.
    #[error("`{}` cannot be used: {reason}", shown(path))]
    Failed {
        /// The database, or the lock beside it.
        path: PathBuf,
        /// Why, safe to show.
        reason: String,
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
    /// `error` of the database at `path`, sorted by what one can do about it.
    pub(super) fn new(path: &Path, error: &rusqlite::Error) -> Self {
        let reason = printable(&error.to_string()).into_owned();
        let is_full = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            // SQLite does not say why it could not make its log, and nothing of quotas.
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => is_full(path),
            _ => false,
        };
        let path = path.to_owned();
        match error.sqlite_error_code() {
            _ if is_full => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            _ if is_damage(error) => Self::Damaged { path, reason },
            _ => Self::Failed { path, reason },
        }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Failed { path, reason: error.to_string() },
        }
    }

    /// Whether it may work later, without anybody doing anything about the file.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Whether the error is the content's, so that it would come again and again.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // Tables of other columns, or values of other types, than ours.
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether there is no room on the disk of the file at `path`, or none of a quota.
fn is_full(path: &Path) -> bool {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".probe");
    let made = std::fs::write(&beside, [0; PROBE]);
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, "`{}` was left behind", shown(Path::new(&beside)));
    }
    made.is_err_and(|error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    })
}

/// Bytes of a page, which a database needs at least.
const PROBE: usize = 4_096;

/// A path as it may be shown in a terminal.
pub(super) fn shown(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}
