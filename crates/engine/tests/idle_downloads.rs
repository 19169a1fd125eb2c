//! What downloads cost that nobody gives anything: counted in allocations, tasks and wakes of the
//! runtime, since times depend on the machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use piecework_core::BLOCK_LEN;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_engine::{AddTorrent, Session, TorrentHandle, TorrentState};
use piecework_proto::announce::TrackerUrl;
use piecework_proto::wire::Message;
use piecework_swarm::Cause;
use piecework_swarm::announcer::TrackerState;
use piecework_testkit::allocations::{
    CountingAllocator, ONE_AT_A_TIME, begin_peak, calls, live, peak,
};
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, one_piece, seeded, session_with, stranger, until, within,
};
use piecework_tracker::{TrackerConfig, TrackerServer};
use tokio::runtime::Handle;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Waits until the runtime has no more than `tasks`.
async fn asleep(tasks: usize) {
    within(async {
        while Handle::current().metrics().num_alive_tasks() > tasks {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// What it took to add torrents and have them fall asleep.
#[derive(Debug)]
struct Cost {
    calls: usize,
    bytes: usize,
}

/// Adds `torrents`, one after the other, so that nothing depends on how many threads there are.
async fn add_all(session: &Session, torrents: &[Arc<Metainfo>], root: &Path) -> Cost {
    let metrics = Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    let before = (calls(), live());
    for metainfo in torrents {
        let handle = add(session, metainfo, root, &[]);
        until(&handle, |handle| handle.status().state == TorrentState::Downloading).await;
        asleep(tasks).await;
    }
    Cost { calls: calls() - before.0, bytes: live().saturating_sub(before.1) }
}

#[tokio::test]
async fn ten_times_the_downloads_without_peers_cost_ten_times_as_much_and_nothing_while_idle() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..1_130).map(one_piece).collect();
    let session = session_with(|_| {});
    // What the first ones need that is needed once.
    add_all(&session, &torrents[..20], root.path()).await;
    let few = add_all(&session, &torrents[20..120], root.path()).await;
    let many = add_all(&session, &torrents[120..1_120], root.path()).await;
    assert!(many.calls <= few.calls * 11, "{few:?}, {many:?}");
    assert!(many.bytes <= few.bytes.max(50 * 1024) * 11, "{few:?}, {many:?}");
    assert!(many.bytes <= 1_000 * 4096, "{many:?}");

    let metrics = Handle::current().metrics();
    let before = (metrics.worker_park_count(0), calls());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (wakes, calls) = (metrics.worker_park_count(0) - before.0, calls() - before.1);
    // One for this pause, and one now and then for the addresses of this host.
    assert!(wakes <= 20 && calls <= 500, "{wakes} wakes, {calls} allocations");

    // They wait for peers all the same, and say so.
    let handle = session.get(torrents[50].info_hash()).unwrap();
    let waited = handle.waited();
    assert_eq!(waited.standing.map(|standing| standing.cause), Some(Cause::NoPeers));
    assert!(waited.time[Cause::NoPeers as usize] >= Duration::from_secs(6), "{waited:?}");
    assert_eq!(session.figures().leeching, 1_120);
    let all: Duration = (0..1_120).map(|_| Duration::from_secs(6)).sum();
    assert!(session.figures().waited[Cause::NoPeers as usize] >= all);
    session.shutdown().await;
}

#[tokio::test]
async fn downloads_that_are_started_at_once_begin_a_few_at_a_time_and_all_of_them() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (20_000..20_400).map(one_piece).collect();
    let session = session_with(|_| {});
    let tasks = Handle::current().metrics().num_alive_tasks();
    let mut handles = Vec::new();
    for metainfo in &torrents {
        let mut add = AddTorrent::new(Arc::clone(metainfo), root.path());
        add.paused = true;
        handles.push(session.add(add).unwrap());
    }
    for handle in &handles {
        let is_looked_at =
            |handle: &TorrentHandle| matches!(handle.status().state, TorrentState::Paused { .. });
        until(handle, is_looked_at).await;
    }
    asleep(tasks).await;
    let file = |handle: &TorrentHandle| {
        let name = handle.metainfo().info().name();
        ["", ".part"].iter().any(|end| root.path().join(format!("{name}{end}")).exists())
    };
    // Nothing else runs before all are told.
    for handle in &handles {
        handle.resume().await;
    }
    let awake = || Handle::current().metrics().num_alive_tasks() - tasks;
    assert!((1..=32).contains(&awake()), "{} tasks", awake());
    // Of those that wait, some change their mind.
    let (paused, removed) = (&handles[300], &handles[301]);
    paused.pause().await;
    session.remove(removed.metainfo().info_hash()).await;
    for (index, handle) in handles.iter().enumerate() {
        if ![300, 301].contains(&index) {
            until(handle, |handle| {
                assert!(awake() <= 32, "{} tasks", awake());
                file(handle)
            })
            .await;
        }
    }
    asleep(tasks).await;
    assert!(!file(paused) && !file(removed), "they were not to begin");
    paused.resume().await;
    until(paused, |handle| file(handle)).await;
    session.shutdown().await;
}

/// Adds torrents that a tracker at `url` takes, and ends the session. Gives what the end allocated.
async fn stop_all(torrents: &[Arc<Metainfo>], root: &Path, url: &TrackerUrl) -> usize {
    let session = session_with(|_| {});
    for metainfo in torrents {
        let mut add = AddTorrent::new(Arc::clone(metainfo), root);
        add.trackers = Some(vec![vec![url.clone()]]);
        session.add(add).unwrap();
    }
    for handle in session.torrents() {
        let is_known =
            |handle: &TorrentHandle| handle.status().trackers[0].state == TrackerState::Working;
        until(&handle, is_known).await;
    }
    let before = calls();
    let report = within(session.shutdown_by(Instant::now() + Duration::from_secs(50))).await;
    assert!(report.untold.is_empty() && report.running == 0, "{report:?}");
    calls() - before
}

#[tokio::test]
async fn ten_times_the_torrents_stop_at_ten_times_the_cost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let tracker =
        TrackerServer::start(TrackerConfig { observe: false, ..TrackerConfig::in_memory() });
    let tracker = within(tracker).await.unwrap();
    let url: TrackerUrl = format!("udp://{}/announce", tracker.local_addr()).parse().unwrap();
    let torrents: Vec<_> = (10_000..11_100).map(one_piece).collect();
    // What the first ones need that is needed once.
    stop_all(&torrents[..10], root.path(), &url).await;
    let few = stop_all(&torrents[..100], root.path(), &url).await;
    let many = stop_all(&torrents[100..], root.path(), &url).await;
    assert!(many <= few * 11, "{few}, {many}");
    within(tracker.shutdown()).await;
}

