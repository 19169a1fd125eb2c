//! Queries that do not change a registry.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;

use piecework_core::{InfoHash, Moment, PieceIndex};
use piecework_proto::announce::ScrapeEntry;

use super::holdings::Holdings;
use super::ledger::{Ledger, PeerFacts};
use super::peers::tick_of;
use super::registry::Registry;
use super::torrent::Torrent;
use super::view::{
    FoundPeer, LoadEntry, PeerView, RegistryStats, SwarmCounts, TorrentView, add_peers, facts_view,
    loads, view,
};

impl Registry {
    /// Returns all torrents, ordered by info-hash. Takes time in proportion to their number.
    pub fn torrents(&self) -> Vec<TorrentView> {
        let mut all: Vec<_> = self.torrents.iter().map(|(_, torrent)| view(torrent)).collect();
        all.sort_unstable_by_key(|torrent| torrent.info_hash);
        all
    }

    /// Returns a torrent's peers, complete ones first, ordered by address. Takes time in proportion to their
    /// number.
    pub fn peers(&self, now: Moment, info_hash: InfoHash) -> Vec<PeerView> {
        let Some(slot) = self.find(info_hash) else { return Vec::new() };
        let torrent = &self.torrents[slot];
        let alive_since = self.alive_since(tick_of(now));
        let mut all = Vec::new();
        add_peers(&torrent.v4, torrent, now, alive_since, &self.hasher, &mut all);
        add_peers(&torrent.v6, torrent, now, alive_since, &self.hasher, &mut all);
        all.sort_unstable_by_key(|peer| (!peer.complete, peer.addr));
        all
    }

    /// Returns a catalogued torrent's counts. Takes time in proportion to its peers.
    pub fn swarm_counts(&self, info_hash: InfoHash) -> Option<SwarmCounts> {
        let (torrent, ledger) = self.catalogued(info_hash)?;
        let (complete, incomplete) = torrent.counts();
        let observed = ledger.iter().filter(|(_, facts)| facts.observed.is_some()).count();
        Some(SwarmCounts {
            complete,
            incomplete,
            downloads: torrent.downloads,
            copies: ledger.copies(),
            observe: ledger.observe,
            observed: u32::saturating_from(observed),
        })
    }

    /// Returns the numbers and addresses of the first `most` peers of a catalogued torrent with a number above
    /// `after`, ordered by number. Takes time in proportion to its peers.
    pub fn peers_after(
        &self,
        info_hash: InfoHash,
        after: Option<u64>,
        most: usize,
    ) -> Vec<(u64, SocketAddr)> {
        let Some((_, ledger)) = self.catalogued(info_hash) else { return Vec::new() };
        let numbers = ledger.iter().map(|(addr, facts)| (facts.id, addr));
        let mut found: Vec<_> =
            numbers.filter(|(id, _)| after.is_none_or(|after| *id > after)).collect();
        if found.len() > most && most > 0 {
            found.select_nth_unstable(most - 1);
        }
        found.truncate(most);
        found.sort_unstable();
        found
    }

    /// Returns the views of the first of `peers`, at least one, until they take `bytes` bytes, and how many of
    /// `peers` were examined. Peers that have left are skipped.
    pub fn peer_views(
        &self,
        now: Moment,
        info_hash: InfoHash,
        peers: &[(u64, SocketAddr)],
        bytes: usize,
    ) -> (Vec<PeerView>, usize) {
        let Some((torrent, _)) = self.catalogued(info_hash) else {
            return (Vec::new(), peers.len());
        };
        let (mut views, mut used) = (Vec::new(), 0);
        for (at, (id, addr)) in peers.iter().enumerate() {
            if used > 0 && used >= bytes {
                return (views, at);
            }
            let view = facts_view(torrent, *addr, &self.hasher, now);
            if let Some(view) = view.filter(|view| view.id == Some(*id)) {
                used += PEER_VIEW_LEN + view.held.heap_bytes();
                views.push(view);
            }
        }
        (views, peers.len())
    }

    /// Returns the first `most` peers of a catalogued torrent whose address and client name satisfy `fits`, in the
    /// order of their arrival. Adds the number of examined peers, which are all, to `looked`.
    pub fn find_peers(
        &self,
        info_hash: InfoHash,
        most: usize,
        looked: &mut usize,
        fits: impl Fn(SocketAddr, &str) -> bool,
    ) -> Vec<FoundPeer> {
        let Some((_, ledger)) = self.catalogued(info_hash) else { return Vec::new() };
        *looked += ledger.len();
        let client =
            |facts: &PeerFacts| facts.peer_id.map(|id| id.client_name()).unwrap_or_default();
        let fitting = ledger.iter().filter(|(addr, facts)| {
            let client = client(facts);
            fits(*addr, &client) || facts.also.is_some_and(|addr| fits(addr, &client))
        });
        let mut found: Vec<_> = fitting.collect();
        found.sort_unstable_by_key(|(_, facts)| facts.id);
        found.truncate(most);
        let found = found.into_iter().map(|(addr, facts)| FoundPeer {
            addr,
            also: facts.also,
            peer_id: facts.peer_id,
            held: facts.held.count(ledger.pieces),
        });
        found.collect()
    }

