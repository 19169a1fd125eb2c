//! Makes every decision of one torrent, without I/O: which peers to dial, which blocks to request from
//! whom, whom to serve, what to do with a received block, and who is to blame for a bad piece.
//!
//! ```
//! use piecework_core::{Bitfield, Geometry, Moment, PeerId, Rng};
//! use piecework_swarm::{Action, Event, PeerSource, Swarm, SwarmConfig};
//!
//! let mut rng = Rng::from_seed(1);
//! let config = SwarmConfig::new(PeerId::generate(&mut rng));
//! let geometry = Geometry::new(1 << 20, 1 << 16)?;
//! let have = Bitfield::empty(geometry.pieces());
//! let mut swarm = Swarm::new(config, geometry, have, rng, Moment::START);
//!
//! let addrs = vec!["127.0.0.1:6881".parse()?];
//! swarm.handle(Moment::START, Event::Candidates { source: PeerSource::User, addrs });
//! assert!(matches!(swarm.poll(), Some(Action::Dial { .. })));
//! assert_eq!(swarm.poll(), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A driver owns one [`Swarm`] and pumps it. It passes in what happened with [`Swarm::handle`] and then
//! calls [`Swarm::poll`] until that returns `None`. Then it waits until something happens or
//! [`Swarm::deadline`] passes; for the deadline it passes [`Event::Timeout`]. Payload bytes never come
//! here: the swarm sees descriptions of blocks and ids of buffers.
//!
//! [`Swarm`] itself only dispatches. The modules that decide do not depend on it:
//!
//! | module | decides |
//! |---|---|
//! | `picker` | which block to ask whom for |
//! | `pipeline` | how much a peer should owe us |
//! | `choker`, `super_seeding`, `allowed_fast` | whom to serve, with what |
//! | `trials` | which peer gives a wrong piece once more, alone |
//! | `blame`, `identity` | who sent the wrong block, who may not come back, which connections are one peer's |
//! | `candidates` | which address to dial when |
//! | `exchange` | which peers to name to others, and whom to believe (BEP 11) |
//! | `bottleneck` | what keeps a download from being faster |
//!
//! Pieces may be skipped ([`Event::Wants`]). A swarm is *finished* when it holds everything it wants, and
//! *complete* when it holds everything. To its peers, a finished swarm is a seed that lacks some pieces: it
//! requests nothing, and it closes connections to peers that request nothing either.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

pub mod admission;
pub mod announcer;
pub mod budget;
pub mod lifecycle;
pub mod local_discovery;

mod allowed_fast;
mod blame;
mod bottleneck;
mod candidates;
mod canonical;
mod choker;
mod config;
mod connections;
mod download;
mod event;
mod exchange;
mod identity;
mod messages;
pub mod metadata;
mod metadata_giving;
mod peer;
mod peer_exchange;
mod peer_source;
mod picker;
mod pipeline;
mod rate;
mod super_seeding;
mod timers;
mod trials;
mod upload;
mod view;
mod wants;

#[cfg(test)]
mod tests;

pub use blame::Blame;
pub use bottleneck::{Bottleneck, Cause, DriverState, WaitTimes, hang_ups};
pub use event::{
    Action, BlockDigest, BlockRanges, BufferId, ChokePolicy, Direction, Event, Evidence, Giver,
    PeerFault, PeerIdentity, PeerKey, PieceOutcome, SwarmConfig,
};
pub use peer_source::{HeardAddress, PeerSource};
pub use view::{MemoryNeed, PeerView, PieceStage, Progress};

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::candidates::CandidateList;
use self::choker::{Choker, FormerTurns};
use self::download::Merits;
use self::peer::Peer;
use self::peer_exchange::ExchangePlan;
use self::picker::{Picker, Selection};
use self::super_seeding::SuperSeeding;
use self::timers::Timers;
use self::trials::Trial;
use self::wants::Wants;
use piecework_core::{Bitfield, Geometry, Moment, Rng};
use piecework_proto::wire::Message;

