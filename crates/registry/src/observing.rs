//! What the registry learns from connections to peers.

use std::net::{IpAddr, SocketAddr};

use piecework_core::{Bitfield, InfoHash, Moment, PeerId};

use super::answers::Refusal;
use super::holdings::{Holdings, HoldingsSource};
use super::ledger::PeerFacts;
use super::observed_bitfield::HoldingsUpdate;
use super::observer::{ObserverEvent, VisitEnd};
use super::peers::{Reachability, tick_of};
use super::registry::Registry;
use super::select::PeerPosition;
use super::watch::DepartureCause;

impl Registry {
    /// Records that the observer is connected to a peer.
    ///
    /// # Errors
    /// If the visit has to end: [`VisitEnd::Unlisted`] if the peer is no longer listed, [`VisitEnd::Elsewhere`] if
    /// the observer is connected to its other address.
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

    /// Records whether a peer accepts connections. The selection of peers depends on it.
    pub fn checked(&mut self, info_hash: InfoHash, addr: SocketAddr, reachable: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        let torrent = &mut self.torrents[slot];
        let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher) else { return };
        let reachability = if reachable { Reachability::Seen } else { Reachability::Lost };
        torrent.set_reachability(place, reachability, &self.hasher);
    }

    /// Records that the connection to a peer has ended.
    pub fn observed_last(&mut self, info_hash: InfoHash, addr: SocketAddr) {
        if let Some(facts) = self.facts_mut(info_hash, addr) {
            facts.observed = facts.observed.filter(|(at, _)| *at != addr);
        }
    }

    /// Records how a visit to a peer ended, and whether the peer closes connections during the handshake, plain and
    /// encrypted.
    pub fn visit_ended(&mut self, info_hash: InfoHash, addr: SocketAddr, end: VisitEnd) {
        self.observed_last(info_hash, addr);
        match end {
            VisitEnd::HungUp => self.set_closes(info_hash, addr, true),
            VisitEnd::Refused | VisitEnd::Unanswered | VisitEnd::Declined => {
                self.set_closes(info_hash, addr, false);
            }
            // These say nothing about the handshake, or it was recorded when the connection began.
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

    /// Records what a peer sent about its holdings over a connection, in order. Reports of the peer take precedence:
    /// they are as recent, and complete.
    ///
    /// # Errors
    /// If the peer is no longer listed, or there is no room for its bitfield.
    pub fn observed(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        addr: SocketAddr,
        seen: Vec<HoldingsUpdate>,
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
                (HoldingsUpdate::Everything, _) => Holdings::Everything,
                (HoldingsUpdate::Only(bits), _) => Holdings::of(bits),
                // Nothing can be added to a peer that holds everything.
                (HoldingsUpdate::Also(_) | HoldingsUpdate::Piece(_), Holdings::Everything) => {
                    continue;
                }
                (HoldingsUpdate::Also(bits), Holdings::Pieces(held)) => {
                    let mut all = held.clone();
                    bits.iter().for_each(|piece| _ = all.insert(piece));
                    Holdings::of(all)
                }
                (HoldingsUpdate::Piece(piece), Holdings::Pieces(_)) => {
                    let before = ledger.held_bytes();
                    self.revision += 1;
                    ledger.got(now, addr, piece);
                    self.held_bytes = self.held_bytes - before + ledger.held_bytes();
                    continue;
                }
                (HoldingsUpdate::Piece(piece), _) => {
                    let mut bits = Bitfield::empty(pieces);
                    bits.insert(piece);
                    Holdings::of(bits)
                }
                (HoldingsUpdate::Also(bits), _) => Holdings::of(bits),
            };
            self.tell(now, slot, addr, held, HoldingsSource::Observed)?;
        }
        Ok(())
    }

    /// Records that a peer is alive. Postpones its expiry if its announce is late, up to a limit. Returns whether
    /// the peer is listed.
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
            PeerPosition::V4(at) => {
                let peer = torrent.v4.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
            PeerPosition::V6(at) => {
                let peer = torrent.v6.get_mut(at as usize);
                peer.seen = peer.seen.max(tick);
            }
        }
        true
    }

    /// Returns whether a peer of a catalogued torrent is listed.
    pub fn is_listed(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.get(addr).is_some())
    }

    /// Returns whether a peer is known to hold every piece.
    pub fn holds_everything(&self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let ledger = self.catalogued(info_hash).map(|(_, ledger)| ledger);
        ledger.and_then(|ledger| ledger.get(addr)).is_some_and(|f| f.held == Holdings::Everything)
    }

    /// Removes a peer that was observed and now refuses connections. Returns whether it was listed.
    pub fn unreachable(&mut self, info_hash: InfoHash, addr: SocketAddr) -> bool {
        let Some(slot) = self.find(info_hash) else { return false };
        let place = self.torrents[slot].find(addr.ip(), addr.port(), &self.hasher);
        if let Some(place) = place {
            self.remove(slot, place, DepartureCause::Unreachable);
            self.drop_if_idle(slot);
            self.unreachable += 1;
        }
        place.is_some()
    }

    /// Checks whether the observer may connect to a peer from its address `from`. Many clients accept only one
    /// connection from an address, so that the observer would block other peers of the torrent at `from`.
    ///
    /// # Errors
    /// If the visit has to end: [`VisitEnd::Unlisted`] if no peer may be observed there, [`VisitEnd::Elsewhere`] if
    /// the observer is connected to its other address, and [`VisitEnd::NoRoom`] if it would block another peer for
    /// now.
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
        // A peer at `from` itself does not count as another peer.
        let port = (addr.ip() == from).then_some(addr.port());
        let in_way = match from {
            IpAddr::V4(ip) => torrent.v4.has_at(ip.octets(), port, &self.hasher),
            IpAddr::V6(ip) => torrent.v6.has_at(ip.octets(), port, &self.hasher),
        };
        if in_way { Err(VisitEnd::NoRoom) } else { Ok(()) }
    }

    /// Sets whether the observer may connect to the torrent's peers.
    pub fn set_observe(&mut self, info_hash: InfoHash, observe: bool) {
        let Some(slot) = self.find(info_hash) else { return };
        if let Some(ledger) = &mut self.torrents[slot].ledger {
            ledger.observe = observe;
        }
    }

    /// Returns whether the observer may connect to the torrent's peers; `false` if the torrent is not catalogued.
    pub fn is_observed(&self, info_hash: InfoHash) -> bool {
        self.catalogued(info_hash).is_some_and(|(_, ledger)| ledger.observe)
    }

    /// Moves the events for the observer since the last call to `out`. There are events only if
    /// [`RegistryConfig::observe`](crate::RegistryConfig::observe) is set, and a bounded number between two calls.
    pub fn take_observer_events(&mut self, out: &mut Vec<ObserverEvent>) {
        self.observer_events.take(out);
    }

    fn facts_mut(&mut self, info_hash: InfoHash, addr: SocketAddr) -> Option<&mut PeerFacts> {
        let slot = self.find(info_hash)?;
        self.torrents[slot].ledger.as_mut()?.get_mut(addr)
    }
}

/// Returns whether a client is known to accept several connections from one address.
pub fn takes_several(id: PeerId) -> bool {
    id.0.starts_with(b"-PW") || id.0.starts_with(b"A2-")
}

/// A peer that is seen to be alive is kept without an announce for this multiple of the expiry time.
const KEPT_ALIVE: u32 = 10;
