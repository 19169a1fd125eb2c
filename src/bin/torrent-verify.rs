//! See `piecework::cli::verify`.

use std::process::ExitCode;

use piecework::cli::{Env, verify};

fn main() -> ExitCode {
    Env::start(verify::main).into()
}
