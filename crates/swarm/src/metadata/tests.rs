//! Tests of fetching metadata, against peers of many kinds in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use piecework_core::Rng;

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    /// It gives wrong bytes.
    Liar,
    /// Only its last piece is wrong.
    HalfLiar,
    /// It claims another length, and gives as many bytes.
    OtherLength(u32),
    /// It claims a length, and does not answer.
    Silent,
    Refuser,
    /// It refuses the first requests of each connection.
    Shy,
    /// It needs this many milliseconds for each answer.
    Slow(u32),
    /// Its pieces have a wrong length.
    Short,
    /// It does not say how long the metadata is.
    Without,
    /// It sends what nobody has asked for.
    Flooder,
}

/// A network of peers and one fetch.
struct Network {
    fetch: MetadataFetch,
    now: Moment,
    /// When the last event was passed in. A peer that stays silent passes none.
    told_at: Moment,
    info: Bytes,
    kinds: BTreeMap<PeerKey, Kind>,
    /// Requests that were not answered, with the time of the answer.
    open: Vec<(Moment, PeerKey, u32)>,
    asked: BTreeSet<(PeerKey, u32)>,
    answers: BTreeMap<PeerKey, u32>,
    gone: BTreeMap<PeerKey, MetadataFault>,
    found: bool,
    memory: usize,
    checks: Vec<(u32, bool)>,
}

fn info(len: u32) -> Bytes {
    (0..len).map(|n| (n % 253) as u8).collect::<Vec<u8>>().into()
}

impl Network {
    fn new(seed: u64, len: u32) -> Self {
        let now = Moment::from_start(Duration::from_secs(10));
        Self {
            fetch: MetadataFetch::new(Rng::from_seed(seed), now),
            now,
            told_at: now,
            info: info(len),
            kinds: BTreeMap::new(),
            open: Vec::new(),
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            gone: BTreeMap::new(),
            found: false,
            memory: 0,
            checks: Vec::new(),
        }
    }

    fn join(&mut self, kind: Kind) -> PeerKey {
        let peer = PeerKey(self.kinds.len() as u32);
        self.kinds.insert(peer, kind);
        let addr = format!("10.0.{}.{}:1000", peer.0 / 200, peer.0 % 200 + 1).parse().unwrap();
        let direction = Direction::Incoming;
        self.tell(MetadataEvent::Connected { peer, addr, direction, extended: true });
        let size = match kind {
            Kind::OtherLength(len) => Some(u64::from(len)),
            Kind::Without => None,
            _ => Some(self.info.len() as u64),
        };
        self.tell(MetadataEvent::Handshake { peer, extension: Some(7), size });
        peer
    }

    fn tell(&mut self, event: MetadataEvent) {
        self.told_at = self.now;
        self.fetch.handle(self.now, event);
        self.memory = self.memory.max(self.fetch.memory());
        let most = SMALL_GROUPS * SMALL_LEN as usize + MAX_METADATA_LEN as usize;
        assert!(self.fetch.memory() <= most);
        while let Some(action) = self.fetch.poll() {
            match action {
                MetadataAction::Dial { .. } => {}
                MetadataAction::Disconnect { peer, fault } => {
                    assert!(self.gone.insert(peer, fault).is_none(), "dropped twice");
                    self.open.retain(|(_, other, _)| *other != peer);
                    self.asked.retain(|(other, _)| *other != peer);
                }
                MetadataAction::Request { peer, id, piece } => {
                    assert_eq!(id, 7);
                    assert!(!self.gone.contains_key(&peer), "a peer that is gone was asked");
                    assert!(self.asked.insert((peer, piece)), "asked twice for the same piece");
                    let open = self.asked.iter().filter(|(other, _)| *other == peer).count();
                    assert!(open <= MAX_REQUESTS, "too many requests at the same time");
                    let after = match self.kinds[&peer] {
                        Kind::Slow(ms) => u64::from(ms),
                        _ => 50,
                    };
                    self.open.push((self.now + Duration::from_millis(after), peer, piece));
                }
                MetadataAction::Check { check, bytes } => {
                    self.checks.push((check, bytes == self.info));
                }
            }
        }
    }

    /// Lets time pass until something happens. Returns whether anything can.
    fn step(&mut self) -> bool {
        if let Some((check, right)) = self.checks.pop() {
            self.found |= right;
            self.tell(MetadataEvent::Checked { check, right });
            return true;
        }
        let answer = self.open.iter().enumerate().min_by_key(|(_, (at, ..))| *at);
        let answer = answer.map(|(index, (at, ..))| (index, *at));
        let deadline = self.fetch.deadline();
        match answer {
            Some((index, at)) if deadline.is_none_or(|deadline| at <= deadline) => {
                let (at, peer, piece) = self.open.swap_remove(index);
                self.now = self.now.max(at);
                self.answer(peer, piece);
                true
            }
            _ => {
                let Some(deadline) = deadline else { return false };
                assert!(deadline > self.told_at, "time does not pass");
                self.now = self.now.max(deadline);
                self.tell(MetadataEvent::Timeout);
                true
            }
        }
    }

