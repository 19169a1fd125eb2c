//! A daemon that is served on both of its APIs, what of it may not change, and raw requests to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use piecework_api::State;
use piecework_control::Control;
use piecework_core::{InfoHash, base64};
use piecework_daemon::Daemon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use piecework_testkit::daemon::{Home, control_config, until, within};

/// A daemon, served, that shares `shared/a.bin` and has the paused torrent `left` of which nothing
/// is there.
pub(super) struct Served {
    pub home: Home,
    pub daemon: Daemon,
    pub control: Control,
    pub addr: SocketAddr,
    pub session_id: String,
    pub shared: InfoHash,
    pub left: InfoHash,
}

pub(super) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// All that may not change: torrents and settings as far as somebody chose them, and every file.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub torrents: Vec<Value>,
    pub settings: Value,
    pub disk: BTreeMap<String, String>,
}

/// A request of the native API or of Transmission's RPC that would change something.
pub(super) struct Change {
    pub method: &'static str,
    pub path: String,
    pub body: String,
}

pub(super) const JSON: &str = "Content-Type: application/json";
pub(super) const RPC: &str = "/transmission/rpc";

impl Served {
    pub(super) async fn start() -> Self {
        let home = Home::new();
        let daemon = home.start().await;
        let config = control_config();
        let control = Control::start(config, daemon.clone()).await.unwrap();
        let addr = control.addrs()[0];
        std::fs::create_dir_all(home.path("outside")).unwrap();
        let shared = daemon.seed(home.seed_request("a.bin", 40_000)).await.unwrap().info_hash;
        let mut left = home.new_torrent("left", 40_000);
        left.settings.paused = true;
        let left = daemon.add(left).await.unwrap().info_hash;
        until(&daemon, shared, |torrent| torrent.state == State::Seeding).await;
        until(&daemon, left, |torrent| torrent.state == State::Paused).await;
        let mut served =
            Self { home, daemon, control, addr, session_id: String::new(), shared, left };
        let refused = served.raw("POST", RPC, &[&served.host()], "").await;
        let id =
            refused.head.lines().find_map(|line| line.strip_prefix("x-transmission-session-id: "));
        served.session_id = id.unwrap().to_owned();
        served
    }

    pub(super) async fn end(self) {
        self.control.shutdown().await;
        self.daemon.shutdown().await;
    }

    pub(super) fn host(&self) -> String {
        format!("Host: {}", self.addr)
    }

    pub(super) fn id(&self) -> String {
        format!("X-Transmission-Session-Id: {}", self.session_id)
    }

