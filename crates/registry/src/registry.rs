//! The registry's tables: finding, adding and removing torrents and peers.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use piecework_core::{InfoHash, Moment};

use super::answers::Refusal;
use super::changed_counts::ChangedCounts;
use super::config::RegistryConfig;
use super::guesses::Guesses;
use super::holdings::{Holdings, HoldingsSource};
use super::ledger::Ledger;
use super::observer::ObserverEvent;
use super::observer_events::ObserverEvents;
use super::openers::{Opener, Openers};
use super::peer_ids::PeerIds;
use super::peers::{Family, Packed, PeerList, Tick, ticks};
use super::select::{Candidates, PeerPosition};
use super::torrent::{RareList, Torrent};
use super::watch::{Departure, DepartureCause};

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
    /// Wrong keys that came with the id of another peer. Counted separately, because a client that has a different
    /// key at each of its addresses does not guess.
    pub(super) joins: Guesses,
    pub(super) openers: Openers,
    pub(super) expired: u64,
    pub(super) unreachable: u64,
    pub(super) ids: PeerIds,
    /// The number of changes to what is saved for a restart.
    pub(super) revision: u64,
    /// The last number that was given to a peer.
    pub(super) last_id: u64,
    pub(super) observer_events: ObserverEvents,
    pub(super) changed_counts: ChangedCounts,
    pub(super) cursor: ExpiryCursor,
    pub(super) candidates: Candidates,
}

/// The progress of [`Registry::expire`]. It visits the torrents upwards and the peers of each torrent downwards, so
/// that a removal moves only peers that it has already examined.
#[derive(Default)]
pub(super) struct ExpiryCursor {
    pub(super) torrent: usize,
    /// The number of peers of each family that are left to examine; `None` before the torrent is begun.
    pub(super) left: Option<(usize, usize)>,
    /// When the peers that were examined and stay were last seen: a lower bound.
    pub(super) oldest: Option<Tick>,
}

impl Registry {
    /// Returns an empty registry. `seed` keys its hash tables: random in a service, fixed in a simulation.
    pub fn new(config: RegistryConfig, seed: u64) -> Self {
        let observer_events = ObserverEvents::new(config.observe);
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
            observer_events,
            changed_counts: ChangedCounts::default(),
            cursor: ExpiryCursor::default(),
            candidates: Candidates::default(),
        }
    }

    /// Returns the registry's settings.
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
            v6: RareList::default(),
            oldest: Tick(u32::MAX),
            downloads: 0,
            halved_at: tick,
            opener,
            ledger: None,
        });
        let (torrents, hasher) = (&self.torrents, &self.hasher);
        let rehash = |slot: &u32| hash_of(torrents[*slot as usize].info_hash, hasher);
        self.by_hash.insert_unique(hash_of(info_hash, hasher), u32::saturating_from(slot), rehash);
        slot
    }

    pub(super) fn find(&self, info_hash: InfoHash) -> Option<usize> {
        self.by_hash
            .find(hash_of(info_hash, &self.hasher), |slot| {
                self.torrents[*slot as usize].info_hash == info_hash
            })
            .map(|slot| *slot as usize)
    }

    pub(super) fn remove(&mut self, slot: usize, place: PeerPosition, why: DepartureCause) {
        let torrent = &mut self.torrents[slot];
        let info_hash = torrent.info_hash;
        let (addr, recent) = match place {
            PeerPosition::V4(at) => left(torrent.v4.remove(at as usize, &self.hasher)),
            PeerPosition::V6(at) => left(torrent.v6.remove(at as usize, &self.hasher)),
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
                watch.gone(Departure { id, addr, why });
            }
            self.held_bytes = self.held_bytes - before + ledger.held_bytes();
            self.observer_events.push(ObserverEvent::Left { info_hash, addr });
            if let Some(other) = other {
                self.observer_events.again(torrent, other);
            }
            self.changed_counts.add(torrent);
        }
    }

    /// Removes a torrent that has no peers and is not catalogued.
    pub(super) fn drop_if_idle(&mut self, slot: usize) {
        let torrent = &self.torrents[slot];
        if torrent.ledger.is_some() || torrent.v4.len() + torrent.v6.len() > 0 {
            return;
        }
        let hash = hash_of(torrent.info_hash, &self.hasher);
        if let Ok(entry) = self.by_hash.find_entry(hash, |at| *at == u32::saturating_from(slot)) {
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

    /// Records a peer's reported or observed holdings, if there is room.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        slot: usize,
        addr: SocketAddr,
        held: Holdings,
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

pub(super) fn hash_of(info_hash: InfoHash, hasher: &FixedState) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, info_hash.0)
}
