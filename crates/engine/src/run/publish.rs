//! Publishes the status of a torrent at work.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_core::PieceIndex;

use super::super::record::TransferTotals;
use super::super::status::{Motion, StatusView};
use super::super::{PeerStatus, TorrentState};
use super::Run;

impl Run<'_> {
    /// Returns the payload bytes received and sent since the torrent was first added.
    pub(super) fn moved(&self) -> TransferTotals {
        let (progress, earlier) = (self.swarm.progress(), self.torrent.record().earlier());
        TransferTotals {
            downloaded: earlier.downloaded + progress.downloaded,
            uploaded: earlier.uploaded + progress.uploaded,
            corrupt: earlier.corrupt + self.flushing.corrupt,
        }
    }

    /// Counts a piece that was received whole and was wrong.
    pub(super) fn corrupt(&mut self, piece: PieceIndex) {
        let bytes = u64::from(self.torrent.geometry.piece_size(piece));
        self.flushing.corrupt += bytes;
        let counters = &self.torrent.means.counters;
        counters.failed.add(1);
        counters.corrupt.add(bytes);
    }

    /// Publishes the status, at most once in [`EVERY`] unless `at_once`.
    pub(super) fn publish(&mut self, at_once: bool) {
        let now = self.torrent.means.now();
        let due = self.changed && now.since(self.published) >= EVERY;
        // What is in doubt must not be shown as held again.
        if (!at_once && !due) || self.doubt.is_some() {
            return;
        }
        self.see(now);
        self.count();
        let progress = self.swarm.progress();
        let moved = self.moved();
        let (down, up) = self.rates.sample(now, moved.downloaded, moved.uploaded);
        // While anything moves the rates change by themselves.
        self.changed = down > 0.0 || up > 0.0;
        self.published = now;
        self.be_patient();
        let state = match self.swarm.is_finished() && !self.is_finishing() {
            true => TorrentState::Seeding,
            false => TorrentState::Downloading,
        };
        let mut motion = Motion { download_rate: down, upload_rate: up, ..Motion::default() };
        // A tracker that observes our pieces is in the list of peers, but is not a peer.
        for peer in self.swarm.peers().filter(|peer| !peer.who.id.is_tracker()) {
            motion.peers += 1;
            motion.seeds += u32::from(peer.holds.is_full());
            motion.peers_giving += u32::from(peer.download_rate > 0);
            motion.peers_taking += u32::from(peer.upload_rate > 0);
        }
        let left = progress.bytes_wanted.saturating_sub(progress.bytes_wanted_have);
        motion.eta = (left > 0 && down > 1.0)
            .then(|| Duration::try_from_secs_f64(left as f64 / down).ok())
            .flatten();
        self.torrent.entry.show(StatusView {
            pieces_have: progress.pieces_have,
            bytes_have: progress.bytes_have,
            bytes_wanted: progress.bytes_wanted,
            bytes_wanted_have: progress.bytes_wanted_have,
            corrupt: moved.corrupt,
            downloaded: moved.downloaded,
            uploaded: moved.uploaded,
            motion: motion.into(),
            trouble: self.torrent.record().rare.trouble.clone(),
            waiting: self.waits.shown(),
            ..StatusView::new(state)
        });
    }

    /// Returns how many connected peers hold each piece.
    pub(super) fn availability(&self) -> Vec<u32> {
        let mut counts = vec![0; self.torrent.geometry.pieces() as usize];
        for peer in self.swarm.peers() {
            for piece in peer.holds.iter() {
                counts[piece.0 as usize] += 1;
            }
        }
        counts
    }

    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        self.swarm
            .peers()
            .map(|peer| PeerStatus {
                addr: peer.who.known_as(),
                client: peer.who.client.clone(),
                direction: peer.direction,
                source: peer.source,
                encryption: self.links.get(&peer.key).and_then(|member| member.encryption),
                pieces: peer.holds.count(),
                download_rate: peer.download_rate as f64,
                upload_rate: peer.upload_rate as f64,
                downloaded: peer.downloaded,
                uploaded: peer.uploaded,
                choked_by_us: peer.choked,
                choking_us: peer.chokes_us,
                we_are_interested: peer.interests_us,
                interested_in_us: peer.interested,
                outstanding: u32::saturating_from(peer.blocks_owed),
            })
            .collect()
    }
}

/// Time between two changes of a status.
pub(super) const EVERY: Duration = Duration::from_millis(200);
