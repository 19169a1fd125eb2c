//! The steps of a choice, in the order of the picker's module documentation.

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;
use std::time::Duration;

use super::assembly::{Assembly, Block, MAX_COPIES};
use super::buckets::WANTED;
use super::pick_cache::Shortlist;
use super::{DuplicateRequest, Need, PickRequest, Picker, Selection, Stage, Trust};
use piecework_core::{Moment, PieceIndex, Rng};

impl PickRequest<'_> {
    /// Returns how much a block that others owe and that is due at `due` needs this peer.
    fn need_of(&self, block: &Block, due: Moment, now: Moment) -> Need {
        if due <= now || block.is_loose() {
            Need::Overdue
        } else if self.trust == Trust::Proven && due > now + self.pace.first * 2 + WORTH {
            Need::Far
        } else {
            Need::None
        }
    }
}

impl Picker {
    /// Step 1: the piece that the peer is filling.
    pub(super) fn fill_own(
        &mut self,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        while let Some(piece) = request.cache.mine.last() {
            if let Stage::Begun(slot) = self.stage(*piece) {
                let assembly = &mut self.begun[slot as usize];
                let is_mine = assembly.owner == Some(request.key);
                if is_mine && assembly.has_for(request) {
                    assembly.take_front(request, want, now, &self.geometry, out);
                    self.settle(slot);
                    return true;
                }
                if is_mine && assembly.sole {
                    // It stays the only peer to be asked if it fails to send a block: keep the piece on the
                    // list, behind those with free blocks.
                    let free = |piece: &PieceIndex| match self.stage(*piece) {
                        Stage::Begun(slot) => {
                            let other = &self.begun[slot as usize];
                            other.owner == Some(request.key) && other.has_for(request)
                        }
                        Stage::Held | Stage::Open | Stage::Parked | Stage::Skipped => false,
                    };
                    let Some(at) = request.cache.mine.iter().position(free) else { return false };
                    let last = request.cache.mine.len() - 1;
                    request.cache.mine.swap(at, last);
                    continue;
                }
                if is_mine {
                    // Late blocks are left, none of them for this peer. It is not on the peer's list any more, so
                    // its owner would remain when the peer leaves.
                    assembly.owner = None;
                }
            }
            request.cache.mine.pop();
        }
        false
    }

    /// Step 2: a piece that nobody fills any more.
    pub(super) fn adopt(
        &mut self,
        class: usize,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        let orphan = {
            let mut orphans =
                self.fillable_of(class, request).filter(|(_, assembly)| assembly.owner.is_none());
            match self.sequential {
                true => orphans.min_by_key(|(_, assembly)| assembly.piece),
                false => orphans.next(),
            }
        };
        let Some(slot) = orphan.map(|(slot, _)| slot) else { return false };
        let assembly = &mut self.begun[slot as usize];
        assembly.owner = Some(request.key);
        request.cache.mine.push(assembly.piece);
        assembly.take_front(request, want, now, &self.geometry, out);
        self.settle(slot);
        true
    }

    /// Step 3: an open piece.
    pub(super) fn begin_next(
        &mut self,
        class: usize,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        rng: &mut Rng,
        out: &mut Selection,
    ) -> bool {
        if !self.has_room() {
            self.lacks_memory |= !self.buckets.is_class_empty(class);
            return false;
        }
        let Some(piece) = self.choose(class, request, rng) else { return false };
        self.begin_for(piece, request, want, now, out)
    }

    /// Step 4: half of the free blocks of the piece that is furthest from its end. In sequential order
    /// it is the first piece, unless the peer is snubbed.
    pub(super) fn share(
        &mut self,
        class: usize,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        let shared = self.fillable_of(class, request).filter(|(_, assembly)| !assembly.sole);
        let snubbed = request.is_snubbed();
        let loose = request.takes_late_blocks();
        let shared = match self.sequential && !snubbed {
            true => shared.min_by_key(|(_, assembly)| assembly.piece),
            false => shared.max_by_key(|(_, assembly)| assembly.open(loose)),
        };
        let Some(slot) = shared.map(|(slot, _)| slot) else { return false };
        let assembly = &mut self.begun[slot as usize];
        let half = (assembly.open(loose) as usize).div_ceil(2);
        assembly.take_back(request, want.min(half), now, &self.geometry, out);
        self.settle(slot);
        true
    }

