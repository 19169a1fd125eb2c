//! Answers for people and for spreadsheets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use console::{measure_text_width, truncate_str};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{BadPiece, GiverInfo, Givers, LogEntry, PieceState, PieceStory, TakerInfo};
use crate::base::{BLOCK_LEN, InfoHash, printable};
use crate::journal::{RequestRecord, rfc3339};

use super::super::Output;
use super::super::format::{Paint, count, counted, percent, short_time, size, table};
use super::source::Known;

pub use super::super::status::width_of;

/// An answer: tables, and lines below them.
#[derive(Debug, Default)]
pub struct Sheet {
    tables: Vec<Grid>,
    /// What stands above.
    head: Option<String>,
    /// Lines below.
    notes: Vec<String>,
    /// What is said if there is nothing.
    nothing: &'static str,
    /// The table is for programs; people read the notes.
    only_notes: bool,
}

/// One table: for each column its name, and for each row its values for programs and for people.
#[derive(Debug)]
struct Grid {
    columns: &'static [&'static str],
    /// Columns with numbers.
    right: &'static [usize],
    /// The column that is cut on a narrow terminal.
    elastic: usize,
    /// Columns that people can do without there, the first one first.
    spare: &'static [usize],
    rows: Vec<Vec<Cell>>,
}

/// A value as programs read it, and as people do.
#[derive(Debug, Clone)]
struct Cell {
    raw: String,
    shown: String,
}

/// Who holds a piece, as a tracker knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Holder {
    peer: SocketAddr,
    client: Option<String>,
    source: Option<String>,
    sure: bool,
}

/// Pieces that the same few peers hold.
#[derive(Debug, Clone, Deserialize)]
pub struct RiskGroup {
    holders: Vec<SocketAddr>,
    pieces: String,
    count: u64,
}

/// A request that a tracker answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// When, RFC 3339.
    pub time: String,
    /// Who asked.
    pub peer: SocketAddr,
    client: Option<String>,
    event: String,
    /// For which torrent.
    pub info_hash: Option<InfoHash>,
    name: Option<String>,
    /// It was answered.
    pub ok: bool,
    error: Option<String>,
    peers: Vec<Value>,
}

/// Some pieces, as ranges.
#[derive(Debug, Clone)]
pub struct Held {
    /// How many.
    pub count: u64,
    /// Such as `0-41,57`.
    pub pieces: String,
}

/// A bad piece, and of which torrent.
#[derive(Debug, Clone, Serialize)]
pub struct Bad {
    info_hash: InfoHash,
    torrent: String,
    /// What is known of it.
    #[serde(flatten)]
    pub piece: BadPiece,
}

/// What the journal has of a torrent.
#[derive(Debug, Clone, Serialize)]
pub struct TorrentSum {
    info_hash: InfoHash,
    name: String,
    givers: usize,
    bytes: u64,
    takers: usize,
    sent_bytes: u64,
}

impl Sheet {
    /// For people, within `width` columns.
    pub fn text(&self, width: usize, paint: Paint) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.head.as_ref().map(|head| paint.bold(fit(head, width))));
        let shown = if self.only_notes { &[][..] } else { &self.tables[..] };
        let tables = shown.iter().filter(|grid| !grid.rows.is_empty());
        parts.extend(tables.map(|grid| grid.text(width, paint)));
        if !self.notes.is_empty() {
            let notes = self.notes.iter().map(|note| fit(note, width));
            parts.push(notes.collect::<Vec<_>>().join("\n"));
        }
        let is_empty = self.notes.is_empty() && self.tables.iter().all(|grid| grid.rows.is_empty());
        if is_empty && !self.nothing.is_empty() {
            parts.push(fit(self.nothing, width));
        }
        parts.join("\n\n")
    }

    /// For programs: the first table as comma-separated values (RFC 4180, but lines end as here).
    pub fn csv(&self) -> String {
        let Some(grid) = self.tables.first() else { return String::new() };
        let mut out = grid.columns.join(",");
        out.push('\n');
        for row in &grid.rows {
            let cells: Vec<Cow<'_, str>> = row.iter().map(|cell| quoted(&cell.raw)).collect();
            out.push_str(&cells.join(","));
            out.push('\n');
        }
        out
    }
}