#[tokio::test]
async fn a_download_that_sleeps_wakes_for_a_peer_and_goes_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let bytes = content(8 * 65_536, 3);
    let (source, metainfo) = seeded("file.bin", &bytes, 65_536);
    let (target, session) = (tempfile::tempdir().unwrap(), session_with(|_| {}));
    let tasks = Handle::current().metrics().num_alive_tasks();
    let handle = add(&session, &metainfo, target.path(), &[]);
    until(&handle, |handle| handle.status().state == TorrentState::Downloading).await;
    asleep(tasks).await;
    assert!(handle.peers().await.is_empty());
    // Somebody dials it who has half of it, and goes; it sleeps again, and keeps what it got.
    let mut peer =
        RawPeer::connect(session.listen_addrs()[0], &metainfo, stranger(1)).await.unwrap();
    peer.send(&Message::HaveAll).await.unwrap();
    peer.send(&Message::Unchoke).await.unwrap();
    let mut given = 0;
    // It fills one piece after the other.
    while given < 18 {
        match within(peer.hear()).await {
            Some(PeerMessage::Message(Message::Request(block))) => {
                let span = metainfo.info().geometry().block_span(block);
                let data = &bytes[span.start as usize..span.end as usize];
                peer.send_block(block, data).await.unwrap();
                given += 1;
            }
            Some(_) => {}
            None => panic!("it has gone after {given} blocks"),
        }
    }
    until(&handle, |handle| handle.status().pieces_have >= 4).await;
    drop(peer);
    // Somebody who has everything dials it.
    let seeder = session_with(|_| {});
    let mut seed = AddTorrent::new(Arc::clone(&metainfo), source.path());
    seed.assume_complete = true;
    seed.peers = session.listen_addrs().to_vec();
    seeder.add(seed).unwrap();
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
    assert_eq!(session.figures().leeching, 0);
    session.shutdown().await;
    seeder.shutdown().await;
}

