//! Requests that are forged, slow, too long, too many, or sent by pages of other sites.

use super::*;

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
    // A host name of the attacker that resolves to this machine.
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
    // Clients announce to any host name in the torrent.
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
fn forged_and_old_connection_ids_are_refused() {
    let tracker = Tracker::start();
    let mut udp = tracker.udp();
    let good = udp.id;
    for forged in [0, 1, good ^ 1 << 40, !good] {
        let announce = said(hash(1), 1001, 0);
        let request = Request::Announce {
            connection_id: forged,
            transaction: 3,
            announce,
            url_data: Default::default(),
        };
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
    let late = Request::Announce {
        connection_id: udp.id,
        transaction: 3,
        announce,
        url_data: Default::default(),
    };
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
    Request::Announce {
        connection_id: udp.id,
        transaction: 5,
        announce,
        url_data: Default::default(),
    }
    .encode(&mut bad);
    // No action of a tracker.
    bad[11] = 9;
    let (response, _) = udp.ask_raw(&bad);
    assert!(matches!(response, Response::Error { transaction: 5, .. }), "{response:?}");
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
    let too_long = vec![b'l'; 16 * 1024 * 1024 + 1];
    let http = tracker.http("POST", "/torrents", &too_long);
    assert_eq!(http.status, 413);
    assert!(http.error().contains("`16777217`") && http.error().contains("`16777216`"));
    assert!(http.error().contains("the operator's token"), "{}", http.error());
    let deep = tracker.http("POST", "/torrents", &too_long[1..]);
    assert_eq!(deep.status, 400, "sixteen million `l` are read in bounded memory and refused");
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
        (format!("{good}&port=-1&left=0"), "port"),
        (format!("{good}&port=70000&left=0"), "port"),
        (format!("{good}&port=1&left=much"), "left"),
        (format!("{good}&port=1&left=0&port=2"), "port"),
    ] {
        let http = tracker.get(&format!("/announce?{query}"));
        assert_eq!(http.status, 200, "{query}");
        assert!(http.failure().contains(wanted), "{query}: {}", http.failure());
    }
    assert!(tracker.get("/scrape").failure().contains("has to name torrents"));
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
    assert!(error.to_string().starts_with(&format!("cannot listen on `{}`", first.addr)));
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