impl Grid {
    fn text(&self, width: usize, paint: Paint) -> String {
        let natural = |at: usize| {
            let cells = self.rows.iter().map(|row| measure_text_width(&row[at].shown));
            cells.max().unwrap_or(0).max(self.columns[at].len())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let over = |shown: &[usize]| {
            let all: usize = shown.iter().map(|at| widths[*at] + GAP).sum();
            (all - GAP.min(all)).saturating_sub(width.saturating_sub(1))
        };
        // What the elastic column can give without becoming a riddle.
        let give = widths[self.elastic].saturating_sub(READABLE);
        for spare in self.spare {
            if over(&shown) > give {
                shown.retain(|at| at != spare);
            }
        }
        let elastic = widths[self.elastic].saturating_sub(over(&shown)).max(LEAST);
        let rows = self.rows.iter().map(|row| {
            let cells = shown.iter().map(|at| match *at == self.elastic {
                true => truncate_str(&row[*at].shown, elastic, "…").into_owned(),
                false => row[*at].shown.clone(),
            });
            cells.collect::<Vec<_>>()
        });
        let names = shown.iter().map(|at| self.columns[*at].trim_end_matches("_ms"));
        let head: Vec<String> = names.map(|name| name.replace('_', " ")).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let is_right = |at: &usize| self.right.contains(&shown[*at]);
        let right: Vec<usize> = (0..shown.len()).filter(is_right).collect();
        let text = table(&head, &right, rows, paint);
        text.lines().map(|line| fit(line, width)).collect::<Vec<_>>().join("\n")
    }
}

impl Cell {
    fn text(text: impl ToString) -> Self {
        let raw = text.to_string();
        Self { shown: printable(&raw).into_owned(), raw }
    }

    fn number(number: u64) -> Self {
        Self { raw: number.to_string(), shown: count(number) }
    }

    fn bytes(bytes: u64) -> Self {
        Self { raw: bytes.to_string(), shown: size(bytes) }
    }

    fn time(time: &str) -> Self {
        Self { raw: time.to_owned(), shown: local(time) }
    }

    fn maybe(text: Option<&str>) -> Self {
        match text {
            Some(text) => Self::text(text),
            None => Self { raw: String::new(), shown: "·".to_owned() },
        }
    }

