//! The width of text on a terminal, and text cut to fit.
//!
//! If text is narrower than assumed, nothing is lost. If it is wider, it wraps the line and breaks
//! what is painted over it. So where terminals differ, the larger width is assumed: an emoji with
//! its variation selector takes two columns, and an Arabic lam-alef, which many terminals do not
//! join, takes those of both letters.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// Returns the columns that `text` takes at most. Colours and other escape sequences take none.
pub fn columns(text: &str) -> usize {
    Glyphs::new(text).map(|glyph| glyph.columns).sum()
}

/// Cuts `text` to at most `room` columns and puts `…` in place of its end. Colours are kept, and
/// end as in the original.
pub fn cut_end(text: &str, room: usize) -> Cow<'_, str> {
    if columns(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut used, mut full) = (0, room == 0);
    for glyph in Glyphs::new(text) {
        if glyph.escape {
            out.push_str(glyph.text);
        } else if !full && used + glyph.columns < room {
            used += glyph.columns;
            out.push_str(glyph.text);
        } else if !full {
            full = true;
            out.push('…');
        }
    }
    Cow::Owned(out)
}

/// Cuts `text`, which has no escape sequences, to at most `room` columns and puts `…` in place of
/// its middle, so that a name keeps its ending.
pub fn cut_middle(text: &str, room: usize) -> Cow<'_, str> {
    if columns(text) <= room {
        return Cow::Borrowed(text);
    }
    if room == 0 {
        return Cow::Borrowed("");
    }
    let glyphs: Vec<Glyph<'_>> = Glyphs::new(text).collect();
    let taken = |glyphs: &mut dyn Iterator<Item = &Glyph<'_>>, room: usize| {
        let mut used = 0;
        let fits = |glyph: &&Glyph<'_>| {
            used += glyph.columns;
            used <= room
        };
        glyphs.take_while(fits).map(|glyph| glyph.text.len()).sum::<usize>()
    };
    let tail = taken(&mut glyphs.iter().rev(), (room - 1) / 2);
    let tail = &text[text.len() - tail..];
    let head = taken(&mut glyphs.iter(), room - 1 - columns(tail));
    Cow::Owned(format!("{}…{tail}", &text[..head]))
}

/// Returns the lines of `text`, which has no escape sequences, each of at most `room` columns: broken
/// at spaces, and within words that are longer.
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let room = room.max(2);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let gap = usize::from(used > 0);
        let width = columns(word);
        if used + gap + width <= room {
            if let Some(line) = lines.last_mut() {
                line.push_str(&" "[..gap]);
                line.push_str(word);
            }
            used += gap + width;
            continue;
        }
        if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        for glyph in Glyphs::new(word) {
            if used + glyph.columns > room {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(glyph.text);
            }
            used += glyph.columns;
        }
    }
    lines
}

/// Wraps `text` to fewer than `width` columns. Each line is a term and its explanation, separated
/// by two spaces. The explanation is continued below its own start.
pub fn explained(text: &str, width: usize) -> String {
    let lines = text.lines().flat_map(|line| {
        let start = line.find("  ").map_or(0, |at| line.len() - line[at..].trim_start().len());
        let (term, meaning) = line.split_at(start);
        let room = width.saturating_sub(start + 1).max(LEAST_MEANING);
        let meanings = wrapped(meaning, room).into_iter().enumerate();
        meanings.map(move |(number, meaning)| match number {
            0 => format!("{term}{meaning}"),
            _ => format!("{:start$}{meaning}", ""),
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Pads `text` to `room` columns with spaces after it, or before it if `right` is set.
pub fn padded(text: &str, room: usize, right: bool) -> String {
    let gap = " ".repeat(room.saturating_sub(columns(text)));
    if right { format!("{gap}{text}") } else { format!("{text}{gap}") }
}

/// Text that must not be split: an escape sequence, or a character with its combining marks.
struct Glyph<'a> {
    text: &'a str,
    columns: usize,
    escape: bool,
}

struct Glyphs<'a> {
    rest: &'a str,
}

impl<'a> Glyphs<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Glyphs<'a> {
    type Item = Glyph<'a>;

    fn next(&mut self) -> Option<Glyph<'a>> {
        let mut chars = self.rest.char_indices();
        let (_, first) = chars.next()?;
        if first == '\x1b' && self.rest[1..].starts_with('[') {
            let ends =
                |(at, c): (usize, char)| (at > 1 && ('@'..='~').contains(&c)).then_some(at + 1);
            let end = self.rest.char_indices().find_map(ends).unwrap_or(self.rest.len());
            let (text, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(Glyph { text, columns: 0, escape: true });
        }
        let mut columns = width(first);
        let mut end = self.rest.len();
        for (at, c) in chars {
            if c == '\x1b' || width(c) > 0 {
                end = at;
                break;
            }
            // The variation selector for the emoji form.
            if c == '\u{fe0f}' {
                columns = columns.max(2);
            }
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Glyph { text, columns, escape: false })
    }
}

/// The minimum columns of an explanation.
const LEAST_MEANING: usize = 20;

fn width(c: char) -> usize {
    match c {
        // Some terminals show a soft hyphen.
        '\u{ad}' => 1,
        c => c.width().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn where_terminals_differ_the_wider_is_assumed() {
        assert_eq!(columns("文件.iso"), 8);
        assert_eq!(columns("\x1b[1;31mred\x1b[0m"), 3);
        assert_eq!(columns("e\u{301}"), 1);
        assert_eq!(columns("❤\u{fe0f}"), 2);
        assert_eq!(columns("لا"), 2, "not joined");
        assert_eq!(columns("שלום"), 4);
    }

    #[test]
    fn a_name_cut_in_its_middle_ends_as_it_does() {
        assert_eq!(cut_middle("short.iso", 9), "short.iso");
        assert_eq!(cut_middle("quite-long.iso", 9), "quit….iso");
        assert_eq!(cut_middle("quite-long.iso", 1), "…");
        assert_eq!(cut_middle("quite-long.iso", 0), "");
        let wide = cut_middle("文件文件文件文件.iso", 11);
        assert!(wide.ends_with(".iso") && columns(&wide) <= 11, "{wide}");
        // A mark is not parted from its letter.
        let marks = "e\u{301}".repeat(20);
        assert_eq!(cut_middle(&marks, 5), "e\u{301}e\u{301}…e\u{301}e\u{301}");
    }

    #[test]
    fn colours_of_what_is_cut_still_end() {
        assert_eq!(cut_end("\x1b[1mlong name\x1b[0m", 5), "\x1b[1mlong…\x1b[0m");
        assert_eq!(cut_end("\x1b[1mlong\x1b[0m", 4), "\x1b[1mlong\x1b[0m");
        assert_eq!(cut_end("long", 0), "");
    }

    #[test]
    fn text_is_broken_at_spaces_and_within_long_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one https://x.example/y", 8), ["one", "https://", "x.exampl", "e/y"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn explanations_go_on_below_themselves() {
        let help = "quit    leave the network and end the program\nhelp    this";
        let lines = "quit    leave the network and\n        end the program\nhelp    this";
        assert_eq!(explained(help, 30), lines);
        assert_eq!(explained(help, usize::MAX), help);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in "\\PC{0,60}", room in 0usize..40) {
            prop_assert!(columns(&cut_end(&text, room)) <= room);
            prop_assert!(columns(&cut_middle(&text, room)) <= room);
            for line in wrapped(&text, room) {
                prop_assert!(columns(&line) <= room.max(2));
            }
            prop_assert!(columns(&padded(&text, room, true)) >= room);
        }
    }
}
