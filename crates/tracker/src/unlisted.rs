//! Which torrents were unlisted when they were removed: peers go on to announce them, and no public
//! log is to tell of that either.

use std::collections::{BTreeMap, HashMap};

use piecework_core::InfoHash;

/// The last torrents that were removed while they were unlisted; the oldest are forgotten.
#[derive(Default)]
pub(super) struct RemovedUnlisted {
    /// When each was remembered, as a number that rises.
    known: HashMap<InfoHash, u64>,
    /// The same by that number.
    order: BTreeMap<u64, InfoHash>,
    last: u64,
}

impl RemovedUnlisted {
    /// Remembers a torrent as the last one removed.
    pub(super) fn remember(&mut self, info_hash: InfoHash) {
        self.forget(info_hash);
        self.last += 1;
        self.known.insert(info_hash, self.last);
        self.order.insert(self.last, info_hash);
        if self.order.len() > KEPT
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    /// Forgets a torrent: it is listed now.
    pub(super) fn forget(&mut self, info_hash: InfoHash) {
        if let Some(number) = self.known.remove(&info_hash) {
            self.order.remove(&number);
        }
    }

    /// Whether it is remembered.
    pub(super) fn contains(&self, info_hash: InfoHash) -> bool {
        self.known.contains_key(&info_hash)
    }
}

/// Torrents remembered: one MiB at most.
const KEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> InfoHash {
        let mut hash = [0; 20];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        InfoHash(hash)
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut removed = RemovedUnlisted::default();
        (0..KEPT).for_each(|n| removed.remember(hash(n)));
        removed.remember(hash(0));
        assert!(removed.contains(hash(1)), "one that is remembered again takes no more room");
        removed.remember(hash(KEPT));
        assert!(removed.contains(hash(0)) && removed.contains(hash(KEPT)));
        assert!(!removed.contains(hash(1)), "it was the oldest");
        assert_eq!((removed.known.len(), removed.order.len()), (KEPT, KEPT));
        removed.forget(hash(2));
        assert!(!removed.contains(hash(2)));
        assert_eq!((removed.known.len(), removed.order.len()), (KEPT - 1, KEPT - 1));
    }
}
