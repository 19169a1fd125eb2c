//! Layer 7: arguments, progress bars, tables, exit codes.
//!
//! Every program is a function from an [`Env`] to an [`Exit`], so that tests run whole programs in
//! process; the files in `src/bin` only pass on what the system gave them.

mod config;
mod console;
pub mod create;
mod env;
mod error;
pub mod format;
mod generate;
pub mod peer;
mod progress;
mod screen;
pub mod show;
pub mod sim;
mod torrent_file;
pub mod tracker;
pub mod verify;

pub use config::{Config, PeerConfig};
pub use env::{Captured, Env, Input, Output};
pub use error::{CliError, Exit};
pub use format::Paint;
pub use screen::{Commands, Screen, Typed};
