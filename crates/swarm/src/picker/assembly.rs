//! One piece under way: which of its blocks are free, requested or kept, and who gave them.

use piecework_core::SaturatingFrom;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::{BlockRanges, Giver, PeerIdentity, PeerKey};
use super::pick_request::PickRequest;
use super::selection::{EvictedRequest, Selection};
use piecework_core::{BLOCK_LEN, BlockRef, Geometry, Moment, PieceIndex};

/// How many peers may be asked for the same block at a time, in the endgame.
pub(super) const MAX_COPIES: usize = 3;

#[derive(Debug, Clone, Copy)]
pub(super) enum Block {
    Free,
    /// Requested from the first `copies` peers of `by`, the oldest request first.
    Asked {
        by: [PeerKey; MAX_COPIES],
        copies: u8,
        /// Bit `n` is set if the request to `by[n]` is late.
        late: u8,
        /// The block is worth waiting for until then.
        due: Moment,
    },
    /// Received from this giver, an index into the assembly's givers.
    Kept {
        giver: u32,
    },
}

#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) piece: PieceIndex,
    pub(super) blocks: Vec<Block>,
    /// The number of free blocks.
    pub(super) free: u32,
    /// The number of requested blocks.
    pub(super) asked: u32,
    /// How many of the requested blocks are loose: every request for them is late.
    pub(super) loose: u32,
    /// No block before this one is free or loose.
    cursor: u32,
    /// The peer that fills it, as long as it has free or loose blocks.
    pub(super) owner: Option<PeerKey>,
    /// Only the owner may be asked.
    pub(super) sole: bool,
    pub(super) givers: Vec<Giver>,
    /// Its index in the picker's list of pieces with free or loose blocks.
    pub(super) place: Option<u32>,
    /// All blocks are kept, and the driver is checking them.
    pub(super) verifying: bool,
}

/// What the arrival of a block changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Other peers that were asked for the same block and need not send it.
    pub(crate) others: SmallVec<[PeerKey; MAX_COPIES]>,
    /// It was the last one missing.
    pub(crate) whole: bool,
}

/// How a block came: from whom and when.
#[derive(Debug)]
pub(crate) struct Receipt<'a> {
    pub(crate) from: PeerKey,
    pub(crate) who: &'a Arc<PeerIdentity>,
    pub(crate) requested_at: Moment,
    pub(crate) received_at: Moment,
}

impl Block {
    /// Returns whether it is requested, and every request for it is late.
    pub(super) fn is_loose(&self) -> bool {
        matches!(self, Self::Asked { copies, late, .. } if *late == (1 << *copies) - 1)
    }

    /// Returns whether it is free or loose.
    fn is_open(&self) -> bool {
        matches!(self, Self::Free) || self.is_loose()
    }

    pub(super) fn is_asked_of(&self, key: PeerKey) -> bool {
        matches!(self, Self::Asked { by, copies, .. } if by[..usize::from(*copies)].contains(&key))
    }

    /// Returns whether the request to `key` is late. `None` if there is none.
    pub(super) fn is_late(&self, key: PeerKey) -> Option<bool> {
        let Self::Asked { by, copies, late, .. } = self else { return None };
        let at = by[..usize::from(*copies)].iter().position(|asked| *asked == key)?;
        Some(*late >> at & 1 == 1)
    }
}

impl Assembly {
    pub(super) fn new(piece: PieceIndex, mut blocks: Vec<Block>, count: u32) -> Self {
        blocks.clear();
        blocks.resize(count as usize, Block::Free);
        Self {
            piece,
            blocks,
            free: count,
            asked: 0,
            loose: 0,
            cursor: 0,
            owner: None,
            sole: false,
            givers: Vec::new(),
            place: None,
            verifying: false,
        }
    }

    /// Returns how many blocks a new request may be for: the free ones and, if the peer may take them, the
    /// loose ones.
    pub(super) fn open(&self, with_loose: bool) -> u32 {
        if with_loose { self.free + self.loose } else { self.free }
    }

    /// Returns whether there is a block that the peer may be asked for. Looks at each block if none is free
    /// but some are loose.
    pub(super) fn has_for(&self, request: &PickRequest<'_>) -> bool {
        self.free > 0
            || (request.takes_late_blocks()
                && self.loose > 0
                && self
                    .blocks
                    .iter()
                    .any(|block| block.is_loose() && !block.is_asked_of(request.key)))
    }

    /// Requests the first `count` blocks that are free or loose.
    pub(super) fn take_front(
        &mut self,
        request: &PickRequest<'_>,
        count: usize,
        now: Moment,
        geometry: &Geometry,
        out: &mut Selection,
    ) {
        let due = request.due(now, out.blocks.len() + count);
        let (mut left, mut open) = (count, self.free + self.loose);
        let mut at = self.cursor;
        while left > 0 && open > 0 {
            if self.blocks[at as usize].is_open() {
                open -= 1;
                if self.take(at, request, due, out) {
                    out.blocks.push(geometry.block(self.piece, at));
                    left -= 1;
                }
            }
            at += 1;
        }
        self.advance_cursor();
    }

