//! Sharing files that have to be hashed first. They are listed from the moment of the request, stay listed
//! over restarts, and can be removed like any other torrent, which ends the hashing.
//!
//! Until its files are hashed, a torrent is listed under a provisional info-hash, which is derived from the
//! request. Its row in the state contains the request, so that a daemon that is started again hashes the
//! files from the beginning.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::background::blocking;
use super::entry::{Body, BodyView};
use super::fetch::TorrentFetcher;
use super::pending_work::{AddOutcome, PendingWork};
use super::provisional::{ProvisionalTorrents, hidden_name};
use super::publish::Publisher;
use super::reason::Reason;
use super::record::{HashRequest, TorrentRecord};
use super::share_request::{ShareRequests, check_len, check_torrent};
use super::torrents::Torrents;
use super::unhashed::{PendingSeed, UnhashedTorrent};
use super::{Caller, DaemonError, hashing, torrent_source};
use piecework_api::{Added, SeedRequest, TorrentSettings};
use piecework_core::{InfoHash, printable_path};
use piecework_storage::write_whole;

/// Shares files of this machine.
pub(super) struct Sharer {
    pub torrents: Arc<Torrents>,
    pub requests: Arc<ShareRequests>,
    pub fetcher: Arc<TorrentFetcher>,
    pub publisher: Publisher,
    pub provisional: Arc<ProvisionalTorrents>,
    /// The folder of `.torrent` files.
    pub folder: PathBuf,
    /// Only one torrent at a time is hashed, with all cores.
    pub hashing: Arc<Mutex<()>>,
}

