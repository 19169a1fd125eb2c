//! `torrent-peer get`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use piecework_core::metainfo::{Metainfo, safe_name};
use piecework_core::printable;
use piecework_daemon::names_for;
use piecework_engine::tracker_client::look_up_peers;
use piecework_engine::{AddError, AddTorrent, TorrentStatus};
use piecework_proto::announce::{
    self, AnnouncePlan, CatalogueUrl, NamedTrackers, PeerName, TrackerUrl,
};
use piecework_storage::disk_names;
use piecework_swarm::{HeardAddress, PeerSource};

use super::super::exit_deadline::ExitDeadline;
use super::super::format::{
    Paint, RateLimit, count, counted, parse_duration, parse_rate, shown, size,
};
use super::super::torrent_file::Existing;
use super::super::{CliError, Env, Exit, PeerConfig, torrent_file};
use super::arguments::{listen_arg, positional};
use super::link::{self, Found, LinkContext};
use super::node::{EndReason, Node, NodeOptions, Role};
use super::query::{TorrentQuery, find_or_kept};
use super::share::{serve, torrent_path};
use super::tracker::{Tracker, catalogue_of};

/// Download a file or folder, verify it, then stay and seed it.
#[derive(Args)]
#[command(
    override_usage = "torrent-peer get [OPTIONS] NAME|INFO_HASH|LINK|F.torrent [TRACKER] [LISTEN]",
    after_help = "Example: torrent-peer get linux.iso 10.0.0.1:8000 --output isos --exit"
)]
pub struct GetArgs {
    /// What to get: a name in the tracker's catalogue, an info-hash, a magnet link, or a torrent
    /// file. Then TRACKER as IP:PORT or URL, then LISTEN as IP:PORT for peers.
    #[arg(value_name = "ARGS", num_args = 1..=3, required = true)]
    args: Vec<OsString>,
    /// The folder to download into.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A peer to connect to, in addition to those that the tracker knows. Separate several by
    /// commas, or repeat the option.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    peer: Vec<PeerName>,
    /// Give the file or folder this name instead of the torrent's.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// Replace files that have the names of its files but other content.
    #[arg(long)]
    overwrite: bool,
    /// Announce a private torrent to TRACKER too, although it does not name it.
    #[arg(long)]
    publish_private: bool,
    /// Address to accept peers on, the same as LISTEN.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// End as soon as the download is complete.
    #[arg(long, conflicts_with = "seed_for")]
    exit: bool,
    /// Seed for this time after the download is complete, then end. For instance 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    seed_for: Option<Duration>,
    /// Wait until somebody has it, without a time limit.
    #[arg(long)]
    wait: bool,
    /// Maximum bytes a second received, for instance 10MiB.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    download_limit: Option<RateLimit>,
    /// Maximum bytes a second sent.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Append every response to this file as a line of JSON.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// The target of a download, and its options.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    /// The folder that contains it.
    pub folder: PathBuf,
    /// Suffix of the names of unfinished files.
    pub incomplete_suffix: String,
    /// The name it gets instead of the torrent's.
    pub rename: Option<String>,
    /// Replace files that are not the torrent's.
    pub overwrite: bool,
    /// Announce a private torrent to the named tracker, although it is not one of its own.
    pub publish_private: bool,
    /// Further trackers of a magnet link. Private torrents are not announced to them.
    pub trackers: Vec<TrackerUrl>,
}

