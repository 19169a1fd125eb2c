//! What waits to be written, and the thread that writes it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use rusqlite::{ErrorCode, TransactionBehavior, params};

use super::database::{Database, is_damage, pragma};
use super::record::Record;
use super::write::Known;
use super::{JournalError, JournalOptions};

/// Records on their way to the file.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Record>,
    /// When what waits is to be written at the latest.
    due: Option<Instant>,
    /// Records taken in so far, and how many of them are written or lost.
    taken: u64,
    settled: u64,
    /// Somebody waits for what is here to be written.
    hurry: bool,
    /// Dropped and not written down yet.
    lost: Lost,
    dropped: u64,
    /// The thread sleeps and nothing is due.
    idle: bool,
    closed: bool,
    ended: bool,
}

/// What was not written, by why.
#[derive(Default, Clone, Copy)]
struct Lost {
    /// The queue was full.
    queue: u64,
    /// There were more than may be written.
    rate: u64,
    /// The disk refused.
    disk: u64,
}

impl Queue {
    /// Takes a record in; the oldest makes room.
    pub fn push(&self, record: Record) {
        let mut inner = self.inner.lock();
        if inner.ended {
            inner.dropped += 1;
            return;
        }
        // Outside the lock; what it holds may be the last of its kind.
        let oldest = if inner.waiting.len() >= WAITING {
            inner.lost.queue += 1;
            inner.dropped += 1;
            inner.settled += 1;
            inner.waiting.pop_front()
        } else {
            None
        };
        inner.waiting.push_back(record);
        inner.taken += 1;
        let first = inner.due.is_none();
        if first {
            inner.due = Some(Instant::now() + GATHER);
        }
        let wake = (first && inner.idle) || inner.waiting.len() == WAITING / 2;
        drop(inner);
        drop(oldest);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Counts records that were not offered because there were too many.
    pub fn skipped(&self, count: u64) {
        let mut inner = self.inner.lock();
        inner.lost.rate += count;
        inner.dropped += count;
        if inner.due.is_none() {
            inner.due = Some(Instant::now() + GATHER);
            self.wake.notify_one();
        }
    }

    /// Waits until what was taken in before is written.
    pub fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.inner.lock();
        let goal = inner.taken;
        while inner.settled < goal && !inner.ended {
            inner.hurry = true;
            self.wake.notify_one();
            if self.written.wait_until(&mut inner, deadline).timed_out() {
                return;
            }
        }
    }

    /// Has the thread end once all is written.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.wake.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Body of the thread.
    pub fn run(&self, database: Database, options: &JournalOptions, run: i64) {
        let end = End(self);
        let mut writer = Writer::new(database, options, run);
        let mut batch = VecDeque::new();
        loop {
            let (lost, last) = self.take(&mut batch);
            let taken = batch.len() as u64;
            let lost = loop {
                match writer.write(batch.make_contiguous(), lost) {
                    Ok(()) => break Lost::default(),
                    Err(WriteError::Busy) if !self.inner.lock().closed => {}
                    Err(WriteError::Busy | WriteError::Failed) => {
                        break Lost { disk: lost.disk + taken, ..lost };
                    }
                }
            };
            batch.clear();
            if batch.capacity() > KEPT {
                batch = VecDeque::new();
            }
            let mut inner = self.inner.lock();
            inner.settled += taken;
            inner.lost.add(lost);
            if lost.disk > 0 {
                inner.dropped += taken;
            }
            drop(inner);
            self.written.notify_all();
            writer.prune(last);
            if last {
                writer.end();
                drop(writer);
                drop(end);
                return;
            }
        }
    }

    /// Waits until there is something to write, and takes it. Says whether it is the last.
    fn take(&self, batch: &mut VecDeque<Record>) -> (Lost, bool) {
        let mut inner = self.inner.lock();
        loop {
            let full = inner.waiting.len() >= WAITING / 2;
            let due = inner.due.is_some_and(|due| due <= Instant::now());
            if full || due || inner.hurry || inner.closed {
                break;
            }
            match inner.due {
                Some(due) => {
                    // Why it ends is looked up above.
                    let _ = self.wake.wait_until(&mut inner, due);
                }
                None => {
                    inner.idle = true;
                    self.wake.wait(&mut inner);
                    inner.idle = false;
                }
            }
        }
        std::mem::swap(&mut inner.waiting, batch);
        inner.due = None;
        inner.hurry = false;
        (std::mem::take(&mut inner.lost), inner.closed)
    }
}

impl Lost {
    fn add(&mut self, other: Self) {
        self.queue += other.queue;
        self.rate += other.rate;
        self.disk += other.disk;
    }
}

enum WriteError {
    /// Another program writes.
    Busy,
    Failed,
}

struct Writer<'a> {
    /// `None` while it cannot be opened.
    database: Option<Database>,
    options: &'a JournalOptions,
    known: Known,
    /// Changes when another program writes into the file.
    version: i64,
    pruned: Instant,
    /// Told once, not every second.
    told: Option<String>,
}

