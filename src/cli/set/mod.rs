//! `torrent-set`: changes torrents, and the daemon's settings.

mod daemon;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use piecework_api::{
    MoveRequest, QueueMove, RenameRequest, SeedLimit, Torrent, TorrentChange, parse_file_ranges,
};
use piecework_core::{Priority, printable};
use piecework_proto::announce::{PeerName, TrackerTarget};

use super::format::{RateLimit, parse_duration, parse_rate};
use super::pick::pick_all;
use super::remote::{Remote, RemoteArgs, Tool, absolute};
use super::{CliError, Env, Exit, remote};

/// Change torrents: pause, resume, limit, choose files, move, rename; or the daemon's settings.
#[derive(Parser)]
#[command(
    name = "torrent-set",
    version,
    after_help = "Examples:\n  torrent-set linux.iso --pause\n  \
                  torrent-set linux.iso --priority high:2 --download-limit 1MiB\n  \
                  torrent-set --daemon upload_limit=10MiB --daemon seed_ratio=2\n  \
                  torrent-set --daemon"
)]
struct SetArgs {
    /// Torrents: names, info-hashes, or at least the first four digits of info-hashes.
    #[arg(value_name = "NAME|HASH", required_unless_present_any = ["all", "daemon"])]
    torrents: Vec<String>,
    /// All torrents.
    #[arg(long, conflicts_with = "torrents")]
    all: bool,
    /// Settings of the daemon as KEY=VALUE, `none` for no value. Without a value, show all
    /// settings.
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..=1, conflicts_with_all = ["torrents", "all"])]
    daemon: Option<Vec<String>>,
    #[command(flatten)]
    actions: TorrentActions,
    #[command(flatten)]
    options: TorrentOptions,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Actions on torrents.
#[derive(clap::Args, Default)]
struct TorrentActions {
    /// Stop all transfer.
    #[arg(long, conflicts_with_all = ["resume", "now", "overwrite"])]
    pause: bool,
    /// Resume when it is its turn in the queue.
    #[arg(long)]
    resume: bool,
    /// Resume at once, ignoring the queue.
    #[arg(long)]
    now: bool,
    /// Hash the data on disk again.
    #[arg(long)]
    recheck: bool,
    /// Replace files that have the names of its files but other content, and start it.
    #[arg(long)]
    overwrite: bool,
    /// Ask trackers for peers now, as far as they allow.
    #[arg(long)]
    reannounce: bool,
    /// New position in the queue.
    #[arg(long, value_name = "top|up|down|bottom|N", value_parser = parse_queue)]
    queue: Option<QueueTarget>,
    /// Move the data to this folder, on the daemon's machine.
    #[arg(long = "move", value_name = "DIR")]
    to: Option<PathBuf>,
    /// The data is already in this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    find: Option<PathBuf>,
    /// Rename the torrent, or a file or folder in it: its path as torrent-status --files shows it.
    #[arg(long, num_args = 2, value_names = ["PATH", "NAME"])]
    rename: Vec<String>,
    /// A peer to connect to. Separate several by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    peer: Vec<PeerName>,
}

