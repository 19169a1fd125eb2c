//! Rounds: tiers of which one tracker at a time is announced to (BEP 12).

use piecework_core::SaturatingFrom;
use std::time::Duration;

use bytes::Bytes;

use super::{AnnounceFailure, AnnounceTask, HostState, TrackerState, TrackerStatus};
use piecework_core::{BoxedDefault, Moment, Rng, SharedDefault, shared_default};
use piecework_proto::announce::{AnnounceEvent, AnnounceReply, Retry, TrackerUrl};

/// Trackers that stand in for each other: an announce goes to the first tracker of the first tier, to the
/// next one if that fails, and ends with the first that answers, or with the first that knows another peer
/// if `asks_on` is set.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) tiers: Vec<Tier>,
    progress: RoundState,
    /// An answer of a tracker that knows no other peer does not end the round.
    asks_on: bool,
}

/// The progress of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundState {
    /// When the next announce is due, whichever tracker takes it.
    pub(super) due: Moment,
    pub(super) completed: CompletedNotice,
    /// When it would be due by trackers that answered but know no peers, while others are asked.
    later: Option<Moment>,
}

#[derive(Debug)]
pub(super) struct Tier {
    /// Its index among all tiers of the torrent.
    pub(super) number: u32,
    pub(super) trackers: Vec<Tracker>,
}

#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) url: TrackerUrl,
    state: TrackerState,
    /// It has accepted our `started` and was not told `stopped`.
    started: bool,
    /// The announce that is under way.
    asked: Option<AnnounceEvent>,
    /// It is queued for a place.
    in_line: bool,
    /// It did not answer when it was last asked, or is known not to answer.
    silent: bool,
    /// It has failed in the present pass through the tiers, or knows no peers.
    tried: bool,
    /// It does not want to be asked again.
    never: bool,
    /// Failures in a row, and until when it is not asked because of them.
    failures: u32,
    retry_at: Moment,
    /// When its minimum interval is over.
    not_before: Moment,
    texts: BoxedDefault<TrackerTexts>,
    /// When it last accepted an announce.
    answered_at: Option<Moment>,
    counts: Option<(u32, u32)>,
    peers: usize,
}

/// What few trackers send.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct TrackerTexts {
    /// The tracker id, to be sent with each announce.
    id: Option<Bytes>,
    last_error: Option<String>,
    warning: Option<String>,
}

shared_default!(TrackerTexts);

/// Everything known about a tracker.
pub(super) enum TrackerMemory {
    /// It was not asked yet.
    Nothing,
    /// Only its last answer.
    Answer(LastAnswer),
    /// More than that.
    More,
}

/// The answer of a tracker that accepted an announce.
pub(super) struct LastAnswer {
    /// [`TrackerState::Working`], or [`TrackerState::Stopped`] if it was told that we leave.
    pub(super) state: TrackerState,
    pub(super) at: Moment,
    pub(super) not_before: Moment,
    /// The numbers of complete and incomplete peers.
    pub(super) counts: (u32, u32),
    pub(super) peers: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CompletedNotice {
    NotDue,
    Due,
    Sent,
}

impl Round {
    pub(super) fn new(completed: CompletedNotice, asks_on: bool) -> Self {
        let progress = RoundState { due: Moment::START, completed, later: None };
        Self { tiers: Vec::new(), progress, asks_on }
    }

    pub(super) fn progress(&self) -> RoundState {
        self.progress
    }

    /// Returns the progress, unless other trackers are still asked although some have answered.
    pub(super) fn settled_progress(&self) -> Option<RoundState> {
        self.progress.later.is_none().then_some(self.progress)
    }

    pub(super) fn asks_on(&self) -> bool {
        self.asks_on
    }

    /// Continues where another round with the same trackers was.
    pub(super) fn resume(&mut self, progress: RoundState) {
        self.progress = progress;
    }

    /// Makes an announce due at once.
    pub(super) fn begin(&mut self) {
        (self.progress.due, self.progress.later) = (Moment::START, None);
        self.trackers_mut().for_each(|tracker| tracker.tried = false);
    }

    /// Queues the tracker that is to be asked now, if there is one. Trackers for which `line` returns that
    /// they are down have failed. Returns whether a tracker was queued.
    pub(super) fn line_up(
        &mut self,
        now: Moment,
        line: &mut impl FnMut(&TrackerUrl) -> HostState,
        rng: &mut Rng,
    ) -> bool {
        if self.is_in_line() {
            return false;
        }
        while let Some((tracker, _)) = self.next(now) {
            match line(&tracker.url) {
                HostState::InLine => {
                    tracker.in_line = true;
                    return true;
                }
                // It is not asked again before its pause is over, so this ends.
                HostState::Down(reason) => {
                    tracker.fail(now, &reason, rng);
                    self.end_in_vain(now);
                }
            }
        }
        false
    }

