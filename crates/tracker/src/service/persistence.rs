//! What a tracker keeps over a restart, and what it tells while that cannot be written.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::super::catalogue::Entry;
use super::super::peers_file::{self, MAX_BITFIELD_BYTES, MAX_KEPT, PeersFile};
use super::super::store::{Changes, Store};
use super::{Service, Shard};
use piecework_registry::{KeptOf, KeptRoom, LoadEntry};

impl Service {
    /// Puts what was kept over a restart in place.
    pub(crate) fn restore(&self, torrents: &[(Arc<Entry>, u32)], load: &[LoadEntry]) {
        let now = self.clock.now();
        for (entry, downloads) in torrents {
            let mut shard = self.shard(entry.info_hash).lock();
            shard.registry.catalogue(now, entry.info_hash, entry.pieces, *downloads);
            shard.registry.set_observe(entry.info_hash, entry.is_observed());
        }
        for entry in load {
            self.shard(entry.info_hash).lock().registry.restore_load(entry);
        }
    }

    /// Whether peers are kept over a restart.
    pub(crate) fn keeps_peers(&self) -> bool {
        self.peers_path.is_some()
    }

    /// Puts the peers back that were known before a restart. Returns what people should know. Blocks.
    pub(crate) fn restore_peers(&self) -> Option<String> {
        let path = self.peers_path.as_deref()?;
        let wall = SystemTime::now();
        let peers = match PeersFile::read(path, wall) {
            Ok(peers) => peers,
            Err(error) => return Some(peers_file::notice(path, &error, wall)),
        };
        let (now, known) = (self.clock.now(), peers.len());
        let restore = |peer: &piecework_registry::KeptPeer| {
            let mut shard = self.shard(peer.info_hash).lock();
            let Shard { registry, rng } = &mut *shard;
            registry.restore_peer(now, rng, peer)
        };
        let restored = peers.iter().filter(|peer| restore(peer)).count();
        tracing::info!(known, restored, "peers of before the restart");
        None
    }

    /// Writes the peers to disk if any have changed since they were written. Blocks.
    pub(crate) fn save_peers(&self) {
        let Some(path) = self.peers_path.as_deref() else { return };
        let mut saved = self.peers_saved.lock();
        let revision = self.shards.iter().map(|shard| shard.lock().registry.revision()).sum();
        if *saved == Some(revision) {
            return;
        }
        match self.write_peers(path) {
            Ok(()) => {
                *saved = Some(revision);
                if self.peers_trouble.lock().take().is_some() {
                    tracing::info!("the peers are kept over a restart again");
                }
            }
            Err(error) => {
                let told = self.peers_trouble.lock().replace(error.to_string());
                if told.is_none() {
                    tracing::warn!(%error, "the peers cannot be kept over a restart just now");
                }
            }
        }
    }

    fn write_peers(&self, path: &Path) -> std::io::Result<()> {
        let mut file = PeersFile::new(SystemTime::now());
        let peers = self.config.kept_peers.min(MAX_KEPT);
        let mut room = KeptRoom { peers, bytes: MAX_BITFIELD_BYTES };
        let mut some = Vec::new();
        for of in [KeptOf::Catalogue, KeptOf::Others] {
            for shard in &self.shards {
                let mut next = Some(0);
                // A little at a time, so that nobody waits for a lock.
                while let Some(from) = next {
                    let now = self.clock.now();
                    next = shard.lock().registry.kept_peers(now, from, of, &mut room, &mut some);
                    some.drain(..).for_each(|peer| file.add(&peer));
                }
            }
        }
        file.write(path)
    }

    /// Hands what has changed to the store's thread; does not wait.
    pub(crate) fn save(&self) {
        let Some(store) = self.store() else { return };
        let changes = self.take_changes();
        if !changes.is_empty() {
            store.save(changes);
        }
    }

    /// What cannot be written just now, and what was lost because of that; with the names of the
    /// files for the operator, without them for everybody else.
    pub(crate) fn notices(&self, for_operator: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(trouble) = self.store().and_then(|store| store.trouble()) {
            notices.push(match for_operator {
                true => format!("{trouble}; until then nothing can be registered or removed"),
                false => "the tracker cannot write its database just now: nothing can be \
                          registered or removed"
                    .to_owned(),
            });
        }
        if let Some(trouble) = self.peers_trouble.lock().as_deref().filter(|_| for_operator) {
            notices.push(format!("the peers cannot be kept over a restart just now: {trouble}"));
        }
        let Some(journal) = self.log.journal() else { return notices };
        if for_operator {
            notices.extend(journal.notices());
            return notices;
        }
        if let Some(waiting) = journal.waiting() {
            notices.push(format!(
                "the tracker cannot write its journal just now: `{waiting}` records wait"
            ));
        }
        if journal.lost() > 0 {
            notices.push(format!("`{}` records of the journal are lost", journal.lost()));
        }
        notices
    }

    /// Writes everything to disk and ends the threads of store and journal. Blocks.
    pub(crate) fn close(&self) {
        self.save_peers();
        self.close_store();
        self.log.close();
    }

    fn close_store(&self) {
        let Some(store) = self.store.lock().take() else { return };
        if let Err(error) = store.flush(self.take_changes()) {
            tracing::error!(%error, "the last changes of the tracker's state are lost");
        }
        match Arc::try_unwrap(store) {
            Ok(store) => store.close(),
            // Somebody is registering this very moment; the thread ends with them.
            Err(_) => tracing::debug!("the tracker's database is still in use"),
        }
    }

    pub(super) fn take_changes(&self) -> Changes {
        let mut changes = Changes::new();
        for shard in &self.shards {
            let changed = shard.lock().registry.take_changed();
            changes.extend(changed.into_iter().map(|(hash, n, load)| (hash, (n, load))));
        }
        changes
    }

    pub(super) fn store(&self) -> Option<Arc<Store>> {
        self.store.lock().clone()
    }
}
