//! Torrents as the API shows them.

use piecework_core::SaturatingFrom;
use tokio::time::Instant;

use super::entry::{BodyView, Entry, Phase, since};
use super::pending_work::fraction;
use piecework_api::{Settings, State as Doing, Torrent, TorrentSettings};
use piecework_core::InfoHash;
use piecework_engine::{TorrentState, TorrentStatus};

impl Entry {
    /// Returns the torrent as the API shows it.
    pub(crate) fn show(&self, info_hash: InfoHash, position: usize, session: &Settings) -> Torrent {
        let now = Instant::now();
        let record = &self.record;
        let stalled = session.stalled_after.is_some_and(|limit| self.idle(now) >= limit);
        let mut torrent = Torrent {
            info_hash,
            id: self.id,
            name: self.name().to_owned(),
            state: Doing::Failed,
            error: None,
            folder: self.root(),
            bytes: 0,
            bytes_have: 0,
            bytes_wanted: 0,
            bytes_wanted_have: 0,
            pieces: 0,
            pieces_have: 0,
            piece_length: 0,
            files: 0,
            private: false,
            downloaded: self.seen.downloaded,
            uploaded: self.seen.uploaded,
            corrupt: self.counters.corrupt_bytes,
            download_rate: 0,
            upload_rate: 0,
            peers: 0,
            seeds: 0,
            peers_giving: 0,
            peers_taking: 0,
            eta: None,
            ratio: 0.0,
            check_progress: 0.0,
            metadata_progress: 1.0,
            limit_reached: record.limit_reached,
            stalled,
            queue_position: u32::try_from(position).unwrap_or(u32::MAX),
            added_at: self.added_at,
            started_at: record.started_at,
            done_at: self.done_at,
            active_at: self.counters.last_active_at,
            seconds_downloading: self.counters.seconds_downloading,
            seconds_seeding: self.counters.seconds_seeding,
            settings: TorrentSettings::clone(&record.settings),
        };
        self.show_seconds(&mut torrent, now);
        self.show_metainfo(&mut torrent);
        match self.body.view() {
            BodyView::Broken(broken) => torrent.error = Some(broken.error.to_string()),
            BodyView::Unhashed(making) => {
                let request = self.record.common.to_hash.as_ref().map(|to_hash| &to_hash.request);
                torrent.private = request.is_some_and(|request| request.private);
                torrent.piece_length =
                    request.and_then(|request| request.piece_length).unwrap_or_default();
                making.show(&mut torrent);
            }
            BodyView::Linked(linked) => linked.show(&mut torrent),
            BodyView::Live(handle) => self.show_live(&mut torrent, handle.status()),
        }
        torrent.ratio = self.seeded(torrent.bytes_have, now).ratio();
        torrent
    }

    /// Adds the seconds of the current phase.
    fn show_seconds(&self, torrent: &mut Torrent, now: Instant) {
        if self.run {
            let more = since(self.seen.counted, now);
            match self.seen.phase {
                Phase::Downloading => torrent.seconds_downloading += more,
                Phase::Seeding => torrent.seconds_seeding += more,
                _ => {}
            }
        }
    }

    fn show_metainfo(&self, torrent: &mut Torrent) {
        let Some(metainfo) = self.metainfo() else { return };
        let info = metainfo.info();
        let geometry = info.geometry();
        torrent.bytes = geometry.total_len();
        torrent.bytes_wanted = torrent.bytes;
        torrent.pieces = geometry.pieces();
        torrent.piece_length = geometry.piece_len();
        torrent.private = info.is_private();
        let shown = info.files().entries().iter().filter(|file| !file.padding);
        torrent.files = u32::try_from(shown.count()).unwrap_or(u32::MAX);
    }

    /// Returns its state, and its rates of payload received and sent in bytes a second, for counts
    /// and sums.
    pub(crate) fn summary(&self) -> (Doing, u64, u64) {
        let handle = match self.body.view() {
            BodyView::Live(handle) => handle,
            BodyView::Unhashed(making) => return (making.doing(), 0, 0),
            BodyView::Linked(linked) => return (linked.doing(), 0, 0),
            BodyView::Broken(_) => return (Doing::Failed, 0, 0),
        };
        let summary = handle.summary();
        let doing = self.doing(&summary.state, summary.bytes_left == 0);
        (
            doing,
            u64::saturating_from(summary.download_rate),
            u64::saturating_from(summary.upload_rate),
        )
    }

