//! Details of one torrent: files, peers, pieces, trackers.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DaemonError;
use super::background::blocking;
use super::checks::visible_files;
use super::engine_settings::{encryption_policy, rate_limits};
use super::reason::Reason;
use super::torrents::Torrents;
use super::waiting;
use piecework_api::{
    FileInfo, PeerEncryption, PeerInfo, PeerSource, PieceMap, Sources, TorrentDetail, TrackerInfo,
    TrackerState, Waiting,
};
use piecework_core::metainfo::{FileEntry, Metainfo, MetainfoError, OtherSources};
use piecework_core::{Bitfield, InfoHash, PieceIndex, Priority};
use piecework_proto::announce::{self, Magnet};
use piecework_proto::encryption::Method;
use piecework_swarm::Direction;
use piecework_swarm::announcer::{TrackerState as Doing, TrackerStatus};

/// The files of a torrent that are not padding. Each row is built when it is asked for: 100,000 of them would
/// take tens of megabytes.
#[derive(Debug)]
pub struct FileRows {
    metainfo: Option<Arc<Metainfo>>,
    chosen: Chosen,
    have: Option<Bitfield>,
}

/// Returns one torrent with its files and trackers.
pub(super) async fn detail(
    torrents: &Torrents,
    folder: &Path,
    info_hash: InfoHash,
) -> Result<TorrentDetail, DaemonError> {
    let mut detail = detail_without_files(torrents, folder, info_hash).await?;
    detail.file_list = files(torrents, info_hash).await?.iter(0).collect();
    Ok(detail)
}

/// Returns the files of one torrent.
pub(super) async fn files(
    torrents: &Torrents,
    info_hash: InfoHash,
) -> Result<FileRows, DaemonError> {
    let (handle, metainfo, chosen) = torrents.with(info_hash, |entry| {
        let settings = &entry.record.settings;
        let chosen = Chosen { files: settings.files.clone(), renamed: settings.renamed.clone() };
        (entry.handle().cloned(), entry.metainfo().cloned(), chosen)
    })?;
    let have = match &handle {
        Some(handle) => handle.have().await,
        None => None,
    };
    Ok(FileRows { metainfo, chosen, have })
}

