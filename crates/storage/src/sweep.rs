//! Reads and hashes the content of a torrent on all cores, with many pieces at a time on each.
//!
//! A thread takes a batch of pieces and reads a chunk of each, one after the other, into a buffer
//! about as large as the cache of its core. Then all chunks are hashed together. So the reads jump
//! from piece to piece. To spare a disk's head these jumps, the system is asked in advance to read
//! longer ranges.

use piecework_core::SaturatingFrom;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use piecework_core::{Geometry, PieceIndex};
use sha_lanes::{Level, update_many};

use super::error::StorageError;
use super::files::Files;
use super::hash::{Digest20, Hasher};

/// A pass over the pieces of a torrent.
pub(super) struct Sweep<'a> {
    pub files: Files<'a>,
    pub geometry: Geometry,
    /// The number of threads, at least one.
    pub threads: usize,
    /// The instructions of the processor to hash with.
    pub level: Level,
    /// Ends the pass soon after it is set.
    pub cancel: &'a AtomicBool,
}

/// Receives the results of a sweep, from several threads at once and in any order.
pub(super) trait Sink: Sync {
    /// Returns whether to read this piece at all.
    fn wants(&self, piece: PieceIndex) -> bool;

    /// Receives the digests of pieces.
    fn hashed(&self, digests: &[(PieceIndex, Digest20)]);

    /// Receives a piece that could not be read. An error ends the pass.
    fn unreadable(&self, piece: PieceIndex, error: StorageError) -> Result<(), StorageError>;
}

/// A running pass, shared by its threads.
struct Pass<'a, S> {
    sweep: &'a Sweep<'a>,
    sink: &'a S,
    batches: Batches,
    next: AtomicUsize,
    failure: Mutex<Option<StorageError>>,
    stop: AtomicBool,
}

/// The pieces to hash, and how they are divided among the threads.
struct Batches {
    pieces: Vec<PieceIndex>,
    /// Pieces per batch.
    len: usize,
    threads: usize,
}

impl Sweep<'_> {
    /// Hashes all pieces that `sink` wants, until it is cancelled or something fails.
    pub(crate) fn run(&self, sink: &impl Sink) -> Result<(), StorageError> {
        let pieces = (0..self.geometry.pieces()).map(PieceIndex);
        let batches = Batches {
            pieces: pieces.filter(|piece| sink.wants(*piece)).collect(),
            len: self.batch_len(),
            threads: self.threads.max(1),
        };
        let pass = Pass {
            sweep: self,
            sink,
            batches,
            next: AtomicUsize::new(0),
            failure: Mutex::new(None),
            stop: AtomicBool::new(false),
        };
        pass.run();
        pass.failure.into_inner().map_or(Ok(()), Err)
    }

    /// Returns how many pieces a thread takes at a time: as many as are hashed together, and a
    /// multiple of that if they are short.
    fn batch_len(&self) -> usize {
        let lanes = self.level.width();
        let bytes = lanes as u64 * u64::from(self.geometry.piece_len());
        lanes * usize::saturating_from(BATCH.div_ceil(bytes))
    }

    /// Returns the most pieces that are hashed together.
    fn group_len(&self) -> usize {
        self.level.width().max(BUFFER / self.geometry.piece_len() as usize)
    }

    /// Returns the length of the longest piece: short content has one that is shorter than the
    /// piece length.
    fn longest_piece(&self) -> usize {
        usize::saturating_from(self.geometry.total_len().min(u64::from(self.geometry.piece_len())))
    }

    /// Returns the buffer size of a thread that gets at most this many pieces at a time.
    fn buffer_len(&self, pieces: usize) -> usize {
        let pieces = pieces.min(self.group_len());
        self.longest_piece().saturating_mul(pieces).min(BUFFER)
    }

    /// Returns how many bytes of each piece of a batch are requested in advance.
    fn ahead(&self) -> u64 {
        // For the current batch and the next one.
        let pieces = 2 * self.threads.max(1) * self.batch_len();
        let share = READ_AHEAD / pieces as u64;
        share.max(CHUNK as u64).min(u64::from(self.geometry.piece_len()))
    }

    /// Asks the system to read the bytes `part` of each of `pieces`.
    fn will_need(&self, pieces: &[PieceIndex], part: Range<u64>) {
        let span = |piece: PieceIndex| {
            let (start, size) =
                (self.geometry.piece_offset(piece), u64::from(self.geometry.piece_size(piece)));
            start + part.start.min(size)..start + part.end.min(size)
        };
        let mut spans = pieces.iter().map(|piece| span(*piece));
        let Some(mut whole) = spans.next() else { return };
        for span in spans {
            if span.start == whole.end {
                whole.end = span.end;
            } else {
                self.files.will_need(whole);
                whole = span;
            }
        }
        self.files.will_need(whole);
    }
}

