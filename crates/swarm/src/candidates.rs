//! The candidate list: addresses that may be dialled, and when.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{HeardAddress, PeerSource};
use piecework_core::{Moment, Rng, is_dialable, network_of};

#[derive(Debug, Default)]
pub(super) struct CandidateList {
    entries: BTreeMap<SocketAddr, Candidate>,
    /// Addresses that turned out to be our own.
    ours: BTreeSet<SocketAddr>,
    /// Addresses whose peer accepted the last connection and closed it at our handshake. They are kept for
    /// statistics when their candidates are forgotten.
    hung_up: BTreeSet<SocketAddr>,
    dialing: usize,
}

/// How many addresses are known only from other peers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Exchanged {
    of_host: usize,
    all: usize,
}

/// How a connection ended, which decides when to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionEnd {
    /// It was useful for a while.
    Normal,
    /// It ended at once, or because of a fault of the peer.
    Bad,
    /// It came at a bad time: there was no room.
    Untimely,
    /// When it was established, all our places were taken by other peers.
    Full,
    /// The peer has another connection to us.
    Duplicate,
    /// The address is never dialled again, unless a user named it.
    Never,
}

/// Whether the peer at an address is known to want nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disinterest {
    No,
    /// A peer that claims to listen there wants nothing.
    Claimed,
    /// A peer that we dialled there wants nothing.
    Proven,
}

#[derive(Debug)]
struct Candidate {
    source: PeerSource,
    state: DialState,
    failures: u32,
    /// How many times in a row its peer turned out to be connected already.
    duplicates: u32,
    /// How many connected peers dialled us and claim to listen there.
    claims: u32,
    sated: Disinterest,
    /// A peer that we dialled there gave a correct piece.
    is_proven: bool,
    /// The network of the peer that named it, and its rank among such addresses, if it is known only from peers.
    named_by: Option<(IpAddr, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialState {
    /// Not dialled before this.
    Waiting(Moment),
    Dialing,
    /// We dialled it.
    Connected,
}

impl Candidate {
    fn new(source: PeerSource, state: DialState) -> Self {
        Self {
            source,
            state,
            failures: 0,
            duplicates: 0,
            claims: 0,
            sated: Disinterest::No,
            is_proven: false,
            named_by: None,
        }
    }

    /// Returns whether only peers have named it.
    fn is_hearsay(&self) -> bool {
        self.named_by.is_some()
    }

    /// Returns when it may be dialled if nothing else happens. With `skip_disinterested`, an address is
    /// left out if its peer wants nothing or claims to be connected. An address that is known only from
    /// such a claim is always left out, because its peer is connected.
    fn due(&self, skip_disinterested: bool) -> Option<Moment> {
        let DialState::Waiting(from) = self.state else { return None };
        let note_disinterest = self.sated > Disinterest::No;
        let skipped = skip_disinterested && (note_disinterest || self.claims > 0);
        let is_connected = self.claims > 0 && self.source == PeerSource::Incoming;
        (!skipped && !is_connected).then_some(from)
    }
}

impl CandidateList {
    /// Records a candidate address. Ignores it if it cannot belong to a peer or the list is full.
    pub(super) fn add(&mut self, now: Moment, addr: SocketAddr, source: PeerSource) {
        if !is_dialable(addr) || self.ours.contains(&addr) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&addr) {
            if source.is_named() {
                entry.source = source;
                if let DialState::Waiting(_) = entry.state {
                    entry.state = DialState::Waiting(now);
                    entry.failures = 0;
                }
            } else if entry.source == PeerSource::Incoming {
                entry.source = source;
            } else if entry.source.is_hearsay() && !source.is_hearsay() {
                // It no longer counts as one of those that only peers have named.
                entry.named_by = None;
            }
            let is_claim = source == PeerSource::Incoming || source.is_hearsay();
            if !is_claim && entry.sated == Disinterest::Claimed {
                entry.sated = Disinterest::No;
            }
            return;
        }
        if self.entries.len() >= MAX_CANDIDATES && !self.make_room(source) {
            return;
        }
        self.entries.insert(addr, Candidate::new(source, DialState::Waiting(now)));
    }

    /// Returns how many addresses are known only from peers, by the network of the peer: `of_host` for the network of
    /// `by`, and `all`.
    pub(super) fn exchanged(&self, by: IpAddr) -> Exchanged {
        let by = network_of(by);
        let named = self.entries.values().filter_map(|entry| entry.named_by);
        named.fold(Exchanged::default(), |count, (network, _)| Exchanged {
            of_host: count.of_host + usize::from(network == by),
            all: count.all + 1,
        })
    }

    /// Records an address that the peer at `by` has named. Within the limits of all such addresses, one of a higher
    /// rank takes the place of one of a lower rank.
    pub(super) fn add_exchanged(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        by: IpAddr,
        rank: u32,
        count: &mut Exchanged,
    ) {
        let by = network_of(by);
        if self.entries.contains_key(&addr) {
            // A claim of the peer itself becomes a candidate like others, and nothing else changes.
            return self.add(now, addr, PeerSource::Exchange);
        }
        if !is_dialable(addr) {
            return;
        }
        let is_full = count.of_host >= MAX_EXCHANGED_OF_HOST;
        if is_full || count.all >= MAX_EXCHANGED {
            // A host takes places only of its own addresses once it has its share.
            let waits = |entry: &Candidate| matches!(entry.state, DialState::Waiting(_));
            let worst = self
                .entries
                .iter()
                .filter_map(|(addr, entry)| Some((addr, entry, entry.named_by?)))
                .filter(|(_, entry, (network, _))| waits(entry) && (!is_full || *network == by))
                .max_by_key(|(_, entry, (_, rank))| (entry.failures, !*rank));
            let Some((worst, entry, (network, worst_rank))) = worst else { return };
            if entry.failures == 0 && worst_rank >= rank {
                return;
            }
            let worst = *worst;
            self.entries.remove(&worst);
            count.all -= 1;
            count.of_host -= usize::from(network == by);
        }
        self.add(now, addr, PeerSource::Exchange);
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.named_by = Some((by, rank));
            count.all += 1;
            count.of_host += 1;
        }
    }

