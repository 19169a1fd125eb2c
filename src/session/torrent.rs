//! One torrent: the task that owns its swarm and only pumps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::announcer::{Announcer, TrackerStatus};
use crate::base::{Bitfield, Geometry, Moment};
use crate::metainfo::Metainfo;
use crate::net::{self, Accepted, Incoming, Input, Link, LinkOptions};
use crate::storage::{Finished, StorageError, Store};
use crate::swarm::{
    Action, BlockDigest, Direction, Event, Giver, PeerKey, PieceOutcome, Source, Swarm,
    SwarmConfig,
};
use crate::tracker_client::Catalogue;
use crate::wire::Handshake;

use super::assembly::{Assembly, STREAM_OVER, Step};
use super::engine::AddError;
use super::handle::{Command, TorrentHandle};
use super::holdings::Reporter;
use super::rates::Rates;
use super::shared::Shared;
use super::source::StoreSource;
use super::trackers::{AnnounceTask, Counters, Tell};
use super::{
    AddTorrent, PeerStatus, PieceGiver, TorrentError, TorrentEvent, TorrentState, TorrentStatus,
};

/// Starts the task of a torrent and gives its handle. `accepted` brings the connections that
/// peers opened.
pub(super) fn spawn(
    shared: Arc<Shared>,
    add: AddTorrent,
    accepted: mpsc::Receiver<Accepted>,
) -> Result<TorrentHandle, AddError> {
    let metainfo = add.metainfo;
    let store =
        Arc::new(Store::new(&add.root, Arc::clone(&metainfo), Arc::clone(&shared.files))?);
    let catalogue = match add.catalogue.filter(|_| shared.config.report_holdings) {
        Some(base) => Some(Arc::new(Catalogue::new(&base).map_err(AddError::Catalogue)?)),
        None => None,
    };
    let tiers = add.trackers.unwrap_or_else(|| {
        let known = |url: &String| url.parse().ok();
        metainfo.trackers().iter().map(|tier| tier.iter().filter_map(known).collect()).collect()
    });

    let mut rng = shared.rng();
    let key = rng.next_u64() as u32;
    let port = shared.listen_port.unwrap_or(PORT_OF_NOBODY);
    let counters = Arc::new(Counters::default());
    counters.left.store(metainfo.info().geometry().total_len(), Ordering::Relaxed);
    let (found_tx, found) = mpsc::channel(4);
    let (tells, told) = mpsc::channel(16);
    let (statuses, trackers) = watch::channel(Vec::new());
    let announces = AnnounceTask {
        shared: Arc::clone(&shared),
        info_hash: metainfo.info_hash(),
        announcer: Announcer::new(tiers, shared.rng()),
        counters: Arc::clone(&counters),
        port,
        key,
        tells: told,
        found: found_tx,
        statuses,
    };

    let status = watch::Sender::new(first_status(&metainfo));
    let (commands_tx, commands) = mpsc::channel(16);
    let handle = TorrentHandle::new(Arc::clone(&metainfo), commands_tx, status.subscribe());
    if let Some(catalogue) = catalogue {
        let reporter =
            Reporter { catalogue, handle: handle.clone(), peer_id: shared.peer_id, port, key };
        tokio::spawn(reporter.run());
    }

    let (inputs_tx, inputs) = mpsc::channel(INPUTS_WAITING);
    let (steps_tx, steps) = mpsc::channel(STEPS_WAITING);
    let (dialed_tx, dialed) = mpsc::channel(16);
    let task = Torrent {
        geometry: metainfo.info().geometry(),
        source: Arc::new(StoreSource { store: Arc::clone(&store), shared: Arc::clone(&shared) }),
        shared,
        metainfo,
        store,
        counters,
        tells,
        trackers,
        status,
        user_peers: add.peers,
        commands,
        accepted,
        found,
        inputs,
        inputs_tx,
        steps,
        steps_tx,
        dialed,
        dialed_tx,
        rates: Rates::default(),
        paused: None,
        next_peer: 0,
        announces: Some(announces),
    };
    tokio::spawn(task.run(add.assume_complete));
    Ok(handle)
}

