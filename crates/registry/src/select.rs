//! Selection of the peers to hand out: a bounded sample, then the best of it.

use super::peers::{Family, PeerList, Reachability, Tick};
use piecework_core::Rng;
use piecework_core::SaturatingFrom;

/// How complete peers are selected.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Prefer the peers that were handed out least recently, so that all upload alike.
    #[default]
    Balanced,
    /// Select at random.
    Random,
}

/// The position of a peer in the list of its address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum PeerPosition {
    /// A position among the IPv4 peers.
    V4(u32),
    /// A position among the IPv6 peers.
    V6(u32),
}

/// Buffers for the candidates of one answer, the best first.
#[derive(Default)]
pub(super) struct Candidates {
    /// The result: rank (lower is better) and position.
    found: Vec<(u64, PeerPosition)>,
    /// The candidates of one reachability.
    part: Vec<(u64, PeerPosition)>,
    /// The candidates of areas that already had enough.
    surplus: Vec<(u64, PeerPosition)>,
    /// The result of an earlier pass.
    aside: Vec<(u64, PeerPosition)>,
}

/// The parameters of one pass over the peers.
#[derive(Clone, Copy)]
pub(super) struct SelectionPass {
    /// Whether to select complete or incomplete peers.
    pub complete: bool,
    /// Whether to prefer peers that were handed out least.
    pub balanced: bool,
    /// Peers to leave out: the announcing peer, at both of its addresses.
    pub except: [Option<PeerPosition>; 2],
    /// Peers that last announced before this have expired.
    pub alive_since: Tick,
    /// The number of peers wanted.
    pub count: usize,
    /// Whether to select only peers that may be gone.
    pub lost: bool,
}

/// The peers of both address families; `None` for a family that is not wanted.
#[derive(Clone, Copy)]
pub(super) struct PeerLists<'a> {
    pub v4: Option<&'a PeerList<[u8; 4]>>,
    pub v6: Option<&'a PeerList<[u8; 16]>>,
}

impl Candidates {
    /// Selects peers: first those that were seen, then those that were not checked, then those that refused. If
    /// there are enough of both, the first two groups get half of the answer each, so that the load of a large
    /// swarm does not fall on the few peers that were checked.
    pub(super) fn look(
        &mut self,
        lists: PeerLists<'_>,
        look: &SelectionPass,
        rng: &mut Rng,
    ) -> &[(u64, PeerPosition)] {
        self.found.clear();
        if look.lost {
            self.look_at(lists, Reachability::Lost, look, rng);
            std::mem::swap(&mut self.found, &mut self.part);
            return &self.found;
        }
        if !lists.were_checked() {
            self.look_at(lists, Reachability::Unchecked, look, rng);
            std::mem::swap(&mut self.found, &mut self.part);
            return &self.found;
        }
        self.look_at(lists, Reachability::Seen, look, rng);
        std::mem::swap(&mut self.found, &mut self.part);
        self.look_at(lists, Reachability::Unchecked, look, rng);
        self.found.truncate(look.count - self.part.len().min(look.count / 2));
        self.part.truncate(look.count - self.found.len());
        self.found.append(&mut self.part);
        let rest = SelectionPass { count: look.count - self.found.len(), ..*look };
        self.look_at(lists, Reachability::Refused, &rest, rng);
        self.found.append(&mut self.part);
        &self.found
    }

