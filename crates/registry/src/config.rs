//! What a registry does and bounds.

use std::time::Duration;

use super::select::Selection;

/// What a registry does and bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryConfig {
    /// Silence after which a peer is gone: the announce interval and some grace.
    pub expire_after: Duration,
    /// How complete peers are chosen.
    pub selection: Selection,
    /// Track torrents that are not catalogued too.
    pub open: bool,
    /// Peers of one torrent from one IPv4 address or IPv6 /64; loopback is not counted. An address
    /// may be that of a whole network behind a NAT.
    pub max_peers_per_ip: usize,
    /// Time in which the recent count of assignments halves.
    pub half_life: Duration,
    /// Torrents at most; catalogued ones count, but are never refused.
    pub max_torrents: usize,
    /// Torrents that are not catalogued and that one network announced first; loopback is not
    /// counted.
    pub max_torrents_per_ip: usize,
    /// Peers of all torrents at most.
    pub max_peers: usize,
    /// Bytes of the peers' bitfields, and of what is counted from them, at most.
    pub max_held_bytes: usize,
    /// Tell of the peers of catalogued torrents, so that they can be observed.
    pub observe: bool,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            expire_after: Duration::from_secs(180),
            selection: Selection::Balanced,
            open: true,
            max_peers_per_ip: 32,
            half_life: Duration::from_secs(600),
            // Torrents cost about 200 bytes each, peers 12 to 50.
            max_torrents: 1_000_000,
            max_torrents_per_ip: 20_000,
            max_peers: 5_000_000,
            max_held_bytes: 256 << 20,
            observe: false,
        }
    }
}
