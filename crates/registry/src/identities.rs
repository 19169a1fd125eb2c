//! Peers with two addresses: who announces over IPv4 and IPv6 shows the same id and key at both.
//!
//! Invariant: a peer stands in the ledger at its first address, and its second one leads there. Peers with
//! an id and key are found by these, so that an announce costs the same however many peers there are.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Registry;
use super::guesses::is_guessable;
use super::ledger::{Facts, Held, HoldingsSource, Ledger, Said};
use super::select::Place;
use super::watch::{Gone, GoneWhy};
use piecework_core::{AnnounceKey, Moment, PeerId};
use piecework_proto::announce::Announce;

/// The peers of one torrent by their id and key: at most one entry for each peer with both.
pub(super) struct Identities {
    first: HashMap<Identity, SocketAddr, FixedState>,
    /// How many keys are known to come with an id.
    keys: HashMap<PeerId, u32, FixedState>,
}

/// A peer id, and the short form of the key that comes with it: peers announce that over UDP.
pub(super) type Identity = (PeerId, u32);

/// The second address of a peer.
pub(super) struct Second {
    /// The address at which the peer stands in the ledger.
    pub(super) of: SocketAddr,
    /// How often it was handed out at this one.
    pub(super) assigned: u64,
}

/// What a new announce's id and key say of who announces.
pub(super) enum Kin {
    /// It is the peer that is known at this address of the other family, by this key.
    Peer(SocketAddr, AnnounceKey),
    /// The id is that of another peer, the key is not.
    Stranger,
    /// No peer that is known here.
    Nobody,
}

impl Identities {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            first: HashMap::with_hasher(FixedState::with_seed(seed)),
            keys: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Keeps where a peer is, unless another one is known by the same id and key.
    pub(super) fn insert(&mut self, identity: Identity, addr: SocketAddr) {
        if let hashbrown::hash_map::Entry::Vacant(entry) = self.first.entry(identity) {
            entry.insert(addr);
            *self.keys.entry(identity.0).or_default() += 1;
        }
    }

    /// Forgets that a peer is at `addr`.
    pub(super) fn remove(&mut self, identity: Identity, addr: SocketAddr) {
        if self.first.get(&identity) != Some(&addr) {
            return;
        }
        self.first.remove(&identity);
        if let Some(keys) = self.keys.get_mut(&identity.0) {
            *keys -= 1;
            if *keys == 0 {
                self.keys.remove(&identity.0);
            }
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self, of: impl Fn(SocketAddr) -> Option<Identity>) {
        for (identity, addr) in &self.first {
            assert_eq!(of(*addr), Some(*identity));
        }
        let mut keys: HashMap<PeerId, u32, FixedState> = HashMap::default();
        self.first.keys().for_each(|(id, _)| *keys.entry(*id).or_default() += 1);
        assert_eq!(keys, self.keys);
    }
}

impl Facts {
    /// Who it says it is; `None` if it has not shown a key.
    pub(super) fn identity(&self) -> Option<Identity> {
        Some((self.peer_id?, self.key?.short()))
    }
}

impl Ledger {
    /// What is known of who announces at `addr` with this id and key, if it is not known there.
    pub(super) fn kin(&self, addr: SocketAddr, peer_id: PeerId, key: AnnounceKey) -> Kin {
        let Some(of) = self.identities.first.get(&(peer_id, key.short())).copied() else {
            let is_known = self.identities.keys.contains_key(&peer_id);
            return if is_known { Kin::Stranger } else { Kin::Nobody };
        };
        let known = self.get(of).filter(|facts| facts.also.is_none()).and_then(|facts| facts.key);
        match known.filter(|known| known.is_same(key)) {
            Some(known) if of.is_ipv4() != addr.is_ipv4() => Kin::Peer(of, known),
            _ => Kin::Nobody,
        }
    }

    /// Whether an announce is that of the peer at `addr`, by id and key.
    pub(super) fn is_of(&self, addr: SocketAddr, said: &Said) -> bool {
        let Some(facts) = self.get(addr) else { return false };
        let (known, told) = (facts.key, said.key);
        let is_same = known.zip(told).is_some_and(|(known, told)| known.is_same(told));
        is_same && facts.peer_id == Some(said.peer_id)
    }

    /// The peer at `of` is at `addr`, too. Returns what it was handed out there lately if `addr` is new.
    pub(super) fn join(&mut self, of: SocketAddr, addr: SocketAddr, given: u64) -> Option<u16> {
        let Some(old) = self.peers.remove(&addr) else {
            let past = self.past.remove(&addr).unwrap_or_default();
            self.attach(of, addr, past.total + given);
            return Some(past.recent);
        };
        // It was there before it said who it is.
        if let Some(identity) = old.identity() {
            self.identities.remove(identity, addr);
        }
        self.bitfield_bytes -= old.held.heap_bytes();
        self.availability.replace(&old.held, &Held::Unknown);
        if let Some(watch) = &mut self.watch {
            watch.gone(Gone { id: old.id, addr, why: GoneWhy::Joined });
        }
        self.attach(of, addr, old.assigned);
        let facts = self.peers.get_mut(&of).filter(|facts| facts.peer_id == old.peer_id)?;
        facts.observed = facts.observed.or(old.observed);
        let own_word = |facts: &Facts| {
            matches!(facts.source, Some(HoldingsSource::Reported | HoldingsSource::Observed))
        };
        if own_word(&old) && !own_word(facts) {
            self.put(old.held_at, of, old.held, old.source);
        }
        None
    }

