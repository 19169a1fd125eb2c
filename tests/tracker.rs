//! The tracker over real sockets, asked by clients that know only bytes.

#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use piecework::announce::udp::{Family, Request, Response};
use piecework::announce::{Announce, AnnounceEvent, AnnounceReply, ScrapeEntry};
use piecework::base::{InfoHash, PeerId};
use piecework::bencode;
use piecework::metainfo::{Metainfo, MetainfoBuilder};
use piecework::tracker::{
    Clock, ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer, TrackerStartError,
};
use serde_json::Value;

/// A test that waits longer than this has failed; nothing in a passing test depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Tracker {
    runtime: tokio::runtime::Runtime,
    handle: Option<TrackerHandle>,
    clock: Clock,
    addr: SocketAddr,
}

impl Tracker {
    fn start() -> Self {
        Self::with(TrackerConfig::in_memory())
    }

    fn with(config: TrackerConfig) -> Self {
        Self::try_with(config).unwrap()
    }

    fn try_with(config: TrackerConfig) -> Result<Self, TrackerStartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let clock = Clock::manual();
        let handle = runtime.block_on(TrackerServer::start_with_clock(config, clock.clone()))?;
        let addr = handle.local_addr();
        Ok(Self { runtime, handle: Some(handle), clock, addr })
    }

    fn handle(&self) -> &TrackerHandle {
        self.handle.as_ref().unwrap()
    }

    fn stop(mut self) {
        self.runtime.block_on(self.handle.take().unwrap().shutdown());
    }

    fn console(&self, line: &str) -> String {
        match self.handle().console(line) {
            ConsoleReply::Text(text) => text,
            ConsoleReply::Quit => panic!("`{line}` ends the tracker"),
        }
    }

    fn http(&self, method: &str, path: &str, body: &[u8]) -> Http {
        self.http_with(method, path, "", body)
    }

    fn http_with(&self, method: &str, path: &str, header: &str, body: &[u8]) -> Http {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A tracker that has seen enough of a body may close before all of it is written.
        let _ = stream.write_all(body);
        Http::read(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> Http {
        self.http("GET", path, b"")
    }

    fn json(&self, path: &str) -> Value {
        let http = self.get(path);
        assert_eq!(http.status, 200, "{path}: {}", http.text());
        serde_json::from_slice(&http.body).unwrap()
    }

    fn announce_http(&self, hash: InfoHash, port: u16, left: u64, more: &str) -> Http {
        let path = format!(
            "/announce?info_hash={}&peer_id={}&port={port}&uploaded=0&downloaded=0\
             &left={left}{more}",
            escaped(&hash.0),
            escaped(&peer_id(port).0),
        );
        self.get(&path)
    }

    fn register(&self, torrent: &Metainfo, query: &str) -> Value {
        let http =
            self.http("POST", &format!("/torrents{query}"), torrent.bytes().unwrap().as_ref());
        assert_eq!(http.status, 201, "{}", http.text());
        serde_json::from_slice(&http.body).unwrap()
    }

    fn udp(&self) -> Udp {
        Udp::new(self.addr)
    }

    /// Waits until `wanted` peers are left.
    fn until_peers(&self, wanted: u64) {
        let start = Instant::now();
        while self.json("/stats")["peers"] != wanted {
            assert!(start.elapsed() < PATIENCE, "{}", self.console("stats"));
        }
    }
}

/// The parts of a body that came in chunks (RFC 9112, section 7.1).
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let len = usize::from_str_radix(size, 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[(end + 4 + len).min(body.len())..];
    }
    whole
}

struct Http {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Http {
    fn read(stream: &mut TcpStream) -> Self {
        let mut all = Vec::new();
        // Unread parts of a request make the close a reset; what came before counts.
        let _ = stream.read_to_end(&mut all);
        let end = all.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&all)));
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = &all[end + 4..];
        Self { status, body: if is_chunked { unchunked(body) } else { body.to_vec() }, head }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn error(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        value["error"].as_str().unwrap().to_owned()
    }

    /// The bytes at a key of a bencoded answer.
    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        let scan = bencode::scan(&self.body, &bencode::Limits::default()).unwrap();
        scan.root().get(key.as_bytes()).and_then(|node| node.as_bytes()).map(<[u8]>::to_vec)
    }

    fn int(&self, key: &str) -> Option<i64> {
        let scan = bencode::scan(&self.body, &bencode::Limits::default()).unwrap();
        scan.root().get(key.as_bytes()).and_then(|node| node.as_int())
    }

    fn failure(&self) -> String {
        String::from_utf8(self.bytes("failure reason").expect("a failure")).unwrap()
    }

    fn peers(&self) -> Vec<SocketAddr> {
        let v4 = self.bytes("peers").unwrap_or_default();
        let v6 = self.bytes("peers6").unwrap_or_default();
        let of =
            |ip: IpAddr, port: &[u8]| SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]));
        let v4 =
            v4.chunks_exact(6).map(|p| of(<[u8; 4]>::try_from(&p[..4]).unwrap().into(), &p[4..]));
        let v6 = v6
            .chunks_exact(18)
            .map(|p| of(<[u8; 16]>::try_from(&p[..16]).unwrap().into(), &p[16..]));
        let mut peers: Vec<_> = v4.chain(v6).collect();
        peers.sort_unstable();
        peers
    }
}

struct Udp {
    socket: UdpSocket,
    family: Family,
    id: u64,
}

impl Udp {
    fn new(tracker: SocketAddr) -> Self {
        let local: SocketAddr =
            if tracker.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(tracker).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut udp = Self { socket, family: Family::of(tracker.ip()), id: 0 };
        match udp.ask(&Request::Connect { transaction: 1 }) {
            Response::Connect { connection_id, .. } => udp.id = connection_id,
            other => panic!("{other:?}"),
        }
        udp
    }

    fn ask(&self, request: &Request) -> Response {
        let mut datagram = Vec::new();
        request.encode(&mut datagram);
        let (response, _) = self.ask_raw(&datagram);
        assert_eq!(response.transaction(), request.transaction());
        response
    }

