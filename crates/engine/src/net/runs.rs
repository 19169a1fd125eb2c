//! Memory for long runs of blocks to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all links may have in long runs together. Cheap to clone.
///
/// A link sends up to [`RunMemory::FREE`] bytes at a time without asking. Longer runs cost less
/// processor time, but a thousand peers that take their blocks at once must not have 512 KiB each.
#[derive(Clone)]
pub struct RunMemory {
    left: Arc<AtomicUsize>,
}

/// Memory granted to a link. It is given back when dropped.
#[derive(Debug)]
pub(super) struct RunGrant {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl RunMemory {
    /// Bytes of a run that need no grant.
    pub const FREE: usize = 128 << 10;

    /// Returns `bytes` for all links together, besides [`RunMemory::FREE`] for each.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// Returns memory for runs of `bytes`, if there is enough.
    pub(super) fn take(&self, bytes: usize) -> Option<RunGrant> {
        let bytes = bytes.saturating_sub(Self::FREE);
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(RunGrant { left: Arc::clone(&self.left), bytes })
    }
}

impl Drop for RunGrant {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let memory = RunMemory::new(1_000);
        let one = memory.take(RunMemory::FREE + 600).unwrap();
        assert!(memory.take(RunMemory::FREE + 600).is_none());
        assert!(memory.take(RunMemory::FREE).is_some());
        drop(one);
        assert!(memory.take(RunMemory::FREE + 1_000).is_some());
    }
}
