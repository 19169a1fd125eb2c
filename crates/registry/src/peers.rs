//! The peers of one torrent and one address family, in a compact form. With a million peers each byte of [`Packed`]
//! is a megabyte, so data that only some torrents need is in side tables.
//!
//! Invariant: `packed[..complete]` are the complete peers, the rest are incomplete. Each of these parts is ordered
//! by reachability: peers that were seen, peers that were not checked, peers that refused, and peers that may be
//! gone. The index, if there is one, contains every position exactly once.

use piecework_core::SaturatingFrom;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use piecework_core::Moment;

/// Sixteenths of a second since the driver's start. 32 bits last 8 years, so a tick never wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tick(pub u32);

pub(super) fn tick_of(now: Moment) -> Tick {
    Tick(ticks(now.since_start()))
}

/// Returns the moment of a tick.
pub(super) fn moment_of(tick: Tick) -> Moment {
    Moment::from_start(Duration::from_millis(u64::from(tick.0) * 1000 / 16))
}

/// Returns a duration in the unit of [`Tick`].
pub(super) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() * 16 / 1000).unwrap_or(u32::MAX)
}

/// The address bytes of a family.
pub(super) trait Family: Copy + Eq {
    /// Returns the network of one subscriber: an IPv4 address or an IPv6 /64.
    fn network(&self) -> u64;
    /// Returns the area in which one customer of a provider may have many networks: an IPv4 /24 or an IPv6 /48.
    fn area(&self) -> u64;
    fn to_ip(self) -> IpAddr;
}

/// One peer: 12 bytes for IPv4, 24 for IPv6.
#[derive(Clone, Copy)]
pub(super) struct Packed<A> {
    ip: A,
    port: u16,
    /// How often the peer was handed out recently. Halved every half-life.
    pub recent: u16,
    /// When the peer last announced.
    pub seen: Tick,
}

/// Whether a peer accepts connections, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reachability {
    /// The peer was reached, or reports its holdings.
    Seen = 0,
    /// Nobody has tried to connect.
    Unchecked = 1,
    /// The peer refused a connection or did not answer, but has announced since.
    Refused = 2,
    /// The peer refused a connection or did not answer, and has not announced since. It may be gone.
    Lost = 3,
}

impl Reachability {
    /// Returns whether a peer accepts connections; `None` if that is not known.
    pub(super) fn reachable(self) -> Option<bool> {
        match self {
            Self::Seen => Some(true),
            Self::Unchecked => None,
            Self::Refused | Self::Lost => Some(false),
        }
    }
}

/// All peers of one torrent and family.
pub(super) struct PeerList<A> {
    packed: Vec<Packed<A>>,
    complete: u32,
    /// The end of each section except the last; `None` while all peers are unchecked. [`section`] defines the
    /// sections.
    ends: Option<Box<[u32; SECTIONS - 1]>>,
    /// Positions by address. Exists while there are more than [`LINEAR`] peers.
    index: Option<Box<HashTable<u32>>>,
}

impl Family for [u8; 4] {
    fn network(&self) -> u64 {
        u64::from(u32::from_be_bytes(*self))
    }

    fn area(&self) -> u64 {
        self.network() >> 8
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self))
    }
}

impl Family for [u8; 16] {
    fn network(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn area(&self) -> u64 {
        self.network() >> 16
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self))
    }
}

impl<A: Family> Packed<A> {
    pub(super) fn new(ip: A, port: u16, seen: Tick) -> Self {
        Self { ip, port, recent: 0, seen }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip.to_ip(), self.port)
    }

    pub(super) fn area(&self) -> u64 {
        self.ip.area()
    }
}

impl<A: Family> PeerList<A> {
    pub(super) const fn new() -> Self {
        Self { packed: Vec::new(), complete: 0, ends: None, index: None }
    }

    /// Adds a peer, which must not be in the list yet.
    pub(super) fn insert(&mut self, peer: Packed<A>, complete: bool, hasher: &FixedState) {
        let last = self.packed.len();
        if last == self.packed.capacity() {
            // Doubling would leave a quarter of all memory for peers unused.
            self.packed.reserve_exact(last / 4 + 1);
        }
        self.packed.push(peer);
        match &mut self.index {
            Some(index) => {
                let packed = &self.packed;
                index.insert_unique(
                    bucket(&peer, hasher),
                    u32::saturating_from(last),
                    |position| bucket(&packed[*position as usize], hasher),
                );
            }
            None if self.packed.len() > LINEAR => self.build_index(hasher),
            None => {}
        }
        self.move_to(last, section(complete, Reachability::Unchecked), hasher);
    }

