//! A bounded memory of requests in which every kind of request has its own room, and every network
//! a fair share of it.
//!
//! Invariant: `records` has exactly the numbers that are in the lanes of `kinds`, each once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use super::request_record::{RequestKind, RequestRecord};
use piecework_core::network_of;

/// The last requests, up to a number of records and a number of peers in them.
///
/// When it is full, a kind of request that has more than its share loses a record: the least
/// important such kind, and in it the network with the most records, which loses its oldest one. So
/// no kind pushes another below its share, whoever sends it.
pub(super) struct RequestRing {
    records: BTreeMap<u64, Arc<RequestRecord>>,
    /// The records of each kind, by the number of the kind.
    kinds: [Lanes; RequestKind::COUNT],
    next: u64,
    /// Peers in all records.
    peers: usize,
    capacity: usize,
    max_peers: usize,
    dropped: u64,
}

/// The numbers of records, by network.
#[derive(Default)]
struct Lanes {
    by_network: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
    lanes: Slab<Lane>,
    /// Lanes by the binary logarithm of their length, then by their oldest number. With whole
    /// powers of two, a growing lane seldom changes its place.
    by_length: Vec<BTreeMap<u64, usize>>,
    len: usize,
    /// Peers in these records.
    peers: usize,
}

/// The records of one network, oldest first. Never empty.
struct Lane {
    network: IpAddr,
    numbers: VecDeque<u64>,
}

impl RequestRing {
    /// Creates an empty memory of up to `capacity` records with up to `max_peers` peers in total.
    pub(super) fn new(capacity: usize, max_peers: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            kinds: Default::default(),
            next: 0,
            peers: 0,
            capacity,
            max_peers,
            dropped: 0,
        }
    }

    /// Adds a record. Returns one that was dropped to make room, so that the caller can free it
    /// after releasing its lock.
    pub(super) fn push(&mut self, record: Arc<RequestRecord>) -> Option<Arc<RequestRecord>> {
        let peers = record.handed.len();
        self.peers += peers;
        let network = network_of(record.peer.ip());
        let lanes = &mut self.kinds[record.kind() as usize];
        lanes.peers += peers;
        lanes.push(network, self.next);
        self.records.insert(self.next, record);
        self.next += 1;
        let mut gone = None;
        while self.records.len() > self.capacity
            || (self.peers > self.max_peers && self.records.len() > 1)
        {
            gone = self.drop_one();
        }
        gone
    }

    /// Returns the last `limit` records, oldest first.
    pub(super) fn last(&self, limit: usize) -> Vec<Arc<RequestRecord>> {
        let mut last: Vec<_> = self.records.values().rev().take(limit).cloned().collect();
        last.reverse();
        last
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns how many records were dropped to make room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_one(&mut self) -> Option<Arc<RequestRecord>> {
        // The shares add up to at most the whole, so some kind has more than its share.
        let too_many = self.records.len() > self.capacity;
        let share_of = |kind: RequestKind| match too_many {
            true => (self.kinds[kind as usize].len, self.capacity / 8 * kind.eighths()),
            false => (self.kinds[kind as usize].peers, self.max_peers / 8 * kind.peer_eighths()),
        };
        let mut least_first = RequestKind::ALL.iter().rev().copied();
        let kind = least_first.find(|kind| {
            let (has, share) = share_of(*kind);
            has > share
        })?;
        let lanes = &mut self.kinds[kind as usize];
        let number = lanes.pop()?;
        let record = self.records.remove(&number)?;
        lanes.peers -= record.handed.len();
        self.peers -= record.handed.len();
        self.dropped += 1;
        Some(record)
    }
}

impl Lanes {
    fn push(&mut self, network: IpAddr, number: u64) {
        self.len += 1;
        if let Some(&at) = self.by_network.get(&network) {
            let numbers = &mut self.lanes[at].numbers;
            numbers.push_back(number);
            let (length, oldest) = (numbers.len(), numbers.front().copied().unwrap_or(number));
            if length.is_power_of_two() {
                self.by_length[class_of(length - 1)].remove(&oldest);
                self.place(length, oldest, at);
            }
        } else {
            let at = self.lanes.insert(Lane { network, numbers: VecDeque::from([number]) });
            self.by_network.insert(network, at);
            self.place(1, number, at);
        }
    }

