//! Piecework: a BitTorrent network whose members can always answer which pieces are in whose
//! hands, and who gave them.
//!
//! This is the package of the programs: [`cli`] has the arguments, bars, tables and exit codes of
//! each, [`sim`] runs a whole swarm on one machine. All else is in the crates that it uses;
//! ARCHITECTURE.md has their table.

pub mod cli;
pub mod sim;
