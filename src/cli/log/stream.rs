//! Long answers, row by row. Memory does not grow with their length.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;

use serde::Serialize;

use piecework_api::{BadPiece, LogEntry};
use piecework_core::BLOCK_LEN;

use super::super::format::printable_json;
use super::super::remote::Remote;
use super::super::{CliError, Env, Output};
use super::sheet::{Cell, csv_line};
use super::source::{LoggedTorrent, Source};

/// The responses of some torrents in the order of time, read page by page.
pub(super) struct Responses<'a> {
    source: &'a Source<'a>,
    peer: Option<SocketAddr>,
    since: Option<i64>,
    page_len: usize,
    queues: Vec<Queue<'a>>,
    /// The time of each queue's first response, and the queue's number.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
}

/// The responses of one torrent that were read but not returned yet.
struct Queue<'a> {
    torrent: &'a LoggedTorrent,
    page: VecDeque<LogEntry>,
    bans: VecDeque<LogEntry>,
    last: i64,
    ended: bool,
}

/// Writes rows one by one, as comma-separated values or as a JSON list.
pub(super) struct RowWriter<'a> {
    out: &'a Output,
    form: Form,
    rows: u64,
    text: String,
}

enum Form {
    Csv,
    Json,
    /// JSON with line breaks.
    Pretty,
}

impl<'a> Responses<'a> {
    /// Begins to read the responses of `torrents`. `peer` and `since` (seconds since 1970) select
    /// among them.
    pub(super) async fn of(
        source: &'a Source<'a>,
        torrents: &[&'a LoggedTorrent],
        peer: Option<SocketAddr>,
        since: Option<i64>,
    ) -> Result<Self, CliError> {
        let page_len = (IN_MEMORY / torrents.len().max(1)).clamp(SHORTEST, LONGEST);
        let mut all =
            Self { source, peer, since, page_len, queues: Vec::new(), heads: BinaryHeap::new() };
        for torrent in torrents {
            let bans = source.bad(torrent).await?.into_iter();
            let bans = bans.filter_map(|bad| ban(torrent, bad));
            let mut bans: Vec<LogEntry> = bans
                .filter(|ban| peer.is_none_or(|peer| ban.peer == peer))
                .filter(|ban| since.is_none_or(|since| millis(ban) / 1_000 >= since))
                .collect();
            bans.sort_by_key(millis);
            let queue =
                Queue { torrent, page: VecDeque::new(), bans: bans.into(), last: 0, ended: false };
            all.queues.push(queue);
            all.line_up(all.queues.len() - 1).await?;
        }
        Ok(all)
    }

    /// Returns the next response, or `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<LogEntry>, CliError> {
        let Some(Reverse((_, at))) = self.heads.pop() else { return Ok(None) };
        let queue = &mut self.queues[at];
        let is_ban = match (queue.page.front(), queue.bans.front()) {
            (Some(response), Some(ban)) => millis(ban) < millis(response),
            (response, _) => response.is_none(),
        };
        let entry = if is_ban { queue.bans.pop_front() } else { queue.page.pop_front() };
        self.line_up(at).await?;
        Ok(entry)
    }

    /// Reads the next page of a queue if its page is empty, and records the time of its first
    /// response.
    async fn line_up(&mut self, at: usize) -> Result<(), CliError> {
        let Self { source, peer, since, page_len, .. } = *self;
        let queue = &mut self.queues[at];
        if queue.page.is_empty() && !queue.ended {
            let mut page =
                source.log(queue.torrent, peer, since, Some(queue.last), page_len).await?;
            let last = page.iter().map(|entry| entry.id).max().unwrap_or(0);
            queue.ended = page.len() < page_len;
            if last <= queue.last && !page.is_empty() {
                // A daemon without a journal remembers only the last responses, including bans, and
                // does not number them.
                queue.ended = true;
                queue.bans.clear();
                page = source.log(queue.torrent, peer, since, None, UNNUMBERED).await?;
            }
            queue.last = last;
            queue.page = page.into();
        }
        let first = queue.page.front().into_iter().chain(queue.bans.front()).map(millis).min();
        self.heads.extend(first.map(|time| Reverse((time, at))));
        Ok(())
    }
}

impl<'a> RowWriter<'a> {
    /// Begins an answer with these columns, in the form that was asked for.
    pub(super) fn new(env: &'a Env, remote: &Remote, columns: &[&str]) -> Self {
        let out = env.stdout();
        let form = match (remote.json(), out.is_terminal()) {
            (false, _) => Form::Csv,
            (true, false) => Form::Json,
            (true, true) => Form::Pretty,
        };
        let text = match form {
            Form::Csv => columns.join(",") + "\n",
            Form::Json | Form::Pretty => "[".to_owned(),
        };
        Self { out, form, rows: 0, text }
    }

    /// Writes a row.
    pub(super) fn row(
        &mut self,
        json: &impl Serialize,
        cells: impl FnOnce() -> Vec<Cell>,
    ) -> Result<(), CliError> {
        match self.form {
            Form::Csv => csv_line(&mut self.text, &cells()),
            Form::Json => {
                self.text.push_str(if self.rows > 0 { "," } else { "" });
                let json = serde_json::to_string(json).map_err(std::io::Error::from)?;
                self.text.push_str(&printable_json(&json));
            }
            Form::Pretty => {
                self.text.push_str(if self.rows > 0 { ",\n  " } else { "\n  " });
                let json = serde_json::to_string_pretty(json).map_err(std::io::Error::from)?;
                self.text.push_str(&printable_json(&json.replace('\n', "\n  ")));
            }
        }
        self.rows += 1;
        if self.text.len() >= BUFFER {
            self.out.text(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    /// Ends the answer.
    pub(super) fn end(mut self) -> Result<(), CliError> {
        match self.form {
            Form::Csv => {}
            Form::Pretty if self.rows > 0 => self.text.push_str("\n]\n"),
            Form::Json | Form::Pretty => self.text.push_str("]\n"),
        }
        Ok(self.out.text(&self.text)?)
    }
}

/// Returns a ban as a log entry, if the guilty peer is known.
fn ban(torrent: &LoggedTorrent, bad: BadPiece) -> Option<LogEntry> {
    let begin = u64::from(bad.piece) * u64::from(torrent.piece_length);
    let piece_len = torrent.size.saturating_sub(begin).min(torrent.piece_length.into());
    Some(LogEntry {
        id: 0,
        time: bad.time,
        piece: bad.piece,
        peer: bad.peer?,
        client: bad.client?,
        blocks: 1,
        bytes: piece_len.min(BLOCK_LEN.into()),
        took_ms: 0,
        verdict: "banned".to_owned(),
        block: bad.block,
        info_hash: torrent.info_hash,
        torrent: torrent.name.clone(),
    })
}

/// Returns the entry's time in milliseconds since 1970.
fn millis(entry: &LogEntry) -> i64 {
    entry.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}

/// Responses of all torrents in memory at a time, about 300 bytes each.
const IN_MEMORY: usize = 50_000;

/// Responses of one torrent that are requested at a time.
const SHORTEST: usize = 16;
const LONGEST: usize = 2_000;

/// Responses to request from a daemon without a journal: more than it remembers.
const UNNUMBERED: usize = 100_000;

/// Bytes of text that are written at a time.
const BUFFER: usize = 64 << 10;
