//! What a choice comes to: blocks to ask for, and what is given up for them.

use super::super::{Giver, PeerKey};
use piecework_core::{BlockRef, Moment, PieceIndex};

/// What is to be asked for.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) blocks: Vec<BlockRef>,
    /// Requests given up in favour of new ones.
    pub(crate) evicted: Vec<EvictedRequest>,
    /// Begun pieces given up: to make room, or because they are not wanted any more.
    pub(crate) dropped: Vec<AbandonedPiece>,
    /// Bytes kept of those.
    pub(crate) wasted: u64,
    /// When blocks that others owe will have been owed for too long.
    pub(crate) retry: Option<Moment>,
}

/// A request given up: the peer need not send the block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvictedRequest {
    pub(crate) peer: PeerKey,
    pub(crate) piece: PieceIndex,
    pub(crate) index: u32,
}

/// A piece given up before it was whole.
#[derive(Debug)]
pub(crate) struct AbandonedPiece {
    pub(crate) piece: PieceIndex,
    /// Who had given what of it.
    pub(crate) givers: Vec<Giver>,
}

/// A whole piece, its check done.
#[derive(Debug)]
pub(crate) struct CheckedPiece {
    pub(crate) givers: Vec<Giver>,
    /// For each block its giver's place in `givers`.
    pub(crate) giver_of: Vec<u32>,
}

impl Selection {
    pub(super) fn give_up(&mut self, dropped: AbandonedPiece) {
        self.wasted += dropped.givers.iter().map(|giver| giver.bytes).sum::<u64>();
        self.dropped.push(dropped);
    }
}
