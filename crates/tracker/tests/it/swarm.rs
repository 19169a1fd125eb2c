//! Who holds what, asked of a tracker over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, PeerId};
use piecework_tracker::{Clock, ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer};
use serde_json::{Value, json};

/// A test that waits longer than this has failed; nothing in a passing test depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

struct Tracker {
    runtime: tokio::runtime::Runtime,
    handle: TrackerHandle,
    clock: Clock,
    addr: SocketAddr,
}

impl Tracker {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let clock = Clock::manual();
        let started = TrackerServer::start_with_clock(TrackerConfig::in_memory(), clock.clone());
        let handle = runtime.block_on(started).unwrap();
        let addr = handle.local_addr();
        Self { runtime, handle, clock, addr }
    }

    fn stop(self) {
        self.runtime.block_on(self.handle.shutdown());
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect(method, path, body);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, all[end + 4..].to_vec())
    }

    fn connect(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, b"");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    fn refused(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path, b"");
        let value: Value = serde_json::from_slice(&body).unwrap();
        (status, value["error"].as_str().unwrap().to_owned())
    }

    fn register(&self, torrent: &Metainfo, query: &str) {
        let (status, ..) =
            self.ask("POST", &format!("/torrents{query}"), torrent.bytes().unwrap().as_ref());
        assert_eq!(status, 201);
    }

    fn announce(&self, hash: InfoHash, port: u16, left: u64, more: &str) {
        let path = format!(
            "/announce?info_hash={}&peer_id={}&port={port}&uploaded=0&downloaded=0\
             &left={left}&key={port}{more}",
            escaped(&hash.0),
            escaped(&peer_id(port).0),
        );
        assert_eq!(self.ask("GET", &path, b"").0, 200);
    }

    fn report(&self, hash: InfoHash, port: u16, bits: &[u8]) {
        let id = escaped(&peer_id(port).0);
        let path = format!("/torrents/{hash}/holdings?peer_id={id}&port={port}&key={port}");
        assert_eq!(self.ask("POST", &path, bits).0, 204);
    }

    fn events(&self, path: &str) -> Events {
        let mut lines = BufReader::new(self.connect("GET", path, b""));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        Events(BufReader::new(Chunks { reader: lines, left: 0 }))
    }

    fn console(&self, line: &str) -> String {
        match self.handle.console(line) {
            ConsoleReply::Text(text) => text,
            ConsoleReply::Quit => panic!("`{line}` ends the tracker"),
        }
    }
}

/// Reads the data of a chunked body as it arrives.
struct Chunks {
    reader: BufReader<TcpStream>,
    /// Bytes of the current chunk that have not been read.
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(0);
            }
            // A chunk's data ends with an empty line.
            if !line.trim_end().is_empty() {
                self.left = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if self.left == 0 {
                    return Ok(0);
                }
            }
        }
        let most = self.left.min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// Server-sent events in chunked encoding.
struct Events(BufReader<Chunks>);

