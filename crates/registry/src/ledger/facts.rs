//! The facts about one peer of a catalogued torrent.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, Moment, PeerId};

use crate::growth::Growth;
use crate::holdings::{Holdings, HoldingsSource};

/// The facts about one peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerFacts {
    /// The peer's number, unique in the lifetime of the registry.
    pub id: u64,
    /// The second address, of the other family.
    pub also: Option<SocketAddr>,
    /// Whether the last announce said that nothing is missing.
    pub complete: bool,
    /// This and the next two fields are `None` if the peer has not announced since the torrent was catalogued.
    pub peer_id: Option<PeerId>,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub held: Holdings,
    pub source: Option<HoldingsSource>,
    /// When the holdings were last confirmed.
    pub held_at: Moment,
    /// How often the peer was handed out at its first address.
    pub assigned: u64,
    pub joined: Moment,
    /// When the peer last announced, and when it was last heard from in any way.
    pub announced: Moment,
    pub heard: Moment,
    /// When the peer last used its key.
    pub keyed: Moment,
    /// Whether the observed holdings are stale: by its last announce the peer has downloaded something, but its
    /// observed holdings have not changed since the announce before.
    pub stale: bool,
    /// The address at which the observer is connected to the peer, and the peer id in that connection's handshake.
    pub observed: Option<(SocketAddr, PeerId)>,
    /// Whether the peer accepted the observer's last connection and closed it during the handshake.
    pub closes: bool,
    pub growth: Growth,
}

/// A peer id with the short form of its key, which is the form that UDP announces have.
pub(crate) type Identity = (PeerId, u32);

/// The progress of a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pulse {
    /// The peer's number.
    pub id: u64,
    /// The recent number of new pieces per second; `None` if the holdings are not known.
    pub rate: Option<f64>,
    /// The estimated time until the peer is complete; `None` if there is no estimate.
    pub eta: Option<Duration>,
    /// The time since the peer was last heard from.
    pub silent: Duration,
    /// When the holdings were last confirmed; `None` if they are not known.
    pub held_at: Option<Moment>,
}

impl PeerFacts {
    /// Returns the facts of a new peer.
    pub(crate) fn new(now: Moment, id: u64) -> Self {
        Self {
            id,
            also: None,
            complete: false,
            peer_id: None,
            key: None,
            left: None,
            held: Holdings::Unknown,
            source: None,
            held_at: now,
            assigned: 0,
            joined: now,
            announced: now,
            heard: now,
            keyed: now,
            stale: false,
            observed: None,
            closes: false,
            growth: Growth::new(now),
        }
    }

    /// Records that the peer has used `key`.
    pub(crate) fn showed_key(&mut self, now: Moment, key: AnnounceKey) {
        self.keyed = self.keyed.max(now);
        // A long key is not replaced by its own short form.
        if !self.key.is_some_and(|known| known.is_long() && known.is_same(key)) {
            self.key = Some(key);
        }
    }

    /// Returns whether the observer is connected to the peer at another address than `addr`.
    pub(crate) fn is_observed_elsewhere(&self, addr: SocketAddr) -> bool {
        self.observed.is_some_and(|(at, _)| at != addr)
    }

    /// Returns whether the peer holds no other pieces than the known ones. A super-seeder (BEP 16) announces that
    /// nothing is missing and shows its pieces one by one.
    pub(crate) fn is_sure(&self) -> bool {
        match self.held {
            Holdings::Everything => true,
            Holdings::Unknown => false,
            Holdings::Pieces(_) => self.left != Some(0),
        }
    }

    /// Returns the peer's id and key; `None` if it has not used a key.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Some((self.peer_id?, self.key?.short()))
    }

    /// Returns the peer's progress in a torrent of `pieces` pieces.
    pub(crate) fn pulse(&self, pieces: u32, now: Moment) -> Pulse {
        let held = self.held.count(pieces);
        Pulse {
            id: self.id,
            rate: held.map(|_| self.growth.per_second(now)),
            eta: held.and_then(|held| self.growth.time_for(now, pieces - held)),
            silent: now.since(self.heard),
            held_at: self.source.map(|_| self.held_at),
        }
    }
}
