//! `GET /metrics`: the tracker's metrics for Prometheus. See `docs/metrics.md`.

use super::service::Service;
use super::stats::Stats;
use piecework_http::metrics::{Exposition, families, process};

/// Returns the metrics of [`families::TRACKER`] and [`families::PROCESS`] in the text format.
pub(super) fn page(service: &Service) -> String {
    let stats = Stats::of(service);
    let mut page = Exposition::default();
    let announces = [("http", stats.announces_http), ("udp", stats.announces_udp)];
    page.each(&families::TRACKER_ANNOUNCES, announces);
    page.one(&families::TRACKER_SCRAPES, stats.scrapes);
    page.one(&families::TRACKER_REFUSED, stats.refused);
    page.one(&families::TRACKER_UDP_REJECTED, stats.udp_rejected);
    page.one(&families::TRACKER_PEERS, stats.peers);
    page.one(&families::TRACKER_PEER_BYTES, stats.peer_bytes);
    page.one(&families::TRACKER_EXPIRED, stats.expired);
    page.one(&families::TRACKER_TORRENTS, stats.torrents);
    page.one(&families::TRACKER_CATALOGUED, stats.catalogued);
    page.one(&families::TRACKER_CONNECTIONS, stats.http_connections);
    page.one(&families::TRACKER_HTTP_REJECTED, stats.http_rejected);
    page.one(&families::TRACKER_LOGGED, stats.requests_logged);
    page.one(&families::TRACKER_LOG_DROPPED, stats.requests_dropped);
    page.one(&families::TRACKER_HELD_BACK, stats.requests_held_back);
    page.one(&families::TRACKER_JOURNAL_WRITTEN, service.log.records().written());
    let observing = service.observation.figures();
    page.one(&families::OBSERVER_PEERS, observing.known);
    page.one(&families::OBSERVER_CONNECTIONS, observing.open);
    page.one(&families::OBSERVER_HALF_OPEN, observing.dialing);
    page.one(&families::OBSERVER_DIALS, observing.dials);
    page.one(&families::OBSERVER_FAILED, observing.failed);
    process(&mut page);
    page.finish()
}
