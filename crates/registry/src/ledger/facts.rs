//! What is known of one peer of a catalogued torrent.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, Moment, PeerId};

use crate::growth::Growth;
use crate::held::{Held, HoldingsSource};

/// A peer's facts.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Its own as long as the registry lives.
    pub id: u64,
    /// Its second address, of the other family.
    pub also: Option<SocketAddr>,
    /// It announced last that nothing is left to get.
    pub complete: bool,
    /// `None` if it has not announced since the torrent was catalogued; so are the next two.
    pub peer_id: Option<PeerId>,
    pub key: Option<AnnounceKey>,
    pub left: Option<u64>,
    pub held: Held,
    pub source: Option<HoldingsSource>,
    /// When the peer last told or showed what it holds.
    pub held_at: Moment,
    /// How often it was handed out at its first address.
    pub assigned: u64,
    pub joined: Moment,
    /// When it announced last, and when it was heard of last in any way.
    pub announced: Moment,
    pub heard: Moment,
    /// When it showed its key last.
    pub keyed: Moment,
    /// It got something by its last announce, and what it shows has not changed since the one before.
    pub stale: bool,
    /// The address at which we are connected to it, and who it says it is there.
    pub observed: Option<(SocketAddr, PeerId)>,
    /// It took the last connection of who observes, and closed it at the handshake.
    pub closes: bool,
    pub growth: Growth,
}

/// A peer id, and the short form of the key that comes with it: peers announce that over UDP.
pub(crate) type Identity = (PeerId, u32);

/// How a peer gets on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pulse {
    /// Its number.
    pub id: u64,
    /// Pieces a second lately; `None` if its holdings are not known.
    pub rate: Option<f64>,
    /// Time until it holds everything; `None` if that is not to be seen.
    pub eta: Option<Duration>,
    /// Time since it was last heard of.
    pub silent: Duration,
    /// When it last told or showed what it holds; `None` if that is not known.
    pub held_at: Option<Moment>,
}

impl Facts {
    /// Of a peer of which nothing is known yet.
    pub(crate) fn new(now: Moment, id: u64) -> Self {
        Self {
            id,
            also: None,
            complete: false,
            peer_id: None,
            key: None,
            left: None,
            held: Held::Unknown,
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

    /// It has shown a key.
    pub(crate) fn showed_key(&mut self, now: Moment, key: AnnounceKey) {
        self.keyed = self.keyed.max(now);
        // The short form of the same key says less.
        if !self.key.is_some_and(|known| known.is_long() && known.is_same(key)) {
            self.key = Some(key);
        }
    }

    /// Whether we are connected to it at another address than this one.
    pub(crate) fn is_observed_elsewhere(&self, addr: SocketAddr) -> bool {
        self.observed.is_some_and(|(at, _)| at != addr)
    }

    /// Whether it holds no more than it says. Super-seeders (BEP 16) say that nothing is left to
    /// get, and show their pieces one by one.
    pub(crate) fn is_sure(&self) -> bool {
        match self.held {
            Held::Everything => true,
            Held::Unknown => false,
            Held::Pieces(_) => self.left != Some(0),
        }
    }

    /// Who it says it is; `None` if it has not shown a key.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Some((self.peer_id?, self.key?.short()))
    }

    /// How it gets on in a torrent of so many pieces.
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
