//! What a tracker knows of the swarms of its catalogue.

use std::time::SystemTime;

use super::service::Service;
use crate::base::{InfoHash, Moment, PieceIndex};
use crate::registry::{PeerView, SwarmView};

impl Service {
    /// A catalogued torrent's swarm. Copies the peers' bitfields.
    pub(super) fn swarm(&self, info_hash: InfoHash) -> Option<SwarmView> {
        let now = self.clock.now();
        self.with_registry(info_hash, |registry| registry.swarm(now, info_hash))
    }

    /// Who is known to hold a piece.
    pub(super) fn holders(&self, info_hash: InfoHash, piece: PieceIndex) -> Vec<PeerView> {
        let now = self.clock.now();
        self.with_registry(info_hash, |registry| registry.holder_views(now, info_hash, piece))
    }

    /// The time of day that a moment was.
    pub(super) fn time_of(&self, moment: Moment) -> SystemTime {
        self.started + moment.since(self.began)
    }
}
