//! What survives a restart: one SQLite file, written by a thread of its own.
//!
//! `torrents` has a row for each `.torrent` in the folder (the file itself is the truth about the
//! torrent), `load` one for each peer that was handed out.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use piecework_core::{InfoHash, Unwritable};
use piecework_journal::is_read_only;
use piecework_registry::{Assigned, LoadEntry};

/// The thread's address. Dropping it ends the thread once all is written.
pub(super) struct Store {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
    /// Why the last attempt to write failed; `None` once one has worked.
    trouble: Arc<Mutex<Option<String>>>,
}

/// What the thread writes with, and what it could not write yet.
struct Writer {
    path: PathBuf,
    /// `None` while there is no room to open it.
    connection: Option<Connection>,
    /// Rows of torrents that had none when the tracker started.
    rows: BTreeMap<InfoHash, Row>,
    changes: BTreeMap<InfoHash, (u32, BTreeMap<SocketAddr, LoadEntry>)>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// A catalogued torrent's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub info_hash: InfoHash,
    pub name: String,
    /// Name of its file in the folder.
    pub file: String,
    pub description: Option<String>,
    pub unlisted: bool,
    pub token: Option<[u8; 32]>,
    pub registered_at: i64,
    pub downloads: u32,
    pub observe: bool,
    /// The network that registered it.
    pub registrar: Option<IpAddr>,
}

/// What a database held when it was opened.
#[derive(Default)]
pub(super) struct Kept {
    pub rows: Vec<Row>,
    pub load: Vec<LoadEntry>,
    /// What people should know: a damaged database was set aside.
    pub notice: Option<String>,
}

/// Changes of torrents: downloads and load. Later ones take the place of earlier ones.
pub(super) type Changes = BTreeMap<InfoHash, (u32, Vec<LoadEntry>)>;

/// The database could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the database `{}` cannot be written: {}", shown(.0), .1)]
    Unwritable(PathBuf, Unwritable),
    #[error("its writer has ended")]
    Ended,
}

type Reply = SyncSender<Result<(), StoreError>>;

enum Job {
    Put(Box<Row>, Reply),
    Remove(InfoHash, Reply),
    Save(Changes),
    /// Rows that are written when that is possible.
    Later(Vec<Row>),
    Flush(Reply),
}

impl Store {
    /// Opens the database at `path`, in a folder that is made if need be, and reads it. One that is
    /// damaged is set aside under another name, and a new one begun. If the disk is full or
    /// read-only, what is there is read, and the rest is done later, see [`Store::trouble`].
    ///
    /// # Errors
    /// If there can be no database there.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let trouble = Arc::new(Mutex::new(None));
        let (connection, mut kept) = match open_or_begin(path) {
            Ok((connection, kept)) => (Some(connection), kept),
            Err(error) => {
                let Some(why) = unwritable(&error, path) else { return Err(error) };
                *trouble.lock() = Some(StoreError::Unwritable(path.to_owned(), why).to_string());
                (None, glance(path)?)
            }
        };
        kept.load.retain(|entry| entry.assigned.total > 0);
        let (jobs, inbox) = sync_channel(QUEUE);
        let writer = Writer {
            path: path.to_owned(),
            connection,
            rows: BTreeMap::new(),
            changes: BTreeMap::new(),
            trouble: Arc::clone(&trouble),
        };
        let thread = std::thread::Builder::new()
            .name("tracker-store".to_owned())
            .spawn(move || writer.run(&inbox))?;
        Ok((Self { jobs, thread, trouble }, kept))
    }

    /// Why nothing can be written just now. Safe to show.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Has rows written when that is possible. Blocks for a moment.
    pub(super) fn put_later(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.jobs.send(Job::Later(rows)).map_err(|_| StoreError::Ended)
    }

    /// Writes a row, and returns when it is safe on disk. Blocks.
    pub(super) fn put(&self, row: Row) -> Result<(), StoreError> {
        self.ask(|reply| Job::Put(Box::new(row), reply))
    }

    /// Removes a row and what belongs to it, and returns when that is safe on disk. Blocks.
    pub(super) fn remove(&self, info_hash: InfoHash) -> Result<(), StoreError> {
        self.ask(|reply| Job::Remove(info_hash, reply))
    }

    /// Has changes written sometime; gives them back if the writer cannot keep up.
    pub(super) fn save(&self, changes: Changes) -> Result<(), Changes> {
        match self.jobs.try_send(Job::Save(changes)) {
            Ok(()) => Ok(()),
            Err(
                TrySendError::Full(Job::Save(changes))
                | TrySendError::Disconnected(Job::Save(changes)),
            ) => Err(changes),
            // What comes back is what was sent.
            Err(_) => Err(Changes::new()),
        }
    }

    /// Returns when all that was asked before is on disk. Blocks.
    pub(super) fn flush(&self, last: Changes) -> Result<(), StoreError> {
        self.jobs.send(Job::Save(last)).map_err(|_| StoreError::Ended)?;
        self.ask(Job::Flush)
    }

    /// Writes what is left and ends the thread. Blocks.
    pub(super) fn close(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes the tracker's database has panicked");
        }
    }

    fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), StoreError> {
        let (reply, answer) = sync_channel(1);
        self.jobs.send(job(reply)).map_err(|_| StoreError::Ended)?;
        answer.recv().map_err(|_| StoreError::Ended)?
    }
}

