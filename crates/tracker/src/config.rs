//! The configuration of a tracker.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::quota::CatalogueBounds;
use piecework_core::printable;
use piecework_journal::{Journal, JournalOptions};
use piecework_registry::{ObserverConfig, RegistryConfig, Selection};

/// The `[tracker]` section of `config.toml`. Times are text with a unit (`"2m"`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// The address to listen on, for HTTP over TCP and for UDP on the same port. With port 0 the system chooses.
    pub listen: SocketAddr,
    /// The number of threads that answer datagrams, each with a socket of its own; 0 for one on each core.
    pub udp_workers: usize,
    /// PEM file of the certificate for HTTPS, at the same port; `None` (`""` in the file) takes plain HTTP
    /// only. Reloaded when it changes.
    #[serde(deserialize_with = "optional_path")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(deserialize_with = "optional_path")]
    pub certificate_key: Option<PathBuf>,
    /// Addresses and networks (`10.0.0.0/8`) of proxies. Their `X-Forwarded-For` or `Forwarded` header names the
    /// client's address.
    pub proxies: Vec<String>,
    /// The folder of the catalogue's `.torrent` files; `None` (`""` in the file) keeps them in memory.
    #[serde(deserialize_with = "optional_path")]
    pub torrents: Option<PathBuf>,
    /// The SQLite file that saves names, tokens and load for a restart; `None` (`""` in the file) saves nothing.
    #[serde(deserialize_with = "optional_path")]
    pub state: Option<PathBuf>,
    /// The maximum number of peers that are saved for a restart, in a file beside `state`; 0 saves none.
    pub kept_peers: usize,
    /// The time between a peer's announces.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// The minimum time between two announces of a peer.
    #[serde(deserialize_with = "duration")]
    pub min_interval: Duration,
    /// A peer that has not announced for the interval plus this time expires.
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
    /// The number of peers in an answer to a client that does not ask for a number.
    pub num_want: usize,
    /// The maximum number of peers in an answer. Over UDP at most one packet: 200 peers, or 66 over IPv6.
    pub max_num_want: usize,
    /// How complete peers are selected.
    pub selection: Selection,
    /// The time in which the recent handout count, by which load is balanced, halves.
    #[serde(deserialize_with = "duration")]
    pub load_half_life: Duration,
    /// Whether torrents that are not in the catalogue are tracked too.
    pub open: bool,
    /// Whether an address in the announce replaces the address of the client. Anybody can then announce any address:
    /// only for networks whose members are all trusted.
    pub trust_ip_parameter: bool,
    /// The address at which others reach peers that announce over loopback; `None` (`""` in the
    /// file) takes the one at which they reach the tracker.
    #[serde(deserialize_with = "optional_ip")]
    pub external_ip: Option<IpAddr>,
    /// Host names, besides addresses and `localhost`, under which browsers may use the catalogue; see
    /// [`SiteRule::check_shared`](piecework_http::SiteRule::check_shared).
    pub host_names: Vec<String>,
    /// The maximum number of peers of one torrent at one IPv4 address or IPv6 /64. Loopback is exempt.
    pub max_peers_per_ip: usize,
    /// The maximum number of torrents.
    pub max_torrents: usize,
    /// The approximate maximum number of torrents outside the catalogue that one IPv4 address or IPv6 /64 announced
    /// first. Loopback is exempt.
    pub max_torrents_per_ip: usize,
    /// The maximum number of peers of all torrents.
    pub max_peers: usize,
    /// The maximum number of torrents in the catalogue.
    pub max_catalogue: usize,
    /// The maximum number of bytes of the catalogue's `.torrent` files.
    pub max_catalogue_bytes: u64,
    /// The maximum number of torrents in the catalogue that one IPv4 address or IPv6 /64 registered, and never more
    /// than a quarter of the catalogue. Loopback is exempt.
    pub max_catalogue_per_ip: usize,
    /// The same for the bytes of their `.torrent` files.
    pub max_catalogue_bytes_per_ip: u64,
    /// A torrent that nobody has announced for this time may be removed when the catalogue is full.
    #[serde(deserialize_with = "duration")]
    pub catalogue_age: Duration,
    /// The file whose first line is the token that may remove any torrent. A bare name is in the folder of `state`,
    /// and unused without a state. `None` (`""` in the file) uses no token.
    #[serde(deserialize_with = "optional_path")]
    pub operator_token: Option<PathBuf>,
    /// The number of requests that `request logs` keeps.
    pub log_records: usize,
    /// The SQLite file of the journal. A bare name is in the folder of `state`, and unused without a state. `None`
    /// (`""` in the file) writes no journal.
    #[serde(deserialize_with = "optional_path")]
    pub journal: Option<PathBuf>,
    /// How long the journal keeps requests.
    #[serde(deserialize_with = "duration")]
    pub journal_age: Duration,
    /// The maximum size of the journal's file in bytes.
    pub journal_size: u64,
    /// The maximum number of HTTP connections.
    pub max_connections: usize,
    /// The maximum number of HTTP connections from one address. Loopback is exempt.
    pub max_connections_per_ip: usize,
    /// The time for the head of an HTTP request, and for which a connection may be idle.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// The time for a whole HTTP request including its body.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// Whether to connect to the peers of catalogued torrents in order to read which pieces they hold.
    pub observe: bool,
    /// The maximum number of connections to peers.
    pub observe_connections: usize,
    /// The maximum number of connections to peers of one torrent. Of a larger swarm the tracker sees a sample.
    pub observe_per_torrent: usize,
    /// The minimum time between two connections to one peer.
    #[serde(deserialize_with = "duration")]
    pub observe_pause: Duration,
}

