//! What a program is given by whoever starts it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use piecework_storage::hashing_notice;

use super::margin::Margin;
use super::output::Output;
use super::{CliError, Exit};

/// Arguments, folder, variables and streams of one run of a program. A test makes its own and
/// runs whole programs in process.
pub struct Env {
    pub(super) args: Vec<OsString>,
    cwd: PathBuf,
    vars: BTreeMap<String, String>,
    stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    margin: Margin,
    /// It is that of the process, which logs for all that runs in it.
    is_process: bool,
}

/// Where a program reads commands from.
pub struct Input {
    reader: Box<dyn BufRead + Send>,
    terminal: bool,
}

impl Env {
    /// What this process was given.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub fn from_process() -> Result<Self, CliError> {
        let cwd = std::env::current_dir().map_err(|error| {
            CliError::failed(format_args!("the working directory cannot be read: {error}"))
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
        let margin = Margin::new(stderr.clone());
        Ok(Self { args, cwd, vars, stdin: input, stdout, stderr, margin, is_process: true })
    }

    /// Runs a program with what this process was given.
    pub fn start(program: impl FnOnce(Self) -> Exit) -> Exit {
        match Self::from_process() {
            Ok(env) => program(env),
            Err(error) => {
                // With stderr gone there is nobody left to tell; the exit code still says it.
                let _ = writeln!(io::stderr(), "error: {error}");
                error.exit()
            }
        }
    }

    /// `program` with `args`, in `cwd`, nothing on stdin, streams that are no terminals.
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
        let margin = Margin::new(stderr.clone());
        Self {
            args,
            cwd: cwd.to_owned(),
            vars: BTreeMap::new(),
            stdin,
            stdout,
            stderr,
            margin,
            is_process: false,
        }
    }

    /// The same with `stdin`.
    pub fn with_stdin(mut self, stdin: Input) -> Self {
        self.stdin = stdin;
        self
    }

    /// The same with an environment variable.
    pub fn with_var(mut self, key: &str, value: &str) -> Self {
        self.vars.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Stdin, which can be taken once; after that it is empty.
    pub fn take_stdin(&mut self) -> Input {
        std::mem::replace(&mut self.stdin, Input::new(io::empty(), false))
    }

    /// Number of arguments, the program's own name not counted.
    pub fn arg_count(&self) -> usize {
        self.args.len().saturating_sub(1)
    }

    /// Whether stdin is a terminal.
    pub fn stdin_is_terminal(&self) -> bool {
        self.stdin.terminal
    }

    /// Where results go.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// Where progress, notices and errors go.
    pub fn stderr(&self) -> &Output {
        &self.stderr
    }

    /// Whether this is what the process was given, and not what a test made.
    pub fn is_process(&self) -> bool {
        self.is_process
    }

    /// Stderr above whatever is painted there, for the log.
    pub fn margin(&self) -> &Margin {
        &self.margin
    }

    /// An environment variable; an empty one counts as not set.
    pub fn var(&self, key: &str) -> Option<&str> {
        self.vars.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The working directory.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// `path` as seen from the working directory; `~/` is the home.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match (path.strip_prefix("~"), self.var("HOME")) {
            (Ok(rest), Some(home)) => self.cwd.join(home).join(rest),
            _ => self.cwd.join(path),
        }
    }

    /// Says what is wrong on stderr.
    pub fn complain(&self, error: &CliError) {
        let text = error.to_string();
        if !text.is_empty() {
            let label = self.stderr.paint().red("error:");
            // With stderr gone there is nobody left to tell; the exit code still says it.
            let _ = self.stderr.line(format_args!("{label} {text}"));
        }
    }

    /// Says what is wrong with how this process was told to hash, if anything is. For programs that
    /// hash and keep no log.
    ///
    /// # Errors
    /// If stderr does.
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
    /// Commands from `reader`.
    pub fn new(reader: impl BufRead + Send + 'static, terminal: bool) -> Self {
        Self { reader: Box::new(reader), terminal }
    }

    /// Whether a person types there.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The stream itself.
    pub fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.reader
    }
}
