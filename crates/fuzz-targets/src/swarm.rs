//! Sequences of events over a swarm: peers that send anything, and a driver that keeps its part of the
//! contract. Afterwards an honest peer must be able to finish the download.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use piecework_core::{
    BLOCK_LEN, Bitfield, BlockRef, Geometry, InfoHash, Moment, PeerId, PieceIndex, Priority, Rng,
    Sha1Hash,
};
use piecework_proto::wire::{DecodeLimits, Decoded, EXCHANGE_ID, Message, decode};
use piecework_swarm::{
    Action, BlockDigest, BufferId, ChokePolicy, Direction, Event, PeerKey, PeerSource,
    PieceOutcome, Swarm, SwarmConfig,
};

use crate::input::Input;

pub(crate) fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut driver = Driver::new(&mut input);
    // Invariants look at every piece and peer, so long inputs would only be slow.
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        driver.step(&mut input);
    }
    driver.finish();
}

struct Driver {
    swarm: Swarm,
    now: Moment,
    peers: Vec<PeerKey>,
    next_key: u32,
    next_buffer: u64,
    dials: Vec<SocketAddr>,
    /// Our requests that peers may answer.
    owed: Vec<(PeerKey, BlockRef)>,
    /// Blocks that we must send.
    uploads: Vec<(PeerKey, BlockRef)>,
    /// Buffers that wait for an answer.
    buffers: Vec<BufferId>,
    /// How many blocks are kept of each piece.
    kept: BTreeMap<PieceIndex, u32>,
    verifying: Vec<(PieceIndex, bool)>,
    completed: u32,
}

impl Driver {
    fn new(input: &mut Input<'_>) -> Self {
        let mut rng = Rng::from_seed(u64::from(input.byte()));
        let mut config = SwarmConfig::new(PeerId([1; 20]));
        config.info_hash = Some(InfoHash([9; 20]));
        config.memory_blocks = [1, 6, 12, 100][input.below(4) as usize];
        config.max_peers = 5;
        config.upload_slots = 2;
        config.max_requests_in = 6;
        config.max_dialing = 3;
        config.choke = if input.flag() { ChokePolicy::Closed } else { ChokePolicy::TitForTat };
        config.sequential = input.flag();
        config.exchange = true;
        let mut have = Bitfield::empty(geometry().pieces());
        for piece in 0..geometry().pieces() {
            if input.below(4) == 3 {
                have.insert(PieceIndex(piece));
            }
        }
        let completed = u32::from(have.is_full());
        rng.below(2);
        let swarm = Swarm::new(config, geometry(), have, rng, Moment::START);
        Self {
            swarm,
            now: Moment::START,
            peers: Vec::new(),
            next_key: 1,
            next_buffer: 1,
            dials: Vec::new(),
            owed: Vec::new(),
            uploads: Vec::new(),
            buffers: Vec::new(),
            kept: BTreeMap::new(),
            verifying: Vec::new(),
            completed,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0 => self.meet(input),
            1 => self.find(input),
            2 => self.lose(input),
            3..=5 => self.hear(input),
            6 => self.hear_bytes(input),
            7 | 8 => self.give_owed(input),
            9 => self.give_unasked(input),
            10 => self.check(input),
            11 => self.upload(input),
            12 => self.wait(Duration::from_millis(1 << input.below(18))),
            13 => self.configure(input),
            14 => self.want(input),
            _ => self.handle(if input.below(4) == 0 { Event::Pause } else { Event::Resume }),
        }
    }

    fn meet(&mut self, input: &mut Input<'_>) {
        let peer = PeerKey(self.next_key);
        let host = u8::saturating_from(input.below(20)) + 1;
        let dialled = self.dials.pop().filter(|_| input.flag());
        let direction = if dialled.is_some() { Direction::Outgoing } else { Direction::Incoming };
        let port = 1_000 + u16::saturating_from(self.next_key) % 10_000;
        let addr = dialled.unwrap_or_else(|| ([10, 0, 0, host], port).into());
        let (id, fast, extended) = (PeerId([host; 20]), input.flag(), input.flag());
        self.next_key += 1;
        self.peers.push(peer);
        self.handle(Event::Connected { peer, addr, id, direction, fast, extended });
    }

