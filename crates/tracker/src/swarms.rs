//! What a tracker knows of the swarms of its catalogue.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::service::Service;
use piecework_core::{InfoHash, Moment, PieceIndex};
use piecework_registry::{PeerView, SwarmCounts, SwarmView};

impl Service {
    /// A catalogued torrent's swarm. Copies the peers' bitfields.
    pub(super) fn swarm(&self, info_hash: InfoHash) -> Option<SwarmView> {
        let now = self.clock.now();
        self.with_registry(info_hash, |registry| registry.swarm(now, info_hash))
    }

    /// A catalogued torrent's counts.
    pub(super) fn swarm_counts(&self, info_hash: InfoHash) -> Option<SwarmCounts> {
        self.with_registry(info_hash, |registry| registry.swarm_counts(info_hash))
    }

    /// The next peers of a torrent in order of their number.
    pub(super) fn peers_after(
        &self,
        info_hash: InfoHash,
        after: Option<u64>,
        most: usize,
    ) -> Vec<(u64, SocketAddr)> {
        self.with_registry(info_hash, |registry| registry.peers_after(info_hash, after, most))
    }

    /// The first of these peers, until their bitfields have so many bytes, and how many of them
    /// were looked at.
    pub(super) fn peer_views(
        &self,
        info_hash: InfoHash,
        peers: &[(u64, SocketAddr)],
        bytes: usize,
    ) -> (Vec<PeerView>, usize) {
        let now = self.clock.now();
        self.with_registry(info_hash, |registry| registry.peer_views(now, info_hash, peers, bytes))
    }

    /// Who is known to hold a piece.
    pub(super) fn holders(&self, info_hash: InfoHash, piece: PieceIndex) -> Vec<PeerView> {
        let now = self.clock.now();
        self.with_registry(info_hash, |registry| registry.holder_views(now, info_hash, piece))
    }

    /// The time of day that a moment was.
    pub(super) fn time_of(&self, moment: Moment) -> SystemTime {
        // What was known before a restart is from before the start.
        let before = self.began.since(moment);
        self.started.checked_sub(before).unwrap_or(self.started) + moment.since(self.began)
    }
}
