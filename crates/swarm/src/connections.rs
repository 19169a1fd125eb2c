//! Decides which peers to dial, let in and drop.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::candidates::ConnectionEnd;
use super::identity::TwinDecision;
use super::peer::{NewConnection, Peer};
use super::pipeline::Clock;
use super::{Action, Direction, PeerFault, PeerIdentity, PeerKey, PeerSource, Swarm};
use crate::admission::{Occupant, who_makes_way};
use piecework_core::{Moment, PeerId};
use piecework_proto::wire::{
    EXCHANGE_EXTENSION, EXCHANGE_ID, ExtendedHandshake, METADATA_EXTENSION, METADATA_ID, Message,
};

impl Swarm {
    pub(super) fn on_candidates(&mut self, source: PeerSource, addrs: &[SocketAddr]) {
        if self.config.is_private && !source.serves_private() {
            return;
        }
        for addr in addrs.iter().take(MAX_CANDIDATES) {
            if source.is_named() || !self.blame.is_banned_addr(*addr) {
                self.candidates.add(self.now, *addr, source);
                if let Some(until) = self.blame.refused_until(self.now, addr.ip()) {
                    self.candidates.put_off(*addr, until);
                }
            }
        }
        self.dial();
    }

    pub(super) fn on_dial_failed(&mut self, addr: SocketAddr, hung_up: bool) {
        self.candidates.dial_failed(self.now, addr, hung_up);
        self.wake_is_stale = true;
        self.dial();
    }

    /// A limit on our side prevented a dial or the connection. No peer is dialled for a moment, and none is
    /// to blame.
    pub(super) fn on_dial_prevented(&mut self, addr: SocketAddr) {
        self.candidates.dial_prevented(self.now, addr);
        self.dial_from = self.now + PREVENTED_PAUSE;
        self.wake_is_stale = true;
    }

    pub(super) fn on_connected(
        &mut self,
        key: PeerKey,
        addr: SocketAddr,
        id: PeerId,
        direction: Direction,
        fast: bool,
        extended: bool,
    ) {
        let dialled = (direction == Direction::Outgoing).then_some(addr);
        let twins = self.judge_twins(addr, id, direction);
        let is_full = self.peers.len() >= self.config.max_peers;
        let mut replaced = match twins {
            TwinDecision::Kept(replaced) => replaced,
            TwinDecision::Refused => None,
        };
        if is_full && replaced.is_none() {
            replaced = self.silent_twin(self.now, addr, id);
        }
        let may_make_way = is_full && replaced.is_none();
        let mut makes_way =
            if may_make_way { self.who_makes_way(self.now, addr.ip()) } else { None };
        if may_make_way && makes_way.is_none() && dialled.is_some() {
            makes_way = self.most_silent().or_else(|| self.least_giver());
        }
        let fault = if self.paused {
            Some(PeerFault::Paused)
        } else if id == self.config.local_id {
            Some(PeerFault::Ourselves)
        } else if self.is_refused(addr, id, direction) {
            Some(PeerFault::Banned)
        } else if self.peers.contains_key(&key) || twins == TwinDecision::Refused {
            Some(PeerFault::Duplicate)
        } else if is_full && replaced.is_none() && makes_way.is_none() {
            Some(PeerFault::TooManyPeers)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.actions.push_back(Action::Disconnect { peer: key, fault });
            if let Some(addr) = dialled {
                self.close_dialled(addr, fault);
            }
            return self.dial();
        }
        if let Some(peer) = makes_way {
            self.put_off_snubbed(peer);
            self.actions.push_back(Action::Disconnect { peer, fault: PeerFault::MadeWay });
            self.forget_peer(peer, ConnectionEnd::Untimely);
        }
        if let Some(replaced) = replaced {
            self.drop_peer(replaced, PeerFault::Duplicate);
        }
        if let Some(addr) = dialled {
            self.candidates.connected(addr);
        }
        let listens_at = dialled;
        let source = dialled.map_or(PeerSource::Incoming, |addr| self.candidates.source(addr));
        let who = PeerIdentity { addr, listens_at, id, client: id.client_name() };
        self.welcome(key, NewConnection { who, direction, source, fast, extended, listens_at });
        if let Some(addr) = dialled {
            self.name_claimants(addr);
            self.note_exchange_change();
        }
        self.probe_twins(key, addr, id);
        self.greet(key);
        self.dial();
    }