/// The state of one torrent: held pieces, connected peers, and pieces under way.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    geometry: Geometry,
    have: Bitfield,
    wants: Wants,
    peers: BTreeMap<PeerKey, Peer>,
    timers: Timers,
    picker: Picker,
    choker: Choker,
    /// When to take slots back from peers that request nothing.
    idle_check: Option<Moment>,
    former_turns: FormerTurns,
    super_seeding: SuperSeeding,
    blame: Blame,
    candidates: CandidateList,
    exchange: ExchangePlan,
    /// No peer is dialled before this.
    dial_from: Moment,
    /// When the peer that gives least makes way for an address that was never tried.
    explore_at: Option<Moment>,
    /// When delayed HAVE messages are sent even without another message to send them with.
    flush_at: Option<Moment>,
    /// How many peers have made way in this manner.
    explored: u32,
    rng: Rng,
    actions: VecDeque<Action>,
    now: Moment,
    paused: bool,
    totals: Totals,
    /// No timer is due before this. There may be no timer at all.
    wake: Option<Moment>,
    /// `wake` must be recomputed.
    wake_is_stale: bool,
    /// There may be a free slot and a peer that wants it.
    slot_is_free: bool,
    /// Among peers that never had a slot, the one that came last is next.
    last_comes_next: bool,
    /// When to look for blocks that have been owed for too long, to request them from other peers.
    retry: Option<Moment>,
    /// When the swarm last looked for such blocks.
    retried_at: Moment,
    /// The value of the picker's supply up to which all peers have been offered blocks.
    offered: u64,
    /// Counts up, so that the same peer is not always offered something first.
    turn: u64,
    /// By how much the time-outs are extended.
    patience: Duration,
    /// The total time during which blocks have been arriving.
    flow: Duration,
    /// When the last block arrived.
    block_at: Moment,
    /// When a peer was last dropped because other peers waited for its place.
    place_freed_at: Option<Moment>,
    /// Pieces that failed their hash check, each with the one peer that is to give all of it.
    trials: Vec<Trial>,
    /// No peer is assigned such a piece before this.
    trials_from: Moment,
    // Kept only to reuse their memory.
    selection: Selection,
    keys: Vec<PeerKey>,
    eager: Vec<(Merits, PeerKey)>,
    /// Parting peers of which a request was answered or dropped. Peers with no requests left are
    /// disconnected before the event ends.
    to_part: Vec<PeerKey>,
}

/// Sums since the swarm was created.
#[derive(Debug, Default)]
struct Totals {
    downloaded: u64,
    uploaded: u64,
    wasted: u64,
    verified: u64,
}

impl Swarm {
    /// Creates a swarm that holds `have` and knows no peers. All randomness comes from `rng`, all time from
    /// the moments passed to [`Swarm::handle`].
    ///
    /// # Panics
    /// If `have` does not have one bit for each piece of `geometry`, or the configuration does not have one
    /// priority for each piece.
    pub fn new(
        mut config: SwarmConfig,
        geometry: Geometry,
        have: Bitfield,
        mut rng: Rng,
        now: Moment,
    ) -> Self {
        assert_eq!(have.len(), geometry.pieces(), "the bitfield is of another torrent");
        let verified = have.iter().map(|piece| u64::from(geometry.piece_size(piece))).sum();
        let wants = Wants::new(config.priorities.take().unwrap_or_default(), &geometry, &have);
        let priorities = wants.priorities().clone();
        let mut picker = Picker::new(geometry, &have, priorities, config.memory_blocks, &mut rng);
        picker.set_sequential(config.sequential);
        Self {
            choker: Choker::new(config.choke, config.upload_slots),
            idle_check: None,
            former_turns: FormerTurns::default(),
            super_seeding: SuperSeeding::new(geometry.pieces()),
            blame: Blame::default(),
            candidates: CandidateList::default(),
            exchange: ExchangePlan::default(),
            dial_from: now,
            explore_at: None,
            flush_at: None,
            explored: 0,
            config,
            geometry,
            have,
            wants,
            peers: BTreeMap::new(),
            timers: Timers::default(),
            offered: picker.supply(),
            picker,
            rng,
            actions: VecDeque::new(),
            now,
            paused: false,
            totals: Totals { verified, ..Totals::default() },
            wake: None,
            wake_is_stale: false,
            slot_is_free: false,
            last_comes_next: false,
            retry: None,
            retried_at: Moment::START,
            turn: 0,
            selection: Selection::default(),
            trials: Vec::new(),
            trials_from: now,
            keys: Vec::new(),
            eager: Vec::new(),
            to_part: Vec::new(),
            patience: Duration::ZERO,
            flow: Duration::ZERO,
            block_at: now,
            place_freed_at: None,
        }
    }

    /// Handles an event that happened at `now`. Call [`Swarm::poll`] afterwards for the resulting actions.
    pub fn handle(&mut self, now: Moment, event: Event) {
        let now = now.max(self.now);
        self.now = now;
        match event {
            Event::Candidates { source, addrs } => self.on_candidates(source, &addrs),
            Event::DialFailed { addr, hung_up } => self.on_dial_failed(addr, hung_up),
            Event::DialPrevented { addr } => self.on_dial_prevented(addr),
            Event::Connected { peer, addr, id, direction, fast, extended } => {
                self.on_connected(peer, addr, id, direction, fast, extended);
            }
            Event::Disconnected { peer } => self.on_disconnected(peer),
            Event::Message { peer, message } => self.on_message(peer, message),
            Event::Block { peer, block, buffer } => self.on_block(peer, block, buffer),
            Event::Unasked { peer, block } => self.on_unasked(peer, block),
            Event::PieceChecked { piece, outcome } => self.on_piece_checked(piece, outcome),
            Event::Uploaded { peer, blocks, bytes } => self.on_uploaded(peer, blocks, bytes),
            Event::Pause => self.on_pause(),
            Event::Resume => self.on_resume(),
            Event::MemoryBudget { blocks } => self.picker.set_budget(blocks),
            Event::Wants { priorities } => self.on_wants(priorities),
            Event::Order { sequential } => self.on_order(sequential),
            Event::Limits { max_peers, upload_slots } => self.on_limits(max_peers, upload_slots),
            Event::Patience { extra } => self.on_patience(extra),
            Event::Timeout => {}
        }
        if self.wake.is_some_and(|wake| wake <= now) {
            self.run_timers();
        }
        while self.slot_is_free || !self.to_part.is_empty() {
            if self.slot_is_free {
                self.fill_slots();
            }
            if let Some(key) = self.to_part.pop() {
                self.part_if_both_complete(key);
            }
        }
        self.offer_all();
        if self.wake_is_stale {
            self.update_wake();
        }
    }

