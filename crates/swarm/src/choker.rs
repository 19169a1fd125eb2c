//! Decides which peers to serve.
//!
//! Tit for tat (BEP 3): while we download, the peers that give most are served, and one more chosen at
//! random, so that newcomers can begin and better partners are found. When we hold everything we want,
//! peers take turns: a turn lasts until a peer has had its share, and a peer that was never served comes
//! first. While some peers request nothing, a free slot goes alternately to the peer that has waited
//! longest and to the one that came last, so that a crowd does not keep a newcomer waiting.
//!
//! In both cases, a slot is for peers that request blocks. A peer that has a slot and requests nothing
//! loses it after a grace period to one that waits, and comes after all others from then on. The grace
//! period is short while many wait, so that all of them can show within about a round whether they request
//! blocks. A peer whose first request arrives too late because its line is long gets its turn again, with
//! the longest grace period. A peer that connects again continues the turn that a peer of its address has
//! left.
//!
//! Closed: every peer that is interested is served at once.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::{ChokePolicy, PeerKey};
use piecework_core::{Moment, Rng};

#[derive(Debug)]
pub(super) struct Choker {
    policy: ChokePolicy,
    slots: usize,
    next_round: Option<Moment>,
    rounds: u32,
    optimistic: Option<PeerKey>,
}

/// What the choker knows about a peer.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    pub(super) key: PeerKey,
    pub(super) interested: bool,
    pub(super) unchoked: bool,
    /// Bytes it gave us in the last two rounds.
    pub(super) gave: u64,
    /// It owes us blocks and does not send them.
    pub(super) snubbed: bool,
    /// Bytes it took in its current turn.
    pub(super) took: u64,
    /// Bytes it took since the last round.
    pub(super) took_lately: u64,
    /// When its turn began, or its last one ended. `None` if it never had one.
    pub(super) turned_at: Option<Moment>,
    /// It had a slot, or has one, and requests nothing.
    pub(super) is_idle: bool,
    /// It connected less than a minute ago.
    pub(super) is_new: bool,
}

/// The position of a peer in the order of turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// It had a slot and requested nothing.
    pub(super) is_idle: bool,
    /// When its last turn ended. `None` if it never had one.
    pub(super) ended_at: Option<Moment>,
    /// Blocks it may still have while it is choked. `None` if it was offered none.
    pub(super) allowance: Option<u32>,
}

/// The turns of peers that have left, for peers that connect from the same addresses.
#[derive(Debug, Default)]
pub(super) struct FormerTurns {
    turns: VecDeque<(Moment, IpAddr, Turn)>,
}

impl FormerTurns {
    /// Remembers the turn of a peer that has left.
    pub(super) fn keep(&mut self, now: Moment, ip: IpAddr, turn: Turn) {
        if turn.ended_at.is_none() && turn.allowance.is_none() {
            return;
        }
        self.forget_old(now);
        if self.turns.len() == MAX_FORMER_TURNS {
            self.turns.pop_front();
        }
        self.turns.push_back((now, ip, turn));
    }

    /// Takes the turn that a new peer from `ip` continues: the last in order of those left there. Other
    /// peers from the address are newcomers.
    pub(super) fn take(&mut self, now: Moment, ip: IpAddr) -> Option<Turn> {
        self.forget_old(now);
        let of_ip = self.turns.iter().enumerate().filter(|(_, (_, at, _))| *at == ip);
        let (at, _) = of_ip.max_by_key(|(_, (_, _, turn))| *turn)?;
        self.turns.remove(at).map(|(_, _, turn)| turn)
    }

    pub(super) fn clear(&mut self) {
        self.turns = VecDeque::new();
    }

    fn forget_old(&mut self, now: Moment) {
        while self.turns.front().is_some_and(|(left, ..)| now.since(*left) >= FORMER_TURN_KEPT) {
            self.turns.pop_front();
        }
    }
}

impl Choker {
    pub(super) fn new(policy: ChokePolicy, slots: usize) -> Self {
        Self { policy, slots, next_round: None, rounds: 0, optimistic: None }
    }

    /// Starts the rounds, because a peer is interested.
    pub(super) fn wake(&mut self, now: Moment) {
        if self.policy == ChokePolicy::TitForTat && self.next_round.is_none() {
            self.next_round = Some(now + ROUND);
        }
    }