/// Everything of a torrent that outlives a recheck.
struct Torrent {
    shared: Arc<Shared>,
    metainfo: Arc<Metainfo>,
    geometry: Geometry,
    store: Arc<Store>,
    source: Arc<StoreSource>,
    counters: Arc<Counters>,
    tells: mpsc::Sender<Tell>,
    trackers: watch::Receiver<Vec<TrackerStatus>>,
    status: watch::Sender<TorrentStatus>,
    user_peers: Vec<SocketAddr>,
    commands: mpsc::Receiver<Command>,
    accepted: mpsc::Receiver<Accepted>,
    found: mpsc::Receiver<Vec<SocketAddr>>,
    inputs: mpsc::Receiver<Input>,
    inputs_tx: net::Inputs,
    steps: mpsc::Receiver<Step>,
    steps_tx: mpsc::Sender<Step>,
    dialed: mpsc::Receiver<Dialed>,
    dialed_tx: mpsc::Sender<Dialed>,
    rates: Rates,
    paused: Option<Pause>,
    next_peer: u32,
    /// Started once the first check is done, so that trackers hear what is really missing.
    announces: Option<AnnounceTask>,
}

/// How a dial ended.
type Dialed = Result<Accepted, SocketAddr>;

/// Why nothing moves.
struct Pause {
    error: Option<TorrentError>,
}

/// How a phase ended.
enum Next {
    /// Look at the disk anew.
    Check,
    /// Leave, and say so here.
    Stop(Option<oneshot::Sender<()>>),
}

impl Torrent {
    async fn run(mut self, assume_complete: bool) {
        let pieces = self.geometry.pieces();
        let mut known = assume_complete.then(|| Bitfield::full(pieces));
        let stop = loop {
            let have = match known.take() {
                Some(have) => have,
                None => match self.check().await {
                    Ok(have) => have,
                    Err(stop) => break stop,
                },
            };
            let have = match self.prepare(have).await {
                Ok(have) => have,
                Err(stop) => break stop,
            };
            if let Some(announces) = self.announces.take() {
                let left = self.geometry.total_len() - bytes_of(&self.geometry, &have);
                self.counters.left.store(left, Ordering::Relaxed);
                tokio::spawn(announces.run());
            }
            match Run::new(&mut self, have).pump_until_end().await {
                Next::Check => {}
                Next::Stop(reply) => break reply,
            }
        };
        self.leave(stop).await;
    }

    /// Hashes what is on disk, on the side. Answers commands meanwhile; a stop ends it.
    async fn check(&mut self) -> Result<Bitfield, Option<oneshot::Sender<()>>> {
        let total = self.geometry.pieces();
        let done = Arc::new(AtomicU32::new(0));
        let cancel = Arc::new(AtomicBool::new(false));
        let mut checking = {
            let (shared, store) = (Arc::clone(&self.shared), Arc::clone(&self.store));
            let (done, cancel) = (Arc::clone(&done), Arc::clone(&cancel));
            tokio::task::spawn_blocking(move || {
                let progress =
                    |at: crate::storage::CheckProgress| done.store(at.pieces_done, Ordering::Relaxed);
                shared.hashing.check(store, None, progress, &cancel)
            })
        };
        let mut tick = tokio::time::interval(CHECK_TICK);
        loop {
            tokio::select! {
                checked = &mut checking => {
                    let error = match checked {
                        Ok(Ok(have)) => return Ok(have),
                        Ok(Err(error)) => TorrentError::Storage(error.to_string()),
                        Err(panic) => TorrentError::Storage(format!("the check broke off: {panic}")),
                    };
                    self.fail(error);
                    return Ok(Bitfield::empty(total));
                }
                _ = tick.tick() => {
                    let done = done.load(Ordering::Relaxed);
                    self.status.send_modify(|s| s.state = TorrentState::Checking { done, total });
                }
                command = self.commands.recv() => match command {
                    None => {
                        cancel.store(true, Ordering::Relaxed);
                        return Err(None);
                    }
                    Some(Command::Stop(reply)) => {
                        cancel.store(true, Ordering::Relaxed);
                        return Err(Some(reply));
                    }
                    Some(Command::Pause) => self.paused = Some(Pause { error: None }),
                    Some(Command::Resume) => self.paused = None,
                    Some(Command::AddPeers(peers)) => self.user_peers.extend(peers),
                    Some(Command::Peers(reply)) => drop(reply.send(Vec::new())),
                    Some(Command::Have(reply)) => drop(reply.send(Bitfield::empty(total))),
                    Some(Command::Recheck | Command::Reannounce) => {}
                },
            }
        }
    }