    /// Sends a request whose headers are these and no others but its length.
    pub(super) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            text += &format!("{header}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // Who has seen enough of a request may close before all of it is written.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.write_all(body.as_bytes()).await;
        let mut all = Vec::new();
        // Unread parts of a request make the close a reset; what came before counts.
        let _ = within(stream.read_to_end(&mut all)).await;
        let text = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A native request as our own clients send it.
    pub(super) async fn native(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.raw(method, path, &[&self.host(), JSON], &body.to_string()).await
    }

    /// A request of Transmission's RPC as its clients send it: the result, or the error.
    pub(super) async fn rpc(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let answer = self.raw("POST", RPC, &[&self.host(), &self.id()], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{method}: {}", answer.body);
        let mut answer: Value = serde_json::from_str(&answer.body).unwrap();
        match answer.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(answer["result"].take()),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let shown = |torrent: piecework_api::Torrent| {
            json!([
                torrent.info_hash,
                torrent.name,
                torrent.folder,
                torrent.state,
                torrent.settings,
                torrent.queue_position,
                torrent.bytes_have,
            ])
        };
        let mut disk = BTreeMap::new();
        read_tree(&self.home.path(""), &mut disk);
        Snapshot {
            torrents: self.daemon.torrents().into_iter().map(shown).collect(),
            settings: serde_json::to_value(self.daemon.settings()).unwrap(),
            disk,
        }
    }

    /// Nothing is otherwise than it was, and nobody was told to end.
    pub(super) async fn is_as(&self, before: &Snapshot, why: &str) {
        assert_eq!(&self.snapshot(), before, "{why}");
        tokio::select! {
            biased;
            () = self.control.shutdown_asked() => panic!("{why}: it was told to end"),
            () = std::future::ready(()) => {}
        }
    }

    /// Everything that changes something, of both APIs.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut all = self.native_changes();
        all.extend(self.rpc_changes());
        all
    }

    pub(super) fn native_changes(&self) -> Vec<Change> {
        let one = |rest: &str| format!("/torrents/{}{rest}", self.left);
        let torrent = base64::encode(self.home.made("new", 30_000).bytes().unwrap().as_ref());
        let to_be_shared = self.home.seed_request("b.bin", 10_000).input;
        let all = [
            ("POST", "/seed".to_owned(), json!({"input": to_be_shared})),
            ("POST", "/leech".to_owned(), json!({"source": {"torrent": torrent}})),
            ("PATCH", one(""), json!({"labels": ["evil"], "upload_limit": 1})),
            ("DELETE", one("?delete_data=true"), json!({})),
            ("DELETE", format!("/torrents/{}", self.shared), json!({"delete_data": false})),
            ("POST", one("/peers"), json!({"peers": ["127.0.0.1:1"]})),
            ("POST", format!("/torrents/{}/pause", self.shared), json!({})),
            ("POST", one("/resume"), json!({})),
            ("POST", one("/start-now"), json!({})),
            ("POST", one("/overwrite"), json!({})),
            ("POST", one("/recheck"), json!({})),
            ("POST", one("/reannounce"), json!({})),
            ("POST", one("/move"), json!({"folder": "elsewhere", "find": true})),
            ("POST", one("/rename"), json!({"path": "left", "name": "evil"})),
            ("POST", one("/queue"), json!({"to": "top"})),
            ("POST", "/queue".to_owned(), json!({"torrents": [self.left], "to": "top"})),
            ("PATCH", "/settings".to_owned(), json!({"upload_limit": 1, "start_added": false})),
            ("POST", "/test".to_owned(), json!({})),
            ("POST", "/block-list/reload".to_owned(), json!({})),
            ("POST", "/shutdown".to_owned(), json!({})),
        ];
        all.into_iter()
            .map(|(method, path, body)| Change { method, path, body: body.to_string() })
            .collect()
    }

    pub(super) fn rpc_changes(&self) -> Vec<Change> {
        let torrent = base64::encode(self.home.made("new", 30_000).bytes().unwrap().as_ref());
        let ids = json!([self.left]);
        let elsewhere = self.home.downloads().join("elsewhere");
        let all = [
            ("torrent_add", json!({"metainfo": torrent})),
            ("torrent_set", json!({"ids": ids, "labels": ["evil"], "upload_limited": true})),
            ("torrent_remove", json!({"ids": ids, "delete_local_data": true})),
            ("torrent_start", json!({"ids": ids})),
            ("torrent_start_now", json!({"ids": ids})),
            ("torrent_stop", json!({})),
            ("torrent_verify", json!({"ids": ids})),
            ("torrent_reannounce", json!({"ids": ids})),
            ("torrent_set_location", json!({"ids": ids, "location": elsewhere, "move": true})),
            ("torrent_rename_path", json!({"ids": ids, "path": "left", "name": "evil"})),
            ("session_set", json!({"speed_limit_up": 1, "speed_limit_up_enabled": true})),
            ("queue_move_top", json!({"ids": ids})),
            ("group_set", json!({"name": "evil"})),
            ("session_close", json!({})),
        ];
        let mut changes = Vec::new();
        for (method, params) in all {
            let today = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
            let former = json!({"method": method.replace('_', "-"), "arguments": params});
            for body in [today, former] {
                let body = body.to_string();
                changes.push(Change { method: "POST", path: RPC.to_owned(), body });
            }
        }
        changes
    }
}

/// Every file, folder and link below `at`, but for the database, which notes times of its own.
pub(super) fn read_tree(at: &Path, into: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap().to_owned();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            into.insert(name, format!("to {}", std::fs::read_link(&path).unwrap().display()));
        } else if meta.is_dir() {
            into.insert(name, "folder".to_owned());
            read_tree(&path, into);
        } else if !name.contains("state.sqlite") {
            let sum = std::fs::read(&path)
                .unwrap()
                .iter()
                .fold(5_381_u64, |sum, byte| sum.wrapping_mul(33).wrapping_add(u64::from(*byte)));
            into.insert(name, format!("{} bytes, {sum:x}", meta.len()));
        }
    }
}

/// Names below `at`.
pub(super) fn names(at: &Path) -> Vec<String> {
    let mut tree = BTreeMap::new();
    read_tree(at, &mut tree);
    tree.into_keys().collect()
}
