//! Crowds at a session's door over real sockets: who has nothing to exchange makes way for who has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use piecework_core::metainfo::Metainfo;
use piecework_core::{BLOCK_LEN, BlockRef, PeerId, PieceIndex};
use piecework_engine::{Session, SessionConfig, TorrentHandle};
use piecework_proto::wire::Message;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session_with, stranger, within,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

const PIECE: u32 = 64 * 1024;

/// A session that seeds one file.
struct Seed {
    session: Session,
    handle: TorrentHandle,
    metainfo: Arc<Metainfo>,
    _dir: tempfile::TempDir,
}

impl Seed {
    async fn new(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let (dir, metainfo) = seeded("file.bin", &content(200_000, 14), PIECE);
        let session = session_with(change);
        let handle = add(&session, &metainfo, dir.path(), &[]);
        within(handle.completed()).await.unwrap();
        Self { session, handle, metainfo, _dir: dir }
    }

    fn addr(&self) -> SocketAddr {
        self.session.listen_addrs()[0]
    }

    /// A connection from `from` behind its handshake, `None` if it is refused.
    async fn join(&self, from: &str, id: PeerId) -> Option<RawPeer> {
        let stream = dial(from, self.addr()).await;
        within(RawPeer::greet(stream, &self.metainfo, id)).await.ok()
    }

    /// Whether an honest peer from `from` gets a block, and after how long.
    async fn serves(&self, from: &str, id: PeerId) -> Option<Duration> {
        let start = Instant::now();
        let taking = async {
            let mut peer = self.join(from, id).await?;
            peer.send(&Message::HaveNone).await.ok()?;
            peer.send(&Message::Interested).await.ok()?;
            let block = BlockRef { piece: PieceIndex(0), begin: 0, len: BLOCK_LEN };
            loop {
                match peer.hear().await? {
                    PeerMessage::Message(Message::Unchoke) => {
                        peer.send(&Message::Request(block)).await.ok()?;
                    }
                    PeerMessage::Block(came, _) if came == block => return Some(start.elapsed()),
                    _ => {}
                }
            }
        };
        within(taking).await
    }
}

async fn dial(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    within(socket.connect(to)).await.unwrap()
}

fn id(number: usize) -> PeerId {
    let mut id = stranger(b'P');
    id.0[8..12].copy_from_slice(&(number as u32).to_be_bytes());
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_peers_of_one_address_do_not_keep_others_out_of_a_torrent() {
    let seed = Seed::new(|config| config.max_peers_per_torrent = 20).await;
    let mut idle = Vec::new();
    for number in 0..20 {
        let mut peer = seed.join("127.0.0.1", id(number)).await.unwrap();
        peer.send(&Message::HaveNone).await.unwrap();
        peer.send(&Message::Interested).await.unwrap();
        idle.push(peer);
    }
    piecework_testkit::until(&seed.handle, |handle| handle.status().peers == 20).await;
    for number in 0..5 {
        let took = seed.serves(&format!("127.0.0.{}", number + 2), id(100 + number)).await;
        assert!(took.is_some(), "honest peer {number} was kept out");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_do_not_even_keep_out_others_of_their_own_address() {
    let seed = Seed::new(|config| config.max_peers_per_torrent = 20).await;
    let mut silent = Vec::new();
    for number in 0..20 {
        silent.push(seed.join("127.0.0.1", id(number)).await.unwrap());
    }
    piecework_testkit::until(&seed.handle, |handle| handle.status().peers == 20).await;
    // Refused until the silent ones have been silent for seconds; honest peers try again.
    let mut tries = 0;
    within(async {
        while seed.serves("127.0.0.1", id(1_000 + tries)).await.is_none() {
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_peers_of_one_torrent_do_not_keep_others_out_of_the_session() {
    let seed = Seed::new(|config| config.max_connections = 20).await;
    let mut idle = Vec::new();
    for number in 0..20 {
        idle.push(seed.join("127.0.0.1", id(number)).await.unwrap());
    }
    piecework_testkit::until(&seed.handle, |handle| handle.status().peers == 20).await;
    let (dir, other) = seeded("other.bin", &content(100_000, 15), PIECE);
    let handle = add(&seed.session, &other, dir.path(), &[]);
    within(handle.completed()).await.unwrap();
    let second = Seed { session: seed.session.clone(), handle, metainfo: other, _dir: dir };
    assert!(second.serves("127.0.0.2", id(100)).await.is_some());
    // Whoever made way was told, and their torrent knows.
    piecework_testkit::until(&seed.handle, |handle| handle.status().peers < 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_keep_nobody_out() {
    let seed = Seed::new(|config| config.max_half_open = 30).await;
    for from in ["127.0.0.1", "127.0.0.9"] {
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(dial(from, seed.addr()).await);
        }
        for number in 0..6 {
            let took = seed.serves("127.0.0.1", id(number)).await;
            assert!(took.is_some(), "honest peer {number} was kept out");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dials_and_says_nothing_is_hung_up_on_within_seconds() {
    let seed = Seed::new(|config| config.handshake_timeout = Duration::from_secs(600)).await;
    let mut stream = dial("127.0.0.1", seed.addr()).await;
    let read = within(stream.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_beyond_its_share_gives_way_even_while_it_takes_blocks() {
    let change = |config: &mut SessionConfig| {
        config.max_peers_per_torrent = 6;
        config.max_peers_per_ip = 2;
        config.local_share = 1;
    };
    let seed = Seed::new(change).await;
    let mut greedy = Vec::new();
    for number in 0..6 {
        let mut peer = seed.join("127.0.0.1", id(number)).await.unwrap();
        peer.send(&Message::HaveNone).await.unwrap();
        peer.send(&Message::Interested).await.unwrap();
        loop {
            match within(peer.hear()).await.unwrap() {
                PeerMessage::Message(Message::Unchoke) => {
                    let block = BlockRef { piece: PieceIndex(0), begin: 0, len: BLOCK_LEN };
                    peer.send(&Message::Request(block)).await.unwrap();
                }
                PeerMessage::Block(..) => break,
                PeerMessage::Message(_) => {}
            }
        }
        greedy.push(peer);
    }
    for number in 0..3 {
        let took = seed.serves(&format!("127.0.0.{}", number + 2), id(100 + number)).await;
        assert!(took.is_some(), "honest peer {number} was kept out");
    }
}
