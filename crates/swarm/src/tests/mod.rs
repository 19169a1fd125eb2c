//! Tests of the swarm as its driver sees it: events in, actions out, with invariants checked after each
//! event.

mod bottleneck;
mod chaos;
mod connections;
mod corruption;
mod downloading;
mod exchange;
mod faults;
mod liars;
mod metadata;
mod network;
mod places;
mod refusals;
mod uploading;
mod wants;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use piecework_core::{BLOCK_LEN, BlockRef, PeerId, PieceIndex, Sha1Hash};

/// A swarm, and all its actions that no test has looked at yet.
pub(super) struct TestSwarm {
    pub(super) swarm: Swarm,
    pub(super) now: Moment,
    pub(super) actions: Vec<Action>,
    next_buffer: u64,
    events: usize,
}

/// A peer as a test describes it.
#[derive(Clone)]
pub(super) struct TestPeer {
    pub(super) key: u32,
    pub(super) fast: bool,
    pub(super) extended: bool,
    pub(super) direction: Direction,
    pub(super) addr: SocketAddr,
    pub(super) id: PeerId,
}

pub(super) const LOCAL: PeerId = PeerId(*b"-PW0100-localpeer000");

pub(super) fn guest(key: u32) -> TestPeer {
    TestPeer {
        key,
        fast: true,
        extended: false,
        direction: Direction::Incoming,
        addr: format!("10.0.0.{key}:{}", 40_000 + key).parse().unwrap(),
        id: PeerId([key as u8; 20]),
    }
}

impl TestPeer {
    pub(super) fn plain(self) -> Self {
        Self { fast: false, ..self }
    }

    pub(super) fn extended(self) -> Self {
        Self { extended: true, ..self }
    }

    pub(super) fn outgoing(self, addr: &str) -> Self {
        Self { direction: Direction::Outgoing, addr: addr.parse().unwrap(), ..self }
    }

    pub(super) fn at(self, addr: &str) -> Self {
        Self { addr: addr.parse().unwrap(), ..self }
    }

    pub(super) fn numbered(self, key: u32) -> Self {
        Self { key, ..self }
    }

    pub(super) fn called(self, id: PeerId) -> Self {
        Self { id, ..self }
    }
}

/// Returns the pieces drawn in a picture such as `"xx.x"`.
pub(super) fn drawn(picture: &str) -> Bitfield {
    let mut bits = Bitfield::empty(picture.len() as u32);
    for (at, mark) in picture.bytes().enumerate() {
        if mark == b'x' {
            bits.insert(PieceIndex(at as u32));
        }
    }
    bits
}

pub(super) fn block(piece: u32, index: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin: index * BLOCK_LEN, len: BLOCK_LEN }
}

impl TestSwarm {
    /// Creates a swarm with pieces of `blocks` blocks, which holds those drawn.
    pub(super) fn new(held: &str, blocks: u32) -> Self {
        Self::with(held, blocks, |_| {})
    }

    pub(super) fn with(held: &str, blocks: u32, change: impl FnOnce(&mut SwarmConfig)) -> Self {
        let piece_len = blocks * BLOCK_LEN;
        let total = held.len() as u64 * u64::from(piece_len);
        let geometry = Geometry::new(total, piece_len).unwrap();
        let mut config = SwarmConfig::new(LOCAL);
        change(&mut config);
        let now = Moment::START + Duration::from_secs(1_000);
        let swarm = Swarm::new(config, geometry, drawn(held), Rng::from_seed(7), now);
        Self { swarm, now, actions: Vec::new(), next_buffer: 0, events: 0 }
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        // It looks at every peer, so with dozens of them not after each event.
        self.events += 1;
        if self.events.is_multiple_of(1 + self.swarm.peers.len() / 16) {
            self.swarm.check_invariants();
        }
        while let Some(action) = self.swarm.poll() {
            self.actions.push(action);
        }
    }

