//! One torrent while it is awake: the task that owns its record, and its swarm if it has one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::net::{Accepted, Limiter};
use piecework_core::{Bitfield, Fingerprint, Geometry, PieceIndex, Priority};
use piecework_storage::{self as storage, MoveProgress, StorageError, Store, StoreMode};
use piecework_swarm::PieceStage;
use piecework_swarm::admission::{HalfOpen, Ticket};

use super::checking::Progress;
use super::crew::{fault, make_way};
use super::entry::{Call, Entry, FileWork};
use super::owners::{Planned, folder_identity};
use super::record::{Ownership, Phase, Record};
use super::run::Run;
use super::shared::Shared;
use super::starts::{self, Start};
use super::{TorrentError, TorrentState, files, wants};

/// Starts the task of a torrent that has something to do.
pub(super) fn spawn(
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    record: Box<Record>,
    calls: mpsc::Receiver<Call>,
) {
    let runtime = shared.runtime.clone();
    let (upload, download) = (Limiter::new(None), Limiter::new(None));
    let torrent = Torrent {
        geometry: entry.metainfo.info().geometry(),
        shared,
        record: Some(record),
        calls,
        later: VecDeque::new(),
        arrived: Arrived::default(),
        upload,
        download,
        start: None,
        entry,
    };
    torrent.set_limits();
    runtime.spawn(torrent.run());
}

/// A torrent that is awake.
pub(super) struct Torrent {
    pub shared: Arc<Shared>,
    pub entry: Arc<Entry>,
    pub geometry: Geometry,
    pub calls: mpsc::Receiver<Call>,
    /// Calls that had to wait for something.
    pub later: VecDeque<Call>,
    /// Connections that wait for a check to end.
    pub arrived: Arrived,
    pub upload: Limiter,
    pub download: Limiter,
    /// Its place among the downloads that begin, until it has begun.
    pub start: Option<Start>,
    /// `None` once it has been given away.
    record: Option<Box<Record>>,
}

/// Connections that wait, a bounded number: the oldest of the address with the most makes way.
pub(super) struct Arrived {
    tickets: HalfOpen,
    connections: Vec<(Ticket, Accepted)>,
}

impl Arrived {
    fn push(&mut self, connection: Accepted) {
        let (ticket, evicted) = self.tickets.admit(connection.addr.ip());
        self.connections.retain(|(other, _)| Some(*other) != evicted);
        self.connections.push((ticket, connection));
    }

    /// All of them, the first one first.
    pub fn into_connections(self) -> impl Iterator<Item = Accepted> {
        self.connections.into_iter().map(|(_, connection)| connection)
    }
}

impl Default for Arrived {
    fn default() -> Self {
        Self { tickets: HalfOpen::new(ARRIVED_WAITING), connections: Vec::new() }
    }
}

/// How a swarm ended.
pub(super) enum Next {
    /// There is nothing to do for now.
    Sleep,
    /// This cannot be done while it is alive.
    Hear(Call),
    /// The torrent has a fault.
    Fail(TorrentError),
    /// What is held is not as it was thought to be: the record says what is to be done.
    Again,
}

/// Work on the side, as it is seen from here.
#[derive(Default)]
pub(super) struct Aside {
    pub done: AtomicU64,
    total: AtomicU64,
    pub cancel: AtomicBool,
    /// How far a check is, to be kept.
    pub progress: Mutex<Option<Box<Progress>>>,
}

/// What a check hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckScope {
    /// All pieces.
    All,
    /// What a survey, a doubt or an earlier process has left.
    Part,
}

/// What came of preparing files to be written.
enum Prepared {
    /// They are there, and it is kept that they are written to.
    Ready,
    /// They are there, and like this if that is to be kept.
    Files(Option<Vec<Option<Fingerprint>>>),
    /// Somebody else has written to them.
    Changed,
    /// They are not the torrent's, or another torrent's too.
    Refused(TorrentError),
}

/// What follows on something.
enum After {
    GoOn,
    /// The record is given away, the task is over.
    Asleep,
    /// The torrent leaves, and says so here.
    Leave(oneshot::Sender<()>),
}

