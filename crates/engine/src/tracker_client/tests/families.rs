//! Trackers with addresses of both families.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const NAME: &str = "tracker.test";

/// A client that knows [`NAME`] to be this machine, by both families.
fn dual(options: ClientOptions) -> TrackerClient {
    let ips = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    let resolver = Resolver { known: [(NAME.to_owned(), ips)].into() };
    let http = http::Http::new(options, options.timeout, None, Reach::ALL).unwrap();
    TrackerClient::with_resolver(options, None, http, resolver)
}

fn peer(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "10.0.0.4:4".parse().unwrap(),
        Family::V6 => "[2001:db8::6]:6".parse().unwrap(),
    }
}

fn reply_over(family: Family) -> AnnounceReply {
    AnnounceReply { peers: vec![peer(family)], ..a_reply() }
}

/// The requests that came, and over which family.
type Seen = mpsc::UnboundedReceiver<(Family, String)>;

/// An HTTP tracker on both families of this machine, which answers over those of `answering`.
async fn http_tracker(answering: &'static [Family]) -> (TrackerUrl, Seen) {
    let (seen, asked) = mpsc::unbounded_channel();
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    for (listener, family) in [(v4, Family::V4), (v6, Family::V6)] {
        let seen = seen.clone();
        spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                // The test may be over.
                let _ = seen.send((family, request));
                if answering.contains(&family) {
                    let body = encode_reply(&reply_over(family), &an_announce());
                    // It may have heard enough.
                    let _ = stream.write_all(&answer("200 OK", &body)).await;
                }
                open.push(stream);
            }
        });
    }
    let url = TrackerUrl::parse(&format!("http://{NAME}:{port}/announce")).unwrap();
    (url.named_by(Provenance::Named), asked)
}

fn families(seen: &mut Seen) -> Vec<Family> {
    let mut families = Vec::new();
    while let Ok((family, _)) = seen.try_recv() {
        families.push(family);
    }
    families.sort_by_key(|family| family.peer_len());
    families
}

fn sorted(mut peers: Vec<SocketAddr>) -> Vec<SocketAddr> {
    peers.sort();
    peers
}

#[tokio::test]
async fn line_5_http_trackers_are_announced_to_over_both_families() {
    let (url, mut seen) = http_tracker(&[Family::V4, Family::V6]).await;
    // A stop waits for both.
    let announce = Announce { event: AnnounceEvent::Stopped, ..an_announce() };
    let reply = dual(PATIENT).announce(&url, &announce).await.unwrap();
    assert_eq!(sorted(reply.peers), [peer(Family::V4), peer(Family::V6)]);
    assert_eq!(families(&mut seen), [Family::V4, Family::V6]);
}

#[tokio::test]
async fn line_5_udp_trackers_are_announced_to_over_both_families() {
    let v4 = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    for (socket, family) in [(v4, Family::V4), (v6, Family::V6)] {
        spawn(async move {
            let mut datagram = [0; 2_048];
            loop {
                let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
                let request = Request::decode(&datagram[..len]).unwrap();
                let response = match sound(&request, 9) {
                    Response::Announce { transaction, .. } => {
                        Response::Announce { transaction, reply: reply_over(family) }
                    }
                    other => other,
                };
                let mut out = Vec::new();
                response.encode(family, &mut out);
                socket.send_to(&out, from).await.unwrap();
            }
        });
    }
    let url = TrackerUrl::parse(&format!("udp://{NAME}:{port}/announce")).unwrap();
    let announce = Announce { event: AnnounceEvent::Stopped, ..an_announce() };
    let reply = dual(PATIENT).announce(&url.named_by(Provenance::Named), &announce).await.unwrap();
    assert_eq!(sorted(reply.peers), [peer(Family::V4), peer(Family::V6)]);
}

