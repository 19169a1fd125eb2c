//! Announces: peers are added, refreshed and removed, and get an answer.

use std::net::IpAddr;

use piecework_core::{Moment, PeerId, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent};

use super::answers::{AnnounceAnswer, PeerQuery, Refusal};
use super::ledger::PeerFacts;
use super::peers::tick_of;
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
        let mut answer = AnnounceAnswer::default();
        self.announce_into(now, rng, from, announce, want, &mut answer)?;
        Ok(answer)
    }

    /// Does the same as [`Registry::announce`] with an answer that is used again. So an announce allocates no memory
    /// once the lists of `answer` have grown.
    ///
    /// # Errors
    /// As [`Registry::announce`]. Then the answer is empty.
    pub fn announce_into(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        from: IpAddr,
        announce: &Announce,
        want: PeerQuery,
        answer: &mut AnnounceAnswer,
    ) -> Result<(), Refusal> {
        let from = from.to_canonical();
        answer.clear();
        if announce.event == AnnounceEvent::Stopped {
            self.stop(now, from, announce, answer);
            return Ok(());
        }
        if announce.port == 0 {
            return self.answer_unlisted(now, rng, announce, want, answer);
        }
        let slot = self.slot_for(tick_of(now), rng, from, announce.info_hash)?;
        let place = match self.admit(slot, now, from, announce) {
            Ok(place) => place,
            Err(refusal) => {
                self.drop_if_idle(slot);
                return Err(refusal);
            }
        };
        self.answer(slot, now, rng, Some(place), announce.left == 0, want, answer);
        Ok(())
    }

    /// Answers a peer that announces port 0 and so accepts no connections. It is not listed and opens no torrent,
    /// but gets peers to connect to.
    fn answer_unlisted(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        announce: &Announce,
        want: PeerQuery,
        answer: &mut AnnounceAnswer,
    ) -> Result<(), Refusal> {
        match self.find(announce.info_hash) {
            Some(slot) => {
                self.answer(slot, now, rng, None, announce.left == 0, want, answer);
                Ok(())
            }
            None if self.config.open => Ok(()),
            None => Err(Refusal::NotCatalogued),
        }
    }

    fn stop(
        &mut self,
        now: Moment,
        from: IpAddr,
        announce: &Announce,
        answer: &mut AnnounceAnswer,
    ) {
        let Some(slot) = self.find(announce.info_hash) else { return };
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
        (answer.complete, answer.incomplete) = self.torrents[slot].counts();
        answer.catalogued = self.torrents[slot].ledger.is_some();
        self.drop_if_idle(slot);
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
