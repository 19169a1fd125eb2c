//! Which pieces a peer holds, and how the tracker knows.

use piecework_core::{Bitfield, PieceIndex};

/// Which pieces a peer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holdings {
    /// The peer holds every piece.
    Everything,
    /// The peer holds these pieces.
    Pieces(Bitfield),
    /// The holdings are not known.
    Unknown,
}

/// How the tracker knows which pieces a peer holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HoldingsSource {
    /// The peer reported its bitfield to the tracker.
    Reported,
    /// The observer connected to the peer and read its bitfield.
    Observed,
    /// The peer announced that it misses nothing.
    Announced,
}

impl Holdings {
    /// Returns how many of the torrent's `pieces` pieces are held; `None` if that is not known.
    pub fn count(&self, pieces: u32) -> Option<u32> {
        match self {
            Self::Everything => Some(pieces),
            Self::Pieces(held) => Some(held.count()),
            Self::Unknown => None,
        }
    }

    /// Returns whether `piece` is known to be held.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Everything => true,
            Self::Pieces(held) => held.contains(piece),
            Self::Unknown => false,
        }
    }

    /// Returns the holdings that a bitfield describes. A full bitfield becomes `Everything`, which needs no memory.
    pub(super) fn of(bits: Bitfield) -> Self {
        if bits.is_full() { Self::Everything } else { Self::Pieces(bits) }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Pieces(held) => held.as_wire().len(),
            Self::Everything | Self::Unknown => 0,
        }
    }
}

impl HoldingsSource {
    /// Returns the word that stands for it on the console and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Observed => "observed",
            Self::Announced => "announced",
        }
    }
}
