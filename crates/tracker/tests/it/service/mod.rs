//! The tracker over real sockets, tested at the level of bytes.

mod abuse;
mod catalogue;
mod clients;
mod https;
mod logs;
mod restart;
mod workers;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use piecework_core::bencode;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, PeerId};
use piecework_proto::announce::udp::{Family, Request, Response};
use piecework_proto::announce::{Announce, AnnounceEvent, AnnounceReply, ScrapeEntry};
use piecework_tracker::{
    Clock, ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer, TrackerStartError,
};
use serde_json::{Value, json};

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
        let request = Request::Announce {
            connection_id: self.id,
            transaction: 7,
            announce,
            url_data: Default::default(),
        };
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
    // A seed with leechers, or over HTTP, gets the usual interval; a lone seed over UDP a short one.
    let interval = |hash, port| udp.announce(said(hash, port, 0)).interval.as_secs();
    assert_eq!((interval(hash(1), 1004), interval(hash(2), 1004)), (120, 15));
    assert_eq!(interval(hash(2), 1005), 15, "two seeds have nobody to give to either");
    assert_eq!(tracker.announce_http(hash(2), 1006, 0, "").int("interval"), Some(120));
    // Seeds do not get seeds, no peer gets itself, and a peer that stops is gone.
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
    assert!(text.contains("5:peersld2:ip9:127.0.0.17:peer id20:-TR3000-"), "{text}");
    assert!(text.contains("4:porti1001eee"), "{text}");
    assert_eq!(listed.bytes("external ip"), Some(vec![127, 0, 0, 1]));
    let few = tracker.announce_http(hash(1), 1003, 9, "&numwant=1");
    assert_eq!(few.peers(), [local(1001)]);
    let path =
        format!("/scrape?info_hash={}&info_hash={}", escaped(&hash(1).0), escaped(&hash(2).0));
    let scraped = tracker.get(&path);
    let scan = bencode::scan(&scraped.body, &bencode::Limits::default()).unwrap();
    let files = scan.root().get(b"files").unwrap();
    let unknown = files.get(&hash(2).0).unwrap();
    for key in [&b"complete"[..], b"downloaded", b"incomplete"] {
        assert_eq!(unknown.get(key).unwrap().as_int(), Some(0), "not known is nobody");
    }
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
        // Cannot be tested on a machine without IPv6.
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
fn holdings_of_many_torrents_are_reported_in_one_request_and_each_is_answered() {
    let tracker = Tracker::start();
    let torrents: Vec<_> = (0..4).map(|n| torrent(&format!("file {n}"), 8)).collect();
    let key = "0123456789abcdef0123456789abcdef";
    for torrent in &torrents[..3] {
        tracker.register(torrent, "");
    }
    for torrent in &torrents[..2] {
        tracker.announce_http(torrent.info_hash(), 1001, 9, &format!("&key={key}"));
    }
    let query = format!("/holdings?peer_id={}&port=1001", escaped(&peer_id(1001).0));
    let report = |n: usize, key: &str, have: Value| json!({"info_hash": torrents[n].info_hash(), "key": key, "have": have});
    let post = |reports: Value| {
        let body = json!({ "torrents": reports }).to_string();
        let http = tracker.http("POST", &query, body.as_bytes());
        (http.status, serde_json::from_slice::<Value>(&http.body).unwrap())
    };
    let (status, answer) = post(json!([
        report(0, key, json!("all")),
        report(1, key, json!({"bits": "8A=="})),
        // Not announced, and not in the catalogue.
        report(2, key, json!("none")),
        report(3, key, json!("all")),
        report(0, "00000001", json!("none")),
        report(1, key, json!({"bits": "8A8A"})),
        report(1, key, json!({"bits": "?"})),
    ]));
    assert_eq!(status, 200);
    let of = |field: &str| -> Vec<Value> {
        answer["torrents"].as_array().unwrap().iter().map(|one| one[field].clone()).collect()
    };
    assert_eq!(of("status"), [204, 204, 409, 404, 403, 400, 400]);
    assert_eq!(of("info_hash")[3], json!(torrents[3].info_hash()));
    assert!(of("error")[2].as_str().unwrap().contains("has announced this torrent"));
    let row = |n: usize| {
        let map = tracker.json(&format!("/torrents/{}/map", torrents[n].info_hash()));
        (map["peers"][0]["have"].clone(), map["peers"][0]["source"].clone())
    };
    assert_eq!(row(0), (json!("all"), json!("reported")));
    assert_eq!(row(1), (json!({"bits": "8A=="}), json!("reported")));
    // A batch that is refused as a whole changes nothing.
    let many = json!((0..501).map(|_| report(1, key, json!("none"))).collect::<Vec<_>>());
    assert_eq!(post(many).0, 413);
    assert_eq!(post(json!([{"info_hash": "x"}])).0, 400);
    assert_eq!(tracker.http("POST", &query, &vec![b' '; 300_000]).status, 413);
    assert_eq!(tracker.http("POST", "/holdings?port=1", b"{}").status, 400);
    assert_eq!(row(1), (json!({"bits": "8A=="}), json!("reported")));
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
    // Not handed out from that moment on, even before it is removed.
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
        // Lets this test send requests as if from other addresses.
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
