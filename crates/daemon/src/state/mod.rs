//! What survives a restart: torrents, settings, checkpoints, in one SQLite file that is
//! written by a thread of its own.
//!
//! - What people decided ([`State::put`], [`State::remove`], [`State::update`],
//!   [`State::set_settings`]) is answered by a [`Receipt`] once it is on the disk. All that waits
//!   at one time goes into one transaction, so a thousand changes cost one sync.
//! - What the program found out ([`State::checkpoint`], [`State::count`]) is never waited for.
//!   The latest of each torrent waits for at most half a second, then all go together. If the
//!   disk is full they are kept and tried again; one that is lost in a power cut costs a check.
//! - A database that is damaged is set aside, and a new one begun with what could be read. The
//!   `.torrent` files in their folder are the truth about torrents; nothing here is needed to
//!   have them again, only their folders and settings.

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

/// The open file. Clones share it. When the last is dropped without [`State::close`], all that
/// waits is written, but the file is not marked as closed in order; dropping waits for that. After
/// [`State::close`] it waits for nothing.
#[derive(Clone)]
pub struct State {
    writer: Arc<Writer>,
}

/// A change that was handed over, and will be made whether or not anybody waits. Await it, or
/// [`wait`](Self::wait) for it where blocking is allowed.
#[must_use = "whether it worked is only known when it is awaited"]
#[derive(Debug)]
pub struct Receipt {
    answer: oneshot::Receiver<Result<(), StateError>>,
}

impl State {
    /// Opens the database at `path`, or begins one, in a folder that is made if need be, and reads
    /// it. Blocks.
    ///
    /// One that is damaged is renamed and a new one begun, and so is one that is empty; single
    /// torrents that cannot be read are left out, and checkpoints that cannot be read are `None`.
    /// [`Loaded::notice`] says so. The file is locked against other programs until this one
    /// closes it or ends, however it ends.
    ///
    /// # Errors
    /// If another program has it open, it is of a later version or not ours at all, or there can
    /// be no file there. A disk that is full is no reason: what is there is read, and the file is
    /// opened or begun when there is room; until then nothing can be changed. See
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

    /// Adds a torrent, or puts it in the place of all there is of it, waiting checkpoints too.
    ///
    /// # Errors
    /// With the [`Receipt`]: if it could not be written, and so nothing has changed.
    pub fn put(&self, saved: Saved) -> Receipt {
        self.put_many(vec![saved])
    }

    /// The same for many torrents in one transaction: all or none.
    ///
    /// # Errors
    /// See [`State::put`].
    pub fn put_many(&self, torrents: Vec<Saved>) -> Receipt {
        self.push(Job::Put(torrents))
    }

    /// Adds torrents as soon as there is room, where there are none with their info-hashes. Those
    /// that the program goes by although they could not be written when it started.
    pub fn put_later(&self, torrents: Vec<Saved>) {
        self.writer.queue.put_first(torrents, None);
    }

    /// Removes a torrent and all that belongs to it. It is no error if there is none.
    ///
    /// # Errors
    /// With the [`Receipt`]: if it could not be written.
    pub fn remove(&self, info_hash: InfoHash) -> Receipt {
        self.push(Job::Remove(info_hash))
    }

    /// Changes what `update` names.
    ///
    /// # Errors
    /// With the [`Receipt`]: if there is no such torrent, or it could not be written.
    pub fn update(&self, info_hash: InfoHash, update: Update) -> Receipt {
        self.push(Job::Update(info_hash, Box::new(update)))
    }

    /// Keeps the settings of the whole program, in a form that only the layer above knows.
    ///
    /// # Errors
    /// With the [`Receipt`]: if they could not be written.
    pub fn set_settings(&self, settings: String) -> Receipt {
        self.push(Job::Settings(settings))
    }

    /// Has a checkpoint written soon, in the place of earlier ones of the torrent. Never blocks.
    /// Without effect if the torrent is not there by then, or the state is closed.
    pub fn checkpoint(&self, info_hash: InfoHash, checkpoint: Checkpoint) {
        self.writer.queue.checkpoint(info_hash, checkpoint);
    }

    /// Has counters written soon, as [`State::checkpoint`] does.
    pub fn count(&self, info_hash: InfoHash, counters: Counters) {
        self.writer.queue.count(info_hash, counters);
    }

    /// Has all that was given before written now.
    ///
    /// # Errors
    /// With the [`Receipt`]: if it could not be written. Checkpoints are kept and tried again.
    pub fn flush(&self) -> Receipt {
        self.push(Job::Flush)
    }

    /// Writes what waits, marks the file as closed in order, ends the thread and releases the
    /// lock. What is asked of any clone later is answered with [`StateError::Closed`].
    ///
    /// # Errors
    /// With the [`Receipt`]: if what waited could not be written. The file is closed even so.
    pub fn close(&self) -> Receipt {
        self.push(Job::Close)
    }

    /// Why the last attempt to write failed; `None` once one has worked again. For people.
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
    /// As the method says that gave the receipt.
    ///
    /// # Panics
    /// On a thread that runs async tasks: await it there.
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

/// The thread's address; ends it.
struct Writer {
    queue: Arc<Queue>,
    thread: WriterThread,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever closed it has waited for as long as he wanted to: a disk may never answer.
        if self.queue.end() {
            return;
        }
        self.thread.join();
    }
}