    /// Adds a peer that was accepted.
    fn welcome(&mut self, key: PeerKey, connection: NewConnection) {
        let addr = connection.who.addr;
        let pieces = self.geometry.pieces();
        let mut peer = Peer::new(self.now, connection, pieces, self.config.max_requests_out);
        if let Some(turn) = self.former_turns.take(self.now, addr.ip().to_canonical()) {
            peer.take_turn(turn);
        }
        peer.due = peer.deadline(self.config.idle_timeout);
        self.timers.insert(peer.due, key);
        self.arm(peer.due);
        self.picker.add_peer(&peer.holds);
        self.peers.insert(key, peer);
    }

    pub(super) fn on_disconnected(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let useful = peer.down.total() > 0
            || peer.up.total() > 0
            || self.now.since(peer.connected_at) >= SHORT_LIFE;
        let (addr, is_dialled) = (peer.who.addr, peer.direction == Direction::Outgoing);
        let twin = self.incoming_twin(addr, peer.who.id).filter(|_| is_dialled && !useful);
        let ending = match twin {
            // It keeps its other connection to us.
            Some(_) => ConnectionEnd::Duplicate,
            None if useful => ConnectionEnd::Normal,
            None => ConnectionEnd::Bad,
        };
        self.forget_peer(key, ending);
        if let Some(twin) = twin {
            // Now it is known where that one listens, as far as its id is true.
            self.learn_port(twin, addr.port());
        }
        self.dial();
    }

    pub(super) fn on_pause(&mut self) {
        self.paused = true;
        self.keys.clear();
        self.keys.extend(self.peers.keys());
        for at in 0..self.keys.len() {
            self.drop_peer(self.keys[at], PeerFault::Paused);
        }
        self.picker.drop_all(&mut self.selection);
        self.carry_out_drops();
        self.retry = None;
        self.wake_is_stale = true;
    }

    pub(super) fn on_resume(&mut self) {
        if self.paused {
            self.paused = false;
            self.candidates.start_over(self.now);
            self.dial();
        }
    }

    /// Drops a peer because of a fault.
    pub(super) fn drop_peer(&mut self, key: PeerKey, fault: PeerFault) {
        if !self.peers.contains_key(&key) {
            return;
        }
        self.actions.push_back(Action::Disconnect { peer: key, fault });
        let ending = match fault {
            PeerFault::Corrupt | PeerFault::Ourselves => ConnectionEnd::Never,
            PeerFault::Duplicate => ConnectionEnd::Duplicate,
            PeerFault::Banned | PeerFault::TooManyPeers | PeerFault::MadeWay => {
                ConnectionEnd::Untimely
            }
            PeerFault::BothComplete | PeerFault::Paused => ConnectionEnd::Normal,
            PeerFault::BadBitfield
            | PeerFault::LateBitfield
            | PeerFault::OutOfRange
            | PeerFault::NotFast
            | PeerFault::BadExtended
            | PeerFault::BadMetadata
            | PeerFault::BadExchange
            | PeerFault::Unrequested
            | PeerFault::RequestFlood
            | PeerFault::Unresponsive
            | PeerFault::Idle => ConnectionEnd::Bad,
        };
        self.forget_peer(key, ending);
        self.dial();
    }

    /// Applies new limits. If there are too many peers, it drops first those with which nothing is
    /// exchanged, then the slowest, then the newest.
    pub(super) fn on_limits(&mut self, max_peers: usize, upload_slots: usize) {
        self.config.max_peers = max_peers;
        self.config.upload_slots = upload_slots;
        let now = self.now;
        let use_of = |peer: &Peer| {
            let rate = peer.down.per_second(now) + peer.up.per_second(now);
            (peer.interests_us || peer.interested, rate, Reverse(peer.connected_at))
        };
        let mut ranked: Vec<_> = self.peers.iter().map(|(key, p)| (use_of(p), *key)).collect();
        let surplus = ranked.len().saturating_sub(max_peers);
        ranked.sort_unstable();
        for (_, key) in ranked.into_iter().take(surplus) {
            self.drop_peer(key, PeerFault::TooManyPeers);
        }
        self.choker.set_slots(upload_slots);
        let served = self.peers.values().filter(|p| p.interested && !p.choked).count();
        if self.choker.is_beyond(served) {
            self.hold_round();
        }
        self.slot_is_free = true;
        self.wake_is_stale = true;
        self.dial();
    }

