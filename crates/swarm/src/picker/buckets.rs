//! Pieces ordered by how many peers hold them. Moves have constant cost.
//!
//! All open pieces of one priority are in one array, sorted by availability. A bucket is a run of equal
//! elements in it. Raising or lowering a piece by one swaps it to the edge of its bucket and moves the edge
//! (the idea comes from libtorrent's piece picker). Peers that hold everything are not counted here: they
//! would shift all pieces alike.

use piecework_core::SaturatingFrom;
use std::ops::Range;

use super::super::wants::Priorities;
use piecework_core::{Bitfield, PieceIndex, Priority, Rng};

#[derive(Debug)]
pub(super) struct Buckets {
    priorities: Priorities,
    /// One for each of [`WANTED`]. Empty once everything is held.
    classes: Vec<Class>,
    /// The index of each piece in its class's order, or [`NOWHERE`] if it is not open. Empty once
    /// everything is held.
    place: Vec<u32>,
    /// How many peers hold each piece, open or not, without those that hold everything. Empty as long as
    /// there is nothing to count.
    count: Vec<u32>,
    pieces: u32,
}

/// The open pieces of one priority.
#[derive(Debug, Default)]
struct Class {
    /// Open pieces, rarest first.
    order: Vec<u32>,
    /// Where each bucket ends in `order`. It begins where the one before ends.
    ends: Vec<u32>,
    /// One bit for each open piece, laid out as on the wire. Empty before the first one.
    open: Vec<u8>,
    /// The first so many words of `open` have no open piece.
    front: usize,
}

/// Priorities of pieces that may be begun, the highest first.
pub(super) const WANTED: [Priority; CLASSES] = [Priority::High, Priority::Normal, Priority::Low];

/// The number of classes.
pub(super) const CLASSES: usize = 3;

/// Returns the index of a priority in [`WANTED`]. `None` for skipped pieces.
pub(super) fn class_of(priority: Priority) -> Option<usize> {
    match priority {
        Priority::High => Some(0),
        Priority::Normal => Some(1),
        Priority::Low => Some(2),
        Priority::Skip => None,
    }
}

impl Buckets {
    /// Creates buckets for the case that no peer holds anything. All wanted pieces that `held` lacks are
    /// open, in random order.
    pub(super) fn new(held: &Bitfield, priorities: Priorities, rng: &mut Rng) -> Self {
        let pieces = held.len();
        let place = if held.is_full() { Vec::new() } else { vec![NOWHERE; pieces as usize] };
        let mut buckets =
            Self { priorities, classes: Vec::new(), place, count: Vec::new(), pieces };
        buckets.arrange(held.missing(), rng);
        buckets
    }

    /// Sets the priorities. Missing pieces are open if `is_free` returns true and they are wanted. Costs as
    /// much as sorting all pieces.
    pub(super) fn set_priorities(
        &mut self,
        priorities: Priorities,
        is_free: impl Fn(PieceIndex) -> bool,
        rng: &mut Rng,
    ) {
        self.priorities = priorities;
        self.place.fill(NOWHERE);
        let pieces = u32::saturating_from(self.place.len());
        self.arrange((0..pieces).map(PieceIndex).filter(|piece| is_free(*piece)), rng);
    }

    /// Releases the memory for open pieces. None will ever be open again.
    pub(super) fn retire(&mut self) {
        self.place = Vec::new();
        self.classes = Vec::new();
    }

    /// Releases the memory that counts peers. There are none.
    pub(super) fn forget_counts(&mut self) {
        self.count = Vec::new();
    }

    /// Records that one more peer holds `piece`.
    pub(super) fn raise(&mut self, piece: PieceIndex) {
        if self.count.is_empty() {
            self.count = vec![0; self.pieces as usize];
        }
        let bucket = self.count[piece.0 as usize] as usize;
        self.count[piece.0 as usize] += 1;
        let Some((class, at)) = self.find(piece) else { return };
        let class = &mut self.classes[class];
        if class.ends.len() == bucket + 1 {
            class.ends.push(u32::saturating_from(class.order.len()));
        }
        class.ends[bucket] -= 1;
        let edge = class.ends[bucket];
        swap(&mut class.order, &mut self.place, at, edge);
    }

