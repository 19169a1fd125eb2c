//! The session itself.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::net;
use crate::tracker_client::{
    CatalogueError, ClientOptions, ReachableOver, TrackerClient, TrackerError,
};
use piecework_core::{Checkpoint, InfoHash, PeerId, Rng, printable};
use piecework_listener::Listener;
use piecework_proto::announce::{Provenance, TrackerUrl};
use piecework_proto::encryption::EncryptionPolicy;
use piecework_proto::wire::Handshake;
use piecework_storage::{FolderIdentity, StorageError, Store, StoreMode, StoreOptions};
use piecework_swarm::ChokePolicy;
use piecework_swarm::announcer::Announcer;
use piecework_swarm::lifecycle::{CheckScope, ContentState, Lifecycle, LifecycleConfig};

use super::changes::Changes;
use super::entry::{Call, Entry};
use super::handle::TorrentHandle;
use super::hub::Hub;
use super::lifecycle::TorrentRef;
use super::owners::PathTaken;
use super::record::{Moved, Ownership, Record};
use super::shared::{Bounds, Shared};
use super::shutdown::Ending;
use super::status::Shown;
use super::{AddTorrent, SessionConfig, SessionFigures, TorrentState, torrent};

/// A BitTorrent peer with any number of torrents. Cheap to clone; it lives until
/// [`Session::shutdown`] or the end of the runtime.
#[derive(Clone)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) listening: Arc<Listening>,
}

/// Why a session does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use or not ours.
    #[error("cannot listen for peers on `{addr}`: {error}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// There is no such network interface, or it is not for us.
    #[error("cannot use the network interface `{}`: {error}", printable(interface))]
    Interface {
        /// Its name.
        interface: String,
        /// What the system says.
        error: io::Error,
    },
    /// No tracker could be asked.
    #[error("cannot set up the tracker client: {0}")]
    Trackers(#[from] TrackerError),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
    /// The system started no thread.
    #[error("cannot start the threads that hash: {0}")]
    Threads(io::Error),
}

/// Why a torrent is not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is there already.
    #[error("torrent `{0}` is in the session already")]
    Duplicate(InfoHash),
    /// Its folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another torrent of the session has one of its paths.
    #[error(transparent)]
    PathTaken(Box<PathTaken>),
    /// The tracker of ours that is to hear of our pieces has an address that is none.
    #[error(transparent)]
    Catalogue(CatalogueError),
    /// The session was shut down.
    #[error("the session has ended")]
    Ended,
}

pub(super) struct Listening {
    addrs: Vec<SocketAddr>,
    /// The task that announces first, then those that accept peers.
    pub loops: Mutex<Vec<JoinHandle<()>>>,
    /// What is left of the torrents once the session ends.
    pub ending: Mutex<Ending>,
}

