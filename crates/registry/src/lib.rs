//! The state of a tracker in domain types: peers, expiry, selection, holdings. No I/O.
//!
//! ```
//! use std::time::Duration;
//! use piecework_proto::announce::Announce;
//! use piecework_core::{InfoHash, Moment, PeerId, Rng};
//! use piecework_registry::{Registry, RegistryConfig, Want};
//!
//! let mut registry = Registry::new(RegistryConfig::default(), 1);
//! let mut rng = Rng::from_seed(1);
//! let hash = InfoHash([7; 20]);
//! for (n, left) in [(1, 0), (2, 99)] {
//!     let announce = Announce::new(hash, PeerId([n; 20]), 6881, left);
//!     let from = [10, 0, 0, n].into();
//!     let answer = registry.announce(Moment::START, &mut rng, from, &announce, Want::any(50));
//!     assert_eq!(answer.unwrap().peers.len(), usize::from(n) - 1);
//! }
//! registry.expire(Moment::START + Duration::from_secs(3600), 1000);
//! assert_eq!(registry.stats().peers, 0);
//! ```
//!
//! [`Registry`] is one shard: a driver may keep several, each with the torrents whose info-hash
//! falls to it, and lock them apart. Whom an announce gets to know are first those that were seen to
//! take connections, then those of whom that is not known, then those that refused; those that may be
//! gone only where there is nobody else. Cost follows
//! what is asked: an announce looks at a bounded number of peers, and [`Registry::expire`] at as many as its caller allows, so that nothing
//! ever pauses for a sweep.

#![warn(missing_docs)]

mod admit;
mod announce;
mod answers;
mod availability;
mod catalogue;
mod changes;
#[cfg(any(test, feature = "fuzzing"))]
mod check;
mod choice;
mod config;
mod expiry;
mod growth;
mod guesses;
mod held;
mod kept;
mod ledger;
mod observer;
mod observing;
mod openers;
mod opening;
mod peer_ids;
mod peers;
mod queries;
mod registry;
mod report;
mod restart;
mod select;
mod sight;
mod sightings;
mod swarm_view;
#[cfg(test)]
mod tests;
mod torrent;
mod touched;
mod view;
mod watch;

pub use answers::{Answer, Handed, Refusal, Reporter, Want};
pub use availability::Copies;
pub use changes::{Grown, SwarmChanges};
pub use config::RegistryConfig;
pub use expiry::Expired;
pub use held::{Held, HoldingsSource};
pub use kept::{KeptHeld, KeptOf, KeptPeer, KeptRoom};
pub use ledger::{Assigned, Pulse};
pub use observer::{
    Observer, ObserverAction, ObserverConfig, ObserverFigures, Sighting, VisitEnd, VisitKey,
};
pub use observing::takes_several;
pub use registry::Registry;
pub use select::Selection;
pub use sight::{Seen, Sight, SightError};
pub use swarm_view::{AtRisk, RiskGroup, SwarmView, Without};
pub use view::{FoundPeer, LoadEntry, PeerView, RegistryStats, SwarmCounts, TorrentView};
pub use watch::{Gone, GoneWhy};
