//! The session itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::base::{InfoHash, PeerId, Rng};
use crate::net::{self, Listener};
use crate::storage::StorageError;
use crate::swarm::ChokePolicy;
use crate::tracker_client::{CatalogueError, ClientOptions, TrackerClient, TrackerError};
use crate::wire::Handshake;

use super::handle::TorrentHandle;
use super::shared::{Member, Shared};
use super::{AddTorrent, SessionConfig, torrent};

/// A BitTorrent peer with any number of torrents. Cheap to clone; it lives until
/// [`Session::shutdown`] or the end of the runtime.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    listening: Arc<Listening>,
}

/// See [`Session::changes`].
pub struct Changes {}

impl Changes {
    /// Waits until there is at least one, then gives all there are, those that were removed
    /// included.
    pub async fn next(&mut self) -> Vec<InfoHash> {
        unimplemented!()
    }
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
    /// The tracker of ours that is to hear of our pieces has an address that is none.
    #[error(transparent)]
    Catalogue(CatalogueError),
}

struct Listening {
    addrs: Vec<SocketAddr>,
    loops: Mutex<Vec<JoinHandle<()>>>,
}

impl Session {
    /// Starts listening. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn start(config: SessionConfig) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        let mut addrs = Vec::new();
        for &addr in &config.listen {
            let bound = Listener::bind(addr, config.interface.as_deref())
                .and_then(|l| l.local_addr().map(|at| (l, at)));
            let (listener, at) = bound.map_err(|error| StartError::Listen { addr, error })?;
            listeners.push(listener);
            addrs.push(at);
        }
        let seed = match config.seed {
            Some(seed) => seed,
            None => random_seed().map_err(StartError::Random)?,
        };
        let mut rng = Rng::from_seed(seed);
        let peer_id = PeerId::generate(&mut rng);
        let port = addrs.first().map(SocketAddr::port);
        // Trackers take the address we ask from for ours: it must be the one we listen on.
        let own = addrs.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let options = ClientOptions { local_ip: own, ..ClientOptions::default() };
        let trackers = TrackerClient::new(options)?;
        let half_open = Arc::new(Semaphore::new(config.max_half_open));
        let shared = Shared::new(config, peer_id, port, trackers, rng);
        let shared = Arc::new(shared.map_err(StartError::Threads)?);
        let loops = listeners
            .into_iter()
            .map(|listener| {
                tokio::spawn(accept_loop(listener, Arc::clone(&shared), Arc::clone(&half_open)))
            })
            .collect();
        let listening = Arc::new(Listening { addrs, loops: Mutex::new(loops) });
        Ok(Self { shared, listening })
    }

    /// Adds a torrent: checks what is on disk, then joins the swarm.
    ///
    /// # Errors
    /// If it is there already or its folder cannot be used.
    pub fn add(&self, add: AddTorrent) -> Result<TorrentHandle, AddError> {
        let info_hash = add.metainfo.info_hash();
        let mut torrents = self.shared.torrents.lock();
        if torrents.contains_key(&info_hash) {
            return Err(AddError::Duplicate(info_hash));
        }
        let (accepted, arrivals) = mpsc::channel(ACCEPTED_WAITING);
        let handle = torrent::spawn(Arc::clone(&self.shared), add, arrivals)?;
        torrents.insert(info_hash, Member { handle: handle.clone(), accepted });
        Ok(handle)
    }

    /// The torrent `info_hash`, if it is here.
    pub fn get(&self, info_hash: InfoHash) -> Option<TorrentHandle> {
        self.shared.torrents.lock().get(&info_hash).map(|member| member.handle.clone())
    }

    /// All torrents.
    pub fn torrents(&self) -> Vec<TorrentHandle> {
        self.shared.torrents.lock().values().map(|member| member.handle.clone()).collect()
    }

    /// Leaves the torrent's swarm; what is on disk stays. Says whether it was there.
    pub async fn remove(&self, info_hash: InfoHash) -> bool {
        let member = self.shared.torrents.lock().remove(&info_hash);
        let Some(member) = member else { return false };
        member.handle.stop().await;
        true
    }

    /// Leaves all swarms: trackers are told, data is flushed, within some seconds.
    pub async fn shutdown(&self) {
        for accepting in self.listening.loops.lock().drain(..) {
            accepting.abort();
        }
        let members: Vec<Member> =
            self.shared.torrents.lock().drain().map(|(_, member)| member).collect();
        let stops: Vec<_> = members
            .into_iter()
            .map(|member| tokio::spawn(async move { member.handle.stop().await }))
            .collect();
        let all = async {
            for stop in stops {
                // A torrent's task that panicked has stopped.
                let _ = stop.await;
            }
        };
        if tokio::time::timeout(SHUTDOWN, all).await.is_err() {
            warn!("some torrents did not stop within {SHUTDOWN:?}");
        }
    }

    /// Addresses peers can connect to, with the ports the system chose.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listening.addrs
    }

    /// What we call ourselves.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer_id
    }

    /// The torrents whose status has changed, as it comes; each once, however often it changed
    /// since it was given last. One such stream may be had from a session at a time.
    pub fn changes(&self) -> Changes {
        unimplemented!()
    }

    /// Changes what can be changed while it runs: `max_connections`, `max_peers_per_torrent`,
    /// `upload_slots`, `choke` (for torrents that begin anew).
    pub fn set_bounds(
        &self,
        _connections: usize,
        _per_torrent: usize,
        _upload_slots: usize,
        _choke: ChokePolicy,
    ) {
        unimplemented!()
    }

    /// Neither dials nor accepts these, and drops those that are connected.
    pub fn set_block_list(&self, _list: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>) {
        unimplemented!()
    }

    /// Changes the rate limits, in bytes a second; `None` is no limit.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) {
        self.shared.upload.set(upload);
        self.shared.download.set(download);
    }
}

async fn accept_loop(listener: Listener, shared: Arc<Shared>, half_open: Arc<Semaphore>) {
    loop {
        let (stream, addr) = match listener.next().await {
            Ok(connection) => connection,
            // Somebody who changed his mind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                // Out of descriptors or memory: it passes, and spinning would not help.
                warn!(%error, "cannot accept a connection at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&half_open).try_acquire_owned() else {
            debug!(%addr, "refused: too many connections are in their handshake");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = |info_hash| {
                let known = shared.torrents.lock().contains_key(&info_hash);
                known.then(|| Handshake::ours(info_hash, shared.peer_id))
            };
            let time = shared.config.handshake_timeout;
            match net::accept(stream, addr, time, answer).await {
                Ok(accepted) => {
                    let torrents = shared.torrents.lock();
                    let member = torrents.get(&accepted.theirs.info_hash);
                    if member.is_none_or(|member| member.accepted.try_send(accepted).is_err()) {
                        debug!(%addr, "dropped: its torrent takes no connections now");
                    }
                }
                Err(error) => debug!(%addr, %error, "a connection came to nothing"),
            }
            drop(permit);
        });
    }
}

fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// Connections that wait for a torrent's task.
const ACCEPTED_WAITING: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Trackers have three seconds of these.
const SHUTDOWN: Duration = Duration::from_secs(8);
