//! What was said of the torrent's memory, and what its share is worth.

use piecework_core::{Geometry, Moment};

use super::super::assembly::STREAM_OVER;

/// What was said of memory last.
#[derive(Default)]
pub(super) struct MemoryShare {
    /// To the hash service: pieces that may come.
    pub coming: usize,
    /// To the session: whether there was too little.
    pub short: bool,
    /// To the swarm: its share.
    pub share: u64,
    /// When the session is to be asked whether there is more by now.
    pub speak_at: Option<Moment>,
    /// What fills the lines of its peers, and when that was looked at.
    pub in_flight: (u64, Moment),
}

/// Blocks that the swarm may have asked for, when its share of the memory is `share` blocks.
pub(super) fn blocks(geometry: &Geometry, share: u64) -> u32 {
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    if geometry.piece_len() > STREAM_OVER {
        // Its blocks do not stay in memory: room for some pieces at a time.
        share.max(geometry.blocks_per_piece().saturating_mul(4))
    } else {
        share
    }
}
