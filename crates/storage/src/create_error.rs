//! Why no torrent was made.

use std::path::PathBuf;

use piecework_core::metainfo::MetainfoError;
use piecework_core::printable;

use super::error::{StorageError, shown};

/// Why no torrent was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There are no files in the folder.
    #[error("`{}` is a folder without any files, so there is nothing to share", shown(path))]
    EmptyFolder {
        /// The folder without files.
        path: PathBuf,
    },
    /// There are files in the folder, but none that is shared.
    #[error(
        "nothing in `{}` is to be shared: {excluded} excluded, {left_out} left out",
        shown(path)
    )]
    NothingLeft {
        /// The folder.
        path: PathBuf,
        /// Files and folders that the options exclude.
        excluded: usize,
        /// Links, pipes, devices.
        left_out: usize,
    },
    /// A pattern of files to leave out that cannot be read.
    #[error("the pattern `{}` cannot be read: {why}", printable(pattern))]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pipe, a socket, a device.
    #[error("`{}` is neither a file nor a folder", shown(path))]
    Special {
        /// What it is about.
        path: PathBuf,
    },
    /// The root folder of the file system.
    #[error("`{}` has no name that a torrent could bear", shown(path))]
    Nameless {
        /// The path.
        path: PathBuf,
    },
    /// A file is not what it was when the work began.
    #[error("`{}` was changed while it was being hashed; try again when it rests", shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A torrent may not be like that: a name, a number of files, a piece length.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The caller asked to stop.
    #[error("the work was cancelled")]
    Cancelled,
}
