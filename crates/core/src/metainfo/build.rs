//! Makes a `.torrent` of files and piece hashes.

use crate::SaturatingFrom;
use std::collections::BTreeSet;

use serde::Serialize;
use serde_bytes::Bytes;

use crate::Geometry;
use crate::bencode;

use super::bytes::HASH_LEN;
use super::parse::{self, Attributes, FileList};
use super::{FileMap, Metainfo, MetainfoError, ParseLimits, path};

/// The shortest pieces we make: one block.
pub const MIN_PIECE_LEN: u32 = 16 << 10;
/// The longest pieces we make. A piece is buffered as a whole, and a bad one is downloaded again as
/// a whole.
pub const MAX_PIECE_LEN: u32 = 64 << 20;

/// A torrent without its piece hashes. The same arguments give the same bytes.
///
/// Read the files in the order of [`MetainfoBuilder::files`], divided as
/// [`MetainfoBuilder::geometry`] says, hash each piece, and pass the digests to
/// [`MetainfoBuilder::build`].
#[derive(Clone, Debug)]
pub struct MetainfoBuilder {
    name: String,
    content: Content,
    piece_len: u32,
    private: bool,
    trackers: Vec<Vec<String>>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<i64>,
    source: Option<String>,
    executables: BTreeSet<usize>,
    limits: ParseLimits,
}

/// Returns the piece length for `total` bytes: a power of two from 16 KiB to 64 MiB that gives
/// 1,000 to 2,000 pieces if possible. With fewer pieces, peers wait for each other; more pieces
/// cost bytes.
pub fn choose_piece_len(total: u64) -> u32 {
    const MOST_PIECES: u64 = 2_000;
    let len = total.div_ceil(MOST_PIECES).max(1).next_power_of_two();
    u32::saturating_from(len.clamp(MIN_PIECE_LEN.into(), MAX_PIECE_LEN.into()))
}

/// Refuses a piece length with which we do not make torrents.
pub fn check_piece_len(value: u32) -> Result<(), MetainfoError> {
    if value.is_power_of_two() && (MIN_PIECE_LEN..=MAX_PIECE_LEN).contains(&value) {
        Ok(())
    } else {
        Err(MetainfoError::UnusualPieceLength { value })
    }
}

impl MetainfoBuilder {
    /// Begins a torrent of one file of `len` bytes.
    pub fn single_file(name: impl Into<String>, len: u64) -> Self {
        Self::new(name.into(), Content::File(len), len)
    }

    /// Begins a torrent of a folder. `files` has the path components of each file below the folder
    /// and its length, in any order.
    pub fn folder(name: impl Into<String>, mut files: Vec<(Vec<String>, u64)>) -> Self {
        files.sort();
        let total = files.iter().fold(0_u64, |total, (_, len)| total.saturating_add(*len));
        Self::new(name.into(), Content::Folder(files), total)
    }

    /// Sets the piece length, in place of the one from [`choose_piece_len`].
    pub fn piece_len(mut self, piece_len: u32) -> Self {
        self.piece_len = piece_len;
        self
    }

    /// Sets whether peers may only come from the torrent's trackers (BEP 27).
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Sets the tracker URLs in tiers (BEP 12). Empty tiers are left out.
    pub fn trackers(mut self, tiers: Vec<Vec<String>>) -> Self {
        self.trackers = tiers.into_iter().filter(|tier| !tier.is_empty()).collect();
        self
    }

    /// Sets a comment for people.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Sets the program that makes the torrent.
    pub fn created_by(mut self, created_by: impl Into<String>) -> Self {
        self.created_by = Some(created_by.into());
        self
    }

    /// Sets when the torrent is made, in Unix seconds.
    pub fn creation_date(mut self, unix_seconds: i64) -> Self {
        self.creation_date = Some(unix_seconds);
        self
    }

    /// Sets a word in the hashed part, which gives the same content another info-hash.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets which files are executable (BEP 47), by their numbers in the order of their paths.
    pub fn executables(mut self, files: BTreeSet<usize>) -> Self {
        self.executables = files;
        self
    }

