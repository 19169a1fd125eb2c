//! Holdings read from connections to peers, and events for the observer.

use super::*;

/// A torrent of eight pieces whose peer at port 7 has announced that `left` bytes are left.
fn observed(left: u64) -> (Fixture, SocketAddr) {
    let mut f = Fixture::new(RegistryConfig { observe: true, ..roomy() });
    f.registry.catalogue(at(0), hash(1), 8, 0);
    f.announce(0, ip(1), &announce(1, 7, left), 0);
    let addr = SocketAddr::new(ip(1), 7);
    f.registry.observing(at(0), hash(1), addr, PeerId([7; 20])).unwrap();
    (f, addr)
}

fn see(f: &mut Fixture, now: u64, addr: SocketAddr, seen: HoldingsUpdate) {
    f.registry.observed(at(now), hash(1), addr, vec![seen]).unwrap();
    f.registry.check();
}

fn bits(byte: u8) -> Bitfield {
    Bitfield::from_wire(&[byte], 8).unwrap()
}

#[test]
fn what_is_observed_goes_above_what_is_announced_and_below_what_is_reported() {
    let (mut f, addr) = observed(0);
    let peer = the_peer(&f, 0);
    assert_eq!((peer.held, peer.source), (Holdings::Everything, Some(HoldingsSource::Announced)));
    // A super-seeder shows nothing at first.
    see(&mut f, 1, addr, HoldingsUpdate::Only(bits(0)));
    see(&mut f, 2, addr, HoldingsUpdate::Piece(PieceIndex(3)));
    let peer = the_peer(&f, 2);
    assert_eq!(
        (&peer.held, peer.source),
        (&Holdings::Pieces(bits(0x10)), Some(HoldingsSource::Observed))
    );
    assert!(!peer.sure, "it says that nothing is left to get");
    f.announce(3, ip(1), &announce(1, 7, 0), 0);
    assert_eq!(the_peer(&f, 3).held, Holdings::Pieces(bits(0x10)));
    let reporter = Reporter { ip: ip(1), port: 7, key: Some(7.into()) };
    f.registry.report(at(4), hash(1), reporter, &[0xf0]).unwrap();
    see(&mut f, 5, addr, HoldingsUpdate::Only(bits(0xff)));
    let peer = the_peer(&f, 5);
    assert_eq!(
        (peer.held, peer.source),
        (Holdings::Pieces(bits(0xf0)), Some(HoldingsSource::Reported))
    );
}

#[test]
fn a_bitfield_replaces_and_a_late_one_adds() {
    let (mut f, addr) = observed(9);
    see(&mut f, 1, addr, HoldingsUpdate::Only(bits(0x0f)));
    see(&mut f, 2, addr, HoldingsUpdate::Also(bits(0x18)));
    see(&mut f, 3, addr, HoldingsUpdate::Piece(PieceIndex(0)));
    assert_eq!(the_peer(&f, 3).held, Holdings::Pieces(bits(0x9f)));
    assert!(the_peer(&f, 3).sure);
    see(&mut f, 4, addr, HoldingsUpdate::Also(bits(0x60)));
    assert_eq!(the_peer(&f, 4).held, Holdings::Everything);
    see(&mut f, 5, addr, HoldingsUpdate::Only(bits(0x01)));
    assert_eq!(the_peer(&f, 5).held, Holdings::Pieces(bits(0x01)));
    assert_eq!(
        f.registry.swarm(at(5), hash(1)).unwrap().copies,
        Copies { whole: 0, more: 1, pieces: 8 }
    );
}

#[test]
fn what_a_connection_shows_holds_however_often_the_peer_starts_to_announce() {
    let (mut f, addr) = observed(9);
    see(&mut f, 1, addr, HoldingsUpdate::Only(bits(0x0f)));
    let mut started = announce(1, 7, 9);
    started.event = AnnounceEvent::Started;
    f.announce(2, ip(1), &started, 0);
    assert_eq!(the_peer(&f, 2).held, Holdings::Pieces(bits(0x0f)));
    // Nothing is known of another peer in its place, nor of the same peer without a connection.
    let mut other = started.clone();
    other.peer_id = PeerId([8; 20]);
    f.announce(3, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 3).held, Holdings::Unknown);
    f.registry.observed_last(hash(1), addr);
    see(&mut f, 4, addr, HoldingsUpdate::Only(bits(0x0f)));
    f.announce(5, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 5).held, Holdings::Unknown);
}

