//! The tracker connects to peers, over real sockets, to see what they hold.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, PeerId, PieceIndex};
use piecework_engine::net::{self, HandshakeError, Limiter, Stream, Torrents};
use piecework_engine::tracker_client::Catalogue;
use piecework_engine::{AddTorrent, TorrentState};
use piecework_proto::announce::catalogue::RegisterOptions;
use piecework_proto::announce::http::{HttpReply, decode_reply};
use piecework_proto::announce::{TrackerTarget, TrackerUrl};
use piecework_proto::encryption::{EncryptionPolicy, Method, torrent_mark};
use piecework_proto::wire::{self, ExtendedHandshake, Handshake, Message};
use piecework_testkit::{
    PeerMessage, RawPeer, content, seeded, session, session_with, stranger, until, within,
};
use piecework_tracker::{
    Clock, ConsoleReply, TrackerConfig, TrackerHandle, TrackerServer, TrackerStartError,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Tracker {
    handle: TrackerHandle,
    addr: SocketAddr,
}

impl Tracker {
    /// Its time runs ten times as fast as real time.
    async fn start() -> Self {
        let config = TrackerConfig { observe: true, ..TrackerConfig::in_memory() };
        Self::try_start(config).await.unwrap()
    }

    async fn try_start(config: TrackerConfig) -> Result<Self, TrackerStartError> {
        let clock = Clock::manual();
        let handle = TrackerServer::start_with_clock(config, clock.clone()).await?;
        tokio::spawn(async move {
            let mut turn = tokio::time::interval(Duration::from_millis(10));
            loop {
                turn.tick().await;
                clock.advance(Duration::from_millis(100));
            }
        });
        let mut addr = handle.local_addr();
        if addr.ip().is_unspecified() {
            addr.set_ip([127, 0, 0, 1].into());
        }
        Ok(Self { handle, addr })
    }

    async fn register(&self, torrent: &Metainfo, unobserved: bool) -> String {
        let catalogue = Catalogue::new(&format!("http://{}", self.addr)).unwrap();
        let options = RegisterOptions { unobserved, ..RegisterOptions::default() };
        catalogue.register(torrent.bytes().unwrap().as_ref(), options).await.unwrap().token.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, header: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        within(stream.read_to_end(&mut all)).await.unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&all[9..12]).unwrap().parse().unwrap();
        (status, all[end + 4..].to_vec())
    }

    async fn announce(&self, torrent: &Metainfo, port: u16, left: u64) {
        let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02x}")).collect::<String>();
        let hash = escaped(&torrent.info_hash().0);
        let id = escaped(&name().0);
        let path = format!(
            "/announce?info_hash={hash}&peer_id={id}&port={port}&uploaded=0&downloaded=0&left={left}"
        );
        assert_eq!(self.ask("GET", &path, "").await.0, 200);
    }

    async fn map(&self, torrent: &Metainfo) -> Value {
        let path = format!("/torrents/{}/map", torrent.info_hash());
        let (status, body) = self.ask("GET", &path, "").await;
        assert_eq!(status, 200);
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until the row of a peer is as expected.
    async fn until_row(&self, torrent: &Metainfo, port: u16, wanted: impl Fn(&Value) -> bool) {
        let peer = json!(SocketAddr::from(([127, 0, 0, 1], port)));
        within(async {
            loop {
                let map = self.map(torrent).await;
                let row = map["peers"].as_array().unwrap().iter().find(|row| row["peer"] == peer);
                if wanted(row.unwrap_or(&Value::Null)) {
                    return;
                }
            }
        })
        .await;
    }
}

fn torrent(pieces: u32) -> Metainfo {
    MetainfoBuilder::single_file("a", u64::from(pieces) << 14)
        .piece_len(1 << 14)
        .build(vec![7; 20 * pieces as usize])
        .unwrap()
}

