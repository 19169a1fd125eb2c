//! The rate limit for connection attempts.

use std::time::Duration;

use piecework_core::Moment;

/// A token bucket for connection attempts.
#[derive(Clone, Copy)]
pub(super) struct DialBudget {
    pub(super) left: f64,
    pub(super) at: Moment,
}

impl DialBudget {
    /// Refills the bucket at `a_second` tokens per second up to `at_once`, and returns its level.
    pub(super) fn refresh(&mut self, now: Moment, a_second: f64, at_once: f64) -> f64 {
        self.left = (self.left + now.since(self.at).as_secs_f64() * a_second).min(at_once);
        self.at = self.at.max(now);
        self.left
    }

    /// Returns when there is a token for an attempt.
    pub(super) fn enough_at(&self, a_second: f64) -> Moment {
        if self.left >= 1.0 {
            return self.at;
        }
        // Slightly later, so that rounding does not make it too early.
        self.at + Duration::from_secs_f64((1.0 - self.left) / a_second) + Duration::from_micros(1)
    }
}
