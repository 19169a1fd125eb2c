//! From the socket into block buffers, without a copy on the usual path.

use std::io::{self, IoSliceMut};

use smallvec::SmallVec;

use crate::base::{BLOCK_LEN, BlockBuf, BlockPool, BlockRef};
use crate::wire::{self, DecodeLimits, Decoded, Message, PIECE_HEADER_LEN, WireError};

/// Turns one connection's bytes into [`Incoming`].
///
/// A peer that owes us blocks mostly sends `header, block, header, block, …`, 13 and 16,384 bytes.
/// So each read is vectored into such *lanes*: the payload is in its block buffer before anybody
/// has looked at its header. Where the guess is wrong (another message in between, a short last
/// block) the bytes from there on are copied together and decoded one after the other.
pub struct Receiver {
    pool: BlockPool,
    limits: DecodeLimits,
    /// A block whose header has been seen and whose bytes have not all come.
    filling: Option<Filling>,
    /// Bytes of a message that is not whole: `spill[..spilled]`.
    spill: Vec<u8>,
    spilled: usize,
    /// Bytes the message at the head of the spill has in all, as far as known.
    need: usize,
    lanes: Vec<Lane>,
}

/// Something a peer sent.
#[derive(Debug)]
pub enum Incoming {
    /// A message other than `piece`.
    Message(Message),
    /// A block and its bytes.
    Block {
        /// What the peer says it is.
        block: BlockRef,
        /// As many bytes as it says.
        data: BlockBuf,
    },
}

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream is at its end.
    #[error("it closed the connection")]
    Closed,
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came is not the peer protocol.
    #[error("it broke the protocol: {0}")]
    Wire(#[from] WireError),
}

struct Filling {
    block: BlockRef,
    data: BlockBuf,
    have: usize,
}

struct Lane {
    header: [u8; PIECE_HEADER_LEN],
    data: BlockBuf,
}

impl ReceiveError {
    /// Whether there is only nothing to read at the moment.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Receiver {
    /// A receiver at the beginning of a stream, behind the handshake.
    pub fn new(pool: BlockPool, limits: DecodeLimits) -> Self {
        Self {
            pool,
            limits,
            filling: None,
            spill: Vec::new(),
            spilled: 0,
            need: 0,
            lanes: Vec::new(),
        }
    }

    /// Reads once, by `read`, and puts what became whole into `items`. `expected` is how many
    /// blocks the peer owes us, a hint. Gives the number of bytes read.
    ///
    /// # Errors
    /// `WouldBlock` comes as [`ReceiveError::Io`] and changes nothing.
    pub fn fill(
        &mut self,
        expected: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        items: &mut Vec<Incoming>,
    ) -> Result<usize, ReceiveError> {
        let lanes = if self.spilled > 0 { 0 } else { expected.min(MAX_LANES) };
        let pool = &self.pool;
        self.lanes.resize_with(lanes, || Lane { header: [0; PIECE_HEADER_LEN], data: pool.take() });
        let linear = self.filling.is_none() && lanes == 0;
        if linear {
            // Room grows with what has come, not with what the peer says will come.
            let room = self.need.min(self.spilled * 2).max(self.spilled + SPILL_ROOM);
            self.spill.resize(room, 0);
        }
        let mut slices = SmallVec::<[IoSliceMut<'_>; 2 * MAX_LANES + 1]>::new();
        if let Some(filling) = &mut self.filling {
            slices.push(IoSliceMut::new(&mut filling.data[filling.have..]));
        }
        if linear {
            slices.push(IoSliceMut::new(&mut self.spill[self.spilled..]));
        }
        for lane in &mut self.lanes {
            slices.push(IoSliceMut::new(&mut lane.header));
            slices.push(IoSliceMut::new(&mut lane.data));
        }
        let read = read(&mut slices)?;
        drop(slices);
        if read == 0 {
            return Err(ReceiveError::Closed);
        }
        if linear {
            self.spilled += read;
            self.drain_spill(items)?;
        } else {
            self.sort(read, items)?;
        }
        Ok(read)
    }

    /// Gives up what is only held ready, for when the peer is quiet.
    pub fn rest(&mut self) {
        self.lanes = Vec::new();
        if self.spilled == 0 {
            self.spill = Vec::new();
        }
    }

    /// Finds out what `read` bytes in the filling block and the lanes are.
    fn sort(&mut self, read: usize, items: &mut Vec<Incoming>) -> Result<(), WireError> {
        let mut left = read;
        if let Some(mut filling) = self.filling.take() {
            let took = left.min(filling.data.len() - filling.have);
            filling.have += took;
            left -= took;
            if filling.have < filling.data.len() {
                self.filling = Some(filling);
                return Ok(());
            }
            items.push(Incoming::Block { block: filling.block, data: filling.data });
        }
        let mut lanes = std::mem::take(&mut self.lanes).into_iter();
        while left > 0 {
            let Some(lane) = lanes.next() else { break };
            let in_place = if left < PIECE_HEADER_LEN {
                None
            } else {
                match wire::decode(&lane.header, &self.limits)? {
                    Decoded::Piece { block } if block.len == BLOCK_LEN => Some(block),
                    _ => None,
                }
            };
            let Some(block) = in_place else {
                self.spill_lane(&lane, &mut left);
                for lane in lanes.by_ref() {
                    self.spill_lane(&lane, &mut left);
                }
                return self.drain_spill(items);
            };
            left -= PIECE_HEADER_LEN;
            let have = left.min(BLOCK_LEN as usize);
            left -= have;
            if have == BLOCK_LEN as usize {
                items.push(Incoming::Block { block, data: lane.data });
            } else {
                self.filling = Some(Filling { block, data: lane.data, have });
            }
        }
        self.lanes = lanes.collect();
        Ok(())
    }

    /// Appends what of `left` bytes lies in `lane` to the spill.
    fn spill_lane(&mut self, lane: &Lane, left: &mut usize) {
        for part in [&lane.header[..], &lane.data[..]] {
            let part = &part[..part.len().min(*left)];
            *left -= part.len();
            self.spill.truncate(self.spilled);
            self.spill.extend_from_slice(part);
            self.spilled += part.len();
        }
    }

    /// Decodes what lies in the spill, one message after the other.
    fn drain_spill(&mut self, items: &mut Vec<Incoming>) -> Result<(), WireError> {
        let mut at = 0;
        self.need = 0;
        while at < self.spilled {
            match wire::decode(&self.spill[at..self.spilled], &self.limits)? {
                Decoded::Message { message, consumed } => {
                    at += consumed;
                    items.push(Incoming::Message(message));
                }
                Decoded::Piece { block } => {
                    at += PIECE_HEADER_LEN;
                    let mut data = self.pool.take();
                    data.truncate(block.len as usize);
                    let have = data.len().min(self.spilled - at);
                    data[..have].copy_from_slice(&self.spill[at..at + have]);
                    at += have;
                    if have == data.len() {
                        items.push(Incoming::Block { block, data });
                    } else {
                        self.filling = Some(Filling { block, data, have });
                    }
                }
                Decoded::Incomplete { need } => {
                    self.need = need;
                    break;
                }
            }
        }
        self.spill.copy_within(at..self.spilled, 0);
        self.spilled -= at;
        Ok(())
    }
}

/// Blocks read at a time: 16 make 256 KiB, behind which a system call costs nothing any more.
const MAX_LANES: usize = 16;

/// Room for messages when no block is expected: 240 requests.
const SPILL_ROOM: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::base::PieceIndex;

