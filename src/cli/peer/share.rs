//! `torrent-peer share`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use piecework_core::metainfo::{Metainfo, torrent_file_stem};
use piecework_core::printable;
use piecework_daemon::token_path;
use piecework_engine::tracker_client::REGISTER_AGAIN;
use piecework_engine::{AddError, AddTorrent};
use piecework_proto::announce::catalogue::RegisterOptions;
use piecework_proto::announce::{AnnouncePlan, CatalogueUrl, NamedTrackers, TrackerUrl};
use piecework_storage::content_names;

use super::super::exit_deadline::ExitDeadline;
use super::super::format::{RateLimit, counted, parse_rate, shown, size};
use super::super::torrent_file::Existing;
use super::super::{CliError, Config, Env, Exit, PeerConfig, Screen, create, torrent_file, verify};
use super::arguments::{listen_arg, positional};
use super::embedded_tracker::EmbeddedTracker;
use super::node::{EndReason, Node, NodeOptions, Role, Turn};
use super::tracker::{Registration, Tracker, catalogue_of};

/// Make a torrent of a file or folder, register it with the tracker, and seed it.
#[derive(Args)]
#[command(
    override_usage = "torrent-peer share [OPTIONS] FILE_OR_FOLDER [TRACKER] [LISTEN]\n       \
                      torrent-peer share [OPTIONS] --torrent F.torrent --data DIR [TRACKER] [LISTEN]",
    after_help = "Without TRACKER this process starts a tracker, and prints the command that gets \
                  the file on another machine. A torrent given by --torrent is announced \
                  to its own trackers, and to TRACKER if it is not private.\n\n\
                  Example: torrent-peer share linux.iso 10.0.0.1:8000"
)]
pub struct ShareArgs {
    /// FILE_OR_FOLDER, then TRACKER as IP:PORT or URL, then LISTEN as IP:PORT for peers.
    #[arg(value_name = "ARGS", num_args = 0..=3)]
    args: Vec<OsString>,
    /// Share every file in the folder as a separate torrent. Folders in it are left out.
    #[arg(long, conflicts_with_all = ["torrent", "name"])]
    each: bool,
    /// Seed the content of an existing torrent file.
    #[arg(long, value_name = "F.torrent", requires = "data",
          conflicts_with_all = ["piece_length", "private", "name", "description", "follow_links",
                                "exclude", "no_hidden", "source"])]
    torrent: Option<PathBuf>,
    /// The content, or the folder that contains it.
    #[arg(long, value_name = "DIR", requires = "torrent")]
    data: Option<PathBuf>,
    /// Announce a private torrent to TRACKER too, although it does not name it, and register it
    /// there. Everybody who knows its info-hash can then get the .torrent, including its passkey.
    #[arg(long, requires = "torrent")]
    publish_private: bool,
    /// Address to accept peers on, the same as LISTEN.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Bytes in a piece, a power of two from 16KiB to 64MiB. Chosen by size by default.
    #[arg(long, value_name = "N", value_parser = create::parse_piece_len)]
    piece_length: Option<u32>,
    /// Keep it out of the tracker's lists. Peers come from the tracker only (BEP 27).
    #[arg(long)]
    private: bool,
    /// Name in the catalogue, instead of that of the file or folder.
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// A note to show in the catalogue.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    selection: create::SelectionArgs,
    /// Maximum bytes a second sent, for instance 10MiB.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    upload_limit: Option<RateLimit>,
    /// Append every response to this file as a line of JSON.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Options of what is shared.
#[derive(Debug, Clone, Default)]
pub(super) struct ShareOptions {
    /// Bytes in a piece.
    pub piece_len: Option<u32>,
    /// Whether it is unlisted and private (BEP 27).
    pub private: bool,
    /// Name in the catalogue.
    pub name: Option<String>,
    /// Note in the catalogue.
    pub description: Option<String>,
    /// Whether an existing private torrent is announced to further trackers, and registered.
    pub publish_private: bool,
    /// Which files of a folder to share, and a tag.
    pub selection: create::SelectionArgs,
}

