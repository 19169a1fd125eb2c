//! Torrents that are catalogued, and the load of their peers.

use piecework_core::{InfoHash, Moment};

use super::ledger::Ledger;
use super::peers::tick_of;
use super::registry::Registry;
use super::view::{LoadEntry, loads};
use super::watch::DepartureCause;

impl Registry {
    /// Starts a ledger for a torrent, which is then kept even without peers. `downloads` is the count from before
    /// a restart. Does nothing if the torrent is already catalogued.
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
        self.changed_counts.add(&self.torrents[slot]);
    }

    /// Drops a torrent's ledger. On an open tracker its peers stay.
    pub fn uncatalogue(&mut self, info_hash: InfoHash) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = self.torrents[slot].ledger.take() {
            self.held_bytes -= ledger.held_bytes();
        }
        if !self.config.open {
            while let Some(place) = self.torrents[slot].last_place() {
                self.remove(slot, place, DepartureCause::Stopped);
            }
        }
        self.drop_if_idle(slot);
    }

    /// Restores the load that a peer of a catalogued torrent had before a restart. It applies when the peer
    /// announces.
    pub fn restore_load(&mut self, entry: &LoadEntry) {
        let Some(slot) = self.find(entry.info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger
            && ledger.get(entry.peer).is_none()
        {
            ledger.remember(entry.peer, entry.assigned);
        }
    }

    /// Returns what has to be saved for a restart and has changed since the last call. Each entry has a torrent's
    /// info-hash, its downloads, and the load of all its peers.
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

/// The maximum number of peers that a new ledger takes over from the list of an uncatalogued torrent: some
/// milliseconds of work. Other peers enter the ledger with their next announce.
const MAX_ADOPTED: usize = 10_000;
