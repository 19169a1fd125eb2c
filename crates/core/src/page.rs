//! A page of a long list on a console.

use std::ops::Range;

use super::figures::count;

/// The last rows of a list, or the rows before those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Rows per page; `None` for all rows.
    rows: Option<usize>,
    /// The number of pages between this one and the end of the list.
    behind: usize,
}

impl Page {
    /// Parses the arguments of a command: none, a number of rows, or a number of rows and the
    /// number of a page, counted from the end. Returns `None` for anything else.
    pub fn parse(words: &[&str]) -> Option<Self> {
        let number = |word: &str| word.parse().ok().filter(|number: &usize| *number > 0);
        match words {
            [] => Some(Self::default()),
            [rows] => Some(Self { rows: Some(number(rows)?), behind: 0 }),
            [rows, page] => Some(Self { rows: Some(number(rows)?), behind: number(page)? - 1 }),
            _ => None,
        }
    }

    /// Returns which of `total` rows are on the page.
    pub fn range(self, total: usize) -> Range<usize> {
        let Some(rows) = self.rows else { return 0..total };
        let end = total.saturating_sub(self.behind.saturating_mul(rows));
        end.saturating_sub(rows)..end
    }

    /// Returns a sentence that says which rows are shown and how `command` shows the rows before
    /// them. Returns `None` if all of `total` are shown.
    pub fn note(self, total: usize, command: &str) -> Option<String> {
        let rows = self.rows?;
        let range = self.range(total);
        let shown = count(range.len() as u64);
        let mut text = format!("{shown} of {} shown", count(total as u64));
        if range.start > 0 {
            let next = self.behind + 2;
            text.push_str(&format!("; `{command} {rows} {next}` shows those before"));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_from_the_end() {
        let page = |text: &str| Page::parse(&text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(page("").unwrap().range(50), 0..50);
        assert_eq!(page("20").unwrap().range(50), 30..50);
        assert_eq!(page("20 2").unwrap().range(50), 10..30);
        assert_eq!(page("20 3").unwrap().range(50), 0..10);
        assert_eq!(page("20 4").unwrap().range(50), 0..0);
        for wrong in ["0", "20 0", "-1", "now", "20 2 1", "99999999999999999999999"] {
            assert_eq!(page(wrong), None, "{wrong}");
        }
        let note = |text: &str| page(text).unwrap().note(50, "request logs");
        assert_eq!(note(""), None);
        let first = "20 of 50 shown; `request logs 20 2` shows those before";
        assert_eq!(note("20").unwrap(), first);
        assert_eq!(note("20 3").unwrap(), "10 of 50 shown");
    }
}
