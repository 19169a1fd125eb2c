//! The address at which other nodes see us.

use std::collections::VecDeque;
use std::net::IpAddr;

use piecework_core::{Scope, scope_of};

use super::address::subnet_of;

/// What the last nodes said, one for each network.
#[derive(Default)]
pub(crate) struct Votes {
    votes: VecDeque<(IpAddr, IpAddr)>,
    chosen: Option<IpAddr>,
}

impl Votes {
    /// Records that a node at `voter` saw us at `ip`. Returns the address if the majority now names another one than
    /// before.
    pub(crate) fn add(&mut self, voter: IpAddr, ip: IpAddr) -> Option<IpAddr> {
        let ip = ip.to_canonical();
        // A neighbour sees another address than the internet does.
        let network = subnet_of(voter)?;
        if scope_of(ip) != Scope::Global {
            return None;
        }
        self.votes.retain(|(other, _)| *other != network);
        if self.votes.len() >= COUNTED {
            self.votes.pop_front();
        }
        self.votes.push_back((network, ip));
        let count = self.votes.iter().filter(|(_, named)| *named == ip).count();
        if count < NEEDED || count * 2 <= self.votes.len() || self.chosen == Some(ip) {
            return None;
        }
        self.chosen = Some(ip);
        Some(ip)
    }

    /// Returns the address that the majority named last.
    pub(crate) fn chosen(&self) -> Option<IpAddr> {
        self.chosen
    }
}

/// A liar with a few networks is outvoted.
const COUNTED: usize = 32;

/// The least number of networks that agree.
const NEEDED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(n: u8) -> IpAddr {
        [9, 9, n, 7].into()
    }

    #[test]
    fn many_distinct_networks_have_to_agree() {
        let mut votes = Votes::default();
        let ip = IpAddr::from([8, 8, 8, 8]);
        // One network has one vote.
        assert!((0..100).all(|n| votes.add([9, 9, 9, n].into(), ip).is_none()));
        let chosen: Vec<u8> = (0..20).filter(|n| votes.add(voter(*n), ip).is_some()).collect();
        assert_eq!(chosen, [6]);
        assert_eq!(votes.chosen(), Some(ip));
    }

    #[test]
    fn a_minority_is_outvoted() {
        let mut votes = Votes::default();
        let (right, wrong) = (IpAddr::from([8, 8, 8, 8]), IpAddr::from([7, 7, 7, 7]));
        for n in 0..=255 {
            let chosen = votes.add(voter(n), if n % 5 < 2 { wrong } else { right });
            assert_ne!(chosen, Some(wrong));
        }
        assert_eq!(votes.chosen(), Some(right));
    }

    #[test]
    fn a_new_address_is_believed_when_the_majority_names_it() {
        let mut votes = Votes::default();
        let (old, new) = (IpAddr::from([8, 8, 8, 8]), IpAddr::from([7, 7, 7, 7]));
        (0..32).for_each(|n| _ = votes.add(voter(n), old));
        let at = (0..32).find(|n| votes.add(voter(100 + n), new).is_some());
        assert_eq!(at, Some(16));
    }

    #[test]
    fn private_addresses_are_no_votes() {
        let mut votes = Votes::default();
        assert!((0..50).all(|n| votes.add(voter(n), [10, 0, 0, 1].into()).is_none()));
        assert!((0..50).all(|n| votes.add([10, 0, n, 1].into(), voter(1)).is_none()));
    }
}
