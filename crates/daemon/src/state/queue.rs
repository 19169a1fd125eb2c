//! The queue of changes to write, and the thread that writes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::database::Database;
use super::error::StateError;
use super::model::{Counters, Saved, Update};
use super::rows;
use piecework_core::{Checkpoint, InfoHash};
use piecework_database::{Backlog, Due, Retry, WriteQueue};

/// The queue, shared by callers and the writer thread.
pub(super) struct Queue(WriteQueue<QueueState>);

/// A job that somebody waits for.
pub(super) enum Job {
    Put(Vec<Saved>),
    Remove(InfoHash),
    Update(InfoHash, Box<Update>),
    Settings(String),
    Flush,
    Close,
}

pub(super) type Reply = oneshot::Sender<Result<(), StateError>>;

struct QueueState {
    jobs: Vec<(Job, Reply)>,
    /// Changes that nobody waits for: the latest of each torrent. An entry is removed when it was
    /// written or a later job makes it void, not when the thread takes it, so nothing has to be put
    /// back if a write fails.
    waiting: BTreeMap<InfoHash, Waiting>,
    /// What the program uses although it is in no file yet. It is written before anything else,
    /// unless the file has it.
    first: Arc<First>,
    /// When `waiting` and `first` have to be written, or a failed write retried, at the latest.
    due: Option<Instant>,
    /// Number of changes of `waiting` so far.
    changes: u64,
    retry: Retry<StateError>,
}

/// What could not be written when the file was opened.
#[derive(Default)]
struct First {
    torrents: Vec<Saved>,
    settings: Option<String>,
}

#[derive(Clone, Default)]
struct Waiting {
    checkpoint: Option<Arc<Checkpoint>>,
    counters: Option<Counters>,
    /// The number of its last change.
    change: u64,
}

/// What the thread writes at a time.
pub(super) struct Batch {
    jobs: Vec<(Job, Reply)>,
    waiting: BTreeMap<InfoHash, Waiting>,
    first: Arc<First>,
}

impl Queue {
    /// Returns an empty queue; `error` is why the file could not be opened.
    pub(super) fn new(error: Option<&StateError>) -> Self {
        let mut retry = Retry::new(RETRY, RETRY);
        if let Some(error) = error {
            retry.fail(error.clone(), Instant::now());
        }
        Self(WriteQueue::new(QueueState {
            jobs: Vec::new(),
            waiting: BTreeMap::new(),
            first: Arc::default(),
            due: retry.at(),
            changes: 0,
            retry,
        }))
    }

    /// Queues torrents and settings that are written before anything else, unless the file has
    /// them.
    pub(super) fn put_first(&self, torrents: Vec<Saved>, settings: Option<String>) {
        let mut state = self.0.lock();
        let before = std::mem::take(&mut state.first);
        let (mut all, kept) = match Arc::try_unwrap(before) {
            Ok(First { torrents, settings }) => (torrents, settings),
            Err(shared) => (shared.torrents.clone(), shared.settings.clone()),
        };
        all.extend(torrents);
        state.first = Arc::new(First { torrents: all, settings: settings.or(kept) });
        state.due.get_or_insert_with(|| Instant::now() + GATHER);
        self.0.wake();
    }

    /// Queues a job, or answers it at once if it cannot be done.
    pub(super) fn push(&self, job: Job, reply: Reply) {
        let mut state = self.0.lock();
        let taken = if state.is_closed() {
            Err(StateError::Closed)
        } else if state.jobs.len() >= JOBS {
            Err(StateError::Busy { waiting: state.jobs.len() })
        } else {
            job.check()
        };
        if let Err(error) = taken {
            // Whoever asked may have left.
            let _ = reply.send(Err(error));
            return;
        }
        state.make_void(&job);
        if matches!(job, Job::Close) {
            state.set_closed();
        }
        state.jobs.push((job, reply));
        self.0.wake();
    }

    /// Queues a checkpoint.
    pub(super) fn checkpoint(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        let checkpoint = Arc::new(checkpoint);
        self.wait(info_hash, |waiting| waiting.checkpoint = Some(checkpoint));
    }

    /// Queues counters.
    pub(super) fn count(&self, info_hash: InfoHash, counters: Counters) {
        self.wait(info_hash, |waiting| waiting.counters = Some(counters));
    }