    /// Records that one peer fewer holds `piece`.
    pub(super) fn lower(&mut self, piece: PieceIndex) {
        let bucket = self.count[piece.0 as usize] as usize;
        self.count[piece.0 as usize] -= 1;
        let Some((class, at)) = self.find(piece) else { return };
        let class = &mut self.classes[class];
        let edge = class.ends[bucket - 1];
        class.ends[bucket - 1] += 1;
        swap(&mut class.order, &mut self.place, at, edge);
    }

    /// Stops counting a peer that was counted at every piece.
    pub(super) fn lower_all(&mut self) {
        for count in &mut self.count {
            *count -= 1;
        }
        // Every open piece was counted at least once, so the first buckets are empty.
        for class in &mut self.classes {
            if class.ends.len() > 1 {
                class.ends.remove(0);
            }
        }
    }

    /// Opens `piece`, which must be wanted. Cost: the number of buckets.
    pub(super) fn insert(&mut self, piece: PieceIndex) {
        let Some(class) = class_of(self.priority(piece)) else { return };
        let bucket = self.count(piece) as usize;
        let class = &mut self.classes[class];
        let mut at = u32::saturating_from(class.order.len());
        while class.ends.len() <= bucket {
            class.ends.push(at);
        }
        class.order.push(piece.0);
        self.place[piece.0 as usize] = at;
        for above in (bucket + 1..class.ends.len()).rev() {
            let edge = class.ends[above - 1];
            swap(&mut class.order, &mut self.place, at, edge);
            class.ends[above] += 1;
            at = edge;
        }
        class.ends[bucket] += 1;
        class.mark_open(piece, self.pieces);
    }

