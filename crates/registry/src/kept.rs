//! Peers as they are kept over a restart of the tracker.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, InfoHash, PeerId};

use super::held::HoldingsSource;

/// A peer as it is kept over a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPeer {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its address, with the port it announces.
    pub addr: SocketAddr,
    /// It announced that nothing is left to get.
    pub complete: bool,
    /// Time since the tracker last knew that it was there.
    pub silent: Duration,
    /// The observer has been connected to it.
    pub reached: bool,
    /// Who it says it is.
    pub peer_id: Option<PeerId>,
    /// The key it announces.
    pub key: Option<AnnounceKey>,
    /// Bytes it said it misses.
    pub left: Option<u64>,
    /// What it holds.
    pub held: KeptHeld,
    /// Where that is known from.
    pub source: Option<HoldingsSource>,
    /// Time since that was last told.
    pub held_for: Duration,
}

/// What a kept peer holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptHeld {
    /// Nobody told.
    Unknown,
    /// Every piece.
    Everything,
    /// The bitfield as on the wire.
    Pieces(Vec<u8>),
}

/// Which peers are wanted of a registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptOf {
    /// Those of catalogued torrents.
    Catalogue,
    /// All others.
    Others,
}

/// How much may still be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptRoom {
    /// Peers.
    pub peers: usize,
    /// Bytes of their bitfields. A peer whose bitfield finds no room is kept without it.
    pub bytes: usize,
}
