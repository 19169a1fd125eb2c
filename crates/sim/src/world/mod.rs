//! All peers, the tracker, and the clock.

mod actions;
mod links;
mod results;
mod tracker;
mod uplinks;

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use piecework_core::{BLOCK_LEN, Bitfield, Geometry, InfoHash, Moment, PeerId, PieceIndex, Rng};
use piecework_proto::announce::{AnnounceEvent, TrackerUrl};
use piecework_registry::{Refusal, Registry, RegistryConfig};
use piecework_swarm::announcer::{Announcer, TierPolicy};
use piecework_swarm::{Event, PieceOutcome, Swarm, SwarmConfig};

use self::uplinks::UplinkSamples;
use crate::connection::{Connection, Flow};
use crate::events::EventQueue;
use crate::line::Line;
use crate::node::{Node, Presence};
use crate::oracle::{Failure, Violation};
use crate::scenario::{Addresses, Content, PeerGroup, Scenario, ScenarioError};

/// A network at a moment of virtual time.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    seed: u64,
    geometry: Geometry,
    now: Moment,
    events: EventQueue<SimEvent>,
    /// Events that swarms must be told before time goes on.
    to_tell: VecDeque<(usize, Event)>,
    nodes: Vec<Node>,
    by_addr: BTreeMap<SocketAddr, usize>,
    by_id: BTreeMap<PeerId, usize>,
    connections: Vec<Option<Box<Connection>>>,
    tracker: Tracker,
    rng: Rng,
    /// The number of leechers that have not completed.
    unfinished: usize,
    bytes_held: u64,
    /// The pieces that some leecher holds or has held.
    given: Bitfield,
    /// When that was all of them.
    all_given_at: Option<Moment>,
    uplinks: UplinkSamples,
    handled: u64,
    check_each: Option<u64>,
    wrong_blocks: u64,
    log: Option<String>,
    failure: Option<Failure>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// More events will follow.
    Running,
    /// Every leecher that is present holds everything.
    Complete,
    /// The scenario's time is over, or there are no more events.
    Ended,
}

#[derive(Debug)]
enum SimEvent {
    Joins(usize),
    Leaves(usize),
    /// A peer dials an address.
    Dialled {
        by: usize,
        addr: SocketAddr,
    },
    /// The uplink of a peer has sent its block.
    Sent(usize),
    /// A transmission of this side arrives.
    Arrives(Flow),
    Wakes(usize),
    Checked {
        node: usize,
        piece: PieceIndex,
        blocks: u32,
        outcome: Box<PieceOutcome>,
    },
    /// A peer's announcer has something to do.
    Announces(usize),
    /// An announce reaches the tracker.
    Asks {
        node: usize,
        event: AnnounceEvent,
    },
    /// The answer to an announce reaches the peer.
    Answered {
        node: usize,
        answer: Result<Vec<SocketAddr>, Refusal>,
    },
}

#[derive(Debug)]
struct Tracker {
    registry: Box<OpaqueRegistry>,
    url: TrackerUrl,
    rng: Rng,
}

/// A [`Registry`], which has no debug form.
struct OpaqueRegistry(Registry);

impl std::fmt::Debug for OpaqueRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.0.stats()).finish()
    }
}

impl World {
    /// Builds the network of `scenario`. All randomness comes from `seed`.
    ///
    /// # Errors
    /// If a value of the scenario is invalid.
    pub fn new(scenario: &Scenario, seed: u64) -> Result<Self, ScenarioError> {
        scenario.check()?;
        let key = "size";
        let no_geometry = ScenarioError::Value { key, what: "must be at most 2^31 pieces" };
        let geometry = scenario.geometry().ok_or(no_geometry)?;
        let no_url = ScenarioError::Value { key: "tracker", what: "has no URL" };
        let url = TrackerUrl::parse(TRACKER).map_err(|_| no_url)?;
        let mut rng = Rng::from_seed(seed);
        let registry = Registry::new(RegistryConfig::default(), seed);
        let tracker =
            Tracker { registry: Box::new(OpaqueRegistry(registry)), url, rng: rng.fork() };
        let mut world = Self {
            scenario: scenario.clone(),
            seed,
            geometry,
            now: START,
            events: EventQueue::new(),
            to_tell: VecDeque::new(),
            nodes: Vec::new(),
            by_addr: BTreeMap::new(),
            by_id: BTreeMap::new(),
            connections: Vec::new(),
            tracker,
            rng,
            unfinished: 0,
            bytes_held: 0,
            given: Bitfield::empty(geometry.pieces()),
            all_given_at: None,
            uplinks: UplinkSamples::new(SAMPLE_EACH),
            handled: 0,
            check_each: None,
            wrong_blocks: 0,
            log: None,
            failure: None,
        };
        for (number, group) in scenario.peers.iter().enumerate() {
            for _ in 0..group.count {
                world.add_node(number, group);
            }
        }
        if let Some(bound) = world.bound() {
            let each = Duration::from_secs_f64(bound / SAMPLES).max(LEAST_SAMPLE);
            world.uplinks = UplinkSamples::new(each);
        }
        Ok(world)
    }