/// Settings of torrents.
#[derive(clap::Args, Default)]
#[command(next_help_heading = "Settings of torrents")]
struct TorrentOptions {
    /// Only these files, by number from 1, for instance 1,3-5, or `all`.
    #[arg(long, value_name = "N,N-N")]
    files: Option<String>,
    /// Priority of files: skip, low, normal or high, and their numbers.
    #[arg(long, value_name = "P:N,N-N")]
    priority: Vec<String>,
    /// Maximum bytes a second received, or `none`.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    download_limit: Option<RateLimit>,
    /// Maximum bytes a second sent, or `none`.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Whether the daemon's limits apply to it too.
    #[arg(long, value_name = "BOOL")]
    daemon_limits: Option<bool>,
    /// Maximum connections; 0 uses the daemon's setting.
    #[arg(long, value_name = "N")]
    max_peers: Option<u32>,
    /// Its priority when bandwidth is short.
    #[arg(long, value_name = "low|normal|high")]
    bandwidth: Option<Bandwidth>,
    /// Download the pieces in order.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    sequential: Option<bool>,
    /// Stop seeding at this ratio, `never`, or by the setting of the `daemon`.
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    seed_ratio: Option<SeedLimit<f64>>,
    /// Stop seeding after this time, `never`, or by the setting of the `daemon`.
    #[arg(long, value_name = "TIME", value_parser = parse_seed_time)]
    seed_time: Option<SeedLimit<u64>>,
    /// Stop seeding after this time without a byte sent.
    #[arg(long, value_name = "TIME", value_parser = parse_seed_time)]
    seed_idle: Option<SeedLimit<u64>>,
    /// Labels to show in lists, replacing the former ones; `none` for no label.
    #[arg(long, value_name = "L", value_delimiter = ',')]
    label: Vec<String>,
    /// Its new trackers, as URL or IP:PORT, tried in order.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    trackers: Vec<String>,
}

/// New position in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueTarget {
    By(QueueMove),
    /// To this position; the first is 0.
    To(u32),
}

/// A priority when bandwidth is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bandwidth {
    Low,
    Normal,
    High,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: SetArgs, env, remote| {
        let idle = args.actions.are_none() && args.options.change(0)? == TorrentChange::default();
        match &args.daemon {
            Some(_) if !idle => Err(CliError::usage(
                "--daemon takes KEY=VALUE only: see torrent-set --daemon for the keys",
            )),
            Some(changes) if changes.is_empty() => daemon::show(env, remote).await,
            Some(changes) => daemon::change(env, remote, changes).await,
            None if idle && args.options.priority.is_empty() => {
                Err(CliError::usage("say what to change, for instance --pause; see --help"))
            }
            None => change(&args, env, remote).await,
        }
    })
}

/// Parses the ratio at which to stop seeding: `2.5`, `never`, `daemon`.
///
/// # Errors Returns a sentence that says which values are accepted.
pub fn parse_ratio(text: &str) -> Result<SeedLimit<f64>, String> {
    seed_limit(text, |text| {
        let ratio = text.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0);
        ratio.ok_or_else(|| {
            format!("`{}` is not a ratio: write for instance 2 or 1.5, or never", printable(text))
        })
    })
}

/// Parses how long to seed: `2h`, `never`, `daemon`.
///
/// # Errors Returns a sentence that says which values are accepted.
pub fn parse_seed_time(text: &str) -> Result<SeedLimit<u64>, String> {
    seed_limit(text, |text| parse_duration(text).map(|span| span.as_secs()))
}

impl Tool for SetArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

impl TorrentActions {
    fn are_none(&self) -> bool {
        let flags =
            [self.pause, self.resume, self.now, self.recheck, self.overwrite, self.reannounce];
        !flags.contains(&true)
            && self.queue.is_none()
            && self.to.is_none()
            && self.find.is_none()
            && self.rename.is_empty()
            && self.peer.is_empty()
    }
}

impl TorrentOptions {
    /// Returns the change for a torrent of `files` files.
    fn change(&self, files: u32) -> Result<TorrentChange, CliError> {
        let mut change = TorrentChange {
            upload_limit: self.upload_limit.map(|limit| limit.0.unwrap_or(0)),
            download_limit: self.download_limit.map(|limit| limit.0.unwrap_or(0)),
            session_limits: self.daemon_limits,
            max_peers: self.max_peers,
            bandwidth: self.bandwidth.map(|bandwidth| match bandwidth {
                Bandwidth::Low => Priority::Low,
                Bandwidth::Normal => Priority::Normal,
                Bandwidth::High => Priority::High,
            }),
            sequential: self.sequential,
            only_files: self.files.clone(),
            seed_ratio: self.seed_ratio,
            seed_time: self.seed_time,
            seed_idle: self.seed_idle,
            ..TorrentChange::default()
        };
        if !self.label.is_empty() {
            let labels = self.label.iter().filter(|label| *label != "none");
            change.labels = Some(labels.cloned().collect());
        }
        if !self.trackers.is_empty() {
            let mut tiers = Vec::new();
            for tracker in &self.trackers {
                let target = TrackerTarget::parse(tracker).map_err(CliError::usage_by)?;
                tiers.extend(target.tiers.iter().map(|tier| {
                    tier.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>()
                }));
            }
            change.trackers = Some(tiers);
        }
        // If the number of files is not known, priorities cannot be checked.
        for text in self.priority.iter().filter(|_| files > 0) {
            change.files.extend(parse_priority(text, files).map_err(CliError::usage)?);
        }
        Ok(change)
    }
}

