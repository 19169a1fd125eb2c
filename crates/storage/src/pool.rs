//! Threads that hash and that wait for disks, so that threads that serve sockets do not have to.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use piecework_core::{BlockBuf, BlockRef, PieceIndex};
use sha_lanes::{Level, hash_many};

use super::disk_admission::{Disk, DiskAdmission};
use super::error::{Operation, StorageError};
use super::finish_piece::FinishPiece;
use super::hash;
use super::job_queue::{Job, Jobs, Work};
use super::piece_check::{PieceResult, check_on_disk};
use super::store::Store;
use super::watch::Watch;

/// Two groups of worker threads. `hash-N` do what keeps a core busy, and write the pieces they have
/// hashed, one thread at a time per torrent. `disk-N` do what waits for disks.
///
/// A disk that hangs or is slow holds no more of a group than it had before this showed
/// ([`DiskAdmission`]). Its further jobs wait, or take turns with jobs for other disks. If all
/// threads are held up, spare threads work for the other disks.
///
/// Pieces in memory that wait together are hashed together, which costs much less than one after
/// the other. While pieces arrive fast, one waits some milliseconds for others
/// (`hash_batching.rs`).
///
/// Results are passed to the `done` of a job on a worker thread; it should only hand the result on.
/// Jobs of one group begin in order. The queue has no bound of its own: every job stands for bytes
/// that a swarm's memory budget or a peer's request queue has admitted. Dropping the pool waits
/// until all jobs are done.
pub struct HashPool {
    hashing: WorkerGroup,
    waiting: WorkerGroup,
}

struct WorkerGroup {
    queue: Arc<JobQueue>,
    workers: Vec<JoinHandle<()>>,
}

/// The current work of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolLoad {
    /// Jobs that wait to be hashed.
    pub hashing_waits: usize,
    /// Jobs that wait for a disk thread.
    pub disk_waits: usize,
    /// Hash threads that are hashing.
    pub hashing: usize,
    /// Hash threads that are writing pieces they have hashed.
    pub writing: usize,
}

struct JobQueue {
    level: Level,
    /// The numbers of workers that are hashing and writing.
    hashing: AtomicUsize,
    writing: AtomicUsize,
    /// Pieces that were requested and may arrive.
    coming: AtomicUsize,
    jobs: Mutex<Jobs>,
    /// Signals an idle worker that there is something to do.
    changed: Condvar,
    /// Signals the worker that waits for more pieces.
    gathered: Condvar,
    /// Signals a spare worker that all others may be held up.
    relief: Condvar,
}

impl HashPool {
    /// Creates a pool of `threads` hash threads, at least one, and a few disk threads.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_level(threads, hash::level())
    }

    pub(super) fn with_level(threads: usize, level: Level) -> std::io::Result<Self> {
        let hashing = WorkerGroup::new("hash", threads.max(1), level)?;
        let waiting = WorkerGroup::new("disk", DISK_THREADS, level)?;
        Ok(Self { hashing, waiting })
    }

    /// Says that a caller now expects `now` pieces, in place of `before`. While pieces are
    /// expected, those that are here may wait for them.
    pub fn expect(&self, before: usize, now: usize) {
        let coming = &self.hashing.queue.coming;
        // Wraps around if fewer are expected.
        coming.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Hashes a piece and, if it is right, writes it at once. Nothing unverified is written.
    pub fn finish_piece(&self, job: FinishPiece) {
        self.hashing.give(Job::Finish(job, Instant::now()));
    }

    /// Writes one unverified block of a piece that is too large for memory.
    /// [`HashPool::finish_piece_on_disk`] verifies the piece when all blocks are written.
    pub fn write_block(
        &self,
        store: Arc<Store>,
        block: BlockRef,
        buf: BlockBuf,
        done: impl FnOnce(Result<(), StorageError>) + Send + 'static,
    ) {
        self.waiting.other(Some((store.disk(), buf.len())), move || {
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

    /// Reads a piece back from the disk and hashes it. All its blocks must have been reported by
    /// [`HashPool::write_block`].
    pub fn finish_piece_on_disk(
        &self,
        store: Arc<Store>,
        piece: PieceIndex,
        want_digests: bool,
        done: impl FnOnce(PieceResult) + Send + 'static,
    ) {
        let bytes = store.geometry().piece_size(piece) as usize;
        self.hashing.other(Some((store.disk(), bytes)), move || {
            let result = check_on_disk(&store, piece, want_digests);
            drop(store);
            done(result.unwrap_or_else(PieceResult::Failed));
        });
    }

    /// Fills all of `buf` with the store's content from byte `offset` on and returns it, after
    /// `watch` has checked the files if it is time. For what [`Store::serve_cached`] could not
    /// return. The disk is told to read on to the end of the piece, because that will usually be
    /// requested next.
    pub fn read(
        &self,
        store: Arc<Store>,
        watch: Arc<Watch>,
        offset: u64,
        mut buf: Vec<u8>,
        done: impl FnOnce(Result<Vec<u8>, StorageError>) + Send + 'static,
    ) {
        self.waiting.other(Some((store.disk(), buf.len())), move || {
            store.read_ahead(offset);
            let result = store.serve(offset, &mut buf, &watch).map(|()| buf);
            drop(store);
            done(result);
        });
    }

    /// Returns its current work.
    pub fn load(&self) -> PoolLoad {
        let waits = |group: &WorkerGroup, counts: fn(&Job) -> bool| {
            group.queue.jobs.lock().waiting.iter().filter(|job| counts(job)).count()
        };
        let (hashing, writing) = self.hashing.queue.busy();
        let hashing_waits = waits(&self.hashing, |job| !matches!(job, Job::Write(..)));
        let disk_waits = waits(&self.waiting, |_| true);
        PoolLoad { hashing_waits, disk_waits, hashing, writing }
    }

    /// Returns whether at least half of the busy hash threads are writing.
    pub fn is_mostly_writing(&self) -> bool {
        let (hashing, writing) = self.hashing.queue.busy();
        writing > 0 && writing >= hashing
    }

    /// Runs any other job that may wait for a disk: [`Store::prepare`], [`Store::sync`].
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.waiting.other(None, job);
    }
}

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.hashing.workers.len() - SPARES;
        f.debug_struct("HashPool").field("threads", &threads).finish_non_exhaustive()
    }
}

