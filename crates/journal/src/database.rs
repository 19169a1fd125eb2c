//! The file: opened or set aside, kept within its bounds.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, ffi, params};

use super::JournalError;
use super::retention::RetentionClock;
use piecework_core::{Unwritable, printable};

/// A connection that writes.
pub(super) struct Database {
    pub connection: Connection,
    /// What people should know: a damaged file was set aside.
    pub notice: Option<String>,
    /// The file that was opened, whatever lies at its path by now.
    pub file: FileId,
    page_size: i64,
    /// Steps of pruning until names that nothing refers to are looked for.
    sweep_in: u32,
    /// Some were removed: numbers that are remembered may be nobody's now.
    pub swept: bool,
    /// The last look at the clocks.
    looked: Option<Look>,
}

/// What a program last saw of the clocks.
struct Look {
    /// A monotonic clock, milliseconds.
    at: i64,
    clock: RetentionClock,
    /// What the file had then: other programs may have written since.
    stored: RetentionClock,
}

/// The last rows that have reached the age that they may reach, by their ids in each of [`TABLES`].
/// Ids grow with time, however the clock jumps.
pub(super) type Expired = [i64; TABLES.len()];

/// Which file it is: its device and inode, which a rename leaves as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl Database {
    /// Opens the file at `path`, or makes it. One that is damaged is set aside and a new one begun.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| JournalError::io(path, &error))?;
        }
        let (connection, file, notice) = match try_open(path) {
            Ok((connection, file)) => (connection, file, None),
            Err(error) if is_damage(&error) => {
                // Nobody's file is renamed because it was named by mistake.
                if !is_ours(path) {
                    return Err(JournalError::Foreign { path: path.to_owned() });
                }
                let aside = set_aside(path).map_err(|error| JournalError::io(path, &error))?;
                let (connection, file) =
                    try_open(path).map_err(|error| JournalError::new(path, &error))?;
                (connection, file, Some(told_aside(path, &aside, &error.to_string())))
            }
            Err(error) => return Err(JournalError::new(path, &error)),
        };
        let page_size: i64 =
            pragma(&connection, "page_size").map_err(|error| JournalError::new(path, &error))?;
        Ok(Self {
            connection,
            notice,
            file,
            page_size: page_size.max(512),
            sweep_in: SWEEP_EVERY,
            swept: false,
            looked: None,
        })
    }

    /// Takes note of the time and says which rows have expired: those that are `age` old. `wall` is
    /// the wall clock, `at` a monotonic one; all in milliseconds. `last`: there will be no other
    /// look.
    pub fn expired(
        &mut self,
        age: i64,
        (wall, at): (i64, i64),
        last: bool,
    ) -> rusqlite::Result<Expired> {
        let transaction = self.connection.transaction()?;
        let known = transaction
            .prepare_cached("SELECT now, wall, ahead FROM clock LIMIT 1")?
            .query_row([], |row| {
                Ok(RetentionClock { now: row.get(0)?, wall: row.get(1)?, ahead: row.get(2)? })
            });
        let stored = match known {
            Ok(stored) => Some(stored),
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            Err(error) => return Err(error),
        };
        let mut clock = match (&self.looked, stored) {
            (Some(look), Some(stored)) if look.stored == stored => look.clock,
            (_, Some(stored)) => stored,
            (_, None) => RetentionClock::begin(wall),
        };
        if stored.is_some() {
            let elapsed = self.looked.as_ref().map_or(0, |look| at.saturating_sub(look.at));
            // What another program counted since is not counted twice.
            let since = wall.saturating_sub(clock.wall).max(0);
            let is_own = self.looked.as_ref().is_some_and(|look| Some(look.stored) == stored);
            clock.pass(if is_own { elapsed } else { elapsed.min(since) }, wall, age);
        }
        let marked: Option<i64> =
            optional(&transaction, "SELECT at FROM marks ORDER BY at DESC LIMIT 1")?;
        let spacing = RetentionClock::spacing(age);
        let is_due = marked.is_none_or(|marked| clock.now.saturating_sub(marked) >= spacing);
        let written = stored.filter(|stored| {
            !last && !is_due && clock.now.saturating_sub(stored.now) < spacing.min(STORE_EVERY)
        });
        if written.is_none() {
            transaction.execute("DELETE FROM clock", [])?;
            transaction
                .prepare_cached("INSERT INTO clock (now, wall, ahead) VALUES (?1, ?2, ?3)")?
                .execute([clock.now, clock.wall, clock.ahead])?;
        }
        if is_due {
            transaction.execute(
                "INSERT OR IGNORE INTO marks (at, given, sent, bad, request, dropped) SELECT ?1, \
                 (SELECT ifnull(max(id), 0) FROM given_rows), \
                 (SELECT ifnull(max(id), 0) FROM sent_rows), \
                 (SELECT ifnull(max(id), 0) FROM bad_rows), \
                 (SELECT ifnull(max(id), 0) FROM request_rows), \
                 (SELECT ifnull(max(id), 0) FROM drop_rows)",
                [clock.now],
            )?;
        }
        let oldest = clock.now.saturating_sub(age);
        let expired = transaction
            .prepare_cached(
                "SELECT given, sent, bad, request, dropped FROM marks WHERE at <= ?1 \
                 ORDER BY at DESC LIMIT 1",
            )?
            .query_row([oldest], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])
            });
        let expired = match expired {
            Ok(expired) => expired,
            Err(rusqlite::Error::QueryReturnedNoRows) => Expired::default(),
            Err(error) => return Err(error),
        };
        transaction.execute(
            "DELETE FROM marks WHERE at < (SELECT max(at) FROM marks WHERE at <= ?1)",
            [oldest],
        )?;
        transaction.commit()?;
        self.looked = Some(Look { at, clock, stored: written.unwrap_or(clock) });
        Ok(expired)
    }

    /// Takes the oldest rows out, a bounded number of them, if the file is longer than `size` bytes
    /// or they have expired. Says whether there may be more to take out.
    pub fn prune(&mut self, size: u64, expired: &Expired) -> rusqlite::Result<bool> {
        let pages: i64 = pragma(&self.connection, "page_count")?;
        let free: i64 = pragma(&self.connection, "freelist_count")?;
        let most = i64::try_from(size).unwrap_or(i64::MAX) / self.page_size;
        // Some room is kept so that the file does not grow while what is old is taken out.
        let is_full = (pages - free) * 20 > most * 19;
        let transaction = self.connection.transaction()?;
        let mut tables = Vec::new();
        for table in TABLES {
            let first = format!("SELECT time FROM {table} ORDER BY id LIMIT 1");
            let time: Option<i64> = optional(&transaction, &first)?;
            tables.extend(time.map(|time| (time, table)));
        }
        tables.sort_unstable();
        let mut taken = 0;
        if is_full {
            // The table whose rows are the oldest may have but its last one, which stays.
            for (_, table) in &tables {
                taken = remove_first(&transaction, table, i64::MAX)?;
                if taken > 0 {
                    break;
                }
            }
            if taken == 0 {
                // Sums go only if there is nothing else.
                taken += transaction.execute(
                    "DELETE FROM totals WHERE (torrent, peer) IN \
                     (SELECT torrent, peer FROM totals ORDER BY last_at LIMIT ?1)",
                    [AT_A_TIME],
                )?;
            }
        }
        for (table, last) in TABLES.into_iter().zip(*expired).filter(|(_, last)| *last > 0) {
            taken += remove_first(&transaction, table, last)?;
        }
        if taken > 0 {
            transaction
                .execute("DELETE FROM spans WHERE last < (SELECT min(id) FROM given_rows)", [])?;
            transaction.execute(
                "DELETE FROM minutes WHERE minute < \
                 (SELECT time / 60000 FROM given_rows ORDER BY id LIMIT 1)",
                [],
            )?;
            self.sweep_in = self.sweep_in.saturating_sub(1);
            if self.sweep_in == 0 {
                self.sweep_in = SWEEP_EVERY;
                self.swept = true;
                transaction.execute_batch(SWEEP)?;
            }
        }
        transaction.commit()?;
        if pages > most && free > 0 {
            // It gives back one page for each row that is asked of it.
            let mut statement =
                self.connection.prepare(&format!("PRAGMA incremental_vacuum({AT_A_TIME})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(taken > 0)
    }
}

impl FileId {
    /// The file that lies at `path` now.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// Sets the file at `path` aside if it is still `file`, which is known to be damaged. Gives what
/// people should know; `None` if another program did so before, or somebody took it away.
pub(super) fn set_aside_if(
    path: &Path,
    file: FileId,
    why: &str,
) -> std::io::Result<Option<String>> {
    let is_it = || match FileId::of(path) {
        Ok(there) => Ok(there == file),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if !is_it()? {
        return Ok(None);
    }
    // Of two programs that find the damage at once, the second must not rename the first one's new
    // journal.
    let lock = std::fs::File::open(path)?;
    lock.lock()?;
    if !is_it()? {
        return Ok(None);
    }
    let aside = set_aside(path)?;
    drop(lock);
    Ok(Some(told_aside(path, &aside, why)))
}

/// An empty journal in memory.
pub(super) fn open_empty() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    for tables in [SCHEMA, REQUESTS, LOST, SUMS] {
        connection.execute_batch(tables)?;
    }
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

/// A connection that only reads, and whether it sees what others write meanwhile.
pub(super) fn open_read_only(path: &Path) -> Result<(Connection, bool), JournalError> {
    let sorted = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) if !is_ours(path) => {
            JournalError::Foreign { path: path.to_owned() }
        }
        _ => JournalError::new(path, &error),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let look = |name: &Path, flags| {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(BUSY)?;
        let application: i64 = pragma(&connection, "application_id")?;
        Ok((connection, application))
    };
    let live = match is_read_only(path) {
        true => look_without_locks(path).map(|found| (found, false)),
        false => look(path, flags).map(|found| (found, true)),
    };
    let opened = live.or_else(|error: rusqlite::Error| {
        if error.sqlite_error_code() != Some(ErrorCode::CannotOpen)
            && unwritable(&error, path).is_none()
        {
            return Err(error);
        }
        // In a folder that one may only read nobody writes, so there need be no lock. On a full disk
        // there may be no room for the files that are needed to see what others write.
        let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
        let uri = format!("file:{encoded}?immutable=1");
        look(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI).map(|found| (found, false))
    });
    let ((connection, application), is_live) = opened.map_err(sorted)?;
    if application != APPLICATION {
        return Err(JournalError::Foreign { path: path.to_owned() });
    }
    let version: i64 = pragma(&connection, "user_version").map_err(sorted)?;
    if !(1..=VERSION).contains(&version) {
        return Err(JournalError::Version { path: path.to_owned(), found: version });
    }
    Ok((connection, is_live))
}

/// Opens the file and its log where nobody can write to either: the log's index is kept in memory, and
/// nothing is locked. Gives the number of the application as well.
fn look_without_locks(path: &Path) -> rusqlite::Result<(Connection, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-none")?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let application = pragma(&connection, "application_id")?;
    Ok((connection, application))
}

pub(super) fn pragma<T: rusqlite::types::FromSql>(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<T> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Returns why nothing can be written to the file at `path`, if `error` came because its disk is
/// full or read-only. SQLite says that there is no room only where it writes the file itself and its
/// log; of the files beside them, and of quotas, it says that something failed; and what it calls
/// read-only may be the file alone.
pub(super) fn unwritable(error: &rusqlite::Error, path: &Path) -> Option<Unwritable> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Some(Unwritable::Full),
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly) => {
            probe(path).as_ref().err().and_then(Unwritable::of)
        }
        _ => None,
    }
}

/// Whether the file system of the file at `path` is mounted read-only, or has become so after an error.
///
/// SQLite's index of the log is a mapped file. To write to it on such a file system ends the program
/// (`SIGBUS`), so one asks before.
pub fn is_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let looked = rustix::fs::statvfs(folder.unwrap_or(Path::new(".")));
    looked.is_ok_and(|it| it.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether the system has run out of something that others may give back: descriptors or memory.
pub(super) fn is_scarce(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OutOfMemory)
}

/// Whether the file is no sound database.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn try_open(path: &Path) -> rusqlite::Result<(Connection, FileId)> {
    // SQLite gives its log the same permissions: addresses of people are nobody else's business.
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(of_io(&error)),
    }
    // If another file takes its place before it is opened, the next batch finds that out.
    let file = FileId::of(path).map_err(|error| of_io(&error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let application: i64 = pragma(&connection, "application_id")?;
    // Before anything is changed in a database that may be somebody else's.
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (application, tables) != (0, 0) {
        return Err(cannot_open("it is another program's database"));
    }
    if application == 0 {
        // Before the first table; without effect on a file that has some.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(cannot_open("its file system does not let several programs share a database"));
    }
    // What the last second brought may be lost if the machine goes down, the rest not.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let application: i64 = pragma(&transaction, "application_id")?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match application {
        0 if tables == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.execute_batch(REQUESTS)?;
            transaction.execute_batch(LOST)?;
            transaction.execute_batch(SUMS)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        APPLICATION => {
            let version: i64 = pragma(&transaction, "user_version")?;
            match version {
                1..VERSION => {
                    if version < 2 {
                        transaction.execute_batch(ADD_UNLISTED)?;
                        transaction.execute_batch(REQUESTS)?;
                    }
                    if version < 3 {
                        transaction.execute_batch(ADD_TORRENT)?;
                        transaction.execute_batch(LOST)?;
                    }
                    transaction.execute_batch(ADD_TIMES)?;
                    transaction.execute_batch(SUMS)?;
                    transaction.execute_batch(FILL_SUMS)?;
                    transaction.pragma_update(None, "user_version", VERSION)?;
                }
                VERSION => {}
                _ => return Err(cannot_open("it is of another version of this program")),
            }
        }
        _ => return Err(cannot_open("it is another program's database")),
    }
    transaction.commit()?;
    // To look at all of a large file takes a second: only after an end that was none.
    let ended = "SELECT ended_at IS NULL FROM runs ORDER BY id DESC LIMIT 1";
    if !optional::<bool>(&connection, ended)?.unwrap_or(false) {
        return Ok((connection, file));
    }
    let check: String = pragma(&connection, "quick_check(1)")?;
    if check != "ok" {
        let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(corrupt, Some(check)));
    }
    Ok((connection, file))
}

