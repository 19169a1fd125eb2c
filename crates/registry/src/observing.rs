//! What is known of peers by connections to them.

use std::net::{IpAddr, SocketAddr};

use piecework_core::{Bitfield, InfoHash, Moment, PeerId};

use super::answers::Refusal;
use super::held::{Held, HoldingsSource};
use super::ledger::Facts;
use super::observer::{Sighting, VisitEnd};
use super::peers::{Standing, tick_of};
use super::registry::Registry;
use super::select::Place;
use super::sight::Seen;
use super::watch::GoneWhy;

impl Registry {
    /// A connection to a peer is there.
    ///
    /// # Errors
    /// How the visit ends at once: [`VisitEnd::Unlisted`] if the peer is no longer on the list,
    /// [`VisitEnd::Elsewhere`] if there is a connection to its other address.
    pub fn observing(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        addr: SocketAddr,
        peer_id: PeerId,
    ) -> Result<(), VisitEnd> {
        let facts = self.facts_mut(info_hash, addr).ok_or(VisitEnd::Unlisted)?;
        if facts.is_observed_elsewhere(addr) {
            return Err(VisitEnd::Elsewhere);
        }
        facts.observed = Some((addr, peer_id));
        facts.heard = facts.heard.max(now);
        self.set_closes(info_hash, addr, false);
        Ok(())
    }

