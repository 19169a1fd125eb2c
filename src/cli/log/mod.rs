//! `torrent-log`: asks a journal who gave which piece, and a tracker who holds which piece.

mod sheet;
mod source;
mod stream;
mod tracker;
mod tracker_answers;
mod view;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Parser;
use serde::Serialize;

use piecework_api::LogEntry;

use super::format::{parse_duration, printable_json};
use super::remote::{Remote, RemoteArgs, Tool};
use super::signals::Signals;
use super::{CliError, Env, Exit, remote};
use sheet::Sheet;
use source::{LoggedTorrent, Source};
use stream::{Responses, RowWriter};

/// Ask the journal: who gave which piece, who sent a wrong one, who was sent what.
#[derive(Parser)]
#[command(
    name = "torrent-log",
    version,
    after_help = "Examples:\n  torrent-log linux.iso\n  torrent-log linux.iso --piece 17\n  \
                  torrent-log --bad --since 1h --journal torrents/journal.sqlite\n  \
                  torrent-log linux.iso --at-risk --tracker 127.0.0.1:8000\n\n\
                  Without --journal and --tracker the daemon is asked or, if none runs, the \
                  journal of torrent-peer in the torrents folder is read."
)]
struct JournalArgs {
    /// A torrent: its name, its info-hash, or at least the first four digits of its info-hash. All
    /// torrents if not given.
    #[arg(value_name = "NAME|HASH")]
    torrent: Option<String>,
    /// Everything about a piece, numbered from 0. With --tracker, who holds it.
    #[arg(long, value_name = "N", requires = "torrent")]
    piece: Option<u32>,
    /// Only what this peer gave.
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["piece", "bad"])]
    peer: Option<SocketAddr>,
    /// Every piece that arrived wrong, who sent the wrong block, and the evidence.
    #[arg(long, conflicts_with = "piece")]
    bad: bool,
    /// Only what happened within this time, such as 90s, 10m or 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Show new entries as they come, until Ctrl-C.
    #[arg(long, short, conflicts_with_all = ["piece", "bad", "csv"])]
    follow: bool,
    /// Answer as comma-separated values, with the names of the columns first.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Read this journal of a peer, a daemon or a tracker, instead of asking a daemon.
    #[arg(long, value_name = "FILE", conflicts_with = "tracker")]
    journal: Option<PathBuf>,
    /// Ask this tracker for its requests or, with a torrent, for who holds what.
    #[arg(long, value_name = "TRACKER")]
    tracker: Option<String>,
    /// Pieces that at most this many peers hold [default: 1].
    #[arg(
        long,
        value_name = "K",
        num_args = 0..=1,
        default_missing_value = "1",
        requires_all = ["tracker", "torrent"],
        conflicts_with = "piece"
    )]
    at_risk: Option<u32>,
    /// Pieces that this peer lacks.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires_all = ["tracker", "torrent"],
        conflicts_with_all = ["piece", "at_risk"]
    )]
    missing: Option<SocketAddr>,
    /// Whether the others could complete without this peer. Can be repeated.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires_all = ["tracker", "torrent"],
        conflicts_with_all = ["piece", "at_risk", "missing"]
    )]
    without: Vec<SocketAddr>,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: JournalArgs, env, remote| {
        if let Some(address) = &args.tracker {
            return tracker::ask(env, remote, &args, address).await;
        }
        let source = Source::find(env, remote, args.journal.as_deref()).await?;
        if let Some(journal) = source.of_tracker()? {
            return tracker::show(env, remote, &args, journal);
        }
        if args.follow {
            return follow(env, remote, &source, &args).await;
        }
        ask(env, remote, &source, &args).await
    })
}

impl Tool for JournalArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

impl JournalArgs {
    /// Returns the time of `--since`, in seconds since 1970.
    fn since(&self) -> Option<i64> {
        let since = SystemTime::now().checked_sub(self.since?)?;
        let seconds = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).ok()
    }

    /// Returns whether `--since` includes `time` (RFC 3339).
    fn is_meant(&self, time: &str) -> bool {
        let Some(since) = self.since() else { return true };
        time.parse::<jiff::Timestamp>().is_ok_and(|time| time.as_second() >= since)
    }
}

