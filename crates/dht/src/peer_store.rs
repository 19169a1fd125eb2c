//! The peers that announced themselves to this node, within bounds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::{InfoHash, Moment, Rng, SaturatingFrom, network_of};

use super::address::Family;

/// What other peers said.
pub(crate) struct PeerStore {
    entries: Vec<Entry>,
    /// The places in `entries` of the peers of a torrent.
    torrents: HashMap<InfoHash, Vec<u32>, FixedState>,
    /// The number of entries of each subscriber.
    subscribers: HashMap<IpAddr, u32, FixedState>,
    limits: StoreLimits,
    /// The next entry that [`Self::sweep`] examines.
    cursor: usize,
}

/// How many peers are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreLimits {
    pub(crate) peers: usize,
    pub(crate) per_torrent: usize,
    pub(crate) per_subscriber: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: InfoHash,
    addr: SocketAddr,
    is_seed: bool,
    announced: Moment,
}

impl PeerStore {
    pub(crate) fn new(seed: u64, limits: StoreLimits) -> Self {
        Self {
            entries: Vec::new(),
            torrents: HashMap::with_hasher(FixedState::with_seed(seed)),
            subscribers: HashMap::with_hasher(FixedState::with_seed(seed)),
            limits,
            cursor: 0,
        }
    }

    /// Returns the number of peers, and of torrents.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.torrents.len())
    }

    /// Returns whether the torrent has room for one more peer.
    pub(crate) fn has_room(&self, hash: InfoHash) -> bool {
        self.torrents.get(&hash).is_none_or(|peers| peers.len() < self.limits.per_torrent)
    }

    /// Records a peer. If there is no room for it, the peer that announced itself longest ago makes room if it is of
    /// the same torrent or subscriber. In a full store, a peer of the subscriber with the most peers makes room.
    pub(crate) fn add(
        &mut self,
        now: Moment,
        hash: InfoHash,
        addr: SocketAddr,
        is_seed: bool,
        rng: &mut Rng,
    ) {
        let known = self.torrents.get(&hash).map_or(&[][..], |peers| peers);
        // One peer for each IP of a torrent (BEP 33), but many programs of a private network may share one.
        let found = known.iter().find(|at| is_same(self.entries[**at as usize].addr, addr));
        if let Some(at) = found {
            let entry = &mut self.entries[*at as usize];
            (entry.addr, entry.is_seed, entry.announced) = (addr, is_seed, now);
            return;
        }
        if known.len() >= self.limits.per_torrent {
            let oldest = known.iter().min_by_key(|at| self.entries[**at as usize].announced);
            oldest.copied().into_iter().for_each(|at| self.remove(at as usize));
        }
        let subscriber = network_of(addr.ip());
        let count = self.subscribers.get(&subscriber).copied().unwrap_or(0);
        if count >= self.limits.per_subscriber {
            return;
        }
        if self.entries.len() >= self.limits.peers {
            let samples = (0..SAMPLE).map(|_| rng.below(self.entries.len() as u64));
            let samples: Vec<usize> = samples.map(usize::saturating_from).collect();
            let weight = |at: usize| {
                let entry = &self.entries[at];
                let count = self.subscribers.get(&network_of(entry.addr.ip())).copied();
                (count.unwrap_or(0), now.since(entry.announced))
            };
            let Some(at) = samples.into_iter().max_by_key(|at| weight(*at)) else { return };
            self.remove(at);
        }
        let at = u32::saturating_from(self.entries.len());
        self.entries.push(Entry { hash, addr, is_seed, announced: now });
        self.torrents.entry(hash).or_default().push(at);
        *self.subscribers.entry(subscriber).or_default() += 1;
    }

    /// Returns up to `most` peers of the torrent that have addresses of the family, chosen at random.
    pub(crate) fn peers(
        &self,
        now: Moment,
        hash: InfoHash,
        family: Family,
        without_seeds: bool,
        most: usize,
        rng: &mut Rng,
    ) -> Vec<SocketAddr> {
        let Some(peers) = self.torrents.get(&hash) else { return Vec::new() };
        let start = usize::saturating_from(rng.below(peers.len() as u64));
        let around = peers[start..].iter().chain(&peers[..start]);
        let entries = around.map(|at| &self.entries[*at as usize]);
        let fresh = entries.filter(|entry| {
            Family::of(entry.addr) == family
                && now.since(entry.announced) < KEPT_FOR
                && !(without_seeds && entry.is_seed)
        });
        fresh.take(most).map(|entry| entry.addr).collect()
    }

    /// Removes the expired ones among up to `most` peers.
    pub(crate) fn sweep(&mut self, now: Moment, most: usize) {
        for _ in 0..most.min(self.entries.len()) {
            // Upwards, the last entry takes the place of a removed one and is examined next.
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            let Some(entry) = self.entries.get(self.cursor) else { return };
            if now.since(entry.announced) < KEPT_FOR {
                self.cursor += 1;
            } else {
                self.remove(self.cursor);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let entry = self.entries.swap_remove(at);
        let (last, at) = (u32::saturating_from(self.entries.len()), u32::saturating_from(at));
        if let Some(peers) = self.torrents.get_mut(&entry.hash) {
            peers.retain(|place| *place != at);
            if peers.is_empty() {
                self.torrents.remove(&entry.hash);
            }
        }
        let subscriber = network_of(entry.addr.ip());
        if let Some(count) = self.subscribers.get_mut(&subscriber) {
            *count -= 1;
            if *count == 0 {
                self.subscribers.remove(&subscriber);
            }
        }
        // The entry that took the place.
        if let Some(moved) = self.entries.get(at as usize)
            && let Some(peers) = self.torrents.get_mut(&moved.hash)
        {
            peers.iter_mut().filter(|place| **place == last).for_each(|place| *place = at);
        }
    }
}

/// Returns whether two addresses are of the same peer.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    let is_private = super::address::subnet_of(a.ip()).is_none();
    a.ip() == b.ip() && (!is_private || a.port() == b.port())
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            // About 10 MB.
            peers: 65_536,
            // An answer has room for 100, and the filters of BEP 33 for 6,000.
            per_torrent: 2_000,
            // What 10,000 torrents of one machine leave at each node of a network of 50 nodes.
            per_subscriber: 2_000,
        }
    }
}

