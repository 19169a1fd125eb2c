//! Swarms connected to each other by queues, in virtual time. Everything follows from a seed, and a failure
//! names it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::liars::{Liar, Lie};
use super::*;
use piecework_core::Priority;

/// The world: nodes, messages on their way between them, and a clock.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    pending: BTreeMap<u64, (usize, NetworkEvent)>,
    next: u64,
    pub(super) now: Moment,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    geometry: Geometry,
    pub(super) events: u64,
    check_each: u64,
}

#[derive(Debug)]
pub(super) enum NetworkEvent {
    Dialled {
        by: usize,
        addr: SocketAddr,
    },
    Swarm(Event),
    /// For the connection `key` if it still exists.
    Arrives {
        key: PeerKey,
        event: Event,
    },
    Data {
        key: PeerKey,
        block: BlockRef,
        right: bool,
    },
    SendNext,
    Pause,
    Resume,
    Wake,
    /// It is a liar's turn to do something on this connection.
    Lie {
        key: PeerKey,
    },
}

pub(super) struct Node {
    pub(super) swarm: Swarm,
    pub(super) addr: SocketAddr,
    pub(super) id: PeerId,
    pub(super) fast: bool,
    /// Set if a liar decides in place of the swarm.
    pub(super) liar: Option<Liar>,
    pub(super) links: BTreeMap<PeerKey, Link>,
    next_key: u32,
    next_buffer: u64,
    buffers: BTreeMap<BufferId, Block>,
    assembly: BTreeMap<PieceIndex, BTreeMap<u32, Block>>,
    uplink: VecDeque<(PeerKey, BlockRef)>,
    is_sending: bool,
    pub(super) block_time: Duration,
    /// How many of a hundred blocks it sends are wrong.
    pub(super) wrong: u64,
    pub(super) sent: u64,
    /// How many requests and cancels it received.
    pub(super) asked: u64,
    pub(super) cancelled: u64,
    wakes_at: Option<Moment>,
    finished: u32,
    completed: u32,
    done: BTreeSet<PieceIndex>,
    pub(super) banned: BTreeSet<PeerId>,
    /// The peers that gave it wrong blocks which were kept.
    pub(super) guilty: BTreeSet<PeerId>,
    /// How many blocks each peer gave.
    given: BTreeMap<PeerId, u32>,
}

/// What is known about a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    name: BlockRef,
    right: bool,
    from: PeerId,
}

pub(super) struct Link {
    pub(super) other: usize,
    other_key: PeerKey,
    /// Later messages do not overtake earlier ones.
    last_arrival: Moment,
    latency: Duration,
}

/// How often things go wrong, for each thousand events.
#[derive(Clone, Copy, Default)]
pub(super) struct Plan {
    disconnects: u64,
    pauses: u64,
    storage_failures: u64,
    /// Other priorities and another order, for two seconds.
    whims: u64,
}

