//! Peer exchange (BEP 11): which connected peers are named to whom and when, and which named addresses are taken in.
//!
//! Only peers are named that are connected, at an address that we dialled or at which they say they listen. Nobody has
//! verified what other peers name: each message, each host that names addresses, and all of them together have a limit
//! ([`CandidateList::add_exchanged`](super::candidates::CandidateList::add_exchanged)).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::canonical::canonical_priority;
use super::peer::Peer;
use super::peer_exchange::{MOST_NAMED, PeerExchange, news};
use super::{Direction, PeerFault, PeerKey, PeerSource, Swarm};
use piecework_core::{Moment, may_be_named};
use piecework_proto::wire::{ExchangeFlags, ExchangeMessage, ExchangedPeer, Message};

impl Swarm {
    /// Returns whether peers are exchanged.
    pub(super) fn exchanges(&self) -> bool {
        self.config.exchange && !self.config.is_private
    }

    /// Records by which number a peer takes `ut_pex` messages.
    pub(super) fn on_exchange_offer(&mut self, key: PeerKey, id: u8) {
        let (exchanges, now) = (self.exchanges(), self.now);
        let Some(peer) = self.peers.get_mut(&key).filter(|_| exchanges) else { return };
        let exchange = peer.exchange.get_or_insert_with(|| Box::new(PeerExchange::new(now)));
        exchange.id = Some(id);
        self.plan_exchange();
    }

    /// Handles that the list of peers that may be named has changed.
    pub(super) fn note_exchange_change(&mut self) {
        if self.exchanges() {
            self.exchange.version += 1;
            self.plan_exchange();
        }
    }

    fn plan_exchange(&mut self) {
        if self.exchange.at.is_none() {
            let at = self.now + GATHERING;
            self.exchange.at = Some(at);
            self.arm(at);
        }
    }

    /// Tells each peer that may be told something now which peers have come and gone.
    pub(super) fn exchange(&mut self) {
        let (now, version) = (self.now, self.exchange.version);
        self.exchange.at = None;
        let named = self.named_peers();
        let mut next: Option<Moment> = None;
        let mut messages = Vec::new();
        for (key, peer) in &mut self.peers {
            let (addr, listens_at) = (peer.who.addr, peer.listens_at);
            let is_seed = peer.holds.is_full() || peer.upload_only;
            let Some(exchange) = &mut peer.exchange else { continue };
            let Some(id) = exchange.id.filter(|_| exchange.version != version) else { continue };
            if exchange.tell_from <= now {
                let may_know = |other: SocketAddr, flags: ExchangeFlags| {
                    Some(other) != listens_at
                        && other != addr
                        && may_be_named(addr.ip(), other.ip())
                        && !(is_seed && flags.has(ExchangeFlags::SEED))
                };
                let message = news(&exchange.told, &named, may_know);
                let count = message.added.len() + message.dropped.len();
                if count == 0 {
                    exchange.version = version;
                    continue;
                }
                exchange.told.extend(message.added.iter().map(|peer| peer.addr));
                exchange.told.retain(|addr| !message.dropped.contains(addr));
                // A full message may not be the whole truth.
                let is_full = message.added.len().max(message.dropped.len()) == MOST_NAMED;
                exchange.version = if is_full { 0 } else { version };
                exchange.tell_from = now + PAUSE;
                messages.push((*key, id, message));
            }
            if exchange.version != version {
                next = Some(next.map_or(exchange.tell_from, |at| at.min(exchange.tell_from)));
            }
        }
        for (key, id, message) in messages {
            self.send(key, Message::Extended { id, payload: message.encode() });
        }
        self.exchange.at = next.map(|at| at.max(now + GATHERING));
        self.wake_is_stale = true;
    }

    /// Returns the peers that may be named.
    fn named_peers(&self) -> BTreeMap<SocketAddr, ExchangeFlags> {
        let named = self.peers.values().filter_map(|peer| {
            let addr = peer.listens_at.filter(|addr| match peer.direction {
                Direction::Outgoing => true,
                // Otherwise several peers claim the address.
                Direction::Incoming => peer.who.listens_at == Some(*addr) || peer.who.addr == *addr,
            })?;
            (!peer.who.id.is_tracker()).then(|| (canonical(addr), flags_of(peer)))
        });
        named.collect()
    }

    /// Handles a `ut_pex` message.
    pub(super) fn on_exchange(&mut self, key: PeerKey, payload: &[u8]) -> Result<(), PeerFault> {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&key) else { return Ok(()) };
        let exchange = peer.exchange.get_or_insert_with(|| Box::new(PeerExchange::new(now)));
        // A message that comes too early costs nothing but its bytes.
        if now < exchange.hear_from {
            return Ok(());
        }
        exchange.hear_from = now + LEAST_PAUSE;
        let most = if exchange.has_told { MOST_NAMED } else { MOST_NAMED_FIRST };
        exchange.has_told = true;
        let message = ExchangeMessage::decode(payload).map_err(|_| PeerFault::BadExchange)?;
        let (by, listens_at) = (peer.who.addr, peer.listens_at);
        let asks_nothing = self.is_upload_only();
        let mut counted = self.candidates.exchanged(by.ip());
        for ExchangedPeer { addr, flags } in message.added.into_iter().take(most) {
            let addr = canonical(addr);
            let is_itself = addr == by || Some(addr) == listens_at;
            let is_seed = asks_nothing && flags.has(ExchangeFlags::SEED);
            if is_itself || is_seed || !may_be_named(by.ip(), addr.ip()) {
                continue;
            }
            if !self.blame.is_banned_addr(addr) {
                let rank = canonical_priority(self.own_addr(addr.ip()), addr);
                self.candidates.add_exchanged(now, addr, by.ip(), rank, &mut counted);
                if let Some(until) = self.blame.refused_until(now, addr.ip()) {
                    self.candidates.put_off(addr, until);
                }
            }
        }
        self.wake_is_stale = true;
        self.dial();
        Ok(())
    }

    /// Returns our own address of the same family as `ip`, as most peers see it. Unspecified if no peer has said.
    fn own_addr(&self, ip: IpAddr) -> SocketAddr {
        let mut votes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        let seen = self.peers.values().filter_map(|peer| peer.sees_us);
        for seen in seen.filter(|seen| seen.is_ipv4() == ip.is_ipv4()) {
            *votes.entry(seen).or_default() += 1;
        }
        let unspecified = match ip {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        let own =
            votes.into_iter().max_by_key(|(_, votes)| *votes).map_or(unspecified, |(ip, _)| ip);
        SocketAddr::new(own, self.config.listen_port.unwrap_or_default())
    }
}

impl PeerSource {
    /// Returns whether addresses from here may be named by anybody who connects to us.
    pub(super) fn is_hearsay(self) -> bool {
        self == Self::Exchange
    }
}

fn flags_of(peer: &Peer) -> ExchangeFlags {
    let mut flags = ExchangeFlags::default();
    if peer.holds.is_full() || peer.upload_only {
        flags = flags.with(ExchangeFlags::SEED);
    }
    if peer.direction == Direction::Outgoing {
        flags = flags.with(ExchangeFlags::REACHABLE);
    }
    flags
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// BEP 11: a peer is sent one message a minute.
const PAUSE: Duration = Duration::from_secs(60);

/// A message that comes sooner after the last one is not read. Clocks and networks are not exact.
const LEAST_PAUSE: Duration = Duration::from_secs(45);

/// How long changes of the list gather before they are told.
const GATHERING: Duration = Duration::from_secs(2);

/// The first message may have more.
const MOST_NAMED_FIRST: usize = 100;
