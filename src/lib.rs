//! Piecework: a BitTorrent network that can always answer who holds which pieces, and who gave
//! them.
//!
//! This is the package of the programs. [`cli`] has their arguments, progress bars, tables and exit
//! codes. [`sim`] runs a whole swarm on one machine. Everything else is in other crates, which
//! ARCHITECTURE.md lists.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

pub mod cli;
pub mod sim;
