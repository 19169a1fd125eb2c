//! Torrents that are added by the watch folder, and what stays of them in memory.

use std::time::Duration;

use piecework_api::State;
use piecework_core::metainfo::MetainfoBuilder;
use piecework_daemon::Daemon;

use super::{Row, rows_of};
use piecework_testkit::daemon::Home;
use piecework_testkit::library::Meter;

pub(crate) async fn measure(torrents: usize) -> Vec<Row> {
    let home = Home::new();
    let folder = home.path("watched");
    std::fs::create_dir_all(&folder).unwrap();
    let watched = folder.clone();
    let start = || {
        home.start_with(|config| {
            config.settings.watch_folder = Some(watched.clone());
            config.settings.watch_delete = true;
        })
    };
    let daemon = start().await;
    let meter = Meter::begin();
    for number in 0..torrents {
        let builder = MetainfoBuilder::single_file(format!("watched {number}"), 100);
        let metainfo = builder.build(vec![7; 20]).unwrap();
        let name = format!("{number}.torrent");
        std::fs::write(folder.join(name), metainfo.bytes().unwrap().as_ref()).unwrap();
    }
    settled(&daemon, torrents).await;
    let adding = meter.end();
    daemon.shutdown().await;
    drop(daemon);
    let meter = Meter::begin();
    let daemon = start().await;
    settled(&daemon, torrents).await;
    let starting = meter.end();
    daemon.shutdown().await;
    let mut rows = Vec::new();
    for (what, cost) in [("adding by the watch folder", adding), ("starting", starting)] {
        rows.extend(rows_of(what, &cost));
        let each = cost.kept as f64 / torrents as f64;
        rows.push(Row(what.to_owned(), "bytes kept each", each));
    }
    rows
}

/// Waits until all are there, and temporary memory is freed.
async fn settled(daemon: &Daemon, torrents: usize) {
    while daemon.figures().torrents[State::Downloading as usize] < torrents as u64 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
}
