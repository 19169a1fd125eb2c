//! What a crew of the hash service has to do, and which of it a worker may take.

use std::collections::VecDeque;
use std::time::Instant;

use sha_lanes::Level;

use super::disk_admission::{Disk, DiskAdmission};
use super::finish_piece::FinishPiece;
use super::hash::Digest20;
use super::hash_batching::{BatchDelay, WaitingPieces};

/// The jobs of one crew. First those that are to be written, then the others as they came.
pub(super) struct Jobs {
    pub waiting: VecDeque<Job>,
    /// Pieces in `waiting` that are to be hashed.
    pieces: usize,
    /// Bytes of these pieces.
    bytes: usize,
    /// Pieces in `waiting` that are to be written.
    writes: usize,
    batching: BatchDelay,
    /// A worker waits until there are more pieces to be hashed side by side.
    pub gathering: bool,
    /// Workers that have nothing to do.
    pub idle: usize,
    /// A spare worker looks whether it is needed.
    pub watched: bool,
    pub admission: DiskAdmission,
    /// The store each worker writes a piece of: two who write one file only wait for each other, and
    /// burn time doing so.
    writers: Vec<Option<u32>>,
    pub closed: bool,
}

/// Whole pieces are told apart from the rest so that several that wait can be hashed side by
/// side.
pub(super) enum Job {
    /// A piece, and when it came.
    Finish(FinishPiece, Instant),
    /// A piece that was hashed, its hash, and by which worker, who will write it as well unless
    /// another is writing that store. In the queue rather than in that worker's hands, so that
    /// others can do it should a disk hold him up.
    Write(FinishPiece, Digest20, usize),
    /// Anything else, and the disk it is about with the bytes that are read or written there.
    Other(Option<(Disk, usize)>, Box<dyn FnOnce() + Send>),
}

/// What a worker takes at a time.
pub(super) enum Work {
    Hash(Vec<FinishPiece>),
    Write(FinishPiece, Digest20),
    Other(Box<dyn FnOnce() + Send>),
}

impl Jobs {
    pub fn new(workers: usize, spares: usize) -> Self {
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

    pub fn push(&mut self, job: Job) {
        if let Job::Finish(piece, came) = &job {
            self.pieces += 1;
            self.bytes += piece.len();
            self.batching.piece_arrived(*came);
        }
        self.waiting.push_back(job);
    }

    /// `worker` is done with what it had taken.
    pub fn end(&mut self, worker: usize, now: Instant) {
        self.admission.end(worker, now);
        self.writers[worker] = None;
    }

    /// Puts before all others what `worker` has hashed, and is about to write.
    pub fn push_hashed(
        &mut self,
        worker: usize,
        pieces: Vec<(FinishPiece, Digest20)>,
        now: Instant,
    ) {
        self.writes += pieces.len();
        for (piece, digest) in pieces.into_iter().rev() {
            // It is as good as there, so that nobody else begins.
            self.admission.reserve(worker, piece.store.disk(), now);
            self.waiting.push_front(Job::Write(piece, digest, worker));
        }
    }

    /// The first job that `worker` may take; one that lets others go first only if there is no
    /// other.
    pub fn find(&self, worker: usize, now: Instant) -> Option<usize> {
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

    /// The first piece that `worker` may write because it has hashed it, or because whoever has is
    /// held up.
    pub fn find_left(&self, worker: usize, now: Instant) -> Option<usize> {
        self.waiting.iter().position(|job| match job {
            Job::Write(piece, _, by) => {
                (*by == worker || self.admission.is_held_up(*by, now))
                    && self.admission.may_take(worker, Some(piece.store.disk()), now)
            }
            _ => false,
        })
    }

    /// Whether those that gather need not wait any longer.
    pub fn is_gathered(&self, level: Level, coming: usize, now: Instant) -> bool {
        self.gather_until(self.writes, level, coming, now).is_none()
    }

    /// Whether something waits that is not left to whoever hashed it.
    pub fn has_for_anybody(&self) -> bool {
        self.waiting.len() > self.writes
    }

    /// Whether something waits that nobody will take unless a worker gets done with what it does,
    /// or a spare one looks after that.
    pub fn is_unwatched(&self) -> bool {
        self.idle == 0 && !self.gathering && !self.watched
    }

    /// Until when the piece at `at` should wait for others, of which `coming` have been asked for;
    /// `None` if not at all.
    pub fn gather_until(
        &self,
        at: usize,
        level: Level,
        coming: usize,
        now: Instant,
    ) -> Option<Instant> {
        let Some(Job::Finish(_, since)) = self.waiting.get(at) else { return None };
        // What was hashed already is written meanwhile by whoever has hashed it.
        let only_pieces = self.pieces + self.writes == self.waiting.len();
        if self.closed || !only_pieces || level.gains_from() > level.width() {
            return None;
        }
        let (pieces, bytes) = (self.pieces, self.bytes);
        let waiting = WaitingPieces { pieces, bytes, since: *since, coming };
        self.batching.wait_until(now, waiting, level.gains_from(), level.width())
    }

    /// Takes what is at `at`, which `worker` may: one job, or as many pieces as are hashed at a
    /// time.
    ///
    /// # Panics
    /// If there is nothing.
    pub fn take(&mut self, worker: usize, at: usize, level: Level, now: Instant) -> Work {
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
    /// Whose answer may take long.
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
