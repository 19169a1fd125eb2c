//! Torrents whose disk hangs or fails: the hash service and the records are reached from here.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::super::check_slots::{CheckSlot, CheckSlots};
use super::*;
use piecework_core::metainfo::Metainfo;
use piecework_core::{BLOCK_LEN, PieceIndex};
use piecework_storage::{CreateOptions, Operation, create};
use piecework_swarm::lifecycle::LifecycleEvent;

const PIECE: u32 = 4 * BLOCK_LEN;
/// Sixteen pieces.
const BUDGET: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Has every hash thread wait for `store`'s disk until what is returned is dropped.
fn hold_up(means: &Means, store: &Arc<Store>) -> Vec<Sender<()>> {
    let threads = 0..means.config.hash_threads;
    threads
        .map(|_| {
            let (sender, receiver) = channel::<()>();
            let wait = move |_| assert!(receiver.recv().is_err(), "nothing is sent");
            means.hashing.finish_piece_on_disk(Arc::clone(store), PieceIndex(0), false, wait);
            sender
        })
        .collect()
}

fn session(budget: u64) -> Session {
    let config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        choke: ChokePolicy::Closed,
        memory_budget: budget,
        hash_threads: 2,
        ..SessionConfig::default()
    };
    Session::start(config).unwrap()
}

/// A torrent of `pieces` pieces of random content in `folder`.
fn torrent(folder: &Path, name: &str, pieces: u32) -> Arc<Metainfo> {
    let mut rng = Rng::from_seed(pieces.into());
    let words = pieces * PIECE / 8;
    let bytes: Vec<u8> = (0..words).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let options = CreateOptions { piece_len: Some(PIECE), ..CreateOptions::default() };
    let never = AtomicBool::new(false);
    Arc::new(create(&path, options, 1, |_| {}, &never).unwrap().metainfo)
}

