//! The BitTorrent engine: sessions of any number of torrents, over sockets and files.
//!
//! ```no_run
//! use std::sync::Arc;
//! use piecework_core::metainfo::{Metainfo, ParseLimits};
//! use piecework_engine::{AddTorrent, Session, SessionConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = std::fs::read("linux.iso.torrent")?;
//! let metainfo = Arc::new(Metainfo::parse(&bytes, &ParseLimits::default())?);
//! let session = Session::start(SessionConfig::default())?;
//! let torrent = session.add(AddTorrent::new(metainfo, "downloads"))?;
//! torrent.completed().await?;
//! println!("{} bytes are here", torrent.status().bytes_have);
//! session.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` has programs that download, seed, tell who gave what, and keep content elsewhere than in
//! files.
//!
//! A [`Session`] has one set of listening sockets, one memory budget, one hash service and any
//! number of torrents. A torrent with something to do is one task that owns its
//! [`Swarm`](piecework_swarm::Swarm) alone and only pumps: it passes on what peers, disks and
//! trackers say, and carries out what the swarm wants done. A torrent with nothing to do is asleep,
//! and costs no task. A fault of a peer costs that peer, a fault of a torrent pauses that torrent.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod net;
pub mod tracker_client;

mod accept;
mod announce_scheduler;
mod assembly;
mod background;
mod begun_torrents;
mod changes;
mod check_slots;
mod check_workers;
mod checking;
mod claims;
mod complaints;
mod config;
mod connections;
mod counters;
mod descriptors;
mod dht;
mod discovery;
mod doubt;
mod entry;
mod error;
mod file_work;
mod gate;
mod handle;
mod holdings;
mod identity;
mod lifecycle;
mod local_discovery;
mod means;
mod memory;
mod metadata_fetch;
mod metadata_inputs;
mod metadata_peer;
mod mounts;
mod own_address;
mod owners;
mod ownership;
mod places;
mod prepare;
mod rates;
mod record;
mod reporter;
mod run;
mod session;
mod shutdown;
mod start_slots;
mod status;
mod store_source;
mod survey;
mod task;
mod torrent;
mod torrents;
mod wants;

pub use changes::Changes;
pub use config::{AddTorrent, DhtOptions, Keeper, SessionConfig, TorrentOptions};
pub use counters::SessionFigures;
pub use descriptors::raise_file_limit;
pub use error::{PathConflict, PathTaken, StrangeFiles, TorrentError};
pub use handle::TorrentHandle;
pub use metadata_fetch::{FetchedMetadata, MetadataError, MetadataRequest};
pub use owners::folder_identity;
pub use session::{AddError, Session, StartError};
pub use shutdown::ShutdownReport;
pub use status::{
    Observer, PeerStatus, PieceGiver, SentPart, StatusSummary, TorrentEvent, TorrentState,
    TorrentStatus, Waited,
};
