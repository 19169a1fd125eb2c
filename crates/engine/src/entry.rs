//! A torrent as its session knows it, awake or asleep.
//!
//! A torrent that has something to do is *awake*: a task owns its [`Record`], and calls reach it
//! over a channel. One that has not is *asleep*: the record lies here, and there is no task, no
//! channel, no timer. Whoever calls wakes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::net::Accepted;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, InfoHash, PieceIndex, Rare};
use piecework_storage::Store;
use piecework_swarm::{PieceStage, Waiting};

use super::crew::{Seen, Turn};
use super::holdings::{self, Reporter};
use super::owners::NO_CLAIM;
use super::record::Record;
use super::shared::Shared;
use super::starts::Start;
use super::status::{Folded, Shown, StatusSummary};
use super::{PeerStatus, TorrentError, TorrentOptions, torrent};

/// What a session keeps of each torrent.
pub(super) struct Entry {
    /// Not the other way round alone: who holds the session's means holds its torrents.
    pub shared: Weak<Shared>,
    pub metainfo: Arc<Metainfo>,
    pub options: Mutex<Rare<TorrentOptions>>,
    /// Who tells a tracker of ours which pieces are held.
    pub reporter: Option<Arc<Reporter>>,
    /// It has heard that there is something to report.
    pub to_report: AtomicBool,
    /// How many pieces were reported last, plus one.
    reported: AtomicU32,
    /// The number of its claim on its paths.
    pub claim: AtomicU32,
    slot: Mutex<Slot>,
    life: Mutex<Life>,
}

struct Slot {
    store: Arc<Store>,
    shown: Folded,
    version: u32,
    gone: bool,
}

enum Life {
    Asleep(Box<Record>),
    Awake(mpsc::Sender<Call>),
    Gone,
}

/// What a torrent is told or asked.
pub(super) enum Call {
    /// Connected peers.
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    /// Pieces held.
    Have(oneshot::Sender<Bitfield>),
    /// Peers that hold each piece.
    Availability(oneshot::Sender<Vec<u32>>),
    /// How a piece stands.
    Stage(PieceIndex, oneshot::Sender<PieceStage>),
    /// Stop.
    Pause,
    /// Go on.
    Resume,
    /// The time has come to try again what may have passed.
    Retry {
        /// There is room on the disk.
        room: bool,
    },
    /// Hash everything anew.
    Recheck,
    /// Replace files that are not the torrent's and in its way.
    Overwrite,
    /// Further peers to dial.
    AddPeers(Vec<SocketAddr>),
    /// Peers that a tracker knows.
    Found(Vec<SocketAddr>),
    /// A peer has connected.
    Accepted(Box<Accepted>),
    /// [`Entry::options`] are others.
    Options,
    /// The session's limits are others.
    Bounds,
    /// Other addresses are blocked.
    Blocked,
    /// What the disk looks like.
    Seen(Result<Box<Seen>, TorrentError>),
    /// It may be checked now.
    Turn(Turn),
    /// It may begin to download now.
    Start(Start),
    /// Other places for its files.
    Files(FileWork, oneshot::Sender<Result<(), TorrentError>>),
    /// Leave the swarm; answered when trackers are told and data is flushed.
    Stop(oneshot::Sender<()>),
}

/// What is to be done to a torrent's files.
pub(super) enum FileWork {
    Move(PathBuf),
    /// Take what is there.
    Find(PathBuf),
    Rename(BTreeMap<usize, Vec<String>>),
    Remove,
}

/// What became of a call.
enum Offer {
    Taken,
    Full(mpsc::Sender<Call>, Call),
    Gone(Call),
}

