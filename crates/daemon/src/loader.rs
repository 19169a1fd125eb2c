//! Loading torrents into the engine.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::background::blocking;
use super::engine_settings::{keep_to, torrent_options};
use super::entry::{Body, BrokenTorrent, Entry};
use super::reason::Reason;
use super::record::TorrentRecord;
use super::torrent_files::TorrentFile;
use super::torrents::Torrents;
use super::trackers::TrackerPolicy;
use super::{DaemonConfig, catalogue};
use crate::state::Saved;
use piecework_core::metainfo::{FileEntry, Metainfo};
use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex};
use piecework_engine::{AddError, AddTorrent, PathTaken, Session};
use piecework_proto::announce::CatalogueUrl;
use piecework_storage::{FolderIdentity, StorageError, Store, StoreMode, StoreOptions, check};
use piecework_swarm::HeardAddress;

/// Loads torrents into the engine.
pub(super) struct TorrentLoader {
    torrents: Arc<Torrents>,
    session: Session,
    trackers: Arc<TrackerPolicy>,
    /// Where the torrents' own files lie.
    files: Arc<TorrentFile>,
    /// Folders below which no link is followed.
    keep_to: Arc<Vec<PathBuf>>,
    /// The folder that was examined last, when, and on which disk it lies.
    folder_identity: Mutex<Option<(PathBuf, Instant, FolderIdentity)>>,
}

impl TorrentLoader {
    pub(crate) fn new(
        config: &DaemonConfig,
        torrents: Arc<Torrents>,
        session: Session,
        trackers: Arc<TrackerPolicy>,
    ) -> Self {
        Self {
            torrents,
            session,
            trackers,
            files: Arc::new(TorrentFile::usual(&config.torrents)),
            keep_to: keep_to(config),
            folder_identity: Mutex::default(),
        }
    }

    /// Returns the folders below which no link is followed.
    pub(crate) fn keep_to(&self) -> Arc<Vec<PathBuf>> {
        Arc::clone(&self.keep_to)
    }

    /// Returns the suffix of the torrent's unfinished files.
    pub(crate) fn suffix(&self, record: &TorrentRecord) -> String {
        let now = || self.torrents.table().settings.incomplete_suffix.clone();
        record.common.suffix.as_ref().map_or_else(now, |suffix| suffix.clone().into_owned())
    }

    /// Adds a torrent to the engine. It is paused, since the queue decides when it runs.
    pub(crate) async fn load(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &Saved,
        record: &TorrentRecord,
        hints: LoadHints,
    ) -> Result<Body, BrokenTorrent> {
        let chosen = &record.settings;
        self.files.keeps(metainfo, &saved.file);
        let mut add = AddTorrent::new(Arc::clone(metainfo), &saved.root);
        let tiers = self.trackers.tiers(metainfo, record);
        let registered = record.common.tracker.as_deref().and_then(catalogue::base_of);
        add.catalogue = registered
            .map(CatalogueUrl::named)
            .or_else(|| catalogue::of_torrent(metainfo, &tiers, self.trackers.configured()));
        add.trackers = Some(tiers);
        (add.peers, add.found) = (hints.peers, hints.found);
        add.assume_complete = hints.whole;
        add.upload_only = record.seed;
        add.paused = true;
        add.checkpoint = saved.checkpoint.clone().filter(|point| fits(point, metainfo));
        add.options = torrent_options(metainfo, chosen);
        add.incomplete_suffix = self.suffix(record);
        add.names =
            chosen.renamed.iter().map(|(file, path)| (*file as usize, path.clone())).collect();
        (add.overwrite, add.hindered) = (record.common.overwrite, record.common.hindered);
        let was_whole = saved.checkpoint.as_ref().is_some_and(|point| {
            // One that is being checked again had been complete.
            point.have.is_full() || saved.done_at.is_some() && point.may_be_whole()
        });
        add.shares_files = hints.whole || was_whole;
        add.folder = Some(self.identity_of(&saved.root).await);
        let mut added = self.session.add(add.clone());
        if let Err(AddError::PathTaken(taken)) = &added
            && hints.new
            && taken.can_be_shared
            && self.looks_whole(&add).await
        {
            // Another torrent has the same content. If some of it is wrong after all, a check finds
            // that, and nothing is written.
            add.shares_files = true;
            added = self.session.add(add);
        }
        let error = match added {
            Ok(handle) => return Ok(Body::Live(handle)),
            Err(error) => error,
        };
        Err(BrokenTorrent {
            name: metainfo.info().name().to_owned(),
            root: saved.root.clone(),
            metainfo: Some(Arc::clone(metainfo)),
            checkpoint: saved.checkpoint.clone(),
            taken: match &error {
                AddError::PathTaken(taken) => Some(taken.clone()),
                _ => None,
            },
            error: Reason::of(error),
        })
    }

