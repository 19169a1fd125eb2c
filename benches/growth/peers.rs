//! A swarm of `torrent-sim`: the cost of each further peer.

use piecework::sim::{LocalSwarm, SimOptions, TempFolder};
use piecework_storage::{CreateOptions, create};

use super::{Row, rows_of};
use piecework_testkit::library::Meter;

const MIB: u64 = 32;

pub(crate) async fn measure(peers: usize) -> Vec<Row> {
    let folder = TempFolder::new(&std::env::temp_dir()).unwrap();
    let file = folder.path().join("content");
    LocalSwarm::make_file(&file, MIB << 20, |_| Ok(())).unwrap();
    let options = CreateOptions { piece_len: Some(256 << 10), ..CreateOptions::default() };
    let created = create(&file, options, 2, |_| {}, &Default::default()).unwrap();
    let options = SimOptions { seeders: 1, leechers: peers, upload_limit: None };
    let meter = Meter::begin();
    let metainfo = std::sync::Arc::new(created.metainfo);
    let swarm = LocalSwarm::start(metainfo, &created.root, &folder, &options).await.unwrap();
    swarm.finished().await.unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    let cost = meter.end();
    swarm.stop().await;
    folder.remove().unwrap();
    let mut rows = rows_of("a download by each", &cost);
    rows.push(Row("a download by each".to_owned(), "threads", threads as f64));
    let gib = (peers as u64 * MIB) as f64 / 1024.0;
    let each = cost.cpu.as_secs_f64() / gib;
    rows.push(Row("a download by each".to_owned(), "CPU-s/GiB moved", each));
    rows
}
