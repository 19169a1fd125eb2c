//! Which rows have reached the age at which they are removed.

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::retention::RetentionClock;

/// The ids of the last expired rows, one for each of [`TABLES`]. Ids grow with time, however the
/// clock jumps.
pub(super) type ExpiredIds = [i64; TABLES.len()];

/// Tells the age of rows by a clock that is stored in the file, and by marks that note the last
/// rows at a time.
#[derive(Default)]
pub(super) struct AgeWatch {
    last: Option<ClockReading>,
}

/// The last reading of the clocks by this program.
struct ClockReading {
    /// A monotonic clock, in milliseconds.
    monotonic: i64,
    clock: RetentionClock,
    /// The clock in the file at that time. Other programs may have written since.
    stored: RetentionClock,
}

impl AgeWatch {
    /// Reads the clocks and returns which rows have expired: those that are `age` old. `wall` is
    /// the wall clock, `monotonic` a monotonic one, all in milliseconds. With `is_last` the time is
    /// stored in any case, because this run ends.
    pub(crate) fn expired(
        &mut self,
        connection: &mut Connection,
        age: i64,
        (wall, monotonic): (i64, i64),
        is_last: bool,
    ) -> rusqlite::Result<ExpiredIds> {
        let transaction = connection.transaction()?;
        let stored = stored_clock(&transaction)?;
        let clock = self.advance(stored, age, (wall, monotonic));
        let spacing = RetentionClock::spacing(age);
        let is_mark_due = last_mark(&transaction)?
            .is_none_or(|marked| clock.now.saturating_sub(marked) >= spacing);
        let is_recent = |stored: &RetentionClock| {
            clock.now.saturating_sub(stored.now) < spacing.min(STORE_EVERY)
        };
        let kept = stored.filter(|stored| !is_last && !is_mark_due && is_recent(stored));
        if kept.is_none() {
            store_clock(&transaction, &clock)?;
        }
        if is_mark_due {
            transaction.execute(MARK, [clock.now])?;
        }
        let expired = take_expired(&transaction, clock.now.saturating_sub(age))?;
        transaction.commit()?;
        self.last = Some(ClockReading { monotonic, clock, stored: kept.unwrap_or(clock) });
        Ok(expired)
    }

    /// Returns the retention clock at this moment.
    fn advance(
        &self,
        stored: Option<RetentionClock>,
        age: i64,
        (wall, monotonic): (i64, i64),
    ) -> RetentionClock {
        let Some(stored) = stored else { return RetentionClock::begin(wall) };
        let is_own = self.last.as_ref().is_some_and(|last| last.stored == stored);
        let mut clock = match &self.last {
            Some(last) if is_own => last.clock,
            _ => stored,
        };
        let elapsed = self.last.as_ref().map_or(0, |last| monotonic.saturating_sub(last.monotonic));
        // Time that another program has counted is not counted again.
        let since = wall.saturating_sub(clock.wall).max(0);
        clock.pass(if is_own { elapsed } else { elapsed.min(since) }, wall, age);
        clock
    }
}

fn stored_clock(transaction: &Transaction<'_>) -> rusqlite::Result<Option<RetentionClock>> {
    let clock = |row: &Row<'_>| {
        Ok(RetentionClock { now: row.get(0)?, wall: row.get(1)?, ahead: row.get(2)? })
    };
    let sql = "SELECT now, wall, ahead FROM clock LIMIT 1";
    transaction.prepare_cached(sql)?.query_row([], clock).optional()
}

fn store_clock(transaction: &Transaction<'_>, clock: &RetentionClock) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM clock", [])?;
    transaction
        .prepare_cached("INSERT INTO clock (now, wall, ahead) VALUES (?1, ?2, ?3)")?
        .execute([clock.now, clock.wall, clock.ahead])?;
    Ok(())
}

fn last_mark(transaction: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT at FROM marks ORDER BY at DESC LIMIT 1";
    transaction.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// Returns the rows that were there at `oldest`, and removes the marks before that one.
fn take_expired(transaction: &Transaction<'_>, oldest: i64) -> rusqlite::Result<ExpiredIds> {
    let ids = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]);
    let sql = "SELECT given, sent, bad, request, dropped FROM marks WHERE at <= ?1 \
         ORDER BY at DESC LIMIT 1";
    let expired = transaction.prepare_cached(sql)?.query_row([oldest], ids).optional()?;
    transaction.execute(
        "DELETE FROM marks WHERE at < (SELECT max(at) FROM marks WHERE at <= ?1)",
        [oldest],
    )?;
    Ok(expired.unwrap_or_default())
}

/// Tables whose rows are in the order of their time.
pub(super) const TABLES: [&str; 5] =
    ["given_rows", "sent_rows", "bad_rows", "request_rows", "drop_rows"];

/// Notes the last row of each table at the time `?1`.
const MARK: &str = "INSERT OR IGNORE INTO marks (at, given, sent, bad, request, dropped) SELECT ?1, \
     (SELECT ifnull(max(id), 0) FROM given_rows), \
     (SELECT ifnull(max(id), 0) FROM sent_rows), \
     (SELECT ifnull(max(id), 0) FROM bad_rows), \
     (SELECT ifnull(max(id), 0) FROM request_rows), \
     (SELECT ifnull(max(id), 0) FROM drop_rows)";

/// How often the clock is stored, milliseconds: what a crash may lose of it.
const STORE_EVERY: i64 = 60_000;
