//! Announces: peers are added, refreshed and removed, and get an answer.

use std::net::IpAddr;

use piecework_core::{Moment, PeerId, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent};

use super::answers::{AnnounceAnswer, PeerQuery, Refusal};
use super::ledger::PeerFacts;
use super::peers::{Tick, tick_of};
use super::registry::Registry;
use super::watch::DepartureCause;

impl Registry {
    /// Handles an announce of the peer at the address `from` and the announced port, and selects peers for the
    /// answer. A peer that announces port 0 accepts no connections: it gets peers but is not listed.
    ///
    /// # Errors
    /// If the torrent is not tracked here, or a limit is reached.
    pub fn announce(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        from: IpAddr,
        announce: &Announce,
        want: PeerQuery,
    ) -> Result<AnnounceAnswer, Refusal> {
        let tick = tick_of(now);
        let from = from.to_canonical();
        if announce.event == AnnounceEvent::Stopped {
            return Ok(self.stop(now, from, announce));
        }
        if announce.port == 0 {
            return self.answer_unlisted(tick, rng, announce, want);
        }
        let slot = self.slot_for(tick, rng, from, announce.info_hash)?;
        let place = match self.admit(slot, now, from, announce) {
            Ok(place) => place,
            Err(refusal) => {
                self.drop_if_idle(slot);
                return Err(refusal);
            }
        };
        Ok(self.answer(slot, tick, rng, Some(place), announce.left == 0, want))
    }

    /// Answers a peer that announces port 0 and so accepts no connections. It is not listed and opens no torrent,
    /// but gets peers to connect to.
    fn answer_unlisted(
        &mut self,
        tick: Tick,
        rng: &mut Rng,
        announce: &Announce,
        want: PeerQuery,
    ) -> Result<AnnounceAnswer, Refusal> {
        match self.find(announce.info_hash) {
            Some(slot) => Ok(self.answer(slot, tick, rng, None, announce.left == 0, want)),
            None if self.config.open => Ok(AnnounceAnswer::default()),
            None => Err(Refusal::NotCatalogued),
        }
    }

    fn stop(&mut self, now: Moment, from: IpAddr, announce: &Announce) -> AnnounceAnswer {
        let Some(slot) = self.find(announce.info_hash) else { return AnnounceAnswer::default() };
        let port = match announce.port {
            0 => self.port_by_id(slot, from, announce.peer_id),
            port => Some(port),
        };
        if let Some(port) = port
            && let Some(place) = self.torrents[slot].find(from, port, &self.hasher)
            && !self.is_foreign(slot, now, from, &Announce { port, ..announce.clone() })
        {
            self.remove(slot, place, DepartureCause::Stopped);
        }
        let (complete, incomplete) = self.torrents[slot].counts();
        self.drop_if_idle(slot);
        AnnounceAnswer { complete, incomplete, ..AnnounceAnswer::default() }
    }

    /// Returns the port of the peer at an address with this id, if there is exactly one. Some clients omit their
    /// port when they leave. Torrents with many peers are not searched; there the peer expires.
    fn port_by_id(&self, slot: usize, from: IpAddr, peer_id: PeerId) -> Option<u16> {
        let mut found = match &self.torrents[slot].ledger {
            Some(ledger) if ledger.len() > MAX_SEARCHED => return None,
            Some(ledger) => {
                let is_it = |facts: &PeerFacts| facts.peer_id == Some(peer_id);
                let of_it = ledger.iter().filter(|(_, facts)| is_it(facts));
                of_it.flat_map(|(addr, facts)| [Some(addr), facts.also]).flatten().collect()
            }
            None => self.ids.with_id(slot, peer_id),
        };
        found.retain(|addr| addr.ip() == from);
        match found[..] {
            [addr] => Some(addr.port()),
            _ => None,
        }
    }
}

/// The maximum number of a torrent's peers that are searched for one without its port: some microseconds.
const MAX_SEARCHED: usize = 1_000;
