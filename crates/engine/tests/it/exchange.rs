//! Peer exchange (BEP 11) over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_engine::{Session, TorrentHandle};
use piecework_proto::wire::{
    EXCHANGE_EXTENSION, EXCHANGE_ID, ExchangeFlags, ExchangeMessage, ExchangedPeer,
    ExtendedHandshake, Message,
};
use piecework_swarm::PeerSource;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session, session_with, stranger, within,
};

/// A session that gives so little that nobody is complete before the end of a test.
fn slow(listens: bool) -> Session {
    session_with(|config| {
        config.upload_limit = Some(20_000);
        if !listens {
            config.listen.clear();
        }
    })
}

/// Waits until a peer has come from another peer, and returns where it was dialled.
async fn found(handle: &TorrentHandle) -> SocketAddr {
    within(async {
        loop {
            let peers = handle.peers().await;
            if let Some(peer) = peers.iter().find(|peer| peer.source == PeerSource::Exchange) {
                return peer.addr;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_peer_is_found_by_exchange_alone() {
    let bytes = content(4_000_000, 1);
    let (source, metainfo) = seeded("file", &bytes, 16 << 10);
    let (seeder, middle, leecher) = (slow(true), slow(true), slow(false));
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let seed = seeder.listen_addrs()[0];
    add(&middle, &metainfo, folders[0].path(), &[seed]);
    let handle = add(&leecher, &metainfo, folders[1].path(), &[middle.listen_addrs()[0]]);
    assert_eq!(found(&handle).await, seed);
}

/// Connects a peer that exchanges peers to the torrent at `addr`. Returns what it was offered.
async fn connect(addr: SocketAddr, metainfo: &Arc<Metainfo>) -> (RawPeer, ExtendedHandshake) {
    let mut peer = RawPeer::connect(addr, metainfo, stranger(b'x')).await.unwrap();
    let messages = [(EXCHANGE_EXTENSION.to_owned(), 7)].into();
    let offer = ExtendedHandshake { messages, ..ExtendedHandshake::default() };
    peer.send(&Message::Extended { id: 0, payload: offer.encode().into() }).await.unwrap();
    let offered = within(async {
        loop {
            if let PeerMessage::Message(Message::Extended { id: 0, payload }) =
                peer.hear().await.unwrap()
            {
                return ExtendedHandshake::decode(&payload).unwrap();
            }
        }
    });
    let offered = offered.await;
    (peer, offered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_addresses_in_one_message_cost_the_connection() {
    let bytes = content(100_000, 2);
    let (_source, metainfo) = seeded("file", &bytes, 16 << 10);
    let (leecher, folder) = (session(None), tempfile::tempdir().unwrap());
    let handle = add(&leecher, &metainfo, folder.path(), &[]);
    let (mut peer, offered) = connect(leecher.listen_addrs()[0], &metainfo).await;
    assert_eq!(offered.messages.get(EXCHANGE_EXTENSION), Some(&EXCHANGE_ID));
    let addr = |n: u32| SocketAddr::from(([20, 0, (n >> 8) as u8, n as u8], 1));
    let named = |n| ExchangedPeer { addr: addr(n), flags: ExchangeFlags::default() };
    let message = ExchangeMessage { added: (0..10_000).map(named).collect(), dropped: Vec::new() };
    let payload = message.encode();
    // It may be closed before all of it is sent.
    let _ = peer.send(&Message::Extended { id: EXCHANGE_ID, payload }).await;
    within(async { while peer.hear().await.is_some() {} }).await;
    within(async {
        while !handle.peers().await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_torrent_does_not_offer_exchange() {
    let folder = tempfile::tempdir().unwrap();
    let builder = MetainfoBuilder::single_file("file", 20).private(true);
    let metainfo = Arc::new(builder.build(vec![7; 20]).unwrap());
    let leecher = session(None);
    add(&leecher, &metainfo, folder.path(), &[]);
    let (_peer, offered) = connect(leecher.listen_addrs()[0], &metainfo).await;
    assert!(offered.messages.is_empty());
}
