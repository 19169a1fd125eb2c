//! Locks that keep two requests from changing one torrent at the same time.

use tokio::sync::{Mutex, MutexGuard};

use piecework_core::InfoHash;

/// One lock for each torrent. Torrents whose info-hashes begin with the same byte share one.
pub(super) struct TorrentLocks {
    locks: [Mutex<()>; 256],
}

impl TorrentLocks {
    pub(crate) fn new() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Waits until nobody else changes the torrent.
    pub(crate) async fn lock(&self, info_hash: InfoHash) -> MutexGuard<'_, ()> {
        self.locks[usize::from(info_hash.0[0])].lock().await
    }

    /// Locks two torrents.
    pub(crate) async fn lock_both(
        &self,
        one: InfoHash,
        other: InfoHash,
    ) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (low, high) = if one.0[0] <= other.0[0] { (one, other) } else { (other, one) };
        // Everybody locks in the same order, and a shared lock once.
        let first = self.lock(low).await;
        let second = if low.0[0] == high.0[0] { None } else { Some(self.lock(high).await) };
        (first, second)
    }
}
