//! A torrent whose swarm is alive: what happened goes in, what the swarm wants done is done.

mod actions;
mod calls;
mod flush;
mod memory;
mod proofs;
mod publish;
mod tally;
mod waits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::mpsc;
use tracing::debug;

use crate::net::{self, Accepted, Incoming, Input, Link, LinkOptions};
use piecework_core::{Bitfield, BlockRef, Moment, Sha1Hash};
use piecework_proto::encryption::Method;
use piecework_storage::{Finished, Watch};
use piecework_swarm::lifecycle::{LifecycleEvent, SwarmEnd};
use piecework_swarm::{
    BlockDigest, Direction, Event, PeerKey, PieceOutcome, Source, Swarm, SwarmConfig, Waiting,
};

use super::assembly::{Assembly, Step};
use super::complaints::{Complaints, LastSent};
use super::crew::fault;
use super::doubt::{self, Doubt};
use super::hub::Alone;
use super::places::Place;
use super::rates::Rates;
use super::record::Kept;
use super::source::StoreSource;
use super::starts;
use super::torrent::Torrent;
use super::{TorrentError, wants};

use flush::Flushing;
use memory::Told;
use proofs::Proofs;
use tally::Tally;
use waits::Waits;

/// The torrent while its swarm is alive.
pub(super) struct Run<'a> {
    torrent: &'a mut Torrent,
    swarm: Swarm,
    assembly: Assembly,
    source: Arc<StoreSource>,
    // Channels of this run alone: what answers an earlier one finds them closed.
    inputs: mpsc::Receiver<Input>,
    inputs_tx: net::Inputs,
    steps: mpsc::Receiver<Step>,
    dialed: mpsc::Receiver<Dialed>,
    dialed_tx: mpsc::Sender<Dialed>,
    /// Dials that have not been answered.
    dialing: usize,
    links: HashMap<PeerKey, Member>,
    /// Links with something in their outbox that their send loop has not been told of.
    unflushed: Vec<PeerKey>,
    /// A block that was to be cancelled and is on its way already: it is not to be refused too.
    on_its_way: Option<(PeerKey, BlockRef)>,
    /// What was written is forced to the disk and kept.
    flushing: Flushing,
    /// What went out and has not been told yet.
    tally: Tally,
    /// Counted among those that download.
    leeching: bool,
    /// What was said of memory last.
    memory: Told,
    rates: Rates,
    /// What is waited for.
    waits: Waits,
    /// Nothing has been published since this changed.
    published: Moment,
    changed: bool,
    asked_for_peers: Moment,
    /// What the hub was told last: whether it downloads and has nobody.
    told_alone: Option<Alone>,
    /// Since when nobody is connected; `None` if somebody is.
    alone_since: Option<Moment>,
    /// Somebody was connected.
    had_peers: bool,
    /// How much longer than usual peers may take, as the swarm was told.
    patience: Duration,
    /// Held pieces that are hashed meanwhile.
    proofs: Proofs,
    /// Peers that may have found a piece of ours wrong.
    complaints: Box<Complaints>,
    /// Files that may not hold any more what they held.
    doubt: Option<Doubt>,
    /// What ends it.
    reason: Option<Reason>,
    /// What was verified since the last checkpoint may not be on the disk.
    unsure: bool,
    /// Nothing is begun any more.
    ending: bool,
}

/// Why a swarm ends.
enum Reason {
    /// There is nothing to do for now.
    Idle,
    /// It was told to, or has to be prepared again.
    Stopped,
    /// Files may not hold any more what they held.
    Doubt,
    Fault(TorrentError),
}

/// How a dial ended.
type Dialed = Result<Accepted, NotDialed>;

/// A dial that came to nothing.
struct NotDialed {
    addr: SocketAddr,
    /// By a bound of our own.
    is_prevented: bool,
    /// The peer closed the connection at our handshake.
    hung_up: bool,
}

struct Member {
    link: Link,
    addr: SocketAddr,
    unflushed: bool,
    sent: LastSent,
    /// What an encrypted handshake ended with, if there was one.
    encryption: Option<Method>,
    /// One of the session's, given back with the link.
    place: Place,
}

