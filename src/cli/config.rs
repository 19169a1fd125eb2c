//! `config.toml`: defaults, below the file, below environment variables, below flags.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use piecework_api::Encryption;
use piecework_core::printable;
use piecework_daemon::encryption_policy;
use piecework_engine::SessionConfig;
use piecework_journal::{Journal, JournalOptions, PieceLog};
use piecework_storage::INCOMPLETE_SUFFIX;
use piecework_swarm::ChokePolicy;
use piecework_swarm::announcer::TierPolicy;
use piecework_tracker::TrackerConfig;

use super::config_keys::{Misplaced, is_ours, misplaced};
use super::daemon::DaemonSection;
use super::format::{RateLimit, parse_duration, parse_rate, parse_size, shown};
use super::places::Places;
use super::{CliError, Env, LogConfig};

/// All that can be configured.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `torrent-peer`.
    pub peer: PeerConfig,
    /// `torrent-tracker`, read by the tracker itself.
    pub tracker: toml::Table,
    /// `torrent-daemon`, and where its tools find it.
    pub daemon: DaemonSection,
}

/// The `[peer]` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerConfig {
    /// Address to accept peers on. If its port is taken, the next free one is used.
    pub listen: SocketAddr,
    /// Whether IPv6 is listened on beside `0.0.0.0`, and IPv4 beside `[::]`.
    pub both_families: bool,
    /// The tracker that `get NAME` asks when none is given.
    pub tracker: String,
    /// Folder that downloads go to.
    pub downloads: PathBuf,
    /// Folder that `.torrent` files are kept in.
    pub torrents: PathBuf,
    /// What the names of unfinished files end with; empty for nothing.
    pub incomplete_suffix: String,
    /// Whether the room of a download is reserved when it begins.
    pub reserve: Reserve,
    /// How long `get` waits for a first peer before it gives up.
    #[serde(deserialize_with = "duration")]
    pub nobody_timeout: Duration,
    /// Whom swarms serve.
    pub choke: Choke,
    /// Which connections to peers are encrypted.
    pub encryption: Encryption,
    /// Peers served at a time by one torrent under `tit-for-tat`.
    pub upload_slots: usize,
    /// Bytes a second sent at most.
    #[serde(deserialize_with = "rate")]
    pub upload_limit: RateLimit,
    /// Bytes a second taken at most.
    #[serde(deserialize_with = "rate")]
    pub download_limit: RateLimit,
    /// Connections of one torrent at most.
    pub max_peers_per_torrent: usize,
    /// Connections in all at most.
    pub max_connections: usize,
    /// Connections of one torrent that an address keeps although others wait for a place.
    pub max_peers_per_ip: usize,
    /// The same for the connections of all torrents.
    pub max_connections_per_ip: usize,
    /// How many times as much an address of a private network keeps.
    pub local_share: usize,
    /// Connections in all whose handshake is not done, at most, each way.
    pub max_half_open: usize,
    /// Bytes of unfinished pieces in memory at most.
    #[serde(deserialize_with = "bytes")]
    pub memory: u64,
    /// Threads that hash and write; 0 is one a core.
    pub hash_threads: usize,
    /// Open files at most; 0 is as many as suits the process.
    pub open_files: usize,
    /// Tell our trackers which pieces we hold.
    pub report_holdings: bool,
    /// Announce to a tracker of every tier, not only of the first that answers.
    pub announce_all_tiers: bool,
    /// Announce also to trackers in private networks that only a `.torrent` names.
    pub private_trackers: bool,
    /// Give files the names that torrents give them, whatever these do to a terminal.
    pub raw_names: bool,
    /// Time a peer has for its handshake.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// Time a dial may take.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Responses that `request logs` shows, and remembers where no journal is kept.
    pub log_records: usize,
    /// SQLite file of the journal; a bare name lies in `torrents`, an empty one is none.
    #[serde(deserialize_with = "journal")]
    pub journal: PathBuf,
    /// How long the journal keeps what it has.
    #[serde(deserialize_with = "duration")]
    pub journal_age: Duration,
    /// Bytes of its file at most.
    #[serde(deserialize_with = "bytes")]
    pub journal_size: u64,
    /// What is logged: a level, or a filter.
    pub log_level: String,
    /// As JSON.
    pub log_json: bool,
    /// The file that is logged to besides stderr; an empty path is none.
    pub log_file: PathBuf,
}

/// Whom swarms serve, as it is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choke {
    /// The best givers and one optimistic unchoke: for the internet.
    TitForTat,
    /// Everybody: for one's own machines.
    Closed,
}

impl Config {
    /// The configuration of this run: the file named by `--config` or `PIECEWORK_CONFIG`, else the first
    /// there is of those that [`Places`] names; environment variables above.
    ///
    /// # Errors
    /// If a file that was named cannot be read, or anything in it or in a variable is not valid.
    pub fn load(env: &Env, named: Option<&Path>) -> Result<Self, CliError> {
        Ok(Sources::find(env, named)?.config)
    }

