//! What the system says about a file.

use rustix::fs::Stat;

use piecework_core::Fingerprint;

/// How much there is of a file on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes.
    pub len: u64,
    /// Blocks of 512 bytes that the file system has given it.
    pub blocks: u64,
}

impl Extent {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { len: stat.st_size as u64, blocks: stat.st_blocks as u64 }
    }

    /// Whether there is less of the file than there was: somebody has cut something off or out of
    /// it, or its file system has found room to save.
    pub fn has_shrunk(&self, before: &Self) -> bool {
        self.len < before.len || self.blocks < before.blocks
    }
}

pub(super) fn fingerprint(stat: &Stat) -> Fingerprint {
    let mtime_ns =
        stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64);
    Fingerprint { len: stat.st_size as u64, mtime_ns }
}
