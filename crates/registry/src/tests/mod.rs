//! A model of the registry, and what its tests share.

mod bounds;
mod dual_stack;
mod kept;
mod observing;
mod selection;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::peers::{Reachability, tick_of};
use super::*;
use piecework_core::{AnnounceKey, Bitfield, InfoHash, Moment, PeerId, PieceIndex, Rng};
use piecework_proto::announce::{Announce, AnnounceEvent};

/// Returns a configuration that allows many peers at one address in each torrent.
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

    fn announce(
        &mut self,
        now: u64,
        from: IpAddr,
        announce: &Announce,
        want: usize,
    ) -> AnnounceAnswer {
        let answer =
            self.registry.announce(at(now), &mut self.rng, from, announce, PeerQuery::any(want));
        answer.unwrap()
    }

    /// Expires to the end of the present round, and then one whole round.
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

/// A naive model of the registry.
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

fn reachability(registry: &Registry, info_hash: InfoHash, addr: SocketAddr) -> Reachability {
    let torrent = &registry.torrents[registry.find(info_hash).unwrap()];
    torrent.reachability(torrent.find(addr.ip(), addr.port(), &registry.hasher).unwrap())
}

fn the_peer(f: &Fixture, now: u64) -> PeerView {
    f.registry.peers(at(now), hash(1)).remove(0)
}

fn holdings_of(swarm: &SwarmView) -> BTreeMap<u64, Holdings> {
    swarm.peers.iter().map(|peer| (peer.id.unwrap(), peer.held.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn registry_agrees_with_a_naive_model(ops in ops()) {
        let mut real = Fixture::new(roomy());
        let mut model = Model::default();
        // The holdings of each torrent's peers as seen by a watcher.
        let mut mirrors: BTreeMap<u8, Option<BTreeMap<u64, Holdings>>> = BTreeMap::new();
        let mut now = 1_000;
        for op in ops {
            match op {
                Op::Announce { torrent, ip: host, port, left, event, want } => {
                    // Each address is a peer of its own here.
                    let mut said = announce(torrent, port, left);
                    said.peer_id = PeerId([host * 8 + port as u8; 20]);
                    said.event = match event {
                        0 => AnnounceEvent::Stopped,
                        1 => AnnounceEvent::Completed,
                        2 => AnnounceEvent::Started,
                        _ => AnnounceEvent::None,
                    };
                    let addr = SocketAddr::new(ip(host), port);
                    let recent: BTreeMap<SocketAddr, u16> = real.registry.peers(at(now), hash(torrent))
                        .into_iter().map(|peer| (peer.addr, peer.assigned.recent)).collect();
                    let standings: BTreeMap<SocketAddr, Reachability> = recent.keys()
                        .map(|addr| (*addr, reachability(&real.registry, hash(torrent), *addr))).collect();
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
                        // Peers that may be gone are used if there are no others.
                        let is_lost = |a: &SocketAddr| standings.get(a) == Some(&Reachability::Lost);
                        let all_lost = useful.keys().all(is_lost);
                        let mut useful = useful;
                        useful.retain(|a, _| all_lost || !is_lost(a));
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
                            // No omitted complete peer was handed out less than a selected one.
                            let load = |a: &SocketAddr| recent.get(a).copied().unwrap_or(0);
                            for of in [Reachability::Seen, Reachability::Unchecked, Reachability::Refused, Reachability::Lost] {
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
                    // A partial walk may remove any of the expired peers; the model follows it.
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
                        0 => HoldingsUpdate::Everything,
                        1 => HoldingsUpdate::Only(bitfield),
                        2 => HoldingsUpdate::Also(bitfield),
                        3 => HoldingsUpdate::Piece(PieceIndex(u32::from(bits) % 8)),
                        4 => {
                            let _ = real.registry.observing(at(now), torrent, addr, PeerId([port as u8; 20]));
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
                                let Holdings::Pieces(bits) = held else { panic!("{held:?} grows") };
                                grown.pieces.iter().for_each(|piece| assert!(bits.insert(*piece)));
                                if bits.is_full() {
                                    *held = Holdings::Everything;
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
