//! Transfer rates.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_core::Moment;

/// The number of bytes a second over the last five seconds.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    slices: [u64; SLICES],
    newest: u64,
    since: u64,
    total: u64,
}

impl Rate {
    pub(super) fn new(now: Moment) -> Self {
        let slice = slice_of(now);
        Self { slices: [0; SLICES], newest: slice, since: slice, total: 0 }
    }

    pub(super) fn add(&mut self, now: Moment, bytes: u64) {
        let slice = slice_of(now);
        if slice > self.newest {
            let gone = (slice - self.newest).min(SLICES as u64);
            for step in 0..gone {
                self.slices[usize::saturating_from((slice - step) % SLICES as u64)] = 0;
            }
            self.newest = slice;
        }
        self.slices[usize::saturating_from(self.newest % SLICES as u64)] += bytes;
        self.total += bytes;
    }

    /// Returns the total number of bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the bytes a second. A rate younger than the window is averaged over its own age.
    pub(super) fn per_second(&self, now: Moment) -> u64 {
        let slice = slice_of(now).max(self.newest);
        let oldest = (slice + 1).saturating_sub(SLICES as u64).max(self.since);
        let sum: u64 = (oldest..=self.newest)
            .map(|slice| self.slices[usize::saturating_from(slice % SLICES as u64)])
            .sum();
        let span = Duration::from_nanos((slice - oldest + 1) * SLICE_NANOS);
        u64::saturating_from(u128::from(sum) * 1_000_000_000 / span.as_nanos())
    }
}

fn slice_of(now: Moment) -> u64 {
    u64::saturating_from(now.since_start().as_nanos() / u128::from(SLICE_NANOS))
}

const SLICES: usize = 10;
const SLICE_NANOS: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    #[test]
    fn steady_flow_is_measured_and_dies_away() {
        let mut rate = Rate::new(at(0));
        for step in 0..100 {
            rate.add(at(step * 100), 1000);
        }
        assert_eq!(rate.per_second(at(9_999)), 10_000);
        assert_eq!(rate.per_second(at(12_499)), 5_000);
        assert_eq!(rate.per_second(at(60_000)), 0);
        assert_eq!(rate.total(), 100_000);
    }

    #[test]
    fn young_rate_is_taken_over_its_own_age() {
        let mut rate = Rate::new(at(7_000));
        rate.add(at(7_100), 500);
        assert_eq!(rate.per_second(at(7_200)), 1_000);
        rate.add(at(60_000), 500);
        assert_eq!(rate.per_second(at(60_000)), 100);
    }
}
