//! The ids of peers of uncatalogued torrents. Only the non-compact answer contains them (BEP 3), which few clients
//! ask for, so they are kept for a bounded number of peers.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::PeerId;

/// Peer ids by the slot of the torrent and the address of the peer.
pub(super) struct PeerIds {
    known: HashMap<(u32, SocketAddr), PeerId, FixedState>,
}

impl PeerIds {
    pub(super) fn new(seed: u64) -> Self {
        Self { known: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// Adds or replaces the id of a peer. Ignores a new peer if the table is full.
    pub(super) fn keep(&mut self, slot: usize, addr: SocketAddr, peer_id: PeerId) {
        let key = (u32::saturating_from(slot), addr);
        if self.known.len() < MAX_PEER_IDS {
            self.known.insert(key, peer_id);
        } else if let Some(known) = self.known.get_mut(&key) {
            *known = peer_id;
        }
    }

    pub(super) fn get(&self, slot: usize, addr: SocketAddr) -> Option<PeerId> {
        self.known.get(&(u32::saturating_from(slot), addr)).copied()
    }

    pub(super) fn forget(&mut self, slot: usize, addr: SocketAddr) {
        self.known.remove(&(u32::saturating_from(slot), addr));
    }

    /// Returns the addresses of a torrent's peers with this id. Takes time in proportion to all known ids.
    pub(super) fn with_id(&self, slot: usize, peer_id: PeerId) -> Vec<SocketAddr> {
        let of_it = |((at, _), id): &(&(u32, SocketAddr), &PeerId)| {
            *at == u32::saturating_from(slot) && **id == peer_id
        };
        self.known.iter().filter(of_it).map(|((_, addr), _)| *addr).collect()
    }

    /// Gives back the room of ids that were removed.
    pub(super) fn shrink(&mut self) {
        self.known.shrink_to(2 * self.known.len());
    }

    /// Returns the number of heap bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.known.allocation_size()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        self.known.keys().map(|(slot, addr)| (*slot as usize, *addr))
    }
}

/// The maximum number of ids in one registry: some 70 bytes each, 5 MB in the sixteen registries of a tracker.
const MAX_PEER_IDS: usize = 4_096;