    /// Makes folders and empty files if anything is missing. A disk that refuses pauses the
    /// torrent.
    async fn prepare(
        &mut self,
        have: Bitfield,
    ) -> Result<Bitfield, Option<oneshot::Sender<()>>> {
        if have.is_full() && self.geometry.pieces() > 0 {
            return Ok(have);
        }
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || store.prepare()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(TorrentError::Storage(error.to_string())),
            Err(panic) => self.fail(TorrentError::Storage(format!("setting up broke off: {panic}"))),
        }
        Ok(have)
    }

    /// Tells the trackers and flushes, then answers.
    async fn leave(self, reply: Option<oneshot::Sender<()>>) {
        let (told, gone) = oneshot::channel();
        let announced = async {
            if self.tells.send(Tell::Stop(told)).await.is_ok() {
                // The announcing task may be gone, which is as good.
                let _ = gone.await;
            }
        };
        let store = Arc::clone(&self.store);
        let synced = tokio::task::spawn_blocking(move || {
            let synced = store.sync();
            store.close_files();
            synced
        });
        let ((), synced) = tokio::join!(announced, synced);
        if let Ok(Err(error)) = synced {
            warn!(%error, "data could not be flushed to disk");
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn fail(&mut self, error: TorrentError) {
        warn!(torrent = %self.metainfo.info_hash(), %error, "paused");
        self.observe(&TorrentEvent::Paused { error: error.clone() });
        self.paused = Some(Pause { error: Some(error) });
    }

    fn observe(&self, event: &TorrentEvent) {
        if let Some(observer) = self.shared.observer() {
            observer.event(&self.metainfo, event);
        }
    }
}

/// The torrent while its swarm is alive.
struct Run<'a> {
    torrent: &'a mut Torrent,
    swarm: Swarm,
    assembly: Assembly,
    links: HashMap<PeerKey, Member>,
    /// Links with something in their outbox that their send loop has not been told of.
    unflushed: Vec<PeerKey>,
    /// Counted among those that share the memory budget.
    leeching: bool,
    /// Nothing has been published since this changed.
    published: Moment,
    changed: bool,
    asked_for_peers: Moment,
}

struct Member {
    link: Link,
    unflushed: bool,
    /// One of the session's connections, given back with the link.
    _permit: OwnedSemaphorePermit,
}

impl<'a> Run<'a> {
    fn new(torrent: &'a mut Torrent, have: Bitfield) -> Self {
        let shared = Arc::clone(&torrent.shared);
        let now = shared.now();
        let mut config = SwarmConfig::new(shared.peer_id);
        config.listen_port = shared.listen_port;
        config.choke = shared.config.choke;
        config.upload_slots = shared.config.upload_slots;
        config.max_peers = shared.config.max_peers_per_torrent;
        let mut swarm = Swarm::new(config, torrent.geometry, have, shared.rng(), now);
        if torrent.paused.is_some() {
            swarm.handle(now, Event::Pause);
        }
        let user_peers = torrent.user_peers.clone();
        if !user_peers.is_empty() {
            swarm.handle(now, Event::Candidates { source: Source::User, addrs: user_peers });
        }
        let steps = torrent.steps_tx.clone();
        // On the hash service's threads. A torrent that is gone needs no more steps.
        let done = move |step| drop(steps.blocking_send(step));
        let assembly = Assembly::new(torrent.geometry, Arc::clone(&torrent.store), done);
        Self {
            torrent,
            swarm,
            assembly,
            links: HashMap::new(),
            unflushed: Vec::new(),
            leeching: false,
            published: now,
            changed: true,
            asked_for_peers: now,
        }
    }

