//! What is to be shared and is hashed first: listed from the moment it is asked for, kept over
//! restarts, and removed like any other torrent, which ends the hashing.
//!
//! Until its files are hashed a torrent stands under a provisional info-hash, made of the request.
//! Its row of the state has the request, so that a daemon that starts again hashes it from the
//! beginning. A `.torrent` that came with the request lies in the torrents folder meanwhile, under a
//! hidden name.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::add::decode;
use super::book::{Body, BodyView, Entry, Kept, ToHash, part, unix_now};
use super::inner::{Inner, blocking};
use super::roots::shown;
use super::seed::Look;
use super::{Caller, DaemonError, files};
use crate::api::{Added, SeedRequest, State as Doing, Torrent, TorrentSettings};
use crate::base::{InfoHash, figures::count, printable};
use crate::state::{Counters, Saved};

/// A torrent whose files are to be hashed first.
pub(super) struct Making {
    /// The name of the file or folder.
    pub name: String,
    /// The folder it lies in.
    pub root: PathBuf,
    /// Why it was given up.
    error: Option<String>,
    pub work: Arc<HashWork>,
}

/// One attempt to hash the files of a torrent, shared by those who do it and those who wait for it.
#[derive(Debug, Default)]
pub(super) struct HashWork {
    cancel: AtomicBool,
    cancelled: Notify,
    /// It is its turn.
    begun: AtomicBool,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    pieces: AtomicU32,
    waiting: Mutex<Vec<oneshot::Sender<Outcome>>>,
}

type Outcome = Result<Added, DaemonError>;

/// A torrent that is listed and hashed.
#[derive(Debug)]
pub struct BegunSeed {
    /// How it is listed. Its info-hash is provisional.
    pub listed: Added,
    outcome: oneshot::Receiver<Outcome>,
}

impl BegunSeed {
    /// Waits until it is hashed and served.
    ///
    /// # Errors
    /// If it cannot be hashed or is removed, or the daemon ends.
    pub async fn done(self) -> Result<Added, DaemonError> {
        self.outcome.await.unwrap_or(Err(DaemonError::Ending))
    }
}

impl Making {
    /// What is called `name` in the folder `root`.
    pub fn new(name: String, root: PathBuf) -> Self {
        Self { name, root, error: None, work: Arc::default() }
    }

    /// What is done with it.
    pub fn doing(&self) -> Doing {
        match (&self.error, self.work.begun.load(Ordering::Relaxed)) {
            (Some(_), _) => Doing::Failed,
            (None, true) => Doing::Hashing,
            (None, false) => Doing::QueuedHash,
        }
    }

    /// Fills in how it stands.
    pub fn show(&self, torrent: &mut Torrent) {
        let work = &self.work;
        let total = work.bytes_total.load(Ordering::Relaxed);
        (torrent.bytes, torrent.bytes_wanted) = (total, total);
        torrent.pieces = work.pieces.load(Ordering::Relaxed);
        torrent.error.clone_from(&self.error);
        torrent.state = self.doing();
        if torrent.state == Doing::Hashing {
            torrent.check_progress = part(work.bytes_done.load(Ordering::Relaxed), total);
        }
    }
}

impl HashWork {
    /// Ends the work.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.cancelled.notify_one();
    }

    /// Set when the work is to end.
    pub fn is_cancelled(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Notes how far it is. Returns whether that is worth telling, which it is a thousand times in
    /// all at most.
    pub fn at(&self, done: u64, total: u64, pieces: u32) -> bool {
        self.bytes_total.store(total, Ordering::Relaxed);
        self.pieces.store(pieces, Ordering::Relaxed);
        let before = self.bytes_done.swap(done, Ordering::Relaxed);
        let parts = |done: u64| u128::from(done) * 1_000 / u128::from(total.max(1));
        done == 0 || parts(before) != parts(done)
    }

    fn wait(&self) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|other| !other.is_closed());
        waiting.push(tell);
        told
    }

    fn is_awaited(&self) -> bool {
        self.waiting.lock().iter().any(|waiting| !waiting.is_closed())
    }

    /// Tells all who wait how it ended.
    pub fn tell(&self, outcome: &Outcome) {
        for waiting in self.waiting.lock().drain(..) {
            // Who has left need not know.
            let _ = waiting.send(outcome.clone());
        }
    }
}

impl Inner {
    /// Lists what is to be shared, and has it hashed.
    pub async fn begin_seed(
        self: &Arc<Self>,
        mut request: SeedRequest,
        caller: Caller,
    ) -> Result<BegunSeed, DaemonError> {
        self.is_open()?;
        request.wait = None;
        let look = self.look_at(&request, caller).await?;
        let Some(provisional) = request.provisional_hash() else {
            return Err(DaemonError::Invalid("the path is not UTF-8, which names here are".into()));
        };
        let torrent = request.torrent.take().map(|text| decode(&text)).transpose()?;
        let input = &look.input;
        let own = || input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
        let name = look.link.clone().unwrap_or_else(own);
        let mut making = Making::new(name, input.parent().unwrap_or(input).to_owned());
        if let Some(bytes) = &torrent {
            making.name = self.check_made(bytes.clone(), &look, &request).await?;
        }
        let _door = self.door(provisional).await;
        self.is_open()?;
        if let Some(begun) = self.join_seed(provisional) {
            return Ok(begun);
        }
        let making_now = self.book.lock().making;
        if making_now >= MOST {
            return Err(DaemonError::Conflict(format!(
                "`{}` files and folders are being hashed or wait for it already, the most there may \
                 be: share this one when some are done",
                count(making_now as u64)
            )));
        }
        let local = caller == Caller::Local;
        let to_hash = ToHash { name: making.name.clone(), request, local };
        self.list(provisional, to_hash, making, torrent).await
    }