    /// Returns the announce to make to a tracker for which `is_meant` returns true, if it must still be
    /// made: there is a place for it now. A tracker that did not answer is tried again whatever its pause.
    pub(super) fn turn(
        &mut self,
        now: Moment,
        is_meant: &impl Fn(&TrackerUrl) -> bool,
    ) -> Option<AnnounceTask> {
        let url = if let Some(tracker) = self.in_line(is_meant) {
            tracker.in_line = false;
            tracker.url.clone()
        } else {
            let mut trackers = self.trackers_mut();
            let tracker = trackers.find(|t| t.silent && is_meant(&t.url))?;
            tracker.retry_at = tracker.retry_at.min(now);
            tracker.tried = false;
            tracker.url.clone()
        };
        if self.is_in_line() {
            return None;
        }
        let (tracker, event) = self.next(now)?;
        (tracker.url == url).then(|| tracker.ask(event))
    }

    /// Handles that the queued tracker for which `is_meant` returns true is down.
    pub(super) fn was_in_vain(
        &mut self,
        now: Moment,
        is_meant: &impl Fn(&TrackerUrl) -> bool,
        reason: &str,
        rng: &mut Rng,
    ) {
        if let Some(tracker) = self.in_line(is_meant) {
            tracker.in_line = false;
            tracker.fail(now, reason, rng);
            self.end_in_vain(now);
        }
    }

    /// Returns the queued tracker for which `is_meant` returns true.
    pub(super) fn in_line(
        &mut self,
        is_meant: &impl Fn(&TrackerUrl) -> bool,
    ) -> Option<&mut Tracker> {
        self.trackers_mut().find(|tracker| tracker.in_line && is_meant(&tracker.url))
    }

    /// Ends a round in which some trackers answered that they know no peers, if the others have failed.
    fn end_in_vain(&mut self, now: Moment) {
        if self.progress.later.is_some() && self.candidate(now).is_none() {
            self.progress.due = self.progress.later.take().unwrap_or(now);
            self.trackers_mut().for_each(|tracker| tracker.tried = false);
        }
    }

    /// Returns the tracker to ask, and the event, if an announce is due. Returns `None` while one is under
    /// way.
    fn next(&mut self, now: Moment) -> Option<(&mut Tracker, AnnounceEvent)> {
        if self.is_asking() || now < self.progress.due {
            return None;
        }
        let completed = self.progress.completed;
        self.end_in_vain(now);
        if now < self.progress.due {
            return None;
        }
        if self.candidate(now).is_none() {
            // Every tracker that may be asked has failed in this round. The next round begins as soon as
            // one may be asked again.
            self.trackers_mut().for_each(|tracker| tracker.tried = false);
        }
        let tracker = self.candidate(now)?;
        let event = match completed {
            _ if !tracker.started => AnnounceEvent::Started,
            CompletedNotice::Due => AnnounceEvent::Completed,
            CompletedNotice::NotDue | CompletedNotice::Sent => AnnounceEvent::None,
        };
        Some((tracker, event))
    }

    /// Returns when [`Round::line_up`] has something to do. `None` while a place or an answer is awaited,
    /// and if there is no tracker to ask.
    pub(super) fn deadline(&self) -> Option<Moment> {
        if self.is_asking() || self.is_in_line() {
            return None;
        }
        let open = self
            .trackers()
            .filter_map(|tracker| tracker.opens_at(self.progress.completed))
            .min()?;
        Some(open.max(self.progress.due))
    }