    /// Sets that peers may take `extra` more time than is configured. If a peer has taken longer than is
    /// allowed from now on, it was not slow by the previous limit: it gets the configured time once more,
    /// but no more than it had.
    pub(super) fn on_patience(&mut self, extra: Duration) {
        let before = std::mem::replace(&mut self.patience, extra);
        for timeout in [&mut self.config.idle_timeout, &mut self.config.request_timeout] {
            *timeout = timeout.saturating_sub(before).saturating_add(extra);
        }
        let less = before.saturating_sub(extra);
        let latest = self.now - extra;
        let latest_clock = Clock { now: latest, flow: self.flow.saturating_sub(extra) };
        for peer in self.peers.values_mut().filter(|_| !less.is_zero()) {
            peer.heard_at = peer.heard_at.max(latest.min(peer.heard_at + less));
            peer.pipeline.excuse(less, latest_clock);
        }
        self.keys.clear();
        self.keys.extend(self.peers.keys());
        for at in 0..self.keys.len() {
            self.arm_peer(self.keys[at]);
        }
        self.wake_is_stale = true;
    }

    /// Dials the peers for which there is room and whose time has come.
    pub(super) fn dial(&mut self) {
        let asks_nothing = self.is_upload_only();
        if !self.may_dial() {
            return self.plan_exploring();
        }
        let due = self.candidates.next_due(asks_nothing).map(|due| due.max(self.dial_from));
        match due {
            None => return,
            Some(due) if self.now < due => return self.arm(due),
            Some(_) => {}
        }
        let hosts = self.peers.values().map(|peer| peer.who.addr.ip().to_canonical());
        let connected: BTreeSet<IpAddr> = hosts.collect();
        while self.may_dial() {
            if self.now < self.dial_from {
                return self.arm(self.dial_from);
            }
            let next = self.candidates.next_dial(self.now, asks_nothing, &connected, &mut self.rng);
            let Some(addr) = next else {
                if let Some(due) = self.candidates.next_due(asks_nothing) {
                    self.arm(due);
                }
                return;
            };
            self.actions.push_back(Action::Dial { addr });
        }
    }

    /// Returns whether a peer with that id, which connects to us from `addr` now, would be let in as far as
    /// there is a place for it.
    pub fn has_place_for(&self, now: Moment, addr: SocketAddr, id: PeerId) -> bool {
        self.peers.len() < self.config.max_peers
            || self.silent_twin(now.max(self.now), addr, id).is_some()
            || self.who_makes_way(now.max(self.now), addr.ip()).is_some()
    }

    /// Returns the peer that makes way for a newcomer from `ip` when there is no place left.
    fn who_makes_way(&self, now: Moment, ip: IpAddr) -> Option<PeerKey> {
        let occupants = self.peers.iter().map(|(key, peer)| Occupant {
            key: *key,
            ip: peer.who.addr.ip(),
            connected_at: peer.connected_at,
            used_at: peer.used_at,
            has_spoken: peer.has_spoken,
        });
        who_makes_way(now, self.config.shares, ip, occupants)
    }

    /// Returns the snubbed peer that has been silent for longest. It makes way for a peer that we dialled:
    /// the place freed for that peer may have been taken meanwhile by the peer that left it.
    fn most_silent(&self) -> Option<PeerKey> {
        let snubbed = self.peers.iter().filter(|(_, peer)| peer.pipeline.is_snubbed());
        snubbed.min_by_key(|(_, peer)| peer.pipeline.silent_since()).map(|(key, _)| *key)
    }

    /// If all places are taken and an address was never tried, schedules a check whether a peer gives so
    /// little that it makes way. The more peers have made way, the longer that takes. Does nothing while
    /// dials take all places: each peer that connects has this called again.
    fn plan_exploring(&mut self) {
        let has_peers = !self.peers.is_empty();
        if has_peers
            && self.explore_at.is_none()
            && !self.config.upload_only
            && self.are_places_wanted()
        {
            let pause = match self.explored {
                0 => EXPLORE_AFTER,
                explored => EXPLORE_PAUSE * (1 + explored / EXPLORED_AT_ONCE),
            };
            self.explore_at = Some(self.now + pause);
            self.arm(self.now + pause);
        }
    }

