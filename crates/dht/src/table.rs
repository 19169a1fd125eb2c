//! The routing table: nodes that have answered, many of them close to our own id and few far away (BEP 5).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecework_core::{Moment, Rng};

use super::address::{Contact, subnet_of};
use super::node_id::NodeId;

/// The nodes of one family.
pub(crate) struct Table {
    own: NodeId,
    /// Bucket `n` has nodes that share exactly `n` bits with our id, the last one also those that share more.
    buckets: Vec<Bucket>,
}

#[derive(Default)]
struct Bucket {
    nodes: Vec<Node>,
    /// Nodes that have answered too, but found the bucket full. They replace nodes that become bad.
    spare: Vec<Node>,
    changed: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    contact: Contact,
    /// Of which few nodes are believed.
    network: Option<IpAddr>,
    /// The id fits the address.
    is_fit: bool,
    /// When it last answered, or asked something after it had answered.
    seen: Moment,
    /// When it was last asked whether it is still there.
    checked: Moment,
    /// The number of questions in a row that it did not answer.
    failures: u32,
}

impl Node {
    fn is_bad(&self) -> bool {
        self.failures >= BAD_AFTER
    }

    fn is_stale(&self, now: Moment) -> bool {
        let pause = CHECKED_AGAIN * (1 << self.failures.min(6));
        now.since(self.seen) >= GOOD_FOR && now.since(self.checked) >= pause
    }

    fn new(now: Moment, contact: Contact) -> Self {
        let ip = contact.addr.ip();
        Self {
            contact,
            network: subnet_of(ip),
            is_fit: contact.id.fits(ip),
            seen: now,
            checked: now,
            failures: 0,
        }
    }
}

impl Table {
    pub(crate) fn new(own: NodeId) -> Self {
        Self { own, buckets: vec![Bucket::default()] }
    }

    /// Returns the number of nodes that are not bad.
    pub(crate) fn len(&self) -> usize {
        self.nodes().filter(|node| !node.is_bad()).count()
    }

    /// Records that the node answered. Returns whether it is new in the table.
    pub(crate) fn answered(&mut self, now: Moment, contact: Contact) -> bool {
        if contact.id == self.own {
            return false;
        }
        let at = self.bucket_of(contact.id);
        let bucket = &mut self.buckets[at];
        if let Some(node) = bucket.nodes.iter_mut().find(|node| node.contact.id == contact.id) {
            if node.contact.addr == contact.addr {
                (node.seen, node.failures) = (now, 0);
                bucket.changed = now;
            } else if node.is_bad() {
                *node = Node::new(now, contact);
            }
            return false;
        }
        self.remove_others_at(contact);
        let node = Node::new(now, contact);
        self.is_diverse(&node, at) && self.insert(now, node)
    }

    /// Records that the node asked something. Returns whether it would be of use in the table if it answered.
    pub(crate) fn asked(&mut self, now: Moment, contact: Contact) -> bool {
        if contact.id == self.own {
            return false;
        }
        let at = self.bucket_of(contact.id);
        let is_last = at + 1 == self.buckets.len();
        let bucket = &mut self.buckets[at];
        if let Some(node) = bucket.nodes.iter_mut().find(|node| node.contact.id == contact.id) {
            if node.contact.addr == contact.addr && !node.is_bad() {
                node.seen = now;
            }
            return node.is_bad();
        }
        let is_known = bucket.spare.iter().any(|node| node.contact.id == contact.id);
        let has_room = is_last
            || bucket.nodes.len() < K
            || bucket.spare.len() < K
            || bucket.nodes.iter().any(Node::is_bad);
        !is_known && has_room && self.is_diverse(&Node::new(now, contact), at)
    }

    /// Records that the node did not answer.
    pub(crate) fn failed(&mut self, contact: Contact) {
        let at = self.bucket_of(contact.id);
        let bucket = &mut self.buckets[at];
        bucket.spare.retain(|node| node.contact != contact);
        let Some(place) = bucket.nodes.iter().position(|node| node.contact == contact) else {
            return;
        };
        let node = &mut bucket.nodes[place];
        node.failures = node.failures.saturating_add(1);
        // Without a replacement it stays: when the own network is down, no node answers.
        if node.is_bad()
            && let Some(spare) = bucket.spare.pop()
        {
            bucket.nodes[place] = spare;
        }
    }