impl Sharer {
    /// Lists files that are to be shared, and begins to hash them.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        mut request: SeedRequest,
        caller: Caller,
    ) -> Result<PendingSeed, DaemonError> {
        self.torrents.check_open()?;
        request.wait = None;
        let input = self.requests.check(&request, caller).await?;
        let Some(provisional) = request.provisional_hash() else {
            return Err(DaemonError::invalid("the path is not UTF-8"));
        };
        // A `.torrent` may have 100 MiB, so their number in memory is bounded.
        let _place = match request.torrent {
            Some(_) => Some(self.fetcher.place(caller).await?),
            None => None,
        };
        let mut torrent =
            request.torrent.take().map(|text| torrent_source::decode(&text)).transpose()?;
        check_len(&request)?;
        let path = &input.input;
        let own = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let name = input.link.clone().unwrap_or_else(own);
        let mut unhashed = UnhashedTorrent::new(name, path.parent().unwrap_or(path).to_owned());
        if let Some(bytes) = torrent {
            let (name, bytes) = check_torrent(bytes, &input, &request).await?;
            (unhashed.name, torrent) = (name, Some(bytes));
        }
        let _lock = self.torrents.lock(provisional).await;
        self.torrents.check_open()?;
        if let Some(begun) = self.join(provisional) {
            return Ok(begun);
        }
        let local = caller == Caller::Local;
        let hash_request = HashRequest { name: unhashed.name.clone(), request, local };
        self.list(provisional, hash_request, unhashed, torrent).await
    }

    /// Joins an equal request that is not done yet. Retries one that was given up.
    fn join(self: &Arc<Self>, provisional: InfoHash) -> Option<PendingSeed> {
        loop {
            self.hash_again(provisional);
            let table = self.torrents.table();
            let entry = table.entries.get(&provisional)?;
            let BodyView::Unhashed(unhashed) = entry.body.view() else { return None };
            if unhashed.error.is_some() {
                // It was given up just now, so nobody would be told the outcome.
                continue;
            }
            let listed = Added {
                info_hash: provisional,
                id: entry.id,
                name: entry.name().to_owned(),
                duplicate: true,
                tracker: None,
                warnings: Vec::new(),
            };
            return Some(PendingSeed { listed, outcome: unhashed.work.wait() });
        }
    }

    async fn list(
        self: &Arc<Self>,
        provisional: InfoHash,
        hash_request: HashRequest,
        unhashed: UnhashedTorrent,
        torrent: Option<Vec<u8>>,
    ) -> Result<PendingSeed, DaemonError> {
        let file = if torrent.is_some() { hidden_name(provisional) } else { String::new() };
        if let Some(bytes) = torrent {
            let path = self.folder.join(&file);
            let written = blocking(move || write_whole(&path, &bytes, 0o644)).await?;
            written.map_err(|error| {
                let folder = printable_path(&self.folder);
                let sentence = format!("the torrent cannot be kept in `{folder}`: {error}");
                DaemonError::torrent_file(Reason::with_cause(sentence, error))
            })?;
        }
        let settings =
            TorrentSettings { labels: hash_request.request.labels.clone(), ..Default::default() };
        let mut record =
            TorrentRecord { settings: settings.into(), seed: true, ..TorrentRecord::default() };
        record.common.change(|common| common.to_hash = Some(Box::new(hash_request)));
        let (root, work) = (unhashed.root.clone(), Arc::clone(&unhashed.work));
        let outcome = work.wait();
        let body = Body::unhashed(unhashed);
        let listed = self.provisional.list(provisional, file, root, record, body).await?;
        self.start_hashing(provisional, work);
        Ok(PendingSeed { listed, outcome })
    }

    /// Spawns a task that hashes the files of a torrent when it is its turn.
    pub(crate) fn start_hashing(self: &Arc<Self>, provisional: InfoHash, work: Arc<PendingWork>) {
        let (sharer, turn) = (Arc::clone(self), self.in_line());
        tokio::spawn(async move {
            let outcome = sharer.hash_and_share(provisional, &work, turn).await;
            sharer.finish(provisional, &work, outcome).await;
        });
    }

    /// Returns a turn to hash. Turns come in the order of these calls, whichever task runs first.
    fn in_line(&self) -> Turn {
        // Unconstrained, since a task without budget would not take its place.
        let waiting = tokio::task::unconstrained(Arc::clone(&self.hashing).lock_owned());
        let mut waiting = Box::pin(waiting);
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(turn) => Box::pin(std::future::ready(turn)),
            std::task::Poll::Pending => waiting,
        }
    }

    /// Retries a torrent that was given up. Returns whether the torrent's files are not hashed yet.
    pub(crate) fn hash_again(self: &Arc<Self>, provisional: InfoHash) -> bool {
        let work = {
            let mut table = self.torrents.table();
            let mut entry = table.entries.get_mut(&provisional);
            let Some(unhashed) = entry.as_mut().and_then(|entry| entry.body.unhashed_mut()) else {
                return false;
            };
            if unhashed.error.take().is_none() {
                return true;
            }
            unhashed.work = Arc::default();
            Arc::clone(&unhashed.work)
        };
        self.torrents.touch(provisional, false);
        self.start_hashing(provisional, work);
        true
    }

    async fn hash_and_share(
        self: &Arc<Self>,
        provisional: InfoHash,
        work: &Arc<PendingWork>,
        turn: Turn,
    ) -> AddOutcome {
        let (content, input, request) = {
            let _alone = tokio::select! {
                alone = turn => alone,
                () = work.cancelled() => return Err(DaemonError::Ending),
            };
            self.torrents.check_open()?;
            let (to_hash, file) = self.torrents.with(provisional, |entry| {
                (entry.record.common.to_hash.clone(), entry.file().into_owned())
            })?;
            let HashRequest { request, local, .. } =
                *to_hash.ok_or(DaemonError::Unknown(provisional))?;
            let caller = if local { Caller::Local } else { Caller::Owner };
            work.begin();
            self.torrents.touch(provisional, false);
            // Checked again: a day may have passed, and the configuration may have changed.
            let input = self.requests.check(&request, caller).await?;
            let content = match file.is_empty() {
                true => {
                    let roots = self.requests.folders.share_roots();
                    hashing::hash(&self.torrents, roots, provisional, work, &input, &request)
                        .await?
                }
                false => {
                    let path = self.folder.join(file);
                    let source = input.input.clone();
                    hashing::check_existing(&self.torrents, provisional, work, path, source).await?
                }
            };
            (content, input, request)
        };
        self.publisher.publish(provisional, work, content, input, request).await
    }

    /// Records how hashing ended.
    async fn finish(&self, provisional: InfoHash, work: &Arc<PendingWork>, outcome: AddOutcome) {
        match &outcome {
            Ok(_) => {}
            Err(_) if work.is_cancelled() || self.torrents.check_open().is_err() => {
                return work.tell(&Err(DaemonError::Ending));
            }
            Err(error) => {
                let is_wrong = matches!(
                    error,
                    DaemonError::Invalid(_)
                        | DaemonError::Forbidden(_)
                        | DaemonError::NotFound(_)
                        | DaemonError::Occupied(_)
                );
                // A client that is told of an invalid request sends another one.
                if !(is_wrong
                    && work.is_awaited()
                    && self.provisional.strike(provisional, work).await)
                {
                    self.provisional.give_up(provisional, work, error);
                }
            }
        }
        work.tell(&outcome);
    }
}

/// Resolves when a torrent may be hashed. The next one may when the guard is dropped.
type Turn = Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>;
