//! Pieces on their way from the network to the disk.

use piecework_core::SaturatingFrom;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::sync::mpsc;

use piecework_core::{BlockBuf, BlockRef, Geometry, PieceIndex};
use piecework_storage::{FinishPiece, HashPool, Operation, PieceResult, StorageError, Store};
use piecework_swarm::BufferId;

use super::memory::Portion;

/// The buffers of one torrent that are not yet written, by piece.
///
/// A piece waits in memory until it is whole, is hashed there and written once. Pieces longer than
/// [`STREAM_OVER`] would need more memory than a session has, and for others there may be none
/// left. Blocks of such pieces are written as they come, and the piece is read back to be hashed;
/// it counts as held only then.
pub(super) struct Assembly {
    geometry: Geometry,
    store: Arc<Store>,
    /// Where the hash service's threads send their results.
    steps: mpsc::Sender<Step>,
    /// Buffers that the swarm was told of and has not decided on. It decides within the same turn,
    /// so this is empty between turns.
    undecided: Vec<Option<BlockBuf>>,
    first_undecided: u64,
    pieces: HashMap<PieceIndex, Piece>,
    portion: Portion,
    /// Blocks that were kept since [`Assembly::take_came`] was last called.
    came: u64,
    /// Blocks that are being written on their own.
    writing: usize,
    /// Jobs that the hash service has not answered.
    under_way: usize,
}

/// A result of the hash service.
#[derive(Debug)]
pub(super) enum Step {
    /// A piece was hashed, and written if it was right. Until now it took memory for `blocks`.
    Piece { piece: PieceIndex, finished: PieceResult, blocks: u32 },
    /// A block was written on its own.
    Block { piece: PieceIndex, error: Option<StorageError> },
}

#[derive(Default)]
struct Piece {
    /// Blocks that memory is reserved for; 0 if they are written as they come.
    reserved: u32,
    blocks: Vec<Option<BlockBuf>>,
    /// Blocks that are being written.
    writing: u32,
    /// Blocks of the dropped piece that are still being written.
    stale: u32,
    /// Blocks that wait for the stale ones, which might otherwise overwrite them.
    held: Vec<(BlockRef, BlockBuf)>,
    failed: Option<StorageError>,
    /// The swarm wants it verified as soon as no block is being written.
    verify: Option<bool>,
}

/// The answer that a job owes. A job that panics answers as well, because the swarm waits for it.
struct Answer {
    steps: mpsc::Sender<Step>,
    store: Arc<Store>,
    piece: PieceIndex,
    /// Blocks that the piece has memory for; `None` for a single block.
    reserved: Option<u32>,
    given: bool,
}

impl Assembly {
    /// Returns an empty assembly. The hash service's results go to `steps`.
    pub(crate) fn new(
        geometry: Geometry,
        store: Arc<Store>,
        steps: mpsc::Sender<Step>,
        portion: Portion,
    ) -> Self {
        Self {
            geometry,
            store,
            steps,
            undecided: Vec::new(),
            first_undecided: 0,
            pieces: HashMap::new(),
            portion,
            came: 0,
            writing: 0,
            under_way: 0,
        }
    }

    /// Registers a received buffer. Returns its id for the swarm.
    pub(crate) fn received(&mut self, data: BlockBuf) -> BufferId {
        self.undecided.push(Some(data));
        BufferId(self.first_undecided + self.undecided.len() as u64 - 1)
    }

    /// Keeps the buffer, as the swarm wants.
    pub(crate) fn keep(&mut self, hashing: &HashPool, buffer: BufferId, block: BlockRef) {
        let Some(data) = self.take(buffer) else { return };
        let Some(index) = self.geometry.block_index(block) else { return };
        self.came += 1;
        let blocks = self.geometry.blocks_in(block.piece);
        let is_long = self.geometry.piece_len() > STREAM_OVER;
        let piece = match self.pieces.entry(block.piece) {
            Entry::Occupied(piece) => piece.into_mut(),
            Entry::Vacant(new) => {
                let reserved = if !is_long && self.portion.reserve(blocks) { blocks } else { 0 };
                new.insert(Piece { reserved, ..Piece::default() })
            }
        };
        if piece.reserved > 0 {
            piece.blocks.resize_with(blocks as usize, || None);
            piece.blocks[index as usize] = Some(data);
            return;
        }
        self.writing += 1;
        if piece.stale > 0 {
            piece.held.push((block, data));
        } else {
            piece.writing += 1;
            self.write(hashing, block, data);
        }
    }

