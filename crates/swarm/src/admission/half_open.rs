//! Connections before their handshake is completed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use piecework_core::network_of;

/// Identifies a connection in a [`HalfOpen`]. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A bounded number of half-open connections, whose handshake is not completed. A new one is always let in.
/// If there are too many then, the oldest one of the network that has the most makes way.
#[derive(Debug)]
pub struct HalfOpen {
    most: usize,
    next: u64,
    networks: BTreeMap<IpAddr, BTreeSet<Ticket>>,
    tickets: BTreeMap<Ticket, IpAddr>,
}

impl HalfOpen {
    /// Creates a set of at most `most` connections, but at least one.
    pub fn new(most: usize) -> Self {
        let (networks, tickets) = (BTreeMap::new(), BTreeMap::new());
        Self { most: most.max(1), next: 0, networks, tickets }
    }

    /// Lets a connection from `ip` in. Returns its ticket, and that of the connection that must be closed
    /// for it, which was removed already.
    pub fn admit(&mut self, ip: IpAddr) -> (Ticket, Option<Ticket>) {
        let ticket = Ticket(self.next);
        self.next += 1;
        let network = network_of(ip);
        self.networks.entry(network).or_default().insert(ticket);
        self.tickets.insert(ticket, network);
        let evicted = if self.tickets.len() > self.most { self.evict() } else { None };
        (ticket, evicted)
    }

    /// Removes the connection to close next: the oldest one of the network that has the most. Returns
    /// `None` if there are no connections.
    pub fn evict(&mut self) -> Option<Ticket> {
        let oldest = |tickets: &BTreeSet<Ticket>| tickets.first().copied();
        let largest = self
            .networks
            .values()
            .max_by_key(|tickets| (tickets.len(), std::cmp::Reverse(oldest(tickets))));
        let ticket = largest.and_then(oldest)?;
        self.leave(ticket);
        Some(ticket)
    }

    /// Removes a connection that is closed, or whose handshake is completed.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(network) = self.tickets.remove(&ticket) else { return };
        if let Some(tickets) = self.networks.get_mut(&network) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.networks.remove(&network);
            }
        }
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Returns whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(198, 51, 100, last).into()
    }

    #[test]
    fn the_oldest_of_the_address_with_most_makes_way() {
        let mut open = HalfOpen::new(4);
        let (honest, none) = open.admit(ip(1));
        assert_eq!(none, None);
        let flood: Vec<Ticket> = (0..3).map(|_| open.admit(ip(2)).0).collect();
        assert_eq!(open.admit(ip(2)).1, Some(flood[0]));
        assert_eq!(open.admit(ip(3)).1, Some(flood[1]));
        open.leave(honest);
        assert_eq!(open.len(), 3);
        assert_eq!(open.admit(ip(1)).1, None);
    }

    #[test]
    fn addresses_of_one_ipv6_subscriber_count_as_one() {
        let mut open = HalfOpen::new(2);
        let (first, _) = open.admit("2001:db8:1:1::1".parse().unwrap());
        open.admit("2001:db8:1:1::2".parse().unwrap());
        assert_eq!(open.admit("2001:db8:1:2::1".parse().unwrap()).1, Some(first));
    }

    proptest! {
        #[test]
        fn whoever_has_fewer_than_another_is_never_closed(
            most in 1..20usize,
            steps in prop::collection::vec((0..6u8, prop::option::of(0..40usize)), 1..200),
        ) {
            let mut open = HalfOpen::new(most);
            let mut live: Vec<(Ticket, u8)> = Vec::new();
            for (from, leaves) in steps {
                let (ticket, evicted) = open.admit(ip(from));
                live.push((ticket, from));
                let count = |of: u8| live.iter().filter(|(_, other)| *other == of).count();
                if let Some(evicted) = evicted {
                    prop_assert_eq!(live.len(), most + 1);
                    let (_, of) = *live.iter().find(|(other, _)| *other == evicted).unwrap();
                    prop_assert!((0..6).all(|other| count(other) <= count(of)));
                    let oldest = live.iter().filter(|(_, other)| *other == of).map(|(t, _)| *t);
                    prop_assert_eq!(oldest.min(), Some(evicted));
                    live.retain(|(other, _)| *other != evicted);
                }
                if let Some(at) = leaves.filter(|at| *at < live.len()) {
                    open.leave(live.remove(at).0);
                }
                prop_assert!(open.len() == live.len() && live.len() <= most);
            }
        }
    }
}