impl<'a> Run<'a> {
    pub fn new(torrent: &'a mut Torrent) -> Self {
        let shared = Arc::clone(&torrent.shared);
        let now = shared.now();
        let have = torrent.record().bitfield(&torrent.entry.metainfo);
        let mut proofs = Proofs::new(torrent.record().unproven().cloned());
        let flushing = Flushing::new(torrent, &have, &mut proofs);
        let watch = watch_of(torrent, &have);
        let mut swarm = Swarm::new(config_of(torrent), torrent.geometry, have, shared.rng(), now);
        let complaints = torrent.record_mut().rare.change(|rare| rare.complaints.take());
        let complaints = complaints.unwrap_or_default();
        let user_peers = torrent.record().rare.user.clone();
        let lost = torrent.record_mut().rare.change(|rare| std::mem::take(&mut rare.lost));
        for (source, addrs) in [(Source::User, user_peers), (Source::Tracker, lost)] {
            if !addrs.is_empty() {
                swarm.handle(now, Event::Candidates { source, addrs });
            }
        }
        let (inputs_tx, inputs) = mpsc::channel(INPUTS_WAITING);
        let (steps_tx, steps) = mpsc::channel(STEPS_WAITING);
        let (dialed_tx, dialed) = mpsc::channel(DIALED_WAITING);
        let store = torrent.entry.store();
        let portion = shared.memory.portion();
        let assembly = Assembly::new(torrent.geometry, Arc::clone(&store), steps_tx, portion);
        let arrived = std::mem::take(&mut torrent.arrived);
        let waits = Waits::new(now, torrent.record().rare.waited.as_ref());
        let blame = torrent.record_mut().rare.change(|rare| rare.blame.take());
        if let Some(blame) = blame {
            swarm.set_blame(*blame);
        }
        let mut run = Self {
            torrent,
            swarm,
            assembly,
            source: Arc::new(StoreSource { store, shared, watch, fault: Arc::default() }),
            inputs,
            inputs_tx,
            steps,
            dialed,
            dialed_tx,
            dialing: 0,
            links: HashMap::new(),
            unflushed: Vec::new(),
            on_its_way: None,
            flushing,
            tally: Tally::default(),
            leeching: false,
            memory: Told::default(),
            rates: Rates::default(),
            waits,
            published: now,
            changed: true,
            asked_for_peers: now,
            told_alone: None,
            alone_since: None,
            had_peers: false,
            patience: Duration::ZERO,
            proofs,
            complaints,
            doubt: None,
            reason: None,
            unsure: false,
            ending: false,
        };
        for connection in arrived.into_connections() {
            run.connected(connection, Direction::Incoming);
        }
        run
    }

    /// Pumps until there is nothing to do, or it is to stop. Returns how it ended, and the fault if that
    /// was one.
    pub async fn pump_until_end(mut self) -> (SwarmEnd, Option<TorrentError>) {
        let shared = Arc::clone(&self.torrent.shared);
        self.act();
        self.begin_proofs();
        self.publish(true);
        self.ask_for_peers();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let reason = loop {
            if let Some(reason) = self.reason.take() {
                break reason;
            }
            if self.torrent.is_stopping() {
                break Reason::Stopped;
            }
            let wake = self.wake_at();
            if self.may_sleep(wake) {
                break Reason::Idle;
            }
            if let Some(wake) = wake {
                timer.as_mut().reset(shared.instant(wake));
            }
            if !self.torrent.record().life.is_exchanging() {
                // It goes on: its files are made, and others may begin.
                self.torrent.pass(LifecycleEvent::SwarmStarted);
            }
            tokio::select! {
                call = self.torrent.calls.recv() => {
                    if let Some(call) = call {
                        self.hear(call);
                    }
                }
                Some(step) = self.steps.recv() => self.step(step),
                Some(input) = self.inputs.recv(), if !self.assembly.is_behind() => {
                    self.input(input);
                    self.drain_inputs();
                }
                Some(dialed) = self.dialed.recv() => self.dialed(dialed),
                () = self.assembly.nudged() => {
                    self.memory.speak_at = Some(shared.now());
                    self.assembly.give_back(&self.torrent.shared.hashing);
                }
                Some(proof) = self.proofs.results.recv() => self.proof(proof),
                flushed = self.flushing.done(), if self.flushing.is_working() => {
                    if let Err(error) = self.flushed(flushed) {
                        self.fail(error);
                    }
                }
                () = &mut timer, if wake.is_some() => {
                    if self.swarm.deadline().is_some_and(|deadline| deadline <= shared.now()) {
                        self.tell(Event::Timeout);
                    }
                    self.changed = true;
                }
            }
            self.act();
            self.begin_proofs();
            self.flush_if_due();
            self.tell_sent(false);
            self.look();
            self.publish(false);
            self.ask_for_peers();
        };
        self.end(reason).await
    }

