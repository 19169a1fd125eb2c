//! A torrent at work: its swarm is alive. What happens goes in as events, and the swarm's actions
//! are carried out.

mod actions;
mod calls;
mod doubts;
mod flush;
mod flushing;
mod memory;
mod memory_share;
mod peers;
mod proofs;
mod publish;
mod pump;
mod tally;
mod waiting;
mod waits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::mpsc;
use tracing::debug;

use crate::net::{self, Accepted, Incoming, Input, Link, SourceError};
use piecework_core::{Bitfield, BlockRef, Moment, Sha1Hash};
use piecework_proto::encryption::Method;
use piecework_storage::{PieceResult, Watch};
use piecework_swarm::{
    BlockDigest, Direction, Event, PeerKey, PeerSource, PieceOutcome, Swarm, SwarmConfig,
};

use super::announce_scheduler::Alone;
use super::assembly::{Assembly, Step};
use super::complaints::{Complaints, LastSent};
use super::doubt::{self, Doubt};
use super::places::Place;
use super::rates::Rates;
use super::record::KeptCheckpoint;
use super::store_source::StoreSource;
use super::torrent::Torrent;
use super::{TorrentError, wants};

use flushing::Flushing;
use memory_share::MemoryShare;
use proofs::Proofs;
use tally::Tally;
use waits::WaitRecord;

/// A torrent while its swarm is alive.
pub(super) struct Run<'a> {
    torrent: &'a mut Torrent,
    swarm: Swarm,
    assembly: Assembly,
    source: Arc<StoreSource>,
    // The channels belong to this run alone: answers to an earlier one find them closed.
    inputs: mpsc::Receiver<Input>,
    inputs_tx: net::Inputs,
    steps: mpsc::Receiver<Step>,
    dialed: mpsc::Receiver<DialResult>,
    dialed_tx: mpsc::Sender<DialResult>,
    /// Dials that have not been answered.
    dialing: usize,
    links: HashMap<PeerKey, PeerLink>,
    /// Links with something in their outbox that their send loop was not told of.
    unflushed: Vec<PeerKey>,
    /// A block that was to be cancelled and is being sent already, so that it must not be rejected
    /// too.
    on_its_way: Option<(PeerKey, BlockRef)>,
    flushing: Flushing,
    /// What was sent and not reported yet.
    tally: Tally,
    /// Whether it counts among the torrents that download.
    leeching: bool,
    /// What was last said of memory.
    memory: MemoryShare,
    rates: Rates,
    /// What it waits for.
    waits: WaitRecord,
    /// When the status was last published, and whether it has changed since.
    published: Moment,
    changed: bool,
    asked_for_peers: Moment,
    /// What the announce scheduler was last told.
    told_alone: Option<Alone>,
    /// When the last peer left; `None` while somebody is connected.
    alone_since: Option<Moment>,
    /// Whether somebody was connected.
    had_peers: bool,
    /// How much longer than usual peers may take, as the swarm was told.
    patience: Duration,
    /// Held pieces that are being hashed.
    proofs: Proofs,
    /// Peers that may have found a piece of ours wrong.
    complaints: Box<Complaints>,
    /// Files that may not hold any more what they held.
    doubt: Option<Doubt>,
    /// Why it has to end, once it has to.
    reason: Option<Reason>,
    /// Whether what was verified since the last checkpoint may not be on the disk.
    unsure: bool,
    /// Whether it is ending: nothing is begun any more.
    ending: bool,
}

/// Why a swarm ends.
enum Reason {
    /// There is nothing to do for now.
    Idle,
    /// It was told to stop, or has to be prepared again.
    Stopped,
    /// Files may not hold any more what they held.
    Doubt,
    Fault(TorrentError),
}

/// How a dial ended.
type DialResult = Result<Accepted, DialFailure>;

/// A dial that failed.
struct DialFailure {
    addr: SocketAddr,
    /// Whether a bound of our own prevented it.
    is_prevented: bool,
    /// Whether the peer closed the connection at our handshake.
    hung_up: bool,
}

