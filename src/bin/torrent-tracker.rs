//! See `piecework::cli::tracker`.

use std::process::ExitCode;

use piecework::cli::{Env, tracker};

fn main() -> ExitCode {
    // What goes wrong while it runs and is nobody's request: a full disk, no more file handles.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    Env::start(tracker::main).into()
}
