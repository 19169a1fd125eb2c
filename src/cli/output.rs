//! The output of a program: a stream, or memory in a test.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;

use console::Term;
use parking_lot::Mutex;

use super::Paint;

/// The output of a program. Cheap to clone.
#[derive(Clone)]
pub struct Output {
    sink: Arc<Mutex<dyn Write + Send>>,
    terminal: bool,
    paint: Paint,
}

impl Output {
    /// Creates an output to `sink`, with colours if `color` is set.
    pub fn new(sink: impl Write + Send + 'static, terminal: bool, color: bool) -> Self {
        Self { sink: Arc::new(Mutex::new(sink)), terminal, paint: Paint::new(color) }
    }

    /// Creates an output to memory, and the value that reads it.
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        (Self::new(captured.clone(), false, false), captured)
    }

    /// Writes one line.
    ///
    /// # Errors If the stream fails.
    pub fn line(&self, line: impl Display) -> io::Result<()> {
        self.text(format_args!("{line}\n"))
    }

    /// Writes text unchanged, in one call.
    ///
    /// # Errors If the stream fails.
    pub fn text(&self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        let mut sink = self.sink.lock();
        sink.write_all(text.as_bytes())?;
        sink.flush()
    }

    /// Returns whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Returns the number of columns for tables. A pipe or a file has no limit.
    pub fn width(&self) -> usize {
        if self.terminal { terminal_width() } else { usize::MAX }
    }

    pub fn paint(&self) -> Paint {
        self.paint
    }
}

/// Returns the columns of the terminal that this process writes to, or 80 if they are not known.
pub(super) fn terminal_width() -> usize {
    let size = [Term::stdout(), Term::stderr()].iter().find_map(Term::size_checked);
    size.map_or(80, |(_, columns)| usize::from(columns))
}

/// Output kept in memory. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Returns what has been written so far.
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
