//! Tells Piecework trackers which pieces we hold, so that they can say who holds what.
//!
//! Each tracker has one [`Reporter`], whatever the number of torrents. Its task runs while there is
//! something to report, and sends many torrents in one request.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::tracker_client::{CatalogueError, Holdings};
use piecework_core::{Bitfield, InfoHash, Moment};
use piecework_proto::announce::catalogue::{BatchedHoldings, HoldingsBatch, MAX_BATCH_LEN};
use piecework_swarm::announcer::ReportOutcome;

use super::announce_scheduler::AnnounceScheduler;
use super::entry::Entry;
use super::means::Means;
use super::reporter::{NextReports, Reporter};
use super::torrents::TorrentMap;

/// Reports holdings to the trackers of a session.
pub(super) struct HoldingsReports {
    pub means: Arc<Means>,
    pub torrents: Arc<TorrentMap>,
    pub scheduler: Arc<AnnounceScheduler>,
}

/// Reports to one tracker.
struct ReportRun<'a> {
    reports: &'a HoldingsReports,
    reporter: &'a Reporter,
}

/// A report of one torrent.
struct PreparedReport {
    entry: Arc<Entry>,
    /// `None` is everything.
    have: Option<Bitfield>,
}

impl HoldingsReports {
    /// Reports to one tracker until nothing is left to report.
    pub(crate) async fn run(weak: Weak<Self>, reporter: Arc<Reporter>) {
        while let Some(reports) = weak.upgrade() {
            let means = &reports.means;
            match reporter.next(means.now()) {
                NextReports::None => return,
                NextReports::At(deadline) => {
                    let deadline = means.clock.instant(deadline);
                    // The session may end meanwhile.
                    drop(reports);
                    tokio::select! {
                        () = tokio::time::sleep_until(deadline) => {}
                        () = reporter.sooner() => {}
                    }
                }
                NextReports::Now { torrents, is_single } => {
                    let run = ReportRun { reports: &reports, reporter: &reporter };
                    let was_answered = run.report(torrents, is_single).await;
                    reporter.finished(means.now(), was_answered);
                }
            }
        }
    }
}

