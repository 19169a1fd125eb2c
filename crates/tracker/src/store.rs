//! The tracker's database: one SQLite file, written by its own thread.
//!
//! The table `torrents` has a row for each `.torrent` file in the folder; the file is the source of truth about the
//! torrent. The table `load` has a row for each peer that was handed out.

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
use piecework_registry::{Load, LoadEntry};

/// The handle of the thread. Dropping it ends the thread once everything is written.
pub(super) struct TrackerStore {
    queue: Arc<WriteQueue<PendingWrites>>,
    thread: WriterThread,
}

/// Data that waits to be written.
struct PendingWrites {
    jobs: Vec<StoreJob>,
    /// Rows of torrents that had none when the tracker started.
    rows: RowsByHash,
    changes: LatestChanges,
    retry: Retry<StoreError>,
}

/// The thread's side.
struct StoreWriter {
    path: PathBuf,
    /// `None` while the disk is too full to open it.
    connection: Option<Connection>,
}

/// The data of one transaction.
#[derive(Default)]
struct WriteBatch {
    jobs: Vec<StoreJob>,
    rows: RowsByHash,
    changes: LatestChanges,
}

type RowsByHash = BTreeMap<InfoHash, StoreRow>;

/// The downloads of each torrent and the load of each peer.
type LatestChanges = BTreeMap<InfoHash, (u32, BTreeMap<SocketAddr, LoadEntry>)>;

/// A catalogued torrent's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreRow {
    pub info_hash: InfoHash,
    pub name: String,
    /// The name of its file in the folder.
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

/// The contents of a database when it was opened.
#[derive(Default)]
pub(super) struct StoreContents {
    pub rows: Vec<StoreRow>,
    pub load: Vec<LoadEntry>,
    /// A notice for the operator, if a damaged database was set aside.
    pub notice: Option<String>,
}

/// Changes of torrents: downloads and load. Later changes replace earlier ones.
pub(super) type LoadChanges = BTreeMap<InfoHash, (u32, Vec<LoadEntry>)>;

/// Why the tracker's database could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite or the system failed.
    #[error(transparent)]
    Failed(Cause),
    /// Its disk is full or read-only.
    #[error("the database `{}` cannot be written: {}", printable_path(.0), .1)]
    Unwritable(PathBuf, Unwritable),
    /// A later version of the program wrote it.
    #[error(
        "it is of version `{found}`, written by a later program; this one writes version `{VERSION}`"
    )]
    Later {
        /// The version of the database.
        found: i64,
    },
    /// It belongs to another program.
    #[error("it is another program's database")]
    Foreign,
    /// The thread that writes it has ended.
    #[error("its writer has ended")]
    Ended,
}

type JobReply = SyncSender<Result<(), StoreError>>;

/// A job that a caller waits for.
enum StoreJob {
    Put(Box<StoreRow>, JobReply),
    Remove(InfoHash, JobReply),
    Flush(JobReply),
}

impl TrackerStore {
    /// Opens the database at `path` and reads it. Creates its folder if necessary. A damaged database is set aside
    /// under another name, and a new one is created. If the disk is full or read-only, the database is only read,
    /// and writing is tried again later, see [`TrackerStore::trouble`].
    ///
    /// # Errors
    /// If the database can be neither opened nor created.
    pub(super) fn open(path: &Path) -> Result<(Self, StoreContents), StoreError> {
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
        let queue = Arc::new(WriteQueue::new(PendingWrites::new(retry)));
        let shared = Arc::clone(&queue);
        let writer = StoreWriter { path: path.to_owned(), connection };
        let thread = WriterThread::spawn("tracker-store", "the tracker's database", move || {
            writer.run(&shared);
        })?;
        Ok((Self { queue, thread }, kept))
    }

    /// Returns why nothing can be written now. Safe to show in a terminal.
    pub(super) fn trouble(&self) -> Option<String> {
        self.queue.lock().retry.error().map(ToString::to_string)
    }