    /// Loads a saved torrent. If torrents claim the same path, the oldest gets it.
    pub(crate) async fn load_by_age(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &Saved,
        record: &TorrentRecord,
    ) -> Result<Body, BrokenTorrent> {
        loop {
            let mut broken = match self.load(metainfo, saved, record, LoadHints::default()).await {
                Ok(body) => return Ok(body),
                Err(broken) => broken,
            };
            let Some(taken) = &broken.taken else { return Err(broken) };
            let owner = taken.owner.1;
            let is_older = |entry: &Entry| saved.added_at < entry.added_at;
            if !self.torrents.with(owner, |entry| is_older(entry)).unwrap_or(false) {
                broken.error = taken.standing().into();
                return Err(broken);
            }
            // The roles are swapped, so that the sentence is about the other torrent.
            let mut theirs = PathTaken::clone(taken);
            std::mem::swap(&mut theirs.owner, &mut theirs.torrent);
            self.session.remove(owner).await;
            let made_way = self.torrents.with(owner, |entry| {
                entry.body = Body::broken(BrokenTorrent {
                    name: entry.name().to_owned(),
                    error: theirs.standing().into(),
                    root: entry.root(),
                    metainfo: entry.metainfo().cloned(),
                    checkpoint: None,
                    taken: Some(Box::new(theirs)),
                });
            });
            if made_way.is_err() {
                return Err(broken);
            }
        }
    }

    /// Returns on which disk a folder lies. With thousands of torrents in one folder this is read
    /// once a second.
    async fn identity_of(&self, root: &Path) -> FolderIdentity {
        let now = Instant::now();
        {
            let seen = self.folder_identity.lock();
            if let Some((path, at, folder)) = &*seen
                && path == root
                && now.saturating_duration_since(*at) < FOLDER_FRESH
            {
                return folder.clone();
            }
        }
        let folder = piecework_engine::folder_identity(root).await;
        *self.folder_identity.lock() = Some((root.to_owned(), now, folder.clone()));
        folder
    }

    /// Returns whether all files of the torrent have the right length, and a sample of pieces is
    /// right.
    async fn looks_whole(&self, add: &AddTorrent) -> bool {
        let options = StoreOptions {
            mode: StoreMode::ReadOnly,
            names: add.names.clone(),
            keep_to: Arc::clone(&self.keep_to),
            ..StoreOptions::default()
        };
        let (root, metainfo) = (add.root.clone(), Arc::clone(&add.metainfo));
        let cancel = self.torrents.lifetime.cancellation();
        let look = move || -> Result<bool, StorageError> {
            let store = Store::with_options(&root, metainfo, Arc::default(), options)?;
            let entries = store.metainfo().info().files().entries();
            let is_there = |(entry, print): (&FileEntry, Option<Fingerprint>)| {
                entry.padding || print.is_some_and(|print| print.len == entry.len)
            };
            if !entries.iter().zip(store.fingerprints()?).all(is_there) {
                return Ok(false);
            }
            let pieces = store.geometry().pieces();
            let mut sample = Bitfield::empty(pieces);
            for part in 0..SAMPLE {
                let piece = u64::from(pieces.saturating_sub(1)) * part / (SAMPLE - 1);
                sample.insert(PieceIndex(u32::saturating_from(piece)));
            }
            let right = check(&store, Some(&sample), |_| {}, &cancel)?;
            Ok(right.count() == sample.count())
        };
        match blocking(look).await {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not examine files that another torrent has");
                false
            }
            Err(_) => false,
        }
    }
}

/// Facts that are known only when a torrent is added.
#[derive(Default)]
pub(super) struct LoadHints {
    /// Peers that a user has named.
    pub peers: Vec<SocketAddr>,
    /// Peers that are known from elsewhere.
    pub found: Vec<HeardAddress>,
    /// It was hashed a moment ago and is complete.
    pub whole: bool,
    /// It was not here before.
    pub new: bool,
}

/// Returns whether the checkpoint has as many pieces and files as the torrent.
fn fits(point: &Checkpoint, metainfo: &Metainfo) -> bool {
    let pieces = metainfo.info().geometry().pieces();
    point.have.len() == pieces
        && point.unchecked.as_ref().is_none_or(|unchecked| unchecked.len() == pieces)
        && point.files.len() == metainfo.info().files().entries().len()
}

/// How long it is assumed that a folder stays on the same disk.
const FOLDER_FRESH: Duration = Duration::from_secs(1);

/// Number of pieces that are hashed before files of another torrent are shared with this one.
const SAMPLE: u64 = 5;
