//! How the content of a torrent is divided: pieces, and the 16 KiB blocks that peers request.

use crate::SaturatingFrom;
use std::fmt;
use std::ops::Range;

/// The length of a block: 16 KiB (BEP 3). Every client refuses longer requests.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The number of a piece, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(pub u32);

/// A range of bytes in one piece, as requests and blocks name it on the wire (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockRef {
    /// The number of the piece.
    pub piece: PieceIndex,
    /// The offset in the piece, in bytes.
    pub begin: u32,
    /// The length in bytes.
    pub len: u32,
}

/// The total length and piece length of a torrent, and everything that follows from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    total_len: u64,
    piece_len: u32,
    pieces: u32,
}

/// Why lengths cannot describe a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The piece length is 0.
    #[error("piece length is 0")]
    ZeroPieceLength,
    /// There would be more pieces than an index on the wire can count.
    #[error("`{total_len}` bytes in pieces of `{piece_len}` bytes are more than 2^31 pieces")]
    TooManyPieces {
        /// The total length in bytes.
        total_len: u64,
        /// The piece length in bytes.
        piece_len: u32,
    },
}

impl Geometry {
    /// Divides `total_len` bytes into pieces of `piece_len` bytes. The last piece may be shorter.
    pub fn new(total_len: u64, piece_len: u32) -> Result<Self, GeometryError> {
        if piece_len == 0 {
            return Err(GeometryError::ZeroPieceLength);
        }
        let pieces = total_len.div_ceil(u64::from(piece_len));
        match u32::try_from(pieces) {
            Ok(pieces) if pieces <= 1 << 31 => Ok(Self { total_len, piece_len, pieces }),
            _ => Err(GeometryError::TooManyPieces { total_len, piece_len }),
        }
    }

    /// Returns the length of the content in bytes.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Returns the length of every piece except the last.
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Returns the number of pieces.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Returns whether `piece` exists.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.pieces
    }

    /// Returns the length of `piece` in bytes; 0 if it does not exist.
    pub fn piece_size(&self, piece: PieceIndex) -> u32 {
        let start = self.piece_offset(piece);
        let left = self.total_len.saturating_sub(start);
        u32::saturating_from(left.min(u64::from(self.piece_len)))
    }

    /// Returns the offset of `piece` in the content, in bytes.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_len)
    }

    /// Returns the bytes of the content that `block` covers.
    pub fn block_span(&self, block: BlockRef) -> Range<u64> {
        let start = self.piece_offset(block.piece) + u64::from(block.begin);
        start..start + u64::from(block.len)
    }

    /// Returns the number of blocks in `piece`.
    pub fn blocks_in(&self, piece: PieceIndex) -> u32 {
        self.piece_size(piece).div_ceil(BLOCK_LEN)
    }

    /// Returns the number of blocks in a piece of full length.
    pub fn blocks_per_piece(&self) -> u32 {
        self.piece_len.div_ceil(BLOCK_LEN)
    }

    /// Returns block number `index` of `piece`. The length is 0 if there is no such block.
    pub fn block(&self, piece: PieceIndex, index: u32) -> BlockRef {
        let begin = index.saturating_mul(BLOCK_LEN);
        let len = self.piece_size(piece).saturating_sub(begin).min(BLOCK_LEN);
        BlockRef { piece, begin, len }
    }

    /// Returns the number of `block` in its piece; `None` unless it is exactly a block that
    /// [`Geometry::block`] returns.
    pub fn block_index(&self, block: BlockRef) -> Option<u32> {
        let index = block.begin / BLOCK_LEN;
        let exact =
            self.contains(block.piece) && block.len > 0 && self.block(block.piece, index) == block;
        exact.then_some(index)
    }

    /// Returns whether `block` lies in its piece and is not empty, whatever its alignment.
    pub fn is_inside(&self, block: BlockRef) -> bool {
        self.contains(block.piece)
            && block.len > 0
            && u64::from(block.begin) + u64::from(block.len)
                <= u64::from(self.piece_size(block.piece))
    }

    /// Returns the pieces that contain any of the bytes in `span`.
    pub fn pieces_of(&self, span: Range<u64>) -> Range<u32> {
        if span.is_empty() || self.pieces == 0 {
            return 0..0;
        }
        let piece_len = u64::from(self.piece_len);
        let first = u32::saturating_from((span.start / piece_len).min(u64::from(self.pieces)));
        let last = u32::saturating_from((span.end.div_ceil(piece_len)).min(u64::from(self.pieces)));
        first..last
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_and_block_are_shorter() {
        let g = Geometry::new(100_000, 65_536).unwrap();
        assert_eq!(g.pieces(), 2);
        assert_eq!(g.piece_size(PieceIndex(0)), 65_536);
        assert_eq!(g.piece_size(PieceIndex(1)), 34_464);
        assert_eq!(g.piece_size(PieceIndex(2)), 0);
        assert_eq!(g.blocks_in(PieceIndex(1)), 3);
        let last = g.block(PieceIndex(1), 2);
        assert_eq!((last.begin, last.len), (32_768, 1_696));
        assert_eq!(g.block_index(last), Some(2));
        assert_eq!(g.block_index(BlockRef { len: 1_695, ..last }), None);
        assert_eq!(g.block(PieceIndex(1), 3).len, 0);
    }

    #[test]
    fn no_content_is_no_pieces() {
        let g = Geometry::new(0, 16_384).unwrap();
        assert_eq!(g.pieces(), 0);
        assert_eq!(g.pieces_of(0..0), 0..0);
    }

    #[test]
    fn spans_name_every_piece_they_touch() {
        let g = Geometry::new(100, 10).unwrap();
        assert_eq!(g.pieces_of(9..11), 0..2);
        assert_eq!(g.pieces_of(10..20), 1..2);
        assert_eq!(g.pieces_of(99..100), 9..10);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::ZeroPieceLength));
        assert!(Geometry::new(u64::MAX, 16_384).is_err());
    }

    #[test]
    fn blocks_outside_the_piece_are_not_inside() {
        let g = Geometry::new(100_000, 65_536).unwrap();
        let block = |piece, begin, len| BlockRef { piece: PieceIndex(piece), begin, len };
        assert!(g.is_inside(block(0, 1, 16_384)));
        assert!(!g.is_inside(block(0, 65_000, 1_000)));
        assert!(!g.is_inside(block(2, 0, 1)));
        assert!(!g.is_inside(block(0, 0, 0)));
        assert!(!g.is_inside(block(0, u32::MAX, u32::MAX)));
    }
}
