//! One peer: the shipped state machines, its lines, and what a driver keeps for it.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{Bitfield, BlockRef, Moment, PeerId, PieceIndex, Rng};
use piecework_swarm::announcer::Announcer;
use piecework_swarm::{BlockDigest, PeerKey, Swarm};

use crate::connection::{BlockContent, Flow};
use crate::line::Line;

#[derive(Debug)]
pub(crate) struct Node {
    /// The index of its group in the scenario.
    pub(crate) group: usize,
    pub(crate) addr: SocketAddr,
    pub(crate) id: PeerId,
    pub(crate) swarm: Swarm,
    pub(crate) announcer: Announcer,
    pub(crate) rng: Rng,
    pub(crate) state: Presence,

    pub(crate) up: Line,
    pub(crate) down: Line,
    pub(crate) delay: Duration,
    /// Connections that have something for the uplink, the next one first.
    pub(crate) turns: VecDeque<Flow>,
    /// The connection whose block the uplink is sending.
    pub(crate) sending: Option<Flow>,

    /// The connection of each key. Keys count up and are never reused.
    pub(crate) connections: Vec<Option<u32>>,
    /// A block that the swarm was told about and has not decided about.
    pub(crate) arrived: Option<(BlockRef, BlockContent)>,
    pub(crate) assemblies: BTreeMap<PieceIndex, Assembly>,
    /// How many blocks are in memory: of all assemblies, and of pieces that are being verified.
    pub(crate) blocks_in_memory: u32,
    /// Pieces whose bytes are those of the torrent.
    pub(crate) right: Bitfield,
    pub(crate) wakes_at: Option<Moment>,
    pub(crate) announces_at: Option<Moment>,

    pub(crate) arrives_at: Moment,
    pub(crate) completed_at: Option<Moment>,
    pub(crate) left_at: Option<Moment>,
    pub(crate) bytes_sent: u64,
    pub(crate) wrong_blocks_sent: u64,
    pub(crate) banned: BTreeSet<PeerId>,
}

/// Whether a peer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Absent,
    Here,
    Gone,
}

/// The blocks of a piece that is not whole yet.
#[derive(Debug)]
pub(crate) struct Assembly {
    kept: u32,
    bits: Vec<u64>,
    wrong: Vec<(u32, u64)>,
}

impl Node {
    /// Assigns a key to a new connection.
    pub(crate) fn next_key(&mut self, connection: u32) -> PeerKey {
        self.connections.push(Some(connection));
        PeerKey(u32::saturating_from(self.connections.len()) - 1)
    }

    pub(crate) fn connection(&self, key: PeerKey) -> Option<u32> {
        self.connections.get(key.0 as usize).copied().flatten()
    }

    pub(crate) fn is_here(&self) -> bool {
        self.state == Presence::Here
    }
}

impl Assembly {
    pub(crate) fn new(blocks: u32) -> Self {
        Self { kept: 0, bits: vec![0; blocks.div_ceil(64) as usize], wrong: Vec::new() }
    }

    /// Keeps a block. Returns whether its place was free.
    pub(crate) fn keep(&mut self, index: u32, mark: BlockContent) -> bool {
        let Some(word) = self.bits.get_mut(index as usize / 64) else { return false };
        let bit = 1 << (index % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.kept += 1;
        if let BlockContent::Wrong(number) = mark {
            self.wrong.push((index, number));
        }
        true
    }

    pub(crate) fn kept(&self) -> u32 {
        self.kept
    }

    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Returns a digest of each block. Digests differ where the bytes do.
    pub(crate) fn digests(&self, blocks: u32) -> Vec<BlockDigest> {
        let mut digests = vec![BlockDigest([1; 20]); blocks as usize];
        for (index, number) in &self.wrong {
            let mut digest = [0; 20];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            digests[*index as usize] = BlockDigest(digest);
        }
        digests
    }
}
