//! What stops a torrent, passes by itself or not, and what becomes of its turn.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use piecework_api::{State, Torrent};
use piecework_core::InfoHash;
use piecework_daemon::{AddSource, Daemon};
use piecework_testkit::daemon::{Home, until, within};

/// A daemon that downloads from another one.
struct Pair {
    home: Home,
    daemon: Daemon,
    seeds: Home,
    seeder: Daemon,
}

impl Pair {
    async fn start(active_downloads: Option<u32>) -> Self {
        let (home, seeds) = (Home::new(), Home::new());
        let daemon = home
            .start_with(|config| {
                config.settings.active_downloads = active_downloads;
                config.settings.incomplete_suffix = ".part".to_owned();
            })
            .await;
        let seeder = seeds.start().await;
        Self { home, daemon, seeds, seeder }
    }

    /// Adds a torrent whose file another program has locked, and waits until it has stopped on that.
    async fn stopped(&self, name: &str) -> (InfoHash, File) {
        self.seeder.seed(self.seeds.seed_request(name, 40_000)).await.unwrap();
        let path = self.home.file(&format!("downloads/{name}.part"), b"");
        let file = File::options().write(true).open(path).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut new = self.seeds.torrent_of(&format!("shared/{name}"));
        new.source = AddSource::File(self.seeds.torrents().join(format!("{name}.torrent")));
        new.peers = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, self.seeder.peer_port()))];
        let hash = self.daemon.add(new).await.unwrap().info_hash;
        let failed = |it: &Torrent| it.state == State::Failed;
        let error = within(until(&self.daemon, hash, failed)).await.error.unwrap();
        assert!(error.contains("retried automatically"), "{error}");
        (hash, file)
    }

    async fn end(self) {
        self.daemon.shutdown().await;
        self.seeder.shutdown().await;
    }
}

fn runs(torrent: &Torrent) -> bool {
    matches!(torrent.state, State::Downloading | State::Seeding)
}

/// Goes on to when what a torrent has stopped on is tried again.
async fn wait_for_retry() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_torrent_gets_its_turn_again_when_a_fault_has_passed() {
    let pair = Pair::start(Some(1)).await;
    let (first, file) = pair.stopped("a.bin").await;
    // Another has its place meanwhile.
    let second = pair.daemon.add(pair.home.new_torrent("b.bin", 40_000)).await.unwrap();
    within(until(&pair.daemon, second.info_hash, runs)).await;
    drop(file);
    wait_for_retry().await;
    within(until(&pair.daemon, first, runs)).await;
    pair.end().await;
}

#[tokio::test]
async fn a_torrent_that_is_paused_after_it_failed_goes_on_when_it_is_started_and_not_before() {
    let pair = Pair::start(None).await;
    let (paused, its_file) = pair.stopped("a.bin").await;
    let (other, file) = pair.stopped("b.bin").await;
    pair.daemon.pause(paused).await.unwrap();
    assert!(pair.daemon.shown(paused).unwrap().settings.paused);
    drop((its_file, file));
    wait_for_retry().await;
    // Both are tried again at the same time.
    within(until(&pair.daemon, other, runs)).await;
    assert!(!runs(&pair.daemon.shown(paused).unwrap()));
    pair.daemon.start_torrent(paused, false).await.unwrap();
    within(until(&pair.daemon, paused, runs)).await;
    pair.end().await;
}
