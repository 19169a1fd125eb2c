//! What peers cannot change about others, and the limits of the registry.

use super::*;

#[test]
fn holdings_need_the_key_of_the_announce() {
    let mut f = Fixture::new(roomy());
    let report = |f: &mut Fixture, host, key: Option<u32>, bits: &[u8]| {
        let key = key.map(AnnounceKey::Short);
        f.registry.report(at(0), hash(1), Reporter { ip: ip(host), port: 7, key }, bits)
    };
    assert_eq!(report(&mut f, 1, Some(7), &[0x80]), Err(Refusal::NotCatalogued));
    f.registry.catalogue(at(0), hash(1), 4, 0);
    assert!(matches!(report(&mut f, 1, Some(7), &[0x80]), Err(Refusal::UnknownPeer(_))));
    f.announce(0, ip(1), &announce(1, 7, 1), 0);
    assert_eq!(report(&mut f, 1, Some(8), &[0x80]), Err(Refusal::WrongKey));
    assert!(matches!(report(&mut f, 1, Some(7), &[0x81]), Err(Refusal::BadBitfield(_))));
    assert!(matches!(report(&mut f, 1, Some(7), &[]), Err(Refusal::BadBitfield(_))));
    report(&mut f, 1, Some(7), &[0x80]).unwrap();
    assert_eq!(report(&mut f, 1, None, &[0xc0]), Err(Refusal::WrongKey));
    // At another of its addresses it is identified by its key, and without the key not at all.
    assert!(matches!(report(&mut f, 3, None, &[0x80]), Err(Refusal::UnknownPeer(_))));
    report(&mut f, 3, Some(7), &[0x90]).unwrap();
    let peer = &f.registry.peers(at(0), hash(1))[0];
    assert_eq!(peer.source, Some(HoldingsSource::Reported));
    assert_eq!(peer.held.count(4), Some(2));
    assert_eq!(f.registry.availability(hash(1)), [1, 0, 0, 1]);
    assert_eq!(f.registry.holders(hash(1), PieceIndex(3)), [SocketAddr::new(ip(1), 7)]);
    // It restarts: its earlier reports are no longer valid.
    let mut started = announce(1, 7, 1);
    started.event = AnnounceEvent::Started;
    f.announce(0, ip(1), &started, 0);
    assert_eq!(f.registry.peers(at(0), hash(1))[0].held, Holdings::Unknown);
    f.announce(0, ip(1), &announce(1, 7, 0), 0);
    let peer = &f.registry.peers(at(0), hash(1))[0];
    assert_eq!((&peer.held, peer.source), (&Holdings::Everything, Some(HoldingsSource::Announced)));
    f.registry.check();
}

#[test]
fn reported_bitfields_are_bounded_in_all() {
    let config = RegistryConfig { max_held_bytes: 16 * 4 + 3, ..roomy() };
    let mut f = Fixture::new(config);
    f.registry.catalogue(at(0), hash(1), 16, 0);
    let report = |f: &mut Fixture, port, bits: &[u8]| {
        f.announce(0, ip(1), &announce(1, port, 1), 0);
        let key = Some(u32::from(port).into());
        f.registry.report(at(0), hash(1), Reporter { ip: ip(1), port, key }, bits)
    };
    report(&mut f, 1, &[1, 1]).unwrap();
    assert_eq!(report(&mut f, 2, &[1, 1]), Err(Refusal::Full));
    report(&mut f, 2, &[0xff, 0xff]).unwrap();
    report(&mut f, 1, &[0xff, 0xff]).unwrap();
    report(&mut f, 2, &[1, 1]).unwrap();
    f.registry.check();
}

#[test]
fn one_address_cannot_fill_a_torrent() {
    let config = RegistryConfig { max_peers_per_ip: 100, ..roomy() };
    let mut f = Fixture::new(config);
    for port in 1..=100 {
        f.announce(0, ip(1), &announce(1, port * 600, 1), 0);
    }
    let mut one_more = |from, port| {
        let said = announce(1, port, 1);
        f.registry.announce(at(0), &mut f.rng, from, &said, PeerQuery::any(0))
    };
    assert_eq!(one_more(ip(1), 7), Err(Refusal::TooManyAtAddress(100)));
    one_more(ip(1), 600).unwrap();
    one_more(ip(3), 7).unwrap();
}

#[test]
fn a_closed_tracker_knows_only_its_catalogue() {
    let config = RegistryConfig { open: false, ..roomy() };
    let mut f = Fixture::new(config);
    let said = announce(1, 7, 1);
    let refused = f.registry.announce(at(0), &mut f.rng, ip(1), &said, PeerQuery::any(1));
    assert_eq!(refused, Err(Refusal::NotCatalogued));
    f.registry.catalogue(at(0), hash(1), 4, 0);
    f.announce(0, ip(1), &said, 1);
    f.registry.uncatalogue(hash(1));
    assert_eq!(f.registry.stats().peers, 0);
    f.registry.check();
}