    /// Moves a peer to the complete or incomplete peers. Returns its new position.
    pub(super) fn set_complete(
        &mut self,
        position: usize,
        complete: bool,
        hasher: &FixedState,
    ) -> usize {
        self.move_to(position, section(complete, self.reachability(position)), hasher)
    }

    /// Sets the reachability of a peer. Returns its new position.
    pub(super) fn set_reachability(
        &mut self,
        position: usize,
        reachability: Reachability,
        hasher: &FixedState,
    ) -> usize {
        if self.ends.is_none() {
            if reachability == Reachability::Unchecked {
                return position;
            }
            self.ends = Some(Box::new(self.ends()));
        }
        self.move_to(position, section(self.is_complete(position), reachability), hasher)
    }

    /// Returns whether the reachability of any peer was ever set.
    pub(super) fn were_checked(&self) -> bool {
        self.ends.is_some()
    }

    /// Returns the reachability of a peer.
    pub(super) fn reachability(&self, position: usize) -> Reachability {
        match self.section_of(position) % REACHABILITIES {
            0 => Reachability::Seen,
            1 => Reachability::Unchecked,
            2 => Reachability::Refused,
            _ => Reachability::Lost,
        }
    }

    /// Returns the positions of the complete or incomplete peers with this reachability.
    pub(super) fn range(&self, complete: bool, reachability: Reachability) -> Range<usize> {
        let (ends, section) = (self.ends(), section(complete, reachability));
        let begin = if section == 0 { 0 } else { ends[section - 1] as usize };
        begin..ends.get(section).map_or(self.packed.len(), |end| *end as usize)
    }

    /// Removes a peer. Other peers that change their position move to a lower one.
    pub(super) fn remove(&mut self, position: usize, hasher: &FixedState) -> Packed<A> {
        // The last section.
        let reachability =
            if self.ends.is_some() { Reachability::Lost } else { Reachability::Unchecked };
        let position = self.move_to(position, section(false, reachability), hasher);
        let last = self.packed.len() - 1;
        self.swap(position, last, hasher);
        let gone = self.packed.swap_remove(last);
        if let Some(index) = &mut self.index
            && let Ok(entry) =
                index.find_entry(bucket(&gone, hasher), |at| *at == u32::saturating_from(last))
        {
            entry.remove();
        }
        if self.packed.len() <= LINEAR / 2 {
            self.index = None;
        }
        if self.packed.is_empty() {
            self.ends = None;
        }
        if self.packed.len() < self.packed.capacity() / 4 {
            self.packed.shrink_to(self.packed.len() * 2);
            if let Some(index) = &mut self.index {
                let packed = &self.packed;
                index.shrink_to(packed.len() * 2, |at| bucket(&packed[*at as usize], hasher));
            }
        }
        gone
    }

    /// Halves every recent handout count `times` times.
    pub(super) fn halve(&mut self, times: u32) {
        for peer in &mut self.packed {
            peer.recent = peer.recent.checked_shr(times).unwrap_or(0);
        }
    }

    pub(super) fn get_mut(&mut self, position: usize) -> &mut Packed<A> {
        &mut self.packed[position]
    }

    pub(super) fn get(&self, position: usize) -> &Packed<A> {
        &self.packed[position]
    }

    pub(super) fn is_complete(&self, position: usize) -> bool {
        position < self.complete as usize
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len()
    }

    /// Returns the number of complete peers. They have the first positions.
    pub(super) fn complete(&self) -> usize {
        self.complete as usize
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Packed<A>, bool)> {
        self.packed
            .iter()
            .enumerate()
            .map(|(position, peer)| (peer, position < self.complete as usize))
    }

    pub(super) fn find(&self, ip: A, port: u16, hasher: &FixedState) -> Option<usize> {
        let is_it = |peer: &Packed<A>| peer.ip == ip && peer.port == port;
        match &self.index {
            None => self.packed.iter().position(is_it),
            Some(index) => index
                .find(hash_of(ip.network(), port, hasher), |at| is_it(&self.packed[*at as usize]))
                .map(|at| *at as usize),
        }
    }

    /// Returns how many peers are in the network of `ip`.
    pub(super) fn count_network(&self, ip: A, hasher: &FixedState) -> usize {
        let network = ip.network();
        self.count_in(network, |peer| peer.ip.network() == network, hasher)
    }

    /// Returns whether there is a peer at `ip`, not counting one at the port `except`.
    pub(super) fn has_at(&self, ip: A, except: Option<u16>, hasher: &FixedState) -> bool {
        let is_it = |peer: &Packed<A>| peer.ip == ip && Some(peer.port) != except;
        self.count_in(ip.network(), is_it, hasher) > 0
    }