async fn change(args: &SetArgs, env: &Env, remote: &Remote) -> Result<(), CliError> {
    let torrents = remote.torrents().await?;
    let meant = pick_all(&torrents, &args.torrents, args.all)?;
    if !args.actions.rename.is_empty() && meant.len() != 1 {
        return Err(CliError::usage("--rename is for one torrent"));
    }
    for torrent in &meant {
        // Check all torrents before anything is changed. If the change is not valid for one, none
        // is changed.
        args.options.change(torrent.files)?;
    }
    let fault = |error| remote.fault(&error);
    for torrent in &meant {
        act(&args.actions, env, remote, torrent).await?;
        let mut change = args.options.change(torrent.files)?;
        if let Some(QueueTarget::To(place)) = args.actions.queue {
            change.queue_position = Some(place);
        }
        if change != TorrentChange::default() {
            remote.client().change(torrent.info_hash, &change).await.map_err(fault)?;
        }
    }
    let after = remote.torrents().await?;
    let changed: Vec<&Torrent> = after
        .iter()
        .filter(|after| meant.iter().any(|before| before.info_hash == after.info_hash))
        .collect();
    remote.answer(env, &changed, || {
        let lines = changed.iter().map(|torrent| super::status::line(torrent));
        lines.collect::<Vec<_>>().join("\n")
    })
}

async fn act(
    actions: &TorrentActions,
    env: &Env,
    remote: &Remote,
    torrent: &Torrent,
) -> Result<(), CliError> {
    let client = remote.client();
    let info_hash = torrent.info_hash;
    let fault = |error| remote.fault(&error);
    if let [path, name] = &actions.rename[..] {
        let request = RenameRequest { path: path.clone(), name: name.clone() };
        client.rename(info_hash, &request).await.map_err(fault)?;
    }
    if let Some(folder) = actions.to.as_ref().or(actions.find.as_ref()) {
        let request = MoveRequest { folder: absolute(env, folder), find: actions.find.is_some() };
        client.move_data(info_hash, &request).await.map_err(fault)?;
    }
    if !actions.peer.is_empty() {
        client.add_peers(info_hash, &actions.peer).await.map_err(fault)?;
    }
    if let Some(QueueTarget::By(to)) = actions.queue {
        client.queue(&[info_hash], to).await.map_err(fault)?;
    }
    if actions.pause {
        client.pause(info_hash).await.map_err(fault)?;
    }
    if actions.recheck {
        client.recheck(info_hash).await.map_err(fault)?;
    }
    if actions.overwrite {
        client.overwrite(info_hash).await.map_err(fault)?;
    }
    if actions.resume || actions.now {
        client.start(info_hash, actions.now).await.map_err(fault)?;
    }
    if actions.reannounce {
        client.reannounce(info_hash).await.map_err(fault)?;
    }
    Ok(())
}

fn parse_queue(text: &str) -> Result<QueueTarget, String> {
    Ok(match text {
        "top" => QueueTarget::By(QueueMove::Top),
        "up" => QueueTarget::By(QueueMove::Up),
        "down" => QueueTarget::By(QueueMove::Down),
        "bottom" => QueueTarget::By(QueueMove::Bottom),
        place => {
            // People count from 1.
            let place: Option<u32> = place.parse().ok().and_then(|place: u32| place.checked_sub(1));
            QueueTarget::To(place.ok_or_else(|| {
                format!(
                    "`{}` is not a position: write top, up, down, bottom or a number from 1",
                    printable(text)
                )
            })?)
        }
    })
}