/// `error` of the system as SQLite would tell it.
pub(super) fn of_io(error: &std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        ErrorKind::ReadOnlyFilesystem => ffi::SQLITE_READONLY,
        ErrorKind::OutOfMemory => ffi::SQLITE_NOMEM,
        // Descriptors of this program, or of the system, are used up.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => ffi::SQLITE_NOMEM,
        _ => ffi::SQLITE_CANTOPEN,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
}

/// Whether a small file can be made beside `path`.
fn probe(path: &Path) -> std::io::Result<()> {
    let beside = with_end(path, &format!("-probe-{}", std::process::id()));
    let made = std::fs::write(&beside, [0; PROBE]);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => made.and(Err(error)),
        _ => made,
    }
}

fn cannot_open(why: &str) -> rusqlite::Error {
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(error, Some(why.to_owned()))
}

/// Removes the first rows of a table, up to the one with the id `last`, but never the last one of
/// all: the ids of those to come go on from it.
fn remove_first(transaction: &Transaction<'_>, table: &str, last: i64) -> rusqlite::Result<usize> {
    transaction.execute(
        &format!(
            "DELETE FROM {table} WHERE id <= (SELECT max(id) FROM \
             (SELECT id FROM {table} ORDER BY id LIMIT ?1)) AND id <= ?2 \
             AND id < (SELECT max(id) FROM {table})"
        ),
        params![AT_A_TIME, last],
    )
}

