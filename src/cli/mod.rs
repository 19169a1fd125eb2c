//! The command line: arguments, progress bars, tables, exit codes.
//!
//! Every program is a function from an [`Env`] to an [`Exit`], so tests can run whole programs in
//! their own process. The files in `src/bin` only pass the environment on.

mod command_line;
mod completion;
mod config;
mod config_keys;
mod console;
pub mod create;
pub mod daemon;
mod default_paths;
mod env;
mod error;
mod exit_deadline;
pub mod fetch;
mod follow;
pub mod format;
mod generate;
pub mod leech;
mod live_lines;
mod live_stderr;
pub mod log;
mod logging;
mod man;
mod notify;
mod output;
mod paths;
pub mod peer;
mod pick;
mod progress;
mod remote;
pub mod remove;
mod run;
mod screen;
pub mod seed;
pub mod set;
pub mod show;
mod signals;
pub mod sim;
pub mod status;
pub mod test;
mod token;
mod torrent_file;
pub mod tracker;
pub mod verify;

pub use config::{Config, PeerConfig};
pub use env::{Env, Input};
pub use error::{CliError, Exit};
pub use format::Paint;
pub use logging::{LogArgs, LogConfig};
pub use output::{Captured, Output};
pub use screen::{Commands, ConsoleInput, Screen};
