//! Against trackers made for the purpose, on loopback.

mod families;
mod outside;
mod sloppy;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn};

use super::*;
use piecework_core::PeerId;
use piecework_proto::announce::catalogue::RegisterOptions;
use piecework_proto::announce::http::{encode_failure, encode_reply, encode_scrape_reply};
use piecework_proto::announce::udp::{Family, Request, Response};
use piecework_proto::announce::{AnnounceError, AnnounceEvent, Provenance, Retry, ScrapeEntry};

/// Long enough never to be reached by what answers.
const PATIENT: ClientOptions = ClientOptions {
    timeout: Duration::from_secs(60),
    connect_timeout: Duration::from_secs(60),
    first_retry: Duration::from_secs(60),
    local_ip: None,
    reachable_over: ReachableOver::Both,
};

/// For those who never answer: how soon is all the same.
const IMPATIENT: ClientOptions = ClientOptions { timeout: Duration::from_millis(20), ..PATIENT };

/// Sends again almost at once, for as long as it takes.
const EAGER: ClientOptions = ClientOptions { first_retry: Duration::from_millis(5), ..PATIENT };

const HASH: InfoHash = InfoHash([7; 20]);

fn client(options: ClientOptions) -> TrackerClient {
    TrackerClient::new(options).unwrap()
}

fn an_announce() -> Announce {
    let mut announce = Announce::new(HASH, PeerId(*b"-PW0100-abcdefghijkl"), 6_881, 5);
    announce.event = AnnounceEvent::Started;
    announce
}

fn a_reply() -> AnnounceReply {
    let mut reply = AnnounceReply::new(Duration::from_secs(90));
    (reply.complete, reply.incomplete) = (2, 3);
    reply.peers = vec!["10.0.0.1:6881".parse().unwrap()];
    reply
}

/// A tracker over UDP that answers each request as `answer` says, and tells what it was asked.
async fn udp_tracker(
    mut answer: impl FnMut(&Request) -> Vec<Response> + Send + 'static,
) -> (TrackerUrl, mpsc::Receiver<Request>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = TrackerUrl::parse(&format!("udp://{}", socket.local_addr().unwrap())).unwrap();
    let (seen, asked) = mpsc::channel(1_000);
    spawn(async move {
        let mut datagram = [0; 2_048];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            let request = Request::decode(&datagram[..len]).unwrap();
            for response in answer(&request) {
                let mut out = Vec::new();
                response.encode(Family::V4, &mut out);
                socket.send_to(&out, from).await.unwrap();
            }
            seen.try_send(request).unwrap();
        }
    });
    (url, asked)
}

/// What a sound tracker answers, with this as its connection id.
fn sound(request: &Request, connection_id: u64) -> Response {
    let transaction = request.transaction();
    match request {
        Request::Connect { .. } => Response::Connect { transaction, connection_id },
        Request::Announce { connection_id: shown, .. }
        | Request::Scrape { connection_id: shown, .. }
            if *shown != connection_id =>
        {
            Response::Error { transaction, message: "unknown connection".to_owned() }
        }
        Request::Announce { .. } => Response::Announce { transaction, reply: a_reply() },
        Request::Scrape { hashes, .. } => {
            let entries = (0..hashes.len() as u32)
                .map(|complete| ScrapeEntry { complete, ..ScrapeEntry::default() });
            Response::Scrape { transaction, entries: entries.collect() }
        }
    }
}

fn connects(asked: &mut mpsc::Receiver<Request>) -> usize {
    let mut count = 0;
    while let Ok(request) = asked.try_recv() {
        count += usize::from(matches!(request, Request::Connect { .. }));
    }
    count
}

#[tokio::test]
async fn announces_over_udp_and_keeps_the_connection_id() {
    let (url, mut asked) = udp_tracker(|request| vec![sound(request, 9)]).await;
    let client = client(PATIENT);
    for _ in 0..3 {
        assert_eq!(client.announce(&url, &an_announce()).await.unwrap(), a_reply());
    }
    assert_eq!(connects(&mut asked), 1);
}

#[tokio::test]
async fn announces_at_one_time_share_one_connection_id() {
    let (url, mut asked) = udp_tracker(|request| vec![sound(request, 9)]).await;
    let client = client(PATIENT);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (client, url) = (client.clone(), url.clone());
        tasks.spawn(async move { client.announce(&url, &an_announce()).await.unwrap() });
    }
    assert_eq!(tasks.join_all().await, vec![a_reply(); 50]);
    assert_eq!(connects(&mut asked), 1);
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let mut lost = 0;
    let (url, _asked) = udp_tracker(move |request| {
        lost += 1;
        if lost % 3 == 0 { vec![sound(request, 9)] } else { Vec::new() }
    })
    .await;
    assert_eq!(client(EAGER).announce(&url, &an_announce()).await.unwrap(), a_reply());
}

