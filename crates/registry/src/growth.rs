//! How fast a peer's holdings grow.

use std::time::Duration;

use piecework_core::Moment;

/// Pieces per second, smoothed over about [`SMOOTHING`].
///
/// Pieces that arrive between two updates count as if they had arrived evenly, because one report or bitfield adds
/// many pieces at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// The smoothed rate at the time `at`.
    smoothed: f64,
    at: Moment,
    since: Moment,
}

impl Growth {
    /// Returns the growth of a peer whose holdings are known from `now` on.
    pub(super) fn new(now: Moment) -> Self {
        Self { smoothed: 0.0, at: now, since: now }
    }

    /// Adds `pieces` that the peer got since the last update.
    pub(super) fn grew(&mut self, now: Moment, pieces: u32) {
        let gap = now.since(self.at).as_secs_f64();
        let share = 1.0 - fading(gap);
        // (1 - e^(-gap/T)) / gap approaches 1/T as the gap approaches 0.
        let weight = if gap < 1e-3 { 1.0 / SMOOTHING } else { share / gap };
        self.smoothed = self.smoothed * fading(gap) + f64::from(pieces) * weight;
        self.at = self.at.max(now);
    }

    /// Returns the recent number of pieces per second.
    pub(super) fn per_second(&self, now: Moment) -> f64 {
        let smoothed = self.smoothed * fading(now.since(self.at).as_secs_f64());
        // In the beginning the observed time is shorter than the smoothing, so that the sum covers less time.
        let seen = now.since(self.since).as_secs_f64().max(SEEN_AT_LEAST);
        let rate = smoothed / (1.0 - fading(seen));
        if rate < NOTHING { 0.0 } else { rate }
    }

    /// Returns the estimated time for `missing` more pieces; `None` if there is no estimate.
    pub(super) fn time_for(&self, now: Moment, missing: u32) -> Option<Duration> {
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        let rate = self.per_second(now);
        let seconds = f64::from(missing) / rate;
        (rate > 0.0 && seconds < FOREVER).then(|| Duration::from_secs_f64(seconds))
    }
}

/// Returns the share of an old value that is left after `seconds`.
fn fading(seconds: f64) -> f64 {
    (-seconds / SMOOTHING).exp()
}

/// Seconds. Covers a few reports of Piecework peers, or a few pieces of a slow peer.
const SMOOTHING: f64 = 20.0;

/// The minimum observed time in seconds, so that a first piece does not look like a high rate.
const SEEN_AT_LEAST: f64 = 5.0;

/// Pieces per second below which the rate counts as 0: one piece in a quarter of an hour.
const NOTHING: f64 = 0.001;

/// Seconds beyond which there is no estimate: a hundred days.
const FOREVER: f64 = 100.0 * 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn an_even_flow_is_seen_from_the_beginning_however_it_is_told() {
        for step in [100, 2_000, 30_000] {
            let mut growth = Growth::new(at(0));
            for now in (step..=120_000).step_by(step as usize) {
                growth.grew(at(now), (step / 100) as u32);
                if now >= 6_000 {
                    let rate = growth.per_second(at(now));
                    assert!((rate - 10.0).abs() < 0.1, "{rate} after {now} ms in steps of {step}");
                }
            }
            assert_eq!(growth.time_for(at(120_000), 100).unwrap().as_secs(), 10);
        }
    }

    #[test]
    fn what_has_stopped_fades_to_nothing() {
        let mut growth = Growth::new(at(0));
        assert_eq!((growth.per_second(at(0)), growth.time_for(at(0), 5)), (0.0, None));
        growth.grew(at(10_000), 100);
        assert!(growth.per_second(at(10_000)) > 9.0);
        assert!(growth.per_second(at(60_000)) < 1.5);
        assert_eq!(growth.per_second(at(600_000)), 0.0);
        assert_eq!(growth.time_for(at(600_000), 0), Some(Duration::ZERO));
    }
}
