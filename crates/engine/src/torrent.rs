//! A torrent while it is awake, owned by its task.
//!
//! Its [`Lifecycle`](piecework_swarm::lifecycle::Lifecycle) decides what it does.
//! [`Torrent::order`] passes calls on to it as events. Calls are heard whatever the task is busy
//! with, which then looks whether it has to stop.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::net::{Accepted, Limiter};
use piecework_core::{Bitfield, Fingerprint, Geometry};
use piecework_storage::{self as storage, StorageError, Store};
use piecework_swarm::PeerSource;
use piecework_swarm::admission::{HalfOpen, Ticket};
use piecework_swarm::lifecycle::{ContentState, FaultKind, LifecycleEvent, Occupation};

use super::TorrentError;
use super::announce_scheduler::AnnounceScheduler;
use super::check_slots::CheckSlot;
use super::entry::{Call, Entry, FileWork};
use super::lifecycle::LifecycleDriver;
use super::means::Means;
use super::owners::PathOwners;
use super::ownership::Ownership;
use super::record::{Record, TransferTotals};
use super::start_slots::StartSlot;

/// A torrent that is awake.
pub(super) struct Torrent {
    pub means: Arc<Means>,
    pub lifecycle: Arc<LifecycleDriver>,
    pub scheduler: Arc<AnnounceScheduler>,
    pub paths: Arc<PathOwners>,
    pub entry: Arc<Entry>,
    pub geometry: Geometry,
    pub calls: mpsc::Receiver<Call>,
    /// Work on files that was asked for. The first is under way or comes next.
    pub works: VecDeque<(FileWork, oneshot::Sender<Result<(), TorrentError>>)>,
    /// Callers that wait until it has left.
    pub leaving: Vec<oneshot::Sender<()>>,
    /// Connections that wait for a check to end.
    pub arrived: WaitingConnections,
    pub upload: Limiter,
    pub download: Limiter,
    /// Its check slot, if it has one.
    check_slot: Option<CheckSlot>,
    /// Its start slot, if it has one.
    pub start_slot: Option<StartSlot>,
    /// Whether other files may be wanted than those that were made.
    pub wants_changed: bool,
    /// `None` once it was given away.
    record: Option<Box<Record>>,
}

/// A bounded number of waiting connections. The oldest of the address with the most makes way.
pub(super) struct WaitingConnections {
    tickets: HalfOpen,
    connections: Vec<(Ticket, Accepted)>,
}

impl WaitingConnections {
    fn push(&mut self, connection: Accepted) {
        let (ticket, evicted) = self.tickets.admit(connection.addr.ip());
        self.connections.retain(|(other, _)| Some(*other) != evicted);
        self.connections.push((ticket, connection));
    }

    /// Returns all connections, the oldest first.
    pub(crate) fn into_connections(self) -> impl Iterator<Item = Accepted> {
        self.connections.into_iter().map(|(_, connection)| connection)
    }
}

impl Default for WaitingConnections {
    fn default() -> Self {
        Self { tickets: HalfOpen::new(ARRIVED_WAITING), connections: Vec::new() }
    }
}

impl Torrent {
    pub(crate) fn new(
        lifecycle: Arc<LifecycleDriver>,
        paths: Arc<PathOwners>,
        entry: Arc<Entry>,
        record: Box<Record>,
        calls: mpsc::Receiver<Call>,
    ) -> Self {
        let torrent = Self {
            means: Arc::clone(entry.means()),
            scheduler: Arc::clone(&lifecycle.scheduler),
            lifecycle,
            paths,
            geometry: entry.metainfo.info().geometry(),
            record: Some(record),
            calls,
            works: VecDeque::new(),
            leaving: Vec::new(),
            arrived: WaitingConnections::default(),
            upload: Limiter::new(None),
            download: Limiter::new(None),
            check_slot: None,
            start_slot: None,
            wants_changed: false,
            entry,
        };
        torrent.set_limits();
        torrent
    }

    pub(crate) fn record(&self) -> &Record {
        // Only the end of the task gives it away.
        self.record.as_ref().expect("the record is here while the torrent is awake")
    }

