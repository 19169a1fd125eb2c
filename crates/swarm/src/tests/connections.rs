//! Tests of dialling, letting in, greeting and dropping peers.

use std::collections::BTreeSet;

use super::*;
use piecework_proto::wire::ExtendedHandshake;

fn dialled(table: &mut TestSwarm) -> Vec<String> {
    let dial = |action: &Action| match action {
        Action::Dial { addr } => Some(addr.to_string()),
        _ => None,
    };
    let dialled = table.actions.iter().filter_map(dial).collect();
    table.actions.retain(|action| dial(action).is_none());
    dialled
}

fn candidates(table: &mut TestSwarm, source: PeerSource, addrs: &[&str]) {
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    table.handle(Event::Candidates { source, addrs });
}

fn handshake_of(messages: &[Message]) -> ExtendedHandshake {
    let payload = messages.iter().find_map(|message| match message {
        Message::Extended { id: 0, payload } => Some(payload.clone()),
        _ => None,
    });
    ExtendedHandshake::decode(&payload.unwrap()).unwrap()
}

fn extended(handshake: &ExtendedHandshake) -> Message {
    Message::Extended { id: 0, payload: handshake.encode().into() }
}

#[test]
fn a_peer_says_where_its_address_was_heard_of_first_unless_a_user_names_it() {
    for source in PeerSource::ALL.into_iter().filter(|source| *source != PeerSource::Incoming) {
        for later in [PeerSource::Tracker, PeerSource::Exchange, PeerSource::User] {
            let mut table = TestSwarm::with("..", 1, |config| config.max_dialing = 1);
            candidates(&mut table, source, &["10.0.0.1:1"]);
            candidates(&mut table, later, &["10.0.0.1:1"]);
            table.join(&guest(1).outgoing("10.0.0.1:1"), "x.");
            let expected = if later.is_named() { later } else { source };
            assert_eq!(table.swarm.peers().next().unwrap().source, expected, "{source:?}");
        }
    }
    let mut table = TestSwarm::new("..", 1);
    table.join(&guest(1).at("10.0.0.1:9"), "x.");
    assert_eq!(table.swarm.peers().next().unwrap().source, PeerSource::Incoming);
}

#[test]
fn a_private_torrent_dials_only_what_a_tracker_or_a_user_named() {
    let mut table = TestSwarm::with("..", 1, |config| config.is_private = true);
    for (at, source) in PeerSource::ALL.into_iter().enumerate() {
        candidates(&mut table, source, &[&format!("10.0.0.1:{}", at + 1)]);
    }
    let known: Vec<String> = table.swarm.known_addrs().map(|addr| addr.to_string()).collect();
    let of = |source| PeerSource::ALL.iter().position(|one| *one == source).unwrap() + 1;
    let expected = [PeerSource::Tracker, PeerSource::User, PeerSource::Incoming]
        .map(|source| format!("10.0.0.1:{}", of(source)));
    assert_eq!(known, expected);
}

#[test]
fn a_swarm_without_peers_and_without_places_has_no_timer() {
    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 0);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1"]);
    assert_eq!(table.swarm.deadline(), None, "no place at all");

    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1"]);
    assert_eq!(dialled(&mut table), ["10.0.0.1:1"]);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.2:1"]);
    assert_eq!(table.swarm.deadline(), None, "the dial takes the place");
    table.handle(Event::Pause);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.3:1"]);
    assert_eq!(table.swarm.deadline(), None, "paused meanwhile");
}

#[test]
fn a_peer_that_took_the_last_place_by_a_dial_may_have_to_make_way() {
    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1", "10.0.0.2:1"]);
    let first = dialled(&mut table).remove(0);
    table.join(&guest(1).outgoing(&first), "xx");
    table.wait(Duration::from_secs(4));
    assert_eq!(table.fault_of(1), Some(PeerFault::MadeWay));
}

#[test]
fn new_peers_are_told_what_we_hold() {
    for (held, fast, expected) in [
        ("xx", true, Some(Message::HaveAll)),
        ("..", true, Some(Message::HaveNone)),
        (".x", true, Some(Message::Bitfield(Bytes::from_static(&[0x40])))),
        ("xx", false, Some(Message::Bitfield(Bytes::from_static(&[0xc0])))),
        ("..", false, None),
    ] {
        let mut table = TestSwarm::new(held, 1);
        table.connect(&TestPeer { fast, ..guest(1) });
        assert_eq!(table.said(1).first(), expected.as_ref(), "{held} {fast}");
    }
}

