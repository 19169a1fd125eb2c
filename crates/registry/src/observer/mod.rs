//! Decides which peers to connect to in order to read their holdings, when to connect again, and when a peer is gone.
//! No I/O: a driver passes events in and carries out the actions of [`Observer::poll`].
//!
//! Invariant: every peer is either waiting, and then in `due` exactly once, or has a visit, and then in `visits`
//! exactly once.

mod budget;
mod event;
mod visit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_core::{InfoHash, Moment, Rng, is_dialable, network_of};

use budget::DialBudget;

pub use event::ObserverEvent;
pub use visit::{ObserverAction, ObserverConfig, ObserverFigures, VisitEnd, VisitKey};

/// The state machine of a tracker that observes peers.
pub struct Observer {
    config: ObserverConfig,
    rng: Rng,
    peers: BTreeMap<(SocketAddr, InfoHash), ObservedPeer>,
    torrents: BTreeMap<InfoHash, TorrentVisits>,
    due: BTreeSet<(Moment, SocketAddr, InfoHash)>,
    visits: BTreeMap<VisitKey, (SocketAddr, InfoHash)>,
    last_visit: u64,
    dialing: usize,
    /// The number of attempts that were refused, unanswered or declined.
    failed: u64,
    /// The attempts that each network may still get.
    budgets: BTreeMap<IpAddr, DialBudget>,
    budget: DialBudget,
    /// When any peer last sent something, which shows that the tracker's own network works.
    heard_at: Moment,
    actions: VecDeque<ObserverAction>,
}

struct ObservedPeer {
    state: VisitState,
    /// Whether the peer announced that it is complete.
    complete: bool,
    /// Whether the peer reports its holdings.
    reports: bool,
    /// Whether the peer has ever accepted a connection.
    reached: bool,
    /// The last reported value of whether the peer accepts connections.
    reachable: Option<bool>,
    /// The number of consecutive attempts that found nobody.
    misses: u32,
    /// The number of consecutive connections that ended soon.
    short: u32,
    /// When the last connection began, and when it ended.
    dialled_at: Option<Moment>,
    ended_at: Moment,
}

#[derive(Clone, Copy)]
enum VisitState {
    Waiting(Moment),
    Dialing(VisitKey),
    Open {
        visit: VisitKey,
        since: Moment,
        /// The local address.
        local: IpAddr,
        /// Whether the client accepts several connections from one address.
        several: bool,
    },
}

#[derive(Default)]
struct TorrentVisits {
    known: usize,
    /// Peers that were never reached although it was tried.
    unreached: BTreeSet<SocketAddr>,
    /// The number of connections and attempts.
    visits: usize,
}