fn open_or_begin(path: &Path) -> Result<(Connection, Kept), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    match open(path) {
        Err(StoreError::Sqlite(error)) if is_damage(&error) => {
            // There may be room to rename it, and none to begin a new one.
            if let Err(error) = probe(path, PROBE) {
                return Err(error.into());
            }
            let aside = set_aside(path)?;
            let (connection, mut kept) = open(path)?;
            kept.notice = Some(format!(
                "the database `{}` was damaged ({error}); it is kept as `{}`, and a new one was \
                 begun from the torrent files: the tokens to remove them, their descriptions and \
                 the load are lost",
                shown(path),
                shown(&aside)
            ));
            Ok((connection, kept))
        }
        opened => opened,
    }
}

fn open(path: &Path) -> Result<(Connection, Kept), StoreError> {
    if is_read_only(path) {
        return Err(StoreError::Unwritable(path.to_owned(), Unwritable::ReadOnly));
    }
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A token that was given out must not be lost in a power cut; there are few commits.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(corrupt().into());
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(std::io::Error::other(format!(
            "it is of version {version}, of a later program; this one writes version {VERSION}"
        ))
        .into());
    }
    connection.execute_batch(SCHEMA)?;
    if version == 1 {
        connection
            .execute_batch("ALTER TABLE torrents ADD COLUMN observe INTEGER NOT NULL DEFAULT 1")?;
    }
    if (1..3).contains(&version) {
        connection.execute_batch("ALTER TABLE torrents ADD COLUMN registrar TEXT")?;
    }
    if version != VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    // Load that is a month older than the last says nothing about now. A clock that is wrong now, or
    // was when something was written, makes nothing old.
    let old = connection.execute(
        "DELETE FROM load WHERE updated_at < min(?1, (SELECT max(updated_at) FROM load)) - ?2",
        [unix_now(), LOAD_KEPT],
    );
    if let Err(error) = old {
        // It takes room that there may be none of, and is done with the next start.
        tracing::debug!(%error, "old load was left in the tracker's database");
    }
    let kept = read(&connection)?;
    Ok((connection, kept))
}

/// What the database at `path` holds, without writing anything: its disk is full or read-only.
fn glance(path: &Path) -> Result<Kept, StoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(Kept::default()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.into()),
    }
    let is_logged = with_end(path, "-wal").metadata().is_ok_and(|log| log.len() > 0);
    let connection = if is_logged {
        // On a read-only disk the file cannot be locked, and nobody can write to it.
        connect_alone(path, "unix").or_else(|_| connect_alone(path, "unix-none"))?
    } else {
        let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags)?
    };
    match read(&connection) {
        Err(StoreError::Sqlite(error)) if is_damage(&error) => Ok(Kept {
            notice: Some(format!(
                "the database `{}` is damaged ({error}), and its disk takes no new one yet, because \
                 it is full or read-only: the tokens to remove torrents, their descriptions and the load are lost",
                shown(path)
            )),
            ..Kept::default()
        }),
        read => read,
    }
}

/// Opens the database at `path`, which has a log, for this program alone, by one of SQLite's ways to
/// the file system.
fn connect_alone(path: &Path, way: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags_and_vfs(path, flags, way)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The log's index is kept in memory then, and no file is needed for it.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // Whether it can be read this way.
    connection.query_row("PRAGMA user_version", [], |_| Ok(()))?;
    Ok(connection)
}

