//! An order in which positions are visited that looks random and costs two divisions.

use piecework_core::{Rng, SaturatingFrom};

/// A walk over the positions of a list, from a random one with a random step. It visits each position once.
pub(super) struct Walk {
    at: usize,
    step: usize,
    total: usize,
    taken: usize,
}

impl Walk {
    /// Returns a walk over the positions below `total`.
    pub(super) fn new(total: usize, rng: &mut Rng) -> Self {
        let at = usize::saturating_from(rng.below(total as u64));
        let first = usize::saturating_from(rng.below(STEPS.len() as u64));
        // A prime that does not divide `total` has no divisor in common with it, so its multiples reach every position.
        // The product of all primes is larger than any `total`, so one of them does not divide it.
        let steps = STEPS[first..].iter().chain(&STEPS[..first]);
        let prime = steps.copied().find(|prime| !total.is_multiple_of(*prime)).unwrap_or(1);
        Self { at, step: prime.checked_rem(total).unwrap_or(0), total, taken: 0 }
    }

    /// Returns how many positions were visited.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.taken == self.total {
            return None;
        }
        let at = self.at;
        self.taken += 1;
        self.at += self.step;
        if self.at >= self.total {
            self.at -= self.total;
        }
        Some(at)
    }
}

/// Primes. They are larger than most lists, so that the steps in lists of different lengths differ.
const STEPS: [usize; 8] = [
    2_654_435_761,
    1_618_033_999,
    3_141_592_661,
    2_718_281_831,
    1_414_213_573,
    1_732_050_821,
    2_236_067_989,
    3_605_551_297,
];

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::{STEPS, Walk};
    use piecework_core::Rng;

    proptest! {
        #[test]
        fn every_position_is_visited_once(total in 0usize..3_000, seed: u64) {
            let mut visited: Vec<usize> = Walk::new(total, &mut Rng::from_seed(seed)).collect();
            visited.sort_unstable();
            prop_assert!(visited.into_iter().eq(0..total));
        }
    }

    #[test]
    fn a_list_whose_length_is_a_step_is_visited_too() {
        for total in STEPS {
            for seed in 0..20 {
                let mut walk = Walk::new(total, &mut Rng::from_seed(seed));
                let (one, two) = (walk.next(), walk.next());
                assert!(one != two && walk.taken() == 2);
            }
        }
    }

    #[test]
    fn neighbours_are_rarely_visited_together() {
        let mut rng = Rng::from_seed(1);
        let close = (0..100).filter(|_| {
            let some: Vec<usize> = Walk::new(10_000, &mut rng).take(50).collect();
            some.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1)
        });
        assert_eq!(close.count(), 0);
    }
}
