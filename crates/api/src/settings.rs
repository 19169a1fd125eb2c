//! Settings of one torrent, and of the daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use piecework_core::{Priority, shared_default};

/// The settings of a torrent. They are kept across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TorrentSettings {
    /// Whether it is paused.
    pub paused: bool,
    /// Whether to start it even if the queue is full.
    pub forced: bool,
    /// Maximum bytes a second sent; `None` for no limit of its own.
    pub upload_limit: Option<u64>,
    /// Maximum bytes a second received; `None` for no limit of its own.
    pub download_limit: Option<u64>,
    /// Whether the daemon's limits apply to it too.
    pub session_limits: bool,
    /// Maximum connections; `None` uses the daemon's setting.
    pub max_peers: Option<u32>,
    /// Its priority when bandwidth is short.
    pub bandwidth: Priority,
    /// Whether to download pieces in order instead of the rarest first.
    pub sequential: bool,
    /// Priority of each visible file, in order. Files after the end are [`Priority::Normal`].
    pub files: Vec<Priority>,
    /// Labels to show in lists.
    pub labels: Vec<String>,
    /// Stop seeding at this ratio of sent to received bytes.
    pub seed_ratio: SeedLimit<f64>,
    /// Stop seeding after this many seconds of seeding.
    pub seed_time: SeedLimit<u64>,
    /// Stop seeding after this many seconds without a byte sent.
    pub seed_idle: SeedLimit<u64>,
    /// Trackers by tier that replace those in the `.torrent`.
    pub trackers: Option<Vec<Vec<String>>>,
    /// The group of torrents with which it shares limits (Transmission's word). No effect yet.
    pub group: Option<String>,
    /// New names: the number of a file among all files, padding included, and its path below the
    /// folder.
    pub renamed: Vec<(u32, Vec<String>)>,
    /// Its new name, if it was renamed.
    pub name: Option<String>,
}

shared_default!(TorrentSettings);

impl TorrentSettings {
    /// Records new paths of files below the folder, by file number. If they give the torrent
    /// another name than `own`, records that name too.
    pub fn name_anew(&mut self, own: &str, names: BTreeMap<usize, Vec<String>>) {
        let first = names.values().next().and_then(|path| path.first());
        self.name = first.filter(|first| *first != own).cloned();
        let names = names.into_iter();
        self.renamed =
            names.filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path))).collect();
    }
}

/// When to stop seeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeedLimit<T> {
    /// By the daemon's setting.
    #[default]
    Session,
    /// Never.
    Never,
    /// At this limit.
    At(T),
}

/// The settings of the daemon. They begin with the configuration file. Changes at run time are kept
/// across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder for downloads.
    pub downloads: PathBuf,
    /// Maximum bytes a second sent by all torrents together; `None` or 0 for no limit.
    pub upload_limit: Option<u64>,
    /// Maximum bytes a second received by all torrents together; `None` or 0 for no limit.
    pub download_limit: Option<u64>,
    /// Alternative limits, used by the clock or on request.
    pub alt: AltLimits,
    /// Maximum connections in total.
    pub max_connections: u32,
    /// Maximum connections of one torrent.
    pub max_peers_per_torrent: u32,
    /// Peers served at a time by one torrent under [`Choke::TitForTat`].
    pub upload_slots: u32,
    /// Whom to serve.
    pub choke: Choke,
    /// Which connections to peers are encrypted.
    pub encryption: Encryption,
    /// Maximum torrents that download at a time; `None` for no limit.
    pub active_downloads: Option<u32>,
    /// Maximum torrents that seed at a time; `None` for no limit.
    pub active_seeds: Option<u32>,
    /// A torrent without transfer for this many seconds does not count as active; `None`: all
    /// count.
    pub stalled_after: Option<u64>,
    /// Stop seeding at this ratio; `None` is never.
    pub seed_ratio: Option<f64>,
    /// Stop seeding after this many seconds of seeding; `None` is never.
    pub seed_time: Option<u64>,
    /// Stop seeding after this many seconds without a byte sent; `None` is never.
    pub seed_idle: Option<u64>,
    /// Whether added torrents start at once.
    pub start_added: bool,
    /// Whether new torrents download their pieces in order.
    pub sequential: bool,
    /// Suffix of the names of unfinished files, for torrents added from now on. Empty for none.
    pub incomplete_suffix: String,
    /// Folder whose `.torrent` files are added.
    pub watch_folder: Option<PathBuf>,
    /// Whether to delete a watched `.torrent` once it is added. Otherwise it is renamed to end in
    /// `.added`.
    pub watch_delete: bool,
    /// Path of the program to run, without arguments, when a torrent is added. Its environment
    /// describes the torrent.
    pub on_added: Option<String>,
    /// Path of the program to run when a download is done.
    pub on_done: Option<String>,
    /// Path of the program to run when a torrent stops at its seeding limit.
    pub on_seeded: Option<String>,
    /// Whether to apply the block list to peers.
    pub block_list: bool,
    /// Trackers added to every torrent that is not private, by tier.
    pub default_trackers: Vec<Vec<String>>,
}

