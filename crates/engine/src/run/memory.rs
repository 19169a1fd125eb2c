//! The torrent's part of the session's memory.

use std::time::Duration;

use piecework_swarm::budget::News;
use piecework_swarm::{Event, MemoryNeed};

use super::super::assembly::STREAM_OVER;
use super::Run;
use super::memory_share::blocks;

impl Run<'_> {
    /// Tells the session what has come and what is lacking, and the swarm what it may have asked for.
    /// Returns whether that is something else than before.
    pub(super) fn share_memory(&mut self) -> bool {
        let MemoryNeed { coming, is_short } = self.swarm.memory_need();
        let is_streamed = self.torrent.geometry.piece_len() > STREAM_OVER;
        // Pieces that are hashed where they lie on the disk are no company for others.
        let expected = if is_streamed { 0 } else { coming };
        let before = std::mem::replace(&mut self.memory.coming, expected);
        if before != expected {
            self.torrent.means.hashing.expect(before, expected);
        }
        let came = self.assembly.take_came();
        let was_short = std::mem::replace(&mut self.memory.short, is_short);
        let now = self.torrent.means.now();
        let is_due = self.memory.speak_at.is_some_and(|at| at <= now);
        if came == 0 && is_short == was_short && !is_due {
            if coming > 0 || is_short || !self.assembly.portion().leave() {
                return false;
            }
            self.memory.speak_at = None;
            return self.set_share(0);
        }
        let (mut in_flight, looked) = self.memory.in_flight;
        if now.since(looked) >= LOOK || in_flight == 0 {
            in_flight = self.swarm.blocks_in_flight();
            self.memory.in_flight = (in_flight, now);
        }
        let (share, again) = self.assembly.portion().tell(News { came, in_flight, is_short });
        self.memory.speak_at = again.then(|| now + SOON);
        let told = self.memory.share;
        // Others come and go: small differences are not worth that all peers are looked at.
        if share == told || (!is_short && share.abs_diff(told) <= told / 16) {
            return false;
        }
        self.set_share(share)
    }

    /// Returns whether that is another share than before.
    fn set_share(&mut self, share: u64) -> bool {
        let is_new = std::mem::replace(&mut self.memory.share, share) != share;
        if is_new {
            self.tell(Event::MemoryBudget { blocks: blocks(&self.torrent.geometry, share) });
        }
        is_new
    }
}

/// When the session is asked again that has not divided its memory anew yet.
const SOON: Duration = Duration::from_millis(20);
/// Between two looks at what fills the lines.
const LOOK: Duration = Duration::from_millis(100);
