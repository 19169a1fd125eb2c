//! The order of the queue.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, BTreeSet};

use piecework_core::InfoHash;

/// Torrents in order, each with a rank that increases along the queue. The ranks are saved: moving a few
/// torrents changes only the ranks of those few and of those they pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    items: Vec<(i64, InfoHash)>,
}

/// Where torrents are moved to in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// To the front.
    Top,
    /// One place forward.
    Up,
    /// One place back.
    Down,
    /// To the end.
    Bottom,
}

impl Order {
    /// Returns an order from saved ranks. Equal ranks, which only a damaged state has, are made
    /// different.
    pub fn new(mut items: Vec<(i64, InfoHash)>) -> Self {
        items.sort();
        for at in 1..items.len() {
            let before = items[at - 1].0;
            if items[at].0 <= before {
                items[at].0 = before.saturating_add(1);
            }
        }
        Self { items }
    }

    /// Appends a torrent and returns its rank.
    pub fn push(&mut self, info_hash: InfoHash) -> i64 {
        let rank = self.items.last().map_or(0, |(rank, _)| rank.saturating_add(1));
        self.items.push((rank, info_hash));
        rank
    }

    /// Replaces the torrent of `rank`.
    pub fn replace(&mut self, rank: i64, info_hash: InfoHash) {
        if let Ok(at) = self.find(rank) {
            self.items[at].1 = info_hash;
        }
    }

    /// Removes the torrent of `rank`.
    pub fn remove(&mut self, rank: i64) {
        if let Ok(at) = self.find(rank) {
            self.items.remove(at);
        }
    }

    /// Moves torrents, which keep their order among each other. Returns the ranks that changed.
    pub fn shift(&mut self, moved: &[InfoHash], to: Shift) -> Vec<(InfoHash, i64)> {
        let moved: BTreeSet<InfoHash> = moved.iter().copied().collect();
        let picked = |item: &(i64, InfoHash)| moved.contains(&item.1);
        let mut hashes: Vec<InfoHash> = self.items.iter().map(|item| item.1).collect();
        match to {
            Shift::Top | Shift::Bottom => {
                let (mut these, mut those): (Vec<_>, Vec<_>) =
                    self.items.iter().copied().partition(picked);
                let changed = if to == Shift::Top {
                    let first = those.first().map_or(0, |item| item.0);
                    let begin = first.saturating_sub(i64::saturating_from(these.len()));
                    renumber(&mut these, begin)
                } else {
                    let last = those.last().map_or(-1, |item| item.0);
                    renumber(&mut these, last.saturating_add(1))
                };
                self.items = if to == Shift::Top {
                    these.append(&mut those);
                    these
                } else {
                    those.append(&mut these);
                    those
                };
                return changed;
            }
            Shift::Up => {
                for at in 1..hashes.len() {
                    if moved.contains(&hashes[at]) && !moved.contains(&hashes[at - 1]) {
                        hashes.swap(at - 1, at);
                    }
                }
            }
            Shift::Down => {
                for at in (1..hashes.len()).rev() {
                    if moved.contains(&hashes[at - 1]) && !moved.contains(&hashes[at]) {
                        hashes.swap(at - 1, at);
                    }
                }
            }
        }
        self.permute(&hashes)
    }

    /// Moves one torrent to `position`, or to the end if that is beyond it. Returns the ranks that
    /// changed.
    pub fn place(&mut self, info_hash: InfoHash, position: usize) -> Vec<(InfoHash, i64)> {
        let mut hashes: Vec<InfoHash> = self.items.iter().map(|item| item.1).collect();
        let Some(at) = hashes.iter().position(|hash| *hash == info_hash) else {
            return Vec::new();
        };
        hashes.remove(at);
        hashes.insert(position.min(hashes.len()), info_hash);
        self.permute(&hashes)
    }

    /// Returns the position of the torrent of `rank`, from 0.
    pub fn position(&self, rank: i64) -> Option<usize> {
        self.find(rank).ok()
    }

    /// Returns `limit` torrents, from the one at `offset`.
    pub fn page(&self, offset: usize, limit: usize) -> Vec<InfoHash> {
        let behind = self.items.get(offset..).unwrap_or_default();
        behind.iter().take(limit).map(|item| item.1).collect()
    }

    /// Returns all torrents in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = InfoHash> + ExactSizeIterator + '_ {
        self.items.iter().map(|item| item.1)
    }

    /// Sets the ranks of torrents and sorts by them.
    pub fn set_ranks(&mut self, ranks: &[(InfoHash, i64)]) {
        let new: BTreeMap<InfoHash, i64> = ranks.iter().copied().collect();
        for (rank, info_hash) in &mut self.items {
            if let Some(new) = new.get(info_hash) {
                *rank = *new;
            }
        }
        self.items.sort_unstable();
    }

    /// Returns all torrents with their ranks, in order.
    pub fn ranks(&self) -> impl Iterator<Item = (i64, InfoHash)> + '_ {
        self.items.iter().copied()
    }

    /// Permutes the torrents; the ranks stay in their places.
    fn permute(&mut self, hashes: &[InfoHash]) -> Vec<(InfoHash, i64)> {
        let mut changed = Vec::new();
        for (item, hash) in self.items.iter_mut().zip(hashes) {
            if item.1 != *hash {
                item.1 = *hash;
                changed.push((*hash, item.0));
            }
        }
        changed
    }

    fn find(&self, rank: i64) -> Result<usize, usize> {
        self.items.binary_search_by_key(&rank, |item| item.0)
    }
}

