//! What a torrent at work waits for.

use std::sync::Arc;
use std::time::Duration;

use piecework_core::Moment;
use piecework_swarm::{Cause, Outside, Standing, Waiting};

use super::super::sums::Sum;
use super::Run;

/// What was seen of it so far, and when it is to be looked at again.
pub(super) struct Waits {
    waiting: Waiting,
    /// Something has happened since it was looked at.
    due: Option<Moment>,
    /// What the session's sums have been told: bytes received, sent and wasted, and each cause's
    /// time.
    told: ([u64; 3], [Duration; Cause::ALL.len()]),
}

impl Waits {
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

impl Run<'_> {
    /// Sees what is waited for now, unless that was done just before: then it is due soon, so that
    /// what holds for long is never what held for a moment only.
    pub(super) fn look(&mut self) {
        if !self.leeching && self.waits.waiting.standing().is_none() {
            return;
        }
        let now = self.torrent.shared.now();
        let next = self.waits.waiting.since() + EVERY;
        if now < next {
            self.waits.due = Some(next);
            return;
        }
        let before = self.waits.waiting.standing().map(|standing| standing.cause);
        self.see(now);
        self.changed |= before != self.waits.waiting.standing().map(|standing| standing.cause);
    }

    /// Sees what is waited for at `now`.
    pub(super) fn see(&mut self, now: Moment) {
        let outside = Outside {
            limited: self.torrent.download.is_awaited(),
            behind: self.assembly.is_behind(),
            writing: self.torrent.shared.hashing.is_mostly_writing(),
            naming: self.is_finishing() && !self.ending,
            busy: !self.inputs.is_empty(),
        };
        self.waits.waiting.note(now, self.swarm.standing(outside));
        self.waits.due = None;
    }

    /// Adds to the session's sums what they have not been told.
    pub(super) fn count(&mut self) {
        let sums = &self.torrent.shared.sums;
        let progress = self.swarm.progress();
        let (moved, waited) = &mut self.waits.told;
        let now = [progress.downloaded, progress.uploaded, progress.wasted];
        let bytes = [&sums.downloaded, &sums.uploaded, &sums.wasted];
        for ((told, now), sum) in moved.iter_mut().zip(now).zip(bytes) {
            sum.add(now - std::mem::replace(told, now));
        }
        let now = self.waits.waiting.totals();
        for ((told, now), sum) in waited.iter_mut().zip(now).zip(&sums.waited) {
            tell(told, now, sum);
        }
    }
}

/// Adds whole microseconds; what is left of one is told later.
fn tell(told: &mut Duration, now: Duration, sum: &Sum) {
    let micros = now.saturating_sub(*told).as_micros() as u64;
    sum.add(micros);
    *told += Duration::from_micros(micros);
}

/// How often it is looked at most, while things happen. A look costs about as much as one message
/// to each peer: at 200 peers, 50 looks a second are less than a thousandth of a core.
const EVERY: Duration = Duration::from_millis(20);
