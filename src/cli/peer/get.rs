//! `torrent-peer get`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use piecework_core::metainfo::{Metainfo, ParseLimits, safe_name};
use piecework_core::{InfoHash, Table, printable};
use piecework_daemon::names_for;
use piecework_engine::tracker_client::{fetch, look_up_known_peers, look_up_peers};
use piecework_engine::{AddError, AddTorrent};
use piecework_proto::announce::catalogue::{CatalogueEntry, MAX_TORRENT_LEN};
use piecework_proto::announce::{
    self, AnnouncePlan, CatalogueUrl, Magnet, NamedTrackers, PeerName, Provenance, TrackerUrl,
};
use piecework_storage::disk_names;

use super::super::ending::LastMoment;
use super::super::format::{
    Paint, RateLimit, count, counted, parse_duration, parse_rate, shown, size, table_text,
};
use super::super::pick::{first_digits, meant_by};
use super::super::torrent_file::Existing;
use super::super::{CliError, Env, Exit, PeerConfig, torrent_file};
use super::arguments::{listen_arg, positional};
use super::node::{Ended, Node, NodeOptions, Role};
use super::share::{serve, torrent_path};
use super::tracker::{LookupError, Tracker, catalogue_of};

/// Download a file or folder, verify it, then stay and seed it.
#[derive(Args)]
#[command(
    override_usage = "torrent-peer get [OPTIONS] NAME|INFO_HASH|LINK|F.torrent [TRACKER] [LISTEN]",
    after_help = "Example: torrent-peer get linux.iso 10.0.0.1:8000 --output isos --exit"
)]
pub struct GetArgs {
    /// What to get: a name in the tracker's catalogue, an info-hash, a magnet link, or a torrent file; then
    /// TRACKER as IP:PORT or URL, then LISTEN as IP:PORT for peers.
    #[arg(value_name = "ARGS", num_args = 1..=3, required = true)]
    args: Vec<OsString>,
    /// The folder to download into.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A peer to connect to, beside those the tracker knows; several by commas or by
    /// giving the option again.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    peer: Vec<PeerName>,
    /// Give the file or folder this name in place of the torrent's.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    /// Replace files that have the names of its files and are not its own.
    #[arg(long)]
    overwrite: bool,
    /// Announce a private torrent to TRACKER too, although it does not name it.
    #[arg(long)]
    publish_private: bool,
    /// Address to accept peers on; the same as LISTEN.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// End as soon as everything is here.
    #[arg(long, conflicts_with = "seed_for")]
    exit: bool,
    /// Seed for this long once everything is here, then end: for instance 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    seed_for: Option<Duration>,
    /// Wait for as long as it takes until somebody has it.
    #[arg(long)]
    wait: bool,
    /// Bytes a second taken at most, for instance 10MiB.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    download_limit: Option<RateLimit>,
    /// Bytes a second sent at most.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Write every response as a JSON line to this file.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A torrent file.
    File(PathBuf),
    /// An info-hash in the tracker's catalogue.
    Hash(InfoHash),
    /// A magnet link: an info-hash, and trackers whose catalogue may have it.
    Link(Box<Magnet>),
    /// A name in the tracker's catalogue.
    Name(String),
}

/// Where a download goes, and what it may do there.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The folder its name lies in.
    pub folder: PathBuf,
    /// What the names of unfinished files end with.
    pub incomplete_suffix: String,
    /// The name it gets in place of the torrent's.
    pub rename: Option<String>,
    /// Replace files that are not the torrent's.
    pub overwrite: bool,
    /// Announce a private torrent to the tracker that is named, although it is not one of its own.
    pub publish_private: bool,
    /// Trackers besides, of a magnet link. Private torrents are not announced to them.
    pub trackers: Vec<TrackerUrl>,
}

