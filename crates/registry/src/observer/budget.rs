//! How many connections may be begun.

use std::time::Duration;

use piecework_core::Moment;

/// Dials that may be made: some at once, then so many a second.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub(super) left: f64,
    pub(super) at: Moment,
}

impl Budget {
    /// What there is by now, of so much a second and so much at once.
    pub(super) fn refresh(&mut self, now: Moment, a_second: f64, at_once: f64) -> f64 {
        self.left = (self.left + now.since(self.at).as_secs_f64() * a_second).min(at_once);
        self.at = self.at.max(now);
        self.left
    }

    /// When there is enough for a dial.
    pub(super) fn enough_at(&self, a_second: f64) -> Moment {
        if self.left >= 1.0 {
            return self.at;
        }
        // A little later, so that rounding does not make it a little too early.
        self.at + Duration::from_secs_f64((1.0 - self.left) / a_second) + Duration::from_micros(1)
    }
}
