//! The requests to a tracker in a journal.

use rusqlite::Row;

use piecework_core::{InfoHash, PeerId};

use crate::error::JournalError;
use crate::request_record::{HandedList, RequestEvent, RequestRecord, Via};

use super::{Reader, addr};

impl Reader {
    /// Returns the last `limit` requests, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn requests(&self, limit: usize) -> Result<Vec<RequestRecord>, JournalError> {
        let mut rows = Vec::new();
        self.requests_in("r.id > ?1 ORDER BY r.id DESC LIMIT ?2", -1, limit, |row| rows.push(row))?;
        rows.reverse();
        Ok(rows)
    }

    /// Passes all requests to `each`, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read, or the first error of `each`.
    pub fn each_request<E: From<JournalError>>(
        &self,
        mut each: impl FnMut(RequestRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last = -1;
        loop {
            let mut rows = Vec::with_capacity(REQUESTS_AT_ONCE);
            let page = "r.id > ?1 ORDER BY r.id LIMIT ?2";
            let end = self.requests_in(page, last, REQUESTS_AT_ONCE, |row| rows.push(row))?;
            let Some(end) = end else { return Ok(()) };
            last = end;
            rows.into_iter().try_for_each(&mut each)?;
        }
    }

    /// Passes at most `limit` requests after `after` to `each`, selected by `which`. Returns the
    /// number of the last.
    fn requests_in(
        &self,
        which: &str,
        after: i64,
        limit: usize,
        mut each: impl FnMut(RequestRecord),
    ) -> Result<Option<i64>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // A file of version 1 has not been opened by a writer of a later version yet.
        let version: i64 = self.one("PRAGMA user_version", [])?.unwrap_or(0);
        let unlisted = if version < 2 { "0" } else { "r.unlisted" };
        let sql = format!(
            "SELECT r.time, r.event, r.via, t.info_hash, coalesce(r.name, nullif(t.name, '')), \
             r.peer, r.peer_id, r.handed, r.error, {unlisted}, r.id FROM request_rows r \
             LEFT JOIN torrents t ON t.id = r.torrent WHERE {which}"
        );
        let numbers = self.rows(&sql, [after, limit], |row| {
            each(RequestRecord::of_row(row)?);
            row.get(10)
        })?;
        Ok(numbers.last().copied())
    }
}

impl RequestRecord {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let hash: Option<[u8; 20]> = row.get(3)?;
        let id: Option<[u8; 20]> = row.get(6)?;
        let name: Option<String> = row.get(4)?;
        let error: Option<String> = row.get(8)?;
        Ok(Self {
            time: Self::time_of(row.get(0)?),
            peer: addr(row, 5)?,
            peer_id: id.map(PeerId),
            event: RequestEvent::of_number(row.get(1)?),
            info_hash: hash.map(InfoHash),
            name: name.map(Into::into),
            handed: HandedList::of_text(row.get_ref(7)?.as_str_or_null()?.unwrap_or("")),
            outcome: error.map_or(Ok(()), |error| Err(error.into())),
            via: Via::of_number(row.get(2)?),
            unlisted: row.get(9)?,
        })
    }
}

/// Requests in memory at a time: some hundred bytes each.
const REQUESTS_AT_ONCE: usize = 1_000;
