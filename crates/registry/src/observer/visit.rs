//! Visits as a driver sees them: what it is asked to do, and how each ended.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::InfoHash;

/// How much an observer does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObserverConfig {
    /// Connections in all.
    pub max_connections: usize,
    /// Connections to peers of one torrent: of larger swarms a sample is seen.
    pub max_per_torrent: usize,
    /// Least time between two connections to one address.
    pub pause: Duration,
}

/// What an observer does and has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ObserverFigures {
    /// Peers it keeps in mind.
    pub known: usize,
    /// Connections whose handshake is done.
    pub open: usize,
    /// Attempts under way.
    pub dialing: usize,
    /// Attempts begun so far.
    pub dials: u64,
    /// Of these, those that were refused, unanswered or declined.
    pub failed: u64,
}

/// A connection, or the attempt at one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VisitKey(pub u64);

/// What a driver is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObserverAction {
    /// Connect, and say when that is done or over.
    Dial {
        /// The attempt's name.
        visit: VisitKey,
        /// The torrent.
        info_hash: InfoHash,
        /// Where to.
        addr: SocketAddr,
    },
    /// End a connection or an attempt; nothing is to be said of it any more.
    HangUp {
        /// Which.
        visit: VisitKey,
        /// The torrent.
        info_hash: InfoHash,
        /// The peer.
        addr: SocketAddr,
    },
    /// It has become known whether a peer takes connections.
    Checked {
        /// The torrent.
        info_hash: InfoHash,
        /// The peer.
        addr: SocketAddr,
        /// Whether it does.
        reachable: bool,
    },
    /// A peer is gone: take it off the list.
    Gone {
        /// The torrent.
        info_hash: InfoHash,
        /// The peer.
        addr: SocketAddr,
    },
}

/// How a connection, or the attempt at one, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VisitEnd {
    /// Nobody takes connections there.
    Refused,
    /// Nobody answered.
    Unanswered,
    /// Somebody is there, and did not want us: it hung up, or spoke of something else.
    Declined,
    /// Somebody took the connection and closed it at our handshake, plain and encrypted.
    HungUp,
    /// Somebody takes connections there. Nothing was said, as we would have been in the way of others.
    Probed,
    /// The same, as there is a connection to the peer at its other address.
    Elsewhere,
    /// An open connection ended, whoever did it.
    Closed,
    /// It is our own fault, or that of our network.
    Ours,
    /// We would have been in the way of others, or there is no room for what it holds.
    NoRoom,
    /// The peer is no longer on the list.
    Unlisted,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        Self { max_connections: 1_000, max_per_torrent: 200, pause: Duration::from_secs(2) }
    }
}