impl Events {
    fn next(&mut self) -> (String, Value) {
        let mut name = None;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            let line = line.trim_end();
            if let Some(told) = line.strip_prefix("event: ") {
                name = Some(told.to_owned());
            } else if let (Some(data), Some(name)) = (line.strip_prefix("data: "), &name) {
                return (name.clone(), serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Returns the next event with this name, skipping others.
    fn until(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next();
            if name == wanted {
                return data;
            }
        }
    }

    /// Waits until the counts are as expected.
    fn until_counts(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        while self.until("counts")[key] != value {}
    }

    fn until_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
    }
}

fn peer_id(port: u16) -> PeerId {
    let mut id = *b"-TR3000-000000000000";
    id[18..].copy_from_slice(&port.to_be_bytes());
    PeerId(id)
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn torrent(name: &str, pieces: u32) -> Metainfo {
    MetainfoBuilder::single_file(name, u64::from(pieces) << 14)
        .piece_len(1 << 14)
        .build(vec![7; 20 * pieces as usize])
        .unwrap()
}

/// A seed at 1001, halves at 1002 (pieces 0 to 7) and 1003 (4 to 11), and 1004, of which nothing
/// is known; 16 pieces.
fn swarm() -> (Tracker, InfoHash) {
    let tracker = Tracker::start();
    let a = torrent("My File 2", 16);
    let hash = a.info_hash();
    tracker.register(&a, "");
    tracker.announce(hash, 1001, 0, "");
    tracker.announce(hash, 1002, 9, "");
    tracker.announce(hash, 1003, 9, "");
    tracker.announce(hash, 1004, 9, "");
    tracker.report(hash, 1002, &[0xff, 0]);
    tracker.report(hash, 1003, &[0x0f, 0xf0]);
    (tracker, hash)
}

#[test]
fn a_map_shows_who_holds_what_and_where_that_is_known_from() {
    let (tracker, hash) = swarm();
    tracker.clock.advance(Duration::from_secs(5));
    let map = tracker.json(&format!("/torrents/{hash}/map"));
    assert_eq!((&map["name"], &map["info_hash"]), (&json!("My File 2"), &json!(hash)));
    assert_eq!((&map["pieces"], &map["piece_length"]), (&json!(16), &json!(16_384)));
    assert_eq!((&map["complete"], &map["incomplete"]), (&json!(1), &json!(3)));
    assert_eq!(map["copies"], json!(1.75), "{map}");
    assert_eq!(map["observer"], json!({"on": false, "connected": 0}));
    let rows = map["peers"].as_array().unwrap();
    let of = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("have"),
        [json!("all"), json!({"bits": "/wA="}), json!({"bits": "D/A="}), Value::Null]
    );
    assert_eq!(of("held"), [json!(16), json!(8), json!(8), Value::Null]);
    assert_eq!(
        of("source"),
        [json!("announced"), json!("reported"), json!("reported"), Value::Null]
    );
    assert_eq!(of("sure"), [true, true, true, false]);
    assert_eq!(of("eta"), [json!(0), Value::Null, Value::Null, Value::Null]);
    assert_eq!(of("silent"), [5, 5, 5, 5]);
    assert_eq!(rows[0]["client"], "Transmission 3.00");
    assert!(rows[0]["joined_at"].as_str().unwrap().ends_with('Z'));
    let mut ids: Vec<u64> = of("id").iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    tracker.stop();
}

#[test]
fn questions_are_answered_over_http() {
    let (tracker, hash) = swarm();
    let ask = |path: &str| tracker.json(&format!("/torrents/{hash}/{path}"));
    let held = ask("pieces/5");
    assert_eq!(held["count"], 3);
    assert_eq!(held["holders"][1]["peer"], "127.0.0.1:1002");
    assert_eq!(held["holders"][1]["source"], "reported");
    assert_eq!(ask("pieces/15")["count"], 1);

    let risk = ask("at-risk");
    assert_eq!(
        (&risk["k"], &risk["count"], &risk["pieces"]),
        (&json!(1), &json!(4), &json!("12-15"))
    );
    assert_eq!(risk["groups"][0]["holders"], json!(["127.0.0.1:1001"]));
    let risk = ask("at-risk?k=2");
    assert_eq!(risk["pieces"], "0-3,8-15");
    let groups: Vec<_> = risk["groups"].as_array().unwrap().iter().map(|g| &g["pieces"]).collect();
    assert_eq!(groups, ["0-3", "8-11", "12-15"]);

    let missing = ask("missing?peer=127.0.0.1:1003");
    assert_eq!((&missing["count"], &missing["pieces"]), (&json!(8), &json!("0-3,12-15")));
    assert_eq!(ask("missing?peer=127.0.0.1:1004")["count"], Value::Null);
    assert_eq!(ask("missing?peer=127.0.0.1:1001")["pieces"], "");

    let without = ask("without?peer=127.0.0.1:1002&peer=127.0.0.1:1003");
    assert_eq!((&without["can_complete"], &without["copies"]), (&json!(true), &json!(1.0)));
    let without = ask("without?peer=127.0.0.1:1001");
    assert_eq!((&without["can_complete"], &without["count"]), (&json!(false), &json!(4)));
    assert_eq!((&without["pieces"], &without["copies"]), (&json!("12-15"), &json!(0.75)));

    for (path, status, word) in [
        ("pieces/16", 404, "`16`"),
        ("pieces/x", 400, "`x`"),
        ("at-risk?k=x", 400, "`x`"),
        ("missing", 400, "peer=IP:PORT"),
        ("missing?peer=x", 400, "`x`"),
        ("missing?peer=10.0.0.1:1", 404, "`10.0.0.1:1`"),
        ("without?peer=10.0.0.1:1", 404, "`10.0.0.1:1`"),
    ] {
        let (got, error) = tracker.refused(&format!("/torrents/{hash}/{path}"));
        assert_eq!(got, status, "{path}: {error}");
        assert!(error.contains(word), "{path}: {error}");
    }
    assert_eq!(tracker.refused(&format!("/torrents/{}/map", InfoHash([9; 20]))).0, 404);
    tracker.stop();
}

#[test]
fn questions_are_answered_at_the_console() {
    let (tracker, _) = swarm();
    let ask = |line: &str| tracker.console(line);
    let swarm = ask("swarm My File 2");
    assert!(swarm.contains("1.75 distributed copies"), "{swarm}");
    assert!(swarm.lines().any(|line| line.contains(":1002") && line.contains("50 %")), "{swarm}");
    assert!(ask("holders My File 2 5").starts_with("piece 5 of `My File 2` is held by 3 peers\n"));
    let risk = ask("at_risk My File 2");
    assert_eq!(
        risk,
        "4 pieces of `My File 2` held by one peer, or by none\n  127.0.0.1:1001: 12-15"
    );
    assert!(ask("> at_risk My File 2 2").contains("127.0.0.1:1001, 127.0.0.1:1002: 0-3"));
    assert_eq!(
        ask("missing My File 2 127.0.0.1:1002"),
        "`127.0.0.1:1002` misses 8 pieces of `My File 2`: 8-15"
    );
    assert!(ask("without My File 2 127.0.0.1:1002 127.0.0.1:1003").starts_with("yes: "));
    assert!(
        ask("without My File 2 127.0.0.1:1001").contains("hold 4 pieces of `My File 2`: 12-15")
    );
    assert!(ask("holders nothing 5").starts_with("no file named `nothing`"));
    assert!(ask("holders My File 2 x").contains("`x` is not a piece"));
    // A healthy peer announces every two minutes, and one that did not for three expires.
    tracker.clock.advance(Duration::from_secs(130));
    assert!(!ask("swarm My File 2").contains("gone silent"));
    tracker.clock.advance(Duration::from_secs(30));
    assert!(ask("swarm My File 2").contains("gone silent: 127.0.0.1:1001, "));
    tracker.stop();
}

#[test]
fn a_torrents_stream_tells_the_map_and_then_what_changes() {
    let (tracker, hash) = swarm();
    let mut events = tracker.events(&format!("/torrents/{hash}/events"));
    let (name, map) = events.next();
    assert_eq!((name.as_str(), map["peers"].as_array().unwrap().len()), ("map", 4));
    let id = |at: usize| map["peers"][at]["id"].clone();

    tracker.report(hash, 1002, &[0xff, 0b1000_0001]);
    let have = events.until("have");
    assert_eq!((&have["id"], &have["pieces"], &have["held"]), (&id(1), &json!("8,15"), &json!(10)));
    assert_eq!((&have["source"], &have["sure"]), (&json!("reported"), &json!(true)));
    events.until_counts("copies", 1.813);

    // The loss of pieces is sent as a whole row.
    tracker.report(hash, 1003, &[0x0f, 0]);
    let row = events.until("peer");
    assert_eq!((&row["id"], &row["held"]), (&id(2), &json!(4)));
    assert_eq!(row["have"], json!({"bits": "DwA="}));

    tracker.announce(hash, 1005, 9, "");
    let row = events.until("peer");
    assert_eq!((&row["peer"], &row["have"]), (&json!("127.0.0.1:1005"), &Value::Null));
    events.until_counts("incomplete", 4);

    tracker.announce(hash, 1004, 9, "&event=stopped");
    let gone = events.until("gone");
    assert_eq!(gone, json!({"id": id(3), "peer": "127.0.0.1:1004", "why": "stopped"}));
    tracker.clock.advance(Duration::from_secs(200));
    assert_eq!(events.until("gone")["why"], "expired");
    tracker.stop();
    events.until_end();
}

#[test]
fn the_catalogues_stream_tells_torrents_counts_and_requests() {
    let (tracker, hash) = swarm();
    tracker.register(&torrent("secret", 3), "?unlisted=1");
    let mut events = tracker.events("/events?requests=true");
    let (name, first) = events.next();
    assert_eq!((name.as_str(), &first["name"]), ("torrent", &json!("My File 2")));
    assert_eq!(first["incomplete"], 3);
    assert_eq!(events.next(), ("ready".to_owned(), Value::Null));

    tracker.announce(torrent("secret", 3).info_hash(), 1001, 0, "");
    tracker.announce(hash, 1007, 0, "");
    let (mut request, mut changed) = (Value::Null, Value::Null);
    while request == Value::Null || changed == Value::Null {
        match events.next() {
            (name, data) if name == "request" => request = data,
            (name, data) if name == "torrent" => changed = data,
            (name, _) => panic!("{name}"),
        }
    }
    assert_eq!((&request["name"], &request["event"]), (&json!("My File 2"), &json!("announce")));
    assert_eq!((&request["peer"], &request["ok"]), (&json!("127.0.0.1:1007"), &json!(true)));
    assert_eq!((&changed["name"], &changed["complete"]), (&json!("My File 2"), &json!(2)));

    let b = torrent("b", 3);
    let (_, _, body) = tracker.ask("POST", "/torrents", b.bytes().unwrap().as_ref());
    let token: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(events.until("torrent")["name"], "b");
    let mut stream = TcpStream::connect(tracker.addr).unwrap();
    let token = token["token"].as_str().unwrap();
    write!(
        stream,
        "DELETE /torrents/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n",
        b.info_hash()
    )
    .unwrap();
    assert_eq!(events.until("removed"), json!(b.info_hash()));
    assert_eq!(tracker.refused("/events?requests=x").0, 400);
    tracker.stop();
}

#[test]
fn a_stream_of_a_torrent_ends_with_it() {
    let (tracker, _) = swarm();
    let b = torrent("b", 3);
    let (_, _, body) = tracker.ask("POST", "/torrents", b.bytes().unwrap().as_ref());
    let token: Value = serde_json::from_slice(&body).unwrap();
    let mut events = tracker.events(&format!("/torrents/{}/events", b.info_hash()));
    events.until("map");
    let mut stream = TcpStream::connect(tracker.addr).unwrap();
    let token = token["token"].as_str().unwrap();
    write!(
        stream,
        "DELETE /torrents/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n",
        b.info_hash()
    )
    .unwrap();
    events.until_end();
    tracker.stop();
}

/// A torrent of 32,768 pieces with 400 peers that hold every other one: its map has 2.2 MB.
fn large_swarm() -> (Tracker, InfoHash) {
    let tracker = Tracker::start();
    let torrent = torrent("large", 1 << 15);
    let hash = torrent.info_hash();
    tracker.register(&torrent, "");
    for port in 1..=400 {
        tracker.announce(hash, port, 9, "&numwant=0");
        tracker.report(hash, port, &[0xaa; 1 << 12]);
    }
    (tracker, hash)
}

/// Returns the data of a chunked body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

#[test]
fn maps_that_nobody_reads_are_not_made() {
    let (tracker, hash) = large_swarm();
    let path = format!("/torrents/{hash}/map");
    let events = format!("/torrents/{hash}/events");
    let unread: Vec<TcpStream> = (0..60)
        .map(|number| {
            let mut stream = tracker.connect("GET", if number < 50 { &path } else { &events }, b"");
            // Its answer has begun.
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let kept = tracker.json("/stats")["http_answer_bytes"].as_u64().unwrap();
    assert!((1..=50 * 128 * 1024).contains(&kept), "{kept}");
    let (status, head, body) = tracker.ask("GET", &path, b"");
    assert_eq!(status, 200);
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let map: Value = serde_json::from_slice(&unchunked(&body)).unwrap();
    let rows = map["peers"].as_array().unwrap();
    assert_eq!((rows.len(), &map["incomplete"]), (400, &400.into()));
    let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 400);
    assert!(rows.iter().all(|row| row["held"] == 1 << 14));
    let mut listening = tracker.events(&events);
    assert_eq!(listening.until("map"), map, "nothing has changed");
    tracker.announce(hash, 401, 9, "");
    // The stream may begin to wait for its next look after the clock was moved.
    let is_told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) {
                tracker.clock.advance(Duration::from_millis(250));
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let told = listening.until("peer");
        is_told.store(true, Ordering::Relaxed);
        assert_eq!(told["peer"], "127.0.0.1:401");
    });
    drop((unread, listening));
    tracker.stop();
}

#[test]
fn answers_that_nobody_reads_make_way_for_others() {
    let (tracker, hash) = large_swarm();
    // 655 KB each.
    let path = format!("/torrents/{hash}");
    let unread: Vec<TcpStream> = (0..100).map(|_| tracker.connect("GET", &path, b"")).collect();
    let start = std::time::Instant::now();
    loop {
        let kept = tracker.json("/stats")["http_answer_bytes"].as_u64().unwrap();
        assert!(kept <= 48 << 20, "{kept}");
        let (status, head, body) = tracker.ask("GET", &path, b"");
        if status == 200 {
            assert_eq!(Metainfo::parse(&body, &Default::default()).unwrap().info_hash(), hash);
            break;
        }
        assert_eq!(status, 503);
        assert!(head.to_lowercase().contains("retry-after: 2"), "{head}");
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(unread);
    tracker.stop();
}
