//! A torrent as its session knows it, awake or asleep.
//!
//! A torrent that has something to do is *awake*: a task owns its [`Record`], and calls reach it
//! over a channel. A torrent that has nothing to do is *asleep*: the record lies here, without
//! task, channel or timer. Calls wake it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::net::Accepted;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, BoxedDefault, InfoHash, PieceIndex};
use piecework_proto::announce::TrackerUrl;
use piecework_storage::Store;
use piecework_swarm::lifecycle::Workload;
use piecework_swarm::{PeerSource, PieceStage, WaitTimes};

use super::check_slots::{CheckSlot, CheckWaiter};
use super::claims::NO_CLAIM;
use super::means::Means;
use super::record::{Record, TransferTotals};
use super::reporter::Reporter;
use super::start_slots::{StartSlot, StartWaiter};
use super::status::{CompactStatus, StatusSummary, StatusView};
use super::survey::Survey;
use super::{PeerStatus, TorrentError, TorrentOptions};

/// What a torrent has of its session.
pub(super) struct SessionLink {
    pub means: Arc<Means>,
    /// Weak: the session holds it, and it holds the session's torrents.
    driver: OnceLock<Weak<dyn Driver>>,
}

/// What a session does for its torrents.
pub(super) trait Driver: Send + Sync {
    /// Takes in a call for a torrent that sleeps. Returns whether the torrent has to wake up now,
    /// or gives the call back if only a task can answer it.
    fn hear_asleep(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        call: Call,
    ) -> Result<bool, Call>;

    /// Starts the task of a torrent, which receives `calls`.
    fn wake(&self, entry: Arc<Entry>, record: Box<Record>, calls: mpsc::Receiver<Call>);

    /// Starts a task that reports to a tracker until nothing is left to report.
    fn report(&self, reporter: &Arc<Reporter>);
}

/// What a session keeps of each torrent.
pub(super) struct Entry {
    link: Arc<SessionLink>,
    pub metainfo: Arc<Metainfo>,
    pub options: Mutex<BoxedDefault<TorrentOptions>>,
    /// Reports to a tracker of ours which pieces are held.
    pub reporter: Option<Arc<Reporter>>,
    /// Whether the reporter was told that there is something to report.
    pub to_report: AtomicBool,
    /// Number of pieces in the last report plus one, or 0.
    reported: AtomicU32,
    /// The number of its claim on its paths.
    pub claim: AtomicU32,
    state: Mutex<EntryFacts>,
    life: Mutex<Life>,
}

struct EntryFacts {
    store: Arc<Store>,
    shown: CompactStatus,
    version: u32,
    gone: bool,
}

enum Life {
    Asleep(Box<Record>),
    Awake(mpsc::Sender<Call>),
    Gone,
}

/// A call to a torrent.
pub(super) enum Call {
    /// Returns the connected peers.
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    /// Returns the pieces held.
    Have(oneshot::Sender<Bitfield>),
    /// Returns how many peers hold each piece.
    Availability(oneshot::Sender<Vec<u32>>),
    /// Returns how a piece stands.
    Stage(PieceIndex, oneshot::Sender<PieceStage>),
    Pause,
    Resume,
    /// Try again what failed for a reason that may have passed.
    Retry {
        /// Whether there is room on the disk.
        room: bool,
    },
    /// Hash everything anew.
    Recheck,
    /// Replace files in the torrent's way that are not its own.
    Overwrite,
    /// Peers that a user named.
    AddPeers(Vec<SocketAddr>),
    /// Peers that were found, and where.
    Found(PeerSource, Vec<SocketAddr>),
    /// A connection that a peer has made.
    Accepted(Box<Accepted>),
    /// [`Entry::options`] have changed.
    Options,
    /// The session's limits have changed.
    Bounds,
    /// The block list has changed.
    Blocked,
    /// The result of a survey.
    Surveyed(Result<Box<Survey>, TorrentError>),
    /// The right to hash what is on the disk.
    CheckSlot(CheckSlot),
    /// The right to begin a download.
    StartSlot(StartSlot),
    /// Do something to its files.
    Files(FileWork, oneshot::Sender<Result<(), TorrentError>>),
    /// Leave the swarm. Answered when the trackers have been told and data is flushed.
    Stop(oneshot::Sender<()>),
}

