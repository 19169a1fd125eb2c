//! See `piecework::cli::fetch`.

use std::process::ExitCode;

use piecework::cli::{Env, fetch};

fn main() -> ExitCode {
    Env::start(fetch::main).into()
}
