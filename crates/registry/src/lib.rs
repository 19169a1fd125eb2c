//! The state of a tracker in domain types: peers, expiry, selection, holdings. No I/O.
//!
//! ```
//! use std::time::Duration;
//! use piecework_proto::announce::Announce;
//! use piecework_core::{InfoHash, Moment, PeerId, Rng};
//! use piecework_registry::{Registry, RegistryConfig, Want};
//!
//! let mut registry = Registry::new(RegistryConfig::default(), 1);
//! let mut rng = Rng::from_seed(1);
//! let hash = InfoHash([7; 20]);
//! for (n, left) in [(1, 0), (2, 99)] {
//!     let announce = Announce::new(hash, PeerId([n; 20]), 6881, left);
//!     let from = [10, 0, 0, n].into();
//!     let answer = registry.announce(Moment::START, &mut rng, from, &announce, Want::any(50));
//!     assert_eq!(answer.unwrap().peers.len(), usize::from(n) - 1);
//! }
//! registry.expire(Moment::START + Duration::from_secs(3600), 1000);
//! assert_eq!(registry.stats().peers, 0);
//! ```
//!
//! [`Registry`] is one shard: a driver may keep several, each with the torrents whose info-hash
//! falls to it, and lock them apart. Whom an announce gets to know are first those that were seen to
//! take connections, then those of whom that is not known, then those that refused; those that may be
//! gone only where there is nobody else. Cost follows
//! what is asked: an announce looks at a bounded number of peers, and [`Registry::expire`] at as many as its caller allows, so that nothing
//! ever pauses for a sweep.

#![warn(missing_docs)]

mod admit;
mod availability;
mod growth;
mod guesses;
mod holdings;
mod identities;
mod kept;
mod ledger;
mod observer;
mod peer_ids;
mod peers;
mod questions;
mod select;
mod shares;
mod sight;
#[cfg(test)]
mod tests;
mod torrent;
mod view;
mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use piecework_core::{AnnounceKey, BitfieldError, InfoHash, Moment, PeerId, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent, ScrapeEntry};

use guesses::Guesses;
use ledger::Ledger;
use peer_ids::PeerIds;
use peers::{Family, Packed, PeerList, Tick};
use select::{Candidates, Lists, Look, Place};
use shares::{Opener, Shares};
use torrent::Torrent;

pub use availability::Copies;
pub use holdings::{Seen, Sighting, takes_several};
pub use kept::{KeptHeld, KeptOf, KeptPeer, KeptRoom};
pub use ledger::{Assigned, Held, HoldingsSource};
pub use observer::{Observer, ObserverAction, ObserverConfig, ObserverFigures, VisitEnd, VisitKey};
pub use questions::{AtRisk, RiskGroup, SwarmView, Without};
pub use select::Selection;
pub use sight::{Sight, SightError};
pub use view::{FoundPeer, LoadEntry, PeerView, RegistryStats, SwarmCounts, TorrentView};
pub use watch::{Gone, GoneWhy, Grown, Pulse, SwarmChanges};

/// The torrents and peers of a tracker, or of one shard of it.
pub struct Registry {
    config: RegistryConfig,
    torrents: Slab<Torrent>,
    by_hash: HashTable<u32>,
    hasher: FixedState,
    seed: u64,
    peers: usize,
    held_bytes: usize,
    guesses: Guesses,
    /// Keys that came with the id of another peer, counted apart: clients that have a key for each of
    /// their addresses guess nothing.
    joins: Guesses,
    shares: Shares,
    expired: u64,
    unreachable: u64,
    ids: PeerIds,
    /// Changes so far of what is kept over a restart.
    revision: u64,
    /// The number given to a peer last.
    last_id: u64,
    sightings: Vec<Sighting>,
    /// Catalogued torrents whose counts have changed, while somebody wants to know.
    touched: Option<BTreeSet<InfoHash>>,
    cursor: Cursor,
    candidates: Candidates,
}

