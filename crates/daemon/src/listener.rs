//! Streams of changes, for clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event_bus::{Mailbox, UrgentEvent};
use super::givers::JournalQueries;
use super::status::DaemonStatus;
use super::torrents::Torrents;
use piecework_api::Event;
use piecework_core::InfoHash;
use piecework_journal::Owners;

/// A stream of changes. Each torrent is reported a few times a second at most.
pub struct Listener {
    torrents: Arc<Torrents>,
    status: Arc<DaemonStatus>,
    journal: Arc<JournalQueries>,
    mailbox: Arc<Mailbox>,
    /// Torrents to report before new changes are taken.
    batch: VecDeque<InfoHash>,
    /// `batch` still has what there was when listening began.
    first: bool,
    /// When the next batch may be taken.
    next_batch: Instant,
    ended: bool,
    /// The torrent whose pieces are reported as well.
    only: Option<InfoHash>,
    /// The owners of its pieces; `None` until they were read, or if there is no journal.
    owners: Option<Owners>,
    /// It may have new pieces.
    look: bool,
    /// The notices that were reported last, and when to compare them again.
    told: Vec<String>,
    tell_at: Instant,
}

impl Listener {
    pub(super) fn new(
        torrents: Arc<Torrents>,
        status: Arc<DaemonStatus>,
        journal: Arc<JournalQueries>,
        only: Option<InfoHash>,
    ) -> Self {
        let mailbox = torrents.events.subscribe();
        // Read after the subscription, so that nothing is missed.
        let batch = torrents.table().order.iter().collect();
        if torrents.lifetime.has_ended() {
            mailbox.set_ended();
        }
        Self {
            owners: None,
            look: only.is_some(),
            only,
            torrents,
            status,
            journal,
            mailbox,
            batch,
            first: true,
            next_batch: Instant::now(),
            ended: false,
            told: Vec::new(),
            tell_at: Instant::now(),
        }
    }

    /// Returns the next event; `None` once the daemon has shut down. A slow reader gets fewer
    /// events, but the last one is never stale.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if self.ended {
                return None;
            }
            if self.look
                && self.batch.is_empty()
                && let Some(event) = self.new_pieces().await
            {
                return Some(event);
            }
            if let Some(event) = self.next_now() {
                return Some(event);
            }
            let changes_wait = self.mailbox.has_changes();
            tokio::select! {
                // A notification from before is remembered.
                () = self.mailbox.arrived() => {}
                () = tokio::time::sleep_until(self.next_batch), if changes_wait => {}
                () = tokio::time::sleep_until(self.tell_at) => {}
            }
        }
    }

    fn next_now(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.urgent().or_else(|| self.new_notices()) {
                return Some(event);
            }
            while let Some(info_hash) = self.batch.pop_front() {
                if let Some(torrent) = self.torrents.table().show(info_hash) {
                    return Some(Event::Torrent(Box::new(torrent)));
                }
            }
            if self.first {
                self.first = false;
                return Some(Event::Ready);
            }
            let now = Instant::now();
            if now < self.next_batch || !self.mailbox.has_changes() {
                return None;
            }
            self.batch = self.mailbox.take_changes();
            self.look |= self.only.is_some_and(|only| self.batch.contains(&only));
            self.next_batch = now + PACE;
        }
    }

    /// Returns what is new of the torrent's pieces. What there was at the beginning is not new, but
    /// is read before the beginning is reported. Cancel-safe: what was not reported is read again.
    async fn new_pieces(&mut self) -> Option<Event> {
        let only = self.only;
        // The torrent may have been added since.
        let known = || only.and_then(|info_hash| self.journal.no_owners(info_hash));
        let owners = self.owners.clone().or_else(known);
        let (Some(only), Some(owners)) = (only, owners) else {
            self.look = false;
            return None;
        };
        let found = self.journal.new_pieces(only, owners).await;
        self.look = false;
        match found {
            Ok((new, owners)) => {
                self.owners = Some(owners);
                let is_news =
                    !new.pieces.is_empty() || !new.bad.is_empty() || !new.givers.is_empty();
                (is_news && !self.first).then(|| Event::Pieces(Box::new(new)))
            }
            Err(error) => {
                tracing::debug!(%error, "could not read new pieces");
                None
            }
        }
    }

    /// Returns the notices, if they differ from those reported last.
    fn new_notices(&mut self) -> Option<Event> {
        let now = Instant::now();
        if self.first || self.ended || now < self.tell_at {
            return None;
        }
        self.tell_at = now + NOTICES_EVERY;
        let notices = self.status.notices();
        (notices != self.told).then(|| {
            self.told.clone_from(&notices);
            Event::Notices(notices)
        })
    }

    /// Returns an event that goes before the batch, once everything there was has been reported.
    fn urgent(&mut self) -> Option<Event> {
        if self.mailbox.has_ended() {
            self.ended = true;
            return Some(Event::Bye);
        }
        if self.first {
            return None;
        }
        Some(match self.mailbox.take_urgent()? {
            UrgentEvent::Removed(info_hash) => Event::Removed(info_hash),
            UrgentEvent::Done(info_hash) => Event::Done(info_hash),
            UrgentEvent::Settings => {
                let settings = self.torrents.table().settings.clone();
                Event::Settings(Box::new(settings))
            }
        })
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("waiting", &self.batch.len()).finish_non_exhaustive()
    }
}

/// Time between two comparisons of the notices: they are few and seldom change.
const NOTICES_EVERY: Duration = Duration::from_secs(3);

/// Time between two batches of changes: four a second.
const PACE: Duration = Duration::from_millis(250);