fn optional<T: rusqlite::types::FromSql>(
    connection: &Connection,
    sql: &str,
) -> rusqlite::Result<Option<T>> {
    use rusqlite::OptionalExtension;
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// Whether the file's first bytes are those of a journal, whatever the others are.
fn is_ours(path: &Path) -> bool {
    let mut header = [0; 72];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(MAGIC) && header[68..] == (APPLICATION as u32).to_be_bytes()
}

/// Renames the file and what belongs to it.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut aside = with_end(path, &format!(".damaged-{}", since.as_secs()));
    let mut number = 1;
    while aside.symlink_metadata().is_ok() {
        aside = with_end(path, &format!(".damaged-{}-{number}", since.as_secs()));
        number += 1;
    }
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm", "-journal"] {
        match std::fs::rename(with_end(path, end), with_end(&aside, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn told_aside(path: &Path, aside: &Path, why: &str) -> String {
    format!(
        "the journal `{}` was damaged ({why}); it is kept as `{}`, and a new one was begun",
        shown(path),
        shown(aside)
    )
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

pub(super) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

/// Tables whose rows come in the order of their time.
const TABLES: [&str; 5] = ["given_rows", "sent_rows", "bad_rows", "request_rows", "drop_rows"];

const SCHEMA: &str = include_str!("schema.sql");

/// The view of requests, behind the tables.
const REQUESTS: &str = include_str!("requests.sql");

/// From version 1 to version 2. Programs of version 1 that have the file open go on writing: they
/// name the columns that they fill.
const ADD_UNLISTED: &str = "
ALTER TABLE request_rows ADD COLUMN unlisted INTEGER NOT NULL DEFAULT 0;
DROP VIEW requests;
";

/// Tables for the age of rows, and the view of what was dropped.
const LOST: &str = include_str!("lost.sql");

/// From version 2 to version 3, in the same way.
const ADD_TORRENT: &str = "
ALTER TABLE drop_rows ADD COLUMN torrent INTEGER;
DROP VIEW dropped;
";

/// The sums by minute, and the view of those by peer.
const SUMS: &str = include_str!("sums.sql");

/// From version 3 to version 4, in the same way.
const ADD_TIMES: &str = "
ALTER TABLE totals ADD COLUMN timed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN took_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN longest_ms INTEGER NOT NULL DEFAULT 0;
DROP VIEW givers;
";

/// Counts the rows that earlier versions wrote: once, a second for a million of them.
const FILL_SUMS: &str = "
INSERT INTO minutes SELECT time / 60000, count(*), sum(bytes) FROM given_rows WHERE verdict = 0
    GROUP BY time / 60000;
UPDATE totals SET timed = g.timed, took_ms = g.took_ms, longest_ms = g.longest_ms
    FROM (SELECT torrent, peer, count(*) AS timed, sum(requested - received) AS took_ms,
        max(requested - received) AS longest_ms FROM given_rows
        WHERE verdict = 0 AND requested IS NOT NULL GROUP BY torrent, peer) g
    WHERE totals.torrent = g.torrent AND totals.peer = g.peer;
";

/// In the header, so that nobody's database is taken for ours: `PWjo`.
const APPLICATION: i64 = 0x5057_6a6f;

/// What every SQLite database begins with; the application's number is at byte 68.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Of the tables; 2 added `unlisted` to requests, 3 the torrents to what was dropped, and marks,
/// 4 sums of times and by minute. Earlier versions can still be read.
const VERSION: i64 = 4;

const PRIVATE: u32 = 0o600;

/// How long one waits for another program that writes into the same file: its batches take
/// milliseconds.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes of SQLite's log that are kept for new entries.
const LOG_KEPT: i64 = 4 << 20;

/// Removes torrents and peers that nothing refers to. It looks at every row, so it is done seldom.
const SWEEP: &str = "
DELETE FROM torrents WHERE id NOT IN (
    SELECT torrent FROM totals UNION SELECT torrent FROM given_rows
    UNION SELECT torrent FROM sent_rows UNION SELECT torrent FROM bad_rows
    UNION SELECT torrent FROM request_rows WHERE torrent IS NOT NULL
    UNION SELECT torrent FROM drop_rows WHERE torrent IS NOT NULL);
DELETE FROM peers WHERE id NOT IN (
    SELECT peer FROM totals UNION SELECT peer FROM given_rows
    UNION SELECT peer FROM sent_rows UNION SELECT peer FROM bad_rows WHERE peer IS NOT NULL);
";

/// Steps of pruning between two of those: half a million rows.
const SWEEP_EVERY: u32 = 100;

/// Bytes of the index that SQLite makes beside a database.
const PROBE: usize = 32 << 10;

/// How often the age is written down, milliseconds: what a crash may lose of it.
const STORE_EVERY: i64 = 60_000;

/// Rows taken out, or pages given back, in one go: some milliseconds.
const AT_A_TIME: i64 = 5_000;
