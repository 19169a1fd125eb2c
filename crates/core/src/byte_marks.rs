//! File names that are not UTF-8, as text.
//!
//! Linux accepts any bytes as a file name. The names in a torrent are UTF-8, and so is everything
//! that the programs store and show. If a file on disk has another name, each byte of it that is
//! not part of a character is written as a mark: one of the last 128 characters of Unicode's
//! private planes, which nobody uses. If a name contains such a character itself, the bytes of this
//! character are written as marks. So every name has exactly one text, and every such text exactly
//! one name.

use std::borrow::Cow;

/// The text of a file name.
///
/// ```
/// use piecework_core::{name_of_text, text_of_name};
///
/// assert_eq!(text_of_name(b"caf\xe9"), "caf\u{10ffe9}");
/// assert_eq!(&*name_of_text("caf\u{10ffe9}"), b"caf\xe9");
/// assert_eq!(text_of_name("café".as_bytes()), "café");
/// ```
pub fn text_of_name(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(name)
        && !has_byte_marks(text)
    {
        return text.into();
    }
    let mut text = String::with_capacity(name.len() + 16);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match marked_byte(c) {
                None => text.push(c),
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(mark)),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(mark));
    }
    text.into()
}

/// Returns the file name of a text: the inverse of [`text_of_name`].
pub fn name_of_text(text: &str) -> Cow<'_, [u8]> {
    if !has_byte_marks(text) {
        return text.as_bytes().into();
    }
    let mut name = Vec::with_capacity(text.len());
    for c in text.chars() {
        match marked_byte(c) {
            Some(byte) => name.push(byte),
            None => name.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    name.into()
}

/// Returns whether a character of `text` stands for a byte.
pub fn has_byte_marks(text: &str) -> bool {
    // All marks begin with this byte, and few other characters do.
    text.as_bytes().contains(&0xf4) && text.chars().any(|c| marked_byte(c).is_some())
}

/// Returns the byte that `c` stands for, if it is a mark.
pub fn marked_byte(c: char) -> Option<u8> {
    let byte = u32::from(c).checked_sub(BASE)?;
    u8::try_from(byte).ok().filter(|byte| *byte >= 0x80)
}

/// A byte that is not part of a character is never ASCII.
fn mark(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The character that would stand for the byte 0.
const BASE: u32 = 0x10_ff00;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_has_its_own_text(a: Vec<u8>, b: Vec<u8>) {
            let text = text_of_name(&a);
            let name = name_of_text(&text);
            prop_assert_eq!(&*name, &a[..]);
            prop_assert_eq!(text == text_of_name(&b), a == b);
        }

        #[test]
        fn text_without_marks_is_its_own_name(text in "\\PC*") {
            prop_assume!(!has_byte_marks(&text));
            prop_assert!(matches!(text_of_name(text.as_bytes()), Cow::Borrowed(same) if same == text));
            prop_assert_eq!(&*name_of_text(&text), text.as_bytes());
        }
    }

    #[test]
    fn a_name_that_holds_a_mark_is_told_from_the_byte_it_stands_for() {
        let text = text_of_name("\u{10ffe9}".as_bytes());
        assert_ne!(text, "\u{10ffe9}");
        assert_eq!(&*name_of_text(&text), "\u{10ffe9}".as_bytes());
    }
}
