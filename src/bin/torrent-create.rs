//! See `piecework::cli::create`.

use std::process::ExitCode;

use piecework::cli::{Env, create};

fn main() -> ExitCode {
    Env::start(create::main).into()
}
