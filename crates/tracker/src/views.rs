//! What the logs say, as JSON.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::catalogue::Entry;
use super::service::Service;
use super::swarm_views::{as_of, unseen};
use piecework_core::InfoHash;
use piecework_journal::{RequestEvent, RequestRecord};
use piecework_registry::{Held, PeerView};

/// A request, as `GET /logs/requests` and the event `request` have it.
#[derive(Serialize)]
pub(super) struct Request {
    /// RFC 3339, UTC.
    time: String,
    peer: SocketAddr,
    client: Option<String>,
    event: &'static str,
    info_hash: Option<InfoHash>,
    name: Option<String>,
    /// Who was handed out.
    peers: Vec<Given>,
    ok: bool,
    error: Option<String>,
    /// What is to be said of one that was answered.
    note: Option<&'static str>,
    via: &'static str,
}

#[derive(Serialize)]
struct Given {
    peer: SocketAddr,
    /// Whether the peer held every piece when it was handed out.
    complete: bool,
}

/// Answer to `GET /logs/files`.
#[derive(Serialize)]
pub(super) struct Files {
    files: Vec<File>,
    /// Further files that there was no room for.
    more: usize,
}

#[derive(Serialize)]
struct File {
    name: String,
    info_hash: InfoHash,
    size: u64,
    pieces: u32,
    piece_length: u32,
    complete: u32,
    incomplete: u32,
    downloads: u32,
    peers: Vec<Holder>,
}

#[derive(Serialize)]
struct Holder {
    peer: SocketAddr,
    /// Its other address, if it is known to announce over both families.
    also_at: Option<SocketAddr>,
    client: Option<String>,
    /// Such as `0-41,57`; `null` if it is not known.
    pieces: Option<String>,
    held: Option<u32>,
    percent: Option<u32>,
    /// `reported`, `observed` or `announced`; `null` if it is not known.
    source: Option<&'static str>,
    /// When it last told or showed what it holds.
    as_of: Option<String>,
    /// Why the tracker cannot see what it holds, if that is known.
    reason: Option<&'static str>,
    /// Bytes it says it misses.
    left: Option<u64>,
    /// How often it was handed out, in all and lately.
    assigned: u64,
    assigned_recently: u16,
    seconds_silent: u64,
}

/// Answer to `GET /stats`.
#[derive(Serialize)]
pub(super) struct Stats {
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub catalogued: usize,
    pub torrents: usize,
    pub peers: usize,
    pub peer_bytes: usize,
    pub expired: u64,
    pub unreachable: u64,
    pub announces_http: u64,
    pub announces_udp: u64,
    pub scrapes: u64,
    pub refused: u64,
    pub udp_rejected: u64,
    pub http_rejected: u64,
    pub http_connections: u64,
    /// Bytes of answers that wait to be read.
    pub http_answer_bytes: usize,
    pub requests_logged: usize,
    pub requests_dropped: u64,
    pub requests_held_back: u64,
    pub notices: Vec<String>,
}

impl Request {
    /// `None` if it is about a torrent that is unlisted, or was when this was asked.
    pub(super) fn open(service: &Service, record: &RequestRecord) -> Option<Self> {
        // What was asked before it was registered is not told either.
        let unlisted =
            record.unlisted || record.info_hash.is_some_and(|hash| service.is_unlisted(hash));
        (!unlisted).then(|| Self::of(record))
    }

    fn of(record: &RequestRecord) -> Self {
        Self {
            time: rfc3339(record.time),
            peer: record.peer,
            client: record.peer_id.map(|id| id.client_name()),
            event: record.event.word(),
            info_hash: record.info_hash,
            // What somebody looked for in vain may be the name of something unlisted.
            name: record
                .name
                .as_deref()
                .filter(|_| record.event != RequestEvent::Lookup)
                .map(str::to_owned),
            peers: record
                .handed
                .iter()
                .map(|peer| Given { peer: peer.addr, complete: peer.complete })
                .collect(),
            ok: record.outcome.is_ok(),
            error: record.outcome.as_ref().err().map(ToString::to_string),
            note: record.note(),
            via: record.via.word(),
        }
    }
}

impl Files {
    /// Files and who holds what of them, as far as there is room.
    pub(super) fn of(service: &Service, entries: &[Arc<Entry>]) -> Self {
        let mut room = MAX_HOLDERS;
        let mut files = Vec::new();
        for entry in entries {
            let peers = service.peers(entry.info_hash);
            if peers.len() > room && !files.is_empty() {
                break;
            }
            room = room.saturating_sub(peers.len() + 1);
            files.push(File::of(service, entry, &peers));
        }
        let more = entries.len() - files.len();
        Self { files, more }
    }
}

