//! Wrong passwords, counted by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{FAILURE_SPAN, MAX_FAILING, MAX_FAILURES};
use crate::base::Moment;

/// How often addresses were wrong lately.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_ip: HashMap<IpAddr, Failing>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    /// When it was first wrong.
    since: Moment,
    count: u32,
}

impl Failures {
    /// Counts a wrong password of `ip`.
    pub(super) fn add(&mut self, ip: IpAddr, now: Moment) {
        if self.by_ip.len() >= MAX_FAILING && !self.by_ip.contains_key(&ip) {
            self.by_ip.retain(|_, failing| !failing.is_over(now));
            // All of them within a minute: the one that was first has waited longest.
            let first = self.by_ip.iter().min_by_key(|(_, failing)| failing.since);
            if self.by_ip.len() >= MAX_FAILING
                && let Some(ip) = first.map(|(ip, _)| *ip)
            {
                self.by_ip.remove(&ip);
            }
        }
        let failing = self.by_ip.entry(ip).or_insert(Failing { since: now, count: 0 });
        if failing.is_over(now) {
            *failing = Failing { since: now, count: 0 };
        }
        failing.count += 1;
        if failing.count == MAX_FAILURES {
            // The wait begins with the last of them.
            failing.since = now;
            tracing::warn!(%ip, "too many wrong passwords: it has to wait");
        }
    }

    /// How long `ip` has to wait before it may try again.
    pub(super) fn wait(&self, ip: IpAddr, now: Moment) -> Option<Duration> {
        let failing = self.by_ip.get(&ip)?;
        let waits = failing.count >= MAX_FAILURES && !failing.is_over(now);
        waits.then(|| FAILURE_SPAN.saturating_sub(now.since(failing.since)))
    }
}

impl Failing {
    fn is_over(self, now: Moment) -> bool {
        now.since(self.since) >= FAILURE_SPAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number as u32).into()
    }

    #[test]
    fn ten_wrong_passwords_within_a_minute_mean_a_minute_of_waiting() {
        let mut failures = Failures::default();
        let start = Moment::START + Duration::from_secs(1_000);
        for _ in 1..MAX_FAILURES {
            failures.add(ip(1), start);
        }
        assert_eq!(failures.wait(ip(1), start), None);
        let tenth = start + Duration::from_secs(30);
        failures.add(ip(1), tenth);
        assert_eq!(failures.wait(ip(1), tenth), Some(FAILURE_SPAN));
        assert_eq!(failures.wait(ip(2), tenth), None);
        let over = tenth + FAILURE_SPAN;
        assert_eq!(failures.wait(ip(1), over), None);
        failures.add(ip(1), over);
        assert_eq!(failures.wait(ip(1), over), None, "counting begins anew");
    }

    #[test]
    fn old_failures_do_not_add_up() {
        let mut failures = Failures::default();
        let mut now = Moment::START;
        for _ in 0..5 * MAX_FAILURES {
            failures.add(ip(1), now);
            assert_eq!(failures.wait(ip(1), now), None);
            now = now + FAILURE_SPAN / 5;
        }
    }

    #[test]
    fn addresses_counted_are_bounded() {
        let mut failures = Failures::default();
        for number in 0..MAX_FAILING + 10 {
            failures.add(ip(number), Moment::START + Duration::from_millis(number as u64));
        }
        assert_eq!(failures.by_ip.len(), MAX_FAILING);
        assert!(!failures.by_ip.contains_key(&ip(0)));
    }
}
