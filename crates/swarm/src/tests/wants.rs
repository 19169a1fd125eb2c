//! Tests of which pieces are wanted, in which order, and what follows when that changes.

use super::*;
use piecework_core::Priority;
use piecework_proto::wire::ExtendedHandshake;

/// Returns the priorities of a picture such as `"-lnh"`: skipped, low, normal, high.
fn priorities(picture: &str) -> std::sync::Arc<[Priority]> {
    let priority = |mark| match mark {
        '-' => Priority::Skip,
        'l' => Priority::Low,
        'n' => Priority::Normal,
        'h' => Priority::High,
        other => panic!("`{other}` is no priority"),
    };
    picture.chars().map(priority).collect()
}

fn wanting(held: &str, blocks: u32, wants: &str) -> TestSwarm {
    TestSwarm::with(held, blocks, |config| config.priorities = Some(priorities(wants)))
}

fn want(table: &mut TestSwarm, picture: &str) {
    table.handle(Event::Wants { priorities: priorities(picture) });
}

fn pieces(requests: &[BlockRef]) -> Vec<u32> {
    let mut pieces: Vec<u32> = requests.iter().map(|block| block.piece.0).collect();
    pieces.dedup();
    pieces
}

/// Takes how many times the torrent was reported finished and complete.
fn ends(table: &mut TestSwarm) -> (usize, usize) {
    let taken = table.take();
    let count = |wanted| taken.iter().filter(|action| **action == wanted).count();
    (count(Action::Finished), count(Action::Completed))
}

/// Takes what recent extended handshakes to the peer said about whether we request nothing.
fn told_upload_only(table: &mut TestSwarm, key: u32) -> Vec<Option<bool>> {
    let handshake = |message| match message {
        Message::Extended { id: 0, payload } => Some(ExtendedHandshake::decode(&payload).unwrap()),
        _ => None,
    };
    let told = table.said(key).into_iter().filter_map(handshake);
    told.map(|handshake| handshake.upload_only).collect()
}

#[test]
fn pieces_of_higher_priority_come_first_and_skipped_ones_never() {
    let mut table = wanting("........", 1, "n-lhn-hl");
    table.serve(&guest(1), "xxxxxxxx");
    let mut asked = Vec::new();
    loop {
        let requests = table.requests(1);
        let Some(block) = requests.first().copied() else { break };
        for block in requests {
            asked.push(block.piece.0);
            table.give(1, block);
            table.verified(block.piece.0);
        }
        assert!(!table.swarm.have().contains(PieceIndex(1)), "{block:?}");
    }
    for run in [0..2, 2..4, 4..6] {
        asked[run].sort_unstable();
    }
    assert_eq!(asked, [3, 6, 0, 4, 2, 7]);
    assert_eq!(ends(&mut table), (1, 0));
    assert!(table.swarm.is_finished() && !table.swarm.is_complete());
}

#[test]
fn priorities_that_change_count_from_the_next_piece_on() {
    let mut table = TestSwarm::with("xxxx....", 64, |config| config.memory_blocks = 128);
    table.serve(&guest(1), "xxxxxxxx");
    let first = pieces(&table.requests(1))[0];
    let high = (4..8).find(|piece| *piece != first).unwrap();
    let picture: String = (0..8).map(|piece| if piece == high { 'h' } else { 'l' }).collect();
    want(&mut table, &picture);
    assert!(!table.actions.iter().any(|action| matches!(action, Action::DropPiece { .. })));
    table.join(&guest(2), "xxxxxxxx");
    table.hear(2, Message::Unchoke);
    assert_eq!(pieces(&table.requests(2)), [high]);
}

#[test]
fn suggestions_count_within_a_priority() {
    let mut table = wanting("xxxx....", 1, "nnnnlnnh");
    table.join(&guest(1), "xxxxxxxx");
    table.hear(1, Message::Suggest(PieceIndex(4)));
    table.hear(1, Message::Suggest(PieceIndex(6)));
    table.hear(1, Message::Unchoke);
    assert_eq!(pieces(&table.requests(1)), [7, 6, 5, 4]);
}