/// Alternative rate limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AltLimits {
    /// Whether they apply now.
    pub on: bool,
    /// Maximum bytes a second sent; 0 for no limit.
    pub upload: u64,
    /// Maximum bytes a second received; 0 for no limit.
    pub download: u64,
    /// Whether the clock turns them on and off.
    pub scheduled: bool,
    /// When they begin, minutes after midnight, local time.
    pub begin: u16,
    /// When they end, minutes after midnight; before `begin` means the next day.
    pub end: u16,
    /// Days on which they begin: Sunday is 1, Monday 2, Tuesday 4 … Saturday 64.
    pub days: u8,
}

/// Whom swarms serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choke {
    /// The peers that give most, and one more in turn: for the internet.
    #[default]
    TitForTat,
    /// Everybody, and each peer gets different pieces first: for machines of one owner.
    Closed,
}

/// Which connections to peers are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// None. Peers that demand encryption are not reached.
    Plain,
    /// Those of peers that demand encryption.
    #[default]
    Allow,
    /// The handshakes of all peers that support it.
    Prefer,
    /// All, from the first byte to the last. Other peers are not connected.
    Require,
}

/// A change of some [`Settings`]: `PATCH /settings`. Omitted keys stay. The value `null` differs
/// from an omitted key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingsChange(pub serde_json::Map<String, serde_json::Value>);

impl Default for TorrentSettings {
    fn default() -> Self {
        Self {
            paused: false,
            forced: false,
            upload_limit: None,
            download_limit: None,
            session_limits: true,
            max_peers: None,
            bandwidth: Priority::Normal,
            sequential: false,
            files: Vec::new(),
            labels: Vec::new(),
            seed_ratio: SeedLimit::Session,
            seed_time: SeedLimit::Session,
            seed_idle: SeedLimit::Session,
            trackers: None,
            group: None,
            renamed: Vec::new(),
            name: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            downloads: PathBuf::from("downloads"),
            upload_limit: None,
            download_limit: None,
            alt: AltLimits::default(),
            max_connections: 1_000,
            max_peers_per_torrent: 80,
            upload_slots: 8,
            choke: Choke::TitForTat,
            encryption: Encryption::Allow,
            active_downloads: None,
            active_seeds: None,
            stalled_after: Some(30 * 60),
            seed_ratio: None,
            seed_time: None,
            seed_idle: None,
            start_added: true,
            sequential: false,
            incomplete_suffix: ".part".to_owned(),
            watch_folder: None,
            watch_delete: false,
            on_added: None,
            on_done: None,
            on_seeded: None,
            block_list: true,
            default_trackers: Vec::new(),
        }
    }
}

/// Why a [`SettingsChange`] is not valid: which key is unknown, or what is wrong with a value.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SettingsError(#[from] serde_json::Error);

impl Default for AltLimits {
    fn default() -> Self {
        Self {
            on: false,
            upload: 50_000,
            download: 50_000,
            scheduled: false,
            begin: 9 * 60,
            end: 17 * 60,
            days: 127,
        }
    }
}

impl SettingsChange {
    /// Returns `settings` with this change. A rate limit of 0 means no limit.
    ///
    /// # Errors
    /// If a key is unknown, or the value of a key is not valid. The error names the key.
    pub fn apply(&self, settings: &Settings) -> Result<Settings, SettingsError> {
        let mut whole = serde_json::to_value(settings)?;
        // A struct is always serialized as an object.
        if let Some(object) = whole.as_object_mut() {
            object.extend(self.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let mut after: Settings = serde_json::from_value(whole)?;
        for limit in [&mut after.upload_limit, &mut after.download_limit] {
            *limit = limit.filter(|limit| *limit > 0);
        }
        Ok(after)
    }
}

impl<T: Copy> SeedLimit<T> {
    /// Returns the effective limit, given the daemon's setting.
    pub fn or_session(self, session: Option<T>) -> Option<T> {
        match self {
            Self::Session => session,
            Self::Never => None,
            Self::At(limit) => Some(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_what_it_names_and_refuses_what_there_is_not() {
        let change = |text: &str| serde_json::from_str::<SettingsChange>(text).unwrap();
        let settings = Settings { upload_limit: Some(5), ..Settings::default() };
        let changed = change(r#"{"upload_limit": null, "seed_ratio": 2.5}"#).apply(&settings);
        let changed = changed.unwrap();
        assert_eq!((changed.upload_limit, changed.seed_ratio), (None, Some(2.5)));
        assert_eq!(changed.downloads, settings.downloads);
        for none in ["0", "null"] {
            let both = format!(r#"{{"upload_limit": {none}, "download_limit": {none}}}"#);
            let changed = change(&both).apply(&settings).unwrap();
            assert_eq!((changed.upload_limit, changed.download_limit), (None, None), "{none}");
        }
        assert!(
            change(r#"{"upload": 1}"#).apply(&settings).unwrap_err().to_string().contains("upload")
        );
        assert!(change(r#"{"upload_limit": "much"}"#).apply(&settings).is_err());
    }

    #[test]
    fn settings_survive_being_written_down() {
        let settings = TorrentSettings {
            seed_ratio: SeedLimit::At(1.5),
            seed_time: SeedLimit::Never,
            files: vec![Priority::Skip, Priority::High],
            ..TorrentSettings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<TorrentSettings>(&text).unwrap(), settings);
        assert_eq!(
            serde_json::from_str::<TorrentSettings>("{}").unwrap(),
            TorrentSettings::default()
        );
    }
}
