//! See `piecework::cli::leech`.

use std::process::ExitCode;

use piecework::cli::{Env, leech};

fn main() -> ExitCode {
    Env::start(leech::main).into()
}
