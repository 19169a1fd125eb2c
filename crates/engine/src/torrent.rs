//! One torrent while it is awake: the task that owns its record, and its swarm if it has one.
//!
//! What the torrent does is decided by its [`Lifecycle`](piecework_swarm::lifecycle::Lifecycle). The task
//! passes each call on as an event, and is busy with what
//! [`Lifecycle::occupation`](piecework_swarm::lifecycle::Lifecycle::occupation) says. Calls are heard
//! during all of it: [`Torrent::order`] takes them in, and whoever is busy then sees whether it is to stop.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::net::{Accepted, Limiter};
use piecework_core::{Bitfield, Geometry, PieceIndex};
use piecework_storage::{self as storage, StorageError, Store};
use piecework_swarm::PieceStage;
use piecework_swarm::admission::{HalfOpen, Ticket};
use piecework_swarm::lifecycle::{ContentState, FaultKind, LifecycleEvent, Occupation, SwarmEnd};

use super::TorrentError;
use super::crew::{Turn, fault};
use super::entry::{Call, Entry, FileWork};
use super::lifecycle::TorrentRef;
use super::prepare::Prepared;
use super::record::{Ownership, Record};
use super::run::Run;
use super::shared::Shared;
use super::starts::{self, Start};

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
        works: VecDeque::new(),
        leaving: Vec::new(),
        arrived: Arrived::default(),
        upload,
        download,
        turn: None,
        start: None,
        wants_changed: false,
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
    /// Work on files that is asked for; the first is under way or comes next.
    pub works: VecDeque<(FileWork, oneshot::Sender<Result<(), TorrentError>>)>,
    /// Who waits until it has left.
    leaving: Vec<oneshot::Sender<()>>,
    /// Connections that wait for a check to end.
    pub arrived: Arrived,
    pub upload: Limiter,
    pub download: Limiter,
    /// Its check slot, if it has one.
    turn: Option<Turn>,
    /// Its start slot, if it has one.
    pub start: Option<Start>,
    /// Other files may be wanted than those that were made.
    pub wants_changed: bool,
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

impl Torrent {
    async fn run(mut self) {
        self.hold_slots();
        loop {
            let occupation = self.record().life.occupation();
            let is_at_files = matches!(occupation, Some(Occupation::Check | Occupation::Work(_)));
            if self.wants_changed && !is_at_files {
                self.wants_changed = false;
                self.make_wanted_empty_files().await;
                continue;
            }
            match occupation {
                Some(Occupation::Swarm) => self.swarm().await,
                Some(Occupation::Check) => self.check().await,
                Some(Occupation::Work(_)) => self.work().await,
                None if !self.leaving.is_empty() => return self.leave().await,
                None => match self.calls.try_recv() {
                    Ok(call) => self.order(call),
                    Err(_) if self.fall_asleep() => return,
                    Err(_) => {}
                },
            }
        }
    }

    pub fn record(&self) -> &Record {
        // Given away only by those that end the task.
        self.record.as_ref().expect("the record is here while the torrent is awake")
    }

