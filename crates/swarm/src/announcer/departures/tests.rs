use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::announcer::{AnnounceFailure, TierPolicy};
use piecework_core::{Moment, Rng};
use piecework_proto::announce::{AnnounceEvent, AnnounceReply, TrackerUrl};

fn url(host: &str) -> TrackerUrl {
    TrackerUrl::parse(&format!("http://{host}:1/announce")).unwrap()
}

/// A torrent whose trackers at `hosts` know us and counted `leechers`.
fn known(hosts: &[&str], leechers: u32, peers: usize) -> DepartingTorrent {
    let tiers = hosts.iter().map(|host| vec![url(host)]).collect();
    let mut announcer = Announcer::new(tiers, TierPolicy::All, Rng::from_seed(1));
    while let Some(wish) = announcer.poll(Moment::START) {
        let mut reply = AnnounceReply::new(Duration::from_secs(1_800));
        reply.incomplete = leechers;
        announcer.on_reply(Moment::START, &wish.tracker, &reply);
    }
    DepartingTorrent { announcer, peers }
}

/// Has all trackers told. Returns the torrents in the order in which they were told.
fn tell_all(departures: &mut Departures) -> Vec<usize> {
    let mut told = Vec::new();
    while let Some(goodbye) = departures.poll() {
        assert_eq!(goodbye.wish.event, AnnounceEvent::Stopped);
        told.push(goodbye.torrent);
        departures.settle(&goodbye, true);
    }
    told
}

#[test]
fn torrents_with_peers_come_first_then_those_with_most_leechers() {
    let torrents = [
        known(&["a"], 0, 0),
        known(&["a"], 7, 0),
        known(&["a"], 0, 2),
        known(&["a"], 900, 0),
        known(&["a"], 5, 1),
        known(&["a"], 0, 0),
    ];
    let mut departures = Departures::new(torrents);
    assert_eq!(departures.missed().torrents, 6);
    assert_eq!(tell_all(&mut departures), [4, 2, 3, 1, 0, 5]);
    assert!(departures.missed().is_empty());
}

#[test]
fn only_trackers_that_know_us_are_told() {
    let mut failed =
        Announcer::new(vec![vec![url("a")], vec![url("b")]], TierPolicy::All, Rng::from_seed(1));
    while let Some(wish) = failed.poll(Moment::START) {
        if wish.tracker.host() == "a" {
            let reason = "gone".to_owned();
            let failure = AnnounceFailure { reason, refused: false, retry: None };
            failed.on_failure(Moment::START, &wish.tracker, failure);
        } else {
            let reply = AnnounceReply::new(Duration::from_secs(1_800));
            failed.on_reply(Moment::START, &wish.tracker, &reply);
        }
    }
    let never = Announcer::new(vec![vec![url("a")]], TierPolicy::All, Rng::from_seed(1));
    let mut departures = Departures::new([
        DepartingTorrent { announcer: failed, peers: 0 },
        DepartingTorrent { announcer: never, peers: 3 },
    ]);
    let goodbye = departures.poll().unwrap();
    assert_eq!((goodbye.torrent, goodbye.wish.tracker.place()), (0, "b:1".to_owned()));
    assert_eq!(departures.poll(), None);
    assert_eq!(departures.missed().hosts, [("b:1".to_owned(), 1)].into());
}

#[test]
fn a_host_that_never_answers_is_given_up_and_holds_up_no_other() {
    let mut torrents: Vec<DepartingTorrent> =
        (0..1_000).map(|_| known(&["dead"], 100, 5)).collect();
    torrents.extend((0..1_000).map(|_| known(&["live"], 0, 0)));
    let mut departures = Departures::new(torrents);
    let (mut silent, mut told) = (Vec::new(), 0);
    while let Some(goodbye) = departures.poll() {
        match goodbye.wish.tracker.host().as_str() {
            "dead" => silent.push(goodbye),
            _ => {
                told += 1;
                departures.settle(&goodbye, true);
            }
        }
    }
    // The silent one has as many as it was asked at first, and the other one is done.
    assert_eq!((silent.len(), told), (AT_FIRST, 1_000));
    for goodbye in &silent {
        departures.settle(goodbye, false);
    }
    assert_eq!(departures.poll(), None);
    let untold = departures.missed();
    assert_eq!((untold.torrents, untold.hosts), (1_000, [("dead:1".to_owned(), 1_000)].into()));
}

#[test]
fn a_host_that_answers_is_told_of_more_at_a_time() {
    let mut departures = Departures::new((0..1_000).map(|_| known(&["a"], 0, 0)));
    let mut most = 0;
    let mut under_way = VecDeque::new();
    loop {
        under_way.extend(std::iter::from_fn(|| departures.poll()));
        most = most.max(under_way.len());
        let Some(goodbye) = under_way.pop_front() else { break };
        departures.settle(&goodbye, true);
    }
    assert_eq!(most, MOST_OF_A_HOST);
    assert!(departures.missed().is_empty());
}

#[test]
fn the_sentence_names_the_hosts_that_miss_most() {
    let mut untold = MissedGoodbyes::default();
    for host in ["a:1", "b:2", "b:2", "c:3", "d:4", "e:5", "f:6"] {
        untold.add([host.to_owned()]);
    }
    let text = untold.to_string();
    assert!(
        text.starts_with(
            "the trackers of `7` torrents were not told that we leave: `b:2` of `2`, "
        )
    );
    assert!(text.contains("`e:5` of `1` and `1` more hosts; "), "{text}");
    let mut one = MissedGoodbyes::default();
    one.add(["a\x1b:1".to_owned()]);
    assert!(
        one.to_string().starts_with("the trackers of `1` torrent were not told that we leave: ")
    );
    assert!(!one.to_string().contains('\x1b'));
}

proptest! {
    /// Whatever trackers do, each is told once about each torrent, bounds are respected, and missing
    /// goodbyes are known.
    #[test]
    fn every_goodbye_is_told_once_or_counted(
        torrents in prop::collection::vec((0usize..64, 0u32..5, 0usize..3), 0..200),
        answers in prop::collection::vec((any::<bool>(), 0usize..300), 1..400),
    ) {
        const HOSTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let of = |mask: usize| -> Vec<&str> {
            (0..6).filter(|host| mask & (1 << host) != 0).map(|host| HOSTS[host]).collect()
        };
        let all: usize = torrents.iter().map(|(mask, ..)| mask.count_ones() as usize).sum();
        let made = torrents.iter().map(|(mask, leechers, peers)| known(&of(*mask), *leechers, *peers));
        let mut departures = Departures::new(made);
        let (mut under_way, mut asked, mut told) = (Vec::new(), BTreeSet::new(), 0);
        let mut answers = answers.into_iter().cycle();
        loop {
            while let Some(goodbye) = departures.poll() {
                prop_assert!(asked.insert((goodbye.torrent, goodbye.wish.tracker.place())));
                under_way.push(goodbye);
            }
            prop_assert!(under_way.len() <= AT_ONCE);
            for host in HOSTS {
                let here = under_way.iter().filter(|goodbye| goodbye.wish.tracker.host() == host);
                prop_assert!(here.count() <= MOST_OF_A_HOST);
            }
            if under_way.is_empty() {
                break;
            }
            let (answered, which) = answers.next().unwrap();
            let goodbye = under_way.swap_remove(which % under_way.len());
            told += usize::from(answered);
            departures.settle(&goodbye, answered);
        }
        let untold = departures.missed();
        prop_assert_eq!(untold.hosts.values().sum::<usize>(), all - told);
        prop_assert_eq!(untold.torrents == 0, all == told);
    }
}