impl<'a> Writer<'a> {
    fn new(database: Database, options: &'a JournalOptions, run: i64) -> Self {
        let known = Known::new(run);
        let database = Some(database);
        Self { database, options, known, version: 0, pruned: Instant::now(), told: None }
    }

    fn write(&mut self, records: &[Record], lost: Lost) -> Result<(), WriteError> {
        let written = self.try_write(records, lost);
        match written {
            Ok(()) => {
                self.told = None;
                Ok(())
            }
            Err(error) => {
                self.known.forget();
                let code = error.sqlite_error_code();
                let reason = JournalError::new(&self.options.path, &error).to_string();
                if self.told.as_ref() != Some(&reason) {
                    tracing::warn!("{reason}");
                    self.told = Some(reason);
                }
                if matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
                    return Err(WriteError::Busy);
                }
                if is_damage(&error) {
                    // Opening it anew sets it aside.
                    self.database = None;
                }
                Err(WriteError::Failed)
            }
        }
    }

    fn try_write(&mut self, records: &[Record], lost: Lost) -> rusqlite::Result<()> {
        if records.is_empty() && lost.queue + lost.rate + lost.disk == 0 {
            return Ok(());
        }
        if self.database.is_none() {
            self.reopen()?;
        }
        let Some(database) = &mut self.database else { return Ok(()) };
        let transaction =
            database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Not before it begins: until then others may write.
        let version: i64 = pragma(&transaction, "data_version")?;
        if version != self.version {
            self.version = version;
            self.known.forget();
        }
        self.known.write(&transaction, records)?;
        let counts = [("queue", lost.queue), ("rate", lost.rate), ("disk", lost.disk)];
        for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            transaction
                .prepare_cached(
                    "INSERT INTO drop_rows (run, time, what, count) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    self.known.run,
                    now_ms(),
                    what,
                    i64::try_from(count).unwrap_or(i64::MAX)
                ])?;
        }
        transaction.commit()
    }

    fn reopen(&mut self) -> rusqlite::Result<()> {
        let refused = |error: JournalError| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        };
        let database = Database::open(&self.options.path).map_err(refused)?;
        if let Some(notice) = &database.notice {
            tracing::warn!("{notice}");
        }
        database.connection.execute(
            "INSERT OR IGNORE INTO runs (id, program, started_at) VALUES (?1, ?2, ?3)",
            params![self.known.run, self.options.program, now_ms()],
        )?;
        self.database = Some(database);
        Ok(())
    }

    /// Keeps the file within its bounds, a little at a time.
    fn prune(&mut self, last: bool) {
        if last || self.pruned.elapsed() < PRUNE_EVERY {
            return;
        }
        let Some(database) = &mut self.database else { return };
        let age = i64::try_from(self.options.age.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_ms().saturating_sub(age);
        for _ in 0..PRUNES {
            match database.prune(self.options.size, oldest) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "old rows of the journal were left where they are");
                    break;
                }
            }
        }
        if std::mem::take(&mut database.swept) {
            self.known.forget();
        }
        self.pruned = Instant::now();
    }

    fn end(&mut self) {
        let Some(database) = &self.database else { return };
        let ended = database.connection.execute(
            "UPDATE runs SET ended_at = ?2 WHERE id = ?1",
            params![self.known.run, now_ms()],
        );
        if let Err(error) = ended {
            tracing::debug!(%error, "the journal does not say when this run ended");
        }
    }
}

/// Lets nobody wait for a thread that has ended, be it by a panic.
struct End<'a>(&'a Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.ended = true;
        let waiting = std::mem::take(&mut inner.waiting);
        // Came too late to be written.
        inner.dropped += waiting.len() as u64;
        // What it holds may be the last of its kind.
        drop(inner);
        drop(waiting);
        self.0.written.notify_all();
    }
}

/// The clock, milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Records that may wait, about 120 bytes each: 2 MiB. At 10,000 pieces a second the disk may stand
/// still for more than a second.
pub(super) const WAITING: usize = 16_384;

/// Room for records that is kept between two batches.
const KEPT: usize = 1_024;

/// How long records gather into one transaction.
const GATHER: Duration = Duration::from_secs(1);

/// How long somebody who reads waits for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two looks at how long and how old the file is.
const PRUNE_EVERY: Duration = Duration::from_secs(2);

/// Steps of one look: 50,000 rows, some 100 ms, so that it keeps up with what is written.
const PRUNES: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, torrent};
    use super::*;

    #[test]
    fn what_waits_when_the_thread_ends_is_counted() {
        let queue = Queue::default();
        let torrent = torrent();
        for _ in 0..3 {
            queue.push(sent(&torrent, 0, 1, 1));
        }
        drop(End(&queue));
        assert_eq!(queue.dropped(), 3);
        queue.push(sent(&torrent, 0, 1, 1));
        assert_eq!(queue.dropped(), 4);
    }
}
