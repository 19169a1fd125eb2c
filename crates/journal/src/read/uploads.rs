//! What was sent to whom.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;

use rusqlite::params;

use super::{Reader, addr, unsigned};
use crate::error::JournalError;
use crate::rows::{PieceEvent, PieceEventKind, TakerRow, Uploads};
use piecework_core::{BLOCK_LEN, InfoHash};

impl Reader {
    /// Returns the peers that were sent a torrent, largest receiver first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn takers(&self, torrent: InfoHash) -> Result<Vec<TakerRow>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        self.rows(
            "SELECT p.id, p.addr, p.client, s.sent_blocks, s.sent_bytes, s.last_at \
             FROM totals s JOIN peers p ON p.id = s.peer WHERE s.torrent = ?1 \
             AND s.sent_blocks > 0 ORDER BY s.sent_bytes DESC, p.id",
            [id],
            |row| {
                Ok(TakerRow {
                    id: row.get(0)?,
                    peer: addr(row, 1)?,
                    client: row.get(2)?,
                    blocks: unsigned(row, 3)?,
                    bytes: unsigned(row, 4)?,
                    last_at: row.get(5)?,
                })
            },
        )
    }

    /// Returns what was sent of a torrent by the records after the one with the number `after`: to
    /// `taker` only, or to everyone.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sent(
        &self,
        torrent: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<Uploads, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Uploads::default()) };
        let mut answer = Uploads { takers: self.takers(torrent)?, last: after, ..<_>::default() };
        let mut by_piece: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        let size = "SELECT ifnull(piece_length, 0), ifnull(size, 0) FROM torrents WHERE id = ?1";
        let sizes = self.rows(size, [id], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        let (piece_length, size) = sizes.first().copied().unwrap_or_default();
        let whole = |piece: u32| {
            piece_length.min(size.saturating_sub(u64::from(piece).saturating_mul(piece_length)))
        };
        let last = &mut answer.last;
        self.rows(
            "SELECT id, peer, pieces FROM sent_rows WHERE torrent = ?1 AND id > ?2 \
             AND (?3 IS NULL OR peer = ?3) ORDER BY id",
            params![id, after, taker],
            |row| {
                *last = row.get(0)?;
                let peer: i64 = row.get(1)?;
                for (piece, part) in parts(row.get_ref(2)?.as_str()?) {
                    let bytes = part.map_or_else(|| whole(piece), |(_, bytes)| bytes);
                    let sent = by_piece.entry(piece).or_default();
                    *sent = (sent.0 + bytes, peer);
                }
                Ok(())
            },
        )?;
        answer.pieces =
            by_piece.into_iter().map(|(piece, (bytes, peer))| (piece, bytes, peer)).collect();
        Ok(answer)
    }

    /// Returns the peers that a piece was sent to.
    pub(super) fn sent_of(
        &self,
        torrent: i64,
        piece: u32,
    ) -> Result<Vec<PieceEvent>, JournalError> {
        let found = self.rows(
            "SELECT s.time, p.addr, p.client, s.pieces, \
             min(t.piece_length, t.size - ?2 * t.piece_length) FROM sent_rows s \
             JOIN torrents t ON t.id = s.torrent JOIN peers p ON p.id = s.peer \
             WHERE s.torrent = ?1",
            params![torrent, piece],
            |row| {
                let pieces = row.get_ref(3)?.as_str()?;
                let mut entries = Vec::new();
                for (blocks, bytes) in parts_of(pieces, piece, unsigned(row, 4)?) {
                    entries.push(PieceEvent {
                        time: row.get(0)?,
                        kind: PieceEventKind::Sent,
                        peer: addr(row, 1)?,
                        client: row.get(2)?,
                        blocks: None,
                        block_count: blocks,
                        bytes,
                        requested_at: None,
                        received_at: None,
                    });
                }
                Ok(entries)
            },
        )?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Returns the blocks and bytes of `piece` in each part of `pieces` that is about it. The piece has
/// `whole` bytes.
fn parts_of(pieces: &str, piece: u32, whole: u64) -> Vec<(u32, u64)> {
    let all = (u32::saturating_from(whole.div_ceil(u64::from(BLOCK_LEN))), whole);
    let found = parts(pieces).filter(|(number, _)| *number == piece);
    found.map(|(_, part)| part.unwrap_or(all)).collect()
}

/// Parses the pieces in a row of `sent_rows`, as `write.rs` writes them: each piece with its blocks
/// and bytes, or `None` for all of it. Text that is not a number becomes piece `u32::MAX`, which no
/// torrent has.
fn parts(pieces: &str) -> impl Iterator<Item = (u32, Option<(u32, u64)>)> + '_ {
    // Brackets hold three numbers. A number outside of brackets is a whole piece.
    let mut rest = pieces.strip_prefix('[').unwrap_or(pieces);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(part) = rest.strip_prefix('[') else {
            let end = rest.find([',', ']']).unwrap_or(rest.len());
            let piece = rest[..end].parse().unwrap_or(u32::MAX);
            rest = rest[end..].trim_start_matches([',', ']']);
            return Some((piece, None));
        };
        let (part, behind) = part.split_once(']').unwrap_or((part, ""));
        rest = behind.trim_start_matches([',', ']']);
        let mut numbers = part.split(',').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let piece = next().and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX);
        let (blocks, bytes) = (next().unwrap_or(0), next().unwrap_or(0));
        Some((piece, Some((u32::saturating_from(blocks), bytes))))
    })
}