    /// Gives the place of the peer that gives least to an address that was never tried.
    pub(super) fn explore(&mut self) {
        self.explore_at = None;
        if !self.are_places_wanted() {
            return;
        }
        if let Some(key) = self.least_giver() {
            self.explored = self.explored.saturating_add(1);
            if let Some(peer) = self.peers.get(&key) {
                self.candidates.put_off_only(peer.who.addr.ip(), self.now + SNUBBED_PAUSE);
            }
            self.drop_peer(key, PeerFault::MadeWay);
        }
        self.plan_exploring();
    }

    /// Returns the peer that gives least. It must have had time to give something, take nothing from us,
    /// and give hardly anything although we want something of it. Under our own download limit, no peer can
    /// be called slow.
    fn least_giver(&self) -> Option<PeerKey> {
        let now = self.now;
        let rate = |peer: &Peer| peer.down.per_second(now);
        let gives_little = |peer: &Peer| {
            now.since(peer.connected_at) >= EXPLORE_AFTER
                && peer.up.total() == 0
                && peer.interests_us
                && !peer.waits(now)
                && rate(peer) < LITTLE
        };
        let of_little_use = self.peers.iter().filter(|(_, peer)| gives_little(peer));
        let least = of_little_use.min_by_key(|(_, peer)| (rate(peer), peer.connected_at));
        least.map(|(key, _)| *key).filter(|_| self.patience.is_zero())
    }

    /// Puts off dialling a snubbed peer that is about to lose its place, so that others are dialled first.
    pub(super) fn put_off_snubbed(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if peer.pipeline.is_snubbed() {
            self.candidates.put_off_only(peer.who.addr.ip(), self.now + SNUBBED_PAUSE);
        }
    }

    /// Returns whether all places are taken, some of them by peers that were of no use for a minute or
    /// more. Then one address at a time is tried in their stead.
    fn may_dial_for_useless(&self) -> bool {
        let is_useless = |peer: &Peer| {
            peer.used_at.is_none() && self.now.since(peer.connected_at) >= USELESS_FOR
        };
        !self.paused
            && self.candidates.dialing() == 0
            && !self.is_finished()
            && !self.config.upload_only
            && self.peers.len() >= self.config.max_peers
            && self.peers.values().any(is_useless)
    }

    pub(super) fn may_dial(&self) -> bool {
        if self.may_dial_for_useless() {
            return true;
        }
        let peers = self.peers.len() + self.candidates.dialing();
        // A seed is found by those that want something, but it helps them to find it.
        let most = if self.is_upload_only() {
            self.config.max_peers.div_ceil(2)
        } else {
            self.config.max_peers
        };
        !self.paused && self.candidates.dialing() < self.config.max_dialing && peers < most
    }

    /// Returns whether all places are taken while there are addresses that have never failed.
    pub(super) fn are_places_wanted(&self) -> bool {
        let taken = self.peers.len() + self.candidates.dialing();
        !self.is_finished()
            && taken >= self.config.max_peers
            && self.candidates.has_untried(self.now)
    }

    /// Sends our first messages to a new peer.
    fn greet(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (fast, extended, ip) = (peer.fast, peer.extended, peer.who.addr.ip());
        if fast && self.have.is_full() {
            self.send(key, Message::HaveAll);
        } else if fast && self.have.count() == 0 {
            self.send(key, Message::HaveNone);
        } else if self.have.count() > 0 {
            let bits = Bytes::copy_from_slice(self.have.as_wire());
            self.send(key, Message::Bitfield(bits));
        }
        if extended {
            let payload = Bytes::from(self.extended_handshake(ip).encode());
            self.send(key, Message::Extended { id: 0, payload });
        }
    }

    /// Tells all peers again whether we request anything (BEP 21). A later handshake changes only what it
    /// names (BEP 10).
    pub(super) fn tell_upload_only(&mut self) {
        let upload_only = Some(self.is_upload_only());
        let news = ExtendedHandshake { upload_only, ..ExtendedHandshake::default() };
        let payload = Bytes::from(news.encode());
        let extended = self.peers.iter_mut().filter(|(_, peer)| peer.extended);
        for (key, peer) in extended {
            peer.told_at = self.now;
            let message = Message::Extended { id: 0, payload: payload.clone() };
            self.actions.push_back(Action::Send { peer: *key, message });
        }
    }

