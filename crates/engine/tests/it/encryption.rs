//! Encrypted connections between whole sessions, over real sockets on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::metainfo::Metainfo;
use piecework_engine::net::{self, Accepted, DialOptions, HandshakeError};
use piecework_engine::{Session, TorrentHandle, TorrentState};
use piecework_proto::encryption::EncryptionPolicy::{self, Allow, Plain, Prefer, Require};
use piecework_proto::encryption::Method;
use piecework_proto::wire::Handshake;
use piecework_swarm::ChokePolicy;
use piecework_testkit::{
    RawPeer, add, content, one_piece, seeded, session_with, stranger, until, within,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const PIECE: u32 = 64 * 1024;

fn session(encryption: EncryptionPolicy) -> Session {
    session_with(|config| config.encryption = encryption)
}

async fn dial(
    addr: SocketAddr,
    metainfo: &Metainfo,
    encryption: EncryptionPolicy,
) -> Result<Accepted, HandshakeError> {
    let ours = Handshake::ours(metainfo.info_hash(), stranger(b'd'));
    let time = Duration::from_secs(60);
    let (connect_timeout, handshake_timeout) = (time, time);
    let options = DialOptions { interface: None, encryption, connect_timeout, handshake_timeout };
    within(net::dial(addr, &ours, options)).await
}

/// Waits for a torrent's first peer, and returns how its connection is encrypted.
async fn encryption_of_its_peer(handle: &TorrentHandle) -> Option<Method> {
    within(async {
        loop {
            if let Some(peer) = handle.peers().await.first() {
                return peer.encryption;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_arrives_whole_over_every_kind_of_connection_and_both_sides_tell_which() {
    let bytes = content(1_000_003, 16);
    let (source, metainfo) = seeded("file.bin", &bytes, PIECE);
    for (dials, accepts, expected) in [
        (Allow, Allow, None),
        (Plain, Prefer, None),
        (Prefer, Plain, None),
        (Prefer, Allow, Some(Method::Plaintext)),
        (Allow, Require, Some(Method::Rc4)),
        (Require, Allow, Some(Method::Rc4)),
        (Require, Require, Some(Method::Rc4)),
    ] {
        let target = tempfile::tempdir().unwrap();
        let seeder = session(accepts);
        // Slow until both sides have been asked.
        let leecher = session_with(|config| {
            config.encryption = dials;
            config.download_limit = Some(32 << 10);
        });
        let seed = add(&seeder, &metainfo, source.path(), &[]);
        within(seed.completed()).await.unwrap();
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        for handle in [&handle, &seed] {
            let encryption = encryption_of_its_peer(handle).await;
            assert_eq!(encryption, expected, "{dials:?} dials {accepts:?}");
        }
        leecher.set_limits(None, None);
        within(handle.completed()).await.unwrap();
        let copy = std::fs::read(target.path().join("file.bin")).unwrap();
        assert!(copy == bytes, "{dials:?} dials {accepts:?}: the file differs");
        seeder.shutdown().await;
        leecher.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_demands_encryption_and_one_that_has_none_are_told_of_each_other() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 17), PIECE);
    for (dials, accepts) in [(Plain, Require), (Require, Plain)] {
        let target = tempfile::tempdir().unwrap();
        let (seeder, leecher) = (session(accepts), session(dials));
        within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
        let handle = add(&leecher, &metainfo, target.path(), seeder.listen_addrs());
        let hung_up = |handle: &TorrentHandle| {
            handle.waited().standing.is_some_and(|standing| standing.hung_up == 1)
        };
        within(async {
            while !hung_up(&handle) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(handle.peers().await.is_empty(), "{dials:?} dials {accepts:?}");
        seeder.shutdown().await;
        leecher.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_follow_a_change_of_the_policy() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 18), PIECE);
    let seeder = session(Require);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let addr = seeder.listen_addrs()[0];
    let set = |encryption| seeder.set_bounds(100, 80, 8, ChokePolicy::Closed, encryption);
    let refused = within(RawPeer::connect(addr, &metainfo, stranger(b'a'))).await;
    assert!(refused.is_err());
    set(Plain);
    within(RawPeer::connect(addr, &metainfo, stranger(b'b'))).await.unwrap();
    let refused = dial(addr, &metainfo, Require).await;
    assert!(refused.unwrap_err().is_hang_up());
    set(Allow);
    assert_eq!(dial(addr, &metainfo, Require).await.unwrap().stream.method(), Some(Method::Rc4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_handshake_finds_each_of_many_torrents_and_none_that_was_removed() {
    let root = tempfile::tempdir().unwrap();
    let session = session(Allow);
    let addr = session.listen_addrs()[0];
    let torrents: Vec<_> = (0..40).map(one_piece).collect();
    for metainfo in &torrents {
        let handle = add(&session, metainfo, root.path(), &[]);
        until(&handle, |handle| handle.status().state == TorrentState::Downloading).await;
    }
    for metainfo in &torrents {
        let accepted = dial(addr, metainfo, Require).await.unwrap();
        assert_eq!(accepted.theirs.info_hash, metainfo.info_hash());
    }
    for metainfo in torrents.iter().step_by(2) {
        assert!(session.remove(metainfo.info_hash()).await);
    }
    for (number, metainfo) in torrents.iter().enumerate() {
        let dialled = dial(addr, metainfo, Require).await;
        match number % 2 {
            0 => assert!(dialled.unwrap_err().is_hang_up(), "{number} was removed"),
            _ => assert_eq!(dialled.unwrap().theirs.info_hash, metainfo.info_hash()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_handshakes_that_are_begun_and_not_ended_keep_nobody_out() {
    let (source, metainfo) = seeded("file.bin", &content(100_000, 19), PIECE);
    let seeder = session_with(|config| config.max_half_open = 30);
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    let addr = seeder.listen_addrs()[0];
    let mut idle = Vec::new();
    for number in 0..300usize {
        let mut stream = within(TcpStream::connect(addr)).await.unwrap();
        // Part of a key, a key, a key and some of what may be padding.
        let begun = vec![b'k'; [1, 95, 96, 400][number % 4]];
        // Those before it make way, and may be this one's neighbours.
        let _ = stream.write_all(&begun).await;
        idle.push(stream);
    }
    for _ in 0..6 {
        let accepted = dial(addr, &metainfo, Require).await.unwrap();
        assert_eq!(accepted.stream.method(), Some(Method::Rc4));
    }
}
