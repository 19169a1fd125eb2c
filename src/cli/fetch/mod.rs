//! `torrent-fetch`: gets a `.torrent` from the tracker's catalogue.

mod menu;

use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;

use piecework_api::{CatalogueAnswer, Source};
use piecework_core::metainfo::{Metainfo, torrent_file_stem};
use piecework_core::{InfoHash, printable};
use piecework_proto::announce::catalogue::CatalogueEntry;

use super::format::shown;
use super::leech::{LeechOptions, leech};
use super::peer::{catalogue, tracker::Tracker};
use super::pick::{ambiguous, info_hash, meant_by};
use super::remote::{Remote, RemoteArgs, Tool};
use super::torrent_file::Existing;
use super::{CliError, Env, Exit, remote, torrent_file};

/// Choose a torrent in the tracker's catalogue and save its .torrent. In a pipe, list the
/// catalogue.
#[derive(Parser)]
#[command(
    name = "torrent-fetch",
    version,
    after_help = "Examples:\n  torrent-fetch\n  torrent-fetch --select linux.iso --leech --wait"
)]
struct FetchArgs {
    /// Select this torrent: its name, its info-hash, or at least the first four digits of its
    /// info-hash.
    #[arg(long, short, value_name = "NAME|HASH")]
    select: Option<String>,
    /// Only list the catalogue.
    #[arg(long, conflicts_with_all = ["select", "output", "leech"])]
    list: bool,
    /// File or folder to save the .torrent to. The torrents folder by default.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Overwrite the file to save to, whatever it is. Without this, only the same torrent with the
    /// same trackers is overwritten.
    #[arg(long, short)]
    force: bool,
    /// The tracker whose catalogue is asked, instead of the daemon's: IP:PORT or URL. Saving then
    /// needs no daemon.
    #[arg(long, value_name = "TRACKER")]
    tracker: Option<String>,
    /// Tell the daemon to download it at once.
    #[arg(long)]
    leech: bool,
    /// The folder to download into.
    #[arg(long, value_name = "DIR", requires = "leech")]
    into: Option<PathBuf>,
    /// Wait until the download is complete.
    #[arg(long, requires = "leech")]
    wait: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// The answer with `--json` after saving a file.
#[derive(Serialize)]
struct FetchAnswer {
    info_hash: InfoHash,
    name: String,
    torrent_file: PathBuf,
}

pub fn main(env: Env) -> Exit {
    remote::run(env, async |args: FetchArgs, env, remote| fetch(args, env, remote).await)
}

impl Tool for FetchArgs {
    fn remote(&self) -> &RemoteArgs {
        &self.remote
    }
}

async fn fetch(args: FetchArgs, env: &mut Env, remote: &Remote) -> Result<(), CliError> {
    let (tracker, entries) = entries(&args, remote).await?;
    let interactive = env.stdin_is_terminal() && env.stderr().is_terminal() && !remote.json();
    let chosen = match &args.select {
        Some(text) => choose(text, &entries, &tracker)?,
        None if interactive && !args.list && !entries.is_empty() => {
            menu::choose(env, &entries)?.info_hash
        }
        None if args.leech || args.output.is_some() => {
            return Err(CliError::usage(
                "name a torrent with --select: there is no terminal to ask at",
            ));
        }
        None => return list(env, remote, &tracker, &entries),
    };
    let metainfo = tracker.fetch(chosen).await.map_err(CliError::from)?;
    let path = save(env, remote, &args, &metainfo)?;
    let name = metainfo.info().name().to_owned();
    if !args.leech || !remote.json() {
        let saved =
            FetchAnswer { info_hash: chosen, name: name.clone(), torrent_file: env.path(&path) };
        remote.answer(env, &saved, || {
            let name = env.stdout().paint().bold(printable(&name));
            format!("saved {name} as `{}`", shown(&path))
        })?;
    }
    if !args.leech {
        return Ok(());
    }
    let options = LeechOptions::new(args.into, args.wait);
    leech(env, remote, Source::Torrent(torrent_file::encode(&metainfo)?), &options).await
}

/// Returns the tracker to ask, and its catalogue.
async fn entries(
    args: &FetchArgs,
    remote: &Remote,
) -> Result<(Tracker, Vec<CatalogueEntry>), CliError> {
    if let Some(name) = &args.tracker {
        let tracker = Tracker::named(name)?;
        let entries = tracker.list(None).await.map_err(CliError::from)?;
        return Ok((tracker, entries));
    }
    let answer =
        remote.client().catalogue(None, None).await.map_err(|error| remote.fault(&error))?;
    let tracker = Tracker::named(&answer.tracker)?;
    let entries: Result<Vec<CatalogueEntry>, _> =
        answer.torrents.into_iter().map(serde_json::from_value).collect();
    let entries = entries.map_err(|error| {
        CliError::failed(format_args!("the catalogue of `{}` is not valid: {error}", tracker.shown))
            .because(error)
    })?;
    Ok((tracker, entries))
}

/// Returns the torrent that `text` names. An info-hash may name an unlisted one.
fn choose(text: &str, entries: &[CatalogueEntry], tracker: &Tracker) -> Result<InfoHash, CliError> {
    let meant = meant_by(text, entries, |entry| (entry.info_hash, &entry.name));
    match (&meant[..], info_hash(text)) {
        ([one], _) => Ok(one.info_hash),
        ([], Some(unlisted)) => Ok(unlisted),
        ([], None) => Err(CliError::failed(format_args!(
            "no file named `{}` is known to the tracker {}",
            printable(text),
            tracker.shown
        ))),
        _ => {
            let rows = meant.iter().map(|entry| (entry.info_hash, &*entry.name, entry.size));
            Err(ambiguous(text, rows))
        }
    }
}

fn list(
    env: &Env,
    remote: &Remote,
    tracker: &Tracker,
    entries: &[CatalogueEntry],
) -> Result<(), CliError> {
    let values: Result<Vec<_>, _> = entries.iter().map(serde_json::to_value).collect();
    let torrents = values.map_err(std::io::Error::from)?;
    let answer = CatalogueAnswer { tracker: tracker.shown.clone(), torrents };
    remote.answer(env, &answer, || match entries {
        [] => format!("the catalogue of {} is empty", tracker.shown),
        entries => catalogue(entries, env.stdout().width(), env.stdout().paint()),
    })
}

/// Writes the `.torrent` and returns its path as the user knows it.
fn save(
    env: &Env,
    remote: &Remote,
    args: &FetchArgs,
    metainfo: &Metainfo,
) -> Result<PathBuf, CliError> {
    let file = format!("{}.torrent", torrent_file_stem(metainfo.info().name()));
    let is_folder =
        |path: &Path| env.path(path).is_dir() || path.as_os_str().to_string_lossy().ends_with('/');
    let path = match &args.output {
        Some(path) if is_folder(path) => path.join(file),
        Some(path) => path.clone(),
        None => remote.config().peer.torrents.join(file),
    };
    // A typing error, or a name that somebody else chose, must not overwrite another file.
    torrent_file::write(&env.path(&path), &path, metainfo, Existing::forced(args.force))?;
    Ok(path)
}
