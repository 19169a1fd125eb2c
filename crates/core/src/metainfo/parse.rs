//! Parses bytes into a torrent.
//!
//! Parsing is strict where content is hashed or safety matters, and lenient otherwise: see
//! `docs/torrents.md`. Whatever is ignored or repaired, the info-hash is the one of the received
//! bytes.

use crate::SaturatingFrom;
use std::borrow::Cow;
use std::ops::Range;

use sha1::{Digest, Sha1};

use crate::bencode::{self, Kind, Node, Tolerance};
use crate::{Geometry, GeometryError, InfoHash};

use super::bytes::{ByteStore, HASH_LEN};
use super::error::{MetainfoError, PathFault};
use super::files::{FileEntry, FileMap, FilePath};
use super::limits::ParseLimits;
use super::path;
use super::repair::{self, NameDecoder, NameGuess};
use super::report::{self, ParseReport};
use super::torrent::{Info, Metainfo, Remarks};

impl Metainfo {
    /// Parses `bytes`, a whole `.torrent` file.
    pub fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Self, MetainfoError> {
        parse(bytes, limits, None)
    }

    /// Makes a torrent of the `info` dictionary that a peer gave, with these trackers. Returns `None` if its hash is
    /// another one.
    ///
    /// # Errors
    /// If the hash is right and the torrent cannot be used.
    pub fn of_info(
        info: &[u8],
        info_hash: InfoHash,
        trackers: &[Vec<String>],
        limits: &ParseLimits,
    ) -> Result<Option<Self>, MetainfoError> {
        if InfoHash(Sha1::digest(info).into()) != info_hash {
            return Ok(None);
        }
        let mut torrent = b"d".to_vec();
        let put = |text: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(format!("{}:{text}", text.len()).as_bytes());
        };
        if let Some(first) = trackers.iter().flatten().next() {
            put("announce", &mut torrent);
            put(first, &mut torrent);
            put("announce-list", &mut torrent);
            torrent.push(b'l');
            for tier in trackers.iter().filter(|tier| !tier.is_empty()) {
                torrent.push(b'l');
                tier.iter().for_each(|url| put(url, &mut torrent));
                torrent.push(b'e');
            }
            torrent.push(b'e');
        }
        put("info", &mut torrent);
        torrent.extend_from_slice(info);
        torrent.push(b'e');
        let metainfo = Self::parse(&torrent, limits)?;
        // The bytes may be more than one value, and then another one was parsed.
        Ok((metainfo.info_hash() == info_hash).then_some(metainfo))
    }

    /// The same, with a report of what was ignored and repaired. It takes memory for every name
    /// that was.
    ///
    /// # Errors
    /// As [`Metainfo::parse`].
    pub fn parse_reported(
        bytes: &[u8],
        limits: &ParseLimits,
    ) -> Result<(Self, ParseReport), MetainfoError> {
        let mut report = ParseReport::default();
        let metainfo = parse(bytes, limits, Some(&mut report))?;
        Ok((metainfo, report))
    }
}

