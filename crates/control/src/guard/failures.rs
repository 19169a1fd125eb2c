//! Wrong passwords, counted by who sends them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use piecework_core::Moment;

/// Who sends a password: an IPv4 address or IPv6 /64; on loopback, where all users of the machine
/// share one address, also the user, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sender {
    pub network: IpAddr,
    pub user: Option<u32>,
}

/// How often senders were wrong lately.
///
/// Whoever was wrong often waits after each further guess, and has only so many at a time; others,
/// and whoever is right while there is a place, do not wait.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_sender: HashMap<Sender, Failing>,
}

#[derive(Debug, Clone)]
struct Failing {
    /// When it was first wrong, or last after [`MAX_FAILURES`].
    since: Moment,
    count: u32,
    /// Places for guesses, each taken for [`PENALTY`].
    places: Arc<Semaphore>,
}

impl Failures {
    /// Counts a wrong password of `sender`.
    pub(super) fn add(&mut self, sender: Sender, now: Moment) {
        if self.by_sender.len() >= MAX_FAILING && !self.by_sender.contains_key(&sender) {
            self.by_sender.retain(|_, failing| !failing.is_over(now));
            // All of them within a minute: the one that was first has waited longest.
            let first = self.by_sender.iter().min_by_key(|(_, failing)| failing.since);
            if self.by_sender.len() >= MAX_FAILING
                && let Some(sender) = first.map(|(sender, _)| *sender)
            {
                self.by_sender.remove(&sender);
            }
        }
        let failing = self.by_sender.entry(sender).or_insert_with(|| Failing {
            since: now,
            count: 0,
            places: Arc::new(Semaphore::new(GUESSES)),
        });
        if failing.is_over(now) {
            (failing.since, failing.count) = (now, 0);
        }
        failing.count = failing.count.saturating_add(1);
        if failing.count == MAX_FAILURES {
            tracing::warn!(
                ip = %sender.network,
                user = sender.user,
                "too many wrong passwords: its guesses are slowed down"
            );
        }
        if failing.count >= MAX_FAILURES {
            failing.since = now;
        }
    }

    /// Whether anybody was wrong too often.
    pub(super) fn any(&self, now: Moment) -> bool {
        self.by_sender.values().any(|failing| failing.is_slowed(now))
    }

    /// The places for guesses of `sender`, if it was wrong too often.
    pub(super) fn places(&self, sender: Sender, now: Moment) -> Option<Arc<Semaphore>> {
        let failing = self.by_sender.get(&sender)?;
        failing.is_slowed(now).then(|| Arc::clone(&failing.places))
    }
}

impl Failing {
    fn is_over(&self, now: Moment) -> bool {
        now.since(self.since) >= FAILURE_SPAN
    }

    fn is_slowed(&self, now: Moment) -> bool {
        self.count >= MAX_FAILURES && !self.is_over(now)
    }
}

/// Wrong passwords within [`FAILURE_SPAN`] until a sender is slowed down.
pub(super) const MAX_FAILURES: u32 = 10;

/// How long wrong passwords are remembered.
pub(super) const FAILURE_SPAN: Duration = Duration::from_secs(60);

/// Guesses at a time of a sender that is slowed down, and how long each takes: 1.6 a second. A right
/// password of the same sender passes at once as long as fewer guesses are under way.
pub(super) const GUESSES: usize = 16;
pub(super) const PENALTY: Duration = Duration::from_secs(10);

/// Senders whose wrong passwords are counted at a time: some 400 KiB.
const MAX_FAILING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: usize) -> Sender {
        Sender { network: std::net::Ipv4Addr::from_bits(number as u32).into(), user: None }
    }

    #[test]
    fn ten_wrong_passwords_within_a_minute_slow_their_sender_down_and_nobody_else() {
        let mut failures = Failures::default();
        let start = Moment::START + Duration::from_secs(1_000);
        let user = |user| Sender { user: Some(user), ..sender(1) };
        for _ in 1..MAX_FAILURES {
            failures.add(user(7), start);
        }
        assert!(failures.places(user(7), start).is_none() && !failures.any(start));
        let tenth = start + Duration::from_secs(30);
        failures.add(user(7), tenth);
        assert!(failures.places(user(7), tenth).is_some() && failures.any(tenth));
        for other in [user(8), sender(1), sender(2)] {
            assert!(failures.places(other, tenth).is_none());
        }
        let over = tenth + FAILURE_SPAN;
        assert!(failures.places(user(7), over).is_none() && !failures.any(over));
        failures.add(user(7), over);
        assert!(failures.places(user(7), over).is_none(), "counting begins anew");
    }

    #[test]
    fn old_failures_do_not_add_up() {
        let mut failures = Failures::default();
        let mut now = Moment::START;
        for _ in 0..5 * MAX_FAILURES {
            failures.add(sender(1), now);
            assert!(!failures.any(now));
            now = now + FAILURE_SPAN / 5;
        }
    }

    #[test]
    fn whoever_goes_on_guessing_stays_slowed_down() {
        let mut failures = Failures::default();
        let mut now = Moment::START;
        for count in 1..=60 {
            failures.add(sender(1), now);
            assert_eq!(failures.any(now), count >= MAX_FAILURES);
            now = now + PENALTY / 2;
        }
    }

    #[test]
    fn senders_counted_are_bounded() {
        let mut failures = Failures::default();
        for number in 0..MAX_FAILING + 10 {
            failures.add(sender(number), Moment::START + Duration::from_millis(number as u64));
        }
        assert_eq!(failures.by_sender.len(), MAX_FAILING);
        assert!(!failures.by_sender.contains_key(&sender(0)));
    }
}
