//! How much room there is.

use std::path::Path;

use rustix::fs::{stat, statvfs};
use rustix::io::Errno;

use super::absolute::absolute;
use super::error::{Operation, StorageError};

/// What a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes free for a process like this one.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// The number of its device.
    pub device: u64,
}

/// The room on the file system `path` is on or would be on: what is not there yet counts as the
/// nearest folder above it.
///
/// # Errors
/// If none of those folders can be looked at.
pub fn disk_space(path: &Path) -> Result<DiskSpace, StorageError> {
    let (free, total) = free_space(path)?;
    let path = absolute(path)?;
    for above in path.ancestors() {
        match stat(above) {
            Ok(stat) => return Ok(DiskSpace { free, total, device: stat.st_dev }),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(StorageError::new(Operation::Open, path, errno)),
        }
    }
    Err(StorageError::new(Operation::Open, path, Errno::NOENT))
}

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
