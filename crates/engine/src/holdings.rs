//! Tells trackers of ours which pieces we hold, so that they can say in whose hands they are.
//!
//! Each tracker has one [`Reporter`], whatever the number of torrents. It runs while there is
//! something to report, and sends many torrents in one request.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use crate::tracker_client::{Catalogue, CatalogueError, Holdings, TrackerClient};
use piecework_core::{Bitfield, InfoHash, Moment, Rng};
use piecework_proto::announce::catalogue::{
    BatchedHoldings, HoldingsBatch, MAX_BATCH, MAX_BATCH_LEN,
};
use piecework_proto::announce::{CatalogueUrl, TrackerUrl};
use piecework_swarm::announcer::{Reported, Reports};

use super::TorrentState;
use super::entry::Entry;
use super::handle::TorrentHandle;
use super::hub::PORT_OF_NOBODY;
use super::shared::Shared;
use super::status::Shown;

/// The trackers that the torrents of a session report to, each of them once.
#[derive(Default)]
pub(super) struct Reporters(
    Mutex<HashMap<CatalogueUrl, Weak<Reporter>, foldhash::fast::FixedState>>,
);

/// Reports to one tracker.
pub(super) struct Reporter {
    catalogue: Catalogue,
    host: String,
    port: u16,
    state: Mutex<State>,
    /// Something is due earlier than it was.
    sooner: Notify,
}

struct State {
    reports: Reports,
    is_running: bool,
    /// The tracker takes only single reports, as far as we know, until then.
    single_until: Option<Moment>,
}

/// What is to be reported of a torrent.
struct Prepared {
    entry: Arc<Entry>,
    /// `None` is everything.
    have: Option<Bitfield>,
}

impl Reporters {
    /// Returns the reporter to the tracker whose catalogue is at `url`, asked by `client` like any
    /// tracker.
    ///
    /// # Errors
    /// If `url` is no address.
    pub fn at(
        &self,
        url: CatalogueUrl,
        client: &TrackerClient,
        rng: Rng,
    ) -> Result<Arc<Reporter>, CatalogueError> {
        let mut known = self.0.lock();
        if let Some(reporter) = known.get(&url).and_then(Weak::upgrade) {
            return Ok(reporter);
        }
        let reporter = Arc::new(Reporter::new(client.catalogue(&url)?, rng));
        if known.len() == known.capacity() {
            known.retain(|_, reporter| reporter.strong_count() > 0);
        }
        known.insert(url, Arc::downgrade(&reporter));
        Ok(reporter)
    }
}

impl Reporter {
    fn new(catalogue: Catalogue, rng: Rng) -> Self {
        let (host, port) = catalogue.place();
        let reports = Reports::new(rng);
        let state = State { reports, is_running: false, single_until: None };
        Self { catalogue, host, port, state: Mutex::new(state), sooner: Notify::new() }
    }

    /// What is held of a torrent has changed.
    pub fn changed(self: &Arc<Self>, shared: &Arc<Shared>, info_hash: InfoHash) {
        self.change(shared, |reports, now| reports.changed(now, info_hash));
    }

    /// `tracker` has answered an announce of the torrent. With `is_new` it takes the torrent for one
    /// that it knows nothing of.
    pub fn announced(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        entry: &Entry,
        tracker: &TrackerUrl,
        is_new: bool,
    ) {
        if tracker.port() != self.port || tracker.host() != self.host {
            return;
        }
        let is_new = is_new && shown_pieces(&entry.shown()).is_some();
        if is_new {
            entry.forget_reported();
        }
        self.change(shared, |reports, now| reports.announced(now, entry.info_hash(), is_new));
    }

    /// The torrent is not reported any more.
    pub fn forget(&self, info_hash: InfoHash) {
        self.state.lock().reports.forget(info_hash);
    }

    fn change(self: &Arc<Self>, shared: &Arc<Shared>, change: impl FnOnce(&mut Reports, Moment)) {
        let mut state = self.state.lock();
        let before = state.reports.deadline();
        change(&mut state.reports, shared.now());
        let after = state.reports.deadline();
        if after.is_none() || after == before {
            return;
        }
        if std::mem::replace(&mut state.is_running, true) {
            drop(state);
            self.sooner.notify_one();
        } else {
            let (reporter, shared) = (Arc::clone(self), Arc::downgrade(shared));
            if let Some(alive) = shared.upgrade() {
                alive.runtime.spawn(reporter.run(shared));
            }
        }
    }

