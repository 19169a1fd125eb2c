//! Tests that each fault of a peer costs it its own connection and costs others nothing.

use super::*;

fn fault(guest: &TestPeer, holds: Option<&str>, message: Message) -> Option<PeerFault> {
    let mut table = TestSwarm::new("x...", 4);
    table.serve(&super::guest(9), "xxxx");
    match holds {
        Some(holds) => table.join(guest, holds),
        None => table.connect(guest),
    }
    table.hear(guest.key, message);
    assert_eq!(table.fault_of(9), None);
    assert_eq!(table.swarm.peers().count(), 1 + usize::from(table.fault_of(guest.key).is_none()));
    table.fault_of(guest.key)
}

fn bits(bytes: &'static [u8]) -> Message {
    Message::Bitfield(Bytes::from_static(bytes))
}

#[test]
fn bitfield_of_wrong_size() {
    assert_eq!(fault(&guest(1), None, bits(&[0, 0])), Some(PeerFault::BadBitfield));
    assert_eq!(fault(&guest(1), None, bits(&[])), Some(PeerFault::BadBitfield));
}

#[test]
fn bitfield_with_spare_bits() {
    assert_eq!(fault(&guest(1), None, bits(&[0xf8])), Some(PeerFault::BadBitfield));
    assert_eq!(fault(&guest(1), None, bits(&[0xf0])), None);
}

#[test]
fn bitfield_that_takes_back_what_the_peer_had() {
    for late in [bits(&[0x70]), bits(&[0]), Message::HaveNone] {
        assert_eq!(fault(&guest(1), Some("x..."), late), Some(PeerFault::LateBitfield));
    }
}

#[test]
fn bitfield_in_place_of_many_haves_adds_to_what_the_peer_had() {
    // aria2 sends one for twenty pieces or more, and have-all at the end.
    let mut table = TestSwarm::new("....", 1);
    table.connect(&guest(1));
    table.hear(1, bits(&[0x80]));
    for (late, holds) in [(bits(&[0xc0]), 2), (bits(&[0xc0]), 2), (Message::HaveAll, 4)] {
        table.hear(1, late);
        assert_eq!(table.fault_of(1), None);
        assert_eq!(table.swarm.peers().next().map(|peer| peer.holds.count()), Some(holds));
    }
}

#[test]
fn bitfield_behind_messages_that_are_not_of_the_protocol_proper() {
    let mut table = TestSwarm::new("....", 1);
    // Transmission sends its extended handshake first.
    table.connect(&guest(2).extended());
    table.hear(2, Message::Extended { id: 0, payload: Bytes::from_static(b"de") });
    table.hear(2, Message::Port(1));
    table.hear(2, bits(&[0xf0]));
    assert_eq!(table.fault_of(2), None);
}

#[test]
fn have_out_of_range() {
    let have = |piece| Message::Have(PieceIndex(piece));
    assert_eq!(fault(&guest(1), Some("...."), have(4)), Some(PeerFault::OutOfRange));
    assert_eq!(fault(&guest(1), Some("...."), have(u32::MAX)), Some(PeerFault::OutOfRange));
    assert_eq!(fault(&guest(1), Some("...."), have(3)), None);
}

#[test]
fn request_out_of_range() {
    let piece_len = 4 * BLOCK_LEN;
    for (piece, begin, len) in [
        (4, 0, 1),
        (0, piece_len, 1),
        (0, piece_len - 1, 2),
        (0, 0, 0),
        (0, 0, BLOCK_LEN + 1),
        (0, u32::MAX, u32::MAX),
    ] {
        let block = BlockRef { piece: PieceIndex(piece), begin, len };
        for message in [Message::Request(block), Message::Cancel(block), Message::Reject(block)] {
            let fault = fault(&guest(1), Some("...."), message);
            assert_eq!(fault, Some(PeerFault::OutOfRange), "{block:?}");
        }
    }
}

#[test]
fn fast_messages_without_the_fast_extension() {
    for message in [
        Message::Suggest(PieceIndex(0)),
        Message::Reject(block(0, 0)),
        Message::AllowedFast(PieceIndex(0)),
    ] {
        let fault = fault(&guest(1).plain(), Some("...."), message);
        assert_eq!(fault, Some(PeerFault::NotFast));
    }
    assert_eq!(fault(&guest(1).plain(), None, Message::HaveAll), Some(PeerFault::NotFast));
}

#[test]
fn suggestions_and_allowances_out_of_range() {
    for message in [Message::Suggest(PieceIndex(4)), Message::AllowedFast(PieceIndex(4))] {
        assert_eq!(fault(&guest(1), Some("...."), message), Some(PeerFault::OutOfRange));
    }
}

#[test]
fn extended_handshake_that_is_none() {
    let bad = Message::Extended { id: 0, payload: Bytes::from_static(b"d1:v") };
    let answer = fault(&guest(1).extended(), Some("...."), bad.clone());
    assert_eq!(answer, Some(PeerFault::BadExtended));
    // A peer that never offered the extension protocol is not listened to.
    assert_eq!(fault(&guest(1), Some("...."), bad), None);
    let other = Message::Extended { id: 9, payload: Bytes::from_static(b"!") };
    assert_eq!(fault(&guest(1).extended(), Some("...."), other), None);
}

