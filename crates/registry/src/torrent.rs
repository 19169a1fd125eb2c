//! A torrent of the registry: its peers of both address families, accessed by position.

use piecework_core::SaturatingFrom;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};

use foldhash::fast::FixedState;

use super::ledger::Ledger;
use super::openers::Opener;
use super::peers::{Packed, PeerList, Reachability, Tick};
use super::select::PeerPosition;
use piecework_core::InfoHash;

/// One torrent with its peers.
pub(super) struct Torrent {
    pub(super) info_hash: InfoHash,
    pub(super) v4: PeerList<[u8; 4]>,
    pub(super) v6: RareList,
    /// No peer was last seen before this.
    pub(super) oldest: Tick,
    pub(super) downloads: u32,
    pub(super) halved_at: Tick,
    /// The network that announced it first; `None` if it is or was catalogued.
    pub(super) opener: Option<Opener>,
    /// Exists if and only if the torrent is catalogued.
    pub(super) ledger: Option<Box<Ledger>>,
}

/// The IPv6 peers, which most torrents do not have. Takes no memory while it is empty.
#[derive(Default)]
pub(super) struct RareList(Option<Box<PeerList<[u8; 16]>>>);

impl RareList {
    /// Halves every recent handout count `times` times.
    pub(super) fn halve(&mut self, times: u32) {
        if let Some(list) = &mut self.0 {
            list.halve(times);
        }
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, position: usize, hasher: &FixedState) -> Packed<[u8; 16]> {
        let peer = (**self).remove(position, hasher);
        if self.len() == 0 {
            self.0 = None;
        }
        peer
    }
}

impl Deref for RareList {
    type Target = PeerList<[u8; 16]>;

    fn deref(&self) -> &Self::Target {
        static EMPTY: PeerList<[u8; 16]> = PeerList::new();
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for RareList {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.get_or_insert_with(|| Box::new(PeerList::new()))
    }
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
        self.oldest = self.oldest.min(tick);
        match ip {
            IpAddr::V4(ip) => {
                self.v4.insert(Packed::new(ip.octets(), port, tick), complete, hasher);
            }
            IpAddr::V6(ip) => {
                self.v6.insert(Packed::new(ip.octets(), port, tick), complete, hasher);
            }
        }
    }

    /// Records that a peer announced. Returns its new position. `recent` is the earlier handout count of a peer that
    /// has come back.
    pub(super) fn refresh(
        &mut self,
        place: PeerPosition,
        tick: Tick,
        complete: bool,
        recent: Option<u16>,
        hasher: &FixedState,
    ) -> PeerPosition {
        match place {
            PeerPosition::V4(at) => {
                let at = self.v4.set_complete(at as usize, complete, hasher);
                touch(self.v4.get_mut(at), tick, recent);
                PeerPosition::V4(u32::saturating_from(at))
            }
            PeerPosition::V6(at) => {
                let at = self.v6.set_complete(at as usize, complete, hasher);
                touch(self.v6.get_mut(at), tick, recent);
                PeerPosition::V6(u32::saturating_from(at))
            }
        }
    }

    pub(super) fn set_complete(
        &mut self,
        place: PeerPosition,
        complete: bool,
        hasher: &FixedState,
    ) {
        match place {
            PeerPosition::V4(at) => _ = self.v4.set_complete(at as usize, complete, hasher),
            PeerPosition::V6(at) => _ = self.v6.set_complete(at as usize, complete, hasher),
        }
    }

    pub(super) fn find(&self, ip: IpAddr, port: u16, hasher: &FixedState) -> Option<PeerPosition> {
        match ip {
            IpAddr::V4(ip) => self
                .v4
                .find(ip.octets(), port, hasher)
                .map(|at| PeerPosition::V4(u32::saturating_from(at))),
            IpAddr::V6(ip) => self
                .v6
                .find(ip.octets(), port, hasher)
                .map(|at| PeerPosition::V6(u32::saturating_from(at))),
        }
    }

