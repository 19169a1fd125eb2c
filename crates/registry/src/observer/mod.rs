//! Whom to connect to, to see what they hold; when again; and when a peer counts as gone. No I/O:
//! a driver feeds it what happens and carries out what [`Observer::poll`] asks for.
//!
//! Invariant: every peer is either waiting, and then in `due` exactly once, or has a visit, which
//! `visits` leads back to it.

mod budget;
mod sighting;
mod visit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_core::{InfoHash, Moment, Rng, is_dialable, network_of};

use budget::Budget;

pub use sighting::Sighting;
pub use visit::{ObserverAction, ObserverConfig, ObserverFigures, VisitEnd, VisitKey};

/// The decisions of a tracker that observes.
pub struct Observer {
    config: ObserverConfig,
    rng: Rng,
    peers: BTreeMap<(SocketAddr, InfoHash), Peer>,
    torrents: BTreeMap<InfoHash, TorrentVisits>,
    due: BTreeSet<(Moment, SocketAddr, InfoHash)>,
    visits: BTreeMap<VisitKey, (SocketAddr, InfoHash)>,
    last_visit: u64,
    dialing: usize,
    /// Attempts that found nobody, or nobody who wanted us.
    failed: u64,
    /// How many dials each network may still have, and as of when.
    budgets: BTreeMap<IpAddr, Budget>,
    budget: Budget,
    /// When any peer showed a sign of life: our own network works.
    heard_at: Moment,
    actions: VecDeque<ObserverAction>,
}

struct Peer {
    state: State,
    /// It says that it holds everything.
    complete: bool,
    /// It reports its holdings itself.
    reports: bool,
    /// It took a connection of ours once.
    reached: bool,
    /// What was told last of whether it takes connections.
    reachable: Option<bool>,
    /// Attempts in a row that found nobody.
    misses: u32,
    /// Connections in a row that ended soon.
    short: u32,
    /// When the last connection was begun, and when it ended.
    dialled_at: Option<Moment>,
    ended_at: Moment,
}

#[derive(Clone, Copy)]
enum State {
    Waiting(Moment),
    Dialing(VisitKey),
    Open {
        visit: VisitKey,
        since: Moment,
        /// The address of ours.
        local: IpAddr,
        /// It takes several connections from one address.
        several: bool,
    },
}

#[derive(Default)]
struct TorrentVisits {
    known: usize,
    /// Peers that were never reached, and not for want of an attempt.
    unreached: BTreeSet<SocketAddr>,
    /// Connections and attempts.
    visits: usize,
}

