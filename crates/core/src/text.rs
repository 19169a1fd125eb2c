//! Untrusted text, made safe to show.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use super::marked_byte;

/// Escapes control characters, and the characters that reorder or hide text (bidirectional
/// overrides, zero-width joins, line separators). A torrent or client may give itself any name, and
/// a terminal must not interpret it.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !is_unsafe(c) => out.push(c),
            c if let Some(byte) = marked_byte(c) => {
                write_escape(&mut out, format_args!("\\x{byte:02x}"));
            }
            c if (c as u32) < 0x100 => write_escape(&mut out, format_args!("\\x{:02x}", c as u32)),
            c => write_escape(&mut out, format_args!("\\u{{{:x}}}", c as u32)),
        }
    }
    Cow::Owned(out)
}

/// The same for bytes that may not be UTF-8. Invalid bytes become `\xNN`.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            write_escape(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// The same for a path.
pub fn printable_path(path: &Path) -> String {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}

fn is_unsafe(c: char) -> bool {
    !is_harmless(c) || matches!(c, '\u{200c}' | '\u{200d}')
}

/// Returns whether a terminal, a script and a reader all see `c` as it is: not a control character,
/// and none that reorders or hides text. The joiners that some scripts and emoji need are harmless.
pub fn is_harmless(c: char) -> bool {
    let hidden = matches!(c,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hidden && marked_byte(c).is_none()
}

fn write_escape(out: &mut String, escape: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(escape);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_control_characters_is_escaped() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a\\x1b[31mb\\x0d\\x0a");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert!(matches!(printable("Füße 文件"), Cow::Borrowed(_)));
    }

    #[test]
    fn bytes_that_are_not_text_are_escaped() {
        assert_eq!(printable_bytes(b"ok\xff\x07"), "ok\\xff\\x07");
    }
}
