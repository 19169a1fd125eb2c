//! What a daemon is started with.

use std::path::PathBuf;

use piecework_api::Settings;
use piecework_engine::SessionConfig;
use piecework_journal::JournalOptions;

/// What a daemon is started with and what does not change while it runs.
#[derive(Clone)]
pub struct DaemonConfig {
    /// The engine: listening addresses, memory, threads. Limits and numbers of peers are taken
    /// from `settings`.
    pub session: SessionConfig,
    /// What can be changed while it runs, as the configuration file has it. What was changed in an
    /// earlier run goes above it.
    pub settings: Settings,
    /// Folder the `.torrent` files are kept in, absolute.
    pub torrents: PathBuf,
    /// SQLite file of the state, absolute.
    pub state: PathBuf,
    /// The tracker that catalogues and names are asked of, and that seeds are registered with:
    /// `IP:PORT` or a URL; `None`: none.
    pub tracker: Option<String>,
    /// Folders that requests may name for output, absolute; the downloads folder is always one.
    pub download_roots: Vec<PathBuf>,
    /// Folders whose files may be seeded by request, absolute; empty: all that the daemon may read.
    pub seed_roots: Vec<PathBuf>,
    /// File of the block list, absolute; read again when it changes.
    pub block_list: Option<PathBuf>,
    /// Responses that the log of pieces remembers.
    pub log_records: usize,
    /// Where and how the journal is kept; `None`: there is none, and the log of pieces is in memory.
    pub journal: Option<JournalOptions>,
}
