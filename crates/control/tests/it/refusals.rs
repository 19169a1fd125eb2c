//! What is refused over HTTP, or fails there, has changed nothing (issue 11, lines 2 and 10).

use std::path::Path;

use piecework_api::client::{ApiClient, ApiError};
use piecework_api::{
    LeechRequest, MoveRequest, QueueMove, RenameRequest, Source, State, Torrent, TorrentChange,
};
use piecework_control::{Control, ControlConfig};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, Secret, base64};
use piecework_daemon::Daemon;
use piecework_testkit::daemon::{Home, content, control_config, until, within};

/// A daemon and a client of its owner.
struct Served {
    daemon: Daemon,
    control: Control,
    client: ApiClient,
}

impl Served {
    async fn start(home: &Home) -> Self {
        Self::with(home, |_| {}).await
    }

    async fn with(home: &Home, change: impl FnOnce(&mut ControlConfig)) -> Self {
        let daemon = home.start().await;
        let mut config = control_config();
        change(&mut config);
        let control = Control::start(config, daemon.clone()).await.unwrap();
        let client = ApiClient::new(&control.addrs()[0].to_string(), None).unwrap();
        Self { daemon, control, client }
    }

    /// Adds a torrent whose content lies in the downloads folder already.
    async fn whole(&self, home: &Home, name: &str) -> InfoHash {
        let metainfo = home.made(name, 40_000);
        std::fs::copy(home.path(&format!("made/{name}")), home.downloads().join(name)).unwrap();
        let added = self.client.leech(&leech(&metainfo)).await.unwrap();
        until(&self.daemon, added.info_hash, |torrent| torrent.state == State::Seeding).await;
        added.info_hash
    }

    async fn end(self) {
        self.control.shutdown().await;
        self.daemon.shutdown().await;
    }
}

fn leech(metainfo: &Metainfo) -> LeechRequest {
    let source = Source::Torrent(base64::encode(metainfo.bytes().unwrap().as_ref()));
    LeechRequest { source, ..LeechRequest::default() }
}

fn rename(path: &str, name: &str) -> RenameRequest {
    RenameRequest { path: path.to_owned(), name: name.to_owned() }
}

