//! Addresses that may be dialled, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Source;
use crate::base::{Moment, Rng, is_dialable};

#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<SocketAddr, Entry>,
    /// Addresses that turned out to be our own.
    ours: BTreeSet<SocketAddr>,
    dialing: usize,
}

/// How a connection ended, as far as dialling again goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was of use for a while.
    Normal,
    /// It ended at once, or by a fault of the peer's.
    Bad,
    /// It came too early or too late: there was no room, or another connection to the same peer.
    Untimely,
    /// We shall never dial it again.
    Never,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    state: State,
    failures: u32,
    /// Its peer was seen to want nothing.
    sated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not to be dialled before this.
    Waiting(Moment),
    Dialing,
    /// By us, or by its peer.
    Connected,
}

impl Book {
    /// Takes an address note of, if it can be one of a peer and there is room.
    pub(super) fn add(&mut self, now: Moment, addr: SocketAddr, source: Source) {
        if !is_dialable(addr) || self.ours.contains(&addr) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&addr) {
            if source == Source::User {
                entry.source = source;
                if let State::Waiting(_) = entry.state {
                    entry.state = State::Waiting(now);
                    entry.failures = 0;
                }
            }
            return;
        }
        if self.entries.len() >= MAX_ENTRIES && !self.make_room(source) {
            return;
        }
        let state = State::Waiting(now);
        self.entries.insert(addr, Entry { source, state, failures: 0, sated: false });
    }

    /// The address to be dialled now, if any: the user's first, otherwise any one, those that
    /// failed least before others. It counts as being dialled. With `skip_sated`, not one whose
    /// peer is known to want nothing.
    pub(super) fn next_dial(
        &mut self,
        now: Moment,
        skip_sated: bool,
        rng: &mut Rng,
    ) -> Option<SocketAddr> {
        let due = self.entries.iter_mut().filter(|(_, entry)| {
            let due = matches!(entry.state, State::Waiting(from) if from <= now);
            due && !(skip_sated && entry.sated)
        });
        let (addr, entry) =
            due.min_by_key(|(_, e)| (e.source != Source::User, e.failures, rng.next_u64()))?;
        entry.state = State::Dialing;
        self.dialing += 1;
        Some(*addr)
    }

    pub(super) fn dial_failed(&mut self, now: Moment, addr: SocketAddr) {
        if self.leave(addr, State::Dialing) {
            self.wait(now, addr, Ending::Bad);
        }
    }

    /// There is a connection to the peer that listens at this address.
    pub(super) fn connected(&mut self, addr: SocketAddr, source: Source) {
        self.leave(addr, State::Dialing);
        if !is_dialable(addr) || self.ours.contains(&addr) {
            return;
        }
        if !self.entries.contains_key(&addr)
            && self.entries.len() >= MAX_ENTRIES
            && !self.make_room(source)
        {
            return;
        }
        let entry = self.entries.entry(addr).or_insert(Entry {
            source,
            state: State::Connected,
            failures: 0,
            sated: false,
        });
        entry.state = State::Connected;
    }

    /// The connection to this address is gone, or is not wanted.
    pub(super) fn closed(&mut self, now: Moment, addr: SocketAddr, ending: Ending) {
        self.leave(addr, State::Dialing);
        self.leave(addr, State::Connected);
        self.wait(now, addr, ending);
    }

    /// The address is our own.
    pub(super) fn is_ours(&mut self, addr: SocketAddr) {
        self.forget(addr);
        if self.ours.len() < MAX_OURS {
            self.ours.insert(addr);
        }
    }

    /// The peer at this address was seen to want nothing: it holds everything, or says so.
    pub(super) fn is_sated(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.sated = true;
        }
    }

    pub(super) fn forget(&mut self, addr: SocketAddr) {
        self.leave(addr, State::Dialing);
        self.entries.remove(&addr);
    }

    /// Forgets every address for which `banned` says so.
    pub(super) fn forget_where(&mut self, banned: impl Fn(SocketAddr) -> bool) {
        let gone: Vec<SocketAddr> =
            self.entries.keys().copied().filter(|addr| banned(*addr)).collect();
        gone.into_iter().for_each(|addr| self.forget(addr));
    }

    /// Nothing is connected or being dialled any more, and everything may be dialled.
    pub(super) fn start_over(&mut self, now: Moment) {
        for entry in self.entries.values_mut() {
            if entry.state != State::Dialing {
                entry.state = State::Waiting(now);
            }
        }
    }

    pub(super) fn dialing(&self) -> usize {
        self.dialing
    }

    /// When the next address may be dialled.
    pub(super) fn next_due(&self, skip_sated: bool) -> Option<Moment> {
        let waiting = self.entries.values().filter(|e| !(skip_sated && e.sated));
        waiting
            .filter_map(|entry| match entry.state {
                State::Waiting(from) => Some(from),
                State::Dialing | State::Connected => None,
            })
            .min()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.entries.keys().copied()
    }

    pub(super) fn check(&self) {
        let dialing = self.entries.values().filter(|e| e.state == State::Dialing).count();
        assert_eq!(dialing, self.dialing, "dials under way");
        assert!(self.entries.len() <= MAX_ENTRIES, "addresses");
    }

    /// Says whether the entry was in `state`; it is then free to be put into another.
    fn leave(&mut self, addr: SocketAddr, state: State) -> bool {
        let Some(entry) = self.entries.get_mut(&addr) else { return false };
        if entry.state != state {
            return false;
        }
        if state == State::Dialing {
            self.dialing -= 1;
        }
        entry.state = State::Waiting(Moment::START);
        true
    }

    fn wait(&mut self, now: Moment, addr: SocketAddr, ending: Ending) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        let is_user = entry.source == Source::User;
        let pause = match ending {
            Ending::Never => {
                self.entries.remove(&addr);
                return;
            }
            Ending::Untimely => UNTIMELY_PAUSE,
            Ending::Normal => {
                entry.failures = 0;
                if is_user { FIRST_USER_PAUSE } else { FIRST_PAUSE }
            }
            Ending::Bad => {
                entry.failures += 1;
                if entry.failures > MAX_FAILURES && !is_user {
                    self.entries.remove(&addr);
                    return;
                }
                let doublings = 1 << (entry.failures - 1).min(16);
                if is_user {
                    (FIRST_USER_PAUSE * doublings).min(MAX_USER_PAUSE)
                } else {
                    FIRST_PAUSE * doublings
                }
            }
        };
        entry.state = State::Waiting(now + pause);
    }

    /// Forgets the address least likely to be of use, if it is less so than one from `source`.
    fn make_room(&mut self, source: Source) -> bool {
        let idle = self.entries.iter().filter(|(_, e)| matches!(e.state, State::Waiting(_)));
        let worst = idle
            .filter(|(_, entry)| entry.source != Source::User)
            .max_by_key(|(_, entry)| entry.failures)
            .filter(|(_, entry)| entry.failures > 0 || source == Source::User)
            .map(|(addr, _)| *addr);
        worst.is_some_and(|addr| self.entries.remove(&addr).is_some())
    }
}

