//! Tells a tracker of ours which pieces we hold, so that it can say in whose hands they are.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::base::{Bitfield, PeerId};
use crate::tracker_client::{Catalogue, CatalogueError, Holdings};

use super::TorrentState;
use super::handle::TorrentHandle;

/// Who reports, as the tracker knows it from the announces.
pub(super) struct Reporter {
    pub catalogue: Arc<Catalogue>,
    pub handle: TorrentHandle,
    pub peer_id: PeerId,
    pub port: u16,
    pub key: u32,
}

impl Reporter {
    /// Reports after each change, not more often than every [`SPACING`], until the torrent is
    /// gone.
    pub async fn run(mut self) {
        let mut reported: Option<Bitfield> = None;
        let mut wait = SPACING;
        loop {
            // Nothing is known while the disk is being looked at.
            let known = self.known();
            if known.is_none() || known == reported.as_ref().map(Bitfield::count) {
                if self.handle.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(wait).await;
            let Some(have) = self.handle.have().await else { return };
            // A check may have begun just now, and then it is not what we hold.
            if self.known().is_none() || reported.as_ref() == Some(&have) {
                continue;
            }
            let holdings = Holdings {
                peer_id: self.peer_id,
                port: self.port,
                key: self.key,
                bitfield: have.as_wire(),
            };
            match self.catalogue.report_holdings(self.handle.info_hash(), holdings).await {
                Ok(()) => (reported, wait) = (Some(have), SPACING),
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

    /// How many pieces are held, as far as that is known.
    fn known(&self) -> Option<u32> {
        let status = self.handle.status();
        let checking = matches!(status.state, TorrentState::Checking { .. });
        (!checking).then_some(status.pieces_have)
    }
}

const SPACING: Duration = Duration::from_secs(2);
/// It knows us from our announce on, which comes within seconds.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(60);