    fn as_shown(raw: impl ToString, shown: String) -> Self {
        Self { raw: raw.to_string(), shown }
    }
}

impl Bad {
    pub fn new(torrent: &Known, piece: BadPiece) -> Self {
        Self { info_hash: torrent.info_hash, torrent: torrent.name.clone(), piece }
    }
}

impl TorrentSum {
    pub fn new(torrent: &Known, givers: &Givers) -> Self {
        Self {
            info_hash: torrent.info_hash,
            name: torrent.name.clone(),
            givers: givers.givers.iter().filter(|giver| giver.pieces > 0).count(),
            bytes: givers.givers.iter().map(|giver| giver.bytes).sum(),
            takers: givers.takers.len(),
            sent_bytes: givers.takers.iter().map(|taker| taker.bytes).sum(),
        }
    }
}

/// The torrents of a journal.
pub fn torrents(rows: &[TorrentSum]) -> Sheet {
    let rows = rows.iter().map(|row| {
        vec![
            Cell::as_shown(row.info_hash, row.info_hash.to_string()[..8].to_owned()),
            Cell::number(row.givers as u64),
            Cell::bytes(row.bytes),
            Cell::number(row.takers as u64),
            Cell::bytes(row.sent_bytes),
            Cell::text(&row.name),
        ]
    });
    let grid = Grid {
        columns: &["info_hash", "givers", "bytes", "takers", "sent_bytes", "torrent"],
        right: &[1, 2, 3, 4],
        elastic: 5,
        spare: &[3, 1],
        rows: rows.collect(),
    };
    Sheet { tables: vec![grid], nothing: "the journal knows of no torrent yet", ..Sheet::default() }
}

/// Who gave a torrent, and who was sent it.
pub fn givers(givers: &[GiverInfo], takers: &[TakerInfo]) -> Sheet {
    let all: u64 = givers.iter().map(|giver| giver.bytes).sum();
    let gave = givers.iter().map(|giver| {
        let note = match (giver.banned, giver.failed) {
            (true, _) => "banned",
            (false, 0) => "",
            (false, _) => "part of failed pieces",
        };
        vec![
            Cell::text(giver.peer),
            Cell::text(&giver.client),
            Cell::number(giver.pieces),
            Cell::number(giver.blocks),
            Cell::bytes(giver.bytes),
            Cell::as_shown(percent(giver.bytes, all), format!("{}%", percent(giver.bytes, all))),
            Cell::number(giver.failed),
            Cell::number(giver.unused_blocks),
            Cell::text(note),
        ]
    });
    let gave = Grid {
        columns: &[
            "peer", "client", "pieces", "blocks", "bytes", "percent", "failed", "unused", "note",
        ],
        right: &[2, 3, 4, 5, 6, 7],
        elastic: 1,
        spare: &[3, 5, 7],
        rows: gave.collect(),
    };
    let sent = takers.iter().map(|taker| {
        vec![
            Cell::text(taker.peer),
            Cell::text(&taker.client),
            Cell::number(taker.blocks),
            Cell::bytes(taker.bytes),
        ]
    });
    let sent = Grid {
        columns: &["sent_to", "client", "blocks", "bytes"],
        right: &[2, 3],
        elastic: 1,
        spare: &[2],
        rows: sent.collect(),
    };
    Sheet {
        tables: vec![gave, sent],
        nothing: "nobody has given any piece yet",
        ..Sheet::default()
    }
}

/// The same of some responses alone.
pub fn sums_of(log: &[LogEntry]) -> Vec<GiverInfo> {
    let mut sums: BTreeMap<_, GiverInfo> = BTreeMap::new();
    for entry in log {
        let time = entry.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        let key = (entry.peer, entry.client.clone());
        let sum = sums.entry(key).or_insert_with(|| GiverInfo {
            id: 0,
            peer: entry.peer,
            client: entry.client.clone(),
            pieces: 0,
            blocks: 0,
            bytes: 0,
            failed: 0,
            banned: false,
            unused_blocks: 0,
            unused_bytes: 0,
            first_at: time,
            last_at: time,
        });
        sum.last_at = time;
        match entry.verdict.as_str() {
            "verified" => {
                sum.pieces += 1;
                sum.blocks += u64::from(entry.blocks);
                sum.bytes += entry.bytes;
            }
            "failed" => {
                sum.failed += 1;
                sum.unused_blocks += u64::from(entry.blocks);
                sum.unused_bytes += entry.bytes;
            }
            _ => sum.banned = true,
        }
    }
    let mut sums: Vec<GiverInfo> = sums.into_values().collect();
    sums.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.peer.cmp(&b.peer)));
    sums
}

/// Responses, one a line.
pub fn log(log: &[LogEntry], several: bool) -> Sheet {
    let rows = log.iter().map(|entry| {
        let verdict = verdict(entry);
        vec![
            Cell::time(&entry.time),
            Cell::number(entry.piece.into()),
            Cell::text(entry.peer),
            Cell::text(&entry.client),
            Cell::number(entry.blocks.into()),
            Cell::as_shown(entry.bytes, count(entry.bytes)),
            Cell::as_shown(entry.took_ms, took(entry)),
            Cell::as_shown(&entry.verdict, verdict),
            Cell::text(&entry.torrent),
        ]
    });
    let columns: &[&str] =
        &["time", "piece", "peer", "client", "blocks", "bytes", "took_ms", "result", "torrent"];
    let rows: Vec<Vec<Cell>> = match several {
        true => rows.collect(),
        false => rows.map(|mut row| row.drain(..8).collect()).collect(),
    };
    let columns = if several { columns } else { &columns[..8] };
    let elastic = if several { 8 } else { 3 };
    let grid = Grid { columns, right: &[1, 4, 5, 6], elastic, spare: &[4, 5], rows };
    Sheet { tables: vec![grid], nothing: "there is no such response", ..Sheet::default() }
}

