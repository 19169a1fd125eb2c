//! Errors between a torrent and its disk, sorted by what one can do about them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use piecework_core::metainfo::MetainfoError;
use piecework_core::printable_bytes;

/// A file operation failed. It is never the fault of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk is full, or the quota or the largest allowed file size is used up.
    #[error("cannot {operation} `{}`: there is no room left: {errno}", shown(path))]
    Full {
        /// The operation that failed.
        operation: Operation,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        errno: Errno,
    },
    /// The operation is not permitted.
    #[error("cannot {operation} `{}`: it is not allowed: {errno}", shown(path))]
    Denied {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        errno: Errno,
    },
    /// A file has become shorter than its content.
    #[error(
        "`{}` has changed: it ends after `{len}` bytes, where at least `{wanted}` are needed",
        shown(path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its current length in bytes.
        len: u64,
        /// The minimum length in bytes.
        wanted: u64,
    },
    /// Another program has changed or replaced a file.
    #[error("`{}` was changed or replaced by another program", shown(path))]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// A file is longer than in the torrent, so it is not the file that the torrent describes.
    #[error("`{}` is longer than in the torrent: `{len}` bytes instead of `{wanted}`", shown(path))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The length in the torrent, in bytes.
        wanted: u64,
    },
    /// The file or folder does not exist.
    #[error("cannot {operation} `{}`: it does not exist", shown(path))]
    Missing {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
    },
    /// The disk that contained a folder is not mounted: its path is now the bare mount point.
    #[error(
        "`{}` was on the disk mounted at `{}`, but nothing is mounted there now: mount the disk and resume \
         the torrent; if its files belong here now, check the torrent, or say where its files are",
        shown(path),
        shown(mount)
    )]
    Unmounted {
        /// The folder.
        path: PathBuf,
        /// Where the disk was mounted.
        mount: PathBuf,
    },
    /// The path would leave the torrent's folder.
    #[error(
        "cannot {operation} `{}`: there is a symbolic link in its path, and links are not followed",
        shown(path)
    )]
    Escape {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
    },
    /// Another program, or another torrent, has locked the file for writing or serving.
    #[error(
        "`{}` is in use: another program, or another torrent, writes to it or serves it",
        shown(path)
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The process is out of descriptors or memory.
    #[error(
        "cannot {operation} `{}`: the process is out of open files or memory: {errno}",
        shown(path)
    )]
    Exhausted {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        errno: Errno,
    },
    /// The target exists already, and nothing is ever replaced.
    #[error("cannot {operation} `{}`: it exists already, and nothing is replaced", shown(path))]
    Exists {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
    },
    /// The path is not allowed.
    #[error("`{}` cannot be used: {reason}", shown(path))]
    Forbidden {
        /// The path.
        path: PathBuf,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The operation was cancelled, and nothing has changed.
    #[error("moving `{}` was cancelled; everything is where it was", shown(path))]
    Cancelled {
        /// The folder that was to be moved.
        path: PathBuf,
    },
    /// The torrent's own file, which has the piece hashes, cannot be read again.
    #[error("pieces cannot be verified: {reason}")]
    Torrent {
        /// The folder of the content.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        reason: TorrentReadError,
    },
    /// The system reports another error: a failing disk, for instance.
    #[error("cannot {operation} `{}`: {errno}", shown(path))]
    System {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        errno: Errno,
    },
    /// An error without an error number of the system.
    #[error("cannot {operation} `{}`: {reason}", shown(path))]
    Other {
        /// The operation that failed.
        operation: Operation,
        /// The file or folder.
        path: PathBuf,
        /// The reason, as the end of a sentence.
        reason: String,
    },
}

/// Why a torrent's own file cannot be read. Shared, so that a [`StorageError`] can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct TorrentReadError(Arc<MetainfoError>);

impl From<MetainfoError> for TorrentReadError {
    fn from(error: MetainfoError) -> Self {
        Self(Arc::new(error))
    }
}

impl PartialEq for TorrentReadError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TorrentReadError {}

/// An operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening it or reading its metadata.
    Open,
    /// Creating it.
    Create,
    /// Reading from it.
    Read,
    /// Writing to it.
    Write,
    /// Syncing it to the disk.
    Sync,
    /// Renaming or moving it.
    Move,
    /// Removing it.
    Remove,
}

impl StorageError {
    pub(super) fn new(operation: Operation, path: PathBuf, errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full { operation, path, errno },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied { operation, path, errno },
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => {
                Self::Exhausted { operation, path, errno }
            }
            Errno::NOENT => Self::Missing { operation, path },
            Errno::LOOP | Errno::XDEV => Self::Escape { operation, path },
            Errno::EXIST => Self::Exists { operation, path },
            _ => Self::System { operation, path, errno },
        }
    }

    pub(super) fn io(operation: Operation, path: &Path, error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::new(operation, path.to_owned(), errno),
            // Only the standard library's own errors have no number: an unexpected end of a file.
            None => Self::other(operation, path.to_owned(), error.to_string()),
        }
    }

    pub(super) fn other(operation: Operation, path: PathBuf, reason: impl Into<String>) -> Self {
        Self::Other { operation, path, reason: reason.into() }
    }

    /// Returns the file or folder that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Full { path, .. }
            | Self::Denied { path, .. }
            | Self::Changed { path, .. }
            | Self::Altered { path }
            | Self::TooLong { path, .. }
            | Self::Missing { path, .. }
            | Self::Unmounted { path, .. }
            | Self::Escape { path, .. }
            | Self::Exists { path, .. }
            | Self::Exhausted { path, .. }
            | Self::InUse { path }
            | Self::Forbidden { path, .. }
            | Self::Cancelled { path }
            | Self::Torrent { path, .. }
            | Self::System { path, .. }
            | Self::Other { path, .. } => path,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Move => "move",
            Self::Remove => "remove",
        })
    }
}

/// Returns a path that is safe to show in a terminal.
pub(super) fn shown(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno) -> StorageError {
        StorageError::new(Operation::Write, PathBuf::from("a/b\x1b"), errno)
    }

    #[test]
    fn system_errors_are_sorted_by_what_one_can_do() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert!(matches!(of(errno), StorageError::Full { .. }), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
            assert!(matches!(of(errno), StorageError::Denied { .. }), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(matches!(of(errno), StorageError::Exhausted { .. }), "{errno}");
        }
        assert!(matches!(of(Errno::NOENT), StorageError::Missing { .. }));
        assert!(matches!(of(Errno::LOOP), StorageError::Escape { .. }));
        assert!(matches!(of(Errno::IO), StorageError::System { errno: Errno::IO, .. }));
    }

    #[test]
    fn the_sentence_names_file_and_deed_and_hides_control_characters() {
        let text = of(Errno::NOSPC).to_string();
        assert!(text.starts_with("cannot write `a/b\\x1b`: there is no room left"), "{text}");
        assert_eq!(of(Errno::IO).path(), Path::new("a/b\x1b"));
    }
}