/// A torrent that is ready to share.
pub(super) struct ShareableTorrent {
    metainfo: Arc<Metainfo>,
    root: PathBuf,
    /// Names on disk that differ from those in the torrent, if it was hashed just now.
    names: BTreeMap<usize, Vec<String>>,
    /// Whether it was hashed just now, so that it is complete.
    whole: bool,
}

pub(super) async fn run(
    args: ShareArgs,
    env: &mut Env,
    config: Config,
    exit_deadline: &ExitDeadline,
) -> Result<(), CliError> {
    let Config { peer: mut config, tracker: tracker_config, .. } = config;
    let Positional { path, named, listen } = Positional::of(&args)?;
    if let Some(limit) = args.upload_limit {
        config.upload_limit = limit;
    }
    let options = ShareOptions {
        piece_len: args.piece_length,
        private: args.private,
        name: args.name,
        description: args.description,
        publish_private: args.publish_private,
        selection: args.selection,
    };
    let made = match (&args.torrent, &args.data) {
        (Some(torrent), Some(data)) => Some(existing(env, torrent, data)?),
        _ => None,
    };
    let needs_tracker = match &made {
        Some(made) => made.needs_tracker(options.publish_private || named.is_some())?,
        None => true,
    };
    let mut node = Node::start(env, &config, &NodeOptions { listen, log: args.log })?;
    let (tracker, embedded_tracker) = match named {
        Some(tracker) => (Some(tracker), None),
        None if !needs_tracker => (None, None),
        None => {
            let section = super::super::tracker::section(env, &tracker_config)?;
            let embedded_tracker =
                EmbeddedTracker::start(&section, listen.map(|addr| addr.ip())).await?;
            (Some(Tracker::named(&embedded_tracker.address().to_string())?), Some(embedded_tracker))
        }
    };
    let result = async {
        let ready = match (&path, made, &tracker) {
            (None, Some(made), _) => vec![made],
            (Some(path), _, Some(tracker)) => {
                let paths = if args.each { files_in(env, path)? } else { vec![path.clone()] };
                match make_each(&mut node, env, &paths, &options, tracker, &config).await? {
                    Some(ready) => ready,
                    None => return Ok(EndReason::Asked),
                }
            }
            _ => return Err(CliError::usage("--torrent needs --data")),
        };
        node.open_console(env)?;
        if let (Some(tracker), Some(_)) = (&tracker, &embedded_tracker) {
            node.screen().line(format_args!("tracker {} runs in this process", tracker.shown));
        }
        for sharable in &ready {
            publish(&mut node, env, sharable, &options, tracker.as_ref(), &config).await?;
        }
        serve(&mut node).await
    }
    .await;
    let exit = node.leave(exit_deadline).await;
    if let Some(embedded_tracker) = embedded_tracker.filter(|_| exit == Exit::Fine) {
        embedded_tracker.stop().await;
    }
    result?;
    if exit == Exit::Fine { Ok(()) } else { Err(CliError::silent(exit)) }
}

/// The positional arguments.
struct Positional {
    /// The path to share. `None` if --torrent and --data name it.
    path: Option<PathBuf>,
    named: Option<Tracker>,
    listen: Option<SocketAddr>,
}

impl Positional {
    fn of(args: &ShareArgs) -> Result<Self, CliError> {
        let limit = if args.torrent.is_some() { 2 } else { 3 };
        let mut rest = args.args.iter();
        let path = match &args.torrent {
            Some(_) => None,
            None => Some(PathBuf::from(rest.next().ok_or_else(|| {
                CliError::usage("say what to share: name a file or folder, or see --help")
            })?)),
        };
        if args.args.len() > limit {
            return Err(CliError::usage("too many arguments; see --help"));
        }
        let named = rest.next().map(|text| Tracker::named(positional(text, "TRACKER")?));
        let named = named.transpose()?;
        let listen = listen_arg(rest.next(), args.listen.as_deref())?;
        Ok(Self { path, named, listen })
    }
}

/// Makes a torrent of each of `paths`. Returns `None` if a signal came first.
async fn make_each(
    node: &mut Node,
    env: &Env,
    paths: &[PathBuf],
    options: &ShareOptions,
    tracker: &Tracker,
    config: &PeerConfig,
) -> Result<Option<Vec<ShareableTorrent>>, CliError> {
    let mut ready = Vec::new();
    for path in paths {
        let Some(sharable) = make(node, env, path, options, tracker, config).await? else {
            return Ok(None);
        };
        ready.push(sharable);
    }
    Ok(Some(ready))
}

