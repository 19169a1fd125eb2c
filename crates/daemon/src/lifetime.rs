//! Whether the daemon takes requests, shuts down, or has shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::DaemonError;

/// The stages in the life of a daemon.
pub(super) struct Lifetime {
    /// The daemon is shutting down or has shut down.
    stop: watch::Sender<bool>,
    ended: AtomicBool,
    cancel: Arc<AtomicBool>,
}

impl Lifetime {
    pub(crate) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            ended: AtomicBool::new(false),
            cancel: Arc::default(),
        }
    }

    /// Returns an error once the daemon is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), DaemonError> {
        if *self.stop.borrow() { Err(DaemonError::Ending) } else { Ok(()) }
    }

    /// Refuses requests from now on and cancels background work. Returns false if the shutdown had
    /// begun before.
    pub(crate) fn begin_shutdown(&self) -> bool {
        if self.stop.send_replace(true) {
            return false;
        }
        self.cancel.store(true, Ordering::Relaxed);
        true
    }

    /// Waits until the shutdown begins.
    pub(crate) async fn shutdown_begun(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as `self`.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Records that the daemon has shut down, and wakes those who wait for that.
    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.stop.send_replace(true);
    }

    /// The daemon has shut down.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until the daemon has shut down.
    pub(crate) async fn ended(&self) {
        let mut stop = self.stop.subscribe();
        while !self.has_ended() && stop.changed().await.is_ok() {}
    }

    /// Returns a flag that is set when background work, such as hashing, is to end.
    pub(crate) fn cancellation(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }
}
