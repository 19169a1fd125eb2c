//! Which connections belong to the same peer.
//!
//! Two things are proven: a connection, and an address that we dialled. A peer id is public and can be
//! copied, and the port that an incoming peer names can be another's. Both are only hints, which never cost
//! a peer its connection or get it banned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::candidates::ConnectionEnd;
use super::peer::Peer;
use super::{Direction, Giver, PeerFault, PeerIdentity, PeerKey, Swarm};
use piecework_core::{Moment, PeerId};
use piecework_proto::wire::Message;

/// What happens to a new connection when there are others with the same address and peer id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TwinDecision {
    /// It is refused.
    Refused,
    /// It is kept, and replaces this connection if there is one.
    Kept(Option<PeerKey>),
}

impl Swarm {
    /// Decides whether a new connection is kept beside others that may belong to the same peer.
    ///
    /// A connection that we dialled is never closed in favour of an incoming one: it is proven where it
    /// leads. If both sides dialled at about the same time, the connection dialled by the lesser id is
    /// closed by the side that accepted it. If an older connection is silent, it is unknown whether it is
    /// alive. Then the new one is kept too, so that a peer whose connection died is not locked out.
    pub(super) fn judge_twins(
        &self,
        addr: SocketAddr,
        id: PeerId,
        direction: Direction,
    ) -> TwinDecision {
        let twins = self.twins(addr, id);
        let of = |direction| twins.iter().filter(move |(_, peer)| peer.direction == direction);
        let crosses = |peer: &Peer| self.now.since(peer.connected_at) < CROSSING_DIALS;
        let ours_wins = self.config.local_id > id;
        match direction {
            Direction::Outgoing => {
                if of(Direction::Outgoing).any(|(_, peer)| peer.who.addr == addr) {
                    return TwinDecision::Refused;
                }
                let crossed = of(Direction::Incoming).find(|(_, peer)| crosses(peer) && ours_wins);
                TwinDecision::Kept(crossed.map(|(key, _)| *key))
            }
            Direction::Incoming => {
                let live = of(Direction::Outgoing).any(|(_, peer)| match crosses(peer) {
                    true => ours_wins,
                    false => !is_silent(self.now, peer),
                });
                if live {
                    return TwinDecision::Refused;
                }
                if of(Direction::Incoming).count() < MAX_TWINS {
                    return TwinDecision::Kept(None);
                }
                match of(Direction::Incoming).min_by_key(|(_, peer)| peer.heard_at) {
                    Some((key, peer)) if is_silent(self.now, peer) => {
                        TwinDecision::Kept(Some(*key))
                    }
                    _ => TwinDecision::Refused,
                }
            }
        }
    }

    /// Returns the silent connection that a new one of the same address and peer id may replace.
    pub(super) fn silent_twin(&self, now: Moment, addr: SocketAddr, id: PeerId) -> Option<PeerKey> {
        let twins = self.twins(addr, id);
        let silent = twins.into_iter().filter(|(_, peer)| is_silent(now, peer));
        silent.min_by_key(|(_, peer)| peer.heard_at).map(|(key, _)| key)
    }

    /// Writes to the silent connections of a peer whose new connection is `rival`, so that the system finds
    /// out whether they are dead.
    pub(super) fn probe_twins(&mut self, rival: PeerKey, addr: SocketAddr, id: PeerId) {
        let twins = self.twins(addr, id).into_iter().filter(|(key, _)| *key != rival);
        let silent: Vec<PeerKey> =
            twins.filter(|(_, peer)| is_silent(self.now, peer)).map(|(key, _)| key).collect();
        for key in silent {
            if let Some(peer) = self.peers.get_mut(&key)
                && peer.direction == Direction::Outgoing
            {
                peer.rival = Some(rival);
            }
            self.send(key, Message::KeepAlive);
        }
    }

    /// Drops `rival`: the older connection, which was silent, is alive, and it is proven where that one
    /// leads.
    pub(super) fn prefer_over_rival(&mut self, rival: PeerKey) {
        let is_young = |peer: &Peer| self.now.since(peer.connected_at) < CROSSING_DIALS;
        if self.peers.get(&rival).is_some_and(is_young) {
            self.drop_peer(rival, PeerFault::Duplicate);
        }
    }

