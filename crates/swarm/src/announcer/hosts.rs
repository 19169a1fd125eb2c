//! Decides which of many announces are under way: it shares the places among trackers, and handles trackers
//! that do not answer.
//!
//! A tracker is identified here by its protocol, host and port ([`Host`]). Announces of all torrents to it
//! wait in one queue. A tracker whose last announce was answered is *proven*:
//!
//! | tracker | places at a time |
//! |---|---|
//! | proven | as many as it answered in a row, at most an equal share among those that are busy and one newcomer |
//! | not proven | 4, less with each failure |
//! | did not answer 3 times in a row | 1, after a pause of 10 s that doubles up to 5 min |
//!
//! Proven trackers together have at most three quarters of the places, and all others half. So trackers
//! that never answer take no places from those that do, however many they are.
//!
//! While a tracker does not answer, torrents that want to announce to it are told so at once
//! ([`HostState::Down`]) and noted. After each pause, one of the noted torrents tries, a different one each
//! time, since some trackers stay silent about single torrents. When the tracker answers, all noted
//! torrents are asked to announce again, as fast as it answers.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use slab::Slab;

use piecework_core::{InfoHash, Moment, Rng};
use piecework_proto::announce::{Scheme, TrackerUrl};

/// A tracker, whatever path and passkey its URLs have. One over UDP and one over HTTP are different, since
/// one may work when the other does not.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    host: Arc<str>,
    port: u16,
    is_udp: bool,
}

/// Whether an announce to a host can be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostState {
    /// It is queued, and its turn will come.
    InLine,
    /// The tracker does not answer, for this reason.
    Down(Arc<str>),
}

/// What a queued or noted torrent is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceTurn {
    /// It has a place, until [`Hosts::done`].
    Announce {
        /// The tracker to announce to.
        host: Host,
        /// The torrent that has the place.
        torrent: InfoHash,
    },
    /// It was queued, but the tracker turned out to be down.
    Down {
        /// The tracker that does not answer.
        host: Host,
        /// The torrent that wanted to announce.
        torrent: InfoHash,
        /// Why the last announce to the tracker failed.
        reason: Arc<str>,
    },
}

/// How an announce ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceOutcome {
    /// The tracker answered, whatever it said.
    Answered,
    /// It could not be reached, or did not answer in time.
    Silent {
        /// The reason, for people.
        reason: String,
        /// It has not answered this torrent's last announces either, so this says little about other
        /// torrents.
        again: bool,
    },
    /// It was not asked, or its answer was not awaited.
    Unknown,
}

/// The places for announces, and the torrents that wait for one.
#[derive(Debug)]
pub struct Hosts {
    places: usize,
    rng: Rng,
    known: HashMap<Host, usize, foldhash::fast::FixedState>,
    lines: Slab<HostQueue>,
    /// Queues that may have another place, proven ones and others: by places taken, then by when the last
    /// one was given.
    ready: [BTreeSet<(usize, u64, usize)>; 2],
    /// When to try a tracker again that does not answer, if a torrent wants to announce to it.
    probes: BTreeSet<(Moment, usize)>,
    /// Torrents that were queued when a tracker stopped answering.
    vain: VecDeque<(Host, InfoHash)>,
    /// Places taken by proven trackers and by others.
    taken: [usize; 2],
    /// The number of proven trackers that have announces under way or waiting.
    busy: usize,
    /// The number of places given so far.
    given: u64,
}

/// The queue of one tracker.
#[derive(Debug)]
struct HostQueue {
    host: Host,
    waiting: VecDeque<InfoHash>,
    running: usize,
    /// How many places it may have, which depends on its answers.
    window: usize,
    proven: bool,
    /// The number of failed announces in a row.
    failures: u32,
    /// When its last place was given.
    served: u64,
    reason: Arc<str>,
    down: Option<Outage>,
    /// Torrents that were told that it does not answer, and those that tried in vain while others had not.
    noted: BTreeSet<InfoHash>,
    tried: BTreeSet<InfoHash>,
}

/// The outage of a tracker that does not answer.
#[derive(Debug, Clone, Copy)]
struct Outage {
    pause: Duration,
    retry_at: Moment,
    /// A torrent is trying now.
    trying: bool,
}

/// The borrowed form of a [`Host`], for lookups.
#[derive(Hash)]
struct HostKey<'a> {
    host: &'a str,
    port: u16,
    is_udp: bool,
}

impl Host {
    /// Returns the tracker that `url` belongs to.
    pub fn of(url: &TrackerUrl) -> Self {
        let HostKey { host, port, is_udp } = HostKey::of(url);
        Self { host: host.into(), port, is_udp }
    }

    /// Returns whether `url` belongs to this tracker.
    pub fn has(&self, url: &TrackerUrl) -> bool {
        HostKey::of(url).equivalent(self)
    }
}

