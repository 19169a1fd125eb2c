//! Shutting down within a bounded time.
//!
//! Transfers end and data is flushed. Then state and journal are written and closed. Trackers are told last,
//! since that takes longest. A process that is killed meanwhile loses nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::DaemonError;
use super::background::blocking;
use super::queue_driver::QueueDriver;
use super::settings_store::SettingsStore;
use super::torrents::Torrents;
use crate::state::StateError;
use piecework_engine::Session;
use piecework_journal::PieceLog;

/// Deadlines of the steps, whatever hangs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Timetable {
    /// Data is flushed.
    flushed: Instant,
    /// State and journal are on the disk.
    kept: Instant,
    /// Trackers are told.
    told: Instant,
}

impl Timetable {
    /// Divides the time until `deadline`. What remains at the end is for a disk that did not answer
    /// before.
    fn new(now: Instant, deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(now);
        let after = |part: f64| now + left.mul_f64(part);
        Self { flushed: after(0.3), kept: after(0.5), told: after(0.9) }
    }
}

/// Shuts the daemon down.
pub(super) struct Shutdown {
    pub torrents: Arc<Torrents>,
    pub session: Session,
    pub queue: Arc<QueueDriver>,
    pub store: Arc<SettingsStore>,
    pub log: Arc<PieceLog>,
    /// Tasks that run as long as the daemon does.
    pub tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Shutdown {
    /// Shuts down, by `deadline` at the latest.
    pub(crate) async fn run(&self, deadline: Instant) {
        let lifetime = &self.torrents.lifetime;
        if !lifetime.begin_shutdown() {
            // Another clone of the daemon does it, or did.
            return lifetime.ended().await;
        }
        if timeout_at(deadline, self.end(Timetable::new(Instant::now(), deadline))).await.is_err() {
            tracing::error!("the last state was not written in time");
        }
        lifetime.set_ended();
        self.torrents.events.end();
    }

    async fn end(&self, times: Timetable) {
        let tasks: Vec<_> = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // It does not matter whether it was aborted or had ended.
            let _ = timeout_at(times.flushed, task).await;
        }
        for entry in self.torrents.table().entries.values() {
            if let Some(moving) = &entry.moving {
                moving.task.abort();
            }
            if let Some(work) = entry.body.pending_work() {
                work.cancel();
            }
        }
        // This is written while the torrents stop.
        self.queue.note_all();
        self.queue.persist(true);
        let running = self.session.quiesce(times.flushed).await;
        self.queue.note_all();
        self.queue.persist(false);
        let settled = running == 0;
        let mut writing = self.write_down(settled);
        // A disk that does not answer must not keep trackers waiting.
        let _ = timeout_at(times.kept, writing.done()).await;
        self.session.shutdown_by(times.told).await.log();
        if !settled {
            // Writes what the others held when they stopped, or at least what was known before.
            self.queue.note_all();
            self.queue.persist(false);
            writing = self.write_down(true);
        }
        writing.done().await;
    }

    /// Begins to write the state, and to close it together with the journal if `is_last`.
    fn write_down(&self, is_last: bool) -> Writing {
        let settings = self.store.text(&self.torrents.table());
        let (state, log) = (self.torrents.state.clone(), Arc::clone(&self.log));
        let state = tokio::spawn(async move {
            state.set_settings(settings).await?;
            if is_last { state.close().await } else { state.flush().await }
        });
        let log = is_last
            .then(|| tokio::spawn(async move { blocking(move || log.close()).await.map(drop) }));
        Writing { state: Some(state), log }
    }
}

/// A write of state and journal that is under way. It continues if nobody waits for it.
struct Writing {
    state: Option<JoinHandle<Result<(), StateError>>>,
    log: Option<JoinHandle<Result<(), DaemonError>>>,
}

impl Writing {
    /// Waits until everything is written. Cancel-safe.
    async fn done(&mut self) {
        if let Some(state) = &mut self.state {
            let written = state.await;
            self.state = None;
            if let Ok(Err(error)) = written {
                tracing::error!(%error, "the last state could not be written");
            }
        }
        if let Some(log) = &mut self.log {
            // The journal has logged its errors.
            let _ = log.await;
            self.log = None;
        }
    }
}

/// Time limit of the shutdown.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_time_and_the_last_word_some_more() {
        let now = Instant::now();
        for seconds in [0, 1, 9, 10] {
            let deadline = now + Duration::from_secs(seconds);
            let Timetable { flushed, kept, told } = Timetable::new(now, deadline);
            assert!(now <= flushed && flushed <= kept && kept <= told && told <= deadline);
            assert!(deadline - told >= Duration::from_millis(99) * seconds as u32);
        }
        // One that is over already.
        let late = Timetable::new(now + Duration::from_secs(3), now);
        assert_eq!(late.told, now + Duration::from_secs(3));
    }
}
