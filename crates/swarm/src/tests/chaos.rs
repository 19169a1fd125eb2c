//! Peers that send anything at any time, and a driver that keeps the contract: the invariants hold, every
//! buffer is answered for, and afterwards an honest peer completes the download.

use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
use piecework_core::Priority;

/// Does what a driver must do with the swarm's actions, as far as it must be done now.
struct Driver {
    table: TestSwarm,
    rng: Rng,
    owed: Vec<(u32, BlockRef)>,
    verifying: Vec<(PieceIndex, bool)>,
    kept: BTreeMap<PieceIndex, u32>,
    next_key: u32,
    completed: u32,
}

const PIECES: u32 = 12;
const BLOCKS: u32 = 3;

impl Driver {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let table = TestSwarm::with(&".".repeat(PIECES as usize), BLOCKS, |config| {
            config.memory_blocks = [1, 6, 12, 100][rng.below(4) as usize];
            config.max_peers = 5;
            config.upload_slots = 2;
            config.max_requests_in = 6;
            config.info_hash = Some(piecework_core::InfoHash([9; 20]));
            if rng.below(2) == 0 {
                config.choke = ChokePolicy::Closed;
            }
        });
        let (owed, verifying, kept) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { table, rng, owed, verifying, kept, next_key: 1, completed: 0 }
    }

    fn settle(&mut self) {
        for action in self.table.take() {
            match action {
                Action::Send { peer, message: Message::Request(block) } => {
                    self.owed.push((peer.0, block));
                }
                Action::Send { peer, message: Message::Cancel(block) } => {
                    assert!(self.owed.contains(&(peer.0, block)), "cancelled, never asked");
                }
                Action::Keep { block, .. } => {
                    *self.kept.entry(block.piece).or_default() += 1;
                }
                Action::Verify { piece, want_digests } => {
                    assert_eq!(self.kept.remove(&piece), Some(BLOCKS));
                    self.verifying.push((piece, want_digests));
                }
                Action::DropPiece { piece } => {
                    self.kept.remove(&piece);
                }
                Action::Completed => self.completed += 1,
                _ => {}
            }
        }
    }

    fn any_piece(&mut self) -> PieceIndex {
        PieceIndex(
            self.rng.below(u64::from(PIECES) + u64::from(self.rng.clone().below(40) == 0)) as u32
        )
    }

    fn any_block(&mut self) -> BlockRef {
        block(self.any_piece().0, self.rng.below(u64::from(BLOCKS)) as u32)
    }

    fn step(&mut self) {
        let key = self.next_key.saturating_sub(self.rng.below(6) as u32).max(1);
        let (piece, any_block) = (self.any_piece(), self.any_block());
        match self.rng.below(28) {
            0 | 1 => {
                let fast = self.rng.below(3) > 0;
                self.next_key += 1;
                let host = self.rng.below(20) as u8 + 1;
                let guest = TestPeer { fast, ..guest(self.next_key) }
                    .called(PeerId([host; 20]))
                    .at(&format!("10.0.0.{host}:{}", 1_000 + self.next_key));
                self.table.connect(&guest);
                let mut bits = Bitfield::empty(PIECES);
                (0..self.rng.below(20)).for_each(|_| {
                    bits.insert(PieceIndex(self.rng.below(u64::from(PIECES)) as u32));
                });
                let bits = Bytes::copy_from_slice(bits.as_wire());
                self.table.hear(guest.key, Message::Bitfield(bits));
            }
            2 => self.table.handle(Event::Disconnected { peer: PeerKey(key) }),
            3 => self.table.hear(key, Message::Have(piece)),
            4 => self.table.hear(key, Message::Choke),
            5..=7 => self.table.hear(key, Message::Unchoke),
            8 => self.table.hear(key, Message::Interested),
            9 => self.table.hear(key, Message::NotInterested),
            10 => self.table.hear(key, Message::Request(any_block)),
            11 => self.table.hear(key, Message::Cancel(any_block)),
            12 => self.table.hear(key, Message::AllowedFast(piece)),
            13 => self.table.hear(key, Message::Suggest(piece)),
            14 => {
                self.table.give(key, any_block);
            }
            15..=18 => {
                for _ in 0..self.rng.below(8) {
                    if self.owed.is_empty() {
                        break;
                    }
                    let at = self.rng.below(self.owed.len() as u64) as usize;
                    let (key, block) = self.owed.swap_remove(at);
                    if self.rng.below(6) == 0 {
                        self.table.hear(key, Message::Reject(block));
                    } else {
                        self.table.give(key, block);
                    }
                    self.settle();
                }
            }
            19 | 20 => {
                if let Some((piece, wants)) = self.verifying.pop() {
                    let digests: Vec<BlockDigest> =
                        (0..BLOCKS).map(|_| digest(self.rng.below(9) > 0)).collect();
                    let outcome = match self.rng.below(5) {
                        0 => PieceOutcome::StorageFailed,
                        1 => PieceOutcome::Corrupt { digests, hash: WRONG },
                        _ => PieceOutcome::Verified {
                            digests: if wants { vec![digest(true); 3] } else { Vec::new() },
                        },
                    };
                    self.table.handle(Event::PieceChecked { piece, outcome });
                }
            }
            21 => {
                let time = Duration::from_millis(1 << self.rng.below(17));
                self.table.wait(time);
            }
            22 => {
                let blocks = self.rng.below(20) as u32;
                self.table.handle(Event::MemoryBudget { blocks });
            }
            23 | 24 => {
                let some = (0..PIECES).map(|_| match self.rng.below(5) {
                    0 | 1 => Priority::Skip,
                    2 => Priority::Low,
                    3 => Priority::High,
                    _ => Priority::Normal,
                });
                let priorities = some.collect();
                let all = self.rng.below(3) == 0;
                let priorities = if all { [].into() } else { priorities };
                self.table.handle(Event::Wants { priorities });
            }
            25 => {
                let sequential = self.rng.below(2) == 0;
                self.table.handle(Event::Order { sequential });
            }
            26 => {
                let max_peers = self.rng.below(7) as usize;
                let upload_slots = self.rng.below(4) as usize;
                self.table.handle(Event::Limits { max_peers, upload_slots });
            }
            _ => {
                let event = if self.rng.below(4) == 0 { Event::Pause } else { Event::Resume };
                self.table.handle(event);
            }
        }
        self.settle();
    }

    /// Everything calms down, and a new, honest peer serves all.
    fn heal(&mut self) {
        self.table.handle(Event::Resume);
        self.table.handle(Event::Limits { max_peers: 5, upload_slots: 2 });
        self.table.handle(Event::Wants { priorities: [].into() });
        for key in 1..=self.next_key {
            self.table.handle(Event::Disconnected { peer: PeerKey(key) });
        }
        self.settle();
        while let Some((piece, _)) = self.verifying.pop() {
            self.table.handle(Event::PieceChecked { piece, outcome: PieceOutcome::StorageFailed });
        }
        self.table.connect(&guest(200));
        self.table.hear(200, Message::HaveAll);
        self.table.hear(200, Message::Unchoke);
        for _ in 0..1_000 {
            self.settle();
            if let Some((piece, wants)) = self.verifying.pop() {
                let digests = if wants { vec![digest(true); 3] } else { Vec::new() };
                self.table.checked(piece.0, PieceOutcome::Verified { digests });
            } else if let Some(at) = self.owed.iter().position(|(key, _)| *key == 200) {
                let (key, block) = self.owed.swap_remove(at);
                self.table.give(key, block);
            } else {
                break;
            }
        }
        assert!(self.table.swarm.is_complete(), "{:?}", self.table.swarm.progress());
        self.settle();
        assert_eq!(self.completed, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_peers_say_the_invariants_hold_and_the_download_can_be_finished(seed in any::<u64>()) {
        let mut driver = Driver::new(seed);
        for _ in 0..250 {
            driver.step();
        }
        driver.heal();
    }
}
