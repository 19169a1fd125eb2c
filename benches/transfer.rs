//! One seeder to one leecher over loopback, both in this process: throughput, and CPU of both.
//!
//! `cargo bench --bench transfer -- [MIB] [PIECE_KIB] [ROUNDS] [journal]`. Content is in `$TMPDIR`:
//! point it at a tmpfs to exclude disks. With `journal` each round runs twice, with a journal at
//! both ends and without, and the ratios of the costs are printed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use piecework_core::Rng;
use piecework_daemon::Recorder;
use piecework_engine::{AddTorrent, Session, SessionConfig};
use piecework_journal::{Journal, JournalOptions, PieceLog};
use piecework_storage::{CreateOptions, create};
use piecework_swarm::ChokePolicy;

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
    let paired = std::env::args().any(|arg| arg == "journal");
    let round = |journals: bool| {
        let target = tempfile::tempdir().unwrap();
        let (took, cpu) = runtime.block_on(async {
            let logs = [0, 1].map(|end| journals.then(|| log(target.path(), end)));
            let (seeder, leecher) = (session(logs[0].as_ref()), session(logs[1].as_ref()));
            let mut add = AddTorrent::new(Arc::clone(&metainfo), source.path());
            add.assume_complete = true;
            seeder.add(add).unwrap().completed().await.unwrap();
            let mut add = AddTorrent::new(Arc::clone(&metainfo), target.path());
            add.peers = seeder.listen_addrs().to_vec();
            let (start, cpu) = (Instant::now(), cpu_time());
            leecher.add(add).unwrap().completed().await.unwrap();
            let took = start.elapsed();
            seeder.shutdown().await;
            leecher.shutdown().await;
            // The whole cost of a journal is included, because everything is written.
            let logs: Vec<_> = logs.into_iter().flatten().collect();
            logs.iter().for_each(|log| log.journal().unwrap().flush());
            let writing = thread_time("journal");
            logs.iter().for_each(|log| drop(log.close()));
            let cpu = cpu_time() - cpu;
            if journals {
                let share = 100.0 * writing.as_secs_f64() / cpu.as_secs_f64();
                println!("{:>40}{share:.2} % of it by the threads that write journals", "");
            }
            (took, cpu)
        });
        let speed = mib as f64 / took.as_secs_f64();
        let cpu = cpu.as_secs_f64() / gib;
        let what = if journals { "with journals" } else { "" };
        println!("{speed:8.0} MiB/s   {cpu:6.2} CPU-s/GiB   {what}");
        (speed, cpu)
    };
    let (mut speeds, mut ratios, mut sums) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for turn in 0..rounds {
        if !paired {
            speeds.push(round(false).0);
            continue;
        }
        // The second one finds warmer caches, so they take turns.
        let first = round(turn % 2 == 0);
        let second = round(turn % 2 != 0);
        let (with, without) = if turn % 2 == 0 { (first, second) } else { (second, first) };
        speeds.push(without.0);
        ratios.push(with.1 / without.1);
        sums = (sums.0 + with.1, sums.1 + without.1);
    }
    println!("median {:.0} MiB/s", median(&mut speeds));
    if paired {
        let mean = sums.0 / sums.1;
        println!("CPU with journals to without: median {:.3}, mean {mean:.3}", median(&mut ratios));
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Opens a journal for one end of the transfer.
fn log(folder: &Path, end: usize) -> Arc<PieceLog> {
    let journal = Journal::open(&JournalOptions {
        path: folder.join(format!("journal{end}.sqlite")),
        age: Journal::DEFAULT_AGE,
        size: Journal::DEFAULT_SIZE,
        program: "bench".to_owned(),
    });
    Arc::new(PieceLog::with_journal(Arc::new(journal.unwrap()), false))
}

fn session(log: Option<&Arc<PieceLog>>) -> Session {
    let recorder = |log: &Arc<PieceLog>| Arc::new(Recorder::new(Arc::clone(log))) as _;
    let config = SessionConfig {
        observer: log.map(recorder),
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

/// Returns the processor time of threads with this name.
fn thread_time(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let time = |task: std::path::PathBuf| {
        let comm = std::fs::read_to_string(task.join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.join("schedstat")).ok()?;
        (comm.trim_end() == name).then(|| stat.split(' ').next()?.parse::<u64>().ok())?
    };
    Duration::from_nanos(tasks.filter_map(time).sum())
}

/// Returns the user and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second everywhere.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