impl Observer {
    /// Returns an observer that knows no peers.
    pub fn new(config: ObserverConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            peers: BTreeMap::new(),
            torrents: BTreeMap::new(),
            due: BTreeSet::new(),
            visits: BTreeMap::new(),
            last_visit: 0,
            dialing: 0,
            failed: 0,
            budgets: BTreeMap::new(),
            budget: DialBudget { left: DIALS_AT_ONCE, at: Moment::START },
            heard_at: Moment::START,
            actions: VecDeque::new(),
        }
    }

    /// Handles an event about a peer.
    pub fn handle(&mut self, now: Moment, event: ObserverEvent) {
        match event {
            ObserverEvent::Left { info_hash, addr } => self.forget((addr, info_hash)),
            ObserverEvent::Here {
                info_hash,
                addr,
                complete,
                reports,
                stale,
                restored,
                peer_id,
            } => {
                self.make_way(now, info_hash, addr);
                if !is_dialable(addr) {
                    return;
                }
                if let Some(peer) = self.peers.get_mut(&(addr, info_hash)) {
                    (peer.complete, peer.reports) = (complete, reports);
                    // It is alive, even if its port does not answer.
                    peer.misses = 0;
                    if stale {
                        self.look_anew(now, (addr, info_hash));
                    }
                    return;
                }
                let most = self.config.max_per_torrent.saturating_mul(KNOWN_PER_PLACE);
                let known = self.torrents.get(&info_hash);
                if known.is_some_and(|torrent| torrent.known >= most)
                    || self.peers.len() >= MAX_KNOWN
                {
                    // Unreachable peers must not keep others from being visited.
                    let unreached = known.and_then(|torrent| torrent.unreached.first().copied());
                    let Some(unreached) = unreached else { return };
                    self.forget((unreached, info_hash));
                }
                self.torrents.entry(info_hash).or_default().known += 1;
                let ours = peer_id.0.starts_with(b"-PW");
                let due = match restored {
                    // Restored peers come before all others, because it is not known whether they are still there.
                    Some(_) => Moment::START,
                    None => now + if ours { FIRST_LOOK_AT_OURS } else { FIRST_LOOK },
                };
                self.due.insert((due, addr, info_hash));
                self.peers.insert(
                    (addr, info_hash),
                    ObservedPeer {
                        state: VisitState::Waiting(due),
                        complete,
                        reports,
                        reached: restored == Some(true),
                        reachable: None,
                        misses: 0,
                        short: 0,
                        dialled_at: None,
                        ended_at: now,
                    },
                );
                // One connection shows that the program is running.
                if self.at(addr).any(|(_, peer)| matches!(peer.state, VisitState::Open { .. })) {
                    self.tell_reachable(addr, true);
                }
            }
        }
    }

    /// Schedules a new visit to a peer with stale holdings, ending the present one: a peer sends its holdings at the
    /// beginning of a connection.
    fn look_anew(&mut self, now: Moment, key: (SocketAddr, InfoHash)) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (addr, info_hash) = key;
        match peer.state {
            VisitState::Waiting(due) if due > now => {
                self.due.remove(&(due, addr, info_hash));
                peer.state = VisitState::Waiting(now);
                self.due.insert((now, addr, info_hash));
            }
            VisitState::Open { visit, since, .. } if now.since(since) >= SETTLED => {
                self.actions.push_back(ObserverAction::HangUp { visit, info_hash, addr });
                self.ended(now, visit, VisitEnd::Closed);
            }
            VisitState::Waiting(_) | VisitState::Dialing(_) | VisitState::Open { .. } => {}
        }
    }

    /// Forgets all peers of a torrent that is not to be observed any more.
    pub fn leave(&mut self, info_hash: InfoHash) {
        let of_it: Vec<_> =
            self.peers.keys().filter(|(_, torrent)| *torrent == info_hash).copied().collect();
        of_it.into_iter().for_each(|key| self.forget(key));
    }

    /// Records that an attempt led to an open connection from the local address `local`. `several` says whether the
    /// client accepts several connections from one address.
    pub fn opened(&mut self, now: Moment, visit: VisitKey, local: IpAddr, several: bool) {
        self.heard_at = self.heard_at.max(now);
        let Some(key) = self.visits.get(&visit) else { return };
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !matches!(peer.state, VisitState::Dialing(_)) {
            return;
        }
        let local = local.to_canonical();
        peer.state = VisitState::Open { visit, since: now, local, several };
        (peer.reached, peer.misses) = (true, 0);
        self.dialing -= 1;
        let (addr, info_hash) = *key;
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            torrent.unreached.remove(&addr);
        }
        self.tell_reachable(addr, true);
    }

    /// Records that some peer has sent something.
    pub fn heard(&mut self, now: Moment) {
        self.heard_at = self.heard_at.max(now);
    }

    /// Records the end of a connection or attempt.
    pub fn ended(&mut self, now: Moment, visit: VisitKey, end: VisitEnd) {
        let Some(key) = self.visits.remove(&visit) else { return };
        if let Some(torrent) = self.torrents.get_mut(&key.1) {
            torrent.visits -= 1;
        }
        let heard_at = self.heard_at;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let opened = match peer.state {
            VisitState::Open { since, .. } => Some(since),
            _ => None,
        };
        if opened.is_none() {
            self.dialing -= 1;
        }
        use VisitEnd::{Declined, HungUp, Refused, Unanswered};
        if opened.is_none() && matches!(end, Refused | Unanswered | Declined | HungUp) {
            self.failed += 1;
        }
        if end == VisitEnd::Unlisted {
            // The visit is already over, so `forget` must not hang up.
            peer.state = VisitState::Waiting(now);
            return self.forget(key);
        }
        let VisitOutcome { pause, gone, refuses } = peer.visited(now, end, opened, heard_at);
        let is_there = peer.reached;
        let pause = pause.max(self.config.pause);
        let due = now + pause;
        peer.state = VisitState::Waiting(due);
        self.due.insert((due, key.0, key.1));
        if is_there && let Some(torrent) = self.torrents.get_mut(&key.1) {
            torrent.unreached.remove(&key.0);
        }
        if refuses {
            let never = !peer.reached;
            if let Some(torrent) = self.torrents.get_mut(&key.1).filter(|_| never) {
                torrent.unreached.insert(key.0);
            }
            self.tell_reachable(key.0, false);
        }
        if matches!(end, VisitEnd::Probed | VisitEnd::Elsewhere) {
            self.tell_reachable(key.0, true);
        }
        if gone {
            self.all_gone(key.0);
        }
    }

    /// Returns the next action, if there is one now.
    pub fn poll(&mut self, now: Moment) -> Option<ObserverAction> {
        while self.actions.is_empty() && self.has_room() {
            // Due peers stay in the queue: moving all of them ten times a second would cost more the longer the
            // queue is.
            if self.budget.refresh(now, DIALS_A_SECOND, DIALS_AT_ONCE) < 1.0 {
                break;
            }
            let Some((due, addr, info_hash)) = self.due.first().copied() else { break };
            if due > now {
                break;
            }
            self.due.pop_first();
            let later = self.obstacle(now, addr, info_hash);
            let Some(peer) = self.peers.get_mut(&(addr, info_hash)) else { continue };
            if let Some(later) = later {
                // Never at once: the loop would not end.
                let due = now + later.max(SOON);
                peer.state = VisitState::Waiting(due);
                self.due.insert((due, addr, info_hash));
                continue;
            }
            self.last_visit += 1;
            let visit = VisitKey(self.last_visit);
            peer.state = VisitState::Dialing(visit);
            peer.dialled_at = Some(now);
            self.dialing += 1;
            self.visits.insert(visit, (addr, info_hash));
            self.torrents.entry(info_hash).or_default().visits += 1;
            self.actions.push_back(ObserverAction::Dial { visit, info_hash, addr });
        }
        self.actions.pop_front()
    }

    /// Returns when [`Observer::poll`] has to be called next if no event comes before.
    pub fn deadline(&self) -> Option<Moment> {
        if !self.actions.is_empty() {
            return Some(Moment::START);
        }
        let (due, ..) = self.due.first().filter(|_| self.has_room())?;
        Some((*due).max(self.budget.enough_at(DIALS_A_SECOND)))
    }

    /// Returns the number of connections and attempts.
    pub fn visits(&self) -> usize {
        self.visits.len()
    }

    /// Returns the number of known peers.
    pub fn known(&self) -> usize {
        self.peers.len()
    }

    /// Returns the observer's counters.
    pub fn figures(&self) -> ObserverFigures {
        ObserverFigures {
            known: self.peers.len(),
            open: self.visits.len() - self.dialing,
            dialing: self.dialing,
            dials: self.last_visit,
            failed: self.failed,
        }
    }

    fn has_room(&self) -> bool {
        self.visits.len() < self.config.max_connections && self.dialing < MAX_DIALING
    }

    /// Returns how long a peer must not be dialled yet, or takes a token from the budgets and returns `None`. Does
    /// not check the overall budget, which [`Observer::poll`] does.
    fn obstacle(&mut self, now: Moment, addr: SocketAddr, info_hash: InfoHash) -> Option<Duration> {
        let peer = self.peers.get(&(addr, info_hash))?;
        if let Some(last) = peer.dialled_at
            && now.since(last) < self.config.pause
        {
            return Some(self.config.pause - now.since(last));
        }
        let in_torrent = self.torrents.get(&info_hash).map_or(0, |torrent| torrent.visits);
        let most = self.config.max_connections;
        // Peers that make progress are worth more than complete ones.
        let crowded = peer.complete && self.visits.len() >= most - most / 4;
        // One connection shows that the program is running; its holdings it reports itself.
        let twin = peer.reports && self.at(addr).any(|(_, peer)| peer.visit().is_some());
        if in_torrent >= self.config.max_per_torrent || crowded || twin {
            // At random, so that other peers get their turn in time.
            return Some(NO_PLACE + Duration::from_millis(self.rng.below(10_000)));
        }
        // Peers on the tracker's own machine are exempt.
        if !addr.ip().is_loopback() {
            let network = network_of(addr.ip());
            if self.budgets.len() >= MAX_BUDGETS && !self.budgets.contains_key(&network) {
                self.budgets.retain(|_, budget| {
                    budget.refresh(now, NETWORK_A_SECOND, NETWORK_AT_ONCE) < NETWORK_AT_ONCE
                });
                if self.budgets.len() >= MAX_BUDGETS {
                    return Some(SOON);
                }
            }
            let full = DialBudget { left: NETWORK_AT_ONCE, at: now };
            let budget = self.budgets.entry(network).or_insert(full);
            if budget.refresh(now, NETWORK_A_SECOND, NETWORK_AT_ONCE) < 1.0 {
                // At random, so that the peers of a large network do not all come back at once again and again.
                let refilled = Duration::from_secs_f64((1.0 - budget.left) / NETWORK_A_SECOND);
                return Some(refilled + Duration::from_millis(self.rng.below(NETWORK_SPREAD_MS)));
            }
        }
        self.budget.left -= 1.0;
        if let Some(budget) = self.budgets.get_mut(&network_of(addr.ip())) {
            budget.left -= 1.0;
        }
        None
    }

    /// Handles a new peer at an address that the observer's own connections come from. Ends the visits to clients
    /// that accept only one connection from an address, so that they can connect to the new peer.
    fn make_way(&mut self, now: Moment, info_hash: InfoHash, addr: SocketAddr) {
        let in_way = |(key, peer): (&(SocketAddr, InfoHash), &ObservedPeer)| match peer.state {
            VisitState::Open { visit, local, several: false, .. }
                if key.1 == info_hash && local == addr.ip() && key.0 != addr =>
            {
                Some((*key, visit))
            }
            _ => None,
        };
        if self.torrents.get(&info_hash).is_none_or(|torrent| torrent.visits == 0) {
            return;
        }
        let visits: Vec<_> = self
            .visits
            .values()
            .filter(|key| key.1 == info_hash)
            .filter_map(|key| in_way((key, self.peers.get(key)?)))
            .collect();
        for ((there, _), visit) in visits {
            self.actions.push_back(ObserverAction::HangUp { visit, info_hash, addr: there });
            self.ended(now, visit, VisitEnd::NoRoom);
        }
    }

    /// Reports for all torrents of the peer at an address whether it accepts connections, if that has changed.
    fn tell_reachable(&mut self, addr: SocketAddr, reachable: bool) {
        let here = (addr, InfoHash([0; 20]))..=(addr, InfoHash([0xff; 20]));
        for ((_, info_hash), peer) in self.peers.range_mut(here) {
            if peer.reachable != Some(reachable) {
                peer.reachable = Some(reachable);
                let info_hash = *info_hash;
                self.actions.push_back(ObserverAction::Checked { info_hash, addr, reachable });
            }
        }
    }

    /// Removes the peer at an address from all its torrents, except where a connection to it is open.
    fn all_gone(&mut self, addr: SocketAddr) {
        let gone: Vec<_> = self
            .at(addr)
            .filter(|(_, peer)| !matches!(peer.state, VisitState::Open { .. }))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.actions.push_back(ObserverAction::Gone { info_hash: key.1, addr });
            self.forget(key);
        }
    }

    /// Returns the peer at `addr` in all its torrents.
    fn at(
        &self,
        addr: SocketAddr,
    ) -> impl Iterator<Item = (&(SocketAddr, InfoHash), &ObservedPeer)> {
        self.peers.range((addr, InfoHash([0; 20]))..=(addr, InfoHash([0xff; 20])))
    }

    fn forget(&mut self, key: (SocketAddr, InfoHash)) {
        let Some(peer) = self.peers.remove(&key) else { return };
        let (addr, info_hash) = key;
        match peer.state {
            VisitState::Waiting(due) => _ = self.due.remove(&(due, addr, info_hash)),
            VisitState::Dialing(visit) | VisitState::Open { visit, .. } => {
                if matches!(peer.state, VisitState::Dialing(_)) {
                    self.dialing -= 1;
                }
                self.visits.remove(&visit);
                if let Some(torrent) = self.torrents.get_mut(&info_hash) {
                    torrent.visits -= 1;
                }
                self.actions.push_back(ObserverAction::HangUp { visit, info_hash, addr });
            }
        }
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            torrent.unreached.remove(&addr);
            torrent.known -= 1;
            if torrent.known == 0 {
                self.torrents.remove(&info_hash);
            }
        }
    }

    /// Panics if an invariant is violated.
    #[cfg(any(test, feature = "fuzzing"))]
    #[doc(hidden)]
    pub fn check(&self) {
        let mut dialing = 0;
        let mut waiting = 0;
        for ((addr, info_hash), peer) in &self.peers {
            match peer.state {
                VisitState::Waiting(due) => {
                    waiting += 1;
                    assert!(self.due.contains(&(due, *addr, *info_hash)));
                }
                VisitState::Dialing(visit) | VisitState::Open { visit, .. } => {
                    dialing += usize::from(matches!(peer.state, VisitState::Dialing(_)));
                    assert_eq!(self.visits.get(&visit), Some(&(*addr, *info_hash)));
                }
            }
        }
        assert_eq!((waiting, dialing), (self.due.len(), self.dialing));
        assert_eq!(waiting + self.visits.len(), self.peers.len());
        for (info_hash, torrent) in &self.torrents {
            for addr in &torrent.unreached {
                assert!(!self.peers[&(*addr, *info_hash)].reached);
            }
        }
        let known: usize = self.torrents.values().map(|torrent| torrent.known).sum();
        let visits: usize = self.torrents.values().map(|torrent| torrent.visits).sum();
        assert_eq!((known, visits), (self.peers.len(), self.visits.len()));
    }
}