impl Session {
    /// Starts listening. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If an address cannot be had.
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
            (None, Some(_)) => std::array::from_fn(|_| rng.next_u64() as u8),
            (None, None) => random_bytes().map_err(StartError::Random)?,
        };
        let peer_id = PeerId::generate(&mut rng);
        let port = addrs.first().map(SocketAddr::port);
        // Trackers take the address we ask from for ours: it must be the one we listen on.
        let own = addrs.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let reachable_over = ReachableOver::of(&addrs);
        let options = ClientOptions { local_ip: own, reachable_over, ..ClientOptions::default() };
        let trackers = TrackerClient::over(options, config.interface.as_deref())?;
        let shared = Shared::new(config, peer_id, announce_secret, port, trackers, rng);
        let shared = Arc::new(shared.map_err(StartError::Threads)?);
        let mut loops = vec![tokio::spawn(Hub::run(Arc::clone(&shared)))];
        let accepting = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept_loop(listener, Arc::clone(&shared))));
        loops.extend(accepting);
        let ending = Mutex::default();
        let listening = Arc::new(Listening { addrs, loops: Mutex::new(loops), ending });
        Ok(Self { shared, listening })
    }

    /// Returns the secret that the keys we announce are made from.
    pub fn announce_secret(&self) -> [u8; 32] {
        self.shared.announce_secret
    }

    /// Adds a torrent: checks what is on disk, then joins the swarm.
    ///
    /// # Errors
    /// If it is there already or its folder cannot be used.
    pub fn add(&self, mut add: AddTorrent) -> Result<TorrentHandle, AddError> {
        let info_hash = add.metainfo.info_hash();
        // Before the lock: a disk may take its time.
        let folder = add.folder.take().unwrap_or_else(|| FolderIdentity::of(&add.root));
        let mut torrents = self.shared.torrents.lock();
        if torrents.ended {
            return Err(AddError::Ended);
        }
        if torrents.map.contains(&info_hash) {
            return Err(AddError::Duplicate(info_hash));
        }
        let entry = self.enter(add, &folder)?;
        torrents.insert(&entry);
        drop(torrents);
        self.shared.changes.mark(info_hash);
        Ok(self.handle(entry))
    }

    /// Returns the folders of torrents that lie on other file systems than the root, with the
    /// places where those are mounted: for [`Session::restore_mounts`] of a later session, so that a
    /// disk that is gone is missed then too.
    pub fn mounts(&self) -> BTreeMap<PathBuf, PathBuf> {
        self.shared.mounts.all()
    }

    /// Whether [`Session::mounts`] has changed since this was last asked.
    pub fn take_mounts_changed(&self) -> bool {
        self.shared.mounts.take_changed()
    }

    /// Takes what [`Session::mounts`] of an earlier session gave; before torrents are added.
    pub fn restore_mounts(&self, known: BTreeMap<PathBuf, PathBuf>) {
        self.shared.mounts.restore(known);
    }

    /// The torrent `info_hash`, if it is here.
    pub fn get(&self, info_hash: InfoHash) -> Option<TorrentHandle> {
        let entry = self.shared.entry(info_hash);
        entry.map(|entry| self.handle(entry))
    }

    /// All torrents.
    pub fn torrents(&self) -> Vec<TorrentHandle> {
        self.shared.entries().into_iter().map(|entry| self.handle(entry)).collect()
    }

    /// Leaves the torrent's swarm; what is on disk stays. Says whether it was there.
    pub async fn remove(&self, info_hash: InfoHash) -> bool {
        let entry = self.shared.torrents.lock().take(&info_hash);
        let Some(entry) = entry else { return false };
        self.shared.leave_paths(&entry);
        stop(TorrentRef { shared: &self.shared, entry: &entry }).await;
        true
    }

    /// Addresses peers can connect to, with the ports the system chose.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listening.addrs
    }

    /// How it does as a whole, over all torrents. Looks at every torrent.
    pub fn figures(&self) -> SessionFigures {
        self.shared.figures()
    }

    /// What we call ourselves.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// The torrents whose status has changed from now on, as it comes; each once, however often it
    /// changed since it was given last. One such stream may be had from a session at a time.
    pub fn changes(&self) -> Changes {
        Changes::new(Arc::clone(&self.shared.changes))
    }

    /// The torrents that have changed and that [`Changes::next`] has not given yet.
    pub fn changed_now(&self) -> Vec<InfoHash> {
        self.shared.changes.marked()
    }

    /// Changes what can be changed while it runs: `max_connections`, `max_peers_per_torrent`,
    /// `upload_slots`, `choke` (for torrents that begin anew), `encryption` (of new connections).
    pub fn set_bounds(
        &self,
        connections: usize,
        per_torrent: usize,
        upload_slots: usize,
        choke: ChokePolicy,
        encryption: EncryptionPolicy,
    ) {
        *self.shared.bounds.lock() =
            Bounds { connections, per_torrent, upload_slots, choke, encryption };
        self.nudge(|| Call::Bounds);
    }

    /// Neither dials nor accepts these, and drops those that are connected.
    pub fn set_block_list(&self, list: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) {
        self.shared.set_block_list(list);
        self.nudge(|| Call::Blocked);
    }

    /// Changes the rate limits, in bytes a second; `None` is no limit.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) {
        self.shared.upload.set(upload);
        self.shared.download.set(download);
        self.nudge(|| Call::Bounds);
    }

    fn handle(&self, entry: Arc<Entry>) -> TorrentHandle {
        TorrentHandle::new(Arc::clone(&self.shared), entry)
    }

    /// Tells all torrents that are awake.
    fn nudge(&self, call: impl Fn() -> Call) {
        for entry in self.shared.entries() {
            entry.nudge(&self.shared, call());
        }
    }

    /// Begins a torrent's life.
    fn enter(&self, add: AddTorrent, folder: &FolderIdentity) -> Result<Arc<Entry>, AddError> {
        let shared = &self.shared;
        let record = Box::new(new_record(shared, &add));
        let metainfo = add.metainfo;
        let mode = if add.upload_only { StoreMode::ReadOnly } else { StoreMode::ReadWrite };
        let suffix = Some(add.incomplete_suffix).filter(|suffix| !suffix.is_empty());
        let names = StoreOptions {
            mode,
            incomplete_suffix: suffix,
            top_name: None,
            names: add.names,
            keep_to: Arc::clone(&shared.config.keep_to),
        };
        let files = Arc::clone(&shared.files);
        let store = Store::with_options(&add.root, Arc::clone(&metainfo), files, names)?;
        let reporter = match add.catalogue.filter(|_| shared.config.report_holdings) {
            Some(url) => {
                let reporter = shared.reporters.at(url, &shared.trackers, shared.rng());
                Some(reporter.map_err(AddError::Catalogue)?)
            }
            None => None,
        };
        let mut tiers: Vec<Vec<TrackerUrl>> = add.trackers.unwrap_or_else(|| {
            let known = |url: &String| url.parse::<TrackerUrl>().ok();
            metainfo.trackers().iter().map(|tier| tier.iter().filter_map(known).collect()).collect()
        });
        if shared.config.private_trackers {
            for url in tiers.iter_mut().flatten() {
                if url.provenance() == Provenance::Foreign {
                    *url = url.clone().named_by(Provenance::Nearby);
                }
            }
        }
        let shown = Shown::new(TorrentState::Waiting);
        let entry = Entry::new(shared, Arc::new(store), add.options, reporter, shown);
        // If its disk is gone, it is told so when it is to run.
        shared.mounts.note(&entry.store().root(), folder.mount.clone());
        let reads = add.upload_only || add.shares_files;
        shared.claim(&entry, folder, reads).map_err(AddError::PathTaken)?;
        shared.hub.add(&entry, Announcer::new(tiers, shared.config.tier_policy, shared.rng()));
        entry.show(record.shown(&entry));
        // From here on it hears what it is told: trackers may answer at once.
        entry.put_to_sleep(record);
        let torrent = TorrentRef { shared, entry: &entry };
        entry.change_asleep((), |record, ()| record.pass_workload(torrent));
        Ok(entry)
    }
}

