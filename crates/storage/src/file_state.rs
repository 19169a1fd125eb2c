//! The metadata of a file.

use rustix::fs::Stat;

use piecework_core::Fingerprint;

/// How much of a file there is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The length in bytes.
    pub len: u64,
    /// The number of 512-byte blocks that the file system has allocated.
    pub blocks: u64,
}

impl Extent {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { len: stat.st_size as u64, blocks: stat.st_blocks as u64 }
    }

    /// Returns whether there is less of the file than before: something was cut off or punched out,
    /// or its file system has saved space.
    pub fn has_shrunk(&self, before: &Self) -> bool {
        self.len < before.len || self.blocks < before.blocks
    }
}

pub(super) fn fingerprint(stat: &Stat) -> Fingerprint {
    let mtime_ns =
        stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64);
    Fingerprint { len: stat.st_size as u64, mtime_ns }
}
