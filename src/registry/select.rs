//! Whom to hand out: a bounded look at the peers, then the best of those seen.

use super::peers::{Family, PeerList, Tick};
use crate::base::Rng;

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
    /// Those of an earlier look.
    aside: Vec<(u64, Place)>,
}

/// What one look is for.
pub(super) struct Look {
    /// Complete peers, or the others.
    pub complete: bool,
    /// Prefer those handed out least.
    pub balanced: bool,
    /// Never this one: the asker.
    pub except: Option<Place>,
    /// Never one seen before this.
    pub alive_since: Tick,
    /// How many are wanted.
    pub count: usize,
}

impl Candidates {
    /// Empties, then looks at up to [`SAMPLE`] peers of both lists and keeps the best.
    ///
    /// Up to that many peers the choice is exact. Of more it is the best of a run that begins at
    /// a random place, so that an answer costs the same in a swarm of a million.
    pub(super) fn look(
        &mut self,
        v4: Option<&PeerList<[u8; 4]>>,
        v6: Option<&PeerList<[u8; 16]>>,
        look: &Look,
        rng: &mut Rng,
    ) -> &[(u64, Place)] {
        self.found.clear();
        let in_v4 = v4.map_or(0, |list| section(list, look.complete));
        let in_v6 = v6.map_or(0, |list| section(list, look.complete));
        let total = in_v4 + in_v6;
        if look.count == 0 || total == 0 {
            return &self.found;
        }
        let seen = total.min(SAMPLE.max(4 * look.count));
        let start = if seen == total { 0 } else { rng.below(total as u64) as usize };
        for step in 0..seen {
            let at = (start + step) % total;
            let found = if at < in_v4 {
                v4.and_then(|list| rank(list, at, look, rng).map(|(r, at)| (r, Place::V4(at))))
            } else {
                let at = at - in_v4;
                v6.and_then(|list| rank(list, at, look, rng).map(|(r, at)| (r, Place::V6(at))))
            };
            self.found.extend(found.filter(|(_, place)| Some(*place) != look.except));
        }
        if self.found.len() > look.count {
            self.found.select_nth_unstable(look.count - 1);
            self.found.truncate(look.count);
        }
        self.found.sort_unstable();
        &self.found
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

fn section<A: Family>(list: &PeerList<A>, complete: bool) -> usize {
    if complete { list.complete() } else { list.len() - list.complete() }
}

/// Rank and position of the peer that is number `at` of its section; `None` if it has fallen
/// silent. Equal loads are ordered by chance.
fn rank<A: Family>(
    list: &PeerList<A>,
    at: usize,
    look: &Look,
    rng: &mut Rng,
) -> Option<(u64, u32)> {
    let position = if look.complete { at } else { list.complete() + at };
    let peer = list.get(position);
    let chance = rng.next_u64();
    let rank = if look.balanced { u64::from(peer.recent) << 48 | chance >> 16 } else { chance };
    (peer.seen >= look.alive_since).then_some((rank, position as u32))
}

/// Peers looked at for one answer, unless four times as many as wanted are more: with 200 wanted
/// of 800 seen the load stays even, and 800 ranks are 20 µs of work.
const SAMPLE: usize = 512;

/// A quarter: of 50 wanted 12, some times the 4 or 5 that a client serves at a time, so that those
/// it trades with are a choice.
const LEECHERS_ONE_IN: usize = 4;
