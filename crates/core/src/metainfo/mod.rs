//! The bytes of a `.torrent` to a validated torrent, hashed over the received span, and
//! the way back: making one.
//!
//! BEP 3 (single- and multi-file), BEP 12 (tiers of trackers), BEP 27 (private), BEP 47 (padding
//! files). Parsing makes names safe and refuses what is ambiguous where it is hashed; the received
//! bytes are kept, so that keys nobody here knows stay in the hashed span and are handed on as they
//! came. A torrent that
//! does nothing may let go of them, piece hashes included, if they can be read again.

mod build;
mod bytes;
mod error;
mod files;
mod parse;
mod path;
mod repair;
mod report;
mod safe_name;
mod sources;
mod stream;

use std::fmt;
use std::sync::Arc;

use crate::{Geometry, InfoHash};

pub use build::{MAX_PIECE_LEN, MIN_PIECE_LEN, MetainfoBuilder, check_piece_len, choose_piece_len};
pub use bytes::{TorrentBytes, TorrentSource};
pub use error::{MetainfoError, PathFault};
pub use files::{FileEntry, FileMap, FilePath, FileSlice};
pub use parse::ParseLimits;
pub use path::is_padding_name;
pub use repair::torrent_names;
pub use report::ParseReport;
pub use safe_name::{original_name, safe_name, torrent_file_stem};
pub use sources::OtherSources;
pub use stream::torrent_len;

/// A validated torrent, and how to get at the bytes it was read from. There may be tens of
/// thousands, so each is as small as can be and is shared by those who need it.
pub struct Metainfo {
    info: Info,
    info_hash: InfoHash,
    is_odd: bool,
    trackers: Box<[Vec<String>]>,
    remarks: Option<Box<Remarks>>,
    bytes: bytes::Shelf,
}

/// What the info-hash covers: the content's name, cut and files, and the hashes, which are found
/// in the torrent's bytes.
pub struct Info {
    private: bool,
    single_file: bool,
    geometry: Geometry,
    files: FileMap,
}

/// What the maker says of itself and the torrent.
struct Remarks {
    comment: Option<Box<str>>,
    created_by: Option<Box<str>>,
    creation_date: Option<i64>,
}

impl Metainfo {
    /// The torrent that `bytes`, a whole `.torrent` file, describe.
    pub fn parse(bytes: &[u8], limits: &ParseLimits) -> Result<Self, MetainfoError> {
        parse::parse(bytes, limits, None)
    }

    /// The same, with what was passed over and repaired. Takes memory for every name that was.
    ///
    /// # Errors
    /// As [`Metainfo::parse`].
    pub fn parse_reported(
        bytes: &[u8],
        limits: &ParseLimits,
    ) -> Result<(Self, ParseReport), MetainfoError> {
        let mut report = ParseReport::default();
        let metainfo = parse::parse(bytes, limits, Some(&mut report))?;
        Ok((metainfo, report))
    }

    /// Sentences that say what was passed over or repaired, if anything was. Blocks: then the bytes are
    /// read again.
    ///
    /// # Errors
    /// [`MetainfoError::Unreadable`] if they cannot be read.
    pub fn notices(&self) -> Result<Vec<String>, MetainfoError> {
        if !self.is_odd {
            return Ok(Vec::new());
        }
        let (_, report) = Self::parse_reported(&self.bytes()?, &ParseLimits::default())?;
        Ok(report.notices())
    }

    /// SHA-1 of the `info` dictionary exactly as received.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The same, for sets whose members are found by it.
    pub fn info_hash_ref(&self) -> &InfoHash {
        &self.info_hash
    }

    /// The hashed part.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Tracker URLs in tiers (BEP 12), in the torrent's order; a lone `announce` is one tier.
    /// Their number and length are bounded; that they are URLs is not checked.
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.trackers
    }

    /// The maker's comment. It may hold anything: show it through `base::printable`.
    pub fn comment(&self) -> Option<&str> {
        self.remarks.as_ref()?.comment.as_deref()
    }

    /// The program that made the torrent. Show it through `base::printable`.
    pub fn created_by(&self) -> Option<&str> {
        self.remarks.as_ref()?.created_by.as_deref()
    }

    /// When the torrent says it was made, in Unix seconds.
    pub fn creation_date(&self) -> Option<i64> {
        self.remarks.as_ref()?.creation_date
    }

    /// The bytes that were parsed, read again if they were let go of: then this blocks.
    ///
    /// # Errors
    /// [`MetainfoError::Unreadable`] if they cannot be read again.
    pub fn bytes(&self) -> Result<TorrentBytes, MetainfoError> {
        self.bytes.get(self)
    }

    /// Lets go of the bytes until somebody asks for them, if there is a source to read them from
    /// again.
    pub fn let_go(&self) {
        self.bytes.let_go();
    }

    /// Has the bytes be read from `source` once they were let go of.
    pub fn set_source(&self, source: Arc<dyn TorrentSource>) {
        self.bytes.set_source(source);
    }
}

impl Info {
    /// Name of the file, or of the folder around the files. Safe as a path component; show it
    /// through `base::printable`.
    pub fn name(&self) -> &str {
        // There is no torrent without files.
        self.files.entries().first().map_or("", |file| file.path.first())
    }

    /// Whether peers may come from the torrent's trackers only (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Length of the content and of its pieces.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The files, in the order in which their bytes make up the content.
    pub fn files(&self) -> &FileMap {
        &self.files
    }

    /// Whether the content is one file without a folder around it.
    pub fn is_single_file(&self) -> bool {
        self.single_file
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metainfo")
            .field("info_hash", &self.info_hash)
            .field("info", &self.info)
            .field("trackers", &self.trackers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("name", &self.name())
            .field("private", &self.private)
            .field("geometry", &self.geometry)
            .field("files", &self.files.entries().len())
            .finish_non_exhaustive()
    }
}

/// Bytes of a SHA-1 digest in `pieces`.
const HASH_LEN: usize = 20;

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;
