//! Tests of which blocks are requested from which peers.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_have_to_who_holds_the_piece_waits_for_the_next_message_a_second_at_most() {
    let mut table = TestSwarm::new("....", 1);
    table.join(&guest(2), "....");
    table.serve(&guest(1), "xxx.");
    let piece = table.requests(1)[0].piece;
    table.give(1, block(piece.0, 0));
    table.verified(piece.0);
    let told: Vec<(bool, u32)> = table.take().iter().filter_map(told_have).collect();
    assert_eq!(told, [(false, 1), (true, 2)], "who holds it has no use for it now");
    let is_flush = |action: &Action| matches!(action, Action::Flush { .. });
    table.wait(Duration::from_millis(990));
    assert!(!table.take().iter().any(is_flush));
    table.wait(Duration::from_millis(10));
    let flushed = table.take().into_iter().filter(is_flush).collect::<Vec<_>>();
    assert_eq!(flushed, [Action::Flush { peer: PeerKey(1) }]);
    table.wait(Duration::from_secs(5));
    assert!(!table.take().iter().any(is_flush), "nothing waits any more");
}

#[test]
fn complete_peers_learn_of_the_last_pieces_at_once() {
    let mut table = TestSwarm::new("xxx.", 1);
    table.serve(&guest(1), "xxxx");
    table.give(1, block(3, 0));
    table.take();
    table.verified(3);
    let actions = table.take();
    let have = actions.iter().position(|action| told_have(action) == Some((false, 1))).unwrap();
    let next = actions[have + 1..].iter().find_map(|action| match action {
        Action::Send { peer: PeerKey(1), .. } | Action::Flush { peer: PeerKey(1) } => Some(true),
        Action::Disconnect { peer: PeerKey(1), .. } => Some(false),
        _ => None,
    });
    assert_eq!(next, Some(true), "it goes out before the connection ends: {actions:?}");
}

/// Returns whether a HAVE is urgent, and to whom it goes.
fn told_have(action: &Action) -> Option<(bool, u32)> {
    match action {
        Action::Send { peer, message: Message::Have(_) } => Some((true, peer.0)),
        Action::SendLater { peer, message: Message::Have(_) } => Some((false, peer.0)),
        _ => None,
    }
}

#[test]
fn interest_is_told_exactly_when_it_changes() {
    let mut table = TestSwarm::new("x..", 1);
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
    let mut table = TestSwarm::with("..", 1, |config| config.upload_only = true);
    table.connect(&guest(1));
    table.said(1);
    table.hear(1, Message::HaveAll);
    table.hear(1, Message::Unchoke);
    assert_eq!(table.said(1), []);
}

#[test]
fn rarest_pieces_come_first_once_a_few_are_held() {
    let mut table = TestSwarm::new("xxxx......", 1);
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
        let mut table = TestSwarm { swarm, now, actions: Vec::new(), next_buffer: 0, events: 0 };
        table.join(&guest(1), &format!("x{}", ".".repeat(63)));
        table.serve(&guest(2), &"x".repeat(64));
        table.requests(2)[0].piece
    };
    let firsts: BTreeSet<PieceIndex> = (0..32).map(first).collect();
    assert!(firsts.len() > 16, "{firsts:?}");
}

#[test]
fn each_peer_finishes_the_piece_it_began() {
    let mut table = TestSwarm::new("........", 16);
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
    let mut table = TestSwarm::new(".", 32);
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
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    let begun = table.requests(1)[0].piece;
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.serve(&guest(2), "xxxx");
    assert!(table.requests(2).iter().all(|block| block.piece == begun));
}

#[test]
fn memory_budget_bounds_the_pieces_begun() {
    let mut table = TestSwarm::with("........", 4, |config| config.memory_blocks = 8);
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
    let mut table = TestSwarm::with("..", 64, |config| config.memory_blocks = 1);
    table.serve(&guest(1), "xx");
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
}

