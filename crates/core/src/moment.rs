//! Time as an argument.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since a start that the driver chose. The core never reads a clock: drivers pass the
/// current moment in, and a simulator passes any moment it likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// The start.
    pub const START: Self = Self(0);

    /// Returns the moment `since_start` after the start.
    pub fn from_start(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }

    /// Returns the moment this many seconds after the start.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Returns the time since the start.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rest: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rest)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, rest: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rest)))
    }
}

/// 2^64 ns are 584 years, so saturation loses nothing.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let early = Moment::START + Duration::from_secs(1);
        let late = early + Duration::from_millis(5);
        assert_eq!(late.since(early), Duration::from_millis(5));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(Moment::START - Duration::from_secs(9), Moment::START);
    }
}
