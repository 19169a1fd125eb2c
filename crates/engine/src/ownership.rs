//! Who owns the files that have the names of a torrent's files.

use piecework_core::{Bitfield, PieceIndex};
use piecework_storage::{StorageError, Store};

use super::error::{StrangeFiles, TorrentError};

/// Who owns the files that have the names of a torrent's files, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// They may belong to somebody who does not know of the torrent.
    Unknown,
    /// Unfinished files are the torrent's. Files with final names may be somebody else's.
    Unfinished,
    /// They are the torrent's: it has written to them.
    Ours,
    /// Files in the torrent's way are replaced, because somebody asked for that.
    Replaced,
}

/// Returns an error if the download would write to files that are not the torrent's. If they are to
/// be replaced, removes them instead.
pub(super) fn make_way(
    store: &Store,
    have: &Bitfield,
    wanted: impl Fn(PieceIndex) -> bool,
    files: Ownership,
) -> Result<Result<(), TorrentError>, StorageError> {
    if files == Ownership::Ours {
        return Ok(Ok(()));
    }
    // An unfinished file without a right piece belongs to another torrent of that name.
    let unfinished = matches!(files, Ownership::Unknown | Ownership::Replaced);
    let strange = store.foreign_files(have, wanted, unfinished)?;
    let [first, others @ ..] = &strange[..] else { return Ok(Ok(())) };
    if files == Ownership::Replaced {
        return Ok(store.remove_files(&strange).map_err(TorrentError::from));
    }
    let first = store.present_path_of(*first);
    Ok(Err(StrangeFiles::Present { first, others: others.len() }.into()))
}
