//! Which block to ask whom for.
//!
//! A piece is *held*, *open* (missing and not begun), *begun* (an [`Assembly`], its blocks free,
//! asked for, or kept; at last being verified) or *parked* (it came corrupt from several peers
//! and waits for one peer to give it alone). Peers are served in this order:
//!
//! 1. the piece the peer is filling already: whole pieces from one peer finish sooner, are read
//!    in one go at its end, and leave no doubt about who gave what;
//! 2. a piece begun by someone who has left it;
//! 3. the rarest open piece it holds, if memory allows; at random until a few pieces are held,
//!    so that there is soon something to trade;
//! 4. half of what is still free of a piece that someone else fills;
//! 5. blocks that others have been asked for, when everything missing has been (the endgame), or
//!    when whoever was asked is too slow.
//!
//! Memory: a piece is begun only if all blocks of all begun pieces fit into the budget, so
//! whatever is begun can be finished.

mod assembly;
mod buckets;
mod choice;

use std::cmp::Reverse;

use slab::Slab;

pub(super) use self::assembly::{Arrival, Receipt, index_of};
use self::assembly::{Assembly, Block};
use self::buckets::Buckets;
pub(super) use self::choice::Scout;
use super::{Giver, PeerKey};
use crate::base::{Bitfield, BlockRef, Geometry, Moment, PieceIndex, Rng};

/// The state of every piece and of every block of those begun.
#[derive(Debug)]
pub(super) struct Picker {
    geometry: Geometry,
    stage: Vec<Stage>,
    buckets: Buckets,
    /// Peers that hold everything.
    seeds: u32,
    held: u32,
    begun: Slab<Assembly>,
    /// Slots of begun pieces with free blocks.
    fillable: Vec<u32>,
    parked: Vec<PieceIndex>,
    /// Blocks of all begun pieces.
    in_memory: u64,
    budget: u64,
    /// Rises whenever there may be something to ask for that was not there before.
    supply: u64,
    /// Rises whenever a piece becomes open again.
    reopened: u64,
    in_endgame: bool,
    spare: Vec<Vec<Block>>,
    doubles: Vec<Double>,
}

/// A peer that could be asked for something.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) key: PeerKey,
    pub(super) holds: &'a Bitfield,
    pub(super) scout: &'a mut Scout,
    /// It owes us next to nothing.
    pub(super) idle: bool,
    /// It has let us wait too long: it shall begin nothing as long as it can help others.
    pub(super) snubbed: bool,
}

/// What is to be asked for.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) blocks: Vec<BlockRef>,
    /// Begun pieces given up to make room.
    pub(super) dropped: Vec<PieceIndex>,
    /// Bytes kept of those.
    pub(super) wasted: u64,
    /// When blocks that others owe will have been owed for too long.
    pub(super) retry: Option<Moment>,
}

/// A whole piece, its check done.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) givers: Vec<Giver>,
    /// For each block its giver's place in `givers`.
    pub(super) giver_of: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Open,
    Begun(u32),
    Parked,
}

/// A block that could be asked for once more; the least is the best: what is long overdue, else
/// what would come last, since whoever was asked may be about to send the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Double {
    is_fresh: bool,
    copies: u8,
    since: Reverse<Moment>,
    index: Reverse<u32>,
    slot: u32,
}

impl Picker {
    pub(super) fn new(geometry: Geometry, held: &Bitfield, budget: u32, rng: &mut Rng) -> Self {
        let stage = (0..geometry.pieces())
            .map(|piece| match held.contains(PieceIndex(piece)) {
                true => Stage::Held,
                false => Stage::Open,
            })
            .collect();
        Self {
            geometry,
            stage,
            buckets: Buckets::new(held, rng),
            seeds: 0,
            held: held.count(),
            begun: Slab::new(),
            fillable: Vec::new(),
            parked: Vec::new(),
            in_memory: 0,
            budget: u64::from(budget),
            supply: 1,
            reopened: 1,
            in_endgame: false,
            spare: Vec::new(),
            doubles: Vec::new(),
        }
    }

