//! The screen of a long-running program: printed lines, one live line, and typed commands.
//!
//! On a terminal where somebody types, the live line and the prompt compete for the lowest lines.
//! So one painter does both: the line editor, whose prompt is the live line with `> ` below it. All
//! other output goes through the editor too, above its prompt. Where nobody types, the live line is
//! an indicatif bar, or nothing if stderr is not a terminal. Many live lines are shown on the
//! terminal's alternate screen.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use console::Term;
use indicatif::ProgressBar;
use parking_lot::{Condvar, Mutex};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Editor, ExternalPrinter, Helper};
use tokio::sync::mpsc;

use piecework_core::{columns, cut_end};

use super::completion::Completion;
use super::live_lines::{AlternateScreen, live_bar};
use super::live_stderr::LiveArea;
use super::output::terminal_width;
use super::{CliError, Env, Input, Output, Paint};

/// The output of a long-running program. Cheap to clone.
#[derive(Clone)]
pub struct Screen {
    shared: Arc<ScreenParts>,
}

/// Input from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleInput {
    /// A line.
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupt,
    /// Ctrl-D at the prompt. The end of a pipe is not reported.
    End,
}

/// The typed commands, one at a time. The next prompt appears after the answer to the last one.
pub struct Commands {
    typed: mpsc::Receiver<ConsoleInput>,
    go: Option<std_mpsc::SyncSender<()>>,
    owes_go: bool,
}

struct ScreenParts {
    stdout: Output,
    stderr: Output,
    kind: ScreenKind,
}

enum ScreenKind {
    /// Stderr is not a terminal: lines only.
    Plain,
    /// Stderr is a terminal, but nobody types.
    Bar(ProgressBar),
    /// The same, for many lines.
    FullScreen(Mutex<FullScreen>),
    /// Somebody types at a prompt.
    Prompt(Arc<Prompt>),
}

/// Lines on a terminal's alternate screen.
struct FullScreen {
    screen: AlternateScreen,
    lines: Vec<String>,
}

/// State that the editor's thread, the printer's thread and the program share.
struct Prompt {
    live: Mutex<String>,
    /// Columns of the live line above the prompt; 0 if there is none.
    painted: Mutex<usize>,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// The completion for the Tab key.
    completion: Mutex<Option<Arc<Completion>>>,
    original: Option<rustix::termios::Termios>,
}

#[derive(Default)]
struct Pending {
    text: String,
    left_out: u64,
    repaint: bool,
    closed: bool,
    /// Whether a message is on its way through the editor.
    busy: bool,
    /// Whether a prompt is about to be drawn. What is printed now would appear after it.
    opening: bool,
}

impl Screen {
    /// Creates a screen without a console, for work that ends by itself.
    pub fn new(env: &Env) -> Self {
        let kind = if env.stderr().is_terminal() {
            ScreenKind::Bar(live_bar(env.stderr()))
        } else {
            ScreenKind::Plain
        };
        Self::of(env, kind)
    }

    /// Creates a screen for many live lines.
    pub fn full(env: &Env) -> Self {
        let looks = env.stderr().is_terminal() && !env.var("TERM").is_none_or(is_dumb);
        let kind = match looks {
            true => {
                let screen = AlternateScreen::new(env.stderr());
                ScreenKind::FullScreen(Mutex::new(FullScreen { screen, lines: Vec::new() }))
            }
            false => ScreenKind::Plain,
        };
        Self::of(env, kind)
    }