    /// Handles the answer of the tracker at `url`. Returns whether it belongs to this round.
    pub(super) fn on_reply(
        &mut self,
        now: Moment,
        url: &TrackerUrl,
        reply: &AnnounceReply,
    ) -> bool {
        let Some((tier, place)) = self.find(url) else { return false };
        let Some(event) = self.tiers[tier].trackers[place].asked.take() else { return true };
        // The working tracker moves to the front of its tier (BEP 12).
        self.tiers[tier].trackers[..=place].rotate_right(1);
        let tracker = &mut self.tiers[tier].trackers[0];
        let given = reply.min_interval.filter(|least| !least.is_zero());
        let interval = bounded(reply.interval).max(given.map_or(Duration::ZERO, bounded));
        let least = given.map_or(interval, bounded);
        tracker.started = event != AnnounceEvent::Stopped;
        tracker.state = if tracker.started { TrackerState::Working } else { TrackerState::Stopped };
        tracker.failures = 0;
        tracker.silent = false;
        tracker.retry_at = now;
        tracker.never = false;
        tracker.not_before = now + least;
        tracker.texts.change(|texts| {
            texts.last_error = None;
            texts.warning.clone_from(&reply.warning);
            if reply.tracker_id.is_some() {
                texts.id.clone_from(&reply.tracker_id);
            }
        });
        tracker.answered_at = Some(now);
        tracker.counts = Some((reply.complete, reply.incomplete));
        tracker.peers = reply.peers.len();
        if event == AnnounceEvent::Stopped {
            // It answered after a restart, whose own announce is due.
            return true;
        }
        if event == AnnounceEvent::Completed {
            self.progress.completed = CompletedNotice::Sent;
        }
        let mut due = now + interval;
        let later = self.progress.later.take();
        if self.asks_on && knows_nobody(reply) {
            self.tiers[tier].trackers[0].tried = true;
            due = later.map_or(due, |later| later.min(due));
            if self.candidate(now).is_some() {
                self.progress.later = Some(due);
                self.progress.due = now;
                return true;
            }
        }
        // `completed` does not wait for an interval.
        self.progress.due = if self.progress.completed == CompletedNotice::Due { now } else { due };
        self.trackers_mut().for_each(|tracker| tracker.tried = false);
        true
    }

    /// Handles a failed announce to the tracker at `url`. Returns the number of failures in a row if it
    /// belongs to this round.
    pub(super) fn on_failure(
        &mut self,
        now: Moment,
        url: &TrackerUrl,
        failure: &AnnounceFailure,
        rng: &mut Rng,
    ) -> Option<u32> {
        let (tier, place) = self.find(url)?;
        let tracker = &mut self.tiers[tier].trackers[place];
        let Some(event) = tracker.asked.take() else { return Some(tracker.failures) };
        if event == AnnounceEvent::Stopped {
            // It drops us by itself when our next announce does not come.
            tracker.started = false;
        }
        tracker.fail(now, &failure.reason, rng);
        tracker.silent = !failure.refused;
        let mut pause = tracker.retry_at.since(now);
        if failure.refused {
            let doubled = FIRST_REFUSED_RETRY * (1 << (tracker.failures - 1).min(7));
            pause = pause.max(doubled.min(LONGEST_RETRY));
        }
        match failure.retry {
            Some(Retry::After(asked)) => pause = pause.max(asked.min(MAX_INTERVAL)),
            Some(Retry::Never) => tracker.never = true,
            None => {}
        }
        tracker.retry_at = now + pause;
        let failures = tracker.failures;
        self.end_in_vain(now);
        Some(failures)
    }

    pub(super) fn announce_early(&mut self, now: Moment) {
        let answered = self.trackers().filter(|tracker| tracker.state == TrackerState::Working);
        let Some(earliest) = answered.map(|tracker| tracker.not_before).max() else { return };
        self.progress.due = self.progress.due.min(earliest.max(now));
    }

    pub(super) fn forgive(&mut self) {
        self.trackers_mut().for_each(|tracker| tracker.never = false);
    }

    pub(super) fn complete(&mut self) {
        if self.progress.completed == CompletedNotice::NotDue {
            self.progress.completed = CompletedNotice::Due;
            self.progress.due = Moment::START;
        }
    }

    /// Handles that a tracker for which `is_meant` returns true has forgotten us: `started` is due again.
    pub(super) fn was_forgotten(&mut self, is_meant: impl Fn(&TrackerUrl) -> bool) {
        let forgetful = |t: &&mut Tracker| t.started && t.asked.is_none() && is_meant(&t.url);
        let Some(tracker) = self.trackers_mut().find(forgetful) else { return };
        (tracker.started, tracker.tried) = (false, false);
        self.progress.due = Moment::START;
    }

    pub(super) fn trackers(&self) -> impl Iterator<Item = &Tracker> {
        self.tiers.iter().flat_map(|tier| &tier.trackers)
    }

    pub(super) fn trackers_mut(&mut self) -> impl Iterator<Item = &mut Tracker> {
        self.tiers.iter_mut().flat_map(|tier| &mut tier.trackers)
    }

    /// Returns the first tracker that was not tried in this round and may be asked. Another URL of a
    /// tracker that knows no peers would lead to the same answer.
    fn candidate(&mut self, now: Moment) -> Option<&mut Tracker> {
        let completed = self.progress.completed;
        let may = |tracker: &Tracker| tracker.opens_at(completed).is_some_and(|at| at <= now);
        let is_candidate = |tracker: &&Tracker| {
            let is_same = |other: &Tracker| {
                other.tried && other.state == TrackerState::Working && other.is_beside(tracker)
            };
            !tracker.tried && may(tracker) && !self.trackers().any(is_same)
        };
        let at = self.trackers().position(|tracker| is_candidate(&tracker))?;
        self.trackers_mut().nth(at)
    }