/// What the end of a visit means for a peer.
struct VisitOutcome {
    /// The time until the next visit.
    pause: Duration,
    /// Whether the peer was reachable before and is gone.
    gone: bool,
    /// Whether the peer accepts no connections.
    refuses: bool,
}

impl VisitOutcome {
    fn again_after(pause: Duration) -> Self {
        Self { pause, gone: false, refuses: false }
    }
}

impl ObservedPeer {
    /// Records how a visit ended. `opened` is when the connection was opened, `heard_at` when any peer last sent
    /// something.
    fn visited(
        &mut self,
        now: Moment,
        end: VisitEnd,
        opened: Option<Moment>,
        heard_at: Moment,
    ) -> VisitOutcome {
        match end {
            VisitEnd::Ours => VisitOutcome::again_after(OUR_FAULT),
            VisitEnd::NoRoom => VisitOutcome::again_after(NO_ROOM),
            VisitEnd::Probed => {
                self.found(now);
                VisitOutcome::again_after(NO_ROOM)
            }
            VisitEnd::Elsewhere => {
                self.found(now);
                VisitOutcome::again_after(ELSEWHERE)
            }
            VisitEnd::Refused | VisitEnd::Unanswered if opened.is_none() => {
                self.missed(end == VisitEnd::Refused, heard_at)
            }
            _ => {
                // A peer that hangs up is there. The next visits show when it no longer is.
                self.found(now);
                let settled = opened.is_some_and(|since| now.since(since) >= SETTLED);
                self.short = if settled { 0 } else { self.short + 1 };
                VisitOutcome::again_after(match self.short {
                    // The program may have been killed, which an immediate attempt shows.
                    0 | 1 if opened.is_some() => Duration::ZERO,
                    short => doubled(UNWANTED, short.saturating_sub(2), UNWANTED_MOST),
                })
            }
        }
    }

