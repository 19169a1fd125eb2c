//! Which peers an answer contains.

use super::*;

#[test]
fn load_is_spread_over_the_seeds_evenly() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    for port in 1..=10 {
        f.announce(0, [10, 0, 0, 1].into(), &announce(1, port, 0), 0);
    }
    for port in 100..200 {
        assert_eq!(f.announce(1, [10, 0, 0, 2].into(), &announce(1, port, 1), 3).peers.len(), 3);
    }
    let load = f.registry.load();
    assert_eq!(load.len(), 10);
    assert!(load.iter().all(|entry| entry.assigned == Load { total: 30, recent: 30 }));
    // Two half-lives later the recent counts are a quarter.
    f.announce(1_250, [10, 0, 0, 2].into(), &announce(1, 100, 1), 0);
    assert!(f.registry.load().iter().all(|entry| entry.assigned == Load { total: 30, recent: 7 }));
}

#[test]
fn load_survives_a_restart_and_a_short_absence() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    f.announce(0, ip(1), &announce(1, 1, 0), 0);
    for port in 10..15 {
        f.announce(0, ip(3), &announce(1, port, 1), 5);
    }
    let changed = f.registry.take_changed();
    assert_eq!(changed.len(), 1);
    assert!(f.registry.take_changed().is_empty());

    let mut again = Fixture::new(roomy());
    again.registry.catalogue(at(0), hash(1), 4, 7);
    changed[0].2.iter().for_each(|entry| again.registry.restore_load(entry));
    again.announce(0, ip(4), &announce(1, 2, 0), 0);
    again.announce(0, ip(1), &announce(1, 1, 0), 0);
    let first = again.announce(0, ip(6), &announce(1, 20, 1), 1);
    assert_eq!(first.peers[0].addr, SocketAddr::new(ip(4), 2), "the fresh one has given less");
    let mut stop = announce(1, 1, 0);
    stop.event = AnnounceEvent::Stopped;
    again.announce(0, ip(1), &stop, 0);
    again.announce(0, ip(1), &announce(1, 1, 0), 0);
    let old = again.registry.load().into_iter().find(|entry| entry.peer.port() == 1).unwrap();
    assert_eq!(old.assigned.total, 5);
    assert_eq!(again.registry.scrape(hash(1)).unwrap().downloaded, 7);
}

#[test]
fn a_torrent_catalogued_late_keeps_what_was_handed_out_before() {
    let mut f = Fixture::new(roomy());
    f.announce(0, ip(1), &announce(1, 1, 0), 0);
    f.announce(0, ip(3), &announce(1, 2, 1), 5);
    f.registry.catalogue(at(0), hash(1), 4, 0);
    assert_eq!(f.registry.availability(hash(1)), [1, 1, 1, 1]);
    f.announce(0, ip(3), &announce(1, 3, 1), 1);
    f.announce(0, ip(1), &announce(1, 1, 0), 0);
    f.announce(0, ip(3), &announce(1, 3, 1), 1);
    let load = f.registry.load();
    assert_eq!(load[0].assigned, Load { total: 3, recent: 3 });
    f.registry.check();
}

#[test]
fn random_selection_reaches_every_seed() {
    let config = RegistryConfig { selection: Selection::Random, ..roomy() };
    let mut f = Fixture::new(config);
    f.registry.catalogue(at(0), hash(1), 4, 0);
    for port in 1..=10 {
        f.announce(0, ip(1), &announce(1, port, 0), 0);
    }
    for _ in 0..200 {
        f.announce(0, ip(3), &announce(1, 99, 1), 1);
    }
    let load = f.registry.load();
    assert_eq!(load.len(), 10);
    assert_eq!(load.iter().map(|entry| entry.assigned.total).sum::<u64>(), 200);
}

#[test]
fn the_load_stays_even_in_a_swarm_too_large_to_look_at() {
    let config = RegistryConfig { max_peers_per_ip: 10_000, ..roomy() };
    let mut f = Fixture::new(config);
    for port in 1..=3_000 {
        f.announce(0, ip(1), &announce(1, port, 0), 0);
    }
    for _ in 0..3_000 {
        assert_eq!(f.announce(0, ip(3), &announce(1, 99, 1), 10).peers.len(), 10);
    }
    let peers = f.registry.peers(at(0), hash(1));
    let most = peers.iter().map(|peer| peer.assigned.recent).max();
    assert!(most <= Some(14), "10 each on the average, {most:?} for one");
}

