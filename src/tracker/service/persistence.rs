//! What a tracker keeps over a restart, and what it tells while that cannot be written.

use std::sync::Arc;

use super::super::catalogue::Entry;
use super::super::store::{Changes, Store};
use super::Service;
use crate::registry::LoadEntry;

impl Service {
    /// Puts what was kept over a restart in place.
    pub(in crate::tracker) fn restore(&self, torrents: &[(Arc<Entry>, u32)], load: &[LoadEntry]) {
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

    /// Hands what has changed to the store's thread; does not wait.
    pub(in crate::tracker) fn save(&self) {
        let Some(store) = self.store() else { return };
        let changes = self.take_changes();
        if !changes.is_empty()
            && let Err(changes) = store.save(changes)
        {
            *self.unsaved.lock() = changes;
        }
    }

    /// What cannot be written just now, and what was lost because of that; with the names of the
    /// files for the operator, without them for everybody else.
    pub(in crate::tracker) fn notices(&self, for_operator: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(trouble) = self.store().and_then(|store| store.trouble()) {
            notices.push(match for_operator {
                true => format!("{trouble}; until then nothing can be registered or removed"),
                false => "the tracker cannot write its database just now: nothing can be \
                          registered or removed"
                    .to_owned(),
            });
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
    pub(in crate::tracker) fn close(&self) {
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
        let mut changes = std::mem::take(&mut *self.unsaved.lock());
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
