//! Decides which worker may take a job for which disk.
//!
//! It is not known in advance that a disk will hang, so a hanging disk holds up the workers that
//! turned to it before this showed. From then on, its jobs may only take a share of the workers,
//! and jobs for other disks go on. A disk that never hangs but is always slow is recognized by the
//! duration of its jobs: it never gets all workers, and never two jobs in a row while others wait.
//! Time is an argument here, so that the rules can be tested.

use std::time::{Duration, Instant};

/// A disk, identified by the number of its device, or of a store whose device is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk(pub u64);

/// What each worker is doing on which disk.
#[derive(Debug)]
pub(super) struct DiskAdmission {
    /// The current use of each worker: first the regular workers, then the spare ones.
    uses: Vec<Option<DiskUse>>,
    workers: usize,
    /// Disks that took long recently, and their time per mebibyte: those that are slow, or may
    /// become so.
    slow: Vec<(Disk, Duration)>,
    /// The disk of the last job that ended.
    last: Option<Disk>,
}

/// A worker's use of a disk.
#[derive(Debug, Clone, Copy)]
struct DiskUse {
    disk: Disk,
    since: Instant,
    /// The number of bytes to read or write; `None` if a job is about to be taken.
    bytes: Option<usize>,
}

impl DiskAdmission {
    /// Creates the state for `workers` workers, and `spares` more for when all of those are held
    /// up.
    pub(crate) fn new(workers: usize, spares: usize) -> Self {
        Self { uses: vec![None; workers + spares], workers, slow: Vec::new(), last: None }
    }

    /// Records that `worker` will turn to `disk` in a moment.
    pub(crate) fn reserve(&mut self, worker: usize, disk: Disk, now: Instant) {
        self.uses[worker] = Some(DiskUse { disk, since: now, bytes: None });
    }

    /// Records that `worker` reads or writes this many bytes on a disk, or does something without a
    /// disk.
    pub(crate) fn begin(&mut self, worker: usize, at: Option<(Disk, usize)>, now: Instant) {
        let disk_use = |(disk, bytes)| DiskUse { disk, since: now, bytes: Some(bytes) };
        self.uses[worker] = at.map(disk_use);
    }

    /// Records that `worker` has finished.
    pub(crate) fn end(&mut self, worker: usize, now: Instant) {
        self.last = None;
        if let Some(DiskUse { disk, since, bytes: Some(bytes) }) = self.uses[worker].take() {
            self.last = Some(disk);
            let took = now.saturating_duration_since(since);
            // Long jobs take long on any disk. Short ones wait in the same queues.
            self.note(
                disk,
                took * MEBIBYTE / u32::try_from(bytes).unwrap_or(u32::MAX).max(MEBIBYTE),
            );
        }
    }

    fn note(&mut self, disk: Disk, took: Duration) {
        let at = self.slow.iter().position(|(slow, _)| *slow == disk);
        let known = at.map_or(Duration::ZERO, |at| self.slow[at].1);
        // A system that throttles writers delays one write of many. So a slow job is remembered for
        // longer than fast ones.
        let usual =
            if took > known { known + (took - known) / 4 } else { known - (known - took) / 16 };
        match at {
            Some(at) if usual < SLOW / 8 => drop(self.slow.swap_remove(at)),
            Some(at) => self.slow[at].1 = usual,
            None if usual < SLOW / 8 => {}
            None => {
                if self.slow.len() >= MOST_SLOW {
                    self.slow.remove(0);
                }
                self.slow.push((disk, usual));
            }
        }
    }

    /// Returns whether `worker` only works when the others cannot.
    pub(crate) fn is_spare(&self, worker: usize) -> bool {
        worker >= self.workers
    }

    /// Returns whether `worker` has been waiting for a disk for too long.
    pub(crate) fn is_held_up(&self, worker: usize, now: Instant) -> bool {
        self.uses[worker].is_some_and(|disk_use| disk_use.is_long(now))
    }

