//! Checks whether held pieces are still on the disk.
//!
//! No event reports that another program writes to a file. But its traces can be found: a file that
//! is too short, a hole where there was data, another file with the same name.

use piecework_core::SaturatingFrom;
use rustix::fs::fstat;

use piecework_core::{Bitfield, PieceIndex};

use super::data_ranges::next_data;
use super::error::{Operation, StorageError};
use super::piece_check::is_right;
use super::store::Store;

impl Store {
    /// Returns whether the pieces of `held` in file `file` are still there, as far as can be told
    /// without reading all of them: the file is long enough, no other file has taken its name, and
    /// pieces with a hole in them and the pieces of `sample` have the right hash.
    ///
    /// # Errors
    /// [`StorageError::Missing`] if the file no longer exists, others if it cannot be read.
    pub fn is_sound(
        &self,
        file: usize,
        held: &Bitfield,
        sample: &[PieceIndex],
    ) -> Result<bool, StorageError> {
        let entry = &self.map().entries()[file];
        if entry.padding || entry.len == 0 {
            return Ok(true);
        }
        let stat = self.files().stat_of(file)?;
        if self.files().is_replaced(file, &stat)? {
            return Ok(false);
        }
        let len = u64::saturating_from(stat.st_size);
        let pieces = self.geometry().pieces_of(entry.span()).map(PieceIndex);
        let Some(last) = pieces.rev().find(|piece| held.contains(*piece)) else { return Ok(true) };
        let end = self.geometry().piece_offset(last) + u64::from(self.geometry().piece_size(last));
        let needed = end.min(entry.span().end) - entry.offset;
        if len < needed || len > entry.len {
            return Ok(false);
        }
        for piece in self.hollow_pieces(file, held)? {
            if !is_right(self, piece)? {
                return Ok(false);
            }
        }
        for piece in sample.iter().filter(|piece| held.contains(**piece)) {
            if !is_right(self, *piece)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the pieces of `held` in the file that contain a hole. They may still be right, if
    /// the content is zeros there.
    fn hollow_pieces(&self, file: usize, held: &Bitfield) -> Result<Vec<PieceIndex>, StorageError> {
        let (entry, geometry) = (&self.map().entries()[file], self.geometry());
        let open = self.files().open(file, false)?;
        if is_solid(&open.file, entry.len) {
            return Ok(Vec::new());
        }
        let mut hollow: Vec<PieceIndex> = Vec::new();
        let mut note = |from: u64, to: u64| {
            // The block before a hole may have been cut.
            let from = from.saturating_sub(LONGEST_BLOCK);
            let span = entry.offset + from..entry.offset + to;
            for piece in geometry.pieces_of(span).map(PieceIndex) {
                if hollow.last().is_none_or(|last| *last < piece) && held.contains(piece) {
                    hollow.push(piece);
                }
            }
        };
        let mut at = 0;
        while at < entry.len {
            let data = next_data(&open.file, at)
                .map_err(|errno| StorageError::new(Operation::Read, self.path_of(file), errno))?;
            let (from, to) = data.unwrap_or((entry.len, entry.len));
            if from > at {
                note(at, from.min(entry.len));
            }
            at = to;
        }
        Ok(hollow)
    }
}

/// Returns whether a file in memory has no holes, judged by its allocated bytes. tmpfs counts pages
/// exactly, but searches for holes page by page: 25 ms per GiB, at the very end of a download.
/// Other file systems search by extents, and some count more than the content.
fn is_solid(file: &std::fs::File, len: u64) -> bool {
    let is_tmpfs = rustix::fs::fstatfs(file).is_ok_and(|about| about.f_type == TMPFS);
    is_tmpfs && fstat(file).is_ok_and(|stat| u64::saturating_from(stat.st_blocks) * 512 >= len)
}

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// The largest allocation unit of common file systems: 128 KiB is the usual record size of ZFS.
const LONGEST_BLOCK: u64 = 128 << 10;