#[test]
fn extended_handshake_tells_who_we_are() {
    let mut table = TestSwarm::with("xx", 1, |config| config.listen_port = Some(6881));
    table.connect(&guest(1).extended().at("[::ffff:10.0.0.1]:4"));
    let handshake = handshake_of(&table.said(1));
    assert_eq!(handshake.client.as_deref(), Some("Piecework 0.1.0"));
    assert_eq!((handshake.reqq, handshake.listen_port), (Some(500), Some(6881)));
    assert_eq!(handshake.upload_only, Some(true));
    assert_eq!(handshake.your_ip, Some("10.0.0.1".parse().unwrap()));
}

#[test]
fn extended_handshake_tells_who_they_are() {
    let mut table = TestSwarm::new("....", 64);
    table.join(&guest(1).extended(), "xxxx");
    table.hear(
        1,
        extended(&ExtendedHandshake {
            client: Some("Some Client 4".to_owned()),
            reqq: Some(3),
            listen_port: Some(7000),
            ..ExtendedHandshake::default()
        }),
    );
    table.hear(1, Message::Unchoke);
    let peer = table.swarm.peers().next().unwrap();
    assert_eq!(peer.who.client, "Some Client 4");
    assert_eq!(peer.blocks_owed, 3);
    assert_eq!(peer.who.known_as(), "10.0.0.1:7000".parse().unwrap());
    // Its address is known now, but is not dialled only because it says so.
    table.wait(Duration::from_secs(30));
    assert_eq!(dialled(&mut table), Vec::<String>::new());
    assert_eq!(table.swarm.known_addrs().count(), 1);
    // Others may listen there.
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:7000"]);
    assert_eq!(dialled(&mut table), ["10.0.0.1:7000"]);
}

#[test]
fn own_peer_id_is_refused_and_its_address_never_dialled_again() {
    let mut table = TestSwarm::new("..", 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:6881"]);
    assert_eq!(dialled(&mut table), ["10.0.0.1:6881"]);
    table.connect(&guest(1).outgoing("10.0.0.1:6881").called(LOCAL));
    assert_eq!(table.fault_of(1), Some(PeerFault::Ourselves));
    candidates(&mut table, PeerSource::User, &["10.0.0.1:6881"]);
    table.wait(Duration::from_secs(10_000));
    assert_eq!(dialled(&mut table), Vec::<String>::new());
    assert_eq!(table.swarm.deadline(), None);
}

#[test]
fn lying_tracker_own_address_port_zero_and_a_million_peers_cost_little() {
    let mut table = TestSwarm::new("..", 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:0", "0.0.0.0:1", "224.1.1.1:1"]);
    assert_eq!(dialled(&mut table), Vec::<String>::new());
    assert_eq!(table.swarm.deadline(), None);
    let addrs = (0..1_000_000u32)
        .map(|n| SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + n).into(), 6881))
        .collect();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    assert_eq!(table.swarm.known_addrs().count(), 1_000);
    assert_eq!(dialled(&mut table).len(), 8);
}

#[test]
fn never_more_dials_and_peers_than_allowed() {
    let mut table = TestSwarm::with("..", 1, |config| {
        config.max_dialing = 2;
        config.max_peers = 3;
    });
    let addrs = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"];
    candidates(&mut table, PeerSource::Tracker, &addrs);
    let mut seen = BTreeSet::new();
    for key in 1.. {
        let now = dialled(&mut table);
        seen.extend(now.iter().cloned());
        let Some(addr) = seen.pop_first() else { break };
        table.connect(&guest(key).outgoing(&addr));
    }
    assert_eq!(table.swarm.peers().count(), 3);
    assert_eq!(table.faults(), BTreeMap::new());
    table.connect(&guest(99));
    assert_eq!(table.fault_of(99), Some(PeerFault::TooManyPeers));
    // There is room again: one of the two that are left is dialled at once.
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    assert_eq!(dialled(&mut table).len(), 1);
}

fn left(table: &TestSwarm) -> Vec<u32> {
    table.swarm.peers().map(|peer| peer.key.0).collect()
}

