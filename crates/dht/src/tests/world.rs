//! A network in virtual time: honest nodes, liars, packets that take time or are lost.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{InfoHash, Moment, Rng, Scope, scope_of};

use crate::krpc::{Body, Packet, Question, Response};
use crate::{
    AnnounceAs, Contact, Dht, DhtAction, DhtConfig, Family, LookupId, LookupReport, NodeId,
};

pub(super) struct World {
    pub(super) now: Moment,
    pub(super) rng: Rng,
    pub(super) nodes: BTreeMap<SocketAddr, Node>,
    pub(super) found: HashMap<(SocketAddr, LookupId), Vec<SocketAddr>, FixedState>,
    pub(super) ended: HashMap<(SocketAddr, LookupId), LookupReport, FixedState>,
    pub(super) packets: u64,
    events: BTreeMap<(Moment, u64), Event>,
    next_event: u64,
    /// Nodes that do not exist, and have ids that fit, sorted by id.
    made_up: Vec<Contact>,
    /// The addresses of live nodes, to draw one.
    pub(super) honest: Vec<SocketAddr>,
    pub(super) liars: Vec<Contact>,
    /// Nodes that know few others. Like a driver, the world gives them addresses until they know more.
    joining: Vec<SocketAddr>,
    pub(super) loss_percent: u64,
}

pub(super) enum Node {
    Honest { dht: Box<Dht>, wakes_at: Moment },
    Liar { id: NodeId },
}

