//! Decides when to announce to which tracker: tiers, intervals, back-off. No I/O.
//!
//! Trackers are grouped in tiers (BEP 12). Within a tier, an announce goes to the first tracker, to the
//! next one if that fails, and ends with the first that answers, which moves to the front. By BEP 12, the
//! next tier is used only if all trackers of a tier fail. Then peers that know different trackers never
//! meet, so other clients announce to every tier, and so does an announcer by default ([`TierPolicy`]).
//! Within a tier, it then also continues while trackers answer that they know no other peer. Tiers that
//! name the same host and port lead to one tracker, as `udp://HOST:PORT` and `http://HOST:PORT` do, and
//! stand in for each other.
//!
//! A driver calls [`Announcer::line_up`] for the trackers to be asked, and [`Announcer::turn`] for what to
//! announce once there is a place for it. It carries that out and reports the outcome.
//! [`Announcer::deadline`] returns when to call again. [`Hosts`] divides the places among all announces.
//!
//! What a tracker says about time is binding:
//!
//! | the tracker says | what follows |
//! |---|---|
//! | `interval` | the next regular announce, not before `min interval` if that is longer |
//! | `min interval` | the earliest announce when nobody is connected, peers run short, or our address has changed |
//! | no `min interval` | nothing is announced before the interval is over |
//! | a refusal with an interval, `retry in` (BEP 31) or `Retry-After` | nothing before that |
//! | a refusal with `retry in` `never` | nothing, until a user asks for it |
//! | a refusal without any | a pause of 30 s that doubles with each one |
//!
//! `started`, `completed` and `stopped` do not wait for an interval. All but `stopped` wait for the pause
//! after a refusal.

mod departures;
mod families;
mod hosts;
mod reports;
mod resting;
mod round;

use piecework_core::SaturatingFrom;
use std::time::Duration;

use bytes::Bytes;

pub use self::families::{Families, merged_reply};
pub use self::hosts::{AnnounceOutcome, AnnounceTurn, Host, HostState, Hosts};
pub use self::reports::{ReportOutcome, Reports};
pub use self::resting::{Layouts, RestingAnnouncer};

use self::round::{CompletedNotice, Round, Tier, Tracker};
use piecework_core::{Moment, Rng};
use piecework_proto::announce::{AnnounceEvent, AnnounceReply, Retry, TrackerUrl, TrackerUrls};

pub use departures::{DepartingTorrent, Departures, Goodbye, MissedGoodbyes};

/// The announces of one torrent.
#[derive(Debug)]
pub struct Announcer {
    rounds: Vec<Round>,
    /// Trackers that [`Announcer::set_tiers`] removed and that must be told that we leave.
    leaving: Vec<Tracker>,
    policy: TierPolicy,
    rng: Rng,
    stopping: bool,
}

/// Which tiers are announced to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum TierPolicy {
    /// One tracker of every tier, and the next one of the tier if that knows no other peer.
    #[default]
    All,
    /// One tracker in total: in the first tier with a tracker that answers (BEP 12).
    First,
}

/// An announce to make. Answered by one [`Announcer::on_reply`] or [`Announcer::on_failure`] for its
/// tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceTask {
    /// The tracker to announce to.
    pub tracker: TrackerUrl,
    /// The event to announce.
    pub event: AnnounceEvent,
    /// The value of [`Announce::tracker_id`](piecework_proto::announce::Announce::tracker_id).
    pub tracker_id: Option<Bytes>,
}

/// Why an announce failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceFailure {
    /// The reason, for people. Unescaped.
    pub reason: String,
    /// The tracker answered with a refusal.
    pub refused: bool,
    /// When the tracker wants to be asked again, if it said so.
    pub retry: Option<Retry>,
}

/// The status of one tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerStatus {
    /// The URL of the tracker.
    pub url: TrackerUrl,
    /// Its state.
    pub state: TrackerState,
    /// Why its last announce failed. `None` once one has succeeded again. Unescaped.
    pub last_error: Option<String>,
    /// A warning for people in its last answer. Unescaped.
    pub warning: Option<String>,
    /// When it last accepted an announce. `None` if it never did.
    pub last_announce: Option<Moment>,
    /// When it will be asked again at the earliest. `None` if nothing is planned.
    pub next_announce: Option<Moment>,
    /// The number of complete peers in its last answer.
    pub seeds: Option<u32>,
    /// The number of incomplete peers in its last answer.
    pub leechers: Option<u32>,
    /// The number of addresses in its last answer.
    pub peers: usize,
}

/// The state of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TrackerState {
    /// Not asked yet.
    Idle,
    /// Asked, not answered yet.
    Announcing,
    /// Its last announce succeeded.
    Working,
    /// Its last announce failed.
    Failed,
    /// It was told that we leave.
    Stopped,
}

