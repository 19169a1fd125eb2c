//! A bounded store of requests in which every network has a fair share of the room.
//!
//! Invariant: `records` has exactly the numbers that stand in the lanes of `catalogued` and
//! `other`, each once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use slab::Slab;

use super::RequestRecord;
use crate::base::network_of;

/// The last requests. When there is no room, the network with the most records loses its oldest.
///
/// Requests that concern the catalogue and others are kept apart: while the store is full, the
/// others keep a quarter of it, however many come.
pub(super) struct RequestRing {
    records: BTreeMap<u64, Arc<RequestRecord>>,
    catalogued: Lanes,
    other: Lanes,
    next: u64,
    /// Peers handed out in all records.
    peers: usize,
    capacity: usize,
    max_peers: usize,
    dropped: u64,
}

/// Numbers of records by network.
#[derive(Default)]
struct Lanes {
    by_network: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
    lanes: Slab<Lane>,
    /// Lanes by the binary logarithm of their length, and then by their oldest number. With whole
    /// powers of two a lane seldom changes its place when it grows.
    by_length: Vec<BTreeMap<u64, usize>>,
    len: usize,
}

/// The records of one network, the oldest first. Never empty.
struct Lane {
    network: IpAddr,
    numbers: VecDeque<u64>,
}

impl RequestRing {
    /// An empty store of up to `capacity` records with up to `max_peers` peers in all.
    pub(super) fn new(capacity: usize, max_peers: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            catalogued: Lanes::default(),
            other: Lanes::default(),
            next: 0,
            peers: 0,
            capacity,
            max_peers,
            dropped: 0,
        }
    }

    /// Adds a record. Returns one that had to make room, so that the caller can free it after
    /// it has released its lock.
    pub(super) fn push(&mut self, record: Arc<RequestRecord>) -> Option<Arc<RequestRecord>> {
        self.peers += record.handed.len();
        let network = network_of(record.peer.ip());
        let lanes =
            if record.is_about_catalogue() { &mut self.catalogued } else { &mut self.other };
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

    /// The last `limit` records, the oldest first.
    pub(super) fn last(&self, limit: usize) -> Vec<Arc<RequestRecord>> {
        let mut last: Vec<_> = self.records.values().rev().take(limit).cloned().collect();
        last.reverse();
        last
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many records were dropped to make room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_one(&mut self) -> Option<Arc<RequestRecord>> {
        let spare = self.other.len > self.records.len() / OTHER_ONE_IN;
        let number = match spare {
            true => self.other.pop().or_else(|| self.catalogued.pop()),
            false => self.catalogued.pop().or_else(|| self.other.pop()),
        }?;
        let record = self.records.remove(&number)?;
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

    /// Takes out the oldest record of the longest lane; among lanes of about the same length, of
    /// the one that begins first.
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

/// The part of the room that requests have which do not concern the catalogue.
const OTHER_ONE_IN: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::{HandedList, RequestEvent, Via};
    use super::*;
    use crate::base::InfoHash;

    fn record(network: u8, catalogued: bool) -> Arc<RequestRecord> {
        Arc::new(RequestRecord {
            time: SystemTime::UNIX_EPOCH,
            peer: ([10, 0, 0, network], 1).into(),
            peer_id: None,
            event: RequestEvent::Announce,
            info_hash: Some(InfoHash([1; 20])),
            name: catalogued.then(|| "a".into()),
            handed: HandedList::default(),
            outcome: Ok(()),
            via: Via::Udp,
            unlisted: false,
        })
    }

    fn count(ring: &RequestRing, network: u8) -> usize {
        let ip = IpAddr::from([10, 0, 0, network]);
        ring.last(usize::MAX).iter().filter(|record| record.peer.ip() == ip).count()
    }

    fn check(ring: &RequestRing) {
        let mut numbers = Vec::new();
        for lanes in [&ring.catalogued, &ring.other] {
            let mut len = 0;
            for (at, lane) in &lanes.lanes {
                assert_eq!(lanes.by_network.get(&lane.network), Some(&at));
                let class = class_of(lane.numbers.len());
                assert_eq!(lanes.by_length[class].get(lane.numbers.front().unwrap()), Some(&at));
                len += lane.numbers.len();
                numbers.extend(lane.numbers.iter().copied());
            }
            assert_eq!((len, lanes.by_network.len()), (lanes.len, lanes.lanes.len()));
            let placed: usize = lanes.by_length.iter().map(BTreeMap::len).sum();
            assert_eq!(placed, lanes.lanes.len());
        }
        numbers.sort_unstable();
        assert!(numbers.iter().eq(ring.records.keys()));
    }

    proptest! {
        #[test]
        fn what_a_network_has_within_its_share_is_never_lost(
            pushes in proptest::collection::vec((0u8..12, any::<bool>()), 0..600),
            capacity in 1usize..80,
        ) {
            let mut ring = RequestRing::new(capacity, usize::MAX);
            let (mut pushed, mut sent) = (0, BTreeMap::new());
            for (network, catalogued) in pushes {
                // The first network sends eight times what others do.
                for _ in 0..if network == 0 { 8 } else { 1 } {
                    ring.push(record(network, catalogued));
                    pushed += 1;
                    *sent.entry((network, catalogued)).or_insert(0_usize) += 1;
                }
                check(&ring);
                prop_assert!(ring.len() <= capacity);
                prop_assert_eq!(ring.len() as u64 + ring.dropped(), pushed);
            }
            // Three quarters of the room for twelve networks, and lengths are told apart by
            // powers of two.
            let share = capacity * 3 / 4 / 12 / 2;
            for network in 0..12 {
                let sent = sent.get(&(network, true)).copied().unwrap_or(0);
                prop_assert!(count(&ring, network) >= sent.min(share));
            }
        }
    }

    #[test]
    fn a_flood_from_one_network_takes_no_record_of_another() {
        for (flood, honest) in [(true, true), (false, true), (false, false)] {
            let mut ring = RequestRing::new(1_000, usize::MAX);
            for number in 0..100_000 {
                if number % 2_500 == 0 {
                    ring.push(record(2, honest));
                }
                ring.push(record(1, flood));
            }
            assert_eq!((count(&ring, 2), ring.len()), (40, 1_000), "{flood} {honest}");
            check(&ring);
        }
    }

    #[test]
    fn a_flood_from_many_networks_takes_nothing_from_the_catalogue() {
        let mut ring = RequestRing::new(400, usize::MAX);
        (0..250).for_each(|_| drop(ring.push(record(1, true))));
        for number in 0..10_000 {
            ring.push(record((number % 200) as u8 + 2, false));
        }
        assert_eq!((count(&ring, 1), ring.len()), (250, 400));
    }
}
