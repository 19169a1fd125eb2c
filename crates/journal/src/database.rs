//! The file of a journal: opens it or sets it aside, and keeps it within its bounds.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, Transaction, params};

use super::age::{AgeWatch, ExpiredIds, TABLES};
use super::error::JournalError;
use piecework_core::printable_path;
use piecework_database::{
    Access, DatabaseOptions, FileId, OpenError, Opened, Synchronous, pragma, set_aside,
};

/// A connection that writes.
pub(super) struct Database {
    pub connection: Connection,
    /// A notice for the user: a damaged file was set aside.
    pub notice: Option<String>,
    /// The file that was opened, even if another one lies at its path now.
    pub file: FileId,
    page_size: i64,
    /// The number of pruning steps until unreferenced names are removed.
    sweep_in: u32,
    /// Some were removed, so cached ids may be invalid.
    pub swept: bool,
    ages: AgeWatch,
}

impl Database {
    /// Opens or creates the file at `path`. A damaged file is set aside and a new one is created.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| JournalError::new(path, error))?;
        }
        let (Opened { connection, file }, notice) = match OPTIONS.open(path) {
            Err(OpenError::Failed(cause)) if cause.is_damage() => {
                // A file of another program, named by mistake, must not be renamed.
                if !OPTIONS.has_header(path) {
                    return Err(JournalError::Foreign { path: path.to_owned() });
                }
                let aside = set_aside(path, SystemTime::now())
                    .map_err(|error| JournalError::new(path, error))?;
                let opened = OPTIONS.open(path).map_err(|error| JournalError::open(path, error))?;
                (opened, Some(aside_notice(path, &aside, &cause.to_string())))
            }
            opened => (opened.map_err(|error| JournalError::open(path, error))?, None),
        };
        let page_size: i64 =
            pragma(&connection, "page_size").map_err(|error| JournalError::new(path, error))?;
        Ok(Self {
            connection,
            notice,
            file,
            page_size: page_size.max(512),
            sweep_in: SWEEP_EVERY,
            swept: false,
            ages: AgeWatch::default(),
        })
    }

    /// Returns which rows have expired, see [`AgeWatch::expired`].
    pub(crate) fn expired(
        &mut self,
        age: i64,
        clocks: (i64, i64),
        is_last: bool,
    ) -> rusqlite::Result<ExpiredIds> {
        self.ages.expired(&mut self.connection, age, clocks, is_last)
    }

    /// Removes a bounded number of the oldest rows, if the file is longer than `size` bytes or they
    /// have expired. Returns whether there may be more to remove.
    pub(crate) fn prune(&mut self, size: u64, expired: &ExpiredIds) -> rusqlite::Result<bool> {
        let pages: i64 = pragma(&self.connection, "page_count")?;
        let free: i64 = pragma(&self.connection, "freelist_count")?;
        let most = i64::try_from(size).unwrap_or(i64::MAX) / self.page_size;
        // Leaves some room, so that the file does not grow while old rows are removed.
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
            // The table with the oldest rows may have only its last one, which stays.
            for (_, table) in &tables {
                taken = remove_first(&transaction, table, i64::MAX)?;
                if taken > 0 {
                    break;
                }
            }
            if taken == 0 {
                // Sums are removed only if there is nothing else.
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
            // The pragma releases one page per row that is read from it.
            let mut statement =
                self.connection.prepare(&format!("PRAGMA incremental_vacuum({AT_A_TIME})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(taken > 0)
    }
}

/// Returns an empty journal in memory.
pub(super) fn open_empty(path: &Path) -> Result<Connection, JournalError> {
    OPTIONS.open_in_memory().map_err(|error| JournalError::open(path, error))
}

/// Opens a connection that only reads. Also returns whether it sees what others write meanwhile.
pub(super) fn open_read_only(path: &Path) -> Result<(Connection, bool), JournalError> {
    OPTIONS.open_reader(path).map_err(|error| match error {
        OpenError::Failed(cause) if cause.is_damage() && !OPTIONS.has_header(path) => {
            JournalError::Foreign { path: path.to_owned() }
        }
        error => JournalError::open(path, error),
    })
}

/// Creates the tables, or upgrades those of version `from`.
fn upgrade(transaction: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    let steps: &[&str] = match from {
        0 => &[SCHEMA, REQUESTS, LOST, SUMS],
        1 => &[ADD_UNLISTED, REQUESTS, ADD_TORRENT, LOST, ADD_TIMES, SUMS, FILL_SUMS],
        2 => &[ADD_TORRENT, LOST, ADD_TIMES, SUMS, FILL_SUMS],
        _ => &[ADD_TIMES, SUMS, FILL_SUMS],
    };
    steps.iter().try_for_each(|sql| transaction.execute_batch(sql))
}

/// A complete check of a large file takes a second, so it is only done if the last run did not end
/// properly.
fn was_interrupted(connection: &Connection) -> rusqlite::Result<bool> {
    let ended = "SELECT ended_at IS NULL FROM runs ORDER BY id DESC LIMIT 1";
    Ok(optional(connection, ended)?.unwrap_or(false))
}

/// Removes the first rows of a table, up to the id `last`, but never the last row of all: later ids
/// continue from it.
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

/// Returns the notice that the file at `path` was renamed to `aside`.
pub(super) fn aside_notice(path: &Path, aside: &Path, why: &str) -> String {
    format!(
        "the journal `{}` was damaged ({why}); it is kept as `{}`, and a new one was created",
        printable_path(path),
        printable_path(aside)
    )
}

const SCHEMA: &str = include_str!("schema.sql");

/// The view of requests, which needs the tables.
const REQUESTS: &str = include_str!("requests.sql");

/// From version 1 to version 2. Programs of version 1 that have the file open can go on writing:
/// they name the columns that they fill.
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

/// The sums per minute, and the view of sums per peer.
const SUMS: &str = include_str!("sums.sql");

/// From version 3 to version 4, in the same way.
const ADD_TIMES: &str = "
ALTER TABLE totals ADD COLUMN timed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN took_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN longest_ms INTEGER NOT NULL DEFAULT 0;
DROP VIEW givers;
";

/// Counts the rows that earlier versions wrote. This happens once, and takes a second per million
/// rows.
const FILL_SUMS: &str = "
INSERT INTO minutes SELECT time / 60000, count(*), sum(bytes) FROM given_rows WHERE verdict = 0
    GROUP BY time / 60000;
UPDATE totals SET timed = g.timed, took_ms = g.took_ms, longest_ms = g.longest_ms
    FROM (SELECT torrent, peer, count(*) AS timed, sum(requested - received) AS took_ms,
        max(requested - received) AS longest_ms FROM given_rows
        WHERE verdict = 0 AND requested IS NOT NULL GROUP BY torrent, peer) g
    WHERE totals.torrent = g.torrent AND totals.peer = g.peer;
";

const OPTIONS: DatabaseOptions = DatabaseOptions {
    // `PWjo`.
    application: Some(0x5057_6a6f),
    version: VERSION,
    upgrade,
    needs_check: was_interrupted,
    access: Access::Shared,
    requires_wal: true,
    // A power cut may lose the last second.
    synchronous: Synchronous::Normal,
    auto_vacuum: true,
    cache_kib: None,
    log_kept: 4 << 20,
};

/// The version of the tables. 2 added `unlisted` to requests; 3 the torrents to what was dropped,
/// and marks; 4 sums of times and per minute. Earlier versions can still be read.
const VERSION: i64 = 4;

/// Removes torrents and peers that nothing refers to. This reads every row, so it is rare.
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

/// Pruning steps between two of those: half a million rows.
const SWEEP_EVERY: u32 = 100;

/// Rows removed, or pages released, in one step: some milliseconds.
const AT_A_TIME: i64 = 5_000;
