//! Converts records to rows.

use piecework_core::SaturatingFrom;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};
use rusqlite::{OptionalExtension, Transaction, params};

use super::losses::Losses;
use super::record::{Blame, BlockFate, HashFailure, Record, Response, Upload};
use super::request_record::RequestRecord;
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, PieceIndex};
use piecework_swarm::PeerIdentity;

/// Writes rows. Caches the ids of torrents and peers, to avoid lookups.
#[derive(Default)]
pub(super) struct RowWriter {
    torrents: HashMap<InfoHash, i64>,
    peers: HashMap<(SocketAddr, Box<str>), i64>,
    /// The run of this program.
    pub run: i64,
}

/// The sums of one batch, so that each is written once.
#[derive(Default)]
struct BatchSums {
    totals: BTreeMap<(i64, i64), PeerSum>,
    sent: BTreeMap<(i64, i64), UploadSum>,
    /// The first and last row of each torrent.
    spans: BTreeMap<i64, (i64, i64)>,
    /// Verified pieces and their bytes, per minute since 1970.
    minutes: BTreeMap<i64, (i64, i64)>,
}

#[derive(Default)]
struct PeerSum {
    pieces: i64,
    blocks: i64,
    bytes: i64,
    failed: i64,
    unused: (i64, i64),
    sent: (i64, i64),
    first_at: Option<i64>,
    last_at: i64,
    /// The number of verified pieces with a known duration; the total and the longest duration in
    /// milliseconds.
    timed: i64,
    took: i64,
    longest: i64,
}

/// What one peer was sent in one batch.
#[derive(Default)]
struct UploadSum {
    time: i64,
    blocks: i64,
    bytes: i64,
    /// JSON: a number is a whole piece, `[piece,blocks,bytes]` a part of one.
    pieces: String,
}

impl RowWriter {
    /// Creates a writer with empty caches for the run with this number.
    pub(crate) fn new(run: i64) -> Self {
        Self { run, ..Self::default() }
    }

    /// Clears the caches: another program may have removed rows.
    pub(crate) fn forget(&mut self) {
        self.torrents.clear();
        self.peers.clear();
    }

    pub(crate) fn write(
        &mut self,
        transaction: &Transaction<'_>,
        records: &[Record],
    ) -> rusqlite::Result<()> {
        let mut sums = BatchSums::default();
        {
            let mut given = transaction.prepare_cached(GIVEN)?;
            for record in records {
                match record {
                    Record::Given(it) => {
                        let torrent = self.torrent(transaction, &it.torrent)?;
                        let peer = self.peer(transaction, &it.who)?;
                        let ranges = (!it.ranges.is_empty()).then(|| text_of(it));
                        let id = given.insert(params![
                            self.run,
                            it.time,
                            torrent,
                            it.piece.0,
                            peer,
                            it.fate as i64,
                            it.blocks,
                            signed(it.bytes),
                            ranges,
                            it.asked.map(|(requested, _)| it.time - requested),
                            it.asked.map(|(_, received)| it.time - received),
                        ])?;
                        sums.given(torrent, peer, id, it);
                    }
                    Record::Sent(it) => {
                        let torrent = self.torrent(transaction, &it.torrent)?;
                        let peer = self.peer(transaction, &it.who)?;
                        sums.sent(torrent, peer, it);
                    }
                    Record::Failed(it) => self.failed(transaction, it)?,
                    Record::Judged(it) => self.judged(transaction, it)?,
                    Record::Request(it) => self.request(transaction, it)?,
                }
            }
        }
        sums.write(transaction, self.run)
    }

    /// Writes the losses: a sum for each given torrent, and one for all others.
    pub(crate) fn write_lost(
        &mut self,
        transaction: &Transaction<'_>,
        lost: &Losses,
        time: i64,
    ) -> rusqlite::Result<()> {
        for (why, torrent, count) in lost.iter() {
            let torrent = torrent.map(|torrent| self.torrent(transaction, torrent)).transpose()?;
            transaction.prepare_cached(DROPPED)?.execute(params![
                self.run,
                time,
                why,
                signed(count),
                torrent
            ])?;
        }
        Ok(())
    }

