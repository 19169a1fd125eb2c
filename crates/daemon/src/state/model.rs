//! What the state keeps of a torrent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use piecework_core::{Checkpoint, InfoHash};

/// All that the state keeps of one torrent. The torrent itself is its `.torrent` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Name of its `.torrent` file in the folder of torrents.
    pub file: String,
    /// Folder of its content. May be other than UTF-8.
    pub root: PathBuf,
    /// When it was added, in seconds since 1970.
    pub added_at: i64,
    /// When its last wanted piece arrived, in seconds since 1970.
    pub done_at: Option<i64>,
    /// Its settings, in a form that only the layer above knows (JSON).
    pub settings: String,
    /// What is known for certain about its files. If `None`, everything has to be checked. The
    /// reader has to check that the numbers of pieces and files are those of the torrent.
    pub checkpoint: Option<Checkpoint>,
    /// Totals over its whole life.
    pub counters: Counters,
}

/// Totals over a torrent's whole life. Those that an older version did not know are read as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Seconds for which it ran with wanted pieces missing.
    pub seconds_downloading: u64,
    /// Seconds for which it ran with all wanted pieces.
    pub seconds_seeding: u64,
    /// When payload was last transferred, in seconds since 1970.
    pub last_active_at: Option<i64>,
    /// Bytes received in pieces whose hash was wrong.
    pub corrupt_bytes: u64,
    /// Bytes received in blocks that were there already.
    pub redundant_bytes: u64,
}

/// A change of a torrent. Fields that are `None` stay as they are.
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

/// The contents of the file when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The torrents, by info-hash.
    pub torrents: Vec<Saved>,
    /// What [`State::set_settings`](super::State::set_settings) kept.
    pub settings: Option<String>,
    /// A notice for users: the file was damaged, and this is lost.
    pub notice: Option<String>,
    /// Torrents may be missing, because the file is new or was damaged.
    pub incomplete: bool,
    /// The program that had it open before closed it properly, or the file is new. Otherwise that
    /// program was killed or the power failed, and the last checkpoints may be missing.
    pub clean: bool,
}
