//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::state::StateError;
use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_journal::JournalError;
use piecework_storage::StorageError;

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not start.
    #[error(transparent)]
    Session(#[from] piecework_engine::StartError),
    /// The state cannot be opened or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The folder for `.torrent` files cannot be made.
    #[error("the folder `{}` cannot be made: {source}", printable_path(path))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it does first comes to nothing.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a request comes to nothing. The sentence is for whoever asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DaemonError {
    /// There is no such torrent here.
    #[error("there is no torrent `{0}` here")]
    Unknown(InfoHash),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It may not be done: a folder outside the allowed ones, most often.
    #[error("{0}")]
    Forbidden(String),
    /// Somebody else than the owner asked for what only the owner may have done.
    #[error(
        "{0} needs the owner's token: the tools send it by themselves when the daemon's user runs \
         them, and `torrent-status --login` tells it to a browser"
    )]
    OwnerOnly(
        /// What was asked, the beginning of a sentence.
        String,
    ),
    /// It does not fit what is there: a name that is taken, a torrent that is being moved.
    #[error("{0}")]
    Conflict(String),
    /// A file that is to be written may not be: another one is there, or its folder refuses.
    #[error("{0}")]
    Occupied(String),
    /// Something asked for was not found: a name in no catalogue, a file that is not there.
    #[error("{0}")]
    NotFound(String),
    /// A tracker or web server did not do its part.
    #[error("{0}")]
    Upstream(String),
    /// The disk said no.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The daemon is about to end.
    #[error("the daemon is shutting down")]
    Ending,
    /// What was asked for could not be written to the state, so it was not done.
    #[error(transparent)]
    Kept(#[from] StateError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What was asked for could not be written beside the state, or read again, so it was not done.
    #[error("{0}")]
    State(String),
    /// The same because there is no room.
    #[error("{0}")]
    StateFull(String),
}

impl DaemonError {
    /// Returns whether a disk has no room for what was asked.
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Storage(StorageError::Full { .. })
                | Self::StateFull(_)
                | Self::Kept(StateError::Unwritable { why: Unwritable::Full, .. })
        )
    }
}
