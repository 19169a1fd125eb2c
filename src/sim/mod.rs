//! A whole swarm on one machine: a tracker, seeders and leechers in one process, over
//! real sockets on loopback.

mod content;
mod home;
mod local;

pub use content::{Content, TempFolder};
pub use local::{Copy, LocalSwarm, Member, SimError, SimOptions, Tally};
