//! Torrents of which only the magnet link is known.

use std::net::SocketAddr;

use piecework_api::{
    Added, LeechRequest, RemoveRequest, SeedRequest, Source, State, TorrentChange,
};
use piecework_core::base64;
use piecework_core::metainfo::Metainfo;
use piecework_daemon::{Caller, Daemon, DaemonError};
use piecework_testkit::daemon::{Home, until};

fn link_of(metainfo: &Metainfo, peer: SocketAddr) -> String {
    format!("magnet:?xt=urn:btih:{}&dn=Some%0Aname&x.pe={peer}", metainfo.info_hash())
}

fn request(link: &str) -> LeechRequest {
    LeechRequest { source: Source::Url(link.to_owned()), ..LeechRequest::default() }
}

/// Shares a torrent that others already know.
async fn seed(seeder: &Daemon, home: &Home, metainfo: &Metainfo, name: &str) -> Added {
    let torrent = Some(base64::encode(metainfo.bytes().unwrap().as_ref()));
    let input = home.path(&format!("made/{name}"));
    seeder.seed(SeedRequest { input, torrent, ..SeedRequest::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_waits_for_its_metadata_over_a_restart_and_becomes_its_torrent() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let metainfo = seeds.made("late", 90_000);
    let hash = metainfo.info_hash();
    let link = link_of(&metainfo, seeder.listen_addrs()[0]);
    let daemon = home.start().await;
    let added = daemon
        .leech(LeechRequest { labels: vec!["a".to_owned()], ..request(&link) })
        .await
        .unwrap();
    assert_eq!((added.info_hash, added.duplicate, &*added.name), (hash, false, "Some\\x0aname"));
    assert!(added.warnings[0].starts_with("its metadata is not here yet"), "{added:?}");
    let shown = daemon.torrent(hash).unwrap();
    assert_eq!((shown.state, shown.metadata_progress, shown.bytes), (State::Metadata, 0.0, 0));
    assert_eq!(daemon.detail(hash).await.unwrap().magnet, link);
    assert!(daemon.leech(request(&link)).await.unwrap().duplicate);
    assert!(matches!(daemon.torrent_bytes(hash).await, Err(DaemonError::Conflict(_))));
    let change = TorrentChange { upload_limit: Some(7_000), ..TorrentChange::default() };
    daemon.change(hash, change).await.unwrap();

    daemon.pause(hash).await.unwrap();
    assert_eq!(daemon.torrent(hash).unwrap().state, State::Paused);
    daemon.shutdown().await;
    let daemon = home.start().await;
    let again = daemon.torrent(hash).unwrap();
    assert_eq!((again.state, again.settings.upload_limit), (State::Paused, Some(7_000)));
    assert_eq!((again.name, again.metadata_progress), ("Some\\x0aname".to_owned(), 0.0));

    seed(&seeder, &seeds, &metainfo, "late").await;
    daemon.start_torrent(hash, false).await.unwrap();
    let done = until(&daemon, hash, |it| it.state == State::Seeding).await;
    assert_eq!((done.id, done.added_at, done.metadata_progress), (again.id, again.added_at, 1.0));
    assert_eq!((done.name.as_str(), done.settings.upload_limit), ("late", Some(7_000)));
    assert_eq!(done.settings.labels, ["a"]);
    let made = std::fs::read(seeds.path("made/late")).unwrap();
    assert!(std::fs::read(home.downloads().join("late")).unwrap() == made);
    assert_eq!(daemon.torrents().len(), 1);
    daemon.shutdown().await;
    let daemon = home.start().await;
    until(&daemon, hash, |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_file_takes_the_place_of_its_link() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let metainfo = seeds.made("f", 60_000);
    let hash = metainfo.info_hash();
    let daemon = home.start().await;
    let link = LeechRequest {
        paused: Some(true),
        labels: vec!["of the link".to_owned()],
        ..request(&link_of(&metainfo, seeder.listen_addrs()[0]))
    };
    let listed = daemon.leech(link).await.unwrap();
    let source = Source::Torrent(base64::encode(metainfo.bytes().unwrap().as_ref()));
    let added = daemon.leech(LeechRequest { source, ..LeechRequest::default() }).await.unwrap();
    assert_eq!((added.id, &*added.name, added.duplicate), (listed.id, "f", false));
    let shown = until(&daemon, hash, |it| it.state == State::Paused).await;
    assert_eq!((shown.metadata_progress, shown.bytes), (1.0, 60_000));
    assert_eq!(shown.settings.labels, ["of the link"]);
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_fetched_goes_on_after_a_restart() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let metainfo = seeds.made("r", 60_000);
    let link = link_of(&metainfo, seeder.listen_addrs()[0]);
    let daemon = home.start().await;
    daemon.leech(request(&link)).await.unwrap();
    daemon.shutdown().await;
    seed(&seeder, &seeds, &metainfo, "r").await;
    let daemon = home.start().await;
    until(&daemon, metainfo.info_hash(), |it| it.state == State::Seeding).await;
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_removed_without_a_trace_and_one_that_leads_nowhere_is_refused() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let metainfo = seeds.made("gone", 50_000);
    let hash = metainfo.info_hash();
    let daemon = home.start().await;
    let paused = LeechRequest {
        paused: Some(true),
        ..request(&link_of(&metainfo, seeder.listen_addrs()[0]))
    };
    let added = daemon.leech(paused).await.unwrap();
    assert_eq!(added.warnings, ["its metadata is fetched once it is started"]);
    let with_data = RemoveRequest { delete_data: true, ..RemoveRequest::default() };
    daemon.remove(hash, with_data).await.unwrap();
    assert!(daemon.torrent(hash).is_none());
    let nowhere = format!("magnet:?xt=urn:btih:{hash}");
    let refused = daemon.leech(request(&nowhere)).await.unwrap_err();
    assert!(matches!(&refused, DaemonError::NotFound(_)), "{refused}");
    assert_eq!(daemon.torrents().len(), 0);
    daemon.shutdown().await;
    let daemon = home.start().await;
    assert_eq!(daemon.torrents().len(), 0);
    daemon.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_may_let_a_tenth_of_all_links_wait_and_take_no_place_of_the_owner() {
    let home = Home::new();
    let daemon = home.start().await;
    let guest = daemon.for_caller(Caller::Guest);
    let link = |number: u32| LeechRequest {
        paused: Some(true),
        ..request(&format!("magnet:?xt=urn:btih:{number:040x}&x.pe=127.0.0.1:9"))
    };
    for number in 0..100 {
        guest.leech(link(number)).await.unwrap();
    }
    let refused = guest.leech(link(100)).await.unwrap_err();
    assert!(refused.to_string().contains("`100` magnet links"), "{refused}");
    daemon.leech(link(100)).await.unwrap();
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_chooses_is_checked_when_the_metadata_is_here() {
    let (seeds, home) = (Home::new(), Home::new());
    let seeder = seeds.start().await;
    let metainfo = seeds.made("c", 50_000);
    let hash = metainfo.info_hash();
    let link = link_of(&metainfo, seeder.listen_addrs()[0]);
    let daemon = home.start().await;
    // Nobody waits any more when the metadata comes.
    let wrong = LeechRequest { only_files: Some("5".to_owned()), ..request(&link) };
    daemon.leech(wrong).await.unwrap();
    seed(&seeder, &seeds, &metainfo, "c").await;
    let failed = until(&daemon, hash, |it| it.state == State::Failed).await;
    assert!(failed.error.unwrap().contains('5'));
    let data = RemoveRequest::default();
    daemon.remove(hash, data).await.unwrap();
    // Somebody waits, so nothing stays.
    let wrong = LeechRequest { only_files: Some("5".to_owned()), ..request(&link) };
    let refused = daemon.leech(wrong).await.unwrap_err();
    assert!(matches!(refused, DaemonError::Invalid(_)), "{refused}");
    assert!(daemon.torrent(hash).is_none());
    let named = LeechRequest { rename: Some("other".to_owned()), ..request(&link) };
    daemon.leech(named).await.unwrap();
    until(&daemon, hash, |it| it.state == State::Seeding).await;
    assert!(home.downloads().join("other").exists());
    daemon.shutdown().await;
    seeder.shutdown().await;
}
