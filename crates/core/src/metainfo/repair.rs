//! Repairs names in torrents: makes them valid, safe, and distinct.
//!
//! The rules are those of libtorrent wherever it has one; `docs/torrents.md` lists them. The same
//! bytes give the same names, whatever is on the disk.

use std::borrow::Cow;
use std::cmp::Ordering;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};
use std::collections::{BTreeMap, BTreeSet};
use unicode_normalization::UnicodeNormalization;

use crate::marked_byte;

use super::files::FilePath;
use super::{FileEntry, FileMap};

/// How names that are not UTF-8 are decoded: with one encoding for all names of a torrent.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameDecoder {
    encoding: Option<&'static Encoding>,
}

/// Collects the names that are not UTF-8, to guess their encoding.
pub(super) struct NameGuess {
    detector: Option<EncodingDetector>,
    left: usize,
}

impl NameGuess {
    pub(super) fn new() -> Self {
        Self { detector: None, left: MOST_GUESSED }
    }

    pub(super) fn add(&mut self, name: &[u8]) {
        if self.left == 0 || std::str::from_utf8(name).is_ok() || is_damaged_utf8(name) {
            return;
        }
        let name = &name[..name.len().min(self.left)];
        self.left -= name.len();
        let detector =
            self.detector.get_or_insert_with(|| EncodingDetector::new(Iso2022JpDetection::Deny));
        detector.feed(name, false);
        detector.feed(b"\n", false);
    }

    /// Returns the decoder for the collected names. `label` is the encoding that the torrent names.
    pub(super) fn decoder(self, label: Option<&[u8]>) -> NameDecoder {
        let Some(mut detector) = self.detector else { return NameDecoder { encoding: None } };
        let told = label.and_then(Encoding::for_label).filter(|told| *told != UTF_8);
        let encoding = told.unwrap_or_else(|| {
            detector.feed(b"", true);
            detector.guess(None, Utf8Detection::Deny)
        });
        NameDecoder { encoding: Some(encoding) }
    }
}

impl NameDecoder {
    /// Returns the name of the encoding, if any name needs one.
    pub(super) fn encoding(self) -> Option<&'static str> {
        self.encoding.map(Encoding::name)
    }

    /// Decodes `name`. Bytes that cannot be decoded become `_`.
    pub(super) fn decode(self, name: &[u8]) -> Cow<'_, str> {
        if let Ok(text) = std::str::from_utf8(name) {
            return text.into();
        }
        if let Some(encoding) = self.encoding.filter(|_| !is_damaged_utf8(name))
            && let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(name)
        {
            return text;
        }
        String::from_utf8_lossy(name).replace(char::REPLACEMENT_CHARACTER, "_").into()
    }
}

/// Returns the names that files on a disk get in a torrent, by their path components. A name that
/// other programs read without a change is kept; others are repaired like those of received
/// torrents. No two files get the same path, and no file loses a path that it could keep to another
/// file.
pub fn torrent_names<'a, P: AsRef<[&'a [u8]]>>(paths: &[P]) -> Vec<Vec<String>> {
    let mut guess = NameGuess::new();
    paths.iter().flat_map(|path| path.as_ref()).for_each(|part| guess.add(part));
    let decoder = guess.decoder(None);
    let repaired = |bytes: &[u8]| {
        part(&decoder.decode(bytes), MAX_NAME).map_or_else(|| "_".to_owned(), Cow::into_owned)
    };
    let mut names: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.as_ref().iter().map(|part| repaired(part)).collect())
        .collect();
    let is_own = |file: &usize| {
        paths[*file].as_ref().iter().copied().eq(names[*file].iter().map(String::as_bytes))
    };
    let (own, other): (Vec<usize>, Vec<usize>) = (0..paths.len()).partition(is_own);
    if other.is_empty() {
        return names;
    }
    let order = [own, other].concat();
    let entry = |file: &usize| FileEntry {
        path: FilePath::new(&names[*file]),
        len: 0,
        offset: 0,
        padding: false,
        executable: false,
    };
    let mut entries: Vec<FileEntry> = order.iter().map(entry).collect();
    make_distinct(&mut entries, MAX_NAME);
    for (file, entry) in order.into_iter().zip(entries) {
        names[file] = entry.path.iter().map(str::to_owned).collect();
    }
    names
}

/// Returns whether `name` is UTF-8 with a few wrong bytes, not another encoding: usually one that
/// was cut inside a character.
fn is_damaged_utf8(name: &[u8]) -> bool {
    let (mut right, mut wrong) = (0, 0);
    for chunk in name.utf8_chunks() {
        right += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        wrong += usize::from(!chunk.invalid().is_empty());
    }
    wrong > 0 && right > wrong
}

/// Makes a file name of one path component; `None` if nothing is left of it. The result is never
/// empty, `.`, `..` or longer than `most` bytes, and contains neither `/` nor NUL.
pub(super) fn part(text: &str, most: usize) -> Option<Cow<'_, str>> {
    let is_replaced = |c: char| c == '\0' || marked_byte(c).is_some();
    let mut name = Cow::from(text);
    if text.contains(|c| c == '/' || is_replaced(c)) {
        let kept = text.chars().filter(|c| *c != '/');
        name = kept.map(|c| if is_replaced(c) { '_' } else { c }).collect();
    }
    // Before and after the cut, which may create one.
    let dropped = |name: &str| is_windows_path(name).then(|| Cow::from(name.replace('\\', "")));
    name = dropped(&name).unwrap_or(name);
    match &*name {
        "" => return None,
        "." | ".." => return Some("_".into()),
        _ => {}
    }
    if name.len() > most {
        let (stem, ending) = split_ending(&name);
        // Room for the ending of unfinished files, and for a number.
        let room = most.saturating_sub(CUT_ROOM + ending.len()).max(4);
        name = format!("{}{ending}", cut(stem, room)).into();
        name = dropped(&name).unwrap_or(name);
    }
    Some(name)
}

