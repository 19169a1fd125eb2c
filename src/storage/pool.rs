//! The threads that hash and wait for disks, so that those that serve sockets need not.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::base::{BLOCK_LEN, BlockBuf, BlockRef, PieceIndex, printable};
use crate::sha1_lanes::{Level, hash_many};

use super::company::{Company, Waiting};
use super::error::{Operation, StorageError};
use super::hash::{self, Digest20, Hasher, digest_each};
use super::store::Store;

/// Worker threads in two crews: `hash-N` for what keeps a core busy, `disk-N` for what waits, so
/// that a slow disk does not keep pieces in memory from being hashed.
///
/// Pieces in memory are hashed side by side where several wait, for that costs much less than one
/// after the other; while they come fast, one waits some milliseconds for [`Company`].
///
/// Jobs are answered through their `done`, on a worker's thread; it should only hand the answer
/// on. Jobs of one crew begin in the order in which they were given. Their queue has no bound of
/// its own: every job stands for bytes that a swarm's memory budget or a peer's request queue has
/// admitted. Dropping the pool waits until all jobs given are done.
pub struct HashPool {
    hashing: Crew,
    waiting: Crew,
}

/// A piece in memory, to be hashed and written.
pub struct FinishPiece {
    /// Where it is to be written.
    pub store: Arc<Store>,
    /// Which piece.
    pub piece: PieceIndex,
    /// All of it, block by block in order.
    pub blocks: Vec<BlockBuf>,
    /// Whether the blocks' digests are wanted even if the piece is right.
    pub want_digests: bool,
    /// Told how it went, after the blocks were dropped.
    pub done: Box<dyn FnOnce(Finished) + Send>,
}

/// How the check of a whole piece went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Right, and written.
    Verified {
        /// SHA-1 of each block in order if they were wanted, else empty.
        digests: Vec<[u8; 20]>,
    },
    /// The hash is wrong. A piece that was in memory has not been written.
    Corrupt {
        /// SHA-1 of each block in order.
        digests: Vec<[u8; 20]>,
        /// SHA-1 of the piece.
        hash: [u8; 20],
    },
    /// It could not be written or read back. The piece is missing as before.
    Failed(StorageError),
}

struct Crew {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

/// What a pool has to do at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolLoad {
    /// Jobs that wait to be hashed.
    pub hashing_waits: usize,
    /// Jobs that wait for a thread that waits for disks.
    pub disk_waits: usize,
    /// Hash threads that hash pieces.
    pub hashing: usize,
    /// Hash threads that write the pieces they have hashed.
    pub writing: usize,
}

struct Queue {
    level: Level,
    /// Workers that hash pieces, and that write them.
    hashing: AtomicUsize,
    writing: AtomicUsize,
    jobs: Mutex<Jobs>,
    /// There is something to do for a worker that is idle.
    changed: Condvar,
    /// There is something to do for the worker that waits for company.
    gathered: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Pieces in `waiting`.
    pieces: usize,
    /// Bytes of these pieces.
    bytes: usize,
    company: Company,
    /// A worker waits until there are more pieces to be hashed side by side.
    gathering: bool,
    closed: bool,
}

/// Whole pieces are told apart from the rest so that several that wait can be hashed side by
/// side.
enum Job {
    /// A piece, and when it came.
    Finish(FinishPiece, Instant),
    Other(Box<dyn FnOnce() + Send>),
}

/// What a worker takes at a time.
enum Work {
    Finish(Vec<FinishPiece>),
    Other(Box<dyn FnOnce() + Send>),
}

