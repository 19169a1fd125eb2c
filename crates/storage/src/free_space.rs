//! The free space of file systems.

use std::path::Path;

use rustix::fs::{stat, statvfs};
use rustix::io::Errno;

use super::absolute::absolute;
use super::error::{Operation, StorageError};

/// The size and free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes available to this process.
    pub free: u64,
    /// Bytes in total.
    pub total: u64,
    /// The device number.
    pub device: u64,
}

/// Returns the space of the file system that contains `path`, or would contain it: if `path` does
/// not exist, its nearest existing folder counts.
///
/// # Errors
/// If none of the folders can be accessed.
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

/// Returns the bytes available to this process, and the bytes in total, of the file system that
/// contains `path` or would contain it.
///
/// # Errors
/// If none of the folders can be accessed.
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
