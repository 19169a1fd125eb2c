//! Requests of clients that deviate from the BEPs, and their answers.

use super::*;

/// Returns the bytes of an announce over UDP, with an event and the bytes after the announce.
fn datagram(udp: &Udp, announce: Announce, event: u32, behind: &[u8]) -> Vec<u8> {
    let request = Request::Announce {
        connection_id: udp.id,
        transaction: 9,
        announce,
        url_data: Default::default(),
    };
    let mut datagram = Vec::new();
    request.encode(&mut datagram);
    datagram[80..84].copy_from_slice(&event.to_be_bytes());
    datagram.extend_from_slice(behind);
    datagram
}

#[test]
fn an_event_that_is_not_known_is_none_over_http_and_udp() {
    let tracker = Tracker::start();
    let udp = tracker.udp();
    // BEP 41: a path of 9 bytes, in two parts, and the end.
    let options = b"\x02\x04/key\x02\x05/path\x01\x00";
    for (port, event) in [(1001, 4), (1002, 5), (1003, u32::MAX)] {
        let (response, _) = udp.ask_raw(&datagram(&udp, said(hash(1), port, 9), event, options));
        let Response::Announce { reply, .. } = response else { panic!("{response:?}") };
        assert_eq!(reply.incomplete, u32::from(port) - 1000);
    }
    for (port, event) in [(1004, "paused"), (1005, "exploded"), (1006, "")] {
        let http = tracker.announce_http(hash(1), port, 9, &format!("&event={event}"));
        assert_eq!(http.int("incomplete"), Some(i64::from(port) - 1000), "{}", http.text());
    }
    // None of them is a stop, whatever follows.
    let (stopped, _) = udp.ask_raw(&datagram(&udp, said(hash(1), 1001, 9), 3, b"\0\0\0"));
    let Response::Announce { reply, .. } = stopped else { panic!("{stopped:?}") };
    assert_eq!(reply.incomplete, 5);
    tracker.stop();
}

#[test]
fn peers_one_by_one_have_their_ids_unless_these_are_not_wanted() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    for hash in [hash(1), a.info_hash()] {
        tracker.announce_http(hash, 1001, 0, "");
        tracker.udp().announce(said(hash, 1002, 9));
        let listed = tracker.announce_http(hash, 1003, 9, "&compact=0");
        let scan = bencode::scan(&listed.body, &bencode::Limits::default()).unwrap();
        assert!(scan.is_canonical());
        let peers = scan.root().get(b"peers").unwrap();
        let mut found: Vec<_> = peers
            .items()
            .map(|peer| {
                let id = peer.get(b"peer id").unwrap().as_bytes().unwrap().to_vec();
                (peer.get(b"port").unwrap().as_int().unwrap(), id)
            })
            .collect();
        found.sort_unstable();
        let expected = [1001, 1002].map(|port| (i64::from(port), peer_id(port).0.to_vec()));
        assert_eq!(found, expected);
        let without = tracker.announce_http(hash, 1003, 9, "&compact=0&no_peer_id=1");
        assert!(without.text().contains("2:ip9:127.0.0.14:porti1001e"), "{}", without.text());
        assert!(!without.text().contains("peer id"));
    }
    tracker.stop();
}

#[test]
fn every_form_of_an_announce_url_is_answered_and_in_bencode() {
    let tracker = Tracker::start();
    let named = |port: u16| {
        let (hash, id) = (escaped(&hash(1).0), escaped(&peer_id(port).0));
        format!("info_hash={hash}&peer_id={id}&port={port}&left=0")
    };
    let forms = [
        "/announce?",
        "/announce.php?",
        "/0123456789abcdef/announce?",
        "/announce/0123456789abcdef?",
        "/announce.php?passkey=0123&",
        "/announce?passkey=0123?",
        "//announce?",
        "/x/y/announce.php?key=0123&",
    ];
    for (at, form) in (1u16..).zip(forms) {
        let http = tracker.get(&format!("{form}{}", named(1000 + at)));
        assert_eq!((http.status, http.int("complete")), (200, Some(at.into())), "{form}");
    }
    for form in ["/scrape?", "/scrape.php?", "/0123/scrape?", "/scrape/0123?"] {
        let http = tracker.get(&format!("{form}info_hash={}", escaped(&hash(1).0)));
        assert!(http.text().contains(&format!("8:completei{}e", forms.len())), "{form}");
    }
    for (method, path) in [
        ("GET", "/announce.php".to_owned()),
        ("GET", "/0123/announce".to_owned()),
        ("GET", "/0123/scrape".to_owned()),
        ("GET", format!("/foo?{}", named(1))),
        ("GET", format!("/?{}", named(1))),
        ("GET", format!("/torrents?{}", named(1))),
        ("POST", format!("/announce?{}", named(1))),
        ("PUT", format!("/0123/announce?{}", named(1))),
    ] {
        let mut stream = tracker.connect();
        // By a name that only the torrent knows, from a page, as it may be.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: tracker.example\r\nAccept: text/html\r\n\
             Origin: http://evil.example\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let http = Http::read(&mut stream);
        assert!(!http.failure().is_empty(), "{path}: {}", http.text());
    }
    let mut stream = tracker.connect();
    let head = format!("HEAD /announce?{} HTTP/1.0\r\n\r\n", named(2000));
    stream.write_all(head.as_bytes()).unwrap();
    let looked = Http::read(&mut stream);
    assert_eq!((looked.status, looked.body.len()), (200, 0));
    assert_eq!(tracker.json("/stats")["peers"], forms.len(), "who only looks is not there");
    assert_eq!(tracker.get("/logs/files/announce").status, 404, "a file may have that name");
    tracker.stop();
}

