//! Sessions and trackers that are down, go down, or lie.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_engine::{AddTorrent, Session, SessionConfig, TorrentHandle};
use piecework_proto::announce::TrackerUrl;
use piecework_proto::wire::Message;
use piecework_swarm::announcer::TrackerState;
use piecework_testkit::{
    RawPeer, announce_reply, content, seeded, session, silent_tracker, stranger, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PIECE: u32 = 64 * 1024;

fn add(
    session: &Session,
    metainfo: &Arc<Metainfo>,
    root: &Path,
    trackers: &[&TrackerUrl],
) -> TorrentHandle {
    let mut add = AddTorrent::new(Arc::clone(metainfo), root);
    add.trackers = Some(trackers.iter().map(|url| vec![(*url).clone()]).collect());
    session.add(add).unwrap()
}

/// Waits until the status of some tracker is as wanted.
async fn tracker_is(handle: &TorrentHandle, wanted: impl Fn(TrackerState, &str) -> bool) {
    let mut handle = handle.clone();
    within(async {
        loop {
            let trackers = handle.status().trackers;
            let fits = |t: &piecework_swarm::announcer::TrackerStatus| {
                wanted(t.state, t.last_error.as_deref().unwrap_or_default())
            };
            if trackers.iter().any(fits) {
                return;
            }
            handle.changed().await.unwrap();
        }
    })
    .await;
}

/// A tracker that gives everybody the answer `body`.
async fn tracker_that_says(body: Vec<u8>) -> TrackerUrl {
    tracker_that_says_in_turn(vec![body]).await
}

/// A tracker that gives these answers, and then the last one again and again.
async fn tracker_that_says_in_turn(bodies: Vec<Vec<u8>>) -> TrackerUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut answer = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = &bodies[answer.min(bodies.len() - 1)];
            answer += 1;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // A client that has heard enough may hang up.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body).await;
        }
    });
    url.parse().unwrap()
}

