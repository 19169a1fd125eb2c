//! All torrents of the daemon, as every part of it reaches them.

use std::path::PathBuf;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{MutexGuard as AsyncMutexGuard, Notify};

use super::DaemonError;
use super::entry::{BodyView, Entry, pending_error, unix_now};
use super::event_bus::EventBus;
use super::lifetime::Lifetime;
use super::table::TorrentTable;
use super::torrent_locks::TorrentLocks;
use crate::state::{State, Update};
use piecework_api::{Added, Torrent};
use piecework_core::InfoHash;
use piecework_engine::TorrentHandle;

/// The torrent table, the database that it is written to, and those who are told when it changes.
pub(super) struct Torrents {
    table: Mutex<TorrentTable>,
    pub state: State,
    pub events: EventBus,
    /// Wakes the queue driver.
    pub wake: Notify,
    pub lifetime: Lifetime,
    locks: TorrentLocks,
}

impl Torrents {
    pub(crate) fn new(table: TorrentTable, state: State) -> Self {
        Self {
            table: Mutex::new(table),
            state,
            events: EventBus::default(),
            wake: Notify::new(),
            lifetime: Lifetime::new(),
            locks: TorrentLocks::new(),
        }
    }

    /// Locks the table. Hold the guard only for moments.
    pub(crate) fn table(&self) -> MutexGuard<'_, TorrentTable> {
        self.table.lock()
    }

    /// Keeps others from changing the torrent meanwhile.
    pub(crate) async fn lock(&self, info_hash: InfoHash) -> AsyncMutexGuard<'_, ()> {
        self.locks.lock(info_hash).await
    }

    /// Locks two torrents.
    pub(crate) async fn lock_both(
        &self,
        one: InfoHash,
        other: InfoHash,
    ) -> (AsyncMutexGuard<'_, ()>, Option<AsyncMutexGuard<'_, ()>>) {
        self.locks.lock_both(one, other).await
    }

    /// Locks the torrent and returns the info-hash that it has now. One that was named by its
    /// provisional info-hash may get its own while this waits.
    pub(crate) async fn lock_listed(
        &self,
        info_hash: InfoHash,
    ) -> (AsyncMutexGuard<'_, ()>, InfoHash) {
        let mut info_hash = info_hash;
        loop {
            let lock = self.lock(info_hash).await;
            let now = self.table().listed_as(info_hash);
            if now == info_hash {
                return (lock, now);
            }
            info_hash = now;
        }
    }

    /// Returns an error once the daemon is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), DaemonError> {
        self.lifetime.check_open()
    }

    /// Returns what `look` returns for the torrent's entry.
    pub(crate) fn with<T>(
        &self,
        info_hash: InfoHash,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, DaemonError> {
        let mut table = self.table();
        table
            .entries
            .get_mut(&info_hash)
            .map(|mut entry| look(&mut entry))
            .ok_or(DaemonError::Unknown(info_hash))
    }

    /// Returns the torrent in the engine.
    pub(crate) fn live(&self, info_hash: InfoHash) -> Result<TorrentHandle, DaemonError> {
        self.with(info_hash, |entry| match entry.body.view() {
            BodyView::Live(handle) => Ok(handle.clone()),
            BodyView::Broken(broken) => Err(DaemonError::Conflict(broken.error.clone())),
            BodyView::Unhashed(_) | BodyView::Linked(_) => Err(pending_error(entry)),
        })?
    }

    /// Returns the torrent as the API shows it.
    pub(crate) fn show(&self, info_hash: InfoHash) -> Result<Torrent, DaemonError> {
        self.table().show(info_hash).ok_or(DaemonError::Unknown(info_hash))
    }

    /// Returns the answer to a request to add a torrent that is here already.
    pub(crate) fn duplicate(&self, info_hash: InfoHash) -> Option<Added> {
        let table = self.table();
        let entry = table.entries.get(&info_hash)?;
        Some(Added {
            info_hash,
            id: entry.id,
            name: entry.name().to_owned(),
            duplicate: true,
            tracker: entry.record.common.tracker.clone().map(String::from),
            warnings: Vec::new(),
        })
    }

    /// Returns the downloads folder that holds now.
    pub(crate) fn downloads(&self) -> PathBuf {
        self.table().settings.downloads.clone()
    }

    /// Records and announces that a torrent changed. The queue looks at it if `review`.
    pub(crate) fn touch(&self, info_hash: InfoHash, review: bool) {
        {
            let table = &mut *self.table();
            if review {
                table.fresh.push(info_hash);
            }
            if let Some(mut entry) = table.entries.get_mut(&info_hash) {
                table.recent.note(info_hash, &mut entry.changed_at, unix_now());
            }
        }
        self.events.changed(info_hash);
        if review {
            self.wake.notify_one();
        }
    }

    /// Writes the torrent's record. It is on the disk when this returns.
    pub(crate) async fn keep(&self, info_hash: InfoHash) -> Result<(), DaemonError> {
        let text = self.table().record_text(info_hash).ok_or(DaemonError::Unknown(info_hash))?;
        let update = Update { settings: Some(text), ..Update::default() };
        Ok(self.state.update(info_hash, update).await?)
    }
}