/// One response, for those who follow.
pub fn line(entry: &LogEntry, several: bool, out: &Output) -> String {
    let paint = out.paint();
    let result = match entry.verdict.as_str() {
        "verified" => "verified".to_owned(),
        _ => paint.red(verdict(entry)),
    };
    let mut line = format!(
        "{}  {:>7}  {:<21}  {:>4}  {:>10}  {:>8}  {result}  {}",
        local(&entry.time),
        entry.piece,
        entry.peer.to_string(),
        entry.blocks,
        count(entry.bytes),
        took(entry),
        printable(&entry.client),
    );
    if several {
        line.push_str(&format!("  {}", printable(&entry.torrent)));
    }
    fit(&line, width_of(out))
}

/// All that is known of a piece.
pub fn story(story: &PieceStory) -> Sheet {
    let rows = story.story.iter().map(|entry| {
        let blocks = match (&entry.blocks, entry.block_count) {
            (Some(blocks), _) => Cell::text(blocks),
            (None, number) => Cell::as_shown("", counted(number.into(), "block")),
        };
        let wait = match (&entry.requested_at, &entry.received_at) {
            (Some(from), Some(to)) => between(from, to),
            _ => "·".to_owned(),
        };
        vec![
            Cell::time(&entry.time),
            Cell::text(&entry.kind),
            Cell::text(entry.peer),
            Cell::text(&entry.client),
            blocks,
            Cell::as_shown(entry.bytes, count(entry.bytes)),
            Cell::as_shown(entry.requested_at.as_deref().unwrap_or(""), wait),
            Cell::maybe(entry.received_at.as_deref()),
        ]
    });
    let rows: Vec<Vec<Cell>> = rows
        .map(|mut row| {
            // When it came is for programs; people read how long it took.
            let shown = row[6].shown.clone();
            row[7].shown = shown;
            row[6].shown = local_clock(&row[6].raw);
            row
        })
        .collect();
    let grid = Grid {
        columns: &["time", "what", "peer", "client", "blocks", "bytes", "asked", "took"],
        right: &[5, 7],
        elastic: 3,
        spare: &[6, 5],
        rows,
    };
    let mut notes = Vec::new();
    for bad in story.story.iter().filter_map(|entry| entry.evidence.as_ref()) {
        notes.extend(evidence(bad, "the piece"));
    }
    let state = match story.state {
        PieceState::Missing => "missing",
        PieceState::Downloading => "downloading",
        PieceState::Verifying => "being verified",
        PieceState::Held => "held",
    };
    Sheet {
        head: Some(format!("piece {}: {state}", count(story.piece.into()))),
        tables: vec![grid],
        notes,
        nothing: "nobody is known to have given it",
        only_notes: false,
    }
}

/// Every piece that came wrong.
pub fn bad(all: &[Bad]) -> Sheet {
    let several = all.iter().any(|bad| bad.info_hash != all[0].info_hash);
    let mut notes = Vec::new();
    for bad in all {
        if !notes.is_empty() {
            notes.push(String::new());
        }
        let what = match several {
            true => format!("{} of {}", piece_name(bad), printable(&bad.torrent)),
            false => piece_name(bad),
        };
        notes.extend(evidence(&bad.piece, &what));
    }
    let rows = all.iter().map(|bad| {
        let Bad { info_hash, torrent, piece } = bad;
        vec![
            Cell::text(&piece.time),
            Cell::text(torrent),
            Cell::text(info_hash),
            Cell::text(piece.piece),
            Cell::maybe(piece.block.map(|block| block.to_string()).as_deref()),
            Cell::maybe(piece.peer.map(|peer| peer.to_string()).as_deref()),
            Cell::maybe(piece.client.as_deref()),
            Cell::text(piece.givers),
            Cell::text(&piece.expected),
            Cell::text(&piece.got),
            Cell::maybe(piece.block_sent.as_deref()),
            Cell::maybe(piece.block_right.as_deref()),
        ]
    });
    let grid = Grid {
        columns: &[
            "time",
            "torrent",
            "info_hash",
            "piece",
            "block",
            "peer",
            "client",
            "givers",
            "expected",
            "got",
            "block_sent",
            "block_right",
        ],
        right: &[],
        elastic: 1,
        spare: &[],
        rows: rows.collect(),
    };
    Sheet { notes, nothing: "no piece came wrong", ..Sheet::for_programs(grid) }
}

