//! The jobs of a group of workers, and which of them a worker may take.

use std::collections::VecDeque;
use std::time::Instant;

use sha_lanes::Level;

use super::disk_admission::{Disk, DiskAdmission};
use super::finish_piece::FinishPiece;
use super::hash::Digest20;
use super::hash_batching::{BatchDelay, WaitingPieces};

/// The jobs of one group: first those to be written, then the others in the order of their arrival.
pub(super) struct Jobs {
    pub waiting: VecDeque<Job>,
    /// Pieces in `waiting` that are to be hashed.
    pieces: usize,
    /// Bytes of these pieces.
    bytes: usize,
    /// Pieces in `waiting` that are to be written.
    writes: usize,
    batching: BatchDelay,
    /// A worker waits for more pieces to hash together.
    pub gathering: bool,
    /// Workers without a job.
    pub idle: usize,
    /// A spare worker watches whether it is needed.
    pub watched: bool,
    pub admission: DiskAdmission,
    /// The store to which each worker writes a piece. Two workers that write to one file only wait
    /// for each other and waste time.
    writers: Vec<Option<u32>>,
    pub closed: bool,
}

/// Whole pieces are a kind of their own, so that several that wait can be hashed together.
pub(super) enum Job {
    /// A piece, and when it arrived.
    Finish(FinishPiece, Instant),
    /// A hashed piece, its hash, and the worker that hashed it. That worker also writes it, unless
    /// another is writing to the same store. The piece is in the queue, so that others can write it
    /// if a disk holds up that worker.
    Write(FinishPiece, Digest20, usize),
    /// Any other job, with its disk and the number of bytes to read or write there.
    Other(Option<(Disk, usize)>, Box<dyn FnOnce() + Send>),
}

/// What a worker takes at a time.
pub(super) enum Work {
    Hash(Vec<FinishPiece>),
    Write(FinishPiece, Digest20),
    Other(Box<dyn FnOnce() + Send>),
}

