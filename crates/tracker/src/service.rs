//! What a tracker does, whatever a request came over: announces, reports and views here, the
//! catalogue, the request log and what is kept in the modules below.

mod persistence;
mod registration;
mod requests;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::addresses::{local_ip_towards, may_name};
use super::catalogue::{AddError, Catalogue, Entry, ObserveError, TorrentFileError};
use super::feeds::Feeds;
use super::operator::OperatorToken;
use super::store::{Store, StoreError};
use super::unlisted::RemovedUnlisted;
use super::{Clock, TrackerConfig};
use piecework_core::metainfo::MetainfoError;
use piecework_core::{InfoHash, Moment, PeerId, Rng, is_of_one_machine};
use piecework_http::{Connections, Limits};
use piecework_journal::{HandedList, RequestEvent, RequestLog, Via};
use piecework_proto::announce::catalogue::{BatchedHoldings, CatalogueEntry, HoldingsReport};
use piecework_proto::announce::{Announce, AnnounceEvent, AnnounceReply, ScrapeEntry};
use piecework_registry::{
    Answer, LoadEntry, ObserverFigures, PeerView, Refusal, Registry, RegistryStats, Reporter,
    TorrentView, Want,
};

use requests::Note;

/// A tracker without its sockets.
pub(super) struct Service {
    pub config: TrackerConfig,
    pub clock: Clock,
    /// What removes any torrent.
    pub operator: Option<OperatorToken>,
    pub log: RequestLog,
    pub catalogue: Catalogue,
    pub counters: Counters,
    pub connections: Arc<Connections>,
    pub feeds: Feeds,
    /// Torrents for the observer to leave.
    pub no_longer_observed: Mutex<BTreeSet<InfoHash>>,
    /// How the observer, if there is one, did when it last looked.
    pub observing: Mutex<ObserverFigures>,
    pub started: SystemTime,
    /// The same by `clock`.
    pub began: Moment,
    shards: Box<[Mutex<Shard>]>,
    store: Mutex<Option<Arc<Store>>>,
    /// The file that keeps the peers over a restart, if there is one.
    peers_path: Option<PathBuf>,
    /// The sum of the registries' revisions that is in that file. Locked while it is written.
    peers_saved: Mutex<Option<u64>>,
    /// Why it could not be written the last time.
    peers_trouble: Mutex<Option<String>>,
    removed_unlisted: RwLock<RemovedUnlisted>,
}

/// How often something happened.
#[derive(Default)]
pub(super) struct Counters {
    pub announces_http: AtomicU64,
    pub announces_udp: AtomicU64,
    pub scrapes: AtomicU64,
    pub refused: AtomicU64,
    /// Datagrams that were no request, or showed no valid connection id.
    pub udp_rejected: AtomicU64,
}

struct Shard {
    registry: Registry,
    rng: Rng,
}

/// How an announce came.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// The address that the request came from.
    pub ip: IpAddr,
    /// The address of ours it reached, if that is known.
    pub reached: Option<IpAddr>,
    pub via: Via,
}

