//! A validated torrent.

use std::fmt;
use std::sync::Arc;

use crate::{Geometry, InfoHash};

use super::bytes::{ByteStore, TorrentSource};
use super::files::FileMap;

/// A validated torrent, and how to get at the bytes it was read from. There may be tens of
/// thousands, so each is as small as can be and is shared by those who need it.
pub struct Metainfo {
    pub(super) info: Info,
    pub(super) info_hash: InfoHash,
    pub(super) is_odd: bool,
    pub(super) trackers: Box<[Vec<String>]>,
    pub(super) remarks: Option<Box<Remarks>>,
    pub(super) bytes: ByteStore,
}

/// What the info-hash covers: the content's name, cut and files, and the hashes, which are found
/// in the torrent's bytes.
pub struct Info {
    pub(super) private: bool,
    pub(super) single_file: bool,
    pub(super) geometry: Geometry,
    pub(super) files: FileMap,
}

/// What the maker says of itself and the torrent.
pub(super) struct Remarks {
    pub(super) comment: Option<Box<str>>,
    pub(super) created_by: Option<Box<str>>,
    pub(super) creation_date: Option<i64>,
}

impl Metainfo {
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