/// Parses `high:2,4-5` for a torrent of `files` files.
fn parse_priority(text: &str, files: u32) -> Result<Vec<(u32, Priority)>, String> {
    let wrong = || {
        format!(
            "`{}` is not a priority of files: write for instance high:2 or skip:1,3-5",
            printable(text)
        )
    };
    let (priority, which) = text.split_once(':').ok_or_else(wrong)?;
    let priority = match priority {
        "skip" => Priority::Skip,
        "low" => Priority::Low,
        "normal" => Priority::Normal,
        "high" => Priority::High,
        _ => return Err(wrong()),
    };
    let which = parse_file_ranges(which, files).map_err(|error| error.to_string())?;
    Ok(which.into_iter().map(|file| (file, priority)).collect())
}

fn seed_limit<T>(
    text: &str,
    at: impl FnOnce(&str) -> Result<T, String>,
) -> Result<SeedLimit<T>, String> {
    match text {
        "daemon" => Ok(SeedLimit::Session),
        "never" => Ok(SeedLimit::Never),
        text => at(text).map(SeedLimit::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeding_ends_at_a_number_never_or_when_the_daemon_says() {
        assert_eq!(parse_ratio("1.5"), Ok(SeedLimit::At(1.5)));
        assert_eq!(parse_ratio("never"), Ok(SeedLimit::Never));
        assert_eq!(parse_seed_time("daemon"), Ok(SeedLimit::Session));
        assert_eq!(parse_seed_time("2h"), Ok(SeedLimit::At(7200)));
        for bad in ["-1", "NaN", "inf", "much", ""] {
            assert!(parse_ratio(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_in_the_queue_are_counted_from_one() {
        assert_eq!(parse_queue("top"), Ok(QueueTarget::By(QueueMove::Top)));
        assert_eq!(parse_queue("1"), Ok(QueueTarget::To(0)));
        assert!(parse_queue("0").is_err() && parse_queue("first").is_err());
    }

    #[test]
    fn priorities_name_files_that_are_there() {
        let high = Priority::High;
        assert_eq!(parse_priority("high:1,3-4", 4), Ok(vec![(0, high), (2, high), (3, high)]));
        for bad in ["high", "urgent:1", "high:5", "high:0", "high:"] {
            assert!(parse_priority(bad, 4).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_changed() {
        assert_eq!(TorrentOptions::default().change(3).unwrap(), TorrentChange::default());
        let options = TorrentOptions {
            label: vec!["none".to_owned()],
            download_limit: Some(RateLimit(None)),
            trackers: vec!["10.0.0.1:8000".to_owned()],
            ..TorrentOptions::default()
        };
        let change = options.change(3).unwrap();
        assert_eq!(change.labels, Some(Vec::new()));
        assert_eq!(change.download_limit, Some(0), "0 is no limit");
        assert!(change.trackers.unwrap()[0][0].contains("10.0.0.1:8000/announce"));
        assert_eq!(change.upload_limit, None);
    }

    #[test]
    fn the_command_line_says_which_torrents_or_the_daemon() {
        let parse = |args: &[&str]| {
            SetArgs::try_parse_from(std::iter::once("torrent-set").chain(args.iter().copied()))
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["x", "--all"]).is_err());
        assert!(parse(&["x", "--daemon", "a=b"]).is_err());
        assert!(parse(&["x", "--pause", "--resume"]).is_err());
        assert!(parse(&["x", "--rename", "a"]).is_err());
        assert_eq!(parse(&["--daemon"]).unwrap().daemon, Some(Vec::new()));
        let several = parse(&["--daemon", "a=1", "--daemon", "b=2"]).unwrap().daemon.unwrap();
        assert_eq!(several, ["a=1", "b=2"]);
        let args = parse(&["x", "y", "--sequential", "--queue", "2"]).unwrap();
        assert_eq!(
            (args.options.sequential, args.actions.queue),
            (Some(true), Some(QueueTarget::To(1)))
        );
    }
}