    /// Closes `piece`: it may not be begun any more. Cost: the number of buckets.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        let Some((class, mut at)) = self.find(piece) else { return };
        let first = self.count(piece) as usize;
        let class = &mut self.classes[class];
        for bucket in first..class.ends.len() {
            let last = class.ends[bucket] - 1;
            swap(&mut class.order, &mut self.place, at, last);
            class.ends[bucket] = last;
            at = last;
        }
        class.order.pop();
        self.place[piece.0 as usize] = NOWHERE;
        class.open[(piece.0 / 8) as usize] &= !bit(piece.0);
    }

    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.place.get(piece.0 as usize).is_some_and(|at| *at != NOWHERE)
    }

    /// Returns whether no piece is open.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.order.is_empty())
    }

    /// Returns whether no piece of that class is open.
    pub(super) fn is_class_empty(&self, class: usize) -> bool {
        self.classes.get(class).is_none_or(|class| class.order.is_empty())
    }

    /// Returns the classes that a piece can have.
    pub(super) fn classes(&self) -> Range<usize> {
        // `Normal` has the index 1.
        if self.priorities.are_plain() { 1..2 } else { 0..CLASSES }
    }

    pub(super) fn priority(&self, piece: PieceIndex) -> Priority {
        self.priorities.of(piece)
    }

    pub(super) fn priorities(&self) -> &Priorities {
        &self.priorities
    }

    /// Returns how many peers hold `piece` without holding everything.
    pub(super) fn count(&self, piece: PieceIndex) -> u32 {
        self.count.get(piece.0 as usize).copied().unwrap_or(0)
    }

    /// Returns the open pieces of a class in no particular order.
    pub(super) fn all_of(&self, class: usize) -> &[u32] {
        &self.classes[class].order
    }

    /// Returns the open pieces of a class that at least `rank` peers hold, in runs of equal availability,
    /// rarest first.
    pub(super) fn runs_from(&self, class: usize, rank: usize) -> impl Iterator<Item = &[u32]> + '_ {
        let Class { order, ends, .. } = &self.classes[class];
        (rank..ends.len()).map(|bucket| {
            let start = if bucket == 0 { 0 } else { ends[bucket - 1] };
            &order[start as usize..ends[bucket] as usize]
        })
    }

    /// Returns the open pieces of a class among those that `held` has, by index. Cost: a sixty-fourth of
    /// the pieces.
    pub(super) fn open_in<'a>(
        &'a self,
        class: usize,
        held: &'a Bitfield,
    ) -> impl Iterator<Item = u32> + 'a {
        let (open, held) = (self.classes[class].open.chunks(8), held.as_wire().chunks(8));
        open.zip(held).enumerate().flat_map(|(index, (open, held))| {
            let mut both = word(open) & word(held);
            std::iter::from_fn(move || {
                let lead = both.leading_zeros();
                if lead == u64::BITS {
                    return None;
                }
                both &= !(1 << (63 - lead));
                Some(u32::saturating_from(index) * 64 + lead)
            })
        })
    }

    /// Returns the first open piece of a class that `held` has. Cost: at most a sixty-fourth of the pieces,
    /// and little if `held` has the first ones.
    pub(super) fn first_in(&mut self, class: usize, held: &Bitfield) -> Option<PieceIndex> {
        let Class { open, front, .. } = &mut self.classes[class];
        *front += open.chunks(8).skip(*front).take_while(|open| word(open) == 0).count();
        let (open, held) = (open.chunks(8).skip(*front), held.as_wire().chunks(8).skip(*front));
        let both = open.zip(held).map(|(open, held)| word(open) & word(held));
        let (at, both) = both.enumerate().find(|(_, both)| *both != 0)?;
        Some(PieceIndex(u32::saturating_from(*front + at) * 64 + both.leading_zeros()))
    }

    /// Returns how many entries there is memory for, over all lists.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let Self { classes, place, count, .. } = self;
        let classes = classes
            .iter()
            .map(|class| class.order.capacity() + class.ends.capacity() + class.open.capacity());
        classes.sum::<usize>() + place.capacity() + count.capacity()
    }

    /// Panics unless the state is consistent.
    pub(super) fn check(&self) {
        let mut open = 0;
        for (index, class) in self.classes.iter().enumerate() {
            let Class { order, ends, .. } = class;
            assert_eq!(ends.last().copied().unwrap_or(0) as usize, order.len());
            assert!(ends.is_sorted(), "bucket ends fall: {ends:?}");
            let mut start = 0;
            for (bucket, end) in ends.iter().enumerate() {
                for at in start..*end {
                    let piece = PieceIndex(order[at as usize]);
                    assert_eq!(self.place[piece.0 as usize], at, "piece {piece} is lost");
                    assert_eq!(self.count(piece) as usize, bucket, "piece {piece}: bucket");
                    assert_eq!(class_of(self.priority(piece)), Some(index), "piece {piece}: class");
                }
                start = *end;
            }
            let marked: u32 = class.open.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(marked as usize, order.len(), "pieces marked as open");
            for piece in order {
                assert!(class.open[(*piece / 8) as usize] & bit(*piece) != 0, "piece {piece}");
                assert!(class.front <= (*piece / 64) as usize, "piece {piece}: front");
            }
            open += order.len();
        }
        assert_eq!(self.place.iter().filter(|at| **at != NOWHERE).count(), open, "open pieces");
    }

    /// Opens the wanted ones of `pieces`, and no others.
    fn arrange(&mut self, pieces: impl Iterator<Item = PieceIndex>, rng: &mut Rng) {
        let is_retired = self.place.is_empty();
        self.classes = WANTED.iter().filter(|_| !is_retired).map(|_| Class::default()).collect();
        for piece in pieces {
            if let Some(class) = class_of(self.priority(piece)) {
                let class = &mut self.classes[class];
                class.order.push(piece.0);
                class.mark_open(piece, self.pieces);
            }
        }
        let count = |piece: u32| self.count.get(piece as usize).copied().unwrap_or(0);
        for Class { order, ends, .. } in &mut self.classes {
            rng.shuffle(order);
            order.sort_by_key(|piece| count(*piece));
            for (at, piece) in order.iter().enumerate() {
                self.place[*piece as usize] = u32::saturating_from(at);
                while ends.len() < count(*piece) as usize {
                    ends.push(u32::saturating_from(at));
                }
            }
            if !order.is_empty() {
                ends.push(u32::saturating_from(order.len()));
            }
        }
    }

    /// Returns the class of a piece and its index there, if it is open.
    fn find(&self, piece: PieceIndex) -> Option<(usize, u32)> {
        let at = self.place.get(piece.0 as usize).copied().filter(|at| *at != NOWHERE)?;
        Some((class_of(self.priority(piece))?, at))
    }
}

impl Class {
    fn mark_open(&mut self, piece: PieceIndex, pieces: u32) {
        if self.open.is_empty() {
            self.open = vec![0; pieces.div_ceil(8) as usize];
        }
        self.open[(piece.0 / 8) as usize] |= bit(piece.0);
        self.front = self.front.min((piece.0 / 64) as usize);
    }
}

