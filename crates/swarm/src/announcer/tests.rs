use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use piecework_core::Rng;

impl Announcer {
    /// Returns what to announce now if there is a place for every announce.
    pub(super) fn poll(&mut self, now: Moment) -> Option<AnnounceTask> {
        if !self.line_up(now, &mut |_| HostState::InLine) {
            return None;
        }
        let wish = self.turn(now, |_| true);
        assert!(wish.is_some(), "what stood in line is not to be asked");
        wish
    }
}

fn url(name: &str) -> TrackerUrl {
    TrackerUrl::parse(&format!("udp://{name}:1")).unwrap()
}

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

/// Creates an announcer from names of trackers in tiers: `[&["a", "b"], &["c"]]`.
fn announcer(tiers: &[&[&str]]) -> Announcer {
    let tiers = tiers.iter().map(|tier| tier.iter().map(|name| url(name)).collect()).collect();
    Announcer::new(tiers, TierPolicy::First, Rng::from_seed(1))
}

fn reply(interval: u64) -> AnnounceReply {
    AnnounceReply::new(Duration::from_secs(interval))
}

/// Returns what to announce at this moment, as host and event.
fn wish(announcer: &mut Announcer, now: Moment) -> Option<(String, AnnounceEvent)> {
    announcer.poll(now).map(|wish| (wish.tracker.host(), wish.event))
}

fn asked(host: &str, event: AnnounceEvent) -> Option<(String, AnnounceEvent)> {
    Some((host.to_owned(), event))
}

fn fail(announcer: &mut Announcer, now: Moment, host: &str) {
    announcer.on_failure(now, &url(host), unreachable());
}

fn unreachable() -> AnnounceFailure {
    AnnounceFailure { reason: "gone".to_owned(), refused: false, retry: None }
}

fn refuse(announcer: &mut Announcer, now: Moment, host: &str, retry: Option<Retry>) {
    let failure = AnnounceFailure { reason: "no".to_owned(), refused: true, retry };
    announcer.on_failure(now, &url(host), failure);
}

fn reply_with_least(interval: u64, least: u64) -> AnnounceReply {
    AnnounceReply { min_interval: Some(Duration::from_secs(least)), ..reply(interval) }
}

#[test]
fn started_comes_first_then_regular_announces_at_the_interval() {
    let mut a = announcer(&[&["a"]]);
    assert_eq!(a.deadline(), Some(Moment::START));
    assert_eq!(wish(&mut a, at(3)), asked("a", AnnounceEvent::Started));
    assert_eq!((wish(&mut a, at(3)), a.deadline()), (None, None), "one is under way");
    a.on_reply(at(4), &url("a"), &reply(100));
    assert_eq!((wish(&mut a, at(103)), a.deadline()), (None, Some(at(104))));
    assert_eq!(wish(&mut a, at(104)), asked("a", AnnounceEvent::None));
}

#[test]
fn tracker_down_at_start_is_tried_again_with_growing_pauses() {
    let mut a = announcer(&[&["a"]]);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..14 {
        assert_eq!(wish(&mut a, now), asked("a", AnnounceEvent::Started));
        fail(&mut a, now, "a");
        let next = a.deadline().unwrap();
        assert_eq!(wish(&mut a, next - Duration::from_millis(1)), None);
        pauses.push(next.since(now).as_millis());
        now = next;
    }
    for (pause, base) in pauses.iter().zip([5_000, 15_000, 30_000, 60_000, 120_000]) {
        assert!((base * 4 / 5..=base * 6 / 5).contains(pause), "{pause} ms are not {base} ± 20 %");
    }
    assert!(pauses[12..].iter().all(|pause| (1_440_000..=1_800_000).contains(pause)));
}

#[test]
fn tracker_down_half_way_gives_way_to_the_next_tier_and_is_tried_first_again() {
    let mut a = announcer(&[&["a"], &["b"]]);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(100));
    assert_eq!(wish(&mut a, at(100)), asked("a", AnnounceEvent::None));
    fail(&mut a, at(101), "a");
    assert_eq!(wish(&mut a, at(101)), asked("b", AnnounceEvent::Started), "b knows nothing yet");
    a.on_reply(at(102), &url("b"), &reply(100));
    assert_eq!(wish(&mut a, at(150)), None, "b has answered, so nobody else is asked");
    assert_eq!(wish(&mut a, at(202)), asked("a", AnnounceEvent::None));
    fail(&mut a, at(202), "a");
    assert_eq!(wish(&mut a, at(202)), asked("b", AnnounceEvent::None));
}