#[test]
fn unrequested_blocks() {
    let mut table = TestSwarm::new("....", 4);
    table.join(&guest(1), "xxxx");
    for count in 0..64 {
        let buffer = table.give(1, block(count % 4, 1));
        let actions = table.take();
        assert_eq!(actions[0], Action::Discard { buffer });
        assert!(matches!(&actions[1..], [Action::Unused { blocks: 1, .. }]), "{actions:?}");
    }
    table.give(1, block(0, 0));
    assert_eq!(table.fault_of(1), Some(PeerFault::Unrequested));
    assert_eq!(table.swarm.progress().wasted, 65 * u64::from(BLOCK_LEN));
}

#[test]
fn blocks_that_do_not_exist() {
    for (piece, begin, len) in [(4, 0, BLOCK_LEN), (0, 4 * BLOCK_LEN, 1), (0, u32::MAX, 9)] {
        let mut table = TestSwarm::new("....", 4);
        table.join(&guest(1), "xxxx");
        table.give(1, BlockRef { piece: PieceIndex(piece), begin, len });
        assert_eq!(table.fault_of(1), Some(PeerFault::OutOfRange));
    }
}

#[test]
fn request_floods() {
    let mut table = TestSwarm::with("x...", 4, |config| config.max_requests_in = 10);
    table.join(&guest(1), "....");
    table.hear(1, Message::Interested);
    for index in 0..10 {
        table.hear(1, Message::Request(block(0, index % 4)));
    }
    assert_eq!(table.fault_of(1), None);
    table.hear(1, Message::Request(block(0, 0)));
    assert_eq!(table.fault_of(1), Some(PeerFault::RequestFlood));
}

#[test]
fn floods_of_suggestions_and_allowances_cost_nothing() {
    let mut table = TestSwarm::new(&".".repeat(500), 1);
    table.join(&guest(1), &".".repeat(500));
    for piece in 0..500 {
        table.hear(1, Message::Suggest(PieceIndex(piece)));
        table.hear(1, Message::AllowedFast(PieceIndex(piece)));
        table.hear(1, Message::Unknown { id: 77 });
    }
    assert_eq!(table.faults(), BTreeMap::new());
}

#[test]
fn rejects_of_everything_do_not_spin() {
    let mut table = TestSwarm::new("....", 4);
    table.serve(&guest(1), "xxxx");
    let mut rejects = 0;
    let end = table.now + Duration::from_secs(60);
    while table.now < end {
        for request in table.requests(1) {
            rejects += 1;
            table.hear(1, Message::Reject(request));
        }
        table.wait(Duration::from_millis(100));
    }
    assert!(rejects < 300, "{rejects} requests in a minute");
}

#[test]
fn messages_of_strangers_are_passed_over() {
    let mut table = TestSwarm::new("....", 4);
    table.hear(5, Message::HaveAll);
    table.handle(Event::Disconnected { peer: PeerKey(5) });
    table.handle(Event::Uploaded { peer: PeerKey(5), blocks: 3, bytes: 9 });
    table.verified(2);
    table.checked(99, PieceOutcome::StorageFailed);
    table.handle(Event::DialFailed { addr: "10.0.0.1:1".parse().unwrap(), hung_up: false });
    let buffer = table.give(5, block(0, 0));
    assert_eq!(table.take(), [Action::Discard { buffer }]);
}

#[test]
fn under_a_limit_of_our_own_peers_that_wait_for_us_are_not_late() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    let first = table.requests(1)[0];
    table.handle(Event::Patience { extra: minutes(10) });
    table.wait(minutes(9));
    table.give(1, first);
    table.wait(minutes(9));
    assert!(table.swarm.peers().all(|peer| !peer.snubbed));
    table.wait(minutes(2));
    assert!(table.swarm.peers().all(|peer| peer.snubbed), "but not for ever");
}

#[test]
fn a_limit_that_is_lifted_makes_nobody_late_at_once() {
    let seconds = Duration::from_secs;
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    table.handle(Event::Patience { extra: seconds(600) });
    table.wait(seconds(500));
    table.handle(Event::Patience { extra: Duration::ZERO });
    table.wait(seconds(19));
    let snubbed = |table: &TestSwarm| table.swarm.peers().map(|peer| peer.snubbed).next();
    assert_eq!(snubbed(&table), Some(false), "it is neither gone nor late");
    table.wait(seconds(2));
    assert_eq!(snubbed(&table), Some(true));
    // A peer that was about to be late anyway gets no more time than it had.
    let mut table = TestSwarm::new("....", 16);
    table.serve(&guest(1), "xxxx");
    table.handle(Event::Patience { extra: seconds(30) });
    table.wait(seconds(45));
    table.handle(Event::Patience { extra: seconds(10) });
    table.wait(seconds(6));
    assert_eq!(snubbed(&table), Some(true));
}

#[test]
fn the_end_is_not_asked_of_everybody_because_we_read_slowly() {
    let mut table = TestSwarm::new(".", 2);
    table.handle(Event::Patience { extra: Duration::from_secs(100) });
    for key in 1..=4 {
        table.serve(&guest(key), "x");
    }
    table.wait(Duration::from_secs(60));
    let asked: usize = (1..=4).map(|key| table.requests(key).len()).sum();
    assert!(asked <= 4, "two blocks are asked for {asked} times");
}