    /// Reads TOML text.
    ///
    /// # Errors
    /// On text that is not TOML, a key there is not, or a value that is not valid.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What the file `path` says, and which keys it has.
    fn parse_file(path: &Path, text: &str) -> Result<(Self, toml::Table), CliError> {
        let wrong = |at: usize, what: &str| {
            let before = &text.as_bytes()[..at.min(text.len())];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            CliError::usage(format_args!(
                "the configuration `{}` is not valid in line {line}: {what}",
                shown(path)
            ))
        };
        // Serde knows what there is in a section, and not in which one a key stands.
        if let Some(Misplaced { at, what }) = misplaced(text) {
            return Err(wrong(at, &what));
        }
        let parsed = Self::parse(text).and_then(|config| Ok((config, toml::from_str(text)?)));
        parsed.map_err(|error| {
            wrong(error.span().map_or(0, |span| span.start), &printable(error.message()))
        })
    }
}

/// The configuration of a run, and where it is from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) config: Config,
    /// Every file that was looked for.
    pub(super) files: Vec<(PathBuf, Found)>,
    /// What the file has.
    given: toml::Table,
}

/// What became of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It holds.
    Read,
    NotThere,
    /// It lies in the working directory and is another program's.
    NotOurs,
    /// This user may not read it.
    Unreadable,
    /// Another one holds.
    NotNeeded,
}

impl Sources {
    /// As [`Config::load`].
    pub(super) fn find(env: &Env, named: Option<&Path>) -> Result<Self, CliError> {
        let places = Places::find(env);
        let named = named.or_else(|| env.var("PIECEWORK_CONFIG").map(Path::new));
        let mut files = Vec::new();
        let mut text = None;
        let looked_for = match named {
            Some(path) => vec![path.to_owned()],
            None => places.configs.clone(),
        };
        for path in looked_for {
            let found = match (&text, look(env, &path, named.is_some())?) {
                (Some(_), _) => Found::NotNeeded,
                (None, Ok(read)) => {
                    text = Some((path.clone(), read));
                    Found::Read
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
        let Places { torrents, downloads, daemon_state, tracker_torrents, tracker_state, .. } =
            places;
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
            // What was read from the environment is UTF-8.
            let text = place.to_str().filter(|_| usual.as_ref() != Some(&place));
            if let Some(text) = text.filter(|_| !sources.has("tracker", key)) {
                config.tracker.insert(key.to_owned(), text.into());
            }
        }
        config.peer.apply(env)?;
        config.daemon.apply(env)?;
        Ok(Self { config, ..sources })
    }

    /// Whether the file has `key`.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        let section = self.given.get(section).and_then(toml::Value::as_table);
        section.is_some_and(|section| section.contains_key(key))
    }
}

/// The text of a configuration file, or why it does not hold.
fn look(env: &Env, path: &Path, is_named: bool) -> Result<Result<String, Found>, CliError> {
    let is_here = path.is_relative();
    match std::fs::read_to_string(env.path(path)) {
        Ok(text) if is_named || !is_here || is_ours(&text) => Ok(Ok(text)),
        Ok(_) => Ok(Err(Found::NotOurs)),
        Err(error) if is_named => Err(cannot_be_read(path, &error)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Err(Found::NotThere))
        }
        // A service's is no matter of other users.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_here => {
            Ok(Err(Found::Unreadable))
        }
        Err(error) => Err(cannot_be_read(path, &error)),
    }
}

fn cannot_be_read(path: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format_args!("the configuration `{}` cannot be read: {error}", shown(path)))
}

impl PeerConfig {
    /// How the program logs.
    pub fn log(&self) -> LogConfig {
        LogConfig {
            level: self.log_level.clone(),
            json: self.log_json,
            file: self.log_file.clone(),
        }
    }

    /// The engine as it is configured, listening nowhere yet.
    pub fn session(&self) -> SessionConfig {
        let defaults = SessionConfig::default();
        SessionConfig {
            both_families: self.both_families,
            choke: match self.choke {
                Choke::TitForTat => ChokePolicy::TitForTat,
                Choke::Closed => ChokePolicy::Closed,
            },
            encryption: encryption_policy(self.encryption),
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
            raw_names: self.raw_names,
            handshake_timeout: self.handshake_timeout,
            connect_timeout: self.connect_timeout,
            ..defaults
        }
    }

    /// The journal of a program that keeps it in `folder` unless `file` has a folder of its own;
    /// `None` if there is to be none.
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

    /// Environment variables go above the file.
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

/// How much room on the disk a download takes when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reserve {
    /// None: files grow as pieces come.
    None,
    /// All that it will need.
    Full,
}

/// Puts an environment variable in place of what the file said.
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

/// Bytes a second, or `none`.
pub(super) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RateLimit, D::Error> {
    let text = Quantity::deserialize(deserializer)?.text();
    parse_rate(&text).map_err(serde::de::Error::custom)
}

/// The path of a journal; `none` and the empty one are none.
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

    /// The shipped configuration, with the keys whose default depends on the machine.
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
        let found: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
        assert_eq!(found[..2], [Found::Read, Found::NotNeeded]);
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
            // Programs that do not read the section say so too.
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
