//! Peers with two addresses. A peer that announces over IPv4 and IPv6 uses the same id and key at both.
//!
//! Invariant: the ledger has a peer at its first address, and maps its second address to the first.

use std::net::SocketAddr;

use piecework_core::{AnnounceKey, PeerId};

use super::facts::PeerFacts;
use super::identities::{IdentityMatch, SecondAddress};
use super::table::Ledger;
use crate::holdings::{Holdings, HoldingsSource};
use crate::watch::{Departure, DepartureCause};

/// The parts of an announce that the ledger needs.
pub(crate) struct AnnounceClaim {
    pub peer_id: PeerId,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub restarted: bool,
    /// The first address of the peer that has this id and key.
    pub joins: Option<SocketAddr>,
}

impl Ledger {
    /// Matches the id and key of an announce from `addr`, where they are not known, with the peers of the ledger.
    pub(crate) fn kin(&self, addr: SocketAddr, peer_id: PeerId, key: AnnounceKey) -> IdentityMatch {
        let Some(of) = self.identities.find((peer_id, key.short())) else {
            let is_known = self.identities.knows(peer_id);
            return if is_known { IdentityMatch::Stranger } else { IdentityMatch::Nobody };
        };
        let known = self.get(of).filter(|facts| facts.also.is_none()).and_then(|facts| facts.key);
        match known.filter(|known| known.is_same(key)) {
            Some(known) if of.is_ipv4() != addr.is_ipv4() => IdentityMatch::Peer(of, known),
            _ => IdentityMatch::Nobody,
        }
    }

    /// Returns whether an announce has the id and key of the peer at `addr`.
    pub(crate) fn is_of(&self, addr: SocketAddr, said: &AnnounceClaim) -> bool {
        let Some(facts) = self.get(addr) else { return false };
        let (known, told) = (facts.key, said.key);
        let is_same = known.zip(told).is_some_and(|(known, told)| known.is_same(told));
        is_same && facts.peer_id == Some(said.peer_id)
    }

    /// Makes `addr` the second address of the peer at `of`. Returns how often it was recently handed out at `addr`,
    /// if that address is new.
    pub(crate) fn join(&mut self, of: SocketAddr, addr: SocketAddr, given: u64) -> Option<u16> {
        let Some(old) = self.peers.remove(&addr) else {
            let past = self.past.remove(&addr).unwrap_or_default();
            self.attach(of, addr, past.total + given);
            return Some(past.recent);
        };
        // The peer was listed at `addr` before its key showed who it is.
        if let Some(identity) = old.identity() {
            self.identities.remove(identity, addr);
        }
        self.bitfield_bytes -= old.held.heap_bytes();
        self.availability.replace(&old.held, &Holdings::Unknown);
        if let Some(watch) = &mut self.watch {
            watch.gone(Departure { id: old.id, addr, why: DepartureCause::Joined });
        }
        self.attach(of, addr, old.assigned);
        let facts = self.peers.get_mut(&of).filter(|facts| facts.peer_id == old.peer_id)?;
        facts.observed = facts.observed.or(old.observed);
        let own_word = |facts: &PeerFacts| {
            matches!(facts.source, Some(HoldingsSource::Reported | HoldingsSource::Observed))
        };
        if own_word(&old) && !own_word(facts) {
            self.put(old.held_at, of, old.held, old.source);
        }
        None
    }

    pub(crate) fn attach(&mut self, of: SocketAddr, addr: SocketAddr, assigned: u64) {
        let Some(facts) = self.peers.get_mut(&of) else { return };
        facts.also = Some(addr);
        self.complete_seconds += u32::from(facts.complete);
        self.seconds.insert(addr, SecondAddress { of, assigned });
        if let Some(watch) = &mut self.watch {
            watch.row(of);
        }
    }

    /// Removes one address, `addr`, of a peer with two. Returns how often the peer was handed out there.
    pub(crate) fn part(&mut self, addr: SocketAddr) -> u64 {
        let Some(other) = self.other(addr) else { return 0 };
        let assigned = match self.seconds.remove(&addr) {
            Some(second) => second.assigned,
            None => {
                // The second address becomes the first.
                let (second, facts) = (self.seconds.remove(&other), self.peers.remove(&addr));
                let Some((second, mut facts)) = second.zip(facts) else { return 0 };
                let assigned = std::mem::replace(&mut facts.assigned, second.assigned);
                if let Some(identity) = facts.identity() {
                    self.identities.remove(identity, addr);
                    self.identities.insert(identity, other);
                }
                self.peers.insert(other, facts);
                if let Some(watch) = &mut self.watch {
                    watch.moved(addr);
                }
                assigned
            }
        };
        if let Some(facts) = self.peers.get_mut(&other) {
            facts.also = None;
            facts.observed = facts.observed.filter(|(at, _)| *at != addr);
            self.complete_seconds -= u32::from(facts.complete);
        }
        if let Some(watch) = &mut self.watch {
            watch.row(other);
        }
        assigned
    }
}
