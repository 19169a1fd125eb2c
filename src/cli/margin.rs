//! Stderr while something is painted there.

use std::sync::Arc;

use indicatif::ProgressBar;
use parking_lot::Mutex;

use super::output::Output;
use super::screen::Screen;

/// Stderr, above whatever is painted there. Cheap to clone.
#[derive(Clone)]
pub struct Margin {
    stderr: Output,
    painted: Arc<Mutex<Vec<Painted>>>,
}

/// The live lines on a terminal.
enum Painted {
    Screen(Screen),
    Bar(ProgressBar),
}

impl Margin {
    /// Of `stderr`, where nothing is painted yet.
    pub fn new(stderr: Output) -> Self {
        Self { stderr, painted: Arc::default() }
    }

    /// From now on `screen` is painted, in the place of whatever was.
    pub fn paint_screen(&self, screen: &Screen) {
        *self.painted.lock() = vec![Painted::Screen(screen.clone())];
    }

    /// From now on `bar` is painted too, until [`Margin::bar_ended`].
    pub fn paint_bar(&self, bar: &ProgressBar) {
        self.painted.lock().push(Painted::Bar(bar.clone()));
    }

    /// The bar that was painted last has been taken away.
    pub fn bar_ended(&self) {
        let mut painted = self.painted.lock();
        if let Some(last) = painted.iter().rposition(|it| matches!(it, Painted::Bar(_))) {
            painted.remove(last);
        }
    }

    /// Takes everything away that is painted.
    pub fn clear(&self) {
        for painted in self.painted.lock().drain(..).rev() {
            match painted {
                Painted::Screen(screen) => screen.close(),
                Painted::Bar(bar) => bar.finish_and_clear(),
            }
        }
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) {
        // A reader that has gone, or a full disk behind a redirect, does not stop a program.
        match self.painted.lock().last() {
            Some(Painted::Screen(screen)) => screen.notice(line),
            Some(Painted::Bar(bar)) => bar.suspend(|| drop(self.stderr.line(line))),
            None => drop(self.stderr.line(line)),
        }
    }
}
