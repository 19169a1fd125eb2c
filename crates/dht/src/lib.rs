//! A node of BitTorrent's distributed hash table (BEP 5), without I/O: peers of a torrent without a tracker.
//!
//! ```
//! use piecework_core::{InfoHash, Moment, Rng};
//! use piecework_dht::{AnnounceAs, Dht, DhtAction, DhtConfig, Family};
//!
//! let now = Moment::from_secs(1);
//! let node = |n: u8| Dht::new(DhtConfig::default(), [n; 32], Rng::from_seed(n.into()), now);
//! let mut nodes = [node(0), node(1), node(2)];
//! let addr = |n: usize| ([127, 0, 0, 1], 7000 + n as u16).into();
//! nodes[1].add_node(addr(0));
//! nodes[2].add_node(addr(0));
//! let hash = InfoHash([7; 20]);
//! let announce = AnnounceAs { port: 6881, implied_port: false, is_seed: true };
//! let mut found = Vec::new();
//! for at in 1..3 {
//!     nodes[at].find_peers(now, Family::V4, hash, (at == 1).then_some(announce));
//!     for round in 0..100 {
//!         for from in 0..nodes.len() {
//!             nodes[from].handle_timeout(now);
//!             while let Some(action) = nodes[from].poll() {
//!                 match action {
//!                     DhtAction::Send { to, bytes } => {
//!                         nodes[usize::from(to.port()) - 7000].handle_packet(now, addr(from), &bytes);
//!                     }
//!                     DhtAction::Peers { peers, .. } => found.extend(peers),
//!                     DhtAction::Ended { .. } => {}
//!                 }
//!             }
//!         }
//!     }
//! }
//! assert_eq!(found, [([127, 0, 0, 1], 6881).into()]);
//! ```
//!
//! [`Dht`] is a node in the networks of IPv4 and IPv6 (BEP 32). Its ids are tied to its addresses (BEP 42), which it
//! learns from other nodes. Everything that others cause is bounded: packets, memory, and time.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

mod address;
mod answerer;
mod dht;
pub mod krpc;
mod lookup;
mod node_id;
mod peer_store;
mod queries;
mod rate;
mod saved;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod votes;

pub use address::{Contact, Family};
pub use dht::{Dht, DhtAction, DhtConfig, DhtFigures};
pub use lookup::{AnnounceAs, LookupId, LookupReport};
pub use node_id::{Distance, NodeId};