/// Returns whether backslashes in `text` are path separators: `..\x`, `\x`, `C:\x`. On Linux they
/// are ordinary characters, and real files have them (systemd's units).
pub(super) fn is_windows_path(text: &str) -> bool {
    let Some(at) = text.find('\\') else { return false };
    at == 0
        || (at == 2 && text.as_bytes()[1] == b':')
        || text.split('\\').any(|part| matches!(part, "." | ".."))
}

/// Renames files with the same path, and files where another needs a folder: they get a number
/// before their ending. The first of several with one path keeps it.
///
/// Padding is never written and often shares one name, so it is ignored. Returns whether any file
/// was renamed.
pub(super) fn make_distinct(entries: &mut [FileEntry], most: usize) -> bool {
    let paths = distinct_paths(entries, most, false);
    let is_changed = !paths.is_empty();
    for (file, path) in paths {
        entries[file].path = path;
    }
    is_changed
}

impl FileMap {
    /// Returns other paths, by file number, for files that would have the same path on a file
    /// system that ignores case or Unicode form.
    pub fn distinct_where_case_is_folded(&self) -> Vec<(usize, FilePath)> {
        distinct_paths(self.entries(), MAX_NAME, true)
    }
}

/// Returns other paths for files that conflict with others, by file number and in its order.
pub(super) fn distinct_paths(
    entries: &[FileEntry],
    most: usize,
    is_folded: bool,
) -> Vec<(usize, FilePath)> {
    let places = Places::of(entries, is_folded);
    let mut given = BTreeSet::new();
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let mut paths = Vec::new();
    for file in places.in_the_way() {
        let path = entries[file].path.as_str();
        let (folder, name) =
            path.rsplit_once('/').map_or(("", path), |(above, name)| (above, name));
        let (stem, ending) = split_ending(name);
        // All numbers cut the name at the same length, so that files with one stem share their
        // numbers and each number is tried once.
        let stem = cut(stem, most.saturating_sub(CUT_ROOM + ending.len()).max(4));
        let slash = if folder.is_empty() { "" } else { "/" };
        let alike = format!("{folder}{slash}{stem}{ending}");
        let number = numbers.entry(key(&alike, is_folded).into());
        let number = number.or_insert(0);
        let free = loop {
            *number += 1;
            let candidate = format!("{folder}{slash}{stem}.{number}{ending}");
            let key = key(&candidate, is_folded);
            if !places.is_taken(&key) && given.insert(key.into_owned()) {
                break candidate;
            }
        };
        paths.push((file, FilePath::joined(free)));
    }
    paths
}

/// The paths of files, in an order in which everything inside a path follows it directly.
struct Places<'a> {
    keys: Vec<Cow<'a, str>>,
    order: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(entries: &'a [FileEntry], is_folded: bool) -> Self {
        let keys: Vec<_> =
            entries.iter().map(|entry| key(entry.path.as_str(), is_folded)).collect();
        let mut order: Vec<usize> =
            (0..entries.len()).filter(|file| !entries[*file].padding).collect();
        order.sort_unstable_by(|a, b| compare(&keys[*a], &keys[*b]).then(a.cmp(b)));
        Self { keys, order }
    }

    /// Returns files whose path is another file or a folder.
    fn in_the_way(&self) -> Vec<usize> {
        let mut files = Vec::new();
        let mut at = 0;
        while let Some(first) = self.order.get(at) {
            let path = &self.keys[*first];
            let alike =
                self.order[at..].iter().take_while(|file| self.keys[**file] == *path).count();
            let next = self.order.get(at + alike);
            let is_folder = next.is_some_and(|next| is_inside(&self.keys[*next], path));
            files.extend(&self.order[at + usize::from(!is_folder)..at + alike]);
            at += alike;
        }
        files.sort_unstable();
        files
    }

    /// Returns whether a file or folder has the path `path`.
    fn is_taken(&self, path: &str) -> bool {
        let at = self.order.partition_point(|file| compare(&self.keys[*file], path).is_lt());
        let found = self.order.get(at).map(|file| &*self.keys[*file]);
        found.is_some_and(|found| found == path || is_inside(found, path))
    }
}

/// Returns `path` in the form that is compared.
fn key(path: &str, is_folded: bool) -> Cow<'_, str> {
    if !is_folded {
        path.into()
    } else if path.is_ascii() {
        path.to_ascii_lowercase().into()
    } else {
        // Composed before and after: lower-casing may split a composed letter.
        path.nfc().flat_map(char::to_lowercase).nfc().collect()
    }
}

/// Compares bytewise. The separator sorts before everything else.
fn compare(a: &str, b: &str) -> Ordering {
    let ranked = |byte: u8| if byte == b'/' { 0 } else { byte };
    a.bytes().map(ranked).cmp(b.bytes().map(ranked))
}

fn is_inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Splits a name into stem and ending (with its dot), if the ending has a usual length.
pub(super) fn split_ending(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at @ 1..) if name.len() - at <= MAX_ENDING => name.split_at(at),
        _ => (name, ""),
    }
}

/// Cuts `text` to at most `most` bytes, at a character boundary.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Bytes of an ending with its dot. A longer one counts as part of the name.
const MAX_ENDING: usize = 16;

/// Bytes left free in a name that is cut: room for a number and for the ending of unfinished files.
const CUT_ROOM: usize = 16;

/// The longest name in bytes on Linux file systems.
const MAX_NAME: usize = 255;

/// Bytes of names from which an encoding is guessed.
const MOST_GUESSED: usize = 64 << 10;