impl<'a> HostKey<'a> {
    fn of(url: &'a TrackerUrl) -> Self {
        let is_udp = url.scheme() == Scheme::Udp;
        Self { host: url.host_str(), port: url.port(), is_udp }
    }
}

impl Equivalent<Host> for HostKey<'_> {
    fn equivalent(&self, host: &Host) -> bool {
        (self.host, self.port, self.is_udp) == (&*host.host, host.port, host.is_udp)
    }
}

impl Hosts {
    /// Creates a division of `places` places, but at least two. `rng` adds jitter to pauses, so that the
    /// clients of a tracker do not all come back at once.
    pub fn new(places: usize, rng: Rng) -> Self {
        Self {
            places: places.max(2),
            rng,
            known: HashMap::default(),
            lines: Slab::new(),
            ready: [BTreeSet::new(), BTreeSet::new()],
            probes: BTreeSet::new(),
            vain: VecDeque::new(),
            taken: [0; 2],
            busy: 0,
            given: 0,
        }
    }

    /// Queues `torrent` to announce to `tracker`. If the tracker does not answer, the torrent is told so,
    /// and may still have a turn when it answers again.
    pub fn line_up(&mut self, now: Moment, tracker: &TrackerUrl, torrent: InfoHash) -> HostState {
        let at = match self.known.get(&HostKey::of(tracker)) {
            Some(at) => *at,
            None => {
                let host = Host::of(tracker);
                let at = self.lines.insert(HostQueue::new(host.clone()));
                self.known.insert(host, at);
                at
            }
        };
        self.change(at, |line| {
            if let Some(down) = line.down
                && (down.trying || now < down.retry_at || !line.waiting.is_empty())
            {
                if !line.tried.contains(&torrent) {
                    line.noted.insert(torrent);
                }
                return HostState::Down(Arc::clone(&line.reason));
            }
            line.noted.remove(&torrent);
            line.tried.remove(&torrent);
            line.waiting.push_back(torrent);
            HostState::InLine
        })
    }

    /// Returns the next turn, if a torrent has one. An unused place is given back by [`Hosts::done`] with
    /// [`AnnounceOutcome::Unknown`].
    pub fn next(&mut self, now: Moment) -> Option<AnnounceTurn> {
        if let Some((host, torrent)) = self.vain.pop_front() {
            let line = self.known.get(&host).map(|at| &self.lines[*at]);
            let reason = line.map_or_else(Arc::default, |line| Arc::clone(&line.reason));
            return Some(AnnounceTurn::Down { host, torrent, reason });
        }
        let at = self.free(now)?;
        self.given += 1;
        let given = self.given;
        let torrent = self.change(at, |line| {
            let torrent = line.pop()?;
            line.running += 1;
            line.served = given;
            if let Some(down) = &mut line.down {
                down.trying = true;
            }
            Some(torrent)
        })?;
        Some(AnnounceTurn::Announce { host: self.lines[at].host.clone(), torrent })
    }

    /// Ends an announce of `torrent`. Its place is free then.
    pub fn done(&mut self, now: Moment, host: &Host, torrent: InfoHash, outcome: AnnounceOutcome) {
        let Some(&at) = self.known.get(host) else { return };
        let jitter = u32::saturating_from(self.rng.below(JITTER_STEPS + 1));
        let places = self.places;
        let in_vain = self.change(at, |line| {
            line.running -= 1;
            match outcome {
                AnnounceOutcome::Answered => line.answered(places),
                AnnounceOutcome::Silent { reason, again } => {
                    return line.was_silent(now, torrent, reason, again, jitter);
                }
                AnnounceOutcome::Unknown => {
                    if let Some(down) = &mut line.down {
                        down.trying = false;
                    }
                }
            }
            VecDeque::new()
        });
        self.vain.extend(in_vain.into_iter().map(|torrent| (host.clone(), torrent)));
        if self.lines[at].is_idle() && self.lines.len() > MOST_REMEMBERED {
            self.change(at, |line| line.down = None);
            self.lines.remove(at);
            self.known.remove(host);
        }
    }

    /// Returns when [`Hosts::next`] has something to return if nothing else happens before. The time is in
    /// the past if it has now.
    pub fn deadline(&self) -> Option<Moment> {
        if !self.vain.is_empty() || self.ready_line().is_some() {
            return Some(Moment::START);
        }
        let (moment, _) = self.probes.first()?;
        self.has_place(false).then_some(*moment)
    }

    /// Returns when a tracker that does not answer is tried again. `None` for other trackers.
    pub fn retry_at(&self, tracker: &TrackerUrl) -> Option<Moment> {
        let at = self.known.get(&HostKey::of(tracker))?;
        self.lines[*at].down.map(|down| down.retry_at)
    }

    /// Returns how many announces are under way.
    pub fn running(&self) -> usize {
        self.taken.iter().sum()
    }

    /// Returns a tracker that may have a place now.
    fn free(&self, now: Moment) -> Option<usize> {
        let due = || {
            let (moment, at) = self.probes.first()?;
            (*moment <= now && self.has_place(false)).then_some(*at)
        };
        self.ready_line().or_else(due)
    }

