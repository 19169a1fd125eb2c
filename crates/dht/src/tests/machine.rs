//! Single nodes, and packets that are meant to do harm.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{InfoHash, Moment, Rng};

use super::world::{World, packet};
use crate::krpc::{Body, Packet, Question, Response, Want};
use crate::{AnnounceAs, Dht, DhtAction, DhtConfig, Family, NodeId};

const NOW: Moment = Moment::from_secs(100);
const HASH: InfoHash = InfoHash([7; 20]);
const SECOND: Duration = Duration::from_secs(1);
const ME: AnnounceAs = AnnounceAs { port: 6881, implied_port: false, is_seed: false };

fn node(config: DhtConfig) -> Dht {
    Dht::new(config, [3; 32], Rng::from_seed(1), NOW)
}

fn addr(n: u8) -> SocketAddr {
    ([9, n, 9, 9], 6881).into()
}

fn query(n: u8, question: Question<'_>) -> Vec<u8> {
    let id = NodeId::for_ip(addr(n).ip(), &mut Rng::from_seed(n.into()));
    packet(b"aa", Body::Query { id, question }).encode()
}

fn sent(dht: &mut Dht) -> Vec<(SocketAddr, Vec<u8>)> {
    let send = |action| match action {
        DhtAction::Send { to, bytes } => Some((to, bytes)),
        _ => None,
    };
    std::iter::from_fn(|| dht.poll()).filter_map(send).collect()
}

/// Answers everything that the node asks, as the node that was asked.
fn answer_all(dht: &mut Dht, now: Moment, seen_at: Option<SocketAddr>) -> usize {
    let mut answered = 0;
    for (to, bytes) in sent(dht) {
        let asked = Packet::decode(&bytes).unwrap();
        if !matches!(asked.body, Body::Query { .. }) {
            continue;
        }
        let id = NodeId::for_ip(to.ip(), &mut Rng::from_seed(to.ip().to_string().len() as u64));
        let mut response = Response::new(id);
        response.token = Some(b"t");
        let mut answer = packet(asked.transaction, Body::Response(response));
        answer.seen_at = seen_at;
        dht.handle_packet(now, to, &answer.encode());
        answered += 1;
    }
    answered
}