struct PeerLink {
    link: Link,
    addr: SocketAddr,
    unflushed: bool,
    sent: LastSent,
    /// The method of its encrypted handshake, if there was one.
    encryption: Option<Method>,
    /// A place for a connection, given back with the link.
    place: Place,
}

impl<'a> Run<'a> {
    pub(crate) fn new(torrent: &'a mut Torrent) -> Self {
        let means = Arc::clone(&torrent.means);
        let now = means.now();
        let have = torrent.record().bitfield(&torrent.entry.metainfo);
        let mut proofs = Proofs::new(torrent.record().unproven().cloned());
        let flushing = Flushing::new(torrent, &have, &mut proofs);
        let watch = watch_of(torrent, &have);
        let mut swarm = Swarm::new(config_of(torrent), torrent.geometry, have, means.rng(), now);
        let complaints = torrent.record_mut().rare.change(|rare| rare.complaints.take());
        let complaints = complaints.unwrap_or_default();
        name_known_peers(torrent, &mut swarm, now);
        let (inputs_tx, inputs) = mpsc::channel(INPUTS_WAITING);
        let (steps_tx, steps) = mpsc::channel(STEPS_WAITING);
        let (dialed_tx, dialed) = mpsc::channel(DIALED_WAITING);
        let store = torrent.entry.store();
        let portion = means.memory.portion();
        let hashing = Arc::clone(&means.hashing);
        let metainfo = Arc::clone(&torrent.entry.metainfo);
        let assembly = Assembly::new(torrent.geometry, Arc::clone(&store), steps_tx, portion);
        let arrived = std::mem::take(&mut torrent.arrived);
        let waits = WaitRecord::new(now, torrent.record().rare.waited.as_ref());
        let blame = torrent.record_mut().rare.change(|rare| rare.blame.take());
        if let Some(blame) = blame {
            swarm.set_blame(*blame);
        }
        means.begun.add(torrent.entry.info_hash());
        let mut run = Self {
            torrent,
            swarm,
            assembly,
            source: Arc::new(StoreSource::new(store, hashing, watch, metainfo)),
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
            memory: MemoryShare::default(),
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

    pub(super) fn input(&mut self, input: Input) {
        match input {
            Input::Received { peer, items } => {
                let Some(member) = self.links.get(&peer) else { return };
                let now = self.torrent.means.now();
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
                    let now = self.torrent.means.now();
                    member.sent.note(now, pieces.iter().map(|(piece, ..)| *piece));
                    member.place.used(now);
                }
                self.sent(peer, &pieces);
                self.tell(Event::Uploaded { peer, blocks, bytes });
                self.changed = true;
            }
            Input::Closed { peer, end } => {
                if let Some(member) = self.links.remove(&peer) {
                    debug!(?peer, %end, "a peer is gone");
                    self.left(peer, member.sent);
                    self.tell(Event::Disconnected { peer });
                    self.changed = true;
                }
            }
            Input::Unreadable { peer, error } => match error {
                SourceError::Storage(fault) => self.unreadable(&fault),
                error if self.links.contains_key(&peer) => {
                    self.fail(TorrentError::Unreadable(error));
                }
                _ => {}
            },
        }
    }

    fn step(&mut self, step: Step) {
        let hashing = &self.torrent.means.hashing;
        let Some((piece, finished)) = self.assembly.stepped(hashing, step) else { return };
        let (outcome, error) = match finished {
            PieceResult::Verified { digests } => {
                (PieceOutcome::Verified { digests: digests_of(digests) }, None)
            }
            PieceResult::Corrupt { digests, hash } => {
                let digests = digests_of(digests);
                (PieceOutcome::Corrupt { digests, hash: Sha1Hash(hash) }, None)
            }
            PieceResult::Failed(error) => (PieceOutcome::StorageFailed, Some(error)),
        };
        self.tell(Event::PieceChecked { piece, outcome });
        if let Some(error) = error.filter(|_| !self.ending) {
            self.fail(error.into());
        }
        self.changed = true;
    }

    fn tell(&mut self, event: Event) {
        self.swarm.handle(self.torrent.means.now(), event);
    }

    fn fail(&mut self, error: TorrentError) {
        if !self.ending && self.reason.is_none() {
            self.reason = Some(Reason::Fault(error));
        }
    }

    fn count_leeching(&mut self, leeching: bool) {
        if self.leeching != leeching {
            self.leeching = leeching;
            if self.torrent.means.count_leeching(leeching) == 0 {
                // Nothing will be received now.
                self.torrent.means.pool.clear();
            }
        }
    }

    fn is_leeching(&self) -> bool {
        !self.swarm.is_finished() && !self.torrent.record().upload_only && !self.ending
    }

    fn begin_proofs(&mut self) {
        if self.proofs.is_working() && !self.ending {
            self.proofs.begin(&self.torrent.means.hashing, &self.source.store);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count_leeching(false);
        self.torrent.means.hashing.expect(self.memory.coming, 0);
    }
}

/// Tells a new swarm the addresses that the record has.
fn name_known_peers(torrent: &mut Torrent, swarm: &mut Swarm, now: Moment) {
    let mut known = torrent.record().rare.user.clone();
    known.extend(torrent.record_mut().rare.change(|rare| std::mem::take(&mut rare.lost)));
    for source in PeerSource::ALL {
        let of_source = known.iter().filter(|heard| heard.source == source);
        let addrs: Vec<SocketAddr> = of_source.map(|heard| heard.addr).collect();
        if !addrs.is_empty() {
            swarm.handle(now, Event::Candidates { source, addrs });
        }
    }
}

/// Returns the configuration of the torrent's swarm.
fn config_of(torrent: &Torrent) -> SwarmConfig {
    let means = &torrent.means;
    let mut config = SwarmConfig::new(means.identity.peer_id);
    config.info_hash = Some(torrent.entry.info_hash());
    // Members of a private torrent have its `.torrent` from its tracker, as have those of libtorrent.
    let metainfo = &torrent.entry.metainfo;
    config.is_private = metainfo.info().is_private();
    config.exchange = means.config.peer_exchange;
    config.metadata_size = (!config.is_private).then_some(metainfo.info_len());
    config.listen_port = means.identity.listen_port;
    let bounds = *means.connections.bounds.lock();
    config.choke = bounds.choke;
    config.upload_slots = bounds.upload_slots;
    {
        let options = torrent.entry.options.lock();
        config.max_peers = options.max_peers.unwrap_or(bounds.per_torrent);
        config.sequential = options.sequential;
        config.priorities = Some(wants::of_pieces(&torrent.entry.metainfo, &options.files));
    }
    config.shares = means.config.torrent_shares();
    config.upload_only = torrent.record().upload_only;
    config.memory_blocks = memory_share::blocks(&torrent.geometry, 0);
    config
}

/// Returns the watch over the files that are served.
fn watch_of(torrent: &Torrent, have: &Bitfield) -> Arc<Watch> {
    let record = torrent.record();
    let files = torrent.entry.metainfo.info().files().entries().len();
    let is_written = |file| {
        !record.upload_only
            && record.have.is_some()
            && !doubt::is_whole(&torrent.entry.metainfo, have, file)
    };
    let unfinished = (0..files).map(is_written).collect();
    let kept = record.kept.as_ref().map(KeptCheckpoint::files).unwrap_or_default();
    Arc::new(Watch::new(unfinished, kept))
}

fn digests_of(digests: Vec<[u8; 20]>) -> Vec<BlockDigest> {
    digests.into_iter().map(BlockDigest).collect()
}

/// Batches of received items that may wait. Each has at most 32 KiB of messages and one more: 3 MiB
/// unless the torrent's bitfield is longer than 64 KiB. Requested blocks come on top, and have
/// their room in the memory budget.
const INPUTS_WAITING: usize = 32;
/// Finished pieces and blocks that may wait. The hash threads wait when it is full.
const STEPS_WAITING: usize = 256;
const DIALED_WAITING: usize = 16;
