//! Which reports of holdings are due, for each Piecework tracker.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::tracker_client::{Catalogue, CatalogueError, TrackerClient};
use piecework_core::{InfoHash, Moment, Rng};
use piecework_proto::announce::catalogue::MAX_BATCH;
use piecework_proto::announce::{CatalogueUrl, TrackerUrl};
use piecework_swarm::announcer::{ReportOutcome, Reports};

/// One reporter for each tracker that a session's torrents report to.
#[derive(Default)]
pub(super) struct Reporters(
    Mutex<HashMap<CatalogueUrl, Weak<Reporter>, foldhash::fast::FixedState>>,
);

/// Reports to one tracker.
pub(super) struct Reporter {
    pub catalogue: Catalogue,
    host: String,
    port: u16,
    queue: Mutex<ReportQueue>,
    /// Wakes the task: something is due earlier than before.
    sooner: Notify,
}

struct ReportQueue {
    reports: Reports,
    is_running: bool,
    /// Until then, the tracker is known to take only single reports.
    single_until: Option<Moment>,
}

/// What a reporter does next.
pub(super) enum NextReports {
    /// Nothing, until something changes.
    None,
    /// Wait until then.
    At(Moment),
    /// Report these torrents now.
    Now {
        torrents: Vec<InfoHash>,
        /// With one request for each torrent.
        is_single: bool,
    },
}

impl Reporters {
    /// Returns the reporter to the tracker whose catalogue is at `url`. `client` makes its
    /// requests.
    ///
    /// # Errors
    /// If `url` is not an address.
    pub(crate) fn at(
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
        let queue = ReportQueue { reports, is_running: false, single_until: None };
        Self { catalogue, host, port, queue: Mutex::new(queue), sooner: Notify::new() }
    }

    /// Returns whether it reports to `tracker`.
    pub(crate) fn is_for(&self, tracker: &TrackerUrl) -> bool {
        tracker.port() == self.port && tracker.host() == self.host
    }

    /// Returns the host and port of the tracker.
    pub(crate) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Notes that the pieces held of a torrent have changed. Returns whether a task has to be
    /// started.
    #[must_use]
    pub(crate) fn changed(&self, now: Moment, info_hash: InfoHash) -> bool {
        self.change(|reports| reports.changed(now, info_hash))
    }

    /// Notes that the tracker has answered an announce of the torrent. With `is_new` the tracker
    /// knows nothing of the torrent yet. Returns whether a task has to be started.
    #[must_use]
    pub(crate) fn announced(&self, now: Moment, info_hash: InfoHash, is_new: bool) -> bool {
        self.change(|reports| reports.announced(now, info_hash, is_new))
    }

    /// Notes that the torrent was announced while it was being reported.
    pub(crate) fn announced_meanwhile(&self, now: Moment, info_hash: InfoHash) {
        self.queue.lock().reports.announced(now, info_hash, false);
    }

    /// Stops reporting the torrent.
    pub(crate) fn forget(&self, info_hash: InfoHash) {
        self.queue.lock().reports.forget(info_hash);
    }

    /// Returns what to do next.
    pub(crate) fn next(&self, now: Moment) -> NextReports {
        let mut queue = self.queue.lock();
        let is_single = queue.single_until.is_some_and(|until| now < until);
        let most = if is_single { SINGLE_REPORTS } else { MAX_BATCH };
        let torrents = queue.reports.take(now, most);
        // The state machine has no deadline while a request is under way.
        match queue.reports.deadline() {
            Some(deadline) => NextReports::At(deadline),
            None if torrents.is_empty() => {
                // The next change starts another task.
                queue.is_running = false;
                NextReports::None
            }
            None => NextReports::Now { torrents, is_single },
        }
    }

    /// Waits until something is due earlier than it was.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Notes the result of a report.
    pub(crate) fn done(&self, now: Moment, info_hash: InfoHash, reported: ReportOutcome) {
        self.queue.lock().reports.done(now, info_hash, reported);
    }

    /// Notes that a request with reports is over.
    pub(crate) fn finished(&self, now: Moment, was_answered: bool) {
        self.queue.lock().reports.finished(now, was_answered);
    }

    /// Notes that the tracker takes no batches.
    pub(crate) fn takes_single_reports(&self, now: Moment) {
        self.queue.lock().single_until = Some(now + SINGLE_FOR);
    }

    fn change(&self, change: impl FnOnce(&mut Reports)) -> bool {
        let mut queue = self.queue.lock();
        let before = queue.reports.deadline();
        change(&mut queue.reports);
        let after = queue.reports.deadline();
        if after.is_none() || after == before {
            return false;
        }
        if std::mem::replace(&mut queue.is_running, true) {
            drop(queue);
            self.sooner.notify_one();
            return false;
        }
        true
    }
}

/// Reports sent one after the other before the next pause, to trackers that take no batches.
const SINGLE_REPORTS: usize = 50;

/// Time after which a tracker is asked again whether it takes batches.
const SINGLE_FOR: Duration = Duration::from_secs(3_600);
