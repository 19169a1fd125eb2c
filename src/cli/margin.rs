//! Stderr while something is painted there.

use std::sync::Arc;

use indicatif::ProgressBar;
use parking_lot::Mutex;

use super::output::Output;

/// Stderr, above whatever is painted there. Cheap to clone.
#[derive(Clone)]
pub struct Margin {
    stderr: Output,
    painted: Arc<Mutex<Vec<Painted>>>,
}

/// Live lines that a program paints at the lower end of a terminal.
pub trait LiveArea: Send + Sync {
    /// Prints a line above them.
    fn print_above(&self, line: &str);
    /// Removes them.
    fn remove(&self);
}

enum Painted {
    Area(Box<dyn LiveArea>),
    Bar(ProgressBar),
}

impl Margin {
    /// Creates it for `stderr`, where nothing is painted yet.
    pub fn new(stderr: Output) -> Self {
        Self { stderr, painted: Arc::default() }
    }

    /// Records that `area` is painted now, instead of everything else.
    pub fn paint_area(&self, area: impl LiveArea + 'static) {
        *self.painted.lock() = vec![Painted::Area(Box::new(area))];
    }

    /// Records that `bar` is painted too, until [`Margin::bar_ended`].
    pub fn paint_bar(&self, bar: &ProgressBar) {
        self.painted.lock().push(Painted::Bar(bar.clone()));
    }

    /// Records that the last bar was removed.
    pub fn bar_ended(&self) {
        let mut painted = self.painted.lock();
        if let Some(last) = painted.iter().rposition(|it| matches!(it, Painted::Bar(_))) {
            painted.remove(last);
        }
    }

    /// Removes everything that is painted.
    pub fn clear(&self) {
        for painted in self.painted.lock().drain(..).rev() {
            match painted {
                Painted::Area(area) => area.remove(),
                Painted::Bar(bar) => bar.finish_and_clear(),
            }
        }
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) {
        // A reader that has left, or a full disk behind a redirect, does not stop a program.
        match self.painted.lock().last() {
            Some(Painted::Area(area)) => area.print_above(line),
            Some(Painted::Bar(bar)) => bar.suspend(|| drop(self.stderr.line(line))),
            None => drop(self.stderr.line(line)),
        }
    }
}
