use proptest::prelude::*;

use super::*;
use piecework_core::{PeerId, Rng};

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_millis(millis))
}

fn addr(n: u8) -> SocketAddr {
    ([10, 0, n, 1], 6881).into()
}

fn hash(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

fn here(torrent: u8, addr: SocketAddr) -> ObserverEvent {
    ObserverEvent::Here {
        info_hash: hash(torrent),
        addr,
        peer_id: PeerId([1; 20]),
        complete: false,
        reports: false,
        stale: false,
        restored: None,
    }
}

fn ours() -> IpAddr {
    [10, 9, 9, 9].into()
}

fn observer(config: ObserverConfig) -> Observer {
    Observer::new(config, Rng::from_seed(1))
}

/// A driver with scripted peers.
struct World {
    observer: Observer,
    now: u64,
    dialled: Vec<(u64, SocketAddr)>,
    gone: Vec<(u64, SocketAddr)>,
    visits: BTreeMap<SocketAddr, VisitKey>,
    checked: std::collections::BTreeMap<(InfoHash, SocketAddr), bool>,
}

impl World {
    fn new(config: ObserverConfig) -> Self {
        Self {
            observer: observer(config),
            now: 0,
            dialled: Vec::new(),
            checked: Default::default(),
            gone: Vec::new(),
            visits: BTreeMap::new(),
        }
    }

    fn sight(&mut self, event: ObserverEvent) {
        self.observer.handle(at(self.now), event);
    }

    /// Advances the time. Every attempt gets `answer` at once, or an open connection if that is `None`.
    fn pass(&mut self, millis: u64, answer: Option<VisitEnd>) {
        let end = self.now + millis;
        loop {
            self.carry_out(answer);
            let next = self.observer.deadline().map(|due| due.since_start().as_millis() as u64 + 1);
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
        }
        self.now = end;
        self.carry_out(answer);
    }

    fn carry_out(&mut self, answer: Option<VisitEnd>) {
        while let Some(action) = self.observer.poll(at(self.now)) {
            self.observer.check();
            match action {
                ObserverAction::Dial { visit, addr, .. } => {
                    self.dialled.push((self.now, addr));
                    match answer {
                        None => {
                            self.visits.insert(addr, visit);
                            self.observer.opened(at(self.now), visit, ours(), false);
                        }
                        Some(end) => self.observer.ended(at(self.now), visit, end),
                    }
                }
                ObserverAction::HangUp { addr, .. } => _ = self.visits.remove(&addr),
                ObserverAction::Gone { addr, .. } => self.gone.push((self.now, addr)),
                ObserverAction::Checked { info_hash, addr, reachable } => {
                    self.checked.insert((info_hash, addr), reachable);
                }
            }
        }
        self.observer.check();
    }

    fn close(&mut self, addr: SocketAddr) {
        let visit = self.visits.remove(&addr).unwrap();
        self.observer.ended(at(self.now), visit, VisitEnd::Closed);
    }
}

#[test]
fn figures_tell_connections_and_attempts_that_came_to_nothing() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(20_000, Some(VisitEnd::Refused));
    let refused = world.observer.figures();
    assert_eq!((refused.known, refused.open, refused.dialing), (1, 0, 0));
    assert_eq!((refused.dials, refused.failed), (world.dialled.len() as u64, refused.dials));
    assert!(refused.failed > 0);
    world.sight(here(1, addr(2)));
    world.pass(600_000, None);
    let open = world.observer.figures();
    assert_eq!((open.known, open.open, open.dialing), (2, 2, 0));
    assert_eq!((open.dials, open.failed), (refused.dials + 2, refused.failed));
    // A connection that was open does not count as failed.
    world.observer.ended(at(world.now), world.visits[&addr(1)], VisitEnd::Closed);
    let closed = world.observer.figures();
    assert_eq!((closed.open, closed.failed), (1, refused.failed));
}

#[test]
fn a_peer_that_is_killed_is_gone_within_seconds() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(60_000, None);
    assert_eq!((world.dialled.len(), world.observer.visits()), (1, 1));
    world.close(addr(1));
    world.pass(60_000, Some(VisitEnd::Refused));
    assert_eq!(world.gone.len(), 1);
    assert!(world.gone[0].0 <= 60_000 + 6_000, "{:?}", world.gone);
    assert_eq!(world.observer.known(), 0);
}