    fn ask_raw(&self, datagram: &[u8]) -> (Response, usize) {
        self.socket.send(datagram).unwrap();
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).unwrap();
        (Response::decode(&buffer[..len], self.family).unwrap(), len)
    }

    fn announce(&self, announce: Announce) -> AnnounceReply {
        let request = Request::Announce { connection_id: self.id, transaction: 7, announce };
        match self.ask(&request) {
            Response::Announce { reply, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    fn scrape(&self, hashes: Vec<InfoHash>) -> Vec<ScrapeEntry> {
        match self.ask(&Request::Scrape { connection_id: self.id, transaction: 8, hashes }) {
            Response::Scrape { entries, .. } => entries,
            other => panic!("{other:?}"),
        }
    }
}

fn hash(n: u8) -> InfoHash {
    InfoHash([n; 20])
}

fn peer_id(port: u16) -> PeerId {
    let mut id = *b"-TR3000-000000000000";
    id[18..].copy_from_slice(&port.to_be_bytes());
    PeerId(id)
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn said(hash: InfoHash, port: u16, left: u64) -> Announce {
    Announce::new(hash, peer_id(port), port, left)
}

fn torrent(name: &str, pieces: u32) -> Metainfo {
    MetainfoBuilder::single_file(name, u64::from(pieces) << 14)
        .piece_len(1 << 14)
        .build(vec![7; 20 * pieces as usize])
        .unwrap()
}

fn on_disk(dir: &Path) -> TrackerConfig {
    TrackerConfig {
        torrents: Some(dir.join("torrents")),
        state: Some(dir.join("torrents/tracker.sqlite")),
        ..TrackerConfig::in_memory()
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn browsers_get_the_page_and_programs_what_they_always_got() {
    let tracker = Tracker::start();
    let front = tracker.http("GET", "/", b"");
    assert!(String::from_utf8_lossy(&front.body).starts_with("Piecework tracker "));
    let led = tracker.http_with("GET", "/", "Accept: text/html\r\n", b"");
    assert_eq!(led.status, 303);
    let page = tracker.http("GET", "/ui/", b"");
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with(b"<!doctype html>"));
    assert_eq!(tracker.http("POST", "/ui/", b"").status, 405);
    assert_eq!(tracker.http("GET", "/ui/nothing", b"").status, 404);
    tracker.stop();
}

#[test]
fn http_and_udp_announces_see_each_other() {
    let tracker = Tracker::start();
    let seed = tracker.announce_http(hash(1), 1001, 0, "&event=started");
    assert_eq!(seed.status, 200);
    assert!(seed.head.to_lowercase().contains("content-type: text/plain"));
    assert_eq!(seed.peers(), []);
    let udp = tracker.udp();
    let reply = udp.announce(said(hash(1), 1002, 9));
    assert_eq!(reply.peers, [local(1001)]);
    assert_eq!((reply.complete, reply.incomplete), (1, 1));
    assert_eq!(reply.interval, Duration::from_secs(120));
    let third = tracker.announce_http(hash(1), 1003, 9, "");
    assert_eq!(third.peers(), [local(1001), local(1002)]);
    assert_eq!(third.int("interval"), Some(120));
    // Seeds are not given seeds, nobody is given itself, and who stops is gone.
    assert_eq!(tracker.announce_http(hash(1), 1001, 0, "").peers(), [local(1002), local(1003)]);
    let mut stopped = said(hash(1), 1002, 9);
    stopped.event = AnnounceEvent::Stopped;
    assert_eq!(udp.announce(stopped).peers, []);
    assert_eq!(tracker.announce_http(hash(1), 1001, 0, "").peers(), [local(1003)]);
    tracker.stop();
}

#[test]
fn answers_have_the_forms_of_beps_7_23_24_and_48() {
    let tracker = Tracker::start();
    tracker.announce_http(hash(1), 1001, 0, "&event=completed");
    let listed = tracker.announce_http(hash(1), 1002, 9, "&compact=0");
    let text = listed.text();
    assert!(text.contains("5:peersld2:ip9:127.0.0.14:porti1001eee"), "{text}");
    assert_eq!(listed.bytes("external ip"), Some(vec![127, 0, 0, 1]));
    let few = tracker.announce_http(hash(1), 1003, 9, "&numwant=1");
    assert_eq!(few.peers(), [local(1001)]);
    let path =
        format!("/scrape?info_hash={}&info_hash={}", escaped(&hash(1).0), escaped(&hash(2).0));
    let scraped = tracker.get(&path);
    let scan = bencode::scan(&scraped.body, &bencode::Limits::default()).unwrap();
    let files = scan.root().get(b"files").unwrap();
    assert!(files.get(&hash(2).0).is_none());
    let counts = files.get(&hash(1).0).unwrap();
    let count = |key: &[u8]| counts.get(key).unwrap().as_int().unwrap();
    assert_eq!((count(b"complete"), count(b"downloaded"), count(b"incomplete")), (1, 1, 2));
    let counts = tracker.udp().scrape(vec![hash(2), hash(1)]);
    let known = ScrapeEntry { complete: 1, downloaded: 1, incomplete: 2 };
    assert_eq!(counts, [ScrapeEntry::default(), known]);
    tracker.stop();
}

#[test]
fn ipv6_peers_are_served_over_http_and_udp() {
    let config = TrackerConfig { listen: "[::1]:0".parse().unwrap(), ..TrackerConfig::in_memory() };
    let tracker = match Tracker::try_with(config) {
        Ok(tracker) => tracker,
        // A machine without IPv6 has nothing to show here.
        Err(TrackerStartError::Listen { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    tracker.announce_http(hash(1), 1001, 0, "");
    let first: SocketAddr = "[::1]:1001".parse().unwrap();
    assert_eq!(tracker.udp().announce(said(hash(1), 1002, 9)).peers, [first]);
    let http = tracker.announce_http(hash(1), 1003, 9, "");
    assert_eq!(http.bytes("peers6").unwrap().len(), 36);
    assert_eq!(http.bytes("peers"), Some(Vec::new()));
    tracker.stop();
}

#[test]
fn the_catalogue_lists_gives_and_removes() {
    let tracker = Tracker::start();
    let (a, secret) = (torrent("a", 3), torrent("secret", 3));
    let registered = tracker.register(&a, "?name=The+File&description=of%20mine");
    assert_eq!(registered["name"], "The File");
    assert_eq!(registered["info_hash"], a.info_hash().to_string());
    let again = tracker.http("POST", "/torrents", a.bytes().unwrap().as_ref());
    assert_eq!(again.status, 200);
    let again: Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!((&again["name"], &again["token"]), (&"The File".into(), &Value::Null));
    tracker.register(&secret, "?unlisted=1");
    let private =
        MetainfoBuilder::single_file("private", 1).private(true).build(vec![1; 20]).unwrap();
    tracker.register(&private, "");

    let list = tracker.json("/torrents");
    let listed = list["torrents"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "unlisted and private torrents are not listed: {list}");
    assert_eq!(listed[0]["description"], "of mine");
    assert_eq!((&listed[0]["pieces"], &listed[0]["size"]), (&3.into(), &(3 << 14).into()));
    assert_eq!(tracker.json("/torrents?name=The%20File")["torrents"].as_array().unwrap().len(), 1);
    assert_eq!(tracker.json("/torrents?name=secret")["torrents"].as_array().unwrap().len(), 0);
    for known in [&a, &secret, &private] {
        let got = tracker.get(&format!("/torrents/{}", known.info_hash()));
        assert_eq!(got.body, *known.bytes().unwrap().as_ref());
        assert!(got.head.to_lowercase().contains("application/x-bittorrent"));
    }
    assert_eq!(tracker.get(&format!("/torrents/{}", hash(9))).status, 404);
    // What is unlisted shows in no log that is open to all.
    tracker.announce_http(secret.info_hash(), 1001, 0, "");
    let logs = tracker.get("/logs/requests").text() + &tracker.get("/logs/files").text();
    assert!(!logs.contains("secret") && !logs.contains(&secret.info_hash().to_string()));
    assert!(logs.contains("The File"));
    assert_eq!(tracker.get("/logs/files/secret").status, 404);
    assert_eq!(tracker.get(&format!("/logs/files/{}", secret.info_hash())).status, 200);
    assert!(tracker.console("file_logs -all").contains("secret"), "the operator sees all");
    tracker.stop();
}

#[test]
fn an_unlisted_torrent_stays_out_of_public_logs_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (open, secret) = (torrent("open", 3), torrent("secret", 3));
    let hash = secret.info_hash();
    let config = || TrackerConfig {
        open: true,
        journal: Some(dir.path().join("torrents/journal.sqlite")),
        ..on_disk(dir.path())
    };
    let is_told = |tracker: &Tracker| {
        let logs = tracker.get("/logs/requests").text();
        assert!(logs.contains(&open.info_hash().to_string()), "others are told: {logs}");
        logs.contains("secret") || logs.contains(&hash.to_string())
    };
    let tracker = Tracker::with(config());
    tracker.register(&open, "");
    // Before anybody can know that it is to be unlisted.
    tracker.announce_http(hash, 1001, 0, "");
    assert!(is_told(&tracker));
    let token = tracker.register(&secret, "?unlisted=1")["token"].as_str().unwrap().to_owned();
    tracker.announce_http(hash, 1001, 0, "");
    let mut stream = tracker.connect();
    stream.write_all(b"GET /events?requests=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut events = String::new();
    let mut read_until = |end: &str| {
        while !events.contains(end) {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "it ended: {events}");
            events.push_str(&String::from_utf8_lossy(&some[..read]));
        }
        events.contains("secret") || events.contains(&hash.to_string())
    };
    assert!(!read_until("event: ready"));
    let path = format!("/torrents/{hash}");
    let header = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(tracker.http_with("DELETE", &path, &header, b"").status, 204);
    assert_eq!(tracker.get(&path).status, 404);
    tracker.announce_http(hash, 1002, 0, "");
    assert!(!is_told(&tracker), "removed");
    tracker.announce_http(open.info_hash(), 1003, 0, "");
    assert!(!read_until(":1003"), "the stream does not tell of it");
    let console = tracker.console("request logs");
    assert!(console.contains("secret") && console.contains("; unlisted"), "{console}");
    tracker.stop();

    let tracker = Tracker::with(config());
    assert!(tracker.handle().notices().is_empty(), "{:?}", tracker.handle().notices());
    assert!(!is_told(&tracker), "after a restart");
    tracker.announce_http(hash, 1002, 0, "");
    assert!(!is_told(&tracker), "announced after a restart");
    let console = tracker.console("request logs");
    assert!(console.contains("secret"), "the operator sees all: {console}");
    // Registered for all to see, it is like any other from then on.
    let before = tracker.get("/logs/requests").text().matches("\"peer\"").count();
    tracker.register(&secret, "");
    tracker.announce_http(hash, 1004, 0, "");
    let after = tracker.get("/logs/requests").text();
    assert!(is_told(&tracker) && after.contains(":1004") && !after.contains(":1002"), "{after}");
    assert!(after.matches("\"peer\"").count() > before);
    tracker.stop();
}

#[test]
fn pages_of_other_sites_can_neither_register_nor_read() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    let hash = a.info_hash();
    let b = torrent("b", 4);
    let b = b.bytes().unwrap();
    let ask = |method: &str, path: &str, header: &str, body: &[u8]| {
        let http = tracker.http_with(method, path, header, body);
        (http.status, http)
    };
    let foreign = [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://127.0.0.1:1\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
    ];
    let paths = [
        format!("/torrents/{hash}/map"),
        format!("/torrents/{hash}"),
        format!("/torrents/{hash}/events"),
        "/torrents".to_owned(),
        "/events".to_owned(),
        "/logs/requests".to_owned(),
        "/stats".to_owned(),
        "/metrics".to_owned(),
        "/ui/".to_owned(),
        "/nothing".to_owned(),
    ];
    for header in foreign {
        assert_eq!(ask("POST", "/torrents", header, b.as_ref()).0, 403, "{header}");
        assert_eq!(ask("DELETE", &paths[1], header, b"").0, 403);
        for path in &paths {
            let (status, http) = ask("GET", path, header, b"");
            assert_eq!(status, 403, "{path} {header}");
            assert!(!http.head.to_lowercase().contains("access-control"), "{}", http.head);
        }
    }
    // A name of the attacker's that leads to this machine.
    for path in &paths {
        let mut stream = tracker.connect();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(Http::read(&mut stream).status, 421, "{path}");
    }
    let linked =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(ask("GET", "/ui/", linked, b"").0, 200);
    let ours = "Origin: http://127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n";
    assert_eq!(ask("POST", "/torrents", ours, b.as_ref()).0, 201);
    assert_eq!(ask("GET", &paths[0], ours, b"").0, 200);
    // Clients announce by whatever name is in the torrent.
    let mut stream = tracker.connect();
    let (info_hash, id) = (escaped(&hash.0), escaped(&peer_id(1).0));
    let head = format!(
        "GET /announce?info_hash={info_hash}&peer_id={id}&port=1&left=0 HTTP/1.1\r\n\
         Host: tracker.example\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Http::read(&mut stream).status, 200);
    tracker.stop();
}

#[test]
fn removing_needs_the_token() {
    let tracker = Tracker::start();
    let a = torrent("a", 3);
    let token = tracker.register(&a, "")["token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 32);
    let path = format!("/torrents/{}", a.info_hash());
    for header in [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", "0".repeat(32)),
        format!("Authorization: Basic {token}\r\n"),
    ] {
        assert_eq!(tracker.http_with("DELETE", &path, &header, b"").status, 403);
    }
    let header = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(tracker.http_with("DELETE", &path, &header, b"").status, 204);
    assert_eq!(tracker.http_with("DELETE", &path, &header, b"").status, 404);
    assert_eq!(tracker.get(&path).status, 404);
    let log = tracker.console("request logs");
    assert!(log.contains("remove") && log.contains("; the token"), "{log}");
    tracker.stop();
}

#[test]
fn the_operator_removes_any_torrent_over_http_and_at_the_console() {
    let dir = tempfile::tempdir().unwrap();
    let config = on_disk(dir.path());
    let tracker = Tracker::with(config.clone());
    let file = dir.path().join("torrents/tracker-operator.token");
    let token = std::fs::read_to_string(&file).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let operator = format!("Authorization: Bearer {}\r\n", token.trim());
    let remove = |what: &str, header: &str| {
        tracker.http_with("DELETE", &format!("/torrents/{what}"), header, b"").status
    };
    let names = ["a", "b", "c c", "same"];
    let torrents: Vec<Metainfo> = names.iter().map(|name| torrent(name, 4)).collect();
    for torrent in &torrents {
        tracker.register(torrent, "");
    }
    tracker.register(&torrent("other", 5), "?name=same");
    let hash_of = |at: usize| torrents[at].info_hash().to_string();
    assert_eq!(remove(&hash_of(0), "Authorization: Bearer 0123456789abcdef\r\n"), 403);
    assert_eq!(remove(&hash_of(0), &operator), 204);
    assert_eq!(remove("b", "Authorization: Bearer 0123456789abcdef\r\n"), 400);
    assert_eq!(remove("b", &operator), 204);
    assert_eq!((remove("b", &operator), remove("same", &operator)), (404, 409));
    // One that is not in the catalogue.
    tracker.announce_http(hash(7), 1001, 0, "");
    assert_eq!(remove(&hash(7).to_string(), ""), 404);
    assert_eq!(remove(&hash(7).to_string(), &operator), 204);
    assert_eq!(remove(&hash(7).to_string(), &operator), 404);
    let several = tracker.console("remove same");
    assert!(several.contains(&hash_of(3)) && several.contains("say which"), "{several}");
    assert!(tracker.console(&format!("remove {}", hash_of(3))).starts_with("removed `same`"));
    assert!(tracker.console("remove c c").starts_with("removed `c c`"));
    assert!(tracker.console("remove c c").contains("is known to this tracker"));
    tracker.announce_http(hash(7), 1001, 0, "");
    let removed = tracker.console(&format!("remove {}", hash(7)));
    assert!(removed.contains("was not in the catalogue"), "{removed}");
    let left = tracker.json("/torrents");
    assert_eq!(left["torrents"].as_array().unwrap().len(), 1);
    tracker.stop();
    // It is the same after a restart, and others must not be able to read it.
    let tracker = Tracker::with(config.clone());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    assert_eq!(tracker.json("/torrents")["torrents"].as_array().unwrap().len(), 1);
    tracker.stop();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, open).unwrap();
    let tracker = Tracker::with(config);
    assert!(
        tracker.handle().notices()[0].contains("chmod 600"),
        "{:?}",
        tracker.handle().notices()
    );
    assert_eq!(tracker.http_with("DELETE", "/torrents/same", &operator, b"").status, 400);
    tracker.stop();
}

#[test]
fn whoever_fills_the_catalogue_makes_way_and_the_rest_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrackerConfig { max_catalogue: 10, ..on_disk(dir.path()) };
    let tracker = Tracker::with(config.clone());
    let live = torrent("live", 4);
    tracker.register(&live, "");
    tracker.announce_http(live.info_hash(), 1001, 0, "");
    let junk: Vec<Metainfo> = (0..9).map(|n| torrent(&format!("junk {n}"), 4)).collect();
    for junk in &junk {
        tracker.register(junk, "");
    }
    let new = torrent("new", 4);
    let bytes = new.bytes().unwrap();
    let start = Instant::now();
    // Who registers a torrent has ten seconds to announce it.
    loop {
        let http = tracker.http("POST", "/torrents", bytes.as_ref());
        if http.status == 201 {
            break;
        }
        assert_eq!((http.status, http.error()), (503, "the catalogue is full".to_owned()));
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    tracker.stop();
    let tracker = Tracker::with(config);
    let listed = tracker.json("/torrents");
    let mut names: Vec<&str> = listed["torrents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    names.retain(|name| !name.starts_with("junk"));
    assert_eq!((names, listed["torrents"].as_array().unwrap().len()), (vec!["live", "new"], 10));
    tracker.stop();
}

#[test]
fn the_map_of_a_peer_is_not_changed_by_who_announces_its_port() {
    let tracker = Tracker::start();
    let a = torrent("a", 8);
    let hash = a.info_hash();
    tracker.register(&a, "");
    let key = "0123456789abcdef0123456789abcdef";
    tracker.announce_http(hash, 1001, 9, &format!("&key={key}"));
    let report = |key: &str, bits: u8| {
        let id = escaped(&peer_id(1001).0);
        let path = format!("/torrents/{hash}/holdings?peer_id={id}&port=1001&key={key}");
        tracker.http("POST", &path, &[bits]).status
    };
    assert_eq!(report(key, 0xf0), 204);
    let map = || tracker.json(&format!("/torrents/{hash}/map"))["peers"].clone();
    let before = map();
    for more in ["&key=00000001", "", "&key=00000001&event=started", "&event=stopped"] {
        assert_eq!(tracker.announce_http(hash, 1001, 0, more).status, 200);
        tracker.udp().announce(Announce { key: Some(5.into()), ..said(hash, 1001, 0) });
    }
    let guesses: Vec<u16> = (0..100).map(|key| report(&format!("{key:08x}"), 0xff)).collect();
    assert_eq!((guesses[0], guesses[99]), (403, 429));
    assert_eq!(map(), before);
    assert_eq!(report(&key.replace('f', "e"), 0xff), 403);
    assert_eq!(report(key, 0xfe), 204, "guesses of others do not keep it out");
    assert_eq!(map()[0]["held"], 7);
    tracker.stop();
}

#[test]
fn catalogue_tokens_downloads_and_load_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let a = torrent("a", 3);
    let tracker = Tracker::with(on_disk(dir.path()));
    let token = tracker.register(&a, "?name=b/../c&description=d&unlisted=1")["token"].clone();
    tracker.announce_http(a.info_hash(), 1001, 0, "&event=completed");
    for port in 1002..1007 {
        tracker.announce_http(a.info_hash(), port, 9, "");
    }
    let load = tracker.console("load");
    tracker.stop();
    assert!(dir.path().join("torrents/b_.._c.torrent").exists());

    let tracker = Tracker::with(on_disk(dir.path()));
    assert!(tracker.handle().notices().is_empty());
    let shown = tracker.console("file_logs b/../c");
    assert!(shown.contains("1 download\n") && shown.contains("unlisted"), "{shown}");
    assert_eq!(tracker.console("load"), load.replace("here", "gone"));
    tracker.announce_http(a.info_hash(), 1001, 0, "");
    let again = tracker.console("load");
    assert!(again.lines().any(|line| line.contains(":1001") && line.contains("  5")), "{again}");
    let header = format!("Authorization: Bearer {}\r\n", token.as_str().unwrap());
    let path = format!("/torrents/{}", a.info_hash());
    assert_eq!(tracker.http_with("DELETE", &path, &header, b"").status, 204);
    tracker.stop();

    let tracker = Tracker::with(on_disk(dir.path()));
    assert_eq!(tracker.get(&path).status, 404);
    assert_eq!(tracker.console("load").lines().count(), 1);
    tracker.stop();
}

#[test]
fn a_bad_torrent_or_a_damaged_database_loses_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("torrents");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("dropped.torrent"), torrent("dropped", 2).bytes().unwrap().as_ref())
        .unwrap();
    std::fs::write(folder.join("bad.torrent"), b"d4:infode").unwrap();
    std::fs::write(folder.join("tracker.sqlite"), [b'x'; 5000]).unwrap();
    let tracker = Tracker::with(on_disk(dir.path()));
    let notices = tracker.handle().notices();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].contains("tracker.sqlite` was damaged"));
    assert!(notices[1].starts_with("`bad.torrent` is left out"));
    assert_eq!(tracker.json("/torrents")["torrents"][0]["name"], "dropped");
    tracker.stop();
    let tracker = Tracker::with(on_disk(dir.path()));
    assert_eq!(tracker.handle().notices().len(), 1, "the new database is whole");
    tracker.stop();
}

#[test]
fn holdings_show_in_file_logs_with_where_they_are_known_from() {
    let tracker = Tracker::start();
    let a = torrent("My File.iso", 60);
    tracker.register(&a, "");
    let path = |port: u16, key: u32| {
        let id = escaped(&peer_id(port).0);
        format!("/torrents/{}/holdings?peer_id={id}&port={port}&key={key:08x}", a.info_hash())
    };
    let mut bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0b1100_0000, 0, 0b0100_0000];
    assert_eq!(tracker.http("POST", &path(1001, 5), &bits).status, 409);
    tracker.announce_http(a.info_hash(), 1001, 9, "&key=5");
    tracker.announce_http(a.info_hash(), 1002, 0, "");
    tracker.announce_http(a.info_hash(), 1003, 3 << 14, "");
    assert_eq!(tracker.http("POST", &path(1001, 6), &bits).status, 403);
    assert_eq!(tracker.http("POST", &path(1001, 5), &bits[1..]).status, 400);
    assert_eq!(tracker.http("POST", &path(1001, 5), &[0; 9]).status, 413);
    assert_eq!(tracker.http("POST", &path(1001, 5), &bits).status, 204);
    let shown = tracker.console("file_logs My File.iso");
    let line = |port: &str| shown.lines().find(|line| line.contains(port)).unwrap().to_owned();
    let fields = |port| line(port).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(fields(":1001")[1..], ["Transmission", "3.00", "0-41,57", "71", "%", "reported"]);
    assert_eq!(fields(":1002")[3..], ["0-59", "100", "%", "announced"]);
    assert_eq!(fields(":1003")[3..], ["unknown", "95", "%", "only", "how", "much"]);
    assert!(shown.lines().all(|line| line.chars().count() <= 100));
    assert_eq!(shown, tracker.console(">file_logs>My File.iso"));
    assert_eq!(shown, tracker.console(&format!("file_logs {}", a.info_hash())));
    let files = tracker.json("/logs/files/My%20File.iso");
    let peers = &files["files"][0]["peers"];
    assert_eq!(peers[0]["source"], "announced");
    assert_eq!((&peers[1]["pieces"], &peers[1]["held"]), (&"0-41,57".into(), &43.into()));
    assert_eq!(peers[2]["pieces"], Value::Null);
    bits[7] = 1;
    assert_eq!(tracker.http("POST", &path(1001, 5), &bits).status, 400, "spare bits");
    tracker.stop();
}

#[test]
fn an_unknown_file_gets_its_sentence() {
    let tracker = Tracker::start();
    let sentence = "no file named `no such file` is known to this tracker";
    assert_eq!(tracker.console("file_logs no such file"), sentence);
    assert_eq!(tracker.console("file_logs>no such file"), sentence);
    let http = tracker.get("/logs/files/no%20such%20file");
    assert_eq!((http.status, http.error().as_str()), (404, sentence));
    tracker.stop();
}

#[test]
fn the_console_shows_every_request_with_who_had_the_file() {
    let tracker = Tracker::start();
    let a = torrent("data.bin", 4);
    tracker.register(&a, "");
    tracker.announce_http(a.info_hash(), 1001, 0, "&event=started");
    tracker.udp().announce(said(a.info_hash(), 1002, 9));
    tracker.get(&format!("/torrents/{}", a.info_hash()));
    tracker.get("/announce?info_hash=short");
    tracker.get("/torrents?name=no%1bne");
    tracker.get("/torrents?name=data.bin");
    let log = tracker.console("request logs");
    assert_eq!(log, tracker.console("> request all logs"));
    for wanted in [
        "register",
        "started",
        "announce",
        "fetch",
        "data.bin",
        "had by 127.0.0.1:1001",
        "Transmission 3.00",
        "udp",
        "lookup",
        "no\\x1bne",
        "no file of that name is known",
        "6 requests shown",
    ] {
        assert!(log.contains(wanted), "{wanted} is not in\n{log}");
    }
    assert!(log.contains("failed"), "{log}");
    assert!(log.lines().all(|line| line.chars().count() <= 100), "{log}");
    let requests = tracker.json("/logs/requests?limit=4");
    let requests = requests["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0]["peers"][0]["peer"], "127.0.0.1:1001");
    assert_eq!(requests[0]["peers"][0]["complete"], true);
    assert_eq!((&requests[0]["via"], &requests[0]["ok"]), (&"udp".into(), &true.into()));
    assert_eq!(requests[2]["ok"], false);
    assert_eq!((&requests[3]["event"], &requests[3]["ok"]), (&"lookup".into(), &false.into()));
    for command in ["peers", "load", "stats", "help", "file_logs -all"] {
        assert!(tracker.console(command).lines().all(|line| line.chars().count() <= 100));
    }
    assert!(tracker.console("peers").contains("data.bin"));
    assert_eq!(tracker.handle().console("quit"), ConsoleReply::Quit);
    tracker.stop();
}

/// Announces random torrents, and one of the catalogue from other ports, as fast as it can.
fn flood(tracker: SocketAddr, catalogued: InfoHash, count: u64) {
    let udp = Udp::new(tracker);
    for number in 0..count {
        let mut random = [0; 20];
        random[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let port = 10_000 + (number % 50_000) as u16;
        udp.announce(said(InfoHash(random), port, 1));
        if number % 4 == 0 {
            udp.announce(said(catalogued, port, 1));
        }
    }
}

#[test]
fn a_flood_of_announces_hides_no_announce_of_others_from_log_and_journal() {
    let dir = tempfile::tempdir().unwrap();
    let tracker = Tracker::with(TrackerConfig {
        log_records: 1_000,
        journal: Some("tracker-journal.sqlite".into()),
        ..on_disk(dir.path())
    });
    let a = torrent("a", 4);
    tracker.register(&a, "");
    let (addr, catalogued) = (tracker.addr, a.info_hash());
    assert_eq!(tracker.get(&format!("/torrents/{catalogued}")).status, 200);
    let flood = std::thread::spawn(move || flood(addr, catalogued, 10_000));
    let honest: Vec<u16> = (1..=40).collect();
    for port in &honest {
        // 127.0.0.2 is another address than the flood's.
        let local: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let (hash, id) = (escaped(&catalogued.0), escaped(&peer_id(*port).0));
        let head = format!(
            "GET /announce?info_hash={hash}&peer_id={id}&port={port}&left=0&event=started \
             HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(Http::read(&mut stream).status, 200);
    }
    flood.join().unwrap();
    let logged = tracker.json("/logs/requests?limit=1000");
    let ports = |wanted: &str| -> Vec<u16> {
        let requests = logged["requests"].as_array().unwrap().iter();
        let peers = requests.filter_map(|request| request["peer"].as_str()?.parse().ok());
        let from = wanted.parse::<IpAddr>().unwrap();
        peers.filter(|peer: &SocketAddr| peer.ip() == from).map(|peer| peer.port()).collect()
    };
    assert_eq!(ports("127.0.0.2"), honest);
    assert!(ports("127.0.0.1").len() <= 960);
    // Those of the flood's own address, from before it began.
    let events = |wanted: &str| {
        let requests = logged["requests"].as_array().unwrap();
        requests.iter().filter(|request| request["event"] == wanted).count()
    };
    assert_eq!((events("register"), events("fetch")), (1, 1));
    assert!(logged["dropped"].as_u64().unwrap() > 10_000);
    tracker.stop();
    let journal =
        rusqlite::Connection::open(dir.path().join("torrents/tracker-journal.sqlite")).unwrap();
    let count = |what: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM requests WHERE {what}");
        journal.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("peer LIKE '127.0.0.2:%' AND name = 'a'"), 40);
    assert_eq!(count("event = 'register'"), 1);
}

#[test]
fn a_name_with_control_characters_is_escaped_in_every_console_output() {
    let tracker = Tracker::start();
    let a = torrent("plain", 4);
    tracker.register(&a, "?name=a%1b%5b31m%0ab&description=x%07y");
    let mut id = *b"\x1b[2J\x07\x08\r\n123456789012";
    id[19] = 0x9b;
    let query = format!(
        "/announce?info_hash={}&peer_id={}&port=1001&left=0",
        escaped(&a.info_hash().0),
        escaped(&id)
    );
    tracker.get(&query);
    tracker.announce_http(a.info_hash(), 1002, 9, "");
    tracker.get("/announce?info_hash=%1b%5b31m&peer_id=%07");
    tracker.get("/logs/files/%1b%5b31m");
    for command in [
        "request logs",
        "file_logs -all",
        "file_logs a\x1b[31m",
        "peers",
        "load",
        "stats",
        "\x1b[31m",
        "file_logs a\x1b[31m\nb",
    ] {
        let shown = tracker.console(command);
        let bad = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "in the answer to {command:?}: {shown:?}");
    }
    assert!(tracker.console("peers").contains("a\\x1b[31m\\x0ab"));
    assert!(tracker.console("file_logs -all").contains("x\\x07y"));
    tracker.stop();
}

#[test]
fn forged_and_old_connection_ids_are_refused() {
    let tracker = Tracker::start();
    let mut udp = tracker.udp();
    let good = udp.id;
    for forged in [0, 1, good ^ 1 << 40, !good] {
        let announce = said(hash(1), 1001, 0);
        let request = Request::Announce { connection_id: forged, transaction: 3, announce };
        let mut datagram = Vec::new();
        request.encode(&mut datagram);
        let (response, len) = udp.ask_raw(&datagram);
        assert!(matches!(response, Response::Error { .. }), "{response:?}");
        assert!(len <= datagram.len(), "nothing is amplified");
        let request =
            Request::Scrape { connection_id: forged, transaction: 3, hashes: vec![hash(1)] };
        let mut datagram = Vec::new();
        request.encode(&mut datagram);
        let (response, len) = udp.ask_raw(&datagram);
        assert!(matches!(response, Response::Error { .. }), "{response:?}");
        assert!(len <= datagram.len(), "nothing is amplified");
    }
    assert_eq!(tracker.json("/stats")["torrents"], 0, "nothing is kept");
    assert_eq!(tracker.json("/stats")["udp_rejected"], 8);
    tracker.clock.advance(Duration::from_secs(120));
    udp.announce(said(hash(1), 1001, 0));
    tracker.clock.advance(Duration::from_secs(120));
    let announce = said(hash(1), 1001, 0);
    let late = Request::Announce { connection_id: udp.id, transaction: 3, announce };
    assert!(matches!(udp.ask(&late), Response::Error { .. }));
    udp.id = match udp.ask(&Request::Connect { transaction: 4 }) {
        Response::Connect { connection_id, .. } => connection_id,
        other => panic!("{other:?}"),
    };
    udp.announce(said(hash(1), 1001, 0));
    tracker.stop();
}

#[test]
fn datagrams_that_are_no_requests_get_nothing_and_harm_nothing() {
    let tracker = Tracker::start();
    let udp = tracker.udp();
    for len in [0, 1, 15, 16, 17, 97, 98, 2047, 2048, 2049, 9000] {
        udp.socket.send(&vec![0xa5; len]).unwrap();
        udp.socket.send(&vec![0; len]).unwrap();
    }
    // Answers come in order: had there been one, it would come first.
    assert_eq!(udp.announce(said(hash(1), 1001, 0)).complete, 1);
    // With a valid id the sender learns what is wrong.
    let mut bad = Vec::new();
    let announce = said(hash(1), 1001, 0);
    Request::Announce { connection_id: udp.id, transaction: 5, announce }.encode(&mut bad);
    let port = bad.len() - 2;
    bad[port..].fill(0);
    let (response, _) = udp.ask_raw(&bad);
    assert!(matches!(response, Response::Error { transaction: 5, .. }), "{response:?}");
    tracker.stop();
}

#[test]
fn silent_peers_expire_and_announcing_ones_stay() {
    let tracker = Tracker::start();
    tracker.announce_http(hash(1), 1001, 0, "");
    tracker.announce_http(hash(1), 1002, 0, "");
    tracker.clock.advance(Duration::from_secs(150));
    tracker.announce_http(hash(1), 1002, 0, "");
    tracker.clock.advance(Duration::from_secs(31));
    // Not given out from that moment on, whenever it is swept.
    assert_eq!(tracker.announce_http(hash(1), 1003, 9, "").peers(), [local(1002)]);
    tracker.until_peers(2);
    assert_eq!(tracker.json("/stats")["expired"], 1);
    tracker.stop();
}

#[test]
fn a_thousand_peers_on_one_torrent_and_ten_thousand_torrents_all_expire() {
    let tracker = Tracker::start();
    let udp = tracker.udp();
    for port in 1..=1_000 {
        let reply = udp.announce(said(hash(1), port, u64::from(port % 2)));
        assert_eq!(reply.complete + reply.incomplete, u32::from(port));
        assert!(reply.peers.len() <= 50);
    }
    for n in 0..10_000u32 {
        let mut announce = said(hash(2), 6881, 1);
        announce.info_hash.0[..4].copy_from_slice(&n.to_be_bytes());
        announce.num_want = Some(200);
        assert_eq!(udp.announce(announce).incomplete, 1);
    }
    let mut most = said(hash(1), 1, 1);
    most.num_want = Some(10_000);
    assert_eq!(udp.announce(most).peers.len(), 200, "what fits one packet");
    tracker.until_peers(11_000);
    tracker.clock.advance(Duration::from_secs(100));
    assert_eq!(tracker.announce_http(hash(1), 2_000, 0, "").int("complete"), Some(501));
    tracker.clock.advance(Duration::from_secs(100));
    tracker.until_peers(1);
    assert_eq!(tracker.json("/stats")["torrents"], 1);
    assert_eq!(tracker.announce_http(hash(1), 2_001, 1, "").peers(), [local(2_000)]);
    tracker.stop();
}

#[test]
fn load_is_balanced_over_the_seeds_and_counted() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    for port in 1001..=1004 {
        tracker.announce_http(a.info_hash(), port, 0, "");
    }
    for port in 2001..=2020 {
        let http = tracker.announce_http(a.info_hash(), port, 9, "&numwant=1");
        assert!((1001..=1004).contains(&http.peers()[0].port()));
    }
    let files = tracker.json("/logs/files/a");
    let given = files["files"][0]["peers"].as_array().unwrap().iter();
    let given: Vec<_> = given.map(|peer| peer["assigned"].as_u64().unwrap()).collect();
    assert_eq!(given[..4], [5, 5, 5, 5]);
    tracker.stop();
}

#[test]
fn the_ip_parameter_counts_only_where_it_is_trusted() {
    for trusted in [false, true] {
        let config = TrackerConfig { trust_ip_parameter: trusted, ..TrackerConfig::in_memory() };
        let tracker = Tracker::with(config);
        tracker.announce_http(hash(1), 1001, 0, "&ip=10.9.8.7");
        let told: SocketAddr = "10.9.8.7:1001".parse().unwrap();
        let expected = if trusted { told } else { local(1001) };
        assert_eq!(tracker.announce_http(hash(1), 1002, 9, "").peers(), [expected]);
        tracker.stop();
    }
}

#[test]
fn peers_on_loopback_are_given_to_others_by_an_address_that_reaches_them() {
    let config = TrackerConfig {
        // Lets this test ask as if from elsewhere.
        trust_ip_parameter: true,
        external_ip: Some([10, 1, 1, 1].into()),
        ..TrackerConfig::in_memory()
    };
    let tracker = Tracker::with(config);
    tracker.announce_http(hash(1), 1001, 0, "");
    tracker.announce_http(hash(1), 1002, 0, "");
    tracker.announce_http(hash(1), 1002, 0, "&ip=10.1.1.1");
    let given = tracker.announce_http(hash(1), 1003, 9, "&ip=10.9.8.7").peers();
    let at = |port: u16| SocketAddr::from(([10, 1, 1, 1], port));
    assert_eq!(given, [at(1001), at(1002)], "each once");
    let given = tracker.announce_http(hash(1), 1001, 9, "&ip=10.1.1.1").peers();
    let other: SocketAddr = "10.9.8.7:1003".parse().unwrap();
    assert_eq!(given, [at(1002), other], "not itself");
    assert!(tracker.announce_http(hash(1), 1004, 9, "").peers().contains(&local(1001)));
    tracker.stop();
}

#[test]
fn a_closed_tracker_serves_only_its_catalogue() {
    let tracker = Tracker::with(TrackerConfig { open: false, ..TrackerConfig::in_memory() });
    let a = torrent("a", 4);
    assert!(tracker.announce_http(a.info_hash(), 1001, 0, "").failure().contains("catalogue"));
    let udp = tracker.udp();
    let announce = said(a.info_hash(), 1002, 9);
    let request = Request::Announce { connection_id: udp.id, transaction: 3, announce };
    assert!(matches!(udp.ask(&request), Response::Error { .. }));
    tracker.register(&a, "");
    assert_eq!(tracker.announce_http(a.info_hash(), 1001, 0, "").int("complete"), Some(1));
    tracker.stop();
}

#[test]
fn http_client_that_sends_one_header_byte_a_second_is_cut_off() {
    let config =
        TrackerConfig { header_timeout: Duration::from_millis(200), ..TrackerConfig::in_memory() };
    let tracker = Tracker::with(config);
    let mut slow = tracker.connect();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    let closed = loop {
        assert!(start.elapsed() < PATIENCE, "it was not cut off");
        // One byte of an endless header at a time, until the other end is closed.
        if slow.write_all(b"x").is_err() {
            break true;
        }
        let mut answer = [0; 512];
        match slow.read(&mut answer) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break true,
        }
    };
    assert!(closed);
    let mut idle = tracker.connect();
    assert!(matches!(idle.read(&mut [0; 512]), Ok(0) | Err(_)), "and so is one that says nothing");
    assert_eq!(tracker.get("/stats").status, 200);
    tracker.stop();
}