    /// Returns how many peers of a network satisfy `is_it`.
    fn count_in(
        &self,
        network: u64,
        is_it: impl Fn(&Packed<A>) -> bool,
        hasher: &FixedState,
    ) -> usize {
        match &self.index {
            None => self.packed.iter().filter(|peer| is_it(peer)).count(),
            Some(index) => (0..=u16::MAX >> PORT_BITS)
                .map(|ports| hash_of(network, ports << PORT_BITS, hasher))
                .flat_map(|hash| {
                    let is_it = &is_it;
                    index.iter_hash(hash).filter(move |at| {
                        let peer = &self.packed[**at as usize];
                        // The table also yields entries with similar hashes. Such an entry belongs to another
                        // bucket and must not be counted twice.
                        is_it(peer) && bucket(peer, hasher) == hash
                    })
                })
                .count(),
        }
    }

    /// Returns the number of heap bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.packed.capacity() * size_of::<Packed<A>>()
            + self.ends.as_ref().map_or(0, |ends| size_of_val(&**ends))
            + self.index.as_ref().map_or(0, |index| index.allocation_size())
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self, hasher: &FixedState) {
        assert!(self.complete as usize <= self.packed.len());
        let ends = self.ends();
        assert!(ends.is_sorted() && ends[SECTIONS - 2] as usize <= self.packed.len());
        assert_eq!(ends[REACHABILITIES - 1], self.complete);
        assert!(self.index.is_some() || self.packed.len() <= LINEAR);
        if let Some(index) = &self.index {
            assert_eq!(index.len(), self.packed.len());
        }
        for (position, peer) in self.packed.iter().enumerate() {
            assert_eq!(self.find(peer.ip, peer.port, hasher), Some(position));
        }
    }

    /// Moves a peer to a section, one section at a time: each section in between moves one of its peers from one
    /// end to the other. Returns the new position.
    fn move_to(&mut self, position: usize, to: usize, hasher: &FixedState) -> usize {
        let (mut at, mut section, mut ends) = (position, self.section_of(position), self.ends());
        while section < to {
            ends[section] -= 1;
            let last = ends[section] as usize;
            self.swap(at, last, hasher);
            (at, section) = (last, section + 1);
        }
        while section > to {
            section -= 1;
            let first = ends[section] as usize;
            self.swap(at, first, hasher);
            ends[section] += 1;
            at = first;
        }
        self.complete = ends[REACHABILITIES - 1];
        if let Some(kept) = &mut self.ends {
            **kept = ends;
        }
        at
    }

    fn section_of(&self, position: usize) -> usize {
        let ends = self.ends();
        ends.iter().position(|end| position < *end as usize).unwrap_or(SECTIONS - 1)
    }

    fn ends(&self) -> [u32; SECTIONS - 1] {
        let (complete, all) = (self.complete, u32::saturating_from(self.packed.len()));
        let unchecked = [0, complete, complete, complete, complete, all, all];
        self.ends.as_ref().map_or(unchecked, |ends| **ends)
    }

    fn build_index(&mut self, hasher: &FixedState) {
        let mut index = HashTable::with_capacity(self.packed.len());
        let packed = &self.packed;
        let rehash = |at: &u32| bucket(&packed[*at as usize], hasher);
        for (position, peer) in packed.iter().enumerate() {
            index.insert_unique(bucket(peer, hasher), u32::saturating_from(position), rehash);
        }
        self.index = Some(Box::new(index));
    }

    fn swap(&mut self, a: usize, b: usize, hasher: &FixedState) {
        if a == b {
            return;
        }
        if let Some(index) = &mut self.index {
            let (hash_a, hash_b) =
                (bucket(&self.packed[a], hasher), bucket(&self.packed[b], hasher));
            let mut rename = |hash, from: u32, to: u32| {
                if let Some(at) = index.find_mut(hash, |at| *at == from) {
                    *at = to;
                }
            };
            rename(hash_a, u32::saturating_from(a), u32::MAX);
            rename(hash_b, u32::saturating_from(b), u32::saturating_from(a));
            rename(hash_a, u32::MAX, u32::saturating_from(b));
        }
        self.packed.swap(a, b);
    }
}

/// Returns the number of a section. Complete peers come before incomplete ones, and both are ordered by reachability.
fn section(complete: bool, reachability: Reachability) -> usize {
    if complete { reachability as usize } else { REACHABILITIES + reachability as usize }
}

fn bucket<A: Family>(peer: &Packed<A>, hasher: &FixedState) -> u64 {
    hash_of(peer.ip.network(), peer.port, hasher)
}

