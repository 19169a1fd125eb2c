//! What an error says about the state of a database.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::files::{INDEX_LEN, probe};
use piecework_core::{Unwritable, printable};

/// The error of SQLite or of the system behind a failed operation. Its text is safe to show.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// SQLite returned an error.
    #[error("{}", printable(&.0.to_string()))]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The system returned an error.
    #[error("{}", printable(&.0.to_string()))]
    Io(#[source] Arc<io::Error>),
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full or read-only. A later attempt may succeed.
    Unwritable(Unwritable),
    /// The system has run out of descriptors or memory. A later attempt may succeed.
    Scarce,
    /// Another connection holds a lock.
    Busy,
    /// The file is not a sound database.
    Damaged,
    /// The file is sound, but its tables have other columns, or values of other types, than expected.
    Mismatched,
    /// Anything else: a missing permission, a failing disk.
    Other,
}

impl Cause {
    /// Classifies the error; `path` is the database that it is about.
    ///
    /// SQLite reports a full disk only where it writes the database and its log. For files beside them
    /// and for quotas it reports an I/O error, and a read-only file looks like a read-only disk. In
    /// these cases a small file is written beside the database to find out.
    pub fn fault(&self, path: &Path) -> Fault {
        match self {
            Self::Sqlite(error) => Fault::of(error, path),
            Self::Io(error) => Fault::of_io(error),
        }
    }

    /// Returns whether the file is not a sound database.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_damage(error))
    }
}

impl Fault {
    /// Classifies an error of SQLite, see [`Cause::fault`].
    pub fn of(error: &rusqlite::Error, path: &Path) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Unwritable(Unwritable::Full),
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => {
                let why = probe(path, INDEX_LEN).as_ref().err().and_then(Unwritable::of);
                why.map_or(Self::Other, Self::Unwritable)
            }
            Some(ErrorCode::OutOfMemory) => Self::Scarce,
            _ if is_busy(error) => Self::Busy,
            _ if is_damage(error) => Self::Damaged,
            _ if is_mismatch(error) => Self::Mismatched,
            _ => Self::Other,
        }
    }

    /// Classifies an error of the system.
    pub fn of_io(error: &io::Error) -> Self {
        match Unwritable::of(error) {
            Some(why) => Self::Unwritable(why),
            None if error.kind() == io::ErrorKind::OutOfMemory => Self::Scarce,
            // ENFILE and EMFILE: the descriptors of the system or of this program are used up.
            None if matches!(error.raw_os_error(), Some(23 | 24)) => Self::Scarce,
            None => Self::Other,
        }
    }
}

/// Returns whether another connection holds a lock.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Returns whether the file is not a sound database.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Returns whether the tables have other columns, or values of other types, than this program writes.
fn is_mismatch(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Errors of the system cannot be compared, so their texts are.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}
