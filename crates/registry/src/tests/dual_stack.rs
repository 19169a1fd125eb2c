//! A peer that announces over IPv4 and IPv6 is one peer with two addresses.

use super::*;

fn v4(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7))
}

fn v6(n: u8) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, 1], 8))
}

/// A registry with a catalogued torrent of eight pieces.
fn catalogued() -> Fixture {
    let mut f = Fixture::new(RegistryConfig { observe: true, ..roomy() });
    f.registry.catalogue(at(0), hash(1), 8, 0);
    f
}

/// Returns the announce of the peer with this number at one of its addresses.
fn said(n: u8, addr: SocketAddr, left: u64) -> Announce {
    let mut said = announce(1, addr.port(), left);
    (said.peer_id, said.key) = (PeerId([n; 20]), Some(u32::from(n).into()));
    said
}

fn tell(f: &mut Fixture, now: u64, addr: SocketAddr, said: &Announce) -> AnnounceAnswer {
    let answer = f.announce(now, addr.ip(), said, 9);
    f.registry.check();
    answer
}

fn report(f: &mut Fixture, now: u64, n: u8, addr: SocketAddr, bits: u8) {
    let reporter = Reporter { ip: addr.ip(), port: addr.port(), key: Some(u32::from(n).into()) };
    f.registry.report(at(now), hash(1), reporter, &[bits]).unwrap();
    f.registry.check();
}

fn stop(f: &mut Fixture, now: u64, n: u8, addr: SocketAddr) {
    let stop = Announce { event: AnnounceEvent::Stopped, ..said(n, addr, 9) };
    tell(f, now, addr, &stop);
}

/// Returns the addresses and holdings of each row.
fn rows(f: &Fixture, now: u64) -> Vec<(SocketAddr, Option<SocketAddr>, Holdings)> {
    let swarm = f.registry.swarm(at(now), hash(1)).unwrap();
    swarm.peers.into_iter().map(|peer| (peer.addr, peer.also, peer.held)).collect()
}

fn bits(byte: u8) -> Holdings {
    Holdings::of(Bitfield::from_wire(&[byte], 8).unwrap())
}

fn counts(f: &Fixture) -> (u32, u32) {
    let scrape = f.registry.scrape(hash(1)).unwrap();
    (scrape.complete, scrape.incomplete)
}

#[test]
fn what_is_known_over_either_address_counts_once_and_for_both() {
    let mut f = catalogued();
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    let answer = tell(&mut f, 0, v6(1), &said(1, v6(1), 9));
    assert_eq!(answer.peers, [], "it is not given its own address");
    report(&mut f, 1, 1, v6(1), 0xf0);
    assert_eq!(rows(&f, 1), [(v4(1), Some(v6(1)), bits(0xf0))]);
    report(&mut f, 2, 1, v4(1), 0xf8);
    assert_eq!(f.registry.availability(hash(1)), [1, 1, 1, 1, 1, 0, 0, 0]);
    assert_eq!(counts(&f), (0, 1));
    let swarm = f.registry.swarm(at(2), hash(1)).unwrap();
    assert_eq!(swarm.counts(), [1, 1, 1, 1, 1, 0, 0, 0]);
    for addr in [v4(1), v6(1)] {
        assert_eq!(swarm.missing(addr).unwrap().count(), 3);
        assert_eq!(swarm.without(&[addr]).lost.count(), 8);
    }
    assert_eq!(f.registry.holders(hash(1), PieceIndex(0)), [v4(1)]);
    assert_eq!(f.registry.holder_views(at(2), hash(1), PieceIndex(0)).len(), 1);
    assert_eq!(f.registry.peers(at(2), hash(1)).len(), 1);
    let by_second = |addr: SocketAddr, _: &str| addr == v6(1);
    let found = f.registry.find_peers(hash(1), 9, &mut 0, by_second);
    assert_eq!((found.len(), found[0].addr, found[0].also), (1, v4(1), Some(v6(1))));
    // It completes: announced at both addresses, this is one download.
    for addr in [v6(1), v4(1)] {
        let done = Announce { event: AnnounceEvent::Completed, ..said(1, addr, 0) };
        tell(&mut f, 3, addr, &done);
        assert_eq!(counts(&f), (1, 0));
    }
    assert_eq!(f.registry.scrape(hash(1)).unwrap().downloaded, 1);
    // Peers are handed out in each family as before, and each address has its own load.
    let answer = tell(&mut f, 4, v4(2), &said(2, v4(2), 9));
    assert_eq!(answer.peers.len(), 2);
    let peer = &f.registry.swarm(at(4), hash(1)).unwrap().peers[0];
    assert_eq!((peer.assigned.total, peer.assigned.recent), (2, 2));
    assert_eq!(f.registry.load().iter().map(|entry| entry.assigned.total).sum::<u64>(), 2);
}

