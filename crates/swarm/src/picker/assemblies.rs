//! Begun pieces: from the first request to the check, and the memory for them.

use piecework_core::SaturatingFrom;
use slab::Slab;

use super::assembly::{self, Assembly};
use super::pick_request::PickRequest;
use super::selection::{AbandonedPiece, CheckedPiece};
use super::{Picker, Stage};
use piecework_core::PieceIndex;

impl Picker {
    /// Begins a piece. The caller requests blocks of it and then calls [`Picker::settle`]. With `sole` of
    /// `None`, it has no owner; otherwise the peer owns it.
    pub(super) fn begin(
        &mut self,
        piece: PieceIndex,
        request: &mut PickRequest<'_>,
        sole: Option<bool>,
    ) -> u32 {
        if self.buckets.is_open(piece) {
            self.buckets.remove(piece);
        }
        let blocks = self.geometry.blocks_in(piece);
        let mut assembly = Assembly::new(piece, self.spare.pop().unwrap_or_default(), blocks);
        if let Some(sole) = sole {
            assembly.owner = Some(request.key);
            assembly.sole = sole;
            request.cache.mine.push(piece);
        }
        self.in_memory += u64::from(blocks);
        let slot = u32::saturating_from(self.begun.insert(assembly));
        self.stages[piece.0 as usize] = Stage::Begun(slot);
        slot
    }

    pub(super) fn finish(&mut self, piece: PieceIndex) -> Option<CheckedPiece> {
        let Some(Stage::Begun(slot)) = self.stages.get(piece.0 as usize) else { return None };
        let slot = *slot;
        if !self.begun[slot as usize].verifying {
            return None;
        }
        let giver_of = self.begun[slot as usize].giver_of_each();
        let mut givers = self.remove_assembly(slot).givers;
        assembly::note_ranges(&mut givers, &giver_of);
        Some(CheckedPiece { givers, giver_of })
    }

    pub(super) fn abandon(&mut self, slot: u32, park: bool) -> AbandonedPiece {
        let Assembly { piece, givers, .. } = self.remove_assembly(slot);
        self.put_back(piece, park);
        AbandonedPiece { piece, givers }
    }

    pub(super) fn put_back(&mut self, piece: PieceIndex, park: bool) {
        let stage = &mut self.stages[piece.0 as usize];
        if !self.buckets.priority(piece).is_wanted() {
            // It was being verified when it stopped being wanted.
            *stage = Stage::Skipped;
        } else if park {
            *stage = Stage::Parked;
            self.parked.push(piece);
        } else {
            *stage = Stage::Open;
            self.buckets.insert(piece);
            self.reopened += 1;
        }
    }

    /// Releases what only downloads need. Everything is held.
    pub(super) fn retire(&mut self) {
        self.stages = Vec::new();
        self.buckets.retire();
        self.begun = Slab::new();
        self.fillable = Vec::new();
        self.parked = Vec::new();
        self.spare = Vec::new();
        self.doubles = Vec::new();
    }

    /// Removes an assembly and releases its memory. Its piece has no stage until one is set.
    pub(super) fn remove_assembly(&mut self, slot: u32) -> Assembly {
        let mut assembly = self.begun.remove(slot as usize);
        if let Some(place) = assembly.place.take() {
            self.unplace(place);
        }
        self.in_memory -= assembly.blocks.len() as u64;
        self.lacks_memory = false;
        self.verifying -= u32::from(assembly.verifying);
        self.supply += 1;
        if self.spare.len() < MAX_SPARE {
            self.spare.push(std::mem::take(&mut assembly.blocks));
        }
        assembly
    }

    /// Adds a begun piece to the list of those with free or loose blocks, or removes it.
    pub(super) fn settle(&mut self, slot: u32) {
        let assembly = &mut self.begun[slot as usize];
        match assembly.place {
            None if assembly.open(true) > 0 => {
                assembly.place = Some(u32::saturating_from(self.fillable.len()));
                self.fillable.push(slot);
                self.supply += 1;
            }
            Some(place) if assembly.open(true) == 0 => {
                assembly.place = None;
                self.unplace(place);
            }
            None | Some(_) => {}
        }
        let assembly = &mut self.begun[slot as usize];
        if assembly.open(true) == 0 && !assembly.sole {
            assembly.owner = None;
        }
    }

    pub(super) fn unplace(&mut self, place: u32) {
        self.fillable.swap_remove(place as usize);
        if let Some(moved) = self.fillable.get(place as usize) {
            self.begun[*moved as usize].place = Some(place);
        }
    }
}

/// How many block lists are kept for later pieces, so that beginning one does not allocate.
const MAX_SPARE: usize = 64;
