//! Whom to hand out: a bounded look at the peers, then the best of those seen.

use super::peers::{Family, PeerList, Standing, Tick};
use piecework_core::Rng;

/// How complete peers are chosen.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Those handed out least lately, so that all give alike.
    #[default]
    Balanced,
    /// By chance.
    Random,
}

/// Where a peer stands: family and position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// Among the IPv4 peers.
    V4(u32),
    /// Among the IPv6 peers.
    V6(u32),
}

/// Peers that may be handed out, the best first.
#[derive(Default)]
pub(super) struct Candidates {
    /// Rank (lower is better) and place.
    found: Vec<(u64, Place)>,
    /// Those of one standing.
    part: Vec<(u64, Place)>,
    /// Those of areas that had enough already.
    surplus: Vec<(u64, Place)>,
    /// Those of an earlier look.
    aside: Vec<(u64, Place)>,
}

/// What one look is for.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Complete peers, or the others.
    pub complete: bool,
    /// Prefer those handed out least.
    pub balanced: bool,
    /// Never these: the asker, at both of its addresses.
    pub except: [Option<Place>; 2],
    /// Never one seen before this.
    pub alive_since: Tick,
    /// How many are wanted.
    pub count: usize,
    /// Those that may be gone, and no others.
    pub lost: bool,
}

/// The peers of both families; `None` for one that is not wanted.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a> {
    pub v4: Option<&'a PeerList<[u8; 4]>>,
    pub v6: Option<&'a PeerList<[u8; 16]>>,
}

impl Candidates {
    /// Empties, then finds peers: first those that were seen, then those that were not checked, then
    /// those that refused. While there are enough of both, the first two have half of the answer
    /// each: a large swarm's load is not to fall on the few peers that somebody has looked at.
    pub(super) fn look(&mut self, lists: Lists<'_>, look: &Look, rng: &mut Rng) -> &[(u64, Place)] {
        self.found.clear();
        if look.lost {
            self.look_at(lists, Standing::Lost, look, rng);
            std::mem::swap(&mut self.found, &mut self.part);
            return &self.found;
        }
        if !lists.were_checked() {
            self.look_at(lists, Standing::Unchecked, look, rng);
            std::mem::swap(&mut self.found, &mut self.part);
            return &self.found;
        }
        self.look_at(lists, Standing::Seen, look, rng);
        std::mem::swap(&mut self.found, &mut self.part);
        self.look_at(lists, Standing::Unchecked, look, rng);
        self.found.truncate(look.count - self.part.len().min(look.count / 2));
        self.part.truncate(look.count - self.found.len());
        self.found.append(&mut self.part);
        let rest = Look { count: look.count - self.found.len(), ..*look };
        self.look_at(lists, Standing::Refused, &rest, rng);
        self.found.append(&mut self.part);
        &self.found
    }

    /// Empties `part`, then looks at up to [`SAMPLE`] peers of one standing and keeps the best there.
    ///
    /// Up to that many peers the choice is exact. Of more it is the best of a run that begins at
    /// a random place, so that an answer costs the same in a swarm of a million.
    fn look_at(&mut self, lists: Lists<'_>, standing: Standing, look: &Look, rng: &mut Rng) {
        self.part.clear();
        let in_v4 = lists.v4.map_or(0..0, |list| list.range(look.complete, standing));
        let in_v6 = lists.v6.map_or(0..0, |list| list.range(look.complete, standing));
        let total = in_v4.len() + in_v6.len();
        if look.count == 0 || total == 0 {
            return;
        }
        let seen = total.min(SAMPLE.max(4 * look.count));
        let start = if seen == total { 0 } else { rng.below(total as u64) as usize };
        for step in 0..seen {
            let at = (start + step) % total;
            let found = if at < in_v4.len() {
                let at = in_v4.start + at;
                lists.v4.and_then(|list| Some((rank(list, at, look, rng)?, Place::V4(at as u32))))
            } else {
                let at = in_v6.start + at - in_v4.len();
                lists.v6.and_then(|list| Some((rank(list, at, look, rng)?, Place::V6(at as u32))))
            };
            self.part.extend(found.filter(|(_, place)| !look.except.contains(&Some(*place))));
        }
        if self.part.len() <= look.count {
            self.part.sort_unstable();
        } else if self.is_crowded(lists, look.count) {
            self.part.sort_unstable();
            self.spread(lists, look.count);
        } else {
            self.part.select_nth_unstable(look.count - 1);
            self.part.truncate(look.count);
            self.part.sort_unstable();
        }
    }

