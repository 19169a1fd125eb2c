//! Absolute paths.

use std::path::{Path, PathBuf};

use super::error::{Operation, StorageError};

/// A path that does not move with the process's working folder.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StorageError> {
    std::path::absolute(path)
        .map_err(|error| StorageError::other(Operation::Open, path.to_owned(), error.to_string()))
}
