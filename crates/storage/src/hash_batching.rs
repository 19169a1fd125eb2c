//! Decides whether a piece waits a little before it is hashed, so that several are hashed together.
//!
//! Sixteen pieces together cost a quarter of what they cost one by one. So while pieces arrive
//! fast, it pays to collect a few milliseconds of them. Time is an argument here, so that the rule
//! can be tested.

use std::time::{Duration, Instant};

/// The rate at which pieces arrive, and what it means for those that wait.
#[derive(Debug, Default)]
pub(super) struct BatchDelay {
    last: Option<Instant>,
    /// The smoothed time between two pieces; `None` until two have arrived.
    interval: Option<Duration>,
}

/// The pieces at the front of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitingPieces {
    /// The number of pieces that wait.
    pub pieces: usize,
    /// The length of all of them in bytes.
    pub bytes: usize,
    /// When the first of them arrived.
    pub since: Instant,
    /// The number of pieces that were requested and may arrive.
    pub coming: usize,
}

impl BatchDelay {
    /// Records that a piece has arrived.
    pub(crate) fn piece_arrived(&mut self, now: Instant) {
        let gap = self.last.map(|last| now.saturating_duration_since(last));
        self.last = Some(now);
        self.interval = match (self.interval, gap) {
            (_, None) => None,
            // After a pause, older values no longer apply.
            (None, Some(gap)) => Some(gap),
            (Some(known), Some(gap)) if gap > known.max(SHORTEST) * LULL => Some(gap),
            (Some(known), Some(gap)) => Some((known * 7 + gap) / 8),
        };
    }

    /// Returns until when the waiting pieces should wait for more; `None` for not at all. Hashing
    /// `gains_from` pieces together begins to pay; more than `width` do not fit.
    pub(crate) fn wait_until(
        &self,
        now: Instant,
        waiting: WaitingPieces,
        gains_from: usize,
        width: usize,
    ) -> Option<Instant> {
        let (last, interval) = (self.last?, self.interval?);
        if waiting.pieces >= width || waiting.bytes >= MOST_BYTES {
            return None;
        }
        // Pieces that have stopped arriving are not waited for: at the end of a download, or when
        // the budget is used up.
        let patience = (waiting.since + PATIENCE).min(last + interval.max(SHORTEST) * LULL);
        let left = patience.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let more = (left.as_nanos() / interval.as_nanos().max(1)).min(waiting.coming as u128);
        (waiting.pieces as u128 + more >= gains_from as u128).then_some(patience)
    }
}

/// The longest wait of a piece: 1 GiB/s in pieces of 1 MiB fills sixteen lanes in 16 ms. Other
/// peers hear of the piece that much later, which is less than a round trip.
const PATIENCE: Duration = Duration::from_millis(20);

/// The most memory of pieces that wait: a quarter of a session's default budget.
const MOST_BYTES: usize = 16 << 20;

/// After this many intervals without a piece, no further one is expected.
const LULL: u32 = 4;

/// Shorter intervals count as this long when a pause is detected, so that a thread that was briefly
/// not scheduled is not taken for one.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Pieces have come every `interval` for a while; the last just now.
    fn steady(interval: Duration) -> (BatchDelay, Instant) {
        let mut delay = BatchDelay::default();
        let mut now = Instant::now();
        for _ in 0..50 {
            now += interval;
            delay.piece_arrived(now);
        }
        (delay, now)
    }

    fn one(since: Instant) -> WaitingPieces {
        WaitingPieces { pieces: 1, bytes: 1 << 20, since, coming: 64 }
    }

    #[test]
    fn fast_pieces_gather_and_slow_ones_are_hashed_at_once() {
        let (delay, now) = steady(ms(1));
        assert!(delay.wait_until(now, one(now), 5, 16).is_some());
        let (delay, now) = steady(ms(10));
        assert_eq!(delay.wait_until(now, one(now), 5, 16), None);
        // Where two side by side are worth it, ten milliseconds are not too long.
        assert!(delay.wait_until(now, one(now), 2, 2).is_some());
    }

    #[test]
    fn the_first_pieces_are_hashed_at_once() {
        let (mut delay, now) = (BatchDelay::default(), Instant::now());
        delay.piece_arrived(now);
        assert_eq!(delay.wait_until(now, one(now), 2, 16), None);
    }

    #[test]
    fn nobody_waits_longer_than_the_patience_or_for_a_full_house() {
        let (delay, now) = steady(ms(1));
        let until = delay.wait_until(now, one(now - ms(18)), 2, 16).unwrap();
        assert_eq!(until, now + ms(2));
        assert_eq!(delay.wait_until(now, one(now - PATIENCE), 2, 16), None);
        let full = WaitingPieces { pieces: 16, ..one(now) };
        assert_eq!(delay.wait_until(now, full, 2, 16), None);
        let large = WaitingPieces { bytes: MOST_BYTES, ..one(now) };
        assert_eq!(delay.wait_until(now, large, 2, 16), None);
    }

    #[test]
    fn when_no_more_come_those_here_are_hashed() {
        let (delay, now) = steady(ms(1));
        let until = delay.wait_until(now, one(now), 2, 16).unwrap();
        assert_eq!(until, now + ms(4));
        assert_eq!(delay.wait_until(until, one(now), 2, 16), None);
    }

    #[test]
    fn nobody_waits_for_pieces_that_nobody_has_asked_for() {
        let (delay, now) = steady(ms(1));
        assert_eq!(delay.wait_until(now, WaitingPieces { coming: 0, ..one(now) }, 2, 16), None);
        assert_eq!(delay.wait_until(now, WaitingPieces { coming: 3, ..one(now) }, 5, 16), None);
        assert!(delay.wait_until(now, WaitingPieces { coming: 4, ..one(now) }, 5, 16).is_some());
    }

    #[test]
    fn a_pause_ends_what_was_expected() {
        let (mut delay, mut now) = steady(ms(1));
        now += ms(500);
        delay.piece_arrived(now);
        assert_eq!(delay.wait_until(now, one(now), 2, 16), None);
        for _ in 0..30 {
            now += ms(1);
            delay.piece_arrived(now);
        }
        assert!(delay.wait_until(now, one(now), 2, 16).is_some());
    }
}
