//! Errors of the daemon.

use std::io;
use std::path::PathBuf;

use super::reason::Reason;
use crate::state::StateError;
use piecework_core::{InfoHash, Unwritable, printable_path};
use piecework_journal::JournalError;
use piecework_storage::StorageError;

/// Why a daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine could not be started.
    #[error(transparent)]
    Session(#[from] piecework_engine::StartError),
    /// The state cannot be opened or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The folder for `.torrent` files cannot be created.
    #[error("the folder `{}` cannot be created: {source}", printable_path(path))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A first step failed, such as work on a thread.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a request failed. The sentence is meant for whoever sent it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DaemonError {
    /// There is no such torrent here.
    #[error("there is no torrent `{0}` here")]
    Unknown(InfoHash),
    /// The request is invalid.
    #[error(transparent)]
    Invalid(Reason),
    /// The request is not allowed. Most often it names a folder outside the allowed ones.
    #[error(transparent)]
    Forbidden(Reason),
    /// Only the owner may request this.
    #[error(
        "{0} needs the owner's token: the tools send it by themselves when the daemon's user runs \
         them, and `torrent-status --login` tells it to a browser"
    )]
    OwnerOnly(
        /// What was requested, as the beginning of a sentence.
        String,
    ),
    /// The request conflicts with the current state: a name is taken, a torrent is being moved.
    #[error(transparent)]
    Conflict(Reason),
    /// A file cannot be written: another one exists there, or its folder is not writable.
    #[error(transparent)]
    Occupied(Reason),
    /// Something was not found: a name in a catalogue, or a file.
    #[error(transparent)]
    NotFound(Reason),
    /// A tracker or web server failed.
    #[error(transparent)]
    Upstream(Reason),
    /// An operation on a disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Ending,
    /// The change could not be written to the state, so it was not made.
    #[error(transparent)]
    Database(#[from] StateError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file beside the state, such as a `.torrent`, could not be written or read, so nothing was
    /// done.
    #[error(transparent)]
    TorrentFile(Reason),
}

impl DaemonError {
    pub(super) fn invalid(why: impl Into<Reason>) -> Self {
        Self::Invalid(why.into())
    }

    pub(super) fn forbidden(why: impl Into<Reason>) -> Self {
        Self::Forbidden(why.into())
    }

    pub(super) fn conflict(why: impl Into<Reason>) -> Self {
        Self::Conflict(why.into())
    }

    pub(super) fn occupied(why: impl Into<Reason>) -> Self {
        Self::Occupied(why.into())
    }

    pub(super) fn not_found(why: impl Into<Reason>) -> Self {
        Self::NotFound(why.into())
    }

    pub(super) fn upstream(why: impl Into<Reason>) -> Self {
        Self::Upstream(why.into())
    }

    pub(super) fn torrent_file(why: impl Into<Reason>) -> Self {
        Self::TorrentFile(why.into())
    }

    /// Returns whether the request failed because a disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Storage(StorageError::Full { .. })
            | Self::Database(StateError::Unwritable { why: Unwritable::Full, .. }) => true,
            Self::TorrentFile(reason) => {
                reason.cause().and_then(Unwritable::of) == Some(Unwritable::Full)
            }
            _ => false,
        }
    }
}
