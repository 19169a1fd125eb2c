//! Fetching the metadata of a torrent of which only the info-hash is known (BEP 9): which peer is asked for which
//! piece, and whom a wrong answer costs its connection.
//!
//! The length of the metadata is a claim of each peer. Peers with the same claim are a *group*, and only pieces of one
//! group are put together, so a wrong length stops nobody else. Memory is used as pieces arrive, and for few groups at
//! a time: [`SMALL_GROUPS`] with short metadata, and one with long metadata. A group that waits takes the place of one
//! that needs too long.
//!
//! If the pieces of several peers have a wrong hash, nobody knows whose fault it is. From then on one peer of the group
//! at a time gives everything, and if that is wrong, it loses its connection. So whatever other peers do, an honest
//! one is asked in the end.

mod event;
mod group;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::candidates::{CandidateList, ConnectionEnd};
use crate::{Direction, HeardAddress, PeerKey, PeerSource};
use group::Group;
use peer::FetchPeer;
use piecework_core::{Moment, Rng, SaturatingFrom};
use piecework_proto::wire::{METADATA_PIECE_LEN, MetadataMessage};

pub use event::{MetadataAction, MetadataEvent, MetadataFault, MetadataProgress};

/// The state of one fetch: connected peers and what they gave.
#[derive(Debug)]
pub struct MetadataFetch {
    candidates: CandidateList,
    peers: BTreeMap<PeerKey, FetchPeer>,
    /// By the length that the peers claim.
    groups: BTreeMap<u32, Group>,
    actions: VecDeque<MetadataAction>,
    rng: Rng,
    now: Moment,
    /// Groups that were checked, so that late answers of a check are recognized.
    checks: u32,
    paused: bool,
    done: bool,
}

impl MetadataFetch {
    /// Creates a fetch that knows no peers. All randomness comes from `rng`.
    pub fn new(rng: Rng, now: Moment) -> Self {
        Self {
            candidates: CandidateList::default(),
            peers: BTreeMap::new(),
            groups: BTreeMap::new(),
            actions: VecDeque::new(),
            rng,
            now,
            checks: 0,
            paused: false,
            done: false,
        }
    }

    /// Handles an event that happened at `now`. Call [`MetadataFetch::poll`] afterwards.
    pub fn handle(&mut self, now: Moment, event: MetadataEvent) {
        self.now = now.max(self.now);
        match event {
            MetadataEvent::Candidates { source, addrs } => self.on_candidates(source, &addrs),
            MetadataEvent::DialFailed { addr, hung_up } => {
                self.candidates.dial_failed(self.now, addr, hung_up);
            }
            MetadataEvent::DialPrevented { addr } => {
                self.candidates.dial_prevented(self.now, addr);
            }
            MetadataEvent::Connected { peer, addr, direction, extended } => {
                self.on_connected(peer, addr, direction, extended);
            }
            MetadataEvent::Disconnected { peer } => self.forget(peer, ConnectionEnd::Normal),
            MetadataEvent::Handshake { peer, extension, size } => {
                self.on_handshake(peer, extension, size);
            }
            MetadataEvent::Message { peer, message } => self.on_message(peer, message),
            MetadataEvent::Misbehaved { peer } => self.drop_peer(peer, MetadataFault::BadMessage),
            MetadataEvent::Checked { check, right } => self.on_checked(check, right),
            MetadataEvent::Pause => self.pause(),
            MetadataEvent::Resume => self.paused = false,
            MetadataEvent::Timeout => {}
        }
        if self.done || self.paused {
            return;
        }
        self.run_timers();
        self.share_places();
        self.request();
        self.dial();
    }

    /// Returns the next action, or `None` if there is nothing left to do for now.
    pub fn poll(&mut self) -> Option<MetadataAction> {
        self.actions.pop_front()
    }

    /// Returns when to pass [`MetadataEvent::Timeout`] if nothing else happens.
    pub fn deadline(&self) -> Option<Moment> {
        if self.done || self.paused {
            return None;
        }
        let peers = self.peers.values().filter_map(|peer| peer.deadline(self.now)).min();
        let turns = [true, false].into_iter().filter_map(|small| self.end_of_turn(small)).min();
        let alone = self.groups.values().filter_map(|group| group.end_of_giver(self.now)).min();
        let dial = if self.may_dial() { self.candidates.next_due(false) } else { None };
        let all = [peers, turns, alone, dial].into_iter().flatten().min();
        all.map(|at| at.max(self.now + TICK))
    }