/// What a registry does and bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryConfig {
    /// Silence after which a peer is gone: the announce interval and some grace.
    pub expire_after: Duration,
    /// How complete peers are chosen.
    pub selection: Selection,
    /// Track torrents that are not catalogued too.
    pub open: bool,
    /// Peers of one torrent from one IPv4 address or IPv6 /64; loopback is not counted. An address
    /// may be that of a whole network behind a NAT.
    pub max_peers_per_ip: usize,
    /// Time in which the recent count of assignments halves.
    pub half_life: Duration,
    /// Torrents at most; catalogued ones count, but are never refused.
    pub max_torrents: usize,
    /// Torrents that are not catalogued and that one network announced first; loopback is not
    /// counted.
    pub max_torrents_per_ip: usize,
    /// Peers of all torrents at most.
    pub max_peers: usize,
    /// Bytes of the peers' bitfields, and of what is counted from them, at most.
    pub max_held_bytes: usize,
    /// Tell of the peers of catalogued torrents, so that they can be observed.
    pub observe: bool,
}

/// Which peers an asker can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// How many at most.
    pub count: usize,
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// Their ids too.
    pub ids: bool,
}

/// What an announce gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Complete peers, the asker included if it is listed.
    pub complete: u32,
    /// Others, the asker included if it is listed.
    pub incomplete: u32,
    /// Whom to talk to, complete peers first.
    pub peers: Vec<Handed>,
    /// The ids of these peers, in their order, where they are known; empty if they are not wanted.
    pub ids: Vec<Option<PeerId>>,
}

/// A peer handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handed {
    /// Its address.
    pub addr: SocketAddr,
    /// Whether it holds everything.
    pub complete: bool,
}

/// Who reports its holdings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reporter {
    /// The address the report came from.
    pub ip: IpAddr,
    /// The port it announces.
    pub port: u16,
    /// The key it announces; `None` if it did not tell.
    pub key: Option<AnnounceKey>,
}

/// Why an announce or report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The tracker is not open, and the torrent not in its catalogue.
    #[error("this tracker serves only the torrents of its catalogue")]
    NotCatalogued,
    /// Too many peers of one torrent at one address.
    #[error("there are already `{0}` peers of this torrent at your address")]
    TooManyAtAddress(
        /// As many as there may be.
        usize,
    ),
    /// Too many torrents that one network announced first.
    #[error(
        "your address has announced `{0}` torrents here that nobody had announced before: no more"
    )]
    TooManyTorrents(
        /// As many as there may be.
        usize,
    ),
    /// No room for another peer or torrent.
    #[error("this tracker is full")]
    Full,
    /// A report of somebody who has not announced.
    #[error("no peer at `{0}` has announced this torrent")]
    UnknownPeer(
        /// The address.
        SocketAddr,
    ),
    /// A report with another key than the peer's.
    #[error("the key is not the one this peer announced")]
    WrongKey,
    /// A report with a short key from where too many wrong ones came.
    #[error(
        "too many wrong keys came from your address: wait some minutes, or announce a key of 32 digits"
    )]
    TooManyKeys,
    /// A report that is no bitfield of the torrent.
    #[error("{0}")]
    BadBitfield(#[from] BitfieldError),
}

/// What one call of [`Registry::expire`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Peers looked at.
    pub looked: usize,
    /// Peers removed.
    pub peers: usize,
    /// Whether the last peer of the registry was reached: the next call begins anew.
    pub round_done: bool,
}

/// How far the walk of [`Registry::expire`] has come: it goes through the torrents upwards, and
/// through each one's peers downwards, so that a removal only moves peers it has already seen.
#[derive(Default)]
struct Cursor {
    torrent: usize,
    /// Peers left to look at in each family, `None` before the torrent is begun.
    left: Option<(usize, usize)>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            expire_after: Duration::from_secs(180),
            selection: Selection::Balanced,
            open: true,
            max_peers_per_ip: 32,
            half_life: Duration::from_secs(600),
            // Torrents cost about 200 bytes each, peers 12 to 50.
            max_torrents: 1_000_000,
            max_torrents_per_ip: 20_000,
            max_peers: 5_000_000,
            max_held_bytes: 256 << 20,
            observe: false,
        }
    }
}

impl Want {
    /// Peers of both families.
    pub fn any(count: usize) -> Self {
        Self { count, v4: true, v6: true, ids: false }
    }
}

