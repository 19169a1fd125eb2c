//! `torrent-sim`: runs a whole swarm on this machine.

mod virtual_time;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::sim::{LocalSwarm, Member, SimOptions, TempFolder};
use piecework_core::metainfo::choose_piece_len;
use piecework_core::{Table, columns, cut_end, padded, printable};
use piecework_engine::{TorrentState, TorrentStatus};
use piecework_storage::free_space;

use super::exit_deadline::{self, ExitDeadline};
use super::format::{
    Paint, RateLimit, bar_line, count, counted, parse_rate, parse_size, percent, rate, short_time,
    shown, size, table_text,
};
use super::progress::WorkBar;
use super::signals::Signals;
use super::{CliError, Env, Exit, LogArgs, LogConfig, Screen, create, logging};
use virtual_time::{PlainNetwork, VirtualArgs};

/// Run a whole swarm on this machine: a tracker, seeders and leechers over real sockets.
#[derive(Parser)]
#[command(
    name = "torrent-sim",
    version,
    after_help = "Examples: torrent-sim linux.iso --peers 8 --seeders 2\n          \
                  torrent-sim --virtual --seeders 1 --peers 1000 --size 1GiB\n          \
                  torrent-sim --virtual docs/scenarios/broadcast.toml --rounds 5\n\n\
                  Exit code 0 only if every copy has the SHA-256 of the original; with --virtual, only \
                  if every peer completes and none breaks a rule."
)]
struct SimArgs {
    /// The file or folder to move, random bytes by default. With --virtual, a scenario.
    file: Option<PathBuf>,
    /// Peers that download, 4 by default. At most 200, with --virtual 50,000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50_000))]
    peers: Option<u16>,
    /// Peers that have everything at the start, 2 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    seeders: Option<u16>,
    /// Size of the random bytes.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, conflicts_with = "file")]
    size: u64,
    /// Bytes in a piece, a power of two from 16KiB to 64MiB. Chosen by size by default.
    #[arg(long, value_name = "N", value_parser = create::parse_piece_len)]
    piece_length: Option<u32>,
    /// Maximum bytes a second that each peer sends.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Folder for the copies while it runs. The system's folder for temporary files by default.
    #[arg(long, value_name = "DIR", conflicts_with = "virtual")]
    temp: Option<PathBuf>,
    #[command(flatten)]
    in_virtual_time: VirtualArgs,
    #[command(flatten)]
    log: LogArgs,
}

impl SimArgs {
    fn peers(&self) -> u16 {
        self.peers.unwrap_or(PEERS)
    }

    fn seeders(&self) -> u16 {
        self.seeders.unwrap_or(SEEDERS)
    }

    /// Returns whether a flag describes a network, as a scenario does.
    fn describes_network(&self) -> bool {
        let is_limited = self.upload_limit.is_some() || self.piece_length.is_some();
        self.peers.is_some() || self.seeders.is_some() || is_limited
    }

    /// Returns the network that these flags describe.
    fn plain(&self) -> PlainNetwork {
        PlainNetwork {
            seeders: self.seeders().into(),
            leechers: self.peers().into(),
            size: self.size,
            piece_length: self.piece_length.unwrap_or_else(|| choose_piece_len(self.size)),
            upload_limit: self.upload_limit.and_then(|limit| limit.0),
        }
    }
}

