//! What downloads wait for, over real sockets. What is measured is left open: only that the time
//! goes to the right cause.

use std::sync::Arc;
use std::time::Duration;

use piecework_engine::{SessionFigures, TorrentHandle};
use piecework_proto::wire::Message;
use piecework_swarm::Cause;
use piecework_testkit::{
    PeerMessage, RawPeer, add, content, seeded, session, session_with, stranger, until, within,
};
use tokio::net::TcpListener;

const PIECE: u32 = 64 * 1024;

/// What holds now.
fn cause(handle: &TorrentHandle) -> Option<Cause> {
    handle.waited().standing.map(|standing| standing.cause)
}

fn time(handle: &TorrentHandle, cause: Cause) -> Duration {
    handle.waited().time[cause as usize]
}

fn sum(figures: &SessionFigures, cause: Cause) -> Duration {
    figures.waited[cause as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_without_peers_waits_for_peers_though_nothing_happens() {
    let (_source, metainfo) = seeded("file", &content(200_000, 1), PIECE);
    let target = tempfile::tempdir().unwrap();
    let session = session(None);
    let handle = add(&session, &metainfo, target.path(), &[]);
    until(&handle, |handle| cause(handle) == Some(Cause::NoPeers)).await;
    let before = time(&handle, Cause::NoPeers);
    // Nobody tells anything now: time passes all the same.
    within(async {
        while time(&handle, Cause::NoPeers) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(sum(&session.figures(), Cause::NoPeers) > before);
    let waited = handle.waited();
    assert_eq!(waited.recent[Cause::NoPeers as usize], 1.0);
    assert_eq!(waited.standing.unwrap().missing, metainfo.info().geometry().pieces());

    handle.pause().await;
    until(&handle, |handle| cause(handle).is_none()).await;
    let (total, all) = (time(&handle, Cause::NoPeers), sum(&session.figures(), Cause::NoPeers));
    assert!(total > before && all > before, "{total:?} and {all:?}");
    handle.resume().await;
    until(&handle, |handle| cause(handle) == Some(Cause::NoPeers)).await;
    assert!(time(&handle, Cause::NoPeers) >= total, "the time before the pause counts on");
    session.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_seen_to_lack_to_choke_and_to_send_nothing() {
    let (_source, metainfo) = seeded("file", &content(200_000, 2), PIECE);
    let target = tempfile::tempdir().unwrap();
    let session = session(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let handle = add(&session, &metainfo, target.path(), &[addr]);
    let mut peer = within(RawPeer::accept(&listener, &metainfo, stranger(b'1'))).await.unwrap();
    peer.send(&Message::HaveNone).await.unwrap();
    until(&handle, |handle| cause(handle) == Some(Cause::NothingOffered)).await;
    peer.send(&Message::Have(piecework_core::PieceIndex(0))).await.unwrap();
    until(&handle, |handle| cause(handle) == Some(Cause::Choked)).await;
    assert_eq!(handle.waited().standing.unwrap().offering, 1);
    peer.send(&Message::Unchoke).await.unwrap();
    until(&handle, |handle| cause(handle) == Some(Cause::PeerUpload)).await;
    let standing = handle.waited().standing.unwrap();
    assert_eq!((standing.serving, standing.owed), (1, 4));
    peer.send(&Message::Choke).await.unwrap();
    within(async {
        // What it was asked for it refuses, as it chokes us.
        for _ in 0..4 {
            loop {
                if let Some(PeerMessage::Message(Message::Request(block))) = peer.hear().await {
                    peer.send(&Message::Reject(block)).await.unwrap();
                    break;
                }
            }
        }
    })
    .await;
    until(&handle, |handle| cause(handle) == Some(Cause::Choked)).await;
    drop(peer);
    until(&handle, |handle| cause(handle) == Some(Cause::NoPeers)).await;
    for seen in [Cause::NothingOffered, Cause::Choked, Cause::PeerUpload] {
        assert!(!time(&handle, seen).is_zero(), "{seen:?}");
    }
    session.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_limit_of_the_torrent_or_the_session_is_what_holds_it_back() {
    for own in [true, false] {
        // Ten seconds' worth: the limit is lifted long before.
        let bytes = content(1_000_000, 3);
        let (source, metainfo) = seeded("file", &bytes, PIECE);
        let target = tempfile::tempdir().unwrap();
        let limit = Some(100_000);
        let seeder = session(None);
        let leecher = session_with(|config| config.download_limit = limit.filter(|_| !own));
        within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
        let handle = add(&leecher, &metainfo, target.path(), &[]);
        let mut options = handle.options();
        options.download_limit = limit.filter(|_| own);
        handle.set_options(options.clone()).await;
        handle.add_peers(seeder.listen_addrs().to_vec()).await;
        until(&handle, |handle| cause(handle) == Some(Cause::RateLimit)).await;
        options.download_limit = None;
        handle.set_options(options).await;
        leecher.set_limits(None, None);
        within(handle.completed()).await.unwrap();
        until(&handle, |handle| cause(handle).is_none()).await;
        assert!(!time(&handle, Cause::RateLimit).is_zero());

        let figures = leecher.figures();
        assert!(!sum(&figures, Cause::RateLimit).is_zero());
        assert_eq!(figures.downloaded - figures.wasted, bytes.len() as u64);
        assert_eq!(figures.pieces_verified, u64::from(metainfo.info().geometry().pieces()));
        assert_eq!((figures.corrupt, figures.pieces_failed, figures.bans), (0, 0, 0));
        leecher.shutdown().await;
        seeder.shutdown().await;
        let uploaded = seeder.figures().uploaded;
        assert!(uploaded >= bytes.len() as u64, "{uploaded}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_waits_for_nothing() {
    let (source, metainfo) = seeded("file", &content(200_000, 4), PIECE);
    let session = session(None);
    let handle = add(&session, &Arc::clone(&metainfo), source.path(), &[]);
    within(handle.completed()).await.unwrap();
    let waited = handle.waited();
    assert_eq!((waited.standing, waited.counted), (None, Duration::ZERO));
    assert_eq!(waited.time, [Duration::ZERO; 9]);
    assert_eq!(session.figures().waited, [Duration::ZERO; 9]);
    session.shutdown().await;
}
