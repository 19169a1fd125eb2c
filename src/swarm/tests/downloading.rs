//! What is asked of whom.

use std::collections::BTreeSet;

use super::*;

#[test]
fn interest_is_told_exactly_when_it_changes() {
    let mut table = Table::new("x..", 1);
    table.connect(&guest(1));
    table.said(1);
    table.hear(1, Message::HaveNone);
    table.hear(1, Message::Have(PieceIndex(0)));
    assert_eq!(table.said(1), []);
    table.hear(1, Message::Have(PieceIndex(1)));
    assert_eq!(table.said(1), [Message::Interested]);
    table.hear(1, Message::Have(PieceIndex(1)));
    assert_eq!(table.said(1), []);
    table.hear(1, Message::Unchoke);
    let block = table.requests(1)[0];
    table.give(1, block);
    table.said(1);
    table.verified(1);
    assert_eq!(table.said(1), [Message::Have(PieceIndex(1)), Message::NotInterested]);
}

#[test]
fn upload_only_asks_for_nothing() {
    let mut table = Table::with("..", 1, |config| config.upload_only = true);
    table.connect(&guest(1));
    table.said(1);
    table.hear(1, Message::HaveAll);
    table.hear(1, Message::Unchoke);
    assert_eq!(table.said(1), []);
}

#[test]
fn rarest_pieces_come_first_once_a_few_are_held() {
    let mut table = Table::new("xxxx......", 1);
    table.join(&guest(1), "....xxxx..");
    table.join(&guest(2), "....xx.x..");
    table.serve(&guest(3), "....xxxxx.");
    let pieces: Vec<u32> = table.requests(3).iter().map(|block| block.piece.0).collect();
    assert_eq!(pieces[..2], [8, 6], "{pieces:?}");
}

#[test]
fn first_pieces_are_chosen_at_random() {
    let first = |seed| {
        let geometry = Geometry::new(64 * u64::from(BLOCK_LEN), BLOCK_LEN).unwrap();
        let config = SwarmConfig::new(LOCAL);
        let (rng, now) = (Rng::from_seed(seed), Moment::START);
        let swarm = Swarm::new(config, geometry, Bitfield::empty(64), rng, now);
        let mut table = Table { swarm, now, actions: Vec::new(), next_buffer: 0 };
        table.join(&guest(1), &format!("x{}", ".".repeat(63)));
        table.serve(&guest(2), &"x".repeat(64));
        table.requests(2)[0].piece
    };
    let firsts: BTreeSet<PieceIndex> = (0..32).map(first).collect();
    assert!(firsts.len() > 16, "{firsts:?}");
}

#[test]
fn each_peer_finishes_the_piece_it_began() {
    let mut table = Table::new("........", 16);
    for key in 1..=3 {
        table.serve(&guest(key), "xxxxxxxx");
    }
    let mut piece_of = BTreeMap::new();
    for _ in 0..60 {
        for key in 1..=3 {
            for block in table.requests(key) {
                table.now = table.now + Duration::from_millis(1);
                table.give(key, block);
                if table.swarm.have().count() == 0 {
                    let owner = *piece_of.entry(block.piece).or_insert(key);
                    assert_eq!(owner, key, "{block:?}");
                }
            }
        }
        if piece_of.len() >= 6 {
            break;
        }
    }
    assert!(piece_of.len() >= 3);
}

#[test]
fn requests_run_through_a_piece_in_order() {
    let mut table = Table::new(".", 32);
    table.serve(&guest(1), "x");
    let mut asked = Vec::new();
    loop {
        let requests = table.requests(1);
        if requests.is_empty() {
            break;
        }
        for block in requests {
            asked.push(block.begin / BLOCK_LEN);
            table.give(1, block);
        }
    }
    assert_eq!(asked, (0..32).collect::<Vec<_>>());
}