    /// Creates a screen, and the commands typed at it or piped into it.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn with_console(env: &mut Env) -> Result<(Self, Commands), CliError> {
        let terminal = env.stdout().is_terminal() && env.stderr().is_terminal();
        let stdin = env.take_stdin();
        if stdin.is_terminal() && env.var("TERM").is_none_or(is_dumb) {
            return Ok((Self::of(env, ScreenKind::Plain), piped(stdin)));
        }
        if stdin.is_terminal() && terminal && in_foreground() {
            Self::with_prompt(env).map_err(|error| {
                CliError::failed(format_args!("the terminal cannot be used: {error}"))
                    .because(error)
            })
        } else {
            let commands = if stdin.is_terminal() { Commands::none() } else { piped(stdin) };
            Ok((Self::new(env), commands))
        }
    }

    /// Prints a result or an answer, of one line or several.
    pub fn line(&self, text: impl std::fmt::Display) {
        self.print(&self.shared.stdout, text.to_string());
    }

    /// Prints a notice, which is not a result.
    pub fn notice(&self, text: impl std::fmt::Display) {
        self.print(&self.shared.stderr, text.to_string());
    }

    /// Replaces the live line with `text`. On [`Screen::full`] it may have several lines, each
    /// narrower than the terminal.
    pub fn live(&self, text: &str) {
        match &self.shared.kind {
            ScreenKind::Plain => {}
            ScreenKind::Bar(bar) => bar.set_message(text.to_owned()),
            ScreenKind::FullScreen(full) => {
                let mut full = full.lock();
                full.lines = text.lines().map(str::to_owned).collect();
                full.paint();
            }
            ScreenKind::Prompt(prompt) => {
                text.clone_into(&mut prompt.live.lock());
                prompt.pending.lock().repaint = true;
                prompt.wake.notify_one();
            }
        }
    }

    /// Sets the completion for the Tab key.
    pub fn complete(&self, completion: Completion) {
        if let ScreenKind::Prompt(prompt) = &self.shared.kind {
            *prompt.completion.lock() = Some(Arc::new(completion));
        }
    }

    /// Returns whether [`Screen::live`] is visible.
    pub fn is_live(&self) -> bool {
        !matches!(self.shared.kind, ScreenKind::Plain)
    }

    /// Returns the colours of answers.
    pub fn paint(&self) -> Paint {
        self.shared.stdout.paint()
    }

    /// Returns the colours of notices and of the live line.
    pub fn live_paint(&self) -> Paint {
        self.shared.stderr.paint()
    }

    /// Returns the columns of the live line.
    pub fn width(&self) -> usize {
        terminal_width()
    }

    /// Returns the columns for tables in answers. A pipe has no limit.
    pub fn answer_width(&self) -> usize {
        self.shared.stdout.width()
    }

    /// Returns the columns of the terminal, if answers go to a terminal.
    pub fn terminal_width(&self) -> Option<usize> {
        self.shared.stdout.is_terminal().then(terminal_width)
    }

    /// Returns the number of lines of the terminal, for several live lines.
    pub fn height(&self) -> usize {
        usize::from(Term::stderr().size_checked().map_or(24, |(rows, _)| rows))
    }

    /// Removes the live line and the prompt and restores the terminal. Lines can still be printed.
    pub fn close(&self) {
        match &self.shared.kind {
            ScreenKind::Plain => {}
            ScreenKind::Bar(bar) => bar.finish_and_clear(),
            ScreenKind::FullScreen(full) => {
                let mut full = full.lock();
                full.lines.clear();
                full.leave();
            }
            ScreenKind::Prompt(prompt) => prompt.close(),
        }
    }

    fn of(env: &Env, kind: ScreenKind) -> Self {
        let (stdout, stderr) = (env.stdout().clone(), env.stderr().clone());
        let screen = Self { shared: Arc::new(ScreenParts { stdout, stderr, kind }) };
        env.live_stderr().paint_area(screen.clone());
        screen
    }

    fn with_prompt(env: &Env) -> rustyline::Result<(Self, Commands)> {
        let original = rustix::termios::tcgetattr(std::io::stdin()).ok();
        let prompt = Arc::new(Prompt {
            live: Mutex::new(String::new()),
            painted: Mutex::new(0),
            pending: Mutex::new(Pending::default()),
            wake: Condvar::new(),
            completion: Mutex::new(None),
            original,
        });
        let config = rustyline::Config::builder()
            .color_mode(ColorMode::Forced)
            .auto_add_history(true)
            .completion_type(CompletionType::List)
            .max_history_size(100)?
            .build();
        let mut editor: Editor<Painter, DefaultHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Painter { prompt: Arc::clone(&prompt) }));
        let printer = editor.create_external_printer()?;
        let (typed_tx, typed) = mpsc::channel(1);
        let (go, go_rx) = std_mpsc::sync_channel(1);
        let painter = Arc::clone(&prompt);
        std::thread::Builder::new()
            .name("prompt".to_owned())
            .spawn(move || edit(editor, &painter, &typed_tx, &go_rx))?;
        let pending = Arc::clone(&prompt);
        std::thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || pending.print_all(printer))?;
        let screen = Self::of(env, ScreenKind::Prompt(prompt));
        Ok((screen, Commands { typed, go: Some(go), owes_go: true }))
    }

    fn print(&self, output: &Output, text: String) {
        // A reader that has left, or a full disk behind a redirect, does not stop a transfer.
        match &self.shared.kind {
            ScreenKind::Plain => drop(output.line(text)),
            ScreenKind::Bar(bar) => bar.suspend(|| drop(output.line(text))),
            ScreenKind::FullScreen(full) => {
                let mut full = full.lock();
                full.leave();
                drop(output.line(text));
                full.paint();
            }
            ScreenKind::Prompt(prompt) => {
                if !prompt.push(&text) {
                    drop(output.line(text));
                }
            }
        }
    }
}

