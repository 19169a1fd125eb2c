//! How peers are taken out for a restart of the tracker, and put back after it.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{Bitfield, Moment, Rng};

use super::held::{Held, HoldingsSource};
use super::kept::{KeptHeld, KeptOf, KeptPeer, KeptRoom};
use super::ledger::{Facts, Ledger};
use super::peers::{moment_of, tick_of};
use super::registry::Registry;
use super::torrent::Torrent;

impl Registry {
    /// Counts up with every change of what is kept over a restart.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Appends the living peers of some torrents to `out` while there is room, and says where to go
    /// on; `None` at the end. Begins at 0, looks at [`LOOKED_AT`] torrents at a time, or at one with
    /// more peers than that.
    pub fn kept_peers(
        &self,
        now: Moment,
        from: usize,
        of: KeptOf,
        room: &mut KeptRoom,
        out: &mut Vec<KeptPeer>,
    ) -> Option<usize> {
        let alive_since = self.alive_since(tick_of(now));
        let (mut at, mut looked) = (from, 0);
        while at < self.torrents.capacity() && room.peers > 0 {
            if looked >= LOOKED_AT {
                return Some(at);
            }
            looked += 1;
            let is_wanted =
                |torrent: &&Torrent| torrent.ledger.is_some() == (of == KeptOf::Catalogue);
            if let Some(torrent) = self.torrents.get(at).filter(is_wanted) {
                let v4 = torrent.v4.iter().map(|(peer, all)| (peer.addr(), peer.seen, all));
                let v6 = torrent.v6.iter().map(|(peer, all)| (peer.addr(), peer.seen, all));
                let living = v4.chain(v6).filter(|(_, seen, _)| *seen >= alive_since);
                for (addr, seen, complete) in living.take(room.peers) {
                    let silent = now.since(moment_of(seen));
                    let mut kept = self.kept_peer(at, torrent, addr, complete, silent);
                    if let Some(facts) = torrent.ledger.as_ref().and_then(|l| l.get(addr)) {
                        kept.told(now, facts, room);
                    }
                    room.peers -= 1;
                    looked += 1;
                    out.push(kept);
                }
            }
            at += 1;
        }
        None
    }

    fn kept_peer(
        &self,
        slot: usize,
        torrent: &Torrent,
        addr: SocketAddr,
        complete: bool,
        silent: Duration,
    ) -> KeptPeer {
        KeptPeer {
            info_hash: torrent.info_hash,
            addr,
            complete,
            silent,
            reached: false,
            peer_id: self.ids.get(slot, addr),
            key: None,
            left: None,
            held: KeptHeld::Unknown,
            source: None,
            held_for: Duration::ZERO,
        }
    }

    /// Puts a peer back, if it has not been silent for too long and there is room. Whoever observes
    /// is told of it before all others. Returns whether it is there now.
    pub fn restore_peer(&mut self, now: Moment, rng: &mut Rng, kept: &KeptPeer) -> bool {
        if kept.silent > self.config.expire_after || self.peers >= self.config.max_peers {
            return false;
        }
        // Nobody is listed at port 0, whatever a file says: it takes no connections.
        if kept.addr.port() == 0 {
            return false;
        }
        let (ip, port) = (kept.addr.ip().to_canonical(), kept.addr.port());
        let addr = SocketAddr::new(ip, port);
        let seen = now - kept.silent;
        let Ok(slot) = self.slot_for(tick_of(now), rng, ip, kept.info_hash) else { return false };
        let hasher = &self.hasher;
        let torrent = &mut self.torrents[slot];
        if torrent.find(ip, port, hasher).is_some() {
            return true;
        }
        torrent.insert(ip, port, tick_of(seen), kept.complete, hasher);
        self.peers += 1;
        let mut recent = None;
        match &mut torrent.ledger {
            Some(ledger) => {
                let held = held_of(ledger, kept);
                let room = self.config.max_held_bytes.saturating_sub(self.held_bytes);
                let fits = ledger.bytes_for(addr, &held) <= room;
                let before = ledger.held_bytes();
                self.last_id += 1;
                let (held, source) = if fits { (held, kept.source) } else { (Held::Unknown, None) };
                recent = Some(ledger.restored(self.last_id, addr, kept, seen));
                // What is known of a peer by its first address is kept at its second as well.
                if ledger.get(addr).is_some_and(|facts| facts.source.is_none()) {
                    ledger.put(now - kept.held_for, addr, held, source);
                }
                self.held_bytes = self.held_bytes - before + ledger.held_bytes();
            }
            None => {
                if let Some(peer_id) = kept.peer_id {
                    self.ids.keep(slot, addr, peer_id);
                }
            }
        }
        if let Some(place) = torrent.find(ip, port, hasher) {
            torrent.refresh(place, tick_of(seen), kept.complete, recent, hasher);
        }
        let torrent = &mut self.torrents[slot];
        torrent.tell_other(addr, &self.hasher);
        self.touched.add(torrent);
        self.sightings.announced(torrent, addr, Some(kept.reached));
        true
    }
}

impl KeptPeer {
    /// Adds what the ledger knows.
    fn told(&mut self, now: Moment, facts: &Facts, room: &mut KeptRoom) {
        self.peer_id = facts.peer_id.or(self.peer_id);
        (self.key, self.left) = (facts.key, facts.left);
        self.reached = facts.observed.is_some() || facts.source == Some(HoldingsSource::Observed);
        self.held = match &facts.held {
            Held::Unknown => return,
            Held::Everything => KeptHeld::Everything,
            Held::Pieces(held) if held.as_wire().len() > room.bytes => return,
            Held::Pieces(held) => {
                room.bytes -= held.as_wire().len();
                KeptHeld::Pieces(held.as_wire().to_vec())
            }
        };
        (self.source, self.held_for) = (facts.source, now.since(facts.held_at));
    }
}

/// What a kept peer holds; unknown if that is of another torrent than the ledger's.
fn held_of(ledger: &Ledger, kept: &KeptPeer) -> Held {
    match &kept.held {
        _ if kept.source.is_none() => Held::Unknown,
        KeptHeld::Unknown => Held::Unknown,
        KeptHeld::Everything => Held::Everything,
        KeptHeld::Pieces(bytes) => {
            Bitfield::from_wire(bytes, ledger.pieces).map_or(Held::Unknown, Held::of)
        }
    }
}

/// Torrents and peers that are looked at in one go: some 100 µs.
const LOOKED_AT: usize = 1_000;
