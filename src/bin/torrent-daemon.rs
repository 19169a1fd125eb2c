//! See `piecework::cli::daemon`.

use std::process::ExitCode;

use piecework::cli::{Env, daemon};

fn main() -> ExitCode {
    Env::start(daemon::main).into()
}