    fn ready_line(&self) -> Option<usize> {
        let first = |proven: bool| self.ready[usize::from(!proven)].first();
        let share = (self.places / (self.busy + 1)).max(1);
        if let Some((running, _, at)) = first(true)
            && *running < share
            && self.has_place(true)
        {
            return Some(*at);
        }
        first(false).filter(|_| self.has_place(false)).map(|(.., at)| *at)
    }

    /// Returns whether there is a place for a proven tracker, or for another.
    fn has_place(&self, proven: bool) -> bool {
        let most = if proven { self.places - self.places / 4 } else { self.places / 2 };
        self.running() < self.places && self.taken[usize::from(!proven)] < most.max(1)
    }

    /// Changes a queue, and updates the counters and orders that depend on it.
    fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut HostQueue) -> T) -> T {
        self.count(at, false);
        let answer = change(&mut self.lines[at]);
        self.count(at, true);
        answer
    }

    fn count(&mut self, at: usize, is_in: bool) {
        let line = &self.lines[at];
        let group = usize::from(!line.proven);
        if let Some(down) = line.down {
            if !down.trying && line.has_interest() {
                match is_in {
                    true => self.probes.insert((down.retry_at, at)),
                    false => self.probes.remove(&(down.retry_at, at)),
                };
            }
        } else if line.has_interest() && line.running < line.most() {
            let place = (line.running, line.served, at);
            match is_in {
                true => self.ready[group].insert(place),
                false => self.ready[group].remove(&place),
            };
        }
        let is_busy = usize::from(line.proven && !line.is_idle());
        match is_in {
            true => {
                self.taken[group] += line.running;
                self.busy += is_busy;
            }
            false => {
                self.taken[group] -= line.running;
                self.busy -= is_busy;
            }
        }
    }
}

impl HostQueue {
    fn new(host: Host) -> Self {
        Self {
            host,
            waiting: VecDeque::new(),
            running: 0,
            window: FIRST_WINDOW,
            proven: false,
            failures: 0,
            served: 0,
            reason: Arc::default(),
            down: None,
            noted: BTreeSet::new(),
            tried: BTreeSet::new(),
        }
    }

    fn has_interest(&self) -> bool {
        !self.waiting.is_empty() || !self.noted.is_empty() || !self.tried.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && !self.has_interest()
    }

    fn most(&self) -> usize {
        if self.proven { self.window } else { self.window.min(FIRST_WINDOW) }
    }

    fn pop(&mut self) -> Option<InfoHash> {
        let waiting = self.waiting.pop_front();
        waiting.or_else(|| self.noted.pop_first()).or_else(|| self.tried.pop_first())
    }

    fn answered(&mut self, places: usize) {
        if self.down.take().is_some() {
            self.window = 1;
        }
        self.failures = 0;
        self.proven = true;
        self.window = (self.window + 1).min(places);
    }

    /// Returns the torrents that were queued in vain.
    fn was_silent(
        &mut self,
        now: Moment,
        torrent: InfoHash,
        reason: String,
        again: bool,
        jitter: u32,
    ) -> VecDeque<InfoHash> {
        self.reason = reason.into();
        self.proven = false;
        self.window = (self.window / 2).max(1);
        let pause = match &self.down {
            // An announce that was under way when the tracker stopped answering.
            Some(down) if !down.trying => {
                self.noted.insert(torrent);
                return VecDeque::new();
            }
            Some(down) => (down.pause * 2).min(LONGEST_PAUSE),
            None => {
                self.failures += u32::from(!again);
                if self.failures < FAILURES {
                    return VecDeque::new();
                }
                FIRST_PAUSE
            }
        };
        self.noted.remove(&torrent);
        self.tried.insert(torrent);
        if self.noted.is_empty() && self.tried.len() > 1 {
            // All have tried. The next ones are those that tried before.
            self.noted = std::mem::take(&mut self.tried);
            self.noted.remove(&torrent);
            self.tried.insert(torrent);
        }
        let spread = pause * 4 / 5 + pause * 2 / 5 * jitter / u32::saturating_from(JITTER_STEPS);
        self.down = Some(Outage { pause, retry_at: now + spread, trying: false });
        let in_vain = std::mem::take(&mut self.waiting);
        self.noted.extend(in_vain.iter().copied());
        in_vain
    }
}

/// Places of a tracker that has not answered yet.
const FIRST_WINDOW: usize = 4;

/// After this many announces in a row without an answer, a tracker counts as down.
const FAILURES: u32 = 3;

/// The time until a tracker that is down is tried again. One that is being restarted is back by then.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Pauses are up to a fifth longer or shorter, in this many steps.
const JITTER_STEPS: u64 = 1_000;

/// How many trackers are remembered although no torrent announces to them.
const MOST_REMEMBERED: usize = 1_024;

#[cfg(test)]
mod tests;