    /// Step 5: blocks that others owe. A peer that gives blocks takes whatever it can give sooner. Of
    /// blocks that are under way, it takes a few at a time, so that few come twice.
    pub(super) fn double_up(
        &mut self,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        let proven = request.trust == Trust::Proven;
        if !request.idle && !proven {
            return false;
        }
        let endgame = self.is_endgame();
        // While many other pieces may be begun, a second copy of a block takes the place of a block that
        // another peer lacks. A request that is lost makes its block loose, and so free for others.
        let many = self.geometry.pieces() >= MANY_PIECES;
        if many && !endgame && self.has_room() && !self.sequential {
            return false;
        }
        // Looking at few blocks costs little.
        let is_cheap = endgame || self.in_memory <= FEW_BLOCKS;
        if !is_cheap && now < request.cache.next_scan {
            out.retry = Some(request.cache.next_scan);
            return false;
        }
        let pause = if self.has_room() { SCAN_PAUSE } else { SHORT_SCAN_PAUSE };
        // All looks together cost about the same whether a hundred peers have room or thousands.
        request.cache.next_scan = now + pause * (1 + self.eager / CROWD);
        self.doubles.clear();
        for (slot, assembly) in &self.begun {
            if assembly.asked == 0 || assembly.sole || !request.holds.contains(assembly.piece) {
                continue;
            }
            for (index, block) in assembly.blocks.iter().enumerate() {
                let Block::Asked { by, copies, late, due } = block else { continue };
                let by = &by[..usize::from(*copies)];
                let need = request.need_of(block, *due, now);
                if by.contains(&request.key)
                    || (by.len() + 1 >= MAX_COPIES && !request.takes_last_copy())
                {
                    continue;
                }
                // One late request may make way for a peer that gives the block much sooner.
                let is_full = by.len() == MAX_COPIES && (need == Need::None || *late == 0);
                let may_take = need != Need::None || (endgame && request.idle && by.len() == 1);
                if need != Need::Overdue && (is_full || !may_take) {
                    let due = (*due).max(request.cache.next_scan);
                    out.retry = Some(out.retry.map_or(due, |retry| retry.min(due)));
                    continue;
                }
                let age = i128::saturating_from(due.since_start().as_nanos());
                self.doubles.push(DuplicateRequest {
                    need,
                    copies: *copies,
                    order: if need == Need::Overdue { age } else { -age },
                    index: Reverse(u32::saturating_from(index)),
                    slot: u32::saturating_from(slot),
                });
            }
        }
        self.take_doubles(request, want, now, out)
    }

    /// Requests the best of the blocks that were found.
    fn take_doubles(
        &mut self,
        request: &PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        let needed = self.doubles.iter().filter(|double| double.need != Need::None).count();
        let most = match request.trust {
            Trust::Proven if needed > 0 => needed,
            _ => DOUBLES_AT_A_TIME.min(self.doubles.len()),
        };
        let count = most.min(want);
        if count == 0 {
            return false;
        }
        if count < self.doubles.len() {
            self.doubles.select_nth_unstable(count - 1);
            self.doubles.truncate(count);
        }
        self.doubles.sort_unstable_by_key(|double| (double.slot, double.index.0));
        let due = request.due(now, out.blocks.len() + count);
        for at in 0..self.doubles.len() {
            let DuplicateRequest { slot, index, .. } = self.doubles[at];
            self.begun[slot as usize].double(index.0, request, due, out);
            out.blocks.push(self.geometry.block(self.begun[slot as usize].piece, index.0));
            self.settle(slot);
        }
        true
    }

