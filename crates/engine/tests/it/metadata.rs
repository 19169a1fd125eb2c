//! The metadata of a torrent, given to peers that have only a magnet link (BEP 9).

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use piecework_core::metainfo::{Metainfo, MetainfoBuilder, TorrentSource};
use piecework_engine::{AddTorrent, MetadataRequest};
use piecework_proto::wire::{ExtendedHandshake, METADATA_ID, Message, MetadataMessage};
use piecework_swarm::{HeardAddress, PeerSource};
use piecework_testkit::{PeerMessage, RawPeer, add, content, seeded, session, stranger, within};

/// The number by which these tests know the extension.
const OURS: u8 = 9;

/// Connects a peer that knows the extension. Returns it with what it was told about the metadata.
async fn asker(addr: SocketAddr, metainfo: &Metainfo) -> (RawPeer, ExtendedHandshake) {
    let mut peer = RawPeer::connect(addr, metainfo, stranger(b'm')).await.unwrap();
    let messages = [("ut_metadata".to_owned(), OURS)].into();
    let handshake = ExtendedHandshake { messages, ..ExtendedHandshake::default() };
    peer.send(&Message::Extended { id: 0, payload: handshake.encode().into() }).await.unwrap();
    let offer = within(async {
        loop {
            let heard = peer.hear().await.expect("a handshake");
            if let PeerMessage::Message(Message::Extended { id: 0, payload }) = heard {
                return ExtendedHandshake::decode(&payload).unwrap();
            }
        }
    });
    let offer = offer.await;
    (peer, offer)
}

/// Requests all pieces of metadata of this length at once. Returns what was given.
async fn fetch(peer: &mut RawPeer, len: u64) -> Vec<u8> {
    let pieces = u32::try_from(len.div_ceil(16 << 10)).unwrap();
    for piece in 0..pieces {
        let payload = MetadataMessage::Request { piece }.encode();
        peer.send(&Message::Extended { id: METADATA_ID, payload }).await.unwrap();
    }
    let mut given = Vec::new();
    within(async {
        for expected in 0..pieces {
            given.extend_from_slice(&answer(peer).await.unwrap_or_else(|piece| {
                panic!("piece {piece} of {pieces} was rejected, and {expected} were given")
            }));
        }
    })
    .await;
    given
}

