//! Counters since the start of the tracker.

use std::sync::atomic::AtomicU64;

/// Counters since the start.
#[derive(Default)]
pub(super) struct TrackerCounters {
    pub announces_http: AtomicU64,
    pub announces_udp: AtomicU64,
    pub scrapes: AtomicU64,
    pub refused: AtomicU64,
    /// Datagrams that were not a request or had no valid connection id.
    pub udp_rejected: AtomicU64,
}
