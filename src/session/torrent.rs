//! One torrent: the task that owns its swarm and only pumps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::announcer::{Announcer, TrackerStatus};
use crate::base::{Bitfield, Geometry};
use crate::metainfo::Metainfo;
use crate::net::Accepted;
use crate::storage::{self, CheckProgress, Store, StoreMode};
use crate::tracker_client::Catalogue;

use super::engine::AddError;
use super::handle::{Command, TorrentHandle};
use super::holdings::Reporter;
use super::rates::Rates;
use super::run::Run;
use super::shared::Shared;
use super::source::StoreSource;
use super::trackers::{AnnounceTask, Counters, Tell};
use super::{AddTorrent, TorrentError, TorrentEvent, TorrentState, TorrentStatus};

/// Starts the task of a torrent and gives its handle. `accepted` brings the connections that
/// peers opened.
pub(super) fn spawn(
    shared: Arc<Shared>,
    add: AddTorrent,
    accepted: mpsc::Receiver<Accepted>,
) -> Result<TorrentHandle, AddError> {
    let metainfo = add.metainfo;
    let mode = if add.upload_only { StoreMode::ReadOnly } else { StoreMode::ReadWrite };
    let files = Arc::clone(&shared.files);
    let store = Arc::new(Store::new(&add.root, Arc::clone(&metainfo), files, mode)?);
    let catalogue = match add.catalogue.filter(|_| shared.config.report_holdings) {
        Some(base) => Some(Arc::new(Catalogue::new(&base).map_err(AddError::Catalogue)?)),
        None => None,
    };
    let tiers = add.trackers.unwrap_or_else(|| {
        let known = |url: &String| url.parse().ok();
        metainfo.trackers().iter().map(|tier| tier.iter().filter_map(known).collect()).collect()
    });

    let mut rng = shared.rng();
    let key = rng.next_u64() as u32;
    let port = shared.listen_port.unwrap_or(PORT_OF_NOBODY);
    let counters = Arc::new(Counters::default());
    counters.left.store(metainfo.info().geometry().total_len(), Ordering::Relaxed);
    let (found_tx, found) = mpsc::channel(4);
    let (tells, told) = mpsc::channel(16);
    let (statuses, trackers) = watch::channel(Vec::new());
    let announces = AnnounceTask {
        shared: Arc::clone(&shared),
        info_hash: metainfo.info_hash(),
        announcer: Announcer::new(tiers, shared.rng()),
        counters: Arc::clone(&counters),
        port,
        key,
        tells: told,
        found: found_tx,
        statuses,
    };

    let status = watch::Sender::new(first_status(&metainfo));
    let (commands_tx, commands) = mpsc::channel(16);
    let handle = TorrentHandle::new(Arc::clone(&metainfo), commands_tx, status.subscribe());
    if let Some(catalogue) = catalogue {
        let reporter =
            Reporter { catalogue, handle: handle.clone(), peer_id: shared.peer_id, port, key };
        tokio::spawn(reporter.run());
    }

    let task = Torrent {
        geometry: metainfo.info().geometry(),
        source: Arc::new(StoreSource { store: Arc::clone(&store), shared: Arc::clone(&shared) }),
        shared,
        metainfo,
        store,
        counters,
        tells,
        trackers,
        status,
        user_peers: add.peers,
        upload_only: add.upload_only,
        commands,
        accepted,
        found,
        lost_peers: Vec::new(),
        earlier: Moved::default(),
        unchecked: false,
        rates: Rates::default(),
        paused: None,
        next_peer: 0,
        announces: Some(announces),
    };
    tokio::spawn(task.run(add.assume_complete));
    Ok(handle)
}

