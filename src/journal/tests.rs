//! The journal as a whole: written, read, bounded, shared, damaged.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::database::Database;
use super::queue::{MOST, now_ms};
use super::*;
use crate::base::{PeerId, PieceIndex, Sha1Hash};
use crate::metainfo::{Metainfo, MetainfoBuilder};
use crate::swarm::{BlockDigest, PeerIdentity};

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

fn given(torrent: &Arc<Metainfo>, port: u16, piece: u32, fate: Fate) -> Record {
    let time = now_ms();
    Record::Given(Given {
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
    Record::Sent(Sent {
        time: now_ms(),
        torrent: Arc::clone(torrent),
        who: peer(9),
        piece: PieceIndex(piece),
        blocks,
        bytes,
    })
}

fn judged(torrent: &Arc<Metainfo>, port: u16, block: Option<u32>) -> Record {
    Record::Judged(Box::new(Judged {
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
    journal.record(given(&torrent, 1, 0, Fate::Verified));
    journal.record(given(&torrent, 2, 1, Fate::Verified));
    journal.record(given(&torrent, 2, 1, Fate::Unused));
    for (piece, bytes) in [(0, 32_768), (4, 20_000), (9, 32_668)] {
        journal.record(sent(&torrent, piece, 2, bytes));
    }
    let look = |journal: &Journal| {
        journal
            .read(|reader| {
                let givers = reader.givers(hash)?;
                let of = |giver: &crate::api::GiverInfo| {
                    (giver.peer.port(), giver.pieces, giver.bytes, giver.unused_bytes)
                };
                let givers: Vec<_> = givers.iter().map(of).collect();
                assert_eq!(givers, [(1, 1, 32_768, 0), (2, 1, 32_768, 32_768)]);
                let takers = reader.takers(hash)?;
                assert_eq!((takers[0].blocks, takers[0].bytes), (6, 32_768 + 20_000 + 32_668));
                let story = reader.story(hash, 1)?;
                let kinds: Vec<&str> = story.iter().map(|entry| entry.kind.as_str()).collect();
                assert_eq!(kinds, ["given", "unused"]);
                assert_eq!(story[0].blocks.as_deref(), Some("0-1"));
                for (piece, blocks, bytes) in [(4, 2, 20_000), (9, 2, 32_668)] {
                    let story = reader.story(hash, piece)?;
                    assert_eq!(story.len(), 1, "{piece}");
                    assert_eq!((story[0].block_count, story[0].bytes), (blocks, bytes));
                }
                let log = reader.log(&Filter::default(), 10)?;
                let log: Vec<_> = log.iter().map(|e| (e.piece, e.took_ms, e.blocks)).collect();
                assert_eq!(log, [(0, 20, 2), (1, 20, 2)]);
                let line = reader.timeline(hash, 5)?;
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
        let Record::Given(one) = given(&torrent, port, 0, Fate::Verified) else { panic!() };
        let (bytes, time) = (u64::from(port), i64::from(port));
        journal.record(Record::Given(Given { bytes, time, ..one }));
    }
    let line = journal.read(|reader| reader.timeline(torrent.info_hash(), 10)).unwrap();
    assert_eq!((line.series.len(), line.others), (201, 800));
    let sum = |series: &crate::api::Series| series.bytes.iter().sum::<u64>();
    let (others, named) = line.series.split_last().unwrap();
    assert_eq!(others.giver, crate::api::Series::OTHERS);
    assert_eq!((sum(others), others.pieces.iter().sum::<u32>()), ((1..=800).sum::<u64>(), 800));
    // In the part of the time in which they came.
    assert_eq!(others.pieces, [100, 100, 100, 100, 100, 100, 100, 100, 0, 0]);
    assert_eq!(named.iter().map(sum).sum::<u64>(), (801..=1_000).sum::<u64>());
    assert!(named.iter().all(|series| series.giver > 0 && sum(series) > 800));
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
        let Record::Given(one) = given(&torrent, port, 5, Fate::Verified) else { panic!() };
        journal.record(Record::Given(Given { bytes, time: 1_000, ..one }));
    }
    assert_eq!(look(), [(5, 2)]);
    journal.record(given(&torrent, 1, 6, Fate::Failed));
    journal.record(given(&torrent, 3, 7, Fate::Verified));
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
    let look = || journal.read(|reader| reader.bad(hash)).unwrap();
    journal.record(Record::Failed(Failed {
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
    assert_eq!(
        (known[0].expected.as_str(), known[0].got.as_str()),
        (&*"03".repeat(20), &*"07".repeat(20))
    );
    journal.record(judged(&torrent, 5, Some(1)));
    let proven = look();
    assert_eq!((proven.len(), proven[0].block), (1, Some(1)));
    assert_eq!(proven[0].block_right.as_deref(), Some(&*"02".repeat(20)));
    let banned = journal.read(|reader| reader.givers(hash)).unwrap();
    assert!(banned.is_empty(), "it gave nothing");
}

#[test]
fn what_there_is_no_room_for_is_dropped_oldest_first_and_counted_by_torrent() {
    let torrent = torrent();
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    let mut writer = Writer::new(&options);
    let queue = Queue::new(writer.open());
    let fit = MOST / sent(&torrent, 0, 1, 1).size();
    for _ in 0..fit + 5 {
        queue.push(sent(&torrent, 0, 1, 1));
    }
    queue.skipped(2);
    assert_eq!((queue.dropped(), queue.missing()), (7, 5));
    assert_eq!(queue.unwritten(torrent.info_hash()), Unwritten { waiting: 0, lost: 5 });
    queue.close();
    queue.run(writer);
    let connection = rusqlite::Connection::open(&options.path).unwrap();
    let told: Vec<(String, i64, Option<String>)> = connection
        .prepare("SELECT what, count, torrent FROM dropped ORDER BY what")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let name = Some("a\x1bb".to_owned());
    assert_eq!(told, [("queue".to_owned(), 5, name), ("rate".to_owned(), 2, None)]);
    let sum: i64 =
        connection.query_row("SELECT sum(blocks) FROM sent_rows", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, fit as i64);
    assert_eq!(Reader::open(&options.path).unwrap().lost(torrent.info_hash()).unwrap(), 5);
}

/// Waits until `what` holds, for a minute.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_disk_costs_no_record_that_fits_in_memory() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let room = Arc::new(AtomicBool::new(true));
    let mut writer = Writer::new(&options);
    writer.only_while(Arc::clone(&room));
    let journal = Journal::start(writer).unwrap();
    journal.record(given(&torrent, 1, 0, Fate::Verified));
    journal.flush();
    room.store(false, Ordering::Relaxed);
    for piece in 1..1_000 {
        journal.record(given(&torrent, 1, piece % PIECES, Fate::Verified));
    }
    wait_until("told that there is no room", || !journal.notices().is_empty());
    let notices = journal.notices();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.contains("no room left on its disk; `999` records wait"), "{notice}");
    // Who reads does not wait for the disk, and is told what is missing.
    let started = std::time::Instant::now();
    let givers = journal.read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!(givers[0].pieces, 1);
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!(journal.unwritten(torrent.info_hash()), Unwritten { waiting: 999, lost: 0 });
    room.store(true, Ordering::Relaxed);
    wait_until("written", || journal.written() == 1_000);
    assert_eq!(journal.notices(), [""; 0]);
    let givers = journal.read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!((givers[0].pieces, journal.dropped()), (1_000, 0));
}

#[test]
fn what_a_full_disk_costs_is_counted_and_told_for_good() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let room = Arc::new(AtomicBool::new(false));
    let mut writer = Writer::new(&options);
    writer.only_while(Arc::clone(&room));
    let journal = Journal::start(writer).unwrap();
    let one = given(&torrent, 1, 0, Fate::Verified);
    let fit = (MOST / one.size()) as u64;
    for _ in 0..fit + 300 {
        journal.record(one.clone());
    }
    assert_eq!((journal.lost(), journal.dropped()), (300, 300));
    let unwritten = journal.unwritten(torrent.info_hash());
    assert_eq!(unwritten, Unwritten { waiting: fit, lost: 300 });
    let lost = "`300` records of the journal";
    assert!(journal.notices().iter().any(|notice| notice.starts_with(lost)));
    assert!(journal.notices().iter().any(|notice| notice.contains("no room")));
    room.store(true, Ordering::Relaxed);
    wait_until("written", || journal.written() == fit);
    let notices = journal.notices();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.starts_with(lost), "{notice}");
    journal.flush();
    assert_eq!(journal.unwritten(torrent.info_hash()), Unwritten::default());
    drop(journal);
    let reader = Reader::open(&options.path).unwrap();
    assert_eq!(reader.lost(torrent.info_hash()).unwrap(), 300);
    assert_eq!(reader.givers(torrent.info_hash()).unwrap()[0].pieces, fit);
}

#[test]
fn a_journal_that_cannot_be_made_for_lack_of_room_is_made_later() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let room = Arc::new(AtomicBool::new(false));
    let mut writer = Writer::new(&options);
    writer.only_while(Arc::clone(&room));
    let journal = Journal::start(writer).unwrap();
    assert_eq!(journal.run(), None);
    journal.record(given(&torrent, 1, 0, Fate::Verified));
    // It can be asked all the same.
    assert!(journal.read(|reader| reader.givers(torrent.info_hash())).unwrap().is_empty());
    assert!(journal.read(|reader| reader.log(&Filter::default(), 5)).unwrap().is_empty());
    assert_eq!(journal.unwritten(torrent.info_hash()).waiting, 1);
    assert!(!options.path.exists());
    room.store(true, Ordering::Relaxed);
    wait_until("written", || journal.written() == 1);
    let filter = Filter { run: journal.run(), ..Filter::default() };
    assert_eq!(journal.read(|reader| reader.log(&filter, 5)).unwrap().len(), 1);
    assert_eq!(journal.notices(), [""; 0]);
}

#[test]
fn what_cannot_be_written_when_the_program_ends_is_counted() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let room = Arc::new(AtomicBool::new(true));
    let mut writer = Writer::new(&options(&dir));
    writer.only_while(Arc::clone(&room));
    let journal = Journal::start(writer).unwrap();
    room.store(false, Ordering::Relaxed);
    for piece in 0..7 {
        journal.record(given(&torrent, 1, piece, Fate::Verified));
    }
    journal.close();
    assert_eq!((journal.lost(), journal.written()), (7, 0));
}

#[test]
fn a_database_that_may_not_grow_keeps_what_waits_and_takes_it_later() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let mut writer = Writer::new(&options);
    writer.open().unwrap();
    // SQLite itself says that the disk is full, in the middle of a transaction.
    let database = writer.database().unwrap();
    let pages: i64 = database::pragma(&database.connection, "page_count").unwrap();
    let bound = |database: &Database, pages: i64| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        database.connection.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    bound(database, pages + 4);
    let records: Vec<Record> =
        (0..5_000).map(|n| given(&torrent, n as u16, n % PIECES, Fate::Verified)).collect();
    let fault = writer.write(&records, &queue::Lost::default()).unwrap_err();
    assert!(matches!(writer.error(fault), JournalError::Full { .. }));
    let reader = Reader::open(&options.path).unwrap();
    assert!(reader.log(&Filter::default(), 10).unwrap().is_empty(), "all or nothing");
    bound(writer.database().unwrap(), 1 << 20);
    assert!(writer.write(&records, &queue::Lost::default()).is_ok());
    assert_eq!(reader.log(&Filter::default(), 9_999).unwrap().len(), 5_000);
}

#[test]
fn a_full_file_loses_its_oldest_rows_and_grows_no_more() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let mut known = write::Known::new(1);
    let size = 1 << 20;
    for _ in 0..40 {
        let rows: Vec<Record> =
            (0..2_000).map(|n| given(&torrent, 1, n % PIECES, Fate::Verified)).collect();
        let transaction = database.connection.transaction().unwrap();
        known.write(&transaction, &rows).unwrap();
        transaction.commit().unwrap();
        while database.prune(size, &[0; 5]).unwrap() {}
    }
    let (first, last): (i64, i64) = database
        .connection
        .query_row("SELECT min(id), max(id) FROM given_rows", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(last, 80_000);
    assert!(first > 50_000, "{first}");
    let pages: i64 = database::pragma(&database.connection, "page_count").unwrap();
    assert!(pages * 4_096 <= size as i64 * 5 / 4, "{pages}");
    // The sums stay.
    let sum: i64 =
        database.connection.query_row("SELECT pieces FROM givers", [], |r| r.get(0)).unwrap();
    assert_eq!(sum, 80_000);
    // And what is too old goes, but for the last, which the next number follows.
    while database.prune(u64::MAX, &[i64::MAX; 5]).unwrap() {}
    let left: i64 = database
        .connection
        .query_row("SELECT count(*) FROM given_rows", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1);
}

/// Looks at the time as a program does that has run for `at` milliseconds, and takes out what has
/// expired; gives the pieces whose responses are left.
fn left(options: &JournalOptions, database: &mut Database, wall: i64, at: i64) -> Vec<u32> {
    let expired = database.expired(retention::millis(options.age), (wall, at), false).unwrap();
    while database.prune(u64::MAX, &expired).unwrap() {}
    let log = Reader::open(&options.path).unwrap().log(&Filter::default(), 100).unwrap();
    log.iter().map(|entry| entry.piece).collect()
}

const DAY: i64 = 24 * 3_600_000;

fn add(database: &mut Database, torrent: &Arc<Metainfo>, piece: u32, time: i64) {
    let Record::Given(one) = given(torrent, 1, piece, Fate::Verified) else { panic!() };
    let transaction = database.connection.transaction().unwrap();
    let record = Record::Given(Given { time, ..one });
    write::Known::new(1).write(&transaction, &[record]).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn what_is_too_old_goes_and_what_is_younger_stays() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let start = now_ms();
    let mut pieces = Vec::new();
    for day in 0..200 {
        // A program that runs always, and one that is started each day.
        if day > 100 {
            database = Database::open(&options.path).unwrap();
            left(&options, &mut database, start + day * DAY, 0);
        }
        for part in 0..6 {
            let now = day * DAY + part * DAY / 6;
            pieces = left(&options, &mut database, start + now, now);
        }
        add(&mut database, &torrent, (day % 10) as u32, start + day * DAY);
        if day < 80 {
            assert_eq!(pieces.len() as i64, day);
        }
    }
    // 90 days, right to one part in 64 and a day.
    assert!((88..=93).contains(&pieces.len()), "{}", pieces.len());
}

#[test]
fn a_wall_clock_that_jumps_forward_and_back_costs_no_rows() {
    for jump in [100 * DAY, 400 * DAY, -400 * DAY, -now_ms()] {
        let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
        let options = options(&dir);
        drop(Journal::open(&options).unwrap());
        let mut database = Database::open(&options.path).unwrap();
        let start = now_ms();
        let mut at = 0;
        for (piece, wall) in [0, jump, jump, 0, jump, 0, 0].into_iter().enumerate() {
            // Each time with rows of that time, and one start of the program with a wrong clock.
            if piece == 4 {
                database = Database::open(&options.path).unwrap();
                at = 0;
            }
            add(&mut database, &torrent, piece as u32, start + wall + at);
            for _ in 0..20 {
                at += 2_000;
                left(&options, &mut database, start + wall + at, at);
            }
        }
        let mut pieces = left(&options, &mut database, start + at, at);
        // They are told in the order of their times.
        pieces.sort_unstable();
        assert_eq!(pieces, [0, 1, 2, 3, 4, 5, 6], "{jump}");
    }
}

#[test]
fn rows_of_earlier_runs_are_told_also_if_their_time_has_not_come() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let journal = Journal::open(&options(&dir)).unwrap();
    let Record::Given(one) = given(&torrent, 1, 3, Fate::Verified) else { panic!() };
    journal.record(Record::Given(Given { time: now_ms() + 400 * DAY, ..one }));
    drop(journal);
    let journal = Journal::open(&options(&dir)).unwrap();
    let filter = Filter { run: journal.run(), ..Filter::default() };
    let log = journal.read(|reader| reader.log(&filter, 10)).unwrap();
    assert_eq!(log.iter().map(|entry| entry.piece).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_table_with_one_old_row_keeps_nothing_from_being_pruned() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let mut known = write::Known::new(1);
    let mut rows = vec![judged(&torrent, 5, None)];
    rows.extend((0..20_000).map(|n| given(&torrent, 1, n % PIECES, Fate::Verified)));
    let transaction = database.connection.transaction().unwrap();
    known.write(&transaction, &rows).unwrap();
    transaction.commit().unwrap();
    let count = |database: &Database, sql: &str| -> i64 {
        database.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&database, "SELECT count(*) FROM bad_rows"), 1);
    database.connection.execute("UPDATE bad_rows SET time = 0", []).unwrap();
    assert!(database.prune(1 << 19, &[0; 5]).unwrap());
    assert_eq!(count(&database, "SELECT count(*) FROM given_rows"), 15_000);
    assert_eq!(count(&database, "SELECT pieces FROM givers"), 20_000);
    assert_eq!(count(&database, "SELECT count(*) FROM bad_rows"), 1);
}

#[test]
fn a_file_that_may_have_less_room_than_before_shrinks() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let mut known = write::Known::new(1);
    let rows: Vec<Record> =
        (0..60_000).map(|n| given(&torrent, 1, n % PIECES, Fate::Verified)).collect();
    let transaction = database.connection.transaction().unwrap();
    known.write(&transaction, &rows).unwrap();
    transaction.commit().unwrap();
    let pages = |database: &Database| -> i64 {
        database::pragma(&database.connection, "page_count").unwrap()
    };
    let before = pages(&database);
    let size: i64 = 1 << 20;
    assert!(before * 4_096 > 2 * size, "{before}");
    while database.prune(size as u64, &[0; 5]).unwrap() {}
    let after = pages(&database);
    assert!(after * 4_096 <= size, "{after} of {before}");
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
            journal.record(given(&torrent, port, round, Fate::Verified));
        }
        journal.record(given(&other, 9, 0, Fate::Verified));
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
fn two_programs_write_into_one_file() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let journals = [0, 1].map(|_| Journal::open(&options(&dir)).unwrap());
    for round in 0..20 {
        for (at, journal) in journals.iter().enumerate() {
            journal.record(given(&torrent, at as u16 + 1, round % PIECES, Fate::Verified));
            if round % 5 == 0 {
                journal.flush();
            }
        }
    }
    for journal in &journals {
        journal.flush();
    }
    let givers = journals[0].read(|reader| reader.givers(torrent.info_hash())).unwrap();
    let pieces: Vec<u64> = givers.iter().map(|giver| giver.pieces).collect();
    assert_eq!(pieces, [20, 20]);
    let filter = Filter { run: journals[1].run(), ..Filter::default() };
    let own = journals[1].read(|reader| reader.log(&filter, 100)).unwrap();
    assert!(own.iter().filter(|entry| entry.peer.port() == 2).count() == 20);
}

