use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::{Bitfield, PeerId, PieceIndex, Rng};

/// Many peers of one address in each torrent.
fn roomy() -> RegistryConfig {
    RegistryConfig { max_peers_per_ip: 1_000, ..RegistryConfig::default() }
}

fn hash(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

fn ip(n: u8) -> IpAddr {
    if n % 3 == 2 {
        IpAddr::from([0x2001, 0xdb8, n as u16, 0, 0, 0, 0, 1])
    } else {
        [10, 0, 0, n].into()
    }
}

fn announce(torrent: u8, port: u16, left: u64) -> Announce {
    let mut announce = Announce::new(hash(torrent), PeerId([port as u8; 20]), port, left);
    announce.key = Some(u32::from(port).into());
    announce
}

struct Fixture {
    registry: Registry,
    rng: Rng,
}

impl Fixture {
    fn new(config: RegistryConfig) -> Self {
        Self { registry: Registry::new(config, 3), rng: Rng::from_seed(5) }
    }

    fn announce(&mut self, now: u64, from: IpAddr, announce: &Announce, want: usize) -> Answer {
        let answer =
            self.registry.announce(at(now), &mut self.rng, from, announce, Want::any(want));
        answer.unwrap()
    }

    /// To the end of the round under way, and one whole round.
    fn expire_all(&mut self, now: u64) -> usize {
        let (mut gone, mut rounds) = (0, 0);
        while rounds < 2 {
            let done = self.registry.expire(at(now), 100);
            gone += done.peers;
            rounds += usize::from(done.round_done);
        }
        gone
    }
}

#[derive(Debug, Clone)]
enum Op {
    Announce { torrent: u8, ip: u8, port: u16, left: u64, event: u8, want: usize },
    Pass(u64),
    Expire(usize),
    Catalogue(u8),
    Uncatalogue(u8),
    Report { torrent: u8, ip: u8, port: u16, key: Option<u32>, bits: u8 },
    Observe { torrent: u8, ip: u8, port: u16, how: u8, bits: u8 },
    Watch { torrent: u8, take: bool },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let torrent = 0..3u8;
    let host = 0..8u8;
    let port = 1..8u16;
    let op = prop_oneof![
        12 => (torrent.clone(), host.clone(), port.clone(), 0..2u64, 0..8u8, 0..12usize).prop_map(
            |(torrent, ip, port, left, event, want)| Op::Announce { torrent, ip, port, left, event, want }
        ),
        2 => (1..100u64).prop_map(Op::Pass),
        2 => (1..40usize).prop_map(Op::Expire),
        1 => torrent.clone().prop_map(Op::Catalogue),
        1 => torrent.clone().prop_map(Op::Uncatalogue),
        3 => (torrent.clone(), host.clone(), port.clone(), 0..7u8, any::<u8>()).prop_map(
            |(torrent, ip, port, how, bits)| Op::Observe { torrent, ip, port, how, bits }
        ),
        1 => (torrent.clone(), any::<bool>()).prop_map(|(torrent, take)| Op::Watch { torrent, take }),
        2 => (torrent, host, port.clone(), proptest::option::of(port.prop_map(u32::from)), any::<u8>())
            .prop_map(|(torrent, ip, port, key, bits)| Op::Report { torrent, ip, port, key, bits }),
    ];
    proptest::collection::vec(op, 1..300)
}

/// The same thing with nothing clever in it.
#[derive(Default)]
struct Model {
    peers: BTreeMap<(u8, SocketAddr), (bool, u64)>,
    downloads: BTreeMap<u8, u32>,
}

impl Model {
    fn counts(&self, torrent: u8) -> (u32, u32) {
        let of = |complete| {
            self.peers.iter().filter(|((t, _), (c, _))| *t == torrent && *c == complete).count()
        };
        (of(true) as u32, of(false) as u32)
    }
}

fn standing(registry: &Registry, info_hash: InfoHash, addr: SocketAddr) -> Standing {
    let torrent = &registry.torrents[registry.find(info_hash).unwrap()];
    torrent.standing(torrent.find(addr.ip(), addr.port(), &registry.hasher).unwrap())
}

fn holdings_of(swarm: &SwarmView) -> BTreeMap<u64, Held> {
    swarm.peers.iter().map(|peer| (peer.id.unwrap(), peer.held.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn registry_agrees_with_a_naive_model(ops in ops()) {
        let mut real = Fixture::new(roomy());
        let mut model = Model::default();
        // What somebody who listens takes each torrent's peers to hold.
        let mut mirrors: BTreeMap<u8, Option<BTreeMap<u64, Held>>> = BTreeMap::new();
        let mut now = 1_000;
        for op in ops {
            match op {
                Op::Announce { torrent, ip: host, port, left, event, want } => {
                    let mut said = announce(torrent, port, left);
                    said.event = match event {
                        0 => AnnounceEvent::Stopped,
                        1 => AnnounceEvent::Completed,
                        2 => AnnounceEvent::Started,
                        _ => AnnounceEvent::None,
                    };
                    let addr = SocketAddr::new(ip(host), port);
                    let recent: BTreeMap<SocketAddr, u16> = real.registry.peers(at(now), hash(torrent))
                        .into_iter().map(|peer| (peer.addr, peer.assigned.recent)).collect();
                    let standings: BTreeMap<SocketAddr, Standing> = recent.keys()
                        .map(|addr| (*addr, standing(&real.registry, hash(torrent), *addr))).collect();
                    let halves = real.registry.find(hash(torrent)).is_some_and(|slot| {
                        let since = real.registry.torrents[slot].halved_at;
                        tick_of(at(now)).0 - since.0 >= 16 * 600
                    });
                    let answer = real.announce(now, ip(host), &said, want);
                    if said.event == AnnounceEvent::Stopped {
                        model.peers.remove(&(torrent, addr));
                        prop_assert!(answer.peers.is_empty());
                    } else {
                        let before = model.peers.insert((torrent, addr), (left == 0, now));
                        if event == 1 && left == 0 && !before.is_some_and(|(complete, _)| complete) {
                            *model.downloads.entry(torrent).or_default() += 1;
                        }
                        let useful: BTreeMap<SocketAddr, bool> = model.peers.iter()
                            .filter(|((t, a), (complete, seen))| {
                                *t == torrent && *a != addr && now - seen <= 180
                                    && !(left == 0 && *complete)
                            })
                            .map(|((_, a), (complete, _))| (*a, *complete))
                            .collect();
                        prop_assert_eq!(answer.peers.len(), want.min(useful.len()));
                        let mut unique: Vec<_> = answer.peers.iter().map(|peer| peer.addr).collect();
                        unique.sort_unstable();
                        unique.dedup();
                        prop_assert_eq!(unique.len(), answer.peers.len());
                        for peer in &answer.peers {
                            prop_assert_eq!(useful.get(&peer.addr), Some(&peer.complete));
                        }
                        prop_assert!(answer.peers.is_sorted_by_key(|peer| !peer.complete));
                        let complete = |all: bool| useful.iter().filter(move |(_, c)| **c == all).count();
                        let given = answer.peers.iter().filter(|peer| peer.complete).count();
                        // A quarter may be others, if there are so many.
                        let others = (want / 4).min(complete(false));
                        prop_assert_eq!(given, complete(true).min(want - others));
                        if !halves {
                            // No complete peer left out has been handed out less than one handed out.
                            let load = |a: &SocketAddr| recent.get(a).copied().unwrap_or(0);
                            for of in [Standing::Seen, Standing::Unchecked, Standing::Refused] {
                                let is = |a: &SocketAddr| standings.get(a) == Some(&of);
                                let worst = answer.peers.iter().filter(|p| p.complete && is(&p.addr))
                                    .map(|p| load(&p.addr)).max();
                                let best_left = useful.iter()
                                    .filter(|(a, c)| **c && !unique.contains(a) && is(a))
                                    .map(|(a, _)| load(a)).min();
                                if let (Some(worst), Some(best)) = (worst, best_left) {
                                    prop_assert!(worst <= best);
                                }
                            }
                        }
                    }
                    prop_assert_eq!((answer.complete, answer.incomplete), model.counts(torrent));
                }
                Op::Pass(seconds) => now += seconds,
                Op::Expire(budget) => {
                    let done = real.registry.expire(at(now), budget);
                    prop_assert!(done.looked <= budget);
                    // A partial walk may take any of the silent; the model follows it.
                    let here: Vec<_> = (0..3).flat_map(|torrent| {
                        let slot = real.registry.find(hash(torrent));
                        let slot = slot.map(|slot| &real.registry.torrents[slot]);
                        slot.into_iter().flat_map(move |t| {
                            t.v4.iter().map(|(p, _)| p.addr()).chain(t.v6.iter().map(|(p, _)| p.addr()))
                                .map(move |a| (torrent, a)).collect::<Vec<_>>()
                        })
                    }).collect();
                    let before = model.peers.len();
                    model.peers.retain(|key, (_, seen)| here.contains(key) || now - *seen <= 180);
                    prop_assert_eq!(before - model.peers.len(), done.peers);
                    prop_assert_eq!(model.peers.len(), here.len());
                }
                Op::Catalogue(torrent) => real.registry.catalogue(at(now), hash(torrent), 8, 0),
                Op::Uncatalogue(torrent) => {
                    real.registry.uncatalogue(hash(torrent));
                    mirrors.remove(&torrent);
                }
                Op::Report { torrent, ip: host, port, key, bits } => {
                    let reporter = Reporter { ip: ip(host), port, key: key.map(Into::into) };
                    let taken = real.registry.report(at(now), hash(torrent), reporter, &[bits]);
                    if taken.is_ok() && key.is_some_and(|key| key != u32::from(port)) {
                        prop_assert!(false, "a wrong key was taken");
                    }
                }
                Op::Observe { torrent, ip: host, port, how, bits } => {
                    let (torrent, addr) = (hash(torrent), SocketAddr::new(ip(host), port));
                    let bitfield = Bitfield::from_wire(&[bits], 8).unwrap();
                    let seen = match how {
                        0 => Seen::Everything,
                        1 => Seen::Only(bitfield),
                        2 => Seen::Also(bitfield),
                        3 => Seen::Piece(PieceIndex(u32::from(bits) % 8)),
                        4 => {
                            real.registry.observing(at(now), torrent, addr, PeerId([port as u8; 20]));
                            continue;
                        }
                        5 => {
                            real.registry.observed_last(torrent, addr);
                            continue;
                        }
                        6 if bits % 2 == 0 => {
                            real.registry.checked(torrent, addr, bits % 4 == 0);
                            continue;
                        }
                        _ => {
                            let is_there = real.registry.unreachable(torrent, addr);
                            let key = model.peers.keys().find(|(t, a)| hash(*t) == torrent && *a == addr);
                            prop_assert_eq!(is_there, key.is_some());
                            key.copied().map(|key| model.peers.remove(&key));
                            continue;
                        }
                    };
                    let _ = real.registry.observed(at(now), torrent, addr, vec![seen]);
                }
                Op::Watch { torrent, take: false } => _ = real.registry.watch(at(now), hash(torrent)),
                Op::Watch { torrent, take: true } => {
                    let changes = real.registry.take_swarm_changes(at(now), hash(torrent));
                    let mirror = mirrors.entry(torrent).or_default();
                    match (changes, real.registry.swarm(at(now), hash(torrent))) {
                        (Some(changes), Some(swarm)) if mirror.is_some() => {
                            let mirror = mirror.as_mut().unwrap();
                            changes.gone.iter().for_each(|gone| _ = mirror.remove(&gone.id));
                            for peer in changes.peers {
                                mirror.insert(peer.id.unwrap(), peer.held);
                            }
                            for grown in changes.grown {
                                let held = mirror.get_mut(&grown.id).unwrap();
                                let Held::Pieces(bits) = held else { panic!("{held:?} grows") };
                                grown.pieces.iter().for_each(|piece| assert!(bits.insert(*piece)));
                                if bits.is_full() {
                                    *held = Held::Everything;
                                }
                            }
                            prop_assert_eq!(&*mirror, &holdings_of(&swarm));
                        }
                        (Some(_), Some(swarm)) => *mirror = Some(holdings_of(&swarm)),
                        _ => *mirror = None,
                    }
                }
            }
            real.registry.check();
        }
        real.expire_all(now);
        model.peers.retain(|_, (_, seen)| now - *seen <= 180);
        prop_assert_eq!(real.registry.stats().peers, model.peers.len());
        real.expire_all(now + 1_000);
        prop_assert_eq!(real.registry.stats().peers, 0);
        real.registry.check();
    }
}

#[test]
fn a_thousand_peers_on_one_torrent_and_ten_thousand_torrents_all_expire() {
    let mut f = Fixture::new(roomy());
    for port in 1..=1_000 {
        let answer =
            f.announce(0, [10, 0, 0, 1].into(), &announce(1, port, u64::from(port % 2)), 50);
        assert_eq!(answer.peers.len(), usize::from(port - 1).min(50).min(answer.peers.len()));
    }
    for n in 0..10_000u32 {
        let mut said = announce(2, 6881, 1);
        said.info_hash.0[..4].copy_from_slice(&n.to_be_bytes());
        f.announce(0, [10, 1, 0, 1].into(), &said, 50);
    }
    assert_eq!(f.registry.stats().torrents, 10_001);
    assert_eq!(f.expire_all(180), 0);
    assert_eq!(f.announce(180, ip(1), &announce(3, 1, 1), 50).incomplete, 1);
    assert_eq!(f.expire_all(181), 11_000);
    assert_eq!((f.registry.stats().torrents, f.registry.stats().peers), (1, 1));
    f.registry.check();
}

#[test]
fn a_silent_peer_is_not_handed_out_even_before_it_is_swept() {
    let mut f = Fixture::new(roomy());
    f.announce(0, ip(1), &announce(1, 1, 0), 50);
    assert_eq!(f.announce(180, ip(3), &announce(1, 2, 1), 50).peers.len(), 1);
    assert!(f.announce(181, ip(3), &announce(1, 2, 1), 50).peers.is_empty());
}

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
    assert!(load.iter().all(|entry| entry.assigned == Assigned { total: 30, recent: 30 }));
    // Two half-lives later the recent counts are a quarter.
    f.announce(1_250, [10, 0, 0, 2].into(), &announce(1, 100, 1), 0);
    assert!(
        f.registry.load().iter().all(|entry| entry.assigned == Assigned { total: 30, recent: 7 })
    );
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
    assert_eq!(load[0].assigned, Assigned { total: 3, recent: 3 });
    f.registry.check();
}

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
    // From another of its own addresses the key tells who it is; without the key nothing does.
    assert!(matches!(report(&mut f, 3, None, &[0x80]), Err(Refusal::UnknownPeer(_))));
    report(&mut f, 3, Some(7), &[0x90]).unwrap();
    let peer = &f.registry.peers(at(0), hash(1))[0];
    assert_eq!(peer.source, Some(HoldingsSource::Reported));
    assert_eq!(peer.held.count(4), Some(2));
    assert_eq!(f.registry.availability(hash(1)), [1, 0, 0, 1]);
    assert_eq!(f.registry.holders(hash(1), PieceIndex(3)), [SocketAddr::new(ip(1), 7)]);
    // It starts anew: what it said before does not hold.
    let mut started = announce(1, 7, 1);
    started.event = AnnounceEvent::Started;
    f.announce(0, ip(1), &started, 0);
    assert_eq!(f.registry.peers(at(0), hash(1))[0].held, Held::Unknown);
    f.announce(0, ip(1), &announce(1, 7, 0), 0);
    let peer = &f.registry.peers(at(0), hash(1))[0];
    assert_eq!((&peer.held, peer.source), (&Held::Everything, Some(HoldingsSource::Announced)));
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
        f.registry.announce(at(0), &mut f.rng, from, &said, Want::any(0))
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
    let refused = f.registry.announce(at(0), &mut f.rng, ip(1), &said, Want::any(1));
    assert_eq!(refused, Err(Refusal::NotCatalogued));
    f.registry.catalogue(at(0), hash(1), 4, 0);
    f.announce(0, ip(1), &said, 1);
    f.registry.uncatalogue(hash(1));
    assert_eq!(f.registry.stats().peers, 0);
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
    let want = Want { count: 10, v4: true, v6: false };
    let said = announce(1, 2, 1);
    let answer = f.registry.announce(at(0), &mut f.rng, ip(3), &said, want).unwrap();
    assert_eq!(answer.peers.len(), 1);
    assert!(answer.peers[0].addr.is_ipv4());
}

/// A torrent of eight pieces whose peer at port 7 has announced that `left` bytes are left.
fn observed(left: u64) -> (Fixture, SocketAddr) {
    let mut f = Fixture::new(RegistryConfig { observe: true, ..roomy() });
    f.registry.catalogue(at(0), hash(1), 8, 0);
    f.announce(0, ip(1), &announce(1, 7, left), 0);
    let addr = SocketAddr::new(ip(1), 7);
    assert!(f.registry.observing(at(0), hash(1), addr, PeerId([7; 20])));
    (f, addr)
}

fn see(f: &mut Fixture, now: u64, addr: SocketAddr, seen: Seen) {
    f.registry.observed(at(now), hash(1), addr, vec![seen]).unwrap();
    f.registry.check();
}

fn bits(byte: u8) -> Bitfield {
    Bitfield::from_wire(&[byte], 8).unwrap()
}

fn the_peer(f: &Fixture, now: u64) -> PeerView {
    f.registry.peers(at(now), hash(1)).remove(0)
}

#[test]
fn what_is_observed_goes_above_what_is_announced_and_below_what_is_reported() {
    let (mut f, addr) = observed(0);
    let peer = the_peer(&f, 0);
    assert_eq!((peer.held, peer.source), (Held::Everything, Some(HoldingsSource::Announced)));
    // A super-seeder shows nothing at first.
    see(&mut f, 1, addr, Seen::Only(bits(0)));
    see(&mut f, 2, addr, Seen::Piece(PieceIndex(3)));
    let peer = the_peer(&f, 2);
    assert_eq!(
        (&peer.held, peer.source),
        (&Held::Pieces(bits(0x10)), Some(HoldingsSource::Observed))
    );
    assert!(!peer.sure, "it says that nothing is left to get");
    f.announce(3, ip(1), &announce(1, 7, 0), 0);
    assert_eq!(the_peer(&f, 3).held, Held::Pieces(bits(0x10)));
    let reporter = Reporter { ip: ip(1), port: 7, key: Some(7.into()) };
    f.registry.report(at(4), hash(1), reporter, &[0xf0]).unwrap();
    see(&mut f, 5, addr, Seen::Only(bits(0xff)));
    let peer = the_peer(&f, 5);
    assert_eq!(
        (peer.held, peer.source),
        (Held::Pieces(bits(0xf0)), Some(HoldingsSource::Reported))
    );
}

#[test]
fn a_bitfield_replaces_and_a_late_one_adds() {
    let (mut f, addr) = observed(9);
    see(&mut f, 1, addr, Seen::Only(bits(0x0f)));
    see(&mut f, 2, addr, Seen::Also(bits(0x18)));
    see(&mut f, 3, addr, Seen::Piece(PieceIndex(0)));
    assert_eq!(the_peer(&f, 3).held, Held::Pieces(bits(0x9f)));
    assert!(the_peer(&f, 3).sure);
    see(&mut f, 4, addr, Seen::Also(bits(0x60)));
    assert_eq!(the_peer(&f, 4).held, Held::Everything);
    see(&mut f, 5, addr, Seen::Only(bits(0x01)));
    assert_eq!(the_peer(&f, 5).held, Held::Pieces(bits(0x01)));
    assert_eq!(
        f.registry.swarm(at(5), hash(1)).unwrap().copies,
        Copies { whole: 0, more: 1, pieces: 8 }
    );
}

#[test]
fn what_a_connection_shows_holds_however_often_the_peer_starts_to_announce() {
    let (mut f, addr) = observed(9);
    see(&mut f, 1, addr, Seen::Only(bits(0x0f)));
    let mut started = announce(1, 7, 9);
    started.event = AnnounceEvent::Started;
    f.announce(2, ip(1), &started, 0);
    assert_eq!(the_peer(&f, 2).held, Held::Pieces(bits(0x0f)));
    // Of another who has come in its place nothing is known; nor of the same without connection.
    let mut other = started.clone();
    other.peer_id = PeerId([8; 20]);
    f.announce(3, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 3).held, Held::Unknown);
    f.registry.observed_last(hash(1), addr);
    see(&mut f, 4, addr, Seen::Only(bits(0x0f)));
    f.announce(5, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 5).held, Held::Unknown);
}