/// Runs a node until it should end.
pub(super) async fn serve(node: &mut Node) -> Result<EndReason, CliError> {
    loop {
        match node.turn().await? {
            Turn::Over(ended) => return Ok(ended),
            Turn::Line(line) => {
                if let Err(sentence) = super::super::console::ConsoleCommand::parse(&line) {
                    node.screen().line(sentence);
                }
            }
        }
    }
}

/// Makes a torrent of `path` and keeps it in the torrents folder. Returns `None` if a signal came
/// first.
///
/// # Errors If the torrent cannot be made or kept.
pub(super) async fn make(
    node: &mut Node,
    env: &Env,
    path: &Path,
    options: &ShareOptions,
    tracker: &Tracker,
    config: &PeerConfig,
) -> Result<Option<ShareableTorrent>, CliError> {
    let mut create = create::options();
    create.piece_len = options.piece_len;
    create.private = options.private;
    create.trackers = tracker.urls();
    create.comment.clone_from(&options.description);
    create.selection = options.selection.selection();
    create.source.clone_from(&options.selection.source);
    let hashing = create::HashJob::start(env, path, create);
    let Some(created) = node.unless_ended(hashing.finished()).await else { return Ok(None) };
    let created = created?;
    let path = torrent_path(env, config, &created.metainfo);
    // An existing file is the same torrent, or was made by us.
    torrent_file::write(&env.path(&path), &path, &created.metainfo, Existing::Replace)?;
    let metainfo = Arc::new(created.metainfo);
    let (root, names) = (created.root, created.names);
    Ok(Some(ShareableTorrent { metainfo, root, names, whole: true }))
}

impl ShareableTorrent {
    /// Returns whether it needs a new tracker to be found. `publish` says that it may be announced
    /// to trackers that it does not name.
    fn needs_tracker(&self, publish: bool) -> Result<bool, CliError> {
        let info = self.metainfo.info();
        if !self.metainfo.trackers().is_empty() {
            return Ok(false);
        }
        if info.is_private() && !publish {
            return Err(CliError::failed(format_args!(
                "`{}` is private and names no tracker, so nobody can find it: name a TRACKER, and \
                 say --publish-private",
                printable(info.name())
            )));
        }
        Ok(true)
    }

    /// Returns the trackers to announce it to, and the tracker to register it with.
    fn plan<'a>(
        &self,
        options: &ShareOptions,
        tracker: Option<&'a Tracker>,
    ) -> Result<(Vec<Vec<TrackerUrl>>, Option<&'a Tracker>), CliError> {
        let tiers = tracker.map_or(&[][..], |tracker| &tracker.tiers);
        if self.whole {
            return Ok((tiers.to_vec(), tracker));
        }
        let info = self.metainfo.info();
        let publish_private = options.publish_private;
        let named = NamedTrackers { tiers, explicit: true, publish_private };
        let own = self.metainfo.trackers();
        let plan = AnnouncePlan::of(info.name(), own, info.is_private(), named);
        let plan = plan.map_err(|error| {
            CliError::usage(format_args!(
                "{error}; --publish-private announces it there and registers it"
            ))
            .because(error)
        })?;
        let known = |tier: &Vec<String>| {
            let urls = tier.iter().filter_map(|url| url.parse().ok());
            urls.map(|url: TrackerUrl| url.named_among(tiers.iter().flatten())).collect()
        };
        Ok((plan.tiers.iter().map(known).collect(), tracker.filter(|_| plan.register)))
    }
}

