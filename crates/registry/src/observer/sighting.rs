//! News for who observes.

use std::net::SocketAddr;

use piecework_core::{InfoHash, PeerId};

/// News for who observes: a peer of a catalogued torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// It announced.
    Here {
        /// The torrent.
        info_hash: InfoHash,
        /// Where it takes connections, by its word.
        addr: SocketAddr,
        /// Who it says it is.
        peer_id: PeerId,
        /// It says that nothing is left to get.
        complete: bool,
        /// It reports its holdings itself.
        reports: bool,
        /// It got bytes by its own word, and what it showed has not changed: it is to be looked at anew.
        stale: bool,
        /// It announced before a restart, and nothing was heard of it since; whether it was connected
        /// to then.
        restored: Option<bool>,
    },
    /// It left the list.
    Left {
        /// The torrent.
        info_hash: InfoHash,
        /// Where it was.
        addr: SocketAddr,
    },
}