    /// Returns whether a peer that has become interested is served without waiting for the next round, when
    /// `served` interested peers are served already.
    pub(super) fn serves_at_once(&self, served: usize) -> bool {
        match self.policy {
            ChokePolicy::Closed => true,
            ChokePolicy::TitForTat => served < self.slots,
        }
    }

    /// Returns whether slots are limited, so that peers may have to wait for one.
    pub(super) fn has_slots(&self) -> bool {
        self.policy == ChokePolicy::TitForTat
    }

    /// Returns how long a peer may have a slot and request nothing while `waiting` others wait, so that
    /// each of them gets a slot within about a round.
    pub(super) fn grace(&self, waiting: usize) -> Duration {
        let slots = u32::try_from(self.slots).unwrap_or(u32::MAX);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
        (ROUND.saturating_mul(slots) / waiting).clamp(SHORTEST_GRACE, LONGEST_GRACE)
    }

    /// Returns how many more slots those `in_need` could use than are free while `served` are taken.
    pub(super) fn lacking(&self, served: usize, in_need: usize) -> usize {
        in_need.saturating_sub(self.slots.saturating_sub(served)).min(self.slots)
    }

    /// Sets how many peers are served at a time.
    pub(super) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// Returns whether more peers are served than there are slots.
    pub(super) fn is_beyond(&self, served: usize) -> bool {
        self.policy == ChokePolicy::TitForTat && served > self.slots
    }

    /// Returns when the next round is due. `None` if no peer was interested in the last one.
    pub(super) fn next_round(&self) -> Option<Moment> {
        self.next_round
    }

    /// Holds a round. Returns the peers to serve until the next one.
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

    /// Returns the peers that give most, active ones first, and a random one that keeps its place for three
    /// rounds.
    fn leech(&mut self, rng: &mut Rng, mut interested: Vec<&Contender>) -> Vec<PeerKey> {
        rng.shuffle(&mut interested);
        interested.sort_by_key(|c| {
            let gave = if c.snubbed { 0 } else { c.gave };
            // Among equals, those that are served stay.
            (std::cmp::Reverse(gave), c.is_idle, !c.unchoked)
        });
        let regular = self.slots.saturating_sub(1).min(interested.len());
        let mut served: Vec<PeerKey> = interested[..regular].iter().map(|c| c.key).collect();
        let rest = &interested[regular..];
        let stays = self.optimistic.filter(|key| rest.iter().any(|c| c.key == *key && !c.is_idle));
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

    /// Returns the peers whose turn is not over, then those that never had one, then those whose last turn
    /// is longest ago, and finally those that do not use their turns.
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
            let has_share = c.took >= TURN_BYTES || c.took_lately < LEAST_BYTES;
            let is_over = has_share && turn >= ROUND || turn >= LONGEST_TURN;
            let is_on = c.unchoked && !is_over && !c.is_idle;
            let last = if c.unchoked { Some(now) } else { c.turned_at };
            (!is_on, c.is_idle, last)
        });
        interested.iter().take(self.slots).map(|c| c.key).collect()
    }
}

