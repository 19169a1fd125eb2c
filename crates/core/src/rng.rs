//! Randomness as an argument.

use crate::SaturatingFrom;

/// A small seeded random number generator. Not for secrets: keys and tokens come from the operating
/// system.
#[derive(Debug, Clone)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Creates a generator. The same seed gives the same sequence on every machine.
    pub fn from_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Returns a random number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Returns a number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.u64(..bound) }
    }

    /// Puts `items` into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// Returns one of `items`; `None` if there are none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(usize::saturating_from(self.below(items.len() as u64)))
    }

    /// Splits off an independent generator, so that one consumer's draws do not change another's.
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }
}
