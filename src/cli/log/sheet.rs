//! Answers as tables: fitted to the terminal for people, as comma-separated values for programs.

use std::borrow::Cow;

use piecework_core::{Table, cut_end, printable, wrapped};

use super::super::format::{Paint, count, size, table_text};

/// An answer: tables, with lines above and below them.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    /// The tables. Programs get the first one.
    pub tables: Vec<Grid>,
    /// The line above the tables.
    pub head: Option<String>,
    /// The lines below the tables.
    pub notes: Vec<String>,
    /// The text if there is no answer.
    pub nothing: &'static str,
    /// Whether the table is for programs only, and people get the notes.
    pub only_notes: bool,
}

/// A table: the name of each column, and for each row its values for programs and for people.
#[derive(Debug)]
pub(super) struct Grid {
    pub columns: &'static [&'static str],
    /// Columns with numbers, which are aligned to the right.
    pub right: &'static [usize],
    /// The column that is shortened on a narrow terminal.
    pub elastic: usize,
    /// Columns to leave out there, in this order.
    pub spare: &'static [usize],
    pub rows: Vec<Vec<Cell>>,
}

/// A value in the form for programs and in the form for people.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// The form for programs.
    pub raw: String,
    /// The form for people.
    pub shown: String,
}

impl Sheet {
    /// Returns the text for people, within `width` columns.
    pub(super) fn text(&self, width: usize, paint: Paint) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.head.as_ref().map(|head| paint.bold(fit(head, width))));
        let shown = if self.only_notes { &[][..] } else { &self.tables[..] };
        let tables = shown.iter().filter(|grid| !grid.rows.is_empty());
        parts.extend(tables.map(|grid| grid.text(width, paint)));
        if !self.notes.is_empty() {
            let notes = self.notes.iter().flat_map(|note| note_lines(note, width));
            parts.push(notes.collect::<Vec<_>>().join("\n"));
        }
        let is_empty = self.notes.is_empty() && self.tables.iter().all(|grid| grid.rows.is_empty());
        if is_empty && !self.nothing.is_empty() {
            parts.push(fit(self.nothing, width));
        }
        parts.join("\n\n")
    }

    /// Returns the first table as comma-separated values for programs (RFC 4180, but with `\n` at
    /// the ends of lines).
    pub(super) fn csv(&self) -> String {
        let Some(grid) = self.tables.first() else { return String::new() };
        let mut out = grid.columns.join(",");
        out.push('\n');
        for row in &grid.rows {
            csv_line(&mut out, row);
        }
        out
    }

    /// Adds a note below a table of `most` rows that there may be more rows.
    pub(super) fn shortened(mut self, most: usize) -> Self {
        if self.tables.iter().any(|grid| grid.rows.len() >= most) {
            let most = count(most as u64);
            self.notes.push(format!("only the last {most} are shown: --csv and --json print all"));
        }
        self
    }
}

impl Grid {
    fn text(&self, width: usize, paint: Paint) -> String {
        let titles = self.columns.iter().map(|name| name.trim_end_matches("_ms").replace('_', " "));
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| cell.shown.clone()).collect());
        let table = Table::new(titles).right(self.right).names(&[self.elastic]).spare(self.spare);
        table_text(&table.rows(rows), width, paint)
    }
}

impl Cell {
    /// Text, which may come from outside.
    pub(super) fn text(text: impl ToString) -> Self {
        let raw = text.to_string();
        Self { shown: printable(&raw).into_owned(), raw }
    }

    /// A number.
    pub(super) fn number(number: u64) -> Self {
        Self { raw: number.to_string(), shown: count(number) }
    }

    /// A number of bytes.
    pub(super) fn bytes(bytes: u64) -> Self {
        Self { raw: bytes.to_string(), shown: size(bytes) }
    }

    /// A time in RFC 3339.
    pub(super) fn time(time: &str) -> Self {
        Self { raw: time.to_owned(), shown: local(time) }
    }

    /// Text, or an empty cell.
    pub(super) fn maybe(text: Option<&str>) -> Self {
        match text {
            Some(text) => Self::text(text),
            None => Self { raw: String::new(), shown: "·".to_owned() },
        }
    }

    /// A value with `shown` as its form for people.
    pub(super) fn as_shown(raw: impl ToString, shown: String) -> Self {
        Self { raw: raw.to_string(), shown }
    }
}

impl Sheet {
    /// Creates a sheet whose table is for programs only. People get the notes.
    pub(super) fn for_programs(grid: Grid) -> Self {
        Self { tables: vec![grid], only_notes: true, ..Self::default() }
    }
}

/// Returns an RFC 3339 time as local time.
pub(super) fn local(time: &str) -> String {
    zoned(time, "%Y-%m-%d %H:%M:%S%.3f").unwrap_or_else(|| printable(time).into_owned())
}

/// Returns the time of day of an RFC 3339 time as local time.
pub(super) fn local_clock(time: &str) -> String {
    zoned(time, "%H:%M:%S%.3f").unwrap_or_else(|| "·".to_owned())
}

fn zoned(time: &str, format: &str) -> Option<String> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}

/// Appends a row as comma-separated values.
pub(super) fn csv_line(out: &mut String, row: &[Cell]) {
    for (at, cell) in row.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(&cell.raw));
    }
    out.push('\n');
}

fn quoted(text: &str) -> Cow<'_, str> {
    // A spreadsheet would read text that begins like this as a formula, and names come from
    // strangers.
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !is_formula && !text.contains([',', '"', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let guard = if is_formula { "'" } else { "" };
    Cow::Owned(format!("\"{guard}{}\"", text.replace('"', "\"\"")))
}

/// Returns a line shortened to `width` columns.
pub(super) fn fit(line: &str, width: usize) -> String {
    match width {
        usize::MAX => line.to_owned(),
        width => cut_end(line, width.saturating_sub(1)).into_owned(),
    }
}

/// Returns the lines of a note within `width` columns, all but the first one indented.
fn note_lines(note: &str, width: usize) -> Vec<String> {
    let text = note.trim_start_matches(' ');
    let indent = note.len() - text.len();
    let room = width.saturating_sub(indent + 3);
    let lines = wrapped(text, room).into_iter().enumerate();
    lines.map(|(at, line)| format!("{:1$}{line}", "", indent + 2 * at.min(1))).collect()
}
