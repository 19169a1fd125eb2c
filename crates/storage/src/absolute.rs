//! Absolute paths.

use std::path::{Path, PathBuf};

use super::error::{Operation, StorageError};

/// Returns a path that does not depend on the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StorageError> {
    std::path::absolute(path)
        .map_err(|error| StorageError::other(Operation::Open, path.to_owned(), error.to_string()))
}
