//! The node: packets and time in, packets and results out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{InfoHash, Moment, Rng};

use super::address::{Contact, Family, canonical, is_acceptable};
use super::answerer::{Answerer, Asked, Side, VERSION};
use super::krpc::{Body, MAX_RECEIVED, Packet, PacketError, Question, Response, Want};
use super::lookup::{AnnounceAs, Goal, Lookup, LookupId, LookupReport};
use super::node_id::NodeId;
use super::queries::{Purpose, Queries, SentQuery};
use super::rate::Allowance;
use super::saved;
use super::table::{K, Table};
use super::votes::Votes;

/// The settings of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DhtConfig {
    /// Takes part in the network of IPv4.
    pub v4: bool,
    /// Takes part in the network of IPv6.
    pub v6: bool,
    /// Answers no questions (BEP 43).
    pub is_read_only: bool,
    /// The name of a network that is separate from the public one. 32 bytes count. Packets of others are ignored.
    pub network: Option<Vec<u8>>,
    /// Questions a second.
    pub queries_per_second: u32,
    /// Answers a second.
    pub answers_per_second: u32,
}

/// What the driver has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DhtAction {
    /// Send a packet.
    Send {
        /// Where to.
        to: SocketAddr,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A look-up has found peers that it had not found before.
    Peers {
        /// The look-up.
        lookup: LookupId,
        /// The peers.
        peers: Vec<SocketAddr>,
    },
    /// A look-up has ended.
    Ended {
        /// The look-up.
        lookup: LookupId,
        /// How it went.
        report: LookupReport,
    },
}

/// Numbers about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DhtFigures {
    /// Nodes in the tables of IPv4 and IPv6.
    pub nodes: [usize; 2],
    /// Peers that others announced here.
    pub stored_peers: usize,
    /// The torrents of these peers.
    pub stored_torrents: usize,
    /// Look-ups that run.
    pub lookups: usize,
    /// Packets that were received.
    pub received: u64,
    /// Of these, packets that were dropped: malformed, too many, or not an answer to anything.
    pub dropped: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// Whether a node asked something that had not been asked anything before.
    pub is_reached: bool,
}

/// A node of the DHT.
///
/// After each call, the driver takes the actions from [`Self::poll`] until there are no more.
pub struct Dht {
    config: DhtConfig,
    rng: Rng,
    sides: [Option<Side>; 2],
    votes: [Votes; 2],
    answerer: Answerer,
    queries: Queries,
    lookups: BTreeMap<LookupId, Lookup>,
    next_lookup: u64,
    /// Look-ups that may have a question.
    ready: VecDeque<LookupId>,
    /// Nodes to check, and addresses to begin at.
    unchecked: VecDeque<(SocketAddr, Option<NodeId>, Purpose)>,
    outgoing: Allowance,
    checks: Allowance,
    actions: VecDeque<DhtAction>,
    next_upkeep: Moment,
    sought_self: [Option<Moment>; 2],
    figures: DhtFigures,
}

impl Default for DhtConfig {
    fn default() -> Self {
        Self {
            v4: true,
            v6: true,
            is_read_only: false,
            network: None,
            // 10,000 torrents that announce themselves every half an hour need 250.
            queries_per_second: 400,
            // About 300 kB a second.
            answers_per_second: 1_000,
        }
    }
}

