//! A BitTorrent network in virtual time.
//!
//! The peers decide with the shipped [`Swarm`](piecework_swarm::Swarm) and
//! [`Announcer`](piecework_swarm::announcer::Announcer), and the tracker with the shipped
//! [`Registry`](piecework_registry::Registry). Only links, disks and the clock are simulated.
//!
//! A [`Scenario`] describes a network. [`World::new`] builds it from a seed, [`World::run_until`] lets time
//! pass, and [`World::report`] returns what happened. The same scenario and seed give the same events in
//! the same order on every machine ([`World::take_log`]).
//!
//! # Links
//!
//! Every peer has an uplink and a downlink. An uplink sends one block at a time and serves the connections
//! in turn. A downlink is a queue in which each connection may have a bounded number of blocks. Round robin
//! with a window for each connection converges to max-min fair rates (Hahne, "Round-robin scheduling for
//! max-min fairness in data networks", 1991), in whole nanoseconds and at constant cost per block.
//! Recomputing the rates of a fluid model would cost as much as there are connections each time one of them
//! starts or stops.
//!
//! # What is checked
//!
//! A run stops with a [`Failure`], which names the seed, when a peer
//!
//! - holds a piece whose bytes differ from the torrent's,
//! - requests something that does not exist or that the other side does not hold,
//! - serves a piece that it has not verified,
//! - bans a peer that never sent a wrong block,
//! - keeps more blocks in memory than it may,
//! - or does not complete although it could.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

mod bound;
mod connection;
mod events;
mod line;
mod node;
mod oracle;
mod report;
mod scenario;
mod world;

#[cfg(test)]
mod tests;

pub use bound::{Bound, broadcast_bound};
pub use oracle::{Failure, Violation};
pub use report::{GroupReport, Report, Spread, UplinkShares};
pub use scenario::{Addresses, Choke, Content, Leave, PeerGroup, Scenario, ScenarioError};
pub use world::{RunOutcome, World};
