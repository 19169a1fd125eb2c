//! What was ignored or repaired while a torrent was parsed.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bencode::{Kind, Node, Scan};
use crate::{printable, printable_bytes};

use super::{FileMap, path};

/// What was ignored or repaired, for display. All text in it is printable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ParseReport {
    /// The name in the torrent, if it was changed.
    pub name: Option<String>,
    /// The paths in the torrent of files that got another path, by file number.
    pub paths: BTreeMap<usize, String>,
    /// The encoding of names that are not UTF-8.
    pub encoding: Option<&'static str>,
    /// The paths and targets of symbolic links, which are left out.
    pub links: Vec<(String, String)>,
    /// The number of bytes after the torrent.
    pub trailing: usize,
    /// Repeated keys in a dictionary. The first value counts.
    pub duplicate_keys: Vec<String>,
    /// Numbers with leading zeros and the like, all outside `info`.
    pub odd_numbers: usize,
    /// It has both the `length` of one file and a list of `files`. The list counts.
    pub length_and_files: bool,
    /// Web seeds (BEP 17, BEP 19), which are not used.
    pub web_seeds: usize,
    /// DHT nodes (BEP 5), which are not used.
    pub nodes: usize,
}

impl ParseReport {
    /// Returns a sentence for each kind of finding that the user should know.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        for (path, target) in self.links.iter().take(MOST_LINKS) {
            notices.push(format!("the symbolic link `{path}` to `{target}` is left out"));
        }
        if let Some(more @ 1..) = self.links.len().checked_sub(MOST_LINKS) {
            notices.push(format!("`{more}` more symbolic links are left out"));
        }
        if let Some(name) = &self.name {
            notices.push(format!("its name in the torrent is `{name}`"));
        }
        let files = self.paths.len();
        if files > 0 {
            notices.push(match files {
                1 => "a file has another name here than in the torrent".to_owned(),
                _ => format!("`{files}` files have other names here than in the torrent"),
            });
        }
        if let Some(encoding) = self.encoding {
            notices.push(format!("names that are not UTF-8 were read as {encoding}"));
        }
        if self.length_and_files {
            notices.push("it has both `length` and `files`; the files are used".to_owned());
        }
        if self.web_seeds > 0 {
            notices.push(format!(
                "web seeds are not supported: its `{}` are not used",
                self.web_seeds
            ));
        }
        if self.nodes > 0 {
            notices.push(format!("its `{}` nodes of the DHT (`nodes`) are not used", self.nodes));
        }
        if self.trailing > 0 {
            notices.push(format!("`{}` bytes after the torrent are ignored", self.trailing));
        }
        for key in &self.duplicate_keys {
            notices.push(format!("the key `{key}` occurs twice; its first value is used"));
        }
        if self.odd_numbers > 0 {
            notices.push("numbers outside `info` are not written as bencode demands".to_owned());
        }
        notices
    }

    /// Records sources of the content that are not used.
    pub(super) fn note_sources(&mut self, root: Node<'_, '_>) {
        (self.web_seeds, self.nodes) = unused_sources(root);
    }

    /// Records what the scan tolerated, and the bytes after the torrent.
    pub(super) fn note_scan(&mut self, scan: &Scan<'_>, trailing: usize, info: Range<usize>) {
        self.trailing = trailing;
        self.odd_numbers = scan.oddities().numbers;
        let key = |span: &Range<usize>| {
            let raw = &scan.bytes()[span.clone()];
            let text = raw.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
            let place = if info.contains(&span.start) { "info/" } else { "" };
            format!("{place}{}", printable_bytes(&text[..text.len().min(MOST_KEY)]))
        };
        self.duplicate_keys = scan.oddities().duplicate_keys.iter().map(key).collect();
    }

    /// Records the name in the torrent, `raw`, if `name` differs.
    pub(super) fn note_name(&mut self, raw: &[u8], name: &str) {
        self.name = (raw != name.as_bytes()).then(|| printable_bytes(raw));
    }

    /// Records which files got another path than in the torrent. `raw` has the components of each.
    pub(super) fn note_paths<'a, P: Iterator<Item = &'a [u8]>>(
        &mut self,
        map: &FileMap,
        raw: impl Iterator<Item = P>,
    ) {
        for ((file, entry), raw) in map.entries().iter().enumerate().zip(raw) {
            let raw = raw.collect::<Vec<_>>().join(&b'/');
            if !entry.padding && raw != entry.path.as_str().as_bytes() {
                self.paths.insert(file, printable_bytes(&raw));
            }
        }
    }

    /// Records a symbolic link and its target.
    pub(super) fn note_link(&mut self, names: &[String], target: Option<Node<'_, '_>>) {
        let parts = target.into_iter().flat_map(Node::items).filter_map(Node::as_bytes);
        let target = parts.map(printable_bytes).collect::<Vec<_>>().join("/");
        self.links.push((path::shown(names), printable(&target).into_owned()));
    }
}

/// Returns how many web seeds and DHT nodes a torrent names. Neither are used.
pub(super) fn unused_sources(root: Node<'_, '_>) -> (usize, usize) {
    let count = |key: &[u8]| match root.get(key) {
        Some(node) if node.kind() == Kind::List => node.items().count(),
        Some(node) => usize::from(node.as_bytes().is_some_and(|url| !url.is_empty())),
        None => 0,
    };
    (count(b"url-list") + count(b"httpseeds"), count(b"nodes"))
}

/// Links that are listed one by one.
const MOST_LINKS: usize = 20;

/// Bytes of a key that are shown.
const MOST_KEY: usize = 100;