    /// Returns the next action, or `None` if there is nothing left to do for now.
    pub fn poll(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() && self.peers.is_empty() {
            self.rest();
        }
        action
    }

    /// Returns when to pass [`Event::Timeout`] if nothing else happens. There may turn out to be nothing to
    /// do then. `None` means that the passing of time changes nothing.
    pub fn deadline(&self) -> Option<Moment> {
        self.wake
    }

    fn run_timers(&mut self) {
        let now = self.now;
        let idle = self.config.idle_timeout;
        self.keys.clear();
        while let Some(key) = self.timers.pop_due(now) {
            self.keys.push(key);
        }
        let owes = |key: &PeerKey| self.peers.get(key).is_some_and(|p| p.pipeline.owed() > 0);
        let hurry = self.keys.iter().any(owes)
            && (self.are_places_wanted() || self.peers.values().any(|peer| peer.waits(now)));
        for at in 0..self.keys.len() {
            let key = self.keys[at];
            if self.peers.get(&key).is_some_and(|peer| peer.deadline(idle) <= now) {
                self.check_on(key, hurry);
            }
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.due = peer.deadline(idle);
                self.timers.insert(peer.due, key);
            }
        }
        if self.choker.next_round().is_some_and(|round| round <= now) {
            self.hold_round();
        }
        if self.idle_check.is_some_and(|check| check <= now) {
            self.slot_is_free = true;
        }
        if self.explore_at.is_some_and(|at| at <= now) {
            self.explore();
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if self.exchange.at.is_some_and(|at| at <= now) {
            self.exchange();
        }
        if self.retry.is_some_and(|retry| retry <= now) {
            self.retry = None;
            self.retried_at = now;
            self.picker.nudge();
        }
        self.dial();
        self.wake_is_stale = true;
    }

    /// Handles a peer's timer. `hurry` means that other peers wait for the blocks it was asked for, or for
    /// its place.
    fn check_on(&mut self, key: PeerKey, hurry: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.heard_at + self.config.idle_timeout <= now {
            return self.drop_peer(key, PeerFault::Idle);
        }
        if peer.told_at + peer::KEEP_ALIVE <= now {
            self.send(key, Message::KeepAlive);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.parting.is_some_and(|until| until <= now) {
            self.part_if_both_complete(key);
        }
        self.check_requests(key, hurry);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.pipeline.end_hold(now) {
            self.offer(key);
        }
    }

    /// Releases memory that was used for peers. No peer is connected, and there may be thousands of
    /// torrents like this.
    fn rest(&mut self) {
        self.peers = BTreeMap::new();
        self.actions = VecDeque::new();
        self.selection = Selection::default();
        self.keys = Vec::new();
        self.former_turns.clear();
        self.exchange = ExchangePlan::default();
        self.eager = Vec::new();
        self.trials = Vec::new();
        self.to_part = Vec::new();
        self.picker.rest();
    }

    fn send(&mut self, key: PeerKey, message: Message) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.told_at = self.now;
            self.actions.push_back(Action::Send { peer: key, message });
        }
    }

    /// Sets a timer for `at`, which may be earlier than all others.
    fn arm(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Moves a peer's timer forward if it is due earlier than before.
    fn arm_peer(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let due = peer.deadline(self.config.idle_timeout);
        if due < peer.due {
            self.timers.remove(peer.due, key);
            self.timers.insert(due, key);
            peer.due = due;
            self.arm(due);
        }
    }

    fn update_wake(&mut self) {
        self.wake_is_stale = false;
        let peers = self.timers.next();
        let dial =
            if self.may_dial() { self.candidates.next_due(self.is_upload_only()) } else { None };
        let dial = dial.map(|due| due.max(self.dial_from));
        let alone = self.peers.is_empty();
        let retry = self.retry.filter(|_| !alone);
        let round = self.choker.next_round().filter(|_| !alone);
        let idle = self.idle_check.filter(|_| !alone);
        let explore = self.explore_at.filter(|_| !alone);
        let flush = self.flush_at.filter(|_| !alone);
        let exchange = self.exchange.at.filter(|_| !alone);
        let wakes = [peers, retry, dial, round, idle, explore, flush, exchange];
        self.wake = wakes.into_iter().flatten().min();
    }
}
