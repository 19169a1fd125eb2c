//! Runs whole programs in the test's process.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;

use piecework::cli::{Env, Exit, Output};

/// The output and exit code of a program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `program` with `args` in `cwd`.
pub(crate) fn run(program: fn(Env) -> Exit, cwd: &Path, args: &[&str]) -> Ran {
    let (stdout, out) = Output::captured();
    let (stderr, err) = Output::captured();
    let exit = program(Env::new("program", args, cwd, stdout, stderr));
    let ran = Ran { exit, stdout: out.text(), stderr: err.text() };
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
    ran
}

impl Ran {
    /// Checks that it ended successfully.
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.exit, Exit::Fine, "{self:?}");
        self
    }

    /// Checks that it failed with one sentence, and returns the sentence.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.exit, Exit::Failed, "{self:?}");
        let sentence = self.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(sentence.lines().count(), 1, "{self:?}");
        sentence.trim_end().to_owned()
    }
}

/// Returns `len` pseudo-random bytes, the same for the same `seed`.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = piecework_core::Rng::from_seed(seed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A program that runs on its own thread, with a pipe for its commands.
pub(crate) struct Running {
    stdin: Option<std::sync::mpsc::Sender<Vec<u8>>>,
    said: Said,
    complained: Said,
    thread: Option<std::thread::JoinHandle<Exit>>,
}

impl Running {
    /// Starts `program` with `args` in `cwd`.
    pub(crate) fn start(program: fn(Env) -> Exit, cwd: &Path, args: &[&str]) -> Self {
        Self::with_env(program, cwd, args, |env| env)
    }

    /// The same, with a modified environment.
    pub(crate) fn with_env(
        program: fn(Env) -> Exit,
        cwd: &Path,
        args: &[&str],
        change: impl FnOnce(Env) -> Env,
    ) -> Self {
        let (said, complained) = (Said::default(), Said::default());
        let stdout = Output::new(said.clone(), false, false);
        let stderr = Output::new(complained.clone(), false, false);
        let (stdin, lines) = std::sync::mpsc::channel();
        let pipe = std::io::BufReader::new(Pipe { lines, rest: Vec::new() });
        let env = Env::new("program", args, cwd, stdout, stderr);
        let env = change(env.with_stdin(piecework::cli::Input::new(pipe, false)));
        let ends = (said.clone(), complained.clone());
        let thread = std::thread::spawn(move || {
            let exit = program(env);
            ends.0.end();
            ends.1.end();
            exit
        });
        Self { stdin: Some(stdin), said, complained, thread: Some(thread) }
    }

    /// Types a line.
    pub(crate) fn types(&self, line: &str) {
        let stdin = self.stdin.as_ref().expect("stdin is open");
        // A program that has ended reads nothing.
        let _ = stdin.send(format!("{line}\n").into_bytes());
    }

    /// Closes its stdin.
    pub(crate) fn closes_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has written `text` to stdout, and returns all of its stdout.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        self.said.wait_for(text).unwrap_or_else(|| self.never(text))
    }

    /// The same for stderr.
    #[track_caller]
    pub(crate) fn complains(&self, text: &str) -> String {
        self.complained.wait_for(text).unwrap_or_else(|| self.never(text))
    }

    /// Returns the address to which peers can connect.
    #[track_caller]
    pub(crate) fn address(&self) -> String {
        let before = "peers can connect to ";
        let said = self.says(before);
        let line = said.lines().find_map(|line| line.strip_prefix(before));
        line.expect("an address follows").to_owned()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Ran {
        let exit = self.thread.take().expect("it runs").join().expect("it does not panic");
        Ran { exit, stdout: self.said.text(), stderr: self.complained.text() }
    }

    /// Types `quit` and waits until it has ended.
    #[track_caller]
    pub(crate) fn quits(self) -> Ran {
        self.types("quit");
        self.ends()
    }

    #[track_caller]
    fn never(&self, text: &str) -> String {
        let (said, complained) = (self.said.text(), self.complained.text());
        panic!("it ended without `{text}`\nstdout: {said}\nstderr: {complained}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && self.stdin.is_some() {
            self.types("quit");
        }
    }
}

/// Output that can be waited for.
#[derive(Clone, Default)]
struct Said {
    state: std::sync::Arc<std::sync::Mutex<Words>>,
    wake: std::sync::Arc<std::sync::Condvar>,
}

#[derive(Default)]
struct Words {
    bytes: Vec<u8>,
    ended: bool,
}

impl Said {
    fn wait_for(&self, text: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let seen = String::from_utf8_lossy(&state.bytes).into_owned();
            if seen.contains(text) {
                return Some(seen);
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.wake.wait_timeout(state, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().bytes).into_owned()
    }

    fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.wake.notify_all();
    }
}

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.state.lock().unwrap().bytes.extend_from_slice(bytes);
        self.wake.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Pipe {
    lines: std::sync::mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl std::io::Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.lines.recv().unwrap_or_default();
        }
        let taken = self.rest.len().min(out.len());
        out[..taken].copy_from_slice(&self.rest[..taken]);
        self.rest.drain(..taken);
        Ok(taken)
    }
}

/// The time after which a test gives up waiting.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
