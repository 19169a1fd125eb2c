//! Who gave which piece.

use rusqlite::{Row, params};

use super::{Reader, addr, unsigned};
use crate::error::JournalError;
use crate::rows::{GiverRow, PieceEvent, PieceEventKind, WrongPiece};
use piecework_core::{InfoHash, PieceIndex, Sha1Hash};
use piecework_swarm::BlockDigest;

/// A row of `given_rows`, without what owners and arrivals do not need.
pub(super) struct GivenRow {
    pub id: i64,
    pub time: i64,
    pub piece: u32,
    pub peer: i64,
    pub fate: i64,
    pub bytes: u64,
}

impl Reader {
    /// Returns the peers that gave a torrent, most generous first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn givers(&self, torrent: InfoHash) -> Result<Vec<GiverRow>, JournalError> {
        self.givers_since(torrent, i64::MIN)
    }

    /// Returns what happened to one piece, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn story(&self, torrent: InfoHash, piece: u32) -> Result<Vec<PieceEvent>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        let mut story = self.rows(
            "SELECT g.time, p.addr, p.client, g.verdict, g.ranges, g.blocks, g.bytes, \
             g.requested, g.received FROM spans s JOIN given_rows g ON g.id BETWEEN s.first AND \
             s.last JOIN peers p ON p.id = g.peer \
             WHERE s.torrent = ?1 AND g.torrent = ?1 AND g.piece = ?2",
            params![id, piece],
            |row| {
                let time: i64 = row.get(0)?;
                let before = |at: usize| -> rusqlite::Result<Option<i64>> {
                    Ok(row.get::<_, Option<i64>>(at)?.map(|ms| time - ms))
                };
                Ok(PieceEvent {
                    time,
                    kind: match row.get(3)? {
                        0 => PieceEventKind::Given,
                        1 => PieceEventKind::Failed,
                        _ => PieceEventKind::Unused,
                    },
                    peer: addr(row, 1)?,
                    client: row.get(2)?,
                    blocks: row.get(4)?,
                    block_count: row.get(5)?,
                    bytes: unsigned(row, 6)?,
                    requested_at: before(7)?,
                    received_at: before(8)?,
                })
            },
        )?;
        for wrong in self.wrong_pieces_after(Some(id), Some(piece), i64::MIN)? {
            let (Some(peer), Some(client)) = (wrong.peer, wrong.client.clone()) else { continue };
            story.push(PieceEvent {
                time: wrong.time,
                peer,
                client,
                blocks: wrong.block.map(|block| block.to_string()),
                block_count: u32::from(wrong.block.is_some()),
                bytes: 0,
                requested_at: None,
                received_at: None,
                kind: PieceEventKind::Banned(Box::new(wrong)),
            });
        }
        story.extend(self.sent_of(id, piece)?);
        story.sort_by_key(|event| event.time);
        Ok(story)
    }

    /// Returns every wrong piece of a torrent and who is to blame, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn wrong_pieces(&self, torrent: InfoHash) -> Result<Vec<WrongPiece>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        let mut rows = self.wrong_pieces_after(Some(id), None, i64::MIN)?;
        rows.sort_by_key(|wrong| wrong.time);
        Ok(rows)
    }

    /// Returns the givers that gave something since `since`, in milliseconds.
    pub(super) fn givers_since(
        &self,
        torrent: InfoHash,
        since: i64,
    ) -> Result<Vec<GiverRow>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        self.rows(
            "SELECT p.id, p.addr, p.client, s.pieces, s.blocks, s.bytes, s.failed, \
             s.unused_blocks, s.unused_bytes, s.first_at, s.last_at, \
             EXISTS (SELECT 1 FROM bad_rows b WHERE b.torrent = ?1 AND b.peer = p.id) \
             FROM totals s JOIN peers p ON p.id = s.peer WHERE s.torrent = ?1 \
             AND s.blocks + s.failed + s.unused_blocks > 0 AND s.last_at >= ?2 \
             ORDER BY s.bytes DESC, p.id",
            params![id, since],
            |row| {
                Ok(GiverRow {
                    id: row.get(0)?,
                    peer: addr(row, 1)?,
                    client: row.get(2)?,
                    pieces: unsigned(row, 3)?,
                    blocks: unsigned(row, 4)?,
                    bytes: unsigned(row, 5)?,
                    failed: unsigned(row, 6)?,
                    unused_blocks: unsigned(row, 7)?,
                    unused_bytes: unsigned(row, 8)?,
                    first_at: row.get(9)?,
                    last_at: row.get(10)?,
                    banned: row.get(11)?,
                })
            },
        )
    }

    /// Returns wrong pieces with a number above `after`.
    pub(super) fn wrong_pieces_after(
        &self,
        torrent: Option<i64>,
        piece: Option<u32>,
        after: i64,
    ) -> Result<Vec<WrongPiece>, JournalError> {
        self.rows(
            "SELECT b.time, b.piece, b.block, p.addr, p.client, b.givers, b.expected, b.got, \
             b.sent, b.right FROM bad_rows b LEFT JOIN peers p ON p.id = b.peer \
             WHERE (?1 IS NULL OR b.torrent = ?1) AND (?2 IS NULL OR b.piece = ?2) AND b.id > ?3 \
             ORDER BY b.id",
            params![torrent, piece, after],
            |row| {
                let is_known = row.get_ref(3)?.as_str_or_null()?.is_some();
                Ok(WrongPiece {
                    time: row.get(0)?,
                    piece: PieceIndex(row.get(1)?),
                    block: row.get(2)?,
                    peer: if is_known { Some(addr(row, 3)?) } else { None },
                    client: row.get(4)?,
                    givers: row.get(5)?,
                    expected: Sha1Hash(row.get(6)?),
                    got: Sha1Hash(row.get(7)?),
                    block_sent: row.get::<_, Option<_>>(8)?.map(BlockDigest),
                    block_right: row.get::<_, Option<_>>(9)?.map(BlockDigest),
                })
            },
        )
    }

    /// Passes each response of a torrent with a number above `after` to `each`, oldest first.
    pub(super) fn each_given(
        &self,
        torrent: i64,
        after: i64,
        mut each: impl FnMut(GivenRow),
    ) -> Result<(), JournalError> {
        let failed = |error: rusqlite::Error| JournalError::new(&self.path, error);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT g.id, g.time, g.piece, g.peer, g.verdict, g.bytes \
                 FROM spans s JOIN given_rows g ON g.id BETWEEN max(s.first, ?2 + 1) AND s.last \
                 WHERE s.torrent = ?1 AND s.last > ?2 AND g.torrent = ?1 ORDER BY s.first, g.id",
            )
            .map_err(failed)?;
        let mut rows = statement.query([torrent, after]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(GivenRow::of(row).map_err(failed)?);
        }
        Ok(())
    }
}

impl GivenRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            time: row.get(1)?,
            piece: row.get(2)?,
            peer: row.get(3)?,
            fate: row.get(4)?,
            bytes: unsigned(row, 5)?,
        })
    }
}
