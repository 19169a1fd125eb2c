//! Answers that are not quite HTTP or not quite bencode, and that other clients take.

use tokio::time::timeout;

use super::*;
use crate::tracker_client::packed::{deflate, gzip, zlib};
use piecework_core::Scope;

/// A server that gives this answer and ends the connection.
async fn closing_server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            // The client may have heard enough and be gone.
            let _ = stream.write_all(&answer).await;
        }
    });
    addr
}

/// The answers of sloppy servers with this body.
fn answers(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let chunks = |parts: &[&[u8]]| {
        let chunk =
            |part: &&[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), *part, b"\r\n"].concat();
        let chunks: Vec<u8> = parts.iter().flat_map(chunk).collect();
        [&chunks[..], b"0\r\n\r\n"].concat()
    };
    let (front, back) = body.split_at(body.len() / 2);
    let chunked = chunks(&[front, back]);
    let zipped = gzip(body);
    let with = |head: &str, body: &[u8]| [head.as_bytes(), b"\r\n", body].concat();
    vec![
        ("bare line feeds", with("HTTP/1.1 200 OK\nContent-Type: text/plain\n", body)[..].to_vec()),
        ("no reason", with("HTTP/1.1 200\r\n", body)),
        ("two spaces", with("HTTP/1.1  200  OK\r\n", body)),
        ("HTTP/1.0", with("HTTP/1.0 200 OK\r\n", body)),
        ("chunks of HTTP/1.0", with("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", &chunked)),
        ("chunks", with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", &chunked)),
        ("a space before the colon", with("HTTP/1.1 200 OK\r\nContent-Type : a\r\n", body)),
        ("a folded field", with("HTTP/1.1 200 OK\r\nX-Why: a\r\n\tb\r\n", body)),
        ("a line without a colon", with("HTTP/1.1 200 OK\r\nhello\r\n", body)),
        ("a length that is none", with("HTTP/1.1 200 OK\r\nContent-Length: many\r\n", body)),
        ("two lengths", {
            let len = body.len();
            let lengths = format!("Content-Length: {len}\r\nContent-Length: {}\r\n", len + 9);
            with(&format!("HTTP/1.1 200 OK\r\n{lengths}"), body)
        }),
        ("a length too long", {
            with(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len() + 1), body)
        }),
        ("gzip", with("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", &zipped)),
        ("gzip in chunks of HTTP/1.0", {
            let head =
                "HTTP/1.0 200 OK\r\nContent-Encoding: x-gzip\r\nTransfer-Encoding: chunked\r\n";
            with(head, &chunks(&[&zipped]))
        }),
        ("gzip that nothing tells of", with("HTTP/1.1 200 OK\r\n", &zipped)),
        ("gzip without its end", with("HTTP/1.1 200 OK\r\n", &zipped[..zipped.len() - 8])),
        ("zlib", with("HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n", &zlib(body))),
        ("deflate", with("HTTP/1.1 200 OK\r\nContent-Encoding: DEFLATE\r\n", &deflate(body))),
        ("no gzip though it says so", with("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", body)),
    ]
}

#[tokio::test]
async fn line_4_sloppy_answers_of_trackers_are_taken() {
    let reply = encode_reply(&a_reply(), &an_announce());
    let mut all = answers(&reply);
    for behind in [&b"\n"[..], b"\r\n\r\n", b"<!-- 0.01 s -->", b"\0"] {
        all.push(("bytes behind the answer", answer("200 OK", &[&reply[..], behind].concat())));
    }
    for (what, answer) in all {
        let addr = closing_server(answer).await;
        let taken = client(PATIENT).announce(&announce_url(addr), &an_announce()).await;
        assert_eq!(taken.unwrap_or_else(|fault| panic!("{what}: {fault}")), a_reply(), "{what}");
    }
}

#[tokio::test]
async fn line_4_sloppy_bencode_of_trackers_is_taken() {
    for (body, peers) in [
        (&b"d8:intervali90e5:peers6:\x0a\x00\x00\x01\x1a\xe1e"[..], 1),
        (b"d5:peers6:\x0a\x00\x00\x01\x1a\xe18:intervali90ee", 1),
        (b"d8:intervali090e5:peers7:\x0a\x00\x00\x01\x1a\xe1\x00e", 1),
        (b"d8:intervali90e8:intervali91e5:peers0:e", 0),
        (b"d8:intervali90e5:peersld2:ip9: 10.0.0.14:port4:6881eee", 1),
    ] {
        let reply = announced(vec![answer("200 OK", body)]).await.unwrap();
        assert_eq!((reply.interval.as_secs(), reply.peers.len()), (90, peers));
    }
}