    /// Records a line for each action of a peer, for [`World::take_log`].
    pub fn keep_log(&mut self) {
        self.log = Some(String::new());
    }

    /// Returns the recorded lines since the last call.
    pub fn take_log(&mut self) -> String {
        self.log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Has every swarm check its invariants after each `events`th event. That looks at every piece and
    /// peer, which takes much longer than the event.
    pub fn check_each(&mut self, events: u64) {
        self.check_each = Some(events.max(1));
    }

    /// Returns the virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now.since(START)
    }

    /// Returns how many events peers have been told so far.
    pub fn events(&self) -> u64 {
        self.handled
    }

    /// Returns how many leechers hold everything, and how many there are.
    pub fn completed(&self) -> (usize, usize) {
        let leechers = self.leechers().count();
        (leechers - self.unfinished, leechers)
    }

    /// Returns how many verified bytes leechers hold, and how many they will hold in the end.
    pub fn bytes_held(&self) -> (u64, u64) {
        let leechers = self.leechers().count() as u64;
        (self.bytes_held, leechers * self.geometry.total_len())
    }

    /// Lets time pass until `until` after the start, or until every leecher holds everything.
    ///
    /// # Errors
    /// If something happens that must not happen.
    ///
    /// # Panics
    /// If the state of a swarm is inconsistent ([`World::check_each`]).
    pub fn run_until(&mut self, until: Duration) -> Result<RunOutcome, Failure> {
        let limit = START + self.scenario.limit;
        let until = (START + until).min(limit);
        while self.unfinished > 0 {
            let Some((at, happening)) = self.events.pop_until(until) else {
                let is_over = until >= limit || self.events.is_empty();
                self.now = until;
                return if is_over { self.judge_end() } else { Ok(RunOutcome::Running) };
            };
            self.sample_uplinks(at.since(START));
            self.now = at;
            self.happen(happening);
            while let Some((node, event)) = self.to_tell.pop_front() {
                self.tell(node, event);
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        Ok(RunOutcome::Complete)
    }

    fn happen(&mut self, happening: SimEvent) {
        match happening {
            SimEvent::Joins(node) => self.join(node),
            SimEvent::Leaves(node) => self.leave(node),
            SimEvent::Dialled { by, addr } => self.connect(by, addr),
            SimEvent::Sent(node) => self.block_sent(node),
            SimEvent::Arrives(flow) => self.arrive(flow),
            SimEvent::Wakes(node) => self.wake(node),
            SimEvent::Checked { node, piece, blocks, outcome } => {
                self.nodes[node].blocks_in_memory -= blocks;
                if matches!(*outcome, PieceOutcome::Verified { .. }) {
                    self.nodes[node].right.insert(piece);
                    self.bytes_held += u64::from(self.geometry.piece_size(piece));
                    if self.given.insert(piece) && self.given.is_full() {
                        self.all_given_at = Some(self.now);
                    }
                }
                self.tell(node, Event::PieceChecked { piece, outcome: *outcome });
            }
            SimEvent::Announces(node) => {
                if self.nodes[node].announces_at == Some(self.now) {
                    self.nodes[node].announces_at = None;
                    self.announce(node);
                }
            }
            SimEvent::Asks { node, event } => self.ask_tracker(node, event),
            SimEvent::Answered { node, answer } => self.answered(node, answer),
        }
    }

    /// Passes an event to a swarm and carries out its actions.
    fn tell(&mut self, at: usize, event: Event) {
        if !self.nodes[at].is_here() {
            return;
        }
        self.handled += 1;
        self.nodes[at].swarm.handle(self.now, event);
        if self.check_each.is_some_and(|each| self.handled.is_multiple_of(each)) {
            self.nodes[at].swarm.check_invariants();
        }
        while let Some(action) = self.nodes[at].swarm.poll() {
            if let Some(log) = &mut self.log {
                let at_nanos = self.now.since(START).as_nanos();
                // Writing to a string does not fail.
                let _ = writeln!(log, "{at_nanos} {at} {action:?}");
            }
            self.act(at, action);
        }
        self.arm(at);
    }

    fn arm(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(deadline) = node.swarm.deadline() else { return };
        let deadline = deadline.max(self.now);
        if node.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            node.wakes_at = Some(deadline);
            self.events.push(deadline, SimEvent::Wakes(at));
        }
    }

    fn wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        // Another wake was scheduled since.
        if node.wakes_at != Some(self.now) {
            return;
        }
        node.wakes_at = None;
        match node.swarm.deadline() {
            Some(deadline) if deadline <= self.now => self.tell(at, Event::Timeout),
            _ => self.arm(at),
        }
    }