    async fn pump_until_end(mut self) -> Next {
        let shared = Arc::clone(&self.torrent.shared);
        let mut leeching = shared.leeching.subscribe();
        self.act();
        self.publish(true);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let next = loop {
            let wake = self.wake_at();
            if let Some(wake) = wake {
                timer.as_mut().reset(shared.instant(wake));
            }
            let Torrent { commands, accepted, found, inputs, steps, dialed, .. } =
                &mut *self.torrent;
            tokio::select! {
                command = commands.recv() => {
                    if let Some(next) = self.command(command).await {
                        break next;
                    }
                }
                Some(step) = steps.recv() => self.step(step),
                Some(input) = inputs.recv(), if !self.assembly.is_behind() => {
                    self.input(input);
                    self.drain_inputs();
                }
                Some(connection) = accepted.recv() => {
                    self.connected(connection, Direction::Incoming);
                }
                Some(dialed) = dialed.recv() => match dialed {
                    Ok(connection) => self.connected(connection, Direction::Outgoing),
                    Err(addr) => self.tell(Event::DialFailed { addr }),
                },
                Some(addrs) = found.recv() => {
                    self.tell(Event::Candidates { source: Source::Tracker, addrs });
                }
                Ok(()) = leeching.changed() => {
                    leeching.borrow_and_update();
                    self.budget();
                }
                () = &mut timer, if wake.is_some() => {
                    if self.swarm.deadline().is_some_and(|deadline| deadline <= shared.now()) {
                        self.tell(Event::Timeout);
                    }
                    self.changed = true;
                }
            }
            self.act();
            self.publish(false);
            self.ask_for_peers();
        };
        self.count_leeching(false);
        next
    }

    /// What else is there already: one turn for many batches.
    fn drain_inputs(&mut self) {
        for _ in 0..INPUTS_A_TURN {
            match self.torrent.inputs.try_recv() {
                Ok(input) => self.input(input),
                Err(_) => break,
            }
        }
    }

