//! Decides which of many torrents run, when seeding ends, and which rate limits apply. No I/O.
//!
//! - [`decide`] says which torrents run, given their order and the bounds.
//! - [`Order`] is the order of the queue. Moving few torrents changes few ranks.
//! - [`SeedLimits`] says when a torrent has seeded enough.
//! - [`Schedule`] says whether the second pair of rate limits applies at a time of the week.

mod order;
mod schedule;
mod seeding;

pub use order::{Order, Shift};
pub use schedule::{Schedule, WeekMinute};
pub use seeding::{SeedLimits, Seeded};

/// What the queue needs to know of a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// It was paused by a user or by a limit, so it never runs.
    pub paused: bool,
    /// It stopped on a fault, so it does not run until somebody starts it again.
    pub failed: bool,
    /// It runs regardless of the bounds.
    pub forced: bool,
    /// Everything wanted is there, so it counts as a seed.
    pub complete: bool,
    /// It runs and transfers nothing: it continues, and leaves its place to another.
    pub stalled: bool,
    /// Its files are being checked: torrents that could transfer data at once go first.
    pub checking: bool,
}

impl Candidate {
    /// Returns whether it runs if any number may be active, as [`decide`] says without bounds.
    pub fn runs_unbounded(&self) -> bool {
        !self.paused && !self.failed
    }
}

/// Maximum numbers of active torrents; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Downloads.
    pub downloads: Option<u32>,
    /// Seeds.
    pub seeds: Option<u32>,
}

/// Returns which of `candidates` run. They are in the order of the queue.
///
/// Forced torrents run and take a place. Stalled ones run and take none. The remaining places go to the
/// others from the front, first to those that are not being checked.
pub fn decide(candidates: &[Candidate], bounds: Bounds) -> Vec<bool> {
    let mut left = [bounds.downloads, bounds.seeds];
    let mut runs = vec![false; candidates.len()];
    let mut pass = |runs: &mut [bool], takes: &dyn Fn(&Candidate) -> Option<Grant>| {
        for (candidate, runs) in candidates.iter().zip(runs) {
            if !candidate.runs_unbounded() || *runs {
                continue;
            }
            let left = &mut left[usize::from(candidate.complete)];
            match takes(candidate) {
                None => {}
                Some(Grant::Free) => *runs = true,
                Some(Grant::Always) => {
                    *left = left.map(|left| left.saturating_sub(1));
                    *runs = true;
                }
                Some(Grant::IfRoom) => match left {
                    Some(0) => {}
                    Some(left) => {
                        *left -= 1;
                        *runs = true;
                    }
                    None => *runs = true,
                },
            }
        }
    };
    pass(&mut runs, &|c| match (c.stalled, c.forced) {
        (true, _) => Some(Grant::Free),
        (false, true) => Some(Grant::Always),
        (false, false) => None,
    });
    pass(&mut runs, &|c| (!c.checking).then_some(Grant::IfRoom));
    pass(&mut runs, &|_| Some(Grant::IfRoom));
    runs
}

/// The terms on which a torrent runs.
enum Grant {
    /// It takes no place.
    Free,
    /// It takes a place even if none is left.
    Always,
    /// It runs only if a place is left.
    IfRoom,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Candidate = Candidate {
        paused: false,
        failed: false,
        forced: false,
        complete: false,
        stalled: false,
        checking: false,
    };

    fn bounds(downloads: u32, seeds: u32) -> Bounds {
        Bounds { downloads: Some(downloads), seeds: Some(seeds) }
    }

    #[test]
    fn the_first_in_the_queue_run_downloads_and_seeds_apart() {
        let seed = Candidate { complete: true, ..PLAIN };
        let runs = decide(&[PLAIN, seed, PLAIN, seed, PLAIN], bounds(2, 1));
        assert_eq!(runs, [true, true, true, false, false]);
        assert_eq!(decide(&[PLAIN, seed], Bounds::default()), [true, true]);
    }

    #[test]
    fn paused_and_failed_ones_leave_their_place_to_others() {
        let paused = Candidate { paused: true, forced: true, ..PLAIN };
        let failed = Candidate { failed: true, ..PLAIN };
        assert_eq!(decide(&[paused, failed, PLAIN], bounds(1, 1)), [false, false, true]);
    }

    #[test]
    fn a_stalled_one_goes_on_and_lets_another_start() {
        let stalled = Candidate { stalled: true, ..PLAIN };
        assert_eq!(decide(&[stalled, PLAIN, PLAIN], bounds(1, 1)), [true, true, false]);
    }

    #[test]
    fn forced_ones_run_and_take_the_place_of_those_in_front() {
        let forced = Candidate { forced: true, ..PLAIN };
        assert_eq!(decide(&[PLAIN, forced, forced], bounds(1, 1)), [false, true, true]);
    }

    #[test]
    fn what_can_move_data_goes_before_what_is_checked() {
        let checking = Candidate { checking: true, ..PLAIN };
        assert_eq!(decide(&[checking, PLAIN], bounds(1, 1)), [false, true]);
        assert_eq!(decide(&[checking, PLAIN], bounds(2, 1)), [true, true]);
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<[bool; 4]>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(
            |([failed, complete, stalled, checking], paused, forced)| Candidate {
                paused,
                failed: failed && checking,
                forced,
                complete,
                stalled,
                checking,
            },
        )
    }

    proptest! {
        #[test]
        fn without_bounds_each_runs_by_itself(
            candidates in prop::collection::vec(candidate(), 0..20),
        ) {
            let alone: Vec<bool> = candidates.iter().map(Candidate::runs_unbounded).collect();
            prop_assert_eq!(decide(&candidates, Bounds::default()), alone);
        }

        #[test]
        fn bounds_hold_and_no_place_is_left_empty(
            candidates in prop::collection::vec(candidate(), 0..40),
            downloads in prop::option::of(0_u32..6),
            seeds in prop::option::of(0_u32..6),
        ) {
            let bounds = Bounds { downloads, seeds };
            let runs = decide(&candidates, bounds);
            let both = || candidates.iter().zip(&runs);
            for (candidate, runs) in both() {
                let barred = candidate.paused || candidate.failed;
                prop_assert!(!(barred && *runs));
                prop_assert!(*runs || barred || !(candidate.forced || candidate.stalled));
            }
            for (complete, bound) in [(false, downloads), (true, seeds)] {
                let counted = |c: &Candidate| c.complete == complete && !c.stalled;
                let taken = both().filter(|(c, runs)| counted(c) && **runs).count() as u32;
                let forced =
                    both().filter(|(c, runs)| counted(c) && **runs && c.forced).count() as u32;
                let waiting = both()
                    .any(|(c, runs)| counted(c) && !runs && !c.paused && !c.failed);
                if let Some(bound) = bound {
                    prop_assert!(taken <= bound.max(forced));
                    prop_assert!(!waiting || taken >= bound);
                } else {
                    prop_assert!(!waiting);
                }
            }
        }
    }
}
