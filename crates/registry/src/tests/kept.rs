//! Peers after a restart.

use super::*;

fn all_kept(registry: &Registry, now: u64, mut room: KeptRoom) -> Vec<KeptPeer> {
    let mut out = Vec::new();
    for of in [KeptScope::Catalogue, KeptScope::Others] {
        let mut next = Some(0);
        while let Some(from) = next {
            next = registry.kept_peers(at(now), from, of, &mut room, &mut out);
        }
    }
    out
}

const ROOM: KeptRoom = KeptRoom { peers: 1_000, bytes: 1_000 };

/// A registry after a restart.
fn restored(config: RegistryConfig, pieces: u32, now: u64, kept: &[KeptPeer]) -> (Fixture, usize) {
    let mut f = Fixture::new(config);
    f.registry.catalogue(at(now), hash(1), pieces, 0);
    let restore = |peer: &&KeptPeer| f.registry.restore_peer(at(now), &mut f.rng, peer);
    let count = kept.iter().filter(restore).count();
    f.registry.check();
    (f, count)
}

#[test]
fn a_kept_peer_at_port_0_is_not_put_back() {
    let mut f = Fixture::new(roomy());
    f.announce(10, ip(1), &announce(1, 1, 0), 0);
    let mut kept = all_kept(&f.registry, 20, ROOM);
    kept[0].addr.set_port(0);
    let (mut again, count) = restored(roomy(), 16, 20, &kept);
    assert_eq!(count, 0);
    // A peer that announces port 0 from there does not get itself.
    assert!(again.announce(21, ip(1), &announce(1, 0, 5), 9).peers.is_empty());
}

#[test]
fn a_restart_keeps_who_is_there_what_they_hold_and_their_keys() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 16, 0);
    f.announce(10, ip(1), &announce(1, 1, 0), 0);
    f.announce(20, ip(3), &announce(1, 2, 7), 0);
    f.announce(30, ip(5), &announce(2, 3, 0), 0);
    let reporter = Reporter { ip: ip(3), port: 2, key: Some(2u32.into()) };
    f.registry.report(at(25), hash(1), reporter, &[0xf0, 0x01]).unwrap();
    let kept = all_kept(&f.registry, 40, ROOM);
    assert_eq!(kept.len(), 3);

    let (mut again, count) = restored(roomy(), 16, 40, &kept);
    assert_eq!(count, 3);
    let before: Vec<_> = f.registry.peers(at(40), hash(1));
    let after: Vec<_> = again.registry.peers(at(40), hash(1));
    for (before, after) in before.iter().zip(&after) {
        let known = |p: &PeerView| {
            (p.addr, p.complete, p.peer_id, p.left, p.held.clone(), p.source, p.held_at)
        };
        assert_eq!(known(before), known(after));
    }
    assert_eq!(again.registry.availability(hash(1))[15], 2);
    // Another key changes nothing, and its own key is recognized.
    let wrong = Reporter { key: Some(9u32.into()), ..reporter };
    assert_eq!(again.registry.report(at(41), hash(1), wrong, &[0, 0]), Err(Refusal::WrongKey));
    again.registry.report(at(41), hash(1), reporter, &[0xff, 0x01]).unwrap();
    let asked = Announce { compact: false, ..announce(2, 9, 5) };
    let want = PeerQuery { ids: true, ..PeerQuery::any(9) };
    let answer = again.registry.announce(at(41), &mut again.rng, ip(0), &asked, want).unwrap();
    assert_eq!((answer.complete, answer.ids), (1, vec![Some(PeerId([3; 20]))]));
}

#[test]
fn who_would_have_expired_meanwhile_is_not_restored_and_others_expire_in_their_time() {
    let mut f = Fixture::new(roomy());
    for (now, port) in [(1_000, 1), (1_100, 2), (1_170, 3)] {
        f.announce(now, ip(1), &announce(1, port, 0), 0);
    }
    // 179 s, 79 s and 9 s ago; two more seconds pass until the restart.
    let mut kept = all_kept(&f.registry, 1_179, ROOM);
    kept.iter_mut().for_each(|peer| peer.silent += Duration::from_secs(2));
    let (mut again, count) = restored(roomy(), 4, 5_000, &kept);
    assert_eq!(count, 2);
    let given = again.announce(5_000, ip(3), &announce(1, 9, 1), 9).peers;
    assert_eq!(given.len(), 2);
    // 101 s later the second one is 182 s silent.
    let given = again.announce(5_101, ip(3), &announce(1, 9, 1), 9).peers;
    assert_eq!(given.iter().map(|peer| peer.addr.port()).collect::<Vec<_>>(), [3]);
    assert_eq!(all_kept(&again.registry, 5_101, ROOM).len(), 2, "nor is it kept once more");
}

#[test]
fn what_is_kept_is_bounded_and_the_catalogue_comes_first() {
    let mut f = Fixture::new(roomy());
    f.registry.catalogue(at(0), hash(1), 80, 0);
    for port in 1..=5 {
        f.announce(0, ip(1), &announce(2, port, 0), 0);
        f.announce(0, ip(1), &announce(1, port, 1), 0);
        let reporter = Reporter { ip: ip(1), port, key: Some(u32::from(port).into()) };
        f.registry.report(at(1), hash(1), reporter, &[0x80; 10]).unwrap();
    }
    let kept = all_kept(&f.registry, 1, KeptRoom { peers: 7, bytes: 35 });
    assert_eq!(kept.len(), 7);
    assert!(kept[..5].iter().all(|peer| peer.info_hash == hash(1)));
    let with_bits = kept.iter().filter(|peer| matches!(peer.held, KeptHoldings::Pieces(_)));
    assert_eq!(with_bits.count(), 3, "30 of 35 bytes");
    // A bitfield of another length is ignored, and a full registry accepts no more.
    let (again, count) = restored(RegistryConfig { max_peers: 6, ..roomy() }, 16, 1, &kept);
    assert_eq!(count, 6);
    assert!(again.registry.peers(at(1), hash(1)).iter().all(|peer| peer.held == Holdings::Unknown));
    let closed = RegistryConfig { open: false, ..roomy() };
    assert_eq!(restored(closed, 80, 1, &kept).1, 5, "the others are served no more");
}

#[test]
fn peers_of_before_a_restart_are_looked_at_before_all_others() {
    let mut f = Fixture::new(RegistryConfig { observe: true, ..roomy() });
    f.registry.catalogue(at(0), hash(1), 4, 0);
    for port in 1..=3 {
        f.announce(0, [10, 0, 0, 9].into(), &announce(1, port, 1), 0);
    }
    let kept = all_kept(&f.registry, 1, ROOM);
    let config = RegistryConfig { observe: true, ..roomy() };
    let (mut again, _) = restored(config, 4, 100, &kept);
    again.registry.set_observe(hash(1), true);
    again.announce(100, [10, 0, 0, 1].into(), &announce(1, 4, 1), 0);
    let (mut sightings, mut observer) =
        (Vec::new(), Observer::new(ObserverConfig::default(), Rng::from_seed(1)));
    again.registry.take_observer_events(&mut sightings);
    sightings.reverse();
    sightings.into_iter().for_each(|sighting| observer.handle(at(100), sighting));
    let mut dialled = Vec::new();
    while let Some(ObserverAction::Dial { addr, .. }) = observer.poll(at(101)) {
        dialled.push(addr.port());
    }
    assert_eq!(dialled, [1, 2, 3, 4]);
}