/// Hashes the network and the high bits of the port. The peers of one network are in 16 buckets: counting them
/// takes 16 look-ups, and finding one among a thousand compares a few dozen.
fn hash_of(network: u64, port: u16, hasher: &FixedState) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u64(network);
    state.write_u16(port >> PORT_BITS);
    state.finish()
}

/// Up to this many peers a scan is faster than a hash table: 32 × 12 bytes are six cache lines.
const LINEAR: usize = 32;

/// The number of reachabilities, and of sections in a list.
const REACHABILITIES: usize = 4;
const SECTIONS: usize = 2 * REACHABILITIES;

/// The number of low bits of the port that are not hashed.
const PORT_BITS: u32 = 12;

const _: () = assert!(size_of::<Packed<[u8; 4]>>() == 12 && size_of::<Packed<[u8; 16]>>() == 24);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_and_index_survive_every_change() {
        let hasher = FixedState::with_seed(1);
        let mut list = PeerList::<[u8; 4]>::new();
        for n in 0..200u16 {
            let ip = [10, 0, 0, (n % 3) as u8];
            list.insert(Packed::new(ip, n * 300 + 1, Tick(0)), n % 4 == 0, &hasher);
            list.check(&hasher);
        }
        assert_eq!(list.complete(), 50);
        assert_eq!(list.count_network([10, 0, 0, 1], &hasher), 67);
        for n in (0..200u16).rev() {
            let at = list.find([10, 0, 0, (n % 3) as u8], n * 300 + 1, &hasher).unwrap();
            let at = list.set_complete(at, n % 2 == 0, &hasher);
            assert_eq!(list.is_complete(at), n % 2 == 0);
            assert_eq!(list.remove(at, &hasher).port, n * 300 + 1);
            list.check(&hasher);
        }
        assert_eq!((list.len(), list.complete()), (0, 0));
    }

    proptest! {
        #[test]
        fn peers_stay_in_their_sections_whatever_changes(
            changes in proptest::collection::vec((0u8..5, 0u16..60, 0u8..4, any::<bool>()), 0..400),
        ) {
            let hasher = FixedState::with_seed(1);
            let mut list = PeerList::<[u8; 4]>::new();
            let mut model = BTreeMap::new();
            let reachabilities =
                [Reachability::Seen, Reachability::Unchecked, Reachability::Refused, Reachability::Lost];
            for (what, port, reachability, complete) in changes {
                let reachability = reachabilities[usize::from(reachability)];
                let at = list.find([10, 0, 0, 1], port, &hasher);
                prop_assert_eq!(at.is_some(), model.contains_key(&port));
                match (what, at) {
                    (0 | 1, None) => {
                        list.insert(Packed::new([10, 0, 0, 1], port, Tick(0)), complete, &hasher);
                        model.insert(port, (complete, Reachability::Unchecked));
                    }
                    (2, Some(at)) => {
                        let at = list.set_complete(at, complete, &hasher);
                        prop_assert_eq!(list.get(at).port, port);
                        model.entry(port).and_modify(|peer| peer.0 = complete);
                    }
                    (3, Some(at)) => {
                        let at = list.set_reachability(at, reachability, &hasher);
                        prop_assert_eq!(list.get(at).port, port);
                        model.entry(port).and_modify(|peer| peer.1 = reachability);
                    }
                    (4, Some(at)) => {
                        // The walk that removes silent peers goes backwards.
                        let before: Vec<u16> = list.packed[..at].iter().map(|p| p.port).collect();
                        prop_assert_eq!(list.remove(at, &hasher).port, port);
                        let after = list.packed[..at].iter().map(|p| p.port);
                        prop_assert!(after.eq(before));
                        model.remove(&port);
                    }
                    _ => {}
                }
                list.check(&hasher);
                let mut seen = 0;
                for complete in [true, false] {
                    for reachability in reachabilities {
                        for at in list.range(complete, reachability) {
                            let port = list.get(at).port;
                            prop_assert_eq!(model.get(&port), Some(&(complete, reachability)));
                            seen += 1;
                        }
                    }
                }
                prop_assert_eq!(seen, model.len());
            }
        }
    }

    #[test]
    fn ipv6_peers_are_counted_by_their_64_bit_network() {
        let hasher = FixedState::with_seed(1);
        let mut list = PeerList::<[u8; 16]>::new();
        for n in 0..100u8 {
            let mut ip = [0x20; 16];
            (ip[15], ip[7]) = (n, n % 2);
            list.insert(Packed::new(ip, 6881, Tick(0)), false, &hasher);
        }
        let mut ip = [0x20; 16];
        ip[7] = 1;
        assert_eq!(list.count_network(ip, &hasher), 50);
    }
}
