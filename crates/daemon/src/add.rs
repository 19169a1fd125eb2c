//! Adding torrents.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::add_request::{AddSource, NewTorrent};
use super::allowed_folders::AllowedFolders;
use super::background::blocking;
use super::catalogue::CatalogueTracker;
use super::checks::{
    check_private, check_settings, check_tracker_count, parse_tracker, priorities_of,
    priorities_of_link, visible_files,
};
use super::fetch::TorrentFetcher;
use super::install::{Installation, TorrentInstaller};
use super::loader::LoadHints;
use super::magnet::in_link;
use super::reason::Reason;
use super::record::TorrentRecord;
use super::torrent_source::FetchedTorrent;
use super::torrents::Torrents;
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError, rename};
use piecework_api::{
    Added, InspectRequest, Inspected, LeechRequest, RenameRequest, TorrentSettings,
};
use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::{self, UnknownPeer};
use piecework_proto::announce::{
    Magnet, PeerName, PeerNameError, Provenance, TrackerTarget, TrackerUrl,
};
use piecework_storage::disk_names;

/// Adds torrents.
pub(super) struct TorrentAdder {
    pub torrents: Arc<Torrents>,
    pub folders: Arc<AllowedFolders>,
    pub trackers: Arc<TrackerPolicy>,
    pub fetcher: Arc<TorrentFetcher>,
    pub installer: Arc<TorrentInstaller>,
    /// Files keep the names that their torrents say.
    pub raw_names: bool,
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
        if let AddSource::Url(text) | AddSource::Catalogue { name: text, .. } = &source
            && let Ok(link) = Magnet::parse(text)
            && let Some(added) = self.torrents.duplicate(link.info_hash)
        {
            return Ok(added);
        }
        let FetchedTorrent { metainfo, tracker: found_at, nearby, magnet, peers: mut found } =
            self.fetcher.fetch(source, caller).await?;
        if let Some(added) = self.torrents.duplicate(metainfo.info_hash()) {
            return Ok(added);
        }
        let root = self.folders.output(folder.as_deref(), caller).await?;
        self.folders.check_reach(caller, &root)?;
        let chosen = Choice { settings, only_files, rename: new.rename };
        let link = magnet.as_ref();
        let mut settings = self.settings_on_disk(&metainfo, &root, chosen, link).await?;
        let tiers = settings.trackers.take().unwrap_or_else(|| metainfo.trackers().to_vec());
        let mut announced = AnnounceList::new(tiers);
        announced.add_named(&metainfo, trackers, caller)?;
        // The tracker that provided the torrent already knows it, even if it is private.
        if let Some((tiers, by)) = found_at.map(CatalogueTracker::into_tiers) {
            announced.extend(tiers, by);
        }
        let mut warnings = Vec::new();
        if metainfo.info().is_private() {
            found.clear();
        }
        if let Some(magnet) = magnet {
            // A private torrent uses only the trackers in its metainfo.
            if !metainfo.info().is_private() {
                announced.add_missing(&magnet.trackers);
                let (known, unknown) = tracker_client::look_up_known_peers(&magnet.peers).await;
                found.extend(known.into_iter().map(in_link));
                warnings.extend(unknown.iter().map(UnknownPeer::to_string));
            }
            warnings.extend(magnet.unused);
        }
        let AnnounceList { tiers, mut named, .. } = announced;
        settings.trackers = (tiers != metainfo.trackers()).then_some(tiers);
        // Trackers in the configuration need not be recorded for each torrent.
        let configured = self.configured_urls();
        named.retain(|url| !configured.iter().any(|known| known.as_str() == &**url));
        let mut record = TorrentRecord { settings: settings.into(), ..TorrentRecord::default() };
        record.common.change(|common| (common.named, common.nearby) = (Some(named), nearby));
        if new.overwrite {
            record.common.change(|common| common.overwrite = true);
        }
        let hints = LoadHints { peers, found, new: true, ..LoadHints::default() };
        let new = Installation { metainfo, root, record, hints, placeholder: None };
        let mut added = self.installer.install(new).await?;
        added.warnings.splice(0..0, warnings);
        Ok(added)
    }

    /// Returns the settings of a torrent that goes to the folder `root`, where some of its files may
    /// have to get other names.
    async fn settings_on_disk(
        &self,
        metainfo: &Arc<Metainfo>,
        root: &Path,
        chosen: Choice,
        link: Option<&Magnet>,
    ) -> Result<TorrentSettings, DaemonError> {
        let Choice { mut settings, only_files, rename } = chosen;
        let (torrent, folder): (_, PathBuf) = (Arc::clone(metainfo), root.to_owned());
        let raw = self.raw_names;
        let names = blocking(move || disk_names(&torrent, &folder, raw)).await?;
        settings.name_anew(metainfo.info().name(), names);
        if let Some(text) = only_files {
            settings.files = priorities_of(metainfo, &text)?;
        } else if settings.files.is_empty() {
            let files = link.and_then(|link| priorities_of_link(metainfo, link));
            settings.files = files.unwrap_or_default();
        }
        check_settings(metainfo, &settings)?;
        let on_disk = settings.name.clone().unwrap_or_else(|| metainfo.info().name().to_owned());
        if let Some(name) = rename.filter(|name| *name != on_disk) {
            let request = RenameRequest { path: on_disk, name };
            let plan = rename::plan(metainfo, &settings, &request)?;
            (settings.renamed, settings.name) = (plan.names, plan.name);
        }
        Ok(settings)
    }

    /// Returns the addresses of the configured tracker.
    fn configured_urls(&self) -> Vec<TrackerUrl> {
        let configured: Option<TrackerTarget> =
            self.trackers.configured().and_then(|name| name.parse().ok());
        configured.map(|target| target.tiers.concat()).unwrap_or_default()
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

/// What a request chooses for the files of a torrent.
struct Choice {
    settings: TorrentSettings,
    only_files: Option<String>,
    rename: Option<String>,
}

/// Where a torrent is to be announced.
struct AnnounceList {
    /// Tiers that the torrent has had from the beginning.
    known: Vec<String>,
    tiers: Vec<Vec<String>>,
    /// Addresses that the owner named.
    named: Vec<Box<str>>,
}

impl AnnounceList {
    fn new(tiers: Vec<Vec<String>>) -> Self {
        Self { known: tiers.iter().flatten().cloned().collect(), tiers, named: Vec::new() }
    }

    /// Adds the trackers that the request of `caller` names.
    fn add_named(
        &mut self,
        metainfo: &Metainfo,
        trackers: Vec<String>,
        caller: Caller,
    ) -> Result<(), DaemonError> {
        let parsed = trackers.iter().map(|name| parse_tracker(name));
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        for tiers in &parsed {
            check_private(metainfo, tiers)?;
        }
        for tiers in parsed {
            self.extend(tiers, caller.provenance());
        }
        Ok(())
    }

    /// Adds the trackers in `tiers` that the torrent did not have from the beginning.
    fn extend(&mut self, tiers: Vec<Vec<TrackerUrl>>, by: Provenance) {
        for tier in tiers {
            let mut tier: Vec<String> = tier.iter().map(|url| url.as_str().to_owned()).collect();
            if by == Provenance::Named {
                self.named.extend(tier.iter().map(|url| url.as_str().into()));
            }
            tier.retain(|url| !self.known.contains(url));
            if !tier.is_empty() {
                self.tiers.push(tier);
            }
        }
    }

    /// Adds the trackers that are in no tier yet, each in a tier of its own.
    fn add_missing(&mut self, trackers: &[TrackerUrl]) {
        for url in trackers.iter().map(|url| url.as_str().to_owned()) {
            if !self.tiers.iter().flatten().any(|known| *known == url) {
                self.tiers.push(vec![url]);
            }
        }
    }
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
