//! What can be seen of a registry.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::availability::Copies;
use super::held::{Held, HoldingsSource};
use super::ledger::{Assigned, Ledger};
use super::peers::{Family, Packed, PeerList, Tick, moment_of};
use super::select::Place;
use super::torrent::Torrent;
use piecework_core::{InfoHash, Moment, PeerId};

/// A torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TorrentView {
    /// Which.
    pub info_hash: InfoHash,
    /// Peers that hold everything.
    pub complete: u32,
    /// Others.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Whether rich facts are kept about its peers.
    pub catalogued: bool,
}

/// A peer of a torrent.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerView {
    /// Its number, its own as long as the registry lives; `None` for torrents that are not
    /// catalogued, and for a peer that announced before the torrent was.
    pub id: Option<u64>,
    /// Its address.
    pub addr: SocketAddr,
    /// Its other address, if it is known to announce over both families.
    pub also: Option<SocketAddr>,
    /// Whether it announced that nothing is left to get.
    pub complete: bool,
    /// Time since it was last heard of: announced, reported, or said something to who observes it.
    pub silent: Duration,
    /// How often it was handed out, at both addresses. The total is kept for catalogued torrents only; for others it
    /// is the recent count.
    pub assigned: Assigned,
    /// Who it says it is; `None` for torrents that are not catalogued.
    pub peer_id: Option<PeerId>,
    /// Bytes it said it misses; `None` for torrents that are not catalogued.
    pub left: Option<u64>,
    /// Which pieces it holds.
    pub held: Held,
    /// Where that is known from; `None` if it is not known.
    pub source: Option<HoldingsSource>,
    /// Whether it holds no more than that.
    pub sure: bool,
    /// Pieces a second lately; `None` if its holdings are not known.
    pub rate: Option<f64>,
    /// Time until it holds everything; `None` if that is not to be seen.
    pub eta: Option<Duration>,
    /// When it last told or showed what it holds; `None` if that is not known.
    pub held_at: Option<Moment>,
    /// Whether it takes connections at any of its addresses, as far as that is known.
    pub reachable: Option<bool>,
    /// Whether it took the last connection of who observes and closed it at the handshake, plain and
    /// encrypted, and does not report what it holds.
    pub closes_at_handshake: bool,
    /// Since when it is on the list; `None` where it has no number.
    pub joined: Option<Moment>,
}

/// A peer that was looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundPeer {
    /// Its address.
    pub addr: SocketAddr,
    /// Its other address, if it is known to announce over both families.
    pub also: Option<SocketAddr>,
    /// Who it says it is.
    pub peer_id: Option<PeerId>,
    /// Pieces it holds; `None` if that is not known.
    pub held: Option<u32>,
}

/// How often a peer of a catalogued torrent was handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadEntry {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The peer.
    pub peer: SocketAddr,
    /// How often.
    pub assigned: Assigned,
    /// Whether it is there now.
    pub present: bool,
}

/// Counts of a catalogued torrent's swarm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SwarmCounts {
    /// Complete peers.
    pub complete: u32,
    /// Others.
    pub incomplete: u32,
    /// How often `completed` was announced.
    pub downloads: u32,
    /// Distributed copies.
    pub copies: Copies,
    /// Its peers may be connected to.
    pub observe: bool,
    /// Peers that we are connected to.
    pub observed: u32,
}

/// Counts of a whole registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct RegistryStats {
    /// Torrents with peers or in the catalogue.
    pub torrents: usize,
    /// Peers, each once for every torrent it is in.
    pub peers: usize,
    /// Peers removed because they fell silent.
    pub expired: u64,
    /// Peers removed because they were observed and then refused connections.
    pub unreachable: u64,
    /// Bytes on the heap that peers take.
    pub peer_bytes: usize,
}

impl PeerView {
    /// Whether this is an address of the peer.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        self.addr == addr || self.also == Some(addr)
    }
}

/// The load of a torrent's peers that were ever handed out.
pub(super) fn loads(torrent: &Torrent) -> Vec<LoadEntry> {
    let Some(ledger) = &torrent.ledger else { return Vec::new() };
    let info_hash = torrent.info_hash;
    let mut all = Vec::new();
    let mut add = |peer: SocketAddr, recent: u16| {
        let total = ledger.assigned(peer).unwrap_or(u64::from(recent));
        if total > 0 {
            let assigned = Assigned { total, recent };
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
        // A peer stands there once: by its first address, unless nothing was heard from there lately.
        let second = ledger.filter(|ledger| ledger.is_second(peer.addr()));
        let first = second.and_then(|ledger| ledger.other(peer.addr()));
        if peer.seen >= alive_since && !first.is_some_and(is_alive) {
            let view = peer_view(ledger, peer, complete, list.standing(at).reachable(), now);
            out.push(with_other(view, torrent, hasher));
        }
    }
}

/// The peers of a catalogued torrent that have a number, in its order.
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

/// One peer of a catalogued torrent.
pub(super) fn facts_view(
    torrent: &Torrent,
    addr: SocketAddr,
    hasher: &FixedState,
    now: Moment,
) -> Option<PeerView> {
    let ledger = torrent.ledger.as_deref();
    let view = match torrent.find(addr.ip(), addr.port(), hasher)? {
        Place::V4(at) => {
            let at = at as usize;
            let reachable = torrent.v4.standing(at).reachable();
            peer_view(ledger, torrent.v4.get(at), torrent.v4.is_complete(at), reachable, now)
        }
        Place::V6(at) => {
            let at = at as usize;
            let reachable = torrent.v6.standing(at).reachable();
            peer_view(ledger, torrent.v6.get(at), torrent.v6.is_complete(at), reachable, now)
        }
    };
    Some(with_other(view, torrent, hasher))
}

/// Adds what is known of a peer at its other address.
fn with_other(mut view: PeerView, torrent: &Torrent, hasher: &FixedState) -> PeerView {
    let Some((ledger, other)) = torrent.ledger.as_ref().zip(view.also) else { return view };
    let Some(place) = torrent.find(other.ip(), other.port(), hasher) else { return view };
    view.assigned.total += ledger.assigned(other).unwrap_or(0);
    view.assigned.recent = view.assigned.recent.saturating_add(torrent.recent(place));
    view.reachable = match (view.reachable, torrent.standing(place).reachable()) {
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
            assigned: Assigned { total: u64::from(peer.recent), recent: peer.recent },
            peer_id: None,
            left: None,
            held: if complete { Held::Everything } else { Held::Unknown },
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
        assigned: Assigned {
            total: ledger.assigned(peer.addr()).unwrap_or(0),
            recent: peer.recent,
        },
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
