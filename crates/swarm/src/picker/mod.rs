//! Decides which block to request from which peer.
//!
//! A piece is *held*, *open* (missing and not begun), *begun* (it has an [`Assembly`] whose blocks are
//! free, requested or kept; in the end it is being verified), *parked* (it was wrong, came from several
//! peers, and waits for one peer to give it alone) or *skipped* (missing and not wanted). Peers get blocks
//! in this order. Steps 2 to 4 go first through pieces of high priority, then normal, then low:
//!
//! 1. the piece that the peer is filling already: whole pieces from one peer finish sooner, are read in one
//!    go at the peer, and leave no doubt about who gave what;
//! 2. a piece that another peer began and does not fill any more;
//! 3. the rarest open piece that the peer holds, if memory allows. Until a few pieces are held, a random
//!    one, so that there is soon something to trade;
//! 4. half of the free blocks of a piece that another peer fills;
//! 5. blocks that were requested from others: those that are overdue or would come much later, and in the
//!    endgame, when everything wanted is requested, a few more. In a torrent of many pieces this waits for
//!    the endgame or for full memory: before, the second copy costs another peer a block that it lacks.
//!
//! # Peers that do not send what they are asked for
//!
//! A peer that takes requests and sends nothing delays a download only until another peer has room:
//!
//! - A late request stays with its peer, since nobody else may have the block. But a block all of whose
//!   requests are late is *loose*: every peer that is not snubbed treats it like a free block. A snubbed
//!   peer's requests all count as late, so it never keeps a block from other peers.
//! - A snubbed peer owns no piece. A piece that has only late requests under way may be given up to make
//!   room.
//! - Each block is due at a time that depends on the rate of the peer asked last. For a peer that has given
//!   nothing yet, it is due at once. A peer that gives blocks and has nothing else to do may take any
//!   overdue block. If three peers are asked already, it replaces the oldest late request, or else the
//!   oldest. It may also replace a late request for a block that it would give much sooner than the block
//!   is due.
//! - A peer that has given nothing, owes late blocks, or is snubbed takes only the second copy of a block,
//!   so that one copy is left for others. A peer that owes late blocks takes no loose ones.
//! - A piece of which a peer rejected a block is requested from that peer only if there is nothing else.
//!
//! In sequential order, the first piece replaces the rarest and any other. No piece is taken at random or
//! because it was suggested, and step 4 comes before step 3, so that the piece needed first is finished
//! first.
//!
//! Memory: a piece is begun only if all blocks of all begun pieces fit into the budget, so every begun
//! piece can be finished.

mod assemblies;
mod assembly;
mod buckets;
mod choice;
mod invariants;
mod pick_cache;
mod pick_request;
mod selection;

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;

use slab::Slab;

pub(super) use self::assembly::{Arrival, Receipt, index_of};
use self::assembly::{Assembly, Block};
use self::buckets::Buckets;
pub(super) use self::pick_cache::PickCache;
pub(super) use self::pick_request::{DeliveryEstimate, PickRequest, Trust};
pub(super) use self::selection::{AbandonedPiece, CheckedPiece, EvictedRequest, Selection};
use super::PeerKey;
use super::wants::Priorities;
use piecework_core::{Bitfield, BlockRef, Geometry, Moment, PieceIndex, Rng};

/// The state of every piece, and of every block of those begun.
#[derive(Debug)]
pub(super) struct Picker {
    geometry: Geometry,
    /// Empty once everything is held.
    stages: Vec<Stage>,
    buckets: Buckets,
    /// The first piece comes first, not the rarest.
    sequential: bool,
    /// The number of peers that hold everything.
    seeds: u32,
    held: u32,
    begun: Slab<Assembly>,
    /// Slots of begun pieces with free or loose blocks.
    fillable: Vec<u32>,
    parked: Vec<PieceIndex>,
    /// The number of begun pieces that are being verified.
    verifying: u32,
    /// The number of blocks of all begun pieces.
    in_memory: u64,
    budget: u64,
    /// A piece could have been begun if there had been memory for it.
    lacks_memory: bool,
    /// Counts up whenever there may be something new to request.
    supply: u64,
    /// The number of peers that have room for more requests.
    eager: u32,
    /// Counts up whenever a piece becomes open again.
    reopened: u64,
    in_endgame: bool,
    spare: Vec<Vec<Block>>,
    doubles: Vec<DuplicateRequest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Open,
    Begun(u32),
    Parked,
    Skipped,
}