#[test]
fn one_address_goes_and_the_peer_stays_with_what_it_holds() {
    for (goes, stays) in [(v4(1), v6(1)), (v6(1), v4(1))] {
        let mut f = catalogued();
        tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
        tell(&mut f, 0, v6(1), &said(1, v6(1), 9));
        report(&mut f, 1, 1, goes, 0xf0);
        let id = f.registry.swarm(at(1), hash(1)).unwrap().peers[0].id;
        f.registry.watch(at(1), hash(1));
        stop(&mut f, 2, 1, goes);
        assert_eq!(rows(&f, 2), [(stays, None, bits(0xf0))]);
        assert_eq!(counts(&f), (0, 1));
        let changes = f.registry.take_swarm_changes(at(2), hash(1)).unwrap();
        assert_eq!((changes.gone.len(), changes.peers[0].id), (0, id), "it is the same row");
        // It comes back at another address of that family.
        let elsewhere = if goes == v4(1) { v4(9) } else { v6(9) };
        tell(&mut f, 3, elsewhere, &said(1, elsewhere, 9));
        assert_eq!(rows(&f, 3), [(stays, Some(elsewhere), bits(0xf0))]);
        // Silence ends one address after the other, and then the peer.
        tell(&mut f, 100, elsewhere, &said(1, elsewhere, 9));
        f.expire_all(200);
        assert_eq!(rows(&f, 200), [(elsewhere, None, bits(0xf0))]);
        f.expire_all(300);
        f.registry.check();
        assert_eq!((rows(&f, 300).len(), counts(&f)), (0, (0, 0)));
        let gone = f.registry.take_swarm_changes(at(300), hash(1)).unwrap().gone;
        assert_eq!(gone.iter().map(|gone| Some(gone.id)).collect::<Vec<_>>(), [id]);
    }
}

#[test]
fn who_copies_an_id_neither_joins_nor_hides_the_peer_that_has_it() {
    let mut f = catalogued();
    // Other peers that know the id from a handshake: one was there before, one has no key.
    let mut copied = said(1, v6(8), 0);
    copied.key = Some(9.into());
    tell(&mut f, 0, v6(8), &copied);
    (copied.key, copied.port) = (None, 9);
    tell(&mut f, 0, v6(9), &copied);
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    report(&mut f, 1, 1, v4(1), 0x80);
    assert_eq!((rows(&f, 1).len(), counts(&f)), (3, (2, 1)));
    // They do not prevent its other address from being recognized.
    tell(&mut f, 2, v6(1), &said(1, v6(1), 9));
    assert_eq!((rows(&f, 2).len(), counts(&f)), (3, (2, 1)));
    assert!(rows(&f, 2).contains(&(v4(1), Some(v6(1)), bits(0x80))));
    // Another key at its own address changes nothing either.
    copied = Announce { key: Some(9.into()), ..said(1, v6(1), 0) };
    tell(&mut f, 3, v6(1), &copied);
    assert!(rows(&f, 3).contains(&(v4(1), Some(v6(1)), bits(0x80))));
    // Addresses that announce no key, or another peer's key, are separate peers.
    let mut f = catalogued();
    for (addr, key) in [(v4(1), None), (v6(1), None), (v4(2), Some(5)), (v6(3), Some(5))] {
        let id = if key.is_none() { 1 } else { addr.port() as u8 };
        let said = Announce { key: key.map(AnnounceKey::Short), ..said(id, addr, 9) };
        tell(&mut f, 0, addr, &said);
    }
    assert_eq!((rows(&f, 0).len(), counts(&f)), (4, (0, 4)));
}

