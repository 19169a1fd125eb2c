//! What is to be shared and is hashed first: listed from the moment it is asked for, kept over
//! restarts, and removed like any other torrent, which ends the hashing.
//!
//! Until its files are hashed a torrent stands under a provisional info-hash, made of the request.
//! Its row of the state has the request, so that a daemon that starts again hashes it from the
//! beginning. A `.torrent` that came with the request lies in the torrents folder meanwhile, under a
//! hidden name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use super::add::decode;
use super::book::{Body, BodyView, Entry, unix_now};
use super::display::part;
use super::inner::{Inner, blocking};
use super::kept::{Kept, ToHash};
use super::roots::shown;
use super::seed::Look;
use super::tally::{EntryMut, Torrents};
use super::{Caller, DaemonError};
use crate::state::{Counters, Saved};
use piecework_api::{Added, SeedRequest, State as Doing, Torrent, TorrentSettings};
use piecework_core::{InfoHash, figures::count, printable};
use piecework_storage::write_whole;

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
        // A `.torrent` may have 100 MiB: what is in memory of them at a time is bounded.
        let _place = match request.torrent {
            Some(_) => Some(self.fetching(caller).await?),
            None => None,
        };
        let mut torrent = request.torrent.take().map(|text| decode(&text)).transpose()?;
        check_len(&request)?;
        let input = &look.input;
        let own = || input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
        let name = look.link.clone().unwrap_or_else(own);
        let mut making = Making::new(name, input.parent().unwrap_or(input).to_owned());
        if let Some(bytes) = torrent {
            let (name, bytes) = self.check_made(bytes, &look, &request).await?;
            (making.name, torrent) = (name, Some(bytes));
        }
        let _door = self.door(provisional).await;
        self.is_open()?;
        if let Some(begun) = self.join_seed(provisional) {
            return Ok(begun);
        }
        {
            let mut book = self.book.lock();
            let now = book.making + book.making_soon;
            if now >= MOST {
                return Err(DaemonError::Conflict(format!(
                    "`{}` files and folders are being hashed or wait for it already, the most there \
                     may be: share this one when some are done",
                    count(now as u64)
                )));
            }
            book.making_soon += 1;
        }
        let local = caller == Caller::Local;
        let to_hash = ToHash { name: making.name.clone(), request, local };
        let begun = self.list(provisional, to_hash, making, torrent).await;
        self.book.lock().making_soon -= 1;
        begun
    }

    /// Waits for what was asked for in the same words and is not done yet. What was given up is tried
    /// again.
    fn join_seed(self: &Arc<Self>, provisional: InfoHash) -> Option<BegunSeed> {
        loop {
            self.hash_again(provisional);
            let book = self.book.lock();
            let entry = book.torrents.get(&provisional)?;
            let BodyView::Making(making) = entry.body.view() else { return None };
            if making.error.is_some() {
                // It was given up just now: nobody would be told of that any more.
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
            return Some(BegunSeed { listed, outcome: making.work.wait() });
        }
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
            let written = blocking(move || write_whole(&path, &bytes, 0o644)).await?;
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
        let (inner, turn) = (Arc::clone(self), self.in_line());
        tokio::spawn(async move {
            let outcome = inner.hash_and_share(provisional, &work, turn).await;
            inner.hashed(provisional, &work, outcome).await;
        });
    }

    /// A turn to hash. Turns come in the order of these calls, whichever task runs first.
    fn in_line(&self) -> Turn {
        // Without the budget of the task that calls, which would have it not take its place.
        let waiting = tokio::task::unconstrained(Arc::clone(&self.hashing).lock_owned());
        let mut waiting = Box::pin(waiting);
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(turn) => Box::pin(std::future::ready(turn)),
            std::task::Poll::Pending => waiting,
        }
    }

    /// Tries once more what was given up. Returns whether the torrent is one that is to be hashed
    /// first.
    pub fn hash_again(self: &Arc<Self>, provisional: InfoHash) -> bool {
        let work = {
            let mut book = self.book.lock();
            let mut entry = book.torrents.get_mut(&provisional);
            let Some(making) = entry.as_mut().and_then(|entry| entry.body.making_mut()) else {
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
        turn: Turn,
    ) -> Outcome {
        let (shared, look, request) = {
            let _alone = tokio::select! {
                alone = turn => alone,
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
                    DaemonError::Invalid(_)
                        | DaemonError::Forbidden(_)
                        | DaemonError::NotFound(_)
                        | DaemonError::Occupied(_)
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
        if let Some(mut entry) = making_of(&mut book.torrents, provisional, work)
            && let Some(making) = entry.body.making_mut()
        {
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
            let Some(entry) = making_of(&mut book.torrents, provisional, work) else {
                return true;
            };
            entry.file().into_owned()
        };
        if let Err(error) = self.state.remove(provisional).await {
            tracing::debug!(%error, "a request that makes no sense stays in the list");
            return false;
        }
        self.book.lock().take(provisional, unix_now());
        self.ears.removed(provisional);
        self.forget_hidden(&file).await;
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

    /// Looks at the `.torrent` of a request and returns the torrent's name and those bytes.
    async fn check_made(
        &self,
        bytes: Vec<u8>,
        look: &Look,
        request: &SeedRequest,
    ) -> Result<(String, Vec<u8>), DaemonError> {
        let parsed = blocking(move || super::add::parse(&bytes).map(|parsed| (parsed, bytes)));
        let (metainfo, bytes) = parsed.await??;
        super::seed::plan_of(&metainfo, &look.tiers, request)?;
        Ok((metainfo.info().name().to_owned(), bytes))
    }
}

/// Refuses a request that is too long to be kept a thousand times over.
fn check_len(request: &SeedRequest) -> Result<(), DaemonError> {
    let len = serde_json::to_vec(request).map_or(usize::MAX, |text| text.len());
    if len > MOST_REQUEST {
        return Err(DaemonError::Invalid(format!(
            "the request has `{len}` bytes besides a `.torrent`, more than the `{MOST_REQUEST}` taken: \
             exclude files by fewer patterns",
        )));
    }
    Ok(())
}

/// Removes from the torrents folder what came with requests that the state does not know: the process
/// died between writing one and the other. `known` are the names of the state's files.
///
/// # Errors
/// If the folder cannot be read; what cannot be removed is told in the log.
pub(super) fn sweep(folder: &Path, known: &BTreeSet<&str>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| is_hidden_name(name)) else { continue };
        if known.contains(name) {
            continue;
        }
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!("`{}` was left behind and is removed", shown(&path)),
            Err(error) => tracing::warn!(%error, "`{}` stays behind", shown(&path)),
        }
    }
    Ok(())
}

/// The torrent, if it is still the one that `work` is done for.
fn making_of<'a>(
    torrents: &'a mut Torrents,
    provisional: InfoHash,
    work: &Arc<HashWork>,
) -> Option<EntryMut<'a>> {
    let mut entry = torrents.get_mut(&provisional)?;
    let is_meant = Arc::ptr_eq(&entry.body.making_mut()?.work, work);
    is_meant.then_some(entry)
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