#[test]
fn pieces_begun_come_before_new_ones() {
    let mut table = Table::new("....", 16);
    table.serve(&guest(1), "xxxx");
    let begun = table.requests(1)[0].piece;
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.serve(&guest(2), "xxxx");
    assert!(table.requests(2).iter().all(|block| block.piece == begun));
}

#[test]
fn memory_budget_bounds_the_pieces_begun() {
    let mut table = Table::with("........", 4, |config| config.memory_blocks = 8);
    let mut asked = BTreeSet::new();
    for key in 1..=4 {
        table.serve(&guest(key), "xxxxxxxx");
        asked.extend(table.requests(key).iter().map(|block| block.piece));
    }
    assert_eq!(asked.len(), 2);
    table.handle(Event::MemoryBudget { blocks: 16 });
    let more = (1..=4).flat_map(|key| table.requests(key)).map(|block| block.piece);
    assert_eq!(more.collect::<BTreeSet<_>>().difference(&asked).count(), 2);
}

#[test]
fn one_piece_may_be_begun_however_small_the_budget() {
    let mut table = Table::with("..", 64, |config| config.memory_blocks = 1);
    table.serve(&guest(1), "xx");
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
}

#[test]
fn memory_full_of_what_nobody_can_give_is_freed() {
    let mut table = Table::with("..", 4, |config| config.memory_blocks = 4);
    table.serve(&guest(1), "x.");
    let block = table.requests(1)[0];
    table.give(1, block);
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.serve(&guest(2), ".x");
    assert!(table.actions.contains(&Action::DropPiece { piece: PieceIndex(0) }));
    table.run(|_, _| true);
    assert_eq!(table.swarm.have(), &drawn(".x"));
}

