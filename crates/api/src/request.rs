//! What the daemon can be asked to do, and its answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::SeedLimit;
use piecework_core::{InfoHash, Priority};

/// `GET /`: the daemon is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// `piecework`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// The port it accepts peers on.
    pub peer_port: u16,
    /// The configured tracker: `IP:PORT` or URL.
    #[serde(default)]
    pub tracker: Option<String>,
    /// Whoever asks is the owner, and not a guest.
    #[serde(default)]
    pub owner: bool,
}

/// `POST /inspect`: what a torrent holds, without adding it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectRequest {
    /// The torrent.
    pub source: Source,
}

/// Answer to `POST /inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Which.
    pub info_hash: InfoHash,
    /// Its name.
    pub name: String,
    /// Bytes in all.
    pub bytes: u64,
    /// Peers come from its trackers alone.
    pub private: bool,
    /// The maker's comment.
    pub comment: Option<String>,
    /// It is here already.
    pub here: bool,
    /// Number of files, padding not counted.
    pub files: u32,
    /// The first [`Inspected::MOST_FILES`] of them: path and bytes.
    pub file_list: Vec<(String, u64)>,
    /// What is repaired in its names and what is left out, sentences.
    pub warnings: Vec<String>,
}

impl Inspected {
    /// Files that are listed. A page that shows more helps nobody choose, and costs megabytes.
    pub const MOST_FILES: usize = 10_000;
}

/// Answer to any request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Why, in a sentence to act on.
    pub error: String,
}

/// `POST /seed`: make a torrent of something on the daemon's machine, or take a made one, and
/// serve it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedRequest {
    /// The file or folder to share, absolute. A name in it that is not UTF-8 is written as
    /// [`text_of_name`](piecework_core::text_of_name) does.
    pub input: PathBuf,
    /// A `.torrent` of it that exists already: its bytes in base64. `input` is then checked
    /// against it.
    pub torrent: Option<String>,
    /// Keep it out of catalogues, and mark it private (BEP 27).
    pub private: bool,
    /// Bytes a piece, a power of two from 16 KiB; `None` chooses by size.
    pub piece_length: Option<u32>,
    /// Trackers by tier, beside those of `torrent`. Empty: the configured one.
    pub trackers: Vec<Vec<String>>,
    /// Announce a private `torrent` to `trackers` too, although it does not name them, and register
    /// it there.
    pub publish_private: bool,
    /// Where the `.torrent` is to be written as well, absolute; `None`: only in the daemon's
    /// torrents folder.
    pub torrent_out: Option<PathBuf>,
    /// The name it is registered under, in place of the file's.
    pub name: Option<String>,
    /// A comment in the torrent and in the catalogue.
    pub description: Option<String>,
    /// What people call it.
    pub labels: Vec<String>,
    /// Share what symbolic links inside the folder lead to.
    pub follow_links: bool,
    /// Patterns of files and folders that are left out.
    pub exclude: Vec<String>,
    /// Leave out what begins with a dot.
    pub no_hidden: bool,
    /// A word inside what is hashed.
    pub source: Option<String>,
    /// Answer once everything is hashed, which is usual, or at once if `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

impl SeedRequest {
    /// The info-hash under which the torrent is listed until it is hashed. Equal requests have the
    /// same, whether they wait or not. `None` if a path is not UTF-8, which JSON cannot hold.
    pub fn provisional_hash(&self) -> Option<InfoHash> {
        if self.wait.is_some() {
            return Self { wait: None, ..self.clone() }.provisional_hash();
        }
        let mut hashed = Hashed(Sha1::new());
        // No dictionary begins so: it is never the info-hash of a torrent.
        hashed.0.update(b"hashing ");
        serde_json::to_writer(&mut hashed, self).ok()?;
        Some(InfoHash(hashed.0.finalize().into()))
    }
}

/// Hashes what is written, so that a request with a `.torrent` of 100 MiB is not copied for that.
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

/// `POST /leech`: download.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeechRequest {
    /// What to download.
    pub source: Source,
    /// Folder to download into: absolute, or beneath the downloads folder. `None`: that folder.
    pub output: Option<PathBuf>,
    /// Do not start it yet.
    pub paused: Option<bool>,
    /// How much each file is wanted, in order; those behind the end are normal.
    pub files: Vec<Priority>,
    /// Only these files, as people write them: `1,3-5`. Goes above `files`.
    pub only_files: Option<String>,
    /// Pieces in their order.
    pub sequential: Option<bool>,
    /// Bytes a second sent at most.
    pub upload_limit: Option<u64>,
    /// Bytes a second taken at most.
    pub download_limit: Option<u64>,
    /// Connections at most.
    pub max_peers: Option<u32>,
    /// Stop seeding at this ratio.
    pub seed_ratio: SeedLimit<f64>,
    /// Stop seeding after this many seconds.
    pub seed_time: SeedLimit<u64>,
    /// What people call it.
    pub labels: Vec<String>,
    /// Trackers besides its own.
    pub trackers: Vec<String>,
    /// Peers to begin with, `IP:PORT` or `HOST:PORT`.
    pub peers: Vec<String>,
    /// Its place in line when bandwidth is short.
    pub bandwidth: Option<Priority>,
    /// The name its file or folder gets in place of the torrent's own.
    pub rename: Option<String>,
    /// Replace files that have the names of its files and are not its own.
    pub overwrite: bool,
}