impl WorkerGroup {
    fn new(name: &str, threads: usize, level: Level) -> std::io::Result<Self> {
        let queue = Arc::new(JobQueue {
            level,
            hashing: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            jobs: Mutex::new(Jobs::new(threads, SPARES)),
            changed: Condvar::new(),
            gathered: Condvar::new(),
            relief: Condvar::new(),
        });
        // Filled one by one, so that started threads are stopped if a later one fails.
        let mut group = Self { queue, workers: Vec::with_capacity(threads + SPARES) };
        for number in 0..threads + SPARES {
            let queue = Arc::clone(&group.queue);
            let worker = thread::Builder::new().name(format!("{name}-{number}"));
            group.workers.push(worker.spawn(move || queue.work(number))?);
        }
        Ok(group)
    }

    fn other(&self, at: Option<(Disk, usize)>, job: impl FnOnce() + Send + 'static) {
        self.give(Job::Other(at, Box::new(job)));
    }

    fn give(&self, job: Job) {
        let mut jobs = self.queue.jobs.lock();
        let is_piece = matches!(job, Job::Finish(..));
        jobs.push(job);
        // A worker that waits for more pieces is woken by the clock, or when waiting no longer
        // pays: not by each piece, of which there may be thousands per second.
        if !jobs.gathering {
            let unwatched = jobs.is_unwatched();
            drop(jobs);
            self.queue.changed.notify_one();
            if unwatched {
                self.queue.relief.notify_one();
            }
        } else if !is_piece
            || jobs.is_gathered(self.queue.level, self.queue.coming(), Instant::now())
        {
            drop(jobs);
            self.queue.gathered.notify_one();
        }
    }
}

impl Drop for WorkerGroup {
    fn drop(&mut self) {
        self.queue.jobs.lock().closed = true;
        self.queue.changed.notify_all();
        self.queue.gathered.notify_all();
        self.queue.relief.notify_all();
        for worker in self.workers.drain(..) {
            // A job may hold the last handle on its own pool, and a thread cannot join itself.
            if worker.thread().id() != thread::current().id() && worker.join().is_err() {
                tracing::error!("a storage thread has died");
            }
        }
    }
}

impl JobQueue {
    fn coming(&self) -> usize {
        self.coming.load(Ordering::Relaxed)
    }

    fn work(&self, worker: usize) {
        while let Some(work) = self.next(worker) {
            match work {
                Work::Hash(pieces) => self.hash(worker, pieces),
                Work::Write(piece, digest) => {
                    let _busy = BusyCount::new(&self.writing);
                    guarded(|| piece.answer(|piece| piece.conclude(digest)));
                }
                Work::Other(job) => guarded(job),
            }
        }
    }

