//! The swarms of a tracker: registries, each with its own lock, and their clock.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use piecework_core::{InfoHash, Moment, PieceIndex, Rng};
use piecework_proto::announce::{Announce, ScrapeEntry};
use piecework_registry::{
    AnnounceAnswer, KeptPeer, KeptRoom, KeptScope, LoadEntry, PeerQuery, PeerView, Refusal,
    Registry, RegistryStats, Reporter, SwarmCounts, SwarmView, TorrentView,
};

use super::catalogue_torrent::CatalogueTorrent;
use super::config::TrackerConfig;
use piecework_clock::Clock;

/// All swarms. Each torrent is in one of the registries.
pub(super) struct Swarms {
    clock: Clock,
    started: SystemTime,
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    registry: Registry,
    rng: Rng,
}

impl Swarms {
    pub(super) fn new(config: &TrackerConfig, clock: Clock, seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let config = config.registry(SHARDS);
        let shards = (0..SHARDS)
            .map(|_| {
                let registry = Registry::new(config.clone(), rng.next_u64());
                Mutex::new(Shard { registry, rng: rng.fork() })
            })
            .collect();
        Self { started: SystemTime::now(), clock, shards }
    }

    /// Handles an announce of the peer at `ip` and fills `answer`. Returns the approximate number of peers in all.
    pub(super) fn announce(
        &self,
        now: Moment,
        ip: IpAddr,
        announce: &Announce,
        want: PeerQuery,
        answer: &mut AnnounceAnswer,
    ) -> (Result<(), Refusal>, usize) {
        let mut shard = self.shard(announce.info_hash).lock();
        let Shard { registry, rng } = &mut *shard;
        let outcome = registry.announce_into(now, rng, ip, announce, want, answer);
        // Torrents are distributed evenly over the shards.
        (outcome, registry.peer_count().saturating_mul(SHARDS))
    }