    /// Makes room when memory is full of pieces that wait for other peers and this peer has nothing to do:
    /// gives up one piece that has only late requests under way.
    pub(super) fn make_room(
        &mut self,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        rng: &mut Rng,
        out: &mut Selection,
    ) -> bool {
        if self.has_room() || self.begun.iter().any(|(_, assembly)| assembly.verifying) {
            return false;
        }
        let snubbed = request.is_snubbed();
        let stuck = self
            .fillable
            .iter()
            .copied()
            .filter(|slot| {
                let assembly = &self.begun[*slot as usize];
                // For a snubbed peer, no piece is given up that another peer may go on with.
                let is_lost = !snubbed || self.availability(assembly.piece) == 0;
                assembly.asked == assembly.loose && assembly.owner.is_none() && is_lost
            })
            .min_by_key(|slot| {
                let assembly = &self.begun[*slot as usize];
                (self.availability(assembly.piece).min(1), assembly.kept())
            });
        let Some(slot) = stuck else { return false };
        let next = self.buckets.classes().find_map(|class| self.choose(class, request, rng));
        let Some(piece) = next else { return false };
        let dropped = self.abandon(slot, false);
        out.give_up(dropped);
        if !self.has_room() {
            // The budget has shrunk. The next idle peer gives up the next one.
            return false;
        }
        self.begin_for(piece, request, want, now, out)
    }

    /// Begins a piece and requests its first blocks. A snubbed peer does not own it.
    fn begin_for(
        &mut self,
        piece: PieceIndex,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) -> bool {
        let slot = self.begin(piece, request, (!request.is_snubbed()).then_some(false));
        self.begun[slot as usize].take_front(request, want, now, &self.geometry, out);
        self.settle(slot);
        true
    }

    /// Returns the begun pieces of a class that the peer holds and that have blocks it may be asked for.
    fn fillable_of(
        &self,
        class: usize,
        request: &PickRequest<'_>,
    ) -> impl Iterator<Item = (u32, &Assembly)> {
        let fillable = self.fillable.iter().map(|slot| (*slot, &self.begun[*slot as usize]));
        fillable.filter(move |(_, assembly)| {
            self.buckets.priority(assembly.piece) == WANTED[class]
                && request.holds.contains(assembly.piece)
                && !request.cache.has_refused(assembly.piece)
                && assembly.has_for(request)
        })
    }

