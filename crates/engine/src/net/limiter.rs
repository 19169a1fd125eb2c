//! Rate limits.

use piecework_core::SaturatingFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A limit in bytes a second that all clones share. It can be changed while in use. Takers are
/// served in the order in which they ask, so that nobody starves.
///
/// A limiter may stand beneath another: what is taken from it is taken from both.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<LimiterCore>,
}

struct LimiterCore {
    state: Mutex<Bucket>,
    /// The right to take. It is fair: waiters get it in order.
    turn: tokio::sync::Mutex<()>,
    /// Wakes waiters when the rate has changed.
    changed: Notify,
    /// Number of takers that wait.
    takers: AtomicUsize,
}

struct Bucket {
    /// Bytes a second; `None` means no limit.
    rate: Option<u64>,
    /// When everything granted so far is paid for.
    paid_until: Instant,
    above: Option<Limiter>,
}

/// Counts a taker for as long as it waits.
struct Waits<'a>(&'a AtomicUsize);

/// Gives back what was taken beneath if the wait above is abandoned.
struct Pledge<'a> {
    limiter: &'a Limiter,
    bytes: u64,
}

impl Limiter {
    /// Returns a limiter of `rate` bytes a second; `None` means no limit.
    pub fn new(rate: Option<u64>) -> Self {
        let state = Mutex::new(Bucket { rate, paid_until: Instant::now(), above: None });
        let (turn, changed) = (tokio::sync::Mutex::default(), Notify::new());
        let takers = AtomicUsize::new(0);
        Self { shared: Arc::new(LimiterCore { state, turn, changed, takers }) }
    }

    /// Changes the limit, also for takers that wait.
    pub fn set(&self, rate: Option<u64>) {
        let mut state = self.shared.state.lock();
        if state.rate != rate {
            state.rate = rate;
            state.paid_until = Instant::now();
            self.shared.changed.notify_waiters();
        }
    }

    /// Puts it beneath `above`, or beneath nothing, also for takers that wait. What stands above
    /// `above` does not count.
    pub fn set_above(&self, above: Option<Limiter>) {
        self.shared.state.lock().above = above;
        self.shared.changed.notify_waiters();
    }

    /// Returns the limit in bytes a second, without the limiter above.
    pub fn rate(&self) -> Option<u64> {
        self.shared.state.lock().rate
    }

    /// Returns whether somebody waits to take from this limiter, or from the one above through it.
    pub fn is_awaited(&self) -> bool {
        self.shared.takers.load(Ordering::Relaxed) > 0
    }

    /// Waits until `bytes` may be moved. A caller that gives up waiting has taken nothing.
    pub async fn take(&self, bytes: u64) {
        let _waits = Waits::new(&self.shared.takers);
        self.take_own(bytes).await;
        if self.above().is_none() {
            return;
        }
        let mut pledge = Pledge { limiter: self, bytes };
        loop {
            let changed = self.shared.changed.notified();
            let Some(above) = self.above() else { break };
            tokio::select! {
                () = above.take_own(bytes) => break,
                () = changed => {}
            }
        }
        pledge.bytes = 0;
    }