#[test]
fn what_is_asked_of_a_skipped_piece_is_cancelled_and_what_came_is_dropped() {
    for guest in [guest(1), guest(1).plain()] {
        let mut table = TestSwarm::new("..", 8);
        table.serve(&guest, "xx");
        let asked = table.requests(1);
        let skipped = asked[0].piece;
        assert!(asked.iter().all(|block| block.piece == skipped));
        table.give(1, asked[0]);
        let asked = [&asked[1..], &table.requests(1)].concat();
        table.take();
        want(&mut table, if skipped.0 == 0 { "-n" } else { "n-" });
        assert!(table.actions.contains(&Action::DropPiece { piece: skipped }));
        let said = table.said(1);
        for block in &asked {
            assert!(said.contains(&Message::Cancel(*block)), "{block:?}");
        }
        let other = said.iter().filter_map(|message| match message {
            Message::Request(block) => Some(block.piece),
            _ => None,
        });
        assert!(other.clone().count() > 0 && other.into_iter().all(|piece| piece != skipped));
        assert_eq!(table.swarm.progress().wasted, u64::from(BLOCK_LEN));
        // A block that was on its way already is no fault.
        let late = table.give(1, asked[0]);
        assert!(table.actions.contains(&Action::Discard { buffer: late }));
        if guest.fast {
            table.hear(1, Message::Reject(asked[1]));
        }
        assert_eq!(table.faults(), BTreeMap::new());
    }
}

#[test]
fn skipped_piece_that_is_wanted_again_is_fetched() {
    let mut table = TestSwarm::new(".", 4);
    table.serve(&guest(1), "x");
    assert_eq!(table.requests(1).len(), 4);
    want(&mut table, "-");
    assert_eq!(table.said(1).last(), Some(&Message::NotInterested));
    assert_eq!(ends(&mut table), (1, 0));
    assert_eq!(table.swarm.peers().count(), 1, "it has not answered yet");
    for index in 0..3 {
        table.hear(1, Message::Reject(block(0, index)));
    }
    assert_eq!(table.swarm.peers().count(), 1);
    table.give(1, block(0, 3));
    assert_eq!(table.swarm.peers().count(), 0, "a seed is of no use now");
    want(&mut table, "n");
    table.serve(&guest(2), "x");
    table.run(|_, _| true);
    assert_eq!(ends(&mut table), (1, 1));
}

#[test]
fn piece_that_is_skipped_while_it_is_verified_is_held_if_it_is_right() {
    let mut table = TestSwarm::new("..", 1);
    table.serve(&guest(1), "xx");
    for block in table.requests(1) {
        table.give(1, block);
    }
    want(&mut table, "-n");
    assert_eq!(table.faults(), BTreeMap::new());
    table.verified(0);
    assert!(table.swarm.have().contains(PieceIndex(0)) && !table.swarm.is_finished());
    assert_eq!(ends(&mut table), (0, 0));
    table.verified(1);
    assert_eq!(ends(&mut table), (1, 1));
    assert_eq!(table.swarm.progress().bytes_wanted_have, u64::from(BLOCK_LEN));
}

#[test]
fn complete_comes_without_finished_if_the_last_piece_was_not_wanted() {
    let mut table = TestSwarm::new("..", 1);
    table.serve(&guest(1), "x.");
    let asked = table.requests(1)[0];
    table.give(1, asked);
    table.join(&guest(2), ".x");
    want(&mut table, "-n");
    table.hear(2, Message::Unchoke);
    let asked = table.requests(2)[0];
    table.give(2, asked);
    table.verified(1);
    assert_eq!(ends(&mut table), (1, 0));
    table.verified(0);
    assert_eq!(ends(&mut table), (0, 1));
}

#[test]
fn piece_that_is_skipped_while_it_is_verified_is_not_fetched_again_if_it_is_wrong() {
    for outcome in [
        PieceOutcome::Corrupt { digests: vec![digest(false)], hash: WRONG },
        PieceOutcome::StorageFailed,
    ] {
        let mut table = TestSwarm::new("..", 1);
        table.serve(&guest(1), "xx");
        for block in table.requests(1) {
            table.give(1, block);
        }
        want(&mut table, "-n");
        table.checked(0, outcome);
        table.verified(1);
        table.serve(&guest(2), "x.");
        assert_eq!(table.requests(2), []);
        want(&mut table, "nn");
        assert_eq!(table.requests(2), [block(0, 0)]);
    }
}

#[test]
fn parked_piece_that_is_wanted_again_is_still_fetched_from_one_peer_alone() {
    let mut table = TestSwarm::new("..", 4);
    table.serve(&guest(1), "x.");
    table.serve(&guest(2), "x.");
    for index in 0..4 {
        table.give(1 + index / 2, block(0, index));
    }
    for key in 1..=2 {
        table.hear(key, Message::Choke);
    }
    table.checked(0, PieceOutcome::Corrupt { digests: vec![digest(false); 4], hash: WRONG });
    want(&mut table, "-n");
    for key in 1..=2 {
        table.hear(key, Message::Unchoke);
    }
    assert_eq!((table.requests(1), table.requests(2)), (vec![], vec![]));
    want(&mut table, "nn");
    let asked = [table.requests(1).len(), table.requests(2).len()];
    assert!(asked == [4, 0] || asked == [0, 4], "{asked:?}");
}

