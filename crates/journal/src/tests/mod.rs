//! The journal as a whole: writing, reading, bounds, sharing, damage.

mod damaged;
mod documented;
mod no_room;
mod pruning;

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::database::Database;
use super::queue::{MOST, Queue};
use super::time::now_ms;
use super::writer::Writer;
use super::*;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, PeerId, PieceIndex, Sha1Hash};
use piecework_swarm::{BlockDigest, PeerIdentity};

const PIECES: u32 = 10;

pub(super) fn torrent() -> Arc<Metainfo> {
    let hashes = (0..PIECES).flat_map(|piece| [piece as u8; 20]).collect();
    let length = u64::from(PIECES) * 32_768 - 100;
    let builder = MetainfoBuilder::single_file("a\x1bb", length).piece_len(32_768);
    Arc::new(builder.build(hashes).unwrap())
}

fn peer(port: u16) -> Arc<PeerIdentity> {
    let addr = SocketAddr::from(([10, 0, 0, 1], port));
    let client = "Test 1.0".to_owned();
    Arc::new(PeerIdentity { addr, listens_at: None, id: PeerId([port as u8; 20]), client })
}

fn options(dir: &tempfile::TempDir) -> JournalOptions {
    JournalOptions {
        path: dir.path().join("new/journal.sqlite"),
        age: Journal::DEFAULT_AGE,
        size: Journal::DEFAULT_SIZE,
        program: "test".to_owned(),
    }
}

fn given(torrent: &Arc<Metainfo>, port: u16, piece: u32, fate: BlockFate) -> Record {
    let time = now_ms();
    Record::Given(Response {
        time,
        torrent: Arc::clone(torrent),
        who: peer(port),
        piece: PieceIndex(piece),
        fate,
        blocks: 2,
        bytes: 32_768,
        ranges: [(0, 1)].into_iter().collect(),
        asked: Some((time - 30, time - 10)),
    })
}

pub(super) fn sent(torrent: &Arc<Metainfo>, piece: u32, blocks: u32, bytes: u64) -> Record {
    Record::Sent(Upload {
        time: now_ms(),
        torrent: Arc::clone(torrent),
        who: peer(9),
        piece: PieceIndex(piece),
        blocks,
        bytes,
    })
}

fn judged(torrent: &Arc<Metainfo>, port: u16, block: Option<u32>) -> Record {
    Record::Judged(Box::new(Blame {
        time: now_ms(),
        torrent: Arc::clone(torrent),
        who: peer(port),
        piece: PieceIndex(3),
        got: Sha1Hash([7; 20]),
        block,
        sent: block.map(|_| BlockDigest([1; 20])),
        right: block.map(|_| BlockDigest([2; 20])),
    }))
}