#[test]
fn a_damaged_journal_is_set_aside_with_a_notice() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    // Its header still says what it is.
    let mut bytes = std::fs::read(&options.path).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(&options.path, bytes).unwrap();
    let journal = Journal::open(&options).unwrap();
    let notice = journal.notice().unwrap();
    assert!(notice.contains("was damaged") && notice.contains(".damaged-"), "{notice}");
    journal.record(given(&torrent(), 1, 0, Fate::Verified));
    let rows = journal.read(|reader| reader.log(&Filter::default(), 10)).unwrap();
    assert_eq!(rows.len(), 1);
}

/// Writes nonsense over the first page of a table, behind the back of whoever has the file open; its
/// last run has ended, so that opening it does not look at all of it.
fn damage(options: &JournalOptions, table: &str) {
    let connection = rusqlite::Connection::open(&options.path).unwrap();
    connection
        .execute("INSERT INTO runs (program, started_at, ended_at) VALUES ('other', 1, 2)", [])
        .unwrap();
    let page: u64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| {
            row.get::<_, i64>(0).map(|page| page as u64)
        })
        .unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&options.path).unwrap();
    file.write_all_at(&[0xa5; 4_096], (page - 1) * 4_096).unwrap();
}

fn set_aside(options: &JournalOptions) -> usize {
    let names = std::fs::read_dir(options.path.parent().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| {
            name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .count()
}

#[test]
fn a_journal_that_the_writer_finds_damaged_is_set_aside_and_nothing_is_lost() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let journal = Journal::open(&options).unwrap();
    journal.record(given(&torrent, 1, 0, Fate::Verified));
    let pieces = |journal: &Journal| {
        let log = journal.read(|reader| reader.log(&Filter::default(), 10)).unwrap();
        log.iter().map(|entry| entry.piece).collect::<Vec<_>>()
    };
    assert_eq!(pieces(&journal), [0]);
    damage(&options, "given_rows");
    journal.record(given(&torrent, 1, 5, Fate::Verified));
    journal.flush();
    assert_eq!(set_aside(&options), 1);
    // Not the reader that was kept from before.
    assert_eq!(pieces(&journal), [5]);
    assert_eq!((journal.written(), journal.dropped()), (2, 0));
    journal.record(given(&torrent, 1, 6, Fate::Verified));
    assert_eq!(pieces(&journal), [5, 6]);
    assert_eq!(set_aside(&options), 1);
}

#[test]
fn a_journal_that_a_reader_finds_damaged_is_set_aside() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let journal = Journal::open(&options).unwrap();
    journal.record(given(&torrent, 1, 0, Fate::Verified));
    journal.flush();
    // The writer never looks there.
    damage(&options, "bad_rows");
    let look = || journal.read(|reader| reader.bad(torrent.info_hash()));
    assert!(matches!(look(), Err(JournalError::Damaged { .. })));
    assert_eq!(set_aside(&options), 1);
    assert!(look().unwrap().is_empty());
    assert_eq!(set_aside(&options), 1);
}