    pub(super) fn set_reachability(
        &mut self,
        place: PeerPosition,
        reachability: Reachability,
        hasher: &FixedState,
    ) {
        match place {
            PeerPosition::V4(at) => _ = self.v4.set_reachability(at as usize, reachability, hasher),
            PeerPosition::V6(at) => _ = self.v6.set_reachability(at as usize, reachability, hasher),
        }
    }

    pub(super) fn reachability(&self, place: PeerPosition) -> Reachability {
        match place {
            PeerPosition::V4(at) => self.v4.reachability(at as usize),
            PeerPosition::V6(at) => self.v6.reachability(at as usize),
        }
    }

    pub(super) fn is_complete(&self, place: PeerPosition) -> bool {
        match place {
            PeerPosition::V4(at) => self.v4.is_complete(at as usize),
            PeerPosition::V6(at) => self.v6.is_complete(at as usize),
        }
    }

    pub(super) fn recent(&self, place: PeerPosition) -> u16 {
        match place {
            PeerPosition::V4(at) => self.v4.get(at as usize).recent,
            PeerPosition::V6(at) => self.v6.get(at as usize).recent,
        }
    }

    pub(super) fn addr(&self, place: PeerPosition) -> SocketAddr {
        match place {
            PeerPosition::V4(at) => self.v4.get(at as usize).addr(),
            PeerPosition::V6(at) => self.v6.get(at as usize).addr(),
        }
    }

    /// Returns when the peer last announced or was seen by the observer.
    pub(super) fn seen(&self, place: PeerPosition) -> Tick {
        match place {
            PeerPosition::V4(at) => self.v4.get(at as usize).seen,
            PeerPosition::V6(at) => self.v6.get(at as usize).seen,
        }
    }

    pub(super) fn last_place(&self) -> Option<PeerPosition> {
        let last_v4 =
            self.v4.len().checked_sub(1).map(|at| PeerPosition::V4(u32::saturating_from(at)));
        last_v4.or_else(|| {
            self.v6.len().checked_sub(1).map(|at| PeerPosition::V6(u32::saturating_from(at)))
        })
    }

    /// Returns the number of peers in the network of `ip`. Counts only if the list has at least `limit` peers.
    pub(super) fn count_network(&self, ip: IpAddr, limit: usize, hasher: &FixedState) -> usize {
        match ip {
            IpAddr::V4(ip) if self.v4.len() >= limit => self.v4.count_network(ip.octets(), hasher),
            IpAddr::V6(ip) if self.v6.len() >= limit => self.v6.count_network(ip.octets(), hasher),
            _ => 0,
        }
    }

    /// Returns the position of a peer's other address, if it has one.
    pub(super) fn other_place(
        &self,
        place: PeerPosition,
        hasher: &FixedState,
    ) -> Option<PeerPosition> {
        let other = self.ledger.as_ref()?.other(self.addr(place))?;
        self.find(other.ip(), other.port(), hasher)
    }

    /// Copies to a peer's other address whether it announced at `addr` that it is complete.
    pub(super) fn tell_other(&mut self, addr: SocketAddr, hasher: &FixedState) {
        let Some(ledger) = &self.ledger else { return };
        let Some((other, facts)) = ledger.other(addr).zip(ledger.get(addr)) else { return };
        let complete = facts.complete;
        if let Some(place) = self.find(other.ip(), other.port(), hasher) {
            self.set_complete(place, complete, hasher);
        }
    }

    /// Returns the numbers of complete and incomplete peers. A peer with two addresses counts once, if the torrent is
    /// catalogued.
    pub(super) fn counts(&self) -> (u32, u32) {
        let complete = self.v4.complete() + self.v6.complete();
        let all = self.v4.len() + self.v6.len();
        let twice = self.ledger.as_ref().map(|ledger| ledger.seconds()).unwrap_or_default();
        let once = |all: usize, twice: u32| u32::saturating_from(all).saturating_sub(twice);
        (once(complete, twice.0), once(all - complete, twice.1))
    }
}

fn touch<A>(peer: &mut Packed<A>, tick: Tick, recent: Option<u16>) {
    // Announces may reach the lock out of order.
    peer.seen = peer.seen.max(tick);
    if let Some(recent) = recent {
        peer.recent = peer.recent.max(recent);
    }
}
