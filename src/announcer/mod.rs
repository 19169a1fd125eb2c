//! Layer 2: when to announce to which tracker: tiers, intervals, back-off. No I/O.
//!
//! Trackers come in tiers (BEP 12): an announce goes to the first tracker of the first tier, to
//! the next one where that fails, and ends with the first that answers, which moves to the front
//! of its tier. A driver asks [`Announcer::poll`] what is wished, carries it out, and tells the
//! outcome; [`Announcer::deadline`] says when to ask again.

use std::time::Duration;

use bytes::Bytes;

use crate::announce::{AnnounceEvent, AnnounceReply, TrackerUrl};
use crate::base::{Moment, Rng};

/// The announces of one torrent.
#[derive(Debug)]
pub struct Announcer {
    tiers: Vec<Vec<Tracker>>,
    /// Those that [`Announcer::set_tiers`] left out and that are to be told so.
    leaving: Vec<Tracker>,
    rng: Rng,
    /// When the next announce is due, whichever tracker takes it.
    due: Moment,
    completed: Completed,
    stopping: bool,
}

/// An announce to be made. To be answered by one [`Announcer::on_reply`] or
/// [`Announcer::on_failure`] for its tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// To whom.
    pub tracker: TrackerUrl,
    /// What happened.
    pub event: AnnounceEvent,
    /// What to put into [`Announce::tracker_id`](crate::announce::Announce::tracker_id).
    pub tracker_id: Option<Bytes>,
}

/// How things stand with one tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerStatus {
    /// Which.
    pub url: TrackerUrl,
    /// What it is doing.
    pub state: TrackerState,
    /// Why its last announce failed; `None` once one has worked again. Unescaped.
    pub last_error: Option<String>,
    /// A note for people in its last answer. Unescaped.
    pub warning: Option<String>,
    /// When it will be asked again at the earliest; `None` if nothing is planned.
    pub next_announce: Option<Moment>,
    /// Complete peers by its last answer.
    pub seeds: Option<u32>,
    /// Incomplete peers by its last answer.
    pub leechers: Option<u32>,
    /// Addresses its last answer gave.
    pub peers: usize,
}

/// What a tracker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TrackerState {
    /// Not asked yet.
    Idle,
    /// Asked, not answered yet.
    Announcing,
    /// Its last announce worked.
    Working,
    /// Its last announce failed.
    Failed,
    /// It was told that we leave.
    Stopped,
}

#[derive(Debug)]
struct Tracker {
    url: TrackerUrl,
    state: TrackerState,
    /// It has taken our `started` and not been told `stopped`.
    started: bool,
    /// What is under way.
    asked: Option<AnnounceEvent>,
    /// It has failed in the present round through the tiers.
    tried: bool,
    /// Failures in a row, and until when they keep us away.
    failures: u32,
    retry_at: Moment,
    /// When its least interval is over.
    not_before: Moment,
    id: Option<Bytes>,
    last_error: Option<String>,
    warning: Option<String>,
    counts: Option<(u32, u32)>,
    peers: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Completed {
    Not,
    ToBeTold,
    Told,
}

impl Announcer {
    /// The announces of a torrent that begins now. Each tier is shuffled (BEP 12). A tracker that
    /// stands there twice is asked once, and there are at most 100.
    pub fn new(tiers: Vec<Vec<TrackerUrl>>, mut rng: Rng) -> Self {
        let tiers = arranged(tiers, &mut rng, &mut Vec::new());
        Self {
            tiers,
            leaving: Vec::new(),
            rng,
            due: Moment::START,
            completed: Completed::Not,
            stopping: false,
        }
    }

    /// Other trackers from now on. Those that stay keep what is known of them; those that go and
    /// know of us are told that we leave; if none that stays knows us, one is asked at once.
    pub fn set_tiers(&mut self, tiers: Vec<Vec<TrackerUrl>>) {
        let mut known: Vec<Tracker> =
            std::mem::take(&mut self.tiers).into_iter().flatten().collect();
        known.append(&mut self.leaving);
        self.tiers = arranged(tiers, &mut self.rng, &mut known);
        self.leaving = known;
        self.leaving.retain(Tracker::is_owed_goodbye);
        if !self.trackers().any(|tracker| tracker.started) {
            self.due = Moment::START;
        }
    }

