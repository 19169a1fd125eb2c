//! The torrent's part of the session's memory.

use std::time::Duration;

use piecework_swarm::budget::MemberReport;
use piecework_swarm::{Event, MemoryNeed};

use super::super::assembly::STREAM_OVER;
use super::Run;
use super::memory_share::blocks;

impl Run<'_> {
    /// Tells the session what has come and what is lacking, and the swarm what it may request.
    /// Returns whether that has changed.
    pub(super) fn share_memory(&mut self) -> bool {
        let MemoryNeed { coming, is_short } = self.swarm.memory_need();
        let is_streamed = self.torrent.geometry.piece_len() > STREAM_OVER;
        // Pieces that are hashed where they lie on the disk are not hashed together with others.
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
        let (share, again) =
            self.assembly.portion().tell(MemberReport { came, in_flight, is_short });
        self.memory.speak_at = again.then(|| now + SOON);
        let told = self.memory.share;
        // Small differences come and go, and are not worth a look at all peers.
        if share == told || (!is_short && share.abs_diff(told) <= told / 16) {
            return false;
        }
        self.set_share(share)
    }

    /// Returns whether the share has changed.
    fn set_share(&mut self, share: u64) -> bool {
        let is_new = std::mem::replace(&mut self.memory.share, share) != share;
        if is_new {
            self.tell(Event::MemoryBudget { blocks: blocks(&self.torrent.geometry, share) });
        }
        is_new
    }
}

/// Time before the session is asked again, if it has not divided its memory anew yet.
const SOON: Duration = Duration::from_millis(20);
/// Time between two looks at the blocks in flight.
const LOOK: Duration = Duration::from_millis(100);
