//! From bytes to a torrent.
//!
//! The scan finds everything; serde decodes the small typed parts, one file at a time. `pieces`
//! and the list of files, which may be large, are never decoded as a whole.

use std::ops::Range;

use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha1::{Digest, Sha1};

use crate::base::{Geometry, GeometryError, InfoHash};
use crate::bencode::{self, Kind, Node};

use super::bytes::Shelf;
use super::{
    FileEntry, FileMap, FilePath, HASH_LEN, Info, Metainfo, MetainfoError, PathFault, Remarks, path,
};

/// What a torrent may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseLimits {
    /// Bytes of the `.torrent` file.
    pub bytes: usize,
    /// Pieces.
    pub pieces: u32,
    /// Files, padding counted.
    pub files: usize,
    /// Components of a path, the torrent's name counted.
    pub path_depth: usize,
    /// Bytes of one component of a path.
    pub name_len: usize,
    /// Values of bencode, twelve bytes of memory each while it is read.
    pub tokens: usize,
}

#[derive(Deserialize)]
struct RawInfo {
    name: Option<ByteBuf>,
    #[serde(rename = "name.utf-8")]
    name_utf8: Option<ByteBuf>,
    #[serde(rename = "piece length")]
    piece_len: Option<i64>,
    length: Option<i64>,
    private: Option<i64>,
    attr: Option<ByteBuf>,
}

#[derive(Deserialize)]
struct RawFile {
    length: Option<i64>,
    path: Option<Vec<ByteBuf>>,
    #[serde(rename = "path.utf-8")]
    path_utf8: Option<Vec<ByteBuf>>,
    attr: Option<ByteBuf>,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self {
            bytes: bencode::Limits::default().bytes,
            // 2 TiB in pieces of 1 MiB; a bit for each of them is 256 KiB a peer.
            pieces: 2_000_000,
            // Some 150 bytes of memory each for as long as the torrent is known.
            files: 500_000,
            path_depth: 100,
            // What Linux file systems take.
            name_len: 255,
            tokens: bencode::Limits::default().tokens,
        }
    }
}

pub(super) fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Metainfo, MetainfoError> {
    // Places in it are kept in 32 bits.
    let limit = limits.bytes.min(u32::MAX as usize);
    if bytes.len() > limit {
        return Err(MetainfoError::TooLong { len: bytes.len(), limit });
    }
    let scan_limits = bencode::Limits {
        bytes: limits.bytes,
        tokens: limits.tokens,
        ..bencode::Limits::default()
    };
    let scan = bencode::scan(bytes, &scan_limits)?;
    let root = scan.root();
    let info_node = root
        .get(b"info")
        .filter(|info| info.kind() == Kind::Dict)
        .ok_or(MetainfoError::NotATorrent)?;

    let (info, hashes) = parse_info(info_node, limits)?;
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
    // Places fit 32 bits, as was seen to above.
    let short = |span: Range<usize>| span.start as u32..span.end as u32;
    Ok(Metainfo {
        info_hash: InfoHash(Sha1::digest(info_node.raw()).into()),
        info,
        trackers: trackers_of(root).into(),
        remarks: has_any.then(|| Box::new(remarks)),
        bytes: Shelf::new(bytes, short(info_node.span()), short(hashes)),
    })
}

/// What the `info` dictionary says, and where the piece hashes lie.
fn parse_info(
    node: Node<'_, '_>,
    limits: &ParseLimits,
) -> Result<(Info, Range<usize>), MetainfoError> {
    let raw: RawInfo = bencode::decode_node(node)?;
    let hashes = node.get(b"pieces");
    if hashes.is_none() && node.get(b"file tree").is_some() {
        return Err(MetainfoError::VersionTwoOnly);
    }
    let hashes = hashes.ok_or(MetainfoError::Missing { key: "pieces" })?;
    let hashes = hashes
        .bytes_span()
        .ok_or(MetainfoError::WrongType { key: "pieces", wanted: "a string of hashes" })?;
    let name = raw.name_utf8.or(raw.name).ok_or(MetainfoError::Missing { key: "name" })?;
    let name = text_of(&[name])?.swap_remove(0);
    path::check(&[&name], limits)?;

    let (files, single_file) = match (raw.length, node.get(b"files")) {
        (Some(_), Some(_)) => return Err(MetainfoError::LengthAndFiles),
        (None, None) => return Err(MetainfoError::NeitherLengthNorFiles),
        (Some(len), None) => {
            let path = vec![name.clone()];
            let mut list = FileList::new(limits);
            list.push(path, len, raw.attr.as_deref().map_or(&[], Vec::as_slice))?;
            (list.finish()?, true)
        }
        (None, Some(files)) => (parse_files(files, &name, limits)?, false),
    };
    let piece_len = raw.piece_len.ok_or(MetainfoError::Missing { key: "piece length" })?;
    let geometry = geometry(files.total_len(), piece_len, limits)?;
    check_hash_count(geometry, hashes.len())?;
    let private = raw.private.is_some_and(|flag| flag != 0);
    Ok((Info { private, single_file, geometry, files }, hashes))
}

