//! Answers as tables: for people within the columns of their terminal, for programs as
//! comma-separated values.

use std::borrow::Cow;

use console::{measure_text_width, truncate_str};

use crate::base::printable;

use super::super::format::{Paint, count, size, table};

/// An answer: tables, and lines below them.
#[derive(Debug, Default)]
pub struct Sheet {
    /// The tables; programs get the first.
    pub tables: Vec<Grid>,
    /// What stands above.
    pub head: Option<String>,
    /// Lines below.
    pub notes: Vec<String>,
    /// What is said if there is nothing.
    pub nothing: &'static str,
    /// The table is for programs; people read the notes.
    pub only_notes: bool,
}

/// One table: for each column its name, and for each row its values for programs and for people.
#[derive(Debug)]
pub struct Grid {
    /// Their names.
    pub columns: &'static [&'static str],
    /// Columns with numbers.
    pub right: &'static [usize],
    /// The column that is cut on a narrow terminal.
    pub elastic: usize,
    /// Columns that people can do without there, the first one first.
    pub spare: &'static [usize],
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// A value as programs read it, and as people do.
#[derive(Debug, Clone)]
pub struct Cell {
    /// For programs.
    pub raw: String,
    /// For people.
    pub shown: String,
}

impl Sheet {
    /// For people, within `width` columns.
    pub fn text(&self, width: usize, paint: Paint) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.head.as_ref().map(|head| paint.bold(fit(head, width))));
        let shown = if self.only_notes { &[][..] } else { &self.tables[..] };
        let tables = shown.iter().filter(|grid| !grid.rows.is_empty());
        parts.extend(tables.map(|grid| grid.text(width, paint)));
        if !self.notes.is_empty() {
            let notes = self.notes.iter().map(|note| fit(note, width));
            parts.push(notes.collect::<Vec<_>>().join("\n"));
        }
        let is_empty = self.notes.is_empty() && self.tables.iter().all(|grid| grid.rows.is_empty());
        if is_empty && !self.nothing.is_empty() {
            parts.push(fit(self.nothing, width));
        }
        parts.join("\n\n")
    }

    /// For programs: the first table as comma-separated values (RFC 4180, but lines end as here).
    pub fn csv(&self) -> String {
        let Some(grid) = self.tables.first() else { return String::new() };
        let mut out = grid.columns.join(",");
        out.push('\n');
        for row in &grid.rows {
            csv_line(&mut out, row);
        }
        out
    }

    /// Says below a table of `most` rows that there may be more.
    pub fn shortened(mut self, most: usize) -> Self {
        if self.tables.iter().any(|grid| grid.rows.len() >= most) {
            let most = count(most as u64);
            self.notes.push(format!("the last {most} are shown: --csv and --json tell all"));
        }
        self
    }
}

impl Grid {
    fn text(&self, width: usize, paint: Paint) -> String {
        let natural = |at: usize| {
            let cells = self.rows.iter().map(|row| measure_text_width(&row[at].shown));
            cells.max().unwrap_or(0).max(self.columns[at].len())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let over = |shown: &[usize]| {
            let all: usize = shown.iter().map(|at| widths[*at] + GAP).sum();
            (all - GAP.min(all)).saturating_sub(width.saturating_sub(1))
        };
        // What the elastic column can give without becoming a riddle.
        let give = widths[self.elastic].saturating_sub(READABLE);
        for spare in self.spare {
            if over(&shown) > give {
                shown.retain(|at| at != spare);
            }
        }
        let elastic = widths[self.elastic].saturating_sub(over(&shown)).max(LEAST);
        let rows = self.rows.iter().map(|row| {
            let cells = shown.iter().map(|at| match *at == self.elastic {
                true => truncate_str(&row[*at].shown, elastic, "…").into_owned(),
                false => row[*at].shown.clone(),
            });
            cells.collect::<Vec<_>>()
        });
        let names = shown.iter().map(|at| self.columns[*at].trim_end_matches("_ms"));
        let head: Vec<String> = names.map(|name| name.replace('_', " ")).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let is_right = |at: &usize| self.right.contains(&shown[*at]);
        let right: Vec<usize> = (0..shown.len()).filter(is_right).collect();
        let text = table(&head, &right, rows, paint);
        text.lines().map(|line| fit(line, width)).collect::<Vec<_>>().join("\n")
    }
}

impl Cell {
    /// Text from anywhere.
    pub fn text(text: impl ToString) -> Self {
        let raw = text.to_string();
        Self { shown: printable(&raw).into_owned(), raw }
    }

    /// A number.
    pub fn number(number: u64) -> Self {
        Self { raw: number.to_string(), shown: count(number) }
    }

    /// A number of bytes.
    pub fn bytes(bytes: u64) -> Self {
        Self { raw: bytes.to_string(), shown: size(bytes) }
    }

    /// A time in RFC 3339.
    pub fn time(time: &str) -> Self {
        Self { raw: time.to_owned(), shown: local(time) }
    }

    /// Text, if there is any.
    pub fn maybe(text: Option<&str>) -> Self {
        match text {
            Some(text) => Self::text(text),
            None => Self { raw: String::new(), shown: "·".to_owned() },
        }
    }

    /// What people see is `shown`.
    pub fn as_shown(raw: impl ToString, shown: String) -> Self {
        Self { raw: raw.to_string(), shown }
    }
}

impl Sheet {
    /// A table that is for programs alone: people read the notes.
    pub fn for_programs(grid: Grid) -> Self {
        Self { tables: vec![grid], only_notes: true, ..Self::default() }
    }
}

/// A moment in RFC 3339 as the clock here shows it.
pub fn local(time: &str) -> String {
    zoned(time, "%Y-%m-%d %H:%M:%S%.3f").unwrap_or_else(|| printable(time).into_owned())
}

/// The time of day alone.
pub fn local_clock(time: &str) -> String {
    zoned(time, "%H:%M:%S%.3f").unwrap_or_else(|| "·".to_owned())
}

fn zoned(time: &str, format: &str) -> Option<String> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}

/// Appends a row as comma-separated values.
pub fn csv_line(out: &mut String, row: &[Cell]) {
    for (at, cell) in row.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(&cell.raw));
    }
    out.push('\n');
}

fn quoted(text: &str) -> Cow<'_, str> {
    // A spreadsheet takes what begins so for a formula, and names come from strangers.
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !is_formula && !text.contains([',', '"', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let guard = if is_formula { "'" } else { "" };
    Cow::Owned(format!("\"{guard}{}\"", text.replace('"', "\"\"")))
}

/// A line within `width` columns.
pub fn fit(line: &str, width: usize) -> String {
    match width {
        usize::MAX => line.to_owned(),
        width => truncate_str(line, width.saturating_sub(1), "…").into_owned(),
    }
}

/// Columns between two columns of a table.
const GAP: usize = 2;

/// Columns of the column that is cut.
const LEAST: usize = 6;

/// Columns of it below which others make way first.
const READABLE: usize = 12;