/// The ids of libtorrent: one for trackers, others for connections.
#[test]
fn a_peer_with_another_id_on_its_connections_is_the_same_peer() {
    let (mut f, addr) = observed(9);
    f.registry.observing(at(1), hash(1), addr, PeerId([200; 20])).unwrap();
    see(&mut f, 1, addr, HoldingsUpdate::Only(bits(0xf0)));
    let mut started = announce(1, 7, 9);
    started.event = AnnounceEvent::Started;
    f.announce(2, ip(1), &started, 0);
    assert_eq!(the_peer(&f, 2).held, Holdings::Pieces(bits(0xf0)));
    // It announces completion before its last messages were read.
    f.announce(3, ip(1), &announce(1, 7, 0), 0);
    for piece in 4..8 {
        see(&mut f, 4, addr, HoldingsUpdate::Piece(PieceIndex(piece)));
    }
    let peer = the_peer(&f, 4);
    assert_eq!((peer.held, peer.source), (Holdings::Everything, Some(HoldingsSource::Observed)));
}

#[test]
fn to_a_peer_that_says_it_has_everything_a_piece_adds_nothing() {
    let (mut f, addr) = observed(0);
    for seen in [HoldingsUpdate::Piece(PieceIndex(3)), HoldingsUpdate::Also(bits(0x18))] {
        see(&mut f, 1, addr, seen);
        let peer = the_peer(&f, 1);
        assert_eq!(
            (peer.held, peer.source),
            (Holdings::Everything, Some(HoldingsSource::Announced))
        );
    }
}

#[test]
fn a_peer_closes_at_the_handshake_until_it_is_known_to_do_something_else() {
    let (mut f, addr) = observed(9);
    let closes = |f: &Fixture| the_peer(f, 1).closes_at_handshake;
    let ended = |f: &mut Fixture, end| f.registry.visit_ended(hash(1), addr, end);
    f.registry.watch(at(0), hash(1));
    ended(&mut f, VisitEnd::Closed);
    assert!(!closes(&f));
    for end in [VisitEnd::Refused, VisitEnd::Unanswered, VisitEnd::Declined] {
        ended(&mut f, VisitEnd::HungUp);
        let changes = f.registry.take_swarm_changes(at(1), hash(1)).unwrap();
        assert!(changes.peers[0].closes_at_handshake, "who watches hears of it");
        ended(&mut f, VisitEnd::Probed);
        assert!(closes(&f), "nothing was said");
        ended(&mut f, end);
        assert!(!closes(&f));
    }
    ended(&mut f, VisitEnd::HungUp);
    f.registry.observing(at(1), hash(1), addr, PeerId([7; 20])).unwrap();
    assert!(!closes(&f), "it takes our handshake");
    ended(&mut f, VisitEnd::HungUp);
    let reporter = Reporter { ip: ip(1), port: 7, key: Some(7.into()) };
    f.registry.report(at(1), hash(1), reporter, &[0xc0]).unwrap();
    assert!(!closes(&f), "what it holds is known without a visit");
}

#[test]
fn a_peer_seen_alive_outlives_its_announce_but_not_for_ever() {
    let (mut f, addr) = observed(9);
    for now in (100..=1_800).step_by(100) {
        assert!(f.registry.alive(at(now), hash(1), addr));
        assert_eq!(f.expire_all(now), 0);
    }
    for now in (1_900..2_100).step_by(100) {
        f.registry.alive(at(now), hash(1), addr);
        f.expire_all(now);
    }
    assert_eq!(f.registry.stats().peers, 0);
    assert!(!f.registry.alive(at(2_100), hash(1), addr));
}

#[test]
fn an_unreachable_peer_is_off_the_list_and_its_load_is_remembered() {
    let (mut f, addr) = observed(0);
    f.announce(1, ip(3), &announce(1, 9, 5), 5);
    f.registry.watch(at(1), hash(1));
    assert!(f.registry.unreachable(hash(1), addr));
    assert!(!f.registry.unreachable(hash(1), addr));
    let gone = f.registry.take_swarm_changes(at(1), hash(1)).unwrap().gone;
    assert_eq!((gone[0].addr, gone[0].why), (addr, DepartureCause::Unreachable));
    assert_eq!(f.registry.stats().unreachable, 1);
    assert_eq!(f.registry.load().len(), 1);
    f.announce(2, ip(1), &announce(1, 7, 0), 0);
    assert!(f.registry.swarm(at(2), hash(1)).unwrap().peers.iter().all(|peer| peer.id != Some(1)));
    f.registry.check();
}

