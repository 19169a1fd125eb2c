//! Who may open a torrent. On an open tracker, the room for torrents outside the catalogue is divided among the
//! networks that announce them first.

use piecework_core::SaturatingFrom;
use std::net::IpAddr;

use piecework_core::{InfoHash, Rng};

use super::answers::Refusal;
use super::openers::Opener;
use super::peers::Tick;
use super::registry::Registry;
use super::watch::DepartureCause;

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

    /// Makes room for a torrent that `from` is the first to announce. If the table is full, removes a small torrent
    /// of a network that has more torrents.
    ///
    /// # Errors
    /// If the network has reached its limit, or the table is full and no other network has more torrents.
    pub(super) fn open_torrent(&mut self, rng: &mut Rng, from: IpAddr) -> Result<Opener, Refusal> {
        let opener = self.openers.opener(from);
        let here = self.openers.of(opener);
        let most = self.config.max_torrents_per_ip;
        // Programs on the tracker's own machine are exempt.
        if here as usize >= most && !from.is_loopback() {
            return Err(Refusal::TooManyTorrents(most));
        }
        if self.torrents.len() >= self.config.max_torrents && !self.make_way(rng, opener, here) {
            return Err(Refusal::Full);
        }
        Ok(opener)
    }

    /// Removes a torrent that is not in the catalogue, with all its peers. Returns whether there was one.
    pub fn forget(&mut self, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        if self.torrents[slot].ledger.is_some() {
            return false;
        }
        self.clear(slot);
        true
    }

    /// Examines some random torrents and removes the one whose network has the most, if that network has more than
    /// `asker` or is `asker` itself. Returns whether a torrent was removed.
    fn make_way(&mut self, rng: &mut Rng, asker: Opener, here: u32) -> bool {
        let slots = self.torrents.capacity() as u64;
        let looked = (0..LOOKS).filter_map(|_| {
            let slot = usize::saturating_from(rng.below(slots));
            let torrent = self.torrents.get(slot)?;
            // A larger torrent is used by more than one network.
            let opener = torrent.opener?;
            let small = torrent.v4.len() + torrent.v6.len() <= SMALL;
            let torrents = self.openers.of(opener);
            (small && (torrents > here || opener == asker)).then_some((torrents, slot))
        });
        let Some((_, slot)) = looked.max() else { return false };
        self.clear(slot);
        true
    }

    fn clear(&mut self, slot: usize) {
        while let Some(place) = self.torrents[slot].last_place() {
            self.remove(slot, place, DepartureCause::Expired);
        }
        self.drop_if_idle(slot);
    }
}

/// The number of torrents examined to find one to remove. If a network has a quarter of the table, 16 random
/// torrents include one of them 99 times out of 100.
const LOOKS: usize = 16;

/// The maximum number of peers of a torrent that may be removed.
const SMALL: usize = 8;
