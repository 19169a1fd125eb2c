//! Saving peers for a restart of the tracker, and restoring them.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{Bitfield, Moment, Rng};

use super::holdings::{Holdings, HoldingsSource};
use super::kept::{KeptHoldings, KeptPeer, KeptRoom, KeptScope};
use super::ledger::{Ledger, PeerFacts};
use super::peers::{moment_of, tick_of};
use super::registry::Registry;
use super::torrent::Torrent;

impl Registry {
    /// Returns a number that increases with every change of what is saved for a restart.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Appends the live peers of some torrents to `out` while there is room. Begins at `from`, which is 0 for the
    /// first call, and returns where to continue; `None` at the end. A call examines [`LOOKED_AT`] torrents and
    /// peers, or one torrent with more peers than that.
    pub fn kept_peers(
        &self,
        now: Moment,
        from: usize,
        of: KeptScope,
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
                |torrent: &&Torrent| torrent.ledger.is_some() == (of == KeptScope::Catalogue);
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
            held: KeptHoldings::Unknown,
            source: None,
            held_for: Duration::ZERO,
        }
    }

    /// Restores a peer, unless it has expired or there is no room. The observer visits restored peers before all
    /// others. Returns whether the peer is listed now.
    pub fn restore_peer(&mut self, now: Moment, rng: &mut Rng, kept: &KeptPeer) -> bool {
        if kept.silent > self.config.expire_after || self.peers >= self.config.max_peers {
            return false;
        }
        // A peer at port 0 accepts no connections and is not listed, even if the file has one.
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
                let (held, source) =
                    if fits { (held, kept.source) } else { (Holdings::Unknown, None) };
                recent = Some(ledger.restored(self.last_id, addr, kept, seen));
                // The file has the same facts at both addresses of a peer; the first one restores them.
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
        self.changed_counts.add(torrent);
        self.observer_events.announced(torrent, addr, Some(kept.reached));
        true
    }
}

impl KeptPeer {
    /// Adds the facts of the ledger.
    fn told(&mut self, now: Moment, facts: &PeerFacts, room: &mut KeptRoom) {
        self.peer_id = facts.peer_id.or(self.peer_id);
        (self.key, self.left) = (facts.key, facts.left);
        self.reached = facts.observed.is_some() || facts.source == Some(HoldingsSource::Observed);
        self.held = match &facts.held {
            Holdings::Unknown => return,
            Holdings::Everything => KeptHoldings::Everything,
            Holdings::Pieces(held) if held.as_wire().len() > room.bytes => return,
            Holdings::Pieces(held) => {
                room.bytes -= held.as_wire().len();
                KeptHoldings::Pieces(held.as_wire().to_vec())
            }
        };
        (self.source, self.held_for) = (facts.source, now.since(facts.held_at));
    }
}

/// Returns the holdings of a saved peer; unknown if the bitfield does not fit the torrent.
fn held_of(ledger: &Ledger, kept: &KeptPeer) -> Holdings {
    match &kept.held {
        _ if kept.source.is_none() => Holdings::Unknown,
        KeptHoldings::Unknown => Holdings::Unknown,
        KeptHoldings::Everything => Holdings::Everything,
        KeptHoldings::Pieces(bytes) => {
            Bitfield::from_wire(bytes, ledger.pieces).map_or(Holdings::Unknown, Holdings::of)
        }
    }
}

/// The number of torrents and peers examined in one call: some 100 µs.
const LOOKED_AT: usize = 1_000;
