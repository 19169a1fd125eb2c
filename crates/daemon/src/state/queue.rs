//! What waits to be written, and the thread that writes it.

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

/// Shared by those who ask and the thread that writes.
pub(super) struct Queue(WriteQueue<QueueState>);

/// What somebody waits for.
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
    /// What nobody waits for: of each torrent the latest. An entry leaves when it has been
    /// written or something that comes after it makes it void, not when the thread takes it: so
    /// nothing need be put back if writing fails.
    waiting: BTreeMap<InfoHash, Waiting>,
    /// What there is in no file yet, though the program goes by it: written before anything else,
    /// where the file has nothing of the kind.
    first: Arc<First>,
    /// When `waiting` and `first` are to be written, or a failure is to be made good, at the latest.
    due: Option<Instant>,
    /// Changes of `waiting` so far.
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

/// What one turn of the thread writes.
pub(super) struct Batch {
    jobs: Vec<(Job, Reply)>,
    waiting: BTreeMap<InfoHash, Waiting>,
    first: Arc<First>,
}

impl Queue {
    /// An empty one; `error` is what went wrong before.
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

    /// Has torrents and settings written before anything else, where there are none.
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

    /// Takes a job in, or answers it at once if it cannot be done.
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
            // Who asked may have left.
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

    /// Has a checkpoint written soon.
    pub(super) fn checkpoint(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        let checkpoint = Arc::new(checkpoint);
        self.wait(info_hash, |waiting| waiting.checkpoint = Some(checkpoint));
    }

    /// Has counters written soon.
    pub(super) fn count(&self, info_hash: InfoHash, counters: Counters) {
        self.wait(info_hash, |waiting| waiting.counters = Some(counters));
    }

    /// Has the thread end once all is written. Returns whether it was to end already.
    pub(super) fn end(&self) -> bool {
        self.0.close()
    }

    /// Why the last attempt to write failed.
    pub(super) fn last_error(&self) -> Option<String> {
        self.0.lock().retry.error().map(ToString::to_string)
    }

    /// Number of torrents of which something waits, and when it is to be written.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.0.lock();
        (state.waiting.len(), state.due)
    }

    /// Takes what there is, due or not.
    #[cfg(test)]
    pub(super) fn take_now(&self) -> Batch {
        self.0.lock().take()
    }

    /// Waits until there is something to write, and takes it.
    #[cfg(test)]
    pub(super) fn take(&self) -> Batch {
        self.0.next().0
    }

    /// Body of the thread.
    pub(super) fn run(&self, mut database: Database) {
        let mut closers = Vec::new();
        let write = |database: &mut Database, batch, _| closers = self.turn(database, batch);
        let ending = self.0.run(&mut database, write, |_| {});
        if let Err(error) = database.tidy() {
            tracing::warn!(%error, "the log of the state was left beside it");
        }
        // Those who closed it may open it again at once.
        drop(database);
        drop(ending);
        for (reply, outcome) in closers {
            // Who asked may have left.
            let _ = reply.send(outcome);
        }
    }

    /// Writes a batch and answers those who asked, but for those who wait for the end: they are
    /// given back with their answers.
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
                // Who asked may have left.
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
    /// Drops what waits and is older than `job`, which says otherwise: what waits is written
    /// after the jobs.
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

    /// Takes note of how writing `written` went.
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
            // Even if nothing waits: people are told until it works again.
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

    /// Dropping their replies answers those who wait.
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
    /// Refuses what is longer than anything sensible.
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

    /// Says whether what it is about was there.
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
            // A torrent that was removed meanwhile needs none.
            rows::update(transaction, info_hash, &update)?;
        }
        Ok(())
    }
}

/// Jobs that may wait: each torrent of a very large collection may have several. Only a disk that
/// hangs lets as many gather.
const JOBS: usize = 65_536;

/// For how long what nobody waits for gathers into one transaction: two syncs a second, however
/// many torrents there are.
const GATHER: Duration = Duration::from_millis(500);

/// How long after a failure it is tried again if nobody asks for anything sooner.
const RETRY: Duration = Duration::from_secs(5);

/// Bytes of the longest text or path taken: 16 MiB, far more than any settings are.
const LONGEST: usize = 16 << 20;
