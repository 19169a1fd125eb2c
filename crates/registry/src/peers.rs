//! The peers of one torrent and one address family, packed small: at a million peers every byte
//! of [`Packed`] is a megabyte, so what only some torrents need lives in side tables.
//!
//! Invariant: `packed[..complete]` are the peers that hold everything, the rest do not; within each of
//! these two parts come first the peers that were seen, then those that were not checked, then those
//! that were not reached, and last those that may be gone. The index, if there is one, maps every position exactly once.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use piecework_core::Moment;

/// Sixteenths of a second since the driver's start: 32 bits last 8 years, so nothing ever wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tick(pub u32);

pub(super) fn tick_of(now: Moment) -> Tick {
    Tick(ticks(now.since_start()))
}

/// The moment of a tick.
pub(super) fn moment_of(tick: Tick) -> Moment {
    Moment::from_start(Duration::from_millis(u64::from(tick.0) * 1000 / 16))
}

/// A time in the unit of [`Tick`].
pub(super) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() * 16 / 1000).unwrap_or(u32::MAX)
}

/// An address family's bytes.
pub(super) trait Family: Copy + Eq {
    /// What one subscriber holds: an IPv4 address, or an IPv6 /64.
    fn network(&self) -> u64;
    /// What one customer of a provider may hold many networks of: an IPv4 /24, or an IPv6 /48.
    fn area(&self) -> u64;
    /// The address.
    fn to_ip(self) -> IpAddr;
}

/// One peer: 12 bytes for IPv4, 24 for IPv6.
#[derive(Clone, Copy)]
pub(super) struct Packed<A> {
    ip: A,
    port: u16,
    /// How often it was handed out lately; halved every half-life.
    pub recent: u16,
    /// When it announced last.
    pub seen: Tick,
}

/// What is known of whether a peer takes connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Standing {
    /// It was reached, or reports what it holds.
    Seen = 0,
    /// Nobody knows.
    Unchecked = 1,
    /// It refused a connection, or did not answer, and announced all the same since.
    Refused = 2,
    /// It refused a connection, or did not answer, and nothing was heard of it since: it may be gone.
    Lost = 3,
}

impl Standing {
    /// Whether a peer takes connections, as far as that is known.
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
    /// Where each section but the last one ends; `None` while all peers are unchecked. The sections
    /// are those of [`section`].
    ends: Option<Box<[u32; SECTIONS - 1]>>,
    /// Position by address, only while there are more than [`LINEAR`] peers.
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

    /// Adds a peer that is not in the list.
    pub(super) fn insert(&mut self, peer: Packed<A>, complete: bool, hasher: &FixedState) {
        let last = self.packed.len();
        self.packed.push(peer);
        match &mut self.index {
            Some(index) => {
                let packed = &self.packed;
                index.insert_unique(bucket(&peer, hasher), last as u32, |position| {
                    bucket(&packed[*position as usize], hasher)
                });
            }
            None if self.packed.len() > LINEAR => self.build_index(hasher),
            None => {}
        }
        self.move_to(last, section(complete, Standing::Unchecked), hasher);
    }

    /// Moves a peer to the complete or the incomplete ones; returns its new position.
    pub(super) fn set_complete(
        &mut self,
        position: usize,
        complete: bool,
        hasher: &FixedState,
    ) -> usize {
        self.move_to(position, section(complete, self.standing(position)), hasher)
    }

    /// Notes what is known of whether a peer takes connections; returns its new position.
    pub(super) fn set_standing(
        &mut self,
        position: usize,
        standing: Standing,
        hasher: &FixedState,
    ) -> usize {
        if self.ends.is_none() {
            if standing == Standing::Unchecked {
                return position;
            }
            self.ends = Some(Box::new(self.ends()));
        }
        self.move_to(position, section(self.is_complete(position), standing), hasher)
    }

    /// Whether anything is known of whether any peer takes connections.
    pub(super) fn were_checked(&self) -> bool {
        self.ends.is_some()
    }

    /// What is known of whether a peer takes connections.
    pub(super) fn standing(&self, position: usize) -> Standing {
        match self.section_of(position) % STANDINGS {
            0 => Standing::Seen,
            1 => Standing::Unchecked,
            2 => Standing::Refused,
            _ => Standing::Lost,
        }
    }

    /// The positions of the peers that are or are not complete, and have this standing.
    pub(super) fn range(&self, complete: bool, standing: Standing) -> Range<usize> {
        let (ends, section) = (self.ends(), section(complete, standing));
        let begin = if section == 0 { 0 } else { ends[section - 1] as usize };
        begin..ends.get(section).map_or(self.packed.len(), |end| *end as usize)
    }

