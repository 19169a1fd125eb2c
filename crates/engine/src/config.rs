//! Configuration of a session and of a torrent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use piecework_core::metainfo::Metainfo;
use piecework_core::{Checkpoint, InfoHash, Priority, shared_default};
use piecework_proto::announce::{CatalogueUrl, TrackerUrl};
use piecework_proto::encryption::EncryptionPolicy;
use piecework_storage::{FolderIdentity, HashPool};
use piecework_swarm::admission::Shares;
use piecework_swarm::announcer::TierPolicy;
use piecework_swarm::{ChokePolicy, HeardAddress};

use super::Observer;

/// How a session behaves. The defaults are those of `config.toml`.
#[derive(Clone)]
pub struct SessionConfig {
    /// Addresses to accept peers on, over TCP. Port 0 lets the system choose. Without any, the
    /// session only dials.
    pub listen: Vec<SocketAddr>,
    /// When listening on `0.0.0.0` or `[::]`, also listen on the same port of the other family, if
    /// this host has that family and the port is free there.
    pub both_families: bool,
    /// Which connections to peers are encrypted.
    pub encryption: EncryptionPolicy,
    /// Peers name other peers to each other (BEP 11), except those of private torrents.
    pub peer_exchange: bool,
    /// Torrents are announced on the local network, and peers there are found (BEP 14), except those of
    /// private torrents. Off unless a program turns it on: tests must not find each other.
    pub local_discovery: bool,
    /// Which peers are served.
    pub choke: ChokePolicy,
    /// Peers served at a time by one torrent under [`ChokePolicy::TitForTat`].
    pub upload_slots: usize,
    /// Connections of one torrent at most.
    pub max_peers_per_torrent: usize,
    /// Connections in all at most.
    pub max_connections: usize,
    /// Connections of one torrent that a public IPv4 address or IPv6 /64 keeps while others wait
    /// for a place.
    pub max_peers_per_ip: usize,
    /// The same for the connections of all torrents.
    pub max_connections_per_ip: usize,
    /// How many times as many connections an address of this machine or of a private network keeps.
    pub local_share: usize,
    /// Connections at most whose handshake is not done, each way.
    pub max_half_open: usize,
    /// Bytes a second sent to peers at most.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken from peers at most.
    pub download_limit: Option<u64>,
    /// Bytes of pieces in memory at most: requested, received, being hashed. They are divided among
    /// the torrents that receive something, by how much they receive. Pieces for which there is no
    /// room go to the disk block by block, so that every torrent can always have one.
    pub memory_budget: u64,
    /// Reserve the disk space that a download needs when it begins, where the file system can.
    pub reserve: bool,
    /// Threads that hash and write.
    pub hash_threads: usize,
    /// A pool of threads that hash and write, which several sessions of a process may share.
    /// `hash_threads` is not used then.
    pub hash_pool: Option<Arc<HashPool>>,
    /// Files of content held open at most. 0 means a quarter of the descriptors that the process
    /// may have, and 2,048 at most.
    pub open_files: usize,
    /// Report which pieces we hold to trackers that are ours.
    pub report_holdings: bool,
    /// Which tiers of trackers are announced to.
    pub tier_policy: TierPolicy,
    /// Also announce to trackers in private networks that only a `.torrent` names. They count as
    /// [`Provenance::Nearby`](piecework_proto::announce::Provenance::Nearby) then.
    pub private_trackers: bool,
    /// Give files the names that torrents give them, whatever these do to a terminal. This is for
    /// those who add torrents: the session itself uses [`AddTorrent::names`].
    pub raw_names: bool,
    /// Time a peer has for its handshake.
    pub handshake_timeout: Duration,
    /// Time a dial may take.
    pub connect_timeout: Duration,
    /// Seed of the session's random numbers; `None` takes one from the operating system.
    pub seed: Option<u64>,
    /// Secret that announce keys are made from; `None` makes one. A program that keeps the one from
    /// [`Session::announce_secret`](crate::Session::announce_secret) is the same peer to trackers
    /// when it is started again, even after it was killed.
    pub announce_secret: Option<[u8; 32]>,
    /// Receives every event of every torrent.
    pub observer: Option<Arc<dyn Observer>>,
    /// Keeps a checkpoint of each torrent. With `None` nothing is kept, and nothing is flushed
    /// before the end.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Torrents that are checked at a time; others wait.
    pub checks: usize,
    /// Bytes of a check after which its progress is kept, so that a later process goes on from
    /// there. After 30 s it is kept in any case.
    pub keep_check_every: u64,
    /// Takes part in the DHT, to find peers of public torrents. `None` does not.
    pub dht: Option<DhtOptions>,
    /// Network interface that all sockets are bound to (`SO_BINDTODEVICE`), by name.
    pub interface: Option<String>,
    /// Folders below which no symbolic link is followed, not even on the way to a torrent's root,
    /// as in [`StoreOptions::keep_to`](piecework_storage::StoreOptions::keep_to).
    pub keep_to: Arc<Vec<PathBuf>>,
}

/// How a session takes part in the DHT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DhtOptions {
    /// Nodes to begin at, as `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// The name of a network that is separate from the public one.
    pub network: Option<String>,
    /// What [`Session::dht_table`](crate::Session::dht_table) of an earlier session returned.
    pub table: Option<Vec<u8>>,
}

