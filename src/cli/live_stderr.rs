//! Stderr while something is painted there.

use std::sync::Arc;

use indicatif::ProgressBar;
use parking_lot::Mutex;

use super::output::Output;

/// Stderr, above whatever is painted there. Cheap to clone.
#[derive(Clone)]
pub struct LiveStderr {
    stderr: Output,
    painted: Arc<Mutex<Vec<LiveItem>>>,
}

/// Live lines that a program paints at the lower end of a terminal.
pub trait LiveArea: Send + Sync {
    /// Prints a line above them.
    fn print_above(&self, line: &str);
    /// Removes them.
    fn remove(&self);
}

enum LiveItem {
    Area(Box<dyn LiveArea>),
    Bar(ProgressBar),
}

impl LiveStderr {
    /// Creates it for `stderr`, where nothing is painted yet.
    pub fn new(stderr: Output) -> Self {
        Self { stderr, painted: Arc::default() }
    }

    /// Records that `area` is painted now, instead of everything else.
    pub fn paint_area(&self, area: impl LiveArea + 'static) {
        *self.painted.lock() = vec![LiveItem::Area(Box::new(area))];
    }

    /// Records that `bar` is painted too, until [`LiveStderr::bar_ended`].
    pub fn paint_bar(&self, bar: &ProgressBar) {
        self.painted.lock().push(LiveItem::Bar(bar.clone()));
    }

    /// Records that the last bar was removed.
    pub fn bar_ended(&self) {
        let mut painted = self.painted.lock();
        if let Some(last) = painted.iter().rposition(|it| matches!(it, LiveItem::Bar(_))) {
            painted.remove(last);
        }
    }

    /// Removes everything that is painted.
    pub fn clear(&self) {
        for painted in self.painted.lock().drain(..).rev() {
            match painted {
                LiveItem::Area(area) => area.remove(),
                LiveItem::Bar(bar) => bar.finish_and_clear(),
            }
        }
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) {
        // A reader that has left, or a full disk behind a redirect, does not stop a program.
        match self.painted.lock().last() {
            Some(LiveItem::Area(area)) => area.print_above(line),
            Some(LiveItem::Bar(bar)) => bar.suspend(|| drop(self.stderr.line(line))),
            None => drop(self.stderr.line(line)),
        }
    }
}
