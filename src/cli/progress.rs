//! Progress bars of work before a transfer, such as hashing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use parking_lot::Mutex;

use piecework_core::{columns, printable};

use super::format::{Paint, bar_line, rate, seconds, size};
use super::live_lines::live_bar;
use super::live_stderr::LiveStderr;
use super::output::terminal_width;
use super::{Env, Output};

/// The progress of some work on stderr: a bar on a terminal, else a line at each tenth if the work
/// takes long.
pub(super) struct WorkBar {
    display: WorkDisplay,
    doing: String,
    name: String,
    begun: Instant,
    /// Where the bar is painted, until it is removed.
    live_stderr: Mutex<Option<LiveStderr>>,
}

enum WorkDisplay {
    Bar {
        bar: ProgressBar,
        paint: Paint,
        /// When to paint it again.
        next: Mutex<Instant>,
    },
    /// A line at each tenth.
    Lines { output: Output, tenths: AtomicU64 },
}

impl WorkBar {
    /// Starts the progress of `doing` with the bytes of `name`. Nothing is shown before the total
    /// is known.
    pub(super) fn new(env: &Env, doing: &str, name: &str) -> Self {
        let (stderr, begun) = (env.stderr(), Instant::now());
        let (display, live_stderr) = if stderr.is_terminal() {
            let bar = live_bar(stderr);
            env.live_stderr().paint_bar(&bar);
            let display = WorkDisplay::Bar { bar, paint: stderr.paint(), next: Mutex::new(begun) };
            (display, Some(env.live_stderr().clone()))
        } else {
            (WorkDisplay::Lines { output: stderr.clone(), tenths: AtomicU64::new(0) }, None)
        };
        let (doing, name) = (doing.to_owned(), name.to_owned());
        Self { display, doing, name, begun, live_stderr: Mutex::new(live_stderr) }
    }

    /// Reports that `done` of `total` bytes are done.
    pub(super) fn at(&self, done: u64, total: u64) {
        match &self.display {
            WorkDisplay::Bar { bar, paint, next } => {
                // Other threads that do the work need not wait for the painting.
                let Some(mut next) = next.try_lock() else { return };
                let now = Instant::now();
                if now >= *next {
                    *next = now + BETWEEN_PAINTS;
                    let line = self.line(done, total, now - self.begun, terminal_width(), *paint);
                    bar.set_message(line);
                }
            }
            WorkDisplay::Lines { output, tenths } if total >= LONG => {
                let now = super::format::percent(done, total) / 10;
                if tenths.fetch_max(now, Ordering::Relaxed) < now {
                    let (doing, name) = (&self.doing, printable(&self.name));
                    // Nothing depends on these lines.
                    let _ = output.line(format_args!("{doing} {name} {}%", now * 10));
                }
            }
            WorkDisplay::Lines { .. } => {}
        }
    }

    /// Removes the bar when the work has ended.
    pub(super) fn clear(&self) {
        if let WorkDisplay::Bar { bar, .. } = &self.display
            && let Some(live_stderr) = self.live_stderr.lock().take()
        {
            bar.finish_and_clear();
            live_stderr.bar_ended();
        }
    }

    /// Returns the line to show after `took`, in fewer than `width` columns.
    fn line(&self, done: u64, total: u64, took: Duration, width: usize, paint: Paint) -> String {
        let bytes = format!("{}/{}", size(done), size(total));
        let speed = done as f64 / took.as_secs_f64().max(1e-3);
        let left = total.saturating_sub(done) as f64 / speed.max(1.0);
        let eta = if done == 0 {
            "ETA –".to_owned()
        } else {
            format!("ETA {}", seconds(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)))
        };
        let speed = paint.cyan(rate(speed));
        let tails =
            [format!("{bytes}  {speed}  {eta}"), format!("{speed}  {eta}"), eta, String::new()];
        let room = width.saturating_sub(columns(&self.doing) + 1);
        format!("{} {}", self.doing, bar_line(&self.name, done, total, &tails, room, paint))
    }
}

/// Work on fewer bytes than this takes less than about a second.
const LONG: u64 = 1 << 30;

/// Time between two frames.
const BETWEEN_PAINTS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_per_cents_at_any_width_and_begins_at_none() {
        let env = {
            let (out, _) = Output::captured();
            Env::new("test", Vec::<String>::new(), std::path::Path::new("/"), out.clone(), out)
        };
        for name in ["a", &"long name ".repeat(20), &"文件".repeat(40), &"שלום".repeat(30)] {
            let bar = WorkBar::new(&env, "hashing", name);
            for width in [60, 80, 120] {
                let line = |done| {
                    bar.line(done, 100 << 30, Duration::from_secs(9), width, Paint::new(false))
                };
                assert!(line(0).contains("  0%"), "{}", line(0));
                let half = line(50 << 30);
                assert!(half.starts_with("hashing ") && half.contains("━ ") || half.contains("━─"));
                assert!(half.contains(" 50%") && half.contains("ETA 9s"), "{half}");
                assert!(columns(&half) < width, "{width}: {half}");
            }
        }
    }
}
