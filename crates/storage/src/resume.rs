//! What of a torrent need not be hashed anew when its program starts again.

use piecework_core::metainfo::FileEntry;
use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex};

use super::data_ranges::next_data;
use super::error::{Operation, StorageError};
use super::file_state::fingerprint;
use super::files::Files;
use super::store::Store;

/// Which pieces are held, and of which one has to find out. The others are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Held as the checkpoint says: what they lie in has not changed since.
    pub trusted: Bitfield,
    /// May be held or not: for [`check`](super::check()).
    pub check: Bitfield,
    /// Those of `trusted` that lie in files which were written to after the checkpoint: by us most
    /// likely, but somebody else may have done so as well.
    pub doubtful: Bitfield,
}

/// What has become of a file since the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileChange {
    Same,
    /// The file does not exist.
    Missing,
    /// We have written to it after the checkpoint: what was held still is, and there may be more.
    Continued,
    /// We have made it after the checkpoint.
    New,
    /// Somebody else has changed it.
    Changed,
}

/// Compares the files of `store` with what they were like at `checkpoint`.
///
/// A piece is trusted if it was held and every file it lies in is unchanged. If the checkpoint
/// was taken while files were being written, they may have been written to until the process
/// died: a file that is no shorter and was changed soon after the checkpoint has most likely kept
/// what it held ([`Survey::doubtful`]), and what it did not hold is to be checked where there is any data on the disk, also in a
/// file that looks as it did: it may have been written to just then. Pieces of
/// files changed in any other way are to be checked; those whose files are missing or too short
/// are missing. Of a checkpoint that does not fit the torrent nothing is believed.
///
/// A checkpoint of a check that went on ([`Checkpoint::unchecked`]) says which pieces that check has
/// not looked at: these are to be checked, and files have not been written to by us since.
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
            // What was written while the checkpoint was taken may be younger than its pieces and
            // no younger than its files.
            FileChange::Same if !checkpoint.writing || unchecked.is_some() => {}
            // Empty files have no pieces, so all of theirs are absent already.
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
    // While a check goes on, only those are not sure of which that was known before.
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

/// What speaks for or against a piece, a bit each.
struct Marks {
    of: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Mark {
    /// A part of it is not on the disk.
    Absent = 1,
    /// A part of it lies in a file somebody has changed.
    Changed = 2,
    /// A part of it lies in a file that was not there.
    New = 4,
    /// A part of it has data in a file we have written to.
    Written = 8,
    /// A part of it lies in a file that was written to since, by us as far as one can tell.
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
            let piece = PieceIndex(index as u32);
            let has = |mark: Mark| marks & mark as u8 != 0;
            if has(Mark::Absent) {
                continue;
            }
            // A piece that is held in a file that was not there is a contradiction.
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

/// Tells each stretch of the file that has data, from where to where; as far as the torrent has
/// use for it.
fn each_data(
    files: &Files<'_>,
    file: usize,
    entry: &FileEntry,
    mut tell: impl FnMut(u64, u64),
) -> Result<(), StorageError> {
    let open = match files.open(file, false) {
        Ok(open) => open,
        // Removed since it was looked at.
        Err(StorageError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut at = 0;
    while at < entry.len {
        match next_data(&open.file, at) {
            Ok(Some((from, to))) => {
                // What grows behind the torrent's end is nobody's.
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

/// How long after a checkpoint our own writes may go on without another: they come every few
/// seconds while files are written, but a slow disk may hold the next one up.
const GRACE_NS: i64 = 30 * 1_000_000_000;
