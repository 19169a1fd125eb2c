//! See `piecework::cli::set`.

use std::process::ExitCode;

use piecework::cli::{Env, set};

fn main() -> ExitCode {
    Env::start(set::main).into()
}
