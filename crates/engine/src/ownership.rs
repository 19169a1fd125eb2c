//! Whose files are that have the names of a torrent's.

use piecework_core::{Bitfield, PieceIndex};
use piecework_storage::{StorageError, Store};

use super::error::{StrangeFiles, TorrentError};

/// Whose files are that have the names of a torrent's, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// They may be somebody's who does not know of the torrent.
    Unknown,
    /// Unfinished ones are the torrent's. Those of final names may be somebody's.
    Unfinished,
    /// The torrent's: it has written to them.
    Ours,
    /// Whatever stands in the torrent's way is replaced, for somebody said so.
    Replaced,
}

/// An error if files that are not the torrent's would be written to when it gets what it is to get;
/// unless they are to be replaced, and then they are removed.
pub(super) fn make_way(
    store: &Store,
    have: &Bitfield,
    wanted: impl Fn(PieceIndex) -> bool,
    files: Ownership,
) -> Result<Result<(), TorrentError>, StorageError> {
    if files == Ownership::Ours {
        return Ok(Ok(()));
    }
    // An unfinished file of which nothing is right is another torrent's of that name.
    let unfinished = matches!(files, Ownership::Unknown | Ownership::Replaced);
    let strange = store.foreign_files(have, wanted, unfinished)?;
    let [first, others @ ..] = &strange[..] else { return Ok(Ok(())) };
    if files == Ownership::Replaced {
        return Ok(store.remove_files(&strange).map_err(TorrentError::from));
    }
    let first = store.present_path_of(*first);
    Ok(Err(StrangeFiles::Present { first, others: others.len() }.into()))
}
