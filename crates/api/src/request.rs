//! Requests to the daemon, and its answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::SeedLimit;
use piecework_core::{InfoHash, Priority};

/// `GET /`: identifies the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Always `piecework`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// The port on which it accepts peers.
    pub peer_port: u16,
    /// The configured tracker: `IP:PORT` or URL.
    #[serde(default)]
    pub tracker: Option<String>,
    /// Whether the client is the owner, and not a guest.
    #[serde(default)]
    pub owner: bool,
}

/// `POST /inspect`: shows the content of a torrent, without adding it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectRequest {
    /// The torrent.
    pub source: Source,
}

/// Answer to `POST /inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// Its name.
    pub name: String,
    /// Bytes of the whole content.
    pub bytes: u64,
    /// Whether peers come from its trackers only (BEP 27).
    pub private: bool,
    /// The comment of its maker.
    pub comment: Option<String>,
    /// Whether the daemon already has it.
    pub here: bool,
    /// Number of files, without padding.
    pub files: u32,
    /// The first [`Inspected::MOST_FILES`] of them: path and bytes.
    pub file_list: Vec<(String, u64)>,
    /// Sentences on what is repaired in its names and what is left out.
    pub warnings: Vec<String>,
}

impl Inspected {
    /// Maximum number of listed files. More would help nobody to choose, and cost megabytes.
    pub const MOST_FILES: usize = 10_000;
}

/// Answer to any request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A sentence that says why, and what to do.
    pub error: String,
}

/// `POST /seed`: makes a torrent of data on the daemon's machine, or uses an existing one, and
/// serves it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedRequest {
    /// The file or folder to share, absolute. A name that is not UTF-8 is encoded by
    /// [`text_of_name`](piecework_core::text_of_name).
    pub input: PathBuf,
    /// The bytes of an existing `.torrent` of it, in base64. `input` is then checked against it.
    pub torrent: Option<String>,
    /// Keep it out of catalogues, and mark it private (BEP 27).
    pub private: bool,
    /// Bytes in a piece, a power of two from 16 KiB; `None` chooses by size.
    pub piece_length: Option<u32>,
    /// Trackers by tier, in addition to those of `torrent`. Empty for the configured one.
    pub trackers: Vec<Vec<String>>,
    /// Announce a private `torrent` to `trackers` too, although it does not name them, and register
    /// it there.
    pub publish_private: bool,
    /// An absolute path to write the `.torrent` to; `None` writes it only to the daemon's torrents
    /// folder.
    pub torrent_out: Option<PathBuf>,
    /// The name to register it under, instead of the file's.
    pub name: Option<String>,
    /// A comment in the torrent and in the catalogue.
    pub description: Option<String>,
    /// Labels to show in lists.
    pub labels: Vec<String>,
    /// Share what symbolic links inside the folder lead to.
    pub follow_links: bool,
    /// Patterns of files and folders to leave out.
    pub exclude: Vec<String>,
    /// Leave out files and folders whose name begins with a dot.
    pub no_hidden: bool,
    /// A word that is part of what is hashed.
    pub source: Option<String>,
    /// Whether to answer when everything is hashed (the default), or at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

impl SeedRequest {
    /// Returns the info-hash under which the torrent is listed until it is hashed. Equal requests
    /// have the same one, whether they wait or not. `None` if a path is not UTF-8, which JSON
    /// cannot represent.
    pub fn provisional_hash(&self) -> Option<InfoHash> {
        if self.wait.is_some() {
            return Self { wait: None, ..self.clone() }.provisional_hash();
        }
        let mut hashed = Hashed(Sha1::new());
        // No dictionary begins with this, so the result is never the info-hash of a torrent.
        hashed.0.update(b"hashing ");
        serde_json::to_writer(&mut hashed, self).ok()?;
        Some(InfoHash(hashed.0.finalize().into()))
    }
}