    /// Reports as long as there is something to report.
    async fn run(self: Arc<Self>, weak: Weak<Shared>) {
        while let Some(shared) = weak.upgrade() {
            let now = shared.now();
            let (batch, is_single, deadline) = {
                let mut state = self.state.lock();
                let is_single = state.single_until.is_some_and(|until| now < until);
                let most = if is_single { SINGLE_REPORTS } else { MAX_BATCH };
                let batch = state.reports.take(now, most);
                let deadline = state.reports.deadline();
                if batch.is_empty() && deadline.is_none() {
                    // What comes from now on begins another run.
                    state.is_running = false;
                    return;
                }
                (batch, is_single, deadline)
            };
            // There is none while a request is under way.
            if let Some(deadline) = deadline.map(|moment| shared.instant(moment)) {
                // The session may end meanwhile.
                drop(shared);
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = self.sooner.notified() => {}
                }
                continue;
            }
            let was_answered = self.report(&shared, batch, is_single).await;
            self.state.lock().reports.finished(shared.now(), was_answered);
        }
    }

    /// Reports these torrents. Returns whether the tracker answered.
    async fn report(&self, shared: &Arc<Shared>, torrents: Vec<InfoHash>, is_single: bool) -> bool {
        let (mut batch, mut single) = (Vec::new(), Vec::new());
        let (mut bytes, until) = (0, Instant::now() + LOOK);
        for info_hash in torrents {
            let Some(prepared) = self.prepare(shared, info_hash, until).await else { continue };
            let bits = prepared.have.as_ref().map(Bitfield::as_wire);
            if is_single || bits.is_some_and(|bits| bits.len() > LARGE_BITFIELD) {
                single.push(prepared);
                continue;
            }
            let key = shared.announce_key(info_hash);
            let report = BatchedHoldings::new(info_hash, key, bits);
            if bytes + report.encoded_len() > MAX_BATCH_LEN - BATCH_MARGIN {
                self.done(shared, info_hash, Reported::Postponed);
                continue;
            }
            bytes += report.encoded_len();
            batch.push((prepared, report));
        }
        let mut was_answered = batch.is_empty() || self.send_batch(shared, batch).await;
        for prepared in single {
            if was_answered {
                was_answered = self.send_single(shared, prepared).await;
            } else {
                self.done(shared, prepared.entry.info_hash(), Reported::Postponed);
            }
        }
        was_answered
    }

    /// Returns what there is to report of a torrent now, if there is something.
    async fn prepare(
        &self,
        shared: &Arc<Shared>,
        info_hash: InfoHash,
        until: Instant,
    ) -> Option<Prepared> {
        let Some(entry) = shared.entry(info_hash) else {
            self.done(shared, info_hash, Reported::Settled);
            return None;
        };
        // What changes from now on is reported once more.
        entry.to_report.store(false, Ordering::Release);
        let Some(count) = shown_pieces(&entry.shown()).filter(|count| !entry.is_reported(*count))
        else {
            self.done(shared, info_hash, Reported::Settled);
            return None;
        };
        let is_announced = || shared.hub.is_known_to(info_hash, &self.host, self.port);
        if !is_announced() {
            self.done(shared, info_hash, Reported::Unannounced);
            if is_announced() {
                // It was announced between the two looks.
                self.state.lock().reports.announced(shared.now(), info_hash, false);
            }
            return None;
        }
        let pieces = entry.metainfo.info().geometry().pieces();
        if count == pieces {
            return Some(Prepared { entry, have: None });
        }
        let handle = TorrentHandle::new(Arc::clone(shared), Arc::clone(&entry));
        match tokio::time::timeout_at(until, handle.have()).await {
            Ok(Some(have)) => {
                let have = Some(have).filter(|have| !have.is_full());
                Some(Prepared { entry, have })
            }
            // Gone, or busy for long.
            Ok(None) => {
                self.done(shared, info_hash, Reported::Settled);
                None
            }
            Err(_) => {
                self.done(shared, info_hash, Reported::Refused);
                None
            }
        }
    }

    async fn send_batch(
        &self,
        shared: &Arc<Shared>,
        batch: Vec<(Prepared, BatchedHoldings)>,
    ) -> bool {
        let (prepared, torrents): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let postpone = || {
            for prepared in &prepared {
                self.done(shared, prepared.entry.info_hash(), Reported::Postponed);
            }
        };
        let body = HoldingsBatch { torrents };
        let port = shared.listen_port.unwrap_or(PORT_OF_NOBODY);
        match self.catalogue.report_batch(shared.peer_id, port, &body).await {
            Ok(Some(outcomes)) => {
                for (prepared, outcome) in prepared.iter().zip(outcomes) {
                    self.settle(shared, prepared, outcome.status, outcome.error.as_deref());
                }
                true
            }
            Ok(None) => {
                debug!(tracker = self.catalogue.address(), "it takes single reports only");
                self.state.lock().single_until = Some(shared.now() + SINGLE_FOR);
                postpone();
                true
            }
            Err(error) => {
                debug!(%error, "the tracker did not take our reports of holdings");
                postpone();
                false
            }
        }
    }

    async fn send_single(&self, shared: &Arc<Shared>, prepared: Prepared) -> bool {
        let info_hash = prepared.entry.info_hash();
        let all;
        let have = match &prepared.have {
            Some(have) => have,
            None => {
                all = Bitfield::full(prepared.entry.metainfo.info().geometry().pieces());
                &all
            }
        };
        let holdings = Holdings {
            peer_id: shared.peer_id,
            port: shared.listen_port.unwrap_or(PORT_OF_NOBODY),
            key: shared.announce_key(info_hash),
            bitfield: have.as_wire(),
        };
        match self.catalogue.report_holdings(info_hash, holdings).await {
            Ok(()) => self.settle(shared, &prepared, TAKEN, None),
            Err(CatalogueError::NotFound(_)) => self.settle(shared, &prepared, 404, None),
            Err(CatalogueError::Refused { status, reason }) => {
                self.settle(shared, &prepared, status, Some(&reason));
            }
            Err(error) => {
                debug!(%error, "the tracker did not take our report of holdings");
                self.done(shared, info_hash, Reported::Postponed);
                return false;
            }
        }
        true
    }

    /// The tracker has answered a report.
    fn settle(&self, shared: &Arc<Shared>, sent: &Prepared, status: u16, reason: Option<&str>) {
        let info_hash = sent.entry.info_hash();
        let reported = match status {
            200..300 => {
                let pieces = sent.entry.metainfo.info().geometry().pieces();
                sent.entry.set_reported(sent.have.as_ref().map_or(pieces, Bitfield::count));
                Reported::Settled
            }
            NOT_ANNOUNCED => Reported::Unknown,
            _ => Reported::Refused,
        };
        if reported != Reported::Settled {
            debug!(torrent = %info_hash, status, reason, "the tracker refused a report of holdings");
        }
        self.done(shared, info_hash, reported);
        if reported == Reported::Unknown {
            // It has been restarted since we announced: it is told of us at once.
            shared.hub.was_forgotten(info_hash, &self.host, self.port);
        }
    }

    fn done(&self, shared: &Shared, info_hash: InfoHash, reported: Reported) {
        self.state.lock().reports.done(shared.now(), info_hash, reported);
    }
}

/// Returns how many pieces are held of a torrent that takes part in its swarm. Of others nothing is
/// known (the disk is being looked at), or they are not announced, so that reports would be refused.
pub(super) fn shown_pieces(shown: &Shown) -> Option<u32> {
    let takes_part = matches!(shown.state, TorrentState::Downloading | TorrentState::Seeding);
    takes_part.then_some(shown.pieces_have)
}

/// Reports that are sent one after the other before the next pause, to trackers that take no batches.
const SINGLE_REPORTS: usize = 50;

/// After which a tracker is asked again whether it takes batches.
const SINGLE_FOR: Duration = Duration::from_secs(3_600);

/// Bytes of a bitfield that is reported by itself: a batch has room for three of these.
const LARGE_BITFIELD: usize = MAX_BATCH_LEN / 4;

/// Bytes of a batch beside its reports.
const BATCH_MARGIN: usize = 1_024;

/// How long the torrents of a request may take to say what they hold.
const LOOK: Duration = Duration::from_secs(5);

/// The status of a report that was taken, and of one of a peer that has not announced.
const TAKEN: u16 = 204;
const NOT_ANNOUNCED: u16 = 409;