    async fn command(&mut self, command: Option<Command>) -> Option<Next> {
        match command {
            None => return Some(Next::Stop(None)),
            Some(Command::Stop(reply)) => return Some(Next::Stop(Some(reply))),
            Some(Command::Recheck) => {
                self.torrent.paused = None;
                return Some(Next::Check);
            }
            Some(Command::Pause) => self.pause(None),
            Some(Command::Resume) => {
                self.torrent.paused = None;
                self.tell(Event::Resume);
                self.publish(true);
            }
            Some(Command::AddPeers(addrs)) => {
                self.tell(Event::Candidates { source: Source::User, addrs });
            }
            Some(Command::Reannounce) => drop(self.torrent.tells.try_send(Tell::MorePeers)),
            // Whoever asked may have gone away.
            Some(Command::Peers(reply)) => drop(reply.send(self.peers())),
            Some(Command::Have(reply)) => drop(reply.send(self.swarm.have().clone())),
        }
        None
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Received { peer, items } => {
                if !self.links.contains_key(&peer) {
                    return;
                }
                let now = self.torrent.shared.now();
                for item in items {
                    let event = match item {
                        Incoming::Message(message) => Event::Message { peer, message },
                        Incoming::Block { block, data } => {
                            Event::Block { peer, block, buffer: self.assembly.received(data) }
                        }
                    };
                    self.swarm.handle(now, event);
                }
                self.changed = true;
            }
            Input::Uploaded { peer, blocks, bytes } => {
                self.tell(Event::Uploaded { peer, blocks, bytes });
                self.changed = true;
            }
            Input::Closed { peer, reason } => {
                if self.links.remove(&peer).is_some() {
                    debug!(?peer, reason, "a peer is gone");
                    self.tell(Event::Disconnected { peer });
                    self.changed = true;
                }
            }
            Input::Unreadable { error } => {
                self.pause(Some(TorrentError::Storage(error.to_string())));
            }
        }
    }

    fn step(&mut self, step: Step) {
        let step = match step {
            Step::Block { piece, error } => {
                let hashing = &self.torrent.shared.hashing;
                match self.assembly.block_written(hashing, piece, error) {
                    Some(step) => step,
                    None => return,
                }
            }
            step => step,
        };
        let Step::Piece { piece, finished } = step else { return };
        let (outcome, error) = match finished {
            Finished::Verified { digests } => {
                (PieceOutcome::Verified { digests: digests_of(digests) }, None)
            }
            Finished::Corrupt { digests } => {
                (PieceOutcome::Corrupt { digests: digests_of(digests) }, None)
            }
            Finished::Failed(error) => (PieceOutcome::StorageFailed, Some(error)),
        };
        self.tell(Event::PieceChecked { piece, outcome });
        if let Some(error) = error {
            self.storage_failed(&error);
        }
        self.changed = true;
    }

    fn storage_failed(&mut self, error: &StorageError) {
        self.pause(Some(TorrentError::Storage(error.to_string())));
    }

    fn connected(&mut self, connection: Accepted, direction: Direction) {
        let shared = &self.torrent.shared;
        let Accepted { stream, addr, theirs } = connection;
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            debug!(%addr, "refused: the session has as many connections as it may");
            if direction == Direction::Outgoing {
                self.tell(Event::DialFailed { addr });
            }
            return;
        };
        let peer = PeerKey(self.torrent.next_peer);
        self.torrent.next_peer += 1;
        let link = Link::start(
            stream,
            LinkOptions {
                peer,
                geometry: self.torrent.geometry,
                pool: shared.pool.clone(),
                source: Arc::clone(&self.torrent.source) as _,
                upload: shared.upload.clone(),
                download: shared.download.clone(),
                inputs: self.torrent.inputs_tx.clone(),
            },
        );
        self.links.insert(peer, Member { link, unflushed: false, _permit: permit });
        self.tell(Event::Connected {
            peer,
            addr,
            id: theirs.peer_id,
            direction,
            fast: theirs.fast(),
            extended: theirs.extended(),
        });
        self.changed = true;
    }

    fn tell(&mut self, event: Event) {
        self.swarm.handle(self.torrent.shared.now(), event);
    }

    /// Does everything the swarm wants done.
    fn act(&mut self) {
        let mut broken = Vec::new();
        loop {
            while let Some(action) = self.swarm.poll() {
                self.carry_out(action, &mut broken);
            }
            if broken.is_empty() {
                break;
            }
            for peer in broken.drain(..) {
                if self.links.remove(&peer).is_some() {
                    debug!(?peer, "dropped: it does not take what it is sent");
                    self.tell(Event::Disconnected { peer });
                }
            }
        }
        self.assembly.turn_over();
        for peer in self.unflushed.drain(..) {
            if let Some(member) = self.links.get_mut(&peer) {
                member.unflushed = false;
                member.link.outbox().flush();
            }
        }
        self.count_leeching(!self.swarm.is_complete() && self.torrent.paused.is_none());
    }

    fn carry_out(&mut self, action: Action, broken: &mut Vec<PeerKey>) {
        let hashing = &self.torrent.shared.hashing;
        match action {
            Action::Dial { addr } => self.dial(addr),
            Action::Disconnect { peer, fault } => {
                debug!(?peer, %fault, "dropped a peer");
                self.links.remove(&peer);
                self.changed = true;
            }
            Action::Send { peer, message } => {
                if let Some(member) = self.links.get_mut(&peer) {
                    if member.link.outbox().send(&message).is_err() {
                        broken.push(peer);
                    } else if !member.unflushed {
                        member.unflushed = true;
                        self.unflushed.push(peer);
                    }
                }
            }
            Action::Upload { peer, block } => {
                if let Some(member) = self.links.get_mut(&peer) {
                    member.link.outbox().upload(block);
                    if !member.unflushed {
                        member.unflushed = true;
                        self.unflushed.push(peer);
                    }
                }
            }
            Action::CancelUpload { peer, block } => {
                if let Some(member) = self.links.get(&peer) {
                    member.link.outbox().cancel(block);
                }
            }
            Action::Keep { buffer, block } => self.assembly.keep(hashing, buffer, block),
            Action::Discard { buffer } => self.assembly.discard(buffer),
            Action::Verify { piece, want_digests } => {
                self.assembly.verify(hashing, piece, want_digests);
            }
            Action::DropPiece { piece } => self.assembly.drop_piece(piece),
            Action::PieceDone { piece, givers } => {
                self.changed = true;
                self.torrent.observe(&TorrentEvent::PieceDone { piece, givers: told(givers) });
            }
            Action::PieceFailed { piece, givers } => {
                self.torrent.observe(&TorrentEvent::PieceFailed { piece, givers: told(givers) });
            }
            Action::Banned { who, block } => {
                info!(addr = %who.addr, piece = block.piece.0, "banned a peer for a wrong block");
                self.torrent.observe(&TorrentEvent::Banned { who, block });
            }
            Action::Completed => self.completed(),
        }
    }

    fn dial(&self, addr: SocketAddr) {
        let shared = Arc::clone(&self.torrent.shared);
        let ours = Handshake::ours(self.torrent.metainfo.info_hash(), shared.peer_id);
        let dialed = self.torrent.dialed_tx.clone();
        tokio::spawn(async move {
            // Closed only with the session, and then nobody waits for the dial.
            let Ok(_permit) = shared.dialing.acquire().await else { return };
            let config = &shared.config;
            let outcome =
                net::dial(addr, &ours, config.connect_timeout, config.handshake_timeout).await;
            if let Err(error) = &outcome {
                debug!(%addr, %error, "a dial came to nothing");
            }
            // A torrent that is gone wants no connection.
            let _ = dialed.send(outcome.map_err(|_| addr)).await;
        });
    }

    fn completed(&mut self) {
        self.torrent.observe(&TorrentEvent::Completed);
        self.note_progress();
        // Full only if announces come slower than pieces, and then it asks for the event anyway.
        let _ = self.torrent.tells.try_send(Tell::Complete);
        let store = Arc::clone(&self.torrent.store);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.sync() {
                warn!(%error, "data could not be flushed to disk");
            }
        });
        self.publish(true);
    }

    fn pause(&mut self, error: Option<TorrentError>) {
        if self.torrent.paused.is_some() {
            return;
        }
        match error {
            Some(error) => self.torrent.fail(error),
            None => self.torrent.paused = Some(Pause { error: None }),
        }
        self.tell(Event::Pause);
        self.act();
        self.publish(true);
    }

    fn count_leeching(&mut self, leeching: bool) {
        if self.leeching != leeching {
            self.leeching = leeching;
            self.torrent.shared.leeching.send_modify(|count| {
                *count = if leeching { *count + 1 } else { count.saturating_sub(1) };
            });
        }
    }

    fn budget(&mut self) {
        let mut blocks = self.torrent.shared.memory_share();
        if self.torrent.geometry.piece_len() > STREAM_OVER {
            // Its blocks do not stay in memory: room for some pieces at a time.
            blocks = blocks.max(self.torrent.geometry.blocks_per_piece().saturating_mul(4));
        }
        self.tell(Event::MemoryBudget { blocks });
    }

    /// Trackers are asked for more when a download has nobody, as often as they allow.
    fn ask_for_peers(&mut self) {
        let now = self.torrent.shared.now();
        let lonely = self.leeching && self.links.is_empty();
        if lonely && now.since(self.asked_for_peers) >= LONELY {
            self.asked_for_peers = now;
            // If the queue is full, the announcing task is busy asking.
            let _ = self.torrent.tells.try_send(Tell::MorePeers);
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        let show = self.changed.then(|| self.published + PUBLISH_EVERY);
        let lonely = (self.leeching && self.links.is_empty()).then(|| self.asked_for_peers + LONELY);
        [self.swarm.deadline(), show, lonely].into_iter().flatten().min()
    }

    fn note_progress(&self) {
        let progress = self.swarm.progress();
        let counters = &self.torrent.counters;
        let left = self.torrent.geometry.total_len() - progress.bytes_have;
        counters.left.store(left, Ordering::Relaxed);
        counters.downloaded.store(progress.downloaded, Ordering::Relaxed);
        counters.uploaded.store(progress.uploaded, Ordering::Relaxed);
    }

    /// Shows how it stands, not more often than every [`PUBLISH_EVERY`] unless `at_once`.
    fn publish(&mut self, at_once: bool) {
        let now = self.torrent.shared.now();
        let due = self.changed && now.since(self.published) >= PUBLISH_EVERY;
        if !at_once && !due {
            return;
        }
        self.note_progress();
        let progress = self.swarm.progress();
        let (down, up) = self.torrent.rates.sample(now, progress.downloaded, progress.uploaded);
        // While anything moves the rates change by themselves.
        self.changed = down > 0.0 || up > 0.0;
        self.published = now;
        let total = self.torrent.geometry.total_len();
        let left = total - progress.bytes_have;
        let state = match &self.torrent.paused {
            Some(pause) => {
                TorrentState::Paused { reason: pause.error.as_ref().map(ToString::to_string) }
            }
            None if self.swarm.is_complete() => TorrentState::Seeding,
            None => TorrentState::Downloading,
        };
        let (peers, seeds) = self.swarm.peers().fold((0, 0), |(peers, seeds), peer| {
            (peers + 1, seeds + usize::from(peer.is_complete()))
        });
        let eta = (left > 0 && down > 1.0)
            .then(|| Duration::try_from_secs_f64(left as f64 / down).ok())
            .flatten();
        let trackers = self.torrent.trackers.borrow().clone();
        self.torrent.status.send_modify(|status| {
            status.state = state;
            status.pieces_have = progress.pieces_have;
            status.bytes_have = progress.bytes_have;
            status.downloaded = progress.downloaded;
            status.uploaded = progress.uploaded;
            status.download_rate = down;
            status.upload_rate = up;
            status.peers = peers;
            status.seeds = seeds;
            status.eta = eta;
            status.trackers = trackers;
        });
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.swarm
            .peers()
            .map(|peer| PeerStatus {
                addr: peer.identity.addr,
                client: peer.identity.client.clone(),
                direction: peer.direction,
                pieces: peer.pieces,
                download_rate: peer.download_rate,
                upload_rate: peer.upload_rate,
                downloaded: peer.downloaded,
                uploaded: peer.uploaded,
                choked_by_us: peer.am_choking,
                choking_us: peer.peer_choking,
                we_are_interested: peer.am_interested,
                interested_in_us: peer.peer_interested,
                outstanding: peer.outstanding,
            })
            .collect()
    }
}