    /// Returns the API's state of a torrent that is in `state` in the engine.
    fn doing(&self, state: &TorrentState, lacks_nothing: bool) -> Doing {
        let complete = match state {
            TorrentState::Seeding
            | TorrentState::Downloading
            | TorrentState::Paused { reason: None } => is_done(state, lacks_nothing),
            _ => self.seen.complete,
        };
        match state {
            TorrentState::Paused { reason: Some(_) } => Doing::Failed,
            TorrentState::Moving { .. } => Doing::Moving,
            _ if self.moving.is_some() => Doing::Moving,
            TorrentState::Checking { .. } => Doing::Checking,
            TorrentState::Waiting => Doing::QueuedCheck,
            _ if self.candidate().paused => Doing::Paused,
            _ if !complete && self.record.seed => Doing::Failed,
            _ => match (self.run, complete) {
                (true, false) => Doing::Downloading,
                (true, true) => Doing::Seeding,
                (false, false) => Doing::QueuedDownload,
                (false, true) => Doing::QueuedSeed,
            },
        }
    }

    fn show_live(&self, torrent: &mut Torrent, status: TorrentStatus) {
        torrent.bytes_have = status.bytes_have;
        torrent.bytes_wanted = status.bytes_wanted;
        torrent.bytes_wanted_have = status.bytes_wanted_have;
        torrent.pieces_have = status.pieces_have;
        torrent.downloaded = torrent.downloaded.max(status.downloaded);
        torrent.uploaded = torrent.uploaded.max(status.uploaded);
        torrent.corrupt = self.seen.corrupt_before + status.corrupt;
        torrent.download_rate = u64::saturating_from(status.download_rate);
        torrent.upload_rate = u64::saturating_from(status.upload_rate);
        torrent.peers = u32::try_from(status.peers).unwrap_or(u32::MAX);
        torrent.seeds = u32::try_from(status.seeds).unwrap_or(u32::MAX);
        torrent.peers_giving = u32::try_from(status.peers_giving).unwrap_or(u32::MAX);
        torrent.peers_taking = u32::try_from(status.peers_taking).unwrap_or(u32::MAX);
        torrent.eta = status.eta.map(|eta| eta.as_secs());
        let lacks_nothing = status.bytes_wanted_have >= status.bytes_wanted;
        torrent.state = self.doing(&status.state, lacks_nothing);
        match &status.state {
            TorrentState::Paused { reason: Some(reason) } => torrent.error = Some(reason.clone()),
            TorrentState::Moving { done, total } => {
                torrent.check_progress = fraction(*done, *total)
            }
            TorrentState::Checking { done, total } if self.moving.is_none() => {
                torrent.check_progress = fraction((*done).into(), (*total).into());
            }
            _ if torrent.state == Doing::Failed => {
                torrent.error = Some(format!(
                    "its files are no longer what was shared: {} of {} pieces are right; put the \
                     files back and have it checked",
                    status.pieces_have, status.pieces_total
                ));
            }
            _ => {}
        }
        if torrent.error.is_none() {
            torrent.error = status.trouble.or(self.rare.trouble.as_deref().map(str::to_owned));
        }
        if torrent.error.is_none() {
            let mut failing = status.trackers.iter().map(|tracker| tracker.last_error.as_ref());
            // One tracker that works is enough.
            if let Some(Some(first)) = failing.next()
                && failing.all(|error| error.is_some())
            {
                torrent.error = Some(piecework_core::printable(first).into_owned());
            }
        }
    }
}

/// Returns whether everything wanted is there, under its final name.
pub(super) fn is_complete(status: &TorrentStatus) -> bool {
    is_done(&status.state, status.bytes_wanted_have >= status.bytes_wanted)
}

/// Returns whether a torrent is complete. A download that lacks nothing is still downloading until its files
/// have their final names, since programs that are run when it is done look for these.
fn is_done(state: &TorrentState, lacks_nothing: bool) -> bool {
    match state {
        TorrentState::Seeding => true,
        TorrentState::Downloading => false,
        _ => lacks_nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_done_once_its_files_have_their_names() {
        assert!(!is_done(&TorrentState::Downloading, true), "names are missing");
        assert!(is_done(&TorrentState::Seeding, true));
        let paused = TorrentState::Paused { reason: None };
        assert_eq!([true, false].map(|lacks| is_done(&paused, lacks)), [true, false]);
    }
}