/// Who holds a piece.
pub fn holders(piece: u32, number: u64, holders: &[Holder]) -> Sheet {
    let rows = holders.iter().map(|holder| {
        let sure = if holder.sure { "yes" } else { "may hold more" };
        vec![
            Cell::text(holder.peer),
            Cell::maybe(holder.client.as_deref()),
            Cell::maybe(holder.source.as_deref()),
            Cell::as_shown(holder.sure, sure.to_owned()),
        ]
    });
    let grid = Grid {
        columns: &["peer", "client", "known", "sure"],
        right: &[],
        elastic: 1,
        spare: &[],
        rows: rows.collect(),
    };
    let holds = counted(number, "peer");
    let head = format!("piece {}: held by {holds}", count(piece.into()));
    Sheet { head: Some(head), tables: vec![grid], ..Sheet::default() }
}

/// Pieces that few hold.
pub fn at_risk(k: u32, number: u64, groups: &[RiskGroup]) -> Sheet {
    let rows = groups.iter().map(|group| {
        let holders: Vec<String> = group.holders.iter().map(ToString::to_string).collect();
        let shown = if holders.is_empty() { "nobody".to_owned() } else { holders.join(" ") };
        vec![
            Cell::number(group.count),
            Cell::as_shown(holders.join(" "), shown),
            Cell::text(&group.pieces),
        ]
    });
    let grid = Grid {
        columns: &["count", "held_by", "pieces"],
        right: &[0],
        elastic: 2,
        spare: &[],
        rows: rows.collect(),
    };
    let few = counted(k.into(), "peer");
    let head = format!("{} held by {few} or fewer", pieces(number));
    Sheet { head: Some(head), tables: vec![grid], ..Sheet::default() }
}

/// Some pieces below a sentence.
pub fn ranges(head: String, held: Held) -> Sheet {
    let rows = match held.count {
        0 => Vec::new(),
        count => vec![vec![Cell::number(count), Cell::text(held.pieces)]],
    };
    let grid = Grid { columns: &["count", "pieces"], right: &[0], elastic: 1, spare: &[], rows };
    Sheet { head: Some(head), tables: vec![grid], ..Sheet::default() }
}

/// `1 piece`, `2 pieces`.
pub fn pieces(number: u64) -> String {
    counted(number, "piece")
}

impl From<RequestRecord> for Request {
    fn from(record: RequestRecord) -> Self {
        let time = record.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            time: rfc3339(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
            peer: record.peer,
            client: record.peer_id.map(|id| id.client_name()),
            event: record.event.word().to_owned(),
            info_hash: record.info_hash,
            name: record.name.map(|name| name.to_string()),
            ok: record.outcome.is_ok(),
            error: record.outcome.err().map(|error| error.to_string()),
            peers: record.handed.iter().map(|peer| Value::from(peer.addr.to_string())).collect(),
        }
    }
}

