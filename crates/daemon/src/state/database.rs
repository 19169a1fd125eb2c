//! The database file: opening, reading, writing, and setting a damaged one aside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::error::StateError;
use super::model::{Counters, Loaded, Saved};
use super::packed::unpack;
use super::rows::{CLEAN, mark_clean, put, put_settings};
use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_database::{
    Access, Cause, DatabaseOptions, Synchronous, check, set_aside, with_suffix,
};

/// The database file.
pub(super) struct Database {
    path: PathBuf,
    /// `None` while it cannot be opened because its disk is full or read-only.
    open: Option<Open>,
    /// Why the file could not be opened or marked as in use.
    unmarked: Option<StateError>,
}

/// The open file. Fields are dropped in this order, so the lock is released last.
struct Open {
    connection: Connection,
    _lock: Lock,
}

/// Keeps others out until it is dropped or the process ends in any way.
struct Lock(File);

impl Database {
    /// Opens the file at `path` and reads it, as [`State::open`](super::State::open) does.
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StateError> {
        let path = match resolve(path) {
            Ok(path) => path,
            // Its folder cannot be created yet.
            Err(error) if error.is_unwritable() => path.to_owned(),
            Err(error) => return Err(error),
        };
        match Open::new(&path) {
            Ok((open, loaded, unmarked)) => Ok((Self { path, open: Some(open), unmarked }, loaded)),
            Err(error) if error.is_unwritable() => {
                let loaded = glance(&path)?;
                Ok((Self { path, open: None, unmarked: Some(error) }, loaded))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes `changes` in one transaction, which is on the disk when this returns.
    pub(super) fn write<T>(
        &mut self,
        changes: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let path = resolve(&self.path)?;
                let (open, loaded, unmarked) = Open::new(&path)?;
                if let Some(notice) = loaded.notice {
                    tracing::warn!("{notice}");
                }
                tracing::info!("the database `{}` could be opened", printable_path(&path));
                self.path = path;
                self.unmarked = unmarked;
                none.insert(open)
            }
        };
        let unmarked = self.unmarked.is_some();
        let written = open.connection.transaction().and_then(|transaction| {
            if unmarked {
                mark_clean(&transaction, false)?;
            }
            let outcome = changes(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        });
        match written {
            Ok(outcome) => {
                self.unmarked = None;
                Ok(outcome)
            }
            Err(error) => Err(StateError::new(&self.path, error)),
        }
    }

    /// Moves the contents of the write-ahead log into the file and removes the log. This is not
    /// needed for safety.
    pub(super) fn tidy(&self) -> Result<(), StateError> {
        let Some(Open { connection, .. }) = &self.open else { return Ok(()) };
        connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .and_then(|()| {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            })
            .map(|_| ())
            .map_err(|error| StateError::new(&self.path, error))
    }

    /// Returns why the file could not be opened or marked as in use, if it still is not.
    pub(super) fn unmarked(&self) -> Option<&StateError> {
        self.unmarked.as_ref()
    }

    /// Returns its path, with links resolved.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.open.as_ref().unwrap().connection
    }

    /// Returns a second descriptor of the lock, such as a child process has until it runs its
    /// program.
    #[cfg(test)]
    pub(super) fn inherited_lock(&self) -> File {
        self.open.as_ref().unwrap()._lock.0.try_clone().unwrap()
    }
}

impl Open {
    /// Opens the file at `path`, whose links are resolved, and reads it. Returns also why it could
    /// not be marked as in use.
    fn new(path: &Path) -> Result<(Self, Loaded, Option<StateError>), StateError> {
        #[cfg(test)]
        if super::tests::IS_FULL.get() {
            return Err(StateError::Unwritable { path: path.to_owned(), why: Unwritable::Full });
        }
        let lock = lock(path)?;
        let len = path.metadata().ok().map(|file| file.len());
        let (connection, mut loaded) = match try_open(path) {
            Err(StateError::Damaged { source, .. }) => begin_anew(path, &source)?,
            Err(error) if error.is_unwritable() && len.is_none() => {
                // An empty file would be taken for one that has lost everything.
                remove_new(path);
                return Err(error);
            }
            opened => opened?,
        };
        loaded.incomplete |= len.is_none();
        if len == Some(0) {
            loaded.clean = false;
            loaded.incomplete = true;
            loaded.notice = Some(format!(
                "the database `{}` was empty, and a new one was begun: if there were torrents in \
                 it, their settings and folders are lost, and they are to be checked anew",
                printable_path(path)
            ));
        }
        let mut open = Self { connection, _lock: lock };
        let marked = open.connection.transaction().and_then(|transaction| {
            mark_clean(&transaction, false)?;
            transaction.commit()
        });
        let unmarked = match marked.map_err(|error| StateError::new(path, error)) {
            Ok(()) => None,
            // The contents can be read nevertheless. The next write marks the file.
            Err(error) if error.is_unwritable() => Some(error),
            Err(error) => return Err(error),
        };
        Ok((open, loaded, unmarked))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is being started has a copy of the descriptor
        // until its program runs, and the lock would be held until then.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock of the state was left to be released by the system");
        }
    }
}