#[test]
fn what_is_known_of_a_live_peer_is_changed_by_nobody_else() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    f.announce(0, ip(1), &announce(1, 7, 9), 0);
    let report = |f: &mut Fixture, now, key: u32, bits: u8| {
        let reporter = Reporter { ip: ip(1), port: 7, key: Some(key.into()) };
        f.registry.report(at(now), hash(1), reporter, &[bits])
    };
    report(&mut f, 1, 7, 0xc0).unwrap();
    let before = the_peer(&f, 1);
    for (now, key) in [(2, Some(8)), (3, None), (100, Some(8))] {
        for event in [AnnounceEvent::Started, AnnounceEvent::Completed, AnnounceEvent::Stopped] {
            let mut other = announce(1, 7, 0);
            (other.event, other.peer_id) = (event, PeerId([9; 20]));
            other.key = key.map(AnnounceKey::Short);
            let answer = f.announce(now, ip(1), &other, 5);
            assert_eq!((answer.complete, answer.incomplete), (0, 1), "{event:?} {key:?}");
        }
    }
    assert_eq!(report(&mut f, 101, 8, 0xf0), Err(Refusal::WrongKey));
    let after = the_peer(&f, 101);
    assert_eq!((&after.held, after.source), (&before.held, before.source));
    assert_eq!((after.peer_id, after.left, after.id), (before.peer_id, before.left, before.id));
    assert_eq!(f.registry.scrape(hash(1)).unwrap().downloaded, 0);
    // Reports keep it alive, as announces do.
    report(&mut f, 150, 7, 0xe0).unwrap();
    let mut other = announce(1, 7, 0);
    (other.key, other.peer_id) = (Some(8.into()), PeerId([9; 20]));
    f.announce(300, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 300).held, Holdings::Pieces(Bitfield::from_wire(&[0xe0], 4).unwrap()));
    // It has expired: the other peer takes its place.
    f.announce(331, ip(1), &other, 0);
    let peer = the_peer(&f, 331);
    assert_eq!((peer.peer_id, peer.held), (Some(PeerId([9; 20])), Holdings::Everything));
    report(&mut f, 332, 8, 0x80).unwrap();
    assert_eq!(report(&mut f, 332, 7, 0x80), Err(Refusal::WrongKey));
    f.registry.check();
}

#[test]
fn a_long_key_takes_the_place_of_its_short_form() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    let long = AnnounceKey::Long(*b"0123456789abcdef");
    let like_it = AnnounceKey::Long(*b"0123fedcba987654");
    // Over UDP.
    let mut said = announce(1, 7, 9);
    said.key = Some(long.short().into());
    f.announce(0, ip(1), &said, 0);
    let report = |f: &mut Fixture, host, key| {
        let reporter = Reporter { ip: ip(host), port: 7, key: Some(key) };
        f.registry.report(at(1), hash(1), reporter, &[0xc0])
    };
    report(&mut f, 1, long).unwrap();
    assert_eq!(report(&mut f, 1, like_it), Err(Refusal::WrongKey));
    assert!(matches!(report(&mut f, 3, like_it), Err(Refusal::UnknownPeer(_))));
    report(&mut f, 3, long).unwrap();
    f.announce(2, ip(1), &said, 0);
    assert_eq!(report(&mut f, 1, like_it), Err(Refusal::WrongKey), "it is still known");
}

