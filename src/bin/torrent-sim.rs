//! See `piecework::cli::sim`.

use std::process::ExitCode;

use piecework::cli::{Env, sim};

fn main() -> ExitCode {
    Env::start(sim::main).into()
}