impl HashPool {
    /// A pool of `threads` threads that hash, at least one, and a few that wait for disks.
    ///
    /// # Errors
    /// If the system refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_level(threads, hash::level())
    }

    pub(super) fn with_level(threads: usize, level: Level) -> std::io::Result<Self> {
        let hashing = Crew::new("hash", threads.max(1), level)?;
        let waiting = Crew::new("disk", DISK_THREADS, level)?;
        Ok(Self { hashing, waiting })
    }

    /// Hashes a piece and, if it is right, writes it in one go. Nothing unverified is written.
    pub fn finish_piece(&self, job: FinishPiece) {
        self.hashing.give(Job::Finish(job, Instant::now()));
    }

    /// Writes one block of a piece too large to be kept in memory at its place, not verified:
    /// [`HashPool::finish_piece_on_disk`] does that when all are written.
    pub fn write_block(
        &self,
        store: Arc<Store>,
        block: BlockRef,
        buf: BlockBuf,
        done: impl FnOnce(Result<(), StorageError>) + Send + 'static,
    ) {
        self.waiting.other(move || {
            let result = if store.geometry().is_inside(block) && block.len as usize == buf.len() {
                store.write_at(store.geometry().block_span(block).start, &[&buf])
            } else {
                let reason = format!(
                    "`{}` bytes are not the block of `{}` bytes at `{}` of piece `{}`",
                    buf.len(),
                    block.len,
                    block.begin,
                    block.piece
                );
                Err(StorageError::other(Operation::Write, store.root().to_owned(), reason))
            };
            drop((buf, store));
            done(result);
        });
    }

    /// Reads a piece back from the disk and hashes it. Those that [`HashPool::write_block`] has
    /// answered are what is read.
    pub fn finish_piece_on_disk(
        &self,
        store: Arc<Store>,
        piece: PieceIndex,
        want_digests: bool,
        done: impl FnOnce(Finished) + Send + 'static,
    ) {
        self.hashing.other(move || {
            let result = check_on_disk(&store, piece, want_digests);
            drop(store);
            done(result.unwrap_or_else(Finished::Failed));
        });
    }

    /// Fills all of `buf` with the store's content from byte `offset` on and gives it back. For
    /// what [`Store::read_cached`] could not give.
    pub fn read(
        &self,
        store: Arc<Store>,
        offset: u64,
        mut buf: Vec<u8>,
        done: impl FnOnce(Result<Vec<u8>, StorageError>) + Send + 'static,
    ) {
        self.waiting.other(move || {
            let result = store.read_at(offset, &mut buf).map(|()| buf);
            drop(store);
            done(result);
        });
    }

    /// What it has to do now.
    pub fn load(&self) -> PoolLoad {
        let waits = |crew: &Crew| crew.queue.jobs.lock().waiting.len();
        let (hashing, writing) = self.hashing.queue.busy();
        let (hashing_waits, disk_waits) = (waits(&self.hashing), waits(&self.waiting));
        PoolLoad { hashing_waits, disk_waits, hashing, writing }
    }

    /// Whether of the threads that have pieces to hash and write at least half are writing.
    pub fn is_mostly_writing(&self) -> bool {
        let (hashing, writing) = self.hashing.queue.busy();
        writing > 0 && writing >= hashing
    }

    /// Does anything else that may wait for a disk: [`Store::prepare`], [`Store::sync`].
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.waiting.other(job);
    }
}

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.hashing.workers.len();
        f.debug_struct("HashPool").field("threads", &threads).finish_non_exhaustive()
    }
}

impl fmt::Debug for FinishPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishPiece")
            .field("piece", &self.piece)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

impl Crew {
    fn new(name: &str, threads: usize, level: Level) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            level,
            hashing: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            jobs: Mutex::default(),
            changed: Condvar::new(),
            gathered: Condvar::new(),
        });
        // Filled one by one, so that those started are stopped should a later one fail.
        let mut crew = Self { queue, workers: Vec::with_capacity(threads) };
        for number in 0..threads {
            let queue = Arc::clone(&crew.queue);
            let worker = thread::Builder::new().name(format!("{name}-{number}"));
            crew.workers.push(worker.spawn(move || queue.work())?);
        }
        Ok(crew)
    }

    fn other(&self, job: impl FnOnce() + Send + 'static) {
        self.give(Job::Other(Box::new(job)));
    }

    fn give(&self, job: Job) {
        let mut jobs = self.queue.jobs.lock();
        let is_piece = matches!(job, Job::Finish(..));
        jobs.push(job);
        // Whoever gathers is woken by the clock, or when there is no more to be gained: not by
        // each piece, of which there may be thousands a second.
        if !jobs.gathering {
            drop(jobs);
            self.queue.changed.notify_one();
        } else if !is_piece || jobs.gather_until(self.queue.level, Instant::now()).is_none() {
            drop(jobs);
            self.queue.gathered.notify_one();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.queue.jobs.lock().closed = true;
        self.queue.changed.notify_all();
        self.queue.gathered.notify_all();
        for worker in self.workers.drain(..) {
            // A job may hold the last handle on its own pool; a thread cannot wait for itself.
            if worker.thread().id() != thread::current().id() && worker.join().is_err() {
                tracing::error!("a storage thread has died");
            }
        }
    }
}

