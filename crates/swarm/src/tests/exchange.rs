//! Tests of peer exchange (BEP 11).

use super::*;
use piecework_proto::wire::{
    EXCHANGE_EXTENSION, EXCHANGE_ID, ExchangeFlags, ExchangeMessage, ExchangedPeer,
    ExtendedHandshake,
};

/// The number by which all peers here take messages.
const THEIRS: u8 = 9;

fn exchanging(change: impl FnOnce(&mut SwarmConfig)) -> TestSwarm {
    TestSwarm::with("..", 1, |config| {
        (config.exchange, config.max_dialing) = (true, 2_000);
        (config.max_peers, config.listen_port) = (2_000, Some(6881));
        change(config);
    })
}

/// Connects a peer that exchanges peers and says where it listens.
fn meet(table: &mut TestSwarm, guest: &TestPeer, port: Option<u16>) {
    table.connect(&guest.clone().extended());
    let messages = [(EXCHANGE_EXTENSION.to_owned(), THEIRS)].into();
    let handshake =
        ExtendedHandshake { messages, listen_port: port, ..ExtendedHandshake::default() };
    let payload = handshake.encode().into();
    table.hear(guest.key, Message::Extended { id: 0, payload });
}

fn at(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn name(table: &mut TestSwarm, key: u32, addrs: impl IntoIterator<Item = SocketAddr>) {
    let flags = ExchangeFlags::default();
    let added = addrs.into_iter().map(|addr| ExchangedPeer { addr, flags }).collect();
    let payload = ExchangeMessage { added, dropped: Vec::new() }.encode();
    table.hear(key, Message::Extended { id: EXCHANGE_ID, payload });
}

/// Takes the exchange messages to a peer.
fn told(table: &mut TestSwarm, key: u32) -> Vec<ExchangeMessage> {
    let of = |message: &Message| match message {
        Message::Extended { id: THEIRS, payload } => {
            Some(ExchangeMessage::decode(payload).unwrap())
        }
        _ => None,
    };
    table.said(key).iter().filter_map(of).collect()
}

fn added(messages: &[ExchangeMessage]) -> Vec<String> {
    let all = messages.iter().flat_map(|message| &message.added);
    all.map(|peer| peer.addr.to_string()).collect()
}

fn known(table: &TestSwarm) -> Vec<String> {
    table.swarm.known_addrs().map(|addr| addr.to_string()).collect()
}

#[test]
fn peers_are_named_where_they_listen_and_not_where_they_dialled_from() {
    let mut table = exchanging(|_| {});
    meet(&mut table, &guest(1).at("192.0.2.1:40001"), Some(7001));
    meet(&mut table, &guest(2).at("192.0.2.2:40002"), Some(7002));
    // This one does not say where it listens.
    meet(&mut table, &guest(3).at("192.0.2.3:40003"), None);
    table.handle(Event::Candidates {
        source: PeerSource::Tracker,
        addrs: vec![at("192.0.2.4:7004")],
    });
    meet(&mut table, &guest(4).outgoing("192.0.2.4:7004"), Some(9));
    table.wait(Duration::from_secs(5));
    assert_eq!(added(&told(&mut table, 1)), ["192.0.2.2:7002", "192.0.2.4:7004"]);
    assert_eq!(added(&told(&mut table, 2)), ["192.0.2.1:7001", "192.0.2.4:7004"]);
    let to_the_silent_one = told(&mut table, 3);
    assert_eq!(added(&to_the_silent_one).len(), 3);
    let flags = to_the_silent_one[0].added.iter().map(|peer| peer.flags).collect::<Vec<_>>();
    let [unknown, reachable] = [ExchangeFlags::default(), ExchangeFlags::REACHABLE];
    assert_eq!(flags, [unknown, unknown, reachable]);
}

#[test]
fn a_peer_is_told_at_most_once_a_minute_fifty_at_a_time_and_each_once() {
    let mut table = exchanging(|_| {});
    meet(&mut table, &guest(1).at("192.0.2.1:40001"), None);
    for key in 2..=120 {
        let addr = format!("198.51.100.{key}:4000");
        meet(&mut table, &guest(key).at(&addr), Some(7_000));
    }
    let mut all = Vec::new();
    for minute in 0..4 {
        let messages = told(&mut table, 1);
        assert!(messages.len() <= 1, "minute {minute}");
        assert!(messages.iter().all(|message| message.added.len() <= 50));
        all.extend(added(&messages));
        table.wait(Duration::from_secs(60));
    }
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!((all.len(), once.len()), (119, 119));
    table.wait(Duration::from_secs(300));
    assert!(told(&mut table, 1).is_empty(), "there is nothing new");
    assert_eq!(table.swarm.exchange.at, None, "no timer for nothing");
}

#[test]
fn a_peer_that_leaves_is_named_as_dropped_to_those_that_were_told_of_it() {
    let mut table = exchanging(|_| {});
    for key in 1..=3 {
        meet(&mut table, &guest(key).at(&format!("192.0.2.{key}:4000")), Some(7_000));
    }
    table.wait(Duration::from_secs(5));
    assert_eq!(added(&told(&mut table, 1)), ["192.0.2.2:7000", "192.0.2.3:7000"]);
    table.handle(Event::Disconnected { peer: PeerKey(3) });
    meet(&mut table, &guest(4).at("192.0.2.4:4000"), Some(7_000));
    table.wait(Duration::from_secs(50));
    assert!(told(&mut table, 1).is_empty(), "the minute is not over");
    table.wait(Duration::from_secs(20));
    let messages = told(&mut table, 1);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].dropped, [at("192.0.2.3:7000")]);
    assert_eq!(added(&messages), ["192.0.2.4:7000"]);
}

