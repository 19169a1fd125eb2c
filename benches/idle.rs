//! The cost of idle torrents for a session: the time to add them, and the memory of each.
//!
//! `cargo bench --bench idle -- [TORRENTS] [unfinished]`. Each torrent has one piece, one file and
//! a checkpoint that says that it is complete. Every other one is paused. With `unfinished` nothing
//! of it is there, nobody has it, and none is paused. Files are in `$TMPDIR`. Without a number,
//! 1,000, 10,000 and 50,000 are measured, each in a separate process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{Bitfield, Checkpoint, Fingerprint, InfoHash};
use piecework_engine::{AddTorrent, Keeper, Session, SessionConfig, TorrentState};

struct Nobody;

impl Keeper for Nobody {
    fn keep(&self, _: InfoHash, _: Checkpoint) {}
}

fn main() {
    let number = std::env::args().find_map(|arg| arg.parse().ok());
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let unfinished = std::env::args().any(|arg| arg == "unfinished");
    let Some(torrents) = number else {
        for torrents in ["1000", "10000", "50000"] {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.arg(torrents).args(unfinished.then_some("unfinished"));
            assert!(again.status().unwrap().success());
        }
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    if unfinished {
        return measure_unfinished(folder.path(), torrents);
    }
    let added: Vec<(Arc<Metainfo>, Checkpoint)> =
        (0..torrents).map(|index| torrent(folder.path(), index)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session();
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

/// Starts a session that keeps nothing.
fn session() -> Session {
    let config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        keeper: Some(Arc::new(Nobody)),
        ..SessionConfig::default()
    };
    Session::start(config).unwrap()
}

/// Measures torrents that nobody has: the cost of each, and of some more next to them.
fn measure_unfinished(folder: &std::path::Path, torrents: usize) {
    const MORE: usize = 100;
    let added: Vec<Arc<Metainfo>> = (0..torrents + MORE).map(nowhere).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session();
        let metrics = tokio::runtime::Handle::current().metrics();
        let (tasks, before) = (metrics.num_alive_tasks(), resident_kib());
        let add = async |range: std::ops::Range<usize>| {
            let (start, cpu, number) = (Instant::now(), cpu_time(), range.len() as f64);
            let mut handles = Vec::new();
            for metainfo in &added[range] {
                handles.push(session.add(AddTorrent::new(Arc::clone(metainfo), folder)).unwrap());
            }
            for mut handle in handles {
                while handle.status().state != TorrentState::Downloading {
                    handle.changed().await.unwrap();
                }
            }
            while metrics.num_alive_tasks() > tasks {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let took = start.elapsed();
            (took, (cpu_time() - cpu).as_secs_f64() * 1e3 / number)
        };
        let (took, cpu) = add(0..torrents).await;
        // Idle threads end after ten seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let each = (resident_kib() - before) as f64 / torrents as f64;
        println!("{torrents} unfinished torrents without peers asleep after {took:.2?}");
        println!("{cpu:.2} ms of CPU and {each:.2} KiB each");
        let (_, cpu) = add(torrents..torrents + MORE).await;
        println!("{MORE} more: {cpu:.2} ms of CPU each");
        let cpu = cpu_time();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let idle = (cpu_time() - cpu).as_secs_f64() * 100.0;
        println!("idle: {idle:.1} ms of CPU a second");
        let start = Instant::now();
        session.shutdown().await;
        println!("shut down in {:.2?}", start.elapsed());
    });
}

/// Makes a torrent that nobody has.
fn nowhere(index: usize) -> Arc<Metainfo> {
    let mut digest = vec![0; 20];
    digest[..8].copy_from_slice(&index.to_le_bytes());
    Arc::new(MetainfoBuilder::single_file(format!("file-{index}"), 8).build(digest).unwrap())
}

/// Returns the user and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second everywhere.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn torrent(folder: &std::path::Path, index: usize) -> (Arc<Metainfo>, Checkpoint) {
    let name = format!("file-{index}");
    let bytes = index.to_le_bytes();
    let path = folder.join(&name);
    std::fs::write(&path, bytes).unwrap();
    let builder = MetainfoBuilder::single_file(name, bytes.len() as u64);
    // Nothing is hashed, because the checkpoint is trusted.
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
        unchecked: None,
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
