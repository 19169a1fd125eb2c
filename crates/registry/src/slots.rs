//! Where torrents and peers are kept: found, added and removed.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;

use piecework_core::{InfoHash, Rng};

use super::answers::Refusal;
use super::holdings::Sighting;
use super::peers::{Family, Packed, PeerList, Tick};
use super::registry::Registry;
use super::select::Place;
use super::shares::Opener;
use super::torrent::Torrent;
use super::watch::{Gone, GoneWhy};

impl Registry {
    pub(super) fn slot_for(
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

    pub(super) fn insert_torrent(
        &mut self,
        tick: Tick,
        info_hash: InfoHash,
        opener: Option<Opener>,
    ) -> usize {
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
            self.sight(Sighting::Left { info_hash, addr });
            if let Some(other) = other {
                self.sight_again(slot, other);
            }
            self.touch_counts(slot);
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
            self.shares.take(opener);
        }
    }
}

fn left<A: Family>(peer: Packed<A>) -> (SocketAddr, u16) {
    (peer.addr(), peer.recent)
}

fn hash_of(info_hash: InfoHash, hasher: &FixedState) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, info_hash.0)
}