impl LiveArea for Screen {
    fn print_above(&self, line: &str) {
        self.notice(line);
    }

    fn remove(&self) {
        self.close();
    }
}

impl FullScreen {
    fn paint(&mut self) {
        if !self.lines.is_empty() {
            // Errors do not matter: only the display is affected.
            let _ = self.screen.paint(&self.lines);
        }
    }

    fn leave(&mut self) {
        let _ = self.screen.leave();
    }
}

impl Commands {
    /// Commands that never come.
    pub fn none() -> Self {
        let (_, typed) = mpsc::channel(1);
        Self { typed, go: None, owes_go: false }
    }

    /// Waits for the next input, forever if nobody types or a pipe has ended. Cancel-safe.
    pub async fn next(&mut self) -> ConsoleInput {
        if std::mem::take(&mut self.owes_go)
            && let Some(go) = &self.go
        {
            // If the channel is full, the next prompt is already allowed.
            let _ = go.try_send(());
        }
        match self.typed.recv().await {
            Some(typed) => {
                self.owes_go = true;
                typed
            }
            None => std::future::pending().await,
        }
    }
}

impl Prompt {
    /// Queues text. Returns `false` if the prompt is closed.
    fn push(&self, text: &str) -> bool {
        let mut pending = self.pending.lock();
        if pending.closed {
            return false;
        }
        if pending.text.len() + text.len() > MAX_PENDING && !pending.text.is_empty() {
            pending.left_out += 1;
        } else {
            pending.text.push_str(text);
            pending.text.push('\n');
        }
        self.wake.notify_one();
        true
    }

    /// Body of the printer's thread. Printing may have to wait for the next prompt, and the program
    /// must not wait.
    fn print_all(&self, mut printer: impl ExternalPrinter) {
        loop {
            let message = {
                let mut pending = self.pending.lock();
                pending.busy = false;
                self.wake.notify_all();
                while !pending.closed && !pending.has_work() {
                    self.wake.wait(&mut pending);
                }
                if pending.closed {
                    return;
                }
                pending.busy = true;
                pending.repaint = false;
                pending.take_text()
            };
            // The editor adds a line break to everything that it prints. To print nothing, move up
            // first.
            let message = if message.is_empty() { "\x1b[A\n".to_owned() } else { message };
            if printer.print(message).is_err() {
                return;
            }
        }
    }