pub(super) async fn run(
    args: GetArgs,
    env: &mut Env,
    mut config: PeerConfig,
    exit_deadline: &ExitDeadline,
) -> Result<(), CliError> {
    let (wanted, tracker, listen) = positionals(&args, env, &config)?;
    config.download_limit = args.download_limit.unwrap_or(config.download_limit);
    config.upload_limit = args.upload_limit.unwrap_or(config.upload_limit);
    let mut peers = named_peers(&args.peer).await?;
    let linked = match &wanted {
        TorrentQuery::Link(link) => link::peers_of(link, |text| env.stderr().line(text)).await?,
        _ => Vec::new(),
    };
    let options = NodeOptions { listen, log: args.log };
    let found = {
        let (env, config, options, tracker) = (&*env, &config, &options, tracker.as_ref());
        let (wanted, peers, wait) = (&wanted, [&peers[..], &linked].concat(), args.wait);
        let context = LinkContext { env, config, options, wanted, tracker, peers, wait };
        match wanted {
            TorrentQuery::Link(link) => link::follow(link, context, exit_deadline).await?,
            _ => Found::without_peers(find_or_kept(env, config, wanted, tracker, wait).await?),
        }
    };
    let Found { metainfo, tracker, node, peers: known } = found;
    peers.extend(known);
    keep(env, &config, &metainfo)?;
    let role = Role::Get {
        nobody: (!args.wait).then_some(config.nobody_timeout),
        seed_for: if args.exit { Some(Duration::ZERO) } else { args.seed_for },
    };
    let mut target = Target::of(&config);
    target.folder = args.output.unwrap_or(target.folder);
    (target.rename, target.overwrite) = (args.rename, args.overwrite);
    // The tracker that provided the torrent already knows it.
    target.publish_private = args.publish_private || !matches!(wanted, TorrentQuery::File(_));
    if let TorrentQuery::Link(link) = wanted {
        link::say_what_is_unused(&link, |text| env.stderr().line(text))?;
        if !metainfo.info().is_private() {
            peers.extend(linked);
        }
        target.trackers = link.trackers;
    }
    let mut node = node.map_or_else(|| Node::start(env, &config, &options), Ok)?;
    let result = async {
        node.open_console(env)?;
        begin(&mut node, env, metainfo, tracker.as_ref(), &target, peers, role)?;
        serve(&mut node).await
    }
    .await;
    let unfinished = node.unfinished();
    let exit = node.leave(exit_deadline).await;
    let ended = result?;
    if exit != Exit::Fine {
        return Err(CliError::silent(exit));
    }
    match unfinished.first() {
        Some(status) if ended == EndReason::Asked => Err(ended_early(status)),
        _ => Ok(()),
    }
}

/// Returns the error of a download that ends before it is complete.
fn ended_early(status: &TorrentStatus) -> CliError {
    CliError::failed(format_args!(
        "ended before `{}` was complete: {} of {} are here, the same command continues with them",
        printable(&status.name),
        count(status.pieces_have.into()),
        counted(status.pieces_total.into(), "piece"),
    ))
}

/// Parses the positional arguments: what to get, the tracker to ask, and the address to listen on.
fn positionals(
    args: &GetArgs,
    env: &Env,
    config: &PeerConfig,
) -> Result<(TorrentQuery, Option<Tracker>, Option<SocketAddr>), CliError> {
    let mut rest = args.args.iter();
    let what = rest.next().ok_or_else(|| CliError::usage("say what to get; see --help"))?;
    let wanted = TorrentQuery::parse(env, what)?;
    let named = rest.next().map(|text| positional(text, "TRACKER")).transpose()?;
    let tracker = match (named, &wanted) {
        (Some(named), _) => Some(Tracker::named(named)?),
        (None, TorrentQuery::File(_)) => None,
        (None, _) => Some(Tracker::named(&config.tracker)?),
    };
    let listen = listen_arg(rest.next(), args.listen.as_deref())?;
    Ok((wanted, tracker, listen))
}

/// Returns the addresses of the peers that the command line names.
async fn named_peers(names: &[PeerName]) -> Result<Vec<HeardAddress>, CliError> {
    let known = look_up_peers(names).await.map_err(CliError::failed_by)?;
    let heard = |addr| HeardAddress { addr, source: PeerSource::User };
    Ok(known.into_iter().map(heard).collect())
}

/// Adds a torrent to download.
///
/// # Errors If the node refuses it.
pub(super) fn begin(
    node: &mut Node,
    env: &Env,
    metainfo: Metainfo,
    tracker: Option<&Tracker>,
    target: &Target,
    peers: Vec<HeardAddress>,
    role: Role,
) -> Result<(), CliError> {
    let info = metainfo.info();
    let more: &[TrackerUrl] = if info.is_private() { &[] } else { &target.trackers };
    let named = metainfo.trackers();
    let has_dht = node.has_dht() && !info.is_private();
    let leads_nowhere =
        tracker.is_none() && named.is_empty() && peers.is_empty() && more.is_empty();
    if leads_nowhere && !has_dht {
        return Err(CliError::failed(format_args!(
            "`{}` names no tracker: name one, or a peer with --peer",
            printable(info.name())
        )));
    }
    let name = printable(info.name()).into_owned();
    let screen = node.screen().clone();
    let text = getting_line(&metainfo, &target.folder, screen.paint());
    let root = env.path(&target.folder);
    let names = match &target.rename {
        Some(name) => renamed(&metainfo, name, node.raw_names())?,
        None => disk_names(&metainfo, &root, node.raw_names()),
    };
    let catalogue = match tracker {
        Some(tracker) => tracker.base.clone().map(CatalogueUrl::named),
        None => catalogue_of(&metainfo),
    };
    let mut add = AddTorrent::new(Arc::new(metainfo), root);
    add.incomplete_suffix.clone_from(&target.incomplete_suffix);
    (add.names, add.overwrite) = (names, target.overwrite);
    add.trackers = match tracker {
        Some(tracker) => Some(tiers(&add.metainfo, tracker, target.publish_private)?),
        None => None,
    };
    if !more.is_empty() {
        let own = || parsed(add.metainfo.trackers());
        let trackers = add.trackers.get_or_insert_with(own);
        for url in more {
            if !trackers.iter().flatten().any(|known| known == url) {
                trackers.push(vec![url.clone()]);
            }
        }
    }
    add.catalogue = catalogue;
    add.found = peers;
    let mut notices = announce::unusable(add.metainfo.trackers());
    notices.extend(add.metainfo.notices().map_err(CliError::failed_by)?);
    match node.add(add, role) {
        Ok(()) => {
            screen.line(text);
            notices.iter().for_each(|notice| screen.notice(notice));
            Ok(())
        }
        Err(AddError::Duplicate(_)) => {
            screen.notice(format_args!("`{name}` is here already: see `status`"));
            Ok(())
        }
        Err(error) => Err(CliError::failed(error)),
    }
}