#[test]
fn the_working_tracker_moves_to_the_front_of_its_tier() {
    let mut a = announcer(&[&["a", "b", "c"], &["d"]]);
    let first = wish(&mut a, at(0)).unwrap().0;
    fail(&mut a, at(0), &first);
    let second = wish(&mut a, at(0)).unwrap().0;
    assert_ne!(first, second);
    a.on_reply(at(0), &url(&second), &reply(60));
    assert_eq!(wish(&mut a, at(60)), asked(&second, AnnounceEvent::None));
    assert_eq!(a.statuses()[0].url, url(&second));
    assert_eq!(a.statuses()[3].url, url("d"));
}

#[test]
fn tiers_are_shuffled_within_and_kept_in_order() {
    let mut firsts = BTreeSet::new();
    for seed in 0..40 {
        let tiers = vec![vec![url("a"), url("b"), url("c")], vec![url("d")]];
        let a = Announcer::new(tiers, TierPolicy::First, Rng::from_seed(seed));
        let order: Vec<_> = a.statuses().into_iter().map(|status| status.url.host()).collect();
        assert_eq!(order[3], "d");
        firsts.insert(order[0].clone());
    }
    assert_eq!(firsts.len(), 3);
}

#[test]
fn slow_failures_starve_no_tracker() {
    let mut a = announcer(&[&["a"], &["b"], &["c"]]);
    let mut now = at(0);
    let mut hosts = Vec::new();
    for _ in 0..3 {
        let (host, _) = wish(&mut a, now).unwrap();
        // Longer than the first pause of the earlier trackers.
        now = now + Duration::from_secs(15);
        fail(&mut a, now, &host);
        hosts.push(host);
    }
    assert_eq!(hosts, ["a", "b", "c"]);
    assert_eq!(wish(&mut a, now), asked("a", AnnounceEvent::Started), "its pause is over");
}

#[test]
fn completed_is_told_once_and_at_once() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply(1_800));
    a.complete();
    assert!(a.deadline().unwrap() <= at(1));
    assert_eq!(wish(&mut a, at(1)), asked("a", AnnounceEvent::Completed));
    fail(&mut a, at(1), "a");
    let retry = a.deadline().unwrap();
    assert_eq!(wish(&mut a, retry), asked("a", AnnounceEvent::Completed), "it was not taken");
    a.on_reply(retry, &url("a"), &reply(1_800));
    a.complete();
    assert_eq!(a.deadline(), Some(retry + Duration::from_secs(1_800)));
}

#[test]
fn completed_follows_started_where_that_was_not_told_yet() {
    let mut a = announcer(&[&["a"]]);
    a.complete();
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(1_800));
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Completed));
    a.on_reply(at(0), &url("a"), &reply(1_800));
    assert_eq!(wish(&mut a, at(1)), None);
}

#[test]
fn stopped_goes_to_those_that_were_told_started() {
    let mut a = announcer(&[&["a"], &["b"], &["c"]]);
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply(10));
    wish(&mut a, at(10));
    fail(&mut a, at(10), "a");
    wish(&mut a, at(10));
    a.on_reply(at(10), &url("b"), &reply(10));
    a.stop();
    assert!(!a.is_stopped() && a.deadline().is_some());
    assert_eq!(wish(&mut a, at(11)), asked("a", AnnounceEvent::Stopped));
    assert_eq!(wish(&mut a, at(11)), asked("b", AnnounceEvent::Stopped), "not one by one");
    assert_eq!((wish(&mut a, at(11)), a.deadline()), (None, None));
    fail(&mut a, at(12), "a");
    assert!(!a.is_stopped());
    a.on_reply(at(12), &url("b"), &reply(10));
    assert!(a.is_stopped());
    assert_eq!((wish(&mut a, at(9_999)), a.deadline()), (None, None));
}

#[test]
fn stopping_before_anything_was_told_is_done_at_once() {
    let mut a = announcer(&[&["a"]]);
    a.stop();
    assert!(a.is_stopped());
    assert_eq!(wish(&mut a, at(0)), None);
}