#[test]
fn a_peer_has_two_connections_that_came_in_at_most_while_they_are_alive() {
    let mut table = TestSwarm::new("..", 1);
    let again = |key| guest(key).called(guest(1).id).at(&format!("10.0.0.1:{key}"));
    // The first may be dead, or belong to another peer that shows the same id: the second is let in.
    for key in 1..=4 {
        table.connect(&again(key));
    }
    let refused = |key| (key, PeerFault::Duplicate);
    assert_eq!(table.faults(), BTreeMap::from([refused(3), refused(4)]));
    // The same id at another address is another peer.
    table.connect(&guest(5).called(guest(1).id));
    assert_eq!(left(&table), [1, 2, 5]);
    // The one that has been silent for longest makes way, if that is for seconds.
    table.wait(Duration::from_secs(9));
    table.hear(1, Message::HaveNone);
    table.connect(&again(6));
    assert_eq!(left(&table), [1, 2, 5]);
    table.wait(Duration::from_secs(1));
    table.connect(&again(7));
    assert_eq!(left(&table), [1, 5, 7]);
}

#[test]
fn a_peer_whose_dialled_connection_died_is_let_in_again_within_seconds() {
    let mut table = TestSwarm::new("..", 1);
    let id = guest(1).id;
    table.join(&guest(1).outgoing("10.0.0.1:6881"), "..");
    let again = |key| guest(key).called(id).at(&format!("10.0.0.1:{key}"));
    table.wait(Duration::from_secs(10));
    table.hear(1, Message::KeepAlive);
    table.wait(Duration::from_secs(9));
    table.connect(&again(2));
    assert_eq!(table.faults(), BTreeMap::from([(2, PeerFault::Duplicate)]), "it is alive");
    table.wait(Duration::from_secs(1));
    table.said(1);
    table.connect(&again(3));
    assert_eq!(left(&table), [1, 3]);
    assert_eq!(
        table.said(1),
        [Message::KeepAlive],
        "whether it is dead shows when it is written to"
    );
    // It is dead: the other one goes on.
    table.wait(Duration::from_secs(20));
    table.hear(3, Message::HaveNone);
    table.wait(Duration::from_secs(125));
    assert_eq!(left(&table), [3]);
    // Another one is alive: the newcomer is not needed.
    table.join(&guest(4).outgoing("10.0.0.4:6881"), "..");
    table.wait(Duration::from_secs(10));
    table.connect(&guest(5).called(guest(4).id).at("10.0.0.4:5"));
    assert!(left(&table).contains(&5));
    table.hear(4, Message::KeepAlive);
    assert!(left(&table).contains(&4) && !left(&table).contains(&5));
}

#[test]
fn a_silent_connection_gives_its_place_to_a_new_one_of_its_peer_only() {
    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 2);
    table.join(&guest(1), "..");
    // It must be useful, or else its own address could have its place for that reason.
    table.serve(&guest(2), "x.");
    table.give(2, block(0, 0));
    table.verified(0);
    table.wait(Duration::from_secs(10));
    table.hear(2, Message::KeepAlive);
    table.connect(&guest(3));
    table.connect(&guest(4).called(guest(1).id));
    table.connect(&guest(5).called(guest(2).id).at("10.0.0.2:9"));
    assert_eq!(left(&table), [1, 2], "others, from elsewhere, or of one that is not silent");
    table.connect(&guest(6).called(guest(1).id).at("10.0.0.1:9"));
    assert_eq!(left(&table), [2, 6]);
}

#[test]
fn who_shows_the_id_of_a_peer_keeps_it_neither_out_nor_in() {
    for copied_first in [true, false] {
        let mut table = TestSwarm::new("..", 1);
        let id = PeerId([0xff; 20]);
        candidates(&mut table, PeerSource::Tracker, &["10.0.0.9:6881"]);
        let honest = guest(1).called(id).outgoing("10.0.0.9:6881");
        let copy = |key| guest(key).called(id).at(&format!("10.0.0.9:{key}"));
        if copied_first {
            table.connect(&copy(2));
            table.connect(&copy(3));
            table.wait(Duration::from_secs(30));
        }
        table.connect(&honest);
        table.connect(&copy(4));
        table.wait(Duration::from_secs(30));
        table.hear(1, Message::HaveNone);
        table.connect(&copy(5));
        assert!(left(&table).contains(&1), "{:?}", table.faults());
    }
}

