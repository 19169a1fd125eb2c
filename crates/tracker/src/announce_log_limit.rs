//! Which announces are logged when there are too many of them.
//!
//! A record costs about as much as an announce itself. So each part of the tracker that answers announces has a limit.
//! In each second it admits the first announces of each network, and a bounded number of others. What it does not admit is
//! only counted. Announces of catalogued torrents have bounds of their own.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use piecework_core::{Moment, SaturatingFrom, network_of};

/// Decides which announces are logged.
pub(super) struct AnnounceLogLimit {
    second: u64,
    /// The first announces of networks in this second, by a hash of the network. Some networks share a number.
    networks: [Box<[u8; NETWORKS]>; 2],
    admitted: [LoggedCounts; 2],
    bounds: [LoggedCounts; 2],
    left_out: u64,
    hasher: FixedState,
}

/// Announces that are logged in a second, and the bounds of their numbers.
#[derive(Clone, Copy, Default)]
struct LoggedCounts {
    /// The first ones of their networks.
    first: u32,
    /// Further ones that report something rare.
    telling: u32,
    regular: u32,
}

/// What a limit needs to know about a request.
#[derive(Clone, Copy)]
pub(super) struct LogCandidate {
    pub now: Moment,
    pub ip: IpAddr,
    pub catalogued: bool,
    /// Whether it is a refusal, or a peer that starts, stops or has completed its download.
    pub telling: bool,
}

impl AnnounceLogLimit {
    /// Creates one of `parts` limits, which share the records of a second. `seed` decides which networks share a number.
    pub(super) fn new(parts: usize, seed: u64) -> Self {
        let parts = u32::saturating_from(parts).max(1);
        let share = |bound: u32| (bound / parts).max(LEAST);
        let bounds = [OTHER, CATALOGUED].map(|all| LoggedCounts {
            first: share(all.first),
            telling: share(all.telling),
            regular: share(all.regular),
        });
        Self {
            second: 0,
            networks: [Box::new([0; NETWORKS]), Box::new([0; NETWORKS])],
            admitted: Default::default(),
            bounds,
            left_out: 0,
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Returns whether a request is logged. Counts it if it is not.
    pub(super) fn admits(&mut self, request: &LogCandidate) -> bool {
        let second = request.now.since_start().as_secs();
        if second != self.second {
            self.second = second;
            self.admitted = Default::default();
            self.networks.iter_mut().for_each(|networks| networks.fill(0));
        }
        let kind = usize::from(request.catalogued);
        let (admitted, bounds) = (&mut self.admitted[kind], &self.bounds[kind]);
        let at = self.hasher.hash_one(network_of(request.ip)) % NETWORKS as u64;
        let here = &mut self.networks[kind][usize::saturating_from(at)];
        let (count, bound) = match request.telling {
            _ if *here < FIRST_OF_A_NETWORK && admitted.first < bounds.first => {
                *here += 1;
                (&mut admitted.first, bounds.first)
            }
            true => (&mut admitted.telling, bounds.telling),
            false => (&mut admitted.regular, bounds.regular),
        };
        let is_admitted = *count < bound;
        *count += u32::from(is_admitted);
        self.left_out += u64::from(!is_admitted);
        is_admitted
    }

    /// Returns how many requests were not admitted since the last call.
    pub(super) fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

/// How many requests of a network in a second count as its first ones, as in the journal.
const FIRST_OF_A_NETWORK: u8 = 8;

/// The bounds of all gates together: 9,000 records in a second. At 1.5 µs each they take about a hundredth of a core.
/// The log has as many of 100,000 records.
const CATALOGUED: LoggedCounts = LoggedCounts { first: 4_000, telling: 1_000, regular: 1_000 };
const OTHER: LoggedCounts = LoggedCounts { first: 2_000, telling: 500, regular: 500 };

/// The minimum share of a limit, however many there are.
const LEAST: u32 = 50;

/// The number of counters for networks: 4 KiB.
const NETWORKS: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64, ip: [u8; 4], catalogued: bool, telling: bool) -> LogCandidate {
        let now = Moment::from_start(Duration::from_secs(second));
        LogCandidate { now, ip: ip.into(), catalogued, telling }
    }

    fn admitted(limit: &mut AnnounceLogLimit, request: &LogCandidate, count: usize) -> usize {
        (0..count).filter(|_| limit.admits(request)).count()
    }

    #[test]
    fn a_few_requests_are_all_logged_and_of_a_flood_a_part() {
        let mut limit = AnnounceLogLimit::new(1, 1);
        let flood = at(1, [10, 0, 0, 1], false, false);
        assert_eq!(admitted(&mut limit, &flood, 500), 500);
        let first = usize::from(FIRST_OF_A_NETWORK);
        assert_eq!(admitted(&mut limit, &flood, 9_500), first + OTHER.regular as usize - 500);
        assert_eq!(limit.take_left_out(), 10_000 - 8 - u64::from(OTHER.regular));
        assert_eq!(limit.take_left_out(), 0);
        assert!(limit.admits(&at(1, [10, 0, 0, 1], false, true)), "rare ones have their own room");
        assert!(limit.admits(&at(1, [10, 0, 0, 1], true, false)), "the catalogue too");
        assert!(limit.admits(&at(1, [10, 0, 0, 2], false, false)), "and so have other networks");
        assert_eq!(admitted(&mut limit, &at(2, [10, 0, 0, 1], false, false), 100), 100);
    }

    #[test]
    fn a_flood_from_many_networks_takes_no_room_of_the_catalogue() {
        let mut limit = AnnounceLogLimit::new(2, 1);
        for n in 0..100_000_u32 {
            limit.admits(&at(1, n.to_be_bytes(), false, n % 2 == 0));
        }
        assert_eq!(admitted(&mut limit, &at(1, [10, 0, 0, 1], true, false), 8), 8);
        let most = u64::from((OTHER.first + OTHER.telling + OTHER.regular) / 2);
        assert!(limit.take_left_out() >= 100_000 - most);
    }
}
