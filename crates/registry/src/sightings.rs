//! What a registry tells who observes: a bounded list that is taken ten times a second.

use std::net::SocketAddr;

use super::held::HoldingsSource;
use super::ledger::Facts;
use super::observer::Sighting;
use super::torrent::Torrent;

/// News since they were last taken.
pub(super) struct Sightings {
    /// Somebody observes.
    on: bool,
    news: Vec<Sighting>,
}

impl Sightings {
    pub(super) fn new(on: bool) -> Self {
        Self { on, news: Vec::new() }
    }

    /// Moves everything to `out`.
    pub(super) fn take(&mut self, out: &mut Vec<Sighting>) {
        out.append(&mut self.news);
    }

    /// Tells of a peer, if there is room.
    pub(super) fn push(&mut self, sighting: Sighting) {
        if self.has_room() {
            self.news.push(sighting);
        }
    }

    /// The same of one that has announced, now or before a restart.
    pub(super) fn announced(
        &mut self,
        torrent: &Torrent,
        addr: SocketAddr,
        restored: Option<bool>,
    ) {
        let is_news = |facts: &Facts| {
            facts.observed.is_none() || facts.is_observed_elsewhere(addr) || facts.stale
        };
        self.push_if(torrent, addr, restored, is_news);
    }

    /// The same of one that was perhaps not looked at because of its other address, at which it no longer is.
    pub(super) fn again(&mut self, torrent: &Torrent, addr: SocketAddr) {
        let is_news = |facts: &Facts| facts.observed.is_none();
        if let Some(Sighting::Here { stale, .. }) = self.push_if(torrent, addr, None, is_news) {
            *stale = true;
        }
    }

    fn push_if(
        &mut self,
        torrent: &Torrent,
        addr: SocketAddr,
        restored: Option<bool>,
        is_news: impl Fn(&Facts) -> bool,
    ) -> Option<&mut Sighting> {
        if !self.has_room() {
            return None;
        }
        let ledger = torrent.ledger.as_ref().filter(|ledger| ledger.observe)?;
        let facts = ledger.get(addr).filter(|facts| is_news(facts))?;
        self.news.push(Sighting::Here {
            info_hash: torrent.info_hash,
            // What it shows is old: that is seen where we are connected to it.
            addr: facts.observed.filter(|_| facts.stale).map_or(addr, |(at, _)| at),
            peer_id: facts.peer_id?,
            complete: facts.left == Some(0),
            reports: facts.source == Some(HoldingsSource::Reported),
            stale: facts.stale,
            restored,
        });
        self.news.last_mut()
    }

    fn has_room(&self) -> bool {
        self.on && self.news.len() < MAX_SIGHTINGS
    }
}

/// Sightings kept until somebody takes them, ten times a second: what is lost comes again with the
/// peer's next announce.
const MAX_SIGHTINGS: usize = 4_096;