fn renumber(items: &mut [(i64, InfoHash)], begin: i64) -> Vec<(InfoHash, i64)> {
    let mut changed = Vec::new();
    for (item, rank) in items.iter_mut().zip(begin..) {
        if item.0 != rank {
            item.0 = rank;
            changed.push((item.1, rank));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(n: u8) -> InfoHash {
        InfoHash([n; 20])
    }

    fn order(n: u8) -> Order {
        let mut order = Order::default();
        for n in 0..n {
            order.push(hash(n));
        }
        order
    }

    fn numbers(order: &Order) -> Vec<u8> {
        order.iter().map(|hash| hash.0[0]).collect()
    }

    #[test]
    fn several_move_together_and_keep_their_order() {
        let moved = [hash(3), hash(1)];
        let after = |to| {
            let mut order = order(5);
            order.shift(&moved, to);
            numbers(&order)
        };
        assert_eq!(after(Shift::Top), [1, 3, 0, 2, 4]);
        assert_eq!(after(Shift::Bottom), [0, 2, 4, 1, 3]);
        assert_eq!(after(Shift::Up), [1, 0, 3, 2, 4]);
        assert_eq!(after(Shift::Down), [0, 2, 1, 4, 3]);
    }

    #[test]
    fn who_is_in_front_already_stays_there() {
        let mut order = order(4);
        assert!(order.shift(&[hash(0), hash(1)], Shift::Up).is_empty());
        assert!(order.shift(&[hash(0), hash(1)], Shift::Top).is_empty());
        assert!(order.shift(&[hash(2), hash(3)], Shift::Down).is_empty());
        assert_eq!(numbers(&order), [0, 1, 2, 3]);
    }

    #[test]
    fn a_page_is_a_part_of_the_order() {
        let order = order(5);
        let page = |offset, limit| order.page(offset, limit);
        assert_eq!(page(1, 3), [hash(1), hash(2), hash(3)]);
        assert_eq!(
            (page(4, usize::MAX), page(5, 1), page(usize::MAX, 1)),
            (vec![hash(4)], vec![], vec![])
        );
        assert_eq!(page(0, usize::MAX), order.iter().collect::<Vec<_>>());
    }

    #[test]
    fn moving_one_to_the_front_changes_one_rank() {
        let mut order = order(100);
        assert_eq!(order.shift(&[hash(70)], Shift::Top).len(), 1);
        assert_eq!(order.place(hash(70), 2).len(), 3);
        assert_eq!(numbers(&order)[..4], [0, 1, 70, 2]);
        order.place(hash(70), 1_000);
        assert_eq!(order.iter().last(), Some(hash(70)));
    }

    proptest! {
        #[test]
        fn kept_ranks_give_the_same_order_again(
            steps in prop::collection::vec((0_u8..4, prop::collection::vec(0_u8..12, 0..5)), 0..20),
        ) {
            let mut order = order(12);
            let mut kept: std::collections::BTreeMap<InfoHash, i64> =
                (0..12).map(|n| (hash(n), i64::from(n))).collect();
            for (step, picked) in steps {
                let picked: Vec<InfoHash> = picked.into_iter().map(hash).collect();
                let to = [Shift::Top, Shift::Up, Shift::Down, Shift::Bottom];
                let before = order.clone();
                let changed = match picked.as_slice() {
                    [one] => order.place(*one, usize::from(step) * 4),
                    more => order.shift(more, to[usize::from(step)]),
                };
                kept.extend(changed);
                // What could not be kept is put back.
                let ranks: Vec<_> = before.ranks().map(|(rank, hash)| (hash, rank)).collect();
                let mut back = order.clone();
                back.set_ranks(&ranks);
                prop_assert_eq!(&back, &before);
                let again = Order::new(kept.iter().map(|(hash, rank)| (*rank, *hash)).collect());
                prop_assert_eq!(&again, &order);
                for (position, hash) in order.iter().enumerate() {
                    prop_assert_eq!(order.position(kept[&hash]), Some(position));
                }
            }
        }

        #[test]
        fn equal_ranks_are_pulled_apart(ranks in prop::collection::vec(-3_i64..3, 0..10)) {
            let items = ranks.iter().zip(0..).map(|(rank, n)| (*rank, hash(n))).collect();
            let order = Order::new(items);
            prop_assert!(order.items.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
