//! See `piecework::cli::status`.

use std::process::ExitCode;

use piecework::cli::{Env, status};

fn main() -> ExitCode {
    Env::start(status::main).into()
}
