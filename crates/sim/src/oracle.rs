//! What must never happen, and what must happen in the end.

use std::fmt;
use std::time::Duration;

use piecework_core::{BlockRef, PieceIndex};

/// A failed run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed `{seed}`: after {:.6} s of virtual time, `{peer}` {violation}",
    .at.as_secs_f64()
)]
pub struct Failure {
    /// The seed that reproduces it.
    pub seed: u64,
    /// The virtual time since the start.
    pub at: Duration,
    /// The peer that did it.
    pub peer: String,
    /// What it did.
    pub violation: Violation,
}

/// What a peer did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// It holds a piece whose bytes are not those of the torrent.
    HoldsWrongPiece(PieceIndex),
    /// It requested a block that does not exist.
    AskedOutside(BlockRef),
    /// It requested a piece from a peer that does not hold it.
    AskedForMissing(BlockRef),
    /// It serves a piece that it has not verified.
    ServedUnverified(BlockRef),
    /// It banned a peer that never sent a wrong block.
    BannedHonest(String),
    /// It kept a block twice, or at no valid place.
    KeptTwice(BlockRef),
    /// It had a piece verified that is not whole.
    VerifiedIncomplete(PieceIndex),
    /// It forgot what to do with a block.
    ForgotBlock(BlockRef),
    /// It keeps more blocks in memory than it may.
    OverMemory {
        /// How many blocks it keeps.
        blocks: u32,
        /// How many blocks it may keep.
        most: u32,
    },
    /// It does not complete although the pieces that it lacks are there.
    Stuck {
        /// How many pieces it lacks.
        missing: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HoldsWrongPiece(piece) => write!(f, "holds piece {} with wrong bytes", piece.0),
            Self::AskedOutside(block) => {
                write!(f, "asked for block {}:{}, which does not exist", block.piece.0, block.begin)
            }
            Self::AskedForMissing(block) => write!(
                f,
                "asked for block {}:{} of a peer that does not hold it",
                block.piece.0, block.begin
            ),
            Self::ServedUnverified(block) => {
                write!(f, "served block {}:{} without verifying it", block.piece.0, block.begin)
            }
            Self::BannedHonest(peer) => write!(f, "banned `{peer}`, which sent nothing wrong"),
            Self::KeptTwice(block) => {
                write!(f, "kept block {}:{} twice", block.piece.0, block.begin)
            }
            Self::VerifiedIncomplete(piece) => {
                write!(f, "had piece {} verified before it was whole", piece.0)
            }
            Self::ForgotBlock(block) => {
                write!(f, "neither kept nor discarded block {}:{}", block.piece.0, block.begin)
            }
            Self::OverMemory { blocks, most } => {
                write!(f, "keeps {blocks} blocks in memory, where {most} are allowed")
            }
            Self::Stuck { missing } => {
                write!(f, "does not get {missing} pieces that others hold")
            }
        }
    }
}
