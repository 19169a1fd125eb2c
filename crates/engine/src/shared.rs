//! What all torrents of a session share.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use hashbrown::{Equivalent, HashSet};
use parking_lot::{Mutex, RwLock};
use rustix::process::{Resource, getrlimit};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use crate::net::{Limiter, PeerStream, RunMemory};
use crate::tracker_client::TrackerClient;
use piecework_core::{AnnounceKey, BLOCK_LEN, BlockPool, InfoHash, Moment, PeerId, Rng};
use piecework_proto::encryption::{EncryptionPolicy, torrent_mark};
use piecework_storage::{FileHandles, HashPool};
use piecework_swarm::ChokePolicy;

use super::changes::Marks;
use super::claims::Claims;
use super::crew::{Crew, Turns};
use super::entry::Entry;
use super::gate::Gate;
use super::holdings::Reporters;
use super::hub::Hub;
use super::memory::Memory;
use super::mounts::Mounts;
use super::places::{Place, Places};
use super::starts::Starts;
use super::sums::Sums;
use super::wall_clock::WallClock;
use super::{Observer, SessionConfig};

/// One session's means, handed to each of its torrents.
pub(super) struct Shared {
    pub config: SessionConfig,
    pub runtime: Handle,
    pub peer_id: PeerId,
    /// What the keys are made from that trackers know us by.
    pub announce_secret: [u8; 32],
    /// The port we accept peers on, if we do.
    pub listen_port: Option<u16>,
    pub pool: BlockPool,
    pub runs: RunMemory,
    pub memory: Arc<Memory>,
    pub hashing: Arc<HashPool>,
    pub files: Arc<FileHandles>,
    pub upload: Limiter,
    pub download: Limiter,
    pub trackers: TrackerClient,
    /// Torrents whose files may be made at a time.
    pub preparing: Semaphore,
    /// Downloads that may begin at a time.
    pub starts: Starts,
    /// Dials that may still be under way.
    pub dialing: Arc<Semaphore>,
    /// Connections that were accepted and are in their handshake.
    pub gate: Gate,
    /// Keys that are computed for peers that dial us.
    pub key_exchanges: Limiter,
    /// Torrents that download and are awake.
    leeching: AtomicUsize,
    pub torrents: Mutex<Torrents>,
    /// Which torrent has which paths.
    pub claims: Mutex<Claims<Weak<Entry>>>,
    /// Held by whoever looks at claims and then makes one.
    pub claiming: Mutex<()>,
    /// Which disks the folders of torrents lie on.
    pub mounts: Arc<Mounts>,
    pub hub: Hub,
    pub reporters: Reporters,
    pub crew: Crew,
    pub turns: Turns,
    pub changes: Arc<Marks>,
    pub watchers: Watchers,
    pub sums: Sums,
    pub bounds: Mutex<Bounds>,
    blocked: RwLock<Option<BlockList>>,
    pub places: Places,
    /// Connections for which the process has descriptors.
    affordable: usize,
    start: Instant,
    wall_clock: WallClock,
    rng: Mutex<Rng>,
}

/// A torrent, found by its info-hash: a set of these is as large as one of pointers.
pub(super) struct Known(pub Arc<Entry>);

/// Wakes those who wait for a torrent to change. Few are waited for, so some share one: whom it
/// does not concern looks and waits on.
pub(super) struct Watchers([Notify; WATCHERS]);

/// A torrent, found by what encrypted handshakes call it. The mark is computed from the info-hash
/// when it is needed, so that a torrent costs no more than a pointer here too.
pub(super) struct Marked(pub Arc<Entry>);

/// What an encrypted handshake calls a torrent.
pub(super) struct Mark(pub [u8; 20]);

/// The torrents of a session.
#[derive(Default)]
pub(super) struct Torrents {
    pub map: HashSet<Known, foldhash::fast::FixedState>,
    marked: HashSet<Marked, foldhash::fast::FixedState>,
    /// No more are taken.
    pub ended: bool,
}

/// What can be changed of a session's configuration.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub connections: usize,
    pub per_torrent: usize,
    pub upload_slots: usize,
    pub choke: ChokePolicy,
    pub encryption: EncryptionPolicy,
}

