//! What the core alone costs: whole downloads of 100,000 pieces in which every request is answered
//! at once, so that all time goes into decisions. The figure is time a block.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use piecework::base::{BLOCK_LEN, Bitfield, BlockRef, Geometry, Moment, PeerId, PieceIndex, Rng};
use piecework::swarm::{
    Action, BufferId, Direction, Event, PeerKey, PieceOutcome, Swarm, SwarmConfig,
};
use piecework::wire::Message;

const PIECES: u32 = 100_000;

fn prepare(blocks: u32, seeds: u32, leechers: u32) -> Swarm {
    let piece_len = blocks * BLOCK_LEN;
    let geometry = match Geometry::new(u64::from(PIECES) * u64::from(piece_len), piece_len) {
        Ok(geometry) => geometry,
        Err(fault) => panic!("{fault}"),
    };
    let mut rng = Rng::from_seed(1);
    let mut config = SwarmConfig::new(PeerId([1; 20]));
    config.max_peers = 200;
    let have = Bitfield::empty(PIECES);
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
        let mut holds = Bitfield::full(PIECES);
        if key >= seeds {
            let lacks = rng.below(100);
            for piece in 0..PIECES {
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

/// Answers every request, in order, until there are none. Says how many blocks that were.
fn download(mut swarm: Swarm) -> u64 {
    let mut now = Moment::START;
    let mut asked: VecDeque<(PeerKey, BlockRef)> = VecDeque::new();
    let mut blocks = 0;
    loop {
        while let Some(action) = swarm.poll() {
            match action {
                Action::Send { peer, message: Message::Request(block) } => {
                    asked.push_back((peer, block));
                }
                Action::Verify { piece, .. } => {
                    let outcome = PieceOutcome::Verified { digests: Vec::new() };
                    swarm.handle(now, Event::PieceChecked { piece, outcome });
                }
                other => drop(black_box(other)),
            }
        }
        let Some((peer, block)) = asked.pop_front() else { break };
        now = now + Duration::from_micros(16);
        blocks += 1;
        swarm.handle(now, Event::Block { peer, block, buffer: BufferId(blocks) });
    }
    assert!(swarm.is_complete(), "{:?}", swarm.progress());
    blocks
}

fn downloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("download of 100,000 pieces, a block");
    group.sample_size(10);
    for (name, blocks, seeds, leechers) in [
        ("16 blocks a piece from one seed", 16, 1, 0),
        ("1 block a piece from one seed", 1, 1, 0),
        ("4 blocks a piece from 4 seeds and 40 leechers", 4, 4, 40),
        ("4 blocks a piece from 80 leechers", 4, 0, 80),
    ] {
        group.throughput(Throughput::Elements(u64::from(PIECES * blocks)));
        let swarm = || prepare(blocks, seeds, leechers);
        group.bench_function(name, |b| b.iter_batched(swarm, download, BatchSize::PerIteration));
    }
    group.finish();
}

criterion_group!(benches, downloads);
criterion_main!(benches);
