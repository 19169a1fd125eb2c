//! A tracker without its sockets: its parts, each of which knows only the others that it needs.

use std::sync::Arc;

use parking_lot::Mutex;

use super::access_log::AccessLog;
use super::announce_log_limit::AnnounceLogLimit;
use super::announces::Announces;
use super::catalogue::Catalogue;
use super::config::TrackerConfig;
use super::counters::TrackerCounters;
use super::feeds::Feeds;
use super::observation::Observation;
use super::operator::OperatorToken;
use super::persistence::Persistence;
use super::registration::Registration;
use super::reports::Reports;
use super::store::TrackerStore;
use super::swarm_views::MapSource;
use super::swarms::Swarms;
use piecework_clock::Clock;
use piecework_http::{Connections, Limits};
use piecework_journal::RequestLog;

/// The parts of a tracker.
pub(super) struct Service {
    pub config: Arc<TrackerConfig>,
    pub clock: Clock,
    pub catalogue: Arc<Catalogue>,
    pub swarms: Arc<Swarms>,
    pub counters: Arc<TrackerCounters>,
    pub log: Arc<AccessLog>,
    pub announces: Announces,
    pub reports: Reports,
    pub registration: Registration,
    pub persistence: Arc<Persistence>,
    pub observation: Arc<Observation>,
    pub maps: Arc<MapSource>,
    pub feeds: Arc<Feeds>,
    pub connections: Arc<Connections>,
}

/// What a tracker starts with.
pub(super) struct StartState {
    pub catalogue: Catalogue,
    pub store: Option<TrackerStore>,
    pub log: RequestLog,
    pub operator: Option<OperatorToken>,
}

impl Service {
    pub(super) fn new(config: TrackerConfig, clock: Clock, kept: StartState, seed: u64) -> Self {
        let StartState { catalogue, store, log, operator } = kept;
        let config = Arc::new(config);
        let catalogue = Arc::new(catalogue);
        let counters = Arc::<TrackerCounters>::default();
        let swarms = Arc::new(Swarms::new(&config, clock.clone(), seed));
        let log = Arc::new(AccessLog::new(log, Arc::clone(&catalogue), Arc::clone(&counters)));
        let persistence = Arc::new(Persistence::new(&config, Arc::clone(&swarms), store));
        let observation = Arc::new(Observation::new(config.observe));
        let maps = Arc::new(MapSource::new(&config, Arc::clone(&swarms)));
        let feeds = Feeds::new(Arc::clone(&maps), Arc::clone(&catalogue), Arc::clone(&log));
        let feeds = Arc::new(feeds);
        Self {
            announces: Announces {
                config: Arc::clone(&config),
                swarms: Arc::clone(&swarms),
                log: Arc::clone(&log),
                counters: Arc::clone(&counters),
                gate: Mutex::new(AnnounceLogLimit::new(2, seed)),
            },
            reports: Reports {
                catalogue: Arc::clone(&catalogue),
                swarms: Arc::clone(&swarms),
                log: Arc::clone(&log),
            },
            registration: Registration {
                config: Arc::clone(&config),
                catalogue: Arc::clone(&catalogue),
                swarms: Arc::clone(&swarms),
                persistence: Arc::clone(&persistence),
                log: Arc::clone(&log),
                feeds: Arc::clone(&feeds),
                observation: Arc::clone(&observation),
                operator,
            },
            connections: Connections::new(Limits {
                max_connections: config.max_connections,
                max_connections_per_ip: config.max_connections_per_ip,
                header_timeout: config.header_timeout,
                request_timeout: config.request_timeout,
            }),
            config,
            clock,
            catalogue,
            swarms,
            counters,
            log,
            persistence,
            observation,
            maps,
            feeds,
        }
    }

    /// Returns what cannot be written now and what was lost because of that. The operator is told the file names,
    /// everybody else is not.
    pub(super) fn notices(&self, for_operator: bool) -> Vec<String> {
        let mut notices = self.persistence.notices(for_operator);
        notices.extend(self.log.notices(for_operator));
        notices
    }

    /// Writes everything to disk and ends the threads of database and journal. Blocks.
    pub(super) fn close(&self) {
        self.persistence.close();
        self.log.records().close();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use piecework_core::InfoHash;
    use piecework_core::metainfo::MetainfoBuilder;
    use piecework_proto::announce::catalogue::RegisterOptions;

    fn from() -> SocketAddr {
        ([10, 0, 0, 1], 5000).into()
    }

    /// A tracker that observes, with one torrent and its token.
    fn service(config: TrackerConfig, unlisted: bool) -> (Service, InfoHash, String) {
        let config = TrackerConfig { observe: true, ..config };
        let kept = StartState {
            catalogue: Catalogue::in_memory(),
            store: None,
            log: RequestLog::new(10),
            operator: None,
        };
        let service = Service::new(config, Clock::manual(), kept, 1);
        let torrent = MetainfoBuilder::single_file("a", 5).build(vec![7; 20]).unwrap();
        let options = RegisterOptions { unlisted, ..RegisterOptions::default() };
        let (registered, _) = service
            .registration
            .register(from(), torrent.bytes().unwrap().as_ref(), options)
            .unwrap();
        (service, registered.info_hash, registered.token.unwrap())
    }

    #[test]
    fn a_removed_torrent_is_left_by_the_observer() {
        let (service, hash, token) = service(TrackerConfig::in_memory(), false);
        service.registration.set_observe(hash, Some(&token), false).unwrap();
        service.registration.set_observe(hash, Some(&token), false).unwrap();
        assert_eq!(service.observation.take_left().len(), 1, "repeats do not queue");
        assert!(service.registration.remove(from(), hash, None).is_err());
        assert!(service.observation.take_left().is_empty());
        service.registration.remove(from(), hash, Some(&token)).unwrap();
        assert!(service.observation.take_left().contains(&hash));
    }
}
