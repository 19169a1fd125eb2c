//! Several threads that answer datagrams at one address, and announces over HTTP that need no router.

use super::*;

fn with_workers(count: usize) -> Tracker {
    let config = TrackerConfig { udp_workers: count, ..TrackerConfig::in_memory() };
    let tracker = Tracker::with(config);
    assert_eq!(tracker.handle().udp_workers(), count);
    tracker
}

fn announce(connection_id: u64, transaction: u32, port: u16) -> Vec<u8> {
    let announce = said(hash(1), port, 9);
    let request =
        Request::Announce { connection_id, transaction, announce, url_data: Default::default() };
    let mut datagram = Vec::new();
    request.encode(&mut datagram);
    datagram
}

#[test]
fn every_worker_accepts_the_connection_ids_of_the_others() {
    let tracker = with_workers(4);
    let first = tracker.udp();
    for port in 1..=64 {
        // By its port the system gives each client to some worker.
        let udp = Udp { id: first.id, ..tracker.udp() };
        let reply = udp.announce(said(hash(1), port, 9));
        assert_eq!(reply.incomplete, u32::from(port));
        assert_eq!(reply.peers.len(), usize::from(port - 1).min(50));
    }
    assert_eq!(tracker.udp().scrape(vec![hash(2), hash(1)])[1].incomplete, 64);
    let stats = tracker.json("/stats");
    assert_eq!((&stats["announces_udp"], &stats["scrapes"]), (&64.into(), &1.into()));
    assert_eq!((&stats["udp_rejected"], &stats["requests_logged"]), (&0.into(), &64.into()));
    tracker.stop();
}

/// Batches have 32 datagrams at most. What is wrong is at every place of a batch, and is of every length.
#[test]
fn malformed_datagrams_among_many_others_harm_none_of_them() {
    let tracker = with_workers(1);
    let udp = tracker.udp();
    let mut sent = 0;
    for round in 0..200_u32 {
        let len = (round as usize * 37) % 98;
        let mut bad = announce(udp.id, 1_000_000 + round, 7);
        match round % 4 {
            // Cut announces with a valid id are answered by an error.
            0 => bad.truncate(len.max(16)),
            1 => bad.truncate(len.min(15)),
            2 => bad[..8].fill(0xa5),
            _ => bad.resize(2_049 + len, 0),
        }
        udp.socket.send(&bad).unwrap();
        udp.socket.send(&announce(udp.id, round, 1)).unwrap();
        sent += 1;
        if round % 50 < 49 {
            continue;
        }
        let mut answered = 0;
        while answered < sent {
            let mut buffer = [0; 4096];
            let len = udp.socket.recv(&mut buffer).unwrap();
            match Response::decode(&buffer[..len], udp.family).unwrap() {
                Response::Announce { transaction, reply } => {
                    assert_eq!(transaction, round + 1 - sent + answered, "in order");
                    assert_eq!((reply.incomplete, reply.peers.len()), (1, 0));
                    answered += 1;
                }
                Response::Error { transaction, .. } => assert!(transaction >= 1_000_000),
                other => panic!("{other:?}"),
            }
        }
        sent = 0;
    }
    let stats = tracker.json("/stats");
    assert_eq!((&stats["announces_udp"], &stats["peers"]), (&200.into(), &1.into()));
    tracker.stop();
}

#[test]
fn a_tracker_with_several_workers_ends_and_leaves_its_port_free() {
    for listen in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
        let listen = listen.parse().unwrap();
        let config = TrackerConfig { listen, udp_workers: 4, ..TrackerConfig::in_memory() };
        let tracker = Tracker::with(config);
        let addr = tracker.addr;
        assert_ne!(addr.port(), 0);
        let asked = match addr.ip().is_unspecified() {
            true => local(addr.port()),
            false => addr,
        };
        let udp = Udp::new(asked);
        udp.announce(said(hash(1), 1, 9));
        assert!(UdpSocket::bind(addr).is_err(), "it is in use");
        tracker.stop();
        UdpSocket::bind(addr).unwrap();
    }
}

#[test]
fn a_tracker_that_is_dropped_stops_its_workers() {
    let mut tracker = with_workers(2);
    let addr = tracker.addr;
    drop(tracker.handle.take());
    let start = Instant::now();
    while UdpSocket::bind(addr).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// The answers of a connection that was told to close after the last request.
fn answers_of(stream: &mut TcpStream) -> Vec<String> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let text = String::from_utf8_lossy(&all).into_owned();
    text.split("HTTP/1.1 ").skip(1).map(str::to_owned).collect()
}

#[test]
fn requests_that_are_sent_at_once_are_answered_in_order_whoever_answers_them() {
    let tracker = Tracker::start();
    let announce = |port: u16, more: &str| {
        let (hash, id) = (escaped(&hash(1).0), escaped(&peer_id(port).0));
        format!("GET /announce?info_hash={hash}&peer_id={id}&port={port}&left=9{more} HTTP/1.1\r\n")
    };
    let (host, close) = ("Host: 127.0.0.1\r\n\r\n", "Host: x\r\nConnection: close\r\n\r\n");
    let all = [
        announce(1, "") + host,
        announce(2, "&event=started") + host,
        announce(3, "&left=much") + host,
        format!("GET /stats HTTP/1.1\r\n{host}"),
        announce(4, "") + close,
    ];
    let mut stream = tracker.connect();
    stream.write_all(all.concat().as_bytes()).unwrap();
    let answers = answers_of(&mut stream);
    let wanted =
        ["incompletei1e", "incompletei2e", "failure reason", "\"peers\":2", "incompletei3e"];
    assert_eq!(answers.len(), wanted.len(), "{answers:?}");
    for (answer, wanted) in answers.iter().zip(wanted) {
        assert!(answer.starts_with("200 OK") && answer.contains(wanted), "{answer}");
    }
    // The head of an answer is the same, whoever gives it.
    let fields = |answer: &String| {
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        let names =
            head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
        let mut names: Vec<_> = names.filter(|name| name != "connection").collect();
        names.sort_unstable();
        names
    };
    assert_eq!(fields(&answers[0]), fields(&answers[4]));
    let stats = tracker.json("/stats");
    assert_eq!((&stats["announces_http"], &stats["refused"]), (&3.into(), &1.into()));
    let mut closing = tracker.connect();
    closing.write_all((announce(1, "") + close).as_bytes()).unwrap();
    assert_eq!(answers_of(&mut closing).len(), 1);
    tracker.stop();
}