#[test]
fn seeds_are_named_as_such_and_not_to_each_other() {
    let mut table = exchanging(|_| {});
    for key in 1..=3 {
        meet(&mut table, &guest(key).at(&format!("192.0.2.{key}:4000")), Some(7_000));
        if key < 3 {
            table.hear(key, Message::HaveAll);
        }
    }
    table.wait(Duration::from_secs(5));
    assert_eq!(added(&told(&mut table, 1)), ["192.0.2.3:7000"]);
    let messages = told(&mut table, 3);
    assert!(messages[0].added.iter().all(|peer| peer.flags.has(ExchangeFlags::SEED)));
    assert_eq!(messages[0].added.len(), 2);
}

#[test]
fn addresses_of_a_private_network_are_neither_told_to_others_nor_heard_from_them() {
    let mut table = exchanging(|_| {});
    let peers = ["192.0.2.1:4000", "10.0.0.2:4000", "127.0.0.1:4000", "192.0.2.4:4000"];
    for (key, addr) in (1..).zip(peers) {
        meet(&mut table, &guest(key).at(addr), Some(7_000));
    }
    table.wait(Duration::from_secs(5));
    assert_eq!(added(&told(&mut table, 1)), ["192.0.2.4:7000"]);
    assert_eq!(added(&told(&mut table, 2)), ["192.0.2.1:7000", "192.0.2.4:7000"]);
    let to_this_machine = ["10.0.0.2:7000", "192.0.2.1:7000", "192.0.2.4:7000"];
    assert_eq!(added(&told(&mut table, 3)), to_this_machine);
    let before = known(&table);
    name(&mut table, 1, [at("127.0.0.1:80"), at("10.0.0.9:80"), at("169.254.169.254:80")]);
    assert_eq!(known(&table), before);
    name(&mut table, 3, [at("127.0.0.1:6889"), at("169.254.169.254:80")]);
    assert_eq!(known(&table).len(), before.len() + 1);
}

#[test]
fn what_is_heard_is_dialled_unless_it_cannot_be_a_peer() {
    let mut table = exchanging(|_| {});
    meet(&mut table, &guest(1).at("192.0.2.1:4000"), Some(7_000));
    let useless = [
        "192.0.2.9:0",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "0.0.0.0:1",
        "[ff02::1]:1",
        "[::]:1",
        "127.0.0.1:1",
        "192.0.2.1:7000",
        "192.0.2.1:4000",
    ];
    let good = ["192.0.2.7:1", "[2001:4860::1]:1"];
    table.actions.clear();
    name(&mut table, 1, useless.iter().chain(&good).map(|addr| at(addr)));
    let dialled = table.actions.iter().filter_map(|action| match action {
        Action::Dial { addr } => Some(addr.to_string()),
        _ => None,
    });
    let mut dialled: Vec<String> = dialled.collect();
    dialled.sort();
    assert_eq!(dialled, good);
    meet(&mut table, &guest(2).outgoing("192.0.2.7:1"), None);
    let sources: Vec<_> = table.swarm.peers().map(|peer| peer.source).collect();
    assert_eq!(sources, [PeerSource::Incoming, PeerSource::Exchange]);
}