/// Everything of a torrent that outlives a recheck.
pub(super) struct Torrent {
    pub shared: Arc<Shared>,
    pub metainfo: Arc<Metainfo>,
    pub geometry: Geometry,
    pub store: Arc<Store>,
    pub source: Arc<StoreSource>,
    pub counters: Arc<Counters>,
    pub tells: mpsc::Sender<Tell>,
    pub trackers: watch::Receiver<Vec<TrackerStatus>>,
    pub status: watch::Sender<TorrentStatus>,
    pub user_peers: Vec<SocketAddr>,
    pub upload_only: bool,
    pub commands: mpsc::Receiver<Command>,
    pub accepted: mpsc::Receiver<Accepted>,
    pub found: mpsc::Receiver<Vec<SocketAddr>>,
    /// Addresses to begin with after a check: whom we had dialled, and what trackers said.
    pub lost_peers: Vec<SocketAddr>,
    /// What moved before the last check.
    pub earlier: Moved,
    /// What is on disk could not be looked at.
    pub unchecked: bool,
    pub rates: Rates,
    pub paused: Option<Pause>,
    pub next_peer: u32,
    /// Started once the first check is done, so that trackers hear what is really missing.
    announces: Option<AnnounceTask>,
}

/// Payload bytes.
#[derive(Default)]
pub(super) struct Moved {
    pub downloaded: u64,
    pub uploaded: u64,
}

/// Why nothing moves.
pub(super) struct Pause {
    pub error: Option<TorrentError>,
}

/// How a phase ended.
pub(super) enum Next {
    /// Look at the disk anew.
    Check,
    /// Leave, and say so here.
    Stop(Option<oneshot::Sender<()>>),
}

impl Torrent {
    async fn run(mut self, assume_complete: bool) {
        let pieces = self.geometry.pieces();
        let mut known = assume_complete.then(|| Bitfield::full(pieces));
        let stop = loop {
            let have = match known.take() {
                Some(have) => have,
                None => match self.check().await {
                    Ok(have) => have,
                    Err(stop) => break stop,
                },
            };
            let have = match self.prepare(have).await {
                Ok(have) => have,
                Err(stop) => break stop,
            };
            let left = self.geometry.total_len() - bytes_of(&self.geometry, &have);
            self.counters.left.store(left, Ordering::Relaxed);
            if self.paused.is_none() {
                self.start_announcing();
            }
            match Run::new(&mut self, have).pump_until_end().await {
                Next::Check => {}
                Next::Stop(reply) => break reply,
            }
        };
        self.leave(stop).await;
    }

    /// Nobody is sent here before there is something to be had: not while the first check goes on
    /// or the torrent waits for its disk.
    pub fn start_announcing(&mut self) {
        if let Some(announces) = self.announces.take() {
            tokio::spawn(announces.run());
        }
    }

    /// Remembers addresses over checks.
    pub fn note_user_peers(&mut self, addrs: &[SocketAddr]) {
        for addr in addrs {
            if self.user_peers.len() < USER_PEERS && !self.user_peers.contains(addr) {
                self.user_peers.push(*addr);
            }
        }
    }

    /// Hashes what is on disk, on the side. Answers commands meanwhile; a stop ends it.
    async fn check(&mut self) -> Result<Bitfield, Option<oneshot::Sender<()>>> {
        let total = self.geometry.pieces();
        let done = Arc::new(AtomicU32::new(0));
        let cancel = Arc::new(AtomicBool::new(false));
        // However this ends; a runtime that shuts down would wait for the whole check.
        let _cancel = CancelOnDrop(Arc::clone(&cancel));
        self.unchecked = false;
        self.status.send_modify(|status| {
            status.state = TorrentState::Checking { done: 0, total };
            (status.peers, status.seeds, status.eta) = (0, 0, None);
            (status.download_rate, status.upload_rate) = (0.0, 0.0);
        });
        let mut checking = {
            let store = Arc::clone(&self.store);
            let (done, cancel) = (Arc::clone(&done), Arc::clone(&cancel));
            tokio::task::spawn_blocking(move || {
                let progress = |at: CheckProgress| done.store(at.pieces_done, Ordering::Relaxed);
                storage::check(&store, None, progress, &cancel)
            })
        };
        let mut tick = tokio::time::interval(CHECK_TICK);
        loop {
            tokio::select! {
                checked = &mut checking => {
                    let error = match checked {
                        Ok(Ok(have)) => return Ok(have),
                        Ok(Err(error)) => TorrentError::Storage(error.to_string()),
                        Err(panic) => TorrentError::Storage(format!("the check broke off: {panic}")),
                    };
                    self.fail(error);
                    self.unchecked = true;
                    return Ok(Bitfield::empty(total));
                }
                Some(addrs) = self.found.recv() => {
                    self.lost_peers.extend(addrs);
                    self.lost_peers.truncate(USER_PEERS);
                }
                _ = tick.tick() => {
                    let done = done.load(Ordering::Relaxed);
                    self.status.send_modify(|s| s.state = TorrentState::Checking { done, total });
                }
                command = self.commands.recv() => match command {
                    None => return Err(None),
                    Some(Command::Stop(reply)) => return Err(Some(reply)),
                    Some(Command::Pause) => self.paused = Some(Pause { error: None }),
                    Some(Command::Resume) => self.paused = None,
                    Some(Command::AddPeers(peers)) => self.note_user_peers(&peers),
                    Some(Command::Peers(reply)) => drop(reply.send(Vec::new())),
                    Some(Command::Have(reply)) => drop(reply.send(Bitfield::empty(total))),
                    // It is being done; what remains is to go on after it.
                    Some(Command::Recheck) => self.paused = None,
                    Some(Command::Reannounce) => {}
                },
            }
        }
    }

