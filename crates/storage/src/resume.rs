//! Finds out which pieces of a torrent need not be hashed again when the program restarts.

use piecework_core::SaturatingFrom;
use piecework_core::metainfo::FileEntry;
use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex};

use super::data_ranges::next_data;
use super::error::{Operation, StorageError};
use super::file_state::fingerprint;
use super::files::Files;
use super::store::Store;

/// Which pieces are held, and which have to be checked. All others are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Held according to the checkpoint; their files have not changed since.
    pub trusted: Bitfield,
    /// Possibly held: pass them to [`check`](super::check()).
    pub check: Bitfield,
    /// The pieces of `trusted` in files that were written after the checkpoint: most likely by us,
    /// but possibly by another program.
    pub doubtful: Bitfield,
}

/// What has happened to a file since the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileChange {
    Same,
    /// The file does not exist.
    Missing,
    /// We have written to it after the checkpoint. What was held is still held, and there may be
    /// more.
    Continued,
    /// We have created it after the checkpoint.
    New,
    /// Another program has changed it.
    Changed,
}

/// Compares the files of `store` with their state at `checkpoint`.
///
/// A piece is trusted if it was held and all of its files are unchanged. If files were being
/// written when the checkpoint was taken, they may have been written until the process died. A file
/// that is no shorter and was changed soon after the checkpoint has most likely kept what it held
/// ([`Survey::doubtful`]). What it did not hold has to be checked where there is any data on the
/// disk, even if the file looks unchanged: it may have been written at that very moment. Pieces of
/// files that changed in any other way have to be checked. Pieces whose files are missing or too
/// short are missing. A checkpoint that does not fit the torrent is ignored.
///
/// A checkpoint taken during a check ([`Checkpoint::unchecked`]) says which pieces were not checked
/// yet. These have to be checked; we have not written to files since.
pub fn survey(store: &Store, checkpoint: &Checkpoint) -> Result<Survey, StorageError> {
    let (geometry, files) = (store.geometry(), store.files());
    let entries = files.map.entries();
    let pieces = geometry.pieces();
    let unchecked = checkpoint.unchecked.as_ref();
    let fits = |set: &Bitfield| set.len() == pieces;
    if !fits(&checkpoint.have)
        || !unchecked.is_none_or(fits)
        || checkpoint.files.len() != entries.len()
    {
        return Ok(Survey {
            trusted: Bitfield::empty(pieces),
            check: Bitfield::full(pieces),
            doubtful: Bitfield::empty(pieces),
        });
    }
    let now = store.files().stats()?;
    let mut marks = Marks::new(pieces);
    let all = entries.iter().zip(&now).zip(&checkpoint.files).enumerate();
    for (file, ((entry, stat), then)) in all.filter(|(_, ((entry, ..), _))| !entry.padding) {
        let now = stat.as_ref().map(fingerprint);
        let span_pieces = || geometry.pieces_of(entry.span()).map(PieceIndex);
        let lacking = entry.offset + now.map_or(0, |now| now.len).min(entry.len)..entry.span().end;
        marks.insert(Mark::Absent, geometry.pieces_of(lacking).map(PieceIndex));
        match change_of(now, *then, checkpoint) {
            // What was written while the checkpoint was taken may be newer than its pieces and not
            // newer than its files.
            FileChange::Same if !checkpoint.writing || unchecked.is_some() => {}
            // Empty files have no pieces, so all of them are already absent.
            FileChange::Missing => {}
            FileChange::Changed => marks.insert(Mark::Changed, span_pieces()),
            FileChange::Continued if unchecked.is_some() => {
                marks.insert(Mark::Continued, span_pieces());
            }
            change @ (FileChange::Same | FileChange::Continued | FileChange::New) => {
                match change {
                    FileChange::New => marks.insert(Mark::New, span_pieces()),
                    FileChange::Continued => marks.insert(Mark::Continued, span_pieces()),
                    _ => {}
                }
                each_data(&files, file, entry, |from, to| {
                    let span = entry.offset + from..entry.offset + to;
                    marks.insert(Mark::Written, geometry.pieces_of(span).map(PieceIndex));
                })?;
            }
        }
    }
    Ok(marks.survey(&checkpoint.have, unchecked))
}