impl ReportRun<'_> {
    /// Reports these torrents. Returns whether the tracker answered.
    async fn report(&self, torrents: Vec<InfoHash>, is_single: bool) -> bool {
        let (mut batch, mut single) = (Vec::new(), Vec::new());
        let (mut bytes, until) = (0, Instant::now() + LOOK);
        for info_hash in torrents {
            let Some(prepared) = self.prepare(info_hash, until).await else { continue };
            let bits = prepared.have.as_ref().map(Bitfield::as_wire);
            if is_single || bits.is_some_and(|bits| bits.len() > LARGE_BITFIELD) {
                single.push(prepared);
                continue;
            }
            let key = self.reports.means.identity.announce_key(info_hash);
            let report = BatchedHoldings::new(info_hash, key, bits);
            if bytes + report.encoded_len() > MAX_BATCH_LEN - BATCH_MARGIN {
                self.done(info_hash, ReportOutcome::Postponed);
                continue;
            }
            bytes += report.encoded_len();
            batch.push((prepared, report));
        }
        let mut was_answered = batch.is_empty() || self.send_batch(batch).await;
        for prepared in single {
            if was_answered {
                was_answered = self.send_single(prepared).await;
            } else {
                self.done(prepared.entry.info_hash(), ReportOutcome::Postponed);
            }
        }
        was_answered
    }

    /// Returns what is to be reported of a torrent now, if anything.
    async fn prepare(&self, info_hash: InfoHash, until: Instant) -> Option<PreparedReport> {
        let Some(entry) = self.reports.torrents.get(info_hash) else {
            self.done(info_hash, ReportOutcome::Settled);
            return None;
        };
        // What changes from now on is reported again.
        entry.to_report.store(false, Ordering::Release);
        let (host, port) = self.reporter.place();
        let Some(count) = entry.shown().reportable().filter(|count| !entry.is_reported(*count))
        else {
            self.done(info_hash, ReportOutcome::Settled);
            return None;
        };
        let is_announced = || self.reports.scheduler.is_known_to(info_hash, host, port);
        if !is_announced() {
            self.done(info_hash, ReportOutcome::Unannounced);
            if is_announced() {
                // It was announced between the two checks.
                self.reporter.announced_meanwhile(self.now(), info_hash);
            }
            return None;
        }
        let pieces = entry.metainfo.info().geometry().pieces();
        if count == pieces {
            return Some(PreparedReport { entry, have: None });
        }
        match tokio::time::timeout_at(until, entry.have()).await {
            Ok(Some(have)) => {
                let have = Some(have).filter(|have| !have.is_full());
                Some(PreparedReport { entry, have })
            }
            // The torrent is gone, or busy for long.
            Ok(None) => {
                self.done(info_hash, ReportOutcome::Settled);
                None
            }
            Err(_) => {
                self.done(info_hash, ReportOutcome::Refused);
                None
            }
        }
    }

    async fn send_batch(&self, batch: Vec<(PreparedReport, BatchedHoldings)>) -> bool {
        let (prepared, torrents): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let postpone = || {
            for prepared in &prepared {
                self.done(prepared.entry.info_hash(), ReportOutcome::Postponed);
            }
        };
        let body = HoldingsBatch { torrents };
        let identity = &self.reports.means.identity;
        let (peer_id, port) = (identity.peer_id, identity.announced_port());
        match self.reporter.catalogue.report_batch(peer_id, port, &body).await {
            Ok(Some(outcomes)) => {
                for (prepared, outcome) in prepared.iter().zip(outcomes) {
                    self.settle(prepared, outcome.status, outcome.error.as_deref());
                }
                true
            }
            Ok(None) => {
                debug!(tracker = self.reporter.catalogue.address(), "it takes single reports only");
                self.reporter.takes_single_reports(self.now());
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

    async fn send_single(&self, prepared: PreparedReport) -> bool {
        let info_hash = prepared.entry.info_hash();
        let all;
        let have = match &prepared.have {
            Some(have) => have,
            None => {
                all = Bitfield::full(prepared.entry.metainfo.info().geometry().pieces());
                &all
            }
        };
        let identity = &self.reports.means.identity;
        let holdings = Holdings {
            peer_id: identity.peer_id,
            port: identity.announced_port(),
            key: identity.announce_key(info_hash),
            bitfield: have.as_wire(),
        };
        match self.reporter.catalogue.report_holdings(info_hash, holdings).await {
            Ok(()) => self.settle(&prepared, TAKEN, None),
            Err(CatalogueError::NotFound(_)) => self.settle(&prepared, 404, None),
            Err(CatalogueError::Refused { status, reason }) => {
                self.settle(&prepared, status, Some(&reason));
            }
            Err(error) => {
                debug!(%error, "the tracker did not take our report of holdings");
                self.done(info_hash, ReportOutcome::Postponed);
                return false;
            }
        }
        true
    }

    /// Takes in the tracker's answer to a report.
    fn settle(&self, sent: &PreparedReport, status: u16, reason: Option<&str>) {
        let info_hash = sent.entry.info_hash();
        let reported = match status {
            200..300 => {
                let pieces = sent.entry.metainfo.info().geometry().pieces();
                sent.entry.set_reported(sent.have.as_ref().map_or(pieces, Bitfield::count));
                ReportOutcome::Settled
            }
            NOT_ANNOUNCED => ReportOutcome::Unknown,
            _ => ReportOutcome::Refused,
        };
        if reported != ReportOutcome::Settled {
            debug!(torrent = %info_hash, status, reason, "the tracker refused a report of holdings");
        }
        self.done(info_hash, reported);
        if reported == ReportOutcome::Unknown {
            // The tracker was restarted since we announced. It is told of us at once.
            let (host, port) = self.reporter.place();
            self.reports.scheduler.was_forgotten(info_hash, host, port);
        }
    }

    fn done(&self, info_hash: InfoHash, reported: ReportOutcome) {
        self.reporter.done(self.now(), info_hash, reported);
    }

    fn now(&self) -> Moment {
        self.reports.means.now()
    }
}

/// Bytes of a bitfield that is reported alone: a batch has room for three of these.
const LARGE_BITFIELD: usize = MAX_BATCH_LEN / 4;

/// Bytes of a batch beside its reports.
const BATCH_MARGIN: usize = 1_024;

/// Time for the torrents of a request to say what they hold.
const LOOK: Duration = Duration::from_secs(5);

/// HTTP status of a report that was taken, and of one from a peer that has not announced.
const TAKEN: u16 = 204;
const NOT_ANNOUNCED: u16 = 409;