impl Announcer {
    /// Creates the announces of a torrent that begins now. Each tier is shuffled (BEP 12). Duplicate
    /// trackers are dropped, and there are at most 100.
    pub fn new(tiers: Vec<Vec<TrackerUrl>>, policy: TierPolicy, mut rng: Rng) -> Self {
        let tiers = arranged(tiers, &mut rng, &mut Vec::new());
        let rounds = grouped(tiers, policy, CompletedNotice::NotDue);
        Self { rounds, leaving: Vec::new(), policy, rng, stopping: false }
    }

    /// Shares the memory of tracker addresses with other torrents.
    pub fn share_urls(&mut self, urls: &mut TrackerUrls) {
        for tracker in self.rounds.iter_mut().flat_map(Round::trackers_mut) {
            urls.share(&mut tracker.url);
        }
    }

    /// Replaces the trackers. Trackers that stay keep their state. Removed trackers that know us are told
    /// that we leave. New ones are asked at once.
    pub fn set_tiers(&mut self, tiers: Vec<Vec<TrackerUrl>>) {
        let before = std::mem::take(&mut self.rounds);
        let progress = |round: &Round| {
            let knowing = round.trackers().filter(|tracker| tracker.knows_us());
            let urls: Vec<TrackerUrl> = knowing.map(|tracker| tracker.url.clone()).collect();
            (urls, round.progress())
        };
        let progress: Vec<_> = before.iter().map(progress).collect();
        let completed =
            progress.first().map_or(CompletedNotice::NotDue, |(_, progress)| progress.completed);
        let all = before.into_iter().flat_map(|round| round.tiers);
        let mut known: Vec<Tracker> = all.flat_map(|tier| tier.trackers).collect();
        known.append(&mut self.leaving);
        let tiers = arranged(tiers, &mut self.rng, &mut known);
        self.rounds = grouped(tiers, self.policy, completed);
        for round in &mut self.rounds {
            // A tracker that knows us is not asked before it was due.
            let stays = |urls: &Vec<TrackerUrl>| round.trackers().any(|t| urls.contains(&t.url));
            if let Some((_, progress)) = progress.iter().find(|(urls, _)| stays(urls)) {
                round.resume(*progress);
            }
        }
        self.leaving = known;
        self.leaving.retain(Tracker::is_owed_goodbye);
    }

    /// Begins again after [`Announcer::stop`]: `started` is due at once, whether or not every tracker has
    /// been told `stopped`.
    pub fn restart(&mut self) {
        self.stopping = false;
        self.rounds.iter_mut().for_each(Round::begin);
    }

    /// Queues one more tracker that is to be asked now. `line` queues it, or returns that it is down, which
    /// counts as a failure. Returns whether a tracker was queued. While a tracker is queued or asked, none
    /// of those that stand in for it is queued. After [`Announcer::stop`], every tracker that knows us must
    /// be told.
    pub fn line_up(
        &mut self,
        now: Moment,
        line: &mut impl FnMut(&TrackerUrl) -> HostState,
    ) -> bool {
        let leaves =
            |tracker: &mut Tracker| tracker.can_be_left() && tracker.line_up_to_leave(line);
        let one = self.leaving.iter_mut().any(leaves);
        self.leaving.retain(Tracker::is_owed_goodbye);
        if one {
            return true;
        }
        if self.stopping {
            let mut trackers = self.rounds.iter_mut().flat_map(Round::trackers_mut);
            return trackers.any(|t| t.can_be_left() && t.line_up_to_leave(line));
        }
        self.rounds.iter_mut().any(|round| round.line_up(now, line, &mut self.rng))
    }

    /// Returns what to announce to a queued tracker for which `is_meant` returns true, or to one that did
    /// not answer before: there is a place for it now. Returns `None` if it is not to be asked any more.
    pub fn turn(
        &mut self,
        now: Moment,
        is_meant: impl Fn(&TrackerUrl) -> bool,
    ) -> Option<AnnounceTask> {
        let waits = |tracker: &&mut Tracker| tracker.is_in_line() && is_meant(&tracker.url);
        if let Some(tracker) = self.leaving.iter_mut().find(waits) {
            return tracker.turn_to_leave();
        }
        if self.stopping {
            let mut trackers = self.rounds.iter_mut().flat_map(Round::trackers_mut);
            return trackers.find(waits)?.turn_to_leave();
        }
        let mut rounds = self.rounds.iter_mut();
        match rounds.find_map(|round| round.in_line(&is_meant).is_some().then_some(round)) {
            Some(round) => round.turn(now, &is_meant),
            None => self.rounds.iter_mut().find_map(|round| round.turn(now, &is_meant)),
        }
    }