#[test]
fn an_ipv4_asker_over_udp_gets_ipv4_peers_only() {
    let mut f = Fixture::new(roomy());
    f.announce(0, ip(1), &announce(1, 1, 0), 0);
    f.announce(0, ip(2), &announce(1, 1, 0), 0);
    let want = PeerQuery { v6: false, ..PeerQuery::any(10) };
    let said = announce(1, 2, 1);
    let answer = f.registry.announce(at(0), &mut f.rng, ip(3), &said, want).unwrap();
    assert_eq!(answer.peers.len(), 1);
    assert!(answer.peers[0].addr.is_ipv4());
}

#[test]
fn who_downloads_gets_to_know_others_who_do_however_many_seeds_there_are() {
    let mut fixture = Fixture::new(roomy());
    let mut ask = |ip: [u8; 4], port, left, want| {
        let answer = fixture.announce(0, ip.into(), &announce(1, port, left), want);
        let complete = answer.peers.iter().filter(|peer| peer.complete).count();
        assert!(answer.peers[..complete].iter().all(|peer| peer.complete), "seeds come first");
        (complete, answer.peers.len() - complete)
    };
    for n in 1..=200 {
        ask([10, 1, 0, n], 1, 0, 0);
    }
    assert_eq!(ask([10, 2, 0, 1], 1, 9, 50), (50, 0), "nobody else downloads");
    assert_eq!(ask([10, 2, 0, 2], 1, 9, 50), (49, 1));
    for n in 3..=40 {
        ask([10, 2, 0, n], 1, 9, 0);
    }
    assert_eq!(ask([10, 2, 0, 1], 1, 9, 50), (38, 12));
    assert_eq!(ask([10, 2, 0, 1], 1, 9, 3), (3, 0), "seeds are what it needs first");
    assert_eq!(ask([10, 1, 0, 1], 1, 0, 50), (0, 40), "a seed has nothing to get from a seed");
}

#[test]
fn a_swarm_among_many_seeds_holds_together_without_them() {
    let mut fixture = Fixture::new(roomy());
    let at = |kind: u8, n: u8| IpAddr::from([10, kind, 0, n]);
    (0..250).for_each(|n| drop(fixture.announce(0, at(1, n), &announce(1, 1, 0), 50)));
    // Each peer knows the peers of its first answer, and the peers whose answers contained it.
    let mut group: Vec<u8> = (0..250).collect();
    for n in 0..250_u8 {
        for peer in fixture.announce(0, at(2, n), &announce(1, 1, 9), 50).peers {
            let SocketAddr::V4(addr) = peer.addr else { continue };
            let [_, kind, _, other] = addr.ip().octets();
            if kind == 2 {
                let (one, two) = (group[usize::from(n)], group[usize::from(other)]);
                group.iter_mut().filter(|of| **of == one).for_each(|of| *of = two);
            }
        }
    }
    assert!(group.iter().all(|of| *of == group[0]), "the swarm has parts: {group:?}");
}

#[test]
fn peers_that_were_seen_come_first_and_those_that_refuse_last() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    // A thousand fake seeds, each in its own network, and one real seed.
    let fake = |n: u16| IpAddr::from([10, (n >> 8) as u8, n as u8, 1]);
    for n in 0..1_000 {
        f.announce(0, fake(n), &announce(1, 1, 0), 0);
    }
    let real = SocketAddr::new([192, 0, 2, 1].into(), 1);
    f.announce(0, real.ip(), &announce(1, 1, 0), 0);
    f.registry.checked(hash(1), real, true);
    let ask = |f: &mut Fixture, want| -> Vec<SocketAddr> {
        let answer = f.announce(1, [192, 0, 2, 2].into(), &announce(1, 2, 9), want);
        answer.peers.iter().map(|peer| peer.addr).collect()
    };
    for _ in 0..100 {
        assert_eq!(ask(&mut f, 50)[0], real);
    }
    for n in 0..990 {
        f.registry.checked(hash(1), SocketAddr::new(fake(n), 1), false);
    }
    let unchecked = |addr: &SocketAddr| (990..1_000).any(|n| addr.ip() == fake(n));
    let answer = ask(&mut f, 50);
    assert!(answer[0] == real && answer[1..].iter().all(unchecked), "{answer:?}");
    assert_eq!(answer.len(), 11, "the rest refused, and may be gone");
    for n in 0..900 {
        f.announce(1, fake(n), &announce(1, 1, 0), 0);
    }
    let answer = ask(&mut f, 50);
    assert!(answer[0] == real && answer[1..11].iter().all(unchecked), "{answer:?}");
    assert_eq!(answer.len(), 50, "others announced all the same");
    // A peer that reports is reachable; one that was found to refuse is not, even if it reports.
    for n in [0, 990] {
        let reporter = Reporter { ip: fake(n), port: 1, key: Some(1.into()) };
        f.registry.report(at(1), hash(1), reporter, &[0xf0]).unwrap();
    }
    let answer = ask(&mut f, 2);
    let of = |at: usize| reachability(&f.registry, hash(1), answer[at]);
    assert_eq!((of(0), of(1)), (Reachability::Seen, Reachability::Unchecked));
    assert_eq!(
        reachability(&f.registry, hash(1), SocketAddr::new(fake(0), 1)),
        Reachability::Refused
    );
    assert_eq!(
        reachability(&f.registry, hash(1), SocketAddr::new(fake(990), 1)),
        Reachability::Seen
    );
    f.registry.check();
}

