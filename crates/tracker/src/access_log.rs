//! The log of answered requests, and which of them public logs may show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use parking_lot::RwLock;
use tokio::sync::broadcast;

use super::catalogue::Catalogue;
use super::catalogue_torrent::CatalogueTorrent;
use super::counters::TrackerCounters;
use super::unlisted::RemovedUnlisted;
use piecework_core::{InfoHash, PeerId};
use piecework_journal::{HandedList, RequestEvent, RequestLog, RequestRecord, Via};

/// The request log, extended by the names of catalogued torrents and by which of them are unlisted.
pub(super) struct AccessLog {
    log: RequestLog,
    catalogue: Arc<Catalogue>,
    counters: Arc<TrackerCounters>,
    removed_unlisted: RwLock<RemovedUnlisted>,
}

/// A request at the time of its answer.
pub(super) struct AccessRecord {
    pub(super) peer: SocketAddr,
    pub(super) peer_id: Option<PeerId>,
    pub(super) event: RequestEvent,
    pub(super) info_hash: Option<InfoHash>,
    pub(super) handed: HandedList,
    pub(super) outcome: Result<(), String>,
    /// Whether the request asks for peers and is useless without them.
    pub(super) seeks: bool,
    pub(super) via: Via,
}

impl AccessRecord {
    pub(super) fn http(
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) -> Self {
        Self {
            peer: SocketAddr::new(from.ip().to_canonical(), from.port()),
            peer_id: None,
            event,
            info_hash,
            handed: HandedList::default(),
            outcome,
            seeks: false,
            via: Via::Http,
        }
    }
}

impl AccessLog {
    pub(super) fn new(
        log: RequestLog,
        catalogue: Arc<Catalogue>,
        counters: Arc<TrackerCounters>,
    ) -> Self {
        // These were removed before the restart, or their files were deleted from the folder.
        let mut removed = RemovedUnlisted::default();
        for record in log.last(usize::MAX).iter().filter(|record| record.unlisted) {
            let gone = record.info_hash.filter(|hash| catalogue.get(*hash).is_none());
            gone.into_iter().for_each(|hash| removed.remember(hash));
        }
        Self { log, catalogue, counters, removed_unlisted: RwLock::new(removed) }
    }

    /// Returns the request log.
    pub(super) fn records(&self) -> &RequestLog {
        &self.log
    }

    /// Returns a receiver of all records from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<RequestRecord>> {
        self.log.listen()
    }

    /// Records that an unlisted torrent is about to be removed.
    pub(super) fn remember_unlisted(&self, info_hash: InfoHash) {
        self.removed_unlisted.write().remember(info_hash);
    }

    /// Records that a torrent is listed now.
    pub(super) fn forget_unlisted(&self, info_hash: InfoHash) {
        self.removed_unlisted.write().forget(info_hash);
    }

    /// Returns what cannot be written now and what was lost because of that. The operator is told the file names,
    /// everybody else is not.
    pub(super) fn notices(&self, for_operator: bool) -> Vec<String> {
        let Some(journal) = self.log.journal() else { return Vec::new() };
        if for_operator {
            return journal.notices();
        }
        let mut notices = Vec::new();
        if let Some(waiting) = journal.waiting() {
            notices.push(format!(
                "the tracker cannot write its journal at the moment: `{waiting}` records wait"
            ));
        }
        if journal.lost() > 0 {
            notices.push(format!("`{}` records of the journal are lost", journal.lost()));
        }
        notices
    }

    /// Returns whether public logs must not show a torrent, because it is unlisted or was when it was removed.
    pub(super) fn is_unlisted(&self, info_hash: InfoHash) -> bool {
        self.was_unlisted(info_hash, self.catalogue.get(info_hash).as_deref())
    }

    /// Logs a request that was refused at once.
    pub(super) fn refused(
        &self,
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        via: Via,
        reason: String,
    ) {
        let mut record = AccessRecord::http(from, event, info_hash, Err(reason));
        record.via = via;
        self.note(record);
    }

    /// Counts requests that were not logged because there were too many.
    pub(super) fn left_out(&self, count: u64) {
        if count > 0 {
            self.log.left_out(count);
        }
    }

    /// Counts a request that is not logged if it was refused.
    pub(super) fn not_noted(&self, was_refused: bool) {
        if was_refused {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that a torrent of the catalogue was announced.
    pub(super) fn announced(&self, info_hash: InfoHash) {
        if let Some(entry) = self.catalogue.get(info_hash) {
            entry.announced();
        }
    }

    pub(super) fn note_http(
        &self,
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) {
        self.note(AccessRecord::http(from, event, info_hash, outcome));
    }

    pub(super) fn note(&self, record: AccessRecord) {
        let entry = record.info_hash.and_then(|hash| self.catalogue.get(hash));
        let is_announce = matches!(
            record.event,
            RequestEvent::Announce | RequestEvent::Started | RequestEvent::Completed
        );
        if let Some(entry) = entry.as_ref().filter(|_| is_announce && record.outcome.is_ok()) {
            entry.announced();
        }
        let unlisted =
            record.info_hash.is_some_and(|hash| self.was_unlisted(hash, entry.as_deref()));
        self.push(record, entry.map(|entry| Arc::clone(&entry.name)), unlisted);
    }

    pub(super) fn push(&self, record: AccessRecord, name: Option<Arc<str>>, unlisted: bool) {
        if record.outcome.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        // Answered, but without any peers.
        let found_nobody = record.seeks && record.handed.is_empty();
        let outcome = match record.outcome {
            Ok(()) if found_nobody => Err("nobody else has any of it".to_owned()),
            outcome => outcome,
        };
        self.log.push(RequestRecord {
            time: SystemTime::now(),
            peer: record.peer,
            peer_id: record.peer_id,
            event: record.event,
            info_hash: record.info_hash,
            name,
            handed: record.handed,
            outcome: outcome.map_err(Into::into),
            via: record.via,
            unlisted,
        });
    }

    pub(super) fn was_unlisted(
        &self,
        info_hash: InfoHash,
        entry: Option<&CatalogueTorrent>,
    ) -> bool {
        entry.map_or_else(
            || self.removed_unlisted.read().contains(info_hash),
            |entry| entry.unlisted,
        )
    }

    pub(super) fn name_of(&self, info_hash: InfoHash) -> Option<Arc<str>> {
        self.catalogue.get(info_hash).map(|entry| Arc::clone(&entry.name))
    }
}
