//! The cost of torrents without peers for a download next to them: its rate, and the processor time
//! of the whole process.
//!
//! `cargo bench --bench beside -- [MIB] [ROUNDS] [silent|parts]`. Files are in `$TMPDIR`: point it
//! at a tmpfs to exclude disks. The other torrents have no peers. With `silent` each has a peer
//! that promises everything and gives nothing, with `parts` one that gives a block of each piece. A
//! separate process measures each number of torrents, and its download alternates between alone and
//! next to them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{PeerId, Rng};
use piecework_engine::{AddTorrent, Session, SessionConfig, TorrentState, raise_file_limit};
use piecework_proto::wire::{self, DecodeLimits, Decoded, Handshake, Message};
use piecework_storage::{CreateOptions, create};
use piecework_swarm::ChokePolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The behaviour of the other torrents' peers.
#[derive(Clone, Copy, PartialEq)]
enum Peers {
    None,
    Silent,
    Parts,
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let says = |word: &str| std::env::args().any(|arg| arg == word);
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let (mib, rounds) = (numbers.first().copied().unwrap_or(1024), numbers.get(1).copied());
    let rounds = rounds.unwrap_or(5);
    let peers = match (says("silent"), says("parts")) {
        (true, _) => Peers::Silent,
        (_, true) => Peers::Parts,
        _ => Peers::None,
    };
    if let Some(others) = numbers.get(2) {
        return measure(mib, rounds, *others as usize, peers);
    }
    let most = if peers == Peers::None { 50_000 } else { 300 };
    println!("others   MiB/s alone  beside  ratio   CPU-s/GiB alone  beside  ratio");
    for others in
        [10, 30, 100, 300, 1_000, 10_000, 50_000].into_iter().filter(|others| *others <= most)
    {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args([mib, rounds, others].map(|number| number.to_string()));
        again.args(match peers {
            Peers::None => None,
            Peers::Silent => Some("silent"),
            Peers::Parts => Some("parts"),
        });
        assert!(again.status().unwrap().success());
    }
}

/// A line of the table.
fn measure(mib: u64, rounds: u64, others: usize, peers: Peers) {
    raise_file_limit().unwrap();
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("content.bin");
    fill(&path, mib);
    let options = CreateOptions { piece_len: Some(1 << 20), ..CreateOptions::default() };
    let created = create(&path, options, 2, |_| {}, &AtomicBool::new(false)).unwrap();
    let metainfo = Arc::new(created.metainfo);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    runtime.block_on(async {
        let seeder = session();
        let mut seed = AddTorrent::new(Arc::clone(&metainfo), source.path());
        seed.assume_complete = true;
        seeder.add(seed).unwrap().completed().await.unwrap();
        let (alone, beside) = (session(), session());
        let folder = tempfile::tempdir().unwrap();
        for number in 0..others {
            let torrent = nowhere(number);
            let add = AddTorrent::new(Arc::clone(&torrent), folder.path());
            let mut handle = beside.add(add).unwrap();
            while handle.status().state != TorrentState::Downloading {
                handle.changed().await.unwrap();
            }
            if peers != Peers::None {
                tokio::spawn(pretend(beside.listen_addrs()[0], torrent, peers == Peers::Parts));
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for turn in 0..2 * rounds {
            // The second one finds warmer caches, so they take turns.
            let which = usize::from((turn % 2 == 0) != (turn / 2 % 2 == 0));
            let session = [&alone, &beside][which];
            let target = tempfile::tempdir().unwrap();
            let mut add = AddTorrent::new(Arc::clone(&metainfo), target.path());
            add.peers = seeder.listen_addrs().to_vec();
            let (start, cpu) = (Instant::now(), cpu_time());
            session.add(add).unwrap().completed().await.unwrap();
            rates[which].push(mib as f64 / start.elapsed().as_secs_f64());
            costs[which].push((cpu_time() - cpu).as_secs_f64() * 1024.0 / mib as f64);
            session.remove(metainfo.info_hash()).await;
        }
    });
    let [alone, beside] = rates.map(|mut rates| median(&mut rates));
    let [cost, cost_beside] = costs.map(|mut costs| median(&mut costs));
    println!(
        "{others:6}   {alone:11.0} {beside:7.0} {:6.2}   {cost:15.2} {cost_beside:7.2} {:6.2}",
        beside / alone,
        cost_beside / cost
    );
}

/// Makes a torrent of 8 pieces of 1 MiB that nobody has.
fn nowhere(number: usize) -> Arc<Metainfo> {
    let builder = MetainfoBuilder::single_file(format!("other-{number}"), 8 << 20);
    let mut digests = vec![0; 8 * 20];
    digests[..8].copy_from_slice(&number.to_le_bytes());
    Arc::new(builder.piece_len(1 << 20).build(digests).unwrap())
}

/// Starts a peer that promises everything, and gives the first block of each piece if it `gives`.
async fn pretend(addr: SocketAddr, torrent: Arc<Metainfo>, gives: bool) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let ours = Handshake::ours(torrent.info_hash(), PeerId(*b"-XX0001-abcdefghijkl"));
    stream.write_all(&ours.encode()).await.unwrap();
    let mut bytes = BytesMut::new();
    [Message::HaveAll, Message::Unchoke].iter().for_each(|it| wire::encode(it, &mut bytes));
    stream.write_all(&bytes).await.unwrap();
    let mut theirs = [0; Handshake::LEN];
    stream.read_exact(&mut theirs).await.unwrap();
    let limits = DecodeLimits::new(torrent.info().geometry().pieces());
    let mut heard = BytesMut::new();
    loop {
        while let Ok(Decoded::Message { message, consumed }) = wire::decode(&heard, &limits) {
            drop(heard.split_to(consumed));
            if let Message::Request(block) = message
                && gives
                && block.begin == 0
            {
                let mut answer = wire::piece_header(block).to_vec();
                answer.resize(answer.len() + block.len as usize, 1);
                stream.write_all(&answer).await.unwrap();
            }
        }
        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn session() -> Session {
    let config = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        choke: ChokePolicy::Closed,
        max_connections_per_ip: 100_000,
        ..SessionConfig::default()
    };
    Session::start(config).unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn fill(path: &Path, mib: u64) {
    let mut rng = Rng::from_seed(1);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for _ in 0..mib << 17 {
        file.write_all(&rng.next_u64().to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

/// Returns the user and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second everywhere.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
