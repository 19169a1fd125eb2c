//! What a session and a torrent are started with.

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
use piecework_swarm::ChokePolicy;
use piecework_swarm::admission::Shares;
use piecework_swarm::announcer::TierPolicy;

use super::Observer;

/// How a session behaves. The defaults are those of `config.toml`.
#[derive(Clone)]
pub struct SessionConfig {
    /// Addresses to accept peers on, over TCP. Port 0 lets the system choose. None: dial only.
    pub listen: Vec<SocketAddr>,
    /// Where `0.0.0.0` or `[::]` is listened on, listen on the same port of the other one as well, if
    /// this host has that family and the port is free there.
    pub both_families: bool,
    /// Which connections to peers are encrypted.
    pub encryption: EncryptionPolicy,
    /// Whom swarms serve.
    pub choke: ChokePolicy,
    /// Peers served at a time by one torrent under [`ChokePolicy::TitForTat`].
    pub upload_slots: usize,
    /// Connections of one torrent at most.
    pub max_peers_per_torrent: usize,
    /// Connections in all at most.
    pub max_connections: usize,
    /// Connections of one torrent that a public IPv4 address or IPv6 /64 keeps although others
    /// wait for a place.
    pub max_peers_per_ip: usize,
    /// The same for the connections of all torrents.
    pub max_connections_per_ip: usize,
    /// How many times as much an address of this machine or of a private network keeps.
    pub local_share: usize,
    /// Connections in all whose handshake is not done, at most, each way.
    pub max_half_open: usize,
    /// Bytes a second sent to peers at most.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken from peers at most.
    pub download_limit: Option<u64>,
    /// Bytes of pieces in memory at most: asked for, arrived, being hashed. Divided among the
    /// torrents that get something, by what they get; pieces for which there is no room go to the
    /// disk block by block, so that each may always have one.
    pub memory_budget: u64,
    /// Reserve the room that a download needs when it begins, where the file system can.
    pub reserve: bool,
    /// Threads that hash and write.
    pub hash_threads: usize,
    /// Threads of one's own that hash and write, which several sessions of a process may share;
    /// `hash_threads` counts for nothing then.
    pub hash_pool: Option<Arc<HashPool>>,
    /// Files of content held open at most; 0 for a quarter of the descriptors that the process may
    /// have, 2,048 at most.
    pub open_files: usize,
    /// Report which pieces we hold to trackers that are ours.
    pub report_holdings: bool,
    /// Which tiers of trackers are announced to.
    pub tier_policy: TierPolicy,
    /// Announce also to trackers in private networks that only a `.torrent` names. They count as
    /// [`Provenance::Nearby`](piecework_proto::announce::Provenance::Nearby) then.
    pub private_trackers: bool,
    /// Give files the names that torrents give them, whatever these do to a terminal. For those who
    /// add torrents: a session itself takes [`AddTorrent::names`].
    pub raw_names: bool,
    /// Time a peer has for its handshake.
    pub handshake_timeout: Duration,
    /// Time a dial may take.
    pub connect_timeout: Duration,
    /// Seed of all chance in the session; `None` takes one from the operating system.
    pub seed: Option<u64>,
    /// Secret that the keys we announce are made from; `None` makes one. A program that keeps it from
    /// [`Session::announce_secret`](crate::Session::announce_secret) is the same peer to
    /// trackers when it is started again, even if it was killed.
    pub announce_secret: Option<[u8; 32]>,
    /// Told of every event of every torrent.
    pub observer: Option<Arc<dyn Observer>>,
    /// Keeps what is known for certain of each torrent; `None`: nothing is kept, nothing is
    /// flushed before the end.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Torrents whose disk is looked at at a time; others wait.
    pub checks: usize,
    /// Bytes of a check after which it is kept how far it is, so that a later process goes on from
    /// there; after 30 s it is kept in any case.
    pub keep_check_every: u64,
    /// Network interface that all sockets are bound to (`SO_BINDTODEVICE`), by name.
    pub interface: Option<String>,
    /// Folders below which no symbolic link is followed even on the way to a torrent's root, as in
    /// [`StoreOptions::keep_to`](piecework_storage::StoreOptions::keep_to).
    pub keep_to: Arc<Vec<PathBuf>>,
}

/// Keeps what is known for certain of each torrent. Called on a torrent's own task: it must return
/// at once and never block.
pub trait Keeper: Send + Sync {
    /// What `checkpoint` says of the torrent is on the disk; it takes the place of earlier ones.
    fn keep(&self, info_hash: InfoHash, checkpoint: Checkpoint);
}

/// What can be changed of a torrent while it is in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentOptions {
    /// Bytes a second sent at most by this torrent.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken at most by this torrent.
    pub download_limit: Option<u64>,
    /// The session's limits hold for it too.
    pub session_limits: bool,
    /// Connections at most; `None` is the session's number.
    pub max_peers: Option<usize>,
    /// How much each file is wanted, in the metainfo's order, padding included; those behind the
    /// end are [`Priority::Normal`].
    pub files: Vec<Priority>,
    /// Pieces in their order instead of the rarest first.
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
    /// What it is. If it has a source ([`Metainfo::set_source`]), its bytes are let go of while it
    /// does nothing.
    pub metainfo: Arc<Metainfo>,
    /// The folder its name lies in, or will.
    pub root: PathBuf,
    /// Trackers by tier (BEP 12) instead of those in the metainfo, which are foreign
    /// ([`Provenance`](piecework_proto::announce::Provenance)).
    pub trackers: Option<Vec<Vec<TrackerUrl>>>,
    /// The tracker of ours that wants to know which pieces we hold.
    pub catalogue: Option<CatalogueUrl>,
    /// Addresses of peers known otherwise.
    pub peers: Vec<SocketAddr>,
    /// The content was hashed a moment ago: hold everything without a check.
    pub assume_complete: bool,
    /// Serve what is there and neither ask for nor write anything.
    pub upload_only: bool,
    /// Files that have its files' names and are not its own are replaced.
    pub overwrite: bool,
    /// Such files stood in its way when `checkpoint` was taken: they are looked for again.
    pub hindered: bool,
    /// It is all there, and may share files with torrents that are all there too: as long as it
    /// does, it writes nothing.
    pub shares_files: bool,
    /// Where `root` really lies, if that was looked at already; `None` looks, and may block.
    pub folder: Option<FolderIdentity>,
    /// Nothing moves until it is resumed, and nothing is checked that `checkpoint` settles.
    pub paused: bool,
    /// What an earlier run knew: only what may have changed since is looked at.
    pub checkpoint: Option<Checkpoint>,
    /// What was chosen for it.
    pub options: TorrentOptions,
    /// What the names of unfinished files end with; empty for nothing.
    pub incomplete_suffix: String,
    /// Files that have other names than the metainfo gives them, by their number there: their
    /// path beneath `root`.
    pub names: BTreeMap<usize, Vec<String>>,
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
    /// What one address keeps of a torrent's places.
    pub(super) fn torrent_shares(&self) -> Shares {
        let local = self.max_peers_per_ip.saturating_mul(self.local_share);
        Shares { public: self.max_peers_per_ip, local }
    }

    /// What one address keeps of all places.
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
            interface: None,
            keep_to: Arc::default(),
        }
    }
}