    /// Returns the address to dial now, and marks it as being dialled. Addresses named by the user come
    /// first, then those with the fewest failures, then those on hosts that are not connected; the rest is
    /// random. With `skip_disinterested`, peers that are known to want nothing are left out.
    pub(super) fn next_dial(
        &mut self,
        now: Moment,
        skip_disinterested: bool,
        connected: &BTreeSet<IpAddr>,
        rng: &mut Rng,
    ) -> Option<SocketAddr> {
        let due = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.due(skip_disinterested).is_some_and(|from| from <= now));
        let (addr, entry) = due.min_by_key(|(addr, e)| {
            (
                !e.source.is_named(),
                e.failures,
                connected.contains(&addr.ip().to_canonical()),
                e.named_by.map_or_else(|| rng.next_u64(), |(_, rank)| u64::from(!rank) << 32),
            )
        })?;
        entry.state = DialState::Dialing;
        self.dialing += 1;
        Some(*addr)
    }

    pub(super) fn dial_failed(&mut self, now: Moment, addr: SocketAddr, hung_up: bool) {
        if self.leave(addr, DialState::Dialing) {
            self.wait(now, addr, ConnectionEnd::Bad);
            if !hung_up {
                self.hung_up.remove(&addr);
            } else if self.hung_up.len() < MAX_HUNG_UP {
                self.hung_up.insert(addr);
            }
        }
    }

    /// Returns how many addresses accept connections and close them at our handshake.
    pub(super) fn hung_up(&self) -> u32 {
        u32::saturating_from(self.hung_up.len())
    }

    /// The address could not be dialled for a reason on our side.
    pub(super) fn dial_prevented(&mut self, now: Moment, addr: SocketAddr) {
        self.leave(addr, DialState::Dialing);
        if let Some(Candidate { state: state @ DialState::Waiting(_), .. }) =
            self.entries.get_mut(&addr)
        {
            *state = DialState::Waiting(now);
        }
    }

    /// We are connected to the peer that listens at this address.
    pub(super) fn connected(&mut self, addr: SocketAddr) {
        self.leave(addr, DialState::Dialing);
        self.hung_up.remove(&addr);
        if let Some(entry) = self.entry(addr) {
            entry.state = DialState::Connected;
        }
    }

    /// A peer that dialled us claims to listen at this address.
    pub(super) fn claimed(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.entry(addr) {
            entry.claims += 1;
        }
    }

    /// A peer that claimed to listen at this address has disconnected.
    pub(super) fn unclaimed(&mut self, now: Moment, addr: SocketAddr, ending: ConnectionEnd) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        entry.claims = entry.claims.saturating_sub(1);
        if let DialState::Waiting(from) = entry.state {
            entry.state = DialState::Waiting(from.max(now + FIRST_PAUSE));
            if ending == ConnectionEnd::Never
                && entry.source == PeerSource::Incoming
                && entry.claims == 0
            {
                self.entries.remove(&addr);
            }
        }
    }

    /// The connection to this address has ended, or is not wanted.
    pub(super) fn closed(&mut self, now: Moment, addr: SocketAddr, ending: ConnectionEnd) {
        self.leave(addr, DialState::Dialing);
        self.leave(addr, DialState::Connected);
        self.wait(now, addr, ending);
    }

    /// Records that the address is our own.
    pub(super) fn note_ours(&mut self, addr: SocketAddr) {
        self.forget(addr);
        if self.ours.len() < MAX_OURS {
            self.ours.insert(addr);
        }
    }

    /// Records that the peer at this address wants nothing: it holds everything, or says so. `is_dialled`
    /// means that we dialled the peer there. Otherwise the peer only claims to listen there, which counts
    /// until somebody else names the address.
    pub(super) fn note_disinterest(&mut self, addr: SocketAddr, is_dialled: bool) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            let sated = if is_dialled { Disinterest::Proven } else { Disinterest::Claimed };
            entry.sated = entry.sated.max(sated);
        }
    }

    /// Records that the peer which we dialled there gave a correct piece.
    pub(super) fn note_proven(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.is_proven = true;
        }
    }

    /// Returns whether a peer that we dialled there gave a correct piece.
    pub(super) fn is_proven(&self, addr: SocketAddr) -> bool {
        self.entries.get(&addr).is_some_and(|entry| entry.is_proven)
    }

    /// Returns where an address was heard of. One that is not in the list any more was forgotten while it
    /// was dialled.
    pub(super) fn source(&self, addr: SocketAddr) -> PeerSource {
        self.entries.get(&addr).map_or(PeerSource::Tracker, |entry| entry.source)
    }

    /// Returns whether a user has named the address.
    pub(super) fn is_named(&self, addr: SocketAddr) -> bool {
        self.entries.get(&addr).is_some_and(|entry| entry.source.is_named())
    }

    /// Puts off dialling the address until `until`, unless it has proven good or a user named it.
    pub(super) fn put_off(&mut self, addr: SocketAddr, until: Moment) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            put_off(entry, until);
        }
    }

    /// Puts off all addresses of a host.
    pub(super) fn put_off_ip(&mut self, ip: IpAddr, until: Moment) {
        let ip = ip.to_canonical();
        let of_ip = self.entries.iter_mut().filter(|(addr, _)| addr.ip().to_canonical() == ip);
        of_ip.for_each(|(_, entry)| put_off(entry, until));
    }

    /// Puts off the address of a host if it is the only one known. If there are several, it is not known
    /// which one is meant.
    pub(super) fn put_off_only(&mut self, ip: IpAddr, until: Moment) {
        let ip = ip.to_canonical();
        let mut of_ip = self.entries.iter_mut().filter(|(addr, _)| addr.ip().to_canonical() == ip);
        if let (Some((_, entry)), None) = (of_ip.next(), of_ip.next()) {
            put_off(entry, until);
        }
    }

    pub(super) fn forget(&mut self, addr: SocketAddr) {
        self.leave(addr, DialState::Dialing);
        self.entries.remove(&addr);
    }

    /// Allows every address to be dialled again. No peer is connected any more.
    pub(super) fn start_over(&mut self, now: Moment) {
        for entry in self.entries.values_mut() {
            entry.claims = 0;
            if entry.state != DialState::Dialing {
                entry.state = DialState::Waiting(now);
            }
        }
    }

    pub(super) fn dialing(&self) -> usize {
        self.dialing
    }

    /// Returns when the next address may be dialled.
    pub(super) fn next_due(&self, skip_disinterested: bool) -> Option<Moment> {
        self.entries.values().filter_map(|entry| entry.due(skip_disinterested)).min()
    }

    /// Returns whether an address may be dialled now that never failed.
    pub(super) fn has_untried(&self, now: Moment) -> bool {
        let may_dial = |state| matches!(state, DialState::Waiting(from) if from <= now);
        self.entries.values().any(|entry| entry.failures == 0 && may_dial(entry.state))
    }

    /// Returns whether a user has named an address.
    pub(super) fn has_named(&self) -> bool {
        self.entries.values().any(|entry| entry.source.is_named())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = HeardAddress> + '_ {
        self.entries.iter().map(|(addr, entry)| HeardAddress { addr: *addr, source: entry.source })
    }

    pub(super) fn check(&self) {
        let dialing = self.entries.values().filter(|e| e.state == DialState::Dialing).count();
        assert_eq!(dialing, self.dialing, "dials under way");
        assert!(self.entries.len() <= MAX_CANDIDATES, "addresses");
        let named = self.entries.values().filter(|entry| entry.is_hearsay()).count();
        assert!(named <= MAX_EXCHANGED, "addresses that peers have named");
    }

    /// Takes the address out of `state`. Returns whether it was in that state; then the caller may put it
    /// into another.
    fn leave(&mut self, addr: SocketAddr, state: DialState) -> bool {
        let Some(entry) = self.entries.get_mut(&addr) else { return false };
        if entry.state != state {
            return false;
        }
        if state == DialState::Dialing {
            self.dialing -= 1;
        }
        entry.state = DialState::Waiting(Moment::START);
        true
    }

    fn wait(&mut self, now: Moment, addr: SocketAddr, ending: ConnectionEnd) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        let is_user = entry.source.is_named();
        let pause = match ending {
            ConnectionEnd::Never if is_user => {
                entry.failures += 1;
                let doublings = 1 << (entry.failures - 1).min(16);
                (FIRST_CORRUPT_PAUSE * doublings).min(MAX_CORRUPT_PAUSE)
            }
            ConnectionEnd::Never => {
                self.entries.remove(&addr);
                return;
            }
            ConnectionEnd::Untimely => UNTIMELY_PAUSE,
            ConnectionEnd::Full => FULL_PAUSE,
            ConnectionEnd::Duplicate => {
                entry.duplicates += 1;
                UNTIMELY_PAUSE * (1 << (entry.duplicates - 1).min(5))
            }
            ConnectionEnd::Normal => {
                (entry.failures, entry.duplicates) = (0, 0);
                if is_user { FIRST_USER_PAUSE } else { FIRST_PAUSE }
            }
            ConnectionEnd::Bad => {
                entry.failures += 1;
                let most = if entry.is_hearsay() { MAX_FAILURES_OF_HEARSAY } else { MAX_FAILURES };
                if entry.failures > most && !is_user {
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
        entry.state = DialState::Waiting(now + pause);
    }

    /// Returns the candidate for an address, adding it if it is unknown. Returns `None` if no peer can have
    /// the address, or if there is no room.
    fn entry(&mut self, addr: SocketAddr) -> Option<&mut Candidate> {
        if !is_dialable(addr) || self.ours.contains(&addr) {
            return None;
        }
        let is_full = !self.entries.contains_key(&addr) && self.entries.len() >= MAX_CANDIDATES;
        if is_full && !self.make_room(PeerSource::Incoming) {
            return None;
        }
        let new = || Candidate::new(PeerSource::Incoming, DialState::Waiting(Moment::START));
        Some(self.entries.entry(addr).or_insert_with(new))
    }

    /// Forgets the least useful address if it is less useful than one from `source`. Returns whether there
    /// is room.
    fn make_room(&mut self, source: PeerSource) -> bool {
        let idle = self.entries.iter().filter(|(_, e)| matches!(e.state, DialState::Waiting(_)));
        let worst = idle
            .filter(|(_, entry)| !entry.source.is_named())
            .max_by_key(|(_, entry)| (entry.failures > 0, entry.is_hearsay(), entry.failures))
            .filter(|(_, entry)| {
                entry.failures > 0
                    || source.is_named()
                    || entry.is_hearsay() && !source.is_hearsay()
            })
            .map(|(addr, _)| *addr);
        worst.is_some_and(|addr| self.entries.remove(&addr).is_some())
    }
}

fn put_off(entry: &mut Candidate, until: Moment) {
    if let DialState::Waiting(from) = entry.state
        && !entry.is_proven
        && !entry.source.is_named()
    {
        entry.state = DialState::Waiting(from.max(until));
    }
}

/// Maximum number of addresses. A swarm connects to a tenth of them. A tracker that sends more is lying, or
/// will be asked again.
const MAX_CANDIDATES: usize = 1_000;

/// Maximum number of addresses that are known only from other peers, of all of them and of those of one subscriber. So
/// there is always room for what trackers name, and one liar cannot fill the list.
const MAX_EXCHANGED: usize = 400;
const MAX_EXCHANGED_OF_HOST: usize = 100;

/// Maximum number of own addresses. A machine has a handful.
const MAX_OURS: usize = 64;

/// Maximum number of addresses that are kept only for statistics.
const MAX_HUNG_UP: usize = 1_000;

/// After this many failures in a row (5 s, 10 s … 160 s apart), an address is forgotten.
const MAX_FAILURES: u32 = 6;

/// The same for an address that only peers have named. It may never have belonged to a peer.
const MAX_FAILURES_OF_HEARSAY: u32 = 2;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const FIRST_USER_PAUSE: Duration = Duration::from_millis(500);
const MAX_USER_PAUSE: Duration = Duration::from_secs(60);

/// A place was free when the address was dialled but was taken meanwhile. One place a second is freed from
/// peers that give nothing.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// There was no room, or the peer has another connection. Both may last. In the second case the pause
/// doubles each time, up to an hour.
const UNTIMELY_PAUSE: Duration = Duration::from_secs(120);

/// For a peer that a user named and that gave a wrong piece. Its operator may repair it, but each attempt
/// may cost a piece.
const FIRST_CORRUPT_PAUSE: Duration = Duration::from_secs(60);
const MAX_CORRUPT_PAUSE: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn dial(list: &mut CandidateList, millis: u64) -> Option<SocketAddr> {
        let dialled = list.next_dial(at(millis), false, &BTreeSet::new(), &mut Rng::from_seed(1));
        list.check();
        dialled
    }

    #[test]
    fn addresses_nobody_can_listen_at_are_dropped() {
        let mut list = CandidateList::default();
        for text in [
            "1.2.3.4:0",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "[::ffff:0.0.0.0]:80",
        ] {
            list.add(at(0), addr(text), PeerSource::Tracker);
        }
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn no_more_than_a_thousand_addresses_are_kept() {
        let mut list = CandidateList::default();
        for number in 0..5_000u32 {
            let ip = std::net::IpAddr::V4((0x0a00_0000 + number).into());
            list.add(at(0), SocketAddr::new(ip, 6881), PeerSource::Tracker);
        }
        assert_eq!(list.len(), MAX_CANDIDATES);
        list.add(at(0), addr("9.9.9.9:9"), PeerSource::User);
        assert_eq!(list.len(), MAX_CANDIDATES);
        assert_eq!(dial(&mut list, 0), Some(addr("9.9.9.9:9")));
    }

    #[test]
    fn failures_back_off_and_are_forgotten_at_last() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        let mut now = 0;
        for pause in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000] {
            assert_eq!(dial(&mut list, now), Some(addr("1.2.3.4:5")));
            assert_eq!((list.dialing(), list.next_due(false)), (1, None));
            list.dial_failed(at(now), addr("1.2.3.4:5"), false);
            assert_eq!(dial(&mut list, now + pause - 1), None);
            assert_eq!(list.next_due(false), Some(at(now + pause)));
            now += pause;
        }
        dial(&mut list, now);
        list.dial_failed(at(now), addr("1.2.3.4:5"), false);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn the_users_peers_come_first_are_retried_quickly_and_never_forgotten() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.1.1.1:1"), PeerSource::Tracker);
        list.add(at(0), addr("2.2.2.2:2"), PeerSource::User);
        let mut now = 0;
        for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            assert_eq!(dial(&mut list, now), Some(addr("2.2.2.2:2")));
            list.dial_failed(at(now), addr("2.2.2.2:2"), false);
            now += pause;
        }
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn own_address_is_never_dialled_again() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        dial(&mut list, 0);
        list.note_ours(addr("1.2.3.4:5"));
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::User);
        assert_eq!((list.len(), dial(&mut list, 9_000)), (0, None));
    }

    #[test]
    fn connected_addresses_are_not_dialled_and_sated_ones_only_if_wanted() {
        let mut list = CandidateList::default();
        list.connected(addr("1.2.3.4:5"));
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        assert_eq!(dial(&mut list, 0), None);
        list.note_disinterest(addr("1.2.3.4:5"), true);
        list.closed(at(0), addr("1.2.3.4:5"), ConnectionEnd::Normal);
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        assert_eq!(list.next_due(true), None);
        assert_eq!(
            list.next_dial(at(60_000), true, &BTreeSet::new(), &mut Rng::from_seed(1)),
            None
        );
        assert_eq!(dial(&mut list, 60_000), Some(addr("1.2.3.4:5")));
    }

    #[test]
    fn what_a_peer_says_of_its_port_keeps_nobody_from_being_dialled() {
        let mut list = CandidateList::default();
        // Known only from its own claim: it is connected.
        list.claimed(addr("1.2.3.4:5"));
        list.note_disinterest(addr("1.2.3.4:5"), false);
        assert_eq!((dial(&mut list, 0), list.next_due(false)), (None, None));
        // A tracker names it too. A seed need not dial it, but a download may.
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        assert_eq!(list.next_due(true), None);
        assert_eq!(dial(&mut list, 0), Some(addr("1.2.3.4:5")));
        // The peer there has another connection to us, so the attempts come later and later.
        let mut now = 0;
        for minutes in [2, 4, 8, 16, 32, 64, 64] {
            list.closed(at(now), addr("1.2.3.4:5"), ConnectionEnd::Duplicate);
            assert_eq!(list.next_due(false), Some(at(now + minutes * 60_000)));
            now += minutes * 60_000;
            dial(&mut list, now);
        }
        list.closed(at(now), addr("1.2.3.4:5"), ConnectionEnd::Normal);
        // A peer that claimed the address does not remove it when it disconnects.
        list.claimed(addr("1.2.3.4:5"));
        list.unclaimed(at(now), addr("1.2.3.4:5"), ConnectionEnd::Never);
        list.unclaimed(at(now), addr("1.2.3.4:5"), ConnectionEnd::Never);
        assert_eq!(dial(&mut list, now + 5_000), Some(addr("1.2.3.4:5")));
        list.claimed(addr("9.9.9.9:9"));
        list.unclaimed(at(now), addr("9.9.9.9:9"), ConnectionEnd::Never);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn a_dial_that_we_prevented_is_no_failure() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::Tracker);
        for _ in 0..100 {
            assert_eq!(dial(&mut list, 0), Some(addr("1.2.3.4:5")));
            list.dial_prevented(at(0), addr("1.2.3.4:5"));
        }
        list.dial_failed(at(0), addr("1.2.3.4:5"), false);
        assert_eq!(dial(&mut list, 0), Some(addr("1.2.3.4:5")));
        list.dial_failed(at(0), addr("1.2.3.4:5"), false);
        assert_eq!(list.next_due(false), Some(at(5_000)), "the first failure");
    }

    #[test]
    fn a_host_is_put_off_but_for_who_has_proven_good_and_whom_the_user_named() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.2.3.4:1"), PeerSource::Tracker);
        list.add(at(0), addr("1.2.3.4:2"), PeerSource::Tracker);
        list.add(at(0), addr("1.2.3.4:3"), PeerSource::User);
        list.add(at(0), addr("1.2.3.5:1"), PeerSource::Tracker);
        list.note_proven(addr("1.2.3.4:2"));
        list.put_off_ip("::ffff:1.2.3.4".parse().unwrap(), at(60_000));
        let mut dialled: Vec<_> = std::iter::from_fn(|| dial(&mut list, 0)).collect();
        dialled.sort();
        assert_eq!(dialled, ["1.2.3.4:2", "1.2.3.4:3", "1.2.3.5:1"].map(addr));
        assert_eq!(dial(&mut list, 60_000), Some(addr("1.2.3.4:1")));
    }

    #[test]
    fn a_users_peer_that_gave_a_wrong_piece_is_tried_again_later_and_later() {
        let mut list = CandidateList::default();
        list.add(at(0), addr("1.2.3.4:5"), PeerSource::User);
        let mut now = 0;
        for pause in [60_000, 120_000, 240_000] {
            assert_eq!(dial(&mut list, now), Some(addr("1.2.3.4:5")));
            list.connected(addr("1.2.3.4:5"));
            list.closed(at(now), addr("1.2.3.4:5"), ConnectionEnd::Never);
            assert_eq!(list.next_due(false), Some(at(now + pause)));
            now += pause;
        }
        list.add(at(now), addr("5.5.5.5:5"), PeerSource::Tracker);
        list.connected(addr("5.5.5.5:5"));
        list.closed(at(now), addr("5.5.5.5:5"), ConnectionEnd::Never);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn line_11_who_closes_connections_at_our_handshake_is_counted_until_it_does_not() {
        let mut list = CandidateList::default();
        let [one, two] = ["1.2.3.4:5", "1.2.3.4:6"].map(addr);
        for at_ in [one, two] {
            list.add(at(0), at_, PeerSource::Tracker);
        }
        // It fails so often that it is forgotten, and is counted nevertheless.
        let mut now = 0;
        while list.len() > 0 {
            now += 200_000;
            while let Some(dialled) = dial(&mut list, now) {
                list.dial_failed(at(now), dialled, true);
            }
        }
        assert_eq!(list.hung_up(), 2);
        // An address that we did not dial is not counted.
        list.dial_failed(at(now), addr("9.9.9.9:9"), true);
        assert_eq!(list.hung_up(), 2);
        list.connected(one);
        assert_eq!(list.hung_up(), 1);
        list.add(at(now), two, PeerSource::Tracker);
        assert_eq!(dial(&mut list, now), Some(two));
        list.dial_failed(at(now), two, false);
        assert_eq!(list.hung_up(), 0);
    }
}
