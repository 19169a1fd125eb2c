//! Bringing back what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::book::{Body, BodyView, Book, Broken, Entry, Totals, unix_now};
use super::files::TorrentFile;
use super::inner::{Inner, Parts, blocking, options, rate_limits};
use super::kept::Kept;
use super::making::{Making, sweep};
use super::recorder::Recorder;
use super::roots::shown;
use super::unfinished::{self, Rest, Unfinished};
use super::{DaemonConfig, StartError, catalogue, files, keeper, register, watch};
use crate::queue::Order;
use crate::state::{Counters, Loaded, Saved, State, Update};
use piecework_api::{Choke, Encryption, Settings, SettingsChange, TorrentSettings};
use piecework_core::metainfo::{FileEntry, Metainfo};
use piecework_core::{Bitfield, Checkpoint, Fingerprint, PieceIndex, Unwritable, printable};
use piecework_engine::{AddError, AddTorrent, PathTaken, Session, SessionConfig};
use piecework_journal::{Journal, PieceLog};
use piecework_proto::announce::CatalogueUrl;
use piecework_proto::encryption::EncryptionPolicy;
use piecework_storage::{
    AllowedRoots, FolderIdentity, StorageError, Store, StoreMode, StoreOptions, check,
    content_names,
};
use piecework_swarm::ChokePolicy;

/// What is kept of the daemon's settings.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeptSettings {
    /// By key, what was changed while a daemon ran.
    pub changed: serde_json::Map<String, serde_json::Value>,
    pub totals: Totals,
    /// Folders of torrents, and where the file systems are mounted that they lie on.
    pub mounts: BTreeMap<String, String>,
    /// What the session's announce keys are made from, so that trackers know the daemon again after
    /// a restart or kill.
    pub announce_secret: Option<[u8; 32]>,
}

/// A torrent that was kept, what was chosen for it, and its `.torrent`, if that is one.
struct Found {
    saved: Saved,
    kept: Result<Kept, String>,
    metainfo: Result<Arc<Metainfo>, String>,
}

