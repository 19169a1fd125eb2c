//! How many bytes unfinished torrents still lack.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::InfoHash;

/// The bytes that each unfinished torrent lacks, as far as known, and their sum.
#[derive(Default)]
pub(super) struct MissingBytes {
    of: HashMap<InfoHash, u64, FixedState>,
    sum: u64,
}

impl MissingBytes {
    /// Records how many bytes a torrent lacks.
    pub(crate) fn note(&mut self, info_hash: InfoHash, bytes: u64) {
        let before = match bytes {
            0 => self.of.remove(&info_hash),
            bytes => self.of.insert(info_hash, bytes),
        };
        // The length in a torrent may be any number.
        let others = self.sum.saturating_sub(before.unwrap_or(0));
        self.sum = others.saturating_add(bytes);
    }

    /// Returns the bytes that all other torrents lack.
    pub(crate) fn of_others(&self, info_hash: InfoHash) -> u64 {
        self.sum.saturating_sub(self.of.get(&info_hash).copied().unwrap_or(0))
    }

    /// Returns the other torrents that lack something, and how many bytes.
    pub(crate) fn others(&self, info_hash: InfoHash) -> impl Iterator<Item = (InfoHash, u64)> + '_ {
        let others = self.of.iter().filter(move |(other, _)| **other != info_hash);
        others.map(|(other, bytes)| (*other, *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_summed_up_as_it_changes() {
        let (one, other) = (InfoHash([1; 20]), InfoHash([2; 20]));
        let mut lacking = MissingBytes::default();
        lacking.note(one, 5);
        lacking.note(other, 7);
        lacking.note(one, 3);
        assert_eq!((lacking.of_others(one), lacking.of_others(other)), (7, 3));
        lacking.note(one, 0);
        lacking.note(one, 0);
        assert_eq!((lacking.of_others(other), lacking.of_others(InfoHash([3; 20]))), (0, 7));
        assert_eq!(lacking.of.len(), 1);
    }
}