    pub(super) fn attach(&mut self, of: SocketAddr, addr: SocketAddr, assigned: u64) {
        let Some(facts) = self.peers.get_mut(&of) else { return };
        facts.also = Some(addr);
        self.complete_seconds += u32::from(facts.complete);
        self.seconds.insert(addr, Second { of, assigned });
        if let Some(watch) = &mut self.watch {
            watch.row(of);
        }
    }

    /// A peer with two addresses is no longer at `addr`. Returns how often it was handed out there.
    pub(super) fn part(&mut self, addr: SocketAddr) -> u64 {
        let Some(other) = self.other(addr) else { return 0 };
        let assigned = match self.seconds.remove(&addr) {
            Some(second) => second.assigned,
            None => {
                // The second address takes the place of the first.
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

    /// The id or key of the peer with this first address may have changed.
    pub(super) fn renamed(&mut self, first: SocketAddr, before: Option<Identity>) {
        let now = self.peers.get(&first).and_then(Facts::identity);
        if let Some(before) = before.filter(|_| before != now) {
            self.identities.remove(before, first);
        }
        if let Some(now) = now {
            self.identities.insert(now, first);
        }
    }

    pub(super) fn set_complete(&mut self, first: SocketAddr, complete: bool) {
        let Some(facts) = self.peers.get_mut(&first) else { return };
        let was_complete = std::mem::replace(&mut facts.complete, complete);
        if facts.also.is_some() {
            self.complete_seconds += u32::from(complete);
            self.complete_seconds -= u32::from(was_complete);
        }
    }

    /// The first address of the peer at `addr`.
    pub(super) fn first(&self, addr: SocketAddr) -> SocketAddr {
        self.seconds.get(&addr).map_or(addr, |second| second.of)
    }

    /// The other address of the peer at `addr`, if it has two.
    pub(super) fn other(&self, addr: SocketAddr) -> Option<SocketAddr> {
        match self.seconds.get(&addr) {
            Some(second) => Some(second.of),
            None => self.peers.get(&addr)?.also,
        }
    }

    /// Whether this is the second address of a peer.
    pub(super) fn is_second(&self, addr: SocketAddr) -> bool {
        self.seconds.contains_key(&addr)
    }

    /// Second addresses of complete peers, and of others: peers that would be counted twice.
    pub(super) fn seconds(&self) -> (u32, u32) {
        (self.complete_seconds, self.seconds.len() as u32 - self.complete_seconds)
    }

    /// How often a peer was handed out at `addr`; `None` if it is not known there.
    pub(super) fn assigned(&self, addr: SocketAddr) -> Option<u64> {
        match self.seconds.get(&addr) {
            Some(second) => Some(second.assigned),
            None => Some(self.peers.get(&addr)?.assigned),
        }
    }
}

impl Registry {
    /// The first address of the peer that announces at `addr`, if it is known at one of the other family
    /// by its id and key. Whoever tries keys is not believed.
    pub(super) fn joins(
        &mut self,
        slot: usize,
        now: Moment,
        addr: SocketAddr,
        announce: &Announce,
    ) -> Option<SocketAddr> {
        let ledger = self.torrents[slot].ledger.as_ref()?;
        let key = announce.key?;
        match ledger.kin(addr, announce.peer_id, key) {
            Kin::Peer(of, known) => {
                let guessed = is_guessable(known, key) && self.joins.are_too_many(now, addr.ip());
                (!guessed).then_some(of)
            }
            Kin::Stranger => {
                self.joins.add(now, addr.ip());
                None
            }
            Kin::Nobody => None,
        }
    }

    /// The place of a peer's other address, if it has one.
    pub(super) fn other_place(&self, slot: usize, place: Place) -> Option<Place> {
        let torrent = &self.torrents[slot];
        let other = torrent.ledger.as_ref()?.other(torrent.addr(place))?;
        torrent.find(other.ip(), other.port(), &self.hasher)
    }

    /// What a peer announced at `addr` of being complete holds at its other address, too.
    pub(super) fn tell_other(&mut self, slot: usize, addr: SocketAddr) {
        let torrent = &mut self.torrents[slot];
        let Some(ledger) = &torrent.ledger else { return };
        let Some((other, facts)) = ledger.other(addr).zip(ledger.get(addr)) else { return };
        let complete = facts.complete;
        if let Some(place) = torrent.find(other.ip(), other.port(), &self.hasher) {
            torrent.set_complete(place, complete, &self.hasher);
        }
    }
}
