//! The timers of peers.
//!
//! Most events move a peer's deadline into the future. That is not recorded here: a peer whose timer fires
//! too early is put back. So the cost of an event does not depend on the number of peers, and a block costs
//! nothing here.

use std::collections::BTreeSet;

use super::PeerKey;
use piecework_core::Moment;

/// One time for each peer, no later than its deadline. Every operation costs the logarithm of the number of
/// peers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Moment, PeerKey)>,
}

impl Timers {
    pub(super) fn insert(&mut self, at: Moment, key: PeerKey) {
        self.queue.insert((at, key));
    }

    pub(super) fn remove(&mut self, at: Moment, key: PeerKey) {
        self.queue.remove(&(at, key));
    }

    /// Returns the earliest time.
    pub(super) fn next(&self) -> Option<Moment> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Removes and returns a peer whose time has come, the earliest first.
    pub(super) fn pop_due(&mut self, now: Moment) -> Option<PeerKey> {
        let (at, key) = self.queue.first().copied().filter(|(at, _)| *at <= now)?;
        self.queue.remove(&(at, key));
        Some(key)
    }

    pub(super) fn contains(&self, at: Moment, key: PeerKey) -> bool {
        self.queue.contains(&(at, key))
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_due_comes_out_earliest_first_and_nobody_else() {
        let at = |seconds| Moment::START + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        for (seconds, key) in [(3, 1), (1, 2), (2, 3), (2, 4), (9, 5)] {
            timers.insert(at(seconds), PeerKey(key));
        }
        timers.remove(at(2), PeerKey(4));
        assert_eq!(timers.next(), Some(at(1)));
        let due: Vec<u32> = std::iter::from_fn(|| timers.pop_due(at(3))).map(|key| key.0).collect();
        assert_eq!(due, [2, 3, 1]);
        assert_eq!((timers.len(), timers.next()), (1, Some(at(9))));
        assert!(timers.contains(at(9), PeerKey(5)));
    }
}
