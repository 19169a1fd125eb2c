//! Files that are damaged, foreign, old, or written by two programs.

use super::*;

#[test]
fn two_programs_write_into_one_file() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let journals = [0, 1].map(|_| Journal::open(&options(&dir)).unwrap());
    for round in 0..20 {
        for (at, journal) in journals.iter().enumerate() {
            journal.record(given(&torrent, at as u16 + 1, round % PIECES, BlockFate::Verified));
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
    // Its header is still valid.
    let mut bytes = std::fs::read(&options.path).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(&options.path, bytes).unwrap();
    let journal = Journal::open(&options).unwrap();
    let notice = journal.notice().unwrap();
    assert!(notice.contains("was damaged") && notice.contains(".damaged-"), "{notice}");
    journal.record(given(&torrent(), 1, 0, BlockFate::Verified));
    let rows = journal.read(|reader| reader.log(&Filter::default(), 10)).unwrap();
    assert_eq!(rows.len(), 1);
}

/// Overwrites the first page of a table with garbage while others have the file open. Its last run
/// has ended, so opening it does not check all of it.
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
    journal.record(given(&torrent, 1, 0, BlockFate::Verified));
    let pieces = |journal: &Journal| {
        let log = journal.read(|reader| reader.log(&Filter::default(), 10)).unwrap();
        log.iter().map(|entry| entry.piece.0).collect::<Vec<_>>()
    };
    assert_eq!(pieces(&journal), [0]);
    damage(&options, "given_rows");
    journal.record(given(&torrent, 1, 5, BlockFate::Verified));
    journal.flush();
    assert_eq!(set_aside(&options), 1);
    // Not with the reader that was kept from before.
    assert_eq!(pieces(&journal), [5]);
    assert_eq!((journal.written(), journal.dropped()), (2, 0));
    journal.record(given(&torrent, 1, 6, BlockFate::Verified));
    assert_eq!(pieces(&journal), [5, 6]);
    assert_eq!(set_aside(&options), 1);
}

#[test]
fn a_journal_that_a_reader_finds_damaged_is_set_aside() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    let journal = Journal::open(&options).unwrap();
    journal.record(given(&torrent, 1, 0, BlockFate::Verified));
    journal.flush();
    // The writer never reads that page.
    damage(&options, "bad_rows");
    let look = || journal.read(|reader| reader.wrong_pieces(torrent.info_hash()));
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
        journal.record(given(&torrent, at as u16 + 1, 0, BlockFate::Verified));
        journal.flush();
    }
    assert_eq!(set_aside(&options), 1);
    let givers = journals[0].read(|reader| reader.givers(torrent.info_hash())).unwrap();
    assert_eq!(givers.len(), 2);
    // A file that was removed is created again.
    std::fs::remove_file(&options.path).unwrap();
    journals[0].record(given(&torrent, 3, 0, BlockFate::Verified));
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
fn a_journal_of_version_1_is_read_and_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let file = rusqlite::Connection::open(&options.path).unwrap();
    file.execute_batch(
        "DROP VIEW requests; ALTER TABLE request_rows DROP COLUMN unlisted; \
         DROP VIEW dropped; DROP TABLE clock; DROP TABLE marks; \
         ALTER TABLE drop_rows DROP COLUMN torrent; \
         DROP TABLE minutes; DROP VIEW speed; DROP VIEW givers; \
         ALTER TABLE totals DROP COLUMN timed; ALTER TABLE totals DROP COLUMN took_ms; \
         ALTER TABLE totals DROP COLUMN longest_ms; CREATE VIEW givers AS SELECT * FROM totals; \
         INSERT INTO torrents VALUES (1, zeroblob(20), 'a', 9, 1, 9); \
         INSERT INTO peers VALUES (1, '10.0.0.1:7', 'Test'); \
         INSERT INTO given_rows VALUES (1, 1, 120005, 1, 0, 1, 0, 1, 600, NULL, 30, 10), \
         (2, 1, 120006, 1, 0, 1, 0, 1, 60, NULL, NULL, NULL), \
         (3, 1, 120007, 1, 0, 1, 2, 1, 60, NULL, 9, 8); \
         INSERT INTO totals VALUES (1, 1, 2, 2, 660, 0, 1, 60, 0, 0, 120005, 120007); \
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
    assert_eq!(told, ("scrape".to_owned(), false, 4));
    let sums: (String, i64, i64, i64, i64) = file
        .query_row(
            "SELECT minute, s.pieces, s.bytes, timed, took_ms FROM speed s, givers",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .unwrap();
    assert_eq!(sums, ("1970-01-01T00:02".to_owned(), 2, 660, 1, 20));
    file.query_row("SELECT count(torrent), (SELECT count(*) FROM marks) FROM dropped", [], |row| {
        assert_eq!((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?), (0, 1));
        Ok(())
    })
    .unwrap();
}