    fn join(&mut self, at: usize) {
        self.nodes[at].state = Presence::Here;
        self.announce(at);
    }

    fn leave(&mut self, at: usize) {
        if !self.nodes[at].is_here() {
            return;
        }
        for key in 0..self.nodes[at].connections.len() {
            self.close(at, piecework_swarm::PeerKey(u32::saturating_from(key)));
        }
        let node = &mut self.nodes[at];
        node.state = Presence::Gone;
        node.left_at = Some(self.now);
        node.turns.clear();
        let asks = SimEvent::Asks { node: at, event: AnnounceEvent::Stopped };
        self.events.push(self.now + self.scenario.tracker_delay, asks);
    }

    fn add_node(&mut self, number: usize, group: &PeerGroup) {
        let at = self.nodes.len();
        let mut rng = self.rng.fork();
        let id = PeerId::generate(&mut rng);
        let addr = SocketAddr::new(address(self.scenario.addresses, at), PORT);
        let pieces = self.geometry.pieces();
        let is_seed = group.content == Content::Everything;
        let have = if is_seed { Bitfield::full(pieces) } else { Bitfield::empty(pieces) };
        let mut config = SwarmConfig::new(id);
        config.info_hash = Some(INFO_HASH);
        config.listen_port = Some(PORT);
        config.choke = self.scenario.choke.into();
        config.upload_slots = group.upload_slots;
        config.max_peers = group.max_peers;
        config.memory_blocks =
            u32::try_from(group.memory / u64::from(BLOCK_LEN)).unwrap_or(u32::MAX);
        let within = u64::try_from(group.arrive_within.as_nanos()).unwrap_or(u64::MAX);
        let arrives_at = START + group.arrive + Duration::from_nanos(self.rng.below(within));
        let swarm = Swarm::new(config, self.geometry, have.clone(), rng.fork(), arrives_at);
        let tiers = vec![vec![self.tracker.url.clone()]];
        self.nodes.push(Node {
            group: number,
            addr,
            id,
            swarm,
            announcer: Announcer::new(tiers, TierPolicy::All, rng.fork()),
            rng,
            state: Presence::Absent,
            up: Line::new(group.up),
            down: Line::new(group.down),
            delay: group.delay,
            turns: VecDeque::new(),
            sending: None,
            connections: Vec::new(),
            arrived: None,
            assemblies: BTreeMap::new(),
            blocks_in_memory: 0,
            right: have,
            wakes_at: None,
            announces_at: None,
            arrives_at,
            completed_at: is_seed.then_some(arrives_at),
            left_at: None,
            bytes_sent: 0,
            wrong_blocks_sent: 0,
            banned: Default::default(),
        });
        self.by_addr.insert(addr, at);
        self.by_id.insert(id, at);
        self.unfinished += usize::from(!is_seed);
        self.events.push(arrives_at, SimEvent::Joins(at));
    }

    fn violated(&mut self, at: usize, violation: Violation) {
        let (seed, at_time, peer) = (self.seed, self.elapsed(), self.name_of(at));
        self.failure.get_or_insert(Failure { seed, at: at_time, peer, violation });
    }

    /// Returns the name of a peer: the name of its group and its number there.
    fn name_of(&self, at: usize) -> String {
        let group = self.nodes[at].group;
        let first = self.nodes.iter().position(|node| node.group == group).unwrap_or(0);
        format!("{} {}", self.scenario.peers[group].name, at - first + 1)
    }

    fn leechers(&self) -> impl Iterator<Item = (usize, &Node)> {
        let lacks = |node: &Node| self.scenario.peers[node.group].content == Content::Nothing;
        self.nodes.iter().enumerate().filter(move |(_, node)| lacks(node))
    }
}

/// Returns the address of the peer with that number.
fn address(addresses: Addresses, number: usize) -> IpAddr {
    let number = u32::saturating_from(number);
    let low = match addresses {
        Addresses::Lan => ((number / LAN) << 8) + number % LAN + 1,
        Addresses::Scattered => (number << 8) + 1,
    };
    Ipv4Addr::from((10 << 24) + low).into()
}

/// How many peers are in each /24 of a local network.
const LAN: u32 = 250;

/// When a run begins: late enough that earlier moments exist.
const START: Moment = Moment::from_secs(1_000);

/// How often the uplinks are looked at without a bound.
const SAMPLE_EACH: Duration = Duration::from_millis(100);

/// How often they are looked at within the least possible time.
const SAMPLES: f64 = 200.0;

const LEAST_SAMPLE: Duration = Duration::from_millis(1);

const PORT: u16 = 6881;
const INFO_HASH: InfoHash = InfoHash([0x5a; 20]);
const TRACKER: &str = "udp://10.255.255.254:6969";
