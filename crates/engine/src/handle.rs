//! The outside of one torrent.

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

    /// Its identity.
    pub fn info_hash(&self) -> InfoHash {
        self.entry.info_hash()
    }

    /// What it is.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.entry.metainfo
    }

    /// How it is doing, at most a fraction of a second old.
    pub fn status(&self) -> TorrentStatus {
        let trackers = self.trackers().into_iter().map(|(_, tracker)| tracker).collect();
        self.entry.shown().status(&self.entry.metainfo, trackers)
    }

    /// The part of [`TorrentHandle::status`] that sums over many torrents are made of.
    pub fn summary(&self) -> StatusSummary {
        self.entry.summary()
    }

    /// Why it is paused, if not because somebody asked.
    pub fn fault(&self) -> Option<TorrentError> {
        self.entry.shown().fault.map(|fault| *fault)
    }

    /// What it waits for, and has waited for since it was added to this session.
    pub fn waited(&self) -> Waited {
        self.entry.shown().waited(self.entry.means().now())
    }

    /// Waits until [`TorrentHandle::status`] has something new: on each change of state, a few
    /// times a second while data moves.
    ///
    /// # Errors
    /// [`TorrentError::Removed`] when nothing new will ever come.
    pub async fn changed(&mut self) -> Result<(), TorrentError> {
        self.seen = self.entry.changed(self.seen).await?;
        Ok(())
    }

    /// Waits until everything wanted is there.
    ///
    /// # Errors
    /// If the torrent pauses on a fault or is removed before.
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

    /// Connected peers; none once the torrent is gone.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        match self.entry.asleep(|_| ()) {
            Some(()) => Vec::new(),
            None => self.entry.ask(Call::Peers).await.unwrap_or_default(),
        }
    }

    /// Pieces verified and written; `None` once the torrent is gone.
    pub async fn have(&self) -> Option<Bitfield> {
        self.entry.have().await
    }

    /// Drops all peers and moves nothing until [`TorrentHandle::resume`].
    pub async fn pause(&self) {
        self.tell(Call::Pause).await;
    }

    /// Goes on after a pause, whoever paused.
    pub async fn resume(&self) {
        self.tell(Call::Resume).await;
    }

    /// Hashes everything on disk anew, then goes on. The folder belongs to the disk on which it
    /// lies now, whatever disk it lay on before.
    pub async fn recheck(&self) {
        let (mounts, root) = (Arc::clone(&self.entry.means().mounts), self.root());
        let accepted = tokio::task::spawn_blocking(move || mounts.accept(&root)).await;
        if let Err(error) = accepted {
            tracing::warn!(%error, "it was not seen on which disk a folder lies");
        }
        self.tell(Call::Recheck).await;
    }

    /// Has files replaced that have the names of the torrent's files and are not its own, when it
    /// goes on.
    pub async fn overwrite(&self) {
        self.tell(Call::Overwrite).await;
    }

    /// Tells of further peers.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        self.tell(Call::AddPeers(peers)).await;
    }

    /// Asks the trackers for peers now, as far as they allow.
    pub async fn reannounce(&self) {
        self.scheduler.reannounce(self.entry.means().now(), self.info_hash());
    }

    /// Changes what was chosen.
    pub async fn set_options(&self, options: TorrentOptions) {
        *self.entry.options.lock() = options.into();
        self.tell(Call::Options).await;
    }

    /// What was chosen.
    pub fn options(&self) -> TorrentOptions {
        TorrentOptions::clone(&self.entry.options.lock())
    }

    /// Gives it other trackers, by tier; those it leaves are told so.
    pub async fn set_trackers(&self, tiers: Vec<Vec<TrackerUrl>>) {
        self.scheduler.set_tiers(&self.entry, tiers);
        self.entry.touch();
    }

    /// The folder its name lies in.
    pub fn root(&self) -> PathBuf {
        self.entry.store().root()
    }

    /// Moves its files beneath `root` (or, if `find`, takes what is there already and checks it),
    /// and goes on as before. Over when this returns; the state is
    /// [`TorrentState::Moving`] meanwhile. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`TorrentError::PathTaken`] if another torrent has one of the paths there, or would lose a
    /// file; if a file cannot be moved. All of them are then where they were.
    pub async fn relocate(&self, root: &Path, find: bool) -> Result<(), TorrentError> {
        let root = root.to_owned();
        self.work(if find { FileWork::Find(root) } else { FileWork::Move(root) }).await
    }

    /// Renames files: their numbers in the metainfo, and their new paths beneath the root. All or
    /// none.
    ///
    /// # Errors
    /// [`TorrentError::PathTaken`] if another torrent has one of the paths; if a name is taken or a file cannot be renamed.
    pub async fn rename(&self, names: BTreeMap<usize, Vec<String>>) -> Result<(), TorrentError> {
        self.work(FileWork::Rename(names)).await
    }

    /// Names of files that are not those of the metainfo, as in
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

    /// Bytes on the disk under its files' names, right or not, holes not counted. Blocks.
    pub fn bytes_on_disk(&self) -> u64 {
        // Where that cannot be seen, nothing is known to be there.
        self.entry.store().bytes_on_disk().unwrap_or(0)
    }

    /// Deletes its files and the folders that become empty; for a torrent that is removed next. It
    /// is paused then. What another torrent has as well stays.
    ///
    /// # Errors
    /// If one cannot be deleted.
    pub async fn remove_data(&self) -> Result<(), TorrentError> {
        self.work(FileWork::Remove).await
    }

    /// Connected peers that hold each piece; empty once the torrent is gone.
    pub async fn availability(&self) -> Vec<u32> {
        let pieces = self.metainfo().info().geometry().pieces();
        match self.entry.asleep(|_| vec![0; pieces as usize]) {
            Some(nobody) => nobody,
            None => self.entry.ask(Call::Availability).await.unwrap_or_default(),
        }
    }

    /// How a piece stands.
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

    /// How things stand with its trackers, in the order in which they are asked, with their tier.
    pub fn trackers(&self) -> Vec<(usize, TrackerStatus)> {
        self.scheduler.trackers(self.info_hash())
    }

    /// The clock's time of an announcer's moment, seconds since 1970.
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

    /// A torrent that is gone needs no telling.
    async fn tell(&self, call: Call) {
        self.entry.post(call).await;
    }
}
