//! What is known about the peers of one catalogued torrent beyond their address: who they say
//! they are, what they hold and where that is known from, and how often they were handed out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::availability::{Availability, Copies};
use super::growth::Growth;
use super::kept::KeptPeer;
use super::watch::Watch;
use crate::base::{AnnounceKey, Bitfield, Moment, PeerId, PieceIndex};

/// Which pieces a peer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// Every piece.
    Everything,
    /// These.
    Pieces(Bitfield),
    /// Nobody told us.
    Unknown,
}

/// Where it is known from which pieces a peer holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HoldingsSource {
    /// The peer reported its bitfield to us.
    Reported,
    /// We connected to it and read its bitfield.
    Observed,
    /// It announced that nothing is left to get.
    Announced,
}

/// How often a peer was handed out to others: what survives a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Assigned {
    /// In all.
    pub total: u64,
    /// Lately: halved every half-life.
    pub recent: u16,
}

/// A peer's facts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Its own as long as the registry lives.
    pub id: u64,
    /// `None` if it has not announced since the torrent was catalogued; so are the next two.
    pub peer_id: Option<PeerId>,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub held: Held,
    pub source: Option<HoldingsSource>,
    /// When the peer last told or showed what it holds.
    pub held_at: Moment,
    pub assigned: u64,
    pub joined: Moment,
    /// When it announced last, and when it was heard of last in any way.
    pub announced: Moment,
    pub heard: Moment,
    /// When it showed its key last.
    pub keyed: Moment,
    /// It got something by its last announce, and what it shows has not changed since the one before.
    pub stale: bool,
    /// Who it says it is on the connection that we have to it.
    pub observed: Option<PeerId>,
    /// It took the last connection of who observes, and closed it at the handshake.
    pub closes: bool,
    pub growth: Growth,
}

/// The side table of one torrent.
pub(super) struct Ledger {
    pub pieces: u32,
    peers: HashMap<SocketAddr, Facts, FixedState>,
    /// Peers that left, so that one who comes back is not taken for one who never gave.
    past: BTreeMap<SocketAddr, Assigned>,
    availability: Availability,
    /// There while somebody looks.
    pub watch: Option<Box<Watch>>,
    /// Something that is kept over restarts has changed.
    pub dirty: bool,
    /// Its peers may be connected to.
    pub observe: bool,
    bitfield_bytes: usize,
}

impl Held {
    /// How many of `pieces` pieces; `None` if nobody told.
    pub fn count(&self, pieces: u32) -> Option<u32> {
        match self {
            Self::Everything => Some(pieces),
            Self::Pieces(held) => Some(held.count()),
            Self::Unknown => None,
        }
    }

    /// Whether it is known that `piece` is held.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Everything => true,
            Self::Pieces(held) => held.contains(piece),
            Self::Unknown => false,
        }
    }

    /// What a bitfield says, whole ones in the form that costs nothing.
    pub(super) fn of(bits: Bitfield) -> Self {
        if bits.is_full() { Self::Everything } else { Self::Pieces(bits) }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Pieces(held) => held.as_wire().len(),
            Self::Everything | Self::Unknown => 0,
        }
    }
}

impl HoldingsSource {
    /// One word, as the console and the JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Observed => "observed",
            Self::Announced => "announced",
        }
    }
}

impl Facts {
    /// Of a peer of which nothing is known yet.
    fn new(now: Moment, id: u64) -> Self {
        Self {
            id,
            peer_id: None,
            key: None,
            left: None,
            held: Held::Unknown,
            source: None,
            held_at: now,
            assigned: 0,
            joined: now,
            announced: now,
            heard: now,
            keyed: now,
            stale: false,
            observed: None,
            closes: false,
            growth: Growth::new(now),
        }
    }

    /// Whether it holds no more than it says. Super-seeders (BEP 16) say that nothing is left to
    /// get, and show their pieces one by one.
    pub(super) fn is_sure(&self) -> bool {
        match self.held {
            Held::Everything => true,
            Held::Unknown => false,
            Held::Pieces(_) => self.left != Some(0),
        }
    }
}

impl Ledger {
    pub(super) fn new(pieces: u32, observe: bool, seed: u64) -> Self {
        Self {
            pieces,
            peers: HashMap::with_hasher(FixedState::with_seed(seed)),
            past: BTreeMap::new(),
            availability: Availability::new(pieces),
            watch: None,
            dirty: false,
            observe,
            bitfield_bytes: 0,
        }
    }

    /// Takes in a peer that announced before the torrent was catalogued, `id` being its number and
    /// `given` how often it was handed out.
    pub(super) fn adopt(&mut self, now: Moment, id: u64, addr: SocketAddr, all: bool, given: u16) {
        let mut facts = Facts::new(now, id);
        facts.assigned = u64::from(given);
        self.peers.insert(addr, facts);
        if all {
            self.put(now, addr, Held::Everything, Some(HoldingsSource::Announced));
        }
    }

