//! See `piecework::cli::test`.

use std::process::ExitCode;

use piecework::cli::{Env, test};

fn main() -> ExitCode {
    Env::start(test::main).into()
}
