//! `config.toml`: the file overrides defaults, environment variables override the file, flags
//! override both.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use piecework_api::Encryption;
use piecework_core::printable;
use piecework_daemon::encryption_policy;
use piecework_engine::{DhtOptions, SessionConfig};
use piecework_journal::{Journal, JournalOptions, PieceLog};
use piecework_storage::INCOMPLETE_SUFFIX;
use piecework_swarm::ChokePolicy;
use piecework_swarm::announcer::TierPolicy;
use piecework_tracker::TrackerConfig;

use super::config_keys::{MisplacedKey, is_ours, misplaced};
use super::daemon::DaemonSection;
use super::default_paths::DefaultPaths;
use super::format::{RateLimit, parse_duration, parse_rate, parse_size, shown};
use super::{CliError, Env, LogConfig};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `torrent-peer`.
    pub peer: PeerConfig,
    /// `torrent-tracker`, parsed by the tracker itself.
    pub tracker: toml::Table,
    /// `torrent-daemon` and its tools.
    pub daemon: DaemonSection,
}

/// The `[peer]` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerConfig {
    /// Address to accept peers on. If its port is taken, the next free one is used.
    pub listen: SocketAddr,
    /// Whether to listen on IPv6 in addition to `0.0.0.0`, and on IPv4 in addition to `[::]`.
    pub both_families: bool,
    /// The tracker that `get NAME` asks when none is given.
    pub tracker: String,
    /// Folder for downloads.
    pub downloads: PathBuf,
    /// Folder for `.torrent` files.
    pub torrents: PathBuf,
    /// Suffix of the names of unfinished files. Empty for none.
    pub incomplete_suffix: String,
    /// Whether disk space is reserved when a download begins.
    pub reserve: Reserve,
    /// How long `get` waits for a first peer before it gives up.
    #[serde(deserialize_with = "duration")]
    pub nobody_timeout: Duration,
    /// Whom swarms serve.
    pub choke: Choke,
    /// Which connections to peers are encrypted.
    pub encryption: Encryption,
    /// Whether peers name other peers to each other.
    pub peer_exchange: bool,
    /// Whether torrents are announced on the local network.
    pub local_discovery: bool,
    /// Peers served at a time by one torrent under `tit-for-tat`.
    pub upload_slots: usize,
    /// Maximum bytes a second sent.
    #[serde(deserialize_with = "rate")]
    pub upload_limit: RateLimit,
    /// Maximum bytes a second received.
    #[serde(deserialize_with = "rate")]
    pub download_limit: RateLimit,
    /// Maximum connections of one torrent.
    pub max_peers_per_torrent: usize,
    /// Maximum connections in total.
    pub max_connections: usize,
    /// Connections of one torrent that an address keeps while others wait for a place.
    pub max_peers_per_ip: usize,
    /// The same for the connections of all torrents.
    pub max_connections_per_ip: usize,
    /// Factor for addresses in private networks, which keep more connections.
    pub local_share: usize,
    /// Maximum connections in total whose handshake is not done, for each direction.
    pub max_half_open: usize,
    /// Maximum bytes of unfinished pieces in memory.
    #[serde(deserialize_with = "bytes")]
    pub memory: u64,
    /// Threads that hash and write. 0 means one for each core.
    pub hash_threads: usize,
    /// Maximum open files. 0 means as many as the process may have.
    pub open_files: usize,
    /// Whether to tell our trackers which pieces we hold.
    pub report_holdings: bool,
    /// Whether to announce to a tracker of every tier, not only of the first that answers.
    pub announce_all_tiers: bool,
    /// Whether to announce to trackers in private networks that only a `.torrent` names.
    pub private_trackers: bool,
    /// Whether to find peers of public torrents over the DHT.
    pub dht: bool,
    /// Nodes of the DHT to begin at, as `HOST:PORT`.
    pub dht_bootstrap: Vec<String>,
    /// The name of a network that is separate from the public one. Empty for the public one.
    pub dht_network: String,
    /// Whether files keep the unmodified names of the torrent, even if they could harm a terminal.
    pub raw_names: bool,
    /// Maximum time for a peer's handshake.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// Maximum time to connect to a peer.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Responses that `request logs` shows, and that are remembered if there is no journal.
    pub log_records: usize,
    /// SQLite file of the journal. A bare name is in `torrents`. Empty for none.
    #[serde(deserialize_with = "journal")]
    pub journal: PathBuf,
    /// Maximum age of the journal's rows.
    #[serde(deserialize_with = "duration")]
    pub journal_age: Duration,
    /// Maximum bytes of the journal's file.
    #[serde(deserialize_with = "bytes")]
    pub journal_size: u64,
    /// What to log: a level, or a filter.
    pub log_level: String,
    /// Whether to log JSON.
    pub log_json: bool,
    /// The file to log to in addition to stderr. Empty for none.
    pub log_file: PathBuf,
}