    fn answer(&mut self, peer: PeerKey, piece: u32) {
        let kind = self.kinds[&peer];
        if kind == Kind::Silent {
            return;
        }
        self.asked.remove(&(peer, piece));
        let count = self.answers.entry(peer).or_default();
        *count += 1;
        let refused = kind == Kind::Refuser || (kind == Kind::Shy && *count <= 2);
        let message = if refused {
            MetadataMessage::Reject { piece }
        } else {
            let other = match kind {
                Kind::OtherLength(len) => vec![1; len as usize],
                Kind::Liar => vec![2; self.info.len()],
                Kind::Short => self.info[..self.info.len() - 1].to_vec(),
                Kind::HalfLiar => {
                    let mut bytes = self.info.to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    bytes
                }
                _ => self.info.to_vec(),
            };
            match MetadataMessage::data(&other, piece) {
                Some(data) => data,
                None => return,
            }
        };
        self.tell(MetadataEvent::Message { peer, message: message.clone() });
        if kind == Kind::Flooder {
            self.tell(MetadataEvent::Message { peer, message });
        }
    }

    /// Runs until the metadata is found, or nothing happens any more, or an hour has passed.
    fn run(&mut self) -> bool {
        let end = self.now + Duration::from_secs(24 * 3600);
        while !self.found && self.now < end && self.step() {}
        self.found
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Liar),
        Just(Kind::HalfLiar),
        (1u32..200_000).prop_map(Kind::OtherLength),
        Just(Kind::Silent),
        Just(Kind::Refuser),
        Just(Kind::Shy),
        (1u32..20_000).prop_map(Kind::Slow),
        Just(Kind::Short),
        Just(Kind::Without),
        Just(Kind::Flooder),
    ]
}

#[test]
fn pieces_come_from_several_peers_at_once() {
    let mut network = Network::new(1, 20 * METADATA_PIECE_LEN + 5);
    let peers: Vec<PeerKey> = (0..4).map(|_| network.join(Kind::Honest)).collect();
    assert!(peers.iter().all(|peer| network.asked.iter().any(|(other, _)| other == peer)));
    assert!(network.run());
    assert!(network.fetch.is_done() || network.checks.is_empty());
    let all: u32 = network.answers.values().sum();
    assert_eq!(all, 21, "nothing is asked twice");
    assert!(network.now.since_start() < Duration::from_secs(11));
}

#[test]
fn wrong_metadata_costs_its_sender_alone() {
    for bad in [Kind::Liar, Kind::HalfLiar, Kind::OtherLength(90_000), Kind::Short] {
        let mut network = Network::new(2, 100_000);
        let liar = network.join(bad);
        let honest: Vec<PeerKey> = (0..3).map(|_| network.join(Kind::Honest)).collect();
        assert!(network.run(), "{bad:?}");
        let innocent = |peer: &PeerKey| {
            network.gone.get(peer).is_none_or(|fault| *fault == MetadataFault::Done)
        };
        assert!(honest.iter().all(innocent), "{bad:?}: {:?}", network.gone);
        let fault = network.gone.get(&liar).copied();
        // It may not have been found out before all was here.
        let expected = [MetadataFault::Wrong, MetadataFault::OtherSize, MetadataFault::Done];
        assert!(fault.is_none_or(|fault| expected.contains(&fault)), "{bad:?}: {fault:?}");
    }
}

#[test]
fn a_single_liar_is_dropped_and_banned() {
    let mut network = Network::new(3, 50_000);
    let liar = network.join(Kind::Liar);
    while !network.gone.contains_key(&liar) {
        assert!(network.step());
    }
    assert_eq!(network.gone[&liar], MetadataFault::Wrong);
    network.join(Kind::Honest);
    assert!(network.run());
}

#[test]
fn a_length_is_a_claim_until_it_is_proved() {
    let mut network = Network::new(4, 50_000);
    // None of these stops the honest one, and none of them costs memory.
    let bad = [0, 1 << 33, u64::MAX, u64::from(MAX_METADATA_LEN) + 1];
    for size in bad {
        let peer = network.join(Kind::Without);
        network.tell(MetadataEvent::Handshake { peer, extension: Some(7), size: Some(size) });
        let fault = network.gone.get(&peer).copied();
        assert_eq!(fault, (size != 0).then_some(MetadataFault::TooLong));
    }
    for n in 0..20 {
        network.join(Kind::OtherLength(MAX_METADATA_LEN - n));
    }
    assert_eq!(network.fetch.memory(), 0);
    network.join(Kind::Honest);
    assert!(network.run());
    assert!(network.now.since_start() < Duration::from_secs(12));
    assert_eq!(network.fetch.memory(), 0);
}

