//! Rows that are removed because they are old, or because there are too many.

use super::*;

#[test]
fn a_full_file_loses_its_oldest_rows_and_grows_no_more() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let mut known = write::RowWriter::new(1);
    let size = 1 << 20;
    for _ in 0..40 {
        let rows: Vec<Record> =
            (0..2_000).map(|n| given(&torrent, 1, n % PIECES, BlockFate::Verified)).collect();
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
    let pages: i64 = piecework_database::pragma(&database.connection, "page_count").unwrap();
    assert!(pages * 4_096 <= size as i64 * 5 / 4, "{pages}");
    // The sums stay.
    let sum: i64 =
        database.connection.query_row("SELECT pieces FROM givers", [], |r| r.get(0)).unwrap();
    assert_eq!(sum, 80_000);
    // Old rows are removed, except for the last, from which the next number continues.
    while database.prune(u64::MAX, &[i64::MAX; 5]).unwrap() {}
    let left: i64 = database
        .connection
        .query_row("SELECT count(*) FROM given_rows", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1);
}

/// Reads the clocks like a program that has run for `at` milliseconds, and removes expired rows.
/// Returns the pieces whose responses are left.
fn left(options: &JournalOptions, database: &mut Database, wall: i64, at: i64) -> Vec<u32> {
    let expired = database.expired(time::millis(options.age), (wall, at), false).unwrap();
    while database.prune(u64::MAX, &expired).unwrap() {}
    let log = Reader::open(&options.path).unwrap().log(&Filter::default(), 100).unwrap();
    log.iter().map(|entry| entry.piece.0).collect()
}

const DAY: i64 = 24 * 3_600_000;

fn add(database: &mut Database, torrent: &Arc<Metainfo>, piece: u32, time: i64) {
    let Record::Given(one) = given(torrent, 1, piece, BlockFate::Verified) else { panic!() };
    let transaction = database.connection.transaction().unwrap();
    let record = Record::Given(Response { time, ..one });
    write::RowWriter::new(1).write(&transaction, &[record]).unwrap();
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
        // A program that always runs, and one that is started every day.
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
    // 90 days, accurate to one part in 64 and a day.
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
        // They are returned in the order of their times.
        pieces.sort_unstable();
        assert_eq!(pieces, [0, 1, 2, 3, 4, 5, 6], "{jump}");
    }
}

#[test]
fn rows_of_earlier_runs_are_told_also_if_their_time_has_not_come() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let journal = Journal::open(&options(&dir)).unwrap();
    let Record::Given(one) = given(&torrent, 1, 3, BlockFate::Verified) else { panic!() };
    journal.record(Record::Given(Response { time: now_ms() + 400 * DAY, ..one }));
    drop(journal);
    let journal = Journal::open(&options(&dir)).unwrap();
    let filter = Filter { run: journal.run(), ..Filter::default() };
    let log = journal.read(|reader| reader.log(&filter, 10)).unwrap();
    assert_eq!(log.iter().map(|entry| entry.piece.0).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_table_with_one_old_row_keeps_nothing_from_being_pruned() {
    let (dir, torrent) = (tempfile::tempdir().unwrap(), torrent());
    let options = options(&dir);
    drop(Journal::open(&options).unwrap());
    let mut database = Database::open(&options.path).unwrap();
    let mut known = write::RowWriter::new(1);
    let mut rows = vec![judged(&torrent, 5, None)];
    rows.extend((0..20_000).map(|n| given(&torrent, 1, n % PIECES, BlockFate::Verified)));
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
    let mut known = write::RowWriter::new(1);
    let rows: Vec<Record> =
        (0..60_000).map(|n| given(&torrent, 1, n % PIECES, BlockFate::Verified)).collect();
    let transaction = database.connection.transaction().unwrap();
    known.write(&transaction, &rows).unwrap();
    transaction.commit().unwrap();
    let pages = |database: &Database| -> i64 {
        piecework_database::pragma(&database.connection, "page_count").unwrap()
    };
    let before = pages(&database);
    let size: i64 = 1 << 20;
    assert!(before * 4_096 > 2 * size, "{before}");
    while database.prune(size as u64, &[0; 5]).unwrap() {}
    let after = pages(&database);
    assert!(after * 4_096 <= size, "{after} of {before}");
}