impl Torrent {
    async fn run(mut self) {
        let leave = loop {
            let shared = Arc::clone(&self.shared);
            if let Some(start) = self.record_mut().take_start(&shared) {
                self.start = Some(start);
            }
            let begins = matches!(self.record().phase, Phase::Ready)
                && !self.record().is_paused()
                && self.later.is_empty();
            if !begins {
                self.hand_on_start();
            } else if self.is_to_wait() {
                match self.fall_asleep() {
                    // It sleeps before it is in the line, so that it is found there.
                    After::Asleep => return shared.starts.line_up(&shared, &self.entry),
                    // Somebody has called.
                    _ => continue,
                }
            }
            let after = match &self.record().phase {
                _ if begins => self.swarm().await,
                Phase::Doubtful(_) if self.record().turn.is_some() && self.later.is_empty() => {
                    self.check().await;
                    After::GoOn
                }
                _ => match self.later.pop_front().or_else(|| self.calls.try_recv().ok()) {
                    Some(call) => self.hear(call).await,
                    None => self.fall_asleep(),
                },
            };
            match after {
                After::GoOn => {}
                After::Asleep => return,
                After::Leave(reply) => break reply,
            }
        };
        self.leave(leave).await;
    }

    pub fn record(&self) -> &Record {
        // Given away only by those that end the task.
        self.record.as_ref().expect("the record is here while the torrent is awake")
    }