#[test]
fn a_question_with_a_fault_gets_one_error_and_nothing_else_does() {
    let mut dht = node(DhtConfig::default());
    let errors = [
        (&b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe"[..], 204),
        (b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe", 203),
    ];
    for (bytes, wanted) in errors {
        dht.handle_packet(NOW, addr(1), bytes);
        let sent = sent(&mut dht);
        assert_eq!(sent.len(), 1);
        assert!(sent[0].1.len() < bytes.len() * 3);
        assert_eq!(Packet::decode(&sent[0].1).unwrap().body, Body::Error { code: wanted });
        // An error is no reason for one.
        dht.handle_packet(NOW, addr(2), &sent[0].1);
    }
    for bytes in [&b"x"[..], b"d1:rd2:id20:abcdefghij0123456789e1:t4:aaaa1:y1:re", &[b'l'; 3000]] {
        dht.handle_packet(NOW, addr(1), bytes);
    }
    assert_eq!(sent(&mut dht), []);
}

#[test]
fn answers_of_others_and_replays_change_nothing() {
    let mut dht = node(DhtConfig::default());
    dht.add_node(addr(1));
    dht.handle_timeout(NOW);
    let asked = sent(&mut dht);
    assert_eq!(asked.len(), 1);
    let transaction = Packet::decode(&asked[0].1).unwrap().transaction.to_vec();
    let answer = packet(&transaction, Body::Response(Response::new(NodeId([1; 20])))).encode();
    dht.handle_packet(NOW, addr(2), &answer);
    assert_eq!(dht.figures().nodes, [0, 0]);
    dht.handle_packet(NOW, addr(1), &answer);
    assert_eq!(dht.figures().nodes, [1, 0]);
    let dropped = dht.figures().dropped;
    dht.handle_packet(NOW, addr(1), &answer);
    assert_eq!(dht.figures().dropped, dropped + 1);
}

#[test]
fn a_read_only_node_answers_nothing_and_gets_in_no_table() {
    let mut quiet = node(DhtConfig { is_read_only: true, ..DhtConfig::default() });
    quiet.handle_packet(NOW, addr(1), &query(1, Question::Ping));
    assert_eq!(sent(&mut quiet), []);
    quiet.add_node(addr(2));
    quiet.handle_timeout(NOW);
    let asked = sent(&mut quiet);
    assert!(Packet::decode(&asked[0].1).unwrap().is_read_only);
    let mut other = node(DhtConfig::default());
    other.handle_packet(NOW, addr(3), &asked[0].1);
    // The answer, but no check whether it is there.
    assert_eq!(sent(&mut other).len(), 1);
    other.handle_packet(NOW, addr(3), &query(3, Question::Ping));
    assert_eq!(sent(&mut other).len(), 2);
}

#[test]
fn networks_with_different_names_do_not_meet() {
    let named = |name: &[u8]| DhtConfig { network: Some(name.to_vec()), ..DhtConfig::default() };
    let mut ours = node(named(b"ours"));
    let mut public = node(DhtConfig::default());
    let mut theirs = node(named(b"theirs"));
    ours.add_node(addr(1));
    ours.handle_timeout(NOW);
    let asked = sent(&mut ours);
    for other in [&mut public, &mut theirs] {
        other.handle_packet(NOW, addr(9), &asked[0].1);
        assert_eq!(sent(other), []);
    }
    let mut member = Dht::new(named(b"ours"), [4; 32], Rng::from_seed(2), NOW);
    member.handle_packet(NOW, addr(9), &asked[0].1);
    assert_eq!(sent(&mut member).len(), 2);
    ours.handle_packet(NOW, addr(2), &query(2, Question::Ping));
    assert_eq!(sent(&mut ours), []);
}

#[test]
fn an_id_is_made_again_when_many_networks_name_an_address() {
    let mut dht = node(DhtConfig::default());
    let (old, outside) = (dht.id(Family::V4).unwrap(), SocketAddr::from(([8, 8, 8, 8], 7)));
    let mut now = NOW;
    for n in 0..60 {
        // A liar names another one now and then.
        dht.add_node(addr(n));
        now = now + SECOND;
        dht.handle_timeout(now);
        answer_all(&mut dht, now, Some(if n % 4 == 3 { addr(200) } else { outside }));
    }
    let new = dht.id(Family::V4).unwrap();
    assert!(new != old && new.fits(outside.ip()));
    assert_eq!(dht.external_ip(Family::V4), Some(outside.ip()));
    assert!(dht.figures().nodes[0] > 8);
}

#[test]
fn tables_survive_a_restart() {
    let mut world = World::new(1);
    let addrs: Vec<SocketAddr> = (0..30).map(|_| world.join(DhtConfig::default())).collect();
    world.run_for(SECOND * 120);
    let saved = world.call(addrs[3], |dht, _| dht.save());
    let id = world.call(addrs[3], |dht, _| dht.id(Family::V4));
    world.leave(addrs[3]);
    world.join_at(addrs[3], DhtConfig::default(), None);
    assert!(world.call(addrs[3], |dht, _| dht.restore(&saved)));
    world.run_for(SECOND * 10);
    let (new_id, nodes) = world.call(addrs[3], |dht, _| (dht.id(Family::V4), dht.figures().nodes));
    assert_eq!(new_id, id);
    assert!(nodes[0] >= 20, "{nodes:?}");
    assert!(!world.call(addrs[3], |dht, _| dht.restore(b"nonsense")));
}

#[test]
fn a_look_up_that_begins_without_nodes_waits_for_the_first() {
    let mut world = World::new(1);
    world.loss_percent = 0;
    let (first, seed) = (world.free_addr(), world.free_addr());
    world.join_at(first, DhtConfig::default(), None);
    world.join_at(seed, DhtConfig::default(), None);
    let lookup = world.look_up(seed, HASH, Some(ME));
    world.run_for(SECOND * 10);
    assert!(!world.ended.contains_key(&(seed, lookup)));
    world.call(seed, |dht, now| {
        dht.add_node(first);
        dht.handle_timeout(now);
    });
    world.run_for(SECOND * 10);
    assert_eq!(world.ended[&(seed, lookup)].announced_to, 1);
    let leech = world.free_addr();
    world.join_at(leech, DhtConfig::default(), Some(first));
    let lookup = world.look_up(leech, HASH, Some(ME));
    world.run_for(SECOND * 10);
    assert_eq!(world.found[&(leech, lookup)], [SocketAddr::new(seed.ip(), 6881)]);
}

#[test]
fn a_look_up_without_any_node_ends_in_time() {
    let mut world = World::new(1);
    let alone = world.free_addr();
    world.join_at(alone, DhtConfig::default(), None);
    let lookup = world.look_up(alone, HASH, Some(ME));
    world.run_for(SECOND * 130);
    assert_eq!(world.ended[&(alone, lookup)].asked, 0);
    assert_eq!(world.call(alone, |dht, _| dht.figures().lookups), 0);
}

#[test]
fn networks_of_both_families_help_each_other_to_begin() {
    let mut world = World::new(1);
    world.loss_percent = 0;
    let v6 = |n: u16| SocketAddr::from(([0x2a00, 1, n, 0, 0, 0, 0, 1], 6881));
    (0..10).for_each(|n| {
        world.join_at(v6(n), DhtConfig::default(), (n > 0).then(|| v6(0)));
    });
    world.run_for(SECOND * 60);
    let lookup = world.look_up(v6(1), HASH, Some(ME));
    world.run_for(SECOND * 10);
    assert!(world.ended[&(v6(1), lookup)].announced_to >= 8);
    let lookup = world.look_up(v6(2), HASH, None);
    world.run_for(SECOND * 10);
    assert_eq!(world.found[&(v6(2), lookup)], [v6(1)]);
}

/// 100,000 questions a second from many addresses: few are answered, and the own look-ups go on.
#[test]
fn own_look_ups_end_in_a_flood() {
    let mut world = World::new(1);
    let addrs: Vec<SocketAddr> = (0..40).map(|_| world.join(DhtConfig::default())).collect();
    world.run_for(SECOND * 60);
    let lookup = world.look_up(addrs[0], HASH, Some(ME));
    let before = world.packets;
    let flood = query(
        1,
        Question::GetPeers {
            info_hash: HASH,
            want: Want::default(),
            without_seeds: false,
            scrape: false,
        },
    );
    for round in 0..20_u32 {
        world.call(addrs[0], |dht, now| {
            for n in 0..10_000_u32 {
                let ip = std::net::Ipv4Addr::from(0x0b00_0000 + round * 10_000 + n);
                dht.handle_packet(now, (ip, 1).into(), &flood);
            }
        });
        world.run_for(SECOND / 10);
    }
    world.run_for(SECOND * 5);
    assert!(world.ended[&(addrs[0], lookup)].announced_to >= 8);
    // Answers, checks, and what the others do.
    assert!(world.packets - before < 10_000, "{}", world.packets - before);
}

/// A million torrents announced by one node with valid tokens.
#[test]
fn announces_of_very_many_torrents_take_bounded_memory() {
    let mut dht = node(DhtConfig { answers_per_second: 1_000_000, ..DhtConfig::default() });
    let mut now = NOW;
    for n in 0..20_000_u32 {
        now = now + SECOND / 10;
        let mut hash = HASH;
        hash.0[..4].copy_from_slice(&n.to_be_bytes());
        let question = Question::GetPeers {
            info_hash: hash,
            want: Want::default(),
            without_seeds: false,
            scrape: false,
        };
        dht.handle_packet(now, addr(1), &query(1, question));
        let Some((_, bytes)) = sent(&mut dht).into_iter().next() else { continue };
        let Body::Response(response) = Packet::decode(&bytes).unwrap().body else { panic!() };
        let question = Question::AnnouncePeer {
            info_hash: hash,
            port: 6881,
            implied_port: false,
            token: response.token.unwrap(),
            is_seed: false,
        };
        dht.handle_packet(now, addr(1), &query(1, question));
        sent(&mut dht);
    }
    assert_eq!(dht.figures().stored_torrents, 2_000);
}

#[test]
fn nodes_with_a_new_id_are_of_use_to_a_look_up() {
    let mut world = World::new(5);
    world.loss_percent = 0;
    let addrs: Vec<SocketAddr> = (0..20).map(|_| world.join(DhtConfig::default())).collect();
    world.run_for(SECOND * 60);
    // One of them comes back with another id.
    world.leave(addrs[5]);
    world.join_at(addrs[5], DhtConfig::default(), Some(addrs[6]));
    world.run_for(SECOND * 60);
    let lookup = world.look_up(addrs[0], HASH, Some(ME));
    world.run_for(SECOND * 20);
    assert!(world.ended[&(addrs[0], lookup)].announced_to >= 7);
}
