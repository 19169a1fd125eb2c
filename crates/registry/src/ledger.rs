//! What is known about the peers of one catalogued torrent beyond their address: who they say
//! they are, what they hold and where that is known from, and how often they were handed out.
//!
//! A peer that announces over IPv4 and IPv6 (BEP 7) is one peer with two addresses if it shows the same
//! id and key at both. An id alone is no proof: it stands in every handshake.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::availability::{Availability, Copies};
use super::growth::Growth;
use super::identities::{Identities, Kin, Second};
use super::kept::KeptPeer;
use super::watch::Watch;
use piecework_core::{AnnounceKey, Bitfield, Moment, PeerId, PieceIndex};

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
    /// Its second address, of the other family.
    pub also: Option<SocketAddr>,
    /// It announced last that nothing is left to get.
    pub complete: bool,
    /// `None` if it has not announced since the torrent was catalogued; so are the next two.
    pub peer_id: Option<PeerId>,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub held: Held,
    pub source: Option<HoldingsSource>,
    /// When the peer last told or showed what it holds.
    pub held_at: Moment,
    /// How often it was handed out at its first address.
    pub assigned: u64,
    pub joined: Moment,
    /// When it announced last, and when it was heard of last in any way.
    pub announced: Moment,
    pub heard: Moment,
    /// When it showed its key last.
    pub keyed: Moment,
    /// It got something by its last announce, and what it shows has not changed since the one before.
    pub stale: bool,
    /// The address at which we are connected to it, and who it says it is there.
    pub observed: Option<(SocketAddr, PeerId)>,
    /// It took the last connection of who observes, and closed it at the handshake.
    pub closes: bool,
    pub growth: Growth,
}

/// The side table of one torrent.
pub(super) struct Ledger {
    pub pieces: u32,
    /// By their first address.
    pub(super) peers: HashMap<SocketAddr, Facts, FixedState>,
    /// The second addresses.
    pub(super) seconds: HashMap<SocketAddr, Second, FixedState>,
    /// Second addresses of peers that are complete.
    pub(super) complete_seconds: u32,
    pub identities: Identities,
    /// Peers that left, so that one who comes back is not taken for one who never gave.
    pub(super) past: BTreeMap<SocketAddr, Assigned>,
    pub(super) availability: Availability,
    /// There while somebody looks.
    pub watch: Option<Box<Watch>>,
    /// Something that is kept over restarts has changed.
    pub dirty: bool,
    /// Its peers may be connected to.
    pub observe: bool,
    pub(super) bitfield_bytes: usize,
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
            also: None,
            complete: false,
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

    /// It has shown a key.
    fn showed_key(&mut self, now: Moment, key: AnnounceKey) {
        self.keyed = self.keyed.max(now);
        // The short form of the same key says less.
        if !self.key.is_some_and(|known| known.is_long() && known.is_same(key)) {
            self.key = Some(key);
        }
    }

    /// Whether we are connected to it at another address than this one.
    pub(super) fn is_observed_elsewhere(&self, addr: SocketAddr) -> bool {
        self.observed.is_some_and(|(at, _)| at != addr)
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
            seconds: HashMap::with_hasher(FixedState::with_seed(seed)),
            complete_seconds: 0,
            identities: Identities::new(seed),
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
        (facts.assigned, facts.complete) = (u64::from(given), all);
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
        let facts = self.get(addr)?;
        facts.key.filter(|_| now.since(facts.keyed) <= alive)
    }