pub(super) struct Setup {
    pub(super) seeds: usize,
    pub(super) leechers: usize,
    pub(super) pieces: u32,
    pub(super) blocks: u32,
    pub(super) choke: ChokePolicy,
    pub(super) plan: Plan,
    /// More seeds, each with how many of a hundred blocks are wrong.
    pub(super) bad_seeds: usize,
    pub(super) wrong: u64,
    pub(super) memory_blocks: u32,
    pub(super) everybody_fast: bool,
    /// In milliseconds.
    pub(super) announce_within: u64,
    /// More peers that claim to hold everything.
    pub(super) liars: Vec<Lie>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seeds: 1,
            leechers: 4,
            pieces: 24,
            blocks: 4,
            choke: ChokePolicy::TitForTat,
            plan: Plan::default(),
            bad_seeds: 0,
            wrong: 0,
            memory_blocks: 4096,
            everybody_fast: false,
            announce_within: 2_000,
            liars: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, setup: &Setup) -> Self {
        let mut rng = Rng::from_seed(seed);
        let piece_len = setup.blocks * BLOCK_LEN;
        let total = u64::from(setup.pieces) * u64::from(piece_len) - 5_000;
        let geometry = Geometry::new(total, piece_len).unwrap();
        let now = Moment::START + Duration::from_secs(60);
        let honest = setup.seeds + setup.bad_seeds + setup.leechers;
        let count = honest + setup.liars.len();
        let nodes = (0..count)
            .map(|n| {
                let is_seed = n < setup.seeds + setup.bad_seeds;
                let is_bad = is_seed && n >= setup.seeds;
                let id = PeerId([n as u8 + 1; 20]);
                let addr: SocketAddr = format!("10.1.{n}.1:6881").parse().unwrap();
                let mut config = SwarmConfig::new(id);
                config.choke = setup.choke;
                config.memory_blocks = setup.memory_blocks;
                config.info_hash = Some(piecework_core::InfoHash([3; 20]));
                config.listen_port = Some(6881);
                config.upload_slots = 3;
                let liar = n.checked_sub(honest).map(|n| Liar::new(setup.liars[n]));
                let have = if is_seed || liar.is_some() {
                    Bitfield::full(geometry.pieces())
                } else {
                    Bitfield::empty(geometry.pieces())
                };
                Node {
                    swarm: Swarm::new(config, geometry, have, rng.fork(), now),
                    addr,
                    id,
                    fast: setup.everybody_fast || rng.below(3) > 0,
                    liar,
                    links: BTreeMap::new(),
                    next_key: 0,
                    next_buffer: 0,
                    buffers: BTreeMap::new(),
                    assembly: BTreeMap::new(),
                    uplink: VecDeque::new(),
                    is_sending: false,
                    block_time: Duration::from_micros(1_000 + rng.below(4_000)),
                    wrong: if is_bad { setup.wrong } else { 0 },
                    sent: 0,
                    asked: 0,
                    cancelled: 0,
                    wakes_at: None,
                    finished: 0,
                    completed: 0,
                    done: BTreeSet::new(),
                    banned: BTreeSet::new(),
                    guilty: BTreeSet::new(),
                    given: BTreeMap::new(),
                }
            })
            .collect();
        let mut world = Self {
            nodes,
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            next: 0,
            now,
            rng,
            plan: setup.plan,
            geometry,
            events: 0,
            check_each: 7 + setup.liars.len() as u64,
        };
        // A tracker tells every peer the addresses of all, including its own.
        let addrs: Vec<SocketAddr> = world.nodes.iter().map(|node| node.addr).collect();
        for node in 0..count {
            let at = world.now + Duration::from_millis(world.rng.below(setup.announce_within));
            let addrs = addrs.clone();
            let event = Event::Candidates { source: PeerSource::Tracker, addrs };
            world.schedule(at, node, NetworkEvent::Swarm(event));
        }
        world
    }

    pub(super) fn schedule(&mut self, at: Moment, node: usize, happening: NetworkEvent) {
        self.queue.push(Reverse((at, self.next)));
        self.pending.insert(self.next, (node, happening));
        self.next += 1;
    }

    /// Runs until all leechers hold everything, or `limit` of virtual time is over.
    pub(super) fn run(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                self.now = end;
                return false;
            }
            self.queue.pop();
            self.now = at;
            let (node, happening) = self.pending.remove(&number).unwrap();
            self.happen(node, happening);
            if self.nodes.iter().all(|node| node.swarm.is_complete()) {
                return true;
            }
        }
        false
    }

    /// Lets time pass whether or not all are complete.
    fn run_on(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, number))) = self.queue.peek().copied().filter(|e| e.0.0 <= end)
        {
            self.queue.pop();
            self.now = at;
            let (node, happening) = self.pending.remove(&number).unwrap();
            self.happen(node, happening);
        }
        self.now = end;
    }

    fn happen(&mut self, at: usize, happening: NetworkEvent) {
        match happening {
            NetworkEvent::Dialled { by, addr } => self.connect(by, at, addr),
            NetworkEvent::Swarm(event) => self.tell(at, event),
            NetworkEvent::Arrives { key, event } => {
                if self.nodes[at].links.contains_key(&key) {
                    if matches!(event, Event::Disconnected { .. }) {
                        self.unlink(at, key);
                    }
                    self.tell(at, event);
                }
            }
            NetworkEvent::Data { key, block, right } => {
                if let Some(link) = self.nodes[at].links.get(&key) {
                    let from = self.nodes[link.other].id;
                    let node = &mut self.nodes[at];
                    let buffer = BufferId(node.next_buffer);
                    node.next_buffer += 1;
                    node.buffers.insert(buffer, Block { name: block, right, from });
                    self.tell(at, Event::Block { peer: key, block, buffer });
                    assert!(!self.nodes[at].buffers.contains_key(&buffer), "a block was forgotten");
                }
            }
            NetworkEvent::SendNext => self.send_next(at),
            NetworkEvent::Pause => {
                self.tell(at, Event::Pause);
                self.schedule(self.now + Duration::from_secs(3), at, NetworkEvent::Resume);
            }
            NetworkEvent::Resume => self.tell(at, Event::Resume),
            NetworkEvent::Wake => {
                self.nodes[at].wakes_at = None;
                self.tell(at, Event::Timeout);
            }
            NetworkEvent::Lie { key } => self.go_on_lying(at, key),
        }
        self.misfortune(at);
    }

    fn misfortune(&mut self, at: usize) {
        if self.rng.below(1_000) < self.plan.disconnects {
            let keys: Vec<PeerKey> = self.nodes[at].links.keys().copied().collect();
            if let Some(key) = self.rng.choose(&keys).copied() {
                self.close(at, key);
                self.tell(at, Event::Disconnected { peer: key });
            }
        }
        if self.rng.below(1_000) < self.plan.pauses {
            self.schedule(self.now, at, NetworkEvent::Pause);
        }
        if self.rng.below(1_000) < self.plan.whims {
            self.whim(at);
        }
    }

    fn whim(&mut self, at: usize) {
        let pieces = self.geometry.pieces();
        let priorities = (0..pieces).map(|_| match self.rng.below(4) {
            0 | 1 => Priority::Skip,
            2 => Priority::Low,
            _ => Priority::High,
        });
        let priorities = priorities.collect();
        let sequential = self.rng.below(2) == 0;
        self.tell(at, Event::Wants { priorities });
        self.tell(at, Event::Order { sequential });
        let all = Event::Wants { priorities: [].into() };
        self.schedule(self.now + Duration::from_secs(2), at, NetworkEvent::Swarm(all));
    }

    fn connect(&mut self, by: usize, to: usize, addr: SocketAddr) {
        let latency = Duration::from_micros(200 + self.rng.below(30_000));
        let fast = self.nodes[by].fast && self.nodes[to].fast;
        let (by_key, to_key) = (self.new_key(by), self.new_key(to));
        let link =
            |other, other_key| Link { other, other_key, last_arrival: Moment::START, latency };
        self.nodes[by].links.insert(by_key, link(to, to_key));
        self.nodes[to].links.insert(to_key, link(by, by_key));
        let from = SocketAddr::new(self.nodes[by].addr.ip(), 50_000 + (by_key.0 % 15_000) as u16);
        let connected = |peer, addr, id, direction| Event::Connected {
            peer,
            addr,
            id,
            direction,
            fast,
            extended: true,
        };
        let (by_id, to_id) = (self.nodes[by].id, self.nodes[to].id);
        self.tell(by, connected(by_key, addr, to_id, Direction::Outgoing));
        if self.nodes[to].links.contains_key(&to_key) {
            self.tell(to, connected(to_key, from, by_id, Direction::Incoming));
        }
    }

    fn new_key(&mut self, at: usize) -> PeerKey {
        let key = PeerKey(self.nodes[at].next_key);
        self.nodes[at].next_key += 1;
        key
    }

    pub(super) fn tell(&mut self, at: usize, event: Event) {
        self.events += 1;
        match &event {
            Event::Message { message: Message::Request(_), .. } => self.nodes[at].asked += 1,
            Event::Message { message: Message::Cancel(_), .. } => self.nodes[at].cancelled += 1,
            _ => {}
        }
        if self.nodes[at].liar.is_some() {
            return self.lie(at, event);
        }
        self.nodes[at].swarm.handle(self.now, event);
        // It looks at everything, which takes longer than the event.
        if self.events.is_multiple_of(self.check_each) {
            self.nodes[at].swarm.check_invariants();
        }
        while let Some(action) = self.nodes[at].swarm.poll() {
            self.act(at, action);
        }
        let node = &mut self.nodes[at];
        if let Some(deadline) = node.swarm.deadline() {
            let deadline = deadline.max(self.now);
            if node.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
                node.wakes_at = Some(deadline);
                self.schedule(deadline, at, NetworkEvent::Wake);
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Dial { addr } => {
                let to = self.nodes.iter().position(|node| node.addr == addr).unwrap();
                let latency = Duration::from_millis(1 + self.rng.below(50));
                self.schedule(self.now + latency, to, NetworkEvent::Dialled { by: at, addr });
            }
            Action::Disconnect { peer, .. } => self.close(at, peer),
            Action::Flush { .. } | Action::GiveMetadata { .. } => {}
            Action::Send { peer, message } | Action::SendLater { peer, message } => {
                self.transmit(at, peer, |key| NetworkEvent::Arrives {
                    key,
                    event: Event::Message { peer: key, message },
                });
            }
            Action::Upload { peer, block } => {
                assert!(self.nodes[at].swarm.have().contains(block.piece));
                self.nodes[at].uplink.push_back((peer, block));
                if !self.nodes[at].is_sending {
                    self.nodes[at].is_sending = true;
                    let next = self.now + self.nodes[at].block_time;
                    self.schedule(next, at, NetworkEvent::SendNext);
                }
            }
            Action::CancelUpload { peer, block } => {
                let uplink = &mut self.nodes[at].uplink;
                if let Some(place) = uplink.iter().position(|queued| *queued == (peer, block)) {
                    uplink.remove(place);
                }
            }
            Action::Keep { buffer, block } => {
                let node = &mut self.nodes[at];
                let sent = node.buffers.remove(&buffer).unwrap();
                assert_eq!(sent.name, block);
                let before =
                    node.assembly.entry(block.piece).or_default().insert(block.begin, sent);
                assert_eq!(before, None, "a block was kept twice");
            }
            Action::Discard { buffer } => {
                assert!(self.nodes[at].buffers.remove(&buffer).is_some());
            }
            Action::Verify { piece, want_digests } => {
                let blocks = self.nodes[at].assembly.remove(&piece).unwrap();
                assert_eq!(blocks.len(), self.geometry.blocks_in(piece) as usize);
                let digests: Vec<BlockDigest> =
                    blocks.values().map(|block| digest(block.right)).collect();
                let outcome = if self.rng.below(1_000) < self.plan.storage_failures {
                    PieceOutcome::StorageFailed
                } else if blocks.values().all(|block| block.right) {
                    let digests = if want_digests { digests } else { Vec::new() };
                    PieceOutcome::Verified { digests }
                } else {
                    let wrong = blocks.values().filter(|block| !block.right);
                    self.nodes[at].guilty.extend(wrong.map(|block| block.from));
                    PieceOutcome::Corrupt { digests, hash: WRONG }
                };
                let event = Event::PieceChecked { piece, outcome };
                let done = self.now + Duration::from_micros(500);
                self.schedule(done, at, NetworkEvent::Swarm(event));
            }
            Action::DropPiece { piece } => {
                self.nodes[at].assembly.remove(&piece);
            }
            Action::PieceDone { piece, givers } => {
                let node = &mut self.nodes[at];
                assert!(node.done.insert(piece), "a piece was done twice");
                let blocks: u32 = givers.iter().map(|giver| giver.blocks).sum();
                assert_eq!(blocks, self.geometry.blocks_in(piece));
                for giver in givers {
                    assert!(giver.requested_at <= giver.received_at);
                    *node.given.entry(giver.who.id).or_default() += giver.blocks;
                }
            }
            Action::PieceFailed { .. } | Action::Proven { .. } | Action::Unused { .. } => {}
            Action::Banned { who, .. } => {
                self.nodes[at].banned.insert(who.id);
            }
            Action::Finished => self.nodes[at].finished += 1,
            Action::Completed => self.nodes[at].completed += 1,
        }
    }

    fn send_next(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some((peer, block)) = node.uplink.pop_front() else {
            node.is_sending = false;
            return;
        };
        let next = self.now + node.block_time;
        self.schedule(next, at, NetworkEvent::SendNext);
        if !self.nodes[at].links.contains_key(&peer) {
            return;
        }
        let right = self.rng.below(100) >= self.nodes[at].wrong;
        self.nodes[at].sent += 1;
        self.transmit(at, peer, |key| NetworkEvent::Data { key, block, right });
        let bytes = u64::from(block.len);
        self.tell(at, Event::Uploaded { peer, blocks: 1, bytes });
    }

    pub(super) fn transmit(
        &mut self,
        at: usize,
        key: PeerKey,
        what: impl FnOnce(PeerKey) -> NetworkEvent,
    ) {
        let Some(link) = self.nodes[at].links.get_mut(&key) else { return };
        let arrival = (self.now + link.latency).max(link.last_arrival);
        link.last_arrival = arrival;
        let (other, other_key) = (link.other, link.other_key);
        self.schedule(arrival, other, what(other_key));
    }

    pub(super) fn close(&mut self, at: usize, key: PeerKey) {
        self.transmit(at, key, |peer| NetworkEvent::Arrives {
            key: peer,
            event: Event::Disconnected { peer },
        });
        self.unlink(at, key);
    }

    /// Messages to be sent over a connection are lost with it.
    fn unlink(&mut self, at: usize, key: PeerKey) {
        self.nodes[at].links.remove(&key);
        self.nodes[at].uplink.retain(|(peer, _)| *peer != key);
    }
}

