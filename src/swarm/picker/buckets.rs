//! Pieces ordered by how many peers hold them, with moves of constant cost.
//!
//! All pieces that may be begun stand in one array, sorted by availability; a bucket is a run of
//! equals in it. Raising or lowering a piece by one swaps it to the edge of its bucket and moves
//! the edge (the idea is that of libtorrent's piece picker). Peers that hold everything are not
//! counted here: they would shift all pieces alike.

use crate::base::{Bitfield, PieceIndex, Rng};

#[derive(Debug)]
pub(super) struct Buckets {
    /// Open pieces, rarest first.
    order: Vec<u32>,
    /// Where a piece stands in `order`; [`NOWHERE`] if it is not open.
    place: Vec<u32>,
    /// Where each bucket ends in `order`; it begins where the one before ends.
    ends: Vec<u32>,
    /// Peers that hold the piece, open or not, without those that hold everything.
    count: Vec<u32>,
    /// One bit for each open piece, laid out as on the wire.
    open: Vec<u8>,
}

impl Buckets {
    /// Nobody holds anything; all pieces that `held` lacks are open, in random order.
    pub(super) fn new(held: &Bitfield, rng: &mut Rng) -> Self {
        let pieces = held.len() as usize;
        let mut order: Vec<u32> = held.missing().map(|piece| piece.0).collect();
        rng.shuffle(&mut order);
        let mut place = vec![NOWHERE; pieces];
        let mut open = vec![0; pieces.div_ceil(8)];
        for (at, piece) in order.iter().enumerate() {
            place[*piece as usize] = at as u32;
            open[(*piece / 8) as usize] |= bit(*piece);
        }
        let ends = vec![order.len() as u32];
        Self { order, place, ends, count: vec![0; pieces], open }
    }

    /// One more peer holds `piece`.
    pub(super) fn raise(&mut self, piece: PieceIndex) {
        let bucket = self.count[piece.0 as usize] as usize;
        self.count[piece.0 as usize] += 1;
        let at = self.place[piece.0 as usize];
        if at == NOWHERE {
            return;
        }
        if self.ends.len() == bucket + 1 {
            self.ends.push(self.order.len() as u32);
        }
        self.swap(at, self.ends[bucket] - 1);
        self.ends[bucket] -= 1;
    }

    /// One peer fewer holds `piece`.
    pub(super) fn lower(&mut self, piece: PieceIndex) {
        let bucket = self.count[piece.0 as usize] as usize;
        self.count[piece.0 as usize] -= 1;
        let at = self.place[piece.0 as usize];
        if at == NOWHERE {
            return;
        }
        self.swap(at, self.ends[bucket - 1]);
        self.ends[bucket - 1] += 1;
    }

    /// A peer that was counted at every piece is no longer counted at any.
    pub(super) fn lower_all(&mut self) {
        for count in &mut self.count {
            *count -= 1;
        }
        // Every open piece was counted at least once, so the first bucket is empty.
        if self.ends.len() > 1 {
            self.ends.remove(0);
        }
    }

    /// `piece` may be begun (again). Cost: the number of buckets.
    pub(super) fn insert(&mut self, piece: PieceIndex) {
        let bucket = self.count[piece.0 as usize] as usize;
        let mut at = self.order.len() as u32;
        while self.ends.len() <= bucket {
            self.ends.push(at);
        }
        self.order.push(piece.0);
        self.place[piece.0 as usize] = at;
        for above in (bucket + 1..self.ends.len()).rev() {
            self.swap(at, self.ends[above - 1]);
            self.ends[above] += 1;
            at = self.ends[above - 1];
        }
        self.ends[bucket] += 1;
        self.open[(piece.0 / 8) as usize] |= bit(piece.0);
    }