#[test]
fn interest_follows_what_is_wanted() {
    let mut table = TestSwarm::new("...", 1);
    table.join(&guest(1), "x..");
    table.join(&guest(2), ".x.");
    let interested = |table: &TestSwarm| -> Vec<u32> {
        table.swarm.peers().filter(|peer| peer.interests_us).map(|peer| peer.key.0).collect()
    };
    assert_eq!(interested(&table), [1, 2]);
    want(&mut table, "-nn");
    assert_eq!(table.said(1), [Message::NotInterested]);
    assert_eq!((table.said(2), interested(&table)), (vec![], vec![2]));
    // A new piece that is not wanted does not interest us either.
    table.hear(2, Message::Have(PieceIndex(0)));
    want(&mut table, "hl-");
    assert_eq!(table.said(1), [Message::Interested]);
    assert_eq!(table.said(2), []);
    want(&mut table, "--n");
    assert_eq!(interested(&table), Vec::<u32>::new());
}

#[test]
fn same_wants_again_change_nothing() {
    let mut table = TestSwarm::new("..", 8);
    table.serve(&guest(1), "xx");
    table.take();
    table.handle(Event::Wants { priorities: priorities("") });
    want(&mut table, "nn");
    assert_eq!(table.take(), []);
}

#[test]
fn finished_torrent_parts_from_seeds_and_finds_them_again_when_it_wants_more() {
    let mut table = wanting("..x.", 1, "n---");
    table.handle(Event::Candidates {
        source: PeerSource::Tracker,
        addrs: vec!["10.0.0.1:1".parse().unwrap()],
    });
    table.join(&guest(2).extended(), "....");
    table.connect(&guest(1).outgoing("10.0.0.1:1"));
    table.hear(1, Message::HaveAll);
    table.hear(1, Message::Unchoke);
    table.run(|_, _| true);
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    assert_eq!(told_upload_only(&mut table, 2), [Some(true)]);
    assert_eq!(ends(&mut table), (1, 0));
    // Newcomers are told at once. A seed, or another peer that wants nothing, need not stay.
    table.connect(&guest(3).extended());
    assert_eq!(told_upload_only(&mut table, 3), [Some(true)]);
    let upload_only = ExtendedHandshake { upload_only: Some(true), ..ExtendedHandshake::default() };
    table.hear(3, Message::Extended { id: 0, payload: upload_only.encode().into() });
    assert_eq!(table.fault_of(3), Some(PeerFault::BothComplete));
    for _ in 0..5 {
        table.wait(Duration::from_secs(60));
        table.hear(2, Message::KeepAlive);
    }
    let is_dial = |action: &Action| matches!(action, Action::Dial { .. });
    assert!(!table.take().iter().any(is_dial), "who holds everything is of no use");
    want(&mut table, "nn--");
    assert!(!table.swarm.is_finished());
    assert_eq!(told_upload_only(&mut table, 2), [Some(false)]);
    assert!(table.take().iter().any(is_dial));
    table.connect(&guest(4).outgoing("10.0.0.1:1"));
    table.hear(4, Message::HaveAll);
    table.hear(4, Message::Unchoke);
    table.run(|_, _| true);
    assert_eq!(ends(&mut table), (1, 0));
    want(&mut table, "");
    table.serve(&guest(5), "xxxx");
    table.run(|_, _| true);
    assert_eq!(ends(&mut table), (1, 1));
}

#[test]
fn peer_that_wants_nothing_is_not_dialled_by_a_seed_again_and_again() {
    let mut table = TestSwarm::new("xx", 1);
    table.handle(Event::Candidates {
        source: PeerSource::Tracker,
        addrs: vec!["10.0.0.1:1".parse().unwrap()],
    });
    table.connect(&guest(1).extended().outgoing("10.0.0.1:1"));
    table.hear(1, Message::Bitfield(Bytes::from_static(&[0x40])));
    let upload_only = ExtendedHandshake { upload_only: Some(true), ..ExtendedHandshake::default() };
    table.hear(1, Message::Extended { id: 0, payload: upload_only.encode().into() });
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    table.take();
    table.wait(Duration::from_secs(1_000));
    assert_eq!(table.take(), []);
}

#[test]
fn nothing_wanted_is_finished_from_the_start_and_serves() {
    let mut table = wanting("x.", 1, "--");
    assert!(table.swarm.is_finished());
    table.join(&guest(1), "..");
    table.hear(1, Message::Interested);
    table.hear(1, Message::Request(block(0, 0)));
    let upload = Action::Upload { peer: PeerKey(1), block: block(0, 0) };
    assert!(table.actions.contains(&upload));
    assert_eq!(ends(&mut table), (0, 0));
}