/// Returns `path` with links resolved, so that one file has one lock. Creates its folder.
fn resolve(path: &Path) -> Result<PathBuf, StateError> {
    let resolved = match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(StateError::new(path, error));
            };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            std::fs::create_dir_all(folder)
                .and_then(|()| folder.canonicalize())
                .map(|folder| folder.join(name))
        }
        resolved => resolved,
    };
    resolved.map_err(|error| StateError::new(path, error))
}

/// Removes a file that was just created and is empty, and SQLite's files beside it.
fn remove_new(path: &Path) {
    for end in ["-wal", "-journal", ""] {
        match std::fs::remove_file(with_suffix(path, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "`{}` was left empty", printable_path(path));
            }
            _ => {}
        }
    }
}

/// Reads the file at `path` without writing anything, since its disk is full or read-only.
fn glance(path: &Path) -> Result<Loaded, StateError> {
    let nothing = Loaded {
        torrents: Vec::new(),
        settings: None,
        notice: None,
        incomplete: true,
        clean: false,
    };
    match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(nothing),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(nothing),
        Err(error) => return Err(StateError::new(path, error)),
    }
    match read_only(path) {
        Err(StateError::Damaged { source, .. }) => {
            let (torrents, settings) = rescue(path);
            let notice = format!(
                "the database `{}` is damaged ({source}), and its disk takes no new one yet, \
                 because it is full or read-only. `{}` torrents could be read from it",
                printable_path(path),
                torrents.len()
            );
            Ok(Loaded { torrents, settings, notice: Some(notice), ..nothing })
        }
        read => read,
    }
}

/// Returns the contents of the file at `path`.
fn read_only(path: &Path) -> Result<Loaded, StateError> {
    let sorted = |error: rusqlite::Error| StateError::new(path, error);
    let mut connection = OPTIONS.open_unwritable(path).map_err(sorted)?;
    OPTIONS.identify(&connection).map_err(|error| StateError::open(path, error, VERSION))?;
    check(&connection).map_err(sorted)?;
    load(path, &mut connection).map_err(sorted)
}

/// Locks a file beside the database. Closing a second descriptor of the database itself would release
/// SQLite's own locks (POSIX), and a damaged database is renamed. The lock file is never removed, since
/// somebody may just have locked it.
fn lock(path: &Path) -> Result<Lock, StateError> {
    let beside = with_suffix(path, ".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(&beside)
        .map_err(|error| match Unwritable::of(&error) {
            Some(why) => StateError::Unwritable { path: path.to_owned(), why },
            None => StateError::new(&beside, error),
        })?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StateError::new(&beside, error)),
    }
}

fn try_open(path: &Path) -> Result<(Connection, Loaded), StateError> {
    let sorted = |error: rusqlite::Error| StateError::new(path, error);
    let opened = OPTIONS.open(path).map_err(|error| StateError::open(path, error, VERSION))?;
    let mut connection = opened.connection;
    let loaded = load(path, &mut connection).map_err(sorted)?;
    // What was read is not read again.
    connection.execute_batch("PRAGMA shrink_memory").map_err(sorted)?;
    Ok((connection, loaded))
}

/// The contents of the tables.
#[derive(Default)]
struct ReadReport {
    torrents: BTreeMap<InfoHash, Saved>,
    /// Keys of invalid torrents.
    bad: Vec<Value>,
    /// Keys of checkpoints that are invalid or have no torrent.
    bad_checkpoints: Vec<Value>,
    /// Keys of torrents with invalid counters.
    bad_counters: Vec<Value>,
    /// Number of torrents that lost their checkpoints.
    unchecked: usize,
}

