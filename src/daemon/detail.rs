//! What can be asked of one torrent.

use super::DaemonError;
use super::inner::{Inner, rate_limits};
use super::{rename, waiting};
use crate::announcer::{TrackerState as Doing, TrackerStatus};
use crate::api::{
    FileInfo, PeerInfo, PieceMap, TorrentDetail, TorrentSettings, TrackerInfo, TrackerState,
    Waiting,
};
use crate::base::{Bitfield, InfoHash, PieceIndex};
use crate::metainfo::Metainfo;
use crate::swarm::Direction;

impl Inner {
    /// One torrent with its files and trackers.
    pub async fn detail(&self, info_hash: InfoHash) -> Result<TorrentDetail, DaemonError> {
        let torrent = self.show(info_hash)?;
        let (handle, metainfo, file) = self.with(info_hash, |entry| {
            let file = self.config.torrents.join(&*entry.file());
            (entry.handle().cloned(), entry.metainfo().cloned(), file)
        })?;
        let mut detail = TorrentDetail {
            torrent,
            comment: None,
            created_by: None,
            created_at: None,
            torrent_file: file,
            availability: 0.0,
            file_list: Vec::new(),
            trackers: Vec::new(),
            waiting: Waiting::default(),
        };
        if let Some(metainfo) = &metainfo {
            detail.comment = metainfo.comment().map(str::to_owned);
            detail.created_by = metainfo.created_by().map(str::to_owned);
            detail.created_at = metainfo.creation_date();
        }
        let mut have = None;
        if let Some(handle) = &handle {
            have = handle.have().await;
            let availability = handle.availability().await;
            detail.availability = whole_copies(&availability, have.as_ref());
            let trackers = handle.trackers();
            let time = |moment| handle.unix_time(moment);
            let info = |(tier, status): (usize, TrackerStatus)| tracker_info(tier, status, &time);
            detail.trackers = trackers.into_iter().map(info).collect();
            let limit = rate_limits(&self.book.lock().settings).1;
            detail.waiting = waiting::of(&handle.waited(), &detail, limit);
        }
        if let Some(metainfo) = &metainfo {
            detail.file_list = files(metainfo, &detail.torrent.settings, have.as_ref());
        }
        Ok(detail)
    }

    /// Connected peers.
    pub async fn peers(&self, info_hash: InfoHash) -> Result<Vec<PeerInfo>, DaemonError> {
        let handle = self.with(info_hash, |entry| entry.handle().cloned())?;
        let Some(handle) = handle else { return Ok(Vec::new()) };
        let pieces = handle.metainfo().info().geometry().pieces().max(1);
        let peers = handle.peers().await.into_iter().map(|peer| PeerInfo {
            addr: peer.addr,
            client: peer.client,
            incoming: peer.direction == Direction::Incoming,
            pieces: peer.pieces,
            progress: f64::from(peer.pieces) / f64::from(pieces),
            download_rate: peer.download_rate as u64,
            upload_rate: peer.upload_rate as u64,
            downloaded: peer.downloaded,
            uploaded: peer.uploaded,
            choked_by_us: peer.choked_by_us,
            choking_us: peer.choking_us,
            we_are_interested: peer.we_are_interested,
            interested_in_us: peer.interested_in_us,
            outstanding: peer.outstanding,
        });
        Ok(peers.collect())
    }

    /// Which pieces are held, here and among the connected peers.
    pub async fn pieces(&self, info_hash: InfoHash) -> Result<PieceMap, DaemonError> {
        let (handle, pieces) = self.with(info_hash, |entry| {
            let pieces = entry.metainfo().map_or(0, |it| it.info().geometry().pieces());
            (entry.handle().cloned(), pieces)
        })?;
        let (mut have, mut availability) = (None, Vec::new());
        if let Some(handle) = &handle {
            have = handle.have().await;
            availability = handle.availability().await;
        }
        let have = have.unwrap_or_else(|| Bitfield::empty(pieces));
        availability.resize(pieces as usize, 0);
        let hex = have.as_wire().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(PieceMap { pieces, pieces_have: have.count(), have: hex, availability })
    }
}

