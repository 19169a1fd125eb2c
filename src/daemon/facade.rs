//! What can be asked of the daemon.

use std::path::{Path, PathBuf};

use super::{DaemonConfig, DaemonError, StartError};
use crate::api::{
    Added, CatalogueAnswer, Event, FreeSpace, LeechRequest, LogEntry, MoveRequest, Overview,
    PeerInfo, PieceMap, PortTest, QueueMove, RemoveRequest, RenameRequest, SeedRequest, Settings,
    SettingsChange, Torrent, TorrentChange, TorrentDetail, TorrentSettings,
};
use crate::base::InfoHash;

/// A running daemon. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {}

/// Where a torrent that is added comes from.
#[derive(Debug, Clone)]
pub enum AddSource {
    /// The bytes of a `.torrent`.
    Bytes(Vec<u8>),
    /// A `.torrent` on this machine, absolute.
    File(PathBuf),
    /// A web address of a `.torrent`.
    Url(String),
    /// A name or info-hash in the catalogue of a tracker; `None`: the configured one.
    Catalogue {
        /// Name or info-hash.
        name: String,
        /// `IP:PORT` or a URL.
        tracker: Option<String>,
    },
}

/// A torrent to be added, however it was asked for.
#[derive(Debug, Clone)]
pub struct NewTorrent {
    /// What it is.
    pub source: AddSource,
    /// Folder to download into; relative to the downloads folder; `None`: that folder. Must lie in
    /// an allowed root.
    pub folder: Option<PathBuf>,
    /// What was chosen for it. `paused` as wished: the caller looks at `start_added`.
    pub settings: TorrentSettings,
    /// Only these files, as people write them.
    pub only_files: Option<String>,
    /// Trackers besides its own.
    pub trackers: Vec<String>,
    /// Peers to begin with.
    pub peers: Vec<std::net::SocketAddr>,
}

/// Hears what changes, a few times a second at most for each torrent.
#[derive(Debug)]
pub struct Listener {}

impl Daemon {
    /// Opens the state, starts the engine, and puts every torrent where it was.
    ///
    /// # Errors
    /// If an address, the state or a folder cannot be had.
    pub async fn start(_config: DaemonConfig) -> Result<Self, StartError> {
        unimplemented!()
    }

    /// Leaves all swarms, writes down how everything stands, and ends; within ten seconds.
    pub async fn shutdown(&self) {
        unimplemented!()
    }

    /// All torrents in the order of the queue, and how the daemon does.
    pub fn overview(&self) -> Overview {
        unimplemented!()
    }

    /// All torrents in the order of the queue.
    pub fn torrents(&self) -> Vec<Torrent> {
        unimplemented!()
    }

    /// One torrent.
    pub fn torrent(&self, _info_hash: InfoHash) -> Option<Torrent> {
        unimplemented!()
    }

    /// The torrents that changed (and those that went) since `then`, seconds since 1970.
    pub fn changed_since(&self, _then: i64) -> (Vec<Torrent>, Vec<(InfoHash, u64)>) {
        unimplemented!()
    }

