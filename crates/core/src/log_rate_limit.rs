//! Logs a repeating fault once.

use std::time::Duration;

use super::Moment;

/// Limits how often a fault is logged that may repeat many times a second while its cause lasts. An
/// example is a process without file descriptors: it is logged when the shortage begins, not each
/// time.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogRateLimit {
    last: Option<Moment>,
}

impl LogRateLimit {
    /// Records that the fault occurred. Returns whether to log it: it is the first, or the last one
    /// was at least [`LogRateLimit::QUIET`] ago.
    pub fn should_log(&mut self, now: Moment) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.since(last) >= Self::QUIET)
    }

    /// After so long without a fault, the next one is logged. Shorter pauses do not count: one
    /// descriptor that is closed and taken again ends no shortage.
    pub const QUIET: Duration = Duration::from_secs(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_repeats_is_logged_once_however_long_it_lasts() {
        let mut limit = LogRateLimit::default();
        let mut now = Moment::START;
        assert!(limit.should_log(now));
        for _ in 0..10_000 {
            now = now + Duration::from_millis(100);
            assert!(!limit.should_log(now));
        }
        now = now + (LogRateLimit::QUIET - Duration::from_millis(1));
        assert!(!limit.should_log(now));
        now = now + LogRateLimit::QUIET;
        assert!(limit.should_log(now));
        assert!(!limit.should_log(now));
    }
}