fn parse_files(
    node: Node<'_, '_>,
    name: &str,
    limits: &ParseLimits,
) -> Result<FileMap, MetainfoError> {
    if node.kind() != Kind::List {
        return Err(MetainfoError::WrongType { key: "files", wanted: "a list" });
    }
    let mut list = FileList::new(limits);
    list.check_count(node.items().count())?;
    for file in node.items() {
        let raw: RawFile = bencode::decode_node(file)?;
        let below = raw.path_utf8.or(raw.path).ok_or(MetainfoError::Missing { key: "path" })?;
        let below = text_of(&below)?;
        if below.is_empty() {
            let path = path::shown(&[name]);
            return Err(MetainfoError::Path { path, fault: PathFault::NoComponents });
        }
        let path = std::iter::once(name.to_owned()).chain(below).collect();
        let len = raw.length.ok_or(MetainfoError::Missing { key: "length" })?;
        list.push(path, len, raw.attr.as_deref().map_or(&[], Vec::as_slice))?;
    }
    list.finish()
}

/// Gathers files and holds them to the rules, for parsing and for making torrents alike.
pub(super) struct FileList<'l> {
    limits: &'l ParseLimits,
    entries: Vec<FileEntry>,
    total_len: u64,
}

impl<'l> FileList<'l> {
    pub(super) fn new(limits: &'l ParseLimits) -> Self {
        Self { limits, entries: Vec::new(), total_len: 0 }
    }

    /// Refuses more files than there may be.
    pub(super) fn check_count(&self, files: usize) -> Result<(), MetainfoError> {
        let limit = self.limits.files;
        if files > limit { Err(MetainfoError::TooManyFiles { files, limit }) } else { Ok(()) }
    }

    pub(super) fn push(
        &mut self,
        path: Vec<String>,
        len: i64,
        attr: &[u8],
    ) -> Result<(), MetainfoError> {
        self.check_count(self.entries.len() + 1)?;
        path::check(&path, self.limits)?;
        let Ok(len) = u64::try_from(len) else {
            return Err(MetainfoError::FileLength { path: path::shown(&path), value: len });
        };
        if attr.contains(&ATTR_SYMLINK) {
            return Err(MetainfoError::Symlink { path: path::shown(&path) });
        }
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
            padding: attr.contains(&ATTR_PADDING),
        });
        Ok(())
    }

    pub(super) fn finish(self) -> Result<FileMap, MetainfoError> {
        if self.entries.is_empty() {
            return Err(MetainfoError::NoFiles);
        }
        path::check_distinct(&self.entries)?;
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

/// BEP 12: an `announce-list` with anything usable in it stands in for `announce`.
///
/// Trackers only help; so one that is no text, empty or too long is left out, and so are those
/// beyond the limit, instead of refusing the torrent.
fn trackers_of(root: Node<'_, '_>) -> Vec<Vec<String>> {
    let usable = |node: Node<'_, '_>| {
        let url = node.as_str()?.trim();
        (!url.is_empty() && url.len() <= MAX_TRACKER_URL).then(|| url.to_owned())
    };
    let mut seen = 0;
    let mut tiers = Vec::new();
    for tier in root.get(b"announce-list").into_iter().flat_map(Node::items) {
        let tier: Vec<String> = tier.items().filter_map(usable).take(MAX_TRACKERS - seen).collect();
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

fn text_of(components: &[ByteBuf]) -> Result<Vec<String>, MetainfoError> {
    let texts: Result<Vec<String>, _> =
        components.iter().map(|bytes| std::str::from_utf8(bytes).map(str::to_owned)).collect();
    texts.map_err(|_| {
        let lossy: Vec<_> = components.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
        MetainfoError::Path { path: path::shown(&lossy), fault: PathFault::NotUtf8 }
    })
}

/// Others make pieces longer than we do; half a GiB is the most libtorrent takes.
const MAX_FOREIGN_PIECE_LEN: u32 = 512 << 20;
/// Announcing to more than this many would be an attack on them.
const MAX_TRACKERS: usize = 100;
/// Bytes of a tracker's URL; HTTP servers refuse request lines much longer.
const MAX_TRACKER_URL: usize = 2_048;
/// BEP 47 attributes.
const ATTR_PADDING: u8 = b'p';
const ATTR_SYMLINK: u8 = b'l';