/// The files that are not padding.
fn files(metainfo: &Metainfo, chosen: &TorrentSettings, have: Option<&Bitfield>) -> Vec<FileInfo> {
    let info = metainfo.info();
    let geometry = info.geometry();
    let piece_len = u64::from(geometry.piece_len());
    let entries = info.files().entries();
    let mut shown = Vec::new();
    for (index, (file, path)) in (0_u32..).zip(rename::paths(metainfo, chosen)) {
        let entry = &entries[file];
        let end = entry.offset + entry.len;
        // Both fit: the number of pieces does.
        let first_piece = (entry.offset / piece_len) as u32;
        let end_piece = if entry.len == 0 { first_piece } else { end.div_ceil(piece_len) as u32 };
        let held = |piece: u32| {
            let begin = u64::from(piece) * piece_len;
            match have.is_some_and(|have| have.contains(PieceIndex(piece))) {
                true => end.min(begin + piece_len) - entry.offset.max(begin),
                false => 0,
            }
        };
        shown.push(FileInfo {
            index,
            path: path.join("/"),
            bytes: entry.len,
            bytes_have: (first_piece..end_piece).map(held).sum(),
            priority: chosen.files.get(index as usize).copied().unwrap_or_default(),
            first_piece,
            end_piece,
        });
    }
    shown
}

/// Whole copies among peers and us, and the part of the pieces of which there is one more.
fn whole_copies(availability: &[u32], have: Option<&Bitfield>) -> f64 {
    let copies = |(piece, peers): (u32, &u32)| {
        peers + u32::from(have.is_some_and(|have| have.contains(PieceIndex(piece))))
    };
    let all: Vec<u32> = (0..).zip(availability).map(copies).collect();
    let Some(least) = all.iter().min() else { return 0.0 };
    let more = all.iter().filter(|copies| *copies > least).count();
    f64::from(*least) + more as f64 / all.len() as f64
}

fn tracker_info(
    tier: usize,
    status: TrackerStatus,
    time: &impl Fn(crate::base::Moment) -> i64,
) -> TrackerInfo {
    TrackerInfo {
        url: status.url.as_str().to_owned(),
        tier: u32::try_from(tier).unwrap_or(u32::MAX),
        state: match status.state {
            Doing::Idle => TrackerState::Idle,
            Doing::Announcing => TrackerState::Announcing,
            Doing::Working => TrackerState::Working,
            Doing::Failed => TrackerState::Failed,
            Doing::Stopped => TrackerState::Stopped,
        },
        error: status.last_error,
        warning: status.warning,
        announced_at: None,
        next_announce_at: status.next_announce.map(time),
        seeds: status.seeds,
        leechers: status.leechers,
        peers: u32::try_from(status.peers).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::MetainfoBuilder;

    #[test]
    fn bytes_of_shared_pieces_are_counted_for_each_file() {
        let path = |name: &str| vec![name.to_owned()];
        let files_of = vec![(path("a"), 20_000), (path("b"), 0), (path("c"), 20_000)];
        let builder = MetainfoBuilder::folder("t", files_of).piece_len(16_384);
        let metainfo = builder.build(vec![7; 60]).unwrap();
        let mut have = Bitfield::empty(3);
        have.insert(PieceIndex(1));
        let shown = files(&metainfo, &TorrentSettings::default(), Some(&have));
        let seen: Vec<_> = shown
            .iter()
            .map(|file| (file.path.as_str(), file.bytes_have, file.first_piece, file.end_piece))
            .collect();
        // Piece 1 is from 16,384 to 32,768: 3,616 bytes of `a`, 12,768 of `c`.
        assert_eq!(seen, [("t/a", 3_616, 0, 2), ("t/b", 0, 1, 1), ("t/c", 12_768, 1, 3)]);
    }

    #[test]
    fn availability_is_whole_copies_and_a_part() {
        let mut have = Bitfield::empty(4);
        have.insert(PieceIndex(0));
        assert_eq!(whole_copies(&[1, 1, 1, 2], Some(&have)), 1.5);
        assert_eq!(whole_copies(&[], None), 0.0);
    }
}
