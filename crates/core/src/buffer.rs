//! Block buffers hold received bytes until these are written to disk.
//!
//! A piece in memory is a list of block buffers. The receive path therefore needs no copies and no
//! shared mutable buffers: the owner of a [`BlockBuf`] is the only one who can write to it.

use std::fmt;
use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;

use super::BLOCK_LEN;

/// A pool of spare block buffers, shared by all receivers. Cheap to clone.
///
/// It bounds how many *spare* buffers are kept, not how many exist. The memory budgets of the
/// swarms decide how many blocks are in flight, before they are requested.
#[derive(Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

/// The bytes of one block: room for [`BLOCK_LEN`] bytes, returned to the pool on drop.
pub struct BlockBuf {
    /// [`BLOCK_LEN`] bytes of a slab. Empty after they were returned.
    bytes: BytesMut,
    len: usize,
    home: Arc<Shared>,
}

struct Shared {
    spare: Mutex<Vec<BytesMut>>,
    keep: usize,
}

impl BlockPool {
    /// Creates a pool that keeps at most `keep` spare buffers of 16 KiB.
    pub fn new(keep: usize) -> Self {
        Self { shared: Arc::new(Shared { spare: Mutex::new(Vec::new()), keep }) }
    }

    /// Returns a buffer of [`BLOCK_LEN`] bytes with arbitrary content.
    pub fn take(&self) -> BlockBuf {
        let mut spare = self.shared.spare.lock();
        let bytes = spare.pop().unwrap_or_else(|| {
            let mut slab = slab(self.shared.keep.clamp(1, SLAB));
            while slab.len() > BLOCK_LEN as usize {
                spare.push(slab.split_to(BLOCK_LEN as usize));
            }
            slab
        });
        drop(spare);
        BlockBuf { bytes, len: BLOCK_LEN as usize, home: Arc::clone(&self.shared) }
    }

    /// Returns a buffer with a copy of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is longer than [`BLOCK_LEN`].
    pub fn copy_of(&self, bytes: &[u8]) -> BlockBuf {
        let mut buf = self.take();
        buf.truncate(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Frees all spare buffers.
    pub fn clear(&self) {
        drop(take(&mut *self.shared.spare.lock()));
    }

    /// Returns the number of spare buffers.
    pub fn spare(&self) -> usize {
        self.shared.spare.lock().len()
    }
}

impl BlockBuf {
    /// Sets the length of the buffer, 0 to [`BLOCK_LEN`]. Content after what was written is
    /// arbitrary.
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
        &self.bytes[..self.len]
    }
}

impl DerefMut for BlockBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for BlockBuf {
    fn drop(&mut self) {
        let mut spare = self.home.spare.lock();
        if spare.len() < self.home.keep {
            spare.push(take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for BlockBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockBuf({} bytes)", self.len)
    }
}

/// Allocates memory for `count` blocks at once. For single blocks the allocator would ask the
/// system for each and fill it with zeros; the system has already zeroed an allocation of this
/// size.
///
/// Each block starts at a cache line: then the system copies it a few per cent faster.
fn slab(count: usize) -> BytesMut {
    let len = count * BLOCK_LEN as usize;
    let mut slab = BytesMut::zeroed(len + LINE);
    slab.advance(slab.as_ptr().align_offset(LINE));
    slab.truncate(len);
    slab
}

/// Blocks per slab, 256 KiB. The memory of a slab is freed after all its blocks are.
const SLAB: usize = 16;

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

    #[test]
    fn blocks_of_a_slab_are_apart() {
        let pool = BlockPool::new(1_000);
        let mut all: Vec<BlockBuf> = (0..3 * SLAB).map(|_| pool.take()).collect();
        assert_eq!(pool.spare(), 0);
        for (number, block) in all.iter_mut().enumerate() {
            assert_eq!(block.as_ptr().align_offset(LINE), 0);
            block.fill(number as u8);
        }
        let holds = |(number, block): (usize, &BlockBuf)| block.iter().all(|b| *b == number as u8);
        assert!(all.iter().enumerate().all(holds));
        drop(all);
        assert_eq!(pool.spare(), 3 * SLAB);
    }
}
