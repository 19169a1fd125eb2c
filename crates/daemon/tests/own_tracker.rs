//! Torrents whose tracker is one of ours: what many of them cost, counted in allocations, since times
//! depend on the machine, and how it knows its peers again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use piecework_core::metainfo::Metainfo;
use piecework_engine::{AddTorrent, Session};
use piecework_proto::announce::{CatalogueUrl, TrackerTarget};
use piecework_testkit::allocations::{CountingAllocator, ONE_AT_A_TIME, calls, live};
use piecework_testkit::daemon::Home;
use piecework_testkit::own_tracker::{OwnTracker, TrackerBehavior};
use piecework_testkit::{one_piece, session_with};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What it took to add torrents.
#[derive(Debug)]
struct Cost {
    calls: usize,
    bytes: usize,
}

fn add_all(session: &Session, torrents: &[Arc<Metainfo>], root: &Path, tracker: &str) -> Cost {
    let before = (calls(), live());
    for metainfo in torrents {
        let target = TrackerTarget::parse(tracker).unwrap();
        let mut add = AddTorrent::new(Arc::clone(metainfo), root);
        add.trackers = Some(target.tiers);
        add.catalogue = target.catalogue.map(CatalogueUrl::named);
        (add.assume_complete, add.paused) = (true, true);
        session.add(add).unwrap();
    }
    Cost { calls: calls() - before.0, bytes: live().saturating_sub(before.1) }
}

#[tokio::test]
async fn torrents_of_one_tracker_of_ours_share_its_http_client() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..1_120).map(one_piece).collect();
    let session = session_with(|_| {});
    // Nobody is there, and nobody is asked: the torrents are paused.
    let tracker = "127.0.0.1:9";
    add_all(&session, &torrents[..20], root.path(), tracker);
    let few = add_all(&session, &torrents[20..120], root.path(), tracker);
    let many = add_all(&session, &torrents[120..], root.path(), tracker);
    assert!(many.calls <= few.calls * 11, "{few:?}, {many:?}");
    assert!(many.bytes <= few.bytes.max(100 * 1024) * 11, "{few:?}, {many:?}");
    println!("{few:?}, {many:?}");
    // The torrent's own facts, and when its two trackers are asked.
    assert!(many.bytes <= 1_000 * 1_280, "{many:?}");
    session.shutdown().await;
}

/// Waits until next to nothing is allocated.
async fn quiet() {
    let mut quiet = 0;
    while quiet < 2 {
        let before = calls();
        tokio::time::sleep(Duration::from_millis(250)).await;
        quiet = if calls() - before < 40 { quiet + 1 } else { 0 };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_that_were_told_the_same_share_memory_for_it() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let home = Home::new();
    let daemon = home.start().await;
    let mut costs = Vec::new();
    for (range, is_told) in [(0..20, true), (20..420, false), (420..820, true)] {
        quiet().await;
        let before = live();
        for number in range {
            let mut new = home.tiny(number);
            new.settings.paused = true;
            if is_told {
                new.settings.labels = vec!["films".to_owned(), "of last year".to_owned()];
                let tiers = [["http://127.0.0.1:9/announce"], ["udp://127.0.0.1:9/announce"]];
                new.settings.trackers =
                    Some(tiers.map(|tier| tier.map(str::to_owned).to_vec()).to_vec());
            }
            daemon.add(new).await.unwrap();
        }
        quiet().await;
        costs.push(live().saturating_sub(before));
    }
    daemon.shutdown().await;
    // When it announces next, in tables that may have grown just now. What was said is some 600 bytes.
    let [_, silent, told] = costs[..] else { panic!("three costs") };
    assert!(told <= silent + 400 * 320, "{costs:?}");
}

#[tokio::test]
async fn a_second_session_reads_no_root_certificates() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let session = session_with(|_| {});
    session.shutdown().await;
    let before = calls();
    let session = session_with(|_| {});
    let made = calls() - before;
    session.shutdown().await;
    // Reading 140 certificates takes several thousand.
    assert!(made < 1_500, "{made} allocations");
}

