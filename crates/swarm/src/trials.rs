//! Trials: pieces that failed their hash check, and which peer gives each of them once more, alone.
//!
//! It is not known beforehand which peer gives what it is asked for. So pieces on trial go to different
//! peers at the same time, one piece to each. Only a peer that has given a right piece alone, and gives
//! blocks now, gets more than one at a time. A peer that is much slower than others would be loses the
//! piece, and one that gives nothing loses all its pieces. It then comes after peers that have lost fewer.

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::peer::Peer;
use super::picker::{DeliveryEstimate, PickRequest, Trust};
use super::{Giver, PeerKey, Swarm};
use piecework_core::{BLOCK_LEN, Moment, PieceIndex};

/// A piece on trial, and the peer that is to give it alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    piece: PieceIndex,
    key: PeerKey,
    /// When its progress was last checked, and how many of its blocks were kept then.
    looked_at: Moment,
    kept: u32,
    /// When it is checked next.
    look_at: Moment,
}

/// A peer that could be asked for a piece on trial. The least is the best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TrialCandidate {
    grade: Grade,
    alone: Reverse<u32>,
    missed: u32,
    is_suspect: bool,
    given: Reverse<u64>,
    key: PeerKey,
    /// How many pieces on trial it is to give.
    has: u32,
    /// It has recently given a block.
    gives: bool,
    /// How many more pieces it may be assigned now.
    room: u32,
    rate: u64,
}

/// A class of peers. No peer is asked while a peer of a better grade holds the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    trust: Trust,
    lost: u32,
    is_slow: bool,
}

impl TrialCandidate {
    /// Returns how many pieces it has, weighed by the right ones that it gave alone. Peers with a small
    /// share get more first, so that many peers are tried at the same time.
    fn share(&self) -> u32 {
        self.has / (1 + self.alone.0.saturating_add(1).ilog2())
    }
}

/// The result of checking a piece on trial.
enum Assessment {
    /// Nothing yet, or there is no other peer for it.
    Later,
    /// It goes on, with this new state.
    Goes(Trial),
    /// Others would be much faster.
    Slow,
    /// The peer gives nothing.
    Silent,
}

impl Swarm {
    /// Finds for each parked piece one peer to give it alone: one that gives blocks, has lost few pieces,
    /// and is not much slower than the fastest, so that no peer can hold the piece up. Among those, it
    /// prefers a peer that has given many right pieces alone, or that had no part in a wrong piece.
    pub(super) fn assign_parked(&mut self) {
        if self.picker.parked().is_empty() && self.trials.is_empty() {
            return;
        }
        self.note_lost();
        let now = self.now;
        let is_due = |trial: &Trial| {
            let peer = self.peers.get(&trial.key);
            trial.look_at <= now || peer.is_some_and(|peer| peer.pipeline.is_snubbed())
        };
        let is_idle = self.picker.parked().is_empty() && !self.trials.iter().any(is_due);
        let is_early = self.peers.len() > MANY_PEERS && now < self.trials_from;
        if is_early && !is_idle {
            self.plan_look(self.trials_from);
        } else if !is_idle {
            self.trials_from = now + PASS_PAUSE;
            self.pass();
        }
        let looks = self.trials.iter().map(|trial| trial.look_at);
        if let Some(look) = looks.filter(|look| *look > now).min() {
            self.plan_look(look);
        }
    }

    /// Takes pieces back, and finds a peer for each piece that waits.
    fn pass(&mut self) {
        let mut candidates = self.candidates();
        self.take_back(&candidates);
        let (mut at, mut looks) = (0, 0);
        while let Some(piece) = self.picker.parked().get(at).copied() {
            let Some(best) = self.best_for(piece, &candidates) else {
                at += 1;
                looks += 1;
                if looks == MAX_LOOKS {
                    break;
                }
                continue;
            };
            // The more peers there are to try, the less time each has.
            let grade = candidates[best].grade;
            let idle = candidates.iter().filter(|other| other.grade == grade && other.has == 0);
            let grace = GRACE / (1 + u32::saturating_from(idle.count()) / FEW_CANDIDATES);
            let candidate = &mut candidates[best];
            if !self.assign(piece, candidate.key, grace.max(LEAST_GRACE)) {
                break;
            }
            candidate.room -= 1;
            candidate.has += 1;
        }
    }

