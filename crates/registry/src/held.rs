//! Which pieces a peer holds, and how that is known.

use piecework_core::{Bitfield, PieceIndex};

/// Which pieces a peer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Held {
    /// Every piece.
    Everything,
    /// These.
    Pieces(Bitfield),
    /// Nobody told us.
    Unknown,
}

/// Where it is known from which pieces a peer holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HoldingsSource {
    /// The peer reported its bitfield to us.
    Reported,
    /// We connected to it and read its bitfield.
    Observed,
    /// It announced that nothing is left to get.
    Announced,
}

impl Held {
    /// How many of `pieces` pieces; `None` if nobody told.
    pub fn count(&self, pieces: u32) -> Option<u32> {
        match self {
            Self::Everything => Some(pieces),
            Self::Pieces(held) => Some(held.count()),
            Self::Unknown => None,
        }
    }

    /// Whether it is known that `piece` is held.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Everything => true,
            Self::Pieces(held) => held.contains(piece),
            Self::Unknown => false,
        }
    }

    /// What a bitfield says, whole ones in the form that costs nothing.
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
    /// One word, as the console and the JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Observed => "observed",
            Self::Announced => "announced",
        }
    }
}