pub fn main(env: Env) -> Exit {
    let exit_deadline = Arc::new(ExitDeadline::new(&env));
    env.run(|args: SimArgs, env| {
        logging::start(env, &LogConfig::of_level("warn").with(&args.log))?;
        if args.in_virtual_time.r#virtual {
            let file = args.file.as_ref().map(|file| env.path(file));
            if file.is_some() && args.describes_network() {
                return Err(CliError::usage(
                    "the scenario defines the peers: leave out --peers, --seeders, \
                     --piece-length and --upload-limit",
                ));
            }
            return virtual_time::run(&args.in_virtual_time, env, file.as_deref(), &args.plain());
        }
        if args.peers() > MOST_PEERS {
            return Err(CliError::usage(format_args!(
                "`--peers {}` are too many on real sockets: at most {MOST_PEERS}, or --virtual",
                args.peers()
            )));
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                CliError::failed(format_args!("no threads can be started: {error}")).because(error)
            })?;
        let parent = args.temp.as_ref().map_or_else(std::env::temp_dir, |dir| env.path(dir));
        if args.file.is_none() {
            require_room(&parent, args.size, u64::from(args.peers()) + 1)?;
        }
        let folder = TempFolder::new(&parent).map_err(|error| {
            CliError::failed(format_args!("no folder can be made in `{}`: {error}", shown(&parent)))
                .because(error)
        })?;
        let screen = Screen::full(env);
        let result = runtime.block_on(async {
            let mut signals = Signals::end()?;
            tokio::select! {
                result = run(&args, env, &screen, &folder, &parent) => return result,
                () = signals.next() => {}
            }
            // Cleaning up has a time limit, and a second signal ends it.
            exit_deadline.set(exit_deadline::TO_END, Exit::Interrupted);
            let exit_deadline = Arc::clone(&exit_deadline);
            tokio::spawn(async move {
                signals.next().await;
                exit_deadline.set(exit_deadline::AT_ONCE, Exit::Interrupted);
            });
            Err(CliError::silent(Exit::Interrupted))
        });
        screen.close();
        runtime.shutdown_timeout(LAST_WORK);
        let removed = folder.remove().map_err(|error| {
            CliError::failed(format_args!("the temporary files could not be removed: {error}"))
                .because(error)
        });
        result.and(removed)
    })
}

async fn run(
    args: &SimArgs,
    env: &Env,
    screen: &Screen,
    folder: &TempFolder,
    parent: &Path,
) -> Result<(), CliError> {
    let source = match &args.file {
        Some(file) => env.path(file),
        None => make_file(env, folder, args.size).await?,
    };
    let mut options = create::options();
    options.piece_len = args.piece_length;
    let created = create::HashJob::start(env, &source, options).finished().await?;
    let metainfo = Arc::new(created.metainfo);
    let info = metainfo.info();
    let geometry = info.geometry();
    require_room(parent, geometry.total_len(), args.peers().into())?;
    let paint = screen.paint();
    screen.line(format_args!(
        "{}: {}, {} of {}; {}, {} and a tracker on loopback",
        paint.bold(printable(info.name())),
        size(geometry.total_len()),
        counted(geometry.pieces().into(), "piece"),
        size(geometry.piece_len().into()),
        counted(args.seeders().into(), "seeder"),
        counted(args.peers().into(), "leecher"),
    ));
    let options = SimOptions {
        seeders: args.seeders().into(),
        leechers: args.peers().into(),
        upload_limit: args.upload_limit.and_then(|limit| limit.0),
    };
    let start = Instant::now();
    let swarm = LocalSwarm::start(Arc::clone(&metainfo), &created.root, folder, &options)
        .await
        .map_err(CliError::failed_by)?;
    let finished = show_until(screen, swarm.members(), swarm.finished()).await;
    let took = start.elapsed();
    screen.close();
    finished.map_err(CliError::failed_by)?;

    let moved = geometry.total_len() * u64::from(args.peers());
    let speed = rate(moved as f64 / took.as_secs_f64().max(1e-3));
    screen.line(format_args!(
        "{} in {}: {} moved, {speed} in all\n",
        paint.green("complete"),
        short_time(took),
        size(moved),
    ));
    screen.line(matrix(&swarm, screen.answer_width(), paint));
    let whole = compare(env, &swarm, &created.root).await?;
    swarm.stop().await;
    if whole { Ok(()) } else { Err(CliError::failed("not every copy is complete")) }
}

