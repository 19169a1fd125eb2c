//! The end of many torrents at once: which tracker is told about which torrent, and in what order.

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::{AnnounceTask, Announcer};
use piecework_core::printable;

/// Tells the trackers of many torrents that we leave.
///
/// Torrents come in the order of their demand, the greatest first. Each tracker host is told about a
/// few torrents at a time, and about one more with each answer. A host that does not answer is given up, so
/// that it does not hold up the others.
///
/// A driver carries out what [`Departures::poll`] returns and reports the result with
/// [`Departures::settle`]. [`Departures::missed`] returns what was not told when the time is over.
#[derive(Debug)]
pub struct Departures {
    hosts: Vec<Recipient>,
    /// Hosts that may be told about another torrent: the position of that torrent in the order, and the
    /// host.
    ready: BTreeSet<(usize, usize)>,
    /// The number of goodbyes of each torrent that no tracker has answered yet.
    owed: Vec<u32>,
    running: usize,
}

/// A torrent that leaves.
#[derive(Debug)]
pub struct DepartingTorrent {
    /// Its trackers.
    pub announcer: Announcer,
    /// How many peers were connected.
    pub peers: usize,
}

/// How many others want a torrent's peers. Trackers are told in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Demand {
    /// A peer was connected.
    has_peers: bool,
    /// The number of incomplete peers, as far as it is known.
    leechers: usize,
}

/// An announce that we leave. Answered by one [`Departures::settle`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goodbye {
    /// The index of the torrent among those given to [`Departures::new`].
    pub torrent: usize,
    /// What to announce.
    pub wish: AnnounceTask,
    host: usize,
}

/// The goodbyes that were not sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissedGoodbyes {
    /// The number of torrents for which a tracker that knows us was not told that we leave.
    pub torrents: usize,
    /// The number of missing announces, by host and port.
    pub hosts: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Recipient {
    name: String,
    /// What it must be told, with the position in the order.
    waiting: VecDeque<(usize, Goodbye)>,
    running: usize,
    /// How many may be under way at a time.
    window: usize,
    /// Announces that failed since one was answered.
    failures: usize,
    /// Announces that failed.
    missed: usize,
}

impl Demand {
    fn of(torrent: &DepartingTorrent) -> Self {
        let leechers = torrent.announcer.leechers() as usize;
        Self { has_peers: torrent.peers > 0, leechers: leechers.max(torrent.peers) }
    }
}

impl Departures {
    /// Creates goodbyes to all trackers that know us, for these torrents. Announces under way must have
    /// ended.
    pub fn new(torrents: impl IntoIterator<Item = DepartingTorrent>) -> Self {
        let mut order = Vec::new();
        let mut owed = Vec::new();
        for (torrent, mut departing) in torrents.into_iter().enumerate() {
            let (demand, wishes) = (Demand::of(&departing), departing.announcer.goodbyes());
            // There are 100 trackers at most.
            owed.push(u32::saturating_from(wishes.len()));
            order.extend(wishes.into_iter().map(|wish| (Reverse(demand), torrent, wish)));
        }
        // Stable, so that the trackers of a torrent keep their order.
        order.sort_by_key(|(demand, torrent, _)| (*demand, *torrent));
        let mut all = Self { hosts: Vec::new(), ready: BTreeSet::new(), owed, running: 0 };
        let mut known = BTreeMap::new();
        for (place, (_, torrent, wish)) in order.into_iter().enumerate() {
            let name = wish.tracker.place();
            let host = match known.get(&name) {
                Some(host) => *host,
                None => {
                    let host = all.hosts.len();
                    all.hosts.push(Recipient::new(name.clone()));
                    all.ready.insert((place, host));
                    known.insert(name, host);
                    host
                }
            };
            all.hosts[host].waiting.push_back((place, Goodbye { torrent, wish, host }));
        }
        all
    }