/// Keeps checkpoints of torrents. It is called on a torrent's own task, so it must return at once
/// and never block.
pub trait Keeper: Send + Sync {
    /// Keeps `checkpoint` in place of earlier ones. What it says of the torrent is on the disk.
    fn keep(&self, info_hash: InfoHash, checkpoint: Checkpoint);
}

/// Options of a torrent that can be changed while it is in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentOptions {
    /// Bytes a second sent by this torrent at most.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken by this torrent at most.
    pub download_limit: Option<u64>,
    /// Whether the session's limits apply to it too.
    pub session_limits: bool,
    /// Connections at most; `None` uses the session's number.
    pub max_peers: Option<usize>,
    /// Priority of each file, in the metainfo's order, padding included. Files beyond the end of
    /// the list are [`Priority::Normal`].
    pub files: Vec<Priority>,
    /// Download pieces in order instead of the rarest first.
    pub sequential: bool,
}

impl Default for TorrentOptions {
    fn default() -> Self {
        Self {
            upload_limit: None,
            download_limit: None,
            session_limits: true,
            max_peers: None,
            files: Vec::new(),
            sequential: false,
        }
    }
}

shared_default!(TorrentOptions);

/// A torrent to be added to a session.
#[derive(Clone)]
pub struct AddTorrent {
    /// The torrent's metainfo. If it has a source ([`Metainfo::set_source`]), its bytes are dropped
    /// while the torrent does nothing.
    pub metainfo: Arc<Metainfo>,
    /// The folder in which the torrent's top file or folder lies, or will lie.
    pub root: PathBuf,
    /// Trackers by tier (BEP 12) in place of those in the metainfo, which count as foreign
    /// ([`Provenance`](piecework_proto::announce::Provenance)).
    pub trackers: Option<Vec<Vec<TrackerUrl>>>,
    /// The Piecework tracker that pieces held are reported to.
    pub catalogue: Option<CatalogueUrl>,
    /// Addresses of peers that a user has named.
    pub peers: Vec<SocketAddr>,
    /// Addresses of peers, and where they were heard of.
    pub found: Vec<HeardAddress>,
    /// The content was hashed a moment ago: all of it is held, without a check.
    pub assume_complete: bool,
    /// Serve what is there, and neither request nor write anything.
    pub upload_only: bool,
    /// Replace files that have the names of the torrent's files and are not its own.
    pub overwrite: bool,
    /// Such files were in the way when `checkpoint` was taken, so they are looked for again.
    pub hindered: bool,
    /// All of it is there, and it may share files with torrents that are all there too. As long as
    /// it does, it writes nothing.
    pub shares_files: bool,
    /// Where `root` really lies, if that is known. `None` looks it up, which may block.
    pub folder: Option<FolderIdentity>,
    /// Do not start until resumed, and check nothing that `checkpoint` settles.
    pub paused: bool,
    /// What an earlier run has kept. Only what may have changed since is checked.
    pub checkpoint: Option<Checkpoint>,
    /// The torrent's options.
    pub options: TorrentOptions,
    /// Ending of the names of unfinished files; empty for none.
    pub incomplete_suffix: String,
    /// Files with other names than in the metainfo, by their number there: their path beneath
    /// `root`.
    pub names: BTreeMap<usize, Vec<String>>,
}

impl AddTorrent {
    /// Returns a torrent to be added beneath `root`, with its own trackers.
    pub fn new(metainfo: Arc<Metainfo>, root: impl Into<PathBuf>) -> Self {
        Self {
            metainfo,
            root: root.into(),
            trackers: None,
            catalogue: None,
            peers: Vec::new(),
            found: Vec::new(),
            assume_complete: false,
            upload_only: false,
            overwrite: false,
            hindered: false,
            shares_files: false,
            folder: None,
            paused: false,
            checkpoint: None,
            options: TorrentOptions::default(),
            incomplete_suffix: String::new(),
            names: BTreeMap::new(),
        }
    }
}

impl SessionConfig {
    /// Returns how many of a torrent's places one address keeps.
    pub(super) fn torrent_shares(&self) -> Shares {
        let local = self.max_peers_per_ip.saturating_mul(self.local_share);
        Shares { public: self.max_peers_per_ip, local }
    }

    /// Returns how many of all places one address keeps.
    pub(super) fn session_shares(&self) -> Shares {
        let local = self.max_connections_per_ip.saturating_mul(self.local_share);
        Shares { public: self.max_connections_per_ip, local }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            both_families: true,
            encryption: EncryptionPolicy::Allow,
            peer_exchange: true,
            local_discovery: false,
            choke: ChokePolicy::TitForTat,
            upload_slots: 8,
            max_peers_per_torrent: 80,
            max_connections: 1_000,
            max_peers_per_ip: 8,
            max_connections_per_ip: 100,
            local_share: 8,
            max_half_open: 100,
            upload_limit: None,
            download_limit: None,
            memory_budget: 64 << 20,
            hash_threads: std::thread::available_parallelism().map_or(2, usize::from),
            hash_pool: None,
            open_files: 0,
            reserve: false,
            report_holdings: true,
            tier_policy: TierPolicy::All,
            private_trackers: false,
            raw_names: false,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            seed: None,
            announce_secret: None,
            observer: None,
            keeper: None,
            checks: 2,
            keep_check_every: 4 << 30,
            dht: None,
            interface: None,
            keep_to: Arc::default(),
        }
    }
}