    /// The key of the peer at `addr`, if it has one and has shown it within `alive`. Whoever shows another one
    /// is somebody else.
    pub(super) fn key_of(
        &self,
        now: Moment,
        addr: SocketAddr,
        alive: Duration,
    ) -> Option<AnnounceKey> {
        let facts = self.peers.get(&addr)?;
        facts.key.filter(|_| now.since(facts.keyed) <= alive)
    }

    /// The peer at `addr` has shown its key, or one that takes the place of an old one.
    pub(super) fn showed_key(&mut self, now: Moment, addr: SocketAddr, key: AnnounceKey) {
        let Some(facts) = self.peers.get_mut(&addr) else { return };
        facts.keyed = facts.keyed.max(now);
        // The short form of the same key says less.
        if !facts.key.is_some_and(|known| known.is_long() && known.is_same(key)) {
            facts.key = Some(key);
        }
    }

    /// The peer itself announced; gives what it was handed out lately if it was here before. `id` is taken
    /// for one that is new, `given` is how often it was handed out while the table did not know it.
    pub(super) fn announced(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: Said,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let mut recent = None;
        let facts = match self.peers.entry(addr) {
            hashbrown::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hashbrown::hash_map::Entry::Vacant(entry) => {
                let past = self.past.remove(&addr).unwrap_or_default();
                recent = Some(past.recent);
                *id += 1;
                let mut facts = Facts::new(now, *id);
                facts.assigned = past.total + u64::from(given);
                entry.insert(facts)
            }
        };
        let is_other = facts.peer_id.is_some_and(|known| known != said.peer_id);
        let changed = is_other || facts.left != said.left;
        // What is read from a connection to this very peer holds, however often it says that it
        // has started: some do so to each address of ours. libtorrent bears another ID on each
        // connection than it announces; it is the same as long as it announces the same.
        let observed = facts.observed.is_some_and(|shown| shown == said.peer_id || !is_other);
        let anew = (said.restarted || is_other) && !observed;
        let got = facts.left.zip(said.left).is_some_and(|(before, now)| now < before);
        let shown = facts.source == Some(HoldingsSource::Observed);
        facts.stale =
            got && shown && facts.held != Held::Everything && facts.held_at <= facts.announced;
        facts.peer_id = Some(said.peer_id);
        facts.left = said.left;
        (facts.announced, facts.heard) = (now, facts.heard.max(now));
        let source = facts.source.filter(|_| !anew);
        let has_everything = facts.held == Held::Everything;
        if let Some(key) = said.key {
            self.showed_key(now, addr, key);
        }
        let becomes = match (said.left, source) {
            // The last HAVEs may still be on the way; and a super-seeder shows to whom it is
            // connected what it wants to be asked for.
            (Some(0), Some(HoldingsSource::Observed)) if observed => None,
            (Some(0), _) if has_everything && !anew => {
                // It says so once more.
                if let Some(facts) = self.peers.get_mut(&addr) {
                    facts.held_at = facts.held_at.max(now);
                }
                None
            }
            (Some(0), _) => Some((Held::Everything, Some(HoldingsSource::Announced))),
            (_, Some(HoldingsSource::Announced)) => Some((Held::Unknown, None)),
            // It lost some since it was seen.
            (_, Some(HoldingsSource::Observed)) if !observed && has_everything => {
                Some((Held::Unknown, None))
            }
            _ if anew => Some((Held::Unknown, None)),
            _ => None,
        };
        if let Some((held, source)) = becomes {
            self.put(now, addr, held, source);
        }
        if let Some(watch) = &mut self.watch
            && (changed || recent.is_some())
        {
            watch.row(addr);
        }
        recent
    }

    /// Takes in a peer that was there before a restart, `seen` last. Returns how often it was handed
    /// out lately.
    pub(super) fn restored(
        &mut self,
        id: u64,
        addr: SocketAddr,
        kept: &KeptPeer,
        seen: Moment,
    ) -> u16 {
        let past = self.past.remove(&addr).unwrap_or_default();
        let mut facts = Facts::new(seen, id);
        (facts.peer_id, facts.key, facts.left) = (kept.peer_id, kept.key, kept.left);
        facts.assigned = past.total;
        self.peers.insert(addr, facts);
        past.recent
    }

    /// A peer was handed out.
    pub(super) fn assign(&mut self, addr: SocketAddr) {
        if let Some(facts) = self.peers.get_mut(&addr) {
            facts.assigned += 1;
            self.dirty = true;
        }
    }

