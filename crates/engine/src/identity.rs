//! What trackers and peers know a session by.

use sha2::{Digest, Sha256};

use piecework_core::{AnnounceKey, InfoHash, PeerId};

pub(super) struct Identity {
    pub peer_id: PeerId,
    /// The secret that announce keys are made from.
    pub announce_secret: [u8; 32],
    /// The port on which peers are accepted, if they are.
    pub listen_port: Option<u16>,
}

impl Identity {
    /// Returns the key by which trackers know us in a torrent: the same for all our announces and
    /// reports of it, and another one for each torrent.
    pub(crate) fn announce_key(&self, info_hash: InfoHash) -> AnnounceKey {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.announce_secret)
            .chain_update(info_hash.0)
            .finalize()
            .into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        AnnounceKey::Long(key)
    }

    /// Returns the port that trackers are told.
    pub(crate) fn announced_port(&self) -> u16 {
        self.listen_port.unwrap_or(PORT_OF_NOBODY)
    }
}

/// Announced by a session that accepts no peers. BEP 3 has no way to say "none", and trackers refuse
/// port 0. 9 is the discard service.
const PORT_OF_NOBODY: u16 = 9;