/// Whom swarms serve, as written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choke {
    /// The best givers and one optimistic unchoke: for the internet.
    TitForTat,
    /// Everybody: for one's own machines.
    Closed,
}

impl Config {
    /// Loads the configuration of this run: the file named by `--config` or `PIECEWORK_CONFIG`,
    /// else the first existing one of those that [`DefaultPaths`] names. Environment variables override
    /// it.
    ///
    /// # Errors If a named file cannot be read, or if the file or a variable is not valid.
    pub fn load(env: &Env, named: Option<&Path>) -> Result<Self, CliError> {
        Ok(Sources::find(env, named)?.config)
    }

    /// Parses TOML text.
    ///
    /// # Errors If the text is not TOML, or has an unknown key or a value that is not valid.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Parses the file `path`. Returns its configuration and its keys.
    fn parse_file(path: &Path, text: &str) -> Result<(Self, toml::Table), CliError> {
        let wrong = |at: usize, what: &str| {
            let before = &text.as_bytes()[..at.min(text.len())];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            CliError::usage(format_args!(
                "the configuration `{}` is not valid in line {line}: {what}",
                shown(path)
            ))
        };
        // Serde knows the keys of a section, but not the section of a key.
        if let Some(MisplacedKey { at, what }) = misplaced(text) {
            return Err(wrong(at, &what));
        }
        let parsed = Self::parse(text).and_then(|config| Ok((config, toml::from_str(text)?)));
        parsed.map_err(|error| {
            wrong(error.span().map_or(0, |span| span.start), &printable(error.message()))
        })
    }
}

/// The configuration of a run, and its sources.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) config: Config,
    /// Every file that was searched for.
    pub(super) files: Vec<(PathBuf, ConfigFileState)>,
    /// The keys of the file.
    given: toml::Table,
}

/// The result of the search for a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigFileState {
    /// It is used.
    Read,
    NotThere,
    /// It is in the working directory and belongs to another program.
    NotOurs,
    /// This user may not read it.
    Unreadable,
    /// Another file is used.
    NotNeeded,
}

impl Sources {
    /// Does the work of [`Config::load`].
    pub(super) fn find(env: &Env, named: Option<&Path>) -> Result<Self, CliError> {
        let default_paths = DefaultPaths::find(env);
        let named = named.or_else(|| env.var("PIECEWORK_CONFIG").map(Path::new));
        let mut files = Vec::new();
        let mut text = None;
        let looked_for = match named {
            Some(path) => vec![path.to_owned()],
            None => default_paths.configs.clone(),
        };
        for path in looked_for {
            let found = match (&text, look(env, &path, named.is_some())?) {
                (Some(_), _) => ConfigFileState::NotNeeded,
                (None, Ok(read)) => {
                    text = Some((path.clone(), read));
                    ConfigFileState::Read
                }
                (None, Err(found)) => found,
            };
            files.push((path, found));
        }
        let (mut config, given) = match text {
            Some((path, text)) => Config::parse_file(&path, &text)?,
            None => Default::default(),
        };
        let sources = Self { config: Config::default(), files, given };
        let DefaultPaths {
            torrents, downloads, daemon_state, tracker_torrents, tracker_state, ..
        } = default_paths;
        for (section, key, place, usual) in [
            ("peer", "torrents", &mut config.peer.torrents, torrents),
            ("peer", "downloads", &mut config.peer.downloads, downloads),
            ("daemon", "state", &mut config.daemon.state, daemon_state),
        ] {
            if !sources.has(section, key) {
                *place = usual;
            }
        }
        let usual = TrackerConfig::default();
        for (key, place, usual) in
            [("torrents", tracker_torrents, usual.torrents), ("state", tracker_state, usual.state)]
        {
            // Values from the environment are UTF-8.
            let text = place.to_str().filter(|_| usual.as_ref() != Some(&place));
            if let Some(text) = text.filter(|_| !sources.has("tracker", key)) {
                config.tracker.insert(key.to_owned(), text.into());
            }
        }
        config.peer.apply(env)?;
        config.daemon.apply(env)?;
        Ok(Self { config, ..sources })
    }

