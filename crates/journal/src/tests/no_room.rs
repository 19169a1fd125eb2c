//! A disk that accepts no writes for a while.

use super::*;

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
    assert_eq!(queue.unwritten(torrent.info_hash()), MissingRecords { waiting: 0, lost: 5 });
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

/// Waits up to a minute until `what` holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A journal on a disk that has room while the flag is set.
fn journal_with_room(options: &JournalOptions, has_room: bool) -> (Arc<AtomicBool>, Journal) {
    let room = Arc::new(AtomicBool::new(has_room));
    let mut writer = Writer::new(options);
    writer.only_while(Arc::clone(&room));
    (room, Journal::start(writer).unwrap())
}

#[test]
fn a_full_disk_costs_no_record_that_fits_in_memory() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let (room, journal) = journal_with_room(&options, true);
    journal.record(given(&torrent, 1, 0, BlockFate::Verified));
    journal.flush();
    room.store(false, Ordering::Relaxed);
    for piece in 1..1_000 {
        journal.record(given(&torrent, 1, piece % PIECES, BlockFate::Verified));
    }
    wait_until("told that there is no room", || !journal.notices().is_empty());
    let notices = journal.notices();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.contains("no room left on its disk; `999` records wait"), "{notice}");
    // A reader does not wait for the disk, and is told what is missing.
    let started = std::time::Instant::now();
    let givers = journal.read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!(givers[0].pieces, 1);
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!(journal.unwritten(torrent.info_hash()), MissingRecords { waiting: 999, lost: 0 });
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
    let (room, journal) = journal_with_room(&options, false);
    let one = given(&torrent, 1, 0, BlockFate::Verified);
    let fit = (MOST / one.size()) as u64;
    for _ in 0..fit + 300 {
        journal.record(one.clone());
    }
    assert_eq!((journal.lost(), journal.dropped()), (300, 300));
    let unwritten = journal.unwritten(torrent.info_hash());
    assert_eq!(unwritten, MissingRecords { waiting: fit, lost: 300 });
    let lost = "`300` records of the journal";
    assert!(journal.notices().iter().any(|notice| notice.starts_with(lost)));
    assert!(journal.notices().iter().any(|notice| notice.contains("no room")));
    room.store(true, Ordering::Relaxed);
    wait_until("written", || journal.written() == fit);
    let notices = journal.notices();
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert!(notice.starts_with(lost), "{notice}");
    journal.flush();
    assert_eq!(journal.unwritten(torrent.info_hash()), MissingRecords::default());
    drop(journal);
    let reader = Reader::open(&options.path).unwrap();
    assert_eq!(reader.lost(torrent.info_hash()).unwrap(), 300);
    assert_eq!(reader.givers(torrent.info_hash()).unwrap()[0].pieces, fit);
}

#[test]
fn a_journal_that_cannot_be_made_for_lack_of_room_is_made_later() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let (room, journal) = journal_with_room(&options, false);
    assert_eq!(journal.run(), None);
    journal.record(given(&torrent, 1, 0, BlockFate::Verified));
    // It can still be read.
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
    let (room, journal) = journal_with_room(&options(&dir), true);
    room.store(false, Ordering::Relaxed);
    for piece in 0..7 {
        journal.record(given(&torrent, 1, piece, BlockFate::Verified));
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
    // SQLite itself reports that the disk is full, in the middle of a transaction.
    let database = writer.database().unwrap();
    let pages: i64 = piecework_database::pragma(&database.connection, "page_count").unwrap();
    let bound = |database: &Database, pages: i64| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        database.connection.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    bound(database, pages + 4);
    let records: Vec<Record> =
        (0..5_000).map(|n| given(&torrent, n as u16, n % PIECES, BlockFate::Verified)).collect();
    let fault = writer.write(&records, &losses::Losses::default()).unwrap_err();
    assert!(matches!(writer.error(fault), JournalError::Unwritable { .. }));
    let reader = Reader::open(&options.path).unwrap();
    assert!(reader.log(&Filter::default(), 10).unwrap().is_empty(), "all or nothing");
    bound(writer.database().unwrap(), 1 << 20);
    assert!(writer.write(&records, &losses::Losses::default()).is_ok());
    assert_eq!(reader.log(&Filter::default(), 9_999).unwrap().len(), 5_000);
}
