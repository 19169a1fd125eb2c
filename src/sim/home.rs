//! The tracker of a swarm on one machine.

use std::path::Path;

use crate::announce::TrackerUrl;

use super::SimError;

/// A tracker on loopback, on a port the system chose.
pub(super) struct Home {}

impl Home {
    /// Starts it; what it keeps goes below `folder`.
    pub async fn start(_folder: &Path) -> Result<Self, SimError> {
        Ok(Self {})
    }

    /// Where to announce.
    pub fn tiers(&self) -> Vec<Vec<TrackerUrl>> {
        Vec::new()
    }

    /// Where its catalogue is.
    pub fn catalogue(&self) -> Option<String> {
        None
    }

    /// Ends it.
    pub async fn stop(self) {}
}