    /// Returns the open piece of a class that the peer is to begin.
    fn choose(
        &mut self,
        class: usize,
        request: &mut PickRequest<'_>,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        if self.buckets.is_class_empty(class) {
            return None;
        }
        if self.sequential {
            return self.buckets.first_in(class, request.holds);
        }
        if let Some(piece) = self.take_suggested(class, request) {
            return Some(piece);
        }
        let list = &request.cache.shortlists[class];
        if list.complete_at == Some(self.reopened) && list.pieces.is_empty() {
            return None;
        }
        let found = if self.held < RANDOM_FIRST_PIECES {
            self.probe_anywhere(class, request, rng)
        } else {
            self.probe_rarest(class, request, rng)
        };
        found.or_else(|| self.consult_shortlist(class, request, rng))
    }

    /// Returns the piece of that class that the peer suggested first.
    fn take_suggested(&self, class: usize, request: &mut PickRequest<'_>) -> Option<PieceIndex> {
        let holds = request.holds;
        let may_begin = |piece: PieceIndex| self.buckets.is_open(piece) && holds.contains(piece);
        let suggested = &mut request.cache.suggested;
        while suggested.front().is_some_and(|piece| !may_begin(*piece)) {
            suggested.pop_front();
        }
        let is_of_class = |piece: &PieceIndex| {
            self.buckets.priority(*piece) == WANTED[class] && may_begin(*piece)
        };
        let at = suggested.iter().position(is_of_class)?;
        suggested.remove(at)
    }

    /// Returns a random piece that the peer holds. All are equally likely if it holds most.
    fn probe_anywhere(
        &self,
        class: usize,
        request: &PickRequest<'_>,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        (0..MAX_PROBES).find_map(|_| {
            let piece = PieceIndex(*rng.choose(self.buckets.all_of(class))?);
            request.holds.contains(piece).then_some(piece)
        })
    }

    /// Returns the rarest piece that the peer holds, if a few looks find it.
    fn probe_rarest(
        &self,
        class: usize,
        request: &PickRequest<'_>,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        let mut probes = 0;
        // A peer that is no seed cannot give what only seeds hold.
        let first = usize::from(!request.holds.is_full());
        for bucket in self.buckets.runs_from(class, first) {
            if bucket.is_empty() {
                continue;
            }
            let start = usize::saturating_from(rng.below(bucket.len() as u64));
            for piece in bucket[start..].iter().chain(&bucket[..start]) {
                if request.holds.contains(PieceIndex(*piece)) {
                    return Some(PieceIndex(*piece));
                }
                probes += 1;
                if probes == MAX_PROBES {
                    return None;
                }
            }
        }
        None
    }

    /// Returns the rarest piece of a list made earlier, or made now from all open pieces.
    fn consult_shortlist(
        &self,
        class: usize,
        request: &mut PickRequest<'_>,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        let Shortlist { pieces, complete_at } = &mut request.cache.shortlists[class];
        loop {
            while let Some(piece) = pieces.pop() {
                if self.buckets.is_open(PieceIndex(piece)) {
                    return Some(PieceIndex(piece));
                }
            }
            if *complete_at == Some(self.reopened) {
                return None;
            }
            pieces.extend(self.buckets.open_in(class, request.holds));
            rng.shuffle(pieces);
            let rarity = |piece: &u32| self.buckets.count(PieceIndex(*piece));
            *complete_at = (pieces.len() <= SHORTLIST).then_some(self.reopened);
            if pieces.len() > SHORTLIST {
                pieces.select_nth_unstable_by_key(SHORTLIST, rarity);
                pieces.truncate(SHORTLIST);
            }
            pieces.sort_by_key(|piece| Reverse(rarity(piece)));
        }
    }
}

/// How many pieces are taken at random before the rarest come first: enough to have something to trade.
const RANDOM_FIRST_PIECES: u32 = 4;

/// How many single pieces are looked at before all open ones are gone through. 100,000 pieces are 1,600
/// words, which is about as much work.
const MAX_PROBES: u32 = 256;

/// In a torrent of fewer pieces, the end is always near.
const MANY_PIECES: u32 = 64;

/// How many pieces are remembered of such a pass.
const SHORTLIST: usize = 64;

/// How many blocks that may be under way are requested a second time at once.
const DOUBLES_AT_A_TIME: usize = 4;

/// If memory holds no more blocks than this, all blocks that others owe are looked at whenever a peer has
/// room for them. A thousand peers may have room at a time, and each look visits all blocks.
const FEW_BLOCKS: u64 = 64;

/// Time between two looks at all blocks that others owe, outside the endgame.
const SCAN_PAUSE: Duration = Duration::from_millis(500);

/// The same while no piece may be begun because memory is full, so that only blocks that others owe are
/// left.
const SHORT_SCAN_PAUSE: Duration = Duration::from_millis(100);

/// Above this many peers with room, each peer looks less often. It is more than a torrent has by default.
const CROWD: u32 = 100;