impl KeptSettings {
    pub fn to_text(&self) -> String {
        // Nothing in it can fail: strings, numbers and lists.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Starts a daemon.
pub(super) async fn start(config: DaemonConfig) -> Result<Arc<Inner>, StartError> {
    let (state, loaded, found, unmade) = {
        let config = config.clone();
        blocking(move || open(&config)).await??
    };
    let mut book = Book::new(config.settings.clone());
    let (mounts, announce_secret) = restore_settings(&mut book, loaded.settings.as_deref());
    if let Some(notice) = &loaded.notice {
        book.notice(notice.clone());
    }
    if let Some(unmade) = &unmade {
        book.notice(unmade.clone());
    }
    book.totals.starts += 1;

    let log = Arc::new(open_log(&config, &mut book).await);
    let keeper = Arc::new(keeper::StateKeeper::new(state.clone()));
    let session = Session::start(SessionConfig {
        observer: Some(Arc::new(Recorder::new(Arc::clone(&log)))),
        keeper: Some(keeper),
        announce_secret,
        ..session_config(&config, &book.settings)
    })?;
    session.restore_mounts(mounts);
    // Before any torrent is there, so that no change is missed.
    let changes = session.changes();
    let inner = Inner::new(Parts { config, session, state, book, log });
    let inner = Arc::new(inner);
    if inner.book.lock().settings.block_list
        && let Err(error) = inner.read_block_list(false).await
    {
        inner.book.lock().notice(error.to_string());
    }
    inner.restore(found).await;
    // The times it was started are among the sums.
    match inner.keep_settings().await {
        // It is told of for as long as it lasts, and tried again.
        Err(error) if error.is_unwritable() => {}
        kept => kept?,
    }
    let task = tokio::spawn(Arc::clone(&inner).watch(changes));
    let watching = tokio::spawn(watch::run(Arc::clone(&inner)));
    let registering = tokio::spawn(register::run(Arc::clone(&inner)));
    let making = unmade.map(|notice| tokio::spawn(make_folder(Arc::clone(&inner), notice)));
    inner.tasks.lock().extend([task, watching, registering].into_iter().chain(making));
    Ok(inner)
}

/// Makes the folder of `.torrent` files as soon as its disk allows that, and then takes `notice`
/// back.
async fn make_folder(inner: Arc<Inner>, notice: String) {
    loop {
        tokio::time::sleep(MAKE_AGAIN).await;
        let folder = inner.config.torrents.clone();
        if let Ok(Ok(())) = blocking(move || std::fs::create_dir_all(folder)).await {
            return inner.book.lock().withdraw(&notice);
        }
    }
}

/// Time between two attempts to make the folder of `.torrent` files.
const MAKE_AGAIN: Duration = Duration::from_secs(5);

/// The log of pieces, with its journal if there is one. A journal that cannot be had is no reason
/// not to start.
async fn open_log(config: &DaemonConfig, book: &mut Book) -> PieceLog {
    let Some(options) = config.journal.clone() else { return PieceLog::new(config.log_records) };
    let opened = blocking(move || Journal::open(&options).map_err(|error| error.to_string())).await;
    match opened.map_err(|error| error.to_string()).flatten() {
        Ok(journal) => {
            if let Some(notice) = journal.notice() {
                book.notice(notice.to_owned());
            }
            PieceLog::with_journal(Arc::new(journal), false)
        }
        Err(error) => {
            book.notice(format!("{error}; responses are remembered in memory only"));
            PieceLog::new(config.log_records)
        }
    }
}

/// What a session is started with.
fn session_config(config: &DaemonConfig, settings: &Settings) -> SessionConfig {
    let (upload_limit, download_limit) = rate_limits(settings);
    SessionConfig {
        choke: choke(settings.choke),
        encryption: encryption_policy(settings.encryption),
        upload_slots: settings.upload_slots as usize,
        max_peers_per_torrent: settings.max_peers_per_torrent as usize,
        max_connections: settings.max_connections as usize,
        upload_limit,
        download_limit,
        keep_to: keep_to(config),
        ..config.session.clone()
    }
}

/// Folders below which no link is followed, whenever somebody put it there.
fn keep_to(config: &DaemonConfig) -> Arc<Vec<PathBuf>> {
    let downloads = std::iter::once(&config.settings.downloads);
    let roots = downloads.chain(&config.download_roots).cloned().collect();
    Arc::new(AllowedRoots::new(roots).roots().to_vec())
}

pub(super) fn choke(choke: Choke) -> ChokePolicy {
    match choke {
        Choke::TitForTat => ChokePolicy::TitForTat,
        Choke::Closed => ChokePolicy::Closed,
    }
}

/// Returns the engine's policy for a setting.
pub fn encryption_policy(encryption: Encryption) -> EncryptionPolicy {
    match encryption {
        Encryption::Plain => EncryptionPolicy::Plain,
        Encryption::Allow => EncryptionPolicy::Allow,
        Encryption::Prefer => EncryptionPolicy::Prefer,
        Encryption::Require => EncryptionPolicy::Require,
    }
}

/// Opens the state and reads the torrents. Blocks.
///
/// The last value says why the folder of `.torrent` files could not be made, if its disk takes
/// nothing for the time being.
fn open(config: &DaemonConfig) -> Result<(State, Loaded, Vec<Found>, Option<String>), StartError> {
    let folder = &config.torrents;
    let unmade = match std::fs::create_dir_all(folder) {
        Ok(()) => None,
        Err(error) => {
            let Some(why) = Unwritable::of(&error) else {
                return Err(StartError::Folder { path: folder.clone(), source: error });
            };
            let folder = shown(folder);
            Some(format!(
                "the folder `{folder}` cannot be made: {why}; it is tried again every few seconds"
            ))
        }
    };
    let (state, mut loaded) = State::open(&config.state)?;
    let mut torrents = std::mem::take(&mut loaded.torrents);
    if !loaded.incomplete {
        let known = torrents.iter().map(|saved| saved.file.as_str()).collect();
        match sweep(folder, &known) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "what requests left behind in the torrents folder stays");
            }
            _ => {}
        }
    }
    let anew = match loaded.incomplete {
        true => find_again(config, &torrents),
        false => Vec::new(),
    };
    let rebuilt = anew.len();
    if rebuilt > 0 {
        match state.put_many(anew.clone()).wait() {
            Err(error) if error.is_unwritable() => state.put_later(anew.clone()),
            written => written?,
        }
        torrents.extend(anew);
        let notice = loaded
            .notice
            .get_or_insert_with(|| format!("there was no database `{}`", shown(&config.state)));
        notice.push_str(&format!(
            "; `{rebuilt}` torrents were found again in `{}` and are checked: those that are \
             not whole in `{}` stay paused until they are started or told where their files are",
            shown(&config.torrents),
            shown(&config.settings.downloads),
        ));
    }
    Ok((state, loaded, read_all(&config.torrents, torrents), unmade))
}

