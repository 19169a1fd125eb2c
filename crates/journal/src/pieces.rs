//! Who gave us which piece, for observers at run time: every response, from the journal or, without
//! one, from a bounded memory; the sums of this run; and optionally a file of JSON lines.
//!
//! Nothing here may slow down a transfer: recording takes a short lock and never waits for the
//! disk. Records that do not fit into the memory or the file are dropped and counted.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::error::JournalError;
use super::journal::Journal;
use super::read::Filter;
use super::rows::{ResponseRow, Verdict};
use piecework_core::{InfoHash, PieceIndex};

/// The record of every piece that peers gave. Can be shared; `add` may be called from any thread.
pub struct PieceLog {
    inner: Mutex<RecentPieces>,
    sink: Mutex<Option<LineFile>>,
    journal: Option<Arc<Journal>>,
    /// Keeps nothing here; everything is read from the journal.
    passes_on: bool,
}

/// One peer's part in one piece.
#[derive(Debug, Clone, Serialize)]
pub struct PieceRecord {
    /// When the piece was verified or found wrong.
    #[serde(serialize_with = "text")]
    pub time: Timestamp,
    #[serde(flatten, serialize_with = "shared")]
    pub torrent: Arc<TorrentName>,
    #[serde(serialize_with = "piece_number")]
    pub piece: PieceIndex,
    #[serde(flatten, serialize_with = "shared")]
    pub giver: Arc<Giver>,
    /// The number of blocks of this piece.
    pub blocks: u32,
    /// The number of bytes of this piece.
    pub bytes: u32,
    /// The time from the first request to the last block.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A torrent in records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TorrentName {
    pub info_hash: InfoHash,
    /// Unescaped.
    #[serde(rename = "torrent")]
    pub name: String,
}

/// A peer in records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Giver {
    /// The address of its end of the connection.
    #[serde(rename = "peer")]
    pub addr: SocketAddr,
    /// Client name and version, unescaped.
    pub client: String,
}

/// The arguments of [`PieceLog::add`]: one peer's part in one piece.
#[derive(Debug, Clone, Copy)]
pub struct PieceResponse<'a> {
    /// The current time.
    pub time: Timestamp,
    pub info_hash: InfoHash,
    /// The name of the torrent, unescaped.
    pub name: &'a str,
    pub piece: PieceIndex,
    /// The address of the peer.
    pub addr: SocketAddr,
    /// The client of the peer, unescaped.
    pub client: &'a str,
    /// The number of blocks.
    pub blocks: u32,
    /// The number of bytes.
    pub bytes: u64,
    /// The time from the first request to the last block.
    pub took: Duration,
    pub verdict: Verdict,
}

/// What one peer gave of verified pieces in total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GiverTotal {
    pub giver: Arc<Giver>,
    /// Pieces to which it contributed: a piece from two peers counts for both.
    pub pieces: u64,
    pub blocks: u64,
    pub bytes: u64,
}

/// The result of writing JSON lines.
#[derive(Debug, Default)]
pub struct LogSummary {
    /// Lines in the file.
    pub written: u64,
    /// Records that were not written, because the file was too slow or could not be written.
    pub dropped: u64,
    /// Why writing ended early, if it did.
    pub error: Option<io::Error>,
}

struct RecentPieces {
    records: VecDeque<PieceRecord>,
    capacity: usize,
    dropped: u64,
    torrents: BTreeMap<InfoHash, TorrentEntry>,
}

struct TorrentEntry {
    name: Arc<TorrentName>,
    givers: BTreeMap<Arc<Giver>, GiverTotal>,
    /// Contributions to verified pieces by peers that came when `givers` was full.
    others: u64,
}

struct LineFile {
    queue: SyncSender<PieceRecord>,
    dropped: u64,
    writer: JoinHandle<LogSummary>,
}

impl PieceLog {
    /// The default number of records: with 88 bytes each 22 MiB, allocated only as pieces come.
    /// With pieces of 1 MiB this is the history of 256 GiB.
    pub const DEFAULT_CAPACITY: usize = 262_144;

