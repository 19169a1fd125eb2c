//! The outside of one torrent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::announce::TrackerUrl;
use crate::announcer::TrackerStatus;
use crate::base::{Bitfield, InfoHash, Moment};
use crate::metainfo::Metainfo;

use super::{PeerStatus, TorrentError, TorrentOptions, TorrentState, TorrentStatus};

/// A torrent in a session. Cheap to clone; the torrent lives on when handles are dropped.
#[derive(Clone)]
pub struct TorrentHandle {
    metainfo: Arc<Metainfo>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<TorrentStatus>,
}

/// What a handle asks its torrent.
pub(super) enum Command {
    /// Connected peers.
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    /// Pieces held.
    Have(oneshot::Sender<Bitfield>),
    /// Stop.
    Pause,
    /// Go on.
    Resume,
    /// Hash everything anew.
    Recheck,
    /// Further peers to dial.
    AddPeers(Vec<std::net::SocketAddr>),
    /// Ask the trackers now.
    Reannounce,
    /// Leave the swarm; answered when trackers are told and data is flushed.
    Stop(oneshot::Sender<()>),
}

impl TorrentHandle {
    pub(super) fn new(
        metainfo: Arc<Metainfo>,
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<TorrentStatus>,
    ) -> Self {
        Self { metainfo, commands, status }
    }

    /// Its identity.
    pub fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash()
    }

    /// What it is.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// How it is doing, at most a fraction of a second old.
    pub fn status(&self) -> TorrentStatus {
        self.status.borrow().clone()
    }

    /// Waits until [`TorrentHandle::status`] has something new: on each change of state, a few
    /// times a second while data moves.
    ///
    /// # Errors
    /// [`TorrentError::Removed`] when nothing new will ever come.
    pub async fn changed(&mut self) -> Result<(), TorrentError> {
        self.status.changed().await.map_err(|_| TorrentError::Removed)
    }

    /// Waits until every piece is there.
    ///
    /// # Errors
    /// If the torrent pauses on a fault or is removed before.
    pub async fn completed(&self) -> Result<(), TorrentError> {
        let mut status = self.status.clone();
        loop {
            match &status.borrow_and_update().state {
                TorrentState::Seeding => return Ok(()),
                TorrentState::Paused { reason: Some(reason) } => {
                    return Err(TorrentError::Storage(reason.clone()));
                }
                _ => {}
            }
            status.changed().await.map_err(|_| TorrentError::Removed)?;
        }
    }

    /// Connected peers; none once the torrent is gone.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    /// Pieces verified and written; `None` once the torrent is gone.
    pub async fn have(&self) -> Option<Bitfield> {
        self.ask(Command::Have).await
    }

    /// Drops all peers and moves nothing until [`TorrentHandle::resume`].
    pub async fn pause(&self) {
        self.tell(Command::Pause).await;
    }

    /// Goes on after a pause, whoever paused.
    pub async fn resume(&self) {
        self.tell(Command::Resume).await;
    }

    /// Hashes everything on disk anew, then goes on.
    pub async fn recheck(&self) {
        self.tell(Command::Recheck).await;
    }

    /// Tells of further peers.
    pub async fn add_peers(&self, peers: Vec<std::net::SocketAddr>) {
        self.tell(Command::AddPeers(peers)).await;
    }

    /// Asks the trackers for peers now, as far as they allow.
    pub async fn reannounce(&self) {
        self.tell(Command::Reannounce).await;
    }

    /// Changes what was chosen.
    pub async fn set_options(&self, _options: TorrentOptions) {
        unimplemented!()
    }

    /// What was chosen.
    pub fn options(&self) -> TorrentOptions {
        unimplemented!()
    }

    /// Gives it other trackers, by tier; those it leaves are told so.
    pub async fn set_trackers(&self, _tiers: Vec<Vec<TrackerUrl>>) {
        unimplemented!()
    }

    /// The folder its name lies in.
    pub fn root(&self) -> PathBuf {
        unimplemented!()
    }

    /// Moves its files beneath `root` (or, if `find`, takes what is there already and checks it),
    /// and goes on as before. Over when this returns; the state is
    /// [`TorrentState::Moving`] meanwhile. Dropping the future cancels it.
    ///
    /// # Errors
    /// If a file cannot be moved; all of them are then where they were.
    pub async fn relocate(&self, _root: &Path, _find: bool) -> Result<(), TorrentError> {
        unimplemented!()
    }

    /// Renames files: their numbers in the metainfo, and their new paths beneath the root. All or
    /// none.
    ///
    /// # Errors
    /// If a name is taken or a file cannot be renamed.
    pub async fn rename(&self, _names: BTreeMap<usize, Vec<String>>) -> Result<(), TorrentError> {
        unimplemented!()
    }

    /// Names of files that are not those of the metainfo, as in
    /// [`AddTorrent::names`](super::AddTorrent::names).
    pub fn names(&self) -> BTreeMap<usize, Vec<String>> {
        unimplemented!()
    }

    /// Deletes its files and the folders that become empty; for a torrent that is removed next.
    ///
    /// # Errors
    /// If one cannot be deleted.
    pub async fn remove_data(&self) -> Result<(), TorrentError> {
        unimplemented!()
    }

    /// Connected peers that hold each piece; empty once the torrent is gone.
    pub async fn availability(&self) -> Vec<u32> {
        unimplemented!()
    }

    /// How things stand with its trackers, in the order in which they are asked, with their tier.
    pub fn trackers(&self) -> Vec<(usize, TrackerStatus)> {
        unimplemented!()
    }

    /// The clock's time of an announcer's moment, seconds since 1970.
    pub fn unix_time(&self, _moment: Moment) -> i64 {
        unimplemented!()
    }

    pub(super) async fn stop(&self) {
        // `None` means that it has stopped already, which is what is wanted.
        let _ = self.ask(Command::Stop).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// A torrent that is gone needs no telling.
    async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