    /// A peer left; gives its number.
    pub(super) fn left(&mut self, addr: SocketAddr, recent: u16) -> Option<u64> {
        let facts = self.peers.remove(&addr)?;
        self.bitfield_bytes -= facts.held.heap_bytes();
        self.availability.replace(&facts.held, &Held::Unknown);
        if facts.assigned > 0 {
            self.remember(addr, Assigned { total: facts.assigned, recent });
            self.dirty = true;
        }
        Some(facts.id)
    }

    /// Keeps the load of a peer that is not there (yet).
    pub(super) fn remember(&mut self, addr: SocketAddr, assigned: Assigned) {
        if self.past.len() >= MAX_PAST && !self.past.contains_key(&addr) {
            // The one that gave least tells least; a scan of a thousand, and only when full.
            let least = self.past.iter().min_by_key(|(_, past)| past.total).map(|(addr, _)| *addr);
            if let Some(least) = least {
                self.past.remove(&least);
            }
        }
        self.past.insert(addr, assigned);
    }

    pub(super) fn halve(&mut self, times: u32) {
        for past in self.past.values_mut() {
            past.recent = past.recent.checked_shr(times).unwrap_or(0);
        }
    }

    /// Notes what a peer of the table holds by its own word. It has been heard of.
    pub(super) fn told(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        held: Held,
        source: HoldingsSource,
    ) {
        if let Some(facts) = self.peers.get_mut(&addr) {
            facts.heard = facts.heard.max(now);
            self.put(now, addr, held, Some(source));
        }
    }

    /// A peer that is known by its bitfield got a piece; says whether that was news.
    pub(super) fn got(&mut self, now: Moment, addr: SocketAddr, piece: PieceIndex) -> bool {
        let Some(facts) = self.peers.get_mut(&addr) else { return false };
        let Held::Pieces(held) = &mut facts.held else { return false };
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
            // It is what most peers end with, and then costs nothing.
            let bits = std::mem::replace(&mut facts.held, Held::Everything);
            self.bitfield_bytes -= bits.heap_bytes();
            self.availability.replace(&bits, &Held::Everything);
        }
        true
    }

    /// Puts what a peer holds in place of what was known.
    pub(super) fn put(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        held: Held,
        source: Option<HoldingsSource>,
    ) {
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

    pub(super) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut Facts> {
        self.peers.get_mut(&addr)
    }

    /// All peers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Facts)> {
        self.peers.iter().map(|(addr, facts)| (*addr, facts))
    }

    /// How many peers hold each piece.
    pub(super) fn counts(&self) -> Vec<u32> {
        self.availability.counts()
    }

    /// Distributed copies.
    pub(super) fn copies(&self) -> Copies {
        self.availability.copies()
    }

    /// Bytes that there are more of once a peer holds `held` in place of what it held.
    pub(super) fn bytes_for(&self, addr: SocketAddr, held: &Held) -> usize {
        let new = held.heap_bytes();
        if new == 0 {
            return 0;
        }
        let old = self.peers.get(&addr).map_or(0, |facts| facts.held.heap_bytes());
        let counts = self.availability.full_heap_bytes() - self.availability.heap_bytes();
        (new + counts).saturating_sub(old)
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Facts> {
        self.peers.get(&addr)
    }

    /// The keys of the peers that announce `port`.
    pub(super) fn keys_at_port(
        &self,
        port: u16,
    ) -> impl Iterator<Item = (SocketAddr, AnnounceKey)> + '_ {
        let there = self.peers.iter().filter(move |(addr, _)| addr.port() == port);
        there.filter_map(|(addr, facts)| Some((*addr, facts.key?)))
    }

    pub(super) fn past(&self) -> impl Iterator<Item = (SocketAddr, Assigned)> + '_ {
        self.past.iter().map(|(addr, past)| (*addr, *past))
    }

    /// Bytes on the heap that holdings take.
    pub(super) fn held_bytes(&self) -> usize {
        self.bitfield_bytes + self.availability.heap_bytes()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let held: usize = self.peers.values().map(|facts| facts.held.heap_bytes()).sum();
        assert_eq!(held, self.bitfield_bytes);
        let counts: Vec<u32> = (0..self.pieces)
            .map(|piece| self.peers.values().filter(|f| f.held.contains(PieceIndex(piece))).count())
            .map(|count| count as u32)
            .collect();
        assert_eq!(counts, self.availability.counts());
        assert_eq!(Copies::of(&counts, 0), self.availability.copies());
        assert!(self.past.len() <= MAX_PAST);
        assert!(self.past.keys().all(|addr| !self.peers.contains_key(addr)));
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

/// What an announce says for the ledger.
pub(super) struct Said {
    pub peer_id: PeerId,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub restarted: bool,
}

/// Peers of one torrent whose load is remembered after they left.
const MAX_PAST: usize = 1_000;
