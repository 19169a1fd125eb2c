//! The peers of one torrent by their id and key, so that an announce costs the same however many peers
//! there are.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{AnnounceKey, PeerId};

use super::facts::Identity;

/// The peers of one torrent by their id and key: at most one entry for each peer with both.
pub(crate) struct Identities {
    first: HashMap<Identity, SocketAddr, FixedState>,
    /// How many keys are known to come with an id.
    keys: HashMap<PeerId, u32, FixedState>,
}

/// The second address of a peer.
pub(crate) struct Second {
    /// The address at which the peer stands in the ledger.
    pub(crate) of: SocketAddr,
    /// How often it was handed out at this one.
    pub(crate) assigned: u64,
}

/// What a new announce's id and key say of who announces.
pub(crate) enum Kin {
    /// It is the peer that is known at this address of the other family, by this key.
    Peer(SocketAddr, AnnounceKey),
    /// The id is that of another peer, the key is not.
    Stranger,
    /// No peer that is known here.
    Nobody,
}

impl Identities {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            first: HashMap::with_hasher(FixedState::with_seed(seed)),
            keys: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Keeps where a peer is, unless another one is known by the same id and key.
    pub(crate) fn insert(&mut self, identity: Identity, addr: SocketAddr) {
        if let hashbrown::hash_map::Entry::Vacant(entry) = self.first.entry(identity) {
            entry.insert(addr);
            *self.keys.entry(identity.0).or_default() += 1;
        }
    }

    /// The first address of the peer with this id and key.
    pub(crate) fn find(&self, identity: Identity) -> Option<SocketAddr> {
        self.first.get(&identity).copied()
    }

    /// Whether a peer with this id is known, by whatever key.
    pub(crate) fn knows(&self, peer_id: PeerId) -> bool {
        self.keys.contains_key(&peer_id)
    }

    /// Forgets that a peer is at `addr`.
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