impl ReadReport {
    /// Returns a sentence about what is lost because it is invalid.
    fn losses(&self) -> Option<String> {
        let losses = [
            (self.bad.len(), "torrents could not be read: add them again"),
            (self.unchecked, "checkpoints could not be read: their files are checked again"),
            (self.bad_counters.len(), "torrents' sums could not be read: they begin at 0 again"),
        ];
        let told: Vec<_> = losses
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("`{count}` {what}"))
            .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

fn load(path: &Path, connection: &mut Connection) -> rusqlite::Result<Loaded> {
    let mut found = ReadReport::default();
    read_torrents(connection, &mut found, "")?;
    read_checkpoints(connection, &mut found, "")?;
    let settings = fact(connection, "settings")?;
    let clean = fact(connection, "clean")?.is_some_and(|clean| clean == CLEAN);
    let notice =
        found.losses().map(|losses| format!("in the database `{}` {losses}", printable_path(path)));
    if let Err(error) = weed(connection, &found) {
        tracing::warn!(%error, "invalid rows in `{}` could not be removed", printable_path(path));
    }
    let incomplete = notice.is_some();
    let torrents = found.torrents.into_values().collect();
    Ok(Loaded { torrents, settings, notice, incomplete, clean })
}

/// Removes invalid rows, so that they are reported once.
fn weed(connection: &mut Connection, found: &ReadReport) -> rusqlite::Result<()> {
    let ReadReport { bad, bad_checkpoints, bad_counters, .. } = found;
    let weeds = [
        (bad, "DELETE FROM torrents WHERE info_hash = ?1"),
        (bad_checkpoints, "DELETE FROM checkpoints WHERE info_hash = ?1"),
        (bad_counters, "UPDATE torrents SET counters = '{}' WHERE info_hash = ?1"),
    ];
    if weeds.iter().all(|(keys, _)| keys.is_empty()) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for (keys, sql) in weeds {
        for key in keys {
            transaction.prepare_cached(sql)?.execute([key])?;
        }
    }
    transaction.commit()
}

/// Reads torrents up to the first damaged page.
fn read_torrents(
    connection: &Connection,
    found: &mut ReadReport,
    tail: &str,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!(
        "SELECT info_hash, file, root, added_at, done_at, settings, counters FROM torrents {tail}"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match saved(row) {
            Ok((saved, whole)) => {
                if !whole {
                    found.bad_counters.push(row.get(0)?);
                }
                found.torrents.entry(saved.info_hash).or_insert(saved);
            }
            // An invalid value. The rows after it may be sound.
            Err(_) => found.bad.push(row.get(0)?),
        }
    }
    Ok(())
}

/// Reads the checkpoints of the torrents that were read, up to the first damaged page.
fn read_checkpoints(
    connection: &Connection,
    found: &mut ReadReport,
    tail: &str,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare(&format!("SELECT info_hash, packed FROM checkpoints {tail}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let saved = row.get(0).ok().and_then(|hash| found.torrents.get_mut(&InfoHash(hash)));
        let Some(saved) = saved else {
            found.bad_checkpoints.push(row.get(0)?);
            continue;
        };
        saved.checkpoint =
            row.get_ref(1)?.as_blob().ok().and_then(|packed| unpack(saved.info_hash, packed));
        if saved.checkpoint.is_none() {
            found.unchecked += 1;
            found.bad_checkpoints.push(row.get(0)?);
        }
    }
    Ok(())
}

/// Returns the torrent of a row without its checkpoint, and whether its counters could be read.
fn saved(row: &Row<'_>) -> rusqlite::Result<(Saved, bool)> {
    let counters = serde_json::from_str::<Counters>(row.get_ref(6)?.as_str()?);
    let whole = counters.is_ok();
    let saved = Saved {
        info_hash: InfoHash(row.get(0)?),
        file: row.get(1)?,
        root: OsString::from_vec(row.get(2)?).into(),
        added_at: row.get(3)?,
        done_at: row.get(4)?,
        settings: row.get(5)?,
        checkpoint: None,
        counters: counters.unwrap_or_default(),
    };
    Ok((saved, whole))
}

fn fact(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

/// Sets the damaged file aside and creates a new one with what could be read from it.
fn begin_anew(path: &Path, reason: &Cause) -> Result<(Connection, Loaded), StateError> {
    let (torrents, settings) = rescue(path);
    // The damaged one stays where it is until the new one is complete: there may be no room for it.
    let new = with_suffix(path, ".new");
    remove_new(&new);
    let begun = begin(&new, &torrents, settings.as_deref());
    if let Err(error) = begun {
        remove_new(&new);
        return Err(match error {
            StateError::Unwritable { why, .. } => {
                StateError::Unwritable { path: path.to_owned(), why }
            }
            error => error,
        });
    }
    let aside = set_aside(path, SystemTime::now()).map_err(|error| StateError::new(path, error))?;
    std::fs::rename(&new, path).map_err(|error| StateError::new(path, error))?;
    let (connection, _) = try_open(path)?;
    let notice = format!(
        "the database `{}` was damaged ({reason}); it is kept as `{}`, and a new one was begun. \
         `{}` torrents could be read from the old one; of all others the settings and folders are \
         lost, and they are to be added and checked anew",
        printable_path(path),
        printable_path(&aside),
        torrents.len()
    );
    let notice = Some(notice);
    Ok((connection, Loaded { torrents, settings, notice, incomplete: true, clean: false }))
}

/// Creates a database at `path` with `torrents` and `settings`, and closes it.
fn begin(path: &Path, torrents: &[Saved], settings: Option<&str>) -> Result<(), StateError> {
    let (mut connection, _) = try_open(path)?;
    connection
        .transaction()
        .and_then(|transaction| {
            torrents.iter().try_for_each(|saved| put(&transaction, saved))?;
            settings.iter().try_for_each(|settings| put_settings(&transaction, settings))?;
            transaction.commit()
        })
        .and_then(|()| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"))
        .and_then(|()| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false))
        .and_then(|_| connection.close().map_err(|(_, error)| error))
        .map_err(|error| StateError::new(path, error))
}

/// Returns what can be read of a damaged file. Reading ends at the first damaged page, so it is read from
/// both ends. Checkpoints have checksums of their own, so those that can be read are right.
fn rescue(path: &Path) -> (Vec<Saved>, Option<String>) {
    let Ok(connection) = OPTIONS.open_damaged(path) else { return (Vec::new(), None) };
    let mut found = ReadReport::default();
    let orders = ["ASC", "DESC"].map(|way| format!("ORDER BY info_hash {way} LIMIT {RESCUED}"));
    for read in [read_torrents, read_checkpoints] {
        for order in &orders {
            if let Err(error) = read(&connection, &mut found, order) {
                tracing::debug!(%error, "part of a damaged database was skipped");
            }
        }
    }
    let settings = fact(&connection, "settings").ok().flatten();
    (found.torrents.into_values().collect(), settings)
}

/// Settings may contain passwords, so nobody else may read the file.
const PRIVATE: u32 = 0o600;

const OPTIONS: DatabaseOptions = DatabaseOptions {
    // `PWst`.
    application: Some(0x5057_7374),
    version: VERSION,
    upgrade: |transaction, _| {
        transaction.execute_batch(SCHEMA)?;
        mark_clean(transaction, true)
    },
    needs_check: |_| Ok(true),
    access: Access::Exclusive,
    requires_wal: false,
    // With a write-ahead log a connection has one setting for all writes. `Normal` would save one
    // sync for each transaction of checkpoints, but there are at most two of those a second.
    synchronous: Synchronous::Full,
    auto_vacuum: false,
    // Little is written at a time, and nothing is read after the start.
    cache_kib: Some(256),
    // A first start with 10,000 torrents writes more.
    log_kept: 8 << 20,
};

/// Version of the tables below. Later changes need a step from each version to the next.
const VERSION: i64 = 1;

/// Maximum number of rows read from a damaged table: its pages may lead in circles.
const RESCUED: usize = 1_000_000;

const SCHEMA: &str = "
CREATE TABLE torrents (
    info_hash BLOB PRIMARY KEY,
    file TEXT NOT NULL,
    root BLOB NOT NULL,
    added_at INTEGER NOT NULL,
    done_at INTEGER,
    settings TEXT NOT NULL,
    counters TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
    info_hash BLOB PRIMARY KEY,
    packed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";
