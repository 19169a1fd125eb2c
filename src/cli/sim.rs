//! `torrent-sim`: a whole swarm on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::printable;
use crate::session::TorrentState;
use crate::sim::{LocalSwarm, Member, SimOptions, TempFolder};

use super::format::{
    RateLimit, count, counted, parse_rate, parse_size, percent, rate, short_time, size, table,
};
use super::{CliError, Env, Exit, LogArgs, LogConfig, create, logging};

/// Run a whole swarm on this machine: a tracker, seeders and leechers over real sockets.
#[derive(Parser)]
#[command(
    name = "torrent-sim",
    version,
    after_help = "Example: torrent-sim linux.iso --peers 8 --seeders 2\n\n\
                  Exit code 0 only if every copy has the SHA-256 of the original."
)]
struct Args {
    /// The file or folder to move; random bytes if not given.
    file: Option<PathBuf>,
    /// Peers that download.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200))]
    peers: u16,
    /// Peers that have everything from the start.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=200))]
    seeders: u16,
    /// Size of the random bytes.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, conflicts_with = "file")]
    size: u64,
    /// Bytes a piece, a power of two from 16KiB to 64MiB; chosen by size if not given.
    #[arg(long, value_name = "N", value_parser = create::parse_piece_len)]
    piece_length: Option<u32>,
    /// Bytes a second that each peer sends at most.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Where the copies go while it runs; the system's folder for temporary files if not given.
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs the program.
pub fn main(env: Env) -> Exit {
    env.run(|args: Args, env| {
        logging::start(env, &LogConfig::of_level("warn").with(&args.log))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::failed(format_args!("no threads to run on: {error}")))?;
        let parent = args.temp.as_ref().map_or_else(std::env::temp_dir, |dir| env.path(dir));
        let folder = TempFolder::new(&parent).map_err(|error| {
            CliError::failed(format_args!(
                "no folder can be made in `{}`: {error}",
                super::format::shown(&parent)
            ))
        })?;
        let result = runtime.block_on(async {
            tokio::select! {
                result = run(&args, env, &folder) => result,
                _ = tokio::signal::ctrl_c() => Err(CliError::silent(Exit::Interrupted)),
            }
        });
        runtime.shutdown_timeout(LAST_WORK);
        let removed = folder.remove().map_err(|error| {
            CliError::failed(format_args!("the temporary files could not be removed: {error}"))
        });
        result.and(removed)
    })
}

async fn run(args: &Args, env: &Env, folder: &TempFolder) -> Result<(), CliError> {
    let source = match &args.file {
        Some(file) => env.path(file),
        None => LocalSwarm::make_file(folder, args.size).map_err(CliError::failed)?,
    };
    let mut options = create::options();
    options.piece_len = args.piece_length;
    let created = create::Hashing::start(env, &source, options).finished().await?;
    let metainfo = Arc::new(created.metainfo);
    let info = metainfo.info();
    let geometry = info.geometry();
    let paint = env.stdout().paint();
    env.stdout().line(format_args!(
        "{}: {}, {} of {}; {}, {} and a tracker on loopback",
        paint.bold(printable(info.name())),
        size(geometry.total_len()),
        counted(geometry.pieces().into(), "piece"),
        size(geometry.piece_len().into()),
        counted(args.seeders.into(), "seeder"),
        counted(args.peers.into(), "leecher"),
    ))?;
    let options = SimOptions {
        seeders: args.seeders.into(),
        leechers: args.peers.into(),
        upload_limit: args.upload_limit.and_then(|limit| limit.0),
    };
    let start = Instant::now();
    let swarm = LocalSwarm::start(Arc::clone(&metainfo), &created.root, folder, &options)
        .await
        .map_err(CliError::failed)?;
    let bars = Bars::new(env, swarm.members());
    let finished = bars.show_until(swarm.finished()).await;
    let took = start.elapsed();
    bars.clear();
    finished.map_err(CliError::failed)?;

    let moved = geometry.total_len() * u64::from(args.peers);
    let speed = rate(moved as f64 / took.as_secs_f64().max(1e-3));
    env.stdout().line(format_args!(
        "{} in {}: {} moved, {speed} in all\n",
        paint.green("complete"),
        short_time(took),
        size(moved),
    ))?;
    env.stdout().line(matrix(&swarm, paint))?;
    let whole = compare(env, &swarm, &created.root)?;
    swarm.stop().await;
    if whole { Ok(()) } else { Err(CliError::failed("not every copy is whole")) }
}

