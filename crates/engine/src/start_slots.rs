//! Start slots: the right to begin a download, which few torrents have at a time. The others sleep
//! in a line.
//!
//! A download that begins has its files made before it looks for peers, which takes a task of some
//! 16 KiB. A daemon that starts with 50,000 of them would have 50,000 tasks wait for the same disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashSet;
use parking_lot::Mutex;

use piecework_core::InfoHash;

/// The start slots of a session, and who waits for one.
pub(super) struct StartSlots {
    line: Mutex<Line<Arc<dyn StartWaiter>>>,
}

/// A download that waits for a start slot.
pub(super) trait StartWaiter: Send + Sync {
    /// Takes a slot that has become free. Drops it if it is not needed any more.
    fn take_start_slot(self: Arc<Self>, slot: StartSlot);
}

/// A start slot. [`StartSlot::hand_on`] wakes the next download. If all clones are dropped without
/// that, which happens when a runtime ends, the slot is free and nobody is woken.
#[derive(Clone)]
pub(super) struct StartSlot(Arc<HeldStart>);

struct HeldStart {
    slots: Weak<StartSlots>,
    /// It has not been handed on.
    is_held: AtomicBool,
}

/// Free places, and those who wait for one, each once.
struct Line<T> {
    free: usize,
    waiting: VecDeque<(InfoHash, T)>,
    known: HashSet<InfoHash, foldhash::fast::FixedState>,
}

impl StartSlots {
    pub(crate) fn new(slots: usize) -> Self {
        Self { line: Mutex::new(Line::new(slots)) }
    }

    /// Returns whether a download may begin at once. If so, a slot is taken. If not, `waiter` waits
    /// in line and gets a slot in its turn.
    pub(crate) fn ask(&self, info_hash: InfoHash, waiter: Arc<dyn StartWaiter>) -> bool {
        self.line.lock().ask(info_hash, waiter)
    }

    /// Drops all waiters.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut self.line.lock().waiting);
        // Not under the lock: this may be the last reference to a torrent.
        drop(waiting);
    }

    fn free_one(&self) {
        self.line.lock().free += 1;
    }

    /// Gives free slots to those who wait.
    fn serve(self: &Arc<Self>) {
        // Not under the lock: a torrent asks for a slot while its own lock is held.
        while let Some(waiter) = { self.line.lock().next() } {
            waiter.take_start_slot(StartSlot::taken(self));
        }
    }
}

impl StartSlot {
    /// Returns the slot that [`StartSlots::ask`] has taken.
    pub(crate) fn taken(slots: &Arc<StartSlots>) -> Self {
        let slots = Arc::downgrade(slots);
        Self(Arc::new(HeldStart { slots, is_held: AtomicBool::new(true) }))
    }

    /// Gives the slot to the next in line, unless that was done before.
    pub(crate) fn hand_on(&self) {
        if let Some(slots) = self.0.free() {
            slots.serve();
        }
    }

    /// Forgets the slot without freeing it: a torrent that wakes gets it back from
    /// [`StartSlot::taken`].
    pub(crate) fn forget(&self) {
        self.0.is_held.store(false, Ordering::Release);
    }
}

impl HeldStart {
    fn free(&self) -> Option<Arc<StartSlots>> {
        if !self.is_held.swap(false, Ordering::AcqRel) {
            return None;
        }
        let slots = self.slots.upgrade()?;
        slots.free_one();
        Some(slots)
    }
}

impl Drop for HeldStart {
    fn drop(&mut self) {
        self.free();
    }
}

/// Does `work` for a download that begins. If it takes long, because a disk hangs for instance, its
/// slot is handed on meanwhile.
pub(super) async fn begin<T>(start: Option<StartSlot>, work: impl Future<Output = T>) -> T {
    let Some(start) = start else { return work.await };
    tokio::pin!(work);
    match tokio::time::timeout(TURN, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            start.hand_on();
            work.await
        }
    }
}

/// Time that a download may keep its slot, so that nobody waits long for a disk that hangs.
const TURN: Duration = Duration::from_secs(1);

impl<T> Line<T> {
    fn new(places: usize) -> Self {
        Self { free: places, waiting: VecDeque::new(), known: HashSet::default() }
    }

    fn ask(&mut self, info_hash: InfoHash, who: T) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        if self.known.insert(info_hash) {
            self.waiting.push_back((info_hash, who));
        }
        false
    }

    /// Returns the next in line, for whom a place is taken.
    fn next(&mut self) -> Option<T> {
        if self.free == 0 {
            return None;
        }
        let (info_hash, who) = self.waiting.pop_front()?;
        self.free -= 1;
        self.known.remove(&info_hash);
        if self.waiting.is_empty() {
            // The line may have been long.
            (self.waiting, self.known) = (VecDeque::new(), HashSet::default());
        }
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_served_in_order_and_has_each_torrent_once() {
        let hash = |byte| InfoHash([byte; 20]);
        let mut line = Line::new(2);
        let mut begun: Vec<u8> = (0..4).filter(|n| line.ask(hash(*n), *n)).collect();
        assert_eq!(begun, [0, 1]);
        assert!(!line.ask(hash(2), 2), "it waits already");
        assert_eq!(line.next(), None, "no place is free");
        line.free += 1;
        begun.extend(line.next());
        line.free += 2;
        begun.extend(line.next());
        assert_eq!((&begun[..], line.next()), (&[0, 1, 2, 3][..], None));
        assert!(line.ask(hash(2), 2), "it begins a second time");
        assert!(!line.ask(hash(3), 3));
        line.free += 1;
        assert_eq!((line.next(), line.free), (Some(3), 0));
    }
}
