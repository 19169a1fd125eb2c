//! What survives a restart: one SQLite file, written by a thread of its own.
//!
//! `torrents` has a row for each `.torrent` in the folder (the file itself is the truth about the
//! torrent), `load` one for each peer that was handed out.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, params};

use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_database::{
    Access, Backlog, Cause, DatabaseOptions, Due, Fault, OpenError, Retry, Synchronous, WriteQueue,
    WriterThread, is_read_only, probe, set_aside,
};
use piecework_registry::{Assigned, LoadEntry};

/// The thread's address. Dropping it ends the thread once all is written.
pub(super) struct Store {
    queue: Arc<WriteQueue<Waiting>>,
    thread: WriterThread,
}

/// What waits to be written.
struct Waiting {
    jobs: Vec<Job>,
    /// Rows of torrents that had none when the tracker started.
    rows: Rows,
    changes: LatestChanges,
    retry: Retry<StoreError>,
}

/// What the thread writes with.
struct Writer {
    path: PathBuf,
    /// `None` while there is no room to open it.
    connection: Option<Connection>,
}

/// What is written in one transaction.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    rows: Rows,
    changes: LatestChanges,
}

type Rows = BTreeMap<InfoHash, Row>;

/// Of each torrent the downloads, and of each peer the load.
type LatestChanges = BTreeMap<InfoHash, (u32, BTreeMap<SocketAddr, LoadEntry>)>;

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

/// The tracker's database could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite or the system refused.
    #[error(transparent)]
    Failed(Cause),
    /// Its disk is full or read-only.
    #[error("the database `{}` cannot be written: {}", printable_path(.0), .1)]
    Unwritable(PathBuf, Unwritable),
    /// A later program wrote it.
    #[error(
        "it is of version `{found}`, written by a later program; this one writes version `{VERSION}`"
    )]
    Later {
        /// Its version.
        found: i64,
    },
    /// It belongs to another program.
    #[error("it is another program's database")]
    Foreign,
    /// The thread that writes it has ended.
    #[error("its writer has ended")]
    Ended,
}

type Reply = SyncSender<Result<(), StoreError>>;

/// What somebody waits for.
enum Job {
    Put(Box<Row>, Reply),
    Remove(InfoHash, Reply),
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
        let mut retry = Retry::new(RETRY, RETRY);
        let (connection, mut kept) = match open_or_begin(path) {
            Ok((connection, kept)) => (Some(connection), kept),
            Err(error) => match error.of(path) {
                error @ StoreError::Unwritable(..) => {
                    retry.fail(error, Instant::now());
                    (None, glance(path)?)
                }
                error => return Err(error),
            },
        };
        kept.load.retain(|entry| entry.assigned.total > 0);
        let queue = Arc::new(WriteQueue::new(Waiting::new(retry)));
        let shared = Arc::clone(&queue);
        let writer = Writer { path: path.to_owned(), connection };
        let thread = WriterThread::spawn("tracker-store", "the tracker's database", move || {
            writer.run(&shared);
        })?;
        Ok((Self { queue, thread }, kept))
    }

    /// Why nothing can be written just now. Safe to show.
    pub(super) fn trouble(&self) -> Option<String> {
        self.queue.lock().retry.error().map(ToString::to_string)
    }

    /// Has rows written when that is possible.
    pub(super) fn put_later(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut waiting = self.queue.lock();
        if waiting.is_closed() {
            return Err(StoreError::Ended);
        }
        waiting.rows.extend(rows.into_iter().map(|row| (row.info_hash, row)));
        drop(waiting);
        self.queue.wake();
        Ok(())
    }

    /// Writes a row, and returns when it is safe on disk. Blocks.
    pub(super) fn put(&self, row: Row) -> Result<(), StoreError> {
        self.ask(|reply| Job::Put(Box::new(row), reply))
    }

    /// Removes a row and what belongs to it, and returns when that is safe on disk. Blocks.
    pub(super) fn remove(&self, info_hash: InfoHash) -> Result<(), StoreError> {
        self.ask(|reply| Job::Remove(info_hash, reply))
    }

    /// Has changes written soon. Those that wait are kept as long as nothing can be written, of each peer
    /// the latest.
    pub(super) fn save(&self, changes: Changes) {
        self.queue.lock().remember(changes);
        self.queue.wake();
    }

    /// Returns when all that was asked before is on disk. Blocks.
    pub(super) fn flush(&self, last: Changes) -> Result<(), StoreError> {
        self.queue.lock().remember(last);
        self.ask(Job::Flush)
    }

    /// Writes what is left and ends the thread. Blocks.
    pub(super) fn close(self) {
        self.queue.close();
        self.thread.join();
    }

    fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), StoreError> {
        let (reply, answer) = sync_channel(1);
        let mut waiting = self.queue.lock();
        if waiting.is_closed() {
            return Err(StoreError::Ended);
        }
        waiting.jobs.push(job(reply));
        drop(waiting);
        self.queue.wake();
        answer.recv().map_err(|_| StoreError::Ended)?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn open_or_begin(path: &Path) -> Result<(Connection, Kept), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    match open(path) {
        Err(StoreError::Failed(cause)) if is_damage(&cause, path) => {
            // There may be room to rename it, and none to begin a new one.
            probe(path, PROBE)?;
            let aside = set_aside(path, SystemTime::now())?;
            let (connection, mut kept) = open(path)?;
            kept.notice = Some(format!(
                "the database `{}` was damaged ({cause}); it is kept as `{}`, and a new one was \
                 begun from the torrent files: the tokens to remove them, their descriptions and \
                 the load are lost",
                printable_path(path),
                printable_path(&aside)
            ));
            Ok((connection, kept))
        }
        opened => opened,
    }
}