#[test]
fn who_leaves_without_its_port_is_known_by_its_id() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    for hash in [hash(1), a.info_hash()] {
        tracker.announce_http(hash, 1001, 0, "");
        tracker.announce_http(hash, 1002, 0, "");
        let ids = [peer_id(7), peer_id(1001)].map(|id| escaped(&id.0));
        for (id, complete) in ids.iter().zip([2, 1]) {
            let info_hash = escaped(&hash.0);
            let path = format!("/announce?info_hash={info_hash}&peer_id={id}&event=stopped");
            assert_eq!(tracker.get(&path).int("complete"), Some(complete));
        }
        let left = tracker.announce_http(hash, 1003, 9, "").peers();
        assert_eq!(left, [local(1002)]);
    }
    tracker.stop();
}

#[test]
fn a_peer_that_does_not_know_what_is_left_is_no_seed() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    let (info_hash, id) = (escaped(&a.info_hash().0), escaped(&peer_id(1001).0));
    for left in ["", "&left=-1", "&left=9223372036854775807"] {
        let path = format!("/announce?info_hash={info_hash}&peer_id={id}&port=1001{left}");
        let http = tracker.get(&path);
        assert_eq!((http.int("complete"), http.int("incomplete")), (Some(0), Some(1)), "{left}");
        let peers = &tracker.json("/logs/files/a")["files"][0]["peers"];
        assert_eq!(peers[0]["left"], Value::Null);
    }
    tracker.stop();
}

#[test]
fn who_takes_no_connections_gets_peers_and_is_not_listed() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    let udp = tracker.udp();
    for hash in [hash(1), a.info_hash()] {
        tracker.announce_http(hash, 1001, 0, "");
        for event in ["", "&event=started", "&event=completed"] {
            let http = tracker.announce_http(hash, 0, 9, event);
            assert_eq!(http.peers(), [local(1001)], "{}", http.text());
            assert_eq!((http.int("complete"), http.int("incomplete")), (Some(1), Some(0)));
        }
        for event in 0..3 {
            let (response, _) = udp.ask_raw(&datagram(&udp, said(hash, 0, 9), event, b""));
            let Response::Announce { reply, .. } = response else { panic!("{response:?}") };
            assert_eq!((&reply.peers[..], reply.incomplete), (&[local(1001)][..], 0));
        }
        let counts = udp.scrape(vec![hash])[0];
        assert_eq!((counts.complete, counts.incomplete, counts.downloaded), (1, 0, 0));
        let log = tracker.json("/logs/requests?limit=1");
        let last = &log["requests"][0];
        assert_eq!((&last["ok"], &last["note"]), (&true.into(), &"not listed: port 0".into()));
        let log = tracker.console("request logs 6");
        assert_eq!(log.matches("; not listed: port 0").count(), 6, "{log}");
        assert!(!log.contains("failed"), "{log}");
    }
    // It opens no torrent.
    assert!(tracker.announce_http(hash(2), 0, 9, "").peers().is_empty());
    assert_eq!(tracker.json("/stats")["torrents"], 2);
    assert_eq!(tracker.json("/stats")["peers"], 2);
    tracker.stop();
}

