//! Saving a tracker's state for a restart, and restoring it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::catalogue_torrent::CatalogueTorrent;
use super::config::TrackerConfig;
use super::peers_file::{self, MAX_BITFIELD_BYTES, MAX_KEPT, PeersFile};
use super::store::{LoadChanges, TrackerStore};
use super::swarms::Swarms;
use piecework_registry::{KeptRoom, LoadEntry};

/// The database and the peers file.
pub(super) struct Persistence {
    swarms: Arc<Swarms>,
    store: Mutex<Option<Arc<TrackerStore>>>,
    /// The peers file, if there is one, and the maximum number of its peers.
    peers_path: Option<PathBuf>,
    max_peers: usize,
    /// The sum of the registries' revisions when the file was last written. Locked while it is written.
    peers_saved: Mutex<Option<u64>>,
    /// Why the last write failed.
    peers_trouble: Mutex<Option<io::Error>>,
}

impl Persistence {
    pub(super) fn new(
        config: &TrackerConfig,
        swarms: Arc<Swarms>,
        store: Option<TrackerStore>,
    ) -> Self {
        Self {
            swarms,
            store: Mutex::new(store.map(Arc::new)),
            peers_path: config.peers_file(),
            max_peers: config.kept_peers.min(MAX_KEPT),
            peers_saved: Mutex::default(),
            peers_trouble: Mutex::default(),
        }
    }

    /// Restores catalogued torrents and the load of their peers.
    pub(super) fn restore(&self, torrents: &[(Arc<CatalogueTorrent>, u32)], load: &[LoadEntry]) {
        for (entry, downloads) in torrents {
            self.swarms.catalogue(entry, *downloads);
        }
        self.swarms.restore_load(load);
    }

    /// Returns whether peers are saved for a restart.
    pub(super) fn keeps_peers(&self) -> bool {
        self.peers_path.is_some()
    }

    /// Restores the peers from before a restart. Returns a notice if their file cannot be used. Blocks.
    pub(super) fn restore_peers(&self) -> Option<String> {
        let path = self.peers_path.as_deref()?;
        let wall = SystemTime::now();
        let peers = match PeersFile::read(path, wall) {
            Ok(peers) => peers,
            Err(error) => return Some(peers_file::notice(path, &error, wall)),
        };
        let known = peers.len();
        let restored = peers.iter().filter(|peer| self.swarms.restore_peer(peer)).count();
        tracing::info!(known, restored, "restored peers from before the restart");
        None
    }

    /// Writes the peers to disk if they have changed since the last save. Blocks.
    pub(super) fn save_peers(&self) {
        let Some(path) = self.peers_path.as_deref() else { return };
        let mut saved = self.peers_saved.lock();
        let revision = self.swarms.revision();
        if *saved == Some(revision) {
            return;
        }
        match self.write_peers(path) {
            Ok(()) => {
                *saved = Some(revision);
                if self.peers_trouble.lock().take().is_some() {
                    tracing::info!("the peers are saved for a restart again");
                }
            }
            Err(error) => {
                let mut trouble = self.peers_trouble.lock();
                if trouble.is_none() {
                    tracing::warn!(%error, "the peers cannot be saved for a restart at the moment");
                }
                *trouble = Some(error);
            }
        }
    }

    fn write_peers(&self, path: &Path) -> io::Result<()> {
        let mut file = PeersFile::new(SystemTime::now());
        let room = KeptRoom { peers: self.max_peers, bytes: MAX_BITFIELD_BYTES };
        self.swarms.each_kept(room, |peer| file.add(peer));
        file.write(path)
    }

    /// Hands the changes to the database's thread. Does not wait.
    pub(super) fn save(&self) {
        let Some(store) = self.store() else { return };
        let changes = self.take_changes();
        if !changes.is_empty() {
            store.save(changes);
        }
    }

    /// Returns what cannot be written now. The operator is told the file names, everybody else is not.
    pub(super) fn notices(&self, for_operator: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(trouble) = self.store().and_then(|store| store.trouble()) {
            notices.push(match for_operator {
                true => format!("{trouble}; until then nothing can be registered or removed"),
                false => "the tracker cannot write its database at the moment: nothing can be \
                          registered or removed"
                    .to_owned(),
            });
        }
        if let Some(trouble) = self.peers_trouble.lock().as_ref().filter(|_| for_operator) {
            notices
                .push(format!("the peers cannot be saved for a restart at the moment: {trouble}"));
        }
        notices
    }

    /// Writes everything to disk and ends the database's thread. Blocks.
    pub(super) fn close(&self) {
        self.save_peers();
        self.close_store();
    }

    fn close_store(&self) {
        let Some(store) = self.store.lock().take() else { return };
        if let Err(error) = store.flush(self.take_changes()) {
            tracing::error!(%error, "the last changes of the tracker's state are lost");
        }
        match Arc::try_unwrap(store) {
            Ok(store) => store.close(),
            // A request is using the database; the thread ends with the request.
            Err(_) => tracing::debug!("the tracker's database is still in use"),
        }
    }

    fn take_changes(&self) -> LoadChanges {
        let changed = self.swarms.take_changed().into_iter();
        changed.map(|(info_hash, downloads, load)| (info_hash, (downloads, load))).collect()
    }

    pub(super) fn store(&self) -> Option<Arc<TrackerStore>> {
        self.store.lock().clone()
    }
}