/// A block that could be requested once more. The least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DuplicateRequest {
    need: Need,
    copies: u8,
    /// For overdue blocks, the oldest first. Otherwise the one that would come last, since the peers asked
    /// may be about to send the first ones.
    order: i128,
    index: Reverse<u32>,
    slot: u32,
}

/// How much a block that others owe needs one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// It should have arrived.
    Overdue,
    /// This peer could give it much sooner than the peers asked.
    Far,
    /// It is under way.
    None,
}

impl Picker {
    pub(super) fn new(
        geometry: Geometry,
        held: &Bitfield,
        priorities: Priorities,
        budget: u32,
        rng: &mut Rng,
    ) -> Self {
        let stage = |piece| match held.contains(piece) {
            true => Stage::Held,
            false if priorities.of(piece).is_wanted() => Stage::Open,
            false => Stage::Skipped,
        };
        let missing = if held.is_full() { 0 } else { geometry.pieces() };
        Self {
            geometry,
            stages: (0..missing).map(|piece| stage(PieceIndex(piece))).collect(),
            buckets: Buckets::new(held, priorities, rng),
            sequential: false,
            seeds: 0,
            held: held.count(),
            begun: Slab::new(),
            fillable: Vec::new(),
            parked: Vec::new(),
            verifying: 0,
            in_memory: 0,
            budget: u64::from(budget),
            lacks_memory: false,
            supply: 1,
            eager: 0,
            reopened: 1,
            in_endgame: false,
            spare: Vec::new(),
            doubles: Vec::new(),
        }
    }

