//! What a torrent at work waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Moment;
use crate::swarm::{Cause, Outside, Waiting};

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
    /// Goes on from what earlier swarms waited for.
    pub fn new(now: Moment, earlier: Option<&[Duration; Cause::ALL.len()]>) -> Self {
        let totals = earlier.copied().unwrap_or_default();
        Self { waiting: Waiting::new(now, totals), due: None, told: ([0; 3], totals) }
    }

    /// When it is to be looked at though nothing happens.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// To be shown; `None` if it never waited for anything.
    pub fn shown(&self) -> Option<Arc<Waiting>> {
        let waited = self.waiting.standing().is_some() || self.totals().is_some();
        waited.then(|| Arc::new(self.waiting.clone()))
    }

    /// The time of each cause; `None` if there is none.
    pub fn totals(&self) -> Option<[Duration; Cause::ALL.len()]> {
        let totals = self.waiting.totals();
        totals.iter().any(|total| !total.is_zero()).then_some(totals)
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
