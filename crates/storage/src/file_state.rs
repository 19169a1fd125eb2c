//! The metadata of a file.

use piecework_core::SaturatingFrom;
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
        Self {
            len: u64::saturating_from(stat.st_size),
            blocks: u64::saturating_from(stat.st_blocks),
        }
    }

    /// Returns whether there is less of the file than before: something was cut off or punched out,
    /// or its file system has saved space.
    pub fn has_shrunk(&self, before: &Self) -> bool {
        self.len < before.len || self.blocks < before.blocks
    }
}

pub(super) fn fingerprint(stat: &Stat) -> Fingerprint {
    let mtime_ns = stat
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::saturating_from(stat.st_mtime_nsec));
    Fingerprint { len: u64::saturating_from(stat.st_size), mtime_ns }
}
