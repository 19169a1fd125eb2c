//! The form in which peers are saved for a restart of the tracker.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, InfoHash, PeerId};

use super::holdings::HoldingsSource;

/// A peer as it is saved for a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPeer {
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// The peer's address, with the port that it announces.
    pub addr: SocketAddr,
    /// Whether the peer announced that it misses nothing.
    pub complete: bool,
    /// The time since the peer last announced or was seen by the observer.
    pub silent: Duration,
    /// Whether the observer has been connected to the peer.
    pub reached: bool,
    /// The announced peer id.
    pub peer_id: Option<PeerId>,
    /// The announced key.
    pub key: Option<AnnounceKey>,
    /// The announced number of missing bytes.
    pub left: Option<u64>,
    /// Which pieces the peer holds.
    pub held: KeptHoldings,
    /// How the holdings are known.
    pub source: Option<HoldingsSource>,
    /// The time since the holdings were last confirmed.
    pub held_for: Duration,
}

/// The holdings of a saved peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptHoldings {
    /// The holdings are not known.
    Unknown,
    /// The peer holds every piece.
    Everything,
    /// The bitfield in its wire form.
    Pieces(Vec<u8>),
}

/// Which peers of a registry are to be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptScope {
    /// The peers of catalogued torrents.
    Catalogue,
    /// The peers of all other torrents.
    Others,
}

/// How much more may be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptRoom {
    /// The number of peers.
    pub peers: usize,
    /// The number of bitfield bytes. A peer whose bitfield does not fit is saved without it.
    pub bytes: usize,
}
