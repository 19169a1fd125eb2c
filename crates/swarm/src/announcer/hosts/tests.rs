use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use piecework_core::Rng;

fn url(host: usize) -> TrackerUrl {
    TrackerUrl::parse(&format!("http://tracker-{host}/announce")).unwrap()
}

fn torrent(number: usize) -> InfoHash {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    InfoHash(hash)
}

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

fn hosts(places: usize) -> Hosts {
    Hosts::new(places, Rng::from_seed(1))
}

fn silent() -> AnnounceOutcome {
    AnnounceOutcome::Silent { reason: "no answer".to_owned(), again: false }
}

/// Returns all that have a place now, as tracker and torrent. Those queued in vain are left out.
fn begun(hosts: &mut Hosts, now: Moment) -> Vec<(Host, InfoHash)> {
    let turns = std::iter::from_fn(|| hosts.next(now));
    let place = |turn| match turn {
        AnnounceTurn::Announce { host, torrent } => Some((host, torrent)),
        AnnounceTurn::Down { .. } => None,
    };
    turns.filter_map(place).collect()
}

/// Has the tracker answer until it may have its full share.
fn prove(hosts: &mut Hosts, host: usize) {
    for number in 0..100 {
        hosts.line_up(at(0), &url(host), torrent(number));
        for (host, torrent) in begun(hosts, at(0)) {
            hosts.done(at(0), &host, torrent, AnnounceOutcome::Answered);
        }
    }
}

#[test]
fn a_tracker_that_is_silent_keeps_four_places_and_then_one() {
    let mut hosts = hosts(64);
    for number in 0..1_000 {
        assert_eq!(hosts.line_up(at(0), &url(0), torrent(number)), HostState::InLine);
    }
    let first = begun(&mut hosts, at(0));
    assert_eq!(first.len(), 4);
    for (host, torrent) in first {
        hosts.done(at(15), &host, torrent, silent());
    }
    // All are told at once.
    let told = std::iter::from_fn(|| hosts.next(at(15)));
    assert_eq!(told.filter(|turn| matches!(turn, AnnounceTurn::Down { .. })).count(), 996);
    assert_eq!(
        hosts.line_up(at(16), &url(0), torrent(7)),
        HostState::Down("no answer".into()),
        "who comes later as well"
    );
    // One tries after each pause, and never the same twice.
    let mut tried = BTreeSet::new();
    let mut now = at(16);
    for pause in [10, 20, 40, 80, 160, 300, 300] {
        let retry_at = hosts.retry_at(&url(0)).unwrap();
        let waited = retry_at.since(now);
        assert!(waited <= Duration::from_secs(pause * 6 / 5), "{waited:?} of {pause} s");
        assert!(begun(&mut hosts, retry_at - Duration::from_millis(1)).is_empty());
        assert_eq!(hosts.deadline(), Some(retry_at));
        let trying = begun(&mut hosts, retry_at);
        assert_eq!((trying.len(), hosts.deadline()), (1, None));
        assert!(tried.insert(trying[0].1));
        now = retry_at;
        hosts.done(now, &trying[0].0, trying[0].1, silent());
    }
}

#[test]
fn when_a_tracker_is_back_all_announce_as_fast_as_it_answers() {
    let mut hosts = hosts(64);
    for number in 0..1_000 {
        hosts.line_up(at(0), &url(0), torrent(number));
    }
    for (host, torrent) in begun(&mut hosts, at(0)) {
        hosts.done(at(0), &host, torrent, silent());
    }
    // The first four announce again by themselves.
    let mut left: BTreeSet<_> = (4..1_000).map(torrent).collect();
    begun(&mut hosts, at(0));
    let retry_at = hosts.retry_at(&url(0)).unwrap();
    let (mut most, mut under_way) = (1, begun(&mut hosts, retry_at));
    assert_eq!(under_way.len(), 1);
    while let Some((host, torrent)) = under_way.pop() {
        left.remove(&torrent);
        hosts.done(retry_at, &host, torrent, AnnounceOutcome::Answered);
        let more = begun(&mut hosts, retry_at);
        assert!(more.len() <= 2, "{} at once", more.len());
        under_way.extend(more);
        most = most.max(under_way.len());
    }
    assert!(left.is_empty(), "{} of 1,000 never announced", left.len());
    assert!((8..=32).contains(&most), "{most} at a time");
    assert_eq!((hosts.running(), hosts.retry_at(&url(0))), (0, None));
}

#[test]
fn many_trackers_that_are_silent_keep_no_place_from_one_that_answers() {
    let mut hosts = hosts(64);
    prove(&mut hosts, 0);
    for number in 0..1_000 {
        for dead in 1..100 {
            hosts.line_up(at(1), &url(dead), torrent(number));
        }
    }
    let dead = begun(&mut hosts, at(1));
    assert_eq!(dead.len(), 32);
    let different: BTreeSet<_> = dead.iter().map(|(host, _)| host.host.clone()).collect();
    assert_eq!(different.len(), 32, "each once before any twice");
    for number in 0..1_000 {
        hosts.line_up(at(1), &url(0), torrent(number));
    }
    let mut served = 0;
    let mut live = begun(&mut hosts, at(1));
    assert_eq!(live.len(), 32);
    while let Some((host, torrent)) = live.pop() {
        assert_eq!(host, Host::of(&url(0)));
        served += 1;
        hosts.done(at(1), &host, torrent, AnnounceOutcome::Answered);
        live.extend(begun(&mut hosts, at(1)));
    }
    assert_eq!(served, 1_000);
}

