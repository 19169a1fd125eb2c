use std::time::{Duration, Instant};

use super::*;

fn run(scenario: &Scenario, seed: u64, check_each: u64) -> World {
    let mut world = World::new(scenario, seed).unwrap();
    world.check_each(check_each);
    match world.run_until(scenario.limit) {
        Ok(Outcome::Complete) => world,
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
            if outcome != Ok(Outcome::Running) {
                assert_eq!(outcome, Ok(Outcome::Complete));
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

/// Whose lines are alike share a seed's uplink alike; who has a thin line takes what it can, and the
/// others have the rest.
#[test]
fn rates_are_max_min_fair() {
    let mut scenario = Scenario::broadcast(3, 64 << 20, 256 << 10, 4_000_000);
    scenario.choke = Choke::Closed;
    scenario.peers[1].up = 1;
    scenario.peers.push(PeerGroup::new("thin", 1, Content::Nothing, 400_000));
    scenario.peers[2].up = 1;
    let mut world = World::new(&scenario, 3).unwrap();
    assert_eq!(world.run_until(Duration::from_secs(10)), Ok(Outcome::Running));
    let held: Vec<u64> = world.bytes_verified();
    // 4,000,000 less 400,000 are 1,200,000 for each of three; the first seconds are for beginning.
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
    assert_eq!(world.run_until(scenario.limit), Ok(Outcome::Ended));
    assert_eq!(world.report().makespan, None);
}

/// Ten times as many peers: the time an event takes grows with the neighbours of a peer, which are
/// bounded, and not with the peers. Compared by work done, since a machine's speed is its own.
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

#[test]
#[ignore]
fn experiment() {
    let var = |name: &str, or: &str| std::env::var(name).unwrap_or(or.into());
    let ns: Vec<u32> = var("N", "16").split(',').map(|n| n.parse().unwrap()).collect();
    let size: u64 = var("MIB", "128").parse::<u64>().unwrap() << 20;
    let seeds: u64 = var("SEEDS", "3").parse().unwrap();
    let rate: u64 = var("RATE", "12500000").parse().unwrap();
    for n in ns {
        for piece in var("KIB", "1024,256").split(',') {
            let piece = piece.parse::<u32>().unwrap() << 10;
            for choke in var("CHOKE", "t,c").split(',') {
                let mut sums = [0.0; 5];
                let begun = Instant::now();
                let mut events = 0;
                for seed in 1..=seeds {
                    let mut scenario = Scenario::broadcast(n, size, piece, rate);
                    scenario.choke = if choke == "t" { Choke::TitForTat } else { Choke::Closed };
                    if var("SCATTER", "") != "" {
                        scenario.addresses = Addresses::Scattered;
                    }
                    let slots: usize = var("SLOTS", "8").parse().unwrap();
                    let sslots: usize = var("SSLOTS", "8").parse().unwrap();
                    let buffer: u64 = var("BUFFER", "64").parse().unwrap();
                    scenario.send_buffer = buffer << 10;
                    scenario.peers[0].upload_slots = sslots;
                    scenario.peers[1].upload_slots = slots;
                    let mut world = World::new(&scenario, seed).unwrap();
                    let out = world.run_until(scenario.limit);
                    assert_eq!(out, Ok(Outcome::Complete));
                    let report = world.report();
                    events += report.events;
                    for (sum, v) in sums.iter_mut().zip([
                        report.makespan_to_bound.unwrap(),
                        report.mean_to_bound.unwrap(),
                        report.copies_from_seeds,
                        report.wasted,
                        report.uplink_use,
                    ]) {
                        *sum += v;
                    }
                }
                let [a, b, c, d, e] = sums.map(|sum| sum / seeds as f64);
                println!(
                    "n {n} piece {} KiB {choke}: x bound {a:.3} mean {b:.3} copies {c:.3} wasted {d:.4} use {e:.3}; {events} events {:.0}/s",
                    piece >> 10,
                    events as f64 / begun.elapsed().as_secs_f64()
                );
            }
        }
    }
}