    /// Replaces `part` with the best of up to [`SAMPLE`] peers of one reachability.
    ///
    /// With fewer peers than that the selection is exact. With more it takes the best of a run that begins at a
    /// random position, so that an answer costs the same in a swarm of a million.
    fn look_at(
        &mut self,
        lists: PeerLists<'_>,
        reachability: Reachability,
        look: &SelectionPass,
        rng: &mut Rng,
    ) {
        self.part.clear();
        let in_v4 = lists.v4.map_or(0..0, |list| list.range(look.complete, reachability));
        let in_v6 = lists.v6.map_or(0..0, |list| list.range(look.complete, reachability));
        let total = in_v4.len() + in_v6.len();
        if look.count == 0 || total == 0 {
            return;
        }
        let seen = total.min(SAMPLE.max(4 * look.count));
        let start = if seen == total { 0 } else { usize::saturating_from(rng.below(total as u64)) };
        for step in 0..seen {
            let at = (start + step) % total;
            let found = if at < in_v4.len() {
                let at = in_v4.start + at;
                lists.v4.and_then(|list| {
                    Some((rank(list, at, look, rng)?, PeerPosition::V4(u32::saturating_from(at))))
                })
            } else {
                let at = in_v6.start + at - in_v4.len();
                lists.v6.and_then(|list| {
                    Some((rank(list, at, look, rng)?, PeerPosition::V6(u32::saturating_from(at))))
                })
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

    /// Returns whether one area has so many candidates that an answer could come from it alone although there are
    /// others.
    fn is_crowded(&self, lists: PeerLists<'_>, count: usize) -> bool {
        let mut counts = [0_u16; AREAS];
        for (_, place) in &self.part {
            let count = &mut counts[lists.area(*place)];
            *count = count.saturating_add(1);
        }
        let most = usize::from(counts.iter().copied().max().unwrap_or(0));
        most > most_of_area(count).max(CROWD) && most < self.part.len()
    }

    /// Keeps the best `count` candidates, with a limit for each area while there are others.
    fn spread(&mut self, lists: PeerLists<'_>, count: usize) {
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

    /// Sets the result of the last pass, which are incomplete peers, aside. Returns how many of `count` peers of an
    /// answer are reserved for them, even if seeds could fill the whole answer.
    ///
    /// Peers that know only seeds have nobody to trade with: each takes the whole content from the seeds. When the
    /// seeds leave, a swarm that together holds every piece falls apart.
    pub(super) fn put_aside(&mut self, count: usize) -> usize {
        std::mem::swap(&mut self.found, &mut self.aside);
        (count / LEECHERS_ONE_IN).min(self.aside.len())
    }

    /// Returns the result of the last pass, the best first.
    pub(super) fn found(&self) -> &[(u64, PeerPosition)] {
        &self.found
    }

    /// Returns the peers that were set aside, the best first.
    pub(super) fn aside(&self) -> &[(u64, PeerPosition)] {
        &self.aside
    }
}

impl PeerLists<'_> {
    /// Returns whether the reachability of any peer was ever set.
    fn were_checked(&self) -> bool {
        self.v4.is_some_and(PeerList::were_checked) || self.v6.is_some_and(PeerList::were_checked)
    }

    /// Returns a number below [`AREAS`] that is the same for all peers of an area. Different areas rarely share it.
    fn area(&self, place: PeerPosition) -> usize {
        let area = match place {
            PeerPosition::V4(at) => self.v4.map_or(0, |list| list.get(at as usize).area()),
            PeerPosition::V6(at) => self.v6.map_or(0, |list| list.get(at as usize).area()),
        };
        (area.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
    }
}

/// Returns the rank of the peer at `position`; `None` if it has expired. Peers with equal load are ordered at random.
fn rank<A: Family>(
    list: &PeerList<A>,
    position: usize,
    look: &SelectionPass,
    rng: &mut Rng,
) -> Option<u64> {
    let peer = list.get(position);
    let chance = rng.next_u64();
    let rank = if look.balanced { u64::from(peer.recent) << 48 | chance >> 16 } else { chance };
    (peer.seen >= look.alive_since).then_some(rank)
}

/// Returns the limit for peers of one area (an IPv4 /24 or IPv6 /48) in an answer of `count`.
fn most_of_area(count: usize) -> usize {
    (count / AREAS_IN_ANSWER).max(1)
}

/// An area gets at most a quarter of an answer, so that an answer covers four areas.
const AREAS_IN_ANSWER: usize = 4;

/// Up to this many candidates of one area are not limited, however short the answer. Most swarms have no larger
/// areas, so their answers take no extra time.
const CROWD: usize = 16;

/// The number of area hashes.
const AREAS: usize = 256;

/// The minimum sample for an answer. The sample is larger if four times the wanted number of peers is more: with 200
/// wanted of 800 sampled the load stays even, and 800 ranks take 20 µs.
const SAMPLE: usize = 512;

/// A quarter of an answer is reserved for incomplete peers: 12 of 50. That is a few times the 4 or 5 peers that a
/// client serves at a time, so that it can choose its trading partners.
const LEECHERS_ONE_IN: usize = 4;
