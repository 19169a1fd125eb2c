//! What a tracker can be told.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::quota::Bounds;
use piecework_core::printable;
use piecework_journal::{Journal, JournalOptions};
use piecework_registry::{ObserverConfig, RegistryConfig, Selection};

/// The `[tracker]` section of `config.toml`. Times are text with a unit (`"2m"`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Where to listen, HTTP over TCP and UDP on the same port. With port 0 the system chooses.
    pub listen: SocketAddr,
    /// PEM file of the certificate for HTTPS, at the same port; `None` (`""` in the file) takes plain HTTP
    /// only. Read anew when it changes.
    #[serde(deserialize_with = "optional_path")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(deserialize_with = "optional_path")]
    pub certificate_key: Option<PathBuf>,
    /// Addresses and networks (`10.0.0.0/8`) of proxies: what their `X-Forwarded-For` or `Forwarded` says
    /// is where a request comes from.
    pub proxies: Vec<String>,
    /// Folder the `.torrent` files of the catalogue are kept in; `None` (`""` in the file) keeps
    /// them in memory.
    #[serde(deserialize_with = "optional_path")]
    pub torrents: Option<PathBuf>,
    /// SQLite file that keeps names, tokens and load over restarts; `None` (`""` in the file)
    /// keeps nothing.
    #[serde(deserialize_with = "optional_path")]
    pub state: Option<PathBuf>,
    /// Peers that are kept over a restart, in a file beside `state`; 0 keeps none.
    pub kept_peers: usize,
    /// Time between a peer's announces.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Least time between two of them.
    #[serde(deserialize_with = "duration")]
    pub min_interval: Duration,
    /// A peer silent for the interval and this long is gone.
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
    /// Peers given to one who does not say how many it wants.
    pub num_want: usize,
    /// Peers given at most. Over UDP never more than one packet holds: 200, or 66 over IPv6.
    pub max_num_want: usize,
    /// How complete peers are chosen.
    pub selection: Selection,
    /// Time in which the count of recent assignments, by which load is balanced, halves.
    #[serde(deserialize_with = "duration")]
    pub load_half_life: Duration,
    /// Track torrents that are not in the catalogue too.
    pub open: bool,
    /// Take a peer's address from the announce if it says one. Anybody can then announce anybody:
    /// only for networks whose members are all trusted.
    pub trust_ip_parameter: bool,
    /// The address at which others reach peers that announce over loopback; `None` (`""` in the
    /// file) takes the one at which they reach the tracker.
    #[serde(deserialize_with = "optional_ip")]
    pub external_ip: Option<IpAddr>,
    /// Names, besides addresses and `localhost`, by which browsers may ask for the catalogue; see
    /// [`SiteRule::check_shared`](piecework_http::SiteRule::check_shared).
    pub host_names: Vec<String>,
    /// Peers of one torrent from one IPv4 address or IPv6 /64; loopback is not counted.
    pub max_peers_per_ip: usize,
    /// Torrents tracked at most.
    pub max_torrents: usize,
    /// Torrents outside the catalogue that one IPv4 address or IPv6 /64 announced first, about;
    /// loopback is not counted.
    pub max_torrents_per_ip: usize,
    /// Peers of all torrents at most.
    pub max_peers: usize,
    /// Torrents in the catalogue at most.
    pub max_catalogue: usize,
    /// Bytes of the catalogue's `.torrent` files at most.
    pub max_catalogue_bytes: u64,
    /// Torrents in the catalogue that one IPv4 address or IPv6 /64 registered, and their bytes, at
    /// most, and never more than a quarter of the catalogue; loopback is not counted.
    pub max_catalogue_per_ip: usize,
    /// The same of their bytes.
    pub max_catalogue_bytes_per_ip: u64,
    /// A torrent that nobody announced for so long makes way when the catalogue is full.
    #[serde(deserialize_with = "duration")]
    pub catalogue_age: Duration,
    /// File whose first line is the token that removes any torrent; a bare name lies beside
    /// `state` (and there is none without a state); `None` (`""` in the file) is none.
    #[serde(deserialize_with = "optional_path")]
    pub operator_token: Option<PathBuf>,
    /// Requests that `request logs` remembers.
    pub log_records: usize,
    /// SQLite file of the journal; a bare name lies beside `state` (and there is none without a
    /// state); `None` (`""` in the file) is none.
    #[serde(deserialize_with = "optional_path")]
    pub journal: Option<PathBuf>,
    /// How long the journal keeps requests.
    #[serde(deserialize_with = "duration")]
    pub journal_age: Duration,
    /// Bytes of its file at most.
    pub journal_size: u64,
    /// HTTP connections at most.
    pub max_connections: usize,
    /// HTTP connections from one address at most; loopback is not counted.
    pub max_connections_per_ip: usize,
    /// Time for the head of an HTTP request; also how long a connection may idle.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// Time for a whole HTTP request, its body included.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// Connect to the peers of catalogued torrents to see which pieces they hold.
    pub observe: bool,
    /// Connections to peers at most.
    pub observe_connections: usize,
    /// Connections to peers of one torrent at most; of a larger swarm a sample is seen.
    pub observe_per_torrent: usize,
    /// Least time between two connections to one peer.
    #[serde(deserialize_with = "duration")]
    pub observe_pause: Duration,
}

