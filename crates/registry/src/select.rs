//! Selection of the peers to hand out: a bounded sample, then the best of it.

use super::peers::{Family, PeerList, Reachability, Tick};
use super::walk::Walk;
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

/// Whether many candidates are in one area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Crowd {
    None,
    /// There are candidates in other areas too.
    AmongOthers,
    /// All of them are.
    All,
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

    /// Replaces `part` with the best of a sample of the peers of one reachability.
    ///
    /// With few peers the sample has all of them. Otherwise it is spread over the list and begins at a random
    /// position, so that an answer costs the same in a swarm of a million. A small sample is enough for an even load:
    /// the best half of random candidates is far better than random ones. If many of it have expired, or are in one
    /// area, a larger sample finds others.
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
        let mut walk = Walk::new(total, rng);
        let few = total.min(SMALL_SAMPLE.max(2 * look.count));
        let many = total.min(SAMPLE.max(4 * look.count));
        let mut crowd = Crowd::None;
        for size in [few, many] {
            for number in walk.taken()..size {
                let Some(at) = walk.next() else { break };
                let found = if at < in_v4.len() {
                    let at = in_v4.start + at;
                    let place = PeerPosition::V4(u32::saturating_from(at));
                    lists.v4.and_then(|list| Some((rank(list, at, look, number as u64)?, place)))
                } else {
                    let at = in_v6.start + at - in_v4.len();
                    let place = PeerPosition::V6(u32::saturating_from(at));
                    lists.v6.and_then(|list| Some((rank(list, at, look, number as u64)?, place)))
                };
                self.part.extend(found.filter(|(_, place)| !look.except.contains(&Some(*place))));
            }
            crowd = self.crowd(lists, look.count);
            if self.part.len() >= look.count && crowd == Crowd::None {
                break;
            }
        }
        if crowd == Crowd::AmongOthers {
            self.part.sort_unstable();
            return self.spread(lists, look.count);
        }
        if self.part.len() > look.count {
            self.part.select_nth_unstable(look.count - 1);
            self.part.truncate(look.count);
        }
        self.part.sort_unstable();
    }

    /// Returns whether one area has so many candidates that an answer could come from it alone.
    fn crowd(&self, lists: PeerLists<'_>, count: usize) -> Crowd {
        if self.part.len() <= count {
            return Crowd::None;
        }
        let mut counts = [0_u16; AREAS];
        for (_, place) in &self.part {
            let count = &mut counts[lists.area(*place)];
            *count = count.saturating_add(1);
        }
        let most = usize::from(counts.iter().copied().max().unwrap_or(0));
        match most {
            _ if most <= most_of_area(count).max(CROWD) => Crowd::None,
            _ if most < self.part.len() => Crowd::AmongOthers,
            _ => Crowd::All,
        }
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

/// Returns the rank of the peer at `position`; `None` if it has expired. `number` is its number in the sample, which is
/// in random order: it decides between peers with equal load.
fn rank<A: Family>(
    list: &PeerList<A>,
    position: usize,
    look: &SelectionPass,
    number: u64,
) -> Option<u64> {
    let peer = list.get(position);
    let load = if look.balanced { u64::from(peer.recent) } else { 0 };
    (peer.seen >= look.alive_since).then_some(load << 48 | number)
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

/// The minimum sample for an answer, or twice the wanted number of peers, if that is more.
const SMALL_SAMPLE: usize = 64;

/// The minimum sample if many peers have expired or are in one area, or four times the wanted number of peers.
const SAMPLE: usize = 512;

/// A quarter of an answer is reserved for incomplete peers: 12 of 50. That is a few times the 4 or 5 peers that a
/// client serves at a time, so that it can choose its trading partners.
const LEECHERS_ONE_IN: usize = 4;
