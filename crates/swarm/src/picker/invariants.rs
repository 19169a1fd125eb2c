//! What must hold of the picker's state between two events.

use super::assembly::{Assembly, Block};
use super::{PickCache, Picker, PieceIndex, Priorities, Stage, Trust};
use crate::PeerKey;
use piecework_core::Bitfield;
use piecework_core::SaturatingFrom;

impl Picker {
    /// Returns whether the request of the block from `key` is late. `None` if there is none.
    pub(crate) fn is_asked(&self, key: PeerKey, piece: PieceIndex, index: u32) -> Option<bool> {
        let Stage::Begun(slot) = self.stage(piece) else { return None };
        self.begun[slot as usize].blocks[index as usize].is_late(key)
    }

    /// Returns whether `key`, which is not snubbed and has room for requests, is not asked for a free or
    /// loose block, or for a piece for which there is memory. Looks at every piece and block.
    pub(crate) fn is_withheld(
        &self,
        key: PeerKey,
        holds: &Bitfield,
        cache: &PickCache,
        trust: Trust,
    ) -> bool {
        let is_for = |assembly: &Assembly| {
            !cache.has_refused(assembly.piece)
                && holds.contains(assembly.piece)
                && (!assembly.sole || assembly.owner == Some(key))
                && assembly.blocks.iter().any(|block| match block {
                    Block::Free => true,
                    Block::Asked { .. } => {
                        trust != Trust::Late && block.is_loose() && !block.is_asked_of(key)
                    }
                    Block::Kept { .. } => false,
                })
        };
        let is_open = |piece: PieceIndex| self.stage(piece) == Stage::Open;
        self.begun.iter().any(|(_, assembly)| is_for(assembly))
            || (self.has_room() && holds.iter().any(is_open))
    }

    /// Panics unless the state is consistent: with itself, with what is held and wanted, with what the
    /// peers hold and with the number of requests they owe.
    pub(crate) fn check<'a>(
        &self,
        held: &Bitfield,
        priorities: &Priorities,
        peers: impl Iterator<Item = &'a Bitfield>,
        is_peer: impl Fn(PeerKey) -> bool,
        owed: usize,
    ) {
        self.buckets.check();
        assert_eq!(self.buckets.priorities(), priorities, "priorities");
        let (mut seeds, mut counts) = (0, vec![0; held.len() as usize]);
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
        assert_eq!(self.stages.is_empty(), held.is_full(), "stages of pieces");
        for (at, count) in counts.into_iter().enumerate() {
            let piece = PieceIndex(u32::saturating_from(at));
            let stage = self.stage(piece);
            let is_wanted = priorities.of(piece).is_wanted();
            assert_eq!(self.buckets.count(piece), count, "availability of {piece}");
            assert_eq!(stage == Stage::Held, held.contains(piece), "stage of {piece}");
            assert_eq!(stage == Stage::Open, self.buckets.is_open(piece), "stage of {piece}");
            match stage {
                Stage::Begun(slot) => {
                    let assembly = &self.begun[slot as usize];
                    assert_eq!(assembly.piece, piece, "slot of {piece}");
                    assert!(is_wanted || assembly.verifying, "{piece} is not wanted");
                    in_memory += u64::from(self.geometry.blocks_in(piece));
                    assembly.check();
                    assert!(assembly.owner.is_none_or(&is_peer), "{piece} is a lost peer's");
                    if let Some(place) = assembly.place {
                        assert_eq!(self.fillable[place as usize], slot, "place of {piece}");
                    }
                }
                Stage::Parked => {
                    parked += 1;
                    assert!(self.parked.contains(&piece), "{piece} is lost");
                    assert!(is_wanted, "{piece} is not wanted");
                }
                Stage::Open => assert!(is_wanted, "{piece} is not wanted"),
                Stage::Skipped => assert!(!is_wanted, "{piece} is wanted"),
                Stage::Held => {}
            }
        }
        assert_eq!(self.parked.len(), parked, "parked pieces");
        assert_eq!(self.held, held.count(), "held pieces");
        assert_eq!(self.in_memory, in_memory, "blocks in memory");
        let verifying = self.begun.iter().filter(|(_, a)| a.verifying).count();
        assert_eq!(self.verifying as usize, verifying, "pieces being verified");
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
}
