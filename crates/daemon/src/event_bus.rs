//! Tells those who listen what changed.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use piecework_core::InfoHash;

type Hashes = HashSet<InfoHash, FixedState>;

/// Tells all mailboxes what changed.
#[derive(Default)]
pub(super) struct EventBus {
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
}

/// What one listener has not heard yet: each torrent once, however often it changed.
#[derive(Default)]
pub(super) struct Mailbox {
    unread: Mutex<UnreadEvents>,
    arrived: Notify,
}

#[derive(Default)]
struct UnreadEvents {
    changed: Hashes,
    removed: Hashes,
    done: Hashes,
    settings: bool,
    end: bool,
}

/// What a listener is told at once.
pub(super) enum UrgentEvent {
    Removed(InfoHash),
    Done(InfoHash),
    Settings,
}

impl EventBus {
    /// Returns a mailbox that gets what happens from now on.
    pub(crate) fn subscribe(&self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        self.mailboxes.lock().push(Arc::downgrade(&mailbox));
        mailbox
    }

    /// Tells that a torrent was added or has changed.
    pub(crate) fn changed(&self, info_hash: InfoHash) {
        self.tell(|unread| {
            unread.changed.insert(info_hash);
        });
    }

    /// Tells that a torrent is gone.
    pub(crate) fn removed(&self, info_hash: InfoHash) {
        self.tell(|unread| {
            unread.changed.remove(&info_hash);
            unread.done.remove(&info_hash);
            if unread.removed.len() < REMOVED {
                unread.removed.insert(info_hash);
            } else {
                // It has not listened for very long. It must begin anew to know what there is.
                unread.end = true;
            }
        });
    }

    /// Tells that a download has everything that is wanted.
    pub(crate) fn done(&self, info_hash: InfoHash) {
        self.tell(|unread| {
            unread.done.insert(info_hash);
        });
    }

    /// Tells that the settings have changed.
    pub(crate) fn settings(&self) {
        self.tell(|unread| unread.settings = true);
    }

    /// Tells that the daemon has shut down.
    pub(crate) fn end(&self) {
        self.tell(|unread| unread.end = true);
    }

    fn tell(&self, what: impl Fn(&mut UnreadEvents)) {
        self.mailboxes.lock().retain(|mailbox| {
            let Some(mailbox) = mailbox.upgrade() else { return false };
            what(&mut mailbox.unread.lock());
            mailbox.arrived.notify_one();
            true
        });
    }
}

impl Mailbox {
    /// Waits until something has arrived since the last call.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Makes the listener end.
    pub(crate) fn set_ended(&self) {
        self.unread.lock().end = true;
    }

    /// Returns whether the listener is to end.
    pub(crate) fn has_ended(&self) -> bool {
        self.unread.lock().end
    }

    /// Takes an event that is told at once.
    pub(crate) fn take_urgent(&self) -> Option<UrgentEvent> {
        let mut unread = self.unread.lock();
        if let Some(info_hash) = pop(&mut unread.removed) {
            return Some(UrgentEvent::Removed(info_hash));
        }
        if let Some(info_hash) = pop(&mut unread.done) {
            return Some(UrgentEvent::Done(info_hash));
        }
        std::mem::take(&mut unread.settings).then_some(UrgentEvent::Settings)
    }

    /// Returns whether torrents have changed.
    pub(crate) fn has_changes(&self) -> bool {
        !self.unread.lock().changed.is_empty()
    }

    /// Takes the torrents that have changed.
    pub(crate) fn take_changes(&self) -> VecDeque<InfoHash> {
        self.unread.lock().changed.drain().collect()
    }
}

fn pop(hashes: &mut Hashes) -> Option<InfoHash> {
    let one = hashes.iter().next().copied()?;
    hashes.remove(&one);
    Some(one)
}

/// Maximum number of unread removals of a listener: ten times as many torrents as a large daemon has.
const REMOVED: usize = 100_000;
