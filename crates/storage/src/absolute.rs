//! Absolute paths.

use std::path::{Path, PathBuf};

use super::error::{Operation, StorageError};

/// Returns a path that does not depend on the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, StorageError> {
    std::path::absolute(path).map_err(|error| StorageError::io(Operation::Open, path, error))
}
