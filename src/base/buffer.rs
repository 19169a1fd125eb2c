//! Block buffers: where received bytes land, and the only place they are kept until written.
//!
//! A piece in memory is a list of these, one a block. That keeps the receive path free of copies
//! and of shared mutable buffers: whoever holds a [`BlockBuf`] is the only one who can write it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use super::BLOCK_LEN;

/// A store of spare block buffers, shared by all who receive. Cheap to clone.
///
/// It bounds how many *spare* buffers are kept, not how many exist: what may be in flight is
/// decided by the swarms' memory budgets, before a request is ever sent.
#[derive(Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

/// One block's bytes: room for [`BLOCK_LEN`], given back to its pool when dropped.
pub struct BlockBuf {
    /// With room for the block to begin where a cache line does: the system copies it in and out
    /// some per cent faster so.
    bytes: Option<Box<[u8]>>,
    len: usize,
    home: Arc<Shared>,
}

struct Shared {
    spare: Mutex<Vec<Box<[u8]>>>,
    keep: usize,
}

impl BlockPool {
    /// A pool that keeps at most `keep` spare buffers of 16 KiB.
    pub fn new(keep: usize) -> Self {
        Self { shared: Arc::new(Shared { spare: Mutex::new(Vec::new()), keep }) }
    }

    /// A buffer of [`BLOCK_LEN`] bytes, its content arbitrary.
    pub fn take(&self) -> BlockBuf {
        let spare = self.shared.spare.lock().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; BLOCK_LEN as usize + LINE].into_boxed_slice());
        BlockBuf { bytes: Some(bytes), len: BLOCK_LEN as usize, home: Arc::clone(&self.shared) }
    }

    /// A buffer that holds `bytes`, of which there may be at most [`BLOCK_LEN`].
    ///
    /// # Panics
    /// If there are more.
    pub fn copy_of(&self, bytes: &[u8]) -> BlockBuf {
        let mut buf = self.take();
        buf.truncate(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Frees all spare buffers.
    pub fn clear(&self) {
        drop(std::mem::take(&mut *self.shared.spare.lock()));
    }

    /// Spare buffers at hand.
    pub fn spare(&self) -> usize {
        self.shared.spare.lock().len()
    }
}

impl BlockBuf {
    /// Makes the buffer `len` bytes long, between 0 and [`BLOCK_LEN`]; content beyond what was
    /// written is arbitrary.
    ///
    /// # Panics
    /// If `len` is more than [`BLOCK_LEN`].
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= BLOCK_LEN as usize, "a block buffer holds 16 KiB, not {len} bytes");
        self.len = len;
    }
}

impl Deref for BlockBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(bytes) = &self.bytes else { return &[] };
        let start = bytes.as_ptr().align_offset(LINE);
        &bytes[start..start + self.len]
    }
}

impl DerefMut for BlockBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Some(bytes) = &mut self.bytes else { return &mut [] };
        let start = bytes.as_ptr().align_offset(LINE);
        &mut bytes[start..start + self.len]
    }
}

impl Drop for BlockBuf {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        let mut spare = self.home.spare.lock();
        if spare.len() < self.home.keep {
            spare.push(bytes);
        }
    }
}

impl fmt::Debug for BlockBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockBuf({} bytes)", self.len)
    }
}

/// A cache line.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_up_to_the_limit() {
        let pool = BlockPool::new(1);
        let (a, b) = (pool.take(), pool.copy_of(b"abc"));
        assert_eq!(&b[..], b"abc");
        assert_eq!((a.as_ptr().align_offset(LINE), b.as_ptr().align_offset(LINE)), (0, 0));
        assert_eq!(a.len(), BLOCK_LEN as usize);
        drop((a, b));
        assert_eq!(pool.spare(), 1);
        assert_eq!(pool.take().len(), BLOCK_LEN as usize);
        assert_eq!(pool.spare(), 1);
        pool.clear();
        assert_eq!(pool.spare(), 0);
    }
}