#[test]
fn finished_torrent_serves_everybody_in_turns_as_a_seed_does() {
    let mut table = TestSwarm::with("xx.", 1, |config| {
        config.upload_slots = 1;
        config.priorities = Some(priorities("nn-"));
    });
    for key in 1..=3 {
        table.join(&guest(key), "...");
        table.hear(key, Message::Interested);
    }
    let mut rounds = [0; 3];
    for _ in 0..18 {
        table.wait(Duration::from_secs(10));
        for key in 1..=3 {
            table.hear(key, Message::KeepAlive);
        }
        for peer in table.swarm.peers().filter(|peer| !peer.choked) {
            rounds[peer.key.0 as usize - 1] += 1;
        }
    }
    assert_eq!(rounds, [6; 3]);
}

#[test]
fn sequential_order_begins_what_is_missing_first() {
    let mut table = TestSwarm::with("x.......", 1, |config| config.sequential = true);
    table.serve(&guest(1), "xx.xxxxx");
    assert_eq!(pieces(&table.requests(1)), [1, 3, 4, 5]);
    table.serve(&guest(2), "xxxxx...");
    assert_eq!(pieces(&table.requests(2)), [2]);
    table.give(1, block(1, 0));
    table.give(1, block(3, 0));
    assert_eq!(pieces(&table.requests(1)), [6, 7]);
}

#[test]
fn sequential_order_holds_within_a_priority() {
    let mut table = TestSwarm::with("xxxx........", 1, |config| {
        config.memory_blocks = 1;
        config.priorities = Some(priorities("nnnnlhnlhn-l"));
    });
    table.handle(Event::Order { sequential: true });
    table.serve(&guest(1), "xxxxxxxxxxxx");
    let mut asked = Vec::new();
    while let [block] = table.requests(1)[..] {
        asked.push(block.piece.0);
        table.give(1, block);
        table.verified(block.piece.0);
    }
    assert_eq!(asked, [5, 8, 6, 9, 4, 7, 11]);
}

#[test]
fn sequential_order_finishes_what_is_first_with_the_help_of_all() {
    let mut table = TestSwarm::with(".....", 64, |config| config.sequential = true);
    table.serve(&guest(1), "xxxxx");
    assert_eq!(pieces(&table.requests(1)), [0]);
    // The second begins no piece as long as the first one is not fully requested.
    table.serve(&guest(2), "xxxxx");
    let helped = table.requests(2);
    assert_eq!(pieces(&helped), [0]);
    assert_eq!(helped.last(), Some(&block(0, 63)));
    table.handle(Event::Order { sequential: false });
    table.serve(&guest(3), "xxxxx");
    assert_ne!(pieces(&table.requests(3)), [0]);
}

#[test]
fn endgame_begins_when_all_that_is_wanted_is_asked_for() {
    let mut table = wanting("....", 4, "-n--");
    table.serve(&guest(1), "xxxx");
    assert_eq!(pieces(&table.requests(1)), [1]);
    table.serve(&guest(2), "xxxx");
    assert_eq!(pieces(&table.requests(2)), [1]);
    let mut table = wanting("....", 4, "-n-n");
    table.serve(&guest(1), "xxxx");
    let first = pieces(&table.requests(1));
    table.serve(&guest(2), "xxxx");
    let second = pieces(&table.requests(2));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
}

#[test]
fn progress_tells_of_what_is_wanted() {
    let mut table = wanting("x...", 1, "-nlh");
    let told = |table: &TestSwarm| {
        let p = table.swarm.progress();
        let blocks = |bytes| bytes / u64::from(BLOCK_LEN);
        (blocks(p.bytes_wanted), blocks(p.bytes_wanted_have), p.pieces_wanted_left)
    };
    assert_eq!(told(&table), (3, 0, 3));
    want(&mut table, "n-n-");
    assert_eq!(told(&table), (2, 1, 1));
    table.serve(&guest(1), "xxxx");
    table.run(|_, _| true);
    assert_eq!(told(&table), (2, 2, 0));
    want(&mut table, "");
    assert_eq!(told(&table), (4, 2, 2));
}

#[test]
fn upload_only_wants_nothing_whatever_is_wanted() {
    let mut table = TestSwarm::with("x.", 1, |config| config.upload_only = true);
    table.connect(&guest(1));
    table.hear(1, Message::HaveAll);
    table.take();
    want(&mut table, "hh");
    want(&mut table, "-h");
    assert_eq!(table.take(), []);
    assert!(!table.swarm.is_finished());
}

#[test]
#[should_panic(expected = "`3` priorities for `2` pieces")]
fn priorities_of_another_torrent_are_refused() {
    want(&mut TestSwarm::new("..", 1), "nnn");
}
