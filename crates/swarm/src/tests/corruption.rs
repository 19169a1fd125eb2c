//! Tests of wrong blocks: which peers are banned, which are not, and what happens to the piece.

use super::*;

fn bans(table: &TestSwarm) -> Vec<(PeerId, Option<BlockRef>)> {
    let banned = |action: &Action| match action {
        Action::Banned { who, evidence, .. } => Some((who.id, evidence.block)),
        _ => None,
    };
    table.actions.iter().filter_map(banned).collect()
}

fn failures(table: &TestSwarm) -> usize {
    table.actions.iter().filter(|action| matches!(action, Action::PieceFailed { .. })).count()
}

#[test]
fn peer_that_gives_a_wrong_piece_alone_is_banned_at_once() {
    let mut table = TestSwarm::new("..", 4);
    table.serve(&guest(1), "xx");
    table.run(|_, block| block.piece != PieceIndex(0));
    assert_eq!(bans(&table), [(guest(1).id, None)]);
    assert_eq!(table.fault_of(1), Some(PeerFault::Corrupt));
    // It does not come back, whatever port it uses and whoever dials.
    table.connect(&TestPeer { key: 2, ..guest(1) }.at("10.0.0.1:999"));
    assert_eq!(table.fault_of(2), Some(PeerFault::Banned));
    // An honest peer gives what is missing.
    table.serve(&guest(3), "xx");
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
    // Now it is known which of its blocks was wrong.
    let proven = table.actions.iter().find_map(|action| match action {
        Action::Proven { who, evidence, .. } => Some((who.id, evidence.clone())),
        _ => None,
    });
    let (who, evidence) = proven.unwrap();
    assert_eq!((who, evidence.block), (guest(1).id, Some(block(0, 0))));
    assert_eq!((evidence.sent, evidence.right), (Some(digest(false)), Some(digest(true))));
}

#[test]
fn corrupt_peer_among_honest_ones_is_the_only_one_banned_and_the_download_ends_whole() {
    let mut table = TestSwarm::new("......", 16);
    for key in 1..=3 {
        table.serve(&guest(key), "xxxxxx");
    }
    let is_wrong = |from: u32, block: BlockRef| from == 2 && block.begin == 9 * BLOCK_LEN;
    table.run(|from, block| !is_wrong(from, block));
    assert!(table.swarm.is_complete());
    let bans = bans(&table);
    assert!(bans.iter().all(|(who, _)| *who == guest(2).id), "{bans:?}");
    assert!(bans.len() <= 1);
    assert_eq!(failures(&table) > 0, !bans.is_empty());
}

/// Two peers share one piece, and the second sends a wrong block.
fn shared_piece() -> TestSwarm {
    let mut table = TestSwarm::new(".", 4);
    table.serve(&guest(1), "x");
    assert_eq!(table.requests(1).len(), 4);
    table.serve(&guest(2), "x");
    assert_eq!(table.requests(2).len(), 4);
    table.give(1, block(0, 0));
    table.give(1, block(0, 1));
    table.give(2, block(0, 2));
    table.give(2, block(0, 3));
    table
}

#[test]
fn wrong_piece_of_two_peers_is_asked_again_of_one_alone_and_the_wrong_block_is_named() {
    let mut table = shared_piece();
    assert!(table.take().contains(&Action::Verify { piece: PieceIndex(0), want_digests: false }));
    let mut digests = vec![digest(true); 4];
    digests[3] = digest(false);
    table.checked(0, PieceOutcome::Corrupt { digests, hash: WRONG });
    assert_eq!(bans(&table), []);
    assert_eq!(table.faults(), BTreeMap::new());
    // One of them is asked for all of it, the other for nothing.
    let (of_one, of_two) = (table.requests(1), table.requests(2));
    assert_eq!(of_one.len().max(of_two.len()), 4);
    assert_eq!(of_one.len().min(of_two.len()), 0);
    let (alone, key) = if of_one.is_empty() { (of_two, 2) } else { (of_one, 1) };
    for block in alone {
        table.give(key, block);
    }
    assert!(table.take().contains(&Action::Verify { piece: PieceIndex(0), want_digests: true }));
    table.checked(0, PieceOutcome::Verified { digests: vec![digest(true); 4] });
    assert_eq!(bans(&table), [(guest(2).id, Some(block(0, 3)))]);
    assert_eq!(table.fault_of(2), Some(PeerFault::Corrupt));
    // The other leaves when it has answered its requests, or when its time is over.
    table.wait(Duration::from_secs(5));
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
}

#[test]
fn piece_on_trial_goes_to_a_peer_that_had_no_part_in_it() {
    let mut table = shared_piece();
    table.serve(&guest(3), "x");
    table.take();
    table.checked(0, PieceOutcome::Corrupt { digests: vec![digest(false); 4], hash: WRONG });
    assert_eq!(table.requests(3).len(), 4);
    assert_eq!((table.requests(1).len(), table.requests(2).len()), (0, 0));
}