#[test]
fn a_peer_that_changes_the_length_is_dropped() {
    let mut network = Network::new(5, 50_000);
    let peer = network.join(Kind::Honest);
    network.tell(MetadataEvent::Handshake { peer, extension: None, size: Some(50_000) });
    assert!(network.gone.is_empty());
    network.tell(MetadataEvent::Handshake { peer, extension: Some(7), size: Some(50_001) });
    assert_eq!(network.gone[&peer], MetadataFault::OtherSize);
    let peer = network.join(Kind::Honest);
    let bytes = Bytes::from(vec![0; METADATA_PIECE_LEN as usize]);
    let message = MetadataMessage::Data { piece: 0, total_size: Some(50_002), bytes };
    network.tell(MetadataEvent::Message { peer, message });
    assert_eq!(network.gone[&peer], MetadataFault::OtherSize);
}

#[test]
fn peers_that_do_not_give_are_dropped_in_time() {
    for (kind, fault) in [
        (Kind::Silent, MetadataFault::Silent),
        (Kind::Refuser, MetadataFault::Refuses),
        (Kind::Without, MetadataFault::NotOffered),
    ] {
        let mut network = Network::new(6, 200_000);
        let peer = network.join(kind);
        while !network.gone.contains_key(&peer) {
            assert!(network.step(), "{kind:?}");
        }
        assert_eq!(network.gone[&peer], fault);
        assert!(network.now.since_start() < Duration::from_secs(75), "{kind:?}");
    }
}

#[test]
fn connections_are_bounded_in_total_and_for_each_address() {
    let mut network = Network::new(7, 200_000);
    for _ in 0..2 * MAX_PEERS {
        network.join(Kind::Silent);
    }
    assert_eq!(network.fetch.peers(), MAX_PEERS);
    let mut network = Network::new(8, 200_000);
    for peer in 0..2 * MAX_PER_ADDRESS as u32 {
        let (peer, direction) = (PeerKey(peer), Direction::Incoming);
        let addr = format!("10.9.9.9:{}", 1000 + peer.0).parse().unwrap();
        network.tell(MetadataEvent::Connected { peer, addr, direction, extended: true });
    }
    assert_eq!(network.fetch.peers(), MAX_PER_ADDRESS);
}

#[test]
fn a_paused_fetch_has_no_peers_and_dials_nobody() {
    let mut network = Network::new(9, 50_000);
    network.join(Kind::Silent);
    let addrs = vec!["10.1.1.1:1".parse().unwrap()];
    network.fetch.handle(network.now, MetadataEvent::Pause);
    network
        .fetch
        .handle(network.now, MetadataEvent::Candidates { source: PeerSource::User, addrs });
    let actions: Vec<_> = std::iter::from_fn(|| network.fetch.poll()).collect();
    assert!(matches!(
        actions[..],
        [MetadataAction::Disconnect { fault: MetadataFault::Paused, .. }]
    ));
    assert_eq!(network.fetch.deadline(), None);
    network.fetch.handle(network.now, MetadataEvent::Resume);
    assert!(matches!(network.fetch.poll(), Some(MetadataAction::Dial { .. })));
}

#[test]
fn right_metadata_whose_check_ends_in_a_pause_ends_the_fetch() {
    for (is_right, is_resumed) in [(true, false), (true, true), (false, false)] {
        let mut network = Network::new(10, 50_000);
        network.join(if is_right { Kind::Honest } else { Kind::Liar });
        while network.checks.is_empty() {
            assert!(network.step());
        }
        network.tell(MetadataEvent::Pause);
        if is_resumed {
            network.tell(MetadataEvent::Resume);
        }
        assert!(network.step());
        assert_eq!((network.found, network.fetch.is_done()), (is_right, is_right));
        assert_eq!(network.fetch.memory(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn one_honest_peer_is_enough(
        seed: u64,
        len in 1u32..150_000,
        others in proptest::collection::vec(any_kind(), 0..30),
        place in 0usize..30,
    ) {
        let mut network = Network::new(seed, len);
        for (at, kind) in others.iter().enumerate() {
            if at == place {
                network.join(Kind::Honest);
            }
            // A length that is right is no lie.
            let is_right = *kind == Kind::OtherLength(len);
            network.join(if is_right { Kind::Honest } else { *kind });
        }
        if place >= others.len() {
            network.join(Kind::Honest);
        }
        prop_assert!(network.run(), "{:?} {:?}", network.gone, network.now);
    }
}