#[test]
fn who_refused_and_fell_silent_is_given_only_where_there_is_nobody_else() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    let from = |n: u8| IpAddr::from([10, 0, n, 1]);
    // A seed and a leech that are killed, and a leech that lives.
    for (n, left) in [(1, 0), (2, 5), (3, 5)] {
        f.announce(0, from(n), &announce(1, 1, left), 0);
    }
    for n in [1, 2] {
        f.registry.checked(hash(1), SocketAddr::new(from(n), 1), false);
    }
    let ask = |f: &mut Fixture, now| -> Vec<IpAddr> {
        let answer = f.announce(now, from(9), &announce(1, 2, 9), 50);
        answer.peers.iter().map(|peer| peer.addr.ip()).collect()
    };
    assert_eq!(ask(&mut f, 140), [from(3)]);
    let mut stop = announce(1, 1, 5);
    stop.event = AnnounceEvent::Stopped;
    f.announce(141, from(3), &stop, 0);
    assert_eq!(
        ask(&mut f, 142),
        [from(1), from(2)],
        "perhaps it is the tracker that reaches nobody"
    );
    // A peer that announces is alive, and others may be able to reach it.
    f.announce(143, from(1), &announce(1, 1, 0), 0);
    assert_eq!(ask(&mut f, 144), [from(1)]);
    f.registry.check();
}

#[test]
fn those_nobody_has_looked_at_have_half_of_an_answer() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    let peer = |n: u16| SocketAddr::new([10, (n >> 8) as u8, n as u8, 1].into(), 1);
    for n in 0..400 {
        f.announce(0, peer(n).ip(), &announce(1, 1, 0), 0);
        if n < 200 {
            f.registry.checked(hash(1), peer(n), true);
        }
    }
    let answer = f.announce(1, [192, 0, 2, 2].into(), &announce(1, 2, 9), 50);
    let seen = |at: &HandedPeer| (0..200).any(|n| peer(n) == at.addr);
    assert!(answer.peers[..25].iter().all(seen) && !answer.peers[25..].iter().any(seen));
}

#[test]
fn peers_of_one_area_do_not_fill_an_answer_while_there_are_others() {
    let mut f = Fixture::new(roomy());
    let area = |n: u16| IpAddr::from([10, 0, 0, n as u8]);
    let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 7, n, 0, 0, 0, 1]);
    let other = |n: u16| IpAddr::from([10, 1, n as u8, 1]);
    for n in 0..200 {
        f.announce(0, area(n), &announce(1, 1, 0), 0);
        f.announce(0, v6(n), &announce(1, 1, 0), 0);
    }
    for n in 0..60 {
        f.announce(0, other(n), &announce(1, 1, 0), 0);
    }
    for _ in 0..20 {
        let answer = f.announce(1, [192, 0, 2, 2].into(), &announce(1, 2, 9), 50);
        let of = |wanted: fn(&IpAddr) -> bool| {
            answer.peers.iter().filter(|peer| wanted(&peer.addr.ip())).count()
        };
        assert_eq!(answer.peers.len(), 50);
        assert!(of(|ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[1] == 0)) <= 12);
        assert!(of(IpAddr::is_ipv6) <= 12);
    }
    // Without other peers they fill the answer.
    for n in 0..200 {
        f.announce(0, area(n), &announce(2, 1, 0), 0);
    }
    f.announce(0, other(1), &announce(2, 1, 0), 0);
    let answer = f.announce(1, [192, 0, 2, 2].into(), &announce(2, 2, 9), 50);
    assert_eq!(answer.peers.len(), 50);
    assert!(answer.peers.iter().any(|peer| peer.addr.ip() == other(1)));
}