fn parse(
    bytes: &[u8],
    limits: &ParseLimits,
    report: Option<&mut ParseReport>,
) -> Result<Metainfo, MetainfoError> {
    // Offsets are stored in 32 bits.
    let limit = limits.bytes.min(u32::MAX as usize);
    if bytes.len() > limit {
        return Err(MetainfoError::TooLong { len: bytes.len(), limit });
    }
    let scan_limits = bencode::Limits {
        bytes: limits.bytes,
        tokens: limits.tokens,
        ..bencode::Limits::default()
    };
    let all = Tolerance { numbers: true, duplicate_keys: true };
    let (scan, end) = bencode::scan_tolerant(bytes, &scan_limits, all)?;
    let root = scan.root();
    let info_node = root
        .get(b"info")
        .filter(|info| info.kind() == Kind::Dict)
        .ok_or(MetainfoError::NotATorrent)?;
    if scan.oddities().numbers > 0 {
        refuse_odd_numbers(info_node, &scan_limits)?;
    }

    let info_hash = InfoHash(Sha1::digest(info_node.raw()).into());
    let (decoder, name) = names_of(root, info_node)?;
    let is_odd = end < bytes.len()
        || scan.oddities().numbers > 0
        || !scan.oddities().duplicate_keys.is_empty()
        || report::unused_sources(root) != (0, 0);
    let mut reading = Reading { limits, decoder, name, report, is_odd };
    if let Some(report) = &mut reading.report {
        report.note_scan(&scan, bytes.len() - end, info_node.span());
        report.encoding = decoder.encoding();
        report.note_sources(root);
    }
    let (info, hashes) = reading.info(info_node, info_hash)?;
    let text = |key: &[u8]| {
        let bytes = root.get(key)?.as_bytes()?;
        Some(Box::from(String::from_utf8_lossy(bytes)))
    };
    let remarks = Remarks {
        comment: text(b"comment"),
        created_by: text(b"created by"),
        creation_date: root.get(b"creation date").and_then(Node::as_int),
    };
    let has_any = remarks.comment.is_some()
        || remarks.created_by.is_some()
        || remarks.creation_date.is_some();
    // The length was checked above, so offsets fit into 32 bits.
    let short =
        |span: Range<usize>| u32::saturating_from(span.start)..u32::saturating_from(span.end);
    Ok(Metainfo {
        info_hash,
        info,
        is_odd: reading.is_odd,
        trackers: trackers_of(root).into(),
        remarks: has_any.then(|| Box::new(remarks)),
        bytes: ByteStore::new(&bytes[..end], short(info_node.span()), short(hashes)),
    })
}

/// What is hashed has one spelling. A program that writes the numbers again would make another
/// torrent.
fn refuse_odd_numbers(info: Node<'_, '_>, limits: &bencode::Limits) -> Result<(), MetainfoError> {
    let strict = Tolerance { numbers: false, duplicate_keys: true };
    bencode::scan_tolerant(info.raw(), limits, strict)
        .map(drop)
        .map_err(|fault| MetainfoError::Bencode(fault.behind(info.span().start)))
}

/// Returns the name of the torrent, and a decoder for names that are not UTF-8.
fn names_of<'a>(
    root: Node<'_, 'a>,
    info: Node<'_, 'a>,
) -> Result<(NameDecoder, &'a [u8]), MetainfoError> {
    let name = info.get(b"name").and_then(Node::as_bytes);
    let utf8 = info.get(b"name.utf-8").and_then(Node::as_bytes);
    let utf8 = utf8.filter(|name| !name.is_empty() && std::str::from_utf8(name).is_ok());
    let name = utf8.or(name).ok_or(MetainfoError::Missing { key: "name" })?;
    let mut guess = NameGuess::new();
    guess.add(name);
    for file in info.get(b"files").into_iter().flat_map(Node::items) {
        for part in path_of(file).into_iter().flat_map(Node::items) {
            guess.add(part.as_bytes().unwrap_or_default());
        }
    }
    let told = [&b"encoding"[..], b"codepage"].into_iter().find_map(|key| root.get(key));
    let label = told.and_then(|told| match told.as_int() {
        Some(page) => CODEPAGES.iter().find(|(number, _)| *number == page).map(|(_, label)| *label),
        None => told.as_bytes(),
    });
    Ok((guess.decoder(label), name))
}

/// Returns the list of a file's path components: `path.utf-8` if it is valid UTF-8.
fn path_of<'s, 'a>(file: Node<'s, 'a>) -> Option<Node<'s, 'a>> {
    let list = |key: &[u8]| file.get(key).filter(|path| path.kind() == Kind::List);
    let is_utf8 = |path: &Node<'s, 'a>| {
        path.items().next().is_some() && path.items().all(|part| part.as_str().is_some())
    };
    list(b"path.utf-8").filter(is_utf8).or_else(|| list(b"path"))
}

/// The state of parsing.
struct Reading<'a, 'r> {
    limits: &'a ParseLimits,
    decoder: NameDecoder,
    name: &'a [u8],
    report: Option<&'r mut ParseReport>,
    /// Whether there is anything to report.
    is_odd: bool,
}