fn getting_line(metainfo: &Metainfo, folder: &Path, paint: Paint) -> String {
    let info = metainfo.info();
    format!(
        "getting {}: {}, {} of {}, into `{}`\ninfo-hash {}",
        paint.bold(printable(info.name())),
        size(info.geometry().total_len()),
        counted(info.geometry().pieces().into(), "piece"),
        size(info.geometry().piece_len().into()),
        shown(folder),
        metainfo.info_hash(),
    )
}

/// Returns names on disk. The first part of each path is `name`, unmodified. The other parts come
/// from the torrent.
fn renamed(
    metainfo: &Metainfo,
    name: &str,
    raw: bool,
) -> Result<BTreeMap<usize, Vec<String>>, CliError> {
    let mut names = names_for(metainfo, name).map_err(CliError::usage_by)?;
    let inner = names.values_mut().flat_map(|path| path.iter_mut().skip(1));
    for part in inner.filter(|_| !raw) {
        *part = safe_name(part).into_owned();
    }
    Ok(names)
}

/// Keeps the torrent in the torrents folder, unless it is already there, so that the same command
/// can continue when no tracker provides it any more. If the folder cannot be written to, prints a
/// notice.
///
/// # Errors If stderr cannot be written.
pub(super) fn keep(env: &Env, config: &PeerConfig, metainfo: &Metainfo) -> Result<(), CliError> {
    let path = torrent_path(env, config, metainfo);
    let full = env.path(&path);
    let is_kept = torrent_file::read(&full, &path)
        .is_ok_and(|there| there.info_hash() == metainfo.info_hash());
    if is_kept {
        return Ok(());
    }
    if full.symlink_metadata().is_ok() {
        let note = format_args!("`{}` is not a torrent file, so it is not changed", shown(&path));
        return Ok(env.stderr().line(note)?);
    }
    if let Err(error) = torrent_file::write(&full, &path, metainfo, Existing::Keep) {
        env.stderr().line(format_args!("the torrent is not kept: {error}"))?;
    }
    Ok(())
}

/// Returns the trackers to announce a torrent to: its own and the named one.
fn tiers(
    metainfo: &Metainfo,
    tracker: &Tracker,
    publish_private: bool,
) -> Result<Vec<Vec<TrackerUrl>>, CliError> {
    let info = metainfo.info();
    let named = NamedTrackers { tiers: &tracker.tiers, explicit: true, publish_private };
    let plan = AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named);
    let plan = plan.map_err(|error| {
        CliError::usage(format_args!("{error}; name no tracker, or give --publish-private"))
            .because(error)
    })?;
    let known = |tier: &Vec<String>| {
        let urls = tier.iter().filter_map(|url| url.parse().ok());
        urls.map(|url: TrackerUrl| url.named_among(tracker.tiers.iter().flatten())).collect()
    };
    Ok(plan.tiers.iter().map(known).collect())
}

/// Returns the trackers of a `.torrent` whose addresses are valid.
fn parsed(tiers: &[Vec<String>]) -> Vec<Vec<TrackerUrl>> {
    tiers.iter().map(|tier| tier.iter().filter_map(|url| url.parse().ok()).collect()).collect()
}

impl Target {
    /// Returns the configured target of downloads.
    pub(super) fn of(config: &PeerConfig) -> Self {
        Self {
            folder: config.downloads.clone(),
            incomplete_suffix: config.incomplete_suffix.clone(),
            ..Self::default()
        }
    }
}