    /// Returns whether the file has `key`.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        let section = self.given.get(section).and_then(toml::Value::as_table);
        section.is_some_and(|section| section.contains_key(key))
    }
}

/// Returns the text of a configuration file, or why it is not used.
fn look(
    env: &Env,
    path: &Path,
    is_named: bool,
) -> Result<Result<String, ConfigFileState>, CliError> {
    let is_here = path.is_relative();
    match std::fs::read_to_string(env.path(path)) {
        Ok(text) if is_named || !is_here || is_ours(&text) => Ok(Ok(text)),
        Ok(_) => Ok(Err(ConfigFileState::NotOurs)),
        Err(error) if is_named => Err(cannot_be_read(path, &error)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Err(ConfigFileState::NotThere))
        }
        // Other users need not be able to read a service's configuration.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_here => {
            Ok(Err(ConfigFileState::Unreadable))
        }
        Err(error) => Err(cannot_be_read(path, &error)),
    }
}

fn cannot_be_read(path: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format_args!("the configuration `{}` cannot be read: {error}", shown(path)))
}

impl PeerConfig {
    /// Returns the logging options.
    pub fn log(&self) -> LogConfig {
        LogConfig {
            level: self.log_level.clone(),
            json: self.log_json,
            file: self.log_file.clone(),
        }
    }

    /// Returns the configuration of the engine, without an address to listen on.
    pub fn session(&self) -> SessionConfig {
        let defaults = SessionConfig::default();
        SessionConfig {
            both_families: self.both_families,
            choke: match self.choke {
                Choke::TitForTat => ChokePolicy::TitForTat,
                Choke::Closed => ChokePolicy::Closed,
            },
            encryption: encryption_policy(self.encryption),
            peer_exchange: self.peer_exchange,
            local_discovery: self.local_discovery,
            upload_slots: self.upload_slots,
            max_peers_per_torrent: self.max_peers_per_torrent,
            max_connections: self.max_connections,
            max_peers_per_ip: self.max_peers_per_ip,
            max_connections_per_ip: self.max_connections_per_ip,
            local_share: self.local_share,
            max_half_open: self.max_half_open,
            upload_limit: self.upload_limit.0,
            download_limit: self.download_limit.0,
            memory_budget: self.memory,
            hash_threads: match self.hash_threads {
                0 => defaults.hash_threads,
                threads => threads,
            },
            open_files: self.open_files,
            reserve: self.reserve == Reserve::Full,
            report_holdings: self.report_holdings,
            tier_policy: match self.announce_all_tiers {
                true => TierPolicy::All,
                false => TierPolicy::First,
            },
            private_trackers: self.private_trackers,
            dht: self.dht.then(|| DhtOptions {
                bootstrap: self.dht_bootstrap.clone(),
                network: Some(self.dht_network.clone()).filter(|name| !name.is_empty()),
                table: None,
            }),
            raw_names: self.raw_names,
            handshake_timeout: self.handshake_timeout,
            connect_timeout: self.connect_timeout,
            ..defaults
        }
    }