    /// Handles that a queued tracker for which `is_meant` returns true turned out to be down.
    pub fn was_in_vain(
        &mut self,
        now: Moment,
        is_meant: impl Fn(&TrackerUrl) -> bool,
        reason: &str,
    ) {
        let waits = |tracker: &&mut Tracker| tracker.is_in_line() && is_meant(&tracker.url);
        if let Some(tracker) = self.leaving.iter_mut().find(waits) {
            tracker.give_up(reason);
            self.leaving.retain(Tracker::is_owed_goodbye);
            return;
        }
        for round in &mut self.rounds {
            if self.stopping {
                round.trackers_mut().filter(|t| waits(t)).for_each(|t| t.give_up(reason));
            } else {
                round.was_in_vain(now, &is_meant, reason, &mut self.rng);
            }
        }
    }

    /// Handles the answer of `tracker` to an announce.
    pub fn on_reply(&mut self, now: Moment, tracker: &TrackerUrl, reply: &AnnounceReply) {
        if !self.rounds.iter_mut().any(|round| round.on_reply(now, tracker, reply)) {
            self.part(tracker, true);
        }
    }

    /// Handles a failed announce to `tracker`: it is not reachable, or it refused. Returns the number of
    /// failures in a row.
    pub fn on_failure(
        &mut self,
        now: Moment,
        tracker: &TrackerUrl,
        failure: AnnounceFailure,
    ) -> u32 {
        for round in &mut self.rounds {
            if let Some(failures) = round.on_failure(now, tracker, &failure, &mut self.rng) {
                return failures;
            }
        }
        self.part(tracker, false);
        1
    }

    /// Announces as soon as the minimum interval of the trackers that answered allows, since peers are
    /// running short or our address has changed.
    pub fn announce_early(&mut self, now: Moment) {
        self.rounds.iter_mut().for_each(|round| round.announce_early(now));
    }

    /// The same, but not before `pause` is over.
    pub fn announce_early_after(&mut self, now: Moment, pause: Duration) {
        self.rounds.iter_mut().for_each(|round| round.announce_early(now + pause));
    }

    /// Announces because a user asked for it: like [`Announcer::announce_early`], and trackers that said
    /// `never` are asked once more.
    pub fn reannounce(&mut self, now: Moment) {
        self.rounds.iter_mut().for_each(Round::forgive);
        self.announce_early(now);
    }

    /// Announces `completed` to one tracker of each round, once and at once.
    pub fn complete(&mut self) {
        self.rounds.iter_mut().for_each(Round::complete);
    }

    /// Handles that a tracker for which `is_meant` returns true does not know us although it accepted our
    /// `started`: `started` is sent again.
    pub fn was_forgotten(&mut self, is_meant: impl Fn(&TrackerUrl) -> bool) {
        self.rounds.iter_mut().for_each(|round| round.was_forgotten(&is_meant));
    }

    /// Returns whether a tracker for which `is_meant` returns true has accepted our `started`.
    pub fn is_known_to(&self, is_meant: impl Fn(&TrackerUrl) -> bool) -> bool {
        self.trackers().any(|tracker| tracker.knows_us() && is_meant(&tracker.url))
    }

    /// Stops: every tracker that knows us must be told that we leave. Wait for announces under way, or give
    /// them up with [`Announcer::on_failure`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Stops, and returns the announces to make at once: every tracker that knows us is told that we leave.
    /// A tracker whose answer is awaited is left out.
    pub fn goodbyes(&mut self) -> Vec<AnnounceTask> {
        self.stop();
        let all = self.rounds.iter_mut().flat_map(Round::trackers_mut).chain(&mut self.leaving);
        all.filter_map(Tracker::leave).collect()
    }

    /// Returns whether the answer of a tracker is awaited.
    pub fn is_asking(&self) -> bool {
        self.trackers().chain(&self.leaving).any(Tracker::is_asked)
    }

    /// Returns the trackers that know us, or may know us soon.
    pub fn owed_goodbyes(&self) -> impl Iterator<Item = &TrackerUrl> {
        let all = self.trackers().chain(&self.leaving);
        all.filter(|tracker| tracker.is_owed_goodbye()).map(|tracker| &tracker.url)
    }

    /// Returns the largest number of incomplete peers in the last answer of a tracker.
    pub fn leechers(&self) -> u32 {
        self.trackers().filter_map(Tracker::leechers).max().unwrap_or(0)
    }

    /// Returns whether [`Announcer::stop`] was called and no tracker is left to tell.
    pub fn is_stopped(&self) -> bool {
        let all = self.trackers().chain(&self.leaving);
        self.stopping && all.into_iter().all(|tracker| !tracker.is_owed_goodbye())
    }