impl Dht {
    /// Returns a node without any others. `secret` must come from the operating system: with it, others could forge
    /// tokens and answers.
    pub fn new(mut config: DhtConfig, secret: [u8; 32], mut rng: Rng, now: Moment) -> Self {
        // It is in every packet.
        config.network.iter_mut().for_each(|name| name.truncate(MOST_NETWORK_NAME));
        let mut side = |enabled: bool| {
            let id = NodeId::random(&mut rng);
            enabled.then(|| Side { id, table: Table::new(id) })
        };
        let sides = [side(config.v4), side(config.v6)];
        Self {
            sides,
            votes: Default::default(),
            answerer: Answerer::new(secret, rng.fork(), config.answers_per_second),
            queries: Queries::new(rng.next_u64()),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            ready: VecDeque::new(),
            unchecked: VecDeque::new(),
            outgoing: Allowance::new(config.queries_per_second, config.queries_per_second),
            checks: Allowance::new(CHECKS_PER_SECOND, CHECKS_PER_SECOND * 2),
            actions: VecDeque::new(),
            next_upkeep: now,
            sought_self: [None; 2],
            figures: DhtFigures::default(),
            config,
            rng,
        }
    }

    /// Returns the next thing to do.
    #[must_use]
    pub fn poll(&mut self) -> Option<DhtAction> {
        self.actions.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn deadline(&mut self) -> Moment {
        let mut deadline = self.next_upkeep;
        if let Some(at) = self.queries.deadline() {
            deadline = deadline.min(at);
        }
        if !self.ready.is_empty() || !self.unchecked.is_empty() {
            let mut at = self.outgoing.next();
            if self.ready.is_empty() {
                at = at.max(self.checks.next());
            }
            deadline = deadline.min(at);
        }
        deadline
    }

    /// Says that time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some(query) = self.queries.next_slow(now) {
            if let Purpose::Lookup(id) = query.purpose
                && let Some(lookup) = self.lookups.get_mut(&id)
            {
                lookup.slow(query.to);
                self.progress(now, id);
            }
        }
        while let Some(query) = self.queries.next_lost(now) {
            if let Some(side) = self.sides[Family::of(query.to).index()].as_mut()
                && let Some(id) = query.expected
            {
                side.table.failed(Contact { id, addr: query.to });
            }
            self.unanswered(now, &query);
        }
        if now >= self.next_upkeep {
            self.upkeep(now);
        }
        self.send_questions(now);
    }

    /// Takes a packet that came from `from`.
    pub fn handle_packet(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        self.figures.received += 1;
        let from = canonical(from);
        if !self.take_packet(now, from, bytes) {
            self.figures.dropped += 1;
        }
        self.send_questions(now);
    }

    /// Adds an address at which a node may be: configured, of a `.torrent`, or of a `PORT` message. Returns whether
    /// there was room for it.
    pub fn add_node(&mut self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        let is_known = |side: &Side| side.table.id_at(addr).is_some();
        let Some(side) = &self.sides[Family::of(addr).index()] else { return false };
        let is_waiting = self.unchecked.iter().any(|(waiting, ..)| *waiting == addr);
        // The receiver of a packet without a port is nobody.
        if addr.port() == 0 || is_known(side) || is_waiting {
            return false;
        }
        let has_room = self.unchecked.len() < MOST_UNCHECKED;
        if has_room {
            self.unchecked.push_back((addr, None, Purpose::Bootstrap));
        }
        has_room
    }

    /// Returns whether a family knows so few nodes that it needs addresses to begin at.
    pub fn needs_nodes(&self, family: Family) -> bool {
        self.sides[family.index()].as_ref().is_some_and(|side| side.table.len() < K)
    }

    /// Returns the families in whose networks it takes part.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        Family::ALL.into_iter().filter(|family| self.sides[family.index()].is_some())
    }

    /// Begins to look for peers of a torrent, and to announce one. Returns `None` if too many look-ups run, or if it
    /// does not take part in the family's network.
    pub fn find_peers(
        &mut self,
        now: Moment,
        family: Family,
        info_hash: InfoHash,
        announce: Option<AnnounceAs>,
    ) -> Option<LookupId> {
        if self.lookups.len() >= MOST_LOOKUPS {
            return None;
        }
        let id = self.begin(now, family, info_hash.into(), Goal::Peers { info_hash, announce })?;
        self.send_questions(now);
        Some(id)
    }

    /// Ends a look-up without a report.
    pub fn cancel(&mut self, lookup: LookupId) {
        self.lookups.remove(&lookup);
    }

    /// Returns the own id in the network of a family.
    pub fn id(&self, family: Family) -> Option<NodeId> {
        self.sides[family.index()].as_ref().map(|side| side.id)
    }

    /// Returns the own IP as others see it.
    pub fn external_ip(&self, family: Family) -> Option<std::net::IpAddr> {
        self.votes[family.index()].chosen()
    }

    /// Returns some numbers.
    pub fn figures(&self) -> DhtFigures {
        let (stored_peers, stored_torrents) = self.answerer.store.len();
        let nodes = |side: &Option<Side>| side.as_ref().map_or(0, |side| side.table.len());
        let nodes = [nodes(&self.sides[0]), nodes(&self.sides[1])];
        let lookups = self.lookups.len();
        DhtFigures { nodes, stored_peers, stored_torrents, lookups, ..self.figures }
    }

    /// Returns the own ids and the nodes of the tables, for [`Self::restore`].
    pub fn save(&self) -> Vec<u8> {
        saved::encode(
            &self
                .sides
                .each_ref()
                .map(|side| side.as_ref().map(|side| (side.id, side.table.contacts().collect()))),
        )
    }

    /// Takes what [`Self::save`] returned before the last restart. The nodes are asked before they are used. Returns
    /// whether it was readable.
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        let Some(saved) = saved::decode(bytes) else { return false };
        for (side, saved) in self.sides.iter_mut().zip(saved) {
            let (Some(side), Some((id, contacts))) = (side, saved) else { continue };
            side.id = id;
            side.table.set_own(id);
            for contact in contacts {
                if self.unchecked.len() < MOST_UNCHECKED {
                    let Contact { id, addr } = contact;
                    self.unchecked.push_back((addr, Some(id), Purpose::Bootstrap));
                }
            }
        }
        true
    }

    /// Returns whether the packet was of use.
    fn take_packet(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) -> bool {
        // In a flood, most packets are not even read.
        let looks_like_query = bytes.ends_with(b"1:y1:qe");
        let has_side = self.sides[Family::of(from).index()].is_some();
        if bytes.len() > MAX_RECEIVED
            || !has_side
            || from.port() == 0
            || looks_like_query && (self.config.is_read_only || !self.answerer.has_allowance(now))
        {
            return false;
        }
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(PacketError::BadQuery { transaction, code }) => {
                if self.config.network.is_none() && self.answerer.admits(now, from) {
                    self.send_error(from, &transaction, code);
                }
                return false;
            }
            Err(PacketError::Unusable) => return false,
        };
        if packet.network != self.config.network.as_deref() {
            return false;
        }
        match packet.body {
            Body::Query { id, question } => {
                if self.config.is_read_only || !self.answerer.admits(now, from) {
                    return false;
                }
                let asked =
                    Asked { from, len: bytes.len(), transaction: packet.transaction, question };
                self.answer(now, id, packet.is_read_only, &asked);
                true
            }
            Body::Response(response) => {
                let Some(query) = self.queries.take(packet.transaction, from) else { return false };
                if let Some(seen_at) = packet.seen_at {
                    self.vote(now, from, seen_at);
                }
                self.take_response(now, &query, &response);
                true
            }
            Body::Error { .. } => {
                let Some(query) = self.queries.take(packet.transaction, from) else { return false };
                self.unanswered(now, &query);
                true
            }
        }
    }

    fn answer(&mut self, now: Moment, id: NodeId, is_read_only: bool, asked: &Asked<'_>) {
        let from = asked.from;
        self.figures.is_reached |= !self.answerer.proved.contains(now, from);
        let network = self.config.network.as_deref();
        if let Some(bytes) = self.answerer.answer(now, asked, &self.sides, network) {
            self.send(from, bytes);
        }
        let Some(side) = self.sides[Family::of(from).index()].as_mut() else { return };
        let is_of_use = !is_read_only && side.table.asked(now, Contact { id, addr: from });
        let is_waiting = self.unchecked.iter().any(|(waiting, ..)| *waiting == from);
        if is_of_use && !is_waiting && self.unchecked.len() < MOST_UNCHECKED {
            self.unchecked.push_back((from, Some(id), Purpose::Check));
        }
    }

    fn take_response(&mut self, now: Moment, query: &SentQuery, response: &Response<'_>) {
        let from = query.to;
        let family = Family::of(from);
        self.answerer.proved.add(now, from);
        let contact = Contact { id: response.id, addr: from };
        let Some(side) = self.sides[family.index()].as_mut() else { return };
        let is_expected = query.expected.is_none_or(|id| id == response.id);
        if let Some(id) = query.expected.filter(|_| !is_expected) {
            side.table.failed(Contact { id, addr: from });
        }
        if side.table.answered(now, contact) {
            self.feed_waiting(now, family, contact);
        }
        match query.purpose {
            Purpose::Check => {}
            Purpose::Bootstrap => self.seek_self(now, family, response),
            Purpose::Lookup(id) => {
                let Some(lookup) = self.lookups.get_mut(&id) else { return };
                if !is_expected {
                    lookup.renamed(contact);
                    return self.progress(now, id);
                }
                let (token, nodes) = (response.token, response.contacts());
                let peers = lookup.answered(contact, token, nodes, &response.values);
                if !peers.is_empty() {
                    self.actions.push_back(DhtAction::Peers { lookup: id, peers });
                }
                self.progress(now, id);
            }
            Purpose::Announce(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.announced(true);
                    self.end_if_done(now, id);
                }
            }
        }
    }

    /// Ends a question without the answer that was sought.
    fn unanswered(&mut self, now: Moment, query: &SentQuery) {
        match query.purpose {
            Purpose::Check | Purpose::Bootstrap => {}
            Purpose::Lookup(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.failed(query.to);
                    self.progress(now, id);
                }
            }
            Purpose::Announce(id) => {
                if let Some(lookup) = self.lookups.get_mut(&id) {
                    lookup.announced(false);
                    self.end_if_done(now, id);
                }
            }
        }
    }

    /// Counts what a node says about our address, and takes another id if ours does not fit it.
    fn vote(&mut self, now: Moment, from: SocketAddr, seen_at: SocketAddr) {
        let family = Family::of(from);
        if Family::of(seen_at) != family {
            return;
        }
        let Some(ip) = self.votes[family.index()].add(from.ip(), seen_at.ip()) else { return };
        let Some(side) = self.sides[family.index()].as_mut() else { return };
        if !side.id.fits(ip) {
            side.id = NodeId::for_ip(ip, &mut self.rng);
            side.table.set_own(side.id);
            self.sought_self[family.index()] = None;
            self.next_upkeep = now;
        }
    }

    fn begin(
        &mut self,
        now: Moment,
        family: Family,
        target: NodeId,
        goal: Goal,
    ) -> Option<LookupId> {
        let side = self.sides[family.index()].as_ref()?;
        let mut lookup = Lookup::new(now, target, family, goal);
        lookup.begin_at(&side.table.closest(target, K * 2));
        let id = LookupId(self.next_lookup);
        self.next_lookup += 1;
        self.lookups.insert(id, lookup);
        self.ready.push_back(id);
        Some(id)
    }

    /// Gives a first node to look-ups that have none.
    fn feed_waiting(&mut self, now: Moment, family: Family, contact: Contact) {
        let is_fed = |lookup: &Lookup| lookup.family == family && lookup.is_waiting();
        let waiting = self.lookups.iter_mut().filter(|(_, lookup)| is_fed(lookup));
        for (id, lookup) in waiting {
            lookup.begin_at(&[contact]);
            self.ready.push_back(*id);
        }
        self.send_questions(now);
    }

    /// Looks for the nodes that are closest to our own id, unless it did so not long ago.
    fn seek_self(&mut self, now: Moment, family: Family, response: &Response<'_>) {
        let Some(side) = &self.sides[family.index()] else { return };
        let (own, few) = (side.id, side.table.len() < K);
        let pause = if few { SOUGHT_SELF_EVERY_IF_FEW } else { SOUGHT_SELF_EVERY };
        let sought = &mut self.sought_self[family.index()];
        if sought.is_none_or(|at| now.since(at) >= pause) {
            *sought = Some(now);
            self.begin(now, family, own, Goal::Nodes);
        }
        // Nodes that a first node names, before a look-up has come to them.
        let giver = response.id;
        if few {
            for contact in response.contacts().take(K).filter(|it| it.id != giver && it.id != own) {
                let is_enabled = self.sides[Family::of(contact.addr).index()].is_some();
                let is_free = self.unchecked.len() < MOST_UNCHECKED / 2;
                let Contact { id, addr } = contact;
                if is_enabled && is_free && is_acceptable(addr.ip(), addr) {
                    self.unchecked.push_back((addr, Some(id), Purpose::Check));
                }
            }
        }
    }

    /// Does what is due every few seconds.
    fn upkeep(&mut self, now: Moment) {
        // Nodes that started together do not go on together.
        let jitter = Duration::from_millis(self.rng.below(1_000));
        self.next_upkeep = now + UPKEEP_EVERY + jitter;
        self.answerer.store.sweep(now, SWEPT_AT_ONCE);
        let late: Vec<LookupId> = self
            .lookups
            .iter()
            .filter(|(_, lookup)| lookup.is_late(now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.progress(now, id);
            self.end_if_done(now, id);
        }
        for family in Family::ALL {
            let Some(side) = self.sides[family.index()].as_mut() else { continue };
            if side.table.len() == 0 {
                continue;
            }
            let stale: Vec<Contact> =
                std::iter::from_fn(|| side.table.next_stale(now)).take(CHECKED_AT_ONCE).collect();
            let refresh = side.table.next_refresh(now, &mut self.rng);
            for Contact { id, addr } in stale {
                self.unchecked.push_back((addr, Some(id), Purpose::Check));
            }
            if let Some(target) = refresh {
                self.begin(now, family, target, Goal::Nodes);
            }
            let own = Response::new(self.rng_id());
            self.seek_self(now, family, &own);
        }
    }

    fn rng_id(&mut self) -> NodeId {
        NodeId::random(&mut self.rng)
    }

    /// Lets a look-up go on after something has changed for it.
    fn progress(&mut self, now: Moment, id: LookupId) {
        let Some(lookup) = self.lookups.get_mut(&id) else { return };
        let is_stuck = lookup.is_waiting() && lookup.is_late(now);
        if !lookup.is_complete(now) && !is_stuck {
            self.ready.push_back(id);
            return;
        }
        let told = lookup.begin_announcing();
        let Goal::Peers { info_hash, announce: Some(announce) } = lookup.goal else {
            return self.end_if_done(now, id);
        };
        let AnnounceAs { port, implied_port, is_seed } = announce;
        for (contact, token) in told {
            let token = &token;
            let question = Question::AnnouncePeer { info_hash, port, implied_port, token, is_seed };
            let Contact { id: expected, addr } = contact;
            let purpose = Purpose::Announce(id);
            // Few, and each was answered a moment ago: they do not wait.
            self.outgoing.take(now);
            self.ask(now, SentQuery { to: addr, expected: Some(expected), purpose }, question);
        }
        self.end_if_done(now, id);
    }

    fn end_if_done(&mut self, now: Moment, id: LookupId) {
        let Some(lookup) = self.lookups.get(&id).filter(|lookup| lookup.has_ended(now)) else {
            return;
        };
        if matches!(lookup.goal, Goal::Peers { .. }) {
            let report = lookup.report(now);
            self.actions.push_back(DhtAction::Ended { lookup: id, report });
        }
        self.lookups.remove(&id);
    }

    /// Sends as many questions as are due and allowed.
    fn send_questions(&mut self, now: Moment) {
        while !self.unchecked.is_empty() && self.checks.has(now) && self.may_ask(now) {
            let Some((to, expected, purpose)) = self.unchecked.pop_front() else { break };
            self.checks.take(now);
            self.outgoing.take(now);
            let family = Family::of(to);
            let Some(target) = self.id(family) else { continue };
            let question = match purpose {
                Purpose::Bootstrap => Question::FindNode { target, want: self.want() },
                _ => Question::Ping,
            };
            self.ask(now, SentQuery { to, expected, purpose }, question);
        }
        while !self.ready.is_empty() && self.may_ask(now) {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(lookup) = self.lookups.get_mut(&id) else { continue };
            let Some(contact) = lookup.next(now) else { continue };
            let question = match lookup.goal {
                Goal::Nodes => Question::FindNode { target: lookup.target, want: Want::default() },
                Goal::Peers { info_hash, .. } => Question::GetPeers {
                    info_hash,
                    want: Want::default(),
                    without_seeds: false,
                    scrape: false,
                },
            };
            self.outgoing.take(now);
            let Contact { id: expected, addr: to } = contact;
            let purpose = Purpose::Lookup(id);
            self.ask(now, SentQuery { to, expected: Some(expected), purpose }, question);
            // In turn with the others.
            self.ready.push_back(id);
        }
    }

    fn may_ask(&self, now: Moment) -> bool {
        self.outgoing.has(now) && self.queries.has_room()
    }

    /// Returns the nodes that are of use to the first questions: both families, if there are two.
    fn want(&self) -> Want {
        let both = self.sides.iter().all(Option::is_some);
        Want { v4: both, v6: both }
    }

    fn ask(&mut self, now: Moment, query: SentQuery, question: Question<'_>) {
        let Some(id) = self.id(Family::of(query.to)) else { return };
        let mut number = self.answerer.tokens.draw();
        while self.queries.contains(number) {
            number = self.answerer.tokens.draw();
        }
        let packet = Packet {
            transaction: &number.to_be_bytes(),
            version: Some(VERSION),
            network: self.config.network.as_deref(),
            is_read_only: self.config.is_read_only,
            seen_at: None,
            body: Body::Query { id, question },
        };
        let bytes = packet.encode();
        self.queries.add(now, number, query);
        self.send(query.to, bytes);
    }

    fn send_error(&mut self, to: SocketAddr, transaction: &[u8], code: i64) {
        let packet = Packet {
            transaction,
            version: Some(VERSION),
            network: None,
            is_read_only: false,
            seen_at: None,
            body: Body::Error { code },
        };
        let bytes = packet.encode();
        self.send(to, bytes);
    }

    fn send(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.figures.sent += 1;
        self.actions.push_back(DhtAction::Send { to, bytes });
    }
}

/// Look-ups at a time. Each takes at most 40 kB.
const MOST_LOOKUPS: usize = 128;

/// The bytes of a network's name that count.
const MOST_NETWORK_NAME: usize = 32;

/// Addresses that wait to be asked.
const MOST_UNCHECKED: usize = 512;

/// Nodes that are asked whether they are there. Whoever asks us causes one, so it is much less than the answers.
const CHECKS_PER_SECOND: u32 = 20;

const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// With 80 nodes in a table, each gets its turn within 15 minutes several times over.
const CHECKED_AT_ONCE: usize = 2;

/// 65,536 peers are visited in ten minutes.
const SWEPT_AT_ONCE: usize = 512;

const SOUGHT_SELF_EVERY: Duration = Duration::from_secs(15 * 60);

/// A new node wants to know others soon; where there are few, this finds those that come later.
const SOUGHT_SELF_EVERY_IF_FEW: Duration = Duration::from_secs(20);
