//! What torrents that do nothing cost a session: time to add them, and memory of each.
//!
//! `cargo bench --bench idle -- [TORRENTS]`. Each has one piece, one file and a checkpoint by which
//! it is complete; every other one is paused. Files lie in `$TMPDIR`.

use std::sync::Arc;
use std::time::Instant;

use piecework::base::{Bitfield, Checkpoint, Fingerprint, InfoHash};
use piecework::metainfo::{Metainfo, MetainfoBuilder};
use piecework::session::{AddTorrent, Keeper, Session, SessionConfig, TorrentState};

struct Nobody;

impl Keeper for Nobody {
    fn keep(&self, _: InfoHash, _: Checkpoint) {}
}

fn main() {
    let number = std::env::args().find_map(|arg| arg.parse().ok());
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let torrents: usize = number.unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    let added: Vec<(Arc<Metainfo>, Checkpoint)> =
        (0..torrents).map(|index| torrent(folder.path(), index)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = SessionConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            keeper: Some(Arc::new(Nobody)),
            ..SessionConfig::default()
        };
        let session = Session::start(config).unwrap();
        let (start, before) = (Instant::now(), resident_kib());
        for (index, (metainfo, checkpoint)) in added.iter().enumerate() {
            let mut add = AddTorrent::new(Arc::clone(metainfo), folder.path());
            add.checkpoint = Some(checkpoint.clone());
            add.paused = index % 2 == 1;
            session.add(add).unwrap();
        }
        let adding = start.elapsed();
        for mut handle in session.torrents() {
            while handle.status().state == TorrentState::Waiting {
                handle.changed().await.unwrap();
            }
        }
        let (ready, after) = (start.elapsed(), resident_kib());
        let each = (after - before) as f64 / torrents as f64;
        println!("{torrents} torrents added in {adding:.2?}, ready after {ready:.2?}");
        println!("VmRSS {before} KiB before, {after} KiB after: {each:.2} KiB each");
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        println!("{tasks} tasks alive");
        let start = Instant::now();
        session.shutdown().await;
        println!("shut down in {:.2?}", start.elapsed());
    });
}

fn torrent(folder: &std::path::Path, index: usize) -> (Arc<Metainfo>, Checkpoint) {
    let name = format!("file-{index}");
    let bytes = index.to_le_bytes();
    let path = folder.join(&name);
    std::fs::write(&path, bytes).unwrap();
    let builder = MetainfoBuilder::single_file(name, bytes.len() as u64);
    // Nothing is hashed: what the checkpoint says is believed.
    let mut digest = vec![0; 20];
    digest[..8].copy_from_slice(&bytes);
    let metainfo = Arc::new(builder.build(digest).unwrap());
    let modified = path.metadata().unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let mtime_ns = since.as_nanos() as i64;
    let checkpoint = Checkpoint {
        have: Bitfield::full(1),
        files: vec![Some(Fingerprint { len: bytes.len() as u64, mtime_ns })],
        writing: false,
        taken_at_ns: mtime_ns,
        downloaded: 0,
        uploaded: 0,
    };
    (metainfo, checkpoint)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
