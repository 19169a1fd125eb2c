//! Calls to a torrent at work.

use std::time::Duration;

use piecework_core::BLOCK_LEN;
use piecework_swarm::{Direction, Event, PeerSource};

use super::super::entry::Call;
use super::super::wants;
use super::Run;

impl Run<'_> {
    pub(super) fn hear(&mut self, call: Call) {
        match call {
            // The caller may be gone.
            Call::Peers(reply) => drop(reply.send(self.peers())),
            Call::Have(reply) => drop(reply.send(self.swarm.have().clone())),
            Call::Availability(reply) => drop(reply.send(self.availability())),
            Call::Stage(piece, reply) => {
                let _ = reply.send(self.swarm.stage(piece));
            }
            Call::AddPeers(addrs) => {
                self.torrent.record_mut().note_peers(PeerSource::User, &addrs);
                self.tell(Event::Candidates { source: PeerSource::User, addrs });
            }
            Call::Found(source, addrs) => self.tell(Event::Candidates { source, addrs }),
            Call::Accepted(connection) => self.connected(*connection, Direction::Incoming),
            Call::Options => self.options(),
            Call::Bounds => {
                self.limits();
                self.be_patient();
            }
            Call::Blocked => self.drop_blocked(),
            // The files that are written to are the torrent's own.
            Call::Overwrite => {}
            Call::Pause => {
                // Trackers are told at once, with the latest totals.
                self.publish(true);
                self.torrent.order(Call::Pause);
            }
            call @ (Call::Resume
            | Call::Retry { .. }
            | Call::Recheck
            | Call::Surveyed(_)
            | Call::CheckSlot(_)
            | Call::StartSlot(_)
            | Call::Files(..)
            | Call::Stop(_)) => self.torrent.order(call),
        }
    }

    fn options(&mut self) {
        self.torrent.set_limits();
        self.limits();
        self.be_patient();
        let options = self.torrent.entry.options.lock().clone();
        self.tell(Event::Order { sequential: options.sequential });
        let priorities = wants::of_pieces(&self.torrent.entry.metainfo, &options.files);
        self.want(priorities);
        self.publish(true);
    }

    fn limits(&mut self) {
        let bounds = *self.torrent.means.connections.bounds.lock();
        let own = self.torrent.entry.options.lock().max_peers;
        let max_peers = own.unwrap_or(bounds.per_torrent);
        self.tell(Event::Limits { max_peers, upload_slots: bounds.upload_slots });
    }

    fn drop_blocked(&mut self) {
        let blocked: Vec<_> = self
            .links
            .iter()
            .filter(|(_, member)| self.torrent.means.connections.is_blocked(member.addr.ip()))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in blocked {
            self.links.remove(&peer);
            self.tell(Event::Disconnected { peer });
            self.changed = true;
        }
    }

    /// Tells the swarm how patient to be. Under a download limit peers wait their turn, and one
    /// that waits is not slow.
    pub(super) fn be_patient(&mut self) {
        let means = &self.torrent.means;
        let options = self.torrent.entry.options.lock();
        let (own, both) = (options.download_limit, options.session_limits);
        drop(options);
        let session = means.download.rate().filter(|_| both);
        let turns = turn(own, self.links.len()).max(turn(session, means.connections.len()));
        // Doubled, because the blocks before its own may not have come yet.
        let extra = turns * 2;
        // One peer more or less is not worth a change that makes others late.
        if extra > self.patience || extra < self.patience / 4 * 3 {
            self.patience = extra;
            self.tell(Event::Patience { extra });
        }
    }
}

/// Returns how long it takes until all of `takers` have had a chunk at `limit` bytes a second.
fn turn(limit: Option<u64>, takers: usize) -> Duration {
    limit.map_or(Duration::ZERO, |rate| {
        let chunk = (rate / 10).max(u64::from(BLOCK_LEN));
        let seconds = (takers as u64).saturating_mul(chunk).div_ceil(rate.max(1));
        Duration::from_secs(seconds.min(LONGEST_TURN))
    })
}

/// In seconds. With a limit of zero everybody waits forever anyway.
const LONGEST_TURN: u64 = 3_600;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::net::Limiter;
    use piecework_proto::wire::PIECE_HEADER_LEN;

    /// The longest time between two blocks of one of `peers` peers that always have one for us.
    async fn longest_wait(limiter: &Limiter, peers: usize) -> Duration {
        let waits = (0..peers).map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let (mut longest, mut last) = (Duration::ZERO, Instant::now());
                for _ in 0..4 {
                    limiter.take(u64::from(BLOCK_LEN) + PIECE_HEADER_LEN as u64).await;
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                longest
            })
        });
        let mut longest = Duration::ZERO;
        for wait in waits.collect::<Vec<_>>() {
            longest = longest.max(wait.await.unwrap());
        }
        longest
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_limit_of_a_few_kib_no_peer_is_late_that_waits_its_turn() {
        let usual =
            piecework_swarm::SwarmConfig::new(piecework_core::PeerId([0; 20])).request_timeout;
        for (rate, peers) in [(4 * 1024, 60), (20 * 1024, 200), (1 << 20, 50)] {
            let waited = longest_wait(&Limiter::new(Some(rate)), peers).await;
            let allowed = usual + turn(Some(rate), peers) * 2;
            assert!(waited < allowed, "{rate} B/s, {peers} peers: {waited:?}");
        }
        // Without patience they would be.
        assert!(longest_wait(&Limiter::new(Some(4 * 1024)), 60).await > usual * 5);
        assert_eq!(turn(None, 60), Duration::ZERO);
    }
}