    /// Chooses up to `want` blocks for a peer that has unchoked us. They count as requested.
    pub(super) fn pick(
        &mut self,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        rng: &mut Rng,
        out: &mut Selection,
    ) {
        if request.cache.is_dry(self.supply, request.idle) {
            return;
        }
        while out.blocks.len() < want {
            let left = want - out.blocks.len();
            // A peer that has let us wait gets no piece of its own as long as it can help with another.
            let found = self.fill_own(request, left, now, out)
                || (request.is_snubbed()
                    && self.buckets.classes().any(|c| self.share(c, request, left, now, out)))
                || self
                    .buckets
                    .classes()
                    .any(|class| self.pick_of(class, request, left, now, rng, out));
            if !found {
                let idle = request.idle && out.blocks.is_empty();
                let helped = out.blocks.is_empty()
                    && (self.double_up(request, left, now, out)
                        || (idle && self.make_room(request, left, now, rng, out)));
                if !helped {
                    request.cache.mark_dry(self.supply, idle);
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

    /// Chooses blocks for a peer that serves us only the pieces of `allowed`.
    pub(super) fn pick_allowed(
        &mut self,
        request: &mut PickRequest<'_>,
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
            if !request.holds.contains(*piece) {
                continue;
            }
            if self.stage(*piece) == Stage::Open {
                if self.has_room() {
                    // It gets no owner: a peer that chokes us may reject the rest.
                    self.begin(*piece, request, None);
                } else {
                    self.lacks_memory = true;
                }
            }
            let Stage::Begun(slot) = self.stage(*piece) else { continue };
            let assembly = &mut self.begun[slot as usize];
            if assembly.open(request.takes_late_blocks()) > 0
                && (assembly.owner == Some(request.key) || !assembly.sole)
            {
                assembly.take_front(request, left, now, &self.geometry, out);
            }
            self.settle(slot);
        }
    }

    /// Keeps a block that a peer was asked for, now or earlier. Only for a block that is still
    /// [missing](Self::misses).
    pub(super) fn keep(&mut self, block: BlockRef, receipt: &Receipt<'_>) -> Arrival {
        let Stage::Begun(slot) = self.stage(block.piece) else {
            return Arrival::default();
        };
        let assembly = &mut self.begun[slot as usize];
        let arrival = assembly.keep(index_of(block), receipt, block.len);
        assembly.verifying = arrival.whole;
        if arrival.whole {
            assembly.owner = None;
            self.verifying += 1;
        }
        self.settle(slot);
        arrival
    }

    /// Takes back the request of a block from `key`, which will not send it.
    pub(super) fn unask(&mut self, key: PeerKey, piece: PieceIndex, index: u32) {
        let Stage::Begun(slot) = self.stage(piece) else { return };
        if self.begun[slot as usize].unask(index, key) {
            self.settle(slot);
        }
        // Even a block that others still owe can now be requested from another peer.
        self.supply += 1;
    }

    /// Records whether the request of a block from `key` is late.
    pub(super) fn set_late(&mut self, key: PeerKey, piece: PieceIndex, index: u32, is_late: bool) {
        let Stage::Begun(slot) = self.stage(piece) else { return };
        if self.begun[slot as usize].set_late(index, key, is_late) {
            self.supply += 1;
        }
        self.settle(slot);
    }

    /// Ends the ownership of all pieces that `key` fills. Pieces that it was to give alone are given up
    /// with all their requests, added to `out`, and parked again.
    pub(super) fn disown(&mut self, key: PeerKey, cache: &mut PickCache, out: &mut Selection) {
        for piece in cache.mine.drain(..) {
            let Stage::Begun(slot) = self.stage(piece) else { continue };
            let assembly = &mut self.begun[slot as usize];
            if assembly.owner != Some(key) || assembly.verifying {
                continue;
            }
            if assembly.sole {
                let dropped = self.abandon(slot, true);
                out.give_up(dropped);
            } else {
                assembly.owner = None;
                self.supply += 1;
            }
        }
    }

    /// Records that a whole piece is verified and written.
    pub(super) fn hold(&mut self, piece: PieceIndex) -> Option<CheckedPiece> {
        let finished = self.finish(piece)?;
        self.stages[piece.0 as usize] = Stage::Held;
        self.held += 1;
        if self.held == self.geometry.pieces() {
            self.retire();
        }
        Some(finished)
    }

    /// Records that a whole piece was not verified and written. It is missing as before: open if it is
    /// wanted, or parked if `park` returns true. Then it waits for [`Picker::assign`].
    pub(super) fn reopen(
        &mut self,
        piece: PieceIndex,
        park: impl FnOnce(&CheckedPiece) -> bool,
    ) -> Option<CheckedPiece> {
        let finished = self.finish(piece)?;
        self.put_back(piece, park(&finished));
        Some(finished)
    }

    /// Assigns a parked piece to one peer, which gives it alone, if memory allows.
    pub(super) fn assign(&mut self, piece: PieceIndex, request: &mut PickRequest<'_>) -> bool {
        let Some(at) = self.parked.iter().position(|parked| *parked == piece) else { return false };
        if !self.has_room() {
            self.lacks_memory = true;
            return false;
        }
        self.parked.swap_remove(at);
        let slot = self.begin(piece, request, Some(true));
        self.settle(slot);
        true
    }

    /// Gives up a piece that one peer was to give alone. It waits for [`Picker::assign`] again.
    pub(super) fn take_back(&mut self, piece: PieceIndex, out: &mut Selection) {
        let Stage::Begun(slot) = self.stage(piece) else { return };
        let assembly = &self.begun[slot as usize];
        if assembly.sole && !assembly.verifying {
            let dropped = self.abandon(slot, true);
            out.give_up(dropped);
        }
    }

    /// Gives up all begun pieces except those being verified. No block may be requested from any peer.
    pub(super) fn drop_all(&mut self, out: &mut Selection) {
        let slots: Vec<usize> =
            self.begun.iter().filter(|(_, a)| !a.verifying).map(|(slot, _)| slot).collect();
        for slot in slots {
            let park = self.begun[slot].sole;
            let dropped = self.abandon(u32::saturating_from(slot), park);
            out.give_up(dropped);
        }
    }

    /// Sets the priorities. Begun pieces that are not wanted any more are given up with all their requests
    /// and added to `out`, except those being verified. Pieces that are wanted again are open, or parked if
    /// `park` returns true. All caches must [forget](PickCache::forget).
    pub(super) fn set_priorities(
        &mut self,
        priorities: &Priorities,
        park: impl Fn(PieceIndex) -> bool,
        rng: &mut Rng,
        out: &mut Selection,
    ) {
        for at in 0..self.stages.len() {
            let piece = PieceIndex(u32::saturating_from(at));
            let is_wanted = priorities.of(piece).is_wanted();
            match self.stages[at] {
                Stage::Held => {}
                Stage::Open | Stage::Parked if !is_wanted => self.stages[at] = Stage::Skipped,
                Stage::Skipped if is_wanted && park(piece) => {
                    self.stages[at] = Stage::Parked;
                    self.parked.push(piece);
                }
                Stage::Skipped if is_wanted => self.stages[at] = Stage::Open,
                Stage::Begun(slot) if !is_wanted && !self.begun[slot as usize].verifying => {
                    let givers = self.remove_assembly(slot).givers;
                    out.give_up(AbandonedPiece { piece, givers });
                    self.stages[at] = Stage::Skipped;
                }
                Stage::Open | Stage::Parked | Stage::Skipped | Stage::Begun(_) => {}
            }
        }
        self.parked.retain(|piece| priorities.of(*piece).is_wanted());
        let is_open = |piece: PieceIndex| self.stages[piece.0 as usize] == Stage::Open;
        self.buckets.set_priorities(priorities.clone(), is_open, rng);
        self.reopened += 1;
        self.supply += 1;
    }

    /// Sets whether the first piece comes first, not the rarest.
    pub(super) fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
        self.supply += 1;
    }

    /// Releases what memory it can. There are no peers.
    pub(super) fn rest(&mut self) {
        self.buckets.forget_counts();
        self.spare = Vec::new();
        self.doubles = Vec::new();
    }

    /// Starts to count the pieces of a peer.
    pub(super) fn add_peer(&mut self, holds: &Bitfield) {
        if holds.is_full() {
            self.seeds += 1;
        } else {
            holds.iter().for_each(|piece| self.buckets.raise(piece));
        }
    }

    /// Stops counting the pieces of a peer.
    pub(super) fn remove_peer(&mut self, holds: &Bitfield) {
        if holds.is_full() {
            self.seeds -= 1;
        } else {
            holds.iter().for_each(|piece| self.buckets.lower(piece));
        }
    }

    /// Records that a counted peer got one more piece. `full` means that it was the last one.
    pub(super) fn peer_got(&mut self, piece: PieceIndex, full: bool) {
        self.buckets.raise(piece);
        if full {
            self.buckets.lower_all();
            self.seeds += 1;
        }
    }

    pub(super) fn set_budget(&mut self, blocks: u32) {
        self.budget = u64::from(blocks);
        self.lacks_memory = false;
        self.supply += 1;
    }

    /// Has peers looked at again, because something may have become worth requesting merely because time
    /// has passed.
    pub(super) fn nudge(&mut self) {
        self.supply += 1;
    }

    /// Returns a number that changes whenever peers that had nothing to be asked for should be looked at
    /// again.
    pub(super) fn supply(&self) -> u64 {
        self.supply
    }

    /// Returns whether the block is missing, its piece is begun, and `key` may give it.
    pub(super) fn misses(&self, block: BlockRef, key: PeerKey) -> bool {
        match self.stage(block.piece) {
            Stage::Begun(slot) => self.begun[slot as usize].misses(index_of(block), key),
            Stage::Held | Stage::Open | Stage::Parked | Stage::Skipped => false,
        }
    }

    /// Updates the cache of a peer that got a piece which we lack and want.
    pub(super) fn update_cache(&self, cache: &mut PickCache, piece: PieceIndex) {
        if self.buckets.is_open(piece) {
            cache.found(piece, self.buckets.priority(piece));
        } else {
            cache.look_again();
        }
    }

    /// Returns whether the piece is being verified. `None` if it is not begun.
    pub(super) fn is_verifying(&self, piece: PieceIndex) -> Option<bool> {
        let Stage::Begun(slot) = self.stage(piece) else { return None };
        Some(self.begun[slot as usize].verifying)
    }

    /// Returns whether `key` is to give the piece alone.
    pub(super) fn is_sole(&self, piece: PieceIndex, key: PeerKey) -> bool {
        let Stage::Begun(slot) = self.stage(piece) else { return false };
        let assembly = &self.begun[slot as usize];
        assembly.sole && assembly.owner == Some(key)
    }

    /// Sets how many peers have room for more requests now.
    pub(super) fn note_eager(&mut self, peers: usize) {
        self.eager = u32::try_from(peers).unwrap_or(u32::MAX);
    }

    /// Returns how many blocks of a begun piece are kept, and how many are loose.
    pub(super) fn progress(&self, piece: PieceIndex) -> Option<(u32, u32)> {
        let Stage::Begun(slot) = self.stage(piece) else { return None };
        let assembly = &self.begun[slot as usize];
        Some((assembly.kept(), assembly.loose))
    }

    pub(super) fn is_sequential(&self) -> bool {
        self.sequential
    }

    pub(super) fn parked(&self) -> &[PieceIndex] {
        &self.parked
    }

    /// Returns how many peers hold the piece.
    pub(super) fn availability(&self, piece: PieceIndex) -> u32 {
        self.seeds + self.buckets.count(piece)
    }

    /// Returns how many peers hold the piece but not everything.
    pub(super) fn leechers_with(&self, piece: PieceIndex) -> u32 {
        self.buckets.count(piece)
    }

    /// Returns how many blocks are kept of pieces that are not done.
    pub(super) fn blocks_kept(&self) -> u32 {
        self.begun.iter().map(|(_, assembly)| assembly.kept()).sum()
    }

    /// Returns how many pieces are begun and not whole.
    pub(super) fn coming(&self) -> usize {
        self.begun.len() - self.verifying as usize
    }

    /// Returns whether there was something to request but no memory for it, since memory or its use changed
    /// last.
    pub(super) fn lacks_memory(&self) -> bool {
        self.lacks_memory
    }

    /// Returns whether no piece is begun.
    pub(super) fn is_at_rest(&self) -> bool {
        self.begun.is_empty()
    }

    /// Returns how many pieces are being verified.
    pub(super) fn verifying(&self) -> u32 {
        self.verifying
    }

    /// Returns whether no piece may be begun because memory is full.
    pub(super) fn is_memory_full(&self) -> bool {
        !self.has_room()
    }

    /// Returns how many entries there is memory for, over all lists, begun pieces or not.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buckets.capacity()
            + self.stages.capacity()
            + self.begun.capacity()
            + self.fillable.capacity()
            + self.parked.capacity()
            + self.spare.capacity()
            + self.doubles.capacity()
    }

    /// Takes steps 2 to 4 among the pieces of one class.
    fn pick_of(
        &mut self,
        class: usize,
        request: &mut PickRequest<'_>,
        want: usize,
        now: Moment,
        rng: &mut Rng,
        out: &mut Selection,
    ) -> bool {
        (!request.is_snubbed() && self.adopt(class, request, want, now, out))
            || (self.sequential && self.share(class, request, want, now, out))
            || self.begin_next(class, request, want, now, rng, out)
            || self.share(class, request, want, now, out)
    }

    fn stage(&self, piece: PieceIndex) -> Stage {
        self.stages.get(piece.0 as usize).copied().unwrap_or(Stage::Held)
    }

    fn has_room(&self) -> bool {
        let piece = u64::from(self.geometry.blocks_per_piece());
        self.begun.is_empty() || self.in_memory + piece <= self.budget
    }

    /// Returns whether everything wanted has been requested, except what only one peer may give.
    fn is_endgame(&self) -> bool {
        let is_asked = |assembly: &Assembly| assembly.sole || assembly.free == 0;
        self.buckets.is_empty()
            && self.fillable.iter().all(|slot| is_asked(&self.begun[*slot as usize]))
    }
}
