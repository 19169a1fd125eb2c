//! One iterative look-up: from the closest known nodes to the closest ones that exist.
//!
//! Some nodes lie. Against these:
//! - Nodes whose id does not fit their address (BEP 42) are in a list of their own. They cannot displace others, and
//!   the look-up does not end because of them.
//! - One node of each network is believed.
//! - A node that named several others that do not answer is not believed any more.
//! - The number of questions, and the time, are bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use foldhash::fast::FixedState;

use piecework_core::{InfoHash, Moment};

use super::address::{Contact, Family, is_acceptable, subnet_of};
use super::node_id::{Distance, NodeId};
use super::table::K;

/// The key of a look-up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LookupId(pub(crate) u64);

/// What other nodes should be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnounceAs {
    /// The TCP port at which the peer accepts connections.
    pub port: u16,
    /// The TCP port is the UDP port at which others see this node.
    pub implied_port: bool,
    /// It is a seed.
    pub is_seed: bool,
}

/// How a look-up went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LookupReport {
    /// Nodes that were asked.
    pub asked: u32,
    /// Nodes that answered.
    pub answered: u32,
    /// Distinct peers that were found.
    pub peers: u32,
    /// Nodes that accepted the announce.
    pub announced_to: u32,
    /// How often it had to wait for answers one after another, until the closest nodes were known.
    pub rounds: u32,
    /// How long it took.
    pub took: Duration,
}

/// What a look-up is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    /// Nodes, for the routing table.
    Nodes,
    /// Peers of a torrent, and perhaps to be one.
    Peers { info_hash: InfoHash, announce: Option<AnnounceAs> },
}

pub(crate) struct Lookup {
    pub(crate) target: NodeId,
    pub(crate) family: Family,
    pub(crate) goal: Goal,
    pub(crate) started: Moment,
    /// Sorted by distance.
    fit: Vec<Candidate>,
    unfit: Vec<Candidate>,
    /// Nodes that did not answer.
    gone: HashSet<SocketAddr, FixedState>,
    /// The nodes that named others, and how many of these were silent and how many answered.
    givers: HashMap<IpAddr, (usize, usize), FixedState>,
    in_flight: usize,
    peers: HashSet<SocketAddr, FixedState>,
    announcing: Option<usize>,
    report: LookupReport,
}

#[derive(Clone, Debug)]
struct Candidate {
    contact: Contact,
    /// Of which one node is believed.
    network: Option<IpAddr>,
    distance: Distance,
    depth: u32,
    /// Who named it. Empty if it is from the table.
    givers: Vec<IpAddr>,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Fresh,
    Asked,
    /// Asked a while ago. Others are asked in its place.
    Slow,
    Answered(Option<Vec<u8>>),
}

impl Lookup {
    pub(crate) fn new(now: Moment, target: NodeId, family: Family, goal: Goal) -> Self {
        let hasher = || FixedState::with_seed(now.since_start().subsec_nanos().into());
        Self {
            target,
            family,
            goal,
            started: now,
            fit: Vec::new(),
            unfit: Vec::new(),
            in_flight: 0,
            peers: HashSet::with_hasher(hasher()),
            gone: HashSet::with_hasher(hasher()),
            givers: HashMap::with_hasher(hasher()),
            announcing: None,
            report: LookupReport::default(),
        }
    }