fn complete(seed: u64, setup: &Setup) -> World {
    let mut world = World::new(seed, setup);
    let whole = world.run(Duration::from_secs(3_600));
    let missing: Vec<u32> = world
        .nodes
        .iter()
        .map(|node| node.swarm.geometry().pieces() - node.swarm.have().count())
        .collect();
    assert!(whole, "seed {seed}: pieces missing {missing:?} at {:?}", world.now);
    for (n, node) in world.nodes.iter().enumerate() {
        let is_leecher = n >= setup.seeds + setup.bad_seeds;
        assert_eq!(node.completed, u32::from(is_leecher), "seed {seed}");
    }
    world
}

#[test]
fn every_leecher_completes() {
    for seed in 0..12 {
        complete(seed, &Setup::default());
    }
}

#[test]
fn every_leecher_completes_in_a_closed_swarm() {
    let setup = Setup { choke: ChokePolicy::Closed, ..Setup::default() };
    for seed in 0..12 {
        complete(seed, &setup);
    }
}

#[test]
fn every_leecher_completes_through_lost_connections_pauses_and_bad_disks() {
    let plan = Plan { disconnects: 3, pauses: 1, storage_failures: 20, ..Plan::default() };
    for seed in 0..12 {
        complete(seed, &Setup { plan, seeds: 2, ..Setup::default() });
    }
}

