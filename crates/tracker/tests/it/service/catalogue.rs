//! Registering, fetching and removing torrents, and the catalogue after a restart.

use super::*;

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
    // Public logs do not show unlisted torrents.
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
    // From before the registration as unlisted.
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
    // Registered as listed, it is like any other from then on.
    let before = tracker.get("/logs/requests").text().matches("\"peer\"").count();
    tracker.register(&secret, "");
    tracker.announce_http(hash, 1004, 0, "");
    let after = tracker.get("/logs/requests").text();
    assert!(is_told(&tracker) && after.contains(":1004") && !after.contains(":1002"), "{after}");
    assert!(after.matches("\"peer\"").count() > before);
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
    assert!(log.contains("remove") && log.contains("failed: the token"), "{log}");
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
    // A registered torrent has to be announced within ten seconds.
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
    assert_eq!(tracker.console("load"), load, "its peers are known as well");
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
fn a_closed_tracker_serves_only_its_catalogue() {
    let tracker = Tracker::with(TrackerConfig { open: false, ..TrackerConfig::in_memory() });
    let a = torrent("a", 4);
    assert!(tracker.announce_http(a.info_hash(), 1001, 0, "").failure().contains("catalogue"));
    let udp = tracker.udp();
    let announce = said(a.info_hash(), 1002, 9);
    let request = Request::Announce {
        connection_id: udp.id,
        transaction: 3,
        announce,
        url_data: Default::default(),
    };
    assert!(matches!(udp.ask(&request), Response::Error { .. }));
    tracker.register(&a, "");
    assert_eq!(tracker.announce_http(a.info_hash(), 1001, 0, "").int("complete"), Some(1));
    tracker.stop();
}
