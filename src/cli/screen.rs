//! What a long-running program shows while commands are typed: lines, and one live line.
//!
//! On a terminal that somebody types at, two things want the lowest lines: the live line and the
//! prompt. There is one painter for both: the line editor, whose prompt is the live line and `> `
//! below it. Whatever else is printed goes through the editor too, above its prompt. Where nobody
//! types, the live line is an indicatif bar, or nothing if nobody looks; many live lines are on
//! the terminal's other screen.

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
use super::margin::LiveArea;
use super::output::terminal_width;
use super::{CliError, Env, Input, Output, Paint};

/// Where a long-running program speaks. Cheap to clone.
#[derive(Clone)]
pub struct Screen {
    shared: Arc<ScreenParts>,
}

/// Something that came from whoever types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupt,
    /// Ctrl-D at the prompt. A pipe that ends says nothing.
    End,
}

/// The commands typed, one at a time: the next prompt comes when the last one is answered.
pub struct Commands {
    typed: mpsc::Receiver<Typed>,
    go: Option<std_mpsc::SyncSender<()>>,
    owes_go: bool,
}

struct ScreenParts {
    stdout: Output,
    stderr: Output,
    kind: ScreenKind,
}

enum ScreenKind {
    /// Nobody looks: lines only.
    Plain,
    /// Somebody looks, nobody types.
    Bar(ProgressBar),
    /// The same, for many lines.
    Full(Mutex<Full>),
    /// Somebody types.
    Prompt(Arc<Prompt>),
}

/// Lines on a terminal's other screen.
struct Full {
    screen: AlternateScreen,
    lines: Vec<String>,
}

/// What the editor's thread, the printer's thread and the program share.
struct Prompt {
    live: Mutex<String>,
    /// Columns of the live line that stands above the prompt; 0 if there is none.
    painted: Mutex<usize>,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// What the Tab key puts in.
    completion: Mutex<Option<Arc<Completion>>>,
    original: Option<rustix::termios::Termios>,
}

#[derive(Default)]
struct Pending {
    text: String,
    left_out: u64,
    repaint: bool,
    closed: bool,
    /// A message is on its way through the editor.
    busy: bool,
}

impl Screen {
    /// A screen without a console, for work that ends by itself.
    pub fn new(env: &Env) -> Self {
        let kind = if env.stderr().is_terminal() {
            ScreenKind::Bar(live_bar(env.stderr()))
        } else {
            ScreenKind::Plain
        };
        Self::of(env, kind)
    }

    /// A screen for many live lines.
    pub fn full(env: &Env) -> Self {
        let looks = env.stderr().is_terminal() && !env.var("TERM").is_none_or(is_dumb);
        let kind = match looks {
            true => {
                let screen = AlternateScreen::new(env.stderr());
                ScreenKind::Full(Mutex::new(Full { screen, lines: Vec::new() }))
            }
            false => ScreenKind::Plain,
        };
        Self::of(env, kind)
    }

    /// A screen, and the commands typed at it or piped into it.
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

    /// Prints something worth knowing that is no result.
    pub fn notice(&self, text: impl std::fmt::Display) {
        self.print(&self.shared.stderr, text.to_string());
    }

