//! Tells a tracker of ours which pieces we hold, so that it can say in whose hands they are.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::base::PeerId;
use crate::tracker_client::{Catalogue, CatalogueError, Holdings};

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
        let mut reported = None;
        let mut wait = SPACING;
        loop {
            let held = self.handle.status().pieces_have;
            if reported == Some(held) {
                if self.handle.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(wait).await;
            let held = self.handle.status().pieces_have;
            let Some(have) = self.handle.have().await else { return };
            let holdings = Holdings {
                peer_id: self.peer_id,
                port: self.port,
                key: self.key,
                bitfield: have.as_wire(),
            };
            match self.catalogue.report_holdings(self.handle.info_hash(), holdings).await {
                Ok(()) => (reported, wait) = (Some(held), SPACING),
                // A torrent or peer it does not know yet may be one it is about to know.
                Err(error) => {
                    debug!(%error, "the tracker did not take our report of holdings");
                    wait = match error {
                        CatalogueError::NotFound(_) => (wait * 2).min(LONGEST),
                        _ => (wait * 4).min(LONGEST),
                    };
                }
            }
        }
    }
}

const SPACING: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
