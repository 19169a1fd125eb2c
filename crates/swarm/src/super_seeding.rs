//! The order in which a seed hands out first copies (super-seeding).
//!
//! A seed suggests pieces (BEP 6) to each peer that it serves: pieces that no other peer has and that were
//! not suggested to another peer. So it sends everything once before it sends anything twice.

use piecework_core::{Bitfield, Geometry, PieceIndex};

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

/// Returns how many pieces to suggest at a time to a peer that has taken so many blocks. That is enough to
/// fill its window, but few enough that a slow peer does not keep other peers waiting. In a torrent of few
/// pieces, it is one piece for a peer whose speed is unknown.
pub(super) fn suggested_at_a_time(geometry: &Geometry, taken: u64) -> usize {
    let blocks_per_piece = geometry.blocks_per_piece().max(1);
    let most = (WINDOW / blocks_per_piece).clamp(4, 32) as usize;
    let least = if geometry.pieces() < FEW_PIECES { 1 } else { 4 };
    let wanted = (FIRST_BLOCKS + 2 * taken).div_ceil(u64::from(blocks_per_piece));
    usize::try_from(wanted).unwrap_or(usize::MAX).clamp(least, most)
}

/// Blocks that a peer typically requests ahead.
const WINDOW: u32 = 256;

/// Blocks suggested to a peer before it has taken any.
const FIRST_BLOCKS: u64 = 4;

const FEW_PIECES: u32 = 64;

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
}
