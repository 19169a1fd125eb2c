//! Helpers that tests of several crates share: content, torrents, sessions on loopback, and peers that can
//! be made to misbehave. With the feature `daemon`, also homes for daemons.
//!
//! ```
//! let bytes = piecework_testkit::content(100_000, 1);
//! let (folder, metainfo) = piecework_testkit::seeded("a file", &bytes, 16_384);
//! assert!(folder.path().join("a file").is_file());
//! assert_eq!(metainfo.info().geometry().pieces(), 7);
//! ```

pub mod allocations;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod library;
pub mod own_tracker;

use piecework_core::SaturatingFrom;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{BlockRef, InfoHash, PeerId, Rng};
use piecework_engine::{AddTorrent, Observer, Session, SessionConfig, TorrentEvent, TorrentHandle};
use piecework_proto::announce::TrackerUrl;
use piecework_proto::wire::{self, DecodeLimits, Decoded, Handshake, Message};
use piecework_storage::{CreateOptions, create};
use piecework_swarm::ChokePolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

/// A test that waits longer than this has failed. Nothing in a passing test depends on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a torrent of one piece that nobody has, a different one for each number.
pub fn one_piece(number: usize) -> Arc<Metainfo> {
    let builder = MetainfoBuilder::single_file(format!("file-{number}"), 16_000);
    let mut digest = vec![0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    Arc::new(builder.build(digest).unwrap())
}

/// Returns a tracker's reply that gives `peers`, which must be IPv4, and an interval of half an hour.
pub fn announce_reply(peers: &[SocketAddr]) -> Vec<u8> {
    let mut body = b"d8:intervali1800e5:peers".to_vec();
    body.extend_from_slice(format!("{}:", peers.len() * 6).as_bytes());
    for peer in peers {
        let SocketAddr::V4(peer) = peer else { panic!("IPv4 only") };
        body.extend_from_slice(&peer.ip().octets());
        body.extend_from_slice(&peer.port().to_be_bytes());
    }
    body.push(b'e');
    body
}

/// Starts a tracker that never answers: connections are accepted and counted, and requests are not read.
pub async fn silent_tracker() -> (TrackerUrl, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            open.push(stream);
        }
    });
    (url, asked)
}

/// Returns `len` incompressible bytes, the same ones for the same seed.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Creates a torrent of the content at `path`.
pub fn torrent_of(path: &Path, piece_len: u32) -> Arc<Metainfo> {
    let options = CreateOptions { piece_len: Some(piece_len), ..CreateOptions::default() };
    let created = create(path, options, 2, |_| {}, &AtomicBool::new(false)).unwrap();
    Arc::new(created.metainfo)
}

/// Creates a folder with one file of `bytes` named `name`, and its torrent.
pub fn seeded(name: &str, bytes: &[u8], piece_len: u32) -> (tempfile::TempDir, Arc<Metainfo>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let metainfo = torrent_of(&path, piece_len);
    (dir, metainfo)
}

/// Starts a session on loopback with a free port.
pub fn session(observer: Option<Arc<dyn Observer>>) -> Session {
    session_with(|config| config.observer = observer)
}

/// Starts such a session with a changed configuration.
pub fn session_with(change: impl FnOnce(&mut SessionConfig)) -> Session {
    let mut config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        choke: ChokePolicy::Closed,
        ..SessionConfig::default()
    };
    change(&mut config);
    Session::start(config).unwrap()
}

/// Waits for `future`, but at most [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the test waited in vain")
}

/// Adds `metainfo` in the folder `root` to `session`, with `peers` to begin with.
pub fn add(
    session: &Session,
    metainfo: &Arc<Metainfo>,
    root: &Path,
    peers: &[SocketAddr],
) -> TorrentHandle {
    let mut add = AddTorrent::new(Arc::clone(metainfo), root);
    add.peers = peers.to_vec();
    session.add(add).unwrap()
}

/// Waits until `wanted` returns true for the torrent.
pub async fn until(handle: &TorrentHandle, wanted: impl Fn(&TorrentHandle) -> bool) {
    let mut handle = handle.clone();
    within(async {
        while !wanted(&handle) {
            handle.changed().await.unwrap();
        }
    })
    .await;
}

/// Records every event and wakes tests that wait for one.
#[derive(Default)]
pub struct EventRecorder {
    pub events: Mutex<Vec<TorrentEvent>>,
    more: Notify,
}

impl Observer for EventRecorder {
    fn event(&self, _: &Arc<Metainfo>, event: &TorrentEvent) {
        self.events.lock().push(event.clone());
        self.more.notify_waiters();
    }
}

impl EventRecorder {
    /// Waits until `wanted` returns true for some event.
    pub async fn saw(&self, wanted: impl Fn(&TorrentEvent) -> bool) {
        within(async {
            loop {
                let more = self.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if self.events.lock().iter().any(&wanted) {
                    return;
                }
                more.await;
            }
        })
        .await;
    }
}

/// A peer that does what the test wants, on one connection after its handshake.
pub struct RawPeer {
    stream: TcpStream,
    limits: DecodeLimits,
    buffer: BytesMut,
}