    /// Parts with all peers, and waits for what the hash service still has of ours: what is
    /// written behind our back would be missed by the next check, or by the last flush.
    async fn end(mut self, reason: Reason) -> (SwarmEnd, Option<TorrentError>) {
        let now = self.torrent.shared.now();
        let is_idle = matches!(reason, Reason::Idle);
        let alone = (is_idle && self.is_leeching()).then(|| {
            let missing = self.swarm.progress().pieces_wanted_left;
            self.waits.alone(now, missing, self.swarm.hung_up())
        });
        self.ending = true;
        let dialled = self.swarm.peers().filter(|peer| peer.direction == Direction::Outgoing);
        let lost = dialled.map(|peer| peer.who.addr).collect();
        self.tell(Event::Pause);
        self.act();
        self.see(self.torrent.shared.now());
        while self.assembly.is_working() {
            let Some(step) = self.steps.recv().await else { break };
            self.step(step);
            self.act();
        }
        // What had gone out, and was not heard of yet.
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::Uploaded { peer, pieces, .. } = input {
                self.sent(peer, &pieces);
            }
        }
        self.tell_sent(true);
        let start = self.torrent.start.clone();
        let flushed = starts::begin(start, self.last_flush()).await;
        let fault = match reason {
            Reason::Fault(error) => Some(error),
            Reason::Idle | Reason::Stopped | Reason::Doubt => flushed.err(),
        };
        self.count();
        let has_stayed = is_idle && fault.is_none();
        self.note_end(lost, alone, has_stayed);
        let end = self.conclude(is_idle, fault.as_ref());
        (end, fault)
    }

    /// Notes in the record what is known at the end: `lost` are peers that it had dialled, `alone` what it
    /// goes on waiting for.
    fn note_end(&mut self, lost: Vec<SocketAddr>, alone: Option<Arc<Waiting>>, is_idle: bool) {
        let moved = self.moved();
        let waited = self.waits.seen();
        let blame = self.swarm.take_blame().filter(|_| is_idle);
        let have = self.swarm.have().clone();
        let unproven = self.proofs.unproven().cloned();
        let complaints = std::mem::take(&mut self.complaints);
        let record = self.torrent.record_mut();
        record.rare.change(|rare| {
            rare.lost = lost;
            rare.waited = alone.or(waited);
            rare.blame = blame;
            rare.complaints = Some(complaints).filter(|complaints| !complaints.is_empty());
        });
        record.set_earlier(moved);
        record.set_have(Some(have));
        record.set_unproven(unproven);
    }

    /// Returns how it ended, and notes what is in doubt.
    fn conclude(&mut self, is_idle: bool, fault: Option<&TorrentError>) -> SwarmEnd {
        let doubt = self.doubt.take();
        let metainfo = Arc::clone(&self.torrent.entry.metainfo);
        let record = self.torrent.record_mut();
        match (fault.map(TorrentError::kind), doubt) {
            // All of it is looked at in any case.
            (Some(kind), _) if self.unsure => SwarmEnd::Failed(kind),
            (Some(kind), Some(_)) => {
                record.kept = None;
                SwarmEnd::DoubtedAndFailed(kind)
            }
            (Some(kind), None) => SwarmEnd::Refused(kind),
            (None, Some(doubt)) => {
                record.doubt(&metainfo, doubt);
                SwarmEnd::Doubted
            }
            (None, None) if is_idle => SwarmEnd::Idle,
            (None, None) => SwarmEnd::Stopped,
        }
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

    fn input(&mut self, input: Input) {
        match input {
            Input::Received { peer, items } => {
                let Some(member) = self.links.get(&peer) else { return };
                let now = self.torrent.shared.now();
                member.place.spoke();
                if items.iter().any(|item| matches!(item, Incoming::Block { .. })) {
                    member.place.used(now);
                }
                for item in items {
                    let event = match item {
                        Incoming::Message(message) => Event::Message { peer, message },
                        Incoming::Block { block, data } => {
                            Event::Block { peer, block, buffer: self.assembly.received(data) }
                        }
                        Incoming::Unasked { block } => Event::Unasked { peer, block },
                    };
                    self.swarm.handle(now, event);
                }
                self.changed = true;
            }
            Input::Uploaded { peer, blocks, bytes, pieces } => {
                if let Some(member) = self.links.get_mut(&peer) {
                    let now = self.torrent.shared.now();
                    member.sent.note(now, pieces.iter().map(|(piece, ..)| *piece));
                    member.place.used(now);
                }
                self.sent(peer, &pieces);
                self.tell(Event::Uploaded { peer, blocks, bytes });
                self.changed = true;
            }
            Input::Closed { peer, reason } => {
                if let Some(member) = self.links.remove(&peer) {
                    debug!(?peer, reason, "a peer is gone");
                    self.left(peer, member.sent);
                    self.tell(Event::Disconnected { peer });
                    self.changed = true;
                }
            }
            Input::Unreadable { peer, error } => {
                let fault = self.source.fault.lock().take();
                match fault {
                    Some(fault) => self.unreadable(&fault),
                    None if self.links.contains_key(&peer) => {
                        self.fail(TorrentError::Storage(error.to_string()));
                    }
                    None => {}
                }
            }
        }
    }

    /// A peer has gone by itself: it may have found what it was sent wrong.
    fn left(&mut self, peer: PeerKey, sent: LastSent) {
        let now = self.torrent.shared.now();
        let Some(view) = self.swarm.peers().find(|view| view.key == peer) else { return };
        let who = (view.who.addr.ip(), view.who.id);
        let lacks = view.holds.len() - view.holds.count();
        for piece in self.complaints.left(now, who, sent, lacks) {
            if self.swarm.have().contains(piece) {
                self.proofs.ask(piece);
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
            Finished::Corrupt { digests, hash } => {
                let digests = digests_of(digests);
                (PieceOutcome::Corrupt { digests, hash: Sha1Hash(hash) }, None)
            }
            Finished::Failed(error) => (PieceOutcome::StorageFailed, Some(error)),
        };
        self.tell(Event::PieceChecked { piece, outcome });
        if let Some(error) = error.filter(|_| !self.ending) {
            self.fail(fault(&error));
        }
        self.changed = true;
    }

    fn connected(&mut self, connection: Accepted, direction: Direction) {
        let shared = &self.torrent.shared;
        let Accepted { stream, addr, theirs } = connection;
        // Asked before anybody loses a place of the session's for it.
        if direction == Direction::Incoming
            && !self.swarm.has_place_for(shared.now(), addr, theirs.peer_id)
        {
            debug!(%addr, "refused: the torrent has as many connections as it may");
            return;
        }
        let encryption = stream.method();
        let stream = Arc::new(stream);
        let Some(place) = shared.connect(addr.ip(), &stream) else {
            debug!(%addr, "refused: the session has as many connections as it may");
            if direction == Direction::Outgoing {
                self.tell(Event::DialPrevented { addr });
            }
            return;
        };
        let record = self.torrent.record_mut();
        let peer = PeerKey(record.next_peer);
        record.next_peer += 1;
        let shared = &self.torrent.shared;
        let link = Link::start(
            stream,
            LinkOptions {
                peer,
                geometry: self.torrent.geometry,
                pool: shared.pool.clone(),
                source: Arc::clone(&self.source) as _,
                runs: shared.runs.clone(),
                upload: self.torrent.upload.clone(),
                download: self.torrent.download.clone(),
                inputs: self.inputs_tx.clone(),
            },
        );
        let sent = LastSent::default();
        let member = Member { link, addr, unflushed: false, sent, encryption, place };
        self.links.insert(peer, member);
        self.had_peers = true;
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

    fn dialed(&mut self, dialed: Dialed) {
        self.dialing = self.dialing.saturating_sub(1);
        match dialed {
            Ok(connection) => self.connected(connection, Direction::Outgoing),
            Err(NotDialed { addr, is_prevented: true, .. }) => {
                self.tell(Event::DialPrevented { addr });
            }
            Err(NotDialed { addr, hung_up, .. }) => self.tell(Event::DialFailed { addr, hung_up }),
        }
    }

    fn fail(&mut self, error: TorrentError) {
        if !self.ending && self.reason.is_none() {
            self.reason = Some(Reason::Fault(error));
        }
    }

    /// Whether it may fall asleep, when the next thing to be done of its own accord is due at
    /// `wake`.
    fn may_sleep(&self, wake: Option<Moment>) -> bool {
        if !self.is_idle() {
            return false;
        }
        let Some(wake) = wake else { return !self.leeching || self.may_forget() };
        // Addresses that have failed some times are not waited for: the tracker names them again,
        // if they are still on its list when it is asked next, which is as soon as it allows.
        let is_far = |due: Moment| due > self.torrent.shared.now() + SOON;
        self.leeching
            && self.told_alone == Some(Alone::Downloading)
            && is_far(wake)
            && self.swarm.deadline() == Some(wake)
            && self.may_forget()
            && !self.swarm.has_named_peers()
            && self.torrent.shared.hub.has_trackers(self.torrent.entry.info_hash())
    }

    /// Whether the swarm of a download without peers may end.
    fn may_forget(&self) -> bool {
        self.forgets_at().is_none_or(|at| at <= self.torrent.shared.now())
    }

    /// When the swarm of a download without peers may end, if not at once. Parts of pieces wait some
    /// time for a peer who brings the rest. One who comes and goes does not have files looked at each
    /// time.
    fn forgets_at(&self) -> Option<Moment> {
        let since = self.alone_since?;
        match self.swarm.is_at_rest() {
            true => self.had_peers.then(|| since + LINGER),
            false => Some(since + KEEP_PARTS),
        }
    }

    /// Whether nothing will happen before a timer is due if nobody calls.
    fn is_idle(&self) -> bool {
        self.links.is_empty()
            && self.dialing == 0
            && self.torrent.calls.is_empty()
            && !self.assembly.is_working()
            && !self.flushing.is_working()
            && !self.proofs.is_working()
    }

    fn count_leeching(&mut self, leeching: bool) {
        if self.leeching != leeching {
            self.leeching = leeching;
            if self.torrent.shared.count_leeching(leeching) == 0 {
                // Nothing is to be received now.
                self.torrent.shared.pool.clear();
            }
        }
    }

    fn is_leeching(&self) -> bool {
        !self.swarm.is_finished() && !self.torrent.record().upload_only && !self.ending
    }

    fn begin_proofs(&mut self) {
        if self.proofs.is_working() && !self.ending {
            self.proofs.begin(&self.torrent.shared.hashing, &self.source.store);
        }
    }

    /// Trackers are asked for more as often as they allow when a download has nobody who gives it
    /// something, or may soon, and when a seed has nobody at all: a peer may be waiting for us to
    /// connect, since it cannot connect to us.
    fn ask_for_peers(&mut self) {
        let shared = &self.torrent.shared;
        let (now, info_hash) = (shared.now(), self.torrent.entry.info_hash());
        let has_nobody = self.links.is_empty() && self.dialing == 0;
        self.alone_since = has_nobody.then(|| self.alone_since.unwrap_or(now));
        let alone = match (has_nobody, self.leeching) {
            (false, _) => Alone::No,
            (true, true) => Alone::Downloading,
            (true, false) => Alone::Seeding,
        };
        if self.told_alone != Some(alone) {
            self.told_alone = Some(alone);
            shared.hub.set_alone(now, info_hash, alone);
        }
        if !self.leeching || alone != Alone::No || now.since(self.asked_for_peers) < LONELY {
            return;
        }
        self.asked_for_peers = now;
        if self.swarm.useful_peers() == 0 {
            shared.hub.more_peers(now, info_hash);
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        let show = self.changed.then(|| self.published + publish::EVERY);
        let lonely = match self.alone_since {
            Some(_) => self.forgets_at().filter(|_| !self.may_forget()),
            None => Some(self.asked_for_peers + LONELY),
        };
        let lonely = lonely.filter(|_| self.leeching);
        let flush = self.flushing.due();
        let tally = self.tally.due();
        let look = self.waits.due();
        let speak = self.memory.speak_at;
        let due = [self.swarm.deadline(), show, lonely, flush, tally, look, speak];
        due.into_iter().flatten().min()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count_leeching(false);
        self.torrent.shared.hashing.expect(self.memory.coming, 0);
    }
}

/// How a swarm of the torrent is to work, as things stand now.
fn config_of(torrent: &Torrent) -> SwarmConfig {
    let shared = &torrent.shared;
    let mut config = SwarmConfig::new(shared.peer_id);
    config.info_hash = Some(torrent.entry.info_hash());
    config.listen_port = shared.listen_port;
    let bounds = *shared.bounds.lock();
    config.choke = bounds.choke;
    config.upload_slots = bounds.upload_slots;
    {
        let options = torrent.entry.options.lock();
        config.max_peers = options.max_peers.unwrap_or(bounds.per_torrent);
        config.sequential = options.sequential;
        config.priorities = Some(wants::of_pieces(&torrent.entry.metainfo, &options.files));
    }
    config.shares = shared.config.torrent_shares();
    config.upload_only = torrent.record().upload_only;
    config.memory_blocks = memory::blocks(&torrent.geometry, 0);
    config
}

/// What the files are like that are served.
fn watch_of(torrent: &Torrent, have: &Bitfield) -> Arc<Watch> {
    let record = torrent.record();
    let files = torrent.entry.metainfo.info().files().entries().len();
    let is_written = |file| {
        !record.upload_only
            && record.have.is_some()
            && !doubt::is_whole(&torrent.entry.metainfo, have, file)
    };
    let unfinished = (0..files).map(is_written).collect();
    let kept = record.kept.as_ref().map(Kept::files).unwrap_or_default();
    Arc::new(Watch::new(unfinished, kept))
}

fn digests_of(digests: Vec<[u8; 20]>) -> Vec<BlockDigest> {
    digests.into_iter().map(BlockDigest).collect()
}

/// Batches of received items that may wait. Each has 32 KiB of messages and one more at most: 3 MiB
/// unless the torrent's bitfield is longer than 64 KiB. Blocks that are owed come on top, and have
/// their room in the memory budget.
const INPUTS_WAITING: usize = 32;
/// Finished pieces and blocks that may wait; the hash threads wait when it is full.
const STEPS_WAITING: usize = 256;
const DIALED_WAITING: usize = 16;
const INPUTS_A_TURN: usize = 16;
/// For how long a download stays awake when its last peer has gone.
const LINGER: Duration = Duration::from_secs(30);
/// For how long a download without peers keeps parts of pieces in memory.
const KEEP_PARTS: Duration = Duration::from_secs(600);
/// Before an address that failed may be dialled again, a download without peers sleeps if that takes
/// longer than this: after the third failure.
const SOON: Duration = Duration::from_secs(25);
/// How often it is looked whether a download has no peer of use, and then asks for some.
const LONELY: Duration = Duration::from_secs(5);
