//! What outlives a session, and what is done to a torrent while it is in one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{Checkpoint, InfoHash, Priority};
use piecework_engine::{
    AddError, AddTorrent, Keeper, Session, TorrentEvent, TorrentHandle, TorrentOptions,
    TorrentState,
};
use piecework_testkit::{
    EventRecorder, RawPeer, add, content, seeded, session, session_with, stranger, torrent_of,
    until, within,
};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PIECE: u32 = 64 * 1024;

/// Keeps the last checkpoint.
#[derive(Default)]
struct Memory {
    last: Mutex<Option<Checkpoint>>,
}

impl Keeper for Memory {
    fn keep(&self, _: InfoHash, checkpoint: Checkpoint) {
        *self.last.lock() = Some(checkpoint);
    }
}

impl Memory {
    fn last(&self) -> Checkpoint {
        self.last.lock().clone().expect("something was kept")
    }
}

fn keeping() -> (Session, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let keeper = Arc::clone(&memory) as Arc<dyn Keeper>;
    (session_with(|config| config.keeper = Some(keeper)), memory)
}

fn state(handle: &TorrentHandle) -> TorrentState {
    handle.status().state
}

async fn seeding(metainfo: &Arc<Metainfo>, root: &Path) -> Session {
    let seeder = session(None);
    within(add(&seeder, metainfo, root, &[]).completed()).await.unwrap();
    seeder
}

/// Adds with `checkpoint`, and gives every state until it neither waits nor is checked.
async fn resumed(
    session: &Session,
    metainfo: &Arc<Metainfo>,
    root: &Path,
    checkpoint: Checkpoint,
    paused: bool,
) -> (TorrentHandle, Vec<TorrentState>) {
    let mut torrent = AddTorrent::new(Arc::clone(metainfo), root);
    torrent.checkpoint = Some(checkpoint);
    torrent.paused = paused;
    let handle = session.add(torrent).unwrap();
    let mut watch = handle.clone();
    let mut states = vec![state(&watch)];
    within(async {
        while matches!(state(&watch), TorrentState::Waiting | TorrentState::Checking { .. }) {
            watch.changed().await.unwrap();
            states.push(state(&watch));
        }
    })
    .await;
    (handle, states)
}

fn checked(states: &[TorrentState]) -> bool {
    states.iter().any(|state| matches!(state, TorrentState::Checking { .. }))
}

