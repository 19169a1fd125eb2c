//! The table of one catalogued torrent's peers.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{AnnounceKey, Moment, PieceIndex};

use super::facts::{Identity, PeerFacts};
use super::identities::{Identities, SecondAddress};
use crate::availability::{Availability, Copies};
use crate::growth::Growth;
use crate::holdings::{Holdings, HoldingsSource};
use crate::watch::SwarmWatch;

/// How often a peer was handed out to others. Survives a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// The total count.
    pub total: u64,
    /// The recent count, which is halved every half-life.
    pub recent: u16,
}

/// The facts about all peers of one torrent.
pub(crate) struct Ledger {
    pub pieces: u32,
    /// The peers by their first address.
    pub(crate) peers: HashMap<SocketAddr, PeerFacts, FixedState>,
    /// The second addresses.
    pub(crate) seconds: HashMap<SocketAddr, SecondAddress, FixedState>,
    /// The number of second addresses of complete peers.
    pub(crate) complete_seconds: u32,
    pub identities: Identities,
    /// The load of peers that left, so that a peer that comes back does not count as unused.
    pub(crate) past: BTreeMap<SocketAddr, Load>,
    pub(crate) availability: Availability,
    /// Exists while somebody watches the torrent.
    pub watch: Option<Box<SwarmWatch>>,
    /// Whether something that is saved for a restart has changed.
    pub dirty: bool,
    /// Whether the observer may connect to the peers.
    pub observe: bool,
    /// The second of the last announce.
    announced_second: Option<u64>,
    pub(crate) bitfield_bytes: usize,
}

impl Ledger {
    pub(crate) fn new(pieces: u32, observe: bool, seed: u64) -> Self {
        Self {
            pieces,
            peers: HashMap::with_hasher(FixedState::with_seed(seed)),
            seconds: HashMap::with_hasher(FixedState::with_seed(seed)),
            complete_seconds: 0,
            identities: Identities::new(seed),
            past: BTreeMap::new(),
            availability: Availability::new(pieces),
            watch: None,
            dirty: false,
            observe,
            announced_second: None,
            bitfield_bytes: 0,
        }
    }

    /// Counts that a peer was handed out at `addr`.
    pub(crate) fn assign(&mut self, addr: SocketAddr) {
        let assigned = match self.seconds.get_mut(&addr) {
            Some(second) => Some(&mut second.assigned),
            None => self.peers.get_mut(&addr).map(|facts| &mut facts.assigned),
        };
        if let Some(assigned) = assigned {
            *assigned += 1;
            self.dirty = true;
        }
    }

    /// Records that the torrent is announced now. Returns whether it is the first time in this second.
    pub(crate) fn is_first_in_second(&mut self, now: Moment) -> bool {
        let second = Some(now.since_start().as_secs());
        std::mem::replace(&mut self.announced_second, second) != second
    }

    /// Keeps the load of a peer that is not listed now.
    pub(crate) fn remember(&mut self, addr: SocketAddr, assigned: Load) {
        if self.past.len() >= MAX_PAST && !self.past.contains_key(&addr) {
            // Drops the smallest load. Scans a thousand entries, but only when the table is full.
            let least = self.past.iter().min_by_key(|(_, past)| past.total).map(|(addr, _)| *addr);
            if let Some(least) = least {
                self.past.remove(&least);
            }
        }
        self.past.insert(addr, assigned);
    }

    pub(crate) fn halve(&mut self, times: u32) {
        for past in self.past.values_mut() {
            past.recent = past.recent.checked_shr(times).unwrap_or(0);
        }
    }

    /// Records a peer's reported or observed holdings, and that it was heard from.
    pub(crate) fn told(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        held: Holdings,
        source: HoldingsSource,
    ) {
        if let Some(facts) = self.get_mut(addr) {
            facts.heard = facts.heard.max(now);
            self.put(now, addr, held, Some(source));
        }
    }

