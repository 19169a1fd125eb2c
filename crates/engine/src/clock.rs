//! The clock of a session: moments, timers, and the time of day of a moment.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime};

use piecework_core::Moment;

/// Counts moments from the start of a session.
pub(super) struct Clock {
    start: Instant,
    wall: WallClock,
}

impl Clock {
    /// Returns a clock whose moments begin now.
    pub fn new() -> Self {
        Self { start: Instant::now(), wall: WallClock::new() }
    }

    /// Returns the current moment.
    pub fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    /// Returns the instant of `moment`, for timers.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + moment.since_start())
    }

    /// Returns the time of day of `moment` in seconds since 1970.
    pub fn unix_time(&self, moment: Moment) -> i64 {
        self.unix_ms(moment) / 1_000
    }

    /// Returns the time of day of `moment` in milliseconds since 1970.
    pub fn unix_ms(&self, moment: Moment) -> i64 {
        self.wall.unix_ms(moment, self.now())
    }
}

/// Turns moments into times of day. Moments stand still while the machine is suspended, and the time
/// of day may be set: so when moments began is reckoned anew whenever the two no longer agree.
struct WallClock {
    /// Milliseconds since 1970 at [`Moment::START`], as if no time had been slept through or set.
    start: AtomicI64,
}

impl WallClock {
    /// One whose moments begin now.
    fn new() -> Self {
        Self { start: AtomicI64::new(now_unix_ms()) }
    }

    /// Milliseconds since 1970 at `moment`, told `now`. What was before a suspend is shifted by it
    /// if it is only asked for afterwards.
    fn unix_ms(&self, moment: Moment, now: Moment) -> i64 {
        self.unix_ms_at(moment, now, now_unix_ms())
    }

    /// The same at a time of day of `now_unix_ms`.
    fn unix_ms_at(&self, moment: Moment, now: Moment, now_unix_ms: i64) -> i64 {
        let begun = now_unix_ms.saturating_sub(ms(now));
        let mut start = self.start.load(Ordering::Relaxed);
        // Not each time: a moment is to have one time of day, whenever it is asked for.
        if begun.abs_diff(start) > TOLERANCE_MS {
            self.start.store(begun, Ordering::Relaxed);
            start = begun;
        }
        start.saturating_add(ms(moment))
    }
}

fn ms(moment: Moment) -> i64 {
    i64::try_from(moment.since_start().as_millis()).unwrap_or(i64::MAX)
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clocks are read one after the other, between which a thread may have to wait.
const TOLERANCE_MS: u64 = 250;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_of_day_are_right_after_a_suspend_and_after_the_clock_was_set() {
        let clock = WallClock { start: AtomicI64::new(1_000_000) };
        let at = |seconds| Moment::from_start(Duration::from_secs(seconds));
        assert_eq!(clock.unix_ms_at(at(10), at(11), 1_011_000), 1_010_000);
        // A little more or less is the reading of the clocks, and nobody's time changes.
        assert_eq!(clock.unix_ms_at(at(10), at(12), 1_012_200), 1_010_000);
        // Suspended for an hour, in which no moment passed.
        assert_eq!(clock.unix_ms_at(at(13), at(14), 1_014_000 + 3_600_000), 1_013_000 + 3_600_000);
        assert_eq!(clock.unix_ms_at(at(15), at(15), 1_015_100 + 3_600_000), 1_015_000 + 3_600_000);
        // Set back by two.
        assert_eq!(clock.unix_ms_at(at(16), at(16), 1_016_000 - 3_600_000), 1_016_000 - 3_600_000);
    }
}
