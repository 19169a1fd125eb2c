//! The results of a run so far.

use std::time::Duration;

use piecework_core::{Bitfield, Moment};

use super::{RunOutcome, START, World};
use crate::bound::broadcast_bound;
use crate::node::Node;
use crate::oracle::{Failure, Violation};
use crate::report::{GroupReport, Report, Spread};
use crate::scenario::Content;

impl World {
    /// Returns a report of what has happened so far.
    pub fn report(&self) -> Report {
        let total = self.geometry.total_len() as f64;
        let leechers: Vec<&Node> = self.leechers().map(|(_, node)| node).collect();
        let completions = leechers.iter().filter_map(|node| node.completed_at);
        let is_done = self.unfinished == 0 && !leechers.is_empty();
        let last = completions.max().filter(|_| is_done);
        let makespan = last.map(|last| last.since(START).as_secs_f64());
        let bound = self.bound();
        let times = |nodes: &[&Node]| {
            let times = nodes
                .iter()
                .filter_map(|node| Some(node.completed_at?.since(node.arrives_at).as_secs_f64()));
            Spread::of(times.collect())
        };
        let completion = times(&leechers);
        let end = last.unwrap_or(self.now);
        let lacked = total * leechers.len().max(1) as f64;
        let all: Vec<&Node> = self.nodes.iter().collect();
        let is_seed = |node: &Node| self.scenario.peers[node.group].content != Content::Nothing;
        let seeds: Vec<&Node> = self.nodes.iter().filter(|node| is_seed(node)).collect();
        let groups = self.scenario.peers.iter().enumerate().map(|(number, group)| {
            let nodes: Vec<&Node> = self.nodes.iter().filter(|node| node.group == number).collect();
            let completed = nodes.iter().filter(|node| node.completed_at.is_some()).count();
            GroupReport {
                name: group.name.clone(),
                peers: nodes.len(),
                completed,
                completion: times(&nodes).filter(|_| group.content == Content::Nothing),
                copies_sent: bytes_sent(&nodes) / total / nodes.len().max(1) as f64,
                uplink_use: uplink_use(&nodes, end),
            }
        });
        let wasted: u64 = self.nodes.iter().map(|node| node.swarm.progress().wasted).sum();
        Report {
            scenario: self.scenario.name.clone(),
            seed: self.seed,
            leechers: leechers.len(),
            completed: leechers.len() - self.unfinished,
            makespan,
            bound,
            makespan_to_bound: makespan.zip(bound).map(|(time, bound)| time / bound),
            mean_to_bound: completion.zip(bound).map(|(times, bound)| times.mean / bound),
            completion,
            copies_from_seeds: bytes_sent(&seeds) / total,
            copies_sent_each: bytes_sent(&all) / lacked,
            wasted: wasted as f64 / lacked,
            uplink_use: uplink_use(&all, end),
            uplinks: self.uplinks.shares(wasted as f64 / bytes_sent(&all).max(1.0)),
            all_given: self.all_given_at.map(|at| at.since(START).as_secs_f64()),
            bans: self.nodes.iter().map(|node| node.banned.len()).sum(),
            groups: groups.collect(),
            events: self.handled,
        }
    }

    /// Returns how many bytes each peer has verified or held from the start, in the scenario's order.
    pub fn bytes_verified(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.swarm.progress().bytes_have).collect()
    }

    pub(super) fn bound(&self) -> Option<f64> {
        let (mut seeds, mut leechers) = (Vec::new(), Vec::new());
        for group in &self.scenario.peers {
            for _ in 0..group.count {
                match group.content {
                    Content::Everything => seeds.push(group.up),
                    Content::Nothing => leechers.push((group.up, group.down)),
                }
            }
        }
        let (bytes, pieces) = (self.geometry.total_len(), self.geometry.pieces());
        broadcast_bound(bytes, pieces, &seeds, &leechers).map(|bound| bound.time().as_secs_f64())
    }

    /// Judges a run that is over before every leecher is complete. That is a fault if a leecher could be
    /// complete.
    pub(super) fn judge_end(&mut self) -> Result<RunOutcome, Failure> {
        let mut offered = Bitfield::empty(self.geometry.pieces());
        for node in self.nodes.iter().filter(|node| node.is_here()) {
            if self.scenario.peers[node.group].corrupt == 0 {
                node.swarm.have().iter().for_each(|piece| {
                    offered.insert(piece);
                });
            }
        }
        let could = |node: &Node| {
            node.is_here() && node.swarm.have().missing().all(|piece| offered.contains(piece))
        };
        let stuck = self.leechers().find(|(_, node)| node.completed_at.is_none() && could(node));
        let Some((at, node)) = stuck else { return Ok(RunOutcome::Ended) };
        let missing = self.geometry.pieces() - node.swarm.have().count();
        self.violated(at, Violation::Stuck { missing });
        self.failure.take().map_or(Ok(RunOutcome::Ended), Err)
    }
}

/// Returns the fraction of the possible bytes that uplinks sent, up to `end`, while their peers were
/// present.
fn uplink_use(nodes: &[&Node], end: Moment) -> f64 {
    let (mut sent, mut possible) = (0.0, 0.0);
    for node in nodes {
        let until = node.left_at.unwrap_or(end).min(end);
        let there: Duration = until.since(node.arrives_at);
        sent += node.bytes_sent as f64;
        possible += node.up.rate() as f64 * there.as_secs_f64();
    }
    if possible > 0.0 { sent / possible } else { 0.0 }
}

fn bytes_sent(nodes: &[&Node]) -> f64 {
    nodes.iter().map(|node| node.bytes_sent as f64).sum()
}
