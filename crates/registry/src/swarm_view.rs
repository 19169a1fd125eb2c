//! Questions about who holds what of a torrent. They are answered from a [`SwarmView`], which is a copy, because
//! the answers take time and must not hold up announces.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::availability::Copies;
use super::holdings::Holdings;
use super::registry::Registry;
use super::view::{PeerView, swarm_peers};
use piecework_core::{Bitfield, InfoHash, Moment, PieceIndex};

/// Who holds what of one catalogued torrent, at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct SwarmView {
    /// The number of pieces of the torrent.
    pub pieces: u32,
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
    /// Whether the observer may connect to the torrent's peers.
    pub observe: bool,
    /// The number of peers that the observer is connected to.
    pub observed: u32,
    /// The peers, in the order of their arrival.
    pub peers: Vec<PeerView>,
    /// How many peers hold each piece.
    counts: Vec<u32>,
}

/// Pieces that few peers hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AtRisk {
    /// All pieces at risk.
    pub pieces: Bitfield,
    /// The same pieces grouped by their holders, the largest group first.
    pub groups: Vec<RiskGroup>,
    /// The number of groups that were left out.
    pub more: usize,
}

/// Pieces that the same peers hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RiskGroup {
    /// The only holders of these pieces, each by its first address. Empty if nobody holds them.
    pub holders: Vec<SocketAddr>,
    /// The pieces.
    pub pieces: Bitfield,
}

/// What remains of a swarm without some of its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remainder {
    /// The pieces that no other peer is known to hold.
    pub lost: Bitfield,
    /// The distributed copies among the other peers.
    pub copies: Copies,
}

impl Registry {
    /// Returns a copy of a catalogued torrent's swarm, with the bitfields of its peers.
    pub fn swarm(&self, now: Moment, info_hash: InfoHash) -> Option<SwarmView> {
        let (torrent, ledger) = self.catalogued(info_hash)?;
        let (complete, incomplete) = torrent.counts();
        let observed = ledger.iter().filter(|(_, facts)| facts.observed.is_some()).count();
        Some(SwarmView {
            pieces: ledger.pieces,
            complete,
            incomplete,
            downloads: torrent.downloads,
            copies: ledger.copies(),
            observe: ledger.observe,
            observed: u32::saturating_from(observed),
            peers: swarm_peers(torrent, ledger, &self.hasher, now),
            counts: ledger.counts(),
        })
    }
}

impl SwarmView {
    /// Returns the peers that are known to hold `piece`.
    pub fn holders(&self, piece: PieceIndex) -> Vec<&PeerView> {
        self.peers.iter().filter(|peer| peer.held.contains(piece)).collect()
    }

    /// Returns the pieces that the peer at `addr` misses. `None` if there is no such peer or its holdings are not
    /// known.
    pub fn missing(&self, addr: SocketAddr) -> Option<Bitfield> {
        match &self.peer(addr)?.held {
            Holdings::Everything => Some(Bitfield::empty(self.pieces)),
            Holdings::Pieces(held) => {
                let mut missing = Bitfield::empty(self.pieces);
                held.missing().for_each(|piece| _ = missing.insert(piece));
                Some(missing)
            }
            Holdings::Unknown => None,
        }
    }

    /// Returns the pieces that at most `k` peers are known to hold.
    pub fn at_risk(&self, k: u32) -> AtRisk {
        let mut pieces = Bitfield::empty(self.pieces);
        for (piece, count) in (0..).zip(&self.counts) {
            if *count <= k {
                pieces.insert(PieceIndex(piece));
            }
        }
        // Pieces with the same holders have the same sum of the holders' marks. Different holders give the same
        // sum with a probability of 2^-64.
        let mut sums = vec![0_u64; self.pieces as usize];
        for (mark, peer) in self.peers.iter().enumerate() {
            let mark = mix(mark as u64 + 1);
            self.each_held(peer, &pieces, |piece| {
                let sum = &mut sums[piece.0 as usize];
                *sum = sum.wrapping_add(mark);
            });
        }
        let mut by_sum: BTreeMap<u64, Vec<PieceIndex>> = BTreeMap::new();
        for piece in pieces.iter() {
            by_sum.entry(sums[piece.0 as usize]).or_default().push(piece);
        }
        let mut found: Vec<Vec<PieceIndex>> = by_sum.into_values().collect();
        found.sort_unstable_by_key(|group| (usize::MAX - group.len(), group[0]));
        let more = found.len().saturating_sub(MAX_GROUPS);
        found.truncate(MAX_GROUPS);
        let groups = found.into_iter().map(|group| RiskGroup {
            holders: self.holders(group[0]).iter().map(|peer| peer.addr).collect(),
            pieces: self.bitfield(&group),
        });
        AtRisk { groups: groups.collect(), pieces, more }
    }

    /// Returns what remains if the peers at `addrs` leave.
    pub fn without(&self, addrs: &[SocketAddr]) -> Remainder {
        let mut counts = self.counts.clone();
        let all = Bitfield::full(self.pieces);
        let leaves = |peer: &&PeerView| addrs.iter().any(|addr| peer.is_at(*addr));
        for peer in self.peers.iter().filter(leaves) {
            self.each_held(peer, &all, |piece| {
                let count = &mut counts[piece.0 as usize];
                *count = count.saturating_sub(1);
            });
        }
        let lost = (0..).zip(&counts).filter(|(_, count)| **count == 0);
        let lost: Vec<_> = lost.map(|(piece, _)| PieceIndex(piece)).collect();
        Remainder { lost: self.bitfield(&lost), copies: Copies::of(&counts, 0) }
    }

    /// Returns the peers that were not heard from for longer than `patience`, the longest silent first.
    pub fn silent(&self, patience: Duration) -> Vec<&PeerView> {
        let mut silent: Vec<_> = self.peers.iter().filter(|peer| peer.silent > patience).collect();
        silent.sort_by_key(|peer| std::cmp::Reverse(peer.silent));
        silent
    }

    /// Returns the peer that has `addr` as one of its addresses.
    pub fn peer(&self, addr: SocketAddr) -> Option<&PeerView> {
        self.peers.iter().find(|peer| peer.is_at(addr))
    }

    /// Returns how many peers are known to hold each piece.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    fn bitfield(&self, pieces: &[PieceIndex]) -> Bitfield {
        let mut bits = Bitfield::empty(self.pieces);
        pieces.iter().for_each(|piece| _ = bits.insert(*piece));
        bits
    }

    /// Calls `each` for every piece of `among` that `peer` holds. Skips eight pieces at a time.
    fn each_held(&self, peer: &PeerView, among: &Bitfield, mut each: impl FnMut(PieceIndex)) {
        let held = match &peer.held {
            Holdings::Unknown => return,
            Holdings::Everything => return among.iter().for_each(each),
            Holdings::Pieces(held) => held,
        };
        for (at, (held, among)) in held.as_wire().iter().zip(among.as_wire()).enumerate() {
            let mut both = held & among;
            while both != 0 {
                let bit = both.leading_zeros();
                each(PieceIndex(u32::saturating_from(at) * 8 + bit));
                both &= !(0x80 >> bit);
            }
        }
    }
}

/// Scrambles a number so that consecutive inputs give unrelated outputs (SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The maximum number of groups in an answer about pieces at risk. Each names its holders, and nobody reads more.
const MAX_GROUPS: usize = 1_000;
