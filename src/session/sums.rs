//! What a session has done since it started, over all its torrents, those that are gone included.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::shared::Shared;
use crate::storage::PoolLoad;
use crate::swarm::Cause;

/// Sums that only grow.
#[derive(Default)]
pub(super) struct Sums {
    /// Payload bytes.
    pub downloaded: Sum,
    pub uploaded: Sum,
    /// Received bytes that were of no use.
    pub wasted: Sum,
    /// Received bytes of pieces that failed their hash.
    pub corrupt: Sum,
    /// Pieces.
    pub verified: Sum,
    pub failed: Sum,
    /// Peers.
    pub banned: Sum,
    /// Announces.
    pub announced: Sum,
    pub unanswered: Sum,
    /// Microseconds that downloads waited for each cause.
    pub waited: [Sum; Cause::ALL.len()],
}

/// A sum that several torrents add to.
#[derive(Default)]
pub(super) struct Sum(AtomicU64);

/// How a session does as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFigures {
    /// Payload bytes received since it started, wasted ones included.
    pub downloaded: u64,
    /// Payload bytes sent since it started.
    pub uploaded: u64,
    /// Received payload bytes that were of no use: they came twice, unasked, or wrong.
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
    /// Time that downloads spent on each cause, in the order of [`Cause::ALL`]; downloads that run
    /// side by side count each.
    pub waited: [Duration; Cause::ALL.len()],
    /// Connections to peers.
    pub connections: usize,
    /// Connections being dialled whose handshake is not done.
    pub half_open_out: usize,
    /// Accepted connections whose handshake is not done.
    pub half_open_in: usize,
    /// Torrents that download.
    pub leeching: usize,
    /// What the hash service has to do.
    pub pool: PoolLoad,
}

impl Sum {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub fn figures(&self) -> SessionFigures {
        let sums = &self.sums;
        let mut waited = std::array::from_fn(|at| Duration::from_micros(sums.waited[at].get()));
        let now = self.now();
        for entry in self.entries() {
            // What has not been added yet, because nothing happens where one waits.
            if let Some(waiting) = entry.waiting()
                && let Some(standing) = waiting.standing()
            {
                waited[standing.cause as usize] += now.since(waiting.since());
            }
        }
        let taken = |semaphore: &tokio::sync::Semaphore| {
            self.config.max_half_open.saturating_sub(semaphore.available_permits())
        };
        SessionFigures {
            downloaded: sums.downloaded.get(),
            uploaded: sums.uploaded.get(),
            wasted: sums.wasted.get(),
            corrupt: sums.corrupt.get(),
            pieces_verified: sums.verified.get(),
            pieces_failed: sums.failed.get(),
            bans: sums.banned.get(),
            announces_answered: sums.announced.get(),
            announces_failed: sums.unanswered.get(),
            waited,
            connections: self.connections(),
            half_open_out: taken(&self.dialing),
            half_open_in: taken(&self.accepting),
            leeching: *self.leeching.borrow(),
            pool: self.hashing.load(),
        }
    }
}
