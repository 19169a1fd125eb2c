//! What other programs do to a torrent's files, and what becomes of the torrent.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Checkpoint, InfoHash, PieceIndex};
use piecework_engine::{AddTorrent, Keeper, Session, TorrentHandle, TorrentState};
use piecework_proto::wire::Message;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session, session_with, stranger, torrent_of, until,
    within,
};

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

fn keeping() -> (Session, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let keeper = Arc::clone(&memory) as Arc<dyn Keeper>;
    (session_with(|config| config.keeper = Some(keeper)), memory)
}

fn state(handle: &TorrentHandle) -> TorrentState {
    handle.status().state
}

async fn seeds(handle: &TorrentHandle) {
    until(handle, |handle| state(handle) == TorrentState::Seeding).await;
}

async fn seeding(metainfo: &Arc<Metainfo>, root: &Path) -> (Session, TorrentHandle) {
    let (seeder, _) = keeping();
    let handle = add(&seeder, metainfo, root, &[]);
    within(handle.completed()).await.unwrap();
    (seeder, handle)
}

/// Why it has stopped.
async fn stopped(handle: &TorrentHandle) -> String {
    until(handle, |handle| matches!(state(handle), TorrentState::Paused { reason: Some(_) })).await;
    let TorrentState::Paused { reason: Some(reason) } = state(handle) else { unreachable!() };
    reason
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Downloads, does `harm` to the file when half of it is there, and gives what is there in the end.
async fn harmed_at_half(
    keeper: bool,
    suffix: &str,
    rate: u64,
    harm: impl Fn(&Path),
) -> (Vec<u8>, Vec<u8>) {
    let bytes = content(4_000_000, 1);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (seeder, _) = seeding(&metainfo, source.path()).await;
    let target = tempfile::tempdir().unwrap();
    let leecher = if keeper { keeping().0 } else { session(None) };
    leecher.set_limits(None, Some(rate));
    let mut torrent = AddTorrent::new(Arc::clone(&metainfo), target.path());
    torrent.peers = seeder.listen_addrs().to_vec();
    torrent.incomplete_suffix = suffix.to_owned();
    let handle = leecher.add(torrent).unwrap();
    let pieces = metainfo.info().geometry().pieces();
    let half = pieces / 2;
    until(&handle, |handle| handle.status().pieces_have >= half).await;
    harm(&target.path().join(format!("file.bin{suffix}")));
    leecher.set_limits(None, None);
    let addrs = seeder.listen_addrs().to_vec();
    let mut watch = handle.clone();
    within(async {
        while !(state(&handle) == TorrentState::Seeding && handle.status().pieces_have == pieces) {
            watch.changed().await.unwrap();
            handle.add_peers(addrs.clone()).await;
        }
    })
    .await;
    within(leecher.shutdown()).await;
    (fs::read(target.path().join("file.bin")).unwrap(), bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_short_in_mid_download_is_right_when_it_has_its_name() {
    for (keeper, suffix, len) in
        [(true, ".part", 1_000), (false, ".part", 1_000), (true, "", 0), (false, "", 1_000_000)]
    {
        let (found, bytes) = harmed_at_half(keeper, suffix, 1 << 20, |path| cut(path, len)).await;
        assert!(found == bytes, "{keeper} `{suffix}` {len}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_overwritten_in_mid_download_is_right_when_it_has_its_name() {
    let zeros = |path: &Path| {
        let len = fs::metadata(path).unwrap().len();
        write_at(path, 0, &vec![0; len as usize]);
    };
    let (found, bytes) = harmed_at_half(true, ".part", 300 << 10, zeros).await;
    assert!(found == bytes);
    let replaced = |path: &Path| {
        let other = path.with_extension("other");
        fs::write(&other, content(4_000_000, 9)).unwrap();
        fs::rename(path, path.with_extension("away")).unwrap();
        fs::rename(&other, path).unwrap();
    };
    let (found, bytes) = harmed_at_half(true, ".part", 1 << 20, replaced).await;
    assert!(found == bytes);
}

/// A download whose process dies at half of it. Gives where its file is, and what was kept last.
fn killed_at_half(
    bytes: &[u8],
) -> (tempfile::TempDir, tempfile::TempDir, Arc<Metainfo>, Checkpoint) {
    let (source, metainfo) = seeded("file.bin", bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap();
    let memory = runtime.block_on(async {
        let (seeder, _) = seeding(&metainfo, source.path()).await;
        let (leecher, memory) = keeping();
        leecher.set_limits(None, Some(bytes.len() as u64 / 10));
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        until(&handle, |_| {
            let kept = memory.last.lock();
            kept.as_ref().is_some_and(|kept| kept.have.count() > kept.have.len() / 3)
        })
        .await;
        // Something that is younger than what was kept.
        let kept = memory.last.lock().as_ref().unwrap().have.count();
        until(&handle, |handle| handle.status().pieces_have > kept).await;
        memory
    });
    runtime.shutdown_background();
    let kept = memory.last.lock().clone().unwrap();
    assert!(kept.writing);
    (source, target, metainfo, kept)
}

async fn resumed(
    metainfo: &Arc<Metainfo>,
    root: &Path,
    checkpoint: Checkpoint,
) -> (Session, TorrentHandle) {
    let (session, _) = keeping();
    let mut torrent = AddTorrent::new(Arc::clone(metainfo), root);
    torrent.checkpoint = Some(checkpoint);
    let handle = session.add(torrent).unwrap();
    until(&handle, |handle| {
        !matches!(state(handle), TorrentState::Waiting | TorrentState::Checking { .. })
    })
    .await;
    (session, handle)
}

/// Pieces that are claimed and not on the disk.
async fn false_claims(handle: &TorrentHandle, path: &Path, bytes: &[u8]) -> Vec<u32> {
    let have = within(handle.have()).await.unwrap();
    let mut found = Vec::new();
    File::open(path).unwrap().read_to_end(&mut found).unwrap();
    let is_right = |piece: PieceIndex| {
        let at = piece.0 as usize * PIECE as usize;
        let end = (at + PIECE as usize).min(bytes.len());
        found.get(at..end) == Some(&bytes[at..end])
    };
    have.iter().filter(|piece| !is_right(*piece)).map(|piece| piece.0).collect()
}

#[test]
fn a_file_that_is_overwritten_after_a_crash_is_not_believed() {
    let bytes = content(6_000_000, 2);
    let (source, target, metainfo, kept) = killed_at_half(&bytes);
    let path = target.path().join("file.bin");
    let len = fs::metadata(&path).unwrap().len();
    fs::write(&path, content(len as usize, 77)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_session, handle) = resumed(&metainfo, target.path(), kept.clone()).await;
        assert_eq!(handle.status().pieces_have, 0);
        let (seeder, _) = seeding(&metainfo, source.path()).await;
        handle.add_peers(seeder.listen_addrs().to_vec()).await;
        within(handle.completed()).await.unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
    });
}

#[test]
fn a_piece_that_is_overwritten_after_a_crash_is_hashed_before_it_goes_out_and_before_the_end() {
    // More than is sampled at the start.
    let bytes = content(72 << 20, 3);
    let (source, target, metainfo, kept) = killed_at_half(&bytes);
    let path = target.path().join("file.bin");
    let held: Vec<PieceIndex> = kept.have.iter().collect();
    for piece in held.iter().rev().take(3).chain(&held[..3]) {
        write_at(&path, u64::from(piece.0) * u64::from(PIECE), &[0; 10_000]);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (session, handle) = resumed(&metainfo, target.path(), kept.clone()).await;
        let mut peer =
            RawPeer::connect(session.listen_addrs()[0], &metainfo, stranger(b'1')).await.unwrap();
        peer.send(&Message::HaveNone).await.unwrap();
        peer.send(&Message::Interested).await.unwrap();
        let geometry = metainfo.info().geometry();
        let wrong = held[0];
        within(async {
            while let Some(heard) = peer.hear().await {
                match heard {
                    PeerMessage::Message(Message::Unchoke) => {
                        let block = geometry.block(wrong, 0);
                        if peer.send(&Message::Request(block)).await.is_err() {
                            break;
                        }
                    }
                    // If the start had found it, it was not offered.
                    PeerMessage::Message(Message::Reject(_)) => break,
                    PeerMessage::Block(..) => panic!("a wrong piece went out"),
                    PeerMessage::Message(_) => {}
                }
            }
        })
        .await;
        until(&handle, |handle| {
            !matches!(state(handle), TorrentState::Waiting | TorrentState::Checking { .. })
        })
        .await;
        let (seeder, _) = seeding(&metainfo, source.path()).await;
        handle.add_peers(seeder.listen_addrs().to_vec()).await;
        let mut watch = handle.clone();
        within(async {
            while state(&handle) != TorrentState::Seeding {
                watch.changed().await.unwrap();
                handle.add_peers(seeder.listen_addrs().to_vec()).await;
            }
        })
        .await;
        assert_eq!(false_claims(&handle, &path, &bytes).await, [0; 0]);
        assert!(fs::read(&path).unwrap() == bytes);
    });
}

/// A seed and a peer that was served a block of it.
struct Served {
    _source: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    metainfo: Arc<Metainfo>,
    seeder: Session,
    handle: TorrentHandle,
    peer: RawPeer,
}

impl Served {
    async fn new() -> Self {
        let bytes = content(1_000_000, 4);
        let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
        let (seeder, handle) = seeding(&metainfo, source.path()).await;
        let path = source.path().join("file.bin");
        let peer = Self::connected(&seeder, &metainfo).await;
        let mut served = Self { _source: source, path, bytes, metainfo, seeder, handle, peer };
        served.is_served().await;
        served
    }

    async fn connected(seeder: &Session, metainfo: &Metainfo) -> RawPeer {
        let addr = seeder.listen_addrs()[0];
        // Turned away while the files are looked at.
        let mut peer = within(async {
            loop {
                match RawPeer::connect(addr, metainfo, stranger(b'1')).await {
                    Ok(peer) => return peer,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        peer.send(&Message::HaveNone).await.unwrap();
        peer.send(&Message::Interested).await.unwrap();
        within(async {
            while !matches!(peer.hear().await.unwrap(), PeerMessage::Message(Message::Unchoke)) {}
        })
        .await;
        peer
    }

    /// Asks for a block, and holds it against the content.
    async fn is_served(&mut self) {
        let block = self.metainfo.info().geometry().block(PieceIndex(3), 1);
        self.peer.send(&Message::Request(block)).await.unwrap();
        within(async {
            loop {
                if let PeerMessage::Block(got, data) = self.peer.hear().await.unwrap() {
                    let span = self.metainfo.info().geometry().block_span(got);
                    assert!(data == self.bytes[span.start as usize..span.end as usize]);
                    return;
                }
            }
        })
        .await;
    }

    /// Asks for blocks until it is dropped.
    async fn is_dropped(&mut self) {
        let geometry = self.metainfo.info().geometry();
        within(async {
            let mut index = 0;
            loop {
                index = (index + 1) % geometry.pieces();
                let block = geometry.block(PieceIndex(index), 0);
                if self.peer.send(&Message::Request(block)).await.is_err() {
                    return;
                }
                loop {
                    match self.peer.hear().await {
                        None => return,
                        Some(PeerMessage::Block(..)) => break,
                        Some(PeerMessage::Message(_)) => {}
                    }
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_changed_in_place_while_it_is_seeded_stops_the_torrent_with_a_sentence() {
    let mut served = Served::new().await;
    write_at(&served.path, 500_000, b"another program was here");
    served.is_dropped().await;
    let reason = stopped(&served.handle).await;
    let path = served.path.to_str().unwrap();
    assert!(reason.starts_with(&format!("`{path}` was changed or replaced")), "{reason}");
    assert!(reason.contains("`1` of its `16` pieces are not right any more"), "{reason}");
    // What somebody has done to the file stays.
    assert!(fs::read(&served.path).unwrap() != served.bytes);
    fs::write(&served.path, &served.bytes).unwrap();
    served.handle.recheck().await;
    seeds(&served.handle).await;
    served.peer = Served::connected(&served.seeder, &served.metainfo).await;
    served.is_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_short_or_replaced_or_grows_while_it_is_seeded_stops_the_torrent() {
    for harm in [
        |path: &Path| cut(path, 1_000),
        |path: &Path| {
            let other = path.with_extension("other");
            fs::write(&other, content(1_000_000, 5)).unwrap();
            fs::rename(other, path).unwrap();
        },
        |path: &Path| {
            File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
        },
    ] {
        let mut served = Served::new().await;
        harm(&served.path);
        served.is_dropped().await;
        let reason = stopped(&served.handle).await;
        assert!(reason.contains(served.path.to_str().unwrap()), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_while_it_is_seeded_stops_the_torrent_and_goes_on_when_it_is_back() {
    let mut served = Served::new().await;
    let away = served.path.with_extension("away");
    fs::rename(&served.path, &away).unwrap();
    served.is_dropped().await;
    let reason = stopped(&served.handle).await;
    assert!(reason.contains("does not exist: put it back"), "{reason}");
    fs::rename(&away, &served.path).unwrap();
    served.handle.resume().await;
    seeds(&served.handle).await;
    served.peer = Served::connected(&served.seeder, &served.metainfo).await;
    served.is_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_only_touched_or_copied_is_checked_and_seeded_on() {
    for harm in [
        |path: &Path| {
            let later = SystemTime::now() + Duration::from_secs(9);
            File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
        },
        |path: &Path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        },
    ] {
        let mut served = Served::new().await;
        harm(&served.path);
        served.is_dropped().await;
        seeds(&served.handle).await;
        served.peer = Served::connected(&served.seeder, &served.metainfo).await;
        served.is_served().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_empty_file_is_made_again_by_a_check() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path().join("folder");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), content(100_000, 6)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    let metainfo = torrent_of(&root, PIECE);
    let (_seeder, handle) = seeding(&metainfo, source.path()).await;
    fs::remove_file(root.join("empty")).unwrap();
    handle.recheck().await;
    until(&handle, |handle| state(handle) == TorrentState::Seeding && root.join("empty").exists())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_peers_leave_after_are_hashed_and_not_claimed_any_more() {
    let bytes = content(1_000_000, 7);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (seeder, handle) = seeding(&metainfo, source.path()).await;
    let path = source.path().join("file.bin");
    // A disk that has forgotten: nothing shows it from outside.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    write_at(&path, 3 * u64::from(PIECE), &[0; 20_000]);
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    for last in [b'1', b'2'] {
        let addr = seeder.listen_addrs()[0];
        let mut peer = RawPeer::connect(addr, &metainfo, stranger(last)).await.unwrap();
        peer.send(&Message::HaveNone).await.unwrap();
        peer.send(&Message::Interested).await.unwrap();
        let geometry = metainfo.info().geometry();
        within(async {
            let mut left = geometry.blocks_in(PieceIndex(3));
            while left > 0 {
                match peer.hear().await.unwrap() {
                    PeerMessage::Message(Message::Unchoke) => {
                        for index in 0..left {
                            let block = geometry.block(PieceIndex(3), index);
                            peer.send(&Message::Request(block)).await.unwrap();
                        }
                    }
                    PeerMessage::Block(..) => left -= 1,
                    PeerMessage::Message(_) => {}
                }
            }
        })
        .await;
        drop(peer);
        until(&handle, |handle| handle.status().peers == 0).await;
    }
    let reason = stopped(&handle).await;
    assert!(reason.contains("is damaged: `1` of its `16` pieces"), "{reason}");
    assert_eq!(false_claims(&handle, &path, &bytes).await, [0; 0]);
}
