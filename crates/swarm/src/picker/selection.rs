//! The result of a choice: blocks to request, and what is given up for them.

use super::super::{Giver, PeerKey};
use piecework_core::{BlockRef, Moment, PieceIndex};

/// What to request.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) blocks: Vec<BlockRef>,
    /// Requests given up in favour of new ones.
    pub(crate) evicted: Vec<EvictedRequest>,
    /// Begun pieces given up: to make room, or because they are not wanted any more.
    pub(crate) dropped: Vec<AbandonedPiece>,
    /// How many bytes had been kept of those.
    pub(crate) wasted: u64,
    /// When blocks that others owe will have been owed for too long.
    pub(crate) retry: Option<Moment>,
}

/// A request that was given up: the peer need not send the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvictedRequest {
    pub(crate) peer: PeerKey,
    pub(crate) piece: PieceIndex,
    pub(crate) index: u32,
}

/// A piece that was given up before it was whole.
#[derive(Debug)]
pub(crate) struct AbandonedPiece {
    pub(crate) piece: PieceIndex,
    /// Who had given which blocks of it.
    pub(crate) givers: Vec<Giver>,
}

/// A whole piece whose check is done.
#[derive(Debug)]
pub(crate) struct CheckedPiece {
    pub(crate) givers: Vec<Giver>,
    /// For each block, the index of its giver in `givers`.
    pub(crate) giver_of: Vec<u32>,
}

impl Selection {
    pub(super) fn give_up(&mut self, dropped: AbandonedPiece) {
        self.wasted += dropped.givers.iter().map(|giver| giver.bytes).sum::<u64>();
        self.dropped.push(dropped);
    }
}
