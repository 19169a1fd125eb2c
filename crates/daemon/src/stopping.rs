//! The end of a daemon, within a bounded time: first what would be lost, then what others wait for.
//!
//! Transfers end and data is flushed; then state and journal are written and closed; only then are
//! trackers told, which takes longest. Whoever is killed meanwhile loses nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::DaemonError;
use super::book::BodyView;
use super::inner::{Inner, blocking};
use crate::state::StateError;

/// By when each part of the end is to be over, whatever hangs.
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
    /// Divides the time until `deadline`. What is left at its end is for a disk that did not answer
    /// before.
    fn new(now: Instant, deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(now);
        let after = |part: f64| now + left.mul_f64(part);
        Self { flushed: after(0.3), kept: after(0.5), told: after(0.9) }
    }
}

impl Inner {
    /// Ends the daemon, at `deadline` at the latest.
    pub async fn shutdown_by(&self, deadline: Instant) {
        if self.stop.send_replace(true) {
            // Another clone is at it, or was.
            let mut stop = self.stop.subscribe();
            while !self.has_ended() && stop.changed().await.is_ok() {}
            return;
        }
        self.cancel.store(true, Ordering::Relaxed);
        if timeout_at(deadline, self.end(Timetable::new(Instant::now(), deadline))).await.is_err() {
            tracing::error!("the disk did not take the last state in time");
        }
        self.set_ended();
    }

    async fn end(&self, times: Timetable) {
        let tasks: Vec<_> = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // Whether it was aborted or had ended is the same.
            let _ = timeout_at(times.flushed, task).await;
        }
        for entry in self.book.lock().torrents.values() {
            if let Some(moving) = &entry.moving {
                moving.task.abort();
            }
            if let BodyView::Making(making) = entry.body.view() {
                making.work.cancel();
            }
        }
        // Written while the torrents stop.
        self.note_all();
        self.persist(true);
        let running = self.session.quiesce(times.flushed).await;
        self.note_all();
        self.persist(false);
        let settled = running == 0;
        let mut writing = self.write_down(settled);
        // A disk that does not answer must not keep trackers waiting.
        let _ = timeout_at(times.kept, writing.done()).await;
        self.session.shutdown_by(times.told).await.log();
        if !settled {
            // What the others held when they stopped, or at least what there was before.
            self.note_all();
            self.persist(false);
            writing = self.write_down(true);
        }
        writing.done().await;
    }

    /// Has the state written, and closed together with the journal if nothing is to come after it.
    fn write_down(&self, is_last: bool) -> Writing {
        let settings = self.settings_text(&self.book.lock());
        let (state, log) = (self.state.clone(), Arc::clone(&self.log));
        let state = tokio::spawn(async move {
            state.set_settings(settings).await?;
            if is_last { state.close().await } else { state.flush().await }
        });
        let log = is_last
            .then(|| tokio::spawn(async move { blocking(move || log.close()).await.map(drop) }));
        Writing { state: Some(state), log }
    }
}

/// State and journal that are being written. It goes on if nobody waits for it.
struct Writing {
    state: Option<JoinHandle<Result<(), StateError>>>,
    log: Option<JoinHandle<Result<(), DaemonError>>>,
}

impl Writing {
    /// Waits until all is written. Cancel-safe.
    async fn done(&mut self) {
        if let Some(state) = &mut self.state {
            let written = state.await;
            self.state = None;
            if let Ok(Err(error)) = written {
                tracing::error!(%error, "the last state could not be written");
            }
        }
        if let Some(log) = &mut self.log {
            // A journal that could not be written has said so.
            let _ = log.await;
            self.log = None;
        }
    }
}

/// Time for the whole end.
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
