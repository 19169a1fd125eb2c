//! What a torrent at work waits for.

use std::sync::Arc;
use std::time::Duration;

use piecework_core::Moment;
use piecework_swarm::{Bottleneck, Cause, WaitTimes};

/// What was waited for so far, and when to look again.
pub(super) struct WaitRecord {
    pub waiting: WaitTimes,
    /// When to look, because something has happened since the last look.
    pub due: Option<Moment>,
    /// What was added to the session's counters: bytes received, sent and wasted, and the time of
    /// each cause.
    pub told: ([u64; 3], [Duration; Cause::ALL.len()]),
}

impl WaitRecord {
    /// Continues what earlier swarms have waited for, and the torrent while it slept.
    pub(super) fn new(now: Moment, earlier: Option<&Arc<WaitTimes>>) -> Self {
        let mut waiting = match earlier {
            Some(earlier) => WaitTimes::clone(earlier),
            None => WaitTimes::new(now, Default::default()),
        };
        let told = waiting.totals();
        waiting.note(now, None);
        Self { waiting, due: None, told: ([0; 3], told) }
    }

    /// Returns when to look again although nothing happens.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Returns what to show; `None` if it never waited for anything.
    pub(super) fn shown(&self) -> Option<Arc<WaitTimes>> {
        let waited = self.waiting.bottleneck().is_some() || self.has_waited();
        waited.then(|| Arc::new(self.waiting.clone()))
    }

    /// Returns what was waited for, without what is waited for just now; `None` if it never waited
    /// for anything.
    pub(super) fn seen(&self) -> Option<Arc<WaitTimes>> {
        let mut waiting = self.waiting.clone();
        waiting.note(waiting.since(), None);
        self.has_waited().then(|| Arc::new(waiting))
    }

    /// Returns what was waited for by a download that lacks `missing` pieces and waits for peers
    /// from `now` on without a swarm. `hung_up` peers close connections at our handshake.
    pub(super) fn alone(&self, now: Moment, missing: u32, hung_up: u32) -> Arc<WaitTimes> {
        let mut waiting = self.waiting.clone();
        waiting.note(now, Some(Bottleneck::alone(missing, hung_up)));
        Arc::new(waiting)
    }

    /// Returns whether it has ever waited for anything.
    fn has_waited(&self) -> bool {
        self.waiting.totals().iter().any(|total| !total.is_zero())
    }
}
