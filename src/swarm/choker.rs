//! Whom to serve.
//!
//! Tit for tat (BEP 3): while we download, those who give us most are served, and one peer more
//! whom chance chose, so that newcomers can begin and better partners are found. When we hold
//! everything we want, peers take turns: a turn lasts until a peer has had its share, and who was never
//! served comes first.
//!
//! Closed: everybody who asks is served at once.

use std::time::Duration;

use super::{ChokePolicy, PeerKey};
use crate::base::{Moment, Rng};

#[derive(Debug)]
pub(super) struct Choker {
    policy: ChokePolicy,
    slots: usize,
    next_round: Option<Moment>,
    rounds: u32,
    optimistic: Option<PeerKey>,
}

/// What the choker knows of a peer.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    pub(super) key: PeerKey,
    pub(super) interested: bool,
    pub(super) unchoked: bool,
    /// Bytes it gave us in the last two rounds.
    pub(super) gave: u64,
    /// It owes us blocks and does not send them.
    pub(super) snubbed: bool,
    /// Bytes it took in the turn it is having.
    pub(super) took: u64,
    /// When its turn began, or its last one ended; `None` if it never had any.
    pub(super) turned_at: Option<Moment>,
    /// It connected less than a minute ago.
    pub(super) is_new: bool,
}

impl Choker {
    pub(super) fn new(policy: ChokePolicy, slots: usize) -> Self {
        Self { policy, slots, next_round: None, rounds: 0, optimistic: None }
    }

    /// Somebody is interested: rounds are held from now on.
    pub(super) fn wake(&mut self, now: Moment) {
        if self.policy == ChokePolicy::TitForTat && self.next_round.is_none() {
            self.next_round = Some(now + ROUND);
        }
    }

    /// Whether a peer that has become interested is served without waiting for the next round,
    /// when `served` interested peers are already.
    pub(super) fn serves_at_once(&self, served: usize) -> bool {
        match self.policy {
            ChokePolicy::Closed => true,
            ChokePolicy::TitForTat => served < self.slots,
        }
    }

    /// How many are served at a time from now on.
    pub(super) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// Whether more peers are served than there are slots.
    pub(super) fn is_beyond(&self, served: usize) -> bool {
        self.policy == ChokePolicy::TitForTat && served > self.slots
    }

    /// When the next round is due; `None` if nobody was interested in the last one.
    pub(super) fn next_round(&self) -> Option<Moment> {
        self.next_round
    }

    /// Holds a round: says whom to serve until the next one.
    pub(super) fn round(
        &mut self,
        now: Moment,
        finished: bool,
        rng: &mut Rng,
        contenders: &[Contender],
    ) -> Vec<PeerKey> {
        let interested: Vec<&Contender> = contenders.iter().filter(|c| c.interested).collect();
        self.next_round =
            (!interested.is_empty() && self.policy == ChokePolicy::TitForTat).then(|| now + ROUND);
        self.rounds = self.rounds.wrapping_add(1);
        if self.policy == ChokePolicy::Closed {
            return interested.iter().map(|contender| contender.key).collect();
        }
        if finished { self.seed(now, rng, interested) } else { self.leech(rng, interested) }
    }

    /// The best givers, and one by chance that keeps its place for three rounds.
    fn leech(&mut self, rng: &mut Rng, mut interested: Vec<&Contender>) -> Vec<PeerKey> {
        rng.shuffle(&mut interested);
        interested.sort_by_key(|c| {
            let gave = if c.snubbed { 0 } else { c.gave };
            // Among equals those that are served stay so.
            (std::cmp::Reverse(gave), !c.unchoked)
        });
        let regular = self.slots.saturating_sub(1).min(interested.len());
        let mut served: Vec<PeerKey> = interested[..regular].iter().map(|c| c.key).collect();
        let rest = &interested[regular..];
        let stays = self.optimistic.filter(|key| rest.iter().any(|c| c.key == *key));
        let keeps = !self.rounds.is_multiple_of(OPTIMISTIC_ROUNDS);
        self.optimistic = match stays {
            Some(key) if keeps => Some(key),
            last => choose_optimistic(rest, last, rng),
        };
        if self.slots > 0 {
            served.extend(self.optimistic);
        }
        served
    }

    /// Those whose turn is not over, then those who never had one, then those whose last one is
    /// longest ago.
    fn seed(
        &mut self,
        now: Moment,
        rng: &mut Rng,
        mut interested: Vec<&Contender>,
    ) -> Vec<PeerKey> {
        self.optimistic = None;
        rng.shuffle(&mut interested);
        interested.sort_by_key(|c| {
            let turn = now.since(c.turned_at.unwrap_or(now));
            let is_over = c.took >= TURN_BYTES && turn >= ROUND || turn >= LONGEST_TURN;
            let is_on = c.unchoked && !is_over;
            let last = if c.unchoked { Some(now) } else { c.turned_at };
            (!is_on, last)
        });
        interested.iter().take(self.slots).map(|c| c.key).collect()
    }
}