#[test]
fn a_started_that_is_answered_after_stop_is_taken_back() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    a.stop();
    assert!(!a.is_stopped());
    a.on_reply(at(1), &url("a"), &reply(10));
    assert_eq!(wish(&mut a, at(1)), asked("a", AnnounceEvent::Stopped));
}

#[test]
fn more_peers_are_asked_for_no_sooner_than_the_least_interval() {
    let mut a = announcer(&[&["a"]]);
    a.announce_early(at(0));
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply_with_least(1_800, 60));
    a.announce_early(at(5));
    assert_eq!(a.deadline(), Some(at(60)));
    a.announce_early(at(5));
    assert_eq!(wish(&mut a, at(60)), asked("a", AnnounceEvent::None));

    a.on_reply(at(60), &url("a"), &reply_with_least(1_800, 300));
    a.announce_early(at(61));
    assert_eq!(a.deadline(), Some(at(360)));
    a.announce_early(at(400));
    assert_eq!(a.deadline(), Some(at(360)), "never later than before");
}

#[test]
fn a_lonely_leecher_keeps_to_the_interval_where_no_lesser_one_is_given() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply(1_800));
    for second in 1..1_800 {
        a.announce_early(at(second));
        assert_eq!(wish(&mut a, at(second)), None, "after {second} s");
    }
    assert_eq!(wish(&mut a, at(1_800)), asked("a", AnnounceEvent::None));
}

#[test]
fn a_least_interval_that_is_longer_than_the_interval_holds() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply_with_least(5, 60));
    assert_eq!((wish(&mut a, at(59)), a.deadline()), (None, Some(at(60))));
    assert_eq!(wish(&mut a, at(60)), asked("a", AnnounceEvent::None));
}

#[test]
fn a_second_tracker_is_not_asked_before_its_own_interval_is_over() {
    let mut a = announcer(&[&["a"], &["b"]]);
    wish(&mut a, at(0));
    fail(&mut a, at(0), "a");
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("b"), &reply_with_least(100, 100));
    assert_eq!(wish(&mut a, at(100)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(100), &url("a"), &reply(10));
    assert_eq!(wish(&mut a, at(110)), asked("a", AnnounceEvent::None));
    a.on_reply(at(110), &url("a"), &reply(1_000));
    let next = a.deadline().unwrap();
    assert_eq!(next, at(1_110));
    wish(&mut a, next);
    fail(&mut a, next, "a");
    assert_eq!(wish(&mut a, next), asked("b", AnnounceEvent::None), "its interval is over");
    a.on_reply(next, &url("b"), &reply_with_least(3_000, 3_000));
    let again = a.deadline().unwrap();
    assert_eq!(again, at(1_110 + 3_000));
}

#[test]
fn a_refusal_holds_for_as_long_as_the_tracker_says() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    refuse(&mut a, at(0), "a", Some(Retry::After(Duration::from_secs(900))));
    for second in [1, 60, 899] {
        a.announce_early(at(second));
        a.complete();
        assert_eq!(wish(&mut a, at(second)), None, "after {second} s");
    }
    assert_eq!(a.deadline(), Some(at(900)));
    a.stop();
    a.restart();
    assert_eq!(wish(&mut a, at(899)), None, "a restart does not lift it");
    assert_eq!(wish(&mut a, at(900)), asked("a", AnnounceEvent::Started));
}

#[test]
fn refusals_without_a_time_hold_for_half_a_minute_and_then_twice_as_long() {
    let mut a = announcer(&[&["a"]]);
    let mut now = at(0);
    for least in [30, 60, 120, 240] {
        assert!(wish(&mut a, now).is_some());
        refuse(&mut a, now, "a", None);
        let next = a.deadline().unwrap();
        assert!(next.since(now) >= Duration::from_secs(least), "{least} s");
        now = next;
    }
}

