//! Reads a journal. Each method of a reader answers one question; the files in `read/` group them by subject.

mod arrivals;
mod log;
mod owners;
mod pieces;
mod requests;
mod uploads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row};

use super::database::{open_empty, open_read_only};
use super::error::JournalError;
use super::rows::TorrentRow;
use piecework_core::InfoHash;

pub use log::Filter;
#[cfg(test)]
pub(super) use log::log_query;
pub use owners::Owners;

/// A journal opened for reading. Other programs may write it meanwhile.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    is_live: bool,
}

impl Reader {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// If the file does not exist or is not a journal.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path.exists() {
            return Err(JournalError::Missing { path: path.to_owned() });
        }
        let (connection, is_live) = open_read_only(path)?;
        Ok(Self { connection, path: path.to_owned(), is_live })
    }

    /// Returns an empty journal in memory, in place of the file at `path` that could not be created.
    pub(super) fn empty(path: &Path) -> Result<Self, JournalError> {
        let connection = open_empty(path)?;
        Ok(Self { connection, path: path.to_owned(), is_live: false })
    }

    /// Returns how many records of a torrent were lost, as far as the file says: there was no room
    /// for them while it could not be written.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn lost(&self, torrent: InfoHash) -> Result<u64, JournalError> {
        // Files of earlier versions do not count them.
        let version: i64 = self.one("PRAGMA user_version", [])?.unwrap_or(0);
        let Some(id) = self.torrent(torrent)?.filter(|_| version >= 3) else { return Ok(0) };
        let sum: Option<i64> =
            self.one("SELECT sum(count) FROM drop_rows WHERE torrent = ?1", [id])?;
        Ok(sum.and_then(|sum| u64::try_from(sum).ok()).unwrap_or(0))
    }

    /// Returns whether it sees what other programs write meanwhile.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Returns all torrents in the journal, newest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn torrents(&self) -> Result<Vec<TorrentRow>, JournalError> {
        let asked = "SELECT id, info_hash, name, pieces, size, piece_length FROM torrents \
             ORDER BY id DESC";
        self.rows(asked, [], |row| {
            Ok(TorrentRow {
                id: row.get(0)?,
                info_hash: InfoHash(row.get(1)?),
                name: row.get(2)?,
                pieces: row.get::<_, Option<u32>>(3)?.unwrap_or(0),
                size: unsigned(row, 4)?,
                piece_length: row.get::<_, Option<u32>>(5)?.unwrap_or(0),
            })
        })
    }

    /// Returns whether a tracker wrote it: it has requests and no pieces.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_trackers(&self) -> Result<bool, JournalError> {
        let asked = "SELECT EXISTS (SELECT 1 FROM request_rows) \
             AND NOT EXISTS (SELECT 1 FROM given_rows) AND NOT EXISTS (SELECT 1 FROM sent_rows)";
        Ok(self.one::<bool>(asked, [])?.unwrap_or(false))
    }

    fn torrent(&self, info_hash: InfoHash) -> Result<Option<i64>, JournalError> {
        self.one("SELECT id FROM torrents WHERE info_hash = ?1", [info_hash.0])
    }

    fn one<T: rusqlite::types::FromSql>(
        &self,
        sql: &str,
        with: impl rusqlite::Params,
    ) -> Result<Option<T>, JournalError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_row(with, |row| row.get::<_, Option<T>>(0)).optional()
            })
            .map(Option::flatten)
            .map_err(|error| JournalError::new(&self.path, error))
    }

    fn rows<T>(
        &self,
        sql: &str,
        with: impl rusqlite::Params,
        each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, JournalError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(with, each)?.collect())
            .map_err(|error| JournalError::new(&self.path, error))
    }
}

fn addr(row: &Row<'_>, at: usize) -> rusqlite::Result<SocketAddr> {
    let text = row.get_ref(at)?.as_str()?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            at,
            rusqlite::types::Type::Text,
            Box::<dyn std::error::Error + Send + Sync>::from(format!("`{text}`: {error}")),
        )
    })
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, Option<i64>>(at)?.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}
