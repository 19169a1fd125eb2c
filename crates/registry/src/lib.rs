//! The state of a tracker: torrents, peers, expiry, peer selection and holdings. No I/O.
//!
//! ```
//! use std::time::Duration;
//! use piecework_proto::announce::Announce;
//! use piecework_core::{InfoHash, Moment, PeerId, Rng};
//! use piecework_registry::{Registry, RegistryConfig, PeerQuery};
//!
//! let mut registry = Registry::new(RegistryConfig::default(), 1);
//! let mut rng = Rng::from_seed(1);
//! let hash = InfoHash([7; 20]);
//! for (n, left) in [(1, 0), (2, 99)] {
//!     let announce = Announce::new(hash, PeerId([n; 20]), 6881, left);
//!     let from = [10, 0, 0, n].into();
//!     let answer = registry.announce(Moment::START, &mut rng, from, &announce, PeerQuery::any(50));
//!     assert_eq!(answer.unwrap().peers.len(), usize::from(n) - 1);
//! }
//! registry.expire(Moment::START + Duration::from_secs(3600), 1000);
//! assert_eq!(registry.stats().peers, 0);
//! ```
//!
//! [`Registry`] is one shard: a driver may keep several, each with its own lock, and assign torrents to them by
//! info-hash. An answer first contains peers that were seen to accept connections, then peers that were not
//! checked, then peers that refused. Peers that may be gone are used only if there are no others. The cost of each
//! call is bounded: an announce examines a bounded number of peers, and [`Registry::expire`] as many as its caller
//! allows, so that there is never a pause for a sweep.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

mod admit;
mod announce;
mod answers;
mod availability;
mod catalogue;
mod changed_counts;
mod changes;
#[cfg(any(test, feature = "fuzzing"))]
mod check;
mod choice;
mod config;
mod expiry;
mod growth;
mod guesses;
mod holdings;
mod kept;
mod ledger;
mod observed_bitfield;
mod observer;
mod observer_events;
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
mod swarm_view;
#[cfg(test)]
mod tests;
mod torrent;
mod view;
mod walk;
mod watch;

pub use answers::{AnnounceAnswer, HandedPeer, PeerQuery, Refusal, Reporter};
pub use availability::Copies;
pub use changes::{PieceGain, SwarmChanges};
pub use config::RegistryConfig;
pub use expiry::ExpiryReport;
pub use holdings::{Holdings, HoldingsSource};
pub use kept::{KeptHoldings, KeptPeer, KeptRoom, KeptScope};
pub use ledger::{Load, Pulse};
pub use observed_bitfield::{HoldingsUpdate, ObservedBitfield, ObservedBitfieldError};
pub use observer::{
    Observer, ObserverAction, ObserverConfig, ObserverEvent, ObserverFigures, VisitEnd, VisitKey,
};
pub use observing::takes_several;
pub use registry::Registry;
pub use select::Selection;
pub use swarm_view::{AtRisk, Remainder, RiskGroup, SwarmView};
pub use view::{FoundPeer, LoadEntry, PeerView, RegistryStats, SwarmCounts, TorrentView};
pub use watch::{Departure, DepartureCause};
