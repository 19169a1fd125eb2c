//! The cost of each stage of the data path, in the order in which a block passes them: `cargo bench
//! --bench stages -- decode` (or `receive`, `hash`, `write`, `read`, `send`, `pick`, `core`).
//! `benches/transfer.rs` measures all of them together. docs/performance.md interprets the results.
//!
//! Files are in `/dev/shm` if it exists, so that a disk is not measured. Sockets are TCP on
//! loopback.

mod kit;

use std::hint::black_box;
use std::io::{self, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use piecework_core::metainfo::MetainfoBuilder;
use piecework_core::{BLOCK_LEN, BlockPool, BlockRef, PieceIndex};
use piecework_engine::net::{
    Batch, BlockSource, Claim, Incoming, Input, Limiter, Link, LinkOptions, ReadFuture, Receiver,
    RunMemory, SourceError,
};
use piecework_proto::wire::{self, DecodeLimits, Decoded, Message};
use piecework_storage::{FileHandles, Store, StoreMode};
use piecework_swarm::PeerKey;
use sha_lanes::{Level, hash_many};
use sha1::Digest;
use tokio::runtime::Runtime;

use kit::Download;

const BLOCK: usize = BLOCK_LEN as usize;
/// 4 MiB: the amount that a fast peer may owe us, and that fits the cache shared by all cores.
const RUN: u32 = 256;
/// A request on the wire: its length, its kind, and three numbers.
const REQUEST_LEN: usize = 17;

fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_millis(500));
    group.warm_up_time(Duration::from_millis(100));
    group
}

fn block(number: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(number / 64), begin: number % 64 * BLOCK_LEN, len: BLOCK_LEN }
}

/// Returns `blocks` as they come from a peer, each after its header.
fn on_the_wire(blocks: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..blocks {
        bytes.extend_from_slice(&wire::piece_header(block(number)));
        bytes.resize(bytes.len() + BLOCK, number as u8);
    }
    bytes
}

/// Decodes messages from bytes in memory.
fn decode(c: &mut Criterion) {
    let mut group = group(c, "decode");
    let limits = DecodeLimits::new(1_000_000);
    for (name, message) in
        [("a request", Message::Request(block(7))), ("a have", Message::Have(PieceIndex(7)))]
    {
        let mut bytes = BytesMut::new();
        (0..1_000).for_each(|_| wire::encode(&message, &mut bytes));
        group.throughput(Throughput::Elements(1_000));
        group.bench_function(name, |b| b.iter(|| decode_all(black_box(&bytes), &limits)));
    }
    // The receive loop guesses that blocks follow each other, so they are already in their buffers
    // when they are decoded. A message between two blocks makes the guess wrong, and what was read
    // after it is copied.
    let in_step = on_the_wire(RUN);
    let mut out_of_step = BytesMut::new();
    for part in in_step.chunks(16 * (wire::PIECE_HEADER_LEN + BLOCK)) {
        wire::encode(&Message::Have(PieceIndex(3)), &mut out_of_step);
        out_of_step.extend_from_slice(part);
    }
    let mut receiver = Receiver::new(BlockPool::new(2 * RUN as usize), limits);
    for (name, bytes) in
        [("256 blocks in step", &in_step[..]), ("256 blocks, a have before each 16", &out_of_step)]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut source = bytes;
                receive_all(&mut receiver, |slices| source.read_vectored(slices));
            });
        });
    }
    group.finish();
}

