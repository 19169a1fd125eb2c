//! Why a torrent stops.

use std::fmt;
use std::path::{Path, PathBuf};

use piecework_core::{InfoHash, printable, printable_bytes};
use piecework_storage::StorageError;
use piecework_swarm::lifecycle::FaultKind;

use crate::net::SourceError;

/// Why a torrent stopped. Remove the cause and resume the torrent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TorrentError {
    /// The disk refused. Nothing that was verified is lost.
    #[error(transparent)]
    Storage(StorageError),
    /// The disk is full. With a [`Keeper`](super::Keeper) the torrent goes on by itself when there
    /// is room again.
    #[error(transparent)]
    Full(StorageError),
    /// The process has no open files or memory to spare, or another program has a file. With a
    /// [`Keeper`](super::Keeper) the torrent tries again by itself.
    #[error("{0}; it is retried automatically")]
    Again(#[source] StorageError),
    /// A file with content of the torrent does not exist any more.
    #[error("{0}: put it back and start the torrent, or have it checked to download it again")]
    Missing(#[source] StorageError),
    /// None of the torrent's files exists any more. Most likely their disk is not there.
    #[error(
        "cannot open `{}`: none of the torrent's files is there any more: bring them back, say \
         where they are, or have it checked to get it anew",
        shown(root)
    )]
    AllMissing {
        /// The folder that the torrent lies in.
        root: PathBuf,
    },
    /// Content could not be read for a peer.
    #[error(transparent)]
    Unreadable(SourceError),
    /// Pieces that were held are wrong now, in files that were finished: somebody may have changed
    /// them on purpose.
    #[error(
        "{why}: `{wrong}` of its `{checked}` pieces are not right any more; put the file back and \
         have the torrent checked, or start it to download these pieces again"
    )]
    Damaged {
        /// How that was noticed, with the path of a file.
        why: String,
        /// Pieces that are not right any more.
        wrong: u32,
        /// Pieces that were checked.
        checked: u32,
    },
    /// Files that are not the torrent's have the names of its files, so it does not write.
    #[error(transparent)]
    Strange(#[from] StrangeFiles),
    /// Another torrent of the session has one of its paths, so it does not write.
    #[error(transparent)]
    PathTaken(#[from] PathConflict),
    /// The torrent was removed from its session, or the session ended.
    #[error("the torrent was removed from the session")]
    Removed,
}

/// Files that are not the torrent's, in the place of its files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrangeFiles {
    /// A file is longer than the torrent says.
    #[error("{0}: {REPLACE}")]
    TooLong(#[source] StorageError),
    /// Files hold something else than the torrent describes.
    #[error(
        "{} what the torrent describes, so nothing is written: {REPLACE}",
        present(first, *others)
    )]
    Present {
        /// The path of the first of them.
        first: PathBuf,
        /// How many others there are.
        others: usize,
    },
}

/// A path that two torrents of a session want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathConflict {
    /// The path belongs to another torrent.
    #[error(transparent)]
    Taken(Box<PathTaken>),
    /// The torrent would write to another torrent's file.
    #[error(
        "`{}` is also a file of the torrent {}, so nothing is written to it: remove one of the two \
         torrents, or add one again with another name or folder",
        shown(path),
        named(owner)
    )]
    WouldWrite {
        /// The path of the file.
        path: PathBuf,
        /// The name and info-hash of the other torrent.
        owner: (String, InfoHash),
    },
    /// Another torrent would lose its file.
    #[error(
        "`{}` is also a file of the torrent {}, which would lose it: remove one of the two torrents \
         first",
        shown(path),
        named(owner)
    )]
    WouldLose {
        /// The path of the file.
        path: PathBuf,
        /// The name and info-hash of the other torrent.
        owner: (String, InfoHash),
    },
}

/// A path that a torrent cannot have, because another torrent of the session has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTaken {
    /// The torrent that cannot have the path.
    pub torrent: (String, InfoHash),
    /// The torrent that has the path.
    pub owner: (String, InfoHash),
    /// The path that both want.
    pub path: PathBuf,
    /// Both could have it if neither writes: their shared files have the same paths and lengths,
    /// and the owner has all of its content.
    pub can_be_shared: bool,
    /// The owner's files are being removed, so the path is free soon.
    pub leaving: bool,
}

impl PathTaken {
    /// Returns the sentence for two torrents that are both in the session.
    pub fn standing(&self) -> String {
        format!(
            "`{}` belongs to the torrent {}, which was here before: nothing is done with this one \
             until one of the two is removed or moved, and this one resumed",
            shown(&self.path),
            named(&self.owner),
        )
    }
}

impl std::error::Error for PathTaken {}

impl fmt::Display for PathTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, owner) = (shown(&self.path), named(&self.owner));
        let torrent = named(&self.torrent);
        if self.leaving {
            return write!(
                f,
                "`{path}` is just being removed with the torrent {owner}: try {torrent} again in a \
                 moment"
            );
        }
        write!(
            f,
            "`{path}` belongs to the torrent {owner}, so {torrent} cannot have it: give it another \
             name (`--rename NAME`) or another folder (`--output DIR`)"
        )
    }
}

impl From<StorageError> for TorrentError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full { .. } => Self::Full(error),
            StorageError::Exhausted { .. } | StorageError::InUse { .. } => Self::Again(error),
            StorageError::TooLong { .. } => Self::Strange(StrangeFiles::TooLong(error)),
            _ => Self::Storage(error),
        }
    }
}

impl TorrentError {
    /// Returns whether the fault may pass by itself.
    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::Full(_) | Self::Again(_) => FaultKind::Passing,
            _ => FaultKind::Lasting,
        }
    }
}

/// Begins a sentence about files that are in the way.
fn present(first: &Path, others: usize) -> impl fmt::Display {
    let first = shown(first);
    match others {
        0 => format!("`{first}` exists already and is not"),
        1 => format!("`{first}` and another file exist already and are not"),
        more => format!("`{first}` and {more} other files exist already and are not"),
    }
}

fn shown(path: &Path) -> impl fmt::Display + '_ {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}

fn named((name, info_hash): &(String, InfoHash)) -> String {
    format!("`{}` ({:.8})", printable(name), info_hash.to_string())
}

/// What can be done about files that are not the torrent's.
const REPLACE: &str = "move it away and resume the torrent, have it replaced (`--overwrite`), or add \
                       the torrent under another name (`--rename NAME`) or in another folder";