async fn ask(
    env: &Env,
    remote: &Remote,
    source: &Source<'_>,
    args: &JournalArgs,
) -> Result<(), CliError> {
    let torrents = source.torrents().await?;
    let chosen = args.torrent.as_deref().map(|text| source.pick(&torrents, text)).transpose()?;
    if let (Some(torrent), Some(piece)) = (chosen, args.piece) {
        let mut story = source.story(torrent, piece).await?;
        story.story.retain(|entry| args.is_meant(&entry.time));
        return answer(env, remote, args, &story, view::story(&story));
    }
    let meant: Vec<_> = match chosen {
        Some(torrent) => vec![torrent],
        None => torrents.iter().collect(),
    };
    if args.bad {
        let mut bad = Vec::new();
        for torrent in meant {
            for piece in source.bad(torrent).await? {
                bad.push(view::BadPieceReport::new(torrent, piece));
            }
        }
        bad.retain(|bad| args.is_meant(&bad.piece.time));
        bad.sort_by(|a, b| a.piece.time.cmp(&b.piece.time));
        return answer(env, remote, args, &bad, view::bad(&bad));
    }
    if args.peer.is_some() || args.since.is_some() {
        let is_one = chosen.is_some();
        if args.peer.is_some() || !is_one {
            return responses(env, remote, source, args, &meant, !is_one).await;
        }
        let mut sums = view::GiverSums::default();
        let mut responses = Responses::of(source, &meant, None, args.since()).await?;
        while let Some(entry) = responses.next().await? {
            sums.add(&entry);
        }
        let givers = sums.finish();
        return answer(env, remote, args, &givers, view::givers_alone(&givers));
    }
    let Some(torrent) = chosen else {
        let mut rows = Vec::new();
        for torrent in meant {
            rows.push(view::TorrentSum::new(torrent, &source.givers(torrent).await?));
        }
        return answer(env, remote, args, &rows, view::torrents(&rows));
    };
    let givers = source.givers(torrent).await?;
    let sheet = view::givers(&givers);
    answer(env, remote, args, &givers, sheet)
}

/// Answers with the single responses of `torrents`. Names the torrent of each if there are
/// `several`.
async fn responses(
    env: &Env,
    remote: &Remote,
    source: &Source<'_>,
    args: &JournalArgs,
    torrents: &[&LoggedTorrent],
    several: bool,
) -> Result<(), CliError> {
    if args.csv || remote.json() {
        let mut responses = Responses::of(source, torrents, args.peer, args.since()).await?;
        let mut rows = RowWriter::new(env, remote, view::log_columns(several));
        while let Some(entry) = responses.next().await? {
            rows.row(&entry, || view::log_row(&entry, several))?;
        }
        return rows.end();
    }
    let mut log: Vec<LogEntry> = Vec::new();
    for torrent in torrents {
        log.extend(source.log(torrent, args.peer, args.since(), None, SHOWN).await?);
        if log.len() > SHOWN {
            log.sort_by(|a, b| a.time.cmp(&b.time));
            log.drain(..log.len() - SHOWN);
        }
    }
    log.sort_by(|a, b| a.time.cmp(&b.time));
    let sheet = view::log(&log, several).shortened(SHOWN);
    answer(env, remote, args, &log, sheet)
}

/// Prints responses as they come.
async fn follow(
    env: &Env,
    remote: &Remote,
    source: &Source<'_>,
    args: &JournalArgs,
) -> Result<(), CliError> {
    let mut interrupt = Signals::interrupt()?;
    let following = async {
        let mut behind = std::collections::BTreeMap::new();
        let mut is_first = true;
        loop {
            let torrents = source.torrents().await?;
            let meant: Vec<_> = match &args.torrent {
                Some(text) => vec![source.pick(&torrents, text)?],
                None => torrents.iter().collect(),
            };
            let mut new = Vec::new();
            for torrent in meant {
                let after = behind.get(&torrent.info_hash).copied();
                // Torrents that appear later are shown from their beginning.
                let after = if is_first { args.since.and(Some(0)) } else { after.or(Some(0)) };
                // The first request only finds out where to begin.
                let most = if is_first && after.is_none() { 1 } else { MOST };
                let log = source.log(torrent, args.peer, args.since(), after, most).await?;
                let last = log.iter().map(|entry| entry.id).max();
                let last = last.unwrap_or(0).max(after.unwrap_or(0));
                behind.insert(torrent.info_hash, last);
                if after.is_some() {
                    new.extend(log);
                }
            }
            is_first = false;
            new.sort_by_key(|entry| entry.id);
            for entry in &new {
                let text = match remote.json() {
                    true => {
                        let json = serde_json::to_string(entry).map_err(std::io::Error::from)?;
                        printable_json(&json)
                    }
                    false => view::line(entry, args.torrent.is_none(), env.stdout()),
                };
                env.stdout().line(text)?;
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        result = following => result,
        () = interrupt.next() => Ok(()),
    }
}

/// Prints the answer in the form that was asked for.
fn answer(
    env: &Env,
    remote: &Remote,
    args: &JournalArgs,
    json: &impl Serialize,
    sheet: Sheet,
) -> Result<(), CliError> {
    if remote.json() {
        return remote::print_json(env, json);
    }
    let out = env.stdout();
    match args.csv {
        true => Ok(out.text(sheet.csv())?),
        false => Ok(out.line(sheet.text(out.width(), out.paint()))?),
    }
}

/// Responses requested at a time with `--follow`: as many as a daemon returns.
const MOST: usize = 100_000;

/// The number of last rows that a table for people has.
const SHOWN: usize = 10_000;

/// Time between two requests for new entries.
const PACE: Duration = Duration::from_millis(500);