    /// Returns whether `worker` will, as far as is known, soon be done and turn to `next`. `false`
    /// if it is at a slow disk and `next` is another one: then others can do the job sooner.
    pub(crate) fn will_turn_to(&self, worker: usize, next: Disk, now: Instant) -> bool {
        self.uses[worker].is_some_and(|disk_use| {
            !disk_use.is_long(now) && (disk_use.disk == next || !self.is_slow(disk_use.disk))
        })
    }

    /// Returns whether jobs for `disk` let others go first: it is slow, and a worker is there or
    /// was the last to finish.
    pub(crate) fn yields(&self, disk: Disk) -> bool {
        let is_there = |disk_use: &DiskUse| disk_use.disk == disk;
        self.is_slow(disk) && (self.last == Some(disk) || self.uses.iter().flatten().any(is_there))
    }

    /// Returns whether jobs for `disk` took long recently.
    fn is_slow(&self, disk: Disk) -> bool {
        self.slow.iter().any(|(slow, usual)| *slow == disk && *usual >= SLOW)
    }

    /// Returns whether `worker` may begin a job for `disk`: not if the disk already holds up a
    /// share of the workers, nor if it is slow and all other workers are there. A spare worker may
    /// not if any worker is at that disk: the remaining ones must not all turn to the next disk
    /// that hangs.
    pub(crate) fn may_take(&self, worker: usize, disk: Option<Disk>, now: Instant) -> bool {
        let Some(disk) = disk else { return true };
        let mut there = self.uses.iter().flatten().filter(|disk_use| disk_use.disk == disk);
        if self.is_spare(worker) {
            return there.next().is_none();
        }
        let (mut all, mut long) = (0, 0);
        for disk_use in there {
            all += 1;
            long += usize::from(disk_use.is_long(now));
        }
        let bound = if self.is_slow(disk) { (self.workers - 1).max(1) } else { usize::MAX };
        all < bound && long < (self.workers / 2).max(1)
    }

    /// Returns when all regular workers will be held up if none of them finishes; `None` if one is
    /// not waiting for a disk.
    pub(crate) fn all_held_up_at(&self) -> Option<Instant> {
        let mut last = None;
        for disk_use in &self.uses[..self.workers] {
            last = last.max(Some((*disk_use)?.since + Self::PATIENCE));
        }
        last
    }

    /// A job that takes longer than this is held up. A mebibyte takes 50 ms at 20 MB/s, and 1 ms if
    /// it goes to memory.
    pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
}

impl DiskUse {
    fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= DiskAdmission::PATIENCE
    }
}

const MEBIBYTE: u32 = 1 << 20;

/// A disk that takes longer than this per mebibyte is slow: 100 MB/s.
const SLOW: Duration = Duration::from_millis(10);

