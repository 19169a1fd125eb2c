//! Helpers that the tests of the daemon share: homes for daemons, and waiting for their events.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use piecework_api::{Event, SeedRequest, Settings, Torrent, TorrentSettings};
use piecework_control::ControlConfig;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, Rng};
use piecework_daemon::{AddSource, Daemon, DaemonConfig, Listener, NewTorrent};
use piecework_engine::SessionConfig;
use piecework_journal::{Journal, JournalOptions};
use piecework_storage::{CreateOptions, create};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A test that waits longer than this has failed. Nothing in a passing test depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the configuration of a control server on a free port, without the port of Transmission's RPC.
pub fn control_config() -> ControlConfig {
    ControlConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        rpc_listen: None,
        ..ControlConfig::default()
    }
}

/// A folder with the files of a daemon.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
}

impl Home {
    pub fn new() -> Self {
        Self::default()
    }

    pub async fn start(&self) -> Daemon {
        self.start_with(|_| {}).await
    }

    pub async fn start_with(&self, change: impl FnOnce(&mut DaemonConfig)) -> Daemon {
        std::fs::create_dir_all(self.downloads()).unwrap();
        let mut config = DaemonConfig {
            session: SessionConfig {
                listen: vec!["127.0.0.1:0".parse().unwrap()],
                hash_threads: 2,
                ..SessionConfig::default()
            },
            settings: Settings {
                downloads: self.downloads(),
                incomplete_suffix: String::new(),
                ..Settings::default()
            },
            torrents: self.torrents(),
            state: self.state(),
            tracker: None,
            download_roots: Vec::new(),
            seed_roots: Vec::new(),
            block_list: None,
            log_records: 1_000,
            journal: Some(JournalOptions {
                path: self.path("journal.sqlite"),
                age: Journal::DEFAULT_AGE,
                size: Journal::DEFAULT_SIZE,
                program: "test".to_owned(),
            }),
        };
        change(&mut config);
        Daemon::start(config).await.unwrap()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn downloads(&self) -> PathBuf {
        self.path("downloads")
    }

    pub fn torrents(&self) -> PathBuf {
        self.path("torrents")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state.sqlite")
    }

    /// Writes a file and returns its path.
    pub fn file(&self, below: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a shell script with these lines and returns its path.
    pub fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.file(name, format!("#!/bin/sh\n{lines}\n").as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Returns a request to share a new file outside the downloads.
    pub fn seed_request(&self, name: &str, len: usize) -> SeedRequest {
        let seed = name.bytes().map(u64::from).sum();
        let input = self.file(&format!("shared/{name}"), &content(len, seed));
        SeedRequest { input, ..SeedRequest::default() }
    }

    /// Creates a torrent of a new file where no daemon looks for it.
    pub fn made(&self, name: &str, len: usize) -> Metainfo {
        let seed = name.bytes().map(u64::from).sum();
        made(&self.file(&format!("made/{name}"), &content(len, seed)))
    }

    /// Creates such a torrent, ready to be added.
    pub fn new_torrent(&self, name: &str, len: usize) -> NewTorrent {
        new_torrent(&self.made(name, len))
    }

    /// Creates the torrent of existing content, ready to be added.
    pub fn torrent_of(&self, below: &str) -> NewTorrent {
        new_torrent(&made(&self.path(below)))
    }

    /// Creates the `n`th of many torrents of which nothing is there.
    pub fn tiny(&self, n: u32) -> NewTorrent {
        let builder = MetainfoBuilder::single_file(format!("tiny {n}"), 100);
        new_torrent(&builder.build(vec![7; 20]).unwrap())
    }
}

fn made(path: &Path) -> Metainfo {
    let options = CreateOptions { piece_len: Some(16_384), ..CreateOptions::default() };
    create(path, options, 2, |_| {}, &AtomicBool::new(false)).unwrap().metainfo
}

/// Returns a torrent to be added as it is, into the downloads.
pub fn new_torrent(metainfo: &Metainfo) -> NewTorrent {
    NewTorrent {
        source: AddSource::Bytes(metainfo.bytes().unwrap().as_ref().to_vec()),
        folder: None,
        settings: TorrentSettings::default(),
        only_files: None,
        trackers: Vec::new(),
        peers: Vec::new(),
        rename: None,
        overwrite: false,
    }
}

/// Returns `len` incompressible bytes, the same ones for the same seed.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Waits for `future`, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the test waited in vain")
}

/// A client of a daemon's HTTP API.
pub struct ControlClient {
    addr: SocketAddr,
    session_id: String,
}

impl ControlClient {
    /// Creates a client with the session id that Transmission's RPC requires.
    pub async fn new(addr: SocketAddr) -> Self {
        let mut asker = Self { addr, session_id: String::new() };
        let mut head = Vec::new();
        asker.ask("GET", "/transmission/rpc", "", "", |part| head.extend_from_slice(part)).await;
        let head = String::from_utf8(head).unwrap();
        let id = head.split("x-transmission-session-id: ").nth(1).unwrap();
        asker.session_id = id.split("\r\n").next().unwrap().to_owned();
        asker
    }

    /// Sends a request and passes on each part of the answer. Returns the number of bytes.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
        mut each: impl FnMut(&[u8]),
    ) -> usize {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nX-Transmission-Session-Id: {}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}",
            self.session_id
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut bytes, mut part) = (0, vec![0; 16 * 1024]);
        loop {
            let read = within(stream.read(&mut part)).await.unwrap();
            if read == 0 {
                return bytes;
            }
            bytes += read;
            each(&part[..read]);
        }
    }
}

/// Returns a request for all fields of every torrent over the RPC.
pub fn all_fields(more: &str) -> String {
    let names = "activityDate addedDate bandwidthPriority comment corruptEver creator dateCreated \
                 doneDate downloadDir downloadedEver downloadLimit error errorString eta fileCount \
                 group hashString haveValid id isFinished isPrivate labels leftUntilDone magnetLink \
                 maxConnectedPeers name peers peersFrom percentDone pieceCount pieceSize \
                 queuePosition rateDownload rateUpload seedIdleLimit seedRatioLimit sizeWhenDone \
                 startDate status torrentFile totalSize trackers trackerList trackerStats \
                 uploadedEver uploadRatio webseeds files fileStats priorities wanted pieces \
                 primary-mime-type availability desiredAvailable bytesCompleted";
    let fields: Vec<&str> = names.split_whitespace().collect();
    serde_json::json!({"method": "torrent-get", "arguments": {"fields": fields}})
        .to_string()
        .replace("\"arguments\":{", &format!("\"arguments\":{{{more}"))
}

/// Waits until `wanted` returns true for an event, and returns it.
pub async fn until_event(listener: &mut Listener, wanted: impl Fn(&Event) -> bool) -> Event {
    within(async {
        loop {
            let event = listener.next().await.expect("the daemon ended");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// Waits until `wanted` returns true for the torrent, and returns it.
pub async fn until(
    daemon: &Daemon,
    info_hash: InfoHash,
    wanted: impl Fn(&Torrent) -> bool,
) -> Torrent {
    let mut listener = daemon.listen();
    let search = async {
        loop {
            match listener.next().await.expect("the daemon ended") {
                Event::Torrent(torrent) if torrent.info_hash == info_hash && wanted(&torrent) => {
                    return *torrent;
                }
                _ => {}
            }
        }
    };
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(torrent) => torrent,
        Err(_) => panic!("the test waited in vain: {:?}", daemon.torrent(info_hash)),
    }
}