/// A tracker's address at which nobody listens.
async fn dead_tracker(scheme: &str) -> TrackerUrl {
    // Bound and let go of: the system gives it to nobody else soon.
    let addr = match scheme {
        "udp" => tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr(),
        _ => TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr(),
    };
    format!("{scheme}://{}/announce", addr.unwrap()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracker_down_at_start_is_told_and_the_next_tier_asked() {
    let bytes = content(300_000, 1);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let works = tracker_that_says(announce_reply(seeder.listen_addrs())).await;
    let (dead, deaf) = (dead_tracker("http").await, dead_tracker("udp").await);
    let handle = add(&leecher, &metainfo, target.path(), &[&dead, &deaf, &works]);
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
    let told = |state, error: &str| state == TrackerState::Failed && !error.is_empty();
    tracker_is(&handle, told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_of_every_tier_is_announced_to() {
    let bytes = content(300_000, 8);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (first, second) = (
        tracker_that_says(announce_reply(&[])).await,
        tracker_that_says(announce_reply(&[])).await,
    );
    let seeder = session(None);
    let handle = add(&seeder, &metainfo, source.path(), &[&first, &second]);
    let mut changed = handle.clone();
    within(async {
        let works =
            |t: &piecework_swarm::announcer::TrackerStatus| t.state == TrackerState::Working;
        while !handle.status().trackers.iter().all(works) {
            changed.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(handle.status().trackers.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_refuses_for_an_hour_is_left_alone_for_an_hour() {
    let bytes = content(300_000, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let refusal = b"d14:failure reason4:busy8:retry ini60ee".to_vec();
    let tracker = tracker_that_says(refusal).await;
    let seeder = session(None);
    let handle = add(&seeder, &metainfo, source.path(), &[&tracker]);
    tracker_is(&handle, |state, error| state == TrackerState::Failed && error.contains("busy"))
        .await;
    let in_an_hour = handle.status().trackers[0].next_announce.unwrap();
    let next = in_an_hour.since(piecework_core::Moment::START);
    assert!(next >= std::time::Duration::from_secs(3_600), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_whose_peers_are_of_no_use_asks_its_tracker_again() {
    let bytes = content(300_000, 3);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    // One peer that stays and holds nothing; the next answer names a seed.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let useless = listener.local_addr().unwrap();
    let answers = [&[useless][..], seeder.listen_addrs()].map(|peers| {
        let rest = announce_reply(peers).split_off(b"d8:intervali1800e".len());
        [b"d8:intervali1800e12:min intervali1e".to_vec(), rest].concat()
    });
    let tracker = tracker_that_says_in_turn(answers.to_vec()).await;
    let handle = add(&leecher, &metainfo, target.path(), &[&tracker]);
    let mut peer = within(RawPeer::accept(&listener, &metainfo, stranger(b'1'))).await.unwrap();
    peer.send(&Message::HaveNone).await.unwrap();
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_tracker_a_download_waits_and_can_be_given_peers() {
    let bytes = content(300_000, 2);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let dead = dead_tracker("http").await;
    let handle = add(&leecher, &metainfo, target.path(), &[&dead]);
    tracker_is(&handle, |state, _| state == TrackerState::Failed).await;
    handle.add_peers(seeder.listen_addrs().to_vec()).await;
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_is_silent_is_shown_as_asked() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 6), PIECE);
    // The system takes the connection, and nobody the question.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", silent.local_addr().unwrap()).parse().unwrap();
    let session = session(None);
    let handle = add(&session, &metainfo, source.path(), &[&url]);
    tracker_is(&handle, |state, error| state == TrackerState::Announcing && error.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torrent_that_is_added_again_while_it_leaves_keeps_its_trackers() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 6), PIECE);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", silent.local_addr().unwrap()).parse().unwrap();
    let session = session(None);
    let handle = add(&session, &metainfo, source.path(), &[&url]);
    tracker_is(&handle, |state, _| state == TrackerState::Announcing).await;
    let again = async { add(&session, &metainfo, source.path(), &[&url]) };
    let (was_there, again) = tokio::join!(session.remove(metainfo.info_hash()), again);
    assert!(was_there);
    assert_eq!(again.trackers().len(), 1);
    tracker_is(&again, |state, _| state == TrackerState::Announcing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracker_down_half_way_stops_no_download() {
    let config = piecework_tracker::TrackerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        torrents: None,
        state: None,
        ..piecework_tracker::TrackerConfig::default()
    };
    let tracker = piecework_tracker::TrackerServer::start(config).await.unwrap();
    let url = format!("udp://{}/announce", tracker.local_addr()).parse().unwrap();
    let bytes = content(3_000_000, 3);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    let seeding = add(&seeder, &metainfo, source.path(), &[&url]);
    within(seeding.completed()).await.unwrap();
    tracker_is(&seeding, |state, _| state == TrackerState::Working).await;
    // Slow enough that the tracker is gone before the end.
    leecher.set_limits(None, Some(1 << 20));
    let mut handle = add(&leecher, &metainfo, target.path(), &[&url]);
    within(async {
        while handle.status().pieces_have == 0 {
            handle.changed().await.unwrap();
        }
    })
    .await;
    tracker.shutdown().await;
    assert!(handle.status().pieces_have < handle.status().pieces_total);
    leecher.set_limits(None, None);
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_tracker_that_gives_our_own_address_and_port_0_does_no_harm() {
    let bytes = content(300_000, 4);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let lies = [
        leecher.listen_addrs()[0],
        "127.0.0.1:0".parse().unwrap(),
        "0.0.0.0:6881".parse().unwrap(),
        "255.255.255.255:6881".parse().unwrap(),
        seeder.listen_addrs()[0],
    ];
    let liar = tracker_that_says(announce_reply(&lies)).await;
    let handle = add(&leecher, &metainfo, target.path(), &[&liar]);
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_tracker_with_a_million_peers_is_not_listened_to() {
    let bytes = content(300_000, 5);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let liar = tracker_that_says(announce_reply(&vec![nobody; 1_000_000])).await;
    let handle = add(&leecher, &metainfo, target.path(), &[&liar]);
    tracker_is(&handle, |state, error| {
        state == TrackerState::Failed && error.contains("longer than")
    })
    .await;
    handle.add_peers(seeder.listen_addrs().to_vec()).await;
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_sleeps_goes_to_those_who_wait_for_it() {
    let config = piecework_tracker::TrackerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        torrents: None,
        state: None,
        ..piecework_tracker::TrackerConfig::default()
    };
    let tracker = piecework_tracker::TrackerServer::start(config).await.unwrap();
    let url: TrackerUrl = format!("udp://{}/announce", tracker.local_addr()).parse().unwrap();
    let (source, metainfo) = seeded("file.bin", &content(300_000, 7), PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    let handle = add(&leecher, &metainfo, target.path(), &[&url]);
    tracker_is(&handle, |state, _| state == TrackerState::Working).await;
    let mut complete = AddTorrent::new(Arc::clone(&metainfo), source.path());
    complete.trackers = Some(vec![vec![url]]);
    (complete.assume_complete, complete.upload_only) = (true, true);
    seeder.add(complete).unwrap();
    within(handle.completed()).await.unwrap();
}

/// Torrents of one small file each, none of which is there.
fn torrents(count: usize, name: &str) -> Vec<Arc<Metainfo>> {
    let torrent = |number: usize| {
        let builder = MetainfoBuilder::single_file(format!("{name}-{number}"), 16_000);
        let mut digest = vec![0; 20];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        Arc::new(builder.build(digest).unwrap())
    };
    (0..count).map(torrent).collect()
}

/// A tracker that drops every connection until it is told to answer, and counts connections.
async fn tracker_that_comes_back() -> (TrackerUrl, watch::Sender<bool>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap()).parse().unwrap();
    let (answers, is_back) = watch::channel(false);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            if !*is_back.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await?);
                }
                let body = "d8:intervali1800e5:peers0:e";
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await
            });
        }
    });
    (url, answers, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_torrents_of_a_dead_tracker_keep_none_of_a_live_one_waiting() {
    let (dead_url, asked) = silent_tracker().await;
    let (live_url, answers, _) = tracker_that_comes_back().await;
    answers.send_replace(true);
    let (root, session) = (tempfile::tempdir().unwrap(), session(None));
    let dead: Vec<_> = torrents(500, "dead")
        .iter()
        .map(|metainfo| add(&session, metainfo, root.path(), &[&dead_url]))
        .collect();
    tracker_is(&dead[0], |state, _| state == TrackerState::Announcing).await;
    // Some announce to both.
    for (number, metainfo) in torrents(100, "live").iter().enumerate() {
        let both = [&dead_url, &live_url];
        let trackers = if number % 2 == 0 { &both[1..] } else { &both[..] };
        let handle = add(&session, metainfo, root.path(), trackers);
        tracker_is(&handle, |state, _| state == TrackerState::Working).await;
    }
    // Four at first, and one after each pause should this have taken so long.
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..=8).contains(&asked), "{asked} announces to a tracker that does not answer");
    let waiting =
        dead.iter().filter(|handle| handle.trackers()[0].1.state != TrackerState::Working);
    assert_eq!(waiting.count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_tracker_is_back_all_its_torrents_announce_soon() {
    let (url, answers, connections) = tracker_that_comes_back().await;
    let (root, session) = (tempfile::tempdir().unwrap(), session(None));
    let handles: Vec<_> = torrents(200, "file")
        .iter()
        .map(|metainfo| add(&session, metainfo, root.path(), &[&url]))
        .collect();
    // All know why, though few have asked.
    for handle in &handles {
        tracker_is(handle, |state, error| state == TrackerState::Failed && !error.is_empty()).await;
    }
    let asked = connections.load(Ordering::Relaxed);
    assert!(asked <= 20, "{asked} connections to a tracker that is not there");
    answers.send_replace(true);
    for handle in &handles {
        tracker_is(handle, |state, error| state == TrackerState::Working && error.is_empty()).await;
    }
}

/// A peer that cannot connect to the seed waits for the seed to hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_8_a_seed_that_nobody_is_connected_to_asks_again_at_the_least_interval() {
    let (source, metainfo) = seeded("file.bin", &content(300_000, 8), PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    let handle = add(&leecher, &metainfo, target.path(), &[]);
    let with_least = |reply: Vec<u8>| {
        let rest = reply.split_at(b"d8:intervali1800e".len()).1.to_vec();
        let head = b"d8:completei1e10:incompletei1e8:intervali1800e12:min intervali1e";
        [&head[..], &rest].concat()
    };
    let nobody = || with_least(announce_reply(&[]));
    // One that it cannot reach is as good as nobody.
    let dead: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let somebody = with_least(announce_reply(&[leecher.listen_addrs()[0]]));
    let bodies = vec![nobody(), nobody(), with_least(announce_reply(&[dead])), somebody];
    let url = tracker_that_says_in_turn(bodies).await;
    let mut complete = AddTorrent::new(Arc::clone(&metainfo), source.path());
    complete.trackers = Some(vec![vec![url]]);
    (complete.assume_complete, complete.upload_only) = (true, true);
    seeder.add(complete).unwrap();
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_5_all_addresses_of_both_families_are_listened_on() {
    for (addr, other) in [("0.0.0.0:0", "::"), ("[::]:0", "0.0.0.0")] {
        let listen = vec![addr.parse().unwrap()];
        let config = SessionConfig { listen, ..SessionConfig::default() };
        // The port that the system chooses for one family may be taken for the other one.
        let mut sessions = (0..10).map(|_| Session::start(config.clone()).unwrap());
        let session = sessions.find(|session| session.listen_addrs().len() == 2);
        let session = session.expect("two addresses");
        let [first, second] = session.listen_addrs() else { panic!("two addresses") };
        assert_eq!((second.ip().to_string(), second.port()), (other.to_owned(), first.port()));
        let one = Session::start(SessionConfig { both_families: false, ..config }).unwrap();
        assert_eq!(one.listen_addrs().len(), 1);
    }
    let session = session(None);
    assert_eq!(session.listen_addrs().len(), 1, "an address that was named stands for itself");
}
