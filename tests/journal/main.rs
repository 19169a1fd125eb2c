//! The journal of whole swarms over real sockets. It adds up, and names only peers that corrupt
//! data, also after a restart.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use piecework::cli::{Exit, log, peer, tracker};
use piecework_api::{Event, Givers, State};
use piecework_core::BLOCK_LEN;
use piecework_daemon::{AddSource, NewTorrent, Recorder};
use piecework_engine::{Session, TorrentHandle};
use piecework_journal::{Journal, JournalOptions, PieceLog, Reader};
use piecework_testkit::daemon::Home;
use piecework_testkit::{add, content, seeded, session, session_with, twisted_seed, within};
use serde_json::Value;
use sha1::{Digest, Sha1};
use support::{Running, run};

const PIECE: u32 = 64 * 1024;

fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn journal_in(path: PathBuf) -> Arc<Journal> {
    let program = "test".to_owned();
    let (age, size) = (Journal::DEFAULT_AGE, Journal::DEFAULT_SIZE);
    Arc::new(Journal::open(&JournalOptions { path, age, size, program }).unwrap())
}

fn recorded(journal: &Arc<Journal>) -> Session {
    let log = PieceLog::with_journal(Arc::clone(journal), false);
    session(Some(Arc::new(Recorder::new(Arc::new(log)))))
}

/// Returns the answer of `torrent-log` in JSON.
fn told(dir: &Path, args: &[&str]) -> Value {
    let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&said(dir, &all)).unwrap()
}

/// Returns the answer of `torrent-log`. It has its own runtime, and so needs its own thread.
fn said(dir: &Path, args: &[&str]) -> String {
    std::thread::scope(|scope| {
        scope.spawn(|| run(log::main, dir, args).fine().stdout).join().unwrap()
    })
}

