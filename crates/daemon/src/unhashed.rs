//! A torrent whose files are not hashed yet.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::DaemonError;
use super::pending_work::{AddOutcome, PendingWork, fraction};
use piecework_api::{Added, State, Torrent};

/// A torrent whose files are not hashed yet.
pub(super) struct UnhashedTorrent {
    /// The name of the file or folder.
    pub name: String,
    /// The folder it lies in.
    pub root: PathBuf,
    /// Why the last attempt failed.
    pub error: Option<String>,
    pub work: Arc<PendingWork>,
}

/// A torrent that is listed and being hashed.
#[derive(Debug)]
pub struct PendingSeed {
    /// Its entry in the list. The info-hash is provisional.
    pub listed: Added,
    pub(super) outcome: oneshot::Receiver<AddOutcome>,
}

impl PendingSeed {
    /// Waits until it is hashed and served.
    ///
    /// # Errors
    /// If it cannot be hashed or is removed, or the daemon ends.
    pub async fn done(self) -> Result<Added, DaemonError> {
        self.outcome.await.unwrap_or(Err(DaemonError::Ending))
    }
}

impl UnhashedTorrent {
    /// Returns a torrent of what is called `name` in the folder `root`.
    pub(crate) fn new(name: String, root: PathBuf) -> Self {
        Self { name, root, error: None, work: Arc::default() }
    }

    /// Returns its state.
    pub(crate) fn doing(&self) -> State {
        match (&self.error, self.work.has_begun()) {
            (Some(_), _) => State::Failed,
            (None, true) => State::Hashing,
            (None, false) => State::QueuedHash,
        }
    }

    /// Fills in its progress.
    pub(crate) fn show(&self, torrent: &mut Torrent) {
        let (done, total) = self.work.progress();
        (torrent.bytes, torrent.bytes_wanted) = (total, total);
        torrent.pieces = self.work.pieces();
        torrent.error.clone_from(&self.error);
        torrent.state = self.doing();
        if torrent.state == State::Hashing {
            torrent.check_progress = fraction(done, total);
        }
    }
}