impl Reading<'_, '_> {
    /// Reads the `info` dictionary. Also returns the range of the piece hashes.
    fn info(
        &mut self,
        node: Node<'_, '_>,
        info_hash: InfoHash,
    ) -> Result<(Info, Range<usize>), MetainfoError> {
        let hashes = node.get(b"pieces");
        if hashes.is_none() && node.get(b"file tree").is_some() {
            return Err(MetainfoError::VersionTwoOnly);
        }
        let hashes = hashes.ok_or(MetainfoError::Missing { key: "pieces" })?;
        let hashes = hashes
            .bytes_span()
            .ok_or(MetainfoError::WrongType { key: "pieces", wanted: "a string of hashes" })?;
        // libtorrent's name for a torrent without one.
        let name = self.part(self.name).unwrap_or_else(|| info_hash.to_string());
        if let Some(report) = &mut self.report {
            report.note_name(self.name, &name);
        }

        let length = node.get(b"length").and_then(Node::as_int);
        let is_list =
            |files: &Node<'_, '_>| files.kind() == Kind::List && files.items().next().is_some();
        let (files, single_file) = match (length, node.get(b"files")) {
            // libtorrent and Transmission do the same.
            (Some(_), Some(files)) if is_list(&files) => {
                self.is_odd = true;
                if let Some(report) = &mut self.report {
                    report.length_and_files = true;
                }
                (self.files(files, name)?, false)
            }
            (Some(_), _) => (self.single_file(node, name)?, true),
            (None, Some(files)) => (self.files(files, name)?, false),
            (None, None) if node.get(b"length").is_some() => {
                return Err(MetainfoError::WrongType { key: "length", wanted: "a number" });
            }
            (None, None) => return Err(MetainfoError::NeitherLengthNorFiles),
        };
        let piece_len = number(node, "piece length")?;
        let geometry = geometry(files.total_len(), piece_len, self.limits)?;
        check_hash_count(geometry, hashes.len())?;
        let private = node.get(b"private").is_some_and(is_set);
        let len = u32::saturating_from(node.span().len());
        Ok((Info { private, single_file, len, geometry, files }, hashes))
    }

    fn single_file(&mut self, node: Node<'_, '_>, name: String) -> Result<FileMap, MetainfoError> {
        let mut list = FileList::new(self.limits);
        self.file(node, vec![name], &mut list)?;
        list.finish_repaired(&mut self.is_odd)
    }

    fn files(&mut self, node: Node<'_, '_>, name: String) -> Result<FileMap, MetainfoError> {
        if node.kind() != Kind::List {
            return Err(MetainfoError::WrongType { key: "files", wanted: "a list" });
        }
        let mut list = FileList::new(self.limits);
        list.check_count(node.items().count())?;
        for file in node.items() {
            if file.kind() != Kind::Dict {
                return Err(MetainfoError::WrongType { key: "files", wanted: "a list of files" });
            }
            let mut path = vec![name.clone()];
            self.path(file, &mut path)?;
            self.file(file, path, &mut list)?;
        }
        let map = list.finish_repaired(&mut self.is_odd)?;
        if let Some(report) = &mut self.report {
            let raw = |file| raw_path(self.name, file);
            report.note_paths(&map, node.items().map(raw));
        }
        Ok(map)
    }

    /// Adds the path components of `file` below the torrent's folder.
    fn path(&mut self, file: Node<'_, '_>, path: &mut Vec<String>) -> Result<(), MetainfoError> {
        let Some(parts) = path_of(file) else {
            if Attributes::of(file).padding {
                // libtorrent uses the same name.
                let len = file.get(b"length").and_then(Node::as_int).unwrap_or(0);
                path.extend([".pad".to_owned(), len.to_string()]);
                return Ok(());
            }
            return Err(match file.get(b"path") {
                Some(_) => MetainfoError::WrongType { key: "path", wanted: "a list of names" },
                None => MetainfoError::Missing { key: "path" },
            });
        };
        for part in parts.items() {
            let part = part
                .as_bytes()
                .ok_or(MetainfoError::WrongType { key: "path", wanted: "a list of names" })?;
            path.extend(self.part(part));
            if path.len() > self.limits.path_depth {
                let fault = PathFault::TooDeep { limit: self.limits.path_depth };
                return Err(MetainfoError::Path { path: path::shown(path), fault });
            }
        }
        if parts.items().next().is_none() {
            let fault = PathFault::NoComponents;
            return Err(MetainfoError::Path { path: path::shown(path), fault });
        }
        if path.len() == 1 {
            path.push("_".to_owned());
        }
        Ok(())
    }

