//! What `torrent-peer get` is asked for, and where its `.torrent` comes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, Table, printable};
use piecework_engine::tracker_client::fetch;
use piecework_proto::announce::catalogue::{CatalogueEntry, MAX_TORRENT_LEN};
use piecework_proto::announce::{Magnet, Provenance};

use super::super::format::{Paint, count, shown, size, table_text};
use super::super::pick::{first_digits, meant_by};
use super::super::{CliError, Env, PeerConfig, torrent_file};
use super::arguments::positional;
use super::tracker::{LookupError, Tracker};

/// What to get.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TorrentQuery {
    /// A torrent file.
    File(PathBuf),
    /// An info-hash in the tracker's catalogue.
    Hash(InfoHash),
    /// A magnet link: an info-hash, and trackers whose catalogue may have it.
    Link(Box<Magnet>),
    /// A name in the tracker's catalogue.
    Name(String),
}

impl TorrentQuery {
    /// Parses what to get.
    ///
    /// # Errors If it is not UTF-8, or names a torrent file that does not exist.
    pub(super) fn parse(env: &Env, text: &std::ffi::OsStr) -> Result<Self, CliError> {
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
            let link = Magnet::parse(text).map_err(CliError::usage_by)?;
            return Ok(Self::Link(Box::new(link)));
        }
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Hash))
    }
}

/// Returns the torrent from the tracker, or the kept one if the tracker does not provide it.
pub(super) async fn find_or_kept(
    env: &Env,
    config: &PeerConfig,
    wanted: &TorrentQuery,
    tracker: Option<&Tracker>,
    wait: bool,
) -> Result<(Metainfo, Option<Tracker>), CliError> {
    let mut kept = kept(env, config, wanted);
    let error = match find(env, wanted, tracker, wait && kept.is_empty()).await {
        Ok(found) => return Ok(found),
        Err(LookupError::NotYet(error)) => error,
        // The tracker has no catalogue.
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
    env.stderr().line(format_args!("{error}; continuing with `{}`", shown(&path)))?;
    Ok((metainfo, tracker.cloned()))
}

/// Returns the matching torrents in the torrents folder, with their paths.
fn kept(env: &Env, config: &PeerConfig, wanted: &TorrentQuery) -> Vec<(PathBuf, Metainfo)> {
    let Ok(entries) = std::fs::read_dir(env.path(&config.torrents)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten().take(MOST_KEPT) {
        let path = config.torrents.join(entry.file_name());
        let file = entry.file_name();
        let is_likely = match wanted {
            TorrentQuery::File(_) => false,
            TorrentQuery::Hash(_) | TorrentQuery::Link(_) => {
                path.extension().is_some_and(|end| end == "torrent")
            }
            TorrentQuery::Name(name) if first_digits(name).is_some() => {
                path.extension().is_some_and(|end| end == "torrent")
            }
            TorrentQuery::Name(name) => file
                .to_str()
                .is_some_and(|file| file.starts_with(name.as_str()) && file.ends_with(".torrent")),
        };
        if !is_likely {
            continue;
        }
        let Ok(metainfo) = torrent_file::read(&env.path(&path), &path) else { continue };
        let is_meant = match wanted {
            TorrentQuery::File(_) => false,
            TorrentQuery::Hash(hash) => metainfo.info_hash() == *hash,
            TorrentQuery::Link(link) => metainfo.info_hash() == link.info_hash,
            TorrentQuery::Name(name) => {
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

/// Returns the torrent, and the tracker to ask for peers in addition to its own.
///
/// # Errors
/// If there is none, or several.
pub(super) async fn find(
    env: &Env,
    wanted: &TorrentQuery,
    tracker: Option<&Tracker>,
    wait: bool,
) -> Result<(Metainfo, Option<Tracker>), LookupError> {
    let mut told = false;
    loop {
        let attempt = async {
            let (tracker, hash) = match (wanted, tracker) {
                (TorrentQuery::File(path), _) => {
                    return Ok((torrent_file::read(&env.path(path), path)?, tracker.cloned()));
                }
                (TorrentQuery::Link(link), _) => return follow(link, tracker).await,
                (_, None) => {
                    return Err(CliError::usage("there is no tracker to ask: name one").into());
                }
                (TorrentQuery::Hash(hash), Some(tracker)) => (tracker, *hash),
                (TorrentQuery::Name(name), Some(tracker)) => {
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

/// Returns the only entry of that name.
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

/// Returns a table of the catalogue.
pub(crate) fn catalogue(entries: &[CatalogueEntry], width: usize, paint: Paint) -> String {
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

/// Returns the torrent of a link from the first tracker that provides it: the named one, or one of
/// the link's. Otherwise takes it from a web address in the link.
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
        "the magnet link of `{}` cannot be resolved: {}. Name a tracker that has it in its catalogue, \
         or a peer that has it, or give the .torrent file",
        link.info_hash,
        faults.join("; "),
    ))))
}

/// Time between two requests for a torrent that is not registered yet, or to a tracker that is
/// down.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// Maximum number of a link's trackers to ask, and of errors to show.
const MOST_TRACKERS: usize = 20;
const MOST_FAULTS: usize = 4;

/// Maximum time to fetch a `.torrent` from a web address.
const FETCH: Duration = Duration::from_secs(60);

/// Maximum number of files in the torrents folder to examine.
const MOST_KEPT: usize = 100_000;

/// Maximum characters of a note to show.
const MOST_NOTE: usize = 60;
