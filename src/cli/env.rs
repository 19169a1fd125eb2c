//! What a program is given by whoever starts it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use console::Term;
use parking_lot::Mutex;

use piecework_storage::hashing_notice;

use super::generate::generate;
use super::logging::Margin;
use super::{CliError, Exit, Paint, paths};

/// Arguments, folder, variables and streams of one run of a program. A test makes its own and
/// runs whole programs in process.
pub struct Env {
    args: Vec<OsString>,
    cwd: PathBuf,
    vars: BTreeMap<String, String>,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    margin: Margin,
    /// It is that of the process, which logs for all that runs in it.
    is_process: bool,
}

/// Where a program reads commands from.
pub struct Input {
    reader: Box<dyn BufRead + Send>,
    terminal: bool,
}

/// Where a program writes. Cheap to clone.
#[derive(Clone)]
pub struct Output {
    sink: Arc<Mutex<dyn Write + Send>>,
    terminal: bool,
    paint: Paint,
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

    /// Reads the command line as `A`, runs `body`, says what went wrong.
    pub fn run<A: Parser>(
        mut self,
        body: impl FnOnce(A, &mut Self) -> Result<(), CliError>,
    ) -> Exit {
        if let Some(words) = self.generates() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            return self.ended(generate(paths::command::<A>(), &words, &self.stdout));
        }
        if self.asks_for_paths() {
            let result = paths::tell(&self, &self.args);
            return self.ended(result);
        }
        let args = paths::command::<A>()
            .try_get_matches_from(&self.args)
            .and_then(|matches| A::from_arg_matches(&matches));
        let args = match args {
            Ok(args) => args,
            Err(error) => return self.explain(&error),
        };
        let result = body(args, &mut self);
        self.ended(result)
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

    fn ended(&self, result: Result<(), CliError>) -> Exit {
        match result {
            Ok(()) => Exit::Fine,
            Err(error) => {
                self.complain(&error);
                error.exit()
            }
        }
    }

    /// What is to be generated, if that is asked for: `--generate` comes first or not at all.
    fn generates(&self) -> Option<Vec<String>> {
        let rest = self
            .args
            .get(1..)
            .filter(|rest| rest.first().is_some_and(|arg| arg == "--generate"))?;
        Some(rest[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    fn asks_for_paths(&self) -> bool {
        let mut flags = self.args.iter().skip(1).take_while(|arg| *arg != "--");
        flags.any(|arg| arg == "--paths")
    }

    /// What clap has to say: help and version are no errors.
    fn explain(&self, error: &clap::Error) -> Exit {
        let output = if error.use_stderr() { &self.stderr } else { &self.stdout };
        let text = error.render();
        let written = if output.paint.is_on() {
            output.text(format_args!("{}", text.ansi()))
        } else {
            output.text(format_args!("{text}"))
        };
        match (error.use_stderr(), written) {
            (true, _) => Exit::Usage,
            (false, Ok(())) => Exit::Fine,
            (false, Err(_)) => Exit::Failed,
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

impl Output {
    /// Writes to `sink`; with colours if `color`.
    pub fn new(sink: impl Write + Send + 'static, terminal: bool, color: bool) -> Self {
        Self { sink: Arc::new(Mutex::new(sink)), terminal, paint: Paint::new(color) }
    }

    /// Writes to memory that the second value reads.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        (Self::new(captured.clone(), false, false), captured)
    }

    /// Writes one line.
    ///
    /// # Errors
    /// If the stream does.
    pub fn line(&self, line: impl Display) -> io::Result<()> {
        self.text(format_args!("{line}\n"))
    }

    /// Writes text as it is, in one go.
    ///
    /// # Errors
    /// If the stream does.
    pub fn text(&self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        let mut sink = self.sink.lock();
        sink.write_all(text.as_bytes())?;
        sink.flush()
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns that tables fit; any number in a pipe or a file.
    pub fn width(&self) -> usize {
        if self.terminal { terminal_width() } else { usize::MAX }
    }

    /// Its colours.
    pub fn paint(&self) -> Paint {
        self.paint
    }
}

/// Columns of the terminal that this process writes to; 80 if it does not say.
pub fn terminal_width() -> usize {
    let size = [Term::stdout(), Term::stderr()].iter().find_map(Term::size_checked);
    size.map_or(80, |(_, columns)| usize::from(columns))
}

/// Output kept in memory. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What has been written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
