//! Live lines below a program's output, which are repainted.
//!
//! A terminal that becomes narrower wraps its lines, and does not tell how many rows they take
//! then. So the cursor stays at the start of the first line, which terminals keep next to its text.
//! Each line is painted with wrapping turned off. Whatever the width is, a line takes one row, and
//! everything from the cursor on can be erased.

use std::io;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use parking_lot::Mutex;

use super::Output;

/// Returns the text that paints `lines` from the cursor's row on, over earlier lines, and moves the
/// cursor back.
pub(super) fn painted(lines: &[impl AsRef<str>]) -> String {
    let mut out = "\r\x1b[?7l".to_owned();
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            out.push_str("\r\n");
        }
        out.push_str(line.as_ref());
        out.push_str("\x1b[K");
    }
    if lines.last().is_none_or(|line| line.as_ref().is_empty()) {
        // Erase from the second column on. If the first column of the first row is erased too, tmux
        // saves the erased text in its history.
        out.push_str("\x1b[K\x1b[C");
    }
    out.push_str("\x1b[J\r");
    if lines.len() > 1 {
        out.push_str(&format!("\x1b[{}A", lines.len() - 1));
    }
    out.push_str("\x1b[?7h");
    out
}

/// A terminal's alternate screen, for frames of many lines. Leaving it restores the former content.
/// On the main screen, a frame that a narrower terminal wraps may scroll away in part, and
/// reappear.
pub(super) struct AlternateScreen {
    output: Output,
    entered: bool,
}

impl AlternateScreen {
    /// Creates the alternate screen of `output`'s terminal. The first frame enters it.
    pub(super) fn new(output: &Output) -> Self {
        Self { output: output.clone(), entered: false }
    }

    /// Paints a frame of lines over the last one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn paint(&mut self, lines: &[impl AsRef<str>]) -> io::Result<()> {
        let enter = if self.entered { "" } else { "\x1b[?1049h\x1b[?25l" };
        self.entered = true;
        self.output.text(format_args!("{enter}\x1b[H{}", painted(lines)))
    }

    /// Returns to the main screen, if the alternate screen was entered.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.entered) {
            true => self.output.text("\x1b[?1049l\x1b[?25h"),
            false => Ok(()),
        }
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to return to.
        let _ = self.leave();
    }
}

/// Returns a bar that shows its message, which may have several lines, on `stderr`.
pub(super) fn live_bar(stderr: &Output) -> ProgressBar {
    let lines = LiveLines { stderr: stderr.clone(), frame: Mutex::default() };
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(lines), PAINTS_A_SECOND);
    let bar = ProgressBar::with_draw_target(None, target);
    // The template is valid, so the fallback is never used.
    let style = ProgressStyle::with_template("{msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

/// A terminal for indicatif. It paints whole frames, and finds the last frame by itself.
struct LiveLines {
    stderr: Output,
    frame: Mutex<Frame>,
}

#[derive(Default)]
struct Frame {
    lines: Vec<String>,
    /// Whether the last text was a line, so that the next one is the space behind it.
    filling: bool,
}

impl std::fmt::Debug for LiveLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveLines").finish_non_exhaustive()
    }
}

impl TermLike for LiveLines {
    fn width(&self) -> u16 {
        // Lines are shortened before they come here, so none may be counted as two rows.
        u16::MAX / 2
    }

    fn height(&self) -> u16 {
        Term::stderr().size().0
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.frame.lock().lines.push(line.to_owned());
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut frame = self.frame.lock();
        if !frame.filling {
            frame.lines.push(text.to_owned());
        }
        frame.filling = !frame.filling;
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame.lock());
        self.stderr.text(painted(&frame.lines))
    }
}

/// Often enough for the eye, and a remote terminal keeps up.
const PAINTS_A_SECOND: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &[&str] = &[];

    #[test]
    fn a_frame_ends_where_it_began() {
        assert_eq!(painted(NOTHING), "\r\x1b[?7l\x1b[K\x1b[C\x1b[J\r\x1b[?7h");
        assert_eq!(painted(&["one"]), "\r\x1b[?7lone\x1b[K\x1b[J\r\x1b[?7h");
        let two = painted(&["one", "two"]);
        assert_eq!(two, "\r\x1b[?7lone\x1b[K\r\ntwo\x1b[K\x1b[J\r\x1b[1A\x1b[?7h");
    }

    #[test]
    fn the_alternate_screen_is_entered_once_and_left_once() {
        let (output, said) = Output::captured();
        let mut screen = AlternateScreen::new(&output);
        screen.leave().unwrap();
        assert_eq!(said.text(), "");
        screen.paint(&["one"]).unwrap();
        screen.paint(&["two"]).unwrap();
        drop(screen);
        let text = said.text();
        assert_eq!(text.matches("\x1b[?1049h").count(), 1);
        assert_eq!(text.matches("\x1b[?1049l").count(), 1);
        assert!(text.ends_with("\x1b[?25h"), "{text:?}");
    }

    #[test]
    fn bars_come_as_lines_and_are_taken_away_whole() {
        let (stderr, said) = Output::captured();
        let bar = live_bar(&stderr);
        bar.set_message("one\ntwo");
        assert!(said.text().ends_with(&painted(&["one", "two"])), "{:?}", said.text());
        bar.suspend(|| stderr.line("a notice").unwrap());
        let cleared = format!("{}a notice\n", painted(NOTHING));
        assert!(said.text().contains(&cleared), "{:?}", said.text());
        assert!(said.text().ends_with(&painted(&["one", "two"])), "{:?}", said.text());
        bar.finish_and_clear();
        assert!(said.text().ends_with(&painted(NOTHING)), "{:?}", said.text());
    }
}