/// Hashes what is written to it, so that a request with a `.torrent` of 100 MiB is not copied.
struct Hashed(Sha1);

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `POST /leech`: downloads a torrent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeechRequest {
    /// What to download.
    pub source: Source,
    /// Folder to download into: absolute, or below the downloads folder. `None` for the downloads
    /// folder.
    pub output: Option<PathBuf>,
    /// Do not start it yet.
    pub paused: Option<bool>,
    /// Priority of each file, in order. Files after the end are normal.
    pub files: Vec<Priority>,
    /// Only these files, numbers from 1: `1,3-5`. Overrides `files`.
    pub only_files: Option<String>,
    /// Whether to download the pieces in order.
    pub sequential: Option<bool>,
    /// Maximum bytes a second sent.
    pub upload_limit: Option<u64>,
    /// Maximum bytes a second received.
    pub download_limit: Option<u64>,
    /// Maximum connections.
    pub max_peers: Option<u32>,
    /// When to stop seeding, as a ratio of sent to received bytes.
    pub seed_ratio: SeedLimit<f64>,
    /// When to stop seeding, in seconds of seeding.
    pub seed_time: SeedLimit<u64>,
    /// Labels to show in lists.
    pub labels: Vec<String>,
    /// Trackers in addition to its own.
    pub trackers: Vec<String>,
    /// Peers to begin with, `IP:PORT` or `HOST:PORT`.
    pub peers: Vec<String>,
    /// Its priority when bandwidth is short.
    pub bandwidth: Option<Priority>,
    /// The name of its file or folder, instead of the torrent's.
    pub rename: Option<String>,
    /// Replace files that have the names of its files but other content.
    pub overwrite: bool,
}

/// The source of a torrent to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The bytes of its `.torrent`, in base64.
    Torrent(String),
    /// A name or info-hash in a tracker's catalogue.
    Catalogue {
        /// Name or info-hash.
        name: String,
        /// The tracker, `IP:PORT` or a URL; `None` for the configured one.
        tracker: Option<String>,
    },
    /// A `.torrent` on the daemon's machine, absolute.
    File(PathBuf),
    /// A `.torrent` to fetch over HTTP.
    Url(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Torrent(String::new())
    }
}

/// The answer when a torrent was added, or was there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its info-hash.
    pub info_hash: InfoHash,
    /// Its number in this run of the daemon.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether it was there already, so that nothing was changed.
    pub duplicate: bool,
    /// The tracker that it was registered with, or `None`.
    pub tracker: Option<String>,
    /// Sentences on minor failures, such as a tracker that could not be reached.
    pub warnings: Vec<String>,
}

/// `PATCH /torrents/{info_hash}`: changes settings of a torrent. Omitted fields stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TorrentChange {
    /// Maximum bytes a second sent; 0, or `null` in the JSON, for no limit.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub upload_limit: Option<u64>,
    /// Maximum bytes a second received; 0, or `null` in the JSON, for no limit.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub download_limit: Option<u64>,
    /// Whether the daemon's limits apply to it too.
    pub session_limits: Option<bool>,
    /// Maximum connections; 0 uses the daemon's setting.
    pub max_peers: Option<u32>,
    /// Its priority when bandwidth is short.
    pub bandwidth: Option<Priority>,
    /// Whether to download the pieces in order.
    pub sequential: Option<bool>,
    /// File numbers, from 0, and their new priorities.
    pub files: Vec<(u32, Priority)>,
    /// Only these files, numbers from 1: `1,3-5`. All others are skipped.
    pub only_files: Option<String>,
    /// All its labels.
    pub labels: Option<Vec<String>>,
    /// When to stop seeding, as a ratio of sent to received bytes.
    pub seed_ratio: Option<SeedLimit<f64>>,
    /// When to stop seeding, in seconds of seeding.
    pub seed_time: Option<SeedLimit<u64>>,
    /// Stop seeding after this many seconds without a byte sent.
    pub seed_idle: Option<SeedLimit<u64>>,
    /// All its trackers, by tier.
    pub trackers: Option<Vec<Vec<String>>>,
    /// Its place in the queue, the first is 0.
    pub queue_position: Option<u32>,
    /// The group with which it shares limits.
    pub group: Option<String>,
}