/// Returns the record of a torrent that is added.
fn new_record(shared: &Shared, add: &AddTorrent) -> Record {
    let pieces = add.metainfo.info().geometry().pieces();
    let keeps_checkpoints = shared.config.keeper.is_some();
    let content = match &add.checkpoint {
        // Nobody keeps what it looks like.
        _ if add.assume_complete && !keeps_checkpoints => ContentState::Ready,
        _ if add.assume_complete => ContentState::Surveying,
        Some(_) => ContentState::Surveying,
        None => ContentState::Unverified(CheckScope::All),
    };
    // Who says that it is complete knows more than an earlier session did.
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
    // What a check has found right says nothing about whose the files are.
    let is_held = |point: &Checkpoint| point.unchecked.is_none() && point.have.count() > 0;
    record.files = match &add.checkpoint {
        _ if add.overwrite => Ownership::Replaced,
        // It has been written to.
        Some(point) if !add.hindered && (point.writing || is_held(point)) => Ownership::Ours,
        _ => Ownership::Unknown,
    };
    record.note_user_peers(&add.peers);
    if let Some(checkpoint) = &add.checkpoint {
        let (downloaded, uploaded) = (checkpoint.downloaded, checkpoint.uploaded);
        record.set_earlier(Moved { downloaded, uploaded, corrupt: 0 });
    }
    record
}

/// The end of a torrent that is out of the map.
pub(super) async fn stop(torrent: TorrentRef<'_>) {
    let TorrentRef { shared, entry } = torrent;
    if let Some(record) = entry.take_asleep() {
        drop(record);
        torrent::leave(torrent).await;
        entry.end();
    } else {
        let (reply, stopped) = oneshot::channel();
        if entry.post(Call::Stop(reply)).await {
            // Not answered if its task broke off, and then it has stopped as well.
            let _ = stopped.await;
        }
    }
    if let Some(reporter) = &entry.reporter {
        reporter.forget(entry.info_hash());
    }
    // Nobody reads or writes its files any more.
    shared.give_up(entry);
}

/// Listens on the other family of each address that stands for all of its family. Without it peers of
/// that family could not reach us, and trackers could not be told of us over it (BEP 7).
fn listen_beside(
    config: &SessionConfig,
    listeners: &mut Vec<Listener>,
    addrs: &mut Vec<SocketAddr>,
) {
    let others = addrs.iter().filter(|addr| addr.ip().is_unspecified()).map(|addr| {
        let other: IpAddr = match addr.ip() {
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(other, addr.port())
    });
    for other in others.collect::<Vec<_>>() {
        if addrs.iter().any(|addr| addr.is_ipv4() == other.is_ipv4()) {
            continue;
        }
        match net::listen(other, config.interface.as_deref()) {
            Ok(listener) => {
                listeners.push(listener);
                addrs.push(other);
            }
            Err(error) => debug!(%error, "not listening on `{other}` as well"),
        }
    }
}

impl net::Torrents for Shared {
    fn handshake(&self, info_hash: InfoHash) -> Option<Handshake> {
        let admits = self.entry(info_hash).is_some_and(|entry| entry.admits());
        admits.then(|| Handshake::ours(info_hash, self.peer_id))
    }

    fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
        self.torrents.lock().marked(mark)
    }
}

async fn accept_loop(mut listener: Listener, shared: Arc<Shared>) {
    loop {
        let (stream, addr) = listener.accept(|| shared.gate.make_room()).await;
        if shared.is_blocked(addr.ip()) {
            continue;
        }
        let gate = shared.gate.clone();
        let shared = Arc::clone(&shared);
        gate.enter(addr.ip(), async move {
            let time = shared.config.handshake_timeout;
            let (encryption, exchanges) = (shared.bounds.lock().encryption, &shared.key_exchanges);
            match net::accept(stream, addr, encryption, time, &*shared, exchanges).await {
                Ok(accepted) => {
                    let accepted = Box::new(accepted);
                    if let Some(entry) = shared.entry(accepted.theirs.info_hash) {
                        // It counts as half open until its torrent has heard of it.
                        entry.post(Call::Accepted(accepted)).await;
                    }
                }
                Err(error) => debug!(%addr, %error, "a connection came to nothing"),
            }
        });
    }
}

/// Raises the number of files and connections this process may have open to the most that the
/// system allows it, and gives it. For programs to call before they start a session with many
/// connections.
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(most)
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
