//! Counts records that were not written.

use std::collections::BTreeMap;
use std::sync::Arc;

use piecework_core::InfoHash;
use piecework_core::metainfo::Metainfo;

/// The number of records that were not written, by reason and torrent.
#[derive(Default, Clone)]
pub(super) struct Losses {
    counts: BTreeMap<(&'static str, Option<InfoHash>), Count>,
}

/// The number of records, and their torrent.
type Count = (u64, Option<Arc<Metainfo>>);

impl Losses {
    /// Returns the counts, by reason and torrent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Option<&Metainfo>, u64)> + '_ {
        self.counts.iter().map(|((why, _), (count, torrent))| (*why, torrent.as_deref(), *count))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn of(&self, info_hash: InfoHash) -> u64 {
        let of = |why| self.counts.get(&(why, Some(info_hash))).map_or(0, |(count, _)| *count);
        of(QUEUE) + of(DISK)
    }

    pub(super) fn add(&mut self, why: &'static str, torrent: Option<&Arc<Metainfo>>, count: u64) {
        let key = |torrent: Option<&Arc<Metainfo>>| (why, torrent.map(|it| it.info_hash()));
        if let Some((known, _)) = self.counts.get_mut(&key(torrent)) {
            *known += count;
            return;
        }
        let torrent = torrent.filter(|_| self.counts.len() < MOST_TORRENTS);
        self.counts.entry(key(torrent)).or_insert_with(|| (0, torrent.cloned())).0 += count;
    }

    /// Subtracts what was written to the file.
    pub(super) fn subtract(&mut self, written: &Self) {
        for (key, (count, _)) in &written.counts {
            if let Some((left, _)) = self.counts.get_mut(key) {
                *left -= (*left).min(*count);
            }
        }
        self.counts.retain(|_, (left, _)| *left > 0);
    }
}

/// The queue was full.
pub(super) const QUEUE: &str = "queue";

/// There were more than may be written.
pub(super) const RATE: &str = "rate";

/// The disk failed, and then the queue was full.
pub(super) const DISK: &str = "disk";

/// Torrents whose losses are counted separately until they are written: some 60 bytes each.
const MOST_TORRENTS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::super::tests::torrent;
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    #[test]
    fn losses_are_counted_by_torrent_within_a_bound() {
        let one = torrent();
        let of = |n: u64| {
            let builder = MetainfoBuilder::single_file("a", 32_768 * (n + 1)).piece_len(32_768);
            Arc::new(builder.build(vec![1; 20 * (n as usize + 1)]).unwrap())
        };
        let mut lost = Losses::default();
        lost.add(DISK, Some(&one), 2);
        let others: Vec<_> = (0..100).map(of).collect();
        for _ in 0..2 {
            others.iter().for_each(|torrent| lost.add(DISK, Some(torrent), 1));
        }
        assert_eq!((lost.of(one.info_hash()), lost.of(InfoHash([0; 20]))), (2, 0));
        assert!(others.iter().all(|torrent| lost.of(torrent.info_hash()) == 2));
        // Torrents beyond the bound are counted together.
        for n in 0..MOST_TORRENTS {
            let mut hash = [0; 20];
            hash[..8].copy_from_slice(&(n as u64).to_be_bytes());
            lost.counts.entry((QUEUE, Some(InfoHash(hash)))).or_insert((1, None));
        }
        let size = lost.counts.len();
        for n in 100..110 {
            lost.add(DISK, Some(&of(n)), 3);
        }
        assert_eq!((lost.counts.len(), lost.counts[&(DISK, None)].0), (size + 1, 30));
        let written = lost.clone();
        lost.add(DISK, Some(&one), 5);
        lost.subtract(&written);
        assert_eq!((lost.of(one.info_hash()), lost.counts.len()), (5, 1));
    }
}