    /// Shows `text` on the live line in place of what was there. It may be of several lines on
    /// [`Screen::full`], each narrower than the terminal.
    pub fn live(&self, text: &str) {
        match &self.shared.kind {
            ScreenKind::Plain => {}
            ScreenKind::Bar(bar) => bar.set_message(text.to_owned()),
            ScreenKind::Full(full) => {
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

    /// Has the Tab key put in what `completion` has, from now on.
    pub fn complete(&self, completion: Completion) {
        if let ScreenKind::Prompt(prompt) = &self.shared.kind {
            *prompt.completion.lock() = Some(Arc::new(completion));
        }
    }

    /// Whether [`Screen::live`] shows anything to anybody.
    pub fn is_live(&self) -> bool {
        !matches!(self.shared.kind, ScreenKind::Plain)
    }

    /// Whether answers are worth colours.
    pub fn paint(&self) -> Paint {
        self.shared.stdout.paint()
    }

    /// Colours of notices and of the live line.
    pub fn live_paint(&self) -> Paint {
        self.shared.stderr.paint()
    }

    /// Columns of the live line.
    pub fn width(&self) -> usize {
        terminal_width()
    }

    /// Columns that the tables of answers fit; any number in a pipe.
    pub fn answer_width(&self) -> usize {
        self.shared.stdout.width()
    }

    /// Columns of the terminal that answers go to, if they go to one.
    pub fn terminal_width(&self) -> Option<usize> {
        self.shared.stdout.is_terminal().then(terminal_width)
    }

    /// Lines of the terminal, for a live line of several.
    pub fn height(&self) -> usize {
        usize::from(Term::stderr().size_checked().map_or(24, |(rows, _)| rows))
    }

    /// Takes the live line and the prompt away and gives the terminal back. Lines can still be
    /// printed.
    pub fn close(&self) {
        match &self.shared.kind {
            ScreenKind::Plain => {}
            ScreenKind::Bar(bar) => bar.finish_and_clear(),
            ScreenKind::Full(full) => {
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
        env.margin().paint_area(screen.clone());
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
        // A reader that has gone, or a full disk behind a redirect, does not stop a transfer.
        match &self.shared.kind {
            ScreenKind::Plain => drop(output.line(text)),
            ScreenKind::Bar(bar) => bar.suspend(|| drop(output.line(text))),
            ScreenKind::Full(full) => {
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

impl Full {
    fn paint(&mut self) {
        if !self.lines.is_empty() {
            // It is only paint.
            let _ = self.screen.paint(&self.lines);
        }
    }

    fn leave(&mut self) {
        let _ = self.screen.leave();
    }
}

impl Commands {
    /// Nobody types.
    pub fn none() -> Self {
        let (_, typed) = mpsc::channel(1);
        Self { typed, go: None, owes_go: false }
    }

    /// The next thing typed; never, if nobody types or a pipe has ended. Cancel-safe.
    pub async fn next(&mut self) -> Typed {
        if std::mem::take(&mut self.owes_go)
            && let Some(go) = &self.go
        {
            // A full channel means that the prompt is free to come already.
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
    /// Queues text; false once the prompt is gone.
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

    /// Body of the printer's thread. It may have to wait for the next prompt, which the program
    /// must not: hence a thread.
    fn print_all(&self, mut printer: impl ExternalPrinter) {
        loop {
            let message = {
                let mut pending = self.pending.lock();
                pending.busy = false;
                self.wake.notify_all();
                while !pending.closed && pending.text.is_empty() && !pending.repaint {
                    self.wake.wait(&mut pending);
                }
                if pending.closed {
                    return;
                }
                pending.busy = true;
                pending.repaint = false;
                pending.take_text()
            };
            // The editor ends what it prints with a new line: to print nothing, go up first.
            let message = if message.is_empty() { "\x1b[A\n".to_owned() } else { message };
            if printer.print(message).is_err() {
                return;
            }
        }
    }

    fn close(&self) {
        self.live.lock().clear();
        let mut pending = self.pending.lock();
        if pending.closed {
            return;
        }
        // Give what is on its way a moment to be painted; it is only paint.
        let deadline = std::time::Instant::now() + LAST_PAINT;
        while (pending.busy || !pending.text.is_empty())
            && !self.wake.wait_until(&mut pending, deadline).timed_out()
        {}
        pending.closed = true;
        let rest = pending.take_text();
        drop(pending);
        self.wake.notify_all();
        if let Some(original) = &self.original {
            // If the terminal has gone there is nothing to give back.
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
    typed: &mpsc::Sender<Typed>,
    go: &std_mpsc::Receiver<()>,
) {
    // A terminal marks what is pasted, and then one edit may end with several lines.
    let mut pasted = VecDeque::new();
    while go.recv().is_ok() {
        if prompt.pending.lock().closed {
            return;
        }
        if pasted.is_empty() {
            // The live line of the last prompt was taken away or scrolled up.
            *prompt.painted.lock() = 0;
            match editor.readline("\n> ") {
                Ok(text) => {
                    tidy(&text);
                    pasted.extend(text.split('\n').map(|line| Typed::Line(line.to_owned())));
                }
                Err(ReadlineError::Interrupted) => pasted.push_back(Typed::Interrupt),
                Err(_) => pasted.push_back(Typed::End),
            }
        }
        if let Some(event) = pasted.pop_front()
            && typed.blocking_send(event).is_err()
        {
            return;
        }
    }
}

/// Takes the stale live line above a finished command out of the terminal's history.
fn tidy(text: &str) {
    let term = Term::stdout();
    let width = usize::from(term.size().1).max(1);
    let rows: usize = text.split('\n').map(|line| (2 + columns(line)) / width + 1).sum();
    // Up to the live line, delete it, back down to below the command.
    let escape = format!("\x1b[{}A\x1b[M\x1b[{rows}B", rows + 1);
    // Only paint: nothing is lost if it fails.
    let _ = term.write_str(&escape);
}

/// Lines from a pipe. Its end is not an event: a program started with stdin closed goes on.
fn piped(stdin: Input) -> Commands {
    let (typed_tx, typed) = mpsc::channel(16);
    let mut reader = stdin.into_reader();
    let read = move || {
        while let Some(line) = read_line(&mut *reader) {
            if typed_tx.blocking_send(Typed::Line(line)).is_err() {
                return;
            }
        }
    };
    // Without a thread for them there are no commands; the transfer goes on.
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    Commands { typed, go: None, owes_go: false }
}

/// A line of at most [`MAX_LINE`] bytes; the rest of a longer one is skipped.
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

/// Whether we are the terminal's foreground job: one in the background (`… &`) that touched the
/// terminal's settings would be stopped.
fn in_foreground() -> bool {
    let group = rustix::process::getpgrp();
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|foreground| foreground == group)
}

/// Terminals that cannot move their cursor, as the line editor knows them.
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
        // The editor counts the rows of the plain prompt: the live line must stay one row, whatever
        // the width is by the time it arrives.
        let width = terminal_width().max(1);
        let live = self.prompt.live.lock();
        let shown = cut_end(&live, width - 1);
        // A terminal that was made narrower has wrapped the last one, and the editor has erased
        // only the last row of it.
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

/// Bytes of a command at most; the longest sensible one holds a file name.
const MAX_LINE: usize = 4096;

/// Bytes that may wait for a terminal that has been stopped (Ctrl-S): a whole `request logs`.
const MAX_PENDING: usize = 64 << 20;

/// How long the prompt's last paint may take when the program ends.
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
        assert_eq!(commands.next().await, Typed::Line("peers".to_owned()));
        assert_eq!(commands.next().await, Typed::Line("quit".to_owned()));
        let after = std::pin::pin!(commands.next());
        assert!(futures_poll(after).is_none());
    }

    /// One poll of a future that nothing can wake.
    fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
