//! What all torrents of a session share.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::base::{BLOCK_LEN, BlockPool, InfoHash, Moment, PeerId, Rng};
use crate::net::{Accepted, Limiter};
use crate::storage::{FileHandles, HashPool};
use crate::tracker_client::TrackerClient;

use super::handle::TorrentHandle;
use super::{Observer, SessionConfig};

/// One session's means, handed to each of its torrents.
pub(super) struct Shared {
    pub config: SessionConfig,
    pub peer_id: PeerId,
    /// The port we accept peers on, if we do.
    pub listen_port: Option<u16>,
    pub pool: BlockPool,
    pub hashing: HashPool,
    pub files: Arc<FileHandles>,
    pub upload: Limiter,
    pub download: Limiter,
    pub trackers: TrackerClient,
    /// Connections that may still be made.
    pub connections: Arc<Semaphore>,
    /// Dials that may still be under way.
    pub dialing: Arc<Semaphore>,
    /// Torrents that download, among whom the memory budget is shared.
    pub leeching: watch::Sender<usize>,
    pub torrents: Mutex<HashMap<InfoHash, Member>>,
    start: Instant,
    rng: Mutex<Rng>,
}

/// A torrent as the session knows it.
pub(super) struct Member {
    pub handle: TorrentHandle,
    /// Connections that peers have opened go here.
    pub accepted: mpsc::Sender<Accepted>,
}

impl Shared {
    pub fn new(
        config: SessionConfig,
        peer_id: PeerId,
        listen_port: Option<u16>,
        trackers: TrackerClient,
        rng: Rng,
    ) -> io::Result<Self> {
        let blocks = (config.memory_budget / u64::from(BLOCK_LEN)) as usize;
        Ok(Self {
            peer_id,
            listen_port,
            pool: BlockPool::new(blocks),
            hashing: HashPool::new(config.hash_threads)?,
            files: Arc::new(FileHandles::new(config.open_files)),
            upload: Limiter::new(config.upload_limit),
            download: Limiter::new(config.download_limit),
            trackers,
            connections: Arc::new(Semaphore::new(config.max_connections)),
            dialing: Arc::new(Semaphore::new(config.max_half_open)),
            leeching: watch::Sender::new(0),
            torrents: Mutex::default(),
            start: Instant::now(),
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

    /// A generator of one's own.
    pub fn rng(&self) -> Rng {
        self.rng.lock().fork()
    }

    /// Blocks one of the torrents that download may hold in memory.
    pub fn memory_share(&self) -> u32 {
        let torrents = (*self.leeching.borrow()).max(1) as u64;
        let blocks = self.config.memory_budget / u64::from(BLOCK_LEN) / torrents;
        u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
    }

    pub fn observer(&self) -> Option<&dyn Observer> {
        self.config.observer.as_deref()
    }
}
