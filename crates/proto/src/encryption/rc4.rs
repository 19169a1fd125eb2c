//! The RC4 cipher.

#![expect(
    clippy::cast_possible_truncation,
    reason = "RC4 counts modulo 256: the low byte is what is meant"
)]

use std::fmt;

/// An RC4 key stream. Encrypting and decrypting are the same.
///
/// The state uses 32 bits for each byte, and the text is processed eight bytes at a time. With a state of bytes,
/// each of which is written and soon read again, and with single bytes of text it takes twice as long.
#[derive(Clone)]
pub struct Rc4 {
    state: [u32; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    /// Returns the stream of a key of 1 to 256 bytes.
    pub fn new(key: &[u8]) -> Self {
        let mut state = std::array::from_fn(|at| at as u32);
        let mut j = 0u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i] as u8).wrapping_add(key[i % key.len()]);
            state.swap(i, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    /// Encrypts or decrypts the next bytes of the stream in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let Self { state, i, j } = self;
        // Local copies, so that they stay in registers.
        let (mut x, mut y) = (*i, *j);
        let mut next = || {
            x = x.wrapping_add(1);
            let a = state[usize::from(x)];
            y = y.wrapping_add(a as u8);
            let b = state[usize::from(y)];
            state[usize::from(x)] = b;
            state[usize::from(y)] = a;
            state[usize::from(a.wrapping_add(b) as u8)] as u8
        };
        let (eights, rest) = bytes.as_chunks_mut::<8>();
        for eight in eights {
            let stream = std::array::from_fn(|_| next());
            *eight = (u64::from_le_bytes(*eight) ^ u64::from_le_bytes(stream)).to_le_bytes();
        }
        for byte in rest {
            *byte ^= next();
        }
        (*i, *j) = (x, y);
    }

    /// Skips the next `count` bytes of the stream.
    pub fn skip(&mut self, count: usize) {
        let mut left = count;
        let mut scratch = [0; 64];
        while left > 0 {
            let now = left.min(scratch.len());
            self.apply(&mut scratch[..now]);
            left -= now;
        }
    }
}

impl fmt::Debug for Rc4 {
    /// Shows nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rc4").finish_non_exhaustive()
    }
}
