//! Reading a torrent's content from end to end and hashing it, on all cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::base::{Geometry, PieceIndex};

use super::error::StorageError;
use super::files::Files;
use super::hash::{Digest20, Hasher, digest_each};

/// A pass over the pieces of a torrent.
pub(super) struct Sweep<'a> {
    pub files: Files<'a>,
    pub geometry: Geometry,
    /// Threads to use, at least one.
    pub threads: usize,
    /// Ends the pass soon after it is set.
    pub cancel: &'a AtomicBool,
}

/// What a sweep finds is told here, by several threads at once and in no order.
pub(super) trait Sink: Sync {
    /// Whether to read this piece at all.
    fn wants(&self, piece: PieceIndex) -> bool;

    /// The digests of consecutive pieces.
    fn hashed(&self, first: PieceIndex, digests: &[Digest20]);

    /// A piece that could not be read; an error ends the pass with it.
    fn unreadable(&self, piece: PieceIndex, error: StorageError) -> Result<(), StorageError>;
}

/// What one thread needs, used from run to run.
struct Worker<'a, S> {
    sweep: &'a Sweep<'a>,
    sink: &'a S,
    buf: Vec<u8>,
    digests: Vec<Digest20>,
}

impl Sweep<'_> {
    /// Hashes all pieces `sink` wants, until it is told to stop or something fails.
    pub fn run(&self, sink: &impl Sink) -> Result<(), StorageError> {
        let pieces = self.geometry.pieces();
        let run = self.run_len();
        let threads = self.threads.clamp(1, pieces.div_ceil(run).max(1) as usize);
        let next = AtomicU64::new(0);
        let failure: Mutex<Option<StorageError>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let work = || {
            let mut worker = Worker::new(self, sink);
            while !stop.load(Ordering::Relaxed) && !self.cancel.load(Ordering::Relaxed) {
                let first = next.fetch_add(u64::from(run), Ordering::Relaxed);
                if first >= u64::from(pieces) {
                    break;
                }
                let first = first as u32;
                if let Err(error) = worker.run(first, first.saturating_add(run).min(pieces)) {
                    failure.lock().get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            for number in 1..threads {
                let name = format!("sweep-{number}");
                if let Err(error) = thread::Builder::new().name(name).spawn_scoped(scope, work) {
                    tracing::warn!(%error, "hashing with fewer threads");
                    break;
                }
            }
            work();
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    /// Pieces a thread takes at a time. Long runs keep a disk reading ahead, but the last one
    /// should not leave the other threads without work for long.
    fn run_len(&self) -> u32 {
        let share = self.geometry.total_len() / (8 * self.threads.max(1) as u64);
        let bytes = share.clamp(CHUNK as u64, MAX_RUN);
        (bytes / u64::from(self.geometry.piece_len())).max(1) as u32
    }
}

impl<'a, S: Sink> Worker<'a, S> {
    fn new(sweep: &'a Sweep<'a>, sink: &'a S) -> Self {
        let len = sweep.geometry.total_len().min(CHUNK as u64) as usize;
        Self { sweep, sink, buf: vec![0; len], digests: Vec::new() }
    }

    /// Hashes what is wanted of the pieces from `first` to before `end`, as many in one read as
    /// fit into the buffer.
    fn run(&mut self, first: u32, end: u32) -> Result<(), StorageError> {
        let geometry = self.sweep.geometry;
        let room = (self.buf.len() as u64 / u64::from(geometry.piece_len())).max(1) as u32;
        let mut piece = first;
        while piece < end && !self.sweep.cancel.load(Ordering::Relaxed) {
            if !self.sink.wants(PieceIndex(piece)) {
                piece += 1;
                continue;
            }
            let last = (piece + room).min(end);
            let group =
                (piece + 1..last).find(|next| !self.sink.wants(PieceIndex(*next))).unwrap_or(last)
                    - piece;
            // If a group cannot be read, it is often one of its pieces that cannot.
            if group == 1 || self.group(PieceIndex(piece), group).is_err() {
                for piece in piece..piece + group {
                    self.single(PieceIndex(piece))?;
                }
            }
            piece += group;
        }
        Ok(())
    }

    /// Several pieces that fit into the buffer together.
    fn group(&mut self, first: PieceIndex, count: u32) -> Result<(), StorageError> {
        let geometry = self.sweep.geometry;
        let start = geometry.piece_offset(first);
        let behind = geometry.piece_offset(PieceIndex(first.0 + count)).min(geometry.total_len());
        let bytes = &mut self.buf[..(behind - start) as usize];
        self.sweep.files.read_at(start, bytes)?;
        self.digests.clear();
        self.digests.extend(digest_each(bytes.chunks(geometry.piece_len() as usize)));
        self.sink.hashed(first, &self.digests);
        Ok(())
    }

    /// One piece of any length.
    fn single(&mut self, piece: PieceIndex) -> Result<(), StorageError> {
        let geometry = self.sweep.geometry;
        let mut at = geometry.piece_offset(piece);
        let end = at + u64::from(geometry.piece_size(piece));
        let mut hasher = Hasher::default();
        while at < end {
            if self.sweep.cancel.load(Ordering::Relaxed) {
                return Ok(());
            }
            let len = (end - at).min(self.buf.len() as u64) as usize;
            let bytes = &mut self.buf[..len];
            if let Err(error) = self.sweep.files.read_at(at, bytes) {
                return self.sink.unreadable(piece, error);
            }
            hasher.update(bytes);
            at += len as u64;
        }
        self.sink.hashed(piece, &[hasher.finish()]);
        Ok(())
    }
}

/// Threads to use if nobody says otherwise: one for each core we may use.
pub(super) fn all_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes a thread reads at a time, and so what it holds in memory.
const CHUNK: usize = 1 << 20;

/// Bytes of a run at most.
const MAX_RUN: u64 = 16 << 20;