    /// Creates a log that remembers the last `capacity` responses. The sums are always exact.
    pub fn new(capacity: usize) -> Self {
        let inner = RecentPieces {
            records: VecDeque::new(),
            capacity: capacity.max(1),
            dropped: 0,
            torrents: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner), sink: Mutex::new(None), journal: None, passes_on: false }
    }

    /// Creates a log whose responses are in `journal`. Sums of this run are kept here if `sums` is
    /// set.
    pub fn with_journal(journal: Arc<Journal>, sums: bool) -> Self {
        Self { journal: Some(journal), passes_on: !sums, ..Self::new(1) }
    }

    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Also appends every record from now on to the file at `path`, one JSON object per line.
    ///
    /// # Errors
    /// If the file cannot be opened or created.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let file = File::options().append(true).create(true).open(path)?;
        let (queue, records) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("piece-log".to_owned())
            .spawn(move || write_lines(file, &records))?;
        *self.sink.lock() = Some(LineFile { queue, dropped: 0, writer });
        Ok(())
    }

    /// Records one peer's part in one piece. Never waits.
    pub fn add(&self, response: PieceResponse<'_>) {
        if self.passes_on {
            return;
        }
        let record = self.inner.lock().add(response);
        if let Some(sink) = &mut *self.sink.lock() {
            match sink.queue.try_send(record) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => sink.dropped += 1,
            }
        }
    }

    /// Writes what is queued for the journal and the file, and closes both. Returns `None` if there
    /// is no file. Blocks.
    pub fn close(&self) -> Option<LogSummary> {
        if let Some(journal) = &self.journal {
            journal.close();
        }
        let LineFile { queue, dropped, writer } = self.sink.lock().take()?;
        drop(queue);
        let mut summary = writer.join().unwrap_or_else(|_| LogSummary {
            error: Some(io::Error::other("the writer of the log ended early")),
            ..LogSummary::default()
        });
        summary.dropped += dropped;
        Some(summary)
    }

    /// Returns the last `limit` responses, oldest first; with a journal, those of earlier runs too.
    /// Blocks.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn records(&self, filter: Filter, limit: usize) -> Result<Vec<PieceRecord>, JournalError> {
        if let Some(journal) = &self.journal {
            let filter = Filter { run: journal.run(), ..filter };
            let entries = journal.read(|reader| reader.log(&filter, limit))?;
            let mut names = NameTable::default();
            return Ok(entries.into_iter().map(|entry| names.record(entry)).collect());
        }
        let inner = self.inner.lock();
        let of = |record: &&PieceRecord| {
            filter.torrent.is_none_or(|wanted| wanted == record.torrent.info_hash)
                && filter.peer.is_none_or(|wanted| wanted == record.giver.addr)
        };
        let mut records: Vec<PieceRecord> =
            inner.records.iter().rev().filter(of).take(limit).cloned().collect();
        records.reverse();
        Ok(records)
    }

    /// Returns the number of responses that were removed from the memory, or never written.
    pub fn dropped(&self) -> u64 {
        match &self.journal {
            Some(journal) => journal.dropped(),
            None => self.inner.lock().dropped,
        }
    }

    /// Returns who gave how much of a torrent, most generous first. Only verified pieces count.
    pub fn totals(&self, info_hash: InfoHash) -> Vec<GiverTotal> {
        let inner = self.inner.lock();
        let Some(torrent) = inner.torrents.get(&info_hash) else { return Vec::new() };
        let mut totals: Vec<GiverTotal> = torrent.givers.values().cloned().collect();
        totals.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.giver.cmp(&b.giver)));
        totals
    }

    /// Returns the contributions to verified pieces of a torrent that are not in
    /// [`PieceLog::totals`], because there were too many peers.
    pub fn unlisted(&self, info_hash: InfoHash) -> u64 {
        self.inner.lock().torrents.get(&info_hash).map_or(0, |torrent| torrent.others)
    }
}

