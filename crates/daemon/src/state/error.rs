//! What can go wrong with the file the state lies in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use piecework_core::{InfoHash, Unwritable, printable, printable_bytes};

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
    /// Its disk is full or read-only.
    #[error("`{}` cannot be written: {why}", shown(path))]
    Unwritable {
        /// The database.
        path: PathBuf,
        /// What its disk lacks.
        why: Unwritable,
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
        let unwritable = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Some(Unwritable::Full),
            // SQLite does not say why it could not make its log, and nothing of quotas; and what it
            // calls read-only may be the file alone.
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => {
                probe(path)
            }
            _ => None,
        };
        let path = path.to_owned();
        if let Some(why) = unwritable {
            return Self::Unwritable { path, why };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            _ if is_damage(error) => Self::Damaged { path, reason },
            _ => Self::Failed { path, reason },
        }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match Unwritable::of(error) {
            Some(why) => Self::Unwritable { path, why },
            None => Self::Failed { path, reason: error.to_string() },
        }
    }

    /// Whether its disk is full or read-only: it may work later, without anybody doing anything
    /// about the file.
    pub fn is_unwritable(&self) -> bool {
        matches!(self, Self::Unwritable { .. })
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

/// Tries whether the disk of the file at `path` can be written to. Returns why it cannot, if it is
/// full or read-only.
fn probe(path: &Path) -> Option<Unwritable> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".probe");
    let made = std::fs::write(&beside, [0; PROBE]);
    let why = made.as_ref().err().and_then(Unwritable::of);
    if why != Some(Unwritable::ReadOnly)
        && let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, "`{}` was left behind", shown(Path::new(&beside)));
    }
    why
}

/// Bytes of a page, which a database needs at least.
const PROBE: usize = 4_096;

/// A path as it may be shown in a terminal.
pub(super) fn shown(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}