#[test]
fn keys_cannot_be_tried_until_one_joins() {
    let mut f = catalogued();
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    for key in 1_000..1_100_u32 {
        let guess = Announce { key: Some(key.into()), ..said(1, v6(9), 9) };
        tell(&mut f, 0, v6(9), &guess);
        tell(&mut f, 0, v6(9), &Announce { event: AnnounceEvent::Stopped, ..guess });
    }
    tell(&mut f, 0, v6(9), &said(1, v6(9), 9));
    assert_eq!(rows(&f, 0).len(), 2, "nobody learns that it is right");
    // The peer itself, in another network, is not affected, nor is a peer with a long key.
    tell(&mut f, 0, v6(1), &said(1, v6(1), 9));
    assert!(rows(&f, 0).iter().any(|row| row.1 == Some(v6(1))));
    let long = |addr| Announce { key: Some(AnnounceKey::Long([2; 16])), ..said(2, addr, 9) };
    tell(&mut f, 0, v4(2), &long(v4(2)));
    let beside = SocketAddr::new([0x2001, 0xdb8, 9, 0, 0, 0, 0, 2].into(), 8);
    tell(&mut f, 0, beside, &long(beside));
    assert!(rows(&f, 0).iter().any(|row| row.1 == Some(beside)));
    // A long key at one address and its short form at the other, over UDP, are the same key.
    let short = AnnounceKey::Long([2; 16]).short().into();
    tell(&mut f, 1, beside, &Announce { event: AnnounceEvent::Stopped, ..long(beside) });
    tell(&mut f, 1, v6(2), &Announce { key: Some(short), ..long(v6(2)) });
    assert!(rows(&f, 1).iter().any(|row| row.1 == Some(v6(2))));
}

#[test]
fn a_peer_that_was_there_before_its_torrent_was_catalogued_is_one_when_it_has_announced_again() {
    let mut f = Fixture::new(roomy());
    for addr in [v4(1), v6(1)] {
        tell(&mut f, 0, addr, &said(1, addr, 0));
    }
    assert_eq!(counts(&f), (2, 0), "of others it is not known who they are");
    f.registry.catalogue(at(1), hash(1), 8, 0);
    f.registry.watch(at(1), hash(1));
    assert_eq!((counts(&f), rows(&f, 1).len()), ((2, 0), 2));
    tell(&mut f, 2, v4(1), &said(1, v4(1), 0));
    tell(&mut f, 2, v6(1), &said(1, v6(1), 0));
    assert_eq!(rows(&f, 2), [(v4(1), Some(v6(1)), Holdings::Everything)]);
    assert_eq!((counts(&f), f.registry.availability(hash(1))[0]), ((1, 0), 1));
    let gone = f.registry.take_swarm_changes(at(2), hash(1)).unwrap().gone;
    assert_eq!((gone.len(), gone[0].addr, gone[0].why), (1, v6(1), DepartureCause::Joined));
}

#[test]
fn the_second_family_of_a_start_is_no_start_of_its_own_and_another_id_is_another_peer() {
    let mut f = catalogued();
    let start = |n, addr| Announce { event: AnnounceEvent::Started, ..said(n, addr, 9) };
    tell(&mut f, 0, v4(1), &start(1, v4(1)));
    report(&mut f, 1, 1, v4(1), 0xf0);
    tell(&mut f, 2, v6(1), &start(1, v6(1)));
    assert_eq!(rows(&f, 2), [(v4(1), Some(v6(1)), bits(0xf0))]);
    // It restarts with the same id: its earlier holdings are no longer valid.
    tell(&mut f, 100, v6(1), &start(1, v6(1)));
    assert_eq!(rows(&f, 100), [(v4(1), Some(v6(1)), Holdings::Unknown)]);
    report(&mut f, 101, 1, v6(1), 0xc0);
    tell(&mut f, 102, v4(1), &start(1, v4(1)));
    assert_eq!(rows(&f, 102), [(v4(1), Some(v6(1)), bits(0xc0))]);
    // With its key and another id it is a new peer, first at one address, then at the other.
    let other = |addr| Announce { key: Some(1.into()), ..start(2, addr) };
    tell(&mut f, 103, v4(1), &other(v4(1)));
    assert_eq!(rows(&f, 103), [(v6(1), None, bits(0xc0)), (v4(1), None, Holdings::Unknown)]);
    tell(&mut f, 104, v6(1), &other(v6(1)));
    assert_eq!(rows(&f, 104), [(v4(1), Some(v6(1)), Holdings::Unknown)]);
}

#[test]
fn both_addresses_are_kept_over_a_restart() {
    let mut f = catalogued();
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    tell(&mut f, 1, v6(1), &said(1, v6(1), 9));
    report(&mut f, 2, 1, v6(1), 0xf0);
    let mut room = KeptRoom { peers: 9, bytes: 99 };
    let mut kept = Vec::new();
    f.registry.kept_peers(at(3), 0, KeptScope::Catalogue, &mut room, &mut kept);
    assert_eq!(kept.len(), 2);
    for kept in [kept.clone(), kept.into_iter().rev().collect()] {
        let mut again = catalogued();
        for peer in &kept {
            assert!(again.registry.restore_peer(at(3), &mut again.rng, peer));
            again.registry.check();
        }
        let [row] = &rows(&again, 3)[..] else { panic!("it is one peer") };
        assert_eq!((row.1.is_some(), &row.2), (true, &bits(0xf0)));
        assert_eq!(counts(&again), (0, 1));
    }
}

