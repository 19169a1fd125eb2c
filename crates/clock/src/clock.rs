//! Moments, timers, and the time of day of a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use piecework_core::Moment;

use super::wall_clock::WallClock;

/// A source of [`Moment`]s. Cheap to clone; all clones have the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: ClockSource,
    /// The time that is added to the source's.
    ahead: Duration,
    wall: Arc<WallClock>,
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
        Self::new(ClockSource::System(Instant::now()), Duration::ZERO)
    }

    /// Returns a clock that stands still at [`Moment::START`] until [`Clock::advance`] moves it. For tests and
    /// simulations.
    pub fn manual() -> Self {
        Self::new(ClockSource::Manual(Arc::default()), Duration::ZERO)
    }

    /// Returns a clock that is ahead of this one by `time`. A driver that has to name moments before its start needs
    /// a clock that does not begin at [`Moment::START`].
    #[must_use]
    pub fn ahead_by(&self, time: Duration) -> Self {
        Self::new(self.source.clone(), self.ahead + time)
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
        Moment::from_start(self.source.time() + self.ahead)
    }

    /// Returns the instant of `moment`, for timers. With a manual clock the timer ends as if the clock ran from now on.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        let since_start = moment.since_start().saturating_sub(self.ahead);
        match &self.source {
            ClockSource::System(start) => tokio::time::Instant::from_std(*start + since_start),
            ClockSource::Manual(_) => {
                tokio::time::Instant::now() + since_start.saturating_sub(self.source.time())
            }
        }
    }

    /// Returns the time of day of `moment` in seconds since 1970.
    pub fn unix_time(&self, moment: Moment) -> i64 {
        self.unix_ms(moment) / 1_000
    }

    /// Returns the time of day of `moment` in milliseconds since 1970.
    pub fn unix_ms(&self, moment: Moment) -> i64 {
        match &self.source {
            ClockSource::System(_) => self.wall.unix_ms(moment, self.now()),
            // It stands still while the time of day goes on, which is no reason to adjust anything.
            ClockSource::Manual(_) => self.wall.unadjusted_unix_ms(moment),
        }
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

impl Clock {
    fn new(source: ClockSource, ahead: Duration) -> Self {
        let wall = WallClock::new(Moment::from_start(source.time() + ahead));
        Self { source, ahead, wall: Arc::new(wall) }
    }
}

impl ClockSource {
    /// Returns the time since the clock was made.
    fn time(&self) -> Duration {
        match self {
            Self::System(start) => start.elapsed(),
            Self::Manual(manual) => Duration::from_nanos(manual.nanos.load(Ordering::SeqCst)),
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
        let later = ahead.now() + Duration::from_secs(7);
        assert_eq!(ahead.unix_time(later) - ahead.unix_time(ahead.now()), 7);
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
