//! A monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use piecework_core::Moment;

/// A source of [`Moment`]s. Cheap to clone; all clones have the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: ClockSource,
    /// The time that is added to the source's.
    ahead: Duration,
}

#[derive(Clone, Debug)]
enum ClockSource {
    System(Instant),
    Manual(Arc<ManualClock>),
}

#[derive(Debug, Default)]
struct ManualClock {
    nanos: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// Returns a clock that follows the system's monotonic clock. It begins at [`Moment::START`].
    pub fn system() -> Self {
        Self { source: ClockSource::System(Instant::now()), ahead: Duration::ZERO }
    }

    /// Returns a clock that stands still at [`Moment::START`] until [`Clock::advance`] moves it. For tests and
    /// simulations.
    pub fn manual() -> Self {
        Self { source: ClockSource::Manual(Arc::default()), ahead: Duration::ZERO }
    }

    /// Returns a clock that is ahead of this one by `time`. A driver that has to name moments before its start needs
    /// a clock that does not begin at [`Moment::START`].
    #[must_use]
    pub fn ahead_by(&self, time: Duration) -> Self {
        Self { source: self.source.clone(), ahead: self.ahead + time }
    }

    /// Moves a manual clock. Does nothing to a system clock.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Manual(manual) = &self.source {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.nanos.fetch_add(nanos, Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// Returns the present moment.
    pub fn now(&self) -> Moment {
        let time = match &self.source {
            ClockSource::System(start) => start.elapsed(),
            ClockSource::Manual(manual) => {
                Duration::from_nanos(manual.nanos.load(Ordering::SeqCst))
            }
        };
        Moment::from_start(time + self.ahead)
    }

    /// Waits until `time` has passed, or until a manual clock is moved. With a manual clock it waits for at most
    /// `time` of the system's, so that it does not miss a move that comes before the wait.
    pub async fn tick(&self, time: Duration) {
        match &self.source {
            ClockSource::System(_) => tokio::time::sleep(time).await,
            // The caller looks at the clock again, whether it was moved or the time is over.
            ClockSource::Manual(manual) => {
                drop(tokio::time::timeout(time, manual.moved.notified()).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_have_the_same_time_and_may_be_ahead() {
        let clock = Clock::manual();
        let ahead = clock.ahead_by(Duration::from_secs(60)).ahead_by(Duration::from_secs(1));
        assert_eq!(clock.now(), Moment::START);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), Moment::from_secs(5));
        assert_eq!(ahead.now(), Moment::from_secs(66));
        let system = Clock::system();
        system.advance(Duration::from_secs(3600));
        assert!(system.now() < Moment::from_secs(3600));
    }

    #[tokio::test]
    async fn a_move_ends_a_wait() {
        let clock = Clock::manual();
        let mover = clock.clone();
        let waiting = clock.tick(Duration::from_secs(3600));
        tokio::join!(waiting, async move { mover.advance(Duration::from_secs(1)) });
        assert_eq!(clock.now(), Moment::from_secs(1));
    }
}