fn read(connection: &Connection) -> Result<Kept, StoreError> {
    // One of an earlier version that there is no room to change.
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let registrar = if version < 3 { "NULL" } else { "registrar" };
    let mut rows = connection.prepare(&format!(
        "SELECT info_hash, name, file, description, unlisted, token, registered_at, downloads, \
         observe, {registrar} FROM torrents"
    ))?;
    let rows = rows
        .query_map([], |row| {
            Ok(Row {
                info_hash: InfoHash(row.get(0)?),
                name: row.get(1)?,
                file: row.get(2)?,
                description: row.get(3)?,
                unlisted: row.get(4)?,
                token: row.get(5)?,
                registered_at: row.get(6)?,
                downloads: row.get(7)?,
                observe: row.get(8)?,
                registrar: row.get::<_, Option<String>>(9)?.and_then(|ip| ip.parse().ok()),
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut load = connection.prepare("SELECT info_hash, peer, total, recent FROM load")?;
    let load = load
        .query_map([], |row| {
            let peer: String = row.get(1)?;
            Ok(peer.parse().ok().map(|peer| {
                Ok::<_, rusqlite::Error>(LoadEntry {
                    info_hash: InfoHash(row.get(0)?),
                    peer,
                    assigned: Assigned {
                        total: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                        recent: row.get(3)?,
                    },
                    present: false,
                })
            }))
        })?
        .filter_map(|entry| entry.transpose().map(|entry| entry?))
        .collect::<Result<_, _>>()?;
    Ok(Kept { rows, load, notice: None })
}

impl Writer {
    /// Body of the thread: all that waits goes into one transaction.
    fn run(mut self, inbox: &Receiver<Job>) {
        loop {
            let is_behind = self.trouble.lock().is_some() || !self.rows.is_empty();
            let first = match is_behind {
                true => inbox.recv_timeout(RETRY),
                false => inbox.recv().map_err(RecvTimeoutError::from),
            };
            let jobs: Vec<Job> = match first {
                Ok(first) => std::iter::once(first).chain(inbox.try_iter().take(QUEUE)).collect(),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.turn(jobs);
        }
        if self.trouble.lock().is_some() {
            // Once more: what waits is written now or never.
            self.turn(Vec::new());
        }
        let Some(connection) = &self.connection else { return };
        // Moves what is in the log into the file proper; not needed for it to be safe.
        let tidied = match is_read_only(&self.path) {
            true => {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
            }
            false => connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
        };
        if let Err(error) = tidied {
            tracing::warn!(%error, "the tracker's database was not tidied up");
        }
    }

    /// Writes `jobs` and what could not be written before, and answers those who asked.
    fn turn(&mut self, mut jobs: Vec<Job>) {
        for job in &mut jobs {
            match job {
                Job::Save(changes) => self.remember(std::mem::take(changes)),
                Job::Later(rows) => {
                    self.rows.extend(rows.drain(..).map(|row| (row.info_hash, row)));
                }
                Job::Put(..) | Job::Remove(..) | Job::Flush(_) => {}
            }
        }
        let written = self.write(&jobs).map_err(|error| match unwritable(&error, &self.path) {
            Some(why) => StoreError::Unwritable(self.path.clone(), why),
            None => error,
        });
        match &written {
            Ok(()) => {
                self.rows.clear();
                self.changes.clear();
                *self.trouble.lock() = None;
            }
            Err(error) => {
                let error = error.to_string();
                let mut trouble = self.trouble.lock();
                // Told once, not every few seconds.
                if trouble.as_ref() != Some(&error) {
                    tracing::error!("the tracker's database could not be written: {error}");
                }
                *trouble = Some(error);
            }
        }
        for job in jobs {
            let (Job::Put(_, reply) | Job::Remove(_, reply) | Job::Flush(reply)) = job else {
                continue;
            };
            let outcome = match &written {
                Ok(()) => Ok(()),
                Err(StoreError::Unwritable(path, why)) => {
                    Err(StoreError::Unwritable(path.clone(), *why))
                }
                // The error itself can be given to one only.
                Err(error) => Err(StoreError::Io(std::io::Error::other(error.to_string()))),
            };
            // Who asked may have left.
            let _ = reply.send(outcome);
        }
    }

    /// Keeps changes until they are written; later ones take the place of earlier ones.
    fn remember(&mut self, changes: Changes) {
        for (info_hash, (downloads, load)) in changes {
            let (known, entries) = self.changes.entry(info_hash).or_default();
            *known = downloads;
            entries.extend(load.into_iter().map(|entry| (entry.peer, entry)));
        }
    }

    fn write(&mut self, jobs: &[Job]) -> Result<(), StoreError> {
        if is_read_only(&self.path) {
            return Err(StoreError::Unwritable(self.path.clone(), Unwritable::ReadOnly));
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let (connection, kept) = open_or_begin(&self.path)?;
                if let Some(notice) = kept.notice {
                    tracing::warn!("{notice}");
                }
                none.insert(connection)
            }
        };
        let transaction = connection.transaction()?;
        for row in self.rows.values() {
            put(&transaction, row)?;
        }
        for job in jobs {
            match job {
                Job::Put(row, _) => put(&transaction, row)?,
                Job::Remove(info_hash, _) => {
                    transaction
                        .prepare_cached("DELETE FROM torrents WHERE info_hash = ?1")?
                        .execute([info_hash.0])?;
                    transaction
                        .prepare_cached("DELETE FROM load WHERE info_hash = ?1")?
                        .execute([info_hash.0])?;
                }
                Job::Save(_) | Job::Later(_) | Job::Flush(_) => {}
            }
        }
        for (info_hash, (downloads, load)) in &self.changes {
            save(&transaction, *info_hash, *downloads, load.values())?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn put(transaction: &rusqlite::Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO torrents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            row.info_hash.0,
            row.name,
            row.file,
            row.description,
            row.unlisted,
            row.token,
            row.registered_at,
            row.downloads,
            row.observe,
            row.registrar.map(|ip| ip.to_string())
        ])?;
    Ok(())
}

fn save<'a>(
    transaction: &rusqlite::Transaction<'_>,
    info_hash: InfoHash,
    downloads: u32,
    load: impl Iterator<Item = &'a LoadEntry>,
) -> rusqlite::Result<()> {
    let known = transaction
        .prepare_cached("UPDATE torrents SET downloads = ?2 WHERE info_hash = ?1")?
        .execute(params![info_hash.0, downloads])?;
    if known == 0 {
        // Removed meanwhile.
        return Ok(());
    }
    let now = unix_now();
    for entry in load {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO load VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                info_hash.0,
                entry.peer.to_string(),
                i64::try_from(entry.assigned.total).unwrap_or(i64::MAX),
                entry.assigned.recent,
                now
            ])?;
    }
    Ok(())
}

/// Returns why nothing can be written to the database at `path`, if `error` came because its disk is
/// full or read-only.
fn unwritable(error: &StoreError, path: &Path) -> Option<Unwritable> {
    match error {
        StoreError::Unwritable(_, why) => Some(*why),
        StoreError::Io(error) => Unwritable::of(error),
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => match error.code {
            ErrorCode::DiskFull => Some(Unwritable::Full),
            // SQLite does not say why it could not make the files beside the database, and nothing
            // of quotas; and what it calls read-only may be the file alone.
            ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly => {
                probe(path, SMALL).as_ref().err().and_then(Unwritable::of)
            }
            _ => None,
        },
        StoreError::Sqlite(_) | StoreError::Ended => None,
    }
}

/// Whether a file of so many bytes can be made beside `path`.
fn probe(path: &Path, len: usize) -> std::io::Result<()> {
    let beside = with_end(path, &format!(".probe-{}", std::process::id()));
    let made = std::fs::write(&beside, vec![0; len]);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => made.and(Err(error)),
        _ => made,
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(error.code, DatabaseCorrupt | NotADatabase)
        }
        // A table of ours with other columns, or values of other types, than we write.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

fn corrupt() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

/// Renames the database and what belongs to it.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut aside = with_end(path, &format!(".damaged-{}", unix_now()));
    let mut number = 1;
    while aside.exists() {
        aside = with_end(path, &format!(".damaged-{}-{number}", unix_now()));
        number += 1;
    }
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        match std::fs::rename(with_end(path, end), with_end(&aside, end)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(aside)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn shown(path: &Path) -> String {
    piecework_core::printable(&path.to_string_lossy()).into_owned()
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Jobs that may wait: registering waits for its turn, saving load comes back with the next.
const QUEUE: usize = 64;

/// Seconds for which the load of a peer that does not come back is kept: 30 days.
const LOAD_KEPT: i64 = 30 * 24 * 3600;

/// Time until it is tried again to write what could not be written.
const RETRY: Duration = Duration::from_secs(4);

/// Somebody may be looking at the database with a program of his own.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes of the index that SQLite makes beside a database.
const SMALL: usize = 32 << 10;

/// Bytes that a new database needs at least, with its log.
const PROBE: usize = 128 << 10;

/// 2 added `observe`, 3 `registrar`.
const VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS torrents (
    info_hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    description TEXT,
    unlisted INTEGER NOT NULL,
    token BLOB,
    registered_at INTEGER NOT NULL,
    downloads INTEGER NOT NULL,
    observe INTEGER NOT NULL DEFAULT 1,
    registrar TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS load (
    info_hash BLOB NOT NULL,
    peer TEXT NOT NULL,
    total INTEGER NOT NULL,
    recent INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (info_hash, peer)
) WITHOUT ROWID;
";

#[cfg(test)]
mod tests;
