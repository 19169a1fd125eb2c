//! What all clones of a daemon share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::book::{Book, Entry, unix_now};
use super::files::TorrentFile;
use super::givers::Owned;
use super::hooks::Hooks;
use super::kept::Kept;
use super::listen::Ears;
use super::{Caller, DaemonConfig, DaemonError};
use crate::state::{State, Update};
use piecework_api::{Settings, Torrent, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, Priority};
use piecework_engine::{Session, TorrentHandle, TorrentOptions};
use piecework_journal::PieceLog;
use piecework_proto::announce::{Provenance, TrackerTarget, TrackerUrl};
use piecework_storage::FolderIdentity;

/// The daemon itself.
pub(super) struct Inner {
    pub config: DaemonConfig,
    /// Where the torrents' own files lie.
    pub torrent_files: Arc<TorrentFile>,
    pub session: Session,
    pub state: State,
    pub book: Mutex<Book>,
    pub ears: Ears,
    pub log: Arc<PieceLog>,
    /// Who gave which piece of the torrents that were asked about lately.
    pub owners: Owned,
    pub hooks: Hooks,
    pub started: Instant,
    /// The queue, the clock or a limit is to be looked at.
    pub wake: Notify,
    /// Work on the side, such as hashing, is to end.
    pub cancel: Arc<AtomicBool>,
    /// One at a time decides which torrents run, and has it done.
    pub reviewing: AsyncMutex<()>,
    /// One at a time changes the settings.
    pub setting: AsyncMutex<()>,
    /// The folder that was looked at last, when, and where it lies.
    pub folder_seen: Mutex<Option<(PathBuf, Instant, FolderIdentity)>>,
    /// One at a time hashes, with all cores.
    pub hashing: Arc<AsyncMutex<()>>,
    /// Places for torrents of the owner and of guests that are fetched and parsed: each may take
    /// three times its `.torrent`.
    fetching: [Semaphore; 2],
    /// A torrent is to be registered later.
    pub register: Notify,
    /// The folder that is watched may be another one.
    pub rewatch: Notify,
    /// The block list in use.
    pub blocked: Mutex<Blocked>,
    pub tasks: Mutex<Vec<JoinHandle<()>>>,
    pub stop: watch::Sender<bool>,
    /// One at a time changes a torrent; torrents share these by a byte of their hash.
    doors: [AsyncMutex<()>; 256],
    ended: AtomicBool,
}

/// The block list, as far as the daemon knows.
#[derive(Default)]
pub(super) struct Blocked {
    pub ranges: u64,
    /// When the file was last changed, by its own account.
    pub modified: Option<std::time::SystemTime>,
}

/// What [`Inner`] is made of.
pub(super) struct Parts {
    pub config: DaemonConfig,
    pub session: Session,
    pub state: State,
    pub book: Book,
    pub log: Arc<PieceLog>,
}

impl Inner {
    pub fn new(parts: Parts) -> Self {
        let Parts { config, session, state, book, log } = parts;
        Self {
            torrent_files: Arc::new(TorrentFile::usual(&config.torrents)),
            config,
            session,
            state,
            book: Mutex::new(book),
            ears: Ears::default(),
            log,
            owners: Owned::default(),
            hooks: Hooks::new(),
            started: Instant::now(),
            wake: Notify::new(),
            cancel: Arc::new(AtomicBool::new(false)),
            reviewing: AsyncMutex::new(()),
            setting: AsyncMutex::new(()),
            folder_seen: Mutex::default(),
            hashing: Arc::default(),
            fetching: FETCHING.map(Semaphore::new),
            register: Notify::new(),
            rewatch: Notify::new(),
            blocked: Mutex::default(),
            tasks: Mutex::default(),
            stop: watch::Sender::new(false),
            doors: std::array::from_fn(|_| AsyncMutex::new(())),
            ended: AtomicBool::new(false),
        }
    }

