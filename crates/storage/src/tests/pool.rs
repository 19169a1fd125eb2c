use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::job_queue::{Job, Jobs};
use crate::{FinishPiece, HashPool, PieceResult, StorageError, Watch};
use piecework_core::{BlockBuf, BlockPool};

const BLOCK: usize = piecework_core::BLOCK_LEN as usize;

fn blocks(pool: &BlockPool, bytes: &[u8]) -> Vec<BlockBuf> {
    bytes.chunks(BLOCK).map(|block| pool.copy_of(block)).collect()
}

/// A watch to which all files are new.
fn watch(store: &Store) -> Arc<Watch> {
    let files = store.metainfo().info().files().entries().len();
    Arc::new(Watch::new(bitvec::vec::BitVec::repeat(false, files), &[]))
}

fn digests(bytes: &[u8]) -> Vec<[u8; 20]> {
    digest_each(bytes.chunks(BLOCK))
}

/// Passes `bytes` to the pool as a piece. Returns the result, and how many buffers were free when
/// it came.
fn finish(
    store: &Arc<Store>,
    piece: u32,
    bytes: &[u8],
    want_digests: bool,
) -> (PieceResult, usize) {
    let (hashing, buffers) = (HashPool::new(2).unwrap(), BlockPool::new(1_000));
    let (answer, answers) = mpsc::channel();
    let (store, blocks) = (Arc::clone(store), blocks(&buffers, bytes));
    let before = buffers.spare();
    let done = Box::new(move |finished| {
        answer.send((finished, buffers.spare() - before)).unwrap();
    });
    let piece = PieceIndex(piece);
    hashing.finish_piece(FinishPiece { store, piece, blocks, want_digests, done });
    answers.recv().unwrap()
}

#[test]
fn a_right_piece_is_written_and_its_buffers_are_back_before_the_answer() {
    let torrent = Fixture::folder(&[("a", 50_000), ("b", 90_000)], 4 * PIECE);
    let store = torrent.prepared(false);
    let finished = finish(&store, 0, torrent.piece(0), false);
    assert_eq!(finished, (PieceResult::Verified { digests: vec![] }, 4));
    let last = finish(&store, 2, torrent.piece(2), true);
    assert_eq!(last, (PieceResult::Verified { digests: digests(torrent.piece(2)) }, 1));
    assert_eq!(fs::read(torrent.path("a")).unwrap(), torrent.content[..50_000]);
    let mut back = vec![0; torrent.piece(2).len()];
    store.read_at(8 * PIECE as u64, &mut back).unwrap();
    assert_eq!(back, torrent.piece(2));
}

#[test]
fn a_corrupt_piece_is_told_block_by_block_and_not_written() {
    let torrent = Fixture::single(4 * PIECE, 4 * PIECE);
    let store = torrent.prepared(false);
    let mut wrong = torrent.content.clone();
    wrong[BLOCK + 3] ^= 1;
    let (finished, spare) = finish(&store, 0, &wrong, false);
    assert_eq!(spare, 4);
    let hash = super::super::hash::digest_each([&wrong[..]])[0];
    assert_eq!(finished, PieceResult::Corrupt { digests: digests(&wrong), hash });
    let right = digests(&torrent.content);
    let guilty: Vec<usize> = digests(&wrong)
        .iter()
        .zip(&right)
        .enumerate()
        .filter_map(|(index, (told, right))| (told != right).then_some(index))
        .collect();
    assert_eq!(guilty, [1]);
    assert_eq!(fs::metadata(torrent.root().join("t")).unwrap().len(), 0);
}

#[test]
fn a_piece_in_part_or_that_does_not_exist_is_not_written() {
    let torrent = Fixture::single(4 * PIECE, 2 * PIECE);
    let store = torrent.prepared(false);
    let (part, whole) = (&torrent.content[..PIECE], &torrent.content[..2 * PIECE]);
    for (piece, bytes) in [(0, &[][..]), (0, part), (0, &torrent.content), (2, whole), (2, &[])] {
        let finished = finish(&store, piece, bytes, false).0;
        assert!(
            matches!(finished, PieceResult::Failed(StorageError::Other { .. })),
            "{finished:?}"
        );
    }
    assert_eq!(fs::metadata(torrent.root().join("t")).unwrap().len(), 0);
}

#[test]
fn a_piece_that_cannot_be_written_is_the_disks_fault() {
    let torrent = Fixture::single(4 * PIECE, 4 * PIECE);
    let store = torrent.prepared(false);
    fs::remove_file(torrent.root().join("t")).unwrap();
    let (finished, spare) = finish(&store, 0, &torrent.content, false);
    assert!(matches!(finished, PieceResult::Failed(StorageError::Missing { .. })));
    assert_eq!(spare, 4);
}

