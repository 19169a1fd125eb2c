//! What a tracker does, whatever a request came over.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::addresses::{local_ip_towards, may_name};
use super::catalogue::{AddError, Added, Catalogue, Entry, NewEntry, parse_limits};
use super::feeds::Feeds;
use super::operator::OperatorToken;
use super::store::{Changes, Store, unix_now};
use super::unlisted::RemovedUnlisted;
use super::{Clock, TrackerConfig};
use crate::announce::catalogue::{CatalogueEntry, HoldingsReport, RegisterOptions, Registered};
use crate::announce::{Announce, AnnounceEvent, AnnounceReply, ScrapeEntry};
use crate::base::{InfoHash, Moment, PeerId, Rng, is_of_one_machine, network_of};
use crate::http_server::{Connections, Limits};
use crate::journal::{HandedList, RequestEvent, RequestLog, RequestRecord, Via};
use crate::metainfo::Metainfo;
use crate::registry::{
    Handed, LoadEntry, ObserverFigures, PeerView, Refusal, Registry, RegistryStats, Reporter,
    TorrentView, Want,
};

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
    /// Changes the store had no room for.
    unsaved: Mutex<Changes>,
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
    /// Where from.
    pub ip: IpAddr,
    /// The address of ours it reached, if that is known.
    pub reached: Option<IpAddr>,
    pub via: Via,
}