/// libtorrent's IDs: one for trackers, others for connections.
#[test]
fn a_peer_with_another_id_on_its_connections_is_the_same_peer() {
    let (mut f, addr) = observed(9);
    assert!(f.registry.observing(at(1), hash(1), addr, PeerId([200; 20])));
    see(&mut f, 1, addr, Seen::Only(bits(0xf0)));
    let mut started = announce(1, 7, 9);
    started.event = AnnounceEvent::Started;
    f.announce(2, ip(1), &started, 0);
    assert_eq!(the_peer(&f, 2).held, Held::Pieces(bits(0xf0)));
    // It announces that it is done before we have read its last messages.
    f.announce(3, ip(1), &announce(1, 7, 0), 0);
    for piece in 4..8 {
        see(&mut f, 4, addr, Seen::Piece(PieceIndex(piece)));
    }
    let peer = the_peer(&f, 4);
    assert_eq!((peer.held, peer.source), (Held::Everything, Some(HoldingsSource::Observed)));
}

#[test]
fn to_a_peer_that_says_it_has_everything_a_piece_adds_nothing() {
    let (mut f, addr) = observed(0);
    for seen in [Seen::Piece(PieceIndex(3)), Seen::Also(bits(0x18))] {
        see(&mut f, 1, addr, seen);
        let peer = the_peer(&f, 1);
        assert_eq!((peer.held, peer.source), (Held::Everything, Some(HoldingsSource::Announced)));
    }
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
    assert_eq!((gone[0].addr, gone[0].why), (addr, GoneWhy::Unreachable));
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
    f.registry.take_sightings(&mut seen);
    let info_hash = hash(1);
    let peer_id = PeerId([7; 20]);
    let here = Sighting::Here { info_hash, addr, peer_id, complete: true, reports: false };
    assert_eq!(seen, [here]);
    f.announce(1, ip(1), &announce(1, 7, 0), 0);
    f.announce(1, ip(1), &announce(2, 7, 0), 0);
    seen.clear();
    f.registry.take_sightings(&mut seen);
    assert!(seen.is_empty(), "who is connected to, or not catalogued, is no news: {seen:?}");
    f.registry.unreachable(hash(1), addr);
    f.registry.take_sightings(&mut seen);
    assert_eq!(seen, [Sighting::Left { info_hash, addr }]);
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
    assert!(!whole.all && whole.peers[0].held == Held::Everything, "one row says it shorter");
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
    see(&mut f, 0, addr, Seen::Only(bits(0)));
    for second in 1..=6 {
        see(&mut f, second, addr, Seen::Piece(PieceIndex(second as u32)));
    }
    let peer = the_peer(&f, 6);
    assert!((peer.rate.unwrap() - 1.0).abs() < 0.1, "{:?}", peer.rate);
    assert_eq!(peer.eta.unwrap().as_secs_f64().round(), 2.0);
    assert_eq!(f.registry.swarm(at(600), hash(1)).unwrap().peers[0].eta, None);
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
    // Each knows whom it was told of when it came, and who was told of it.
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
    // A thousand seeds that are none, each in a network of its own; and one that is.
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
    assert!(answer[0] == real && answer[1..11].iter().all(unchecked), "{answer:?}");
    assert_eq!(answer.len(), 50, "the rest refused, and is better than nothing");
    // One that reports is there; one that was found to refuse is not, whatever it reports.
    for n in [0, 990] {
        let reporter = Reporter { ip: fake(n), port: 1, key: Some(1.into()) };
        f.registry.report(at(1), hash(1), reporter, &[0xf0]).unwrap();
    }
    let answer = ask(&mut f, 2);
    let of = |at: usize| standing(&f.registry, hash(1), answer[at]);
    assert_eq!((of(0), of(1)), (Standing::Seen, Standing::Unchecked));
    assert_eq!(standing(&f.registry, hash(1), SocketAddr::new(fake(0), 1)), Standing::Refused);
    assert_eq!(standing(&f.registry, hash(1), SocketAddr::new(fake(990), 1)), Standing::Seen);
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
    let seen = |at: &Handed| (0..200).any(|n| peer(n) == at.addr);
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
    // Where there are no others, they fill it.
    for n in 0..200 {
        f.announce(0, area(n), &announce(2, 1, 0), 0);
    }
    f.announce(0, other(1), &announce(2, 1, 0), 0);
    let answer = f.announce(1, [192, 0, 2, 2].into(), &announce(2, 2, 9), 50);
    assert_eq!(answer.peers.len(), 50);
    assert!(answer.peers.iter().any(|peer| peer.addr.ip() == other(1)));
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
    // Reports keep it alive as announces do.
    report(&mut f, 150, 7, 0xe0).unwrap();
    let mut other = announce(1, 7, 0);
    (other.key, other.peer_id) = (Some(8.into()), PeerId([9; 20]));
    f.announce(300, ip(1), &other, 0);
    assert_eq!(the_peer(&f, 300).held, Held::Pieces(Bitfield::from_wire(&[0xe0], 4).unwrap()));
    // It has fallen silent: the other has come in its place.
    f.announce(331, ip(1), &other, 0);
    let peer = the_peer(&f, 331);
    assert_eq!((peer.peer_id, peer.held), (Some(PeerId([9; 20])), Held::Everything));
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
    // At its own address, and from another, where only the key tells who it is.
    for host in [1, 3] {
        let refusals: Vec<_> =
            (1_000..1_100_u32).map(|key| report(&mut f, host, key.into()).unwrap_err()).collect();
        let wrong = refusals.iter().filter(|refusal| **refusal != refusals[99]).count();
        assert!(host == 3 || (wrong, &refusals[99]) == (59, &Refusal::TooManyKeys), "{wrong}");
        assert!(report(&mut f, host, 7.into()).is_err(), "nobody learns that it is right");
    }
    assert!(the_peer(&f, 1).source.is_none());
    // Announces are no way round.
    let mut done = announce(1, 7, 0);
    f.announce(1, ip(1), &done, 0);
    assert_eq!(f.registry.scrape(hash(1)).unwrap().complete, 0);
    // A peer with a long key has nothing to fear from who guesses beside it.
    let long = AnnounceKey::Long([5; 16]);
    (done.port, done.key) = (8, Some(long));
    f.announce(1, ip(1), &done, 0);
    let reporter = Reporter { ip: ip(1), port: 8, key: Some(long) };
    f.registry.report(at(1), hash(1), reporter, &[0xc0]).unwrap();
    f.announce(1, ip(1), &done, 0);
    assert_eq!(f.registry.scrape(hash(1)).unwrap().complete, 1);
}

/// An announce of a torrent of its own.
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
        f.registry.announce(at(0), &mut f.rng, from, &own_torrent(n), Want::any(0)).map(drop)
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