    /// Waits for what was asked for in the same words and is not done yet. What was given up is tried
    /// again.
    fn join_seed(self: &Arc<Self>, provisional: InfoHash) -> Option<BegunSeed> {
        self.hash_again(provisional);
        let book = self.book.lock();
        let entry = book.torrents.get(&provisional)?;
        let BodyView::Making(making) = entry.body.view() else { return None };
        let listed = Added {
            info_hash: provisional,
            id: entry.id,
            name: entry.name().to_owned(),
            duplicate: true,
            tracker: None,
            warnings: Vec::new(),
        };
        Some(BegunSeed { listed, outcome: making.work.wait() })
    }

    async fn list(
        self: &Arc<Self>,
        provisional: InfoHash,
        to_hash: ToHash,
        making: Making,
        torrent: Option<Vec<u8>>,
    ) -> Result<BegunSeed, DaemonError> {
        let file = if torrent.is_some() { hidden_name(provisional) } else { String::new() };
        if let Some(bytes) = torrent {
            let path = self.config.torrents.join(&file);
            let written = blocking(move || files::write_whole(&path, &bytes, 0o644)).await?;
            written.map_err(|error| {
                let folder = shown(&self.config.torrents);
                DaemonError::State(format!("the torrent cannot be kept in `{folder}`: {error}"))
            })?;
        }
        let settings =
            TorrentSettings { labels: to_hash.request.labels.clone(), ..Default::default() };
        let mut kept = Kept { settings: settings.into(), seed: true, ..Kept::default() };
        kept.rank = self.book.lock().order.push(provisional);
        kept.rare.change(|rare| rare.to_hash = Some(Box::new(to_hash)));
        let saved = Saved {
            info_hash: provisional,
            file,
            root: making.root.clone(),
            added_at: unix_now(),
            done_at: None,
            settings: kept.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        };
        if let Err(error) = self.state.put(saved.clone()).await {
            self.book.lock().order.remove(kept.rank);
            self.forget_hidden(&saved.file).await;
            return Err(error.into());
        }
        let work = Arc::clone(&making.work);
        let outcome = work.wait();
        let listed = {
            let mut book = self.book.lock();
            let id = book.new_id();
            let body = Body::making(making);
            let entry = Entry::new(id, &saved, kept, body, Instant::now());
            let name = entry.name().to_owned();
            book.enter(provisional, Box::new(entry));
            let (tracker, warnings) = (None, Vec::new());
            Added { info_hash: provisional, id, name, duplicate: false, tracker, warnings }
        };
        self.touch(provisional, false);
        self.start_hashing(provisional, work);
        Ok(BegunSeed { listed, outcome })
    }

