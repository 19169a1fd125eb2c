//! What a daemon writes about itself on stderr.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::base::printable;

use super::super::{CliError, Env, Output};

/// Begins to log what `filter` (a level, or `target=level,…`) lets through, as JSON if `json`. Where
/// somebody else in this process logs already, as in tests, that goes on instead.
///
/// # Errors
/// If `filter` is none.
pub fn start(env: &Env, filter: &str, json: bool) -> Result<(), CliError> {
    let filter = parse(filter)?;
    let writer = Lines(env.stderr().clone());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(env.stderr().paint().is_on());
    // systemd's journal keeps the time of each line itself.
    let untimed = env.var("JOURNAL_STREAM").is_some() && !env.stderr().is_terminal();
    let begun = match (json, untimed) {
        (true, _) => builder.json().flatten_event(true).with_current_span(false).try_init(),
        (false, true) => builder.with_target(false).without_time().try_init(),
        (false, false) => builder.with_target(false).try_init(),
    };
    // Only one can log in a process, and the first one does.
    drop(begun);
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, CliError> {
    let wrong = || {
        CliError::usage(format_args!(
            "`{}` is not what can be logged: write error, warn, info, debug, trace, or a filter \
             such as piecework::session=debug",
            printable(filter)
        ))
    };
    // A bare word that is no level would be taken for a target, and nothing would be logged.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    if !filter.contains('=') && !levels.contains(&filter.to_lowercase().as_str()) {
        return Err(wrong());
    }
    EnvFilter::builder().parse(filter).map_err(|_| wrong())
}

/// Writes each event in one go.
#[derive(Clone)]
struct Lines(Output);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.text(String::from_utf8_lossy(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_words_are_not() {
        for good in ["info", "WARN", "off", "piecework::session=debug,warn"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "loud\x1b", "x=loud"] {
            let error = parse(bad).unwrap_err();
            assert!(error.to_string().contains("write error, warn"), "{error}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }
}