impl Jobs {
    pub(crate) fn new(workers: usize, spares: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            pieces: 0,
            bytes: 0,
            writes: 0,
            batching: BatchDelay::default(),
            gathering: false,
            idle: 0,
            watched: false,
            admission: DiskAdmission::new(workers, spares),
            writers: vec![None; workers + spares],
            closed: false,
        }
    }

    pub(crate) fn push(&mut self, job: Job) {
        if let Job::Finish(piece, came) = &job {
            self.pieces += 1;
            self.bytes += piece.len();
            self.batching.piece_arrived(*came);
        }
        self.waiting.push_back(job);
    }

    /// Records that `worker` has finished.
    pub(crate) fn end(&mut self, worker: usize, now: Instant) {
        self.admission.end(worker, now);
        self.writers[worker] = None;
    }

    /// Puts the pieces that `worker` has hashed, and is about to write, before all others.
    pub(crate) fn push_hashed(
        &mut self,
        worker: usize,
        pieces: Vec<(FinishPiece, Digest20)>,
        now: Instant,
    ) {
        self.writes += pieces.len();
        for (piece, digest) in pieces.into_iter().rev() {
            // The worker counts as being there already, so that nobody else begins.
            self.admission.reserve(worker, piece.store.disk(), now);
            self.waiting.push_front(Job::Write(piece, digest, worker));
        }
    }

    /// Returns the first job that `worker` may take. A job that lets others go first is only
    /// returned if there is no other.
    pub(crate) fn find(&self, worker: usize, now: Instant) -> Option<usize> {
        let may_take = |job: &Job| {
            let is_ours = match job {
                Job::Write(piece, _, by) => {
                    !self.writers.contains(&Some(piece.store.id()))
                        && (*by == worker
                            || !self.admission.will_turn_to(*by, piece.store.disk(), now))
                }
                _ => true,
            };
            is_ours && self.admission.may_take(worker, job.disk(), now)
        };
        let yields = |job: &Job| job.disk().is_some_and(|disk| self.admission.yields(disk));
        let mut free = self.waiting.iter().enumerate().filter(|(_, job)| may_take(job));
        let (first, job) = free.next()?;
        if !yields(job) {
            return Some(first);
        }
        Some(free.find(|(_, job)| !yields(job)).map_or(first, |(at, _)| at))
    }

    /// Returns the first piece that `worker` may write, because it has hashed it or because the
    /// worker that did is held up.
    pub(crate) fn find_left(&self, worker: usize, now: Instant) -> Option<usize> {
        self.waiting.iter().position(|job| match job {
            Job::Write(piece, _, by) => {
                (*by == worker || self.admission.is_held_up(*by, now))
                    && self.admission.may_take(worker, Some(piece.store.disk()), now)
            }
            _ => false,
        })
    }

    /// Returns whether pieces need not wait for more any longer.
    pub(crate) fn is_gathered(&self, level: Level, coming: usize, now: Instant) -> bool {
        self.gather_until(self.writes, level, coming, now).is_none()
    }

    /// Returns whether there is a job that is not left to the worker that hashed it.
    pub(crate) fn has_for_anybody(&self) -> bool {
        self.waiting.len() > self.writes
    }

    /// Returns whether nobody will take a waiting job unless a worker finishes or a spare one
    /// watches.
    pub(crate) fn is_unwatched(&self) -> bool {
        self.idle == 0 && !self.gathering && !self.watched
    }

    /// Returns until when the piece at `at` should wait for others, of which `coming` were
    /// requested; `None` for not at all.
    pub(crate) fn gather_until(
        &self,
        at: usize,
        level: Level,
        coming: usize,
        now: Instant,
    ) -> Option<Instant> {
        let Some(Job::Finish(_, since)) = self.waiting.get(at) else { return None };
        // Hashed pieces are written meanwhile by the worker that hashed them.
        let only_pieces = self.pieces + self.writes == self.waiting.len();
        if self.closed || !only_pieces || level.gains_from() > level.width() {
            return None;
        }
        let (pieces, bytes) = (self.pieces, self.bytes);
        let waiting = WaitingPieces { pieces, bytes, since: *since, coming };
        self.batching.wait_until(now, waiting, level.gains_from(), level.width())
    }

    /// Takes what is at `at`, which `worker` may take: one job, or as many pieces as are hashed
    /// together.
    ///
    /// # Panics
    /// If there is nothing.
    pub(crate) fn take(&mut self, worker: usize, at: usize, level: Level, now: Instant) -> Work {
        let mut pieces = Vec::new();
        let mut at = at;
        while pieces.len() < level.width() {
            match self.waiting.get(at) {
                Some(Job::Finish(piece, _)) => {
                    if !self.admission.may_take(worker, Some(piece.store.disk()), now) {
                        at += 1;
                        continue;
                    }
                }
                Some(Job::Write(..) | Job::Other(..)) if pieces.is_empty() => {}
                _ => break,
            }
            match self.waiting.remove(at) {
                Some(Job::Finish(piece, _)) => {
                    self.pieces -= 1;
                    self.bytes -= piece.len();
                    pieces.push(piece);
                }
                Some(Job::Write(piece, digest, _)) => {
                    self.writes -= 1;
                    self.admission.begin(worker, Some((piece.store.disk(), piece.len())), now);
                    self.writers[worker] = Some(piece.store.id());
                    return Work::Write(piece, digest);
                }
                Some(Job::Other(at, job)) => {
                    self.admission.begin(worker, at, now);
                    return Work::Other(job);
                }
                None => break,
            }
        }
        assert!(!pieces.is_empty(), "there was something to take");
        Work::Hash(pieces)
    }
}

impl Job {
    /// Returns the disk that the job may wait for.
    fn disk(&self) -> Option<Disk> {
        match self {
            Self::Finish(piece, _) | Self::Write(piece, ..) => Some(piece.store.disk()),
            Self::Other(at, _) => at.map(|(disk, _)| disk),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_for_a_slow_disk_take_turns_with_all_others() {
        let (mut jobs, now) = (Jobs::new(2, 0), Instant::now());
        let (slow, quick) = (Some(Disk(1)), Some(Disk(2)));
        jobs.admission.begin(0, Some((Disk(1), 1)), now);
        let now = now + Duration::from_secs(1);
        jobs.end(0, now);
        for disk in [slow, slow, slow, quick, None, slow] {
            jobs.push(Job::Other(disk.map(|disk| (disk, 1)), Box::new(|| {})));
        }
        let mut order = Vec::new();
        while let Some(at) = jobs.find(0, now) {
            order.push(jobs.waiting[at].disk());
            jobs.take(0, at, Level::scalar(), now);
            if order.len() == 2 {
                // While one worker is there, the other turns to something else.
                let other = jobs.find(1, now).map(|at| jobs.waiting[at].disk());
                assert_eq!((order[1], other), (slow, Some(None)));
            }
            jobs.end(0, now);
        }
        assert_eq!(order, [quick, slow, None, slow, slow, slow]);
    }
}