/// Of the session under test.
const MEMORY: usize = 4 << 20;

/// A peer that says that it has everything and serves everybody. It gives all of a piece but its
/// last block if `gives`, else nothing.
async fn pretend(session: &Session, metainfo: &Metainfo, gives: bool) -> RawPeer {
    let mut peer =
        RawPeer::connect(session.listen_addrs()[0], metainfo, stranger(7)).await.unwrap();
    peer.send(&Message::HaveAll).await.unwrap();
    peer.send(&Message::Unchoke).await.unwrap();
    let geometry = metainfo.info().geometry();
    let mut sent = 0;
    while gives && sent < geometry.blocks_per_piece() - 1 {
        let Some(heard) = within(peer.hear()).await else { break };
        if let PeerMessage::Message(Message::Request(block)) = heard
            && block.begin + block.len < geometry.piece_size(block.piece)
        {
            peer.send_block(block, &vec![1; block.len as usize]).await.unwrap();
            sent += 1;
        }
    }
    peer
}

/// Downloads 8 MiB beside `others` torrents, of each of which a peer pretends to give something.
async fn beside_pretenders(gives: bool, others: usize) {
    const PIECE: u32 = 64 * BLOCK_LEN;
    let bytes = content(8 << 20, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, 16 * BLOCK_LEN);
    let target = tempfile::tempdir().unwrap();
    let session = session_with(|config| {
        config.memory_budget = MEMORY as u64;
        config.max_connections_per_ip = 1_000;
    });
    let before = live();
    let mut peers = Vec::new();
    for number in 0..others {
        let len = u64::from(PIECE) * 8;
        let name = format!("other-{number}");
        let mut digests = vec![0; 8 * 20];
        digests[..8].copy_from_slice(&number.to_le_bytes());
        let builder = MetainfoBuilder::single_file(name, len).piece_len(PIECE);
        let other = Arc::new(builder.build(digests).unwrap());
        let handle = add(&session, &other, target.path(), &[]);
        until(&handle, |handle| handle.status().state == TorrentState::Downloading).await;
        peers.push(pretend(&session, &other, gives).await);
    }
    begin_peak();
    let seeder = session_with(|_| {});
    let mut seed = AddTorrent::new(Arc::clone(&metainfo), source.path());
    seed.assume_complete = true;
    seeder.add(seed).unwrap();
    let handle = add(&session, &metainfo, target.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    let copy = std::fs::read(target.path().join("file.bin")).unwrap();
    // All peers, those that read the files included, have their buffers beside the memory.
    let most = MEMORY + 2 * (8 << 20) + others * (256 << 10) + (8 << 20);
    let grown = peak().saturating_sub(before);
    assert!(grown <= most, "{} KiB of {} KiB", grown >> 10, most >> 10);
    assert!(copy == bytes);
    drop(peers);
    session.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_only_promise_keep_no_memory_from_others() {
    let _alone = ONE_AT_A_TIME.lock().await;
    beside_pretenders(false, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_are_never_finished_keep_no_memory_from_others_and_take_no_more() {
    let _alone = ONE_AT_A_TIME.lock().await;
    beside_pretenders(true, 80).await;
}
