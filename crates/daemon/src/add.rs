//! Adding torrents.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::add_fetched::{FetchedInstaller, TorrentChoice};
use super::add_request::{AddSource, NewTorrent};
use super::allowed_folders::AllowedFolders;
use super::background::blocking;
use super::checks::{check_tracker_count, check_words, visible_files};
use super::fetch::TorrentFetcher;
use super::link_follower::LinkFollower;
use super::reason::Reason;
use super::record::LinkRequest;
use super::torrent_source::FetchedTorrent;
use super::torrents::Torrents;
use super::{Caller, DaemonError, magnet};
use piecework_api::{Added, InspectRequest, Inspected, LeechRequest, TorrentSettings};
use piecework_engine::tracker_client;
use piecework_proto::announce::{Magnet, PeerName, PeerNameError};

/// Adds torrents.
pub(super) struct TorrentAdder {
    pub torrents: Arc<Torrents>,
    pub folders: Arc<AllowedFolders>,
    pub fetcher: Arc<TorrentFetcher>,
    pub fetched: Arc<FetchedInstaller>,
    pub links: Arc<LinkFollower>,
}

impl TorrentAdder {
    /// Adds what the native API asks for.
    pub(crate) async fn leech(
        &self,
        request: LeechRequest,
        caller: Caller,
    ) -> Result<Added, DaemonError> {
        let (start_added, sequential) = {
            let table = self.torrents.table();
            (table.settings.start_added, table.settings.sequential)
        };
        let peers = look_up_peers(&request.peers).await?;
        let source = AddSource::from_request(request.source)?;
        let new = NewTorrent {
            source,
            folder: request.output,
            settings: TorrentSettings {
                paused: request.paused.unwrap_or(!start_added),
                upload_limit: request.upload_limit.filter(|limit| *limit > 0),
                download_limit: request.download_limit.filter(|limit| *limit > 0),
                max_peers: request.max_peers.filter(|most| *most > 0),
                bandwidth: request.bandwidth.unwrap_or_default(),
                sequential: request.sequential.unwrap_or(sequential),
                files: request.files,
                labels: request.labels,
                seed_ratio: request.seed_ratio,
                seed_time: request.seed_time,
                ..TorrentSettings::default()
            },
            only_files: request.only_files,
            trackers: request.trackers,
            peers,
            rename: request.rename,
            overwrite: request.overwrite,
        };
        self.add(new, caller).await
    }

    /// Adds a torrent.
    pub(crate) async fn add(&self, new: NewTorrent, caller: Caller) -> Result<Added, DaemonError> {
        self.torrents.check_open()?;
        let NewTorrent { source, folder, settings, only_files, trackers, peers, .. } = new;
        check_tracker_count(trackers.len())?;
        if new.overwrite {
            caller.must_own("overwriting files")?;
        }
        let choice = TorrentChoice {
            settings,
            only_files,
            trackers,
            peers,
            rename: new.rename,
            overwrite: new.overwrite,
        };
        let source = match linked(source)? {
            MaybeLink::Link(link, text, tracker) => {
                return self.add_link(link, text, tracker, folder, choice, caller).await;
            }
            MaybeLink::Other(source) => source,
        };
        let fetched = self.fetcher.fetch(source, caller).await?;
        // It may be here as a magnet link, which then waits no longer.
        let fetched = match self.links.complete(fetched).await {
            Ok(outcome) => return outcome,
            Err(fetched) => fetched,
        };
        if let Some(added) = self.torrents.duplicate(fetched.metainfo.info_hash()) {
            return Ok(added);
        }
        let root = self.folders.output(folder.as_deref(), caller).await?;
        self.fetched.install(fetched, choice, root, caller, None).await
    }