#[tokio::test]
async fn line_4_sloppy_answers_to_scrapes_are_taken() {
    let entry = ScrapeEntry { complete: 1, downloaded: 2, incomplete: 3 };
    let reply = ScrapeReply { entries: vec![(HASH, entry)] };
    let body = [&encode_scrape_reply(&reply)[..], b"\n"].concat();
    for (what, answer) in answers(&body) {
        let addr = closing_server(answer).await;
        let taken = client(PATIENT).scrape(&announce_url(addr), &[HASH]).await;
        assert_eq!(taken.unwrap_or_else(|fault| panic!("{what}: {fault}")), reply, "{what}");
    }
}

#[tokio::test]
async fn line_4_a_torrent_by_url_comes_from_sloppy_servers_too() {
    let torrent = b"d4:infod6:lengthi1e4:name1:xee";
    for (what, answer) in answers(torrent) {
        let addr = closing_server(answer).await;
        let address = format!("http://{addr}/a.torrent");
        let fetched = fetch(&address, Provenance::Named, 1_000, PATIENT.timeout).await;
        let fetched = fetched.unwrap_or_else(|fault| panic!("{what}: {fault}"));
        assert_eq!(fetched, (torrent.to_vec(), Scope::Loopback), "{what}");
    }
}

#[tokio::test]
async fn line_4_a_torrent_by_url_that_broke_off_is_told() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nd4:infod6:leng";
    let addr = closing_server(head.to_vec()).await;
    let address = format!("http://{addr}/a.torrent");
    let fault = fetch(&address, Provenance::Named, 1_000, PATIENT.timeout).await.unwrap_err();
    assert!(fault.to_string().contains("broke off"), "{fault}");
}

#[tokio::test]
async fn line_4_what_is_unpacked_has_a_bound() {
    let bomb = gzip(&vec![b'x'; 8 * MAX_BODY_LEN]);
    assert!(bomb.len() < MAX_BODY_LEN / 10);
    let answer = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", &bomb[..]].concat();
    let addr = closing_server(answer).await;
    let fault = client(PATIENT).announce(&announce_url(addr), &an_announce()).await.unwrap_err();
    assert!(matches!(fault, TrackerError::TooLarge { limit: MAX_BODY_LEN }), "{fault}");
    let address = format!("http://{addr}/a.torrent");
    let fault = fetch(&address, Provenance::Named, 1_000_000, PATIENT.timeout).await.unwrap_err();
    assert!(fault.to_string().contains("larger than the `1000000` bytes"), "{fault}");
}

#[tokio::test]
async fn line_4_peers_by_name_are_looked_up() {
    let body = b"d8:intervali90e5:peersl\
        d2:ip9:localhost4:porti6881ee\
        d2:ip8:10.0.0.14:porti1ee\
        d2:ip14:no such host !4:porti2ee\
        d2:ip9:localhost4:porti0eeee";
    let mut reply = announced(vec![answer("200 OK", body)]).await.unwrap();
    reply.peers.sort();
    assert!(reply.peers.contains(&"10.0.0.1:1".parse().unwrap()), "{:?}", reply.peers);
    assert!(reply.peers.contains(&"127.0.0.1:6881".parse().unwrap()), "{:?}", reply.peers);
    assert!(reply.peers.len() <= 3 && reply.named.is_empty(), "{:?}", reply.peers);
}

/// An announce over a connection that is there already is no announce twice, and a connection that
/// the server has closed is no failure.
#[tokio::test]
async fn a_connection_is_used_again_and_its_end_is_no_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = announce_url(listener.local_addr().unwrap());
    let body = encode_reply(&a_reply(), &an_announce());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let served = spawn(async move {
        let mut requests = Vec::new();
        for most in [2, 1, 1] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..most {
                requests.push(read_request(&mut stream).await.len());
                stream.write_all(&answer).await.unwrap();
            }
        }
        requests
    });
    let client = client(PATIENT);
    for _ in 0..4 {
        assert_eq!(client.announce(&url, &an_announce()).await.unwrap(), a_reply());
    }
    let requests = timeout(PATIENT.timeout, served).await.unwrap().unwrap();
    assert_eq!(requests.len(), 4);
}
