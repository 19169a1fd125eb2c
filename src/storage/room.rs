//! How much room there is.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::io::Errno;

use super::error::{Operation, StorageError};
use super::store::absolute;

/// Bytes free for a process like this one, and bytes in all, of the file system `path` is on or
/// would be on: what is not there yet counts as the nearest folder above it.
pub fn free_space(path: &Path) -> Result<(u64, u64), StorageError> {
    let path = absolute(path)?;
    let mut errno = Errno::NOENT;
    for above in path.ancestors() {
        match statvfs(above) {
            Ok(stat) => {
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                return Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)));
            }
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => errno = error,
            Err(error) => {
                errno = error;
                break;
            }
        }
    }
    Err(StorageError::new(Operation::Open, path, errno))
}
