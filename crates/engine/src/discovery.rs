//! How a session's torrents find peers: for now by trackers alone.

use std::sync::Arc;

use crate::tracker_client::{CatalogueError, TrackerClient};
use piecework_proto::announce::{CatalogueUrl, Provenance, TrackerUrl};

use super::announce_scheduler::AnnounceScheduler;
use super::entry::Entry;
use super::means::Means;
use super::reporter::{Reporter, Reporters};

pub(super) struct Discovery {
    means: Arc<Means>,
    pub scheduler: Arc<AnnounceScheduler>,
    /// Trackers of ours that want to know which pieces are held.
    reporters: Reporters,
}

impl Discovery {
    pub(crate) fn new(means: Arc<Means>, trackers: TrackerClient) -> Self {
        let scheduler = Arc::new(AnnounceScheduler::new(Arc::clone(&means), trackers));
        Self { means, scheduler, reporters: Reporters::default() }
    }

    /// Returns the reporter to the catalogue at `url`, if holdings are reported.
    ///
    /// # Errors
    /// If `url` is not an address.
    pub(crate) fn reporter(
        &self,
        url: Option<CatalogueUrl>,
    ) -> Result<Option<Arc<Reporter>>, CatalogueError> {
        match url.filter(|_| self.means.config.report_holdings) {
            Some(url) => {
                self.reporters.at(url, &self.scheduler.trackers, self.means.rng()).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Announces a torrent to these trackers, or to those of its metainfo, once it is started.
    pub(crate) fn add(&self, entry: &Arc<Entry>, trackers: Option<Vec<Vec<TrackerUrl>>>) {
        let mut tiers = trackers.unwrap_or_else(|| {
            let known = |url: &String| url.parse::<TrackerUrl>().ok();
            let tiers = entry.metainfo.trackers().iter();
            tiers.map(|tier| tier.iter().filter_map(known).collect()).collect()
        });
        if self.means.config.private_trackers {
            for url in tiers.iter_mut().flatten() {
                if url.provenance() == Provenance::Foreign {
                    *url = url.clone().named_by(Provenance::Nearby);
                }
            }
        }
        self.scheduler.add(entry, self.scheduler.announcer(tiers));
    }
}