impl Registry {
    /// An empty registry. `seed` keys its hash tables: chance in a service, fixed in a simulation.
    pub fn new(config: RegistryConfig, seed: u64) -> Self {
        Self {
            config,
            torrents: Slab::new(),
            by_hash: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            seed,
            peers: 0,
            held_bytes: 0,
            guesses: Guesses::default(),
            joins: Guesses::default(),
            shares: Shares::new(seed),
            expired: 0,
            unreachable: 0,
            ids: PeerIds::new(seed),
            revision: 0,
            last_id: 0,
            sightings: Vec::new(),
            touched: None,
            cursor: Cursor::default(),
            candidates: Candidates::default(),
        }
    }

    /// Takes an announce of the peer at `from` (whose port is the announced one, not that of the
    /// packet) and chooses whom it gets to know. One that announces port 0 takes no connections: it gets
    /// peers and is not listed.
    ///
    /// # Errors
    /// If the torrent is not tracked here, or there is no room.
    pub fn announce(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        from: IpAddr,
        announce: &Announce,
        want: Want,
    ) -> Result<Answer, Refusal> {
        let tick = tick_of(now);
        let from = from.to_canonical();
        if announce.event == AnnounceEvent::Stopped {
            return Ok(self.stop(now, from, announce));
        }
        if announce.port == 0 {
            return self.answer_unlisted(tick, rng, announce, want);
        }
        let slot = self.slot_for(tick, rng, from, announce.info_hash)?;
        let place = match self.admit(slot, now, from, announce) {
            Ok(place) => place,
            Err(refusal) => {
                self.drop_if_idle(slot);
                return Err(refusal);
            }
        };
        Ok(self.answer(slot, tick, rng, Some(place), announce.left == 0, want))
    }

    /// Answers who announces port 0 and so takes no connections: it is not listed, and opens no
    /// torrent, but gets peers to connect to.
    fn answer_unlisted(
        &mut self,
        tick: Tick,
        rng: &mut Rng,
        announce: &Announce,
        want: Want,
    ) -> Result<Answer, Refusal> {
        match self.find(announce.info_hash) {
            Some(slot) => Ok(self.answer(slot, tick, rng, None, announce.left == 0, want)),
            None if self.config.open => Ok(Answer::default()),
            None => Err(Refusal::NotCatalogued),
        }
    }

    /// Chooses whom an asker gets to know; `asker` is its place if it is listed.
    fn answer(
        &mut self,
        slot: usize,
        tick: Tick,
        rng: &mut Rng,
        asker: Option<Place>,
        asker_complete: bool,
        want: Want,
    ) -> Answer {
        self.halve(slot, tick);
        let peers = self.choose(slot, tick, rng, asker, asker_complete, want);
        let (complete, incomplete) = self.torrents[slot].counts();
        let ids = match want.ids {
            true => peers.iter().map(|peer| self.peer_id(slot, peer.addr)).collect(),
            false => Vec::new(),
        };
        Answer { complete, incomplete, peers, ids }
    }

    /// Looks at up to `budget` peers and removes those that have been silent for too long.
    pub fn expire(&mut self, now: Moment, budget: usize) -> Expired {
        let alive_since = self.alive_since(tick_of(now));
        let mut done = Expired::default();
        // An empty torrent costs a look too, or a million of them would be a pause.
        while done.looked < budget {
            let slot = self.cursor.torrent;
            if slot >= self.torrents.capacity() {
                self.cursor = Cursor::default();
                done.round_done = true;
                break;
            }
            done.looked += 1;
            let Some(torrent) = self.torrents.get_mut(slot) else {
                self.cursor = Cursor { torrent: slot + 1, left: None };
                continue;
            };
            let (v4, v6) = self.cursor.left.unwrap_or_else(|| (torrent.v4.len(), torrent.v6.len()));
            // Others may have gone since the last call.
            let (v4, v6) = (v4.min(torrent.v4.len()), v6.min(torrent.v6.len()));
            let gone = if v4 > 0 {
                self.cursor.left = Some((v4 - 1, v6));
                let at = v4 - 1;
                (torrent.v4.get(at).seen < alive_since).then_some(Place::V4(at as u32))
            } else if v6 > 0 {
                self.cursor.left = Some((0, v6 - 1));
                let at = v6 - 1;
                (torrent.v6.get(at).seen < alive_since).then_some(Place::V6(at as u32))
            } else {
                self.cursor = Cursor { torrent: slot + 1, left: None };
                continue;
            };
            if let Some(place) = gone {
                self.remove(slot, place, GoneWhy::Expired);
                // At once, not when the walk comes by: the budget may be used up here.
                self.drop_if_idle(slot);
                self.expired += 1;
                done.peers += 1;
            }
        }
        done
    }