#[tokio::test]
async fn an_answer_with_another_transaction_id_is_passed_over() {
    let (url, _asked) = udp_tracker(|request| {
        let transaction = request.transaction().wrapping_add(1);
        let message = "not for you".to_owned();
        vec![Response::Error { transaction, message }, sound(request, 9)]
    })
    .await;
    assert_eq!(client(PATIENT).announce(&url, &an_announce()).await.unwrap(), a_reply());
}

#[tokio::test]
async fn an_answer_from_another_address_is_passed_over() {
    let asked = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = TrackerUrl::parse(&format!("udp://{}", asked.local_addr().unwrap())).unwrap();
    spawn(async move {
        let mut datagram = [0; 2_048];
        loop {
            let (len, from) = asked.recv_from(&mut datagram).await.unwrap();
            let request = Request::decode(&datagram[..len]).unwrap();
            let (mut lie, mut truth) = (Vec::new(), Vec::new());
            let transaction = request.transaction();
            Response::Error { transaction, message: "go away".to_owned() }
                .encode(Family::V4, &mut lie);
            sound(&request, 9).encode(Family::V4, &mut truth);
            other.send_to(&lie, from).await.unwrap();
            asked.send_to(&truth, from).await.unwrap();
        }
    });
    assert_eq!(client(PATIENT).announce(&url, &an_announce()).await.unwrap(), a_reply());
}

#[tokio::test]
async fn a_tracker_that_was_restarted_is_connected_to_again() {
    let mut requests = 0;
    let (url, mut asked) = udp_tracker(move |request| {
        requests += 1;
        vec![sound(request, if requests <= 2 { 9 } else { 10 })]
    })
    .await;
    let client = client(PATIENT);
    for _ in 0..2 {
        assert_eq!(client.announce(&url, &an_announce()).await.unwrap(), a_reply());
    }
    assert_eq!(connects(&mut asked), 2);
}

#[tokio::test]
async fn a_tracker_silent_about_a_stale_connection_id_is_connected_to_again() {
    let mut id = 9;
    let (url, _asked) = udp_tracker(move |request| {
        let answer = sound(request, id);
        match answer {
            Response::Error { .. } => return Vec::new(),
            Response::Announce { .. } => id = 10,
            _ => {}
        }
        vec![answer]
    })
    .await;
    let client = client(EAGER);
    for _ in 0..2 {
        assert_eq!(client.announce(&url, &an_announce()).await.unwrap(), a_reply());
    }
}

#[tokio::test]
async fn a_refusal_over_udp_is_told_safely() {
    let (url, _asked) = udp_tracker(|request| match request {
        Request::Connect { .. } => vec![sound(request, 9)],
        _ => vec![Response::Error {
            transaction: request.transaction(),
            message: "no \x1b[2J".to_owned(),
        }],
    })
    .await;
    let fault = client(PATIENT).announce(&url, &an_announce()).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Refused(_)));
    assert_eq!(fault.to_string(), "the tracker refused: no \\x1b[2J");
}

#[tokio::test]
async fn an_answer_to_something_else_is_an_error() {
    let (url, _asked) = udp_tracker(|request| {
        vec![Response::Connect { transaction: request.transaction(), connection_id: 9 }]
    })
    .await;
    let fault = client(PATIENT).announce(&url, &an_announce()).await.unwrap_err();
    assert!(matches!(fault, TrackerError::WrongAnswer), "{fault}");
}

#[tokio::test]
async fn a_silent_udp_tracker_is_given_up() {
    let (url, _asked) = udp_tracker(|_| Vec::new()).await;
    let fault = client(IMPATIENT).announce(&url, &an_announce()).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Timeout), "{fault}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn tracker_down_is_noticed_at_once_over_udp() {
    // Connected elsewhere: the port is taken, and closed to us.
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    closed.connect(closed.local_addr().unwrap()).await.unwrap();
    let url = TrackerUrl::parse(&format!("udp://{}", closed.local_addr().unwrap())).unwrap();
    let client = client(PATIENT);
    for _ in 0..2 {
        let fault = client.announce(&url, &an_announce()).await.unwrap_err();
        assert!(matches!(fault, TrackerError::Unreachable(_)), "{fault}");
    }
}