    fn next(&self, worker: usize) -> Option<Work> {
        let mut jobs = self.jobs.lock();
        jobs.end(worker, Instant::now());
        if jobs.admission.is_spare(worker) {
            return self.next_for_spare(worker, jobs);
        }
        loop {
            let now = Instant::now();
            let at = jobs.find(worker, now);
            match at.map(|at| (at, &jobs.waiting[at])) {
                Some((at, Job::Finish(..))) if !jobs.gathering => {
                    match jobs.gather_until(at, self.level, self.coming(), now) {
                        None => return Some(self.take(&mut jobs, worker, at, now)),
                        Some(until) => {
                            jobs.gathering = true;
                            self.gathered.wait_until(&mut jobs, until);
                            jobs.gathering = false;
                        }
                    }
                }
                Some((at, Job::Write(..) | Job::Other(..))) => {
                    return Some(self.take(&mut jobs, worker, at, now));
                }
                None if jobs.closed && jobs.waiting.is_empty() => return None,
                // Skips pieces that another worker collects or has hashed, and jobs for a disk that
                // holds others up: the workers there go on with those.
                _ => {
                    jobs.idle += 1;
                    self.changed.wait(&mut jobs);
                    jobs.idle -= 1;
                }
            }
        }
    }

    /// Waits until every regular worker is held up by a disk, or one with more to write is, and
    /// there is a job for another disk. What this worker has hashed it writes in any case.
    fn next_for_spare(&self, worker: usize, mut jobs: MutexGuard<'_, Jobs>) -> Option<Work> {
        loop {
            let now = Instant::now();
            if jobs.closed {
                return None;
            }
            if jobs.watched || jobs.waiting.is_empty() {
                self.relief.wait(&mut jobs);
                continue;
            }
            let due = jobs.admission.all_held_up_at();
            let at = match due {
                Some(due) if due <= now => jobs.find(worker, now),
                _ => jobs.find_left(worker, now),
            };
            if let Some(at) = at {
                return Some(self.take(&mut jobs, worker, at, now));
            }
            if jobs.idle > 0 {
                // A job that is free now may have been another's, or not allowed, when they looked.
                self.changed.notify_one();
            }
            jobs.watched = true;
            let later = due.filter(|due| *due > now).unwrap_or(now + DiskAdmission::PATIENCE);
            self.relief.wait_until(&mut jobs, later);
            jobs.watched = false;
        }
    }

    /// Takes the job at `at`, and leaves the rest to another worker.
    fn take(&self, jobs: &mut Jobs, worker: usize, at: usize, now: Instant) -> Work {
        let work = jobs.take(worker, at, self.level, now);
        if jobs.closed {
            // Those that left the rest to this worker have to end, too.
            self.changed.notify_all();
            return work;
        }
        if jobs.has_for_anybody() {
            self.changed.notify_one();
        }
        // The job that this worker has just taken may hold it up.
        if !jobs.waiting.is_empty() && !jobs.watched {
            self.relief.notify_one();
        }
        work
    }

    /// Hashes `pieces` together, and queues them for writing one after the other, usually by the
    /// same worker.
    fn hash(&self, worker: usize, pieces: Vec<FinishPiece>) {
        let mut whole = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece.check_len() {
                Ok(()) => whole.push(piece),
                Err(error) => guarded(|| piece.answer(|_| Err(error))),
            }
        }
        let parts: Vec<Vec<&[u8]>> = whole.iter().map(FinishPiece::parts).collect();
        let digests = {
            let _busy = BusyCount::new(&self.hashing);
            hash_many(self.level, &parts)
        };
        drop(parts);
        let hashed: Vec<_> = whole.into_iter().zip(digests).collect();
        self.jobs.lock().push_hashed(worker, hashed, Instant::now());
    }

    fn busy(&self) -> (usize, usize) {
        (self.hashing.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }
}

/// Counts a worker while it is busy.
struct BusyCount<'a>(&'a AtomicUsize);

impl<'a> BusyCount<'a> {
    fn new(workers: &'a AtomicUsize) -> Self {
        workers.fetch_add(1, Ordering::Relaxed);
        Self(workers)
    }
}

impl Drop for BusyCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that panics must not end the thread, which all other torrents need.
fn guarded(job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a storage job has panicked");
    }
}

/// Enough to keep a few disks, or one with a queue, busy with cold reads.
const DISK_THREADS: usize = 4;

/// Spare workers per group, which work only when all others are held up: as many further disks may
/// hang at the same time.
const SPARES: usize = 3;