    /// Notes whether a peer takes connections, for the choice of whom others get to know.
    pub fn checked(&mut self, info_hash: InfoHash, addr: SocketAddr, reachable: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        let torrent = &mut self.torrents[slot];
        let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher) else { return };
        let standing = if reachable { Standing::Seen } else { Standing::Lost };
        torrent.set_standing(place, standing, &self.hasher);
    }

    /// The connection to a peer is gone.
    pub fn observed_last(&mut self, info_hash: InfoHash, addr: SocketAddr) {
        if let Some(facts) = self.facts_mut(info_hash, addr) {
            facts.observed = facts.observed.filter(|(at, _)| *at != addr);
        }
    }

    /// A visit to a peer is over, and with it the connection if there was one. Keeps whether the peer
    /// closes connections at the handshake, plain and encrypted.
    pub fn visit_ended(&mut self, info_hash: InfoHash, addr: SocketAddr, end: VisitEnd) {
        self.observed_last(info_hash, addr);
        match end {
            VisitEnd::HungUp => self.set_closes(info_hash, addr, true),
            VisitEnd::Refused | VisitEnd::Unanswered | VisitEnd::Declined => {
                self.set_closes(info_hash, addr, false);
            }
            // Nothing was learnt of that, or it was noted when the connection began.
            VisitEnd::Closed
            | VisitEnd::Probed
            | VisitEnd::Elsewhere
            | VisitEnd::Ours
            | VisitEnd::NoRoom
            | VisitEnd::Unlisted => {}
        }
    }

    fn set_closes(&mut self, info_hash: InfoHash, addr: SocketAddr, closes: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        let Some(ledger) = &mut self.torrents[slot].ledger else { return };
        let Some(facts) = ledger.get_mut(addr).filter(|facts| facts.closes != closes) else {
            return;
        };
        facts.closes = closes;
        if let Some(watch) = &mut ledger.watch {
            watch.row(addr);
        }
    }

    /// Notes what a peer showed over the connection to it, in order. What it reports itself goes
    /// above that: it is as fresh, and whole.
    ///
    /// # Errors
    /// If it is no longer on the list, or there is no room for its bitfield.
    pub fn observed(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        addr: SocketAddr,
        seen: Vec<Seen>,
    ) -> Result<(), Refusal> {
        let slot = self.find(info_hash).ok_or(Refusal::NotCatalogued)?;
        for seen in seen {
            let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
            let pieces = ledger.pieces;
            let facts = ledger.get_mut(addr).ok_or(Refusal::UnknownPeer(addr))?;
            facts.heard = facts.heard.max(now);
            if facts.source == Some(HoldingsSource::Reported) {
                continue;
            }
            let held = match (seen, &facts.held) {
                (Seen::Everything, _) => Held::Everything,
                (Seen::Only(bits), _) => Held::of(bits),
                // There is nothing that this could add, whoever says that it has everything.
                (Seen::Also(_) | Seen::Piece(_), Held::Everything) => continue,
                (Seen::Also(bits), Held::Pieces(held)) => {
                    let mut all = held.clone();
                    bits.iter().for_each(|piece| _ = all.insert(piece));
                    Held::of(all)
                }
                (Seen::Piece(piece), Held::Pieces(_)) => {
                    let before = ledger.held_bytes();
                    self.revision += 1;
                    ledger.got(now, addr, piece);
                    self.held_bytes = self.held_bytes - before + ledger.held_bytes();
                    continue;
                }
                (Seen::Piece(piece), _) => {
                    let mut bits = Bitfield::empty(pieces);
                    bits.insert(piece);
                    Held::of(bits)
                }
                (Seen::Also(bits), _) => Held::of(bits),
            };
            self.tell(now, slot, addr, held, HoldingsSource::Observed)?;
        }
        Ok(())
    }

    /// A peer was seen to be alive: it does not expire for now, even if its announce is late, but
    /// not for ever. Says whether it is on the list.
    pub fn alive(&mut self, now: Moment, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let most = self.config.expire_after.saturating_mul(KEPT_ALIVE);
        let Some(slot) = self.find(info_hash) else { return false };
        let torrent = &mut self.torrents[slot];
        let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher) else { return false };
        let Some(facts) = torrent.ledger.as_mut().and_then(|ledger| ledger.get_mut(addr)) else {
            return false;
        };
        facts.heard = facts.heard.max(now);
        if now.since(facts.announced) > most {
            return true;
        }
        let tick = tick_of(now);
        match place {
            Place::V4(at) => {
                let peer = torrent.v4.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
            Place::V6(at) => {
                let peer = torrent.v6.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
        }
        true
    }

    /// Whether a peer of a catalogued torrent is on the list.
    pub fn is_listed(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.get(addr).is_some())
    }

    /// Whether a peer is known to hold everything.
    pub fn holds_everything(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let ledger = self.catalogued(info_hash).map(|(_, ledger)| ledger);
        ledger.and_then(|ledger| ledger.get(addr)).is_some_and(|f| f.held == Held::Everything)
    }

    /// A peer that was observed refuses connections: it is taken off the list. Says whether it was
    /// on it.
    pub fn unreachable(&mut self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let place = self.torrents[slot].find(addr.ip(), addr.port(), &self.hasher);
        if let Some(place) = place {
            self.remove(slot, place, GoneWhy::Unreachable);
            self.drop_if_idle(slot);
            self.unreachable += 1;
        }
        place.is_some()
    }

    /// Whether a peer may be connected to from our address `from` without being in the way: many
    /// clients take one connection from an address, so that we would keep away the other peers of
    /// the torrent that are there.
    ///
    /// # Errors
    /// How the visit ends at once: [`VisitEnd::Unlisted`] if nobody is to be observed there, which
    /// does not change by waiting, [`VisitEnd::Elsewhere`] if we are connected to its other address, and
    /// [`VisitEnd::NoRoom`] if we would be in the way for now.
    pub fn may_observe(
        &self,
        info_hash: InfoHash,
        addr: SocketAddr,
        from: IpAddr,
    ) -> Result<(), VisitEnd> {
        let slot = self.find(info_hash).ok_or(VisitEnd::Unlisted)?;
        let torrent = &self.torrents[slot];
        let ledger = torrent.ledger.as_ref().filter(|ledger| ledger.observe);
        let facts = ledger.and_then(|ledger| ledger.get(addr)).ok_or(VisitEnd::Unlisted)?;
        if facts.is_observed_elsewhere(addr) {
            return Err(VisitEnd::Elsewhere);
        }
        if facts.peer_id.is_some_and(takes_several) {
            return Ok(());
        }
        let from = from.to_canonical();
        // At its own address a peer is not another.
        let port = (addr.ip() == from).then_some(addr.port());
        let in_way = match from {
            IpAddr::V4(ip) => torrent.v4.has_at(ip.octets(), port, &self.hasher),
            IpAddr::V6(ip) => torrent.v6.has_at(ip.octets(), port, &self.hasher),
        };
        if in_way { Err(VisitEnd::NoRoom) } else { Ok(()) }
    }

    /// Whether the torrent's peers may be connected to.
    pub fn set_observe(&mut self, info_hash: InfoHash, observe: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.observe = observe;
        }
    }

    /// Whether the torrent's peers may be connected to; `false` if it is not catalogued.
    pub fn is_observed(&self, info_hash: InfoHash) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.observe)
    }

    /// Moves the sightings since the last call to `out`. There are some only if the configuration
    /// asks for them, and no more than a bounded number between two calls.
    pub fn take_sightings(&mut self, out: &mut Vec<Sighting>) {
        self.sightings.take(out);
    }

    fn facts_mut(&mut self, info_hash: InfoHash, addr: SocketAddr) -> Option<&mut Facts> {
        let slot = self.find(info_hash)?;
        self.torrents[slot].ledger.as_mut()?.get_mut(addr)
    }
}

/// Clients of which we know that they take several connections from one address.
pub fn takes_several(id: PeerId) -> bool {
    id.0.starts_with(b"-PW") || id.0.starts_with(b"A2-")
}

/// Times of silence for which a peer may be kept alive without an announce.
const KEPT_ALIVE: u32 = 10;
