//! The settings of a registry.

use std::time::Duration;

use super::select::Selection;

/// The settings of a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryConfig {
    /// The time without an announce after which a peer expires: the announce interval and a grace period.
    pub expire_after: Duration,
    /// How complete peers are selected.
    pub selection: Selection,
    /// Whether torrents that are not catalogued are tracked too.
    pub open: bool,
    /// The maximum number of a torrent's peers at one IPv4 address or in one IPv6 /64. Loopback is exempt. An
    /// address may stand for a whole network behind a NAT.
    pub max_peers_per_ip: usize,
    /// The time in which the recent handout count halves.
    pub half_life: Duration,
    /// The maximum number of torrents. Catalogued torrents count, but are never refused.
    pub max_torrents: usize,
    /// The maximum number of uncatalogued torrents that one network announced first. Loopback is exempt.
    pub max_torrents_per_ip: usize,
    /// The maximum number of peers of all torrents.
    pub max_peers: usize,
    /// The maximum number of bytes of the peers' bitfields and of the piece counts made from them.
    pub max_held_bytes: usize,
    /// Whether to produce events for the observer about the peers of catalogued torrents.
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
            // A torrent takes about 200 bytes, a peer 12 to 50.
            max_torrents: 1_000_000,
            max_torrents_per_ip: 20_000,
            max_peers: 5_000_000,
            max_held_bytes: 256 << 20,
            observe: false,
        }
    }
}
