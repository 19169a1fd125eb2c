//! Tests with peers that reject requests (BEP 6) although they unchoke us: a peer that rejects everything
//! is as good as silent, and one that has a reason loses nothing.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Has a peer reject everything that it is asked for within this time.
fn refuse(table: &mut TestSwarm, key: u32, time: Duration) {
    let end = table.now + time;
    while table.now < end {
        for asked in table.requests(key) {
            table.hear(key, Message::Reject(asked));
        }
        table.wait(Duration::from_millis(50));
    }
}

fn is_snubbed(table: &TestSwarm, key: u32) -> bool {
    table.swarm.peers().any(|peer| peer.key.0 == key && peer.snubbed)
}

#[test]
fn line_11_who_refuses_everything_gives_its_place_away() {
    let mut table = TestSwarm::with("....", 4, |config| config.max_peers = 3);
    for key in 1..=3 {
        table.serve(&guest(key).outgoing(&format!("10.0.0.{key}:6881")), "xxxx");
    }
    let addr: SocketAddr = "10.0.0.99:6881".parse().unwrap();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs: vec![addr] });
    for _ in 0..60 {
        (1..=3).for_each(|key| refuse(&mut table, key, Duration::from_millis(50)));
    }
    // There is one place for one address, and the address that lost it is not dialled at once.
    let faults = table.faults();
    assert_eq!(faults.values().collect::<Vec<_>>(), [&PeerFault::Unresponsive], "{faults:?}");
    let dialled = |action: &Action| match action {
        Action::Dial { addr } => Some(*addr),
        _ => None,
    };
    let dialled: Vec<_> = table.actions.iter().filter_map(dialled).collect();
    assert_eq!(dialled, [addr]);
}

#[test]
fn line_11_who_refuses_everything_comes_last_until_it_gives_a_block() {
    let mut table = TestSwarm::new("....", 4);
    table.serve(&guest(1), "xxxx");
    refuse(&mut table, 1, 2 * SECOND);
    assert!(is_snubbed(&table, 1));
    table.wait(20 * SECOND);
    // It is asked for one block at a time, which is requested from others at once as well.
    let asked = table.requests(1);
    assert_eq!(asked.len(), 1);
    table.serve(&guest(2), "xxxx");
    let others = table.requests(2);
    assert_eq!(others.len(), 4);
    assert!(others.contains(&asked[0]) || others[0].piece != asked[0].piece);
    table.give(1, asked[0]);
    assert!(!is_snubbed(&table, 1));
    assert!(table.requests(1).len() > 1);
}

#[test]
fn line_11_who_refuses_everything_while_others_give_is_parted_with_but_not_banned() {
    let mut table = TestSwarm::new(&".".repeat(64), 4);
    table.serve(&guest(1).outgoing("10.0.0.1:6881"), &"x".repeat(64));
    table.serve(&guest(2), &"x".repeat(64));
    for second in 0..90 {
        refuse(&mut table, 1, SECOND);
        if let Some(asked) = table.requests(2).first() {
            table.give(2, *asked);
        }
        if second == 30 {
            assert_eq!(table.faults(), BTreeMap::new());
        }
    }
    assert_eq!(table.faults(), BTreeMap::from([(1, PeerFault::Unresponsive)]));
}

/// Has the only seed reject its first `refusals` requests, `at_a_time` every ten milliseconds. Returns the
/// time until it is asked once more.
fn time_of_refusals(refusals: usize, at_a_time: usize) -> Duration {
    let mut table = TestSwarm::new(&".".repeat(64), 4);
    table.serve(&guest(1), &"x".repeat(64));
    let (start, mut refused) = (table.now, 0);
    let mut asked = Vec::new();
    loop {
        asked.extend(table.requests(1));
        for block in asked.drain(..at_a_time.min(asked.len())) {
            if refused == refusals {
                assert_eq!(table.faults(), BTreeMap::new());
                return table.now.since(start);
            }
            refused += 1;
            table.hear(1, Message::Reject(block));
        }
        table.wait(Duration::from_millis(10));
        assert!(table.now.since(start) < 600 * SECOND, "{refused} refused, and then nothing");
    }
}

