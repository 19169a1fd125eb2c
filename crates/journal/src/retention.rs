//! The age of a journal, independent of jumps of the wall clock.

/// The age of a journal: the time during which it has been written, plus the gaps in between as far
/// as they are plausible.
///
/// A wall clock may jump by years, forward and back, and then looks the same as after a long pause.
/// So only time that passed while the journal was open counts at once. Of the time that the wall
/// clock is ahead, at most a day is counted per hour ([`CATCH_UP`]). It is forgotten when the clock
/// goes back, and never exceeds half of the maximum age of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetentionClock {
    /// The age, plus the wall clock at the creation of the journal; in milliseconds. Never goes
    /// back.
    pub now: i64,
    /// The wall clock at the last reading, in milliseconds since 1970.
    pub wall: i64,
    /// How far the wall clock is ahead of what was counted, in milliseconds; negative if it went
    /// back.
    pub ahead: i64,
}

impl RetentionClock {
    /// Returns the clock of a journal that is created at `wall`.
    pub(crate) fn begin(wall: i64) -> Self {
        Self { now: wall, wall, ahead: 0 }
    }

    /// Counts `elapsed` milliseconds of a monotonic clock; the wall clock is now at `wall`. `age`
    /// is the maximum age of rows in milliseconds.
    pub(crate) fn pass(&mut self, elapsed: i64, wall: i64, age: i64) {
        let elapsed = elapsed.max(0);
        // The clocks are not read while nothing is written. In a virtual machine that was restored,
        // even a monotonic clock may be wrong.
        let counted = elapsed.min(LONGEST);
        let ahead = wall.saturating_sub(self.wall).saturating_sub(counted);
        self.ahead = self.ahead.saturating_add(ahead).min(age / 2);
        let caught_up = self.ahead.clamp(0, counted.saturating_mul(CATCH_UP));
        self.ahead -= caught_up;
        self.now = self.now.saturating_add(counted).saturating_add(caught_up);
        self.wall = wall;
    }

    /// Returns the time between two marks: the age of rows is accurate to one part in 64.
    pub(crate) fn spacing(age: i64) -> i64 {
        (age / 64).max(1)
    }
}

/// The most that counts at once of the time between two readings: an hour, in milliseconds.
const LONGEST: i64 = 3_600_000;

/// Hours that may be caught up per hour.
const CATCH_UP: i64 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    const AGE: i64 = 90 * DAY;
    const START: i64 = 1_700_000_000_000;

    /// Lets `hours` pass, a look each minute.
    fn run(clock: &mut RetentionClock, hours: i64) {
        for _ in 0..hours * 60 {
            clock.pass(60_000, clock.wall + 60_000, AGE);
        }
    }

    #[test]
    fn with_a_right_clock_the_age_is_the_time_that_has_passed() {
        let mut clock = RetentionClock::begin(START);
        run(&mut clock, 1_000);
        assert_eq!((clock.now, clock.ahead), (START + 1_000 * HOUR, 0));
    }

    #[test]
    fn a_clock_that_jumps_forward_and_back_ages_nothing() {
        for jump in [HOUR, YEAR, 100 * YEAR, -HOUR, -YEAR, -50 * YEAR] {
            let mut clock = RetentionClock::begin(START);
            for _ in 0..100 {
                clock.pass(2_000, clock.wall + jump, AGE);
                clock.pass(2_000, clock.wall - jump, AGE);
            }
            // 400 s have passed, 200 s of them with a wrong clock.
            assert!(clock.now - START <= 400_000 + 25 * 200_000, "{jump}: {}", clock.now - START);
            let before = clock.now;
            run(&mut clock, 1_000);
            assert!(clock.now - before <= 1_000 * HOUR + HOUR, "{jump}: {clock:?}");
        }
    }

    #[test]
    fn no_clock_that_stays_wrong_takes_more_than_half_of_the_age() {
        let mut clock = RetentionClock::begin(0);
        clock.pass(1_000, START, AGE);
        run(&mut clock, 1_000);
        assert!(clock.now <= AGE / 2 + 1_001 * HOUR, "{clock:?}");
        // A monotonic clock that jumps is no better.
        let mut clock = RetentionClock::begin(START);
        clock.pass(YEAR, START + YEAR, AGE);
        assert!(clock.now - START <= 25 * HOUR);
    }

    #[test]
    fn pauses_are_caught_up_little_by_little() {
        let mut clock = RetentionClock::begin(START);
        for _ in 0..20 {
            // Two hours a day.
            clock.pass(0, clock.wall + 22 * HOUR, AGE);
            run(&mut clock, 2);
        }
        assert_eq!(clock.now, START + 20 * DAY);
        // One look a day.
        for _ in 0..20 {
            clock.pass(DAY, clock.wall + DAY, AGE);
        }
        assert!(clock.now + clock.ahead == START + 40 * DAY && clock.ahead <= DAY, "{clock:?}");
    }

    #[test]
    fn nothing_overflows() {
        for wall in [i64::MIN, i64::MAX, 0] {
            for then in [i64::MIN, i64::MAX, 0] {
                let mut clock = RetentionClock::begin(wall);
                clock.pass(i64::MAX, then, i64::MAX);
                clock.pass(i64::MIN, wall, 0);
            }
        }
    }
}
