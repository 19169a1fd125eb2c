//! Tells a tracker of ours which pieces we hold, so that it can say in whose hands they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::debug;

use crate::base::{Bitfield, PeerId};
use crate::tracker_client::{Catalogue, CatalogueError, Holdings};

use super::entry::Entry;
use super::handle::TorrentHandle;
use super::hub::PORT_OF_NOBODY;
use super::record::Record;
use super::shared::Shared;
use super::{TorrentState, TorrentStatus};

/// Who reports, as the tracker knows it from the announces.
struct Reporter {
    catalogue: Arc<Catalogue>,
    entry: Arc<Entry>,
    handle: TorrentHandle,
    peer_id: PeerId,
    port: u16,
}

/// Has the torrent's holdings reported as long as they change, if there is a tracker that wants
/// to know.
pub(super) fn report(shared: &Arc<Shared>, entry: &Arc<Entry>, record: &Record) {
    let Some(catalogue) = &record.catalogue else { return };
    let held = record.have.as_ref().map_or(u32::MAX - 1, |have| have.count());
    let total = entry.metainfo.info().geometry().pieces();
    if entry.is_reported(held.min(total)) || entry.reporting.swap(true, Ordering::AcqRel) {
        return;
    }
    let reporter = Reporter {
        catalogue: Arc::clone(catalogue),
        entry: Arc::clone(entry),
        handle: TorrentHandle::new(Arc::clone(shared), Arc::clone(entry)),
        peer_id: shared.peer_id,
        port: shared.listen_port.unwrap_or(PORT_OF_NOBODY),
    };
    shared.runtime.spawn(reporter.run());
}

impl Reporter {
    /// Reports after each change, not more often than every [`SPACING`], until the torrent is
    /// gone, or sleeps and all is told.
    async fn run(mut self) {
        let mut reported: Option<Bitfield> = None;
        let mut wait = SPACING;
        loop {
            // Nothing is known while the disk is being looked at.
            let known = known(&self.handle.status());
            if known.is_none() || known == reported.as_ref().map(Bitfield::count) {
                if self.rests(known) || self.handle.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(wait).await;
            let Some(have) = self.handle.have().await else { return };
            // A check may have begun just now, and then it is not what we hold.
            if self::known(&self.handle.status()).is_none() || reported.as_ref() == Some(&have) {
                continue;
            }
            let holdings = Holdings {
                peer_id: self.peer_id,
                port: self.port,
                key: self.entry.key,
                bitfield: have.as_wire(),
            };
            match self.catalogue.report_holdings(self.handle.info_hash(), holdings).await {
                Ok(()) => {
                    self.entry.set_reported(have.count());
                    (reported, wait) = (Some(have), SPACING);
                }
                // A torrent or peer it does not know yet may be one it is about to know.
                Err(error) => {
                    debug!(%error, "the tracker did not take our report of holdings");
                    wait = match error {
                        CatalogueError::NotFound(_) => (wait * 2).min(LONGEST_UNKNOWN),
                        _ => (wait * 4).min(LONGEST),
                    };
                }
            }
        }
    }

    /// Whether there is nothing to report before the torrent wakes, which starts another one.
    fn rests(&self, known: Option<u32>) -> bool {
        let asleep = |entry: &Entry| entry.asleep(|_| ()).is_some();
        if known.is_none() || !asleep(&self.entry) {
            return false;
        }
        self.entry.reporting.store(false, Ordering::Release);
        // If it has woken in between, nobody else may have been started.
        asleep(&self.entry) || self.entry.reporting.swap(true, Ordering::AcqRel)
    }
}

/// How many pieces are held, as far as that is known.
fn known(status: &TorrentStatus) -> Option<u32> {
    let looking = matches!(status.state, TorrentState::Checking { .. } | TorrentState::Waiting);
    (!looking).then_some(status.pieces_have)
}

const SPACING: Duration = Duration::from_secs(2);
/// It knows us from our announce on, which comes within seconds.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(60);