#[test]
fn short_keys_cannot_be_found_by_trying() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 4, 0);
    f.announce(0, ip(1), &announce(1, 7, 9), 0);
    let report = |f: &mut Fixture, host, key: AnnounceKey| {
        let reporter = Reporter { ip: ip(host), port: 7, key: Some(key) };
        f.registry.report(at(1), hash(1), reporter, &[0xc0])
    };
    // At its own address, and from another, where only the key identifies it.
    for host in [1, 3] {
        let refusals: Vec<_> =
            (1_000..1_100_u32).map(|key| report(&mut f, host, key.into()).unwrap_err()).collect();
        let wrong = refusals.iter().filter(|refusal| **refusal != refusals[99]).count();
        assert!(host == 3 || (wrong, &refusals[99]) == (59, &Refusal::TooManyKeys), "{wrong}");
        assert!(report(&mut f, host, 7.into()).is_err(), "nobody learns that it is right");
    }
    assert!(the_peer(&f, 1).source.is_none());
    // Announces are limited in the same way.
    let mut done = announce(1, 7, 0);
    f.announce(1, ip(1), &done, 0);
    assert_eq!(f.registry.scrape(hash(1)).unwrap().complete, 0);
    // A restarted peer has another long key, which does not count as a guess.
    f.registry.catalogue(at(0), hash(2), 4, 0);
    let mut other = announce(1, 7, 9);
    (other.info_hash, other.key) = (hash(2), Some(AnnounceKey::Long([6; 16])));
    f.announce(0, ip(5), &other, 0);
    for n in 0..100 {
        let key = AnnounceKey::Long([n; 16]);
        for host in [5, 6] {
            let reporter = Reporter { ip: ip(host), port: 7, key: Some(key) };
            let told = f.registry.report(at(1), hash(2), reporter, &[0xc0]);
            assert!(told.is_ok() == (n == 6) && !matches!(told, Err(Refusal::TooManyKeys)));
        }
    }
    other.key = Some(9.into());
    for host in [5, 6] {
        other.port = 9;
        f.announce(1, ip(host), &other, 0);
        let reporter = Reporter { ip: ip(host), port: 9, key: other.key };
        f.registry.report(at(1), hash(2), reporter, &[0xc0]).unwrap();
    }
    // A peer with a long key is not affected by guesses from its network.
    let long = AnnounceKey::Long([5; 16]);
    (done.port, done.key) = (8, Some(long));
    f.announce(1, ip(1), &done, 0);
    let reporter = Reporter { ip: ip(1), port: 8, key: Some(long) };
    f.registry.report(at(1), hash(1), reporter, &[0xc0]).unwrap();
    f.announce(1, ip(1), &done, 0);
    assert_eq!(f.registry.scrape(hash(1)).unwrap().complete, 1);
}

/// Returns an announce of a torrent that only this peer has.
fn own_torrent(n: u32) -> Announce {
    let mut said = announce(9, 6881, 1);
    said.info_hash.0[..4].copy_from_slice(&n.to_be_bytes());
    said
}

#[test]
fn one_network_opens_so_many_torrents_and_no_more() {
    let config = RegistryConfig { max_torrents_per_ip: 100, ..roomy() };
    let mut f = Fixture::new(config);
    let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
    let mut open = |from, n| {
        f.registry.announce(at(0), &mut f.rng, from, &own_torrent(n), PeerQuery::any(0)).map(drop)
    };
    for n in 0..100 {
        open(ip(1), n).unwrap();
        open(v6(n as u16), 1_000 + n).unwrap();
    }
    assert_eq!(open(ip(1), 100), Err(Refusal::TooManyTorrents(100)));
    assert_eq!(open(v6(500), 1_100), Err(Refusal::TooManyTorrents(100)), "a /64 is one");
    open(ip(1), 1_000).unwrap();
    open(ip(3), 100).unwrap();
    open(ip(1), 100).unwrap();
    for n in 2_000..2_200 {
        open([127, 0, 0, 1].into(), n).unwrap();
    }
    assert_eq!(f.expire_all(181), 403);
    f.registry.check();
    f.announce(181, ip(1), &own_torrent(7), 0);
}

#[test]
fn whoever_fills_the_table_makes_way_for_others() {
    let config = RegistryConfig { max_torrents: 1_000, ..roomy() };
    let mut f = Fixture::new(config);
    let flood = IpAddr::from([127, 0, 0, 1]);
    f.registry.catalogue(at(0), hash(1), 4, 0);
    for n in 0..5 {
        f.announce(0, ip(n), &own_torrent(u32::from(n)), 0);
    }
    for n in 1_000..20_000 {
        f.announce(0, flood, &own_torrent(n), 0);
    }
    assert_eq!(f.registry.stats().torrents, 1_000);
    for n in 0..200 {
        f.announce(1, [10, 9, 0, n].into(), &own_torrent(100 + u32::from(n)), 0);
        f.registry.check();
    }
    for n in (0..5).chain(100..300) {
        let said = own_torrent(n);
        assert!(f.registry.scrape(said.info_hash).is_some(), "{n} is still there");
    }
    assert!(f.registry.scrape(hash(1)).is_some());
    let gone = own_torrent(100).info_hash;
    assert!(f.registry.forget(gone) && !f.registry.forget(gone) && !f.registry.forget(hash(1)));
    f.registry.check();
}

#[test]
fn the_room_of_torrents_that_are_gone_is_given_back() {
    let mut f = Fixture::new(roomy());
    for n in 0..2_000_u16 {
        let mut announce = announce(1, 1_000 + n, 1);
        announce.info_hash.0[..2].copy_from_slice(&n.to_be_bytes());
        f.announce(0, ip(1), &announce, 0);
    }
    let before = f.registry.stats().peer_bytes;
    assert_eq!(f.expire_all(1_000), 2_000);
    f.registry.check();
    assert!(f.registry.torrents.capacity() < 100);
    assert!(f.registry.stats().peer_bytes < before / 20);
    f.announce(1_000, ip(1), &announce(1, 7, 1), 0);
    f.registry.check();
}
