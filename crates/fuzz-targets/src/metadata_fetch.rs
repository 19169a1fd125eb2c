//! Sequences of events of a metadata fetch, with what must hold after each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use piecework_core::{Moment, Rng};
use piecework_proto::wire::{METADATA_PIECE_LEN, MetadataMessage};
use piecework_swarm::metadata::{MetadataAction, MetadataEvent as E, MetadataFetch};
use piecework_swarm::{Direction, PeerKey, PeerSource};

use crate::input::Input;

/// Any events in any order: requests go only to connected peers and never twice at the same time, memory is bounded,
/// and an honest peer that comes at last is enough.
pub(crate) fn events(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let now = Moment::START + Duration::from_secs(1);
    let fetch = MetadataFetch::new(Rng::from_seed(u64::from(input.number())), now);
    let info = vec![1; 1 + input.below(3 * METADATA_PIECE_LEN) as usize];
    let mut fetcher = Fetcher::new(fetch, info, now);
    for _ in 0..MAX_STEPS {
        if input.is_empty() || fetcher.found {
            break;
        }
        fetcher.step(&mut input);
    }
    fetcher.end_with_an_honest_peer();
}

struct Fetcher {
    fetch: MetadataFetch,
    now: Moment,
    info: Vec<u8>,
    peers: BTreeMap<PeerKey, BTreeSet<u32>>,
    next: u32,
    checks: Vec<(u32, bool)>,
    found: bool,
    paused: bool,
}

impl Fetcher {
    fn new(fetch: MetadataFetch, info: Vec<u8>, now: Moment) -> Self {
        Self {
            fetch,
            now,
            info,
            peers: BTreeMap::new(),
            next: 0,
            checks: Vec::new(),
            found: false,
            paused: false,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(11) {
            0 => {
                let direction =
                    if input.flag() { Direction::Incoming } else { Direction::Outgoing };
                self.connect(input.below(40), direction, input.below(8) != 0);
            }
            1 => {
                let Some(peer) = self.any_peer(input) else { return };
                let sizes = [0, 1, self.info.len() as u64, 70_000, 2 << 20, 32 << 20, u64::MAX];
                let size = Some(sizes[input.below(7) as usize]).filter(|_| input.below(8) != 0);
                let extension = (input.below(4) != 0).then_some(3);
                self.tell(E::Handshake { peer, extension, size });
            }
            2..=5 => {
                let Some(peer) = self.any_peer(input) else { return };
                let asked = self.peers[&peer].iter().next().copied();
                let piece = asked.filter(|_| input.below(8) != 0).unwrap_or(input.below(3));
                self.answer(peer, piece, input);
            }
            6 => {
                let Some(peer) = self.any_peer(input) else { return };
                self.peers.remove(&peer);
                self.tell(E::Disconnected { peer });
            }
            7 => {
                self.now = self.now + Duration::from_millis(u64::from(input.below(40_000)));
                self.tell(E::Timeout);
            }
            8 => self.check(),
            9 => {
                let addrs = vec![([10, 0, 0, input.byte()], 7).into()];
                self.tell(E::Candidates { source: PeerSource::Tracker, addrs });
            }
            _ if input.below(8) == 0 => {
                self.paused = !self.paused;
                self.tell(if self.paused { E::Pause } else { E::Resume });
            }
            _ => {
                let addr = ([10, 0, 0, input.byte()], 7).into();
                self.tell(E::DialFailed { addr, hung_up: input.flag() });
            }
        }
    }

    fn connect(&mut self, host: u32, direction: Direction, extended: bool) -> PeerKey {
        let peer = PeerKey(self.next);
        self.next += 1;
        self.peers.insert(peer, BTreeSet::new());
        let addr = ([10, 0, 1, host.to_be_bytes()[3]], 7).into();
        self.tell(E::Connected { peer, addr, direction, extended });
        peer
    }

    fn answer(&mut self, peer: PeerKey, piece: u32, input: &mut Input<'_>) {
        let message = match input.below(4) {
            0 => MetadataMessage::Reject { piece },
            1 => {
                let bytes = vec![9; input.below(METADATA_PIECE_LEN + 1) as usize].into();
                MetadataMessage::Data { piece, total_size: None, bytes }
            }
            2 => {
                let bytes = Bytes::from(vec![9; METADATA_PIECE_LEN as usize]);
                MetadataMessage::Data { piece, total_size: None, bytes }
            }
            _ => match MetadataMessage::data(&self.info, piece) {
                Some(data) => data,
                None => return,
            },
        };
        if let Some(asked) = self.peers.get_mut(&peer) {
            asked.remove(&piece);
        }
        self.tell(E::Message { peer, message });
    }

    fn any_peer(&self, input: &mut Input<'_>) -> Option<PeerKey> {
        let count = u32::try_from(self.peers.len()).ok().filter(|count| *count > 0)?;
        self.peers.keys().nth(input.below(count) as usize).copied()
    }

    fn check(&mut self) {
        if let Some((check, right)) = self.checks.pop() {
            self.found |= right;
            self.tell(E::Checked { check, right });
        }
    }

    fn tell(&mut self, event: E) {
        self.fetch.handle(self.now, event);
        assert!(self.fetch.memory() <= 36 << 20);
        while let Some(action) = self.fetch.poll() {
            match action {
                MetadataAction::Dial { .. } => {}
                MetadataAction::Disconnect { peer, .. } => {
                    assert!(self.peers.remove(&peer).is_some(), "it is not connected");
                }
                MetadataAction::Request { peer, id, piece } => {
                    assert_eq!(id, 3);
                    let asked = self.peers.get_mut(&peer).expect("it is not connected");
                    assert!(asked.insert(piece), "it was asked already");
                }
                MetadataAction::Check { check, bytes } => {
                    self.checks.push((check, bytes == self.info));
                }
            }
        }
        if let Some(deadline) = self.fetch.deadline() {
            assert!(deadline > self.now);
        }
    }

    /// From now on, one peer answers at once, and the others never.
    fn end_with_an_honest_peer(&mut self) {
        if self.paused {
            self.paused = false;
            self.tell(E::Resume);
        }
        let mut honest = None;
        for _ in 0..MAX_TURNS {
            while !self.checks.is_empty() {
                self.check();
            }
            if self.found {
                return assert!(self.fetch.is_done() && self.fetch.memory() == 0);
            }
            let peer = match honest.filter(|peer| self.peers.contains_key(peer)) {
                Some(peer) => peer,
                // Others may have all places for a while.
                None => {
                    let peer = self.connect(200, Direction::Incoming, true);
                    let size = Some(self.info.len() as u64);
                    self.tell(E::Handshake { peer, extension: Some(3), size });
                    honest = Some(peer);
                    continue;
                }
            };
            match self.peers[&peer].iter().next().copied() {
                Some(piece) => {
                    self.peers.entry(peer).or_default().remove(&piece);
                    let data = MetadataMessage::data(&self.info, piece);
                    self.tell(E::Message { peer, message: data.expect("a piece that exists") });
                }
                None => {
                    self.now = self.fetch.deadline().unwrap_or(self.now + SECOND);
                    self.tell(E::Timeout);
                }
            }
        }
        panic!("an honest peer was not enough");
    }
}

const MAX_STEPS: usize = 500;
const MAX_TURNS: usize = 5_000;
const SECOND: Duration = Duration::from_secs(1);