/// Whether [`hidden_name`] gives such names.
fn is_hidden_name(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".torrent"));
    inner.and_then(|hash| hash.parse().ok()).is_some_and(|hash| hidden_name(hash) == name)
}

/// Resolves when a torrent may be hashed; the next one may when the guard is dropped.
type Turn = Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>;

/// Torrents that may be hashed or wait for it: each has a task and its request.
const MOST: usize = 1_000;

/// Bytes of a request without its `.torrent`: 64 MiB for all that may be kept. A request names a path,
/// trackers, labels and patterns; a hundred of each of 255 bytes fit.
const MOST_REQUEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_with_forgotten_requests_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let [known, forgotten] = [1, 2].map(|byte| hidden_name(InfoHash([byte; 20])));
        let others = [
            ".x.torrent".to_owned(),
            forgotten[1..].to_owned(),
            format!("{forgotten}.token"),
            format!(".{}.torrent", "AB".repeat(20)),
            ".1.2.part".to_owned(),
        ];
        for name in others.iter().chain([&known, &forgotten]) {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        sweep(dir.path(), &BTreeSet::from([known.as_str()])).unwrap();
        assert!(!dir.path().join(&forgotten).exists());
        for name in others.iter().chain([&known]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_request_is_bounded_but_for_its_torrent() {
        let patterns = |number| SeedRequest {
            exclude: vec!["x".repeat(255); number],
            ..SeedRequest::default()
        };
        check_len(&patterns(100)).unwrap();
        let refused = check_len(&patterns(300)).unwrap_err().to_string();
        assert!(refused.contains("more than the `65536` taken"), "{refused}");
    }
}
