//! What can be asked of a journal.

mod requests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::JournalError;
use super::database::{open_empty, open_read_only};
use super::queue::OwnRun;
use piecework_api::{BadPiece, GiverInfo, LogEntry, NewPieces, SentPieces, StoryEntry, TakerInfo};
use piecework_core::{BLOCK_LEN, InfoHash};

/// A journal that is only read, be it while a program writes it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    is_live: bool,
}

/// A torrent as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentRow {
    /// Its number in the journal.
    pub id: i64,
    /// Its identity.
    pub info_hash: InfoHash,
    /// Its name, unescaped.
    pub name: String,
    /// Pieces; 0 if that is not known, as the next two.
    pub pieces: u32,
    /// Bytes of content.
    pub size: u64,
    /// Bytes a piece.
    pub piece_length: u32,
}

/// Which responses are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this torrent alone.
    pub torrent: Option<InfoHash>,
    /// Of this peer alone.
    pub peer: Option<SocketAddr>,
    /// Since this time, milliseconds since 1970.
    pub since: Option<i64>,
    /// Behind this one.
    pub after: Option<i64>,
    /// Not of programs that run beside this one: of one's own run, and what was there before.
    pub run: Option<OwnRun>,
}

/// For each piece of a torrent who gave most of it, kept up to date by looking at what is new.
#[derive(Debug, Clone)]
pub struct Owners {
    of: Vec<i32>,
    /// The last response seen.
    last: i64,
    last_bad: i64,
    /// The piece seen last, when, and how much of it its owner gave.
    latest: (u32, i64, u64),
}