fn change_of(
    now: Option<Fingerprint>,
    then: Option<Fingerprint>,
    checkpoint: &Checkpoint,
) -> FileChange {
    let latest = checkpoint.taken_at_ns.saturating_add(GRACE_NS);
    // During a check, only files whose state was known before are unsure.
    let wrote = |then: Option<Fingerprint>| match checkpoint.unchecked {
        Some(_) => then.is_some_and(|then| then.is_unsure()),
        None => checkpoint.writing,
    };
    match (now, then) {
        (None, _) => FileChange::Missing,
        (Some(now), Some(then)) if now == then => FileChange::Same,
        (Some(now), Some(then)) => {
            let in_time = (then.mtime_ns..=latest).contains(&now.mtime_ns);
            let ours = wrote(Some(then)) && in_time && now.len >= then.len;
            if ours { FileChange::Continued } else { FileChange::Changed }
        }
        (Some(now), None) => {
            let ours = wrote(None) && now.mtime_ns <= latest;
            if ours { FileChange::New } else { FileChange::Changed }
        }
    }
}

/// Evidence about each piece, one bit per kind.
struct Marks {
    of: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Mark {
    /// A part of it is not on the disk.
    Absent = 1,
    /// A part of it lies in a file that another program has changed.
    Changed = 2,
    /// A part of it lies in a file that did not exist.
    New = 4,
    /// A part of it has data in a file that we have written to.
    Written = 8,
    /// A part of it lies in a file that was written since, as far as one can tell by us.
    Continued = 16,
}

impl Marks {
    fn new(pieces: u32) -> Self {
        Self { of: vec![0; pieces as usize] }
    }

    fn insert(&mut self, mark: Mark, pieces: impl Iterator<Item = PieceIndex>) {
        for piece in pieces {
            self.of[piece.0 as usize] |= mark as u8;
        }
    }

    fn survey(&self, have: &Bitfield, unchecked: Option<&Bitfield>) -> Survey {
        let mut trusted = Bitfield::empty(have.len());
        let mut check = Bitfield::empty(have.len());
        let mut doubtful = Bitfield::empty(have.len());
        for (index, marks) in self.of.iter().enumerate() {
            let piece = PieceIndex(u32::saturating_from(index));
            let has = |mark: Mark| marks & mark as u8 != 0;
            if has(Mark::Absent) {
                continue;
            }
            // A held piece in a file that did not exist is a contradiction.
            let doubted = if have.contains(piece) { has(Mark::New) } else { has(Mark::Written) };
            let is_open = unchecked.is_some_and(|open| open.contains(piece));
            if has(Mark::Changed) || doubted || is_open {
                check.insert(piece);
            } else if have.contains(piece) {
                trusted.insert(piece);
                if has(Mark::Continued) {
                    doubtful.insert(piece);
                }
            }
        }
        Survey { trusted, check, doubtful }
    }
}

/// Passes each range of data in the file to `tell`, up to the length in the torrent.
fn each_data(
    files: &Files<'_>,
    file: usize,
    entry: &FileEntry,
    mut tell: impl FnMut(u64, u64),
) -> Result<(), StorageError> {
    let open = match files.open(file, false) {
        Ok(open) => open,
        // Removed since its metadata was read.
        Err(StorageError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut at = 0;
    while at < entry.len {
        match next_data(&open.file, at) {
            Ok(Some((from, to))) => {
                // Data after the end of the torrent is ignored.
                if from < entry.len {
                    tell(from, to.min(entry.len));
                }
                at = to;
            }
            Ok(None) => break,
            Err(errno) => {
                return Err(StorageError::new(Operation::Read, files.path_of(file), errno));
            }
        }
    }
    Ok(())
}

/// How long after a checkpoint our own writes may continue without another one. Checkpoints come
/// every few seconds while files are written, but a slow disk may delay the next.
const GRACE_NS: i64 = 30 * 1_000_000_000;