/// Runs the command.
pub async fn run(
    args: GetArgs,
    env: &mut Env,
    mut config: PeerConfig,
    last_moment: &LastMoment,
) -> Result<(), CliError> {
    let mut rest = args.args.iter();
    let what = rest.next().ok_or_else(|| CliError::usage("what is to be got? See --help"))?;
    let wanted = Wanted::parse(env, what)?;
    let named = rest.next().map(|text| positional(text, "TRACKER")).transpose()?;
    let tracker = match (named, &wanted) {
        (Some(named), _) => Some(Tracker::named(named)?),
        (None, Wanted::File(_)) => None,
        (None, _) => Some(Tracker::named(&config.tracker)?),
    };
    let listen = listen_arg(rest.next(), args.listen.as_deref())?;
    if let Some(limit) = args.download_limit {
        config.download_limit = limit;
    }
    if let Some(limit) = args.upload_limit {
        config.upload_limit = limit;
    }
    let (metainfo, tracker) =
        find_or_kept(env, &config, &wanted, tracker.as_ref(), args.wait).await?;
    keep(env, &config, &metainfo)?;
    let mut target = Target::of(&config);
    target.folder = args.output.unwrap_or(target.folder);
    (target.rename, target.overwrite) = (args.rename, args.overwrite);
    // The tracker that handed the torrent out knows of it.
    target.publish_private = args.publish_private || !matches!(wanted, Wanted::File(_));
    let mut peers = look_up_peers(&args.peer).await.map_err(CliError::failed)?;
    if let Wanted::Link(link) = wanted {
        for notice in &link.unused {
            env.stderr().line(notice)?;
        }
        target.trackers = link.trackers;
        if !metainfo.info().is_private() {
            let (known, unknown) = look_up_known_peers(&link.peers).await;
            peers.extend(known);
            for error in unknown {
                env.stderr().line(error)?;
            }
        }
    }
    let mut node = Node::start(env, &config, &NodeOptions { listen, log: args.log })?;
    let role = Role::Get {
        nobody: (!args.wait).then_some(config.nobody_timeout),
        seed_for: if args.exit { Some(Duration::ZERO) } else { args.seed_for },
    };
    let result = async {
        node.open_console(env)?;
        begin(&mut node, env, metainfo, tracker.as_ref(), &target, peers, role)?;
        serve(&mut node).await
    }
    .await;
    let unfinished = node.unfinished();
    let exit = node.leave(last_moment).await;
    let ended = result?;
    if exit != Exit::Fine {
        return Err(CliError::silent(exit));
    }
    match unfinished.first() {
        Some(status) if ended == Ended::Asked => Err(CliError::failed(format_args!(
            "left before `{}` was whole: {} of {} are here, the same command goes on with them",
            printable(&status.name),
            count(status.pieces_have.into()),
            counted(status.pieces_total.into(), "piece"),
        ))),
        _ => Ok(()),
    }
}

