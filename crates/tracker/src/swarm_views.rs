//! A torrent's swarm as JSON: who holds what, and answers to questions about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::catalogue_torrent::CatalogueTorrent;
use super::config::TrackerConfig;
use super::format::{as_of, event, rfc3339, runs, unseen};
use super::parts::{AnswerPart, AnswerParts, PART_LEN};
use super::swarms::Swarms;
use piecework_core::{InfoHash, PieceIndex, base64};
use piecework_registry::{
    AtRisk, Departure, Holdings, HoldingsSource, PeerView, PieceGain, Pulse, Remainder,
    SwarmChanges, SwarmView,
};

/// The answer to `GET /torrents/{info_hash}/map` and the data of the event `map`, in parts: the [`MapHead`], a `[`,
/// [`PeerRow`]s, and `]}`.
pub(super) struct Map {
    source: Arc<MapSource>,
    entry: Arc<CatalogueTorrent>,
    begun: bool,
    /// The peers to write next.
    next: Vec<(u64, SocketAddr)>,
    /// The number of the last peer that was in `next`.
    last: Option<u64>,
    /// Whether no row was written yet.
    is_empty: bool,
}

/// The source of maps.
pub(super) struct MapSource {
    pub(super) swarms: Arc<Swarms>,
    /// Whether there is an observer.
    observe: bool,
    /// The time of silence after which a peer may be gone.
    silent_after: Duration,
}

/// The beginning of a map, before the rows.
#[derive(Serialize)]
struct MapHead {
    info_hash: InfoHash,
    name: String,
    size: u64,
    pieces: u32,
    piece_length: u32,
    complete: u32,
    incomplete: u32,
    downloads: u32,
    /// The distributed copies as a fraction.
    copies: f64,
    /// The seconds of silence after which a peer may be gone.
    silent_after: u64,
    observer: ObserverState,
}

#[derive(Serialize)]
struct ObserverState {
    on: bool,
    connected: u32,
}

