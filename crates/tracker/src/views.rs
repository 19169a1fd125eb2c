//! Logs of requests and files as JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::access_log::AccessLog;
use super::catalogue_torrent::CatalogueTorrent;
use super::format::{as_of, percent, ranges, rfc3339, unseen};
use super::swarms::Swarms;
use piecework_core::InfoHash;
use piecework_journal::{RequestEvent, RequestRecord};
use piecework_registry::PeerView;

/// A request in `GET /logs/requests` and in the event `request`.
#[derive(Serialize)]
pub(super) struct RequestView {
    /// RFC 3339, UTC.
    time: String,
    peer: SocketAddr,
    client: Option<String>,
    event: &'static str,
    info_hash: Option<InfoHash>,
    name: Option<String>,
    /// The peers that were handed out.
    peers: Vec<HandedPeerView>,
    ok: bool,
    error: Option<String>,
    /// A remark about an answered request.
    note: Option<&'static str>,
    via: &'static str,
}

#[derive(Serialize)]
struct HandedPeerView {
    peer: SocketAddr,
    /// Whether the peer held every piece when it was handed out.
    complete: bool,
}

/// Answer to `GET /logs/files`.
#[derive(Serialize)]
pub(super) struct FilesAnswer {
    files: Vec<FileView>,
    /// The number of files that were left out.
    more: usize,
}

#[derive(Serialize)]
struct FileView {
    name: String,
    info_hash: InfoHash,
    size: u64,
    pieces: u32,
    piece_length: u32,
    complete: u32,
    incomplete: u32,
    downloads: u32,
    peers: Vec<HolderView>,
}

#[derive(Serialize)]
struct HolderView {
    peer: SocketAddr,
    /// The peer's other address, if it announces over IPv4 and IPv6.
    also_at: Option<SocketAddr>,
    client: Option<String>,
    /// Ranges such as `0-41,57`; `null` if the holdings are not known.
    pieces: Option<String>,
    held: Option<u32>,
    percent: Option<u32>,
    /// `reported`, `observed` or `announced`; `null` if the holdings are not known.
    source: Option<&'static str>,
    /// When the holdings were last confirmed.
    as_of: Option<String>,
    /// Why the tracker cannot see what the peer holds, if known.
    reason: Option<&'static str>,
    /// The announced number of missing bytes.
    left: Option<u64>,
    /// How often the peer was handed out, in all and recently.
    assigned: u64,
    assigned_recently: u16,
    seconds_silent: u64,
}

impl RequestView {
    /// Returns a request; `None` if its torrent is unlisted or was at the time of the request.
    pub(super) fn open(log: &AccessLog, record: &RequestRecord) -> Option<Self> {
        // Requests from before the registration of an unlisted torrent are hidden as well.
        let unlisted =
            record.unlisted || record.info_hash.is_some_and(|hash| log.is_unlisted(hash));
        (!unlisted).then(|| Self::of(record))
    }

    fn of(record: &RequestRecord) -> Self {
        Self {
            time: rfc3339(record.time),
            peer: record.peer,
            client: record.peer_id.map(|id| id.client_name()),
            event: record.event.word(),
            info_hash: record.info_hash,
            // A name that was not found may be the name of an unlisted torrent.
            name: record
                .name
                .as_deref()
                .filter(|_| record.event != RequestEvent::Lookup)
                .map(str::to_owned),
            peers: record
                .handed
                .iter()
                .map(|peer| HandedPeerView { peer: peer.addr, complete: peer.complete })
                .collect(),
            ok: record.outcome.is_ok(),
            error: record.outcome.as_ref().err().map(ToString::to_string),
            note: record.note(),
            via: record.via.word(),
        }
    }
}

impl FilesAnswer {
    /// Returns files and who holds what of them, up to a limit.
    pub(super) fn of(swarms: &Swarms, entries: &[Arc<CatalogueTorrent>]) -> Self {
        let mut room = MAX_HOLDERS;
        let mut files = Vec::new();
        for entry in entries {
            let peers = swarms.peers(entry.info_hash);
            if peers.len() > room && !files.is_empty() {
                break;
            }
            room = room.saturating_sub(peers.len() + 1);
            files.push(FileView::of(swarms, entry, &peers));
        }
        let more = entries.len() - files.len();
        Self { files, more }
    }
}

impl FileView {
    fn of(swarms: &Swarms, entry: &CatalogueTorrent, peers: &[PeerView]) -> Self {
        let counts = swarms.counts(entry.info_hash);
        Self {
            name: entry.name.to_string(),
            info_hash: entry.info_hash,
            size: entry.size,
            pieces: entry.pieces,
            piece_length: entry.piece_length,
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloads: counts.downloaded,
            peers: peers.iter().map(|peer| HolderView::of(swarms, peer, entry.pieces)).collect(),
        }
    }
}

impl HolderView {
    fn of(swarms: &Swarms, peer: &PeerView, pieces: u32) -> Self {
        let held = peer.held.count(pieces);
        Self {
            peer: peer.addr,
            also_at: peer.also,
            client: peer.peer_id.map(|id| id.client_name()),
            pieces: held.map(|_| ranges(&peer.held, pieces, MAX_RANGES)),
            held,
            percent: held.map(|held| percent(held, pieces)),
            source: peer.source.map(|source| source.word()),
            as_of: as_of(swarms, peer.held_at),
            reason: unseen(peer),
            left: peer.left,
            assigned: peer.assigned.total,
            assigned_recently: peer.assigned.recent,
            seconds_silent: peer.silent.as_secs(),
        }
    }
}

/// The maximum number of peers in an answer about files: some 20 MB.
const MAX_HOLDERS: usize = 100_000;

/// The maximum number of piece ranges for one peer.
const MAX_RANGES: usize = 1_000;
