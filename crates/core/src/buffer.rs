//! Block buffers: where received bytes land, and the only place they are kept until written.
//!
//! A piece in memory is a list of these, one a block. That keeps the receive path free of copies
//! and of shared mutable buffers: whoever holds a [`BlockBuf`] is the only one who can write it.

use std::fmt;
use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
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
    /// [`BLOCK_LEN`] bytes of a slab; empty once it was given back.
    bytes: BytesMut,
    len: usize,
    home: Arc<Shared>,
}

struct Shared {
    spare: Mutex<Vec<BytesMut>>,
    keep: usize,
}

impl BlockPool {
    /// A pool that keeps at most `keep` spare buffers of 16 KiB.
    pub fn new(keep: usize) -> Self {
        Self { shared: Arc::new(Shared { spare: Mutex::new(Vec::new()), keep }) }
    }

    /// A buffer of [`BLOCK_LEN`] bytes, its content arbitrary.
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
        drop(take(&mut *self.shared.spare.lock()));
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

/// Memory for `count` blocks at once. One by one, the allocator asks the system for each and fills it
/// with zeros, which the system has done already for what is this long.
///
/// Each block begins where a cache line does: the system copies it in and out some per cent faster so.
fn slab(count: usize) -> BytesMut {
    let len = count * BLOCK_LEN as usize;
    let mut slab = BytesMut::zeroed(len + LINE);
    slab.advance(slab.as_ptr().align_offset(LINE));
    slab.truncate(len);
    slab
}

/// Blocks of a slab, 256 KiB, all of which are freed before any of its memory is.
const SLAB: usize = 16;

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
