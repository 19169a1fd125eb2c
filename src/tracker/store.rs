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

use crate::base::InfoHash;
use crate::registry::{Assigned, LoadEntry};

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
    #[error("the database `{}` cannot be written: there is no room left on its disk", shown(.0))]
    Full(PathBuf),
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
    /// damaged is set aside under another name, and a new one begun. If there is no room for that,
    /// what is there is read, and the rest is done when there is room, see [`Store::trouble`].
    ///
    /// # Errors
    /// If there can be no database there.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let trouble = Arc::new(Mutex::new(None));
        let (connection, mut kept) = match open_or_begin(path) {
            Ok((connection, kept)) => (Some(connection), kept),
            Err(error) if is_full(&error, path) => {
                *trouble.lock() = Some(StoreError::Full(path.to_owned()).to_string());
                (None, glance(path)?)
            }
            Err(error) => return Err(error),
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

/// What the database at `path` holds, without writing anything: there is no room to open it.
fn glance(path: &Path) -> Result<Kept, StoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(Kept::default()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.into()),
    }
    let is_logged = with_end(path, "-wal").metadata().is_ok_and(|log| log.len() > 0);
    let connection = if is_logged {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // The log's index is kept in memory then, and no file is needed for it.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection
    } else {
        let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags)?
    };
    match read(&connection) {
        Err(StoreError::Sqlite(error)) if is_damage(&error) => Ok(Kept {
            notice: Some(format!(
                "the database `{}` is damaged ({error}), and there is no room to begin a new one \
                 yet: the tokens to remove torrents, their descriptions and the load are lost",
                shown(path)
            )),
            ..Kept::default()
        }),
        read => read,
    }
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
        // Moves what is in the log into the file proper; not needed for it to be safe.
        if let Some(connection) = &self.connection
            && let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        {
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
        let written = self.write(&jobs).map_err(|error| match is_full(&error, &self.path) {
            true => StoreError::Full(self.path.clone()),
            false => error,
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
                Err(StoreError::Full(path)) => Err(StoreError::Full(path.clone())),
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

/// Whether there was no room on the disk for the database at `path` or what belongs to it.
fn is_full(error: &StoreError, path: &Path) -> bool {
    let is_full_io = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    };
    match error {
        StoreError::Full(_) => true,
        StoreError::Io(error) => is_full_io(error),
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
            error.code == ErrorCode::DiskFull
                // SQLite does not say why it could not make the files beside the database, and
                // nothing of quotas.
                || (matches!(error.code, ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
                    && probe(path, SMALL).is_err_and(|error| is_full_io(&error)))
        }
        StoreError::Sqlite(_) | StoreError::Ended => false,
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
    crate::base::printable(&path.to_string_lossy()).into_owned()
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
mod tests {
    use super::*;

    fn row(n: u8) -> Row {
        Row {
            info_hash: InfoHash([n; 20]),
            name: "a\x1bb".to_owned(),
            file: "a.torrent".to_owned(),
            description: None,
            unlisted: true,
            token: Some([n; 32]),
            registered_at: -1,
            downloads: 3,
            observe: false,
            registrar: Some([10, 0, 0, n].into()),
        }
    }

    fn load(n: u8, total: u64) -> LoadEntry {
        LoadEntry {
            info_hash: InfoHash([n; 20]),
            peer: ([10, 0, 0, n], 6881).into(),
            assigned: Assigned { total, recent: 2 },
            present: false,
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let (store, kept) = Store::open(&path).unwrap();
        assert!(kept.rows.is_empty() && kept.notice.is_none());
        store.put(row(1)).unwrap();
        store.put(row(2)).unwrap();
        store.remove(InfoHash([2; 20])).unwrap();
        let changes = Changes::from([
            (InfoHash([1; 20]), (9, vec![load(1, 5)])),
            (InfoHash([2; 20]), (9, vec![load(2, 5)])),
        ]);
        store.flush(changes).unwrap();
        store.close();
        let (store, kept) = Store::open(&path).unwrap();
        assert_eq!(kept.rows, [Row { downloads: 9, ..row(1) }]);
        assert_eq!(kept.load, [load(1, 5)]);
        store.close();
    }

    /// A database that may have no more pages than it has while `bounded`, as on a full disk.
    fn bound(writer: &Writer, bounded: bool) {
        let connection = writer.connection.as_ref().unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let most = if bounded { pages } else { 1 << 20 };
        connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).unwrap();
    }

    #[test]
    fn what_a_full_disk_refuses_is_refused_in_turn_and_what_was_counted_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let (connection, _) = open_or_begin(&path).unwrap();
        let trouble = Arc::new(Mutex::new(None));
        let mut writer = Writer {
            path: path.clone(),
            connection: Some(connection),
            rows: BTreeMap::new(),
            changes: BTreeMap::new(),
            trouble: Arc::clone(&trouble),
        };
        let ask = |writer: &mut Writer, row: Row| {
            let (reply, answer) = sync_channel(1);
            writer.turn(vec![Job::Put(Box::new(row), reply)]);
            answer.recv().unwrap()
        };
        ask(&mut writer, row(1)).unwrap();
        bound(&writer, true);
        let long = || Row { description: Some("x".repeat(100_000)), ..row(2) };
        assert!(matches!(ask(&mut writer, long()), Err(StoreError::Full(_))));
        assert!(trouble.lock().as_ref().unwrap().contains("no room left on its disk"));
        // Of each peer the last count is kept, whatever came with it.
        for total in [5, 9] {
            let filler = (10..200).map(|n| load(1, n)).collect::<Vec<_>>();
            let mut entries = vec![LoadEntry { peer: ([10, 9, 9, 9], 1).into(), ..load(1, total) }];
            entries.extend(filler);
            writer.turn(vec![Job::Save(Changes::from([(InfoHash([1; 20]), (9, entries))]))]);
        }
        writer.turn(vec![Job::Later(vec![row(3), long()])]);
        assert!(trouble.lock().is_some());
        bound(&writer, false);
        writer.turn(Vec::new());
        assert_eq!(*trouble.lock(), None);
        assert!(writer.rows.is_empty() && writer.changes.is_empty());
        drop(writer);
        let (store, kept) = Store::open(&path).unwrap();
        assert_eq!(kept.rows, [Row { downloads: 9, ..row(1) }, long(), row(3)]);
        let nine = kept.load.iter().find(|entry| entry.peer.port() == 1).unwrap();
        assert_eq!((nine.assigned.total, kept.load.len()), (9, 2));
        store.close();
    }

    #[test]
    fn what_is_there_can_be_read_without_writing_anything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        assert!(glance(&path).unwrap().rows.is_empty());
        let (store, _) = Store::open(&path).unwrap();
        store.put(row(1)).unwrap();
        store.close();
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let before = names();
        assert_eq!(glance(&path).unwrap().rows, [row(1)]);
        assert_eq!(names(), before);
        // As it is left by a tracker that was killed: all in its log.
        let (connection, _) = open_or_begin(&path).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.execute("UPDATE torrents SET downloads = 77", []).unwrap();
        drop(connection);
        std::fs::remove_file(with_end(&path, "-shm")).ok();
        assert_eq!(glance(&path).unwrap().rows[0].downloads, 77);
        assert_eq!(glance(&path).unwrap().rows[0].downloads, 77, "twice");
    }

    #[test]
    fn load_is_forgotten_by_its_age_and_not_by_a_clock_that_jumps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let left = |times: &[i64]| -> i64 {
            let (connection, _) = open_or_begin(&path).unwrap();
            connection.execute("DELETE FROM load", []).unwrap();
            for (n, time) in (1..).zip(times) {
                let peer = format!("10.0.0.1:{n}");
                let insert = "INSERT INTO load VALUES (zeroblob(20), ?1, 1, 1, ?2)";
                connection.execute(insert, params![peer, time]).unwrap();
            }
            drop(connection);
            let (connection, _) = open_or_begin(&path).unwrap();
            connection.query_row("SELECT count(*) FROM load", [], |row| row.get(0)).unwrap()
        };
        let (now, day) = (unix_now(), 24 * 3600);
        assert_eq!(left(&[now, now - 29 * day, now - 31 * day]), 2);
        // The clock says now what it has not said when these were written, or the other way round.
        assert_eq!(left(&[now - 400 * day, now - 401 * day]), 2);
        assert_eq!(left(&[now + 400 * day, now, now - 29 * day]), 3);
    }

    #[test]
    fn a_database_of_the_first_version_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let connection = Connection::open(&path).unwrap();
        let first =
            SCHEMA.replace(",\n    observe INTEGER NOT NULL DEFAULT 1,\n    registrar TEXT", "");
        assert_ne!(first, SCHEMA);
        connection.execute_batch(&first).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection
            .execute(
                "INSERT INTO torrents VALUES (zeroblob(20), 'a', 'a.torrent', NULL, 0, NULL, 1, 2)",
                [],
            )
            .unwrap();
        drop(connection);
        for _ in 0..2 {
            let (store, kept) = Store::open(&path).unwrap();
            assert_eq!((kept.rows.len(), kept.rows[0].observe), (1, true));
            assert_eq!((kept.rows[0].downloads, kept.notice), (2, None));
            store.close();
        }
    }

    #[test]
    fn a_damaged_database_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        std::fs::write(
            &path,
            b"this is no database at all, and longer than a header is, by far: \
            one hundred bytes are not many at all",
        )
        .unwrap();
        let (store, kept) = Store::open(&path).unwrap();
        assert!(kept.notice.unwrap().contains("was damaged"));
        store.put(row(1)).unwrap();
        store.close();
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().any(|name| name.starts_with("t.sqlite.damaged-")), "{names:?}");
    }

    #[test]
    fn a_database_with_wrong_columns_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("CREATE TABLE torrents (a TEXT); CREATE TABLE load (b TEXT);")
            .unwrap();
        drop(connection);
        let (_, kept) = Store::open(&path).unwrap();
        assert!(kept.notice.is_some());
    }
}