#[test]
fn a_trackers_first_look_at_a_damaged_journal_leaves_it_with_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    damage(&options, "request_rows");
    let journal = Arc::new(Journal::open(&options).unwrap());
    assert_eq!(journal.notice(), None, "it is not looked at as a whole");
    let log = RequestLog::with_journal(10, journal).unwrap();
    assert!(log.is_empty());
    assert_eq!(set_aside(&options), 1);
}

#[test]
fn of_two_programs_one_sets_the_journal_aside_and_the_other_follows() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let journals = [0, 1].map(|_| Journal::open(&options).unwrap());
    damage(&options, "given_rows");
    for (at, journal) in journals.iter().enumerate() {
        journal.record(given(&torrent, at as u16 + 1, 0, Fate::Verified));
        journal.flush();
    }
    assert_eq!(set_aside(&options), 1);
    let givers = journals[0].read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!(givers.len(), 2);
    // One that is taken away is begun anew.
    std::fs::remove_file(&options.path).unwrap();
    journals[0].record(given(&torrent, 3, 0, Fate::Verified));
    let givers = journals[0].read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!(givers.iter().map(|giver| giver.peer.port()).collect::<Vec<_>>(), [3]);
}

#[test]
fn what_is_no_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let refused = Journal::open(&JournalOptions { path: path.clone(), ..options(&dir) });
    assert!(refused.unwrap_err().to_string().contains("another program's database"));
    assert!(matches!(Reader::open(&path), Err(JournalError::Foreign { .. })));
    let mode: String = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete", "it is left as it was");
    let image = dir.path().join("linux.iso");
    std::fs::write(&image, vec![0xa5; 20_000]).unwrap();
    let refused = Journal::open(&JournalOptions { path: image.clone(), ..options(&dir) });
    assert!(matches!(refused, Err(JournalError::Foreign { .. })));
    assert_eq!(std::fs::read(&image).unwrap(), vec![0xa5; 20_000]);
    let missing = dir.path().join("none");
    assert!(matches!(Reader::open(&missing), Err(JournalError::Missing { .. })));
}

