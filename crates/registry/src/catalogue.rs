//! Torrents that are catalogued, and the load of their peers.

use piecework_core::{InfoHash, Moment};

use super::ledger::Ledger;
use super::peers::tick_of;
use super::registry::Registry;
use super::view::{LoadEntry, loads};
use super::watch::GoneWhy;

impl Registry {
    /// Keeps rich facts about a torrent's peers from now on, and the torrent even without peers.
    /// `downloads` is what was counted before a restart. Does nothing to a catalogued torrent.
    pub fn catalogue(&mut self, now: Moment, info_hash: InfoHash, pieces: u32, downloads: u32) {
        let slot = match self.find(info_hash) {
            Some(slot) => slot,
            None => self.insert_torrent(tick_of(now), info_hash, None),
        };
        if let Some(opener) = self.torrents[slot].opener.take() {
            self.openers.take(opener);
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
        self.touched.add(&self.torrents[slot]);
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
                loads(torrent)
            } else {
                continue;
            };
            changed.push((torrent.info_hash, torrent.downloads, loads));
        }
        changed
    }
}

/// Peers that announced before their torrent was catalogued and are taken in at once: some
/// milliseconds. Others come with their next announce.
const MAX_ADOPTED: usize = 10_000;