#[test]
fn a_body_that_never_comes_whole_is_given_up() {
    let config =
        TrackerConfig { request_timeout: Duration::from_millis(200), ..TrackerConfig::in_memory() };
    let tracker = Tracker::with(config);
    let mut slow = tracker.connect();
    let head = "POST /torrents HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nd4:info";
    slow.write_all(head.as_bytes()).unwrap();
    assert_eq!(Http::read(&mut slow).status, 408);
    tracker.stop();
}

#[test]
fn over_long_bodies_and_heads_are_refused() {
    let tracker = Tracker::start();
    let too_long = vec![b'l'; 10 * 1024 * 1024 + 1];
    let http = tracker.http("POST", "/torrents", &too_long);
    assert_eq!(http.status, 413);
    assert!(http.error().contains("10485760"));
    let deep = tracker.http("POST", "/torrents", &too_long[1..]);
    assert_eq!(deep.status, 400, "ten million `l` are read in bounded memory and refused");
    let mut endless = tracker.connect();
    let head = format!("GET /stats HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9_000));
    endless.write_all(head.as_bytes()).unwrap();
    assert_eq!(Http::read(&mut endless).status, 431);
    let mut many = tracker.connect();
    let head = format!("GET /stats HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    many.write_all(head.as_bytes()).unwrap();
    assert_eq!(Http::read(&mut many).status, 431);
    assert_eq!(tracker.get("/stats").status, 200);
    tracker.stop();
}

#[test]
fn bad_queries_get_a_failure_that_names_the_key() {
    let tracker = Tracker::start();
    let good = format!("info_hash={}&peer_id={}", escaped(&[1; 20]), escaped(&[2; 20]));
    for (query, wanted) in [
        (String::new(), "info_hash"),
        ("info_hash=abc".to_owned(), "info_hash"),
        (format!("{good}&left=0"), "port"),
        (format!("{good}&port=0&left=0"), "port"),
        (format!("{good}&port=70000&left=0"), "port"),
        (format!("{good}&port=1&left=-1"), "left"),
        (format!("{good}&port=1&left=0&port=2"), "port"),
        (format!("{good}&port=1&left=0&event=exploded"), "event"),
        (format!("{good}&port=1&left=0&numwant=many"), "numwant"),
    ] {
        let http = tracker.get(&format!("/announce?{query}"));
        assert_eq!(http.status, 200, "{query}");
        assert!(http.failure().contains(wanted), "{query}: {}", http.failure());
    }
    assert!(tracker.get("/scrape").failure().contains("name some"));
    assert!(tracker.get("/scrape?info_hash=x").failure().contains("info_hash"));
    assert_eq!(tracker.get("/torrents/xyz").status, 400);
    assert!(tracker.get("/logs/files/%ff").error().contains("UTF-8"));
    assert_eq!(tracker.get("/nothing").status, 404);
    assert_eq!(tracker.http("PUT", "/torrents", b"").status, 405);
    assert_eq!(tracker.http("POST", "/torrents", b"junk").status, 400);
    assert_eq!(tracker.http("POST", "/torrents?name=a&name=b", b"").status, 400);
    let long = format!("/torrents?name={}", "x".repeat(300));
    assert_eq!(tracker.http("POST", &long, b"").status, 400);
    assert_eq!(tracker.get("/logs/requests?limit=all").status, 400);
    assert_eq!(tracker.json("/stats")["torrents"], 0);
    tracker.stop();
}

#[test]
fn connections_are_bounded_and_come_free_again() {
    let config = TrackerConfig { max_connections: 4, ..TrackerConfig::in_memory() };
    let tracker = Tracker::with(config);
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let len = stream.read(&mut answer).unwrap();
        assert!(answer[..len].starts_with(b"HTTP/1.1 200"));
    };
    let (mut a, mut b) = (tracker.connect(), tracker.connect());
    ask(&mut a);
    ask(&mut b);
    // Of four, one user of this machine may have two.
    let mut third = tracker.connect();
    let refused = third.read(&mut [0; 512]);
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    // Kept alive, the others serve on.
    ask(&mut a);
    drop(a);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE);
        let mut next = tracker.connect();
        let sent = next.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        if sent.is_ok() && matches!(next.read(&mut [0; 512]), Ok(len) if len > 0) {
            break;
        }
    }
    tracker.stop();
}

#[test]
fn two_trackers_cannot_have_one_address_and_the_second_touches_nothing() {
    let first = Tracker::start();
    let dir = tempfile::tempdir().unwrap();
    let config = TrackerConfig { listen: first.addr, ..on_disk(dir.path()) };
    let error = Tracker::try_with(config).err().unwrap();
    assert!(error.to_string().starts_with(&format!("`{}` cannot be listened on", first.addr)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    first.stop();
}

#[test]
fn a_tracker_ends_while_clients_are_connected() {
    let tracker = Tracker::start();
    let mut idle = tracker.connect();
    tracker.announce_http(hash(1), 1001, 0, "");
    tracker.stop();
    assert!(matches!(idle.read(&mut [0; 16]), Ok(0) | Err(_)));
}