    pub(crate) fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("the record is here while the torrent is awake")
    }

    /// Takes in an event, and carries out the effects that need no task.
    pub(crate) fn pass(&mut self, event: LifecycleEvent) {
        self.drive(|lifecycle, entry, record| lifecycle.pass(entry, record, event));
    }

    /// The same with an event that has a fault.
    pub(crate) fn pass_fault(
        &mut self,
        error: TorrentError,
        event: impl FnOnce(FaultKind) -> LifecycleEvent,
    ) {
        self.drive(|lifecycle, entry, record| lifecycle.pass_fault(entry, record, error, event));
    }

    /// Takes in what there is to do of its own accord, which may have changed.
    pub(crate) fn pass_workload(&mut self) {
        self.drive(|lifecycle, entry, record| lifecycle.pass_workload(entry, record));
    }

    /// Takes in an event that makes known what is on the disk, and the fault that comes with it.
    /// `files` are as they were before they were looked at.
    pub(crate) fn pass_content(
        &mut self,
        have: Bitfield,
        files: Vec<Option<Fingerprint>>,
        event: (LifecycleEvent, Option<TorrentError>),
    ) {
        self.drive(|lifecycle, entry, record| {
            lifecycle.pass_content(entry, record, Some(have), Some(files), event)
        });
    }

    /// Hands the last checkpoint, with these totals, to the keeper.
    pub(crate) fn keep(&self, moved: TransferTotals) {
        self.entry.keep(self.record(), moved);
    }

    /// Hands a checkpoint that was just noted to the keeper.
    pub(crate) fn keep_noted(&mut self) {
        self.keep(self.record().earlier());
        self.pass(LifecycleEvent::Checkpointed);
    }

    /// Drives the lifecycle. What needs a task is left to this one.
    fn drive(&mut self, drive: impl FnOnce(&LifecycleDriver, &Arc<Entry>, &mut Record) -> bool) {
        let record = self.record.as_mut().expect("the record is here while the torrent is awake");
        drive(&self.lifecycle, &self.entry, record);
        self.hold_slots();
    }

    /// Returns whether it has to stop what it is busy with.
    pub(crate) fn is_stopping(&self) -> bool {
        self.record().life.is_stopping()
    }

    /// Shows its status while it has no swarm.
    pub(crate) fn show(&self) {
        self.entry.show(self.entry.shown_of(self.record()));
    }

    /// Holds the slots that the lifecycle has, and hands on the others.
    pub(crate) fn hold_slots(&mut self) {
        let life = &self.record().life;
        let (checks, begins) = (life.has_check_slot(), life.has_start_slot());
        match checks {
            true if self.check_slot.is_none() => {
                self.check_slot = Some(CheckSlot::taken(&self.lifecycle.check_slots));
            }
            true => {}
            false => self.check_slot = None,
        }
        match begins {
            true if self.start_slot.is_none() => {
                self.start_slot = Some(StartSlot::taken(&self.lifecycle.start_slots));
            }
            true => {}
            false => {
                if let Some(slot) = self.start_slot.take() {
                    slot.hand_on();
                }
            }
        }
    }

    /// Applies the limits of the torrent's options.
    pub(crate) fn set_limits(&self) {
        let options = self.entry.options.lock();
        for (limiter, limit, above) in [
            (&self.upload, options.upload_limit, &self.means.upload),
            (&self.download, options.download_limit, &self.means.download),
        ] {
            limiter.set(limit);
            limiter.set_above(options.session_limits.then(|| above.clone()));
        }
    }

    /// Gives the record away, because the task ends.
    pub(crate) fn take_record(&mut self) -> Option<Box<Record>> {
        self.record.take()
    }

    /// Falls asleep, unless a call has come. Returns whether it does: then the task is over.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        // Connections that waited are closed.
        self.arrived = WaitingConnections::default();
        let Some(record) = self.record.take() else { return true };
        match self.entry.fall_asleep(record, &self.calls) {
            Ok(()) => true,
            Err(record) => {
                self.record = Some(record);
                false
            }
        }
    }

    /// Takes in a call, whatever the task is busy with. Calls about peers are answered as if there
    /// were none: a swarm answers them itself.
    pub(crate) fn order(&mut self, call: Call) {
        match call {
            Call::Pause => self.pass(LifecycleEvent::Pause),
            Call::Resume => self.pass(LifecycleEvent::Resume),
            Call::Retry { room } => self.pass(LifecycleEvent::RetryDue { room }),
            Call::Recheck => {
                self.record_mut().set_trouble(None);
                self.pass(LifecycleEvent::Recheck);
            }
            Call::Overwrite => {
                self.record_mut().files = Ownership::Replaced;
                self.pass(LifecycleEvent::Overwrite);
            }
            Call::Surveyed(found) => {
                self.drive(|lifecycle, entry, record| lifecycle.pass_survey(entry, record, found));
            }
            Call::CheckSlot(slot) => {
                self.check_slot.get_or_insert(slot);
                self.pass(LifecycleEvent::CheckSlot);
            }
            Call::StartSlot(slot) => {
                self.start_slot.get_or_insert(slot);
                self.pass(LifecycleEvent::StartSlot);
            }
            Call::Files(work, reply) => {
                let kind = work.kind();
                self.works.push_back((work, reply));
                if self.works.len() == 1 {
                    self.pass(LifecycleEvent::Work(kind));
                }
            }
            Call::Stop(reply) => {
                self.leaving.push(reply);
                self.pass(LifecycleEvent::Close);
            }
            Call::Options => self.options_changed(),
            call => self.answer(call),
        }
    }

    /// Answers a call about peers while there is no swarm.
    fn answer(&mut self, call: Call) {
        match call {
            // The caller may be gone.
            Call::Peers(reply) => drop(reply.send(Vec::new())),
            Call::Have(reply) => drop(reply.send(self.record().bitfield(&self.entry.metainfo))),
            Call::Availability(reply) => {
                drop(reply.send(vec![0; self.geometry.pieces() as usize]));
            }
            Call::Stage(piece, reply) => {
                let _ = reply.send(self.record().stage(&self.entry.metainfo, piece));
            }
            Call::AddPeers(peers) => {
                self.record_mut().note_peers(PeerSource::User, &peers);
                self.contacted();
            }
            Call::Found(source, peers) => {
                self.record_mut().note_peers(source, &peers);
                self.contacted();
            }
            Call::Accepted(connection) => self.accepted(*connection),
            // Limits are read when they are needed; all other calls were taken in before.
            _ => {}
        }
    }

    fn options_changed(&mut self) {
        self.set_limits();
        self.wants_changed = true;
        self.pass_workload();
        // Work on files shows its own progress.
        if self.record().life.occupation().is_none() {
            self.show();
        }
    }

    /// Notes that there is a peer to exchange pieces with.
    fn contacted(&mut self) {
        self.pass_workload();
        self.pass(LifecycleEvent::Contacted);
    }

    /// Takes in a connection. It waits for a check to end, but not for a move.
    fn accepted(&mut self, connection: Accepted) {
        let record = self.record();
        let may_wait = match record.life.occupation() {
            Some(Occupation::Check) => true,
            Some(Occupation::Work(_)) => false,
            Some(Occupation::Swarm) | None => record.life.content() == ContentState::Ready,
        };
        if may_wait && record.is_open() {
            self.arrived.push(connection);
            self.pass(LifecycleEvent::Contacted);
        }
    }
}

impl Drop for Torrent {
    /// A task that panics, or ends with its runtime, leaves no torrent behind.
    fn drop(&mut self) {
        if self.record.take().is_some() {
            self.entry.end();
        }
    }
}

pub(super) fn flat(
    store: &Store,
    result: Result<Result<(), StorageError>, tokio::task::JoinError>,
) -> Result<(), StorageError> {
    result.unwrap_or_else(|panic| Err(broke_off(store, &panic)))
}

/// Returns the error of background work that has panicked, or whose runtime ends.
pub(super) fn broke_off(store: &Store, panic: &tokio::task::JoinError) -> StorageError {
    StorageError::Other {
        operation: storage::Operation::Read,
        path: store.root(),
        reason: format!("the work on it broke off: {panic}"),
    }
}

/// Connections that wait for a check to end.
const ARRIVED_WAITING: usize = 64;
