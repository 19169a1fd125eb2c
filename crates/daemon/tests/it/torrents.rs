//! The daemon from outside: sockets, disks and a tracker are real.

use std::net::SocketAddr;

use piecework_api::{
    Event, LeechRequest, QueueMove, RemoveRequest, SeedLimit, SeedRequest, SettingsChange, Source,
    State, Torrent, TorrentChange, TorrentSettings, TrackerState,
};
use piecework_core::{InfoHash, base64};
use piecework_daemon::{AddSource, Daemon, DaemonError, NewTorrent};
use piecework_testkit::daemon::{Home, content, until, until_event, within};
use piecework_tracker::{ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer};

fn settings(text: &str) -> SettingsChange {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_daemon_seeds_another_leeches_by_name() {
    let mut config = TrackerConfig::in_memory();
    config.listen = "127.0.0.1:0".parse().unwrap();
    let tracker = TrackerServer::start(config).await.unwrap();
    let addr: SocketAddr = tracker.local_addr();

    let seeds = Home::new();
    let seeder = seeds.start_with(|config| config.tracker = Some(addr.to_string())).await;
    let bytes = content(300_000, 1);
    let input = seeds.file("shared/film.bin", &bytes);
    let added = seeder
        .seed(SeedRequest { input, labels: vec!["x".to_owned()], ..SeedRequest::default() })
        .await
        .unwrap();
    assert_eq!((added.warnings.as_slice(), added.tracker), (&[][..], Some(addr.to_string())));
    until(&seeder, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    let token = std::fs::metadata(seeds.torrents().join("film.bin.torrent.token")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(token.permissions().mode() & 0o777, 0o600);

    let leeches = Home::new();
    let leecher = leeches.start_with(|config| config.tracker = Some(addr.to_string())).await;
    let mut listener = leecher.listen();
    let source = Source::Catalogue { name: "film.bin".to_owned(), tracker: None };
    let request = LeechRequest { source, ..LeechRequest::default() };
    let leeched = leecher.leech(request.clone()).await.unwrap();
    assert!(!leeched.duplicate);
    assert!(leecher.leech(request).await.unwrap().duplicate);
    until_event(&mut listener, |event| *event == Event::Done(added.info_hash)).await;
    assert_eq!(std::fs::read(leeches.downloads().join("film.bin")).unwrap(), bytes);
    let torrent = leecher.torrent(added.info_hash).unwrap();
    assert_eq!((torrent.state, torrent.bytes_have), (State::Seeding, 300_000));
    assert!(torrent.done_at.is_some() && torrent.downloaded >= 300_000);

    let query = piecework_daemon::LogQuery { limit: 1_000, ..Default::default() };
    let log = leecher.log(added.info_hash, query).await.unwrap();
    let given: u64 = log.iter().filter(|it| it.verdict == "verified").map(|it| it.bytes).sum();
    assert_eq!(given, 300_000);
    let pieces = leecher.pieces(added.info_hash).await.unwrap();
    assert_eq!(pieces.pieces, pieces.pieces_have);
    let detail = leecher.detail(added.info_hash).await.unwrap();
    assert_eq!(detail.file_list[0].bytes_have, 300_000);
    assert!(leecher.port_test().await.open);

    let gone = RemoveRequest { unregister: true, ..RemoveRequest::default() };
    seeder.remove(added.info_hash, gone).await.unwrap();
    let mut listed = seeder.catalogue(None, None).await.unwrap();
    assert!(listed.next().await.unwrap().is_none());
    assert!(seeds.torrents().read_dir().unwrap().next().is_none());
    seeder.shutdown().await;
    leecher.shutdown().await;
    tracker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_is_away_is_only_a_warning() {
    let home = Home::new();
    // Nothing listens on port 1.
    let daemon = home.start_with(|config| config.tracker = Some("127.0.0.1:1".to_owned())).await;
    let added = daemon.seed(home.seed_request("s", 20_000)).await.unwrap();
    assert_eq!((added.warnings.len(), added.tracker), (1, None));
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    assert!(matches!(daemon.catalogue(None, None).await, Err(DaemonError::Upstream(_))));
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_when_a_download_is_done() {
    let (seeds, leeches) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let added = seeder.seed(seeds.seed_request("d", 50_000)).await.unwrap();
    let script = leeches.script("done.sh", "echo \"$TORRENT_BYTES\" > \"$TR_TORRENT_DIR/done\"");
    let leecher = leeches
        .start_with(|config| {
            config.settings.on_done = Some(script.to_str().unwrap().to_owned());
        })
        .await;
    let new = NewTorrent {
        source: AddSource::File(seeds.torrents().join("d.torrent")),
        folder: Some("below".into()),
        settings: TorrentSettings::default(),
        only_files: Some("1".to_owned()),
        trackers: Vec::new(),
        peers: vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))],
        rename: None,
        overwrite: false,
    };
    std::fs::create_dir_all(leeches.downloads().join("below")).unwrap();
    leecher.add(new).await.unwrap();
    until(&leecher, added.info_hash, |torrent| torrent.done_at.is_some()).await;
    let note = leeches.downloads().join("below/done");
    within(async {
        while std::fs::read_to_string(&note).ok().as_deref() != Some("50000\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    seeder.shutdown().await;
    leecher.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_list_is_read_and_read_anew() {
    let home = Home::new();
    let list = home.file("list", b"10.0.0.0/8\nbad: 1.2.3.4-1.2.3.5\n");
    let daemon = home.start_with(|config| config.block_list = Some(list.clone())).await;
    assert_eq!(daemon.block_list_len(), 2);
    std::fs::write(&list, "::/0").unwrap();
    assert_eq!(daemon.reload_block_list().await.unwrap(), 1);
    daemon.change_settings(settings(r#"{"block_list": false}"#)).await.unwrap();
    assert_eq!(daemon.block_list_len(), 0);
    std::fs::remove_file(&list).unwrap();
    let refused = daemon.change_settings(settings(r#"{"block_list": true}"#)).await;
    assert!(matches!(refused, Err(DaemonError::NotFound(_))));
    assert!(!daemon.settings().block_list);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_everything_back() {
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.seed(home.seed_request("a.bin", 100_000)).await.unwrap();
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    let change = TorrentChange {
        labels: Some(vec!["kept".to_owned()]),
        seed_ratio: Some(SeedLimit::At(7.0)),
        ..TorrentChange::default()
    };
    daemon.change(added.info_hash, change).await.unwrap();
    daemon.pause(added.info_hash).await.unwrap();
    let second = daemon.add(home.new_torrent("b", 50_000)).await.unwrap();
    daemon.move_in_queue(&[second.info_hash], QueueMove::Top).await.unwrap();
    daemon.change_settings(settings(r#"{"seed_time": 1000, "active_seeds": 3}"#)).await.unwrap();
    let before = daemon.torrents();
    daemon.shutdown().await;

    let daemon = home.start().await;
    let after = daemon.torrents();
    let seen = |torrents: &[piecework_api::Torrent]| -> Vec<_> {
        torrents
            .iter()
            .map(|it| (it.info_hash, it.name.clone(), it.settings.clone(), it.added_at))
            .collect()
    };
    assert_eq!(seen(&after), seen(&before));
    assert_eq!(after[0].info_hash, second.info_hash);
    assert_eq!(
        (daemon.settings().seed_time, daemon.settings().active_seeds),
        (Some(1000), Some(3))
    );
    assert_eq!((daemon.overview().starts, daemon.overview().added_ever), (2, 2));
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Paused).await;
    daemon.start_torrent(added.info_hash, false).await.unwrap();
    until(&daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_file_that_is_gone_costs_only_itself() {
    let home = Home::new();
    let daemon = home.start().await;
    let one = daemon.seed(home.seed_request("one", 20_000)).await.unwrap();
    let two = daemon.seed(home.seed_request("two", 20_000)).await.unwrap();
    daemon.shutdown().await;
    let path = home.torrents().join("one.torrent");
    let torrent = std::fs::read(&path).unwrap();
    std::fs::write(&path, "d").unwrap();

    let daemon = home.start().await;
    until(&daemon, two.info_hash, |torrent| torrent.state == State::Seeding).await;
    let broken = daemon.torrent(one.info_hash).unwrap();
    assert_eq!(broken.state, State::Failed);
    assert!(broken.error.unwrap().contains("one.torrent"));
    // Put back, it can be started.
    std::fs::write(&path, torrent).unwrap();
    daemon.start_torrent(one.info_hash, false).await.unwrap();
    until(&daemon, one.info_hash, |torrent| torrent.state == State::Seeding).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_rebuilt_from_the_torrents() {
    is_rebuilt(|state| std::fs::write(state, vec![b'x'; 10_000]).unwrap(), "damaged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_is_rebuilt_as_a_damaged_one_is() {
    is_rebuilt(|state| std::fs::remove_file(state).unwrap(), "there was no database").await;
    let with_its_lock = |state: &std::path::Path| {
        std::fs::remove_file(state).unwrap();
        std::fs::remove_file(state.with_extension("sqlite.lock")).unwrap();
    };
    is_rebuilt(with_its_lock, "there was no database").await;
}

/// A database that was lost by `lose` is rebuilt, and a notice says why.
async fn is_rebuilt(lose: impl FnOnce(&std::path::Path), why: &str) {
    let home = Home::new();
    let daemon = home.start().await;
    let bytes = content(60_000, 3);
    home.file("downloads/whole", &bytes);
    let whole = daemon.add(home.torrent_of("downloads/whole")).await.unwrap();
    let missing = daemon.add(home.new_torrent("missing", 50_000)).await.unwrap();
    until(&daemon, whole.info_hash, |torrent| torrent.state == State::Seeding).await;
    daemon.shutdown().await;
    lose(&home.state());

    let daemon = home.start().await;
    let notices = daemon.overview().notices;
    assert!(notices.iter().any(|notice| notice.contains(why)), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("`2` torrents were found again")));
    until(&daemon, whole.info_hash, |torrent| torrent.state == State::Seeding).await;
    // It may lie anywhere: nothing is written for it before somebody says so.
    until(&daemon, missing.info_hash, |torrent| torrent.state == State::Paused).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_takes_the_torrent_file_and_if_asked_the_data() {
    let home = Home::new();
    let daemon = home.start().await;
    home.file("downloads/a", &content(30_000, 1));
    home.file("downloads/b", &content(30_000, 2));
    let a = daemon.add(home.torrent_of("downloads/a")).await.unwrap();
    let b = daemon.add(home.torrent_of("downloads/b")).await.unwrap();
    let mut listener = daemon.listen();
    until_event(&mut listener, |event| *event == Event::Ready).await;
    daemon.remove(a.info_hash, RemoveRequest::default()).await.unwrap();
    until_event(&mut listener, |event| *event == Event::Removed(a.info_hash)).await;
    assert!(home.downloads().join("a").exists());
    assert!(!home.torrents().join("a.torrent").exists());
    let all = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    daemon.remove(b.info_hash, all).await.unwrap();
    assert!(!home.downloads().join("b").exists() && home.downloads().exists());
    assert!(matches!(daemon.remove(b.info_hash, all).await, Err(DaemonError::Unknown(_))));
    let (changed, removed) = (daemon.changed_since(0), daemon.removed_since(0));
    assert_eq!((changed.len(), removed.len()), (0, 2));

    // What was shared from elsewhere is never deleted.
    let seed = daemon.seed(home.seed_request("shared", 20_000)).await.unwrap();
    assert!(matches!(daemon.remove(seed.info_hash, all).await, Err(DaemonError::Forbidden(_))));
    assert!(daemon.torrent(seed.info_hash).is_some());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_outside_the_allowed_ones_are_forbidden() {
    let home = Home::new();
    let roots = home.path("allowed");
    std::fs::create_dir_all(&roots).unwrap();
    let daemon = home
        .start_with(|config| {
            config.download_roots = vec![roots.clone()];
            config.seed_roots = vec![roots.clone()];
        })
        .await;
    std::os::unix::fs::symlink("/tmp", home.downloads().join("link")).unwrap();
    let into = |folder: std::path::PathBuf| NewTorrent {
        folder: Some(folder),
        ..home.new_torrent("t", 10_000)
    };
    for bad in ["/tmp", "../x", "a/../../x", "link", "link/deeper"] {
        let refused = daemon.add(into(bad.into())).await;
        assert!(matches!(refused, Err(DaemonError::Forbidden(_))), "{bad}: {refused:?}");
    }
    assert!(daemon.torrents().is_empty());
    let added = daemon.add(into(roots.join("deep/er"))).await.unwrap();
    assert_eq!(daemon.torrent(added.info_hash).unwrap().folder, roots.join("deep/er"));

    let outside = daemon.seed(home.seed_request("secret", 10_000)).await;
    assert!(matches!(outside, Err(DaemonError::Forbidden(_))), "{outside:?}");
    for bad in [r#"{"on_done": "/bin/sh"}"#, r#"{"downloads": "/etc"}"#, r#"{"watch_folder": "/"}"#]
    {
        let refused = daemon.change_settings(settings(bad)).await;
        assert!(matches!(refused, Err(DaemonError::Forbidden(_))), "{bad}: {refused:?}");
    }
    assert!(daemon.free_space(&roots).await.unwrap().total > 0);
    assert!(daemon.free_space("/etc".as_ref()).await.is_err());
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_as_many_run_as_may() {
    let home = Home::new();
    let daemon = home.start_with(|config| config.settings.active_downloads = Some(1)).await;
    let mut hashes = Vec::new();
    for n in 0..3 {
        let added = daemon.add(home.new_torrent(&format!("t{n}"), 30_000)).await.unwrap();
        hashes.push(added.info_hash);
    }
    let state = async |at: usize, wanted| until(&daemon, hashes[at], |it| it.state == wanted).await;
    state(0, State::Downloading).await;
    state(1, State::QueuedDownload).await;
    state(2, State::QueuedDownload).await;
    daemon.move_in_queue(&[hashes[2]], QueueMove::Top).await.unwrap();
    state(2, State::Downloading).await;
    state(0, State::QueuedDownload).await;
    daemon.start_torrent(hashes[1], true).await.unwrap();
    state(1, State::Downloading).await;
    state(2, State::QueuedDownload).await;
    daemon.pause(hashes[1]).await.unwrap();
    state(1, State::Paused).await;
    state(2, State::Downloading).await;
    daemon.change_settings(settings(r#"{"active_downloads": null}"#)).await.unwrap();
    state(0, State::Downloading).await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeding_limit_stops_it_and_a_start_waives_it() {
    let home = Home::new();
    let script = home.script("seeded.sh", "echo \"$TORRENT_NAME\" > \"$TORRENT_DIR/seeded\"");
    let daemon = home
        .start_with(|config| {
            config.settings.seed_time = Some(0);
            config.settings.on_seeded = Some(script.to_str().unwrap().to_owned());
        })
        .await;
    let added = daemon.seed(home.seed_request("s", 20_000)).await.unwrap();
    let limited = until(&daemon, added.info_hash, |it| it.limit_reached).await;
    assert_eq!(limited.state, State::Paused);
    let note = home.path("shared/seeded");
    within(async {
        while std::fs::read_to_string(&note).ok().as_deref() != Some("s\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    daemon.start_torrent(added.info_hash, false).await.unwrap();
    let again = until(&daemon, added.info_hash, |it| it.state == State::Seeding).await;
    assert!(!again.limit_reached);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watched_torrents_are_added_and_programs_run() {
    let home = Home::new();
    let script = home.script("added.sh", "echo \"$TR_TORRENT_HASH\" > \"$TORRENT_DIR/ran\"");
    let watched = home.path("watched");
    std::fs::create_dir_all(&watched).unwrap();
    let metainfo = home.made("w", 20_000);
    std::fs::write(watched.join("w.torrent"), metainfo.bytes().unwrap().as_ref()).unwrap();
    std::fs::write(watched.join("bad.torrent"), "no").unwrap();
    let daemon = home
        .start_with(|config| {
            config.settings.watch_folder = Some(watched.clone());
            config.settings.on_added = Some(script.to_str().unwrap().to_owned());
            std::fs::create_dir_all(&config.settings.downloads).unwrap();
        })
        .await;
    let mut listener = daemon.listen();
    let hash = metainfo.info_hash();
    until_event(&mut listener, |event| matches!(event, Event::Torrent(it) if it.info_hash == hash))
        .await;
    let ran = home.downloads().join("ran");
    within(async {
        let wanted = format!("{hash}\n");
        while std::fs::read_to_string(&ran).ok().as_ref() != Some(&wanted)
            || !watched.join("w.torrent.added").exists()
            || !watched.join("bad.torrent.invalid").exists()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_magnet_link_is_added_when_a_peer_gives_its_metadata() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let seeded = seeder.seed(seeds.seed_request("s", 100_000)).await.unwrap();
    let (hash, peer) = (seeded.info_hash, seeder.listen_addrs()[0]);
    let watched = home.path("watched");
    std::fs::create_dir_all(&watched).unwrap();
    let link = format!("magnet:?xt=urn:btih:{hash}&x.pe={peer}\n");
    std::fs::write(watched.join("s.magnet"), link).unwrap();
    std::fs::write(watched.join("bad.magnet"), "magnet:?dn=x").unwrap();
    let daemon = home
        .start_with(|config| {
            config.settings.watch_folder = Some(watched.clone());
            std::fs::create_dir_all(&config.settings.downloads).unwrap();
        })
        .await;
    within(async {
        while !watched.join("s.magnet.added").exists()
            || !watched.join("bad.magnet.invalid").exists()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    until(&daemon, hash, |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_torrent_is_checked_before_it_is_served() {
    let home = Home::new();
    let daemon = home.start().await;
    let metainfo = home.made("m", 40_000);
    let request = |input: std::path::PathBuf| SeedRequest {
        input,
        torrent: Some(base64::encode(metainfo.bytes().unwrap().as_ref())),
        torrent_out: Some(home.path("made/out.torrent")),
        ..SeedRequest::default()
    };
    let wrong = home.file("wrong/m", &content(40_000, 99));
    let refused = daemon.seed(request(wrong)).await;
    assert!(matches!(refused, Err(DaemonError::Forbidden(_) | DaemonError::Invalid(_))));
    let added = daemon.seed(request(home.path("made/m"))).await.unwrap();
    assert_eq!(added.info_hash, metainfo.info_hash());
    assert_eq!(
        std::fs::read(home.path("made/out.torrent")).unwrap(),
        metainfo.bytes().unwrap().as_ref()
    );
    until(&daemon, added.info_hash, |it| it.state == State::Seeding).await;
    assert_eq!(
        daemon.torrent_bytes(added.info_hash).await.unwrap(),
        metainfo.bytes().unwrap().as_ref()
    );
    daemon.shutdown().await;
}

/// In a healthy network nothing is refused: torrents are registered before they are announced,
/// and holdings are reported only by peers that are announced.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_a_healthy_network_is_refused() {
    let mut config = TrackerConfig::in_memory();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.interval = std::time::Duration::from_secs(1);
    config.min_interval = std::time::Duration::from_secs(1);
    let tracker = TrackerServer::start(config).await.unwrap();
    let addr = tracker.local_addr().to_string();
    let console = |line: &str| match tracker.console(line) {
        ConsoleReply::Text(text) => text,
        ConsoleReply::Quit => panic!("the tracker ends"),
    };
    let (seeds, leeches) = (Home::new(), Home::new());
    let seeder = seeds.start_with(|config| config.tracker = Some(addr.clone())).await;
    let leecher = leeches.start_with(|config| config.tracker = Some(addr.clone())).await;
    for name in ["one", "two", "three"] {
        let added = seeder.seed(seeds.seed_request(name, 200_000)).await.unwrap();
        assert_eq!(added.tracker.as_deref(), Some(&*addr));
        // Whoever asks before the seeder has announced is told that nobody has any of it.
        let is_start = |line: &str| line.contains("started") && line.trim_end().ends_with(name);
        within(async {
            while !console("request logs").lines().any(is_start) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let source = Source::Catalogue { name: name.to_owned(), tracker: None };
        let leeched = leecher.leech(LeechRequest { source, ..LeechRequest::default() }).await;
        until(&leecher, leeched.unwrap().info_hash, |it| it.state == State::Seeding).await;
        // Paused ones report nothing, and what is resumed is announced before it reports.
        leecher.pause(added.info_hash).await.unwrap();
        until(&leecher, added.info_hash, |it| it.state == State::Paused).await;
        if name == "two" {
            leecher.start_torrent(added.info_hash, false).await.unwrap();
            until(&leecher, added.info_hash, |it| it.state == State::Seeding).await;
        }
        if name == "three" {
            let removal = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
            leecher.remove(added.info_hash, removal).await.unwrap();
        }
    }
    // All holdings come to be known by reports; then a few more intervals pass.
    let reported = |name: &str| console(&format!("file_logs {name}")).matches("reported").count();
    within(async {
        while ["one", "two", "three"].map(reported) != [1, 2, 1] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let announces = || console("request logs").matches("announce").count();
    let before = announces();
    within(async {
        while announces() < before + 10 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let log = console("request logs");
    assert!(!log.contains("failed"), "{log}");
    seeder.shutdown().await;
    leecher.shutdown().await;
    let log = console("request logs");
    assert!(!log.contains("failed"), "{log}");
    tracker.shutdown().await;
}

/// A torrent's own trackers are announced to; a private one is neither announced to nor registered
/// with the configured tracker.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_torrent_is_seen_by_its_own_tracker_alone() {
    let start = async || {
        let mut config = TrackerConfig::in_memory();
        config.listen = "127.0.0.1:0".parse().unwrap();
        TrackerServer::start(config).await.unwrap()
    };
    let (own, configured) = (start().await, start().await);
    let console = |tracker: &TrackerHandle| match tracker.console("request all logs") {
        ConsoleReply::Text(text) => text,
        ConsoleReply::Quit => panic!("the tracker ends"),
    };
    let home = Home::new();
    let addr = configured.local_addr().to_string();
    let daemon = home.start_with(|config| config.tracker = Some(addr.clone())).await;
    for private in [true, false] {
        let name = if private { "private" } else { "open" };
        let input = home.file(&format!("made/{name}"), &content(40_000, 5));
        let options = piecework_storage::CreateOptions {
            private,
            trackers: vec![vec![format!("http://{}/announce", own.local_addr())]],
            ..piecework_storage::CreateOptions::default()
        };
        let never = std::sync::atomic::AtomicBool::new(false);
        let made = piecework_storage::create(&input, options, 1, |_| {}, &never).unwrap();
        let torrent = base64::encode(made.metainfo.bytes().unwrap().as_ref());
        let request = SeedRequest { input, torrent: Some(torrent), ..SeedRequest::default() };
        if private {
            let trackers = vec![vec![format!("http://{addr}/announce")]];
            let elsewhere = SeedRequest { trackers, ..request.clone() };
            let refused = daemon.seed(elsewhere).await.unwrap_err();
            assert!(refused.to_string().contains("--publish-private"), "{refused}");
        }
        let added = daemon.seed(request).await.unwrap();
        assert_eq!(added.tracker.is_some(), !private, "registered");
        let hash = added.info_hash.to_string();
        let is_known = |log: &str| log.contains(&hash) || log.contains(name);
        within(async {
            while !is_known(&console(&own)) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(is_known(&console(&configured)), !private, "{}", console(&configured));
        trackers_tell_when_they_took_an_announce(&daemon, added.info_hash).await;
    }
    daemon.shutdown().await;
    assert!(!console(&configured).contains("private"), "not even that it leaves");
    own.shutdown().await;
    configured.shutdown().await;
}

/// Waits until a tracker of a torrent works. Those that work have a time of their last announce, and
/// those that were not asked have none.
async fn trackers_tell_when_they_took_an_announce(daemon: &Daemon, info_hash: InfoHash) {
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    };
    within(async {
        loop {
            let trackers = daemon.detail(info_hash).await.unwrap().trackers;
            for tracker in &trackers {
                match (tracker.state, tracker.announced_at) {
                    // Within the time that the whole test may take.
                    (_, Some(time)) => assert!(now().abs_diff(time) < 600, "{tracker:?}"),
                    (state, None) => assert_ne!(state, TrackerState::Working, "{tracker:?}"),
                }
            }
            if trackers.iter().any(|tracker| tracker.state == TrackerState::Working) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_all_then_changes_then_the_end() {
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(home.new_torrent("l", 10_000)).await.unwrap();
    let mut listener = daemon.listen();
    let first = within(listener.next()).await.unwrap();
    assert!(matches!(first, Event::Torrent(torrent) if torrent.info_hash == added.info_hash));
    assert_eq!(within(listener.next()).await, Some(Event::Ready));
    daemon.change_settings(settings(r#"{"upload_slots": 3}"#)).await.unwrap();
    until_event(
        &mut listener,
        |event| matches!(event, Event::Settings(settings) if settings.upload_slots == 3),
    )
    .await;
    daemon.shutdown().await;
    until_event(&mut listener, |event| *event == Event::Bye).await;
    assert_eq!(listener.next().await, None);
    assert!(matches!(daemon.pause(added.info_hash).await, Err(DaemonError::Ending)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let home = Home::new();
    let daemon = home.start().await;
    let added = daemon.add(home.new_torrent("t", 10_000)).await.unwrap();
    let before = daemon.torrent(added.info_hash).unwrap().settings;
    for change in [
        TorrentChange { files: vec![(5, Default::default())], ..TorrentChange::default() },
        TorrentChange { only_files: Some("2".to_owned()), ..TorrentChange::default() },
        TorrentChange {
            trackers: Some(vec![vec!["wss://x".to_owned()]]),
            ..TorrentChange::default()
        },
        TorrentChange { seed_ratio: Some(SeedLimit::At(f64::NAN)), ..TorrentChange::default() },
    ] {
        let refused = daemon.change(added.info_hash, change).await;
        assert!(matches!(refused, Err(DaemonError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(daemon.torrent(added.info_hash).unwrap().settings, before);
    let bad = NewTorrent {
        source: AddSource::Bytes(b"no".to_vec()),
        folder: None,
        settings: TorrentSettings::default(),
        only_files: None,
        trackers: Vec::new(),
        peers: Vec::new(),
        rename: None,
        overwrite: false,
    };
    assert!(matches!(daemon.add(bad.clone()).await, Err(DaemonError::Invalid(_))));
    let source = AddSource::Url("file:///etc/passwd".to_owned());
    assert!(matches!(daemon.add(NewTorrent { source, ..bad }).await, Err(DaemonError::Invalid(_))));
    for bad in [r#"{"no_such": 1}"#, r#"{"max_connections": 0}"#, r#"{"seed_ratio": -1}"#] {
        assert!(matches!(
            daemon.change_settings(settings(bad)).await,
            Err(DaemonError::Invalid(_))
        ));
    }
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_torrents_start() {
    let home = Home::new();
    let daemon = home.start().await;
    let adding: Vec<_> = (0..1_000)
        .map(|n| {
            let (daemon, mut new) = (daemon.clone(), home.tiny(n));
            new.settings.paused = n % 2 == 0;
            tokio::spawn(async move { daemon.add(new).await.unwrap() })
        })
        .collect();
    for added in adding {
        assert!(!added.await.unwrap().duplicate);
    }
    daemon.shutdown().await;
    let daemon = home.start().await;
    let overview = daemon.overview();
    assert_eq!((overview.counts.all, overview.counts.failed), (1_000, 0));
    daemon.shutdown().await;
}

/// Issue 13, lines 2 and 3.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_awkward_names_and_links_arrives_whole_and_is_served_after_a_restart() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let seeds = Home::new();
    for (at, name) in
        ["README", "readme", "Z", "z/x", "a\\x2db.mount", ".hidden"].iter().enumerate()
    {
        seeds.file(&format!("shared/tree/{name}"), &content(20_000 + at, at as u64));
    }
    let tree = seeds.path("shared/tree");
    let latin = content(30_000, 90);
    if std::fs::write(tree.join(OsStr::from_bytes(b"caf\xe9 cr\xe8me")), &latin).is_err() {
        return; // A file system that takes no such names.
    }
    let blob = seeds.file("shared/blobs/1", &content(40_000, 91));
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../blobs/1", tree.join("link")).unwrap();
    symlink("/etc/passwd", tree.join("outside")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    symlink("tree", seeds.path("shared/named")).unwrap();

    let roots = vec![seeds.path("shared")];
    let seeder = seeds.start_with(|config| config.seed_roots = roots.clone()).await;
    let input = seeds.path("shared/named");
    let request = SeedRequest {
        input,
        follow_links: true,
        exclude: vec!["Z".to_owned()],
        source: Some("TAG".to_owned()),
        ..SeedRequest::default()
    };
    let added = seeder.seed(request).await.unwrap();
    assert_eq!(added.name, "named");
    let warnings = added.warnings.join("\n");
    for part in
        ["outside` is a symbolic link out of", "socket` is neither", "caf\\xe9 cr\\xe8me` is"]
    {
        assert!(warnings.contains(part), "{warnings}");
    }
    until(&seeder, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    seeder.shutdown().await;
    let seeder = seeds.start_with(|config| config.seed_roots = roots).await;
    let torrent = until(&seeder, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    assert_eq!(torrent.name, "named");

    let leeches = Home::new();
    let leecher = leeches.start().await;
    let torrent = std::fs::read(seeds.torrents().join("named.torrent")).unwrap();
    let new = NewTorrent {
        source: AddSource::Bytes(torrent),
        peers: vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))],
        ..leeches.tiny(0)
    };
    leecher.add(new).await.unwrap();
    until(&leecher, added.info_hash, |torrent| torrent.state == State::Seeding).await;
    let got = leeches.downloads().join("named");
    for name in ["README", "readme", "z/x", "a\\x2db.mount", ".hidden", "link"] {
        let same =
            std::fs::read(got.join(name)).unwrap() == std::fs::read(tree.join(name)).unwrap();
        assert!(same, "{name}");
    }
    assert_eq!(std::fs::read(got.join("café crème")).unwrap(), latin);
    assert_eq!(got.read_dir().unwrap().count(), 7);
    let mode = |name: &str| got.join(name).metadata().unwrap().permissions().mode();
    assert_eq!((mode("link") & 0o100, mode("README") & 0o111), (0o100, 0));
    // What links led to is not removed with it, and what is refused changes nothing.
    let removal = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    let refused = seeder.remove(added.info_hash, removal).await.unwrap_err();
    assert!(refused.to_string().contains("symbolic links led to"), "{refused}");
    assert!(blob.exists() && tree.join("README").exists());
    assert_eq!(seeder.torrents().len(), 1);
    seeder.remove(added.info_hash, RemoveRequest::default()).await.unwrap();
    assert!(blob.exists());
    seeder.shutdown().await;
    leecher.shutdown().await;
}

/// A file that takes minutes to hash and no room.
fn endless(home: &Home, name: &str) -> SeedRequest {
    let input = home.file(&format!("shared/{name}"), b"");
    std::fs::File::options().write(true).open(&input).unwrap().set_len(1 << 38).unwrap();
    SeedRequest { input, wait: Some(false), ..SeedRequest::default() }
}

async fn until_named(daemon: &Daemon, name: &str, wanted: impl Fn(&Torrent) -> bool) -> Torrent {
    within(async {
        loop {
            let mut all = daemon.torrents().into_iter();
            if let Some(torrent) = all.find(|it| it.name == name && wanted(it)) {
                return torrent;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

fn is_hashing(torrent: &Torrent) -> bool {
    torrent.state == State::Hashing && torrent.check_progress > 0.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hashed_is_listed_over_restarts_and_gets_its_info_hash_in_its_place() {
    let home = Home::new();
    let daemon = home.start().await;
    let first = daemon.begin_seed(endless(&home, "first")).await.unwrap().listed;
    let labels = vec!["x".to_owned()];
    let request = SeedRequest { labels, ..home.seed_request("second", 40_000) };
    let second = daemon.begin_seed(request.clone()).await.unwrap().listed;
    assert_eq!(daemon.hashes(), [first.info_hash, second.info_hash]);
    let metainfo = home.made("third", 40_000);
    let made = SeedRequest {
        input: home.path("made/third"),
        torrent: Some(base64::encode(metainfo.bytes().unwrap().as_ref())),
        ..SeedRequest::default()
    };
    let third = daemon.begin_seed(made).await.unwrap().listed;
    let shown = until(&daemon, first.info_hash, is_hashing).await;
    assert_eq!((shown.bytes, shown.bytes_have, shown.name.as_str()), (1 << 38, 0, "first"));
    let waiting = daemon.torrent(second.info_hash).unwrap();
    assert_eq!((waiting.state, waiting.check_progress), (State::QueuedHash, 0.0));
    let changed = daemon.changed_since(0);
    assert!(changed.contains(&first.info_hash) && changed.contains(&second.info_hash));
    // What is chosen meanwhile holds.
    let change = TorrentChange { upload_limit: Some(5_000), ..TorrentChange::default() };
    daemon.change(second.info_hash, change).await.unwrap();
    let refused = daemon.torrent_bytes(second.info_hash).await.unwrap_err();
    assert!(refused.to_string().contains("is being hashed"), "{refused}");
    daemon.shutdown().await;
    // As if the process had been killed before it had written down another request.
    let forgotten = home.file(&format!("torrents/.{}.torrent", "ab".repeat(20)), b"de");
    let known = home.path(&format!("torrents/.{}.torrent", third.info_hash));
    assert!(known.exists());

    let daemon = home.start().await;
    assert!(known.exists() && !forgotten.exists());
    let all: Vec<String> = daemon.torrents().into_iter().map(|torrent| torrent.name).collect();
    assert_eq!(all, ["first", "second", "third"]);
    until(&daemon, first.info_hash, is_hashing).await;
    let again = daemon.torrent(second.info_hash).unwrap();
    assert_eq!((again.state, again.settings.upload_limit), (State::QueuedHash, Some(5_000)));
    let (id, added_at) = (again.id, again.added_at);
    daemon.remove(first.info_hash, RemoveRequest::default()).await.unwrap();
    let seeding = until_named(&daemon, "second", |it| it.state == State::Seeding).await;
    assert_ne!(seeding.info_hash, second.info_hash);
    assert_eq!((seeding.id, seeding.added_at), (id, added_at));
    assert_eq!(seeding.settings.upload_limit, Some(5_000));
    assert_eq!(seeding.settings.labels, ["x"]);
    assert_eq!(daemon.listed_as(second.info_hash), seeding.info_hash);
    let gone = daemon.removed_since(0);
    assert!(gone.contains(&(second.info_hash, None)), "{gone:?}");
    until(&daemon, metainfo.info_hash(), |it| it.state == State::Seeding).await;
    assert_eq!(daemon.listed_as(third.info_hash), metainfo.info_hash());
    // Nothing was touched, and nothing stays behind.
    assert_eq!(std::fs::metadata(home.path("shared/first")).unwrap().len(), 1 << 38);
    let mut kept: Vec<_> = std::fs::read_dir(home.torrents()).unwrap().collect();
    kept.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    assert_eq!(kept.len(), 2, "{kept:?}");
    daemon.shutdown().await;

    let daemon = home.start().await;
    assert_eq!(daemon.hashes(), [seeding.info_hash, metainfo.info_hash()]);
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_hashed_is_a_fault_that_can_be_tried_again_or_removed() {
    let home = Home::new();
    let daemon = home.start().await;
    // Cut short while it is read.
    let first = daemon.begin_seed(endless(&home, "first")).await.unwrap();
    let listed = first.listed.clone();
    let gone = home.seed_request("gone", 40_000);
    let empty = home.path("shared/empty");
    std::fs::create_dir(&empty).unwrap();
    let nothing = SeedRequest { input: empty, ..SeedRequest::default() };
    let nothing = daemon.begin_seed(nothing).await.unwrap();
    let second = daemon.begin_seed(gone.clone()).await.unwrap().listed;
    std::fs::remove_file(&gone.input).unwrap();
    until(&daemon, listed.info_hash, is_hashing).await;
    let file = std::fs::File::options().write(true).open(home.path("shared/first")).unwrap();
    file.set_len(100).unwrap();
    let failed = until(&daemon, listed.info_hash, |it| it.state == State::Failed).await;
    assert!(failed.error.unwrap().contains("was changed while it was being hashed"));
    let told = within(first.done()).await.unwrap_err();
    assert!(matches!(told, DaemonError::Conflict(_)), "{told}");
    // What makes no sense stays nowhere if whoever asked is told so.
    let told = within(nothing.done()).await.unwrap_err();
    assert!(
        matches!(&told, DaemonError::Invalid(why) if why.to_string().contains("without any files"))
    );
    let failed = until(&daemon, second.info_hash, |it| it.state == State::Failed).await;
    assert!(failed.error.unwrap().contains("shared/gone` cannot be read"));
    assert_eq!(daemon.hashes(), [listed.info_hash, second.info_hash]);

    // After a restart it is tried by itself.
    daemon.shutdown().await;
    let daemon = home.start().await;
    let cut = until_named(&daemon, "first", |it| it.state == State::Seeding).await;
    assert_eq!(cut.bytes, 100);
    until(&daemon, second.info_hash, |it| it.state == State::Failed).await;
    std::fs::write(&gone.input, content(50_000, 3)).unwrap();
    daemon.start_torrent(second.info_hash, false).await.unwrap();
    let mended = until_named(&daemon, "gone", |it| it.state == State::Seeding).await;
    assert_eq!(mended.bytes, 50_000);

    // Where data may be deleted.
    let input = home.file("downloads/doomed", &content(40_000, 4));
    let doomed = SeedRequest { input, ..SeedRequest::default() };
    let blocking = daemon.begin_seed(endless(&home, "endless")).await.unwrap();
    let third = daemon.begin_seed(doomed.clone()).await.unwrap();
    let removal = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    let refused = daemon.remove(third.listed.info_hash, removal).await.unwrap_err();
    assert!(refused.to_string().contains("its files stay"), "{refused}");
    assert!(doomed.input.exists() && daemon.torrent(third.listed.info_hash).is_none());
    let told = within(third.done()).await.unwrap_err();
    assert!(told.to_string().contains("`doomed` was removed"), "{told}");
    daemon.shutdown().await;
    let told = within(blocking.done()).await.unwrap_err();
    assert!(matches!(told, DaemonError::Ending), "{told}");
}

/// What is removed or asked for again in the very moment in which it is hashed.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_what_is_just_hashed_by_its_old_info_hash_means_the_torrent() {
    let home = Home::new();
    let daemon = home.start().await;
    for round in 0..20 {
        let request = home.seed_request(&format!("file {round}"), 20_000 + round);
        let begun = daemon.begin_seed(request.clone()).await.unwrap();
        let provisional = begun.listed.info_hash;
        let removing = {
            let daemon = daemon.clone();
            tokio::spawn(async move { daemon.remove(provisional, RemoveRequest::default()).await })
        };
        let again = within(daemon.begin_seed(request.clone()).await.unwrap().done()).await;
        within(removing).await.unwrap().unwrap();
        let first = within(begun.done()).await;
        for outcome in [first, again] {
            match outcome {
                Ok(_) => {}
                Err(DaemonError::Conflict(why)) => {
                    assert!(why.to_string().contains("was removed"), "{why}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        // The second request may have come behind the removal.
        for info_hash in daemon.hashes() {
            daemon.remove(info_hash, RemoveRequest::default()).await.unwrap();
        }
        let left: Vec<_> = std::fs::read_dir(home.torrents()).unwrap().collect();
        assert!(left.is_empty() && daemon.hashes().is_empty(), "{left:?}");
        assert!(request.input.exists());
    }
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_hash_are_bounded_and_the_same_one_waits_for_itself() {
    let home = Home::new();
    let daemon = home.start().await;
    let first = daemon.begin_seed(endless(&home, "first")).await.unwrap().listed;
    let request = home.seed_request("twice", 40_000);
    let (one, two) = (
        daemon.begin_seed(request.clone()).await.unwrap(),
        daemon.begin_seed(SeedRequest { wait: Some(true), ..request.clone() }).await.unwrap(),
    );
    assert_eq!(one.listed.info_hash, two.listed.info_hash);
    assert_eq!((one.listed.duplicate, two.listed.duplicate), (false, true));
    let many = (0..998).map(|n| {
        let request = SeedRequest { name: Some(n.to_string()), ..request.clone() };
        let daemon = daemon.clone();
        tokio::spawn(async move { daemon.begin_seed(request).await.map(|begun| begun.listed) })
    });
    for listed in many.collect::<Vec<_>>() {
        listed.await.unwrap().unwrap();
    }
    assert_eq!(daemon.hashes().len(), 1_000);
    let one_more = SeedRequest { name: Some("more".to_owned()), ..request.clone() };
    let refused = daemon.begin_seed(one_more.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("`1,000` files and folders"), "{refused}");
    daemon.remove(first.info_hash, RemoveRequest::default()).await.unwrap();
    let (one, two) = (within(one.done()).await.unwrap(), within(two.done()).await.unwrap());
    assert_eq!((one.info_hash, one.id, one.duplicate), (two.info_hash, two.id, false));
    // The others are the same content.
    let last = within(daemon.seed(one_more)).await.unwrap();
    assert_eq!((last.info_hash, last.duplicate), (one.info_hash, true));
    within(async {
        while daemon.hashes() != [one.info_hash] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    daemon.shutdown().await;
}
