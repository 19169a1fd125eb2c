//! Views: copies of what a registry knows.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::availability::Copies;
use super::holdings::{Holdings, HoldingsSource};
use super::ledger::{Ledger, Load};
use super::peers::{Family, Packed, PeerList, Tick, moment_of};
use super::select::PeerPosition;
use super::torrent::Torrent;
use piecework_core::{InfoHash, Moment, PeerId};

/// A torrent of a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TorrentView {
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Whether the torrent is catalogued, so that it has a ledger.
    pub catalogued: bool,
}

/// A peer of a torrent.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerView {
    /// The peer's number, unique in the lifetime of the registry. `None` if the torrent is not catalogued, or
    /// if the peer announced before the torrent was catalogued and is not in its ledger.
    pub id: Option<u64>,
    /// The peer's address.
    pub addr: SocketAddr,
    /// The peer's other address, if it announces over IPv4 and IPv6.
    pub also: Option<SocketAddr>,
    /// Whether the peer announced that it misses nothing.
    pub complete: bool,
    /// The time since the peer last announced, reported, or sent something to the observer.
    pub silent: Duration,
    /// How often the peer was handed out, at both addresses. The total is kept only for catalogued torrents; for
    /// others it equals the recent count.
    pub assigned: Load,
    /// The announced peer id; `None` if the torrent is not catalogued.
    pub peer_id: Option<PeerId>,
    /// The announced number of missing bytes; `None` if the torrent is not catalogued.
    pub left: Option<u64>,
    /// Which pieces the peer holds.
    pub held: Holdings,
    /// How the holdings are known; `None` if they are not known.
    pub source: Option<HoldingsSource>,
    /// Whether the peer holds no other pieces than these.
    pub sure: bool,
    /// The recent number of new pieces per second; `None` if the holdings are not known.
    pub rate: Option<f64>,
    /// The estimated time until the peer is complete; `None` if there is no estimate.
    pub eta: Option<Duration>,
    /// When the holdings were last confirmed; `None` if they are not known.
    pub held_at: Option<Moment>,
    /// Whether the peer accepts connections at any of its addresses; `None` if that is not known.
    pub reachable: Option<bool>,
    /// Whether the peer accepted the observer's last connections, plain and encrypted, but closed them during the
    /// handshake, and does not report its holdings.
    pub closes_at_handshake: bool,
    /// When the peer was listed; `None` if it has no number.
    pub joined: Option<Moment>,
}

/// A result of a search for peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundPeer {
    /// The peer's address.
    pub addr: SocketAddr,
    /// The peer's other address, if it announces over IPv4 and IPv6.
    pub also: Option<SocketAddr>,
    /// The announced peer id.
    pub peer_id: Option<PeerId>,
    /// The number of pieces that the peer holds; `None` if that is not known.
    pub held: Option<u32>,
}

/// How often a peer of a catalogued torrent was handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadEntry {
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// The peer's address.
    pub peer: SocketAddr,
    /// How often the peer was handed out.
    pub assigned: Load,
    /// Whether the peer is listed now.
    pub present: bool,
}

/// Counts of a catalogued torrent's swarm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SwarmCounts {
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
    /// Whether the observer may connect to the torrent's peers.
    pub observe: bool,
    /// The number of peers that the observer is connected to.
    pub observed: u32,
}

/// Counts of a whole registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct RegistryStats {
    /// Torrents that have peers or are catalogued.
    pub torrents: usize,
    /// Peers, counted once for each of their torrents.
    pub peers: usize,
    /// Peers that were removed because they no longer announced.
    pub expired: u64,
    /// Peers that were removed because they had accepted a connection of the observer and then refused.
    pub unreachable: u64,
    /// Heap bytes of the lists of peers.
    pub peer_bytes: usize,
}

impl PeerView {
    /// Returns whether `addr` is one of the peer's addresses.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.addr == addr || self.also == Some(addr)
    }
}

/// Returns the load of all peers of a torrent that were handed out at least once.
pub(super) fn loads(torrent: &Torrent) -> Vec<LoadEntry> {
    let Some(ledger) = &torrent.ledger else { return Vec::new() };
    let info_hash = torrent.info_hash;
    let mut all = Vec::new();
    let mut add = |peer: SocketAddr, recent: u16| {
        let total = ledger.assigned(peer).unwrap_or(u64::from(recent));
        if total > 0 {
            let assigned = Load { total, recent };
            all.push(LoadEntry { info_hash, peer, assigned, present: true });
        }
    };
    torrent.v4.iter().for_each(|(peer, _)| add(peer.addr(), peer.recent));
    torrent.v6.iter().for_each(|(peer, _)| add(peer.addr(), peer.recent));
    all.extend(ledger.past().map(|(peer, assigned)| LoadEntry {
        info_hash,
        peer,
        assigned,
        present: false,
    }));
    all
}

pub(super) fn view(torrent: &Torrent) -> TorrentView {
    let (complete, incomplete) = torrent.counts();
    TorrentView {
        info_hash: torrent.info_hash,
        complete,
        incomplete,
        downloads: torrent.downloads,
        catalogued: torrent.ledger.is_some(),
    }
}