#[test]
fn requests_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let handed = crate::registry::Handed { addr: peer(7).addr, complete: true };
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

#[test]
fn a_journal_of_version_1_is_read_and_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let file = rusqlite::Connection::open(&options.path).unwrap();
    file.execute_batch(
        "DROP VIEW requests; ALTER TABLE request_rows DROP COLUMN unlisted; \
         DROP VIEW dropped; DROP TABLE clock; DROP TABLE marks; \
         ALTER TABLE drop_rows DROP COLUMN torrent; \
         CREATE VIEW dropped AS SELECT id, what, count FROM drop_rows; \
         CREATE VIEW requests AS SELECT id, peer FROM request_rows; PRAGMA user_version = 1; \
         INSERT INTO request_rows (run, time, event, via, peer, returned, complete) \
         VALUES (1, 5, 4, 0, '10.0.0.1:7', 0, 0)",
    )
    .unwrap();
    let is_old = |requests: Vec<RequestRecord>| {
        let [one] = &requests[..] else { panic!("one request, not {requests:?}") };
        (one.event, one.unlisted) == (RequestEvent::Scrape, false)
    };
    assert!(is_old(Reader::open(&options.path).unwrap().requests(9).unwrap()), "before");
    drop(Journal::open(&options).unwrap());
    assert!(is_old(Reader::open(&options.path).unwrap().requests(9).unwrap()), "after");
    let told: (String, bool, i64) = file
        .query_row(
            "SELECT event, unlisted, user_version FROM requests, pragma_user_version",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(told, ("scrape".to_owned(), false, 3));
    file.query_row("SELECT count(torrent), (SELECT count(*) FROM marks) FROM dropped", [], |row| {
        assert_eq!((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?), (0, 1));
        Ok(())
    })
    .unwrap();
}