    /// Returns whether right metadata was found. Nothing happens any more.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Returns the number of connected peers.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Returns the addresses where peers may be, for the torrent that follows.
    pub fn addresses(&self) -> Vec<HeardAddress> {
        self.candidates.iter().collect()
    }

    /// Returns how much of the most complete metadata is here.
    pub fn progress(&self) -> MetadataProgress {
        let best = self.groups.iter().max_by_key(|(size, group)| (group.received(**size), **size));
        best.map_or(MetadataProgress::default(), |(size, group)| MetadataProgress {
            received: group.received(*size),
            claimed: *size,
        })
    }

    /// Returns the number of bytes that are in memory.
    pub fn memory(&self) -> usize {
        self.groups.values().map(Group::memory).sum()
    }

    /// Returns when a group with short metadata, or one with long metadata, makes way for another.
    fn end_of_turn(&self, is_small: bool) -> Option<Moment> {
        let of_kind = self.groups.iter().filter(|(size, _)| (**size <= SMALL_LEN) == is_small);
        let groups: Vec<&Group> = of_kind.map(|(_, group)| group).collect();
        let waits = groups.iter().any(|group| !group.active);
        let active = groups.iter().filter(|group| waits && group.may_stop());
        active.map(|group| group.until).min()
    }

    fn on_candidates(&mut self, source: PeerSource, addrs: &[SocketAddr]) {
        for addr in addrs.iter().take(MAX_ADDRESSES) {
            self.candidates.add(self.now, *addr, source);
        }
    }

    fn on_connected(
        &mut self,
        key: PeerKey,
        addr: SocketAddr,
        direction: Direction,
        extended: bool,
    ) {
        if direction == Direction::Outgoing {
            self.candidates.connected(addr);
        }
        let ip = addr.ip().to_canonical();
        let of_ip = self.peers.values().filter(|peer| peer.ip == ip).count();
        self.peers.insert(key, FetchPeer::new(self.now, addr, direction));
        if self.done || self.paused || self.peers.len() > MAX_PEERS || of_ip >= MAX_PER_ADDRESS {
            self.drop_peer(key, MetadataFault::NoPlace);
        } else if !extended {
            self.drop_peer(key, MetadataFault::NotOffered);
        }
    }