    /// Returns how many blocks were kept since the last call.
    pub(crate) fn take_came(&mut self) -> u64 {
        std::mem::take(&mut self.came)
    }

    /// Returns the torrent's part of the session's memory.
    pub(crate) fn portion(&mut self) -> &mut Portion {
        &mut self.portion
    }

    /// Returns when the torrent's share has changed: others lack memory that
    /// [`Assembly::give_back`] can give, or there is more.
    pub(crate) async fn nudged(&self) {
        self.portion.nudged().await;
    }

    /// Writes blocks of pieces in memory to the disk until no more is reserved than the torrent's
    /// share, beginning with the pieces of which least has come.
    pub(crate) fn give_back(&mut self, hashing: &HashPool) {
        let in_memory = self.pieces.iter().filter(|(_, piece)| piece.reserved > 0);
        let mut pieces: Vec<(usize, u32, PieceIndex)> = in_memory
            .map(|(index, piece)| (piece.blocks.iter().flatten().count(), piece.reserved, *index))
            .collect();
        pieces.sort_unstable();
        let mut over = self.portion.excess();
        for (_, reserved, index) in pieces {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(u64::from(reserved));
            self.spill(hashing, index);
        }
    }

    /// Turns a piece in memory into one whose blocks are written as they come.
    fn spill(&mut self, hashing: &HashPool, index: PieceIndex) {
        let Some(piece) = self.pieces.get_mut(&index) else { return };
        let reserved = std::mem::take(&mut piece.reserved);
        let blocks = std::mem::take(&mut piece.blocks).into_iter().enumerate();
        let blocks: Vec<(usize, BlockBuf)> =
            blocks.filter_map(|(at, block)| Some((at, block?))).collect();
        piece.writing += u32::saturating_from(blocks.len());
        self.writing += blocks.len();
        self.portion.release(reserved);
        for (at, data) in blocks {
            self.write(hashing, self.geometry.block(index, u32::saturating_from(at)), data);
        }
    }

    /// Drops the buffer, as the swarm wants.
    pub(crate) fn discard(&mut self, buffer: BufferId) {
        drop(self.take(buffer));
    }

    /// Frees buffers that the swarm has not decided on in this turn. There are none unless the
    /// swarm has a fault.
    pub(crate) fn turn_over(&mut self) {
        debug_assert!(self.undecided.iter().all(Option::is_none), "a buffer was not decided on");
        self.first_undecided += self.undecided.len() as u64;
        self.undecided.clear();
    }

    /// Verifies `piece`, all of whose blocks are kept.
    pub(crate) fn verify(&mut self, hashing: &HashPool, piece: PieceIndex, want_digests: bool) {
        let waiting = self.pieces.entry(piece).or_default();
        if waiting.reserved == 0 {
            waiting.verify = Some(want_digests);
            self.verify_on_disk(hashing, piece);
            return;
        }
        let (reserved, blocks) = (waiting.reserved, std::mem::take(&mut waiting.blocks));
        self.pieces.remove(&piece);
        let answer = self.answer(piece, Some(reserved));
        hashing.finish_piece(FinishPiece {
            store: Arc::clone(&self.store),
            piece,
            blocks: blocks.into_iter().flatten().collect(),
            want_digests,
            done: Box::new(move |finished| {
                answer.give(Step::Piece { piece, finished, blocks: reserved });
            }),
        });
    }

    /// Drops what there is of `piece`.
    pub(crate) fn drop_piece(&mut self, piece: PieceIndex) {
        let Some(state) = self.pieces.get_mut(&piece) else { return };
        self.writing -= state.held.len();
        let reserved = std::mem::take(&mut state.reserved);
        self.portion.release(reserved);
        let stale = state.stale + state.writing;
        if stale == 0 {
            self.pieces.remove(&piece);
        } else {
            *state = Piece { stale, ..Piece::default() };
        }
    }

