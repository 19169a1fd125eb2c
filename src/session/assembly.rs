//! Pieces on their way from the network to the disk.

use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::mpsc;

use crate::base::{BlockBuf, BlockRef, Geometry, PieceIndex};
use crate::storage::{FinishPiece, Finished, HashPool, Operation, StorageError, Store};
use crate::swarm::BufferId;

/// The buffers of one torrent that are not yet written, by piece.
///
/// A piece waits in memory until it is whole, is hashed there and written once. Pieces longer than
/// [`STREAM_OVER`] would need more memory than a session has: their blocks go to their place on
/// disk as they come, and the piece is read back to be hashed; it counts as held only then.
pub(super) struct Assembly {
    geometry: Geometry,
    store: Arc<Store>,
    /// Where the hash service's threads put what they have finished.
    steps: mpsc::Sender<Step>,
    /// Buffers the swarm has been told of and has not decided on. Decisions come within the same
    /// turn, so this is empty between turns.
    undecided: Vec<Option<BlockBuf>>,
    first_undecided: u64,
    pieces: HashMap<PieceIndex, Piece>,
    /// Blocks of long pieces that are not on disk yet.
    writing: usize,
    /// Jobs the hash service has not answered.
    under_way: usize,
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
    /// Blocks on their way to disk that the piece had before it was dropped.
    stale: u32,
    /// Blocks that wait for the stale ones: those might come last and undo them.
    held: Vec<(BlockRef, BlockBuf)>,
    failed: Option<StorageError>,
    /// The swarm wants it verified as soon as nothing is on its way.
    verify: Option<bool>,
}

/// The answer that a job owes. A job that breaks off answers as well: the swarm waits for it.
struct Answer {
    steps: mpsc::Sender<Step>,
    store: Arc<Store>,
    piece: PieceIndex,
    is_block: bool,
    given: bool,
}

