//! Tells a tracker of ours which pieces we hold, so that it can say in whose hands they are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::debug;

use crate::announce::CatalogueUrl;
use crate::base::{AnnounceKey, Bitfield, PeerId};
use crate::tracker_client::{Catalogue, CatalogueError, Holdings, TrackerClient};

use super::entry::Entry;
use super::handle::TorrentHandle;
use super::hub::PORT_OF_NOBODY;
use super::record::Record;
use super::shared::Shared;
use super::{TorrentState, TorrentStatus};

/// The catalogues that the torrents of a session report to, each of them once.
#[derive(Default)]
pub(super) struct Catalogues(
    Mutex<HashMap<CatalogueUrl, Weak<Catalogue>, foldhash::fast::FixedState>>,
);

impl Catalogues {
    /// Returns the catalogue at `url`, asked by `client` like any tracker.
    ///
    /// # Errors
    /// If `url` is no address.
    pub fn at(
        &self,
        url: CatalogueUrl,
        client: &TrackerClient,
    ) -> Result<Arc<Catalogue>, CatalogueError> {
        let mut known = self.0.lock();
        if let Some(catalogue) = known.get(&url).and_then(Weak::upgrade) {
            return Ok(catalogue);
        }
        let catalogue = Arc::new(client.catalogue(&url)?);
        if known.len() == known.capacity() {
            known.retain(|_, catalogue| catalogue.strong_count() > 0);
        }
        known.insert(url, Arc::downgrade(&catalogue));
        Ok(catalogue)
    }
}

/// Who reports, as the tracker knows it from the announces.
struct Reporter {
    shared: Arc<Shared>,
    catalogue: Arc<Catalogue>,
    entry: Arc<Entry>,
    handle: TorrentHandle,
    peer_id: PeerId,
    port: u16,
    key: AnnounceKey,
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
        shared: Arc::clone(shared),
        catalogue: Arc::clone(catalogue),
        entry: Arc::clone(entry),
        handle: TorrentHandle::new(Arc::clone(shared), Arc::clone(entry)),
        peer_id: shared.peer_id,
        port: shared.listen_port.unwrap_or(PORT_OF_NOBODY),
        key: shared.announce_key(entry.info_hash()),
    };
    shared.runtime.spawn(reporter.run());
}

impl Reporter {
    /// Reports after each change, not more often than every [`SPACING`], until the torrent is
    /// gone, is paused, or sleeps and everything is reported.
    async fn run(mut self) {
        let mut reported: Option<Bitfield> = None;
        let (mut wait, mut unknown) = (SPACING, 0);
        loop {
            let status = self.handle.status();
            let known = known(&status);
            let is_told = known.is_some() && known == reported.as_ref().map(Bitfield::count);
            if is_told || known.is_none() || !self.is_announced() {
                let is_paused = matches!(status.state, TorrentState::Paused { .. });
                if (is_told || is_paused) && self.rests() || self.handle.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(wait).await;
            let Some(have) = self.handle.have().await else { return };
            // It may have been paused, or a check may have begun, in the meantime.
            let is_known = self::known(&self.handle.status()).is_some() && self.is_announced();
            if !is_known || reported.as_ref() == Some(&have) {
                continue;
            }
            let holdings = Holdings {
                peer_id: self.peer_id,
                port: self.port,
                key: self.key,
                bitfield: have.as_wire(),
            };
            match self.catalogue.report_holdings(self.handle.info_hash(), holdings).await {
                Ok(()) => {
                    self.entry.set_reported(have.count());
                    (reported, wait, unknown) = (Some(have), SPACING, 0);
                }
                Err(error) => {
                    debug!(%error, "the tracker did not take our report of holdings");
                    let is_unknown = matches!(error, CatalogueError::Refused { status: 409, .. });
                    if is_unknown && unknown < MOST_UNKNOWN {
                        // It has been restarted since we announced: it is told of us first.
                        unknown += 1;
                        let (host, port) = self.catalogue.place();
                        let info_hash = self.handle.info_hash();
                        self.shared.hub.was_forgotten(info_hash, &host, port);
                    } else {
                        wait = (wait * 4).min(LONGEST);
                    }
                }
            }
        }
    }

    /// Returns whether the tracker knows the torrent and us from an announce. It refuses reports
    /// from others.
    fn is_announced(&self) -> bool {
        let (host, port) = self.catalogue.place();
        self.shared.hub.is_known_to(self.handle.info_hash(), &host, port)
    }

    /// Whether there is nothing to report before the torrent wakes, which starts another one.
    fn rests(&self) -> bool {
        let asleep = |entry: &Entry| entry.asleep(|_| ()).is_some();
        if !asleep(&self.entry) {
            return false;
        }
        self.entry.reporting.store(false, Ordering::Release);
        // If it has woken in between, nobody else may have been started.
        asleep(&self.entry) || self.entry.reporting.swap(true, Ordering::AcqRel)
    }
}

/// How many pieces are held, of a torrent that takes part in its swarm. Of others nothing is known
/// (the disk is being looked at), or they are not announced, so that reports would be refused.
fn known(status: &TorrentStatus) -> Option<u32> {
    let takes_part = matches!(status.state, TorrentState::Downloading | TorrentState::Seeding);
    takes_part.then_some(status.pieces_have)
}

const SPACING: Duration = Duration::from_secs(2);
/// Times in a row that a tracker may say that it does not know us and be announced to at once. One
/// that goes on has not understood our announces.
const MOST_UNKNOWN: u32 = 2;
const LONGEST: Duration = Duration::from_secs(60);