    /// Chooses up to `want` blocks for a peer that has unchoked us. They count as asked.
    pub(super) fn pick(
        &mut self,
        asker: &mut Asker<'_>,
        want: usize,
        now: Moment,
        rng: &mut Rng,
        out: &mut Selection,
    ) {
        if asker.scout.is_dry(self.supply, asker.idle) {
            return;
        }
        while out.blocks.len() < want {
            let left = want - out.blocks.len();
            // Who has let us wait gets no piece of its own as long as it can help with another.
            let found = self.fill_own(asker, left, now, out)
                || (!asker.snubbed && self.adopt(asker, left, now, out))
                || (asker.snubbed && self.share(asker, left, now, out))
                || self.begin_next(asker, left, now, rng, out)
                || self.share(asker, left, now, out);
            if !found {
                let idle = asker.idle && out.blocks.is_empty();
                let helped = idle
                    && (self.double_up(asker, left, now, out)
                        || self.make_room(asker, left, now, rng, out));
                if !helped {
                    asker.scout.mark_dry(self.supply, idle);
                }
                break;
            }
        }
        let endgame = self.is_endgame();
        if endgame && !self.in_endgame {
            self.supply += 1;
        }
        self.in_endgame = endgame;
    }

    /// The same for a peer that serves us nothing but `allowed`.
    pub(super) fn pick_allowed(
        &mut self,
        asker: &mut Asker<'_>,
        allowed: &[PieceIndex],
        want: usize,
        now: Moment,
        out: &mut Selection,
    ) {
        for piece in allowed {
            let left = want - out.blocks.len();
            if left == 0 {
                break;
            }
            if !asker.holds.contains(*piece) {
                continue;
            }
            if self.stage[piece.0 as usize] == Stage::Open && self.has_room() {
                self.begin(*piece, asker, false);
            }
            let Stage::Begun(slot) = self.stage[piece.0 as usize] else { continue };
            let assembly = &mut self.begun[slot as usize];
            let free = assembly.free > 0;
            if free && (assembly.owner == Some(asker.key) || !assembly.sole) {
                assembly.take_front(asker.key, left, now, &self.geometry, &mut out.blocks);
                self.settle(slot);
            }
        }
    }

    /// A block asked of, or late from, a peer came. Only for a block that is still
    /// [missing](Self::misses).
    pub(super) fn keep(&mut self, block: BlockRef, receipt: &Receipt<'_>) -> Arrival {
        let Stage::Begun(slot) = self.stage[block.piece.0 as usize] else {
            return Arrival::default();
        };
        let assembly = &mut self.begun[slot as usize];
        let arrival = assembly.keep(index_of(block), receipt, block.len);
        assembly.verifying = arrival.whole;
        if arrival.whole {
            assembly.owner = None;
        }
        self.settle(slot);
        arrival
    }

    /// `key` will not send the block.
    pub(super) fn unask(&mut self, key: PeerKey, piece: PieceIndex, index: u32) {
        let Stage::Begun(slot) = self.stage[piece.0 as usize] else { return };
        if self.begun[slot as usize].unask(index, key) {
            self.settle(slot);
        }
        // Even a block that others still owe can now be asked of someone else.
        self.supply += 1;
    }

    /// `key` fills no piece any more. Pieces it was to give alone are given up, with all that is
    /// still asked of it there, and parked again: they come out.
    pub(super) fn disown(&mut self, key: PeerKey, scout: &mut Scout, out: &mut Selection) {
        for piece in scout.mine.drain(..) {
            let Stage::Begun(slot) = self.stage[piece.0 as usize] else { continue };
            let assembly = &mut self.begun[slot as usize];
            if assembly.owner != Some(key) || assembly.verifying {
                continue;
            }
            if assembly.sole {
                out.wasted += assembly.bytes();
                out.dropped.push(piece);
                self.abandon(slot, true);
            } else {
                assembly.owner = None;
                self.supply += 1;
            }
        }
    }

    /// A whole piece is verified and written.
    pub(super) fn hold(&mut self, piece: PieceIndex) -> Option<Finished> {
        let finished = self.finish(piece)?;
        self.stage[piece.0 as usize] = Stage::Held;
        self.held += 1;
        Some(finished)
    }

    /// A whole piece was not; it is missing as before, open, or parked if `park` says so: then it
    /// waits for [`Picker::assign`].
    pub(super) fn reopen(
        &mut self,
        piece: PieceIndex,
        park: impl FnOnce(&Finished) -> bool,
    ) -> Option<Finished> {
        let finished = self.finish(piece)?;
        self.put_back(piece, park(&finished));
        Some(finished)
    }

    /// Lets `key` alone give a parked piece, if memory allows.
    pub(super) fn assign(&mut self, piece: PieceIndex, asker: &mut Asker<'_>) -> bool {
        let Some(at) = self.parked.iter().position(|parked| *parked == piece) else { return false };
        if !self.has_room() {
            return false;
        }
        self.parked.swap_remove(at);
        let slot = self.begin(piece, asker, true);
        self.settle(slot);
        true
    }