#[test]
fn a_long_piece_is_written_block_by_block_and_read_back() {
    // More than is read at a time, and not a multiple of that.
    let torrent = Fixture::folder(&[("a", 1_000_000), ("b", 1_500_001)], 2 << 20);
    let store = torrent.prepared(false);
    let (hashing, buffers) = (HashPool::new(1).unwrap(), BlockPool::new(4));
    let (written, writes) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let geometry = store.geometry();
    let check = |piece: u32, want| {
        let answer = answer.clone();
        let done = move |finished| answer.send(finished).unwrap();
        hashing.finish_piece_on_disk(Arc::clone(&store), PieceIndex(piece), want, done);
        answers.recv().unwrap()
    };
    for piece in 0..geometry.pieces() {
        for (index, bytes) in torrent.piece(piece).chunks(BLOCK).enumerate() {
            let (block, written) =
                (geometry.block(PieceIndex(piece), index as u32), written.clone());
            let done = move |result| written.send(result).unwrap();
            hashing.write_block(Arc::clone(&store), block, buffers.copy_of(bytes), done);
        }
        for _ in 0..geometry.blocks_in(PieceIndex(piece)) {
            writes.recv().unwrap().unwrap();
        }
        assert_eq!(check(piece, false), PieceResult::Verified { digests: vec![] });
        let wanted = digests(torrent.piece(piece));
        assert_eq!(check(piece, true), PieceResult::Verified { digests: wanted });
    }
    let at = BLOCK + 1;
    store.write_at(at as u64, &[&[!torrent.content[at]]]).unwrap();
    for want_digests in [false, true] {
        let PieceResult::Corrupt { digests: told, .. } = check(0, want_digests) else { panic!() };
        let right = digests(torrent.piece(0));
        assert_eq!(told[0], right[0]);
        assert_ne!(told[1], right[1]);
        assert_eq!(told[2..], right[2..]);
    }
}

#[test]
fn a_block_that_is_not_one_of_the_torrent_is_not_written() {
    let torrent = Fixture::single(PIECE, PIECE);
    let store = torrent.prepared(false);
    let (hashing, buffers) = (HashPool::new(1).unwrap(), BlockPool::new(4));
    let block = store.geometry().block(PieceIndex(0), 0);
    for (block, len) in [
        (block, BLOCK - 1),
        (piecework_core::BlockRef { piece: PieceIndex(1), ..block }, BLOCK),
        (piecework_core::BlockRef { begin: 1, ..block }, BLOCK),
    ] {
        let (answer, answers) = mpsc::channel();
        let buf = buffers.copy_of(&torrent.content[..len]);
        let done = move |result| answer.send(result).unwrap();
        hashing.write_block(Arc::clone(&store), block, buf, done);
        assert!(answers.recv().unwrap().is_err());
    }
    assert_eq!(fs::metadata(torrent.root().join("t")).unwrap().len(), 0);
}

#[test]
fn cold_reads_fill_the_buffer_or_say_why_not() {
    let torrent = Fixture::single(50_000, PIECE);
    let store = torrent.prepared(true);
    let hashing = HashPool::new(1).unwrap();
    let read = |offset, len| {
        let (answer, answers) = mpsc::channel();
        let done = move |result| answer.send(result).unwrap();
        hashing.read(Arc::clone(&store), watch(&store), offset, vec![0; len], done);
        answers.recv().unwrap()
    };
    assert_eq!(read(10_000, 30_000).unwrap(), torrent.content[10_000..40_000]);
    assert!(read(49_999, 2).is_err());
    fs::remove_file(torrent.root().join("t")).unwrap();
    store.close_files();
    assert!(matches!(read(0, 1), Err(StorageError::Missing { .. })));
}