/// Returns an error if `parent` has no room for `copies` of `bytes`.
fn require_room(parent: &Path, bytes: u64, copies: u64) -> Result<(), CliError> {
    // If the folder cannot be examined, creating files in it reports the error.
    let Ok((free, _)) = free_space(parent) else { return Ok(()) };
    let needed = bytes.saturating_mul(copies);
    if needed <= free {
        return Ok(());
    }
    Err(CliError::failed(format_args!(
        "{} times {} do not fit into `{}`, where {} are free: use fewer --peers or a smaller --size, \
         or name another folder with --temp",
        count(copies),
        size(bytes),
        shown(parent),
        size(free),
    )))
}

/// Makes random bytes to move, with a progress bar.
async fn make_file(env: &Env, folder: &TempFolder, len: u64) -> Result<PathBuf, CliError> {
    let path = folder.path().join("random.bin");
    let bar = Arc::new(WorkBar::new(env, "making", "random.bin"));
    let cancelled = Arc::new(AtomicBool::new(false));
    let work = {
        let (path, bar, cancelled) = (path.clone(), Arc::clone(&bar), Arc::clone(&cancelled));
        move || {
            let made = LocalSwarm::make_file(&path, len, |done| {
                bar.at(done, len);
                unless(&cancelled)
            });
            made.map_err(CliError::failed_by)
        }
    };
    let _cancel = CancelOnDrop(cancelled);
    let made = blocking(work).await;
    bar.clear();
    made.map(|()| path)
}

/// Cancels some work when it is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work`, which blocks, on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CliError::failed(format_args!("the work failed: {error}")).because(error))?
}

fn unless(cancelled: &AtomicBool) -> io::Result<()> {
    match cancelled.load(Ordering::Relaxed) {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => Ok(()),
    }
}

/// Returns who gave whom how many pieces: a row for each leecher, a column for each giver. Givers
/// that do not fit beside the others are in further tables below.
fn matrix(swarm: &LocalSwarm, width: usize, paint: Paint) -> String {
    let names = swarm.members().iter().map(|member| short_name(member.name())).collect();
    let rows = swarm.matrix().into_iter().map(|(leecher, given)| {
        let own = |(giver, pieces): (&Member, u64)| {
            if giver.name() == leecher.name() { "·".to_owned() } else { count(pieces) }
        };
        let cells = swarm.members().iter().zip(given).map(own).collect();
        (leecher.name().to_owned(), cells)
    });
    matrix_text(names, &rows.collect::<Vec<_>>(), width, paint)
}

fn matrix_text(
    givers: Vec<String>,
    rows: &[(String, Vec<String>)],
    width: usize,
    paint: Paint,
) -> String {
    let title = "pieces from";
    let cells = |at: usize| rows.iter().map(move |(_, cells)| columns(&cells[at]));
    let widths: Vec<usize> = (0..givers.len())
        .map(|at| cells(at).max().unwrap_or(0).max(columns(&givers[at])) + 2)
        .collect();
    let first = rows.iter().map(|(name, _)| columns(name)).max().unwrap_or(0).max(title.len());
    let mut tables = Vec::new();
    let mut from = 0;
    while from < givers.len() {
        let (mut to, mut used) = (from, first);
        while to < givers.len() && (to == from || used + widths[to] < width) {
            used += widths[to];
            to += 1;
        }
        let head = std::iter::once(title.to_owned()).chain(givers[from..to].iter().cloned());
        let right: Vec<usize> = (1..=to - from).collect();
        let rows = rows.iter().map(|(name, cells)| {
            std::iter::once(name.clone()).chain(cells[from..to].iter().cloned()).collect()
        });
        tables.push(table_text(&Table::new(head).right(&right).rows(rows), width, paint));
        from = to;
    }
    tables.join("\n\n")
}