#[test]
fn one_connection_shows_what_a_peer_with_two_addresses_holds() {
    let mut f = catalogued();
    let may = |f: &Fixture, addr| f.registry.may_observe(hash(1), addr, ip(4));
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    tell(&mut f, 0, v6(1), &said(1, v6(1), 9));
    f.registry.take_observer_events(&mut Vec::new());
    assert_eq!((may(&f, v4(1)), may(&f, v6(1))), (Ok(()), Ok(())));
    let id = PeerId([1; 20]);
    f.registry.observing(at(1), hash(1), v6(1), id).unwrap();
    // A second visit that was under way ends.
    assert_eq!(f.registry.observing(at(1), hash(1), v4(1), id), Err(VisitEnd::Elsewhere));
    f.registry.visit_ended(hash(1), v4(1), VisitEnd::Elsewhere);
    assert_eq!((may(&f, v4(1)), may(&f, v6(1))), (Err(VisitEnd::Elsewhere), Ok(())));
    assert_eq!(f.registry.swarm(at(1), hash(1)).unwrap().observed, 1);
    let seen = vec![HoldingsUpdate::Only(Bitfield::from_wire(&[0xf0], 8).unwrap())];
    f.registry.observed(at(2), hash(1), v6(1), seen).unwrap();
    let got = vec![HoldingsUpdate::Piece(PieceIndex(7))];
    f.registry.observed(at(3), hash(1), v6(1), got).unwrap();
    assert_eq!(rows(&f, 3), [(v4(1), Some(v6(1)), bits(0xf1))]);
    // It accepts connections if it does at either address.
    f.registry.checked(hash(1), v4(1), false);
    let reachable = |f: &Fixture| f.registry.peers(at(3), hash(1))[0].reachable;
    assert_eq!(reachable(&f), None);
    f.registry.checked(hash(1), v6(1), false);
    assert_eq!(reachable(&f), Some(false));
    f.registry.checked(hash(1), v6(1), true);
    assert_eq!(reachable(&f), Some(true));
    // The observed address is gone: the other one is visited now.
    f.registry.take_observer_events(&mut Vec::new());
    assert!(f.registry.unreachable(hash(1), v6(1)));
    f.registry.check();
    let mut sightings = Vec::new();
    f.registry.take_observer_events(&mut sightings);
    let left = ObserverEvent::Left { info_hash: hash(1), addr: v6(1) };
    assert_eq!((sightings.len(), sightings[0]), (2, left));
    assert!(matches!(sightings[1], ObserverEvent::Here { addr, stale: true, .. } if addr == v4(1)));
    assert_eq!(may(&f, v4(1)), Ok(()));
}

#[test]
fn a_leave_without_a_port_finds_either_address() {
    let mut f = catalogued();
    tell(&mut f, 0, v4(1), &said(1, v4(1), 9));
    tell(&mut f, 0, v6(1), &said(1, v6(1), 9));
    let stop = Announce { event: AnnounceEvent::Stopped, port: 0, ..said(1, v6(1), 9) };
    tell(&mut f, 1, v6(1), &stop);
    assert_eq!(rows(&f, 1), [(v4(1), None, Holdings::Unknown)]);
}

