//! Long work on a thread of its own, while the torrent's task goes on hearing calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::checking::Progress;
use super::torrent::Torrent;
use super::{TorrentError, TorrentState};

/// Progress of a job in the background, and a way to cancel it.
#[derive(Default)]
pub(super) struct BackgroundJob {
    pub done: AtomicU64,
    pub total: AtomicU64,
    pub cancel: AtomicBool,
    /// How far a check has come, to be kept.
    pub progress: Mutex<Option<Box<Progress>>>,
}

impl Torrent {
    /// Does `job` on a thread that may block. Shows its progress and hears calls meanwhile. Cancels
    /// it if the torrent has to stop it or its `owner` is gone. Returns the result and whether it
    /// was cancelled.
    pub(super) async fn in_background<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(Arc<BackgroundJob>) -> T + Send + 'static,
        shown: impl Fn(u64, u64) -> TorrentState,
        owner: Option<&mut oneshot::Sender<Result<(), TorrentError>>>,
    ) -> (Result<T, tokio::task::JoinError>, bool) {
        let background = Arc::new(BackgroundJob::default());
        // However this ends: a runtime that shuts down would wait for the whole job.
        let cancel = CancelOnDrop(Arc::clone(&background));
        let mut working = {
            let background = Arc::clone(&background);
            tokio::task::spawn_blocking(move || job(background))
        };
        let mut tick = tokio::time::interval(TICK);
        let gone = async {
            match owner {
                Some(owner) => owner.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(gone);
        let mut cancelled = false;
        loop {
            tokio::select! {
                done = &mut working => return (done, cancelled),
                () = &mut gone, if !cancelled => {
                    cancelled = true;
                    cancel.now();
                }
                _ = tick.tick() => {
                    let state = shown(
                        background.done.load(Ordering::Relaxed),
                        background.total.load(Ordering::Relaxed),
                    );
                    let mut new = self.entry.shown_of(self.record());
                    new.state = state;
                    self.entry.show(new);
                    let progress = background.progress.lock().take();
                    if let Some(progress) = progress {
                        self.keep_progress(*progress);
                    }
                }
                Some(call) = self.calls.recv() => {
                    self.order(call);
                    if self.is_stopping() && !cancelled {
                        cancelled = true;
                        cancel.now();
                    }
                }
            }
        }
    }
}

/// Cancels a job when nobody waits for it any more.
struct CancelOnDrop(Arc<BackgroundJob>);

impl CancelOnDrop {
    fn now(&self) {
        self.0.cancel.store(true, Ordering::Relaxed);
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.now();
    }
}

const TICK: Duration = Duration::from_millis(100);