    /// Requests the last `count` blocks that are free or loose, so that the peer does not run into the
    /// owner.
    pub(super) fn take_back(
        &mut self,
        request: &PickRequest<'_>,
        count: usize,
        now: Moment,
        geometry: &Geometry,
        out: &mut Selection,
    ) {
        let first = out.blocks.len();
        let due = request.due(now, first + count);
        let (mut left, mut open) = (count, self.free + self.loose);
        for at in (0..u32::saturating_from(self.blocks.len())).rev() {
            if left == 0 || open == 0 {
                break;
            }
            if self.blocks[at as usize].is_open() {
                open -= 1;
                if self.take(at, request, due, out) {
                    out.blocks.push(geometry.block(self.piece, at));
                    left -= 1;
                }
            }
        }
        out.blocks[first..].reverse();
        self.advance_cursor();
    }

    /// Requests a block that others owe already from one more peer. If the maximum number of peers is
    /// asked, the oldest late request, or else the oldest, is given up and added to `out`. If the peer [may
    /// take the last copy](PickRequest::takes_last_copy), the block becomes due at `until`.
    pub(super) fn double(
        &mut self,
        index: u32,
        request: &PickRequest<'_>,
        until: Moment,
        out: &mut Selection,
    ) {
        let is_late = request.is_snubbed();
        let block = &mut self.blocks[index as usize];
        let was_loose = block.is_loose();
        let Block::Asked { by, copies, late, due } = block else { return };
        if usize::from(*copies) == MAX_COPIES {
            // The oldest late request, if there is one.
            let at = if *late == 0 { 0 } else { late.trailing_zeros() as usize };
            out.evicted.push(EvictedRequest { peer: by[at], piece: self.piece, index });
            remove_request(by, copies, late, at);
        }
        by[usize::from(*copies)] = request.key;
        *late |= u8::from(is_late) << *copies;
        *copies += 1;
        if request.takes_last_copy() {
            *due = until;
        }
        let is_loose = block.is_loose();
        self.loose = self.loose + u32::from(is_loose) - u32::from(was_loose);
    }

    /// Takes back the request from `key`, which will not send the block. Returns whether that made the
    /// block free or loose.
    pub(super) fn unask(&mut self, index: u32, key: PeerKey) -> bool {
        let block = &mut self.blocks[index as usize];
        let was_loose = block.is_loose();
        let Block::Asked { by, copies, late, .. } = block else { return false };
        let Some(at) = by[..usize::from(*copies)].iter().position(|asked| *asked == key) else {
            return false;
        };
        remove_request(by, copies, late, at);
        self.loose -= u32::from(was_loose);
        if *copies == 0 {
            *block = Block::Free;
            self.free += 1;
            self.asked -= 1;
        } else if block.is_loose() {
            self.loose += 1;
        } else {
            return false;
        }
        self.cursor = self.cursor.min(index);
        true
    }

    /// Records whether the request to `key` is late. Returns whether that made the block loose.
    pub(super) fn set_late(&mut self, index: u32, key: PeerKey, is_late: bool) -> bool {
        let block = &mut self.blocks[index as usize];
        let was_loose = block.is_loose();
        let Block::Asked { by, copies, late, .. } = block else { return false };
        let Some(at) = by[..usize::from(*copies)].iter().position(|asked| *asked == key) else {
            return false;
        };
        *late = (*late & !(1 << at)) | (u8::from(is_late) << at);
        let is_loose = block.is_loose();
        self.loose = self.loose + u32::from(is_loose) - u32::from(was_loose);
        if is_loose {
            self.cursor = self.cursor.min(index);
        }
        is_loose && !was_loose
    }

    /// Returns whether the block may still come from `key`, requested or not.
    pub(super) fn misses(&self, index: u32, key: PeerKey) -> bool {
        let allowed = !self.sole || self.owner == Some(key);
        allowed && !matches!(self.blocks[index as usize], Block::Kept { .. })
    }

    /// Keeps a block. It must not be kept already.
    pub(super) fn keep(&mut self, index: u32, receipt: &Receipt<'_>, bytes: u32) -> Arrival {
        let mut arrival = Arrival::default();
        self.loose -= u32::from(self.blocks[index as usize].is_loose());
        match self.blocks[index as usize] {
            Block::Free => self.free -= 1,
            Block::Asked { by, copies, .. } => {
                self.asked -= 1;
                let asked = by[..usize::from(copies)].iter().copied();
                arrival.others.extend(asked.filter(|key| *key != receipt.from));
            }
            Block::Kept { .. } => return arrival,
        }
        let giver = self.credit(receipt, bytes);
        self.blocks[index as usize] = Block::Kept { giver };
        arrival.whole = self.free == 0 && self.asked == 0;
        arrival
    }

    pub(super) fn kept(&self) -> u32 {
        u32::saturating_from(self.blocks.len()) - self.free - self.asked
    }