async fn parted(handle: &TorrentHandle) {
    piecework_testkit::until(handle, |handle| handle.status().peers == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_adds_up_with_what_each_giver_says_it_sent() {
    let bytes = content(3_000_000, 1);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let home = tempfile::tempdir().unwrap();
    let mut seeders = Vec::new();
    for number in 0..3 {
        let path = home.path().join(format!("seeder{number}.sqlite"));
        let journal = journal_in(path.clone());
        let seeder = recorded(&journal);
        let handle = add(&seeder, &metainfo, source.path(), &[]);
        within(handle.clone().completed()).await.unwrap();
        seeders.push((seeder, handle, journal, path));
    }
    let addrs: Vec<SocketAddr> =
        seeders.iter().flat_map(|(seeder, ..)| seeder.listen_addrs().to_vec()).collect();
    let (target, path) = (tempfile::tempdir().unwrap(), home.path().join("leecher.sqlite"));
    let journal = journal_in(path.clone());
    let leecher = recorded(&journal);
    let handle = add(&leecher, &metainfo, target.path(), &addrs);
    within(handle.clone().completed()).await.unwrap();
    // Blocks that were requested twice have arrived by then.
    parted(&handle).await;
    leecher.shutdown().await;
    journal.close();

    let givers = Reader::open(&path).unwrap().givers(metainfo.info_hash()).unwrap();
    let log = told(home.path(), &["file.bin", "--since", "1d", "--journal", "leecher.sqlite"]);
    let pieces: u64 =
        log.as_array().unwrap().iter().map(|one| one["pieces"].as_u64().unwrap()).sum();
    assert!(pieces >= u64::from(metainfo.info().geometry().pieces()));
    assert_eq!(givers.iter().map(|giver| giver.bytes).sum::<u64>(), bytes.len() as u64);
    for (seeder, handle, journal, path) in seeders {
        let addr = seeder.listen_addrs()[0];
        parted(&handle).await;
        seeder.shutdown().await;
        journal.close();
        let sent = Reader::open(&path).unwrap().takers(metainfo.info_hash()).unwrap();
        let sent = sent.iter().fold((0, 0), |sum, it| (sum.0 + it.blocks, sum.1 + it.bytes));
        let given = givers.iter().filter(|giver| giver.peer == addr);
        let given = given.fold((0, 0), |sum, it| {
            (sum.0 + it.blocks + it.unused_blocks, sum.1 + it.bytes + it.unused_bytes)
        });
        assert_eq!(given, sent, "{addr}");
    }
    // Every piece once, by the command line.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let (rows, pieces, sum): (u32, u32, u64) = connection
        .query_row(
            "SELECT count(*), count(DISTINCT piece), (SELECT sum(n) FROM (SELECT 1 AS n FROM pieces \
             WHERE verdict = 'verified' GROUP BY piece HAVING count(DISTINCT time) = 1)) \
             FROM pieces WHERE verdict = 'verified'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64)),
        )
        .unwrap();
    assert!(rows >= pieces);
    assert_eq!((pieces, sum), (metainfo.info().geometry().pieces(), u64::from(pieces)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_corrupts_is_named_with_the_block_and_evidence_and_nobody_else_also_after_a_restart() {
    let bytes = Arc::new(content(1_300_000, 7));
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let info_hash = metainfo.info_hash();
    let twist = |data: &mut Vec<u8>| data[77] ^= 0x20;
    let guilty = twisted_seed(Arc::clone(&metainfo), Arc::clone(&bytes), move |block, data| {
        if block.begin == BLOCK_LEN {
            twist(data);
        }
    })
    .await;
    let home = Home::new();
    let daemon = home.start().await;
    let mut listener = daemon.listen_to(info_hash);
    // Listening has begun: what happened before that is not reported as new.
    piecework_testkit::daemon::until_event(&mut listener, |event| *event == Event::Ready).await;
    daemon
        .add(NewTorrent {
            source: AddSource::Bytes(metainfo.bytes().unwrap().as_ref().to_vec()),
            folder: None,
            settings: Default::default(),
            only_files: None,
            trackers: Vec::new(),
            peers: vec![guilty],
            rename: None,
            overwrite: false,
        })
        .await
        .unwrap();
    // It is alone until it has corrupted something, so that the test is about it.
    let bad = piecework_testkit::daemon::until_event(
        &mut listener,
        |event| matches!(event, Event::Pieces(new) if new.bad.iter().any(|bad| bad.peer.is_some())),
    )
    .await;
    let Event::Pieces(new) = bad else { panic!() };
    assert!(new.bad.iter().all(|bad| bad.peer.is_none_or(|peer| peer == guilty)), "{new:?}");
    let mut honest = Vec::new();
    for _ in 0..3 {
        let seeder = session_with(|_| {});
        within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
        daemon.add_peers(info_hash, seeder.listen_addrs().to_vec()).await.unwrap();
        honest.push(seeder);
    }
    piecework_testkit::daemon::until(&daemon, info_hash, |torrent| torrent.state == State::Seeding)
        .await;

    let bad = daemon.bad(info_hash).await.unwrap();
    let proven = bad.iter().find(|bad| bad.block.is_some()).expect("its block was found out");
    assert_eq!((proven.peer, proven.block), (Some(guilty), Some(1)));
    let start = (proven.piece * PIECE) as usize;
    let piece = &bytes[start..bytes.len().min(start + PIECE as usize)];
    let mut wrong = piece.to_vec();
    wrong[BLOCK_LEN as usize + 77] ^= 0x20;
    let block = BLOCK_LEN as usize..piece.len().min(2 * BLOCK_LEN as usize);
    assert_eq!(proven.expected, sha1(piece));
    assert_eq!(proven.got, sha1(&wrong));
    assert_eq!(proven.block_right.as_deref(), Some(&*sha1(&piece[block.clone()])));
    assert_eq!(proven.block_sent.as_deref(), Some(&*sha1(&wrong[block])));
    let story = daemon.story(info_hash, proven.piece).await.unwrap();
    let kinds: Vec<&str> = story.story.iter().map(|entry| entry.kind.as_str()).collect();
    for kind in ["failed", "banned", "given"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let givers = daemon.givers(info_hash).await.unwrap();
    let banned: Vec<SocketAddr> =
        givers.givers.iter().filter(|giver| giver.banned).map(|giver| giver.peer).collect();
    assert_eq!(banned, [guilty]);
    let by_piece: BTreeMap<i64, usize> =
        givers.by_piece.iter().fold(BTreeMap::new(), |mut count, id| {
            *count.entry(*id).or_default() += 1;
            count
        });
    assert!(by_piece.keys().all(|id| *id > 0), "{by_piece:?}");
    let line = daemon.timeline(info_hash, 10).await.unwrap();
    let sum: u64 = line.series.iter().flat_map(|series| &series.bytes).sum();
    assert_eq!(sum, bytes.len() as u64);
    daemon.shutdown().await;

    // The daemon has ended, and its file gives the same answer.
    let path = home.path("journal.sqlite");
    let args = ["--bad", "--journal", path.to_str().unwrap()];
    let rows = told(source.path(), &args);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), bad.len());
    let named = |row: &Value| row["peer"].is_null() || row["peer"] == guilty.to_string();
    assert!(rows.iter().all(named), "{rows:?}");
    let text = said(source.path(), &args);
    assert!(text.contains(&format!("was sent wrong by {guilty}")), "{text}");
    for seeder in &honest {
        assert!(!text.contains(&seeder.listen_addrs()[0].to_string()), "{text}");
    }
    let daemon = home.start().await;
    assert_eq!(daemon.bad(info_hash).await.unwrap(), bad);
    let again = daemon.givers(info_hash).await.unwrap();
    // Blocks that were thrown away may have arrived after the first look.
    let certain = |givers: &Givers| -> Vec<_> {
        let known = givers.givers.iter().filter(|giver| giver.pieces > 0 || giver.banned);
        known.map(|giver| (giver.peer, giver.pieces, giver.bytes, giver.banned)).collect()
    };
    assert_eq!(certain(&again), certain(&givers));
    daemon.shutdown().await;
}

#[test]
fn a_journal_that_is_not_there_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = run(log::main, dir.path(), &["--journal", "none.sqlite"]).failed();
    assert!(missing.starts_with("there is no journal `"), "{missing}");
    std::fs::write(dir.path().join("text"), "no database").unwrap();
    run(log::main, dir.path(), &["--journal", "text"]).failed();
    let wrong = run(log::main, dir.path(), &["--piece", "3"]);
    assert_eq!(wrong.exit, Exit::Usage);
}

#[test]
fn the_consoles_tell_what_happened_before_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thing"), content(100_000, 3)).unwrap();
    let tracker = || {
        let tracker = Running::start(tracker::main, dir.path(), &["127.0.0.1:0"]);
        let said = tracker.says("/announce and udp://");
        let addr = said.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        (tracker, addr)
    };
    let (first, addr) = tracker();
    let sharer = Running::start(peer::main, dir.path(), &["share", "thing", &addr, "127.0.0.1:0"]);
    sharer.says("\nseeding thing\n");
    let get = |out: &str| {
        let args = ["get", "thing", &addr, "127.0.0.1:0", "--output", out];
        let getter = Running::start(peer::main, dir.path(), &args);
        getter.says("\nseeding thing\n");
        getter
    };
    get("out").quits().fine();
    let getter = get("out");
    getter.types("request logs");
    // It received nothing, because everything was there.
    getter.says(&sharer.address());
    getter.quits().fine();
    // The tracker, asked who holds what.
    let ask = |args: &[&str]| {
        let all: Vec<&str> = ["thing", "--tracker", &addr].iter().chain(args).copied().collect();
        said(dir.path(), &all)
    };
    let port = sharer.address().rsplit_once(':').unwrap().1.to_owned();
    let sharer_at = format!("127.0.0.1:{port}");
    let holders = ask(&["--piece", "0"]);
    assert!(holders.starts_with("piece 0: held by 1 peer\n"), "{holders}");
    assert!(holders.contains(&sharer_at), "{holders}");
    assert!(ask(&["--at-risk"]).starts_with("7 pieces held by 1 peer or fewer\n"));
    assert!(ask(&["--missing", &sharer_at]).contains("misses nothing"));
    let without = ask(&["--without", &sharer_at]);
    assert!(without.contains("nobody can complete: 7 pieces would be lost"), "{without}");
    assert!(ask(&["--since", "1h"]).contains("register"));
    first.quits().fine();
    let kept = ["--journal", "torrents/tracker-journal.sqlite"];
    assert!(said(dir.path(), &kept).contains("completed"));

    let (second, _) = tracker();
    second.types("request logs");
    let log = second.says("shown");
    for event in ["register", "fetch", "started", "stopped"] {
        assert!(log.contains(event), "{event}: {log}");
    }
    second.quits().fine();
    sharer.quits().fine();
}