/// The torrents of the folder that the state does not know.
fn find_again(config: &DaemonConfig, known: &[Saved]) -> Vec<Saved> {
    let files: BTreeSet<&str> = known.iter().map(|saved| saved.file.as_str()).collect();
    let mut hashes: BTreeSet<_> = known.iter().map(|saved| saved.info_hash).collect();
    let mut names: Vec<String> = match std::fs::read_dir(&config.torrents) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".torrent") && !name.starts_with('.'))
            .filter(|name| !files.contains(name.as_str()))
            .collect(),
        // It could not be made.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::error!(%error, "the folder of torrents cannot be read");
            Vec::new()
        }
    };
    names.sort();
    let read = side_by_side(&names, |name| files::read_torrent(&config.torrents.join(name)));
    let mut again = Vec::new();
    for (name, metainfo) in names.into_iter().zip(read) {
        let Ok(metainfo) = metainfo else { continue };
        if !hashes.insert(metainfo.info_hash()) {
            continue;
        }
        let rank = i64::try_from(again.len()).unwrap_or(i64::MAX);
        let mut kept = Kept { rank, rebuilt: true, ..Kept::default() };
        let names = content_names(&metainfo, &config.settings.downloads, config.session.raw_names);
        if !names.is_empty() {
            let mut settings = TorrentSettings::default();
            settings.name_anew(metainfo.info().name(), names);
            kept.settings = settings.into();
        }
        let suffix = config.settings.incomplete_suffix.clone();
        kept.rare.change(|rare| rare.suffix = Some(suffix.into()));
        again.push(Saved {
            info_hash: metainfo.info_hash(),
            file: name,
            root: config.settings.downloads.clone(),
            added_at: unix_now(),
            done_at: None,
            settings: kept.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        });
    }
    again
}

/// Reads every `.torrent`; one that is gone or damaged costs only itself.
fn read_all(folder: &Path, mut torrents: Vec<Saved>) -> Vec<Found> {
    // Before anything that stays: what the texts took is used again for the torrents then, and
    // leaves no holes.
    let kept: Vec<_> = torrents
        .iter_mut()
        .map(|saved| Kept::from_text(&std::mem::take(&mut saved.settings)))
        .map(|kept| kept.map_err(|error| error.to_string()))
        .collect();
    let torrent_files = Arc::new(TorrentFile::usual(folder));
    let items: Vec<_> = torrents.iter().zip(&kept).collect();
    let read = side_by_side(&items, |(saved, kept)| {
        if kept.as_ref().is_ok_and(|kept| kept.rare.to_hash.is_some()) {
            return Err("its files are to be hashed first".to_owned());
        }
        let metainfo = files::read_known(&folder.join(&saved.file), saved.info_hash)?;
        // Few of them will ever be verified, and what is free now is used for what stays.
        torrent_files.keeps(&metainfo, &saved.file);
        metainfo.let_go();
        Ok(Arc::new(metainfo))
    });
    drop(items);
    let found = torrents.into_iter().zip(kept).zip(read);
    found.map(|((saved, kept), metainfo)| Found { saved, kept, metainfo }).collect()
}

/// `work` for each of `items`, in order, on a few threads.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, READERS);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let reader = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return mine };
                mine.push((at, work(item)));
            }
        };
        let threads: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(reader)).collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(mine) => mine,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What was changed in earlier runs goes above the configuration. Returns on which disks the