#[tokio::test]
async fn scrapes_over_udp_in_as_many_questions_as_it_takes() {
    let (url, _asked) = udp_tracker(|request| vec![sound(request, 9)]).await;
    let hashes: Vec<_> = (0..100).map(|n| InfoHash([n; 20])).collect();
    let reply = client(PATIENT).scrape(&url, &hashes).await.unwrap();
    assert_eq!(reply.entries.len(), 100);
    assert_eq!((reply.entries[73].0, reply.entries[73].1.complete), (hashes[73], 73));
    assert_eq!((reply.entries[74].0, reply.entries[74].1.complete), (hashes[74], 0));
}

/// An HTTP server that gives these answers, one a connection, the last one for ever, and tells
/// what it was asked. It keeps connections open, as one that hangs does.
async fn http_server(answers: Vec<Vec<u8>>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, asked) = mpsc::channel(100);
    spawn(async move {
        let mut answers = answers.into_iter().peekable();
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            let answer = answers.next().unwrap();
            if answers.peek().is_none() {
                answers = vec![answer.clone()].into_iter().peekable();
            }
            seen.send(request).await.unwrap();
            // The client may have heard enough and be gone.
            let _ = stream.write_all(&answer).await;
            open.push(stream);
        }
    });
    (addr, asked)
}

/// Head and body of a request, bytes as Latin-1.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    let mut wanted = None;
    let mut chunk = [0; 4_096];
    while wanted.is_none_or(|wanted| text.chars().count() < wanted) {
        let len = stream.read(&mut chunk).await.unwrap();
        assert!(len > 0, "the client left in the middle of its request: {text}");
        text.extend(chunk[..len].iter().map(|byte| *byte as char));
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body: usize = length.map_or(0, |length| length.parse().unwrap());
            wanted = Some(text[..end + 4].chars().count() + body);
        }
    }
    text
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn announce_url(addr: SocketAddr) -> TrackerUrl {
    let url = TrackerUrl::parse(&format!("http://{addr}/announce")).unwrap();
    url.named_by(Provenance::Named)
}

async fn announced(answers: Vec<Vec<u8>>) -> Result<AnnounceReply, TrackerError> {
    let (addr, _asked) = http_server(answers).await;
    client(PATIENT).announce(&announce_url(addr), &an_announce()).await
}

#[tokio::test]
async fn announces_over_http() {
    let body = encode_reply(&a_reply(), &an_announce());
    let (addr, mut asked) = http_server(vec![answer("200 OK", &body)]).await;
    let reply = client(PATIENT).announce(&announce_url(addr), &an_announce()).await.unwrap();
    assert_eq!(reply, a_reply());
    let request = asked.recv().await.unwrap();
    let query = encode_query(&an_announce());
    assert!(request.starts_with(&format!("GET /announce?{query} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("User-Agent: Piecework/0.1.0\r\n"), "{request}");
}

#[tokio::test]
async fn a_failure_reason_counts_whatever_the_status() {
    let body = encode_failure("unregistered torrent");
    for status in ["200 OK", "404 Not Found"] {
        let fault = announced(vec![answer(status, &body)]).await.unwrap_err();
        assert_eq!(fault.to_string(), "the tracker refused: unregistered torrent");
    }
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back() {
    let refusal = encode_failure("busy");
    let head = |status: &str, header: &str| {
        let len = refusal.len();
        format!(
            "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
        )
    };
    let retry = async |status: &str, header: &str| {
        let answer = [head(status, header).as_bytes(), &refusal].concat();
        announced(vec![answer]).await.unwrap_err().retry()
    };
    let after = |seconds| Some(Retry::After(Duration::from_secs(seconds)));
    assert_eq!(retry("503 Busy", "Retry-After: 120").await, after(120));
    assert_eq!(retry("200 OK", "X-Other: 120").await, None);
    assert_eq!(retry("429 Slow down", "Retry-After: soon").await, None);
    let past = retry("503 Busy", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT").await;
    assert_eq!(past, None);
    let far = retry("503 Busy", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT").await;
    assert!(matches!(far, Some(Retry::After(pause)) if pause > Duration::from_secs(86_400)));
}

#[tokio::test]
async fn what_is_no_answer_over_http_is_told() {
    let fault = announced(vec![answer("500 Oops", b"<html>")]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Status { status: 500, .. }), "{fault}");
    let body = encode_reply(&a_reply(), &an_announce());
    let fault = announced(vec![answer("500 Oops", &body)]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Status { status: 500, .. }), "{fault}");
    let fault = announced(vec![answer("200 OK", b"<html>")]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::BadReply(AnnounceError::NotBencode(_))), "{fault}");
    let fault = announced(vec![b"SSH-2.0-x\r\n\r\n".to_vec()]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Unreachable(_)), "{fault}");
}

#[tokio::test]
async fn a_body_too_large_is_not_read_to_its_end() {
    let fault = announced(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()])
        .await
        .unwrap_err();
    assert!(matches!(fault, TrackerError::TooLarge { limit: MAX_BODY_LEN }), "{fault}");

    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(endless.len() + MAX_BODY_LEN + 1, b'9');
    let fault = announced(vec![endless]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::TooLarge { limit: MAX_BODY_LEN }), "{fault}");
}