    /// Begins again after [`Announcer::stop`]: a `started` is due at once, whether or not every
    /// tracker has heard of the stop.
    pub fn restart(&mut self) {
        self.stopping = false;
        self.due = Moment::START;
        self.trackers_mut().for_each(|tracker| tracker.tried = false);
    }

    /// The next announce to make, if one is due. While one is under way no other is wished, but
    /// after [`Announcer::stop`] every tracker that knows us is told at once.
    pub fn poll(&mut self, now: Moment) -> Option<Wish> {
        let waits = |tracker: &&mut Tracker| tracker.started && tracker.asked.is_none();
        if let Some(tracker) = self.leaving.iter_mut().find(waits) {
            return Some(tracker.ask(AnnounceEvent::Stopped));
        }
        if self.stopping {
            let tracker = self.tiers.iter_mut().flatten().find(waits)?;
            return Some(tracker.ask(AnnounceEvent::Stopped));
        }
        if self.is_asking() || now < self.due {
            return None;
        }
        let completed = self.completed;
        let tracker = match self.candidate(now) {
            Some(tracker) => tracker,
            None => {
                // The round is over and nobody has answered; the next one begins as soon as
                // somebody may be asked again.
                self.trackers_mut().for_each(|tracker| tracker.tried = false);
                self.candidate(now)?
            }
        };
        let event = match completed {
            _ if !tracker.started => AnnounceEvent::Started,
            Completed::ToBeTold => AnnounceEvent::Completed,
            Completed::Not | Completed::Told => AnnounceEvent::None,
        };
        Some(tracker.ask(event))
    }

    /// `tracker` has answered a wish.
    pub fn on_reply(&mut self, now: Moment, tracker: &TrackerUrl, reply: &AnnounceReply) {
        let Some((tier, place)) = self.find(tracker) else { return self.part(tracker, true) };
        let Some(event) = self.tiers[tier][place].asked.take() else { return };
        // The working tracker goes to the front of its tier (BEP 12).
        self.tiers[tier][..=place].rotate_right(1);
        let tracker = &mut self.tiers[tier][0];
        let interval = bounded(reply.interval);
        let least = reply.min_interval.map_or(DEFAULT_MIN_INTERVAL, bounded).min(interval);
        tracker.started = event != AnnounceEvent::Stopped;
        tracker.state = if tracker.started { TrackerState::Working } else { TrackerState::Stopped };
        tracker.failures = 0;
        tracker.retry_at = now;
        tracker.not_before = now + least;
        tracker.last_error = None;
        tracker.warning = reply.warning.clone();
        tracker.counts = Some((reply.complete, reply.incomplete));
        tracker.peers = reply.peers.len();
        if reply.tracker_id.is_some() {
            tracker.id.clone_from(&reply.tracker_id);
        }
        if event == AnnounceEvent::Stopped {
            // Told to one of those that stay only before a restart, whose announce is due.
            return;
        }
        if event == AnnounceEvent::Completed {
            self.completed = Completed::Told;
        }
        // `completed` does not wait for an interval.
        self.due = if self.completed == Completed::ToBeTold { now } else { now + interval };
        self.trackers_mut().for_each(|tracker| tracker.tried = false);
    }

    /// A wish for `tracker` came to nothing: it is not there, or refused us for this `reason`.
    pub fn on_failure(&mut self, now: Moment, tracker: &TrackerUrl, reason: String) {
        let Some((tier, place)) = self.find(tracker) else { return self.part(tracker, false) };
        let tracker = &mut self.tiers[tier][place];
        let Some(event) = tracker.asked.take() else { return };
        if event == AnnounceEvent::Stopped {
            // It will miss us soon enough.
            tracker.started = false;
        }
        tracker.state = TrackerState::Failed;
        tracker.tried = true;
        tracker.failures = tracker.failures.saturating_add(1);
        tracker.retry_at = now + back_off(tracker.failures, &mut self.rng);
        let mut reason = reason;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        tracker.last_error = Some(reason);
    }

