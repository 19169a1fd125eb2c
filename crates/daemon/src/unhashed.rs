//! A torrent whose files are not hashed yet, and the work of hashing them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::DaemonError;
use piecework_api::{Added, State, Torrent};

/// A torrent whose files are not hashed yet.
pub(super) struct UnhashedTorrent {
    /// The name of the file or folder.
    pub name: String,
    /// The folder it lies in.
    pub root: PathBuf,
    /// Why the last attempt failed.
    pub error: Option<String>,
    pub work: Arc<HashWork>,
}

/// One attempt to hash the files of a torrent. The task that hashes and those who wait for it share it.
#[derive(Debug, Default)]
pub(super) struct HashWork {
    cancel: AtomicBool,
    cancelled: Notify,
    /// Its turn has come.
    begun: AtomicBool,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    pieces: AtomicU32,
    waiting: Mutex<Vec<oneshot::Sender<ShareOutcome>>>,
}

/// How an attempt to share files ends.
pub(super) type ShareOutcome = Result<Added, DaemonError>;

/// A torrent that is listed and being hashed.
#[derive(Debug)]
pub struct PendingSeed {
    /// Its entry in the list. The info-hash is provisional.
    pub listed: Added,
    pub(super) outcome: oneshot::Receiver<ShareOutcome>,
}

impl PendingSeed {
    /// Waits until it is hashed and served.
    ///
    /// # Errors
    /// If it cannot be hashed or is removed, or the daemon ends.
    pub async fn done(self) -> Result<Added, DaemonError> {
        self.outcome.await.unwrap_or(Err(DaemonError::Ending))
    }
}

impl UnhashedTorrent {
    /// Returns a torrent of what is called `name` in the folder `root`.
    pub(crate) fn new(name: String, root: PathBuf) -> Self {
        Self { name, root, error: None, work: Arc::default() }
    }

    /// Returns its state.
    pub(crate) fn doing(&self) -> State {
        match (&self.error, self.work.begun.load(Ordering::Relaxed)) {
            (Some(_), _) => State::Failed,
            (None, true) => State::Hashing,
            (None, false) => State::QueuedHash,
        }
    }

    /// Fills in its progress.
    pub(crate) fn show(&self, torrent: &mut Torrent) {
        let work = &self.work;
        let total = work.bytes_total.load(Ordering::Relaxed);
        (torrent.bytes, torrent.bytes_wanted) = (total, total);
        torrent.pieces = work.pieces.load(Ordering::Relaxed);
        torrent.error.clone_from(&self.error);
        torrent.state = self.doing();
        if torrent.state == State::Hashing {
            torrent.check_progress = fraction(work.bytes_done.load(Ordering::Relaxed), total);
        }
    }
}

impl HashWork {
    /// Records that its turn has come.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Cancels the work.
    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.cancelled.notify_one();
    }

    /// Waits until the work is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Returns a flag that is set when the work is to end.
    pub(crate) fn cancellation(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Records the progress. Returns whether it has advanced enough to be reported, which happens
    /// at most a thousand times.
    pub(crate) fn at(&self, done: u64, total: u64, pieces: u32) -> bool {
        self.bytes_total.store(total, Ordering::Relaxed);
        self.pieces.store(pieces, Ordering::Relaxed);
        let before = self.bytes_done.swap(done, Ordering::Relaxed);
        let parts = |done: u64| u128::from(done) * 1_000 / u128::from(total.max(1));
        done == 0 || parts(before) != parts(done)
    }

    /// Returns where the outcome is told.
    pub(crate) fn wait(&self) -> oneshot::Receiver<ShareOutcome> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|other| !other.is_closed());
        waiting.push(tell);
        told
    }

    /// Returns whether anybody still waits for the outcome.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.lock().iter().any(|waiting| !waiting.is_closed())
    }

    /// Tells everybody who waits how it ended.
    pub(crate) fn tell(&self, outcome: &ShareOutcome) {
        for waiting in self.waiting.lock().drain(..) {
            // Whoever has left need not know.
            let _ = waiting.send(outcome.clone());
        }
    }
}

/// Returns which part of `total` is done, from 0 to 1.
pub(super) fn fraction(done: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { done as f64 / total as f64 }
}