#[test]
fn nobody_is_observed_where_that_would_keep_others_away() {
    let (mut f, addr) = observed(9);
    let other = SocketAddr::new(ip(3), 8);
    f.announce(0, ip(3), &announce(1, 8, 9), 0);
    let may = |f: &Fixture, addr, from| f.registry.may_observe(hash(1), addr, from).is_ok();
    assert!(may(&f, addr, ip(4)) && may(&f, other, ip(4)));
    assert!(may(&f, addr, ip(1)), "its own address is no other peer");
    let refused = f.registry.may_observe(hash(1), addr, ip(3));
    assert_eq!(refused, Err(VisitEnd::NoRoom), "another peer has that address");
    f.announce(0, ip(2), &announce(1, 9, 9), 0);
    let beside = IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, 7]);
    assert!(may(&f, addr, beside) && !may(&f, addr, ip(2)), "a network is not an address");
    let mut ours = announce(1, 7, 9);
    ours.peer_id.0[..8].copy_from_slice(PeerId::PREFIX);
    f.announce(0, ip(1), &ours, 0);
    assert!(may(&f, addr, ip(3)), "this one takes several from one address");
    f.registry.set_observe(hash(1), false);
    assert!(!may(&f, addr, ip(4)));
}

#[test]
fn who_is_not_to_be_observed_is_not_waited_for() {
    let (mut f, addr) = observed(9);
    let unlisted = Err(VisitEnd::Unlisted);
    let may = |f: &Fixture, addr| f.registry.may_observe(hash(1), addr, ip(4));
    assert_eq!((may(&f, addr), may(&f, SocketAddr::new(ip(3), 8))), (Ok(()), unlisted));
    f.registry.set_observe(hash(1), false);
    assert_eq!(may(&f, addr), unlisted);
    f.registry.set_observe(hash(1), true);
    f.registry.uncatalogue(hash(1));
    assert_eq!(may(&f, addr), unlisted, "its torrent is out of the catalogue");
}

#[test]
fn sightings_are_told_of_catalogued_torrents_that_may_be_observed() {
    let (mut f, addr) = observed(0);
    let mut seen = Vec::new();
    f.registry.take_observer_events(&mut seen);
    let info_hash = hash(1);
    let peer_id = PeerId([7; 20]);
    let here = ObserverEvent::Here {
        info_hash,
        addr,
        peer_id,
        complete: true,
        reports: false,
        stale: false,
        restored: None,
    };
    assert_eq!(seen, [here]);
    f.announce(1, ip(1), &announce(1, 7, 0), 0);
    f.announce(1, ip(1), &announce(2, 7, 0), 0);
    seen.clear();
    f.registry.take_observer_events(&mut seen);
    assert!(seen.is_empty(), "who is connected to, or not catalogued, is no news: {seen:?}");
    f.registry.unreachable(hash(1), addr);
    f.registry.take_observer_events(&mut seen);
    assert_eq!(seen, [ObserverEvent::Left { info_hash, addr }]);
}

#[test]
fn a_late_listener_and_one_with_too_much_to_hear_look_at_the_whole() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 200_000, 0);
    f.announce(0, ip(1), &announce(1, 1, 9), 0);
    f.announce(0, ip(1), &announce(1, 2, 9), 0);
    assert!(f.registry.take_swarm_changes(at(0), hash(1)).is_none(), "nobody listens");
    f.registry.watch(at(0), hash(1));
    let report = |f: &mut Fixture, byte: u8| {
        let reporter = Reporter { ip: ip(1), port: 1, key: Some(1.into()) };
        f.registry.report(at(1), hash(1), reporter, &[byte; 25_000]).unwrap();
    };
    report(&mut f, 0x80);
    assert_eq!(f.registry.take_swarm_changes(at(1), hash(1)).unwrap().peers.len(), 1);
    report(&mut f, 0xc0);
    assert_eq!(
        f.registry.take_swarm_changes(at(1), hash(1)).unwrap().grown[0].pieces.len(),
        25_000
    );
    report(&mut f, 0xff);
    let whole = f.registry.take_swarm_changes(at(1), hash(1)).unwrap();
    assert!(!whole.all && whole.peers[0].held == Holdings::Everything, "one row says it shorter");
    report(&mut f, 0x01);
    report(&mut f, 0x7f);
    report(&mut f, 0x7f);
    assert_eq!(f.registry.take_swarm_changes(at(1), hash(1)).unwrap().peers.len(), 1);
    report(&mut f, 0xf7);
    report(&mut f, 0xff);
    f.registry.unwatch(hash(1));
    assert!(f.registry.take_swarm_changes(at(1), hash(1)).is_none());
    f.registry.check();
}

#[test]
fn the_rate_of_a_peer_tells_when_it_is_done() {
    let (mut f, addr) = observed(9);
    see(&mut f, 0, addr, HoldingsUpdate::Only(bits(0)));
    for second in 1..=6 {
        see(&mut f, second, addr, HoldingsUpdate::Piece(PieceIndex(second as u32)));
    }
    let peer = the_peer(&f, 6);
    assert!((peer.rate.unwrap() - 1.0).abs() < 0.1, "{:?}", peer.rate);
    assert_eq!(peer.eta.unwrap().as_secs_f64().round(), 2.0);
    assert_eq!(f.registry.swarm(at(600), hash(1)).unwrap().peers[0].eta, None);
}
