//! The `[daemon]` section of `config.toml`, and what a daemon is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use piecework_api::{self as api, AltLimits, Settings};
use piecework_core::{Secret, printable};
use piecework_daemon::DaemonConfig;
use piecework_engine::SessionConfig;

use super::super::config::{Choke, journal, journal_named, rate, set};
use super::super::format::{RateLimit, parse_duration, shown};
use super::super::{CliError, Config, Env, LogConfig, PeerConfig};

/// The `[daemon]` section, with keys of the daemon alone. The engine's keys are in `[peer]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSection {
    /// Address of the native API. The tools connect to it.
    pub control: SocketAddr,
    /// Address of Transmission's RPC. `None` (`""` in the file) turns it off.
    #[serde(deserialize_with = "optional")]
    pub rpc: Option<SocketAddr>,
    /// File whose first line is the password of both.
    #[serde(deserialize_with = "path")]
    pub password_file: Option<PathBuf>,
    /// Whether everybody on this machine may make requests that reach no file outside the downloads
    /// folder. Applies without a password. If not set, every request needs the owner's token.
    pub open_on_loopback: bool,
    /// Host names that browsers may use, in addition to addresses and `localhost`.
    pub host_names: Vec<String>,
    /// PEM file of the certificate for HTTPS.
    #[serde(deserialize_with = "path")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(deserialize_with = "path")]
    pub certificate_key: Option<PathBuf>,
    /// Addresses and networks of proxies in front of it.
    pub proxies: Vec<String>,
    /// SQLite file of the state.
    pub state: PathBuf,
    /// SQLite file of the journal. A bare name is next to `state`. Empty for none.
    #[serde(deserialize_with = "journal")]
    pub journal: PathBuf,
    /// Whether the alternative limits apply from the start.
    pub alt_limits: bool,
    /// Maximum bytes a second sent, as alternative limit.
    #[serde(deserialize_with = "rate")]
    pub alt_upload_limit: RateLimit,
    /// Maximum bytes a second received, as alternative limit.
    #[serde(deserialize_with = "rate")]
    pub alt_download_limit: RateLimit,
    /// Whether the clock turns the alternative limits on and off.
    pub alt_scheduled: bool,
    /// When it turns them on, local time.
    pub alt_begin: TimeOfDay,
    /// When it turns them off.
    pub alt_end: TimeOfDay,
    /// The days on which it turns them on.
    pub alt_days: Vec<Day>,
    /// Maximum number of torrents that download at a time.
    #[serde(deserialize_with = "or_none")]
    pub active_downloads: Option<u32>,
    /// Maximum number of torrents that seed at a time.
    #[serde(deserialize_with = "or_none")]
    pub active_seeds: Option<u32>,
    /// A torrent without transfer for this time does not count as active.
    #[serde(deserialize_with = "span_or_none")]
    pub stalled_after: Option<Duration>,
    /// Ratio at which seeding stops.
    #[serde(deserialize_with = "ratio_or_none")]
    pub seed_ratio: Option<f64>,
    /// Time of seeding after which it stops.
    #[serde(deserialize_with = "span_or_none")]
    pub seed_time: Option<Duration>,
    /// Time without a byte sent after which seeding stops.
    #[serde(deserialize_with = "span_or_none")]
    pub seed_idle: Option<Duration>,
    /// Whether torrents start when they are added.
    pub start_added: bool,
    /// Whether pieces are downloaded in order.
    pub sequential: bool,
    /// Suffix of the names of unfinished files.
    pub incomplete_suffix: String,
    /// Folder whose `.torrent` files are added.
    #[serde(deserialize_with = "path")]
    pub watch_folder: Option<PathBuf>,
    /// Whether to delete these files after adding them.
    pub watch_delete: bool,
    /// Program run when a torrent is added.
    #[serde(deserialize_with = "path")]
    pub on_added: Option<PathBuf>,
    /// Program run when a download is done.
    #[serde(deserialize_with = "path")]
    pub on_done: Option<PathBuf>,
    /// Program run when seeding stops at its limit.
    #[serde(deserialize_with = "path")]
    pub on_seeded: Option<PathBuf>,
    /// File with addresses to refuse.
    #[serde(deserialize_with = "path")]
    pub block_list: Option<PathBuf>,
    /// Trackers, by tier, for every torrent that is not private.
    pub default_trackers: Vec<Vec<String>>,
    /// Folders into which requests may download.
    pub download_roots: Vec<PathBuf>,
    /// Folders from which requests may seed.
    pub seed_roots: Vec<PathBuf>,
    /// Network interface for all connections.
    #[serde(deserialize_with = "optional")]
    pub interface: Option<String>,
    /// What to log: a level, or a filter.
    pub log_level: String,
    /// Whether to log JSON objects, one on each line.
    pub log_json: bool,
    /// The file to log to in addition to stderr. Empty for none.
    pub log_file: PathBuf,
}