#[test]
fn a_tracker_that_says_never_is_asked_again_only_by_a_user() {
    let mut a = announcer(&[&["a"], &["b"]]);
    wish(&mut a, at(0));
    refuse(&mut a, at(0), "a", Some(Retry::Never));
    assert_eq!(wish(&mut a, at(0)), asked("b", AnnounceEvent::Started), "others are asked");
    refuse(&mut a, at(0), "b", Some(Retry::Never));
    assert_eq!((wish(&mut a, at(100_000)), a.deadline()), (None, None));
    assert!(a.statuses().iter().all(|status| status.next_announce.is_none()));
    a.announce_early(at(100_000));
    a.restart();
    assert_eq!(wish(&mut a, at(100_000)), None);
    a.reannounce(at(100_000));
    assert_eq!(wish(&mut a, at(100_000)), asked("a", AnnounceEvent::Started));
}

#[test]
fn a_lying_tracker_cannot_make_us_flood_it_or_forget_it() {
    let mut a = announcer(&[&["a"]]);
    wish(&mut a, at(0));
    a.on_reply(at(0), &url("a"), &reply(0));
    assert_eq!(a.deadline(), Some(at(1_800)));
    wish(&mut a, at(1_800));
    a.on_reply(at(1_800), &url("a"), &reply(u32::MAX.into()));
    assert_eq!(a.deadline(), Some(at(1_800 + 86_400)));
}

#[test]
fn the_tracker_id_is_sent_back() {
    let mut a = announcer(&[&["a"]]);
    assert_eq!(a.poll(at(0)).unwrap().tracker_id, None);
    let id = Some(Bytes::from_static(b"x"));
    a.on_reply(at(0), &url("a"), &AnnounceReply { tracker_id: id.clone(), ..reply(1) });
    assert_eq!(a.poll(at(1)).unwrap().tracker_id, id);
    a.on_reply(at(1), &url("a"), &reply(1));
    assert_eq!(a.poll(at(2)).unwrap().tracker_id, id, "it stays until there is another");
}

#[test]
fn statuses_tell_how_things_stand() {
    let mut a = announcer(&[&["a"], &["b"], &["c"]]);
    wish(&mut a, at(0));
    fail(&mut a, at(0), "a");
    wish(&mut a, at(0));
    let told = AnnounceReply {
        complete: 3,
        incomplete: 4,
        warning: Some("old client".to_owned()),
        peers: vec!["1.2.3.4:5".parse().unwrap()],
        ..reply(60)
    };
    a.on_reply(at(0), &url("b"), &told);
    let [failed, working, idle] = &a.statuses()[..] else { panic!("three trackers") };
    assert_eq!(failed.state, TrackerState::Failed);
    assert_eq!(failed.last_error.as_deref(), Some("gone"));
    assert_eq!(failed.next_announce, Some(at(60)), "with the next round");
    assert_eq!(working.state, TrackerState::Working);
    assert_eq!((working.seeds, working.leechers, working.peers), (Some(3), Some(4), 1));
    assert_eq!(working.warning.as_deref(), Some("old client"));
    assert_eq!(working.next_announce, Some(at(60)));
    assert_eq!((idle.state, idle.next_announce), (TrackerState::Idle, None));
    wish(&mut a, at(60));
    assert_eq!(a.statuses()[0].state, TrackerState::Announcing);
}

#[test]
fn each_tracker_keeps_when_it_last_took_an_announce() {
    let last = |a: &Announcer, of: &str| {
        a.statuses().into_iter().find(|status| status.url == url(of)).unwrap().last_announce
    };
    let mut a = announcer(&[&["a"], &["b"]]);
    wish(&mut a, at(0));
    fail(&mut a, at(1), "a");
    wish(&mut a, at(1));
    assert_eq!((last(&a, "a"), last(&a, "b")), (None, None), "asked is not answered");
    a.on_reply(at(2), &url("b"), &reply(60));
    assert_eq!((last(&a, "a"), last(&a, "b")), (None, Some(at(2))));
    // The trackers are replaced: those that stay keep their times.
    a.set_tiers(vec![vec![url("b")], vec![url("c")]]);
    assert_eq!((last(&a, "b"), last(&a, "c")), (Some(at(2)), None));
    assert_eq!(wish(&mut a, at(100)).unwrap().0, "b");
    fail(&mut a, at(101), "b");
    assert_eq!(last(&a, "b"), Some(at(2)), "a failure leaves it as it is");
    assert_eq!(wish(&mut a, at(101)).unwrap().0, "c");
    a.on_reply(at(102), &url("c"), &reply(60));
    assert_eq!(last(&a, "c"), Some(at(102)));
}

