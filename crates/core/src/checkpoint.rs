//! What is certain about a torrent on disk.

use super::Bitfield;

/// The state of a file at some time. If it is the same later, the content is assumed to be the
/// same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint {
    /// The length in bytes.
    pub len: u64,
    /// The time of the last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Fingerprint {
    /// A placeholder for a file whose state at the checkpoint is unknown. It differs from every
    /// file. We may have written to the file since.
    pub const UNSURE: Self = Self { len: 0, mtime_ns: 0 };

    /// Returns whether it is [`Fingerprint::UNSURE`].
    pub fn is_unsure(&self) -> bool {
        *self == Self::UNSURE
    }
}

/// What survives the end of the process, even a crash. It is taken after the data was flushed, so
/// every piece in it is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The pieces that are verified and flushed.
    pub have: Bitfield,
    /// Each file of the torrent in order. `None` for missing files and for padding.
    pub files: Vec<Option<Fingerprint>>,
    /// Files were being written. Soon after, we may have changed some of them, and they may hold
    /// pieces that are not in `have`.
    pub writing: bool,
    /// The pieces that a check had not hashed yet, held or not. The files are as they were when the
    /// check began. `None` if there was no check.
    pub unchecked: Option<Bitfield>,
    /// When the checkpoint was taken, in nanoseconds since 1970.
    pub taken_at_ns: i64,
    /// Payload bytes received since the torrent was first added.
    pub downloaded: u64,
    /// Payload bytes sent since the torrent was first added.
    pub uploaded: u64,
}

impl Checkpoint {
    /// Returns whether every piece is either held or still to be checked.
    pub fn may_be_whole(&self) -> bool {
        let is_open = |piece| self.unchecked.as_ref().is_some_and(|open| open.contains(piece));
        self.have.missing().all(is_open)
    }
}
