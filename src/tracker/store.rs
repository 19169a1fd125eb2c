//! What survives a restart: one SQLite file, written by a thread of its own.
//!
//! `torrents` has a row for each `.torrent` in the folder (the file itself is the truth about the
//! torrent), `load` one for each peer that was handed out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use rusqlite::{Connection, params};

use crate::base::InfoHash;
use crate::registry::{Assigned, LoadEntry};

/// The thread's address. Dropping it ends the thread once all is written.
pub(super) struct Store {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
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
    #[error("its writer has ended")]
    Ended,
}

type Reply = SyncSender<Result<(), StoreError>>;

enum Job {
    Put(Box<Row>, Reply),
    Remove(InfoHash, Reply),
    Save(Changes),
    Flush(Reply),
}

impl Store {
    /// Opens the database at `path` and reads it. One that is damaged is set aside under another
    /// name, and a new one begun.
    ///
    /// # Errors
    /// If there can be no database there.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let (connection, mut kept) = match open(path) {
            Ok(opened) => opened,
            Err(StoreError::Sqlite(error)) if is_damage(&error) => {
                let aside = set_aside(path)?;
                let (connection, mut kept) = open(path)?;
                kept.notice = Some(format!(
                    "the database `{}` was damaged ({error}); it is kept as `{}`, and a new one \
                     was begun from the torrent files: the tokens to remove them, their \
                     descriptions and the load are lost",
                    shown(path),
                    shown(&aside)
                ));
                (connection, kept)
            }
            Err(error) => return Err(error),
        };
        kept.load.retain(|entry| entry.assigned.total > 0);
        let (jobs, inbox) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("tracker-store".to_owned())
            .spawn(move || write_all(connection, &inbox))?;
        Ok((Self { jobs, thread }, kept))
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

fn open(path: &Path) -> Result<(Connection, Kept), StoreError> {
    let connection = Connection::open(path)?;
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
    connection.pragma_update(None, "user_version", VERSION)?;
    let kept = read(&connection)?;
    Ok((connection, kept))
}

fn read(connection: &Connection) -> Result<Kept, StoreError> {
    let mut rows = connection.prepare(
        "SELECT info_hash, name, file, description, unlisted, token, registered_at, downloads, \
         observe FROM torrents",
    )?;
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
            })
        })?
        .collect::<Result<_, _>>()?;
    // Load that is a month old says nothing about now.
    connection.execute("DELETE FROM load WHERE updated_at < ?1", [unix_now() - LOAD_KEPT])?;
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

/// Body of the thread: all that waits goes into one transaction.
fn write_all(mut connection: Connection, inbox: &Receiver<Job>) {
    while let Ok(first) = inbox.recv() {
        let mut jobs = vec![first];
        jobs.extend(inbox.try_iter().take(QUEUE));
        let written = write(&mut connection, &jobs);
        if let Err(error) = &written {
            tracing::error!(%error, "the tracker's database could not be written");
        }
        for job in jobs {
            let (Job::Put(_, reply) | Job::Remove(_, reply) | Job::Flush(reply)) = job else {
                continue;
            };
            let outcome = match &written {
                Ok(()) => Ok(()),
                // The error itself can be given to one only.
                Err(error) => Err(StoreError::Io(std::io::Error::other(error.to_string()))),
            };
            // Who asked may have left.
            let _ = reply.send(outcome);
        }
    }
    // Moves what is in the log into the file proper; not needed for it to be safe.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the tracker's database was not tidied up");
    }
}

fn write(connection: &mut Connection, jobs: &[Job]) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    for job in jobs {
        match job {
            Job::Put(row, _) => {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO torrents VALUES \
                         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
                        row.observe
                    ])?;
            }
            Job::Remove(info_hash, _) => {
                transaction
                    .prepare_cached("DELETE FROM torrents WHERE info_hash = ?1")?
                    .execute([info_hash.0])?;
                transaction
                    .prepare_cached("DELETE FROM load WHERE info_hash = ?1")?
                    .execute([info_hash.0])?;
            }
            Job::Save(changes) => save(&transaction, changes)?,
            Job::Flush(_) => {}
        }
    }
    transaction.commit()?;
    Ok(())
}

fn save(transaction: &rusqlite::Transaction<'_>, changes: &Changes) -> Result<(), StoreError> {
    let now = unix_now();
    for (info_hash, (downloads, load)) in changes {
        let known = transaction
            .prepare_cached("UPDATE torrents SET downloads = ?2 WHERE info_hash = ?1")?
            .execute(params![info_hash.0, downloads])?;
        if known == 0 {
            // Removed meanwhile.
            continue;
        }
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
    }
    Ok(())
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
    let with_end = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
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

/// 2 added `observe`.
const VERSION: i64 = 2;

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
    observe INTEGER NOT NULL DEFAULT 1
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

    #[test]
    fn a_database_of_the_first_version_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let connection = Connection::open(&path).unwrap();
        let first = SCHEMA.replace(",\n    observe INTEGER NOT NULL DEFAULT 1", "");
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