impl File {
    fn of(service: &Service, entry: &Entry, peers: &[PeerView]) -> Self {
        let counts = service.counts(entry.info_hash);
        Self {
            name: entry.name.to_string(),
            info_hash: entry.info_hash,
            size: entry.size,
            pieces: entry.pieces,
            piece_length: entry.piece_length,
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloads: counts.downloaded,
            peers: peers.iter().map(|peer| Holder::of(service, peer, entry.pieces)).collect(),
        }
    }
}

impl Holder {
    fn of(service: &Service, peer: &PeerView, pieces: u32) -> Self {
        let held = peer.held.count(pieces);
        Self {
            peer: peer.addr,
            also_at: peer.also,
            client: peer.peer_id.map(|id| id.client_name()),
            pieces: held.map(|_| ranges(&peer.held, pieces, MAX_RANGES)),
            held,
            percent: held.map(|held| percent(held, pieces)),
            source: peer.source.map(|source| source.word()),
            as_of: as_of(service, peer.held_at),
            reason: unseen(peer),
            left: peer.left,
            assigned: peer.assigned.total,
            assigned_recently: peer.assigned.recent,
            seconds_silent: peer.silent.as_secs(),
        }
    }
}

impl Stats {
    pub(super) fn of(service: &Service) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let registry = service.registry_stats();
        let counters = &service.counters;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: service.started.elapsed().unwrap_or_default().as_secs(),
            catalogued: service.catalogue.len(),
            torrents: registry.torrents,
            peers: registry.peers,
            peer_bytes: registry.peer_bytes,
            expired: registry.expired,
            unreachable: registry.unreachable,
            announces_http: counters.announces_http.load(Relaxed),
            announces_udp: counters.announces_udp.load(Relaxed),
            scrapes: counters.scrapes.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            udp_rejected: counters.udp_rejected.load(Relaxed),
            http_rejected: service.connections.rejected(),
            http_connections: service.connections.open(),
            http_answer_bytes: service.connections.answer_bytes(),
            requests_logged: service.log.len(),
            requests_dropped: service.log.dropped(),
            requests_held_back: service.log.held_back(),
            notices: service.notices(false),
        }
    }
}

/// The pieces held, such as `0-41,57`; `none` if there are none. Of more than `limit` runs the
/// rest is counted only.
pub(super) fn ranges(held: &Held, pieces: u32, limit: usize) -> String {
    let run = |out: &mut String, first: u32, last: u32| {
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if first == last {
            write!(out, "{comma}{first}")
        } else {
            write!(out, "{comma}{first}-{last}")
        };
    };
    let mut out = String::new();
    match held {
        Held::Unknown => return "unknown".to_owned(),
        Held::Everything if pieces > 0 => run(&mut out, 0, pieces - 1),
        Held::Everything => {}
        Held::Pieces(held) => {
            let (mut runs, mut open) = (0, None::<(u32, u32)>);
            let mut left_out = 0;
            for piece in held.iter() {
                match &mut open {
                    Some((_, last)) if *last + 1 == piece.0 => *last = piece.0,
                    _ if runs == limit => left_out += 1,
                    _ => {
                        if let Some((first, last)) = open {
                            run(&mut out, first, last);
                        }
                        runs += 1;
                        open = Some((piece.0, piece.0));
                    }
                }
            }
            if let Some((first, last)) = open {
                run(&mut out, first, last);
            }
            if left_out > 0 {
                let _ = write!(out, ",… {left_out} more");
            }
        }
    }
    if out.is_empty() { "none".to_owned() } else { out }
}

/// Rounded down, so that 100 means all; 100 of nothing.
pub(super) fn percent(held: u32, pieces: u32) -> u32 {
    if pieces == 0 { 100 } else { (u64::from(held) * 100 / u64::from(pieces)) as u32 }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// Peers in one answer about files at most: some 20 MB.
const MAX_HOLDERS: usize = 100_000;

/// Runs of pieces told of one peer.
const MAX_RANGES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::{Bitfield, PieceIndex};

    #[test]
    fn pieces_held_are_shown_as_ranges() {
        let of = |pieces: &[u32], limit| {
            let mut held = Bitfield::empty(100);
            for piece in pieces {
                held.insert(PieceIndex(*piece));
            }
            ranges(&Held::Pieces(held), 100, limit)
        };
        assert_eq!(of(&[], 9), "none");
        assert_eq!(of(&[0], 9), "0");
        assert_eq!(of(&(0..42).chain([57]).collect::<Vec<_>>(), 9), "0-41,57");
        assert_eq!(of(&[1, 2, 5, 7, 8, 9, 99], 9), "1-2,5,7-9,99");
        assert_eq!(of(&[1, 2, 5, 7, 8, 9, 99], 2), "1-2,5,… 4 more");
        assert_eq!(ranges(&Held::Everything, 1, 9), "0");
        assert_eq!(ranges(&Held::Everything, 100, 9), "0-99");
        assert_eq!(ranges(&Held::Everything, 0, 9), "none");
        assert_eq!(ranges(&Held::Unknown, 5, 9), "unknown");
    }
}
