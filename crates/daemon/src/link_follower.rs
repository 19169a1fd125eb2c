//! Magnet links whose metadata is not here yet. Their torrents are listed from the moment of the request, can be paused
//! and removed like any other, and are kept over restarts. Once the metadata is here, the torrent takes the place of
//! its link.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::DaemonError;
use super::add_fetched::{FetchedInstaller, TorrentChoice};
use super::entry::{Body, Entry};
use super::fetch::TorrentFetcher;
use super::install::Placeholder;
use super::linked::{LinkPhase, LinkedTorrent};
use super::magnet::UnfollowedLink;
use super::pending_work::{AddOutcome, PendingWork};
use super::provisional::ProvisionalTorrents;
use super::record::{LinkRequest, TorrentRecord};
use super::torrent_source::FetchedTorrent;
use super::torrents::Torrents;
use piecework_api::{Added, TorrentSettings};
use piecework_core::figures::count;
use piecework_core::{InfoHash, printable};
use piecework_proto::announce::Magnet;

/// Adds the torrents of magnet links.
pub(super) struct LinkFollower {
    pub torrents: Arc<Torrents>,
    pub fetcher: Arc<TorrentFetcher>,
    pub installer: Arc<FetchedInstaller>,
    pub provisional: ProvisionalTorrents,
    /// Places for links of the owner, and of guests, that are followed at the same time. Links without peers give theirs
    /// away after half a minute.
    pub places: [Semaphore; 2],
}

impl LinkFollower {
    /// Returns the places that a daemon has.
    pub(crate) fn places() -> [Semaphore; 2] {
        PLACES.map(Semaphore::new)
    }

    /// Lists the torrent of a link, and begins to fetch its metadata. If that is here within a few seconds, the answer
    /// is that of the torrent itself.
    pub(crate) async fn add(
        self: &Arc<Self>,
        link: &Magnet,
        request: LinkRequest,
        root: PathBuf,
        settings: TorrentSettings,
    ) -> Result<Added, DaemonError> {
        let paused = settings.paused;
        let (mut listed, outcome) = {
            let _lock = self.torrents.lock(link.info_hash).await;
            self.torrents.check_open()?;
            if let Some(added) = self.torrents.duplicate(link.info_hash) {
                return Ok(added);
            }
            if !request.caller.is_owner() {
                self.check_guests()?;
            }
            self.list(link, request, root, settings).await?
        };
        if paused {
            listed.warnings.push("its metadata is fetched once it is started".to_owned());
            return Ok(listed);
        }
        match tokio::time::timeout(ANSWER_WITHIN, outcome).await {
            Ok(Ok(outcome)) => outcome,
            _ => {
                let error = self.torrents.with(link.info_hash, |entry| {
                    entry.body.linked_mut().and_then(|linked| linked.error.clone())
                });
                let error = error.ok().flatten();
                let standing = || "its metadata is not here yet".to_owned();
                listed.warnings.push(error.unwrap_or_else(standing));
                Ok(listed)
            }
        }
    }

    /// Returns an error if too many links of guests wait.
    fn check_guests(&self) -> Result<(), DaemonError> {
        let is_guests = |entry: &Entry| {
            let request = entry.record.common.to_fetch.as_ref();
            request.is_some_and(|request| !request.caller.is_owner())
        };
        let table = self.torrents.table();
        let now = table.entries.values().filter(|entry| is_guests(entry)).count();
        if now < MAX_OF_GUESTS {
            return Ok(());
        }
        Err(DaemonError::conflict(format!(
            "`{}` magnet links that were not added by the daemon's owner wait for their metadata, which is the limit: \
             remove some of them",
            count(now as u64)
        )))
    }

    async fn list(
        self: &Arc<Self>,
        link: &Magnet,
        request: LinkRequest,
        root: PathBuf,
        settings: TorrentSettings,
    ) -> Result<(Added, oneshot::Receiver<AddOutcome>), DaemonError> {
        let info_hash = link.info_hash;
        let linked = LinkedTorrent::new(link, root.clone(), settings.paused);
        let mut record = TorrentRecord { settings: settings.into(), ..TorrentRecord::default() };
        record.common.change(|common| common.to_fetch = Some(Box::new(request)));
        let (work, phase) = (Arc::clone(&linked.work), linked.phase);
        let outcome = work.wait();
        let body = Body::linked(linked);
        let listed = self.provisional.list(info_hash, String::new(), root, record, body).await?;
        if phase == LinkPhase::Fetching {
            self.start_fetching(info_hash, work);
        }
        Ok((listed, outcome))
    }

    /// Spawns a task that fetches the metadata of a listed link until it is here.
    pub(crate) fn start_fetching(self: &Arc<Self>, info_hash: InfoHash, work: Arc<PendingWork>) {
        let follower = Arc::clone(self);
        tokio::spawn(async move { follower.fetch_until_here(info_hash, &work).await });
    }

    /// Fetches the metadata of a link that was paused, could not be added, or waits for its next attempt.
    pub(crate) fn resume(self: &Arc<Self>, info_hash: InfoHash) {
        let work = {
            let mut table = self.torrents.table();
            let mut entry = table.entries.get_mut(&info_hash);
            let Some(linked) = entry.as_mut().and_then(|entry| entry.body.linked_mut()) else {
                return;
            };
            if linked.phase == LinkPhase::Fetching && linked.error.is_none() {
                return;
            }
            linked.work.cancel();
            (linked.phase, linked.error, linked.work) = (LinkPhase::Fetching, None, Arc::default());
            Arc::clone(&linked.work)
        };
        self.torrents.touch(info_hash, false);
        self.start_fetching(info_hash, work);
    }

