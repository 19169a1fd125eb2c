//! A swarm of sessions in one process.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use piecework_core::PeerId;
use piecework_core::metainfo::Metainfo;
use piecework_engine::{
    AddError, AddTorrent, Observer, Session, SessionConfig, StartError, TorrentError, TorrentEvent,
    TorrentHandle,
};

use piecework_storage::HashPool;

use super::content::{Content, TempFolder, write_pseudo_random};
use super::local_tracker::LocalTracker;

/// The size of a swarm.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Peers that have everything at the start.
    pub seeders: usize,
    /// Peers that have nothing at the start.
    pub leechers: usize,
    /// Bytes a second that each peer sends at most.
    pub upload_limit: Option<u64>,
}

/// A running swarm.
pub struct LocalSwarm {
    local_tracker: LocalTracker,
    metainfo: Arc<Metainfo>,
    members: Vec<Member>,
    /// Threads that hash and write for all.
    hashing: Arc<HashPool>,
}

/// One peer of the swarm.
pub struct Member {
    name: String,
    session: Session,
    handle: TorrentHandle,
    tally: Arc<Tally>,
    root: PathBuf,
    is_seeder: bool,
}

/// Who gave a member how much, by peer id.
#[derive(Debug, Default)]
pub struct Tally {
    pieces: Mutex<BTreeMap<PeerId, u64>>,
}

/// A leecher's copy, compared with the original.
#[derive(Debug)]
pub struct Copy {
    pub name: String,
    /// Its SHA-256; `None` if it cannot be read.
    pub content: Option<Content>,
    /// Whether it equals the original.
    pub whole: bool,
}