impl RecentPieces {
    fn add(&mut self, response: PieceResponse<'_>) -> PieceRecord {
        let entry = self.torrents.entry(response.info_hash).or_insert_with(|| TorrentEntry {
            name: Arc::new(TorrentName {
                info_hash: response.info_hash,
                name: response.name.to_owned(),
            }),
            givers: BTreeMap::new(),
            others: 0,
        });
        let record = PieceRecord {
            time: response.time,
            torrent: Arc::clone(&entry.name),
            piece: response.piece,
            giver: entry.count(&response),
            blocks: response.blocks,
            bytes: u32::try_from(response.bytes).unwrap_or(u32::MAX),
            took: response.took,
            verdict: response.verdict,
        };
        if self.records.len() >= self.capacity {
            self.records.pop_front();
            self.dropped += 1;
        }
        self.records.push_back(record.clone());
        record
    }
}

impl TorrentEntry {
    /// Adds to the sums of the giver. Returns the shared form of the giver.
    fn count(&mut self, response: &PieceResponse<'_>) -> Arc<Giver> {
        let giver = Arc::new(Giver { addr: response.addr, client: response.client.to_owned() });
        let verified = response.verdict == Verdict::Verified;
        let full = self.givers.len() >= MAX_GIVERS;
        let total = match self.givers.get_mut(&giver) {
            Some(total) => total,
            None if full => {
                self.others += u64::from(verified);
                return giver;
            }
            None => self.givers.entry(Arc::clone(&giver)).or_insert(GiverTotal {
                giver,
                pieces: 0,
                blocks: 0,
                bytes: 0,
            }),
        };
        if verified {
            total.pieces += 1;
            total.blocks += u64::from(response.blocks);
            total.bytes += response.bytes;
        }
        Arc::clone(&total.giver)
    }
}

/// Shares equal names between records.
#[derive(Default)]
struct NameTable {
    torrents: BTreeMap<InfoHash, Arc<TorrentName>>,
    givers: BTreeMap<(SocketAddr, String), Arc<Giver>>,
}

impl NameTable {
    fn record(&mut self, entry: ResponseRow) -> PieceRecord {
        let ResponseRow { info_hash, peer, client, .. } = &entry;
        let (info_hash, peer) = (*info_hash, *peer);
        let torrent = self
            .torrents
            .entry(info_hash)
            .or_insert_with(|| Arc::new(TorrentName { info_hash, name: entry.torrent.clone() }));
        let giver = self.givers.entry((peer, client.clone()));
        let giver = giver.or_insert_with(|| Arc::new(Giver { addr: peer, client: client.clone() }));
        PieceRecord {
            time: Timestamp::from_millisecond(entry.time).unwrap_or(Timestamp::UNIX_EPOCH),
            torrent: Arc::clone(torrent),
            piece: entry.piece,
            giver: Arc::clone(giver),
            blocks: entry.blocks,
            bytes: u32::try_from(entry.bytes).unwrap_or(u32::MAX),
            took: Duration::from_millis(entry.took_ms),
            verdict: entry.verdict,
        }
    }
}

fn write_lines(file: File, records: &Receiver<PieceRecord>) -> LogSummary {
    let mut out = BufWriter::new(file);
    let mut summary = LogSummary::default();
    loop {
        let record = match records.try_recv() {
            Ok(record) => Some(record),
            // Nothing is queued: a good time to let readers of the file see the latest records.
            Err(TryRecvError::Empty) => {
                keep_first(&mut summary.error, out.flush());
                records.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        };
        let Some(record) = record else { break };
        if summary.error.is_some() {
            summary.dropped += 1;
            continue;
        }
        let written = serde_json::to_writer(&mut out, &record)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"));
        match written {
            Ok(()) => summary.written += 1,
            Err(_) => summary.dropped += 1,
        }
        keep_first(&mut summary.error, written);
    }
    keep_first(&mut summary.error, out.flush());
    summary
}

fn keep_first(kept: &mut Option<io::Error>, result: io::Result<()>) {
    if let (None, Err(error)) = (&kept, result) {
        *kept = Some(error);
    }
}

fn shared<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    T::serialize(value, serializer)
}

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn piece_number<S: Serializer>(piece: &PieceIndex, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(piece.0)
}

fn milliseconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 1e6).round() / 1e3)
}

/// Records that may wait for the file: 88 bytes each, so 1.4 MiB. At 10,000 pieces per second the
/// disk may pause for 1.6 s.
const QUEUE: usize = 16_384;

