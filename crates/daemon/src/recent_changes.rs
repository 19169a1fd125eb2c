//! An index of the torrents that changed lately.

use std::collections::BTreeSet;

use piecework_core::InfoHash;

/// Torrents that changed in the last minutes, by time. Earlier changes are dropped, so that the index stays
/// small.
#[derive(Debug, Default)]
pub(super) struct RecentChanges {
    changed: BTreeSet<(i64, InfoHash)>,
    /// `changed` has every change since then.
    complete_from: i64,
}

impl RecentChanges {
    /// Records that a torrent has changed `now` and before that at `changed_at`, in seconds since
    /// 1970.
    pub(crate) fn note(&mut self, info_hash: InfoHash, changed_at: &mut i64, now: i64) {
        self.changed.remove(&(*changed_at, info_hash));
        *changed_at = now;
        self.changed.insert((now, info_hash));
        let oldest = now.saturating_sub(KEPT);
        while let Some((at, _)) = self.changed.first().filter(|(at, _)| *at < oldest) {
            self.complete_from = self.complete_from.max(at.saturating_add(1));
            self.changed.pop_first();
        }
    }

    /// Removes a torrent that last changed at `changed_at`.
    pub(crate) fn remove(&mut self, info_hash: InfoHash, changed_at: i64) {
        self.changed.remove(&(changed_at, info_hash));
    }

    /// Returns the torrents that changed at `then` or later; `None` if that is not known any more.
    pub(crate) fn since(&self, then: i64) -> Option<impl Iterator<Item = InfoHash> + '_> {
        let known = then >= self.complete_from;
        known.then(|| self.changed.range((then, InfoHash([0; 20]))..).map(|(_, hash)| *hash))
    }
}

/// Seconds for which changes are kept: ten times what remotes for Transmission ask for.
const KEPT: i64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_lately_is_known_once_and_the_rest_is_forgotten() {
        let (mut recent, mut times) = (RecentChanges::default(), [0; 300]);
        let hash = |n: usize| InfoHash([n as u8; 20]);
        let since =
            |recent: &RecentChanges, then| recent.since(then).map(|it| it.collect::<Vec<_>>());
        for (n, time) in times.iter_mut().enumerate().take(200) {
            recent.note(hash(n), time, 1_000);
        }
        recent.note(hash(3), &mut times[3], 1_500);
        recent.note(hash(3), &mut times[3], 1_550);
        assert_eq!(since(&recent, 1_500).unwrap(), [hash(3)]);
        assert_eq!(since(&recent, 900).unwrap().len(), 200);
        recent.note(hash(7), &mut times[7], 1_700);
        assert_eq!(recent.changed.len(), 2, "those of 1,000 are too old");
        assert_eq!(since(&recent, 1_000), None);
        assert_eq!(since(&recent, 1_001).unwrap(), [hash(3), hash(7)]);
        recent.remove(hash(3), times[3]);
        assert_eq!(since(&recent, 1_001).unwrap(), [hash(7)]);
    }

    #[test]
    fn a_clock_that_jumps_loses_nothing_that_changed() {
        let (mut recent, mut one, mut other) = (RecentChanges::default(), 0, 0);
        recent.note(InfoHash([1; 20]), &mut one, 5_000);
        recent.note(InfoHash([2; 20]), &mut other, 9_000_000);
        // Back again: what is not known for sure is not told as known.
        recent.note(InfoHash([1; 20]), &mut one, 5_100);
        assert!(recent.since(5_000).is_none());
        assert_eq!(recent.since(5_100).unwrap().count(), 2);
    }
}
