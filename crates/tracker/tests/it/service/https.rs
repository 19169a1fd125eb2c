//! HTTPS, and proxies before the tracker.

use super::*;

/// A certificate of this folder and its key.
fn certificate(name: &str) -> (&'static [u8], &'static [u8]) {
    match name {
        "one" => (include_bytes!("certificates/one.pem"), include_bytes!("certificates/one.key")),
        _ => (include_bytes!("certificates/two.pem"), include_bytes!("certificates/two.key")),
    }
}

fn with_certificate(dir: &Path) -> TrackerConfig {
    TrackerConfig {
        certificate: Some(dir.join("cert.pem")),
        certificate_key: Some(dir.join("key.pem")),
        ..TrackerConfig::in_memory()
    }
}

fn put(dir: &Path, name: &str) {
    let (certificate, key) = certificate(name);
    // As tools that renew certificates do.
    for (file, bytes) in [("cert.pem", certificate), ("key.pem", key)] {
        std::fs::write(dir.join("new"), bytes).unwrap();
        std::fs::rename(dir.join("new"), dir.join(file)).unwrap();
    }
}

/// Returns the answer over HTTPS to a client that trusts only this certificate.
fn ask(tracker: &Tracker, trusted: &str, path: &str) -> Result<Vec<u8>, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(certificate(trusted).0).unwrap();
    let url = format!("https://localhost:{}{path}", tracker.addr.port());
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted])
        .resolve("localhost", tracker.addr)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    tracker.runtime.block_on(async {
        let answer = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
        Ok(answer.bytes().await.unwrap().to_vec())
    })
}

#[test]
fn https_and_http_are_served_on_one_port_and_a_new_certificate_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "one");
    let tracker = Tracker::with(with_certificate(dir.path()));
    let named = format!("info_hash={}&peer_id={}", escaped(&[1; 20]), escaped(&peer_id(1001).0));
    let announce = format!("/announce?{named}&port=1001&left=0");
    let answer = ask(&tracker, "one", &announce).unwrap();
    assert!(answer.starts_with(b"d8:completei1e"));
    assert!(ask(&tracker, "two", &announce).is_err(), "it is another one's");
    assert_eq!(tracker.announce_http(hash(1), 1002, 9, "").peers(), [local(1001)]);
    assert_eq!(tracker.udp().announce(said(hash(1), 1003, 9)).complete, 1);
    // Half of a new one changes nothing.
    std::fs::write(dir.path().join("key.pem"), certificate("two").1).unwrap();
    assert!(ask(&tracker, "one", "/stats").is_ok());
    put(dir.path(), "two");
    let start = Instant::now();
    while ask(&tracker, "two", "/stats").is_err() {
        assert!(start.elapsed() < PATIENCE, "the new certificate is not used");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(ask(&tracker, "one", "/stats").is_err());
    tracker.stop();
}

#[test]
fn what_is_no_tls_costs_nobody_else_anything() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "one");
    let config = TrackerConfig {
        header_timeout: Duration::from_millis(200),
        ..with_certificate(dir.path())
    };
    let tracker = Tracker::with(config);
    for begin in [&b""[..], b"\x16", b"\x16\x03\x01\xff\xff", &[0x16; 600], b"\x80garbage"] {
        let mut stream = tracker.connect();
        stream.write_all(begin).unwrap();
        // The connection is closed, whatever the client waits for.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(ask(&tracker, "one", "/stats").is_ok());
    tracker.stop();
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_sentence_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "one");
    let refusal = |config| match Tracker::try_with(config) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    };
    let config = || with_certificate(dir.path());
    let alone = TrackerConfig { certificate_key: None, ..config() };
    assert!(refusal(alone).contains("set together"));
    let missing = TrackerConfig { certificate: Some(dir.path().join("none.pem")), ..config() };
    assert!(refusal(missing).contains("none.pem` cannot be read"));
    let swapped = TrackerConfig { certificate: Some(dir.path().join("key.pem")), ..config() };
    assert!(refusal(swapped).contains("has no certificate in PEM form"));
    std::fs::write(dir.path().join("key.pem"), certificate("two").1).unwrap();
    assert!(refusal(config()).contains("cannot be used with the key"));
    let proxies = vec!["proxy.example".to_owned()];
    assert!(refusal(TrackerConfig { proxies, ..TrackerConfig::in_memory() }).contains("`proxies`"));
}

#[test]
fn who_announces_through_a_proxy_is_known_by_its_own_address() {
    for (proxies, believed) in [(vec!["127.0.0.0/8".to_owned()], true), (Vec::new(), false)] {
        let tracker = Tracker::with(TrackerConfig { proxies, ..TrackerConfig::in_memory() });
        let announce = |port: u16, header: &str| {
            let (hash, id) = (escaped(&hash(1).0), escaped(&peer_id(port).0));
            let path = format!("/announce?info_hash={hash}&peer_id={id}&port={port}&left=9");
            tracker.http_with("GET", &path, header, b"")
        };
        announce(1001, "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n");
        announce(1002, "Forwarded: for=\"192.0.2.8:4711\";proto=https\r\n");
        let given = announce(1003, "X-Forwarded-For: 192.0.2.9, 127.0.0.2\r\n").peers();
        let expected = match believed {
            true => ["192.0.2.7:1001", "192.0.2.8:1002"].map(|addr| addr.parse().unwrap()),
            false => [local(1001), local(1002)],
        };
        assert_eq!(given, expected);
        let forged = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=6.6.6.6\r\n";
        assert_eq!(announce(1004, forged).status, if believed { 400 } else { 200 });
        let log = tracker.console("request logs");
        assert_eq!(log.contains("192.0.2.7"), believed, "{log}");
        assert!(!log.contains("6.6.6.6"), "{log}");
        tracker.stop();
    }
}

#[test]
fn connections_of_a_proxy_are_not_those_of_one_client() {
    // Of loopback's four places each user has two; of a proxy's connections all four.
    let config = |proxies: &[&str]| TrackerConfig {
        max_connections: 4,
        proxies: proxies.iter().map(|text| (*text).to_owned()).collect(),
        ..TrackerConfig::in_memory()
    };
    let tracker = Tracker::with(config(&["127.0.0.1"]));
    let mut open: Vec<TcpStream> = (0..4).map(|_| tracker.connect()).collect();
    for stream in &mut open {
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = [0; 64];
        let len = stream.read(&mut answer).unwrap();
        assert!(answer[..len].starts_with(b"HTTP/1.1 200"));
    }
    tracker.stop();
}