    /// Adds a piece to a peer that is known by its bitfield. Returns whether the piece is new.
    pub(crate) fn got(&mut self, now: Moment, addr: SocketAddr, piece: PieceIndex) -> bool {
        let addr = self.first(addr);
        let Some(facts) = self.peers.get_mut(&addr) else { return false };
        let Holdings::Pieces(held) = &mut facts.held else { return false };
        if !held.insert(piece) {
            return false;
        }
        facts.growth.grew(now, 1);
        facts.held_at = facts.held_at.max(now);
        let full = held.is_full();
        self.availability.add(piece);
        if let Some(watch) = &mut self.watch {
            watch.piece(addr, piece);
        }
        if full && let Some(facts) = self.peers.get_mut(&addr) {
            // Most peers become complete, and then need no bitfield.
            let bits = std::mem::replace(&mut facts.held, Holdings::Everything);
            self.bitfield_bytes -= bits.heap_bytes();
            self.availability.replace(&bits, &Holdings::Everything);
        }
        true
    }

    /// Replaces a peer's holdings.
    pub(crate) fn put(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        held: Holdings,
        source: Option<HoldingsSource>,
    ) {
        let addr = self.first(addr);
        let Some(facts) = self.peers.get_mut(&addr) else { return };
        let own_word =
            |source| matches!(source, Some(HoldingsSource::Reported | HoldingsSource::Observed));
        let counts = (facts.held.count(self.pieces), held.count(self.pieces));
        match counts {
            (Some(old), Some(new)) if own_word(facts.source) && own_word(source) && old <= new => {
                facts.growth.grew(now, new - old);
            }
            _ => facts.growth = Growth::new(now),
        }
        let renamed = facts.source != source;
        (facts.source, facts.held_at) = (source, now);
        let old = std::mem::replace(&mut facts.held, held);
        self.bitfield_bytes -= old.heap_bytes();
        self.bitfield_bytes += facts.held.heap_bytes();
        if old != facts.held {
            self.availability.replace(&old, &facts.held);
        }
        if let Some(watch) = &mut self.watch {
            if renamed {
                watch.row(addr);
            } else {
                watch.replaced(addr, &old, &facts.held);
            }
        }
    }

    /// Returns the facts of the peer at `addr`, which may be its second address.
    pub(crate) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut PeerFacts> {
        let first = self.first(addr);
        self.peers.get_mut(&first)
    }