fn decode_all(mut bytes: &[u8], limits: &DecodeLimits) {
    while !bytes.is_empty() {
        match wire::decode(bytes, limits) {
            Ok(Decoded::Message { message, consumed }) => {
                black_box(message);
                bytes = &bytes[consumed..];
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Receives [`RUN`] blocks.
fn receive_all(
    receiver: &mut Receiver,
    mut read: impl FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
) {
    let mut came = 0;
    while came < RUN {
        let expected = (RUN - came) as usize;
        let mut batch = Batch::default();
        if let Err(fault) = receiver.fill(expected, &mut read, |_| Claim::Owed, &mut batch) {
            panic!("{fault}");
        }
        let is_block = |item: &&Incoming| matches!(item, Incoming::Block { .. });
        came += black_box(batch.items()).iter().filter(is_block).count() as u32;
    }
}

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for end in [&dialled, &accepted] {
        end.set_nodelay(true).unwrap();
    }
    (dialled, accepted)
}

/// Receives from a socket into block buffers, while another thread fills the socket.
fn receive(c: &mut Criterion) {
    let mut group = group(c, "receive");
    group.throughput(Throughput::Bytes(u64::from(RUN) * u64::from(BLOCK_LEN)));
    let bytes = on_the_wire(RUN);

    let (mut peer, ours) = connection();
    let (go, runs) = mpsc::channel::<()>();
    let sent = bytes.clone();
    let feeder = thread::spawn(move || {
        while runs.recv().is_ok() {
            peer.write_all(&sent).unwrap();
        }
    });
    let mut receiver =
        Receiver::new(BlockPool::new(2 * RUN as usize), DecodeLimits::new(1_000_000));
    group.bench_function("256 blocks, the receiver alone", |b| {
        b.iter(|| {
            go.send(()).unwrap();
            receive_all(&mut receiver, |slices| (&ours).read_vectored(slices));
        });
    });
    drop(go);
    feeder.join().unwrap();

    let runtime = runtime();
    let mut wired = Wired::new(&runtime);
    let mut peer = wired.peer.take().unwrap();
    let feeder = thread::spawn(move || {
        let mut requests = vec![0; RUN as usize * REQUEST_LEN];
        while peer.read_exact(&mut requests).is_ok() {
            peer.write_all(&bytes).unwrap();
        }
    });
    group.bench_function("256 blocks, asked for over the link of a torrent", |b| {
        b.iter(|| {
            for number in 0..RUN {
                wired.link.outbox().send(&Message::Request(block(number))).unwrap();
            }
            wired.link.outbox().flush();
            runtime.block_on(wired.received(RUN));
        });
    });
    drop(wired);
    feeder.join().unwrap();
    group.finish();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A link as torrents use it, and the other end of its connection.
struct Wired {
    link: Link,
    inputs: tokio::sync::mpsc::Receiver<Input>,
    /// `None` after a thread has taken it.
    peer: Option<TcpStream>,
    _content: Content,
}

impl Wired {
    fn new(runtime: &Runtime) -> Self {
        let (peer, ours) = connection();
        let content = Content::new(64, 64);
        let (inputs_tx, inputs) = tokio::sync::mpsc::channel(32);
        let _guard = runtime.enter();
        ours.set_nonblocking(true).unwrap();
        let options = LinkOptions {
            peer: PeerKey(0),
            geometry: content.store.geometry(),
            pool: BlockPool::new(2 * RUN as usize),
            source: Arc::new(Files(Arc::clone(&content.store))),
            runs: RunMemory::new(16 << 20),
            upload: Limiter::new(None),
            download: Limiter::new(None),
            inputs: inputs_tx,
        };
        let stream = tokio::net::TcpStream::from_std(ours).unwrap();
        let link = Link::start(Arc::new(stream), options);
        Self { link, inputs, peer: Some(peer), _content: content }
    }

    /// Waits for `blocks`.
    async fn received(&mut self, blocks: u32) {
        let mut came = 0;
        while came < blocks {
            match self.inputs.recv().await {
                Some(Input::Received { items, .. }) => came += items.len() as u32,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until `blocks` have been sent.
    async fn sent(&mut self, blocks: u32) {
        let mut gone = 0;
        while gone < blocks {
            match self.inputs.recv().await {
                Some(Input::Uploaded { blocks, .. }) => gone += blocks,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Measures one core's rate for pieces in memory, block by block as they are received.
fn hash(c: &mut Criterion) {
    for (kib, size) in [(256, 256 << 10), (1024, 1 << 20)] {
        let mut group = group(c, &format!("hash pieces of {kib} KiB"));
        group.sample_size(10).measurement_time(Duration::from_millis(300));
        let content: Vec<Vec<u8>> = (0..64_u8).map(|piece| vec![piece; size]).collect();
        let pieces: Vec<Vec<&[u8]>> =
            content.iter().map(|piece| piece.chunks(BLOCK).collect()).collect();
        for count in [1, 4, 16, 64] {
            group.throughput(Throughput::Bytes((count * size) as u64));
            group.bench_function(format!("crate sha1, {count}"), |b| {
                b.iter(|| {
                    for piece in &content[..count] {
                        black_box(sha1::Sha1::digest(black_box(piece)));
                    }
                });
            });
            for level in Level::available() {
                group.bench_function(format!("{}, {count}", level.name()), |b| {
                    b.iter(|| black_box(hash_many(level, black_box(&pieces[..count]))));
                });
            }
        }
        group.finish();
    }
}

/// Makes a torrent of `files` files with 64 pieces of 1 MiB in total, and a store with its content.
/// Its hashes are wrong, because they are not used here.
struct Content {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
}

impl Content {
    fn new(pieces: u32, files: u32) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let total = u64::from(pieces) << 20;
        let listed = |number| (vec![format!("{number}")], total / u64::from(files));
        let builder = match files {
            1 => MetainfoBuilder::single_file("content", total),
            _ => MetainfoBuilder::folder("content", (0..files).map(listed).collect()),
        };
        let metainfo = builder.piece_len(1 << 20).build(vec![0; 20 * pieces as usize]).unwrap();
        let handles = Arc::new(FileHandles::default());
        let store = Store::new(dir.path(), Arc::new(metainfo), handles, StoreMode::ReadWrite);
        let store = store.unwrap();
        store.prepare().unwrap();
        let bytes = vec![1; 1 << 20];
        (0..pieces).for_each(|piece| store.write_at(u64::from(piece) << 20, &[&bytes]).unwrap());
        Self { _dir: dir, store: Arc::new(store) }
    }
}

/// The store in the form that links read.
struct Files(Arc<Store>);

impl BlockSource for Files {
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError> {
        self.0.read_cached(offset, into).map_err(SourceError::from)
    }

    fn read(&self, offset: u64, mut into: Vec<u8>) -> ReadFuture {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            let read = store.read_at(offset, &mut into);
            read.map(|()| into).map_err(SourceError::from)
        })
    }
}

/// Writes whole pieces of 1 MiB from their 64 block buffers, and for comparison block by block.
fn write(c: &mut Criterion) {
    let mut group = group(c, "write");
    let buffers: Vec<Vec<u8>> = (0..64).map(|_| vec![7; BLOCK]).collect();
    let piece: Vec<&[u8]> = buffers.iter().map(|block| &block[..]).collect();
    group.throughput(Throughput::Bytes(1 << 20));
    for (name, files) in [("one file", 1), ("files of 512 KiB", 128)] {
        let content = Content::new(64, files);
        let mut at = 0;
        let mut next = move || {
            at = (at + 1) % 64;
            at << 20
        };
        group.bench_function(format!("a piece at once, {name}"), |b| {
            b.iter(|| content.store.write_at(next(), black_box(&piece)).unwrap());
        });
        group.bench_function(format!("a piece block by block, {name}"), |b| {
            b.iter(|| {
                let start = next();
                for (number, block) in piece.iter().enumerate() {
                    content.store.write_at(start + (number * BLOCK) as u64, &[block]).unwrap();
                }
            });
        });
    }
    group.finish();
}

/// Reads runs of blocks that are in memory, as the send loop does.
fn read(c: &mut Criterion) {
    let mut group = group(c, "read");
    let content = Content::new(64, 1);
    let mut buffer = vec![0; 32 * BLOCK];
    for blocks in [1, 4, 16, 32] {
        let len = blocks * BLOCK;
        let mut at = 0;
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("a run of {blocks} blocks"), |b| {
            b.iter(|| {
                at = (at + len as u64) % (64 << 20);
                assert!(content.store.read_cached(at, black_box(&mut buffer[..len])).unwrap());
            });
        });
    }
    group.finish();
}

/// Sends requested blocks from their files to the socket, while another thread empties the socket.
fn send(c: &mut Criterion) {
    let mut group = group(c, "send");
    group.throughput(Throughput::Bytes(u64::from(RUN) * u64::from(BLOCK_LEN)));
    let runtime = runtime();
    for (name, order) in [("in a row", 1), ("each elsewhere", 37)] {
        let mut wired = Wired::new(&runtime);
        let mut peer = wired.peer.take().unwrap();
        let drain = thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while peer.read(&mut bytes).is_ok_and(|read| read > 0) {}
        });
        group.bench_function(format!("256 blocks {name}"), |b| {
            b.iter(|| {
                for number in 0..RUN {
                    wired.link.outbox().upload(block(number * order % RUN));
                }
                wired.link.outbox().flush();
                runtime.block_on(wired.sent(RUN));
            });
        });
        drop(wired);
        drain.join().unwrap();
    }
    group.finish();
}

/// Whole downloads from 50 peers, most of which hold a part. The time for a block must not depend
/// on the number of pieces.
fn pick(c: &mut Criterion) {
    let mut group = group(c, "pick, a block");
    group.sample_size(10);
    for pieces in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(u64::from(pieces) * 4));
        group.bench_function(format!("{pieces} pieces, 50 peers"), |b| {
            let begun = || Download::new(kit::swarm(pieces, 4, 2, 48));
            b.iter_batched(begun, Download::finish, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Passes one block to the core, and takes all its actions.
fn core(c: &mut Criterion) {
    let mut group = group(c, "core, a block in and its actions out");
    group.throughput(Throughput::Elements(1));
    for (name, seeds, leechers) in [("one seed", 1, 0), ("4 seeds and 40 leechers", 4, 40)] {
        let begun = || Download::new(kit::swarm(10_000, 16, seeds, leechers));
        let mut download = begun();
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let start = Instant::now();
                    while left > 0 && download.step() {
                        left -= 1;
                    }
                    took += start.elapsed();
                    if left > 0 {
                        download = begun();
                    }
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, receive, hash, write, read, send, pick, core);
criterion_main!(benches);
