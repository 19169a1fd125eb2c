//! Piecework: a BitTorrent network that can always answer who holds which pieces, and who gave
//! them.
//!
//! This is the package of the programs. [`cli`] has their arguments, progress bars, tables and exit
//! codes. [`sim`] runs a whole swarm on one machine. Everything else is in other crates, which
//! ARCHITECTURE.md lists.

pub mod cli;
pub mod sim;
