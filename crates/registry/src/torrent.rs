//! A torrent of the registry: its peers in both families, found by their place.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;

use super::ledger::Ledger;
use super::openers::Opener;
use super::peers::{Packed, PeerList, Standing, Tick};
use super::select::Place;
use piecework_core::InfoHash;

/// One torrent with its peers.
pub(super) struct Torrent {
    pub(super) info_hash: InfoHash,
    pub(super) v4: PeerList<[u8; 4]>,
    pub(super) v6: PeerList<[u8; 16]>,
    pub(super) downloads: u32,
    pub(super) halved_at: Tick,
    /// Who announced it first; `None` if it is or was catalogued.
    pub(super) opener: Option<Opener>,
    /// There if and only if the torrent is catalogued.
    pub(super) ledger: Option<Box<Ledger>>,
}

impl Torrent {
    pub(super) fn insert(
        &mut self,
        ip: IpAddr,
        port: u16,
        tick: Tick,
        complete: bool,
        hasher: &FixedState,
    ) {
        match ip {
            IpAddr::V4(ip) => {
                self.v4.insert(Packed::new(ip.octets(), port, tick), complete, hasher);
            }
            IpAddr::V6(ip) => {
                self.v6.insert(Packed::new(ip.octets(), port, tick), complete, hasher);
            }
        }
    }

    /// Notes that a peer announced; gives its new place. `recent` is there for one that is new
    /// and was here before.
    pub(super) fn refresh(
        &mut self,
        place: Place,
        tick: Tick,
        complete: bool,
        recent: Option<u16>,
        hasher: &FixedState,
    ) -> Place {
        match place {
            Place::V4(at) => {
                let at = self.v4.set_complete(at as usize, complete, hasher);
                touch(self.v4.get_mut(at), tick, recent);
                Place::V4(at as u32)
            }
            Place::V6(at) => {
                let at = self.v6.set_complete(at as usize, complete, hasher);
                touch(self.v6.get_mut(at), tick, recent);
                Place::V6(at as u32)
            }
        }
    }

    pub(super) fn set_complete(&mut self, place: Place, complete: bool, hasher: &FixedState) {
        match place {
            Place::V4(at) => _ = self.v4.set_complete(at as usize, complete, hasher),
            Place::V6(at) => _ = self.v6.set_complete(at as usize, complete, hasher),
        }
    }

    pub(super) fn find(&self, ip: IpAddr, port: u16, hasher: &FixedState) -> Option<Place> {
        match ip {
            IpAddr::V4(ip) => {
                self.v4.find(ip.octets(), port, hasher).map(|at| Place::V4(at as u32))
            }
            IpAddr::V6(ip) => {
                self.v6.find(ip.octets(), port, hasher).map(|at| Place::V6(at as u32))
            }
        }
    }

    pub(super) fn set_standing(&mut self, place: Place, standing: Standing, hasher: &FixedState) {
        match place {
            Place::V4(at) => _ = self.v4.set_standing(at as usize, standing, hasher),
            Place::V6(at) => _ = self.v6.set_standing(at as usize, standing, hasher),
        }
    }

    pub(super) fn standing(&self, place: Place) -> Standing {
        match place {
            Place::V4(at) => self.v4.standing(at as usize),
            Place::V6(at) => self.v6.standing(at as usize),
        }
    }

    pub(super) fn is_complete(&self, place: Place) -> bool {
        match place {
            Place::V4(at) => self.v4.is_complete(at as usize),
            Place::V6(at) => self.v6.is_complete(at as usize),
        }
    }

    pub(super) fn recent(&self, place: Place) -> u16 {
        match place {
            Place::V4(at) => self.v4.get(at as usize).recent,
            Place::V6(at) => self.v6.get(at as usize).recent,
        }
    }

    pub(super) fn addr(&self, place: Place) -> SocketAddr {
        match place {
            Place::V4(at) => self.v4.get(at as usize).addr(),
            Place::V6(at) => self.v6.get(at as usize).addr(),
        }
    }

    /// When the peer announced last, or was seen to be there.
    pub(super) fn seen(&self, place: Place) -> Tick {
        match place {
            Place::V4(at) => self.v4.get(at as usize).seen,
            Place::V6(at) => self.v6.get(at as usize).seen,
        }
    }

    pub(super) fn last_place(&self) -> Option<Place> {
        let last_v4 = self.v4.len().checked_sub(1).map(|at| Place::V4(at as u32));
        last_v4.or_else(|| self.v6.len().checked_sub(1).map(|at| Place::V6(at as u32)))
    }

    /// Peers at the network of `ip`; counted only where there can be `limit` of them at all.
    pub(super) fn count_network(&self, ip: IpAddr, limit: usize, hasher: &FixedState) -> usize {
        match ip {
            IpAddr::V4(ip) if self.v4.len() >= limit => self.v4.count_network(ip.octets(), hasher),
            IpAddr::V6(ip) if self.v6.len() >= limit => self.v6.count_network(ip.octets(), hasher),
            _ => 0,
        }
    }

    /// The place of a peer's other address, if it has one.
    pub(super) fn other_place(&self, place: Place, hasher: &FixedState) -> Option<Place> {
        let other = self.ledger.as_ref()?.other(self.addr(place))?;
        self.find(other.ip(), other.port(), hasher)
    }

    /// What a peer announced at `addr` of being complete holds at its other address, too.
    pub(super) fn tell_other(&mut self, addr: SocketAddr, hasher: &FixedState) {
        let Some(ledger) = &self.ledger else { return };
        let Some((other, facts)) = ledger.other(addr).zip(ledger.get(addr)) else { return };
        let complete = facts.complete;
        if let Some(place) = self.find(other.ip(), other.port(), hasher) {
            self.set_complete(place, complete, hasher);
        }
    }

    /// Complete peers and others. One that is known to have two addresses counts once; that is known only
    /// of catalogued torrents.
    pub(super) fn counts(&self) -> (u32, u32) {
        let complete = self.v4.complete() + self.v6.complete();
        let all = self.v4.len() + self.v6.len();
        let twice = self.ledger.as_ref().map(|ledger| ledger.seconds()).unwrap_or_default();
        let once = |all: usize, twice: u32| (all as u32).saturating_sub(twice);
        (once(complete, twice.0), once(all - complete, twice.1))
    }
}

fn touch<A>(peer: &mut Packed<A>, tick: Tick, recent: Option<u16>) {
    // An announce may overtake another on its way to the lock.
    peer.seen = peer.seen.max(tick);
    if let Some(recent) = recent {
        peer.recent = peer.recent.max(recent);
    }
}
