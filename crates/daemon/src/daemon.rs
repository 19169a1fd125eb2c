//! The daemon's API: all that can be asked of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::catalogue::CatalogueRows;
use super::commands::Commands;
use super::detail::FileRows;
use super::givers::{JournalQueries, LogQuery};
use super::listener::Listener;
use super::services::Services;
use super::shutdown::SHUTDOWN;
use super::status::DaemonFigures;
use super::torrent_folder::TorrentParts;
use super::unhashed::PendingSeed;
use super::{
    Caller, DaemonConfig, DaemonError, NewTorrent, StartError, add, detail, folder_list, port_test,
    queue_position, start,
};
use piecework_api::{
    Added, BadPiece, FolderList, FolderUse, FreeSpace, Givers, InspectRequest, Inspected,
    LeechRequest, LogEntry, MoveRequest, Overview, PeerInfo, PieceMap, PieceStory, PortTest,
    QueueMove, RemoveRequest, RenameRequest, SeedRequest, SentPieces, Settings, SettingsChange,
    Sources, Timeline, Torrent, TorrentChange, TorrentDetail,
};
use piecework_core::InfoHash;

/// A running daemon. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    parts: Arc<Parts>,
    /// Returns on whose behalf requests are made.
    caller: Caller,
}

struct Parts {
    services: Services,
    commands: Commands,
}

impl Daemon {
    /// Opens the state, starts the engine, and restores all torrents.
    ///
    /// # Errors
    /// If an address cannot be bound, or the state or a folder cannot be opened.
    pub async fn start(config: DaemonConfig) -> Result<Self, StartError> {
        let (services, commands) = start::start(config).await?;
        let parts = Arc::new(Parts { services, commands });
        Ok(Self { parts, caller: Caller::Owner })
    }

    /// Returns the same daemon for requests of `caller`.
    pub fn for_caller(&self, caller: Caller) -> Self {
        Self { parts: Arc::clone(&self.parts), caller }
    }

    /// Returns on whose behalf requests are made.
    pub fn caller(&self) -> Caller {
        self.caller
    }

    /// Returns an error that begins with `what` unless the caller is the owner.
    ///
    /// # Errors
    /// [`DaemonError::OwnerOnly`] with `what`, the beginning of a sentence.
    pub fn must_own(&self, what: &str) -> Result<(), DaemonError> {
        self.caller.must_own(what)
    }

    /// Writes the state and leaves all swarms, within ten seconds.
    pub async fn shutdown(&self) {
        self.shutdown_by(Instant::now() + SHUTDOWN).await;
    }

    /// Shuts down by `deadline`. Logs what could not be done by then: the last state was not
    /// written, or trackers were not told.
    pub async fn shutdown_by(&self, deadline: Instant) {
        self.parts.commands.shutdown.run(deadline).await;
    }

    /// Returns all torrents in the order of the queue, and the daemon's totals.
    pub fn overview(&self) -> Overview {
        self.services().status.overview()
    }

    /// Returns figures about the daemon, for metrics.
    pub fn figures(&self) -> DaemonFigures {
        self.services().status.figures()
    }

    /// Returns all torrents in the order of the queue.
    pub fn torrents(&self) -> Vec<Torrent> {
        let torrents = self.services().torrents.table().show_all();
        self.services().status.tidy_after(torrents.len());
        torrents
    }

    /// Returns one torrent.
    pub fn torrent(&self, info_hash: InfoHash) -> Option<Torrent> {
        self.services().torrents.table().show(info_hash)
    }

    /// Returns the daemon's totals, without its torrents.
    pub fn summary(&self) -> Overview {
        self.services().status.summary()
    }