    /// Makes the thread end once everything is written. Returns whether it was to end already.
    pub(super) fn end(&self) -> bool {
        self.0.close()
    }

    /// Returns why the last write failed.
    pub(super) fn last_error(&self) -> Option<String> {
        self.0.lock().retry.error().map(ToString::to_string)
    }

    /// Returns the number of torrents with waiting changes, and when they are due.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.0.lock();
        (state.waiting.len(), state.due)
    }

    /// Takes everything, due or not.
    #[cfg(test)]
    pub(super) fn take_now(&self) -> Batch {
        self.0.lock().take()
    }

    /// Waits until something has to be written, and takes it.
    #[cfg(test)]
    pub(super) fn take(&self) -> Batch {
        self.0.next().0
    }

    /// Runs the writer thread.
    pub(super) fn run(&self, mut database: Database) {
        let mut closers = Vec::new();
        let write = |database: &mut Database, batch, _| closers = self.turn(database, batch);
        let ending = self.0.run(&mut database, write, |_| {});
        if let Err(error) = database.tidy() {
            tracing::warn!(%error, "could not remove the write-ahead log of the state");
        }
        // Whoever closed it may open it again at once.
        drop(database);
        drop(ending);
        for (reply, outcome) in closers {
            // Whoever asked may have left.
            let _ = reply.send(outcome);
        }
    }

    /// Writes a batch and answers those who asked. Those who wait for the end are returned with
    /// their answers.
    pub(super) fn turn(
        &self,
        database: &mut Database,
        batch: Batch,
    ) -> Vec<(Reply, Result<(), StateError>)> {
        let Batch { jobs, waiting, first } = batch;
        let closing = jobs.iter().any(|(job, _)| matches!(job, Job::Close));
        let written = database.write(|transaction| {
            let mut unknown = Vec::new();
            first.write(transaction)?;
            for (at, (job, _)) in jobs.iter().enumerate() {
                if !job.write(transaction)? {
                    unknown.push(at);
                }
            }
            for (info_hash, waiting) in &waiting {
                waiting.write(transaction, *info_hash)?;
            }
            if closing {
                rows::mark_clean(transaction, true)?;
            }
            Ok(unknown)
        });
        self.0.lock().settle(&waiting, &first, written.as_ref().err());
        let mut closers = Vec::new();
        for (at, (job, reply)) in jobs.into_iter().enumerate() {
            let outcome = match (&written, &job) {
                (Err(error), _) => Err(error.clone()),
                (Ok(unknown), Job::Update(info_hash, _)) if unknown.binary_search(&at).is_ok() => {
                    Err(StateError::Unknown { info_hash: *info_hash })
                }
                (Ok(_), _) => Ok(()),
            };
            if matches!(job, Job::Close) {
                closers.push((reply, outcome));
            } else {
                // Whoever asked may have left.
                let _ = reply.send(outcome);
            }
        }
        closers
    }

    fn wait(&self, info_hash: InfoHash, change: impl FnOnce(&mut Waiting)) {
        let mut state = self.0.lock();
        if state.is_closed() {
            return;
        }
        state.changes += 1;
        let number = state.changes;
        let waiting = state.waiting.entry(info_hash).or_default();
        change(waiting);
        waiting.change = number;
        if state.due.is_none() {
            state.due = Some(Instant::now() + GATHER);
            self.0.wake();
        }
    }
}

impl QueueState {
    /// Drops waiting changes that `job` makes void, since waiting changes are written after the
    /// jobs.
    fn make_void(&mut self, job: &Job) {
        match job {
            Job::Put(torrents) => {
                for saved in torrents {
                    self.waiting.remove(&saved.info_hash);
                }
            }
            Job::Remove(info_hash) => {
                self.waiting.remove(info_hash);
            }
            Job::Update(info_hash, update) if update.counters.is_some() => {
                if let Some(waiting) = self.waiting.get_mut(info_hash) {
                    waiting.counters = None;
                }
            }
            Job::Update(..) | Job::Settings(_) | Job::Flush | Job::Close => {}
        }
    }