/// Like [`announcer`], but announces to one tracker of every tier.
fn announcer_to_all(urls: &[&[&str]]) -> Announcer {
    let parse = |url: &&str| TrackerUrl::parse(url).unwrap();
    let tiers = urls.iter().map(|tier| tier.iter().map(parse).collect()).collect();
    Announcer::new(tiers, TierPolicy::All, Rng::from_seed(1))
}

#[test]
fn every_tier_is_announced_to_and_keeps_its_own_time() {
    let mut a = announcer_to_all(&[&["udp://a:1"], &["udp://b:1"]]);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    assert_eq!(wish(&mut a, at(0)), asked("b", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(100));
    a.on_reply(at(0), &url("b"), &reply(1_000));
    a.complete();
    assert_eq!(wish(&mut a, at(1)), asked("a", AnnounceEvent::Completed));
    assert_eq!(wish(&mut a, at(1)), asked("b", AnnounceEvent::Completed));
    a.on_reply(at(1), &url("a"), &reply(100));
    refuse(&mut a, at(1), "b", Some(Retry::After(Duration::from_secs(5_000))));
    assert_eq!(a.deadline(), Some(at(101)));
    assert_eq!(wish(&mut a, at(101)), asked("a", AnnounceEvent::None), "b's refusal is its own");
    assert_eq!(wish(&mut a, at(101)), None);
}

/// An answer with another peer in it.
fn reply_with_peer(interval: u64) -> AnnounceReply {
    let peers = vec!["10.0.0.1:6881".parse().unwrap()];
    AnnounceReply { peers, complete: 1, incomplete: 1, ..reply(interval) }
}

#[test]
fn line_5_trackers_that_know_nobody_do_not_end_a_tier() {
    let mut a = announcer_to_all(&[&["udp://a:1", "udp://b:1", "udp://c:1", "udp://d:1"]]);
    let order: Vec<String> = a.statuses().iter().map(|status| status.url.host()).collect();
    let started = |host: &str| asked(host, AnnounceEvent::Started);
    assert_eq!(wish(&mut a, at(0)), started(&order[0]));
    // It counts us, and returns our own address.
    let own = AnnounceReply { complete: 0, incomplete: 1, ..reply_with_peer(100) };
    a.on_reply(at(0), &url(&order[0]), &own);
    assert_eq!(wish(&mut a, at(0)), started(&order[1]));
    fail(&mut a, at(0), &order[1]);
    assert_eq!(wish(&mut a, at(0)), started(&order[2]));
    a.on_reply(at(0), &url(&order[2]), &reply_with_peer(200));
    assert_eq!(wish(&mut a, at(150)), None, "one that knows somebody is enough");
    // That one is asked first from then on, and is enough as long as it knows another peer.
    assert_eq!(wish(&mut a, at(200)), asked(&order[2], AnnounceEvent::None));
    a.on_reply(at(200), &url(&order[2]), &reply_with_peer(200));
    assert_eq!((wish(&mut a, at(399)), a.deadline()), (None, Some(at(400))));
    // All trackers that know us are told when we leave.
    a.stop();
    let told: Vec<_> = std::iter::from_fn(|| wish(&mut a, at(401))).collect();
    let left = [&order[0], &order[2]].map(|host| (host.clone(), AnnounceEvent::Stopped));
    assert!(told.len() == 2 && left.iter().all(|left| told.contains(left)), "{told:?}");
}

#[test]
fn line_5_if_no_tracker_knows_anybody_each_is_asked_again_when_it_allows() {
    let mut a = announcer_to_all(&[&["udp://a:1", "udp://b:1"], &["udp://c:1"]]);
    let mut hosts = Vec::new();
    while let Some((host, _)) = wish(&mut a, at(0)) {
        a.on_reply(at(0), &url(&host), &reply(if host == "a" { 300 } else { 100 }));
        hosts.push(host);
    }
    hosts.sort();
    assert_eq!(hosts, ["a", "b", "c"]);
    let mut asked = BTreeMap::new();
    for second in 1..=300 {
        while let Some((host, event)) = wish(&mut a, at(second)) {
            assert_eq!(event, AnnounceEvent::None);
            a.on_reply(at(second), &url(&host), &reply(if host == "a" { 300 } else { 100 }));
            asked.entry(host).or_insert(Vec::new()).push(second);
        }
    }
    let expected = [("a", vec![300]), ("b", vec![100, 200, 300]), ("c", vec![100, 200, 300])];
    assert_eq!(asked, expected.map(|(host, times)| (host.to_owned(), times)).into());
}

#[test]
fn to_the_letter_of_bep_12_the_first_answer_is_enough() {
    let mut a = announcer(&[&["a", "b"], &["c"]]);
    let (host, _) = wish(&mut a, at(0)).unwrap();
    a.on_reply(at(0), &url(&host), &reply(100));
    assert_eq!((wish(&mut a, at(99)), a.deadline()), (None, Some(at(100))));
}

#[test]
fn another_way_to_a_tracker_that_knows_nobody_is_not_asked() {
    let mut a = announcer_to_all(&[&["udp://a:1"], &["http://a:1/announce", "udp://b:1"]]);
    let mut asked = Vec::new();
    while let Some(wish) = a.poll(at(0)) {
        asked.push(wish.tracker.as_str().to_owned());
        a.on_reply(at(0), &wish.tracker, &reply(100));
    }
    assert_eq!(asked, ["udp://a:1", "udp://b:1"]);
}

#[test]
fn two_ways_to_one_tracker_are_announced_to_once() {
    let mut a = announcer_to_all(&[&["udp://a:1"], &["http://a:1/announce"], &["udp://a:2"]]);
    let hosts: Vec<_> = std::iter::from_fn(|| a.poll(at(0))).map(|w| w.tracker).collect();
    assert_eq!(hosts, [url("a"), TrackerUrl::parse("udp://a:2").unwrap()]);
    fail(&mut a, at(0), "a");
    assert_eq!(a.poll(at(0)).unwrap().tracker.as_str(), "http://a:1/announce");
}

#[test]
fn trackers_that_stay_keep_their_time_when_others_come() {
    let mut a = announcer_to_all(&[&["udp://a:1"], &["udp://b:1"]]);
    while a.poll(at(0)).is_some() {}
    a.on_reply(at(0), &url("a"), &reply(100));
    a.on_reply(at(0), &url("b"), &reply(200));
    a.set_tiers(vec![vec![url("b")], vec![url("c")]]);
    assert_eq!(wish(&mut a, at(1)), asked("a", AnnounceEvent::Stopped));
    assert_eq!(wish(&mut a, at(1)), asked("c", AnnounceEvent::Started));
    assert_eq!((wish(&mut a, at(1)), a.deadline()), (None, Some(at(200))));
}

#[test]
fn a_tracker_that_forgot_us_hears_started_at_once() {
    let mut a = announcer_to_all(&[&["udp://a:1"], &["udp://b:1"]]);
    while a.poll(at(0)).is_some() {}
    a.on_reply(at(0), &url("a"), &reply(100));
    a.on_reply(at(0), &url("b"), &reply(100));
    let is_b = |tracker: &TrackerUrl| tracker.host() == "b";
    assert!(a.is_known_to(is_b));
    a.was_forgotten(is_b);
    assert!(!a.is_known_to(is_b));
    assert_eq!(wish(&mut a, at(5)), asked("b", AnnounceEvent::Started));
    assert_eq!(wish(&mut a, at(5)), None);
}

#[test]
fn no_trackers_and_too_many_trackers_are_borne() {
    let mut none = announcer(&[&[], &[]]);
    assert_eq!((wish(&mut none, at(0)), none.deadline()), (None, None));
    none.announce_early(at(0));
    none.complete();
    assert_eq!((wish(&mut none, at(0)), none.deadline()), (None, None));
    let many = (0..5_000).map(|n| url(&format!("t{n}"))).collect();
    assert_eq!(
        Announcer::new(vec![many], TierPolicy::All, Rng::from_seed(1)).statuses().len(),
        MAX_TRACKERS
    );
    assert_eq!(announcer(&[&["a", "a"], &["a"]]).statuses().len(), 1);
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let mut a = announcer(&[&["a"]]);
    a.on_reply(at(0), &url("a"), &reply(60));
    a.on_reply(at(0), &url("z"), &reply(60));
    fail(&mut a, at(0), "a");
    assert_eq!(a.statuses()[0].state, TrackerState::Idle);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u16),
    Reply(u16, Option<u16>),
    Fail,
    Refuse(Option<u16>),
    MorePeers,
    Complete,
    Stop,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u16>().prop_map(Step::Wait),
        6 => any::<(u16, Option<u16>)>().prop_map(|(interval, least)| Step::Reply(interval, least)),
        6 => Just(Step::Fail),
        3 => any::<Option<u16>>().prop_map(Step::Refuse),
        1 => Just(Step::MorePeers),
        1 => Just(Step::Complete),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    /// Whatever happens, each tracker is told `started` first and `stopped` last, `completed` is accepted
    /// once, intervals and refusals are respected, and the deadline is right.
    #[test]
    fn every_tracker_hears_a_sound_story(
        steps in proptest::collection::vec(any_step(), 1..200),
        policy in prop_oneof![Just(TierPolicy::All), Just(TierPolicy::First)],
        seed: u64,
    ) {
        let tiers = vec![vec![url("a"), url("b")], vec![url("c")], vec![url("d"), url("e")]];
        let mut a = Announcer::new(tiers, policy, Rng::from_seed(seed));
        let rounds = if policy == TierPolicy::All { 3 } else { 1 };
        let (mut now, mut stopped, mut completed) = (at(0), false, 0);
        let mut under_way: Vec<AnnounceTask> = Vec::new();
        let mut knows_us: BTreeMap<TrackerUrl, bool> = BTreeMap::new();
        // Until when a tracker's interval and refusal apply.
        let mut closed: BTreeMap<TrackerUrl, Moment> = BTreeMap::new();
        let mut refused: BTreeMap<TrackerUrl, Moment> = BTreeMap::new();
        let mut layouts = Layouts::default();
        for step in steps {
            if let Some(resting) = a.rest(&mut layouts) {
                let woken = resting.wake();
                prop_assert_eq!(format!("{woken:?}"), format!("{a:?}"));
                a = woken;
            }
            match step {
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds.into()),
                Step::Reply(interval, least) => {
                    if let Some(wish) = under_way.pop() {
                        completed += usize::from(wish.event == AnnounceEvent::Completed);
                        let present = wish.event != AnnounceEvent::Stopped;
                        knows_us.insert(wish.tracker.clone(), present);
                        let seconds = |least: u16| Duration::from_secs(least.into());
                        let min_interval = least.map(seconds);
                        let reply = AnnounceReply { min_interval, ..reply(interval.into()) };
                        a.on_reply(now, &wish.tracker, &reply);
                        // Zero means nothing, and nothing is announced within a second.
                        let held = min_interval.filter(|least| !least.is_zero());
                        let regular = if interval == 0 { 1_800 } else { interval.into() };
                        let held = held.unwrap_or(Duration::from_secs(regular));
                        closed.insert(wish.tracker.clone(), now + held);
                    }
                }
                Step::Fail => {
                    if let Some(wish) = under_way.pop() {
                        if wish.event == AnnounceEvent::Stopped {
                            knows_us.insert(wish.tracker.clone(), false);
                        }
                        a.on_failure(now, &wish.tracker, unreachable());
                    }
                }
                Step::Refuse(pause) => {
                    if let Some(wish) = under_way.pop() {
                        if wish.event == AnnounceEvent::Stopped {
                            knows_us.insert(wish.tracker.clone(), false);
                        }
                        let after = Duration::from_secs(pause.unwrap_or_default().into());
                        let retry = pause.map(|_| Retry::After(after));
                        let reason = "no".to_owned();
                        let failure = AnnounceFailure { reason, refused: true, retry };
                        a.on_failure(now, &wish.tracker, failure);
                        refused.insert(wish.tracker.clone(), now + after);
                    }
                }
                Step::MorePeers => a.announce_early(now),
                Step::Complete => a.complete(),
                Step::Stop => {
                    a.stop();
                    stopped = true;
                }
            }
            loop {
                let due = a.deadline().is_some_and(|deadline| deadline <= now);
                let Some(wish) = a.poll(now) else {
                    prop_assert!(!due, "the deadline has come and nothing is wished");
                    break;
                };
                prop_assert!(due, "something is wished before the deadline");
                let known = knows_us.get(&wish.tracker).copied();
                let holds = |until: &BTreeMap<TrackerUrl, Moment>| {
                    until.get(&wish.tracker).is_some_and(|until| now < *until)
                };
                prop_assert!(wish.event == AnnounceEvent::Stopped || !holds(&refused));
                prop_assert!(wish.event != AnnounceEvent::None || !holds(&closed));
                match wish.event {
                    AnnounceEvent::Started => prop_assert_ne!(known, Some(true)),
                    AnnounceEvent::Stopped => prop_assert!(stopped && known == Some(true)),
                    AnnounceEvent::None => prop_assert!(known == Some(true)),
                    AnnounceEvent::Completed => {
                        prop_assert!(known == Some(true) && completed < rounds);
                    }
                }
                under_way.push(wish);
                prop_assert!(stopped || under_way.len() <= rounds);
            }
        }
        prop_assert!(completed <= rounds);
    }
}