    /// Queues rows to be written when that is possible.
    pub(super) fn put_later(&self, rows: Vec<StoreRow>) -> Result<(), StoreError> {
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
    pub(super) fn put(&self, row: StoreRow) -> Result<(), StoreError> {
        self.ask(|reply| StoreJob::Put(Box::new(row), reply))
    }

    /// Removes a row and what belongs to it, and returns when that is safe on disk. Blocks.
    pub(super) fn remove(&self, info_hash: InfoHash) -> Result<(), StoreError> {
        self.ask(|reply| StoreJob::Remove(info_hash, reply))
    }

    /// Queues changes to be written soon. While nothing can be written, the latest change of each peer is kept.
    pub(super) fn save(&self, changes: LoadChanges) {
        self.queue.lock().remember(changes);
        self.queue.wake();
    }

    /// Returns when everything queued before is on disk. Blocks.
    pub(super) fn flush(&self, last: LoadChanges) -> Result<(), StoreError> {
        self.queue.lock().remember(last);
        self.ask(StoreJob::Flush)
    }

    /// Writes everything that is left and ends the thread. Blocks.
    pub(super) fn close(self) {
        self.queue.close();
        self.thread.join();
    }

    fn ask(&self, job: impl FnOnce(JobReply) -> StoreJob) -> Result<(), StoreError> {
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

impl Drop for TrackerStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn open_or_begin(path: &Path) -> Result<(Connection, StoreContents), StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    match open(path) {
        Err(StoreError::Failed(cause)) if is_damage(&cause, path) => {
            // There may be room to rename it, but none to create a new one.
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

fn open(path: &Path) -> Result<(Connection, StoreContents), StoreError> {
    let connection = OPTIONS.open(path).map_err(|error| StoreError::open(path, error))?.connection;
    // Load that is a month older than the newest no longer matters. Comparing with the newest row keeps a wrong
    // clock, now or when a row was written, from making everything old.
    let old = connection.execute(
        "DELETE FROM load WHERE updated_at < min(?1, (SELECT max(updated_at) FROM load)) - ?2",
        [unix_now(), LOAD_KEPT],
    );
    if let Err(error) = old {
        // This needs room on the disk. It is tried again at the next start.
        tracing::debug!(%error, "old load could not be removed from the tracker's database");
    }
    let kept = read(&connection)?;
    Ok((connection, kept))
}

/// Reads the database at `path` without writing anything, because its disk is full or read-only.
fn glance(path: &Path) -> Result<StoreContents, StoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(StoreContents::default()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(StoreContents::default()),
        Err(error) => return Err(error.into()),
    }
    match OPTIONS.open_unwritable(path).map_err(StoreError::from).and_then(|it| read(&it)) {
        Err(StoreError::Failed(cause)) if is_damage(&cause, path) => Ok(StoreContents {
            notice: Some(format!(
                "the database `{}` is damaged ({cause}), and its disk takes no new one yet, because \
                 it is full or read-only: the tokens to remove torrents, their descriptions and the load are lost",
                printable_path(path)
            )),
            ..StoreContents::default()
        }),
        read => read,
    }
}

/// Creates the tables, or upgrades those of version `from`.
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

fn read(connection: &Connection) -> Result<StoreContents, StoreError> {
    // It may have an earlier version if there was no room to upgrade it.
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let registrar = if version < 3 { "NULL" } else { "registrar" };
    let mut rows = connection.prepare(&format!(
        "SELECT info_hash, name, file, description, unlisted, token, registered_at, downloads, \
         observe, {registrar} FROM torrents"
    ))?;
    let rows = rows
        .query_map([], |row| {
            Ok(StoreRow {
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
                    assigned: Load {
                        total: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                        recent: row.get(3)?,
                    },
                    present: false,
                })
            }))
        })?
        .filter_map(|entry| entry.transpose().map(|entry| entry?))
        .collect::<Result<_, _>>()?;
    Ok(StoreContents { rows, load, notice: None })
}

impl PendingWrites {
    fn new(retry: Retry<StoreError>) -> Self {
        let (rows, changes) = (RowsByHash::new(), LatestChanges::new());
        Self { jobs: Vec::new(), rows, changes, retry }
    }