/// Registers a torrent with the tracker and adds it to the node.
///
/// # Errors If the node refuses it, or if it is private and the tracker is not one of its own.
pub(super) async fn publish(
    node: &mut Node,
    env: &Env,
    sharable: &ShareableTorrent,
    options: &ShareOptions,
    tracker: Option<&Tracker>,
    config: &PeerConfig,
) -> Result<(), CliError> {
    let metainfo = &sharable.metainfo;
    let info = metainfo.info();
    let (tiers, registrar) = sharable.plan(options, tracker)?;
    let screen = node.screen().clone();
    let paint = screen.paint();
    screen.line(format_args!(
        "{}: {}, {} of {}, info-hash {}",
        paint.bold(printable(info.name())),
        size(info.geometry().total_len()),
        counted(info.geometry().pieces().into(), "piece"),
        size(info.geometry().piece_len().into()),
        metainfo.info_hash()
    ));
    match registrar {
        Some(tracker) => {
            if !register(node, env, sharable, options, tracker, config).await {
                return Ok(());
            }
        }
        None => screen.notice(format_args!(
            "it is announced to its own trackers and registered nowhere; others need its .torrent"
        )),
    }
    let mut add = AddTorrent::new(Arc::clone(metainfo), &sharable.root);
    add.trackers = Some(tiers);
    add.catalogue = match registrar {
        Some(tracker) => tracker.base.clone().map(CatalogueUrl::named),
        None => catalogue_of(metainfo),
    };
    add.assume_complete = sharable.whole;
    add.names = match sharable.whole {
        true => sharable.names.clone(),
        false => content_names(metainfo, &sharable.root, node.raw_names()),
    };
    add.upload_only = true;
    match node.add(add, Role::Share) {
        Ok(()) => Ok(()),
        Err(AddError::Duplicate(_)) => {
            node.screen().notice(format_args!("`{}` is already shared", printable(info.name())));
            Ok(())
        }
        Err(error) => Err(CliError::failed(error)),
    }
}

/// Registers a torrent in the tracker's catalogue, now or when the tracker answers, and shows how
/// others get it. Returns `false` if a signal came first.
async fn register(
    node: &mut Node,
    env: &Env,
    sharable: &ShareableTorrent,
    options: &ShareOptions,
    tracker: &Tracker,
    config: &PeerConfig,
) -> bool {
    let metainfo = &sharable.metainfo;
    let info = metainfo.info();
    let screen = node.screen().clone();
    let paint = screen.paint();
    let register = RegisterOptions {
        name: options.name.clone(),
        description: options.description.clone(),
        unlisted: info.is_private(),
        unobserved: false,
    };
    let file = torrent_path(env, config, metainfo);
    let token_path = env.path(token_path(&file));
    let registering = node.unless_ended(tracker.register(metainfo, register.clone()));
    let Some(registering) = registering.await else { return false };
    match registering {
        Registration::Done(registered) => {
            keep_token(&screen, &token_path, registered.token.as_deref());
            let name = match info.is_private() {
                true => None,
                false => shell_word(&registered.name),
            };
            // A name that several files have does not identify one.
            let alone = match &name {
                Some(_) => node.unless_ended(tracker.list(Some(&registered.name))).await,
                None => None,
            };
            let what = match (name, alone) {
                (Some(name), Some(Ok(entries))) if entries.len() == 1 => name,
                _ => metainfo.info_hash().to_string(),
            };
            let command = format!("torrent-peer get {what} {}", tracker.shown);
            let place =
                if tracker.is_local() { "in another terminal" } else { "on another machine" };
            screen.line(format_args!("{place}: {}", paint.bold(command)));
        }
        Registration::Refused(why) => screen.notice(format_args!(
            "{} the tracker {} keeps no catalogue for us ({why}); others need the file `{}`",
            screen.live_paint().yellow("notice:"),
            tracker.shown,
            shown(&file),
        )),
        Registration::Absent(why) => {
            screen.notice(format_args!(
                "{} {why}; continuing, and trying again every {} s",
                screen.live_paint().yellow("notice:"),
                REGISTER_AGAIN.as_secs(),
            ));
            let again =
                PendingRegistration { tracker: tracker.clone(), register, token_path, screen };
            tokio::spawn(again.run(Arc::clone(metainfo)));
        }
    }
    true
}

/// Registration that continues in the background until the tracker answers.
struct PendingRegistration {
    tracker: Tracker,
    register: RegisterOptions,
    token_path: PathBuf,
    screen: Screen,
}

