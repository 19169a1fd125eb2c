//! Opens databases, for writing and for reading only.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};

use crate::fault::{Cause, Fault};
use crate::files::{FileId, create_private, is_read_only, with_suffix};
use piecework_core::Unwritable;

/// Describes a database.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseOptions {
    /// The application id in the header. A database with another one is refused. `None` accepts any.
    pub application: Option<i64>,
    /// The version of the tables that this program writes, at least 1. Later ones are refused.
    pub version: i64,
    /// Brings the tables up to date from the given version; 0 is a new database.
    pub upgrade: fn(&Transaction<'_>, i64) -> rusqlite::Result<()>,
    /// Returns whether an existing database has to be checked completely when it is opened, which
    /// takes about a second for 256 MiB.
    pub needs_check: fn(&Connection) -> rusqlite::Result<bool>,
    /// Who else may have it open.
    pub access: Access,
    /// Whether to refuse a file system that cannot have a write-ahead log, such as one without
    /// shared memory. Without the log, programs wait for each other much longer.
    pub requires_wal: bool,
    /// What a power cut may cost.
    pub synchronous: Synchronous,
    /// Whether a new database can give pages back to the file system.
    pub auto_vacuum: bool,
    /// Memory for pages, KiB. `None` leaves SQLite's default.
    pub cache_kib: Option<i64>,
    /// Bytes of the log that are kept for new entries.
    pub log_kept: i64,
}

/// Who may have a database open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only this connection. Nothing is mapped into memory, so network file systems work. Closing
    /// the connection leaves the log as it is.
    Exclusive,
    /// Other connections and programs too. Each waits up to five seconds for the others.
    Shared,
}

/// When a transaction is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// When it is committed.
    Full,
    /// Some time later. A power cut may cost the last transactions but damages nothing.
    Normal,
}

/// An open database.
#[derive(Debug)]
pub struct Opened {
    /// The connection to it.
    pub connection: Connection,
    /// The file that was opened, even if another one lies at its path now.
    pub file: FileId,
}

/// Why a database could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// It belongs to another program.
    #[error("it is another program's database")]
    Foreign,
    /// Its tables are of a version that this program does not know.
    #[error("it has version `{found}`, which this program does not know")]
    Version {
        /// The version in its header.
        found: i64,
    },
    /// Its file system is read-only.
    #[error("{0}")]
    Unwritable(Unwritable),
    /// SQLite or the system returned an error.
    #[error(transparent)]
    Failed(Cause),
}

impl OpenError {
    /// Classifies the error, see [`Cause::fault`].
    pub fn fault(&self, path: &Path) -> Fault {
        match self {
            Self::Unwritable(why) => Fault::Unwritable(*why),
            Self::Failed(cause) => cause.fault(path),
            Self::Foreign | Self::Version { .. } => Fault::Other,
        }
    }
}

impl DatabaseOptions {
    /// Opens the database at `path` or creates it, and brings its tables up to date. Blocks.
    ///
    /// # Errors
    /// If it is damaged, belongs to another program, or cannot be written.
    pub fn open(&self, path: &Path) -> Result<Opened, OpenError> {
        if is_read_only(path) {
            return Err(OpenError::Unwritable(Unwritable::ReadOnly));
        }
        let before = create_private(path)?;
        // If another file takes its place before it is opened, the writer notices that later.
        let file = FileId::of(path)?;
        if let Some(len @ 1..SMALLEST) = before {
            return Err(too_short(len).into());
        }
        let mut connection = self.connect(path, "unix")?;
        let is_new = self.identify(&connection)?;
        self.configure(&connection, is_new)?;
        if !is_new && (self.needs_check)(&connection)? {
            check(&connection)?;
        }
        self.bring_up_to_date(&mut connection)?;
        Ok(Opened { connection, file })
    }

