//! Downloads that begin: few are awake for that at a time, the others sleep in a line.
//!
//! A download that begins has its files made before it looks for peers, and needs a task for that: some
//! 16 KiB. A daemon with 50,000 of them that starts would have 50,000 tasks wait for the same disk.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashSet;
use parking_lot::Mutex;

use super::entry::{Call, Entry};
use super::lifecycle::TorrentRef;
use super::shared::Shared;
use piecework_core::InfoHash;
use piecework_swarm::lifecycle::LifecycleEvent;

/// Who may begin, and who waits for that.
pub(super) struct Starts {
    state: Mutex<Line<Arc<Entry>>>,
}

/// A start slot. [`Start::hand_on`] wakes the next download. If all clones are dropped without that,
/// which happens when a runtime ends, the slot is free and nobody is woken.
#[derive(Clone)]
pub(super) struct Start(Arc<HeldStart>);

struct HeldStart {
    shared: Weak<Shared>,
    /// It has not been handed on.
    is_held: AtomicBool,
}

/// Places, and those who wait for one, each of them once.
struct Line<T> {
    free: usize,
    waiting: VecDeque<(InfoHash, T)>,
    known: HashSet<InfoHash, foldhash::fast::FixedState>,
}

impl Starts {
    pub fn new(places: usize) -> Self {
        Self { state: Mutex::new(Line::new(places)) }
    }

    /// Whether a download may begin at once. If so, a slot is taken; if not, it is in the line, and gets
    /// one when it is its turn.
    pub fn ask(&self, entry: &Arc<Entry>) -> bool {
        self.state.lock().ask(entry.info_hash(), entry)
    }

    /// Whoever waits is given up.
    pub fn clear(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }

    fn free_one(&self) {
        self.state.lock().free += 1;
    }
}

impl Start {
    /// Of a slot that the torrent has already.
    pub fn taken(shared: &Arc<Shared>) -> Self {
        let shared = Arc::downgrade(shared);
        Self(Arc::new(HeldStart { shared, is_held: AtomicBool::new(true) }))
    }

    /// Lets the next one begin, if that was not done before.
    pub fn hand_on(&self) {
        if let Some(shared) = self.0.free() {
            serve(&shared);
        }
    }
}

impl HeldStart {
    fn free(&self) -> Option<Arc<Shared>> {
        if !self.is_held.swap(false, Ordering::AcqRel) {
            return None;
        }
        let shared = self.shared.upgrade()?;
        shared.starts.free_one();
        Some(shared)
    }
}

impl Drop for HeldStart {
    fn drop(&mut self) {
        self.free();
    }
}

/// Has those begin whose turn it is.
fn serve(shared: &Arc<Shared>) {
    // Not under the lock, which is taken by whoever asks while its own is held.
    while let Some(entry) = { shared.starts.state.lock().next() } {
        give_slot(TorrentRef { shared, entry: &entry });
    }
}

/// Gives a torrent the slot that was taken for it. If it does not want it any more, the slot is free.
fn give_slot(torrent: TorrentRef<'_>) {
    let TorrentRef { shared, entry } = torrent;
    let mut is_taken = false;
    let awake = entry.change_asleep((), |record, ()| {
        let wakes = record.pass(torrent, LifecycleEvent::StartSlot);
        is_taken = record.life.has_start_slot();
        wakes
    });
    match awake {
        // If it is gone, what comes back frees the slot.
        Some(()) => drop(entry.post_soon(shared, Call::Start(Start::taken(shared)))),
        None if !is_taken => shared.starts.free_one(),
        None => {}
    }
}

/// Does `work` for a download that begins. If it takes long, because a disk hangs for instance, its
/// slot is handed on meanwhile.
pub(super) async fn begin<T>(start: Option<Start>, work: impl Future<Output = T>) -> T {
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

/// How long a download may keep its slot: nobody waits long for a disk that hangs.
const TURN: Duration = Duration::from_secs(1);

impl<T: Clone> Line<T> {
    fn new(places: usize) -> Self {
        Self { free: places, waiting: VecDeque::new(), known: HashSet::default() }
    }

    fn ask(&mut self, info_hash: InfoHash, who: &T) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        if self.known.insert(info_hash) {
            self.waiting.push_back((info_hash, who.clone()));
        }
        false
    }

    /// The next one, who has a free place from now on.
    fn next(&mut self) -> Option<T> {
        if self.free == 0 {
            return None;
        }
        let (info_hash, who) = self.waiting.pop_front()?;
        self.free -= 1;
        self.known.remove(&info_hash);
        if self.waiting.is_empty() {
            // It may have been long.
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
        let mut begun: Vec<u8> = (0..4).filter(|n| line.ask(hash(*n), n)).collect();
        assert_eq!(begun, [0, 1]);
        assert!(!line.ask(hash(2), &2), "it waits already");
        assert_eq!(line.next(), None, "no place is free");
        line.free += 1;
        begun.extend(line.next());
        line.free += 2;
        begun.extend(line.next());
        assert_eq!((&begun[..], line.next()), (&[0, 1, 2, 3][..], None));
        assert!(line.ask(hash(2), &2), "it begins a second time");
        assert!(!line.ask(hash(3), &3));
        line.free += 1;
        assert_eq!((line.next(), line.free), (Some(3), 0));
    }
}
