//! `torrent-leech`: tells the daemon to download something.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser};

use piecework_api::{Added, LeechRequest, SeedLimit, Source};
use piecework_core::printable;
use piecework_proto::announce::{Magnet, PeerName, TrackerTarget};

use super::format::{RateLimit, parse_rate, shown};
use super::remote::{Remote, RemoteArgs, Tool, absolute};
use super::set::{parse_ratio, parse_seed_time};
use super::signals::Signals;
use super::{CliError, Env, Exit, follow, remote, torrent_file};

/// Tell the daemon to download something in the background.
#[derive(Parser)]
#[command(
    name = "torrent-leech",
    version,
    after_help = "Examples:\n  torrent-leech --torrent linux.iso.torrent --wait\n  \
                  torrent-leech --torrent linux.iso --output isos --files 1,3-5"
)]
struct LeechArgs {
    /// A torrent file, its http:// address, a magnet link, or a name or info-hash in the tracker's catalogue.
    #[arg(long, short, value_name = "F.torrent|NAME|HASH|LINK", value_parser = NonEmptyStringValueParser::new())]
    torrent: String,
    /// The tracker whose catalogue is asked, instead of the daemon's: IP:PORT or URL.
    #[arg(long, value_name = "TRACKER")]
    tracker: Option<String>,
    #[command(flatten)]
    options: LeechOptions,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Options of a download.
#[derive(Args, Debug, Default)]
pub struct LeechOptions {
    /// The folder to download into, on the daemon's machine. Its downloads folder by default.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Wait until the download is complete. Ctrl-C ends only the waiting.
    #[arg(long, conflicts_with = "paused")]
    wait: bool,
    /// Only these files, by number from 1, for instance 1,3-5.
    #[arg(long, value_name = "N,N-N")]
    files: Option<String>,
    /// Download the pieces in order.
    #[arg(long)]
    sequential: bool,
    /// Add it without starting it.
    #[arg(long)]
    paused: bool,
    /// Give its file or folder this name instead of the torrent's.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// Replace files that have the names of its files but other content.
    #[arg(long)]
    overwrite: bool,
    /// Maximum bytes a second received, for instance 10MiB.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    download_limit: Option<RateLimit>,
    /// Maximum bytes a second sent.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Stop seeding at this ratio of sent to received bytes, or `never`.
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    seed_ratio: Option<SeedLimit<f64>>,
    /// Stop seeding after this time, for instance 2h, or `never`.
    #[arg(long, value_name = "TIME", value_parser = parse_seed_time)]
    seed_time: Option<SeedLimit<u64>>,
    /// Label to show in lists. Separate several by commas, or repeat the option.
    #[arg(long, value_name = "L", value_delimiter = ',')]
    label: Vec<String>,
    /// A peer to connect to, in addition to those that trackers know. Separate several by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    peer: Vec<PeerName>,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: LeechArgs, env, remote| {
        let source = source(env, &args.torrent, args.tracker)?;
        leech(env, remote, source, &args.options).await
    })
}

/// Tells the daemon to download `source`, and waits for it if `options` say so.
///
/// # Errors If the daemon refuses, or if the download fails while we wait.
pub async fn leech(
    env: &Env,
    remote: &Remote,
    source: Source,
    options: &LeechOptions,
) -> Result<(), CliError> {
    let request = LeechRequest {
        source,
        output: options.output.as_deref().map(|path| absolute(env, path)),
        paused: options.paused.then_some(true),
        only_files: options.files.clone(),
        sequential: options.sequential.then_some(true),
        upload_limit: options.upload_limit.and_then(|limit| limit.0),
        download_limit: options.download_limit.and_then(|limit| limit.0),
        seed_ratio: options.seed_ratio.unwrap_or_default(),
        seed_time: options.seed_time.unwrap_or_default(),
        labels: options.label.clone(),
        rename: options.rename.clone(),
        overwrite: options.overwrite,
        peers: options.peer.iter().map(ToString::to_string).collect(),
        ..LeechRequest::default()
    };
    // From here on, because the user may press Ctrl-C as soon as the answer is shown.
    let interrupt = if options.wait { Some(Signals::interrupt()?) } else { None };
    let added = remote.client().leech(&request).await.map_err(|error| remote.fault(&error))?;
    remote.warn(env, &added.warnings)?;
    let standing = match added.duplicate && !remote.json() {
        true => Some(follow::standing(remote, &added).await?),
        false => None,
    };
    // The daemon may add torrents without starting them (`start_added`).
    let paused = options.paused
        || (standing.is_none() && !remote.json() && follow::is_paused(remote, &added).await?);
    remote.answer(env, &added, || describe(env, &added, paused, standing.as_deref()))?;
    match interrupt {
        Some(interrupt) => follow::wait(env, remote, &added, interrupt).await,
        None => Ok(()),
    }
}

impl LeechOptions {
    /// Creates options with a folder to download into, and whether to wait.
    pub fn new(output: Option<PathBuf>, wait: bool) -> Self {
        Self { output, wait, ..Self::default() }
    }
}

impl Tool for LeechArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

/// Describes the result. `standing` describes the torrent if it was there before.
fn describe(env: &Env, added: &Added, paused: bool, standing: Option<&str>) -> String {
    let name = env.stdout().paint().bold(printable(&added.name));
    let what = match (standing, paused) {
        (Some(standing), _) => format!("is here already: {name}, {standing}"),
        (None, true) => format!("added, paused: {name}; torrent-set --resume starts it"),
        (None, false) => format!("downloading {name}"),
    };
    format!("{what}\ninfo-hash {}", added.info_hash)
}

/// Returns the source that `text` names.
fn source(env: &Env, text: &str, tracker: Option<String>) -> Result<Source, CliError> {
    let path = std::path::Path::new(text);
    if Magnet::is_meant(text) {
        Magnet::parse(text).map_err(CliError::failed_by)?;
        check_tracker(tracker.as_deref())?;
        return Ok(Source::Catalogue { name: text.to_owned(), tracker });
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Source::Url(text.to_owned()));
    }
    // A bare name may be a name in the catalogue, unless it ends in `.torrent`.
    let is_path =
        path.components().count() > 1 || path.extension().is_some_and(|end| end == "torrent");
    if is_path && env.path(path).is_file() {
        return Ok(Source::Torrent(torrent_file::read_encoded(&env.path(path), path)?));
    }
    if is_path {
        let shown = shown(path);
        return Err(CliError::failed(format_args!("there is no torrent file `{shown}`")));
    }
    check_tracker(tracker.as_deref())?;
    Ok(Source::Catalogue { name: text.to_owned(), tracker })
}

fn check_tracker(tracker: Option<&str>) -> Result<(), CliError> {
    tracker.map_or(Ok(()), |tracker| {
        TrackerTarget::parse(tracker).map(drop).map_err(CliError::usage_by)
    })
}