#[test]
fn a_machine_that_is_gone_is_so_within_half_a_minute_if_our_own_network_works() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(60_000, None);
    world.close(addr(1));
    world.pass(120_000, Some(VisitEnd::Unanswered));
    assert_eq!(world.gone, [], "nobody else has been heard either");
    world.pass(600_000, None);
    world.close(addr(1));
    let start = world.now;
    world.now += 1;
    world.observer.heard(at(world.now));
    world.pass(60_000, Some(VisitEnd::Unanswered));
    // Without the time of the attempts, which is four seconds each.
    assert!(world.gone[0].0 - start <= 10_000, "{:?}", world.gone);
}

#[test]
fn a_peer_that_was_never_reached_is_not_removed_and_asked_ever_more_seldom() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(3_600_000, Some(VisitEnd::Refused));
    assert_eq!(world.gone, []);
    let times: Vec<u64> = world.dialled.iter().map(|(time, _)| time / 1000).collect();
    assert_eq!(times[..5], [0, 30, 90, 210, 450]);
    assert!(times.len() < 12, "{times:?}");
}

#[test]
fn a_peer_that_hangs_up_politely_is_not_gone_and_visited_with_patience() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    for _ in 0..6 {
        world.pass(1_000, None);
        while world.visits.is_empty() {
            world.pass(1_000, None);
        }
        world.close(addr(1));
    }
    let times: Vec<u64> = world.dialled.iter().map(|(time, _)| time / 1000).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < 5 && pauses[1] >= 15 && pauses[4] >= 60, "{pauses:?}");
    // After a long connection the next attempt comes at once, so that new pieces do not stay unknown.
    world.pass(300_000, None);
    world.close(addr(1));
    let before = world.dialled.len();
    world.pass(3_000, None);
    assert_eq!(world.dialled.len(), before + 1);
    world.pass(1_000, None);
    world.close(addr(1));
    world.pass(600_000, Some(VisitEnd::Declined));
    assert_eq!(world.gone, []);
}

#[test]
fn an_announce_between_two_refusals_is_a_sign_of_life() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(60_000, None);
    world.close(addr(1));
    world.pass(2_500, Some(VisitEnd::Refused));
    world.sight(here(1, addr(1)));
    world.pass(3_500, Some(VisitEnd::Refused));
    assert_eq!(world.gone, []);
    world.pass(10_000, Some(VisitEnd::Refused));
    assert_eq!(world.gone.len(), 1);
}

#[test]
fn one_that_reports_is_visited_in_one_torrent_and_gone_in_all() {
    let mut world = World::new(ObserverConfig::default());
    for torrent in 1..=50 {
        world.sight(ObserverEvent::Here {
            info_hash: hash(torrent),
            addr: addr(1),
            peer_id: PeerId([1; 20]),
            complete: true,
            reports: true,
            stale: false,
            restored: None,
        });
    }
    world.pass(300_000, None);
    assert_eq!((world.dialled.len(), world.observer.visits()), (1, 1));
    world.close(addr(1));
    world.pass(20_000, Some(VisitEnd::Refused));
    assert_eq!(world.gone.len(), 50);
}

#[test]
fn a_peer_whose_map_stands_still_while_it_gets_on_is_looked_at_anew() {
    let mut world = World::new(ObserverConfig::default());
    let stale = |stale: bool| match here(1, addr(1)) {
        ObserverEvent::Here { info_hash, addr, peer_id, complete, reports, restored, .. } => {
            ObserverEvent::Here { info_hash, addr, peer_id, complete, reports, stale, restored }
        }
        left => left,
    };
    world.sight(stale(false));
    world.pass(60_000, None);
    world.sight(stale(false));
    world.pass(60_000, None);
    assert_eq!(world.dialled.len(), 1, "a map that moves is left alone");
    world.sight(stale(true));
    assert_eq!(world.observer.visits(), 0);
    world.pass(5_000, None);
    assert_eq!((world.dialled.len(), world.observer.visits()), (2, 1));
    // A peer that waits for its next visit is visited now.
    let visit = world.visits[&addr(1)];
    world.observer.ended(at(world.now), visit, VisitEnd::NoRoom);
    world.sight(stale(true));
    world.pass(5_000, None);
    assert_eq!(world.dialled.len(), 3);
    assert_eq!(world.gone, []);
}