impl<S: Sink> Pass<'_, S> {
    fn run(&self) {
        let threads = self.batches.threads.min(self.batches.count());
        thread::scope(|scope| {
            for number in 1..threads {
                let name = format!("sweep-{number}");
                let work = || self.work();
                if let Err(error) = thread::Builder::new().name(name).spawn_scoped(scope, work) {
                    tracing::warn!(%error, "hashing with fewer threads");
                    break;
                }
            }
            self.work();
        });
    }

    fn work(&self) {
        let ahead = self.sweep.ahead();
        // A block that spans two cache lines takes two loads.
        let len = self.sweep.buffer_len(self.batches.longest());
        let mut buf = vec![0_u8; len + LINE];
        let skip = buf.as_ptr().align_offset(LINE);
        let buf = &mut buf[skip..skip + len];
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let batch = self.batches.get(number);
            if batch.is_empty() {
                break;
            }
            // Nobody has requested the first batches yet. The others were requested when their
            // predecessors were taken.
            if number < self.batches.threads {
                self.sweep.will_need(batch, 0..ahead);
            }
            self.sweep.will_need(self.batches.get(number + self.batches.threads), 0..ahead);
            if let Err(error) = self.batch(batch, buf) {
                self.failure.lock().get_or_insert(error);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn batch(&self, batch: &[PieceIndex], buf: &mut [u8]) -> Result<(), StorageError> {
        for pieces in batch.chunks(self.sweep.group_len()) {
            let mut group = Group::new(self.sweep, pieces, buf);
            while group.is_unfinished() {
                if self.is_over() {
                    return Ok(());
                }
                group.step();
            }
            group.tell(self.sink)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.sweep.cancel.load(Ordering::Relaxed)
    }
}

impl Batches {
    /// Returns the pieces of batch `number`; none after the last.
    ///
    /// Batches are full as long as there is a full one for every thread. The rest is divided
    /// evenly, so that all threads end together.
    fn get(&self, number: usize) -> &[PieceIndex] {
        let full = self.full();
        let (rest, share) = (full * self.len, self.share());
        let range = if number < full {
            number * self.len..(number + 1) * self.len
        } else {
            let start = (number - full).saturating_mul(share).saturating_add(rest);
            start..start.saturating_add(share)
        };
        let end = self.pieces.len();
        &self.pieces[range.start.min(end)..range.end.min(end)]
    }

    fn count(&self) -> usize {
        let rest = self.pieces.len() - self.full() * self.len;
        self.full() + rest.div_ceil(self.share().max(1))
    }

    /// Returns the number of pieces of the longest batch.
    fn longest(&self) -> usize {
        if self.full() > 0 { self.len } else { self.share() }
    }

    /// Returns the number of full batches.
    fn full(&self) -> usize {
        self.pieces.len() / (self.len * self.threads) * self.threads
    }

    /// Returns the number of pieces of each remaining batch.
    fn share(&self) -> usize {
        (self.pieces.len() - self.full() * self.len).div_ceil(self.threads)
    }
}

/// Pieces that are hashed together.
struct Group<'a> {
    sweep: &'a Sweep<'a>,
    pieces: &'a [PieceIndex],
    hashers: Vec<Hasher>,
    /// Why a piece cannot be read; it is then skipped.
    faults: Vec<Option<StorageError>>,
    buf: &'a mut [u8],
    /// Bytes of each piece that are read at a time.
    chunk: usize,
    /// Bytes of each piece that are done.
    done: usize,
}

impl<'a> Group<'a> {
    fn new(sweep: &'a Sweep<'a>, pieces: &'a [PieceIndex], buf: &'a mut [u8]) -> Self {
        // Whole pieces if they fit; otherwise whole memory pages, for at most as many pieces as
        // there are lanes.
        let (share, longest) = (buf.len() / pieces.len(), sweep.longest_piece());
        let chunk = if longest <= share { longest } else { share / PAGE * PAGE };
        let (hashers, faults) = (vec![Hasher::default(); pieces.len()], vec![None; pieces.len()]);
        Self { sweep, pieces, hashers, faults, buf, chunk, done: 0 }
    }

    fn is_unfinished(&self) -> bool {
        self.done < self.sweep.longest_piece()
    }

    /// Reads and hashes the next chunk of each piece.
    fn step(&mut self) {
        self.ask_ahead();
        let lens: Vec<usize> = self.pieces.iter().map(|piece| self.chunk_len(*piece)).collect();
        if self.chunk < self.sweep.longest_piece() || !self.read_together(&lens) {
            self.read_each(&lens);
        }
        let chunks = self.buf.chunks(self.chunk).zip(&lens);
        let parts: Vec<[&[u8]; 1]> = chunks.map(|(chunk, len)| [&chunk[..*len]]).collect();
        update_many(self.sweep.level, &mut self.hashers, &parts);
        self.done += self.chunk;
    }

    /// Passes the results to `sink`.
    fn tell(mut self, sink: &impl Sink) -> Result<(), StorageError> {
        let mut digests = Vec::with_capacity(self.pieces.len());
        for ((piece, hasher), fault) in self.pieces.iter().zip(&mut self.hashers).zip(self.faults) {
            match fault {
                None => digests.push((*piece, hasher.finish())),
                Some(error) => sink.unreadable(*piece, error)?,
            }
        }
        sink.hashed(&digests);
        Ok(())
    }

    /// Reads consecutive whole pieces at once. Returns `false` if they are not consecutive or
    /// reading fails.
    fn read_together(&mut self, lens: &[usize]) -> bool {
        let [first, .., last] = self.pieces else { return false };
        if (last.0 - first.0) as usize != self.pieces.len() - 1 {
            return false;
        }
        let start = self.sweep.geometry.piece_offset(*first);
        // Often only one piece cannot be read; `read_each` finds out which.
        self.sweep.files.read_at(start, &mut self.buf[..lens.iter().sum()]).is_ok()
    }

    fn read_each(&mut self, lens: &[usize]) {
        let chunks = self.buf.chunks_mut(self.chunk).zip(lens);
        for ((piece, fault), (chunk, len)) in self.pieces.iter().zip(&mut self.faults).zip(chunks) {
            let at = self.sweep.geometry.piece_offset(*piece) + self.done as u64;
            if fault.is_none() && *len > 0 {
                *fault = self.sweep.files.read_at(at, &mut chunk[..*len]).err();
            }
        }
    }

    /// Long pieces are not requested as a whole.
    fn ask_ahead(&self) {
        let (done, ahead) = (self.done as u64, self.sweep.ahead());
        let window = done.div_ceil(ahead);
        let next = (window + 1) * ahead..(window + 2) * ahead;
        // The first chunk of a window requests the next window.
        let is_first = window * ahead < done + self.chunk as u64;
        if is_first && next.start < u64::from(self.sweep.geometry.piece_len()) {
            self.sweep.will_need(self.pieces, next);
        }
    }

    fn chunk_len(&self, piece: PieceIndex) -> usize {
        let size = self.sweep.geometry.piece_size(piece) as usize;
        size.saturating_sub(self.done).min(self.chunk)
    }
}

/// Returns the default number of threads: one per available core.
pub(super) fn all_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory per thread: 16 chunks of 64 KiB. Data should still be in the cache of the core
/// when it is hashed, and cores have 512 KiB to 2 MiB. But shorter reads cost more than is lost by
/// data from the shared cache (half of this costs 2 to 9 % more).
const BUFFER: usize = 1 << 20;

/// What is read of each of 16 pieces at a time.
const CHUNK: usize = BUFFER / 16;

const PAGE: usize = 4 << 10;

/// A cache line, as long as a block of SHA-1.
const LINE: usize = 64;

/// The minimum length of a batch in bytes, so that the cost of handing it out does not matter.
const BATCH: u64 = 4 << 20;

/// Bytes requested in advance by all threads together: 2 MiB of each of 16 pieces for two threads,
/// so that even a disk head reads for longer than it moves.
const READ_AHEAD: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(pieces: u32, len: usize, threads: usize) -> Vec<usize> {
        let batches = Batches { pieces: (0..pieces).map(PieceIndex).collect(), len, threads };
        let all: Vec<&[PieceIndex]> =
            (0..).map(|n| batches.get(n)).take_while(|batch| !batch.is_empty()).collect();
        assert_eq!(all.concat(), batches.pieces);
        assert_eq!(all.len(), batches.count());
        assert!(batches.get(usize::MAX).is_empty());
        all.into_iter().map(<[_]>::len).collect()
    }

    #[test]
    fn batches_are_full_until_the_last_round_which_is_shared() {
        assert_eq!(lens(0, 16, 2), [0; 0]);
        assert_eq!(lens(1, 16, 2), [1]);
        assert_eq!(lens(20, 16, 2), [10, 10]);
        assert_eq!(lens(32, 16, 2), [16, 16]);
        assert_eq!(lens(40, 16, 2), [16, 16, 4, 4]);
        assert_eq!(lens(73, 16, 2), [16, 16, 16, 16, 5, 4]);
        assert_eq!(lens(5, 16, 64), [1; 5]);
        assert_eq!(lens(70, 16, 3), [16, 16, 16, 8, 8, 6]);
        for (pieces, threads) in (0..200).flat_map(|pieces| (1..5).map(move |t| (pieces, t))) {
            lens(pieces, 1 + pieces as usize % 17, threads);
        }
    }
}