/// A file of content downloaded with a keeper, its session shut down.
async fn downloaded(bytes: &[u8]) -> (tempfile::TempDir, Arc<Metainfo>, Checkpoint) {
    let (source, metainfo) = seeded("file.bin", bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let seeder = seeding(&metainfo, source.path()).await;
    let (leecher, memory) = keeping();
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    within(leecher.shutdown()).await;
    (target, metainfo, memory.last())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_download_resumes_without_a_check() {
    let bytes = content(700_000, 1);
    let (target, metainfo, kept) = downloaded(&bytes).await;
    assert!(kept.have.is_full() && !kept.writing);
    assert_eq!(kept.downloaded, bytes.len() as u64);
    for paused in [false, true] {
        let (session, _) = keeping();
        let (handle, states) =
            resumed(&session, &metainfo, target.path(), kept.clone(), paused).await;
        assert!(!checked(&states), "{states:?}");
        let wanted =
            if paused { TorrentState::Paused { reason: None } } else { TorrentState::Seeding };
        assert_eq!(state(&handle), wanted);
        assert_eq!(handle.status().downloaded, bytes.len() as u64);
        assert!(within(handle.have()).await.unwrap().is_full());
        if paused {
            handle.resume().await;
            within(handle.completed()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_somebody_changed_is_checked() {
    let bytes = content(700_000, 2);
    let (target, metainfo, kept) = downloaded(&bytes).await;
    let mut damaged = bytes.clone();
    damaged[70_000] ^= 1;
    std::fs::write(target.path().join("file.bin"), damaged).unwrap();
    let (session, _) = keeping();
    let (handle, _) = resumed(&session, &metainfo, target.path(), kept, false).await;
    assert_eq!(state(&handle), TorrentState::Downloading);
    assert_eq!(handle.status().pieces_have, handle.status().pieces_total - 1);
}

#[test]
fn after_a_crash_no_verified_piece_is_fetched_again() {
    let bytes = content(3_000_000, 3);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let crashed = runtime().unwrap();
    let (held, memory) = crashed.block_on(async {
        let seeder = seeding(&metainfo, source.path()).await;
        let (leecher, memory) = keeping();
        leecher.set_limits(None, Some(4 << 20));
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        until(&handle, |handle| handle.status().pieces_have >= 10).await;
        (handle.have().await.unwrap(), memory)
    });
    crashed.shutdown_background();
    let kept = memory.last();
    assert!(kept.writing, "it was kept before the first write");
    assert!(kept.have.count() < held.count(), "the crash came before the next word");
    runtime().unwrap().block_on(async {
        let (again, _) = keeping();
        let (handle, _) = resumed(&again, &metainfo, target.path(), kept, false).await;
        let found = within(handle.have()).await.unwrap();
        assert!(held.iter().all(|piece| found.contains(piece)));
        let seeder = seeding(&metainfo, source.path()).await;
        handle.add_peers(seeder.listen_addrs().to_vec()).await;
        within(handle.completed()).await.unwrap();
        let fetched = handle.status().downloaded;
        assert!(fetched <= bytes.len() as u64 - u64::from(held.count() - 1) * u64::from(PIECE));
    });
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

/// A file of zeros that takes no room on the disk, and its torrent.
fn hollow(gib: u64) -> (tempfile::TempDir, Arc<Metainfo>) {
    let dir = tempfile::tempdir().unwrap();
    let len = gib << 30;
    std::fs::File::create(dir.path().join("file.bin")).unwrap().set_len(len).unwrap();
    let hash = Sha1::digest(vec![0; 4 << 20]);
    let builder = MetainfoBuilder::single_file("file.bin", len).piece_len(4 << 20);
    let hashes = hash.repeat((len >> 22) as usize);
    (dir, Arc::new(builder.build(hashes).unwrap()))
}

/// Keeps the first checkpoint of a check that goes on, as a process would leave it that is killed
/// then.
#[derive(Default)]
struct Killed {
    at: Mutex<Option<Checkpoint>>,
    last: Mutex<Option<Checkpoint>>,
}

impl Keeper for Killed {
    fn keep(&self, _: InfoHash, checkpoint: Checkpoint) {
        let goes_on = checkpoint.unchecked.as_ref().is_some_and(|open| open.count() > 0);
        if goes_on && checkpoint.have.count() > 0 {
            self.at.lock().get_or_insert_with(|| checkpoint.clone());
        }
        *self.last.lock() = Some(checkpoint);
    }
}

/// Begins a check that takes a while, and gives what was kept in the middle of it.
async fn half_checked() -> (tempfile::TempDir, Arc<Metainfo>, Checkpoint) {
    // However fast the machine is, some file takes long enough.
    for gib in [1, 4, 16, 64] {
        let (source, metainfo) = hollow(gib);
        let killed = Arc::new(Killed::default());
        let keeper = Arc::clone(&killed) as Arc<dyn Keeper>;
        let session = session_with(|config| {
            config.keeper = Some(keeper);
            config.keep_check_every = 1;
        });
        let handle = add(&session, &metainfo, source.path(), &[]);
        let is_enough = |handle: &TorrentHandle| {
            killed.at.lock().is_some() || state(handle) == TorrentState::Seeding
        };
        until(&handle, is_enough).await;
        within(session.shutdown()).await;
        // Whatever was looked at by then was right, and nothing was taken for missing.
        let last = killed.last.lock().take().unwrap();
        assert!(last.may_be_whole());
        if let Some(at) = killed.at.lock().take() {
            assert!(last.have.count() >= at.have.count());
            return (source, metainfo, at);
        }
    }
    panic!("64 GiB are hashed within a tenth of a second");
}

/// Overwrites bytes of the file at `at`, and gives it the time of modification that it had.
fn change_unnoticed(folder: &Path, at: u64) -> (std::fs::File, std::time::SystemTime) {
    let path = folder.join("file.bin");
    let modified = path.metadata().unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", at).unwrap();
    file.set_modified(modified).unwrap();
    (file, modified)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_goes_on_where_its_process_was_killed() {
    let (source, metainfo, at) = half_checked().await;
    assert!(at.may_be_whole() && !at.have.is_full());
    // What was looked at is not read again: nobody notices what does not show.
    let first = at.have.iter().next().unwrap();
    let (file, modified) = change_unnoticed(source.path(), u64::from(first.0) << 22);
    let (again, memory) = keeping();
    let (handle, states) = resumed(&again, &metainfo, source.path(), at.clone(), false).await;
    assert_eq!(state(&handle), TorrentState::Seeding);
    // It says how far it was before.
    let least = at.have.count();
    assert!(states.iter().all(|state| match state {
        TorrentState::Checking { done, total } => *done >= least && *total >= least,
        _ => true,
    }));
    let last = memory.last();
    assert!(last.have.is_full() && last.unchecked.is_none());
    within(again.shutdown()).await;
    // A file that was changed since is looked at as a whole.
    file.set_modified(modified + std::time::Duration::from_secs(7)).unwrap();
    let (again, _) = keeping();
    let (handle, _) = resumed(&again, &metainfo, source.path(), at, false).await;
    assert_eq!(handle.status().pieces_have, handle.status().pieces_total - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_was_asked_for_is_not_forgotten() {
    let bytes = content(300_000, 8);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (first, memory) = keeping();
    within(add(&first, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let whole = memory.last();
    within(first.shutdown()).await;
    let killed = Arc::new(Asked::default());
    let keeper = Arc::clone(&killed) as Arc<dyn Keeper>;
    let session = session_with(|config| config.keeper = Some(keeper));
    let (handle, _) = resumed(&session, &metainfo, source.path(), whole, false).await;
    handle.recheck().await;
    within(async {
        while killed.0.lock().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(session.shutdown()).await;
    // The process is killed before the check has found what does not show.
    change_unnoticed(source.path(), 0);
    let at = killed.0.lock().take().unwrap();
    let (again, _) = keeping();
    let (handle, _) = resumed(&again, &metainfo, source.path(), at, false).await;
    assert_eq!(handle.status().pieces_have, handle.status().pieces_total - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recheck_during_a_check_of_the_rest_hashes_everything() {
    let (source, metainfo, at) = half_checked().await;
    // Only a check of everything finds it.
    let first = at.have.iter().next().unwrap();
    change_unnoticed(source.path(), u64::from(first.0) << 22);
    let (session, _) = keeping();
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), source.path());
    torrent.checkpoint = Some(at);
    let handle = session.add(torrent).unwrap();
    until(&handle, |handle| matches!(state(handle), TorrentState::Checking { .. })).await;
    handle.recheck().await;
    handle.pause().await;
    until(&handle, |handle| matches!(state(handle), TorrentState::Paused { .. })).await;
    assert_eq!(handle.status().pieces_have, handle.status().pieces_total - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_checked_while_the_files_of_a_torrent_move() {
    let (small, other) = seeded("small.bin", &content(300_000, 9), PIECE);
    // However fast the machine is, the check of some file takes long enough.
    for gib in [2, 8, 32] {
        let (source, metainfo) = hollow(gib);
        let target = tempfile::tempdir().unwrap();
        let session = session_with(|config| config.checks = 1);
        let large = add(&session, &metainfo, source.path(), &[]);
        until(&large, |handle| matches!(state(handle), TorrentState::Checking { .. })).await;
        let waiting = add(&session, &other, small.path(), &[]);
        within(large.relocate(target.path(), false)).await.unwrap();
        until(&waiting, |handle| state(handle) == TorrentState::Seeding).await;
        let is_first = state(&large) != TorrentState::Seeding;
        until(&large, |handle| state(handle) == TorrentState::Seeding).await;
        if is_first {
            return;
        }
    }
    panic!("the torrent whose files moved was checked first");
}

/// Keeps the checkpoint with which a check begins.
#[derive(Default)]
struct Asked(Mutex<Option<Checkpoint>>);

impl Keeper for Asked {
    fn keep(&self, _: InfoHash, checkpoint: Checkpoint) {
        if checkpoint.unchecked.as_ref().is_some_and(|open| open.is_full()) {
            *self.0.lock() = Some(checkpoint);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_told_to_the_tracker_and_a_resume_as_well() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 4), PIECE);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let asked = async || {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        let body = "d8:intervali1800e5:peers0:e";
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
        let reply = format!("{head}{}\r\n\r\n{body}", body.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    };
    let session = session(None);
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), source.path());
    torrent.trackers = Some(vec![vec![url.parse().unwrap()]]);
    let handle = session.add(torrent).unwrap();
    assert!(within(asked()).await.contains("event=started"));
    handle.pause().await;
    assert!(within(asked()).await.contains("event=stopped"));
    handle.resume().await;
    let again = within(asked()).await;
    assert!(again.contains("event=started") && again.contains("left=0"), "{again}");
    handle.set_trackers(Vec::new()).await;
    assert!(within(asked()).await.contains("event=stopped"));
    assert!(handle.trackers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_seed_is_woken_by_who_connects_and_a_paused_one_turns_them_away() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 5), PIECE);
    let seeder = seeding(&metainfo, source.path()).await;
    let handle = seeder.get(metainfo.info_hash()).unwrap();
    let addr = seeder.listen_addrs()[0];
    for _ in 0..2 {
        assert!(within(handle.peers()).await.is_empty());
        let peer = within(RawPeer::connect(addr, &metainfo, stranger(b'1'))).await.unwrap();
        until(&handle, |handle| handle.status().peers == 1).await;
        drop(peer);
        until(&handle, |handle| handle.status().peers == 0).await;
    }
    handle.pause().await;
    until(&handle, |handle| state(handle) == TorrentState::Paused { reason: None }).await;
    assert!(within(RawPeer::connect(addr, &metainfo, stranger(b'1'))).await.is_err());
    within(seeder.shutdown()).await;
    let late = seeder.add(AddTorrent::new(Arc::clone(&metainfo), source.path()));
    assert!(matches!(late, Err(AddError::Ended)));
}

/// A folder of two files that share no piece, and its torrent.
fn folder() -> (tempfile::TempDir, Arc<Metainfo>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("folder");
    std::fs::create_dir(&root).unwrap();
    for (name, seed) in [("a", 6), ("b", 7)] {
        std::fs::write(root.join(name), content(4 * PIECE as usize, seed)).unwrap();
    }
    let metainfo = torrent_of(&root, PIECE);
    (dir, metainfo)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_wanted_is_fetched_and_the_rest_when_it_is_wanted_too() {
    let (source, metainfo) = folder();
    let target = tempfile::tempdir().unwrap();
    let seeder = seeding(&metainfo, source.path()).await;
    for keeper in [false, true] {
        let witness = Arc::new(EventRecorder::default());
        let memory = Arc::new(Memory::default());
        let leecher = session_with(|config| {
            config.observer = Some(Arc::clone(&witness) as _);
            config.keeper = keeper.then(|| Arc::clone(&memory) as _);
        });
        let target = target.path().join(keeper.to_string());
        let mut torrent = AddTorrent::new(Arc::clone(&metainfo), &target);
        torrent.peers = seeder.listen_addrs().to_vec();
        torrent.options.files = vec![Priority::Skip];
        torrent.incomplete_suffix = ".part".to_owned();
        let handle = leecher.add(torrent).unwrap();
        within(handle.completed()).await.unwrap();
        let status = handle.status();
        assert_eq!((status.pieces_have, status.pieces_total), (4, 8));
        assert_eq!((status.bytes_wanted, status.bytes_wanted_have), (262_144, 262_144));
        assert!(!target.join("folder/a").exists() && !target.join("folder/a.part").exists());
        assert!(std::fs::read(target.join("folder/b")).unwrap() == content(262_144, 7));
        let completed = |event: &TorrentEvent| matches!(event, TorrentEvent::Completed);
        assert!(!witness.events.lock().iter().any(completed));
        handle.set_options(TorrentOptions::default()).await;
        witness.saw(completed).await;
        assert!(std::fs::read(target.join("folder/a")).unwrap() == content(262_144, 6));
        within(leecher.shutdown()).await;
        assert!(!keeper || memory.last().have.is_full());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_move_and_get_other_names_in_the_middle_of_a_download() {
    let (source, metainfo) = folder();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = seeding(&metainfo, source.path()).await;
    let (leecher, memory) = keeping();
    leecher.set_limits(None, Some(1 << 20));
    let handle = add(&leecher, &metainfo, one.path(), seeder.listen_addrs());
    until(&handle, |handle| handle.status().pieces_have >= 1).await;
    within(handle.relocate(two.path(), false)).await.unwrap();
    assert_eq!(handle.root(), two.path());
    assert!(!one.path().join("folder").exists());
    let names = BTreeMap::from([(0, vec!["folder".to_owned(), "other".to_owned()])]);
    within(handle.rename(names.clone())).await.unwrap();
    assert_eq!(handle.names(), names);
    let taken = BTreeMap::from([(1, vec!["folder".to_owned(), "other".to_owned()])]);
    assert!(within(handle.rename(taken)).await.is_err());
    leecher.set_limits(None, None);
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(two.path().join("folder/other")).unwrap() == content(262_144, 6));
    within(leecher.shutdown()).await;

    let (again, _) = keeping();
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), two.path());
    (torrent.checkpoint, torrent.names) = (Some(memory.last()), names);
    let handle = again.add(torrent).unwrap();
    within(handle.completed()).await.unwrap();
    within(handle.remove_data()).await.unwrap();
    assert!(!two.path().join("folder").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_lies_elsewhere_is_found_by_a_check() {
    let bytes = content(300_000, 8);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let session = session(None);
    let handle = add(&session, &metainfo, target.path(), &[]);
    until(&handle, |handle| state(handle) == TorrentState::Downloading).await;
    within(handle.relocate(source.path(), true)).await.unwrap();
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torrents_own_limit_holds_and_goes_at_once() {
    let bytes = content(2_000_000, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let seeder = seeding(&metainfo, source.path()).await;
    let leecher = session(None);
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), target.path());
    torrent.peers = seeder.listen_addrs().to_vec();
    // It would take two minutes.
    torrent.options.download_limit = Some(16 << 10);
    let handle = leecher.add(torrent).unwrap();
    until(&handle, |handle| handle.status().downloaded > 0).await;
    assert!(handle.status().pieces_have < handle.status().pieces_total);
    handle.set_options(TorrentOptions::default()).await;
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_is_dropped_and_not_let_in_again() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 10), PIECE);
    let seeder = seeding(&metainfo, source.path()).await;
    let addr = seeder.listen_addrs()[0];
    let peer = RawPeer::connect(addr, &metainfo, stranger(b'1')).await.unwrap();
    let handle = seeder.get(metainfo.info_hash()).unwrap();
    until(&handle, |handle| handle.status().peers == 1).await;
    seeder.set_block_list(Arc::new(|ip| ip.is_loopback()));
    peer.dropped().await;
    assert!(within(RawPeer::connect(addr, &metainfo, stranger(b'1'))).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_tell_of_torrents_that_come_and_go() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 11), PIECE);
    let session = session(None);
    let mut changes = session.changes();
    let handle = add(&session, &metainfo, source.path(), &[]);
    within(async {
        while state(&handle) != TorrentState::Seeding {
            assert_eq!(changes.next().await, [metainfo.info_hash()]);
        }
    })
    .await;
    assert!(within(session.remove(metainfo.info_hash())).await);
    assert_eq!(within(changes.next()).await, [metainfo.info_hash()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_all_gone_are_told_of_and_not_fetched_again_unasked() {
    let bytes = content(700_000, 31);
    let (target, metainfo, kept) = downloaded(&bytes).await;
    let file = target.path().join("file.bin");
    std::fs::rename(&file, target.path().join("away")).unwrap();
    let (session, memory) = keeping();
    let (handle, _) = resumed(&session, &metainfo, target.path(), kept.clone(), false).await;
    let TorrentState::Paused { reason: Some(reason) } = state(&handle) else {
        panic!("{:?}", state(&handle));
    };
    assert!(reason.contains("none of the torrent's files"), "{reason}");
    assert!(memory.last.lock().is_none() && !file.exists());
    // The disk is back.
    std::fs::rename(target.path().join("away"), &file).unwrap();
    handle.resume().await;
    until(&handle, |handle| state(handle) == TorrentState::Seeding).await;
    within(session.shutdown()).await;
    // Gone for good: a check is the word to go on.
    std::fs::remove_file(&file).unwrap();
    let (session, _) = keeping();
    let (handle, _) = resumed(&session, &metainfo, target.path(), kept, false).await;
    until(&handle, |handle| matches!(state(handle), TorrentState::Paused { reason: Some(_) }))
        .await;
    handle.recheck().await;
    until(&handle, |handle| state(handle) == TorrentState::Downloading).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_behind_our_back_is_found_before_more_is_written() {
    let (source, metainfo) = folder();
    let seeder = seeding(&metainfo, source.path()).await;
    let target = tempfile::tempdir().unwrap();
    let (leecher, memory) = keeping();
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), target.path());
    torrent.options.files = vec![Priority::Skip];
    torrent.peers = seeder.listen_addrs().to_vec();
    let handle = leecher.add(torrent).unwrap();
    within(handle.completed()).await.unwrap();
    let mut watch = handle.clone();
    within(async {
        while memory.last().writing {
            watch.changed().await.unwrap();
        }
    })
    .await;
    let file = target.path().join("folder/b");
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[7] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    handle.set_options(TorrentOptions::default()).await;
    until(&handle, |handle| {
        handle.status().pieces_have == 8 && state(handle) == TorrentState::Seeding
    })
    .await;
    assert!(std::fs::read(&file).unwrap() == content(262_144, 7));
    within(leecher.shutdown()).await;
}

/// A daemon that starts looks at tens of thousands of torrents before it has the first of them go on.
#[tokio::test]
async fn what_was_looked_at_before_it_first_goes_on_is_not_looked_at_twice() {
    let bytes = content(100_000, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (before, memory) = keeping();
    let handle = add(&before, &metainfo, source.path(), &[]);
    until(&handle, |handle| state(handle) == TorrentState::Seeding).await;
    within(before.shutdown()).await;
    let (session, _) = keeping();
    let (handle, _) = resumed(&session, &metainfo, source.path(), memory.last(), true).await;
    assert_eq!(state(&handle), TorrentState::Paused { reason: None });
    // Longer than what was looked at is taken for fresh at other times.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    handle.resume().await;
    assert_eq!(state(&handle), TorrentState::Seeding);
    handle.pause().await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    handle.resume().await;
    assert_eq!(state(&handle), TorrentState::Waiting);
    until(&handle, |handle| state(handle) == TorrentState::Seeding).await;
    within(session.shutdown()).await;
}