impl PendingRegistration {
    async fn run(self, metainfo: Arc<Metainfo>) {
        let name = printable(metainfo.info().name());
        match self.tracker.register_later(&metainfo, self.register).await {
            Registration::Done(registered) => {
                keep_token(&self.screen, &self.token_path, registered.token.as_deref());
                let shown = &self.tracker.shown;
                self.screen.notice(format_args!("{name} is registered with {shown} now"));
            }
            Registration::Refused(why) | Registration::Absent(why) => {
                self.screen.notice(format_args!("{name} is not registered: {why}"));
            }
        }
    }
}

fn keep_token(screen: &Screen, path: &Path, token: Option<&str>) {
    // Without a token, it was registered before by somebody who has the token.
    let Some(token) = token else { return };
    if let Err(error) = torrent_file::write_secret(path, token.as_bytes()) {
        screen.notice(format_args!(
            "{} the token to delete it from the tracker could not be kept in `{}`: {error}",
            screen.live_paint().yellow("notice:"),
            shown(path),
        ));
    }
}

fn existing(env: &Env, torrent: &Path, data: &Path) -> Result<ShareableTorrent, CliError> {
    let metainfo = torrent_file::read(&env.path(torrent), torrent)?;
    let root = verify::content_root(&metainfo, &env.path(data), data)?;
    Ok(ShareableTorrent {
        metainfo: Arc::new(metainfo),
        root,
        names: BTreeMap::new(),
        whole: false,
    })
}

/// Returns the files in a folder, ordered by name.
fn files_in(env: &Env, folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let cannot = |error: std::io::Error| {
        CliError::failed(format_args!("the folder `{}` cannot be read: {error}", shown(folder)))
            .because(error)
    };
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(env.path(folder)).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if entry.file_type().map_err(cannot)?.is_file() {
            files.insert(folder.join(entry.file_name()));
        }
    }
    if files.is_empty() {
        return Err(CliError::failed(format_args!("there are no files in `{}`", shown(folder))));
    }
    Ok(files.into_iter().collect())
}

/// Returns the path to keep a torrent at. It contains the torrent's name, and also its info-hash if
/// another file already has that name: another torrent, or the same one with other trackers, made
/// by somebody else.
pub(super) fn torrent_path(env: &Env, config: &PeerConfig, metainfo: &Metainfo) -> PathBuf {
    let name = torrent_file_stem(metainfo.info().name());
    let hash = metainfo.info_hash().to_string();
    let plain = config.torrents.join(format!("{name}.torrent"));
    let names = [plain, config.torrents.join(format!("{name}.{}.torrent", &hash[..8]))];
    let is_free = |path: &PathBuf| {
        let full = env.path(path);
        full.symlink_metadata().is_err() || is_ours(&full, metainfo)
    };
    let free = names.into_iter().find(is_free);
    free.unwrap_or_else(|| config.torrents.join(format!("{name}.{hash}.torrent")))
}

/// Returns whether the file at `path` is this torrent, with the same trackers, or made by us for
/// other trackers.
fn is_ours(path: &Path, metainfo: &Metainfo) -> bool {
    let Ok(there) = torrent_file::read(path, path) else { return false };
    let ours = |by: &str| by.starts_with("Piecework");
    there.info_hash() == metainfo.info_hash()
        && (there.trackers() == metainfo.trackers() || there.created_by().is_some_and(ours))
}

/// Returns `name` quoted as one shell word, or `None` if it cannot be written safely.
fn shell_word(name: &str) -> Option<String> {
    if printable(name) != name || name.starts_with('-') {
        return None;
    }
    let plain = |c: char| c.is_alphanumeric() || "._-+,@%:=/".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        return Some(name.to_owned());
    }
    Some(format!("'{}'", name.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words_of_a_shell() {
        assert_eq!(shell_word("a-b_1.iso").unwrap(), "a-b_1.iso");
        assert_eq!(shell_word("Füße 文件").unwrap(), "'Füße 文件'");
        assert_eq!(shell_word("it's; rm -rf").unwrap(), r"'it'\''s; rm -rf'");
        assert_eq!(shell_word("--exit"), None);
        assert_eq!(shell_word("a\x1bb"), None);
    }
}