/// Work on a torrent's files.
pub(super) enum FileWork {
    Move(PathBuf),
    /// Use the files that are there.
    Find(PathBuf),
    Rename(BTreeMap<usize, Vec<String>>),
    Remove,
}

/// The result of offering a call.
enum Offer {
    Taken,
    Full(mpsc::Sender<Call>, Call),
    Gone(Call),
}

impl Entry {
    pub(crate) fn new(
        link: &Arc<SessionLink>,
        store: Arc<Store>,
        options: TorrentOptions,
        reporter: Option<Arc<Reporter>>,
        shown: StatusView,
    ) -> Arc<Self> {
        Arc::new(Self {
            link: Arc::clone(link),
            metainfo: Arc::clone(store.metainfo()),
            options: Mutex::new(options.into()),
            reporter,
            to_report: AtomicBool::new(false),
            reported: AtomicU32::new(0),
            claim: AtomicU32::new(NO_CLAIM),
            state: Mutex::new(EntryFacts {
                shown: CompactStatus::new(shown, store.metainfo()),
                store,
                version: 0,
                gone: false,
            }),
            // Until it is put to sleep for the first time.
            life: Mutex::new(Life::Gone),
        })
    }

    pub(crate) fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash()
    }

    pub(crate) fn means(&self) -> &Arc<Means> {
        &self.link.means
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.state.lock().store)
    }

    pub(crate) fn set_store(&self, store: Arc<Store>) {
        self.state.lock().store = store;
    }

    pub(crate) fn shown(&self) -> StatusView {
        self.state.lock().shown.unfold(&self.metainfo)
    }

    /// Returns its status while it has no swarm.
    pub(crate) fn shown_of(&self, record: &Record) -> StatusView {
        record.shown(&self.metainfo, &self.options.lock().files)
    }

    /// Returns what it has to do of its own accord once it is known what it holds.
    pub(crate) fn workload_of(&self, record: &Record) -> Workload {
        record.workload(&self.metainfo, &self.options.lock().files)
    }

    /// Hands the last checkpoint, with these totals, to the keeper.
    pub(crate) fn keep(&self, record: &Record, moved: TransferTotals) {
        if let Some(keeper) = &self.means().config.keeper
            && let Some(checkpoint) = record.checkpoint(&self.metainfo, moved)
        {
            keeper.keep(self.info_hash(), checkpoint);
        }
    }

    /// Returns the part of its status that counts and sums use.
    pub(crate) fn summary(&self) -> StatusSummary {
        self.state.lock().shown.summary()
    }

    /// Returns what it has waited for, if it has.
    pub(crate) fn waiting(&self) -> Option<Arc<WaitTimes>> {
        self.state.lock().shown.waiting()
    }

    /// Returns whether it lacks wanted pieces and downloads them.
    pub(crate) fn is_downloading(&self) -> bool {
        self.state.lock().shown.is_downloading()
    }

    /// Returns whether it accepts connections.
    pub(crate) fn admits(&self) -> bool {
        let state = self.state.lock();
        state.shown.admits() && !state.gone
    }

    pub(crate) fn show(&self, shown: StatusView) {
        let held = self.reporter.as_ref().and_then(|_| shown.reportable());
        let shown = CompactStatus::new(shown, &self.metainfo);
        // The old status is dropped after the lock is released.
        let _old = std::mem::replace(&mut self.state.lock().shown, shown);
        self.touch();
        if let Some(held) = held {
            self.report(held);
        }
    }

    /// Notes that something visible has changed.
    pub(crate) fn touch(&self) {
        self.bump(false);
    }

    pub(crate) fn version(&self) -> u32 {
        self.state.lock().version
    }

    /// Waits until the version differs from `seen`, and returns it.
    pub(crate) async fn changed(&self, seen: u32) -> Result<u32, TorrentError> {
        loop {
            let changed = self.means().watchers.of(self.info_hash()).notified();
            {
                let state = self.state.lock();
                if state.version != seen {
                    return Ok(state.version);
                }
                if state.gone {
                    return Err(TorrentError::Removed);
                }
            }
            changed.await;
        }
    }

    /// Sends a call, and wakes the torrent if it has to. Returns whether the torrent exists.
    pub(crate) async fn post(self: &Arc<Self>, mut call: Call) -> bool {
        loop {
            match self.offer(call) {
                Offer::Taken => return true,
                Offer::Gone(_) => return false,
                Offer::Full(calls, back) => {
                    call = back;
                    // Only waits for room: calls are sent under the lock.
                    let _ = calls.reserve().await;
                }
            }
        }
    }

    /// Sends a call without waiting: if the channel is full, a task waits for room. Gives the call
    /// back if the torrent is gone.
    pub(crate) fn post_soon(self: &Arc<Self>, call: Call) -> Option<Call> {
        match self.offer(call) {
            Offer::Taken => None,
            Offer::Gone(call) => Some(call),
            Offer::Full(_, call) => {
                let entry = Arc::clone(self);
                self.means().runtime.spawn(async move { entry.post(call).await });
                None
            }
        }
    }

    /// Sends a call from a thread that may block.
    pub(crate) fn post_blocking(self: &Arc<Self>, call: Call) {
        if let Offer::Full(_, call) = self.offer(call) {
            // A torrent that is gone needs no answer.
            self.means().runtime.block_on(self.post(call));
        }
    }

    /// Sends a call and waits for the answer. Returns `None` if the torrent is gone.
    pub(crate) async fn ask<T>(
        self: &Arc<Self>,
        call: impl FnOnce(oneshot::Sender<T>) -> Call,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if !self.post(call(reply)).await {
            return None;
        }
        answer.await.ok()
    }

    /// Returns the pieces that are verified and written, or `None` if the torrent is gone.
    pub(crate) async fn have(self: &Arc<Self>) -> Option<Bitfield> {
        match self.asleep(|record| record.bitfield(&self.metainfo)) {
            Some(have) => Some(have),
            None => self.ask(Call::Have).await,
        }
    }

    /// Sends a call if that can be done at once.
    pub(crate) fn try_post(self: &Arc<Self>, call: Call) {
        self.offer(call);
    }

    /// Sends a call if the torrent is awake.
    pub(crate) fn nudge(self: &Arc<Self>, call: Call) {
        if matches!(*self.life.lock(), Life::Awake(_)) {
            self.post_soon(call);
        }
    }

    /// Calls `look` with the record if the torrent is asleep.
    pub(crate) fn asleep<T>(&self, look: impl FnOnce(&Record) -> T) -> Option<T> {
        match &*self.life.lock() {
            Life::Asleep(record) => Some(look(record)),
            Life::Awake(_) | Life::Gone => None,
        }
    }

    /// Takes the record if the torrent is asleep. The torrent is gone then.
    pub(crate) fn take_asleep(&self) -> Option<Box<Record>> {
        let mut life = self.life.lock();
        if !matches!(*life, Life::Asleep(_)) {
            return None;
        }
        match std::mem::replace(&mut *life, Life::Gone) {
            Life::Asleep(record) => Some(record),
            Life::Awake(_) | Life::Gone => None,
        }
    }

    /// Changes the record if the torrent is asleep, and wakes it if `change` says so. Returns whether
    /// it was asleep.
    pub(crate) fn change_asleep(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Record) -> bool,
    ) -> bool {
        let mut life = self.life.lock();
        let Life::Asleep(record) = &mut *life else { return false };
        if change(record)
            && let Some(driver) = self.driver()
        {
            self.wake(&*driver, &mut life);
        }
        true
    }

    /// Begins the torrent's life, asleep.
    pub(crate) fn put_to_sleep(&self, record: Box<Record>) {
        *self.life.lock() = Life::Asleep(record);
        self.metainfo.let_go();
    }

    /// Puts the torrent to sleep if no call waits. Gives the record back otherwise.
    pub(crate) fn fall_asleep(
        &self,
        record: Box<Record>,
        calls: &mpsc::Receiver<Call>,
    ) -> Result<(), Box<Record>> {
        let mut life = self.life.lock();
        // All calls are sent under the lock or come back to it.
        if !calls.is_empty() {
            return Err(record);
        }
        *life = Life::Asleep(record);
        drop(life);
        self.metainfo.let_go();
        Ok(())
    }

    /// Ends the torrent's life.
    pub(crate) fn end(&self) {
        let old = std::mem::replace(&mut *self.life.lock(), Life::Gone);
        drop(old);
        self.bump(true);
    }

    fn bump(&self, gone: bool) {
        {
            let mut state = self.state.lock();
            state.gone |= gone;
            if !gone {
                state.version = state.version.wrapping_add(1);
            }
        }
        self.means().watchers.of(self.info_hash()).notify_waiters();
        self.means().changes.mark(self.info_hash());
    }

    fn driver(&self) -> Option<Arc<dyn Driver>> {
        self.link.driver.get()?.upgrade()
    }

    fn offer(self: &Arc<Self>, mut call: Call) -> Offer {
        let mut life = self.life.lock();
        if let Life::Asleep(record) = &mut *life {
            let Some(driver) = self.driver() else { return Offer::Gone(call) };
            match driver.hear_asleep(self, record, call) {
                Ok(wakes) => {
                    if wakes {
                        self.wake(&*driver, &mut life);
                    }
                    return Offer::Taken;
                }
                Err(back) => call = back,
            }
            self.wake(&*driver, &mut life);
        }
        let Life::Awake(calls) = &*life else { return Offer::Gone(call) };
        match calls.try_send(call) {
            Ok(()) => Offer::Taken,
            Err(mpsc::error::TrySendError::Full(call)) => Offer::Full(calls.clone(), call),
            Err(mpsc::error::TrySendError::Closed(call)) => Offer::Gone(call),
        }
    }

    fn wake(self: &Arc<Self>, driver: &dyn Driver, life: &mut Life) {
        let (calls, heard) = mpsc::channel(CALLS_WAITING);
        if let Life::Asleep(record) = std::mem::replace(life, Life::Awake(calls)) {
            driver.wake(Arc::clone(self), record, heard);
        }
    }

    /// Has `held` pieces reported, if that was not done.
    fn report(&self, held: u32) {
        if self.is_reported(held) || self.to_report.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(reporter) = &self.reporter
            && reporter.changed(self.means().now(), self.info_hash())
        {
            self.start_reporting(reporter);
        }
    }

    /// Tells the reporter that `tracker` has answered an announce. With `is_new` the tracker knows
    /// nothing of the torrent yet.
    pub(crate) fn announced(&self, tracker: &TrackerUrl, is_new: bool) {
        let Some(reporter) = self.reporter.as_ref().filter(|it| it.is_for(tracker)) else { return };
        let is_new = is_new && self.shown().reportable().is_some();
        if is_new {
            self.forget_reported();
        }
        if reporter.announced(self.means().now(), self.info_hash(), is_new) {
            self.start_reporting(reporter);
        }
    }

    fn start_reporting(&self, reporter: &Arc<Reporter>) {
        if let Some(driver) = self.driver() {
            driver.report(reporter);
        }
    }

    /// The tracker has forgotten what was reported.
    fn forget_reported(&self) {
        self.reported.store(0, Ordering::Relaxed);
    }

    pub(crate) fn set_reported(&self, pieces: u32) {
        self.reported.store(pieces.wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn is_reported(&self, pieces: u32) -> bool {
        self.reported.load(Ordering::Relaxed) == pieces.wrapping_add(1)
    }
}

impl SessionLink {
    pub(crate) fn new(means: Arc<Means>) -> Self {
        Self { means, driver: OnceLock::new() }
    }

    /// Sets the driver of the torrents. Only the first call has an effect.
    pub(crate) fn set_driver(&self, driver: Weak<dyn Driver>) {
        self.driver.get_or_init(|| driver);
    }
}

impl CheckWaiter for Entry {
    fn take_check_slot(self: Arc<Self>, slot: CheckSlot) -> Option<CheckSlot> {
        match self.post_soon(Call::CheckSlot(slot)) {
            Some(Call::CheckSlot(slot)) => Some(slot),
            Some(_) | None => None,
        }
    }
}

impl StartWaiter for Entry {
    fn take_start_slot(self: Arc<Self>, slot: StartSlot) {
        // If the torrent is gone, the call comes back, and dropping it frees the slot.
        drop(self.post_soon(Call::StartSlot(slot)));
    }
}

/// Calls that wait for a torrent's task, including connections of peers.
const CALLS_WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand torrents that do nothing must cost little more than their facts. Each byte here
    /// counts ten thousand times.
    #[test]
    fn a_torrent_at_rest_is_small() {
        assert!(size_of::<Entry>() <= 128, "{}", size_of::<Entry>());
        assert!(size_of::<Record>() <= 120, "{}", size_of::<Record>());
        assert!(size_of::<Store>() <= 96, "{}", size_of::<Store>());
        assert!(size_of::<Metainfo>() <= 120, "{}", size_of::<Metainfo>());
    }
}