    fn on_handshake(&mut self, key: PeerKey, extension: Option<u8>, size: Option<u64>) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match (peer.extension, extension) {
            (None, None) => return self.drop_peer(key, MetadataFault::NotOffered),
            // A later handshake changes only what it names (BEP 10).
            (Some(_), None) => {}
            (_, Some(id)) => peer.extension = Some(id),
        }
        // Some clients say 0 while they have none.
        let Some(size) = size.filter(|size| *size > 0) else { return };
        let Ok(size @ ..=MAX_METADATA_LEN) = u32::try_from(size) else {
            return self.drop_peer(key, MetadataFault::TooLong);
        };
        match peer.size {
            Some(before) if before != size => self.drop_peer(key, MetadataFault::OtherSize),
            Some(_) => {}
            None => {
                peer.size = Some(size);
                self.groups.entry(size).or_default().members += 1;
            }
        }
    }

    fn on_message(&mut self, key: PeerKey, message: MetadataMessage) {
        match message {
            // Whoever asks learns from our handshake that we have none. The driver rejects.
            MetadataMessage::Request { .. } => {}
            MetadataMessage::Reject { piece } => self.on_reject(key, piece),
            MetadataMessage::Data { piece, total_size, bytes } => {
                if let Err(fault) = self.on_data(key, piece, total_size, bytes) {
                    self.drop_peer(key, fault);
                }
            }
        }
    }

    fn on_reject(&mut self, key: PeerKey, piece: u32) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.take(piece).is_none() {
            return;
        }
        peer.rejects += 1;
        if peer.rejects >= MAX_REJECTS {
            return self.drop_peer(key, MetadataFault::Refuses);
        }
        peer.paused_until = Some(self.now + AFTER_REJECT * peer.rejects);
        // Others are asked meanwhile.
        if let Some(group) = peer.size.and_then(|size| self.groups.get_mut(&size)) {
            group.pass_on(key);
        }
    }

    fn on_data(
        &mut self,
        key: PeerKey,
        piece: u32,
        total_size: Option<u64>,
        bytes: Bytes,
    ) -> Result<(), MetadataFault> {
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let Some(size) = peer.size.filter(|_| peer.take(piece).is_some()) else {
            peer.strays += 1;
            return if peer.strays > MAX_STRAYS { Err(MetadataFault::Unasked) } else { Ok(()) };
        };
        if total_size.is_some_and(|total| total != u64::from(size)) {
            return Err(MetadataFault::OtherSize);
        }
        if bytes.len() != piece_len(size, piece) {
            return Err(MetadataFault::BadMessage);
        }
        peer.rejects = 0;
        let Some(group) = self.groups.get_mut(&size) else { return Ok(()) };
        group.keep(piece, bytes, key);
        if let Some((bytes, givers)) = group.whole(size) {
            self.checks += 1;
            let check = self.checks;
            group.checking = Some((check, givers));
            self.actions.push_back(MetadataAction::Check { check, bytes });
        }
        Ok(())
    }

    fn on_checked(&mut self, check: u32, right: bool) {
        let found = self.groups.values_mut().find_map(|group| {
            let (number, givers) = group.checking.take()?;
            if number == check {
                return Some((group, givers));
            }
            group.checking = Some((number, givers));
            None
        });
        // A pause forgets the groups, but right metadata is what was looked for.
        if right {
            return self.end();
        }
        let Some((group, givers)) = found else { return };
        match givers[..] {
            [only] => self.drop_peer(only, MetadataFault::Wrong),
            _ => group.one_by_one(),
        }
    }

    fn end(&mut self) {
        self.done = true;
        self.groups.clear();
        self.disconnect_all(MetadataFault::Done);
    }

    fn pause(&mut self) {
        self.paused = true;
        self.groups.clear();
        self.disconnect_all(MetadataFault::Paused);
    }

    fn disconnect_all(&mut self, fault: MetadataFault) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.drop_peer(key, fault));
    }

    fn drop_peer(&mut self, key: PeerKey, fault: MetadataFault) {
        if self.peers.contains_key(&key) {
            self.actions.push_back(MetadataAction::Disconnect { peer: key, fault });
            self.forget(key, fault.end());
        }
    }

    fn forget(&mut self, key: PeerKey, end: ConnectionEnd) {
        let Some(peer) = self.peers.remove(&key) else { return };
        if peer.direction == Direction::Outgoing {
            self.candidates.closed(self.now, peer.addr, end);
        }
        let Some(size) = peer.size else { return };
        if let Some(group) = self.groups.get_mut(&size) {
            group.members -= 1;
            group.pass_on(key);
            if group.members == 0 && group.checking.is_none() {
                self.groups.remove(&size);
            }
        }
    }

    fn run_timers(&mut self) {
        let mut faults = Vec::new();
        for (key, peer) in &mut self.peers {
            if let Some(fault) = peer.check(self.now) {
                faults.push((*key, fault));
            }
        }
        for (key, fault) in faults {
            self.drop_peer(key, fault);
        }
    }

    /// Decides which groups may be fetched now. Groups that had fewer turns come first, then those with more peers.
    fn share_places(&mut self) {
        self.groups.retain(|_, group| group.members > 0 || group.checking.is_some());
        for is_small in [true, false] {
            let most = if is_small { SMALL_GROUPS } else { 1 };
            let now = self.now;
            let of_kind = |size: &u32| (*size <= SMALL_LEN) == is_small;
            let groups = self.groups.iter_mut().filter(|(size, _)| of_kind(size));
            let (active, mut waiting): (Vec<_>, Vec<_>) =
                groups.partition(|(_, group)| group.active);
            let mut taken = active.len();
            for (_, group) in active {
                if !waiting.is_empty() && group.until <= now && group.may_stop() {
                    group.stop();
                    taken -= 1;
                }
            }
            waiting.sort_by_key(|(size, group)| (group.turns, usize::MAX - group.members, **size));
            for (size, group) in waiting.into_iter().take(most.saturating_sub(taken)) {
                group.start(now + turn(*size, group.turns));
            }
        }
    }

    /// Requests missing pieces of the active groups.
    fn request(&mut self) {
        let sizes: Vec<u32> = self.groups.keys().copied().collect();
        for size in sizes {
            self.request_of(size);
        }
    }

    fn request_of(&mut self, size: u32) {
        let Some(group) = self.groups.get_mut(&size) else { return };
        if !group.active || group.checking.is_some() {
            return;
        }
        let mut able: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.size == Some(size) && peer.may_be_asked(self.now))
            .map(|(key, _)| *key)
            .collect();
        self.rng.shuffle(&mut able);
        if group.alone {
            let Some(giver) = group.choose_giver(self.now, size, &able) else { return };
            able.retain(|key| *key == giver);
        }
        let only = group.giver;
        let givers = self
            .peers
            .iter()
            .filter(|(key, peer)| peer.size == Some(size) && only.is_none_or(|only| only == **key));
        let requested: BTreeSet<u32> = givers.flat_map(|(_, peer)| peer.expected()).collect();
        let mut missing: VecDeque<u32> =
            (0..pieces(size)).filter(|p| !group.has(*p) && !requested.contains(p)).collect();
        // One piece for each peer in turn, so that the pieces come from many.
        for _ in 0..MAX_REQUESTS {
            for key in &able {
                let Some(peer) = self.peers.get_mut(key) else { continue };
                let Some(id) = peer.extension.filter(|_| peer.may_be_asked(self.now)) else {
                    continue;
                };
                let Some(at) = missing.iter().position(|piece| !peer.was_asked(*piece)) else {
                    continue;
                };
                let Some(piece) = missing.remove(at) else { continue };
                peer.ask(self.now, piece);
                self.actions.push_back(MetadataAction::Request { peer: *key, id, piece });
            }
        }
    }

    fn may_dial(&self) -> bool {
        let most = MAX_PEERS.saturating_sub(self.candidates.dialing());
        self.candidates.dialing() < MAX_DIALING && self.peers.len() < most
    }

    fn dial(&mut self) {
        while self.may_dial() {
            let connected: BTreeSet<IpAddr> = self.peers.values().map(|peer| peer.ip).collect();
            let next = self.candidates.next_dial(self.now, false, &connected, &mut self.rng);
            let Some(addr) = next else { return };
            self.actions.push_back(MetadataAction::Dial { addr });
        }
    }
}

