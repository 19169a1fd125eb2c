//! What a torrent at work waits for.

use std::sync::Arc;
use std::time::Duration;

use piecework_core::Moment;
use piecework_swarm::{Cause, Standing, Waiting};

/// What was seen of it so far, and when it is to be looked at again.
pub(super) struct WaitRecord {
    pub waiting: Waiting,
    /// Something has happened since it was looked at.
    pub due: Option<Moment>,
    /// What the session's counters have been told: bytes received, sent and wasted, and each cause's
    /// time.
    pub told: ([u64; 3], [Duration; Cause::ALL.len()]),
}

impl WaitRecord {
    /// Goes on from what earlier swarms waited for, and the torrent has while it slept.
    pub fn new(now: Moment, earlier: Option<&Arc<Waiting>>) -> Self {
        let mut waiting = match earlier {
            Some(earlier) => Waiting::clone(earlier),
            None => Waiting::new(now, Default::default()),
        };
        let told = waiting.totals();
        waiting.note(now, None);
        Self { waiting, due: None, told: ([0; 3], told) }
    }

    /// When it is to be looked at though nothing happens.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// To be shown; `None` if it never waited for anything.
    pub fn shown(&self) -> Option<Arc<Waiting>> {
        let waited = self.waiting.standing().is_some() || self.has_waited();
        waited.then(|| Arc::new(self.waiting.clone()))
    }

    /// What was seen, without what is waited for just now; `None` if it never waited for anything.
    pub fn seen(&self) -> Option<Arc<Waiting>> {
        let mut waiting = self.waiting.clone();
        waiting.note(waiting.since(), None);
        self.has_waited().then(|| Arc::new(waiting))
    }

    /// What was seen, of a download that lacks `missing` pieces and waits for peers from `now` on
    /// without a swarm; `hung_up` close connections at our handshake.
    pub fn alone(&self, now: Moment, missing: u32, hung_up: u32) -> Arc<Waiting> {
        let mut waiting = self.waiting.clone();
        waiting.note(now, Some(Standing::alone(missing, hung_up)));
        Arc::new(waiting)
    }

    /// Whether it has ever waited for anything.
    fn has_waited(&self) -> bool {
        self.waiting.totals().iter().any(|total| !total.is_zero())
    }
}
