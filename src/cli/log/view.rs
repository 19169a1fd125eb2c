//! The answers of `torrent-log` as tables, for people and for spreadsheets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use piecework_api::{BadPiece, GiverInfo, Givers, LogEntry, PieceState, PieceStory, TakerInfo};
use piecework_core::{BLOCK_LEN, InfoHash, printable};

use super::super::Output;
use super::super::format::{count, counted, percent, short_time};
use super::sheet::{Cell, Grid, Sheet, fit, local, local_clock};
use super::source::LoggedTorrent;

/// A bad piece, and its torrent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BadPieceReport {
    info_hash: InfoHash,
    torrent: String,
    #[serde(flatten)]
    pub piece: BadPiece,
}

/// The journal's sums for a torrent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TorrentSum {
    info_hash: InfoHash,
    name: String,
    givers: usize,
    bytes: u64,
    takers: usize,
    sent_bytes: u64,
}

impl BadPieceReport {
    pub(super) fn new(torrent: &LoggedTorrent, piece: BadPiece) -> Self {
        Self { info_hash: torrent.info_hash, torrent: torrent.name.clone(), piece }
    }
}

impl TorrentSum {
    pub(super) fn new(torrent: &LoggedTorrent, givers: &Givers) -> Self {
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

/// Returns the torrents of a journal.
pub(super) fn torrents(rows: &[TorrentSum]) -> Sheet {
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
    Sheet { tables: vec![grid], nothing: "the journal has no torrents yet", ..Sheet::default() }
}

/// Returns who gave a torrent, and to whom it was sent.
pub(super) fn givers(all: &Givers) -> Sheet {
    let mut notes = Vec::new();
    if all.lost > 0 {
        notes.push(format!(
            "{} lost, because the journal could not be written: these sums do not include them",
            format_args!(
                "{} {}",
                counted(all.lost, "record"),
                if all.lost == 1 { "is" } else { "are" }
            ),
        ));
    }
    if all.waiting > 0 {
        notes.push(format!(
            "{} until the journal can be written, and will be counted then",
            format_args!(
                "{} {}",
                counted(all.waiting, "record"),
                if all.waiting == 1 { "waits" } else { "wait" }
            ),
        ));
    }
    Sheet { notes, ..sums(&all.givers, &all.takers) }
}

/// Returns who gave what among some responses.
pub(super) fn givers_alone(givers: &[GiverInfo]) -> Sheet {
    sums(givers, &[])
}

fn sums(givers: &[GiverInfo], takers: &[TakerInfo]) -> Sheet {
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

/// Sums over some responses.
#[derive(Default)]
pub(super) struct GiverSums(BTreeMap<(SocketAddr, String), GiverInfo>);

impl GiverSums {
    /// Adds a response.
    pub(super) fn add(&mut self, entry: &LogEntry) {
        let time = entry.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        let key = (entry.peer, entry.client.clone());
        let sum = self.0.entry(key).or_insert_with(|| GiverInfo {
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

    /// Returns the sums, the most generous first.
    pub(super) fn finish(self) -> Vec<GiverInfo> {
        let mut sums: Vec<GiverInfo> = self.0.into_values().collect();
        sums.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.peer.cmp(&b.peer)));
        sums
    }
}

/// Returns responses, one in each row.
pub(super) fn log(log: &[LogEntry], several: bool) -> Sheet {
    let rows = log.iter().map(|entry| log_row(entry, several)).collect();
    let elastic = if several { 8 } else { 3 };
    let columns = log_columns(several);
    let grid = Grid { columns, right: &[1, 4, 5, 6], elastic, spare: &[4, 5], rows };
    Sheet { tables: vec![grid], nothing: "there is no such response", ..Sheet::default() }
}

/// Returns a response as a row. The row names the torrent if there may be `several`.
pub(super) fn log_row(entry: &LogEntry, several: bool) -> Vec<Cell> {
    let mut row = vec![
        Cell::time(&entry.time),
        Cell::number(entry.piece.into()),
        Cell::text(entry.peer),
        Cell::text(&entry.client),
        Cell::number(entry.blocks.into()),
        Cell::as_shown(entry.bytes, count(entry.bytes)),
        Cell::as_shown(entry.took_ms, took(entry)),
        Cell::as_shown(&entry.verdict, verdict(entry)),
    ];
    if several {
        row.push(Cell::text(&entry.torrent));
    }
    row
}

/// The columns of [`log_row`].
pub(super) fn log_columns(several: bool) -> &'static [&'static str] {
    let columns: &[&str] =
        &["time", "piece", "peer", "client", "blocks", "bytes", "took_ms", "result", "torrent"];
    if several { columns } else { &columns[..8] }
}

/// Returns one response as a line, for `--follow`.
pub(super) fn line(entry: &LogEntry, several: bool, out: &Output) -> String {
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
    fit(&line, out.width())
}

/// Returns all that is known of a piece.
pub(super) fn story(story: &PieceStory) -> Sheet {
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
            // Programs get the time of arrival. People get the duration.
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

/// Returns every piece that arrived wrong.
pub(super) fn bad(all: &[BadPieceReport]) -> Sheet {
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
        let BadPieceReport { info_hash, torrent, piece } = bad;
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
    Sheet { notes, nothing: "no piece arrived wrong", ..Sheet::for_programs(grid) }
}

fn piece_name(bad: &BadPieceReport) -> String {
    format!("piece {}", count(bad.piece.piece.into()))
}

/// Returns the evidence for who sent a wrong block, in lines.
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
            format!("{what}: wrong, given by {peers}; it is not known yet whose block was wrong")
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

#[cfg(test)]
mod tests {
    use piecework_core::columns;

    use super::super::super::format::Paint;
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

    fn sums_of(log: &[LogEntry]) -> Vec<GiverInfo> {
        let mut sums = GiverSums::default();
        log.iter().for_each(|entry| sums.add(entry));
        sums.finish()
    }

    fn entries() -> Vec<LogEntry> {
        vec![entry(0, 1, "verified"), entry(1_000, 2, "failed"), entry(1_000, 2, "banned")]
    }

    #[test]
    fn tables_fit_their_terminal_and_obey_no_name() {
        let sums = sums_of(&entries());
        for width in [40, 60, 80, 120, 200] {
            for paint in [Paint::new(false), Paint::new(true)] {
                for sheet in [log(&entries(), true), log(&entries(), false), givers_alone(&sums)] {
                    let text = sheet.text(width, paint);
                    for line in text.lines() {
                        assert!(columns(line) < width, "{width}: {line}");
                    }
                    assert!(!text.contains('\u{202e}'));
                }
            }
        }
    }

    #[test]
    fn what_is_lost_or_waits_is_said_below_the_sums() {
        let all = Givers { lost: 316, waiting: 1, ..Givers::default() };
        let text = givers(&all).text(80, Paint::new(false));
        assert!(text.contains("316 records are lost, because the journal"), "{text}");
        assert!(text.contains("1 record waits until the journal"), "{text}");
        assert!(givers(&Givers::default()).notes.is_empty());
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
        let known = LoggedTorrent {
            info_hash: InfoHash([1; 20]),
            name: "x".to_owned(),
            size: 0,
            piece_length: 0,
        };
        let guilty = BadPiece {
            block: Some(2),
            peer: Some("10.0.0.1:5".parse().unwrap()),
            client: Some("Evil\x1b".to_owned()),
            block_sent: Some("cc".repeat(20)),
            block_right: Some("dd".repeat(20)),
            ..piece.clone()
        };
        let sheet = bad(&[BadPieceReport::new(&known, piece), BadPieceReport::new(&known, guilty)]);
        let text = sheet.text(usize::MAX, Paint::new(false));
        assert!(text.contains("piece 17: wrong, given by 2 peers"), "{text}");
        assert!(text.contains("block 2 (from byte 32,768) was sent wrong by 10.0.0.1:5"), "{text}");
        assert!(text.contains(&"cc".repeat(20)) && text.contains("Evil\\x1b"), "{text}");
        assert!(sheet.csv().lines().count() == 3);
    }
}
