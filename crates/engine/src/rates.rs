//! Transfer rates to show: bytes a second over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

use piecework_core::Moment;

/// Totals seen over the last [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: VecDeque<(Moment, u64, u64)>,
}

impl Rates {
    /// Notes the totals received and sent so far, and returns the rates of both.
    pub(crate) fn sample(&mut self, now: Moment, down: u64, up: u64) -> (f64, f64) {
        while self.samples.len() > 1 && now.since(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
        let spaced = self.samples.back().is_none_or(|(last, ..)| now.since(*last) >= SPACING);
        if spaced {
            self.samples.push_back((now, down, up));
        }
        let Some((then, down_then, up_then)) = self.samples.front().copied() else {
            return (0.0, 0.0);
        };
        let span = now.since(then).as_secs_f64();
        if span < SPACING.as_secs_f64() {
            return (0.0, 0.0);
        }
        let rate = |total: u64, before: u64| total.saturating_sub(before) as f64 / span;
        (rate(down, down_then), rate(up, up_then))
    }
}

const WINDOW: Duration = Duration::from_secs(4);
const SPACING: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_last_seconds_and_fall_to_zero() {
        let mut rates = Rates::default();
        let at = |seconds| Moment::START + Duration::from_secs(seconds);
        assert_eq!(rates.sample(at(0), 0, 0), (0.0, 0.0));
        assert_eq!(rates.sample(at(1), 1_000, 10), (1_000.0, 10.0));
        assert_eq!(rates.sample(at(2), 2_000, 20), (1_000.0, 10.0));
        for second in 3..12 {
            rates.sample(at(second), 2_000, 20);
        }
        assert_eq!(rates.sample(at(12), 2_000, 20), (0.0, 0.0));
    }
}
