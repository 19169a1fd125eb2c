//! Which torrents have something new to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use piecework_core::InfoHash;

/// See [`Session::changes`](super::Session::changes).
pub struct Changes {
    marks: Arc<ChangeMarks>,
}

/// The torrents that have changed since they were last returned.
#[derive(Default)]
pub(super) struct ChangeMarks {
    /// Nothing is noted unless somebody listens.
    heard: AtomicBool,
    dirty: Mutex<HashSet<InfoHash, foldhash::fast::FixedState>>,
    more: Notify,
}

impl Changes {
    pub(super) fn new(marks: Arc<ChangeMarks>) -> Self {
        marks.heard.store(true, Ordering::Release);
        Self { marks }
    }

    /// Waits until there is at least one, then returns all there are, including torrents that were
    /// removed.
    pub async fn next(&mut self) -> Vec<InfoHash> {
        loop {
            let more = self.marks.more.notified();
            let changed = std::mem::take(&mut *self.marks.dirty.lock());
            if !changed.is_empty() {
                return changed.into_iter().collect();
            }
            more.await;
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.marks.heard.store(false, Ordering::Release);
        self.marks.dirty.lock().clear();
    }
}

impl ChangeMarks {
    /// Returns the torrents that have changed and were not returned since.
    pub(crate) fn marked(&self) -> Vec<InfoHash> {
        self.dirty.lock().iter().copied().collect()
    }

    pub(crate) fn mark(&self, info_hash: InfoHash) {
        if self.heard.load(Ordering::Acquire) && self.dirty.lock().insert(info_hash) {
            self.more.notify_one();
        }
    }
}

/// Wakes those who wait for a torrent to change. Waiters share a small pool of notifiers: one that
/// wakes up for another torrent checks its condition and waits again.
pub(super) struct Watchers([Notify; WATCHERS]);

impl Watchers {
    /// Returns the notifier of a torrent, which it shares with others.
    pub(crate) fn of(&self, info_hash: InfoHash) -> &Notify {
        &self.0[usize::from(info_hash.0[0]) % WATCHERS]
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Notify::new()))
    }
}

const WATCHERS: usize = 64;
