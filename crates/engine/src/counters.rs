//! What a session has done since it started, over all of its torrents, including those that were
//! removed.

use piecework_core::SaturatingFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use piecework_core::Moment;
use piecework_storage::PoolLoad;
use piecework_swarm::{Cause, WaitTimes};

/// Counters that only grow.
#[derive(Default)]
pub(super) struct Counters {
    pub downloaded: Counter,
    pub uploaded: Counter,
    /// Payload bytes received to no use.
    pub wasted: Counter,
    /// Received payload bytes of pieces that failed their hash.
    pub corrupt: Counter,
    pub verified: Counter,
    pub failed: Counter,
    pub banned: Counter,
    pub announced: Counter,
    pub unanswered: Counter,
    /// Microseconds that downloads have waited, for each cause.
    pub waited: [Counter; Cause::ALL.len()],
    /// The most that was ever reported for each cause.
    said: Mutex<[Duration; Cause::ALL.len()]>,
}

/// A counter that several torrents add to.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

/// Figures of a session as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFigures {
    /// Payload bytes received since it started, wasted ones included.
    pub downloaded: u64,
    /// Payload bytes sent since it started.
    pub uploaded: u64,
    /// Received payload bytes of no use: duplicate, unrequested, or wrong.
    pub wasted: u64,
    /// Received payload bytes of pieces that failed their hash.
    pub corrupt: u64,
    /// Pieces received, verified and written.
    pub pieces_verified: u64,
    /// Pieces received whole that failed their hash.
    pub pieces_failed: u64,
    /// Peers banned for a wrong block.
    pub bans: u64,
    /// Announces that a tracker answered.
    pub announces_answered: u64,
    /// Announces that failed.
    pub announces_failed: u64,
    /// Time that downloads have waited for each cause, in the order of [`Cause::ALL`]. Downloads
    /// that run side by side each count.
    pub waited: [Duration; Cause::ALL.len()],
    /// Connections to peers.
    pub connections: usize,
    /// Connections being dialled whose handshake is not done.
    pub half_open_out: usize,
    /// Accepted connections whose handshake is not done.
    pub half_open_in: usize,
    /// Torrents that download.
    pub leeching: usize,
    /// The load of the hash service.
    pub pool: PoolLoad,
}

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Adds time that a download waited for a cause.
    pub(crate) fn add_wait(&self, cause: Cause, waited: Duration) {
        self.waited[cause as usize].add(u64::saturating_from(waited.as_micros()));
    }

    /// Returns the time that downloads have waited for each cause up to `now`: what was added, and
    /// what they have waited since, as `shown` says. A change is shown up to 200 ms late: a wait
    /// that has ended meanwhile is counted up to `now`, and what was just added may be counted
    /// twice. To keep reported times from going back, no cause is ever less than before.
    pub(crate) fn waited(
        &self,
        now: Moment,
        shown: impl Iterator<Item = Arc<WaitTimes>>,
    ) -> [Duration; Cause::ALL.len()] {
        let mut waited: [Duration; Cause::ALL.len()] =
            std::array::from_fn(|at| Duration::from_micros(self.waited[at].get()));
        for waiting in shown {
            // A wait that goes on has not been added yet.
            if let Some(standing) = waiting.bottleneck() {
                waited[standing.cause as usize] += now.since(waiting.since());
            }
        }
        let mut said = self.said.lock();
        for (said, waited) in said.iter_mut().zip(waited) {
            *said = waited.max(*said);
        }
        *said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_swarm::Bottleneck;

    #[test]
    fn a_wait_that_ended_before_it_was_shown_takes_nothing_back() {
        let at = |millis| Moment::from_start(Duration::from_millis(millis));
        let cause = Cause::NoPeers as usize;
        let counters = Counters::default();
        let mut waiting = WaitTimes::new(at(0), Default::default());
        waiting.note(at(0), standing(Cause::NoPeers));
        let shown = Arc::new(waiting.clone());
        let first = counters.waited(at(150), std::iter::once(shown));
        assert_eq!(first[cause], Duration::from_millis(150));

        // It ended after 20 ms, which is shown only now.
        waiting.note(at(20), standing(Cause::Choked));
        counters.waited[cause].add(20_000);
        let shown = Arc::new(waiting);
        let next = counters.waited(at(200), std::iter::once(Arc::clone(&shown)));
        assert_eq!(next[cause], first[cause]);
        assert_eq!(next[Cause::Choked as usize], Duration::from_millis(180));

        // What is added to what was counted is not lost.
        counters.waited[cause].add(200_000);
        assert_eq!(
            counters.waited(at(500), std::iter::once(shown))[cause],
            Duration::from_millis(220)
        );
    }

    fn standing(cause: Cause) -> Option<Bottleneck> {
        Some(Bottleneck { cause, ..Bottleneck::alone(0, 0) })
    }
}
