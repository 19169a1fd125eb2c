//! One message that is hashed in parts.

use sha1::block_api::compress;

use super::{Block, Digest, State};

/// The SHA-1 of one message that arrives in parts.
///
/// Update it alone through [`Stream::update`], or together with others through
/// [`update_many`](super::update_many), in any order.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(super) state: State,
    /// The number of bytes so far. Those that do not fill a block are in `begun`.
    len: u64,
    begun: Block,
}

impl Stream {
    /// Appends `part` to the message.
    pub fn update(&mut self, part: &[u8]) {
        let blocks = self.absorb(part);
        compress(&mut self.state, blocks);
    }

    /// Returns the digest of the message, and starts a new one.
    pub fn finish(&mut self) -> Digest {
        let begun = self.begun_len();
        let mut last = [[0; 64]; 2];
        last[0][..begun].copy_from_slice(&self.begun[..begun]);
        last[0][begun] = 0x80;
        // The length in bits takes the last 8 bytes of a block, after the bit just set.
        let blocks = if begun < 56 { 1 } else { 2 };
        last[blocks - 1][56..].copy_from_slice(&self.len.wrapping_mul(8).to_be_bytes());
        compress(&mut self.state, &last[..blocks]);

        let mut digest = [0; 20];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        *self = Self::default();
        digest
    }

    /// Appends `part`. Returns those of its blocks that the caller has to compress before anything
    /// else is done with the stream. A block that began in an earlier part is compressed here.
    pub(super) fn absorb<'a>(&mut self, part: &'a [u8]) -> &'a [Block] {
        let begun = self.begun_len();
        self.len += part.len() as u64;
        let mut rest = part;
        if begun > 0 {
            let (head, behind) = part.split_at(part.len().min(64 - begun));
            self.begun[begun..begun + head.len()].copy_from_slice(head);
            if begun + head.len() < 64 {
                return &[];
            }
            compress(&mut self.state, &[self.begun]);
            rest = behind;
        }
        let (blocks, tail) = rest.as_chunks();
        self.begun[..tail.len()].copy_from_slice(tail);
        blocks
    }

    fn begun_len(&self) -> usize {
        (self.len % 64) as usize
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self { state: START, len: 0, begun: [0; 64] }
    }
}

/// FIPS 180-4, 5.3.1.
const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
