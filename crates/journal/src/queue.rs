//! The queue of records to write, and the thread that writes them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::error::JournalError;
use super::losses::{DISK, Losses, QUEUE, RATE};
use super::record::Record;
use super::run::OwnRun;
use super::writer::{WriteError, Writer};
use piecework_core::InfoHash;
use piecework_database::{Backlog, Due, Retry, WriteQueue, is_busy};

/// Records on their way to the file.
pub(super) struct Queue(WriteQueue<QueueState>);

struct QueueState {
    waiting: VecDeque<Record>,
    /// Records that are being written while writing fails, by torrent.
    under_way: BTreeMap<InfoHash, u64>,
    /// Bytes of all unsettled records: those that wait, and those being written.
    bytes: usize,
    /// When the waiting records have to be written.
    due: Option<Instant>,
    /// The number of records taken in, and how many of them were written or lost.
    taken: u64,
    settled: u64,
    /// A caller waits for the records to be written.
    hurry: bool,
    /// A reader found the file damaged; how.
    damage: Option<String>,
    retry: Retry<JournalError>,
    /// The current failure has been logged as losing records.
    told_losses: bool,
    /// The number of files written before the current one.
    file: u64,
    /// The run of this program in the file; `None` while no file could be opened.
    run: Option<OwnRun>,
    /// Dropped, and not written to the file yet.
    lost: Losses,
    dropped: u64,
    /// Those of `dropped` that should have been written.
    missing: u64,
    /// Written and committed.
    kept: u64,
}

/// The records of one torrent that are not in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MissingRecords {
    /// Records that wait because the file cannot be written.
    pub waiting: u64,
    /// Lost records that the file does not mention yet.
    pub lost: u64,
}

/// What the thread writes at once.
struct Batch {
    records: VecDeque<Record>,
    lost: Losses,
    /// How the file is damaged, if somebody found that it is.
    damage: Option<String>,
}

impl Queue {
    /// Creates a queue whose file was opened in a run of this program, or could not be opened.
    pub(crate) fn new(opened: Result<OwnRun, JournalError>) -> Self {
        let mut inner = QueueState {
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            bytes: 0,
            due: None,
            taken: 0,
            settled: 0,
            hurry: false,
            damage: None,
            retry: Retry::new(FIRST_PAUSE, LONGEST_PAUSE),
            told_losses: false,
            file: 0,
            run: None,
            lost: Losses::default(),
            dropped: 0,
            missing: 0,
            kept: 0,
        };
        match opened {
            Ok(run) => inner.run = Some(run),
            Err(error) => inner.fail(error),
        }
        Self(WriteQueue::new(inner))
    }

    /// Queues a record. The oldest are dropped to make room.
    pub(crate) fn push(&self, record: Record) {
        let mut inner = self.0.lock();
        if inner.has_ended() {
            inner.dropped += 1;
            inner.missing += 1;
            return;
        }
        inner.bytes += record.size();
        // Dropped outside of the lock: this may free large values.
        let oldest = if inner.bytes > MOST { inner.make_room() } else { Vec::new() };
        inner.waiting.push_back(record);
        inner.taken += 1;
        let first = inner.due.is_none();
        if first {
            inner.due = Some(Instant::now() + GATHER);
        }
        let many = inner.retry.error().is_none() && inner.waiting.len() == MANY;
        let wake = (first && inner.is_idle()) || many;
        drop(inner);
        drop(oldest);
        if wake {
            self.0.wake();
        }
    }

    /// Counts records that were not offered because there were too many.
    pub(crate) fn skipped(&self, count: u64) {
        if count == 0 {
            return;
        }
        let mut inner = self.0.lock();
        inner.lost.add(RATE, None, count);
        inner.dropped += count;
        if inner.due.is_none() {
            inner.due = Some(Instant::now() + GATHER);
            self.0.wake();
        }
    }