    /// Returns whether we request nothing, and say so (BEP 21).
    pub(super) fn is_upload_only(&self) -> bool {
        self.config.upload_only || self.is_finished()
    }

    fn extended_handshake(&self, peer_ip: IpAddr) -> ExtendedHandshake {
        let upload_only = self.is_upload_only();
        let metadata_size = self.config.metadata_size.map(u64::from);
        let metadata = metadata_size.map(|_| (METADATA_EXTENSION.to_owned(), METADATA_ID));
        let exchange = self.exchanges().then(|| (EXCHANGE_EXTENSION.to_owned(), EXCHANGE_ID));
        ExtendedHandshake {
            messages: metadata.into_iter().chain(exchange).collect(),
            metadata_size,
            client: Some(self.config.client.clone()),
            // Half of what would be a fault: a peer may request the next block before the driver has told
            // us that one was sent.
            reqq: u32::try_from(self.config.max_requests_in / 2).ok(),
            upload_only: upload_only.then_some(true),
            listen_port: self.config.listen_port,
            your_ip: Some(peer_ip.to_canonical()),
        }
    }

    /// Closes a dialled address that is of no use.
    fn close_dialled(&mut self, addr: SocketAddr, fault: PeerFault) {
        let now = self.now;
        match fault {
            PeerFault::Ourselves => self.candidates.note_ours(addr),
            PeerFault::Duplicate => self.candidates.closed(now, addr, ConnectionEnd::Duplicate),
            PeerFault::Paused => self.candidates.closed(now, addr, ConnectionEnd::Normal),
            PeerFault::TooManyPeers => self.candidates.closed(now, addr, ConnectionEnd::Full),
            PeerFault::Banned if self.blame.is_banned_addr(addr) => self.candidates.forget(addr),
            _ => self.candidates.closed(now, addr, ConnectionEnd::Untimely),
        }
    }

    fn forget_peer(&mut self, key: PeerKey, ending: ConnectionEnd) {
        self.give_up_requests(key);
        let Some(peer) = self.peers.remove(&key) else { return };
        self.timers.remove(peer.due, key);
        self.former_turns.keep(self.now, peer.who.addr.ip().to_canonical(), peer.turn(self.now));
        self.picker.remove_peer(&peer.holds);
        for piece in peer.suggested.iter().chain(&peer.handed_out) {
            self.super_seeding.release(*piece, true);
        }
        if let Some(addr) = peer.listens_at {
            let is_dialled = peer.direction == Direction::Outgoing;
            if peer.holds.is_full() || peer.upload_only {
                self.candidates.note_disinterest(addr, is_dialled);
            }
            match is_dialled {
                true => self.candidates.closed(self.now, addr, ending),
                false => self.candidates.unclaimed(self.now, addr, ending),
            }
            self.name_claimants(addr);
            self.note_exchange_change();
        }
        self.wake_is_stale = true;
        self.slot_is_free |= peer.interested && !peer.choked;
    }
}

/// A peer that gave and took nothing for this long since it connected may be replaced by another known
/// peer.
const USELESS_FOR: Duration = Duration::from_secs(60);

/// How long a host is not dialled after it lost its place for giving nothing.
const SNUBBED_PAUSE: Duration = Duration::from_secs(60);

/// How long a new peer has before it is compared with others: the time of a late request.
const EXPLORE_AFTER: Duration = Duration::from_secs(3);

/// Time between two peers that make way for addresses that were never tried. It grows by itself with every
/// [`EXPLORED_AT_ONCE`] of them: 240 in an hour.
const EXPLORE_PAUSE: Duration = Duration::from_secs(1);
const EXPLORED_AT_ONCE: u32 = 8;

/// Bytes a second: a block every two seconds.
const LITTLE: u64 = 8 << 10;

/// How many addresses of one answer are looked at: as many as the candidate list holds.
const MAX_CANDIDATES: usize = 1_000;

/// A connection that ends sooner and brought nothing counts as a failure.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// How long no peer is dialled after a limit on our side prevented it.
const PREVENTED_PAUSE: Duration = Duration::from_secs(5);