    /// One torrent with its files and trackers.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn detail(&self, _info_hash: InfoHash) -> Result<TorrentDetail, DaemonError> {
        unimplemented!()
    }

    /// Connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn peers(&self, _info_hash: InfoHash) -> Result<Vec<PeerInfo>, DaemonError> {
        unimplemented!()
    }

    /// Which pieces are held, here and among the connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn pieces(&self, _info_hash: InfoHash) -> Result<PieceMap, DaemonError> {
        unimplemented!()
    }

    /// Who gave which piece: the last `limit` responses, oldest first.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub fn log(&self, _info_hash: InfoHash, _limit: usize) -> Result<Vec<LogEntry>, DaemonError> {
        unimplemented!()
    }

    /// The `.torrent` as it was given.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub fn torrent_bytes(&self, _info_hash: InfoHash) -> Result<Vec<u8>, DaemonError> {
        unimplemented!()
    }

    /// Makes a torrent of what is on this machine (or takes a made one), registers it with its
    /// tracker, and serves it.
    ///
    /// # Errors
    /// If the input cannot be read or may not be shared.
    pub async fn seed(&self, _request: SeedRequest) -> Result<Added, DaemonError> {
        unimplemented!()
    }

    /// Downloads, as the native API asks for it.
    ///
    /// # Errors
    /// If there is no such torrent to be had, or its folder is not allowed.
    pub async fn leech(&self, _request: LeechRequest) -> Result<Added, DaemonError> {
        unimplemented!()
    }

    /// Adds a torrent. One that is there already is left as it is and told as a duplicate.
    ///
    /// # Errors
    /// If there is no such torrent to be had, or its folder is not allowed.
    pub async fn add(&self, _new: NewTorrent) -> Result<Added, DaemonError> {
        unimplemented!()
    }

    /// Takes a torrent out; its files stay unless the request says otherwise.
    ///
    /// # Errors
    /// If it is not here, or its files cannot be deleted (it is out all the same).
    pub async fn remove(
        &self,
        _info_hash: InfoHash,
        _request: RemoveRequest,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Starts a torrent when it is its turn; at once if `forced`.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn start_torrent(
        &self,
        _info_hash: InfoHash,
        _forced: bool,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Pauses a torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn pause(&self, _info_hash: InfoHash) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Hashes what is on disk anew.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn recheck(&self, _info_hash: InfoHash) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Asks its trackers for peers, as far as they allow.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn reannounce(&self, _info_hash: InfoHash) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Tells it of peers.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn add_peers(
        &self,
        _info_hash: InfoHash,
        _peers: Vec<std::net::SocketAddr>,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Changes what was chosen for a torrent.
    ///
    /// # Errors
    /// If it is not here or the change makes no sense; then nothing is changed.
    pub async fn change(
        &self,
        _info_hash: InfoHash,
        _change: TorrentChange,
    ) -> Result<Torrent, DaemonError> {
        unimplemented!()
    }

    /// Begins to move a torrent's data to another folder, or looks for it there. It is over when
    /// the torrent's state is no longer [`State::Moving`](crate::api::State::Moving).
    ///
    /// # Errors
    /// If it is not here, or the folder is not allowed.
    pub async fn move_data(
        &self,
        _info_hash: InfoHash,
        _request: MoveRequest,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Renames the torrent, a folder or a file in it.
    ///
    /// # Errors
    /// If there is no such path or the name is taken.
    pub async fn rename(
        &self,
        _info_hash: InfoHash,
        _request: RenameRequest,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// Moves torrents in the queue, together, in their present order.
    ///
    /// # Errors
    /// If one is not here.
    pub async fn move_in_queue(
        &self,
        _info_hashes: &[InfoHash],
        _to: QueueMove,
    ) -> Result<(), DaemonError> {
        unimplemented!()
    }

    /// What was chosen for the daemon.
    pub fn settings(&self) -> Settings {
        unimplemented!()
    }

    /// Changes what was chosen for the daemon.
    ///
    /// # Errors
    /// If the change makes no sense; then nothing is changed.
    pub async fn change_settings(&self, _change: SettingsChange) -> Result<Settings, DaemonError> {
        unimplemented!()
    }

    /// Reads the block list anew and gives the number of its ranges.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn reload_block_list(&self) -> Result<u64, DaemonError> {
        unimplemented!()
    }

    /// Ranges of the block list.
    pub fn block_list_len(&self) -> u64 {
        unimplemented!()
    }

    /// What the tracker has; `tracker`: another one than the configured.
    ///
    /// # Errors
    /// If there is none or it does not answer.
    pub async fn catalogue(
        &self,
        _tracker: Option<&str>,
        _name: Option<&str>,
    ) -> Result<CatalogueAnswer, DaemonError> {
        unimplemented!()
    }

    /// Room in `folder` or its nearest ancestor that exists.
    ///
    /// # Errors
    /// If that cannot be told, or the folder is not allowed.
    pub async fn free_space(&self, _folder: &Path) -> Result<FreeSpace, DaemonError> {
        unimplemented!()
    }

    /// Whether the peer port takes connections.
    pub async fn port_test(&self) -> PortTest {
        unimplemented!()
    }

    /// What changes from now on, beginning with everything there is.
    pub fn listen(&self) -> Listener {
        unimplemented!()
    }

    /// The port peers connect to.
    pub fn peer_port(&self) -> u16 {
        unimplemented!()
    }
}

impl Listener {
    /// The next thing; `None` once the daemon has ended. Who is slow hears less, never something
    /// stale last.
    pub async fn next(&mut self) -> Option<Event> {
        unimplemented!()
    }
}
