//! The session: its parts, and its public API.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::net;
use crate::tracker_client::{
    CatalogueError, ClientOptions, ReachableOver, TrackerClient, TrackerError,
};
use piecework_core::{Checkpoint, InfoHash, PeerId, Rng, printable};
use piecework_dht::DhtFigures;
use piecework_proto::encryption::EncryptionPolicy;
use piecework_storage::{FolderIdentity, StorageError, Store, StoreMode, StoreOptions};
use piecework_swarm::lifecycle::{CheckScope, ContentState, Lifecycle, LifecycleConfig};
use piecework_swarm::{ChokePolicy, PeerSource};

use super::accept::{Acceptor, listen_beside};
use super::changes::Changes;
use super::check_slots::CheckSlots;
use super::connections::Bounds;
use super::dht::DhtDriver;
use super::discovery::Discovery;
use super::entry::{Call, Entry, SessionLink};
use super::error::PathTaken;
use super::handle::TorrentHandle;
use super::holdings::HoldingsReports;
use super::identity::Identity;
use super::lifecycle::LifecycleDriver;
use super::local_discovery::LocalAnnouncer;
use super::means::{Means, PREPARING};
use super::metadata_inputs::MetadataFetches;
use super::owners::PathOwners;
use super::ownership::Ownership;
use super::record::{Record, TransferTotals};
use super::shutdown::Ending;
use super::start_slots::StartSlots;
use super::status::StatusView;
use super::task::{self, TorrentTasks};
use super::torrents::TorrentMap;
use super::{AddTorrent, SessionConfig, SessionFigures, TorrentState};

/// A BitTorrent peer with any number of torrents. Cheap to clone; it lives until
/// [`Session::shutdown`] or the end of the runtime.
#[derive(Clone)]
pub struct Session {
    pub(super) parts: Arc<Parts>,
    pub(super) listening: Arc<Listening>,
}

/// What a session consists of.
pub(super) struct Parts {
    pub means: Arc<Means>,
    pub torrents: Arc<TorrentMap>,
    pub fetches: Arc<MetadataFetches>,
    pub discovery: Discovery,
    /// Set when the session starts, if it takes part.
    pub dht: OnceLock<Arc<DhtDriver>>,
    pub paths: Arc<PathOwners>,
    pub lifecycle: Arc<LifecycleDriver>,
    /// What each torrent has of the session. It reaches the tasks weakly, so they are held here.
    link: Arc<SessionLink>,
    _tasks: Arc<TorrentTasks>,
}

