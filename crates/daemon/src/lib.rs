//! The daemon: many torrents in one [`Session`](piecework_engine::Session), with a queue, limits, and state
//! that survives restarts. It knows no HTTP: `piecework-control` serves it, and tests call it directly.
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
//! All torrents are in one table behind one lock, which is held for moments (`torrents.rs`). One task
//! (`queue_driver.rs`) collects changes and carries out what [`queue`] decides. A command that changes a
//! torrent holds that torrent's lock, first does what may fail, and returns once the change is on the disk.
//! `services.rs` has the parts that others are built on, `commands.rs` those that change something.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod block_list;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod heap;
pub mod journal_view;
pub mod queue;
pub mod state;

mod add;
mod add_fetched;
mod add_request;
mod allowed_folders;
mod background;
mod block_list_file;
mod caller;
mod catalogue;
mod change;
mod checks;
mod commands;
mod config;
mod daemon;
mod detail;
mod engine_settings;
mod entries;
mod entry;
mod error;
mod event_bus;
mod fetch;
mod folder_list;
mod givers;
mod hashing;
mod hooks;
mod install;
mod keeper;
mod lifetime;
mod link_follower;
mod linked;
mod listener;
mod loader;
mod magnet;
mod missing_bytes;
mod pending_work;
mod port_test;
mod provisional;
mod publish;
mod queue_driver;
mod queue_position;
mod queue_settings;
mod reason;
mod recent_changes;
mod record;
mod recorder;
mod recovery;
mod registration;
mod relocate;
mod remove;
mod rename;
mod restore;
mod run;
mod services;
mod settings;
mod settings_store;
mod share;
mod share_request;
mod shutdown;
mod space;
mod start;
mod status;
mod stored_state;
mod table;
mod torrent_files;
mod torrent_folder;
mod torrent_locks;
mod torrent_source;
mod torrents;
mod trackers;
mod unhashed;
mod view;
mod waiting;
mod watch_folder;

pub use add_request::{AddSource, NewTorrent};
pub use caller::Caller;
pub use catalogue::CatalogueRows;
pub use config::DaemonConfig;
pub use daemon::Daemon;
pub use detail::FileRows;
pub use engine_settings::encryption_policy;
pub use error::{DaemonError, StartError};
pub use givers::LogQuery;
pub use listener::Listener;
pub use reason::Reason;
pub use recorder::Recorder;
pub use rename::names_for;
pub use status::DaemonFigures;
pub use torrent_files::{TorrentFileError, read_torrent, token_path};
pub use torrent_folder::TorrentParts;
pub use unhashed::PendingSeed;