    /// Records how writing `written` went.
    fn settle(
        &mut self,
        written: &BTreeMap<InfoHash, Waiting>,
        first: &Arc<First>,
        error: Option<&StateError>,
    ) {
        if let Some(error) = error {
            if self.retry.fail(error.clone(), Instant::now()) {
                tracing::error!("{error}");
            }
            // Even if nothing waits, since the error is reported until a write succeeds.
            self.due = self.retry.at();
            return;
        }
        self.retry.succeed();
        if Arc::ptr_eq(first, &self.first) {
            self.first = Arc::default();
        }
        self.waiting.retain(|info_hash, waiting| {
            written.get(info_hash).is_none_or(|written| written.change != waiting.change)
        });
        let left = !self.waiting.is_empty() || !self.first.is_empty();
        self.due = left.then(|| Instant::now() + GATHER);
    }
}

impl Backlog for QueueState {
    type Batch = Batch;
    type Rest = Vec<(Job, Reply)>;

    fn due(&self) -> Due {
        match self.due {
            _ if !self.jobs.is_empty() => Due::Now,
            Some(due) => Due::At(due),
            None => Due::Never,
        }
    }

    fn take(&mut self) -> Batch {
        Batch {
            jobs: std::mem::take(&mut self.jobs),
            waiting: self.waiting.clone(),
            first: Arc::clone(&self.first),
        }
    }

    /// Dropping the replies answers those who wait.
    fn abandon(&mut self) -> Vec<(Job, Reply)> {
        self.waiting.clear();
        std::mem::take(&mut self.jobs)
    }
}

impl First {
    fn is_empty(&self) -> bool {
        self.torrents.is_empty() && self.settings.is_none()
    }

    fn write(&self, transaction: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
        for saved in &self.torrents {
            rows::put_missing(transaction, saved)?;
        }
        match &self.settings {
            Some(settings) => rows::put_missing_settings(transaction, settings),
            None => Ok(()),
        }
    }
}

impl Job {
    /// Refuses texts that are unreasonably long.
    fn check(&self) -> Result<(), StateError> {
        let check = |what, len| match len {
            len if len > LONGEST => Err(StateError::TooLong { what, len, limit: LONGEST }),
            _ => Ok(()),
        };
        match self {
            Self::Put(torrents) => torrents.iter().try_for_each(|saved| {
                check("a file's name", saved.file.len())?;
                check("a folder's path", saved.root.as_os_str().len())?;
                check("a torrent's settings", saved.settings.len())
            }),
            Self::Update(_, update) => {
                check("a folder's path", update.root.as_ref().map_or(0, |r| r.as_os_str().len()))?;
                check("a torrent's settings", update.settings.as_ref().map_or(0, String::len))
            }
            Self::Settings(settings) => check("the program's settings", settings.len()),
            Self::Remove(_) | Self::Flush | Self::Close => Ok(()),
        }
    }

    /// Returns whether the torrent was there.
    fn write(&self, transaction: &rusqlite::Transaction<'_>) -> rusqlite::Result<bool> {
        match self {
            Self::Put(torrents) => {
                torrents.iter().try_for_each(|saved| rows::put(transaction, saved))?;
            }
            Self::Remove(info_hash) => rows::remove(transaction, *info_hash)?,
            Self::Update(info_hash, update) => {
                return rows::update(transaction, *info_hash, update);
            }
            Self::Settings(settings) => rows::put_settings(transaction, settings)?,
            Self::Flush | Self::Close => {}
        }
        Ok(true)
    }
}

impl Waiting {
    fn write(
        &self,
        transaction: &rusqlite::Transaction<'_>,
        info_hash: InfoHash,
    ) -> rusqlite::Result<()> {
        if let Some(checkpoint) = &self.checkpoint {
            rows::put_checkpoint(transaction, info_hash, checkpoint)?;
        }
        if self.counters.is_some() {
            let update = Update { counters: self.counters, ..Update::default() };
            // A torrent that was removed meanwhile needs no checkpoint.
            rows::update(transaction, info_hash, &update)?;
        }
        Ok(())
    }
}

/// Maximum number of jobs that wait: each torrent of a very large collection may have several. Only a disk
/// that hangs lets as many gather.
const JOBS: usize = 65_536;

/// How long changes that nobody waits for gather into one transaction: two syncs a second, however many
/// torrents there are.
const GATHER: Duration = Duration::from_millis(500);

/// Time after which a failed write is retried if no job comes sooner.
const RETRY: Duration = Duration::from_secs(5);

/// Maximum length of a text or path in bytes: 16 MiB, far more than any settings take.
const LONGEST: usize = 16 << 20;