#[test]
fn memory_full_of_what_nobody_can_give_is_freed() {
    let mut table = TestSwarm::with("..", 4, |config| config.memory_blocks = 4);
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
    let mut table = TestSwarm::new(".", 4);
    table.serve(&guest(1), "x");
    let last = table.requests(1);
    assert_eq!(last.len(), 4);
    table.serve(&guest(2), "x");
    let doubled = table.requests(2);
    assert!(!doubled.is_empty());
    let buffer = table.give(2, doubled[0]);
    assert!(table.actions.contains(&Action::Keep { buffer, block: doubled[0] }));
    assert_eq!(table.said(1), [Message::Cancel(doubled[0])]);
    // It crosses with the cancel: it is no fault and of no use.
    let buffer = table.give(1, doubled[0]);
    assert!(table.actions.contains(&Action::Discard { buffer }));
    assert_eq!(table.swarm.peers().map(|peer| peer.snubbed).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn no_block_is_asked_of_more_than_three() {
    let mut table = TestSwarm::new(".", 2);
    for key in 1..=6 {
        table.serve(&guest(key), "x");
    }
    table.wait(Duration::from_secs(10));
    let owed: usize = table.swarm.peers().map(|peer| peer.blocks_owed).sum();
    assert!((4..=6).contains(&owed), "{owed}");
}

#[test]
fn peer_that_sends_nothing_is_snubbed_and_its_blocks_go_to_others() {
    let mut table = TestSwarm::new("..", 4);
    table.serve(&guest(1), "xx");
    let owed = table.requests(1);
    table.wait(Duration::from_secs(20));
    let peer = table.swarm.peers().next().unwrap();
    assert!(peer.snubbed);
    // Nobody else could serve them, so they stay requested.
    assert_eq!((peer.window, peer.blocks_owed), (1, 4));
    assert_eq!(table.said(1), []);
    table.serve(&guest(2), "xx");
    let again = table.requests(2);
    assert_eq!(again, owed, "they are as good as free");
    assert_eq!(table.said(1), []);
    // What others give is cancelled, and only one block is requested in its place.
    table.give(2, again[0]);
    assert_eq!(table.said(1), [Message::Cancel(again[0])]);
    // A block that comes late and is still missing is used.
    let buffer = table.give(1, again[3]);
    assert!(table.actions.contains(&Action::Keep { buffer, block: again[3] }));
    assert!(!table.swarm.peers().next().unwrap().snubbed);
    assert_eq!(table.said(2).last(), Some(&Message::Cancel(again[3])));
}

#[test]
fn choke_loses_the_requests_of_a_plain_peer_and_late_blocks_are_used() {
    let mut table = TestSwarm::new("..", 4);
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
    let mut table = TestSwarm::new("..", 4);
    table.serve(&guest(1), "xx");
    let owed = table.requests(1);
    table.hear(1, Message::Choke);
    assert_eq!(table.swarm.peers().next().unwrap().blocks_owed, owed.len());
    for block in &owed {
        table.hear(1, Message::Reject(*block));
    }
    assert_eq!(table.swarm.peers().next().unwrap().blocks_owed, 0);
    assert_eq!(table.requests(1), []);
    // It gave nothing before it choked us, so it is not asked again at once.
    table.hear(1, Message::Unchoke);
    assert_eq!(table.requests(1), []);
    table.wait(Duration::from_millis(250));
    assert_eq!(table.requests(1), owed);
}

/// Has a peer reject all its requests, until it has none.
fn reject_all(table: &mut TestSwarm, key: u32) -> usize {
    let mut rejected = 0;
    loop {
        let requests = table.requests(key);
        if requests.is_empty() {
            return rejected;
        }
        rejected += requests.len();
        requests.into_iter().for_each(|block| table.hear(key, Message::Reject(block)));
    }
}

/// A swarm with memory for four pieces of eight.
fn tight() -> TestSwarm {
    TestSwarm::with("........", 32, |config| config.memory_blocks = 128)
}

#[test]
fn line_17_refused_allowed_pieces_are_given_by_who_is_willing() {
    // The willing peer holds what was allowed, or nothing of it.
    for (allowed, holds) in [(0..8, "xxxxxxxx"), (0..4, "....xxxx"), (2..6, "xx....xx")] {
        let mut table = tight();
        table.join(&guest(1), "xxxxxxxx");
        for piece in allowed {
            table.hear(1, Message::AllowedFast(PieceIndex(piece)));
        }
        assert!(reject_all(&mut table, 1) > 0);
        table.serve(&guest(2), holds);
        table.run(|_, _| true);
        assert_eq!(table.swarm.have(), &drawn(holds));
    }
}

#[test]
fn line_17_one_refusal_is_enough_to_let_go_of_a_piece() {
    // It goes on with the other pieces that it allows, and is silent.
    let mut table = tight();
    table.join(&guest(1), "xxxxxxxx");
    table.serve(&guest(2), "....xxxx");
    for piece in 0..4 {
        table.hear(1, Message::AllowedFast(PieceIndex(piece)));
    }
    let asked = table.requests(1);
    table.hear(1, Message::Reject(asked[0]));
    table.requests(1);
    table.run(|_, _| true);
    assert_eq!(table.swarm.have(), &drawn("....xxxx"));
}

#[test]
fn line_17_pieces_of_who_chokes_or_refuses_are_given_up_for_want_of_memory() {
    for refuses in [true, false] {
        let mut table = tight();
        for key in 1..=4 {
            table.serve(&guest(key), "xxxx....");
            assert!(!table.requests(key).is_empty());
        }
        assert_eq!(table.swarm.progress().pieces_have, 0);
        for key in 1..=4 {
            let owed: Vec<BlockRef> = table.swarm.owed_by(key);
            if !refuses {
                table.hear(key, Message::Choke);
            }
            owed.into_iter().for_each(|block| table.hear(key, Message::Reject(block)));
            reject_all(&mut table, key);
        }
        table.serve(&guest(9), "....xxxx");
        table.run(|_, _| true);
        assert_eq!(table.swarm.have(), &drawn("....xxxx"), "refuses: {refuses}");
    }
}

#[test]
fn line_11_pieces_of_who_sends_nothing_are_given_up_for_want_of_memory() {
    let mut table = tight();
    for key in 1..=4 {
        table.serve(&guest(key), "xxxx....");
    }
    table.serve(&guest(9), "....xxxx");
    assert_eq!(table.requests(9), []);
    table.wait(Duration::from_secs(4));
    let asked = table.requests(9);
    assert!(!asked.is_empty() && asked.iter().all(|block| block.piece.0 >= 4), "{asked:?}");
}

#[test]
fn line_11_who_is_silent_while_others_give_is_parted_with_but_not_banned() {
    let mut table = TestSwarm::new(&".".repeat(400), 4);
    table.serve(&guest(1).outgoing("10.0.0.1:6881"), &"x".repeat(400));
    table.serve(&guest(2), &"x".repeat(400));
    let mut queue = Vec::new();
    for second in 0..50 {
        table.wait(Duration::from_secs(1));
        queue.extend(table.requests(2));
        if !queue.is_empty() {
            table.give(2, queue.remove(0));
        }
        if second == 30 {
            assert_eq!(table.fault_of(1), None);
        }
    }
    assert_eq!(table.fault_of(1), Some(PeerFault::Unresponsive));
    assert_eq!(table.fault_of(2), None);
    assert!(table.actions.contains(&Action::Dial { addr: "10.0.0.1:6881".parse().unwrap() }));
}

#[test]
fn line_16_who_is_silent_and_alone_is_asked_again_but_seldom() {
    let mut table = TestSwarm::new("..", 4);
    table.serve(&guest(1), "xx");
    table.requests(1);
    table.wait(Duration::from_secs(39));
    assert_eq!(table.said(1), []);
    table.wait(Duration::from_secs(100));
    let said = table.said(1);
    let count = |wanted: fn(&Message) -> bool| said.iter().filter(|m| wanted(m)).count();
    let asked = count(|message| matches!(message, Message::Request(_)));
    let cancelled = count(|message| matches!(message, Message::Cancel(_)));
    assert!((1..=3).contains(&asked) && cancelled == 3 + asked, "{said:?}");
    assert_eq!(table.faults(), BTreeMap::new());
}

#[test]
fn line_11_places_that_are_wanted_are_freed_by_who_sends_nothing() {
    let mut table = TestSwarm::with("....", 4, |config| config.max_peers = 3);
    for key in 1..=3 {
        table.serve(&guest(key), "xxxx");
    }
    let addr = "10.0.0.99:6881".parse().unwrap();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs: vec![addr] });
    assert!(!table.actions.contains(&Action::Dial { addr }));
    table.wait(Duration::from_millis(3_500));
    assert_eq!(table.faults().into_values().collect::<Vec<_>>(), [PeerFault::Unresponsive]);
    assert!(table.actions.contains(&Action::Dial { addr }));
    // There is one place for one address.
    table.wait(Duration::from_secs(10));
    assert_eq!(table.faults().len(), 1);
}

