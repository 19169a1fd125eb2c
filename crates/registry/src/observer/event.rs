//! The observer's input.

use std::net::SocketAddr;

use piecework_core::{InfoHash, PeerId};

/// An event about a peer of a catalogued torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObserverEvent {
    /// The peer announced.
    Here {
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The address at which the peer says that it accepts connections.
        addr: SocketAddr,
        /// The announced peer id.
        peer_id: PeerId,
        /// Whether the peer announced that nothing is missing.
        complete: bool,
        /// Whether the peer reports its holdings.
        reports: bool,
        /// Whether the observed holdings are stale: the peer announced progress, but they have not changed. The
        /// peer has to be visited again.
        stale: bool,
        /// Set if the peer announced before a restart and was not heard from since: whether the observer had been
        /// connected to it.
        restored: Option<bool>,
    },
    /// The peer left the list.
    Left {
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The peer's address.
        addr: SocketAddr,
    },
}