impl Assembly {
    /// What the hash service finishes comes to `steps`.
    pub fn new(geometry: Geometry, store: Arc<Store>, steps: mpsc::Sender<Step>) -> Self {
        Self {
            geometry,
            store,
            steps,
            undecided: Vec::new(),
            first_undecided: 0,
            pieces: HashMap::new(),
            writing: 0,
            under_way: 0,
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
            self.writing += 1;
            if piece.stale > 0 {
                piece.held.push((block, data));
            } else {
                piece.writing += 1;
                self.write(hashing, block, data);
            }
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

    /// Every decision on buffers of this turn has been taken. One that the swarm forgot would be
    /// a fault of the swarm; its buffer is freed all the same.
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
        let answer = self.answer(piece, false);
        hashing.finish_piece(FinishPiece {
            store: Arc::clone(&self.store),
            piece,
            blocks: blocks.into_iter().flatten().collect(),
            want_digests,
            done: Box::new(move |finished| answer.give(Step::Piece { piece, finished })),
        });
    }

    /// Throws away what is there of `piece`.
    pub fn drop_piece(&mut self, piece: PieceIndex) {
        let Some(state) = self.pieces.get_mut(&piece) else { return };
        self.writing -= state.held.len();
        let stale = state.stale + state.writing;
        if stale == 0 {
            self.pieces.remove(&piece);
        } else {
            *state = Piece { stale, ..Piece::default() };
        }
    }

    /// A step has come out of the channel. Gives the outcome of a piece if that settles one.
    pub fn stepped(&mut self, hashing: &HashPool, step: Step) -> Option<(PieceIndex, Finished)> {
        self.under_way = self.under_way.saturating_sub(1);
        match step {
            Step::Piece { piece, finished } => Some((piece, finished)),
            Step::Block { piece, error } => {
                self.writing = self.writing.saturating_sub(1);
                self.block_written(hashing, piece, error).map(|finished| (piece, finished))
            }
        }
    }

    /// Whether so much waits for the disk that peers must wait too.
    pub fn is_behind(&self) -> bool {
        self.writing > WRITES_MOST
    }

    /// Whether there are steps to come.
    pub fn is_working(&self) -> bool {
        self.under_way > 0
    }

    fn block_written(
        &mut self,
        hashing: &HashPool,
        piece: PieceIndex,
        error: Option<StorageError>,
    ) -> Option<Finished> {
        let state = self.pieces.get_mut(&piece)?;
        if state.stale > 0 {
            state.stale -= 1;
            if state.stale == 0 {
                self.write_held(hashing, piece);
            }
            return None;
        }
        state.writing = state.writing.saturating_sub(1);
        if let Some(error) = error {
            if state.verify.is_none() {
                // Not only when the piece is whole: until then much would come in vain.
                return Some(Finished::Failed(error));
            }
            state.failed = Some(error);
        }
        if state.writing == 0 && state.verify.is_some() {
            if let Some(error) = state.failed.take() {
                self.pieces.remove(&piece);
                return Some(Finished::Failed(error));
            }
            self.verify_on_disk(hashing, piece);
        }
        None
    }

    /// The last stale block is out of the way.
    fn write_held(&mut self, hashing: &HashPool, piece: PieceIndex) {
        let Some(state) = self.pieces.get_mut(&piece) else { return };
        let held = std::mem::take(&mut state.held);
        if held.is_empty() {
            self.pieces.remove(&piece);
            return;
        }
        state.writing = held.len() as u32;
        for (block, data) in held {
            self.write(hashing, block, data);
        }
    }

    fn write(&mut self, hashing: &HashPool, block: BlockRef, data: BlockBuf) {
        let piece = block.piece;
        let answer = self.answer(piece, true);
        let written = move |written: Result<(), StorageError>| {
            answer.give(Step::Block { piece, error: written.err() });
        };
        hashing.write_block(Arc::clone(&self.store), block, data, written);
    }

    fn verify_on_disk(&mut self, hashing: &HashPool, piece: PieceIndex) {
        let ready = |state: &Piece| state.writing + state.stale == 0;
        let Some(want_digests) =
            self.pieces.get(&piece).filter(|state| ready(state)).and_then(|state| state.verify)
        else {
            return;
        };
        self.pieces.remove(&piece);
        let answer = self.answer(piece, false);
        let finished = move |finished| answer.give(Step::Piece { piece, finished });
        hashing.finish_piece_on_disk(Arc::clone(&self.store), piece, want_digests, finished);
    }

    fn answer(&mut self, piece: PieceIndex, is_block: bool) -> Answer {
        self.under_way += 1;
        let (steps, store) = (self.steps.clone(), Arc::clone(&self.store));
        Answer { steps, store, piece, is_block, given: false }
    }

    fn take(&mut self, buffer: BufferId) -> Option<BlockBuf> {
        let index = buffer.0.checked_sub(self.first_undecided)?;
        self.undecided.get_mut(usize::try_from(index).ok()?)?.take()
    }
}

impl Answer {
    fn give(mut self, step: Step) {
        self.send(step);
    }

    /// On the hash service's threads, which may wait.
    fn send(&mut self, step: Step) {
        self.given = true;
        // A torrent that is gone needs no more steps.
        let _ = self.steps.blocking_send(step);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.given {
            return;
        }
        let error = StorageError::Other {
            operation: Operation::Write,
            path: self.store.root().to_owned(),
            reason: format!("the work on piece `{}` broke off", self.piece),
        };
        let piece = self.piece;
        self.send(match self.is_block {
            true => Step::Block { piece, error: Some(error) },
            false => Step::Piece { piece, finished: Finished::Failed(error) },
        });
    }
}

/// Pieces up to 16 MiB are assembled in memory: four of them fill the default budget.
pub(super) const STREAM_OVER: u32 = 16 << 20;

/// Blocks on their way to disk, of pieces that are streamed: 16 MiB.
const WRITES_MOST: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::base::BlockPool;
    use crate::storage::{CreateOptions, FileHandles, StoreMode, create};

    /// A torrent of one long piece with three blocks, and where it is written to.
    struct Bench {
        assembly: Assembly,
        steps: mpsc::Receiver<Step>,
        hashing: HashPool,
        content: Vec<u8>,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new(mode: StoreMode) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let content: Vec<u8> = (0..40_000u32).map(|i| (i / 3) as u8).collect();
            let path = dir.path().join("file");
            std::fs::write(&path, &content).unwrap();
            let options =
                CreateOptions { piece_len: Some(2 * STREAM_OVER), ..CreateOptions::default() };
            let created = create(&path, options, 1, |_| {}, &AtomicBool::new(false)).unwrap();
            std::fs::remove_file(&path).unwrap();
            let metainfo = Arc::new(created.metainfo);
            let handles = Arc::new(FileHandles::new(8));
            let store = Store::new(dir.path(), Arc::clone(&metainfo), handles, mode).unwrap();
            store.prepare().unwrap();
            let (steps_tx, steps) = mpsc::channel(64);
            let geometry = metainfo.info().geometry();
            let assembly = Assembly::new(geometry, Arc::new(store), steps_tx);
            let hashing = HashPool::new(1).unwrap();
            Self { assembly, steps, hashing, content, _dir: dir }
        }

