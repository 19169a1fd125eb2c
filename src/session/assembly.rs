//! Pieces on their way from the network to the disk.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::{BlockBuf, BlockRef, Geometry, PieceIndex};
use crate::storage::{FinishPiece, Finished, HashPool, StorageError, Store};
use crate::swarm::BufferId;

/// The buffers of one torrent that are not yet written, by piece.
///
/// A piece waits in memory until it is whole, is hashed there and written once. Pieces longer than
/// [`STREAM_OVER`] would need more memory than a session has: their blocks go to their place on
/// disk as they come, and the piece is read back to be hashed; it counts as held only then.
pub(super) struct Assembly {
    geometry: Geometry,
    store: Arc<Store>,
    done: Arc<dyn Fn(Step) + Send + Sync>,
    /// Buffers the swarm has been told of and has not decided on. Decisions come within the same
    /// turn, so this is empty between turns.
    undecided: Vec<Option<BlockBuf>>,
    first_undecided: u64,
    pieces: HashMap<PieceIndex, Piece>,
    writing: usize,
}

/// Something the hash service finished.
#[derive(Debug)]
pub(super) enum Step {
    /// A piece was hashed, and written if it was right.
    Piece { piece: PieceIndex, finished: Finished },
    /// A block of a long piece was written.
    Block { piece: PieceIndex, error: Option<StorageError> },
}

#[derive(Default)]
struct Piece {
    blocks: Vec<Option<BlockBuf>>,
    /// Blocks on their way to disk.
    writing: u32,
    failed: Option<StorageError>,
    /// The swarm wants it verified as soon as nothing is on its way.
    verify: Option<bool>,
}

impl Assembly {
    /// `done` is called on the hash service's threads.
    pub fn new(
        geometry: Geometry,
        store: Arc<Store>,
        done: impl Fn(Step) + Send + Sync + 'static,
    ) -> Self {
        Self {
            geometry,
            store,
            done: Arc::new(done),
            undecided: Vec::new(),
            first_undecided: 0,
            pieces: HashMap::new(),
            writing: 0,
        }
    }

    /// A received buffer; the id is for the swarm.
    pub fn received(&mut self, data: BlockBuf) -> BufferId {
        self.undecided.push(Some(data));
        BufferId(self.first_undecided + self.undecided.len() as u64 - 1)
    }

    /// The swarm keeps the buffer.
    pub fn keep(&mut self, hashing: &HashPool, buffer: BufferId, block: BlockRef) {
        let Some(data) = self.take(buffer) else { return };
        let Some(index) = self.geometry.block_index(block) else { return };
        let piece = self.pieces.entry(block.piece).or_default();
        if self.geometry.piece_len() > STREAM_OVER {
            piece.writing += 1;
            self.writing += 1;
            let done = Arc::clone(&self.done);
            let written = move |written: Result<(), StorageError>| {
                done(Step::Block { piece: block.piece, error: written.err() });
            };
            hashing.write_block(Arc::clone(&self.store), block, data, written);
            return;
        }
        let blocks = self.geometry.blocks_in(block.piece) as usize;
        piece.blocks.resize_with(blocks, || None);
        piece.blocks[index as usize] = Some(data);
    }

    /// The swarm does not want the buffer.
    pub fn discard(&mut self, buffer: BufferId) {
        drop(self.take(buffer));
    }

    /// Every decision on buffers of this turn has been taken.
    pub fn turn_over(&mut self) {
        debug_assert!(self.undecided.iter().all(Option::is_none), "a buffer was not decided on");
        self.first_undecided += self.undecided.len() as u64;
        self.undecided.clear();
    }

    /// All blocks of `piece` are kept: hash it.
    pub fn verify(&mut self, hashing: &HashPool, piece: PieceIndex, want_digests: bool) {
        if self.geometry.piece_len() > STREAM_OVER {
            let waiting = self.pieces.entry(piece).or_default();
            waiting.verify = Some(want_digests);
            self.verify_on_disk(hashing, piece);
            return;
        }
        let blocks = self.pieces.remove(&piece).map(|piece| piece.blocks).unwrap_or_default();
        let done = Arc::clone(&self.done);
        hashing.finish_piece(FinishPiece {
            store: Arc::clone(&self.store),
            piece,
            blocks: blocks.into_iter().flatten().collect(),
            want_digests,
            done: Box::new(move |finished| done(Step::Piece { piece, finished })),
        });
    }

    /// Throws away what is there of `piece`.
    pub fn drop_piece(&mut self, piece: PieceIndex) {
        match self.pieces.get_mut(&piece) {
            Some(state) if state.writing > 0 => state.verify = None,
            _ => drop(self.pieces.remove(&piece)),
        }
    }

    /// A block of a long piece has been written, or has not. Gives the outcome of the piece if
    /// that settles it.
    pub fn block_written(
        &mut self,
        hashing: &HashPool,
        piece: PieceIndex,
        error: Option<StorageError>,
    ) -> Option<Step> {
        self.writing = self.writing.saturating_sub(1);
        let state = self.pieces.get_mut(&piece)?;
        state.writing = state.writing.saturating_sub(1);
        if error.is_some() {
            state.failed = error;
        }
        if state.writing == 0 && state.verify.is_some() {
            if let Some(error) = state.failed.take() {
                self.pieces.remove(&piece);
                return Some(Step::Piece { piece, finished: Finished::Failed(error) });
            }
            self.verify_on_disk(hashing, piece);
        }
        None
    }

    /// Whether so much waits for the disk that peers must wait too.
    pub fn is_behind(&self) -> bool {
        self.writing > WRITES_MOST
    }

    fn verify_on_disk(&mut self, hashing: &HashPool, piece: PieceIndex) {
        let ready = |state: &Piece| state.writing == 0 && state.failed.is_none();
        let Some(want_digests) =
            self.pieces.get(&piece).filter(|state| ready(state)).and_then(|state| state.verify)
        else {
            return;
        };
        self.pieces.remove(&piece);
        let done = Arc::clone(&self.done);
        let finished = move |finished| done(Step::Piece { piece, finished });
        hashing.finish_piece_on_disk(Arc::clone(&self.store), piece, want_digests, finished);
    }

    fn take(&mut self, buffer: BufferId) -> Option<BlockBuf> {
        let index = buffer.0.checked_sub(self.first_undecided)?;
        self.undecided.get_mut(usize::try_from(index).ok()?)?.take()
    }
}

/// Pieces up to 16 MiB are assembled in memory: four of them fill the default budget.
pub(super) const STREAM_OVER: u32 = 16 << 20;

/// Blocks on their way to disk, of pieces that are streamed: 16 MiB.
const WRITES_MOST: usize = 1_024;
