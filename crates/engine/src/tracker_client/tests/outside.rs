//! Attempts to have requests sent into one's own network.

use super::*;
use piecework_core::Scope;
use piecework_proto::announce::{CatalogueUrl, Provenance};

/// A server on this machine that must not be asked, and its port.
async fn untouched() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Nobody has connected: what connects stands in the queue at once.
fn assert_untouched(listener: TcpListener) {
    let listener = listener.into_std().unwrap();
    let accepted = listener.accept();
    assert!(accepted.is_err(), "{accepted:?} has connected");
}

async fn foreign(url: &str) -> TrackerError {
    let url = TrackerUrl::parse(url).unwrap();
    client(PATIENT).announce(&url, &an_announce()).await.unwrap_err()
}

fn moved_to(target: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_torrent_asks_nothing_on_this_machine_but_announce() {
    let (listener, port) = untouched().await;
    let hosts = [
        "127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "localhost",
        "LOCALHOST",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "%31%32%37.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "0.0.0.0",
        "0",
        "[::ffff:0:0]",
        "[::]",
        "[64:ff9b::7f00:1]",
        "user:pass@127.0.0.1",
        "8.8.8.8@127.0.0.1",
    ];
    for host in hosts {
        let fault = foreign(&format!("http://{host}:{port}/admin/reboot?now=1&x=/announce")).await;
        assert!(matches!(fault, TrackerError::Outside(_)), "{host}: {fault}");
    }
    for path in ["", "/announce?x=1", "/x/announce", "/announce.php", "/announce/x"] {
        let fault = foreign(&format!("http://127.0.0.1:{port}{path}")).await;
        assert!(matches!(fault, TrackerError::Outside(_)), "{path}: {fault}");
        assert!(fault.to_string().contains("this machine"), "{fault}");
    }
    assert_untouched(listener);
}

#[tokio::test]
async fn a_torrent_asks_nothing_in_private_networks() {
    let hosts =
        ["10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "[fd00::1]", "[fe80::1]"];
    for host in hosts {
        for url in [format!("http://{host}/announce"), format!("udp://{host}:80/announce")] {
            let fault = foreign(&url).await;
            assert!(matches!(fault, TrackerError::Outside(_)), "{url}: {fault}");
        }
    }
}

#[tokio::test]
async fn a_torrent_sends_no_datagram_where_it_may_not() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    // Not parsed as addresses by URLs of this kind, but by resolvers.
    for host in ["127.0.0.1", "2130706433", "127.1", "localhost", "[::ffff:127.0.0.1]"] {
        let fault = foreign(&format!("udp://{host}:{port}/x")).await;
        let refused = matches!(fault, TrackerError::Outside(_) | TrackerError::Unknown { .. });
        assert!(refused, "{host}: {fault}");
    }
    let fault = foreign(&format!("udp://0.0.0.0:{port}/announce")).await;
    assert!(matches!(fault, TrackerError::Outside(_)), "{fault}");
    let received = socket.try_recv(&mut [0; 16]);
    assert!(received.is_err(), "{received:?}");
}

#[tokio::test]
async fn a_torrent_may_name_a_tracker_on_this_machine_at_announce() {
    let body = encode_reply(&a_reply(), &an_announce());
    let (addr, _asked) = http_server(vec![answer("200 OK", &body)]).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}/announce", addr.port());
        let url = TrackerUrl::parse(&url).unwrap();
        assert_eq!(client(PATIENT).announce(&url, &an_announce()).await.unwrap(), a_reply());
    }
}

#[tokio::test]
async fn a_redirect_from_this_machine_leads_a_torrent_to_the_internet_alone() {
    let (listener, port) = untouched().await;
    for target in [
        format!("http://127.0.0.1:{port}/announce"),
        format!("http://localhost:{port}/x"),
        "http://192.168.1.1/".to_owned(),
        "http://169.254.169.254/latest".to_owned(),
    ] {
        let (addr, _asked) = http_server(vec![moved_to(&target)]).await;
        let fault = foreign(&format!("http://{addr}/announce")).await;
        assert!(matches!(fault, TrackerError::Outside(_)), "{target}: {fault}");
    }
    assert_untouched(listener);
}

#[tokio::test]
async fn a_redirect_of_a_tracker_that_was_named_leads_no_further_in() {
    for target in ["http://10.0.0.1/announce", "http://[fe80::1]/", "http://0.0.0.0:1/announce"] {
        let (addr, _asked) = http_server(vec![moved_to(target)]).await;
        let fault = client(PATIENT).announce(&announce_url(addr), &an_announce()).await;
        assert!(matches!(fault, Err(TrackerError::Outside(_))), "{target}: {fault:?}");
    }
    for target in ["file:///etc/passwd", "gopher://127.0.0.1:1/x", "http://", "\u{7f}"] {
        let (addr, _asked) = http_server(vec![moved_to(target)]).await;
        let fault = client(PATIENT).announce(&announce_url(addr), &an_announce()).await;
        assert!(matches!(fault, Err(TrackerError::Unreachable(_))), "{target}: {fault:?}");
    }
}

#[tokio::test]
async fn a_catalogue_that_a_torrent_leads_to_is_not_on_this_machine() {
    let (listener, port) = untouched().await;
    for provenance in [Provenance::Foreign, Provenance::Nearby] {
        let base = format!("http://localhost:{port}");
        let catalogue = Catalogue::at(&CatalogueUrl { base, provenance }).unwrap();
        let fault = catalogue.list(None).await.unwrap_err();
        assert!(matches!(fault, CatalogueError::Outside { .. }), "{fault}");
        let fault = catalogue.register(b"", RegisterOptions::default()).await.unwrap_err();
        assert!(matches!(fault, CatalogueError::Outside { .. }), "{fault}");
    }
    assert_untouched(listener);
}

#[tokio::test]
async fn a_request_that_changes_something_follows_no_redirect() {
    let (listener, port) = untouched().await;
    let (catalogue, _asked) = catalogue(vec![moved_to(&format!("http://127.0.0.1:{port}/"))]).await;
    let fault = catalogue.register(b"x", RegisterOptions::default()).await.unwrap_err();
    assert!(matches!(fault, CatalogueError::Refused { status: 302, .. }), "{fault}");
    let fault = catalogue.remove(HASH, "secret").await.unwrap_err();
    assert!(matches!(fault, CatalogueError::Refused { status: 302, .. }), "{fault}");
    assert_untouched(listener);
}

#[tokio::test]
async fn a_torrent_file_is_fetched_from_this_machine_for_its_user_alone() {
    let (addr, _asked) = http_server(vec![answer("200 OK", b"d4:infoe")]).await;
    let address = format!("http://localhost:{}/a.torrent", addr.port());
    let time = PATIENT.timeout;
    let fetched = fetch(&address, Provenance::Named, 100, time).await.unwrap();
    assert_eq!(fetched, (b"d4:infoe".to_vec(), Scope::Loopback));
    for path in ["a.torrent", "announce"] {
        let address = format!("http://127.0.0.1:{}/{path}", addr.port());
        let fault = fetch(&address, Provenance::Foreign, 100, time).await.unwrap_err();
        assert!(matches!(fault, FetchError::Outside { .. }), "{fault}");
    }
}