/// folders of torrents lay.
fn restore_settings(
    book: &mut Book,
    text: Option<&str>,
) -> (BTreeMap<PathBuf, PathBuf>, Option<[u8; 32]>) {
    let Some(text) = text else { return Default::default() };
    let kept: KeptSettings = match serde_json::from_str(text) {
        Ok(kept) => kept,
        Err(error) => {
            book.notice(format!("the settings that were kept cannot be read: {error}"));
            return Default::default();
        }
    };
    book.totals = kept.totals;
    for (key, value) in kept.changed {
        let one = SettingsChange([(key.clone(), value.clone())].into_iter().collect());
        match one.apply(&book.settings) {
            Ok(settings) => {
                book.settings = settings;
                book.changed.insert(key, value);
            }
            Err(error) => book.notice(format!(
                "the setting `{}` that was kept is passed over: {error}",
                printable(&key)
            )),
        }
    }
    let mounts = kept.mounts.into_iter().map(|(root, mount)| (root.into(), mount.into()));
    (mounts.collect(), kept.announce_secret)
}

impl Inner {
    /// Puts every torrent where it was.
    async fn restore(self: &Arc<Self>, found: Vec<Found>) {
        let mut ranks = Vec::with_capacity(found.len());
        let mut all = Vec::with_capacity(found.len());
        for Found { saved, kept, metainfo } in found {
            let kept = kept.unwrap_or_else(|error| {
                let hash = saved.info_hash;
                self.book.lock().notice(format!(
                    "what was chosen for the torrent `{hash}` cannot be read, so it is paused: \
                     {error}"
                ));
                let settings = TorrentSettings { paused: true, ..TorrentSettings::default() };
                Kept { settings: settings.into(), ..Kept::default() }
            });
            ranks.push((kept.rank, saved.info_hash));
            all.push((saved, kept, metainfo));
        }
        let order = Order::new(ranks);
        let places: BTreeMap<_, _> = order.iter().zip(0_usize..).collect();
        all.sort_by_key(|(saved, ..)| places.get(&saved.info_hash).copied());
        self.book.lock().order = order.clone();
        for ((mut saved, mut kept, metainfo), (rank, _)) in all.into_iter().zip(order.ranks()) {
            kept.rank = rank;
            let mut rest = Rest::Nothing;
            if let (Ok(metainfo), Some(_)) = (&metainfo, &kept.rare.unfinished) {
                rest = self.settle(metainfo, &mut saved, &mut kept).await;
            }
            let making =
                kept.rare.to_hash.as_ref().map(|to_hash| {
                    Body::making(Making::new(to_hash.name.clone(), saved.root.clone()))
                });
            let body = match metainfo {
                _ if let Some(making) = making => Ok(making),
                Ok(metainfo) => self.enter_by_age(&metainfo, &saved, &kept).await,
                Err(error) => Err(Broken {
                    name: saved.file.trim_end_matches(".torrent").to_owned(),
                    error,
                    root: saved.root.clone(),
                    metainfo: None,
                    checkpoint: saved.checkpoint.clone(),
                    taken: None,
                }),
            };
            let body = body.unwrap_or_else(|broken| {
                tracing::warn!(torrent = %saved.info_hash, "{}", broken.error);
                Body::broken(broken)
            });
            let mut book = self.book.lock();
            let id = book.new_id();
            let entry = Entry::new(id, &saved, kept, body, Instant::now());
            let handle = entry.handle().cloned();
            let work = match entry.body.view() {
                BodyView::Making(making) => Some(Arc::clone(&making.work)),
                _ => None,
            };
            book.enter(saved.info_hash, Box::new(entry));
            drop(book);
            if let Some(work) = work {
                self.start_hashing(saved.info_hash, work);
            }
            if let (Rest::Move(folder), Some(handle)) = (rest, handle) {
                self.begin_move(saved.info_hash, handle, folder, false);
            }
        }
        self.book.lock().review = true;
    }

