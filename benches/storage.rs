//! The cost of the disk side of downloading and seeding: `cargo bench --bench storage`.
//!
//! `PIECEWORK_SHA1=scalar` shows the gain of hashing side by side. Files are in memory (`/dev/shm`)
//! if it exists, so that a disk is not measured.

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use piecework_core::{BLOCK_LEN, BlockBuf, BlockPool, PieceIndex, Rng};
use piecework_storage::{
    CreateOptions, FileHandles, FinishPiece, HashPool, PieceResult, Store, StoreMode, check, create,
};
use sha_lanes::{Level, hash_many};
use tempfile::TempDir;

const TOTAL: usize = 256 << 20;
const PIECE: u32 = 1 << 20;
const FILES: usize = 2_000;

struct Content {
    dir: TempDir,
    store: Arc<Store>,
}

impl Content {
    /// Makes `files` files of 256 MiB together, and their torrent.
    fn new(files: usize) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let mut rng = Rng::from_seed(1);
        let folder = dir.path().join("content");
        std::fs::create_dir(&folder).unwrap();
        for number in 0..files {
            let words = TOTAL / files / 8;
            let bytes: Vec<u8> = (0..words).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
            std::fs::write(folder.join(number.to_string()), bytes).unwrap();
        }
        let metainfo = Arc::new(Self::create(dir.path()));
        let handles = Arc::new(FileHandles::default());
        let store = Store::new(dir.path(), metainfo, handles, StoreMode::ReadWrite).unwrap();
        Self { dir, store: Arc::new(store) }
    }

    fn create(root: &Path) -> piecework_core::metainfo::Metainfo {
        Self::create_with(root, cores())
    }

    fn create_with(root: &Path, threads: usize) -> piecework_core::metainfo::Metainfo {
        let options = CreateOptions { piece_len: Some(PIECE), ..CreateOptions::default() };
        let path = root.join("content");
        create(&path, options, threads, |_| {}, &AtomicBool::new(false)).unwrap().metainfo
    }

    fn len(&self) -> u64 {
        self.store.geometry().total_len()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Measures one core's rate for pieces in memory, block by block as they are received.
fn side_by_side(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(200));
    // At most 4 MiB together, so that they are in the cache shared by all cores, like received
    // data.
    let content: Vec<Vec<[u8; BLOCK_LEN as usize]>> =
        (0..32).map(|n| vec![[n; BLOCK_LEN as usize]; 8]).collect();
    let pieces: Vec<Vec<&[u8]>> =
        content.iter().map(|piece| piece.iter().map(|block| &block[..]).collect()).collect();
    for level in Level::available() {
        for count in [1, 2, 3, 4, 6, 7, 8, 9, 12, 16, 17, 24, 32] {
            group.throughput(Throughput::Bytes(count as u64 * 8 * u64::from(BLOCK_LEN)));
            group.bench_function(format!("{} {count} messages", level.name()), |b| {
                b.iter(|| black_box(hash_many(level, black_box(&pieces[..count]))));
            });
        }
    }
    group.finish();
}

fn whole_content(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage");
    group.sample_size(10);
    for files in [1, FILES] {
        let content = Content::new(files);
        group.throughput(Throughput::Bytes(content.len()));
        group.bench_function(format!("check {files} files, {} threads", cores()), |b| {
            // On all cores. Use `taskset -c 0` for one.
            b.iter(|| {
                let right = check(&content.store, None, |_| {}, &AtomicBool::new(false)).unwrap();
                assert!(right.is_full());
            });
        });
        for threads in [1, 2] {
            group.bench_function(format!("create {files} files, {threads} threads"), |b| {
                b.iter(|| black_box(Content::create_with(content.dir.path(), threads)));
            });
        }
    }
    group.finish();
}

fn pieces_and_blocks(c: &mut Criterion) {
    let content = Content::new(1);
    let store = &content.store;
    let mut group = c.benchmark_group("storage");

    // A fast download finishes pieces one by one. Bursts queue up behind a slow write, or come from
    // a closed swarm's seed.
    let hashing = HashPool::new(2).unwrap();
    let buffers = BlockPool::new(1 << 16);
    for at_once in [1_u32, 2, 4, 8, 16, 32] {
        group.throughput(Throughput::Bytes(u64::from(at_once * PIECE)));
        group.bench_function(format!("finish_piece 1 MiB, {at_once} at once"), |b| {
            let fill = || (0..at_once).map(|piece| blocks(store, &buffers, piece)).collect();
            let finish = |pieces| finish_all(&hashing, store, pieces);
            b.iter_batched(fill, finish, criterion::BatchSize::PerIteration);
        });
    }

    let mut buf = vec![0; 256 << 10];
    let mut at = 0;
    let mut next = move |len: usize| {
        at = (at + len as u64) % (TOTAL as u64);
        at
    };
    group.throughput(Throughput::Bytes(buf.len() as u64));
    group.bench_function("read_at 256 KiB", |b| {
        b.iter(|| store.read_at(next(256 << 10), black_box(&mut buf)).unwrap());
    });
    group.bench_function("read_cached 256 KiB", |b| {
        b.iter(|| store.read_cached(next(256 << 10), black_box(&mut buf)).unwrap());
    });
    group.throughput(Throughput::Bytes(u64::from(BLOCK_LEN)));
    group.bench_function("read_at 16 KiB", |b| {
        let len = BLOCK_LEN as usize;
        b.iter(|| store.read_at(next(len), black_box(&mut buf[..len])).unwrap());
    });
    group.finish();
}

/// Submits all pieces at once and waits until the last one is written.
fn finish_all(hashing: &HashPool, store: &Arc<Store>, pieces: Vec<Vec<BlockBuf>>) {
    let (answer, answers) = mpsc::channel();
    let given = pieces.len();
    for (piece, blocks) in pieces.into_iter().enumerate() {
        let answer = answer.clone();
        hashing.finish_piece(FinishPiece {
            store: Arc::clone(store),
            piece: PieceIndex(piece as u32),
            blocks,
            want_digests: false,
            done: Box::new(move |finished| {
                assert!(matches!(finished, PieceResult::Verified { .. }));
                answer.send(()).unwrap();
            }),
        });
    }
    drop(answer);
    assert_eq!(answers.iter().count(), given);
}

fn blocks(store: &Store, buffers: &BlockPool, piece: u32) -> Vec<BlockBuf> {
    let geometry = store.geometry();
    let piece = PieceIndex(piece);
    let read = |index| {
        let mut block = buffers.take();
        store.read_at(geometry.block_span(geometry.block(piece, index)).start, &mut block).unwrap();
        block
    };
    (0..geometry.blocks_in(piece)).map(read).collect()
}

criterion_group!(benches, side_by_side, whole_content, pieces_and_blocks);
criterion_main!(benches);
