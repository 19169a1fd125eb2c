//! Rate limits.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes a second, shared by all who clone it; can be changed while in use. Each taker is served
/// in the order of asking, so that nobody starves.
#[derive(Clone)]
pub struct Limiter {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Bytes a second; `None` is no limit.
    rate: Option<u64>,
    /// When all that was granted so far has been paid for.
    paid_until: Instant,
}

impl Limiter {
    /// At most `rate` bytes a second; `None` is no limit.
    pub fn new(rate: Option<u64>) -> Self {
        Self { state: Arc::new(Mutex::new(State { rate, paid_until: Instant::now() })) }
    }

    /// Changes the limit.
    pub fn set(&self, rate: Option<u64>) {
        let mut state = self.state.lock();
        state.rate = rate;
        state.paid_until = Instant::now();
    }

    /// Waits until `bytes` may be moved.
    ///
    /// A virtual schedule rather than a bucket that somebody must refill: each grant moves the
    /// moment at which everything is paid for by `bytes / rate`, and waits for that moment, less a
    /// burst of [`BURST`] so that timers need not be fine.
    pub async fn take(&self, bytes: u64) {
        if let Some(wait) = self.book(bytes) {
            tokio::time::sleep(wait).await;
        }
    }

    /// The most that should be taken at a time: what fits into [`BURST`], at least one block.
    pub fn chunk(&self) -> u64 {
        self.state.lock().rate.map_or(u64::MAX, |rate| {
            (rate.saturating_mul(BURST.as_millis() as u64) / 1000)
                .max(u64::from(crate::base::BLOCK_LEN))
        })
    }

    fn book(&self, bytes: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let rate = state.rate?.max(1);
        let now = Instant::now();
        // Time nobody used is lost, but for one burst.
        let start = state.paid_until.max(now.checked_sub(BURST).unwrap_or(now));
        state.paid_until = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        let wait = state.paid_until.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

const BURST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn takers_together_stay_under_the_rate() {
        let limiter = Limiter::new(Some(100_000));
        let start = Instant::now();
        let one = async {
            for _ in 0..50 {
                limiter.take(10_000).await
            }
        };
        let two = async {
            for _ in 0..50 {
                limiter.take(10_000).await
            }
        };
        tokio::join!(one, two);
        // 1,000,000 bytes at 100,000 a second, the first burst for free.
        let took = start.elapsed().as_secs_f64();
        assert!((9.8..=10.1).contains(&took), "took {took} s of virtual time");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_no_wait() {
        let limiter = Limiter::new(None);
        let start = Instant::now();
        limiter.take(u64::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
