//! What can be asked of the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::catalogue::CatalogueRows;
use super::detail::FileRows;
use super::givers::LogQuery;
use super::inner::Inner;
use super::listen::Listener;
use super::making::BegunSeed;
use super::overview::{Figures, TorrentParts};
use super::stopping::SHUTDOWN;
use super::{Caller, DaemonConfig, DaemonError, StartError, start};
use piecework_api::{
    Added, BadPiece, FolderList, FolderUse, FreeSpace, Givers, InspectRequest, Inspected,
    LeechRequest, LogEntry, MoveRequest, Overview, PeerInfo, PieceMap, PieceStory, PortTest,
    QueueMove, RemoveRequest, RenameRequest, SeedRequest, SentPieces, Settings, SettingsChange,
    Sources, Timeline, Torrent, TorrentChange, TorrentDetail, TorrentSettings,
};
use piecework_core::InfoHash;

/// A running daemon. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
    /// Who asks.
    caller: Caller,
}

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
    pub peers: Vec<SocketAddr>,
    /// The name its file or folder gets in place of the torrent's own.
    pub rename: Option<String>,
    /// Replace files that have the names of its files and are not its own.
    pub overwrite: bool,
}

impl Daemon {
    /// Opens the state, starts the engine, and puts every torrent where it was.
    ///
    /// # Errors
    /// If an address, the state or a folder cannot be had.
    pub async fn start(config: DaemonConfig) -> Result<Self, StartError> {
        Ok(Self { inner: start::start(config).await?, caller: Caller::Owner })
    }

    /// The same daemon, asked by `caller`.
    pub fn for_caller(&self, caller: Caller) -> Self {
        Self { inner: Arc::clone(&self.inner), caller }
    }

    /// Who asks.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// Returns an error that begins with `what` unless the owner asks.
    ///
    /// # Errors
    /// [`DaemonError::OwnerOnly`] with `what`, the beginning of a sentence.
    pub fn must_own(&self, what: &str) -> Result<(), DaemonError> {
        self.caller.must_own(what)
    }

    /// Ends: writes down how everything stands, then leaves all swarms; within ten seconds.
    pub async fn shutdown(&self) {
        self.shutdown_by(Instant::now() + SHUTDOWN).await;
    }

    /// The same until `deadline`. What could not be done by then is logged: a disk did not take the
    /// last state, or trackers were not told.
    pub async fn shutdown_by(&self, deadline: Instant) {
        self.inner.shutdown_by(deadline).await;
    }

    /// All torrents in the order of the queue, and how the daemon does.
    pub fn overview(&self) -> Overview {
        self.inner.overview()
    }

    /// How the daemon does, in figures. Looks at every torrent.
    pub fn figures(&self) -> Figures {
        self.inner.figures()
    }

    /// All torrents in the order of the queue.
    pub fn torrents(&self) -> Vec<Torrent> {
        let torrents = self.inner.book.lock().show_all();
        self.inner.tidy_after(torrents.len());
        torrents
    }

    /// One torrent.
    pub fn torrent(&self, info_hash: InfoHash) -> Option<Torrent> {
        self.inner.book.lock().show(info_hash)
    }

    /// How the daemon does, without its torrents.
    pub fn summary(&self) -> Overview {
        self.inner.summary()
    }