    /// Returns a path component as it is used here.
    fn part(&mut self, raw: &[u8]) -> Option<String> {
        let text = self.decoder.decode(raw);
        let part = repair::part(&text, self.limits.name_len);
        self.is_odd |= part.as_ref().is_none_or(|part| part.as_bytes() != raw);
        part.map(Cow::into_owned)
    }

    /// Adds a file with a known path.
    fn file(
        &mut self,
        node: Node<'_, '_>,
        path: Vec<String>,
        list: &mut FileList<'_>,
    ) -> Result<(), MetainfoError> {
        let attributes = Attributes::of(node);
        if attributes.link {
            self.is_odd = true;
            if let Some(report) = &mut self.report {
                report.note_link(&path, node.get(b"symlink path"));
            }
            // A link has no bytes in the content, whatever its length says.
            return list.push(path, 0, Attributes { padding: true, ..attributes });
        }
        let is_padding = attributes.padding || path.iter().any(path::is_padding_name);
        list.push(path, number(node, "length")?, Attributes { padding: is_padding, ..attributes })
    }
}

/// Returns the path of a file as written in the torrent.
fn raw_path<'a>(name: &'a [u8], file: Node<'_, 'a>) -> impl Iterator<Item = &'a [u8]> {
    let below = path_of(file).into_iter().flat_map(Node::items);
    std::iter::once(name).chain(below.filter_map(Node::as_bytes))
}

/// Returns the number at `key`, which is required.
fn number(node: Node<'_, '_>, key: &'static str) -> Result<i64, MetainfoError> {
    let value = node.get(key.as_bytes()).ok_or(MetainfoError::Missing { key })?;
    value.as_int().ok_or(MetainfoError::WrongType { key, wanted: "a number" })
}

/// Returns whether a flag is set. A value of another type counts as set unless it looks like a no:
/// to be private by mistake does no harm.
fn is_set(flag: Node<'_, '_>) -> bool {
    match flag.as_bytes() {
        Some(text) => !matches!(text.trim_ascii(), b"" | b"0"),
        None => flag.as_int() != Some(0),
    }
}

/// The `attr` of a file (BEP 47).
#[derive(Clone, Copy, Default)]
pub(super) struct Attributes {
    pub padding: bool,
    pub link: bool,
    pub executable: bool,
}

impl Attributes {
    fn of(file: Node<'_, '_>) -> Self {
        let attr = file.get(b"attr").and_then(Node::as_bytes).unwrap_or_default();
        Self {
            padding: attr.contains(&b'p'),
            link: attr.contains(&b'l'),
            executable: attr.contains(&b'x'),
        }
    }
}

/// Collects files and checks them, for parsing and for making torrents.
pub(super) struct FileList<'l> {
    limits: &'l ParseLimits,
    entries: Vec<FileEntry>,
    total_len: u64,
}

impl<'l> FileList<'l> {
    pub(super) fn new(limits: &'l ParseLimits) -> Self {
        Self { limits, entries: Vec::new(), total_len: 0 }
    }

    /// Refuses too many files.
    pub(super) fn check_count(&self, files: usize) -> Result<(), MetainfoError> {
        let limit = self.limits.files;
        if files > limit { Err(MetainfoError::TooManyFiles { files, limit }) } else { Ok(()) }
    }

    pub(super) fn push(
        &mut self,
        path: Vec<String>,
        len: i64,
        attributes: Attributes,
    ) -> Result<(), MetainfoError> {
        self.check_count(self.entries.len() + 1)?;
        let Ok(len) = u64::try_from(len) else {
            return Err(MetainfoError::FileLength { path: path::shown(&path), value: len });
        };
        let offset = self.total_len;
        // Both are at most 2^63 - 1, so the sum fits.
        self.total_len += len;
        if self.total_len > i64::MAX as u64 {
            return Err(MetainfoError::TotalLength);
        }
        self.entries.push(FileEntry {
            path: FilePath::new(&path),
            len,
            offset,
            padding: attributes.padding,
            executable: attributes.executable,
        });
        Ok(())
    }