/// The most peers per torrent for which sums are kept: about 200 bytes each, so at most 13 MiB.
const MAX_GIVERS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash([7; 20]);

    fn response(piece: u32, port: u16, verdict: Verdict) -> PieceResponse<'static> {
        PieceResponse {
            time: Timestamp::UNIX_EPOCH,
            info_hash: HASH,
            name: "a\x1bb",
            piece: PieceIndex(piece),
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            client: "Test 1.0",
            blocks: 2,
            bytes: 20_000,
            took: Duration::from_micros(1_500),
            verdict,
        }
    }

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<PieceRecord>() <= 88, "{}", size_of::<PieceRecord>());
    }

    #[test]
    fn sums_are_by_giver_and_only_of_verified_pieces() {
        let log = PieceLog::new(10);
        log.add(response(0, 1, Verdict::Verified));
        log.add(response(1, 2, Verdict::Verified));
        log.add(response(2, 2, Verdict::Verified));
        log.add(response(3, 3, Verdict::Failed));
        log.add(response(3, 3, Verdict::Banned { block: Some(16_384) }));
        let totals = log.totals(HASH);
        let seen: Vec<_> =
            totals.iter().map(|t| (t.giver.addr.port(), t.pieces, t.blocks, t.bytes)).collect();
        assert_eq!(seen, [(2, 2, 4, 40_000), (1, 1, 2, 20_000), (3, 0, 0, 0)]);
        assert!(log.totals(InfoHash([8; 20])).is_empty());
    }

    #[test]
    fn a_piece_of_two_givers_counts_for_both() {
        let log = PieceLog::new(10);
        log.add(response(0, 1, Verdict::Verified));
        log.add(response(0, 2, Verdict::Verified));
        assert_eq!(log.totals(HASH).iter().map(|t| t.pieces).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn the_oldest_records_are_dropped_and_counted_and_the_sums_stay() {
        let log = PieceLog::new(3);
        for piece in 0..10 {
            log.add(response(piece, 1, Verdict::Verified));
        }
        let kept: Vec<u32> = log
            .records(Filter::default(), 100)
            .unwrap()
            .iter()
            .map(|record| record.piece.0)
            .collect();
        assert_eq!((kept, log.dropped()), (vec![7, 8, 9], 7));
        assert_eq!(log.totals(HASH)[0].pieces, 10);
        let of = |byte| Filter { torrent: Some(InfoHash([byte; 20])), ..Filter::default() };
        assert_eq!(log.records(of(7), 100).unwrap().len(), 3);
        assert!(log.records(of(8), 100).unwrap().is_empty());
    }

    #[test]
    fn json_lines_hold_every_field_and_are_flushed_on_close() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pieces.jsonl");
        let log = PieceLog::new(1);
        log.write_to(&path).unwrap();
        log.add(response(0, 1, Verdict::Verified));
        log.add(response(1, 1, Verdict::Banned { block: Some(16_384) }));
        let summary = log.close().unwrap();
        assert_eq!((summary.written, summary.dropped), (2, 0));
        assert!(summary.error.is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            serde_json::json!({
                "time": "1970-01-01T00:00:00Z", "info_hash": HASH.to_string(), "torrent": "a\x1bb",
                "piece": 0, "peer": "127.0.0.1:1", "client": "Test 1.0", "blocks": 2,
                "bytes": 20_000, "took_ms": 1.5, "verdict": "verified",
            })
        );
        assert_eq!(lines[1]["verdict"], "banned");
        assert_eq!(lines[1]["block"], 16_384);
        assert!(!text.contains('\x1b'));
        assert!(log.close().is_none());
    }

    #[test]
    fn a_log_file_that_cannot_be_written_is_told_and_costs_nothing_else() {
        let log = PieceLog::new(4);
        assert!(log.write_to(Path::new("/nowhere/at/all.jsonl")).is_err());
        log.write_to(Path::new("/dev/full")).unwrap();
        log.add(response(0, 1, Verdict::Verified));
        let summary = log.close().unwrap();
        assert!(summary.error.is_some());
        assert_eq!(log.totals(HASH)[0].pieces, 1);
    }
}
