//! The record of a torrent in the state, beside its `.torrent`. It is kept as JSON.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Caller;
use piecework_api::{SeedRequest, TorrentSettings};
use piecework_core::{Interned, Interner, shared_default};
use piecework_storage::INCOMPLETE_SUFFIX;

/// What is kept of a torrent as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TorrentRecord {
    pub settings: Interned<TorrentSettings>,
    /// Its rank, which increases along the queue.
    pub rank: i64,
    pub started_at: Option<i64>,
    /// It stopped at a seeding limit.
    pub limit_reached: bool,
    /// Somebody started it after that, so its limits no longer apply.
    pub limits_waived: bool,
    /// It was shared from files of this machine. They are served and never written to.
    pub seed: bool,
    /// It was found again after the state was lost. It continues by itself only if it is complete.
    pub rebuilt: bool,
    #[serde(flatten)]
    pub common: Interned<CommonRecord>,
}

/// The part of a record that is the same for many torrents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CommonRecord {
    /// The tracker it was registered with.
    pub tracker: Option<Box<str>>,
    /// It is not registered yet, and that is tried again.
    pub pending: Option<Box<Registration>>,
    /// Its files are being renamed or moved, or were when the process died.
    pub unfinished: Option<Box<FileWork>>,
    /// Files that have the names of its own but other content are replaced, until it is complete.
    pub overwrite: bool,
    /// Such files are in its way.
    pub hindered: bool,
    /// The suffix of its unfinished files since it was added: with another suffix they would not be
    /// found. Records without one use the current setting.
    #[serde(default)]
    pub suffix: Option<Cow<'static, str>>,
    /// Addresses of trackers that the owner named for it. `None` in records of earlier versions.
    #[serde(default)]
    pub named: Option<Vec<Box<str>>>,
    /// Its `.torrent` came from a tracker in a private network or on this machine.
    pub nearby: bool,
    /// Symbolic links led to some of its files when it was shared. Those lie elsewhere and are not
    /// removed with it.
    #[serde(default)]
    pub through_links: bool,
    /// The request to share files that are not hashed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_hash: Option<Box<HashRequest>>,
    /// The request to add a torrent whose metadata is not here yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_fetch: Option<Box<LinkRequest>>,
}

/// Work on a torrent's files, which is recorded before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileWork {
    /// Files get other paths.
    Rename {
        /// As [`TorrentSettings::renamed`] will be.
        names: Vec<(u32, Vec<String>)>,
        /// The torrent's name, if that is what is renamed.
        name: Option<String>,
    },
    /// All files go to this folder.
    Move { folder: String },
}

/// Lets equal parts of records share memory, such as those of all torrents registered with one tracker.
#[derive(Debug, Default)]
pub(super) struct RecordInterner {
    settings: Interner<TorrentSettings>,
    common: Interner<CommonRecord>,
}

/// A request to share files, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HashRequest {
    /// The name of the file or folder.
    pub name: String,
    /// The request, without the `.torrent` that may have come with it.
    pub request: SeedRequest,
    /// It came from the owner at this machine, who may name any folder.
    pub local: bool,
}

/// A request to add the torrent of a magnet link, as it is kept. Its settings are the torrent's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkRequest {
    /// The link, as it was given.
    pub link: String,
    /// The tracker whose catalogue is asked first.
    pub tracker: Option<String>,
    pub caller: Caller,
    pub only_files: Option<String>,
    pub trackers: Vec<String>,
    pub peers: Vec<SocketAddr>,
    pub rename: Option<String>,
    pub overwrite: bool,
}

/// How a torrent is registered as soon as its tracker can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Registration {
    /// The tracker, as people name it.
    pub tracker: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub unlisted: bool,
}

impl TorrentRecord {
    pub(crate) fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(crate) fn to_text(&self) -> String {
        // Strings, numbers and lists can always be serialized.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl RecordInterner {
    pub(crate) fn share(&mut self, record: &mut TorrentRecord) {
        self.settings.share(&mut record.settings);
        self.common.share(&mut record.common);
    }
}

impl Default for TorrentRecord {
    fn default() -> Self {
        Self {
            settings: Interned::default(),
            rank: 0,
            started_at: None,
            limit_reached: false,
            limits_waived: false,
            seed: false,
            rebuilt: false,
            common: CommonRecord { suffix: None, ..CommonRecord::default() }.into(),
        }
    }
}

impl Default for CommonRecord {
    /// What most torrents have.
    fn default() -> Self {
        let suffix = Some(Cow::Borrowed(INCOMPLETE_SUFFIX));
        Self {
            tracker: None,
            pending: None,
            unfinished: None,
            overwrite: false,
            hindered: false,
            suffix,
            named: Some(Vec::new()),
            nearby: false,
            through_links: false,
            to_hash: None,
            to_fetch: None,
        }
    }
}

shared_default!(CommonRecord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let record =
            TorrentRecord { rank: -3, seed: true, limit_reached: true, ..TorrentRecord::default() };
        assert_eq!(TorrentRecord::from_text(&record.to_text()).unwrap(), record);
        // Records of earlier versions do not say who named a tracker.
        let mut earlier = TorrentRecord::default();
        earlier.common.named = None;
        assert_eq!(TorrentRecord::from_text("{}").unwrap(), earlier);
        for suffix in [None, Some(""), Some(INCOMPLETE_SUFFIX), Some(".x")] {
            let mut record = record.clone();
            record.common.suffix = suffix.map(Into::into);
            record.common.tracker = Some("a".into());
            assert_eq!(TorrentRecord::from_text(&record.to_text()).unwrap(), record);
        }
    }

    #[test]
    fn the_text_of_an_earlier_version_is_read() {
        let text = r#"{"settings":{"paused":true},"rank":7,"started_at":1,"tracker":"t",
            "pending":{"tracker":"t","unlisted":true},"rebuilt":false,
            "unfinished":{"move":{"folder":"/f"}},"suffix":".part"}"#;
        let record = TorrentRecord::from_text(text).unwrap();
        assert!(record.settings.paused);
        assert_eq!((record.rank, record.started_at), (7, Some(1)));
        let pending =
            Registration { tracker: "t".into(), unlisted: true, ..Registration::default() };
        let unfinished = FileWork::Move { folder: "/f".into() };
        let wanted = CommonRecord {
            tracker: Some("t".into()),
            pending: Some(Box::new(pending)),
            unfinished: Some(Box::new(unfinished)),
            overwrite: false,
            hindered: false,
            suffix: Some(".part".into()),
            named: None,
            nearby: false,
            through_links: false,
            to_hash: None,
            to_fetch: None,
        };
        assert_eq!(*record.common, wanted);
    }
}
