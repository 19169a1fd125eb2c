//! Tests of which peer gets a place when all are taken.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A seed with four places, all taken by peers of one address, which have said what they hold and that they
/// are interested.
fn full(address: &str) -> TestSwarm {
    let mut table = TestSwarm::with("xx", 4, |config| config.max_peers = 4);
    for key in 1..=4 {
        table.join(&guest(key).at(&format!("{address}:{key}")), "..");
        table.hear(key, Message::Interested);
        table.now = table.now + Duration::from_millis(1);
    }
    table.actions.clear();
    table
}

#[test]
fn idle_peers_of_one_address_make_way_for_another_at_once() {
    let mut table = full("198.51.100.1");
    table.connect(&guest(5));
    assert_eq!(table.faults(), BTreeMap::from([(1, PeerFault::MadeWay)]));
    assert!(!table.said(5).is_empty(), "it is greeted");
    table.connect(&guest(6));
    assert_eq!(table.fault_of(2), Some(PeerFault::MadeWay));
    table.connect(&guest(7));
    assert_eq!(table.fault_of(3), Some(PeerFault::MadeWay));
    // Each address has one now.
    table.connect(&guest(8));
    assert_eq!(table.fault_of(8), Some(PeerFault::TooManyPeers));
}

#[test]
fn a_peer_that_took_a_block_keeps_its_place() {
    let mut table = full("198.51.100.1");
    table.handle(Event::Uploaded { peer: PeerKey(1), blocks: 1, bytes: u64::from(BLOCK_LEN) });
    table.connect(&guest(5));
    assert_eq!(table.faults(), BTreeMap::from([(2, PeerFault::MadeWay)]));
    // Two minutes later that does not count any more, although the peer sends messages all the time.
    for _ in 0..4 {
        (1..=5).for_each(|key| table.hear(key, Message::KeepAlive));
        table.wait(31 * SECOND);
    }
    (6..=8).for_each(|key| table.connect(&guest(key)));
    assert_eq!(table.faults().keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn peers_that_gave_a_block_keep_their_places() {
    let mut table = TestSwarm::with("........", 4, |config| config.max_peers = 3);
    for key in [1, 3, 2] {
        table.serve(&guest(key).at(&format!("198.51.100.1:{key}")), "xxxxxxxx");
    }
    let asked = table.requests(2)[0];
    table.give(2, asked);
    table.actions.clear();
    table.connect(&guest(4));
    assert_eq!(table.faults(), BTreeMap::from([(1, PeerFault::MadeWay)]));
}

#[test]
fn blocks_that_nobody_asked_for_are_no_merit() {
    let mut table = TestSwarm::with("..", 4, |config| config.max_peers = 2);
    for key in 1..=2 {
        table.join(&guest(key).at(&format!("198.51.100.1:{key}")), "xx");
    }
    table.handle(Event::Unasked { peer: PeerKey(1), block: block(0, 0) });
    table.connect(&guest(3));
    assert_eq!(table.faults(), BTreeMap::from([(1, PeerFault::MadeWay)]));
}

#[test]
fn of_the_same_address_a_newcomer_takes_the_place_of_one_idle_for_seconds() {
    let mut table = full("127.0.0.1");
    let (addr, id) = ("127.0.0.1:9".parse().unwrap(), PeerId([9; 20]));
    assert!(!table.swarm.has_place_for(table.now, addr, id));
    assert!(table.swarm.has_place_for(table.now + 10 * SECOND, addr, id));
    table.now = table.now + 10 * SECOND;
    table.connect(&guest(9).at("127.0.0.1:9").called(id));
    assert_eq!(table.faults(), BTreeMap::from([(1, PeerFault::MadeWay)]));
}

#[test]
fn a_download_whose_places_are_all_useless_tries_other_addresses_one_at_a_time() {
    let mut table = TestSwarm::with("..", 1, |config| config.max_peers = 3);
    for key in 1..=3 {
        table.join(&guest(key).at(&format!("198.51.100.1:{key}")), "..");
    }
    let addrs = ["198.51.100.7:1", "198.51.100.8:1"].map(|addr| addr.parse().unwrap()).to_vec();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    assert!(dialled_of(table.take()).is_empty());
    table.wait(61 * SECOND);
    (1..=3).for_each(|key| table.hear(key, Message::KeepAlive));
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs: Vec::new() });
    let dials = dialled_of(table.take());
    assert_eq!(dials.len(), 1);
    table.connect(&guest(4).outgoing(&dials[0].to_string()));
    assert_eq!(table.fault_of(4), None);
    assert_eq!(table.faults().len(), 1, "one made way");
}

fn dialled_of(actions: Vec<Action>) -> Vec<SocketAddr> {
    let dialled = actions.into_iter().filter_map(|action| match action {
        Action::Dial { addr } => Some(addr),
        _ => None,
    });
    dialled.collect()
}

#[test]
fn a_block_that_is_not_owed_counts_as_a_stray_and_one_that_is_is_asked_for_anew() {
    let mut table = TestSwarm::new(".", 4);
    table.serve(&guest(1), "x");
    let asked = table.requests(1);
    table.handle(Event::Unasked { peer: PeerKey(1), block: asked[0] });
    assert_eq!(table.fault_of(1), None);
    assert!(table.requests(1).contains(&asked[0]));
    for _ in 0..=crate::peer::MAX_STRAYS {
        assert_eq!(table.fault_of(1), None);
        // Inside the piece, but not one of its blocks.
        let block = BlockRef { begin: 1, ..block(0, 0) };
        table.handle(Event::Unasked { peer: PeerKey(1), block });
    }
    assert_eq!(table.fault_of(1), Some(PeerFault::Unrequested));
    let empty = BlockRef { len: 0, ..block(0, 0) };
    table.serve(&guest(2), "x");
    table.handle(Event::Unasked { peer: PeerKey(2), block: empty });
    assert_eq!(table.fault_of(2), Some(PeerFault::OutOfRange));
}
