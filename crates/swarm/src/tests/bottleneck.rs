//! Tests of what a download waits for.

use super::*;

const NOTHING: DriverState =
    DriverState { limited: false, behind: false, writing: false, naming: false, busy: false };

fn cause(table: &TestSwarm) -> Option<Cause> {
    cause_with(table, NOTHING)
}

fn cause_with(table: &TestSwarm, driver: DriverState) -> Option<Cause> {
    table.swarm.bottleneck(driver).map(|bottleneck| bottleneck.cause)
}

#[test]
fn without_peers_it_waits_for_peers() {
    let table = TestSwarm::new("..", 1);
    assert_eq!(cause(&table), Some(Cause::NoPeers));
}

#[test]
fn peers_that_hold_nothing_of_use_offer_nothing() {
    let mut table = TestSwarm::new("x...", 1);
    table.join(&guest(1), "x...");
    table.join(&guest(2), "....");
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!(bottleneck.cause, Cause::NothingOffered);
    assert_eq!((bottleneck.peers, bottleneck.offering, bottleneck.missing), (2, 0, 3));
}

#[test]
fn peers_that_all_choke_are_waited_for_until_one_does_not() {
    let mut table = TestSwarm::new("..", 1);
    table.join(&guest(1), "xx");
    table.join(&guest(2), "x.");
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!((bottleneck.cause, bottleneck.offering, bottleneck.serving), (Cause::Choked, 2, 0));
    table.hear(2, Message::Unchoke);
    assert_eq!(cause(&table), Some(Cause::PeerUpload));
    table.hear(2, Message::Choke);
    for block in table.requests(2) {
        table.hear(2, Message::Reject(block));
    }
    assert_eq!(cause(&table), Some(Cause::Choked));
}

#[test]
fn a_peer_chokes_us_though_it_has_given_what_it_allowed() {
    let mut table = TestSwarm::new("....", 1);
    table.join(&guest(1), "xxxx");
    table.hear(1, Message::AllowedFast(PieceIndex(2)));
    assert_eq!(cause(&table), Some(Cause::PeerUpload));
    let allowed = table.requests(1);
    assert_eq!(allowed, [block(2, 0)]);
    table.give(1, allowed[0]);
    for _ in 0..2 {
        let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
        assert_eq!(
            (bottleneck.cause, bottleneck.offering, bottleneck.serving),
            (Cause::Choked, 1, 0)
        );
        table.verified(2);
    }
}

#[test]
fn a_peer_that_refuses_chokes_in_all_but_name() {
    let mut table = TestSwarm::new(".", 1);
    table.serve(&guest(1), "x");
    for block in table.requests(1) {
        table.hear(1, Message::Reject(block));
    }
    assert_eq!(cause(&table), Some(Cause::Choked));
    // It is asked again after its pause.
    table.wait(Duration::from_secs(1));
    assert_eq!(cause(&table), Some(Cause::PeerUpload));
}

#[test]
fn line_11_peers_that_send_nothing_are_not_among_those_that_serve() {
    let mut table = TestSwarm::new(&".".repeat(64), 16);
    for key in 1..=3 {
        table.serve(&guest(key), &"x".repeat(64));
    }
    table.join(&guest(4), &"x".repeat(64));
    let bottleneck = |table: &TestSwarm| table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!((bottleneck(&table).serving, bottleneck(&table).silent), (3, 0));
    // The first one gives a block every 100 ms, the others nothing.
    for _ in 0..40 {
        table.wait(Duration::from_millis(100));
        let block = table.swarm.owed_by(1)[0];
        table.give(1, block);
    }
    let now = bottleneck(&table);
    assert_eq!((now.cause, now.serving, now.silent), (Cause::PeerUpload, 1, 2));
    table.hear(1, Message::Choke);
    let now = bottleneck(&table);
    assert_eq!((now.cause, now.offering, now.silent), (Cause::Choked, 4, 2));
    table.handle(Event::Disconnected { peer: PeerKey(1) });
    table.handle(Event::Disconnected { peer: PeerKey(4) });
    let now = bottleneck(&table);
    assert_eq!((now.cause, now.serving, now.silent), (Cause::PeerUpload, 0, 2));
    assert!(now.owed > 0);
}