#[test]
fn endgame_asks_others_for_the_last_blocks_and_cancels_when_they_come() {
    let mut table = Table::new(".", 4);
    table.serve(&guest(1), "x");
    let last = table.requests(1);
    assert_eq!(last.len(), 4);
    table.serve(&guest(2), "x");
    let doubled = table.requests(2);
    assert!(!doubled.is_empty());
    let buffer = table.give(2, doubled[0]);
    assert!(table.actions.contains(&Action::Keep { buffer, block: doubled[0] }));
    assert_eq!(table.said(1), [Message::Cancel(doubled[0])]);
    // It crosses with the cancel: no fault, no use.
    let buffer = table.give(1, doubled[0]);
    assert!(table.actions.contains(&Action::Discard { buffer }));
    assert_eq!(table.swarm.peers().map(|peer| peer.snubbed).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn no_block_is_asked_of_more_than_three() {
    let mut table = Table::new(".", 2);
    for key in 1..=6 {
        table.serve(&guest(key), "x");
    }
    table.wait(Duration::from_secs(10));
    let asked = (1..=6).map(|key| table.swarm.peers().nth(key - 1).unwrap().blocks_owed);
    assert_eq!(asked.sum::<usize>(), 6);
}

#[test]
fn peer_that_sends_nothing_is_snubbed_and_its_blocks_go_to_others() {
    let mut table = Table::new("..", 4);
    table.serve(&guest(1), "xx");
    let owed = table.requests(1);
    table.wait(Duration::from_secs(20));
    let peer = table.swarm.peers().next().unwrap();
    assert!(peer.snubbed);
    assert_eq!((peer.window, peer.blocks_owed), (1, 1));
    table.serve(&guest(2), "xx");
    let again = table.requests(2);
    assert!(again.iter().any(|block| owed.contains(block)), "{again:?}");
    // A block that comes late and is still missing is used.
    let late = *owed.iter().find(|block| !again.contains(block)).unwrap_or(&owed[3]);
    let buffer = table.give(1, late);
    assert!(table.actions.contains(&Action::Keep { buffer, block: late }));
    assert!(!table.swarm.peers().next().unwrap().snubbed);
}

#[test]
fn choke_loses_the_requests_of_a_plain_peer_and_late_blocks_are_used() {
    let mut table = Table::new("..", 4);
    table.serve(&guest(1).plain(), "xx");
    let owed = table.requests(1);
    table.hear(1, Message::Choke);
    assert_eq!(table.swarm.peers().next().unwrap().blocks_owed, 0);
    let buffer = table.give(1, owed[0]);
    assert!(table.actions.contains(&Action::Keep { buffer, block: owed[0] }));
    table.hear(1, Message::Unchoke);
    assert!(!table.requests(1).contains(&owed[0]));
}

#[test]
fn choke_keeps_the_requests_of_a_fast_peer_until_it_rejects_them() {
    let mut table = Table::new("..", 4);
    table.serve(&guest(1), "xx");
    let owed = table.requests(1);
    table.hear(1, Message::Choke);
    assert_eq!(table.swarm.peers().next().unwrap().blocks_owed, owed.len());
    for block in &owed {
        table.hear(1, Message::Reject(*block));
    }
    assert_eq!(table.swarm.peers().next().unwrap().blocks_owed, 0);
    assert_eq!(table.requests(1), []);
    table.hear(1, Message::Unchoke);
    assert_eq!(table.requests(1), owed);
}

#[test]
fn allowed_pieces_are_asked_for_while_choked() {
    let mut table = Table::new("..", 2);
    table.join(&guest(1), "xx");
    table.hear(1, Message::AllowedFast(PieceIndex(1)));
    assert_eq!(table.requests(1), [block(1, 0), block(1, 1)]);
    table.hear(1, Message::Reject(block(1, 0)));
    assert_eq!(table.requests(1), []);
}

#[test]
fn suggested_pieces_come_first() {
    let mut table = Table::new(&".".repeat(50), 1);
    table.join(&guest(1), &"x".repeat(50));
    for piece in [30, 7, 12] {
        table.hear(1, Message::Suggest(PieceIndex(piece)));
    }
    table.hear(1, Message::Unchoke);
    let pieces: Vec<u32> = table.requests(1).iter().map(|block| block.piece.0).collect();
    assert_eq!(pieces[..3], [30, 7, 12]);
}

#[test]
fn givers_of_a_piece_are_named_with_their_parts_and_times() {
    let mut table = Table::new(".", 2);
    table.serve(&guest(1), "x");
    let asked_at = table.now;
    let owed = table.requests(1);
    for block in owed {
        table.now = table.now + Duration::from_millis(5);
        table.give(1, block);
    }
    table.take();
    table.verified(0);
    let done = table.take();
    let Some(Action::PieceDone { givers, .. }) = done.first() else { panic!("{done:?}") };
    assert_eq!(givers.len(), 1);
    assert_eq!(givers[0].who.id, guest(1).id);
    assert_eq!((givers[0].blocks, givers[0].bytes), (2, 2 * u64::from(BLOCK_LEN)));
    assert_eq!((givers[0].requested_at, givers[0].received_at), (asked_at, table.now));
    assert_eq!(done.iter().filter(|action| **action == Action::Completed).count(), 1);
}

#[test]
fn availability_counts_every_peer() {
    let mut table = Table::new("....", 1);
    table.join(&guest(1), "xx..");
    table.join(&guest(2), ".xx.");
    table.join(&guest(3), "xxxx");
    let counts: Vec<u32> =
        (0..5).map(|piece| table.swarm.availability(PieceIndex(piece))).collect();
    assert_eq!(counts, [2, 3, 2, 1, 0]);
    assert!((table.swarm.distributed_copies() - 1.75).abs() < 1e-9);
    table.hear(1, Message::Have(PieceIndex(2)));
    table.hear(1, Message::Have(PieceIndex(3)));
    table.handle(Event::Disconnected { peer: PeerKey(3) });
    let counts: Vec<u32> =
        (0..4).map(|piece| table.swarm.availability(PieceIndex(piece))).collect();
    assert_eq!(counts, [1, 2, 2, 1]);
}