#[test]
fn what_was_recorded_is_there_at_once_and_after_a_restart() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let hash = torrent.info_hash();
    let journal = Journal::open(&options(&dir)).unwrap();
    journal.record(given(&torrent, 1, 0, BlockFate::Verified));
    journal.record(given(&torrent, 2, 1, BlockFate::Verified));
    journal.record(given(&torrent, 2, 1, BlockFate::Unused));
    for (piece, bytes) in [(0, 32_768), (4, 20_000), (9, 32_668)] {
        journal.record(sent(&torrent, piece, 2, bytes));
    }
    let look = |journal: &Journal| {
        journal
            .read(|reader| {
                let givers = reader.givers(hash)?;
                let of = |giver: &GiverRow| {
                    (giver.peer.port(), giver.pieces, giver.bytes, giver.unused_bytes)
                };
                let givers: Vec<_> = givers.iter().map(of).collect();
                assert_eq!(givers, [(1, 1, 32_768, 0), (2, 1, 32_768, 32_768)]);
                let takers = reader.takers(hash)?;
                assert_eq!((takers[0].blocks, takers[0].bytes), (6, 32_768 + 20_000 + 32_668));
                let story = reader.story(hash, 1)?;
                let kinds: Vec<_> = story.iter().map(|event| &event.kind).collect();
                assert_eq!(kinds, [&PieceEventKind::Given, &PieceEventKind::Unused]);
                assert_eq!(story[0].blocks.as_deref(), Some("0-1"));
                for (piece, blocks, bytes) in [(4, 2, 20_000), (9, 2, 32_668)] {
                    let story = reader.story(hash, piece)?;
                    assert_eq!(story.len(), 1, "{piece}");
                    assert_eq!((story[0].block_count, story[0].bytes), (blocks, bytes));
                }
                let log = reader.log(&Filter::default(), 10)?;
                let log: Vec<_> = log.iter().map(|e| (e.piece.0, e.took_ms, e.blocks)).collect();
                assert_eq!(log, [(0, 20, 2), (1, 20, 2)]);
                let line = reader.arrivals(hash, 5)?;
                let bytes: u64 = line.series.iter().flat_map(|series| &series.bytes).sum();
                assert_eq!((line.series.len(), bytes), (2, 2 * 32_768));
                Ok(())
            })
            .unwrap();
    };
    look(&journal);
    drop(journal);
    let journal = Journal::open(&options(&dir)).unwrap();
    assert_eq!(journal.notice(), None);
    look(&journal);
}

#[test]
fn a_time_line_of_many_givers_has_those_that_gave_most_and_the_others_together() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let journal = Journal::open(&options(&dir)).unwrap();
    for port in 1..=1_000 {
        let Record::Given(one) = given(&torrent, port, 0, BlockFate::Verified) else { panic!() };
        let (bytes, time) = (u64::from(port), i64::from(port));
        journal.record(Record::Given(Response { bytes, time, ..one }));
    }
    let line = journal.read(|reader| reader.arrivals(torrent.info_hash(), 10)).unwrap();
    assert_eq!((line.series.len(), line.unnamed), (201, 800));
    let sum = |series: &ArrivalSeries| series.bytes.iter().sum::<u64>();
    let (others, named) = line.series.split_last().unwrap();
    assert_eq!(others.giver, None);
    assert_eq!((sum(others), others.pieces.iter().sum::<u32>()), ((1..=800).sum::<u64>(), 800));
    // In the part of the time in which they arrived.
    assert_eq!(others.pieces, [100, 100, 100, 100, 100, 100, 100, 100, 0, 0]);
    assert_eq!(named.iter().map(sum).sum::<u64>(), (801..=1_000).sum::<u64>());
    assert!(named.iter().all(|series| series.giver.is_some() && sum(series) > 800));
}

#[test]
fn owners_are_those_who_gave_most_and_only_what_is_new_is_told() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let hash = torrent.info_hash();
    let journal = Journal::open(&options(&dir)).unwrap();
    let mut owners = Owners::new(PIECES);
    let mut look = || {
        journal
            .read(|reader| {
                let new = reader.follow(hash, &mut owners)?;
                let givers = reader.givers(hash)?;
                let port = |id: i64| givers.iter().find(|g| g.id == id).unwrap().peer.port();
                Ok(new.pieces.iter().map(|(piece, id)| (*piece, port(*id))).collect::<Vec<_>>())
            })
            .unwrap()
    };
    assert_eq!(look(), []);
    for (port, bytes) in [(1, 100), (2, 32_000), (3, 668)] {
        let Record::Given(one) = given(&torrent, port, 5, BlockFate::Verified) else { panic!() };
        journal.record(Record::Given(Response { bytes, time: 1_000, ..one }));
    }
    assert_eq!(look(), [(5, 2)]);
    journal.record(given(&torrent, 1, 6, BlockFate::Failed));
    journal.record(given(&torrent, 3, 7, BlockFate::Verified));
    assert_eq!(look(), [(7, 3)]);
    assert_eq!(look(), []);
    let known: Vec<bool> = owners.by_piece().map(|owner| owner > 0).collect();
    assert_eq!(known.iter().filter(|known| **known).count(), 2);
}