    /// Waits until everything queued before is written, unless the file cannot be written.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.0.lock();
        let goal = inner.taken;
        while inner.settled < goal && !inner.has_ended() && inner.retry.error().is_none() {
            inner.hurry = true;
            self.0.wake();
            if !self.0.wait_written(&mut inner, deadline) {
                return;
            }
        }
    }

    /// Reports that a reader found the file with number `file` damaged. Waits until it is set aside
    /// and a new one is created.
    pub(crate) fn damaged(&self, file: u64, found: &JournalError) {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.0.lock();
        if inner.file != file || inner.has_ended() || inner.retry.error().is_some() {
            return;
        }
        inner.damage.get_or_insert_with(|| match found {
            JournalError::Damaged { source, .. } => source.to_string(),
            other => other.to_string(),
        });
        self.0.wake();
        while inner.damage.is_some() && !inner.has_ended() {
            if !self.0.wait_written(&mut inner, deadline) {
                return;
            }
        }
    }

    /// Returns the number of the current file: 0 for the one that was opened first.
    pub(crate) fn file(&self) -> u64 {
        self.0.lock().file
    }

    /// Returns this program's run in the file; `None` while no file could be opened.
    pub(crate) fn own_run(&self) -> Option<OwnRun> {
        self.0.lock().run
    }

    /// Makes the thread end once everything is written.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Returns the number of written records.
    pub(crate) fn kept(&self) -> u64 {
        self.0.lock().kept
    }

    /// Returns the number of lost records that should have been written.
    pub(crate) fn missing(&self) -> u64 {
        self.0.lock().missing
    }

    /// Returns why the file cannot be written, and how many records wait for that.
    pub(crate) fn trouble(&self) -> Option<(JournalError, u64)> {
        let inner = self.0.lock();
        let error = inner.retry.error()?.clone();
        Some((error, inner.taken - inner.settled))
    }

    /// Returns how many records of a torrent are not in the file.
    pub(crate) fn unwritten(&self, info_hash: InfoHash) -> MissingRecords {
        let inner = self.0.lock();
        let lost = inner.lost.of(info_hash);
        if inner.retry.error().is_none() {
            return MissingRecords { waiting: 0, lost };
        }
        let is_of =
            |record: &&Record| record.torrent().is_some_and(|it| it.info_hash() == info_hash);
        let under_way = inner.under_way.get(&info_hash).copied().unwrap_or(0);
        let waiting = inner.waiting.iter().filter(is_of).count() as u64;
        MissingRecords { waiting: waiting + under_way, lost }
    }

    /// The body of the thread.
    pub(crate) fn run(&self, mut writer: Writer) {
        let write = |writer: &mut Writer, batch, is_last| self.write(writer, batch, is_last);
        // Old rows are also removed at the start: a run may be shorter than the interval.
        let ending = self.0.run(&mut writer, write, Writer::prune_if_due);
        writer.end();
        drop(writer);
        drop(ending);
    }

    fn write(&self, writer: &mut Writer, mut batch: Batch, is_last: bool) {
        if let Some(why) = &batch.damage {
            writer.found_damaged(why);
        }
        let written = loop {
            match writer.write(batch.records.make_contiguous(), &batch.lost) {
                // Another program writes.
                Err(WriteError::Sqlite(error)) if is_busy(&error) && !self.0.lock().is_closed() => {
                }
                written => break written,
            }
        };
        self.settle(batch, written.map_err(|error| writer.error(error)), writer, is_last);
    }

    /// Records the result of writing a batch. Records that could not be written are kept, unless
    /// there will be no other attempt.
    fn settle(
        &self,
        batch: Batch,
        written: Result<(), JournalError>,
        writer: &Writer,
        is_last: bool,
    ) {
        let Batch { mut records, lost, damage } = batch;
        let mut inner = self.0.lock();
        inner.file = writer.files();
        inner.run = writer.own_run().or(inner.run);
        if damage.is_some() {
            inner.damage = None;
        }
        let count = records.len() as u64;
        inner.under_way.clear();
        match written {
            Ok(()) => {
                inner.lost.subtract(&lost);
                inner.settled += count;
                inner.kept += count;
                inner.bytes -= records.iter().map(Record::size).sum::<usize>();
                inner.told_losses = false;
                if inner.retry.succeed() {
                    tracing::info!("the journal `{}` is written again", writer.shown());
                }
            }
            Err(error) => {
                records.append(&mut inner.waiting);
                inner.waiting = std::mem::take(&mut records);
                inner.fail(error);
                if is_last {
                    let left = std::mem::take(&mut inner.waiting);
                    for record in &left {
                        inner.lose(record);
                    }
                    records = left;
                    tracing::error!(
                        "`{}` records were lost because the journal `{}` could not be written",
                        inner.missing,
                        writer.shown()
                    );
                }
            }
        }
        drop(inner);
        // Dropped outside of the lock: this may free large values.
        drop(records);
    }
}

