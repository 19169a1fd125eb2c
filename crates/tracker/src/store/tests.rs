use super::*;

fn row(n: u8) -> StoreRow {
    StoreRow {
        info_hash: InfoHash([n; 20]),
        name: "a\x1bb".to_owned(),
        file: "a.torrent".to_owned(),
        description: None,
        unlisted: true,
        token: Some([n; 32]),
        registered_at: -1,
        downloads: 3,
        observe: false,
        registrar: Some([10, 0, 0, n].into()),
    }
}

fn load(n: u8, total: u64) -> LoadEntry {
    LoadEntry {
        info_hash: InfoHash([n; 20]),
        peer: ([10, 0, 0, n], 6881).into(),
        assigned: Load { total, recent: 2 },
        present: false,
    }
}

#[test]
fn what_was_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let (store, kept) = TrackerStore::open(&path).unwrap();
    assert!(kept.rows.is_empty() && kept.notice.is_none());
    store.put(row(1)).unwrap();
    store.put(row(2)).unwrap();
    store.remove(InfoHash([2; 20])).unwrap();
    let changes = LoadChanges::from([
        (InfoHash([1; 20]), (9, vec![load(1, 5)])),
        (InfoHash([2; 20]), (9, vec![load(2, 5)])),
    ]);
    store.flush(changes).unwrap();
    store.close();
    let (store, kept) = TrackerStore::open(&path).unwrap();
    assert_eq!(kept.rows, [StoreRow { downloads: 9, ..row(1) }]);
    assert_eq!(kept.load, [load(1, 5)]);
    store.close();
}

/// Makes a database behave as on a full disk while `bounded`: it cannot get more pages.
fn bound(writer: &StoreWriter, bounded: bool) {
    let connection = writer.connection.as_ref().unwrap();
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let most = if bounded { pages } else { 1 << 20 };
    connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).unwrap();
}

#[test]
fn what_a_full_disk_refuses_is_refused_in_turn_and_what_was_counted_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let (connection, _) = open_or_begin(&path).unwrap();
    let queue = WriteQueue::new(PendingWrites::new(Retry::new(RETRY, RETRY)));
    let mut writer = StoreWriter { path: path.clone(), connection: Some(connection) };
    let turn = |writer: &mut StoreWriter| {
        let batch = queue.lock().take();
        writer.turn(&queue, batch);
    };
    let ask = |writer: &mut StoreWriter, row: StoreRow| {
        let (reply, answer) = sync_channel(1);
        queue.lock().jobs.push(StoreJob::Put(Box::new(row), reply));
        turn(writer);
        answer.recv().unwrap()
    };
    let trouble = || queue.lock().retry.error().map(ToString::to_string);
    ask(&mut writer, row(1)).unwrap();
    bound(&writer, true);
    let long = || StoreRow { description: Some("x".repeat(100_000)), ..row(2) };
    assert!(matches!(ask(&mut writer, long()), Err(StoreError::Unwritable(_, Unwritable::Full))));
    assert!(trouble().unwrap().contains("no room left on its disk"));
    // The last count of each peer is kept.
    for total in [5, 9] {
        let filler = (10..200).map(|n| load(1, n)).collect::<Vec<_>>();
        let mut entries = vec![LoadEntry { peer: ([10, 9, 9, 9], 1).into(), ..load(1, total) }];
        entries.extend(filler);
        queue.lock().remember(LoadChanges::from([(InfoHash([1; 20]), (9, entries))]));
        turn(&mut writer);
    }
    queue.lock().rows.extend([row(3), long()].map(|row| (row.info_hash, row)));
    turn(&mut writer);
    assert!(trouble().is_some());
    assert!(matches!(queue.lock().due(), Due::At(at) if at > Instant::now()));
    // Later changes are not replaced by earlier ones that could not be written.
    queue.lock().remember(LoadChanges::from([(InfoHash([1; 20]), (9, vec![load(1, 200)]))]));
    turn(&mut writer);
    bound(&writer, false);
    turn(&mut writer);
    assert_eq!(trouble(), None);
    assert_eq!(queue.lock().due(), Due::Never);
    drop(writer);
    let (store, kept) = TrackerStore::open(&path).unwrap();
    assert_eq!(kept.rows, [StoreRow { downloads: 9, ..row(1) }, long(), row(3)]);
    let nine = kept.load.iter().find(|entry| entry.peer.port() == 1).unwrap();
    assert_eq!((nine.assigned.total, kept.load.len()), (9, 2));
    let other = kept.load.iter().find(|entry| entry.peer.port() != 1).unwrap();
    assert_eq!(other.assigned.total, 200);
    store.close();
}