#[derive(Debug, Clone)]
enum Deed {
    Announce { peer: usize, second: bool, left: u64 },
    Stop { peer: usize, second: bool },
    Report { peer: usize, second: bool, bits: u8 },
    Lost { peer: usize, second: bool },
    Pass(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let who = || (0..MODELS.len(), any::<bool>());
    let deed = prop_oneof![
        8 => (who(), 0..2u64)
            .prop_map(|((peer, second), left)| Deed::Announce { peer, second, left }),
        1 => who().prop_map(|(peer, second)| Deed::Stop { peer, second }),
        4 => (who(), any::<u8>())
            .prop_map(|((peer, second), bits)| Deed::Report { peer, second, bits }),
        1 => who().prop_map(|(peer, second)| Deed::Lost { peer, second }),
        2 => (1..90u64).prop_map(Deed::Pass),
    ];
    proptest::collection::vec(deed, 1..120)
}

/// Peers of a naive model: the id and key that each shows at its two addresses. The last three are
/// two strangers each, of whom one has copied the id of the first peer.
const MODELS: [[(u8, Option<u32>); 2]; 6] = [
    [(1, Some(1)), (1, Some(1))],
    [(2, Some(2)), (2, Some(2))],
    [(3, Some(3)), (3, Some(3))],
    [(1, Some(4)), (4, Some(4))],
    [(5, Some(5)), (1, None)],
    [(6, Some(1)), (1, Some(6))],
];

/// Identifies a peer of the model: a peer with two addresses, or another one at one of them.
fn identity(peer: usize, second: bool) -> (usize, bool) {
    (peer, peer >= 3 && second)
}

/// A peer of the model: when it was last heard from at each address, and what it holds.
#[derive(Default, Clone)]
struct Naive {
    seen: BTreeMap<SocketAddr, u64>,
    complete: bool,
    held: Option<(HoldingsSource, u8)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn copies_are_those_of_a_naive_model_with_peers_of_one_and_of_two_families(deeds in deeds()) {
        let mut f = catalogued();
        let mut model: BTreeMap<(usize, bool), Naive> = BTreeMap::new();
        let mut now = 0;
        for deed in deeds {
            let addr = |peer: usize, second| {
                if second { v6(peer as u8) } else { v4(peer as u8) }
            };
            match deed {
                Deed::Announce { peer, second, left } => {
                    let addr = addr(peer, second);
                    let (id, key) = MODELS[peer][usize::from(second)];
                    let told = Announce { key: key.map(AnnounceKey::Short), ..said(id, addr, left) };
                    f.announce(now, addr.ip(), &told, 2);
                    let it = model.entry(identity(peer, second)).or_default();
                    it.seen.insert(addr, now);
                    it.complete = left == 0;
                    it.held = match (left, it.held) {
                        (0, Some((source, 0xff))) => Some((source, 0xff)),
                        (0, _) => Some((HoldingsSource::Announced, 0xff)),
                        (_, Some((HoldingsSource::Announced, _))) => None,
                        (_, held) => held,
                    };
                }
                Deed::Stop { peer, second } => {
                    let addr = addr(peer, second);
                    let (id, key) = MODELS[peer][usize::from(second)];
                    let event = AnnounceEvent::Stopped;
                    let key = key.map(AnnounceKey::Short);
                    f.announce(now, addr.ip(), &Announce { event, key, ..said(id, addr, 9) }, 0);
                    model.entry(identity(peer, second)).or_default().seen.remove(&addr);
                }
                Deed::Report { peer, second, bits } => {
                    let addr = addr(peer, second);
                    let key = MODELS[peer][usize::from(second)].1.map(AnnounceKey::Short);
                    let reporter = Reporter { ip: addr.ip(), port: addr.port(), key };
                    let it = model.entry(identity(peer, second)).or_default();
                    // A peer that is not listed could be identified only by its key.
                    if it.seen.contains_key(&addr) {
                        f.registry.report(at(now), hash(1), reporter, &[bits]).unwrap();
                        it.held = Some((HoldingsSource::Reported, bits));
                    }
                }
                Deed::Lost { peer, second } => {
                    let addr = addr(peer, second);
                    f.registry.unreachable(hash(1), addr);
                    model.entry(identity(peer, second)).or_default().seen.remove(&addr);
                }
                Deed::Pass(seconds) => {
                    now += seconds;
                    f.expire_all(now);
                    for it in model.values_mut() {
                        it.seen.retain(|_, seen| now - *seen <= 180);
                    }
                }
            }
            model.retain(|_, it| !it.seen.is_empty());
            f.registry.check();
            let holders = |piece: u32| {
                let holds = |it: &&Naive| it.held.is_some_and(|(_, bits)| bits & (0x80 >> piece) != 0);
                model.values().filter(holds).count() as u32
            };
            let holders: Vec<u32> = (0..8).map(holders).collect();
            let swarm = f.registry.swarm(at(now), hash(1)).unwrap();
            prop_assert_eq!(swarm.counts(), &holders[..]);
            prop_assert_eq!(swarm.copies, Copies::of(&holders, 0));
            prop_assert_eq!(f.registry.availability(hash(1)), holders);
            let complete = model.values().filter(|it| it.complete).count();
            prop_assert_eq!(counts(&f), (complete as u32, (model.len() - complete) as u32));
            let mut shown: Vec<Vec<SocketAddr>> = rows(&f, now).into_iter()
                .map(|(addr, also, _)| [addr].into_iter().chain(also).collect())
                .collect();
            shown.iter_mut().for_each(|row| row.sort_unstable());
            shown.sort_unstable();
            let mut expected: Vec<Vec<SocketAddr>> =
                model.values().map(|it| it.seen.keys().copied().collect()).collect();
            expected.sort_unstable();
            prop_assert_eq!(shown, expected);
        }
    }
}