#[test]
fn one_that_wants_no_visitors_is_gone_soon_after_it_was_killed() {
    for end in [VisitEnd::Declined, VisitEnd::HungUp, VisitEnd::Probed] {
        let mut world = World::new(ObserverConfig::default());
        world.sight(here(1, addr(1)));
        // For ten minutes, so that visits reach their longest interval.
        world.pass(600_000, Some(end));
        assert!(world.dialled.len() < 20, "{end:?}: {}", world.dialled.len());
        let killed = world.now;
        world.pass(180_000, Some(VisitEnd::Refused));
        assert!(world.gone[0].0 - killed < 65_000, "{end:?}: {:?}", world.gone);
    }
}

#[test]
fn addresses_that_are_none_are_not_dialled() {
    let mut world = World::new(ObserverConfig::default());
    for bad in ["10.0.0.1:0", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1"] {
        world.sight(here(1, bad.parse().unwrap()));
    }
    world.pass(60_000, None);
    assert_eq!((world.observer.known(), world.dialled.len()), (0, 0));
}

#[test]
fn one_host_is_not_dialled_at_all_its_ports_because_somebody_names_them() {
    let mut world = World::new(ObserverConfig::default());
    for port in 1..=500 {
        world.sight(here(1, ([10, 0, 0, 1], port).into()));
    }
    world.pass(10_000, Some(VisitEnd::Refused));
    assert!(world.dialled.len() <= 41, "{} in ten seconds", world.dialled.len());
    world.pass(50_000, Some(VisitEnd::Refused));
    assert!(world.dialled.len() <= 141, "{} in a minute", world.dialled.len());
    // Others do not wait behind it.
    world.sight(here(1, addr(7)));
    world.pass(1_000, None);
    assert!(world.visits.contains_key(&addr(7)));
}

#[test]
fn who_waits_for_a_dial_is_not_moved_in_the_line() {
    let config =
        ObserverConfig { max_connections: 1_000, max_per_torrent: 1_000, ..Default::default() };
    let mut world = World::new(config);
    for n in 0..250 {
        world.sight(here(1, addr(n)));
    }
    let due = at(FIRST_LOOK.as_millis() as u64);
    world.now = FIRST_LOOK.as_millis() as u64;
    world.carry_out(None);
    assert_eq!(world.dialled.len(), DIALS_AT_ONCE as usize);
    assert!(world.observer.due.len() == 150 && world.observer.due.iter().all(|key| key.0 == due));
    let next = world.observer.deadline().unwrap();
    assert!(next > due && next.since(due) < Duration::from_millis(21), "{next:?}");
    world.pass(1_000, None);
    assert!((145..=151).contains(&world.dialled.len()), "{} a second on", world.dialled.len());
    world.pass(3_000, None);
    assert_eq!(world.dialled.len(), 250);
}

#[test]
fn peers_of_one_network_without_a_dial_left_come_back_by_and_by() {
    let mut world = World::new(ObserverConfig::default());
    for port in 1..=800 {
        world.sight(here(1, ([10, 0, 0, 1], port).into()));
    }
    world.pass(600, Some(VisitEnd::Refused));
    let soon = at(world.now + 1_000);
    let soon = world.observer.due.iter().filter(|(due, ..)| *due < soon).count();
    assert!(soon < 250, "{soon} of them within a second");
}

#[test]
fn connections_are_bounded_in_all_and_of_one_torrent() {
    let config = ObserverConfig { max_connections: 30, max_per_torrent: 20, ..Default::default() };
    let mut world = World::new(config);
    for n in 0..100 {
        world.sight(here(1, addr(n)));
    }
    world.pass(5_000, None);
    assert_eq!(world.observer.visits(), 20);
    assert_eq!(world.observer.known(), 80, "four for each place");
    for n in 0..50 {
        world.sight(here(2, addr(n)));
    }
    world.pass(60_000, None);
    assert_eq!(world.observer.visits(), 30);
    // A peer that leaves makes room for one that waits.
    let first = *world.visits.keys().next().unwrap();
    world.sight(ObserverEvent::Left { info_hash: hash(1), addr: first });
    world.sight(ObserverEvent::Left { info_hash: hash(2), addr: first });
    world.pass(60_000, None);
    assert_eq!(world.observer.visits(), 30);
    world.observer.leave(hash(1));
    world.observer.leave(hash(2));
    world.pass(0, None);
    assert_eq!((world.observer.visits(), world.observer.known()), (0, 0));
}

