//! Looks at what a torrent at work waits for, and counts it.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_core::Moment;
use piecework_swarm::DriverState;

use super::super::counters::Counter;
use super::Run;

impl Run<'_> {
    /// Looks at what is waited for now. If that was just done, another look is due soon, so that
    /// what holds for long is never something that held for a moment only.
    pub(super) fn look(&mut self) {
        if !self.leeching && self.waits.waiting.bottleneck().is_none() {
            return;
        }
        let now = self.torrent.means.now();
        let next = self.waits.waiting.since() + EVERY;
        if now < next {
            self.waits.due = Some(next);
            return;
        }
        let before = self.waits.waiting.bottleneck().map(|standing| standing.cause);
        self.see(now);
        self.changed |= before != self.waits.waiting.bottleneck().map(|standing| standing.cause);
    }

    /// Notes what is waited for at `now`.
    pub(super) fn see(&mut self, now: Moment) {
        let outside = DriverState {
            limited: self.torrent.download.is_awaited(),
            behind: self.assembly.is_behind(),
            writing: self.torrent.means.hashing.is_mostly_writing(),
            naming: self.is_finishing() && !self.ending,
            busy: !self.inputs.is_empty(),
        };
        self.waits.waiting.note(now, self.swarm.bottleneck(outside));
        self.waits.due = None;
    }

    /// Adds to the session's counters what has not been added yet.
    pub(super) fn count(&mut self) {
        let counters = &self.torrent.means.counters;
        let progress = self.swarm.progress();
        let (moved, waited) = &mut self.waits.told;
        let now = [progress.downloaded, progress.uploaded, progress.wasted];
        let bytes = [&counters.downloaded, &counters.uploaded, &counters.wasted];
        for ((told, now), counter) in moved.iter_mut().zip(now).zip(bytes) {
            counter.add(now - std::mem::replace(told, now));
        }
        let now = self.waits.waiting.totals();
        for ((told, now), counter) in waited.iter_mut().zip(now).zip(&counters.waited) {
            tell(told, now, counter);
        }
    }
}

/// Adds whole microseconds; the rest is added later.
fn tell(told: &mut Duration, now: Duration, counter: &Counter) {
    let micros = u64::saturating_from(now.saturating_sub(*told).as_micros());
    counter.add(micros);
    *told += Duration::from_micros(micros);
}

/// Time between two looks while things happen. A look costs about as much as one message to each
/// peer: at 200 peers, 50 looks a second are less than a thousandth of a core.
const EVERY: Duration = Duration::from_millis(20);
