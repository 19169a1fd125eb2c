//! Which torrents changed lately, without a look at all of them.

use std::collections::BTreeSet;

use piecework_core::InfoHash;

/// Torrents that changed in the last minutes, by the time at which they did. What changed earlier is
/// forgotten, so that it is as long as what happens.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changed: BTreeSet<(i64, InfoHash)>,
    /// Every change since then is in `changed`.
    complete_from: i64,
}

impl Recent {
    /// A torrent that changed at `changed_at` last has changed `now`; both are seconds since 1970.
    pub fn note(&mut self, info_hash: InfoHash, changed_at: &mut i64, now: i64) {
        self.changed.remove(&(*changed_at, info_hash));
        *changed_at = now;
        self.changed.insert((now, info_hash));
        let oldest = now.saturating_sub(KEPT);
        while let Some((at, _)) = self.changed.first().filter(|(at, _)| *at < oldest) {
            self.complete_from = self.complete_from.max(at.saturating_add(1));
            self.changed.pop_first();
        }
    }

    /// A torrent that changed at `changed_at` last is gone.
    pub fn remove(&mut self, info_hash: InfoHash, changed_at: i64) {
        self.changed.remove(&(changed_at, info_hash));
    }

    /// The torrents that changed at `then` or later; `None` if that is not known any more.
    pub fn since(&self, then: i64) -> Option<impl Iterator<Item = InfoHash> + '_> {
        let known = then >= self.complete_from;
        known.then(|| self.changed.range((then, InfoHash([0; 20]))..).map(|(_, hash)| *hash))
    }
}

/// Seconds for which changes are known: ten times what remotes for Transmission ask for.
const KEPT: i64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_lately_is_known_once_and_the_rest_is_forgotten() {
        let (mut recent, mut times) = (Recent::default(), [0; 300]);
        let hash = |n: usize| InfoHash([n as u8; 20]);
        let since = |recent: &Recent, then| recent.since(then).map(|it| it.collect::<Vec<_>>());
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
        let (mut recent, mut one, mut other) = (Recent::default(), 0, 0);
        recent.note(InfoHash([1; 20]), &mut one, 5_000);
        recent.note(InfoHash([2; 20]), &mut other, 9_000_000);
        // Back again: what is not known for sure is not told as known.
        recent.note(InfoHash([1; 20]), &mut one, 5_100);
        assert!(recent.since(5_000).is_none());
        assert_eq!(recent.since(5_100).unwrap().count(), 2);
    }
}
