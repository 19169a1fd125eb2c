//! The end of sessions and daemons: what is written first, which trackers are told, and how long it
//! takes when a disk or a tracker does not answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use piecework_core::metainfo::Metainfo;
use piecework_daemon::state::State;
use piecework_engine::{AddTorrent, Session, TorrentHandle};
use piecework_proto::announce::TrackerUrl;
use piecework_testkit::daemon::Home;
use piecework_testkit::{add, announce_reply, content, one_piece, seeded, session, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// A tracker over HTTP that may fall silent when it is told that a peer leaves.
struct Tracker {
    addr: SocketAddr,
    heard: watch::Receiver<Heard>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

#[derive(Default)]
struct Heard {
    started: usize,
    stopped: usize,
}

impl Tracker {
    async fn start(answers_stopped: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (told, heard) = watch::channel(Heard::default());
        let peers = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&peers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, told.clone(), answers_stopped, Arc::clone(&given)));
            }
        });
        Self { addr, heard, peers }
    }

    fn url(&self) -> TrackerUrl {
        format!("http://{}/announce", self.addr).parse().unwrap()
    }

    /// Waits until it has heard so much.
    async fn heard(&self, enough: impl Fn(&Heard) -> bool) {
        let mut heard = self.heard.clone();
        within(heard.wait_for(|heard| enough(heard))).await.unwrap();
    }

    fn stopped(&self) -> usize {
        self.heard.borrow().stopped
    }
}