    /// One torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub fn shown(&self, info_hash: InfoHash) -> Result<Torrent, DaemonError> {
        self.inner.show(info_hash)
    }

    /// The info-hashes of all torrents in the order of the queue.
    pub fn hashes(&self) -> Vec<InfoHash> {
        self.inner.book.lock().order.iter().collect()
    }

    /// The info-hashes of torrents in the order of the queue: `limit` of them, from the one at `offset`.
    pub fn page(&self, offset: usize, limit: usize) -> Vec<InfoHash> {
        self.inner.page(offset, limit)
    }

    /// The number of each torrent and its info-hash, in the order of the queue.
    pub fn numbers(&self) -> Vec<(u64, InfoHash)> {
        let book = self.inner.book.lock();
        let number = |hash: InfoHash| Some((book.torrents.get(&hash)?.id, hash));
        book.order.iter().filter_map(number).collect()
    }

    /// Those of `hashes` that are here, once each, in the order of the queue.
    pub fn in_order(&self, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
        self.inner.in_order(hashes)
    }

    /// The torrents that changed since `then`, seconds since 1970, in the order of the queue. Costs
    /// what has changed, if that was not more than ten minutes ago.
    pub fn changed_since(&self, then: i64) -> Vec<InfoHash> {
        self.inner.changed_since(then)
    }

    /// The torrents that went since `then`, seconds since 1970, and the numbers they had: the last
    /// ten thousand of this run of the daemon. A provisional info-hash has no number: the torrent is
    /// there under its own.
    pub fn removed_since(&self, then: i64) -> Vec<(InfoHash, Option<u64>)> {
        self.inner.removed_since(then)
    }

    /// How many of the torrents were added since `then`, seconds since 1970.
    pub fn added_since(&self, then: i64) -> usize {
        let book = self.inner.book.lock();
        book.torrents.values().filter(|entry| entry.added_at >= then).count()
    }

    /// One torrent with its trackers; its list of files is empty.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn detail_without_files(
        &self,
        info_hash: InfoHash,
    ) -> Result<TorrentDetail, DaemonError> {
        self.inner.detail_without_files(info_hash).await
    }

    /// The files of one torrent, which are made one by one.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn files(&self, info_hash: InfoHash) -> Result<FileRows, DaemonError> {
        self.inner.files(info_hash).await
    }

    /// One torrent with its files and trackers.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn detail(&self, info_hash: InfoHash) -> Result<TorrentDetail, DaemonError> {
        self.inner.detail(info_hash).await
    }

    /// What its `.torrent` says besides: web seeds, nodes, where it was published.
    ///
    /// # Errors
    /// If it is not here, or its `.torrent` cannot be read.
    pub async fn sources(&self, info_hash: InfoHash) -> Result<Sources, DaemonError> {
        self.inner.sources(info_hash).await
    }

    /// Connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn peers(&self, info_hash: InfoHash) -> Result<Vec<PeerInfo>, DaemonError> {
        self.inner.peers(info_hash).await
    }

    /// Which pieces are held, here and among the connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn pieces(&self, info_hash: InfoHash) -> Result<PieceMap, DaemonError> {
        self.inner.pieces(info_hash).await
    }

    /// Who gave which piece: responses, oldest first.
    ///
    /// # Errors
    /// If the torrent is not here, or the journal cannot be read.
    pub async fn log(
        &self,
        info_hash: InfoHash,
        query: LogQuery,
    ) -> Result<Vec<LogEntry>, DaemonError> {
        self.inner.log_of(info_hash, query).await
    }

    /// Who gave the torrent, over all runs, and who gave most of each piece.
    ///
    /// # Errors
    /// If the torrent is not here, or there is no journal, or it cannot be read.
    pub async fn givers(&self, info_hash: InfoHash) -> Result<Givers, DaemonError> {
        self.inner.givers(info_hash).await
    }

    /// What was sent to whom, by records that follow the one with the number `after`; with `taker`
    /// to that peer alone.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn sent(
        &self,
        info_hash: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<SentPieces, DaemonError> {
        self.inner.sent(info_hash, after, taker).await
    }

    /// What happened to one piece.
    ///
    /// # Errors
    /// As [`Daemon::givers`]; and if there is no such piece.
    pub async fn story(&self, info_hash: InfoHash, piece: u32) -> Result<PieceStory, DaemonError> {
        self.inner.story(info_hash, piece).await
    }

    /// Pieces that came wrong, and who is to blame.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn bad(&self, info_hash: InfoHash) -> Result<Vec<BadPiece>, DaemonError> {
        self.inner.bad(info_hash).await
    }

    /// When pieces came and from whom, in `buckets` parts.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn timeline(
        &self,
        info_hash: InfoHash,
        buckets: u32,
    ) -> Result<Timeline, DaemonError> {
        self.inner.timeline(info_hash, buckets).await
    }

    /// The `.torrent` as it was given, in parts: it may have 100 MiB.
    ///
    /// # Errors
    /// If the torrent is not here or not hashed yet, or its file is gone or another one.
    pub async fn torrent_parts(&self, info_hash: InfoHash) -> Result<TorrentParts, DaemonError> {
        self.inner.torrent_parts(info_hash).await
    }

    /// The `.torrent` as it was given.
    ///
    /// # Errors
    /// If the torrent is not here, or its file is gone or another torrent.
    pub async fn torrent_bytes(&self, info_hash: InfoHash) -> Result<Vec<u8>, DaemonError> {
        self.inner.torrent_bytes(info_hash).await
    }

    /// Makes a torrent of what is on this machine (or takes a made one), registers it with its
    /// tracker, and serves it. Waits until everything is hashed, whatever the request says; that goes
    /// on if nobody waits.
    ///
    /// # Errors
    /// If the input cannot be read or may not be shared, or a guest asks.
    pub async fn seed(&self, request: SeedRequest) -> Result<Added, DaemonError> {
        self.begin_seed(request).await?.done().await
    }

    /// The same, but returns as soon as the torrent is listed, which it is over restarts.
    ///
    /// # Errors
    /// If the input is not there or may not be shared, or a guest asks.
    pub async fn begin_seed(&self, request: SeedRequest) -> Result<BegunSeed, DaemonError> {
        self.caller.must_own("sharing files")?;
        let caller = self.caller;
        self.whole(move |inner| async move { inner.begin_seed(request, caller).await }).await
    }

    /// The info-hash of the torrent that is or was listed under this one, which may be provisional.
    pub fn listed_as(&self, info_hash: InfoHash) -> InfoHash {
        self.inner.book.lock().listed_as(info_hash)
    }

    /// Downloads, as the native API asks for it.
    ///
    /// # Errors
    /// If there is no such torrent to be had, or its folder is not allowed.
    pub async fn leech(&self, request: LeechRequest) -> Result<Added, DaemonError> {
        let caller = self.caller;
        self.whole(move |inner| async move { inner.leech(request, caller).await }).await
    }

    /// Returns what a torrent holds, without adding it.
    ///
    /// # Errors
    /// If there is no such torrent to be had.
    pub async fn inspect(&self, request: InspectRequest) -> Result<Inspected, DaemonError> {
        self.inner.inspect(request, self.caller).await
    }

    /// Adds a torrent. One that is there already is left as it is and told as a duplicate.
    ///
    /// # Errors
    /// If there is no such torrent to be had, or its folder is not allowed.
    pub async fn add(&self, new: NewTorrent) -> Result<Added, DaemonError> {
        let caller = self.caller;
        self.whole(move |inner| async move { inner.add(new, caller).await }).await
    }

    /// Takes a torrent out; its files stay unless the request says otherwise.
    ///
    /// # Errors
    /// If it is not here, or its files cannot be deleted (it is out all the same).
    pub async fn remove(
        &self,
        info_hash: InfoHash,
        request: RemoveRequest,
    ) -> Result<(), DaemonError> {
        let caller = self.caller;
        self.whole(move |inner| async move { inner.remove(info_hash, request, caller).await }).await
    }

    /// Starts a torrent when it is its turn; at once if `forced`.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn start_torrent(
        &self,
        info_hash: InfoHash,
        forced: bool,
    ) -> Result<(), DaemonError> {
        self.whole(move |inner| async move { inner.start_torrent(info_hash, forced).await }).await
    }

    /// Replaces files that have the names of a torrent's files and are not its own, and starts it
    /// when it is its turn.
    ///
    /// # Errors
    /// If it is not here, or not in the engine.
    pub async fn overwrite(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |inner| async move { inner.overwrite(info_hash).await }).await
    }

    /// Pauses a torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn pause(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |inner| async move { inner.pause(info_hash).await }).await
    }

    /// Hashes what is on disk anew.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn recheck(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |inner| async move { inner.recheck(info_hash).await }).await
    }

    /// Asks its trackers for peers, as far as they allow.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn reannounce(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.inner.live(info_hash)?.reannounce().await;
        Ok(())
    }

    /// Returns the addresses of peers, `IP:PORT` or `HOST:PORT`.
    ///
    /// # Errors
    /// If one is neither, or is not known, or there are too many.
    pub async fn look_up_peers(&self, peers: &[String]) -> Result<Vec<SocketAddr>, DaemonError> {
        super::add::look_up_peers(peers).await
    }

    /// Tells it of peers.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn add_peers(
        &self,
        info_hash: InfoHash,
        peers: Vec<SocketAddr>,
    ) -> Result<(), DaemonError> {
        self.inner.live(info_hash)?.add_peers(peers).await;
        Ok(())
    }

    /// Changes what was chosen for a torrent.
    ///
    /// # Errors
    /// If it is not here or the change makes no sense; then nothing is changed.
    pub async fn change(
        &self,
        info_hash: InfoHash,
        change: TorrentChange,
    ) -> Result<Torrent, DaemonError> {
        let caller = self.caller;
        self.whole(move |inner| async move { inner.change(info_hash, change, caller).await }).await
    }

    /// Begins to move a torrent's data to another folder, or looks for it there. It is over when
    /// the torrent's state is no longer [`State::Moving`](piecework_api::State::Moving).
    ///
    /// # Errors
    /// If it is not here, or the folder is not allowed.
    pub async fn move_data(
        &self,
        info_hash: InfoHash,
        request: MoveRequest,
    ) -> Result<(), DaemonError> {
        let caller = self.caller;
        self.whole(move |inner| async move { inner.move_data(info_hash, request, caller).await })
            .await
    }

    /// Renames the torrent, a folder or a file in it.
    ///
    /// # Errors
    /// If there is no such path or the name is taken.
    pub async fn rename(
        &self,
        info_hash: InfoHash,
        request: RenameRequest,
    ) -> Result<(), DaemonError> {
        self.whole(move |inner| async move { inner.rename(info_hash, request).await }).await
    }

    /// Moves torrents in the queue, together, in their present order.
    ///
    /// # Errors
    /// If one is not here.
    pub async fn move_in_queue(
        &self,
        info_hashes: &[InfoHash],
        to: QueueMove,
    ) -> Result<(), DaemonError> {
        let moved = info_hashes.to_vec();
        self.whole(move |inner| async move { inner.move_in_queue(&moved, to).await }).await
    }

    /// What was chosen for the daemon.
    pub fn settings(&self) -> Settings {
        self.inner.book.lock().settings.clone()
    }

    /// Changes what was chosen for the daemon.
    ///
    /// # Errors
    /// If the change makes no sense; then nothing is changed.
    pub async fn change_settings(&self, change: SettingsChange) -> Result<Settings, DaemonError> {
        self.inner.check_settings(self.caller, &change)?;
        let caller = self.caller;
        self.whole(move |inner| async move { inner.change_settings(change, caller).await }).await
    }

    /// Reads the block list anew and gives the number of its ranges.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn reload_block_list(&self) -> Result<u64, DaemonError> {
        self.inner.read_block_list(true).await
    }

    /// Ranges of the block list.
    pub fn block_list_len(&self) -> u64 {
        self.inner.blocked.lock().ranges
    }

    /// What the tracker has; `tracker`: another one than the configured.
    ///
    /// # Errors
    /// If there is none or it does not answer.
    pub async fn catalogue(
        &self,
        tracker: Option<&str>,
        name: Option<&str>,
    ) -> Result<CatalogueRows, DaemonError> {
        self.inner.catalogue(tracker, name, self.caller).await
    }

    /// Room in `folder` or its nearest ancestor that exists.
    ///
    /// # Errors
    /// If that cannot be told, or the folder is not allowed.
    pub async fn free_space(&self, folder: &Path) -> Result<FreeSpace, DaemonError> {
        self.inner.free_space(folder, self.caller).await
    }

    /// What is in `folder` of that which may be chosen for `purpose`; without it, where choosing begins.
    ///
    /// # Errors
    /// If a guest asks, nothing there may be chosen, or it cannot be read.
    pub async fn folder_list(
        &self,
        folder: Option<&str>,
        purpose: FolderUse,
    ) -> Result<FolderList, DaemonError> {
        self.inner.folder_list(folder, purpose, self.caller).await
    }

    /// Whether the peer port takes connections.
    pub async fn port_test(&self) -> PortTest {
        self.inner.port_test().await
    }

    /// What changes from now on, beginning with everything there is.
    pub fn listen(&self) -> Listener {
        Listener::new(Arc::clone(&self.inner), None)
    }

    /// The same of one torrent alone, and who gives its pieces.
    pub fn listen_to(&self, info_hash: InfoHash) -> Listener {
        Listener::new(Arc::clone(&self.inner), Some(info_hash))
    }

    /// Where peers connect to.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        self.inner.session.listen_addrs()
    }

    /// The port peers connect to.
    pub fn peer_port(&self) -> u16 {
        self.listen_addrs().first().map_or(0, SocketAddr::port)
    }

    /// The configured tracker: `IP:PORT` or URL.
    pub fn tracker(&self) -> Option<&str> {
        self.inner.config.tracker.as_deref()
    }

    /// Does `work` to its end, though nobody may wait for it any more: a change that is begun is
    /// made whole.
    async fn whole<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, DaemonError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DaemonError>> + Send + 'static,
    {
        // It is never aborted, so it panicked; or the runtime ends.
        tokio::spawn(work(Arc::clone(&self.inner))).await.unwrap_or(Err(DaemonError::Ending))
    }
}