    /// Keeps changes until they are written. Later changes replace earlier ones.
    fn remember(&mut self, changes: LoadChanges) {
        for (info_hash, (downloads, load)) in changes {
            let (known, entries) = self.changes.entry(info_hash).or_default();
            *known = downloads;
            entries.extend(load.into_iter().map(|entry| (entry.peer, entry)));
        }
    }

    /// Records the result of a write. Data that could not be written waits again; newer changes take precedence.
    fn settle(&mut self, rows: RowsByHash, changes: LatestChanges, error: Option<&StoreError>) {
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

impl Backlog for PendingWrites {
    type Batch = WriteBatch;
    type Rest = Vec<StoreJob>;

    fn due(&self) -> Due {
        match self.retry.at() {
            _ if !self.jobs.is_empty() => Due::Now,
            Some(at) => Due::At(at),
            None if !self.rows.is_empty() || !self.changes.is_empty() => Due::Now,
            None => Due::Never,
        }
    }

    fn take(&mut self) -> WriteBatch {
        WriteBatch {
            jobs: std::mem::take(&mut self.jobs),
            rows: std::mem::take(&mut self.rows),
            changes: std::mem::take(&mut self.changes),
        }
    }

    /// Dropping the replies answers the waiting callers.
    fn abandon(&mut self) -> Vec<StoreJob> {
        std::mem::take(&mut self.jobs)
    }
}

impl StoreWriter {
    /// The body of the thread.
    fn run(mut self, queue: &WriteQueue<PendingWrites>) {
        let turn = |writer: &mut Self, batch, _| writer.turn(queue, batch);
        let ending = queue.run(&mut self, turn, |_| {});
        self.tidy();
        drop(ending);
    }

    /// Moves the contents of the write-ahead log into the main file. Not needed for durability.
    fn tidy(&self) {
        let Some(connection) = &self.connection else { return };
        let tidied = match is_read_only(&self.path) {
            true => {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
            }
            false => connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
        };
        if let Err(error) = tidied {
            tracing::warn!(%error, "the write-ahead log of the tracker's database was not merged");
        }
    }

    /// Writes a batch, and answers its callers.
    fn turn(&mut self, queue: &WriteQueue<PendingWrites>, batch: WriteBatch) {
        let written = self.write(&batch).map_err(|error| error.of(&self.path));
        let WriteBatch { jobs, rows, changes } = batch;
        queue.lock().settle(rows, changes, written.as_ref().err());
        for job in jobs {
            let (StoreJob::Put(_, reply) | StoreJob::Remove(_, reply) | StoreJob::Flush(reply)) =
                job;
            // The caller may have left.
            let _ = reply.send(written.clone());
        }
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
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
                StoreJob::Put(row, _) => put(&transaction, row)?,
                StoreJob::Remove(info_hash, _) => {
                    transaction
                        .prepare_cached("DELETE FROM torrents WHERE info_hash = ?1")?
                        .execute([info_hash.0])?;
                    transaction
                        .prepare_cached("DELETE FROM load WHERE info_hash = ?1")?
                        .execute([info_hash.0])?;
                }
                StoreJob::Flush(_) => {}
            }
        }
        for (info_hash, (downloads, load)) in &batch.changes {
            save(&transaction, *info_hash, *downloads, load.values())?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn put(transaction: &Transaction<'_>, row: &StoreRow) -> rusqlite::Result<()> {
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
        // The torrent was removed in the meantime.
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

/// Returns whether a new database has to replace the one at `path`.
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

    /// Returns the error for the database at `path`, after checking whether its disk is full or read-only.
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

/// Returns the seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The seconds for which the load of a peer that does not come back is kept: 30 days.
const LOAD_KEPT: i64 = 30 * 24 * 3600;

/// The time until a failed write is tried again.
const RETRY: Duration = Duration::from_secs(4);

/// The minimum number of bytes for a new database with its log.
const PROBE: usize = 128 << 10;

const OPTIONS: DatabaseOptions = DatabaseOptions {
    // Earlier versions wrote none.
    application: None,
    version: VERSION,
    upgrade,
    needs_check: |_| Ok(true),
    // Another program may be reading the database.
    access: Access::Shared,
    requires_wal: false,
    // A token that a client has received must not be lost in a power failure. There are few commits.
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
