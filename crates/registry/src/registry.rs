//! The registry itself: announces, the catalogue, and what is kept over restarts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use piecework_core::{InfoHash, Moment, PeerId, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent, ScrapeEntry};

use super::answers::{Answer, Refusal, Want};
use super::config::RegistryConfig;
use super::guesses::Guesses;
use super::holdings::Sighting;
use super::ledger::{self, Ledger};
use super::peer_ids::PeerIds;
use super::peers::{Tick, tick_of};
use super::select::Candidates;
use super::shares::Shares;
use super::torrent::Torrent;
use super::view::{self, LoadEntry};
use super::watch::GoneWhy;

/// The torrents and peers of a tracker, or of one shard of it.
pub struct Registry {
    pub(super) config: RegistryConfig,
    pub(super) torrents: Slab<Torrent>,
    pub(super) by_hash: HashTable<u32>,
    pub(super) hasher: FixedState,
    pub(super) seed: u64,
    pub(super) peers: usize,
    pub(super) held_bytes: usize,
    pub(super) guesses: Guesses,
    /// Keys that came with the id of another peer, counted apart: clients that have a key for each of
    /// their addresses guess nothing.
    pub(super) joins: Guesses,
    pub(super) shares: Shares,
    pub(super) expired: u64,
    pub(super) unreachable: u64,
    pub(super) ids: PeerIds,
    /// Changes so far of what is kept over a restart.
    pub(super) revision: u64,
    /// The number given to a peer last.
    pub(super) last_id: u64,
    pub(super) sightings: Vec<Sighting>,
    /// Catalogued torrents whose counts have changed, while somebody wants to know.
    pub(super) touched: Option<BTreeSet<InfoHash>>,
    pub(super) cursor: Cursor,
    pub(super) candidates: Candidates,
}

/// How far the walk of [`Registry::expire`] has come: it goes through the torrents upwards, and
/// through each one's peers downwards, so that a removal only moves peers it has already seen.
#[derive(Default)]
pub(super) struct Cursor {
    pub(super) torrent: usize,
    /// Peers left to look at in each family, `None` before the torrent is begun.
    pub(super) left: Option<(usize, usize)>,
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

    pub(super) fn peer_id(&self, slot: usize, addr: SocketAddr) -> Option<PeerId> {
        let ledger = self.torrents[slot].ledger.as_ref();
        let known = ledger.and_then(|ledger| ledger.get(addr)?.peer_id);
        known.or_else(|| self.ids.get(slot, addr))
    }
}

/// Peers of a torrent that are searched for one without its port: some microseconds.
const MAX_SEARCHED: usize = 1_000;

/// Peers that announced before their torrent was catalogued and are taken in at once: some
/// milliseconds. Others come with their next announce.
const MAX_ADOPTED: usize = 10_000;