/// Peers announce themselves every 15 to 30 minutes; one announce may be lost.
const KEPT_FOR: Duration = Duration::from_secs(45 * 60);

/// A subscriber with a hundredth of all peers is in a sample of this size as often as not.
const SAMPLE: usize = 64;

#[cfg(test)]
mod tests {
    use piecework_core::Rng;
    use proptest::prelude::*;

    use super::*;

    fn addr(n: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(0x0900_0000 + n).into(), 6881)
    }

    fn hash(n: u32) -> InfoHash {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(hash)
    }

    fn check(store: &PeerStore) {
        let places: usize = store.torrents.values().map(Vec::len).sum();
        assert_eq!(places, store.entries.len());
        assert_eq!(store.subscribers.values().sum::<u32>() as usize, store.entries.len());
        for (hash, peers) in &store.torrents {
            assert!(!peers.is_empty());
            assert!(peers.iter().all(|at| store.entries[*at as usize].hash == *hash));
        }
    }

    fn all(store: &PeerStore, now: Moment, hash: InfoHash) -> Vec<SocketAddr> {
        let mut rng = Rng::from_seed(1);
        let mut peers = store.peers(now, hash, Family::V4, false, usize::MAX, &mut rng);
        peers.sort();
        peers
    }

    #[test]
    fn very_many_torrents_of_one_address_leave_room_for_others() {
        let mut store = PeerStore::new(1, StoreLimits::default());
        let mut rng = Rng::from_seed(1);
        let now = Moment::from_secs(1);
        (0..100_000).for_each(|n| store.add(now, hash(n), addr(0), false, &mut rng));
        assert_eq!(store.len(), (2_000, 2_000));
        store.add(now, hash(7), addr(1), false, &mut rng);
        assert_eq!(all(&store, now, hash(7)), [addr(0), addr(1)]);
        check(&store);
    }

    #[test]
    fn torrents_of_addresses_with_many_displace_each_other() {
        let limits = StoreLimits { peers: 1_000, ..StoreLimits::default() };
        let mut store = PeerStore::new(1, limits);
        let mut rng = Rng::from_seed(1);
        let now = Moment::from_secs(1);
        // Ten peers of ten subscribers, and then a flood from three.
        (0..10).for_each(|n| store.add(now, hash(n), addr(n), false, &mut rng));
        for n in 0..20_000 {
            store.add(now, hash(100 + n), addr(100 + n % 3), false, &mut rng);
        }
        assert_eq!(store.len(), (1_000, 1_000));
        let left = (0..10).filter(|n| !all(&store, now, hash(*n)).is_empty()).count();
        assert_eq!(left, 10);
        check(&store);
    }

    #[test]
    fn a_popular_torrent_keeps_the_newest_peers() {
        let limits = StoreLimits { per_torrent: 3, ..StoreLimits::default() };
        let mut store = PeerStore::new(1, limits);
        let mut rng = Rng::from_seed(1);
        for n in 0..5 {
            store.add(Moment::from_secs(u64::from(n)), hash(1), addr(n), false, &mut rng);
        }
        assert_eq!(all(&store, Moment::from_secs(5), hash(1)), [addr(2), addr(3), addr(4)]);
        assert!(!store.has_room(hash(1)) && store.has_room(hash(2)));
        check(&store);
    }

    #[test]
    fn seeds_are_left_out_if_they_are_of_no_use() {
        let mut store = PeerStore::new(1, StoreLimits::default());
        let (mut rng, now) = (Rng::from_seed(1), Moment::from_secs(1));
        store.add(now, hash(1), addr(1), true, &mut rng);
        store.add(now, hash(1), addr(2), false, &mut rng);
        assert_eq!(store.peers(now, hash(1), Family::V4, true, 9, &mut rng), [addr(2)]);
        // The port and whether it is a seed may change.
        let moved = SocketAddr::new(addr(1).ip(), 7);
        store.add(now, hash(1), moved, false, &mut rng);
        assert_eq!(all(&store, now, hash(1)), [moved, addr(2)]);
    }

    #[test]
    fn peers_expire_without_a_new_announce() {
        let mut store = PeerStore::new(1, StoreLimits::default());
        let mut rng = Rng::from_seed(1);
        let now = Moment::from_secs(1);
        (0..100).for_each(|n| store.add(now, hash(n % 7), addr(n), false, &mut rng));
        let later = now + KEPT_FOR;
        store.add(later, hash(0), addr(0), false, &mut rng);
        assert_eq!(all(&store, later, hash(0)), [addr(0)]);
        (0..20).for_each(|_| store.sweep(later, 10));
        assert_eq!(store.len(), (1, 1));
        check(&store);
    }

    proptest! {
        #[test]
        fn indices_stay_right(
            steps in prop::collection::vec((0_u32..12, 0_u32..30, any::<bool>()), 0..300),
        ) {
            let limits = StoreLimits { peers: 40, per_torrent: 6, per_subscriber: 8 };
            let mut store = PeerStore::new(1, limits);
            let mut rng = Rng::from_seed(1);
            let mut now = Moment::from_secs(1);
            for (torrent, peer, is_seed) in steps {
                now = now + Duration::from_secs(60);
                store.add(now, hash(torrent), addr(peer), is_seed, &mut rng);
                store.sweep(now, 3);
                check(&store);
                prop_assert!(store.entries.len() <= 40);
            }
        }
    }
}
