//! One direction of a peer's access line.

use std::time::Duration;

use piecework_core::Moment;

/// A line that carries a number of bytes a second, one transmission after the other.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    rate: u64,
    /// Bytes of small messages that are carried with the next block.
    small: u64,
    /// When the current or last transmission is done.
    free_at: Moment,
}

impl Line {
    /// Creates a line of `rate` bytes a second, which must not be 0.
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, small: 0, free_at: Moment::START }
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Adds a small message. It takes no turn of its own, but delays the next block.
    pub(crate) fn add_small(&mut self, bytes: u64) {
        self.small += bytes;
    }

    /// Carries `bytes` that are available from `first` on and complete at `last`. Returns when they are
    /// through.
    pub(crate) fn carry(&mut self, bytes: u64, first: Moment, last: Moment) -> Moment {
        let small = std::mem::take(&mut self.small);
        let takes = self.time_of(bytes + small);
        self.free_at = (self.free_at.max(first) + takes).max(last);
        self.free_at
    }

    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    #[test]
    fn blocks_follow_each_other_and_small_messages_ride_along() {
        let mut line = Line::new(1_000_000);
        assert_eq!(line.carry(10_000, at(5), at(5)), at(15));
        assert_eq!(line.carry(10_000, at(5), at(5)), at(25));
        line.add_small(1_000);
        assert_eq!(line.carry(10_000, at(50), at(50)), at(61));
    }

    #[test]
    fn what_comes_slowly_is_through_when_its_last_byte_is() {
        let mut line = Line::new(1_000_000);
        assert_eq!(line.carry(10_000, at(0), at(100)), at(100));
    }
}