    /// Sets the limits that readers of the torrent have, in place of the default.
    pub fn limits(mut self, limits: ParseLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the files in the order of the content. The same rules apply as for parsing.
    pub fn files(&self) -> Result<FileMap, MetainfoError> {
        let mut list = FileList::new(&self.limits);
        let signed = |len: u64| i64::try_from(len).map_err(|_| MetainfoError::TotalLength);
        match &self.content {
            Content::File(len) => {
                let path = vec![self.name.clone()];
                path::check(&path, &self.limits)?;
                list.push(path, signed(*len)?, self.attributes(0))?;
            }
            Content::Folder(files) => {
                list.check_count(files.len())?;
                for (number, (below, len)) in files.iter().enumerate() {
                    let path: Vec<String> =
                        std::iter::once(&self.name).chain(below).cloned().collect();
                    path::check(&path, &self.limits)?;
                    list.push(path, signed(*len)?, self.attributes(number))?;
                }
            }
        }
        list.finish()
    }

    /// Returns how the content is divided.
    pub fn geometry(&self) -> Result<Geometry, MetainfoError> {
        check_piece_len(self.piece_len)?;
        let total = match &self.content {
            Content::File(len) => Some(*len),
            Content::Folder(files) => {
                files.iter().try_fold(0_u64, |total, (_, len)| total.checked_add(*len))
            }
        };
        let total = total.filter(|total| i64::try_from(*total).is_ok());
        let total = total.ok_or(MetainfoError::TotalLength)?;
        // The hashes alone must fit into an acceptable file. It is better to fail before hashing.
        let fitting = u32::try_from(self.limits.bytes / HASH_LEN).unwrap_or(u32::MAX);
        let limits = ParseLimits { pieces: self.limits.pieces.min(fitting), ..self.limits };
        parse::geometry(total, self.piece_len.into(), &limits)
    }

    /// Refuses, before anything is hashed, a torrent that would not be accepted: too many files or
    /// pieces, or too long a `.torrent`. Returns how the content is divided.
    ///
    /// # Errors
    /// Why the torrent would not be accepted.
    pub fn check(&self) -> Result<Geometry, MetainfoError> {
        self.files()?;
        let geometry = self.geometry()?;
        let hashes = geometry.pieces() as usize * HASH_LEN;
        // The length of the hashes is written before them, with this many digits instead of one.
        let digits = hashes.max(1).ilog10() as usize;
        let len = self.encode(&[])?.len() + digits + hashes;
        let limit = self.limits.bytes;
        if len > limit { Err(MetainfoError::TooLong { len, limit }) } else { Ok(geometry) }
    }

    /// Makes the torrent with `piece_hashes`, twenty bytes per piece: canonical bencode, parsed
    /// again.
    pub fn build(self, piece_hashes: Vec<u8>) -> Result<Metainfo, MetainfoError> {
        self.files()?;
        parse::check_hash_count(self.geometry()?, piece_hashes.len())?;
        Metainfo::parse(&self.encode(&piece_hashes)?, &self.limits)
    }

    fn attributes(&self, file: usize) -> Attributes {
        Attributes { executable: self.executables.contains(&file), ..Attributes::default() }
    }

    fn encode(&self, piece_hashes: &[u8]) -> Result<Vec<u8>, MetainfoError> {
        let (length, files) = match &self.content {
            Content::File(len) => (Some(*len), None),
            Content::Folder(files) => (
                None,
                Some(
                    files
                        .iter()
                        .enumerate()
                        .map(|(number, (path, len))| FileOut {
                            attr: self.attributes(number).executable.then_some(EXECUTABLE),
                            length: *len,
                            path,
                        })
                        .collect(),
                ),
            ),
        };
        let several = self.trackers.iter().map(Vec::len).sum::<usize>() > 1;
        Ok(bencode::encode(&TorrentOut {
            announce: self.trackers.first().and_then(|tier| tier.first()),
            announce_list: several.then_some(&self.trackers),
            comment: self.comment.as_deref(),
            created_by: self.created_by.as_deref(),
            creation_date: self.creation_date,
            info: InfoOut {
                attr: (length.is_some() && self.attributes(0).executable).then_some(EXECUTABLE),
                files,
                length,
                name: &self.name,
                piece_len: self.piece_len,
                pieces: Bytes::new(piece_hashes),
                private: self.private.then_some(1),
                source: self.source.as_deref(),
            },
        })?)
    }

    fn new(name: String, content: Content, total: u64) -> Self {
        Self {
            name,
            content,
            piece_len: choose_piece_len(total),
            private: false,
            trackers: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
            source: None,
            executables: BTreeSet::new(),
            limits: ParseLimits::default(),
        }
    }
}

#[derive(Clone, Debug)]
enum Content {
    File(u64),
    /// Path components below the folder, and length in bytes; sorted.
    Folder(Vec<(Vec<String>, u64)>),
}

#[derive(Serialize)]
struct TorrentOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    announce: Option<&'a String>,
    #[serde(rename = "announce-list", skip_serializing_if = "Option::is_none")]
    announce_list: Option<&'a Vec<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
    #[serde(rename = "created by", skip_serializing_if = "Option::is_none")]
    created_by: Option<&'a str>,
    #[serde(rename = "creation date", skip_serializing_if = "Option::is_none")]
    creation_date: Option<i64>,
    info: InfoOut<'a>,
}

#[derive(Serialize)]
struct InfoOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attr: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileOut<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_len: u32,
    pieces: &'a Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

#[derive(Serialize)]
struct FileOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attr: Option<&'static str>,
    length: u64,
    path: &'a [String],
}

/// The `attr` of an executable file (BEP 47).
const EXECUTABLE: &str = "x";