#[tokio::test]
async fn an_http_tracker_that_hangs_is_given_up() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nd8:".to_vec();
    for hanging in [Vec::new(), b"HTTP/1.1 200".to_vec(), half] {
        let (addr, _asked) = http_server(vec![hanging]).await;
        let fault = client(IMPATIENT).announce(&announce_url(addr), &an_announce()).await;
        assert!(matches!(fault, Err(TrackerError::Timeout)), "{fault:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let moved = b"HTTP/1.1 302 Found\r\nLocation: /here\r\nContent-Length: 0\r\n\
                  Connection: close\r\n\r\n";
    let body = encode_reply(&a_reply(), &an_announce());
    let answers = vec![moved.to_vec(), moved.to_vec(), moved.to_vec(), answer("200 OK", &body)];
    assert_eq!(announced(answers).await.unwrap(), a_reply());
    let fault = announced(vec![moved.to_vec()]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::Unreachable(_)), "{fault}");
}

#[tokio::test]
async fn scrapes_over_http() {
    let entry = ScrapeEntry { complete: 1, downloaded: 2, incomplete: 3 };
    let reply = ScrapeReply { entries: vec![(HASH, entry)] };
    let (addr, mut asked) = http_server(vec![answer("200 OK", &encode_scrape_reply(&reply))]).await;
    assert_eq!(client(PATIENT).scrape(&announce_url(addr), &[HASH]).await.unwrap(), reply);
    assert!(asked.recv().await.unwrap().starts_with("GET /scrape?info_hash=%07%07"));
    let other = TrackerUrl::parse(&format!("http://{addr}/x")).unwrap();
    let fault = client(PATIENT).scrape(&other, &[HASH]).await.unwrap_err();
    assert!(matches!(fault, TrackerError::NoScrape));
}

async fn catalogue(answers: Vec<Vec<u8>>) -> (Catalogue, mpsc::Receiver<String>) {
    let (addr, asked) = http_server(answers).await;
    (Catalogue::with_options(&format!("http://{addr}"), PATIENT).unwrap(), asked)
}

#[tokio::test]
async fn a_torrent_is_registered_with_its_options() {
    let body = format!("{{\"info_hash\":\"{HASH}\",\"name\":\"a b\",\"token\":\"t\"}}");
    let (catalogue, mut asked) = catalogue(vec![answer("201 Created", body.as_bytes())]).await;
    let options = RegisterOptions {
        name: Some("a b".to_owned()),
        unlisted: true,
        ..RegisterOptions::default()
    };
    let registered = catalogue.register(b"d4:infoe", options).await.unwrap();
    assert_eq!((registered.info_hash, registered.token.as_deref()), (HASH, Some("t")));
    let request = asked.recv().await.unwrap();
    assert!(request.starts_with("POST /torrents?name=a+b&unlisted=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nd4:infoe"), "{request}");
}