#[test]
fn a_wrong_piece_names_the_guilty_one_and_its_block_as_soon_as_they_are_known() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let hash = torrent.info_hash();
    let journal = Journal::open(&options(&dir)).unwrap();
    let look = || journal.read(|reader| reader.wrong_pieces(hash)).unwrap();
    journal.record(Record::Failed(HashFailure {
        time: now_ms(),
        torrent: Arc::clone(&torrent),
        piece: PieceIndex(3),
        givers: 2,
        got: Sha1Hash([7; 20]),
    }));
    assert_eq!((look()[0].peer, look()[0].givers), (None, 2));
    journal.record(judged(&torrent, 5, None));
    let known = look();
    assert_eq!((known.len(), known[0].peer.unwrap().port(), known[0].block), (1, 5, None));
    assert_eq!((known[0].expected, known[0].got), (Sha1Hash([3; 20]), Sha1Hash([7; 20])));
    journal.record(judged(&torrent, 5, Some(1)));
    let proven = look();
    assert_eq!((proven.len(), proven[0].block), (1, Some(1)));
    assert_eq!(proven[0].block_right, Some(BlockDigest([2; 20])));
    let banned = journal.read(|reader| reader.givers(hash)).unwrap();
    assert!(banned.is_empty(), "it gave nothing");
}

#[test]
fn the_log_of_one_torrent_looks_at_its_own_rows() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let other = MetainfoBuilder::single_file("other", 32_768).piece_len(32_768);
    let other = Arc::new(other.build(vec![1; 20]).unwrap());
    let options = options(&dir);
    let journal = Journal::open(&options).unwrap();
    for round in 0..3 {
        for port in 1..4 {
            journal.record(given(&torrent, port, round, BlockFate::Verified));
        }
        journal.record(given(&other, 9, 0, BlockFate::Verified));
        journal.flush();
    }
    let log = |after, limit| -> Vec<i64> {
        let filter = Filter { torrent: Some(torrent.info_hash()), after, ..Filter::default() };
        let log = journal.read(|reader| reader.log(&filter, limit)).unwrap();
        assert!(log.iter().all(|entry| entry.info_hash == torrent.info_hash()));
        log.iter().map(|entry| entry.id).collect()
    };
    assert_eq!(log(None, 100), [1, 2, 3, 5, 6, 7, 9, 10, 11]);
    assert_eq!(log(None, 4), [7, 9, 10, 11]);
    assert_eq!(log(Some(2), 3), [3, 5, 6]);
    assert_eq!(log(Some(11), 3), [0_i64; 0]);
    let connection = rusqlite::Connection::open(&options.path).unwrap();
    for oldest_first in [false, true] {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {}", read::log_query(true, oldest_first)))
            .unwrap()
            .query_map([rusqlite::types::Null; 7], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let has = |what: &str| plan.iter().any(|step| step.starts_with(what));
        assert!(has("SEARCH s ") && has("SEARCH g ") && !has("USE TEMP"), "{plan:?}");
    }
}

#[test]
fn requests_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let handed = piecework_registry::HandedPeer { addr: peer(7).addr, complete: true };
    let record = RequestRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        peer: peer(1).addr,
        peer_id: Some(PeerId(*b"-TR4040-abcdefghijkl")),
        event: RequestEvent::Started,
        info_hash: Some(InfoHash([3; 20])),
        name: Some("x\x1b".into()),
        handed: HandedList::new(&[handed]),
        outcome: Err("no".into()),
        via: Via::Udp,
        unlisted: true,
    };
    let journal = Arc::new(Journal::open(&options(&dir)).unwrap());
    let log = RequestLog::with_journal(10, Arc::clone(&journal)).unwrap();
    log.push(record.clone());
    log.close();
    drop((log, journal));
    let journal = Arc::new(Journal::open(&options(&dir)).unwrap());
    let log = RequestLog::with_journal(10, journal).unwrap();
    assert_eq!(*log.last(10)[0], record);
}
