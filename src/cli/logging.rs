//! Logging: warnings and errors of the engine, on stderr and in a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use piecework_core::{Unwritable, printable};

use super::format::shown;
use super::live_stderr::LiveStderr;
use super::{CliError, Env};

/// Logging options of the command line.
#[derive(Args, Debug, Clone, Default)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, off, or a filter such as
    /// piecework_engine=debug.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log one JSON object on each line.
    #[arg(long, global = true)]
    log_json: bool,
    /// Append the log to this file too.
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// Logging options of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or a filter.
    pub level: String,
    /// Whether to log JSON objects, one on each line.
    pub json: bool,
    /// The file to log to in addition to stderr. Empty for none.
    pub file: PathBuf,
}

impl LogConfig {
    /// Logs `level` and everything more severe, on stderr.
    pub fn of_level(level: &str) -> Self {
        Self { level: level.to_owned(), json: false, file: PathBuf::new() }
    }

    /// Applies the options of the command line, which take precedence.
    pub fn with(mut self, args: &LogArgs) -> Self {
        if let Some(level) = &args.log_level {
            self.level.clone_from(level);
        }
        if let Some(file) = &args.log_file {
            self.file.clone_from(file);
        }
        self.json |= args.log_json;
        self
    }
}

/// Starts logging, above the live lines that the program paints on the terminal. A program that a
/// test runs in its own process logs nothing, because several of them would share one log.
///
/// # Errors If the level is not valid, or the file cannot be opened. A full disk is not an error:
/// lost lines are counted, and logging continues when there is room.
pub(super) fn start(env: &Env, config: &LogConfig) -> Result<(), CliError> {
    let filter = parse(&config.level)?;
    let file = match config.file.as_os_str().is_empty() {
        true => None,
        false => Some(LogFile::open(&env.path(&config.file)).map_err(|error| {
            CliError::failed(format_args!(
                "the log file `{}` cannot be written: {error}",
                shown(&config.file)
            ))
            .because(error)
        })?),
    };
    // systemd's journal records the time of each line itself.
    let untimed = env.var("JOURNAL_STREAM").is_some() && !env.stderr().is_terminal();
    let stderr = StderrWriter(env.live_stderr().clone());
    let mut layers = vec![layer(stderr, config.json, !untimed, env.stderr().paint().is_on())];
    layers.extend(file.map(|file| layer(file, config.json, true, false)));
    if env.is_process() {
        let subscriber = tracing_subscriber::registry().with(layers).with(filter);
        subscriber.try_init().map_err(CliError::failed_by)?;
    }
    Ok(())
}

fn layer<W>(
    writer: W,
    json: bool,
    timed: bool,
    color: bool,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(color);
    match (json, timed) {
        (true, _) => layer.json().flatten_event(true).with_current_span(false).boxed(),
        (false, true) => layer.with_target(false).boxed(),
        (false, false) => layer.with_target(false).without_time().boxed(),
    }
}

fn parse(filter: &str) -> Result<EnvFilter, CliError> {
    let wrong = || {
        CliError::usage(format_args!(
            "`{}` is not a log level: write error, warn, info, debug, trace, or a filter \
             such as piecework_engine=debug",
            printable(filter)
        ))
    };
    // A bare word that is not a level would be read as a target, and nothing would be logged.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    if !filter.contains('=') && !levels.contains(&filter.to_lowercase().as_str()) {
        return Err(wrong());
    }
    EnvFilter::builder().parse(filter).map_err(|_| wrong())
}

/// Writes each event to stderr in one call.
#[derive(Clone)]
struct StderrWriter(LiveStderr);

impl<'a> MakeWriter<'a> for StderrWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for StderrWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file. Lines are appended.
#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    state: Arc<Mutex<LogFileState>>,
}

#[derive(Default)]
struct LogFileState {
    /// `None` while the file cannot be created because its disk is full or read-only.
    file: Option<File>,
    /// Lines lost since the last one that could be written.
    lost: u64,
}

impl LogFile {
    /// Opens the file at `path`. If its disk is full or read-only, the file is opened later.
    fn open(path: &Path) -> io::Result<Self> {
        let file = match File::options().append(true).create(true).open(path) {
            Err(error) if Unwritable::of(&error).is_some() => None,
            opened => Some(opened?),
        };
        let state = LogFileState { file, lost: 0 };
        Ok(Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    fn append(&self, state: &mut LogFileState, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut state.file {
            Some(file) => file,
            none => none.insert(File::options().append(true).create(true).open(&self.path)?),
        };
        if state.lost > 0 {
            let lost = state.lost;
            writeln!(file, "{lost} lines of the log were lost: they could not be written")?;
            state.lost = 0;
        }
        file.write_all(bytes)
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if self.append(&mut state, bytes).is_err() {
            // The loss cannot be reported anywhere else. The count is written with the next line.
            state.lost += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressBar;

    use super::super::Output;
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_words_are_not() {
        for good in ["info", "WARN", "off", "piecework_engine=debug,warn"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "loud\x1b", "x=loud"] {
            let error = parse(bad).unwrap_err();
            assert!(error.to_string().contains("write error, warn"), "{error}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }

    #[test]
    fn events_go_to_stderr_and_to_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let (stderr, said) = Output::captured();
        let live_stderr = LiveStderr::new(stderr);
        let layers = vec![
            layer(StderrWriter(live_stderr.clone()), false, false, false),
            layer(LogFile::open(&path).unwrap(), true, true, false),
        ];
        let filter = parse("warn").unwrap();
        let subscriber = tracing_subscriber::registry().with(layers).with(filter);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("data could not be flushed to disk");
            tracing::info!("not told");
            let bar = ProgressBar::hidden();
            live_stderr.paint_bar(&bar);
            tracing::error!("above a bar");
            live_stderr.bar_ended();
            live_stderr.bar_ended();
        });
        let told = said.text();
        assert_eq!(told, " WARN data could not be flushed to disk\nERROR above a bar\n");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "before");
        let event: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(event["message"], "data could not be flushed to disk");
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_in_the_next_one() {
        let full = Path::new("/dev/full");
        let mut log = LogFile::open(full).unwrap();
        for _ in 0..3 {
            assert_eq!(log.write(b"line\n").unwrap(), 5);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        log.path.clone_from(&path);
        log.state.lock().file = None;
        assert_eq!(log.write(b"again\n").unwrap(), 6);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "3 lines of the log were lost: they could not be written\nagain\n");
        assert!(LogFile::open(&dir.path().join("no/folder")).is_err());
    }
}