fn first_status(metainfo: &Metainfo) -> TorrentStatus {
    let geometry = metainfo.info().geometry();
    TorrentStatus {
        name: metainfo.info().name().to_owned(),
        info_hash: metainfo.info_hash(),
        state: TorrentState::Checking { done: 0, total: geometry.pieces() },
        pieces_total: geometry.pieces(),
        pieces_have: 0,
        bytes_total: geometry.total_len(),
        bytes_have: 0,
        downloaded: 0,
        uploaded: 0,
        download_rate: 0.0,
        upload_rate: 0.0,
        peers: 0,
        seeds: 0,
        eta: None,
        trackers: Vec::new(),
    }
}

fn bytes_of(geometry: &Geometry, have: &Bitfield) -> u64 {
    have.iter().map(|piece| u64::from(geometry.piece_size(piece))).sum()
}

fn digests_of(digests: Vec<[u8; 20]>) -> Vec<BlockDigest> {
    digests.into_iter().map(BlockDigest).collect()
}

fn told(givers: Vec<Giver>) -> Vec<PieceGiver> {
    let told = |giver: Giver| PieceGiver {
        took: giver.received_at.since(giver.requested_at),
        who: giver.who,
        blocks: giver.blocks,
        bytes: giver.bytes,
    };
    givers.into_iter().map(told).collect()
}

/// Announced by a session that accepts no peers: BEP 3 knows no way to say "none", and port 0 is
/// refused by trackers. 9 is the discard service.
const PORT_OF_NOBODY: u16 = 9;

/// Batches of received items that may wait, at most 512 KiB each: 16 MiB.
const INPUTS_WAITING: usize = 32;
const INPUTS_A_TURN: usize = 16;
/// Finished pieces and blocks that may wait; the hash threads wait when it is full.
const STEPS_WAITING: usize = 256;
const CHECK_TICK: Duration = Duration::from_millis(100);
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// How often a download without any peer asks for some.
const LONELY: Duration = Duration::from_secs(5);