async fn serve(
    mut stream: TcpStream,
    told: watch::Sender<Heard>,
    answers_stopped: bool,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
) {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let stops = request.windows(13).any(|part| part == b"event=stopped");
        told.send_modify(|heard| *if stops { &mut heard.stopped } else { &mut heard.started } += 1);
        if stops && !answers_stopped {
            return std::future::pending().await;
        }
        let body = announce_reply(&peers.lock().clone());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = [head.as_bytes(), &body].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn announced(
    session: &Session,
    metainfo: &Arc<Metainfo>,
    root: &Path,
    trackers: &[&Tracker],
) -> TorrentHandle {
    let mut add = AddTorrent::new(Arc::clone(metainfo), root);
    add.trackers = Some(trackers.iter().map(|tracker| vec![tracker.url()]).collect());
    session.add(add).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_does_not_answer_is_named_and_the_others_are_told() {
    const EACH: usize = 40;
    let root = tempfile::tempdir().unwrap();
    let (silent, live) = (Tracker::start(false).await, Tracker::start(true).await);
    let session = session(None);
    for number in 0..2 * EACH {
        let tracker = if number < EACH { &silent } else { &live };
        announced(&session, &one_piece(number), root.path(), &[tracker]);
    }
    for tracker in [&silent, &live] {
        tracker.heard(|heard| heard.started >= EACH).await;
    }
    // All answers have come.
    for handle in session.torrents() {
        until(&handle, |handle| {
            let works = |t: &piecework_swarm::announcer::TrackerStatus| {
                t.state == piecework_swarm::announcer::TrackerState::Working
            };
            handle.status().trackers.iter().all(works)
        })
        .await;
    }
    let report = within(session.shutdown_by(Instant::now() + Duration::from_secs(50))).await;
    assert_eq!(live.stopped(), EACH);
    assert_eq!((report.running, report.untold.torrents), (0, EACH));
    assert_eq!(report.untold.hosts, [(silent.addr.to_string(), EACH)].into());
    // It was given up soon, not asked again and again.
    assert!(silent.stopped() < EACH, "{}", silent.stopped());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_comes_in_time_though_no_tracker_answers() {
    let root = tempfile::tempdir().unwrap();
    let silent = Tracker::start(false).await;
    let session = session(None);
    let handle = announced(&session, &one_piece(1), root.path(), &[&silent]);
    silent.heard(|heard| heard.started >= 1).await;
    until(&handle, |handle| handle.status().trackers[0].seeds.is_some()).await;
    let deadline = Instant::now() + Duration::from_millis(700);
    let report = within(session.shutdown_by(deadline)).await;
    // The tracker has three seconds otherwise.
    assert!(Instant::now() < deadline + Duration::from_secs(2));
    assert_eq!(report.untold.torrents, 1);
    let told =
        format!("the trackers of `1` torrent were not told that we leave: `{}`", silent.addr);
    assert!(report.untold.to_string().starts_with(&told), "{}", report.untold);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announce_under_way_is_waited_for_and_followed_by_the_last_one() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 6), 16_384);
    // It takes the question, and answers only after the end has begun.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\nConnection: close\r\n\r\n\
                   d8:intervali1800e5:peers0:e";
    // It has a second to answer, which may be over on a machine that hangs.
    for _ in 0..5 {
        let session = session(None);
        let mut one = AddTorrent::new(Arc::clone(&metainfo), source.path());
        one.trackers = Some(vec![vec![url.parse().unwrap()]]);
        session.add(one).unwrap();
        let (mut first, _) = within(listener.accept()).await.unwrap();
        let mut request = vec![0; 1024];
        assert!(within(first.read(&mut request)).await.unwrap() > 0);
        let ending = session.clone();
        let ending = tokio::spawn(async move { ending.shutdown().await });
        // Whoever hung up has waited for long enough.
        let _ = first.write_all(answer).await;
        drop(first);
        let mut last = tokio::select! {
            last = listener.accept() => last.unwrap().0,
            _ = ending => continue,
        };
        let len = within(last.read(&mut request)).await.unwrap();
        assert!(String::from_utf8_lossy(&request[..len]).contains("event=stopped"));
        last.write_all(answer).await.unwrap();
        return;
    }
    panic!("the tracker was never told that the torrent leaves");
}

#[test]
fn a_torrent_that_cannot_stop_keeps_neither_the_end_nor_other_trackers_waiting() {
    // All that may wait for a disk is done by one thread here, which can be held up.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let open = Arc::new(RwLock::new(()));
    let held_up = open.write();
    runtime.block_on(async {
        let (source, metainfo) = seeded("file.bin", &content(300_000, 7), 16_384);
        let target = tempfile::tempdir().unwrap();
        let live = Tracker::start(true).await;
        let (seeder, leecher) = (session(None), session(None));
        within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
        seeder.set_limits(Some(50_000), None);
        let getting = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        let other = announced(&leecher, &one_piece(1), target.path(), &[&live]);
        until(&other, |handle| handle.status().trackers[0].seeds.is_some()).await;
        until(&getting, |handle| handle.status().pieces_have > 0).await;
        let (began, begun) = tokio::sync::oneshot::channel();
        let wait = Arc::clone(&open);
        tokio::task::spawn_blocking(move || {
            let _ = began.send(());
            drop(wait.read());
        });
        within(begun).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(4);
        let report = within(leecher.shutdown_by(deadline)).await;
        assert!(Instant::now() < deadline + Duration::from_secs(2));
        assert!(report.running >= 1);
        assert_eq!((live.stopped(), report.untold.is_empty()), (1, true));
    });
    drop(held_up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_journal_are_closed_before_trackers_are_told() {
    let home = Home::new();
    let silent = Tracker::start(false).await;
    let bytes = content(600_000, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, 16_384);
    let seeder = session(None);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    // Half of it comes, and then no more.
    seeder.set_limits(Some(200_000), None);
    silent.peers.lock().extend(seeder.listen_addrs());
    let daemon = home.start().await;
    let mut new = home.tiny(1);
    new.source = piecework_daemon::AddSource::Bytes(metainfo.bytes().unwrap().to_vec());
    new.trackers = vec![silent.url().as_str().to_owned()];
    let added = daemon.add(new).await.unwrap();
    let hash = added.info_hash;
    within(async {
        while daemon.torrent(hash).unwrap().bytes_have == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let ending = daemon.clone();
    let ending = tokio::spawn(async move { ending.shutdown().await });
    silent.heard(|heard| heard.stopped >= 1).await;
    // Killed now, it would lose nothing: another process could open the state this moment.
    let state = home.state();
    let opened = tokio::task::spawn_blocking(move || State::open(&state));
    let (state, loaded) = opened.await.unwrap().unwrap();
    assert!(loaded.clean && loaded.notice.is_none());
    let saved = &loaded.torrents[0];
    let held = saved.checkpoint.as_ref().unwrap();
    assert!(held.have.count() > 0);
    assert!(held.downloaded > 0 && saved.counters.last_active_at.is_some());
    assert!(!ending.is_finished());
    drop(state);
    within(ending).await.unwrap();
}
