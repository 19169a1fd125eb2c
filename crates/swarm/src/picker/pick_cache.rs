//! The per-peer pick cache: what is remembered about one peer between two choices.

use std::collections::VecDeque;

use super::buckets::{CLASSES, class_of};
use piecework_core::{Moment, PieceIndex, Priority};

/// What the picker remembers about one peer, so that it need not look twice.
#[derive(Debug, Default)]
pub(crate) struct PickCache {
    /// Pieces that the peer is filling. Some may have been finished or taken over since.
    pub(super) mine: Vec<PieceIndex>,
    /// Pieces of which it has rejected blocks. It is asked for others as long as there are any.
    pub(super) refused: Vec<PieceIndex>,
    /// Pieces that it has suggested (BEP 6).
    pub(super) suggested: VecDeque<PieceIndex>,
    /// One for each class of priority.
    pub(super) shortlists: [Shortlist; CLASSES],
    /// The supply at which there was nothing to ask the peer for, and whether it was idle then.
    pub(super) dry: Option<(u64, bool)>,
    /// Before this, blocks that others owe are looked at only in the endgame.
    pub(super) next_scan: Moment,
}

/// The result of a pass over all open pieces of one priority.
#[derive(Debug, Default)]
pub(super) struct Shortlist {
    /// Open pieces that the peer holds, the rarest last. Some may not be open any more.
    pub(super) pieces: Vec<u32>,
    /// These are all open pieces that it holds, unless a piece was opened since.
    pub(super) complete_at: Option<u64>,
}

impl PickCache {
    /// Records a suggestion of the peer.
    pub(crate) fn suggest(&mut self, piece: PieceIndex) {
        if self.suggested.contains(&piece) {
            return;
        }
        if self.suggested.len() == MAX_SUGGESTED {
            self.suggested.pop_front();
        }
        self.suggested.push_back(piece);
        self.dry = None;
    }

    /// Records that the peer got a piece that is open.
    pub(super) fn found(&mut self, piece: PieceIndex, priority: Priority) {
        if let Some(class) = class_of(priority)
            && self.shortlists[class].complete_at.is_some()
        {
            self.shortlists[class].pieces.push(piece.0);
        }
        self.dry = None;
    }

    /// Records that the peer has rejected a block of the piece.
    pub(crate) fn refused(&mut self, piece: PieceIndex) {
        if self.refused.len() < MAX_REFUSED && !self.refused.contains(&piece) {
            self.refused.push(piece);
        }
    }

    /// Forgets what the peer has rejected, because there is nothing else to ask it for. Returns whether it
    /// has rejected anything.
    pub(crate) fn forgive(&mut self) -> bool {
        self.dry = None;
        let was_refused = !self.refused.is_empty();
        self.refused.clear();
        was_refused
    }

    pub(crate) fn has_refused(&self, piece: PieceIndex) -> bool {
        self.refused.contains(&piece)
    }

    /// Has the peer looked at again, because it serves us again or more than before.
    pub(crate) fn look_again(&mut self) {
        self.dry = None;
    }

    /// Forgets the lists, because the peer's pieces or the priorities have changed.
    pub(crate) fn forget(&mut self) {
        for list in &mut self.shortlists {
            list.pieces.clear();
            list.complete_at = None;
        }
        self.dry = None;
    }

    pub(super) fn is_dry(&self, supply: u64, idle: bool) -> bool {
        self.dry.is_some_and(|(at, was_idle)| at == supply && (was_idle || !idle))
    }

    pub(super) fn mark_dry(&mut self, supply: u64, idle: bool) {
        self.dry = Some((supply, idle));
    }
}

/// How many pieces are remembered of which a peer has rejected blocks.
const MAX_REFUSED: usize = 16;

/// How many suggestions are remembered. A peer may send any number.
const MAX_SUGGESTED: usize = 128;