impl TrackerConfig {
    /// A tracker that keeps nothing on disk, listens on a free port of the loopback interface, and
    /// connects to nobody.
    pub fn in_memory() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            torrents: None,
            state: None,
            observe: false,
            ..Self::default()
        }
    }

    /// Silence after which a peer may be gone: longer than a healthy one needs between two announces,
    /// and shorter than until it expires.
    pub(super) fn silent_after(&self) -> Duration {
        self.interval.saturating_add(self.grace / 2)
    }

    /// Time until its next announce for a seed that has nobody to give to and asks over UDP, where there is
    /// no least interval (BEP 15). A leecher that cannot connect to the seed waits for that announce.
    ///
    /// Among so many `peers`, all such seeds together announce [`LONE_SEED_ANNOUNCES`] times a second
    /// at most, or once in `interval` each.
    pub(super) fn lone_seed_interval(&self, peers: usize) -> Duration {
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        let shared = Duration::from_secs(peers.into()) / LONE_SEED_ANNOUNCES;
        self.min_interval.max(shared).min(self.interval)
    }

    /// How much is observed.
    pub(super) fn observer(&self) -> ObserverConfig {
        ObserverConfig {
            max_connections: self.observe_connections,
            max_per_torrent: self.observe_per_torrent,
            pause: self.observe_pause,
        }
    }

    /// Where and how the journal is kept, if it is.
    pub fn journal(&self) -> Option<JournalOptions> {
        Some(JournalOptions {
            path: self.beside_state(self.journal.as_deref()?)?,
            age: self.journal_age,
            size: self.journal_size,
            program: format!("torrent-tracker {}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// The file that keeps the peers over a restart, if there is one.
    pub(super) fn peers_file(&self) -> Option<PathBuf> {
        let state = self.state.as_deref().filter(|_| self.kept_peers > 0)?;
        Some(state.with_extension("peers"))
    }

    /// The file of the operator's token, if there is one.
    pub fn operator_token(&self) -> Option<PathBuf> {
        self.beside_state(self.operator_token.as_deref()?)
    }

    /// Where a file is: one with a bare name lies beside the state, if there is a state.
    fn beside_state(&self, file: &Path) -> Option<PathBuf> {
        let folder = self.state.as_deref().map(|state| state.parent().unwrap_or(Path::new("")));
        match folder {
            Some(folder) => JournalOptions::place(file, folder),
            None if file.components().count() == 1 && !file.is_absolute() => None,
            None => Some(file.to_owned()),
        }
    }

    /// What one may have of the catalogue.
    pub(super) fn bounds(&self, now: i64) -> Bounds {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Bounds {
            torrents: self.max_catalogue,
            bytes: self.max_catalogue_bytes,
            torrents_per_network: self.max_catalogue_per_ip.min((self.max_catalogue / 4).max(1)),
            bytes_per_network: self.max_catalogue_bytes_per_ip.min(self.max_catalogue_bytes / 4),
            idle_after: seconds(self.catalogue_age),
            gone_after: seconds(self.interval.saturating_add(self.grace)),
            now,
        }
    }

    /// What one of `shards` registries is to do.
    pub(super) fn registry(&self, shards: usize) -> RegistryConfig {
        RegistryConfig {
            expire_after: self.interval.saturating_add(self.grace),
            selection: self.selection,
            open: self.open,
            max_peers_per_ip: self.max_peers_per_ip,
            half_life: self.load_half_life,
            // Info-hashes are spread evenly, but not exactly.
            max_torrents: self.max_torrents.div_ceil(shards),
            // A few may fall to one of them by chance.
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

/// Reported bitfields in memory at most: 8,000 peers that are half through 2^18 pieces.
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

/// Announces a second of seeds that have nobody to give to, beside the regular ones.
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