/// Returns one of `rest`, newcomers three times as likely. Returns `last` only if no other peer is active,
/// and an idle peer only if all are idle.
fn choose_optimistic(rest: &[&Contender], last: Option<PeerKey>, rng: &mut Rng) -> Option<PeerKey> {
    let mut asking = rest.iter().filter(|c| !c.is_idle).map(|c| Some(c.key)).peekable();
    let all_idle = asking.peek().is_none();
    if !all_idle && asking.all(|key| key == last) {
        return last;
    }
    let others = rest.iter().filter(|c| Some(c.key) != last && (all_idle || !c.is_idle));
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

/// BEP 3: long enough for TCP to ramp up, short enough to notice which peers give.
pub(super) const ROUND: Duration = Duration::from_secs(10);

/// BEP 3: the optimistic unchoke moves on every 30 seconds.
const OPTIMISTIC_ROUNDS: u32 = 3;

/// The share of a peer in one turn from a complete peer: a few pieces, so that it has something to pass on
/// while others have their turns.
const TURN_BYTES: u64 = 16 << 20;

/// The turn of a slow peer ends after this in any case.
const LONGEST_TURN: Duration = Duration::from_secs(60);

/// If a peer takes less than this in a round (4 KiB a second), its turn ends with the round while others
/// wait: it requests only a block now and then, or does not read.
const LEAST_BYTES: u64 = 40 << 10;

/// The grace period while few wait: longer than the delay of any line and the tick of any client.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(3);

/// The grace period while very many wait. With eight slots, a thousand peers have each had one after half a
/// minute. A peer that needs longer gets another turn when its request arrives.
const SHORTEST_GRACE: Duration = Duration::from_millis(250);

/// Maximum number of turns of peers that have left, 56 bytes each.
const MAX_FORMER_TURNS: usize = 1_024;

/// How long such a turn is kept: longer than a peer that needs data waits before it connects again.
const FORMER_TURN_KEPT: Duration = Duration::from_secs(600);

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
            took_lately: 0,
            turned_at: None,
            is_idle: false,
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
        (peers[0].took, peers[0].took_lately) = (5 << 20, 1 << 20);
        let mut rng = Rng::from_seed(5);
        assert_eq!(choker.round(at(50), true, &mut rng, &peers), [PeerKey(0)]);
        assert_eq!(choker.round(at(60), true, &mut rng, &peers), [PeerKey(1)]);
        peers[0].took = TURN_BYTES;
        assert_eq!(choker.round(at(9), true, &mut rng, &peers), [PeerKey(0)]);
        assert_eq!(choker.round(at(10), true, &mut rng, &peers), [PeerKey(1)]);
    }

    #[test]
    fn turn_of_a_peer_that_hardly_takes_anything_lasts_a_round() {
        let mut choker = Choker::new(ChokePolicy::TitForTat, 1);
        let mut peers: Vec<Contender> = (0..2).map(|n| contender(n, 0)).collect();
        peers[0].unchoked = true;
        peers[0].turned_at = Some(at(0));
        // What it took first and what it takes now are not the same.
        (peers[0].took, peers[0].took_lately) = (5 << 20, LEAST_BYTES - 1);
        let mut rng = Rng::from_seed(5);
        assert_eq!(choker.round(at(9), true, &mut rng, &peers), [PeerKey(0)]);
        assert_eq!(choker.round(at(10), true, &mut rng, &peers), [PeerKey(1)]);
        // It goes on if no other peer waits.
        assert_eq!(choker.round(at(10), true, &mut rng, &peers[..1]), [PeerKey(0)]);
    }

    #[test]
    fn who_asks_for_nothing_comes_last() {
        let mut rng = Rng::from_seed(5);
        for finished in [true, false] {
            let mut choker = Choker::new(ChokePolicy::TitForTat, 2);
            let mut peers: Vec<Contender> = (0..4).map(|n| contender(n, 0)).collect();
            for idle in [0, 1] {
                peers[idle].is_idle = true;
                peers[idle].unchoked = idle == 0;
                peers[idle].took_lately = LEAST_BYTES;
            }
            for round in 0..10 {
                let served = choker.round(at(round * 10), finished, &mut rng, &peers);
                assert_eq!(sorted(served), [2, 3], "round {round}");
            }
            // The slots are used in any case.
            assert_eq!(choker.round(at(100), finished, &mut rng, &peers[..2]).len(), 2);
        }
    }

    #[test]
    fn grace_is_shared_among_those_who_wait() {
        let choker = Choker::new(ChokePolicy::TitForTat, 8);
        for (waiting, millis) in [(0, 3_000), (20, 3_000), (80, 1_000), (160, 500), (1_000, 250)] {
            assert_eq!(choker.grace(waiting), Duration::from_millis(millis), "{waiting}");
        }
    }

    #[test]
    fn left_turns_are_taken_up_once_worst_first_and_bounded() {
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let turn =
            |is_idle, seconds| Turn { is_idle, ended_at: Some(at(seconds)), allowance: None };
        let mut left = FormerTurns::default();
        left.keep(at(50), one, turn(false, 40));
        left.keep(at(50), one, turn(true, 30));
        left.keep(at(50), other, turn(false, 20));
        left.keep(at(50), one, Turn { is_idle: false, ended_at: None, allowance: None });
        assert_eq!(left.take(at(60), one), Some(turn(true, 30)));
        assert_eq!(left.take(at(60), one), Some(turn(false, 40)));
        assert_eq!(left.take(at(60), one), None);
        assert_eq!(left.take(at(650), other), None, "too long ago");
        for number in 0..5_000u32 {
            let ip = IpAddr::V4((0x0a00_0000 + number).into());
            left.keep(at(700), ip, turn(false, 1));
        }
        assert_eq!(left.turns.len(), MAX_FORMER_TURNS);
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
