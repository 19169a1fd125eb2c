//! A torrent's swarm as JSON: who holds what, and what can be asked about it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::catalogue::Entry;
use super::parts::{PART_LEN, Part, Parts};
use super::service::Service;
use super::views::rfc3339;
use piecework_core::{InfoHash, Moment, PieceIndex, base64};
use piecework_registry::{
    AtRisk, Gone, Grown, Held, HoldingsSource, PeerView, Pulse, SwarmChanges, SwarmView, Without,
};

/// The answer to `GET /torrents/{info_hash}/map`, and the data of the event `map`, in parts: this, a
/// `[`, [`Row`]s, and `]}`.
pub(super) struct Map {
    entry: Arc<Entry>,
    begun: bool,
    /// Peers that are to be written next.
    next: Vec<(u64, SocketAddr)>,
    /// The number of the last peer that was ever in `next`.
    last: Option<u64>,
    /// No row was written yet.
    is_empty: bool,
}

/// What stands in a map before the rows.
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
    /// Distributed copies, a fraction.
    copies: f64,
    /// Seconds without a word after which a peer may be gone.
    silent_after: u64,
    observer: Observed,
}

#[derive(Serialize)]
struct Observed {
    on: bool,
    connected: u32,
}

/// A peer, and the event `peer`.
#[derive(Serialize)]
pub(super) struct Row {
    id: u64,
    peer: SocketAddr,
    /// Its other address, if it is known to announce over both families.
    also_at: Option<SocketAddr>,
    client: Option<String>,
    have: Have,
    held: Option<u32>,
    source: Option<&'static str>,
    sure: bool,
    left: Option<u64>,
    /// Pieces that the peer gets a second, if that is known.
    rate: Option<f64>,
    /// Seconds until the peer has everything at that rate.
    eta: Option<u64>,
    /// Seconds since the peer was last heard of.
    silent: u64,
    /// When the peer last told or showed what it holds.
    as_of: Option<String>,
    /// Whether it takes connections, if that is known.
    reachable: Option<bool>,
    /// Why the tracker cannot see what it holds, if that is known.
    reason: Option<&'static str>,
    joined_at: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Have {
    Unknown,
    Word(&'static str),
    Bits {
        /// Base64 of the bitfield as on the wire.
        bits: String,
    },
}

/// The event `have`.
#[derive(Serialize)]
struct HaveEvent {
    id: u64,
    /// Such as `5,7-9`.
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
pub(super) struct Holders {
    piece: u32,
    count: usize,
    holders: Vec<HolderOf>,
}

#[derive(Serialize)]
struct HolderOf {
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
    groups: Vec<Group>,
    /// Groups that there was no room for.
    more: usize,
}

#[derive(Serialize)]
struct Group {
    holders: Vec<SocketAddr>,
    pieces: String,
    count: u32,
}

/// Answer to `GET /torrents/{info_hash}/missing`.
#[derive(Serialize)]
pub(super) struct Missing {
    peer: SocketAddr,
    /// `null` if its holdings are not known; so is the next.
    count: Option<u32>,
    pieces: Option<String>,
}

/// Answer to `GET /torrents/{info_hash}/without`.
#[derive(Serialize)]
pub(super) struct WithoutAnswer {
    can_complete: bool,
    /// Pieces that nobody else is known to hold.
    count: u32,
    pieces: String,
    copies: f64,
}

impl Map {
    pub(super) fn of(entry: Arc<Entry>) -> Self {
        Self { entry, begun: false, next: Vec::new(), last: None, is_empty: true }
    }

    fn head(&self, service: &Service) -> Option<String> {
        let entry = &self.entry;
        let counts = service.swarm_counts(entry.info_hash)?;
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
            silent_after: service.config.silent_after().as_secs(),
            observer: Observed {
                on: service.config.observe && counts.observe,
                connected: counts.observed,
            },
        };
        let head = serde_json::to_string(&head)
            .inspect_err(|error| tracing::error!(%error, "a map could not be written as JSON"));
        Some(format!("{},\"peers\":[", head.ok()?.strip_suffix('}')?))
    }
}

impl Parts for Map {
    fn next(&mut self, service: &Service) -> Option<Part> {
        let info_hash = self.entry.info_hash;
        let mut text = String::new();
        if !self.begun {
            text = self.head(service)?;
            self.begun = true;
        }
        while text.len() < PART_LEN {
            if self.next.is_empty() {
                self.next = service.peers_after(info_hash, self.last, PEERS_AT_A_TIME);
                let Some((last, _)) = self.next.last() else {
                    text.push_str("]}");
                    return Some(Part { text, is_last: true });
                };
                self.last = Some(*last);
            }
            let (views, seen) = service.peer_views(info_hash, &self.next, PART_LEN - text.len());
            self.next.drain(..seen);
            for row in views.iter().filter_map(|peer| Row::of(service, info_hash, peer)) {
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
        Some(Part { text, is_last: false })
    }
}

impl Row {
    /// `None` for a peer without a number.
    fn of(service: &Service, info_hash: InfoHash, peer: &PeerView) -> Option<Self> {
        let have = match &peer.held {
            Held::Unknown => Have::Unknown,
            Held::Everything => Have::Word("all"),
            Held::Pieces(held) if held.count() == 0 => Have::Word("none"),
            Held::Pieces(held) => Have::Bits { bits: base64::encode(held.as_wire()) },
        };
        Some(Self {
            id: service.number(info_hash, peer.id?),
            peer: peer.addr,
            also_at: peer.also,
            client: peer.peer_id.map(|id| id.client_name()),
            held: match &peer.held {
                Held::Pieces(held) => Some(held.count()),
                Held::Everything => service.catalogue.get(info_hash).map(|entry| entry.pieces),
                Held::Unknown => None,
            },
            have,
            source: peer.source.map(HoldingsSource::word),
            sure: peer.sure,
            left: peer.left,
            rate: peer.rate.map(rounded),
            eta: peer.eta.map(whole_seconds),
            silent: peer.silent.as_secs(),
            as_of: as_of(service, peer.held_at),
            reachable: peer.reachable,
            reason: unseen(peer),
            joined_at: rfc3339(service.time_of(peer.joined?)),
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

impl Holders {
    pub(super) fn of(service: &Service, piece: PieceIndex, holders: &[PeerView]) -> Self {
        let holders: Vec<HolderOf> = holders
            .iter()
            .map(|peer| HolderOf {
                peer: peer.addr,
                also_at: peer.also,
                client: peer.peer_id.map(|id| id.client_name()),
                source: peer.source.map(HoldingsSource::word),
                sure: peer.sure,
                as_of: as_of(service, peer.held_at),
            })
            .collect();
        Self { piece: piece.0, count: holders.len(), holders }
    }
}

impl AtRiskAnswer {
    pub(super) fn of(k: u32, found: &AtRisk) -> Self {
        let groups = found.groups.iter().map(|group| Group {
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

impl Missing {
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
    pub(super) fn of(found: &Without) -> Self {
        Self {
            can_complete: found.lost.count() == 0,
            count: found.lost.count(),
            pieces: runs(found.lost.iter()),
            copies: rounded(found.copies.fraction()),
        }
    }
}

/// What has changed, as server-sent events, but for the counts.
pub(super) fn changes(service: &Service, info_hash: InfoHash, changes: &SwarmChanges) -> String {
    let mut out = String::new();
    for Gone { id, addr, why } in &changes.gone {
        let id = service.number(info_hash, *id);
        event("gone", &GoneEvent { id, peer: *addr, why: why.word() }, &mut out);
    }
    for peer in &changes.peers {
        if let Some(row) = Row::of(service, info_hash, peer) {
            event("peer", &row, &mut out);
        }
    }
    for Grown { id, pieces, held, source, sure, pulse } in &changes.grown {
        let told = HaveEvent {
            id: service.number(info_hash, *id),
            pieces: runs(pieces.iter().copied()),
            held: *held,
            rate: pulse.rate.map(rounded),
            eta: pulse.eta.map(whole_seconds),
            source: source.map(HoldingsSource::word),
            sure: *sure,
            as_of: as_of(service, pulse.held_at),
        };
        event("have", &told, &mut out);
    }
    if !changes.pulses.is_empty() {
        let row = |pulse: &Pulse| PulseRow {
            id: service.number(info_hash, pulse.id),
            rate: pulse.rate.map(rounded),
            eta: pulse.eta.map(whole_seconds),
            silent: pulse.silent.as_secs(),
            as_of: as_of(service, pulse.held_at),
        };
        event("pulse", &PulseEvent { peers: changes.pulses.iter().map(row).collect() }, &mut out);
    }
    out
}

/// Why the tracker cannot see what a peer holds, a sentence without its subject; `None` if it can, or
/// nothing is known of that.
pub(super) fn unseen(peer: &PeerView) -> Option<&'static str> {
    peer.closes_at_handshake.then_some(CLOSES)
}

/// The time at which something was known, RFC 3339.
pub(super) fn as_of(service: &Service, moment: Option<Moment>) -> Option<String> {
    Some(rfc3339(service.time_of(moment?)))
}

/// Appends an event in the form of the HTML standard, section 9.2. JSON has no line breaks of its
/// own.
pub(super) fn event(name: &str, data: &impl Serialize, out: &mut String) {
    match serde_json::to_string(data) {
        // Writing to a String cannot fail.
        Ok(data) => _ = write!(out, "event: {name}\ndata: {data}\n\n"),
        Err(error) => tracing::error!(%error, "an event could not be written as JSON"),
    }
}

/// Pieces in order as ranges, such as `0-41,57`; empty if there are none.
pub(super) fn runs(pieces: impl Iterator<Item = PieceIndex>) -> String {
    let mut out = String::new();
    let mut open: Option<(u32, u32)> = None;
    let close = |run: Option<(u32, u32)>, out: &mut String| {
        let Some((first, last)) = run else { return };
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = match first == last {
            true => write!(out, "{comma}{first}"),
            false => write!(out, "{comma}{first}-{last}"),
        };
    };
    for PieceIndex(piece) in pieces {
        match &mut open {
            Some((_, last)) if *last + 1 == piece => *last = piece,
            _ => {
                close(open, &mut out);
                open = Some((piece, piece));
            }
        }
    }
    close(open, &mut out);
    out
}

/// To thousandths, which is more than anybody looks at.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Rounded up: 0 is said when it is there.
fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Of a peer that takes the observer's connection and closes it at the handshake.
const CLOSES: &str = "closes the connection at our handshake, plain and encrypted";

/// Peers of a map that are looked up at a time.
const PEERS_AT_A_TIME: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_as_ranges() {
        let of = |pieces: &[u32]| runs(pieces.iter().map(|piece| PieceIndex(*piece)));
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[0]), "0");
        assert_eq!(of(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn an_event_is_two_lines_and_a_blank_one() {
        let mut out = String::new();
        event("a", &"x\ny", &mut out);
        event("b", &Have::Unknown, &mut out);
        assert_eq!(out, "event: a\ndata: \"x\\ny\"\n\nevent: b\ndata: null\n\n");
    }

    #[test]
    fn holdings_have_their_three_forms() {
        let of = |have| serde_json::to_string(&have).unwrap();
        assert_eq!(of(Have::Word("all")), "\"all\"");
        assert_eq!(of(Have::Bits { bits: "gA==".to_owned() }), "{\"bits\":\"gA==\"}");
    }
}