#[test]
fn what_is_there_can_be_read_without_writing_anything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    assert!(glance(&path).unwrap().rows.is_empty());
    let (store, _) = TrackerStore::open(&path).unwrap();
    store.put(row(1)).unwrap();
    store.close();
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = names();
    assert_eq!(glance(&path).unwrap().rows, [row(1)]);
    assert_eq!(names(), before);
    // As after a kill: everything is in the write-ahead log.
    let (connection, _) = open_or_begin(&path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute("UPDATE torrents SET downloads = 77", []).unwrap();
    drop(connection);
    std::fs::remove_file(piecework_database::with_suffix(&path, "-shm")).ok();
    assert_eq!(glance(&path).unwrap().rows[0].downloads, 77);
    assert_eq!(glance(&path).unwrap().rows[0].downloads, 77, "twice");
}

#[test]
fn load_is_forgotten_by_its_age_and_not_by_a_clock_that_jumps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let left = |times: &[i64]| -> i64 {
        let (connection, _) = open_or_begin(&path).unwrap();
        connection.execute("DELETE FROM load", []).unwrap();
        for (n, time) in (1..).zip(times) {
            let peer = format!("10.0.0.1:{n}");
            let insert = "INSERT INTO load VALUES (zeroblob(20), ?1, 1, 1, ?2)";
            connection.execute(insert, params![peer, time]).unwrap();
        }
        drop(connection);
        let (connection, _) = open_or_begin(&path).unwrap();
        connection.query_row("SELECT count(*) FROM load", [], |row| row.get(0)).unwrap()
    };
    let (now, day) = (unix_now(), 24 * 3600);
    assert_eq!(left(&[now, now - 29 * day, now - 31 * day]), 2);
    // The clock is wrong now, or was when the rows were written.
    assert_eq!(left(&[now - 400 * day, now - 401 * day]), 2);
    assert_eq!(left(&[now + 400 * day, now, now - 29 * day]), 3);
}

#[test]
fn a_database_of_the_first_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let connection = Connection::open(&path).unwrap();
    let first =
        SCHEMA.replace(",\n    observe INTEGER NOT NULL DEFAULT 1,\n    registrar TEXT", "");
    assert_ne!(first, SCHEMA);
    connection.execute_batch(&first).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
        .execute(
            "INSERT INTO torrents VALUES (zeroblob(20), 'a', 'a.torrent', NULL, 0, NULL, 1, 2)",
            [],
        )
        .unwrap();
    drop(connection);
    for _ in 0..2 {
        let (store, kept) = TrackerStore::open(&path).unwrap();
        assert_eq!((kept.rows.len(), kept.rows[0].observe), (1, true));
        assert_eq!((kept.rows[0].downloads, kept.notice), (2, None));
        store.close();
    }
}

#[test]
fn a_damaged_database_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    std::fs::write(
        &path,
        b"this is no database at all, and longer than a header is, by far: \
        one hundred bytes are not many at all",
    )
    .unwrap();
    let (store, kept) = TrackerStore::open(&path).unwrap();
    assert!(kept.notice.unwrap().contains("was damaged"));
    store.put(row(1)).unwrap();
    store.close();
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("t.sqlite.damaged-")), "{names:?}");
}

#[test]
fn a_database_with_wrong_columns_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE torrents (a TEXT); CREATE TABLE load (b TEXT);")
        .unwrap();
    drop(connection);
    let (_, kept) = TrackerStore::open(&path).unwrap();
    assert!(kept.notice.is_some());
}