    /// Peers are running short: announce as soon as the tracker's least interval allows (60 s
    /// where it gives none).
    pub fn request_more_peers(&mut self, now: Moment) {
        let answered = self.trackers().filter(|tracker| tracker.state == TrackerState::Working);
        let Some(earliest) = answered.map(|tracker| tracker.not_before).max() else { return };
        self.due = self.due.min(earliest.max(now));
    }

    /// The download is complete: to be told to a tracker once, and at once.
    pub fn complete(&mut self) {
        if self.completed == Completed::Not {
            self.completed = Completed::ToBeTold;
            self.due = Moment::START;
        }
    }

    /// We leave: every tracker that knows us is to be told. What is under way should still be
    /// waited for, or given up with [`Announcer::on_failure`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether [`Announcer::stop`] was called and nothing is left to be told.
    pub fn is_stopped(&self) -> bool {
        let all = self.trackers().chain(&self.leaving);
        self.stopping && all.into_iter().all(|tracker| !tracker.is_owed_goodbye())
    }

    /// When [`Announcer::poll`] has something to say again if nothing else happens before; in the
    /// past if it has now. `None` while an answer is awaited, and where there is nothing to do.
    pub fn deadline(&self) -> Option<Moment> {
        let waits = |tracker: &Tracker| tracker.started && tracker.asked.is_none();
        if self.leaving.iter().any(waits) {
            return Some(Moment::START);
        }
        if self.stopping {
            return self.trackers().any(waits).then_some(Moment::START);
        }
        if self.is_asking() {
            return None;
        }
        let open = self.trackers().map(|tracker| tracker.retry_at).min()?;
        Some(open.max(self.due))
    }

    /// How things stand with every tracker, in the order in which they are asked.
    pub fn statuses(&self) -> Vec<TrackerStatus> {
        self.trackers().map(|tracker| self.status(tracker)).collect()
    }

    /// The same with the number of each one's tier.
    pub fn statuses_by_tier(&self) -> Vec<(usize, TrackerStatus)> {
        let tiers = self.tiers.iter().enumerate();
        tiers.flat_map(|(at, tier)| tier.iter().map(move |t| (at, self.status(t)))).collect()
    }

    /// Whether [`Announcer::stop`] holds.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether there is nobody to announce to, nor to be told that we leave.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.leaving.is_empty()
    }

    /// An announce to one of those that leave is over.
    fn part(&mut self, url: &TrackerUrl, worked: bool) {
        let Some(tracker) = self.leaving.iter_mut().find(|tracker| tracker.url == *url) else {
            return;
        };
        match tracker.asked.take() {
            Some(AnnounceEvent::Stopped) => tracker.started = false,
            Some(_) => tracker.started |= worked,
            None => {}
        }
        self.leaving.retain(Tracker::is_owed_goodbye);
    }

    fn status(&self, tracker: &Tracker) -> TrackerStatus {
        let planned = !self.stopping
            && tracker.asked.is_none()
            && matches!(tracker.state, TrackerState::Working | TrackerState::Failed);
        TrackerStatus {
            url: tracker.url.clone(),
            state: if tracker.asked.is_some() { TrackerState::Announcing } else { tracker.state },
            last_error: tracker.last_error.clone(),
            warning: tracker.warning.clone(),
            next_announce: planned.then(|| tracker.retry_at.max(self.due)),
            seeds: tracker.counts.map(|(complete, _)| complete),
            leechers: tracker.counts.map(|(_, incomplete)| incomplete),
            peers: tracker.peers,
        }
    }

    /// The first tracker that has not failed in this round and may be asked.
    fn candidate(&mut self, now: Moment) -> Option<&mut Tracker> {
        self.trackers_mut().find(|tracker| !tracker.tried && tracker.retry_at <= now)
    }

