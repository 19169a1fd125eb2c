//! The tracker, and the announces of peers.

use std::net::SocketAddr;
use std::time::Duration;

use piecework_proto::announce::{Announce, AnnounceEvent, AnnounceReply};
use piecework_registry::{AnnounceAnswer, PeerQuery, Refusal};
use piecework_swarm::announcer::{AnnounceFailure, HostState};
use piecework_swarm::{Event, PeerSource};

use super::{INFO_HASH, PORT, SimEvent, World};

impl World {
    /// Sends the announces of a peer's announcer.
    pub(super) fn announce(&mut self, at: usize) {
        let (now, delay) = (self.now, self.scenario.tracker_delay + self.nodes[at].delay);
        let node = &mut self.nodes[at];
        while node.announcer.line_up(now, &mut |_| HostState::InLine) {}
        while let Some(wish) = node.announcer.turn(now, |_| true) {
            self.events.push(now + delay, SimEvent::Asks { node: at, event: wish.event });
        }
        if let Some(deadline) = self.nodes[at].announcer.deadline() {
            let deadline = deadline.max(now);
            let node = &mut self.nodes[at];
            if deadline > now && node.announces_at.is_none_or(|at| deadline < at) {
                node.announces_at = Some(deadline);
                self.events.push(deadline, SimEvent::Announces(at));
            }
        }
    }

    pub(super) fn ask_tracker(&mut self, at: usize, event: AnnounceEvent) {
        let node = &self.nodes[at];
        let progress = node.swarm.progress();
        let left = self.geometry.total_len() - progress.bytes_have;
        let mut announce = Announce::new(INFO_HASH, node.id, PORT, left);
        announce.event = event;
        announce.uploaded = progress.uploaded;
        announce.downloaded = progress.downloaded;
        let (ip, delay) = (node.addr.ip(), self.scenario.tracker_delay + node.delay);
        let registry = &mut self.tracker.registry.0;
        let want = PeerQuery::any(PEERS_AN_ANSWER);
        let answer = registry.announce(self.now, &mut self.tracker.rng, ip, &announce, want);
        registry.expire(self.now, LOOKS_AN_ANNOUNCE);
        // A peer that leaves does not wait for the answer.
        if event != AnnounceEvent::Stopped {
            let addrs =
                |answer: AnnounceAnswer| answer.peers.into_iter().map(|peer| peer.addr).collect();
            let answer = answer.map(addrs);
            self.events.push(self.now + delay, SimEvent::Answered { node: at, answer });
        }
    }

    pub(super) fn answered(&mut self, at: usize, answer: Result<Vec<SocketAddr>, Refusal>) {
        let (now, url) = (self.now, &self.tracker.url);
        let addrs = match answer {
            Ok(peers) => {
                let reply = reply(peers);
                self.nodes[at].announcer.on_reply(now, url, &reply);
                reply.peers
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                let failure = AnnounceFailure { reason, refused: true, retry: None };
                self.nodes[at].announcer.on_failure(now, url, failure);
                Vec::new()
            }
        };
        self.tell(at, Event::Candidates { source: PeerSource::Tracker, addrs });
        if self.nodes[at].is_here() {
            self.announce(at);
        }
    }
}

fn reply(peers: Vec<SocketAddr>) -> AnnounceReply {
    AnnounceReply {
        interval: INTERVAL,
        min_interval: Some(LEAST_INTERVAL),
        complete: 0,
        incomplete: 0,
        peers,
        named: Vec::new(),
        peer_ids: Vec::new(),
        external_ip: None,
        warning: None,
        tracker_id: None,
    }
}

/// The defaults of `torrent-tracker`.
const INTERVAL: Duration = Duration::from_secs(120);
const LEAST_INTERVAL: Duration = Duration::from_secs(15);
const PEERS_AN_ANSWER: usize = 50;

/// How many peers are checked with each announce for having been silent too long.
const LOOKS_AN_ANNOUNCE: usize = 4;