    /// Returns all peers by their first address, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &PeerFacts)> {
        self.peers.iter().map(|(addr, facts)| (*addr, facts))
    }

    /// Returns how many peers hold each piece.
    pub(crate) fn counts(&self) -> Vec<u32> {
        self.availability.counts()
    }

    /// Returns the distributed copies.
    pub(crate) fn copies(&self) -> Copies {
        self.availability.copies()
    }

    /// Returns the additional heap bytes once the holdings of the peer at `addr` are replaced by `held`.
    pub(crate) fn bytes_for(&self, addr: SocketAddr, held: &Holdings) -> usize {
        let new = held.heap_bytes();
        if new == 0 {
            return 0;
        }
        let old = self.get(addr).map_or(0, |facts| facts.held.heap_bytes());
        let counts = self.availability.full_heap_bytes() - self.availability.heap_bytes();
        (new + counts).saturating_sub(old)
    }

    /// Returns the facts of the peer at `addr`, which may be its second address.
    pub(crate) fn get(&self, addr: SocketAddr) -> Option<&PeerFacts> {
        self.peers.get(&self.first(addr))
    }

    /// Returns the first addresses and keys of the peers that announce `port`.
    pub(crate) fn keys_at_port(
        &self,
        port: u16,
    ) -> impl Iterator<Item = (SocketAddr, AnnounceKey)> + '_ {
        let there = self.peers.iter().filter(move |(addr, facts)| {
            addr.port() == port || facts.also.is_some_and(|addr| addr.port() == port)
        });
        there.filter_map(|(addr, facts)| Some((*addr, facts.key?)))
    }

    pub(crate) fn past(&self) -> impl Iterator<Item = (SocketAddr, Load)> + '_ {
        self.past.iter().map(|(addr, past)| (*addr, *past))
    }

    /// Returns the number of heap bytes of the holdings.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bitfield_bytes + self.availability.heap_bytes()
    }

    /// Updates the index after the id or key of the peer with this first address may have changed.
    pub(crate) fn renamed(&mut self, first: SocketAddr, before: Option<Identity>) {
        let now = self.peers.get(&first).and_then(PeerFacts::identity);
        if let Some(before) = before.filter(|_| before != now) {
            self.identities.remove(before, first);
        }
        if let Some(now) = now {
            self.identities.insert(now, first);
        }
    }

    pub(crate) fn set_complete(&mut self, first: SocketAddr, complete: bool) {
        let Some(facts) = self.peers.get_mut(&first) else { return };
        let was_complete = std::mem::replace(&mut facts.complete, complete);
        if facts.also.is_some() {
            self.complete_seconds += u32::from(complete);
            self.complete_seconds -= u32::from(was_complete);
        }
    }

    /// Returns the first address of the peer at `addr`.
    pub(crate) fn first(&self, addr: SocketAddr) -> SocketAddr {
        self.seconds.get(&addr).map_or(addr, |second| second.of)
    }

    /// Returns the other address of the peer at `addr`, if it has two.
    pub(crate) fn other(&self, addr: SocketAddr) -> Option<SocketAddr> {
        match self.seconds.get(&addr) {
            Some(second) => Some(second.of),
            None => self.peers.get(&addr)?.also,
        }
    }

    /// Returns whether this is the second address of a peer.
    pub(crate) fn is_second(&self, addr: SocketAddr) -> bool {
        self.seconds.contains_key(&addr)
    }

    /// Returns the numbers of second addresses of complete and of incomplete peers. These peers would otherwise count
    /// twice.
    pub(crate) fn seconds(&self) -> (u32, u32) {
        (self.complete_seconds, u32::saturating_from(self.seconds.len()) - self.complete_seconds)
    }

    /// Returns how often a peer was handed out at `addr`; `None` if there is no peer.
    pub(crate) fn assigned(&self, addr: SocketAddr) -> Option<u64> {
        match self.seconds.get(&addr) {
            Some(second) => Some(second.assigned),
            None => Some(self.peers.get(&addr)?.assigned),
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self) {
        let held: usize = self.peers.values().map(|facts| facts.held.heap_bytes()).sum();
        assert_eq!(held, self.bitfield_bytes);
        let counts: Vec<u32> = (0..self.pieces)
            .map(|piece| self.peers.values().filter(|f| f.held.contains(PieceIndex(piece))).count())
            .map(u32::saturating_from)
            .collect();
        assert_eq!(counts, self.availability.counts());
        assert_eq!(Copies::of(&counts, 0), self.availability.copies());
        assert!(self.past.len() <= MAX_PAST);
        assert!(self.past.keys().all(|addr| self.get(*addr).is_none()));
        self.identities.check(|addr| self.peers[&addr].identity());
        let paired = self.peers.iter().filter_map(|(addr, facts)| Some((*addr, facts.also?)));
        assert_eq!(paired.clone().count(), self.seconds.len());
        for (first, second) in paired.clone() {
            assert!(self.seconds[&second].of == first && !self.peers.contains_key(&second));
            assert_ne!(first.is_ipv4(), second.is_ipv4());
        }
        let complete = paired.filter(|(first, _)| self.peers[first].complete).count();
        assert_eq!(u32::saturating_from(complete), self.complete_seconds);
        for facts in self.peers.values() {
            let observed = facts.observed.map(|(at, _)| self.get(at).map(|other| other.id));
            assert!(observed.is_none_or(|id| id == Some(facts.id)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }
}

/// The maximum number of departed peers of one torrent whose load is kept.
const MAX_PAST: usize = 1_000;
