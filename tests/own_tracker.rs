//! What many torrents cost whose tracker is one of ours: counted in allocations, since times depend
//! on the machine.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::allocations::{Counting, calls, live};
use common::session_with;
use piecework::announce::{CatalogueUrl, TrackerTarget};
use piecework::metainfo::{Metainfo, MetainfoBuilder};
use piecework::session::{AddTorrent, Session};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The figures are the whole process's: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A torrent of one piece.
fn torrent(number: usize) -> Arc<Metainfo> {
    let mut digest = vec![0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    Arc::new(MetainfoBuilder::single_file(format!("file-{number}"), 16_000).build(digest).unwrap())
}

/// What it took to add torrents.
#[derive(Debug)]
struct Cost {
    calls: usize,
    bytes: usize,
}

fn add_all(session: &Session, torrents: &[Arc<Metainfo>], root: &Path, tracker: &str) -> Cost {
    let before = (calls(), live());
    for metainfo in torrents {
        let target = TrackerTarget::parse(tracker).unwrap();
        let mut add = AddTorrent::new(Arc::clone(metainfo), root);
        add.trackers = Some(target.tiers);
        add.catalogue = target.catalogue.map(CatalogueUrl::named);
        (add.assume_complete, add.paused) = (true, true);
        session.add(add).unwrap();
    }
    Cost { calls: calls() - before.0, bytes: live().saturating_sub(before.1) }
}

#[tokio::test]
async fn torrents_of_one_tracker_of_ours_share_its_http_client() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let root = tempfile::tempdir().unwrap();
    let torrents: Vec<_> = (0..1_120).map(torrent).collect();
    let session = session_with(|_| {});
    // Nobody is there, and nobody is asked: the torrents are paused.
    let tracker = "127.0.0.1:9";
    add_all(&session, &torrents[..20], root.path(), tracker);
    let few = add_all(&session, &torrents[20..120], root.path(), tracker);
    let many = add_all(&session, &torrents[120..], root.path(), tracker);
    assert!(many.calls <= few.calls * 11, "{few:?}, {many:?}");
    assert!(many.bytes <= few.bytes.max(100 * 1024) * 11, "{few:?}, {many:?}");
    // The torrent's own facts and its two trackers.
    assert!(many.bytes <= 1_000 * 2_048, "{many:?}");
    session.shutdown().await;
}

#[tokio::test]
async fn a_second_session_reads_no_root_certificates() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let session = session_with(|_| {});
    session.shutdown().await;
    let before = calls();
    let session = session_with(|_| {});
    let made = calls() - before;
    session.shutdown().await;
    // Reading 140 certificates takes several thousand.
    assert!(made < 1_500, "{made} allocations");
}
