//! The order in which a seed hands out first copies (super-seeding).
//!
//! A seed suggests pieces (BEP 6) to each peer that it serves: pieces that no other peer has and that were
//! not suggested to another peer. So it sends everything once before it sends anything twice. `upload.rs` says to whom
//! and when; docs/policies.md has what was tried.

use piecework_core::{BLOCK_LEN, Bitfield, Geometry, PieceIndex, SaturatingFrom};

#[derive(Debug)]
pub(super) struct SuperSeeding {
    pieces: u32,
    /// Pieces that are suggested to a peer which does not have them yet. Empty before the first suggestion.
    suggested: Bitfield,
    next: u32,
    /// A whole pass found nothing to suggest. Only a peer that leaves can change that.
    exhausted: bool,
}

impl SuperSeeding {
    pub(super) fn new(pieces: u32) -> Self {
        Self { pieces, suggested: Bitfield::empty(0), next: 0, exhausted: false }
    }

    /// Returns the next piece to suggest to a peer, among those for which `is_wanted` returns true (no
    /// other peer has the piece, and this one does not).
    pub(super) fn next(&mut self, is_wanted: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        if self.exhausted {
            return None;
        }
        if self.suggested.is_empty() {
            self.suggested = Bitfield::empty(self.pieces);
        }
        for _ in 0..self.pieces {
            let piece = PieceIndex(self.next);
            self.next = (self.next + 1) % self.pieces;
            if !self.suggested.contains(piece) && is_wanted(piece) {
                self.suggested.insert(piece);
                return Some(piece);
            }
        }
        self.exhausted = true;
        None
    }

    /// Ends a suggestion: the peer got the piece, or left without it (`lost`).
    pub(super) fn release(&mut self, piece: PieceIndex, lost: bool) {
        self.suggested.remove(piece);
        self.exhausted &= !lost;
    }
}

/// What a peer has taken so far, and what it may take next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uptake {
    /// Suggested pieces that it has not begun.
    pub(super) waiting: usize,
    /// Suggested pieces that it has begun.
    pub(super) begun: usize,
    /// Bytes a second that it takes.
    pub(super) rate: u64,
    /// Bytes that it has taken.
    pub(super) taken: u64,
}

/// Returns how many more pieces to suggest to a peer. It should have what it begins before the next
/// suggestion can arrive, but no more: what one peer keeps is not suggested to others.
pub(super) fn more_suggestions(geometry: &Geometry, peer: Uptake) -> usize {
    let Uptake { waiting, begun, rate, taken } = peer;
    let piece = u64::from(geometry.blocks_per_piece().max(1)) * u64::from(BLOCK_LEN);
    let pieces = |bytes: u64| usize::saturating_from(bytes.div_ceil(piece));
    if geometry.pieces() < FEW_PIECES {
        let wanted = pieces(REQUESTED_AT_FIRST + taken.saturating_mul(2));
        let wanted = wanted.clamp(1, MAX_SUGGESTED_OF_FEW);
        return if waiting > wanted / 2 { 0 } else { wanted - waiting };
    }
    let wanted = pieces((rate / SUGGESTIONS_A_SECOND).max(2 * REQUESTED_AT_FIRST));
    let wanted = wanted.clamp(LEAST_SUGGESTED, MAX_SUGGESTED);
    wanted.saturating_sub(waiting).min(MAX_BEGUN.saturating_sub(begun))
}

/// A suggestion arrives within a quarter of a second after the request that caused it.
const SUGGESTIONS_A_SECOND: u64 = 4;

/// Bytes that peers request at first.
const REQUESTED_AT_FIRST: u64 = 4 * BLOCK_LEN as u64;

/// One piece that the peer begins, and the next.
const LEAST_SUGGESTED: usize = 2;

/// No more than peers remember.
const MAX_SUGGESTED: usize = 64;

/// How many pieces a peer may have begun and not reported. It may begin any number and report none.
const MAX_BEGUN: usize = 256;

/// In a torrent of fewer pieces, a suggestion lasts until the peer has the piece.
pub(super) const FEW_PIECES: u32 = 64;

const MAX_SUGGESTED_OF_FEW: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_handed_out_once_until_it_is_lost() {
        let mut order = SuperSeeding::new(5);
        let first: Vec<u32> =
            std::iter::from_fn(|| order.next(|piece| piece.0 != 3)).map(|piece| piece.0).collect();
        assert_eq!(first, [0, 1, 2, 4]);
        order.release(PieceIndex(1), false);
        assert_eq!(order.next(|_| true), None);
        order.release(PieceIndex(2), true);
        assert_eq!(order.next(|piece| piece.0 != 1 && piece.0 != 3), Some(PieceIndex(2)));
    }

    #[test]
    fn suggestions_follow_the_rate_and_are_bounded() {
        let block = u64::from(BLOCK_LEN);
        let torrent = |pieces: u64, blocks: u32| {
            Geometry::new(pieces * u64::from(blocks) * block, blocks * BLOCK_LEN).unwrap()
        };
        let large = torrent(1_000, 16);
        let some = Uptake { waiting: 1, begun: 9, ..Uptake::default() };
        assert_eq!(more_suggestions(&large, Uptake::default()), 2);
        assert_eq!(more_suggestions(&large, some), 1);
        assert_eq!(more_suggestions(&large, Uptake { rate: 16 * 40 * block, ..some }), 9);
        let fast = Uptake { rate: u64::MAX, ..Uptake::default() };
        assert_eq!(more_suggestions(&large, fast), MAX_SUGGESTED);
        assert_eq!(more_suggestions(&large, Uptake { begun: MAX_BEGUN - 1, ..fast }), 1);
        // A peer requests four blocks at first.
        assert_eq!(more_suggestions(&torrent(1_000, 1), Uptake::default()), 8);
        let few = torrent(8, 4);
        assert_eq!(more_suggestions(&few, Uptake::default()), 1);
        assert_eq!(more_suggestions(&few, Uptake { waiting: 1, ..Uptake::default() }), 0);
        assert_eq!(more_suggestions(&few, Uptake { taken: 4 * block, ..Uptake::default() }), 3);
    }
}