    /// Has a task hash the files of a torrent when it is its turn.
    pub fn start_hashing(self: &Arc<Self>, provisional: InfoHash, work: Arc<HashWork>) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = inner.hash_and_share(provisional, &work).await;
            inner.hashed(provisional, &work, outcome).await;
        });
    }

    /// Tries once more what was given up. Returns whether the torrent is one that is to be hashed
    /// first.
    pub fn hash_again(self: &Arc<Self>, provisional: InfoHash) -> bool {
        let work = {
            let mut book = self.book.lock();
            let entry = book.torrents.get_mut(&provisional);
            let Some(making) = entry.and_then(|entry| entry.body.making_mut()) else {
                return false;
            };
            if making.error.take().is_none() {
                return true;
            }
            making.work = Arc::default();
            Arc::clone(&making.work)
        };
        self.touch(provisional, false);
        self.start_hashing(provisional, work);
        true
    }

    async fn hash_and_share(
        self: &Arc<Self>,
        provisional: InfoHash,
        work: &Arc<HashWork>,
    ) -> Outcome {
        let (shared, look, request) = {
            let _alone = tokio::select! {
                alone = self.hashing.lock() => alone,
                () = work.cancelled.notified() => return Err(DaemonError::Ending),
            };
            self.is_open()?;
            let (to_hash, file) = self.with(provisional, |entry| {
                (entry.kept.rare.to_hash.clone(), entry.file().into_owned())
            })?;
            let ToHash { request, local, .. } =
                *to_hash.ok_or(DaemonError::Unknown(provisional))?;
            let caller = if local { Caller::Local } else { Caller::Owner };
            work.begun.store(true, Ordering::Relaxed);
            self.touch(provisional, false);
            // Looked at again: a day may have passed, and the configuration may be another one.
            let look = self.look_at(&request, caller).await?;
            let shared = match file.is_empty() {
                true => self.hash(provisional, work, &look, &request).await?,
                false => {
                    let path = self.config.torrents.join(file);
                    self.check(provisional, work, path, look.input.clone()).await?
                }
            };
            (shared, look, request)
        };
        self.publish(provisional, work, shared, look, request).await
    }

    /// Takes in how hashing ended.
    async fn hashed(&self, provisional: InfoHash, work: &Arc<HashWork>, outcome: Outcome) {
        match &outcome {
            Ok(_) => {}
            Err(_) if work.cancel.load(Ordering::Relaxed) || self.is_open().is_err() => {
                return work.tell(&Err(DaemonError::Ending));
            }
            Err(error) => {
                let is_wrong = matches!(
                    error,
                    DaemonError::Invalid(_) | DaemonError::Forbidden(_) | DaemonError::NotFound(_)
                );
                // Who asked for what makes no sense and is told so asks anew.
                if !(is_wrong && work.is_awaited() && self.strike(provisional, work).await) {
                    self.give_up(provisional, work, error);
                }
            }
        }
        work.tell(&outcome);
    }

    /// Leaves a torrent in the list with what went wrong.
    fn give_up(&self, provisional: InfoHash, work: &Arc<HashWork>, error: &DaemonError) {
        let mut book = self.book.lock();
        if let Some(making) = making_of(&mut book.torrents, provisional, work) {
            tracing::warn!(torrent = making.name, %error, "what was to be shared is not");
            making.error = Some(printable(&error.to_string()).into_owned());
        }
        drop(book);
        self.touch(provisional, false);
    }

    /// Takes a torrent that came to nothing out of the list. Returns whether that is so.
    async fn strike(&self, provisional: InfoHash, work: &Arc<HashWork>) -> bool {
        let _door = self.door(provisional).await;
        let file = {
            let mut book = self.book.lock();
            let Some(_) = making_of(&mut book.torrents, provisional, work) else { return true };
            book.torrents.get(&provisional).map(|entry| entry.file().into_owned())
        };
        if let Err(error) = self.state.remove(provisional).await {
            tracing::debug!(%error, "a request that makes no sense stays in the list");
            return false;
        }
        self.book.lock().take(provisional, unix_now());
        self.ears.removed(provisional);
        self.forget_hidden(&file.unwrap_or_default()).await;
        true
    }

    /// Removes what is left of a torrent's provisional form after it was put in its place.
    pub async fn forget_provisional(&self, provisional: InfoHash, file: &str) {
        if let Err(error) = self.state.remove(provisional).await {
            tracing::warn!(%error, "after a restart it is hashed again, and then found to be here");
        }
        self.ears.removed(provisional);
        self.forget_hidden(file).await;
    }

    /// Removes the `.torrent` that came with a request, if there was one.
    async fn forget_hidden(&self, file: &str) {
        if file.is_empty() {
            return;
        }
        let path = self.config.torrents.join(file);
        let removed = blocking(move || std::fs::remove_file(&path).map_err(|error| (path, error)));
        match removed.await {
            Ok(Err((path, error))) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "`{}` stays behind", shown(&path));
            }
            _ => {}
        }
    }

    /// Whether the torrent is listed and this is the attempt to hash it that counts.
    pub fn is_at(&self, provisional: InfoHash, work: &Arc<HashWork>) -> bool {
        making_of(&mut self.book.lock().torrents, provisional, work).is_some()
    }

    /// Looks at the `.torrent` of a request and returns the torrent's name.
    async fn check_made(
        &self,
        bytes: Vec<u8>,
        look: &Look,
        request: &SeedRequest,
    ) -> Result<String, DaemonError> {
        let metainfo = blocking(move || super::add::parse(&bytes)).await??;
        super::seed::plan_of(&metainfo, &look.tiers, request)?;
        Ok(metainfo.info().name().to_owned())
    }
}

/// The torrent, if it is still the one that `work` is done for.
fn making_of<'a>(
    torrents: &'a mut hashbrown::HashMap<InfoHash, Box<Entry>, foldhash::fast::FixedState>,
    provisional: InfoHash,
    work: &Arc<HashWork>,
) -> Option<&'a mut Making> {
    let making = torrents.get_mut(&provisional)?.body.making_mut()?;
    Arc::ptr_eq(&making.work, work).then_some(making)
}

/// Why nothing else can be done to a torrent yet.
pub(super) fn is_hashed(entry: &Entry) -> DaemonError {
    let error = match entry.body.view() {
        BodyView::Making(making) => making.error.clone(),
        _ => None,
    };
    DaemonError::Conflict(error.unwrap_or_else(|| {
        format!(
            "`{}` is being hashed: wait until that is over, or remove it",
            printable(entry.name())
        )
    }))
}

/// Name in the torrents folder of a `.torrent` whose files are not hashed yet. Whoever reads the
/// folder passes over it.
fn hidden_name(provisional: InfoHash) -> String {
    format!(".{provisional}.torrent")
}

/// Torrents that may be hashed or wait for it: each has a task, and some KiB of request.
const MOST: usize = 1_000;