    /// Returns the addresses of a catalogued torrent's peers that are known to hold `piece`, in order.
    pub fn holders(&self, info_hash: InfoHash, piece: PieceIndex) -> Vec<SocketAddr> {
        let Some((torrent, ledger)) = self.catalogued(info_hash) else { return Vec::new() };
        let exists = piece.0 < ledger.pieces;
        let holds = holdings(torrent, ledger).filter(|(_, held)| exists && held.contains(piece));
        let mut holders: Vec<_> = holds.map(|(addr, _)| addr).collect();
        holders.sort_unstable();
        holders
    }

    /// Returns the views of a catalogued torrent's peers that are known to hold `piece`, in the order of their
    /// arrival.
    pub fn holder_views(
        &self,
        now: Moment,
        info_hash: InfoHash,
        piece: PieceIndex,
    ) -> Vec<PeerView> {
        let Some((torrent, ledger)) = self.catalogued(info_hash) else { return Vec::new() };
        let exists = piece.0 < ledger.pieces;
        let holds = ledger.iter().filter(|(_, facts)| exists && facts.held.contains(piece));
        let views = holds.filter_map(|(addr, _)| facts_view(torrent, addr, &self.hasher, now));
        let mut holders: Vec<_> = views.collect();
        holders.sort_unstable_by_key(|peer| peer.id);
        holders
    }

    /// Returns how many peers are known to hold each piece of a catalogued torrent.
    pub fn availability(&self, info_hash: InfoHash) -> Vec<u32> {
        let Some((torrent, ledger)) = self.catalogued(info_hash) else { return Vec::new() };
        let mut everywhere = 0;
        let mut counts = vec![0; ledger.pieces as usize];
        for (_, held) in holdings(torrent, ledger) {
            match held {
                Holdings::Everything => everywhere += 1,
                Holdings::Pieces(held) => {
                    held.iter().for_each(|piece| counts[piece.0 as usize] += 1)
                }
                Holdings::Unknown => {}
            }
        }
        counts.iter_mut().for_each(|count| *count += everywhere);
        counts
    }

    /// Returns the load of all peers of catalogued torrents that were handed out at least once, listed or not.
    pub fn load(&self) -> Vec<LoadEntry> {
        let mut all: Vec<_> =
            self.torrents.iter().flat_map(|(_, torrent)| loads(torrent)).collect();
        all.sort_unstable_by_key(|entry| (entry.info_hash, entry.peer));
        all
    }

    /// Returns a torrent's counts (BEP 48); `None` if it is not known.
    pub fn scrape(&self, info_hash: InfoHash) -> Option<ScrapeEntry> {
        let torrent = &self.torrents[self.find(info_hash)?];
        let (complete, incomplete) = torrent.counts();
        Some(ScrapeEntry { complete, downloaded: torrent.downloads, incomplete })
    }

    /// Returns the counts of the whole registry.
    pub fn stats(&self) -> RegistryStats {
        let bytes = |torrent: &Torrent| torrent.v4.heap_bytes() + torrent.v6.heap_bytes();
        RegistryStats {
            torrents: self.torrents.len(),
            peers: self.peers,
            expired: self.expired,
            unreachable: self.unreachable,
            peer_bytes: self.torrents.iter().map(|(_, torrent)| bytes(torrent)).sum::<usize>()
                + self.ids.heap_bytes(),
        }
    }

    /// Returns the number of peers of all torrents.
    pub fn peer_count(&self) -> usize {
        self.peers
    }
}

/// Returns the holdings of each peer, by its first address. A peer that is not in the ledger, because it announced
/// before the torrent was catalogued, is known only to be complete or not.
fn holdings<'a>(
    torrent: &'a Torrent,
    ledger: &'a Ledger,
) -> impl Iterator<Item = (SocketAddr, &'a Holdings)> {
    let v4 = torrent.v4.iter().map(|(peer, complete)| (peer.addr(), complete));
    let v6 = torrent.v6.iter().map(|(peer, complete)| (peer.addr(), complete));
    let first = v4.chain(v6).filter(|(addr, _)| !ledger.is_second(*addr));
    first.map(|(addr, complete)| {
        let held = match ledger.get(addr) {
            Some(facts) => &facts.held,
            None if complete => &Holdings::Everything,
            None => &Holdings::Unknown,
        };
        (addr, held)
    })
}

/// The size of a peer's view without its bitfield, in bytes.
const PEER_VIEW_LEN: usize = 256;
