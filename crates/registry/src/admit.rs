//! Whether an announce is believed, and what it changes.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;

use super::answers::Refusal;
use super::guesses::is_guessable;
use super::ledger::{AnnounceClaim, IdentityMatch};
use super::peers::{Reachability, tick_of};
use super::registry::Registry;
use super::select::PeerPosition;
use super::torrent::Torrent;
use piecework_core::Moment;
use piecework_proto::announce::{Announce, AnnounceEvent};

impl Registry {
    /// Adds or refreshes the announcing peer, and returns its position.
    pub(super) fn admit(
        &mut self,
        slot: usize,
        now: Moment,
        from: IpAddr,
        announce: &Announce,
    ) -> Result<PeerPosition, Refusal> {
        let tick = tick_of(now);
        self.revision += 1;
        let known = self.torrents[slot].find(from, announce.port, &self.hasher);
        if let Some(place) = known
            && self.is_foreign(slot, now, from, announce)
        {
            // The peer may have been restarted with a new key. It is served, but its announce is believed only
            // once the peer that was there before has expired.
            let torrent = &mut self.torrents[slot];
            let was_complete = torrent.is_complete(place);
            return Ok(torrent.refresh(place, tick, was_complete, None, &self.hasher));
        }
        let addr = SocketAddr::new(from, announce.port);
        let joins = self.joins(slot, now, addr, announce);
        let hasher = &self.hasher;
        let torrent = &mut self.torrents[slot];
        let complete = announce.left == 0;
        let was_complete = known.is_some_and(|place| torrent.is_complete(place));
        let given = known.map_or(0, |place| torrent.recent(place));
        if known.is_none() {
            let limit = self.config.max_peers_per_ip;
            // Peers on the tracker's own machine are exempt.
            if !from.is_loopback() && torrent.count_network(from, limit, hasher) >= limit {
                return Err(Refusal::TooManyAtAddress(limit));
            }
            if self.peers >= self.config.max_peers {
                return Err(Refusal::Full);
            }
            self.peers += 1;
            torrent.insert(from, announce.port, tick, complete, hasher);
        }
        if announce.event == AnnounceEvent::Completed && complete && !was_complete {
            torrent.downloads = torrent.downloads.saturating_add(1);
            if let Some(ledger) = &mut torrent.ledger {
                ledger.dirty = true;
            }
        }
        let mut recent = None;
        if let Some(ledger) = &mut torrent.ledger {
            let before = ledger.held_bytes();
            let said = said(announce, joins);
            recent = ledger.announced(now, addr, said, &mut self.last_id, given);
            self.held_bytes = self.held_bytes - before + ledger.held_bytes();
        } else {
            self.ids.keep(slot, addr, announce.peer_id);
        }
        let known = known.filter(|place| !is_back(torrent, *place, hasher));
        // It was found or inserted above.
        let place = known.or_else(|| torrent.find(from, announce.port, hasher));
        let place = place.ok_or(Refusal::Full)?;
        let place = torrent.refresh(place, tick, complete, recent, hasher);
        let torrent = &mut self.torrents[slot];
        torrent.tell_other(addr, &self.hasher);
        if known.is_none() || was_complete != complete {
            self.changed_counts.add(torrent);
        }
        self.observer_events.announced(torrent, addr, None);
        Ok(place)
    }

    /// Returns the first address of the peer that announces at `addr`, if its id and key are known at an address of
    /// the other family. A network that sends too many wrong keys is not believed.
    pub(super) fn joins(
        &mut self,
        slot: usize,
        now: Moment,
        addr: SocketAddr,
        announce: &Announce,
    ) -> Option<SocketAddr> {
        let ledger = self.torrents[slot].ledger.as_ref()?;
        let key = announce.key?;
        match ledger.kin(addr, announce.peer_id, key) {
            IdentityMatch::Peer(of, known) => {
                let guessed = is_guessable(known, key) && self.joins.are_too_many(now, addr.ip());
                (!guessed).then_some(of)
            }
            IdentityMatch::Stranger => {
                self.joins.add(now, addr.ip());
                None
            }
            IdentityMatch::Nobody => None,
        }
    }

    /// Returns whether an announce comes from another peer than the one known at its address and port: its key is
    /// different or absent, and the known peer is alive.
    pub(super) fn is_foreign(
        &mut self,
        slot: usize,
        now: Moment,
        from: IpAddr,
        announce: &Announce,
    ) -> bool {
        let addr = SocketAddr::new(from, announce.port);
        let Some(ledger) = &self.torrents[slot].ledger else { return false };
        let Some(key) = ledger.key_of(now, addr, self.config.expire_after) else { return false };
        let told = announce.key;
        !told.is_some_and(|told| self.guesses.admits(now, from, key, told))
    }
}

/// Returns whether the peer at `place` had perhaps gone. Then it is alive, others may be able to reach it, and its
/// position changes.
fn is_back(torrent: &mut Torrent, place: PeerPosition, hasher: &FixedState) -> bool {
    let is_back = torrent.reachability(place) == Reachability::Lost;
    if is_back {
        torrent.set_reachability(place, Reachability::Refused, hasher);
    }
    is_back
}

fn said(announce: &Announce, joins: Option<SocketAddr>) -> AnnounceClaim {
    AnnounceClaim {
        peer_id: announce.peer_id,
        key: announce.key,
        left: (announce.left != Announce::LEFT_UNKNOWN).then_some(announce.left),
        restarted: announce.event == AnnounceEvent::Started,
        joins,
    }
}
