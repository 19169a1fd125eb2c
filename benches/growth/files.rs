//! A torrent of many files of 100 bytes.

use std::path::Path;
use std::sync::Arc;

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_engine::{AddTorrent, TorrentState};
use piecework_storage::{CreateOptions, create};

use super::{Row, rows_of};
use piecework_testkit::library::Meter;
use piecework_testkit::session_with;

pub(crate) async fn measure(files: usize) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let content = folder.path().join("content");
    write(&content, files);
    let mut rows = Vec::new();
    let meter = Meter::begin();
    let options = CreateOptions { piece_len: Some(64 << 10), ..CreateOptions::default() };
    let created = create(&content, options, 2, |_| {}, &Default::default()).unwrap();
    rows.extend(rows_of("making it", &meter.end()));
    let bytes = created.metainfo.bytes().unwrap().as_ref().to_vec();
    drop(created);
    let meter = Meter::begin();
    let metainfo = Arc::new(Metainfo::parse(&bytes, &ParseLimits::default()).unwrap());
    rows.extend(rows_of("reading the .torrent", &meter.end()));
    rows.push(Row("the .torrent".to_owned(), "KiB", bytes.len() as f64 / 1024.0));
    let (seeder, leecher) = (session_with(|_| {}), session_with(|_| {}));
    let meter = Meter::begin();
    let seed = seeder.add(AddTorrent::new(Arc::clone(&metainfo), folder.path())).unwrap();
    let state = |wanted| move |it: &piecework_engine::TorrentHandle| it.status().state == wanted;
    wait(&seed, state(TorrentState::Seeding)).await;
    rows.extend(rows_of("checking it", &meter.end()));
    let target = tempfile::tempdir().unwrap();
    let meter = Meter::begin();
    let mut add = AddTorrent::new(Arc::clone(&metainfo), target.path());
    add.peers = seeder.listen_addrs().to_vec();
    leecher.add(add).unwrap().completed().await.unwrap();
    let cost = meter.end();
    rows.extend(rows_of("downloading it, both sides", &cost));
    rows.push(Row("downloading it".to_owned(), "ms", cost.took.as_secs_f64() * 1e3));
    let last = Path::new("content").join(((files - 1) / 1_000).to_string());
    let last = last.join((files - 1).to_string());
    assert_eq!(
        std::fs::read(target.path().join(&last)).unwrap(),
        std::fs::read(folder.path().join(&last)).unwrap()
    );
    leecher.shutdown().await;
    seeder.shutdown().await;
    rows
}

/// Waits without a limit, because 500,000 files take minutes on a disk.
async fn wait(
    handle: &piecework_engine::TorrentHandle,
    wanted: impl Fn(&piecework_engine::TorrentHandle) -> bool,
) {
    let mut changed = handle.clone();
    while !wanted(handle) {
        changed.changed().await.unwrap();
    }
}

fn write(folder: &Path, files: usize) {
    for number in 0..files {
        let beneath = folder.join((number / 1_000).to_string());
        if number % 1_000 == 0 {
            std::fs::create_dir_all(&beneath).unwrap();
        }
        std::fs::write(beneath.join(number.to_string()), format!("{number:0100}")).unwrap();
    }
}