    /// Adds the torrent of a magnet link.
    async fn add_link(
        &self,
        link: Magnet,
        text: String,
        tracker: Option<String>,
        folder: Option<PathBuf>,
        choice: TorrentChoice,
        caller: Caller,
    ) -> Result<Added, DaemonError> {
        if let Some(added) = self.torrents.duplicate(link.info_hash) {
            return Ok(added);
        }
        let root = self.folders.output(folder.as_deref(), caller).await?;
        self.folders.check_reach(caller, &root)?;
        check_words(&choice.settings)?;
        let TorrentChoice { settings, only_files, trackers, peers, rename, overwrite } = choice;
        let request = LinkRequest {
            link: text,
            tracker,
            caller,
            only_files,
            trackers,
            peers,
            rename,
            overwrite,
        };
        self.links.add(&link, request, root, settings).await
    }

    /// Fetches the torrent that `caller` names and returns what is in it. Keeps nothing of it.
    pub(crate) async fn inspect(
        &self,
        request: InspectRequest,
        caller: Caller,
    ) -> Result<Inspected, DaemonError> {
        self.torrents.check_open()?;
        let source = AddSource::from_request(request.source)?;
        let FetchedTorrent { metainfo, .. } = self.fetcher.fetch(source, caller).await?;
        let here = self.torrents.duplicate(metainfo.info_hash()).is_some();
        blocking(move || {
            let info = metainfo.info();
            let entries = info.files().entries().iter().filter(|file| !file.padding);
            let first = entries.take(Inspected::MOST_FILES);
            Ok(Inspected {
                info_hash: metainfo.info_hash(),
                name: info.name().to_owned(),
                bytes: info.geometry().total_len(),
                private: info.is_private(),
                comment: metainfo.comment().map(str::to_owned),
                here,
                files: visible_files(&metainfo),
                file_list: first.map(|file| (file.path.as_str().to_owned(), file.len)).collect(),
                warnings: metainfo
                    .notices()
                    .map_err(|error| DaemonError::invalid(Reason::of(error)))?,
            })
        })
        .await?
    }
}

/// A source, by what has to be done with it.
enum MaybeLink {
    /// A magnet link, its text, and the tracker to ask first.
    Link(Magnet, String, Option<String>),
    Other(AddSource),
}

/// Returns the magnet link that a source is, if it is one.
fn linked(source: AddSource) -> Result<MaybeLink, DaemonError> {
    Ok(match source {
        AddSource::Url(text) if Magnet::is_meant(&text) => {
            MaybeLink::Link(magnet::parsed(&text)?, text, None)
        }
        AddSource::Catalogue { name, tracker } if Magnet::is_meant(&name) => {
            MaybeLink::Link(magnet::parsed(&name)?, name, tracker)
        }
        source => MaybeLink::Other(source),
    })
}

/// Returns the addresses of peers, `IP:PORT` or `HOST:PORT`.
pub(super) async fn look_up_peers(peers: &[String]) -> Result<Vec<SocketAddr>, DaemonError> {
    if peers.len() > MAX_PEERS {
        return Err(DaemonError::invalid(format!(
            "`{}` peers are more than the allowed `{MAX_PEERS}`",
            peers.len()
        )));
    }
    let names = peers.iter().map(|peer| {
        peer.parse().map_err(|error: PeerNameError| {
            let shown = error.0.chars().take(MAX_SHOWN).collect();
            DaemonError::invalid(PeerNameError(shown).to_string())
        })
    });
    let names: Vec<PeerName> = names.collect::<Result<_, _>>()?;
    if names.iter().filter(|name| name.host.parse::<IpAddr>().is_err()).count() > MAX_NAMES {
        return Err(DaemonError::invalid(format!(
            "more than `{MAX_NAMES}` peers are given by name"
        )));
    }
    let addrs = tracker_client::look_up_peers(&names).await;
    addrs.map_err(|error| DaemonError::invalid(Reason::of(error)))
}

/// Maximum number of peers that one request may give by name. Each costs a query to the system's resolver.
const MAX_NAMES: usize = 16;

/// Maximum number of characters of an invalid peer that an error repeats.
const MAX_SHOWN: usize = 80;

/// Maximum number of initial peers. A torrent remembers no more of those that its user named.
const MAX_PEERS: usize = 1_000;