#[test]
fn every_refused_request_is_in_the_log_with_its_reason() {
    let tracker = Tracker::with(TrackerConfig { open: false, ..TrackerConfig::in_memory() });
    let a = torrent("a file", 4);
    tracker.register(&a, "");
    let udp = tracker.udp();
    udp.ask_raw(&datagram(&udp, said(hash(1), 1001, 9), 2, b""));
    udp.ask_raw(&[&udp.id.to_be_bytes()[..], &[0, 0, 0, 2, 0, 0, 0, 9], &[1; 5]].concat());
    udp.ask_raw(&[&udp.id.to_be_bytes()[..], &[0, 0, 0, 7, 0, 0, 0, 9]].concat());
    let named = escaped(&a.info_hash().0);
    tracker.get(&format!("/announce.php?info_hash={named}&left=0"));
    tracker.get("/scrape");
    tracker.get(&format!("/nowhere?info_hash={named}"));
    tracker.http("POST", &format!("/torrents?name={}", "x".repeat(300)), b"");
    let log = tracker.console("request logs");
    for reason in [
        "this tracker serves only the torrents of its catalogue",
        "a datagram of `21` bytes is not a tracker's scrape",
        "unknown tracker action `7`",
        "`peer_id` is missing",
        "a scrape has to name torrents",
        "`/nowhere` is not an announce address",
    ] {
        let shown: String = log.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(reason), "{reason} is not in\n{log}");
    }
    let requests = tracker.json("/logs/requests");
    let failed = |request: &&Value| request["ok"] == false;
    let failed: Vec<_> = requests["requests"].as_array().unwrap().iter().filter(failed).collect();
    assert_eq!(failed.len(), 7, "{log}");
    let of_it = failed.iter().filter(|request| request["name"] == "a file").count();
    assert_eq!(of_it, 2, "it is told which torrent they were about");
    tracker.stop();
}

#[test]
fn peers_are_found_by_address_and_client_over_all_listed_torrents() {
    let tracker = Tracker::start();
    let (a, b, hidden) = (torrent("a", 4), torrent("b", 4), torrent("c", 4));
    tracker.register(&a, "");
    tracker.register(&b, "");
    tracker.register(&hidden, "?unlisted=1");
    for (torrent, ports) in [(&a, 1001..1004), (&b, 2001..2002), (&hidden, 1009..1010)] {
        for port in ports {
            tracker.announce_http(torrent.info_hash(), port, 0, "");
        }
    }
    tracker.announce_http(hash(9), 1005, 0, "");
    let find = |text: &str| {
        let found = tracker.json(&format!("/peers?find={text}"));
        assert_eq!(found["more"], false);
        let peers = found["peers"].as_array().unwrap().iter();
        let mut peers: Vec<_> = peers
            .map(|peer| {
                format!("{} {}", peer["name"].as_str().unwrap(), peer["peer"].as_str().unwrap())
            })
            .collect();
        peers.sort();
        peers
    };
    let all = ["a 127.0.0.1:1001", "a 127.0.0.1:1002", "a 127.0.0.1:1003", "b 127.0.0.1:2001"];
    assert_eq!(find(":100"), all[..3]);
    assert_eq!(find("TRANSMISSION"), all);
    assert_eq!(find("nobody"), [] as [&str; 0]);
    let one = &tracker.json("/peers?find=127.0.0.1:2001")["peers"][0];
    assert_eq!((&one["held"], &one["pieces"]), (&json!(4), &json!(4)));
    assert!(one["client"].as_str().unwrap().starts_with("Transmission"));
    for wrong in ["/peers", "/peers?find=ab", &format!("/peers?find={}", "x".repeat(81))] {
        assert_eq!(tracker.get(wrong).status, 400);
    }
    for port in 3000..3200 {
        tracker.announce_http(a.info_hash(), port, 0, "");
    }
    let many = tracker.json("/peers?find=transmission");
    assert_eq!((many["peers"].as_array().unwrap().len(), &many["more"]), (100, &json!(true)));
    tracker.stop();
}

#[test]
fn a_seed_between_two_announces_is_not_silent() {
    let tracker = Tracker::start();
    let a = torrent("a", 4);
    tracker.register(&a, "");
    tracker.announce_http(a.info_hash(), 1001, 0, "");
    tracker.clock.advance(Duration::from_secs(149));
    assert!(!tracker.console("swarm a").contains("gone silent"));
    let map = tracker.json(&format!("/torrents/{}/map", a.info_hash()));
    assert_eq!((&map["silent_after"], &map["peers"][0]["silent"]), (&json!(150), &json!(149)));
    assert_eq!(map["peers"][0]["reachable"], Value::Null);
    tracker.clock.advance(Duration::from_secs(2));
    assert!(tracker.console("swarm a").contains("gone silent: 127.0.0.1:1001"));
    tracker.stop();
}
