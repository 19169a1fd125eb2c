//! Where addresses of peers were heard of.

use std::net::SocketAddr;

/// Where an address was heard of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerSource {
    /// A tracker named it.
    Tracker,
    /// A node of the DHT named it.
    Dht,
    /// Another peer named it (peer exchange, BEP 11).
    Exchange,
    /// The peer announced itself on the local network (BEP 14).
    Local,
    /// A magnet link named it.
    Magnet,
    /// A user named it, on the command line or in a menu.
    User,
    /// The peer connected to us.
    Incoming,
}

impl PeerSource {
    /// All sources.
    pub const ALL: [Self; 7] = [
        Self::Tracker,
        Self::Dht,
        Self::Exchange,
        Self::Local,
        Self::Magnet,
        Self::User,
        Self::Incoming,
    ];

    /// Returns whether a user named the address, alone or in a link. Such an address is never forgotten.
    pub fn is_named(self) -> bool {
        matches!(self, Self::User | Self::Magnet)
    }

    /// Returns whether a private torrent (BEP 27) may use the address.
    pub fn serves_private(self) -> bool {
        match self {
            Self::Tracker | Self::User | Self::Incoming => true,
            Self::Dht | Self::Exchange | Self::Local | Self::Magnet => false,
        }
    }

    /// Returns its name in lower case, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Dht => "dht",
            Self::Exchange => "exchange",
            Self::Local => "local",
            Self::Magnet => "magnet",
            Self::User => "user",
            Self::Incoming => "incoming",
        }
    }
}

/// An address where a peer may be, and where it was heard of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeardAddress {
    /// The address.
    pub addr: SocketAddr,
    /// Where it was heard of.
    pub source: PeerSource,
}