    /// Opens the database at `path` for reading while its disk is full or read-only and no other
    /// program has it open. Nothing is written. The log is read if there is one. Blocks.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open_unwritable(&self, path: &Path) -> rusqlite::Result<Connection> {
        if let len @ 1..SMALLEST = path.metadata().map_or(0, |file| file.len()) {
            return Err(too_short(len));
        }
        if !is_logged(path) {
            return immutable(path);
        }
        let alone = Self { access: Access::Exclusive, ..*self };
        let read =
            |connection: Connection| pragma::<i64>(&connection, "user_version").map(|_| connection);
        // On a read-only disk the file cannot be locked, and nobody can write to it.
        alone.connect(path, "unix").and_then(read).or_else(|_| alone.connect(path, "unix-none"))
    }

    /// Opens the database at `path` for reading while others may write to it. Returns whether the
    /// connection sees what they write. Blocks.
    ///
    /// # Errors
    /// If it belongs to another program or cannot be read.
    pub fn open_reader(&self, path: &Path) -> Result<(Connection, bool), OpenError> {
        let (connection, is_live) = if is_read_only(path) {
            (without_locks(path)?, false)
        } else {
            let opened = Connection::open_with_flags(path, READ_ONLY).and_then(|connection| {
                connection.busy_timeout(BUSY)?;
                pragma::<i64>(&connection, "user_version")?;
                Ok((connection, true))
            });
            opened.or_else(|error| {
                let is_unwritable = matches!(Fault::of(&error, path), Fault::Unwritable(_));
                if error.sqlite_error_code() != Some(ErrorCode::CannotOpen) && !is_unwritable {
                    return Err(error);
                }
                // Nobody writes in a read-only folder, so no lock is needed. On a full disk there
                // may be no room for the files through which a reader sees what others write.
                immutable(path).map(|connection| (connection, false))
            })?
        };
        match self.identify(&connection)? {
            true => Err(OpenError::Foreign),
            false => Ok((connection, is_live)),
        }
    }

    /// Opens a damaged database at `path`, to read what is still readable. Nothing is checked.
    /// Blocks.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_damaged(&self, path: &Path) -> rusqlite::Result<Connection> {
        self.connect(path, "unix")
    }

    /// Creates an empty database in memory.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn open_in_memory(&self) -> Result<Connection, OpenError> {
        let mut connection = Connection::open_in_memory()?;
        self.bring_up_to_date(&mut connection)?;
        Ok(connection)
    }

    /// Returns whether the header of the file at `path` has this application id, even if the rest is
    /// damaged.
    pub fn has_header(&self, path: &Path) -> bool {
        let mut header = [0; 72];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
        let id = u32::from_be_bytes([header[68], header[69], header[70], header[71]]);
        read.is_ok() && header.starts_with(MAGIC) && self.application == Some(i64::from(id))
    }

    /// Connects for writing, through one of SQLite's file system interfaces.
    fn connect(&self, path: &Path, vfs: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(path, flags, vfs)?;
        match self.access {
            Access::Exclusive => {
                // A damaged file is set aside unchanged, together with its log.
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                // This must come before the log is first read: then SQLite keeps its index in
                // private memory and maps no file.
                connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            }
            Access::Shared => connection.busy_timeout(BUSY)?,
        }
        if let Some(kib) = self.cache_kib {
            // SQLite takes KiB as a negative number.
            connection.pragma_update(None, "cache_size", -kib)?;
        }
        Ok(connection)
    }

    /// Returns whether the database is new. Changes nothing in it.
    ///
    /// # Errors
    /// If it belongs to another program or cannot be read.
    pub fn identify(&self, connection: &Connection) -> Result<bool, OpenError> {
        let application: i64 = pragma(connection, "application_id")?;
        let version: i64 = pragma(connection, "user_version")?;
        let tables = "SELECT EXISTS (SELECT 1 FROM sqlite_schema)";
        let is_empty = !connection.query_row(tables, [], |row| row.get::<_, bool>(0))?;
        if application == 0 && is_empty {
            return Ok(true);
        }
        if self.application.is_some_and(|own| own != application) {
            return Err(OpenError::Foreign);
        }
        let earliest = i64::from(self.application.is_some());
        if !(earliest..=self.version).contains(&version) {
            return Err(OpenError::Version { found: version });
        }
        Ok(false)
    }

    fn configure(&self, connection: &Connection, is_new: bool) -> rusqlite::Result<()> {
        if is_new && self.auto_vacuum {
            // This must come before the first table; later it has no effect.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if self.requires_wal && !mode.eq_ignore_ascii_case("wal") {
            let why = "its file system does not let several programs share a database".to_owned();
            return Err(failure(ffi::SQLITE_CANTOPEN, Some(why)));
        }
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "journal_size_limit", self.log_kept)
    }

    fn bring_up_to_date(&self, connection: &mut Connection) -> Result<(), OpenError> {
        // No write transaction if there is nothing to do: the disk may have no room for one.
        if pragma::<i64>(connection, "user_version")? == self.version {
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another program may have done the same before the transaction began.
        self.identify(&transaction)?;
        let version: i64 = pragma(&transaction, "user_version")?;
        if version < self.version {
            (self.upgrade)(&transaction, version)?;
            if let Some(application) = self.application {
                transaction.pragma_update(None, "application_id", application)?;
            }
            transaction.pragma_update(None, "user_version", self.version)?;
        }
        Ok(transaction.commit()?)
    }
}

/// Returns whether the database at `path` has a log that is not empty.
fn is_logged(path: &Path) -> bool {
    with_suffix(path, "-wal").metadata().is_ok_and(|log| log.len() > 0)
}

/// Reads all of a database.
///
/// # Errors
/// If it is damaged or cannot be read.
pub fn check(connection: &Connection) -> rusqlite::Result<()> {
    let found: String = pragma(connection, "quick_check(1)")?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(failure(ffi::SQLITE_CORRUPT, Some(found))),
    }
}

/// Returns the value of a pragma.
///
/// # Errors
/// If it cannot be read.
pub fn pragma<T: FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Opens a file that nobody writes to, ignoring its log.
fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let uri = format!("file:{encoded}?immutable=1");
    let connection = Connection::open_with_flags(uri, READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    pragma::<i64>(&connection, "user_version")?;
    Ok(connection)
}

/// Opens the file and its log where nobody can write to either: the index of the log is kept in
/// memory, and nothing is locked.
fn without_locks(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, READ_ONLY, "unix-none")?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(connection)
}

/// SQLite takes a file of a few bytes for an empty database and would overwrite it.
fn too_short(len: u64) -> rusqlite::Error {
    failure(ffi::SQLITE_NOTADB, Some(format!("`{len}` bytes are not a database")))
}

fn failure(code: i32, why: Option<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), why)
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

const READ_ONLY: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// The first bytes of every SQLite database. The application id is at byte 68.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The smallest page size, and so the length of the smallest database.
const SMALLEST: u64 = 512;

/// How long a connection waits for another one. Batches take milliseconds.
const BUSY: Duration = Duration::from_secs(5);