    /// Takes a peer out. Others that change their position come from further back.
    pub(super) fn remove(&mut self, position: usize, hasher: &FixedState) -> Packed<A> {
        // The last section that there is.
        let standing = if self.ends.is_some() { Standing::Lost } else { Standing::Unchecked };
        let position = self.move_to(position, section(false, standing), hasher);
        let last = self.packed.len() - 1;
        self.swap(position, last, hasher);
        let gone = self.packed.swap_remove(last);
        if let Some(index) = &mut self.index
            && let Ok(entry) = index.find_entry(bucket(&gone, hasher), |at| *at == last as u32)
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

    /// Halves every recent count `times` times.
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

    /// Number of complete peers; they have the first positions.
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

    /// How many peers come from the network of `ip`.
    pub(super) fn count_network(&self, ip: A, hasher: &FixedState) -> usize {
        let network = ip.network();
        self.count_in(network, |peer| peer.ip.network() == network, hasher)
    }

    /// Whether there is a peer at `ip`, one at the port `except` aside.
    pub(super) fn has_at(&self, ip: A, except: Option<u16>, hasher: &FixedState) -> bool {
        let is_it = |peer: &Packed<A>| peer.ip == ip && Some(peer.port) != except;
        self.count_in(ip.network(), is_it, hasher) > 0
    }

    /// How many peers of a network are such.
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
                        // Tables yield near misses too; a near miss of one bucket is the
                        // member of another and must not be counted twice.
                        is_it(peer) && bucket(peer, hasher) == hash
                    })
                })
                .count(),
        }
    }

    /// Bytes on the heap.
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
        assert_eq!(ends[STANDINGS - 1], self.complete);
        assert!(self.index.is_some() || self.packed.len() <= LINEAR);
        if let Some(index) = &self.index {
            assert_eq!(index.len(), self.packed.len());
        }
        for (position, peer) in self.packed.iter().enumerate() {
            assert_eq!(self.find(peer.ip, peer.port, hasher), Some(position));
        }
    }

    /// Moves a peer to a section, by way of those in between: each of these gives one of its peers the
    /// place at its other end. Returns the new position.
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
        self.complete = ends[STANDINGS - 1];
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
        let (complete, all) = (self.complete, self.packed.len() as u32);
        let unchecked = [0, complete, complete, complete, complete, all, all];
        self.ends.as_ref().map_or(unchecked, |ends| **ends)
    }

    fn build_index(&mut self, hasher: &FixedState) {
        let mut index = HashTable::with_capacity(self.packed.len() * 2);
        let packed = &self.packed;
        let rehash = |at: &u32| bucket(&packed[*at as usize], hasher);
        for (position, peer) in packed.iter().enumerate() {
            index.insert_unique(bucket(peer, hasher), position as u32, rehash);
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
            rename(hash_a, a as u32, u32::MAX);
            rename(hash_b, b as u32, a as u32);
            rename(hash_a, u32::MAX, b as u32);
        }
        self.packed.swap(a, b);
    }
}

/// Complete peers come before others, and each of these by their standing.
fn section(complete: bool, standing: Standing) -> usize {
    if complete { standing as usize } else { STANDINGS + standing as usize }
}

fn bucket<A: Family>(peer: &Packed<A>, hasher: &FixedState) -> u64 {
    hash_of(peer.ip.network(), peer.port, hasher)
}

/// Peers of one network fall into 16 buckets, so that counting them is 16 look-ups, and looking
/// one up among a thousand of them compares a few dozen.
fn hash_of(network: u64, port: u16, hasher: &FixedState) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u64(network);
    state.write_u16(port >> PORT_BITS);
    state.finish()
}

/// Up to here a scan beats a hash table: 32 × 12 bytes are six cache lines.
const LINEAR: usize = 32;

/// Kinds of standing, and sections of a list.
const STANDINGS: usize = 4;
const SECTIONS: usize = 2 * STANDINGS;

/// Low bits of the port that do not go into the hash.
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
            let standings =
                [Standing::Seen, Standing::Unchecked, Standing::Refused, Standing::Lost];
            for (what, port, standing, complete) in changes {
                let standing = standings[usize::from(standing)];
                let at = list.find([10, 0, 0, 1], port, &hasher);
                prop_assert_eq!(at.is_some(), model.contains_key(&port));
                match (what, at) {
                    (0 | 1, None) => {
                        list.insert(Packed::new([10, 0, 0, 1], port, Tick(0)), complete, &hasher);
                        model.insert(port, (complete, Standing::Unchecked));
                    }
                    (2, Some(at)) => {
                        let at = list.set_complete(at, complete, &hasher);
                        prop_assert_eq!(list.get(at).port, port);
                        model.entry(port).and_modify(|peer| peer.0 = complete);
                    }
                    (3, Some(at)) => {
                        let at = list.set_standing(at, standing, &hasher);
                        prop_assert_eq!(list.get(at).port, port);
                        model.entry(port).and_modify(|peer| peer.1 = standing);
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
                    for standing in standings {
                        for at in list.range(complete, standing) {
                            let port = list.get(at).port;
                            prop_assert_eq!(model.get(&port), Some(&(complete, standing)));
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