    /// `piece` may not be begun any more. Cost: the number of buckets.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        let mut at = self.place[piece.0 as usize];
        for bucket in self.count[piece.0 as usize] as usize..self.ends.len() {
            let last = self.ends[bucket] - 1;
            self.swap(at, last);
            self.ends[bucket] = last;
            at = last;
        }
        self.order.pop();
        self.place[piece.0 as usize] = NOWHERE;
        self.open[(piece.0 / 8) as usize] &= !bit(piece.0);
    }

    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.place[piece.0 as usize] != NOWHERE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Peers that hold `piece` without holding everything.
    pub(super) fn count(&self, piece: PieceIndex) -> u32 {
        self.count[piece.0 as usize]
    }

    /// The open pieces that at least `rank` peers hold, in runs of equals, rarest first.
    pub(super) fn runs_from(&self, rank: usize) -> impl Iterator<Item = &[u32]> + '_ {
        (rank..self.ends.len()).map(|bucket| {
            let start = if bucket == 0 { 0 } else { self.ends[bucket - 1] };
            &self.order[start as usize..self.ends[bucket] as usize]
        })
    }

    /// The open pieces among those that `held` has, by index. Cost: a sixty-fourth of the pieces.
    pub(super) fn open_in<'a>(&'a self, held: &'a Bitfield) -> impl Iterator<Item = u32> + 'a {
        let (open, held) = (self.open.chunks(8), held.as_wire().chunks(8));
        open.zip(held).enumerate().flat_map(|(index, (open, held))| {
            let mut both = word(open) & word(held);
            std::iter::from_fn(move || {
                let lead = both.leading_zeros();
                if lead == u64::BITS {
                    return None;
                }
                both &= !(1 << (63 - lead));
                Some(index as u32 * 64 + lead)
            })
        })
    }

    /// Panics unless everything fits together.
    pub(super) fn check(&self) {
        assert_eq!(self.ends.last().copied().unwrap_or(0) as usize, self.order.len());
        assert!(self.ends.is_sorted(), "bucket ends fall: {:?}", self.ends);
        let mut start = 0;
        for (bucket, end) in self.ends.iter().enumerate() {
            for at in start..*end {
                let piece = self.order[at as usize];
                assert_eq!(self.place[piece as usize], at, "piece {piece} is lost");
                assert_eq!(self.count[piece as usize] as usize, bucket, "piece {piece}: bucket");
            }
            start = *end;
        }
        for (piece, place) in self.place.iter().enumerate() {
            let is_open = *place != NOWHERE;
            assert_eq!(self.open[piece / 8] & bit(piece as u32) != 0, is_open, "piece {piece}");
        }
        assert_eq!(self.place.iter().filter(|at| **at != NOWHERE).count(), self.order.len());
    }

    fn swap(&mut self, a: u32, b: u32) {
        if a == b {
            return;
        }
        self.order.swap(a as usize, b as usize);
        self.place[self.order[a as usize] as usize] = a;
        self.place[self.order[b as usize] as usize] = b;
    }
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
    }

    fn step(pieces: u32) -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..pieces).prop_map(Step::Raise),
            3 => (0..pieces).prop_map(Step::Lower),
            2 => (0..pieces).prop_map(Step::Toggle),
            1 => Just(Step::AllThenSeed),
        ]
    }

    proptest! {
        #[test]
        fn buckets_agree_with_a_sorted_list(
            steps in proptest::collection::vec(step(13), 0..120),
            seed in any::<u64>(),
        ) {
            let mut buckets = Buckets::new(&Bitfield::empty(13), &mut Rng::from_seed(seed));
            let mut counts = [0u32; 13];
            let mut open = [true; 13];
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
                        } else {
                            buckets.insert(PieceIndex(piece));
                        }
                        open[piece as usize] = !open[piece as usize];
                    }
                    Step::AllThenSeed => {
                        (0..13).for_each(|piece| buckets.raise(PieceIndex(piece)));
                        buckets.check();
                        buckets.lower_all();
                    }
                }
                buckets.check();
                let mut wanted: Vec<u32> = (0..13).filter(|p| open[*p as usize]).collect();
                prop_assert_eq!(
                    buckets.open_in(&Bitfield::full(13)).collect::<Vec<_>>(), wanted.clone());
                let mut got = Vec::new();
                for (rank, bucket) in buckets.runs_from(0).enumerate() {
                    prop_assert!(bucket.iter().all(|p| counts[*p as usize] as usize == rank));
                    got.extend_from_slice(bucket);
                }
                got.sort_unstable();
                wanted.sort_unstable();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