    /// Returns whether it knows no nodes yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.fit.is_empty() && self.unfit.is_empty()
    }

    /// Adds nodes of the own table.
    pub(crate) fn begin_at(&mut self, contacts: &[Contact]) {
        contacts.iter().for_each(|contact| self.offer(*contact, 1, None));
    }

    /// Returns the next node to ask, if one should be asked now.
    pub(crate) fn next(&mut self, now: Moment) -> Option<Contact> {
        if self.announcing.is_some()
            || self.in_flight >= ALPHA
            || self.report.asked >= MOST_ASKED
            || self.is_late(now)
        {
            return None;
        }
        let fresh = |list: &[Candidate]| {
            let window = list.iter().enumerate().filter(|(_, it)| it.state != State::Slow);
            let at = window.take(K).find(|(_, it)| it.state == State::Fresh)?.0;
            Some((list[at].distance, at))
        };
        let (fit, unfit) = (fresh(&self.fit), fresh(&self.unfit));
        let takes_fit = match (fit, unfit) {
            (Some((near, _)), Some((far, _))) => near <= far,
            (fit, _) => fit.is_some(),
        };
        let candidate = match takes_fit {
            true => self.fit.get_mut(fit?.1)?,
            false => self.unfit.get_mut(unfit?.1)?,
        };
        candidate.state = State::Asked;
        self.in_flight += 1;
        self.report.asked += 1;
        Some(candidate.contact)
    }

    /// Records an answer of a node that was asked. Returns the peers that are new.
    pub(crate) fn answered(
        &mut self,
        from: Contact,
        token: Option<&[u8]>,
        contacts: impl Iterator<Item = Contact>,
        values: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        let Some(candidate) = self.find(from.addr) else { return Vec::new() };
        let was = std::mem::replace(&mut candidate.state, State::Answered(token.map(Vec::from)));
        let (depth, givers) = (candidate.depth, candidate.givers.clone());
        self.in_flight -= usize::from(was == State::Asked);
        self.report.answered += 1;
        for giver in givers {
            let (silent, answered) = self.givers.entry(giver).or_default();
            *silent = silent.saturating_sub(usize::from(was == State::Slow));
            *answered += 1;
        }
        let giver = from.addr.ip();
        let mut named: Vec<Contact> = contacts
            .filter(|contact| {
                Family::of(contact.addr) == self.family && is_acceptable(giver, contact.addr)
            })
            .collect();
        named.sort_by_key(|contact| contact.id.distance(&self.target));
        named.dedup_by_key(|contact| contact.addr);
        named.truncate(NAMED_BY_ONE);
        named.iter().for_each(|contact| self.offer(*contact, depth + 1, Some(giver)));
        let mut new = Vec::new();
        for peer in values.iter().take(PEERS_OF_ONE).filter(|peer| is_acceptable(giver, **peer)) {
            if self.peers.len() < MOST_PEERS && self.peers.insert(*peer) {
                new.push(*peer);
            }
        }
        new
    }

    /// Records that a node answers with another id than the one by which it was known. It is asked again if the new id
    /// is close too. What it said does not count: otherwise, liars could claim any place for each other.
    pub(crate) fn renamed(&mut self, contact: Contact) {
        let Some(candidate) = self.find(contact.addr) else { return };
        let (depth, was) = (candidate.depth, candidate.state.clone());
        let is_old = |it: &Candidate| it.contact.addr == contact.addr;
        self.fit.retain(|it| !is_old(it));
        self.unfit.retain(|it| !is_old(it));
        self.in_flight -= usize::from(was == State::Asked);
        self.offer(contact, depth, None);
    }

    /// Records that a node has not answered for a while.
    pub(crate) fn slow(&mut self, addr: SocketAddr) {
        let Some(candidate) = self.find(addr) else { return };
        if std::mem::replace(&mut candidate.state, State::Slow) == State::Asked {
            let givers = candidate.givers.clone();
            self.in_flight -= 1;
            self.blame(&givers);
        }
    }

    /// Records that a node did not answer, or not as the node that it should be.
    pub(crate) fn failed(&mut self, addr: SocketAddr) {
        self.slow(addr);
        self.gone.insert(addr);
        let is_gone = |it: &Candidate| it.state == State::Slow && it.contact.addr == addr;
        self.fit.retain(|it| !is_gone(it));
        self.unfit.retain(|it| !is_gone(it));
    }

    /// Remembers who named a silent node, and forgets nodes that only such givers named.
    fn blame(&mut self, givers: &[IpAddr]) {
        for giver in givers {
            self.givers.entry(*giver).or_default().0 += 1;
        }
        let believed = |giver: &IpAddr| {
            let (silent, answered) = self.givers.get(giver).copied().unwrap_or_default();
            silent < SILENT_OF_ONE + 2 * answered
        };
        let is_kept = |it: &Candidate| {
            it.state != State::Fresh || it.givers.is_empty() || it.givers.iter().any(believed)
        };
        self.fit.retain(is_kept);
        self.unfit.retain(is_kept);
    }

    /// Returns whether nothing more is to be learned.
    pub(crate) fn is_complete(&self, now: Moment) -> bool {
        if self.announcing.is_some() || self.is_waiting() {
            return false;
        }
        if self.in_flight == 0 && self.report.asked >= MOST_ASKED {
            return true;
        }
        let is_open = |list: &[Candidate]| {
            let mut window = list.iter().filter(|it| it.state != State::Slow).take(K);
            window.any(|it| matches!(it.state, State::Fresh | State::Asked))
        };
        // Slow nodes are awaited only if there are few others.
        let answered = |it: &&Candidate| matches!(it.state, State::Answered(_));
        let enough = self.fit.iter().chain(&self.unfit).filter(answered).count() >= K;
        let is_slow = |list: &[Candidate]| list.iter().any(|it| it.state == State::Slow);
        let awaited = !enough && (is_slow(&self.fit) || is_slow(&self.unfit));
        self.is_late(now) || !is_open(&self.fit) && !is_open(&self.unfit) && !awaited
    }

    /// Returns whether it has to end, whatever it has found.
    pub(crate) fn is_late(&self, now: Moment) -> bool {
        now.since(self.started) >= MOST_TIME
    }

    /// Returns the nodes that should be told of the peer, with their tokens, if the look-up is complete.
    pub(crate) fn begin_announcing(&mut self) -> Vec<(Contact, Vec<u8>)> {
        let answered = |it: &&Candidate| matches!(it.state, State::Answered(_));
        let closest = self.fit.iter().filter(answered).take(K);
        let closest: Vec<&Candidate> = closest.collect();
        self.report.rounds = closest.iter().map(|it| it.depth).max().unwrap_or(0);
        let farthest = closest.get(K - 1).map(|it| it.distance);
        let is_near = |it: &&Candidate| farthest.is_none_or(|far| it.distance < far);
        let others = self.unfit.iter().filter(answered).filter(is_near).take(K);
        let token = |it: &Candidate| match &it.state {
            State::Answered(Some(token)) => Some((it.contact, token.clone())),
            _ => None,
        };
        let told: Vec<_> = closest.into_iter().chain(others).filter_map(token).collect();
        let is_announced = matches!(self.goal, Goal::Peers { announce: Some(_), .. });
        let told = if is_announced { told } else { Vec::new() };
        self.announcing = Some(told.len());
        told
    }

    /// Records the end of one announce.
    pub(crate) fn announced(&mut self, accepted: bool) {
        self.report.announced_to += u32::from(accepted);
        self.announcing = self.announcing.map(|left| left.saturating_sub(1));
    }

    /// Returns whether all announces have ended.
    pub(crate) fn has_ended(&self, now: Moment) -> bool {
        self.announcing == Some(0) || now.since(self.started) >= MOST_TIME * 2
    }

    pub(crate) fn report(&self, now: Moment) -> LookupReport {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        LookupReport { peers, took: now.since(self.started), ..self.report }
    }

    /// Adds a node that somebody named.
    fn offer(&mut self, contact: Contact, depth: u32, giver: Option<IpAddr>) {
        let fits = contact.id.fits(contact.addr.ip());
        let (list, most) = match fits {
            true => (&mut self.fit, FIT_CANDIDATES),
            false => (&mut self.unfit, UNFIT_CANDIDATES),
        };
        let distance = contact.id.distance(&self.target);
        if list.len() >= most && list.last().is_some_and(|last| last.distance <= distance) {
            return;
        }
        if let Some(known) = list.iter_mut().find(|it| it.contact.addr == contact.addr) {
            let is_new = |giver: &IpAddr| known.contact == contact && !known.givers.contains(giver);
            if let Some(giver) = giver.filter(is_new)
                && !known.givers.is_empty()
                && known.givers.len() < MOST_GIVERS
            {
                known.givers.push(giver);
            }
            return;
        }
        // What is in private networks has any id, and may share an address.
        let network = subnet_of(contact.addr.ip());
        let is_near = |it: &Candidate| network.is_some() && it.network == network;
        if list.iter().any(is_near) || self.gone.contains(&contact.addr) {
            return;
        }
        let at = list.partition_point(|it| it.distance < distance);
        if at >= most {
            return;
        }
        let givers = giver.into_iter().collect();
        let state = State::Fresh;
        list.insert(at, Candidate { contact, network, distance, depth, givers, state });
        // Nodes that were asked stay until they answer.
        while list.len() > most {
            let done = |it: &Candidate| !matches!(it.state, State::Asked);
            let Some(last) = list.iter().rposition(done) else { return };
            list.remove(last);
        }
    }

    fn find(&mut self, addr: SocketAddr) -> Option<&mut Candidate> {
        let lists = self.fit.iter_mut().chain(&mut self.unfit);
        let mut asked = lists.filter(|it| matches!(it.state, State::Asked | State::Slow));
        asked.find(|it| it.contact.addr == addr)
    }
}