impl Entry {
    pub fn new(
        shared: &Arc<Shared>,
        store: Arc<Store>,
        options: TorrentOptions,
        reporter: Option<Arc<Reporter>>,
        shown: Shown,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::downgrade(shared),
            metainfo: Arc::clone(store.metainfo()),
            options: Mutex::new(options.into()),
            reporter,
            to_report: AtomicBool::new(false),
            reported: AtomicU32::new(0),
            claim: AtomicU32::new(NO_CLAIM),
            slot: Mutex::new(Slot {
                shown: Folded::new(shown, store.metainfo()),
                store,
                version: 0,
                gone: false,
            }),
            // Until it is put to sleep for the first time.
            life: Mutex::new(Life::Gone),
        })
    }

    pub fn info_hash(&self) -> InfoHash {
        self.metainfo.info_hash()
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.slot.lock().store)
    }

    pub fn set_store(&self, store: Arc<Store>) {
        self.slot.lock().store = store;
    }

    pub fn shown(&self) -> Shown {
        self.slot.lock().shown.unfold(&self.metainfo)
    }

    /// What sums over many torrents are made of.
    pub fn summary(&self) -> StatusSummary {
        self.slot.lock().shown.summary()
    }

    /// What it has waited for, if it has.
    pub fn waiting(&self) -> Option<Arc<Waiting>> {
        self.slot.lock().shown.waiting()
    }

    /// Whether pieces that are wanted are missing, and are fetched from whoever has them.
    pub fn is_downloading(&self) -> bool {
        self.slot.lock().shown.is_downloading()
    }

    /// Whether peers that connect are to be let in.
    pub fn admits(&self) -> bool {
        let slot = self.slot.lock();
        slot.shown.admits() && !slot.gone
    }

    pub fn show(&self, shown: Shown) {
        let held = self.reporter.as_ref().and_then(|_| holdings::shown_pieces(&shown));
        let shown = Folded::new(shown, &self.metainfo);
        // What it showed before is dropped when the lock is free again.
        let _old = std::mem::replace(&mut self.slot.lock().shown, shown);
        self.touch();
        if let Some(held) = held {
            self.report(held);
        }
    }

    /// Something that can be seen has changed.
    pub fn touch(&self) {
        self.bump(false);
    }

    pub fn version(&self) -> u32 {
        self.slot.lock().version
    }

    /// Waits until the version is another than `seen`, and gives it.
    pub async fn changed(&self, shared: &Shared, seen: u32) -> Result<u32, TorrentError> {
        loop {
            let changed = shared.watchers.of(self.info_hash()).notified();
            {
                let slot = self.slot.lock();
                if slot.version != seen {
                    return Ok(slot.version);
                }
                if slot.gone {
                    return Err(TorrentError::Removed);
                }
            }
            changed.await;
        }
    }

    /// Tells the torrent, waking it if need be. Says whether it is there.
    pub async fn post(self: &Arc<Self>, mut call: Call) -> bool {
        loop {
            match self.offer(call) {
                Offer::Taken => return true,
                Offer::Gone(_) => return false,
                Offer::Full(calls, back) => {
                    call = back;
                    // Only waits for room; what is sent is sent under the lock.
                    let _ = calls.reserve().await;
                }
            }
        }
    }

    /// The same where nobody may wait: if there is no room, a task waits for it. Gives the call
    /// back if the torrent is gone.
    pub fn post_soon(self: &Arc<Self>, shared: &Shared, call: Call) -> Option<Call> {
        match self.offer(call) {
            Offer::Taken => None,
            Offer::Gone(call) => Some(call),
            Offer::Full(_, call) => {
                let entry = Arc::clone(self);
                shared.runtime.spawn(async move { entry.post(call).await });
                None
            }
        }
    }

    /// Tells it only if that can be done at once.
    pub fn try_post(self: &Arc<Self>, call: Call) {
        self.offer(call);
    }

    /// Tells it if it is awake.
    pub fn nudge(self: &Arc<Self>, shared: &Shared, call: Call) {
        if matches!(*self.life.lock(), Life::Awake(_)) {
            self.post_soon(shared, call);
        }
    }

    /// Looks at the record if the torrent is asleep.
    pub fn asleep<T>(&self, look: impl FnOnce(&Record) -> T) -> Option<T> {
        match &*self.life.lock() {
            Life::Asleep(record) => Some(look(record)),
            Life::Awake(_) | Life::Gone => None,
        }
    }

    /// The record if it is asleep, for good: the torrent is gone then.
    pub fn take_asleep(&self) -> Option<Box<Record>> {
        let mut life = self.life.lock();
        if !matches!(*life, Life::Asleep(_)) {
            return None;
        }
        match std::mem::replace(&mut *life, Life::Gone) {
            Life::Asleep(record) => Some(record),
            Life::Awake(_) | Life::Gone => None,
        }
    }

    /// Changes the record if it is asleep; it is woken if `change` says so. Gives `with` back if
    /// it is not asleep.
    pub fn change_asleep<T>(
        self: &Arc<Self>,
        with: T,
        change: impl FnOnce(&mut Record, T) -> bool,
    ) -> Option<T> {
        let mut life = self.life.lock();
        let Life::Asleep(record) = &mut *life else { return Some(with) };
        if change(record, with) {
            self.wake(&mut life);
        }
        None
    }

    /// Begins its life, asleep.
    pub fn put_to_sleep(&self, record: Box<Record>) {
        *self.life.lock() = Life::Asleep(record);
        self.metainfo.let_go();
    }

    /// Puts it to sleep if nothing waits in `calls`; gives the record back otherwise.
    pub fn fall_asleep(
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

    /// Nothing will ever come of it again.
    pub fn end(&self) {
        let old = std::mem::replace(&mut *self.life.lock(), Life::Gone);
        drop(old);
        self.bump(true);
    }

    fn bump(&self, gone: bool) {
        {
            let mut slot = self.slot.lock();
            slot.gone |= gone;
            if !gone {
                slot.version = slot.version.wrapping_add(1);
            }
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.watchers.of(self.info_hash()).notify_waiters();
            shared.changes.mark(self.info_hash());
        }
    }

    fn offer(self: &Arc<Self>, call: Call) -> Offer {
        let mut life = self.life.lock();
        if matches!(*life, Life::Asleep(_)) {
            self.wake(&mut life);
        }
        let Life::Awake(calls) = &*life else { return Offer::Gone(call) };
        match calls.try_send(call) {
            Ok(()) => Offer::Taken,
            Err(mpsc::error::TrySendError::Full(call)) => Offer::Full(calls.clone(), call),
            Err(mpsc::error::TrySendError::Closed(call)) => Offer::Gone(call),
        }
    }

    fn wake(self: &Arc<Self>, life: &mut Life) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (calls, heard) = mpsc::channel(CALLS_WAITING);
        let old = std::mem::replace(life, Life::Awake(calls));
        if let Life::Asleep(record) = old {
            torrent::spawn(shared, Arc::clone(self), record, heard);
        }
    }

    /// Has it reported that so many pieces are held, if that is news.
    fn report(&self, held: u32) {
        if self.is_reported(held) || self.to_report.swap(true, Ordering::AcqRel) {
            return;
        }
        if let (Some(reporter), Some(shared)) = (&self.reporter, self.shared.upgrade()) {
            reporter.changed(&shared, self.info_hash());
        }
    }

    /// The tracker does not know any more what was reported.
    pub fn forget_reported(&self) {
        self.reported.store(0, Ordering::Relaxed);
    }

    pub fn set_reported(&self, pieces: u32) {
        self.reported.store(pieces.wrapping_add(1), Ordering::Relaxed);
    }

    pub fn is_reported(&self, pieces: u32) -> bool {
        self.reported.load(Ordering::Relaxed) == pieces.wrapping_add(1)
    }
}

/// Calls that wait for a torrent's task, connections of peers among them.
const CALLS_WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand torrents that do nothing are to cost their facts. Whoever makes one of these
    /// larger should know that it is ten thousand times.
    #[test]
    fn a_torrent_at_rest_is_small() {
        assert!(size_of::<Entry>() <= 128, "{}", size_of::<Entry>());
        assert!(size_of::<Record>() <= 120, "{}", size_of::<Record>());
        assert!(size_of::<Store>() <= 96, "{}", size_of::<Store>());
        assert!(size_of::<Metainfo>() <= 120, "{}", size_of::<Metainfo>());
    }
}