    /// A virtual schedule in place of a bucket that somebody must refill: each grant moves the
    /// moment at which everything is paid for by `bytes / rate`, and the next grant waits for that
    /// moment. Up to [`BURST`] of unused time is made up for, so that timers need not be fine.
    async fn take_own(&self, bytes: u64) {
        if self.shared.state.lock().rate.is_none() {
            return;
        }
        let _turn = self.shared.turn.lock().await;
        loop {
            let changed = self.shared.changed.notified();
            let Some(wait) = self.book(bytes) else { return };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// Corrects a grant: of `taken` bytes `used` were moved, fewer or more.
    pub fn settle(&self, taken: u64, used: u64) {
        self.settle_own(taken, used);
        if let Some(above) = self.above() {
            above.settle_own(taken, used);
        }
    }

    /// Returns the most that should be taken at a time: what fits into [`BURST`], at least one
    /// block.
    pub fn chunk(&self) -> u64 {
        let above = self.above().map_or(u64::MAX, |above| above.chunk_own());
        self.chunk_own().min(above)
    }

    fn above(&self) -> Option<Limiter> {
        self.shared.state.lock().above.clone()
    }

    fn settle_own(&self, taken: u64, used: u64) {
        let mut state = self.shared.state.lock();
        let Some(rate) = state.rate else { return };
        let until = state.paid_until;
        state.paid_until = if used < taken {
            until.checked_sub(cost(taken - used, rate)).unwrap_or(until)
        } else {
            until.checked_add(cost(used - taken, rate)).unwrap_or(until)
        };
    }

    fn chunk_own(&self) -> u64 {
        self.shared.state.lock().rate.map_or(u64::MAX, |rate| {
            (rate.saturating_mul(u64::saturating_from(BURST.as_millis())) / 1000)
                .max(u64::from(piecework_core::BLOCK_LEN))
        })
    }

    /// Books `bytes`, or returns how long to wait before that.
    fn book(&self, bytes: u64) -> Option<Duration> {
        let mut state = self.shared.state.lock();
        let rate = state.rate?;
        let now = Instant::now();
        let wait = state.paid_until.saturating_duration_since(now);
        if !wait.is_zero() {
            return Some(wait);
        }
        // Unused time is lost, except for one burst.
        let start = state.paid_until.max(now.checked_sub(BURST).unwrap_or(now));
        state.paid_until = start.checked_add(cost(bytes, rate)).unwrap_or(start);
        None
    }
}

impl<'a> Waits<'a> {
    fn new(takers: &'a AtomicUsize) -> Self {
        takers.fetch_add(1, Ordering::Relaxed);
        Self(takers)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pledge<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.limiter.settle_own(self.bytes, 0);
        }
    }
}

/// Returns the time that `bytes` take, a year at most: nobody waits longer, and sums do not
/// overflow.
fn cost(bytes: u64, rate: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / rate.max(1) as f64).map_or(YEAR, |t| t.min(YEAR))
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_holds_for_those_who_wait() {
        let limiter = Limiter::new(Some(1));
        let start = Instant::now();
        limiter.take(1_000_000).await;
        let waiting = [limiter.clone(), limiter.clone()]
            .map(|limiter| tokio::spawn(async move { limiter.take(1_000_000).await }));
        tokio::task::yield_now().await;
        limiter.set(None);
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_has_taken_nothing() {
        let limiter = Limiter::new(Some(1_000));
        let start = Instant::now();
        limiter.take(1_000).await;
        for _ in 0..100 {
            let lost = tokio::time::timeout(Duration::from_millis(1), limiter.take(1_000_000));
            assert!(lost.await.is_err());
        }
        limiter.take(1_000).await;
        assert!(start.elapsed() <= Duration::from_millis(1_010), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_awaited_while_somebody_waits_here_or_above() {
        for (own, above) in [(Some(1_000), None), (None, Some(1_000))] {
            let (limiter, above) = (Limiter::new(own), Limiter::new(above));
            limiter.set_above(Some(above));
            limiter.take(1_000).await;
            assert!(!limiter.is_awaited());
            let waiter = limiter.clone();
            let waiting = tokio::spawn(async move { waiter.take(1_000).await });
            tokio::task::yield_now().await;
            assert!(limiter.is_awaited());
            waiting.await.unwrap();
            assert!(!limiter.is_awaited());
            let lost = tokio::time::timeout(Duration::from_millis(1), limiter.take(1_000));
            assert!(lost.await.is_err() && !limiter.is_awaited());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_given_back() {
        let limiter = Limiter::new(Some(1_000));
        let start = Instant::now();
        limiter.take(1_000_000).await;
        limiter.settle(1_000_000, 500);
        limiter.take(1_000).await;
        assert!(start.elapsed() <= Duration::from_millis(510), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn high_rates_are_met_though_timers_are_coarse() {
        let limiter = Limiter::new(Some(10_000_000_000));
        let start = Instant::now();
        for _ in 0..10_000 {
            limiter.take(1_000_000).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((0.85..=1.1).contains(&took), "took {took} s of virtual time");
    }

    #[tokio::test(start_paused = true)]
    async fn beneath_another_both_hold() {
        for (own, above) in [(Some(100_000), Some(1_000_000)), (None, Some(100_000))] {
            let (limiter, above) = (Limiter::new(own), Limiter::new(above));
            limiter.set_above(Some(above));
            let start = Instant::now();
            for _ in 0..100 {
                limiter.take(10_000).await;
            }
            let took = start.elapsed().as_secs_f64();
            assert!((9.8..=10.1).contains(&took), "took {took} s of virtual time");
            assert_eq!(limiter.chunk(), u64::from(piecework_core::BLOCK_LEN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_above_is_let_go_when_nothing_stands_there_any_more() {
        let (limiter, above) = (Limiter::new(Some(1_000_000)), Limiter::new(Some(1)));
        above.take(1_000_000).await;
        limiter.set_above(Some(above));
        let start = Instant::now();
        let waiter = limiter.clone();
        let waiting = tokio::spawn(async move { waiter.take(1_000).await });
        tokio::task::yield_now().await;
        limiter.set_above(None);
        waiting.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_above_has_taken_nothing_beneath() {
        let (limiter, above) = (Limiter::new(Some(1_000)), Limiter::new(Some(1)));
        above.take(1_000_000).await;
        limiter.set_above(Some(above));
        let start = Instant::now();
        for _ in 0..10 {
            let lost = tokio::time::timeout(Duration::from_millis(1), limiter.take(100_000));
            assert!(lost.await.is_err());
        }
        limiter.set_above(None);
        limiter.take(100).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}