    #[derive(Debug, Clone, PartialEq)]
    enum Said {
        Message(Message),
        Block(BlockRef, Vec<u8>),
    }

    fn limits() -> DecodeLimits {
        DecodeLimits::new(1_000)
    }

    fn on_the_wire(said: &[Said]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for said in said {
            match said {
                Said::Message(message) => wire::encode(message, &mut out),
                Said::Block(block, data) => {
                    out.extend_from_slice(&wire::piece_header(*block));
                    out.extend_from_slice(data);
                }
            }
        }
        out.to_vec()
    }

    /// Feeds `bytes` in reads of at most the given sizes, in turn.
    fn receive(bytes: &[u8], sizes: &[usize], expected: usize) -> Vec<Said> {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let (mut items, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < bytes.len() {
            let mut left = sizes[turn % sizes.len()].min(bytes.len() - at);
            turn += 1;
            let read = |slices: &mut [IoSliceMut<'_>]| {
                let start = at;
                for slice in slices {
                    let part = slice.len().min(left);
                    slice[..part].copy_from_slice(&bytes[at..at + part]);
                    at += part;
                    left -= part;
                }
                Ok(at - start)
            };
            receiver.fill(expected, read, &mut items).unwrap();
        }
        items
            .into_iter()
            .map(|item| match item {
                Incoming::Message(message) => Said::Message(message),
                Incoming::Block { block, data } => Said::Block(block, data.to_vec()),
            })
            .collect()
    }

    fn said() -> impl Strategy<Value = Said> {
        let message = prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Unchoke),
            (0..1_000u32).prop_map(|p| Message::Have(PieceIndex(p))),
            any::<Vec<u8>>().prop_map(|p| Message::Extended { id: 3, payload: p.into() }),
        ];
        let block =
            (0..1_000u32, any::<u8>(), prop_oneof![3 => Just(BLOCK_LEN), 1 => 1..BLOCK_LEN])
                .prop_map(|(piece, byte, len)| {
                    let block = BlockRef { piece: PieceIndex(piece), begin: 0, len };
                    Said::Block(block, (0..len).map(|i| byte.wrapping_add(i as u8)).collect())
                });
        prop_oneof![message.prop_map(Said::Message), block]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_the_bytes_are_cut_the_same_comes_out(
            said in prop::collection::vec(said(), 0..24),
            sizes in prop::collection::vec(prop_oneof![1..40usize, 1..400_000usize], 1..6),
            expected in 0..20usize,
        ) {
            // One byte at a time would make the largest cases slow.
            let sizes: Vec<usize> = sizes.into_iter().map(|s| s.max(7)).collect();
            prop_assert_eq!(receive(&on_the_wire(&said), &sizes, expected), said);
        }
    }

    #[test]
    fn blocks_in_a_row_are_taken_at_one_read() {
        let block = |piece| BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN };
        let said: Vec<Said> =
            (0..16).map(|p| Said::Block(block(p), vec![p as u8; BLOCK_LEN as usize])).collect();
        assert_eq!(receive(&on_the_wire(&said), &[usize::MAX], 16), said);
    }

    #[test]
    fn over_long_message_is_refused_before_room_is_made_for_it() {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let bytes = u32::MAX.to_be_bytes();
        let mut items = Vec::new();
        let fault = receiver.fill(
            0,
            |slices| {
                slices[0][..4].copy_from_slice(&bytes);
                Ok(4)
            },
            &mut items,
        );
        assert!(matches!(fault, Err(ReceiveError::Wire(_))));
        assert!(receiver.spill.len() <= SPILL_ROOM);
    }

    #[test]
    fn the_end_of_the_stream_is_told() {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let end = receiver.fill(2, |_| Ok(0), &mut Vec::new());
        assert!(matches!(end, Err(ReceiveError::Closed)));
    }
}
