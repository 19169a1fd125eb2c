//! Check slots: the right to hash a torrent's files, which few torrents have at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The check slots of a session.
pub(super) struct CheckSlots {
    line: Mutex<CheckLine>,
}

struct CheckLine {
    free: usize,
    waiting: VecDeque<Arc<dyn CheckWaiter>>,
}

/// Somebody who waits for a check slot.
pub(super) trait CheckWaiter: Send + Sync {
    /// Takes a slot that has become free. Returns it if it is not needed any more.
    fn take_check_slot(self: Arc<Self>, slot: CheckSlot) -> Option<CheckSlot>;
}

/// The right to hash a torrent's files, handed on when it is dropped.
pub(super) struct CheckSlot {
    slots: Weak<CheckSlots>,
}

impl CheckSlots {
    pub(crate) fn new(slots: usize) -> Self {
        Self { line: Mutex::new(CheckLine { free: slots.max(1), waiting: VecDeque::new() }) }
    }

    /// Returns whether a slot is free; if so, it is taken. Otherwise `waiter` gets one later, in
    /// order.
    pub(crate) fn ask(&self, waiter: Arc<dyn CheckWaiter>) -> bool {
        let mut line = self.line.lock();
        let is_free = line.free > 0;
        match is_free {
            true => line.free -= 1,
            false => line.waiting.push_back(waiter),
        }
        is_free
    }

    /// Drops all waiters.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut self.line.lock().waiting);
        // Not under the lock: this may be the last reference to a torrent.
        drop(waiting);
    }

    fn next(&self) -> Option<Arc<dyn CheckWaiter>> {
        let mut line = self.line.lock();
        let next = line.waiting.pop_front();
        if next.is_none() {
            line.free += 1;
        }
        next
    }
}

impl CheckSlot {
    /// Returns the slot that [`CheckSlots::ask`] has taken.
    pub(crate) fn taken(slots: &Arc<CheckSlots>) -> Self {
        Self { slots: Arc::downgrade(slots) }
    }
}

impl Drop for CheckSlot {
    fn drop(&mut self) {
        let Some(slots) = self.slots.upgrade() else { return };
        while let Some(waiter) = slots.next() {
            let slot = Self { slots: Weak::clone(&self.slots) };
            let Some(mut refused) = waiter.take_check_slot(slot) else { return };
            // Its drop would hand it on from within.
            refused.slots = Weak::new();
        }
    }
}