/// Minutes after midnight, written `"09:00"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay(pub u16);

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a week has the days it has")]
pub enum Day {
    Sun,
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
}

impl DaemonSection {
    /// Returns the logging options.
    pub fn log(&self) -> LogConfig {
        LogConfig {
            level: self.log_level.clone(),
            json: self.log_json,
            file: self.log_file.clone(),
        }
    }

    /// Applies environment variables, which override the file.
    ///
    /// # Errors
    /// If one is not valid.
    pub fn apply(&mut self, env: &Env) -> Result<(), CliError> {
        let mut port = self.control.port();
        set(env, "PIECEWORK_PORT", &mut port, |text| {
            text.parse().map_err(|_| format!("`{}` is not a port", printable(text)))
        })?;
        self.control.set_port(port);
        set(env, "PIECEWORK_JOURNAL", &mut self.journal, |text| Ok(journal_named(text)))
    }

    /// Returns the password of the control, from the environment or from the file.
    ///
    /// # Errors
    /// If the file cannot be read or is empty.
    pub fn password(&self, env: &Env) -> Result<Option<Secret>, CliError> {
        if let Some(password) = env.var("PIECEWORK_PASSWORD") {
            return Ok(Some(Secret::from(password)));
        }
        let Some(path) = &self.password_file else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| {
            CliError::usage(format_args!("the password file `{}` {why}", shown(path)))
        };
        let text = std::fs::read_to_string(env.path(path))
            .map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
        match text.lines().next().map(str::trim) {
            None | Some("") => Err(wrong(&"has no password in its first line")),
            Some(password) => Ok(Some(Secret::from(password))),
        }
    }

    /// Returns the daemon's initial settings from the configuration.
    pub fn settings(&self, env: &Env, peer: &PeerConfig) -> Settings {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        let program = |named: &Option<PathBuf>| {
            named.as_ref().map(|path| env.path(path).to_string_lossy().into_owned())
        };
        Settings {
            downloads: env.path(&peer.downloads),
            upload_limit: peer.upload_limit.0,
            download_limit: peer.download_limit.0,
            alt: AltLimits {
                on: self.alt_limits,
                upload: self.alt_upload_limit.0.unwrap_or(0),
                download: self.alt_download_limit.0.unwrap_or(0),
                scheduled: self.alt_scheduled,
                begin: self.alt_begin.0,
                end: self.alt_end.0,
                days: self.alt_days.iter().fold(0, |days, day| days | 1 << *day as u8),
            },
            max_connections: bounded(peer.max_connections),
            max_peers_per_torrent: bounded(peer.max_peers_per_torrent),
            upload_slots: bounded(peer.upload_slots),
            choke: match peer.choke {
                Choke::TitForTat => api::Choke::TitForTat,
                Choke::Closed => api::Choke::Closed,
            },
            encryption: peer.encryption,
            active_downloads: self.active_downloads,
            active_seeds: self.active_seeds,
            stalled_after: seconds(self.stalled_after),
            seed_ratio: self.seed_ratio,
            seed_time: seconds(self.seed_time),
            seed_idle: seconds(self.seed_idle),
            start_added: self.start_added,
            sequential: self.sequential,
            incomplete_suffix: self.incomplete_suffix.clone(),
            watch_folder: self.watch_folder.as_ref().map(|path| env.path(path)),
            watch_delete: self.watch_delete,
            on_added: program(&self.on_added),
            on_done: program(&self.on_done),
            on_seeded: program(&self.on_seeded),
            block_list: true,
            default_trackers: self.default_trackers.clone(),
        }
    }
}

/// Returns the configuration of a daemon that listens for peers on `listen`.
pub fn daemon_config(env: &Env, config: &Config, listen: SocketAddr) -> DaemonConfig {
    let (peer, section) = (&config.peer, &config.daemon);
    let absolute = |paths: &[PathBuf]| paths.iter().map(|path| env.path(path)).collect();
    let session = SessionConfig {
        listen: vec![listen],
        interface: section.interface.clone(),
        ..peer.session()
    };
    DaemonConfig {
        session,
        settings: section.settings(env, peer),
        torrents: env.path(&peer.torrents),
        state: env.path(&section.state),
        tracker: Some(peer.tracker.clone()).filter(|tracker| !tracker.is_empty()),
        download_roots: absolute(&section.download_roots),
        seed_roots: seed_roots(env, config, rustix::process::geteuid().is_root()),
        block_list: section.block_list.as_ref().map(|path| env.path(path)),
        log_records: peer.log_records,
        journal: peer.journal(
            env,
            &section.journal,
            section.state.parent().unwrap_or(Path::new("")),
            "torrent-daemon",
        ),
    }
}