#[tokio::test]
async fn the_list_is_asked_for_by_name() {
    let entry = format!(
        "{{\"torrents\":[{{\"info_hash\":\"{HASH}\",\"name\":\"ä&b\",\"size\":9,\"pieces\":1,\
         \"piece_length\":16384,\"files\":1,\"private\":false,\"description\":null,\
         \"complete\":1,\"incomplete\":0,\"registered_at\":5,\"later\":\"addition\"}}]}}"
    );
    let (catalogue, mut asked) = catalogue(vec![answer("200 OK", entry.as_bytes())]).await;
    let list = catalogue.list(Some("ä&b")).await.unwrap();
    assert_eq!((list[0].info_hash, list[0].name.as_str(), list[0].size), (HASH, "ä&b", 9));
    assert!(asked.recv().await.unwrap().starts_with("GET /torrents?name=%C3%A4%26b HTTP/1.1\r\n"));
    catalogue.list(None).await.unwrap();
    assert!(asked.recv().await.unwrap().starts_with("GET /torrents HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_torrent_is_fetched_or_not_found() {
    let error = b"{\"error\":\"no such torrent\"}";
    let (catalogue, mut asked) =
        catalogue(vec![answer("200 OK", b"d4:infoe"), answer("404 Not Found", error)]).await;
    assert_eq!(catalogue.fetch(HASH).await.unwrap(), b"d4:infoe");
    assert!(asked.recv().await.unwrap().starts_with(&format!("GET /torrents/{HASH} HTTP/1.1\r\n")));
    let fault = catalogue.fetch(HASH).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::NotFound(HASH)), "{fault}");
}

#[tokio::test]
async fn removing_shows_the_token() {
    let error = b"{\"error\":\"wrong token\"}";
    let (catalogue, mut asked) =
        catalogue(vec![answer("204 No Content", b""), answer("403 Forbidden", error)]).await;
    catalogue.remove(HASH, "secret").await.unwrap();
    let request = asked.recv().await.unwrap();
    assert!(request.starts_with(&format!("DELETE /torrents/{HASH} HTTP/1.1\r\n")), "{request}");
    assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
    let fault = catalogue.remove(HASH, "guess").await.unwrap_err();
    assert_eq!(fault.to_string(), "the tracker refused (HTTP status `403`): wrong token");
}

#[tokio::test]
async fn holdings_are_reported_as_they_stand_on_the_wire() {
    let (catalogue, mut asked) = catalogue(vec![answer("204 No Content", b"")]).await;
    let holdings = Holdings {
        peer_id: PeerId(*b"-PW0100-abcdefghij\0\xff"),
        port: 6_881,
        key: 0xab.into(),
        bitfield: &[0xe0, 0x80],
    };
    catalogue.report_holdings(HASH, holdings).await.unwrap();
    let request = asked.recv().await.unwrap();
    let head = format!(
        "POST /torrents/{HASH}/holdings?peer_id=-PW0100-abcdefghij%00%FF&port=6881&key=000000ab \
         HTTP/1.1\r\n"
    );
    assert!(request.starts_with(&head), "{request}");
    assert!(request.ends_with("\r\n\r\n\u{e0}\u{80}"), "{request}");
}

#[tokio::test]
async fn a_server_that_is_no_catalogue_is_told() {
    let html = answer("200 OK", b"<html>");
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let teapot = answer("418 Teapot", b"short \x1b[2J and stout");
    let (catalogue, _asked) = catalogue(vec![html, huge, teapot]).await;
    let fault = catalogue.list(None).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::BadAnswer(_)), "{fault}");
    let fault = catalogue.fetch(HASH).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::TooLarge { .. }), "{fault}");
    let fault = catalogue.fetch(HASH).await.unwrap_err().to_string();
    assert_eq!(fault, "the tracker refused (HTTP status `418`): short \\x1b[2J and stout");
}

#[tokio::test]
async fn a_catalogue_that_hangs_is_given_up() {
    let (addr, _asked) = http_server(vec![Vec::new()]).await;
    let catalogue = Catalogue::with_options(&format!("http://{addr}"), IMPATIENT).unwrap();
    let fault = catalogue.list(None).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::Timeout { .. }), "{fault}");
}

#[tokio::test]
async fn a_closed_port_is_unreachable_over_http() {
    // Bound and not listening: taken, and closed to us.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = closed.local_addr().unwrap();
    let fault = client(PATIENT).announce(&announce_url(addr), &an_announce()).await.unwrap_err();
    assert!(
        matches!(&fault, TrackerError::Unreachable(why) if why.to_string().contains("refused")),
        "{fault}"
    );
    let catalogue = Catalogue::with_options(&format!("http://{addr}"), PATIENT).unwrap();
    let fault = catalogue.list(None).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::Unreachable { .. }), "{fault}");
}

#[test]
fn what_is_no_address_of_a_catalogue_is_refused() {
    for text in ["", "127.0.0.1:8000", "udp://127.0.0.1:8000", "http://"] {
        assert!(matches!(Catalogue::new(text), Err(CatalogueError::Address { .. })), "{text}");
    }
    let catalogue = Catalogue::new("http://127.0.0.1:8000/under?x=1").unwrap();
    assert_eq!(catalogue.address(), "http://127.0.0.1:8000/under/");
}
