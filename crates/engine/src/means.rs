//! What the torrents of a session work with: clock, random numbers, memory, threads, files, limits
//! and connections.

use piecework_core::SaturatingFrom;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::net::{Limiter, RunMemory};
use piecework_clock::Clock;
use piecework_core::{BLOCK_LEN, BlockPool, Moment, Rng};
use piecework_storage::{FileHandles, HashPool};

use super::begun_torrents::BegunTorrents;
use super::changes::{ChangeMarks, Watchers};
use super::connections::Connections;
use super::counters::Counters;
use super::descriptors;
use super::identity::Identity;
use super::memory::Memory;
use super::mounts::Mounts;
use super::{Observer, SessionConfig};

/// The means of a session. They know nothing of its torrents.
pub(super) struct Means {
    pub config: SessionConfig,
    pub runtime: Handle,
    pub identity: Identity,
    pub clock: Clock,
    rng: Mutex<Rng>,
    pub pool: BlockPool,
    pub runs: RunMemory,
    pub memory: Arc<Memory>,
    pub hashing: Arc<HashPool>,
    pub files: Arc<FileHandles>,
    /// Which disks the folders of torrents lie on.
    pub mounts: Arc<Mounts>,
    /// Limits how many torrents make their files at a time.
    pub preparing: Semaphore,
    pub upload: Limiter,
    pub download: Limiter,
    pub connections: Connections,
    pub counters: Counters,
    pub changes: Arc<ChangeMarks>,
    pub watchers: Watchers,
    /// Torrents that are to be announced on the local network.
    pub begun: BegunTorrents,
    /// Torrents that download and are awake.
    leeching: AtomicUsize,
}

impl Means {
    /// Starts the threads that hash, unless the configuration has some.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(crate) fn new(config: SessionConfig, identity: Identity, rng: Rng) -> io::Result<Self> {
        let blocks = usize::saturating_from(config.memory_budget / u64::from(BLOCK_LEN));
        let open_files = match config.open_files {
            0 => descriptors::usual_open_files(),
            chosen => chosen,
        };
        let affordable = descriptors::affordable_connections(open_files, config.max_half_open);
        if affordable < config.max_connections {
            warn!(
                "this process may not have enough files open for `max_connections = {}`: it takes \
                 {affordable} connections",
                config.max_connections
            );
        }
        Ok(Self {
            runtime: Handle::current(),
            identity,
            clock: Clock::system(),
            rng: Mutex::new(rng),
            pool: BlockPool::new(blocks),
            runs: RunMemory::new((config.memory_budget / RUN_SHARE) as usize),
            memory: Arc::new(Memory::new(blocks as u64)),
            hashing: match &config.hash_pool {
                Some(pool) => Arc::clone(pool),
                None => Arc::new(HashPool::new(config.hash_threads)?),
            },
            files: Arc::new(FileHandles::with_locks(open_files)),
            mounts: Arc::default(),
            preparing: Semaphore::new(PREPARING),
            upload: Limiter::new(config.upload_limit),
            download: Limiter::new(config.download_limit),
            connections: Connections::new(&config, affordable),
            counters: Counters::default(),
            changes: Arc::default(),
            watchers: Watchers::default(),
            begun: BegunTorrents::default(),
            leeching: AtomicUsize::new(0),
            config,
        })
    }

    /// Returns the current moment, for swarms and announcers.
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Returns a new random number generator.
    pub(crate) fn rng(&self) -> Rng {
        self.rng.lock().fork()
    }

    /// Counts one more torrent that downloads and is awake, or one less. Returns how many there are
    /// now.
    pub(crate) fn count_leeching(&self, more: bool) -> usize {
        match more {
            true => self.leeching.fetch_add(1, Ordering::Relaxed) + 1,
            false => self.leeching.fetch_sub(1, Ordering::Relaxed) - 1,
        }
    }

    pub(crate) fn observer(&self) -> Option<&dyn Observer> {
        self.config.observer.as_deref()
    }

    /// Returns whether checkpoints of the session's torrents are kept.
    pub(crate) fn keeps_checkpoints(&self) -> bool {
        self.config.keeper.is_some()
    }
}

/// Torrents whose files are made at a time, and downloads that begin at a time: a thread each.
pub(super) const PREPARING: usize = 16;

/// Long runs of blocks to send may use one in so many bytes of the memory for pieces.
const RUN_SHARE: u64 = 4;
