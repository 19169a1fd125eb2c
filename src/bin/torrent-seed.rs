//! See `piecework::cli::seed`.

use std::process::ExitCode;

use piecework::cli::{Env, seed};

fn main() -> ExitCode {
    Env::start(seed::main).into()
}