    fn torrent(
        &mut self,
        transaction: &Transaction<'_>,
        torrent: &Metainfo,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.torrents.get(&torrent.info_hash()) {
            return Ok(*id);
        }
        let geometry = torrent.info().geometry();
        let id = transaction.query_row(
            "INSERT INTO torrents (info_hash, name, size, pieces, piece_length) \
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (info_hash) DO UPDATE SET \
             name = excluded.name, size = excluded.size, pieces = excluded.pieces, \
             piece_length = excluded.piece_length RETURNING id",
            params![
                torrent.info_hash().0,
                torrent.info().name(),
                signed(geometry.total_len()),
                geometry.pieces(),
                geometry.piece_len(),
            ],
            |row| row.get(0),
        )?;
        self.remember_torrent(torrent.info_hash(), id);
        Ok(id)
    }

    /// Returns the id of a torrent of which only the info-hash and perhaps a name is known.
    fn named_torrent(
        &mut self,
        transaction: &Transaction<'_>,
        info_hash: InfoHash,
        name: Option<&str>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.torrents.get(&info_hash) {
            return Ok(*id);
        }
        let id = transaction
            .prepare_cached(
                "INSERT INTO torrents (info_hash, name) VALUES (?1, ?2) \
                 ON CONFLICT (info_hash) DO UPDATE SET \
                 name = CASE excluded.name WHEN '' THEN name ELSE excluded.name END RETURNING id",
            )?
            .query_row(params![info_hash.0, name.unwrap_or("")], |row| row.get(0))?;
        self.remember_torrent(info_hash, id);
        Ok(id)
    }

    fn remember_torrent(&mut self, info_hash: InfoHash, id: i64) {
        if self.torrents.len() >= MOST_CACHED {
            self.torrents.clear();
        }
        self.torrents.insert(info_hash, id);
    }

    fn peer(
        &mut self,
        transaction: &Transaction<'_>,
        who: &Arc<PeerIdentity>,
    ) -> rusqlite::Result<i64> {
        let (addr, client) = (who.known_as(), shortened(&who.client));
        if let Some(id) = self.peers.get(&PeerRef(addr, client)) {
            return Ok(*id);
        }
        let text = addr.to_string();
        let known = "SELECT id FROM peers WHERE addr = ?1 AND client = ?2";
        let found =
            transaction.query_row(known, params![text, client], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let new = "INSERT INTO peers (addr, client) VALUES (?1, ?2)";
                transaction.execute(new, params![text, client])?;
                transaction.last_insert_rowid()
            }
        };
        if self.peers.len() >= MOST_CACHED {
            self.peers.clear();
        }
        self.peers.insert((addr, client.into()), id);
        Ok(id)
    }

    fn failed(&mut self, transaction: &Transaction<'_>, it: &HashFailure) -> rusqlite::Result<()> {
        let torrent = self.torrent(transaction, &it.torrent)?;
        transaction.execute(
            "INSERT INTO bad_rows (run, time, torrent, piece, givers, expected, got) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.run,
                it.time,
                torrent,
                it.piece.0,
                it.givers,
                expected(&it.torrent, it.piece),
                it.got.0,
            ],
        )?;
        Ok(())
    }

    /// Adds the peer to the row of the wrong piece. The row also gets a new number, so that readers
    /// of new rows see it again.
    fn judged(&mut self, transaction: &Transaction<'_>, it: &Blame) -> rusqlite::Result<()> {
        let torrent = self.torrent(transaction, &it.torrent)?;
        let peer = self.peer(transaction, &it.who)?;
        let (sent, right) = (it.sent.map(|digest| digest.0), it.right.map(|digest| digest.0));
        let known = transaction
            .query_row(
                "SELECT id FROM bad_rows WHERE torrent = ?1 AND piece = ?2 AND got = ?3 \
                 AND block IS NULL AND (peer IS NULL OR peer = ?4) ORDER BY peer IS NULL LIMIT 1",
                params![torrent, it.piece.0, it.got.0, peer],
                |row| row.get::<_, i64>(0),
            )
            .optional()?;
        if let Some(id) = known {
            transaction.execute(
                "UPDATE bad_rows SET id = (SELECT max(id) + 1 FROM bad_rows), peer = ?2, \
                 block = ?3, sent = ?4, right = ?5 WHERE id = ?1",
                params![id, peer, it.block, sent, right],
            )?;
            return Ok(());
        }
        transaction.execute(
            "INSERT INTO bad_rows \
             (run, time, torrent, piece, givers, expected, got, peer, block, sent, right) \
             VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                self.run,
                it.time,
                torrent,
                it.piece.0,
                expected(&it.torrent, it.piece),
                it.got.0,
                peer,
                it.block,
                sent,
                right,
            ],
        )?;
        Ok(())
    }

    fn request(
        &mut self,
        transaction: &Transaction<'_>,
        it: &RequestRecord,
    ) -> rusqlite::Result<()> {
        let torrent = match it.info_hash {
            Some(info_hash) => {
                Some(self.named_torrent(transaction, info_hash, it.name.as_deref())?)
            }
            None => None,
        };
        transaction.prepare_cached(REQUEST)?.execute(params![
            self.run,
            it.unix_ms(),
            it.event as i64,
            it.via as i64,
            torrent,
            it.name.as_deref(),
            it.peer.to_string(),
            it.peer_id.map(|id| id.0),
            it.peer_id.map(|id| id.client_name()),
            i64::saturating_from(it.handed.len()),
            i64::saturating_from(it.handed.iter().filter(|peer| peer.complete).count()),
            it.handed.to_text(),
            it.outcome.as_ref().err().map(|error| shortened(error)),
            it.unlisted,
        ])?;
        Ok(())
    }
}

