//! A torrent of which only the magnet link is known.

use std::path::PathBuf;
use std::sync::Arc;

use super::pending_work::{PendingWork, fraction};
use piecework_api::{State, Torrent};
use piecework_core::printable;
use piecework_proto::announce::Magnet;

/// A torrent of which only the magnet link is known.
pub(super) struct LinkedTorrent {
    /// The name in the link, or the info-hash.
    pub name: String,
    /// The folder it will be downloaded to.
    pub root: PathBuf,
    /// What happens with its metadata.
    pub phase: LinkPhase,
    /// Why the last attempt failed.
    pub error: Option<String>,
    pub work: Arc<PendingWork>,
}

/// What happens with the metadata of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkPhase {
    /// It is fetched.
    Fetching,
    Paused,
    /// It came, but the torrent cannot be added.
    Failed,
}

impl LinkedTorrent {
    /// Returns the torrent of a link, to be downloaded to `root`.
    pub(crate) fn new(link: &Magnet, root: PathBuf, paused: bool) -> Self {
        let name = link.name.as_deref().map(printable).filter(|name| !name.trim().is_empty());
        let name = name.map(|name| name.chars().take(MAX_NAME).collect());
        Self {
            name: name.unwrap_or_else(|| link.info_hash.to_string()),
            root,
            phase: if paused { LinkPhase::Paused } else { LinkPhase::Fetching },
            error: None,
            work: Arc::default(),
        }
    }

    /// Returns its state.
    pub(crate) fn doing(&self) -> State {
        match self.phase {
            LinkPhase::Fetching => State::Metadata,
            LinkPhase::Paused => State::Paused,
            LinkPhase::Failed => State::Failed,
        }
    }

    /// Fills in its progress.
    pub(crate) fn show(&self, torrent: &mut Torrent) {
        let (received, claimed) = self.work.progress();
        torrent.metadata_progress = fraction(received, claimed).min(MAX_PROGRESS);
        torrent.error.clone_from(&self.error);
        torrent.state = self.doing();
    }
}

/// Maximum number of characters of the name.
const MAX_NAME: usize = 255;

/// The most that is shown before the torrent is added: bytes that are here may be wrong.
const MAX_PROGRESS: f64 = 0.99;
