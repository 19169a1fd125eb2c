use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use piecework_core::Unwritable;

const NOTES: DatabaseOptions = DatabaseOptions {
    application: Some(0x4e6f_7465),
    version: 2,
    upgrade: |transaction, from| match from {
        0 => transaction.execute_batch("CREATE TABLE notes (text TEXT, size INTEGER)"),
        _ => transaction.execute_batch("ALTER TABLE notes ADD COLUMN size INTEGER"),
    },
    needs_check: |_| Ok(true),
    access: Access::Exclusive,
    requires_wal: false,
    synchronous: Synchronous::Full,
    auto_vacuum: false,
    cache_kib: Some(256),
    log_kept: 1 << 20,
};

const SHARED: DatabaseOptions = DatabaseOptions { access: Access::Shared, ..NOTES };

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.sqlite");
    (dir, path)
}

/// Creates a database with this many rows and closes it.
fn with_rows(options: &DatabaseOptions, rows: u32) -> (TempDir, PathBuf) {
    let (dir, path) = place();
    let opened = options.open(&path).unwrap();
    for row in 0..rows {
        opened
            .connection
            .execute("INSERT INTO notes VALUES (?1, ?2)", (format!("{row:0>200}"), row))
            .unwrap();
    }
    (dir, path)
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_new_database_is_private_and_has_its_tables() {
    for options in [NOTES, SHARED] {
        let (_dir, path) = with_rows(&options, 3);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(count(&options.open(&path).unwrap().connection), 3);
    }
    assert_eq!(count(&NOTES.open_in_memory().unwrap()), 0);
}

#[test]
fn a_database_is_known_by_its_header_whatever_becomes_of_the_rest() {
    let (_dir, path) = with_rows(&SHARED, 3);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    assert!(SHARED.has_header(&path));
    let other = DatabaseOptions { application: Some(1), ..SHARED };
    assert!(!other.has_header(&path));
    std::fs::write(&path, &bytes[..71]).unwrap();
    assert!(!SHARED.has_header(&path));
}

#[test]
fn an_earlier_version_is_brought_up_to_date_once() {
    let (_dir, path) = place();
    let old = DatabaseOptions {
        version: 1,
        upgrade: |transaction, _| transaction.execute_batch("CREATE TABLE notes (text TEXT)"),
        ..NOTES
    };
    drop(old.open(&path).unwrap());
    for _ in 0..2 {
        let opened = NOTES.open(&path).unwrap();
        opened.connection.execute("INSERT INTO notes (size) VALUES (1)", []).unwrap();
    }
    let later = old.open(&path).unwrap_err();
    assert!(matches!(later, OpenError::Version { found: 2 }), "{later}");
}

#[test]
fn what_belongs_to_others_is_refused_and_left_as_it_is() {
    let (_dir, path) = place();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(NOTES.open(&path), Err(OpenError::Foreign)));
    assert!(matches!(NOTES.open_reader(&path), Err(OpenError::Foreign)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let any = DatabaseOptions { application: None, ..NOTES };
    assert!(any.open(&path).is_ok());
}

#[test]
fn damage_anywhere_is_told_from_other_errors() {
    let (_dir, path) = with_rows(&NOTES, 2_000);
    let whole = std::fs::read(&path).unwrap();
    for len in [1, 16, 100, 511] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = NOTES.open(&path).unwrap_err();
        assert_eq!(error.fault(&path), Fault::Damaged, "{len} bytes: {error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), len, "it is left as it was");
        assert!(NOTES.open_unwritable(&path).is_err());
    }
    let mut damaged = whole.clone();
    damaged[8_192..12_288].fill(0xa5);
    std::fs::write(&path, &damaged).unwrap();
    let error = NOTES.open(&path).unwrap_err();
    assert_eq!(error.fault(&path), Fault::Damaged, "{error}");
    let unchecked = DatabaseOptions { needs_check: |_| Ok(false), ..NOTES };
    assert!(unchecked.open(&path).is_ok());

    std::fs::write(&path, &whole).unwrap();
    let connection = NOTES.open(&path).unwrap().connection;
    let mismatched = connection.prepare("SELECT colour FROM notes").unwrap_err();
    assert_eq!(Fault::of(&mismatched, &path), Fault::Mismatched);
    let unreadable = std::io::Error::from_raw_os_error(13);
    assert_eq!(Cause::from(unreadable).fault(&path), Fault::Other);
    let descriptors = std::io::Error::from_raw_os_error(24);
    assert_eq!(Cause::from(descriptors).fault(&path), Fault::Scarce);
}

#[test]
fn a_full_database_is_unwritable_and_takes_rows_once_there_is_room() {
    let (_dir, path) = with_rows(&NOTES, 10);
    let connection = NOTES.open(&path).unwrap().connection;
    let pages: i64 = pragma(&connection, "page_count").unwrap();
    let bound = |pages: i64| {
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    let insert = || connection.execute("INSERT INTO notes VALUES (zeroblob(100000), 1)", []);
    bound(pages);
    let full = Cause::from(insert().unwrap_err());
    assert_eq!(full.fault(&path), Fault::Unwritable(Unwritable::Full));
    assert!(std::error::Error::source(&full).is_some());
    bound(1_000);
    assert!(insert().is_ok());
}

#[test]
fn a_lock_of_another_connection_is_told_from_damage() {
    let (_dir, path) = with_rows(&NOTES, 1);
    let first = NOTES.open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let error = pragma::<i64>(&other, "schema_version").unwrap_err();
    assert!(is_busy(&error) && !is_damage(&error), "{error}");
    drop(first);
    assert!(pragma::<i64>(&other, "schema_version").is_ok());
}

#[test]
fn reading_a_database_on_a_full_disk_reads_its_log_and_writes_nothing() {
    let (dir, path) = with_rows(&NOTES, 5);
    // Closing leaves all rows in the log, like a kill would.
    assert!(is_file_with_content(&with_suffix(&path, "-wal")));
    let before = names(dir.path());
    for _ in 0..2 {
        assert_eq!(count(&NOTES.open_unwritable(&path).unwrap()), 5);
    }
    assert_eq!(names(dir.path()), before);
}

fn is_file_with_content(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() > 0)
}

#[test]
fn a_reader_sees_what_others_write_meanwhile() {
    let (_dir, path) = with_rows(&SHARED, 1);
    let (reader, is_live) = SHARED.open_reader(&path).unwrap();
    assert!(is_live);
    let writer = SHARED.open(&path).unwrap().connection;
    writer.execute("INSERT INTO notes VALUES ('b', 2)", []).unwrap();
    assert_eq!(count(&reader), 2);
}

#[test]
fn a_file_is_set_aside_with_what_belongs_to_it_and_replaces_nothing() {
    let (dir, path) = place();
    for content in ["first", "second"] {
        std::fs::write(&path, content).unwrap();
        std::fs::write(with_suffix(&path, "-wal"), content).unwrap();
        set_aside(&path, at(7)).unwrap();
    }
    let aside = ["notes.sqlite.damaged-7", "notes.sqlite.damaged-7-1"];
    let logs = aside.map(|name| format!("{name}-wal"));
    assert_eq!(names(dir.path()), [aside[0], aside[1], &logs[1], &logs[0]]);
    assert_eq!(std::fs::read_to_string(dir.path().join(&logs[0])).unwrap(), "first");
}

#[test]
fn of_two_programs_that_find_damage_one_sets_the_file_aside() {
    let (dir, path) = place();
    std::fs::write(&path, "damaged").unwrap();
    let file = FileId::of(&path).unwrap();
    assert!(set_aside_if(&path, file, at(7)).unwrap().is_some());
    assert_eq!(set_aside_if(&path, file, at(7)).unwrap(), None);
    std::fs::write(&path, "a new one").unwrap();
    assert_eq!(set_aside_if(&path, file, at(7)).unwrap(), None);
    assert_eq!(names(dir.path()).len(), 2);
}

#[test]
fn a_probe_leaves_nothing_behind() {
    let (dir, path) = place();
    probe(&path, 100_000).unwrap();
    assert!(names(dir.path()).is_empty());
    assert!(probe(&dir.path().join("none/notes.sqlite"), 1).is_err());
}