impl TrackerConfig {
    /// Returns the configuration of a tracker that writes nothing to disk, listens on a free loopback port, and
    /// does not observe peers.
    pub fn in_memory() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            torrents: None,
            state: None,
            observe: false,
            ..Self::default()
        }
    }

    /// Returns the number of threads that answer datagrams.
    pub(super) fn udp_workers(&self) -> usize {
        match self.udp_workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
        .min(MAX_UDP_WORKERS)
    }

    /// Returns the time of silence after which a peer may be gone. It is longer than the time between two
    /// announces, and shorter than the time to expiry.
    pub(super) fn silent_after(&self) -> Duration {
        self.interval.saturating_add(self.grace / 2)
    }

    /// Returns the time until the next announce of a seed without leechers that announces over UDP, where there is
    /// no minimum interval (BEP 15). A leecher that cannot connect to the seed waits for that announce.
    ///
    /// With `peers` peers in all, such seeds together announce at most [`LONE_SEED_ANNOUNCES`] times a second, or
    /// each once in `interval`.
    pub(super) fn lone_seed_interval(&self, peers: usize) -> Duration {
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        let shared = Duration::from_secs(peers.into()) / LONE_SEED_ANNOUNCES;
        self.min_interval.max(shared).min(self.interval)
    }

    /// Returns the limits of the observer.
    pub(super) fn observer(&self) -> ObserverConfig {
        ObserverConfig {
            max_connections: self.observe_connections,
            max_per_torrent: self.observe_per_torrent,
            pause: self.observe_pause,
        }
    }

    /// Returns the options of the journal, if there is one.
    pub fn journal(&self) -> Option<JournalOptions> {
        Some(JournalOptions {
            path: self.beside_state(self.journal.as_deref()?)?,
            age: self.journal_age,
            size: self.journal_size,
            program: format!("torrent-tracker {}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Returns the file in which the peers are saved for a restart, if there is one.
    pub(super) fn peers_file(&self) -> Option<PathBuf> {
        let state = self.state.as_deref().filter(|_| self.kept_peers > 0)?;
        Some(state.with_extension("peers"))
    }

    /// Returns the file of the operator's token, if there is one.
    pub fn operator_token(&self) -> Option<PathBuf> {
        self.beside_state(self.operator_token.as_deref()?)
    }

    /// Returns the path of a file. A bare name is in the folder of the state; without a state there is no such file.
    fn beside_state(&self, file: &Path) -> Option<PathBuf> {
        let folder = self.state.as_deref().map(|state| state.parent().unwrap_or(Path::new("")));
        match folder {
            Some(folder) => JournalOptions::place(file, folder),
            None if file.components().count() == 1 && !file.is_absolute() => None,
            None => Some(file.to_owned()),
        }
    }

    /// Returns the limits of the catalogue.
    pub(super) fn bounds(&self, now: i64) -> CatalogueBounds {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        CatalogueBounds {
            torrents: self.max_catalogue,
            bytes: self.max_catalogue_bytes,
            torrents_per_network: self.max_catalogue_per_ip.min((self.max_catalogue / 4).max(1)),
            bytes_per_network: self.max_catalogue_bytes_per_ip.min(self.max_catalogue_bytes / 4),
            idle_after: seconds(self.catalogue_age),
            gone_after: seconds(self.interval.saturating_add(self.grace)),
            now,
        }
    }

    /// Returns the settings of one of `shards` registries.
    pub(super) fn registry(&self, shards: usize) -> RegistryConfig {
        RegistryConfig {
            expire_after: self.interval.saturating_add(self.grace),
            selection: self.selection,
            open: self.open,
            max_peers_per_ip: self.max_peers_per_ip,
            half_life: self.load_half_life,
            // Info-hashes are spread evenly, but not exactly.
            max_torrents: self.max_torrents.div_ceil(shards),
            // By chance one registry may get more than its share.
            max_torrents_per_ip: self.max_torrents_per_ip.div_ceil(shards) + 8,
            max_peers: self.max_peers,
            max_held_bytes: MAX_HELD_BYTES / shards,
            observe: self.observe,
        }
    }
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            udp_workers: 0,
            certificate: None,
            certificate_key: None,
            proxies: Vec::new(),
            torrents: Some("torrents".into()),
            state: Some("torrents/tracker.sqlite".into()),
            kept_peers: 100_000,
            interval: Duration::from_secs(120),
            min_interval: Duration::from_secs(15),
            grace: Duration::from_secs(60),
            num_want: 50,
            max_num_want: 200,
            selection: Selection::Balanced,
            load_half_life: Duration::from_secs(600),
            open: true,
            trust_ip_parameter: false,
            external_ip: None,
            host_names: Vec::new(),
            max_peers_per_ip: 32,
            max_torrents: 1_000_000,
            max_torrents_per_ip: 20_000,
            max_peers: 5_000_000,
            max_catalogue: 100_000,
            max_catalogue_bytes: 1 << 30,
            max_catalogue_per_ip: 1_000,
            max_catalogue_bytes_per_ip: 64 << 20,
            catalogue_age: Duration::from_secs(7 * 24 * 3600),
            operator_token: Some("tracker-operator.token".into()),
            log_records: 100_000,
            journal: Some("tracker-journal.sqlite".into()),
            journal_age: Journal::DEFAULT_AGE,
            journal_size: Journal::DEFAULT_SIZE,
            max_connections: 4_096,
            max_connections_per_ip: 256,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            observe: true,
            observe_connections: 1_000,
            observe_per_torrent: 200,
            observe_pause: Duration::from_secs(2),
        }
    }
}

/// The maximum number of threads that answer datagrams. Each may have 4 MiB of datagrams in the system's buffer.
const MAX_UDP_WORKERS: usize = 256;

/// The maximum bytes of bitfields in memory: 8,000 incomplete peers of a torrent with 2^18 pieces.
const MAX_HELD_BYTES: usize = 256 << 20;

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(text.trim()).map_err(|_| {
        serde::de::Error::custom(format_args!(
            "`{}` is not a time: write for instance 90s, 10m or 1h",
            printable(&text)
        ))
    })
}

fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn optional_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format_args!("`{}` is not an IP address", printable(&text)))
    })
}

/// The maximum number of announces per second from seeds without leechers, in addition to the regular ones.
const LONE_SEED_ANNOUNCES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_config_has_every_key_with_its_default() {
        // Keys whose default depends on the machine are commented out.
        let text = include_str!("../../../config.toml");
        let text = text.replace("\n# torrents = ", "\ntorrents = ");
        let shipped: toml::Table = text.replace("\n# state = ", "\nstate = ").parse().unwrap();
        let mut section = shipped["tracker"].as_table().unwrap().clone();
        // How the program logs is no matter of the tracker.
        section.retain(|key, _| !["log_level", "log_json", "log_file"].contains(&key));
        let keys = section.len();
        assert_eq!(section.try_into::<TrackerConfig>().unwrap(), TrackerConfig::default());
        let text = format!("{:#?}", TrackerConfig::default());
        let fields = text.lines().filter(|line| {
            line.starts_with("    ") && !line.starts_with("     ") && line.contains(": ")
        });
        assert_eq!(keys, fields.count());
    }

    /// Issue 13, line 8.
    #[test]
    fn lone_seeds_come_again_early_while_they_are_few() {
        let seconds = |config: &TrackerConfig, peers| config.lone_seed_interval(peers).as_secs();
        let config = TrackerConfig::default();
        let told = [0, 300, 600, 2_400, 5_000_000, usize::MAX].map(|peers| seconds(&config, peers));
        assert_eq!(told, [15, 15, 30, 120, 120, 120]);
        let least = Duration::from_secs(300);
        let config = TrackerConfig { min_interval: least, ..config };
        assert_eq!(seconds(&config, 1), 120, "never later than the interval");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused() {
        let error = |text| toml::from_str::<TrackerConfig>(text).unwrap_err().to_string();
        assert!(error("intervall = \"2m\"").contains("intervall"));
        assert!(error("interval = \"soon\"").contains("`soon` is not a time"));
        assert!(error("selection = \"best\"").contains("best"));
        assert!(error("external_ip = \"home\"").contains("`home`"));
    }
}