#[test]
fn line_11_places_that_are_wanted_are_given_by_who_gives_least() {
    let mut table = TestSwarm::with(&".".repeat(64), 4, |config| config.max_peers = 4);
    let all = "x".repeat(64);
    // One chokes us, one trickles, one gives, and one takes what we have.
    table.join(&guest(1), &all);
    (2..=3).for_each(|key| table.serve(&guest(key), &all));
    table.join(&guest(4), &all);
    table.handle(Event::Uploaded { peer: PeerKey(4), blocks: 1, bytes: u64::from(BLOCK_LEN) });
    let addrs = (90..99).map(|n| format!("10.0.0.{n}:6881").parse().unwrap()).collect();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    let mut dropped = Vec::new();
    for tenth in 0..100 {
        table.wait(Duration::from_millis(100));
        let trickles = tenth % 29 == 28;
        if let Some(asked) = table.requests(2).first().filter(|_| trickles) {
            table.give(2, *asked);
        }
        if let Some(asked) = table.swarm.owed_by(3).first().copied() {
            table.give(3, asked);
        }
        for key in table.faults().into_keys().filter(|key| *key <= 4) {
            if !dropped.contains(&key) {
                dropped.push(key);
            }
        }
        let dials = table.take().into_iter().filter_map(|action| match action {
            Action::Dial { addr } => Some(addr),
            _ => None,
        });
        for (at, addr) in dials.enumerate().collect::<Vec<_>>() {
            // The peers that come instead choke us as well.
            let key = 100 + tenth * 10 + at as u32;
            let id = PeerId([key as u8; 20]);
            table.connect(&guest(1).numbered(key).called(id).outgoing(&addr.to_string()));
            table.hear(key, Message::HaveAll);
        }
    }
    assert_eq!(dropped, [1, 2]);
}

#[test]
fn allowed_pieces_are_asked_for_while_choked() {
    let mut table = TestSwarm::new("..", 2);
    table.join(&guest(1), "xx");
    table.hear(1, Message::AllowedFast(PieceIndex(1)));
    assert_eq!(table.requests(1), [block(1, 0), block(1, 1)]);
    table.hear(1, Message::Reject(block(1, 0)));
    assert_eq!(table.requests(1), []);
}

#[test]
fn suggested_pieces_come_first() {
    let mut table = TestSwarm::new(&".".repeat(50), 1);
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
    let mut table = TestSwarm::new(".", 2);
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
    let mut table = TestSwarm::new("....", 1);
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
