//! An index of one torrent's peers by id and key, so that the cost of an announce does not depend on the number of
//! peers.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{AnnounceKey, PeerId};

use super::facts::Identity;

/// The first addresses of the peers of one torrent by id and key.
pub(crate) struct Identities {
    first: HashMap<Identity, SocketAddr, FixedState>,
    /// The number of known keys for each id.
    keys: HashMap<PeerId, u32, FixedState>,
}

/// The second address of a peer.
pub(crate) struct SecondAddress {
    /// The address at which the ledger has the peer.
    pub(crate) of: SocketAddr,
    /// How often the peer was handed out at the second address.
    pub(crate) assigned: u64,
}

/// The result of looking up the id and key of an announce.
pub(crate) enum IdentityMatch {
    /// The peer at this address of the other family, with its known key.
    Peer(SocketAddr, AnnounceKey),
    /// The id of a known peer with a different key.
    Stranger,
    /// No known peer.
    Nobody,
}

impl Identities {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            first: HashMap::with_hasher(FixedState::with_seed(seed)),
            keys: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Adds the address of a peer, unless the id and key are already known.
    pub(crate) fn insert(&mut self, identity: Identity, addr: SocketAddr) {
        if let hashbrown::hash_map::Entry::Vacant(entry) = self.first.entry(identity) {
            entry.insert(addr);
            *self.keys.entry(identity.0).or_default() += 1;
        }
    }

    /// Returns the first address of the peer with this id and key.
    pub(crate) fn find(&self, identity: Identity) -> Option<SocketAddr> {
        self.first.get(&identity).copied()
    }

    /// Returns whether a peer with this id is known, with any key.
    pub(crate) fn knows(&self, peer_id: PeerId) -> bool {
        self.keys.contains_key(&peer_id)
    }

    /// Removes the entry if it has the address `addr`.
    pub(crate) fn remove(&mut self, identity: Identity, addr: SocketAddr) {
        if self.first.get(&identity) != Some(&addr) {
            return;
        }
        self.first.remove(&identity);
        if let Some(keys) = self.keys.get_mut(&identity.0) {
            *keys -= 1;
            if *keys == 0 {
                self.keys.remove(&identity.0);
            }
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self, of: impl Fn(SocketAddr) -> Option<Identity>) {
        for (identity, addr) in &self.first {
            assert_eq!(of(*addr), Some(*identity));
        }
        let mut keys: HashMap<PeerId, u32, FixedState> = HashMap::default();
        self.first.keys().for_each(|(id, _)| *keys.entry(*id).or_default() += 1);
        assert_eq!(keys, self.keys);
    }
}
