//! A torrent whose swarm is alive: what happened goes in, what the swarm wants done is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{debug, info, warn};

use crate::base::{Bitfield, BlockRef, Moment};
use crate::net::{self, Accepted, Incoming, Input, Link, LinkOptions};
use crate::storage::Finished;
use crate::swarm::{
    Action, BlockDigest, Direction, Event, Giver, PeerKey, PieceOutcome, Source, Swarm, SwarmConfig,
};
use crate::wire::{Handshake, Message};

use super::assembly::{Assembly, STREAM_OVER, Step};
use super::handle::Command;
use super::torrent::{Next, Pause, Torrent};
use super::trackers::Tell;
use super::{PeerStatus, PieceGiver, TorrentError, TorrentEvent, TorrentState};

/// The torrent while its swarm is alive.
pub(super) struct Run<'a> {
    torrent: &'a mut Torrent,
    swarm: Swarm,
    assembly: Assembly,
    // Channels of this run alone: what answers an earlier one finds them closed.
    inputs: mpsc::Receiver<Input>,
    inputs_tx: net::Inputs,
    steps: mpsc::Receiver<Step>,
    dialed: mpsc::Receiver<Dialed>,
    dialed_tx: mpsc::Sender<Dialed>,
    links: HashMap<PeerKey, Member>,
    /// Links with something in their outbox that their send loop has not been told of.
    unflushed: Vec<PeerKey>,
    /// A block that was to be cancelled and is on its way already: it is not to be refused too.
    on_its_way: Option<(PeerKey, BlockRef)>,
    /// Counted among those that share the memory budget.
    leeching: bool,
    /// Nothing has been published since this changed.
    published: Moment,
    changed: bool,
    asked_for_peers: Moment,
    /// Nothing is begun any more.
    ending: bool,
}

/// How a dial ended.
type Dialed = Result<Accepted, SocketAddr>;

struct Member {
    link: Link,
    unflushed: bool,
    /// One of the session's connections, given back with the link.
    _permit: OwnedSemaphorePermit,
}

impl<'a> Run<'a> {
    pub fn new(torrent: &'a mut Torrent, have: Bitfield) -> Self {
        let shared = Arc::clone(&torrent.shared);
        let now = shared.now();
        let mut config = SwarmConfig::new(shared.peer_id);
        config.info_hash = Some(torrent.metainfo.info_hash());
        config.listen_port = shared.listen_port;
        config.choke = shared.config.choke;
        config.upload_slots = shared.config.upload_slots;
        config.max_peers = shared.config.max_peers_per_torrent;
        config.upload_only = torrent.upload_only;
        config.memory_blocks = memory_blocks(torrent);
        let mut swarm = Swarm::new(config, torrent.geometry, have, shared.rng(), now);
        if torrent.paused.is_some() {
            swarm.handle(now, Event::Pause);
        }
        let user_peers = torrent.user_peers.clone();
        let lost = std::mem::take(&mut torrent.lost_peers);
        for (source, addrs) in [(Source::User, user_peers), (Source::Tracker, lost)] {
            if !addrs.is_empty() {
                swarm.handle(now, Event::Candidates { source, addrs });
            }
        }
        let (inputs_tx, inputs) = mpsc::channel(INPUTS_WAITING);
        let (steps_tx, steps) = mpsc::channel(STEPS_WAITING);
        let (dialed_tx, dialed) = mpsc::channel(DIALED_WAITING);
        let assembly = Assembly::new(torrent.geometry, Arc::clone(&torrent.store), steps_tx);
        Self {
            torrent,
            swarm,
            assembly,
            inputs,
            inputs_tx,
            steps,
            dialed,
            dialed_tx,
            links: HashMap::new(),
            unflushed: Vec::new(),
            on_its_way: None,
            leeching: false,
            published: now,
            changed: true,
            asked_for_peers: now,
            ending: false,
        }
    }