impl Observer {
    /// One that knows nobody.
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
            budget: Budget { left: DIALS_AT_ONCE, at: Moment::START },
            heard_at: Moment::START,
            actions: VecDeque::new(),
        }
    }

    /// A peer announced, or left.
    pub fn sighted(&mut self, now: Moment, sighting: Sighting) {
        match sighting {
            Sighting::Left { info_hash, addr } => self.forget((addr, info_hash)),
            Sighting::Here { info_hash, addr, complete, reports, stale, restored, peer_id } => {
                self.make_way(now, info_hash, addr);
                if !is_dialable(addr) {
                    return;
                }
                if let Some(peer) = self.peers.get_mut(&(addr, info_hash)) {
                    (peer.complete, peer.reports) = (complete, reports);
                    // It lives, whatever its port does.
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
                    // Those that nobody can reach do not keep others from being looked at.
                    let unreached = known.and_then(|torrent| torrent.unreached.first().copied());
                    let Some(unreached) = unreached else { return };
                    self.forget((unreached, info_hash));
                }
                self.torrents.entry(info_hash).or_default().known += 1;
                let ours = peer_id.0.starts_with(b"-PW");
                let due = match restored {
                    // Before all others, in their order: it is not known whether they are there.
                    Some(_) => Moment::START,
                    None => now + if ours { FIRST_LOOK_AT_OURS } else { FIRST_LOOK },
                };
                self.due.insert((due, addr, info_hash));
                self.peers.insert(
                    (addr, info_hash),
                    Peer {
                        state: State::Waiting(due),
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
                // One connection shows whether the program is there.
                if self.at(addr).any(|(_, peer)| matches!(peer.state, State::Open { .. })) {
                    self.tell_reachable(addr, true);
                }
            }
        }
    }

    /// Has a peer visited soon, though it is being visited now: what it showed is old, and it says
    /// what it holds when a connection begins.
    fn look_anew(&mut self, now: Moment, key: (SocketAddr, InfoHash)) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (addr, info_hash) = key;
        match peer.state {
            State::Waiting(due) if due > now => {
                self.due.remove(&(due, addr, info_hash));
                peer.state = State::Waiting(now);
                self.due.insert((now, addr, info_hash));
            }
            State::Open { visit, since, .. } if now.since(since) >= SETTLED => {
                self.actions.push_back(ObserverAction::HangUp { visit, info_hash, addr });
                self.ended(now, visit, VisitEnd::Closed);
            }
            State::Waiting(_) | State::Dialing(_) | State::Open { .. } => {}
        }
    }

    /// A torrent is not to be observed (any more).
    pub fn leave(&mut self, info_hash: InfoHash) {
        let of_it: Vec<_> =
            self.peers.keys().filter(|(_, torrent)| *torrent == info_hash).copied().collect();
        of_it.into_iter().for_each(|key| self.forget(key));
    }

    /// An attempt came to an open connection, from our address `local`, to a client that does or
    /// does not take `several` connections from one address.
    pub fn opened(&mut self, now: Moment, visit: VisitKey, local: IpAddr, several: bool) {
        self.heard_at = self.heard_at.max(now);
        let Some(key) = self.visits.get(&visit) else { return };
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !matches!(peer.state, State::Dialing(_)) {
            return;
        }
        let local = local.to_canonical();
        peer.state = State::Open { visit, since: now, local, several };
        (peer.reached, peer.misses) = (true, 0);
        self.dialing -= 1;
        let (addr, info_hash) = *key;
        if let Some(torrent) = self.torrents.get_mut(&info_hash) {
            torrent.unreached.remove(&addr);
        }
        self.tell_reachable(addr, true);
    }

    /// Some peer said something.
    pub fn heard(&mut self, now: Moment) {
        self.heard_at = self.heard_at.max(now);
    }

    /// A connection or attempt is over.
    pub fn ended(&mut self, now: Moment, visit: VisitKey, end: VisitEnd) {
        let Some(key) = self.visits.remove(&visit) else { return };
        if let Some(torrent) = self.torrents.get_mut(&key.1) {
            torrent.visits -= 1;
        }
        let heard_at = self.heard_at;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let opened = match peer.state {
            State::Open { since, .. } => Some(since),
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
            // Set back so that forgetting it finds nothing to hang up.
            peer.state = State::Waiting(now);
            return self.forget(key);
        }
        let VisitOutcome { pause, gone, refuses } = peer.visited(now, end, opened, heard_at);
        let is_there = peer.reached;
        let pause = pause.max(self.config.pause);
        let due = now + pause;
        peer.state = State::Waiting(due);
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

    /// What is to be done next, if there is anything now.
    pub fn poll(&mut self, now: Moment) -> Option<ObserverAction> {
        while self.actions.is_empty() && self.has_room() {
            // Who is due waits where it is: to move each of them, ten times a second, would cost
            // the more the longer the line is.
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
                // Never at once: that would not end.
                let due = now + later.max(SOON);
                peer.state = State::Waiting(due);
                self.due.insert((due, addr, info_hash));
                continue;
            }
            self.last_visit += 1;
            let visit = VisitKey(self.last_visit);
            peer.state = State::Dialing(visit);
            peer.dialled_at = Some(now);
            self.dialing += 1;
            self.visits.insert(visit, (addr, info_hash));
            self.torrents.entry(info_hash).or_default().visits += 1;
            self.actions.push_back(ObserverAction::Dial { visit, info_hash, addr });
        }
        self.actions.pop_front()
    }

    /// When [`Observer::poll`] has something to do next, if nothing happens before.
    pub fn deadline(&self) -> Option<Moment> {
        if !self.actions.is_empty() {
            return Some(Moment::START);
        }
        let (due, ..) = self.due.first().filter(|_| self.has_room())?;
        Some((*due).max(self.budget.enough_at(DIALS_A_SECOND)))
    }

    /// Connections and attempts.
    pub fn visits(&self) -> usize {
        self.visits.len()
    }

    /// Peers it keeps in mind.
    pub fn known(&self) -> usize {
        self.peers.len()
    }

    /// What it does and has done.
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

    /// How long a peer must not be dialled yet; takes a dial from the budgets if it may be now.
    /// That of all is not looked at: [`Observer::poll`] has.
    fn obstacle(&mut self, now: Moment, addr: SocketAddr, info_hash: InfoHash) -> Option<Duration> {
        let peer = self.peers.get(&(addr, info_hash))?;
        if let Some(last) = peer.dialled_at
            && now.since(last) < self.config.pause
        {
            return Some(self.config.pause - now.since(last));
        }
        let in_torrent = self.torrents.get(&info_hash).map_or(0, |torrent| torrent.visits);
        let most = self.config.max_connections;
        // Those that get on are worth more than those that hold everything.
        let crowded = peer.complete && self.visits.len() >= most - most / 4;
        // One connection shows whether the program is there; what it holds it reports.
        let twin = peer.reports && self.at(addr).any(|(_, peer)| peer.visit().is_some());
        if in_torrent >= self.config.max_per_torrent || crowded || twin {
            // By chance, so that in time others have their turn.
            return Some(NO_PLACE + Duration::from_millis(self.rng.below(10_000)));
        }
        // Whoever runs the tracker may run as many peers beside it as they like.
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
            let full = Budget { left: NETWORK_AT_ONCE, at: now };
            let budget = self.budgets.entry(network).or_insert(full);
            if budget.refresh(now, NETWORK_A_SECOND, NETWORK_AT_ONCE) < 1.0 {
                // By chance, so that not all of a large network come back at once, again and again.
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

    /// A peer came that clients may want to reach where our own connections come from: those that
    /// take one from an address are left to it.
    fn make_way(&mut self, now: Moment, info_hash: InfoHash, addr: SocketAddr) {
        let in_way = |(key, peer): (&(SocketAddr, InfoHash), &Peer)| match peer.state {
            State::Open { visit, local, several: false, .. }
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

    /// Tells of all peers at an address whether they take connections, if that is news.
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

    /// Nobody is at an address any more where a peer of ours was.
    fn all_gone(&mut self, addr: SocketAddr) {
        let gone: Vec<_> = self
            .at(addr)
            .filter(|(_, peer)| !matches!(peer.state, State::Open { .. }))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.actions.push_back(ObserverAction::Gone { info_hash: key.1, addr });
            self.forget(key);
        }
    }

    /// The peer at `addr` in all its torrents.
    fn at(&self, addr: SocketAddr) -> impl Iterator<Item = (&(SocketAddr, InfoHash), &Peer)> {
        self.peers.range((addr, InfoHash([0; 20]))..=(addr, InfoHash([0xff; 20])))
    }

    fn forget(&mut self, key: (SocketAddr, InfoHash)) {
        let Some(peer) = self.peers.remove(&key) else { return };
        let (addr, info_hash) = key;
        match peer.state {
            State::Waiting(due) => _ = self.due.remove(&(due, addr, info_hash)),
            State::Dialing(visit) | State::Open { visit, .. } => {
                if matches!(peer.state, State::Dialing(_)) {
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

    /// Panics if the parts contradict each other.
    #[cfg(any(test, feature = "fuzzing"))]
    #[doc(hidden)]
    pub fn check(&self) {
        let mut dialing = 0;
        let mut waiting = 0;
        for ((addr, info_hash), peer) in &self.peers {
            match peer.state {
                State::Waiting(due) => {
                    waiting += 1;
                    assert!(self.due.contains(&(due, *addr, *info_hash)));
                }
                State::Dialing(visit) | State::Open { visit, .. } => {
                    dialing += usize::from(matches!(peer.state, State::Dialing(_)));
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

/// What the end of a visit says of a peer.
struct VisitOutcome {
    /// It is not visited again before.
    pause: Duration,
    /// It was there once, and no longer is.
    gone: bool,
    /// It takes no connections.
    refuses: bool,
}

impl VisitOutcome {
    fn again_after(pause: Duration) -> Self {
        Self { pause, gone: false, refuses: false }
    }
}

impl Peer {
    /// Records how a visit ended. `opened` is since when the connection was open, `heard_at` when any
    /// peer showed a sign of life.
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
                // Whoever hangs up on us is there, and it will show when it is not.
                self.found(now);
                let settled = opened.is_some_and(|since| now.since(since) >= SETTLED);
                self.short = if settled { 0 } else { self.short + 1 };
                VisitOutcome::again_after(match self.short {
                    // It may have been killed: that shows now or never.
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
            // Perhaps it is our own network that is down.
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

    /// It took a connection.
    fn found(&mut self, now: Moment) {
        (self.reached, self.misses) = (true, 0);
        self.ended_at = now;
    }

    fn visit(&self) -> Option<VisitKey> {
        match self.state {
            State::Waiting(_) => None,
            State::Dialing(visit) | State::Open { visit, .. } => Some(visit),
        }
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

/// Between an announce and the first look: the peer may be about to listen.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// The same at our own peers, which report what they hold within seconds: one of a daemon's
/// torrents is enough to see that it is there.
const FIRST_LOOK_AT_OURS: Duration = Duration::from_secs(10);

/// A connection that lasts as long was wanted. aria2 hangs up on those that want nothing after 30 s.
const SETTLED: Duration = Duration::from_secs(10);

/// Between two attempts at one that was there a moment ago.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Refusals in a row after which one that was reached is gone; with the attempts' own time that
/// is some five seconds. And attempts without an answer: some 25 seconds.
const REFUSALS: u32 = 2;
const SILENCES: u32 = 3;

/// Attempts without an answer after which a peer counts as one that does not take connections.
const UNANSWERED: u32 = 2;

/// Between attempts at one that was never reached: mostly behind a router that lets nobody in.
const UNREACHED: Duration = Duration::from_secs(30);
const UNREACHED_MOST: Duration = Duration::from_secs(600);

/// Between connections to one that hangs up on us soon. It is handed out until it is seen that it is gone, so
/// it is not left alone for long.
const UNWANTED: Duration = Duration::from_secs(15);
const UNWANTED_MOST: Duration = Duration::from_secs(60);

/// After a fault of ours, such as no more file handles.
const OUR_FAULT: Duration = Duration::from_secs(5);

/// After we would have been in the way.
const NO_ROOM: Duration = Duration::from_secs(60);

/// While a peer is observed at its other address: whether it takes connections at this one, too, is looked
/// at for the sake of those who have only this family.
const ELSEWHERE: Duration = Duration::from_secs(600);

/// While there is no place, at least.
const NO_PLACE: Duration = Duration::from_secs(20);

/// After any obstacle, at least.
const SOON: Duration = Duration::from_millis(200);

/// Attempts at a time.
const MAX_DIALING: usize = 50;

/// Dials a second, and at once, in all.
const DIALS_A_SECOND: f64 = 50.0;
const DIALS_AT_ONCE: f64 = 100.0;

/// The same to one network: an announce names nobody but who sent it, but any port, and a
/// tracker is not to try them all for somebody.
const NETWORK_A_SECOND: f64 = 2.0;
const NETWORK_AT_ONCE: f64 = 20.0;

/// Peers of a network without a dial left are looked at again within this time: of a thousand, 125
/// a second.
const NETWORK_SPREAD_MS: u64 = 8_000;

/// Networks whose dials are counted: what is refilled is forgotten first.
const MAX_BUDGETS: usize = 10_000;

/// Peers kept in mind for each place of a torrent, and in all, at some 150 bytes each. Others come
/// to mind again when they announce.
const KNOWN_PER_PLACE: usize = 4;
const MAX_KNOWN: usize = 100_000;

#[cfg(test)]
mod tests;
