//! What uplinks do, and why they do nothing.

use std::time::Duration;

use piecework_core::Bitfield;
use piecework_swarm::{PeerView, PieceStage};

use super::World;
use crate::report::UplinkShares;

/// What the uplink of a peer does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UplinkState {
    /// It sends.
    Sending,
    /// It has blocks to send, and those who asked cannot take more.
    Blocked,
    /// Its peer holds nothing.
    Empty,
    /// No neighbour lacks anything that its peer holds.
    Unneeded,
    /// Only neighbours without a slot lack something.
    NoSlot,
    /// Neighbours with a slot lack something, and have requested all of it from others.
    Elsewhere,
    /// Neighbours with a slot lack something and have requested it from nobody.
    Unrequested,
}

/// How often each state was found, by looking at all uplinks at regular times.
#[derive(Debug)]
pub(super) struct UplinkSamples {
    next: Duration,
    each: Duration,
    counts: [u64; STATES],
}

impl UplinkSamples {
    /// Creates samples that are taken every `each`, which must not be zero.
    pub(super) fn new(each: Duration) -> Self {
        Self { next: each, each, counts: [0; STATES] }
    }

    /// Returns the share of each state. `in_vain` is the share of the sent bytes that was of no use.
    pub(super) fn shares(&self, in_vain: f64) -> UplinkShares {
        let total: u64 = self.counts.iter().sum();
        let share = |state: UplinkState| match total {
            0 => 0.0,
            _ => self.counts[state as usize] as f64 / total as f64,
        };
        let sending = share(UplinkState::Sending);
        UplinkShares {
            useful: sending * (1.0 - in_vain),
            in_vain: sending * in_vain,
            blocked: share(UplinkState::Blocked),
            empty: share(UplinkState::Empty),
            unneeded: share(UplinkState::Unneeded),
            no_slot: share(UplinkState::NoSlot),
            elsewhere: share(UplinkState::Elsewhere),
            unrequested: share(UplinkState::Unrequested),
        }
    }
}

impl World {
    /// Looks at all uplinks as often as is due until `until` after the start.
    pub(super) fn sample_uplinks(&mut self, until: Duration) {
        let Some(past) = until.checked_sub(self.uplinks.next) else { return };
        // Nothing has changed since the event before, so one look counts for all that are due.
        let looks = past.as_nanos() / self.uplinks.each.as_nanos() + 1;
        let looks = u32::try_from(looks).unwrap_or(u32::MAX);
        self.uplinks.next += self.uplinks.each.saturating_mul(looks);
        for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].is_here()) {
            self.uplinks.counts[self.uplink_state(at) as usize] += u64::from(looks);
        }
    }

    fn uplink_state(&self, at: usize) -> UplinkState {
        let node = &self.nodes[at];
        if node.sending.is_some() {
            return UplinkState::Sending;
        }
        let mine = node.swarm.have();
        if mine.count() == 0 {
            return UplinkState::Empty;
        }
        let mut state = UplinkState::Unneeded;
        for peer in node.swarm.peers() {
            let Some(other) = self.neighbour(at, &peer) else { continue };
            let theirs = &self.nodes[other].swarm;
            if !lacks_some(theirs.have(), mine) {
                continue;
            }
            if peer.uploads_queued > 0 {
                return UplinkState::Blocked;
            }
            if peer.choked {
                if state == UplinkState::Unneeded {
                    state = UplinkState::NoSlot;
                }
                continue;
            }
            let theirs_lacking = mine.iter().filter(|piece| !theirs.have().contains(*piece));
            let mut stages = theirs_lacking.map(|piece| theirs.stage(piece));
            if stages.any(|stage| stage == PieceStage::Missing) {
                return UplinkState::Unrequested;
            }
            state = UplinkState::Elsewhere;
        }
        state
    }

    fn neighbour(&self, at: usize, peer: &PeerView<'_>) -> Option<usize> {
        let connection = self.nodes[at].connection(peer.key)?;
        let sides = &self.connections[connection as usize].as_ref()?.sides;
        let first = (sides[0].node, sides[0].key) == (at, peer.key);
        Some(sides[usize::from(first)].node)
    }
}

/// Returns whether `theirs` lacks a piece of `mine`.
fn lacks_some(theirs: &Bitfield, mine: &Bitfield) -> bool {
    theirs.as_wire().iter().zip(mine.as_wire()).any(|(theirs, mine)| mine & !theirs != 0)
}

const STATES: usize = 7;

#[cfg(test)]
mod tests {
    use crate::{Choke, RunOutcome, Scenario, World};
    use std::time::Duration;

    #[test]
    fn shares_of_uplinks_add_up_and_idle_ones_have_a_cause() {
        let mut scenario = Scenario::broadcast(8, 4 << 20, 64 << 10, 1 << 20);
        scenario.choke = Choke::Closed;
        let mut world = World::new(&scenario, 1).unwrap();
        assert_eq!(world.run_until(Duration::from_secs(60)), Ok(RunOutcome::Complete));
        let report = world.report();
        let uplinks = report.uplinks;
        let total: f64 = uplinks.by_cause().iter().map(|(_, share)| share).sum();
        assert!((total - 1.0).abs() < 1e-9, "{uplinks:?}");
        let sending = uplinks.useful + uplinks.in_vain;
        assert!((sending - report.uplink_use).abs() < 0.02, "{report:?}");
        // At first only the seed has something. Everybody has a slot who has said that it is interested.
        assert!(uplinks.empty > 0.0 && uplinks.no_slot < 0.02, "{uplinks:?}");
        assert!(report.all_given < report.makespan && report.all_given.is_some(), "{report:?}");
    }

    #[test]
    fn neighbours_without_a_slot_are_the_cause_where_nobody_has_one() {
        let mut scenario = Scenario::broadcast(2, 1 << 20, 64 << 10, 1 << 20);
        scenario.addresses = crate::Addresses::Scattered;
        scenario.limit = Duration::from_secs(20);
        scenario.peers[0].upload_slots = 0;
        let mut world = World::new(&scenario, 1).unwrap();
        // The run ends with a fault, since the leechers could complete.
        assert!(world.run_until(scenario.limit).is_err());
        assert!(world.report().uplinks.no_slot > 0.2, "{:?}", world.report().uplinks);
    }
}