    /// Lets time pass, with all time-outs on the way.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.swarm.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.handle(Event::Timeout);
            assert!(self.swarm.deadline() > Some(self.now) || self.swarm.deadline().is_none());
        }
        self.now = end;
    }

    pub(super) fn connect(&mut self, guest: &TestPeer) {
        self.handle(Event::Connected {
            peer: PeerKey(guest.key),
            addr: guest.addr,
            id: guest.id,
            direction: guest.direction,
            fast: guest.fast,
            extended: guest.extended,
        });
    }

    pub(super) fn hear(&mut self, key: u32, message: Message) {
        self.handle(Event::Message { peer: PeerKey(key), message });
    }

    /// Connects a peer that holds what is drawn, and clears the actions.
    pub(super) fn join(&mut self, guest: &TestPeer, holds: &str) {
        self.connect(guest);
        self.hear(guest.key, Message::Bitfield(Bytes::copy_from_slice(drawn(holds).as_wire())));
        self.actions.clear();
    }

    /// Does the same, and the peer unchokes us.
    pub(super) fn serve(&mut self, guest: &TestPeer, holds: &str) {
        self.join(guest, holds);
        self.hear(guest.key, Message::Unchoke);
    }

    pub(super) fn give(&mut self, key: u32, block: BlockRef) -> BufferId {
        let buffer = BufferId(self.next_buffer);
        self.next_buffer += 1;
        self.handle(Event::Block { peer: PeerKey(key), block, buffer });
        buffer
    }

    pub(super) fn checked(&mut self, piece: u32, outcome: PieceOutcome) {
        self.handle(Event::PieceChecked { piece: PieceIndex(piece), outcome });
    }

    pub(super) fn verified(&mut self, piece: u32) {
        self.checked(piece, PieceOutcome::Verified { digests: Vec::new() });
    }

    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes the messages to a peer. Other actions stay.
    pub(super) fn said(&mut self, to: u32) -> Vec<Message> {
        let mut said = Vec::new();
        self.actions.retain(|action| match action {
            Action::Send { peer, message } | Action::SendLater { peer, message }
                if peer.0 == to =>
            {
                said.push(message.clone());
                false
            }
            _ => true,
        });
        said
    }

    /// Takes the requests to a peer. Other actions stay.
    pub(super) fn requests(&mut self, of: u32) -> Vec<BlockRef> {
        let mut requests = Vec::new();
        self.actions.retain(|action| match action {
            Action::Send { peer, message: Message::Request(block) } if peer.0 == of => {
                requests.push(*block);
                false
            }
            _ => true,
        });
        requests
    }

    pub(super) fn faults(&self) -> BTreeMap<u32, PeerFault> {
        let fault = |action: &Action| match action {
            Action::Disconnect { peer, fault } => Some((peer.0, *fault)),
            _ => None,
        };
        self.actions.iter().filter_map(fault).collect()
    }

    pub(super) fn fault_of(&self, key: u32) -> Option<PeerFault> {
        self.faults().get(&key).copied()
    }

    /// Answers every request until there are no more, and checks each piece as soon as it is whole. A block
    /// is right unless `is_right` returns false for its sender and the block.
    pub(super) fn run(&mut self, is_right: impl Fn(u32, BlockRef) -> bool) {
        let mut came: BTreeMap<BlockRef, u32> = BTreeMap::new();
        let mut buffers: BTreeMap<BufferId, (u32, BlockRef)> = BTreeMap::new();
        while let Some(at) = self.actions.iter().position(|action| {
            matches!(
                action,
                Action::Send { message: Message::Request(_), .. }
                    | Action::Verify { .. }
                    | Action::Keep { .. }
            )
        }) {
            match self.actions.remove(at) {
                Action::Send { peer, message: Message::Request(block) } => {
                    self.now = self.now + Duration::from_micros(100);
                    buffers.insert(BufferId(self.next_buffer), (peer.0, block));
                    self.give(peer.0, block);
                }
                Action::Keep { buffer, block } => {
                    let (from, sent) = buffers[&buffer];
                    assert_eq!(sent, block);
                    came.insert(block, from);
                }
                Action::Verify { piece, want_digests } => {
                    let geometry = *self.swarm.geometry();
                    let digests: Vec<BlockDigest> = (0..geometry.blocks_in(piece))
                        .map(|index| {
                            let block = geometry.block(piece, index);
                            digest(is_right(came[&block], block))
                        })
                        .collect();
                    let right = digests.iter().all(|d| *d == digest(true));
                    let outcome = match right {
                        true if want_digests => PieceOutcome::Verified { digests },
                        true => PieceOutcome::Verified { digests: Vec::new() },
                        false => PieceOutcome::Corrupt { digests, hash: WRONG },
                    };
                    self.handle(Event::PieceChecked { piece, outcome });
                }
                _ => {}
            }
        }
    }
}

impl Swarm {
    /// Returns the blocks that a peer owes.
    pub(super) fn owed_by(&self, key: u32) -> Vec<BlockRef> {
        let owed = self.peers[&PeerKey(key)].pipeline.iter();
        owed.map(|owed| self.geometry.block(owed.piece, owed.index)).collect()
    }
}

/// The hash of any wrong piece.
pub(super) const WRONG: Sha1Hash = Sha1Hash([0xbd; 20]);

pub(super) fn digest(right: bool) -> BlockDigest {
    BlockDigest([u8::from(right); 20])
}
