//! A whole swarm on one machine: a tracker, seeders and leechers in one process, over
//! real sockets on loopback.

mod content;
mod local_swarm;
mod local_tracker;

pub use content::{Content, TempFolder};
pub use local_swarm::{Copy, LocalSwarm, Member, SimError, SimOptions, Tally};