/// What a tracker was asked.
pub fn requests(rows: &[Request]) -> Sheet {
    let rows = rows.iter().map(|row| {
        let outcome = match &row.error {
            Some(error) => Cell::text(error),
            None => Cell::text("ok"),
        };
        let hash = row.info_hash.map(|hash| hash.to_string());
        vec![
            Cell::time(&row.time),
            Cell::text(&row.event),
            Cell::text(row.peer),
            Cell::maybe(row.client.as_deref()),
            Cell::number(row.peers.len() as u64),
            outcome,
            Cell::maybe(row.name.as_deref().or(hash.as_deref())),
        ]
    });
    let grid = Grid {
        columns: &["time", "event", "peer", "client", "given", "outcome", "torrent"],
        right: &[4],
        elastic: 6,
        spare: &[4, 3],
        rows: rows.collect(),
    };
    Sheet { tables: vec![grid], nothing: "there is no such request", ..Sheet::default() }
}

/// One request, for those who follow.
pub fn request_line(row: &Request, out: &Output) -> String {
    let outcome = match &row.error {
        Some(error) => out.paint().red(printable(error)),
        None => "ok".to_owned(),
    };
    let hash = row.info_hash.map(|hash| hash.to_string()).unwrap_or_default();
    let line = format!(
        "{}  {:<9}  {:<21}  {:<18}  {outcome}  {}",
        local(&row.time),
        printable(&row.event),
        row.peer.to_string(),
        printable(row.client.as_deref().unwrap_or("·")),
        printable(row.name.as_deref().unwrap_or(&hash)),
    );
    fit(&line, width_of(out))
}

impl Sheet {
    /// A table that is for programs alone: people read the notes.
    fn for_programs(grid: Grid) -> Self {
        Self { tables: vec![grid], only_notes: true, ..Self::default() }
    }
}

fn piece_name(bad: &Bad) -> String {
    format!("piece {}", count(bad.piece.piece.into()))
}

/// What shows who sent a wrong block, in lines.
fn evidence(bad: &BadPiece, what: &str) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(match (&bad.peer, bad.block) {
        (Some(peer), Some(block)) => {
            let begin = u64::from(block) * u64::from(BLOCK_LEN);
            format!("{what}: block {block} (from byte {}) was sent wrong by {peer}", count(begin))
        }
        (Some(peer), None) => format!("{what}: all of it was given by {peer}, and it was wrong"),
        (None, _) => {
            let peers = counted(bad.givers.into(), "peer");
            format!("{what}: wrong, given by {peers}; whose block it was is not known yet")
        }
    });
    let client = bad.client.as_deref().map(|client| format!("  {}", printable(client)));
    lines.push(format!("  time    {}{}", local(&bad.time), client.unwrap_or_default()));
    lines.push(format!("  piece   expected {}", bad.expected));
    lines.push(format!("          got      {}", bad.got));
    if let (Some(sent), Some(right)) = (&bad.block_sent, &bad.block_right) {
        lines.push(format!("  block   right    {right}"));
        lines.push(format!("          sent     {sent}"));
    }
    lines
}

fn verdict(entry: &LogEntry) -> String {
    match (entry.verdict.as_str(), entry.block) {
        ("banned", Some(block)) => format!("banned for block {block}"),
        (verdict, _) => printable(verdict).into_owned(),
    }
}

fn took(entry: &LogEntry) -> String {
    short_time(Duration::from_millis(entry.took_ms))
}

/// A moment in RFC 3339 as the clock here shows it.
pub fn local(time: &str) -> String {
    zoned(time, "%Y-%m-%d %H:%M:%S%.3f").unwrap_or_else(|| printable(time).into_owned())
}

/// The time of day alone.
fn local_clock(time: &str) -> String {
    zoned(time, "%H:%M:%S%.3f").unwrap_or_else(|| "·".to_owned())
}

fn zoned(time: &str, format: &str) -> Option<String> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}

fn between(from: &str, to: &str) -> String {
    let parsed = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match (parsed(from), parsed(to)) {
        (Some(from), Some(to)) => {
            let span = to.as_millisecond().saturating_sub(from.as_millisecond());
            short_time(Duration::from_millis(u64::try_from(span).unwrap_or(0)))
        }
        _ => "·".to_owned(),
    }
}