pub(super) fn add_peers<A: Family>(
    list: &PeerList<A>,
    torrent: &Torrent,
    now: Moment,
    alive_since: Tick,
    hasher: &FixedState,
    out: &mut Vec<PeerView>,
) {
    let ledger = torrent.ledger.as_deref();
    let is_alive = |addr: SocketAddr| {
        let place = torrent.find(addr.ip(), addr.port(), hasher);
        place.is_some_and(|place| torrent.seen(place) >= alive_since)
    };
    for (at, (peer, complete)) in list.iter().enumerate() {
        // A peer is listed once: at its first address, unless its announces from there have expired.
        let second = ledger.filter(|ledger| ledger.is_second(peer.addr()));
        let first = second.and_then(|ledger| ledger.other(peer.addr()));
        if peer.seen >= alive_since && !first.is_some_and(is_alive) {
            let view = peer_view(ledger, peer, complete, list.reachability(at).reachable(), now);
            out.push(with_other(view, torrent, hasher));
        }
    }
}

/// Returns the peers of a catalogued torrent that have a number, in the order of the numbers.
pub(super) fn swarm_peers(
    torrent: &Torrent,
    ledger: &Ledger,
    hasher: &FixedState,
    now: Moment,
) -> Vec<PeerView> {
    let known = Some(ledger);
    let v4 = torrent.v4.iter().filter(|(peer, _)| !ledger.is_second(peer.addr()));
    let v6 = torrent.v6.iter().filter(|(peer, _)| !ledger.is_second(peer.addr()));
    let v4 = v4.map(|(peer, all)| peer_view(known, peer, all, None, now));
    let v6 = v6.map(|(peer, all)| peer_view(known, peer, all, None, now));
    let known = v4.chain(v6).filter(|peer| peer.id.is_some());
    let mut peers: Vec<_> = known.map(|peer| with_other(peer, torrent, hasher)).collect();
    peers.sort_unstable_by_key(|peer| peer.id);
    peers
}

/// Returns the view of one peer of a catalogued torrent.
pub(super) fn facts_view(
    torrent: &Torrent,
    addr: SocketAddr,
    hasher: &FixedState,
    now: Moment,
) -> Option<PeerView> {
    let ledger = torrent.ledger.as_deref();
    let view = match torrent.find(addr.ip(), addr.port(), hasher)? {
        PeerPosition::V4(at) => {
            let at = at as usize;
            let reachable = torrent.v4.reachability(at).reachable();
            peer_view(ledger, torrent.v4.get(at), torrent.v4.is_complete(at), reachable, now)
        }
        PeerPosition::V6(at) => {
            let at = at as usize;
            let reachable = torrent.v6.reachability(at).reachable();
            peer_view(ledger, torrent.v6.get(at), torrent.v6.is_complete(at), reachable, now)
        }
    };
    Some(with_other(view, torrent, hasher))
}

/// Adds the load and the reachability of the peer at its other address.
fn with_other(mut view: PeerView, torrent: &Torrent, hasher: &FixedState) -> PeerView {
    let Some((ledger, other)) = torrent.ledger.as_ref().zip(view.also) else { return view };
    let Some(place) = torrent.find(other.ip(), other.port(), hasher) else { return view };
    view.assigned.total += ledger.assigned(other).unwrap_or(0);
    view.assigned.recent = view.assigned.recent.saturating_add(torrent.recent(place));
    view.reachable = match (view.reachable, torrent.reachability(place).reachable()) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    view
}

fn peer_view<A: Family>(
    ledger: Option<&Ledger>,
    peer: &Packed<A>,
    complete: bool,
    reachable: Option<bool>,
    now: Moment,
) -> PeerView {
    let known = ledger.and_then(|ledger| Some((ledger, ledger.get(peer.addr())?)));
    let Some((ledger, facts)) = known else {
        return PeerView {
            id: None,
            addr: peer.addr(),
            also: None,
            complete,
            silent: now.since(moment_of(peer.seen)),
            assigned: Load { total: u64::from(peer.recent), recent: peer.recent },
            peer_id: None,
            left: None,
            held: if complete { Holdings::Everything } else { Holdings::Unknown },
            source: complete.then_some(HoldingsSource::Announced),
            sure: complete,
            rate: None,
            eta: None,
            held_at: complete.then(|| moment_of(peer.seen)),
            reachable,
            closes_at_handshake: false,
            joined: None,
        };
    };
    let pulse = facts.pulse(ledger.pieces, now);
    PeerView {
        id: Some(facts.id),
        addr: peer.addr(),
        also: ledger.other(peer.addr()),
        complete,
        silent: pulse.silent,
        assigned: Load { total: ledger.assigned(peer.addr()).unwrap_or(0), recent: peer.recent },
        peer_id: facts.peer_id,
        left: facts.left,
        held: facts.held.clone(),
        source: facts.source,
        sure: facts.is_sure(),
        rate: pulse.rate,
        eta: pulse.eta,
        held_at: pulse.held_at,
        reachable,
        closes_at_handshake: facts.closes && facts.source != Some(HoldingsSource::Reported),
        joined: Some(facts.joined),
    }
}