    /// Returns up to `most` nodes that are not bad, the closest to `target` first.
    pub(crate) fn closest(&self, target: NodeId, most: usize) -> Vec<Contact> {
        let good = self.nodes().filter(|node| !node.is_bad());
        let mut found: Vec<_> =
            good.map(|node| (node.contact.id.distance(&target), node.contact)).collect();
        if found.len() > most {
            found.select_nth_unstable_by_key(most, |(distance, _)| *distance);
            found.truncate(most);
        }
        found.sort_unstable_by_key(|(distance, _)| *distance);
        found.into_iter().map(|(_, contact)| contact).collect()
    }

    /// Returns the node that has been silent longest, if it has to be asked whether it is still there.
    pub(crate) fn next_stale(&mut self, now: Moment) -> Option<Contact> {
        let nodes = self.buckets.iter_mut().flat_map(|bucket| &mut bucket.nodes);
        let node = nodes.filter(|node| node.is_stale(now)).min_by_key(|node| node.seen)?;
        node.checked = now;
        Some(node.contact)
    }

    /// Returns an id in the range of a bucket that has not changed for long, for a look-up.
    pub(crate) fn next_refresh(&mut self, now: Moment, rng: &mut Rng) -> Option<NodeId> {
        let is_due = |bucket: &Bucket| now.since(bucket.changed) >= REFRESHED_AFTER;
        let at = self.buckets.iter().position(is_due)?;
        self.buckets[at].changed = now;
        Some(self.own.random_at(at, rng))
    }

    /// Returns all nodes that are not bad, for the next start.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = Contact> + '_ {
        self.nodes().filter(|node| !node.is_bad()).map(|node| node.contact)
    }

    /// Gives the table another own id.
    pub(crate) fn set_own(&mut self, own: NodeId) {
        let old = std::mem::replace(self, Self::new(own));
        for bucket in old.buckets {
            for node in bucket.nodes.into_iter().chain(bucket.spare) {
                let at = self.bucket_of(node.contact.id);
                if node.contact.id != own && self.is_diverse(&node, at) {
                    self.insert(bucket.changed, node);
                }
            }
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.buckets.iter().flat_map(|bucket| &bucket.nodes)
    }

    fn bucket_of(&self, id: NodeId) -> usize {
        self.own.shared_bits(&id).min(self.buckets.len() - 1)
    }

    /// A node that answers with a new id has no other any more.
    fn remove_others_at(&mut self, contact: Contact) {
        for bucket in &mut self.buckets {
            let is_other =
                |node: &Node| node.contact.addr == contact.addr && node.contact.id != contact.id;
            bucket.nodes.retain(|node| !is_other(node));
            bucket.spare.retain(|node| !is_other(node));
        }
    }

    /// Returns whether few nodes are of the same network as this one.
    fn is_diverse(&self, node: &Node, bucket: usize) -> bool {
        if node.network.is_none() {
            return true;
        }
        let mut near = 0;
        for other in self.nodes().filter(|other| other.network == node.network) {
            near += 1;
            if other.contact.addr.ip() == node.contact.addr.ip() {
                return false;
            }
        }
        let bucket = &self.buckets[bucket];
        let is_near = |other: &&Node| other.network == node.network;
        near < NETWORK_IN_TABLE
            && bucket.nodes.iter().chain(&bucket.spare).filter(is_near).count() < NETWORK_IN_BUCKET
    }

    /// Puts a node that answered in the table, or in the spare ones. Returns whether it is in the table.
    fn insert(&mut self, now: Moment, node: Node) -> bool {
        loop {
            let at = self.bucket_of(node.contact.id);
            let may_split = at + 1 == self.buckets.len() && at < 159;
            let bucket = &mut self.buckets[at];
            bucket.spare.retain(|other| other.contact.id != node.contact.id);
            if bucket.nodes.len() < K {
                bucket.nodes.push(node);
                bucket.changed = now;
                return true;
            }
            if may_split {
                self.split();
                continue;
            }
            // A node with an id that does not fit its address gives way to one with a fitting id.
            let is_worse = |other: &Node| other.is_bad() || node.is_fit && !other.is_fit;
            if let Some(other) = bucket.nodes.iter_mut().find(|other| is_worse(other)) {
                *other = node;
                bucket.changed = now;
                return true;
            }
            if bucket.spare.len() >= K {
                bucket.spare.remove(0);
            }
            bucket.spare.push(node);
            return false;
        }
    }

    /// Divides the last bucket.
    fn split(&mut self) {
        let Some(last) = self.buckets.pop() else { return };
        let at = self.buckets.len();
        let (mut far, mut near) = (Bucket::default(), Bucket::default());
        (far.changed, near.changed) = (last.changed, last.changed);
        let own = self.own;
        let is_far = |node: &Node| own.shared_bits(&node.contact.id) == at;
        (far.nodes, near.nodes) = last.nodes.into_iter().partition(is_far);
        (far.spare, near.spare) = last.spare.into_iter().partition(is_far);
        self.buckets.extend([far, near]);
    }
}

