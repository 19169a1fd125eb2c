//! Announcers between two announces, in a compact form.
//!
//! Of ten thousand torrents, nearly all wait for the next interval of one tracker that answered. They
//! differ only in a few moments and counts. The rest, above all the list of trackers, is a [`Layout`] that
//! many of them share.

use piecework_core::SaturatingFrom;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::round::{CompletedNotice, LastAnswer, Round, RoundState, Tier, Tracker, TrackerMemory};
use super::{Announcer, TierPolicy, TrackerState};
use piecework_core::{Moment, Rng};
use piecework_proto::announce::{Provenance, TrackerUrl};

/// An [`Announcer`] with nothing under way, in a tenth of its memory.
#[derive(Clone, Debug)]
pub struct RestingAnnouncer {
    layout: Arc<Layout>,
    rng: Rng,
    first: RestingRound,
    /// Few torrents have more than one.
    more: Option<Box<MoreRounds>>,
}

/// The layouts of resting announcers. Each is in memory once.
#[derive(Default, Debug)]
pub struct Layouts {
    known: BTreeSet<Arc<Layout>>,
    /// At this number, unused layouts are dropped.
    enough: usize,
}

/// The trackers of a torrent in the order in which they are asked, and everything else that many torrents
/// share.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Layout {
    policy: TierPolicy,
    stopping: bool,
    rounds: Box<[LayoutRound]>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct LayoutRound {
    asks_on: bool,
    /// The number of each tracker's tier, and who named it: URLs are equal whoever named them.
    trackers: Box<[(u32, TrackerUrl, Provenance)]>,
}

/// The progress of a round, and what one of its trackers has answered. A round has one for each tracker
/// that has answered, and one if there is none.
#[derive(Clone, Copy, Debug)]
struct RestingRound {
    due: Moment,
    answered_at: Moment,
    not_before: Moment,
    complete: u32,
    incomplete: u32,
    peers: u32,
    /// [`TrackerState::Idle`] if there is no answer.
    state: TrackerState,
    completed: CompletedNotice,
    round: u8,
    /// The index of the tracker in its round.
    place: u8,
}

#[derive(Clone, Debug)]
struct MoreRounds(Vec<RestingRound>);

impl Announcer {
    /// Returns the form to keep until something must be done again. Returns `None` if more is known about a
    /// tracker than its last answer, such as an error.
    pub fn rest(&self, layouts: &mut Layouts) -> Option<RestingAnnouncer> {
        if !self.leaving.is_empty() {
            return None;
        }
        let mut rests = Vec::with_capacity(1);
        for (number, round) in self.rounds.iter().enumerate() {
            let before = rests.len();
            // There are 100 trackers at most.
            let mut rest =
                RestingRound::new(u8::saturating_from(number), round.settled_progress()?);
            for (place, tracker) in round.trackers().enumerate() {
                match tracker.known() {
                    TrackerMemory::Nothing => {}
                    TrackerMemory::Answer(answer) => {
                        rests.push(rest.with(u8::saturating_from(place), answer))
                    }
                    TrackerMemory::More => return None,
                }
            }
            if rests.len() == before {
                rest.place = 0;
                rests.push(rest);
            }
        }
        let mut rests = rests.into_iter();
        let first = rests.next()?;
        let more: Vec<RestingRound> = rests.collect();
        let more = (!more.is_empty()).then(|| Box::new(MoreRounds(more)));
        Some(RestingAnnouncer {
            layout: layouts.shared(Layout::of(self)),
            rng: self.rng.clone(),
            first,
            more,
        })
    }
}

impl RestingAnnouncer {
    /// Returns the announcer as it was.
    pub fn wake(&self) -> Announcer {
        let mut rounds: Vec<Round> = self.layout.rounds.iter().map(LayoutRound::to_round).collect();
        let more = self.more.iter().flat_map(|more| &more.0);
        for rest in std::iter::once(&self.first).chain(more) {
            let Some(round) = rounds.get_mut(usize::from(rest.round)) else { continue };
            round.resume(RoundState::settled(rest.due, rest.completed));
            if let Some(answer) = rest.answer()
                && let Some(tracker) = round.trackers_mut().nth(usize::from(rest.place))
            {
                tracker.set_known(answer);
            }
        }
        let (policy, stopping) = (self.layout.policy, self.layout.stopping);
        Announcer { rounds, leaving: Vec::new(), policy, rng: self.rng.clone(), stopping }
    }
}

