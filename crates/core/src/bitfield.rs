//! The set of pieces that a peer holds, as on the wire.

use crate::SaturatingFrom;
use bitvec::prelude::{BitVec, Msb0};

use super::PieceIndex;

/// One bit per piece. The first piece is the highest bit of the first byte (BEP 3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitfield {
    bits: BitVec<u8, Msb0>,
    ones: u32,
}

/// Why bytes are not a bitfield of the torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Too many or too few bytes.
    #[error("a bitfield of `{pieces}` pieces has `{wanted}` bytes, not `{got}`")]
    WrongLength {
        /// The number of pieces of the torrent.
        pieces: u32,
        /// The number of bytes expected.
        wanted: usize,
        /// The number of bytes received.
        got: usize,
    },
    /// A bit after the last piece is set.
    #[error("a spare bit after the last piece is set")]
    SpareBits,
}

impl Bitfield {
    /// Returns a bitfield of `pieces` pieces without any.
    pub fn empty(pieces: u32) -> Self {
        Self { bits: BitVec::repeat(false, pieces as usize), ones: 0 }
    }

    /// Returns a bitfield of `pieces` pieces with all of them.
    pub fn full(pieces: u32) -> Self {
        let mut bits = BitVec::repeat(true, pieces as usize);
        bits.set_uninitialized(false);
        Self { bits, ones: pieces }
    }

    /// Decodes the bitfield of `pieces` pieces. The spare bits must be clear.
    pub fn from_wire(bytes: &[u8], pieces: u32) -> Result<Self, BitfieldError> {
        let wanted = (pieces as usize).div_ceil(8);
        if bytes.len() != wanted {
            return Err(BitfieldError::WrongLength { pieces, wanted, got: bytes.len() });
        }
        let mut bits = BitVec::<u8, Msb0>::from_slice(bytes);
        if bits[pieces as usize..].any() {
            return Err(BitfieldError::SpareBits);
        }
        bits.truncate(pieces as usize);
        bits.set_uninitialized(false);
        let ones = u32::saturating_from(bits.count_ones());
        Ok(Self { bits, ones })
    }

    /// Adds `piece`. Returns whether it was missing and exists.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        self.put(piece, true)
    }

    /// Removes `piece`. Returns whether it was set.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        self.put(piece, false)
    }

    /// Returns whether `piece` is set.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.bits.get(piece.0 as usize).is_some_and(|bit| *bit)
    }

    /// Returns the number of pieces of the torrent, set or not.
    pub fn len(&self) -> u32 {
        u32::saturating_from(self.bits.len())
    }

    /// Returns whether the torrent has no pieces.
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Returns the number of pieces that are set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Returns whether every piece is set. True for a torrent without pieces.
    pub fn is_full(&self) -> bool {
        self.ones == self.len()
    }

    /// Returns the pieces that are set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bits.iter_ones().map(|index| PieceIndex(u32::saturating_from(index)))
    }

    /// Returns the pieces that are not set, in order.
    pub fn missing(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bits.iter_zeros().map(|index| PieceIndex(u32::saturating_from(index)))
    }

    /// Returns whether a piece is set here and not in `other`.
    pub fn has_beyond(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.bits.as_raw_slice(), other.bits.as_raw_slice());
        mine.iter()
            .enumerate()
            .any(|(index, byte)| byte & !theirs.get(index).copied().unwrap_or(0) != 0)
    }

    /// Returns the bytes as on the wire. The spare bits are clear.
    pub fn as_wire(&self) -> &[u8] {
        self.bits.as_raw_slice()
    }

    fn put(&mut self, piece: PieceIndex, value: bool) -> bool {
        let Some(mut bit) = self.bits.get_mut(piece.0 as usize) else { return false };
        if *bit == value {
            return false;
        }
        *bit = value;
        drop(bit);
        self.ones = if value { self.ones + 1 } else { self.ones - 1 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitfield_of_wrong_size_is_refused() {
        assert!(matches!(
            Bitfield::from_wire(&[0, 0], 8),
            Err(BitfieldError::WrongLength { wanted: 1, got: 2, .. })
        ));
        assert!(Bitfield::from_wire(&[], 1).is_err());
    }

    #[test]
    fn bitfield_with_spare_bits_is_refused() {
        assert_eq!(Bitfield::from_wire(&[0xff], 7), Err(BitfieldError::SpareBits));
        assert_eq!(Bitfield::from_wire(&[0xfe], 7).unwrap().count(), 7);
    }

    #[test]
    fn full_has_no_spare_bits_on_the_wire() {
        let full = Bitfield::full(11);
        assert_eq!(full.as_wire(), [0xff, 0xe0]);
        assert!(full.is_full());
        assert_eq!(Bitfield::from_wire(full.as_wire(), 11).unwrap(), full);
    }

    #[test]
    fn counts_follow_every_change() {
        let mut held = Bitfield::empty(9);
        assert!(held.insert(PieceIndex(8)));
        assert!(!held.insert(PieceIndex(8)));
        assert!(!held.insert(PieceIndex(9)));
        assert_eq!(held.count(), 1);
        assert_eq!(held.iter().collect::<Vec<_>>(), [PieceIndex(8)]);
        assert!(held.has_beyond(&Bitfield::empty(9)));
        assert!(!held.has_beyond(&Bitfield::full(9)));
        assert!(held.remove(PieceIndex(8)));
        assert_eq!((held.count(), held.missing().count()), (0, 9));
    }
}
