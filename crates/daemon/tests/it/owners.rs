//! One owner for each path (issue 11, line 1), and a user's own files (line 2).

use std::net::SocketAddr;
use std::path::Path;

use piecework_api::{
    MoveRequest, RemoveRequest, RenameRequest, SeedRequest, State, Torrent, TorrentChange,
};
use piecework_core::InfoHash;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_daemon::{AddSource, Daemon, DaemonError, NewTorrent};
use piecework_testkit::daemon::{Home, content, until, within};

/// Somebody who shares a file or folder of its own, and the torrent of it.
struct Sharer {
    _home: Home,
    daemon: Daemon,
    bytes: Vec<u8>,
}

impl Sharer {
    /// Shares `files` beneath a folder `input`, the first name of their paths, or a file of it.
    async fn of(files: &[(&str, Vec<u8>)], piece_length: u32) -> Self {
        let home = Home::new();
        for (path, bytes) in files {
            home.file(&format!("shared/{path}"), bytes);
        }
        let top = files[0].0.split('/').next().unwrap();
        let daemon = home.start().await;
        let input = home.path("shared").join(top);
        let request =
            SeedRequest { input, piece_length: Some(piece_length), ..SeedRequest::default() };
        let added = daemon.seed(request).await.unwrap();
        let bytes = daemon.torrent_bytes(added.info_hash).await.unwrap();
        Self { _home: home, daemon, bytes }
    }

    fn torrent(&self) -> NewTorrent {
        NewTorrent {
            source: AddSource::Bytes(self.bytes.clone()),
            folder: None,
            settings: piecework_api::TorrentSettings::default(),
            only_files: None,
            trackers: Vec::new(),
            peers: vec![SocketAddr::from(([127, 0, 0, 1], self.daemon.peer_port()))],
            rename: None,
            overwrite: false,
        }
    }
}

async fn is_seeding(daemon: &Daemon, hash: InfoHash) -> Torrent {
    until(daemon, hash, |it| it.state == State::Seeding).await
}