    /// Keeps rich facts about a torrent's peers from now on, and the torrent even without peers.
    /// `downloads` is what was counted before a restart. Does nothing to a catalogued torrent.
    pub fn catalogue(&mut self, now: Moment, info_hash: InfoHash, pieces: u32, downloads: u32) {
        let slot = match self.find(info_hash) {
            Some(slot) => slot,
            None => self.insert_torrent(tick_of(now), info_hash, None),
        };
        if let Some(opener) = self.torrents[slot].opener.take() {
            self.shares.take(opener);
        }
        let torrent = &mut self.torrents[slot];
        if torrent.ledger.is_some() {
            return;
        }
        let mut ledger = Ledger::new(pieces, true, self.seed);
        let v4 = torrent.v4.iter().map(|(peer, all)| (peer.addr(), peer.recent, all));
        let v6 = torrent.v6.iter().map(|(peer, all)| (peer.addr(), peer.recent, all));
        for (addr, recent, all) in v4.chain(v6).take(MAX_ADOPTED) {
            self.last_id += 1;
            ledger.adopt(now, self.last_id, addr, all, recent);
        }
        torrent.ledger = Some(Box::new(ledger));
        torrent.downloads = torrent.downloads.max(downloads);
        self.touch_counts(slot);
    }

    /// Forgets a torrent's rich facts; where the tracker is open its peers stay.
    pub fn uncatalogue(&mut self, info_hash: InfoHash) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = self.torrents[slot].ledger.take() {
            self.held_bytes -= ledger.held_bytes();
        }
        if !self.config.open {
            while let Some(place) = self.torrents[slot].last_place() {
                self.remove(slot, place, GoneWhy::Stopped);
            }
        }
        self.drop_if_idle(slot);
    }

    /// Gives peers of a catalogued torrent the load they had before a restart; each takes it up
    /// when it announces.
    pub fn restore_load(&mut self, entry: &LoadEntry) {
        let Some(slot) = self.find(entry.info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger
            && ledger.get(entry.peer).is_none()
        {
            ledger.remember(entry.peer, entry.assigned);
        }
    }

    /// What is to be kept over restarts and has changed since the last call, torrent by torrent:
    /// info-hash, downloads, and the load of all its peers.
    pub fn take_changed(&mut self) -> Vec<(InfoHash, u32, Vec<LoadEntry>)> {
        let mut changed = Vec::new();
        for (_, torrent) in &mut self.torrents {
            let loads = if let Some(ledger) = &mut torrent.ledger
                && std::mem::take(&mut ledger.dirty)
            {
                view::loads(torrent)
            } else {
                continue;
            };
            changed.push((torrent.info_hash, torrent.downloads, loads));
        }
        changed
    }

    /// What this registry was told to do.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// A torrent's counts (BEP 48); `None` if it is not known.
    pub fn scrape(&self, info_hash: InfoHash) -> Option<ScrapeEntry> {
        let torrent = &self.torrents[self.find(info_hash)?];
        let (complete, incomplete) = torrent.counts();
        Some(ScrapeEntry { complete, downloaded: torrent.downloads, incomplete })
    }

    fn stop(&mut self, now: Moment, from: IpAddr, announce: &Announce) -> Answer {
        let Some(slot) = self.find(announce.info_hash) else { return Answer::default() };
        let port = match announce.port {
            0 => self.port_by_id(slot, from, announce.peer_id),
            port => Some(port),
        };
        if let Some(port) = port
            && let Some(place) = self.torrents[slot].find(from, port, &self.hasher)
            && !self.is_foreign(slot, now, from, &Announce { port, ..announce.clone() })
        {
            self.remove(slot, place, GoneWhy::Stopped);
        }
        let (complete, incomplete) = self.torrents[slot].counts();
        self.drop_if_idle(slot);
        Answer { complete, incomplete, ..Answer::default() }
    }

    /// The port of the only peer at an address with this id: some clients do not say their port when
    /// they leave. Torrents with many peers are not searched; theirs expires.
    fn port_by_id(&self, slot: usize, from: IpAddr, peer_id: PeerId) -> Option<u16> {
        let mut found = match &self.torrents[slot].ledger {
            Some(ledger) if ledger.len() > MAX_SEARCHED => return None,
            Some(ledger) => {
                let is_it = |facts: &ledger::Facts| facts.peer_id == Some(peer_id);
                let of_it = ledger.iter().filter(|(_, facts)| is_it(facts));
                of_it.flat_map(|(addr, facts)| [Some(addr), facts.also]).flatten().collect()
            }
            None => self.ids.with_id(slot, peer_id),
        };
        found.retain(|addr| addr.ip() == from);
        match found[..] {
            [addr] => Some(addr.port()),
            _ => None,
        }
    }

    fn peer_id(&self, slot: usize, addr: SocketAddr) -> Option<PeerId> {
        let ledger = self.torrents[slot].ledger.as_ref();
        let known = ledger.and_then(|ledger| ledger.get(addr)?.peer_id);
        known.or_else(|| self.ids.get(slot, addr))
    }

    /// Chooses peers for an asker, counts them as assigned.
    fn choose(
        &mut self,
        slot: usize,
        tick: Tick,
        rng: &mut Rng,
        asker: Option<Place>,
        asker_complete: bool,
        want: Want,
    ) -> Vec<Handed> {
        let alive_since = self.alive_since(tick);
        let balanced = self.config.selection == Selection::Balanced;
        let other = asker.and_then(|asker| self.other_place(slot, asker));
        let torrent = &mut self.torrents[slot];
        let lists =
            Lists { v4: want.v4.then_some(&torrent.v4), v6: want.v6.then_some(&torrent.v6) };
        let candidates = &mut self.candidates;
        let mut seeds = 0;
        // Who may be gone is better than nobody: it may be the tracker that cannot reach anybody.
        for lost in [false, true] {
            let mut look = Look {
                complete: false,
                balanced: false,
                except: [asker, other],
                alive_since,
                count: want.count,
                lost,
            };
            candidates.look(lists, &look, rng);
            let kept = candidates.put_aside(want.count);
            // A seed has nothing to get from a seed.
            let count = if asker_complete { 0 } else { want.count - kept };
            look = Look { complete: true, balanced, count, ..look };
            seeds = candidates.look(lists, &look, rng).len();
            if seeds + candidates.aside().len() > 0 {
                break;
            }
        }
        let chosen = candidates.found().iter().chain(candidates.aside()).take(want.count);
        let mut handed = Vec::with_capacity(want.count.min(seeds + candidates.aside().len()));
        for (at, (_, place)) in chosen.enumerate() {
            let addr = match *place {
                Place::V4(at) => assign(torrent.v4.get_mut(at as usize)),
                Place::V6(at) => assign(torrent.v6.get_mut(at as usize)),
            };
            if let Some(ledger) = &mut torrent.ledger {
                ledger.assign(addr);
            }
            handed.push(Handed { addr, complete: at < seeds });
        }
        handed
    }

    /// Halves a torrent's recent counts if a half-life or more has passed.
    fn halve(&mut self, slot: usize, tick: Tick) {
        let half_life = ticks(self.config.half_life).max(1);
        let torrent = &mut self.torrents[slot];
        let times = (tick.0.saturating_sub(torrent.halved_at.0)) / half_life;
        if times == 0 {
            return;
        }
        torrent.halved_at = Tick(torrent.halved_at.0 + times * half_life);
        torrent.v4.halve(times);
        torrent.v6.halve(times);
        if let Some(ledger) = &mut torrent.ledger {
            ledger.halve(times);
        }
    }

    fn slot_for(
        &mut self,
        tick: Tick,
        rng: &mut Rng,
        from: IpAddr,
        info_hash: InfoHash,
    ) -> Result<usize, Refusal> {
        if let Some(slot) = self.find(info_hash) {
            return Ok(slot);
        }
        if !self.config.open {
            return Err(Refusal::NotCatalogued);
        }
        let opener = self.open_torrent(rng, from)?;
        Ok(self.insert_torrent(tick, info_hash, Some(opener)))
    }

    fn insert_torrent(&mut self, tick: Tick, info_hash: InfoHash, opener: Option<Opener>) -> usize {
        opener.into_iter().for_each(|opener| self.shares.add(opener));
        let slot = self.torrents.insert(Torrent {
            info_hash,
            v4: PeerList::new(),
            v6: PeerList::new(),
            downloads: 0,
            halved_at: tick,
            opener,
            ledger: None,
        });
        let (torrents, hasher) = (&self.torrents, &self.hasher);
        let rehash = |slot: &u32| hash_of(torrents[*slot as usize].info_hash, hasher);
        self.by_hash.insert_unique(hash_of(info_hash, hasher), slot as u32, rehash);
        slot
    }

    fn find(&self, info_hash: InfoHash) -> Option<usize> {
        self.by_hash
            .find(hash_of(info_hash, &self.hasher), |slot| {
                self.torrents[*slot as usize].info_hash == info_hash
            })
            .map(|slot| *slot as usize)
    }

    fn remove(&mut self, slot: usize, place: Place, why: GoneWhy) {
        let torrent = &mut self.torrents[slot];
        let info_hash = torrent.info_hash;
        let (addr, recent) = match place {
            Place::V4(at) => left(torrent.v4.remove(at as usize, &self.hasher)),
            Place::V6(at) => left(torrent.v6.remove(at as usize, &self.hasher)),
        };
        self.peers -= 1;
        self.revision += 1;
        self.ids.forget(slot, addr);
        if let Some(ledger) = &mut torrent.ledger {
            let before = ledger.held_bytes();
            let other = ledger.other(addr);
            if let Some(id) = ledger.left(addr, recent)
                && let Some(watch) = &mut ledger.watch
            {
                watch.gone(Gone { id, addr, why });
            }
            self.held_bytes = self.held_bytes - before + ledger.held_bytes();
            self.sight(Sighting::Left { info_hash, addr });
            if let Some(other) = other {
                self.sight_again(slot, other);
            }
            self.touch_counts(slot);
        }
    }

    /// Forgets a torrent that has neither peers nor a place in the catalogue.
    fn drop_if_idle(&mut self, slot: usize) {
        let torrent = &self.torrents[slot];
        if torrent.ledger.is_some() || torrent.v4.len() + torrent.v6.len() > 0 {
            return;
        }
        let hash = hash_of(torrent.info_hash, &self.hasher);
        if let Ok(entry) = self.by_hash.find_entry(hash, |at| *at == slot as u32) {
            entry.remove();
        }
        if let Some(opener) = self.torrents.remove(slot).opener {
            self.shares.take(opener);
        }
    }

    fn alive_since(&self, tick: Tick) -> Tick {
        Tick(tick.0.saturating_sub(ticks(self.config.expire_after)))
    }
}

fn assign<A: Family>(peer: &mut Packed<A>) -> SocketAddr {
    peer.recent = peer.recent.saturating_add(1);
    peer.addr()
}

fn left<A: Family>(peer: Packed<A>) -> (SocketAddr, u16) {
    (peer.addr(), peer.recent)
}

fn hash_of(info_hash: InfoHash, hasher: &FixedState) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, info_hash.0)
}

fn tick_of(now: Moment) -> Tick {
    Tick(ticks(now.since_start()))
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() * 16 / 1000).unwrap_or(u32::MAX)
}

/// Peers of a torrent that are searched for one without its port: some microseconds.
const MAX_SEARCHED: usize = 1_000;

/// Peers that announced before their torrent was catalogued and are taken in at once: some
/// milliseconds. Others come with their next announce.
const MAX_ADOPTED: usize = 10_000;