    /// Returns the options of a program's journal, or `None` for no journal. The journal is in
    /// `folder` unless `file` names a folder.
    pub fn journal(
        &self,
        env: &Env,
        file: &Path,
        folder: &Path,
        program: &str,
    ) -> Option<JournalOptions> {
        Some(JournalOptions {
            path: env.path(JournalOptions::place(file, folder)?),
            age: self.journal_age,
            size: self.journal_size,
            program: format!("{program} {}", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Applies environment variables, which override the file.
    fn apply(&mut self, env: &Env) -> Result<(), CliError> {
        set(env, "PIECEWORK_LISTEN", &mut self.listen, |text| {
            text.parse().map_err(|_| format!("`{}` is not an IP:PORT address", printable(text)))
        })?;
        set(env, "PIECEWORK_TRACKER", &mut self.tracker, |text| Ok(text.to_owned()))?;
        set(env, "PIECEWORK_DOWNLOADS", &mut self.downloads, |text| Ok(text.into()))?;
        set(env, "PIECEWORK_TORRENTS", &mut self.torrents, |text| Ok(text.into()))?;
        set(env, "PIECEWORK_UPLOAD_LIMIT", &mut self.upload_limit, parse_rate)?;
        set(env, "PIECEWORK_DOWNLOAD_LIMIT", &mut self.download_limit, parse_rate)?;
        set(env, "PIECEWORK_JOURNAL", &mut self.journal, |text| Ok(journal_named(text)))?;
        set(env, "PIECEWORK_NOBODY_TIMEOUT", &mut self.nobody_timeout, parse_duration)
    }
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 6881)),
            both_families: true,
            tracker: "127.0.0.1:8000".to_owned(),
            downloads: "downloads".into(),
            torrents: "torrents".into(),
            incomplete_suffix: INCOMPLETE_SUFFIX.to_owned(),
            reserve: Reserve::None,
            nobody_timeout: Duration::from_secs(12),
            choke: Choke::TitForTat,
            encryption: Encryption::Allow,
            peer_exchange: true,
            local_discovery: true,
            upload_slots: 8,
            upload_limit: RateLimit(None),
            download_limit: RateLimit(None),
            max_peers_per_torrent: 80,
            max_connections: 1_000,
            max_peers_per_ip: 8,
            max_connections_per_ip: 100,
            local_share: 8,
            max_half_open: 100,
            memory: 64 << 20,
            hash_threads: 0,
            open_files: 0,
            report_holdings: true,
            announce_all_tiers: true,
            private_trackers: false,
            dht: false,
            dht_bootstrap: Vec::new(),
            dht_network: String::new(),
            raw_names: false,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            log_records: PieceLog::DEFAULT_CAPACITY,
            journal: "journal.sqlite".into(),
            journal_age: Journal::DEFAULT_AGE,
            journal_size: Journal::DEFAULT_SIZE,
            log_level: "warn".to_owned(),
            log_json: false,
            log_file: PathBuf::new(),
        }
    }
}

/// Disk space that a download reserves when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reserve {
    /// None. Files grow as pieces arrive.
    None,
    /// All that it needs.
    Full,
}

/// Replaces a value of the file by an environment variable.
pub(super) fn set<T>(
    env: &Env,
    key: &str,
    place: &mut T,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), CliError> {
    if let Some(text) = env.var(key) {
        *place = parse(text).map_err(|error| CliError::usage(format_args!("{key}: {error}")))?;
    }
    Ok(())
}

/// A number of bytes, or text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(String),
}

impl Quantity {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Quantity::deserialize(deserializer)?.text();
    parse_size(&text).map_err(serde::de::Error::custom)
}

/// Reads bytes a second, or `none`.
pub(super) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RateLimit, D::Error> {
    let text = Quantity::deserialize(deserializer)?.text();
    parse_rate(&text).map_err(serde::de::Error::custom)
}

/// Returns the path of a journal. `none` and an empty text mean no journal.
pub(super) fn journal_named(text: &str) -> PathBuf {
    if text == "none" { PathBuf::new() } else { text.into() }
}

