//! Visits as the driver sees them: actions, and the ways in which a visit ends.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::InfoHash;

/// The limits of an observer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObserverConfig {
    /// The maximum number of connections.
    pub max_connections: usize,
    /// The maximum number of connections to peers of one torrent. Of a larger swarm the observer sees a sample.
    pub max_per_torrent: usize,
    /// The minimum time between two connections to one address.
    pub pause: Duration,
}

/// The counters of an observer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ObserverFigures {
    /// The number of known peers.
    pub known: usize,
    /// The number of connections after the handshake.
    pub open: usize,
    /// The number of attempts under way.
    pub dialing: usize,
    /// The total number of attempts.
    pub dials: u64,
    /// The number of attempts that were refused, unanswered or declined.
    pub failed: u64,
}

/// Identifies a connection or a connection attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VisitKey(pub u64);

/// What the driver has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObserverAction {
    /// Connect, and call [`Observer::opened`](super::Observer::opened) and
    /// [`Observer::ended`](super::Observer::ended).
    Dial {
        /// Identifies the attempt.
        visit: VisitKey,
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The peer's address.
        addr: SocketAddr,
    },
    /// End a connection or attempt, without calling [`Observer::ended`](super::Observer::ended).
    HangUp {
        /// The connection or attempt.
        visit: VisitKey,
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The peer's address.
        addr: SocketAddr,
    },
    /// Record whether a peer accepts connections.
    Checked {
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The peer's address.
        addr: SocketAddr,
        /// Whether the peer accepts connections.
        reachable: bool,
    },
    /// Remove a peer that is gone from the list.
    Gone {
        /// The torrent's info-hash.
        info_hash: InfoHash,
        /// The peer's address.
        addr: SocketAddr,
    },
}

/// How a connection or connection attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VisitEnd {
    /// The connection was refused.
    Refused,
    /// There was no answer.
    Unanswered,
    /// The peer declined: it hung up, or answered for another torrent or protocol.
    Declined,
    /// The peer accepted the connections and closed them during the handshake, plain and encrypted.
    HungUp,
    /// The peer accepts connections. Nothing was sent, because the observer would have blocked another peer.
    Probed,
    /// The peer accepts connections. Nothing was sent, because the observer is connected to its other address.
    Elsewhere,
    /// An open connection was closed by either side.
    Closed,
    /// The tracker's machine or network is at fault.
    Ours,
    /// The observer would have blocked another peer, or there is no room for the peer's bitfield.
    NoRoom,
    /// The peer is no longer listed.
    Unlisted,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        Self { max_connections: 1_000, max_per_torrent: 200, pause: Duration::from_secs(2) }
    }
}
