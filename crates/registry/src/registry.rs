//! The registry itself: where torrents and peers are found, added and removed.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use piecework_core::{InfoHash, Moment};

use super::answers::Refusal;
use super::config::RegistryConfig;
use super::guesses::Guesses;
use super::held::{Held, HoldingsSource};
use super::ledger::Ledger;
use super::observer::Sighting;
use super::openers::{Opener, Openers};
use super::peer_ids::PeerIds;
use super::peers::{Family, Packed, PeerList, Tick, ticks};
use super::select::{Candidates, Place};
use super::sightings::Sightings;
use super::torrent::Torrent;
use super::touched::Touched;
use super::watch::{Gone, GoneWhy};

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
    pub(super) openers: Openers,
    pub(super) expired: u64,
    pub(super) unreachable: u64,
    pub(super) ids: PeerIds,
    /// Changes so far of what is kept over a restart.
    pub(super) revision: u64,
    /// The number given to a peer last.
    pub(super) last_id: u64,
    pub(super) sightings: Sightings,
    pub(super) touched: Touched,
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
        let sightings = Sightings::new(config.observe);
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
            openers: Openers::new(seed),
            expired: 0,
            unreachable: 0,
            ids: PeerIds::new(seed),
            revision: 0,
            last_id: 0,
            sightings,
            touched: Touched::default(),
            cursor: Cursor::default(),
            candidates: Candidates::default(),
        }
    }

    /// What this registry was told to do.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub(super) fn alive_since(&self, tick: Tick) -> Tick {
        Tick(tick.0.saturating_sub(ticks(self.config.expire_after)))
    }

    pub(super) fn insert_torrent(
        &mut self,
        tick: Tick,
        info_hash: InfoHash,
        opener: Option<Opener>,
    ) -> usize {
        opener.into_iter().for_each(|opener| self.openers.add(opener));
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

    pub(super) fn find(&self, info_hash: InfoHash) -> Option<usize> {
        self.by_hash
            .find(hash_of(info_hash, &self.hasher), |slot| {
                self.torrents[*slot as usize].info_hash == info_hash
            })
            .map(|slot| *slot as usize)
    }

    pub(super) fn remove(&mut self, slot: usize, place: Place, why: GoneWhy) {
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
            self.sightings.push(Sighting::Left { info_hash, addr });
            if let Some(other) = other {
                self.sightings.again(torrent, other);
            }
            self.touched.add(torrent);
        }
    }

    /// Forgets a torrent that has neither peers nor a place in the catalogue.
    pub(super) fn drop_if_idle(&mut self, slot: usize) {
        let torrent = &self.torrents[slot];
        if torrent.ledger.is_some() || torrent.v4.len() + torrent.v6.len() > 0 {
            return;
        }
        let hash = hash_of(torrent.info_hash, &self.hasher);
        if let Ok(entry) = self.by_hash.find_entry(hash, |at| *at == slot as u32) {
            entry.remove();
        }
        if let Some(opener) = self.torrents.remove(slot).opener {
            self.openers.take(opener);
        }
    }

    pub(super) fn catalogued(&self, info_hash: InfoHash) -> Option<(&Torrent, &Ledger)> {
        let torrent = &self.torrents[self.find(info_hash)?];
        Some((torrent, torrent.ledger.as_deref()?))
    }

    /// Puts what a peer holds by its own word in its place, if there is room.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        slot: usize,
        addr: SocketAddr,
        held: Held,
        source: HoldingsSource,
    ) -> Result<(), Refusal> {
        let most = self.config.max_held_bytes;
        let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
        let more = ledger.bytes_for(addr, &held);
        if more > 0 && self.held_bytes + more > most {
            return Err(Refusal::Full);
        }
        let before = ledger.held_bytes();
        self.revision += 1;
        ledger.told(now, addr, held, source);
        self.held_bytes = self.held_bytes - before + ledger.held_bytes();
        Ok(())
    }
}

fn left<A: Family>(peer: Packed<A>) -> (SocketAddr, u16) {
    (peer.addr(), peer.recent)
}

fn hash_of(info_hash: InfoHash, hasher: &FixedState) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, info_hash.0)
}