/// Where a torrent to download comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The bytes of its `.torrent`, in base64.
    Torrent(String),
    /// A name or info-hash in a tracker's catalogue.
    Catalogue {
        /// Name or info-hash.
        name: String,
        /// The tracker, `IP:PORT` or a URL; `None`: the configured one.
        tracker: Option<String>,
    },
    /// A `.torrent` on the daemon's machine, absolute.
    File(PathBuf),
    /// A `.torrent` to be fetched over HTTP.
    Url(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Torrent(String::new())
    }
}

/// A torrent was added, or was there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Which.
    pub info_hash: InfoHash,
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// It was there already; nothing was changed.
    pub duplicate: bool,
    /// What it was registered with, if it was: the tracker.
    pub tracker: Option<String>,
    /// What did not work on the side (a tracker that could not be reached), in sentences.
    pub warnings: Vec<String>,
}

/// `PATCH /torrents/{info_hash}`: change what was chosen for a torrent. What is left out stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TorrentChange {
    /// Bytes a second sent at most; 0, or `null` in the JSON, is no limit.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub upload_limit: Option<u64>,
    /// Bytes a second taken at most; likewise.
    #[serde(deserialize_with = "limit", skip_serializing_if = "Option::is_none")]
    pub download_limit: Option<u64>,
    /// The daemon's limits hold for it too.
    pub session_limits: Option<bool>,
    /// Connections at most; 0 is the daemon's number.
    pub max_peers: Option<u32>,
    /// Its place in line when bandwidth is short.
    pub bandwidth: Option<Priority>,
    /// Pieces in their order.
    pub sequential: Option<bool>,
    /// Files, by number from 0, and how much they are wanted now.
    pub files: Vec<(u32, Priority)>,
    /// Only these files, as people write them: `1,3-5`; all others are skipped.
    pub only_files: Option<String>,
    /// What people call it, all of it.
    pub labels: Option<Vec<String>>,
    /// Stop seeding at this ratio.
    pub seed_ratio: Option<SeedLimit<f64>>,
    /// Stop seeding after this many seconds.
    pub seed_time: Option<SeedLimit<u64>>,
    /// Stop seeding after this many seconds without a byte sent.
    pub seed_idle: Option<SeedLimit<u64>>,
    /// Trackers by tier, all of them.
    pub trackers: Option<Vec<Vec<String>>>,
    /// Its place among the torrents, the first is 0.
    pub queue_position: Option<u32>,
    /// The group it shares limits with.
    pub group: Option<String>,
}

/// `POST /torrents/{info_hash}/move`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The folder its name is to lie in.
    pub folder: PathBuf,
    /// The data is there already: look for it there instead of moving it.
    #[serde(default)]
    pub find: bool,
}

/// `POST /torrents/{info_hash}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// What is renamed: a path as [`FileInfo::path`](super::FileInfo::path) shows it, or a folder
    /// that such paths begin with.
    pub path: String,
    /// Its new name, without a `/`.
    pub name: String,
}

/// `DELETE /torrents/{info_hash}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveRequest {
    /// Delete its files as well.
    pub delete_data: bool,
    /// Take it out of the tracker's catalogue, if we registered it.
    pub unregister: bool,
}

/// `POST /torrents/{info_hash}/queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRequest {
    /// Where to.
    pub to: QueueMove,
}

/// `POST /queue`: moves several torrents together, in their present order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueAllRequest {
    /// Which.
    pub torrents: Vec<InfoHash>,
    /// Where to.
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
    /// Ranges of addresses that it has now.
    pub ranges: u64,
}

/// Where to in the queue.
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

/// Room in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpace {
    /// The folder.
    pub path: PathBuf,
    /// Bytes free.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a folder is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum FolderUse {
    /// Downloads go there.
    #[default]
    Output,
    /// It, or something in it, is shared.
    Share,
}

/// `GET /folders`: what may be chosen in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderList {
    /// The folder: the one that was asked for, or the nearest above it that is there.
    pub path: String,
    /// The one above it, if that may be chosen from as well.
    pub parent: Option<String>,
    /// The folders to begin with.
    pub roots: Vec<String>,
    /// Names of the folders in it.
    pub folders: Vec<String>,
    /// Names of the files in it, if something is to be shared.
    pub files: Vec<String>,
    /// There are more than [`FolderList::MOST`].
    pub more: bool,
}

impl FolderList {
    /// Names that are listed.
    pub const MOST: usize = 1_000;
}

/// `POST /test`: what the daemon finds when it looks at itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortTest {
    /// Address peers are told, if a tracker or this machine knows it.
    pub addr: Option<String>,
    /// Somebody could connect to it: here a connection of our own to our listening port.
    pub open: bool,
    /// How long that took, milliseconds.
    pub took_ms: f64,
    /// What went wrong, in a sentence.
    pub error: Option<String>,
}

/// `GET /torrents`: the tracker's catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueAnswer {
    /// Which tracker answered.
    pub tracker: String,
    /// What it has, as the tracker's own `GET /torrents` gives it.
    pub torrents: Vec<serde_json::Value>,
}

/// A rate limit that is to hold from now on: `null` is no limit, as 0 is. What is left out is not
/// read by this.
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
