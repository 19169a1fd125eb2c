//! Why a torrent stops.

use piecework_storage::StorageError;
use piecework_swarm::lifecycle::FaultKind;

/// Why a torrent stopped. Clear the cause and resume it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorrentError {
    /// The disk said no; nothing verified is lost.
    #[error("{0}")]
    Storage(String),
    /// There is no room left on the disk. With a [`Keeper`](super::Keeper) the torrent goes on by
    /// itself when there is some again.
    #[error("{0}")]
    Full(String),
    /// The process had no open files or memory to spare, or another program has a file. With a
    /// [`Keeper`](super::Keeper) the torrent tries again by itself.
    #[error("{0}")]
    Again(String),
    /// Files that are not the torrent's have the names of its files, so it does not write.
    #[error("{0}")]
    Strange(String),
    /// Another torrent of the session has one of its paths, so it does not write.
    #[error("{0}")]
    PathTaken(String),
    /// It was removed from its session, or the session ended.
    #[error("the torrent was removed from the session")]
    Removed,
}

impl TorrentError {
    /// Returns what a torrent stops on when its storage fails.
    pub(super) fn of(error: &StorageError) -> Self {
        match error {
            StorageError::Full { .. } => Self::Full(error.to_string()),
            StorageError::Exhausted { .. } | StorageError::InUse { .. } => {
                Self::Again(format!("{error}; it is tried again by itself"))
            }
            StorageError::TooLong { .. } => Self::Strange(format!("{error}: {REPLACE}")),
            _ => Self::Storage(error.to_string()),
        }
    }

    /// Whether it may pass by itself.
    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::Full(_) | Self::Again(_) => FaultKind::Passing,
            Self::Storage(_) | Self::Strange(_) | Self::PathTaken(_) | Self::Removed => {
                FaultKind::Lasting
            }
        }
    }
}

/// What can be done about files that are not the torrent's.
pub(super) const REPLACE: &str = "move it away and resume the torrent, have it replaced (`--overwrite`), or add \
                       the torrent under another name (`--rename NAME`) or in another folder";