/// Adds seeds that are announced over HTTP alone and reported.
fn seed_all(session: &Session, torrents: &[Arc<Metainfo>], root: &Path, tracker: &OwnTracker) {
    for metainfo in torrents {
        let target = TrackerTarget::parse(&format!("http://{}", tracker.addr)).unwrap();
        let mut add = AddTorrent::new(Arc::clone(metainfo), root);
        add.trackers = Some(target.tiers);
        add.catalogue = target.catalogue.map(CatalogueUrl::named);
        (add.assume_complete, add.upload_only) = (true, true);
        session.add(add).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_seeds_report_in_a_few_requests_over_a_few_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..1_120).map(one_piece).collect();
    let tracker = OwnTracker::start(TrackerBehavior::default()).await;
    let session = session_with(|_| {});
    let mut costs = Vec::new();
    let mut batches = Vec::new();
    for range in [0..20, 20..120, 120..1_120] {
        let (reported, before) = (range.end, (calls(), live()));
        let sent = tracker.seen.lock().batches.len();
        seed_all(&session, &torrents[range], root.path(), &tracker);
        tracker.saw(|seen| seen.taken.len() == reported).await;
        costs.push((calls() - before.0, live().saturating_sub(before.1)));
        batches.push(tracker.seen.lock().batches.len() - sent);
    }
    {
        let seen = tracker.seen.lock();
        assert_eq!(seen.refused, 0, "holdings were reported before they were announced");
        assert!(seen.taken.values().all(|times| *times == 1), "some were reported twice");
        assert!(seen.batches.iter().all(|reports| *reports <= 500), "{:?}", seen.batches);
        assert!(batches[2] <= 30, "{batches:?} requests for 1,000 torrents");
        // A tracker has half of the places for announces, and one request more reports. A client may open
        // a connection while another becomes free.
        assert!(seen.most_open <= 64, "{} connections at a time", seen.most_open);
        let [_, few, many] = costs[..] else { panic!("three costs") };
        assert!(many.0 <= few.0 * 11, "{costs:?} allocations, bytes");
        // The connections that are kept for 20 s are among them, with 64 KiB each.
        assert!(many.1 <= 1_000 * 2_560 + (4 << 20), "{costs:?} allocations, bytes");
    }
    session.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_takes_no_batches_gets_one_report_at_a_time() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..120).map(one_piece).collect();
    let tracker =
        OwnTracker::start(TrackerBehavior { single_only: true, ..TrackerBehavior::default() })
            .await;
    let session = session_with(|_| {});
    seed_all(&session, &torrents, root.path(), &tracker);
    tracker.saw(|seen| seen.taken.len() == 120).await;
    {
        let seen = tracker.seen.lock();
        assert!(seen.refused == 0 && seen.taken.values().all(|times| *times == 1));
        assert!(seen.batches.is_empty() && seen.most_open <= 64);
    }
    session.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_has_forgotten_a_torrent_hears_of_it_at_once() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..60).map(one_piece).collect();
    let tracker =
        OwnTracker::start(TrackerBehavior { forgetful: true, ..TrackerBehavior::default() }).await;
    let session = session_with(|_| {});
    seed_all(&session, &torrents, root.path(), &tracker);
    // The interval is half an hour.
    tracker.saw(|seen| seen.taken.len() == 60).await;
    {
        let seen = tracker.seen.lock();
        assert!(seen.started.values().all(|times| *times == 2), "{:?}", seen.started);
        assert_eq!(seen.refused, 60, "each is refused once");
    }
    session.shutdown().await;
}

/// Otherwise the tracker takes a daemon that was killed for a stranger at the same port until the old
/// one is forgotten, and refuses what it reports.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_started_again_announces_the_same_keys() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let tracker = OwnTracker::start(TrackerBehavior::default()).await;
    let home = Home::new();
    let daemon = home.start().await;
    let mut request = home.seed_request("a.bin", 100_000);
    request.trackers = vec![vec![format!("http://{}/announce", tracker.addr)]];
    daemon.seed(request).await.unwrap();
    tracker.saw(|seen| seen.keys.len() == 1).await;
    daemon.shutdown().await;
    let daemon = home.start().await;
    tracker.saw(|seen| seen.keys.len() == 2).await;
    daemon.shutdown().await;
    let keys = tracker.seen.lock().keys.clone();
    assert!(keys[0].is_long() && keys[0] == keys[1], "{keys:?}");
}
