//! See `piecework::cli::remove`.

use std::process::ExitCode;

use piecework::cli::{Env, remove};

fn main() -> ExitCode {
    Env::start(remove::main).into()
}