impl Queue {
    fn work(&self) {
        while let Some(work) = self.next() {
            match work {
                Work::Finish(pieces) => self.finish(pieces),
                Work::Other(job) => guarded(job),
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut jobs = self.jobs.lock();
        loop {
            let free = !jobs.gathering;
            match jobs.waiting.front() {
                Some(Job::Finish(..)) if free => {
                    match jobs.gather_until(self.level, Instant::now()) {
                        None => return Some(self.take(&mut jobs)),
                        Some(until) => {
                            jobs.gathering = true;
                            self.gathered.wait_until(&mut jobs, until);
                            jobs.gathering = false;
                        }
                    }
                }
                Some(Job::Other(_)) => return Some(self.take(&mut jobs)),
                None if jobs.closed => return None,
                // Pieces that another worker gathers are none of this one's business.
                _ => self.changed.wait(&mut jobs),
            }
        }
    }

    /// Takes what is at the front, and leaves the rest to another worker.
    fn take(&self, jobs: &mut Jobs) -> Work {
        let work = jobs.take(self.level);
        if jobs.closed {
            // Those that left the rest to this worker are to end, too.
            self.changed.notify_all();
        } else if !jobs.waiting.is_empty() {
            self.changed.notify_one();
        }
        work
    }

    /// Hashes `pieces` side by side, then writes and answers one after the other.
    fn finish(&self, pieces: Vec<FinishPiece>) {
        let mut whole = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece.check_len() {
                Ok(()) => whole.push(piece),
                Err(error) => guarded(|| piece.answer(|_| Err(error))),
            }
        }
        let parts: Vec<Vec<&[u8]>> = whole.iter().map(FinishPiece::parts).collect();
        let digests = {
            let _busy = Busy::new(&self.hashing);
            hash_many(self.level, &parts)
        };
        drop(parts);
        for (piece, digest) in whole.into_iter().zip(digests) {
            let _busy = Busy::new(&self.writing);
            guarded(|| piece.answer(|piece| piece.conclude(digest)));
        }
    }

    fn busy(&self) -> (usize, usize) {
        (self.hashing.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }
}

/// Counts a worker for as long as it does something.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(workers: &'a AtomicUsize) -> Self {
        workers.fetch_add(1, Ordering::Relaxed);
        Self(workers)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Jobs {
    fn push(&mut self, job: Job) {
        if let Job::Finish(piece, came) = &job {
            self.pieces += 1;
            self.bytes += piece.len();
            self.company.came(*came);
        }
        self.waiting.push_back(job);
    }

    /// Until when the piece at the front should wait for others; `None` if not at all.
    fn gather_until(&self, level: Level, now: Instant) -> Option<Instant> {
        let Some(Job::Finish(_, since)) = self.waiting.front() else { return None };
        let only_pieces = self.pieces == self.waiting.len();
        if self.closed || !only_pieces || level.gains_from() > level.width() {
            return None;
        }
        let waiting = Waiting { pieces: self.pieces, bytes: self.bytes, since: *since };
        self.company.wait_until(now, waiting, level.gains_from(), level.width())
    }

    /// Takes what is at the front: one job, or as many pieces as are hashed at a time.
    ///
    /// # Panics
    /// If there is nothing.
    fn take(&mut self, level: Level) -> Work {
        let mut pieces = Vec::new();
        while pieces.len() < level.width() {
            match self.waiting.pop_front() {
                Some(Job::Finish(piece, _)) => {
                    self.pieces -= 1;
                    self.bytes -= piece.len();
                    pieces.push(piece);
                }
                Some(Job::Other(job)) if pieces.is_empty() => return Work::Other(job),
                Some(job) => {
                    self.waiting.push_front(job);
                    break;
                }
                None => break,
            }
        }
        assert!(!pieces.is_empty(), "there was something to take");
        Work::Finish(pieces)
    }
}

/// A job that panics must not take the thread away from all other torrents.
fn guarded(job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a storage job has panicked");
    }
}

impl FinishPiece {
    /// Gives the blocks back, then tells what came of it.
    fn answer(self, conclude: impl FnOnce(&Self) -> Result<Finished, StorageError>) {
        let result = conclude(&self);
        let Self { store, blocks, done, .. } = self;
        drop((blocks, store));
        done(result.unwrap_or_else(Finished::Failed));
    }

