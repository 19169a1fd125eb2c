//! A connection between two peers: what is queued, what is on its way.

use std::collections::VecDeque;
use std::time::Duration;

use piecework_core::{BLOCK_LEN, BlockRef, Moment};
use piecework_proto::wire::Message;
use piecework_swarm::PeerKey;

/// Two peers that are connected; each side is where one of them sends.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sides: [Side; 2],
    /// One-way.
    pub(crate) delay: Duration,
}

/// One direction of a connection, and the peer that sends in it.
#[derive(Debug)]
pub(crate) struct Side {
    /// Who sends.
    pub(crate) node: usize,
    /// What the sender calls the connection.
    pub(crate) key: PeerKey,
    /// The sender has not closed it, nor heard that it is closed.
    pub(crate) is_open: bool,
    /// Blocks to be sent; the swarm may take them back.
    pub(crate) outbox: VecDeque<BlockRef>,
    /// What the socket has taken, in order. The first one is always a block: messages that follow no
    /// block are on their way at once.
    written: VecDeque<Transmission>,
    written_bytes: u64,
    /// Messages that wait for another one.
    later: Vec<Message>,
    /// On its way to the other side, with the time of its arrival.
    flight: VecDeque<(Moment, Transmission)>,
    /// How many of these are blocks.
    blocks_in_flight: u32,
    /// How many blocks may be on their way, so that a slow receiver does not fill its downlink's queue with
    /// one peer's blocks.
    window: u32,
    last_arrival: Moment,
    /// It is queued for the uplink, or is being served.
    pub(crate) is_in_turn: bool,
}

/// A transmission on its way.
#[derive(Debug)]
pub(crate) enum Transmission {
    Message(Message),
    Block(BlockRef, BlockContent),
    /// The sender has closed the connection.
    End,
}

/// Whether a block's bytes are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockContent {
    /// The bytes of the torrent.
    Right,
    /// Other bytes, different each time.
    Wrong(u64),
}

/// The side of a connection that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) connection: u32,
    pub(crate) side: u8,
}

impl Side {
    /// Creates a side. `rate` is the maximum that the two lines can carry.
    pub(crate) fn new(node: usize, key: PeerKey, rate: u64, delay: Duration) -> Self {
        let in_a_round_trip = u128::from(rate) * 2 * delay.as_nanos() / 1_000_000_000;
        let window = in_a_round_trip / u128::from(BLOCK_LEN) + u128::from(LEAST_WINDOW);
        Self {
            node,
            key,
            is_open: true,
            outbox: VecDeque::new(),
            written: VecDeque::new(),
            written_bytes: 0,
            later: Vec::new(),
            flight: VecDeque::new(),
            blocks_in_flight: 0,
            window: u32::try_from(window).unwrap_or(u32::MAX),
            last_arrival: Moment::START,
            is_in_turn: false,
        }
    }

    /// Makes a message wait for the next one.
    pub(crate) fn put_off(&mut self, message: Message) {
        self.later.push(message);
    }

    /// Returns the messages that wait.
    pub(crate) fn take_put_off(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.later)
    }

    /// Writes a message after everything written before. Returns whether it is on its way.
    pub(crate) fn write(&mut self, message: Message, arrival: Moment) -> bool {
        if self.written.is_empty() {
            self.launch(Transmission::Message(message), arrival);
            return true;
        }
        self.written.push_back(Transmission::Message(message));
        false
    }

    /// Moves blocks from the outbox to the socket while that has room. Returns how many, and their bytes.
    pub(crate) fn fill(
        &mut self,
        buffer: u64,
        mut mark: impl FnMut() -> BlockContent,
    ) -> (u32, u64) {
        let (mut blocks, mut bytes) = (0, 0);
        while self.written_bytes < buffer
            && let Some(block) = self.outbox.pop_front()
        {
            self.written.push_back(Transmission::Block(block, mark()));
            self.written_bytes += u64::from(block.len);
            blocks += 1;
            bytes += u64::from(block.len);
        }
        (blocks, bytes)
    }

    /// Returns the block that the uplink must carry next, if it may.
    pub(crate) fn next_block(&self) -> Option<BlockRef> {
        match self.written.front() {
            Some(Transmission::Block(block, _)) if self.blocks_in_flight < self.window => {
                Some(*block)
            }
            _ => None,
        }
    }

    /// Handles that the first block has left the uplink: it will arrive at `arrival`, and the messages
    /// behind it do not wait for a turn.
    pub(crate) fn first_block_left(&mut self, arrival: Moment) -> Option<(BlockRef, BlockContent)> {
        let Some(Transmission::Block(block, mark)) = self.written.pop_front() else { return None };
        self.written_bytes -= u64::from(block.len);
        self.blocks_in_flight += 1;
        self.launch(Transmission::Block(block, mark), arrival);
        while let Some(Transmission::Message(_) | Transmission::End) = self.written.front() {
            if let Some(item) = self.written.pop_front() {
                self.launch(item, arrival);
            }
        }
        Some((block, mark))
    }

    /// Closes the connection by the sender. What the socket has not sent is lost.
    pub(crate) fn close(&mut self, arrival: Moment) {
        self.is_open = false;
        self.outbox = VecDeque::new();
        self.written = VecDeque::new();
        self.later = Vec::new();
        self.written_bytes = 0;
        self.launch(Transmission::End, arrival);
    }

    /// Removes and returns what has arrived by `now`.
    pub(crate) fn land(&mut self, now: Moment) -> Option<Transmission> {
        let (arrival, _) = self.flight.front()?;
        if *arrival > now {
            return None;
        }
        let (_, item) = self.flight.pop_front()?;
        if let Transmission::Block(..) = item {
            self.blocks_in_flight -= 1;
        }
        Some(item)
    }

    /// Returns when the next transmission arrives.
    pub(crate) fn next_arrival(&self) -> Option<Moment> {
        self.flight.front().map(|(arrival, _)| *arrival)
    }

    /// Starts a transmission. It does not overtake earlier ones.
    fn launch(&mut self, item: Transmission, arrival: Moment) {
        self.last_arrival = self.last_arrival.max(arrival);
        self.flight.push_back((self.last_arrival, item));
    }
}

/// How many blocks may be on their way even between near peers: enough that a line is never idle while a
/// peer waits for its turn.
const LEAST_WINDOW: u32 = 4;

/// Returns the bytes on the wire of a message that is not a block.
pub(crate) fn bytes_of(message: &Message) -> u64 {
    match message {
        Message::KeepAlive => 4,
        Message::Have(_) | Message::Suggest(_) | Message::AllowedFast(_) => 9,
        Message::Request(_) | Message::Cancel(_) | Message::Reject(_) => 17,
        Message::Bitfield(bits) => 5 + bits.len() as u64,
        Message::Extended { payload, .. } => 6 + payload.len() as u64,
        _ => 5,
    }
}