#[test]
fn our_own_address_is_dialled_once() {
    let mut table = exchanging(|_| {});
    meet(&mut table, &guest(1).at("192.0.2.1:4000"), None);
    name(&mut table, 1, [at("192.0.2.99:6881")]);
    table.connect(&guest(2).outgoing("192.0.2.99:6881").called(LOCAL));
    assert_eq!(table.fault_of(2), Some(PeerFault::Ourselves));
    table.actions.clear();
    table.wait(Duration::from_secs(60));
    name(&mut table, 1, [at("192.0.2.99:6881")]);
    assert!(!table.actions.iter().any(|action| matches!(action, Action::Dial { .. })));
}

#[test]
fn a_flood_of_messages_and_of_addresses_is_bounded_for_each_host_and_in_total() {
    let mut table = exchanging(|config| config.max_dialing = 0);
    let flood = |by: u32, round: u32| {
        (0..100).map(move |n| SocketAddr::from(([20, by as u8, round as u8, n as u8], 1)))
    };
    for by in 1..=9 {
        meet(&mut table, &guest(by).at(&format!("192.0.2.{by}:4000")), None);
        for round in 0..100 {
            // A hundred messages at once: the first counts.
            name(&mut table, by, flood(by, round));
        }
        assert_eq!(known(&table).len(), (by as usize * 100).min(400));
    }
    for round in 0..20 {
        table.wait(Duration::from_secs(60));
        name(&mut table, 1, flood(1, round));
        let mine = known(&table).iter().filter(|addr| addr.starts_with("20.1.")).count();
        assert!(mine <= 100, "round {round}: {mine}");
        assert_eq!(known(&table).len(), 400);
    }
    // What trackers name finds room.
    let addrs = (0..1_000).map(|n: u32| SocketAddr::from(([30, 0, (n >> 8) as u8, n as u8], 1)));
    let addrs = addrs.collect();
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs });
    let of_trackers = known(&table).iter().filter(|addr| addr.starts_with("30.")).count();
    assert_eq!(of_trackers, 1_000);
}

#[test]
fn of_many_addresses_those_with_the_highest_canonical_priority_are_kept_and_dialled_first() {
    let mut table = exchanging(|config| config.max_dialing = 0);
    meet(&mut table, &guest(1).at("192.0.2.1:4000"), None);
    let handshake = ExtendedHandshake {
        your_ip: Some("198.51.100.7".parse().unwrap()),
        ..ExtendedHandshake::default()
    };
    let payload = handshake.encode().into();
    table.hear(1, Message::Extended { id: 0, payload });
    let all: Vec<SocketAddr> =
        (0..150).map(|n: u32| SocketAddr::from(([20, n as u8, 7, 1], 1))).collect();
    for part in all.chunks(50) {
        name(&mut table, 1, part.iter().copied());
        table.wait(Duration::from_secs(60));
    }
    let own = at("198.51.100.7:6881");
    let mut best = all;
    best.sort_by_key(|addr| std::cmp::Reverse(crate::canonical::canonical_priority(own, *addr)));
    best.truncate(100);
    let first = best[0];
    best.sort();
    let mut kept: Vec<SocketAddr> = table.swarm.known_addrs().collect();
    kept.sort();
    assert_eq!(kept, best);
    table.swarm.config.max_dialing = 1;
    table.handle(Event::Candidates { source: PeerSource::Tracker, addrs: Vec::new() });
    assert!(table.actions.contains(&Action::Dial { addr: first }));
}

#[test]
fn an_invalid_message_costs_its_sender_the_connection() {
    let mut table = exchanging(|_| {});
    meet(&mut table, &guest(1), None);
    let payload = Bytes::from_static(b"d5:added");
    table.hear(1, Message::Extended { id: EXCHANGE_ID, payload });
    assert_eq!(table.fault_of(1), Some(PeerFault::BadExchange));
}

#[test]
fn a_private_torrent_and_one_without_exchange_neither_offer_nor_tell_nor_hear() {
    for (exchange, is_private) in [(true, true), (false, false)] {
        let mut table = exchanging(|config| {
            (config.exchange, config.is_private) = (exchange, is_private);
        });
        for key in 1..=2 {
            meet(&mut table, &guest(key).at(&format!("192.0.2.{key}:4000")), Some(7_000));
        }
        let said = table.said(1);
        let offer = said.iter().find_map(|message| match message {
            Message::Extended { id: 0, payload } => {
                Some(ExtendedHandshake::decode(payload).unwrap())
            }
            _ => None,
        });
        assert!(!offer.unwrap().messages.contains_key(EXCHANGE_EXTENSION));
        table.wait(Duration::from_secs(5));
        assert!(told(&mut table, 1).is_empty() && told(&mut table, 2).is_empty());
        let before = known(&table);
        name(&mut table, 1, [at("192.0.2.7:1")]);
        assert_eq!(known(&table), before);
        assert!(table.faults().is_empty());
    }
}