#[test]
fn a_peer_at_our_own_address_is_made_way_for() {
    let mut world = World::new(ObserverConfig::default());
    world.sight(here(1, addr(1)));
    world.pass(5_000, None);
    assert_eq!(world.observer.visits(), 1);
    world.sight(here(1, SocketAddr::new(ours(), 5000)));
    assert!(matches!(world.observer.poll(at(world.now)), Some(ObserverAction::HangUp { .. })));
    assert_eq!(world.observer.visits(), 0);
}

#[test]
fn it_is_told_of_each_peer_whether_it_takes_connections() {
    let mut world = World::new(ObserverConfig::default());
    let there = |world: &World, torrent, n| world.checked.get(&(hash(torrent), addr(n))).copied();
    world.sight(here(1, addr(1)));
    world.sight(here(1, addr(2)));
    world.pass(5_000, None);
    assert_eq!((there(&world, 1, 1), there(&world, 1, 2)), (Some(true), Some(true)));
    // The same program in another torrent.
    world.sight(here(2, addr(1)));
    world.pass(1, Some(VisitEnd::Refused));
    assert_eq!(there(&world, 2, 1), Some(true));
    world.sight(here(1, addr(3)));
    world.pass(5_000, Some(VisitEnd::Refused));
    assert_eq!(there(&world, 1, 3), Some(false));
    // Once may be chance.
    world.sight(here(1, addr(4)));
    world.pass(5_000, Some(VisitEnd::Unanswered));
    assert_eq!(there(&world, 1, 4), None);
    world.pass(60_000, Some(VisitEnd::Unanswered));
    assert_eq!(there(&world, 1, 4), Some(false));
    world.pass(700_000, None);
    assert_eq!((there(&world, 1, 3), there(&world, 1, 4)), (Some(true), Some(true)));
}

#[test]
fn peers_that_nobody_can_reach_keep_no_other_from_being_looked_at() {
    let config = ObserverConfig { max_per_torrent: 5, ..ObserverConfig::default() };
    let mut world = World::new(config);
    let fake = |n: u16| SocketAddr::new([127, 0, 1, 1].into(), n + 1);
    for n in 0..20 {
        world.sight(here(1, fake(n)));
    }
    world.pass(10_000, Some(VisitEnd::Refused));
    assert_eq!(world.observer.known(), 20);
    world.sight(here(1, addr(1)));
    world.pass(5_000, None);
    assert_eq!(world.checked.get(&(hash(1), addr(1))), Some(&true));
    assert_eq!(world.observer.known(), 20);
}

proptest! {
    #[test]
    fn whatever_happens_the_books_agree(
        steps in proptest::collection::vec((0..9u8, 0..6u8, 1..4u8, 0..40_000u64), 1..200)
    ) {
        let config = ObserverConfig { max_connections: 5, max_per_torrent: 3, ..Default::default() };
        let mut observer = observer(config.clone());
        let mut now = 0;
        let mut open: Vec<VisitKey> = Vec::new();
        let ends = [
            VisitEnd::Refused, VisitEnd::Unanswered, VisitEnd::Declined, VisitEnd::Closed,
            VisitEnd::Ours, VisitEnd::NoRoom, VisitEnd::Unlisted, VisitEnd::Probed,
            VisitEnd::HungUp, VisitEnd::Elsewhere,
        ];
        for (what, peer, torrent, time) in steps {
            now += time / 4;
            match what {
                0..3 => observer.handle(at(now), here(torrent, addr(peer))),
                3 => observer.handle(at(now), ObserverEvent::Left { info_hash: hash(torrent), addr: addr(peer) }),
                4 => observer.leave(hash(torrent)),
                5 | 6 if !open.is_empty() => {
                    let visit = open.remove(usize::from(peer) % open.len());
                    observer.ended(at(now), visit, ends[time as usize % ends.len()]);
                }
                7 => {
                    if let Some(visit) = open.last() {
                        observer.opened(at(now), *visit, addr(5).ip(), false);
                    }
                }
                _ => {
                    while let Some(action) = observer.poll(at(now)) {
                        match action {
                            ObserverAction::Dial { visit, .. } => open.push(visit),
                            ObserverAction::HangUp { visit, .. } => open.retain(|key| *key != visit),
                            ObserverAction::Gone { .. } | ObserverAction::Checked { .. } => {}
                        }
                    }
                    prop_assert!(observer.deadline().is_none_or(|due| due > at(now)));
                }
            }
            observer.check();
            prop_assert!(observer.visits() <= config.max_connections);
        }
    }
}
