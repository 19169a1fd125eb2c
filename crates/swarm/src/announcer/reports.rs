//! Decides when the holdings of which torrents are reported to one tracker. No I/O.
//!
//! Torrents that have changed are gathered for [`SPACING`] and reported together, one request at a time,
//! [`PAUSE`] apart. A torrent that the tracker does not know from an announce waits for the next announce
//! that is answered. If the report of a torrent is refused, that torrent waits 4 s, and twice as long each
//! time up to an hour. If the tracker does not answer at all, all torrents wait 5 s, and twice as long each
//! time up to five minutes. A reported torrent takes no memory here.

use piecework_core::SaturatingFrom;
use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use piecework_core::{InfoHash, Moment, Rng};

/// The torrents whose holdings must still be reported to a tracker.
#[derive(Debug)]
pub struct Reports {
    pending: HashMap<InfoHash, PendingReport, foldhash::fast::FixedState>,
    due: BTreeSet<(Moment, InfoHash)>,
    /// No request begins before this.
    not_before: Moment,
    /// The number of unanswered requests in a row.
    failures: u32,
    is_under_way: bool,
    rng: Rng,
}

/// The result of reporting one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportOutcome {
    /// The tracker accepted it, or there is nothing to report.
    Settled,
    /// It was not sent, because the tracker does not know the torrent from an announce yet.
    Unannounced,
    /// The tracker does not know us, although it was announced to.
    Unknown,
    /// The tracker refused it.
    Refused,
    /// It was not sent, or the request was not answered.
    Postponed,
}

#[derive(Debug)]
struct PendingReport {
    place: ReportState,
    /// The number of refusals in a row.
    refusals: u32,
}

#[derive(Debug, Clone, Copy)]
enum ReportState {
    Due(Moment),
    /// It waits for an announce.
    Unannounced,
    UnderWay {
        /// It has changed since.
        again: bool,
    },
}

impl Reports {
    /// Creates a list without torrents. `rng` adds jitter to the pauses.
    pub fn new(rng: Rng) -> Self {
        Self {
            pending: HashMap::default(),
            due: BTreeSet::new(),
            not_before: Moment::START,
            failures: 0,
            is_under_way: false,
            rng,
        }
    }

    /// Records that the holdings of `torrent` have changed.
    pub fn changed(&mut self, now: Moment, torrent: InfoHash) {
        match self.pending.get_mut(&torrent) {
            None => self.put(torrent, now + SPACING, 0),
            Some(PendingReport { place: ReportState::UnderWay { again }, .. }) => *again = true,
            Some(_) => {}
        }
    }

    /// Records that the tracker has answered an announce of `torrent`. `is_new` means that the tracker
    /// treated it as a new peer, about which it knows nothing.
    pub fn announced(&mut self, now: Moment, torrent: InfoHash, is_new: bool) {
        match self.pending.get_mut(&torrent) {
            None if is_new => self.put(torrent, now, 0),
            Some(PendingReport { place: ReportState::UnderWay { again }, .. }) => *again |= is_new,
            Some(PendingReport { place: ReportState::Unannounced, refusals }) => {
                let refusals = *refusals;
                self.put(torrent, now, refusals);
            }
            _ => {}
        }
    }

    /// Stops reporting `torrent`.
    pub fn forget(&mut self, torrent: InfoHash) {
        if let Some(PendingReport { place: ReportState::Due(due), .. }) =
            self.pending.remove(&torrent)
        {
            self.due.remove(&(due, torrent));
        }
    }

    /// Returns the torrents to report now, at most `most`. If there are any, call [`Reports::done`] for
    /// each and then [`Reports::finished`]. Until then, no others are returned.
    pub fn take(&mut self, now: Moment, most: usize) -> Vec<InfoHash> {
        let mut taken = Vec::new();
        if self.is_under_way || now < self.not_before {
            return taken;
        }
        while taken.len() < most
            && let Some((due, torrent)) = self.due.first().copied().filter(|(due, _)| *due <= now)
        {
            self.due.remove(&(due, torrent));
            if let Some(pending) = self.pending.get_mut(&torrent) {
                pending.place = ReportState::UnderWay { again: false };
                taken.push(torrent);
            }
        }
        self.is_under_way = !taken.is_empty();
        taken
    }