    fn find(&mut self, input: &mut Input<'_>) {
        let source = [PeerSource::User, PeerSource::Tracker][input.below(2) as usize];
        let addrs = (0..input.below(12)).map(|_| {
            let (host, port) = (input.byte(), u16::from(input.byte()));
            if input.below(8) == 0 {
                SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()], port))
            } else {
                SocketAddr::from(([10, 0, 1, host], port))
            }
        });
        let addrs = addrs.collect();
        self.handle(Event::Candidates { source, addrs });
        let Some(addr) = self.dials.pop() else { return };
        match input.below(4) {
            0 => self.handle(Event::DialPrevented { addr }),
            1 => self.handle(Event::DialFailed { addr, hung_up: input.flag() }),
            _ => self.dials.push(addr),
        }
    }

    fn lose(&mut self, input: &mut Input<'_>) {
        let Some(peer) = self.any_peer(input) else { return };
        self.forget(peer);
        self.handle(Event::Disconnected { peer });
    }

    fn hear(&mut self, input: &mut Input<'_>) {
        let Some(peer) = self.any_peer(input) else { return };
        let (piece, block) = (any_piece(input), any_block(input));
        let message = match input.below(17) {
            0 => Message::KeepAlive,
            1 => Message::Choke,
            2 | 3 => Message::Unchoke,
            4 => Message::Interested,
            5 => Message::NotInterested,
            6 => Message::Have(piece),
            7 => Message::Bitfield(Bytes::copy_from_slice(input.take(2))),
            8 => Message::Request(block),
            9 => Message::Cancel(block),
            10 => Message::Suggest(piece),
            11 => Message::HaveAll,
            12 => Message::HaveNone,
            13 => Message::Reject(block),
            14 => Message::AllowedFast(piece),
            15 => Message::Bitfield(Bytes::copy_from_slice(
                Bitfield::full(geometry().pieces()).as_wire(),
            )),
            _ => any_extended(input),
        };
        self.handle(Event::Message { peer, message });
    }

    /// Passes whatever the codec decodes from some bytes.
    fn hear_bytes(&mut self, input: &mut Input<'_>) {
        let Some(peer) = self.any_peer(input) else { return };
        let len = input.below(40) as usize;
        let limits = DecodeLimits::new(geometry().pieces());
        if let Ok(Decoded::Message { message, .. }) = decode(input.take(len), &limits) {
            self.handle(Event::Message { peer, message });
        }
    }

    fn give_owed(&mut self, input: &mut Input<'_>) {
        for _ in 0..input.below(8) {
            if self.owed.is_empty() {
                return;
            }
            let at = input.below(u32::saturating_from(self.owed.len())) as usize;
            let (peer, block) = self.owed.swap_remove(at);
            if input.below(8) == 0 {
                self.handle(Event::Message { peer, message: Message::Reject(block) });
            } else {
                self.give(peer, block);
            }
        }
    }

    fn give_unasked(&mut self, input: &mut Input<'_>) {
        let Some(peer) = self.any_peer(input) else { return };
        let block = any_block(input);
        if input.flag() {
            self.handle(Event::Unasked { peer, block });
        } else {
            self.give(peer, block);
        }
    }

    fn give(&mut self, peer: PeerKey, block: BlockRef) {
        let buffer = BufferId(self.next_buffer);
        self.next_buffer += 1;
        self.buffers.push(buffer);
        self.handle(Event::Block { peer, block, buffer });
        assert!(!self.buffers.contains(&buffer), "a buffer is not answered for");
    }

    fn check(&mut self, input: &mut Input<'_>) {
        let Some((piece, wants)) = self.verifying.pop() else { return };
        let blocks = geometry().blocks_in(piece);
        let digests = |input: &mut Input<'_>| -> Vec<BlockDigest> {
            (0..blocks).map(|_| BlockDigest([u8::from(input.below(8) == 0); 20])).collect()
        };
        let outcome = match input.below(5) {
            0 => PieceOutcome::StorageFailed,
            1 => PieceOutcome::Corrupt { digests: digests(input), hash: Sha1Hash([7; 20]) },
            _ => right(blocks, wants),
        };
        self.handle(Event::PieceChecked { piece, outcome });
    }

    fn upload(&mut self, input: &mut Input<'_>) {
        if self.uploads.is_empty() {
            return;
        }
        let (peer, block) = self
            .uploads
            .swap_remove(input.below(u32::saturating_from(self.uploads.len())) as usize);
        self.handle(Event::Uploaded { peer, blocks: 1, bytes: block.len.into() });
    }

    fn configure(&mut self, input: &mut Input<'_>) {
        let event = match input.below(4) {
            0 => Event::MemoryBudget { blocks: input.below(20) },
            1 => Event::Order { sequential: input.flag() },
            2 => Event::Patience { extra: Duration::from_secs(u64::from(input.byte())) },
            _ => Event::Limits {
                max_peers: input.below(7) as usize,
                upload_slots: input.below(4) as usize,
            },
        };
        self.handle(event);
    }

    fn want(&mut self, input: &mut Input<'_>) {
        let priority = |input: &mut Input<'_>| match input.below(5) {
            0 | 1 => Priority::Skip,
            2 => Priority::Low,
            3 => Priority::High,
            _ => Priority::Normal,
        };
        let some = input.below(3) > 0;
        let count = if some { geometry().pieces() } else { 0 };
        let priorities = (0..count).map(|_| priority(input)).collect();
        self.handle(Event::Wants { priorities });
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.handle(Event::Timeout);
    }

    fn handle(&mut self, event: Event) {
        self.tell(event);
        // An event may make a timer due at once, but it must not stay so.
        for _ in 0..MOST_TIMEOUTS {
            if self.swarm.deadline().is_none_or(|due| due > self.now) {
                return;
            }
            self.tell(Event::Timeout);
        }
        panic!("a timer stays due, so that a driver would spin");
    }

    fn tell(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(action) = self.swarm.poll() {
            self.carry_out(action);
        }
        self.swarm.check_invariants();
        assert_eq!(u32::from(self.swarm.is_complete()), self.completed, "completed, told once");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial { addr } => self.dials.push(addr),
            Action::Disconnect { peer, .. } => self.forget(peer),
            Action::Send { peer, message: Message::Request(block) } => {
                assert_eq!(geometry().block_index(block).map(|_| ()), Some(()), "{block:?}");
                self.owed.push((peer, block));
            }
            Action::Send { peer, message: Message::Cancel(block) } => {
                assert!(self.owed.contains(&(peer, block)), "cancelled, never asked");
            }
            Action::Upload { peer, block } => {
                assert!(geometry().is_inside(block), "{block:?}");
                self.uploads.push((peer, block));
            }
            Action::CancelUpload { peer, block } => {
                self.uploads.retain(|upload| *upload != (peer, block));
            }
            Action::Keep { buffer, block } => {
                self.answer_for(buffer);
                *self.kept.entry(block.piece).or_default() += 1;
            }
            Action::Discard { buffer } => self.answer_for(buffer),
            Action::Verify { piece, want_digests } => {
                let kept = self.kept.remove(&piece);
                assert_eq!(kept, Some(geometry().blocks_in(piece)), "not all blocks are there");
                self.verifying.push((piece, want_digests));
            }
            Action::DropPiece { piece } => {
                self.kept.remove(&piece);
            }
            Action::Completed => self.completed += 1,
            _ => {}
        }
    }

    fn answer_for(&mut self, buffer: BufferId) {
        let at = self.buffers.iter().position(|waiting| *waiting == buffer);
        self.buffers.swap_remove(at.expect("a buffer that nobody gave, or twice"));
    }

    fn forget(&mut self, peer: PeerKey) {
        self.peers.retain(|known| *known != peer);
        self.owed.retain(|(key, _)| *key != peer);
        self.uploads.retain(|(key, _)| *key != peer);
    }

    fn any_peer(&self, input: &mut Input<'_>) -> Option<PeerKey> {
        let count = u32::saturating_from(self.peers.len());
        (count > 0).then(|| self.peers[input.below(count) as usize])
    }

    /// All other peers leave, everything under way ends, and an honest peer serves what is missing.
    fn finish(&mut self) {
        for peer in std::mem::take(&mut self.peers) {
            self.forget(peer);
            self.handle(Event::Disconnected { peer });
        }
        while let Some((piece, _)) = self.verifying.pop() {
            self.handle(Event::PieceChecked { piece, outcome: PieceOutcome::StorageFailed });
        }
        self.handle(Event::Resume);
        self.handle(Event::Limits { max_peers: 5, upload_slots: 2 });
        self.handle(Event::Wants { priorities: [].into() });
        let peer = PeerKey(self.next_key);
        let addr = ([192, 0, 2, 1], 6881).into();
        let (id, direction) = (PeerId([250; 20]), Direction::Incoming);
        self.peers.push(peer);
        self.handle(Event::Connected { peer, addr, id, direction, fast: true, extended: false });
        self.handle(Event::Message { peer, message: Message::HaveAll });
        self.handle(Event::Message { peer, message: Message::Unchoke });
        for _ in 0..1_000 {
            if let Some((piece, wants)) = self.verifying.pop() {
                let outcome = right(geometry().blocks_in(piece), wants);
                self.handle(Event::PieceChecked { piece, outcome });
            } else if let Some((peer, block)) = self.owed.pop() {
                self.give(peer, block);
            } else {
                break;
            }
        }
        assert!(self.swarm.is_complete(), "{:?}", self.swarm.progress());
    }
}