impl Table {
    /// Returns the node at `addr`, if it is in the table.
    pub(crate) fn id_at(&self, addr: SocketAddr) -> Option<NodeId> {
        self.nodes().find(|node| node.contact.addr == addr).map(|node| node.contact.id)
    }
}

/// Nodes in a bucket, in an answer, and nodes that are told of a peer (BEP 5).
pub(crate) const K: usize = 8;

/// A node that is silent for this long may be gone (BEP 5).
const GOOD_FOR: Duration = Duration::from_secs(15 * 60);

/// A bucket without changes for this long is refreshed (BEP 5).
const REFRESHED_AFTER: Duration = Duration::from_secs(15 * 60);

/// The time between two questions to a silent node, which doubles with every failure.
const CHECKED_AGAIN: Duration = Duration::from_secs(20);

/// Packets may be lost, so one failure does not count.
const BAD_AFTER: u32 = 2;

/// A /24 or /64 belongs to few people: more nodes of one are not believed.
const NETWORK_IN_BUCKET: usize = 2;
const NETWORK_IN_TABLE: usize = 6;

#[cfg(test)]
mod tests {
    use piecework_core::Rng;
    use proptest::prelude::*;

    use super::*;

    fn own() -> NodeId {
        NodeId([0; 20])
    }

    /// A node of a private network: any id fits, and there may be many.
    fn contact(first: u8, last: u8) -> Contact {
        let mut id = [last; 20];
        id[0] = first;
        let addr = SocketAddr::from(([10, 0, first, last], 6881));
        Contact { id: NodeId(id), addr }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_secs(seconds)
    }

    #[test]
    fn only_the_bucket_of_the_own_id_is_divided() {
        let mut table = Table::new(own());
        let added = (0..20).filter(|n| table.answered(at(1), contact(0x80, *n))).count();
        assert_eq!(added, K);
        let added = (0..20).filter(|n| table.answered(at(1), contact(0x01, *n))).count();
        assert_eq!(added, K);
        assert_eq!(table.len(), 2 * K);
        assert_eq!(table.closest(NodeId([0xff; 20]), 3).len(), 3);
        let close = table.closest(own(), 100);
        assert!(close[..K].iter().all(|contact| contact.id.0[0] == 1));
        assert_eq!(close.len(), 2 * K);
    }

    #[test]
    fn a_spare_node_replaces_one_that_is_bad() {
        let mut table = Table::new(own());
        (0..K as u8 + 1).for_each(|n| _ = table.answered(at(1), contact(0x80, n)));
        // A bucket divides before it is full for ever.
        assert_eq!(table.id_at(contact(0x80, 8).addr), None);
        let silent = contact(0x80, 3);
        table.failed(silent);
        assert_eq!(table.id_at(silent.addr), Some(silent.id));
        table.failed(silent);
        assert_eq!(table.id_at(silent.addr), None);
        assert_eq!(table.id_at(contact(0x80, 8).addr), Some(contact(0x80, 8).id));
    }

