use std::time::Duration;

use super::*;

fn run(scenario: &Scenario, seed: u64, check_each: u64) -> World {
    let mut world = World::new(scenario, seed).unwrap();
    world.check_each(check_each);
    match world.run_until(scenario.limit) {
        Ok(RunOutcome::Complete) => world,
        Ok(other) => panic!("{other:?}: {:?}", world.completed()),
        Err(failure) => panic!("{failure}"),
    }
}

fn small(choke: Choke) -> Scenario {
    let mut scenario = Scenario::broadcast(8, 8 << 20, 64 << 10, 5_000_000);
    scenario.choke = choke;
    scenario
}

#[test]
fn same_seed_gives_the_same_log_to_the_byte_and_another_seed_another() {
    let log = |seed| {
        let mut world = World::new(&small(Choke::TitForTat), seed).unwrap();
        world.keep_log();
        let mut log = String::new();
        let mut until = Duration::ZERO;
        loop {
            until += Duration::from_millis(100);
            let outcome = world.run_until(until);
            log += &world.take_log();
            if outcome != Ok(RunOutcome::Running) {
                assert_eq!(outcome, Ok(RunOutcome::Complete));
                return log;
            }
        }
    };
    let first = log(1);
    assert!(first.lines().count() > 8 * 512, "{}", first.lines().count());
    assert!(first == log(1), "the same seed gave another log");
    assert!(first != log(2), "another seed gave the same log");
}

#[test]
fn every_leecher_completes_under_both_policies_no_faster_than_the_bound() {
    for choke in [Choke::TitForTat, Choke::Closed] {
        for seed in 0..4 {
            let report = run(&small(choke), seed, 13).report();
            let ratio = report.makespan_to_bound.unwrap();
            assert!((1.0..3.0).contains(&ratio), "{choke:?}, seed {seed}: {ratio}");
            assert!(report.copies_from_seeds >= 1.0, "{report:?}");
            assert_eq!(report.bans, 0);
            assert!(report.uplink_use <= 1.0 && report.wasted < 0.2, "{report:?}");
        }
    }
}

/// A seed that sends all machines of a /24 the same ten pieces first, peers that request blocks twice long
/// before the end, and a seed that suggests the next piece only when the last one has arrived took 1.54 and
/// 1.20 times the bound here.
#[test]
fn sixteen_leechers_in_one_network_are_near_the_bound() {
    for (choke, last, copies) in [(Choke::TitForTat, 1.17, 1.15), (Choke::Closed, 1.10, 1.10)] {
        let mut scenario = Scenario::broadcast(16, 400 * (64 << 10), 64 << 10, 1 << 20);
        scenario.choke = choke;
        let report = run(&scenario, 1, u64::MAX).report();
        let ratio = report.makespan_to_bound.unwrap();
        assert!(ratio < last, "{choke:?}: {ratio}");
        assert!(report.copies_from_seeds < copies, "{choke:?}: {report:?}");
        assert!(report.wasted < 0.05, "{choke:?}: {}", report.wasted);
    }
}

/// While the seed is short, peers that give nothing take longer than peers that give.
#[test]
fn free_riders_among_strangers_wait_for_those_that_give() {
    let text = include_str!("../../../docs/scenarios/free-riders.toml");
    let mut scenario = Scenario::parse(text).unwrap();
    scenario.size = 6 << 20;
    let report = run(&scenario, 1, u64::MAX).report();
    let done = |group: usize| report.groups[group].completion.unwrap();
    let (givers, riders) = (done(1), done(2));
    assert!(riders.mean > givers.mean * 1.2, "{givers:?}, {riders:?}");
}

/// Peers with equal lines share a seed's uplink equally. A peer with a thin line takes what it can, and the
/// others have the rest.
#[test]
fn rates_are_max_min_fair() {
    let mut scenario = Scenario::broadcast(3, 64 << 20, 256 << 10, 4_000_000);
    scenario.choke = Choke::Closed;
    scenario.peers[1].up = 1;
    scenario.peers.push(PeerGroup::new("thin", 1, Content::Nothing, 400_000));
    scenario.peers[2].up = 1;
    let mut world = World::new(&scenario, 3).unwrap();
    assert_eq!(world.run_until(Duration::from_secs(10)), Ok(RunOutcome::Running));
    let held: Vec<u64> = world.bytes_verified();
    // 4,000,000 less 400,000 are 1,200,000 for each of three. The first seconds are needed to begin.
    let rate = |bytes: u64| bytes as f64 / 10.0;
    for bytes in &held[1..4] {
        assert!((1_000_000.0..1_250_000.0).contains(&rate(*bytes)), "{held:?}");
    }
    assert!((300_000.0..400_000.0).contains(&rate(held[4])), "{held:?}");
}

#[test]
fn corrupting_peers_are_banned_and_nobody_else() {
    let text = include_str!("../../../docs/scenarios/churn.toml");
    let mut scenario = Scenario::parse(text).unwrap();
    scenario.size = 8 << 20;
    let mut bans = 0;
    for seed in 0..4 {
        bans += run(&scenario, seed, 101).report().bans;
    }
    assert!(bans > 0, "the corrupting peers were hardly asked");
}

#[test]
fn peers_that_cannot_be_dialled_complete_too() {
    let mut scenario = small(Choke::TitForTat);
    scenario.peers[1].dialable = false;
    run(&scenario, 5, 101);
}

#[test]
fn who_can_never_complete_ends_the_run_without_a_fault() {
    let mut scenario = small(Choke::TitForTat);
    scenario.peers.remove(0);
    scenario.limit = Duration::from_secs(300);
    let mut world = World::new(&scenario, 5).unwrap();
    assert_eq!(world.run_until(scenario.limit), Ok(RunOutcome::Ended));
    assert_eq!(world.report().makespan, None);
}

/// With ten times as many peers, the time of an event grows with the neighbours of a peer, which are
/// bounded, and not with the number of peers. The test compares work done, since the speed of a machine
/// varies.
#[test]
fn events_for_each_block_do_not_grow_with_the_peers() {
    let events = |leechers: u32| {
        let mut scenario = Scenario::broadcast(leechers, 4 << 20, 64 << 10, 5_000_000);
        scenario.peers[1].max_peers = 20;
        let report = run(&scenario, 1, u64::MAX).report();
        report.events as f64 / f64::from(leechers) / 256.0
    };
    let (few, many) = (events(20), events(200));
    assert!(many < few * 1.6, "{few:.1} events for each block of 20 peers, {many:.1} of 200");
}