    /// Takes in a result. Returns the outcome of a piece if that settles one.
    pub(crate) fn stepped(
        &mut self,
        hashing: &HashPool,
        step: Step,
    ) -> Option<(PieceIndex, PieceResult)> {
        self.under_way = self.under_way.saturating_sub(1);
        match step {
            Step::Piece { piece, finished, blocks } => {
                self.portion.release(blocks);
                Some((piece, finished))
            }
            Step::Block { piece, error } => {
                self.writing = self.writing.saturating_sub(1);
                self.portion.release(1);
                self.block_written(hashing, piece, error).map(|finished| (piece, finished))
            }
        }
    }

    /// Returns whether so much waits for the disk that peers must wait too.
    pub(crate) fn is_behind(&self) -> bool {
        self.writing > if self.portion.is_full() { WRITES_LEAST } else { WRITES_MOST }
    }

    /// Returns whether results are outstanding.
    pub(crate) fn is_working(&self) -> bool {
        self.under_way > 0
    }

    fn block_written(
        &mut self,
        hashing: &HashPool,
        piece: PieceIndex,
        error: Option<StorageError>,
    ) -> Option<PieceResult> {
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
                // At once, not only when the piece is whole: until then much would come in vain.
                return Some(PieceResult::Failed(error));
            }
            state.failed = Some(error);
        }
        if state.writing == 0 && state.verify.is_some() {
            if let Some(error) = state.failed.take() {
                self.pieces.remove(&piece);
                return Some(PieceResult::Failed(error));
            }
            self.verify_on_disk(hashing, piece);
        }
        None
    }

    /// Writes the held blocks when the last stale one is done.
    fn write_held(&mut self, hashing: &HashPool, piece: PieceIndex) {
        let Some(state) = self.pieces.get_mut(&piece) else { return };
        let held = std::mem::take(&mut state.held);
        if held.is_empty() {
            self.pieces.remove(&piece);
            return;
        }
        state.writing = u32::saturating_from(held.len());
        for (block, data) in held {
            self.write(hashing, block, data);
        }
    }

    fn write(&mut self, hashing: &HashPool, block: BlockRef, data: BlockBuf) {
        let piece = block.piece;
        self.portion.hold();
        let answer = self.answer(piece, None);
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
        let answer = self.answer(piece, Some(0));
        let finished = move |finished| answer.give(Step::Piece { piece, finished, blocks: 0 });
        hashing.finish_piece_on_disk(Arc::clone(&self.store), piece, want_digests, finished);
    }

    fn answer(&mut self, piece: PieceIndex, reserved: Option<u32>) -> Answer {
        self.under_way += 1;
        let (steps, store) = (self.steps.clone(), Arc::clone(&self.store));
        Answer { steps, store, piece, reserved, given: false }
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

    /// Called on the hash service's threads, which may block.
    fn send(&mut self, step: Step) {
        self.given = true;
        // A torrent that is gone needs no results.
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
        self.send(match self.reserved {
            None => Step::Block { piece, error: Some(error) },
            Some(blocks) => Step::Piece { piece, finished: PieceResult::Failed(error), blocks },
        });
    }
}

/// Pieces up to 16 MiB are assembled in memory: four of them fill the default budget.
pub(super) const STREAM_OVER: u32 = 16 << 20;