/// The number of slow disks that are remembered. Others would be recognized again.
const MOST_SLOW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Disk = Disk(1);
    const FAST: Disk = Disk(2);

    /// `worker` does something at `disk` that takes `took`; gives when it is done.
    fn disk_use(
        admission: &mut DiskAdmission,
        worker: usize,
        disk: Disk,
        took: Duration,
        at: Instant,
    ) -> Instant {
        admission.begin(worker, Some((disk, 1 << 20)), at);
        admission.end(worker, at + took);
        at + took
    }

    #[test]
    fn a_disk_that_holds_up_half_the_crew_gets_no_more_of_it() {
        let (mut admission, start) = (DiskAdmission::new(4, 1), Instant::now());
        let late = start + DiskAdmission::PATIENCE;
        admission.begin(0, Some((SLOW, 1)), start);
        assert!(admission.may_take(1, Some(SLOW), late));
        admission.begin(1, Some((SLOW, 1)), start);
        // Nothing shows yet.
        assert!(admission.may_take(2, Some(SLOW), late - Duration::from_millis(1)));
        assert!(!admission.may_take(2, Some(SLOW), late));
        assert!(admission.may_take(2, Some(FAST), late) && admission.may_take(2, None, late));
        admission.end(0, start);
        assert!(admission.may_take(2, Some(SLOW), late));
    }

    #[test]
    fn a_crew_of_one_or_two_leaves_one_worker_to_a_slow_disk() {
        for workers in [1, 2] {
            let (mut admission, start) = (DiskAdmission::new(workers, 1), Instant::now());
            let late = start + DiskAdmission::PATIENCE;
            assert!(admission.may_take(workers - 1, Some(SLOW), late));
            admission.begin(0, Some((SLOW, 1)), start);
            assert!(!admission.may_take(workers - 1, Some(SLOW), late));
        }
    }

    #[test]
    fn spare_workers_are_for_disks_that_nobody_waits_for() {
        let (mut admission, start) = (DiskAdmission::new(4, 1), Instant::now());
        assert!(admission.is_spare(4) && !admission.is_spare(3));
        admission.begin(0, Some((SLOW, 1)), start);
        assert!(!admission.may_take(4, Some(SLOW), start));
        assert!(admission.may_take(4, Some(FAST), start));
    }

    #[test]
    fn who_is_done_in_a_moment_is_told_from_who_is_held_up() {
        let (mut admission, start) = (DiskAdmission::new(2, 1), Instant::now());
        let late = start + DiskAdmission::PATIENCE;
        admission.begin(0, Some((SLOW, 1)), start);
        assert!(admission.will_turn_to(0, SLOW, start) && !admission.is_held_up(0, start));
        assert!(!admission.will_turn_to(0, SLOW, late) && admission.is_held_up(0, late));
        assert!(!admission.will_turn_to(1, SLOW, late) && !admission.is_held_up(1, late));
    }

    #[test]
    fn all_are_held_up_when_the_last_one_is() {
        let (mut admission, start) = (DiskAdmission::new(2, 1), Instant::now());
        let later = start + Duration::from_millis(30);
        admission.begin(0, Some((SLOW, 1)), start);
        assert_eq!(admission.all_held_up_at(), None);
        admission.begin(1, None, start);
        assert_eq!(admission.all_held_up_at(), None);
        admission.begin(1, Some((FAST, 1)), later);
        assert_eq!(admission.all_held_up_at(), Some(later + DiskAdmission::PATIENCE));
    }

    #[test]
    fn a_disk_that_is_always_slow_never_gets_the_whole_crew() {
        for (workers, most) in [(1, 1), (2, 1), (4, 3)] {
            let (mut admission, mut now) = (DiskAdmission::new(workers, 1), Instant::now());
            for _ in 0..20 {
                now = disk_use(&mut admission, 0, SLOW, Duration::from_millis(30), now);
                now = disk_use(&mut admission, 0, FAST, Duration::from_millis(1), now);
            }
            assert!(admission.is_slow(SLOW) && !admission.is_slow(FAST));
            let taken = (0..workers).take_while(|worker| {
                let may = admission.may_take(*worker, Some(SLOW), now);
                admission.begin(*worker, Some((SLOW, 1 << 20)), now);
                may
            });
            assert_eq!(taken.count(), most, "of {workers}");
            assert!(!admission.will_turn_to(0, FAST, now) && admission.will_turn_to(0, SLOW, now));
        }
    }

    #[test]
    fn one_wait_in_many_writes_is_remembered_until_there_are_none() {
        let (mut admission, mut now) = (DiskAdmission::new(2, 0), Instant::now());
        let quick = Duration::from_millis(1);
        now = disk_use(&mut admission, 0, SLOW, Duration::from_millis(600), now);
        for _ in 0..32 {
            assert!(admission.is_slow(SLOW));
            now = disk_use(&mut admission, 0, SLOW, quick, now);
        }
        for _ in 0..100 {
            now = disk_use(&mut admission, 0, SLOW, quick, now);
        }
        assert!(!admission.is_slow(SLOW));
        // What is large may take as long as it is.
        admission.begin(0, Some((SLOW, 16 << 20)), now);
        admission.end(0, now + Duration::from_millis(100));
        assert!(!admission.is_slow(SLOW));
    }

    #[test]
    fn of_slow_disks_a_bounded_number_is_remembered() {
        let (mut admission, mut now) = (DiskAdmission::new(2, 0), Instant::now());
        for number in 0..1_000 {
            now = disk_use(&mut admission, 0, Disk(number), Duration::from_millis(500), now);
        }
        assert_eq!(admission.slow.len(), MOST_SLOW);
        assert!(admission.is_slow(Disk(999)));
    }
}
