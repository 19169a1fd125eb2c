//! A download from a thousand peers at a time, over real sockets on loopback.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use piecework_core::metainfo::Metainfo;
use piecework_core::{BLOCK_LEN, BlockRef, PeerId, PieceIndex};
use piecework_engine::{Observer, TorrentEvent, raise_file_limit};
use piecework_proto::wire::Message;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session_with, stranger, until, within,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PEERS: usize = 1_000;
const PIECES: u32 = 1_024;
const PIECE: u32 = 4 * BLOCK_LEN;
/// 8 MiB: an eighth of the content, and not one block for each two peers.
const BUDGET: u64 = 8 << 20;

/// Blocks that were asked for and whose piece is not written yet: all of them need room in memory.
#[derive(Default)]
struct InFlight {
    blocks: Mutex<HashSet<BlockRef>>,
    written: Mutex<HashSet<PieceIndex>>,
    most: AtomicUsize,
}

impl InFlight {
    fn asked(&self, block: BlockRef) {
        // At the end blocks are asked of several, and some hear of it late.
        if self.written.lock().contains(&block.piece) {
            return;
        }
        let mut blocks = self.blocks.lock();
        blocks.insert(block);
        self.most.fetch_max(blocks.len(), Ordering::Relaxed);
    }

    fn cancelled(&self, block: BlockRef) {
        self.blocks.lock().remove(&block);
    }

    fn written(&self, piece: PieceIndex) {
        self.written.lock().insert(piece);
        self.blocks.lock().retain(|block| block.piece != piece);
    }
}

/// Told before what a finished piece makes room for is asked for.
impl Observer for InFlight {
    fn event(&self, _: &Arc<Metainfo>, event: &TorrentEvent) {
        if let TorrentEvent::PieceDone { piece, .. } = event {
            self.written(*piece);
        }
    }
}

struct Crowd {
    metainfo: Arc<Metainfo>,
    bytes: Vec<u8>,
    in_flight: Arc<InFlight>,
    /// Peers that are connected.
    here: watch::Sender<usize>,
    /// Blocks may be asked for.
    open: watch::Sender<bool>,
    /// Peers that gave something.
    giving: AtomicUsize,
}

/// A peer that holds everything and gives what it is asked for once all are here.
async fn serve(mut peer: RawPeer, crowd: Arc<Crowd>) {
    let geometry = crowd.metainfo.info().geometry();
    peer.send(&Message::HaveAll).await.unwrap();
    crowd.here.send_modify(|here| *here += 1);
    crowd.open.subscribe().wait_for(|open| *open).await.unwrap();
    let mut said = peer.send(&Message::Unchoke).await;
    let mut gave = false;
    while said.is_ok() {
        match peer.hear().await {
            Some(PeerMessage::Message(Message::Request(block))) => {
                crowd.in_flight.asked(block);
                if !std::mem::replace(&mut gave, true) {
                    crowd.giving.fetch_add(1, Ordering::Relaxed);
                }
                let span = geometry.block_span(block);
                let data = &crowd.bytes[span.start as usize..span.end as usize];
                said = peer.send_block(block, data).await;
            }
            Some(PeerMessage::Message(Message::Cancel(block))) => crowd.in_flight.cancelled(block),
            Some(_) => {}
            None => break,
        }
    }
}

fn numbered(number: usize) -> PeerId {
    let mut id = *b"-XX0001-abcdefgh0000";
    id[16..].copy_from_slice(&(number as u32).to_be_bytes());
    PeerId(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_at_a_time_are_served_from_within_the_limits() {
    // Both ends of each connection are ours.
    let files = raise_file_limit().unwrap();
    let needed = 2 * PEERS as u64 + 500;
    if files < needed {
        eprintln!("SKIPPED: this process may have {files} files open, {needed} are needed");
        return;
    }
    let bytes = content((PIECES * PIECE) as usize, 20);
    let (_source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let in_flight = Arc::new(InFlight::default());
    let crowd = Arc::new(Crowd {
        metainfo: Arc::clone(&metainfo),
        bytes,
        in_flight: Arc::clone(&in_flight),
        here: watch::Sender::new(0),
        open: watch::Sender::new(false),
        giving: AtomicUsize::new(0),
    });

    // One listener for all: each peer has an address of its own in 127.0.0.0/8.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let addrs: Vec<SocketAddr> = (0..PEERS as u32)
        .map(|number| {
            (Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number), port).into()
        })
        .collect();
    let accepting = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move {
            let mut peers = JoinSet::new();
            for number in 0..PEERS {
                let id = numbered(number);
                let peer = RawPeer::accept(&listener, &crowd.metainfo, id).await.unwrap();
                peers.spawn(serve(peer, Arc::clone(&crowd)));
            }
            peers.join_all().await;
        }
    });

    let target = tempfile::tempdir().unwrap();
    let leecher = session_with(|config| {
        config.max_peers_per_torrent = PEERS;
        config.max_connections = PEERS + 100;
        config.memory_budget = BUDGET;
        config.observer = Some(in_flight.clone());
    });
    let begun_at = Instant::now();
    let handle = add(&leecher, &metainfo, target.path(), &addrs);
    within(crowd.here.subscribe().wait_for(|here| *here == PEERS)).await.unwrap();
    // They know before the leecher does.
    until(&handle, |handle| handle.status().peers == PEERS).await;

    // There is room for no more, and who comes all the same costs nobody his place, unless somebody
    // has given nothing for a minute.
    for number in (0..20).take_while(|_| begun_at.elapsed() < Duration::from_secs(50)) {
        let late = RawPeer::connect(leecher.listen_addrs()[0], &metainfo, stranger(number)).await;
        within(late.unwrap().dropped()).await;
    }
    assert_eq!(handle.peers().await.len(), PEERS);
    assert_eq!(leecher.figures().connections, PEERS);

    crowd.open.send_replace(true);
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == crowd.bytes);
    let figures = leecher.figures();
    assert_eq!((figures.pieces_failed, figures.bans), (0, 0));
    let most = in_flight.most.load(Ordering::Relaxed) as u64 * u64::from(BLOCK_LEN);
    assert!((1..=BUDGET).contains(&most), "{most} bytes were asked for and not yet written");
    // Nobody was asked for everything: what there is room for goes to many.
    let giving = crowd.giving.load(Ordering::Relaxed);
    assert!(giving >= 100, "only {giving} peers gave anything");
    leecher.shutdown().await;
    within(accepting).await.unwrap();
}