/// Why something about the catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum CatalogueRefusal {
    #[error("that is no torrent: {0}")]
    BadTorrent(String),
    #[error("no torrent `{0}` is in the catalogue of this tracker")]
    Unknown(InfoHash),
    #[error("the token is not the one that registering this torrent gave")]
    WrongToken,
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Failed(String),
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
            store: Mutex::new(store.map(Arc::new)),
            unsaved: Mutex::default(),
            removed_unlisted: RwLock::new(removed),
        }
    }

    /// Puts what was kept over a restart in place.
    pub(super) fn restore(&self, torrents: &[(Arc<Entry>, u32)], load: &[LoadEntry]) {
        let now = self.clock.now();
        for (entry, downloads) in torrents {
            let mut shard = self.shard(entry.info_hash).lock();
            shard.registry.catalogue(now, entry.info_hash, entry.pieces, *downloads);
            shard.registry.set_observe(entry.info_hash, entry.is_observed());
        }
        for entry in load {
            self.shard(entry.info_hash).lock().registry.restore_load(entry);
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
        let answer = {
            let mut shard = self.shard(announce.info_hash).lock();
            let Shard { registry, rng } = &mut *shard;
            registry.announce(now, rng, ip, announce, Want { count, ..limit })
        };
        let answer = answer.map(|mut answer| {
            let asking = SocketAddr::new(ip, announce.port);
            self.reach_loopback(asking, asker.reached, &mut answer.peers);
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
            via: asker.via,
        });
        let answer = answer?;
        Ok(AnnounceReply {
            min_interval: Some(self.config.min_interval),
            complete: answer.complete,
            incomplete: answer.incomplete,
            peers: answer.peers.iter().map(|peer| peer.addr).collect(),
            external_ip: Some(asker.ip.to_canonical()),
            ..AnnounceReply::new(self.config.interval)
        })
    }

    /// Counts of torrents, `None` for one that is not known here.
    pub(super) fn scrape(&self, hashes: &[InfoHash]) -> Vec<(InfoHash, Option<ScrapeEntry>)> {
        self.counters.scrapes.fetch_add(1, Ordering::Relaxed);
        let counts = |hash: InfoHash| self.shard(hash).lock().registry.scrape(hash);
        hashes.iter().map(|hash| (*hash, counts(*hash))).collect()
    }

    /// Puts a torrent into the catalogue; says whether it is new there. Blocks.
    pub(super) fn register(
        &self,
        from: SocketAddr,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<(Registered, bool), CatalogueRefusal> {
        let metainfo = Metainfo::parse(torrent, &parse_limits())
            .map_err(|error| CatalogueRefusal::BadTorrent(error.to_string()));
        let registered = metainfo.and_then(|metainfo| self.add(from, metainfo, options));
        let info_hash = registered.as_ref().ok().map(|(registered, _)| registered.info_hash);
        let outcome = registered.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.note_http(from, RequestEvent::Register, info_hash, outcome);
        registered
    }

    /// Somebody asked for a name that nothing in the catalogue has.
    pub(super) fn not_found(&self, from: SocketAddr, name: &str) {
        let end = name.floor_char_boundary(MAX_NAME_LOGGED);
        let outcome = Err("no file of that name is known to this tracker".to_owned());
        let note = Note::http(from, RequestEvent::Lookup, None, outcome);
        self.push(note, Some(name[..end].into()), false);
    }

    /// A torrent's `.torrent`. Blocks.
    pub(super) fn fetch(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
    ) -> Result<Bytes, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash));
        let bytes =
            entry.and_then(|entry| self.catalogue.bytes(&entry).map_err(CatalogueRefusal::Failed));
        let outcome = bytes.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.note_http(from, RequestEvent::Fetch, Some(info_hash), outcome);
        bytes
    }

    /// Takes a torrent out of the catalogue, for who has its token or the operator's; for the
    /// operator also one that is not in it. Blocks.
    pub(super) fn remove(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        token: Option<&str>,
    ) -> Result<(), CatalogueRefusal> {
        let found = match self.with_token(info_hash, token) {
            Ok(entry) => Ok(Some(entry)),
            Err(CatalogueRefusal::Unknown(_))
                if self.is_operator(token) && self.forget(info_hash) =>
            {
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        };
        let name =
            found.as_ref().ok().and_then(Option::as_ref).map(|entry| Arc::clone(&entry.name));
        // Refused, it is about what is there.
        let unlisted = match &found {
            Ok(Some(entry)) => entry.unlisted,
            Ok(None) | Err(_) => self.is_unlisted(info_hash),
        };
        let outcome = match found {
            Ok(Some(entry)) => self.take_out(&entry).map_err(CatalogueRefusal::Failed),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal),
        };
        let said = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let name = name.or_else(|| self.name_of(info_hash));
        self.push(Note::http(from, RequestEvent::Remove, Some(info_hash), said), name, unlisted);
        outcome
    }

    /// Takes a torrent out of the catalogue. Blocks.
    ///
    /// # Errors
    /// Why it stays there.
    pub(super) fn take_out(&self, entry: &Entry) -> Result<(), String> {
        let info_hash = entry.info_hash;
        let store = self.store();
        // Before it is out of the catalogue: there is no moment at which nobody knows.
        if entry.unlisted {
            self.removed_unlisted.write().remember(info_hash);
        }
        self.catalogue.remove(info_hash, || match &store {
            Some(store) => store.remove(info_hash).map_err(|error| error.to_string()),
            None => Ok(()),
        })?;
        self.shard(info_hash).lock().registry.uncatalogue(info_hash);
        self.leave(info_hash);
        if !entry.unlisted {
            self.feeds.removed(info_hash);
        }
        Ok(())
    }

    /// Forgets a torrent that is not in the catalogue, and its peers. Returns whether there was one.
    pub(super) fn forget(&self, info_hash: InfoHash) -> bool {
        self.with_registry(info_hash, |registry| registry.forget(info_hash))
    }

    /// Whether it is the operator's token.
    pub(super) fn is_operator(&self, token: Option<&str>) -> bool {
        let given = TokenDigest::of(token.unwrap_or(""));
        self.operator.as_ref().is_some_and(|operator| operator.is(&given))
    }

    /// Says whether a torrent's peers may be connected to. Blocks.
    pub(super) fn set_observe(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
        observe: bool,
    ) -> Result<(), CatalogueRefusal> {
        let entry = self.with_token(info_hash, token)?;
        self.set_observe_of(&entry, observe).map_err(CatalogueRefusal::Failed)
    }

    /// The same for who runs the tracker. Blocks.
    pub(super) fn set_observe_of(&self, entry: &Entry, observe: bool) -> Result<(), String> {
        let info_hash = entry.info_hash;
        let store = self.store();
        let downloads = self.counts(info_hash).downloaded;
        self.catalogue.set_observe(entry, observe, downloads, |row| match &store {
            Some(store) => store.put(row).map_err(|error| error.to_string()),
            None => Ok(()),
        })?;
        self.with_registry(info_hash, |registry| registry.set_observe(info_hash, observe));
        if !observe {
            self.leave(info_hash);
        }
        Ok(())
    }

    /// Lets the observer, if there is one, leave a torrent.
    fn leave(&self, info_hash: InfoHash) {
        if self.config.observe {
            self.no_longer_observed.lock().insert(info_hash);
        }
    }

    pub(super) fn report_holdings(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        report: &HoldingsReport,
        bitfield: &[u8],
    ) -> Result<(), CatalogueRefusal> {
        let reporter = Reporter { ip: from.ip(), port: report.port, key: Some(report.key) };
        let outcome = if self.catalogue.get(info_hash).is_none() {
            Err(CatalogueRefusal::Unknown(info_hash))
        } else {
            let mut shard = self.shard(info_hash).lock();
            let now = self.clock.now();
            let reported = shard.registry.report(now, info_hash, reporter, bitfield);
            reported.map_err(CatalogueRefusal::Holdings)
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

    /// Whether no public log is to tell of a torrent: it is unlisted, or was when it was removed.
    pub(super) fn is_unlisted(&self, info_hash: InfoHash) -> bool {
        self.was_unlisted(info_hash, self.catalogue.get(info_hash).as_deref())
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

    /// A torrent's counts.
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

    /// Hands what has changed to the store's thread; does not wait.
    pub(super) fn save(&self) {
        let Some(store) = self.store() else { return };
        let changes = self.take_changes();
        if !changes.is_empty()
            && let Err(changes) = store.save(changes)
        {
            *self.unsaved.lock() = changes;
        }
    }

    /// What cannot be written just now, and what was lost because of that; with the names of the
    /// files for the operator, without them for everybody else.
    pub(super) fn notices(&self, for_operator: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(trouble) = self.store().and_then(|store| store.trouble()) {
            notices.push(match for_operator {
                true => format!("{trouble}; until then nothing can be registered or removed"),
                false => "the tracker cannot write its database just now: nothing can be \
                          registered or removed"
                    .to_owned(),
            });
        }
        let Some(journal) = self.log.journal() else { return notices };
        if for_operator {
            notices.extend(journal.notices());
            return notices;
        }
        if let Some(waiting) = journal.waiting() {
            notices.push(format!(
                "the tracker cannot write its journal just now: `{waiting}` records wait"
            ));
        }
        if journal.lost() > 0 {
            notices.push(format!("`{}` records of the journal are lost", journal.lost()));
        }
        notices
    }

    /// Writes everything to disk and ends the store's thread. Blocks.
    pub(super) fn close(&self) {
        self.log.close();
        let Some(store) = self.store.lock().take() else { return };
        if let Err(error) = store.flush(self.take_changes()) {
            tracing::error!(%error, "the last changes of the tracker's state are lost");
        }
        match Arc::try_unwrap(store) {
            Ok(store) => store.close(),
            // Somebody is registering this very moment; the thread ends with them.
            Err(_) => tracing::debug!("the tracker's database is still in use"),
        }
    }

    pub(super) fn refused(&self, from: SocketAddr, event: RequestEvent, via: Via, reason: String) {
        let mut note = Note::http(from, event, None, Err(reason));
        note.via = via;
        self.note(note);
    }

    /// A torrent's entry, for who has the token that registering it gave.
    fn with_token(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
    ) -> Result<Arc<Entry>, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash))?;
        let given = TokenDigest::of(token.unwrap_or(""));
        let is_its = entry.token.is_some_and(|known| TokenDigest(known).is_same(&given));
        if is_its || self.is_operator(token) {
            Ok(entry)
        } else {
            Err(CatalogueRefusal::WrongToken)
        }
    }

    fn add(
        &self,
        from: SocketAddr,
        metainfo: Metainfo,
        options: RegisterOptions,
    ) -> Result<(Registered, bool), CatalogueRefusal> {
        let secret: [u8; 16] = os_random().map_err(|error| {
            CatalogueRefusal::Failed(format!("the system gives no random numbers: {error}"))
        })?;
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let new = NewEntry {
            metainfo,
            name: options.name,
            description: options.description,
            unlisted: options.unlisted,
            observe: !options.unobserved,
            token: Some(TokenDigest::of(&token).0),
            registrar: Some(network_of(from.ip())),
        };
        let store = self.store();
        let bounds = self.config.bounds(unix_now());
        let mut made_way = 0;
        let added = loop {
            let added = self.catalogue.add(&new, &bounds, |row| match &store {
                Some(store) => store.put(row).map_err(|error| error.to_string()),
                None => Ok(()),
            });
            match added {
                Err(AddError::MakesWay(entry)) if made_way < MAKE_WAY => {
                    made_way += 1;
                    tracing::info!(info_hash = %entry.info_hash, "a torrent makes way in the catalogue");
                    self.take_out(&entry).map_err(CatalogueRefusal::Failed)?;
                }
                added => break added,
            }
        };
        match added {
            Ok(Added::New(entry)) => {
                let now = self.clock.now();
                let mut shard = self.shard(entry.info_hash).lock();
                shard.registry.catalogue(now, entry.info_hash, entry.pieces, 0);
                shard.registry.set_observe(entry.info_hash, entry.is_observed());
                drop(shard);
                if !entry.unlisted {
                    self.removed_unlisted.write().forget(entry.info_hash);
                }
                Ok((registered(&entry, Some(token)), true))
            }
            Ok(Added::Known(entry)) => Ok((registered(&entry, None), false)),
            Err(error @ (AddError::Full | AddError::TooMany { .. } | AddError::MakesWay(_))) => {
                Err(CatalogueRefusal::Full(error.to_string()))
            }
            Err(error) => Err(CatalogueRefusal::Failed(error.to_string())),
        }
    }

    /// Peers at loopback addresses are of no use to who is elsewhere: for them the address is
    /// given at which they reach this machine.
    fn reach_loopback(&self, asking: SocketAddr, reached: Option<IpAddr>, peers: &mut Vec<Handed>) {
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
        peers.retain(|peer| {
            !peer.addr.ip().is_loopback() && peer.addr != asking && seen.insert(peer.addr)
        });
    }

    fn take_changes(&self) -> Changes {
        let mut changes = std::mem::take(&mut *self.unsaved.lock());
        for shard in &self.shards {
            let changed = shard.lock().registry.take_changed();
            changes.extend(changed.into_iter().map(|(hash, n, load)| (hash, (n, load))));
        }
        changes
    }

    fn note_http(
        &self,
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) {
        self.note(Note::http(from, event, info_hash, outcome));
    }

    fn note(&self, note: Note) {
        let entry = note.info_hash.and_then(|hash| self.catalogue.get(hash));
        let is_announce = matches!(
            note.event,
            RequestEvent::Announce | RequestEvent::Started | RequestEvent::Completed
        );
        if let Some(entry) = entry.as_ref().filter(|_| is_announce && note.outcome.is_ok()) {
            entry.announced();
        }
        let unlisted = note.info_hash.is_some_and(|hash| self.was_unlisted(hash, entry.as_deref()));
        self.push(note, entry.map(|entry| Arc::clone(&entry.name)), unlisted);
    }

    fn push(&self, note: Note, name: Option<Arc<str>>, unlisted: bool) {
        if note.outcome.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.log.push(RequestRecord {
            time: SystemTime::now(),
            peer: note.peer,
            peer_id: note.peer_id,
            event: note.event,
            info_hash: note.info_hash,
            name,
            handed: note.handed,
            outcome: note.outcome.map_err(Into::into),
            via: note.via,
            unlisted,
        });
    }

    fn was_unlisted(&self, info_hash: InfoHash, entry: Option<&Entry>) -> bool {
        entry.map_or_else(
            || self.removed_unlisted.read().contains(info_hash),
            |entry| entry.unlisted,
        )
    }

    fn name_of(&self, info_hash: InfoHash) -> Option<Arc<str>> {
        self.catalogue.get(info_hash).map(|entry| Arc::clone(&entry.name))
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.store.lock().clone()
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

/// What is known of a request when it is answered.
struct Note {
    peer: SocketAddr,
    peer_id: Option<PeerId>,
    event: RequestEvent,
    info_hash: Option<InfoHash>,
    handed: HandedList,
    outcome: Result<(), String>,
    via: Via,
}

impl Note {
    fn http(
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) -> Self {
        Self {
            peer: SocketAddr::new(from.ip().to_canonical(), from.port()),
            peer_id: None,
            event,
            info_hash,
            handed: HandedList::default(),
            outcome,
            via: Via::Http,
        }
    }
}

/// Bytes of a name nobody registered that the log keeps: as many as a file's name may have.
const MAX_NAME_LOGGED: usize = 255;

/// Bytes from the operating system that nobody can guess.
///
/// # Errors
/// If the system has none.
pub(super) fn os_random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn registered(entry: &Entry, token: Option<String>) -> Registered {
    Registered { info_hash: entry.info_hash, name: entry.name.to_string(), token }
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

/// Torrents that make way for one at most: it may have more bytes than each of them.
const MAKE_WAY: usize = 64;

/// Registries, each behind a lock of its own: more than there are cores to serve them.
const SHARDS: usize = 16;

/// Peers looked at in one go while a shard's lock is held: some 20 µs.
const EXPIRE_BUDGET: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::MetainfoBuilder;

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
