//! What announces change in a ledger: who comes, who is the same peer, and who leaves.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{AnnounceKey, Moment};

use super::addresses::Said;
use super::facts::Facts;
use super::identities::Kin;
use super::table::{Assigned, Ledger};
use crate::held::{Held, HoldingsSource};
use crate::kept::KeptPeer;

impl Ledger {
    /// Takes in a peer that announced before the torrent was catalogued, `id` being its number and
    /// `given` how often it was handed out.
    pub(crate) fn adopt(&mut self, now: Moment, id: u64, addr: SocketAddr, all: bool, given: u16) {
        let mut facts = Facts::new(now, id);
        (facts.assigned, facts.complete) = (u64::from(given), all);
        self.peers.insert(addr, facts);
        if all {
            self.put(now, addr, Held::Everything, Some(HoldingsSource::Announced));
        }
    }

    /// The key of the peer at `addr`, if it has one and has shown it within `alive`. Whoever shows another one
    /// is somebody else.
    pub(crate) fn key_of(
        &self,
        now: Moment,
        addr: SocketAddr,
        alive: Duration,
    ) -> Option<AnnounceKey> {
        let facts = self.get(addr)?;
        facts.key.filter(|_| now.since(facts.keyed) <= alive)
    }

    /// The peer at `addr` has shown its key, or one that takes the place of an old one.
    pub(crate) fn showed_key(&mut self, now: Moment, addr: SocketAddr, key: AnnounceKey) {
        let first = self.first(addr);
        let Some(facts) = self.peers.get_mut(&first) else { return };
        let before = facts.identity();
        facts.showed_key(now, key);
        self.renamed(first, before);
    }

    /// The peer itself announced; gives what it was handed out lately if it was here before. `id` is taken
    /// for one that is new, `given` is how often it was handed out while the table did not know it.
    pub(crate) fn announced(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: Said,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let recent = self.settle(now, addr, &said, id, given);
        let first = self.first(addr);
        let facts = self.peers.get_mut(&first)?;
        let identity = facts.identity();
        let is_other = facts.peer_id.is_some_and(|known| known != said.peer_id);
        let changed = is_other || facts.left != said.left;
        // One announce over two families is one, not a second start.
        let again =
            facts.also.is_some() && (said.joins.is_some() || now.since(facts.announced) < TOGETHER);
        // What is read from a connection to this very peer holds, however often it says that it
        // has started: some do so to each address of ours. libtorrent bears another ID on each
        // connection than it announces; it is the same as long as it announces the same.
        let observed = facts.observed.is_some_and(|(_, id)| id == said.peer_id || !is_other);
        let anew = (said.restarted && !again || is_other) && !observed;
        let got = facts.left.zip(said.left).is_some_and(|(before, now)| now < before);
        let shown = facts.source == Some(HoldingsSource::Observed);
        facts.stale = got
            && !again
            && shown
            && facts.held != Held::Everything
            && facts.held_at <= facts.announced;
        facts.peer_id = Some(said.peer_id);
        facts.left = said.left;
        (facts.announced, facts.heard) = (now, facts.heard.max(now));
        let source = facts.source.filter(|_| !anew);
        let has_everything = facts.held == Held::Everything;
        if let Some(key) = said.key {
            facts.showed_key(now, key);
        }
        self.renamed(first, identity);
        self.set_complete(first, said.left == Some(0));
        let becomes = match (said.left, source) {
            // The last HAVEs may still be on the way; and a super-seeder shows to whom it is
            // connected what it wants to be asked for.
            (Some(0), Some(HoldingsSource::Observed)) if observed => None,
            (Some(0), _) if has_everything && !anew => {
                // It says so once more.
                if let Some(facts) = self.peers.get_mut(&first) {
                    facts.held_at = facts.held_at.max(now);
                }
                None
            }
            (Some(0), _) => Some((Held::Everything, Some(HoldingsSource::Announced))),
            (_, Some(HoldingsSource::Announced)) => Some((Held::Unknown, None)),
            // It lost some since it was seen.
            (_, Some(HoldingsSource::Observed)) if !observed && has_everything => {
                Some((Held::Unknown, None))
            }
            _ if anew => Some((Held::Unknown, None)),
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

    /// Sees to it that the table has the peer that announces at `addr`. Returns what it was handed out lately
    /// if the address is new.
    fn settle(
        &mut self,
        now: Moment,
        addr: SocketAddr,
        said: &Said,
        id: &mut u64,
        given: u16,
    ) -> Option<u16> {
        let mut given = u64::from(given);
        if self.other(addr).is_some() && !self.is_of(addr, said) {
            // Somebody else is at this address now.
            let total = self.part(addr);
            self.remember(addr, Assigned { total, recent: 0 });
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
        let mut facts = Facts::new(now, *id);
        facts.assigned = past.total + given;
        self.peers.insert(addr, facts);
        Some(past.recent)
    }

    /// Takes in a peer that was there before a restart, `seen` last. Returns how often it was handed
    /// out lately.
    pub(crate) fn restored(
        &mut self,
        id: u64,
        addr: SocketAddr,
        kept: &KeptPeer,
        seen: Moment,
    ) -> u16 {
        let past = self.past.remove(&addr).unwrap_or_default();
        if let Some((peer_id, key)) = kept.peer_id.zip(kept.key)
            && let Kin::Peer(of, _) = self.kin(addr, peer_id, key)
        {
            self.attach(of, addr, past.total);
            self.set_complete(of, kept.complete);
            return past.recent;
        }
        let mut facts = Facts::new(seen, id);
        (facts.peer_id, facts.key, facts.left) = (kept.peer_id, kept.key, kept.left);
        (facts.assigned, facts.complete) = (past.total, kept.complete);
        self.peers.insert(addr, facts);
        self.renamed(addr, None);
        past.recent
    }

    /// Nobody is at `addr` any more; gives the number of the peer that was there if it has no other address.
    pub(crate) fn left(&mut self, addr: SocketAddr, recent: u16) -> Option<u64> {
        let (id, total) = if self.other(addr).is_some() {
            (None, self.part(addr))
        } else {
            let facts = self.peers.remove(&addr)?;
            if let Some(identity) = facts.identity() {
                self.identities.remove(identity, addr);
            }
            self.bitfield_bytes -= facts.held.heap_bytes();
            self.availability.replace(&facts.held, &Held::Unknown);
            (Some(facts.id), facts.assigned)
        };
        if total > 0 {
            self.remember(addr, Assigned { total, recent });
            self.dirty = true;
        }
        id
    }
}

/// Within this time announces over two families are one announce: a family that does not work may be
/// tried for a while first.
const TOGETHER: Duration = Duration::from_secs(15);