/// `POST /torrents/{info_hash}/move`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The folder to move it to.
    pub folder: PathBuf,
    /// Whether the data is already there: find it instead of moving it.
    #[serde(default)]
    pub find: bool,
}

/// `POST /torrents/{info_hash}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// What to rename: a path as in [`FileInfo::path`](super::FileInfo::path), or a folder that
    /// such paths begin with.
    pub path: String,
    /// Its new name, without a `/`.
    pub name: String,
}

/// `DELETE /torrents/{info_hash}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveRequest {
    /// Delete its files too.
    pub delete_data: bool,
    /// Remove it from the tracker's catalogue, if the daemon registered it.
    pub unregister: bool,
}

/// `POST /torrents/{info_hash}/queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRequest {
    /// The new position.
    pub to: QueueMove,
}

/// `POST /queue`: moves several torrents together, keeping their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueAllRequest {
    /// The info-hashes of the torrents to move.
    pub torrents: Vec<InfoHash>,
    /// The new position.
    pub to: QueueMove,
}

/// `POST /torrents/{info_hash}/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersRequest {
    /// Peers to connect to, `IP:PORT` or `HOST:PORT`.
    pub peers: Vec<String>,
}

/// `POST /block-list/reload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockListAnswer {
    /// The number of address ranges that it has now.
    pub ranges: u64,
}

/// A move in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueMove {
    /// To the front.
    Top,
    /// One place forward.
    Up,
    /// One place back.
    Down,
    /// To the end.
    Bottom,
}

/// The free space in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpace {
    /// The folder.
    pub path: PathBuf,
    /// Free bytes.
    pub free: u64,
    /// Total bytes of its file system.
    pub total: u64,
}

/// The use of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum FolderUse {
    /// For downloads.
    #[default]
    Output,
    /// For sharing it, or something in it.
    Share,
}

/// `GET /folders`: what the owner may choose in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderList {
    /// The requested folder, or its nearest existing ancestor.
    pub path: String,
    /// The folder above it, if that is allowed.
    pub parent: Option<String>,
    /// The folders to begin with.
    pub roots: Vec<String>,
    /// Names of the folders in it.
    pub folders: Vec<String>,
    /// Names of the files in it, for [`FolderUse::Share`].
    pub files: Vec<String>,
    /// Whether there are more than [`FolderList::MOST`].
    pub more: bool,
}

impl FolderList {
    /// Maximum number of listed names.
    pub const MOST: usize = 1_000;
}

/// `POST /test`: the daemon's test of its own peer port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortTest {
    /// The address that peers are told, if a tracker or this machine knows it.
    pub addr: Option<String>,
    /// Whether a connection of the daemon to its own listening port worked.
    pub open: bool,
    /// How long that took, in milliseconds.
    pub took_ms: f64,
    /// A sentence that says what went wrong, or `None`.
    pub error: Option<String>,
}

/// `GET /torrents`: the tracker's catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueAnswer {
    /// The tracker that answered.
    pub tracker: String,
    /// Its catalogue, as the tracker's own `GET /torrents` returns it.
    pub torrents: Vec<serde_json::Value>,
}

/// Reads a new rate limit. `null` means no limit, like 0. An omitted field does not reach this
/// function.
fn limit<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Option::<u64>::deserialize(from).map(|limit| Some(limit.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_null_is_told_from_one_that_is_left_out() {
        let read = |text: &str| serde_json::from_str::<TorrentChange>(text).unwrap();
        let change = read(r#"{"upload_limit": null}"#);
        assert_eq!((change.upload_limit, change.download_limit), (Some(0), None));
        let change = TorrentChange { download_limit: Some(7), ..TorrentChange::default() };
        assert_eq!(read(&serde_json::to_string(&change).unwrap()), change, "as clients write it");
    }
}
