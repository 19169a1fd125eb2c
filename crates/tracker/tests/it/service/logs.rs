//! What the logs and the console tell of requests.

use super::*;

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
    let known = ["Transmission", "3.00", "0-41,57", "71", "%", "reported"];
    assert_eq!(fields(":1001")[1..7], known);
    assert_eq!(fields(":1002")[3..7], ["0-59", "100", "%", "announced"]);
    assert_eq!(fields(":1003")[3..], ["unknown", "95", "%", "only", "how", "much", "-"]);
    let is_time = |text: &str| text.len() == 8 && text.split(':').count() == 3;
    assert!(is_time(&fields(":1001")[7]) && is_time(&fields(":1002")[7]), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100));
    assert_eq!(shown, tracker.console(">file_logs>My File.iso"));
    assert_eq!(shown, tracker.console(&format!("file_logs {}", a.info_hash())));
    let files = tracker.json("/logs/files/My%20File.iso");
    let peers = &files["files"][0]["peers"];
    assert_eq!(peers[0]["source"], "announced");
    assert_eq!((&peers[1]["pieces"], &peers[1]["held"]), (&"0-41,57".into(), &43.into()));
    assert_eq!((&peers[2]["pieces"], &peers[2]["as_of"]), (&Value::Null, &Value::Null));
    assert!(peers[1]["as_of"].as_str().unwrap().ends_with('Z'));
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
fn a_download_that_found_nobody_is_a_failure_in_the_log() {
    let tracker = Tracker::start();
    let a = torrent("data.bin", 4);
    tracker.register(&a, "");
    tracker.announce_http(a.info_hash(), 1001, 9, "&event=started");
    let log = tracker.console("request logs 1");
    assert!(log.contains("failed: nobody else has any of it"), "{log}");
    assert!(log.ends_with("1 of 2 shown; `request logs 1 2` shows those before"), "{log}");
    // A seed seeks nobody, and who comes next finds it.
    tracker.announce_http(a.info_hash(), 1002, 0, "&event=started");
    tracker.announce_http(a.info_hash(), 1003, 9, "&event=started");
    let log = tracker.console("request logs 2");
    assert!(!log.contains("failed") && log.contains("started"), "{log}");
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