    /// Prints what waits, so that an answer appears before the next prompt. Until [`Prompt::drawn`] nothing else
    /// is printed: the editor prints above its prompt only once that is drawn. Called by the editor's thread.
    fn open(&self) {
        let mut pending = self.pending.lock();
        pending.opening = true;
        // A message that the last prompt did not print waits for the next one, so this must not wait for ever.
        while pending.busy && !self.wake.wait_for(&mut pending, LAST_PAINT).timed_out() {}
        if pending.busy || pending.closed || pending.text.is_empty() {
            return;
        }
        let text = pending.take_text();
        // Errors do not matter: only the display is affected.
        let _ = Term::stdout().write_str(&text);
    }

    /// Allows printing again. Called by the editor's thread when it draws, and after each prompt.
    fn drawn(&self) {
        let mut pending = self.pending.lock();
        if std::mem::take(&mut pending.opening) {
            self.wake.notify_all();
        }
    }

    fn close(&self) {
        self.live.lock().clear();
        let mut pending = self.pending.lock();
        if pending.closed {
            return;
        }
        // Wait a moment until queued text is painted.
        let deadline = std::time::Instant::now() + LAST_PAINT;
        while (pending.busy || !pending.text.is_empty())
            && !self.wake.wait_until(&mut pending, deadline).timed_out()
        {}
        pending.closed = true;
        let rest = pending.take_text();
        drop(pending);
        self.wake.notify_all();
        if let Some(original) = &self.original {
            // If the terminal is gone there is nothing to restore.
            let _ = rustix::termios::tcsetattr(
                std::io::stdin(),
                rustix::termios::OptionalActions::Drain,
                original,
            );
        }
        let term = Term::stdout();
        let _ = term.write_str(&format!("\r\x1b[J{rest}"));
    }
}

impl Pending {
    /// Returns whether the printer has something to print.
    fn has_work(&self) -> bool {
        !self.opening && (self.repaint || !self.text.is_empty())
    }

    fn take_text(&mut self) -> String {
        let mut text = std::mem::take(&mut self.text);
        if self.left_out > 0 {
            text.push_str(&format!("({} lines left out)\n", self.left_out));
            self.left_out = 0;
        }
        text
    }
}

/// Body of the editor's thread.
fn edit(
    mut editor: Editor<Painter, DefaultHistory>,
    prompt: &Prompt,
    typed: &mpsc::Sender<ConsoleInput>,
    go: &std_mpsc::Receiver<()>,
) {
    // A terminal may mark pasted text. Then one edit returns several lines.
    let mut pasted = VecDeque::new();
    while go.recv().is_ok() {
        if prompt.pending.lock().closed {
            return;
        }
        if pasted.is_empty() {
            // The live line of the last prompt was removed or has scrolled up.
            *prompt.painted.lock() = 0;
            prompt.open();
            let line = editor.readline("\n> ");
            prompt.drawn();
            match line {
                Ok(text) => {
                    tidy(&text);
                    pasted.extend(text.split('\n').map(|line| ConsoleInput::Line(line.to_owned())));
                }
                Err(ReadlineError::Interrupted) => pasted.push_back(ConsoleInput::Interrupt),
                Err(_) => pasted.push_back(ConsoleInput::End),
            }
        }
        if let Some(event) = pasted.pop_front()
            && typed.blocking_send(event).is_err()
        {
            return;
        }
    }
}

/// Removes the outdated live line above a finished command from the terminal's history.
fn tidy(text: &str) {
    let term = Term::stdout();
    let width = usize::from(term.size().1).max(1);
    let rows: usize = text.split('\n').map(|line| (2 + columns(line)) / width + 1).sum();
    // Up to the live line, delete it, back down to below the command.
    let escape = format!("\x1b[{}A\x1b[M\x1b[{rows}B", rows + 1);
    // Errors do not matter: only the display is affected.
    let _ = term.write_str(&escape);
}