pub(super) fn journal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(journal_named(&String::deserialize(deserializer)?))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::Output;
    use super::*;

    fn env_in(dir: &Path) -> Env {
        let (stdout, _) = Output::captured();
        Env::new("test", Vec::<String>::new(), dir, stdout.clone(), stdout)
    }

    /// Returns the shipped configuration, including the keys whose default depends on the machine.
    fn whole() -> String {
        let lines = include_str!("../../config.toml").lines();
        let lines = lines.map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if ["torrents = ", "downloads = ", "state = "]
                    .iter()
                    .any(|key| rest.starts_with(key)) =>
            {
                rest
            }
            _ => line,
        });
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn shipped_config_equals_the_defaults() {
        let shipped = Config::parse(&whole()).unwrap();
        assert_eq!(shipped.peer, PeerConfig::default());
        assert_eq!(shipped.daemon, DaemonSection::default());
    }

    #[test]
    fn every_key_is_in_the_shipped_config() {
        let shipped: toml::Table = whole().parse().unwrap();
        // Debug of a struct writes `name: ` once for each field of its own at this indent.
        let fields = |text: String| {
            let is_field = |line: &&str| {
                line.starts_with("    ") && !line.starts_with("     ") && line.contains(": ")
            };
            text.lines().filter(is_field).count()
        };
        let keys = |section: &str| shipped[section].as_table().unwrap().len();
        assert_eq!(keys("peer"), fields(format!("{:#?}", PeerConfig::default())));
        assert_eq!(keys("daemon"), fields(format!("{:#?}", DaemonSection::default())));
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "[peer]\nlisten = \"[::]:1\"\nslots = 4\n")
            .unwrap();
        let error = Config::load(&env_in(dir.path()), None).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
        assert!(error.to_string().contains("slots"), "{error}");
        assert_eq!(error.exit(), super::super::Exit::Usage);
    }

    #[test]
    fn variables_go_above_the_file_and_the_file_above_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.toml"),
            "[peer]\ntracker = \"10.0.0.1:1\"\nmemory = \"8MiB\"\nupload_limit = 1024\n",
        )
        .unwrap();
        let env = env_in(dir.path()).with_var("PIECEWORK_TRACKER", "10.0.0.2:2");
        let peer = Config::load(&env, None).unwrap().peer;
        assert_eq!(peer.tracker, "10.0.0.2:2");
        assert_eq!(peer.memory, 8 << 20);
        assert_eq!(peer.upload_limit, RateLimit(Some(1024)));
        assert_eq!(peer.listen, PeerConfig::default().listen);
    }

    #[test]
    fn a_config_of_another_program_is_left_alone_unless_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "title = \"a blog\"\n").unwrap();
        assert_eq!(Config::load(&env_in(dir.path()), None).unwrap(), Config::default());
        assert!(Config::load(&env_in(dir.path()), Some(&path)).is_err());
        let missing = dir.path().join("none.toml");
        assert!(Config::load(&env_in(dir.path()), Some(&missing)).is_err());
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let env = env_in(Path::new("/")).with_var("PIECEWORK_UPLOAD_LIMIT", "fast");
        let error = Config::load(&env, None).unwrap_err().to_string();
        assert!(error.starts_with("PIECEWORK_UPLOAD_LIMIT: `fast`"), "{error}");
    }

    #[test]
    fn line_15_the_first_configuration_there_is_holds() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let folder = home.join(".config/piecework");
        std::fs::create_dir_all(&folder).unwrap();
        let env = || env_in(dir.path()).with_var("HOME", home.to_str().unwrap());
        let memory = || Config::load(&env(), None).unwrap().peer.memory;
        let torrents = || Config::load(&env(), None).unwrap().peer.torrents;
        assert_eq!(memory(), 64 << 20);
        assert_eq!(torrents(), home.join(".local/share/piecework/torrents"));
        std::fs::write(folder.join("config.toml"), "[peer]\nmemory = 1\ntorrents = \"~/t\"\n")
            .unwrap();
        assert_eq!(memory(), 1);
        assert_eq!(env().path(torrents()), home.join("t"));
        std::fs::write(dir.path().join("config.toml"), "title = \"a blog\"\n").unwrap();
        assert_eq!(memory(), 1);
        std::fs::write(dir.path().join("config.toml"), "[peer]\nmemory = 2\n").unwrap();
        assert_eq!(memory(), 2);
        assert_eq!(torrents(), home.join(".local/share/piecework/torrents"));
        let found = Sources::find(&env(), None).unwrap().files;
        let found: Vec<ConfigFileState> = found.into_iter().map(|(_, found)| found).collect();
        assert_eq!(found[..2], [ConfigFileState::Read, ConfigFileState::NotNeeded]);
    }

    #[test]
    fn line_15_a_slip_of_the_pen_is_an_error_wherever_the_file_lies() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let folder = home.join(".config/piecework");
        std::fs::create_dir_all(&folder).unwrap();
        for (path, text, line, names) in [
            (dir.path().join("config.toml"), "[demon]\nstart_added = true\n", 1, "[daemon]"),
            (dir.path().join("config.toml"), "[daemon]\n\ndownloads = \"x\"\n", 3, "[peer]"),
            (folder.join("config.toml"), "[sharing]\nx = 1\n", 1, "[peer]"),
            // Programs that do not read the section report this error too.
            (folder.join("config.toml"), "[tracker]\nintervall = 1\n", 2, "`interval`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let env = env_in(dir.path()).with_var("HOME", home.to_str().unwrap());
            let error = Config::load(&env, None).unwrap_err();
            assert_eq!(error.exit(), super::super::Exit::Usage);
            let error = error.to_string();
            assert!(error.contains(&format!("line {line}: ")) && error.contains(names), "{error}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
