//! What was last said of the torrent's memory, and how many blocks its share is.

use piecework_core::{Geometry, Moment};

use super::super::assembly::STREAM_OVER;

/// What was last said of the torrent's memory.
#[derive(Default)]
pub(super) struct MemoryShare {
    /// Said to the hash service: pieces that may come.
    pub coming: usize,
    /// Said to the session: whether there was too little.
    pub short: bool,
    /// Said to the swarm: its share.
    pub share: u64,
    /// When to ask the session whether there is more by now.
    pub speak_at: Option<Moment>,
    /// Blocks in flight, and when that was looked at.
    pub in_flight: (u64, Moment),
}

/// Returns how many blocks the swarm may have requested when its share of the memory is `share`
/// blocks.
pub(super) fn blocks(geometry: &Geometry, share: u64) -> u32 {
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    if geometry.piece_len() > STREAM_OVER {
        // Its blocks do not stay in memory, so there is room for some pieces at a time.
        share.max(geometry.blocks_per_piece().saturating_mul(4))
    } else {
        share
    }
}
