//! Progress bars of work that is done before anything moves on the network.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::base::printable;

use super::logging::Margin;
use super::{Env, Output};

/// How far a piece of work is, on stderr: a bar on a terminal, else a line at each tenth of work
/// that is long enough to wonder about.
pub struct WorkBar {
    bar: ProgressBar,
    lines: Option<Lines>,
    /// Where the bar is painted, until it is taken away.
    margin: Mutex<Option<Margin>>,
}

struct Lines {
    output: Output,
    label: String,
    tenths: AtomicU64,
}

impl WorkBar {
    /// Work on the bytes of `name`.
    pub fn new(env: &Env, doing: &str, name: &str) -> Self {
        let label = format!("{doing} {}", printable(name));
        if env.stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(style(env.stderr().paint().is_on()));
            bar.set_prefix(label);
            env.margin().paint_bar(&bar);
            let margin = Mutex::new(Some(env.margin().clone()));
            return Self { bar, lines: None, margin };
        }
        let lines = Lines { output: env.stderr().clone(), label, tenths: AtomicU64::new(0) };
        Self { bar: ProgressBar::hidden(), lines: Some(lines), margin: Mutex::default() }
    }

    /// `done` of `total` bytes are done.
    pub fn at(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let Some(lines) = self.lines.as_ref().filter(|_| total >= LONG) else { return };
        let tenths = super::format::percent(done, total) / 10;
        if lines.tenths.fetch_max(tenths, Ordering::Relaxed) < tenths {
            // Nobody depends on these lines.
            let _ = lines.output.line(format_args!("{} {}%", lines.label, tenths * 10));
        }
    }

    /// The work has ended; its result is shown instead.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
        if let Some(margin) = self.margin.lock().take() {
            margin.bar_ended();
        }
    }
}

fn style(color: bool) -> ProgressStyle {
    let template = if color {
        "{prefix:.bold} [{bar:30.cyan/dim}] {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}"
    } else {
        "{prefix} [{bar:30}] {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

/// Bytes below which work is over before one wonders: about a second of hashing.
const LONG: u64 = 1 << 30;
