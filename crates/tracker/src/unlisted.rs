//! Torrents that were unlisted when they were removed. Peers still announce them, and public logs must not show that
//! either.

use std::collections::{BTreeMap, HashMap};

use piecework_core::InfoHash;

/// The last torrents that were removed while they were unlisted. The oldest are forgotten.
#[derive(Default)]
pub(super) struct RemovedUnlisted {
    /// The sequence number of each torrent.
    known: HashMap<InfoHash, u64>,
    /// The torrents by sequence number.
    order: BTreeMap<u64, InfoHash>,
    last: u64,
}

impl RemovedUnlisted {
    /// Adds a torrent as the last one removed.
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

    /// Forgets a torrent that is listed now.
    pub(super) fn forget(&mut self, info_hash: InfoHash) {
        if let Some(number) = self.known.remove(&info_hash) {
            self.order.remove(&number);
        }
    }

    /// Returns whether a torrent is remembered.
    pub(super) fn contains(&self, info_hash: InfoHash) -> bool {
        self.known.contains_key(&info_hash)
    }
}

/// The maximum number of torrents: one MiB.
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
