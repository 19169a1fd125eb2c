//! A validated torrent.

use std::fmt;
use std::sync::Arc;

use crate::{Geometry, InfoHash};

use super::bytes::{ByteStore, TorrentSource};
use super::files::FileMap;

/// A validated torrent, with access to the bytes it was parsed from. There may be tens of
/// thousands, so it is as small as possible and shared by its users.
pub struct Metainfo {
    pub(super) info: Info,
    pub(super) info_hash: InfoHash,
    pub(super) is_odd: bool,
    pub(super) trackers: Box<[Vec<String>]>,
    pub(super) remarks: Option<Box<Remarks>>,
    pub(super) bytes: ByteStore,
}

/// The hashed part: name, division and files of the content. The piece hashes are in the torrent's
/// bytes.
pub struct Info {
    pub(super) private: bool,
    pub(super) single_file: bool,
    /// The length of the dictionary in bytes. It fits into the padding, so it takes no memory.
    pub(super) len: u32,
    pub(super) geometry: Geometry,
    pub(super) files: FileMap,
}

/// What the author says about the torrent.
pub(super) struct Remarks {
    pub(super) comment: Option<Box<str>>,
    pub(super) created_by: Option<Box<str>>,
    pub(super) creation_date: Option<i64>,
}

impl Metainfo {
    /// Returns the SHA-1 of the `info` dictionary, exactly as received.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// Returns the length of the `info` dictionary, which peers give to those that have only a magnet link.
    pub fn info_len(&self) -> u32 {
        self.info.len
    }

    /// The same by reference, for sets with this key.
    pub fn info_hash_ref(&self) -> &InfoHash {
        &self.info_hash
    }

    /// Returns the hashed part.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Returns the tracker URLs in tiers (BEP 12), in the order of the torrent. A single `announce`
    /// is one tier. Their number and length are bounded. They may not be valid URLs.
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.trackers
    }

    /// Returns the author's comment. It may contain anything: show it through
    /// [`printable`](crate::printable).
    pub fn comment(&self) -> Option<&str> {
        self.remarks.as_ref()?.comment.as_deref()
    }

    /// Returns the program that made the torrent. Show it through [`printable`](crate::printable).
    pub fn created_by(&self) -> Option<&str> {
        self.remarks.as_ref()?.created_by.as_deref()
    }

    /// Returns when the torrent was made, in Unix seconds, as it says.
    pub fn creation_date(&self) -> Option<i64> {
        self.remarks.as_ref()?.creation_date
    }

    /// Drops the bytes if there is a source to read them from again.
    pub fn let_go(&self) {
        self.bytes.let_go();
    }

    /// Sets the source from which dropped bytes are read again.
    pub fn set_source(&self, source: Arc<dyn TorrentSource>) {
        self.bytes.set_source(source);
    }
}

impl Info {
    /// Returns the name of the file, or of the folder of a torrent with several. It is safe as a
    /// path component. Show it through [`printable`](crate::printable).
    pub fn name(&self) -> &str {
        // Every torrent has files.
        self.files.entries().first().map_or("", |file| file.path.first())
    }

    /// Returns whether peers may only come from the torrent's trackers (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Returns how the content is divided into pieces.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the files in the order of the content.
    pub fn files(&self) -> &FileMap {
        &self.files
    }

    /// Returns whether the content is one file without a folder.
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