/// One of `rest`, newcomers three times as likely; not `last` unless there is no other.
fn choose_optimistic(rest: &[&Contender], last: Option<PeerKey>, rng: &mut Rng) -> Option<PeerKey> {
    let others = rest.iter().filter(|c| Some(c.key) != last);
    let weight = |c: &Contender| if c.is_new { 3 } else { 1 };
    let total = others.clone().map(|c| weight(c)).sum();
    let mut draw = rng.below(total);
    for contender in others {
        if draw < weight(contender) {
            return Some(contender.key);
        }
        draw -= weight(contender);
    }
    last
}

/// BEP 3: long enough for TCP to ramp up, short enough to notice who gives.
pub(super) const ROUND: Duration = Duration::from_secs(10);

/// BEP 3: the optimistic unchoke moves on every 30 seconds.
const OPTIMISTIC_ROUNDS: u32 = 3;

/// A peer's share in one turn from a complete peer: a few pieces, so that it has something to
/// pass on while others have theirs.
const TURN_BYTES: u64 = 16 << 20;

/// A slow peer's turn is over after this in any case.
const LONGEST_TURN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(key: u32, gave: u64) -> Contender {
        Contender {
            key: PeerKey(key),
            interested: true,
            unchoked: false,
            gave,
            snubbed: false,
            took: 0,
            turned_at: None,
            is_new: false,
        }
    }

    fn at(secs: u64) -> Moment {
        Moment::START + Duration::from_secs(secs)
    }

    fn sorted(mut keys: Vec<PeerKey>) -> Vec<u32> {
        keys.sort_unstable();
        keys.into_iter().map(|key| key.0).collect()
    }

    #[test]
    fn best_givers_are_served_and_one_by_chance() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 3);
        let peers: Vec<Contender> = (0..10).map(|n| contender(n, u64::from(n) * 100)).collect();
        let mut lucky = std::collections::BTreeSet::new();
        let mut rng = Rng::from_seed(3);
        for round in 0..60 {
            let served = sorted(choker.round(at(round * 10), false, &mut rng, &peers));
            assert_eq!(served[1..], [8, 9], "{served:?}");
            lucky.insert(served[0]);
        }
        assert_eq!(lucky.len(), 8, "everybody gets a chance in twenty turns");
    }

    #[test]
    fn optimistic_unchoke_moves_on_every_three_rounds() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 1);
        let peers: Vec<Contender> = (0..4).map(|n| contender(n, 0)).collect();
        let mut rng = Rng::from_seed(3);
        let served: Vec<Vec<PeerKey>> =
            (0..9).map(|round| choker.round(at(round * 10), false, &mut rng, &peers)).collect();
        assert_eq!(served[2], served[3]);
        assert_eq!(served[2], served[4]);
        assert_ne!(served[4], served[5]);
        assert_eq!(served[5], served[7]);
    }

    #[test]
    fn snubbing_peer_is_not_served_for_what_it_gave() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 2);
        let mut peers: Vec<Contender> = (0..3).map(|n| contender(n, u64::from(n) * 100)).collect();
        peers[2].snubbed = true;
        let served = choker.round(at(0), false, &mut Rng::from_seed(1), &peers);
        assert_eq!(served[0], PeerKey(1));
    }

    #[test]
    fn seed_serves_everyone_in_turn_and_newcomers_first() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 2);
        let mut peers: Vec<Contender> = (0..6).map(|n| contender(n, 0)).collect();
        let mut rng = Rng::from_seed(5);
        let mut turns = [0; 6];
        for round in 0..12 {
            let now = at(round * 10);
            let served = choker.round(now, true, &mut rng, &peers);
            assert_eq!(served.len(), 2);
            for peer in &mut peers {
                let serve = served.contains(&peer.key);
                if serve != peer.unchoked {
                    peer.turned_at = Some(now);
                    peer.unchoked = serve;
                }
                peer.took = if serve { TURN_BYTES } else { 0 };
                turns[peer.key.0 as usize] += u32::from(serve);
            }
        }
        assert_eq!(turns, [4; 6]);
        peers.push(contender(6, 0));
        let served = choker.round(at(120), true, &mut rng, &peers);
        assert!(served.contains(&PeerKey(6)), "{served:?}");
    }

    #[test]
    fn turn_goes_on_until_the_share_is_taken() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 1);
        let mut peers: Vec<Contender> = (0..2).map(|n| contender(n, 0)).collect();
        peers[0].unchoked = true;
        peers[0].turned_at = Some(at(0));
        let mut rng = Rng::from_seed(5);
        assert_eq!(choker.round(at(50), true, &mut rng, &peers), [PeerKey(0)]);
        assert_eq!(choker.round(at(60), true, &mut rng, &peers), [PeerKey(1)]);
    }

    #[test]
    fn rounds_end_when_nobody_is_interested() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 2);
        choker.wake(at(1));
        assert_eq!(choker.next_round(), Some(at(11)));
        assert_eq!(choker.round(at(11), false, &mut Rng::from_seed(1), &[]), []);
        assert_eq!(choker.next_round(), None);
    }

    #[test]
    fn closed_swarm_serves_everybody_at_once() {
        let mut choker = Choker::new(ChokePolicy::Closed, 1);
        assert!(choker.serves_at_once(1_000));
        choker.wake(at(0));
        assert_eq!(choker.next_round(), None);
    }
}