    /// Keeps others from changing the torrent meanwhile.
    pub async fn door(&self, info_hash: InfoHash) -> MutexGuard<'_, ()> {
        self.doors[usize::from(info_hash.0[0])].lock().await
    }

    /// The same for two torrents.
    pub async fn doors(
        &self,
        one: InfoHash,
        other: InfoHash,
    ) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (low, high) = if one.0[0] <= other.0[0] { (one, other) } else { (other, one) };
        // In the same order by all, and one that both share once.
        let first = self.door(low).await;
        let second = if low.0[0] == high.0[0] { None } else { Some(self.door(high).await) };
        (first, second)
    }

    /// The door of a torrent, and the info-hash that it has now: one that was named by its provisional
    /// info-hash may have got its own while this waited.
    pub async fn door_of(&self, info_hash: InfoHash) -> (MutexGuard<'_, ()>, InfoHash) {
        let mut info_hash = info_hash;
        loop {
            let door = self.door(info_hash).await;
            let now = self.book.lock().listed_as(info_hash);
            if now == info_hash {
                return (door, now);
            }
            info_hash = now;
        }
    }

    /// Refuses once the daemon is about to end.
    pub fn is_open(&self) -> Result<(), DaemonError> {
        if *self.stop.borrow() { Err(DaemonError::Ending) } else { Ok(()) }
    }

    /// Notes that nothing will ever happen here again, and tells those who wait for that.
    pub fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.ears.bye();
        self.stop.send_replace(true);
    }

    /// Nothing will ever happen here again.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits for a place for a torrent of `caller` to be fetched and parsed.
    pub async fn fetching(&self, caller: Caller) -> Result<SemaphorePermit<'_>, DaemonError> {
        let [owners, guests] = &self.fetching;
        let places = if caller.is_owner() { owners } else { guests };
        // It is never closed.
        places.acquire().await.map_err(|_| DaemonError::Ending)
    }

    /// What `look` finds in the torrent.
    pub fn with<T>(
        &self,
        info_hash: InfoHash,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, DaemonError> {
        let mut book = self.book.lock();
        book.torrents
            .get_mut(&info_hash)
            .map(|mut entry| look(&mut entry))
            .ok_or(DaemonError::Unknown(info_hash))
    }

    /// The torrent in the engine.
    pub fn live(&self, info_hash: InfoHash) -> Result<TorrentHandle, DaemonError> {
        self.with(info_hash, |entry| match entry.body.view() {
            super::book::BodyView::Live(handle) => Ok(handle.clone()),
            super::book::BodyView::Broken(broken) => {
                Err(DaemonError::Conflict(broken.error.clone()))
            }
            super::book::BodyView::Making(_) => Err(super::making::is_hashed(entry)),
        })?
    }

    /// The torrent as it is shown.
    pub fn show(&self, info_hash: InfoHash) -> Result<Torrent, DaemonError> {
        self.book.lock().show(info_hash).ok_or(DaemonError::Unknown(info_hash))
    }

    /// Tells that a torrent changed, and has the queue looked at if `review`.
    pub fn touch(&self, info_hash: InfoHash, review: bool) {
        {
            let book = &mut *self.book.lock();
            if review {
                book.fresh.push(info_hash);
            }
            if let Some(mut entry) = book.torrents.get_mut(&info_hash) {
                book.recent.note(info_hash, &mut entry.changed_at, unix_now());
            }
        }
        self.ears.changed(info_hash);
        if review {
            self.wake.notify_one();
        }
    }

    /// Writes down what was chosen for a torrent; it is on the disk when this returns.
    pub async fn keep(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let text = self.book.lock().kept_text(info_hash).ok_or(DaemonError::Unknown(info_hash))?;
        let update = Update { settings: Some(text), ..Update::default() };
        Ok(self.state.update(info_hash, update).await?)
    }

    /// Folders that requests may name for output: those of the configuration, whose own paths may
    /// lead through links. A downloads folder that a request chose beneath one of them is no such
    /// folder itself: a link planted in its place must not be followed.
    pub fn output_roots(&self) -> Vec<PathBuf> {
        let configured = std::iter::once(&self.config.settings.downloads);
        let mut roots: Vec<PathBuf> =
            configured.chain(&self.config.download_roots).cloned().collect();
        let downloads = self.book.lock().settings.downloads.clone();
        // One that was chosen while the configuration had other folders stays.
        if !roots.iter().any(|root| downloads.starts_with(root)) {
            roots.push(downloads);
        }
        roots
    }

    /// `folder`, absolute or beneath the downloads folder, if output of `caller` may go there.
    pub async fn output_folder(
        &self,
        folder: Option<&Path>,
        caller: Caller,
    ) -> Result<PathBuf, DaemonError> {
        let downloads = self.book.lock().settings.downloads.clone();
        let folder = folder.map_or_else(|| downloads.clone(), |folder| downloads.join(folder));
        let roots = self.output_roots();
        blocking(move || super::roots::check(&folder, &roots, caller)).await?
    }

    /// The trackers to announce to: its own or those chosen, and the daemon's. Each says who named
    /// it.
    pub fn tiers(&self, metainfo: &Metainfo, kept: &Kept) -> Vec<Vec<TrackerUrl>> {
        let mut tiers = self.all_tiers(metainfo, &kept.settings);
        let own: Vec<TrackerUrl> = parsed(metainfo.trackers().iter().flatten());
        let mut named = parsed(self.book.lock().settings.default_trackers.iter().flatten());
        // That of the configuration, and the one that it is registered with.
        let trackers = [self.config.tracker.as_deref(), kept.rare.tracker.as_deref()];
        let targets = trackers.into_iter().flatten().filter_map(|name| name.parse().ok());
        named.extend(targets.flat_map(|target: TrackerTarget| target.tiers).flatten());
        let private = kept.rare.nearby || self.config.session.private_trackers;
        let others = if private { Provenance::Nearby } else { Provenance::Foreign };
        match &kept.rare.named {
            Some(by_owner) => named.extend(by_owner.iter().filter_map(|url| url.parse().ok())),
            // Kept before that was noted: whatever was chosen, the owner chose.
            None => named.extend(tiers.iter().flatten().filter(|url| !own.contains(url)).cloned()),
        }
        for url in tiers.iter_mut().flatten() {
            *url = url.clone().named_by(others).named_among(named.iter());
        }
        tiers
    }

    fn all_tiers(&self, metainfo: &Metainfo, chosen: &TorrentSettings) -> Vec<Vec<TrackerUrl>> {
        let known = |tiers: &[Vec<String>]| -> Vec<Vec<TrackerUrl>> {
            let tier =
                |tier: &Vec<String>| tier.iter().filter_map(|url| url.parse().ok()).collect();
            tiers.iter().map(tier).collect()
        };
        let mut tiers = known(chosen.trackers.as_deref().unwrap_or(metainfo.trackers()));
        if !metainfo.info().is_private() {
            let more = known(&self.book.lock().settings.default_trackers);
            let there: Vec<TrackerUrl> = tiers.iter().flatten().cloned().collect();
            tiers.extend(more.into_iter().map(|mut tier| {
                tier.retain(|url| !there.contains(url));
                tier
            }));
        }
        tiers.retain(|tier| !tier.is_empty());
        tiers
    }

    /// Has the limits of `settings` hold.
    pub fn apply(&self, settings: &Settings) {
        let (upload, download) = rate_limits(settings);
        self.session.set_limits(upload, download);
        self.session.set_bounds(
            settings.max_connections as usize,
            settings.max_peers_per_torrent as usize,
            settings.upload_slots as usize,
            super::start::choke(settings.choke),
            super::start::encryption_policy(settings.encryption),
        );
    }
}

