//! What is known about the peers of one catalogued torrent beyond their address: who they say
//! they are, what they hold and where that is known from, and how often they were handed out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::{Bitfield, PeerId, PieceIndex};

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
    /// We connected to it and read its bitfield. Reserved: nothing observes yet.
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
    pub peer_id: PeerId,
    pub key: Option<u32>,
    pub left: u64,
    pub held: Held,
    pub source: Option<HoldingsSource>,
    pub assigned: u64,
}

/// The side table of one torrent.
pub(super) struct Ledger {
    pub pieces: u32,
    peers: HashMap<SocketAddr, Facts, FixedState>,
    /// Peers that left, so that one who comes back is not taken for one who never gave.
    past: BTreeMap<SocketAddr, Assigned>,
    /// Something that is kept over restarts has changed.
    pub dirty: bool,
    held_bytes: usize,
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

    fn heap_bytes(&self) -> usize {
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

impl Ledger {
    pub(super) fn new(pieces: u32, seed: u64) -> Self {
        Self {
            pieces,
            peers: HashMap::with_hasher(FixedState::with_seed(seed)),
            past: BTreeMap::new(),
            dirty: false,
            held_bytes: 0,
        }
    }

    /// A peer announced; gives what it was handed out lately if it was here before. `given` is how
    /// often it was handed out while the table did not know it.
    pub(super) fn announced(&mut self, addr: SocketAddr, said: Said, given: u16) -> Option<u16> {
        if let Some(facts) = self.peers.get_mut(&addr) {
            if said.restarted || facts.peer_id != said.peer_id {
                self.held_bytes -= facts.held.heap_bytes();
                (facts.held, facts.source) = (Held::Unknown, None);
            }
            (facts.peer_id, facts.left) = (said.peer_id, said.left);
            // A client that stops to send its key keeps it: else anyone behind the same address
            // could take its place in the report of holdings.
            facts.key = said.key.or(facts.key);
            if said.left == 0 && facts.held != Held::Everything {
                self.held_bytes -= facts.held.heap_bytes();
                (facts.held, facts.source) = (Held::Everything, Some(HoldingsSource::Announced));
            } else if said.left > 0 && facts.source == Some(HoldingsSource::Announced) {
                (facts.held, facts.source) = (Held::Unknown, None);
            }
            return None;
        }
        let past = self.past.remove(&addr).unwrap_or_default();
        let (held, source) = if said.left == 0 {
            (Held::Everything, Some(HoldingsSource::Announced))
        } else {
            (Held::Unknown, None)
        };
        let facts = Facts {
            peer_id: said.peer_id,
            key: said.key,
            left: said.left,
            held,
            source,
            assigned: past.total + u64::from(given),
        };
        self.peers.insert(addr, facts);
        Some(past.recent)
    }

    /// A peer was handed out.
    pub(super) fn assign(&mut self, addr: SocketAddr) {
        if let Some(facts) = self.peers.get_mut(&addr) {
            facts.assigned += 1;
            self.dirty = true;
        }
    }

    /// A peer stopped or expired.
    pub(super) fn left(&mut self, addr: SocketAddr, recent: u16) {
        let Some(facts) = self.peers.remove(&addr) else { return };
        self.held_bytes -= facts.held.heap_bytes();
        if facts.assigned > 0 {
            self.remember(addr, Assigned { total: facts.assigned, recent });
            self.dirty = true;
        }
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

    /// Notes what a peer of the table reported.
    pub(super) fn report(&mut self, addr: SocketAddr, reported: Bitfield) {
        let Some(facts) = self.peers.get_mut(&addr) else { return };
        self.held_bytes -= facts.held.heap_bytes();
        // Whole bitfields are what most peers end with, and then cost nothing.
        facts.held = if reported.is_full() { Held::Everything } else { Held::Pieces(reported) };
        facts.source = Some(HoldingsSource::Reported);
        self.held_bytes += facts.held.heap_bytes();
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Facts> {
        self.peers.get(&addr)
    }

    /// The only peer that announces `port` with `key`.
    pub(super) fn find_by_key(&self, port: u16, key: u32) -> Option<SocketAddr> {
        let mut known = self.peers.iter().filter(|(addr, facts)| {
            addr.port() == port && facts.key.is_some_and(|known| same_key(known, key))
        });
        match (known.next(), known.next()) {
            (Some((addr, _)), None) => Some(*addr),
            // None, or two that cannot be told apart.
            _ => None,
        }
    }

    pub(super) fn past(&self) -> impl Iterator<Item = (SocketAddr, Assigned)> + '_ {
        self.past.iter().map(|(addr, past)| (*addr, *past))
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let held: usize = self.peers.values().map(|facts| facts.held.heap_bytes()).sum();
        assert_eq!(held, self.held_bytes);
        assert!(self.past.len() <= MAX_PAST);
        assert!(self.past.keys().all(|addr| !self.peers.contains_key(addr)));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

/// Equality in a time that does not tell how many digits are right.
pub(super) fn same_key(a: u32, b: u32) -> bool {
    std::hint::black_box(a ^ b) == 0
}

/// What an announce says for the ledger.
pub(super) struct Said {
    pub peer_id: PeerId,
    pub key: Option<u32>,
    pub left: u64,
    pub restarted: bool,
}

/// Peers of one torrent whose load is remembered after they left.
const MAX_PAST: usize = 1_000;