/// Reads lines from a pipe. Its end is not reported, so a program started with stdin closed
/// continues.
fn piped(stdin: Input) -> Commands {
    let (typed_tx, typed) = mpsc::channel(16);
    let mut reader = stdin.into_reader();
    let read = move || {
        while let Some(line) = read_line(&mut *reader) {
            if typed_tx.blocking_send(ConsoleInput::Line(line)).is_err() {
                return;
            }
        }
    };
    // If the thread cannot start there are no commands, but the transfer continues.
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    Commands { typed, go: None, owes_go: false }
}

/// Reads a line of at most [`MAX_LINE`] bytes and skips the rest of a longer one.
fn read_line(reader: &mut dyn BufRead) -> Option<String> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(chunk.len());
        let room = MAX_LINE - line.len();
        line.extend_from_slice(&chunk[..taken.min(room)]);
        reader.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            break;
        }
    }
    any.then(|| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}

/// Returns whether this is the terminal's foreground job. A background job (`… &`) that changes the
/// terminal's settings is stopped.
fn in_foreground() -> bool {
    let group = rustix::process::getpgrp();
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|foreground| foreground == group)
}

/// Returns whether a terminal cannot move its cursor, by the line editor's list.
fn is_dumb(term: &str) -> bool {
    ["dumb", "cons25", "emacs"].contains(&term)
}

/// Draws the live line as the first line of the prompt.
struct Painter {
    prompt: Arc<Prompt>,
}

impl Highlighter for Painter {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        // The editor counts the rows of the plain prompt, so the live line must stay one row, even
        // if the width has changed meanwhile.
        let width = terminal_width().max(1);
        self.prompt.drawn();
        let live = self.prompt.live.lock();
        let shown = cut_end(&live, width - 1);
        // A terminal that became narrower has wrapped the last live line, and the editor has erased
        // only its last row.
        let before = std::mem::replace(&mut *self.prompt.painted.lock(), columns(&shown));
        let erase = match before.saturating_sub(1) / width {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\r\x1b[J"),
        };
        Cow::Owned(format!("{erase}\x1b[?7l{shown}\x1b[?7h{prompt}"))
    }
}

impl Completer for Painter {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let completion = self.prompt.completion.lock().clone();
        let line = line.get(..pos).unwrap_or(line);
        Ok(completion.map_or((pos, Vec::new()), |completion| completion.candidates(line)))
    }
}
impl Hinter for Painter {
    type Hint = String;
}
impl Validator for Painter {}
impl Helper for Painter {}

/// Maximum bytes of a command. The longest useful one contains a file name.
const MAX_LINE: usize = 4096;

/// Maximum bytes that wait for a stopped terminal (Ctrl-S): enough for a whole `request logs`.
const MAX_PENDING: usize = 64 << 20;

/// Maximum time for the last frame of the prompt when the program ends.
const LAST_PAINT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_pipe_are_bounded() {
        let long = format!("status\r\n{}\nquit", "x".repeat(10_000));
        let mut reader = std::io::BufReader::with_capacity(100, std::io::Cursor::new(long));
        assert_eq!(read_line(&mut reader).unwrap(), "status");
        assert_eq!(read_line(&mut reader).unwrap().len(), MAX_LINE);
        assert_eq!(read_line(&mut reader).unwrap(), "quit");
        assert_eq!(read_line(&mut reader), None);
    }

    #[tokio::test]
    async fn commands_come_from_a_pipe_and_its_end_says_nothing() {
        let (out, _) = Output::captured();
        let mut env = Env::new("t", Vec::<String>::new(), "/".as_ref(), out.clone(), out)
            .with_stdin(Input::new(std::io::Cursor::new("peers\nquit\n"), false));
        let (screen, mut commands) = Screen::with_console(&mut env).unwrap();
        assert!(!screen.is_live());
        assert_eq!(commands.next().await, ConsoleInput::Line("peers".to_owned()));
        assert_eq!(commands.next().await, ConsoleInput::Line("quit".to_owned()));
        let after = std::pin::pin!(commands.next());
        assert!(futures_poll(after).is_none());
    }

    /// Polls a future once, with a waker that does nothing.
    fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
