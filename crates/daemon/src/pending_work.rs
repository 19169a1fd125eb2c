//! The work on a torrent that is listed before it is one: its files are hashed, or its metadata is fetched.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::DaemonError;
use piecework_api::Added;

/// One attempt. The task that works and those who wait for it share it.
#[derive(Debug, Default)]
pub(super) struct PendingWork {
    cancel: AtomicBool,
    cancelled: Notify,
    /// Its turn has come.
    begun: AtomicBool,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    pieces: AtomicU32,
    waiting: Mutex<Vec<oneshot::Sender<AddOutcome>>>,
}

/// How an attempt ends.
pub(super) type AddOutcome = Result<Added, DaemonError>;

impl PendingWork {
    /// Records that its turn has come.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Returns whether its turn has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns how many bytes are done, and of how many.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.bytes_done.load(Ordering::Relaxed), self.bytes_total.load(Ordering::Relaxed))
    }

    /// Returns the number of pieces, as far as it is known.
    pub(crate) fn pieces(&self) -> u32 {
        self.pieces.load(Ordering::Relaxed)
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
    pub(crate) fn wait(&self) -> oneshot::Receiver<AddOutcome> {
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
    pub(crate) fn tell(&self, outcome: &AddOutcome) {
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
