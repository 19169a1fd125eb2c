//! Downloads that begin: few are awake for that at a time, the others sleep in a line.
//!
//! A download that begins has its files made before it looks for peers, and needs a task for that: some
//! 16 KiB. A daemon with 50,000 of them that starts would have 50,000 tasks wait for the same disk.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashSet;
use parking_lot::Mutex;

use super::entry::Entry;
use super::shared::Shared;
use piecework_core::InfoHash;

/// Who may begin, and who waits for that.
pub(super) struct Starts {
    state: Mutex<Line<Arc<Entry>>>,
}

/// A place among those who begin. [`Start::hand_on`] wakes the next one. If it is dropped otherwise,
/// which happens when a runtime ends, the place is free and nobody is woken.
pub(super) struct Start {
    shared: Weak<Shared>,
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

    /// Whether a download may begin at once. If so, a place is taken; if not, it is in the line, and is
    /// woken when it is its turn, if it sleeps then and [`Record::begins`](super::record::Record::begins).
    pub fn ask(&self, entry: &Arc<Entry>) -> bool {
        self.state.lock().ask(entry.info_hash(), entry)
    }

    /// A place, if one is free.
    pub fn take(&self, shared: &Arc<Shared>) -> Option<Start> {
        let free = &mut self.state.lock().free;
        let is_free = *free > 0;
        *free -= usize::from(is_free);
        is_free.then(|| Start::taken(shared))
    }

    /// Has a download that sleeps begin when it is its turn.
    pub fn line_up(&self, shared: &Arc<Shared>, entry: &Arc<Entry>) {
        if self.ask(entry) {
            wake(shared, entry);
            serve(shared);
        }
    }

    /// Whoever waits is given up.
    pub fn clear(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }
}

impl Start {
    /// A place that was taken by [`Starts::ask`].
    pub fn taken(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// Lets the next one begin.
    pub fn hand_on(self) {
        let Some(shared) = self.shared.upgrade() else { return };
        drop(self);
        serve(&shared);
    }
}

/// Has those begin whose turn it is.
fn serve(shared: &Arc<Shared>) {
    // Not under the lock, which is taken by whoever asks while its own is held.
    while let Some(entry) = { shared.starts.state.lock().next() } {
        wake(shared, &entry);
    }
}

/// Wakes a download for which there is a place. The place is free again if it is awake, paused or gone.
fn wake(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    let mut begins = false;
    entry.change_asleep((), |record, ()| {
        begins = record.begins(entry);
        begins
    });
    if !begins {
        shared.starts.state.lock().free += 1;
    }
}

/// Does `work` for a download that begins. If it takes long, because a disk hangs for instance, its
/// place in `start` is handed on meanwhile.
pub(super) async fn begin<T>(start: &mut Option<Start>, work: impl Future<Output = T>) -> T {
    if start.is_none() {
        return work.await;
    }
    tokio::pin!(work);
    match tokio::time::timeout(TURN, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            if let Some(start) = start.take() {
                start.hand_on();
            }
            work.await
        }
    }
}

/// How long a download may keep its place: nobody waits long for a disk that hangs.
const TURN: Duration = Duration::from_secs(1);

impl Drop for Start {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.starts.state.lock().free += 1;
        }
    }
}

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
