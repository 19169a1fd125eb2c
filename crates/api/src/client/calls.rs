//! Every call of the native API.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use super::{ADD_TIME, ANSWER_TIME, ApiClient, ApiError, Events, MAX_ANSWER};
use crate::{
    Added, Alive, BadPiece, BlockListAnswer, CatalogueAnswer, FileInfo, FreeSpace, Givers,
    LeechRequest, LogEntry, MoveRequest, Overview, PeerInfo, PeersRequest, PieceMap, PieceStory,
    PortTest, QueueAllRequest, QueueMove, RemoveRequest, RenameRequest, SeedRequest, SentPieces,
    Settings, SettingsChange, Timeline, Torrent, TorrentChange, TorrentDetail, TrackerInfo,
};
use piecework_core::{InfoHash, printable_path};
use piecework_proto::announce::PeerName;

/// Selects responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The maximum number.
    pub limit: usize,
    /// Only those after the one with this number, instead of the last ones.
    pub after: Option<i64>,
    /// Only those of this peer.
    pub peer: Option<SocketAddr>,
    /// Only those since this time, in seconds since 1970.
    pub since: Option<i64>,
}

type Result<T> = std::result::Result<T, ApiError>;

/// Every call fails if the daemon cannot be reached, does not answer in time, or refuses
/// ([`ApiError::Fault`]).
impl ApiClient {
    /// Returns which daemon answers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn alive(&self) -> Result<Alive> {
        self.get("").await
    }

    /// Returns the daemon's state, and all torrents in the order of the queue.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn overview(&self) -> Result<Overview> {
        self.get("status").await
    }

    /// Returns the events from now on, beginning with every existing torrent.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn events(&self) -> Result<Events> {
        self.events_of(None).await
    }

    /// Returns the events of one torrent.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn events_of(&self, torrent: Option<InfoHash>) -> Result<Events> {
        let torrent = torrent.map(|info_hash| info_hash.to_string());
        let request = self.client.get(self.at("events", &[("torrent", torrent.as_deref())]));
        let begun = tokio::time::timeout(ANSWER_TIME, self.sent(request)).await;
        let timeout = |_| ApiError::Timeout { addr: self.addr.clone() };
        Ok(Events::new(self.clone(), begun.map_err(timeout)??))
    }

    /// Makes a torrent of data on the daemon's machine, and serves it. Returns when it is made.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn seed(&self, request: &SeedRequest) -> Result<Added> {
        self.ask(Method::POST, "seed", request, ADD_TIME).await
    }

    /// Downloads a torrent.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn leech(&self, request: &LeechRequest) -> Result<Added> {
        self.ask(Method::POST, "leech", request, ADD_TIME).await
    }

    /// Returns the tracker's catalogue. `tracker` names another tracker than the configured one,
    /// `name` selects torrents of that name.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn catalogue(
        &self,
        tracker: Option<&str>,
        name: Option<&str>,
    ) -> Result<CatalogueAnswer> {
        self.get_with("torrents", &[("tracker", tracker), ("name", name)]).await
    }

    /// Returns a torrent with its files and trackers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn detail(&self, info_hash: InfoHash) -> Result<TorrentDetail> {
        self.get(&of(info_hash, "")).await
    }

    /// Returns its connected peers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn peers(&self, info_hash: InfoHash) -> Result<Vec<PeerInfo>> {
        self.get(&of(info_hash, "/peers")).await
    }

    /// Returns which pieces are held.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn pieces(&self, info_hash: InfoHash) -> Result<PieceMap> {
        self.get(&of(info_hash, "/pieces")).await
    }

    /// Returns its files.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn files(&self, info_hash: InfoHash) -> Result<Vec<FileInfo>> {
        self.get(&of(info_hash, "/files")).await
    }

    /// Returns its trackers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn trackers(&self, info_hash: InfoHash) -> Result<Vec<TrackerInfo>> {
        self.get(&of(info_hash, "/trackers")).await
    }

    /// Returns who gave which piece: the last `limit` responses, oldest first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn log(&self, info_hash: InfoHash, limit: usize) -> Result<Vec<LogEntry>> {
        self.log_where(info_hash, &LogQuery { limit, ..LogQuery::default() }).await
    }

    /// Returns who gave which piece: the selected responses, oldest first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn log_where(&self, info_hash: InfoHash, query: &LogQuery) -> Result<Vec<LogEntry>> {
        let limit = query.limit.to_string();
        let after = query.after.map(|after| after.to_string());
        let peer = query.peer.map(|peer| peer.to_string());
        let since = query.since.map(|since| since.to_string());
        let keys = [
            ("limit", Some(&*limit)),
            ("after", after.as_deref()),
            ("peer", peer.as_deref()),
            ("since", since.as_deref()),
        ];
        self.get_with(&of(info_hash, "/log"), &keys).await
    }

    /// Returns who gave it over all runs, and who gave most of each piece.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn givers(&self, info_hash: InfoHash) -> Result<Givers> {
        self.get(&of(info_hash, "/givers")).await
    }

    /// Returns what was sent to whom, from the records that follow the one with the number `after`.
    /// `taker` selects one peer.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn sent_pieces(
        &self,
        info_hash: InfoHash,
        after: i64,
        taker: Option<i64>,
    ) -> Result<SentPieces> {
        let (after, taker) = (after.to_string(), taker.map(|taker| taker.to_string()));
        let keys = [("after", Some(&*after)), ("taker", taker.as_deref())];
        self.get_with(&of(info_hash, "/sent"), &keys).await
    }

    /// Returns the story of one of its pieces.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn story(&self, info_hash: InfoHash, piece: u32) -> Result<PieceStory> {
        self.get(&of(info_hash, &format!("/pieces/{piece}"))).await
    }

    /// Returns its pieces that arrived wrong, and the guilty peers.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn bad(&self, info_hash: InfoHash) -> Result<Vec<BadPiece>> {
        self.get(&of(info_hash, "/bad")).await
    }

    /// Returns when its pieces arrived and from whom, in `buckets` parts.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn timeline(&self, info_hash: InfoHash, buckets: u32) -> Result<Timeline> {
        let buckets = buckets.to_string();
        self.get_with(&of(info_hash, "/timeline"), &[("buckets", Some(&buckets))]).await
    }

    /// Returns its `.torrent`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn torrent_bytes(&self, info_hash: InfoHash) -> Result<Vec<u8>> {
        let url = self.at(&of(info_hash, "/torrent"), &[]);
        let response = self.sent(self.client.get(url).timeout(ANSWER_TIME)).await?;
        self.body(response, MAX_ANSWER).await
    }

    /// Changes its settings.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn change(&self, info_hash: InfoHash, change: &TorrentChange) -> Result<Torrent> {
        self.ask(Method::PATCH, &of(info_hash, ""), change, ANSWER_TIME).await
    }

    /// Removes it from the daemon. Its files stay unless the request says otherwise.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn remove(&self, info_hash: InfoHash, request: &RemoveRequest) -> Result<()> {
        self.send(Method::DELETE, &of(info_hash, ""), request, ANSWER_TIME).await.map(|_| ())
    }

    /// Starts it when it is its turn, or at once if `forced`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn start(&self, info_hash: InfoHash, forced: bool) -> Result<()> {
        let action = if forced { "/start-now" } else { "/resume" };
        self.act(&of(info_hash, action), &json!({})).await
    }

    /// Replaces files that have the names of its files but other content, and starts it when it is
    /// its turn.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn overwrite(&self, info_hash: InfoHash) -> Result<()> {
        self.act(&of(info_hash, "/overwrite"), &json!({})).await
    }

    /// Pauses it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn pause(&self, info_hash: InfoHash) -> Result<()> {
        self.act(&of(info_hash, "/pause"), &json!({})).await
    }

    /// Hashes its data on disk again.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn recheck(&self, info_hash: InfoHash) -> Result<()> {
        self.act(&of(info_hash, "/recheck"), &json!({})).await
    }

    /// Asks its trackers for peers, as far as they allow.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn reannounce(&self, info_hash: InfoHash) -> Result<()> {
        self.act(&of(info_hash, "/reannounce"), &json!({})).await
    }

    /// Adds peers to connect to.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn add_peers(&self, info_hash: InfoHash, peers: &[PeerName]) -> Result<()> {
        let request = PeersRequest { peers: peers.iter().map(ToString::to_string).collect() };
        self.act(&of(info_hash, "/peers"), &request).await
    }

    /// Begins to move its data.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn move_data(&self, info_hash: InfoHash, request: &MoveRequest) -> Result<()> {
        self.act(&of(info_hash, "/move"), request).await
    }

    /// Renames it, a folder or a file in it.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rename(&self, info_hash: InfoHash, request: &RenameRequest) -> Result<()> {
        self.act(&of(info_hash, "/rename"), request).await
    }

    /// Moves torrents in the queue together, keeping their order.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn queue(&self, info_hashes: &[InfoHash], to: QueueMove) -> Result<()> {
        self.act("queue", &QueueAllRequest { torrents: info_hashes.to_vec(), to }).await
    }

    /// Returns the daemon's settings.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn settings(&self) -> Result<Settings> {
        self.get("settings").await
    }

    /// Changes the daemon's settings.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn change_settings(&self, change: &SettingsChange) -> Result<Settings> {
        self.ask(Method::PATCH, "settings", change, ANSWER_TIME).await
    }

    /// Returns the free space in `folder` on the daemon's machine.
    ///
    /// # Errors
    /// See [`ApiError`]; and if `folder` is not UTF-8.
    pub async fn free_space(&self, folder: &Path) -> Result<FreeSpace> {
        let folder = folder.to_str().ok_or_else(|| {
            let why = format!("the path `{}` is not UTF-8", printable_path(folder));
            let source: Box<dyn Error + Send + Sync> = why.into();
            ApiError::Setup { addr: self.addr.clone(), source: source.into() }
        })?;
        self.get_with("free-space", &[("path", Some(folder))]).await
    }

    /// Tests whether the peer port accepts connections.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn test(&self) -> Result<PortTest> {
        self.ask(Method::POST, "test", &json!({}), ANSWER_TIME).await
    }

    /// Reloads the block list, and returns the number of its ranges.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn reload_block_list(&self) -> Result<u64> {
        let answer: BlockListAnswer =
            self.ask(Method::POST, "block-list/reload", &json!({}), ANSWER_TIME).await?;
        Ok(answer.ranges)
    }

    /// Asks the daemon to end, which takes at most ten seconds.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn shutdown(&self) -> Result<()> {
        self.act("shutdown", &json!({})).await
    }
}

fn of(info_hash: InfoHash, what: &str) -> String {
    format!("torrents/{info_hash}{what}")
}