#[tokio::test]
async fn line_5_an_answer_over_one_family_does_not_wait_for_the_other() {
    let each: [&'static [Family]; 2] = [&[Family::V4], &[Family::V6]];
    for answering in each {
        let (url, mut seen) = http_tracker(answering).await;
        let client = dual(PATIENT);
        let reply = client.announce(&url, &an_announce()).await.unwrap();
        assert_eq!(reply.peers, [peer(answering[0])]);
        // Both are asked all the same.
        for _ in 0..2 {
            seen.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn line_5_what_comes_later_over_the_other_family_is_handed_over() {
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    spawn(async move {
        let (mut stream, _) = v4.accept().await.unwrap();
        read_request(&mut stream).await;
        let body = encode_reply(&reply_over(Family::V4), &an_announce());
        stream.write_all(&answer("200 OK", &body)).await.unwrap();
    });
    spawn(async move {
        let (mut stream, _) = v6.accept().await.unwrap();
        read_request(&mut stream).await;
        wait.await.unwrap();
        let body = encode_reply(&reply_over(Family::V6), &an_announce());
        stream.write_all(&answer("200 OK", &body)).await.unwrap();
    });
    let url = TrackerUrl::parse(&format!("http://{NAME}:{port}/announce")).unwrap();
    let url = url.named_by(Provenance::Named);
    let (tell, told) = tokio::sync::oneshot::channel();
    let later = move |reply: AnnounceReply| tell.send(reply.peers).unwrap();
    let reply = dual(PATIENT).announce_and_tell(&url, &an_announce(), later).await.unwrap();
    assert_eq!(reply.peers, [peer(Family::V4)]);
    go.send(()).unwrap();
    assert_eq!(told.await.unwrap(), [peer(Family::V6)]);
}

#[tokio::test]
async fn line_5_a_peer_that_listens_on_one_family_announces_over_that_one() {
    for (over, family) in [(ReachableOver::V4, Family::V4), (ReachableOver::V6, Family::V6)] {
        let (url, mut seen) = http_tracker(&[Family::V4, Family::V6]).await;
        let client = dual(ClientOptions { reachable_over: over, ..PATIENT });
        let reply = client.announce(&url, &an_announce()).await.unwrap();
        assert_eq!((reply.peers, families(&mut seen)), (vec![peer(family)], vec![family]));
    }
    let listens = |addrs: &[&str]| {
        let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        ReachableOver::of(&addrs)
    };
    assert_eq!(listens(&[]), ReachableOver::Both);
    assert_eq!(listens(&["0.0.0.0:1"]), ReachableOver::V4);
    assert_eq!(listens(&["[::]:1"]), ReachableOver::V6);
    assert_eq!(listens(&["0.0.0.0:1", "[::]:1"]), ReachableOver::Both);
}

#[tokio::test]
async fn line_5_the_path_of_a_udp_tracker_is_sent() {
    for (path, sent) in [
        ("/announce", "/announce"),
        ("/announce?passkey=secret", "/announce?passkey=secret"),
        ("/secret/announce#here", "/secret/announce"),
        ("", ""),
        ("/", ""),
    ] {
        let (url, mut asked) = udp_tracker(|request| vec![sound(request, 9)]).await;
        let url = TrackerUrl::parse(&format!("{url}{path}")).unwrap();
        client(PATIENT).announce(&url.named_by(Provenance::Named), &an_announce()).await.unwrap();
        let told = loop {
            if let Request::Announce { url_data, .. } = asked.recv().await.unwrap() {
                break url_data;
            }
        };
        assert_eq!(told, sent.as_bytes(), "{path}");
    }
}

#[tokio::test]
async fn line_4_an_answer_to_a_connect_may_be_longer_than_it_needs_to_be() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = TrackerUrl::parse(&format!("udp://{}", socket.local_addr().unwrap())).unwrap();
    spawn(async move {
        let mut datagram = [0; 2_048];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            let request = Request::decode(&datagram[..len]).unwrap();
            let mut out = Vec::new();
            sound(&request, 9).encode(Family::V4, &mut out);
            out.extend(b"more");
            socket.send_to(&out, from).await.unwrap();
        }
    });
    let reply = client(PATIENT).announce(&url, &an_announce()).await.unwrap();
    assert_eq!(reply, a_reply());
}
