//! One piece under way: which of its blocks are free, asked for, or kept, and who gave them.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::{BlockRanges, Giver, PeerIdentity, PeerKey};
use crate::base::{BLOCK_LEN, BlockRef, Geometry, Moment, PieceIndex};

/// Peers that may be asked for the same block at a time, in the endgame.
pub(super) const MAX_COPIES: usize = 3;

#[derive(Debug, Clone, Copy)]
pub(super) enum Block {
    Free,
    /// Asked of the first `copies` of `by`, of the first of them at `since`.
    Asked {
        by: [PeerKey; MAX_COPIES],
        copies: u8,
        since: Moment,
    },
    /// Received from this one of the assembly's givers.
    Kept {
        giver: u32,
    },
}

#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) piece: PieceIndex,
    pub(super) blocks: Vec<Block>,
    /// Blocks that are free.
    pub(super) free: u32,
    /// Blocks that are asked of anybody.
    pub(super) asked: u32,
    /// No block before this one is free.
    cursor: u32,
    /// Who is filling it, as long as it has free blocks.
    pub(super) owner: Option<PeerKey>,
    /// Nobody but the owner may be asked.
    pub(super) sole: bool,
    pub(super) givers: Vec<Giver>,
    /// Where it stands in the picker's list of pieces with free blocks.
    pub(super) place: Option<u32>,
    /// All blocks are kept and the driver is checking them.
    pub(super) verifying: bool,
}

/// What a block was before it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::swarm) struct Arrival {
    /// Others that were asked for the same block and need not send it.
    pub(in crate::swarm) others: SmallVec<[PeerKey; MAX_COPIES]>,
    /// It was the last one missing.
    pub(in crate::swarm) whole: bool,
}

/// A block as it came: from whom and when.
#[derive(Debug)]
pub(in crate::swarm) struct Receipt<'a> {
    pub(in crate::swarm) from: PeerKey,
    pub(in crate::swarm) who: &'a Arc<PeerIdentity>,
    pub(in crate::swarm) requested_at: Moment,
    pub(in crate::swarm) received_at: Moment,
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
            cursor: 0,
            owner: None,
            sole: false,
            givers: Vec::new(),
            place: None,
            verifying: false,
        }
    }

    /// Asks `key` for the first `count` free blocks.
    pub(super) fn take_front(
        &mut self,
        key: PeerKey,
        count: usize,
        now: Moment,
        geometry: &Geometry,
        out: &mut Vec<BlockRef>,
    ) {
        let mut left = (count as u32).min(self.free);
        while left > 0 {
            let block = &mut self.blocks[self.cursor as usize];
            if matches!(block, Block::Free) {
                *block = asked_once(key, now);
                out.push(geometry.block(self.piece, self.cursor));
                self.free -= 1;
                self.asked += 1;
                left -= 1;
            }
            self.cursor += 1;
        }
    }

    /// Asks `key` for the last `count` free blocks, so that it does not run into the owner.
    pub(super) fn take_back(
        &mut self,
        key: PeerKey,
        count: usize,
        now: Moment,
        geometry: &Geometry,
        out: &mut Vec<BlockRef>,
    ) {
        let first = out.len();
        let mut left = (count as u32).min(self.free);
        for index in (0..self.blocks.len()).rev() {
            if left == 0 {
                break;
            }
            if matches!(self.blocks[index], Block::Free) {
                self.blocks[index] = asked_once(key, now);
                out.push(geometry.block(self.piece, index as u32));
                self.free -= 1;
                self.asked += 1;
                left -= 1;
            }
        }
        out[first..].reverse();
    }

    /// Asks one more peer for a block that others owe already.
    pub(super) fn double(&mut self, index: u32, key: PeerKey) {
        if let Block::Asked { by, copies, .. } = &mut self.blocks[index as usize] {
            by[usize::from(*copies)] = key;
            *copies += 1;
        }
    }

    /// `key` will not send the block. Says whether that made it free.
    pub(super) fn unask(&mut self, index: u32, key: PeerKey) -> bool {
        let block = &mut self.blocks[index as usize];
        let Block::Asked { by, copies, .. } = block else { return false };
        let Some(at) = by[..usize::from(*copies)].iter().position(|asked| *asked == key) else {
            return false;
        };
        *copies -= 1;
        by.swap(at, usize::from(*copies));
        if *copies > 0 {
            return false;
        }
        *block = Block::Free;
        self.free += 1;
        self.asked -= 1;
        self.cursor = self.cursor.min(index);
        true
    }

    /// Whether the block may still come from `key`, asked or not.
    pub(super) fn misses(&self, index: u32, key: PeerKey) -> bool {
        let allowed = !self.sole || self.owner == Some(key);
        allowed && !matches!(self.blocks[index as usize], Block::Kept { .. })
    }

    /// The block came. It must not be kept already.
    pub(super) fn keep(&mut self, index: u32, receipt: &Receipt<'_>, bytes: u32) -> Arrival {
        let mut arrival = Arrival::default();
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
        self.blocks.len() as u32 - self.free - self.asked
    }

    /// Which of the givers gave each block; the assembly must be whole.
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
        let first = self.blocks.iter().position(|block| matches!(block, Block::Free));
        assert!(first.is_none_or(|first| first >= self.cursor as usize), "{piece}: cursor");
        let given: u32 = self.givers.iter().map(|giver| giver.blocks).sum();
        assert_eq!(given, self.kept(), "{piece}: givers");
        assert_eq!(self.verifying, self.free == 0 && self.asked == 0, "{piece}: verifying");
        assert_eq!(self.place.is_some(), self.free > 0, "{piece}: place");
        let is_owned = self.owner.is_some();
        assert!(!is_owned || self.free > 0 || self.sole, "{piece}: an owner of nothing");
        assert!(is_owned || !self.sole || self.verifying, "{piece}: nobody's alone");
        for block in &self.blocks {
            if let Block::Asked { by, copies, .. } = block {
                let by = &by[..usize::from(*copies)];
                assert!(!by.is_empty(), "{piece}: asked of nobody");
                assert!(!self.sole || by == self.owner.as_slice(), "{piece}: not sole");
                for (at, key) in by.iter().enumerate() {
                    assert!(!by[..at].contains(key), "{piece}: asked twice of {key:?}");
                }
            }
        }
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
            return at as u32;
        }
        self.givers.push(Giver {
            who: Arc::clone(receipt.who),
            blocks: 1,
            ranges: BlockRanges::new(),
            bytes: u64::from(bytes),
            requested_at: receipt.requested_at,
            received_at: receipt.received_at,
        });
        self.givers.len() as u32 - 1
    }
}

/// Tells each giver of a whole piece which blocks were its.
pub(super) fn note_ranges(givers: &mut [Giver], giver_of: &[u32]) {
    if let [only] = givers {
        only.ranges.push((0, giver_of.len().saturating_sub(1) as u32));
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

/// Which of its piece's blocks this is; its `begin` must be a block's.
pub(in crate::swarm) fn index_of(block: BlockRef) -> u32 {
    block.begin / BLOCK_LEN
}

fn asked_once(key: PeerKey, since: Moment) -> Block {
    Block::Asked { by: [key; MAX_COPIES], copies: 1, since }
}