/// Why something about the catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum CatalogueRefusal {
    #[error("that is no torrent: {0}")]
    BadTorrent(#[source] MetainfoError),
    #[error("no torrent `{0}` is in the catalogue of this tracker")]
    Unknown(InfoHash),
    #[error("the token is not the one that registering this torrent gave")]
    WrongToken,
    #[error(transparent)]
    Full(AddError),
    #[error(transparent)]
    NotKept(AddError),
    #[error(transparent)]
    NotChanged(#[from] ObserveError),
    #[error(transparent)]
    NotRemoved(StoreError),
    #[error(transparent)]
    NotRead(#[from] TorrentFileError),
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
    #[error("the bitfield is not base64")]
    BadReport,
    #[error(transparent)]
    Holdings(Refusal),
}

impl Service {
    pub(super) fn new(
        config: TrackerConfig,
        clock: Clock,
        catalogue: Catalogue,
        store: Option<Store>,
        log: RequestLog,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        // Removed before the restart, or their files were taken out of the folder.
        let mut removed = RemovedUnlisted::default();
        for record in log.last(usize::MAX).iter().filter(|record| record.unlisted) {
            let gone = record.info_hash.filter(|hash| catalogue.get(*hash).is_none());
            gone.into_iter().for_each(|hash| removed.remember(hash));
        }
        let registry_config = config.registry(SHARDS);
        let config_peers = config.peers_file();
        let shards = (0..SHARDS)
            .map(|_| {
                let registry = Registry::new(registry_config.clone(), rng.next_u64());
                Mutex::new(Shard { registry, rng: rng.fork() })
            })
            .collect();
        Self {
            log,
            connections: Connections::new(Limits {
                max_connections: config.max_connections,
                max_connections_per_ip: config.max_connections_per_ip,
                header_timeout: config.header_timeout,
                request_timeout: config.request_timeout,
            }),
            config,
            began: clock.now(),
            feeds: Feeds::new(),
            no_longer_observed: Mutex::default(),
            observing: Mutex::default(),
            clock,
            operator: None,
            catalogue,
            counters: Counters::default(),
            started: SystemTime::now(),
            shards,
            peers_path: config_peers,
            peers_saved: Mutex::default(),
            peers_trouble: Mutex::default(),
            store: Mutex::new(store.map(Arc::new)),
            removed_unlisted: RwLock::new(removed),
        }
    }

    pub(super) fn announce(
        &self,
        asker: Asker,
        announce: &Announce,
        limit: Want,
    ) -> Result<AnnounceReply, Refusal> {
        let counter = match asker.via {
            Via::Http => &self.counters.announces_http,
            Via::Udp => &self.counters.announces_udp,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let told = announce.ip.filter(|ip| {
            self.config.trust_ip_parameter && is_of_one_machine(*ip) && may_name(asker.ip, *ip)
        });
        let ip = told.unwrap_or(asker.ip).to_canonical();
        let wanted = announce.num_want.map_or(self.config.num_want, |want| want as usize);
        let count = wanted.min(self.config.max_num_want).min(limit.count);
        let now = self.clock.now();
        let (answer, peers) = {
            let mut shard = self.shard(announce.info_hash).lock();
            let Shard { registry, rng } = &mut *shard;
            let answer = registry.announce(now, rng, ip, announce, Want { count, ..limit });
            // Torrents are spread evenly over the shards.
            (answer, registry.peer_count().saturating_mul(SHARDS))
        };
        let answer = answer.map(|mut answer| {
            let asking = SocketAddr::new(ip, announce.port);
            self.reach_loopback(asking, asker.reached, &mut answer);
            answer
        });
        let peer = SocketAddr::new(ip, announce.port);
        let handed = answer.as_ref().map_or(HandedList::default(), |a| HandedList::new(&a.peers));
        self.note(Note {
            peer,
            peer_id: Some(announce.peer_id),
            event: match announce.event {
                AnnounceEvent::None => RequestEvent::Announce,
                AnnounceEvent::Started => RequestEvent::Started,
                AnnounceEvent::Stopped => RequestEvent::Stopped,
                AnnounceEvent::Completed => RequestEvent::Completed,
            },
            info_hash: Some(announce.info_hash),
            handed,
            outcome: answer.as_ref().map(|_| ()).map_err(ToString::to_string),
            seeks: announce.event == AnnounceEvent::Started && announce.left != 0 && count > 0,
            via: asker.via,
        });
        let answer = answer?;
        let interval = match asker.via {
            Via::Udp if announce.left == 0 && answer.incomplete == 0 => {
                self.config.lone_seed_interval(peers)
            }
            Via::Udp | Via::Http => self.config.interval,
        };
        Ok(AnnounceReply {
            min_interval: Some(self.config.min_interval),
            complete: answer.complete,
            incomplete: answer.incomplete,
            peers: answer.peers.iter().map(|peer| peer.addr).collect(),
            peer_ids: answer.ids,
            external_ip: Some(asker.ip.to_canonical()),
            ..AnnounceReply::new(interval)
        })
    }

    /// Counts of torrents, `None` for one that is not known here.
    pub(super) fn scrape(&self, hashes: &[InfoHash]) -> Vec<(InfoHash, Option<ScrapeEntry>)> {
        self.counters.scrapes.fetch_add(1, Ordering::Relaxed);
        let counts = |hash: InfoHash| self.shard(hash).lock().registry.scrape(hash);
        hashes.iter().map(|hash| (*hash, counts(*hash))).collect()
    }

    pub(super) fn report_holdings(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        report: &HoldingsReport,
        bitfield: &[u8],
    ) -> Result<(), CatalogueRefusal> {
        self.take_report(from, info_hash, report, |_| Some(bitfield))
    }

    /// Takes one report of a batch, of a peer of this id and port.
    pub(super) fn report_batched(
        &self,
        from: SocketAddr,
        (peer_id, port): (PeerId, u16),
        batched: &BatchedHoldings,
    ) -> Result<(), CatalogueRefusal> {
        let report = HoldingsReport { peer_id, port, key: batched.key() };
        self.take_report(from, batched.info_hash, &report, |pieces| batched.bitfield(pieces))
    }

    fn take_report<T: AsRef<[u8]>>(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        report: &HoldingsReport,
        bitfield: impl FnOnce(u32) -> Option<T>,
    ) -> Result<(), CatalogueRefusal> {
        let reporter = Reporter { ip: from.ip(), port: report.port, key: Some(report.key) };
        let outcome = match self.catalogue.get(info_hash).map(|entry| bitfield(entry.pieces)) {
            None => Err(CatalogueRefusal::Unknown(info_hash)),
            Some(None) => Err(CatalogueRefusal::BadReport),
            Some(Some(bitfield)) => {
                let mut shard = self.shard(info_hash).lock();
                let now = self.clock.now();
                let reported = shard.registry.report(now, info_hash, reporter, bitfield.as_ref());
                reported.map_err(CatalogueRefusal::Holdings)
            }
        };
        if let Err(error) = &outcome {
            // Those that succeed come every few seconds, and say nothing that the holdings do not.
            let mut note = Note::http(
                SocketAddr::new(from.ip().to_canonical(), report.port),
                RequestEvent::Holdings,
                Some(info_hash),
                Err(error.to_string()),
            );
            note.peer_id = Some(report.peer_id);
            self.note(note);
        }
        outcome
    }

    /// An entry as lists have it.
    pub(super) fn listed(&self, entry: &Entry) -> CatalogueEntry {
        let counts = self.shard(entry.info_hash).lock().registry.scrape(entry.info_hash);
        let counts = counts.unwrap_or_default();
        CatalogueEntry {
            info_hash: entry.info_hash,
            name: entry.name.to_string(),
            size: entry.size,
            pieces: entry.pieces,
            piece_length: entry.piece_length,
            files: entry.files,
            private: entry.private,
            description: entry.description.clone(),
            complete: counts.complete,
            incomplete: counts.incomplete,
            registered_at: entry.registered_at,
        }
    }

    /// A torrent's peers. Takes time for each of them.
    pub(super) fn peers(&self, info_hash: InfoHash) -> Vec<PeerView> {
        let now = self.clock.now();
        self.shard(info_hash).lock().registry.peers(now, info_hash)
    }

    /// All torrents with peers or in the catalogue, in order of their info-hash.
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

    pub(super) fn load(&self) -> Vec<LoadEntry> {
        let of = |shard: &Mutex<Shard>| shard.lock().registry.load();
        self.shards.iter().flat_map(of).collect()
    }

    pub(super) fn registry_stats(&self) -> RegistryStats {
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

    /// Looks at some peers of every shard and removes those that have fallen silent.
    pub(super) fn expire(&self) {
        let now = self.clock.now();
        for shard in &self.shards {
            shard.lock().registry.expire(now, EXPIRE_BUDGET);
        }
    }

    /// Peers at loopback addresses are of no use to who is elsewhere: for them the address is
    /// given at which they reach this machine.
    fn reach_loopback(&self, asking: SocketAddr, reached: Option<IpAddr>, answer: &mut Answer) {
        let Answer { peers, ids, .. } = answer;
        if asking.ip().is_loopback() || !peers.iter().any(|peer| peer.addr.ip().is_loopback()) {
            return;
        }
        let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
        let here = self
            .config
            .external_ip
            .or(reached.map(|ip| ip.to_canonical()).filter(usable))
            .or_else(|| local_ip_towards(asking.ip()).filter(usable));
        for peer in peers.iter_mut().filter(|peer| peer.addr.ip().is_loopback()) {
            if let Some(ip) = here.filter(|ip| ip.is_ipv4() == peer.addr.is_ipv4()) {
                peer.addr.set_ip(ip);
            }
        }
        // One that announces over loopback and over another of its addresses is given once.
        let mut seen = std::collections::HashSet::new();
        let mut is_kept =
            |addr: SocketAddr| !addr.ip().is_loopback() && addr != asking && seen.insert(addr);
        let kept: Vec<bool> = peers.iter().map(|peer| is_kept(peer.addr)).collect();
        let (mut of_peers, mut of_ids) = (kept.iter(), kept.iter());
        peers.retain(|_| of_peers.next() == Some(&true));
        ids.retain(|_| of_ids.next() == Some(&true));
    }

    /// Asks the registry that has a torrent, with its lock held.
    pub(super) fn with_registry<T>(
        &self,
        info_hash: InfoHash,
        ask: impl FnOnce(&mut Registry) -> T,
    ) -> T {
        ask(&mut self.shard(info_hash).lock().registry)
    }

    /// Asks all registries, one after the other.
    pub(super) fn each_registry(&self, mut ask: impl FnMut(&mut Registry)) {
        for shard in &self.shards {
            ask(&mut shard.lock().registry);
        }
    }

    /// A peer's number as it is told outside: that of its registry is not its own in all of them.
    pub(super) fn number(&self, info_hash: InfoHash, id: u64) -> u64 {
        id * SHARDS as u64 + (usize::from(info_hash.0[0]) % SHARDS) as u64
    }

    fn shard(&self, info_hash: InfoHash) -> &Mutex<Shard> {
        &self.shards[usize::from(info_hash.0[0]) % SHARDS]
    }
}

/// Bytes from the operating system that nobody can guess.
///
/// # Errors
/// If the system has none.
pub(super) fn os_random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The SHA-256 of a token: to compare two of them tells nothing about either.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Equality in a time that does not tell where they differ.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Registries, each behind a lock of its own: more than there are cores to serve them.
const SHARDS: usize = 16;

/// Peers looked at in one go while a shard's lock is held: some 20 µs.
const EXPIRE_BUDGET: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;
    use piecework_proto::announce::catalogue::RegisterOptions;

    fn from() -> SocketAddr {
        ([10, 0, 0, 1], 5000).into()
    }

    /// A tracker that observes, with one torrent and its token.
    fn service(config: TrackerConfig, unlisted: bool) -> (Service, InfoHash, String) {
        let config = TrackerConfig { observe: true, ..config };
        let (catalogue, log) = (Catalogue::in_memory(), RequestLog::new(10));
        let service = Service::new(config, Clock::manual(), catalogue, None, log, 1);
        let torrent = MetainfoBuilder::single_file("a", 5).build(vec![7; 20]).unwrap();
        let options = RegisterOptions { unlisted, ..RegisterOptions::default() };
        let (registered, _) =
            service.register(from(), torrent.bytes().unwrap().as_ref(), options).unwrap();
        (service, registered.info_hash, registered.token.unwrap())
    }

    #[test]
    fn a_removed_torrent_is_left_by_the_observer() {
        let (service, hash, token) = service(TrackerConfig::in_memory(), false);
        service.set_observe(hash, Some(&token), false).unwrap();
        service.set_observe(hash, Some(&token), false).unwrap();
        assert_eq!(service.no_longer_observed.lock().len(), 1, "repeats do not queue");
        service.no_longer_observed.lock().clear();
        assert!(service.remove(from(), hash, None).is_err());
        assert!(service.no_longer_observed.lock().is_empty());
        service.remove(from(), hash, Some(&token)).unwrap();
        assert!(service.no_longer_observed.lock().contains(&hash));
    }
}
