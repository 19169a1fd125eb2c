//! Limits on packets a second.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::Moment;

/// So many packets a second, and some more after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// The time that one packet uses up.
    cost: Duration,
    /// The longest time that may be saved up.
    saved: Duration,
    /// When everything that was used up is back.
    full_at: Moment,
}

impl Allowance {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, saved: cost * burst.max(1), full_at: Moment::START }
    }

    /// Returns whether a packet is allowed now.
    pub(crate) fn has(&self, now: Moment) -> bool {
        self.full_at.since(now) + self.cost <= self.saved
    }

    /// Uses up a packet; returns whether it was allowed.
    pub(crate) fn take(&mut self, now: Moment) -> bool {
        let has = self.has(now);
        if has {
            self.full_at = self.full_at.max(now) + self.cost;
        }
        has
    }

    /// Returns when the next packet is allowed.
    pub(crate) fn next(&self) -> Moment {
        self.full_at + self.cost - self.saved
    }
}

/// An allowance for each sender.
pub(crate) struct SenderAllowances {
    senders: HashMap<SocketAddr, Allowance, FixedState>,
    fresh: Allowance,
    /// Shared by all senders for whom there is no room.
    rest: Allowance,
    swept: Moment,
}

impl SenderAllowances {
    pub(crate) fn new(per_second: u32, burst: u32, seed: u64) -> Self {
        let fresh = Allowance::new(per_second, burst);
        let senders = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { senders, fresh, rest: fresh, swept: Moment::START }
    }

    /// Uses up one of the sender's packets; returns whether it was allowed.
    pub(crate) fn take(&mut self, now: Moment, sender: SocketAddr) -> bool {
        if let Some(allowance) = self.senders.get_mut(&sender) {
            return allowance.take(now);
        }
        if self.senders.len() >= MAX_SENDERS && now.since(self.swept) >= SWEPT_EVERY {
            self.swept = now;
            self.senders.retain(|_, allowance| allowance.full_at > now);
        }
        if self.senders.len() >= MAX_SENDERS {
            return self.rest.take(now);
        }
        self.senders.entry(sender).or_insert(self.fresh).take(now)
    }
}

/// Senders that are counted one by one, in about 300 kB. A flood from more addresses shares one allowance.
const MAX_SENDERS: usize = 4096;

/// A sweep visits all senders, so it is rare.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 0)
    }

    #[test]
    fn an_allowance_comes_back_with_time() {
        let start = Moment::from_secs(9);
        let mut allowance = Allowance::new(10, 5);
        assert_eq!((0..20).filter(|_| allowance.take(start)).count(), 5);
        assert_eq!(allowance.next(), start + Duration::from_millis(100));
        assert!(!allowance.take(allowance.next() - Duration::from_nanos(1)));
        assert!(allowance.take(allowance.next()));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| allowance.take(later)).count(), 5);
    }

    #[test]
    fn one_sender_does_not_use_up_the_allowance_of_another() {
        let mut senders = SenderAllowances::new(1, 3, 7);
        let now = Moment::from_secs(9);
        assert_eq!((0..9).filter(|_| senders.take(now, addr(1))).count(), 3);
        assert!(senders.take(now, addr(2)));
    }

    #[test]
    fn a_flood_from_many_addresses_takes_bounded_memory_and_shares_one_allowance() {
        let mut senders = SenderAllowances::new(1, 3, 7);
        let now = Moment::from_secs(9);
        let allowed = (0..100_000).filter(|n| senders.take(now, addr(*n))).count();
        assert_eq!(allowed, MAX_SENDERS + 3);
        assert_eq!(senders.senders.len(), MAX_SENDERS);
        // When the flood is over, there is room again.
        assert!(senders.take(now + Duration::from_secs(5), addr(200_000)));
        assert_eq!(senders.senders.len(), 1);
    }
}
