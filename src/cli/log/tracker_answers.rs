//! A tracker's answers as tables.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use piecework_core::{InfoHash, printable};
use piecework_journal::{RequestRecord, rfc3339};

use super::super::Output;
use super::super::format::{count, counted};
use super::sheet::{Cell, Grid, Sheet, fit, local};

/// A holder of a piece, as a tracker knows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Holder {
    peer: SocketAddr,
    client: Option<String>,
    source: Option<String>,
    sure: bool,
}

/// Pieces that the same few peers hold.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RiskGroup {
    holders: Vec<SocketAddr>,
    pieces: String,
    count: u64,
}

/// A request that a tracker answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    /// Time in RFC 3339.
    pub time: String,
    pub peer: SocketAddr,
    client: Option<String>,
    event: String,
    pub info_hash: Option<InfoHash>,
    name: Option<String>,
    /// Whether it was answered.
    pub ok: bool,
    error: Option<String>,
    peers: Vec<Value>,
}

/// Some pieces, as ranges.
#[derive(Debug, Clone)]
pub(super) struct PieceRanges {
    pub count: u64,
    /// Such as `0-41,57`.
    pub pieces: String,
}

/// Returns who holds a piece.
pub(super) fn holders(piece: u32, number: u64, holders: &[Holder]) -> Sheet {
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

/// Returns the pieces that few peers hold.
pub(super) fn at_risk(k: u32, number: u64, groups: &[RiskGroup], more: u64) -> Sheet {
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
    let notes = match more {
        0 => Vec::new(),
        more => vec![format!("and {}", counted(more, "further group"))],
    };
    Sheet { head: Some(head), tables: vec![grid], notes, ..Sheet::default() }
}

/// Returns some pieces below a sentence.
pub(super) fn ranges(head: String, held: PieceRanges) -> Sheet {
    let rows = match held.count {
        0 => Vec::new(),
        count => vec![vec![Cell::number(count), Cell::text(held.pieces)]],
    };
    let grid = Grid { columns: &["count", "pieces"], right: &[0], elastic: 1, spare: &[], rows };
    Sheet { head: Some(head), tables: vec![grid], ..Sheet::default() }
}

/// Returns `1 piece`, `2 pieces` and so on.
pub(super) fn pieces(number: u64) -> String {
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

/// Returns a table of requests to a tracker.
pub(super) fn requests(rows: &[Request]) -> Sheet {
    let rows = rows.iter().map(request_row);
    let grid = Grid {
        columns: REQUEST_COLUMNS,
        right: &[4],
        elastic: 6,
        spare: &[4, 3],
        rows: rows.collect(),
    };
    Sheet { tables: vec![grid], nothing: "there is no such request", ..Sheet::default() }
}

/// Returns a request as a row.
pub(super) fn request_row(row: &Request) -> Vec<Cell> {
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
}

/// The columns of [`request_row`].
pub(super) const REQUEST_COLUMNS: &[&str] =
    &["time", "event", "peer", "client", "given", "outcome", "torrent"];

/// Returns a request as a line, for `--follow`.
pub(super) fn request_line(row: &Request, out: &Output) -> String {
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
    fit(&line, out.width())
}