/// A peer of a map, and the data of the event `peer`.
#[derive(Serialize)]
pub(super) struct PeerRow {
    id: u64,
    peer: SocketAddr,
    /// The peer's other address, if it announces over IPv4 and IPv6.
    also_at: Option<SocketAddr>,
    client: Option<String>,
    have: HaveForm,
    held: Option<u32>,
    source: Option<&'static str>,
    sure: bool,
    left: Option<u64>,
    /// The number of pieces that the peer gets per second, if known.
    rate: Option<f64>,
    /// The seconds until the peer is complete at that rate.
    eta: Option<u64>,
    /// The seconds since the peer was last heard from.
    silent: u64,
    /// When the holdings were last confirmed.
    as_of: Option<String>,
    /// Whether the peer accepts connections, if known.
    reachable: Option<bool>,
    /// Why the tracker cannot see what the peer holds, if known.
    reason: Option<&'static str>,
    joined_at: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum HaveForm {
    Unknown,
    Word(&'static str),
    Bits {
        /// The bitfield's wire form in base64.
        bits: String,
    },
}

/// The event `have`.
#[derive(Serialize)]
struct HaveEvent {
    id: u64,
    /// Ranges such as `5,7-9`.
    pieces: String,
    held: u32,
    rate: Option<f64>,
    eta: Option<u64>,
    source: Option<&'static str>,
    sure: bool,
    as_of: Option<String>,
}

/// The event `gone`.
#[derive(Serialize)]
struct GoneEvent {
    id: u64,
    peer: SocketAddr,
    why: &'static str,
}

/// The event `pulse`.
#[derive(Serialize)]
struct PulseEvent {
    peers: Vec<PulseRow>,
}

#[derive(Serialize)]
struct PulseRow {
    id: u64,
    rate: Option<f64>,
    eta: Option<u64>,
    silent: u64,
    as_of: Option<String>,
}

/// The event `counts`.
#[derive(Serialize, Clone, PartialEq)]
pub(super) struct CountsEvent {
    complete: u32,
    incomplete: u32,
    downloads: u32,
    copies: f64,
}

/// Answer to `GET /torrents/{info_hash}/pieces/{piece}`.
#[derive(Serialize)]
pub(super) struct HoldersAnswer {
    piece: u32,
    count: usize,
    holders: Vec<PieceHolder>,
}

#[derive(Serialize)]
struct PieceHolder {
    peer: SocketAddr,
    also_at: Option<SocketAddr>,
    client: Option<String>,
    source: Option<&'static str>,
    sure: bool,
    as_of: Option<String>,
}

/// Answer to `GET /torrents/{info_hash}/at-risk`.
#[derive(Serialize)]
pub(super) struct AtRiskAnswer {
    k: u32,
    count: u32,
    pieces: String,
    groups: Vec<RiskGroupView>,
    /// The number of groups that were left out.
    more: usize,
}

#[derive(Serialize)]
struct RiskGroupView {
    holders: Vec<SocketAddr>,
    pieces: String,
    count: u32,
}

/// Answer to `GET /torrents/{info_hash}/missing`.
#[derive(Serialize)]
pub(super) struct MissingAnswer {
    peer: SocketAddr,
    /// This and the next field are `null` if the holdings are not known.
    count: Option<u32>,
    pieces: Option<String>,
}

/// Answer to `GET /torrents/{info_hash}/without`.
#[derive(Serialize)]
pub(super) struct WithoutAnswer {
    can_complete: bool,
    /// The number of pieces that no other peer is known to hold.
    count: u32,
    pieces: String,
    copies: f64,
}

impl MapSource {
    pub(super) fn new(config: &TrackerConfig, swarms: Arc<Swarms>) -> Self {
        Self { swarms, observe: config.observe, silent_after: config.silent_after() }
    }
}

impl Map {
    pub(super) fn of(source: Arc<MapSource>, entry: Arc<CatalogueTorrent>) -> Self {
        Self { source, entry, begun: false, next: Vec::new(), last: None, is_empty: true }
    }

    fn head(&self) -> Option<String> {
        let entry = &self.entry;
        let counts = self.source.swarms.swarm_counts(entry.info_hash)?;
        let head = MapHead {
            info_hash: entry.info_hash,
            name: entry.name.to_string(),
            size: entry.size,
            pieces: entry.pieces,
            piece_length: entry.piece_length,
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloads: counts.downloads,
            copies: rounded(counts.copies.fraction()),
            silent_after: self.source.silent_after.as_secs(),
            observer: ObserverState {
                on: self.source.observe && counts.observe,
                connected: counts.observed,
            },
        };
        let head = serde_json::to_string(&head)
            .inspect_err(|error| tracing::error!(%error, "a map could not be written as JSON"));
        Some(format!("{},\"peers\":[", head.ok()?.strip_suffix('}')?))
    }
}

impl AnswerParts for Map {
    fn next(&mut self) -> Option<AnswerPart> {
        let info_hash = self.entry.info_hash;
        let swarms = &self.source.swarms;
        let mut text = String::new();
        if !self.begun {
            text = self.head()?;
            self.begun = true;
        }
        while text.len() < PART_LEN {
            if self.next.is_empty() {
                self.next = swarms.peers_after(info_hash, self.last, PEERS_AT_A_TIME);
                let Some((last, _)) = self.next.last() else {
                    text.push_str("]}");
                    return Some(AnswerPart { text, is_last: true });
                };
                self.last = Some(*last);
            }
            let (views, seen) = swarms.peer_views(info_hash, &self.next, PART_LEN - text.len());
            self.next.drain(..seen);
            for row in views.iter().filter_map(|peer| PeerRow::of(swarms, &self.entry, peer)) {
                match serde_json::to_string(&row) {
                    Ok(row) => {
                        text.push_str(if self.is_empty { "" } else { "," });
                        text.push_str(&row);
                        self.is_empty = false;
                    }
                    Err(error) => tracing::error!(%error, "a row could not be written as JSON"),
                }
            }
        }
        Some(AnswerPart { text, is_last: false })
    }
}

impl PeerRow {
    /// Returns the row of a peer; `None` if the peer has no number.
    fn of(swarms: &Swarms, entry: &CatalogueTorrent, peer: &PeerView) -> Option<Self> {
        let have = match &peer.held {
            Holdings::Unknown => HaveForm::Unknown,
            Holdings::Everything => HaveForm::Word("all"),
            Holdings::Pieces(held) if held.count() == 0 => HaveForm::Word("none"),
            Holdings::Pieces(held) => HaveForm::Bits { bits: base64::encode(held.as_wire()) },
        };
        Some(Self {
            id: swarms.number(entry.info_hash, peer.id?),
            peer: peer.addr,
            also_at: peer.also,
            client: peer.peer_id.map(|id| id.client_name()),
            held: match &peer.held {
                Holdings::Pieces(held) => Some(held.count()),
                Holdings::Everything => Some(entry.pieces),
                Holdings::Unknown => None,
            },
            have,
            source: peer.source.map(HoldingsSource::word),
            sure: peer.sure,
            left: peer.left,
            rate: peer.rate.map(rounded),
            eta: peer.eta.map(whole_seconds),
            silent: peer.silent.as_secs(),
            as_of: as_of(swarms, peer.held_at),
            reachable: peer.reachable,
            reason: unseen(peer),
            joined_at: rfc3339(swarms.time_of(peer.joined?)),
        })
    }
}

impl CountsEvent {
    pub(super) fn of(changes: &SwarmChanges) -> Self {
        Self {
            complete: changes.complete,
            incomplete: changes.incomplete,
            downloads: changes.downloads,
            copies: rounded(changes.copies.fraction()),
        }
    }
}

impl HoldersAnswer {
    pub(super) fn of(swarms: &Swarms, piece: PieceIndex, holders: &[PeerView]) -> Self {
        let holders: Vec<PieceHolder> = holders
            .iter()
            .map(|peer| PieceHolder {
                peer: peer.addr,
                also_at: peer.also,
                client: peer.peer_id.map(|id| id.client_name()),
                source: peer.source.map(HoldingsSource::word),
                sure: peer.sure,
                as_of: as_of(swarms, peer.held_at),
            })
            .collect();
        Self { piece: piece.0, count: holders.len(), holders }
    }
}

impl AtRiskAnswer {
    pub(super) fn of(k: u32, found: &AtRisk) -> Self {
        let groups = found.groups.iter().map(|group| RiskGroupView {
            holders: group.holders.clone(),
            pieces: runs(group.pieces.iter()),
            count: group.pieces.count(),
        });
        Self {
            k,
            count: found.pieces.count(),
            pieces: runs(found.pieces.iter()),
            groups: groups.collect(),
            more: found.more,
        }
    }
}

impl MissingAnswer {
    pub(super) fn of(peer: SocketAddr, swarm: &SwarmView) -> Self {
        let missing = swarm.missing(peer);
        Self {
            peer,
            count: missing.as_ref().map(|missing| missing.count()),
            pieces: missing.map(|missing| runs(missing.iter())),
        }
    }
}

impl WithoutAnswer {
    pub(super) fn of(found: &Remainder) -> Self {
        Self {
            can_complete: found.lost.count() == 0,
            count: found.lost.count(),
            pieces: runs(found.lost.iter()),
            copies: rounded(found.copies.fraction()),
        }
    }
}

/// Returns the changes as server-sent events, without the counts.
pub(super) fn changes(swarms: &Swarms, entry: &CatalogueTorrent, changes: &SwarmChanges) -> String {
    let info_hash = entry.info_hash;
    let mut out = String::new();
    for Departure { id, addr, why } in &changes.gone {
        let id = swarms.number(info_hash, *id);
        event("gone", &GoneEvent { id, peer: *addr, why: why.word() }, &mut out);
    }
    for peer in &changes.peers {
        if let Some(row) = PeerRow::of(swarms, entry, peer) {
            event("peer", &row, &mut out);
        }
    }
    for PieceGain { id, pieces, held, source, sure, pulse } in &changes.grown {
        let told = HaveEvent {
            id: swarms.number(info_hash, *id),
            pieces: runs(pieces.iter().copied()),
            held: *held,
            rate: pulse.rate.map(rounded),
            eta: pulse.eta.map(whole_seconds),
            source: source.map(HoldingsSource::word),
            sure: *sure,
            as_of: as_of(swarms, pulse.held_at),
        };
        event("have", &told, &mut out);
    }
    if !changes.pulses.is_empty() {
        let row = |pulse: &Pulse| PulseRow {
            id: swarms.number(info_hash, pulse.id),
            rate: pulse.rate.map(rounded),
            eta: pulse.eta.map(whole_seconds),
            silent: pulse.silent.as_secs(),
            as_of: as_of(swarms, pulse.held_at),
        };
        event("pulse", &PulseEvent { peers: changes.pulses.iter().map(row).collect() }, &mut out);
    }
    out
}

/// Rounds to thousandths, which is more than anybody looks at.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Returns whole seconds, rounded up, so that 0 means that it is done.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The number of peers of a map that are looked up at a time.
const PEERS_AT_A_TIME: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_two_lines_and_a_blank_one() {
        let mut out = String::new();
        event("a", &"x\ny", &mut out);
        event("b", &HaveForm::Unknown, &mut out);
        assert_eq!(out, "event: a\ndata: \"x\\ny\"\n\nevent: b\ndata: null\n\n");
    }

    #[test]
    fn holdings_have_their_three_forms() {
        let of = |have| serde_json::to_string(&have).unwrap();
        assert_eq!(of(HaveForm::Word("all")), "\"all\"");
        assert_eq!(of(HaveForm::Bits { bits: "gA==".to_owned() }), "{\"bits\":\"gA==\"}");
    }
}