#[test]
fn trackers_that_answer_share_the_places_and_leave_one_for_a_newcomer() {
    let mut hosts = hosts(64);
    (0..3).for_each(|host| prove(&mut hosts, host));
    let mut counts = BTreeMap::new();
    for host in 0..2 {
        for number in 0..1_000 {
            hosts.line_up(at(1), &url(host), torrent(number));
        }
    }
    for (host, _) in begun(&mut hosts, at(1)) {
        *counts.entry(host.host.to_string()).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == 21), "{counts:?}");
    hosts.line_up(at(1), &url(2), torrent(0));
    hosts.line_up(at(1), &url(3), torrent(0));
    let late: Vec<_> = begun(&mut hosts, at(1)).into_iter().map(|(host, _)| host).collect();
    assert_eq!(late, [Host::of(&url(2)), Host::of(&url(3))]);
}

#[test]
fn a_torrent_to_which_a_tracker_is_silent_does_not_stop_others() {
    let mut hosts = hosts(64);
    for round in 0..20 {
        hosts.line_up(at(round), &url(0), torrent(1));
        let [(host, torrent)] = &begun(&mut hosts, at(round))[..] else { panic!("no place") };
        let again = round >= 2;
        let outcome = AnnounceOutcome::Silent { reason: "no answer".to_owned(), again };
        hosts.done(at(round), host, *torrent, outcome);
    }
    assert_eq!(hosts.line_up(at(20), &url(0), torrent(2)), HostState::InLine);
}

#[test]
fn udp_and_http_of_one_host_are_two_and_paths_are_one() {
    let host = Host::of(&url(0));
    assert!(host.has(&TrackerUrl::parse("https://tracker-0:80/key/announce").unwrap()));
    assert!(!host.has(&TrackerUrl::parse("udp://tracker-0:80").unwrap()));
    assert!(!host.has(&TrackerUrl::parse("http://tracker-0:8080/announce").unwrap()));
}

#[derive(Debug, Clone)]
enum Step {
    /// Some torrents of one tracker.
    LineUp(usize, usize),
    /// The announce that has been under way for longest ends.
    End,
    Wait(u64),
    /// A tracker stops answering, or answers again.
    Turn(usize),
    Forget,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..6, 1usize..40).prop_map(|(host, count)| Step::LineUp(host, count)),
        8 => Just(Step::End),
        2 => (1u64..400).prop_map(Step::Wait),
        1 => (0usize..6).prop_map(Step::Turn),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    /// Whatever trackers do: places are never exceeded, no torrent waits while there is a place for it, and
    /// each queued torrent is told something or announces, in the end to a tracker that answers.
    #[test]
    fn places_hold_and_nobody_is_forgotten(
        steps in proptest::collection::vec(any_step(), 1..150),
        places in 2usize..40,
        seed: u64,
    ) {
        let mut hosts = Hosts::new(places, Rng::from_seed(seed));
        let mut answers = [true, true, true, false, false, true];
        let mut now = at(0);
        let mut under_way: VecDeque<(Host, InfoHash)> = VecDeque::new();
        // Torrents that have not announced to an answering tracker since they last wanted to.
        let mut wanting: BTreeSet<(usize, InfoHash)> = BTreeSet::new();
        let mut number = 0;
        let index = |host: &Host| (0..6).find(|at| host.has(&url(*at))).unwrap();
        let end = |hosts: &mut Hosts, now, place: (Host, InfoHash), answers: &[bool; 6],
                       wanting: &mut BTreeSet<(usize, InfoHash)>| {
            let (host, torrent) = place;
            let at = index(&host);
            if answers[at] {
                wanting.remove(&(at, torrent));
            }
            let outcome = if answers[at] { AnnounceOutcome::Answered } else { silent() };
            hosts.done(now, &host, torrent, outcome);
        };
        for step in steps {
            match step {
                Step::LineUp(host, count) => for _ in 0..count {
                    number += 1;
                    wanting.insert((host, torrent(number)));
                    hosts.line_up(now, &url(host), torrent(number));
                },
                Step::End => if let Some(place) = under_way.pop_front() {
                    end(&mut hosts, now, place, &answers, &mut wanting);
                },
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Step::Turn(host) => answers[host] = !answers[host],
                Step::Forget => if let Some((host, torrent)) = under_way.pop_back() {
                    wanting.remove(&(index(&host), torrent));
                    hosts.done(now, &host, torrent, AnnounceOutcome::Unknown);
                },
            }
            under_way.extend(begun(&mut hosts, now));
            prop_assert_eq!(hosts.running(), under_way.len());
            prop_assert!(under_way.len() <= places);
            prop_assert!(hosts.deadline().is_none_or(|deadline| deadline > now));
        }
        // All answer from now on, and a torrent that failed by itself wants to announce again.
        answers = [true; 6];
        for _ in 0..10_000 {
            if let Some(place) = under_way.pop_front() {
                end(&mut hosts, now, place, &answers, &mut wanting);
            } else if let Some(deadline) = hosts.deadline() {
                now = now.max(deadline);
            } else if let Some((host, torrent)) = wanting.first().copied() {
                hosts.line_up(now, &url(host), torrent);
            } else {
                break;
            }
            under_way.extend(begun(&mut hosts, now));
        }
        prop_assert!(wanting.is_empty() && under_way.is_empty());
        prop_assert!(now <= at(150 * 400 + 6 * 400));
        prop_assert_eq!((hosts.running(), hosts.busy), (0, 0));
        prop_assert!(hosts.probes.is_empty() && hosts.vain.is_empty());
        prop_assert!(hosts.ready.iter().all(BTreeSet::is_empty));
    }
}