/// Waits until `wanted` holds of the torrent; `always` must all the time.
async fn until(
    handle: &TorrentHandle,
    always: impl Fn(&TorrentHandle) -> bool,
    wanted: impl Fn(&TorrentHandle) -> bool,
) {
    let mut watched = handle.clone();
    let waiting = async {
        loop {
            assert!(always(handle), "{:?}", handle.status());
            if wanted(handle) {
                break;
            }
            watched.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("the test waited in vain: {:?}", handle.status());
    }
}

/// What has come and is not written.
fn in_memory(handle: &TorrentHandle) -> u64 {
    let status = handle.status();
    status.downloaded - status.bytes_have
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_stops_its_own_torrent_within_the_budget_and_no_other() {
    let source = tempfile::tempdir().unwrap();
    let (large, small) = (torrent(source.path(), "large", 64), torrent(source.path(), "small", 32));
    let seeder = session(64 << 20);
    for metainfo in [&large, &small] {
        let mut add = AddTorrent::new(Arc::clone(metainfo), source.path());
        add.assume_complete = true;
        seeder.add(add).unwrap().completed().await.unwrap();
    }
    let leecher = session(BUDGET);
    let target = tempfile::tempdir().unwrap();
    let held_up = leecher.add(AddTorrent::new(Arc::clone(&large), target.path())).unwrap();
    let file = target.path().join("large");
    until(&held_up, |_| true, |_| file.exists()).await;
    let entry = leecher.parts.torrents.get(large.info_hash()).unwrap();
    let waiting = hold_up(&leecher.parts.means, &entry.store());

    // It takes what it may, and then no more.
    held_up.add_peers(seeder.listen_addrs().to_vec()).await;
    let bounded = |handle: &TorrentHandle| in_memory(handle) <= BUDGET;
    until(&held_up, bounded, |handle| handle.status().downloaded == BUDGET).await;

    let elsewhere = tempfile::tempdir_in("/dev/shm").ok();
    let device = |path: &Path| rustix::fs::stat(path).unwrap().st_dev;
    match elsewhere.filter(|folder| device(folder.path()) != device(target.path())) {
        Some(elsewhere) => {
            let mut add = AddTorrent::new(Arc::clone(&small), elsewhere.path());
            add.peers = seeder.listen_addrs().to_vec();
            let other = leecher.add(add).unwrap();
            tokio::time::timeout(PATIENCE, other.completed()).await.unwrap().unwrap();
            let copy = std::fs::read(elsewhere.path().join("small")).unwrap();
            assert!(copy == std::fs::read(source.path().join("small")).unwrap());
        }
        None => eprintln!("SKIPPED: there is no second disk here for another torrent"),
    }
    let status = held_up.status();
    assert_eq!((status.downloaded, status.bytes_have), (BUDGET, 0));

    drop(waiting);
    until(&held_up, bounded, |handle| handle.status().state == TorrentState::Seeding).await;
    let copy = std::fs::read(target.path().join("large")).unwrap();
    assert!(copy == std::fs::read(source.path().join("large")).unwrap());
    leecher.shutdown().await;
    seeder.shutdown().await;
}

/// Keeps nothing.
struct Forgetful;

impl crate::Keeper for Forgetful {
    fn keep(&self, _: InfoHash, _: piecework_core::Checkpoint) {}
}

#[tokio::test]
async fn a_disk_that_was_full_when_files_were_looked_at_is_tried_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = torrent(dir.path(), "full", 4);
    let keeper = Some(Arc::new(Forgetful) as Arc<dyn crate::Keeper>);
    let session = Session::start(SessionConfig { keeper, ..SessionConfig::default() }).unwrap();
    let handle = session.add(AddTorrent::new(Arc::clone(&metainfo), dir.path())).unwrap();
    until(&handle, |_| true, seeds).await;
    tokio::time::pause();
    let lifecycle = &session.parts.lifecycle;
    let entry = session.parts.torrents.get(handle.info_hash()).unwrap();
    let full = || crate::TorrentError::from(full());
    let look = || {
        entry.change_asleep(|record| {
            record.life = surveying();
            lifecycle.pass_workload(&entry, record);
            lifecycle.pass_survey(&entry, record, Err(full()))
        })
    };
    // It may be about to fall asleep.
    while !look() {
        tokio::task::yield_now().await;
    }
    assert!(!seeds(&handle), "{:?}", handle.status());
    until(&handle, |_| true, seeds).await;
}

/// What a full disk says.
fn full() -> StorageError {
    let operation = Operation::Write;
    StorageError::Full { operation, path: "file".into(), errno: rustix::io::Errno::NOSPC }
}

/// A torrent whose files are to be surveyed.
fn surveying() -> Lifecycle {
    Lifecycle::new(LifecycleConfig {
        content: ContentState::Surveying,
        has_checkpoint: true,
        keeps_checkpoints: true,
        paused: false,
    })
}

/// Changes the record of a torrent that sleeps or is about to.
async fn change(entry: &Arc<Entry>, mut change: impl FnMut(&mut Record)) {
    let mut once = || {
        entry.change_asleep(|record| {
            change(record);
            false
        })
    };
    while !once() {
        tokio::task::yield_now().await;
    }
}

/// A session that keeps checkpoints, and a whole torrent in it that seeds.
async fn seeding(folder: &Path) -> (Session, TorrentHandle, Arc<Entry>) {
    let metainfo = torrent(folder, "content", 4);
    let keeper = Some(Arc::new(Forgetful) as Arc<dyn crate::Keeper>);
    let config = SessionConfig { keeper, checks: 1, ..SessionConfig::default() };
    let session = Session::start(config).unwrap();
    let handle = session.add(AddTorrent::new(Arc::clone(&metainfo), folder)).unwrap();
    until(&handle, |_| true, seeds).await;
    let entry = session.parts.torrents.get(handle.info_hash()).unwrap();
    (session, handle, entry)
}

fn stopped(handle: &TorrentHandle) -> bool {
    matches!(handle.status().state, TorrentState::Paused { .. })
}

fn seeds(handle: &TorrentHandle) -> bool {
    handle.status().state == TorrentState::Seeding
}

#[tokio::test]
async fn a_torrent_that_is_paused_does_not_go_on_when_its_fault_has_passed() {
    let full = || crate::TorrentError::from(full());
    let again = || crate::TorrentError::from(StorageError::InUse { path: "file".into() });
    let dir = tempfile::tempdir().unwrap();
    let (session, handle, entry) = seeding(dir.path()).await;
    let lifecycle = &session.parts.lifecycle;
    for (error, is_paused_first) in [(full(), false), (again(), false), (full(), true)] {
        if is_paused_first {
            handle.pause().await;
            until(&handle, |_| true, stopped).await;
        }
        change(&entry, |record| {
            lifecycle.pass_fault(&entry, record, error.clone(), LifecycleEvent::Failed);
        })
        .await;
        if !is_paused_first {
            handle.pause().await;
        }
        change(&entry, |record| {
            assert!(!lifecycle.pass(&entry, record, LifecycleEvent::RetryDue { room: true }));
            assert!(record.life.is_paused());
        })
        .await;
        let paused = TorrentState::Paused { reason: Some(error.to_string()) };
        assert_eq!(handle.status().state, paused);
        handle.resume().await;
        until(&handle, |_| true, seeds).await;
    }
}

#[tokio::test]
async fn an_answer_to_an_earlier_look_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (_session, handle, entry) = seeding(dir.path()).await;
    let gone = || crate::TorrentError::AllMissing { root: "folder".into() };
    // A survey that does not answer before this test does.
    let survey = |record: &mut Record| {
        record.life = surveying();
        while record.life.poll().is_some() {}
        assert!(record.life.awaits_survey());
    };
    // What is answered after files have moved is about where they were.
    change(&entry, survey).await;
    let elsewhere = tempfile::tempdir().unwrap();
    handle.relocate(elsewhere.path(), false).await.unwrap();
    assert!(entry.post(Call::Surveyed(Err(gone()))).await);
    until(&handle, |handle| !stopped(handle), seeds).await;
    assert!(elsewhere.path().join("content").exists());
    change(&entry, survey).await;
    handle.rename([(0, vec!["renamed".to_owned()])].into()).await.unwrap();
    assert!(entry.post(Call::Surveyed(Err(gone()))).await);
    until(&handle, |handle| !stopped(handle), seeds).await;
}

#[tokio::test]
async fn a_torrent_with_a_fault_is_not_checked_before_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (session, handle, entry) = seeding(dir.path()).await;
    let lifecycle = &session.parts.lifecycle;
    let slots: &Arc<CheckSlots> = &lifecycle.check_slots;
    let (operation, path) = (Operation::Read, "file".into());
    let broken = StorageError::Other { operation, path, reason: "the disk is broken".to_owned() };
    let broken = crate::TorrentError::from(broken);
    let paused = TorrentState::Paused { reason: Some(broken.to_string()) };
    assert!(slots.ask(Arc::clone(&entry) as _), "nobody is checked");
    handle.recheck().await;
    until(&handle, |_| true, |handle| handle.status().state == TorrentState::Waiting).await;
    change(&entry, |record| {
        lifecycle.pass_fault(&entry, record, broken.clone(), LifecycleEvent::Failed);
    })
    .await;
    drop(CheckSlot::taken(slots));
    // The slot that comes is passed on at once.
    assert!(handle.have().await.is_some());
    assert!(slots.ask(Arc::clone(&entry) as _));
    assert_eq!(handle.status().state, paused);
    drop(CheckSlot::taken(slots));
    handle.resume().await;
    until(&handle, |_| true, seeds).await;
}
