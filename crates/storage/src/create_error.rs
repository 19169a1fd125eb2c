//! Why no torrent was made.

use std::path::PathBuf;

use piecework_core::metainfo::MetainfoError;
use piecework_core::printable;

use super::error::{StorageError, shown};

/// Why no torrent was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The folder contains no files.
    #[error("`{}` is a folder without any files, so there is nothing to share", shown(path))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The folder contains files, but all were left out.
    #[error("nothing in `{}` can be shared: {excluded} excluded, {left_out} left out", shown(path))]
    NothingLeft {
        /// The folder.
        path: PathBuf,
        /// The number of files and folders that the options exclude.
        excluded: usize,
        /// The number of links, pipes and devices.
        left_out: usize,
    },
    /// A pattern of files to leave out is invalid.
    #[error("the pattern `{}` is invalid: {}", printable(pattern), source.kind())]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// It is a pipe, a socket or a device.
    #[error("`{}` is neither a file nor a folder", shown(path))]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// It is the root folder of the file system.
    #[error("`{}` has no name that a torrent could have", shown(path))]
    Nameless {
        /// The path.
        path: PathBuf,
    },
    /// A file changed while it was hashed.
    #[error(
        "`{}` was changed while it was being hashed; try again when nothing writes to it",
        shown(path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A torrent cannot have this name, number of files, or piece length.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// The caller cancelled the work.
    #[error("the work was cancelled")]
    Cancelled,
}