/// Questions at a time. Slow ones do not count.
const ALPHA: usize = 4;

/// A look-up among ten million nodes takes about 40.
const MOST_ASKED: u32 = 128;

const MOST_TIME: Duration = Duration::from_secs(60);

/// Nodes that one answer may name.
const NAMED_BY_ONE: usize = K;

/// A node that named so many silent ones is not believed any more. Each other one that answered speaks for two of
/// them: a quarter of all nodes is gone at any time.
const SILENT_OF_ONE: usize = 3;

/// Nodes that are remembered for having named another.
const MOST_GIVERS: usize = 4;

/// Candidates that are remembered: some more than the closest ones, because many are gone.
const FIT_CANDIDATES: usize = 40;
const UNFIT_CANDIDATES: usize = 16;

/// An answer of 1,500 bytes has room for more, but nodes do not send them.
const PEERS_OF_ONE: usize = 120;

/// A torrent has room for fewer candidates.
const MOST_PEERS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::Rng;

    const NOW: Moment = Moment::from_secs(1);
    const HASH: InfoHash = InfoHash([0xff; 20]);

    fn lookup() -> Lookup {
        let announce = Some(AnnounceAs { port: 1, implied_port: false, is_seed: false });
        let goal = Goal::Peers { info_hash: HASH, announce };
        Lookup::new(NOW, HASH.into(), Family::V4, goal)
    }

    /// An honest node; the closer, the higher `n`.
    fn node(n: u8) -> Contact {
        Contact { id: NodeId([n; 20]), addr: ([10, 0, 0, n], 7).into() }
    }

    fn answer(lookup: &mut Lookup, from: Contact, named: &[Contact]) {
        lookup.answered(from, Some(b"token"), named.iter().copied(), &[]);
    }

    #[test]
    fn it_ends_when_the_closest_nodes_have_answered() {
        let mut lookup = lookup();
        assert!(lookup.is_waiting() && !lookup.is_complete(NOW));
        lookup.begin_at(&[node(1)]);
        // Each node names eight that are closer.
        let mut asked = 0;
        while let Some(contact) = lookup.next(NOW) {
            asked += 1;
            let n = contact.id.0[0];
            let named: Vec<Contact> =
                (1..=8).filter_map(|step| n.checked_add(step)).map(node).collect();
            answer(&mut lookup, contact, &named);
        }
        assert!(lookup.is_complete(NOW));
        assert!(asked < 60, "{asked}");
        let told: Vec<u8> = lookup.begin_announcing().iter().map(|(it, _)| it.id.0[0]).collect();
        assert_eq!(told, (248..=255).rev().collect::<Vec<u8>>());
        (0..8).for_each(|n| lookup.announced(n != 0));
        assert!(lookup.has_ended(NOW));
        let report = lookup.report(NOW + Duration::from_secs(2));
        assert_eq!((report.announced_to, report.took), (7, Duration::from_secs(2)));
        assert!((30..=34).contains(&report.rounds), "{report:?}");
    }

    #[test]
    fn few_nodes_are_asked_at_a_time_and_slow_ones_do_not_count() {
        let mut lookup = lookup();
        lookup.begin_at(&(1..=8).map(node).collect::<Vec<_>>());
        let asked: Vec<Contact> = std::iter::from_fn(|| lookup.next(NOW)).collect();
        assert_eq!(asked, [node(8), node(7), node(6), node(5)]);
        lookup.slow(node(8).addr);
        assert_eq!(lookup.next(NOW), Some(node(4)));
        assert_eq!(lookup.next(NOW), None);
        // A slow answer counts.
        answer(&mut lookup, node(8), &[]);
        assert_eq!(lookup.next(NOW), None);
        assert!(!lookup.is_complete(NOW) && lookup.is_complete(NOW + MOST_TIME));
    }

    #[test]
    fn nodes_with_ids_that_do_not_fit_displace_nobody() {
        let mut lookup = lookup();
        let mut rng = Rng::from_seed(1);
        let honest: Vec<Contact> = (0..20)
            .map(|n| {
                let ip = [8, n, 0, 1];
                Contact { id: NodeId::for_ip(ip.into(), &mut rng), addr: (ip, 1).into() }
            })
            .collect();
        lookup.begin_at(&honest);
        // All of them claim to be as close as possible.
        let liars: Vec<Contact> = (0..200_u8)
            .map(|n| Contact { id: NodeId(HASH.0), addr: ([9, n, 0, 1], 1).into() })
            .collect();
        lookup.begin_at(&liars);
        while let Some(contact) = lookup.next(NOW) {
            answer(&mut lookup, contact, &liars);
        }
        assert!(lookup.is_complete(NOW));
        let told = lookup.begin_announcing();
        let fit = told.iter().filter(|(it, _)| it.id.fits(it.addr.ip())).count();
        assert_eq!((fit, told.len()), (8, 16));
    }

    #[test]
    fn one_node_of_a_network_is_asked() {
        let mut lookup = lookup();
        let near = |n: u8| Contact { id: NodeId([n; 20]), addr: ([9, 9, 9, n], 7).into() };
        lookup.begin_at(&(0..=255).map(near).collect::<Vec<_>>());
        let asked: Vec<Contact> = std::iter::from_fn(|| lookup.next(NOW)).collect();
        assert_eq!(asked.len(), 1);
        // Another one, if that does not exist.
        lookup.failed(asked[0].addr);
        lookup.begin_at(&[near(7)]);
        assert_eq!(lookup.next(NOW), Some(near(7)));
    }

    #[test]
    fn a_node_that_names_silent_ones_is_not_believed_for_long() {
        let mut lookup = lookup();
        lookup.begin_at(&[node(1), node(2)]);
        let (liar, honest) = (lookup.next(NOW).unwrap(), lookup.next(NOW).unwrap());
        answer(&mut lookup, liar, &(200..250).map(node).collect::<Vec<_>>());
        let mut asked = 0;
        while let Some(contact) = lookup.next(NOW) {
            assert!(contact.id.0[0] >= 200);
            asked += 1;
            lookup.failed(contact.addr);
        }
        assert!(asked <= SILENT_OF_ONE, "{asked}");
        answer(&mut lookup, honest, &[node(100)]);
        assert_eq!(lookup.next(NOW), Some(node(100)));
    }

    #[test]
    fn peers_are_returned_once_and_only_those_that_may_be_named() {
        let mut lookup = lookup();
        let giver = Contact { id: NodeId([1; 20]), addr: ([8, 8, 8, 8], 1).into() };
        lookup.begin_at(&[giver, node(7)]);
        while lookup.next(NOW).is_some() {}
        let good = SocketAddr::from(([9, 9, 9, 9], 1));
        let bad = ["10.0.0.1:1", "127.0.0.1:1", "9.9.9.9:0", "224.0.0.1:1"];
        let mut values: Vec<SocketAddr> = bad.iter().map(|it| it.parse().unwrap()).collect();
        values.extend([good, good]);
        assert_eq!(lookup.answered(giver, None, [].into_iter(), &values), [good]);
        assert_eq!(lookup.answered(node(7), None, [].into_iter(), &[good]), []);
        assert_eq!(lookup.report(NOW).peers, 1);
    }

    #[test]
    fn nobody_keeps_it_busy_for_ever() {
        let mut lookup = lookup();
        let mut rng = Rng::from_seed(1);
        lookup.begin_at(&[node(1)]);
        let mut n = 0_u32;
        while let Some(contact) = lookup.next(NOW) {
            // Always closer, always fitting.
            let named = (0..8_u32).map(|_| {
                n += 1;
                let mut id = NodeId::random(&mut rng);
                let bits = (n / 8 + 8) as usize;
                id.0[..(bits / 8).min(20)].fill(0xff);
                let [_, b, c, d] = n.to_be_bytes();
                Contact { id, addr: ([10, b, c, d], 9).into() }
            });
            let named: Vec<Contact> = named.collect();
            answer(&mut lookup, contact, &named);
        }
        assert!(lookup.report.asked <= MOST_ASKED);
        assert!(lookup.is_complete(NOW));
        assert!(lookup.fit.len() <= FIT_CANDIDATES);
    }
}
