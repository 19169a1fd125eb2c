//! What can be asked of a torrent's holdings. Asked of a [`SwarmView`], a copy: the answers take
//! their time, and nobody is to wait for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::availability::Copies;
use super::held::Held;
use super::registry::Registry;
use super::view::{PeerView, swarm_peers};
use piecework_core::{Bitfield, InfoHash, Moment, PieceIndex};

/// Who holds what of one catalogued torrent, at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct SwarmView {
    /// Pieces of the torrent.
    pub pieces: u32,
    /// Complete peers.
    pub complete: u32,
    /// Others.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
    /// Its peers' connections are looked for.
    pub observe: bool,
    /// Peers that we are connected to.
    pub observed: u32,
    /// The peers, in the order in which they came.
    pub peers: Vec<PeerView>,
    /// How many of them hold each piece.
    counts: Vec<u32>,
}

/// Pieces that few peers hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AtRisk {
    /// All of them.
    pub pieces: Bitfield,
    /// The same by who holds them, the largest group first.
    pub groups: Vec<RiskGroup>,
    /// Groups that there was no room for.
    pub more: usize,
}

/// Pieces that would be fewer if these peers left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RiskGroup {
    /// Who alone holds them, each by its first address; nobody if it is empty.
    pub holders: Vec<SocketAddr>,
    /// The pieces.
    pub pieces: Bitfield,
}

/// What a swarm is without some of its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Without {
    /// Pieces that nobody else is known to hold.
    pub lost: Bitfield,
    /// Distributed copies among the others.
    pub copies: Copies,
}

impl Registry {
    /// A catalogued torrent's swarm. Copies the peers' bitfields.
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
            observed: observed as u32,
            peers: swarm_peers(torrent, ledger, &self.hasher, now),
            counts: ledger.counts(),
        })
    }
}

impl SwarmView {
    /// Who is known to hold `piece`.
    pub fn holders(&self, piece: PieceIndex) -> Vec<&PeerView> {
        self.peers.iter().filter(|peer| peer.held.contains(piece)).collect()
    }

    /// What `addr` is known to miss. `None` if there is no such peer, or its holdings are not
    /// known.
    pub fn missing(&self, addr: SocketAddr) -> Option<Bitfield> {
        match &self.peer(addr)?.held {
            Held::Everything => Some(Bitfield::empty(self.pieces)),
            Held::Pieces(held) => {
                let mut missing = Bitfield::empty(self.pieces);
                held.missing().for_each(|piece| _ = missing.insert(piece));
                Some(missing)
            }
            Held::Unknown => None,
        }
    }

    /// The pieces that `k` peers or fewer are known to hold.
    pub fn at_risk(&self, k: u32) -> AtRisk {
        let mut pieces = Bitfield::empty(self.pieces);
        for (piece, count) in (0..).zip(&self.counts) {
            if *count <= k {
                pieces.insert(PieceIndex(piece));
            }
        }
        // Pieces of the same holders have the same sum of the holders' marks; that others have it
        // too is one chance in 2^64.
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

    /// What the others hold if the peers at `addrs` leave.
    pub fn without(&self, addrs: &[SocketAddr]) -> Without {
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
        Without { lost: self.bitfield(&lost), copies: Copies::of(&counts, 0) }
    }

    /// Peers not heard of for longer than `patience`, the longest silent first.
    pub fn silent(&self, patience: Duration) -> Vec<&PeerView> {
        let mut silent: Vec<_> = self.peers.iter().filter(|peer| peer.silent > patience).collect();
        silent.sort_by_key(|peer| std::cmp::Reverse(peer.silent));
        silent
    }

    /// The peer at `addr`, which may be any of its addresses.
    pub fn peer(&self, addr: SocketAddr) -> Option<&PeerView> {
        self.peers.iter().find(|peer| peer.is_at(addr))
    }

    /// How many peers are known to hold each piece.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    fn bitfield(&self, pieces: &[PieceIndex]) -> Bitfield {
        let mut bits = Bitfield::empty(self.pieces);
        pieces.iter().for_each(|piece| _ = bits.insert(*piece));
        bits
    }

    /// Every piece of `among` that `peer` holds: eight at a time are passed over.
    fn each_held(&self, peer: &PeerView, among: &Bitfield, mut each: impl FnMut(PieceIndex)) {
        let held = match &peer.held {
            Held::Unknown => return,
            Held::Everything => return among.iter().for_each(each),
            Held::Pieces(held) => held,
        };
        for (at, (held, among)) in held.as_wire().iter().zip(among.as_wire()).enumerate() {
            let mut both = held & among;
            while both != 0 {
                let bit = both.leading_zeros();
                each(PieceIndex(at as u32 * 8 + bit));
                both &= !(0x80 >> bit);
            }
        }
    }
}

/// Numbers that lie far apart, from numbers that do not (SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Groups told of pieces at risk: each names its holders, and nobody reads more.
const MAX_GROUPS: usize = 1_000;
