//! From the socket into block buffers, without a copy on the usual path.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};

use smallvec::SmallVec;

use piecework_core::{BLOCK_LEN, BlockBuf, BlockPool, BlockRef};
use piecework_proto::wire::{self, DecodeLimits, Decoded, Message, PIECE_HEADER_LEN, WireError};

/// Turns one connection's bytes into [`Incoming`].
///
/// A peer that owes us blocks mostly sends `header, block, header, block, …`, 13 and 16,384 bytes.
/// So each read is vectored into such *lanes*: the payload is in its block buffer before anybody
/// has looked at its header. Where the guess is wrong (another message in between, a short last
/// block) the bytes from there on are decoded message by message.
///
/// What a peer sends costs memory only if it was requested: a block that is not owed is read and
/// dropped, and so is an unknown message. A message that has not come whole is kept, at most 64 KiB
/// or one bitfield.
pub struct Receiver {
    pool: BlockPool,
    limits: DecodeLimits,
    /// An owed block whose bytes have not all come.
    filling: Option<Filling>,
    /// Bytes to come that are dropped.
    skip: usize,
    /// The part of a message that has come. Empty between messages.
    partial: Vec<u8>,
    /// Bytes that `partial` must have before it can be decoded further.
    need: usize,
    lanes: Vec<Lane>,
    /// Lanes that the next read may have. It follows what came: for a slow peer one buffer is held
    /// ready.
    reach: usize,
    /// What was read and did not fit into the last batch.
    behind: Behind,
}

/// An item that a peer has sent.
#[derive(Debug)]
pub enum Incoming {
    /// A message other than `piece`.
    Message(Message),
    /// A block and its bytes.
    Block {
        /// Which block, according to the peer.
        block: BlockRef,
        /// Its bytes, as many as the block has.
        data: BlockBuf,
    },
    /// A block that the peer does not owe us. Its bytes are not kept.
    Unasked {
        /// Which block, according to the peer.
        block: BlockRef,
    },
}

/// Whether a peer owes us a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It was requested, and the memory budget has room for it.
    Owed,
    /// It was requested and cancelled. It may have been on its way already.
    Late,
    /// It was never requested.
    Unasked,
}

/// The items of some reads, in order. Bounded in bytes, see [`Batch::is_full`].
#[derive(Debug, Default)]
pub struct Batch {
    items: Vec<Incoming>,
    weight: usize,
}

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer has closed the stream.
    #[error("it closed the connection")]
    Closed,
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came violates the peer protocol.
    #[error("it broke the protocol: {0}")]
    Wire(#[from] WireError),
}

struct Filling {
    block: BlockRef,
    data: BlockBuf,
    have: usize,
    claim: Claim,
}

struct Lane {
    header: [u8; PIECE_HEADER_LEN],
    data: BlockBuf,
}

/// Bytes that were read and not decoded.
#[derive(Default)]
struct Behind {
    /// The bytes of a read without lanes.
    bytes: Vec<u8>,
    lanes: VecDeque<Lane>,
    /// Position of the next byte in `bytes`, or in the first lane.
    at: usize,
    /// Number of bytes in `lanes`.
    left: usize,
}

impl ReceiveError {
    /// Returns whether there is merely nothing to read at the moment.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Batch {
    /// Returns the items.
    pub fn items(&self) -> &[Incoming] {
        &self.items
    }

    /// Returns the items by value.
    pub fn into_items(self) -> Vec<Incoming> {
        self.items
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns whether it holds [`BATCH_WEIGHT`] bytes: those of the list itself, of messages'
    /// contents, and of late blocks. Owed blocks do not count, because the memory budget has room
    /// for them.
    pub fn is_full(&self) -> bool {
        self.weight >= BATCH_WEIGHT
    }

    fn message(&mut self, message: Message) {
        let content = match &message {
            Message::Bitfield(bits) => bits.len(),
            Message::Extended { payload, .. } => payload.len(),
            _ => 0,
        };
        self.push(Incoming::Message(message), content);
    }

    fn block(&mut self, block: BlockRef, data: BlockBuf, claim: Claim) {
        let weight = if claim == Claim::Owed { 0 } else { BLOCK_LEN as usize };
        self.push(Incoming::Block { block, data }, weight);
    }

    fn push(&mut self, item: Incoming, weight: usize) {
        self.items.push(item);
        self.weight += size_of::<Incoming>() + weight;
    }
}

impl Receiver {
    /// Returns a receiver for a stream whose handshake is done.
    pub fn new(pool: BlockPool, limits: DecodeLimits) -> Self {
        Self {
            pool,
            limits,
            filling: None,
            skip: 0,
            partial: Vec::new(),
            need: 0,
            lanes: Vec::new(),
            reach: 1,
            behind: Behind::default(),
        }
    }

