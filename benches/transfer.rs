//! One seeder to one leecher over loopback, both in this process: throughput, and CPU of both.
//!
//! `cargo bench --bench transfer -- [MIB] [PIECE_KIB] [ROUNDS]`; content lies in `$TMPDIR`, so point
//! that at a tmpfs to leave disks out.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use piecework::base::Rng;
use piecework::session::{AddTorrent, Session, SessionConfig};
use piecework::storage::{CreateOptions, create};
use piecework::swarm::ChokePolicy;

fn main() {
    // `cargo bench` and `cargo test` pass options of their own.
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let number = |place: usize, otherwise| numbers.get(place).copied().unwrap_or(otherwise);
    let (mib, piece_kib, rounds) = (number(0, 1024), number(1, 1024), number(2, 5));
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("content.bin");
    fill(&path, mib);
    let options =
        CreateOptions { piece_len: Some(piece_kib as u32 * 1024), ..CreateOptions::default() };
    let created = create(&path, options, 2, |_| {}, &AtomicBool::new(false)).unwrap();
    let metainfo = Arc::new(created.metainfo);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let gib = mib as f64 / 1024.0;
    let mut speeds = Vec::new();
    for _ in 0..rounds {
        let target = tempfile::tempdir().unwrap();
        let (took, cpu) = runtime.block_on(async {
            let (seeder, leecher) = (session(), session());
            let mut add = AddTorrent::new(Arc::clone(&metainfo), source.path());
            add.assume_complete = true;
            seeder.add(add).unwrap().completed().await.unwrap();
            let mut add = AddTorrent::new(Arc::clone(&metainfo), target.path());
            add.peers = seeder.listen_addrs().to_vec();
            let (start, cpu) = (Instant::now(), cpu_time());
            leecher.add(add).unwrap().completed().await.unwrap();
            let spent = (start.elapsed(), cpu_time() - cpu);
            seeder.shutdown().await;
            leecher.shutdown().await;
            spent
        });
        let speed = mib as f64 / took.as_secs_f64();
        println!("{speed:8.0} MiB/s   {:6.2} CPU-s/GiB", cpu.as_secs_f64() / gib);
        speeds.push(speed);
    }
    speeds.sort_by(f64::total_cmp);
    println!("median {:.0} MiB/s", speeds[speeds.len() / 2]);
}

fn session() -> Session {
    let config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        choke: ChokePolicy::Closed,
        ..SessionConfig::default()
    };
    Session::start(config).unwrap()
}

fn fill(path: &Path, mib: u64) {
    let mut rng = Rng::from_seed(1);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for _ in 0..mib << 17 {
        file.write_all(&rng.next_u64().to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second everywhere.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
