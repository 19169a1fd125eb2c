//! The public handle of a torrent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, InfoHash, Moment, PieceIndex};
use piecework_proto::announce::TrackerUrl;
use piecework_swarm::PieceStage;
use piecework_swarm::announcer::TrackerStatus;

use super::announce_scheduler::AnnounceScheduler;
use super::entry::{Call, Entry, FileWork};
use super::{
    PeerStatus, StatusSummary, TorrentError, TorrentOptions, TorrentState, TorrentStatus, Waited,
};

/// A torrent in a session. Cheap to clone; the torrent lives on when handles are dropped.
#[derive(Clone)]
pub struct TorrentHandle {
    scheduler: Arc<AnnounceScheduler>,
    entry: Arc<Entry>,
    seen: u32,
}

impl TorrentHandle {
    pub(super) fn new(scheduler: Arc<AnnounceScheduler>, entry: Arc<Entry>) -> Self {
        let seen = entry.version();
        Self { scheduler, entry, seen }
    }

    /// Returns its info-hash.
    pub fn info_hash(&self) -> InfoHash {
        self.entry.info_hash()
    }

    /// Returns its metainfo.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.entry.metainfo
    }

    /// Returns its status, at most a fraction of a second old.
    pub fn status(&self) -> TorrentStatus {
        let trackers = self.trackers().into_iter().map(|(_, tracker)| tracker).collect();
        self.entry.shown().status(&self.entry.metainfo, trackers)
    }

    /// Returns the part of [`TorrentHandle::status`] that counts and sums over many torrents use.
    pub fn summary(&self) -> StatusSummary {
        self.entry.summary()
    }

    /// Returns why it is paused, if not because somebody asked.
    pub fn fault(&self) -> Option<TorrentError> {
        self.entry.shown().fault.map(|fault| *fault)
    }

    /// Returns what it waits for, and what it has waited for since it was added to this session.
    pub fn waited(&self) -> Waited {
        self.entry.shown().waited(self.entry.means().now())
    }

    /// Waits until [`TorrentHandle::status`] changes: on each change of state, and a few times a
    /// second while data moves.
    ///
    /// # Errors
    /// [`TorrentError::Removed`] once the torrent is gone.
    pub async fn changed(&mut self) -> Result<(), TorrentError> {
        self.seen = self.entry.changed(self.seen).await?;
        Ok(())
    }

    /// Waits until everything wanted is there.
    ///
    /// # Errors
    /// If the torrent stops on a fault or is removed before.
    pub async fn completed(&self) -> Result<(), TorrentError> {
        loop {
            let seen = self.entry.version();
            let shown = self.entry.shown();
            if shown.state == TorrentState::Seeding {
                return Ok(());
            }
            if let Some(fault) = shown.fault {
                return Err(*fault);
            }
            self.entry.changed(seen).await?;
        }
    }

    /// Returns its connected peers; none once the torrent is gone.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        match self.entry.asleep(|_| ()) {
            Some(()) => Vec::new(),
            None => self.entry.ask(Call::Peers).await.unwrap_or_default(),
        }
    }

    /// Returns the pieces that are verified and written; `None` once the torrent is gone.
    pub async fn have(&self) -> Option<Bitfield> {
        self.entry.have().await
    }

    /// Drops all peers and transfers nothing until [`TorrentHandle::resume`].
    pub async fn pause(&self) {
        self.tell(Call::Pause).await;
    }

    /// Goes on after a pause, whatever the reason for it.
    pub async fn resume(&self) {
        self.tell(Call::Resume).await;
    }

    /// Hashes everything on disk anew, then goes on. From now on the folder belongs to the disk on
    /// which it lies now.
    pub async fn recheck(&self) {
        let (mounts, root) = (Arc::clone(&self.entry.means().mounts), self.root());
        let accepted = tokio::task::spawn_blocking(move || mounts.accept(&root)).await;
        if let Err(error) = accepted {
            tracing::warn!(%error, "cannot find out on which disk a folder lies");
        }
        self.tell(Call::Recheck).await;
    }

    /// Replaces files that have the names of the torrent's files and are not its own, when the
    /// torrent goes on.
    pub async fn overwrite(&self) {
        self.tell(Call::Overwrite).await;
    }

    /// Adds addresses of peers.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        self.tell(Call::AddPeers(peers)).await;
    }

    /// Asks the trackers for peers now, as far as they allow.
    pub async fn reannounce(&self) {
        self.scheduler.reannounce(self.entry.means().now(), self.info_hash());
    }

    /// Changes its options.
    pub async fn set_options(&self, options: TorrentOptions) {
        *self.entry.options.lock() = options.into();
        self.tell(Call::Options).await;
    }

    /// Returns its options.
    pub fn options(&self) -> TorrentOptions {
        TorrentOptions::clone(&self.entry.options.lock())
    }

    /// Replaces its trackers, by tier. Those that are left out are told so.
    pub async fn set_trackers(&self, tiers: Vec<Vec<TrackerUrl>>) {
        self.scheduler.set_tiers(&self.entry, tiers);
        self.entry.touch();
    }

    /// Returns the folder in which its top file or folder lies.
    pub fn root(&self) -> PathBuf {
        self.entry.store().root()
    }

    /// Moves its files beneath `root` (or, with `find`, takes what is there already and checks it),
    /// and goes on as before. It is done when this returns; the state is [`TorrentState::Moving`]
    /// meanwhile. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`TorrentError::PathTaken`] if another torrent has one of the paths there, or would lose a
    /// file; or if a file cannot be moved. All files are then where they were.
    pub async fn relocate(&self, root: &Path, find: bool) -> Result<(), TorrentError> {
        let root = root.to_owned();
        self.work(if find { FileWork::Find(root) } else { FileWork::Move(root) }).await
    }

    /// Renames files: their numbers in the metainfo, and their new paths beneath the root. Renames
    /// all or none.
    ///
    /// # Errors
    /// [`TorrentError::PathTaken`] if another torrent has one of the paths; or if a name is taken
    /// or a file cannot be renamed.
    pub async fn rename(&self, names: BTreeMap<usize, Vec<String>>) -> Result<(), TorrentError> {
        self.work(FileWork::Rename(names)).await
    }

    /// Returns the names of files that differ from the metainfo's, as in
    /// [`AddTorrent::names`](super::AddTorrent::names).
    pub fn names(&self) -> BTreeMap<usize, Vec<String>> {
        let mut names = self.entry.store().options().names;
        let entries = self.metainfo().info().files().entries();
        names.retain(|file, names| {
            entries
                .get(*file)
                .is_some_and(|entry| !entry.path.iter().eq(names.iter().map(String::as_str)))
        });
        names
    }

    /// Returns the bytes on the disk under its files' names, right or wrong, without holes. Blocks.
    pub fn bytes_on_disk(&self) -> u64 {
        // If that cannot be seen, nothing is known to be there.
        self.entry.store().bytes_on_disk().unwrap_or(0)
    }

    /// Deletes its files and the folders that become empty, for a torrent that is removed next. It
    /// is paused then. What another torrent has as well stays.
    ///
    /// # Errors
    /// If a file cannot be deleted.
    pub async fn remove_data(&self) -> Result<(), TorrentError> {
        self.work(FileWork::Remove).await
    }

    /// Returns how many connected peers hold each piece; empty once the torrent is gone.
    pub async fn availability(&self) -> Vec<u32> {
        let pieces = self.metainfo().info().geometry().pieces();
        match self.entry.asleep(|_| vec![0; pieces as usize]) {
            Some(nobody) => nobody,
            None => self.entry.ask(Call::Availability).await.unwrap_or_default(),
        }
    }

    /// Returns how a piece stands.
    pub async fn stage(&self, piece: PieceIndex) -> PieceStage {
        let metainfo = self.metainfo();
        match self.entry.asleep(|record| record.stage(metainfo, piece)) {
            Some(stage) => stage,
            None => {
                let stage = self.entry.ask(|reply| Call::Stage(piece, reply)).await;
                stage.unwrap_or(PieceStage::Missing)
            }
        }
    }

    /// Returns the status of its trackers with their tiers, in the order in which they are asked.
    pub fn trackers(&self) -> Vec<(usize, TrackerStatus)> {
        self.scheduler.trackers(self.info_hash())
    }

    /// Returns the time of day of an announcer's moment, in seconds since 1970.
    pub fn unix_time(&self, moment: Moment) -> i64 {
        self.entry.means().clock.unix_time(moment)
    }

    async fn work(&self, work: FileWork) -> Result<(), TorrentError> {
        let (reply, answer) = oneshot::channel();
        if !self.entry.post(Call::Files(work, reply)).await {
            return Err(TorrentError::Removed);
        }
        answer.await.unwrap_or(Err(TorrentError::Removed))
    }

    /// A torrent that is gone needs no call.
    async fn tell(&self, call: Call) {
        self.entry.post(call).await;
    }
}