#[test]
fn every_leecher_completes_whatever_it_wants_first() {
    let plan = Plan { disconnects: 1, storage_failures: 20, whims: 4, ..Plan::default() };
    let mut times_finished = 0;
    for seed in 0..12 {
        let choke = if seed % 2 == 0 { ChokePolicy::Closed } else { ChokePolicy::TitForTat };
        let world = complete(seed, &Setup { plan, choke, seeds: 2, ..Setup::default() });
        let finished = world.nodes[2..].iter().map(|node| node.finished);
        assert!(finished.clone().all(|times| times > 0), "seed {seed}");
        times_finished += finished.sum::<u32>();
    }
    assert!(times_finished > 12 * 4, "hardly anybody ever wanted less");
}

#[test]
fn sequential_downloads_complete_front_first() {
    for (seeds, most_ahead) in [(1, 0), (3, 24)] {
        for seed in 0..4 {
            let setup =
                Setup { seeds, leechers: 1, pieces: 96, memory_blocks: 32, ..Setup::default() };
            let mut world = World::new(seed, &setup);
            for node in &mut world.nodes {
                node.block_time = Duration::from_millis(2);
                // Allowed-fast pieces (BEP 6) come in another order.
                node.fast = false;
            }
            world.tell(seeds, Event::Order { sequential: true });
            let mut ahead = 0;
            while !world.run(Duration::from_millis(5)) {
                let have = world.nodes[seeds].swarm.have();
                let first = have.missing().next().map_or(0, |piece| piece.0);
                let last = have.iter().last().map_or(0, |piece| piece.0);
                ahead = ahead.max(last.saturating_sub(first));
            }
            assert!(ahead <= most_ahead, "seed {seed} of {seeds} seeds: {ahead} before its turn");
        }
    }
}