/// Waits until the disk is as `wanted` says.
async fn until_on_disk(wanted: impl Fn() -> bool) {
    within(async {
        while !wanted() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The status and sentence of a request that must have failed.
fn fault<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> (u16, String) {
    match answer {
        Err(ApiError::Fault { status, error }) => (status, error),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_are_refused_for_what_they_are() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let hash = served.whole(&home, "a.bin").await;
    for name in ["../b", "..", ".", "", "x/y", "/etc/b", "x\\y", "nul\0"] {
        let (status, error) = fault(served.client.rename(hash, &rename("a.bin", name)).await);
        assert_eq!(status, 400, "{name:?}: {error}");
        assert!(error.contains("is not a valid file name"), "{error}");
    }
    // The path names something in the torrent, nothing on the disk.
    for path in ["../a.bin", "/etc/passwd", "a.bin/x", ""] {
        let (status, error) = fault(served.client.rename(hash, &rename(path, "c")).await);
        assert_eq!(status, 404, "{path:?}: {error}");
    }
    assert!(home.downloads().join("a.bin").exists() && !home.path("b").exists());
    served.client.rename(hash, &rename("a.bin", "b.bin")).await.unwrap();
    assert!(home.downloads().join("b.bin").exists() && !home.downloads().join("a.bin").exists());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_gets_the_name_it_is_added_with() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let metainfo = home.made("a.bin", 40_000);
    for name in ["../up", "..", "x/y", ""] {
        let request = LeechRequest { rename: Some(name.to_owned()), ..leech(&metainfo) };
        let (status, error) = fault(served.client.leech(&request).await);
        assert_eq!(status, 400, "{name:?}: {error}");
    }
    assert!(served.daemon.torrents().is_empty());
    let named = |name: &str| LeechRequest { rename: Some(name.to_owned()), ..leech(&metainfo) };
    let added = served.client.leech(&named("other.bin")).await.unwrap();
    assert_eq!(added.name, "other.bin");
    until(&served.daemon, added.info_hash, |torrent| torrent.state == State::Downloading).await;
    until_on_disk(|| home.downloads().join("other.bin").exists()).await;
    assert!(!home.downloads().join("a.bin").exists());
    // That name is another torrent's from now on.
    let second = home.made("b.bin", 40_000);
    let request = LeechRequest { rename: Some("other.bin".to_owned()), ..leech(&second) };
    let (status, error) = fault(served.client.leech(&request).await);
    assert_eq!(status, 409, "{error}");
    assert!(error.contains("`a.bin`") && error.contains("`b.bin`"), "{error}");
    assert_eq!(served.daemon.torrents().len(), 1);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_else_is_replaced_if_the_owner_says_so_and_only_then() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let metainfo = home.made("a.bin", 40_000);
    let theirs = content(50_000, 7);
    home.file("downloads/a.bin", &theirs);
    let added = served.client.leech(&leech(&metainfo)).await.unwrap();
    let failed = |torrent: &Torrent| torrent.state == State::Failed;
    let stopped = until(&served.daemon, added.info_hash, failed).await;
    assert!(stopped.error.unwrap().contains("--overwrite"));
    assert_eq!(std::fs::read(home.downloads().join("a.bin")).unwrap(), theirs);
    served.client.remove(added.info_hash, &Default::default()).await.unwrap();

    let request = LeechRequest { overwrite: true, ..leech(&metainfo) };
    let added = served.client.leech(&request).await.unwrap();
    until(&served.daemon, added.info_hash, |torrent| torrent.state == State::Downloading).await;
    // Theirs is longer than the torrent's file.
    let len = || home.downloads().join("a.bin").metadata().map(|file| file.len());
    until_on_disk(|| len().is_ok_and(|len| len <= 40_000)).await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_the_disk_takes_for_one_belong_to_one_torrent() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let first = served.whole(&home, "a.bin").await;
    let second = home.made("A.bin", 40_000);
    // Other disks tell these names apart: nothing is wrong with both.
    let added = served.client.leech(&leech(&second)).await.unwrap();
    served.client.remove(added.info_hash, &Default::default()).await.unwrap();
    // A disk that does not shows one file at both names, as a link does here.
    let (a, b) = (home.downloads().join("a.bin"), home.downloads().join("A.bin"));
    // There may be an empty one of the download.
    let _ = std::fs::remove_file(&b);
    std::fs::hard_link(a, b).unwrap();
    let (status, error) = fault(served.client.leech(&leech(&second)).await);
    assert_eq!(status, 409, "{error}");
    assert!(error.contains("`a.bin`") && error.contains("`A.bin`"), "{error}");
    assert!(served.daemon.torrents().iter().map(|torrent| torrent.info_hash).eq([first]));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_overwrites_nothing() {
    let home = Home::new();
    let served = Served::with(&home, |config| config.token = Some(Secret::from("sesame"))).await;
    let metainfo = home.made("a.bin", 40_000);
    home.file("downloads/a.bin", &content(50_000, 7));
    let request = LeechRequest { overwrite: true, ..leech(&metainfo) };
    let (status, error) = fault(served.client.leech(&request).await);
    assert!(status == 401 && error.contains("owner's token"), "{status} {error}");
    assert!(served.daemon.torrents().is_empty());
    served.end().await;
}

/// Has the state refuse every change of a torrent's settings, or take them again.
fn break_state(path: &Path, broken: bool) {
    let state = rusqlite::Connection::open(path).unwrap();
    let sql = match broken {
        true => {
            "CREATE TRIGGER fault BEFORE UPDATE ON torrents WHEN NEW.settings <> OLD.settings \
             BEGIN SELECT RAISE(ABORT, 'a fault of the disk'); END"
        }
        false => "DROP TRIGGER fault",
    };
    state.execute_batch(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_500_means_that_nothing_was_done() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let mut hashes = Vec::new();
    for name in ["a.bin", "b.bin", "c.bin"] {
        hashes.push(served.whole(&home, name).await);
    }
    served.end().await;
    break_state(&home.state(), true);

    let served = Served::start(&home).await;
    let seeding = |torrent: &Torrent| torrent.state == State::Seeding;
    for hash in &hashes {
        until(&served.daemon, *hash, seeding).await;
    }
    let shown = |daemon: &Daemon| -> Vec<_> {
        let torrents = daemon.torrents();
        let told = |it: &Torrent| (it.info_hash, it.name.clone(), it.folder.clone(), it.state);
        torrents.iter().map(told).collect()
    };
    let before = shown(&served.daemon);
    let (client, last) = (&served.client, hashes[2]);
    let labelled = TorrentChange {
        labels: Some(vec!["new".to_owned()]),
        queue_position: Some(0),
        ..TorrentChange::default()
    };
    let elsewhere = MoveRequest { folder: home.downloads().join("there"), find: false };
    let answers = [
        fault(client.pause(last).await),
        fault(client.queue(&[last], QueueMove::Top).await),
        fault(client.queue(&[last], QueueMove::Up).await),
        fault(client.change(last, &labelled).await),
        fault(client.rename(last, &rename("c.bin", "d.bin")).await),
        fault(client.move_data(last, &elsewhere).await),
        fault(client.overwrite(last).await),
    ];
    for (status, error) in answers {
        assert!(status == 500 && error.contains("a fault of the disk"), "{status} {error}");
    }
    assert_eq!(shown(&served.daemon), before);
    assert!(client.detail(last).await.unwrap().torrent.settings.labels.is_empty());
    assert!(home.downloads().join("c.bin").exists() && !elsewhere.folder.exists());
    served.end().await;
    break_state(&home.state(), false);

    // Nor is it done after the next start, and then it can be.
    let served = Served::start(&home).await;
    for hash in &hashes {
        until(&served.daemon, *hash, seeding).await;
    }
    assert_eq!(shown(&served.daemon), before);
    served.client.queue(&[last], QueueMove::Top).await.unwrap();
    assert_eq!(served.daemon.torrents()[0].info_hash, last);
    served.client.change(last, &labelled).await.unwrap();
    served.client.rename(last, &rename("c.bin", "d.bin")).await.unwrap();
    assert!(home.downloads().join("d.bin").exists());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_whose_file_cannot_be_kept_is_not_added() {
    let home = Home::new();
    let served = Served::start(&home).await;
    // No folder can be written to as long as a file has its name.
    std::fs::remove_dir_all(home.torrents()).unwrap();
    std::fs::write(home.torrents(), b"in the way").unwrap();
    let metainfo = home.made("a.bin", 40_000);
    let (status, error) = fault(served.client.leech(&leech(&metainfo)).await);
    assert!(status == 500 && error.contains("cannot be kept"), "{status} {error}");
    assert!(served.daemon.torrents().is_empty());
    assert!(!home.downloads().join("a.bin").exists());
    std::fs::remove_file(home.torrents()).unwrap();
    std::fs::create_dir(home.torrents()).unwrap();
    let added = served.client.leech(&leech(&metainfo)).await.unwrap();
    until(&served.daemon, added.info_hash, |torrent| torrent.state == State::Downloading).await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_mount_point_is_not_filled_until_it_is_accepted() {
    let home = Home::new();
    let served = Served::start(&home).await;
    let metainfo = home.made("a.bin", 40_000);
    let paused = LeechRequest { paused: Some(true), ..leech(&metainfo) };
    let hash = served.client.leech(&paused).await.unwrap().info_hash;
    served.end().await;
    // As if a disk had been mounted at the downloads folder that is not there any more.
    {
        let state = rusqlite::Connection::open(home.state()).unwrap();
        let downloads = home.downloads().to_str().unwrap().to_owned();
        let changed = state.execute(
            "UPDATE facts SET value = json_set(value, '$.mounts', json_object(?1, ?1)) \
             WHERE name = 'settings'",
            [&downloads],
        );
        assert_eq!(changed.unwrap(), 1);
    }
    let files = || std::fs::read_dir(home.downloads()).unwrap().count();
    let failed = |torrent: &Torrent| torrent.state == State::Failed;
    for _ in 0..2 {
        let served = Served::start(&home).await;
        served.client.start(hash, false).await.unwrap();
        let stopped = within(until(&served.daemon, hash, failed)).await;
        let error = stopped.error.unwrap();
        let folder = format!("`{}`", home.downloads().display());
        assert!(error.contains(&folder) && error.contains("nothing is mounted"), "{error}");
        assert_eq!(files(), 0);
        served.client.pause(hash).await.unwrap();
        served.end().await;
    }
    let served = Served::start(&home).await;
    served.client.recheck(hash).await.unwrap();
    served.client.start(hash, false).await.unwrap();
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    until_on_disk(|| files() == 1).await;
    served.end().await;
    // It stays accepted.
    let served = Served::start(&home).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    served.end().await;
}
