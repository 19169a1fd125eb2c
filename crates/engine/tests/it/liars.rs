//! Downloads among peers that unchoke us, take requests and do not answer them, on real sockets.
//! How long they take is tested in virtual time (`crates/swarm/src/tests/liars.rs`); here it is enough that
//! they end, which they did not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piecework_core::metainfo::Metainfo;
use piecework_engine::Session;
use piecework_proto::wire::Message;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session, session_with, stranger, within,
};
use tokio::net::TcpListener;

const PIECE: u32 = 256 * 1024;

/// What a fake peer does with a request.
#[derive(Clone, Copy, Debug)]
enum Lie {
    Silent,
    /// Rejects all at once.
    Rejects,
    /// Chokes and unchokes with each.
    Flaps,
}

/// Peers that claim everything, each at an address of its own.
async fn liars(metainfo: &Arc<Metainfo>, lie: Lie, count: u8) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for number in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addrs.push(listener.local_addr().unwrap());
        let metainfo = Arc::clone(metainfo);
        tokio::spawn(async move {
            while let Ok(peer) = RawPeer::accept(&listener, &metainfo, stranger(number)).await {
                // It may be dropped at any time.
                let _ = lie_to(peer, lie).await;
            }
        });
    }
    addrs
}

async fn lie_to(mut peer: RawPeer, lie: Lie) -> std::io::Result<()> {
    peer.send(&Message::HaveAll).await?;
    peer.send(&Message::Unchoke).await?;
    while let Some(heard) = peer.hear().await {
        let PeerMessage::Message(Message::Request(block)) = heard else { continue };
        match lie {
            Lie::Silent => {}
            Lie::Rejects => peer.send(&Message::Reject(block)).await?,
            Lie::Flaps => {
                peer.send(&Message::Choke).await?;
                peer.send(&Message::Unchoke).await?;
            }
        }
    }
    Ok(())
}

/// A seeder of 2 MiB a second.
async fn seeder(metainfo: &Arc<Metainfo>, root: &std::path::Path) -> Session {
    let seeder = session_with(|config| config.upload_limit = Some(2 << 20));
    within(add(&seeder, metainfo, root, &[]).completed()).await.unwrap();
    seeder
}

async fn line_11(lie: Lie) {
    let bytes = content(4 << 20, 11);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let seeder = seeder(&metainfo, source.path()).await;
    let mut addrs = liars(&metainfo, lie, 40).await;
    addrs.extend_from_slice(seeder.listen_addrs());
    let (leecher, target) = (session(None), tempfile::tempdir().unwrap());
    within(add(&leecher, &metainfo, target.path(), &addrs).completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_11_forty_peers_that_send_nothing_hold_up_no_download() {
    line_11(Lie::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_11_forty_peers_that_choke_and_unchoke_hold_up_no_download() {
    line_11(Lie::Flaps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_17_forty_peers_that_reject_everything_hold_up_no_download() {
    line_11(Lie::Rejects).await;
}

/// Accepts one peer, refuses its first `refusals` requests, and gives it the rest of `bytes`.
async fn reluctant(listener: TcpListener, metainfo: Arc<Metainfo>, bytes: Vec<u8>, refusals: u32) {
    let mut peer = RawPeer::accept(&listener, &metainfo, stranger(b'1')).await.unwrap();
    peer.send(&Message::HaveAll).await.unwrap();
    peer.send(&Message::Unchoke).await.unwrap();
    let mut refused = 0;
    while let Some(heard) = peer.hear().await {
        let PeerMessage::Message(Message::Request(block)) = heard else { continue };
        if refused < refusals {
            refused += 1;
            peer.send(&Message::Reject(block)).await.unwrap();
            continue;
        }
        let at = u64::from(block.piece.0) * u64::from(PIECE) + u64::from(block.begin);
        let data = &bytes[at as usize..][..block.len as usize];
        // The download may be complete and the peer gone.
        if peer.send_block(block, data).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_18_twenty_refusals_of_the_only_seed_cost_no_minute() {
    let bytes = content(4 << 20, 18);
    let (_source, metainfo) = seeded("file.bin", &bytes, PIECE);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(reluctant(listener, Arc::clone(&metainfo), bytes.clone(), 20));
    let (leecher, target) = (session(None), tempfile::tempdir().unwrap());
    let begun = Instant::now();
    within(add(&leecher, &metainfo, target.path(), &[addr]).completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file.bin")).unwrap() == bytes);
    // It took 67 s when all pauses doubled, and takes less than 5 s; the rest is for slow machines.
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}