    /// Whether so many candidates are in one area that an answer may come from there alone, though
    /// there are others.
    fn is_crowded(&self, lists: Lists<'_>, count: usize) -> bool {
        let mut counts = [0_u16; AREAS];
        for (_, place) in &self.part {
            let count = &mut counts[lists.area(*place)];
            *count = count.saturating_add(1);
        }
        let most = usize::from(counts.iter().copied().max().unwrap_or(0));
        most > most_of_area(count).max(CROWD) && most < self.part.len()
    }

    /// Keeps the best `count` candidates, but only so many of one area while there are others.
    fn spread(&mut self, lists: Lists<'_>, count: usize) {
        let most = most_of_area(count);
        let mut counts = [0_usize; AREAS];
        self.surplus.clear();
        let surplus = &mut self.surplus;
        self.part.retain(|(rank, place)| {
            let area = &mut counts[lists.area(*place)];
            *area += 1;
            if *area > most {
                surplus.push((*rank, *place));
            }
            *area <= most
        });
        if self.part.len() < count {
            self.part.extend(surplus.drain(..).take(count));
        }
        self.part.truncate(count);
    }

    /// Puts what the last look found aside, and says how many of `count` peers for one that
    /// downloads shall be of these, who download too, though seeds could fill the whole answer.
    ///
    /// Those who know seeds only have nobody to trade with: each takes the whole content from the
    /// seeds, and when these go, a swarm that holds everything together falls apart.
    pub(super) fn put_aside(&mut self, count: usize) -> usize {
        std::mem::swap(&mut self.found, &mut self.aside);
        (count / LEECHERS_ONE_IN).min(self.aside.len())
    }

    /// What the last look found, the best first.
    pub(super) fn found(&self) -> &[(u64, Place)] {
        &self.found
    }

    /// What was put aside, the best first.
    pub(super) fn aside(&self) -> &[(u64, Place)] {
        &self.aside
    }
}

impl Lists<'_> {
    /// Whether anything is known of any peer's standing.
    fn were_checked(&self) -> bool {
        self.v4.is_some_and(PeerList::were_checked) || self.v6.is_some_and(PeerList::were_checked)
    }

    /// A number below [`AREAS`] that all peers of an area have; few others have it too.
    fn area(&self, place: Place) -> usize {
        let area = match place {
            Place::V4(at) => self.v4.map_or(0, |list| list.get(at as usize).area()),
            Place::V6(at) => self.v6.map_or(0, |list| list.get(at as usize).area()),
        };
        (area.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
    }
}

/// Rank of the peer at `position`; `None` if it has fallen silent. Equal loads are ordered by chance.
fn rank<A: Family>(list: &PeerList<A>, position: usize, look: &Look, rng: &mut Rng) -> Option<u64> {
    let peer = list.get(position);
    let chance = rng.next_u64();
    let rank = if look.balanced { u64::from(peer.recent) << 48 | chance >> 16 } else { chance };
    (peer.seen >= look.alive_since).then_some(rank)
}

/// Peers of one area (an IPv4 /24 or IPv6 /48) in an answer of `count`, while there are others.
fn most_of_area(count: usize) -> usize {
    (count / AREAS_IN_ANSWER).max(1)
}

/// An area has at most a quarter of an answer, so that four are in it.
const AREAS_IN_ANSWER: usize = 4;

/// Candidates of one area that are no crowd, however short the answer: most swarms have none, and
/// their answers are not made longer to think about.
const CROWD: usize = 16;

/// Areas that are told apart.
const AREAS: usize = 256;

/// Peers looked at for one answer, unless four times as many as wanted are more: with 200 wanted
/// of 800 seen the load stays even, and 800 ranks are 20 µs of work.
const SAMPLE: usize = 512;

/// A quarter: of 50 wanted 12, some times the 4 or 5 that a client serves at a time, so that those
/// it trades with are a choice.
const LEECHERS_ONE_IN: usize = 4;
