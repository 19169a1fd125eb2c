//! What the daemon does to files: moves, renames, choices among them; and what it knows of them
//! after a restart.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_api::{
    Event, MoveRequest, RemoveRequest, RenameRequest, SeedRequest, SettingsChange, State, Torrent,
    TorrentChange, TorrentSettings,
};
use piecework_core::metainfo::MetainfoBuilder;
use piecework_core::{InfoHash, Priority};
use piecework_daemon::{AddSource, Daemon, DaemonError, NewTorrent};
use piecework_testkit::daemon::{Home, content, new_torrent, until, until_event, within};
use sha1::{Digest, Sha1};
use tokio::runtime::Handle;

/// A folder `set` with the files `a` and `sub/b`, shared by a daemon of its own.
async fn seeder() -> (Home, Daemon) {
    let home = Home::new();
    home.file("shared/set/a", &content(40_000, 1));
    home.file("shared/set/sub/b", &content(50_000, 2));
    let daemon = home.start().await;
    let input = home.path("shared/set");
    let request = SeedRequest { input, piece_length: Some(16_384), ..SeedRequest::default() };
    daemon.seed(request).await.unwrap();
    (home, daemon)
}

fn leech(home: &Home, seeder: &Daemon) -> NewTorrent {
    NewTorrent {
        source: AddSource::File(home.torrents().join("set.torrent")),
        folder: None,
        settings: TorrentSettings::default(),
        only_files: None,
        trackers: Vec::new(),
        peers: vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))],
        rename: None,
        overwrite: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_whole_is_not_hashed_again_after_a_restart() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(leech(&shared, &seeder)).await.unwrap();
    let whole = |it: &Torrent| it.state == State::Seeding && it.done_at.is_some();
    let before = until(&daemon, added.info_hash, whole).await;
    daemon.shutdown().await;

    let daemon = home.start().await;
    let mut listener = daemon.listen();
    let event = until_event(&mut listener, |event| match event {
        Event::Torrent(torrent) => {
            assert_ne!(torrent.state, State::Checking, "it is hashed anew");
            torrent.state == State::Seeding
        }
        _ => false,
    })
    .await;
    let Event::Torrent(after) = event else { unreachable!() };
    assert_eq!((after.downloaded, after.done_at), (before.downloaded, before.done_at));
    assert_eq!(after.bytes_have, 90_000);
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_is_downloaded_until_more_is() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let daemon = home.start().await;
    let mut new = leech(&shared, &seeder);
    new.only_files = Some("1".to_owned());
    let added = daemon.add(new).await.unwrap();
    let hash = added.info_hash;
    let mut listener = daemon.listen();
    until_event(&mut listener, |event| *event == Event::Done(hash)).await;
    let files = daemon.detail(hash).await.unwrap().file_list;
    assert_eq!((files[0].path.as_str(), files[0].bytes_have), ("set/a", 40_000));
    assert!(files[1].bytes_have < 50_000 && files[1].priority == Priority::Skip);
    let all = TorrentChange { only_files: Some("all".to_owned()), ..TorrentChange::default() };
    daemon.change(hash, all).await.unwrap();
    until_event(&mut listener, |event| *event == Event::Done(hash)).await;
    let bytes = std::fs::read(home.downloads().join("set/sub/b")).unwrap();
    assert_eq!(bytes, content(50_000, 2));
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_and_renamed_files_stay_so_over_a_restart() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let other = home.path("other");
    std::fs::create_dir_all(&other).unwrap();
    let roots = vec![other.clone()];
    let daemon = home.start_with(|config| config.download_roots = roots.clone()).await;
    let added = daemon.add(leech(&shared, &seeder)).await.unwrap();
    let hash = added.info_hash;
    until(&daemon, hash, |it| it.state == State::Seeding).await;

    let request = MoveRequest { folder: other.clone(), find: false };
    daemon.move_data(hash, request).await.unwrap();
    until(&daemon, hash, |it| it.state == State::Seeding && it.folder == other).await;
    assert!(other.join("set/sub/b").exists() && !home.downloads().join("set/a").exists());
    let outside = MoveRequest { folder: "/tmp".into(), find: false };
    assert!(matches!(daemon.move_data(hash, outside).await, Err(DaemonError::Forbidden(_))));

    let rename = async |path: &str, name: &str| {
        let request = RenameRequest { path: path.to_owned(), name: name.to_owned() };
        daemon.rename(hash, request).await
    };
    rename("set/sub", "deep").await.unwrap();
    rename("set", "new").await.unwrap();
    assert!(matches!(rename("new/a", "deep").await, Err(DaemonError::Conflict(_))));
    assert!(other.join("new/deep/b").exists() && !other.join("set/a").exists());
    assert_eq!(daemon.torrent(hash).unwrap().name, "new");
    daemon.shutdown().await;

    let daemon = home.start_with(|config| config.download_roots = roots).await;
    let after = until(&daemon, hash, |it| it.state == State::Seeding).await;
    assert_eq!((after.name.as_str(), after.folder, after.bytes_have), ("new", other, 90_000));
    let files = daemon.detail(hash).await.unwrap().file_list;
    assert_eq!(files[1].path, "new/deep/b");
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_found_though_the_process_died_before_their_places_were_kept() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(leech(&shared, &seeder)).await.unwrap();
    let hash = added.info_hash;
    let before = until(&daemon, hash, |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;

    let file = home.state();
    let keep = |unfinished: serde_json::Value| {
        let database = rusqlite::Connection::open(&file).unwrap();
        let text: String =
            database.query_row("SELECT settings FROM torrents", [], |row| row.get(0)).unwrap();
        let mut kept: serde_json::Value = serde_json::from_str(&text).unwrap();
        kept["unfinished"] = unfinished;
        database.execute("UPDATE torrents SET settings = ?1", [kept.to_string()]).unwrap();
    };
    let whole = |it: &piecework_api::Torrent| {
        assert_eq!(it.error, None);
        assert_ne!(it.state, State::Checking, "it is hashed anew");
        it.state == State::Seeding && it.bytes_have == before.bytes_have
    };
    // It had been renamed half.
    let downloads = home.downloads();
    std::fs::create_dir_all(downloads.join("other")).unwrap();
    std::fs::rename(downloads.join("set/a"), downloads.join("other/a")).unwrap();
    let names = serde_json::json!([[0, ["other", "a"]], [1, ["other", "sub", "b"]]]);
    keep(serde_json::json!({"rename": {"names": names, "name": "other"}}));
    let daemon = home.start().await;
    until(&daemon, hash, whole).await;
    assert!(downloads.join("other/sub/b").is_file() && !downloads.join("set").exists());
    assert_eq!(daemon.torrent(hash).unwrap().name, "other");
    daemon.shutdown().await;

    // It had been moved, but for the last word of it.
    let moved = downloads.join("moved");
    std::fs::create_dir_all(&moved).unwrap();
    std::fs::rename(downloads.join("other"), moved.join("other")).unwrap();
    keep(serde_json::json!({"move": {"folder": moved}}));
    let daemon = home.start().await;
    assert_eq!(until(&daemon, hash, whole).await.folder, moved);
    daemon.shutdown().await;

    // A move had been begun and nothing been done.
    let again = downloads.join("again");
    keep(serde_json::json!({"move": {"folder": again}}));
    let daemon = home.start().await;
    until(&daemon, hash, |it| whole(it) && it.folder == again).await;
    assert!(again.join("other/sub/b").is_file() && !moved.join("other").exists());
    daemon.shutdown().await;
    let daemon = home.start().await;
    until(&daemon, hash, |it| whole(it) && it.folder == again).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_not_there_at_start_is_no_lost_download() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(leech(&shared, &seeder)).await.unwrap();
    let hash = added.info_hash;
    until(&daemon, hash, |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;

    let away = home.path("away");
    std::fs::rename(home.downloads(), &away).unwrap();
    let daemon = home.start().await;
    // Not told of it, but asked all the time: the daemon itself may not have taken it in yet.
    let failed = within(async {
        loop {
            match daemon.torrent(hash).unwrap() {
                failed if failed.state == State::Failed => break failed,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(failed.error.unwrap().contains("none of the torrent's files"));
    assert_eq!(std::fs::read_dir(home.downloads()).unwrap().count(), 0);
    std::fs::remove_dir(home.downloads()).unwrap();
    std::fs::rename(&away, home.downloads()).unwrap();
    daemon.start_torrent(hash, false).await.unwrap();
    until(&daemon, hash, |it| {
        assert_ne!(it.state, State::Checking, "it is hashed anew");
        it.state == State::Seeding && it.bytes_have == 90_000
    })
    .await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_of_a_torrent_outlives_the_loss_of_its_torrent_file() {
    let (shared, seeder) = seeder().await;
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(leech(&shared, &seeder)).await.unwrap();
    let hash = added.info_hash;
    until(&daemon, hash, |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;

    let (torrent, away) = (home.torrents().join("set.torrent"), home.path("away"));
    std::fs::rename(&torrent, &away).unwrap();
    let daemon = home.start().await;
    assert_eq!(daemon.torrent(hash).unwrap().state, State::Failed);
    std::fs::rename(&away, &torrent).unwrap();
    daemon.start_torrent(hash, false).await.unwrap();
    let whole = |it: &piecework_api::Torrent| {
        assert_ne!(it.state, State::Checking, "it is hashed anew");
        it.state == State::Seeding && it.downloaded == 90_000
    };
    until(&daemon, hash, whole).await;
    daemon.shutdown().await;
    let daemon = home.start().await;
    until(&daemon, hash, whole).await;
    daemon.shutdown().await;

    // Nothing is deleted blindly, and that is told.
    std::fs::remove_file(&torrent).unwrap();
    let daemon = home.start().await;
    let request = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    let error = daemon.remove(hash, request).await.unwrap_err();
    assert!(error.to_string().contains("its files stay"), "{error}");
    assert!(home.downloads().join("set/a").is_file() && daemon.torrent(hash).is_none());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_files_are_found_though_the_ending_of_their_names_was_changed() {
    let home = Home::new();
    let new = home.new_torrent("one", 100_000);
    let half = std::fs::read(home.path("made/one")).unwrap();
    home.file("downloads/one.part", &half[..40_000]);
    let daemon = home.start_with(|config| config.settings.incomplete_suffix = ".part".into()).await;
    let hash = daemon.add(new).await.unwrap().info_hash;
    until(&daemon, hash, |it| it.pieces_have == 2).await;
    let change = [("incomplete_suffix".to_owned(), serde_json::json!(".!other"))];
    daemon.change_settings(SettingsChange(change.into_iter().collect())).await.unwrap();
    daemon.shutdown().await;
    let daemon = home.start().await;
    assert_eq!(daemon.settings().incomplete_suffix, ".!other");
    until(&daemon, hash, |it| it.state == State::Downloading && it.pieces_have == 2).await;
    assert!(!home.downloads().join("one.!other").exists());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_whose_own_file_is_gone_serves_on_and_says_so_when_it_is_to_be_verified() {
    let (shared, seeder) = seeder().await;
    let hash = seeder.torrents()[0].info_hash;
    until(&seeder, hash, |it| it.state == State::Seeding).await;
    seeder.shutdown().await;
    let seeder = shared.start().await;
    until(&seeder, hash, |it| it.state == State::Seeding).await;
    let file = shared.torrents().join("set.torrent");
    let torrent = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();

    let home = Home::new();
    let daemon = home.start().await;
    let mut new = leech(&shared, &seeder);
    new.source = AddSource::Bytes(torrent.clone());
    let added = daemon.add(new).await.unwrap();
    until(&daemon, added.info_hash, |it| it.state == State::Seeding && it.done_at.is_some()).await;

    assert!(matches!(seeder.torrent_bytes(hash).await, Err(DaemonError::NotFound(_))));
    seeder.recheck(hash).await.unwrap();
    let failed = until(&seeder, hash, |it| it.state == State::Failed).await;
    let error = failed.error.unwrap();
    assert!(error.contains("set.torrent` cannot be read"), "{error}");

    std::fs::write(&file, &torrent).unwrap();
    assert_eq!(seeder.torrent_bytes(hash).await.unwrap(), torrent);
    seeder.recheck(hash).await.unwrap();
    until(&seeder, hash, |it| it.state == State::Seeding && it.error.is_none()).await;
}

/// Names that do harm to terminals, scripts and readers, as a folder that a daemon shares.
async fn hostile_seeder() -> (Home, Daemon) {
    let home = Home::new();
    home.file("shared/-set\u{1b}[2J/--help", &content(20_000, 1));
    home.file("shared/-set\u{1b}[2J/gpj.\u{202e}exe", &content(20_000, 2));
    home.file("shared/-set\u{1b}[2J/a\nb/%1B", &content(20_000, 3));
    home.file("shared/-set\u{1b}[2J/usual 100%", &content(20_000, 4));
    let daemon = home.start().await;
    let input = home.path("shared/-set\u{1b}[2J");
    let request = SeedRequest { input, piece_length: Some(16_384), ..SeedRequest::default() };
    daemon.seed(request).await.unwrap();
    (home, daemon)
}

fn hostile_leech(seeder: &Daemon, torrent: Vec<u8>) -> NewTorrent {
    NewTorrent {
        source: AddSource::Bytes(torrent),
        folder: None,
        settings: TorrentSettings::default(),
        only_files: None,
        trackers: Vec::new(),
        peers: vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))],
        rename: None,
        overwrite: false,
    }
}

/// The paths of all files beneath `folder`.
fn files_in(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned())
                }
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_harm_are_written_safely_and_found_again() {
    let (_shared, seeder) = hostile_seeder().await;
    let info_hash = seeder.torrents()[0].info_hash;
    let torrent = seeder.torrent_bytes(info_hash).await.unwrap();
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(hostile_leech(&seeder, torrent.clone())).await.unwrap();
    assert_eq!((added.info_hash, added.name.as_str()), (info_hash, "%2Dset%1B[2J"));
    until(&daemon, info_hash, |it| it.state == State::Seeding).await;
    let safe = [
        "%2Dset%1B[2J/%2D-help",
        "%2Dset%1B[2J/a%0Ab/%251B",
        "%2Dset%1B[2J/gpj.%E2%80%AEexe",
        "%2Dset%1B[2J/usual 100%",
    ];
    assert_eq!(files_in(&home.downloads()), safe);
    assert!(home.torrents().join("%2Dset%1B[2J.torrent").exists());
    let told = daemon.detail(info_hash).await.unwrap();
    let mut paths: Vec<&str> = told.file_list.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, safe);
    assert_eq!(daemon.torrent_bytes(info_hash).await.unwrap(), torrent, "it stays as it is");
    daemon.shutdown().await;

    // After a restart, also with the other rule, and after the state was lost.
    for change in [false, true] {
        let daemon = home.start_with(|config| config.session.raw_names = change).await;
        until(&daemon, info_hash, |it| it.state == State::Seeding).await;
        assert_eq!(files_in(&home.downloads()), safe);
        daemon.shutdown().await;
    }
    std::fs::write(home.state(), "no database").unwrap();
    let daemon = home.start().await;
    until(&daemon, info_hash, |it| it.state == State::Seeding).await;
    assert_eq!(files_in(&home.downloads()), safe);
    let remove = RemoveRequest { delete_data: true, unregister: false };
    daemon.remove(info_hash, remove).await.unwrap();
    assert!(files_in(&home.downloads()).is_empty());
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_raw_by_a_switch_and_where_files_have_them_already() {
    let (shared, seeder) = hostile_seeder().await;
    let info_hash = seeder.torrents()[0].info_hash;
    let torrent = seeder.torrent_bytes(info_hash).await.unwrap();
    let raw = files_in(&shared.path("shared"));
    let home = Home::new();
    let daemon = home.start_with(|config| config.session.raw_names = true).await;
    daemon.add(hostile_leech(&seeder, torrent.clone())).await.unwrap();
    until(&daemon, info_hash, |it| it.state == State::Seeding).await;
    assert_eq!(files_in(&home.downloads()), raw);
    daemon.remove(info_hash, RemoveRequest::default()).await.unwrap();
    daemon.shutdown().await;

    let daemon = home.start().await;
    daemon.add(hostile_leech(&seeder, torrent)).await.unwrap();
    until(&daemon, info_hash, |it| it.state == State::Seeding).await;
    assert_eq!(files_in(&home.downloads()), raw, "what is there is taken");
    daemon.shutdown().await;
    seeder.shutdown().await;
}

/// Adds a torrent of a file that has no content but zeros, and takes minutes to be looked at.
async fn add_hollow(home: &Home, daemon: &Daemon) -> InfoHash {
    const PIECE: u64 = 16 << 20;
    let file = std::fs::File::create(home.downloads().join("hollow")).unwrap();
    file.set_len(1 << 38).unwrap();
    let hash = Sha1::digest(vec![0; PIECE as usize]).to_vec();
    let builder = MetainfoBuilder::single_file("hollow", 1 << 38).piece_len(PIECE as u32);
    let metainfo = builder.build(hash.repeat((1 << 38) / PIECE as usize)).unwrap();
    daemon.add(new_torrent(&metainfo)).await.unwrap().info_hash
}

/// Waits until a check goes on, and gives how far it is when that is first told.
async fn first_check(daemon: &Daemon, info_hash: InfoHash) -> f64 {
    until(daemon, info_hash, |it| it.state == State::Checking && it.check_progress > 0.0)
        .await
        .check_progress
}

#[test]
fn a_check_goes_on_where_the_daemon_was_killed_or_ended() {
    let home = Home::new();
    let start = || home.start_with(|config| config.session.keep_check_every = 1);
    // What a process that is killed does not do any more: the runtime goes without a word.
    let life = |work: &mut dyn FnMut(Daemon) -> f64, is_killed: bool| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let daemon = runtime.block_on(start());
        let far = {
            let _inside = runtime.enter();
            work(daemon.clone())
        };
        if !is_killed {
            runtime.block_on(daemon.shutdown());
        }
        drop(daemon);
        runtime.shutdown_timeout(Duration::from_secs(30));
        far
    };
    let mut hollow = None;
    let mut begin = |daemon: Daemon| {
        let info_hash = Handle::current().block_on(add_hollow(&home, &daemon));
        hollow = Some(info_hash);
        let mut told = vec![Handle::current().block_on(first_check(&daemon, info_hash))];
        for round in 0..6 {
            let more = |it: &Torrent| it.check_progress > told[round];
            let shown = Handle::current().block_on(until(&daemon, info_hash, more));
            told.push(shown.check_progress);
        }
        // How far it is is kept before it is told the next time but one.
        told[4]
    };
    let killed_at = life(&mut begin, true);
    let info_hash = hollow.unwrap();
    let mut go_on = |daemon: Daemon| {
        let far = Handle::current().block_on(first_check(&daemon, info_hash));
        assert!(far >= killed_at, "killed at {killed_at}, begins at {far}");
        let more = |it: &Torrent| it.check_progress > far;
        Handle::current().block_on(until(&daemon, info_hash, more)).check_progress
    };
    let ended_at = life(&mut go_on, false);
    let mut first_told =
        |daemon: Daemon| Handle::current().block_on(first_check(&daemon, info_hash));
    let far = life(&mut first_told, true);
    assert!(far >= ended_at && far < 1.0, "ended at {ended_at}, begins at {far}");
}