    /// Finds out where the files are of a torrent that was being renamed or moved.
    async fn settle(&self, metainfo: &Arc<Metainfo>, saved: &mut Saved, kept: &mut Kept) -> Rest {
        let info_hash = saved.info_hash;
        let (suffix, keep_to) = (self.suffix(kept), keep_to(&self.config));
        let (metainfo, mut root, mut now) =
            (Arc::clone(metainfo), saved.root.clone(), kept.clone());
        let settled = blocking(move || {
            unfinished::settle(&metainfo, &mut root, &mut now, &suffix, &keep_to)
                .map(|rest| (rest, root, now))
        });
        let settled = match settled.await {
            Ok(Ok(settled)) => Ok(settled),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (rest, root, now) = match settled {
            Ok(settled) => settled,
            Err(error) => {
                self.book.lock().notice(format!(
                    "the torrent `{info_hash}` was being moved or renamed, and where its files are \
                     cannot be told: {error}"
                ));
                return Rest::Nothing;
            }
        };
        (saved.root, *kept) = (root, now);
        if let Rest::Move(folder) = &rest {
            // It is begun anew, and may be cut short again.
            let folder = folder.to_str().map(str::to_owned);
            kept.rare.unfinished = folder.map(|folder| Box::new(Unfinished::Move { folder }));
        }
        let (root, settings) = (Some(saved.root.clone()), Some(kept.to_text()));
        let update = Update { root, settings, ..Update::default() };
        if let Err(error) = self.state.update(info_hash, update).await {
            tracing::warn!(%error, "where a torrent's files are is found out again next time");
        }
        rest
    }

    /// What the names of the torrent's unfinished files end with.
    fn suffix(&self, kept: &Kept) -> String {
        let now = || self.book.lock().settings.incomplete_suffix.clone();
        kept.rare.suffix.as_ref().map_or_else(now, |suffix| suffix.clone().into_owned())
    }

    /// Adds a torrent to the engine, paused: the queue says when it runs.
    pub async fn enter(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &Saved,
        kept: &Kept,
        extra: Extra,
    ) -> Result<Body, Broken> {
        let chosen = &kept.settings;
        self.torrent_files.keeps(metainfo, &saved.file);
        let mut add = AddTorrent::new(Arc::clone(metainfo), &saved.root);
        let tiers = self.tiers(metainfo, kept);
        let registered = kept.rare.tracker.as_deref().and_then(catalogue::base_of);
        add.catalogue = registered
            .map(CatalogueUrl::named)
            .or_else(|| catalogue::of_torrent(metainfo, &tiers, self.config.tracker.as_deref()));
        add.trackers = Some(tiers);
        add.peers = extra.peers;
        add.assume_complete = extra.whole;
        add.upload_only = kept.seed;
        add.paused = true;
        add.checkpoint = saved.checkpoint.clone().filter(|point| fits(point, metainfo));
        add.options = options(metainfo, chosen);
        add.incomplete_suffix = self.suffix(kept);
        add.names =
            chosen.renamed.iter().map(|(file, path)| (*file as usize, path.clone())).collect();
        (add.overwrite, add.hindered) = (kept.rare.overwrite, kept.rare.hindered);
        let was_whole = saved.checkpoint.as_ref().is_some_and(|point| {
            // One that is being checked again had been there.
            point.have.is_full() || saved.done_at.is_some() && point.may_be_whole()
        });
        add.shares_files = extra.whole || was_whole;
        add.folder = Some(self.folder_of(&saved.root).await);
        let mut added = self.session.add(add.clone());
        if let Err(AddError::PathTaken(taken)) = &added
            && extra.new
            && taken.can_be_shared
            && self.looks_whole(&add).await
        {
            // The same content in another torrent: what is not right after all is found when it is
            // checked, and nothing is written to it then.
            add.shares_files = true;
            added = self.session.add(add);
        }
        let error = match added {
            Ok(handle) => return Ok(Body::Live(handle)),
            Err(error) => error,
        };
        Err(Broken {
            name: metainfo.info().name().to_owned(),
            error: error.to_string(),
            root: saved.root.clone(),
            metainfo: Some(Arc::clone(metainfo)),
            checkpoint: saved.checkpoint.clone(),
            taken: match error {
                AddError::PathTaken(taken) => Some(taken),
                _ => None,
            },
        })
    }

    /// The same of one that was kept: of torrents that have a path in common the oldest is the one
    /// that has it.
    async fn enter_by_age(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &Saved,
        kept: &Kept,
    ) -> Result<Body, Broken> {
        loop {
            let mut broken = match self.enter(metainfo, saved, kept, Extra::default()).await {
                Ok(body) => return Ok(body),
                Err(broken) => broken,
            };
            let Some(taken) = &broken.taken else { return Err(broken) };
            let owner = taken.owner.1;
            let is_older = |entry: &Entry| saved.added_at < entry.added_at;
            if !self.with(owner, |entry| is_older(entry)).unwrap_or(false) {
                broken.error = taken.standing();
                return Err(broken);
            }
            // Asked the other way round, so that the sentence is about the other one.
            let mut theirs = PathTaken::clone(taken);
            std::mem::swap(&mut theirs.owner, &mut theirs.torrent);
            self.session.remove(owner).await;
            let made_way = self.with(owner, |entry| {
                entry.body = Body::broken(Broken {
                    name: entry.name().to_owned(),
                    error: theirs.standing(),
                    root: entry.root(),
                    metainfo: entry.metainfo().cloned(),
                    checkpoint: None,
                    taken: Some(Box::new(theirs)),
                });
            });
            if made_way.is_err() {
                return Err(broken);
            }
        }
    }

    /// Where a folder really lies. Thousands of torrents in one folder ask once a second.
    async fn folder_of(&self, root: &Path) -> FolderIdentity {
        let now = Instant::now();
        {
            let seen = self.folder_seen.lock();
            if let Some((path, at, folder)) = &*seen
                && path == root
                && now.saturating_duration_since(*at) < FOLDER_FRESH
            {
                return folder.clone();
            }
        }
        let folder = piecework_engine::folder_identity(root).await;
        *self.folder_seen.lock() = Some((root.to_owned(), now, folder.clone()));
        folder
    }

    /// Whether all files of the torrent are there as long as it says, and some pieces are right.
    async fn looks_whole(&self, add: &AddTorrent) -> bool {
        let options = StoreOptions {
            mode: StoreMode::ReadOnly,
            names: add.names.clone(),
            keep_to: keep_to(&self.config),
            ..StoreOptions::default()
        };
        let (root, metainfo) = (add.root.clone(), Arc::clone(&add.metainfo));
        let cancel = Arc::clone(&self.cancel);
        let look = move || -> Result<bool, StorageError> {
            let store = Store::with_options(&root, metainfo, Arc::default(), options)?;
            let entries = store.metainfo().info().files().entries();
            let is_there = |(entry, print): (&FileEntry, Option<Fingerprint>)| {
                entry.padding || print.is_some_and(|print| print.len == entry.len)
            };
            if !entries.iter().zip(store.fingerprints()?).all(is_there) {
                return Ok(false);
            }
            let pieces = store.geometry().pieces();
            let mut sample = Bitfield::empty(pieces);
            for part in 0..SAMPLE {
                let piece = u64::from(pieces.saturating_sub(1)) * part / (SAMPLE - 1);
                sample.insert(PieceIndex(piece as u32));
            }
            let right = check(&store, Some(&sample), |_| {}, &cancel)?;
            Ok(right.count() == sample.count())
        };
        match blocking(look).await {
            Ok(Ok(whole)) => whole,
            Ok(Err(error)) => {
                tracing::debug!(%error, "files that another torrent has cannot be looked at");
                false
            }
            Err(_) => false,
        }
    }
}

/// What is known only when a torrent is added.
#[derive(Default)]
pub(super) struct Extra {
    /// Peers to begin with.
    pub peers: Vec<std::net::SocketAddr>,
    /// It was hashed a moment ago and is all there.
    pub whole: bool,
    /// It has not been here before.
    pub new: bool,
}

/// Whether it is of as many pieces and files as the torrent.
fn fits(point: &Checkpoint, metainfo: &Metainfo) -> bool {
    let pieces = metainfo.info().geometry().pieces();
    point.have.len() == pieces
        && point.unchecked.as_ref().is_none_or(|unchecked| unchecked.len() == pieces)
        && point.files.len() == metainfo.info().files().entries().len()
}

/// For so long it is believed where a folder lies.
const FOLDER_FRESH: Duration = Duration::from_secs(1);

/// Pieces that are hashed before files of another torrent are taken for this one's as well.
const SAMPLE: u64 = 5;

/// Threads that read `.torrent` files: enough to keep a disk busy.
const READERS: usize = 8;
