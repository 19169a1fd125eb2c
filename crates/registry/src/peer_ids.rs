//! The ids of peers of torrents that are not catalogued. The answer that gives peers one by one has
//! them (BEP 3), and few clients ask for it, so they are kept for a bounded number of peers.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::PeerId;

/// Peer ids by the torrent's slot and the peer's address.
pub(super) struct PeerIds {
    known: HashMap<(u32, SocketAddr), PeerId, FixedState>,
}

impl PeerIds {
    pub(super) fn new(seed: u64) -> Self {
        Self { known: HashMap::with_hasher(FixedState::with_seed(seed)) }
    }

    /// Keeps an id in place of the one before, if there is room.
    pub(super) fn keep(&mut self, slot: usize, addr: SocketAddr, peer_id: PeerId) {
        let key = (slot as u32, addr);
        if self.known.len() < MAX_PEER_IDS {
            self.known.insert(key, peer_id);
        } else if let Some(known) = self.known.get_mut(&key) {
            *known = peer_id;
        }
    }

    pub(super) fn get(&self, slot: usize, addr: SocketAddr) -> Option<PeerId> {
        self.known.get(&(slot as u32, addr)).copied()
    }

    pub(super) fn forget(&mut self, slot: usize, addr: SocketAddr) {
        self.known.remove(&(slot as u32, addr));
    }

    /// The peers of a torrent whose id is this one. Takes time for each peer that is known.
    pub(super) fn with_id(&self, slot: usize, peer_id: PeerId) -> Vec<SocketAddr> {
        let of_it =
            |((at, _), id): &(&(u32, SocketAddr), &PeerId)| *at == slot as u32 && **id == peer_id;
        self.known.iter().filter(of_it).map(|((_, addr), _)| *addr).collect()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.known.allocation_size()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, SocketAddr)> + '_ {
        self.known.keys().map(|(slot, addr)| (*slot as usize, *addr))
    }
}

/// Peers whose ids one registry keeps: some 70 bytes each, 5 MB in the sixteen of a tracker.
const MAX_PEER_IDS: usize = 4_096;