enum Event {
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Wake(SocketAddr),
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Moment::from_secs(1),
            rng: Rng::from_seed(seed),
            nodes: BTreeMap::new(),
            found: HashMap::with_hasher(FixedState::with_seed(1)),
            ended: HashMap::with_hasher(FixedState::with_seed(1)),
            packets: 0,
            events: BTreeMap::new(),
            next_event: 0,
            made_up: Vec::new(),
            honest: Vec::new(),
            liars: Vec::new(),
            joining: Vec::new(),
            loss_percent: 1,
        }
    }

    /// Returns an address of the internet that nobody has.
    pub(super) fn free_addr(&mut self) -> SocketAddr {
        loop {
            let bits = self.rng.next_u64().to_be_bytes();
            let ip = Ipv4Addr::new(bits[0], bits[1], bits[2], bits[3]);
            let addr = SocketAddr::from((ip, 1024 + u16::from(bits[4])));
            if scope_of(ip.into()) == Scope::Global && !self.nodes.contains_key(&addr) {
                return addr;
            }
        }
    }

    /// Adds an honest node, which knows one other.
    pub(super) fn join(&mut self, config: DhtConfig) -> SocketAddr {
        let addr = self.free_addr();
        let first = self.rng.choose(&self.honest).copied();
        self.join_at(addr, config, first);
        self.joining.push(addr);
        addr
    }

    /// Gives nodes that know few others one more address to begin at.
    pub(super) fn help_joining(&mut self) {
        for addr in std::mem::take(&mut self.joining) {
            let first = self.rng.choose(&self.honest).copied();
            let needs = |dht: &mut Dht, now| {
                let needs = dht.needs_nodes(Family::V4);
                first.filter(|_| needs).into_iter().for_each(|first| _ = dht.add_node(first));
                dht.handle_timeout(now);
                needs
            };
            if self.nodes.contains_key(&addr) && self.call(addr, needs) {
                self.joining.push(addr);
            }
        }
    }

    pub(super) fn join_at(
        &mut self,
        addr: SocketAddr,
        config: DhtConfig,
        first: Option<SocketAddr>,
    ) {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        let mut dht = Dht::new(config, secret, self.rng.fork(), self.now);
        first.into_iter().for_each(|first| assert!(dht.add_node(first)));
        self.nodes.insert(addr, Node::Honest { dht: Box::new(dht), wakes_at: Moment::START });
        self.honest.push(addr);
        self.call(addr, |dht, now| dht.handle_timeout(now));
    }

    pub(super) fn leave(&mut self, addr: SocketAddr) {
        self.nodes.remove(&addr);
        self.honest.retain(|other| *other != addr);
    }

    /// Adds a node that answers with liars, with nodes that do not exist, and with peers that are none.
    pub(super) fn join_liar(&mut self) {
        let addr = self.free_addr();
        let id = NodeId::for_ip(addr.ip(), &mut self.rng);
        self.nodes.insert(addr, Node::Liar { id });
        self.liars.push(Contact { id, addr });
    }

    /// Lets liars know of `count` nodes that do not exist.
    pub(super) fn make_up(&mut self, count: usize) {
        for _ in 0..count {
            let addr = self.free_addr();
            self.made_up.push(Contact { id: NodeId::for_ip(addr.ip(), &mut self.rng), addr });
        }
        self.made_up.sort_by_key(|contact| contact.id);
    }

    /// Each liar asks some nodes something, so that they want it in their tables.
    pub(super) fn advertise_liars(&mut self, each: usize) {
        for liar in self.liars.clone() {
            for _ in 0..each {
                let Some(to) = self.rng.choose(&self.honest).copied() else { return };
                let question = Question::Ping;
                let body = Body::Query { id: liar.id, question };
                self.transmit(liar.addr, to, packet(b"xx", body).encode());
            }
        }
    }

    /// Calls a node and carries out what it wants.
    pub(super) fn call<T>(&mut self, addr: SocketAddr, f: impl FnOnce(&mut Dht, Moment) -> T) -> T {
        let now = self.now;
        let Some(Node::Honest { dht, wakes_at }) = self.nodes.get_mut(&addr) else {
            panic!("{addr} is no honest node")
        };
        let result = f(dht, now);
        let actions: Vec<DhtAction> = std::iter::from_fn(|| dht.poll()).collect();
        let deadline = dht.deadline().max(now + Duration::from_nanos(1));
        // A wake-up that comes too early does no harm.
        let is_due = *wakes_at <= now || deadline < *wakes_at;
        if is_due {
            *wakes_at = deadline;
            self.add_event(deadline, Event::Wake(addr));
        }
        for action in actions {
            match action {
                DhtAction::Send { to, bytes } => self.transmit(addr, to, bytes),
                DhtAction::Peers { lookup, peers } => {
                    self.found.entry((addr, lookup)).or_default().extend(peers);
                }
                DhtAction::Ended { lookup, report } => {
                    self.ended.insert((addr, lookup), report);
                }
            }
        }
        result
    }

    pub(super) fn look_up(
        &mut self,
        addr: SocketAddr,
        hash: InfoHash,
        announce: Option<AnnounceAs>,
    ) -> LookupId {
        let family = Family::of(addr);
        self.call(addr, |dht, now| dht.find_peers(now, family, hash, announce)).unwrap()
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::Wake(addr) => {
                    if let Some(Node::Honest { wakes_at, .. }) = self.nodes.get(&addr)
                        && *wakes_at == at
                    {
                        self.call(addr, |dht, now| dht.handle_timeout(now));
                    }
                }
                Event::Packet { from, to, bytes } => self.deliver(from, to, &bytes),
            }
        }
        self.now = end;
    }

    pub(super) fn transmit(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.packets += 1;
        assert!(bytes.len() <= 1024);
        if self.rng.below(100) >= self.loss_percent {
            let latency = Duration::from_millis(10 + self.rng.below(140));
            self.add_event(self.now + latency, Event::Packet { from, to, bytes });
        }
    }

    fn add_event(&mut self, at: Moment, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        match self.nodes.get(&to) {
            None => {}
            Some(Node::Honest { .. }) => {
                self.call(to, |dht, now| dht.handle_packet(now, from, bytes));
            }
            Some(Node::Liar { id }) => {
                let id = *id;
                let Ok(Packet { body: Body::Query { question, .. }, transaction, .. }) =
                    Packet::decode(bytes)
                else {
                    return;
                };
                let response = self.lie(id, &question);
                let mut answer = packet(transaction, Body::Response(response));
                // And it lies about the address.
                answer.seen_at = Some(([66, 66, 66, 66], 6666).into());
                let bytes = answer.encode();
                self.transmit(to, from, bytes);
            }
        }
    }

    /// Returns an answer that leads away from the right nodes.
    fn lie(&mut self, id: NodeId, question: &Question<'_>) -> Response<'static> {
        let mut response = Response::new(id);
        let target = match question {
            Question::Ping | Question::AnnouncePeer { .. } => return response,
            Question::FindNode { target, .. } => *target,
            Question::GetPeers { info_hash, .. } => {
                response.token = Some(b"token");
                let addr = self.free_addr();
                response.values = vec![addr];
                NodeId(info_hash.0)
            }
        };
        let mut nodes = Vec::new();
        // Nodes that do not exist, as close as possible.
        let at = self.made_up.partition_point(|contact| contact.id < target);
        let around = at.saturating_sub(3)..(at + 3).min(self.made_up.len());
        nodes.extend_from_slice(&self.made_up[around]);
        // Liars with ids that do not fit.
        for _ in 0..2 {
            if let Some(liar) = self.rng.choose(&self.liars).copied() {
                nodes.push(Contact { id: target, addr: liar.addr });
            }
        }
        response.nodes = Some(nodes);
        response
    }

    /// Returns the honest nodes that are not `addr`, in random order.
    pub(super) fn others(&mut self, addr: SocketAddr) -> Vec<SocketAddr> {
        let mut others = self.honest.clone();
        others.retain(|other| *other != addr);
        self.rng.shuffle(&mut others);
        others
    }
}

pub(super) fn packet<'a>(transaction: &'a [u8], body: Body<'a>) -> Packet<'a> {
    Packet { transaction, version: None, network: None, is_read_only: false, seen_at: None, body }
}