    fn is_asking(&self) -> bool {
        self.trackers().any(Tracker::is_asked)
    }

    fn is_in_line(&self) -> bool {
        self.trackers().any(|tracker| tracker.in_line)
    }

    fn find(&self, url: &TrackerUrl) -> Option<(usize, usize)> {
        self.tiers.iter().enumerate().find_map(|(tier, at)| {
            Some((tier, at.trackers.iter().position(|tracker| tracker.url == *url)?))
        })
    }
}

impl RoundState {
    /// Returns the progress of a round in which nothing is under way until `due`.
    pub(super) fn settled(due: Moment, completed: CompletedNotice) -> Self {
        Self { due, completed, later: None }
    }
}

impl Tracker {
    pub(super) fn new(url: TrackerUrl) -> Self {
        Self {
            url,
            state: TrackerState::Idle,
            started: false,
            asked: None,
            in_line: false,
            silent: false,
            tried: false,
            never: false,
            failures: 0,
            retry_at: Moment::START,
            not_before: Moment::START,
            texts: BoxedDefault::default(),
            answered_at: None,
            counts: None,
            peers: 0,
        }
    }

    pub(super) fn known(&self) -> TrackerMemory {
        let is_quiet = self.asked.is_none()
            && !(self.in_line || self.silent || self.tried || self.never)
            && (self.failures, &*self.texts) == (0, TrackerTexts::shared_default());
        if !is_quiet {
            return TrackerMemory::More;
        }
        let is_new = !self.started && self.retry_at.max(self.not_before) == Moment::START;
        let is_working = self.state == TrackerState::Working;
        let is_answer = is_working || self.state == TrackerState::Stopped;
        match (self.answered_at, self.counts, u32::try_from(self.peers)) {
            (None, None, Ok(0)) if is_new && self.state == TrackerState::Idle => {
                TrackerMemory::Nothing
            }
            (Some(at), Some(counts), Ok(peers))
                if is_answer && self.started == is_working && self.retry_at == at =>
            {
                let (state, not_before) = (self.state, self.not_before);
                TrackerMemory::Answer(LastAnswer { state, at, not_before, counts, peers })
            }
            _ => TrackerMemory::More,
        }
    }

    /// Sets everything known about it from its answer.
    pub(super) fn set_known(&mut self, answer: LastAnswer) {
        self.state = answer.state;
        self.started = answer.state == TrackerState::Working;
        self.retry_at = answer.at;
        self.not_before = answer.not_before;
        self.answered_at = Some(answer.at);
        self.counts = Some(answer.counts);
        self.peers = answer.peers as usize;
    }

    /// Returns whether `other` is at the same host and port.
    fn is_beside(&self, other: &Self) -> bool {
        (self.url.host_str(), self.url.port()) == (other.url.host_str(), other.url.port())
    }

    /// Returns whether it has accepted our `started`.
    pub(super) fn knows_us(&self) -> bool {
        self.started
    }

    /// Returns whether it must be told that we leave, and may be queued for that now.
    pub(super) fn can_be_left(&self) -> bool {
        self.started && self.asked.is_none() && !self.in_line
    }

    /// Queues it to be told that we leave. Returns whether it is queued. A tracker that is down is not
    /// told: it drops us by itself when our next announce does not come.
    pub(super) fn line_up_to_leave(
        &mut self,
        line: &mut impl FnMut(&TrackerUrl) -> HostState,
    ) -> bool {
        self.in_line = match line(&self.url) {
            HostState::InLine => true,
            HostState::Down(reason) => {
                self.give_up(&reason);
                false
            }
        };
        self.in_line
    }

    /// Returns the announce that tells it that we leave, if it is queued and must be told.
    pub(super) fn turn_to_leave(&mut self) -> Option<AnnounceTask> {
        let was_in_line = std::mem::replace(&mut self.in_line, false);
        (was_in_line && self.can_be_left()).then(|| self.ask(AnnounceEvent::Stopped))
    }

    /// Returns the announce that tells it at once that we leave, if it knows us and no answer of it is
    /// awaited.
    pub(super) fn leave(&mut self) -> Option<AnnounceTask> {
        self.in_line = false;
        self.can_be_left().then(|| self.ask(AnnounceEvent::Stopped))
    }