/// Returns one torrent with its trackers.
pub(super) async fn detail_without_files(
    torrents: &Torrents,
    folder: &Path,
    info_hash: InfoHash,
) -> Result<TorrentDetail, DaemonError> {
    let torrent = torrents.show(info_hash)?;
    let (handle, metainfo, file, link) = torrents.with(info_hash, |entry| {
        let file = match entry.is_pending() {
            true => PathBuf::new(),
            false => folder.join(&*entry.file()),
        };
        let to_fetch = entry.record.common.to_fetch.as_ref();
        let link = to_fetch.map(|request| request.link.clone());
        (entry.handle().cloned(), entry.metainfo().cloned(), file, link)
    })?;
    let mut detail = TorrentDetail {
        torrent,
        comment: None,
        created_by: None,
        created_at: None,
        torrent_file: file,
        magnet: String::new(),
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
    if let Some(handle) = &handle {
        let have = handle.have().await;
        let availability = handle.availability().await;
        detail.availability = whole_copies(&availability, have.as_ref());
        let trackers = handle.trackers();
        let time = |moment| handle.unix_time(moment);
        let info = |(tier, status): (usize, TrackerStatus)| tracker_info(tier, status, &time);
        detail.trackers = trackers.into_iter().map(info).collect();
        let rules = {
            let settings = &torrents.table().settings;
            waiting::Rules {
                download_limit: rate_limits(settings).1,
                encryption: encryption_policy(settings.encryption),
            }
        };
        detail.waiting = waiting::of(&handle.waited(), &detail, rules);
    }
    let urls = detail.trackers.iter().map(|tracker| tracker.url.as_str());
    let own = || Magnet::new(info_hash, Some(&detail.torrent.name), urls).to_string();
    detail.magnet = link.unwrap_or_else(own);
    Ok(detail)
}

/// Returns other sources that a `.torrent` names; none until the torrent is hashed.
pub(super) async fn sources(
    torrents: &Torrents,
    info_hash: InfoHash,
) -> Result<Sources, DaemonError> {
    let metainfo = torrents.with(info_hash, |entry| entry.metainfo().cloned())?;
    let Some(metainfo) = metainfo else { return Ok(Sources::default()) };
    blocking(move || {
        let fault = |error: MetainfoError| DaemonError::not_found(Reason::of(error));
        let OtherSources { web_seeds, nodes, source } = metainfo.other_sources().map_err(fault)?;
        let mut notices = announce::unusable(metainfo.trackers());
        notices.extend(metainfo.notices().map_err(fault)?);
        Ok(Sources { web_seeds, nodes, source, notices })
    })
    .await?
}

/// Returns the connected peers.
pub(super) async fn peers(
    torrents: &Torrents,
    info_hash: InfoHash,
) -> Result<Vec<PeerInfo>, DaemonError> {
    let handle = torrents.with(info_hash, |entry| entry.handle().cloned())?;
    let Some(handle) = handle else { return Ok(Vec::new()) };
    let pieces = handle.metainfo().info().geometry().pieces().max(1);
    let peers = handle.peers().await.into_iter().map(|peer| PeerInfo {
        addr: peer.addr,
        client: peer.client,
        incoming: peer.direction == Direction::Incoming,
        source: source_of(peer.source),
        encryption: peer.encryption.map(|method| match method {
            Method::Plaintext => PeerEncryption::Handshake,
            Method::Rc4 => PeerEncryption::Rc4,
        }),
        pieces: peer.pieces,
        progress: f64::from(peer.pieces) / f64::from(pieces),
        download_rate: u64::saturating_from(peer.download_rate),
        upload_rate: u64::saturating_from(peer.upload_rate),
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

fn source_of(source: piecework_swarm::PeerSource) -> PeerSource {
    use piecework_swarm::PeerSource as Heard;
    match source {
        Heard::Tracker => PeerSource::Tracker,
        Heard::Dht => PeerSource::Dht,
        Heard::Exchange => PeerSource::Exchange,
        Heard::Local => PeerSource::Local,
        Heard::Magnet => PeerSource::Magnet,
        Heard::User => PeerSource::User,
        Heard::Incoming => PeerSource::Incoming,
    }
}

/// Returns which pieces are held, here and by the connected peers.
pub(super) async fn pieces(
    torrents: &Torrents,
    info_hash: InfoHash,
) -> Result<PieceMap, DaemonError> {
    let (handle, pieces) = torrents.with(info_hash, |entry| {
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
    let hex = data_encoding::HEXLOWER.encode(have.as_wire());
    Ok(PieceMap { pieces, pieces_have: have.count(), have: hex, availability })
}

/// Settings of a torrent's files.
#[derive(Debug)]
struct Chosen {
    files: Vec<Priority>,
    renamed: Vec<(u32, Vec<String>)>,
}

impl FileRows {
    /// Returns the number of files that are not padding.
    pub fn count(&self) -> usize {
        self.metainfo.as_ref().map_or(0, |metainfo| visible_files(metainfo) as usize)
    }

    /// Returns the files that are not padding, from the one with the number `first`.
    pub fn iter(&self, first: usize) -> impl Iterator<Item = FileInfo> + '_ {
        let entries = self.metainfo.iter().flat_map(|it| it.info().files().entries());
        let shown = entries.enumerate().filter(|(_, entry)| !entry.padding);
        // New paths of renamed files, by their numbers in the metainfo.
        let renamed: BTreeMap<usize, &[String]> =
            self.chosen.renamed.iter().map(|(file, path)| (*file as usize, &path[..])).collect();
        (0_u32..).zip(shown).skip(first).map(move |(index, (file, entry))| {
            let path = match renamed.get(&file) {
                Some(path) => path.join("/"),
                None => {
                    entry.path.iter().map(|part| part.to_string()).collect::<Vec<_>>().join("/")
                }
            };
            self.row(index, entry, path)
        })
    }

    fn row(&self, index: u32, entry: &FileEntry, path: String) -> FileInfo {
        let piece_len = self.metainfo.as_ref().map_or(1, |it| it.info().geometry().piece_len());
        let piece_len = u64::from(piece_len);
        let end = entry.offset + entry.len;
        // Both casts fit, since the number of pieces does.
        let first_piece = u32::saturating_from(entry.offset / piece_len);
        let end_piece = if entry.len == 0 {
            first_piece
        } else {
            u32::saturating_from(end.div_ceil(piece_len))
        };
        let held = |piece: u32| {
            let begin = u64::from(piece) * piece_len;
            match self.have.as_ref().is_some_and(|have| have.contains(PieceIndex(piece))) {
                true => end.min(begin + piece_len) - entry.offset.max(begin),
                false => 0,
            }
        };
        FileInfo {
            index,
            path,
            bytes: entry.len,
            bytes_have: (first_piece..end_piece).map(held).sum(),
            priority: self.chosen.files.get(index as usize).copied().unwrap_or_default(),
            first_piece,
            end_piece,
        }
    }
}

/// Returns the number of whole copies among peers and us, plus the fraction of pieces that have one copy
/// more.
fn whole_copies(availability: &[u32], have: Option<&Bitfield>) -> f64 {
    let copies = |(piece, peers): (u32, &u32)| {
        peers + u32::from(have.is_some_and(|have| have.contains(PieceIndex(piece))))
    };
    let all = || (0..).zip(availability).map(copies);
    let Some(least) = all().min() else { return 0.0 };
    let more = all().filter(|copies| *copies > least).count();
    f64::from(least) + more as f64 / availability.len() as f64
}

fn tracker_info(
    tier: usize,
    status: TrackerStatus,
    time: &impl Fn(piecework_core::Moment) -> i64,
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
        announced_at: status.last_announce.map(time),
        next_announce_at: status.next_announce.map(time),
        seeds: status.seeds,
        leechers: status.leechers,
        peers: u32::try_from(status.peers).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    #[test]
    fn bytes_of_shared_pieces_are_counted_for_each_file() {
        let path = |name: &str| vec![name.to_owned()];
        let files_of = vec![(path("a"), 20_000), (path("b"), 0), (path("c"), 20_000)];
        let builder = MetainfoBuilder::folder("t", files_of).piece_len(16_384);
        let metainfo = builder.build(vec![7; 60]).unwrap();
        let mut have = Bitfield::empty(3);
        have.insert(PieceIndex(1));
        let chosen = Chosen { files: Vec::new(), renamed: Vec::new() };
        let rows = FileRows { metainfo: Some(Arc::new(metainfo)), chosen, have: Some(have) };
        let shown: Vec<FileInfo> = rows.iter(0).collect();
        assert_eq!((rows.count(), rows.iter(1).next()), (shown.len(), shown.get(1).cloned()));
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