impl QueueState {
    /// Drops the oldest records until the others are within the bound.
    fn make_room(&mut self) -> Vec<Record> {
        let mut oldest = Vec::new();
        while self.bytes > MOST
            && let Some(record) = self.waiting.pop_front()
        {
            self.lose(&record);
            oldest.push(record);
        }
        if let Some(error) = self.retry.error()
            && !std::mem::replace(&mut self.told_losses, true)
        {
            tracing::error!("{error}, and the queue is full: the oldest records are lost");
        }
        oldest
    }

    /// Counts a record that was queued and will not be written.
    fn lose(&mut self, record: &Record) {
        let why = if self.retry.error().is_some() { DISK } else { QUEUE };
        self.lost.add(why, record.torrent(), 1);
        self.bytes -= record.size();
        self.settled += 1;
        self.dropped += 1;
        self.missing += 1;
    }

    /// Records that writing failed, and when to try again.
    fn fail(&mut self, error: JournalError) {
        let is_new = self.retry.fail(error, Instant::now());
        if let Some(error) = self.retry.error().filter(|_| is_new) {
            tracing::warn!("{error}; new records wait in memory");
        }
        self.due = self.retry.at();
        self.hurry = false;
    }
}

impl Backlog for QueueState {
    type Batch = Batch;
    type Rest = VecDeque<Record>;

    fn due(&self) -> Due {
        let is_eager = self.retry.error().is_none() && (self.waiting.len() >= MANY || self.hurry);
        match self.due {
            _ if is_eager || self.damage.is_some() => Due::Now,
            Some(due) => Due::At(due),
            None => Due::Never,
        }
    }

    fn take(&mut self) -> Batch {
        let mut bytes = 0;
        let within = |record: &&Record| {
            bytes += record.size();
            bytes <= BATCH
        };
        let count = self.waiting.iter().take_while(within).count();
        let records = if count == self.waiting.len() {
            std::mem::take(&mut self.waiting)
        } else {
            self.waiting.drain(..count).collect()
        };
        if self.retry.error().is_some() {
            for torrent in records.iter().filter_map(Record::torrent) {
                *self.under_way.entry(torrent.info_hash()).or_default() += 1;
            }
        }
        self.due = (!self.waiting.is_empty()).then(Instant::now);
        self.hurry = !self.waiting.is_empty() && self.hurry;
        // The damage stays set until the file was set aside: a reader waits for that.
        Batch { records, lost: self.lost.clone(), damage: self.damage.clone() }
    }

    fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn abandon(&mut self) -> VecDeque<Record> {
        let waiting = std::mem::take(&mut self.waiting);
        // Queued too late to be written.
        self.dropped += waiting.len() as u64;
        self.missing += waiting.len() as u64;
        // Dropped by the caller outside of the lock: this may free large values.
        waiting
    }
}

/// The most bytes of records that may wait for the disk. A response takes some 120, so this holds
/// the givers of 100,000 pieces.
pub(super) const MOST: usize = 16 << 20;

/// Bytes per transaction, so that some records always wait and can be dropped.
const BATCH: usize = MOST / 4;

/// The number of records that are written at once: at 10,000 pieces per second they arrive in less
/// than a second.
const MANY: usize = 8_192;

/// How long records are collected for one transaction.
const GATHER: Duration = Duration::from_secs(1);

/// The first pause after a failed attempt. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// An attempt is cheap, and a user who has made room may wait for the result.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How long a reader waits for records that are not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, torrent};
    use super::*;

    #[test]
    fn what_waits_when_the_thread_ends_is_counted() {
        let queue = Queue::new(Ok(OwnRun { id: 1, given: 0, bad: 0 }));
        let torrent = torrent();
        for _ in 0..3 {
            queue.push(sent(&torrent, 0, 1, 1));
        }
        drop(queue.0.ending());
        assert_eq!(queue.dropped(), 3);
        queue.push(sent(&torrent, 0, 1, 1));
        assert_eq!((queue.dropped(), queue.missing()), (4, 4));
    }
}
