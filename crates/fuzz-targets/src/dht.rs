//! Packets of the DHT, and a node that gets any of them.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{InfoHash, Moment, Rng};
use piecework_dht::krpc::{Body, MAX_RECEIVED, Packet, Question, Response};
use piecework_dht::{AnnounceAs, Contact, Dht, DhtAction, DhtConfig, Family, NodeId};

use crate::input::Input;

/// What is read is written in a form that reads as the same.
pub(crate) fn packet(bytes: &[u8]) {
    let Ok(packet) = Packet::decode(bytes) else { return };
    let again = packet.encode();
    if again.len() <= MAX_RECEIVED {
        assert_eq!(Packet::decode(&again).as_ref(), Ok(&packet));
    }
}

/// Any packets, answers and calls in any order: what is sent is well-formed and bounded, and every look-up ends.
pub(crate) fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let now = Moment::from_secs(1);
    let mut config = DhtConfig::default();
    config.is_read_only = input.below(8) == 7;
    let rng = Rng::from_seed(u64::from(input.byte()));
    let mut node =
        Fuzzed { dht: Dht::new(config, [7; 32], rng, now), now, asked: Vec::new(), running: 0 };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        node.step(&mut input);
    }
    node.end();
}

struct Fuzzed {
    dht: Dht,
    now: Moment,
    /// Questions that wait for an answer.
    asked: Vec<(SocketAddr, Vec<u8>)>,
    running: usize,
}

impl Fuzzed {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => {
                let len = usize::from(input.byte());
                let bytes = input.take(len);
                self.dht.handle_packet(self.now, addr(input), bytes);
            }
            1 => self.query(input),
            2..=4 => self.respond(input),
            5 => _ = self.dht.add_node(addr(input)),
            6 => {
                let family = if input.flag() { Family::V4 } else { Family::V6 };
                let announce = AnnounceAs { port: 9, implied_port: input.flag(), is_seed: false };
                let announce = Some(announce).filter(|_| input.flag());
                let hash = InfoHash([input.byte(); 20]);
                let begun = self.dht.find_peers(self.now, family, hash, announce);
                self.running += usize::from(begun.is_some());
            }
            _ => {
                self.now = self.now + Duration::from_millis(u64::from(input.below(100_000)));
                self.dht.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    fn query(&mut self, input: &mut Input<'_>) {
        let hash = InfoHash([input.byte(); 20]);
        let question = match input.below(4) {
            0 => Question::Ping,
            1 => Question::FindNode { target: NodeId(hash.0), want: Default::default() },
            2 => Question::GetPeers {
                info_hash: hash,
                want: Default::default(),
                without_seeds: input.flag(),
                scrape: false,
            },
            _ => Question::AnnouncePeer {
                info_hash: hash,
                port: 7,
                implied_port: false,
                token: b"token",
                is_seed: false,
            },
        };
        let body = Body::Query { id: NodeId([input.byte(); 20]), question };
        let bytes = packet_of(b"aa", body).encode();
        self.dht.handle_packet(self.now, addr(input), &bytes);
    }

    fn respond(&mut self, input: &mut Input<'_>) {
        let count = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let (to, bytes) = self.asked.swap_remove(input.below(count) as usize);
        let Ok(asked) = Packet::decode(&bytes) else { panic!("a malformed question") };
        let mut response = Response::new(NodeId([input.byte(); 20]));
        let contacts = |input: &mut Input<'_>| -> Vec<Contact> {
            (0..input.below(9))
                .map(|_| Contact { id: NodeId([input.byte(); 20]), addr: addr(input) })
                .collect()
        };
        let (v4, v6) = contacts(input).into_iter().partition(|it| it.addr.is_ipv4());
        (response.nodes, response.nodes6) = (Some(v4), Some(v6));
        response.token = input.flag().then_some(b"t");
        response.values = (0..input.below(4)).map(|_| addr(input)).collect();
        let mut answer = packet_of(asked.transaction, Body::Response(response));
        answer.seen_at = input.flag().then(|| addr(input));
        let bytes = answer.encode();
        self.dht.handle_packet(self.now, to, &bytes);
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(action) = self.dht.poll() {
            count += 1;
            assert!(count < 2_000, "too much for one event");
            match action {
                DhtAction::Send { to, bytes } => {
                    assert!(bytes.len() <= 1024 && to.port() != 0);
                    let Ok(packet) = Packet::decode(&bytes) else { panic!("malformed") };
                    if matches!(packet.body, Body::Query { .. }) && self.asked.len() < 1_000 {
                        self.asked.push((to, bytes));
                    }
                }
                DhtAction::Peers { peers, .. } => {
                    assert!(!peers.is_empty() && peers.iter().all(|peer| peer.port() != 0));
                }
                DhtAction::Ended { .. } => self.running -= 1,
            }
        }
    }

    /// Nobody answers any more.
    fn end(&mut self) {
        for _ in 0..MAX_TURNS {
            if self.running == 0 {
                return;
            }
            self.now = self.dht.deadline().max(self.now + Duration::from_millis(1));
            self.dht.handle_timeout(self.now);
            self.drain();
        }
        panic!("{} look-ups did not end", self.running);
    }
}

fn addr(input: &mut Input<'_>) -> SocketAddr {
    let (a, b) = (input.byte(), input.byte());
    match a % 4 {
        0 => ([10, 0, a, b], 7).into(),
        1 => ([0x2a00, 0, 0, a.into(), 0, 0, 0, b.into()], 7).into(),
        _ => ([8, a, 0, b], u16::from(b)).into(),
    }
}

fn packet_of<'a>(transaction: &'a [u8], body: Body<'a>) -> Packet<'a> {
    Packet { transaction, version: None, network: None, is_read_only: false, seen_at: None, body }
}

const MAX_STEPS: usize = 300;
const MAX_TURNS: usize = 20_000;