    /// Records who gave a right piece. If it was one peer alone, that counts in its favour.
    pub(super) fn note_alone(&mut self, givers: &[Giver]) {
        let [only] = givers else { return };
        let by = |peer: &&mut Peer| Arc::ptr_eq(&peer.who, &only.who);
        if let Some(peer) = self.peers.values_mut().find(by) {
            peer.alone = peer.alone.saturating_add(1);
            (peer.lost, peer.missed) = (0, 0);
        }
    }

    /// Returns all peers that could be asked for a piece on trial, the best first.
    fn candidates(&self) -> Vec<TrialCandidate> {
        let now = self.now;
        let may_be_asked =
            |peer: &Peer| peer.interests_us && !peer.chokes_us && !peer.pipeline.is_held(now);
        let serving = || self.peers.iter().filter(|(_, peer)| may_be_asked(peer));
        // A peer that is asked for little now may have shown earlier how fast it is.
        let rate = |peer: &Peer| peer.down.per_second(now).max(peer.pipeline.pace().1);
        // A peer that gives right pieces may lose one because its uplink is busy.
        let lost = |peer: &Peer| peer.lost.saturating_sub(u32::from(peer.alone > 0));
        // The rate of a peer that has lost pieces is an old one.
        let keeps = |peer: &Peer| lost(peer) == 0 && !peer.pipeline.is_snubbed();
        let rates = serving().filter(|(_, peer)| keeps(peer)).map(|(_, peer)| rate(peer));
        let quick = rates.max().unwrap_or(0) / QUICK_PART;
        let blocks = self.geometry.blocks_per_piece().max(1);
        let candidate = |(key, peer): (&PeerKey, &Peer)| {
            let trust = peer.pipeline.trust();
            let is_recent = |at: Moment| at + GRACE + peer.pipeline.delivery_estimate().first > now;
            let gives = peer.pipeline.block_at().is_some_and(is_recent);
            let more = match peer.alone > 0 && gives {
                true => u32::saturating_from(peer.pipeline.window()).div_ceil(blocks),
                false => 0,
            };
            let has =
                u32::saturating_from(self.trials.iter().filter(|trial| trial.key == *key).count());
            TrialCandidate {
                grade: Grade {
                    // A peer that was never asked may be as good as one that gives blocks.
                    trust: if trust == Trust::Untested { Trust::Proven } else { trust },
                    is_slow: trust == Trust::Proven && (1..quick).contains(&rate(peer)),
                    lost: lost(peer),
                },
                alone: Reverse(peer.alone),
                missed: peer.missed,
                is_suspect: self.blame.is_suspect(&peer.who),
                given: Reverse(peer.down.total()),
                key: *key,
                has,
                gives,
                room: (1 + more).saturating_sub(has),
                rate: rate(peer),
            }
        };
        let mut candidates: Vec<TrialCandidate> = serving().map(candidate).collect();
        candidates.sort_unstable();
        candidates
    }