/// Why a session cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or not an address of this host.
    #[error("cannot listen for peers on `{addr}`: {error}")]
    Listen {
        /// The address to listen on.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// There is no such network interface, or this process may not use it.
    #[error("cannot use the network interface `{}`: {error}", printable(interface))]
    Interface {
        /// The name of the interface.
        interface: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The tracker client could not be set up.
    #[error("cannot set up the tracker client: {0}")]
    Trackers(#[from] TrackerError),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
    /// The system started no thread.
    #[error("cannot start the threads that hash: {0}")]
    Threads(#[source] io::Error),
}

/// Why a torrent cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is in the session already.
    #[error("torrent `{0}` is in the session already")]
    Duplicate(InfoHash),
    /// Its folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another torrent of the session has one of its paths.
    #[error(transparent)]
    PathTaken(Box<PathTaken>),
    /// The address of the catalogue to report to is not valid.
    #[error(transparent)]
    Catalogue(CatalogueError),
    /// The session was shut down.
    #[error("the session has ended")]
    Ended,
}

pub(super) struct Listening {
    addrs: Vec<SocketAddr>,
    /// The task that announces, followed by those that accept peers and the one for the local network.
    pub loops: Mutex<Vec<JoinHandle<()>>>,
    /// What is left of the torrents while the session ends.
    pub ending: Mutex<Ending>,
}

impl Parts {
    fn new(means: Arc<Means>, trackers: TrackerClient) -> Self {
        let torrents: Arc<TorrentMap> = Arc::default();
        let paths: Arc<PathOwners> = Arc::default();
        let discovery = Discovery::new(Arc::clone(&means), trackers);
        let lifecycle = Arc::new(LifecycleDriver {
            scheduler: Arc::clone(&discovery.scheduler),
            check_workers: Arc::default(),
            check_slots: Arc::new(CheckSlots::new(means.config.checks)),
            start_slots: Arc::new(StartSlots::new(PREPARING)),
        });
        let reports = HoldingsReports {
            means: Arc::clone(&means),
            torrents: Arc::clone(&torrents),
            scheduler: Arc::clone(&discovery.scheduler),
        };
        let tasks = Arc::new(TorrentTasks {
            lifecycle: Arc::clone(&lifecycle),
            paths: Arc::clone(&paths),
            reports: Arc::new(reports),
        });
        let link = Arc::new(SessionLink::new(Arc::clone(&means)));
        let driver: Weak<TorrentTasks> = Arc::downgrade(&tasks);
        link.set_driver(driver);
        Self {
            means,
            torrents,
            fetches: Arc::default(),
            discovery,
            dht: OnceLock::new(),
            paths,
            lifecycle,
            link,
            _tasks: tasks,
        }
    }

    /// Ends a torrent that was taken out of the map.
    pub(crate) async fn stop(&self, entry: &Arc<Entry>) {
        if let Some(record) = entry.take_asleep() {
            drop(record);
            task::leave(&self.discovery.scheduler, entry).await;
            entry.end();
        } else {
            let (reply, stopped) = oneshot::channel();
            if entry.post(Call::Stop(reply)).await {
                // Not answered if its task panicked, and then it has stopped as well.
                let _ = stopped.await;
            }
        }
        if let Some(reporter) = &entry.reporter {
            reporter.forget(entry.info_hash());
        }
        // Nobody reads or writes its files any more.
        self.paths.give_up(entry);
    }
}

impl Session {
    /// Starts listening. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If an address cannot be listened on, or the system refuses something else.
    pub fn start(config: SessionConfig) -> Result<Self, StartError> {
        if let Some(interface) = &config.interface {
            net::check_interface(interface)
                .map_err(|error| StartError::Interface { interface: interface.clone(), error })?;
        }
        let mut listeners = Vec::new();
        let mut addrs = Vec::new();
        for &addr in &config.listen {
            let bound = net::listen(addr, config.interface.as_deref())
                .and_then(|l| l.local_addr().map(|at| (l, at)));
            let (listener, at) = bound.map_err(|error| StartError::Listen { addr, error })?;
            listeners.push(listener);
            addrs.push(at);
        }
        if config.both_families {
            listen_beside(&config, &mut listeners, &mut addrs);
        }
        let seed = match config.seed {
            Some(seed) => seed,
            None => random_seed().map_err(StartError::Random)?,
        };
        let mut rng = Rng::from_seed(seed);
        let announce_secret = match (config.announce_secret, config.seed) {
            (Some(kept), _) => kept,
            (None, Some(_)) => std::array::from_fn(|_| rng.next_u64().to_le_bytes()[0]),
            (None, None) => random_bytes().map_err(StartError::Random)?,
        };
        let peer_id = PeerId::generate(&mut rng);
        let listen_port = addrs.first().map(SocketAddr::port);
        // Trackers take the address that we announce from for ours, so it must be the one we listen
        // on.
        let own = addrs.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let reachable_over = ReachableOver::of(&addrs);
        let options = ClientOptions { local_ip: own, reachable_over, ..ClientOptions::default() };
        let trackers = TrackerClient::over(options, config.interface.as_deref())?;
        let identity = Identity { peer_id, announce_secret, listen_port };
        let means = Means::new(config, identity, rng).map_err(StartError::Threads)?;
        let parts = Arc::new(Parts::new(Arc::new(means), trackers));
        let mut loops = vec![tokio::spawn(announce(Arc::clone(&parts)))];
        let local = LocalAnnouncer::new(&parts.means, &parts.torrents, &addrs);
        let (means, torrents) = (Arc::clone(&parts.means), Arc::clone(&parts.torrents));
        let fetches = Arc::clone(&parts.fetches);
        let acceptor = Arc::new(Acceptor { means, torrents, fetches });
        let accepting =
            listeners.into_iter().map(|listener| tokio::spawn(Arc::clone(&acceptor).run(listener)));
        loops.extend(accepting);
        loops.extend(local.map(|local| tokio::spawn(local.run())));
        if let Some(options) = parts.means.config.dht.clone() {
            let secret = random_bytes().map_err(StartError::Random)?;
            let Parts { means, torrents, .. } = &*parts;
            if let Some(dht) = DhtDriver::new(means, torrents, options, &addrs, secret) {
                loops.push(tokio::spawn(Arc::clone(&dht).run()));
                let _ = parts.dht.set(dht);
            }
        }
        let ending = Mutex::default();
        let listening = Arc::new(Listening { addrs, loops: Mutex::new(loops), ending });
        Ok(Self { parts, listening })
    }

    /// Returns the secret that announce keys are made from.
    pub fn announce_secret(&self) -> [u8; 32] {
        self.parts.means.identity.announce_secret
    }

    /// Adds a torrent: checks what is on disk, then joins the swarm.
    ///
    /// # Errors
    /// If it is in the session already or its folder cannot be used.
    pub fn add(&self, mut add: AddTorrent) -> Result<TorrentHandle, AddError> {
        let info_hash = add.metainfo.info_hash();
        // Not under the lock: a disk may be slow.
        let folder = add.folder.take().unwrap_or_else(|| FolderIdentity::of(&add.root));
        let mut torrents = self.parts.torrents.lock();
        if torrents.ended {
            return Err(AddError::Ended);
        }
        if torrents.contains(info_hash) {
            return Err(AddError::Duplicate(info_hash));
        }
        let entry = self.enter(add, &folder)?;
        torrents.insert(&entry);
        drop(torrents);
        self.parts.means.changes.mark(info_hash);
        if let Some(dht) = self.parts.dht.get() {
            dht.torrents_changed();
        }
        Ok(self.handle(entry))
    }

    /// Returns the folders of torrents that lie on other file systems than the root, with their
    /// mount points. A later session takes them with [`Session::restore_mounts`], and so notices
    /// when a disk is gone.
    pub fn mounts(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.parts.means.mounts.all()
    }

    /// Returns whether [`Session::mounts`] has changed since the last call.
    pub fn take_mounts_changed(&self) -> bool {
        self.parts.means.mounts.take_changed()
    }

    /// Restores what [`Session::mounts`] of an earlier session returned. To be called before
    /// torrents are added.
    pub fn restore_mounts(&self, known: BTreeMap<PathBuf, PathBuf>) {
        self.parts.means.mounts.restore(known);
    }

    /// Returns the torrent with this info-hash, if it is in the session.
    pub fn get(&self, info_hash: InfoHash) -> Option<TorrentHandle> {
        let entry = self.parts.torrents.get(info_hash);
        entry.map(|entry| self.handle(entry))
    }

    /// Returns all torrents.
    pub fn torrents(&self) -> Vec<TorrentHandle> {
        self.parts.torrents.all().into_iter().map(|entry| self.handle(entry)).collect()
    }

    /// Removes a torrent: leaves its swarm. What is on disk stays. Returns whether it was in the
    /// session.
    pub async fn remove(&self, info_hash: InfoHash) -> bool {
        let entry = self.parts.torrents.lock().take(&info_hash);
        let Some(entry) = entry else { return false };
        self.parts.paths.leave_paths(&entry);
        self.parts.stop(&entry).await;
        true
    }

    /// Returns the addresses that peers can connect to, with the ports that the system chose.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listening.addrs
    }

    /// Returns whether peers name other peers to each other.
    pub fn exchanges_peers(&self) -> bool {
        self.parts.means.config.peer_exchange
    }

    /// Returns whether torrents are announced on the local network.
    pub fn announces_locally(&self) -> bool {
        self.parts.means.config.local_discovery
    }

    /// Returns figures of the node in the DHT, if the session takes part in it.
    pub fn dht_figures(&self) -> Option<DhtFigures> {
        self.parts.dht.get().map(|dht| dht.figures())
    }

    /// Returns the nodes of the DHT that are known, for [`DhtOptions::table`](crate::DhtOptions::table)
    /// of a later session.
    pub fn dht_table(&self) -> Option<Vec<u8>> {
        self.parts.dht.get().map(|dht| dht.table())
    }

    /// Returns figures of the whole session. Looks at every torrent.
    pub fn figures(&self) -> SessionFigures {
        let Parts { means, torrents, .. } = &*self.parts;
        let counters = &means.counters;
        let entries = torrents.all();
        let leeching = entries.iter().filter(|entry| entry.is_downloading()).count();
        let shown = entries.into_iter().filter_map(|entry| entry.waiting());
        let waited = counters.waited(means.now(), shown);
        let dialing = means.connections.dialing.available_permits();
        SessionFigures {
            downloaded: counters.downloaded.get(),
            uploaded: counters.uploaded.get(),
            wasted: counters.wasted.get(),
            corrupt: counters.corrupt.get(),
            pieces_verified: counters.verified.get(),
            pieces_failed: counters.failed.get(),
            bans: counters.banned.get(),
            announces_answered: counters.announced.get(),
            announces_failed: counters.unanswered.get(),
            waited,
            connections: means.connections.len(),
            half_open_out: means.config.max_half_open.saturating_sub(dialing),
            half_open_in: means.connections.gate.len(),
            leeching,
            pool: means.hashing.load(),
        }
    }

    /// Returns the session's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.parts.means.identity.peer_id
    }

    /// Returns a stream of the torrents whose status changes from now on. A torrent that changes
    /// several times before it is returned is returned once. A session has one such stream at a
    /// time.
    pub fn changes(&self) -> Changes {
        Changes::new(Arc::clone(&self.parts.means.changes))
    }

    /// Returns the torrents that have changed and that [`Changes::next`] has not returned yet.
    pub fn changed_now(&self) -> Vec<InfoHash> {
        self.parts.means.changes.marked()
    }

    /// Changes limits while the session runs: `max_connections`, `max_peers_per_torrent`,
    /// `upload_slots`, `choke` (for torrents that begin anew), `encryption` (of new connections).
    pub fn set_bounds(
        &self,
        connections: usize,
        per_torrent: usize,
        upload_slots: usize,
        choke: ChokePolicy,
        encryption: EncryptionPolicy,
    ) {
        *self.parts.means.connections.bounds.lock() =
            Bounds { connections, per_torrent, upload_slots, choke, encryption };
        self.nudge(|| Call::Bounds);
    }

    /// Sets which addresses are blocked: they are neither dialled nor accepted, and those connected
    /// are dropped.
    pub fn set_block_list(&self, list: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) {
        self.parts.means.connections.set_block_list(list);
        self.nudge(|| Call::Blocked);
    }

    /// Changes the rate limits, in bytes a second; `None` is no limit.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) {
        self.parts.means.upload.set(upload);
        self.parts.means.download.set(download);
        self.nudge(|| Call::Bounds);
    }

    fn handle(&self, entry: Arc<Entry>) -> TorrentHandle {
        TorrentHandle::new(Arc::clone(&self.parts.discovery.scheduler), entry)
    }

    /// Sends a call to all torrents that are awake.
    fn nudge(&self, call: impl Fn() -> Call) {
        for entry in self.parts.torrents.all() {
            entry.nudge(call());
        }
    }

    /// Begins a torrent's life.
    fn enter(&self, add: AddTorrent, folder: &FolderIdentity) -> Result<Arc<Entry>, AddError> {
        let Parts { means, discovery, paths, lifecycle, link, .. } = &*self.parts;
        let record = Box::new(new_record(means.keeps_checkpoints(), &add));
        let metainfo = add.metainfo;
        let mode = if add.upload_only { StoreMode::ReadOnly } else { StoreMode::ReadWrite };
        let suffix = Some(add.incomplete_suffix).filter(|suffix| !suffix.is_empty());
        let names = StoreOptions {
            mode,
            incomplete_suffix: suffix,
            top_name: None,
            names: add.names,
            keep_to: Arc::clone(&means.config.keep_to),
        };
        let store = Store::with_options(&add.root, metainfo, Arc::clone(&means.files), names)?;
        let reporter = discovery.reporter(add.catalogue).map_err(AddError::Catalogue)?;
        let shown = StatusView::new(TorrentState::Waiting);
        let entry = Entry::new(link, Arc::new(store), add.options, reporter, shown);
        // If its disk is gone, it is told so when it is to run.
        means.mounts.note(&entry.store().root(), folder.mount.clone());
        let reads = add.upload_only || add.shares_files;
        paths.claim(&entry, folder, reads).map_err(AddError::PathTaken)?;
        discovery.add(&entry, add.trackers);
        entry.show(entry.shown_of(&record));
        // From here on it receives calls: trackers may answer at once.
        entry.put_to_sleep(record);
        entry.change_asleep(|record| lifecycle.pass_workload(&entry, record));
        Ok(entry)
    }
}