    #[test]
    fn without_a_spare_node_bad_ones_stay_but_are_not_passed_on() {
        let mut table = Table::new(own());
        table.answered(at(1), contact(0x80, 1));
        (0..9).for_each(|_| table.failed(contact(0x80, 1)));
        assert_eq!((table.len(), table.closest(own(), 8).len()), (0, 0));
        // It is asked again, but ever more rarely.
        let asked = (0..86_400).filter(|s| table.next_stale(at(*s)).is_some()).count();
        assert!((10..100).contains(&asked), "{asked}");
        table.answered(at(90_000), contact(0x80, 1));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn silent_nodes_are_asked_in_the_order_of_their_silence() {
        let mut table = Table::new(own());
        (0..4).for_each(|n| _ = table.answered(at(u64::from(n)), contact(0x80, n)));
        assert_eq!(table.next_stale(at(899)), None);
        assert!(!table.asked(at(899), contact(0x80, 0)));
        assert_eq!(table.next_stale(at(910)), Some(contact(0x80, 1)));
        assert_eq!(table.next_stale(at(910)), Some(contact(0x80, 2)));
        assert_eq!(table.next_stale(at(910)), Some(contact(0x80, 3)));
        assert_eq!(table.next_stale(at(910)), None);
    }

    #[test]
    fn few_nodes_of_one_network_are_believed() {
        let mut table = Table::new(own());
        let mut rng = Rng::from_seed(1);
        let mut added = 0;
        for n in 0..=255 {
            let ip = [9, 9, 9, n];
            let contact = Contact { id: NodeId::random(&mut rng), addr: (ip, 1).into() };
            added += usize::from(table.answered(at(1), contact));
        }
        assert!(added <= NETWORK_IN_TABLE, "{added}");
        for n in 0..=255 {
            let mut ip = [0x2a; 16];
            ip[15] = n;
            let contact = Contact { id: NodeId::random(&mut rng), addr: (ip, 1).into() };
            table.answered(at(1), contact);
        }
        assert!(table.len() <= 2 * NETWORK_IN_TABLE);
        // And one of an address.
        let mut again = table.contacts().next().unwrap();
        again.addr.set_port(2);
        again.id = NodeId([9; 20]);
        assert!(!table.answered(at(1), again));
    }

    #[test]
    fn a_node_with_a_new_id_loses_the_old_one() {
        let mut table = Table::new(own());
        let old = contact(0x80, 1);
        let new = Contact { id: contact(0x40, 1).id, addr: old.addr };
        table.answered(at(1), old);
        table.answered(at(2), new);
        assert_eq!(table.contacts().collect::<Vec<_>>(), [new]);
    }

    #[test]
    fn nobody_takes_the_id_of_a_node_that_answers() {
        let mut table = Table::new(own());
        let honest = contact(0x80, 1);
        let thief = Contact { id: honest.id, addr: contact(0x80, 2).addr };
        table.answered(at(1), honest);
        assert!(!table.answered(at(2), thief));
        assert_eq!(table.contacts().collect::<Vec<_>>(), [honest]);
    }

    #[test]
    fn ids_that_fit_their_address_take_the_places_of_others() {
        let mut table = Table::new(own());
        let mut rng = Rng::from_seed(1);
        let mut liars = 0;
        for n in 0..50 {
            let mut id = NodeId::random(&mut rng);
            id.0[0] |= 0x80;
            let addr = ([8, n, 0, 1], 1).into();
            liars += usize::from(table.answered(at(1), Contact { id, addr }));
        }
        assert_eq!(liars, K);
        for n in 0..100 {
            let ip = [9, n, 0, 1];
            let id = NodeId::for_ip(ip.into(), &mut rng);
            table.answered(at(1), Contact { id, addr: (ip, 1).into() });
        }
        let mut left = table.contacts().filter(|contact| contact.addr.ip().is_ipv4());
        assert!(left.all(|contact| contact.id.fits(contact.addr.ip())));
    }

    #[test]
    fn buckets_without_change_are_refreshed_one_by_one() {
        let mut table = Table::new(own());
        let mut rng = Rng::from_seed(1);
        (0..9).for_each(|n| _ = table.answered(at(1), contact(0x80 >> (n % 4), n)));
        let now = at(2_000);
        let buckets = table.buckets.len();
        let targets: Vec<NodeId> =
            std::iter::from_fn(|| table.next_refresh(now, &mut rng)).collect();
        assert_eq!(targets.len(), buckets);
        assert!(targets.iter().enumerate().all(|(n, id)| own().shared_bits(id) == n));
    }

    proptest! {
        #[test]
        fn every_node_is_in_the_bucket_of_its_id(
            steps in prop::collection::vec((any::<[u8; 2]>(), 0_u8..4), 0..400),
            other: [u8; 20],
        ) {
            let mut table = Table::new(own());
            let mut now = at(1);
            for (name, kind) in steps {
                now = now + Duration::from_secs(30);
                let contact = contact(name[0] >> (name[1] % 8), name[1]);
                match kind {
                    0 => table.failed(contact),
                    1 => _ = table.asked(now, contact),
                    _ => _ = table.answered(now, contact),
                }
            }
            for id in [own(), NodeId(other)] {
                table.set_own(id);
                for (n, bucket) in table.buckets.iter().enumerate() {
                    prop_assert!(bucket.nodes.len() <= K && bucket.spare.len() <= K);
                    for node in bucket.nodes.iter().chain(&bucket.spare) {
                        prop_assert_eq!(table.bucket_of(node.contact.id), n);
                    }
                }
                let closest = table.closest(NodeId(other), 8);
                let distances: Vec<_> =
                    closest.iter().map(|it| it.id.distance(&NodeId(other))).collect();
                prop_assert!(distances.is_sorted());
                prop_assert!(table.contacts().all(|it| closest.contains(&it)
                    || distances.last().is_some_and(|far| it.id.distance(&NodeId(other)) >= *far)));
            }
        }
    }
}
