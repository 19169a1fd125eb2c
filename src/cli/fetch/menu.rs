//! Menu to choose a torrent with the arrow keys or by typing a part of its name.

use console::{Key, Term};

use piecework_core::{columns as columns_of, cut_end, cut_middle, padded, printable};
use piecework_proto::announce::catalogue::CatalogueEntry;

use super::super::format::{Paint, count, size};
use super::super::live_lines::AlternateScreen;
use super::super::{CliError, Env, Exit};

/// Lets the user choose an entry.
///
/// # Errors If the user leaves without choosing, or if the terminal cannot be used.
pub(super) fn choose<'a>(
    env: &Env,
    entries: &'a [CatalogueEntry],
) -> Result<&'a CatalogueEntry, CliError> {
    let term = Term::stderr();
    let mut menu = CatalogueMenu::new(entries);
    let mut screen = AlternateScreen::new(env.stderr());
    let paint = env.stderr().paint();
    let result = loop {
        let (rows, columns) = term.size_checked().unwrap_or((24, 80));
        let lines = menu.frame(columns.into(), rows.into(), paint);
        screen.paint(&lines)?;
        let key = match term.read_key_raw() {
            Ok(key) => key,
            Err(error) => {
                break Err(CliError::failed(format_args!("the terminal cannot be read: {error}"))
                    .because(error));
            }
        };
        match menu.press(&key) {
            None => {}
            Some(Answer::Chosen(entry)) => break Ok(entry),
            Some(Answer::Nothing) => break Err(CliError::failed("nothing was chosen")),
            Some(Answer::Interrupt) => break Err(CliError::silent(Exit::Interrupted)),
        }
    };
    screen.leave()?;
    result
}

/// The state of the menu.
struct CatalogueMenu<'a> {
    entries: &'a [CatalogueEntry],
    /// The typed text: a part of the name, ignoring case.
    filter: String,
    /// Indices of the entries that match.
    matching: Vec<usize>,
    /// The marked entry among them.
    mark: usize,
    /// The first visible entry among them.
    top: usize,
    /// Number of visible entries in the last frame.
    page: usize,
}

/// The result of a key.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Chosen(&'a CatalogueEntry),
    Nothing,
    Interrupt,
}

impl<'a> CatalogueMenu<'a> {
    fn new(entries: &'a [CatalogueEntry]) -> Self {
        let matching = (0..entries.len()).collect();
        Self { entries, filter: String::new(), matching, mark: 0, top: 0, page: 1 }
    }

    fn press(&mut self, key: &Key) -> Option<Answer<'a>> {
        let last = self.matching.len().saturating_sub(1);
        match key {
            Key::ArrowUp | Key::BackTab => self.mark = self.mark.saturating_sub(1),
            Key::ArrowDown | Key::Tab => self.mark = (self.mark + 1).min(last),
            Key::PageUp => self.mark = self.mark.saturating_sub(self.page),
            Key::PageDown => self.mark = (self.mark + self.page).min(last),
            Key::Home => self.mark = 0,
            Key::End => self.mark = last,
            Key::Enter => {
                let chosen = self.matching.get(self.mark)?;
                return self.entries.get(*chosen).map(Answer::Chosen);
            }
            Key::Escape if self.filter.is_empty() => return Some(Answer::Nothing),
            Key::Escape => {
                self.filter.clear();
                self.find();
            }
            Key::CtrlC => return Some(Answer::Interrupt),
            Key::Backspace => {
                self.filter.pop();
                self.find();
            }
            Key::Char(typed) if !typed.is_control() && self.filter.len() < MOST_TYPED => {
                self.filter.push(*typed);
                self.find();
            }
            _ => {}
        }
        None
    }

    /// Finds the entries that match the typed text.
    fn find(&mut self) {
        let wanted = self.filter.to_lowercase();
        let matches = |entry: &CatalogueEntry| {
            entry.name.to_lowercase().contains(&wanted)
                || entry.info_hash.to_string().starts_with(&wanted)
        };
        self.matching = (0..self.entries.len()).filter(|&at| matches(&self.entries[at])).collect();
        (self.mark, self.top) = (0, 0);
    }

    /// Returns the lines of a frame: fewer than `rows`, each narrower than `columns`.
    fn frame(&mut self, columns: usize, rows: usize, paint: Paint) -> Vec<String> {
        // Three lines are the question, the help, and the cursor's line.
        self.page = rows.saturating_sub(3).clamp(1, MOST_SHOWN);
        self.top = self.top.clamp((self.mark + 1).saturating_sub(self.page), self.mark);
        let width = columns.saturating_sub(1);
        let typed = match self.filter.as_str() {
            "" => paint.dim("type a part of its name"),
            filter => paint.cyan(printable(filter)),
        };
        let question = format!("{} {typed}", paint.bold("Which torrent?"));
        let mut lines = vec![cut_end(&question, width).into_owned()];
        let shown = self.matching.iter().enumerate().skip(self.top).take(self.page);
        for (place, &at) in shown {
            lines.push(row(&self.entries[at], place == self.mark, width, paint));
        }
        let found = match (self.matching.len(), self.entries.len()) {
            (0, _) => "no name contains this".to_owned(),
            (found, all) if found == all => count(all as u64),
            (found, all) => format!("{} of {}", count(found as u64), count(all as u64)),
        };
        let help = format!("{found}  ↑ ↓ move, Enter selects, Esc leaves");
        lines.push(paint.dim(cut_end(&help, width)));
        lines
    }
}

