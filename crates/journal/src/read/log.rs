//! The log of responses.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;

use rusqlite::params;

use super::{Reader, addr, unsigned};
use crate::error::JournalError;
use crate::rows::{ResponseRow, Verdict};
use crate::run::OwnRun;
use piecework_core::{BLOCK_LEN, InfoHash, PieceIndex};

/// Which responses to return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this torrent.
    pub torrent: Option<InfoHash>,
    /// Only of this peer.
    pub peer: Option<SocketAddr>,
    /// Since this time, milliseconds since 1970.
    pub since: Option<i64>,
    /// Only those after the response with this number.
    pub after: Option<i64>,
    /// Only of this run and of what was in the file before it, not of programs that write at the
    /// same time.
    pub run: Option<OwnRun>,
}

impl Reader {
    /// Returns the last `limit` responses, oldest first: those that were verified, failed, or led to
    /// a ban.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn log(&self, filter: &Filter, limit: usize) -> Result<Vec<ResponseRow>, JournalError> {
        let torrent = match filter.torrent {
            Some(info_hash) => match self.torrent(info_hash)? {
                Some(id) => Some(id),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let peer = filter.peer.map(|peer| peer.to_string());
        // With `after` the responses that follow it, otherwise the last ones.
        let mut entries = self.rows(
            &log_query(torrent.is_some(), filter.after.is_some()),
            params![
                torrent,
                peer,
                filter.since.unwrap_or(i64::MIN),
                filter.after.unwrap_or(-1),
                filter.run.map(|run| run.id),
                filter.run.map(|run| run.given),
                limit
            ],
            |row| {
                Ok(ResponseRow {
                    id: row.get(0)?,
                    time: row.get(1)?,
                    piece: PieceIndex(row.get(2)?),
                    peer: addr(row, 3)?,
                    client: row.get(4)?,
                    blocks: row.get(5)?,
                    bytes: unsigned(row, 6)?,
                    took_ms: unsigned(row, 7)?,
                    verdict: match row.get(8)? {
                        0 => Verdict::Verified,
                        _ => Verdict::Failed,
                    },
                    info_hash: InfoHash(row.get(9)?),
                    torrent: row.get(10)?,
                })
            },
        )?;
        if filter.after.is_none() {
            entries.reverse();
            let from = entries.first().map_or(i64::MIN, |entry| entry.time);
            let from = if entries.len() < usize::saturating_from(limit) { i64::MIN } else { from };
            let from = from.max(filter.since.unwrap_or(i64::MIN));
            entries.extend(self.bans(torrent, peer.as_deref(), from, filter.run)?);
            entries.sort_by_key(|entry| entry.time);
        }
        Ok(entries)
    }

    /// Returns the bans as responses.
    fn bans(
        &self,
        torrent: Option<i64>,
        peer: Option<&str>,
        since: i64,
        run: Option<OwnRun>,
    ) -> Result<Vec<ResponseRow>, JournalError> {
        self.rows(
            "SELECT b.id, b.time, b.piece, p.addr, p.client, b.block, t.info_hash, t.name, \
             min(t.piece_length, t.size - b.piece * t.piece_length) FROM bad_rows b \
             JOIN peers p ON p.id = b.peer JOIN torrents t ON t.id = b.torrent \
             WHERE (?1 IS NULL OR b.torrent = ?1) AND (?2 IS NULL OR p.addr = ?2) \
             AND b.time >= ?3 AND (?4 IS NULL OR b.run = ?4 OR b.id <= ?5)",
            params![torrent, peer, since, run.map(|run| run.id), run.map(|run| run.bad)],
            |row| {
                let block: Option<u32> = row.get(5)?;
                Ok(ResponseRow {
                    id: 0,
                    time: row.get(1)?,
                    piece: PieceIndex(row.get(2)?),
                    peer: addr(row, 3)?,
                    client: row.get(4)?,
                    blocks: 1,
                    bytes: u64::from(BLOCK_LEN).min(unsigned(row, 8)?),
                    took_ms: 0,
                    verdict: Verdict::Banned {
                        block: block.map(|block| block.saturating_mul(BLOCK_LEN)),
                    },
                    info_hash: InfoHash(row.get(6)?),
                    torrent: row.get(7)?,
                })
            },
        )
    }
}

/// Returns the query for responses, of the torrent `?1` or of all, oldest or newest first.
pub(crate) fn log_query(of_one: bool, oldest_first: bool) -> String {
    let order = if oldest_first { "ASC" } else { "DESC" };
    // `spans` says where the rows of a torrent lie, so that rows of others are not read. In this
    // order no row needs sorting, and the query ends as soon as there are enough.
    let (rows, order) = match of_one {
        true => (
            "spans s CROSS JOIN given_rows g ON s.torrent = ?1 AND s.last > ?4 \
             AND g.id BETWEEN max(s.first, ?4 + 1) AND s.last AND g.torrent = ?1",
            format!("s.first {order}, g.id {order}"),
        ),
        false => ("given_rows g", format!("g.id {order}")),
    };
    format!(
        "SELECT g.id, g.time, g.piece, p.addr, p.client, g.blocks, g.bytes, \
         g.requested - g.received, g.verdict, t.info_hash, t.name \
         FROM {rows} JOIN peers p ON p.id = g.peer JOIN torrents t \
         ON t.id = g.torrent WHERE g.verdict < 2 AND (?1 IS NULL OR g.torrent = ?1) \
         AND (?2 IS NULL OR p.addr = ?2) AND g.time >= ?3 AND g.id > ?4 \
         AND (?5 IS NULL OR g.run = ?5 OR g.id <= ?6) ORDER BY {order} LIMIT ?7"
    )
}
