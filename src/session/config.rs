//! What a session and a torrent are started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::announce::TrackerUrl;
use crate::metainfo::Metainfo;
use crate::swarm::ChokePolicy;

use super::Observer;

/// How a session behaves. The defaults are those of `config.toml`.
#[derive(Clone)]
pub struct SessionConfig {
    /// Addresses to accept peers on, over TCP. Port 0 lets the system choose. None: dial only.
    pub listen: Vec<SocketAddr>,
    /// Whom swarms serve.
    pub choke: ChokePolicy,
    /// Peers served at a time by one torrent under [`ChokePolicy::TitForTat`].
    pub upload_slots: usize,
    /// Connections of one torrent at most.
    pub max_peers_per_torrent: usize,
    /// Connections in all at most.
    pub max_connections: usize,
    /// Connections in all whose handshake is not done, at most, each way.
    pub max_half_open: usize,
    /// Bytes a second sent to peers at most.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken from peers at most.
    pub download_limit: Option<u64>,
    /// Bytes of pieces in memory at most: asked for, arrived, being hashed. Shared by the
    /// torrents that download; each may always have one piece.
    pub memory_budget: u64,
    /// Threads that hash and write.
    pub hash_threads: usize,
    /// Open files at most.
    pub open_files: usize,
    /// Report which pieces we hold to trackers that are ours.
    pub report_holdings: bool,
    /// Time a peer has for its handshake.
    pub handshake_timeout: Duration,
    /// Time a dial may take.
    pub connect_timeout: Duration,
    /// Seed of all chance in the session; `None` takes one from the operating system.
    pub seed: Option<u64>,
    /// Told of every event of every torrent.
    pub observer: Option<Arc<dyn Observer>>,
}

/// A torrent to be added to a session.
#[derive(Clone)]
pub struct AddTorrent {
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    /// The folder its name lies in, or will.
    pub root: PathBuf,
    /// Trackers by tier (BEP 12) instead of those in the metainfo.
    pub trackers: Option<Vec<Vec<TrackerUrl>>>,
    /// Base URL of the tracker of ours that wants to know which pieces we hold.
    pub catalogue: Option<String>,
    /// Addresses of peers known otherwise.
    pub peers: Vec<SocketAddr>,
    /// The content was hashed a moment ago: hold everything without a check.
    pub assume_complete: bool,
    /// Serve what is there and neither ask for nor write anything.
    pub upload_only: bool,
}

impl AddTorrent {
    /// `metainfo` beneath `root`, with its own trackers.
    pub fn new(metainfo: Arc<Metainfo>, root: impl Into<PathBuf>) -> Self {
        Self {
            metainfo,
            root: root.into(),
            trackers: None,
            catalogue: None,
            peers: Vec::new(),
            assume_complete: false,
            upload_only: false,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            choke: ChokePolicy::TitForTat,
            upload_slots: 8,
            max_peers_per_torrent: 80,
            max_connections: 1_000,
            max_half_open: 100,
            upload_limit: None,
            download_limit: None,
            memory_budget: 64 << 20,
            hash_threads: std::thread::available_parallelism().map_or(2, usize::from),
            open_files: 256,
            report_holdings: true,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            seed: None,
            observer: None,
        }
    }
}