/// Why a swarm fails.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Files cannot be read or made.
    #[error("the files of the simulation cannot be handled: {0}")]
    Files(#[from] io::Error),
    /// A peer does not start.
    #[error("a peer does not start: {0}")]
    Start(#[from] StartError),
    /// A peer does not take the torrent.
    #[error("a peer does not take the torrent: {0}")]
    Add(#[from] AddError),
    /// The tracker does not start.
    #[error("the tracker does not start: {0}")]
    Tracker(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A download stopped.
    #[error("{name} stopped: {error}")]
    Download { name: String, error: TorrentError },
}

impl LocalSwarm {
    /// Starts a tracker, the seeders on `metainfo`'s content beneath `root`, and the leechers, who
    /// write below `copies`.
    ///
    /// # Errors If one of them does not start.
    pub async fn start(
        metainfo: Arc<Metainfo>,
        root: &Path,
        copies: &TempFolder,
        options: &SimOptions,
    ) -> Result<Self, SimError> {
        let local_tracker = LocalTracker::start(&metainfo).await?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let hashing = Arc::new(HashPool::new(threads)?);
        let mut swarm = Self { local_tracker, metainfo, members: Vec::new(), hashing };
        for number in 1..=options.seeders {
            let name = format!("seeder {number}");
            swarm.join(name, root.to_owned(), true, options)?;
        }
        for number in 1..=options.leechers {
            let name = format!("leecher {number}");
            let root = copies.path().join(format!("leecher-{number}"));
            swarm.join(name, root, false, options)?;
        }
        Ok(swarm)
    }

    /// Returns the peers, seeders first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Waits until every leecher has everything.
    ///
    /// # Errors If a leecher fails.
    pub async fn finished(&self) -> Result<(), SimError> {
        for member in &self.members {
            member
                .handle
                .completed()
                .await
                .map_err(|error| SimError::Download { name: member.name.clone(), error })?;
        }
        Ok(())
    }

    /// Returns how many pieces each leecher got from each member. A piece from several members
    /// counts for each of them.
    pub fn matrix(&self) -> Vec<(&Member, Vec<u64>)> {
        let row = |leecher: &Member| {
            let pieces = leecher.tally.pieces.lock();
            let from = |giver: &Member| pieces.get(&giver.session.peer_id()).copied().unwrap_or(0);
            self.members.iter().map(from).collect()
        };
        let leechers = self.members.iter().filter(|member| !member.is_seeder);
        leechers.map(|leecher| (leecher, row(leecher))).collect()
    }

    /// Returns work that blocks: it compares every copy with the original beneath `root`, and tells
    /// `progress` how many more bytes have been read, of [`LocalSwarm::bytes_to_compare`] in all.
    ///
    /// The work fails if the original cannot be read or `progress` returns an error.
    pub fn comparison(
        &self,
        root: &Path,
        mut progress: impl FnMut(u64) -> io::Result<()> + Send + 'static,
    ) -> impl FnOnce() -> Result<(Content, Vec<Copy>), SimError> + Send + 'static {
        let (root, metainfo) = (root.to_owned(), Arc::clone(&self.metainfo));
        let leechers = self.members.iter().filter(|member| !member.is_seeder);
        let leechers: Vec<_> =
            leechers.map(|member| (member.name.clone(), member.root.clone())).collect();
        move || {
            let map = metainfo.info().files();
            let original = Content::of(&root, map, &mut progress)?;
            let mut copies = Vec::with_capacity(leechers.len());
            for (name, root) in leechers {
                // That a copy cannot be read is enough to know; the reason is not shown.
                let content = Content::of(&root, map, &mut progress).ok();
                copies.push(Copy { name, content, whole: content == Some(original) });
            }
            Ok((original, copies))
        }
    }

    /// Returns the bytes of the original and of all copies.
    pub fn bytes_to_compare(&self) -> u64 {
        let leechers = self.members.iter().filter(|member| !member.is_seeder).count() as u64;
        self.metainfo.info().geometry().total_len().saturating_mul(leechers + 1)
    }

    /// Ends all peers, then the tracker.
    pub async fn stop(self) {
        let stops: Vec<_> = self
            .members
            .into_iter()
            .map(|member| tokio::spawn(async move { member.session.shutdown().await }))
            .collect();
        for stop in stops {
            // A peer that panicked has stopped too.
            let _ = stop.await;
        }
        self.local_tracker.stop().await;
    }

    /// Makes the file `path` of `len` bytes for a swarm to move. Blocks, and calls `progress` with
    /// the number of bytes written.
    ///
    /// # Errors
    /// If it cannot be written, or `progress` returns an error.
    pub fn make_file(
        path: &Path,
        len: u64,
        progress: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        write_pseudo_random(path, len, progress)
    }

    fn join(
        &mut self,
        name: String,
        root: PathBuf,
        is_seeder: bool,
        options: &SimOptions,
    ) -> Result<(), SimError> {
        let tally = Arc::new(Tally::default());
        let session = Session::start(SessionConfig {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            upload_limit: options.upload_limit,
            memory_budget: MEMORY,
            hash_pool: Some(Arc::clone(&self.hashing)),
            observer: Some(Arc::clone(&tally) as Arc<dyn Observer>),
            ..SessionConfig::default()
        })?;
        let mut add = AddTorrent::new(Arc::clone(&self.metainfo), &root);
        add.trackers = Some(self.local_tracker.tiers());
        add.catalogue = self.local_tracker.catalogue();
        add.assume_complete = is_seeder;
        add.upload_only = is_seeder;
        let handle = session.add(add)?;
        self.members.push(Member { name, session, handle, tally, root, is_seeder });
        Ok(())
    }
}

impl Member {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it had everything at the start.
    pub fn is_seeder(&self) -> bool {
        self.is_seeder
    }

    pub fn handle(&self) -> &TorrentHandle {
        &self.handle
    }
}

impl Observer for Tally {
    fn event(&self, _: &Arc<Metainfo>, event: &TorrentEvent) {
        if let TorrentEvent::PieceDone { givers, .. } = event {
            let mut pieces = self.pieces.lock();
            for giver in givers {
                *pieces.entry(giver.who.id).or_default() += 1;
            }
        }
    }
}

/// Bytes of unfinished pieces that each peer may hold.
const MEMORY: u64 = 16 << 20;