/// Blocks that are written on their own at a time: 16 MiB, or 256 KiB while all memory is in use.
const WRITES_MOST: usize = 1_024;
const WRITES_LEAST: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::memory::Memory;
    use super::*;
    use piecework_core::BlockPool;
    use piecework_storage::{CreateOptions, FileHandles, StoreMode, create};

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
            Self::with_memory(mode, 2 * STREAM_OVER, 4096)
        }

        /// Pieces of `piece_len` bytes, and memory for so many blocks.
        fn with_memory(mode: StoreMode, piece_len: u32, memory: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let content: Vec<u8> = (0..40_000u32).map(|i| (i / 3) as u8).collect();
            let path = dir.path().join("file");
            std::fs::write(&path, &content).unwrap();
            let options = CreateOptions { piece_len: Some(piece_len), ..CreateOptions::default() };
            let created = create(&path, options, 1, |_| {}, &AtomicBool::new(false)).unwrap();
            std::fs::remove_file(&path).unwrap();
            let metainfo = Arc::new(created.metainfo);
            let handles = Arc::new(FileHandles::new(8));
            let store = Store::new(dir.path(), Arc::clone(&metainfo), handles, mode).unwrap();
            store.prepare().unwrap();
            let (steps_tx, steps) = mpsc::channel(64);
            let geometry = metainfo.info().geometry();
            let portion = Arc::new(Memory::new(memory)).portion();
            let assembly = Assembly::new(geometry, Arc::new(store), steps_tx, portion);
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

        fn outcome(&mut self) -> PieceResult {
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
        assert_eq!(bench.outcome(), PieceResult::Verified { digests: Vec::new() });
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
        assert!(matches!(bench.outcome(), PieceResult::Failed(_)));
    }

    #[test]
    fn a_corrupt_long_piece_is_found_on_the_disk_with_each_block_digest() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        (0..3).for_each(|index| bench.keep(index, u8::from(index == 1)));
        bench.assembly.verify(&bench.hashing, PIECE, false);
        let PieceResult::Corrupt { digests, .. } = bench.outcome() else { panic!("it is corrupt") };
        assert_eq!(digests.len(), 3);
    }

    #[test]
    fn a_piece_without_memory_goes_to_the_disk_block_by_block_and_is_right() {
        let mut bench = Bench::with_memory(StoreMode::ReadWrite, 1 << 16, 2);
        (0..3).for_each(|index| bench.keep(index, 0));
        assert!(bench.assembly.pieces[&PIECE].blocks.is_empty());
        bench.assembly.verify(&bench.hashing, PIECE, false);
        assert_eq!(bench.outcome(), PieceResult::Verified { digests: Vec::new() });
        assert_eq!(bench.assembly.portion.used(), 0);
    }

    #[test]
    fn memory_of_a_piece_is_given_back_before_it_is_whole_and_it_is_right_all_the_same() {
        let mut bench = Bench::with_memory(StoreMode::ReadWrite, 1 << 16, 64);
        (0..2).for_each(|index| bench.keep(index, 0));
        assert_eq!(bench.assembly.portion.used(), 3);
        // It has told of nothing that came, so its share is an eighth.
        assert_eq!(bench.assembly.portion.excess(), 0);
        bench.assembly.spill(&bench.hashing, PIECE);
        bench.keep(2, 0);
        assert_eq!((bench.assembly.portion.used(), bench.assembly.writing), (3, 3));
        bench.assembly.verify(&bench.hashing, PIECE, false);
        assert_eq!(bench.outcome(), PieceResult::Verified { digests: Vec::new() });
        assert_eq!((bench.assembly.portion.used(), bench.assembly.writing), (0, 0));
        assert!(bench.assembly.pieces.is_empty());
    }

    #[test]
    fn a_piece_in_memory_keeps_its_room_until_it_is_written_or_dropped() {
        let mut bench = Bench::with_memory(StoreMode::ReadWrite, 1 << 16, 64);
        bench.keep(0, 0);
        bench.assembly.drop_piece(PIECE);
        assert_eq!(bench.assembly.portion.used(), 0);
        (0..3).for_each(|index| bench.keep(index, 0));
        bench.assembly.verify(&bench.hashing, PIECE, false);
        assert_eq!(bench.assembly.portion.used(), 3);
        assert_eq!(bench.outcome(), PieceResult::Verified { digests: Vec::new() });
        assert_eq!(bench.assembly.portion.used(), 0);
    }

    #[test]
    fn work_that_breaks_off_is_answered_all_the_same() {
        let mut bench = Bench::new(StoreMode::ReadWrite);
        drop(bench.assembly.answer(PIECE, Some(0)));
        assert!(matches!(bench.outcome(), PieceResult::Failed(_)));
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
