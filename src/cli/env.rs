//! The environment of a program.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use piecework_storage::hashing_notice;

use super::live_stderr::LiveStderr;
use super::output::Output;
use super::{CliError, Exit};

/// Arguments, working directory, variables and streams of one run of a program. A test makes its
/// own, to run whole programs in its process.
pub struct Env {
    pub(super) args: Vec<OsString>,
    cwd: PathBuf,
    vars: BTreeMap<String, String>,
    stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    live_stderr: LiveStderr,
    /// Whether it is the process's own environment. Only then may the program start logging.
    is_process: bool,
}

/// The input of a program, from which it reads commands.
pub struct Input {
    reader: Box<dyn BufRead + Send>,
    terminal: bool,
}

impl Env {
    /// Returns the environment of this process.
    ///
    /// # Errors If the working directory does not exist any more.
    pub fn from_process() -> Result<Self, CliError> {
        let cwd = std::env::current_dir().map_err(|error| {
            CliError::failed(format_args!("the working directory cannot be read: {error}"))
                .because(error)
        })?;
        let vars: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // https://no-color.org: any value but the empty one.
        let plain = vars.get("NO_COLOR").is_some_and(|value| !value.is_empty())
            || vars.get("TERM").is_some_and(|term| term == "dumb");
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let input = Input::new(io::BufReader::new(stdin), io::stdin().is_terminal());
        let (out_tty, err_tty) = (stdout.is_terminal(), stderr.is_terminal());
        let stdout = Output::new(stdout, out_tty, out_tty && !plain);
        let stderr = Output::new(stderr, err_tty, err_tty && !plain);
        let args = std::env::args_os().collect();
        let live_stderr = LiveStderr::new(stderr.clone());
        Ok(Self { args, cwd, vars, stdin: input, stdout, stderr, live_stderr, is_process: true })
    }

    /// Runs a program with the environment of this process.
    pub fn start(program: impl FnOnce(Self) -> Exit) -> Exit {
        match Self::from_process() {
            Ok(env) => program(env),
            Err(error) => {
                // If stderr is closed nobody can be told. The exit code still reports the error.
                let _ = writeln!(io::stderr(), "error: {error}");
                error.exit()
            }
        }
    }

    /// Creates an environment for `program` with `args` in `cwd`. Stdin is empty, and no stream is
    /// a terminal.
    pub fn new<A: Into<OsString>>(
        program: &str,
        args: impl IntoIterator<Item = A>,
        cwd: &Path,
        stdout: Output,
        stderr: Output,
    ) -> Self {
        let args =
            std::iter::once(program.into()).chain(args.into_iter().map(Into::into)).collect();
        let stdin = Input::new(io::empty(), false);
        let live_stderr = LiveStderr::new(stderr.clone());
        Self {
            args,
            cwd: cwd.to_owned(),
            vars: BTreeMap::new(),
            stdin,
            stdout,
            stderr,
            live_stderr,
            is_process: false,
        }
    }

    /// Replaces stdin.
    pub fn with_stdin(mut self, stdin: Input) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets an environment variable.
    pub fn with_var(mut self, key: &str, value: &str) -> Self {
        self.vars.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Takes stdin. Afterwards it is empty.
    pub fn take_stdin(&mut self) -> Input {
        std::mem::replace(&mut self.stdin, Input::new(io::empty(), false))
    }

    /// Returns the number of arguments, without the program's name.
    pub fn arg_count(&self) -> usize {
        self.args.len().saturating_sub(1)
    }

    /// Returns whether stdin is a terminal.
    pub fn stdin_is_terminal(&self) -> bool {
        self.stdin.terminal
    }

    /// Returns the output for results.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// Returns the output for progress, notices and errors.
    pub fn stderr(&self) -> &Output {
        &self.stderr
    }

    /// Returns whether this is the environment of the process, and not one that a test made.
    pub fn is_process(&self) -> bool {
        self.is_process
    }

    /// Returns stderr above the live lines, for the log.
    pub fn live_stderr(&self) -> &LiveStderr {
        &self.live_stderr
    }

    /// Returns an environment variable. An empty one counts as not set.
    pub fn var(&self, key: &str) -> Option<&str> {
        self.vars.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the working directory.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Resolves `path` from the working directory. `~/` is the home.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match (path.strip_prefix("~"), self.var("HOME")) {
            (Ok(rest), Some(home)) => self.cwd.join(home).join(rest),
            _ => self.cwd.join(path),
        }
    }

    /// Prints an error to stderr.
    pub fn complain(&self, error: &CliError) {
        let text = error.to_string();
        if !text.is_empty() {
            let label = self.stderr.paint().red("error:");
            // If stderr is closed nobody can be told. The exit code still reports the error.
            let _ = self.stderr.line(format_args!("{label} {text}"));
        }
        if let Some(cause) = error.source() {
            tracing::debug!(error = cause, "the cause of the last error");
        }
    }

    /// Warns if the chosen way of hashing is not available. For programs that hash and do not log.
    ///
    /// # Errors If stderr fails.
    pub fn warn_of_hashing(&self) -> io::Result<()> {
        match hashing_notice() {
            Some(notice) => {
                let label = self.stderr.paint().yellow("warning:");
                self.stderr.line(format_args!("{label} {notice}"))
            }
            None => Ok(()),
        }
    }
}

impl Input {
    /// Creates an input that reads commands from `reader`.
    pub fn new(reader: impl BufRead + Send + 'static, terminal: bool) -> Self {
        Self { reader: Box::new(reader), terminal }
    }

    /// Returns whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Returns the stream.
    pub fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.reader
    }
}