    /// Returns for each block which of the givers gave it. The assembly must be whole.
    pub(super) fn giver_of_each(&self) -> Vec<u32> {
        let giver = |block: &Block| match block {
            Block::Kept { giver } => Some(*giver),
            Block::Free | Block::Asked { .. } => None,
        };
        self.blocks.iter().filter_map(giver).collect()
    }

    pub(super) fn check(&self) {
        let is_free = |block: &&Block| matches!(block, Block::Free);
        let is_asked = |block: &&Block| matches!(block, Block::Asked { .. });
        let piece = self.piece;
        assert_eq!(self.blocks.iter().filter(is_free).count(), self.free as usize, "{piece}");
        assert_eq!(self.blocks.iter().filter(is_asked).count(), self.asked as usize, "{piece}");
        let loose = self.blocks.iter().filter(|block| block.is_loose()).count();
        assert_eq!(loose, self.loose as usize, "{piece}: loose blocks");
        let first = self.blocks.iter().position(Block::is_open);
        assert!(first.is_none_or(|first| first >= self.cursor as usize), "{piece}: cursor");
        let given: u32 = self.givers.iter().map(|giver| giver.blocks).sum();
        assert_eq!(given, self.kept(), "{piece}: givers");
        assert_eq!(self.verifying, self.free == 0 && self.asked == 0, "{piece}: verifying");
        assert_eq!(self.place.is_some(), self.open(true) > 0, "{piece}: place");
        let is_owned = self.owner.is_some();
        assert!(!is_owned || self.open(true) > 0 || self.sole, "{piece}: an owner of nothing");
        assert!(is_owned || !self.sole || self.verifying, "{piece}: nobody's alone");
        for block in &self.blocks {
            if let Block::Asked { by, copies, late, .. } = block {
                assert!(*late < 1 << *copies, "{piece}: nobody is late");
                let by = &by[..usize::from(*copies)];
                assert!(!by.is_empty(), "{piece}: asked of nobody");
                assert!(!self.sole || by == self.owner.as_slice(), "{piece}: not sole");
                for (at, key) in by.iter().enumerate() {
                    assert!(!by[..at].contains(key), "{piece}: asked twice of {key:?}");
                }
            }
        }
    }

    /// Requests a free or loose block unless the peer is asked for it already. Returns whether it was
    /// requested.
    fn take(
        &mut self,
        index: u32,
        request: &PickRequest<'_>,
        due: Moment,
        out: &mut Selection,
    ) -> bool {
        let block = &mut self.blocks[index as usize];
        if matches!(block, Block::Free) {
            let is_late = request.is_snubbed();
            *block = Block::Asked {
                by: [request.key; MAX_COPIES],
                copies: 1,
                late: u8::from(is_late),
                due,
            };
            self.free -= 1;
            self.asked += 1;
            self.loose += u32::from(is_late);
            return true;
        }
        if !request.takes_late_blocks() || block.is_asked_of(request.key) {
            return false;
        }
        self.double(index, request, due, out);
        true
    }

    fn advance_cursor(&mut self) {
        let passed = self.blocks[self.cursor as usize..].iter().take_while(|b| !b.is_open());
        self.cursor += u32::saturating_from(passed.count());
    }

    fn credit(&mut self, receipt: &Receipt<'_>, bytes: u32) -> u32 {
        let known = self.givers.iter_mut().enumerate().find(|(_, giver)| {
            Arc::ptr_eq(&giver.who, receipt.who)
                || (giver.who.addr == receipt.who.addr && giver.who.id == receipt.who.id)
        });
        if let Some((at, giver)) = known {
            giver.who = Arc::clone(receipt.who);
            giver.blocks += 1;
            giver.bytes += u64::from(bytes);
            giver.requested_at = giver.requested_at.min(receipt.requested_at);
            giver.received_at = receipt.received_at;
            return u32::saturating_from(at);
        }
        self.givers.push(Giver {
            who: Arc::clone(receipt.who),
            blocks: 1,
            ranges: BlockRanges::new(),
            bytes: u64::from(bytes),
            requested_at: receipt.requested_at,
            received_at: receipt.received_at,
        });
        u32::saturating_from(self.givers.len()) - 1
    }
}

/// Removes the request to `by[at]`.
fn remove_request(by: &mut [PeerKey; MAX_COPIES], copies: &mut u8, late: &mut u8, at: usize) {
    by.copy_within(at + 1.., at);
    *copies -= 1;
    let below: u8 = (1 << at) - 1;
    *late = (*late & below) | ((*late >> 1) & !below);
}

/// Sets for each giver of a whole piece which blocks it gave.
pub(super) fn note_ranges(givers: &mut [Giver], giver_of: &[u32]) {
    if let [only] = givers {
        only.ranges.push((0, u32::saturating_from(giver_of.len().saturating_sub(1))));
        return;
    }
    for (index, giver) in (0..).zip(giver_of) {
        let Some(giver) = givers.get_mut(*giver as usize) else { continue };
        match giver.ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => giver.ranges.push((index, index)),
        }
    }
}

/// Returns the number of a block in its piece. Its `begin` must be that of a block.
pub(crate) fn index_of(block: BlockRef) -> u32 {
    block.begin / BLOCK_LEN
}
