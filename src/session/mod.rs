//! Layer 4: owns the swarms, pumps their events and actions: the public API of the engine.
//!
//! A [`Session`] has one set of listening sockets, one memory budget, one hash service and any
//! number of torrents. Each torrent is one task that owns its [`Swarm`](crate::swarm::Swarm)
//! alone and only pumps: what peers, disks and trackers said goes in, what the swarm wants done is
//! done. A fault of a peer costs that peer, a fault of a torrent pauses that torrent.

mod assembly;
mod config;
mod engine;
mod handle;
mod holdings;
mod rates;
mod run;
mod shared;
mod source;
mod status;
mod torrent;
mod trackers;

pub use config::{AddTorrent, Keeper, SessionConfig, TorrentOptions};
pub use engine::{AddError, Changes, Session, StartError};
pub use handle::TorrentHandle;
pub use status::{
    Observer, PeerStatus, PieceGiver, TorrentError, TorrentEvent, TorrentState, TorrentStatus,
};