    /// Records an attempt that found nobody.
    fn missed(&mut self, refused: bool, heard_at: Moment) -> VisitOutcome {
        self.misses += 1;
        let enough = if refused {
            REFUSALS
        } else if heard_at > self.ended_at {
            SILENCES
        } else {
            // Perhaps the tracker's own network is down.
            u32::MAX
        };
        let pause = if self.reached && self.misses < SILENCES {
            LOOK_AGAIN
        } else {
            doubled(UNREACHED, self.misses - 1, UNREACHED_MOST)
        };
        VisitOutcome {
            pause,
            gone: self.reached && self.misses >= enough,
            refuses: refused || self.misses >= UNANSWERED,
        }
    }

    /// Records that the peer accepted a connection.
    fn found(&mut self, now: Moment) {
        (self.reached, self.misses) = (true, 0);
        self.ended_at = now;
    }

    fn visit(&self) -> Option<VisitKey> {
        match self.state {
            VisitState::Waiting(_) => None,
            VisitState::Dialing(visit) | VisitState::Open { visit, .. } => Some(visit),
        }
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

/// The time between an announce and the first visit: the peer may not listen yet.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// The same for Piecework peers. They report their holdings within seconds, and one visit to any of a daemon's
/// torrents shows that it is running.
const FIRST_LOOK_AT_OURS: Duration = Duration::from_secs(10);

/// A connection that lasted this long was accepted. aria2 closes connections that request nothing after 30 s.
const SETTLED: Duration = Duration::from_secs(10);

/// The time between two attempts at a peer that was there a moment ago.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The number of consecutive refusals after which a peer that had been reached is gone: some five seconds including
/// the attempts. And the number of unanswered attempts: some 25 seconds.
const REFUSALS: u32 = 2;
const SILENCES: u32 = 3;

/// The number of unanswered attempts after which a peer counts as one that accepts no connections.
const UNANSWERED: u32 = 2;

/// The time between attempts at a peer that was never reached. Most of them are behind a router without a port
/// mapping.
const UNREACHED: Duration = Duration::from_secs(30);
const UNREACHED_MOST: Duration = Duration::from_secs(600);

/// The time between connections to a peer that hangs up soon. Kept short, because the peer is handed out until the
/// observer sees that it is gone.
const UNWANTED: Duration = Duration::from_secs(15);
const UNWANTED_MOST: Duration = Duration::from_secs(60);

/// The pause after a fault of the tracker, such as no free file descriptors.
const OUR_FAULT: Duration = Duration::from_secs(5);

/// The pause after a visit that would have blocked another peer.
const NO_ROOM: Duration = Duration::from_secs(60);

/// The pause while a peer is observed at its other address. This address is still probed, for clients that have only
/// this address family.
const ELSEWHERE: Duration = Duration::from_secs(600);

/// The minimum pause while the torrent has reached its limit of connections.
const NO_PLACE: Duration = Duration::from_secs(20);

/// The minimum pause after any obstacle.
const SOON: Duration = Duration::from_millis(200);

/// The maximum number of attempts at a time.
const MAX_DIALING: usize = 50;

/// The overall limit of attempts per second, and at once.
const DIALS_A_SECOND: f64 = 50.0;
const DIALS_AT_ONCE: f64 = 100.0;

/// The limits for one network. An announce can only name the address that it comes from, but any port: the tracker
/// must not become a port scanner.
const NETWORK_A_SECOND: f64 = 2.0;
const NETWORK_AT_ONCE: f64 = 20.0;

/// Peers of a network that has used up its budget are tried again within this time: of a thousand peers, 125 per
/// second.
const NETWORK_SPREAD_MS: u64 = 8_000;

/// The maximum number of networks whose attempts are counted. Full budgets are dropped first.
const MAX_BUDGETS: usize = 10_000;

/// The maximum number of known peers for each connection of a torrent, and in all, at some 150 bytes each. Other
/// peers come again with their next announce.
const KNOWN_PER_PLACE: usize = 4;
const MAX_KNOWN: usize = 100_000;

#[cfg(test)]
mod tests;