/// Returns the line of an entry: its name, then as much as there is room for.
fn row(entry: &CatalogueEntry, marked: bool, width: usize, paint: Paint) -> String {
    let about = format!(
        "{:>10}  {:>3} seeding  {:>3} leeching  {}",
        size(entry.size),
        entry.complete,
        entry.incomplete,
        &entry.info_hash.to_string()[..8]
    );
    let mark = if marked { "❯ " } else { "  " };
    let name = printable(&entry.name);
    let room = width.saturating_sub(columns_of(&about) + 4);
    let line = if room < LEAST_NAME {
        cut_middle(&name, width.saturating_sub(2)).into_owned()
    } else {
        let room = room.min(MOST_NAME);
        format!("{}  {about}", padded(&cut_middle(&name, room), room, false))
    };
    let line = cut_end(&line, width.saturating_sub(2));
    if marked { paint.cyan(format_args!("{mark}{line}")) } else { format!("{mark}{line}") }
}

/// Maximum bytes of the typed text.
const MOST_TYPED: usize = 200;

/// Maximum number of visible entries.
const MOST_SHOWN: usize = 20;

/// Least columns of a name with details beside it, and most columns of a name.
const LEAST_NAME: usize = 16;
const MOST_NAME: usize = 60;

#[cfg(test)]
mod tests {
    use piecework_core::InfoHash;

    use super::*;

    fn entries(names: &[&str]) -> Vec<CatalogueEntry> {
        let entry = |(number, name): (usize, &&str)| CatalogueEntry {
            info_hash: InfoHash([number as u8; 20]),
            name: (*name).to_owned(),
            size: 1 << 30,
            pieces: 1024,
            piece_length: 1 << 20,
            files: 1,
            private: false,
            description: None,
            complete: 2,
            incomplete: 1,
            registered_at: 0,
        };
        names.iter().enumerate().map(entry).collect()
    }

    fn chosen(names: &[&str], keys: &[Key]) -> Option<String> {
        let entries = entries(names);
        let mut menu = CatalogueMenu::new(&entries);
        for key in keys {
            menu.frame(80, 10, Paint::new(false));
            match menu.press(key) {
                Some(Answer::Chosen(entry)) => return Some(entry.name.clone()),
                Some(_) => return None,
                None => {}
            }
        }
        panic!("nothing came of {keys:?}")
    }

    #[test]
    fn arrows_move_the_mark_and_enter_takes_it() {
        let names = ["one", "two", "three"];
        let at = |keys: &[Key]| chosen(&names, keys);
        assert_eq!(at(&[Key::Enter]).as_deref(), Some("one"));
        assert_eq!(at(&[Key::ArrowDown, Key::Enter]).as_deref(), Some("two"));
        assert_eq!(at(&[Key::End, Key::ArrowDown, Key::Enter]).as_deref(), Some("three"));
        assert_eq!(
            at(&[Key::ArrowDown, Key::ArrowUp, Key::ArrowUp, Key::Enter]).as_deref(),
            Some("one")
        );
        assert_eq!(at(&[Key::Escape]), None);
        assert_eq!(at(&[Key::CtrlC]), None);
    }

    #[test]
    fn typing_finds_names_and_info_hashes() {
        let names = ["Alpha.iso", "beta.ISO", "gamma.txt"];
        let typed =
            |text: &str| -> Vec<Key> { text.chars().map(Key::Char).chain([Key::Enter]).collect() };
        assert_eq!(chosen(&names, &typed("alp")).as_deref(), Some("Alpha.iso"));
        assert_eq!(chosen(&names, &typed("0202")).as_deref(), Some("gamma.txt"));
        let mut keys = typed("zz");
        // Enter does nothing if nothing matches. Esc clears the text.
        keys.extend([Key::Escape, Key::ArrowDown, Key::Enter]);
        assert_eq!(chosen(&names, &keys).as_deref(), Some("beta.ISO"));
        let keys = [Key::Char('b'), Key::Char('x'), Key::Backspace, Key::Enter];
        assert_eq!(chosen(&names, &keys).as_deref(), Some("beta.ISO"));
    }

    #[test]
    fn the_menu_fits_its_terminal_and_follows_the_mark() {
        let names: Vec<String> =
            (0..100).map(|number| format!("{number} \u{202e}{}", "文".repeat(50))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let entries = entries(&names);
        for (columns, rows) in [(20, 4), (80, 24), (120, 50)] {
            let mut menu = CatalogueMenu::new(&entries);
            for step in 0..60 {
                let lines = menu.frame(columns, rows, Paint::new(false));
                assert!(lines.len() < rows, "{columns}x{rows}");
                for line in &lines {
                    assert!(columns_of(line) < columns, "{line}");
                    assert!(!line.contains('\u{202e}'));
                }
                let marked = lines.iter().find(|line| line.starts_with('❯')).unwrap();
                assert!(marked.starts_with(&format!("❯ {step} ")), "{marked}");
                assert_eq!(menu.press(&Key::ArrowDown), None);
            }
        }
    }
}
