//! Names of files as they are written to disk.
//!
//! A torrent may give its files any name that is not a path. Some names do harm where they are
//! listed or used: escape sequences in a terminal, line breaks in scripts, characters that reorder
//! text, a leading dash for commands that take it for an option. So those characters are written as
//! `%` and two hexadecimal digits for each byte of their UTF-8. A `%` that would look like such an
//! escape becomes `%25`. All other names stay as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::{is_harmless, printable};

use super::FileMap;
use super::repair::split_ending;

/// `name` as it is written to disk: without control characters, without characters that reorder or
/// hide text, and without a dash at its beginning. No two names are written the same.
///
/// ```
/// use piecework_core::metainfo::{original_name, safe_name};
///
/// assert_eq!(safe_name("linux 100%.iso"), "linux 100%.iso");
/// assert_eq!(safe_name("-rf\u{1b}[2J"), "%2Drf%1B[2J");
/// assert_eq!(safe_name("%1B"), "%251B");
/// assert_eq!(original_name("%2Drf%1B[2J"), "-rf\u{1b}[2J");
/// ```
///
/// A name that would be longer than the 255 bytes that file systems take is cut, and `%~` and a hash of
/// the whole stand in front of its ending.
pub fn safe_name(name: &str) -> Cow<'_, str> {
    if !needs_escapes(name) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 16);
    for (at, c) in name.char_indices() {
        let is_escaped = match c {
            '-' => at == 0,
            '%' => is_escape(&name.as_bytes()[at..]) || name[at..].starts_with("%~"),
            c => !is_harmless(c),
        };
        if !is_escaped {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() > MAX_NAME {
        let digest = Sha256::digest(name.as_bytes());
        let ending = split_ending(&out).1.to_owned();
        let end = MAX_NAME - 2 - 2 * HASH_BYTES - ending.len();
        out.truncate(out.floor_char_boundary(end));
        out.push_str("%~");
        for byte in &digest[..HASH_BYTES] {
            let _ = write!(out, "{byte:02x}");
        }
        out.push_str(&ending);
    }
    Cow::Owned(out)
}

/// Returns the start of the name of the `.torrent` file of a torrent called `name`: its safe name,
/// cut to leave room for what distinguishes it from others, for `.torrent`, and for `.token`.
pub fn torrent_file_stem(name: &str) -> String {
    let mut stem = safe_name(name).into_owned();
    stem.truncate(stem.floor_char_boundary(LONGEST_STEM));
    stem
}

/// Returns the name that [`safe_name`] wrote as `name`. This does not work for a name that was cut;
/// the torrent itself has it.
pub fn original_name(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if is_escape(&bytes[at..])
            && let Ok(escaped) = u8::from_str_radix(&name[at + 1..at + 3], 16)
        {
            out.push(escaped);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(out)
        .unwrap_or_else(|error| printable(&String::from_utf8_lossy(error.as_bytes())).into_owned())
}

impl FileMap {
    /// Returns the paths of the files that are written to disk under other names than in the
    /// torrent, by file number.
    pub fn safe_names(&self) -> BTreeMap<usize, Vec<String>> {
        let entries = self.entries().iter().enumerate().filter(|(_, entry)| !entry.padding);
        let unsafe_ones = entries.filter(|(_, entry)| entry.path.iter().any(needs_escapes));
        let safe = |(file, entry): (usize, &super::FileEntry)| {
            (file, entry.path.iter().map(|name| safe_name(name).into_owned()).collect())
        };
        unsafe_ones.map(safe).collect()
    }
}

fn needs_escapes(name: &str) -> bool {
    name.starts_with('-')
        || name.contains("%~")
        || !name.chars().all(is_harmless)
        || name
            .bytes()
            .enumerate()
            .any(|(at, byte)| byte == b'%' && is_escape(&name.as_bytes()[at..]))
}

/// Returns whether `bytes` begin with `%` and two hexadecimal digits.
fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// The longest name in bytes on Linux file systems.
const MAX_NAME: usize = 255;

/// Bytes of a torrent's name in the name of its file: `.torrent`, the forty digits of an info-hash
/// and `.token` follow.
const LONGEST_STEM: usize = 180;

/// Bytes of the hash in a name that was cut: enough that nobody can make two names of one torrent
/// with the same hash.
const HASH_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metainfo::MetainfoBuilder;

    #[test]
    fn what_terminals_scripts_and_readers_would_obey_is_escaped() {
        let table = [
            ("\u{1b}]0;owned\u{7}.txt", "%1B]0;owned%07.txt"),
            ("a\nb\r\t\u{7f}", "a%0Ab%0D%09%7F"),
            ("\u{9b}31m", "%C2%9B31m"),
            ("gpj.\u{202e}exe", "gpj.%E2%80%AEexe"),
            ("\u{2066}x\u{2069}\u{200f}\u{61c}", "%E2%81%A6x%E2%81%A9%E2%80%8F%D8%9C"),
            ("a\u{2028}b\u{feff}\u{200b}", "a%E2%80%A8b%EF%BB%BF%E2%80%8B"),
            ("\u{e0041}tag", "%F3%A0%81%81tag"),
            ("-rf", "%2Drf"),
            ("--help", "%2D-help"),
            ("-", "%2D"),
            ("%2Drf", "%252Drf"),
            ("%~", "%25~"),
            ("100%25%zz%", "100%2525%zz%"),
        ];
        for (raw, safe) in table {
            assert_eq!(safe_name(raw), safe);
            assert_eq!(original_name(safe), raw);
        }
    }

    #[test]
    fn usual_names_stay_as_they_are() {
        for name in [
            "a-b",
            "Füße 文件",
            "100%",
            "50% off.txt",
            "a b ",
            ".hidden",
            "👨\u{200d}👩.jpg",
            "%2",
            "%",
        ] {
            assert!(matches!(safe_name(name), Cow::Borrowed(_)), "{name}");
        }
    }

    #[test]
    fn a_name_that_would_be_too_long_is_cut_and_stays_unique() {
        let names = [
            "\u{1b}".repeat(255),
            format!("{}a", "\u{1b}".repeat(254)),
            format!("-{}", "ä".repeat(127)),
        ];
        let safe: std::collections::BTreeSet<_> =
            names.iter().map(|name| safe_name(name)).collect();
        assert_eq!(safe.len(), names.len());
        assert!(safe.iter().all(|name| name.len() <= 255 && !name.contains('\u{1b}')), "{safe:?}");
        assert!(safe_name(&format!("{}.tar", "\u{1b}".repeat(200))).ends_with(".tar"));
        let literal = safe_name(&names[0]).into_owned();
        assert_ne!(safe_name(&literal), literal, "nobody else can have it");
    }

    #[test]
    fn the_name_of_a_torrent_file_is_safe_and_leaves_room() {
        assert_eq!(torrent_file_stem("-a\u{1b}.iso"), "%2Da%1B.iso");
        let stem = torrent_file_stem(&"文".repeat(85));
        assert_eq!(stem, "文".repeat(60));
        let file = format!("{stem}.{}.torrent.token", "a".repeat(40));
        assert!(file.len() <= MAX_NAME);
    }

    #[test]
    fn only_files_with_unsafe_names_on_their_way_are_named_anew() {
        let path = |text: &str| text.split('/').map(str::to_owned).collect();
        let files = vec![(path("a/x"), 1), (path("-b/\u{1b}"), 1)];
        let torrent = MetainfoBuilder::folder("t", files).build(vec![7; 20]).unwrap();
        let names = torrent.info().files().safe_names();
        // Files are in the order of their paths.
        assert_eq!(names, BTreeMap::from([(0, vec!["t".into(), "%2Db".into(), "%1B".into()])]));
        let files = vec![(path("a"), 1), (path("b"), 1)];
        let torrent = MetainfoBuilder::folder("-t", files).build(vec![7; 20]).unwrap();
        assert_eq!(torrent.info().files().safe_names().len(), 2);
    }

    proptest! {
        #[test]
        fn names_are_safe_and_read_back(name in "(\\PC|[\\x00-\\x2e\\x30-\\x5b]|%|~|[0-9A-F]|\u{202e}){1,20}") {
            prop_assume!(!name.contains('/'));
            let safe = safe_name(&name);
            prop_assert!(safe.chars().all(is_harmless) && !safe.starts_with('-'));
            prop_assert_eq!(original_name(&safe), name);
        }

        #[test]
        fn no_two_names_are_written_the_same(a in "[-%~0-9aA\u{1b}]{1,12}", b in "[-%~0-9aA\u{1b}]{1,12}") {
            prop_assert_eq!(safe_name(&a) == safe_name(&b), a == b);
        }
    }
}