    fn is_asking(&self) -> bool {
        self.trackers().any(|tracker| tracker.asked.is_some())
    }

    fn find(&self, url: &TrackerUrl) -> Option<(usize, usize)> {
        self.tiers.iter().enumerate().find_map(|(tier, trackers)| {
            Some((tier, trackers.iter().position(|tracker| tracker.url == *url)?))
        })
    }

    fn trackers(&self) -> impl Iterator<Item = &Tracker> {
        self.tiers.iter().flatten()
    }

    fn trackers_mut(&mut self) -> impl Iterator<Item = &mut Tracker> {
        self.tiers.iter_mut().flatten()
    }
}

impl Tracker {
    fn new(url: TrackerUrl) -> Self {
        Self {
            url,
            state: TrackerState::Idle,
            started: false,
            asked: None,
            tried: false,
            failures: 0,
            retry_at: Moment::START,
            not_before: Moment::START,
            id: None,
            last_error: None,
            warning: None,
            counts: None,
            peers: 0,
        }
    }

    /// It knows of us, or may soon.
    fn is_owed_goodbye(&self) -> bool {
        self.started || self.asked.is_some()
    }

    fn ask(&mut self, event: AnnounceEvent) -> Wish {
        self.asked = Some(event);
        Wish { tracker: self.url.clone(), event, tracker_id: self.id.clone() }
    }
}

/// Tiers shuffled, each tracker once, [`MAX_TRACKERS`] at most; those that are `known` already are
/// taken from there.
fn arranged(
    tiers: Vec<Vec<TrackerUrl>>,
    rng: &mut Rng,
    known: &mut Vec<Tracker>,
) -> Vec<Vec<Tracker>> {
    let mut kept: Vec<Vec<Tracker>> = Vec::new();
    let mut room = MAX_TRACKERS;
    for mut tier in tiers {
        rng.shuffle(&mut tier);
        let mut fresh: Vec<Tracker> = Vec::new();
        for url in tier {
            let twice = kept.iter().flatten().chain(&fresh).any(|tracker| tracker.url == url);
            if room > 0 && !twice {
                room -= 1;
                fresh.push(match known.iter().position(|tracker| tracker.url == url) {
                    Some(at) => known.swap_remove(at),
                    None => Tracker::new(url),
                });
            }
        }
        if !fresh.is_empty() {
            kept.push(fresh);
        }
    }
    kept
}

/// A tracker's interval, held to what is sane.
fn bounded(interval: Duration) -> Duration {
    if interval.is_zero() { DEFAULT_INTERVAL } else { interval.clamp(MIN_INTERVAL, MAX_INTERVAL) }
}

/// How long to stay away after so many failures in a row: 5 s, 15 s, 30 s, 60 s … 30 min, a fifth
/// more or less, so that peers cut off together do not come back together.
fn back_off(failures: u32, rng: &mut Rng) -> Duration {
    let base = match failures {
        0 | 1 => FIRST_RETRY,
        // 15 s * 2^7 is over 30 min.
        more => (SECOND_RETRY * (1 << (more - 2).min(7))).min(LONGEST_RETRY),
    };
    let jitter = Duration::from_millis(rng.below(base.as_millis() as u64 * 2 / 5));
    (base * 4 / 5 + jitter).min(LONGEST_RETRY)
}

/// Trackers of one torrent at most. Public lists of trackers that people paste have 20 to 80.
const MAX_TRACKERS: usize = 100;

/// What is taken for an interval of 0; what most trackers give.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// A tracker of one's own may want to hear often; more would be a flood, to its harm or others'.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A tracker that gives more would never see us again, nor would we learn of new peers.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Least interval where the tracker gives none.
const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(60);

/// A tracker that is just being restarted is back by then.
const FIRST_RETRY: Duration = Duration::from_secs(5);

const SECOND_RETRY: Duration = Duration::from_secs(15);

const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);

/// Bytes kept of a reason for failure.
const MAX_REASON: usize = 512;

#[cfg(test)]
mod tests;
