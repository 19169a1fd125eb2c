use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use piecework_core::{Bitfield, Fingerprint, PieceIndex, Unwritable};

thread_local! {
    /// Whether there is no room for the file of a database that is opened by this thread.
    pub(super) static IS_FULL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

struct Home {
    dir: TempDir,
    path: PathBuf,
}

fn home() -> Home {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    Home { dir, path }
}

impl Home {
    fn open(&self) -> (State, Loaded) {
        State::open(&self.path).unwrap()
    }

    /// A database that holds `torrents`, closed.
    fn with(torrents: Vec<Saved>) -> Self {
        let home = home();
        let (state, _) = home.open();
        state.put_many(torrents).wait().unwrap();
        state.close().wait().unwrap();
        home
    }

    fn sql(&self, sql: &str) {
        Connection::open(&self.path).unwrap().execute_batch(sql).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn has_aside(&self) -> bool {
        self.names().iter().any(|name| name.starts_with("state.sqlite.damaged-"))
    }
}

fn hash(n: u32) -> InfoHash {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(hash)
}

fn saved(n: u32) -> Saved {
    Saved {
        info_hash: hash(n),
        file: format!("{n}.torrent"),
        root: Path::new(OsStr::from_bytes(b"/data/\xff\xfe\n")).join(n.to_string()),
        added_at: 1_700_000_000 + i64::from(n),
        done_at: n.is_multiple_of(2).then_some(-1),
        settings: "{\"a\":\"\0\"}".to_owned(),
        checkpoint: None,
        counters: Counters { seconds_seeding: 5, last_active_at: Some(-9), ..Counters::default() },
    }
}

fn checkpoint(n: u32) -> Checkpoint {
    let mut have = Bitfield::empty(100);
    have.insert(PieceIndex(n % 100));
    Checkpoint {
        have,
        files: vec![Some(Fingerprint { len: u64::MAX, mtime_ns: i64::MIN }), None],
        writing: n.is_multiple_of(2),
        unchecked: n.is_multiple_of(3).then(|| Bitfield::full(100)),
        taken_at_ns: i64::from(n),
        downloaded: u64::MAX,
        uploaded: 0,
    }
}

fn rows_of(path: &Path) -> Vec<Saved> {
    let (state, loaded) = State::open(path).unwrap();
    drop(state);
    assert_eq!(loaded.notice, None);
    loaded.torrents
}

#[test]
fn what_was_written_is_read_again() {
    let home = home();
    let (state, loaded) = home.open();
    let nothing = Loaded {
        torrents: Vec::new(),
        settings: None,
        notice: None,
        incomplete: true,
        clean: true,
    };
    assert_eq!(loaded, nothing);
    let whole = Saved { checkpoint: Some(checkpoint(1)), ..saved(1) };
    state.put(whole.clone()).wait().unwrap();
    state.put_many(vec![saved(2), saved(3), saved(4)]).wait().unwrap();
    state.remove(hash(3)).wait().unwrap();
    state.remove(hash(99)).wait().unwrap();
    state.set_settings("{}".to_owned()).wait().unwrap();
    state.close().wait().unwrap();
    let (_, loaded) = home.open();
    assert_eq!(loaded.torrents, [whole, saved(2), saved(4)]);
    assert_eq!(loaded.settings.as_deref(), Some("{}"));
    assert_eq!((loaded.notice, loaded.clean), (None, true));
}

#[test]
fn an_update_changes_what_it_names() {
    let home = Home::with(vec![saved(1), saved(2), saved(3)]);
    let (state, _) = home.open();
    let counters = Counters { corrupt_bytes: u64::MAX, ..Counters::default() };
    let all = Update {
        root: Some("/b".into()),
        done_at: Some(Some(7)),
        settings: Some("s".to_owned()),
        counters: Some(counters),
    };
    state.update(hash(1), all).wait().unwrap();
    state.update(hash(2), Update { done_at: Some(None), ..Update::default() }).wait().unwrap();
    state.update(hash(3), Update::default()).wait().unwrap();
    state.close().wait().unwrap();
    let first = Saved {
        root: "/b".into(),
        done_at: Some(7),
        settings: "s".to_owned(),
        counters,
        ..saved(1)
    };
    assert_eq!(rows_of(&home.path), [first, Saved { done_at: None, ..saved(2) }, saved(3)]);
}

#[test]
fn an_update_of_an_unknown_torrent_fails_alone() {
    let home = Home::with(vec![saved(1)]);
    let (state, _) = home.open();
    let change = || Update { settings: Some("new".to_owned()), ..Update::default() };
    let known = state.update(hash(1), change());
    let unknown = state.update(hash(2), change());
    assert_eq!(unknown.wait(), Err(StateError::Unknown { info_hash: hash(2) }));
    assert_eq!(known.wait(), Ok(()));
    assert_eq!(state.last_error(), None);
}

#[test]
fn checkpoints_and_counters_are_there_after_a_flush() {
    let home = Home::with(vec![saved(1), saved(2)]);
    let (state, _) = home.open();
    let counters = Counters { redundant_bytes: 3, ..Counters::default() };
    for n in 0..100 {
        state.checkpoint(hash(1), checkpoint(n));
        state.checkpoint(hash(3), checkpoint(n));
    }
    state.count(hash(2), counters);
    state.count(hash(3), counters);
    state.flush().wait().unwrap();
    drop(state);
    let first = Saved { checkpoint: Some(checkpoint(99)), ..saved(1) };
    assert_eq!(rows_of(&home.path), [first, Saved { counters, ..saved(2) }]);
}

#[test]
fn checkpoints_are_written_though_nobody_asks() {
    let home = Home::with(vec![saved(1)]);
    let (state, _) = home.open();
    state.checkpoint(hash(1), checkpoint(1));
    while state.writer.queue.waiting().1.is_some() {
        std::thread::yield_now();
    }
    // Not asked for anything before it is read, and not closed.
    let copy = home.dir.path().join("copy.sqlite");
    copy_to(&home, &copy, usize::MAX);
    assert_eq!(rows_of(&copy)[0].checkpoint, Some(checkpoint(1)));
}

#[test]
fn of_many_checkpoints_one_waits() {
    let home = Home::with(vec![saved(1)]);
    let (mut database, _) = Database::open(&home.path).unwrap();
    let queue = Queue::new(None);
    for n in 0..1000 {
        queue.checkpoint(hash(1), checkpoint(n));
        queue.count(hash(1), Counters::default());
    }
    assert_eq!(queue.waiting().0, 1);
    let batch = queue.take_now();
    // One that comes while others are being written stays.
    queue.checkpoint(hash(1), checkpoint(1000));
    queue.turn(&mut database, batch);
    assert_eq!(queue.waiting().0, 1);
    let batch = queue.take_now();
    queue.turn(&mut database, batch);
    assert_eq!(queue.waiting(), (0, None));
    drop(database);
    assert_eq!(rows_of(&home.path)[0].checkpoint, Some(checkpoint(1000)));
}

#[test]
fn what_is_put_makes_earlier_checkpoints_void() {
    let home = Home::with(vec![saved(1), saved(2), saved(3)]);
    let (state, _) = home.open();
    state.checkpoint(hash(1), checkpoint(1));
    let last = state.put(saved(1));
    state.checkpoint(hash(2), checkpoint(1));
    let second = state.put(saved(2));
    state.checkpoint(hash(2), checkpoint(2));
    state.checkpoint(hash(3), checkpoint(3));
    let third = state.remove(hash(3));
    state.checkpoint(hash(3), checkpoint(4));
    let again = state.put(saved(3));
    for receipt in [last, second, third, again] {
        receipt.wait().unwrap();
    }
    state.close().wait().unwrap();
    let second = Saved { checkpoint: Some(checkpoint(2)), ..saved(2) };
    assert_eq!(rows_of(&home.path), [saved(1), second, saved(3)]);
}

#[test]
fn counters_of_an_update_make_earlier_ones_void() {
    let home = Home::with(vec![saved(1)]);
    let (state, _) = home.open();
    let counters = |n| Counters { corrupt_bytes: n, ..Counters::default() };
    state.count(hash(1), counters(1));
    state.checkpoint(hash(1), checkpoint(1));
    let update = Update { counters: Some(counters(2)), ..Update::default() };
    state.update(hash(1), update).wait().unwrap();
    state.close().wait().unwrap();
    let wanted = Saved { counters: counters(2), checkpoint: Some(checkpoint(1)), ..saved(1) };
    assert_eq!(rows_of(&home.path), [wanted]);
}

#[test]
fn a_full_disk_loses_no_checkpoint() {
    let home = Home::with(vec![saved(1)]);
    let (mut database, _) = Database::open(&home.path).unwrap();
    let pages: i64 =
        database.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    database.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let queue = Queue::new(None);
    let big = || {
        let files = vec![Some(Fingerprint { len: 1, mtime_ns: 1 }); 10_000];
        Checkpoint { files, ..checkpoint(1) }
    };
    queue.checkpoint(hash(1), big());
    let (reply, mut answer) = oneshot::channel();
    queue.push(Job::Put(vec![saved(2)]), reply);
    let batch = queue.take();
    queue.turn(&mut database, batch);
    let (path, why) = (database.path().to_owned(), Unwritable::Full);
    let full = StateError::Unwritable { path, why };
    assert_eq!(answer.try_recv().unwrap(), Err(full.clone()));
    assert_eq!(queue.last_error(), Some(full.to_string()));
    assert!(queue.waiting().1.unwrap() > std::time::Instant::now());

    database.connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let batch = queue.take_now();
    queue.turn(&mut database, batch);
    assert_eq!(queue.last_error(), None);
    assert_eq!(queue.waiting(), (0, None));
    drop(database);
    assert_eq!(rows_of(&home.path), [Saved { checkpoint: Some(big()), ..saved(1) }]);
}

/// Lets `queue` write to `database` once, with `torrents` put, and gives the answer.
fn put(queue: &Queue, database: &mut Database, torrents: Vec<Saved>) -> Result<(), StateError> {
    let (reply, mut answer) = oneshot::channel();
    queue.push(Job::Put(torrents), reply);
    let batch = queue.take();
    queue.turn(database, batch);
    answer.try_recv().unwrap()
}

#[test]
fn what_is_there_is_read_though_there_is_no_room_to_open_it_and_written_when_there_is() {
    let home = Home::with(vec![saved(1), saved(2)]);
    // As it was left by one that was killed: the last change is in its log.
    let (mut database, _) = Database::open(&home.path).unwrap();
    let queue = Queue::new(None);
    put(&queue, &mut database, vec![saved(3)]).unwrap();
    drop(database);
    for _ in 0..2 {
        IS_FULL.set(true);
        let (mut database, loaded) = Database::open(&home.path).unwrap();
        assert_eq!(loaded.torrents, [saved(1), saved(2), saved(3)]);
        assert_eq!((loaded.notice, loaded.incomplete), (None, false));
        let queue = Queue::new(database.unmarked());
        assert!(queue.last_error().unwrap().contains("no room left"));
        assert!(put(&queue, &mut database, vec![saved(4)]).unwrap_err().is_unwritable());
        drop(database);
        assert!(!home.has_aside());
        IS_FULL.set(false);
        State::open(&home.path).unwrap().0.close().wait().unwrap();
    }
    IS_FULL.set(true);
    let (mut database, _) = Database::open(&home.path).unwrap();
    let queue = Queue::new(database.unmarked());
    queue.checkpoint(hash(1), checkpoint(1));
    assert!(put(&queue, &mut database, vec![saved(4)]).is_err());
    IS_FULL.set(false);
    put(&queue, &mut database, vec![saved(5)]).unwrap();
    assert_eq!((queue.last_error(), queue.waiting()), (None, (0, None)));
    drop(database);
    let first = Saved { checkpoint: Some(checkpoint(1)), ..saved(1) };
    assert_eq!(rows_of(&home.path), [first, saved(2), saved(3), saved(5)]);
}

#[test]
fn a_database_that_cannot_be_begun_for_lack_of_room_is_begun_later_with_what_was_found() {
    let home = home();
    let path = home.dir.path().join("new/folder/state.sqlite");
    IS_FULL.set(true);
    let (mut database, loaded) = Database::open(&path).unwrap();
    assert_eq!((loaded.torrents.len(), loaded.notice, loaded.incomplete), (0, None, true));
    let queue = Queue::new(database.unmarked());
    queue.put_first(vec![saved(1), saved(2)], None);
    queue.put_first(vec![saved(3)], Some("{}".to_owned()));
    queue.turn(&mut database, queue.take_now());
    IS_FULL.set(false);
    // What was changed meanwhile holds.
    put(&queue, &mut database, vec![Saved { file: "other.torrent".to_owned(), ..saved(2) }])
        .unwrap();
    queue.turn(&mut database, queue.take_now());
    assert_eq!((queue.last_error(), queue.waiting()), (None, (0, None)));
    drop(database);
    let (_, loaded) = State::open(&path).unwrap();
    let second = Saved { file: "other.torrent".to_owned(), ..saved(2) };
    assert_eq!(loaded.torrents, [saved(1), second, saved(3)]);
    assert_eq!(loaded.settings.as_deref(), Some("{}"));
}

#[test]
fn a_damaged_database_stays_until_there_is_room_for_a_new_one() {
    let home = Home::with((0..200).map(saved).collect());
    let whole = std::fs::read(&home.path).unwrap();
    let mut damaged = whole.clone();
    let page = damaged.len() / 2 / 4_096 * 4_096;
    damaged[page..page + 4_096].fill(0xa5);
    std::fs::write(&home.path, &damaged).unwrap();
    IS_FULL.set(true);
    let (mut database, loaded) = Database::open(&home.path).unwrap();
    let notice = loaded.notice.unwrap();
    assert!(notice.contains("is damaged") && notice.contains("takes no new one yet"), "{notice}");
    assert!(loaded.incomplete && !loaded.torrents.is_empty());
    assert_eq!(std::fs::read(&home.path).unwrap(), damaged, "it is left as it was");
    let queue = Queue::new(database.unmarked());
    queue.put_first(loaded.torrents.clone(), loaded.settings);
    IS_FULL.set(false);
    put(&queue, &mut database, vec![]).unwrap();
    drop(database);
    assert!(home.has_aside());
    assert_eq!(rows_of(&home.path), loaded.torrents);
}

#[test]
fn only_what_was_closed_is_clean() {
    let home = Home::with(vec![saved(1)]);
    let (state, loaded) = home.open();
    assert!(loaded.clean);
    drop(state);
    let (state, loaded) = home.open();
    assert!(!loaded.clean);
    state.close().wait().unwrap();
    assert!(home.open().1.clean);
}

#[test]
fn what_waits_is_written_when_the_last_clone_is_dropped() {
    let home = Home::with(vec![saved(1)]);
    let (state, _) = home.open();
    let other = state.clone();
    drop(state);
    other.checkpoint(hash(1), checkpoint(1));
    drop(other);
    assert_eq!(rows_of(&home.path)[0].checkpoint, Some(checkpoint(1)));
}

#[test]
fn after_closing_everything_is_refused() {
    let home = home();
    let (state, _) = home.open();
    let other = state.clone();
    state.close().wait().unwrap();
    assert_eq!(other.put(saved(1)).wait(), Err(StateError::Closed));
    assert_eq!(other.close().wait(), Err(StateError::Closed));
    other.checkpoint(hash(1), checkpoint(1));
    assert_eq!(other.writer.queue.waiting(), (0, None));
    // The lock is free though a clone is there.
    let (_again, _) = home.open();
}

#[test]
fn closing_leaves_the_database_and_its_lock_alone() {
    let home = Home::with(vec![saved(1)]);
    assert_eq!(home.names(), ["state.sqlite", "state.sqlite.lock"]);
    let mode = std::fs::metadata(&home.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn receipts_can_be_awaited() {
    let home = home();
    let (state, _) = home.open();
    let receipts: Vec<_> = (0..200).map(|n| state.put(saved(n))).collect();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    state.close().await.unwrap();
    assert_eq!(rows_of(&home.path).len(), 200);
}

#[test]
fn a_dropped_receipt_takes_nothing_back() {
    let home = home();
    let (state, _) = home.open();
    drop(state.put(saved(1)));
    state.close().wait().unwrap();
    assert_eq!(rows_of(&home.path), [saved(1)]);
}

#[test]
fn too_long_a_text_is_refused() {
    let home = home();
    let (state, _) = home.open();
    let long = "x".repeat((16 << 20) + 1);
    let refused = state.put(Saved { settings: long.clone(), ..saved(1) }).wait();
    assert!(matches!(refused, Err(StateError::TooLong { .. })));
    assert!(matches!(state.set_settings(long).wait(), Err(StateError::TooLong { .. })));
}

#[test]
fn the_second_to_open_it_is_refused() {
    let home = home();
    let link = home.dir.path().join("link.sqlite");
    let (state, _) = home.open();
    std::os::unix::fs::symlink(&home.path, &link).unwrap();
    for path in [&home.path, &link] {
        let Err(StateError::InUse { path: named }) = State::open(path) else {
            panic!("was opened twice")
        };
        assert_eq!(named, home.path.canonicalize().unwrap());
    }
    drop(state);
    home.open();
}

#[test]
fn a_child_that_is_being_started_does_not_keep_the_lock() {
    let home = home();
    let (database, _) = Database::open(&home.path).unwrap();
    let inherited = database.inherited_lock();
    drop(database);
    Database::open(&home.path).unwrap();
    drop(inherited);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let home = home();
    std::fs::write(&home.path, "a file").unwrap();
    let error = State::open(&home.path.join("a")).err().unwrap();
    assert!(matches!(&error, StateError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("state.sqlite/a"), "{error}");
}

#[test]
fn a_later_version_is_refused_untouched() {
    let home = Home::with(vec![saved(1)]);
    home.sql("PRAGMA user_version = 9");
    let before = std::fs::read(&home.path).unwrap();
    let error = State::open(&home.path).err().unwrap();
    assert!(matches!(error, StateError::Later { found: 9, known: 1, .. }), "{error:?}");
    assert_eq!(std::fs::read(&home.path).unwrap(), before);
}

#[test]
fn the_database_of_another_program_is_refused_untouched() {
    let home = home();
    home.sql("CREATE TABLE torrents (a TEXT); PRAGMA user_version = 1");
    let before = std::fs::read(&home.path).unwrap();
    assert!(matches!(State::open(&home.path), Err(StateError::Foreign { .. })));
    assert_eq!(std::fs::read(&home.path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    let home = home();
    std::fs::write(&home.path, [b'x'; 5000]).unwrap();
    let (state, loaded) = home.open();
    assert!(loaded.notice.unwrap().contains("was damaged"));
    assert!(!loaded.clean && loaded.torrents.is_empty());
    state.put(saved(1)).wait().unwrap();
    state.close().wait().unwrap();
    assert!(home.has_aside());
    assert_eq!(rows_of(&home.path), [saved(1)]);
}

#[test]
fn a_damaged_header_is_set_aside_twice() {
    let home = Home::with(vec![saved(1)]);
    for round in 1..=2 {
        let mut bytes = std::fs::read(&home.path).unwrap();
        bytes[..100].fill(0xaa);
        std::fs::write(&home.path, bytes).unwrap();
        let (state, loaded) = home.open();
        assert!(loaded.notice.is_some() && loaded.torrents.is_empty());
        state.close().wait().unwrap();
        let aside = home.names().iter().filter(|name| name.contains(".damaged-")).count();
        assert_eq!(aside, round);
    }
}

#[test]
fn an_empty_file_is_told_of() {
    let home = home();
    std::fs::write(&home.path, b"").unwrap();
    let (_state, loaded) = home.open();
    assert!(loaded.notice.unwrap().contains("was empty"));
    assert!(!loaded.clean);
}

#[test]
fn a_truncated_file_is_set_aside_wherever_it_ends() {
    let whole = std::fs::read(Home::with((0..500).map(saved).collect()).path).unwrap();
    for len in [1, 50, 99, 100, 600, 4096, 4097, whole.len() / 2, whole.len() - 1] {
        let home = home();
        std::fs::write(&home.path, &whole[..len]).unwrap();
        let (state, loaded) = home.open();
        assert!(loaded.notice.is_some(), "{len}");
        // A byte that is missing in the end costs the row it belongs to.
        assert!(home.has_aside() || len == whole.len() - 1, "{len}");
        state.close().wait().unwrap();
        assert_eq!(rows_of(&home.path), loaded.torrents);
    }
}

#[test]
fn other_columns_are_damage() {
    let home = Home::with(vec![saved(1)]);
    home.sql("DROP TABLE torrents; CREATE TABLE torrents (info_hash BLOB, b TEXT) STRICT");
    let (_state, loaded) = home.open();
    assert!(loaded.notice.is_some());
    assert!(home.has_aside());
}

#[test]
fn what_lies_on_sound_pages_is_rescued() {
    let all: Vec<Saved> =
        (0..2000).map(|n| Saved { checkpoint: Some(checkpoint(n)), ..saved(n) }).collect();
    let home = Home::with(all.clone());
    let (state, _) = home.open();
    state.set_settings("kept".to_owned()).wait().unwrap();
    state.close().wait().unwrap();
    let mut bytes = std::fs::read(&home.path).unwrap();
    let name = b"1000.torrent";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let page = at / 4096 * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::fs::write(&home.path, bytes).unwrap();
    let (state, loaded) = home.open();
    let notice = loaded.notice.unwrap();
    assert!(notice.contains("was damaged"), "{notice}");
    let (found, lost): (Vec<Saved>, Vec<Saved>) =
        all.into_iter().partition(|saved| loaded.torrents.contains(saved));
    assert!(found.len() > 1800 && !lost.is_empty(), "{} found", found.len());
    assert_eq!(loaded.torrents, found);
    assert_eq!(loaded.settings.as_deref(), Some("kept"));
    state.close().wait().unwrap();
    assert_eq!(rows_of(&home.path), found);
}

#[test]
fn a_damaged_checkpoint_is_lost_alone_and_told_of_once() {
    let with = |n| Saved { checkpoint: Some(checkpoint(n)), ..saved(n) };
    let home = Home::with(vec![with(1), with(2), with(3)]);
    home.sql("UPDATE checkpoints SET packed = x'00' WHERE info_hash = (SELECT min(info_hash) FROM torrents)");
    let (state, loaded) = home.open();
    assert_eq!(loaded.torrents, [saved(1), with(2), with(3)]);
    assert!(loaded.notice.unwrap().contains("`1` checkpoints could not be read"));
    state.close().wait().unwrap();
    assert_eq!(rows_of(&home.path), [saved(1), with(2), with(3)]);
}

#[test]
fn a_torrent_that_makes_no_sense_is_left_out_and_told_of_once() {
    let home = Home::with(vec![saved(1), saved(2), saved(3), saved(4)]);
    home.sql(
        "UPDATE torrents SET file = CAST(x'ff' AS TEXT) WHERE file = '1.torrent';
         UPDATE torrents SET info_hash = x'01' WHERE file = '2.torrent';
         UPDATE torrents SET counters = '' WHERE file = '3.torrent';
         INSERT INTO checkpoints VALUES (x'02', x'02');",
    );
    let (state, loaded) = home.open();
    let third = Saved { counters: Counters::default(), ..saved(3) };
    assert_eq!(loaded.torrents, [third.clone(), saved(4)]);
    let notice = loaded.notice.unwrap();
    assert!(notice.contains("`2` torrents could not be read"), "{notice}");
    assert!(notice.contains("`1` torrents' sums could not be read"), "{notice}");
    state.close().wait().unwrap();
    assert_eq!(rows_of(&home.path), [third, saved(4)]);
}

#[test]
fn unknown_and_missing_counters_are_no_damage() {
    let home = Home::with(vec![saved(1)]);
    home.sql(r#"UPDATE torrents SET counters = '{"corrupt_bytes":4,"new":[1]}'"#);
    let counters = Counters { corrupt_bytes: 4, ..Counters::default() };
    assert_eq!(rows_of(&home.path)[0].counters, counters);
}

/// Copies the database as it is, and its log up to `len` bytes, as a kill would leave them.
fn copy_to(home: &Home, copy: &Path, len: usize) {
    std::fs::copy(&home.path, copy).unwrap();
    let log = std::fs::read(home.dir.path().join("state.sqlite-wal")).unwrap();
    let log_copy = copy.with_file_name("copy.sqlite-wal");
    std::fs::write(log_copy, &log[..len.min(log.len())]).unwrap();
}

#[test]
fn what_was_answered_survives_a_kill() {
    let home = home();
    let (state, _) = home.open();
    let copy = home.dir.path().join("copy.sqlite");
    for n in 0..5 {
        state.put(saved(n)).wait().unwrap();
        copy_to(&home, &copy, usize::MAX);
        let (opened, loaded) = State::open(&copy).unwrap();
        assert_eq!(loaded.torrents, (0..=n).map(saved).collect::<Vec<_>>());
        assert_eq!((loaded.notice, loaded.clean), (None, false));
        opened.close().wait().unwrap();
    }
}

#[test]
#[ignore = "a part of the next one, which runs it in a process of its own"]
fn puts_until_it_is_killed() {
    let Some(path) = std::env::var_os(KILLED) else { return };
    let (state, _) = State::open(Path::new(&path)).unwrap();
    for n in 0.. {
        state.put(saved(n)).wait().unwrap();
        state.checkpoint(hash(n), checkpoint(n));
        println!("\nput {n}");
    }
}

#[test]
fn a_kill_loses_nothing_that_was_answered_and_releases_the_lock() {
    let home = home();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::tests::puts_until_it_is_killed", "--ignored", "--nocapture"])
        .env(KILLED, &home.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .filter_map(|line| line.unwrap().strip_prefix("put ")?.parse::<usize>().ok());
    let seen = lines.find(|n| *n >= 20);
    let second = State::open(&home.path).err();
    child.kill().unwrap();
    child.wait().unwrap();
    let last = lines.last().or(seen).unwrap();
    assert!(matches!(second, Some(StateError::InUse { .. })), "{second:?}");
    let (_state, loaded) = home.open();
    assert_eq!((loaded.notice, loaded.clean), (None, false));
    assert!(loaded.torrents.len() > last, "{} torrents, {last} answered", loaded.torrents.len());
    for (n, row) in (0..).zip(loaded.torrents) {
        let checkpoint = row.checkpoint.clone();
        assert!(checkpoint.is_none() || checkpoint == Some(self::checkpoint(n)));
        assert_eq!(row, Saved { checkpoint, ..saved(n) });
    }
}

/// Names the database to the process that is to be killed.
const KILLED: &str = "PIECEWORK_TEST_STATE";

#[test]
fn a_log_that_was_cut_off_anywhere_is_no_damage() {
    let home = Home::with(vec![saved(0)]);
    let (state, _) = home.open();
    for n in 1..4 {
        state.put(saved(n)).wait().unwrap();
    }
    let copy = home.dir.path().join("copy.sqlite");
    let len = std::fs::metadata(home.dir.path().join("state.sqlite-wal")).unwrap().len() as usize;
    let mut most = 0;
    for cut in (0..=len).step_by(len / 16) {
        copy_to(&home, &copy, cut);
        let rows = rows_of(&copy);
        assert!(rows.len() >= most.max(1), "{cut} bytes: {} rows", rows.len());
        most = rows.len();
        assert_eq!(rows, (0..most as u32).map(saved).collect::<Vec<_>>());
    }
    assert!(most > 1);
}

#[test]
fn ten_thousand_torrents_come_back() {
    let all: Vec<Saved> =
        (0..10_000).map(|n| Saved { checkpoint: Some(checkpoint(n)), ..saved(n) }).collect();
    let home = Home::with(all.clone());
    let (state, loaded) = home.open();
    assert!(loaded.torrents == all);
    for n in 0..10_000 {
        state.checkpoint(hash(n), checkpoint(n + 1));
    }
    state.close().wait().unwrap();
    let rows = rows_of(&home.path);
    assert_eq!(rows.len(), 10_000);
    assert!((0..).zip(&rows).all(|(n, row)| row.checkpoint == Some(checkpoint(n + 1))));
}