    /// Removes the oldest record of the longest lane; among lanes of about the same length, of the
    /// one that begins first.
    fn pop(&mut self) -> Option<u64> {
        let longest = self.by_length.iter_mut().rev().find(|lanes| !lanes.is_empty())?;
        let (number, at) = longest.pop_first()?;
        self.len -= 1;
        let lane = &mut self.lanes[at];
        lane.numbers.pop_front();
        match lane.numbers.front().copied() {
            Some(oldest) => {
                let length = lane.numbers.len();
                if lane.numbers.capacity() > 4 * length {
                    lane.numbers.shrink_to(2 * length);
                }
                self.place(length, oldest, at);
            }
            None => {
                self.by_network.remove(&lane.network);
                self.lanes.remove(at);
            }
        }
        Some(number)
    }

    fn place(&mut self, length: usize, oldest: u64, at: usize) {
        let class = class_of(length);
        if self.by_length.len() <= class {
            self.by_length.resize_with(class + 1, BTreeMap::new);
        }
        self.by_length[class].insert(oldest, at);
    }
}

fn class_of(length: usize) -> usize {
    length.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::request_record::{HandedList, RequestEvent, Via};
    use super::*;
    use piecework_core::InfoHash;
    use piecework_registry::HandedPeer;

    fn record(network: u8, kind: RequestKind) -> Arc<RequestRecord> {
        record_of(network, kind, 0)
    }

    fn record_of(network: u8, kind: RequestKind, peers: usize) -> Arc<RequestRecord> {
        let (event, named) = match kind {
            RequestKind::Change => (RequestEvent::Register, true),
            RequestKind::Fetch => (RequestEvent::Fetch, true),
            RequestKind::Catalogued => (RequestEvent::Announce, true),
            RequestKind::Other => (RequestEvent::Announce, false),
        };
        let handed = HandedPeer { addr: ([10, 9, 9, 9], 1).into(), complete: true };
        Arc::new(RequestRecord {
            time: SystemTime::UNIX_EPOCH,
            peer: ([10, 0, 0, network], 1).into(),
            peer_id: None,
            event,
            info_hash: Some(InfoHash([1; 20])),
            name: named.then(|| "a".into()),
            handed: HandedList::new(&vec![handed; peers]),
            outcome: Ok(()),
            via: Via::Udp,
            unlisted: false,
        })
    }

    fn count(ring: &RequestRing, network: u8, kind: RequestKind) -> usize {
        let ip = IpAddr::from([10, 0, 0, network]);
        let is_it = |record: &&Arc<RequestRecord>| record.peer.ip() == ip && record.kind() == kind;
        ring.last(usize::MAX).iter().filter(is_it).count()
    }

    fn check(ring: &RequestRing) {
        let mut numbers = Vec::new();
        let mut peers = 0;
        for lanes in &ring.kinds {
            let mut len = 0;
            let mut peers_here = 0;
            for (at, lane) in &lanes.lanes {
                assert_eq!(lanes.by_network.get(&lane.network), Some(&at));
                let class = class_of(lane.numbers.len());
                assert_eq!(lanes.by_length[class].get(lane.numbers.front().unwrap()), Some(&at));
                len += lane.numbers.len();
                let handed = |number| ring.records[number].handed.len();
                peers_here += lane.numbers.iter().map(handed).sum::<usize>();
                numbers.extend(lane.numbers.iter().copied());
            }
            assert_eq!((len, lanes.by_network.len()), (lanes.len, lanes.lanes.len()));
            assert_eq!(peers_here, lanes.peers);
            peers += peers_here;
            let placed: usize = lanes.by_length.iter().map(BTreeMap::len).sum();
            assert_eq!(placed, lanes.lanes.len());
        }
        assert_eq!(peers, ring.peers);
        numbers.sort_unstable();
        assert!(numbers.iter().eq(ring.records.keys()));
    }

    #[test]
    fn the_shares_of_all_kinds_are_the_whole() {
        let all = RequestKind::ALL;
        assert!(all.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert_eq!(all.iter().map(|kind| kind.eighths()).sum::<usize>(), 8);
        assert_eq!(all.iter().map(|kind| kind.peer_eighths()).sum::<usize>(), 8);
    }

    proptest! {
        #[test]
        fn what_a_network_has_within_its_share_is_never_lost(
            pushes in proptest::collection::vec((0u8..12, 0usize..4), 0..600),
            capacity in 1usize..300,
        ) {
            let mut ring = RequestRing::new(capacity, usize::MAX);
            let (mut pushed, mut sent) = (0, BTreeMap::new());
            for (network, kind) in pushes {
                // The first network sends eight times what others do.
                for _ in 0..if network == 0 { 8 } else { 1 } {
                    ring.push(record(network, RequestKind::ALL[kind]));
                    pushed += 1;
                    *sent.entry((network, kind)).or_insert(0_usize) += 1;
                }
                check(&ring);
                prop_assert!(ring.len() <= capacity);
                prop_assert_eq!(ring.len() as u64 + ring.dropped(), pushed);
            }
            for (at, kind) in RequestKind::ALL.into_iter().enumerate() {
                // The share of the kind for twelve networks; lengths are distinguished by powers of
                // two.
                let share = capacity / 8 * kind.eighths() / 12 / 2;
                for network in 0..12 {
                    let sent = sent.get(&(network, at)).copied().unwrap_or(0);
                    prop_assert!(count(&ring, network, kind) >= sent.min(share));
                }
            }
        }

        /// Noise of any number of networks and with any number of peers, among it that of the
        /// network whose requests are counted.
        #[test]
        fn open_tracker_noise_takes_no_place_from_the_catalogue(
            before in proptest::collection::vec(0usize..3, 0..60),
            noise in proptest::collection::vec((0u8..40, 0usize..60), 0..600),
        ) {
            let (capacity, max_peers) = (160, 1_600);
            let mut ring = RequestRing::new(capacity, max_peers);
            let mut sent = [0; 3];
            // 60 records of 20 peers are within 3/4 of both bounds.
            for kind in before {
                let kind = RequestKind::ALL[kind];
                let peers = if kind == RequestKind::Catalogued { 20 } else { 0 };
                ring.push(record_of(1, kind, peers));
                sent[kind as usize] += 1;
            }
            for (network, peers) in noise {
                ring.push(record_of(network, RequestKind::Other, peers));
                prop_assert!(ring.len() <= capacity && ring.peers <= max_peers);
            }
            check(&ring);
            for (sent, kind) in sent.into_iter().zip(RequestKind::ALL) {
                prop_assert_eq!(count(&ring, 1, kind), sent);
            }
        }
    }

    #[test]
    fn a_flood_from_one_network_takes_no_record_of_another() {
        for flood in RequestKind::ALL {
            for honest in RequestKind::ALL {
                let mut ring = RequestRing::new(1_000, usize::MAX);
                for number in 0..100_000 {
                    if number % 2_500 == 0 {
                        ring.push(record(2, honest));
                    }
                    ring.push(record(1, flood));
                }
                assert_eq!((count(&ring, 2, honest), ring.len()), (40, 1_000), "{flood:?}");
                check(&ring);
            }
        }
    }

    #[test]
    fn a_flood_of_the_same_network_takes_no_registration_and_no_fetch() {
        for (flood, peers) in [
            (RequestKind::Other, 0),
            (RequestKind::Other, 200),
            (RequestKind::Catalogued, 0),
            (RequestKind::Catalogued, 200),
        ] {
            let mut ring = RequestRing::new(1_000, 20_000);
            ring.push(record(1, RequestKind::Change));
            (0..40).for_each(|_| drop(ring.push(record(1, RequestKind::Fetch))));
            (0..10_000).for_each(|_| drop(ring.push(record_of(1, flood, peers))));
            assert_eq!(count(&ring, 1, RequestKind::Change), 1);
            assert_eq!(count(&ring, 1, RequestKind::Fetch), 40);
            check(&ring);
        }
    }

    #[test]
    fn a_flood_from_many_networks_takes_nothing_from_the_catalogue() {
        let mut ring = RequestRing::new(400, usize::MAX);
        (0..250).for_each(|_| drop(ring.push(record(1, RequestKind::Catalogued))));
        for number in 0..10_000 {
            ring.push(record((number % 200) as u8 + 2, RequestKind::Other));
        }
        assert_eq!((count(&ring, 1, RequestKind::Catalogued), ring.len()), (250, 400));
    }
}