#[test]
fn crossing_dials_leave_the_one_of_the_greater_id_whatever_came_first() {
    let greater = PeerId([0xff; 20]);
    let lesser = PeerId([0x01; 20]);
    // Each side closes only the connection that came in, and the other side closes the other one.
    let (both, ours) = (vec![1, 2], vec![1]);
    for (id, kept) in [(greater, both), (lesser, ours)] {
        for outgoing_first in [true, false] {
            let mut table = TestSwarm::new("..", 1);
            candidates(&mut table, PeerSource::Tracker, &["10.0.0.9:6881"]);
            let dialled = guest(1).called(id).outgoing("10.0.0.9:6881");
            let accepted = guest(2).called(id).at("10.0.0.9:5000");
            let (first, second) =
                if outgoing_first { (dialled, accepted) } else { (accepted, dialled) };
            table.connect(&first);
            table.connect(&second);
            assert_eq!(left(&table), kept);
            if id == greater {
                table.handle(Event::Disconnected { peer: PeerKey(1) });
            }
            // Either way it is known where the peer listens, and it is not dialled at once.
            let known = table.swarm.peers().next().unwrap().who.known_as();
            assert_eq!(known, "10.0.0.9:6881".parse().unwrap());
            self::dialled(&mut table);
            candidates(&mut table, PeerSource::Tracker, &["10.0.0.9:6881"]);
            table.wait(Duration::from_secs(100));
            assert_eq!(self::dialled(&mut table), Vec::<String>::new());
        }
    }
}

#[test]
fn a_dial_that_our_own_bound_prevented_is_not_the_peers_failure() {
    let mut table = TestSwarm::new("..", 1);
    let addrs = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
    candidates(&mut table, PeerSource::Tracker, &addrs);
    for _ in 0..20 {
        for addr in dialled(&mut table) {
            table.handle(Event::DialPrevented { addr: addr.parse().unwrap() });
        }
        // Nobody is dialled for a while, and then all are again.
        assert_eq!(dialled(&mut table), Vec::<String>::new());
        table.wait(Duration::from_secs(5));
    }
    assert_eq!(dialled(&mut table).len(), 3, "nobody was forgotten");
}

#[test]
fn of_use_is_who_holds_something_and_may_give_it() {
    let seconds = Duration::from_secs;
    let mut table = TestSwarm::new("....", 16);
    table.join(&guest(1), "....");
    assert_eq!(table.swarm.useful_peers(), 0, "holds nothing");
    table.join(&guest(2), "xxxx");
    assert_eq!(table.swarm.useful_peers(), 1);
    table.wait(seconds(59));
    table.hear(2, Message::KeepAlive);
    assert_eq!(table.swarm.useful_peers(), 1);
    table.wait(seconds(1));
    table.hear(2, Message::KeepAlive);
    assert_eq!(table.swarm.useful_peers(), 0, "chokes us for a minute");
    table.hear(2, Message::Unchoke);
    assert_eq!(table.swarm.useful_peers(), 1);
    let asked = table.requests(2);
    table.wait(seconds(10));
    table.give(2, asked[0]);
    table.wait(seconds(30));
    assert_eq!(table.swarm.useful_peers(), 1, "it gave something lately");
    table.wait(seconds(31));
    // Whatever timer was last, the swarm knows the time.
    table.handle(Event::Timeout);
    assert_eq!(table.swarm.useful_peers(), 0, "it owes and does not give");
}

#[test]
fn silent_peers_are_dropped_and_kept_alive_till_then() {
    let mut table = TestSwarm::new("..", 1);
    table.join(&guest(1), "..");
    table.wait(Duration::from_secs(149));
    assert_eq!(table.said(1), [Message::KeepAlive]);
    table.wait(Duration::from_secs(1));
    assert_eq!(table.fault_of(1), Some(PeerFault::Idle));
    assert_eq!(table.swarm.deadline(), None);
}

#[test]
fn idle_torrent_without_peers_has_no_timer() {
    let mut table = TestSwarm::new("x.", 1);
    assert_eq!(table.swarm.deadline(), None);
    table.serve(&guest(1), "xx");
    table.hear(1, Message::Interested);
    assert!(table.swarm.deadline().is_some());
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    assert_eq!(table.swarm.deadline(), None);
}

