//! The time of day of a moment.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use piecework_core::Moment;

/// Converts moments to times of day. Moments stand still while the machine is suspended, and the time of day may be
/// set. So the time of day at [`Moment::START`] is computed again whenever the two clocks no longer agree.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// Milliseconds since 1970 at [`Moment::START`], as if the machine had never been suspended or its clock set.
    start: AtomicI64,
}

impl WallClock {
    /// Returns a wall clock for a clock that shows `now`.
    pub(crate) fn new(now: Moment) -> Self {
        Self { start: AtomicI64::new(now_unix_ms().saturating_sub(ms(now))) }
    }

    /// Returns the milliseconds since 1970 at `moment`, when it is `now`. A moment before a suspend is shifted by it
    /// if it is converted only afterwards.
    pub(crate) fn unix_ms(&self, moment: Moment, now: Moment) -> i64 {
        self.unix_ms_at(moment, now, now_unix_ms())
    }

    /// Returns the milliseconds since 1970 at `moment`, as if the moments and the time of day had never disagreed.
    pub(crate) fn unadjusted_unix_ms(&self, moment: Moment) -> i64 {
        self.start.load(Ordering::Relaxed).saturating_add(ms(moment))
    }

    fn unix_ms_at(&self, moment: Moment, now: Moment, now_unix_ms: i64) -> i64 {
        let begun = now_unix_ms.saturating_sub(ms(now));
        let mut start = self.start.load(Ordering::Relaxed);
        // Not each time, so that a moment always has the same time of day.
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

/// The two clocks are read one after the other, and a thread may have to wait in between.
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
        // A small difference comes from reading the clocks, and no time changes.
        assert_eq!(clock.unix_ms_at(at(10), at(12), 1_012_200), 1_010_000);
        // Suspended for an hour, in which the moments stood still.
        assert_eq!(clock.unix_ms_at(at(13), at(14), 1_014_000 + 3_600_000), 1_013_000 + 3_600_000);
        assert_eq!(clock.unix_ms_at(at(15), at(15), 1_015_100 + 3_600_000), 1_015_000 + 3_600_000);
        // Set back by two hours.
        assert_eq!(clock.unix_ms_at(at(16), at(16), 1_016_000 - 3_600_000), 1_016_000 - 3_600_000);
    }
}
