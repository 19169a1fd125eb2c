//! Pausing, rechecking, removing and shutting down, at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use piecework_core::Bitfield;
use piecework_core::metainfo::{Metainfo, ParseLimits, TorrentSource};
use piecework_engine::{AddTorrent, TorrentEvent, TorrentHandle, TorrentState};
use piecework_testkit::{
    EventRecorder, RawPeer, add, content, seeded, session, session_with, stranger, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PIECE: u32 = 64 * 1024;

fn is_seeding(handle: &TorrentHandle) -> bool {
    handle.status().state == TorrentState::Seeding
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_after_a_check_that_failed_checks_again() {
    let bytes = content(300_000, 1);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let path = source.path().join("file.bin");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(400_000).unwrap();
    let session = session(None);
    let handle = add(&session, &metainfo, source.path(), &[]);
    let error = within(handle.completed()).await.unwrap_err().to_string();
    assert!(error.contains("longer"), "{error}");
    file.set_len(300_000).unwrap();
    handle.resume().await;
    // Nobody could give it anything: what is there has been found.
    until(&handle, is_seeding).await;
    assert_eq!(
        within(handle.have()).await,
        Some(Bitfield::full(metainfo.info().geometry().pieces()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_and_peers_survive_a_recheck() {
    let bytes = content(300_000, 2);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let handle = add(&leecher, &metainfo, target.path(), &[]);
    handle.add_peers(seeder.listen_addrs().to_vec()).await;
    within(handle.completed()).await.unwrap();
    let mut damaged = bytes.clone();
    damaged[70_000] ^= 1;
    std::fs::write(target.path().join("file.bin"), damaged).unwrap();
    handle.recheck().await;
    let in_all = bytes.len() as u64 + u64::from(PIECE);
    until(&handle, |handle| is_seeding(handle) && handle.status().downloaded == in_all).await;
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rechecks_and_pauses_in_the_middle_of_a_download_confuse_nothing() {
    for piece in [16 * 1024, 32 << 20] {
        let bytes = content(6_000_000, 3);
        let (source, metainfo) = seeded("file.bin", &bytes, piece);
        let target = tempfile::tempdir().unwrap();
        let witness = Arc::new(EventRecorder::default());
        let (one, two) = (session(None), session(None));
        // Slow enough that all of this happens while it downloads.
        let leecher = session_with(|config| {
            config.observer = Some(Arc::clone(&witness) as _);
            config.download_limit = Some(8 << 20);
        });
        let mut addrs = Vec::new();
        for seeder in [&one, &two] {
            within(add(seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
            addrs.extend_from_slice(seeder.listen_addrs());
        }
        let handle = add(&leecher, &metainfo, target.path(), &addrs);
        for round in 1..=12 {
            let some = round * 200_000;
            until(&handle, |h| h.status().downloaded >= some || is_seeding(h)).await;
            match round % 3 {
                0 => handle.recheck().await,
                1 => {
                    handle.pause().await;
                    handle.resume().await;
                }
                _ => {
                    handle.pause().await;
                    handle.pause().await;
                    handle.recheck().await;
                }
            }
        }
        // Answered behind the last recheck, whose seeding is then not an old one's.
        let _ = within(handle.have()).await;
        until(&handle, is_seeding).await;
        assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
        let wrong = witness.events.lock().iter().any(|event| {
            // What came of pieces that a pause gave up is not used, and nothing else goes wrong.
            let usual = matches!(event, TorrentEvent::PieceDone { .. } | TorrentEvent::Completed);
            !usual && !matches!(event, TorrentEvent::Unused { .. })
        });
        assert!(!wrong, "{:?}", witness.events.lock());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_torrent_leaves_nothing_behind() {
    let bytes = content(3_000_000, 4);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    // One that never answers: its dial is under way when the torrent goes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = [seeder.listen_addrs()[0], silent.local_addr().unwrap()];
    let handle = add(&leecher, &metainfo, target.path(), &peers);
    let addr = leecher.listen_addrs()[0];
    let (mut dialled, _) = within(silent.accept()).await.unwrap();
    until(&handle, |handle| handle.status().pieces_have > 0).await;
    let idle = RawPeer::connect(addr, &metainfo, stranger(b'1')).await.unwrap();

    assert!(within(leecher.remove(metainfo.info_hash())).await);
    idle.dropped().await;
    let mut heard = Vec::new();
    let _ = within(dialled.read_to_end(&mut heard)).await;
    assert!(within(seeder.remove(metainfo.info_hash())).await);
    let mut handle = handle;
    within(async { while handle.changed().await.is_ok() {} }).await;
    drop(handle);
    // Links may still have their last words to say.
    within(async {
        while Arc::strong_count(&metainfo) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // And it can come back.
    let handle = add(&leecher, &metainfo, source.path(), &[]);
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_during_a_check_ends_it() {
    let bytes = content(8 << 20, 5);
    let (source, metainfo) = seeded("file.bin", &bytes, 16 * 1024);
    let session = session(None);
    for _ in 0..10 {
        let handle = add(&session, &metainfo, source.path(), &[]);
        assert!(within(session.remove(metainfo.info_hash())).await);
        // Either way it ends: on a slow machine the check may be over before the removal.
        let pieces = metainfo.info().geometry().pieces();
        let whole = handle.clone();
        let ended = within(handle.completed()).await;
        assert!(ended.is_err() || whole.status().pieces_have == pieces);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_in_the_middle_of_everything_ends() {
    let bytes = content(6_000_000, 6);
    let (source, metainfo) = seeded("file.bin", &bytes, 16 * 1024);
    let seeder = session(None);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    for some in [0, 1, 1_000_000, 3_000_000] {
        let target = tempfile::tempdir().unwrap();
        let leecher = session(None);
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        until(&handle, |h| h.status().downloaded >= some).await;
        within(leecher.shutdown()).await;
        // What was verified before the end is there.
        let held = handle.status().pieces_have;
        let again = session(None);
        let handle = add(&again, &metainfo, target.path(), &[]);
        until(&handle, |h| !matches!(h.status().state, TorrentState::Checking { .. })).await;
        assert!(handle.status().pieces_have >= held);
    }
}

/// Answers one announce when told to, and gives what was asked.
async fn answer(listener: &TcpListener, when: impl Future<Output = ()>) -> String {
    let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
    }
    when.await;
    let body = "d8:intervali1800e5:peers0:e";
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
    let reply = format!("{head}{}\r\n\r\n{body}", body.len());
    stream.write_all(reply.as_bytes()).await.unwrap();
    String::from_utf8(asked).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_the_first_announce_is_told_to_the_tracker() {
    let bytes = content(100_000, 7);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let session = session(None);
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), source.path());
    torrent.trackers = Some(vec![vec![url.parse().unwrap()]]);
    session.add(torrent).unwrap();
    let (leaving, info_hash) = (session.clone(), metainfo.info_hash());
    let removal = async move { leaving.remove(info_hash).await };
    let mut removing = None;
    let begin_to_remove = async {
        removing = Some(tokio::spawn(removal));
        while session.get(metainfo.info_hash()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    let first = within(answer(&listener, begin_to_remove)).await;
    assert!(first.contains("event=started"), "{first}");
    let second = within(answer(&listener, async {})).await;
    assert!(second.contains("event=stopped"), "{second}");
    assert!(within(removing.unwrap()).await.unwrap());
}

/// A `.torrent` that can be read, or not, and how often it was.
#[derive(Default)]
struct Shelf {
    torrent: parking_lot::Mutex<Option<Vec<u8>>>,
    reads: AtomicUsize,
}

impl TorrentSource for Shelf {
    fn read(&self, _: &str) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.torrent.lock().clone().ok_or_else(|| "`a.torrent` is not there".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn piece_hashes_are_in_memory_only_when_something_is_verified() {
    let bytes = content(300_000, 4);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let shelf = Arc::new(Shelf::default());
    let torrent = metainfo.bytes().unwrap().to_vec();
    let reads = || shelf.reads.load(Ordering::Relaxed);
    *shelf.torrent.lock() = Some(torrent.clone());
    metainfo.set_source(Arc::clone(&shelf) as _);

    let session = session(None);
    let mut new = AddTorrent::new(Arc::clone(&metainfo), source.path());
    new.assume_complete = true;
    let handle = session.add(new).unwrap();
    within(handle.completed()).await.unwrap();
    let fetch = async || {
        let target = tempfile::tempdir().unwrap();
        let leecher = session_with(|_| {});
        let own = Arc::new(Metainfo::parse(&torrent, &ParseLimits::default()).unwrap());
        within(add(&leecher, &own, target.path(), session.listen_addrs()).completed())
            .await
            .unwrap();
        assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
        leecher.shutdown().await;
    };
    fetch().await;
    assert_eq!(reads(), 0, "seeding needs no hashes");

    let checked = async || {
        handle.recheck().await;
        let _ = within(handle.have()).await;
        let has_failed = |handle: &TorrentHandle| {
            matches!(handle.status().state, TorrentState::Paused { reason: Some(_) })
        };
        until(&handle, |handle| is_seeding(handle) || has_failed(handle)).await;
    };
    checked().await;
    assert!(is_seeding(&handle));
    assert_eq!(reads(), 1);
    // It may not sleep yet, and then it has them still.
    *shelf.torrent.lock() = None;
    metainfo.let_go();
    checked().await;
    let TorrentState::Paused { reason: Some(reason) } = handle.status().state else {
        panic!("{:?}", handle.status().state)
    };
    assert!(reason.contains("`a.torrent` is not there"), "{reason}");

    *shelf.torrent.lock() = Some(torrent.clone());
    handle.resume().await;
    until(&handle, is_seeding).await;
    fetch().await;
}