    /// Stops fetching the metadata of a link.
    pub(crate) fn pause(&self, info_hash: InfoHash) {
        let paused = self.torrents.with(info_hash, |entry| {
            let linked = entry.body.linked_mut()?;
            linked.work.cancel();
            (linked.phase, linked.error) = (LinkPhase::Paused, None);
            Some(())
        });
        if let Ok(Some(())) = paused {
            self.torrents.touch(info_hash, false);
        }
    }

    /// Puts a torrent in the place of its link, if that is listed. Otherwise gives the torrent back.
    pub(crate) async fn complete(
        &self,
        fetched: FetchedTorrent,
    ) -> Result<AddOutcome, FetchedTorrent> {
        let info_hash = fetched.metainfo.info_hash();
        let work = self.torrents.with(info_hash, |entry| {
            entry.body.linked_mut().map(|linked| Arc::clone(&linked.work))
        });
        let Ok(Some(work)) = work else { return Err(fetched) };
        let outcome = self.install(info_hash, &work, fetched).await;
        if outcome.is_ok() {
            work.tell(&outcome);
            work.cancel();
        }
        Ok(outcome)
    }

    async fn fetch_until_here(&self, info_hash: InfoHash, work: &Arc<PendingWork>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let fetched = tokio::select! {
                fetched = self.fetch(info_hash, work) => fetched,
                () = work.cancelled() => return work.tell(&Err(DaemonError::Ending)),
            };
            match fetched {
                Ok(fetched) => {
                    let outcome = self.install(info_hash, work, fetched).await;
                    return self.finish(info_hash, work, outcome).await;
                }
                Err(UnfollowedLink { not_yet: Some(why), .. }) => {
                    self.note(info_hash, work, &why, false);
                }
                Err(UnfollowedLink { error, .. }) => {
                    return self.finish(info_hash, work, Err(error)).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = work.cancelled() => return work.tell(&Err(DaemonError::Ending)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Looks for the metadata once.
    async fn fetch(
        &self,
        info_hash: InfoHash,
        work: &Arc<PendingWork>,
    ) -> Result<FetchedTorrent, UnfollowedLink> {
        let request = self.request(info_hash)?;
        let [owners, guests] = &self.places;
        let places = if request.caller.is_owner() { owners } else { guests };
        // Nobody closes these semaphores.
        let _place = places.acquire().await.map_err(|_| DaemonError::Ending)?;
        let (torrents, work) = (Arc::clone(&self.torrents), Arc::clone(work));
        let progress = move |received: u64, claimed: u64| {
            if work.at(received, claimed, 0) {
                torrents.touch(info_hash, false);
            }
        };
        self.fetcher.follow(&request, progress).await
    }

    fn request(&self, info_hash: InfoHash) -> Result<LinkRequest, DaemonError> {
        let request =
            self.torrents.with(info_hash, |entry| entry.record.common.to_fetch.clone())?;
        request.map(|request| *request).ok_or(DaemonError::Unknown(info_hash))
    }

    /// Puts the torrent in the place of its link.
    async fn install(
        &self,
        info_hash: InfoHash,
        work: &Arc<PendingWork>,
        fetched: FetchedTorrent,
    ) -> AddOutcome {
        let _lock = self.torrents.lock(info_hash).await;
        self.torrents.check_open()?;
        if !self.provisional.is_at(info_hash, work) {
            return Err(DaemonError::Ending);
        }
        let request = self.request(info_hash)?;
        // What was changed meanwhile holds.
        let (settings, root, before) = self.torrents.with(info_hash, |entry| {
            let settings = TorrentSettings::clone(&entry.record.settings);
            (settings, entry.root(), entry.saved(info_hash))
        })?;
        let choice = TorrentChoice {
            settings,
            only_files: request.only_files,
            trackers: request.trackers,
            peers: request.peers,
            rename: request.rename,
            overwrite: request.overwrite,
        };
        let place =
            Placeholder { provisional: info_hash, added_at: before.added_at, before: Some(before) };
        self.installer.install(fetched, choice, root, request.caller, Some(place)).await
    }

    /// Records how an attempt ended for good.
    async fn finish(&self, info_hash: InfoHash, work: &Arc<PendingWork>, outcome: AddOutcome) {
        match &outcome {
            Ok(_) => {}
            Err(_) if work.is_cancelled() || self.torrents.check_open().is_err() => {
                return work.tell(&Err(DaemonError::Ending));
            }
            // A client that is told of an invalid request sends another one.
            Err(error) => {
                if !(work.is_awaited() && self.provisional.strike(info_hash, work).await) {
                    self.note(info_hash, work, &error.to_string(), true);
                }
            }
        }
        work.tell(&outcome);
    }

    /// Shows why an attempt failed.
    fn note(&self, info_hash: InfoHash, work: &Arc<PendingWork>, error: &str, gives_up: bool) {
        if !self.provisional.is_at(info_hash, work) {
            return;
        }
        let noted = self.torrents.with(info_hash, |entry| {
            let linked = entry.body.linked_mut()?;
            tracing::debug!(torrent = linked.name, error, gives_up, "no metadata of a magnet link");
            linked.error = Some(printable(error).into_owned());
            if gives_up {
                linked.phase = LinkPhase::Failed;
            }
            Some(())
        });
        if let Ok(Some(())) = noted {
            self.torrents.touch(info_hash, false);
        }
    }
}

/// Links of the owner, and of guests, that are followed at the same time. Each may have 36 MiB of metadata in memory.
const PLACES: [usize; 2] = [6, 2];

/// Links of guests that may wait for their metadata.
const MAX_OF_GUESTS: usize = 100;

/// How long a request waits for the metadata.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Time between two attempts: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
