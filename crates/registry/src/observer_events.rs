//! Events for the observer, in a bounded list that is taken ten times a second.

use std::net::SocketAddr;

use super::holdings::HoldingsSource;
use super::ledger::PeerFacts;
use super::observer::ObserverEvent;
use super::torrent::Torrent;

/// The events since they were last taken.
pub(super) struct ObserverEvents {
    /// Whether there is an observer.
    on: bool,
    news: Vec<ObserverEvent>,
}

impl ObserverEvents {
    pub(super) fn new(on: bool) -> Self {
        Self { on, news: Vec::new() }
    }

    /// Moves all events to `out`.
    pub(super) fn take(&mut self, out: &mut Vec<ObserverEvent>) {
        out.append(&mut self.news);
    }

    /// Adds an event. Drops it if the list is full.
    pub(super) fn push(&mut self, event: ObserverEvent) {
        if self.has_room() {
            self.news.push(event);
        }
    }

    /// Adds an event for a peer that announced, now or before a restart, if it is news for the observer.
    pub(super) fn announced(
        &mut self,
        torrent: &Torrent,
        addr: SocketAddr,
        restored: Option<bool>,
    ) {
        let is_news = |facts: &PeerFacts| {
            facts.observed.is_none() || facts.is_observed_elsewhere(addr) || facts.stale
        };
        self.push_if(torrent, addr, restored, is_news);
    }

    /// Adds an event for a peer that has lost its other address, because of which it may not have been visited at
    /// this one.
    pub(super) fn again(&mut self, torrent: &Torrent, addr: SocketAddr) {
        let is_news = |facts: &PeerFacts| facts.observed.is_none();
        if let Some(ObserverEvent::Here { stale, .. }) = self.push_if(torrent, addr, None, is_news)
        {
            *stale = true;
        }
    }

    fn push_if(
        &mut self,
        torrent: &Torrent,
        addr: SocketAddr,
        restored: Option<bool>,
        is_news: impl Fn(&PeerFacts) -> bool,
    ) -> Option<&mut ObserverEvent> {
        if !self.has_room() {
            return None;
        }
        let ledger = torrent.ledger.as_ref().filter(|ledger| ledger.observe)?;
        let facts = ledger.get(addr).filter(|facts| is_news(facts))?;
        self.news.push(ObserverEvent::Here {
            info_hash: torrent.info_hash,
            // Its observed holdings are stale: the visit at the connected address has to be renewed.
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
        self.on && self.news.len() < MAX_EVENTS
    }
}

/// The maximum number of events between two calls of `take`. An event that is dropped comes again with the peer's
/// next announce.
const MAX_EVENTS: usize = 4_096;
