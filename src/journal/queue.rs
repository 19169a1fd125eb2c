//! What waits to be written, and the thread that writes it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use rusqlite::{ErrorCode, TransactionBehavior, params};

use super::database::{Database, FileId, is_damage, pragma, set_aside_if};
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
    /// Somebody found the file damaged, and how.
    damage: Option<String>,
    /// Files written so far, but for the one that is written: goes up when it is another.
    file: u64,
    /// Dropped and not written down yet.
    lost: Lost,
    dropped: u64,
    /// Written and committed.
    kept: u64,
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

    /// Says that a reader found the file damaged that was the `file`th to be written, and waits
    /// until it is set aside and another one is begun.
    pub fn damaged(&self, file: u64, found: &JournalError) {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.inner.lock();
        if inner.file != file || inner.ended {
            return;
        }
        inner.damage.get_or_insert_with(|| match found {
            JournalError::Damaged { reason, .. } => reason.clone(),
            other => other.to_string(),
        });
        self.wake.notify_one();
        while inner.damage.is_some() && !inner.ended {
            if self.written.wait_until(&mut inner, deadline).timed_out() {
                return;
            }
        }
    }

    /// Which file is written: 0 for the one that was opened first.
    pub fn file(&self) -> u64 {
        self.inner.lock().file
    }

    /// Has the thread end once all is written.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.wake.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Records that were written.
    pub fn kept(&self) -> u64 {
        self.inner.lock().kept
    }

    /// Body of the thread.
    pub fn run(&self, database: Database, options: &JournalOptions, run: i64) {
        let end = End(self);
        let mut writer = Writer::new(database, options, run);
        let mut batch = VecDeque::new();
        // Runs may be shorter than the time between two looks.
        writer.prune();
        loop {
            let (lost, last, damage) = self.take(&mut batch);
            if let Some(why) = &damage {
                writer.found_damaged(why);
            }
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
            inner.file = writer.files;
            if damage.is_some() {
                inner.damage = None;
            }
            inner.lost.add(lost);
            if lost.disk > 0 {
                inner.dropped += taken;
            } else {
                inner.kept += taken;
            }
            drop(inner);
            self.written.notify_all();
            if !last && writer.pruned.elapsed() >= PRUNE_EVERY {
                writer.prune();
            }
            if last {
                writer.end();
                drop(writer);
                drop(end);
                return;
            }
        }
    }

    /// Waits until there is something to write or to see to, and takes it. Says whether it is the
    /// last, and how the file is damaged if somebody found that it is.
    fn take(&self, batch: &mut VecDeque<Record>) -> (Lost, bool, Option<String>) {
        let mut inner = self.inner.lock();
        loop {
            let full = inner.waiting.len() >= WAITING / 2;
            let due = inner.due.is_some_and(|due| due <= Instant::now());
            if full || due || inner.hurry || inner.closed || inner.damage.is_some() {
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
        // It stays there until it is seen to: somebody waits for that.
        (std::mem::take(&mut inner.lost), inner.closed, inner.damage.clone())
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
    /// The file that was opened last.
    file: FileId,
    /// How it is damaged, until it is set aside.
    damage: Option<String>,
    /// How often it was left for another one.
    files: u64,
    known: Known,
    /// Changes when another program writes into the file.
    version: i64,
    pruned: Instant,
    /// Told once, not every second.
    told: Option<String>,
}

impl<'a> Writer<'a> {
    fn new(database: Database, options: &'a JournalOptions, run: i64) -> Self {
        Self {
            options,
            file: database.file,
            damage: None,
            files: 0,
            known: Known::new(run),
            version: 0,
            pruned: Instant::now(),
            told: None,
            database: Some(database),
        }
    }

    fn write(&mut self, records: &[Record], lost: Lost) -> Result<(), WriteError> {
        let mut written = self.try_write(records, lost);
        if let Err(error) = &written
            && is_damage(error)
        {
            self.found_damaged(&error.to_string());
            written = self.try_write(records, lost);
        }
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
                Err(WriteError::Failed)
            }
        }
    }

    /// Leaves the file, which is damaged whatever a second look at it would say; opening it anew
    /// sets it aside.
    fn found_damaged(&mut self, why: &str) {
        self.database = None;
        self.damage = Some(why.to_owned());
        self.known.forget();
    }

    fn try_write(&mut self, records: &[Record], lost: Lost) -> rusqlite::Result<()> {
        if self.database.is_some()
            && !FileId::of(&self.options.path).is_ok_and(|it| it == self.file)
        {
            // Another program set it aside, or somebody took it away: what is written there now is
            // read by nobody.
            self.database = None;
            self.known.forget();
        }
        if self.database.is_none() {
            self.reopen()?;
        }
        if records.is_empty() && lost.queue + lost.rate + lost.disk == 0 {
            return Ok(());
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
        let path = &self.options.path;
        if let Some(why) = &self.damage {
            let aside = set_aside_if(path, self.file, why)
                .map_err(|error| refused(JournalError::io(path, &error)))?;
            if let Some(notice) = aside {
                tracing::warn!("{notice}");
            }
            self.damage = None;
        }
        let database = Database::open(path).map_err(refused)?;
        if let Some(notice) = &database.notice {
            tracing::warn!("{notice}");
        }
        database.connection.execute(
            "INSERT OR IGNORE INTO runs (id, program, started_at) VALUES (?1, ?2, ?3)",
            params![self.known.run, self.options.program, now_ms()],
        )?;
        self.file = database.file;
        self.files += 1;
        self.database = Some(database);
        Ok(())
    }

    /// Keeps the file within its bounds, a little at a time.
    fn prune(&mut self) {
        let Some(database) = &mut self.database else { return };
        let age = i64::try_from(self.options.age.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_ms().saturating_sub(age);
        for _ in 0..PRUNES {
            match database.prune(self.options.size, oldest) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if is_damage(&error) => {
                    self.found_damaged(&error.to_string());
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "old rows of the journal were left where they are");
                    break;
                }
            }
        }
        if self.database.as_mut().is_some_and(|database| std::mem::take(&mut database.swept)) {
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
