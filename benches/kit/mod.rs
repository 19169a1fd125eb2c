//! Shared by several benches: a swarm with peers, and a download in which nobody waits.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use piecework_core::{BLOCK_LEN, Bitfield, BlockRef, Geometry, Moment, PeerId, PieceIndex, Rng};
use piecework_proto::wire::Message;
use piecework_swarm::{
    Action, BufferId, Direction, Event, PeerKey, PieceOutcome, Swarm, SwarmConfig,
};

/// Makes a swarm that holds nothing, connected to `seeds` that hold everything and `leechers` that
/// lack from 0 to 99 % each.
pub(crate) fn swarm(pieces: u32, blocks: u32, seeds: u32, leechers: u32) -> Swarm {
    let piece_len = blocks * BLOCK_LEN;
    let geometry = match Geometry::new(u64::from(pieces) * u64::from(piece_len), piece_len) {
        Ok(geometry) => geometry,
        Err(fault) => panic!("{fault}"),
    };
    let mut rng = Rng::from_seed(1);
    let mut config = SwarmConfig::new(PeerId([1; 20]));
    config.max_peers = 200;
    let have = Bitfield::empty(pieces);
    let mut swarm = Swarm::new(config, geometry, have, rng.fork(), Moment::START);
    for key in 0..seeds + leechers {
        let peer = PeerKey(key);
        let ip = std::net::Ipv4Addr::from(0x0a00_0001 + key);
        swarm.handle(
            Moment::START,
            Event::Connected {
                peer,
                addr: (ip, 6881).into(),
                id: PeerId([2 + key as u8; 20]),
                direction: Direction::Incoming,
                fast: true,
                extended: true,
            },
        );
        let mut holds = Bitfield::full(pieces);
        if key >= seeds {
            let lacks = rng.below(100);
            for piece in 0..pieces {
                if rng.below(100) < lacks {
                    holds.remove(PieceIndex(piece));
                }
            }
        }
        let bits = Bytes::copy_from_slice(holds.as_wire());
        let message = Message::Bitfield(bits);
        swarm.handle(Moment::START, Event::Message { peer, message });
        swarm.handle(Moment::START, Event::Message { peer, message: Message::Unchoke });
    }
    swarm
}

/// A download in which requests are answered in order.
pub(crate) struct Download {
    swarm: Swarm,
    now: Moment,
    asked: VecDeque<(PeerKey, BlockRef)>,
    blocks: u64,
}

impl Download {
    /// Creates it with the first requests of `swarm`.
    pub(crate) fn new(swarm: Swarm) -> Self {
        let mut download = Self { swarm, now: Moment::START, asked: VecDeque::new(), blocks: 0 };
        download.act();
        download
    }

    /// Receives one block, and executes the swarm's actions. Returns `false` if no block is
    /// pending.
    pub(crate) fn step(&mut self) -> bool {
        let Some((peer, block)) = self.asked.pop_front() else { return false };
        self.now = self.now + Duration::from_micros(16);
        self.blocks += 1;
        let buffer = BufferId(self.blocks);
        self.swarm.handle(self.now, Event::Block { peer, block, buffer });
        self.act();
        true
    }

    /// Continues to the end, and returns the number of blocks.
    pub(crate) fn finish(mut self) -> u64 {
        while self.step() {}
        assert!(self.swarm.is_complete(), "{:?}", self.swarm.progress());
        self.blocks
    }

    fn act(&mut self) {
        while let Some(action) = self.swarm.poll() {
            match action {
                Action::Send { peer, message: Message::Request(block) } => {
                    self.asked.push_back((peer, block));
                }
                Action::Verify { piece, .. } => {
                    let outcome = PieceOutcome::Verified { digests: Vec::new() };
                    self.swarm.handle(self.now, Event::PieceChecked { piece, outcome });
                }
                other => drop(black_box(other)),
            }
        }
    }
}
