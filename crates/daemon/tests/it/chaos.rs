//! Many changes at once, in any order: whatever is asked of torrents while they download, nothing
//! hangs, and in the end all is there, also after a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use piecework_api::{
    MoveRequest, RemoveRequest, RenameRequest, SeedRequest, State, Torrent, TorrentChange,
    TorrentSettings,
};
use piecework_core::{InfoHash, Rng};
use piecework_daemon::{AddSource, Daemon, DaemonError, NewTorrent};
use piecework_testkit::daemon::{Home, content, until, within};

const TORRENTS: u64 = 4;
const STEPS: usize = 30;
const LEN: usize = 300_000;

fn files(n: u64) -> [Vec<u8>; 2] {
    [content(LEN, 2 * n), content(LEN, 2 * n + 1)]
}

fn new(shared: &Home, seeder: &Daemon, n: u64) -> NewTorrent {
    NewTorrent {
        source: AddSource::File(shared.torrents().join(format!("set{n}.torrent"))),
        folder: None,
        settings: TorrentSettings::default(),
        only_files: None,
        trackers: Vec::new(),
        peers: vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))],
        rename: None,
        overwrite: false,
    }
}

/// Refusals are fair: what is asked may make no sense by now. All else is not.
fn fair<T>(result: Result<T, DaemonError>) {
    match result {
        Ok(_)
        | Err(DaemonError::Conflict(_) | DaemonError::NotFound(_) | DaemonError::Unknown(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn step(home: &Home, daemon: &Daemon, hash: InfoHash, new: &NewTorrent, rng: &mut Rng) {
    let folder = home.downloads().join(["", "one", "two"][rng.below(3) as usize]);
    let name = ["x", "y", "z"][rng.below(3) as usize].to_owned();
    match rng.below(10) {
        0 => fair(daemon.pause(hash).await),
        1 | 2 => fair(daemon.start_torrent(hash, rng.below(2) == 0).await),
        3 => fair(daemon.recheck(hash).await),
        4 | 5 => fair(daemon.move_data(hash, MoveRequest { folder, find: false }).await),
        6 => {
            let Some(torrent) = daemon.torrent(hash) else { return };
            let path = match rng.below(2) {
                0 => torrent.name,
                _ => daemon
                    .detail(hash)
                    .await
                    .map_or(name.clone(), |it| it.file_list[1].path.clone()),
            };
            fair(daemon.rename(hash, RenameRequest { path, name }).await);
        }
        7 | 8 => {
            let only_files = Some(["1", "2", "all"][rng.below(3) as usize].to_owned());
            fair(
                daemon.change(hash, TorrentChange { only_files, ..TorrentChange::default() }).await,
            );
        }
        _ => {
            let delete_data = rng.below(2) == 0;
            fair(
                daemon
                    .remove(hash, RemoveRequest { delete_data, ..RemoveRequest::default() })
                    .await,
            );
            fair(daemon.add(new.clone()).await);
        }
    }
}

fn whole(torrent: &Torrent) -> bool {
    torrent.state == State::Seeding && torrent.bytes_have == 2 * LEN as u64
}

async fn is_whole(daemon: &Daemon, hash: InfoHash, n: u64) {
    until(daemon, hash, whole).await;
    let detail = daemon.detail(hash).await.unwrap();
    for (file, bytes) in detail.file_list.iter().zip(files(n)) {
        let path = detail.torrent.folder.join(&file.path);
        assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
}

async fn chaos(seed: u64) {
    let (shared, home) = (Home::new(), Arc::new(Home::new()));
    let seeder = shared.start().await;
    for n in 0..TORRENTS {
        for (name, bytes) in ["a", "sub/b"].iter().zip(files(n)) {
            shared.file(&format!("shared/set{n}/{name}"), &bytes);
        }
        let input = shared.path(&format!("shared/set{n}"));
        let request = SeedRequest { input, piece_length: Some(16_384), ..SeedRequest::default() };
        seeder.seed(request).await.unwrap();
    }
    let suffixed = |config: &mut piecework_daemon::DaemonConfig| {
        config.settings.incomplete_suffix = ".part".to_owned();
        config.settings.download_limit = Some(1 << 20);
        config.settings.active_downloads = Some(2);
    };
    let daemon = home.start_with(suffixed).await;
    let mut hashes = Vec::new();
    let mut tasks = Vec::new();
    for n in 0..TORRENTS {
        let new = new(&shared, &seeder, n);
        let hash = daemon.add(new.clone()).await.unwrap().info_hash;
        hashes.push(hash);
        // Two at a time ask for things.
        for half in 0..2 {
            let (home, daemon, new) = (Arc::clone(&home), daemon.clone(), new.clone());
            tasks.push(tokio::spawn(async move {
                let mut rng = Rng::from_seed(seed * 100 + n * 2 + half);
                for _ in 0..STEPS {
                    within(step(&home, &daemon, hash, &new, &mut rng)).await;
                    let pause = std::time::Duration::from_millis(rng.below(40));
                    tokio::time::sleep(pause).await;
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    for (hash, n) in hashes.iter().copied().zip(0..) {
        fair(daemon.add(new(&shared, &seeder, n)).await);
        until(&daemon, hash, |it| it.state != State::Moving).await;
        let all = TorrentChange { only_files: Some("all".to_owned()), ..TorrentChange::default() };
        daemon.change(hash, all).await.unwrap();
        daemon.start_torrent(hash, true).await.unwrap();
        let peers = vec![SocketAddr::from(([127, 0, 0, 1], seeder.peer_port()))];
        daemon.add_peers(hash, peers).await.unwrap();
    }
    for (hash, n) in hashes.iter().copied().zip(0..) {
        is_whole(&daemon, hash, n).await;
    }
    within(daemon.shutdown()).await;
    within(seeder.shutdown()).await;
    let daemon = home.start_with(suffixed).await;
    for (hash, n) in hashes.into_iter().zip(0..) {
        is_whole(&daemon, hash, n).await;
    }
    within(daemon.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_in_the_middle_of_downloads_all_is_there_in_the_end() {
    for seed in 0..std::env::var("CHAOS_RUNS").map_or(1, |runs| runs.parse().unwrap()) {
        chaos(seed).await;
    }
}