pub(super) type BlockList = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Shared {
    /// The key by which trackers know us in a torrent: the same for all our announces and reports
    /// of it, and another one for each torrent.
    pub fn announce_key(&self, info_hash: InfoHash) -> AnnounceKey {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.announce_secret)
            .chain_update(info_hash.0)
            .finalize()
            .into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        AnnounceKey::Long(key)
    }

    pub fn new(
        config: SessionConfig,
        peer_id: PeerId,
        announce_secret: [u8; 32],
        listen_port: Option<u16>,
        trackers: TrackerClient,
        mut rng: Rng,
    ) -> io::Result<Self> {
        let blocks = (config.memory_budget / u64::from(BLOCK_LEN)) as usize;
        let bounds = Bounds {
            connections: config.max_connections,
            per_torrent: config.max_peers_per_torrent,
            upload_slots: config.upload_slots,
            choke: config.choke,
            encryption: config.encryption,
        };
        let open_files = match config.open_files {
            0 => usual_open_files(),
            chosen => chosen,
        };
        let affordable = affordable_connections(open_files, config.max_half_open);
        if affordable < config.max_connections {
            warn!(
                "this process may not have enough files open for `max_connections = {}`: it takes \
                 {affordable} connections",
                config.max_connections
            );
        }
        Ok(Self {
            runtime: Handle::current(),
            peer_id,
            announce_secret,
            listen_port,
            pool: BlockPool::new(blocks),
            runs: RunMemory::new((config.memory_budget / RUN_SHARE) as usize),
            memory: Arc::new(Memory::new(blocks as u64)),
            hashing: match &config.hash_pool {
                Some(pool) => Arc::clone(pool),
                None => Arc::new(HashPool::new(config.hash_threads)?),
            },
            files: Arc::new(FileHandles::with_locks(open_files)),
            affordable,
            upload: Limiter::new(config.upload_limit),
            download: Limiter::new(config.download_limit),
            trackers,
            preparing: Semaphore::new(PREPARING),
            starts: Starts::new(PREPARING),
            dialing: Arc::new(Semaphore::new(config.max_half_open)),
            gate: Gate::new(config.max_half_open),
            key_exchanges: Limiter::new(Some(KEY_EXCHANGES_A_SECOND)),
            leeching: AtomicUsize::new(0),
            torrents: Mutex::default(),
            claims: Mutex::default(),
            claiming: Mutex::default(),
            mounts: Arc::default(),
            hub: Hub::new(rng.fork()),
            reporters: Reporters::default(),
            crew: Crew::default(),
            turns: Turns::new(config.checks),
            changes: Arc::default(),
            watchers: Watchers::default(),
            sums: Sums::default(),
            bounds: Mutex::new(bounds),
            blocked: RwLock::default(),
            places: Places::new(config.session_shares()),
            start: Instant::now(),
            wall_clock: WallClock::new(),
            rng: Mutex::new(rng),
            config,
        })
    }

    /// Now, for swarms and announcers.
    pub fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    /// The clock's time of `moment`, for timers.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + moment.since_start())
    }

    /// The clock's time of `moment`, seconds since 1970.
    pub fn unix_time(&self, moment: Moment) -> i64 {
        self.unix_ms(moment) / 1_000
    }

    /// The same in milliseconds.
    pub fn unix_ms(&self, moment: Moment) -> i64 {
        self.wall_clock.unix_ms(moment, self.now())
    }

    /// A generator of one's own.
    pub fn rng(&self) -> Rng {
        self.rng.lock().fork()
    }

    /// One torrent more that downloads and is awake, or one less. Returns how many there are now.
    pub fn count_leeching(&self, more: bool) -> usize {
        match more {
            true => self.leeching.fetch_add(1, Ordering::Relaxed) + 1,
            false => self.leeching.fetch_sub(1, Ordering::Relaxed) - 1,
        }
    }

    pub fn observer(&self) -> Option<&dyn Observer> {
        self.config.observer.as_deref()
    }

    /// A place for a connection to `ip`, if there is one or somebody makes way.
    pub fn connect(&self, ip: IpAddr, stream: &Arc<PeerStream>) -> Option<Place> {
        let most = self.bounds.lock().connections.min(self.affordable);
        self.places.take(self.now(), most, ip, stream)
    }

    /// Whether there would be one now.
    pub fn has_place(&self, ip: IpAddr) -> bool {
        let most = self.bounds.lock().connections.min(self.affordable);
        self.places.has_one(self.now(), most, ip)
    }

    /// Connections there are.
    pub fn connections(&self) -> usize {
        self.places.len()
    }

    pub fn is_blocked(&self, ip: IpAddr) -> bool {
        self.blocked.read().as_ref().is_some_and(|is_blocked| is_blocked(ip.to_canonical()))
    }

    pub fn set_block_list(&self, list: BlockList) {
        *self.blocked.write() = Some(list);
    }

    /// The torrent, if it is here.
    pub fn entry(&self, info_hash: InfoHash) -> Option<Arc<Entry>> {
        self.torrents.lock().map.get(&info_hash).map(|known| Arc::clone(&known.0))
    }

    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.torrents.lock().map.iter().map(|known| Arc::clone(&known.0)).collect()
    }
}