    /// Returns the next announce to make. `None` until something is settled, or for good once nothing is
    /// under way.
    pub fn poll(&mut self) -> Option<Goodbye> {
        if self.running >= AT_ONCE {
            return None;
        }
        let (_, at) = self.ready.pop_first()?;
        let host = &mut self.hosts[at];
        let (_, goodbye) = host.waiting.pop_front()?;
        host.running += 1;
        self.running += 1;
        self.make_ready(at);
        Some(goodbye)
    }

    /// Ends an announce. `answered` means that the tracker received it, even if it refused.
    pub fn settle(&mut self, goodbye: &Goodbye, answered: bool) {
        let host = &mut self.hosts[goodbye.host];
        host.running = host.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        if answered {
            host.failures = 0;
            host.window = (host.window + 1).min(MOST_OF_A_HOST);
            self.owed[goodbye.torrent] = self.owed[goodbye.torrent].saturating_sub(1);
        } else {
            host.failures += 1;
            host.missed += 1;
            if host.failures >= GIVEN_UP_AFTER {
                if let Some((place, _)) = host.waiting.front() {
                    self.ready.remove(&(*place, goodbye.host));
                }
                host.missed += host.waiting.len();
                host.waiting.clear();
            }
        }
        self.make_ready(goodbye.host);
    }

    /// Returns the goodbyes that were not sent so far.
    pub fn missed(&self) -> MissedGoodbyes {
        let left = |host: &Recipient| host.missed + host.running + host.waiting.len();
        let hosts = self.hosts.iter().map(|host| (host.name.clone(), left(host)));
        MissedGoodbyes {
            torrents: self.owed.iter().filter(|owed| **owed > 0).count(),
            hosts: hosts.filter(|(_, left)| *left > 0).collect(),
        }
    }

    fn make_ready(&mut self, at: usize) {
        let host = &self.hosts[at];
        if let Some((place, _)) = host.waiting.front().filter(|_| host.running < host.window) {
            self.ready.insert((*place, at));
        }
    }
}

impl Recipient {
    fn new(name: String) -> Self {
        let waiting = VecDeque::new();
        Self { name, waiting, running: 0, window: AT_FIRST, failures: 0, missed: 0 }
    }
}

impl MissedGoodbyes {
    /// Adds a torrent, and the hosts and ports of its trackers.
    pub fn add(&mut self, places: impl IntoIterator<Item = String>) {
        self.torrents += 1;
        for place in places {
            *self.hosts.entry(place).or_default() += 1;
        }
    }

    /// Returns whether no goodbye is missing.
    pub fn is_empty(&self) -> bool {
        self.torrents == 0
    }
}

impl fmt::Display for MissedGoodbyes {
    /// A sentence. The hosts that miss most come first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let torrents = self.torrents;
        let of = if torrents == 1 { "torrent" } else { "torrents" };
        write!(f, "the trackers of `{torrents}` {of} were not told that we leave: ")?;
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        hosts.sort_by_key(|(_, missing)| Reverse(**missing));
        for (number, (host, missing)) in hosts.iter().take(HOSTS_NAMED).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}`{}` of `{missing}`", printable(host))?;
        }
        if let Some(more @ 1..) = hosts.len().checked_sub(HOSTS_NAMED) {
            write!(f, " and `{more}` more hosts")?;
        }
        write!(f, "; they forget us when we do not announce any more")
    }
}

/// Maximum number of announces at a time, to all hosts. Each takes a descriptor.
const AT_ONCE: usize = 256;

/// How many announces may be under way to a host that has answered nothing yet.
const AT_FIRST: usize = 8;

/// Maximum number of announces to one host at a time.
const MOST_OF_A_HOST: usize = 64;

/// After this many failures in a row, a host is given up: as many as are under way at first.
const GIVEN_UP_AFTER: usize = 8;

/// How many hosts the sentence names.
const HOSTS_NAMED: usize = 5;

#[cfg(test)]
mod tests;
