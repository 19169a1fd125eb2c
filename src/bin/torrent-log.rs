//! See `piecework::cli::log`.

use std::process::ExitCode;

use piecework::cli::{Env, log};

fn main() -> ExitCode {
    Env::start(log::main).into()
}