    /// Returns one torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub fn shown(&self, info_hash: InfoHash) -> Result<Torrent, DaemonError> {
        self.services().torrents.show(info_hash)
    }

    /// Returns the info-hashes of all torrents in the order of the queue.
    pub fn hashes(&self) -> Vec<InfoHash> {
        self.services().torrents.table().order.iter().collect()
    }

    /// Returns the info-hashes of `limit` torrents in the order of the queue, from the one at
    /// `offset`.
    pub fn page(&self, offset: usize, limit: usize) -> Vec<InfoHash> {
        self.services().status.page(offset, limit)
    }

    /// Returns the number and info-hash of each torrent, in the order of the queue.
    pub fn numbers(&self) -> Vec<(u64, InfoHash)> {
        let table = self.services().torrents.table();
        let number = |hash: InfoHash| Some((table.entries.get(&hash)?.id, hash));
        table.order.iter().filter_map(number).collect()
    }

    /// Returns those of `hashes` that are here, once each, in the order of the queue.
    pub fn in_order(&self, hashes: impl IntoIterator<Item = InfoHash>) -> Vec<InfoHash> {
        self.services().status.in_order(hashes)
    }

    /// Returns the torrents that changed since `then`, in seconds since 1970, in the order of the
    /// queue. The cost grows with the number of changes, or with the number of torrents if `then`
    /// is more than ten minutes ago.
    pub fn changed_since(&self, then: i64) -> Vec<InfoHash> {
        self.services().status.changed_since(then)
    }

    /// Returns the torrents that were removed since `then`, in seconds since 1970, and the numbers
    /// they had: at most the last ten thousand of this run. A provisional info-hash has no number,
    /// since the torrent is there under its own.
    pub fn removed_since(&self, then: i64) -> Vec<(InfoHash, Option<u64>)> {
        self.services().status.removed_since(then)
    }

    /// Returns how many torrents were added since `then`, in seconds since 1970.
    pub fn added_since(&self, then: i64) -> usize {
        let table = self.services().torrents.table();
        table.entries.values().filter(|entry| entry.added_at >= then).count()
    }

    /// Returns one torrent with its trackers. Its list of files is empty.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn detail_without_files(
        &self,
        info_hash: InfoHash,
    ) -> Result<TorrentDetail, DaemonError> {
        detail::detail_without_files(&self.services().torrents, self.torrent_folder(), info_hash)
            .await
    }

    /// Returns the files of one torrent, as rows that are built one by one.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn files(&self, info_hash: InfoHash) -> Result<FileRows, DaemonError> {
        detail::files(&self.services().torrents, info_hash).await
    }

    /// Returns one torrent with its files and trackers.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn detail(&self, info_hash: InfoHash) -> Result<TorrentDetail, DaemonError> {
        detail::detail(&self.services().torrents, self.torrent_folder(), info_hash).await
    }

    /// Returns other sources that its `.torrent` names: web seeds, nodes, where it was published.
    ///
    /// # Errors
    /// If it is not here, or its `.torrent` cannot be read.
    pub async fn sources(&self, info_hash: InfoHash) -> Result<Sources, DaemonError> {
        detail::sources(&self.services().torrents, info_hash).await
    }

    /// Returns the connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn peers(&self, info_hash: InfoHash) -> Result<Vec<PeerInfo>, DaemonError> {
        detail::peers(&self.services().torrents, info_hash).await
    }

    /// Returns which pieces are held, here and by the connected peers.
    ///
    /// # Errors
    /// If the torrent is not here.
    pub async fn pieces(&self, info_hash: InfoHash) -> Result<PieceMap, DaemonError> {
        detail::pieces(&self.services().torrents, info_hash).await
    }

    /// Returns who gave which piece, oldest first.
    ///
    /// # Errors
    /// If the torrent is not here, or the journal cannot be read.
    pub async fn log(
        &self,
        info_hash: InfoHash,
        query: LogQuery,
    ) -> Result<Vec<LogEntry>, DaemonError> {
        self.journal().log(info_hash, query).await
    }

    /// Returns who gave the torrent, over all runs, and who gave most of each piece.
    ///
    /// # Errors
    /// If the torrent is not here, or there is no journal, or it cannot be read.
    pub async fn givers(&self, info_hash: InfoHash) -> Result<Givers, DaemonError> {
        self.journal().givers(info_hash).await
    }

    /// Returns what was sent to whom, from the records after number `after`; with `taker`, only
    /// what was sent to that peer.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn sent(
        &self,
        info_hash: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<SentPieces, DaemonError> {
        self.journal().sent(info_hash, after, taker).await
    }

    /// Returns what happened to one piece.
    ///
    /// # Errors
    /// As [`Daemon::givers`], and if there is no such piece.
    pub async fn story(&self, info_hash: InfoHash, piece: u32) -> Result<PieceStory, DaemonError> {
        self.journal().story(info_hash, piece).await
    }

    /// Returns pieces that were wrong, and who is to blame.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn bad(&self, info_hash: InfoHash) -> Result<Vec<BadPiece>, DaemonError> {
        self.journal().bad(info_hash).await
    }

    /// Returns when pieces arrived and from whom, in `buckets` parts.
    ///
    /// # Errors
    /// As [`Daemon::givers`].
    pub async fn timeline(
        &self,
        info_hash: InfoHash,
        buckets: u32,
    ) -> Result<Timeline, DaemonError> {
        self.journal().timeline(info_hash, buckets).await
    }

    /// Returns the original `.torrent` in parts, since it may have 100 MiB.
    ///
    /// # Errors
    /// If the torrent is not here or not hashed yet, or its file is gone or is another torrent.
    pub async fn torrent_parts(&self, info_hash: InfoHash) -> Result<TorrentParts, DaemonError> {
        self.services().torrent_folder.parts(info_hash).await
    }

    /// Returns the original `.torrent`.
    ///
    /// # Errors
    /// If the torrent is not here, or its file is gone or another torrent.
    pub async fn torrent_bytes(&self, info_hash: InfoHash) -> Result<Vec<u8>, DaemonError> {
        self.services().torrent_folder.bytes(info_hash).await
    }

    /// Makes a torrent of files on this machine (or uses an existing `.torrent`), registers it with
    /// its tracker, and serves it. Waits until everything is hashed, whatever the request says.
    /// Hashing goes on if the future is dropped.
    ///
    /// # Errors
    /// If the input cannot be read or may not be shared, or a guest asks.
    pub async fn seed(&self, request: SeedRequest) -> Result<Added, DaemonError> {
        self.begin_seed(request).await?.done().await
    }

    /// Shares files as [`Daemon::seed`] does, but returns as soon as the torrent is listed. It
    /// stays listed over restarts.
    ///
    /// # Errors
    /// If the input does not exist or may not be shared, or a guest asks.
    pub async fn begin_seed(&self, request: SeedRequest) -> Result<PendingSeed, DaemonError> {
        self.caller.must_own("sharing files")?;
        let caller = self.caller;
        self.whole(move |parts| async move { parts.commands.sharer.begin(request, caller).await })
            .await
    }

    /// Returns the info-hash of the torrent that is or was listed under this one, which may be
    /// provisional.
    pub fn listed_as(&self, info_hash: InfoHash) -> InfoHash {
        self.services().torrents.table().listed_as(info_hash)
    }

    /// Adds a download, as the native API asks for it.
    ///
    /// # Errors
    /// If the torrent cannot be obtained, or its folder is not allowed.
    pub async fn leech(&self, request: LeechRequest) -> Result<Added, DaemonError> {
        let caller = self.caller;
        self.whole(move |parts| async move { parts.commands.adder.leech(request, caller).await })
            .await
    }

    /// Returns what a torrent contains, without adding it.
    ///
    /// # Errors
    /// If the torrent cannot be obtained.
    pub async fn inspect(&self, request: InspectRequest) -> Result<Inspected, DaemonError> {
        self.parts.commands.adder.inspect(request, self.caller).await
    }

    /// Adds a torrent. One that is already here is left unchanged and reported as a duplicate.
    ///
    /// # Errors
    /// If the torrent cannot be obtained, or its folder is not allowed.
    pub async fn add(&self, new: NewTorrent) -> Result<Added, DaemonError> {
        let caller = self.caller;
        self.whole(move |parts| async move { parts.commands.adder.add(new, caller).await }).await
    }

    /// Removes a torrent. Its files stay unless the request says otherwise.
    ///
    /// # Errors
    /// If it is not here, or its files cannot be deleted. In the latter case it is removed
    /// nevertheless.
    pub async fn remove(
        &self,
        info_hash: InfoHash,
        request: RemoveRequest,
    ) -> Result<(), DaemonError> {
        let caller = self.caller;
        self.whole(move |parts| async move {
            parts.commands.remover.remove(info_hash, request, caller).await
        })
        .await
    }

    /// Starts a torrent when the queue gives it a turn, or at once if `forced`.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn start_torrent(
        &self,
        info_hash: InfoHash,
        forced: bool,
    ) -> Result<(), DaemonError> {
        self.whole(move |parts| async move { parts.commands.run.start(info_hash, forced).await })
            .await
    }

    /// Lets a torrent replace files that have the names of its own but other content, and starts it
    /// when the queue gives it a turn.
    ///
    /// # Errors
    /// If it is not here, or not in the engine.
    pub async fn overwrite(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |parts| async move { parts.commands.run.overwrite(info_hash).await }).await
    }

    /// Pauses a torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn pause(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |parts| async move { parts.commands.run.pause(info_hash).await }).await
    }

    /// Hashes all of a torrent's data on disk again.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn recheck(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.whole(move |parts| async move { parts.commands.run.recheck(info_hash).await }).await
    }

    /// Announces to its trackers again, as often as they allow.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn reannounce(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        self.services().torrents.live(info_hash)?.reannounce().await;
        Ok(())
    }

    /// Returns the addresses of peers, `IP:PORT` or `HOST:PORT`.
    ///
    /// # Errors
    /// If one is neither, cannot be resolved, or there are too many.
    pub async fn look_up_peers(&self, peers: &[String]) -> Result<Vec<SocketAddr>, DaemonError> {
        add::look_up_peers(peers).await
    }

    /// Adds peers to a torrent.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn add_peers(
        &self,
        info_hash: InfoHash,
        peers: Vec<SocketAddr>,
    ) -> Result<(), DaemonError> {
        self.services().torrents.live(info_hash)?.add_peers(peers).await;
        Ok(())
    }

    /// Changes the settings of a torrent.
    ///
    /// # Errors
    /// If it is not here or the change is invalid. Then nothing is changed.
    pub async fn change(
        &self,
        info_hash: InfoHash,
        change: TorrentChange,
    ) -> Result<Torrent, DaemonError> {
        let caller = self.caller;
        self.whole(move |parts| async move {
            parts.commands.editor.change(info_hash, change, caller).await
        })
        .await
    }

    /// Begins to move a torrent's data to another folder, or to look for it there. This ends when
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
        self.whole(move |parts| async move {
            parts.commands.relocator.move_data(info_hash, request, caller).await
        })
        .await
    }

    /// Renames a torrent, or a folder or file in it.
    ///
    /// # Errors
    /// If there is no such path or the name is taken.
    pub async fn rename(
        &self,
        info_hash: InfoHash,
        request: RenameRequest,
    ) -> Result<(), DaemonError> {
        self.whole(
            move |parts| async move { parts.commands.relocator.rename(info_hash, request).await },
        )
        .await
    }

    /// Moves torrents in the queue. Among each other they keep their order.
    ///
    /// # Errors
    /// If one is not here.
    pub async fn move_in_queue(
        &self,
        info_hashes: &[InfoHash],
        to: QueueMove,
    ) -> Result<(), DaemonError> {
        let moved = info_hashes.to_vec();
        self.whole(move |parts| async move {
            queue_position::move_in_queue(&parts.services.torrents, &moved, to).await
        })
        .await
    }

    /// Returns the daemon's settings.
    pub fn settings(&self) -> Settings {
        self.services().torrents.table().settings.clone()
    }

    /// Changes the daemon's settings.
    ///
    /// # Errors
    /// If the change is invalid. Then nothing is changed.
    pub async fn change_settings(&self, change: SettingsChange) -> Result<Settings, DaemonError> {
        self.parts.commands.settings.check_caller(self.caller, &change)?;
        let caller = self.caller;
        self.whole(move |parts| async move { parts.commands.settings.change(change, caller).await })
            .await
    }

    /// Reads the block list again and returns the number of its ranges.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn reload_block_list(&self) -> Result<u64, DaemonError> {
        self.services().block_list.read(true).await
    }

    /// Returns the number of ranges in the block list.
    pub fn block_list_len(&self) -> u64 {
        self.services().block_list.ranges()
    }

    /// Returns the torrents of the configured tracker, or of `tracker`.
    ///
    /// # Errors
    /// If there is no tracker or it does not answer.
    pub async fn catalogue(
        &self,
        tracker: Option<&str>,
        name: Option<&str>,
    ) -> Result<CatalogueRows, DaemonError> {
        self.services().trackers.named(tracker, self.caller)?.list(name).await
    }

    /// Returns the free space in `folder` or its nearest ancestor that exists.
    ///
    /// # Errors
    /// If that cannot be read, or the folder is not allowed.
    pub async fn free_space(&self, folder: &Path) -> Result<FreeSpace, DaemonError> {
        folder_list::free_space(&self.services().folders, folder, self.caller).await
    }

    /// Returns what may be chosen for `purpose` in `folder`. Without `folder`, lists where choosing
    /// begins.
    ///
    /// # Errors
    /// If a guest asks, nothing there may be chosen, or it cannot be read.
    pub async fn folder_list(
        &self,
        folder: Option<&str>,
        purpose: FolderUse,
    ) -> Result<FolderList, DaemonError> {
        folder_list::folder_list(&self.services().folders, folder, purpose, self.caller).await
    }

    /// Tests whether the peer port accepts connections.
    pub async fn port_test(&self) -> PortTest {
        port_test::port_test(&self.services().session, &self.services().torrents).await
    }

    /// Returns a listener that is told everything there is, and then what changes.
    pub fn listen(&self) -> Listener {
        self.listener(None)
    }

    /// Returns a listener for one torrent, which is also told who gives its pieces.
    pub fn listen_to(&self, info_hash: InfoHash) -> Listener {
        self.listener(Some(info_hash))
    }

    /// Returns the addresses that peers connect to.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        self.services().session.listen_addrs()
    }

    /// Returns whether peers name other peers to each other.
    pub fn exchanges_peers(&self) -> bool {
        self.services().session.exchanges_peers()
    }

    /// Returns whether torrents are announced on the local network.
    pub fn announces_locally(&self) -> bool {
        self.services().session.announces_locally()
    }

    /// Returns the port that peers connect to.
    pub fn peer_port(&self) -> u16 {
        self.listen_addrs().first().map_or(0, SocketAddr::port)
    }

    /// Returns the configured tracker: `IP:PORT` or a URL.
    pub fn tracker(&self) -> Option<&str> {
        self.services().trackers.configured()
    }

    fn services(&self) -> &Services {
        &self.parts.services
    }

    fn journal(&self) -> &Arc<JournalQueries> {
        &self.services().journal
    }

    fn torrent_folder(&self) -> &Path {
        &self.services().torrent_folder.folder
    }

    fn listener(&self, only: Option<InfoHash>) -> Listener {
        let Services { torrents, status, journal, .. } = self.services();
        Listener::new(torrents.clone(), status.clone(), journal.clone(), only)
    }

    /// Runs `work` to its end, even if the caller stops waiting: a change that has begun is
    /// completed.
    async fn whole<T, F>(&self, work: impl FnOnce(Arc<Parts>) -> F) -> Result<T, DaemonError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DaemonError>> + Send + 'static,
    {
        // The task is never aborted. If it fails, it panicked or the runtime ends.
        tokio::spawn(work(Arc::clone(&self.parts))).await.unwrap_or(Err(DaemonError::Ending))
    }
}
