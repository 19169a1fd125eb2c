//! Peers that no tracker names (BEP 5).

use std::net::SocketAddr;
use std::sync::Arc;

use piecework_core::metainfo::MetainfoBuilder;
use piecework_engine::{AddTorrent, DhtOptions, MetadataRequest, Session};
use piecework_swarm::PeerSource;
use piecework_testkit::{add, content, seeded, session_with, within};

/// Starts a session that begins at these nodes.
fn member(bootstrap: &[SocketAddr]) -> Session {
    let bootstrap = bootstrap.iter().map(SocketAddr::to_string).collect();
    session_with(|config| {
        config.dht = Some(DhtOptions { bootstrap, ..DhtOptions::default() });
    })
}

async fn until_stored(node: &Session, peers: usize) {
    within(async {
        while node.dht_figures().unwrap().stored_peers < peers {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_magnet_link_without_a_tracker_is_enough() {
    let bytes = content(100_000, 1);
    let (source, metainfo) = seeded("file", &bytes, 16 << 10);
    let bootstrap = member(&[]);
    let seeder = member(bootstrap.listen_addrs());
    within(add(&seeder, &metainfo, source.path(), &[]).completed()).await.unwrap();
    until_stored(&bootstrap, 1).await;

    let leecher = member(bootstrap.listen_addrs());
    let request = MetadataRequest {
        info_hash: metainfo.info_hash(),
        trackers: Vec::new(),
        more_trackers: Vec::new(),
        peers: Vec::new(),
        patience: None,
    };
    let fetched = within(leecher.fetch_metadata(request, |_| {})).await.unwrap();
    let found = fetched.peers.iter().find(|peer| peer.addr == seeder.listen_addrs()[0]);
    assert_eq!(found.unwrap().source, PeerSource::Dht);
    let target = tempfile::tempdir().unwrap();
    // Without the addresses, so that the torrent has to find its peers by itself.
    let torrent = AddTorrent::new(Arc::new(fetched.metainfo), target.path().to_owned());
    let handle = leecher.add(torrent).unwrap();
    within(handle.completed()).await.unwrap();
    assert!(std::fs::read(target.path().join("file")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_torrents_are_not_announced() {
    let bootstrap = member(&[]);
    let seeder = member(bootstrap.listen_addrs());
    let folder = tempfile::tempdir().unwrap();
    let private = MetainfoBuilder::single_file("private", 20).private(true).build(vec![7; 20]);
    add(&seeder, &Arc::new(private.unwrap()), folder.path(), &[]);
    // Added later, so the private one would have been announced before it.
    let (source, public) = seeded("public", &content(1_000, 1), 16 << 10);
    within(add(&seeder, &public, source.path(), &[]).completed()).await.unwrap();
    until_stored(&bootstrap, 1).await;
    assert_eq!(bootstrap.dht_figures().unwrap().stored_torrents, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_at_the_nodes_of_the_last_one() {
    let first = member(&[]);
    let known = |session: &Session| session.dht_figures().unwrap().nodes[0];
    let begun = member(first.listen_addrs());
    within(async {
        while known(&begun) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let table = begun.dht_table();
    begun.shutdown().await;
    let again = session_with(|config| {
        config.dht = Some(DhtOptions { table, ..DhtOptions::default() });
    });
    within(async {
        while known(&again) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(session_with(|_| {}).dht_figures().is_none());
}