async fn compare(env: &Env, swarm: &LocalSwarm, root: &Path) -> Result<bool, CliError> {
    let bar = Arc::new(WorkBar::new(env, "comparing", "the copies"));
    let (shown_bar, total) = (Arc::clone(&bar), swarm.bytes_to_compare());
    let cancelled = Arc::new(AtomicBool::new(false));
    let comparison = {
        let (done, cancelled) = (AtomicU64::new(0), Arc::clone(&cancelled));
        swarm.comparison(root, move |more| {
            shown_bar.at(done.fetch_add(more, Ordering::Relaxed) + more, total);
            unless(&cancelled)
        })
    };
    let _cancel = CancelOnDrop(cancelled);
    let compared = blocking(move || comparison().map_err(CliError::failed_by)).await;
    bar.clear();
    let (original, copies) = compared?;
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let paint = env.stdout().paint();
    env.stdout().line(format_args!("\nSHA-256 {}", hex(&original.0)))?;
    for copy in &copies {
        let verdict = match (copy.whole, &copy.content) {
            (true, _) => paint.green("the same"),
            (false, Some(content)) => paint.red(format_args!("DIFFERENT {}", hex(&content.0))),
            (false, None) => paint.red("cannot be read"),
        };
        env.stdout().line(format_args!("{:<12} {verdict}", copy.name))?;
    }
    Ok(copies.iter().all(|copy| copy.whole))
}

/// Shortens `seeder 1` to `S1` and `leecher 12` to `L12`.
fn short_name(name: &str) -> String {
    name.split(' ')
        .map(|word| if word.parse::<u16>().is_ok() { word } else { &word[..1] })
        .collect()
}

/// Shows everybody's progress until `work` is done.
async fn show_until<T>(screen: &Screen, members: &[Member], work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(BETWEEN_LOOKS);
    let mut tenths = 0;
    loop {
        tokio::select! {
            value = &mut work => return value,
            _ = ticks.tick() => {
                let looks: Vec<MemberProgress> = members.iter().map(MemberProgress::of).collect();
                if screen.is_live() {
                    let (width, height) = (screen.width(), screen.height());
                    screen.live(&bars(&looks, width, height, screen.live_paint()).join("\n"));
                    continue;
                }
                let leechers = || looks.iter().filter(|look| !look.is_seeder);
                let have = leechers().map(|look| look.have).sum();
                let total = leechers().map(|look| look.total).sum();
                let now = percent(have, total) / 10;
                if now > tenths && total > 0 {
                    tenths = now;
                    screen.notice(format_args!("{}%", now * 10));
                }
            }
        }
    }
}

/// A member's progress.
#[derive(Debug, Clone)]
struct MemberProgress {
    name: String,
    is_seeder: bool,
    have: u64,
    total: u64,
    is_seeding: bool,
    down: f64,
    up: f64,
    peers: u64,
}

impl MemberProgress {
    fn of(member: &Member) -> Self {
        let status: TorrentStatus = member.handle().status();
        Self {
            name: member.name().to_owned(),
            is_seeder: member.is_seeder(),
            have: status.pieces_have.into(),
            total: status.pieces_total.into(),
            is_seeding: status.state == TorrentState::Seeding,
            down: status.download_rate,
            up: status.upload_rate,
            peers: status.peers as u64,
        }
    }

    /// Returns the texts behind its bar, the longest first.
    fn tails(&self) -> [String; 3] {
        let peers = counted(self.peers, "peer");
        let up = format!("up {:>10}", rate(self.up));
        let down = match self.is_seeding {
            true => " ".repeat("down ".len() + 10),
            false => format!("down {:>10}", rate(self.down)),
        };
        let first = if self.is_seeding { up.clone() } else { down.clone() };
        [format!("{down}  {up}  {peers}"), format!("{down}  {up}"), first]
    }
}