impl BatchSums {
    fn given(&mut self, torrent: i64, peer: i64, id: i64, it: &Response) {
        let span = self.spans.entry(torrent).or_insert((id, id));
        span.1 = id;
        let sum = self.totals.entry((torrent, peer)).or_default();
        sum.first_at.get_or_insert(it.time);
        sum.last_at = sum.last_at.max(it.time);
        match it.fate {
            BlockFate::Verified => {
                sum.pieces += 1;
                sum.blocks += i64::from(it.blocks);
                sum.bytes += signed(it.bytes);
                if let Some((requested, received)) = it.asked {
                    let took = received - requested;
                    sum.timed += 1;
                    sum.took += took;
                    sum.longest = sum.longest.max(took);
                }
                let minute = self.minutes.entry(it.time.div_euclid(60_000)).or_default();
                minute.0 += 1;
                minute.1 += signed(it.bytes);
            }
            BlockFate::Failed => {
                sum.failed += 1;
                sum.unused.0 += i64::from(it.blocks);
                sum.unused.1 += signed(it.bytes);
            }
            BlockFate::Unused => {
                sum.unused.0 += i64::from(it.blocks);
                sum.unused.1 += signed(it.bytes);
            }
        }
    }

    fn sent(&mut self, torrent: i64, peer: i64, it: &Upload) {
        let sum = self.totals.entry((torrent, peer)).or_default();
        sum.first_at.get_or_insert(it.time);
        sum.last_at = sum.last_at.max(it.time);
        sum.sent.0 += i64::from(it.blocks);
        sum.sent.1 += signed(it.bytes);
        let outgoing = self.sent.entry((torrent, peer)).or_default();
        outgoing.time = outgoing.time.max(it.time);
        outgoing.blocks += i64::from(it.blocks);
        outgoing.bytes += signed(it.bytes);
        outgoing.pieces.push(if outgoing.pieces.is_empty() { '[' } else { ',' });
        let whole = u64::from(it.torrent.info().geometry().piece_size(it.piece));
        // Writing to a string cannot fail.
        let _ = match it.bytes == whole {
            true => write!(outgoing.pieces, "{}", it.piece.0),
            false => write!(outgoing.pieces, "[{},{},{}]", it.piece.0, it.blocks, it.bytes),
        };
    }

