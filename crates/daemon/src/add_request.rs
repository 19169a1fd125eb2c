//! What is asked for when a torrent is added.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::DaemonError;
use super::torrent_source::decode;
use piecework_api::{Source, TorrentSettings};

/// Where a torrent that is added comes from.
#[derive(Debug, Clone)]
pub enum AddSource {
    /// The bytes of a `.torrent`.
    Bytes(Vec<u8>),
    /// A `.torrent` on this machine, absolute.
    File(PathBuf),
    /// A web address of a `.torrent`.
    Url(String),
    /// A name or info-hash in the catalogue of a tracker; `None`: the configured one.
    Catalogue {
        /// Name or info-hash.
        name: String,
        /// `IP:PORT` or a URL.
        tracker: Option<String>,
    },
}

/// A torrent to be added, whichever interface the request came through.
#[derive(Debug, Clone)]
pub struct NewTorrent {
    /// Where its `.torrent` comes from.
    pub source: AddSource,
    /// Folder to download into; relative to the downloads folder; `None`: that folder. Must lie in
    /// an allowed root.
    pub folder: Option<PathBuf>,
    /// Its settings. `paused` is taken as it is: the caller considers `start_added`.
    pub settings: TorrentSettings,
    /// Only these files are wanted, such as `1,3-5`.
    pub only_files: Option<String>,
    /// Trackers besides its own.
    pub trackers: Vec<String>,
    /// Initial peers.
    pub peers: Vec<SocketAddr>,
    /// Name of its file or folder, in place of the torrent's own.
    pub rename: Option<String>,
    /// Replace files that have the same names but other content.
    pub overwrite: bool,
}

impl NewTorrent {
    /// Returns a request that chooses nothing but the settings: the downloads folder, and the torrent's own files,
    /// trackers and names.
    pub fn new(source: AddSource, settings: TorrentSettings) -> Self {
        Self {
            source,
            folder: None,
            settings,
            only_files: None,
            trackers: Vec::new(),
            peers: Vec::new(),
            rename: None,
            overwrite: false,
        }
    }
}

impl AddSource {
    /// Returns the source that a request of the native API names.
    pub(super) fn from_request(source: Source) -> Result<Self, DaemonError> {
        Ok(match source {
            Source::Torrent(text) => Self::Bytes(decode(&text)?),
            Source::Catalogue { name, tracker } => Self::Catalogue { name, tracker },
            Source::File(path) => Self::File(path),
            Source::Url(url) => Self::Url(url),
        })
    }
}