    /// Writes the piece if `digest` is what it should be.
    fn conclude(&self, digest: Digest20) -> Result<Finished, StorageError> {
        let parts = self.parts();
        let digests = || digest_each(parts.iter().copied());
        if digest != expected_hash(&self.store, self.piece)? {
            return Ok(Finished::Corrupt { digests: digests(), hash: digest });
        }
        self.store.write_at(self.store.geometry().piece_offset(self.piece), &parts)?;
        Ok(Finished::Verified { digests: if self.want_digests { digests() } else { Vec::new() } })
    }

    fn check_len(&self) -> Result<(), StorageError> {
        let Self { store, piece, .. } = self;
        expected_hash(store, *piece)?;
        let size = store.geometry().piece_size(*piece) as usize;
        let got = self.len();
        if size == got {
            return Ok(());
        }
        // Not what peers sent, but what was handed on of it: nobody is to blame.
        let reason = format!("piece `{piece}` came in `{got}` bytes instead of `{size}`");
        Err(StorageError::other(Operation::Write, store.root().to_owned(), reason))
    }

    /// Bytes of its blocks.
    fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    fn parts(&self) -> Vec<&[u8]> {
        self.blocks.iter().map(|block| &block[..]).collect()
    }
}

fn check_on_disk(
    store: &Store,
    piece: PieceIndex,
    want_digests: bool,
) -> Result<Finished, StorageError> {
    let expected = expected_hash(store, piece)?;
    let (hash, digests) = hash_on_disk(store, piece, want_digests)?;
    if hash == expected {
        return Ok(Finished::Verified { digests });
    }
    // Blame needs the digests. Pieces are rarely wrong, so to read it again is cheaper than to
    // hash everything twice always.
    let digests = if want_digests { digests } else { hash_on_disk(store, piece, true)?.1 };
    Ok(Finished::Corrupt { digests, hash })
}

/// SHA-1 of the piece, and of its blocks if they are wanted.
fn hash_on_disk(
    store: &Store,
    piece: PieceIndex,
    want_digests: bool,
) -> Result<(Digest20, Vec<Digest20>), StorageError> {
    let geometry = store.geometry();
    let (start, size) = (geometry.piece_offset(piece), geometry.piece_size(piece) as usize);
    let mut buf = vec![0; size.min(CHUNK)];
    let (mut hasher, mut digests) = (Hasher::default(), Vec::new());
    let mut done = 0;
    while done < size {
        let chunk = (size - done).min(CHUNK);
        let chunk = &mut buf[..chunk];
        store.read_at(start + done as u64, chunk)?;
        hasher.update(chunk);
        if want_digests {
            digests.extend(digest_each(chunk.chunks(BLOCK_LEN as usize)));
        }
        done += chunk.len();
    }
    Ok((hasher.finish(), digests))
}

fn expected_hash(store: &Store, piece: PieceIndex) -> Result<Digest20, StorageError> {
    let info = store.metainfo().info();
    info.piece_hash(piece).map(|hash| hash.0).ok_or_else(|| {
        let reason = format!("`{}` has no piece `{piece}`", printable(info.name()));
        StorageError::other(Operation::Read, store.root().to_owned(), reason)
    })
}

/// Enough to keep a few disks, or one with a queue, busy with cold reads.
const DISK_THREADS: usize = 4;

/// Bytes read at a time: whole blocks, and enough of them that a call's cost does not count.
const CHUNK: usize = 64 * BLOCK_LEN as usize;