#[test]
fn a_restart_is_a_new_start_even_before_the_stop_was_heard() {
    let mut a = announcer(&[&["a"]]);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(100));
    a.stop();
    assert_eq!(wish(&mut a, at(5)), asked("a", AnnounceEvent::Stopped));
    a.restart();
    assert_eq!(wish(&mut a, at(5)), None, "one is under way");
    a.on_reply(at(6), &url("a"), &reply(100));
    assert_eq!(a.statuses()[0].state, TrackerState::Stopped);
    assert_eq!(wish(&mut a, at(6)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(7), &url("a"), &reply(100));
    assert_eq!((wish(&mut a, at(8)), a.deadline()), (None, Some(at(107))));
}

#[test]
fn a_completed_download_is_told_once_however_often_it_restarts() {
    let mut a = announcer(&[&["a"]]);
    a.complete();
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(100));
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Completed));
    a.on_reply(at(1), &url("a"), &reply(100));
    a.stop();
    assert_eq!(wish(&mut a, at(2)), asked("a", AnnounceEvent::Stopped));
    a.on_reply(at(2), &url("a"), &reply(100));
    assert!(a.is_stopped());
    a.restart();
    assert_eq!(wish(&mut a, at(3)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(3), &url("a"), &reply(100));
    assert_eq!(wish(&mut a, at(4)), None);
}