    /// Returns when [`Announcer::line_up`] has something to do if nothing else happens before. The time is
    /// in the past if it has now. `None` while places or answers are awaited, and if there is nothing to
    /// do.
    pub fn deadline(&self) -> Option<Moment> {
        if self.leaving.iter().any(Tracker::can_be_left) {
            return Some(Moment::START);
        }
        if self.stopping {
            return self.trackers().any(Tracker::can_be_left).then_some(Moment::START);
        }
        self.rounds.iter().filter_map(Round::deadline).min()
    }

    /// Returns the status of every tracker, by tier, in the order in which they are asked.
    pub fn statuses(&self) -> Vec<TrackerStatus> {
        self.statuses_by_tier().into_iter().map(|(_, status)| status).collect()
    }

    /// Returns the same with the number of each tracker's tier.
    pub fn statuses_by_tier(&self) -> Vec<(usize, TrackerStatus)> {
        let mut all = Vec::new();
        for round in &self.rounds {
            let due = (!self.stopping).then_some(round.progress().due);
            for tier in &round.tiers {
                let number = tier.number as usize;
                all.extend(tier.trackers.iter().map(|tracker| (number, tracker.status(due))));
            }
        }
        all.sort_by_key(|(number, _)| *number);
        all
    }

    /// Returns whether [`Announcer::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Returns whether there is no tracker to announce to or to tell that we leave.
    pub fn is_empty(&self) -> bool {
        self.rounds.is_empty() && self.leaving.is_empty()
    }

    /// Handles the end of an announce to a removed tracker.
    fn part(&mut self, url: &TrackerUrl, worked: bool) {
        if let Some(tracker) = self.leaving.iter_mut().find(|tracker| tracker.url == *url) {
            tracker.part(worked);
            self.leaving.retain(Tracker::is_owed_goodbye);
        }
    }

    fn trackers(&self) -> impl Iterator<Item = &Tracker> {
        self.rounds.iter().flat_map(Round::trackers)
    }
}

/// Returns the tiers shuffled, each tracker once, with at most [`MAX_TRACKERS`] trackers. Trackers that are
/// in `known` are taken from there.
fn arranged(tiers: Vec<Vec<TrackerUrl>>, rng: &mut Rng, known: &mut Vec<Tracker>) -> Vec<Tier> {
    let mut kept: Vec<Tier> = Vec::new();
    let mut room = MAX_TRACKERS;
    for mut tier in tiers {
        rng.shuffle(&mut tier);
        // There may be many thousand torrents, so no unused memory is kept.
        let mut fresh: Vec<Tracker> = Vec::with_capacity(tier.len().min(room));
        for url in tier {
            let before = kept.iter().flat_map(|tier| &tier.trackers);
            let twice = before.chain(&fresh).any(|tracker| tracker.url == url);
            if room > 0 && !twice {
                room -= 1;
                fresh.push(match known.iter().position(|tracker| tracker.url == url) {
                    Some(at) => {
                        let mut tracker = known.swap_remove(at);
                        // Somebody else may have named it now.
                        tracker.url = url;
                        tracker
                    }
                    None => Tracker::new(url),
                });
            }
        }
        if !fresh.is_empty() {
            // There are 100 trackers at most.
            let number = u32::saturating_from(kept.len());
            fresh.shrink_to_fit();
            kept.push(Tier { number, trackers: fresh });
        }
    }
    kept.shrink_to_fit();
    kept
}

/// Puts tiers that stand in for each other into one round.
fn grouped(tiers: Vec<Tier>, policy: TierPolicy, completed: CompletedNotice) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for tier in tiers {
        let places = |trackers: &[Tracker]| -> Vec<(String, u16)> {
            trackers.iter().map(|tracker| (tracker.url.host(), tracker.url.port())).collect()
        };
        let here = places(&tier.trackers);
        let shares_place = |round: &Round| {
            let there = round.tiers.iter().flat_map(|tier| places(&tier.trackers));
            there.into_iter().any(|place| here.contains(&place))
        };
        let joins = match policy {
            TierPolicy::First => rounds.first_mut(),
            TierPolicy::All => rounds.iter_mut().find(|round| shares_place(round)),
        };
        match joins {
            Some(round) => round.tiers.push(tier),
            None => {
                let mut round = Round::new(completed, policy == TierPolicy::All);
                round.tiers.push(tier);
                rounds.push(round);
            }
        }
    }
    rounds.iter_mut().for_each(|round| round.tiers.shrink_to_fit());
    rounds.shrink_to_fit();
    rounds
}

/// Maximum number of trackers of one torrent. Public lists of trackers that people paste have 20 to 80.
const MAX_TRACKERS: usize = 100;

#[cfg(test)]
mod tests;