async fn has_failed(daemon: &Daemon, hash: InfoHash) -> String {
    until(daemon, hash, |it| it.state == State::Failed).await.error.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, DaemonError>) -> String {
    match result {
        Err(DaemonError::Conflict(reason)) => reason.to_string(),
        other => panic!("it was not refused: {other:?}"),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_torrent_of_one_path_is_refused_or_takes_another_name() {
    let (mine, other) = (content(60_000, 1), content(60_000, 2));
    let first = Sharer::of(&[("file", mine.clone())], 16_384).await;
    let second = Sharer::of(&[("file", other.clone())], 16_384).await;
    let home = Home::new();
    let daemon = home.start_with(|config| config.settings.incomplete_suffix = ".part".into()).await;
    let one = daemon.add(first.torrent()).await.unwrap();
    is_seeding(&daemon, one.info_hash).await;
    let sentence = refusal(daemon.add(second.torrent()).await);
    for part in [&one.info_hash.to_string()[..8], "`file`", "/downloads/file`", "--rename"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!(daemon.torrents().len(), 1);
    assert_eq!(std::fs::read_dir(home.torrents()).unwrap().count(), 1, "nothing of it is left");

    let renamed = NewTorrent { rename: Some("other".to_owned()), ..second.torrent() };
    let two = daemon.add(renamed).await.unwrap();
    assert_eq!(two.name, "other");
    is_seeding(&daemon, two.info_hash).await;
    assert!(read(&home.downloads().join("file")) == mine);
    assert!(read(&home.downloads().join("other")) == other);
    // The name that the second would have got is free for it once the first is gone.
    let rename = RenameRequest { path: "other".to_owned(), name: "file".to_owned() };
    let sentence = refusal(daemon.rename(two.info_hash, rename.clone()).await);
    assert!(sentence.contains(&one.info_hash.to_string()[..8]), "{sentence}");
    let delete = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    daemon.remove(one.info_hash, delete).await.unwrap();
    daemon.rename(two.info_hash, rename).await.unwrap();
    assert!(read(&home.downloads().join("file")) == other);
    daemon.shutdown().await;
    let daemon = home.start().await;
    is_seeding(&daemon, two.info_hash).await;
    let sentence = refusal(daemon.add(first.torrent()).await);
    assert!(sentence.contains(&two.info_hash.to_string()[..8]), "{sentence}");
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_meet_through_links_folders_and_endings_are_refused() {
    let folder =
        Sharer::of(&[("set/a", content(20_000, 1)), ("set/b", content(9, 2))], 16_384).await;
    let overlapping =
        Sharer::of(&[("set/b", content(9, 3)), ("set/c", content(20_000, 4))], 16_384).await;
    let file = Sharer::of(&[("set", content(30_000, 5))], 16_384).await;
    let ending = Sharer::of(&[("set.part", content(30_000, 6))], 16_384).await;
    let inner = Sharer::of(&[("a", content(30_000, 7))], 16_384).await;
    let home = Home::new();
    let daemon = home.start_with(|config| config.settings.incomplete_suffix = ".part".into()).await;
    let set = daemon.add(folder.torrent()).await.unwrap().info_hash;
    is_seeding(&daemon, set).await;
    refusal(daemon.add(overlapping.torrent()).await);
    refusal(daemon.add(file.torrent()).await);
    let within = NewTorrent { folder: Some("set".into()), ..inner.torrent() };
    refusal(daemon.add(within).await);
    // The same folder by another way, before it was there.
    std::os::unix::fs::symlink(home.downloads(), home.path("link")).unwrap();
    let elsewhere = NewTorrent { folder: Some("new/deep".into()), ..file.torrent() };
    let deep = daemon.add(elsewhere).await.unwrap().info_hash;
    let end = NewTorrent { folder: Some("new/deep".into()), ..ending.torrent() };
    refusal(daemon.add(end).await);
    is_seeding(&daemon, deep).await;
    daemon.shutdown().await;

    let link = home.path("link");
    let daemon = home.start_with(|config| config.download_roots = vec![link.clone()]).await;
    is_seeding(&daemon, set).await;
    let linked = NewTorrent { folder: Some(link), ..overlapping.torrent() };
    refusal(daemon.add(linked).await);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_is_shared_and_deleted_with_the_last() {
    let bytes = content(150_000, 1);
    let first = Sharer::of(&[("file", bytes.clone())], 16_384).await;
    let second = Sharer::of(&[("file", bytes.clone())], 32_768).await;
    let third = Sharer::of(&[("file", bytes.clone())], 65_536).await;
    let home = Home::new();
    let daemon = home.start().await;
    let path = home.downloads().join("file");
    let mut hashes = Vec::new();
    for sharer in [&first, &second, &third] {
        let hash = daemon.add(sharer.torrent()).await.unwrap().info_hash;
        is_seeding(&daemon, hash).await;
        hashes.push(hash);
    }
    // Whoever would take the file from the others is refused.
    let rename = RenameRequest { path: "file".to_owned(), name: "mine".to_owned() };
    refusal(daemon.rename(hashes[0], rename).await);
    daemon.shutdown().await;
    let daemon = home.start().await;
    for hash in &hashes {
        is_seeding(&daemon, *hash).await;
    }
    let delete = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    daemon.remove(hashes[0], delete).await.unwrap();
    assert!(read(&path) == bytes);
    daemon.remove(hashes[1], RemoveRequest::default()).await.unwrap();
    assert!(read(&path) == bytes);
    daemon.remove(hashes[2], delete).await.unwrap();
    assert!(!path.exists());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_file_does_not_write_to_it() {
    let bytes = content(150_000, 1);
    let first = Sharer::of(&[("file", bytes.clone())], 16_384).await;
    let second = Sharer::of(&[("file", bytes.clone())], 32_768).await;
    let home = Home::new();
    let daemon = home.start().await;
    let path = home.downloads().join("file");
    let one = daemon.add(first.torrent()).await.unwrap().info_hash;
    is_seeding(&daemon, one).await;
    let two = daemon.add(second.torrent()).await.unwrap().info_hash;
    is_seeding(&daemon, two).await;
    let mut damaged = bytes.clone();
    damaged[70_000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    for (hash, other) in [(one, two), (two, one)] {
        daemon.recheck(hash).await.unwrap();
        let sentence = has_failed(&daemon, hash).await;
        assert!(sentence.contains(&other.to_string()[..8]), "{sentence}");
    }
    assert!(read(&path) == damaged, "nobody wrote to it");
    daemon.remove(one, RemoveRequest::default()).await.unwrap();
    daemon.start_torrent(two, false).await.unwrap();
    is_seeding(&daemon, two).await;
    assert!(read(&path) == bytes);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_where_another_has_its_files_is_refused() {
    let first = Sharer::of(&[("file", content(60_000, 1))], 16_384).await;
    let second = Sharer::of(&[("file", content(60_000, 2))], 16_384).await;
    let home = Home::new();
    let daemon = home.start().await;
    let one = daemon.add(first.torrent()).await.unwrap().info_hash;
    let elsewhere = NewTorrent { folder: Some("other".into()), ..second.torrent() };
    let two = daemon.add(elsewhere).await.unwrap().info_hash;
    is_seeding(&daemon, one).await;
    is_seeding(&daemon, two).await;
    let there = MoveRequest { folder: home.downloads(), find: false };
    daemon.move_data(two, there.clone()).await.unwrap();
    let troubled = until(&daemon, two, |it| it.error.is_some()).await;
    assert!(troubled.error.unwrap().contains(&one.to_string()[..8]));
    assert!(read(&home.downloads().join("other/file")) == content(60_000, 2));
    // Out of the way it goes, and then the other may come.
    let away = MoveRequest { folder: home.downloads().join("away"), find: false };
    daemon.move_data(one, away.clone()).await.unwrap();
    until(&daemon, one, |it| it.state == State::Seeding && it.folder == away.folder).await;
    daemon.move_data(two, there).await.unwrap();
    until(&daemon, two, |it| it.state == State::Seeding && it.folder == home.downloads()).await;
    let third = Sharer::of(&[("file", content(60_000, 3))], 16_384).await;
    refusal(daemon.add(NewTorrent { folder: Some("away".into()), ..third.torrent() }).await);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_were_here_with_one_path_the_older_keeps_it() {
    let (old, new) = (content(60_000, 1), content(60_000, 2));
    let first = Sharer::of(&[("file", old.clone())], 16_384).await;
    let second = Sharer::of(&[("file", new.clone())], 16_384).await;
    let home = Home::new();
    let daemon = home.start().await;
    let one = daemon.add(first.torrent()).await.unwrap().info_hash;
    is_seeding(&daemon, one).await;
    let elsewhere = NewTorrent { folder: Some("other".into()), ..second.torrent() };
    let two = daemon.add(elsewhere).await.unwrap().info_hash;
    is_seeding(&daemon, two).await;
    daemon.shutdown().await;
    // As a daemon of an earlier version has left them. The younger is first in the queue.
    let folder = home.downloads();
    let sql = format!(
        "UPDATE torrents SET root = CAST('{}' AS BLOB), added_at = added_at + 10 \
         WHERE CAST(root AS TEXT) LIKE '%/other'",
        folder.display()
    );
    let database = rusqlite::Connection::open(home.state()).unwrap();
    let changed = database.execute(&sql, []).unwrap();
    assert_eq!(changed, 1);
    drop(database);

    let daemon = home.start().await;
    let sentence = has_failed(&daemon, two).await;
    assert!(sentence.contains(&one.to_string()[..8]) && sentence.contains("/file`"), "{sentence}");
    is_seeding(&daemon, one).await;
    // Whoever resumes it is told the same.
    let told = daemon.start_torrent(two, false).await.map_err(|error| error.to_string());
    let told = match told {
        Ok(()) => has_failed(&daemon, two).await,
        Err(sentence) => sentence,
    };
    assert!(told.contains(&one.to_string()[..8]), "{told}");
    assert!(read(&folder.join("file")) == old);
    daemon
        .remove(one, RemoveRequest { delete_data: true, ..RemoveRequest::default() })
        .await
        .unwrap();
    daemon.start_torrent(two, false).await.unwrap();
    // Its own files lie elsewhere: it finds none, and gets them again.
    daemon.recheck(two).await.unwrap();
    daemon.add_peers(two, second.torrent().peers).await.unwrap();
    is_seeding(&daemon, two).await;
    assert!(read(&folder.join("file")) == new);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_file_of_that_name_is_not_written_to_until_somebody_says_so() {
    let bytes = content(60_000, 1);
    let sharer = Sharer::of(&[("file", bytes.clone())], 16_384).await;
    for (own, overwrite_at_once) in [
        (content(60_000, 9), false),
        (b"my notes".to_vec(), false),
        (content(70_000, 9), false),
        (b"my notes".to_vec(), true),
    ] {
        let home = Home::new();
        let path = home.file("downloads/file", &own);
        std::fs::hard_link(&path, home.path("second name")).unwrap();
        let daemon = home.start().await;
        if overwrite_at_once {
            let new = NewTorrent { overwrite: true, ..sharer.torrent() };
            let hash = daemon.add(new).await.unwrap().info_hash;
            is_seeding(&daemon, hash).await;
            assert!(read(&path) == bytes && read(&home.path("second name")) == own);
            daemon.shutdown().await;
            continue;
        }
        let hash = daemon.add(sharer.torrent()).await.unwrap().info_hash;
        let sentence = has_failed(&daemon, hash).await;
        assert!(sentence.contains("/file`") && sentence.contains("--overwrite"), "{sentence}");
        assert!(read(&path) == own);
        // Just to resume it changes nothing, nor does a restart.
        daemon.start_torrent(hash, false).await.unwrap();
        has_failed(&daemon, hash).await;
        daemon.shutdown().await;
        let daemon = home.start().await;
        daemon.add_peers(hash, sharer.torrent().peers).await.ok();
        has_failed(&daemon, hash).await;
        assert!(read(&path) == own);
        daemon.overwrite(hash).await.unwrap();
        daemon.add_peers(hash, sharer.torrent().peers).await.unwrap();
        is_seeding(&daemon, hash).await;
        assert!(read(&path) == bytes);
        assert!(read(&home.path("second name")) == own);
        daemon.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_of_several_that_is_the_users_own_stops_the_download() {
    let (a, b) = (content(40_000, 1), content(50_000, 2));
    let sharer = Sharer::of(&[("set/a", a.clone()), ("set/b", b.clone())], 16_384).await;
    let home = Home::new();
    home.file("downloads/set/a", &a);
    let own = home.file("downloads/set/b", &content(50_000, 9));
    let daemon = home.start().await;
    let hash = daemon.add(sharer.torrent()).await.unwrap().info_hash;
    let sentence = has_failed(&daemon, hash).await;
    assert!(sentence.contains("/set/b`") && !sentence.contains("/set/a`"), "{sentence}");
    assert!(read(&own) == content(50_000, 9));
    daemon.shutdown().await;
    let daemon = home.start().await;
    has_failed(&daemon, hash).await;
    assert!(read(&own) == content(50_000, 9), "a restart does not make it the torrent's");
    daemon.add_peers(hash, sharer.torrent().peers).await.unwrap();
    // Moved away by its owner, it is in nobody's way.
    std::fs::rename(&own, home.path("mine")).unwrap();
    daemon.start_torrent(hash, false).await.unwrap();
    is_seeding(&daemon, hash).await;
    assert!(read(&own) == b);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_partly_right_or_empty_goes_on_without_a_question() {
    let bytes = content(60_000, 1);
    let sharer = Sharer::of(&[("file", bytes.clone())], 16_384).await;
    let mut half = bytes.clone();
    half[30_000..].fill(7);
    for own in [half, Vec::new(), vec![0; 0]] {
        let home = Home::new();
        let path = home.file("downloads/file", &own);
        let daemon = home.start().await;
        let hash = daemon.add(sharer.torrent()).await.unwrap().info_hash;
        is_seeding(&daemon, hash).await;
        assert!(read(&path) == bytes);
        daemon.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_cannot_be_renamed_says_why() {
    let home = Home::new();
    let daemon = home.start().await;
    let hash = daemon.seed(home.seed_request("file", 50_000)).await.unwrap().info_hash;
    let rename = RenameRequest { path: "file".to_owned(), name: "other".to_owned() };
    let sentence = refusal(daemon.rename(hash, rename).await);
    assert!(sentence.contains("shared from where they are"), "{sentence}");
    let there = MoveRequest { folder: home.downloads(), find: false };
    assert!(refusal(daemon.move_data(hash, there).await).contains("never changed"));
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_does_not_fit_is_said_so_when_it_is_added() {
    let home = Home::new();
    let daemon = home.start().await;
    let builder = MetainfoBuilder::single_file("huge", 1 << 44).piece_len(64 << 20);
    let metainfo = builder.build(vec![7; (1 << 18) * 20]).unwrap();
    let add = |metainfo: &Metainfo| NewTorrent {
        source: AddSource::Bytes(metainfo.bytes().unwrap().as_ref().to_vec()),
        ..home.tiny(0)
    };
    let small = daemon.add(home.tiny(1)).await.unwrap();
    assert_eq!(small.warnings, [] as [String; 0]);
    let huge = daemon.add(add(&metainfo)).await.unwrap();
    assert!(huge.warnings[0].starts_with("it does not fit: 16.0 TiB are"), "{:?}", huge.warnings);
    let after = daemon.add(home.tiny(2)).await.unwrap();
    assert!(after.warnings[0].contains("other unfinished torrents"), "{:?}", after.warnings);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_vanished_is_not_replaced_by_its_bare_mount_point() {
    let home = Home::new();
    let daemon = home.start().await;
    let hash = daemon.add(home.new_torrent("file", 60_000)).await.unwrap().info_hash;
    until(&daemon, hash, |it| it.state == State::Downloading).await;
    let path = home.downloads().join("file");
    until_there(&path).await;
    daemon.pause(hash).await.unwrap();
    until(&daemon, hash, |it| it.state == State::Paused).await;
    daemon.shutdown().await;
    std::fs::remove_dir_all(home.downloads()).unwrap();
    let daemon = home.start().await;
    daemon.start_torrent(hash, false).await.unwrap();
    let sentence = has_failed(&daemon, hash).await;
    assert!(sentence.contains("none of the torrent's files is there"), "{sentence}");
    daemon.start_torrent(hash, false).await.unwrap();
    has_failed(&daemon, hash).await;
    assert!(!path.exists());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_program_writes_to_is_left_alone() {
    let sharer = Sharer::of(&[("file", content(60_000, 1))], 16_384).await;
    let home = Home::new();
    let path = home.file("downloads/file", b"");
    let other = std::fs::File::options().write(true).open(&path).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let daemon = home.start().await;
    let hash = daemon.add(sharer.torrent()).await.unwrap().info_hash;
    let sentence = has_failed(&daemon, hash).await;
    assert!(sentence.contains("is in use") && sentence.contains("/file`"), "{sentence}");
    assert!(read(&path).is_empty());
    drop(other);
    daemon.start_torrent(hash, false).await.unwrap();
    daemon.add_peers(hash, sharer.torrent().peers).await.unwrap();
    is_seeding(&daemon, hash).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_files_that_become_wanted_are_made() {
    let files = [("set/a", content(40_000, 1)), ("set/empty", Vec::new())];
    let sharer = Sharer::of(&files, 16_384).await;
    let home = Home::new();
    let daemon = home.start().await;
    let new = NewTorrent { only_files: Some("1".to_owned()), ..sharer.torrent() };
    let hash = daemon.add(new).await.unwrap().info_hash;
    is_seeding(&daemon, hash).await;
    let empty = home.downloads().join("set/empty");
    assert!(!empty.exists());
    let all = TorrentChange { only_files: Some("all".to_owned()), ..TorrentChange::default() };
    daemon.change(hash, all).await.unwrap();
    until_there(&empty).await;
    daemon.shutdown().await;
}

/// Waits until the file is there.
async fn until_there(path: &Path) {
    within(async {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}