#[test]
fn blocks_that_are_owed_are_the_peers_upload() {
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!(bottleneck.cause, Cause::PeerUpload);
    assert_eq!((bottleneck.serving, bottleneck.owed), (1, table.requests(1).len() as u32));
}

#[test]
fn rounds_that_grow_faster_are_limited_by_nothing() {
    let mut table = TestSwarm::new("....................", 64);
    table.serve(&guest(1), "xxxxxxxxxxxxxxxxxxxx");
    // Every round trip takes 50 ms, however many blocks are requested.
    for _ in 0..4 {
        table.now = table.now + Duration::from_millis(50);
        for block in table.requests(1) {
            table.give(1, block);
        }
    }
    assert_eq!(cause(&table), Some(Cause::Moving));
    table.wait(Duration::from_millis(1));
    assert_eq!(
        cause_with(&table, DriverState { limited: true, ..NOTHING }),
        Some(Cause::RateLimit)
    );
}

#[test]
fn a_peer_that_takes_few_requests_over_a_long_line_binds_the_window() {
    let mut table = TestSwarm::with(&".".repeat(64), 16, |config| config.max_requests_out = 8);
    table.serve(&guest(1), &"x".repeat(64));
    for _ in 0..40 {
        table.now = table.now + Duration::from_millis(100);
        for block in table.requests(1) {
            table.give(1, block);
            if (block.begin / BLOCK_LEN) == 15 {
                table.verified(block.piece.0);
            }
        }
    }
    assert_eq!(cause(&table), Some(Cause::RequestWindow));
}

#[test]
fn the_last_pieces_wait_for_the_hash_service() {
    let mut table = TestSwarm::new("x.", 1);
    table.serve(&guest(1), "xx");
    let block = table.requests(1)[0];
    table.give(1, block);
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!((bottleneck.cause, bottleneck.verifying, bottleneck.missing), (Cause::Hash, 1, 1));
    assert_eq!(cause_with(&table, DriverState { writing: true, ..NOTHING }), Some(Cause::Disk));
    table.verified(1);
    assert_eq!(cause(&table), None);
    assert_eq!(cause_with(&table, DriverState { naming: true, ..NOTHING }), Some(Cause::Disk));
}

#[test]
fn memory_that_is_full_of_pieces_being_verified_waits_for_the_hash_service() {
    let mut table = TestSwarm::with("........", 2, |config| config.memory_blocks = 4);
    table.serve(&guest(1), "xxxxxxxx");
    assert_eq!(cause(&table), Some(Cause::PeerUpload));
    for block in table.requests(1) {
        table.give(1, block);
    }
    assert_eq!(table.swarm.bottleneck(NOTHING).unwrap().verifying, 2);
    assert_eq!(cause(&table), Some(Cause::Hash));
    for action in table.take() {
        if let Action::Verify { piece, .. } = action {
            table.verified(piece.0);
        }
    }
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert!(bottleneck.cause != Cause::Hash && bottleneck.owed > 0, "{bottleneck:?}");
}

#[test]
fn a_disk_that_is_behind_comes_before_everything() {
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    let driver = DriverState { behind: true, limited: true, busy: true, ..NOTHING };
    assert_eq!(cause_with(&table, driver), Some(Cause::Disk));
    assert_eq!(cause_with(&table, DriverState { busy: true, ..NOTHING }), Some(Cause::Moving));
}

#[test]
fn what_a_serving_peer_has_left_may_be_nothing() {
    // Only a peer that gives the wrong piece alone may give more of it.
    let mut table = TestSwarm::new("..", 1);
    table.serve(&guest(1), "x.");
    let block = table.requests(1)[0];
    table.give(1, block);
    table.join(&guest(2), ".x");
    let bottleneck = table.swarm.bottleneck(NOTHING).unwrap();
    assert_eq!((bottleneck.cause, bottleneck.serving), (Cause::NothingOffered, 1));
}

#[test]
fn nothing_counts_while_nothing_is_downloaded() {
    assert_eq!(cause(&TestSwarm::new("xx", 1)), None);
    assert_eq!(cause(&TestSwarm::with("..", 1, |config| config.upload_only = true)), None);
    let mut table = TestSwarm::new("..", 1);
    table.handle(Event::Pause);
    assert_eq!(cause(&table), None);
    table.handle(Event::Resume);
    assert_eq!(cause(&table), Some(Cause::NoPeers));
}
