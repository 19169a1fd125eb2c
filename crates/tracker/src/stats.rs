//! The tracker's statistics.

use serde::Serialize;

use super::service::Service;

/// Answer to `GET /stats`.
#[derive(Serialize)]
pub(super) struct Stats {
    pub version: &'static str,
    pub uptime_seconds: u64,
    pub catalogued: usize,
    pub torrents: usize,
    pub peers: usize,
    pub peer_bytes: usize,
    pub expired: u64,
    pub unreachable: u64,
    pub announces_http: u64,
    pub announces_udp: u64,
    pub scrapes: u64,
    pub refused: u64,
    pub udp_rejected: u64,
    pub http_rejected: u64,
    pub http_connections: u64,
    /// Bytes of answers that clients have not read yet.
    pub http_answer_bytes: usize,
    pub requests_logged: usize,
    pub requests_dropped: u64,
    pub requests_held_back: u64,
    pub notices: Vec<String>,
}

impl Stats {
    pub(super) fn of(service: &Service) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let registry = service.swarms.stats();
        let counters = &service.counters;
        let log = service.log.records();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: service.swarms.started().elapsed().unwrap_or_default().as_secs(),
            catalogued: service.catalogue.len(),
            torrents: registry.torrents,
            peers: registry.peers,
            peer_bytes: registry.peer_bytes,
            expired: registry.expired,
            unreachable: registry.unreachable,
            announces_http: counters.announces_http.load(Relaxed),
            announces_udp: counters.announces_udp.load(Relaxed),
            scrapes: counters.scrapes.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            udp_rejected: counters.udp_rejected.load(Relaxed),
            http_rejected: service.connections.rejected(),
            http_connections: service.connections.open(),
            http_answer_bytes: service.connections.answer_bytes(),
            requests_logged: log.len(),
            requests_dropped: log.dropped(),
            requests_held_back: log.held_back(),
            notices: service.notices(false),
        }
    }
}