impl Layouts {
    fn shared(&mut self, layout: Layout) -> Arc<Layout> {
        if let Some(known) = self.known.get(&layout) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.enough {
            self.known.retain(|layout| Arc::strong_count(layout) > 1);
            self.enough = (2 * self.known.len()).max(FEW_LAYOUTS);
        }
        let layout = Arc::new(layout);
        self.known.insert(Arc::clone(&layout));
        layout
    }
}

impl Layout {
    fn of(announcer: &Announcer) -> Self {
        Self {
            policy: announcer.policy,
            stopping: announcer.stopping,
            rounds: announcer.rounds.iter().map(LayoutRound::of).collect(),
        }
    }
}

impl LayoutRound {
    fn of(round: &Round) -> Self {
        let named = |number: u32, tracker: &Tracker| {
            (number, tracker.url.clone(), tracker.url.provenance())
        };
        let tier = |tier: &Tier| {
            let number = tier.number;
            tier.trackers.iter().map(|tracker| named(number, tracker)).collect::<Vec<_>>()
        };
        Self { asks_on: round.asks_on(), trackers: round.tiers.iter().flat_map(tier).collect() }
    }

    fn to_round(&self) -> Round {
        let mut round = Round::new(CompletedNotice::NotDue, self.asks_on);
        let tiers = self.trackers.chunk_by(|(one, ..), (other, ..)| one == other);
        let tracker = |(_, url, _): &(u32, TrackerUrl, Provenance)| Tracker::new(url.clone());
        round.tiers = tiers
            .map(|tier| Tier { number: tier[0].0, trackers: tier.iter().map(tracker).collect() })
            .collect();
        round
    }
}

impl RestingRound {
    fn new(round: u8, progress: RoundState) -> Self {
        Self {
            due: progress.due,
            answered_at: Moment::START,
            not_before: Moment::START,
            complete: 0,
            incomplete: 0,
            peers: 0,
            state: TrackerState::Idle,
            completed: progress.completed,
            round,
            place: 0,
        }
    }

    fn with(self, place: u8, answer: LastAnswer) -> Self {
        let LastAnswer { state, at, not_before, counts: (complete, incomplete), peers } = answer;
        Self { answered_at: at, not_before, complete, incomplete, peers, state, place, ..self }
    }

    fn answer(&self) -> Option<LastAnswer> {
        (self.state != TrackerState::Idle).then_some(LastAnswer {
            state: self.state,
            at: self.answered_at,
            not_before: self.not_before,
            counts: (self.complete, self.incomplete),
            peers: self.peers,
        })
    }
}

/// Among fewer layouts than this, unused ones are not looked for.
const FEW_LAYOUTS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use piecework_proto::announce::{AnnounceReply, TrackerTarget};

    fn answered(seed: u64, layouts: &mut Layouts) -> Option<RestingAnnouncer> {
        let tiers = TrackerTarget::parse("tracker.example:6969").unwrap().tiers;
        let mut announcer = Announcer::new(tiers, TierPolicy::All, Rng::from_seed(seed));
        let wish = announcer.poll(Moment::START)?;
        assert!(announcer.rest(layouts).is_none(), "an answer is awaited");
        let now = Moment::START + Duration::from_secs(seed);
        announcer.on_reply(now, &wish.tracker, &AnnounceReply::new(Duration::from_secs(1_800)));
        announcer.rest(layouts)
    }

    #[test]
    fn torrents_of_one_tracker_share_all_but_times_and_counts() {
        let mut layouts = Layouts::default();
        let resting: Vec<RestingAnnouncer> =
            (0..100).map(|seed| answered(seed, &mut layouts).unwrap()).collect();
        assert_eq!(layouts.known.len(), 1);
        let next = resting[7].wake().deadline();
        assert_eq!(next, Some(Moment::START + Duration::from_secs(1_807)));
        assert!(size_of::<RestingAnnouncer>() <= 64, "{}", size_of::<RestingAnnouncer>());
    }

    #[test]
    fn arrangements_that_nobody_has_any_more_are_dropped() {
        let mut layouts = Layouts::default();
        for number in 0..1_000 {
            let url = format!("http://tracker{number}.example/announce").parse().unwrap();
            let fresh = Announcer::new(vec![vec![url]], TierPolicy::All, Rng::from_seed(1));
            assert!(fresh.rest(&mut layouts).is_some());
        }
        assert!(layouts.known.len() <= 2 * FEW_LAYOUTS, "{}", layouts.known.len());
    }
}