    /// Pumps until the torrent is to be checked anew or left.
    pub async fn pump_until_end(mut self) -> Next {
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
            let Torrent { commands, accepted, found, trackers, .. } = &mut *self.torrent;
            tokio::select! {
                command = commands.recv() => {
                    if let Some(next) = self.command(command) {
                        break next;
                    }
                }
                Some(step) = self.steps.recv() => self.step(step),
                Some(input) = self.inputs.recv(), if !self.assembly.is_behind() => {
                    self.input(input);
                    self.drain_inputs();
                }
                Some(connection) = accepted.recv() => {
                    self.connected(connection, Direction::Incoming);
                }
                Some(dialed) = self.dialed.recv() => match dialed {
                    Ok(connection) => self.connected(connection, Direction::Outgoing),
                    Err(addr) => self.tell(Event::DialFailed { addr }),
                },
                Some(addrs) = found.recv() => {
                    self.tell(Event::Candidates { source: Source::Tracker, addrs });
                }
                Ok(()) = trackers.changed() => {
                    trackers.borrow_and_update();
                    self.changed = true;
                }
                Ok(()) = leeching.changed(), if self.leeching => {
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
        self.end().await;
        if matches!(next, Next::Check) {
            self.torrent.paused = None;
        }
        next
    }

    /// Parts with all peers, and waits for what the hash service still has of ours: what is
    /// written behind our back would be missed by the next check, or by the last flush.
    async fn end(&mut self) {
        self.ending = true;
        let dialled = self.swarm.peers().filter(|peer| peer.direction == Direction::Outgoing);
        self.torrent.lost_peers = dialled.map(|peer| peer.who.addr).collect();
        self.tell(Event::Pause);
        self.act();
        while self.assembly.is_working() {
            let Some(step) = self.steps.recv().await else { break };
            self.step(step);
            self.act();
        }
        let progress = self.swarm.progress();
        self.torrent.earlier.downloaded += progress.downloaded;
        self.torrent.earlier.uploaded += progress.uploaded;
    }

    /// What else is there already: one turn for many batches.
    fn drain_inputs(&mut self) {
        for _ in 0..INPUTS_A_TURN {
            match self.inputs.try_recv() {
                Ok(input) => self.input(input),
                Err(_) => break,
            }
        }
    }

    fn command(&mut self, command: Option<Command>) -> Option<Next> {
        match command {
            None => return Some(Next::Stop(None)),
            Some(Command::Stop(reply)) => return Some(Next::Stop(Some(reply))),
            Some(Command::Recheck) => return Some(Next::Check),
            Some(Command::Pause) => self.pause(None),
            // Nothing is known of what is on disk: to go on would be to get all of it anew.
            Some(Command::Resume) if self.torrent.unchecked => return Some(Next::Check),
            Some(Command::Resume) => {
                self.torrent.paused = None;
                self.torrent.start_announcing();
                self.tell(Event::Resume);
                self.publish(true);
            }
            Some(Command::AddPeers(addrs)) => {
                self.torrent.note_user_peers(&addrs);
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
            Input::Unreadable { peer, error } => {
                // Of a link that is gone it may be old news: the torrent may have been resumed.
                if self.links.contains_key(&peer) {
                    self.pause(Some(TorrentError::Storage(error.to_string())));
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        let hashing = &self.torrent.shared.hashing;
        let Some((piece, finished)) = self.assembly.stepped(hashing, step) else { return };
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
        if let Some(error) = error.filter(|_| !self.ending) {
            self.pause(Some(TorrentError::Storage(error.to_string())));
        }
        self.changed = true;
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
                inputs: self.inputs_tx.clone(),
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
        self.count_leeching(self.is_leeching());
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
                if let Message::Reject(block) = message
                    && self.on_its_way.take() == Some((peer, block))
                {
                    return;
                }
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
                if let Some(member) = self.links.get(&peer)
                    && !member.link.outbox().cancel(block)
                {
                    // BEP 6: a request is answered once, by a block or by a rejection.
                    self.on_its_way = Some((peer, block));
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
            Action::Finished => self.changed = true,
            Action::Completed => self.completed(),
        }
    }

    fn dial(&self, addr: SocketAddr) {
        let shared = Arc::clone(&self.torrent.shared);
        let ours = Handshake::ours(self.torrent.metainfo.info_hash(), shared.peer_id);
        let dialed = self.dialed_tx.clone();
        tokio::spawn(async move {
            let dial = async {
                // Closed only with the session, and then nobody waits for the dial.
                let Ok(_permit) = shared.dialing.acquire().await else { return };
                let config = &shared.config;
                let outcome = net::dial(
                    addr,
                    config.interface.as_deref(),
                    &ours,
                    config.connect_timeout,
                    config.handshake_timeout,
                )
                .await;
                if let Err(error) = &outcome {
                    debug!(%addr, %error, "a dial came to nothing");
                }
                // A torrent that is gone wants no connection.
                let _ = dialed.send(outcome.map_err(|_| addr)).await;
            };
            tokio::select! {
                () = dial => {}
                () = dialed.closed() => {}
            }
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
            if *self.torrent.shared.leeching.borrow() == 0 {
                // Nothing is to be received now.
                self.torrent.shared.pool.clear();
            }
        }
    }

    fn is_leeching(&self) -> bool {
        let torrent = &self.torrent;
        let wants_more = !self.swarm.is_complete() && !torrent.upload_only;
        wants_more && torrent.paused.is_none() && !self.ending
    }

    fn budget(&mut self) {
        let blocks = memory_blocks(self.torrent);
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
        let lonely =
            (self.leeching && self.links.is_empty()).then(|| self.asked_for_peers + LONELY);
        [self.swarm.deadline(), show, lonely].into_iter().flatten().min()
    }

    fn note_progress(&self) {
        let progress = self.swarm.progress();
        let counters = &self.torrent.counters;
        let left = self.torrent.geometry.total_len() - progress.bytes_have;
        counters.left.store(left, Ordering::Relaxed);
        let (downloaded, uploaded) = self.moved();
        counters.downloaded.store(downloaded, Ordering::Relaxed);
        counters.uploaded.store(uploaded, Ordering::Relaxed);
    }

    /// Payload bytes received and sent since the torrent was added.
    fn moved(&self) -> (u64, u64) {
        let (progress, earlier) = (self.swarm.progress(), &self.torrent.earlier);
        (earlier.downloaded + progress.downloaded, earlier.uploaded + progress.uploaded)
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
        let (downloaded, uploaded) = self.moved();
        let (down, up) = self.torrent.rates.sample(now, downloaded, uploaded);
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
            (peers + 1, seeds + usize::from(peer.holds.is_full()))
        });
        let eta = (left > 0 && down > 1.0)
            .then(|| Duration::try_from_secs_f64(left as f64 / down).ok())
            .flatten();
        let trackers = self.torrent.trackers.borrow().clone();
        self.torrent.status.send_modify(|status| {
            status.state = state;
            status.pieces_have = progress.pieces_have;
            status.bytes_have = progress.bytes_have;
            status.downloaded = downloaded;
            status.uploaded = uploaded;
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
                addr: peer.who.known_as(),
                client: peer.who.client.clone(),
                direction: peer.direction,
                pieces: peer.holds.count(),
                download_rate: peer.download_rate as f64,
                upload_rate: peer.upload_rate as f64,
                downloaded: peer.downloaded,
                uploaded: peer.uploaded,
                choked_by_us: peer.choked,
                choking_us: peer.chokes_us,
                we_are_interested: peer.interests_us,
                interested_in_us: peer.interested,
                outstanding: peer.blocks_owed as u32,
            })
            .collect()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count_leeching(false);
    }
}

/// Blocks the swarm may have in memory.
fn memory_blocks(torrent: &Torrent) -> u32 {
    let blocks = torrent.shared.memory_share();
    if torrent.geometry.piece_len() > STREAM_OVER {
        // Its blocks do not stay in memory: room for some pieces at a time.
        blocks.max(torrent.geometry.blocks_per_piece().saturating_mul(4))
    } else {
        blocks
    }
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

/// Batches of received items that may wait, some 512 KiB each at most: 16 MiB.
const INPUTS_WAITING: usize = 32;
/// Finished pieces and blocks that may wait; the hash threads wait when it is full.
const STEPS_WAITING: usize = 256;
const DIALED_WAITING: usize = 16;
const INPUTS_A_TURN: usize = 16;
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// How often a download without any peer asks for some.
const LONELY: Duration = Duration::from_secs(5);
