//! Whole sessions over real sockets on loopback: downloads, faults, hostile peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use piecework_core::metainfo::Metainfo;
use piecework_core::{BlockRef, InfoHash, PieceIndex};
use piecework_engine::{AddTorrent, Session, TorrentEvent, TorrentHandle, TorrentState};
use piecework_proto::wire::Message;
use piecework_testkit::{
    EventRecorder, PeerMessage, RawPeer, add, content, handshake, seeded, session, session_with,
    stranger, torrent_of, twisted_seed, until, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PIECE: u32 = 64 * 1024;

/// Adds `metainfo` to `session` as complete content below `root`, and waits until it seeds.
async fn seed(session: &Session, metainfo: &Arc<Metainfo>, root: &std::path::Path) {
    within(add(session, metainfo, root, &[]).completed()).await.unwrap();
}

async fn reaches(handle: &TorrentHandle, wanted: impl Fn(&TorrentState) -> bool) {
    until(handle, |handle| wanted(&handle.status().state)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_awkward_size_arrive_whole() {
    for len in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1_000_003] {
        let bytes = content(len, len as u64);
        let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
        let target = tempfile::tempdir().unwrap();
        let (seeder, leecher) = (session(None), session(None));
        seed(&seeder, &metainfo, source.path()).await;
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        within(handle.completed()).await.unwrap();
        let copy = std::fs::read(target.path().join("file.bin")).unwrap();
        assert!(copy == bytes, "a file of {len} bytes differs");
        seeder.shutdown().await;
        leecher.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_with_empty_nested_and_unicode_names_arrives_whole() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path().join("folder");
    let files = [("a/b/c/deep.bin", 200_000), ("empty", 0), ("Füße/文件.txt", 70_001), ("z", 1)];
    for (name, len) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content(len, len as u64)).unwrap();
    }
    let metainfo = torrent_of(&root, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    seed(&seeder, &metainfo, source.path()).await;
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    for (name, len) in files {
        let copy = std::fs::read(target.path().join("folder").join(name)).unwrap();
        assert!(copy == content(len, len as u64), "{name} differs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leecher_becomes_a_seeder_for_the_next() {
    let bytes = content(700_000, 3);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (seeder, first, second) = (session(None), session(None), session(None));
    seed(&seeder, &metainfo, source.path()).await;
    let handle = add(&first, &metainfo, one.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    seeder.shutdown().await;
    let handle = add(&second, &metainfo, two.path(), first.listen_addrs());
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(two.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_piece_is_told_with_its_givers_and_their_blocks_add_up() {
    let bytes = content(1_000_000, 4);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let witness = Arc::new(EventRecorder::default());
    let seeders = [session(None), session(None), session(None)];
    let mut addrs = Vec::new();
    for seeder in &seeders {
        seed(seeder, &metainfo, source.path()).await;
        addrs.extend_from_slice(seeder.listen_addrs());
    }
    let leecher = session(Some(Arc::clone(&witness) as _));
    let handle = add(&leecher, &metainfo, target.path(), &addrs);
    within(handle.completed()).await.unwrap();

    let geometry = metainfo.info().geometry();
    let mut seen = vec![0; geometry.pieces() as usize];
    for event in witness.events.lock().iter() {
        if let TorrentEvent::PieceDone { piece, givers } = event {
            seen[piece.0 as usize] += 1;
            let given: u64 = givers.iter().map(|giver| giver.bytes).sum();
            assert_eq!(given, u64::from(geometry.piece_size(*piece)));
            assert!(givers.iter().all(|giver| addrs.contains(&giver.who.addr)));
            assert!(givers.iter().all(|giver| giver.who.client.starts_with("Piecework")));
        }
    }
    assert!(seen.iter().all(|times| *times == 1), "pieces were told {seen:?} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_already_is_not_downloaded_again() {
    let bytes = content(650_000, 5);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let mut damaged = bytes.clone();
    damaged[100_000] ^= 1;
    std::fs::write(target.path().join("file.bin"), damaged).unwrap();
    let (seeder, leecher) = (session(None), session(None));
    seed(&seeder, &metainfo, source.path()).await;
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    assert_eq!(handle.status().downloaded, u64::from(PIECE));
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_longer_than_memory_takes_are_streamed_to_disk() {
    // One piece of 32 MiB, streamed block by block, read back and verified.
    let bytes = content(20 << 20, 6);
    let (source, metainfo) = seeded("file.bin", &bytes, 32 << 20);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    seed(&seeder, &metainfo, source.path()).await;
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_serves_corrupt_blocks_among_honest_ones_is_banned_alone() {
    let bytes = Arc::new(content(1_300_000, 7));
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let guilty = twisted_seed(Arc::clone(&metainfo), Arc::clone(&bytes), |block, data| {
        if block.begin == 16_384 {
            data[77] ^= 0x20;
        }
    })
    .await;
    let witness = Arc::new(EventRecorder::default());
    let leecher = session(Some(Arc::clone(&witness) as _));
    let handle = add(&leecher, &metainfo, target.path(), &[guilty]);
    // It is alone until it has done harm, so that the test is about it.
    witness.saw(|event| matches!(event, TorrentEvent::PieceFailed { .. })).await;

    let seeders = [session(None), session(None), session(None)];
    for seeder in &seeders {
        seed(seeder, &metainfo, source.path()).await;
        handle.add_peers(seeder.listen_addrs().to_vec()).await;
    }
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == *bytes);
    let events = witness.events.lock();
    // Once for each wrong block it is known to have sent.
    let banned: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            TorrentEvent::Banned { who, .. } => Some(who.addr),
            _ => None,
        })
        .collect();
    assert_eq!(banned, BTreeSet::from([guilty]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeder_lost_half_way_loses_nothing() {
    let bytes = Arc::new(content(2_000_000, 8));
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    // Serves ten blocks, then breaks its connections, with what was on its way in them.
    let served = AtomicU32::new(0);
    let dying = twisted_seed(Arc::clone(&metainfo), Arc::clone(&bytes), move |_, _| {
        if served.fetch_add(1, Ordering::Relaxed) >= 10 {
            panic!("the seeder dies here, as the test wants");
        }
    })
    .await;
    let leecher = session(None);
    let handle = add(&leecher, &metainfo, target.path(), &[dying]);
    let mut watched = handle.clone();
    within(async {
        while watched.status().downloaded == 0 {
            watched.changed().await.unwrap();
        }
    })
    .await;
    let seeder = session(None);
    seed(&seeder, &metainfo, source.path()).await;
    handle.add_peers(seeder.listen_addrs().to_vec()).await;
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == *bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refuses_pauses_the_torrent_and_blames_nobody() {
    let bytes = content(300_000, 9);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    // A folder where the file should go.
    std::fs::create_dir(target.path().join("file.bin")).unwrap();
    let witness = Arc::new(EventRecorder::default());
    let (seeder, leecher) = (session(None), session(Some(Arc::clone(&witness) as _)));
    seed(&seeder, &metainfo, source.path()).await;
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    let error = within(handle.completed()).await.unwrap_err().to_string();
    assert!(error.contains("file.bin"), "{error}");

    // The cause is cleared, the torrent resumed: it completes.
    std::fs::remove_dir(target.path().join("file.bin")).unwrap();
    handle.recheck().await;
    reaches(&handle, |state| *state == TorrentState::Seeding).await;
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
    let blamed = witness.events.lock().iter().any(|e| matches!(e, TorrentEvent::Banned { .. }));
    assert!(!blamed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_changed_under_a_seeder_pauses_it() {
    let bytes = content(300_000, 10);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    let handle = seeder.add(AddTorrent::new(Arc::clone(&metainfo), source.path())).unwrap();
    within(handle.completed()).await.unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(source.path().join("file.bin"))
        .unwrap()
        .set_len(10)
        .unwrap();
    let _download = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    let said = |state: &TorrentState| match state {
        TorrentState::Paused { reason: Some(reason) } => reason.contains("file.bin"),
        _ => false,
    };
    reaches(&handle, said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_drops_peers_and_resume_completes() {
    let bytes = content(500_000, 11);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let (seeder, leecher) = (session(None), session(None));
    let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
    handle.pause().await;
    reaches(&handle, |state| matches!(state, TorrentState::Paused { reason: None })).await;
    seed(&seeder, &metainfo, source.path()).await;
    handle.resume().await;
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_torrents_share_one_session() {
    let (seeder, leecher) = (session(None), session(None));
    let mut handles = Vec::new();
    let mut kept = Vec::new();
    for i in 0..20 {
        let bytes = content(100_000 + i, i as u64);
        let (source, metainfo) = seeded(&format!("file{i}"), &bytes, PIECE);
        let target = tempfile::tempdir().unwrap();
        seed(&seeder, &metainfo, source.path()).await;
        handles.push(add(&leecher, &metainfo, target.path(), seeder.listen_addrs()));
        kept.push((source, target));
    }
    for handle in &handles {
        within(handle.completed()).await.unwrap();
    }
    let again = AddTorrent::new(Arc::clone(handles[0].metainfo()), kept[0].1.path());
    assert!(leecher.add(again).is_err());
    assert!(leecher.remove(handles[0].info_hash()).await);
    assert!(!leecher.remove(handles[0].info_hash()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_seeders_capped_alike_share_the_work() {
    let bytes = content(8 << 20, 14);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let mut addrs = Vec::new();
    let mut seeders = Vec::new();
    for _ in 0..4 {
        let seeder = session_with(|config| config.upload_limit = Some(2 << 20));
        seed(&seeder, &metainfo, source.path()).await;
        addrs.extend_from_slice(seeder.listen_addrs());
        seeders.push(seeder);
    }
    let witness = Arc::new(EventRecorder::default());
    let leecher = session(Some(Arc::clone(&witness) as _));
    let handle = add(&leecher, &metainfo, target.path(), &addrs);
    within(handle.completed()).await.unwrap();
    let mut given = [0u64; 4];
    for event in witness.events.lock().iter() {
        let TorrentEvent::PieceDone { givers, .. } = event else { continue };
        for giver in givers {
            let place = addrs.iter().position(|addr| *addr == giver.who.addr).unwrap();
            given[place] += giver.bytes;
        }
    }
    let most = bytes.len() as u64 * 40 / 100;
    assert!(given.iter().all(|bytes| (1..=most).contains(bytes)), "given: {given:?}");
}

// Hostile peers. Each is dropped; an honest leecher on the same seeder then completes.

struct Target {
    seeder: Session,
    metainfo: Arc<Metainfo>,
    source: tempfile::TempDir,
}

impl Target {
    /// A torrent of 11 pieces, so that its bitfield has spare bits.
    async fn new() -> Self {
        let bytes = content(11 * PIECE as usize - 5, 12);
        let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
        let seeder = session_with(|config| config.handshake_timeout = Duration::from_millis(200));
        seed(&seeder, &metainfo, source.path()).await;
        Self { seeder, metainfo, source }
    }

    async fn peer(&self) -> RawPeer {
        let addr = self.seeder.listen_addrs()[0];
        RawPeer::connect(addr, &self.metainfo, stranger(b'1')).await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.seeder.listen_addrs()[0]).await.unwrap()
    }

    async fn drops(&self, messages: &[Message]) {
        let mut peer = self.peer().await;
        for message in messages {
            // It may be dropped before it has said everything.
            if peer.send(message).await.is_err() {
                break;
            }
        }
        peer.dropped().await;
        self.still_serves().await;
    }

    async fn still_serves(&self) {
        let target = tempfile::tempdir().unwrap();
        let leecher = session(None);
        let addrs = self.seeder.listen_addrs();
        let handle = add(&leecher, &self.metainfo, target.path(), addrs);
        within(handle.completed()).await.unwrap();
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join("file.bin")).unwrap();
        assert!(read(&target) == read(&self.source));
    }
}

async fn is_closed(mut stream: TcpStream) {
    let mut sink = Vec::new();
    // A reset is as much an end as a close.
    let _ = within(stream.read_to_end(&mut sink)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_neither_a_handshake_nor_a_key_is_dropped_within_seconds() {
    let target = Target::new().await;
    let mut stream = target.raw().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    is_closed(stream).await;
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_info_hash_is_dropped_without_an_answer() {
    let target = Target::new().await;
    let mut stream = target.raw().await;
    stream.write_all(&handshake(InfoHash([7; 20]), stranger(b'1'))).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_peer_id_is_dropped() {
    let target = Target::new().await;
    let addr = target.seeder.listen_addrs()[0];
    let peer = RawPeer::connect(addr, &target.metainfo, target.seeder.peer_id()).await.unwrap();
    peer.dropped().await;
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_instead_of_a_handshake_is_dropped() {
    let target = Target::new().await;
    is_closed(target.raw().await).await;
    let mut stream = target.raw().await;
    let half = &handshake(target.metainfo.info_hash(), stranger(b'1'))[..30];
    stream.write_all(half).await.unwrap();
    is_closed(stream).await;
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_long_message_is_dropped() {
    let target = Target::new().await;
    let mut peer = target.peer().await;
    peer.send_raw(&[0xff, 0xff, 0xff, 0xff, 7]).await.unwrap();
    peer.dropped().await;
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitfield_of_wrong_size_is_dropped() {
    let target = Target::new().await;
    target.drops(&[Message::Bitfield(vec![0; 3].into())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitfield_with_spare_bits_is_dropped() {
    let target = Target::new().await;
    target.drops(&[Message::Bitfield(vec![0, 0x1f].into())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn have_out_of_range_is_dropped() {
    let target = Target::new().await;
    target.drops(&[Message::HaveNone, Message::Have(PieceIndex(11))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_out_of_range_is_dropped() {
    let target = Target::new().await;
    let outside = BlockRef { piece: PieceIndex(10), begin: PIECE - 16_384, len: 16_384 };
    target.drops(&[Message::HaveNone, Message::Interested, Message::Request(outside)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_flood_is_dropped() {
    let target = Target::new().await;
    let mut flood = vec![Message::HaveNone, Message::Interested];
    let block = |i: u32| BlockRef { piece: PieceIndex(i % 10), begin: i % 1_000, len: 16_384 };
    flood.extend((0..20_000).map(|i| Message::Request(block(i))));
    // It does not read what it is sent, so its requests pile up.
    target.drops(&flood).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrequested_blocks_are_dropped() {
    let target = Target::new().await;
    let mut peer = target.peer().await;
    peer.send(&Message::HaveNone).await.unwrap();
    let block = BlockRef { piece: PieceIndex(1), begin: 0, len: 16_384 };
    for _ in 0..1_000 {
        if peer.send_block(block, &[0; 16_384]).await.is_err() {
            break;
        }
    }
    peer.dropped().await;
    target.still_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialled_peer_with_another_torrent_is_left_alone() {
    let bytes = content(200_000, 13);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let target = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let leecher = session(None);
    let handle = add(&leecher, &metainfo, target.path(), &[addr]);
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    stream.write_all(&handshake(InfoHash([9; 20]), stranger(b'1'))).await.unwrap();
    is_closed(stream).await;
    let seeder = session(None);
    seed(&seeder, &metainfo, source.path()).await;
    handle.add_peers(seeder.listen_addrs().to_vec()).await;
    within(handle.completed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_is_answered_once_by_a_block_or_a_rejection() {
    // More than the system takes for a peer that reads nothing, so that blocks are on their way.
    let bytes = content(600 * 16_384, 15);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let seeder = session(None);
    seed(&seeder, &metainfo, source.path()).await;
    let addr = seeder.listen_addrs()[0];
    let mut peer = RawPeer::narrow(addr, &metainfo, stranger(b'1')).await.unwrap();
    let geometry = metainfo.info().geometry();
    let blocks: Vec<BlockRef> = (0..geometry.pieces())
        .flat_map(|piece| (0..4).map(move |index| (PieceIndex(piece), index)))
        .map(|(piece, index)| geometry.block(piece, index))
        .collect();
    peer.send(&Message::HaveNone).await.unwrap();
    peer.send(&Message::Interested).await.unwrap();
    while !matches!(within(peer.hear()).await, Some(PeerMessage::Message(Message::Unchoke))) {}
    for round in 0..2 {
        for block in &blocks {
            peer.send(&Message::Request(*block)).await.unwrap();
        }
        let mut answered = Vec::new();
        // Others are on their way when one has come.
        while answered.is_empty() {
            if let Some(PeerMessage::Block(block, _)) = within(peer.hear()).await {
                answered.push((block.piece, block.begin));
            }
        }
        for block in &blocks {
            peer.send(&Message::Cancel(*block)).await.unwrap();
        }
        // Answered behind everything else.
        let last = BlockRef { len: 1 + round, ..blocks[0] };
        peer.send(&Message::Request(last)).await.unwrap();
        loop {
            match within(peer.hear()).await.expect("it is not dropped") {
                PeerMessage::Block(block, _) if block == last => break,
                PeerMessage::Block(block, _) | PeerMessage::Message(Message::Reject(block)) => {
                    answered.push((block.piece, block.begin));
                }
                PeerMessage::Message(_) => {}
            }
        }
        answered.sort();
        let asked: Vec<_> = blocks.iter().map(|block| (block.piece, block.begin)).collect();
        assert_eq!(answered, asked);
    }
}