        /// The swarm keeps block `index`, its bytes changed by `twist`.
        fn keep(&mut self, index: u32, twist: u8) {
            let block = self.assembly.geometry.block(PIECE, index);
            let span = self.assembly.geometry.block_span(block);
            let mut data = self.content[span.start as usize..span.end as usize].to_vec();
            data[0] ^= twist;
            let buffer = self.assembly.received(BlockPool::new(4).copy_of(&data));
            self.assembly.keep(&self.hashing, buffer, block);
            self.assembly.turn_over();
        }

        fn outcome(&mut self) -> Finished {
            loop {
                let step = self.steps.blocking_recv().unwrap();
                if let Some((_, finished)) = self.assembly.stepped(&self.hashing, step) {
                    return finished;
                }
            }
        }
    }

    const PIECE: PieceIndex = PieceIndex(0);

    #[test]
    fn blocks_of_a_dropped_long_piece_cannot_undo_later_ones() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        // All threads that write wait until everything is queued.
        let (open, closed) = std::sync::mpsc::channel::<()>();
        let closed = Arc::new(parking_lot::Mutex::new(closed));
        for _ in 0..32 {
            let closed = Arc::clone(&closed);
            bench.hashing.run(move || assert!(closed.lock().recv().is_err()));
        }
        (0..3).for_each(|index| bench.keep(index, 0xff));
        bench.assembly.drop_piece(PIECE);
        (0..3).for_each(|index| bench.keep(index, 0));
        bench.assembly.verify(&bench.hashing, PIECE, false);
        drop(open);
        assert_eq!(bench.outcome(), Finished::Verified { digests: Vec::new() });
        assert!(!bench.assembly.is_working());
        assert!(bench.assembly.pieces.is_empty());
        assert_eq!(bench.assembly.writing, 0);
    }

    #[test]
    fn a_dropped_long_piece_leaves_nothing_behind() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        bench.keep(0, 0);
        bench.assembly.drop_piece(PIECE);
        bench.keep(1, 0);
        bench.assembly.drop_piece(PIECE);
        while bench.assembly.is_working() {
            let step = bench.steps.blocking_recv().unwrap();
            assert!(bench.assembly.stepped(&bench.hashing, step).is_none());
        }
        assert!(bench.assembly.pieces.is_empty());
        assert_eq!(bench.assembly.writing, 0);
    }

    #[test]
    fn a_disk_that_refuses_a_block_is_told_before_the_piece_is_whole() {
        let mut bench = Bench::new(StoreMode::ReadOnly);
        bench.keep(0, 0);
        assert!(matches!(bench.outcome(), Finished::Failed(_)));
    }

    #[test]
    fn a_corrupt_long_piece_is_found_on_the_disk_with_each_block_digest() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        (0..3).for_each(|index| bench.keep(index, u8::from(index == 1)));
        bench.assembly.verify(&bench.hashing, PIECE, false);
        let Finished::Corrupt { digests, .. } = bench.outcome() else { panic!("it is corrupt") };
        assert_eq!(digests.len(), 3);
    }

    #[test]
    fn work_that_breaks_off_is_answered_all_the_same() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        drop(bench.assembly.answer(PIECE, false));
        assert!(matches!(bench.outcome(), Finished::Failed(_)));
        assert!(!bench.assembly.is_working());
    }

    #[test]
    fn a_buffer_that_is_decided_on_too_late_is_gone_and_harms_nothing() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        let pool = BlockPool::new(4);
        let (one, two) = (pool.copy_of(b"a"), pool.copy_of(b"b"));
        let all = pool.spare() + 2;
        let first = bench.assembly.received(one);
        bench.assembly.discard(first);
        bench.assembly.turn_over();
        let second = bench.assembly.received(two);
        bench.assembly.discard(first);
        assert_eq!(pool.spare(), all - 1);
        bench.assembly.discard(second);
        assert_eq!(pool.spare(), all);
    }
}
