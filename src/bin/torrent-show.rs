//! See `piecework::cli::show`.

use std::process::ExitCode;

use piecework::cli::{Env, show};

fn main() -> ExitCode {
    Env::start(show::main).into()
}