impl Reader {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// If it is not there, or no journal.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path.exists() {
            return Err(JournalError::Missing { path: path.to_owned() });
        }
        let (connection, is_live) = open_read_only(path)?;
        Ok(Self { connection, path: path.to_owned(), is_live })
    }

    /// A journal in memory in the place of the one at `path`, which could not be begun.
    pub(super) fn empty(path: &Path) -> Result<Self, JournalError> {
        let connection = open_empty(path)?;
        Ok(Self { connection, path: path.to_owned(), is_live: false })
    }

    /// Records of a torrent that are lost, as far as the file tells: there was no room for them
    /// while it could not be written.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn lost(&self, torrent: InfoHash) -> Result<u64, JournalError> {
        // Files of earlier versions do not tell.
        let version: i64 = self.one("PRAGMA user_version", [])?.unwrap_or(0);
        let Some(id) = self.torrent(torrent)?.filter(|_| version >= 3) else { return Ok(0) };
        let sum: Option<i64> =
            self.one("SELECT sum(count) FROM drop_rows WHERE torrent = ?1", [id])?;
        Ok(sum.and_then(|sum| u64::try_from(sum).ok()).unwrap_or(0))
    }

    /// Whether it sees what is written meanwhile.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// All torrents that it knows of, the newest first.
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

    /// Who gave a torrent, the most generous first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn givers(&self, torrent: InfoHash) -> Result<Vec<GiverInfo>, JournalError> {
        self.givers_since(torrent, i64::MIN)
    }

    /// Who was sent a torrent, who got most first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn takers(&self, torrent: InfoHash) -> Result<Vec<TakerInfo>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        self.rows(
            "SELECT p.id, p.addr, p.client, s.sent_blocks, s.sent_bytes, s.last_at / 1000 \
             FROM totals s JOIN peers p ON p.id = s.peer WHERE s.torrent = ?1 \
             AND s.sent_blocks > 0 ORDER BY s.sent_bytes DESC, p.id",
            [id],
            |row| {
                Ok(TakerInfo {
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

    /// What was sent of a torrent by records that follow the one with the number `after`: to
    /// `taker` alone, or to all.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sent(
        &self,
        torrent: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<SentPieces, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(SentPieces::default()) };
        let mut answer =
            SentPieces { takers: self.takers(torrent)?, last: after, ..<_>::default() };
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

    /// What happened to one piece, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn story(&self, torrent: InfoHash, piece: u32) -> Result<Vec<StoryEntry>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        let mut story = self.rows(
            "SELECT g.time, p.addr, p.client, g.verdict, g.ranges, g.blocks, g.bytes, \
             g.requested, g.received FROM spans s JOIN given_rows g ON g.id BETWEEN s.first AND \
             s.last JOIN peers p ON p.id = g.peer \
             WHERE s.torrent = ?1 AND g.torrent = ?1 AND g.piece = ?2",
            params![id, piece],
            |row| {
                let time: i64 = row.get(0)?;
                let before = |at: usize| -> rusqlite::Result<Option<String>> {
                    Ok(row.get::<_, Option<i64>>(at)?.map(|ms| rfc3339(time - ms)))
                };
                let (kind, verdict) = match row.get(3)? {
                    0 => ("given", "verified"),
                    1 => ("failed", "failed"),
                    _ => ("unused", "unused"),
                };
                let entry = StoryEntry {
                    time: rfc3339(time),
                    kind: kind.to_owned(),
                    peer: addr(row, 1)?,
                    client: row.get(2)?,
                    blocks: row.get(4)?,
                    block_count: row.get(5)?,
                    bytes: unsigned(row, 6)?,
                    requested_at: before(7)?,
                    received_at: before(8)?,
                    verdict: Some(verdict.to_owned()),
                    evidence: None,
                };
                Ok((time, entry))
            },
        )?;
        for (time, bad) in self.bad_rows(Some(id), Some(piece), i64::MIN)? {
            let (Some(peer), Some(client)) = (bad.peer, bad.client.clone()) else { continue };
            let entry = StoryEntry {
                time: bad.time.clone(),
                kind: "banned".to_owned(),
                peer,
                client,
                blocks: bad.block.map(|block| block.to_string()),
                block_count: u32::from(bad.block.is_some()),
                bytes: 0,
                requested_at: None,
                received_at: None,
                verdict: Some("banned".to_owned()),
                evidence: Some(bad),
            };
            story.push((time, entry));
        }
        story.extend(self.sent_of(id, piece)?);
        story.sort_by_key(|(time, _)| *time);
        Ok(story.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Every piece that came wrong and who is to blame, oldest first: of one torrent or of all,
    /// with the torrents' info-hashes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn bad(&self, torrent: InfoHash) -> Result<Vec<BadPiece>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        let mut rows = self.bad_rows(Some(id), None, i64::MIN)?;
        rows.sort_by_key(|(time, _)| *time);
        Ok(rows.into_iter().map(|(_, bad)| bad).collect())
    }

    /// The last `limit` responses, oldest first: those that were verified, failed, or led to a ban.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn log(&self, filter: &Filter, limit: usize) -> Result<Vec<LogEntry>, JournalError> {
        let torrent = match filter.torrent {
            Some(info_hash) => match self.torrent(info_hash)? {
                Some(id) => Some(id),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let peer = filter.peer.map(|peer| peer.to_string());
        // With `after` those that follow it, else the last ones.
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
                let time: i64 = row.get(1)?;
                let entry = LogEntry {
                    id: row.get(0)?,
                    time: rfc3339(time),
                    piece: row.get(2)?,
                    peer: addr(row, 3)?,
                    client: row.get(4)?,
                    blocks: row.get(5)?,
                    bytes: unsigned(row, 6)?,
                    took_ms: unsigned(row, 7)?,
                    verdict: if row.get::<_, i64>(8)? == 0 { "verified" } else { "failed" }
                        .to_owned(),
                    block: None,
                    info_hash: InfoHash(row.get(9)?),
                    torrent: row.get(10)?,
                };
                Ok((time, entry))
            },
        )?;
        if filter.after.is_none() {
            entries.reverse();
            let from = entries.first().map_or(i64::MIN, |(time, _)| *time);
            let from = if entries.len() < limit as usize { i64::MIN } else { from };
            let from = from.max(filter.since.unwrap_or(i64::MIN));
            entries.extend(self.bans(torrent, peer.as_deref(), from, filter.run)?);
            entries.sort_by_key(|(time, _)| *time);
        }
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Whether it is a tracker's: it tells of requests, and of no pieces.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_trackers(&self) -> Result<bool, JournalError> {
        let asked = "SELECT EXISTS (SELECT 1 FROM request_rows) \
             AND NOT EXISTS (SELECT 1 FROM given_rows) AND NOT EXISTS (SELECT 1 FROM sent_rows)";
        Ok(self.one::<bool>(asked, [])?.unwrap_or(false))
    }

    /// Takes in what is new since the last time; gives it, as events tell it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn follow(
        &self,
        torrent: InfoHash,
        owners: &mut Owners,
    ) -> Result<NewPieces, JournalError> {
        let mut new = NewPieces::default();
        // All is read as it is at one time: what comes in between is not to be passed over.
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
        let bad = self.bad_rows(Some(id), None, owners.last_bad)?;
        let last: Option<i64> = self.one("SELECT max(id) FROM bad_rows", [])?;
        owners.last_bad = last.unwrap_or(0).max(owners.last_bad);
        let judged = !bad.is_empty();
        new.bad = bad.into_iter().map(|(_, bad)| bad).collect();
        if judged {
            seen = i64::MIN;
        }
        if seen < i64::MAX {
            new.givers = self.givers_since(torrent, seen)?;
        }
        Ok(new)
    }

    fn givers_since(&self, torrent: InfoHash, since: i64) -> Result<Vec<GiverInfo>, JournalError> {
        let Some(id) = self.torrent(torrent)? else { return Ok(Vec::new()) };
        self.rows(
            "SELECT p.id, p.addr, p.client, s.pieces, s.blocks, s.bytes, s.failed, \
             s.unused_blocks, s.unused_bytes, s.first_at / 1000, s.last_at / 1000, \
             EXISTS (SELECT 1 FROM bad_rows b WHERE b.torrent = ?1 AND b.peer = p.id) \
             FROM totals s JOIN peers p ON p.id = s.peer WHERE s.torrent = ?1 \
             AND s.blocks + s.failed + s.unused_blocks > 0 AND s.last_at >= ?2 \
             ORDER BY s.bytes DESC, p.id",
            params![id, since],
            |row| {
                Ok(GiverInfo {
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

    /// Wrong pieces with a number above `after`, and their times.
    fn bad_rows(
        &self,
        torrent: Option<i64>,
        piece: Option<u32>,
        after: i64,
    ) -> Result<Vec<(i64, BadPiece)>, JournalError> {
        self.rows(
            "SELECT b.time, b.piece, b.block, p.addr, p.client, b.givers, b.expected, b.got, \
             b.sent, b.right FROM bad_rows b LEFT JOIN peers p ON p.id = b.peer \
             WHERE (?1 IS NULL OR b.torrent = ?1) AND (?2 IS NULL OR b.piece = ?2) AND b.id > ?3 \
             ORDER BY b.id",
            params![torrent, piece, after],
            |row| {
                let time: i64 = row.get(0)?;
                let known = row.get_ref(3)?.as_str_or_null()?.is_some();
                let bad = BadPiece {
                    time: rfc3339(time),
                    piece: row.get(1)?,
                    block: row.get(2)?,
                    peer: if known { Some(addr(row, 3)?) } else { None },
                    client: row.get(4)?,
                    givers: row.get(5)?,
                    expected: hex(row.get_ref(6)?.as_blob()?),
                    got: hex(row.get_ref(7)?.as_blob()?),
                    block_sent: row.get_ref(8)?.as_blob_or_null()?.map(hex),
                    block_right: row.get_ref(9)?.as_blob_or_null()?.map(hex),
                };
                Ok((time, bad))
            },
        )
    }

    /// Bans as the log tells them.
    fn bans(
        &self,
        torrent: Option<i64>,
        peer: Option<&str>,
        since: i64,
        run: Option<OwnRun>,
    ) -> Result<Vec<(i64, LogEntry)>, JournalError> {
        self.rows(
            "SELECT b.id, b.time, b.piece, p.addr, p.client, b.block, t.info_hash, t.name, \
             min(t.piece_length, t.size - b.piece * t.piece_length) FROM bad_rows b \
             JOIN peers p ON p.id = b.peer JOIN torrents t ON t.id = b.torrent \
             WHERE (?1 IS NULL OR b.torrent = ?1) AND (?2 IS NULL OR p.addr = ?2) \
             AND b.time >= ?3 AND (?4 IS NULL OR b.run = ?4 OR b.id <= ?5)",
            params![torrent, peer, since, run.map(|run| run.id), run.map(|run| run.bad)],
            |row| {
                let time: i64 = row.get(1)?;
                let entry = LogEntry {
                    id: 0,
                    time: rfc3339(time),
                    piece: row.get(2)?,
                    peer: addr(row, 3)?,
                    client: row.get(4)?,
                    blocks: 1,
                    bytes: u64::from(BLOCK_LEN).min(unsigned(row, 8)?),
                    took_ms: 0,
                    verdict: "banned".to_owned(),
                    block: row.get(5)?,
                    info_hash: InfoHash(row.get(6)?),
                    torrent: row.get(7)?,
                };
                Ok((time, entry))
            },
        )
    }

    /// Whom a piece was sent to.
    fn sent_of(&self, torrent: i64, piece: u32) -> Result<Vec<(i64, StoryEntry)>, JournalError> {
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
                    let time: i64 = row.get(0)?;
                    let entry = StoryEntry {
                        time: rfc3339(time),
                        kind: "sent".to_owned(),
                        peer: addr(row, 1)?,
                        client: row.get(2)?,
                        blocks: None,
                        block_count: blocks,
                        bytes,
                        requested_at: None,
                        received_at: None,
                        verdict: None,
                        evidence: None,
                    };
                    entries.push((time, entry));
                }
                Ok(entries)
            },
        )?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(super) fn each_given(
        &self,
        torrent: i64,
        after: i64,
        mut each: impl FnMut(GivenRow),
    ) -> Result<(), JournalError> {
        let sorted = |error: rusqlite::Error| JournalError::new(&self.path, error);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT g.id, g.time, g.piece, g.peer, g.verdict, g.bytes \
                 FROM spans s JOIN given_rows g ON g.id BETWEEN max(s.first, ?2 + 1) AND s.last \
                 WHERE s.torrent = ?1 AND s.last > ?2 AND g.torrent = ?1 ORDER BY s.first, g.id",
            )
            .map_err(sorted)?;
        let mut rows = statement.query([torrent, after]).map_err(sorted)?;
        while let Some(row) = rows.next().map_err(sorted)? {
            each(GivenRow::of(row).map_err(sorted)?);
        }
        Ok(())
    }

    pub(super) fn torrent(&self, info_hash: InfoHash) -> Result<Option<i64>, JournalError> {
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

/// A response as [`Owners`] and time lines need it.
pub(super) struct GivenRow {
    pub id: i64,
    pub time: i64,
    pub piece: u32,
    pub peer: i64,
    pub fate: i64,
    pub bytes: u64,
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

impl Owners {
    /// Nobody has given any of `pieces` pieces yet.
    pub fn new(pieces: u32) -> Self {
        Self { of: vec![-1; pieces as usize], last: 0, last_bad: 0, latest: (u32::MAX, 0, 0) }
    }

    /// The number of who gave most of each piece; -1 where nobody is known.
    pub fn by_piece(&self) -> impl Iterator<Item = i64> + '_ {
        self.of.iter().map(|owner| i64::from(*owner))
    }

    /// Takes a response in; gives the piece's owner if that is new.
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

/// Asks for responses, of the torrent `?1` or of all, in the order of their numbers or the newest
/// first.
pub(super) fn log_query(of_one: bool, oldest_first: bool) -> String {
    let order = if oldest_first { "ASC" } else { "DESC" };
    // Where a torrent's rows lie is known, so that not all others are looked at. In this order
    // none need be sorted either, and it ends when there are enough.
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

/// Blocks and bytes of `piece`, which has `whole` bytes, in each part of `pieces` that is about it.
fn parts_of(pieces: &str, piece: u32, whole: u64) -> Vec<(u32, u64)> {
    let all = (whole.div_ceil(u64::from(BLOCK_LEN)) as u32, whole);
    let found = parts(pieces).filter(|(number, _)| *number == piece);
    found.map(|(_, part)| part.unwrap_or(all)).collect()
}

/// The pieces in a row of what was sent, as `write.rs` writes them: each with the blocks and bytes
/// of it, or `None` for all of it. What is no number is piece `u32::MAX`, which no torrent has.
fn parts(pieces: &str) -> impl Iterator<Item = (u32, Option<(u32, u64)>)> + '_ {
    // Brackets hold three numbers; outside of them each is a whole piece.
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
        Some((piece, Some((blocks as u32, bytes))))
    })
}

/// A time of the journal for people and JSON.
pub fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
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

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