/// A block is worth requesting once more if it then comes sooner by this much.
const WORTH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::PeerKey;
    use crate::picker::{AbandonedPiece, DeliveryEstimate, PickCache};
    use crate::wants::Priorities;
    use piecework_core::{BLOCK_LEN, Bitfield, Geometry, Priority};

    const PIECES: u32 = 70;

    fn random_bits(rng: &mut Rng) -> Bitfield {
        let density = rng.below(101);
        let mut bits = Bitfield::empty(PIECES);
        for piece in 0..PIECES {
            if rng.below(100) < density {
                bits.insert(PieceIndex(piece));
            }
        }
        bits
    }

    fn random_priorities(rng: &mut Rng) -> Priorities {
        let list = (0..PIECES).map(|_| match rng.below(6) {
            0 => Priority::Skip,
            1 => Priority::Low,
            2 => Priority::High,
            _ => Priority::Normal,
        });
        Priorities::new(list.collect())
    }

    proptest! {
        /// Compared with the obvious way: of the pieces of the highest priority that the peer holds, look
        /// for the one that the fewest peers hold, or for the first.
        #[test]
        fn begun_pieces_are_always_the_best_that_the_peer_holds(seed in any::<u64>()) {
            let mut rng = Rng::from_seed(seed);
            let geometry =
                Geometry::new(u64::from(PIECES) * u64::from(BLOCK_LEN), BLOCK_LEN).unwrap();
            let mut held = Bitfield::empty(PIECES);
            (0..RANDOM_FIRST_PIECES).for_each(|piece| { held.insert(PieceIndex(piece)); });
            let mut priorities = Priorities::default();
            let mut sequential = false;
            let mut picker =
                Picker::new(geometry, &held, priorities.clone(), u32::MAX, &mut rng);
            let mut peers: Vec<(Bitfield, PickCache)> =
                (0..6).map(|_| (random_bits(&mut rng), PickCache::default())).collect();
            peers.iter().for_each(|(holds, _)| picker.add_peer(holds));
            let mut begun = held.clone();
            for _ in 0..200 {
                let at = rng.below(peers.len() as u64) as usize;
                let key = PeerKey(at as u32);
                let mut out = Selection::default();
                match rng.below(40) {
                    0..=9 => {
                        let piece = PieceIndex(rng.below(u64::from(PIECES)) as u32);
                        let (holds, cache) = &mut peers[at];
                        if holds.insert(piece) {
                            picker.peer_got(piece, holds.is_full());
                            picker.update_cache(cache, piece);
                        }
                        continue;
                    }
                    10 => {
                        priorities = random_priorities(&mut rng);
                        picker.set_priorities(&priorities, |_| false, &mut rng, &mut out);
                        peers.iter_mut().for_each(|(_, cache)| cache.forget());
                        for AbandonedPiece { piece, .. } in out.dropped {
                            prop_assert!(!priorities.of(piece).is_wanted());
                            prop_assert!(begun.remove(piece), "dropped, never begun");
                        }
                        let is_lost = |p: &PieceIndex| {
                            !held.contains(*p) && !priorities.of(*p).is_wanted()
                        };
                        prop_assert_eq!(begun.iter().find(is_lost), None);
                        continue;
                    }
                    11 => {
                        sequential = !sequential;
                        picker.set_sequential(sequential);
                        continue;
                    }
                    _ => {}
                }
                let rank = |peers: &[(Bitfield, PickCache)], piece: PieceIndex| {
                    let rarity = peers.iter().filter(|(holds, _)| holds.contains(piece)).count();
                    let within = if sequential { piece.0 as usize } else { rarity };
                    (Reverse(priorities.of(piece)), within)
                };
                let best = (0..PIECES)
                    .map(PieceIndex)
                    .filter(|piece| !begun.contains(*piece) && peers[at].0.contains(*piece))
                    .filter(|piece| priorities.of(*piece).is_wanted())
                    .map(|piece| rank(&peers, piece))
                    .min();
                let (holds, cache) = &mut peers[at];
                let (trust, pace) = (Trust::Proven, DeliveryEstimate::default());
                let mut request = PickRequest { key, holds, cache, idle: false, trust, pace };
                picker.pick(&mut request, 1, Moment::START, &mut rng, &mut out);
                match out.blocks.as_slice() {
                    [] => prop_assert_eq!(best, None),
                    [block] => {
                        prop_assert!(begun.insert(block.piece), "asked for twice");
                        prop_assert!(peers[at].0.contains(block.piece));
                        prop_assert_eq!(Some(rank(&peers, block.piece)), best);
                    }
                    more => prop_assert!(false, "{:?}", more),
                }
            }
        }
    }
}
