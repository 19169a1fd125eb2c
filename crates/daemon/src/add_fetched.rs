//! Adding a torrent whose `.torrent` was obtained.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::allowed_folders::AllowedFolders;
use super::background::blocking;
use super::catalogue::CatalogueTracker;
use super::checks::{
    check_private, check_settings, parse_tracker, priorities_of, priorities_of_link,
};
use super::install::{Installation, Placeholder, TorrentInstaller};
use super::loader::LoadHints;
use super::magnet::in_link;
use super::record::TorrentRecord;
use super::torrent_source::FetchedTorrent;
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError, rename};
use piecework_api::{Added, RenameRequest, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::{self, UnknownPeer};
use piecework_proto::announce::{Magnet, Provenance, TrackerTarget, TrackerUrl};
use piecework_storage::disk_names;

/// What a request chooses for a torrent.
pub(super) struct TorrentChoice {
    pub settings: TorrentSettings,
    /// Only these files are wanted, such as `1,3-5`.
    pub only_files: Option<String>,
    /// Trackers besides its own.
    pub trackers: Vec<String>,
    /// Initial peers.
    pub peers: Vec<SocketAddr>,
    /// Name of its file or folder, in place of the torrent's own.
    pub rename: Option<String>,
    /// Replace files that have the same names but other content.
    pub overwrite: bool,
}

/// Adds torrents whose `.torrent` was obtained.
pub(super) struct FetchedInstaller {
    pub folders: Arc<AllowedFolders>,
    pub trackers: Arc<TrackerPolicy>,
    pub installer: Arc<TorrentInstaller>,
    /// Files keep the names that their torrents say.
    pub raw_names: bool,
}

impl FetchedInstaller {
    /// Adds a torrent that is downloaded to the folder `root`. If it has a place in the list already, the caller has
    /// locked it.
    pub(crate) async fn install(
        &self,
        fetched: FetchedTorrent,
        choice: TorrentChoice,
        root: PathBuf,
        caller: Caller,
        placeholder: Option<Placeholder>,
    ) -> Result<Added, DaemonError> {
        let FetchedTorrent { metainfo, tracker: found_at, nearby, magnet, peers: mut found } =
            fetched;
        let TorrentChoice { settings, only_files, trackers, peers, rename, overwrite } = choice;
        self.folders.check_reach(caller, &root)?;
        let chosen = FileChoice { settings, only_files, rename };
        let mut settings = self.settings_on_disk(&metainfo, &root, chosen, magnet.as_ref()).await?;
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
        if overwrite {
            record.common.change(|common| common.overwrite = true);
        }
        let hints = LoadHints { peers, found, new: true, ..LoadHints::default() };
        let is_listed = placeholder.is_some();
        let new = Installation { metainfo, root, record, hints, placeholder };
        let mut added = match is_listed {
            true => self.installer.install_locked(new).await?,
            false => self.installer.install(new).await?,
        };
        added.warnings.splice(0..0, warnings);
        Ok(added)
    }

    /// Returns the settings of a torrent that goes to the folder `root`, where some of its files may
    /// have to get other names.
    async fn settings_on_disk(
        &self,
        metainfo: &Arc<Metainfo>,
        root: &Path,
        chosen: FileChoice,
        link: Option<&Magnet>,
    ) -> Result<TorrentSettings, DaemonError> {
        let FileChoice { mut settings, only_files, rename } = chosen;
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
}

/// What a request chooses for the files of a torrent.
struct FileChoice {
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