/// Who gave whom how many pieces: a row for each leecher, a column for each giver.
fn matrix(swarm: &LocalSwarm, paint: super::Paint) -> String {
    let head: Vec<String> = std::iter::once("pieces from".to_owned())
        .chain(swarm.members().iter().map(|member| short_name(member.name())))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let right: Vec<usize> = (1..head.len()).collect();
    let rows = swarm.matrix().into_iter().map(|(leecher, given)| {
        let own = |(giver, pieces): (&Member, u64)| {
            if giver.name() == leecher.name() { "·".to_owned() } else { count(pieces) }
        };
        std::iter::once(leecher.name().to_owned())
            .chain(swarm.members().iter().zip(given).map(own))
            .collect()
    });
    table(&head, &right, rows, paint)
}

fn compare(env: &Env, swarm: &LocalSwarm, root: &Path) -> Result<bool, CliError> {
    let (original, copies) = swarm.copies(root).map_err(CliError::failed)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
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

/// `seeder 1` as `S1`, `leecher 12` as `L12`.
fn short_name(name: &str) -> String {
    name.split(' ')
        .map(|word| if word.parse::<u16>().is_ok() { word } else { &word[..1] })
        .collect()
}

/// One bar for each peer.
struct Bars<'a> {
    env: &'a Env,
    all: MultiProgress,
    members: Vec<(&'a Member, ProgressBar)>,
}

impl<'a> Bars<'a> {
    fn new(env: &'a Env, members: &'a [Member]) -> Self {
        let live = env.stderr().is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let template = if env.stderr().paint().is_on() {
            "{prefix:12} {bar:30.cyan/dim} {percent:>3}%  {msg}"
        } else {
            "{prefix:12} {bar:30} {percent:>3}%  {msg}"
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        let bar = |member: &'a Member| {
            let bar = all.add(ProgressBar::new(1));
            bar.set_style(style.clone());
            bar.set_prefix(member.name().to_owned());
            (member, bar)
        };
        let members: Vec<_> = members.iter().map(bar).collect();
        if let Some((_, first)) = members.first() {
            // Whatever is printed above one of them is printed above all.
            env.margin().paint_bar(first);
        }
        Self { env, all, members }
    }

    /// Shows how far everybody is until `work` is done.
    async fn show_until<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(BETWEEN_LOOKS);
        let mut tenths = 0;
        loop {
            tokio::select! {
                value = &mut work => return value,
                _ = ticks.tick() => self.look(&mut tenths),
            }
        }
    }

    fn look(&self, tenths: &mut u64) {
        let (mut have, mut total) = (0, 0);
        for (member, bar) in &self.members {
            let status = member.handle().status();
            bar.set_length(u64::from(status.pieces_total).max(1));
            bar.set_position(if status.pieces_total == 0 { 1 } else { status.pieces_have.into() });
            let peers = counted(status.peers as u64, "peer");
            bar.set_message(match status.state {
                TorrentState::Seeding => format!("up {}  {peers}", rate(status.upload_rate)),
                _ => format!(
                    "down {}  up {}  {peers}",
                    rate(status.download_rate),
                    rate(status.upload_rate)
                ),
            });
            if !member.is_seeder() {
                have += u64::from(status.pieces_have);
                total += u64::from(status.pieces_total);
            }
        }
        let now = percent(have, total) / 10;
        if !self.env.stderr().is_terminal() && now > *tenths && total > 0 {
            *tenths = now;
            // Nobody depends on these lines.
            let _ = self.env.stderr().line(format_args!("{}%", now * 10));
        }
    }

    fn clear(&self) {
        for (_, bar) in &self.members {
            bar.finish_and_clear();
        }
        // What cannot be cleared can only be seen.
        let _ = self.all.clear();
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(125);

/// Time that what still runs has to end before its files are removed.
const LAST_WORK: Duration = Duration::from_secs(5);