    fn write(self, transaction: &Transaction<'_>, run: i64) -> rusqlite::Result<()> {
        for ((torrent, peer), mut out) in self.sent {
            out.pieces.push(']');
            transaction.prepare_cached(SENT)?.execute(params![
                run, out.time, torrent, peer, out.blocks, out.bytes, out.pieces
            ])?;
        }
        for ((torrent, peer), sum) in self.totals {
            transaction.prepare_cached(TOTAL)?.execute(params![
                torrent,
                peer,
                sum.pieces,
                sum.blocks,
                sum.bytes,
                sum.failed,
                sum.unused.0,
                sum.unused.1,
                sum.sent.0,
                sum.sent.1,
                sum.first_at.unwrap_or(sum.last_at),
                sum.last_at,
                sum.timed,
                sum.took,
                sum.longest,
            ])?;
        }
        for (minute, (pieces, bytes)) in self.minutes {
            transaction.prepare_cached(MINUTE)?.execute([minute, pieces, bytes])?;
        }
        for (torrent, (first, last)) in self.spans {
            // A span that ends closely before this one is extended, unless it would become too long
            // to read at once.
            let grown = transaction
                .prepare_cached(
                    "UPDATE spans SET last = ?3 WHERE torrent = ?1 AND first = \
                     (SELECT max(first) FROM spans WHERE torrent = ?1) \
                     AND last >= ?2 - ?4 AND first > ?3 - ?4",
                )?
                .execute(params![torrent, first, last, SPAN])?;
            if grown == 0 {
                transaction
                    .prepare_cached("INSERT INTO spans (torrent, first, last) VALUES (?1, ?2, ?3)")?
                    .execute(params![torrent, first, last])?;
            }
        }
        Ok(())
    }
}

/// The key of [`RowWriter::peers`] with a borrowed string.
#[derive(Hash)]
struct PeerRef<'a>(SocketAddr, &'a str);

impl Equivalent<(SocketAddr, Box<str>)> for PeerRef<'_> {
    fn equivalent(&self, key: &(SocketAddr, Box<str>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

fn text_of(it: &Response) -> String {
    let mut text = String::new();
    for (first, last) in &it.ranges {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = match first == last {
            true => write!(text, "{first}"),
            false => write!(text, "{first}-{last}"),
        };
    }
    text
}

fn expected(torrent: &Metainfo, piece: PieceIndex) -> [u8; 20] {
    // The piece has just failed its check, so the hashes are in memory.
    let hash = torrent.bytes().ok().and_then(|bytes| bytes.piece_hash(piece));
    hash.map_or([0; 20], |hash| hash.0)
}

/// Cuts untrusted text to a sensible length.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const GIVEN: &str = "INSERT INTO given_rows \
    (run, time, torrent, piece, peer, verdict, blocks, bytes, ranges, requested, received) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

const SENT: &str = "INSERT INTO sent_rows (run, time, torrent, peer, blocks, bytes, pieces) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const DROPPED: &str =
    "INSERT INTO drop_rows (run, time, what, count, torrent) VALUES (?1, ?2, ?3, ?4, ?5)";

const TOTAL: &str = "INSERT INTO totals (torrent, peer, pieces, blocks, bytes, failed, \
    unused_blocks, unused_bytes, sent_blocks, sent_bytes, first_at, last_at, timed, took_ms, \
    longest_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
    ON CONFLICT (torrent, peer) DO UPDATE SET pieces = pieces + excluded.pieces, \
    blocks = blocks + excluded.blocks, bytes = bytes + excluded.bytes, \
    failed = failed + excluded.failed, unused_blocks = unused_blocks + excluded.unused_blocks, \
    unused_bytes = unused_bytes + excluded.unused_bytes, \
    sent_blocks = sent_blocks + excluded.sent_blocks, \
    sent_bytes = sent_bytes + excluded.sent_bytes, last_at = max(last_at, excluded.last_at), \
    timed = timed + excluded.timed, took_ms = took_ms + excluded.took_ms, \
    longest_ms = max(longest_ms, excluded.longest_ms)";

const MINUTE: &str = "INSERT INTO minutes (minute, pieces, bytes) VALUES (?1, ?2, ?3) \
    ON CONFLICT (minute) DO UPDATE SET pieces = pieces + excluded.pieces, \
    bytes = bytes + excluded.bytes";

const REQUEST: &str = "INSERT INTO request_rows (run, time, event, via, torrent, name, peer, \
    peer_id, client, returned, complete, handed, error, unlisted) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// The most ids of torrents, and of peers, that are cached.
const MOST_CACHED: usize = 16_384;

/// The most bytes of a client name or an error.
const LONGEST: usize = 256;

/// The most rows of a span.
const SPAN: i64 = 16_384;