#[test]
fn every_leecher_completes_with_memory_for_a_single_piece() {
    let plan = Plan { disconnects: 3, ..Plan::default() };
    for seed in 0..8 {
        complete(seed, &Setup { memory_blocks: 1, plan, ..Setup::default() });
    }
}

#[test]
fn corrupt_peers_among_honest_ones_are_the_only_ones_banned_and_all_downloads_end_whole() {
    let mut bans = 0;
    for seed in 0..16 {
        let setup = Setup {
            seeds: 2,
            bad_seeds: 2,
            wrong: if seed % 2 == 0 { 100 } else { 20 },
            announce_within: 200,
            plan: Plan { disconnects: seed % 3, ..Plan::default() },
            ..Setup::default()
        };
        let world = complete(seed, &setup);
        for node in &world.nodes {
            assert_eq!(node.banned, node.guilty, "seed {seed}");
            bans += node.banned.len();
        }
    }
    assert!(bans >= 32, "the bad seeds were hardly asked: {bans}");
}

#[test]
fn when_all_are_complete_everybody_knows_and_nobody_stays_connected() {
    for seed in 0..12 {
        let choke = if seed % 2 == 0 { ChokePolicy::Closed } else { ChokePolicy::TitForTat };
        let setup = Setup { choke, seeds: 2, leechers: 5, ..Setup::default() };
        let mut world = complete(seed, &setup);
        // Five seconds for answers that are under way, and the delay of the lines.
        world.run_on(Duration::from_secs(10));
        for (n, node) in world.nodes.iter().enumerate() {
            let left: Vec<_> = node.swarm.peers().map(|peer| peer.who.id).collect();
            assert_eq!(left, [], "seed {seed}: node {n}");
        }
    }
}