/// Returns the number of pieces of metadata of `size` bytes.
fn pieces(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE_LEN)
}

/// Returns how long a turn lasts after `turns` others.
fn turn(size: u32, turns: u32) -> Duration {
    (TURN + TURN_PIECE * pieces(size)) * 2u32.pow(turns.min(MAX_DOUBLINGS))
}

/// Returns the length of a piece, 0 if there is no such piece.
fn piece_len(size: u32, piece: u32) -> usize {
    let start = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
    usize::saturating_from(u64::from(size).saturating_sub(start).min(METADATA_PIECE_LEN.into()))
}

/// The maximum length of metadata: 1.6 million pieces. The longest known have some 20 MiB.
pub const MAX_METADATA_LEN: u32 = 32 << 20;

/// Metadata up to this length is fetched for several groups at the same time: 50,000 pieces.
const SMALL_LEN: u32 = 1 << 20;

/// The maximum number of groups with short metadata that are fetched at the same time.
const SMALL_GROUPS: usize = 4;

/// Time after which a group makes way for another, and how much more it has for each piece. It doubles with each turn.
const TURN: Duration = Duration::from_secs(30);
const TURN_PIECE: Duration = Duration::from_millis(250);
const MAX_DOUBLINGS: u32 = 6;

/// The maximum number of connections, and of those with one address.
const MAX_PEERS: usize = 40;
const MAX_PER_ADDRESS: usize = 4;

/// The maximum number of dials under way.
const MAX_DIALING: usize = 20;

/// The maximum number of requests under way with one peer: 64 KiB.
const MAX_REQUESTS: usize = 4;

/// The maximum number of rejections in a row. Peers reject what comes too fast.
const MAX_REJECTS: u32 = 3;

/// How long a peer is not asked after its first rejection.
const AFTER_REJECT: Duration = Duration::from_secs(5);

/// The maximum number of pieces that a peer may send without being asked. Some are late answers.
const MAX_STRAYS: u32 = 16;

/// How many addresses of one answer are looked at.
const MAX_ADDRESSES: usize = 1_000;

/// The shortest time until the next timeout, in case a timer does not change the state.
const TICK: Duration = Duration::from_millis(1);