/// What a raw peer receives.
#[derive(Debug)]
pub enum PeerMessage {
    Message(Message),
    Block(BlockRef, Vec<u8>),
}

impl RawPeer {
    /// Connects and makes a handshake as `id`.
    pub async fn connect(addr: SocketAddr, metainfo: &Metainfo, id: PeerId) -> io::Result<Self> {
        Self::greet(TcpStream::connect(addr).await?, metainfo, id).await
    }

    /// Does the same with a small receive buffer.
    pub async fn narrow(addr: SocketAddr, metainfo: &Metainfo, id: PeerId) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        Self::greet(socket.connect(addr).await?, metainfo, id).await
    }

    /// Makes a handshake as `id` over an existing connection.
    pub async fn greet(mut stream: TcpStream, metainfo: &Metainfo, id: PeerId) -> io::Result<Self> {
        stream.write_all(&Handshake::ours(metainfo.info_hash(), id).encode()).await?;
        let mut theirs = [0; Handshake::LEN];
        stream.read_exact(&mut theirs).await?;
        Ok(Self::on(stream, metainfo))
    }

    /// Accepts a connection and answers its handshake.
    pub async fn accept(
        listener: &TcpListener,
        metainfo: &Metainfo,
        id: PeerId,
    ) -> io::Result<Self> {
        let (mut stream, _) = listener.accept().await?;
        let mut theirs = [0; Handshake::LEN];
        stream.read_exact(&mut theirs).await?;
        stream.write_all(&Handshake::ours(metainfo.info_hash(), id).encode()).await?;
        Ok(Self::on(stream, metainfo))
    }

    fn on(stream: TcpStream, metainfo: &Metainfo) -> Self {
        let limits = DecodeLimits::new(metainfo.info().geometry().pieces());
        let limits = DecodeLimits { extensions: u8::MAX, ..limits };
        Self { stream, limits, buffer: BytesMut::new() }
    }

    /// Returns the address of its end of the connection.
    pub fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub async fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(message, &mut bytes);
        self.stream.write_all(&bytes).await
    }

    pub async fn send_block(&mut self, block: BlockRef, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(&wire::piece_header(block)).await?;
        self.stream.write_all(data).await
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Returns the next message. `None` when the other side has closed.
    pub async fn hear(&mut self) -> Option<PeerMessage> {
        loop {
            match wire::decode(&self.buffer, &self.limits).unwrap() {
                Decoded::Message { message, consumed } => {
                    drop(self.buffer.split_to(consumed));
                    return Some(PeerMessage::Message(message));
                }
                Decoded::Piece { block }
                    if self.buffer.len() >= wire::PIECE_HEADER_LEN + block.len as usize =>
                {
                    let whole = self.buffer.split_to(wire::PIECE_HEADER_LEN + block.len as usize);
                    return Some(PeerMessage::Block(
                        block,
                        whole[wire::PIECE_HEADER_LEN..].to_vec(),
                    ));
                }
                _ => {}
            }
            // A reset is an end like a close.
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Waits until the other side drops us, whatever it sends before.
    pub async fn dropped(mut self) {
        within(async { while self.hear().await.is_some() {} }).await;
    }
}

/// Returns a peer id that is not ours.
pub fn stranger(last: u8) -> PeerId {
    let mut id = *b"-XX0001-abcdefghijk0";
    id[19] = last;
    PeerId(id)
}

/// Seeds `bytes` to every peer that connects, and passes each block through `twist` first. Ends when the
/// runtime does. Returns its address.
pub async fn twisted_seed(
    metainfo: Arc<Metainfo>,
    bytes: Arc<Vec<u8>>,
    twist: impl Fn(BlockRef, &mut Vec<u8>) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let twist = Arc::new(twist);
    tokio::spawn(async move {
        while let Ok(peer) = RawPeer::accept(&listener, &metainfo, stranger(b'T')).await {
            let (metainfo, bytes, twist) =
                (Arc::clone(&metainfo), Arc::clone(&bytes), Arc::clone(&twist));
            tokio::spawn(serve(peer, metainfo, bytes, twist));
        }
    });
    addr
}

async fn serve(
    mut peer: RawPeer,
    metainfo: Arc<Metainfo>,
    bytes: Arc<Vec<u8>>,
    twist: Arc<impl Fn(BlockRef, &mut Vec<u8>)>,
) {
    let geometry = metainfo.info().geometry();
    let opening = async {
        peer.send(&Message::HaveAll).await?;
        peer.send(&Message::Unchoke).await
    };
    if opening.await.is_err() {
        return;
    }
    while let Some(heard) = peer.hear().await {
        let PeerMessage::Message(Message::Request(block)) = heard else { continue };
        let span = geometry.block_span(block);
        let mut data =
            bytes[usize::saturating_from(span.start)..usize::saturating_from(span.end)].to_vec();
        twist(block, &mut data);
        if peer.send_block(block, &data).await.is_err() {
            return;
        }
    }
}

/// Returns the bytes of a handshake for `info_hash`.
pub fn handshake(info_hash: InfoHash, id: PeerId) -> [u8; Handshake::LEN] {
    Handshake::ours(info_hash, id).encode()
}
