//! A session's memory for pieces, and the parts that its torrents have of it.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::Moment;
use crate::budget::{Budget, MemberId, News};

/// The memory for pieces that are coming.
pub(super) struct Memory {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    budget: Budget,
    /// How they are told that their share is another one.
    nudges: HashMap<MemberId, Arc<Notify>>,
}

/// What one torrent has of it. It takes part while it can ask somebody for something, and gives
/// back all it has when it is dropped.
pub(super) struct Portion {
    memory: Arc<Memory>,
    member: Option<Member>,
    /// All of the memory is in use, and more.
    full: bool,
}

struct Member {
    id: MemberId,
    nudge: Arc<Notify>,
}

impl Memory {
    /// Of so many blocks.
    pub fn new(blocks: u64) -> Self {
        let state = State { budget: Budget::new(blocks), nudges: HashMap::new() };
        Self { start: Instant::now(), state: Mutex::new(state) }
    }

    /// A portion of it, empty at first.
    pub fn portion(self: &Arc<Self>) -> Portion {
        Portion { memory: Arc::clone(self), member: None, full: false }
    }

    fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }
}

impl State {
    /// Wakes those who hold more than their share while others go without, and those who lacked
    /// something and may have more.
    fn nudge(&mut self, now: Moment) {
        for member in self.budget.take_debtors(now).into_iter().chain(self.budget.take_risen()) {
            if let Some(nudge) = self.nudges.get(&member) {
                nudge.notify_one();
            }
        }
    }
}

impl Portion {
    /// Takes part, and says how it does. Returns how many blocks may be asked for, and whether it is
    /// to speak again soon since that may be more by then.
    pub fn tell(&mut self, news: News) -> (u64, bool) {
        let now = self.memory.now();
        let id = self.join(now);
        let mut state = self.memory.state.lock();
        let share = state.budget.tell(now, id, news);
        state.nudge(now);
        (share, state.budget.is_stale())
    }

    /// Takes part no more if nothing is held. Returns whether that is so from now on.
    pub fn leave(&mut self) -> bool {
        let Some(member) = &self.member else { return false };
        let holds_nothing = self.memory.state.lock().budget.used_by(member.id) == 0;
        if holds_nothing {
            self.give_up();
        }
        holds_nothing
    }

    /// Reserves memory for a piece, if there is some.
    pub fn reserve(&mut self, blocks: u32) -> bool {
        let now = self.memory.now();
        let id = self.join(now);
        let mut state = self.memory.state.lock();
        let reserved = state.budget.reserve(id, u64::from(blocks));
        if !reserved {
            state.nudge(now);
        }
        reserved
    }

    /// Counts a block that goes to the disk on its own.
    pub fn hold(&mut self) {
        let id = self.join(self.memory.now());
        self.full = !self.memory.state.lock().budget.hold(id, 1);
    }

    /// Gives blocks back.
    pub fn release(&mut self, blocks: u32) {
        if let Some(member) = &self.member {
            let mut state = self.memory.state.lock();
            self.full = !state.budget.release(member.id, u64::from(blocks));
        }
    }

    /// Whether all of the memory is in use, and more, as it was when this torrent changed that last.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Blocks in memory beyond its share.
    pub fn excess(&self) -> u64 {
        let Some(member) = &self.member else { return 0 };
        let state = self.memory.state.lock();
        state.budget.used_by(member.id).saturating_sub(state.budget.share(member.id))
    }

    /// Blocks in memory.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        let id = self.member.as_ref().map(|member| member.id);
        id.map_or(0, |id| self.memory.state.lock().budget.used_by(id))
    }

    /// Returns when the share is another one: others lack what this one holds beyond it, or it lacked
    /// something and may have more.
    pub async fn nudged(&self) {
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
        self.member = Some(Member { id, nudge });
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
