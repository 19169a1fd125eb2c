//! See `piecework::cli::tracker`.

use std::process::ExitCode;

use piecework::cli::{Env, tracker};

fn main() -> ExitCode {
    Env::start(tracker::main).into()
}