#[test]
fn peers_that_dial_each_other_end_with_one_connection() {
    for seed in 0..12 {
        let setup =
            Setup { leechers: 6, announce_within: 1 + seed % 4 * 2_000, ..Setup::default() };
        let mut world = World::new(seed, &setup);
        for node in &mut world.nodes {
            // One block in ten minutes.
            node.block_time = Duration::from_secs(600);
        }
        for minutes in [1, 9] {
            world.run_on(Duration::from_secs(minutes * 60));
            for (n, node) in world.nodes.iter().enumerate() {
                let mut ids: Vec<_> = node.swarm.peers().map(|peer| peer.who.id).collect();
                ids.sort_unstable();
                let all = ids.len();
                ids.dedup();
                assert_eq!((all, ids.len()), (6, 6), "seed {seed}: node {n}");
            }
        }
    }
}

#[test]
fn a_seed_knows_how_far_its_leechers_are() {
    for seed in 0..8 {
        let mut world = World::new(seed, &Setup { leechers: 3, pieces: 64, ..Setup::default() });
        while world.nodes[1..].iter().any(|node| node.swarm.have().count() < 40) {
            assert!(!world.run(Duration::from_millis(20)), "seed {seed}");
        }
        // A line has a delay of 30 ms.
        let before: BTreeMap<PeerId, u32> =
            world.nodes[1..].iter().map(|node| (node.id, node.swarm.have().count())).collect();
        world.run_on(Duration::from_millis(31));
        for peer in world.nodes[0].swarm.peers() {
            assert!(peer.holds.count() >= before[&peer.who.id], "seed {seed}: {}", peer.who.addr);
        }
    }
}

