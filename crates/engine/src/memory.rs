//! A session's memory for incomplete pieces, shared by its torrents.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use piecework_core::Moment;
use piecework_swarm::budget::{Budget, MemberId, MemberReport};

/// The memory of a session for incomplete pieces. [`Budget`] divides it.
pub(super) struct Memory {
    start: Instant,
    state: Mutex<DividedMemory>,
}

struct DividedMemory {
    budget: Budget,
    /// Wakes each torrent when its share has changed.
    nudges: HashMap<MemberId, Arc<Notify>>,
}

/// The memory of one torrent. It has a share while the torrent can ask a peer for something. Dropping
/// it gives everything back.
pub(super) struct Portion {
    memory: Arc<Memory>,
    member: Option<Membership>,
    /// The session uses more memory than it has, since blocks on their way to the disk count too.
    full: bool,
}

struct Membership {
    id: MemberId,
    nudge: Arc<Notify>,
}

impl Memory {
    /// Creates a memory of `blocks` blocks.
    pub(crate) fn new(blocks: u64) -> Self {
        let state = DividedMemory { budget: Budget::new(blocks), nudges: HashMap::new() };
        Self { start: Instant::now(), state: Mutex::new(state) }
    }

    /// Returns the memory of another torrent, empty at first.
    pub(crate) fn portion(self: &Arc<Self>) -> Portion {
        Portion { memory: Arc::clone(self), member: None, full: false }
    }

    fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }
}

impl DividedMemory {
    /// Wakes torrents that hold more than their share while others are refused, and torrents that
    /// were short and have a larger share now.
    fn nudge(&mut self, now: Moment) {
        for member in self.budget.take_debtors(now).into_iter().chain(self.budget.take_risen()) {
            if let Some(nudge) = self.nudges.get(&member) {
                nudge.notify_one();
            }
        }
    }
}

impl Portion {
    /// Reports the torrent's traffic. Returns how many blocks it may request, and whether it should
    /// report again soon because that number may rise.
    pub(crate) fn tell(&mut self, news: MemberReport) -> (u64, bool) {
        let now = self.memory.now();
        let id = self.join(now);
        let mut state = self.memory.state.lock();
        let share = state.budget.tell(now, id, news);
        state.nudge(now);
        (share, state.budget.is_stale())
    }

    /// Gives up the share if no memory is held. Returns whether it was given up.
    pub(crate) fn leave(&mut self) -> bool {
        let Some(member) = &self.member else { return false };
        let holds_nothing = self.memory.state.lock().budget.used_by(member.id) == 0;
        if holds_nothing {
            self.give_up();
        }
        holds_nothing
    }

    /// Reserves memory for a piece, if there is enough.
    pub(crate) fn reserve(&mut self, blocks: u32) -> bool {
        let now = self.memory.now();
        let id = self.join(now);
        let mut state = self.memory.state.lock();
        let reserved = state.budget.reserve(id, u64::from(blocks));
        if !reserved {
            state.nudge(now);
        }
        reserved
    }

    /// Counts a block that goes to the disk at once, without its piece.
    pub(crate) fn hold(&mut self) {
        let id = self.join(self.memory.now());
        self.full = !self.memory.state.lock().budget.hold(id, 1);
    }

    /// Gives back the memory of these blocks.
    pub(crate) fn release(&mut self, blocks: u32) {
        if let Some(member) = &self.member {
            let mut state = self.memory.state.lock();
            self.full = !state.budget.release(member.id, u64::from(blocks));
        }
    }

    /// Returns whether the session used more memory than it has when this torrent last took or gave
    /// back some.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns how many blocks this torrent holds beyond its share.
    pub(crate) fn excess(&self) -> u64 {
        let Some(member) = &self.member else { return 0 };
        let state = self.memory.state.lock();
        state.budget.used_by(member.id).saturating_sub(state.budget.share(member.id))
    }

    /// Returns the number of blocks in memory.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        let id = self.member.as_ref().map(|member| member.id);
        id.map_or(0, |id| self.memory.state.lock().budget.used_by(id))
    }

    /// Waits until the share has changed: others need what this torrent holds beyond it, or it was
    /// short and may have more.
    pub(crate) async fn nudged(&self) {
        match &self.member {
            Some(member) => member.nudge.notified().await,
            None => std::future::pending().await,
        }
    }

    fn join(&mut self, now: Moment) -> MemberId {
        if let Some(member) = &self.member {
            return member.id;
        }
        let mut state = self.memory.state.lock();
        let (id, nudge) = (state.budget.join(now), Arc::new(Notify::new()));
        state.nudges.insert(id, Arc::clone(&nudge));
        self.member = Some(Membership { id, nudge });
        id
    }

    fn give_up(&mut self) {
        if let Some(member) = self.member.take() {
            let now = self.memory.now();
            let mut state = self.memory.state.lock();
            state.budget.leave(now, member.id);
            state.nudges.remove(&member.id);
            state.nudge(now);
            self.full = false;
        }
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.give_up();
    }
}