/// Holds up one thread while pieces queue, so that it takes many at once: the third is corrupt, the
/// fifth lacks a block, and the callback of the seventh panics.
#[test]
fn pieces_that_pile_up_are_each_answered_and_written_as_if_alone() {
    for level in sha_lanes::Level::available() {
        let torrent = Fixture::single(81 * PIECE - 5, 2 * PIECE);
        let store = torrent.prepared(false);
        let (hashing, buffers) = (HashPool::with_level(1, level).unwrap(), BlockPool::new(1_000));
        let (go, gate) = mpsc::channel::<()>();
        hashing.finish_piece_on_disk(Arc::clone(&store), PieceIndex(99), false, move |_| {
            gate.recv().unwrap();
        });
        let (answer, answers) = mpsc::channel();
        for piece in 0..41 {
            let mut blocks = blocks(&buffers, torrent.piece(piece));
            match piece {
                2 => blocks[1][77] ^= 1,
                4 => drop(blocks.pop()),
                _ => {}
            }
            let answer = answer.clone();
            hashing.finish_piece(FinishPiece {
                store: Arc::clone(&store),
                piece: PieceIndex(piece),
                blocks,
                want_digests: piece == 8,
                done: Box::new(move |finished| {
                    answer.send((piece, finished)).unwrap();
                    if piece == 6 {
                        std::panic::resume_unwind(Box::new("as a test wants it"));
                    }
                }),
            });
        }
        drop(answer);
        go.send(()).unwrap();
        let mut answered: Vec<_> = answers.iter().collect();
        answered.sort_by_key(|(piece, _)| *piece);
        assert_eq!(answered.len(), 41);
        for (piece, finished) in answered {
            let as_expected = match (piece, &finished) {
                (2, PieceResult::Corrupt { digests, .. }) => digests.len() == 2,
                (4, PieceResult::Failed(StorageError::Other { .. })) => true,
                (8, PieceResult::Verified { digests: told }) => *told == digests(torrent.piece(8)),
                (2 | 4 | 8, _) => false,
                (_, finished) => *finished == PieceResult::Verified { digests: vec![] },
            };
            assert!(as_expected, "{level:?}, piece {piece}: {finished:?}");
        }
        let written = fs::read(torrent.root().join("t")).unwrap();
        assert_eq!(written[..4 * PIECE], torrent.content[..4 * PIECE]);
        assert_eq!(written[4 * PIECE..6 * PIECE], [0; 2 * PIECE]);
        assert_eq!(written[10 * PIECE..], torrent.content[10 * PIECE..]);
    }
}

#[test]
fn dropping_the_pool_finishes_what_was_given() {
    let torrent = Fixture::single(200 * PIECE, PIECE);
    let store = torrent.prepared(false);
    let (hashing, buffers) = (HashPool::new(2).unwrap(), BlockPool::new(4));
    let (answer, answers) = mpsc::channel();
    for piece in 0..200 {
        let answer = answer.clone();
        let blocks = blocks(&buffers, torrent.piece(piece));
        hashing.finish_piece(FinishPiece {
            store: Arc::clone(&store),
            piece: PieceIndex(piece),
            blocks,
            want_digests: false,
            done: Box::new(move |finished| answer.send(finished).unwrap()),
        });
    }
    drop((hashing, answer));
    let verified =
        answers.iter().filter(|finished| matches!(finished, PieceResult::Verified { .. })).count();
    assert_eq!(verified, 200);
    assert_eq!(fs::read(torrent.root().join("t")).unwrap(), torrent.content);
}

#[test]
fn a_job_that_panics_leaves_its_thread_to_the_others() {
    let hashing = HashPool::new(1).unwrap();
    let (answer, answers) = mpsc::channel();
    // More often than there are threads.
    for _ in 0..10 {
        hashing.run(|| std::panic::resume_unwind(Box::new("as a test wants it")));
    }
    hashing.run(move || answer.send(()).unwrap());
    answers.recv().unwrap();
}

#[test]
fn a_job_may_drop_the_last_handle_on_its_own_pool() {
    let hashing = Arc::new(HashPool::new(1).unwrap());
    let (answer, answers) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let last = Arc::clone(&hashing);
    hashing.run(move || {
        gate.recv().unwrap();
        drop(last);
        answer.send(()).unwrap();
    });
    drop(hashing);
    go.send(()).unwrap();
    answers.recv().unwrap();
}

/// Three torrents on disks that hang, each with more work than there are threads, then one on a
/// disk that works. Stores whose files were not prepared count as a disk each.
struct Hanging {
    torrents: Vec<Fixture>,
    stores: Vec<Arc<Store>>,
    gate: Gate,
}

const HANGING: usize = 3;

impl Hanging {
    fn new() -> Self {
        let torrents: Vec<_> = (0..=HANGING).map(|_| Fixture::single(12 * PIECE, PIECE)).collect();
        // One set of handles, as in a session, gives each store its number.
        let handles = Arc::clone(&torrents[0].handles);
        let store = |torrent: &Fixture| {
            let (metainfo, handles) = (Arc::clone(&torrent.metainfo), Arc::clone(&handles));
            Arc::new(Store::new(torrent.root(), metainfo, handles, StoreMode::ReadWrite).unwrap())
        };
        let stores = torrents.iter().map(store).collect();
        Self { torrents, stores, gate: Gate::default() }
    }