fn right(blocks: u32, wants_digests: bool) -> PieceOutcome {
    let count = if wants_digests { blocks as usize } else { 0 };
    PieceOutcome::Verified { digests: vec![BlockDigest([0; 20]); count] }
}

/// Returns twelve pieces of four blocks. The last one is shorter.
fn geometry() -> Geometry {
    let piece_len = 4 * BLOCK_LEN;
    Geometry::new(12 * u64::from(piece_len) - 20_000, piece_len).expect("a torrent's measures")
}

/// Returns a piece that almost always exists.
fn any_extended(input: &mut Input<'_>) -> Message {
    let handshake: &'static [u8] = match input.below(4) {
        0 => &b"d1:md6:ut_pexi7eee"[..],
        1 => b"d1:md6:ut_pexi7ee1:pi6881ee",
        2 => {
            let mut payload = b"d5:added18:".to_vec();
            for _ in 0..3 {
                payload.extend_from_slice(&[10, 0, 1, input.byte(), 0, input.byte()]);
            }
            payload.push(b'e');
            return Message::Extended { id: EXCHANGE_ID, payload: payload.into() };
        }
        _ => b"d4:reqqi3ee",
    };
    Message::Extended { id: 0, payload: Bytes::from_static(handshake) }
}

fn any_piece(input: &mut Input<'_>) -> PieceIndex {
    PieceIndex(input.below(geometry().pieces() + 1))
}

/// Returns a block that almost always exists.
fn any_block(input: &mut Input<'_>) -> BlockRef {
    let piece = any_piece(input);
    let whole = geometry().contains(piece).then(|| geometry().blocks_in(piece));
    let mut block = match whole {
        Some(blocks) => geometry().block(piece, input.below(blocks)),
        None => BlockRef { piece, begin: 0, len: BLOCK_LEN },
    };
    if input.below(10) == 0 {
        block.begin = input.number();
        block.len = input.below(1 << 17);
    }
    block
}

const MOST_STEPS: usize = 400;

/// The number of timers of a swarm. One call handles all that are due.
const MOST_TIMEOUTS: usize = 8;