    /// Makes folders and empty files if anything is missing. A disk that refuses pauses the
    /// torrent.
    async fn prepare(&mut self, have: Bitfield) -> Result<Bitfield, Option<oneshot::Sender<()>>> {
        if self.unchecked || (have.is_full() && self.geometry.pieces() > 0) {
            return Ok(have);
        }
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || store.prepare()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.unchecked = true;
                self.fail(TorrentError::Storage(error.to_string()));
            }
            Err(panic) => {
                self.unchecked = true;
                self.fail(TorrentError::Storage(format!("setting up broke off: {panic}")));
            }
        }
        Ok(have)
    }

    /// Tells the trackers and flushes, then answers.
    async fn leave(mut self, reply: Option<oneshot::Sender<()>>) {
        // Announces that have not begun will not answer a stop.
        drop(self.announces.take());
        // And one that waits to tell of peers would not hear it.
        drop((self.found, self.accepted));
        let (told, gone) = oneshot::channel();
        let announced = async {
            if self.tells.send(Tell::Stop(told)).await.is_ok() {
                // The announcing task may be gone, which is as good.
                let _ = gone.await;
            }
        };
        let store = Arc::clone(&self.store);
        let synced = tokio::task::spawn_blocking(move || {
            let synced = store.sync();
            store.close_files();
            synced
        });
        let ((), synced) = tokio::join!(announced, synced);
        if let Ok(Err(error)) = synced {
            warn!(%error, "data could not be flushed to disk");
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    pub fn fail(&mut self, error: TorrentError) {
        warn!(torrent = %self.metainfo.info_hash(), %error, "paused");
        self.observe(&TorrentEvent::Paused { error: error.clone() });
        self.paused = Some(Pause { error: Some(error) });
    }

    pub fn observe(&self, event: &TorrentEvent) {
        if let Some(observer) = self.shared.observer() {
            observer.event(&self.metainfo, event);
        }
    }
}

/// Tells a check to end when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn first_status(metainfo: &Metainfo) -> TorrentStatus {
    let geometry = metainfo.info().geometry();
    TorrentStatus {
        name: metainfo.info().name().to_owned(),
        info_hash: metainfo.info_hash(),
        state: TorrentState::Checking { done: 0, total: geometry.pieces() },
        pieces_total: geometry.pieces(),
        pieces_have: 0,
        bytes_total: geometry.total_len(),
        bytes_have: 0,
        bytes_wanted: geometry.total_len(),
        bytes_wanted_have: 0,
        corrupt: 0,
        downloaded: 0,
        uploaded: 0,
        download_rate: 0.0,
        upload_rate: 0.0,
        peers: 0,
        seeds: 0,
        peers_giving: 0,
        peers_taking: 0,
        eta: None,
        trackers: Vec::new(),
    }
}

fn bytes_of(geometry: &Geometry, have: &Bitfield) -> u64 {
    have.iter().map(|piece| u64::from(geometry.piece_size(piece))).sum()
}

/// Announced by a session that accepts no peers: BEP 3 knows no way to say "none", and port 0 is
/// refused by trackers. 9 is the discard service.
const PORT_OF_NOBODY: u16 = 9;

/// Addresses remembered for one torrent that the user gave: as many as a swarm looks at.
const USER_PEERS: usize = 1_000;
const CHECK_TICK: Duration = Duration::from_millis(100);