fn swap(order: &mut [u32], place: &mut [u32], a: u32, b: u32) {
    if a == b {
        return;
    }
    order.swap(a as usize, b as usize);
    place[order[a as usize] as usize] = a;
    place[order[b as usize] as usize] = b;
}

fn bit(piece: u32) -> u8 {
    0x80 >> (piece % 8)
}

fn word(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(whole) => u64::from_be_bytes(whole),
        Err(_) => {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(padded)
        }
    }
}

const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Raise(u32),
        Lower(u32),
        Toggle(u32),
        AllThenSeed,
        /// Every piece's priority from this seed.
        Prioritize(u64),
    }

    const PIECES: u32 = 77;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..PIECES).prop_map(Step::Raise),
            6 => (0..PIECES).prop_map(Step::Lower),
            6 => (0..PIECES).prop_map(Step::Toggle),
            1 => Just(Step::AllThenSeed),
            1 => any::<u64>().prop_map(Step::Prioritize),
        ]
    }

    proptest! {
        #[test]
        fn buckets_agree_with_a_sorted_list(
            steps in proptest::collection::vec(step(), 0..200),
            seed in any::<u64>(),
        ) {
            let mut rng = Rng::from_seed(seed);
            let none = Bitfield::empty(PIECES);
            let mut buckets = Buckets::new(&none, Priorities::default(), &mut rng);
            let mut counts = [0u32; PIECES as usize];
            let mut open = [true; PIECES as usize];
            for step in steps {
                match step {
                    Step::Raise(piece) => {
                        buckets.raise(PieceIndex(piece));
                        counts[piece as usize] += 1;
                    }
                    Step::Lower(piece) if counts[piece as usize] > 0 => {
                        buckets.lower(PieceIndex(piece));
                        counts[piece as usize] -= 1;
                    }
                    Step::Lower(_) => {}
                    Step::Toggle(piece) => {
                        if open[piece as usize] {
                            buckets.remove(PieceIndex(piece));
                        } else if buckets.priority(PieceIndex(piece)).is_wanted() {
                            buckets.insert(PieceIndex(piece));
                        }
                        open[piece as usize] = !open[piece as usize];
                    }
                    Step::AllThenSeed => {
                        (0..PIECES).for_each(|piece| buckets.raise(PieceIndex(piece)));
                        buckets.check();
                        buckets.lower_all();
                    }
                    Step::Prioritize(seed) => {
                        let mut dice = Rng::from_seed(seed);
                        let list = (0..PIECES).map(|_| match dice.below(5) {
                            0 => Priority::Skip,
                            1 => Priority::Low,
                            2 => Priority::High,
                            _ => Priority::Normal,
                        });
                        let priorities = Priorities::new(list.collect());
                        buckets.set_priorities(priorities, |p| open[p.0 as usize], &mut rng);
                    }
                }
                buckets.check();
                let is_open = |piece: &u32| open[*piece as usize];
                let priorities = buckets.priorities().clone();
                let of = |piece: &u32| priorities.of(PieceIndex(*piece));
                let mut held = Bitfield::empty(PIECES);
                for piece in 0..PIECES {
                    if rng.below(4) == 0 {
                        held.insert(PieceIndex(piece));
                    }
                }
                for (class, priority) in WANTED.into_iter().enumerate() {
                    let mut expected: Vec<u32> =
                        (0..PIECES).filter(|p| is_open(p) && of(p) == priority).collect();
                    let full = Bitfield::full(PIECES);
                    let all: Vec<u32> = buckets.open_in(class, &full).collect();
                    prop_assert_eq!(&all, &expected);
                    let mut got = Vec::new();
                    for (rank, bucket) in buckets.runs_from(class, 0).enumerate() {
                        prop_assert!(bucket.iter().all(|p| counts[*p as usize] as usize == rank));
                        got.extend_from_slice(bucket);
                    }
                    got.sort_unstable();
                    prop_assert_eq!(&got, &expected);
                    expected.retain(|piece| held.contains(PieceIndex(*piece)));
                    let first = expected.first().copied().map(PieceIndex);
                    prop_assert_eq!(buckets.first_in(class, &held), first);
                    buckets.check();
                }
            }
        }
    }
}
