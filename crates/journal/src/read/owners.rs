//! Who gave most of each piece.

use std::collections::BTreeMap;

use super::Reader;
use super::pieces::GivenRow;
use crate::error::JournalError;
use crate::rows::NewResponses;
use piecework_core::InfoHash;

/// The peer that gave most of each piece of a torrent. [`Reader::follow`] brings it up to date.
#[derive(Debug, Clone)]
pub struct Owners {
    of: Vec<i32>,
    /// The number of the last response that was read, and of the last wrong piece.
    last: i64,
    last_wrong: i64,
    /// The last piece that was read, its time, and how much of it its owner gave.
    latest: (u32, i64, u64),
}

impl Reader {
    /// Reads what is new since the last call, adds it to `owners`, and returns it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn follow(
        &self,
        torrent: InfoHash,
        owners: &mut Owners,
    ) -> Result<NewResponses, JournalError> {
        let mut new = NewResponses::default();
        // One snapshot for all queries, so that nothing written between them is missed.
        let _snapshot = self
            .connection
            .unchecked_transaction()
            .map_err(|error| JournalError::new(&self.path, error))?;
        let Some(id) = self.torrent(torrent)? else { return Ok(new) };
        let (mut pieces, mut seen) = (BTreeMap::new(), i64::MAX);
        self.each_given(id, owners.last, |row| {
            owners.last = owners.last.max(row.id);
            seen = seen.min(row.time);
            if let Some(owner) = owners.take(&row) {
                pieces.insert(row.piece, owner);
            }
        })?;
        new.pieces = pieces.into_iter().collect();
        new.wrong = self.wrong_pieces_after(Some(id), None, owners.last_wrong)?;
        let last: Option<i64> = self.one("SELECT max(id) FROM bad_rows", [])?;
        owners.last_wrong = last.unwrap_or(0).max(owners.last_wrong);
        if !new.wrong.is_empty() {
            seen = i64::MIN;
        }
        if seen < i64::MAX {
            new.givers = self.givers_since(torrent, seen)?;
        }
        Ok(new)
    }
}

impl Owners {
    /// Returns a value in which none of `pieces` pieces has an owner.
    pub fn new(pieces: u32) -> Self {
        Self { of: vec![-1; pieces as usize], last: 0, last_wrong: 0, latest: (u32::MAX, 0, 0) }
    }

    /// Returns for each piece the number of the peer that gave most of it; -1 if it has no owner.
    pub fn by_piece(&self) -> impl Iterator<Item = i64> + '_ {
        self.of.iter().map(|owner| i64::from(*owner))
    }

    /// Adds a response. Returns the owner of its piece if the response may have changed it.
    fn take(&mut self, row: &GivenRow) -> Option<i64> {
        let owner = self.of.get_mut(row.piece as usize).filter(|_| row.fate == 0)?;
        let (piece, time, bytes) = self.latest;
        if (piece, time) == (row.piece, row.time) && bytes >= row.bytes {
            return Some(i64::from(*owner));
        }
        self.latest = (row.piece, row.time, row.bytes);
        *owner = i32::try_from(row.peer).unwrap_or(-1);
        Some(row.peer)
    }
}
