//! Who may open a torrent: on an open tracker, torrents that are not in the catalogue are shared out
//! among the networks that announce them first.

use std::net::IpAddr;

use piecework_core::{InfoHash, Rng};

use super::answers::Refusal;
use super::openers::Opener;
use super::peers::Tick;
use super::registry::Registry;
use super::watch::GoneWhy;

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

    /// Finds room for a torrent that `from` is the first to announce. When there is none, a small torrent
    /// of a network that has more of them makes way.
    ///
    /// # Errors
    /// If the network has as many as it may have, or no other has more.
    pub(super) fn open_torrent(&mut self, rng: &mut Rng, from: IpAddr) -> Result<Opener, Refusal> {
        let opener = self.openers.opener(from);
        let here = self.openers.of(opener);
        let most = self.config.max_torrents_per_ip;
        // Whoever runs the tracker may run what they like beside it.
        if here as usize >= most && !from.is_loopback() {
            return Err(Refusal::TooManyTorrents(most));
        }
        if self.torrents.len() >= self.config.max_torrents && !self.make_way(rng, opener, here) {
            return Err(Refusal::Full);
        }
        Ok(opener)
    }

    /// Forgets a torrent that is not in the catalogue, with all its peers. Returns whether there was one.
    pub fn forget(&mut self, info_hash: InfoHash) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        if self.torrents[slot].ledger.is_some() {
            return false;
        }
        self.clear(slot);
        true
    }

    /// Looks at some torrents, and forgets the one of the network that has the most, if that is
    /// another one with more than `asker`, or this one.
    fn make_way(&mut self, rng: &mut Rng, asker: Opener, here: u32) -> bool {
        let slots = self.torrents.capacity() as u64;
        let looked = (0..LOOKS).filter_map(|_| {
            let slot = rng.below(slots) as usize;
            let torrent = self.torrents.get(slot)?;
            // Where more meet, it is no longer one network's.
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
            self.remove(slot, place, GoneWhy::Expired);
        }
        self.drop_if_idle(slot);
    }
}

/// Torrents looked at to find one that makes way. Of a table of which a network has a quarter, it finds one
/// 99 times out of 100.
const LOOKS: usize = 16;

/// Peers of a torrent that may make way, at most.
const SMALL: usize = 8;
