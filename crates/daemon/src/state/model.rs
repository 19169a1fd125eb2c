//! What is kept of a torrent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use piecework_core::{Checkpoint, InfoHash};

/// All that is kept of one torrent. The torrent itself is its `.torrent` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Name of its `.torrent` file in the folder of torrents.
    pub file: String,
    /// Folder its content lies in. Need not be UTF-8.
    pub root: PathBuf,
    /// When it was added, seconds since 1970.
    pub added_at: i64,
    /// When its last wanted piece came, seconds since 1970.
    pub done_at: Option<i64>,
    /// Its settings, in a form that only the layer above knows (JSON).
    pub settings: String,
    /// What is known for certain about its files. `None`: nothing, all is to be checked. Whether
    /// it has as many pieces and files as the torrent is for the reader to see.
    pub checkpoint: Option<Checkpoint>,
    /// Sums over its whole life.
    pub counters: Counters,
}

/// Sums over a torrent's whole life. One that an older program did not know is 0 when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Seconds it ran with wanted pieces missing.
    pub seconds_downloading: u64,
    /// Seconds it ran with all wanted pieces there.
    pub seconds_seeding: u64,
    /// When payload last came or went, seconds since 1970.
    pub last_active_at: Option<i64>,
    /// Bytes received in pieces whose hash was wrong.
    pub corrupt_bytes: u64,
    /// Bytes received of blocks that were there already.
    pub redundant_bytes: u64,
}

/// A change of a torrent: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// A new [`Saved::root`].
    pub root: Option<PathBuf>,
    /// A new [`Saved::done_at`]; `Some(None)` if a piece is wanted again.
    pub done_at: Option<Option<i64>>,
    /// New [`Saved::settings`].
    pub settings: Option<String>,
    /// New [`Saved::counters`].
    pub counters: Option<Counters>,
}

/// What the file held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The torrents, by info-hash.
    pub torrents: Vec<Saved>,
    /// What [`State::set_settings`](super::State::set_settings) kept.
    pub settings: Option<String>,
    /// What people should know: the file was damaged, and this is lost.
    pub notice: Option<String>,
    /// There may have been torrents that are not among these: the file is new, or was damaged.
    pub incomplete: bool,
    /// The program that had it before closed it; so did nobody if the file is new. Otherwise that
    /// one was killed or the power failed, and its last checkpoints may be missing.
    pub clean: bool,
}