#[test]
fn trackers_that_go_are_told_and_those_that_stay_keep_their_time() {
    let mut a = announcer(&[&["a"], &["b"]]);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.on_reply(at(0), &url("a"), &reply(100));
    a.set_tiers(vec![vec![url("c")], vec![url("a")]]);
    assert_eq!(wish(&mut a, at(1)), None, "a knows us, and its interval holds");
    a.set_tiers(vec![vec![url("c")]]);
    assert_eq!(a.deadline(), Some(Moment::START));
    assert_eq!(wish(&mut a, at(2)), asked("a", AnnounceEvent::Stopped));
    assert_eq!(wish(&mut a, at(2)), asked("c", AnnounceEvent::Started));
    fail(&mut a, at(3), "a");
    a.on_reply(at(3), &url("c"), &reply(100));
    let urls: Vec<_> = a.statuses_by_tier().into_iter().map(|(at, t)| (at, t.url.host())).collect();
    assert_eq!(urls, [(0, "c".to_owned())]);
    assert!(a.leaving.is_empty());
    a.set_tiers(Vec::new());
    assert_eq!(wish(&mut a, at(4)), asked("c", AnnounceEvent::Stopped));
    a.on_reply(at(4), &url("c"), &reply(100));
    assert!(a.is_empty());
}

#[test]
fn a_tracker_that_is_asked_while_it_goes_is_told_when_it_has_answered() {
    let mut a = announcer(&[&["a"]]);
    assert_eq!(wish(&mut a, at(0)), asked("a", AnnounceEvent::Started));
    a.set_tiers(vec![vec![url("b")]]);
    assert_eq!(wish(&mut a, at(0)), asked("b", AnnounceEvent::Started));
    a.on_reply(at(1), &url("a"), &reply(100));
    assert_eq!(wish(&mut a, at(1)), asked("a", AnnounceEvent::Stopped));
    a.set_tiers(vec![vec![url("a")], vec![url("b")]]);
    a.on_reply(at(2), &url("a"), &reply(100));
    assert_eq!(a.statuses()[0].state, TrackerState::Stopped, "it may be asked anew");
}