#[test]
fn four_equal_seeds_each_give_their_share() {
    for seed in 0..4 {
        let setup = Setup {
            seeds: 4,
            leechers: 1,
            pieces: 128,
            blocks: 16,
            announce_within: 1,
            ..Setup::default()
        };
        let mut world = World::new(seed, &setup);
        for node in &mut world.nodes {
            node.block_time = Duration::from_millis(2);
        }
        assert!(world.run(Duration::from_secs(600)), "seed {seed}");
        let given = &world.nodes[4].given;
        let all: u32 = given.values().sum();
        assert_eq!(given.len(), 4, "seed {seed}: {given:?}");
        assert!(given.values().all(|blocks| blocks * 10 <= all * 4), "seed {seed}: {given:?}");
        let wasted = world.nodes[4].swarm.progress().wasted;
        // Blocks that were duplicated in the endgame and crossed with their cancels: the lines have a delay
        // of 30 ms.
        let wasted = wasted / u64::from(BLOCK_LEN);
        assert!(wasted <= 80, "seed {seed}: {wasted} blocks of {all} came twice");
    }
}

#[test]
fn seed_that_dies_half_way_costs_nothing() {
    for seed in 0..4 {
        let setup = Setup { seeds: 2, leechers: 1, pieces: 64, ..Setup::default() };
        let mut world = World::new(seed, &setup);
        while world.nodes[2].swarm.have().count() < 32 {
            assert!(!world.run(Duration::from_millis(20)), "seed {seed}");
        }
        let keys: Vec<PeerKey> = world.nodes[0].links.keys().copied().collect();
        for key in keys {
            world.close(0, key);
        }
        world.nodes[0].uplink.clear();
        world.pending.retain(|_, (node, _)| *node != 0);
        let alive: BTreeSet<u64> = world.pending.keys().copied().collect();
        world.queue.retain(|Reverse((_, number))| alive.contains(number));
        assert!(world.run(Duration::from_secs(600)), "seed {seed}");
    }
}

#[test]
fn seed_sends_little_twice_before_everything_has_been_sent_once() {
    let ratio = |choke, seed| {
        let setup =
            Setup { leechers: 4, pieces: 96, choke, everybody_fast: true, ..Setup::default() };
        let mut world = World::new(seed, &setup);
        for node in &mut world.nodes {
            node.block_time = Duration::from_millis(2);
        }
        // Until most of a copy has left the seed. The last blocks are requested by every peer.
        let mut copies = 0;
        while copies * 4 < setup.pieces * 3 && !world.run(Duration::from_millis(5)) {
            let held =
                |piece| world.nodes[1..].iter().any(|n| n.swarm.have().contains(PieceIndex(piece)));
            copies = (0..setup.pieces).filter(|piece| held(*piece)).count() as u32;
        }
        let blocks = u64::from(copies * setup.blocks);
        world.nodes[0].sent * 100 / blocks
    };
    let total = |choke| (0..4).map(|seed| ratio(choke, seed)).sum::<u64>();
    let (closed, open) = (total(ChokePolicy::Closed), total(ChokePolicy::TitForTat));
    assert!(closed <= 4 * 120, "{} % of the content for one copy", closed / 4);
    assert!(open <= 4 * 120, "{} % of the content for one copy", open / 4);
}

#[test]
fn events_per_block_stay_few() {
    let world = complete(1, &Setup { leechers: 1, pieces: 200, blocks: 16, ..Setup::default() });
    // A request, a block and an `Uploaded` are three for each block, and there are some more for each
    // piece.
    let blocks = 200 * 16;
    assert!(world.events < blocks * 4, "{} events for {blocks} blocks", world.events);
}