    pub fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("the record is here while the torrent is awake")
    }

    /// Changes the record, for which there is a task already.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Record, TorrentRef<'_>) -> T) -> T {
        let torrent = TorrentRef { shared: &self.shared, entry: &self.entry };
        let record = self.record.as_mut().expect("the record is here while the torrent is awake");
        let outcome = change(record, torrent);
        self.hold_slots();
        outcome
    }

    /// Takes in what happened, and does what follows from it and needs no task.
    pub fn pass(&mut self, event: LifecycleEvent) {
        self.change(|record, torrent| record.pass(torrent, event));
    }

    /// The same of an event with a fault.
    pub fn pass_fault(
        &mut self,
        error: TorrentError,
        event: impl FnOnce(FaultKind) -> LifecycleEvent,
    ) {
        self.change(|record, torrent| record.pass_fault(torrent, error, event));
    }

    /// Whether what it is busy with is to stop.
    pub fn is_stopping(&self) -> bool {
        self.record().life.is_stopping()
    }

    /// Shows how it stands while it has no swarm.
    pub fn show(&self) {
        self.entry.show(self.record().shown(&self.entry));
    }

    /// Has slots that it got and passes on those that it needs no more.
    fn hold_slots(&mut self) {
        let life = &self.record().life;
        let (checks, begins) = (life.has_check_slot(), life.has_start_slot());
        match checks {
            true if self.turn.is_none() => self.turn = Some(Turn::taken(&self.shared)),
            true => {}
            false => self.turn = None,
        }
        match begins {
            true if self.start.is_none() => self.start = Some(Start::taken(&self.shared)),
            true => {}
            false => {
                if let Some(start) = self.start.take() {
                    start.hand_on();
                }
            }
        }
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

    /// Sleeps, unless a call has come. Returns whether it does, and the task is over.
    fn fall_asleep(&mut self) -> bool {
        // Whoever has connected waits for nothing any more.
        self.arrived = Arrived::default();
        let Some(record) = self.record.take() else { return true };
        match self.entry.fall_asleep(record, &self.calls) {
            Ok(()) => true,
            Err(record) => {
                self.record = Some(record);
                false
            }
        }
    }

    /// Prepares its files and takes part in its swarm, until that ends.
    async fn swarm(&mut self) {
        let ended = LifecycleEvent::SwarmEnded;
        let prepared = starts::begin(self.start.clone(), self.prepare()).await;
        match prepared {
            Ok(Prepared::Files(files)) => self.note_prepared(files),
            Ok(Prepared::Changed) => return self.pass(ended(SwarmEnd::Changed)),
            Ok(Prepared::Refused(error)) => {
                return self.pass_fault(error, |kind| ended(SwarmEnd::Refused(kind)));
            }
            Err(error) => {
                return self.pass_fault(fault(&error), |kind| ended(SwarmEnd::Failed(kind)));
            }
        }
        let (end, error) = Run::new(self).pump_until_end().await;
        // What there is to do now is known before it has ended, or it would begin at once for that.
        self.pass(LifecycleEvent::SwarmStarted);
        self.change(|record, torrent| record.pass_workload(torrent));
        if let Some(error) = error {
            self.record_mut().set_fault(Some(error));
        }
        self.pass(ended(end));
        self.show();
    }

    /// Takes in a call, whatever the task is busy with. Those that concern peers are answered as if
    /// there were none: a swarm answers them itself.
    pub fn order(&mut self, call: Call) {
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
            Call::Seen(seen) => {
                self.change(|record, torrent| record.pass_survey(torrent, seen));
            }
            Call::Turn(turn) => {
                self.turn.get_or_insert(turn);
                self.pass(LifecycleEvent::CheckSlot);
            }
            Call::Start(start) => {
                self.start.get_or_insert(start);
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

    /// Answers what is the same whatever goes on, as long as there is no swarm.
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
            Call::AddPeers(peers) => {
                self.record_mut().note_user_peers(&peers);
                self.contacted();
            }
            Call::Found(peers) => {
                self.record_mut().note_found(peers);
                self.contacted();
            }
            Call::Accepted(connection) => self.accepted(*connection),
            // Limits are read when they are needed; everything else is taken in before.
            _ => {}
        }
    }

    fn options_changed(&mut self) {
        self.set_limits();
        self.wants_changed = true;
        self.change(|record, torrent| record.pass_workload(torrent));
        // What is being done to files shows itself how far it is.
        if self.record().life.occupation().is_none() {
            self.show();
        }
    }

    /// There is somebody to exchange pieces with.
    fn contacted(&mut self) {
        self.change(|record, torrent| record.pass_workload(torrent));
        self.pass(LifecycleEvent::Contacted);
    }

    /// A peer has connected. It waits until a check has ended; nobody waits for a move.
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

    /// Tells the trackers and flushes, then answers.
    async fn leave(mut self) {
        let (record, leaving) = (self.record.take(), std::mem::take(&mut self.leaving));
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        // Nobody is heard any more.
        drop(self);
        let torrent = TorrentRef { shared: &shared, entry: &entry };
        leave(torrent).await;
        if let Some(mut record) = record {
            record.pass(torrent, LifecycleEvent::Left);
        }
        entry.end();
        for reply in leaving {
            // Whoever asked may have gone too.
            let _ = reply.send(());
        }
    }
}

/// Tells the trackers of a torrent that it is gone, and flushes its data.
pub(super) async fn leave(torrent: TorrentRef<'_>) {
    let TorrentRef { shared, entry } = torrent;
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

pub(super) fn flat(
    store: &Store,
    result: Result<Result<(), StorageError>, tokio::task::JoinError>,
) -> Result<(), StorageError> {
    result.unwrap_or_else(|panic| Err(broke_off(store, &panic)))
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