    /// Ends the report of `torrent`.
    pub fn done(&mut self, now: Moment, torrent: InfoHash, reported: ReportOutcome) {
        let Some(pending) = self.pending.get_mut(&torrent) else { return };
        let ReportState::UnderWay { again } = pending.place else { return };
        let refusals = pending.refusals + 1;
        match reported {
            ReportOutcome::Settled if again => self.put(torrent, now + SPACING, 0),
            ReportOutcome::Settled => {
                self.pending.remove(&torrent);
            }
            ReportOutcome::Unannounced => pending.place = ReportState::Unannounced,
            ReportOutcome::Unknown if refusals <= MOST_UNKNOWN => {
                *pending = PendingReport { place: ReportState::Unannounced, refusals };
            }
            ReportOutcome::Unknown | ReportOutcome::Refused => {
                let pause = SPACING.saturating_mul(1 << refusals.min(20)).min(LONGEST_REFUSED);
                let due = now + self.spread(pause);
                self.put(torrent, due, refusals);
            }
            ReportOutcome::Postponed => {
                let refusals = pending.refusals;
                self.put(torrent, now, refusals);
            }
        }
    }

    /// Ends the request. Without an answer, the next one waits longer.
    pub fn finished(&mut self, now: Moment, was_answered: bool) {
        self.is_under_way = false;
        self.failures = if was_answered { 0 } else { self.failures + 1 };
        let pause = match self.failures {
            0 => PAUSE,
            failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_RETRY),
        };
        self.not_before = now + self.spread(pause);
    }

    /// Returns when [`Reports::take`] returns torrents, if nothing else happens before. `None` while a
    /// request is under way, and if there is nothing to do.
    pub fn deadline(&self) -> Option<Moment> {
        let (due, _) = self.due.first().filter(|_| !self.is_under_way)?;
        Some((*due).max(self.not_before))
    }

    fn put(&mut self, torrent: InfoHash, due: Moment, refusals: u32) {
        self.pending.insert(torrent, PendingReport { place: ReportState::Due(due), refusals });
        self.due.insert((due, torrent));
    }

    /// Returns `pause`, up to a fifth longer or shorter.
    fn spread(&mut self, pause: Duration) -> Duration {
        let jitter = Duration::from_millis(
            self.rng.below(u64::saturating_from(pause.as_millis()) * 2 / 5 + 1),
        );
        pause * 4 / 5 + jitter
    }
}

/// How long changes of a torrent are gathered.
const SPACING: Duration = Duration::from_secs(2);

/// The pause between two requests. Ten thousand torrents take 20 s, with 500 in each request.
const PAUSE: Duration = Duration::from_secs(1);

/// How many times in a row a tracker may say that it does not know us and be announced to at once. One that
/// continues has not understood our announces.
const MOST_UNKNOWN: u32 = 2;

/// The longest pause between two reports of a torrent that the tracker refuses, for example one that is not
/// in its catalogue.
const LONGEST_REFUSED: Duration = Duration::from_secs(3_600);

const FIRST_RETRY: Duration = Duration::from_secs(5);