/// Returns a line for each member: fewer than `height` lines, each of fewer than `width` columns.
/// If there are more members, complete ones are left out.
fn bars(looks: &[MemberProgress], width: usize, height: usize, paint: Paint) -> Vec<String> {
    let room = height.saturating_sub(1).max(1);
    let mut order: Vec<&MemberProgress> = looks.iter().collect();
    let mut more = None;
    if order.len() > room {
        order.sort_by_key(|look| look.have >= look.total);
        let hidden = order.split_off(room - 1);
        let whole = hidden.iter().filter(|look| look.have >= look.total).count() as u64;
        more = Some(format!(
            "and {}, {} whole",
            counted(hidden.len() as u64, "more peer"),
            count(whole)
        ));
    }
    let name_width = order.iter().map(|look| columns(&look.name)).max().unwrap_or(0);
    let tails: Vec<[String; 3]> = order.iter().map(|look| look.tails()).collect();
    // All have one width, so that the bars have one length.
    let tail_width = |level: usize| tails.iter().map(|tails| columns(&tails[level])).max();
    let tail_widths = [0, 1, 2].map(|level| tail_width(level).unwrap_or(0));
    let line = |(look, tails): (&&MemberProgress, &[String; 3])| {
        let name = padded(&look.name, name_width, false);
        let tails = [0, 1, 2].map(|level| padded(&tails[level], tail_widths[level], false));
        let line = bar_line(&name, look.have, look.total, &tails, width, paint);
        line.trim_end().to_owned()
    };
    order
        .iter()
        .zip(&tails)
        .map(line)
        .chain(more.map(|more| paint.dim(cut_end(&more, width.saturating_sub(1)))))
        .collect()
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(125);

const PEERS: u16 = 4;
const SEEDERS: u16 = 2;

/// Each peer is a session with sockets and threads of its own.
const MOST_PEERS: u16 = 200;

/// Time for remaining work to end before its files are removed.
const LAST_WORK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn look(number: usize, is_seeder: bool) -> MemberProgress {
        MemberProgress {
            name: format!("{} {number}", if is_seeder { "seeder" } else { "leecher" }),
            is_seeder,
            have: if is_seeder { 100 } else { number as u64 % 100 },
            total: 100,
            is_seeding: is_seeder,
            down: 452.9 * 1024.0 * 1024.0,
            up: 1_000.0 * 1024.0 * number as f64,
            peers: 12,
        }
    }

    #[test]
    fn bars_fit_their_terminal_and_are_of_one_length() {
        for peers in [1, 12, 200] {
            let looks: Vec<MemberProgress> =
                (1..=2).map(|n| look(n, true)).chain((1..=peers).map(|n| look(n, false))).collect();
            for (width, height) in [(60, 24), (80, 24), (120, 50), (20, 3)] {
                let lines = bars(&looks, width, height, Paint::new(false));
                assert!(lines.len() < height);
                assert!(lines.iter().all(|line| columns(line) < width), "{lines:#?}");
                let bars = lines.iter().filter(|line| line.contains('%'));
                let ends: Vec<usize> =
                    bars.map(|line| columns(&line[..line.find('%').unwrap()])).collect();
                assert!(width < 60 || ends.iter().all(|end| *end == ends[0]), "{lines:#?}");
            }
        }
        let many: Vec<MemberProgress> = (1..=200).map(|n| look(n, false)).collect();
        let lines = bars(&many, 80, 24, Paint::new(false));
        assert_eq!(lines.last().unwrap(), "and 178 more peers, 0 whole");
    }

    #[test]
    fn a_matrix_that_is_too_wide_is_several_tables() {
        let givers: Vec<String> = (1..=40).map(|n| format!("L{n}")).collect();
        let rows: Vec<(String, Vec<String>)> =
            (1..=3).map(|n| (format!("leecher {n}"), vec!["1,194".to_owned(); 40])).collect();
        for width in [60, 80, 120] {
            let text = matrix_text(givers.clone(), &rows, width, Paint::new(false));
            assert!(text.lines().all(|line| columns(line) < width), "{text}");
            for giver in &givers {
                let heads = text.lines().filter(|line| line.starts_with("PIECES FROM"));
                let named = heads.flat_map(str::split_whitespace).filter(|word| word == giver);
                assert_eq!(named.count(), 1, "{giver}: {text}");
            }
        }
        let text = matrix_text(givers, &rows, usize::MAX, Paint::new(false));
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn what_has_no_room_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = require_room(dir.path(), u64::MAX / 2, 5).unwrap_err().to_string();
        assert!(error.contains("5 times 8.0 EiB do not fit into `"), "{error}");
        assert!(error.contains("--temp"), "{error}");
        assert!(require_room(dir.path(), 1, 5).is_ok());
    }
}