fn parsed<'a>(urls: impl Iterator<Item = &'a String>) -> Vec<TrackerUrl> {
    urls.filter_map(|url| url.parse().ok()).collect()
}

/// Does what blocks on a thread where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DaemonError> {
    // It is never cancelled, so it panicked; or the runtime ends.
    tokio::task::spawn_blocking(work).await.map_err(|_| DaemonError::Ending)
}

/// The rate limits that hold: bytes a second, up and down, never 0.
pub(super) fn rate_limits(settings: &Settings) -> (Option<u64>, Option<u64>) {
    let (upload, download) = if settings.alt.on {
        (Some(settings.alt.upload), Some(settings.alt.download))
    } else {
        (settings.upload_limit, settings.download_limit)
    };
    (upload.filter(|limit| *limit > 0), download.filter(|limit| *limit > 0))
}

/// What the engine is to know of what was chosen.
pub(super) fn options(metainfo: &Metainfo, chosen: &TorrentSettings) -> TorrentOptions {
    let mut files = Vec::new();
    if !chosen.files.is_empty() {
        let mut shown = chosen.files.iter().copied();
        let of = |padding: bool| match padding {
            true => Priority::Normal,
            false => shown.next().unwrap_or_default(),
        };
        files = metainfo.info().files().entries().iter().map(|file| file.padding).map(of).collect();
    }
    TorrentOptions {
        upload_limit: chosen.upload_limit,
        download_limit: chosen.download_limit,
        session_limits: chosen.session_limits,
        max_peers: chosen.max_peers.map(|most| most as usize),
        files,
        sequential: chosen.sequential,
    }
}

/// Torrents of the owner, and of guests, that are fetched and parsed at a time. A guest's has 16 MiB.
const FETCHING: [usize; 2] = [8, 4];

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_api::AltLimits;

    #[test]
    fn a_rate_limit_of_nothing_is_no_limit() {
        let alt = AltLimits { on: true, upload: 0, download: 7, ..AltLimits::default() };
        let mut settings =
            Settings { upload_limit: Some(5), download_limit: Some(0), alt, ..Settings::default() };
        assert_eq!(rate_limits(&settings), (None, Some(7)));
        settings.alt.on = false;
        assert_eq!(rate_limits(&settings), (Some(5), None));
    }
}
