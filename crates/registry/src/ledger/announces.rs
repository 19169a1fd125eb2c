//! How announces change a ledger: which peers arrive, which are the same peer, and which leave.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, Moment};

use super::addresses::AnnounceClaim;
use super::facts::PeerFacts;
use super::identities::IdentityMatch;
use super::table::{Ledger, Load};
use crate::holdings::{Holdings, HoldingsSource};
use crate::kept::KeptPeer;

impl Ledger {
    /// Adds a peer that announced before the torrent was catalogued. `id` is its number, `given` how often it was
    /// handed out.
    pub(crate) fn adopt(&mut self, now: Moment, id: u64, addr: SocketAddr, all: bool, given: u16) {
        let mut facts = PeerFacts::new(now, id);
        (facts.assigned, facts.complete) = (u64::from(given), all);
        self.peers.insert(addr, facts);
        if all {
            self.put(now, addr, Holdings::Everything, Some(HoldingsSource::Announced));
        }
    }

    /// Returns the key of the peer at `addr`, if it has used one within `alive`. An announce with another key comes
    /// from another peer.
    pub(crate) fn key_of(
        &self,
        now: Moment,
        addr: SocketAddr,
        alive: Duration,
    ) -> Option<AnnounceKey> {
        let facts = self.get(addr)?;
        facts.key.filter(|_| now.since(facts.keyed) <= alive)
    }

    /// Records that the peer at `addr` has used `key`, which may replace an old one.
    pub(crate) fn showed_key(&mut self, now: Moment, addr: SocketAddr, key: AnnounceKey) {
        let first = self.first(addr);
        let Some(facts) = self.peers.get_mut(&first) else { return };
        let before = facts.identity();
        facts.showed_key(now, key);
        self.renamed(first, before);
    }

    /// Records an announce of the peer at `addr`. Returns how often it was recently handed out, if it has been here
    /// before. A new peer gets the number after `id`. `given` is how often the peer was handed out while the ledger
    /// did not have it.
    pub(crate) fn announced(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: AnnounceClaim,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let recent = self.settle(now, addr, &said, id, given);
        let first = self.first(addr);
        let facts = self.peers.get_mut(&first)?;
        let identity = facts.identity();
        let is_other = facts.peer_id.is_some_and(|known| known != said.peer_id);
        let changed = is_other || facts.left != said.left;
        // Announces over two address families are one announce, not a second start.
        let again =
            facts.also.is_some() && (said.joins.is_some() || now.since(facts.announced) < TOGETHER);
        // Holdings read from a connection to this peer stay valid even if it announces `started` again: some
        // clients do so to each address of the tracker. libtorrent uses a different id on each connection than in
        // its announces; it is the same peer as long as it announces the same id.
        let observed = facts.observed.is_some_and(|(_, id)| id == said.peer_id || !is_other);
        let anew = (said.restarted && !again || is_other) && !observed;
        let got = facts.left.zip(said.left).is_some_and(|(before, now)| now < before);
        let shown = facts.source == Some(HoldingsSource::Observed);
        facts.stale = got
            && !again
            && shown
            && facts.held != Holdings::Everything
            && facts.held_at <= facts.announced;
        facts.peer_id = Some(said.peer_id);
        facts.left = said.left;
        (facts.announced, facts.heard) = (now, facts.heard.max(now));
        let source = facts.source.filter(|_| !anew);
        let has_everything = facts.held == Holdings::Everything;
        if let Some(key) = said.key {
            facts.showed_key(now, key);
        }
        self.renamed(first, identity);
        self.set_complete(first, said.left == Some(0));
        let becomes = match (said.left, source) {
            // The last HAVEs may still be in flight. A super-seeder shows each connection only the pieces that it
            // wants to send there.
            (Some(0), Some(HoldingsSource::Observed)) if observed => None,
            (Some(0), _) if has_everything && !anew => {
                // A confirmation.
                if let Some(facts) = self.peers.get_mut(&first) {
                    facts.held_at = facts.held_at.max(now);
                }
                None
            }
            (Some(0), _) => Some((Holdings::Everything, Some(HoldingsSource::Announced))),
            (_, Some(HoldingsSource::Announced)) => Some((Holdings::Unknown, None)),
            // It has lost pieces since it was observed.
            (_, Some(HoldingsSource::Observed)) if !observed && has_everything => {
                Some((Holdings::Unknown, None))
            }
            _ if anew => Some((Holdings::Unknown, None)),
            _ => None,
        };
        if let Some((held, source)) = becomes {
            self.put(now, first, held, source);
        }
        if let Some(watch) = &mut self.watch
            && (changed || recent.is_some())
        {
            watch.row(first);
        }
        recent
    }

    /// Adds the peer that announces at `addr` if the ledger does not have it. Returns how often it was recently
    /// handed out, if the address is new.
    fn settle(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: &AnnounceClaim,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let mut given = u64::from(given);
        if self.other(addr).is_some() && !self.is_of(addr, said) {
            // Another peer is at this address now.
            let total = self.part(addr);
            self.remember(addr, Load { total, recent: 0 });
            given = 0;
        }
        if let Some(of) = said.joins.filter(|_| self.other(addr).is_none()) {
            return self.join(of, addr, given);
        }
        if self.get(addr).is_some() {
            return None;
        }
        let past = self.past.remove(&addr).unwrap_or_default();
        *id += 1;
        let mut facts = PeerFacts::new(now, *id);
        facts.assigned = past.total + given;
        self.peers.insert(addr, facts);
        Some(past.recent)
    }

    /// Restores a peer from before a restart, last seen at `seen`. Returns how often it was recently handed out.
    pub(crate) fn restored(
        &mut self,
        id: u64,
        addr: SocketAddr,
        kept: &KeptPeer,
        seen: Moment,
    ) -> u16 {
        let past = self.past.remove(&addr).unwrap_or_default();
        if let Some((peer_id, key)) = kept.peer_id.zip(kept.key)
            && let IdentityMatch::Peer(of, _) = self.kin(addr, peer_id, key)
        {
            self.attach(of, addr, past.total);
            self.set_complete(of, kept.complete);
            return past.recent;
        }
        let mut facts = PeerFacts::new(seen, id);
        (facts.peer_id, facts.key, facts.left) = (kept.peer_id, kept.key, kept.left);
        (facts.assigned, facts.complete) = (past.total, kept.complete);
        self.peers.insert(addr, facts);
        self.renamed(addr, None);
        past.recent
    }

    /// Removes the address `addr`. Returns the number of its peer if the peer has no other address.
    pub(crate) fn left(&mut self, addr: SocketAddr, recent: u16) -> Option<u64> {
        let (id, total) = if self.other(addr).is_some() {
            (None, self.part(addr))
        } else {
            let facts = self.peers.remove(&addr)?;
            if let Some(identity) = facts.identity() {
                self.identities.remove(identity, addr);
            }
            self.bitfield_bytes -= facts.held.heap_bytes();
            self.availability.replace(&facts.held, &Holdings::Unknown);
            (Some(facts.id), facts.assigned)
        };
        if total > 0 {
            self.remember(addr, Load { total, recent });
            self.dirty = true;
        }
        id
    }
}

/// Announces of a peer over two address families within this time count as one announce. A client may first try a
/// family that does not work.
const TOGETHER: Duration = Duration::from_secs(15);