    /// The peer at `addr` has shown its key, or one that takes the place of an old one.
    pub(super) fn showed_key(&mut self, now: Moment, addr: SocketAddr, key: AnnounceKey) {
        let first = self.first(addr);
        let Some(facts) = self.peers.get_mut(&first) else { return };
        let before = facts.identity();
        facts.showed_key(now, key);
        self.renamed(first, before);
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
        let recent = self.settle(now, addr, &said, id, given);
        let first = self.first(addr);
        let facts = self.peers.get_mut(&first)?;
        let identity = facts.identity();
        let is_other = facts.peer_id.is_some_and(|known| known != said.peer_id);
        let changed = is_other || facts.left != said.left;
        // One announce over two families is one, not a second start.
        let again =
            facts.also.is_some() && (said.joins.is_some() || now.since(facts.announced) < TOGETHER);
        // What is read from a connection to this very peer holds, however often it says that it
        // has started: some do so to each address of ours. libtorrent bears another ID on each
        // connection than it announces; it is the same as long as it announces the same.
        let observed = facts.observed.is_some_and(|(_, id)| id == said.peer_id || !is_other);
        let anew = (said.restarted && !again || is_other) && !observed;
        let got = facts.left.zip(said.left).is_some_and(|(before, now)| now < before);
        let shown = facts.source == Some(HoldingsSource::Observed);
        facts.stale = got
            && !again
            && shown
            && facts.held != Held::Everything
            && facts.held_at <= facts.announced;
        facts.peer_id = Some(said.peer_id);
        facts.left = said.left;
        (facts.announced, facts.heard) = (now, facts.heard.max(now));
        let source = facts.source.filter(|_| !anew);
        let has_everything = facts.held == Held::Everything;
        if let Some(key) = said.key {
            facts.showed_key(now, key);
        }
        self.renamed(first, identity);
        self.set_complete(first, said.left == Some(0));
        let becomes = match (said.left, source) {
            // The last HAVEs may still be on the way; and a super-seeder shows to whom it is
            // connected what it wants to be asked for.
            (Some(0), Some(HoldingsSource::Observed)) if observed => None,
            (Some(0), _) if has_everything && !anew => {
                // It says so once more.
                if let Some(facts) = self.peers.get_mut(&first) {
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
            self.put(now, first, held, source);
        }
        if let Some(watch) = &mut self.watch
            && (changed || recent.is_some())
        {
            watch.row(first);
        }
        recent
    }

    /// Sees to it that the table has the peer that announces at `addr`. Returns what it was handed out lately
    /// if the address is new.
    fn settle(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: &Said,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let mut given = u64::from(given);
        if self.other(addr).is_some() && !self.is_of(addr, said) {
            // Somebody else is at this address now.
            let total = self.part(addr);
            self.remember(addr, Assigned { total, recent: 0 });
            given = 0;
        }
        if let Some(of) = said.joins.filter(|_| self.other(addr).is_none()) {
            return self.join(of, addr, given);
        }
        if self.get(addr).is_some() {
            return None;
        }
        let past = self.past.remove(&addr).unwrap_or_default();
        *id += 1;
        let mut facts = Facts::new(now, *id);
        facts.assigned = past.total + given;
        self.peers.insert(addr, facts);
        Some(past.recent)
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
        if let Some((peer_id, key)) = kept.peer_id.zip(kept.key)
            && let Kin::Peer(of, _) = self.kin(addr, peer_id, key)
        {
            self.attach(of, addr, past.total);
            self.set_complete(of, kept.complete);
            return past.recent;
        }
        let mut facts = Facts::new(seen, id);
        (facts.peer_id, facts.key, facts.left) = (kept.peer_id, kept.key, kept.left);
        (facts.assigned, facts.complete) = (past.total, kept.complete);
        self.peers.insert(addr, facts);
        self.renamed(addr, None);
        past.recent
    }

    /// A peer was handed out.
    pub(super) fn assign(&mut self, addr: SocketAddr) {
        let assigned = match self.seconds.get_mut(&addr) {
            Some(second) => Some(&mut second.assigned),
            None => self.peers.get_mut(&addr).map(|facts| &mut facts.assigned),
        };
        if let Some(assigned) = assigned {
            *assigned += 1;
            self.dirty = true;
        }
    }

    /// Nobody is at `addr` any more; gives the number of the peer that was there if it has no other address.
    pub(super) fn left(&mut self, addr: SocketAddr, recent: u16) -> Option<u64> {
        let (id, total) = if self.other(addr).is_some() {
            (None, self.part(addr))
        } else {
            let facts = self.peers.remove(&addr)?;
            if let Some(identity) = facts.identity() {
                self.identities.remove(identity, addr);
            }
            self.bitfield_bytes -= facts.held.heap_bytes();
            self.availability.replace(&facts.held, &Held::Unknown);
            (Some(facts.id), facts.assigned)
        };
        if total > 0 {
            self.remember(addr, Assigned { total, recent });
            self.dirty = true;
        }
        id
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
        if let Some(facts) = self.get_mut(addr) {
            facts.heard = facts.heard.max(now);
            self.put(now, addr, held, Some(source));
        }
    }

    /// A peer that is known by its bitfield got a piece; says whether that was news.
    pub(super) fn got(&mut self, now: Moment, addr: SocketAddr, piece: PieceIndex) -> bool {
        let addr = self.first(addr);
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

    /// The peer at `addr`, which may be its second address.
    pub(super) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut Facts> {
        let first = self.first(addr);
        self.peers.get_mut(&first)
    }

    /// All peers by their first address, in no order.
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
        let old = self.get(addr).map_or(0, |facts| facts.held.heap_bytes());
        let counts = self.availability.full_heap_bytes() - self.availability.heap_bytes();
        (new + counts).saturating_sub(old)
    }

    /// The peer at `addr`, which may be its second address.
    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Facts> {
        self.peers.get(&self.first(addr))
    }

    /// The keys of the peers that announce `port`, by their first address.
    pub(super) fn keys_at_port(
        &self,
        port: u16,
    ) -> impl Iterator<Item = (SocketAddr, AnnounceKey)> + '_ {
        let there = self.peers.iter().filter(move |(addr, facts)| {
            addr.port() == port || facts.also.is_some_and(|addr| addr.port() == port)
        });
        there.filter_map(|(addr, facts)| Some((*addr, facts.key?)))
    }

    pub(super) fn past(&self) -> impl Iterator<Item = (SocketAddr, Assigned)> + '_ {
        self.past.iter().map(|(addr, past)| (*addr, *past))
    }

    /// Bytes on the heap that holdings take.
    pub(super) fn held_bytes(&self) -> usize {
        self.bitfield_bytes + self.availability.heap_bytes()
    }

    #[cfg(any(test, feature = "fuzzing"))]
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
        assert!(self.past.keys().all(|addr| self.get(*addr).is_none()));
        self.identities.check(|addr| self.peers[&addr].identity());
        let paired = self.peers.iter().filter_map(|(addr, facts)| Some((*addr, facts.also?)));
        assert_eq!(paired.clone().count(), self.seconds.len());
        for (first, second) in paired.clone() {
            assert!(self.seconds[&second].of == first && !self.peers.contains_key(&second));
            assert_ne!(first.is_ipv4(), second.is_ipv4());
        }
        let complete = paired.filter(|(first, _)| self.peers[first].complete).count();
        assert_eq!(complete as u32, self.complete_seconds);
        for facts in self.peers.values() {
            let observed = facts.observed.map(|(at, _)| self.get(at).map(|other| other.id));
            assert!(observed.is_none_or(|id| id == Some(facts.id)));
        }
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
    /// The first address of the peer that this is, by its id and key.
    pub joins: Option<SocketAddr>,
}

/// Within this time announces over two families are one announce: a family that does not work may be
/// tried for a while first.
const TOGETHER: Duration = Duration::from_secs(15);

/// Peers of one torrent whose load is remembered after they left.
const MAX_PAST: usize = 1_000;