const LONGEST_RETRY: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use piecework_core::Rng;

    fn torrent(number: u16) -> InfoHash {
        let mut hash = [0; 20];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        InfoHash(hash)
    }

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn reports() -> Reports {
        Reports::new(Rng::from_seed(1))
    }

    /// Returns everything to report at the next deadline.
    fn next(reports: &mut Reports) -> (Moment, Vec<InfoHash>) {
        let now = reports.deadline().unwrap();
        assert!(reports.take(now - Duration::from_millis(1), 500).is_empty());
        (now, reports.take(now, 500))
    }

    #[test]
    fn ten_thousand_torrents_take_twenty_requests_one_after_the_other() {
        let mut reports = reports();
        (0..10_000).for_each(|number| reports.changed(at(0), torrent(number)));
        let mut now = at(0);
        for _ in 0..20 {
            let (due, batch) = next(&mut reports);
            assert_eq!((batch.len(), reports.deadline()), (500, None));
            now = due;
            batch.into_iter().for_each(|one| reports.done(now, one, ReportOutcome::Settled));
            reports.finished(now, true);
        }
        assert_eq!((reports.deadline(), reports.pending.len()), (None, 0));
        assert!(now <= at(2_000 + 20 * 1_200), "{now:?}");
    }

    #[test]
    fn what_changes_while_it_is_reported_is_reported_again() {
        let mut reports = reports();
        reports.changed(at(0), torrent(1));
        reports.changed(at(1_000), torrent(1));
        let (now, batch) = next(&mut reports);
        assert_eq!((now, &batch[..]), (at(2_000), &[torrent(1)][..]));
        reports.changed(now, torrent(1));
        reports.done(now, torrent(1), ReportOutcome::Settled);
        reports.finished(now, true);
        assert_eq!(next(&mut reports), (at(4_000), vec![torrent(1)]));
    }

    #[test]
    fn who_is_unknown_waits_for_an_announce_and_not_longer() {
        let mut reports = reports();
        reports.changed(at(0), torrent(1));
        for _ in 0..2 {
            let (now, _) = next(&mut reports);
            reports.done(now, torrent(1), ReportOutcome::Unknown);
            reports.finished(now, true);
            assert_eq!(reports.deadline(), None);
            reports.announced(now, torrent(1), true);
            assert!(reports.deadline().unwrap().since(now) <= PAUSE * 6 / 5);
        }
        let (now, _) = next(&mut reports);
        reports.done(now, torrent(1), ReportOutcome::Unknown);
        reports.finished(now, true);
        let later = reports.deadline().expect("it is tried again by itself");
        assert!(later.since(now) > SPACING);
        reports.announced(now, torrent(1), true);
        assert_eq!(reports.deadline(), Some(later), "it has not understood the announces");
    }

    #[test]
    fn a_refusal_is_the_torrents_and_silence_is_everybodys() {
        let mut reports = reports();
        (1..3).for_each(|number| reports.changed(at(0), torrent(number)));
        let (now, _) = next(&mut reports);
        reports.done(now, torrent(1), ReportOutcome::Refused);
        reports.done(now, torrent(2), ReportOutcome::Postponed);
        reports.finished(now, true);
        let (now, batch) = next(&mut reports);
        assert_eq!(batch, [torrent(2)]);
        reports.done(now, torrent(2), ReportOutcome::Postponed);
        reports.finished(now, false);
        let (later, batch) = next(&mut reports);
        assert_eq!(batch.len(), 2);
        assert!((4..=6).contains(&later.since(now).as_secs()), "{:?}", later.since(now));
    }

    proptest! {
        /// Whatever the tracker says, there is one request at a time, and in the end everything that
        /// changed is reported and nothing is kept.
        #[test]
        fn every_change_is_reported_in_the_end(
            steps in proptest::collection::vec((0u8..6, 0u16..30, 0u64..5_000), 1..200),
        ) {
            let mut reports = reports();
            // Changes of each torrent, and those that were reported.
            let (mut changes, mut told) = ([0; 30], [0; 30]);
            let mut under_way: Vec<(InfoHash, usize)> = Vec::new();
            let mut now = at(0);
            let index = |torrent: InfoHash| usize::from(u16::from_be_bytes([torrent.0[0], torrent.0[1]]));
            for (kind, number, wait) in steps {
                now = now + Duration::from_millis(wait);
                match kind {
                    0 | 1 => {
                        changes[usize::from(number)] += 1;
                        reports.changed(now, torrent(number));
                    }
                    2 => reports.announced(now, torrent(number), wait % 2 == 0),
                    _ if under_way.is_empty() => {
                        let taken = reports.take(now, usize::from(number) + 1);
                        prop_assert!(taken.len() <= usize::from(number) + 1);
                        under_way = taken.into_iter().map(|t| (t, changes[index(t)])).collect();
                    }
                    _ => {
                        prop_assert!(reports.take(now, 100).is_empty());
                        for (n, (torrent, seen)) in under_way.drain(..).enumerate() {
                            let reported = [
                                ReportOutcome::Settled,
                                ReportOutcome::Unannounced,
                                ReportOutcome::Unknown,
                                ReportOutcome::Refused,
                                ReportOutcome::Postponed,
                            ][(n + usize::from(number)) % 5];
                            if reported == ReportOutcome::Settled {
                                told[index(torrent)] = seen;
                            }
                            reports.done(now, torrent, reported);
                        }
                        reports.finished(now, wait % 3 > 0);
                    }
                }
            }
            for _ in 0..1_000 {
                for (torrent, seen) in under_way.drain(..) {
                    told[index(torrent)] = seen;
                    reports.done(now, torrent, ReportOutcome::Settled);
                }
                reports.finished(now, true);
                (0..30).for_each(|number| reports.announced(now, torrent(number), false));
                let Some(deadline) = reports.deadline() else { break };
                now = now.max(deadline);
                under_way =
                    reports.take(now, 7).into_iter().map(|t| (t, changes[index(t)])).collect();
            }
            prop_assert!(reports.pending.is_empty() && reports.due.is_empty());
            prop_assert_eq!(changes, told);
        }
    }
}