    pub fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("the record is here while the torrent is awake")
    }

    /// Has the torrent's own limits be those of its options.
    pub fn set_limits(&self) {
        let options = self.entry.options.lock();
        for (limiter, limit, above) in [
            (&self.upload, options.upload_limit, &self.shared.upload),
            (&self.download, options.download_limit, &self.shared.download),
        ] {
            limiter.set(limit);
            limiter.set_above(options.session_limits.then(|| above.clone()));
        }
    }

    /// Whether this is a download for which nobody waits, and others begin before it.
    fn is_to_wait(&mut self) -> bool {
        let record = self.record();
        if self.start.is_some()
            || record.upload_only
            || record.has_candidates()
            || !self.calls.is_empty()
            || !self.arrived.connections.is_empty()
            || record.is_finished(&self.entry)
        {
            return false;
        }
        self.start = self.shared.starts.take(&self.shared);
        self.start.is_none()
    }

    /// Lets another download begin in place of this one.
    pub fn hand_on_start(&mut self) {
        if let Some(start) = self.start.take() {
            start.hand_on();
        }
    }

    /// Sleeps, unless a call has come.
    fn fall_asleep(&mut self) -> After {
        // Whoever has connected waits for nothing any more.
        self.arrived = Arrived::default();
        let Some(record) = self.record.take() else { return After::Asleep };
        match self.entry.fall_asleep(record, &self.calls) {
            Ok(()) => {
                self.hand_on_start();
                After::Asleep
            }
            Err(record) => {
                self.record = Some(record);
                After::GoOn
            }
        }
    }

    /// At work, until something comes in between.
    async fn swarm(&mut self) -> After {
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        let mut start = self.start.take();
        let prepared = starts::begin(&mut start, self.prepare()).await;
        self.start = start;
        match prepared {
            Ok(Prepared::Ready) => {}
            Ok(Prepared::Files(_) | Prepared::Changed) => {
                self.record_mut().look_again(&shared, &entry);
                return After::GoOn;
            }
            Ok(Prepared::Refused(error)) => {
                self.fail_with(error);
                return After::GoOn;
            }
            Err(error) => {
                self.fail(&error);
                return After::GoOn;
            }
        }
        self.record_mut().settle(&shared, &entry);
        match Run::new(self).pump_until_end().await {
            Next::Sleep => self.fall_asleep(),
            Next::Again => After::GoOn,
            Next::Hear(call) => self.hear(call).await,
            Next::Fail(error) => {
                self.fail_with(error);
                After::GoOn
            }
        }
    }

    /// Before anything is written: makes folders and the files that are wanted, and has it kept
    /// that they are being written from now on. [`Prepared::Changed`] if somebody has changed what
    /// is held: the files are not to be kept as they are now.
    async fn prepare(&mut self) -> Result<Prepared, StorageError> {
        let record = self.record();
        if record.upload_only || record.is_finished(&self.entry) {
            return Ok(Prepared::Ready);
        }
        if let Err(error) = self.shared.may_write(&self.entry) {
            return Ok(Prepared::Refused(error));
        }
        let reserve = self.shared.config.reserve;
        let (ownership, have) = (record.files, record.bitfield(&self.entry.metainfo));
        let keeps = self.shared.config.keeper.is_some();
        let written = record.kept.as_ref().is_some_and(|kept| kept.writing);
        let kept = record.kept.as_ref().filter(|_| keeps && !written);
        let kept = kept.map(|kept| kept.files().to_vec()).unwrap_or_default();
        let (store, wants) = (self.entry.store(), self.entry.options.lock().files.clone());
        // Thousands that are added at once take turns, but nobody waits long for a disk that hangs.
        let turn = tokio::time::timeout(TURN, self.shared.preparing.acquire()).await;
        let mounts = Arc::clone(&self.shared.mounts);
        let prepared = tokio::task::spawn_blocking(move || {
            mounts.check(&store.root())?;
            if !kept.is_empty() && is_changed(&kept, &store.fingerprints()?) {
                return Ok(Prepared::Changed);
            }
            let pieces = wants::of_pieces(store.metainfo(), &wants);
            let wanted = |piece: PieceIndex| {
                pieces.get(piece.0 as usize).is_none_or(|piece| piece.is_wanted())
            };
            if let Err(error) = make_way(&store, &have, wanted, ownership)? {
                return Ok(Prepared::Refused(error));
            }
            let is_wanted = |file: usize| wants.get(file).is_none_or(|file| file.is_wanted());
            store.prepare_wanted(is_wanted)?;
            if reserve {
                store.reserve(is_wanted)?;
            }
            let files = if keeps && !written { Some(store.fingerprints()?) } else { None };
            Ok(Prepared::Files(files))
        });
        let prepared = prepared.await;
        drop(turn);
        let files = match prepared {
            Ok(Ok(Prepared::Files(files))) => files,
            Ok(Ok(other)) => return Ok(other),
            Ok(Err(error)) => return Err(error),
            Err(panic) => return Err(broke_off(&self.entry.store(), &panic)),
        };
        self.record_mut().files = Ownership::Ours;
        if let Some(files) = files {
            let have = self.record().have.as_deref().cloned();
            let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
            let record = self.record_mut();
            record.note_kept(&entry.metainfo, have, files, true);
            record.keep(&shared, &entry, record.earlier);
        }
        Ok(Prepared::Ready)
    }

    /// Makes the empty files that are wanted: no piece will come for them.
    async fn make_wanted_empty_files(&mut self) {
        let record = self.record();
        let entries = self.entry.metainfo.info().files().entries();
        let any = entries.iter().any(|file| file.len == 0 && !file.padding);
        let is_ready = matches!(record.phase, Phase::Ready) && !record.is_paused();
        if !any
            || !is_ready
            || record.upload_only
            || record.bitfield(&self.entry.metainfo).count() == 0
        {
            return;
        }
        let (store, wants) = (self.entry.store(), self.entry.options.lock().files.clone());
        let made = tokio::task::spawn_blocking(move || make_empty_files(&store, &wants));
        if let Err(error) = flat(&self.entry.store(), made.await) {
            self.fail_with(fault(&error));
        }
    }

    /// A call that comes while no swarm is alive and nothing is done on the side.
    async fn hear(&mut self, call: Call) -> After {
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        match call {
            Call::Stop(reply) => return After::Leave(reply),
            Call::Files(work, reply) => {
                self.work(work, reply).await;
            }
            Call::Recheck => {
                let nothing = Bitfield::empty(self.geometry.pieces());
                let record = self.record_mut();
                record.unpause();
                record.phase = Phase::Doubtful(None);
                record.set_have(Some(nothing));
                record.set_unproven(None);
                record.set_trouble(None);
                record.keep_recheck(&shared, &entry);
                record.ask_turn(&shared, &entry);
            }
            Call::Overwrite => self.record_mut().files = Ownership::Replaced,
            Call::Turn(turn) => {
                let record = self.record_mut();
                record.asked = false;
                // Of a check that is not wanted any more, or not before a fault is dealt with; the
                // turn goes on to the next.
                let is_wanted = matches!(record.phase, Phase::Doubtful(_));
                if is_wanted && record.fault().is_none() && record.turn.is_none() {
                    record.turn = Some(turn);
                    entry.show(record.shown(&entry));
                }
            }
            Call::Seen(number, seen) => {
                // The task goes on either way.
                let _ = self.record_mut().seen(&shared, &entry, (number, seen));
            }
            Call::Pause => self.record_mut().pause(&shared, &entry),
            Call::Resume => self.resume(),
            Call::Retry => {
                // The task goes on either way.
                let _ = self.record_mut().retry(&shared, &entry);
            }
            Call::Options => {
                self.set_limits();
                self.make_wanted_empty_files().await;
                entry.show(self.record().shown(&entry));
            }
            call => self.answer(call),
        }
        After::GoOn
    }

    fn resume(&mut self) {
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        // The task goes on either way.
        let _ = self.record_mut().resume(&shared, &entry);
    }

    /// What is the same whatever goes on, as long as no swarm is alive.
    fn answer(&mut self, call: Call) {
        match call {
            // Whoever asked may have gone away.
            Call::Peers(reply) => drop(reply.send(Vec::new())),
            Call::Have(reply) => drop(reply.send(self.record().bitfield(&self.entry.metainfo))),
            Call::Availability(reply) => {
                drop(reply.send(vec![0; self.geometry.pieces() as usize]));
            }
            Call::Stage(piece, reply) => {
                let have = self.record().bitfield(&self.entry.metainfo);
                let _ = reply.send(stage_in(&have, piece));
            }
            Call::AddPeers(peers) => self.record_mut().note_user_peers(&peers),
            Call::Found(peers) => self.record_mut().note_found(peers),
            Call::Accepted(connection) => {
                let checking = self.record().turn.is_some();
                if checking {
                    self.arrived.push(*connection);
                }
            }
            // Read when they are needed.
            Call::Bounds | Call::Blocked => {}
            call => self.later.push_back(call),
        }
    }

    /// Moves, renames or deletes files.
    async fn work(&mut self, work: FileWork, mut reply: oneshot::Sender<Result<(), TorrentError>>) {
        let store = self.entry.store();
        let shown = |done, total| TorrentState::Moving { done, total };
        let plan = match self.plan(&work).await {
            Ok(plan) => plan,
            Err(error) => {
                // Whoever asked may have gone away.
                let _ = reply.send(Err(error));
                return;
            }
        };
        let (names_before, store_root) = (store.top_names(), store.root());
        // To move files can take hours. Another torrent may be checked meanwhile.
        self.record_mut().turn = None;
        let result = match work {
            FileWork::Find(root) => self.find(&root),
            FileWork::Move(root) => {
                let job = {
                    let store = Arc::clone(&store);
                    move |aside: Arc<Aside>| {
                        let note = |at: MoveProgress| {
                            aside.done.store(at.bytes_done, Ordering::Relaxed);
                            aside.total.store(at.bytes_total, Ordering::Relaxed);
                        };
                        storage::relocate(&store, &root, note, &aside.cancel)
                    }
                };
                flat(&store, self.aside(job, shown, None, Some(&mut reply)).await.0)
            }
            FileWork::Rename(names) => {
                let job = {
                    let store = Arc::clone(&store);
                    move |_| files::rename(&store, &names)
                };
                flat(&store, self.aside(job, shown, None, None).await.0)
            }
            FileWork::Remove => {
                let shared = Arc::clone(&self.shared);
                let record = self.record_mut();
                record.set_paused(None);
                record.phase = Phase::Unknown;
                record.kept = None;
                shared.hub.stop(self.entry.info_hash());
                let kept = shared.keep_for_others(&self.entry);
                let job = {
                    let store = Arc::clone(&store);
                    move |_| store.remove_data_except(&kept)
                };
                flat(&store, self.aside(job, shown, None, None).await.0)
            }
        };
        let root = self.entry.store().root();
        if root != store_root && result.is_ok() {
            // What it knew of the folder was of an earlier torrent, if anything.
            let mounts = Arc::clone(&self.shared.mounts);
            drop(tokio::task::spawn_blocking(move || mounts.accept(&root)).await);
        }
        if let Some(plan) = plan {
            self.shared.settle_plan(&self.entry, &names_before, plan, result.is_ok());
        }
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        let record = self.record_mut();
        match record.phase {
            // The answer to come is about files that may have moved under its eyes.
            Phase::Looking(_) => drop(record.look_again(&shared, &entry)),
            Phase::Doubtful(_) => drop(record.ask_turn(&shared, &entry)),
            Phase::Ready | Phase::Unknown => entry.show(record.shown(&entry)),
        }
        // Whoever asked may have gone away.
        let _ = reply.send(result.map_err(|error| fault(&error)));
    }

    /// Claims the paths that files are to have; `None` if they are to have none.
    async fn plan(&self, work: &FileWork) -> Result<Option<Planned>, TorrentError> {
        let store = self.entry.store();
        let (root, names, reads) = match work {
            FileWork::Move(root) => (root.clone(), None, false),
            FileWork::Find(root) => (root.clone(), None, true),
            FileWork::Rename(names) => (store.root(), Some(names.clone()), false),
            FileWork::Remove => return Ok(None),
        };
        let planned = store.planned(&root, names).map_err(|error| fault(&error))?;
        let folder = folder_identity(&root).await;
        self.shared.plan(&self.entry, planned, &folder, reads).map(Some)
    }

    fn find(&mut self, root: &Path) -> Result<(), StorageError> {
        let old = self.entry.store();
        let (metainfo, files) = (Arc::clone(old.metainfo()), Arc::clone(&self.shared.files));
        let store = Store::with_options(root, metainfo, files, old.options())?;
        self.entry.set_store(Arc::new(store));
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        let nothing = Bitfield::empty(self.geometry.pieces());
        let record = self.record_mut();
        if record.fault().is_some() {
            // That was about files elsewhere. It stays paused until it is resumed.
            record.set_paused(None);
        }
        record.phase = Phase::Doubtful(None);
        record.set_have(Some(nothing));
        record.kept = None;
        record.ask_turn(&shared, &entry);
        Ok(())
    }

    /// Does `job` on a thread that may wait, shows how far it is, and answers calls meanwhile. A
    /// stop cancels it, and so does `owner` when it is gone. A check is also cancelled by work on
    /// files, by the word that files of others are to be replaced, and, unless it hashes everything,
    /// by a recheck. Says whether it was cancelled.
    pub(super) async fn aside<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(Arc<Aside>) -> T + Send + 'static,
        shown: impl Fn(u64, u64) -> TorrentState,
        check: Option<CheckScope>,
        owner: Option<&mut oneshot::Sender<Result<(), TorrentError>>>,
    ) -> (Result<T, tokio::task::JoinError>, bool) {
        let aside = Arc::new(Aside::default());
        // However this ends; a runtime that shuts down would wait for the whole of it.
        let cancel = CancelOnDrop(Arc::clone(&aside));
        let mut working = {
            let aside = Arc::clone(&aside);
            tokio::task::spawn_blocking(move || job(aside))
        };
        let mut tick = tokio::time::interval(TICK);
        let gone = async {
            match owner {
                Some(owner) => owner.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(gone);
        let mut cancelled = false;
        loop {
            tokio::select! {
                done = &mut working => return (done, cancelled),
                () = &mut gone, if !cancelled => {
                    cancelled = true;
                    cancel.now();
                }
                _ = tick.tick() => {
                    let state = shown(
                        aside.done.load(Ordering::Relaxed),
                        aside.total.load(Ordering::Relaxed),
                    );
                    let mut new = self.record().shown(&self.entry);
                    new.state = state;
                    self.entry.show(new);
                    let progress = aside.progress.lock().take();
                    if let Some(progress) = progress {
                        self.keep_progress(*progress);
                    }
                }
                Some(call) = self.calls.recv() => match call {
                    Call::Stop(_) => {
                        cancelled = true;
                        cancel.now();
                        self.later.push_front(call);
                    }
                    // It is dealt with after what has cancelled the job, and soon.
                    Call::Recheck | Call::Pause | Call::Resume if cancelled => {
                        self.later.push_back(call);
                    }
                    // A check that was begun before still takes files of others for a fault.
                    Call::Files(..) | Call::Overwrite if check.is_some() => {
                        cancelled = true;
                        cancel.now();
                        self.later.push_back(call);
                    }
                    Call::Recheck if check == Some(CheckScope::Part) => {
                        cancelled = true;
                        cancel.now();
                        self.later.push_back(call);
                    }
                    // It is being done; what remains is to go on after it.
                    Call::Recheck if check.is_some() => drop(self.record_mut().unpause()),
                    Call::Pause if check.is_some() => {
                        self.record_mut().hold();
                        self.shared.hub.stop(self.entry.info_hash());
                    }
                    Call::Resume if check.is_some() => drop(self.record_mut().unpause()),
                    // It is asked for anew when the files are where they are to be.
                    Call::Turn(turn) => {
                        self.record_mut().asked = false;
                        drop(turn);
                    }
                    call => self.answer(call),
                },
            }
        }
    }

    pub(super) fn fail(&mut self, error: &StorageError) {
        self.record_mut().phase = Phase::Unknown;
        self.fail_with(fault(error));
    }

    fn fail_with(&mut self, error: TorrentError) {
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        self.record_mut().fail(&shared, &entry, error);
    }

    /// Tells the trackers and flushes, then answers.
    async fn leave(mut self, reply: oneshot::Sender<()>) {
        let record = self.record.take();
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        drop(self);
        leave(&shared, &entry, record).await;
        // Whoever asked may have gone too.
        let _ = reply.send(());
    }
}

/// The end of a torrent that is awake or asleep.
pub(super) async fn leave(shared: &Arc<Shared>, entry: &Arc<Entry>, record: Option<Box<Record>>) {
    // A turn that it waits for goes on to the next.
    drop(record);
    let store = entry.store();
    let synced = tokio::task::spawn_blocking(move || {
        let synced = store.sync();
        store.close_files();
        synced
    });
    let ((), synced) = tokio::join!(shared.hub.leave(entry), synced);
    if let Ok(Err(error)) = synced {
        warn!(%error, "data could not be flushed to disk");
    }
    entry.end();
}

impl Drop for Torrent {
    /// A task that breaks off, or ends with its runtime, leaves no torrent behind.
    fn drop(&mut self) {
        if self.record.take().is_some() {
            self.entry.end();
        }
    }
}

/// How a piece stands where nothing is under way.
pub(super) fn stage_in(have: &Bitfield, piece: PieceIndex) -> PieceStage {
    if piece.0 < have.len() && have.contains(piece) {
        PieceStage::Held
    } else {
        PieceStage::Missing
    }
}

/// Tells work on the side to end when nobody waits for it any more.
struct CancelOnDrop(Arc<Aside>);

impl CancelOnDrop {
    fn now(&self) {
        self.0.cancel.store(true, Ordering::Relaxed);
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.now();
    }
}

pub(super) fn flat(
    store: &Store,
    result: Result<Result<(), StorageError>, tokio::task::JoinError>,
) -> Result<(), StorageError> {
    result.unwrap_or_else(|panic| Err(broke_off(store, &panic)))
}

/// Makes the empty files that are wanted and missing: no piece will come with which they would be
/// made.
pub(super) fn make_empty_files(store: &Store, wants: &[Priority]) -> Result<(), StorageError> {
    let entries = store.metainfo().info().files().entries();
    if store.options().mode == StoreMode::ReadOnly || entries.iter().all(|entry| entry.len > 0) {
        return Ok(());
    }
    store.prepare_wanted(|file| {
        entries[file].len == 0 && wants.get(file).is_none_or(|file| file.is_wanted())
    })
}

/// Whether any of these files is not what it was.
pub(super) fn is_changed(then: &[Option<Fingerprint>], now: &[Option<Fingerprint>]) -> bool {
    then.iter().zip(now).any(|(then, now)| then.is_some() && then != now)
}

/// Work on the side has panicked, or its runtime ends.
pub(super) fn broke_off(store: &Store, panic: &tokio::task::JoinError) -> StorageError {
    StorageError::Other {
        operation: storage::Operation::Read,
        path: store.root(),
        reason: format!("the work on it broke off: {panic}"),
    }
}

/// Connections that wait for a check to end.
const ARRIVED_WAITING: usize = 64;
const TICK: Duration = Duration::from_millis(100);
/// How long a torrent waits for its turn to have its files made.
const TURN: Duration = Duration::from_secs(1);