    /// Returns the best candidate with room for a piece. Returns `None` while a better one without room
    /// gives blocks, because it will have room soon.
    fn best_for(&self, piece: PieceIndex, candidates: &[TrialCandidate]) -> Option<usize> {
        let holds = |candidate: &TrialCandidate| {
            self.peers.get(&candidate.key).is_some_and(|peer| peer.holds.contains(piece))
        };
        let mut holders =
            candidates.iter().enumerate().filter(|(_, candidate)| holds(candidate)).peekable();
        let first = holders.peek()?.1.grade;
        while let Some(grade) = holders.peek().map(|(_, candidate)| candidate.grade) {
            if grade != first && grade.trust == Trust::Snubbed {
                break;
            }
            let (mut best, mut is_worth_waiting) = (None, false);
            while let Some((at, holder)) =
                holders.next_if(|(_, candidate)| candidate.grade == grade)
            {
                is_worth_waiting |= holder.gives && !grade.is_slow;
                let share = holder.share();
                if holder.room > 0 && best.is_none_or(|(least, _)| share < least) {
                    best = Some((share, at));
                }
            }
            if let Some((_, at)) = best {
                return Some(at);
            }
            if is_worth_waiting {
                break;
            }
        }
        None
    }

    fn assign(&mut self, piece: PieceIndex, key: PeerKey, grace: Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let mut request = PickRequest {
            key,
            holds: &peer.holds,
            cache: &mut peer.cache,
            idle: false,
            trust: peer.pipeline.trust(),
            pace: DeliveryEstimate::default(),
        };
        let assigned = self.picker.assign(piece, &mut request);
        peer.cache.look_again();
        if assigned {
            let DeliveryEstimate { first, each } = peer.pipeline.delivery_estimate();
            let before =
                u32::saturating_from(self.trials.iter().filter(|trial| trial.key == key).count());
            let expected = first + each * self.geometry.blocks_per_piece() * before;
            let pause = if first.is_zero() { UNKNOWN } else { grace + expected * 2 };
            // A peer that has lost pieces may be far away.
            let pause = pause * (1 << peer.lost.min(4));
            let (looked_at, look_at) = (self.now, self.now + pause);
            self.trials.push(Trial { piece, key, looked_at, kept: 0, look_at });
        }
        assigned
    }

    /// Forgets pieces that are whole, or that their peers have lost.
    fn note_lost(&mut self) {
        let (picker, have, peers) = (&self.picker, &self.have, &mut self.peers);
        self.trials.retain(|trial| {
            if picker.is_sole(trial.piece, trial.key) {
                return true;
            }
            let is_whole =
                have.contains(trial.piece) || picker.is_verifying(trial.piece) == Some(true);
            if !is_whole && let Some(peer) = peers.get_mut(&trial.key) {
                peer.lost = peer.lost.saturating_add(1);
            }
            false
        });
    }

    /// Takes pieces back from peers that give nothing, or that would take much longer than another peer
    /// which has room for a piece and has lost no more.
    fn take_back(&mut self, candidates: &[TrialCandidate]) {
        let mut at = 0;
        while at < self.trials.len() {
            let Trial { piece, key, .. } = self.trials[at];
            match self.look_at(&self.trials[at], candidates) {
                Assessment::Later => at += 1,
                Assessment::Goes(trial) => {
                    self.trials[at] = trial;
                    at += 1;
                }
                Assessment::Slow => {
                    self.trials.swap_remove(at);
                    self.take_from(&[piece], key);
                }
                Assessment::Silent => {
                    let is_its = |trial: &mut Trial| trial.key == key;
                    let its = self.trials.extract_if(.., is_its).map(|trial| trial.piece);
                    let its: Vec<PieceIndex> = its.collect();
                    self.take_from(&its, key);
                    at = 0;
                }
            }
        }
    }