#[test]
fn complete_peers_part() {
    let mut table = TestSwarm::new("xx", 1);
    table.connect(&guest(1));
    table.hear(1, Message::HaveAll);
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    table.join(&guest(2), "x.");
    table.hear(2, Message::Have(PieceIndex(1)));
    assert_eq!(table.fault_of(2), Some(PeerFault::BothComplete));
    table.join(&guest(3).extended(), "x.");
    let upload_only = ExtendedHandshake { upload_only: Some(true), ..ExtendedHandshake::default() };
    table.hear(3, extended(&upload_only));
    assert_eq!(table.fault_of(3), Some(PeerFault::BothComplete));
}

#[test]
fn a_seed_answers_what_it_was_asked_before_it_parts() {
    let mut table = TestSwarm::new("xx", 2);
    table.join(&guest(1), "x.");
    table.hear(1, Message::Interested);
    table.hear(1, Message::Request(block(1, 0)));
    table.hear(1, Message::Request(block(1, 1)));
    table.hear(1, Message::Have(PieceIndex(1)));
    assert_eq!(table.fault_of(1), None);
    let bytes = u64::from(BLOCK_LEN);
    table.handle(Event::Uploaded { peer: PeerKey(1), blocks: 1, bytes });
    assert_eq!(table.fault_of(1), None);
    table.hear(1, Message::Cancel(block(1, 1)));
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    // A peer that does not take what it requested is not waited for.
    table.join(&guest(2), "x.");
    table.hear(2, Message::Interested);
    table.hear(2, Message::Request(block(1, 0)));
    table.hear(2, Message::Have(PieceIndex(1)));
    table.wait(Duration::from_secs(5));
    assert_eq!(table.fault_of(2), Some(PeerFault::BothComplete));
}

#[test]
fn who_completes_says_that_it_asks_for_nothing() {
    let mut table = TestSwarm::new("..", 1);
    table.join(&guest(1).extended(), "x.");
    table.join(&guest(2), "x.");
    table.serve(&guest(3).extended(), "xx");
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
    assert_eq!(handshake_of(&table.said(1)).upload_only, Some(true));
    // Without the extension protocol, the pieces show it.
    assert!(table.said(2).iter().all(|message| !matches!(message, Message::Extended { .. })));
    table.wait(Duration::from_secs(5));
    assert_eq!(table.faults(), BTreeMap::from([(3, PeerFault::BothComplete)]));
}

#[test]
fn a_seeder_of_parts_parts_from_a_complete_peer() {
    let mut table = TestSwarm::with("x.", 1, |config| config.upload_only = true);
    table.connect(&guest(1));
    table.hear(1, Message::HaveAll);
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    table.join(&guest(2), "x.");
    assert_eq!(table.fault_of(2), None, "it lacks a piece and may ask for the other");
}

#[test]
fn complete_torrent_dials_no_peer_it_knows_to_be_complete() {
    let mut table = TestSwarm::new("xx", 1);
    candidates(&mut table, PeerSource::User, &["10.0.0.1:1"]);
    dialled(&mut table);
    table.connect(&guest(1).outgoing("10.0.0.1:1"));
    table.hear(1, Message::HaveAll);
    table.wait(Duration::from_secs(10_000));
    assert_eq!(dialled(&mut table), Vec::<String>::new());
}

#[test]
fn torrent_of_no_bytes_is_complete_and_works() {
    let mut table = TestSwarm::new("", 1);
    assert!(table.swarm.is_complete());
    table.connect(&guest(1));
    assert_eq!(table.said(1), [Message::HaveAll]);
    table.hear(1, Message::Bitfield(Bytes::new()));
    assert_eq!(table.fault_of(1), Some(PeerFault::BothComplete));
    assert!(table.swarm.distributed_copies().abs() < 1e-9);
}

