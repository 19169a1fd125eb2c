//! Fetching the torrents that requests name, a few at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::add_request::AddSource;
use super::background::blocking;
use super::magnet::UnfollowedLink;
use super::reason::Reason;
use super::record::LinkRequest;
use super::torrent_source::FetchedTorrent;
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError, magnet, torrent_files, torrent_source};
use piecework_core::printable_path;
use piecework_engine::Session;
use piecework_proto::announce::Magnet;

/// Fetches torrents, with places for those of the owner and of guests: each may take three times its
/// `.torrent` of memory.
pub(super) struct TorrentFetcher {
    trackers: Arc<TrackerPolicy>,
    /// Asks peers for what a magnet link names.
    session: Session,
    places: [Semaphore; 2],
}

impl TorrentFetcher {
    pub(crate) fn new(trackers: Arc<TrackerPolicy>, session: Session) -> Self {
        Self { trackers, session, places: PLACES.map(Semaphore::new) }
    }

    /// Waits for a place for a torrent of `caller`.
    pub(crate) async fn place(&self, caller: Caller) -> Result<SemaphorePermit<'_>, DaemonError> {
        let [owners, guests] = &self.places;
        let places = if caller.is_owner() { owners } else { guests };
        // Nobody closes these semaphores.
        places.acquire().await.map_err(|_| DaemonError::Ending)
    }

    /// Looks for the torrent of a magnet link once.
    pub(crate) async fn follow(
        &self,
        request: &LinkRequest,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<FetchedTorrent, UnfollowedLink> {
        let LinkRequest { link, tracker, caller, .. } = request;
        self.resolve(link, tracker.as_deref(), *caller, progress).await
    }

    async fn resolve(
        &self,
        link: &str,
        tracker: Option<&str>,
        caller: Caller,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<FetchedTorrent, UnfollowedLink> {
        magnet::resolve(&self.trackers, &self.session, link, tracker, caller, progress).await
    }

    /// Fetches and parses the torrent in `source`.
    pub(crate) async fn fetch(
        &self,
        source: AddSource,
        caller: Caller,
    ) -> Result<FetchedTorrent, DaemonError> {
        let mut nearby = false;
        // Bounds the memory of torrents that are read and parsed at the same time.
        let _place = self.place(caller).await?;
        let bytes = match source {
            AddSource::Url(text) if Magnet::is_meant(&text) => {
                return self.resolve(&text, None, caller, |_, _| {}).await.map_err(|it| it.error);
            }
            AddSource::Catalogue { name, tracker } if Magnet::is_meant(&name) => {
                let found = self.resolve(&name, tracker.as_deref(), caller, |_, _| {}).await;
                return found.map_err(|it| it.error);
            }
            AddSource::Bytes(bytes) => bytes,
            AddSource::File(path) => {
                caller.must_own("adding a `.torrent` by its path on the daemon's machine")?;
                if !path.is_absolute() {
                    let shown = printable_path(&path);
                    return Err(DaemonError::invalid(format!(
                        "the path `{shown}` is not absolute"
                    )));
                }
                blocking(move || torrent_files::read_bounded(&path))
                    .await?
                    .map_err(|error| DaemonError::not_found(Reason::of(error)))?
            }
            AddSource::Url(url) => {
                let (bytes, scope) = torrent_source::download(url.trim(), caller).await?;
                nearby = torrent_source::is_near(scope);
                bytes
            }
            AddSource::Catalogue { name, tracker } => {
                let tracker = self.trackers.named(tracker.as_deref(), caller)?;
                let (metainfo, scope) = tracker.find(&name).await?;
                return Ok(FetchedTorrent::new(
                    Arc::new(metainfo),
                    Some(tracker),
                    torrent_source::is_near(scope),
                ));
            }
        };
        // Parsing megabytes of bencode and hashing them takes a while.
        Ok(FetchedTorrent::new(
            blocking(move || torrent_source::parse(&bytes)).await??,
            None,
            nearby,
        ))
    }
}

/// Number of torrents of the owner, and of guests, that are fetched and parsed at the same time. A guest's
/// may have 16 MiB.
const PLACES: [usize; 2] = [8, 4];