/// Returns the folders from which requests may seed. A daemon run as root can read everything, so
/// by default it seeds only from its own folders.
fn seed_roots(env: &Env, config: &Config, as_root: bool) -> Vec<PathBuf> {
    let (section, peer) = (&config.daemon, &config.peer);
    if !section.seed_roots.is_empty() || !as_root {
        return section.seed_roots.iter().map(|path| env.path(path)).collect();
    }
    let outputs = std::iter::once(&peer.downloads).chain(&section.download_roots);
    let mut roots: Vec<PathBuf> = outputs.map(|path| env.path(path)).collect();
    // Services start in `/`, which contains everything.
    roots.extend(env.cwd().parent().map(|_| env.cwd().to_owned()));
    roots
}

/// Returns whether users other than the owner may read the password in `path`.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

/// Returns why `path` cannot be run as a program, if that can be known in advance.
pub(super) fn why_not_run(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(path) {
        Err(error) => Some(error.to_string()),
        Ok(about) if !about.is_file() => Some("it is not a file".to_owned()),
        Ok(about) if about.permissions().mode() & 0o111 == 0 => {
            Some("it is not executable: chmod +x it".to_owned())
        }
        Ok(_) => None,
    }
}

impl Default for DaemonSection {
    fn default() -> Self {
        let Settings { alt, stalled_after, start_added, incomplete_suffix, .. } =
            Settings::default();
        Self {
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)),
            rpc: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9091))),
            password_file: None,
            open_on_loopback: true,
            host_names: Vec::new(),
            certificate: None,
            certificate_key: None,
            proxies: Vec::new(),
            state: "torrents/daemon.sqlite".into(),
            journal: "daemon-journal.sqlite".into(),
            alt_limits: false,
            alt_upload_limit: RateLimit(Some(alt.upload)),
            alt_download_limit: RateLimit(Some(alt.download)),
            alt_scheduled: false,
            alt_begin: TimeOfDay(alt.begin),
            alt_end: TimeOfDay(alt.end),
            alt_days: vec![Day::Sun, Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat],
            active_downloads: None,
            active_seeds: None,
            stalled_after: stalled_after.map(Duration::from_secs),
            seed_ratio: None,
            seed_time: None,
            seed_idle: None,
            start_added,
            sequential: false,
            incomplete_suffix,
            watch_folder: None,
            watch_delete: false,
            on_added: None,
            on_done: None,
            on_seeded: None,
            block_list: None,
            default_trackers: Vec::new(),
            download_roots: Vec::new(),
            seed_roots: Vec::new(),
            interface: None,
            log_level: "info".to_owned(),
            log_json: false,
            log_file: PathBuf::new(),
        }
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then_some(Self(hour * 60 + minute))
        });
        time.ok_or_else(|| {
            let text = printable(&text);
            serde::de::Error::custom(format_args!("`{text}` is not a time of day: write \"09:30\""))
        })
    }
}

fn bounded(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Reads a path; `""` means none.
fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Reads a value from text; `""` means none.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format_args!("`{}`: {error}", printable(&text))))
}

/// Reads a number, or `"none"`.
fn or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read<T> {
        Some(T),
        Text(String),
    }
    match Read::deserialize(deserializer) {
        Ok(Read::Some(value)) => Ok(Some(value)),
        Ok(Read::Text(text)) if text == "none" => Ok(None),
        _ => Err(serde::de::Error::custom("write a number, or \"none\"")),
    }
}

/// Reads a ratio, or `"none"`.
fn ratio_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let ratio: Option<f64> = or_none(deserializer)?;
    match ratio {
        Some(ratio) if !(ratio.is_finite() && ratio >= 0.0) => {
            Err(serde::de::Error::custom(format_args!("`{ratio}` is not a ratio: write 0 or more")))
        }
        ratio => Ok(ratio),
    }
}

