//! The peers of one torrent and one address family, packed small: at a million peers every byte
//! of [`Packed`] is a megabyte, so what only some torrents need lives in side tables.
//!
//! Invariant: `packed[..complete]` are the peers that hold everything, the rest do not; the index,
//! if there is one, maps every position exactly once.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Sixteenths of a second since the driver's start: 32 bits last 8 years, so nothing ever wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tick(pub u32);

/// An address family's bytes.
pub(super) trait Family: Copy + Eq {
    /// What one subscriber holds: an IPv4 address, or an IPv6 /64.
    fn network(&self) -> u64;
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

/// All peers of one torrent and family.
pub(super) struct PeerList<A> {
    packed: Vec<Packed<A>>,
    complete: u32,
    /// Position by address, only while there are more than [`LINEAR`] peers.
    index: Option<Box<HashTable<u32>>>,
}

impl Family for [u8; 4] {
    fn network(&self) -> u64 {
        u64::from(u32::from_be_bytes(*self))
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
}

impl<A: Family> PeerList<A> {
    pub(super) const fn new() -> Self {
        Self { packed: Vec::new(), complete: 0, index: None }
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
        if complete {
            self.set_complete(last, true, hasher);
        }
    }

    /// Moves a peer to the complete or the incomplete ones; gives its new position.
    pub(super) fn set_complete(
        &mut self,
        position: usize,
        complete: bool,
        hasher: &FixedState,
    ) -> usize {
        if self.is_complete(position) == complete {
            return position;
        }
        if complete {
            let target = self.complete as usize;
            self.swap(position, target, hasher);
            self.complete += 1;
            target
        } else {
            self.complete -= 1;
            let target = self.complete as usize;
            self.swap(position, target, hasher);
            target
        }
    }

    /// Takes a peer out. Others that change their position come from further back.
    pub(super) fn remove(&mut self, position: usize, hasher: &FixedState) -> Packed<A> {
        let position = self.set_complete(position, false, hasher);
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
            + self.index.as_ref().map_or(0, |index| index.allocation_size())
    }

    #[cfg(test)]
    pub(super) fn check(&self, hasher: &FixedState) {
        assert!(self.complete as usize <= self.packed.len());
        assert!(self.index.is_some() || self.packed.len() <= LINEAR);
        if let Some(index) = &self.index {
            assert_eq!(index.len(), self.packed.len());
        }
        for (position, peer) in self.packed.iter().enumerate() {
            assert_eq!(self.find(peer.ip, peer.port, hasher), Some(position));
        }
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

/// Low bits of the port that do not go into the hash.
const PORT_BITS: u32 = 12;

const _: () = assert!(size_of::<Packed<[u8; 4]>>() == 12 && size_of::<Packed<[u8; 16]>>() == 24);

#[cfg(test)]
mod tests {
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