fn open(path: &Path) -> Result<(Connection, Kept), StoreError> {
    let connection = OPTIONS.open(path).map_err(|error| StoreError::open(path, error))?.connection;
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
    match OPTIONS.open_unwritable(path).map_err(StoreError::from).and_then(|it| read(&it)) {
        Err(StoreError::Failed(cause)) if is_damage(&cause, path) => Ok(Kept {
            notice: Some(format!(
                "the database `{}` is damaged ({cause}), and its disk takes no new one yet, because \
                 it is full or read-only: the tokens to remove torrents, their descriptions and the load are lost",
                printable_path(path)
            )),
            ..Kept::default()
        }),
        read => read,
    }
}

/// Creates the tables, or brings those of version `from` up to date.
fn upgrade(transaction: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    transaction.execute_batch(SCHEMA)?;
    if from == 1 {
        transaction
            .execute_batch("ALTER TABLE torrents ADD COLUMN observe INTEGER NOT NULL DEFAULT 1")?;
    }
    if (1..3).contains(&from) {
        transaction.execute_batch("ALTER TABLE torrents ADD COLUMN registrar TEXT")?;
    }
    Ok(())
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

impl Waiting {
    fn new(retry: Retry<StoreError>) -> Self {
        let (rows, changes) = (Rows::new(), LatestChanges::new());
        Self { jobs: Vec::new(), rows, changes, retry }
    }

    /// Keeps changes until they are written; later ones take the place of earlier ones.
    fn remember(&mut self, changes: Changes) {
        for (info_hash, (downloads, load)) in changes {
            let (known, entries) = self.changes.entry(info_hash).or_default();
            *known = downloads;
            entries.extend(load.into_iter().map(|entry| (entry.peer, entry)));
        }
    }

    /// Takes note of how writing went. What could not be written waits again, behind what came later.
    fn settle(&mut self, rows: Rows, changes: LatestChanges, error: Option<&StoreError>) {
        let Some(error) = error else {
            self.retry.succeed();
            return;
        };
        if self.retry.fail(error.clone(), Instant::now()) {
            tracing::error!("the tracker's database could not be written: {error}");
        }
        for (info_hash, row) in rows {
            self.rows.entry(info_hash).or_insert(row);
        }
        for (info_hash, (downloads, load)) in changes {
            let (_, entries) =
                self.changes.entry(info_hash).or_insert((downloads, BTreeMap::new()));
            for (peer, entry) in load {
                entries.entry(peer).or_insert(entry);
            }
        }
    }
}

impl Backlog for Waiting {
    type Batch = Batch;
    type Rest = Vec<Job>;

    fn due(&self) -> Due {
        match self.retry.at() {
            _ if !self.jobs.is_empty() => Due::Now,
            Some(at) => Due::At(at),
            None if !self.rows.is_empty() || !self.changes.is_empty() => Due::Now,
            None => Due::Never,
        }
    }

    fn take(&mut self) -> Batch {
        Batch {
            jobs: std::mem::take(&mut self.jobs),
            rows: std::mem::take(&mut self.rows),
            changes: std::mem::take(&mut self.changes),
        }
    }

    /// Dropping their replies answers those who wait.
    fn abandon(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }
}

impl Writer {
    /// Body of the thread.
    fn run(mut self, queue: &WriteQueue<Waiting>) {
        let turn = |writer: &mut Self, batch, _| writer.turn(queue, batch);
        let ending = queue.run(&mut self, turn, |_| {});
        self.tidy();
        drop(ending);
    }

    /// Moves what is in the log into the file proper; not needed for it to be safe.
    fn tidy(&self) {
        let Some(connection) = &self.connection else { return };
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

    /// Writes a batch, and answers those who asked.
    fn turn(&mut self, queue: &WriteQueue<Waiting>, batch: Batch) {
        let written = self.write(&batch).map_err(|error| error.of(&self.path));
        let Batch { jobs, rows, changes } = batch;
        queue.lock().settle(rows, changes, written.as_ref().err());
        for job in jobs {
            let (Job::Put(_, reply) | Job::Remove(_, reply) | Job::Flush(reply)) = job;
            // Who asked may have left.
            let _ = reply.send(written.clone());
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
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
        for row in batch.rows.values() {
            put(&transaction, row)?;
        }
        for job in &batch.jobs {
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
                Job::Flush(_) => {}
            }
        }
        for (info_hash, (downloads, load)) in &batch.changes {
            save(&transaction, *info_hash, *downloads, load.values())?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn put(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
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
    transaction: &Transaction<'_>,
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

/// Whether a new database has to take the place of the one at `path`.
fn is_damage(cause: &Cause, path: &Path) -> bool {
    matches!(cause.fault(path), Fault::Damaged | Fault::Mismatched)
}

impl StoreError {
    fn open(path: &Path, error: OpenError) -> Self {
        match error {
            OpenError::Version { found } => Self::Later { found },
            OpenError::Unwritable(why) => Self::Unwritable(path.to_owned(), why),
            OpenError::Failed(cause) => Self::Failed(cause),
            OpenError::Foreign => Self::Foreign,
        }
    }

    /// The error as one of the database at `path`: whether its disk is full or read-only is found out.
    fn of(self, path: &Path) -> Self {
        match &self {
            Self::Failed(cause) => match cause.fault(path) {
                Fault::Unwritable(why) => Self::Unwritable(path.to_owned(), why),
                _ => self,
            },
            _ => self,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds for which the load of a peer that does not come back is kept: 30 days.
const LOAD_KEPT: i64 = 30 * 24 * 3600;

/// Time until it is tried again to write what could not be written.
const RETRY: Duration = Duration::from_secs(4);

/// Bytes that a new database needs at least, with its log.
const PROBE: usize = 128 << 10;

const OPTIONS: DatabaseOptions = DatabaseOptions {
    // Earlier versions wrote none.
    application: None,
    version: VERSION,
    upgrade,
    needs_check: |_| Ok(true),
    // Somebody may be looking at the database with another program.
    access: Access::Shared,
    requires_wal: false,
    // A token that was given out must not be lost in a power cut; there are few commits.
    synchronous: Synchronous::Full,
    auto_vacuum: false,
    cache_kib: None,
    log_kept: 4 << 20,
};

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