/// Addresses kept. A swarm connects to a tenth of that; a tracker that sends more, lies or will be
/// asked again.
const MAX_ENTRIES: usize = 1_000;

/// Our own addresses kept: a machine has a handful.
const MAX_OURS: usize = 64;

/// After this many failures in a row (5 s, 10 s … 160 s apart) an address is forgotten.
const MAX_FAILURES: u32 = 6;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const FIRST_USER_PAUSE: Duration = Duration::from_millis(500);
const MAX_USER_PAUSE: Duration = Duration::from_secs(60);

/// There was no room, or the peer is connected otherwise: that may last.
const UNTIMELY_PAUSE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn dial(book: &mut Book, millis: u64) -> Option<SocketAddr> {
        let dialled = book.next_dial(at(millis), false, &mut Rng::from_seed(1));
        book.check();
        dialled
    }

    #[test]
    fn addresses_nobody_can_listen_at_are_dropped() {
        let mut book = Book::default();
        for text in [
            "1.2.3.4:0",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "[::ffff:0.0.0.0]:80",
        ] {
            book.add(at(0), addr(text), Source::Tracker);
        }
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn no_more_than_a_thousand_addresses_are_kept() {
        let mut book = Book::default();
        for number in 0..5_000u32 {
            let ip = std::net::IpAddr::V4((0x0a00_0000 + number).into());
            book.add(at(0), SocketAddr::new(ip, 6881), Source::Tracker);
        }
        assert_eq!(book.len(), MAX_ENTRIES);
        book.add(at(0), addr("9.9.9.9:9"), Source::User);
        assert_eq!(book.len(), MAX_ENTRIES);
        assert_eq!(dial(&mut book, 0), Some(addr("9.9.9.9:9")));
    }

    #[test]
    fn failures_back_off_and_are_forgotten_at_last() {
        let mut book = Book::default();
        book.add(at(0), addr("1.2.3.4:5"), Source::Tracker);
        let mut now = 0;
        for pause in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000] {
            assert_eq!(dial(&mut book, now), Some(addr("1.2.3.4:5")));
            assert_eq!((book.dialing(), book.next_due(false)), (1, None));
            book.dial_failed(at(now), addr("1.2.3.4:5"));
            assert_eq!(dial(&mut book, now + pause - 1), None);
            assert_eq!(book.next_due(false), Some(at(now + pause)));
            now += pause;
        }
        dial(&mut book, now);
        book.dial_failed(at(now), addr("1.2.3.4:5"));
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn the_users_peers_come_first_are_retried_quickly_and_never_forgotten() {
        let mut book = Book::default();
        book.add(at(0), addr("1.1.1.1:1"), Source::Tracker);
        book.add(at(0), addr("2.2.2.2:2"), Source::User);
        let mut now = 0;
        for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!(dial(&mut book, now), Some(addr("2.2.2.2:2")));
            book.dial_failed(at(now), addr("2.2.2.2:2"));
            now += pause;
        }
        assert_eq!(book.len(), 2);
    }

    #[test]
    fn own_address_is_never_dialled_again() {
        let mut book = Book::default();
        book.add(at(0), addr("1.2.3.4:5"), Source::Tracker);
        dial(&mut book, 0);
        book.is_ours(addr("1.2.3.4:5"));
        book.add(at(0), addr("1.2.3.4:5"), Source::User);
        assert_eq!((book.len(), dial(&mut book, 9_000)), (0, None));
    }

    #[test]
    fn connected_addresses_are_not_dialled_and_sated_ones_only_if_wanted() {
        let mut book = Book::default();
        book.connected(addr("1.2.3.4:5"), Source::Incoming);
        book.add(at(0), addr("1.2.3.4:5"), Source::Tracker);
        assert_eq!(dial(&mut book, 0), None);
        book.is_sated(addr("1.2.3.4:5"));
        book.closed(at(0), addr("1.2.3.4:5"), Ending::Normal);
        assert_eq!(book.next_due(true), None);
        assert_eq!(book.next_dial(at(60_000), true, &mut Rng::from_seed(1)), None);
        assert_eq!(dial(&mut book, 60_000), Some(addr("1.2.3.4:5")));
    }
}