    /// Gives up telling it that we leave, because it is down.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.in_line = false;
        self.started = false;
        self.state = TrackerState::Failed;
        self.texts.change(|texts| texts.last_error = Some(short(reason)));
    }

    pub(super) fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Records that it did not answer, or is known not to answer.
    fn fail(&mut self, now: Moment, reason: &str, rng: &mut Rng) {
        self.state = TrackerState::Failed;
        self.tried = true;
        self.silent = true;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + back_off(self.failures, rng);
        self.texts.change(|texts| texts.last_error = Some(short(reason)));
    }

    /// Returns whether it knows us, or may soon.
    pub(super) fn is_owed_goodbye(&self) -> bool {
        self.started || self.asked.is_some()
    }

    /// Returns whether its answer is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns the number of incomplete peers in its last answer.
    pub(super) fn leechers(&self) -> Option<u32> {
        self.counts.map(|(_, incomplete)| incomplete)
    }

    /// Handles the end of an announce to a removed tracker.
    pub(super) fn part(&mut self, worked: bool) {
        match self.asked.take() {
            Some(AnnounceEvent::Stopped) => self.started = false,
            Some(_) => self.started |= worked,
            None => {}
        }
    }

    pub(super) fn ask(&mut self, event: AnnounceEvent) -> AnnounceTask {
        self.asked = Some(event);
        AnnounceTask { tracker: self.url.clone(), event, tracker_id: self.texts.id.clone() }
    }

    /// Returns its status. `due` is when its round announces next, or `None` if it does not.
    pub(super) fn status(&self, due: Option<Moment>) -> TrackerStatus {
        let planned = self.asked.is_none()
            && !self.never
            && matches!(self.state, TrackerState::Working | TrackerState::Failed);
        TrackerStatus {
            url: self.url.clone(),
            state: if self.asked.is_some() { TrackerState::Announcing } else { self.state },
            last_error: self.texts.last_error.clone(),
            warning: self.texts.warning.clone(),
            last_announce: self.answered_at,
            next_announce: due.filter(|_| planned).map(|due| self.retry_at.max(due)),
            seeds: self.counts.map(|(complete, _)| complete),
            leechers: self.counts.map(|(_, incomplete)| incomplete),
            peers: self.peers,
        }
    }

    /// Returns when it may be asked next. `None` if it does not want to be asked again. An event that it
    /// was not told yet does not wait for its interval.
    fn opens_at(&self, completed: CompletedNotice) -> Option<Moment> {
        let is_regular = self.started && completed != CompletedNotice::Due;
        let interval = if is_regular { self.not_before } else { Moment::START };
        (!self.never).then(|| self.retry_at.max(interval))
    }
}

/// Returns whether a tracker knows no peer but us.
fn knows_nobody(reply: &AnnounceReply) -> bool {
    reply.peers.len() <= 1 && reply.complete.saturating_add(reply.incomplete) <= 1 && {
        // The one peer may be ourselves, if the tracker counts and counts one.
        reply.peers.is_empty() || reply.complete + reply.incomplete == 1
    }
}

/// Returns a tracker's interval, clamped to a sane range.
fn bounded(interval: Duration) -> Duration {
    if interval.is_zero() { DEFAULT_INTERVAL } else { interval.clamp(MIN_INTERVAL, MAX_INTERVAL) }
}

/// Returns how long to wait after so many failures in a row: 5 s, 15 s, 30 s, 60 s … 30 min, with a jitter
/// of a fifth, so that peers cut off together do not come back together.
fn back_off(failures: u32, rng: &mut Rng) -> Duration {
    let base = match failures {
        0 | 1 => FIRST_RETRY,
        // 15 s * 2^7 is over 30 min.
        more => (SECOND_RETRY * (1 << (more - 2).min(7))).min(LONGEST_RETRY),
    };
    let jitter = Duration::from_millis(rng.below(u64::saturating_from(base.as_millis()) * 2 / 5));
    (base * 4 / 5 + jitter).min(LONGEST_RETRY)
}

/// The interval used in place of 0, which is what most trackers give.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// A private tracker may want frequent announces. More frequent ones would be a flood, harmful to it or to
/// others.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A tracker that gives more would never see us again, and we would not learn of new peers.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// A tracker that is just being restarted is back by then.
const FIRST_RETRY: Duration = Duration::from_secs(5);

const SECOND_RETRY: Duration = Duration::from_secs(15);

/// The first pause after a refusal. A tracker that answers is not being restarted, and one that is asked
/// again at once may ban us.
const FIRST_REFUSED_RETRY: Duration = Duration::from_secs(30);

const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);

fn short(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

/// Maximum length in bytes of a failure reason.
const MAX_REASON: usize = 512;
