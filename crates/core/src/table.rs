//! Tables without rules, for terminals of any width.

use super::columns::{columns, cut_end, cut_middle, padded, wrapped};

/// A table: titles and rows of cells, all without line ends. Build it with the methods below, then
/// call [`Table::lines`].
///
/// If the terminal is too narrow, the table shrinks in this order: info-hashes are cut to eight
/// digits, optional columns are left out, names and notes are cut or wrapped.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    /// The columns that may be left out, first to go first.
    spare: Vec<usize>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    right: bool,
    narrow: Narrow,
}

/// How a column shrinks on a narrow terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrow {
    /// Not at all, unless nothing else helps.
    Stays,
    /// Its cells lose their middle.
    Name,
    /// Its cells lose their end.
    Note,
    /// Its cells are wrapped.
    Wraps,
    /// Its cells are cut to their first digits.
    Hash,
}

/// The lines of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableLines {
    /// The titles.
    pub head: String,
    /// The lines of each row: one, unless a cell is wrapped.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these titles and no rows.
    pub fn new<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Self {
        let column = |title: T| Column { title: title.into(), right: false, narrow: Narrow::Stays };
        Self { columns: titles.into_iter().map(column).collect(), ..Self::default() }
    }

    /// Aligns these columns to the right, for numbers.
    pub fn right(mut self, columns: &[usize]) -> Self {
        for at in columns {
            self.columns[*at].right = true;
        }
        self
    }

    /// Says that these columns hold names, which are cut in the middle.
    pub fn names(self, columns: &[usize]) -> Self {
        self.narrow(columns, Narrow::Name)
    }

    /// Says that these columns hold notes, which are cut at the end.
    pub fn notes(self, columns: &[usize]) -> Self {
        self.narrow(columns, Narrow::Note)
    }

    /// Says that these columns hold text without escape sequences, which is wrapped.
    pub fn wraps(self, columns: &[usize]) -> Self {
        self.narrow(columns, Narrow::Wraps)
    }

    /// Says that these columns hold info-hashes, which may be cut to eight digits.
    pub fn hashes(self, columns: &[usize]) -> Self {
        self.narrow(columns, Narrow::Hash)
    }

    /// Says that these columns may be left out on a narrow terminal, first to go first.
    pub fn spare(mut self, columns: &[usize]) -> Self {
        self.spare = columns.to_vec();
        self
    }

    /// Adds rows, each with a cell for every column.
    pub fn rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Returns the lines, each of fewer than `width` columns. `usize::MAX` cuts nothing.
    pub fn lines(&self, width: usize) -> TableLines {
        let room = match width {
            usize::MAX => usize::MAX,
            // The last column of a terminal stays free: some terminals wrap as soon as it is
            // written to.
            width => width.saturating_sub(1),
        };
        let fitted = self.fitted(room);
        let titles = self.columns.iter().map(|column| column.title.to_uppercase());
        let titles: Vec<String> = titles.collect();
        let head = self.row_lines(&titles, &fitted, room).swap_remove(0);
        let rows = self.rows.iter().map(|row| self.row_lines(row, &fitted, room)).collect();
        TableLines { head, rows }
    }

    fn narrow(mut self, columns: &[usize], narrow: Narrow) -> Self {
        for at in columns {
            self.columns[*at].narrow = narrow;
        }
        self
    }

    /// Returns the columns that are shown, and the width of each.
    fn fitted(&self, room: usize) -> Vec<(usize, usize)> {
        let natural = |at: usize| {
            let cells = self.rows.iter().map(|row| columns(&row[at])).max();
            cells.unwrap_or(0).max(columns(&self.columns[at].title))
        };
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).map(|at| (at, natural(at))).collect();
        if over(&shown, room) == 0 {
            return shown;
        }
        for (at, width) in &mut shown {
            if self.columns[*at].narrow == Narrow::Hash {
                *width = (*width).min(HASH_DIGITS.max(columns(&self.columns[*at].title)));
            }
        }
        for spare in &self.spare {
            let give: usize = shown.iter().map(|(at, width)| self.give(*at, *width)).sum();
            if over(&shown, room) > give {
                shown.retain(|(at, _)| at != spare);
            }
        }
        self.shrink(&mut shown, room, |table, at| match table.columns[at].narrow {
            Narrow::Name | Narrow::Note | Narrow::Wraps => Some(LEAST),
            Narrow::Stays | Narrow::Hash => None,
        });
        // The last resort: an address loses its middle before a line loses its end.
        self.shrink(&mut shown, room, |table, at| (!table.columns[at].right).then_some(LEAST));
        shown
    }

    /// Returns the columns that a column can give and stay readable.
    fn give(&self, at: usize, width: usize) -> usize {
        match self.columns[at].narrow {
            Narrow::Name | Narrow::Wraps => width.saturating_sub(READABLE),
            Narrow::Note => width.saturating_sub(LEAST),
            Narrow::Stays | Narrow::Hash => 0,
        }
    }

    /// Takes columns from the widest cells. `least` returns how narrow a column may become.
    fn shrink(
        &self,
        shown: &mut [(usize, usize)],
        room: usize,
        least: impl Fn(&Self, usize) -> Option<usize>,
    ) {
        for _ in 0..over(shown, room) {
            let can = shown
                .iter_mut()
                .filter(|(at, width)| least(self, *at).is_some_and(|least| *width > least));
            let Some((_, width)) = can.max_by_key(|(_, width)| *width) else { return };
            *width -= 1;
        }
    }

    fn row_lines(&self, row: &[String], fitted: &[(usize, usize)], room: usize) -> Vec<String> {
        let cells: Vec<Vec<String>> =
            fitted.iter().map(|(at, width)| self.cell_lines(*at, &row[*at], *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        let line = |number: usize| {
            let mut line = String::new();
            for ((at, width), cell) in fitted.iter().zip(&cells) {
                if !line.is_empty() || *at != fitted[0].0 {
                    line.push_str(&" ".repeat(GAP));
                }
                let text = cell.get(number).map_or("", String::as_str);
                line.push_str(&padded(text, *width, self.columns[*at].right));
            }
            cut_end(line.trim_end(), room).into_owned()
        };
        (0..height).map(line).collect()
    }

    fn cell_lines(&self, at: usize, text: &str, width: usize) -> Vec<String> {
        if columns(text) <= width {
            return vec![text.to_owned()];
        }
        match self.columns[at].narrow {
            Narrow::Wraps => wrapped(text, width),
            Narrow::Hash => vec![text.chars().take(width).collect()],
            Narrow::Name | Narrow::Stays if !text.contains('\x1b') => {
                vec![cut_middle(text, width).into_owned()]
            }
            _ => vec![cut_end(text, width).into_owned()],
        }
    }
}

/// Returns by how many columns the table is wider than `room`.
fn over(shown: &[(usize, usize)], room: usize) -> usize {
    let all: usize = shown.iter().map(|(_, width)| width + GAP).sum();
    all.saturating_sub(GAP).saturating_sub(room)
}

/// Columns between two columns of a table.
const GAP: usize = 2;

/// The width of a name below which optional columns are left out.
const READABLE: usize = 16;

/// The width of a name on the narrowest terminals.
const LEAST: usize = 6;

/// The digits of an info-hash that are kept.
const HASH_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: TableLines) -> Vec<String> {
        std::iter::once(lines.head).chain(lines.rows.into_iter().flatten()).collect()
    }

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let table = Table::new(["name", "pieces"]).right(&[1]);
        let table = table.rows([row(&["a", "1"]), row(&["bcd", "1,000"])]);
        assert_eq!(all(table.lines(usize::MAX)), ["NAME  PIECES", "a          1", "bcd    1,000"]);
    }

    #[test]
    fn narrow_terminals_lose_digits_then_columns_then_the_middle_of_names() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let table = Table::new(["name", "size", "leechers", "info-hash"])
            .right(&[1, 2])
            .names(&[0])
            .hashes(&[3])
            .spare(&[2])
            .rows([row(&["a-quite-long-name.iso", "4.0 GiB", "12", hash])]);
        let lines = all(table.lines(120));
        assert!(lines[1].contains(hash) && lines[1].contains("a-quite-long-name.iso"));
        assert_eq!(all(table.lines(55))[1], "a-quite-long-name.iso  4.0 GiB        12  012345678");
        assert_eq!(all(table.lines(40))[1], "a-quite-l…-name.iso  4.0 GiB  012345678");
    }

    #[test]
    fn text_that_wraps_stands_below_itself() {
        let table = Table::new(["is", "why"]).wraps(&[1]);
        let table = table.rows([row(&["failed", "the tracker does not answer"])]);
        let lines = all(table.lines(24));
        assert_eq!(lines, ["IS      WHY", "failed  the tracker", "        does not answer"]);
    }

    #[test]
    fn a_cell_with_colours_is_as_wide_as_its_text() {
        let table = Table::new(["is", "took"]);
        let table = table.rows([row(&["\x1b[31mbad\x1b[0m", "1 s"]), row(&["verified", "2 s"])]);
        let lines = all(table.lines(80));
        assert_eq!(lines[1], "\x1b[31mbad\x1b[0m       1 s");
        assert_eq!(lines[2], "verified  2 s");
    }

    proptest! {
        #[test]
        fn no_line_is_as_wide_as_its_terminal(
            rows in prop::collection::vec(prop::collection::vec("\\PC{0,50}", 6), 0..5),
            width in 1usize..130,
        ) {
            let table = Table::new(["peer", "name", "note", "hash", "text", "number"])
                .right(&[5]).names(&[1]).notes(&[2]).hashes(&[3]).wraps(&[4]).spare(&[2, 3])
                .rows(rows);
            for line in all(table.lines(width)) {
                prop_assert!(columns(&line) < width, "{line}");
            }
        }
    }
}