#[test]
fn line_18_twenty_refusals_of_the_only_seed_cost_seconds() {
    for (refusals, bound) in [(1, 1), (4, 1), (20, 4), (50, 20), (100, 60)] {
        for at_a_time in [1, usize::MAX] {
            let time = time_of_refusals(refusals, at_a_time);
            assert!(time <= bound * SECOND, "{refusals} refusals, {at_a_time} at a time: {time:?}");
        }
    }
}

#[test]
fn line_18_refusals_cost_no_more_when_another_peer_gives_nothing_either() {
    let mut table = TestSwarm::new(&".".repeat(16), 4);
    // This one has nothing that we lack, and that one chokes us.
    table.serve(&guest(2), &".".repeat(16));
    table.join(&guest(3), &"x".repeat(16));
    table.serve(&guest(1), &"x".repeat(16));
    let start = table.now;
    let mut refused = 0;
    while refused < 20 {
        for asked in table.requests(1) {
            refused += 1;
            table.hear(1, Message::Reject(asked));
        }
        table.wait(Duration::from_millis(50));
    }
    while table.requests(1).is_empty() {
        table.wait(Duration::from_millis(50));
    }
    assert!(table.now.since(start) < 6 * SECOND, "{:?}", table.now.since(start));
}

#[test]
fn who_refuses_everything_and_is_alone_is_not_asked_all_the_time() {
    let mut table = TestSwarm::new("....", 4);
    table.serve(&guest(1), "xxxx");
    refuse(&mut table, 1, 150 * SECOND);
    let mut asked = 0;
    for _ in 0..1_200 {
        for block in table.requests(1) {
            asked += 1;
            table.hear(1, Message::Reject(block));
        }
        table.wait(Duration::from_millis(50));
    }
    assert!((10..=20).contains(&asked), "{asked} requests in a minute");
}

#[test]
fn who_refuses_everything_and_is_alone_stays() {
    let mut table = TestSwarm::new("....", 4);
    table.serve(&guest(1), "xxxx");
    refuse(&mut table, 1, 100 * SECOND);
    assert_eq!(table.faults(), BTreeMap::new());
}

#[test]
fn a_peer_that_refuses_what_it_chokes_away_is_not_blamed() {
    // Before the choke, as Transmission does, and after it, as libtorrent does.
    for before in [true, false] {
        let mut table = TestSwarm::new(&".".repeat(64), 4);
        table.serve(&guest(1), &"x".repeat(64));
        for _ in 0..10 {
            let mut asked = table.requests(1);
            assert!(asked.len() > 1, "it is asked for a whole window");
            table.give(1, asked.remove(0));
            asked.extend(table.requests(1));
            if !before {
                table.hear(1, Message::Choke);
            }
            for block in asked {
                table.hear(1, Message::Reject(block));
            }
            if before {
                table.hear(1, Message::Choke);
            }
            assert!(!is_snubbed(&table, 1));
            table.wait(10 * SECOND);
            table.hear(1, Message::Unchoke);
        }
    }
}

#[test]
fn a_peer_that_refuses_allowed_pieces_while_it_chokes_us_is_not_blamed() {
    let mut table = TestSwarm::new(&".".repeat(16), 4);
    table.join(&guest(1), &"x".repeat(16));
    for piece in 0..10 {
        table.hear(1, Message::AllowedFast(PieceIndex(piece)));
        refuse(&mut table, 1, SECOND);
    }
    assert!(!is_snubbed(&table, 1));
    table.hear(1, Message::Unchoke);
    assert_eq!(table.requests(1).len(), 4);
}

#[test]
fn a_peer_that_has_lost_a_piece_gives_all_others() {
    let mut table = TestSwarm::new("........", 4);
    table.serve(&guest(1), "xxxxxxxx");
    let lost = table.swarm.owed_by(1)[0].piece;
    let mut given = 0;
    for _ in 0..4_000 {
        for asked in table.requests(1) {
            if asked.piece == lost {
                table.hear(1, Message::Reject(asked));
            } else {
                given += 1;
                table.give(1, asked);
            }
        }
        table.wait(Duration::from_millis(10));
    }
    assert_eq!(given, 28, "all that it has");
    assert_eq!(table.faults(), BTreeMap::new());
}