#[test]
fn pieces_on_trial_go_to_different_peers_at_a_time() {
    let mut table = TestSwarm::new("..", 4);
    for key in 1..=4 {
        table.serve(&guest(key), "xx");
    }
    // In turn, so that each piece comes from several peers.
    for turn in 0..32 {
        let key = 1 + turn % 4;
        if let Some(block) = table.swarm.owed_by(key).first().copied() {
            table.give(key, block);
        }
    }
    for piece in 0..2 {
        table
            .checked(piece, PieceOutcome::Corrupt { digests: vec![digest(false); 4], hash: WRONG });
    }
    assert_eq!((failures(&table), bans(&table).len()), (2, 0));
    let owed: Vec<_> =
        (1..=4).map(|key| table.swarm.owed_by(key)).filter(|o| !o.is_empty()).collect();
    assert_eq!(owed.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    assert!(owed.iter().all(|blocks| blocks.iter().all(|b| b.piece == blocks[0].piece)));
    assert_ne!(owed[0][0].piece, owed[1][0].piece);
}

#[test]
fn piece_on_trial_is_taken_back_from_who_gives_nothing_while_another_could() {
    for helps in [false, true] {
        let mut table = shared_piece();
        table.serve(&guest(3), "x");
        table.take();
        let digests = vec![digest(false); 4];
        table.checked(0, PieceOutcome::Corrupt { digests, hash: WRONG });
        assert_eq!(table.swarm.owed_by(3).len(), 4);
        if !helps {
            table.hear(1, Message::Choke);
            table.hear(2, Message::Choke);
        }
        table.wait(Duration::from_millis(600));
        let taken_over = table.swarm.owed_by(1).len() + table.swarm.owed_by(2).len();
        let expected = if helps { (0, 4) } else { (4, 0) };
        assert_eq!((table.swarm.owed_by(3).len(), taken_over), expected);
    }
}

#[test]
fn piece_on_trial_is_begun_afresh_when_its_peer_is_lost() {
    let mut table = shared_piece();
    table.take();
    table.checked(0, PieceOutcome::Corrupt { digests: vec![digest(false); 4], hash: WRONG });
    let (of_one, of_two) = (table.requests(1), table.requests(2));
    let (alone, key, other) = if of_one.is_empty() { (of_two, 2, 1) } else { (of_one, 1, 2) };
    table.give(key, alone[0]);
    table.take();
    table.handle(Event::Disconnected { peer: PeerKey(key) });
    assert!(table.actions.contains(&Action::DropPiece { piece: PieceIndex(0) }));
    assert_eq!(table.requests(other).len(), 4);
}

#[test]
fn storage_failure_blames_nobody_and_frees_the_memory() {
    let mut table = TestSwarm::with(".", 4, |config| config.memory_blocks = 4);
    table.serve(&guest(1), "x");
    for block in table.requests(1) {
        table.give(1, block);
    }
    table.take();
    table.checked(0, PieceOutcome::StorageFailed);
    assert_eq!(bans(&table), []);
    assert_eq!(table.faults(), BTreeMap::new());
    // It is missing as before, and requested again.
    assert_eq!(table.requests(1).len(), 4);
    assert_eq!(table.swarm.progress().pieces_have, 0);
}

#[test]
fn three_wrong_pieces_have_their_host_refused_but_not_the_loopback_one() {
    for (host, last) in [("10.0.0.7", Some(PeerFault::Banned)), ("127.0.0.1", None)] {
        let mut table = TestSwarm::new("..", 1);
        for key in 1..=3 {
            table.serve(&guest(key).at(&format!("{host}:{key}")), "xx");
            table.run(|_, _| false);
            assert_eq!(table.fault_of(key), Some(PeerFault::Corrupt));
        }
        table.connect(&guest(4).at(&format!("{host}:4")));
        assert_eq!(table.fault_of(4), last, "{host}");
        table.wait(Duration::from_secs(60));
        table.connect(&guest(5).at(&format!("{host}:5")));
        assert_eq!(table.fault_of(5), None, "not for good");
    }
}

/// A download that has received a right piece from an honest seed, which listens at port 6881 of a host.
fn with_honest_seed() -> TestSwarm {
    let mut table = TestSwarm::new("....", 1);
    let addrs = vec!["10.0.0.7:6881".parse().unwrap()];
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    table.serve(&honest(1), "x...");
    table.run(|_, _| true);
    assert_eq!(table.swarm.have().count(), 1);
    table.hear(1, Message::Have(PieceIndex(1)));
    table
}

fn honest(key: u32) -> TestPeer {
    guest(key).called(PeerId([0xff; 20])).extended().outgoing("10.0.0.7:6881")
}

fn listens_at(port: u16) -> Message {
    let handshake = piecework_proto::wire::ExtendedHandshake {
        listen_port: Some(port),
        ..piecework_proto::wire::ExtendedHandshake::default()
    };
    Message::Extended { id: 0, payload: handshake.encode().into() }
}

#[test]
fn whatever_an_attacker_at_its_address_claims_the_honest_seed_is_not_banned() {
    // It names the seed's port, also shows its id, or comes many times with many ids.
    for (copies_id, times) in [(false, 1), (true, 1), (false, 12), (true, 12)] {
        for stays in [true, false] {
            let mut table = with_honest_seed();
            if !stays {
                table.handle(Event::Disconnected { peer: PeerKey(1) });
            }
            for key in 10..10 + times {
                let id = if copies_id { honest(1).id } else { PeerId([key as u8; 20]) };
                let attacker = guest(key).called(id).extended().at(&format!("10.0.0.7:{key}"));
                table.connect(&attacker);
                table.hear(key, listens_at(6881));
                table.hear(key, Message::Bitfield(Bytes::from_static(&[0xf0])));
                table.hear(key, Message::Unchoke);
                table.run(|from, _| from < 10);
                assert!(table.fault_of(key).is_some(), "{key}");
                // The attacker appears as the connection that it is.
                for action in &table.actions {
                    if let Action::Banned { who, .. } = action {
                        assert_ne!(who.known_as(), honest(1).addr);
                    }
                }
            }
            assert!(!bans(&table).is_empty());
            if stays {
                assert_eq!(table.fault_of(1), None, "{copies_id} {times}");
            } else {
                let dials = |table: &TestSwarm| {
                    table.actions.contains(&Action::Dial { addr: honest(1).addr })
                };
                table.wait(Duration::from_secs(130));
                assert!(dials(&table), "{copies_id} {times}");
                table.serve(&honest(2), "xxxx");
            }
            let key = if stays { 1 } else { 2 };
            for piece in 0..4 {
                table.hear(key, Message::Have(PieceIndex(piece)));
            }
            table.hear(key, Message::Unchoke);
            table.run(|from, _| from < 10);
            assert!(table.swarm.is_complete(), "{copies_id} {times} {stays}");
        }
    }
}

#[test]
fn a_seed_that_is_not_connected_yet_is_dialled_whatever_port_an_attacker_claims() {
    let mut table = TestSwarm::new("..", 1);
    table.connect(&guest(10).extended().at("10.0.0.7:10"));
    table.hear(10, Message::HaveAll);
    table.hear(10, listens_at(6881));
    let addrs = vec![honest(1).addr];
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    assert!(table.actions.contains(&Action::Dial { addr: honest(1).addr }));
    table.serve(&honest(1), "xx");
    let known = |table: &TestSwarm, key| table.swarm.identity(PeerKey(key)).unwrap().known_as();
    assert_eq!(known(&table, 1), honest(1).addr);
    assert_eq!(known(&table, 10), "10.0.0.7:10".parse().unwrap(), "the name is the seed's");
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
}

#[test]
fn a_host_of_poisoners_loses_what_it_offers_and_keeps_who_has_proven_good_or_wants_nothing_of_us() {
    let mut table = with_honest_seed();
    table.join(&guest(5).at("10.0.0.7:5"), "....");
    table.join(&guest(6).at("10.0.0.7:6"), "xxxx");
    for key in 10..13 {
        table.serve(&guest(key).at(&format!("10.0.0.7:{key}")), "xxxx");
        table.run(|from, _| from < 10);
    }
    let left: Vec<u32> = table.swarm.peers().map(|peer| peer.key.0).collect();
    assert_eq!(left, [1, 5]);
    assert_eq!(table.fault_of(6), Some(PeerFault::Banned));
    // The seed is dialled again at once, others of the host a minute later.
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    let addrs = vec!["10.0.0.7:7000".parse().unwrap()];
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    let dialled = |table: &mut TestSwarm| {
        let dial = |action: Action| match action {
            Action::Dial { addr } => Some(addr.port()),
            _ => None,
        };
        table.take().into_iter().filter_map(dial).collect::<Vec<_>>()
    };
    table.wait(Duration::from_secs(50));
    assert_eq!(dialled(&mut table), [6881]);
    table.wait(Duration::from_secs(10));
    assert_eq!(dialled(&mut table), [7000]);
}

#[test]
fn an_address_that_we_dialled_and_that_sent_a_wrong_piece_is_not_dialled_again_unless_the_user_wants()
 {
    for source in [PeerSource::Tracker, PeerSource::User] {
        let mut table = TestSwarm::new("..", 1);
        let addr: SocketAddr = "10.0.0.7:6881".parse().unwrap();
        let dials = |table: &mut TestSwarm| {
            table.take().iter().filter(|action| matches!(action, Action::Dial { .. })).count()
        };
        table.handle(Event::Candidates { source, addrs: vec![addr] });
        table.serve(&guest(1).outgoing("10.0.0.7:6881"), "xx");
        table.run(|_, _| false);
        assert_eq!(table.fault_of(1), Some(PeerFault::Corrupt));
        dials(&mut table);
        table.wait(Duration::from_secs(59));
        table.handle(Event::Candidates { source: PeerSource::Tracker, addrs: vec![addr] });
        assert_eq!(dials(&mut table), 0);
        table.wait(Duration::from_secs(3_600));
        let is_users = source == PeerSource::User;
        assert_eq!(dials(&mut table), usize::from(is_users));
        if is_users {
            table.serve(&guest(2).outgoing("10.0.0.7:6881"), "xx");
            assert_eq!(table.fault_of(2), None);
            table.run(|_, _| true);
            assert!(table.swarm.is_complete());
        }
    }
}