/// Returns the next piece, or the number of one that is rejected.
async fn answer(peer: &mut RawPeer) -> Result<Vec<u8>, u32> {
    loop {
        let heard = peer.hear().await.expect("the connection stays");
        let PeerMessage::Message(Message::Extended { id: OURS, payload }) = heard else { continue };
        return match MetadataMessage::decode(&payload).unwrap() {
            Some(MetadataMessage::Data { bytes, .. }) => Ok(bytes.to_vec()),
            Some(MetadataMessage::Reject { piece }) => Err(piece),
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torrent_gives_its_metadata() {
    // 2,000 pieces, so that the metadata has three of its own.
    let builder = MetainfoBuilder::single_file("file", 2_000 << 14).piece_len(1 << 14);
    let metainfo = Arc::new(builder.build(vec![7; 2_000 * 20]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let leecher = session(None);
    // It has nothing else to give.
    add(&leecher, &metainfo, folder.path(), &[]);
    let (mut peer, offer) = asker(leecher.listen_addrs()[0], &metainfo).await;
    let info = metainfo.bytes().unwrap();
    let len = offer.metadata_size.unwrap();
    assert_eq!((len, offer.messages.get("ut_metadata")), (info.info().len() as u64, Some(&1)));
    assert!(len > 32 << 10, "{len}");
    assert!(fetch(&mut peer, len).await == info.info());
    // What does not exist is rejected, and the connection stays.
    let payload = MetadataMessage::Request { piece: 3 }.encode();
    peer.send(&Message::Extended { id: METADATA_ID, payload }).await.unwrap();
    assert_eq!(within(answer(&mut peer)).await, Err(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_whose_torrent_is_not_in_memory_gives_its_metadata() {
    let (source, metainfo) = seeded("file", &content(100_000, 1), 16 << 10);
    let seeder = session(None);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    // As when it falls asleep.
    let kept = Kept { torrent: metainfo.bytes().unwrap().to_vec(), reads: AtomicUsize::new(0) };
    let kept = Arc::new(kept);
    metainfo.set_source(Arc::clone(&kept) as _);
    metainfo.let_go();
    let (mut peer, offer) = asker(seeder.listen_addrs()[0], &metainfo).await;
    let given = fetch(&mut peer, offer.metadata_size.unwrap()).await;
    assert_eq!(kept.reads.load(Ordering::Relaxed), 1);
    assert!(given == metainfo.bytes().unwrap().info());
}

/// A `.torrent` on a disk.
struct Kept {
    torrent: Vec<u8>,
    reads: AtomicUsize,
}

impl TorrentSource for Kept {
    fn read(&self, _: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.torrent.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_torrent_keeps_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let metainfo = MetainfoBuilder::single_file("file", 20).private(true).build(vec![7; 20]);
    let metainfo = Arc::new(metainfo.unwrap());
    let leecher = session(None);
    add(&leecher, &metainfo, folder.path(), &[]);
    let (_peer, offer) = asker(leecher.listen_addrs()[0], &metainfo).await;
    assert!(offer.metadata_size.is_none() && offer.messages.is_empty());
}

/// An address that a magnet link names.
fn in_link(addr: SocketAddr) -> HeardAddress {
    HeardAddress { addr, source: PeerSource::Magnet }
}

fn request(metainfo: &Metainfo, peers: &[SocketAddr]) -> MetadataRequest {
    MetadataRequest {
        info_hash: metainfo.info_hash(),
        trackers: vec!["http://127.0.0.1:1/announce".parse().unwrap()],
        more_trackers: Vec::new(),
        peers: peers.iter().map(|addr| in_link(*addr)).collect(),
        patience: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_fetched_of_peers_and_then_the_content() {
    let bytes = content(700_000, 1);
    let (source, metainfo) = seeded("file", &bytes, 16 << 10);
    let seeder = session(None);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let addr = seeder.listen_addrs()[0];
    let leecher = session(None);
    // Nobody is at the second address.
    let request = request(&metainfo, &[addr, "127.0.0.1:1".parse().unwrap()]);
    let fetched = within(leecher.fetch_metadata(request, |_| {})).await.unwrap();
    assert_eq!(fetched.metainfo.info_hash(), metainfo.info_hash());
    assert!(fetched.metainfo.bytes().unwrap().info() == metainfo.bytes().unwrap().info());
    assert_eq!(fetched.metainfo.trackers(), [["http://127.0.0.1:1/announce"]]);
    assert!(fetched.peers.contains(&in_link(addr)));
    let target = tempfile::tempdir().unwrap();
    let mut torrent = AddTorrent::new(Arc::new(fetched.metainfo), target.path().to_owned());
    torrent.found = fetched.peers;
    let handle = leecher.add(torrent).unwrap();
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_connects_gives_metadata_and_one_that_lies_is_dropped() {
    let builder = MetainfoBuilder::single_file("file", 2_000 << 14).piece_len(1 << 14);
    let metainfo = Arc::new(builder.build(vec![7; 2_000 * 20]).unwrap());
    let leecher = session(None);
    let addr = leecher.listen_addrs()[0];
    let fetching = leecher.fetch_metadata(request(&metainfo, &[]), |_| {});
    let giving = async {
        let info = metainfo.bytes().unwrap().info().to_vec();
        let lie = vec![9; info.len()];
        let mut connected = None;
        while connected.is_none() {
            // It is refused until the fetch has begun.
            tokio::task::yield_now().await;
            connected = RawPeer::connect(addr, &metainfo, stranger(b'l')).await.ok();
        }
        let mut liar = connected.unwrap();
        give(&mut liar, &lie).await;
        // It was dropped, so an honest peer comes after it.
        let mut honest = RawPeer::connect(addr, &metainfo, stranger(b'h')).await.unwrap();
        give(&mut honest, &info).await;
    };
    let (fetched, ()) = within(async { tokio::join!(fetching, giving) }).await;
    assert_eq!(fetched.unwrap().metainfo.info_hash(), metainfo.info_hash());
}

/// Gives `info` as metadata until the connection ends.
async fn give(peer: &mut RawPeer, info: &[u8]) {
    let messages = [("ut_metadata".to_owned(), OURS)].into();
    let metadata_size = Some(info.len() as u64);
    let handshake = ExtendedHandshake { messages, metadata_size, ..ExtendedHandshake::default() };
    let payload = handshake.encode().into();
    peer.send(&Message::Extended { id: 0, payload }).await.unwrap();
    while let Some(heard) = peer.hear().await {
        let PeerMessage::Message(Message::Extended { id: OURS, payload }) = heard else { continue };
        let Some(MetadataMessage::Request { piece }) = MetadataMessage::decode(&payload).unwrap()
        else {
            panic!("only requests are expected")
        };
        let payload = MetadataMessage::data(info, piece).unwrap().encode();
        // The connection may end with the last piece.
        let _ = peer.send(&Message::Extended { id: METADATA_ID, payload }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_without_peers_ends_when_there_is_nobody_to_ask() {
    let leecher = session(None);
    let (_source, metainfo) = seeded("file", &content(1_000, 1), 16 << 10);
    let patience = Some(std::time::Duration::from_secs(3_600));
    let request = MetadataRequest { patience, ..request(&metainfo, &[]) };
    let error = within(leecher.fetch_metadata(request, |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("can be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_ends_with_its_session() {
    let leecher = session(None);
    let (_source, metainfo) = seeded("file", &content(1_000, 1), 16 << 10);
    let fetching = leecher.fetch_metadata(request(&metainfo, &[]), |_| {});
    let ending = async {
        // It accepts connections for the torrent once it has begun.
        let addr = leecher.listen_addrs()[0];
        while RawPeer::connect(addr, &metainfo, stranger(b'e')).await.is_err() {
            tokio::task::yield_now().await;
        }
        leecher.shutdown().await;
    };
    let (fetched, ()) = within(async { tokio::join!(fetching, ending) }).await;
    assert!(fetched.unwrap_err().to_string().contains("session has ended"));
    let again = leecher.fetch_metadata(request(&metainfo, &[]), |_| {}).await;
    assert!(again.is_err());
}