#[test]
fn pause_drops_everything_and_resume_dials_again() {
    let mut table = TestSwarm::new("....", 4);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1"]);
    table.serve(&guest(1).outgoing("10.0.0.1:1"), "xxxx");
    let first = table.requests(1)[0];
    table.give(1, first);
    table.take();
    table.handle(Event::Pause);
    assert_eq!(table.fault_of(1), Some(PeerFault::Paused));
    assert!(table.actions.contains(&Action::DropPiece { piece: first.piece }));
    assert_eq!(table.swarm.progress().blocks_in_memory, 0);
    assert_eq!(table.swarm.deadline(), None);
    table.connect(&guest(2));
    assert_eq!(table.fault_of(2), Some(PeerFault::Paused));
    let late = table.give(1, first);
    assert!(table.actions.contains(&Action::Discard { buffer: late }));
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.2:1"]);
    assert_eq!(dialled(&mut table), Vec::<String>::new());
    table.handle(Event::Resume);
    assert_eq!(dialled(&mut table).len(), 2);
}

#[test]
fn lost_peers_are_dialled_again_after_a_while() {
    let mut table = TestSwarm::new("..", 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1"]);
    dialled(&mut table);
    table.connect(&guest(1).outgoing("10.0.0.1:1"));
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    assert_eq!(dialled(&mut table), Vec::<String>::new());
    table.wait(Duration::from_secs(6));
    assert_eq!(dialled(&mut table), ["10.0.0.1:1"]);
}

fn limit(table: &mut TestSwarm, max_peers: usize, upload_slots: usize) {
    table.handle(Event::Limits { max_peers, upload_slots });
}

#[test]
fn fewer_peers_allowed_drops_those_of_least_use() {
    let mut table = TestSwarm::new("x.", 4);
    for key in 1..=5 {
        table.join(&guest(key), if key == 2 || key == 4 { ".x" } else { "x." });
        table.now = table.now + Duration::from_secs(1);
    }
    table.hear(3, Message::Interested);
    table.hear(4, Message::Unchoke);
    let asked = table.requests(4)[0];
    table.give(4, asked);
    table.take();
    // 1 and 5 neither want nor have anything, so the newer one goes first.
    limit(&mut table, 4, 8);
    assert_eq!(table.faults(), BTreeMap::from([(5, PeerFault::TooManyPeers)]));
    limit(&mut table, 1, 8);
    let left: Vec<u32> = table.swarm.peers().map(|peer| peer.key.0).collect();
    assert_eq!(left, [4], "who gives most");
    limit(&mut table, 0, 8);
    assert_eq!(table.swarm.peers().count(), 0);
    table.connect(&guest(9));
    assert_eq!(table.fault_of(9), Some(PeerFault::TooManyPeers));
}

#[test]
fn more_peers_allowed_dials_at_once() {
    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 1);
    candidates(&mut table, PeerSource::Tracker, &["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
    assert_eq!(dialled(&mut table).len(), 1);
    limit(&mut table, 3, 8);
    assert_eq!(dialled(&mut table).len(), 2);
}

#[test]
fn upload_slots_change_at_once() {
    let mut table = TestSwarm::with("x.", 1, |config| config.upload_slots = 3);
    for key in 1..=6 {
        table.join(&guest(key), "..");
        table.hear(key, Message::Interested);
    }
    let served = |table: &TestSwarm| table.swarm.peers().filter(|peer| !peer.choked).count();
    assert_eq!(served(&table), 3);
    limit(&mut table, 80, 1);
    assert_eq!(served(&table), 1);
    limit(&mut table, 80, 5);
    assert_eq!(served(&table), 5);
    limit(&mut table, 80, 0);
    assert_eq!(served(&table), 0);
}

#[test]
fn torrent_that_nobody_asks_for_keeps_little_memory() {
    let mut table = TestSwarm::new("x..", 4);
    for key in 1..=40 {
        table.connect(&guest(key));
        table.hear(key, Message::HaveAll);
        table.hear(key, Message::Unchoke);
    }
    table.run(|_, _| true);
    assert!(table.swarm.is_complete());
    assert_eq!(table.swarm.peers().count(), 0);
    assert_eq!(table.swarm.poll(), None);
    let Swarm { actions, keys, selection, picker, .. } = &table.swarm;
    assert_eq!((actions.capacity(), keys.capacity()), (0, 0));
    assert_eq!((selection.blocks.capacity(), selection.dropped.capacity()), (0, 0));
    assert_eq!(picker.capacity(), 0);
    // It still counts peers that come.
    table.join(&guest(50), ".x.");
    assert_eq!(table.swarm.availability(PieceIndex(1)), 1);
}
