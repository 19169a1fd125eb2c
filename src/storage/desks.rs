//! Which worker of a crew waits for which disk, and since when; and what that says about who may
//! take what.
//!
//! Nobody knows beforehand that a disk will hang, so it may hold up the workers that turn to it
//! before that shows. From then on its jobs wait, but for a share of the crew, and those for other
//! disks go on. Time is an argument here, so that the rule can be tested.

use std::time::{Duration, Instant};

/// A disk, as far as they are told apart: the number of a device, or of a store whose device is
/// not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk(pub u64);

/// What each worker of a crew is at.
#[derive(Debug)]
pub(super) struct Desks {
    /// The disk a worker waits for, and since when. First those that work all the time, then the
    /// spare ones.
    desks: Vec<Option<(Disk, Instant)>>,
    workers: usize,
}

impl Desks {
    /// Of a crew of `workers` workers, and `spares` more for when all those are held up.
    pub fn new(workers: usize, spares: usize) -> Self {
        Self { desks: vec![None; workers + spares], workers }
    }

    /// `worker` turns to `disk`, or does something that has no disk to wait for.
    pub fn sit_down(&mut self, worker: usize, disk: Option<Disk>, now: Instant) {
        self.desks[worker] = disk.map(|disk| (disk, now));
    }

    /// `worker` is done.
    pub fn leave(&mut self, worker: usize) {
        self.desks[worker] = None;
    }

    /// Whether `worker` works only when the others cannot.
    pub fn is_spare(&self, worker: usize) -> bool {
        worker >= self.workers
    }

    /// Whether `worker` has been waiting for a disk for too long.
    pub fn is_held_up(&self, worker: usize, now: Instant) -> bool {
        self.desks[worker].is_some_and(|(_, since)| is_long(since, now))
    }

    /// Whether `worker` is at a disk and will, as far as can be known, be done in a moment.
    pub fn goes_on(&self, worker: usize, now: Instant) -> bool {
        self.desks[worker].is_some_and(|(_, since)| !is_long(since, now))
    }

    /// Whether `worker` may begin something that has to do with `disk`: not if that holds up a
    /// share of the crew already. A spare one may not if anybody is at that disk: those that are
    /// left must not all turn to the next one that hangs.
    pub fn may_take(&self, worker: usize, disk: Option<Disk>, now: Instant) -> bool {
        let Some(disk) = disk else { return true };
        let mut there = self.desks.iter().flatten().filter(|(theirs, _)| *theirs == disk);
        if self.is_spare(worker) {
            return there.next().is_none();
        }
        there.filter(|(_, since)| is_long(*since, now)).count() < (self.workers / 2).max(1)
    }

    /// When all workers but the spare ones will be held up if none gets done; `None` if one is not
    /// waiting for a disk.
    pub fn all_held_up_at(&self) -> Option<Instant> {
        let mut last = None;
        for desk in &self.desks[..self.workers] {
            let (_, since) = (*desk)?;
            last = last.max(Some(since + Self::PATIENCE));
        }
        last
    }

    /// After this long a disk counts as slow: a mebibyte takes 50 ms at 20 MB/s, and 1 ms where
    /// memory takes it.
    pub const PATIENCE: Duration = Duration::from_millis(100);
}

fn is_long(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= Desks::PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Disk = Disk(1);
    const FAST: Disk = Disk(2);

    #[test]
    fn a_disk_that_holds_up_half_the_crew_gets_no_more_of_it() {
        let (mut desks, start) = (Desks::new(4, 1), Instant::now());
        let late = start + Desks::PATIENCE;
        desks.sit_down(0, Some(SLOW), start);
        assert!(desks.may_take(1, Some(SLOW), late));
        desks.sit_down(1, Some(SLOW), start);
        // Nothing shows yet.
        assert!(desks.may_take(2, Some(SLOW), late - Duration::from_millis(1)));
        assert!(!desks.may_take(2, Some(SLOW), late));
        assert!(desks.may_take(2, Some(FAST), late) && desks.may_take(2, None, late));
        desks.leave(0);
        assert!(desks.may_take(2, Some(SLOW), late));
    }

    #[test]
    fn a_crew_of_one_or_two_leaves_one_worker_to_a_slow_disk() {
        for workers in [1, 2] {
            let (mut desks, start) = (Desks::new(workers, 1), Instant::now());
            let late = start + Desks::PATIENCE;
            assert!(desks.may_take(workers - 1, Some(SLOW), late));
            desks.sit_down(0, Some(SLOW), start);
            assert!(!desks.may_take(workers - 1, Some(SLOW), late));
        }
    }

    #[test]
    fn spare_workers_are_for_disks_that_nobody_waits_for() {
        let (mut desks, start) = (Desks::new(4, 1), Instant::now());
        assert!(desks.is_spare(4) && !desks.is_spare(3));
        desks.sit_down(0, Some(SLOW), start);
        assert!(!desks.may_take(4, Some(SLOW), start));
        assert!(desks.may_take(4, Some(FAST), start));
    }

    #[test]
    fn who_is_done_in_a_moment_is_told_from_who_is_held_up() {
        let (mut desks, start) = (Desks::new(2, 1), Instant::now());
        let late = start + Desks::PATIENCE;
        desks.sit_down(0, Some(SLOW), start);
        assert!(desks.goes_on(0, start) && !desks.is_held_up(0, start));
        assert!(!desks.goes_on(0, late) && desks.is_held_up(0, late));
        assert!(!desks.goes_on(1, late) && !desks.is_held_up(1, late));
    }

    #[test]
    fn all_are_held_up_when_the_last_one_is() {
        let (mut desks, start) = (Desks::new(2, 1), Instant::now());
        let later = start + Duration::from_millis(30);
        desks.sit_down(0, Some(SLOW), start);
        assert_eq!(desks.all_held_up_at(), None);
        desks.sit_down(1, None, start);
        assert_eq!(desks.all_held_up_at(), None);
        desks.sit_down(1, Some(FAST), later);
        assert_eq!(desks.all_held_up_at(), Some(later + Desks::PATIENCE));
    }
}