/// Adds a torrent that is to be got.
///
/// # Errors
/// If the node cannot take it.
pub fn begin(
    node: &mut Node,
    env: &Env,
    metainfo: Metainfo,
    tracker: Option<&Tracker>,
    target: &Target,
    peers: Vec<SocketAddr>,
    role: Role,
) -> Result<(), CliError> {
    let info = metainfo.info();
    let more: &[TrackerUrl] = if info.is_private() { &[] } else { &target.trackers };
    let named = metainfo.trackers();
    if tracker.is_none() && named.is_empty() && peers.is_empty() && more.is_empty() {
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
    add.peers = peers;
    let mut notices = announce::unusable(add.metainfo.trackers());
    notices.extend(add.metainfo.notices().map_err(CliError::failed)?);
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

/// Names on disk, the first of each path being `name`, which was asked for and stays; those behind it are
/// the torrent's.
fn renamed(
    metainfo: &Metainfo,
    name: &str,
    raw: bool,
) -> Result<BTreeMap<usize, Vec<String>>, CliError> {
    let mut names = names_for(metainfo, name).map_err(CliError::usage)?;
    let inner = names.values_mut().flat_map(|path| path.iter_mut().skip(1));
    for part in inner.filter(|_| !raw) {
        *part = safe_name(part).into_owned();
    }
    Ok(names)
}

/// Keeps the torrent in the torrents folder, unless it is there, so that the same command goes on
/// when no tracker gives it any more. A folder that cannot be written to is told of only.
///
/// # Errors
/// If nothing can be told.
pub fn keep(env: &Env, config: &PeerConfig, metainfo: &Metainfo) -> Result<(), CliError> {
    let path = torrent_path(env, config, metainfo);
    let full = env.path(&path);
    let is_kept = torrent_file::read(&full, &path)
        .is_ok_and(|there| there.info_hash() == metainfo.info_hash());
    if is_kept {
        return Ok(());
    }
    if full.symlink_metadata().is_ok() {
        let note = format_args!("`{}` is no torrent file, so it is left alone", shown(&path));
        return Ok(env.stderr().line(note)?);
    }
    if let Err(error) = torrent_file::write(&full, &path, metainfo, Existing::Keep) {
        env.stderr().line(format_args!("the torrent is not kept: {error}"))?;
    }
    Ok(())
}

/// The torrent that was asked for, of the tracker; or the kept one if the tracker does not give it.
async fn find_or_kept(
    env: &Env,
    config: &PeerConfig,
    wanted: &Wanted,
    tracker: Option<&Tracker>,
    wait: bool,
) -> Result<(Metainfo, Option<Tracker>), CliError> {
    let mut kept = kept(env, config, wanted);
    let error = match find(env, wanted, tracker, wait && kept.is_empty()).await {
        Ok(found) => return Ok(found),
        Err(LookupError::NotYet(error)) => error,
        // It has no catalogue.
        Err(LookupError::Failed(error)) if tracker.is_some_and(|t| t.base.is_none()) => error,
        Err(LookupError::Failed(error)) => return Err(error),
    };
    let Some((path, metainfo)) = kept.pop() else { return Err(error) };
    if !kept.is_empty() {
        let others = kept.iter().map(|(path, other)| (path, other.info_hash()));
        let all = others.chain([(&path, metainfo.info_hash())]);
        let list: Vec<String> =
            all.map(|(path, hash)| format!("`{}` ({hash})", shown(path))).collect();
        return Err(CliError::failed(format_args!(
            "{error}; several torrents of that name are kept: ask for one by its info-hash: {}",
            list.join(", ")
        )));
    }
    env.stderr().line(format_args!("{error}; going on with `{}`", shown(&path)))?;
    Ok((metainfo, tracker.cloned()))
}

/// The torrents in the torrents folder that may be meant, with their paths.
fn kept(env: &Env, config: &PeerConfig, wanted: &Wanted) -> Vec<(PathBuf, Metainfo)> {
    let Ok(entries) = std::fs::read_dir(env.path(&config.torrents)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten().take(MOST_KEPT) {
        let path = config.torrents.join(entry.file_name());
        let file = entry.file_name();
        let is_likely = match wanted {
            Wanted::File(_) => false,
            Wanted::Hash(_) | Wanted::Link(_) => {
                path.extension().is_some_and(|end| end == "torrent")
            }
            Wanted::Name(name) if first_digits(name).is_some() => {
                path.extension().is_some_and(|end| end == "torrent")
            }
            Wanted::Name(name) => file
                .to_str()
                .is_some_and(|file| file.starts_with(name.as_str()) && file.ends_with(".torrent")),
        };
        if !is_likely {
            continue;
        }
        let Ok(metainfo) = torrent_file::read(&env.path(&path), &path) else { continue };
        let is_meant = match wanted {
            Wanted::File(_) => false,
            Wanted::Hash(hash) => metainfo.info_hash() == *hash,
            Wanted::Link(link) => metainfo.info_hash() == link.info_hash,
            Wanted::Name(name) => {
                let digits = first_digits(name);
                let begins = |digits: String| metainfo.info_hash().to_string().starts_with(&digits);
                metainfo.info().name() == name || digits.is_some_and(begins)
            }
        };
        let is_new = found
            .iter()
            .all(|(_, other): &(PathBuf, Metainfo)| other.info_hash() != metainfo.info_hash());
        if is_meant && is_new {
            found.push((path, metainfo));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Returns where a torrent is announced: to its own trackers, and to the one that was named.
fn tiers(
    metainfo: &Metainfo,
    tracker: &Tracker,
    publish_private: bool,
) -> Result<Vec<Vec<TrackerUrl>>, CliError> {
    let info = metainfo.info();
    let named = NamedTrackers { tiers: &tracker.tiers, explicit: true, publish_private };
    let plan = AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named);
    let plan = plan.map_err(|error| {
        CliError::usage(format_args!("{error}; name no tracker, or say --publish-private"))
    })?;
    let known = |tier: &Vec<String>| {
        let urls = tier.iter().filter_map(|url| url.parse().ok());
        urls.map(|url: TrackerUrl| url.named_among(tracker.tiers.iter().flatten())).collect()
    };
    Ok(plan.tiers.iter().map(known).collect())
}

/// Trackers of a `.torrent` that can be asked.
fn parsed(tiers: &[Vec<String>]) -> Vec<Vec<TrackerUrl>> {
    tiers.iter().map(|tier| tier.iter().filter_map(|url| url.parse().ok()).collect()).collect()
}

/// The torrent of a link, of the first tracker that gives it: the one that is named, or one of the link's;
/// or at a web address in the link.
async fn follow(
    link: &Magnet,
    named: Option<&Tracker>,
) -> Result<(Metainfo, Option<Tracker>), LookupError> {
    let names = link.tracker_names();
    let others = names.iter().take(MOST_TRACKERS).filter_map(|name| Tracker::named(name).ok());
    let mut faults = Vec::new();
    for tracker in named.cloned().into_iter().chain(others) {
        match tracker.fetch(link.info_hash).await {
            Ok(metainfo) => return Ok((metainfo, Some(tracker))),
            Err(fault) => faults.push(CliError::from(fault).to_string()),
        }
    }
    for url in &link.sources {
        let fetched = fetch(url, Provenance::Named, MAX_TORRENT_LEN, FETCH).await;
        let found = fetched.map_err(|error| error.to_string()).and_then(|(bytes, _)| {
            Metainfo::parse(&bytes, &ParseLimits::default()).map_err(|error| error.to_string())
        });
        match found {
            Ok(metainfo) if metainfo.info_hash() == link.info_hash => return Ok((metainfo, None)),
            Ok(other) => faults.push(format!("`{}` is another torrent", other.info_hash())),
            Err(fault) => faults.push(fault),
        }
    }
    faults.truncate(MOST_FAULTS);
    Err(LookupError::NotYet(CliError::failed(format_args!(
        "the magnet link of `{}` leads to no .torrent: {}. The .torrent is not asked of peers or the DHT \
         yet: name a tracker that has it in its catalogue, or give the .torrent file",
        link.info_hash,
        faults.join("; "),
    ))))
}

/// The torrent that was asked for, and the tracker that is asked for peers besides its own.
///
/// # Errors
/// If there is none, or several.
pub async fn find(
    env: &Env,
    wanted: &Wanted,
    tracker: Option<&Tracker>,
    wait: bool,
) -> Result<(Metainfo, Option<Tracker>), LookupError> {
    let mut told = false;
    loop {
        let attempt = async {
            let (tracker, hash) = match (wanted, tracker) {
                (Wanted::File(path), _) => {
                    return Ok((torrent_file::read(&env.path(path), path)?, tracker.cloned()));
                }
                (Wanted::Link(link), _) => return follow(link, tracker).await,
                (_, None) => {
                    return Err(CliError::usage("which tracker is to be asked? Name one").into());
                }
                (Wanted::Hash(hash), Some(tracker)) => (tracker, *hash),
                (Wanted::Name(name), Some(tracker)) => {
                    (tracker, lookup(env, name, tracker).await?.info_hash)
                }
            };
            Ok((tracker.fetch(hash).await?, Some(tracker.clone())))
        };
        match attempt.await {
            Err(LookupError::NotYet(why)) if wait => {
                if !std::mem::replace(&mut told, true) {
                    let note = format_args!("{why}; waiting for it");
                    env.stderr().line(note).map_err(CliError::from)?;
                }
            }
            done => return done,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The one entry of that name.
async fn lookup(env: &Env, name: &str, tracker: &Tracker) -> Result<CatalogueEntry, LookupError> {
    let mut entries = tracker.list(Some(name)).await?;
    if entries.is_empty() && first_digits(name).is_some() {
        let all = tracker.list(None).await?;
        let meant = meant_by(name, &all, |entry| (entry.info_hash, &entry.name));
        entries = meant.into_iter().cloned().collect();
    }
    match (entries.len(), entries.pop()) {
        (1, Some(entry)) => Ok(entry),
        (_, None) => Err(LookupError::NotYet(CliError::failed(format_args!(
            "no file named `{}` is known to the tracker {}",
            printable(name),
            tracker.shown
        )))),
        (several, Some(last)) => {
            entries.push(last);
            let out = env.stdout();
            out.line(catalogue(&entries, out.width(), out.paint())).map_err(CliError::from)?;
            Err(LookupError::Failed(CliError::failed(format_args!(
                "{} files are named `{}`: ask for one by its info-hash",
                count(several as u64),
                printable(name)
            ))))
        }
    }
}

/// A table of the catalogue.
pub fn catalogue(entries: &[CatalogueEntry], width: usize, paint: Paint) -> String {
    let rows = entries.iter().map(|entry| {
        let description: String =
            entry.description.as_deref().unwrap_or("").chars().take(MOST_NOTE).collect();
        vec![
            printable(&entry.name).into_owned(),
            size(entry.size),
            count(entry.files.into()),
            count(entry.complete.into()),
            count(entry.incomplete.into()),
            entry.info_hash.to_string(),
            printable(&description).into_owned(),
        ]
    });
    let head = ["name", "size", "files", "seeds", "leechers", "info-hash", "note"];
    let table = Table::new(head).right(&[1, 2, 3, 4]).names(&[0]).notes(&[6]).hashes(&[5]);
    table_text(&table.spare(&[2, 6]).rows(rows), width, paint)
}

impl Target {
    /// Where downloads go unless something else is said.
    pub fn of(config: &PeerConfig) -> Self {
        Self {
            folder: config.downloads.clone(),
            incomplete_suffix: config.incomplete_suffix.clone(),
            ..Self::default()
        }
    }
}

impl Wanted {
    /// What `text` asks for.
    ///
    /// # Errors
    /// If it is not text, or looks like a torrent file that is not there.
    pub fn parse(env: &Env, text: &std::ffi::OsStr) -> Result<Self, CliError> {
        let path = Path::new(text);
        let is_torrent = path.extension().is_some_and(|ext| ext == "torrent");
        if is_torrent && env.path(path).is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        if is_torrent && path.components().count() > 1 {
            return Err(CliError::failed(format_args!(
                "there is no torrent file `{}`",
                shown(path)
            )));
        }
        let text = positional(text, "NAME")?;
        if Magnet::is_meant(text) {
            let link = Magnet::parse(text).map_err(CliError::usage)?;
            return Ok(Self::Link(Box::new(link)));
        }
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Hash))
    }
}

/// Time between two questions for what nobody has registered yet, or to a tracker that is down.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// Trackers of a link that are asked, and those whose answer is told.
const MOST_TRACKERS: usize = 20;
const MOST_FAULTS: usize = 4;

/// Time for a `.torrent` at a web address.
const FETCH: Duration = Duration::from_secs(60);

/// Files in the torrents folder that are looked at.
const MOST_KEPT: usize = 100_000;

/// Characters of a note that are shown.
const MOST_NOTE: usize = 60;