    /// Gives up all begun pieces but those being verified. Nothing may be asked of anyone.
    pub(super) fn drop_all(&mut self, out: &mut Selection) {
        let slots: Vec<usize> =
            self.begun.iter().filter(|(_, a)| !a.verifying).map(|(slot, _)| slot).collect();
        for slot in slots {
            let assembly = &self.begun[slot];
            out.dropped.push(assembly.piece);
            out.wasted += assembly.bytes();
            let park = assembly.sole;
            self.abandon(slot as u32, park);
        }
    }

    /// A peer's pieces count from now on.
    pub(super) fn add_peer(&mut self, holds: &Bitfield) {
        if holds.is_full() {
            self.seeds += 1;
        } else {
            holds.iter().for_each(|piece| self.buckets.raise(piece));
        }
    }

    /// A peer's pieces count no more.
    pub(super) fn remove_peer(&mut self, holds: &Bitfield) {
        if holds.is_full() {
            self.seeds -= 1;
        } else {
            holds.iter().for_each(|piece| self.buckets.lower(piece));
        }
    }

    /// A counted peer got a piece more; `full` if that was its last one.
    pub(super) fn peer_got(&mut self, piece: PieceIndex, full: bool) {
        self.buckets.raise(piece);
        if full {
            self.buckets.lower_all();
            self.seeds += 1;
        }
    }

    pub(super) fn set_budget(&mut self, blocks: u32) {
        self.budget = u64::from(blocks);
        self.supply += 1;
    }

    /// Something may have become worth asking for merely because time has passed.
    pub(super) fn nudge(&mut self) {
        self.supply += 1;
    }

    /// Changes whenever peers that had nothing to be asked for should be looked at again.
    pub(super) fn supply(&self) -> u64 {
        self.supply
    }