/// The ids of the peers in these tests, in announces and handshakes.
fn name() -> PeerId {
    stranger(b'p')
}

/// A peer that the tracker is about to connect to, and its port.
async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn visit(listener: &TcpListener, torrent: &Metainfo) -> RawPeer {
    within(RawPeer::accept(listener, torrent, name())).await.unwrap()
}

fn bits(row: &Value) -> &Value {
    &row["have"]["bits"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_read_like_an_open_book_and_hears_that_nothing_is_wanted() {
    let (tracker, a) = (Tracker::start().await, torrent(16));
    tracker.register(&a, false).await;
    let (listener, port) = listening().await;
    tracker.announce(&a, port, 99).await;
    let mut peer = visit(&listener, &a).await;
    let Some(PeerMessage::Message(Message::HaveNone)) = within(peer.hear()).await else {
        panic!("it does not say that it holds nothing")
    };
    let Some(PeerMessage::Message(Message::Extended { id: 0, payload })) =
        within(peer.hear()).await
    else {
        panic!("it does not say who it is")
    };
    let client = ExtendedHandshake::decode(&payload).unwrap().client.unwrap();
    assert!(client.starts_with("Piecework tracker"), "{client}");

    peer.send(&Message::Bitfield(Bytes::from_static(&[0xf0, 0]))).await.unwrap();
    tracker.until_row(&a, port, |row| bits(row) == "8AA=").await;
    peer.send(&Message::Have(PieceIndex(15))).await.unwrap();
    tracker.until_row(&a, port, |row| bits(row) == "8AE=").await;
    // As aria2 does.
    peer.send(&Message::Bitfield(Bytes::from_static(&[0x0f, 0]))).await.unwrap();
    tracker.until_row(&a, port, |row| bits(row) == "/wE=" && row["source"] == "observed").await;
    let map = tracker.map(&a).await;
    assert_eq!(map["observer"], json!({"on": true, "connected": 1}));
    assert_eq!((&map["peers"][0]["sure"], &map["copies"]), (&json!(true), &json!(0.563)));
    // It neither requests nor offers anything.
    peer.send(&Message::Unchoke).await.unwrap();
    peer.send(&Message::Interested).await.unwrap();
    peer.send(&Message::HaveAll).await.unwrap();
    tracker.until_row(&a, port, |row| row["have"] == "all" && row["eta"] == 0).await;
    peer.send(&Message::Have(PieceIndex(16))).await.unwrap();
    while let Some(heard) = within(peer.hear()).await {
        assert!(matches!(heard, PeerMessage::Message(Message::KeepAlive)), "{heard:?}");
    }
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_up_and_refuses_is_off_the_list_and_others_are_not() {
    let (tracker, a) = (Tracker::start().await, torrent(16));
    tracker.register(&a, false).await;
    let (listener, port) = listening().await;
    // Nobody ever listened at this one.
    let (dead, dead_port) = listening().await;
    drop(dead);
    tracker.announce(&a, dead_port, 99).await;
    tracker.announce(&a, port, 99).await;
    let mut peer = visit(&listener, &a).await;
    peer.send(&Message::HaveNone).await.unwrap();
    tracker.until_row(&a, port, |row| row["have"] == "none").await;
    // A peer that only hangs up stays listed.
    drop(peer);
    let mut peer = visit(&listener, &a).await;
    peer.send(&Message::HaveAll).await.unwrap();
    tracker.until_row(&a, port, |row| row["have"] == "all").await;
    drop((peer, listener));
    tracker.until_row(&a, port, |row| *row == Value::Null).await;
    tracker.until_row(&a, dead_port, |row| *row != Value::Null).await;
    let stats = tracker.ask("GET", "/stats", "").await.1;
    let stats: Value = serde_json::from_slice(&stats).unwrap();
    assert_eq!((&stats["unreachable"], &stats["peers"]), (&json!(1), &json!(1)));
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_closes_at_both_handshakes_is_told_as_such_until_it_does_not() {
    let (tracker, a) = (Tracker::start().await, torrent(16));
    tracker.register(&a, false).await;
    let (listener, port) = listening().await;
    tracker.announce(&a, port, 99).await;
    tracker.until_row(&a, port, |row| row["reason"] == Value::Null).await;
    let closes = "closes the connection at our handshake, plain and encrypted";
    for read in [true, false] {
        for first in [&b"\x13BitTorrent protocol"[..], &[]] {
            let mut stream = within(listener.accept()).await.unwrap().0;
            // With and without waiting for the handshake.
            if read {
                let mut heard = [0; 68];
                within(stream.read_exact(&mut heard)).await.unwrap();
                assert!(heard.starts_with(first));
            }
        }
        tracker.until_row(&a, port, |row| row["reason"] == closes).await;
    }
    for command in ["swarm a", "file_logs a"] {
        let ConsoleReply::Text(shown) = tracker.handle.console(command) else { panic!() };
        assert!(shown.contains(&format!("127.0.0.1:{port} {closes}")), "{shown}");
    }
    let (_, logs) = tracker.ask("GET", "/logs/files/a", "").await;
    let logs: Value = serde_json::from_slice(&logs).unwrap();
    assert_eq!(logs["files"][0]["peers"][0]["reason"], closes);
    // It was about something else.
    let mut peer = visit(&listener, &a).await;
    peer.send(&Message::HaveAll).await.unwrap();
    tracker.until_row(&a, port, |row| row["reason"] == Value::Null && row["have"] == "all").await;
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_demands_encryption_is_observed() {
    /// Has one torrent.
    struct Only(InfoHash);
    impl Torrents for Only {
        fn handshake(&self, info_hash: InfoHash) -> Option<Handshake> {
            (info_hash == self.0).then(|| Handshake::ours(info_hash, name()))
        }

        fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
            Some(self.0).filter(|info_hash| torrent_mark(*info_hash) == *mark)
        }
    }

    let (tracker, a) = (Tracker::start().await, torrent(16));
    tracker.register(&a, false).await;
    let (listener, port) = listening().await;
    tracker.announce(&a, port, 99).await;
    let (only, exchanges) = (Only(a.info_hash()), Limiter::new(None));
    let accept = async || {
        let (tcp, addr) = within(listener.accept()).await.unwrap();
        let (policy, time) = (EncryptionPolicy::Require, Duration::from_secs(60));
        within(net::accept(tcp, addr, policy, time, &only, &exchanges)).await
    };
    let plain = accept().await.map(|_| ()).unwrap_err();
    assert!(matches!(plain, HandshakeError::NotEncrypted), "{plain}");
    let accepted = accept().await.unwrap();
    assert_eq!(accepted.stream.method(), Some(Method::Rc4));
    for have in [&Message::HaveNone, &Message::Have(PieceIndex(0))] {
        let mut bytes = BytesMut::new();
        wire::encode(have, &mut bytes);
        // A few bytes to a socket that has taken hardly any.
        let written = accepted.stream.try_write(&[IoSlice::new(&bytes)]).unwrap();
        assert_eq!(written, bytes.len());
    }
    tracker.until_row(&a, port, |row| bits(row) == "gAA=" && row["reason"] == Value::Null).await;
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_super_seeder_shows_less_than_it_has() {
    let (tracker, a) = (Tracker::start().await, torrent(16));
    tracker.register(&a, false).await;
    let (listener, port) = listening().await;
    tracker.announce(&a, port, 0).await;
    tracker.until_row(&a, port, |row| row["have"] == "all" && row["source"] == "announced").await;
    let mut peer = visit(&listener, &a).await;
    peer.send(&Message::HaveNone).await.unwrap();
    peer.send(&Message::Have(PieceIndex(0))).await.unwrap();
    tracker.until_row(&a, port, |row| bits(row) == "gAA=" && row["sure"] == false).await;
    tracker.announce(&a, port, 0).await;
    tracker.until_row(&a, port, |row| bits(row) == "gAA=" && row["sure"] == false).await;
    let ConsoleReply::Text(shown) = tracker.handle.console("file_logs a") else { panic!() };
    assert!(shown.contains("observed, may hold more"), "{shown}");
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_is_turned_on_and_off_with_the_token() {
    let (tracker, a) = (Tracker::start().await, torrent(16));
    let token = tracker.register(&a, true).await;
    let (listener, port) = listening().await;
    tracker.announce(&a, port, 99).await;
    assert_eq!(tracker.map(&a).await["observer"]["on"], false);
    let path = format!("/torrents/{}?observe=", a.info_hash());
    let header = format!("Authorization: Bearer {token}\r\n");
    let change =
        async |on: &str, header: &str| tracker.ask("PATCH", &format!("{path}{on}"), header).await.0;
    assert_eq!(change("true", "").await, 403);
    assert_eq!(change("perhaps", &header).await, 400);
    assert_eq!(change("true", &header).await, 204);
    tracker.announce(&a, port, 99).await;
    let peer = visit(&listener, &a).await;
    tracker.until_row(&a, port, |row| row["source"] == "observed").await;
    assert_eq!(change("false", &header).await, 204);
    peer.dropped().await;
    let map = tracker.map(&a).await;
    assert_eq!(
        (&map["observer"]["on"], map["peers"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    let ConsoleReply::Text(said) = tracker.handle.console("observe a on") else { panic!() };
    assert_eq!(said, "peers of `a` are connected to, to see what they hold");
    assert_eq!(tracker.map(&a).await["observer"]["on"], true);
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_peers_take_it_for_what_it_is() {
    let tracker = Tracker::start().await;
    let (dir, a) = seeded("a.bin", &content(300_000, 1), 1 << 14);
    tracker.register(&a, false).await;
    let session = session(None);
    let port = session.listen_addrs()[0].port();
    let target = TrackerTarget::parse(&tracker.addr.to_string()).unwrap();
    let mut add = AddTorrent::new(Arc::clone(&a), dir.path());
    // Without the catalogue's address it does not report, like other clients.
    add.trackers = Some(target.tiers.clone());
    let seed = session.add(add).unwrap();
    until(&seed, |seed| seed.status().state == TorrentState::Seeding).await;
    tracker.until_row(&a, port, |row| row["have"] == "all" && row["source"] == "observed").await;
    let peers = seed.peers().await;
    assert_eq!(peers.len(), 1);
    assert!(peers[0].client.starts_with("Piecework tracker"), "{}", peers[0].client);
    assert!(peers[0].choked_by_us && !peers[0].interested_in_us);
    assert_eq!(seed.status().peers, 0, "it is no peer to exchange anything with");
    within(session.shutdown()).await;
    tracker.until_row(&a, port, |row| *row == Value::Null).await;
    tracker.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_both_families_is_one_row_with_two_addresses_and_asked_at_one_of_them() {
    let listen = "[::]:0".parse().unwrap();
    let config = TrackerConfig { listen, observe: true, ..TrackerConfig::in_memory() };
    let tracker = match Tracker::try_start(config).await {
        Ok(tracker) => tracker,
        // A machine without IPv6 has nothing to show here.
        Err(TrackerStartError::Listen { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let (dir, a) = seeded("a.bin", &content(300_000, 1), 1 << 14);
    tracker.register(&a, false).await;
    let session = session_with(|config| config.listen = vec!["[::]:0".parse().unwrap()]);
    assert_eq!(session.listen_addrs().len(), 2);
    let mut add = AddTorrent::new(Arc::clone(&a), dir.path());
    // Without the catalogue's address it does not report, like other clients.
    let url = |host| format!("http://{host}:{}/announce", tracker.addr.port());
    let url = |host| TrackerUrl::parse(&url(host)).unwrap();
    add.trackers = Some(vec![vec![url("127.0.0.1")], vec![url("[::1]")]]);
    let seed = session.add(add).unwrap();
    let port = session.listen_addrs()[0].port();
    let both = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    let of = |row: &Value| {
        let mut addrs =
            [&row["peer"], &row["also_at"]].map(|addr| addr.as_str().map(str::to_owned));
        addrs.sort_unstable();
        addrs.map(Option::unwrap_or_default)
    };
    let map = within(async {
        loop {
            let map = tracker.map(&a).await;
            let rows = map["peers"].as_array().unwrap();
            let seen = rows.iter().any(|row| of(row) == both && row["source"] == "observed");
            // Two visits may begin at once, and one of them ends.
            if seen && map["observer"]["connected"] == 1 && seed.peers().await.len() == 1 {
                return map;
            }
        }
    })
    .await;
    assert_eq!(map["peers"].as_array().unwrap().len(), 1);
    let counts = ["complete", "incomplete", "copies"].map(|key| map[key].as_f64().unwrap());
    assert_eq!(counts, [1.0, 0.0, 1.0]);
    let hash: String = a.info_hash().0.iter().map(|byte| format!("%{byte:02x}")).collect();
    let (_, scraped) = tracker.ask("GET", &format!("/scrape?info_hash={hash}"), "").await;
    assert!(String::from_utf8_lossy(&scraped).contains("8:completei1e"));
    let path = format!("/torrents/{}/pieces/0", a.info_hash());
    let holders: Value = serde_json::from_slice(&tracker.ask("GET", &path, "").await.1).unwrap();
    assert_eq!((&holders["count"], of(&holders["holders"][0])), (&json!(1), both.clone()));
    for command in ["swarm a.bin", "file_logs a.bin"] {
        let ConsoleReply::Text(shown) = tracker.handle.console(command) else { panic!() };
        let first = map["peers"][0]["peer"].as_str().unwrap();
        let second = map["peers"][0]["also_at"].as_str().unwrap();
        assert!(shown.contains(&format!("{first} is also at {second}")), "{shown}");
    }
    within(session.shutdown()).await;
    within(async { while tracker.map(&a).await["peers"] != json!([]) {} }).await;
    tracker.handle.shutdown().await;
}

#[tokio::test]
async fn seeds_that_refuse_are_given_after_one_that_was_seen() {
    let tracker = Tracker::start().await;
    let torrent = torrent(8);
    tracker.register(&torrent, false).await;
    let mut fakes = Vec::new();
    for _ in 0..100 {
        fakes.push(listening().await);
    }
    // From now on nobody listens there.
    let fakes: Vec<u16> = fakes.into_iter().map(|(_, port)| port).collect();
    for port in &fakes {
        tracker.announce(&torrent, *port, 0).await;
    }
    let (listener, port) = listening().await;
    tracker.announce(&torrent, port, 0).await;
    let _peer = visit(&listener, &torrent).await;
    let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02x}")).collect::<String>();
    let path = |want: usize| {
        let (hash, id) = (escaped(&torrent.info_hash().0), escaped(&name().0));
        format!("/announce?info_hash={hash}&peer_id={id}&port=7&left=9&numwant={want}")
    };
    let ask = async |want| -> Vec<SocketAddr> {
        let (status, body) = tracker.ask("GET", &path(want), "").await;
        assert_eq!(status, 200);
        match decode_reply(&body).unwrap() {
            HttpReply::Reply(reply) => reply.peers,
            HttpReply::Failure(refusal) => panic!("{refusal:?}"),
        }
    };
    let real = SocketAddr::from(([127, 0, 0, 1], port));
    within(async { while ask(5).await[0] != real {} }).await;
    assert_eq!(ask(200).await[0], real);
    tracker.handle.shutdown().await;
}