    /// Reads once, by `read`, and adds what became whole to `batch`. `expected` is the number of
    /// blocks that the peer owes us, as a hint. `claim` returns for each block whether it is owed,
    /// and removes the debt. Returns the number of bytes read.
    ///
    /// If [`Receiver::is_behind`], it continues with what was read before and reads nothing.
    ///
    /// # Errors
    /// `WouldBlock` comes as [`ReceiveError::Io`] and changes nothing.
    pub fn fill(
        &mut self,
        expected: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        mut claim: impl FnMut(BlockRef) -> Claim,
        batch: &mut Batch,
    ) -> Result<usize, ReceiveError> {
        if self.is_behind() {
            self.catch_up(&mut claim, batch)?;
            return Ok(0);
        }
        let in_message = self.skip > 0 || !self.partial.is_empty();
        let lanes = if in_message { 0 } else { expected.min(self.reach) };
        let pool = &self.pool;
        self.lanes.resize_with(lanes, || Lane { header: [0; PIECE_HEADER_LEN], data: pool.take() });
        if self.filling.is_none() && lanes == 0 {
            let mut buffer = [0; LINEAR_ROOM];
            let read = some(read(&mut [IoSliceMut::new(&mut buffer)])?)?;
            let bytes = &buffer[..read];
            let used = self.feed(bytes, &mut claim, batch)?;
            self.behind.bytes.extend_from_slice(&bytes[used..]);
            return Ok(read);
        }
        let mut slices = SmallVec::<[IoSliceMut<'_>; 2 * MAX_LANES + 1]>::new();
        if let Some(filling) = &mut self.filling {
            slices.push(IoSliceMut::new(&mut filling.data[filling.have..]));
        }
        for lane in &mut self.lanes {
            slices.push(IoSliceMut::new(&mut lane.header));
            slices.push(IoSliceMut::new(&mut lane.data));
        }
        let read = some(read(&mut slices)?)?;
        drop(slices);
        self.sort(read, &mut claim, batch)?;
        Ok(read)
    }

    /// Returns whether bytes were read and not decoded, because the batch was full.
    pub fn is_behind(&self) -> bool {
        !self.behind.bytes.is_empty() || self.behind.left > 0
    }

    /// Frees buffers that are only held ready, for when the peer is quiet.
    pub fn rest(&mut self) {
        self.lanes = Vec::new();
        self.reach = 1;
    }

    /// Finds out what `read` bytes in the filling block and the lanes are.
    fn sort(
        &mut self,
        read: usize,
        claim: &mut impl FnMut(BlockRef) -> Claim,
        batch: &mut Batch,
    ) -> Result<(), WireError> {
        let mut left = read;
        if let Some(filling) = &mut self.filling {
            let took = left.min(filling.data.len() - filling.have);
            filling.have += took;
            left -= took;
            self.finish_block(batch);
        }
        let all = self.lanes.len();
        let mut lanes = std::mem::take(&mut self.lanes).into_iter();
        while left > 0 {
            let in_place = match lanes.as_slice().first() {
                Some(lane) if left >= PIECE_HEADER_LEN && !batch.is_full() => {
                    match wire::decode(&lane.header, &self.limits)? {
                        Decoded::Piece { block } if block.len == BLOCK_LEN => Some(block),
                        _ => None,
                    }
                }
                _ => None,
            };
            let claimed = in_place.map(|block| (block, claim(block)));
            let Some((block, claimed)) = claimed.filter(|(_, claim)| *claim != Claim::Unasked)
            else {
                if lanes.len() == all {
                    self.reach = (self.reach / 2).max(1);
                }
                self.behind = Behind { lanes: lanes.collect(), left, ..Behind::default() };
                return self.catch_up(claim, batch);
            };
            let Some(lane) = lanes.next() else { break };
            left -= PIECE_HEADER_LEN;
            let have = left.min(BLOCK_LEN as usize);
            left -= have;
            self.filling = Some(Filling { block, data: lane.data, have, claim: claimed });
            self.finish_block(batch);
        }
        let used = all - lanes.len();
        if all > 0 {
            self.reach = if used == all { self.reach * 2 } else { used + 1 }.min(MAX_LANES);
        }
        self.lanes = lanes.collect();
        Ok(())
    }

    /// Continues with what was read before, until there is no more of it or the batch is full.
    fn catch_up(
        &mut self,
        claim: &mut impl FnMut(BlockRef) -> Claim,
        batch: &mut Batch,
    ) -> Result<(), WireError> {
        let bytes = std::mem::take(&mut self.behind.bytes);
        if !bytes.is_empty() {
            self.behind.at += self.feed(&bytes[self.behind.at..], claim, batch)?;
            if self.behind.at < bytes.len() {
                self.behind.bytes = bytes;
            } else {
                self.behind.at = 0;
            }
            return Ok(());
        }
        while self.behind.left > 0 && !batch.is_full() {
            let Some(lane) = self.behind.lanes.pop_front() else { break };
            let at = self.behind.at;
            let part = match lane.header.get(at..) {
                Some(header) if !header.is_empty() => header,
                _ => &lane.data[at - PIECE_HEADER_LEN..],
            };
            let part = &part[..part.len().min(self.behind.left)];
            let used = self.feed(part, claim, batch)?;
            self.behind.left -= used;
            self.behind.at += used;
            if self.behind.at < PIECE_HEADER_LEN + BLOCK_LEN as usize {
                self.behind.lanes.push_front(lane);
            } else {
                self.behind.at = 0;
            }
        }
        if self.behind.left == 0 {
            self.behind = Behind::default();
        }
        Ok(())
    }

    /// Decodes `bytes`, which come next in the stream, until the batch is full. Returns how many
    /// were used.
    fn feed(
        &mut self,
        bytes: &[u8],
        claim: &mut impl FnMut(BlockRef) -> Claim,
        batch: &mut Batch,
    ) -> Result<usize, WireError> {
        let mut at = 0;
        loop {
            at += self.take_content(&bytes[at..], batch);
            let rest = &bytes[at..];
            if rest.is_empty() || batch.is_full() {
                return Ok(at);
            }
            if !self.partial.is_empty() {
                let more = rest.len().min(self.need - self.partial.len());
                self.keep_partial(&rest[..more]);
                at += more;
                if self.partial.len() < self.need {
                    return Ok(at);
                }
                let message = std::mem::take(&mut self.partial);
                if self.decode(&message, claim, batch)? == 0 {
                    self.partial = message;
                }
                continue;
            }
            let used = self.decode(rest, claim, batch)?;
            if used == 0 {
                self.keep_partial(rest);
                return Ok(bytes.len());
            }
            at += used;
        }
    }

    /// Decodes the message at the front of `bytes`. Returns its length without the content of a
    /// block or of an ignored message, or 0 if it is not whole: it then needs [`Receiver::need`]
    /// bytes.
    fn decode(
        &mut self,
        bytes: &[u8],
        claim: &mut impl FnMut(BlockRef) -> Claim,
        batch: &mut Batch,
    ) -> Result<usize, WireError> {
        match wire::decode(bytes, &self.limits)? {
            Decoded::Message { message, consumed } => {
                batch.message(message);
                Ok(consumed)
            }
            Decoded::Piece { block } => {
                let claim = claim(block);
                if claim == Claim::Unasked {
                    batch.push(Incoming::Unasked { block }, 0);
                    self.skip = block.len as usize;
                } else {
                    let mut data = self.pool.take();
                    data.truncate(block.len as usize);
                    self.filling = Some(Filling { block, data, have: 0, claim });
                    self.finish_block(batch);
                }
                Ok(PIECE_HEADER_LEN)
            }
            Decoded::Ignored { id, consumed, rest } => {
                batch.message(Message::Unknown { id });
                self.skip = rest;
                Ok(consumed)
            }
            Decoded::Incomplete { need } => {
                self.need = need;
                Ok(0)
            }
        }
    }

    /// Takes the part of `bytes` that is the content of a block, or of something to be skipped.
    fn take_content(&mut self, bytes: &[u8], batch: &mut Batch) -> usize {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let Some(filling) = &mut self.filling else { return skipped };
        let took = bytes.len().min(filling.data.len() - filling.have);
        filling.data[filling.have..filling.have + took].copy_from_slice(&bytes[..took]);
        filling.have += took;
        self.finish_block(batch);
        took
    }

    /// Hands on the block that is being filled, if it is whole.
    fn finish_block(&mut self, batch: &mut Batch) {
        if let Some(filling) = self.filling.take_if(|filling| filling.have == filling.data.len()) {
            batch.block(filling.block, filling.data, filling.claim);
        }
    }

    /// The room grows with what has come, not with what the peer says will come.
    fn keep_partial(&mut self, bytes: &[u8]) {
        let len = self.partial.len() + bytes.len();
        if self.partial.capacity() < len {
            let room = self.need.min(self.partial.len() * 2).max(len);
            self.partial.reserve_exact(room - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }
}

/// Returns the number of bytes read; fails if that is 0, which is the end of the stream.
fn some(read: usize) -> Result<usize, ReceiveError> {
    if read == 0 { Err(ReceiveError::Closed) } else { Ok(read) }
}

/// Blocks read at a time: 16 make 256 KiB, beside which a system call costs nothing any more.
const MAX_LANES: usize = 16;

/// Bytes read at a time when no block is expected: 240 requests.
const LINEAR_ROOM: usize = 4 * 1024;

/// Bytes of a batch, without owed blocks, before it is full: some 500 messages. One message or
/// block more may be in it, 64 KiB or a bitfield at most.
const BATCH_WEIGHT: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use piecework_core::PieceIndex;

    #[derive(Debug, Clone, PartialEq)]
    enum Said {
        Message(Message),
        Block(BlockRef, Vec<u8>),
    }

    fn limits() -> DecodeLimits {
        DecodeLimits { extensions: u8::MAX, ..DecodeLimits::new(1_000) }
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

    /// Feeds `bytes` in reads of at most the given sizes, in turn, to a receiver to which every
    /// block is owed, or none.
    fn receive(bytes: &[u8], sizes: &[usize], expected: usize, claim: Claim) -> Vec<Said> {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let (mut said, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < bytes.len() || receiver.is_behind() {
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
            let mut batch = Batch::default();
            receiver.fill(expected, read, |_| claim, &mut batch).unwrap();
            let most = BATCH_WEIGHT + size_of::<Incoming>() + (64 << 10);
            assert!(batch.weight <= most, "{} bytes at once", batch.weight);
            said.extend(batch.into_items().into_iter().map(|item| match item {
                Incoming::Message(message) => Said::Message(message),
                Incoming::Block { block, data } => Said::Block(block, data.to_vec()),
                Incoming::Unasked { block } => Said::Block(block, Vec::new()),
            }));
        }
        said
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
            let bytes = on_the_wire(&said);
            prop_assert_eq!(receive(&bytes, &sizes, expected, Claim::Owed), said.clone());
            prop_assert_eq!(receive(&bytes, &sizes, expected, Claim::Late), said.clone());
            let without_bytes: Vec<Said> = said
                .into_iter()
                .map(|said| match said {
                    Said::Block(block, _) => Said::Block(block, Vec::new()),
                    message => message,
                })
                .collect();
            prop_assert_eq!(receive(&bytes, &sizes, expected, Claim::Unasked), without_bytes);
        }
    }

    #[test]
    fn blocks_in_a_row_are_taken_at_one_read() {
        let block = |piece| BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN };
        let said: Vec<Said> =
            (0..16).map(|p| Said::Block(block(p), vec![p as u8; BLOCK_LEN as usize])).collect();
        assert_eq!(receive(&on_the_wire(&said), &[usize::MAX], 16, Claim::Owed), said);
    }

    /// Has `receiver` read `bytes` from a stream, and gives what came.
    fn feed(receiver: &mut Receiver, bytes: &[u8], claim: Claim) -> Vec<Incoming> {
        let (mut items, mut at) = (Vec::new(), 0);
        while at < bytes.len() || receiver.is_behind() {
            let read = |slices: &mut [IoSliceMut<'_>]| {
                let start = at;
                for slice in slices {
                    let part = slice.len().min(bytes.len() - at);
                    slice[..part].copy_from_slice(&bytes[at..at + part]);
                    at += part;
                }
                Ok(at - start)
            };
            let mut batch = Batch::default();
            receiver.fill(usize::MAX, read, |_| claim, &mut batch).unwrap();
            items.extend(batch.into_items());
        }
        items
    }

    #[test]
    fn an_over_long_message_is_refused_before_room_is_made_for_it() {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let bytes = u32::MAX.to_be_bytes();
        let fault = receiver.fill(
            0,
            |slices| {
                slices[0][..4].copy_from_slice(&bytes);
                Ok(4)
            },
            |_| Claim::Owed,
            &mut Batch::default(),
        );
        assert!(matches!(fault, Err(ReceiveError::Wire(_))));
        assert_eq!(receiver.partial.capacity(), 0);
    }

    #[test]
    fn the_end_of_the_stream_is_told() {
        let mut receiver = Receiver::new(BlockPool::new(4), limits());
        let end = receiver.fill(2, |_| Ok(0), |_| Claim::Owed, &mut Batch::default());
        assert!(matches!(end, Err(ReceiveError::Closed)));
    }

    #[test]
    fn blocks_that_are_not_owed_take_no_buffer_whatever_their_length() {
        for len in [0, 1, 100, BLOCK_LEN] {
            let pool = BlockPool::new(64);
            let mut receiver = Receiver::new(pool.clone(), limits());
            let block = BlockRef { piece: PieceIndex(0), begin: 0, len };
            let said = vec![Said::Block(block, vec![0; len as usize]); 100];
            // Only the socket's side is of interest: no block is expected, so there are no lanes.
            for chunk in on_the_wire(&said).chunks(4_096) {
                let mut batch = Batch::default();
                let read = |slices: &mut [IoSliceMut<'_>]| {
                    slices[0][..chunk.len()].copy_from_slice(chunk);
                    Ok(chunk.len())
                };
                receiver.fill(0, read, |_| Claim::Unasked, &mut batch).unwrap();
                assert!(!batch.items().iter().any(|i| matches!(i, Incoming::Block { .. })));
            }
            assert_eq!(pool.spare(), 0, "a buffer was made for blocks of {len} bytes");
        }
    }

    #[test]
    fn a_slow_peer_holds_one_buffer_ready_whatever_it_owes() {
        let mut receiver = Receiver::new(BlockPool::new(64), limits());
        let block = BlockRef { piece: PieceIndex(0), begin: 0, len: BLOCK_LEN };
        let bytes = on_the_wire(&vec![Said::Block(block, vec![1; BLOCK_LEN as usize]); 40]);
        feed(&mut receiver, &bytes, Claim::Owed);
        assert!(receiver.reach > 1);
        for byte in &bytes[..100] {
            feed(&mut receiver, &[*byte], Claim::Owed);
        }
        assert_eq!(receiver.lanes.len() + receiver.behind.lanes.len(), 1);
    }

    #[test]
    fn messages_that_nobody_wants_are_not_kept_while_they_come() {
        let limits = DecodeLimits::new(1_000);
        for mut message in [vec![0, 0x0f, 0xff, 0xff, 20, 3], vec![0, 0, 0x40, 9, 99]] {
            let mut receiver = Receiver::new(BlockPool::new(4), limits);
            let len = u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize + 4;
            message.resize(len, 7);
            message.extend([0, 0, 0, 0]);
            let mut items = Vec::new();
            for chunk in message.chunks(1_000) {
                items.extend(feed(&mut receiver, chunk, Claim::Unasked));
                assert!(receiver.partial.capacity() < 100);
            }
            assert!(matches!(
                items[..],
                [Incoming::Message(Message::Unknown { .. }), Incoming::Message(Message::KeepAlive)]
            ));
        }
    }

    #[test]
    fn a_message_that_comes_byte_by_byte_keeps_no_more_than_its_length() {
        let mut receiver = Receiver::new(BlockPool::new(4), DecodeLimits::new(1_000));
        let message = Message::Extended { id: 0, payload: vec![7; 60_000].into() };
        let bytes = on_the_wire(&[Said::Message(message)]);
        for (came, byte) in bytes.iter().enumerate() {
            feed(&mut receiver, &[*byte], Claim::Unasked);
            assert!(receiver.partial.capacity() <= (2 * came).max(16).min(bytes.len()));
        }
        assert_eq!(receiver.partial.capacity(), 0);
    }
}