    /// Takes these pieces from a peer. That counts as one lost piece, since all of them failed for the same
    /// reason.
    fn take_from(&mut self, pieces: &[PieceIndex], key: PeerKey) {
        for piece in pieces {
            self.picker.take_back(*piece, &mut self.selection);
        }
        self.carry_out_drops();
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.lost = peer.lost.saturating_add(1);
        }
    }

    /// Checks how far a peer is with a piece.
    fn look_at(&self, trial: &Trial, candidates: &[TrialCandidate]) -> Assessment {
        let (now, piece) = (self.now, trial.piece);
        let Some(peer) = self.peers.get(&trial.key) else { return Assessment::Later };
        let Some((kept, late)) = self.picker.progress(piece) else { return Assessment::Later };
        let is_snubbed = peer.pipeline.is_snubbed();
        if !is_snubbed && now < trial.look_at {
            return Assessment::Later;
        }
        // Any peer may be better than one that gives nothing.
        let could = |other: &&TrialCandidate| {
            other.key != trial.key
                && other.room > 0
                && other.grade.trust != Trust::Snubbed
                && other.grade.lost <= peer.lost + 1
                && self.peers.get(&other.key).is_some_and(|peer| peer.holds.contains(piece))
        };
        let others = candidates.iter().filter(could);
        let is_quick = |other: &&TrialCandidate| {
            !other.grade.is_slow && other.rate > 0 && other.grade.lost <= peer.lost
        };
        let quick = others.clone().filter(is_quick).map(|other| other.rate).max();
        let (has_others, has_quick) = (others.count() > 0, quick.is_some());
        if is_snubbed && has_others {
            return Assessment::Silent;
        }
        if late > 0 && has_quick {
            return Assessment::Slow;
        }
        let rate = quick.unwrap_or_else(|| peer.down.per_second(now));
        let blocks = self.geometry.blocks_in(piece);
        let bytes = u64::from(blocks) * u64::from(BLOCK_LEN);
        // The time another peer would need for all of it.
        let whole = Duration::from_millis(bytes.saturating_mul(1_000) / rate.max(1));
        // The time that the peer's own past suggests. Zero if there is no past.
        let DeliveryEstimate { first, each } = peer.pipeline.delivery_estimate();
        let own = first + each * blocks;
        let patience = GRACE + if own.is_zero() { whole } else { whole.min(own) };
        let patience = patience.max(each * 2).min(LONGEST);
        let block_at = peer.pipeline.block_at().filter(|at| *at + patience > now);
        let got = kept.saturating_sub(trial.kept);
        let since = now.since(trial.looked_at);
        let is_slow = match got {
            // It may be busy with another piece.
            0 => kept > 0,
            got => since * (blocks - kept) / got > (GRACE + whole) * 2,
        };
        let Some(block_at) = block_at else {
            return if has_others { Assessment::Silent } else { Assessment::Later };
        };
        // A short time says nothing about its rate.
        if since >= GRACE && is_slow {
            return if has_quick { Assessment::Slow } else { Assessment::Later };
        }
        let look_at = (block_at + patience).max(now + SHORTEST);
        Assessment::Goes(match since >= GRACE {
            true => Trial { looked_at: now, kept, look_at, ..*trial },
            false => Trial { look_at, ..*trial },
        })
    }

    /// Sets the timer for the next check of a piece on trial.
    fn plan_look(&mut self, look: Moment) {
        if self.retry.is_none_or(|retry| look < retry) {
            self.retry = Some(look);
            self.arm(look);
        }
    }
}

/// A peer with this fraction of the fastest peer's rate is fast enough to give a piece alone.
const QUICK_PART: u64 = 8;

/// Time a peer has for the first block of a piece on trial, beyond what its rate suggests.
const GRACE: Duration = Duration::from_millis(250);

/// The minimum of that time when many peers are to be tried.
const LEAST_GRACE: Duration = Duration::from_millis(50);

/// This many candidates are tried one after the other with the whole of it.
const FEW_CANDIDATES: u32 = 8;

/// Time a peer has whose rate is unknown.
const UNKNOWN: Duration = Duration::from_millis(500);

/// If there are more peers than this, they are not all checked whenever a block arrives.
const MANY_PEERS: usize = 128;

/// Time between two passes over so many peers.
const PASS_PAUSE: Duration = Duration::from_millis(10);

/// The minimum time between two checks.
const SHORTEST: Duration = Duration::from_millis(20);

/// The maximum time between two checks.
const LONGEST: Duration = Duration::from_secs(8);

/// After this many pieces for which no peer is found, the rest is left for later.
const MAX_LOOKS: u32 = 64;