    /// The jobs for each store, and a receiver that waits until they are done.
    fn jobs<T: Send + 'static>(
        &self,
        give: impl Fn(&Fixture, Arc<Store>, PieceIndex, Box<dyn FnOnce(T) + Send>),
    ) -> (mpsc::Receiver<T>, mpsc::Receiver<T>) {
        let (hung, hangs) = mpsc::channel();
        let (done, goes_on) = mpsc::channel();
        for (number, (torrent, store)) in self.torrents.iter().zip(&self.stores).enumerate() {
            for piece in 0..12 {
                let (hung, done, gate) = (hung.clone(), done.clone(), self.gate.clone());
                let answer = move |result| {
                    if number < HANGING {
                        gate.pass();
                        hung.send(result).unwrap();
                    } else {
                        done.send(result).unwrap();
                    }
                };
                give(torrent, Arc::clone(store), PieceIndex(piece), Box::new(answer));
            }
        }
        (hangs, goes_on)
    }
}

/// A test that waits longer has failed.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn disks_that_hang_keep_no_pieces_for_others_from_being_hashed_and_written() {
    for level in sha_lanes::Level::available() {
        let hanging = Hanging::new();
        let (hashing, buffers) = (HashPool::with_level(2, level).unwrap(), BlockPool::new(4));
        let _opens = hanging.gate.clone();
        let (hangs, goes_on) = hanging.jobs(|torrent, store, piece, done| {
            let blocks = blocks(&buffers, torrent.piece(piece.0));
            hashing.finish_piece(FinishPiece { store, piece, blocks, want_digests: false, done });
        });
        let right = PieceResult::Verified { digests: vec![] };
        for _ in 0..12 {
            assert_eq!(goes_on.recv_timeout(LONG), Ok(right.clone()), "{level:?}");
        }
        assert!(hangs.try_recv().is_err());
        let last = hanging.torrents.last().unwrap();
        assert_eq!(fs::read(last.root().join("t")).unwrap(), last.content);
        hanging.gate.open();
        for _ in 0..12 * HANGING {
            assert_eq!(hangs.recv_timeout(LONG), Ok(right.clone()), "{level:?}");
        }
    }
}

#[test]
fn disks_that_hang_keep_no_reads_from_others_waiting() {
    let hanging = Hanging::new();
    for (torrent, store) in hanging.torrents.iter().zip(&hanging.stores) {
        store.write_at(0, &[&torrent.content]).unwrap();
    }
    let hashing = HashPool::new(1).unwrap();
    let _opens = hanging.gate.clone();
    let (hangs, goes_on) = hanging.jobs(|_, store, piece, done| {
        let offset = store.geometry().piece_offset(piece);
        let watch = watch(&store);
        hashing.read(store, watch, offset, vec![0; PIECE], move |read| done(read.map(|_| piece)));
    });
    let mut pieces: Vec<_> = (0..12).map(|_| goes_on.recv_timeout(LONG).unwrap()).collect();
    pieces.sort_by_key(|piece| piece.clone().unwrap());
    assert_eq!(pieces, (0..12).map(|piece| Ok(PieceIndex(piece))).collect::<Vec<_>>());
    assert!(hangs.try_recv().is_err());
    hanging.gate.open();
    for _ in 0..12 * HANGING {
        assert!(hangs.recv_timeout(LONG).unwrap().is_ok());
    }
}

/// Hashing one piece at a time while others are being written is three times as slow.
#[test]
fn pieces_wait_for_company_while_others_are_written() {
    let torrent = Fixture::single(8 * PIECE, PIECE);
    let (store, buffers) = (torrent.store(), BlockPool::new(8));
    let piece = |number: u32| FinishPiece {
        store: Arc::clone(&store),
        piece: PieceIndex(number),
        blocks: blocks(&buffers, torrent.piece(number)),
        want_digests: false,
        done: Box::new(|_| {}),
    };
    for level in sha_lanes::Level::available().filter(|level| level.width() >= 8) {
        let mut jobs = Jobs::new(2, 1);
        let mut now = Instant::now();
        for number in 0..3 {
            now += Duration::from_millis(1);
            jobs.push(Job::Finish(piece(number), now));
        }
        let until = jobs.gather_until(0, level, 64, now);
        assert!(until.is_some(), "{level:?}");
        jobs.push_hashed(0, vec![(piece(3), [0; 20]), (piece(4), [0; 20])], now);
        assert_eq!(jobs.gather_until(2, level, 64, now), until, "{level:?}");
        assert!(!jobs.is_gathered(level, 64, now), "{level:?}");
        // The second worker collects pieces to hash, and the first one writes.
        assert_eq!((jobs.find(1, now), jobs.find(0, now)), (Some(2), Some(0)));
        jobs.push(Job::Other(None, Box::new(|| {})));
        assert!(jobs.is_gathered(level, 64, now), "{level:?}");
    }
}