fn quoted(text: &str) -> Cow<'_, str> {
    // A spreadsheet takes what begins so for a formula, and names come from strangers.
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !is_formula && !text.contains([',', '"', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let guard = if is_formula { "'" } else { "" };
    Cow::Owned(format!("\"{guard}{}\"", text.replace('"', "\"\"")))
}

/// A line within `width` columns.
fn fit(line: &str, width: usize) -> String {
    match width {
        usize::MAX => line.to_owned(),
        width => truncate_str(line, width.saturating_sub(1), "…").into_owned(),
    }
}

/// Columns between two columns of a table.
const GAP: usize = 2;

/// Columns of the column that is cut.
const LEAST: usize = 6;

/// Columns of it below which others make way first.
const READABLE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(piece: u32, port: u16, verdict: &str) -> LogEntry {
        LogEntry {
            id: i64::from(piece) + 1,
            time: "2026-11-27T20:00:00.125Z".to_owned(),
            piece,
            peer: ([127, 0, 0, 1], port).into(),
            client: format!("=evil\x1b,{}", "文".repeat(40)),
            blocks: 4,
            bytes: 65_536,
            took_ms: 12,
            verdict: verdict.to_owned(),
            block: (verdict == "banned").then_some(3),
            info_hash: InfoHash([1; 20]),
            torrent: "big\u{202e}.iso".repeat(9),
        }
    }

    fn entries() -> Vec<LogEntry> {
        vec![entry(0, 1, "verified"), entry(1_000, 2, "failed"), entry(1_000, 2, "banned")]
    }

    #[test]
    fn tables_fit_their_terminal_and_obey_no_name() {
        let sums = sums_of(&entries());
        for width in [40, 60, 80, 120, 200] {
            for paint in [Paint::new(false), Paint::new(true)] {
                for sheet in [log(&entries(), true), log(&entries(), false), givers(&sums, &[])] {
                    let text = sheet.text(width, paint);
                    for line in text.lines() {
                        assert!(measure_text_width(line) < width, "{width}: {line}");
                    }
                    assert!(!text.contains('\u{202e}'));
                }
            }
        }
    }

    #[test]
    fn sums_count_only_what_was_verified() {
        let sums = sums_of(&entries());
        let told: Vec<_> =
            sums.iter().map(|sum| (sum.peer.port(), sum.pieces, sum.failed, sum.banned)).collect();
        assert_eq!(told, [(1, 1, 0, false), (2, 0, 1, true)]);
    }

    #[test]
    fn spreadsheets_get_no_formula_and_one_line_a_row() {
        let csv = log(&entries(), false).csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "time,piece,peer,client,blocks,bytes,took_ms,result");
        assert_eq!(lines.len(), 4);
        assert!(lines[1].contains("\"'=evil\x1b,"), "{}", lines[1]);
    }

    #[test]
    fn what_is_not_known_is_said_so_and_nobody_is_named() {
        let piece = BadPiece {
            time: "2026-11-27T20:00:00Z".to_owned(),
            piece: 17,
            block: None,
            peer: None,
            client: None,
            givers: 2,
            expected: "aa".repeat(20),
            got: "bb".repeat(20),
            block_sent: None,
            block_right: None,
        };
        let known = Known { info_hash: InfoHash([1; 20]), name: "x".to_owned() };
        let guilty = BadPiece {
            block: Some(2),
            peer: Some("10.0.0.1:5".parse().unwrap()),
            client: Some("Evil\x1b".to_owned()),
            block_sent: Some("cc".repeat(20)),
            block_right: Some("dd".repeat(20)),
            ..piece.clone()
        };
        let sheet = bad(&[Bad::new(&known, piece), Bad::new(&known, guilty)]);
        let text = sheet.text(usize::MAX, Paint::new(false));
        assert!(text.contains("piece 17: wrong, given by 2 peers"), "{text}");
        assert!(text.contains("block 2 (from byte 32,768) was sent wrong by 10.0.0.1:5"), "{text}");
        assert!(text.contains(&"cc".repeat(20)) && text.contains("Evil\\x1b"), "{text}");
        assert!(sheet.csv().lines().count() == 3);
    }
}
