//! What a daemon is started with.

use std::path::PathBuf;

use piecework_api::Settings;
use piecework_engine::SessionConfig;
use piecework_journal::JournalOptions;

/// What a daemon is started with and what does not change while it runs.
#[derive(Clone)]
pub struct DaemonConfig {
    /// The engine: listening addresses, memory, threads. Rate limits and numbers of peers are taken
    /// from `settings`.
    pub session: SessionConfig,
    /// What can be changed while it runs, as in the configuration file. Changes of earlier runs
    /// override it.
    pub settings: Settings,
    /// Folder of the `.torrent` files, absolute.
    pub torrents: PathBuf,
    /// SQLite file of the state, absolute.
    pub state: PathBuf,
    /// The tracker whose catalogue is used, and that seeds are registered with: `IP:PORT` or a URL.
    pub tracker: Option<String>,
    /// Folders that requests may name for output, absolute; the downloads folder is always one.
    pub download_roots: Vec<PathBuf>,
    /// Folders whose files may be shared by request, absolute. If empty, all files that the daemon
    /// can read.
    pub seed_roots: Vec<PathBuf>,
    /// File of the block list, absolute; read again when it changes.
    pub block_list: Option<PathBuf>,
    /// Number of responses that the log of pieces remembers.
    pub log_records: usize,
    /// Where and how the journal is kept. If `None`, there is only a log of pieces in memory.
    pub journal: Option<JournalOptions>,
}