    /// Returns the files, unless two of them conflict.
    pub(super) fn finish(self) -> Result<FileMap, MetainfoError> {
        if self.entries.is_empty() {
            return Err(MetainfoError::NoFiles);
        }
        path::check_distinct(&self.entries, self.limits)?;
        Ok(FileMap::new(self.entries))
    }

    /// Returns the files. Files that conflict get other paths, and then `is_odd` is set.
    fn finish_repaired(mut self, is_odd: &mut bool) -> Result<FileMap, MetainfoError> {
        if self.entries.is_empty() {
            return Err(MetainfoError::NoFiles);
        }
        *is_odd |= repair::make_distinct(&mut self.entries, self.limits.name_len);
        Ok(FileMap::new(self.entries))
    }
}

pub(super) fn geometry(
    total_len: u64,
    piece_len: i64,
    limits: &ParseLimits,
) -> Result<Geometry, MetainfoError> {
    let fault = MetainfoError::PieceLength { value: piece_len, limit: MAX_FOREIGN_PIECE_LEN };
    let Ok(piece_len) = u32::try_from(piece_len) else { return Err(fault) };
    if piece_len > MAX_FOREIGN_PIECE_LEN {
        return Err(fault);
    }
    let too_many = |pieces| MetainfoError::TooManyPieces { pieces, limit: limits.pieces };
    let geometry = Geometry::new(total_len, piece_len).map_err(|error| match error {
        GeometryError::ZeroPieceLength => fault,
        GeometryError::TooManyPieces { .. } => too_many(total_len.div_ceil(piece_len.into())),
    })?;
    if geometry.pieces() > limits.pieces {
        return Err(too_many(geometry.pieces().into()));
    }
    Ok(geometry)
}

pub(super) fn check_hash_count(geometry: Geometry, got: usize) -> Result<(), MetainfoError> {
    let wanted = u64::from(geometry.pieces()) * HASH_LEN as u64;
    if got as u64 != wanted {
        return Err(MetainfoError::HashCount {
            total_len: geometry.total_len(),
            piece_len: geometry.piece_len(),
            wanted,
            got,
        });
    }
    Ok(())
}

/// Returns the trackers. An `announce-list` with anything usable in it replaces `announce` (BEP
/// 12).
///
/// Trackers are optional. So one that is not text, empty or too long is left out, and so are those
/// beyond the limit; the torrent is not refused.
fn trackers_of(root: Node<'_, '_>) -> Vec<Vec<String>> {
    let usable = |node: Node<'_, '_>| {
        let url = node.as_str()?.trim();
        (!url.is_empty() && url.len() <= MAX_TRACKER_URL).then(|| url.to_owned())
    };
    let mut seen = 0;
    let mut tiers = Vec::new();
    for tier in root.get(b"announce-list").into_iter().flat_map(Node::items) {
        // A tracker in place of a tier becomes a tier of its own.
        let urls = tier.items().chain(std::iter::once(tier)).filter_map(usable);
        let tier: Vec<String> = urls.take(MAX_TRACKERS - seen).collect();
        seen += tier.len();
        if !tier.is_empty() {
            tiers.push(tier);
        }
    }
    if tiers.is_empty() {
        tiers.extend(root.get(b"announce").and_then(usable).map(|url| vec![url]));
    }
    tiers
}

/// Other programs make longer pieces than we do. libtorrent accepts at most half a GiB.
const MAX_FOREIGN_PIECE_LEN: u32 = 512 << 20;
/// To announce to more trackers than this would be an attack on them.
const MAX_TRACKERS: usize = 100;
/// Bytes of a tracker URL. HTTP servers refuse much longer request lines.
const MAX_TRACKER_URL: usize = 2_048;
/// The Windows codepage numbers that torrents use at `codepage`.
const CODEPAGES: [(i64, &[u8]); 14] = [
    (866, b"ibm866"),
    (874, b"windows-874"),
    (932, b"shift_jis"),
    (936, b"gbk"),
    (949, b"euc-kr"),
    (950, b"big5"),
    (1250, b"windows-1250"),
    (1251, b"windows-1251"),
    (1252, b"windows-1252"),
    (1253, b"windows-1253"),
    (1254, b"windows-1254"),
    (1255, b"windows-1255"),
    (1256, b"windows-1256"),
    (54936, b"gb18030"),
];
