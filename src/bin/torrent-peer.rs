//! See `piecework::cli::peer`.

use std::process::ExitCode;

use piecework::cli::{Env, peer};

fn main() -> ExitCode {
    Env::start(peer::main).into()
}