/// Returns the record of a torrent that is added.
fn new_record(keeps_checkpoints: bool, add: &AddTorrent) -> Record {
    let pieces = add.metainfo.info().geometry().pieces();
    let content = match &add.checkpoint {
        // Nobody keeps what the files are like.
        _ if add.assume_complete && !keeps_checkpoints => ContentState::Ready,
        _ if add.assume_complete => ContentState::Surveying,
        Some(_) => ContentState::Surveying,
        None => ContentState::Unverified(CheckScope::All),
    };
    // A caller that knows it to be complete knows more than an earlier session.
    let checkpoint = add.checkpoint.as_ref().filter(|_| !add.assume_complete);
    let life = Lifecycle::new(LifecycleConfig {
        content,
        has_checkpoint: checkpoint.is_some(),
        keeps_checkpoints,
        paused: add.paused,
    });
    let mut record = Record::new(life, pieces, add.upload_only);
    if let Some(checkpoint) = checkpoint {
        record.restore(checkpoint);
    }
    if content == ContentState::Ready {
        record.set_have(None);
    }
    // Pieces that a check has found to be right do not say who owns the files.
    let is_held = |point: &Checkpoint| point.unchecked.is_none() && point.have.count() > 0;
    record.files = match &add.checkpoint {
        _ if add.overwrite => Ownership::Replaced,
        // It has been written to.
        Some(point) if !add.hindered && (point.writing || is_held(point)) => Ownership::Ours,
        _ => Ownership::Unknown,
    };
    record.note_peers(PeerSource::User, &add.peers);
    add.found.iter().for_each(|heard| record.note_peer(*heard));
    if let Some(checkpoint) = &add.checkpoint {
        let (downloaded, uploaded) = (checkpoint.downloaded, checkpoint.uploaded);
        record.set_earlier(TransferTotals { downloaded, uploaded, corrupt: 0 });
    }
    record
}

/// Announces until the session ends, and keeps its parts alive until then.
async fn announce(parts: Arc<Parts>) {
    Arc::clone(&parts.discovery.scheduler).run().await;
}

fn random_seed() -> io::Result<u64> {
    random_bytes().map(u64::from_ne_bytes)
}

fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