    /// Whether the block is missing, its piece begun, and `key` may give it.
    pub(super) fn misses(&self, block: BlockRef, key: PeerKey) -> bool {
        match self.stage[block.piece.0 as usize] {
            Stage::Begun(slot) => self.begun[slot as usize].misses(index_of(block), key),
            Stage::Held | Stage::Open | Stage::Parked => false,
        }
    }

    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.buckets.is_open(piece)
    }

    pub(super) fn parked(&self) -> &[PieceIndex] {
        &self.parked
    }

    /// Peers that hold the piece.
    pub(super) fn availability(&self, piece: PieceIndex) -> u32 {
        self.seeds + self.buckets.count(piece)
    }

    /// Peers that hold the piece, but not everything.
    pub(super) fn leechers_with(&self, piece: PieceIndex) -> u32 {
        self.buckets.count(piece)
    }

    /// Blocks received of pieces that are not done.
    pub(super) fn blocks_kept(&self) -> u32 {
        self.begun.iter().map(|(_, assembly)| assembly.kept()).sum()
    }

    /// Whether `key` is asked for the block.
    pub(super) fn is_asked(&self, key: PeerKey, piece: PieceIndex, index: u32) -> bool {
        let Stage::Begun(slot) = self.stage[piece.0 as usize] else { return false };
        match self.begun[slot as usize].blocks[index as usize] {
            Block::Asked { by, copies, .. } => by[..usize::from(copies)].contains(&key),
            Block::Free | Block::Kept { .. } => false,
        }
    }

    /// Panics unless everything fits together: with itself, with what is held, with what the
    /// peers hold and with the number of requests they owe.
    pub(super) fn check<'a>(
        &self,
        held: &Bitfield,
        peers: impl Iterator<Item = &'a Bitfield>,
        is_peer: impl Fn(PeerKey) -> bool,
        owed: usize,
    ) {
        self.buckets.check();
        let (mut seeds, mut counts) = (0, vec![0; self.stage.len()]);
        for holds in peers {
            if holds.is_full() {
                seeds += 1;
            } else {
                holds.iter().for_each(|piece| counts[piece.0 as usize] += 1);
            }
        }
        assert_eq!(self.seeds, seeds, "peers that hold everything");
        let mut in_memory = 0;
        let mut parked = 0;
        for (at, stage) in self.stage.iter().enumerate() {
            let piece = PieceIndex(at as u32);
            assert_eq!(self.buckets.count(piece), counts[at], "availability of {piece}");
            assert_eq!(*stage == Stage::Held, held.contains(piece), "stage of {piece}");
            assert_eq!(*stage == Stage::Open, self.buckets.is_open(piece), "stage of {piece}");
            match stage {
                Stage::Begun(slot) => {
                    let assembly = &self.begun[*slot as usize];
                    assert_eq!(assembly.piece, piece, "slot of {piece}");
                    in_memory += u64::from(self.geometry.blocks_in(piece));
                    assembly.check();
                    assert!(assembly.owner.is_none_or(&is_peer), "{piece} is a lost peer's");
                    if let Some(place) = assembly.place {
                        assert_eq!(self.fillable[place as usize], *slot, "place of {piece}");
                    }
                }
                Stage::Parked => {
                    parked += 1;
                    assert!(self.parked.contains(&piece), "{piece} is lost");
                }
                Stage::Held | Stage::Open => {}
            }
        }
        assert_eq!(self.parked.len(), parked, "parked pieces");
        assert_eq!(self.held, held.count(), "held pieces");
        assert_eq!(self.in_memory, in_memory, "blocks in memory");
        let placed = self.begun.iter().filter(|(_, a)| a.place.is_some()).count();
        assert_eq!(self.fillable.len(), placed, "pieces with free blocks");
        let copies = |block: &Block| match block {
            Block::Asked { copies, .. } => usize::from(*copies),
            Block::Free | Block::Kept { .. } => 0,
        };
        let asked: usize =
            self.begun.iter().map(|(_, a)| a.blocks.iter().map(copies).sum::<usize>()).sum();
        assert_eq!(asked, owed, "blocks asked for");
    }

    /// The caller asks for blocks of it, then settles it.
    fn begin(&mut self, piece: PieceIndex, asker: &mut Asker<'_>, sole: bool) -> u32 {
        if self.buckets.is_open(piece) {
            self.buckets.remove(piece);
        }
        let blocks = self.geometry.blocks_in(piece);
        let mut assembly = Assembly::new(piece, self.spare.pop().unwrap_or_default(), blocks);
        assembly.owner = Some(asker.key);
        assembly.sole = sole;
        asker.scout.mine.push(piece);
        self.in_memory += u64::from(blocks);
        let slot = self.begun.insert(assembly) as u32;
        self.stage[piece.0 as usize] = Stage::Begun(slot);
        slot
    }

    fn finish(&mut self, piece: PieceIndex) -> Option<Finished> {
        let Some(Stage::Begun(slot)) = self.stage.get(piece.0 as usize) else { return None };
        let slot = *slot;
        if !self.begun[slot as usize].verifying {
            return None;
        }
        let giver_of = self.begun[slot as usize].giver_of_each();
        let assembly = self.unbegin(slot);
        Some(Finished { givers: assembly.givers, giver_of })
    }

    fn abandon(&mut self, slot: u32, park: bool) {
        let piece = self.unbegin(slot).piece;
        self.put_back(piece, park);
    }

    fn put_back(&mut self, piece: PieceIndex, park: bool) {
        if park {
            self.stage[piece.0 as usize] = Stage::Parked;
            self.parked.push(piece);
        } else {
            self.stage[piece.0 as usize] = Stage::Open;
            self.buckets.insert(piece);
            self.reopened += 1;
        }
    }

    /// Forgets an assembly and gives its memory back; its piece has no stage until one is set.
    fn unbegin(&mut self, slot: u32) -> Assembly {
        let mut assembly = self.begun.remove(slot as usize);
        if let Some(place) = assembly.place.take() {
            self.unplace(place);
        }
        self.in_memory -= assembly.blocks.len() as u64;
        self.supply += 1;
        if self.spare.len() < MAX_SPARE {
            self.spare.push(std::mem::take(&mut assembly.blocks));
        }
        assembly
    }

    /// Puts a begun piece into the list of those with free blocks, or out of it.
    fn settle(&mut self, slot: u32) {
        let assembly = &mut self.begun[slot as usize];
        match assembly.place {
            None if assembly.free > 0 => {
                assembly.place = Some(self.fillable.len() as u32);
                self.fillable.push(slot);
                self.supply += 1;
            }
            Some(place) if assembly.free == 0 => {
                assembly.place = None;
                self.unplace(place);
            }
            None | Some(_) => {}
        }
        let assembly = &mut self.begun[slot as usize];
        if assembly.free == 0 && !assembly.sole {
            assembly.owner = None;
        }
    }

    fn unplace(&mut self, place: u32) {
        self.fillable.swap_remove(place as usize);
        if let Some(moved) = self.fillable.get(place as usize) {
            self.begun[*moved as usize].place = Some(place);
        }
    }

    fn has_room(&self) -> bool {
        let piece = u64::from(self.geometry.blocks_per_piece());
        self.begun.is_empty() || self.in_memory + piece <= self.budget
    }

    /// Everything missing has been asked for, but for what only one peer may give.
    fn is_endgame(&self) -> bool {
        self.buckets.is_empty() && self.fillable.iter().all(|slot| self.begun[*slot as usize].sole)
    }
}

/// Block lists kept for the next pieces, so that beginning one does not allocate.
const MAX_SPARE: usize = 64;