impl Watchers {
    /// Who waits for this torrent, among others.
    pub fn of(&self, info_hash: InfoHash) -> &Notify {
        &self.0[usize::from(info_hash.0[0]) % WATCHERS]
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Notify::new()))
    }
}

impl Borrow<InfoHash> for Known {
    fn borrow(&self) -> &InfoHash {
        self.0.metainfo.info_hash_ref()
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.info_hash() == other.0.info_hash()
    }
}

impl Eq for Known {}

impl Torrents {
    /// Takes a torrent in that is not here.
    pub fn insert(&mut self, entry: &Arc<Entry>) {
        self.map.insert(Known(Arc::clone(entry)));
        self.marked.insert(Marked(Arc::clone(entry)));
    }

    /// Takes a torrent out.
    pub fn take(&mut self, info_hash: &InfoHash) -> Option<Arc<Entry>> {
        let Known(entry) = self.map.take(info_hash)?;
        self.marked.remove(&Mark(torrent_mark(*info_hash)));
        Some(entry)
    }

    /// Takes all out, and lets no more in.
    pub fn end(&mut self) -> Vec<Arc<Entry>> {
        self.ended = true;
        self.marked.clear();
        self.map.drain().map(|Known(entry)| entry).collect()
    }

    /// The torrent that an encrypted handshake means.
    pub fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
        self.marked.get(&Mark(*mark)).map(|Marked(entry)| entry.info_hash())
    }
}

impl Mark {
    fn of(entry: &Entry) -> Self {
        Self(torrent_mark(entry.info_hash()))
    }
}

impl Equivalent<Marked> for Mark {
    fn equivalent(&self, marked: &Marked) -> bool {
        self.0 == Mark::of(&marked.0).0
    }
}

impl Hash for Mark {
    // It is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Hash for Marked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Mark::of(&self.0).hash(state);
    }
}

impl PartialEq for Marked {
    fn eq(&self, other: &Self) -> bool {
        self.0.info_hash() == other.0.info_hash()
    }
}

impl Eq for Marked {}

impl Hash for Known {
    // As `Borrow` wants it: like the info-hash.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.info_hash().hash(state);
    }
}

/// One takes some 0.2 ms: a tenth of a core at most is spent on strangers. As only those wait that are
/// half open, of which there are 100 by default and of one address no more than its share, nobody
/// waits longer for them than 0.2 s.
const KEY_EXCHANGES_A_SECOND: u64 = 500;

/// Files of content that are held open where nobody has chosen. A torrent of thousands of small
/// files is read and written all over: each that is not open costs several calls.
fn usual_open_files() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current;
    let quarter =
        descriptors.map_or(usize::MAX, |most| usize::try_from(most / 4).unwrap_or(usize::MAX));
    quarter.clamp(1, MOST_OPEN_FILES)
}

/// Connections for which there are descriptors beside `open_files` files, connections that are not
/// made yet, each way, and what else a program has open. A stranger's connections must not keep
/// files from being opened.
fn affordable_connections(open_files: usize, half_open: usize) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    let others = open_files.saturating_add(half_open.saturating_mul(2)).saturating_add(OTHER_FILES);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    descriptors.saturating_sub(others).max(descriptors / 4)
}

/// Torrents whose files are made at a time: a thread each.
const PREPARING: usize = 16;

/// Trackers, databases, the daemon's own clients.
const OTHER_FILES: usize = 256;

/// Of the memory for pieces, what part all links may use for long runs of blocks to send.
const RUN_SHARE: u64 = 4;

/// They cost the kernel memory, and each the search for the one that was not used for longest.
const MOST_OPEN_FILES: usize = 2_048;

/// Who waits is told apart by so many.
const WATCHERS: usize = 64;
