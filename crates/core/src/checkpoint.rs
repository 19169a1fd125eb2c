//! What is known for certain about a torrent on disk.

use super::Bitfield;

/// A file as it was when somebody looked: as long as both are the same, its content is taken to be
/// the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint {
    /// Its length in bytes.
    pub len: u64,
    /// When it was last modified, nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Fingerprint {
    /// Of a file of which it is not known what it was like when its content was: every file is
    /// unlike it, and may be one that we have written to since.
    pub const UNSURE: Self = Self { len: 0, mtime_ns: 0 };

    /// Whether it is that one.
    pub fn is_unsure(&self) -> bool {
        *self == Self::UNSURE
    }
}

/// What survives the end of the process, however it comes: taken after the data was flushed, so
/// that every piece in it is on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Pieces verified and flushed.
    pub have: Bitfield,
    /// Each file of the torrent in order, `None` where there is none. Padding files are `None`.
    pub files: Vec<Option<Fingerprint>>,
    /// Files were being written at the time: some may have changed by our own hand soon after, and
    /// hold pieces that are not in `have`.
    pub writing: bool,
    /// Pieces that were to be hashed when it was taken, and may be held or not: a check was going on,
    /// and the files are as they were when it began. `None` if no check was.
    pub unchecked: Option<Bitfield>,
    /// When it was taken, nanoseconds since 1970.
    pub taken_at_ns: i64,
    /// Payload bytes received since the torrent was first added.
    pub downloaded: u64,
    /// Payload bytes sent since the torrent was first added.
    pub uploaded: u64,
}

impl Checkpoint {
    /// Returns whether all pieces are held, or may be: those that are not are still to be checked.
    pub fn may_be_whole(&self) -> bool {
        let is_open = |piece| self.unchecked.as_ref().is_some_and(|open| open.contains(piece));
        self.have.missing().all(is_open)
    }
}
