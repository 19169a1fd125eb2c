//! The tracker of a swarm on one machine.

use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::Catalogue;
use piecework_proto::announce::catalogue::RegisterOptions;
use piecework_proto::announce::{CatalogueUrl, TrackerTarget, TrackerUrl};
use piecework_tracker::{TrackerConfig, TrackerHandle, TrackerServer};

use super::SimError;

/// A tracker on loopback, on a port that the system chooses. It keeps nothing on disk.
pub(super) struct LocalTracker {
    handle: TrackerHandle,
    target: TrackerTarget,
}

impl LocalTracker {
    /// Starts it, with `metainfo` in its catalogue.
    pub(super) async fn start(metainfo: &Metainfo) -> Result<Self, SimError> {
        let handle = TrackerServer::start(TrackerConfig::in_memory()).await.map_err(failed)?;
        let address = handle.local_addr().to_string();
        let target = TrackerTarget::parse(&address).map_err(failed)?;
        let base = target.catalogue.as_deref().unwrap_or_default();
        let catalogue = Catalogue::new(base).map_err(failed)?;
        let torrent = metainfo.bytes().map_err(failed)?;
        let registering = catalogue.register(&torrent, RegisterOptions::default());
        registering.await.map_err(failed)?;
        Ok(Self { handle, target })
    }

    /// Returns the tiers to announce to.
    pub(super) fn tiers(&self) -> Vec<Vec<TrackerUrl>> {
        self.target.tiers.clone()
    }

    /// Returns the address of its catalogue.
    pub(super) fn catalogue(&self) -> Option<CatalogueUrl> {
        self.target.catalogue.clone().map(CatalogueUrl::named)
    }

    pub(super) async fn stop(self) {
        self.handle.shutdown().await;
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SimError {
    SimError::Tracker(error.into())
}
