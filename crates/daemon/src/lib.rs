//! The daemon: many torrents over a [`Session`](piecework_engine::Session), kept over
//! restarts, queued, limited, watched. It knows no HTTP; `piecework-control` serves it, a test drives it
//! directly.
//!
//! ```no_run
//! use piecework_daemon::{Daemon, DaemonConfig};
//!
//! # async fn run(config: DaemonConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let daemon = Daemon::start(config).await?;
//! for info_hash in daemon.hashes() {
//!     println!("{}", daemon.shown(info_hash)?.name);
//! }
//! daemon.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! All torrents stand in one book behind one lock, held for moments; one task ([`driver`]) takes
//! in what changed and carries out what [`queue`] decides. What changes a torrent
//! holds that torrent's door, does what may fail first, and is on the disk when it returns.

pub mod block_list;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod heap;
pub mod journal_view;
pub mod queue;
pub mod state;

mod add;
mod alter;
mod blocked;
mod book;
mod caller;
mod catalogue;
mod config;
mod detail;
mod display;
mod driver;
mod error;
mod facade;
mod files;
mod folders;
mod givers;
mod hooks;
mod inner;
mod inspect;
mod keeper;
mod kept;
mod listen;
mod magnet;
mod making;
mod overview;
mod port;
mod ranks;
mod recent;
mod recorder;
mod register;
mod rename;
mod room;
mod roots;
mod seed;
mod settings;
mod start;
mod stopping;
mod tally;
mod unfinished;
mod waiting;
mod watch;

pub use caller::Caller;
pub use catalogue::CatalogueRows;
pub use config::DaemonConfig;
pub use detail::FileRows;
pub use error::{DaemonError, StartError};
pub use facade::{AddSource, Daemon, NewTorrent};
pub use files::{read_torrent, token_path};
pub use givers::LogQuery;
pub use listen::Listener;
pub use making::BegunSeed;
pub use overview::{Figures, TorrentParts};
pub use recorder::Recorder;
pub use rename::names_for;
pub use start::encryption_policy;
