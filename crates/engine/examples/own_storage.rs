//! Moves a torrent between two peers that keep it in memory: `own_storage`.
//!
//! A [`Session`](piecework_engine::Session) keeps content in files. Whoever keeps it elsewhere drives the
//! [`Swarm`] itself: it decides, and its driver moves bytes. Here the network is a queue of messages and
//! the storage a `Vec<u8>`; `net` and `tracker_client` of this crate are what a driver with sockets takes.

use std::collections::VecDeque;
use std::error::Error;

use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{BlockRef, Moment, PeerId, Rng, Sha1Hash};
use piecework_proto::wire::Message;
use piecework_swarm::{
    Action, BlockDigest, BufferId, Direction, Event, PeerKey, PieceOutcome, Swarm, SwarmConfig,
};
use sha1::{Digest, Sha1};

/// The other peer, of which each has only one.
const OTHER: PeerKey = PeerKey(1);

/// What travels: a message, or a block with its bytes.
enum Sent {
    Message(Message),
    Block(BlockRef, Vec<u8>),
}

/// One peer: what decides, and where its content lies.
struct Peer<'a> {
    name: &'static str,
    metainfo: &'a Metainfo,
    swarm: Swarm,
    content: Vec<u8>,
    /// A block that was received and not yet put in its place.
    received: Option<(BufferId, Vec<u8>)>,
    buffers: u64,
    outgoing: VecDeque<Sent>,
}

impl<'a> Peer<'a> {
    fn new(name: &'static str, id: u8, metainfo: &'a Metainfo, content: Option<Vec<u8>>) -> Self {
        let geometry = metainfo.info().geometry();
        let have = match content {
            Some(_) => piecework_core::Bitfield::full(geometry.pieces()),
            None => piecework_core::Bitfield::empty(geometry.pieces()),
        };
        let config = SwarmConfig::new(PeerId([id; 20]));
        let rng = Rng::from_seed(u64::from(id));
        Self {
            name,
            metainfo,
            swarm: Swarm::new(config, geometry, have, rng, Moment::START),
            content: content.unwrap_or_else(|| vec![0; geometry.total_len() as usize]),
            received: None,
            buffers: 0,
            outgoing: VecDeque::new(),
        }
    }

    /// Tells the swarm what happened and does what it wants done.
    fn handle(&mut self, now: Moment, event: Event) {
        self.swarm.handle(now, event);
        while let Some(action) = self.swarm.poll() {
            self.carry_out(now, action);
        }
    }

    fn carry_out(&mut self, now: Moment, action: Action) {
        let geometry = self.metainfo.info().geometry();
        match action {
            Action::Send { message, .. } | Action::SendLater { message, .. } => {
                self.outgoing.push_back(Sent::Message(message));
            }
            Action::Upload { peer, block } => {
                let bytes = self.content[self.range(block)].to_vec();
                self.outgoing.push_back(Sent::Block(block, bytes));
                let event = Event::Uploaded { peer, blocks: 1, bytes: block.len.into() };
                self.swarm.handle(now, event);
            }
            // Written at once here. A driver that keeps only what is right waits for `Verify`.
            Action::Keep { block, buffer } => {
                let range = self.range(block);
                if let Some((received, bytes)) = self.received.take()
                    && received == buffer
                {
                    self.content[range].copy_from_slice(&bytes);
                }
            }
            Action::Discard { .. } => self.received = None,
            Action::Verify { piece, want_digests } => {
                let blocks = 0..geometry.blocks_in(piece);
                let of =
                    |block| -> [u8; 20] { Sha1::digest(&self.content[self.range(block)]).into() };
                let whole = BlockRef { piece, begin: 0, len: geometry.piece_size(piece) };
                let hash = Sha1Hash(of(whole));
                let is_right =
                    self.metainfo.bytes().is_ok_and(|b| b.piece_hash(piece) == Some(hash));
                let digests = blocks.map(|index| BlockDigest(of(geometry.block(piece, index))));
                let outcome = match is_right {
                    true if want_digests => PieceOutcome::Verified { digests: digests.collect() },
                    true => PieceOutcome::Verified { digests: Vec::new() },
                    false => PieceOutcome::Corrupt { digests: digests.collect(), hash },
                };
                self.swarm.handle(now, Event::PieceChecked { piece, outcome });
            }
            Action::PieceDone { piece, givers } => {
                println!("{}: piece {} from {} peer", self.name, piece.0, givers.len());
            }
            Action::Completed => println!("{}: complete", self.name),
            _ => {}
        }
    }

    fn hear(&mut self, now: Moment, sent: Sent) {
        match sent {
            Sent::Message(message) => self.handle(now, Event::Message { peer: OTHER, message }),
            Sent::Block(block, bytes) => {
                self.buffers += 1;
                let buffer = BufferId(self.buffers);
                self.received = Some((buffer, bytes));
                self.handle(now, Event::Block { peer: OTHER, block, buffer });
            }
        }
    }

    fn range(&self, block: BlockRef) -> std::ops::Range<usize> {
        let span = self.metainfo.info().geometry().block_span(block);
        span.start as usize..span.end as usize
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = Rng::from_seed(1);
    let content: Vec<u8> = (0..1_000_000).map(|_| rng.below(256) as u8).collect();
    let hashes = content.chunks(65_536).flat_map(|piece| <[u8; 20]>::from(Sha1::digest(piece)));
    let metainfo = MetainfoBuilder::single_file("in memory", content.len() as u64)
        .piece_len(65_536)
        .build(hashes.collect())?;

    let mut peers = [
        Peer::new("seed", 1, &metainfo, Some(content.clone())),
        Peer::new("leech", 2, &metainfo, None),
    ];
    let mut now = Moment::START;
    for (at, direction) in [(0, Direction::Incoming), (1, Direction::Outgoing)] {
        let addr = ([127, 0, 0, 1], 6881).into();
        let id = PeerId([2 - at as u8; 20]);
        let (peer, fast, extended) = (OTHER, true, false);
        peers[at].handle(now, Event::Connected { peer, addr, id, direction, fast, extended });
    }
    while !peers[1].swarm.is_complete() {
        let mut moved = false;
        for at in 0..2 {
            while let Some(sent) = peers[at].outgoing.pop_front() {
                peers[1 - at].hear(now, sent);
                moved = true;
            }
        }
        if !moved {
            // Nothing is under way: on to the next timer.
            let due = peers.iter().filter_map(|peer| peer.swarm.deadline()).min();
            now = due.ok_or("nothing will ever happen any more")?;
            peers.iter_mut().for_each(|peer| peer.handle(now, Event::Timeout));
        }
    }
    if peers[1].content != content {
        return Err("the copy differs".into());
    }
    println!("both hold the same {} bytes", content.len());
    Ok(())
}