/// Reads a duration, or `"none"`.
fn span_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "none" {
        return Ok(None);
    }
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::super::Output;
    use super::*;

    fn env_in(dir: &Path) -> Env {
        let (out, _) = Output::captured();
        Env::new("test", Vec::<String>::new(), dir, out.clone(), out)
    }

    fn section(text: &str) -> Result<DaemonSection, String> {
        Config::parse(&format!("[daemon]\n{text}"))
            .map(|config| config.daemon)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_daemon_run_as_root_seeds_from_its_own_folders_unless_told_otherwise() {
        let mut config = Config::default();
        let roots = |config: &Config, cwd: &str, as_root| {
            let roots = seed_roots(&env_in(Path::new(cwd)), config, as_root);
            roots.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(roots(&config, "/srv", false), "", "everything that its user may read");
        assert_eq!(roots(&config, "/srv", true), "/srv/downloads /srv");
        assert_eq!(roots(&config, "/", true), "/downloads");
        config.daemon.download_roots = vec!["/data".into()];
        assert_eq!(roots(&config, "/", true), "/downloads /data");
        config.daemon.seed_roots = vec!["films".into(), "/".into()];
        for as_root in [false, true] {
            assert_eq!(roots(&config, "/srv", as_root), "/srv/films /");
        }
    }

    #[test]
    fn a_daemon_that_is_told_nothing_begins_with_the_default_settings() {
        let env = env_in(Path::new("/srv"));
        let config = daemon_config(&env, &Config::default(), SocketAddr::from(([0; 4], 1)));
        let expected = Settings { downloads: "/srv/downloads".into(), ..Settings::default() };
        assert_eq!(config.settings, expected);
        assert_eq!(config.state, Path::new("/srv/torrents/daemon.sqlite"));
        assert_eq!(config.torrents, Path::new("/srv/torrents"));
        assert_eq!(config.tracker.as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(config.session.listen, [SocketAddr::from(([0; 4], 1))]);
    }

    #[test]
    fn values_have_units_and_none() {
        let read = section(
            "rpc = \"\"\nactive_downloads = 3\nseed_ratio = 1.5\nseed_time = \"2h\"\n\
             stalled_after = \"none\"\nalt_upload_limit = \"1MiB\"\nalt_begin = \"22:30\"\n\
             alt_days = [\"mon\", \"sat\"]\nwatch_folder = \"in\"\n",
        )
        .unwrap();
        assert_eq!(read.rpc, None);
        let settings = read.settings(&env_in(Path::new("/w")), &PeerConfig::default());
        assert_eq!(settings.active_downloads, Some(3));
        assert_eq!((settings.seed_ratio, settings.seed_time), (Some(1.5), Some(7200)));
        assert_eq!(settings.stalled_after, None);
        assert_eq!((settings.alt.upload, settings.alt.begin), (1 << 20, 22 * 60 + 30));
        assert_eq!(settings.alt.days, 2 + 64, "Sunday is 1");
        assert_eq!(settings.watch_folder.as_deref(), Some(Path::new("/w/in")));
    }

    #[test]
    fn what_is_no_program_is_told_from_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("done.sh");
        assert!(why_not_run(&path).is_some(), "it is not there");
        assert_eq!(why_not_run(dir.path()).as_deref(), Some("it is not a file"));
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(why_not_run(&path).as_deref(), Some("it is not executable: chmod +x it"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(why_not_run(&path), None);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for text in [
            "alt_begin = \"24:00\"",
            "alt_begin = \"9\"",
            "active_seeds = -1",
            "active_seeds = \"few\"",
            "control = \"localhost\"",
            "seed_time = 5",
            "seed_ratio = -1",
            "seed_ratio = nan",
            "alt_days = [\"monday\"]",
            "listen = \"0.0.0.0:1\"",
        ] {
            assert!(section(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_port_of_the_environment_goes_above_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = "[daemon]\ncontrol = \"10.0.0.1:7\"\n";
        std::fs::write(dir.path().join("config.toml"), file).unwrap();
        let env = env_in(dir.path()).with_var("PIECEWORK_PORT", "8");
        let control = Config::load(&env, None).unwrap().daemon.control;
        assert_eq!(control, "10.0.0.1:8".parse().unwrap());
        let env = env_in(dir.path()).with_var("PIECEWORK_PORT", "many");
        assert!(Config::load(&env, None).unwrap_err().to_string().contains("`many`"));
    }

    #[test]
    fn the_password_is_the_environments_or_the_first_line_of_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let section =
            DaemonSection { password_file: Some("secret".into()), ..DaemonSection::default() };
        let password =
            |env: &Env| section.password(env).unwrap().map(|secret| secret.expose().to_owned());
        let env = env_in(dir.path());
        assert!(section.password(&env).unwrap_err().to_string().contains("`secret`"));
        let path = dir.path().join("secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(section.password(&env).is_err(), "an empty password is none");
        std::fs::write(&path, "open sesame\nmore\n").unwrap();
        assert_eq!(password(&env).as_deref(), Some("open sesame"));
        let env = env.with_var("PIECEWORK_PASSWORD", "other");
        assert_eq!(password(&env).as_deref(), Some("other"));
        assert!(DaemonSection::default().password(&env_in(dir.path())).unwrap().is_none());
        for (mode, open) in [(0o600, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&path), open);
        }
    }
}
