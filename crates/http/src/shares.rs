//! Places for connections or streams, limited for each client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Senders;
use piecework_core::network_of;

/// The places, the limit for each client, and who has them.
///
/// A client is an IPv4 address or IPv6 /64. Loopback, which proxies and all users of the machine share, may have
/// three quarters of all places, and each user of the machine half of these.
#[derive(Debug)]
pub(super) struct SharedPlaces {
    most: usize,
    most_per_network: usize,
    taken: usize,
    by_network: HashMap<IpAddr, usize>,
    /// The connections from this machine, with their users.
    local: Vec<SocketAddr>,
}

/// Why there is no place left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All places are taken.
    InAll,
    /// The client has reached its limit.
    ToOne,
}

impl SharedPlaces {
    pub(crate) fn new(most: usize, most_per_network: usize) -> Self {
        Self { most, most_per_network, taken: 0, by_network: HashMap::new(), local: Vec::new() }
    }

    /// Takes a place for `peer`. `senders` returns the users of local connections.
    pub(crate) fn take(
        &mut self,
        peer: SocketAddr,
        senders: fn() -> Senders,
    ) -> Result<(), NoPlace> {
        if self.taken >= self.most {
            return Err(NoPlace::InAll);
        }
        let network = network_of(peer.ip());
        if network.is_loopback() {
            self.take_local(peer, senders)?;
        } else {
            let here = self.by_network.entry(network).or_default();
            if *here >= self.most_per_network {
                return Err(NoPlace::ToOne);
            }
            *here += 1;
        }
        self.taken += 1;
        Ok(())
    }

    fn take_local(&mut self, peer: SocketAddr, senders: fn() -> Senders) -> Result<(), NoPlace> {
        let (all, each) = (self.most - self.most / 4, self.each_user());
        if self.local.len() >= all {
            return Err(NoPlace::ToOne);
        }
        // Nobody can exceed a share before this many are taken.
        if self.local.len() >= each {
            let senders = senders();
            let user = senders.user_of(peer);
            let same = self.local.iter().filter(|other| senders.user_of(**other) == user);
            if same.count() >= each {
                return Err(NoPlace::ToOne);
            }
        }
        self.local.push(peer);
        Ok(())
    }

    /// Returns the limit for each user of this machine.
    pub(crate) fn each_user(&self) -> usize {
        (self.most - self.most / 4).div_ceil(2)
    }

    /// Takes a place that counts for no client.
    pub(crate) fn take_shared(&mut self) -> Result<(), NoPlace> {
        if self.taken >= self.most {
            return Err(NoPlace::InAll);
        }
        self.taken += 1;
        Ok(())
    }

    /// Releases a place of [`SharedPlaces::take_shared`].
    pub(crate) fn give_back_shared(&mut self) {
        self.taken -= 1;
    }

    /// Releases the place of `peer`.
    pub(crate) fn give_back(&mut self, peer: SocketAddr) {
        self.taken -= 1;
        let network = network_of(peer.ip());
        if network.is_loopback() {
            let at = self.local.iter().position(|other| *other == peer);
            at.map(|at| self.local.swap_remove(at));
        } else if let Some(here) = self.by_network.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    /// Returns the number of taken places.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Users 1 and 2, by the hundreds of the port.
    fn two_users() -> Senders {
        let users = (100..300).map(|port| (peer(&format!("127.0.0.1:{port}")), port / 100));
        Senders::of(users)
    }

    #[test]
    fn places_are_bounded_by_network_and_in_all_and_given_back() {
        let mut shares = SharedPlaces::new(3, 1);
        let mut take = |addr: &str| shares.take(peer(addr), two_users);
        assert_eq!(take("192.0.2.1:1"), Ok(()));
        assert_eq!(take("192.0.2.1:2"), Err(NoPlace::ToOne));
        assert_eq!(take("[::ffff:192.0.2.1]:1"), Err(NoPlace::ToOne));
        assert_eq!(take("192.0.2.2:1"), Ok(()));
        assert_eq!(take("127.0.0.1:1"), Ok(()));
        assert_eq!(take("192.0.2.3:1"), Err(NoPlace::InAll));
        shares.give_back(peer("192.0.2.1:1"));
        assert_eq!(shares.take(peer("192.0.2.1:3"), two_users), Ok(()));
        for addr in ["192.0.2.1:3", "192.0.2.2:1", "127.0.0.1:1"] {
            shares.give_back(peer(addr));
        }
        assert!(shares.taken() == 0 && shares.by_network.is_empty() && shares.local.is_empty());
    }

    #[test]
    fn no_user_of_this_machine_takes_the_places_of_another_or_of_other_machines() {
        let mut shares = SharedPlaces::new(40, 10);
        let mut take = |addr: String| shares.take(peer(&addr), two_users);
        let mut counts = [0; 3];
        for port in 100..200 {
            counts[0] += usize::from(take(format!("127.0.0.1:{port}")).is_ok());
        }
        for port in 200..300 {
            counts[1] += usize::from(take(format!("127.0.0.1:{port}")).is_ok());
        }
        for host in 0..20 {
            counts[2] += usize::from(take(format!("192.0.2.{host}:1")).is_ok());
        }
        assert_eq!(counts, [15, 15, 10]);
    }
}