    /// Records where a peer says it accepts connections.
    pub(super) fn learn_port(&mut self, key: PeerKey, port: u16) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.listens_at.is_some() {
            return;
        }
        let addr = SocketAddr::new(peer.who.addr.ip(), port);
        peer.listens_at = Some(addr);
        let complete = peer.holds.is_full();
        self.candidates.claimed(addr);
        if complete {
            self.candidates.note_disinterest(addr, false);
        }
        self.name_claimants(addr);
        self.note_exchange_change();
    }

    /// Sets whether peers that claim `addr` are known by it. They are, unless a peer that we dialled there
    /// or another one that claims it has a different id.
    pub(super) fn name_claimants(&mut self, addr: SocketAddr) {
        let named = || self.peers.values().filter(|peer| peer.listens_at == Some(addr));
        let Some(id) = named().next().map(|peer| peer.who.id) else { return };
        let is_clear = named().all(|peer| peer.who.id == id);
        for peer in self.peers.values_mut() {
            let claims = peer.direction == Direction::Incoming && peer.listens_at == Some(addr);
            // Its own address is the same, and `is_dialled` distinguishes them by that.
            let name = Some(addr).filter(|addr| is_clear && *addr != peer.who.addr);
            if claims && peer.who.listens_at != name {
                Arc::make_mut(&mut peer.who).listens_at = name;
            }
        }
    }

    /// Returns the incoming connection of that IP address and peer id.
    pub(super) fn incoming_twin(&self, addr: SocketAddr, id: PeerId) -> Option<PeerKey> {
        let twins = self.twins(addr, id);
        let incoming = twins.into_iter().find(|(_, peer)| peer.direction == Direction::Incoming);
        incoming.map(|(key, _)| key)
    }

    /// Records who gave a right piece.
    pub(super) fn note_givers(&mut self, givers: &[Giver]) {
        let gave = |who: &PeerIdentity| givers.iter().any(|giver| is_same(&giver.who, who));
        for peer in self.peers.values_mut().filter(|peer| !peer.is_proven) {
            if gave(&peer.who) {
                peer.is_proven = true;
                if peer.direction == Direction::Outgoing {
                    self.candidates.note_proven(peer.who.addr);
                }
            }
        }
    }

    /// Bans a peer that is known to have sent a wrong block, connected or not: its connection, the address
    /// at which we dialled it, for a while its id, and in the end its IP address for incoming connections.
    /// Peers of that address stay if they have given right pieces or if we want nothing from them.
    pub(super) fn ban(&mut self, who: &PeerIdentity) {
        let now = self.now;
        self.blame.ban(now, who);
        let guilty = self.peers.iter().find(|(_, peer)| is_same(&peer.who, who));
        if let Some(key) = guilty.map(|(key, _)| *key) {
            self.drop_peer(key, PeerFault::Corrupt);
        } else if who.is_dialled() {
            self.candidates.closed(now, who.addr, ConnectionEnd::Never);
        }
        let ip = who.addr.ip();
        let Some(until) = self.blame.refused_until(now, ip) else { return };
        let others: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.who.addr.ip().to_canonical() == ip.to_canonical())
            .filter(|(_, peer)| !peer.is_proven && peer.interests_us)
            .filter(|(_, peer)| !self.candidates.is_named(peer.who.addr))
            .map(|(key, _)| *key)
            .collect();
        for key in others {
            self.drop_peer(key, PeerFault::Banned);
        }
        self.candidates.put_off_ip(ip, until);
    }

    /// Returns whether a new connection is refused because of earlier wrong pieces. An address that a user
    /// has named is not.
    pub(super) fn is_refused(&self, addr: SocketAddr, id: PeerId, direction: Direction) -> bool {
        match direction {
            Direction::Incoming => self.blame.is_refused(self.now, addr, id),
            Direction::Outgoing if self.candidates.is_named(addr) => false,
            Direction::Outgoing => {
                let refused = self.blame.refused_until(self.now, addr.ip()).is_some();
                self.blame.is_banned_addr(addr) || refused && !self.candidates.is_proven(addr)
            }
        }
    }

    /// Returns the connections of that peer id from that IP address.
    fn twins(&self, addr: SocketAddr, id: PeerId) -> Vec<(PeerKey, &Peer)> {
        let ip = addr.ip().to_canonical();
        let is_twin = |peer: &Peer| peer.who.id == id && peer.who.addr.ip().to_canonical() == ip;
        self.peers.iter().filter(|(_, peer)| is_twin(peer)).map(|(key, p)| (*key, p)).collect()
    }
}

impl PeerIdentity {
    /// Returns whether we dialled it, so that it accepts connections at its address.
    pub(super) fn is_dialled(&self) -> bool {
        self.listens_at == Some(self.addr)
    }
}

fn is_silent(now: Moment, peer: &Peer) -> bool {
    now.since(peer.heard_at) >= SILENCE
}

fn is_same(a: &PeerIdentity, b: &PeerIdentity) -> bool {
    a.addr == b.addr && a.id == b.id
}

/// Two connections between the same peers within this time count as dialled at once.
const CROSSING_DIALS: Duration = Duration::from_secs(10);

/// A connection that has been silent for this long may be dead: the system notices only when it writes, and
/// then after minutes.
const SILENCE: Duration = Duration::from_secs(10);

/// Maximum number of live incoming connections from one address with one peer id. A peer needs one. A
/// second is needed when the first has died, or when another peer uses its id.
const MAX_TWINS: usize = 2;