    /// Returns the number of peers of all torrents.
    pub(super) fn peer_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().registry.peer_count()).sum()
    }

    /// Returns the torrent's counts, if it is known.
    pub(super) fn scrape(&self, info_hash: InfoHash) -> Option<ScrapeEntry> {
        self.shard(info_hash).lock().registry.scrape(info_hash)
    }

    /// Records which pieces a peer reports to hold.
    pub(super) fn report(
        &self,
        info_hash: InfoHash,
        reporter: Reporter,
        bitfield: &[u8],
    ) -> Result<(), Refusal> {
        let mut shard = self.shard(info_hash).lock();
        let now = self.clock.now();
        shard.registry.report(now, info_hash, reporter, bitfield)
    }

    /// Records that a torrent is catalogued from now on.
    pub(super) fn catalogue(&self, entry: &CatalogueTorrent, downloads: u32) {
        let now = self.clock.now();
        let mut shard = self.shard(entry.info_hash).lock();
        shard.registry.catalogue(now, entry.info_hash, entry.pieces, downloads);
        // Read with the lock held, so that a change that comes meanwhile is applied afterwards.
        shard.registry.set_observe(entry.info_hash, entry.is_observed());
    }

    /// Records that a torrent is no longer catalogued.
    pub(super) fn uncatalogue(&self, info_hash: InfoHash) {
        self.shard(info_hash).lock().registry.uncatalogue(info_hash);
    }

    /// Removes a torrent that is not in the catalogue, with its peers. Returns whether there was one.
    pub(super) fn forget(&self, info_hash: InfoHash) -> bool {
        self.shard(info_hash).lock().registry.forget(info_hash)
    }

    /// Restores the load of peers from before a restart.
    pub(super) fn restore_load(&self, load: &[LoadEntry]) {
        for entry in load {
            self.shard(entry.info_hash).lock().registry.restore_load(entry);
        }
    }

    /// Restores a peer from before a restart. Returns whether it is listed now.
    pub(super) fn restore_peer(&self, peer: &KeptPeer) -> bool {
        let now = self.clock.now();
        let mut shard = self.shard(peer.info_hash).lock();
        let Shard { registry, rng } = &mut *shard;
        registry.restore_peer(now, rng, peer)
    }

    /// Returns the sum of the registries' revisions.
    pub(super) fn revision(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().registry.revision()).sum()
    }

    /// Calls `each` with the peers to save for a restart, as far as there is room. The peers of catalogued torrents
    /// come first.
    pub(super) fn each_kept(&self, mut room: KeptRoom, mut each: impl FnMut(&KeptPeer)) {
        let mut some = Vec::new();
        for of in [KeptScope::Catalogue, KeptScope::Others] {
            for shard in &self.shards {
                let mut next = Some(0);
                // A few peers at a time, so that nobody waits long for a lock.
                while let Some(from) = next {
                    let now = self.clock.now();
                    next = shard.lock().registry.kept_peers(now, from, of, &mut room, &mut some);
                    some.drain(..).for_each(|peer| each(&peer));
                }
            }
        }
    }

    /// Returns what has to be saved for a restart and has changed since the last call. Each entry has a torrent's
    /// info-hash, its downloads, and the load of all its peers.
    pub(super) fn take_changed(&self) -> Vec<(InfoHash, u32, Vec<LoadEntry>)> {
        self.shards.iter().flat_map(|shard| shard.lock().registry.take_changed()).collect()
    }

    /// Returns a torrent's peers. Takes time in proportion to their number.
    pub(super) fn peers(&self, info_hash: InfoHash) -> Vec<PeerView> {
        let now = self.clock.now();
        self.shard(info_hash).lock().registry.peers(now, info_hash)
    }

    /// Returns all torrents that have peers or are catalogued, ordered by info-hash.
    pub(super) fn torrents(&self) -> Vec<TorrentView> {
        let of = |shard: &Mutex<Shard>| shard.lock().registry.torrents();
        let mut all: Vec<_> = self.shards.iter().flat_map(of).collect();
        all.sort_unstable_by_key(|torrent| torrent.info_hash);
        all
    }

    /// Returns the torrent's counts, zeros if it is not known.
    pub(super) fn counts(&self, info_hash: InfoHash) -> ScrapeEntry {
        self.shard(info_hash).lock().registry.scrape(info_hash).unwrap_or_default()
    }

    /// Returns how often peers of catalogued torrents were handed out.
    pub(super) fn load(&self) -> Vec<LoadEntry> {
        let of = |shard: &Mutex<Shard>| shard.lock().registry.load();
        self.shards.iter().flat_map(of).collect()
    }

    /// Returns the sums of all registries' counts.
    pub(super) fn stats(&self) -> RegistryStats {
        self.shards.iter().map(|shard| shard.lock().registry.stats()).fold(
            RegistryStats::default(),
            |sum, stats| RegistryStats {
                torrents: sum.torrents + stats.torrents,
                peers: sum.peers + stats.peers,
                expired: sum.expired + stats.expired,
                unreachable: sum.unreachable + stats.unreachable,
                peer_bytes: sum.peer_bytes + stats.peer_bytes,
            },
        )
    }

    /// Returns a copy of a catalogued torrent's swarm, with the bitfields of its peers.
    pub(super) fn swarm(&self, info_hash: InfoHash) -> Option<SwarmView> {
        let now = self.clock.now();
        self.with(info_hash, |registry| registry.swarm(now, info_hash))
    }

    /// Returns a catalogued torrent's counts.
    pub(super) fn swarm_counts(&self, info_hash: InfoHash) -> Option<SwarmCounts> {
        self.with(info_hash, |registry| registry.swarm_counts(info_hash))
    }

    /// Returns the next peers of a torrent, ordered by number.
    pub(super) fn peers_after(
        &self,
        info_hash: InfoHash,
        after: Option<u64>,
        most: usize,
    ) -> Vec<(u64, SocketAddr)> {
        self.with(info_hash, |registry| registry.peers_after(info_hash, after, most))
    }

    /// Returns the views of the first of `peers`, until they take `bytes` bytes, and how many of `peers` were
    /// examined.
    pub(super) fn peer_views(
        &self,
        info_hash: InfoHash,
        peers: &[(u64, SocketAddr)],
        bytes: usize,
    ) -> (Vec<PeerView>, usize) {
        let now = self.clock.now();
        self.with(info_hash, |registry| registry.peer_views(now, info_hash, peers, bytes))
    }

    /// Returns the peers that are known to hold a piece.
    pub(super) fn holders(&self, info_hash: InfoHash, piece: PieceIndex) -> Vec<PeerView> {
        let now = self.clock.now();
        self.with(info_hash, |registry| registry.holder_views(now, info_hash, piece))
    }

    /// Returns the time of day of a moment.
    pub(super) fn time_of(&self, moment: Moment) -> SystemTime {
        let millis = u64::try_from(self.clock.unix_ms(moment)).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// Examines some peers of every shard and removes those that have expired.
    pub(super) fn expire(&self) {
        let now = self.clock.now();
        for shard in &self.shards {
            shard.lock().registry.expire(now, EXPIRE_BUDGET);
        }
    }

    /// Returns when the tracker was started.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// Returns the registries' clock.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Calls `ask` with the registry of a torrent, while its lock is held.
    pub(super) fn with<T>(&self, info_hash: InfoHash, ask: impl FnOnce(&mut Registry) -> T) -> T {
        ask(&mut self.shard(info_hash).lock().registry)
    }

    /// Calls `ask` with all registries, one after the other.
    pub(super) fn each(&self, mut ask: impl FnMut(&mut Registry)) {
        for shard in &self.shards {
            ask(&mut shard.lock().registry);
        }
    }

    /// Returns a peer's number for use outside of its registry. The registry's number is not unique among all
    /// registries.
    pub(super) fn number(&self, info_hash: InfoHash, id: u64) -> u64 {
        id * SHARDS as u64 + (usize::from(info_hash.0[0]) % SHARDS) as u64
    }

    fn shard(&self, info_hash: InfoHash) -> &Mutex<Shard> {
        &self.shards[usize::from(info_hash.0[0]) % SHARDS]
    }
}

/// The number of registries, each with its own lock: more than most machines have cores.
const SHARDS: usize = 16;

/// The number of peers examined in one go while a shard's lock is held: some 20 µs.
const EXPIRE_BUDGET: usize = 1_000;
