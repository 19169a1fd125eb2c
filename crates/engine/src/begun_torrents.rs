//! Torrents that have just begun, for local discovery.

use parking_lot::Mutex;
use tokio::sync::Notify;

use piecework_core::InfoHash;

/// Torrents that have just begun and are to be announced.
#[derive(Default)]
pub(super) struct BegunTorrents {
    waiting: Mutex<Vec<InfoHash>>,
    some: Notify,
}

impl BegunTorrents {
    pub(crate) fn add(&self, torrent: InfoHash) {
        let mut waiting = self.waiting.lock();
        // Nobody takes them where local discovery is off. The round comes to all others.
        if waiting.len() < MAX_BEGUN {
            waiting.push(torrent);
            self.some.notify_one();
        }
    }
    /// Waits until some have begun, and takes them.
    pub(crate) async fn next(&self) -> Vec<InfoHash> {
        self.some.notified().await;
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Maximum number of torrents that have begun and wait.
const MAX_BEGUN: usize = 1_000;
