//! The state that survives a restart: torrents, settings and checkpoints in one SQLite file, which a thread
//! of its own writes.
//!
//! - Changes by users ([`State::put`], [`State::remove`], [`State::update`], [`State::set_settings`])
//!   return a [`Receipt`], which resolves once they are on the disk. All that wait at one time go into
//!   one transaction, so a thousand changes cost one sync.
//! - Nobody waits for what the program learns ([`State::checkpoint`], [`State::count`]). The latest of
//!   each torrent waits for at most half a second, then all are written together. If the disk is full
//!   they are kept and retried; one that is lost in a power cut costs a check.
//! - A damaged database is set aside, and a new one is created with what could be read. The `.torrent`
//!   files in their folder are what counts: with them torrents are found again, without the state only
//!   their folders and settings are lost.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use database::Database;
use piecework_core::{Checkpoint, InfoHash};
use piecework_database::WriterThread;
use queue::{Job, Queue};

mod database;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod model;
mod packed;
mod queue;
mod rows;

pub use error::StateError;
pub use model::{Counters, Loaded, Saved, Update};

#[cfg(test)]
mod tests;

/// The open file. Clones share it. If the last one is dropped without [`State::close`], all changes that wait
/// are written, and dropping waits for that, but the file is not marked as closed properly. After
/// [`State::close`] dropping waits for nothing.
#[derive(Clone)]
pub struct State {
    writer: Arc<Writer>,
}

/// A change that is made whether or not anybody waits for it. Await it, or [`wait`](Self::wait) for it where
/// blocking is allowed.
#[must_use = "whether it worked is only known when it is awaited"]
#[derive(Debug)]
pub struct Receipt {
    answer: oneshot::Receiver<Result<(), StateError>>,
}

impl State {
    /// Opens or creates the database at `path`, creates its folder if needed, and reads it. Blocks.
    ///
    /// A damaged or empty database is renamed, and a new one is created. Torrents that cannot be
    /// read are left out, and checkpoints that cannot be read are `None`; [`Loaded::notice`] says
    /// so. The file is locked against other programs until this one closes it or ends in any way.
    ///
    /// # Errors
    /// If another program has it open, if a newer version or another program wrote it, or if no
    /// file can be created there. A full disk is no error: the contents are read, and the file is
    /// opened or created when there is room. Until then nothing can be changed; see
    /// [`State::last_error`].
    pub fn open(path: &Path) -> Result<(Self, Loaded), StateError> {
        let (database, loaded) = Database::open(path)?;
        let place = database.path().to_owned();
        let queue = Arc::new(Queue::new(database.unmarked()));
        if database.unmarked().is_some() && loaded.incomplete {
            queue.put_first(loaded.torrents.clone(), loaded.settings.clone());
        }
        let shared = Arc::clone(&queue);
        let thread = WriterThread::spawn("state", "the state", move || shared.run(database))
            .map_err(|error| StateError::new(&place, error))?;
        let writer = Writer { queue, thread };
        Ok((Self { writer: Arc::new(writer) }, loaded))
    }

    /// Adds a torrent, or replaces it together with its waiting checkpoints.
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if it could not be written. Then nothing has changed.
    pub fn put(&self, saved: Saved) -> Receipt {
        self.put_many(vec![saved])
    }

    /// Adds many torrents in one transaction: all or none.
    ///
    /// # Errors
    /// See [`State::put`].
    pub fn put_many(&self, torrents: Vec<Saved>) -> Receipt {
        self.push(Job::Put(torrents))
    }

    /// Adds torrents as soon as there is room, unless there are some with their info-hashes. For
    /// torrents that the program uses although they could not be written when it started.
    pub fn put_later(&self, torrents: Vec<Saved>) {
        self.writer.queue.put_first(torrents, None);
    }

    /// Removes a torrent and all that belongs to it. It is not an error if there is none.
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if it could not be written.
    pub fn remove(&self, info_hash: InfoHash) -> Receipt {
        self.push(Job::Remove(info_hash))
    }

    /// Changes what `update` names.
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if there is no such torrent, or if it could not be written.
    pub fn update(&self, info_hash: InfoHash, update: Update) -> Receipt {
        self.push(Job::Update(info_hash, Box::new(update)))
    }

    /// Writes the settings of the whole program, in a form that only the layer above knows.
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if they could not be written.
    pub fn set_settings(&self, settings: String) -> Receipt {
        self.push(Job::Settings(settings))
    }

    /// Writes a checkpoint soon, in place of earlier ones of the torrent. Never blocks. Has no
    /// effect if the torrent is not there by then, or if the state is closed.
    pub fn checkpoint(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        self.writer.queue.checkpoint(info_hash, checkpoint);
    }

    /// Writes counters soon, like [`State::checkpoint`].
    pub fn count(&self, info_hash: InfoHash, counters: Counters) {
        self.writer.queue.count(info_hash, counters);
    }

    /// Writes everything that waits now.
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if it could not be written. Checkpoints are kept and
    /// retried.
    pub fn flush(&self) -> Receipt {
        self.push(Job::Flush)
    }

    /// Writes what waits, marks the file as closed properly, ends the thread and releases the lock.
    /// Later calls on any clone return [`StateError::Closed`].
    ///
    /// # Errors
    /// The [`Receipt`] returns an error if what waited could not be written. The file is closed
    /// nevertheless.
    pub fn close(&self) -> Receipt {
        self.push(Job::Close)
    }

    /// Returns a sentence about why the last write failed; `None` once one has succeeded again.
    pub fn last_error(&self) -> Option<String> {
        self.writer.queue.last_error()
    }

    fn push(&self, job: Job) -> Receipt {
        let (reply, answer) = oneshot::channel();
        self.writer.queue.push(job, reply);
        Receipt { answer }
    }
}

impl Receipt {
    /// Blocks until the change is on the disk.
    ///
    /// # Errors
    /// As described at the method that returned the receipt.
    ///
    /// # Panics
    /// On a thread that runs async tasks. Await the receipt there.
    pub fn wait(self) -> Result<(), StateError> {
        self.answer.blocking_recv().unwrap_or(Err(StateError::Closed))
    }
}

impl Future for Receipt {
    type Output = Result<(), StateError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(StateError::Closed)))
    }
}

/// The handle of the writer thread. Dropping it ends the thread.
struct Writer {
    queue: Arc<Queue>,
    thread: WriterThread,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever closed it has waited as long as they wanted to: a disk may never answer.
        if self.queue.end() {
            return;
        }
        self.thread.join();
    }
}
